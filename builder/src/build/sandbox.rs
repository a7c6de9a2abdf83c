//! Derivation + conditions → the sandbox's `Spec`: the one function where the two vocabularies meet.
//!
//! The surface is Nix's for every build; conditions lay a variation over it and never touch what the
//! recipe set itself. Pure: which paths exist where is told by [`Places`].

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;
use std::time::Duration;

use kiln_model::contract::Contract;
use kiln_model::derivation::Derivation;
use kiln_model::lower;
use kiln_model::recipe::{Accounts, Limits as RecipeLimits};
use kiln_model::store_path::StorePath;
use kiln_model::variation::{Aslr, BuildFs, Conditions, Kernel};
use kiln_sandbox::{self as sandbox, Filter, Ids, Input, Limits, Network, ProcMode, Root, Spec, Tmpfs, Writable};

/// A build that says nothing else must end within this time.
pub const DEADLINE: Duration = Duration::from_secs(4 * 60 * 60);

/// The build directory's mount point.
const BUILD_TOP: &str = "/build";

/// Where things lie on the host for one build.
#[derive(Debug, Clone)]
pub struct Places {
    /// The materialised environment, `/` of a derivation that enters one.
    pub environment: Option<PathBuf>,
    /// Its users and groups, if the build sees them.
    pub named: Option<Named>,
    /// Store paths of the input closure and where they really are.
    pub inputs: BTreeMap<StorePath, PathBuf>,
    /// The private, empty `/nix/store` of this build.
    pub store: PathBuf,
    /// Its build directory on the store's file system.
    pub build: PathBuf,
    /// Bytes that file systems in memory may hold.
    pub memory: u64,
    /// Bytes of memory that all processes together may have, where this host can hold such a bound.
    pub memory_total: Option<u64>,
    /// Processors of the host that kiln may use, by number.
    pub cpus: Vec<usize>,
}

/// The program of one build and its arguments: the script in the environment's shell, if the derivation enters one.
fn program(derivation: &Derivation, contract: &Contract) -> (Vec<u8>, Vec<Vec<u8>>) {
    match lower::entered(derivation) {
        Some(entered) => {
            let argv = [b"/bin/sh".as_slice(), b"-e", b"-c", entered.script];
            (b"/bin/sh".to_vec(), argv.map(<[u8]>::to_vec).to_vec())
        }
        None => (contract.program.clone(), contract.arguments.clone()),
    }
}

/// The variables of one build: the contract's, with the conditions last.
pub(super) fn variables(contract: &Contract, conditions: &Conditions) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut env = contract.environment.clone();
    let mut set = |key: &str, value: &str| {
        env.insert(key.into(), value.into());
    };
    if let Some(zone) = &conditions.time_zone {
        set("TZ", zone);
    }
    if let Some(locale) = &conditions.locale {
        for key in ["LANG", "LC_ALL", "LANGUAGE"] {
            set(key, locale);
        }
    }
    for (key, value) in &conditions.noise {
        set(key, value);
    }
    if let Some(suffix) = &conditions.path_suffix {
        let path = env.entry(b"PATH".to_vec()).or_default();
        path.push(b':');
        path.extend(suffix.as_bytes());
    }
    env
}

/// The environment's own files of users and groups, for a build that sees them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// `/etc/passwd`.
    pub passwd: Vec<u8>,
    /// `/etc/group`.
    pub group: Vec<u8>,
}

/// The files that kiln lays over the environment's `/etc`: with the control's conditions, Nix's exact bytes.
fn etc(conditions: &Conditions, named: Option<&Named>) -> Vec<(String, Vec<u8>)> {
    let Conditions { user_name, uid, gid, .. } = conditions;
    let passwd = format!(
        "root:x:0:0:Nix build user:/build:/noshell\n\
         {user_name}:x:{uid}:{gid}:Nix build user:/build:/noshell\n\
         nobody:x:65534:65534:Nobody:/:/noshell\n"
    );
    let group = format!("root:x:0:\n{user_name}:!:{gid}:\nnogroup:x:65534:\n");
    let (passwd, group) = match named {
        None => (passwd.into_bytes(), group.into_bytes()),
        Some(named) => {
            (Accounts::merged(&named.passwd, passwd.as_bytes()), Accounts::merged(&named.group, group.as_bytes()))
        }
    };
    let hosts = "127.0.0.1 localhost\n::1 localhost\n";
    vec![("group".into(), group), ("hosts".into(), hosts.as_bytes().to_vec()), ("passwd".into(), passwd)]
}

