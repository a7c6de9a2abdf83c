//! Archives as Nix 2.8 wrote them (`vectors/README.md`): printed back byte for byte, and the malformed ones refused.

#![expect(clippy::unwrap_used, reason = "a vector that cannot be read fails its test")]
#![expect(clippy::disallowed_methods, reason = "the vectors are files")]

use std::collections::BTreeSet;
use std::io::{self, Read as _};
use std::path::PathBuf;

use kiln_model::digest::{Digest, NarHash};
use kiln_model::format::nar::{Event, Limits, NarError, decode, frame, reference_scanner};
use kiln_model::name::Name;
use kiln_model::store_path::StorePath;

const LIMITS: Limits = Limits { entries: 1000, bytes: 1 << 20 };

fn vector(path: &str) -> Vec<u8> {
    std::fs::read(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/vectors").join(path)).unwrap()
}

/// Reads an archive and prints it again from what was read.
fn print_again(nar: &[u8], limits: &Limits) -> Result<Vec<u8>, NarError> {
    let mut out = Vec::new();
    frame::start(&mut out);
    let mut named = Vec::new();
    decode(&mut &nar[..], limits, |event| {
        let start = |out: &mut Vec<u8>, name: Option<&[u8]>| {
            if let Some(name) = name {
                frame::entry(out, name);
            }
            name.is_some()
        };
        match event {
            Event::DirectoryStart { name } => {
                named.push(start(&mut out, name));
                frame::directory(&mut out);
            }
            Event::DirectoryEnd => {
                frame::directory_end(&mut out);
                if named.pop().unwrap() {
                    frame::entry_end(&mut out);
                }
            }
            Event::File { name, executable, size, mut contents } => {
                let named = start(&mut out, name);
                if executable {
                    frame::executable(&mut out, size)
                } else {
                    frame::file(&mut out, size)
                }
                contents.read_to_end(&mut out)?;
                frame::file_end(&mut out, size);
                if named {
                    frame::entry_end(&mut out);
                }
            }
            Event::Symlink { name, target } => {
                let named = start(&mut out, name);
                frame::symlink(&mut out, target);
                if named {
                    frame::entry_end(&mut out);
                }
            }
        }
        Ok(())
    })?;
    Ok(out)
}

#[test]
fn archives_print_back_to_the_bytes_they_were_read_from() {
    let table = String::from_utf8(vector("nars.tsv")).unwrap();
    let mut seen = 0;
    for row in table.lines().skip(1) {
        let [file, nar_hash, size, references, address] = row.split('\t').collect::<Vec<_>>()[..] else {
            panic!("{row}")
        };
        let nar = vector(&format!("nar/{file}"));
        assert_eq!(print_again(&nar, &LIMITS).unwrap(), nar, "{file}");
        assert_eq!(nar.len().to_string(), size);
        let digest = NarHash::new(Digest::of(&nar));
        assert_eq!(digest.to_string(), nar_hash);

        let path = StorePath::from_base_name(file.strip_suffix(".nar").unwrap()).unwrap();
        let references: BTreeSet<StorePath> = references.split_whitespace().map(|path| path.parse().unwrap()).collect();
        let mut candidates: Vec<StorePath> = references.iter().cloned().collect();
        candidates.push("/nix/store/00000000000000000000000000000000-not-in-any".parse().unwrap());
        let mut scanner = reference_scanner(&candidates);
        nar.chunks(7).for_each(|chunk| scanner.scan(chunk));
        assert_eq!(scanner.into_matches(), (0..references.len()).collect::<Vec<_>>(), "{file}");

        // One that names itself is hashed with that masked: tests/float.rs.
        if address.starts_with("fixed:r:sha256:") && !references.contains(&path) {
            let name: Name = path.name().parse().unwrap();
            assert_eq!(StorePath::source(&name, &digest, &references), path);
            assert_eq!(StorePath::source_address(&digest), address);
        }
        seen += 1;
    }
    assert!(seen >= 7);
}

#[test]
fn malformed_archives_are_refused() {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/bad-nar");
    for entry in std::fs::read_dir(directory).unwrap() {
        let file = entry.unwrap().file_name().into_string().unwrap();
        let nar = vector(&format!("bad-nar/{file}"));
        match (file.as_str(), print_again(&nar, &LIMITS)) {
            ("00-good" | "21-depth-63", printed) => assert_eq!(printed.unwrap(), nar, "{file}"),
            ("20-depth-70", refused) => assert!(matches!(refused, Err(NarError::TooDeep)), "{refused:?}"),
            (_, printed) => assert!(printed.is_err(), "{file}"),
        }
    }
}

#[test]
fn an_archive_above_the_limits_is_refused() {
    let file = String::from_utf8(vector("nars.tsv")).unwrap();
    let file = file.lines().find(|row| row.contains("-nar-edge")).unwrap().split('\t').next().unwrap().to_owned();
    let nar = vector(&format!("nar/{file}"));
    for (what, limits) in [("entries", Limits { entries: 3, ..LIMITS }), ("bytes", Limits { bytes: 3, ..LIMITS })] {
        let refused = print_again(&nar, &limits);
        assert!(matches!(refused, Err(NarError::TooLarge { what: found, .. }) if found == what), "{refused:?}");
    }
}

#[test]
fn an_error_of_the_visitor_ends_the_walk() {
    let refused = decode(&mut &vector("bad-nar/00-good")[..], &LIMITS, |_| Err(io::Error::other("enough")));
    assert!(matches!(refused, Err(NarError::Io(error)) if error.to_string() == "enough"));
}
