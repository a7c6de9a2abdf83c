//! Files of a root file system that is only read: whatever links lie in it, nothing outside of it is (openat2(2),
//! `RESOLVE_IN_ROOT`), and nothing larger than asked for.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags};

/// A root file system.
#[derive(Debug)]
pub struct Root(File);

impl Root {
    /// The root at `place`.
    pub fn open(place: &Path) -> io::Result<Self> {
        Ok(Self(File::open(place)?))
    }

    /// The regular file at `path`, relative to the root; `None` if there is none.
    pub fn read(&self, path: &str, most: u64) -> io::Result<Option<Vec<u8>>> {
        let Some(file) = self.file(path)? else { return Ok(None) };
        let mut bytes = Vec::new();
        file.take(most + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > most {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("larger than {most} bytes")));
        }
        Ok(Some(bytes))
    }

    /// The same, to be read.
    pub fn file(&self, path: &str) -> io::Result<Option<File>> {
        let Some(file) = self.open_in(path, OFlags::NONBLOCK | OFlags::NOCTTY)? else { return Ok(None) };
        Ok(file.metadata()?.is_file().then_some(file))
    }

    /// The names in the directory at `path`, sorted; none if there is no such directory.
    pub fn names(&self, path: &str) -> io::Result<Vec<String>> {
        let Some(directory) = self.open_in(path, OFlags::DIRECTORY)? else { return Ok(Vec::new()) };
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(directory)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if name != "." && name != ".." {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn open_in(&self, path: &str, flags: OFlags) -> io::Result<Option<File>> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        match rustix::fs::openat2(&self.0, path, OFlags::RDONLY | OFlags::CLOEXEC | flags, Mode::empty(), resolve) {
            Ok(file) => Ok(Some(File::from(file))),
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR | rustix::io::Errno::LOOP) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_followed_inside_the_root_and_never_out_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let outside = dir.path().join("outside");
        std::fs::write(&outside, "secret").unwrap();
        let place = dir.path().join("root");
        std::fs::create_dir_all(place.join("doc/a")).unwrap();
        std::fs::write(place.join("doc/a/copyright"), "here").unwrap();
        for (target, name) in [
            ("a", "doc/b"),
            ("/doc/a", "doc/c"),
            ("../../../../../outside", "doc/d"),
            (outside.to_str().unwrap(), "doc/e"),
            ("loop", "loop"),
        ] {
            std::os::unix::fs::symlink(target, place.join(name)).unwrap();
        }
        let root = Root::open(&place).unwrap();
        for path in ["doc/a/copyright", "doc/b/copyright", "doc/c/copyright"] {
            assert_eq!(root.read(path, 4).unwrap().as_deref(), Some(&b"here"[..]), "{path}");
        }
        for path in ["doc/d", "doc/e", "doc/f", "doc/a", "loop", "../outside", "doc/a/copyright/x"] {
            assert_eq!(root.read(path, 100).unwrap(), None, "{path}");
        }
        assert!(root.read("doc/a/copyright", 3).is_err());
        assert_eq!(root.names("doc").unwrap(), ["a", "b", "c", "d", "e"]);
        assert_eq!(root.names("doc/b").unwrap(), ["copyright"]);
        assert_eq!(root.names("none").unwrap(), [""; 0]);
    }
}
