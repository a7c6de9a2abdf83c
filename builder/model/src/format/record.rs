//! `RECORD` of a wheel: every file with its digest and size, as comma-separated values (PEP 376, PEP 427).
//!
//! [`check`] holds it against what is really there. `RECORD` itself and its signatures have no digest; everything else must.

use std::collections::BTreeMap;

use data_encoding::BASE64URL_NOPAD;

use crate::digest::Digest;

/// More than any such file has.
pub const MOST_BYTES: u64 = 64 << 20;

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The file, relative to the wheel's root.
    pub path: String,
    /// What it must be; `None` where the line is silent.
    pub sha256: Option<Digest>,
    /// Bytes.
    pub size: Option<u64>,
}

/// Why a text is not a `RECORD`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct RecordError {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong, and what was expected.
    pub what: &'static str,
}

/// What a `RECORD` says that is not so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A file that it does not list.
    #[error("{path} is in the wheel and not in RECORD")]
    Unlisted {
        /// The file.
        path: String,
    },
    /// A file that is not there.
    #[error("{path} is in RECORD and not in the wheel")]
    Absent {
        /// The file.
        path: String,
    },
    /// Other bytes.
    #[error("{path} has the sha256 {found}, RECORD says {expected}")]
    Digest {
        /// The file.
        path: String,
        /// What `RECORD` says.
        expected: Digest,
        /// What it is.
        found: Digest,
    },
    /// Another size.
    #[error("{path} has {found} bytes, RECORD says {expected}")]
    Size {
        /// The file.
        path: String,
        /// What `RECORD` says.
        expected: u64,
        /// What it is.
        found: u64,
    },
    /// No digest where one must be.
    #[error("{path} has no sha256 in RECORD")]
    NoDigest {
        /// The file.
        path: String,
    },
    /// Two lines for one file.
    #[error("{path} is in RECORD twice")]
    Twice {
        /// The file.
        path: String,
    },
}

/// The lines of a `RECORD`.
pub fn parse(bytes: &[u8]) -> Result<Vec<Line>, RecordError> {
    let text = std::str::from_utf8(bytes).map_err(|_| RecordError { line: 1, what: "not UTF-8 text" })?;
    let mut lines = Vec::new();
    for (number, row) in text.lines().enumerate() {
        let refuse = |what| RecordError { line: number + 1, what };
        if row.is_empty() {
            continue;
        }
        let fields = fields(row).ok_or_else(|| refuse("a quote is not closed"))?;
        let [path, digest, size] = &fields[..] else { return Err(refuse("expected path,digest,size")) };
        if path.is_empty() {
            return Err(refuse("the path is empty"));
        }
        let sha256 = match digest.split_once('=') {
            _ if digest.is_empty() => None,
            Some(("sha256", text)) => {
                let bytes = BASE64URL_NOPAD.decode(text.trim_end_matches('=').as_bytes()).ok();
                let bytes = bytes.and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
                Some(Digest::from_bytes(bytes.ok_or_else(|| refuse("not a sha256 in unpadded base64url"))?))
            }
            // PEP 427 allows stronger ones; nobody writes them.
            _ => return Err(refuse("expected a digest sha256=…")),
        };
        let size = match size.as_str() {
            "" => None,
            size => Some(size.parse().map_err(|_| refuse("the size is not a number"))?),
        };
        lines.push(Line { path: path.clone(), sha256, size });
    }
    Ok(lines)
}

