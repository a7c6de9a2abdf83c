//! What a Debian source package says of its own build, read out of its archives without unpacking them: the newest entry of the
//! changelog, and whether its rules want a pretended root.
//!
//! Formats 1.0 and 3.0 (native, quilt). A source whose changelog is not where these formats have it is still built: dpkg inside
//! finds it; only what this says is then not known.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use kiln_model::debian::changelog::Entry;
use kiln_model::format::control::Stanzas;

/// Bytes of a changelog or control file that are read; the longest changelogs are some megabytes.
const FILE_BYTES: u64 = 64 << 20;
/// Bytes that a source archive may expand to before the search ends.
const ARCHIVE_BYTES: u64 = 8 << 30;
/// What the xz decoder may allocate: `xz -9` needs 65 MiB.
const XZ_MEMORY: u64 = 96 << 20;

/// What a source says of its build.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SourceSays {
    /// Seconds since 1970 of the newest entry of its changelog.
    pub date: Option<i64>,
    /// Whether its rules are run under `fakeroot`.
    pub root: Root,
}

/// Whether rules are run as a pretended root.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Root {
    /// `Rules-Requires-Root` is not `no`, or not known.
    #[default]
    Pretended,
    /// `Rules-Requires-Root: no`
    None,
}

/// Reads what the source whose files are these (name, place) says.
pub fn read(files: &[(String, PathBuf)]) -> io::Result<SourceSays> {
    let Some((name, path)) = packaging(files) else { return Ok(SourceSays::default()) };
    let (changelog, control) = match name.contains(".diff.") {
        true => of_diff(name, path)?,
        false => of_tar(name, path)?,
    };
    let date = changelog.as_deref().and_then(|text| Entry::newest(text).ok()).map(|entry| entry.date);
    let root = match control.as_deref().and_then(requires_root) {
        Some(value) if value.eq_ignore_ascii_case("no") => Root::None,
        Some(_) | None => Root::Pretended,
    };
    Ok(SourceSays { date, root })
}

/// The file that holds `debian/`: the packaging's own archive or patch, or else the one archive of a native package.
fn packaging(files: &[(String, PathBuf)]) -> Option<&(String, PathBuf)> {
    let ends = |name: &str| !name.ends_with(".asc") && !name.ends_with(".sig");
    let find = |fits: &dyn Fn(&str) -> bool| files.iter().find(|(name, _)| ends(name) && fits(name));
    find(&|name| name.contains(".debian.tar."))
        .or_else(|| find(&|name| name.contains(".diff.")))
        .or_else(|| find(&|name| name.contains(".tar.") && !name.contains(".orig")))
}

fn decoded(name: &str, path: &Path) -> io::Result<Box<dyn Read>> {
    let file = BufReader::with_capacity(64 << 10, File::open(path)?);
    let reader: Box<dyn Read> = if name.ends_with(".xz") || name.ends_with(".lzma") {
        let stream = match name.ends_with(".xz") {
            true => liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY, liblzma::stream::CONCATENATED)?,
            false => liblzma::stream::Stream::new_lzma_decoder(XZ_MEMORY)?,
        };
        Box::new(liblzma::bufread::XzDecoder::new_stream(file, stream))
    } else if name.ends_with(".gz") {
        Box::new(flate2::bufread::MultiGzDecoder::new(file))
    } else if name.ends_with(".bz2") {
        Box::new(bzip2::bufread::MultiBzDecoder::new(file))
    } else {
        Box::new(file)
    };
    Ok(Box::new(reader.take(ARCHIVE_BYTES)))
}

/// `debian/changelog` and `debian/control` of a tar archive, at its top or one directory below.
fn of_tar(name: &str, path: &Path) -> io::Result<(Option<String>, Option<String>)> {
    let mut archive = tar::Archive::new(decoded(name, path)?);
    let (mut changelog, mut control) = (None, None);
    for entry in archive.entries()? {
        let mut entry = entry?;
        let place = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let place = place.strip_prefix("./").unwrap_or(&place);
        let wanted = |file: &str| place == file || place.split_once('/').is_some_and(|(_, rest)| rest == file);
        let slot = match () {
            () if wanted("debian/changelog") => &mut changelog,
            () if wanted("debian/control") => &mut control,
            () => continue,
        };
        // A link in its place is left to dpkg.
        if entry.header().entry_type().is_file() && slot.is_none() {
            *slot = Some(text(&mut entry)?);
        }
        if changelog.is_some() && control.is_some() {
            break;
        }
    }
    Ok((changelog, control))
}

