//! What this host offers to builds: the sandbox's features, the store's file system, where files come from.
//!
//! The sandbox's part is `kiln_sandbox::doctor`'s; here is the rest, in the same words. [`examine`] looks, [`judge`] is
//! pure, so that hosts that nobody has at hand can be judged in tests. Opens no socket, and not the store either: a
//! store that cannot be opened is among what is to be found.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use kiln_model::variation::VARIED_LOCALE;
use kiln_sandbox::doctor::{self as sandbox, Finding, Need, Remedy, State};
use rustix::fs::StatVfsMountFlags;
use serde::Serialize;

use crate::build::{host, slots};
use crate::config::{Config, ConfigError};
use crate::exit;
use crate::fetch::{Archive, Host, Mirrors, apt::Apt, pip::Pip};
use crate::pin::debian::default_keyrings;
use crate::rebuild::locales;

/// What `kiln doctor --json` prints.
#[derive(Debug, Clone, Serialize)]
pub struct Diagnosis {
    schema: &'static str,
    /// kiln's version.
    pub kiln: &'static str,
    /// The kernel's release.
    pub kernel: String,
    /// Whether builds can be isolated here: exit code 3 if not.
    pub isolates: bool,
    /// Whether builds can run here: isolation, and a store to put them in.
    pub builds: bool,
    /// Each feature, in the order in which a build needs it.
    pub findings: Vec<Finding>,
}

/// What was seen of the host outside the sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Surroundings {
    /// The store's root.
    pub store: PathBuf,
    /// What its file system is like.
    pub ground: Result<Ground, String>,
    /// The configuration file, if there is one, or what is wrong with it.
    pub config: Result<Option<PathBuf>, String>,
    /// How many mirrors there are of each archive, or what is wrong with their list.
    pub mirrors: Result<Vec<(String, usize)>, String>,
    /// Keyrings that sign archive indices, and whether each can be read.
    pub keyrings: Vec<(PathBuf, Result<(), String>)>,
    /// For each assembled environment, whether it has the locale that builds are varied to.
    pub environments: Vec<Locale>,
}

/// Whether an environment has the locale that builds are varied to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Locale {
    /// It has.
    There,
    /// It has not.
    Absent,
}

/// What the store's file system is like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ground {
    /// Its name.
    pub file_system: String,
    /// Bytes that are free to the caller.
    pub free: u64,
    /// What keeps a store from being there: not writable, not executable.
    pub unfit: Option<Unfit>,
    /// Whether files can share blocks.
    pub reflinks: Reflinks,
}

/// What keeps a store from being where it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unfit {
    /// The caller may not write there.
    ReadOnly,
    /// Nothing there can be executed.
    NoExec,
}

/// Whether files can share blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reflinks {
    /// They can.
    Shared,
    /// They cannot.
    Copied,
}

impl Diagnosis {
    /// Looks at this host, with the store at `store`.
    pub fn make(store: &Path) -> std::io::Result<Self> {
        let private = tempfile::Builder::new().prefix("kiln-").tempdir()?;
        let facts = sandbox::examine(private.path(), &slots());
        Ok(Self::of(&facts.kernel, sandbox::judge(&facts), judge(&examine(store))))
    }

    /// The same of what was found elsewhere.
    pub fn of(kernel: &str, sandbox: Vec<Finding>, others: Vec<Finding>) -> Self {
        let allows = |findings: &[Finding]| !findings.iter().any(Finding::forbids);
        let isolates = allows(&sandbox);
        Self {
            schema: "kiln/doctor/v1",
            kiln: env!("CARGO_PKG_VERSION"),
            kernel: kernel.into(),
            isolates,
            builds: isolates && allows(&others),
            findings: sandbox.into_iter().chain(others).collect(),
        }
    }

    /// 0, or 3 if builds cannot be isolated here, or 7 if they have no place.
    pub fn exit_code(&self) -> u8 {
        match (self.isolates, self.builds) {
            (false, _) => exit::CANNOT_ISOLATE,
            (true, false) => exit::HOST_FAILED,
            (true, true) => exit::YES,
        }
    }
}

/// Looks at what surrounds a store at `store`.
pub fn examine(store: &Path) -> Surroundings {
    let host = Host::current();
    let config = Config::load(&host);
    let settings = config.as_ref().map(Config::clone).unwrap_or_default();
    let keyrings = Some(settings.keyrings()).filter(|named| !named.is_empty()).unwrap_or_else(default_keyrings);
    let readable = |path: &Path| std::fs::File::open(path).map(drop).map_err(|error| error.to_string());
    Surroundings {
        store: store.into(),
        ground: ground(store),
        config: match &config {
            Ok(config) => Ok(config.file.clone()),
            Err(error @ (ConfigError::Unreadable { .. } | ConfigError::Malformed { .. })) => Err(error.to_string()),
        },
        mirrors: mirrors(&settings, &host),
        keyrings: keyrings.into_iter().map(|path| (path.clone(), readable(&path))).collect(),
        environments: environments(store),
    }
}

