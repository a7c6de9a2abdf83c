//! Many ids in one sandbox: which of the host's they are, who may map them, and the mapping itself.
//!
//! An ordinary user is 0 inside and has a line of /etc/subuid and /etc/subgid behind 1 to 65535, mapped by the setuid
//! programs newuidmap and newgidmap, which kiln runs: the launcher and all that it starts have given up such rights for
//! good. Root has a leased run of 65536 ids and writes the maps itself. The host's id 0 is in none of them.
//!
//! # Limits
//! One line must hold the whole range; ids of another source than the two files (subid in nsswitch.conf) are not found.

use std::fs;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{Refusal, SetupError};

/// How many ids there are inside: what Debian's own users and `nobody` (65534) need.
pub(crate) const COUNT: u32 = 1 << 16;

/// The ids of one kind, users or groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ids {
    /// The host's id that is 0 inside.
    pub(crate) zero: u32,
    /// The first of the host's ids that are 1 to 65535 inside.
    pub(crate) others: u32,
}

impl Ids {
    /// Lines of (inside, outside, count), as the kernel takes and shows them.
    fn lines(self) -> [[u32; 3]; 2] {
        [[0, self.zero, 1], [1, self.others, COUNT - 1]]
    }

    /// Whether one of the host's ids is among those that only the range has.
    pub(crate) fn hold(self, id: u32) -> bool {
        (self.others..self.others.saturating_add(COUNT - 1)).contains(&id)
    }
}

/// Who writes the maps.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Writer {
    /// The caller, who is root.
    Caller,
    /// Programs that may.
    Programs { newuidmap: PathBuf, newgidmap: PathBuf },
}

/// The ids of one sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IdRange {
    pub(crate) uids: Ids,
    pub(crate) gids: Ids,
    writer: Writer,
}

impl IdRange {
    /// Root's, beginning at these ids.
    pub(crate) fn of_root(uid: u32, gid: u32) -> Self {
        let ids = |first: u32| Ids { zero: first, others: first + 1 };
        Self { uids: ids(uid), gids: ids(gid), writer: Writer::Caller }
    }

    /// An ordinary user's, or what is missing.
    pub(crate) fn of_user(uid: u32, gid: u32) -> Result<Self, Refusal> {
        if rustix::thread::no_new_privs().unwrap_or(false) {
            return Err(Refusal {
                missing: "permission to map a range of ids".into(),
                why: "kiln was started with no-new-privs, and newuidmap must gain rights".into(),
                remedy: "start kiln outside of the container or service that sets it (systemd: NoNewPrivileges=no)"
                    .into(),
            });
        }
        let newuidmap = program("newuidmap")?;
        let newgidmap = program("newgidmap")?;
        let name = nix::unistd::User::from_uid(nix::unistd::Uid::from_raw(uid)).ok().flatten().map(|user| user.name);
        let Some(name) = name else {
            return Err(Refusal {
                missing: "a name for the caller".into(),
                why: format!("user {uid} is not in /etc/passwd, and newuidmap maps nothing for users without a name"),
                remedy: "run kiln as a user with an account (`adduser`)".into(),
            });
        };
        let others = |file: &str, option: &str| {
            let text = fs::read_to_string(file).unwrap_or_default();
            first_id(&text, &name, uid, COUNT - 1).ok_or_else(|| no_line(file, option, &name, COUNT - 1))
        };
        let uids = Ids { zero: uid, others: others("/etc/subuid", "--add-subuids")? };
        let gids = Ids { zero: gid, others: others("/etc/subgid", "--add-subgids")? };
        Ok(Self { uids, gids, writer: Writer::Programs { newuidmap, newgidmap } })
    }

