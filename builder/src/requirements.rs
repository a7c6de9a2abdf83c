//! pip's requirements files, as far as they can be pinned: releases by exact version, each with the hashes it may have.
//!
//! Everything else is refused by its line: options, addresses, variables, versions that are not exact. A file that is only
//! partly understood could let pip install what nobody asked about.
//! Reference: pip's "Requirements File Format" and "Hash-checking Mode"; PEP 508, PEP 440.

use std::collections::BTreeSet;
use std::str::FromStr;

use kiln_model::digest::Digest;
use pep440_rs::{Operator, Version, VersionSpecifiers};
use pep508_rs::{Requirement, VersionOrUrl};

/// A release that is asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Pinned {
    /// The requirement as it stands in the file, without options.
    pub text: String,
    /// The project, normalised (PEP 503).
    pub project: String,
    /// Which version.
    pub version: VersionSpecifiers,
    /// Hashes that the file allows, as `ALGORITHM:HEX`; all if there is none.
    pub hashes: BTreeSet<String>,
}

/// Why a line cannot be pinned.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {found:?}: {why}")]
pub struct RequirementsError {
    /// Where it begins, from 1.
    pub line: usize,
    /// Its beginning.
    pub found: String,
    /// What is wrong, and what to do.
    pub why: String,
}

impl Pinned {
    /// Whether a file of `project`, normalised, at `version` is what is asked for.
    pub fn is(&self, project: &str, version: &str) -> bool {
        self.project == project && Version::from_str(version).is_ok_and(|version| self.version.contains(&version))
    }
}

/// The releases that a file asks for, in its order.
pub fn parse(text: &str) -> Result<Vec<Pinned>, RequirementsError> {
    let mut pinned = Vec::new();
    for (number, line) in joined(text) {
        let line = without_comment(&line);
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        if words.is_empty() {
            continue;
        }
        let refused = |why: String| RequirementsError { line: number, found: line.chars().take(120).collect(), why };
        if line.contains("${") {
            return Err(refused("variables are not read: write their values".into()));
        }
        let end = words.iter().position(|word| word.starts_with('-')).unwrap_or(words.len());
        let (asked, options) = words.split_at(end);
        if asked.is_empty() {
            return Err(refused(
                "options are not read: give them to pip itself; for -r, -c and -e, write out the releases they mean (pip freeze, pip-compile)".into(),
            ));
        }
        pinned.push(release(&asked.join(" "), options).map_err(refused)?);
    }
    Ok(pinned)
}

/// What pip reads in `--require-hashes` mode: each release with the digests that it may have.
pub fn print<'a>(releases: impl IntoIterator<Item = (&'a Pinned, &'a BTreeSet<Digest>)>) -> String {
    let mut text = String::new();
    for (release, digests) in releases {
        text.push_str(&release.text);
        for digest in digests {
            text.push_str(&format!(" \\\n    --hash=sha256:{digest}"));
        }
        text.push('\n');
    }
    text
}

/// Lines with those that continue them, and where they begin.
fn joined(text: &str) -> Vec<(usize, String)> {
    let mut lines: Vec<(usize, String)> = Vec::new();
    let mut continues = false;
    for (line, number) in text.lines().zip(1..) {
        let (part, more) = match line.strip_suffix('\\') {
            // A comment ends with its line, whatever that ends in.
            Some(_) if line.trim_start().starts_with('#') => (line, false),
            Some(part) => (part, true),
            None => (line, false),
        };
        match lines.last_mut().filter(|_| continues) {
            Some((_, whole)) => whole.push_str(part),
            None => lines.push((number, part.to_owned())),
        }
        continues = more;
    }
    lines
}

fn without_comment(line: &str) -> &str {
    let mut before = ' ';
    for (at, c) in line.char_indices() {
        if c == '#' && before.is_ascii_whitespace() {
            return &line[..at];
        }
        before = c;
    }
    line
}