/// The fields of one row (RFC 4180; no file name in a wheel has a line break).
fn fields(row: &str) -> Option<Vec<String>> {
    let mut fields = vec![String::new()];
    let mut characters = row.chars().peekable();
    let mut quoted = false;
    while let Some(c) = characters.next() {
        let field = fields.last_mut()?;
        match c {
            '"' if quoted && characters.peek() == Some(&'"') => {
                characters.next();
                field.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            c => field.push(c),
        }
    }
    (!quoted).then_some(fields)
}

/// What `record`, found at `own`, says of `members` that is not so: at most `most` of it, sorted by path.
pub fn check(record: &[Line], own: &str, members: &BTreeMap<String, (Digest, u64)>, most: usize) -> Vec<Violation> {
    let mut found = BTreeMap::new();
    let mut listed: BTreeMap<&str, &Line> = BTreeMap::new();
    for line in record {
        if listed.insert(&line.path, line).is_some() {
            found.entry(line.path.clone()).or_insert(Violation::Twice { path: line.path.clone() });
        }
    }
    let unsigned = |path: &str| path == own || [".jws", ".p7s"].iter().any(|end| path.strip_suffix(end) == Some(own));
    for (path, &(sha256, size)) in members {
        let violation = match listed.get(path.as_str()) {
            _ if unsigned(path) => continue,
            None => Violation::Unlisted { path: path.clone() },
            Some(Line { sha256: None, .. }) => Violation::NoDigest { path: path.clone() },
            Some(Line { sha256: Some(expected), .. }) if *expected != sha256 => {
                Violation::Digest { path: path.clone(), expected: *expected, found: sha256 }
            }
            Some(Line { size: Some(expected), .. }) if *expected != size => {
                Violation::Size { path: path.clone(), expected: *expected, found: size }
            }
            Some(_) => continue,
        };
        found.entry(path.clone()).or_insert(violation);
    }
    for path in listed.keys().filter(|path| !members.contains_key(**path)) {
        found.entry(path.to_string()).or_insert(Violation::Absent { path: path.to_string() });
    }
    found.into_values().take(most).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HASH: &str = "sha256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU";

    fn members(files: &[(&str, &str)]) -> BTreeMap<String, (Digest, u64)> {
        files.iter().map(|(path, text)| (path.to_string(), (Digest::of(text), text.len() as u64))).collect()
    }

    #[test]
    fn lines_have_a_path_a_digest_and_a_size_or_neither() {
        let lines = parse(format!("a/__init__.py,{HASH},0\r\n\"b,\"\"c\",{HASH},0\nx.dist-info/RECORD,,\n").as_bytes())
            .unwrap();
        assert_eq!(lines[0].sha256, Some(Digest::of("")));
        assert_eq!(lines[1].path, "b,\"c");
        assert_eq!((lines[2].sha256, lines[2].size), (None, None));
    }

    #[test]
    fn what_is_no_line_is_refused_by_number() {
        for (text, line) in [
            ("a,b\n", 1),
            ("\n\"a,,\n", 2),
            ("a,md5=0,1\n", 1),
            ("a,sha256=AAAA,1\n", 1),
            (",,\n", 1),
            ("a,,x\n", 1),
            ("a,,-1\n", 1),
        ] {
            assert_eq!(parse(text.as_bytes()).unwrap_err().line, line, "{text}");
        }
        assert!(parse(b"\xff").is_err());
    }

    #[test]
    fn a_record_that_is_true_has_no_violation() {
        let lines = parse(format!("a,{HASH},0\nd/RECORD,,\nd/RECORD.jws,,\n").as_bytes()).unwrap();
        let there = members(&[("a", ""), ("d/RECORD", "…"), ("d/RECORD.jws", "{}")]);
        assert_eq!(check(&lines, "d/RECORD", &there, 9), []);
    }

    #[test]
    fn every_lie_of_a_record_is_named_and_bounded() {
        let lines = parse(format!("a,{HASH},0\nb,{HASH},0\nc,,\ne,{HASH},7\nz,,\nz,,\n").as_bytes()).unwrap();
        let there = members(&[("a", "other"), ("c", ""), ("d", ""), ("e", "")]);
        let found = check(&lines, "R", &there, 9);
        let told: Vec<String> = found.iter().map(Violation::to_string).collect();
        assert_eq!(told.len(), 6, "{told:?}");
        assert!(told[0].starts_with("a has the sha256"));
        assert_eq!(told[1], "b is in RECORD and not in the wheel");
        assert_eq!(told[2], "c has no sha256 in RECORD");
        assert_eq!(told[3], "d is in the wheel and not in RECORD");
        assert_eq!(told[4], "e has 0 bytes, RECORD says 7");
        assert_eq!(told[5], "z is in RECORD twice");
        assert_eq!(check(&lines, "R", &there, 2).len(), 2);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = parse(&bytes);
        }
    }
}
