//! Whole sandboxes, tried: the only way to know whether they work here.
//!
//! Each runs a program of a few instructions that only exits, since nothing else can be assumed to be on this host. What
//! [`crate::probe()`] would refuse for is tried all the same: the attempt is what explains.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::Errno;

use crate::error::{PlanError, Refusal, SetupError};
use crate::launcher::{Launcher, Stdio};
use crate::plan::plan;
use crate::probe::{Host, ProcMount, TimeNamespace};
use crate::slot::{Slot, SlotError};
use crate::spec::{Filter, Ids, Input, ProcMode, Spec, TimeBase};
use crate::status::How;

/// What came of trying one kind of sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attempt {
    /// Its program ran.
    Worked {
        /// Landlock's ABI in it.
        landlock_abi: u32,
        /// Its rung of the limits ladder.
        rung: u8,
    },
    /// A step failed.
    Failed {
        /// The step's words, without the process that performs it; empty if it was not a step.
        step: String,
        /// The kernel's answer.
        errno: Option<i32>,
        /// The whole story.
        told: String,
    },
    /// The plan was refused.
    Refused(Refusal),
}

/// All kinds that are tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempts {
    /// As a build has it: full `/proc`, the host's monotonic clocks.
    pub build: Attempt,
    /// With `/proc` of processes only.
    pub strict: Attempt,
    /// Without `/proc`.
    pub bare: Attempt,
    /// With clocks of its own.
    pub clocks: Attempt,
    /// As a fake root.
    pub fake_root: Attempt,
    /// With a bound on total memory.
    pub memory: Attempt,
    /// With a range of ids.
    pub range: Attempt,
}

