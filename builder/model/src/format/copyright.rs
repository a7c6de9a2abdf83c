//! Machine-readable `debian/copyright` (DEP-5): which licences a package's files are under, and whose they are.
//!
//! A text whose first paragraph names the format is read by it; [`Copyright::parse`] says [`CopyrightError::OtherFormat`]
//! of any other, which is no fault: a third of Debian's are prose. Short names are kept as written, with the text that
//! stands with them or in a paragraph of their own; what they mean is [`crate::sbom::licence`]'s.
//! Reference: copyright-format 1.0.

use std::collections::BTreeMap;

use super::control::{ControlError, Stanzas};

/// More than any such file has: Debian's largest have some 2 MiB.
pub const MOST_BYTES: u64 = 8 << 20;

/// What a copyright file says of a package as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Copyright {
    /// Licences as written (`GPL-2+ or Artistic`), each once: the header's if it has one, else those of all files.
    pub licences: Vec<String>,
    /// Texts by short name, dots for empty lines taken out.
    pub texts: BTreeMap<String, String>,
    /// Statements of copyright, each once, in order.
    pub holders: Vec<String>,
}

/// Why a text is not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CopyrightError {
    /// Written for people.
    #[error("not in the machine-readable format")]
    OtherFormat,
    /// Says that it is machine-readable, and is not.
    #[error(transparent)]
    Control(#[from] ControlError),
}

impl Copyright {
    /// What `text` says.
    pub fn parse(text: &str) -> Result<Self, CopyrightError> {
        let mut stanzas = Stanzas::new(text);
        // Prose is no control file either, so the first error is a matter of format.
        let header = stanzas.next().map_err(|_| CopyrightError::OtherFormat)?.cloned();
        let header = header.ok_or(CopyrightError::OtherFormat)?;
        if !header.value("Format").is_some_and(|format| format.contains("copyright-format")) {
            return Err(CopyrightError::OtherFormat);
        }
        let mut copyright = Self::default();
        let mut of_all = Vec::new();
        if let Some(licence) = header.value("License") {
            copyright.name(licence, &mut of_all);
        }
        copyright.hold(header.value("Copyright"));
        let mut of_files = Vec::new();
        while let Some(stanza) = stanzas.next()? {
            let (files, licence) = (stanza.value("Files"), stanza.value("License"));
            copyright.hold(stanza.value("Copyright"));
            match (files, licence) {
                (Some(_), Some(licence)) => copyright.name(licence, &mut of_files),
                // A licence's own paragraph: its text, not a licence of any file.
                (None, Some(licence)) => copyright.name(licence, &mut Vec::new()),
                (_, None) => {}
            }
        }
        copyright.licences = if of_all.is_empty() { of_files } else { of_all };
        Ok(copyright)
    }

    /// Takes in a `License` field: its first line is the name, the others a text.
    fn name(&mut self, field: &str, names: &mut Vec<String>) {
        let (name, text) = field.split_once('\n').unwrap_or((field, ""));
        let name = name.split_ascii_whitespace().collect::<Vec<_>>().join(" ");
        if !text.trim().is_empty() {
            self.texts.entry(name.clone()).or_insert_with(|| plain(text));
        }
        if !name.is_empty() && !names.contains(&name) {
            names.push(name);
        }
    }

    fn hold(&mut self, field: Option<&str>) {
        for line in field.into_iter().flat_map(str::lines).map(str::trim) {
            if !line.is_empty() && line != "." && !self.holders.iter().any(|holder| holder == line) {
                self.holders.push(line.into());
            }
        }
    }
}

/// A folded text without the blank that begins each line, and without the dots that stand for empty lines.
fn plain(text: &str) -> String {
    let lines = text.lines().map(|line| {
        let line = line.strip_prefix([' ', '\t']).unwrap_or(line).trim_end();
        if line == "." { "" } else { line }
    });
    lines.collect::<Vec<_>>().join("\n").trim_matches('\n').to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\nUpstream-Name: x\n\n\
        Files: *\nCopyright: 2001, A\n  2002, B\nLicense: GPL-2+  or Artistic\n\n\
        Files: a b\nCopyright: 2001, A\nLicense: odd\n Do as\n .\n  you like.\n\n\
        License: GPL-2+\n Long.\n";

    #[test]
    fn licences_texts_and_holders_are_each_told_once() {
        let copyright = Copyright::parse(TEXT).unwrap();
        assert_eq!(copyright.licences, ["GPL-2+ or Artistic", "odd"]);
        assert_eq!(copyright.texts["odd"], "Do as\n\n you like.");
        assert_eq!(copyright.texts["GPL-2+"], "Long.");
        assert_eq!(copyright.holders, ["2001, A", "2002, B"]);
    }

    #[test]
    fn the_licence_of_the_header_is_that_of_the_whole() {
        let whole = TEXT.replace("Upstream-Name: x", "License: MIT");
        assert_eq!(Copyright::parse(&whole).unwrap().licences, ["MIT"]);
    }

    #[test]
    fn prose_is_another_format_and_a_broken_file_is_an_error() {
        for prose in ["", "This package was debianized by N.\n\nIt was downloaded from x\n", "Name: x\nLicense: y\n"] {
            assert_eq!(Copyright::parse(prose), Err(CopyrightError::OtherFormat));
        }
        assert!(matches!(Copyright::parse(&format!("{TEXT}\nno field\n")), Err(CopyrightError::Control(_))));
    }
}