fn mirrors(config: &Config, host: &Host) -> Result<Vec<(String, usize)>, String> {
    let mirrors = Mirrors::of(config, host, Some(&Apt::of(host)), Some(&Pip::of(host))).map_err(|e| e.to_string())?;
    let archives = [Archive::Debian("debian".into()), Archive::Debian("debian-security".into()), Archive::Pypi];
    Ok(archives.iter().map(|archive| (archive.to_string(), mirrors.list(archive).len())).collect())
}

fn environments(store: &Path) -> Vec<Locale> {
    let plain = |name: &str| name.replace('-', "").to_ascii_lowercase();
    let entries = std::fs::read_dir(store.join("environments")).into_iter().flatten().flatten();
    let trees = entries.map(|entry| entry.path()).filter(|path| path.is_dir());
    let found = trees.map(|tree| match locales::of(&tree).iter().any(|name| plain(name) == plain(VARIED_LOCALE)) {
        true => Locale::There,
        false => Locale::Absent,
    });
    found.collect()
}

/// The file system of the store, or of the nearest directory above it that exists.
fn ground(store: &Path) -> Result<Ground, String> {
    let absolute = std::path::absolute(store).map_err(|error| error.to_string())?;
    let there = absolute.ancestors().find(|path| path.is_dir()).ok_or("no directory of its path exists")?;
    let told = |error: rustix::io::Errno| format!("{}: {error}", there.display());
    let stat = rustix::fs::statvfs(there).map_err(told)?;
    // Tried: to root, access(2) grants places where nothing can be made.
    let writable = tempfile::tempfile_in(there).is_ok();
    let unfit = if !writable || stat.f_flag.contains(StatVfsMountFlags::RDONLY) {
        Some(Unfit::ReadOnly)
    } else if stat.f_flag.contains(StatVfsMountFlags::NOEXEC) {
        Some(Unfit::NoExec)
    } else {
        None
    };
    Ok(Ground {
        file_system: host::file_system(there),
        free: stat.f_bavail.saturating_mul(stat.f_frsize),
        unfit,
        reflinks: reflinks(there),
    })
}

/// Tried with two files that have no name.
fn reflinks(directory: &Path) -> Reflinks {
    let shared = || -> std::io::Result<()> {
        use std::io::Write as _;
        let (mut from, to) = (tempfile::tempfile_in(directory)?, tempfile::tempfile_in(directory)?);
        from.write_all(&[1; 4096])?;
        rustix::fs::ioctl_ficlone(&to, &from)?;
        match to.metadata()?.size() {
            4096 => Ok(()),
            _ => Err(std::io::ErrorKind::Other.into()),
        }
    };
    if shared().is_ok() { Reflinks::Shared } else { Reflinks::Copied }
}

/// The features of the host outside the sandbox.
pub fn judge(seen: &Surroundings) -> Vec<Finding> {
    vec![store(seen), free_space(seen), reflink(seen), configuration(seen), mirror(seen), keyring(seen), locale(seen)]
}

use Need::{Optional, Required};
use State::{Degraded, Missing};

fn store(seen: &Surroundings) -> Finding {
    let purpose = "inputs, environments and what was built";
    let shown = seen.store.display();
    let elsewhere = Remedy::command("choose another place", "export KILN_STORE=/path/on/a/disk");
    let ground = match &seen.ground {
        Ok(ground) => ground,
        Err(why) => {
            let found = Finding::ok("store", Required, purpose, format!("{shown}: {why}"));
            return found.but(Missing, "nothing can be built", vec![elsewhere]);
        }
    };
    let found = Finding::ok("store", Required, purpose, format!("{shown} on {}", ground.file_system));
    match ground.unfit {
        None => found,
        Some(Unfit::ReadOnly) => Finding { found: format!("{}, which you may not write to", found.found), ..found }
            .but(Missing, "nothing can be built", vec![elsewhere]),
        Some(Unfit::NoExec) => Finding { found: format!("{}, mounted noexec", found.found), ..found }.but(
            Missing,
            "no program of an environment or a build can run",
            vec![elsewhere, Remedy::command("allow it", "sudo mount -o remount,exec MOUNT_POINT")],
        ),
    }
}

