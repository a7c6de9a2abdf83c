//! `wheel-record-order/1`, and the lines of lists of checksums: `RECORD` of a wheel, `md5sums` of a package.
//!
//! A line of such a list follows from the file that it names. Where that file is normalised, its line is, too, but only if
//! it tells the truth: a checksum that is not the file's own stays, and so does its difference.

use std::collections::BTreeMap;

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};

use crate::digest::Digest;

/// What stands in the place of a checksum that follows from a normalised file.
const FOLLOWS: &str = "(follows)";

/// Whether a member of a wheel is its `RECORD`.
pub fn is_record(name: &[u8]) -> bool {
    matches!(name.split(|&b| b == b'/').collect::<Vec<_>>().as_slice(), [directory, b"RECORD"] if directory.ends_with(b".dist-info"))
}

/// The lines of a `RECORD` in the order of their bytes. A line that stands twice stays twice.
pub fn sorted(text: &str) -> String {
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    let mut sorted = lines.join("\n");
    sorted.push('\n');
    sorted
}

/// Lines of `md5sums` without the checksum, where it is that of a normalised file. `files` has their real checksums.
pub fn md5sums(text: &str, files: &BTreeMap<Vec<u8>, [u8; 16]>) -> String {
    lines(text, |line| {
        let (sum, name) = line.split_once("  ")?;
        let real = files.get(name.as_bytes())?;
        (sum == HEXLOWER.encode(real)).then(|| format!("{FOLLOWS}  {name}"))
    })
}

/// Lines of a `RECORD` without the checksum, where it is that of a normalised file. `files` has digest and size.
pub fn record(text: &str, files: &BTreeMap<Vec<u8>, (Digest, u64)>) -> String {
    lines(text, |line| {
        let (rest, size) = line.rsplit_once(',')?;
        let (name, sum) = rest.rsplit_once(",sha256=")?;
        let (digest, length) = files.get(name.as_bytes())?;
        let true_line = sum == BASE64URL_NOPAD.encode(digest.as_bytes()) && size == length.to_string();
        true_line.then(|| format!("{name},{FOLLOWS},{size}"))
    })
}

fn lines(text: &str, changed: impl Fn(&str) -> Option<String>) -> String {
    text.split_inclusive('\n')
        .map(|line| {
            let (body, end) = line.strip_suffix('\n').map_or((line, ""), |body| (body, "\n"));
            changed(body).map_or_else(|| line.to_owned(), |new| new + end)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_known_by_its_place() {
        assert!(is_record(b"idna-3.7.dist-info/RECORD"));
        assert!(!is_record(b"RECORD") && !is_record(b"x.dist-info/y/RECORD") && !is_record(b"x/RECORD"));
    }

    #[test]
    fn lines_are_sorted_and_nothing_is_lost() {
        assert_eq!(sorted("b,1\na,2\nb,1\n"), "a,2\nb,1\nb,1\n");
        assert_ne!(sorted("a\nb\n"), sorted("a\nb\nb\n"));
    }

    #[test]
    fn a_checksum_goes_only_if_it_is_the_files_own() {
        let files = BTreeMap::from([(b"usr/bin/x".to_vec(), [0xab; 16])]);
        let (right, wrong) = ("ab".repeat(16), "cd".repeat(16));
        assert_eq!(md5sums(&format!("{right}  usr/bin/x\n"), &files), "(follows)  usr/bin/x\n");
        for kept in [format!("{wrong}  usr/bin/x\n"), format!("{right}  usr/bin/y\n"), format!("{right} usr/bin/x")] {
            assert_eq!(md5sums(&kept, &files), kept);
        }
    }

    #[test]
    fn a_line_of_a_record_goes_only_if_all_of_it_is_true() {
        let digest = Digest::of("contents");
        let files = BTreeMap::from([(b"x.so".to_vec(), (digest, 8))]);
        let line = format!("x.so,sha256={},8\n", BASE64URL_NOPAD.encode(digest.as_bytes()));
        assert_eq!(record(&line, &files), "x.so,(follows),8\n");
        for kept in [line.replace(",8", ",9"), line.replace("x.so", "y.so"), "x.so,,\n".into()] {
            assert_eq!(record(&kept, &files), kept);
        }
    }
}