/// The same of a patch that adds them.
fn of_diff(name: &str, path: &Path) -> io::Result<(Option<String>, Option<String>)> {
    let patch = text(&mut decoded(name, path)?)?;
    Ok((added(&patch, "debian/changelog"), added(&patch, "debian/control")))
}

fn text(reader: &mut dyn Read) -> io::Result<String> {
    let mut bytes = Vec::new();
    reader.take(FILE_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The text of a file that a patch makes; `None` if it makes none, or changes one that is there.
fn added(patch: &str, file: &str) -> Option<String> {
    let mut lines = patch.lines();
    lines.find(|line| {
        let name = line.strip_prefix("+++ ").map(|rest| rest.split('\t').next().unwrap_or(rest).trim_end());
        name.is_some_and(|name| name.split_once('/').is_some_and(|(_, rest)| rest == file))
    })?;
    lines.next().filter(|line| line.starts_with("@@ -0,0 "))?;
    let made = lines.map_while(|line| line.strip_prefix('+'));
    Some(made.fold(String::new(), |all, line| all + line + "\n"))
}

/// `Rules-Requires-Root` of a source's own stanza.
fn requires_root(control: &str) -> Option<String> {
    let mut stanzas = Stanzas::new(control);
    stanzas.next().ok()??.value("Rules-Requires-Root").map(str::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    const CHANGELOG: &str = "a (1-1) x; urgency=low\n\n  * B.\n\n -- C <d@e>  Thu, 01 Jan 1970 00:01:00 +0000\n";
    const CONTROL: &str = "Source: a\nRules-Requires-Root: no\n\nPackage: a\n";

    fn gzipped(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn tarred(files: &[(&str, &str)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, content) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            builder.append_data(&mut header, path, content.as_bytes()).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn says(name: &str, bytes: &[u8]) -> io::Result<SourceSays> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        read(&[("a_1.orig.tar.gz".into(), "/nowhere".into()), (name.to_string(), path)])
    }

    #[test]
    fn each_format_has_its_changelog_in_its_own_place() {
        let expected = SourceSays { date: Some(60), root: Root::None };
        let debian = tarred(&[("debian/control", CONTROL), ("debian/changelog", CHANGELOG)]);
        assert_eq!(says("a_1-1.debian.tar.gz", &gzipped(&debian)).unwrap(), expected);
        let native = tarred(&[("a-1/x", "y"), ("a-1/debian/changelog", CHANGELOG), ("a-1/debian/control", CONTROL)]);
        assert_eq!(says("a_1.tar.gz", &gzipped(&native)).unwrap(), expected);
        let plus = |text: &str| text.lines().map(|line| format!("+{line}\n")).collect::<String>();
        let diff = format!(
            "--- a-1.orig/debian/control\n+++ a-1/debian/control\n@@ -0,0 +1,4 @@\n{}--- a-1.orig/debian/changelog\n\
             +++ a-1/debian/changelog\n@@ -0,0 +1,5 @@\n{}",
            plus(CONTROL),
            plus(CHANGELOG)
        );
        assert_eq!(says("a_1-1.diff.gz", &gzipped(diff.as_bytes())).unwrap(), expected);
    }

    #[test]
    fn without_a_word_about_root_one_is_pretended_and_a_changelog_that_is_none_has_no_date() {
        let debian = tarred(&[("debian/control", "Source: a\n"), ("debian/changelog", "no\n")]);
        assert_eq!(says("a_1-1.debian.tar.gz", &gzipped(&debian)).unwrap(), SourceSays::default());
    }

    #[test]
    fn an_archive_that_is_cut_short_is_an_error() {
        let whole = gzipped(&tarred(&[("debian/control", CONTROL)]));
        assert!(says("a_1-1.debian.tar.gz", &whole[..whole.len() - 20]).is_err());
    }
}