fn release(text: &str, options: &[&str]) -> Result<Pinned, String> {
    let requirement: Requirement = Requirement::from_str(text).map_err(|error| error.message.to_string())?;
    let version = match requirement.version_or_url {
        Some(VersionOrUrl::VersionSpecifier(version)) => version,
        Some(VersionOrUrl::Url(_)) => return Err("an address is no release: write NAME==VERSION".into()),
        None => return Err("no version: write NAME==VERSION (pip freeze, pip-compile)".into()),
    };
    let exact = matches!(&version[..], [one] if matches!(one.operator(), Operator::Equal | Operator::ExactEqual));
    if !exact {
        return Err("not one exact version: write NAME==VERSION (pip freeze, pip-compile)".into());
    }
    let mut hashes = BTreeSet::new();
    let mut options = options.iter();
    while let Some(option) = options.next() {
        let hash = match option.strip_prefix("--hash") {
            Some("") => options.next().copied(),
            Some(rest) => rest.strip_prefix('='),
            None => return Err(format!("option {option} is not read; only --hash is")),
        };
        let is_hash = |hash: &&str| {
            let (algorithm, hex) = hash.split_once(':').unwrap_or_default();
            matches!((algorithm, hex.len()), ("sha256", 64) | ("sha384", 96) | ("sha512", 128))
                && hex.bytes().all(|byte| byte.is_ascii_hexdigit())
        };
        let hash =
            hash.filter(is_hash).ok_or("--hash: expected sha256:, sha384: or sha512: and its hexadecimal digits")?;
        hashes.insert(hash.to_ascii_lowercase());
    }
    Ok(Pinned { text: text.into(), project: requirement.name.to_string(), version, hashes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_read_as_pip_reads_them_and_printed_with_their_digests() {
        let digest = Digest::of("x");
        let text = format!(
            "# all of it \\\nIdna==3.7  # remark\n\n  Foo.Bar[a, b] == 1.0 ; python_version >= \"3.8\" \\\n    --hash=sha256:{digest} \\\n    --hash sha512:{}\nzope===2\n",
            "A".repeat(128)
        );
        let pinned = parse(&text).unwrap();
        assert_eq!(pinned.iter().map(|one| one.project.as_str()).collect::<Vec<_>>(), ["idna", "foo-bar", "zope"]);
        assert_eq!(pinned[1].text, "Foo.Bar[a, b] == 1.0 ; python_version >= \"3.8\"");
        assert_eq!(pinned[1].hashes.len(), 2);
        assert!(pinned[1].hashes.contains(&format!("sha512:{}", "a".repeat(128))));
        assert!(pinned[0].is("idna", "3.7") && pinned[0].is("idna", "3.7.0"));
        assert!(!pinned[0].is("idna", "3.8") && !pinned[0].is("idna2", "3.7") && !pinned[0].is("idna", "x"));
        let digests = BTreeSet::from([digest]);
        let printed = print([(&pinned[0], &digests), (&pinned[1], &digests)]);
        assert!(printed.starts_with(&format!("Idna==3.7 \\\n    --hash=sha256:{digest}\nFoo.Bar[a, b]")), "{printed}");
        let again = parse(&printed).unwrap();
        assert_eq!((again.len(), &again[1].text), (2, &pinned[1].text));
    }

    #[test]
    fn what_is_not_one_exact_release_is_refused_with_its_line() {
        for line in [
            "idna",
            "idna>=3",
            "idna==3.*",
            "idna==3.7,!=3.8",
            "idna @ https://example.org/idna-3.7-py3-none-any.whl",
            "https://example.org/idna-3.7-py3-none-any.whl",
            "./idna-3.7-py3-none-any.whl",
            "-r other.txt",
            "-e .",
            "--index-url https://example.org/simple",
            "--hash=sha256:00",
            "idna==3.7 --hash=md5:d41d8cd98f00b204e9800998ecf8427e",
            "idna==3.7 --hash=sha256:00",
            "idna==3.7 --hash",
            "idna==3.7 --config-settings=a=b",
            "idna==${VERSION}",
            "idna==3.7 idna==3.8",
        ] {
            let error = parse(&format!("a==1\n\n{line}\n")).unwrap_err();
            assert_eq!(error.line, 3, "{line}: {error}");
            assert!(error.found.starts_with(&line[..2]), "{line}: {error}");
        }
    }
}
