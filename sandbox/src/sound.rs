//! Whether a spec says something that can be, on whatever host.
//!
//! Pure. What is wrong here is the caller's to mend, never the host's: a [`BadSpec`] names the field, its value, and what to
//! put there. No file is looked at: what is not there shows when the sandbox is started.

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr};
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use crate::error::BadSpec;
use crate::filter;
use crate::spec::{Filter, Ids, ProcMode, Root, Spec};

/// More inputs than this are refused: each is a mount, and the kernel allows 100 000 in a namespace, the caller's own
/// included (`fs.mount-max`).
pub const MOST_INPUTS: usize = 10_000;

/// Below this not even pid 1 and an `execve` fit.
const LEAST_MEMORY: u64 = 1 << 20;

/// Seconds that a clock's offset can have: KTIME_SEC_MAX / 2, time_namespaces(7).
const MOST_SECONDS: u64 = 4_611_686_018;

/// A field of a spec, by the name that it has there.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Field {
    /// One by itself.
    Of(&'static str),
    /// One of an element of a list.
    In(&'static str, usize, &'static str),
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Of(name) => f.write_str(name),
            Self::In(list, index, "") => write!(f, "{list}[{index}]"),
            Self::In(list, index, name) => write!(f, "{list}[{index}].{name}"),
        }
    }
}

pub(crate) fn bad(field: Field, value: impl fmt::Display, problem: &str, remedy: &str) -> BadSpec {
    BadSpec { field: field.to_string(), value: value.to_string(), problem: problem.into(), remedy: remedy.into() }
}

fn quoted(text: &OsStr) -> String {
    format!("{:?}", text.to_string_lossy())
}

/// Refuses what contradicts itself, and limits that are none.
pub(crate) fn check(spec: &Spec) -> Result<(), BadSpec> {
    limits(spec)?;
    watched(spec)?;
    let field = Field::Of;
    if let Some(base) = spec.time_offsets.filter(|base| base.seconds > MOST_SECONDS) {
        let problem = "that is beyond what a clock can show";
        return Err(bad(field("time_offsets"), base.seconds, problem, "give at most 4611686018 seconds, or None"));
    }
    match (spec.ids, spec.filter) {
        (Ids::One { .. } | Ids::Range, Filter::Build) | (Ids::FakeRoot, Filter::FakeRoot) => {}
        (Ids::One { .. } | Ids::Range, Filter::FakeRoot) => {
            return Err(bad(field("filter"), "FakeRoot", "it needs ids FakeRoot", "set both or neither"));
        }
        (Ids::FakeRoot, Filter::Build) => {
            return Err(bad(field("ids"), "FakeRoot", "it needs filter FakeRoot", "set both or neither"));
        }
    }
    if spec.ids == Ids::FakeRoot && spec.proc_mode == ProcMode::None {
        let problem = "ids FakeRoot needs /proc, to write its second id map";
        return Err(bad(field("proc_mode"), "None", problem, "choose Strict or Compat"));
    }
    for (name, text) in [("surface.hostname", &spec.surface.hostname), ("surface.domain", &spec.surface.domain)] {
        if text.is_empty() || text.len() > 64 || text.contains('\0') {
            return Err(bad(
                field(name),
                format!("{text:?}"),
                "no host has this name",
                "give 1 to 64 bytes without NUL",
            ));
        }
    }
    for (index, (name, _)) in spec.surface.etc.iter().enumerate() {
        if name.is_empty() || name.starts_with('/') {
            let problem = "it is no name below /etc";
            return Err(bad(
                Field::In("surface.etc", index, "0"),
                format!("{name:?}"),
                problem,
                "give a relative path",
            ));
        }
    }
    let process = &spec.process;
    if process.umask & !0o777 != 0 {
        let value = format!("{:o}", process.umask);
        return Err(bad(field("process.umask"), value, "it exceeds 777", "give permission bits alone"));
    }
    if process.affinity.as_ref().is_some_and(Vec::is_empty) {
        return Err(bad(field("process.affinity"), "empty", "nothing runs on no processor", "name one, or give None"));
    }
    if let Some(pid) = process.first_pid.filter(|&pid| pid < 2) {
        return Err(bad(field("process.first_pid"), pid, "pid 1 is kiln's", "give at least 2, or None"));
    }
    places(spec)
}