/// What the sandbox is asked to be for one build.
pub fn spec(
    derivation: &Derivation,
    contract: &Contract,
    conditions: &Conditions,
    limits: &RecipeLimits,
    places: &Places,
) -> Spec {
    let text = OsString::from_vec;
    let (program, argv) = program(derivation, contract);
    let env = variables(contract, conditions).into_iter().map(|(key, value)| text([key, value].join(&b'='))).collect();
    let root = places.environment.clone().map_or(Root::Empty, Root::Tree);
    let mut writable = vec![Writable { source: places.store.clone(), target: "/nix/store".into() }];
    let scratch = |target: &str, mode| Tmpfs { target: target.into(), size: places.memory, inodes: 4 << 20, mode };
    let mut tmpfs = vec![scratch("/tmp", 0o1777), scratch("/dev/shm", 0o1777)];
    if places.environment.is_some() {
        // In Debian's builders it can be written to, and tests of GNU's programs do.
        tmpfs.push(scratch("/var/tmp", 0o1777));
    }
    if conditions.build_dir != BUILD_TOP {
        // Holds nothing but the directories on the way down to the varied one.
        tmpfs.push(Tmpfs { size: 1 << 20, inodes: 64, ..scratch(BUILD_TOP, 0o755) });
    }
    match conditions.build_fs {
        BuildFs::Tmpfs => tmpfs.push(scratch(&conditions.build_dir, 0o700)),
        BuildFs::Store => {
            writable.push(Writable { source: places.build.clone(), target: conditions.build_dir.clone().into() });
        }
    }
    let affinity = conditions.cpus.map(|n| places.cpus.iter().copied().take(n.get() as usize).collect());
    Spec {
        root,
        surface: sandbox::Surface {
            hostname: conditions.hostname.clone(),
            domain: conditions.domain.clone(),
            etc: etc(conditions, places.named.as_ref()),
        },
        process: sandbox::Process {
            program: PathBuf::from(text(program)),
            argv: argv.into_iter().map(text).collect(),
            env,
            cwd: PathBuf::from(&conditions.build_dir),
            umask: conditions.umask.bits(),
            affinity,
            aslr: match conditions.aslr {
                Aslr::Off => sandbox::Aslr::Fixed,
                Aslr::On => sandbox::Aslr::Random,
            },
            personality: match conditions.kernel {
                Kernel::Native => sandbox::Kernel::Native,
                Kernel::Uname26 => sandbox::Kernel::Uname26,
            },
            first_pid: (conditions.first_pid != 2).then_some(conditions.first_pid),
        },
        inputs: places
            .inputs
            .iter()
            .map(|(path, source)| Input { source: source.clone(), target: PathBuf::from(path.to_string()) })
            .collect(),
        writable,
        tmpfs,
        filter: Filter::Build,
        ids: Ids::One { uid: conditions.uid, gid: conditions.gid },
        network: Network::None,
        proc_mode: ProcMode::Compat,
        limits: Limits {
            wall: Some(limits.deadline.map_or(DEADLINE, Duration::from_secs)),
            log_bytes: Some(limits.log_bytes.unwrap_or(256 << 20)),
            memory_total: places.memory_total,
            ..Limits::default()
        },
        watched: BTreeSet::new(),
        time_offsets: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_model::contract::Given;
    use kiln_model::derivation::Parts;
    use std::num::NonZeroU32;

    fn derivation(environment: &[(&str, &str)]) -> Derivation {
        let parts = Parts {
            name: "x".parse().unwrap(),
            outputs: ["out".parse().unwrap()].into(),
            input_derivations: BTreeMap::new(),
            input_sources: Default::default(),
            system: "x86_64-linux".into(),
            builder: b"/nix/store/bin/busybox".to_vec(),
            arguments: vec![b"sh".to_vec()],
            environment: environment.iter().map(|(k, v)| (k.as_bytes().to_vec(), v.as_bytes().to_vec())).collect(),
        };
        Derivation::close(parts, &BTreeMap::new()).unwrap().derivation
    }

    fn places() -> Places {
        Places {
            environment: None,
            named: None,
            inputs: BTreeMap::new(),
            store: "/s".into(),
            build: "/b".into(),
            memory: 1,
            memory_total: None,
            cpus: vec![3, 5],
        }
    }

    fn control() -> Conditions {
        Conditions::control(NonZeroU32::new(2).unwrap())
    }

    fn spec_of(derivation: &Derivation, conditions: &Conditions) -> Spec {
        let outputs =
            derivation.outputs.iter().map(|(name, output)| (name.clone(), output.path().unwrap().clone())).collect();
        let contract = derivation.contract(&Given {
            outputs: &outputs,
            cores: conditions.cores.get(),
            home: &conditions.home,
            directory: &conditions.build_dir,
            closure: &|_| None,
            caller: &|_| None,
        });
        spec(derivation, &contract.unwrap(), conditions, &RecipeLimits::default(), &places())
    }

    #[test]
    fn the_program_and_its_sorted_variables_are_the_contracts() {
        let derivation = derivation(&[("PATH", "/x"), ("TMP", "/y")]);
        let spec = spec_of(&derivation, &control());
        let env: Vec<String> = spec.process.env.iter().map(|e| e.to_string_lossy().into_owned()).collect();
        assert!(env.contains(&"PATH=/x".into()) && env.contains(&"TMP=/build".into()), "{env:?}");
        assert!(env.is_sorted());
        assert_eq!(spec.process.argv, ["busybox", "sh"]);
    }

    #[test]
    fn under_the_controls_conditions_etc_is_nixs_to_the_byte() {
        let mut nix = sandbox::Surface::default().etc;
        nix.sort();
        assert_eq!(etc(&control(), None), nix);
    }

    #[test]
    fn conditions_lay_over_the_derivation_what_was_varied() {
        let mut conditions = control();
        conditions.cpus = NonZeroU32::new(1);
        conditions.path_suffix = Some("/more".into());
        conditions.time_zone = Some("GMT-14".into());
        let spec = spec_of(&derivation(&[("PATH", "/x")]), &conditions);
        assert_eq!(spec.process.affinity, Some(vec![3]));
        assert!(spec.process.env.contains(&"PATH=/x:/more".into()));
        assert!(spec.process.env.contains(&"TZ=GMT-14".into()));
    }
}
