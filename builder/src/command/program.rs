//! Finding programs in a root that does not exist yet, through the mounts that it will consist of.
//!
//! For choosing along `PATH` and for saying what is missing; the kernel decides in the end. Symlinks are followed as
//! they will lead inside: an absolute one starts at the sandbox's root, not at the host's.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Component, Path, PathBuf};

use super::{Mount, What};

/// The mounts by target.
pub(super) struct View<'a> {
    mounts: BTreeMap<&'a Path, &'a What>,
}

/// What is at a path inside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Inside {
    /// An executable file; this one of the host.
    Program(PathBuf),
    /// Something else.
    Other,
    /// Nothing.
    Absent,
    /// What only the sandbox itself can say.
    Unknown,
}

/// Symlinks on one way: path_resolution(7).
const MOST_LINKS: usize = 40;

impl<'a> View<'a> {
    pub(super) fn of(mounts: &'a [Mount]) -> Self {
        Self { mounts: mounts.iter().map(|mount| (mount.target.as_path(), &mount.what)).collect() }
    }

    /// The host's directory that is the root, if any is.
    pub(super) fn root(&self) -> Option<&Path> {
        match self.mounts.get(Path::new("/")) {
            Some(What::Host(source) | What::Writable(source)) => Some(source),
            Some(What::Memory(_) | What::Link(_)) | None => None,
        }
    }

    /// What is at an absolute path inside, symlinks followed.
    pub(super) fn look(&self, path: &Path) -> Inside {
        let mut at = PathBuf::from("/");
        let mut left: VecDeque<OsString> = parts(path);
        let mut links = 0;
        let mut found = Inside::Other;
        while let Some(part) = left.pop_front() {
            if part == ".." {
                at.pop();
                continue;
            }
            let next = at.join(&part);
            let text = match self.place(&next) {
                Place::Host(source) => match fs::symlink_metadata(&source) {
                    Err(_) => return Inside::Absent,
                    Ok(file) if file.is_symlink() => match fs::read_link(&source) {
                        Err(_) => return Inside::Absent,
                        Ok(text) => text,
                    },
                    Ok(file) => {
                        let executable = file.is_file() && file.permissions().mode() & 0o111 != 0;
                        found = if executable { Inside::Program(source) } else { Inside::Other };
                        at = next;
                        continue;
                    }
                },
                Place::Link(text) => PathBuf::from(text),
                Place::Directory => {
                    (found, at) = (Inside::Other, next);
                    continue;
                }
                Place::Memory => return Inside::Unknown,
                Place::Nothing => return Inside::Absent,
            };
            links += 1;
            if links > MOST_LINKS {
                return Inside::Absent;
            }
            if text.is_absolute() {
                at = PathBuf::from("/");
            }
            for part in parts(&text).into_iter().rev() {
                left.push_front(part);
            }
        }
        found
    }

    /// What one path inside, with no symlink in it, is made of.
    fn place(&self, path: &Path) -> Place {
        if ["/dev", "/proc"].iter().any(|own| path.starts_with(own)) {
            return Place::Memory;
        }
        let above = path.ancestors().find_map(|above| Some((above, *self.mounts.get(above)?)));
        match above {
            Some((above, What::Host(source) | What::Writable(source))) => {
                let rest = path.strip_prefix(above).unwrap_or(Path::new(""));
                let source = if rest.as_os_str().is_empty() { source.clone() } else { source.join(rest) };
                if self.leads_on(path) && !source.exists() { Place::Directory } else { Place::Host(source) }
            }
            Some((above, What::Link(text))) if above == path => Place::Link(text.clone()),
            Some((_, What::Link(_))) => Place::Nothing,
            Some((_, What::Memory(_))) => Place::Memory,
            None if self.leads_on(path) => Place::Directory,
            None => Place::Nothing,
        }
    }

    /// Whether a mount lies below.
    fn leads_on(&self, path: &Path) -> bool {
        self.mounts.keys().any(|target| target.starts_with(path) && *target != path)
    }

    /// What the kernel would start to run this program, if that is missing inside.
    pub(super) fn interpreter(&self, program: &Path) -> Option<PathBuf> {
        let Inside::Program(source) = self.look(program) else { return None };
        let mut head = Vec::new();
        fs::File::open(source).ok()?.take(64 << 10).read_to_end(&mut head).ok()?;
        let interpreter = of_script(&head).or_else(|| of_elf(&head))?;
        (self.look(&interpreter) == Inside::Absent).then_some(interpreter)
    }
}

enum Place {
    Host(PathBuf),
    Link(OsString),
    Directory,
    Memory,
    Nothing,
}