fn watched(spec: &Spec) -> Result<(), BadSpec> {
    if let Some((index, call)) = spec.watched.iter().enumerate().find(|(_, call)| **call >= filter::BEYOND) {
        let problem = "the filter does not know this call and answers it ENOSYS";
        return Err(bad(Field::In("watched", index, ""), call, problem, "leave it out"));
    }
    match spec.limits.processes {
        Some(count) if !spec.watched.is_empty() && count < 3 => {
            let problem = "watched calls need one more process, that opens the door";
            Err(bad(Field::Of("limits.processes"), count, problem, "give at least 3"))
        }
        Some(_) | None => Ok(()),
    }
}

fn limits(spec: &Spec) -> Result<(), BadSpec> {
    let limits = &spec.limits;
    let counts = [
        ("limits.cpu", limits.cpu),
        ("limits.cpu_total", limits.cpu_total),
        ("limits.address_space", limits.address_space),
        ("limits.processes", limits.processes),
        ("limits.open_files", limits.open_files),
        ("limits.file_size", limits.file_size),
        ("limits.log_bytes", limits.log_bytes),
        ("limits.memory_total", limits.memory_total),
        ("limits.disk_bytes", limits.disk_bytes),
        ("limits.disk_inodes", limits.disk_inodes),
        ("limits.wall", limits.wall.map(|wall| u64::try_from(wall.as_nanos()).unwrap_or(u64::MAX))),
    ];
    const NONE: &str = "nothing runs within that, and some kernel interfaces read it as unbounded";
    if let Some((name, _)) = counts.into_iter().find(|(_, value)| *value == Some(0)) {
        return Err(bad(Field::Of(name), 0, NONE, "give at least 1, or None for no bound"));
    }
    if let Some(bytes) = limits.memory_total.filter(|&bytes| bytes < LEAST_MEMORY) {
        let problem = "no program starts in less than 1048576 bytes";
        return Err(bad(Field::Of("limits.memory_total"), bytes, problem, "give more, or None for no bound"));
    }
    for (index, tmpfs) in spec.tmpfs.iter().enumerate() {
        for (name, value) in [("size", tmpfs.size), ("inodes", tmpfs.inodes)] {
            if value == 0 {
                let problem = "for a file system in memory that means no bound at all";
                return Err(bad(Field::In("tmpfs", index, name), 0, problem, "give at least 1, or leave it out"));
            }
        }
    }
    match spec.inputs.len() {
        count if count > MOST_INPUTS => {
            let problem = format!("that is more than the {MOST_INPUTS} mounts that one sandbox may have");
            Err(bad(Field::Of("inputs"), format!("{count} inputs"), &problem, "mount a directory that holds them"))
        }
        _ => Ok(()),
    }
}

/// Sources that no file can have, and targets of which two are one.
fn places(spec: &Spec) -> Result<(), BadSpec> {
    let sources = [("inputs", "source"), ("writable", "source")];
    let inputs = spec.inputs.iter().map(|input| &input.source).enumerate().map(|found| (sources[0], found));
    let writable = spec.writable.iter().map(|writable| &writable.source).enumerate().map(|found| (sources[1], found));
    for ((list, name), (index, source)) in inputs.chain(writable) {
        without_nul(Field::In(list, index, name), source.as_os_str())?;
    }
    if let Root::Tree(path) | Root::WritableTree(path) = &spec.root {
        without_nul(Field::Of("root"), path.as_os_str())?;
    }
    let mut taken: BTreeMap<&Path, Field> = BTreeMap::new();
    let inputs = spec.inputs.iter().enumerate().map(|(n, input)| (Field::In("inputs", n, "target"), &input.target));
    let writable = spec.writable.iter().enumerate().map(|(n, w)| (Field::In("writable", n, "target"), &w.target));
    let tmpfs = spec.tmpfs.iter().enumerate().map(|(n, tmpfs)| (Field::In("tmpfs", n, "target"), &tmpfs.target));
    for (field, target) in inputs.chain(writable).chain(tmpfs) {
        if let Some(other) = taken.insert(target, field) {
            let problem = format!("{other} is the same, and two mounts cannot be at one place");
            return Err(bad(field, target.display(), &problem, "leave one out"));
        }
    }
    Ok(())
}

/// A mount target, relative to the root. `/dev` and `/proc` are the sandbox's own, but for `exceptions`.
pub(crate) fn target(field: Field, path: &Path, exceptions: &[&str]) -> Result<CString, BadSpec> {
    let absolute = absolute(field, path)?;
    let relative = absolute.to_bytes().strip_prefix(b"/").unwrap_or_default();
    let text = Path::new(OsStr::from_bytes(relative));
    if relative.is_empty() {
        return Err(bad(field, "/", "that is the root's place", "give it as the spec's root, or choose a place below"));
    }
    let taken = ["dev", "proc"].iter().any(|own| text.starts_with(own));
    if taken && !exceptions.iter().any(|exception| text == Path::new(exception)) {
        let problem = "/dev and /proc belong to the sandbox";
        return Err(bad(field, path.display(), problem, "choose another place"));
    }
    c_string(field, OsStr::from_bytes(relative))
}

