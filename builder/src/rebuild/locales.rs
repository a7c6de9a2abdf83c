//! The locales that programs of an environment find.

use std::collections::BTreeSet;
use std::path::Path;

/// Names of the locales below `root`'s `/usr/lib/locale`: directories, and names in the `locale-archive` file.
pub(crate) fn of(root: &Path) -> BTreeSet<String> {
    let directory = root.join("usr/lib/locale");
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(&directory).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            found.insert(entry.file_name().to_string_lossy().into_owned());
        }
    }
    if let Ok(archive) = std::fs::read(directory.join("locale-archive")) {
        found.extend(archived(&archive));
    }
    found
}

/// The names in a locale archive (glibc, `locale/locarchive.h`): a header of 32-bit words, of which the third to fifth
/// are offset, used and size of a table of (hash, name offset, record offset).
fn archived(archive: &[u8]) -> BTreeSet<String> {
    const MAGIC: u32 = 0xde02_0109;
    let word = |at: usize| {
        let bytes = archive.get(at..at.checked_add(4)?)?;
        Some(u32::from_ne_bytes(bytes.try_into().ok()?))
    };
    let mut names = BTreeSet::new();
    if word(0) != Some(MAGIC) {
        return names;
    }
    let (Some(table), Some(size)) = (word(8), word(16)) else { return names };
    for entry in 0..size as usize {
        let at = table as usize + entry * 12;
        let (Some(name), Some(record)) = (word(at + 4), word(at + 8)) else { break };
        if record == 0 {
            continue;
        }
        let text = archive.get(name as usize..).unwrap_or_default();
        let end = text.iter().position(|b| *b == 0).unwrap_or(0);
        names.insert(String::from_utf8_lossy(&text[..end]).into_owned());
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_are_locales_and_garbage_is_none() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("usr/lib/locale");
        std::fs::create_dir_all(directory.join("C.utf8")).unwrap();
        std::fs::write(directory.join("locale-archive"), b"not an archive").unwrap();
        assert_eq!(of(root.path()), BTreeSet::from(["C.utf8".to_string()]));
    }

    #[test]
    fn names_are_read_from_an_archive() {
        let mut archive = vec![0u8; 64];
        let mut put = |at: usize, value: u32| archive[at..at + 4].copy_from_slice(&value.to_ne_bytes());
        for (at, value) in [(0, 0xde02_0109), (8, 32), (12, 1), (16, 2), (36, 56), (40, 1)] {
            put(at, value);
        }
        archive[56..62].copy_from_slice(b"et_EE\0");
        assert_eq!(archived(&archive), BTreeSet::from(["et_EE".to_string()]));
    }
}