fn parts(path: &Path) -> VecDeque<OsString> {
    let step = |part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    };
    path.components().filter_map(step).collect()
}

/// The interpreter of a first line `#!`: execve(2).
fn of_script(head: &[u8]) -> Option<PathBuf> {
    let line = head.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    let mut words = line.split(|byte| matches!(byte, b' ' | b'\t')).filter(|word| !word.is_empty());
    Some(PathBuf::from(OsStr::from_bytes(words.next()?)))
}

/// The loader that a 64-bit little-endian program names: elf(5), PT_INTERP.
fn of_elf(head: &[u8]) -> Option<PathBuf> {
    const INTERP: u32 = 3;
    if !head.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let bytes = |at: usize, count: usize| head.get(at..at.checked_add(count)?);
    let word = |at: usize| Some(u64::from_le_bytes(bytes(at, 8)?.try_into().ok()?));
    let half = |at: usize| Some(u16::from_le_bytes(bytes(at, 2)?.try_into().ok()?));
    let (table, size, count) = (usize::try_from(word(32)?).ok()?, usize::from(half(54)?), usize::from(half(56)?));
    for number in 0..count {
        let at = table.checked_add(number * size)?;
        if u32::from_le_bytes(bytes(at, 4)?.try_into().ok()?) == INTERP {
            let (offset, length) = (usize::try_from(word(at + 8)?).ok()?, usize::try_from(word(at + 32)?).ok()?);
            let text = bytes(offset, length)?.split(|byte| *byte == 0).next()?;
            return Some(PathBuf::from(OsStr::from_bytes(text)));
        }
    }
    None
}

/// Whether a file is there that is neither a symlink nor anything odd.
pub(super) fn is_plain_file(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interpreters_are_read_from_a_first_line_and_from_a_program_header() {
        assert_eq!(of_script(b"#! /usr/bin/env  python3\n"), Some("/usr/bin/env".into()));
        assert_eq!(of_script(b"plain"), None);
        let mut elf = vec![0; 200];
        elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
        elf[32] = 64;
        (elf[54], elf[56]) = (56, 1);
        (elf[64], elf[72], elf[96]) = (3, 150, 6);
        elf[150..156].copy_from_slice(b"/ld.so");
        assert_eq!(of_elf(&elf), Some("/ld.so".into()));
        for cut in 0..elf.len() {
            let _ = of_elf(&elf[..cut]);
        }
        elf[32..40].fill(0xff);
        assert_eq!(of_elf(&elf), None);
    }

    #[test]
    fn a_path_inside_is_followed_through_mounts_and_links_as_it_will_be() {
        let host = tempfile::tempdir().unwrap();
        let at = |name: &str| host.path().join(name);
        fs::create_dir_all(at("usr/bin")).unwrap();
        fs::write(at("usr/bin/tool"), "x").unwrap();
        fs::set_permissions(at("usr/bin/tool"), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(at("usr/bin/data"), "x").unwrap();
        std::os::unix::fs::symlink("/usr/bin/tool", at("usr/bin/absolute")).unwrap();
        std::os::unix::fs::symlink("../bin/tool", at("usr/bin/relative")).unwrap();
        std::os::unix::fs::symlink("loop", at("usr/bin/loop")).unwrap();
        std::os::unix::fs::symlink("/etc/hostname", at("usr/bin/away")).unwrap();
        let mounts = [
            Mount { target: "/usr".into(), what: What::Host(at("usr")) },
            Mount { target: "/bin".into(), what: What::Link("usr/bin".into()) },
            Mount { target: "/var/tmp".into(), what: What::Memory(1) },
        ];
        let view = View::of(&mounts);
        let tool = Inside::Program(at("usr/bin/tool"));
        for path in ["/usr/bin/tool", "/bin/tool", "/usr/bin/absolute", "/bin/relative", "/usr/../bin/tool"] {
            assert_eq!(view.look(Path::new(path)), tool, "{path}");
        }
        for path in ["/usr/bin/none", "/bin/loop", "/usr/bin/away", "/sbin/tool", "/bin/tool/x"] {
            assert_eq!(view.look(Path::new(path)), Inside::Absent, "{path}");
        }
        for path in ["/usr/bin/data", "/usr/bin", "/var", "/bin"] {
            assert_eq!(view.look(Path::new(path)), Inside::Other, "{path}");
        }
        for path in ["/var/tmp/x", "/proc/self/exe"] {
            assert_eq!(view.look(Path::new(path)), Inside::Unknown, "{path}");
        }
    }
}