/// An absolute path without `.` and `..`, normalised.
pub(crate) fn absolute(field: Field, path: &Path) -> Result<CString, BadSpec> {
    let plain = path.components().all(|component| matches!(component, Component::RootDir | Component::Normal(_)));
    if !path.is_absolute() || !plain {
        let problem = "it must be absolute and without `..`";
        return Err(bad(field, quoted(path.as_os_str()), problem, "write it from / on"));
    }
    let normal: PathBuf = path.components().collect();
    c_string(field, normal.as_os_str())
}

fn without_nul(field: Field, text: &OsStr) -> Result<(), BadSpec> {
    match text.as_bytes().contains(&0) {
        true => Err(bad(field, quoted(text), "it contains NUL, where the kernel would end it", "leave the NUL out")),
        false => Ok(()),
    }
}

/// Text that reaches the kernel.
pub(crate) fn c_string(field: Field, text: &OsStr) -> Result<CString, BadSpec> {
    without_nul(field, text)?;
    // Cannot fail any more; the error is the same.
    CString::new(text.as_bytes()).map_err(|_| bad(field, quoted(text), "it contains NUL", "leave the NUL out"))
}

/// The same for a list of texts.
pub(crate) fn c_strings(list: &'static str, texts: &[impl AsRef<OsStr>]) -> Result<Vec<CString>, BadSpec> {
    texts.iter().enumerate().map(|(index, text)| c_string(Field::In(list, index, ""), text.as_ref())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{Input, TimeBase, Tmpfs, Writable};
    use crate::{Host, PlanError, plan, probe};
    use std::time::Duration;

    /// A host that lacks what every sandbox needs: bad input is told all the same.
    fn incapable() -> Host {
        let lack = crate::Refusal { missing: "all".into(), why: "so".into(), remedy: "none".into() };
        Host { lacks: vec![lack], ..probe() }
    }

    /// The spec is bad, and the error says where, what is there, and what to do.
    #[track_caller]
    fn bad_input(change: impl FnOnce(&mut Spec), field: &str, words: &str) {
        let mut spec = Spec::new("/program");
        spec.inputs = vec![Input { source: "/s".into(), target: "/input".into() }];
        spec.writable = vec![Writable { source: "/w".into(), target: "/build".into() }];
        change(&mut spec);
        let PlanError::Spec(bad) = plan(&spec, &incapable()).expect_err("it must be refused") else {
            panic!("the host is blamed for {field}")
        };
        assert_eq!(bad.field, field, "{bad}");
        assert!(bad.to_string().contains(words), "{bad}");
        assert!(!bad.value.is_empty() && !bad.problem.is_empty() && !bad.remedy.is_empty(), "{bad:?}");
    }

    #[test]
    fn a_limit_of_0_is_bad_input_by_its_name() {
        bad_input(|spec| spec.limits.wall = Some(Duration::ZERO), "limits.wall", "is 0");
        bad_input(|spec| spec.limits.cpu = Some(0), "limits.cpu", "is 0");
        bad_input(|spec| spec.limits.cpu_total = Some(0), "limits.cpu_total", "is 0");
        bad_input(|spec| spec.limits.address_space = Some(0), "limits.address_space", "is 0");
        bad_input(|spec| spec.limits.processes = Some(0), "limits.processes", "is 0");
        bad_input(|spec| spec.limits.open_files = Some(0), "limits.open_files", "is 0");
        bad_input(|spec| spec.limits.file_size = Some(0), "limits.file_size", "is 0");
        bad_input(|spec| spec.limits.log_bytes = Some(0), "limits.log_bytes", "is 0");
        bad_input(|spec| spec.limits.memory_total = Some(0), "limits.memory_total", "is 0");
        bad_input(|spec| spec.limits.disk_bytes = Some(0), "limits.disk_bytes", "is 0");
        bad_input(|spec| spec.limits.disk_inodes = Some(0), "limits.disk_inodes", "is 0");
        bad_input(|spec| spec.tmpfs = vec![Tmpfs { size: 0, ..Tmpfs::scratch("/tmp") }], "tmpfs[0].size", "no bound");
        bad_input(|spec| spec.tmpfs = vec![Tmpfs { inodes: 0, ..Tmpfs::scratch("/t") }], "tmpfs[0].inodes", "no bound");
        bad_input(|spec| spec.limits.memory_total = Some(4096), "limits.memory_total", "no program starts in less");
    }

    #[test]
    fn more_inputs_than_mounts_are_bad_input() {
        let input = |number: usize| Input { source: "/".into(), target: format!("/n{number}").into() };
        bad_input(|spec| spec.inputs = (0..=MOST_INPUTS).map(input).collect(), "inputs", "10001 inputs");
    }

    #[test]
    fn places_that_cannot_be_are_bad_input() {
        let target = |text: &'static str| move |spec: &mut Spec| spec.inputs[0].target = text.into();
        bad_input(target("relative"), "inputs[0].target", "\"relative\": it must be absolute");
        bad_input(target("/a/../b"), "inputs[0].target", "..");
        bad_input(target(""), "inputs[0].target", "absolute");
        bad_input(target("/"), "inputs[0].target", "root");
        bad_input(target("/proc/self"), "inputs[0].target", "belong to the sandbox");
        bad_input(target("/a\0b"), "inputs[0].target", "NUL");
        bad_input(|spec| spec.writable[0].target = "/dev/x".into(), "writable[0].target", "belong to the sandbox");
        bad_input(
            |spec| spec.tmpfs.push(Tmpfs::scratch("/build")),
            "tmpfs[2].target",
            "writable[0].target is the same",
        );
        bad_input(target("/build/"), "writable[0].target", "inputs[0].target is the same");
        bad_input(|spec| spec.inputs[0].source = "/s\0".into(), "inputs[0].source", "NUL");
        bad_input(|spec| spec.writable[0].source = "/s\0".into(), "writable[0].source", "NUL");
        bad_input(|spec| spec.root = Root::Tree("/r\0".into()), "root", "NUL");
        bad_input(|spec| spec.surface.etc = vec![("../x".into(), vec![])], "surface.etc[0]", "..");
        bad_input(|spec| spec.surface.etc = vec![("/x".into(), vec![])], "surface.etc[0].0", "below /etc");
    }

    #[test]
    fn a_process_that_cannot_be_is_bad_input() {
        bad_input(|spec| spec.process.program = "program".into(), "process.program", "absolute");
        bad_input(|spec| spec.process.program = "/a/../b".into(), "process.program", "..");
        bad_input(|spec| spec.process.cwd = "here".into(), "process.cwd", "absolute");
        bad_input(|spec| spec.process.env = vec!["B=1".into(), "A=\0".into()], "process.env[1]", "NUL");
        bad_input(|spec| spec.process.argv = vec!["a\0b".into()], "process.argv[0]", "NUL");
        bad_input(|spec| spec.process.first_pid = Some(1), "process.first_pid", "pid 1 is kiln's");
        bad_input(|spec| spec.process.affinity = Some(Vec::new()), "process.affinity", "no processor");
        bad_input(|spec| spec.process.umask = 0o7777, "process.umask", "7777");
        bad_input(|spec| spec.surface.hostname = "x".repeat(65), "surface.hostname", "64 bytes");
        bad_input(|spec| spec.surface.domain = "a\0".into(), "surface.domain", "NUL");
    }

    #[test]
    fn fields_that_contradict_each_other_are_bad_input() {
        bad_input(|spec| spec.filter = Filter::FakeRoot, "filter", "needs ids FakeRoot");
        bad_input(|spec| spec.ids = Ids::FakeRoot, "ids", "needs filter FakeRoot");
        bad_input(|spec| (spec.ids, spec.filter) = (Ids::Range, Filter::FakeRoot), "filter", "needs ids FakeRoot");
        let hidden = |spec: &mut Spec| {
            (spec.ids, spec.filter) = (Ids::FakeRoot, Filter::FakeRoot);
            spec.proc_mode = ProcMode::None;
        };
        bad_input(hidden, "proc_mode", "needs /proc");
        bad_input(|spec| spec.time_offsets = Some(TimeBase { seconds: u64::MAX }), "time_offsets", "clock");
        bad_input(|spec| spec.watched = [100_000].into(), "watched[0]", "does not know");
        let crowded = |spec: &mut Spec| {
            spec.watched = [1].into();
            spec.limits.processes = Some(2);
        };
        bad_input(crowded, "limits.processes", "opens the door");
    }
}