/// First words of steps, in the order of a plan. Pid 1 builds while the payload's process makes itself ready: what
/// failed in one of the two has passed what came before the fork, and tells nothing of the other; what failed in the payload's
/// after that has seen the new root, and not what pid 1 did since.
const LANES: [(Lane, &[&str]); 4] = [
    (Lane::Before, &["detach", "clone", "map", "clocks", "name", "become", "fork"]),
    (
        Lane::Builds,
        &[
            "further", "mounts", "root", "scratch", "dev", "proc", "bind", "seal", "pivot", "unmount", "join", "drop",
            "let",
        ],
    ),
    (Lane::Readies, &["network", "disarm", "session", "limits", "filter"]),
    (Lane::After, &["await", "lock", "descriptors", "landlock", "execute"]),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Lane {
    Before,
    Builds,
    Readies,
    After,
}

/// Where a step is that begins with this word.
fn place(word: &str) -> Option<(Lane, usize)> {
    LANES.iter().find_map(|(lane, words)| Some((*lane, words.iter().position(|step| *step == word)?)))
}

impl Attempt {
    /// Whether it got beyond the step that begins with this word.
    pub fn passed(&self, word: &str) -> bool {
        match self {
            Self::Worked { .. } => true,
            Self::Failed { step, .. } => {
                // Steps that are not in the list belong to one that is: what lies over /proc, say, comes after it.
                let first = match first_word(step) {
                    "freeze" | "mask" | "cover" | "sys" | "tmpfs" | "file" | "directory" => "bind",
                    "next" => "name",
                    "groups" => "become",
                    "personality" | "affinity" | "umask" => "limits",
                    "enter" | "observe" | "door" => "landlock",
                    "admit" => "unmount",
                    other => other,
                };
                match (place(first), place(word)) {
                    (Some((lane, failed)), Some((other, step))) if lane == other => step < failed,
                    (Some((Lane::After, _)), Some((Lane::Builds, step))) => {
                        place("unmount").is_some_and(|(_, unmount)| step < unmount)
                    }
                    (Some((Lane::After, _)), Some(_)) | (Some(_), Some((Lane::Before, _))) => true,
                    _ => false,
                }
            }
            Self::Refused(_) => false,
        }
    }

    /// Whether it failed at the step that begins with this word, with this answer.
    pub fn failed_with(&self, word: &str, errno: Errno) -> bool {
        matches!(self, Self::Failed { step, errno: Some(found), .. }
            if first_word(step) == word && *found == errno.raw_os_error())
    }

    /// What came of it, in words.
    pub fn told(&self) -> String {
        match self {
            Self::Worked { .. } => "works".into(),
            Self::Failed { told, .. } => told.clone(),
            Self::Refused(refusal) => format!("{} is missing: {}", refusal.missing, refusal.why),
        }
    }
}

impl Attempts {
    /// The one that got furthest of those that differ in `/proc` only.
    pub fn best(&self) -> &Attempt {
        let reach =
            |attempt: &&Attempt| LANES.iter().flat_map(|(_, words)| *words).filter(|word| attempt.passed(word)).count();
        // Of equals the last is taken: the build's, which has most.
        [&self.bare, &self.strict, &self.build].into_iter().max_by_key(reach).unwrap_or(&self.build)
    }

    /// Tries them all, in a private directory below `directory`.
    pub(super) fn make(directory: &Path, host: &Host, slot: Option<&Slot>, range: Result<Slot, SlotError>) -> Self {
        let failed = |told: String| Attempt::Failed { step: String::new(), errno: None, told };
        let all = |told: String| {
            let attempt = || failed(told.clone());
            Self {
                build: attempt(),
                strict: attempt(),
                bare: attempt(),
                clocks: attempt(),
                fake_root: attempt(),
                memory: attempt(),
                range: attempt(),
            }
        };
        let Some(slot) = slot else { return all("no user to run it as".into()) };
        let program = match Program::write(directory) {
            Ok(program) => program,
            Err(error) => return all(format!("writing a program below {}: {error}", directory.display())),
        };
        let launcher = match Launcher::start() {
            Ok(launcher) => launcher,
            Err(error) => return all(chain(&error)),
        };
        // Whatever files and settings say, the kernel is asked.
        let host = Host {
            lacks: Vec::new(),
            proc: ProcMount::Possible,
            time_namespace: TimeNamespace::Possible,
            ..host.clone()
        };
        let with = |slot: &Slot, change: &dyn Fn(&mut Spec)| {
            let mut spec = Spec::new("/program");
            spec.inputs = vec![Input { source: program.path.clone(), target: "/program".into() }];
            spec.time_offsets = None;
            spec.limits.wall = Some(Duration::from_secs(20));
            change(&mut spec);
            try_one(&spec, &host, &launcher, slot)
        };
        let attempt = |change: &dyn Fn(&mut Spec)| with(slot, change);
        Self {
            build: attempt(&|_| {}),
            strict: attempt(&|spec| spec.proc_mode = ProcMode::Strict),
            bare: attempt(&|spec| spec.proc_mode = ProcMode::None),
            clocks: attempt(&|spec| spec.time_offsets = Some(TimeBase { seconds: 86_400 })),
            fake_root: attempt(&|spec| (spec.ids, spec.filter) = (Ids::FakeRoot, Filter::FakeRoot)),
            memory: attempt(&|spec| spec.limits.memory_total = Some(256 << 20)),
            range: match range {
                Ok(slot) => with(&slot, &|spec| spec.ids = Ids::Range),
                Err(SlotError::Range(refusal)) => Attempt::Refused(refusal),
                Err(other) => failed(chain(&other)),
            },
        }
    }
}

fn first_word(step: &str) -> &str {
    step.split([' ', ',']).next().unwrap_or_default()
}

fn try_one(spec: &Spec, host: &Host, launcher: &Launcher, slot: &Slot) -> Attempt {
    let plan = match plan(spec, host) {
        Ok(plan) => plan,
        Err(PlanError::Host(refusal)) => return Attempt::Refused(refusal),
        Err(PlanError::Spec(bad)) => {
            return Attempt::Failed { step: String::new(), errno: None, told: bad.to_string() };
        }
    };
    let ended = launcher.spawn(&plan, slot, Stdio::Log).and_then(|running| running.wait(&mut |_| {}));
    match ended {
        Ok(ended) if ended.how == How::Exited(0) => {
            Attempt::Worked { landlock_abi: ended.achieved.landlock_abi, rung: ended.achieved.rung }
        }
        Ok(ended) => Attempt::Failed {
            step: String::new(),
            errno: None,
            told: format!("a program that only exits ended otherwise: {:?}", ended.how),
        },
        Err(error) => {
            let step = match &error {
                // The first word is the process that performs it.
                SetupError::Step { step, .. } | SetupError::Forbidden { step, .. } => {
                    step.split_once(' ').map_or(step.as_str(), |(_, words)| words)
                }
                _ => "",
            };
            Attempt::Failed { step: step.to_owned(), errno: error.errno(), told: chain(&error) }
        }
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error;
    while let Some(source) = cause.source() {
        text.push_str(&format!(": {source}"));
        cause = source;
    }
    text
}

/// A program that calls exit(0), in a directory of its own that goes with it.
struct Program {
    directory: PathBuf,
    path: PathBuf,
}

impl Program {
    fn write(below: &Path) -> std::io::Result<Self> {
        let directory = below.join(format!("kiln-doctor-{}", std::process::id()));
        DirBuilder::new().mode(0o700).create(&directory)?;
        let program = Self { path: directory.join("program"), directory };
        fs::write(&program.path, elf())?;
        fs::set_permissions(&program.path, fs::Permissions::from_mode(0o555))?;
        Ok(program)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Nothing depends on it, and the next name is another.
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// The smallest static program for x86-64: elf(5), one header, one segment, `exit(0)`.
fn elf() -> Vec<u8> {
    const BASE: u64 = 0x40_0000;
    const HEADERS: u64 = 64 + 56;
    // xor edi, edi; mov eax, 60 (exit); syscall
    const CODE: [u8; 9] = [0x31, 0xff, 0xb8, 0x3c, 0, 0, 0, 0x0f, 0x05];
    let size = HEADERS + CODE.len() as u64;
    let mut bytes = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    let mut put = |parts: &[&[u8]]| parts.iter().for_each(|part| bytes.extend_from_slice(part));
    // Executable for x86-64, version 1; entry, program headers, no sections; flags; sizes and counts.
    put(&[&2u16.to_le_bytes(), &62u16.to_le_bytes(), &1u32.to_le_bytes()]);
    put(&[&(BASE + HEADERS).to_le_bytes(), &64u64.to_le_bytes(), &0u64.to_le_bytes(), &0u32.to_le_bytes()]);
    for count in [64u16, 56, 1, 0, 0, 0] {
        put(&[&count.to_le_bytes()]);
    }
    // Loaded, readable and executable: offset, address twice, size twice, alignment.
    put(&[&1u32.to_le_bytes(), &5u32.to_le_bytes()]);
    for word in [0, BASE, BASE, size, size, 0x1000] {
        put(&[&word.to_le_bytes()]);
    }
    put(&[&CODE]);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_exits_with_0() {
        let directory = tempfile::TempDir::new().expect("a directory");
        let program = Program::write(directory.path()).expect("written");
        let status = std::process::Command::new(&program.path).status().expect("it starts");
        assert_eq!(status.code(), Some(0));
        drop(program);
        assert_eq!(fs::read_dir(directory.path()).expect("there").count(), 0, "nothing is left");
    }

    #[test]
    fn an_attempt_has_passed_what_comes_before_the_step_that_failed() {
        let failed = |step: &str| Attempt::Failed { step: step.into(), errno: Some(1), told: String::new() };
        assert!(failed("proc full").passed("clone") && !failed("proc full").passed("proc"));
        assert!(failed("mask proc/keys").passed("proc") && !failed("mask proc/keys").passed("pivot"));
        assert!(failed("enter /build").passed("session") && failed("enter /build").passed("pivot"));
        assert!(!failed("enter /build").passed("unmount") && failed("drop capabilities").passed("unmount"));
        assert!(failed("network, loopback up").passed("fork") && !failed("network, loopback up").passed("pivot"));
        assert!(!failed("pivot").passed("filter") && !failed("fork").passed("pivot"));
        assert!(!failed("").passed("detach") && !failed("clone user mnt").passed("clone"));
        assert!(failed("clone user mnt").failed_with("clone", Errno::PERM));
        assert!(!failed("clone user mnt").failed_with("clone", Errno::NOSPC));
    }

    #[test]
    fn every_step_of_a_plan_has_its_place_in_the_order() {
        let host = Host { lacks: Vec::new(), proc: ProcMount::Possible, ..crate::probe() };
        let mut spec = Spec::new("/program");
        (spec.ids, spec.filter) = (Ids::FakeRoot, Filter::FakeRoot);
        spec.process.affinity = Some(vec![0]);
        let steps = plan(&spec, &host).expect("possible").to_string();
        let mut unreached: Vec<&str> = LANES.iter().flat_map(|(_, words)| words.iter().copied()).collect();
        let words = unreached.clone();
        for line in steps.lines().filter(|line| !line.starts_with("source")) {
            let step = line.split_whitespace().skip(1).collect::<Vec<_>>().join(" ");
            let attempt = Attempt::Failed { step: step.clone(), errno: None, told: String::new() };
            let before = words.iter().filter(|word| attempt.passed(word)).count();
            assert!(before > 0 || step.starts_with("detach") || step.starts_with("clone user"), "{step} has no place");
            unreached.retain(|word| !step.starts_with(word));
        }
        unreached.retain(|word| !["detach", "bind"].contains(word));
        assert!(unreached.is_empty(), "no plan has {unreached:?}");
    }
}