    /// Writes the maps of the user namespace of the process behind `pidfd`, which waits for them.
    pub(crate) fn write_of(&self, pidfd: BorrowedFd<'_>) -> Result<(), SetupError> {
        let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd())).unwrap_or_default();
        let pid =
            text.lines().find_map(|line| line.strip_prefix("Pid:")?.trim().parse().ok()).filter(|&pid: &i32| pid > 0);
        self.write(pid.ok_or_else(|| failed("finding the process to map for", "it has ended".into()))?)
    }

    /// Writes the maps of the user namespace of a process, and reads them back.
    pub(crate) fn write(&self, pid: i32) -> Result<(), SetupError> {
        for (file, ids) in [("uid_map", self.uids), ("gid_map", self.gids)] {
            let lines = ids.lines();
            // Whatever the host's files and slots say: sysctl files ask for the kuid and not for capabilities.
            if lines.iter().any(|[_, outside, _]| *outside == 0) {
                return Err(failed("mapping", "the host's id 0 is never mapped".into()));
            }
            let path = format!("/proc/{pid}/{file}");
            match (&self.writer, file) {
                (Writer::Caller, _) => {
                    let text: String = lines.iter().map(|[a, b, c]| format!("{a} {b} {c}\n")).collect();
                    fs::write(&path, text).map_err(|error| failed("writing a map", error.to_string()))?;
                }
                (Writer::Programs { newuidmap, .. }, "uid_map") => ask(newuidmap, pid, &lines)?,
                (Writer::Programs { newgidmap, .. }, _) => ask(newgidmap, pid, &lines)?,
            }
            // The pid may have ended and be another's by now: then that one has the maps, and the sandbox none.
            if parsed(&fs::read_to_string(&path).unwrap_or_default()) != lines {
                return Err(failed("mapping", format!("{file} is not what was written")));
            }
        }
        Ok(())
    }
}

/// Runs newuidmap or newgidmap: newuidmap(1).
fn ask(program: &Path, pid: i32, lines: &[[u32; 3]]) -> Result<(), SetupError> {
    let shown = program.display().to_string();
    let output = Command::new(program)
        .arg(pid.to_string())
        .args(lines.iter().flatten().map(u32::to_string))
        .env_clear()
        .output()
        .map_err(|error| failed(&shown, error.to_string()))?;
    match output.status.success() {
        true => Ok(()),
        false => {
            let told = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ");
            Err(failed(&shown, format!("{} ({told})", output.status)))
        }
    }
}

fn failed(act: &str, told: String) -> SetupError {
    SetupError::Ids { act: act.to_owned(), told }
}

/// Where a program is that may write maps for a user. Like newuidmap's callers elsewhere, it is looked for in PATH.
fn program(name: &str) -> Result<PathBuf, Refusal> {
    let list = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&list)
        .chain(["/usr/local/bin", "/usr/bin", "/bin"].map(PathBuf::from))
        .filter(|directory| directory.is_absolute())
        .map(|directory| directory.join(name))
        .find(|path| path.metadata().is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0))
        .ok_or_else(|| Refusal {
            missing: name.to_owned(),
            why: "a user may map ids other than the own one only through it".into(),
            remedy: "Debian, Ubuntu: `sudo apt install uidmap`; elsewhere it is in shadow-utils or shadow".into(),
        })
}

pub(crate) fn no_line(file: &str, option: &str, name: &str, count: u32) -> Refusal {
    Refusal {
        missing: format!("a range of {count} ids for {name}"),
        why: format!("{file} has no line {name}:FIRST:{count}, or one with a larger count, that begins above 0"),
        remedy: format!(
            "choose ids that no other line has: `sudo usermod {option} 100000-{} {name}`",
            100_000 + COUNT - 1
        ),
    }
}

/// The first id of the first line of a user with at least so many: subuid(5). Never 0.
fn first_id(text: &str, name: &str, uid: u32, count: u32) -> Option<u32> {
    ranges(text, name, uid).into_iter().find(|(_, held)| *held >= count).map(|(first, _)| first)
}