fn free_space(seen: &Surroundings) -> Finding {
    /// A base with a compiler, its packages, one more environment and a build of some size.
    const ENOUGH: u64 = 10 << 30;
    let purpose = "environments of 0.3 to 2 GiB each, builds and their outputs";
    let Ok(ground) = &seen.ground else {
        return Finding::ok("free-space", Optional, purpose, "unknown, see `store`");
    };
    let found = Finding::ok("free-space", Optional, purpose, format!("{} GiB", ground.free >> 30));
    if ground.free >= ENOUGH {
        return found;
    }
    found.but(
        Degraded,
        format!("less than {} GiB: larger builds may end with a full disk", ENOUGH >> 30),
        vec![
            Remedy::command("drop what nothing needs", "kiln store gc"),
            Remedy::command("or choose another place", "export KILN_STORE=/path/on/a/disk"),
        ],
    )
}

fn reflink(seen: &Surroundings) -> Finding {
    let purpose = "copies of outputs and environments that share their blocks";
    match &seen.ground {
        Ok(Ground { reflinks: Reflinks::Shared, .. }) => {
            Finding::ok("reflinks", Optional, purpose, "files share blocks")
        }
        Ok(Ground { reflinks: Reflinks::Copied, file_system, .. }) => {
            Finding::ok("reflinks", Optional, purpose, format!("not on {file_system}: bytes are copied")).but(
                Missing,
                "more time and space for each copy",
                vec![Remedy::advice("put the store on btrfs, bcachefs, or on xfs made with reflink=1")],
            )
        }
        Err(_) => Finding::ok("reflinks", Optional, purpose, "unknown, see `store`"),
    }
}

fn configuration(seen: &Surroundings) -> Finding {
    let purpose = "mirrors, keyrings and how many builds run at once";
    match &seen.config {
        Ok(Some(file)) => Finding::ok("configuration", Required, purpose, file.display().to_string()),
        Ok(None) => {
            Finding::ok("configuration", Required, purpose, "no file: defaults, and the host's clients' settings")
        }
        Err(why) => Finding::ok("configuration", Required, purpose, why).but(
            Missing,
            "kiln refuses a configuration that it does not understand (exit code 2)",
            vec![Remedy::advice("mend that file, or name another with KILN_CONFIG")],
        ),
    }
}

fn mirror(seen: &Surroundings) -> Finding {
    let purpose = "packages of environments, sources";
    let remedy = Remedy::command(
        "name one, an address or a directory",
        "mkdir -p ~/.config/kiln && printf '[mirrors]\\ndebian = [\"%s\"]\\n' ADDRESS >>~/.config/kiln/config.toml",
    );
    let cost = "files that the store lacks cannot be had, so nothing new is locked or built";
    match &seen.mirrors {
        Err(why) => Finding::ok("mirrors", Optional, purpose, why).but(Missing, cost, vec![remedy]),
        Ok(list) => {
            let told =
                list.iter().map(|(archive, count)| format!("{count} for {archive}")).collect::<Vec<_>>().join(", ");
            let found = Finding::ok("mirrors", Optional, purpose, told);
            match list.iter().find(|(archive, _)| archive == "debian") {
                Some((_, 1..)) => found,
                _ => found.but(Missing, cost, vec![remedy]),
            }
        }
    }
}

fn keyring(seen: &Surroundings) -> Finding {
    let purpose = "`kiln lock`: who signed an archive's index";
    let shown = |list: &[&(PathBuf, Result<(), String>)]| {
        list.iter().map(|(path, _)| path.display().to_string()).collect::<Vec<_>>().join(", ")
    };
    let lost: Vec<_> = seen.keyrings.iter().filter(|(_, readable)| readable.is_err()).collect();
    if lost.is_empty() {
        return Finding::ok("keyrings", Optional, purpose, shown(&seen.keyrings.iter().collect::<Vec<_>>()));
    }
    let why = lost.iter().filter_map(|(_, readable)| readable.as_ref().err()).next().cloned().unwrap_or_default();
    Finding::ok("keyrings", Optional, purpose, format!("{}: {why}", shown(&lost))).but(
        Missing,
        "recipes cannot be locked; locked ones are built",
        vec![
            Remedy::command("Debian and its kin", "sudo apt install debian-archive-keyring"),
            Remedy::advice(
                "elsewhere: copy that file from a Debian host and name it in `[pin] keyrings` of the configuration",
            ),
        ],
    )
}

fn locale(seen: &Surroundings) -> Finding {
    let purpose = "`kiln check`: a build under another locale";
    let (all, with) = (seen.environments.len(), seen.environments.iter().filter(|l| **l == Locale::There).count());
    match (all, with) {
        (0, _) => Finding::ok("locales", Optional, purpose, "of each recipe's environment; none is assembled yet"),
        (_, 0) => {
            Finding::ok("locales", Optional, purpose, format!("{VARIED_LOCALE} is in none of {all} environments")).but(
                Degraded,
                "the factor `locale` is not varied, and reports say so",
                vec![Remedy::advice(
                    "add \"locales-all\" to environment.debian.packages of a recipe that may depend on it",
                )],
            )
        }
        _ => Finding::ok("locales", Optional, purpose, format!("{VARIED_LOCALE} is in {with} of {all} environments")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole() -> Surroundings {
        Surroundings {
            store: "/home/me/.local/share/kiln".into(),
            ground: Ok(Ground {
                file_system: "btrfs".into(),
                free: 100 << 30,
                unfit: None,
                reflinks: Reflinks::Shared,
            }),
            config: Ok(None),
            mirrors: Ok(vec![("debian".into(), 2), ("pypi".into(), 0)]),
            keyrings: vec![("/usr/share/keyrings/a.gpg".into(), Ok(()))],
            environments: vec![Locale::Absent, Locale::There],
        }
    }

    #[track_caller]
    fn finding(seen: &Surroundings, feature: &str) -> Finding {
        judge(seen).into_iter().find(|finding| finding.feature == feature).unwrap()
    }

    fn on(change: impl FnOnce(&mut Ground)) -> Surroundings {
        let mut seen = whole();
        change(seen.ground.as_mut().unwrap());
        seen
    }

    #[test]
    fn a_host_with_everything_costs_nothing() {
        for finding in judge(&whole()) {
            assert!(
                finding.state == State::Ok && finding.cost.is_empty() && finding.remedies.is_empty(),
                "{finding:#?}"
            );
        }
    }

    #[test]
    fn a_store_where_nothing_can_be_written_or_run_forbids_builds_but_not_isolation() {
        for unfit in [Unfit::ReadOnly, Unfit::NoExec] {
            let seen = on(|ground| ground.unfit = Some(unfit));
            assert!(finding(&seen, "store").forbids());
            let diagnosis = Diagnosis::of("6.18", vec![], judge(&seen));
            assert!(diagnosis.isolates && !diagnosis.builds);
            assert_eq!(diagnosis.exit_code(), 7);
        }
        let seen = Surroundings { ground: Err("no directory".into()), ..whole() };
        assert!(finding(&seen, "store").forbids());
        assert_eq!(finding(&seen, "reflinks").state, State::Ok, "not known is not missing");
    }

    #[test]
    fn what_the_sandbox_lacks_decides_before_the_store() {
        let lacking = Finding::ok("kernel", Required, "x", "4.18").but(Missing, "all", vec![]);
        let diagnosis = Diagnosis::of("4.18", vec![lacking], judge(&on(|g| g.unfit = Some(Unfit::NoExec))));
        assert_eq!(diagnosis.exit_code(), 3);
        assert_eq!(Diagnosis::of("6.18", vec![], judge(&whole())).exit_code(), 0);
    }

    #[test]
    fn little_space_plain_copies_and_no_keyring_are_told_and_allowed() {
        for (seen, feature) in [
            (on(|ground| ground.free = 3 << 30), "free-space"),
            (on(|ground| ground.reflinks = Reflinks::Copied), "reflinks"),
            (Surroundings { keyrings: vec![("/k".into(), Err("no such file".into()))], ..whole() }, "keyrings"),
            (Surroundings { mirrors: Ok(vec![("debian".into(), 0)]), ..whole() }, "mirrors"),
            (Surroundings { mirrors: Err("entry 1 is empty".into()), ..whole() }, "mirrors"),
            (Surroundings { environments: vec![Locale::Absent], ..whole() }, "locales"),
        ] {
            let finding = finding(&seen, feature);
            assert!(finding.state != State::Ok && !finding.forbids(), "{finding:#?}");
            assert!(!finding.cost.is_empty() && !finding.remedies.is_empty(), "{finding:#?}");
        }
    }

    #[test]
    fn a_configuration_that_is_not_understood_forbids_builds() {
        let seen = Surroundings { config: Err("c.toml, line 2: unknown field".into()), ..whole() };
        assert!(finding(&seen, "configuration").forbids());
        assert!(finding(&seen, "configuration").found.contains("line 2"));
    }

    #[test]
    fn a_store_that_is_not_there_yet_is_judged_by_what_is_above_it() {
        let directory = tempfile::tempdir().unwrap();
        let ground = ground(&directory.path().join("not/yet/there")).unwrap();
        assert_eq!((ground.unfit, directory.path().read_dir().unwrap().count()), (None, 0));
        assert_eq!(ground.file_system, host::file_system(directory.path()));
    }
}