/// What the lines of a user give: first id and count. Lines that make no sense, or hold ids that are none, give nothing.
pub(crate) fn ranges(text: &str, name: &str, uid: u32) -> Vec<(u32, u32)> {
    let own = uid.to_string();
    let range = |line: &str| {
        let mut fields = line.trim().split(':');
        let (user, first, count) = (fields.next()?, fields.next()?, fields.next()?);
        if fields.next().is_some() || (user != name && user != own) {
            return None;
        }
        let (first, count): (u32, u32) = (first.parse().ok()?, count.parse().ok()?);
        // The last id is no id: user_namespaces(7), and (uid_t) -1 in chown(2).
        (first > 0 && count > 0 && first.checked_add(count)? < u32::MAX).then_some((first, count))
    };
    text.lines().filter_map(range).collect()
}

/// The lines of a map, as the kernel shows it.
fn parsed(map: &str) -> Vec<[u32; 3]> {
    let line = |line: &str| {
        let mut numbers = line.split_whitespace().map(|number| number.parse().ok());
        Some([numbers.next()??, numbers.next()??, numbers.next()??])
    };
    map.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_s_line_is_found_by_name_or_number_and_must_hold_the_whole_range() {
        let text =
            "other:100000:65536\n# me:1:2\nme:5\nme:x:65536\nme:200000:1000\n1234:300000:65536\nme:400000:65535\n";
        assert_eq!(first_id(text, "me", 1234, COUNT - 1), Some(300_000));
        assert_eq!(first_id(text, "me", 99, COUNT - 1), Some(400_000));
        assert_eq!(first_id(text, "me", 99, COUNT), None);
        assert_eq!(first_id("me:100:65536:9", "me", 99, 1), None, "that is no line of subuid(5)");
    }

    #[test]
    fn a_line_with_the_host_s_root_or_beyond_all_ids_gives_nothing() {
        for line in ["me:0:65536", "me:4294967000:65536", "me:4294901759:65536", "me:-5:65536", "me:100000:0", "me::"] {
            assert_eq!(ranges(line, "me", 5), [], "{line}");
        }
        assert_eq!(ranges("me:1:65536", "me", 5), [(1, COUNT)]);
    }

    #[test]
    fn any_text_of_those_files_is_read_without_harm() {
        // Every cut and every replaced byte of a text with all shapes of lines.
        let text = "me:100000:65536\n1234:4294967295:4294967295\n:::\nme:1:1:1\n\u{e9}:0:0";
        for cut in (0..=text.len()).filter(|cut| text.is_char_boundary(*cut)) {
            let _ = ranges(&text[..cut], "me", 1234);
            for odd in [":", "9", "\0", "-"] {
                let _ = ranges(&format!("{}{odd}{}", &text[..cut], &text[cut..]), "me", 1234);
            }
        }
        assert_eq!(parsed("         0       1234          1\n         1     100000      65535\n").len(), 2);
        assert_eq!(parsed("0 x 1\n\n1 2\n"), Vec::<[u32; 3]>::new());
    }

    #[test]
    fn a_user_is_0_and_its_range_the_rest_and_root_s_range_is_one_run() {
        let user = Ids { zero: 1234, others: 100_000 };
        assert_eq!(user.lines(), [[0, 1234, 1], [1, 100_000, 65_535]]);
        assert!(user.hold(100_000) && user.hold(165_534) && !user.hold(165_535) && !user.hold(1234));
        assert_eq!(IdRange::of_root(200_000, 300_000).gids.lines(), [[0, 300_000, 1], [1, 300_001, 65_535]]);
    }

    #[test]
    fn the_host_s_id_0_is_refused_before_anything_is_written() {
        let range =
            IdRange { uids: Ids { zero: 0, others: 1 }, gids: Ids { zero: 5, others: 6 }, writer: Writer::Caller };
        let error = range.write(i32::MAX).expect_err("it must be refused");
        assert!(error.to_string().contains("never mapped"), "{error}");
    }

    #[test]
    fn what_is_missing_comes_with_the_command_that_brings_it() {
        let line = no_line("/etc/subuid", "--add-subuids", "me", COUNT - 1);
        assert!(line.remedy.contains("usermod --add-subuids 100000-165535 me"), "{line}");
        let absent = program("no-such-program-as-this").expect_err("it is not there");
        assert!(absent.remedy.contains("apt install uidmap"), "{absent}");
    }
}
