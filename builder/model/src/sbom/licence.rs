//! Licences as SPDX expressions, from what packages say in their own words.
//!
//! [`Licence`] is always a valid expression: a name that SPDX's list has is that identifier, any other becomes a
//! `LicenseRef-` of its own, with the text that defines it; its name ends in digits of that text's digest, since packages
//! mean different texts by one name. Nothing is guessed: "GPL" without a version is such a reference, too.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::format::copyright::{Copyright, CopyrightError};

/// Bytes of words that are taken apart; what is longer is a text.
const MOST_WORDS: usize = 4 << 10;

/// A licence as an expression, and what of it SPDX does not know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Licence {
    /// A valid SPDX expression.
    pub expression: String,
    /// Each `LicenseRef-` in it.
    pub references: BTreeMap<String, Reference>,
}

/// A licence that SPDX's list does not have.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Reference {
    /// What it is called where it was found.
    pub name: String,
    /// Its text; only its name, if there is none.
    pub text: String,
}

/// What a package's copyright file comes to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Told {
    /// The licence of the package as a whole: of all its files together. Absent if it says nothing.
    pub licence: Option<Licence>,
    /// Statements of copyright, one a line.
    pub copyright: Option<String>,
}

impl Licence {
    /// From a text that should be an expression: a recipe's, or a wheel's `License-Expression`.
    pub fn of_expression(text: &str) -> Option<Self> {
        let canonical = spdx::Expression::canonicalize(text).ok().flatten();
        let text = canonical.as_deref().unwrap_or(text).trim();
        let expression = spdx::Expression::parse(text).ok()?;
        // References of others have no text here: they could not be told.
        let known = expression.requirements().all(|one| one.req.license.id().is_some());
        known.then(|| Self { expression: text.into(), references: BTreeMap::new() })
    }

    /// From a name or an expression in somebody's own words, such as a wheel's `License` or Debian's short names.
    pub fn of_words(words: &str, texts: &BTreeMap<String, String>) -> Self {
        if words.len() > MOST_WORDS {
            let name: String = words.chars().take(60).collect();
            return Self::of_text(&name, words);
        }
        let mut references = BTreeMap::new();
        let expression = Words { texts, references: &mut references }.expression(words);
        Self { expression, references }
    }

    /// From a text that is a licence, or tells of one.
    pub fn of_text(name: &str, text: &str) -> Self {
        let mut references = BTreeMap::new();
        let expression = refer(name, text, &mut references);
        Self { expression, references }
    }

    /// Whether every part is on SPDX's list.
    pub fn is_known(&self) -> bool {
        self.references.is_empty()
    }

    /// Both together: what is under several licences in different parts.
    fn and(licences: Vec<Self>) -> Option<Self> {
        let mut terms = BTreeSet::new();
        let mut references = BTreeMap::new();
        for Self { expression, references: more } in licences {
            match expression.contains(" OR ") {
                true => drop(terms.insert(expression)),
                false => terms.extend(expression.split(" AND ").map(String::from)),
            }
            references.extend(more);
        }
        let many = terms.len() > 1;
        let terms = terms.into_iter().map(|term| match many && term.contains(" OR ") && !enclosed(&term) {
            true => format!("({term})"),
            false => term,
        });
        let expression = terms.collect::<Vec<_>>().join(" AND ");
        (!expression.is_empty()).then_some(Self { expression, references })
    }
}

/// What the copyright file of `package` comes to. Prose is a licence of its own, told as it stands.
pub fn told(package: &str, text: &str) -> Told {
    match Copyright::parse(text) {
        Ok(copyright) => {
            let licences = copyright.licences.iter().map(|words| Licence::of_words(words, &copyright.texts));
            let holders = copyright.holders.join("\n");
            Told { licence: Licence::and(licences.collect()), copyright: Some(holders).filter(|h| !h.is_empty()) }
        }
        Err(CopyrightError::OtherFormat | CopyrightError::Control(_)) if text.trim().is_empty() => Told::default(),
        Err(CopyrightError::OtherFormat | CopyrightError::Control(_)) => {
            // Lines that cannot be anything else; a year tells them from talk about copyright.
            let is_statement = |line: &&str| {
                let begins = line.get(..9).is_some_and(|word| word.eq_ignore_ascii_case("copyright"));
                begins && line.bytes().any(|b| b.is_ascii_digit())
            };
            let mut holders: Vec<&str> = Vec::new();
            for line in text.lines().map(str::trim).filter(is_statement) {
                if !holders.contains(&line) {
                    holders.push(line);
                }
            }
            let copyright = Some(holders.join("\n")).filter(|holders| !holders.is_empty());
            Told { licence: Some(Licence::of_text(package, text.trim())), copyright }
        }
    }
}

/// Words on their way to an expression.
struct Words<'a> {
    texts: &'a BTreeMap<String, String>,
    references: &'a mut BTreeMap<String, Reference>,
}

impl Words<'_> {
    /// `A or B, and C`: a comma binds less than `or`, that less than `and` (copyright-format 1.0, "License specification").
    fn expression(&mut self, words: &str) -> String {
        let words = words.split_ascii_whitespace().collect::<Vec<_>>().join(" ");
        if let Some((first, rest)) = words.split_once(", and ").or_else(|| words.split_once(", ")) {
            let (first, rest) = (self.expression(first), self.expression(rest));
            return format!("{} AND {}", grouped(first), grouped(rest));
        }
        for (word, operator) in [(" or ", " OR "), (" and ", " AND ")] {
            let terms = split_ignoring_case(&words, word);
            if terms.len() > 1 {
                let terms: Vec<String> = terms.iter().map(|term| self.expression(term)).collect();
                let many = |term: String| if operator == " AND " { grouped(term) } else { term };
                return terms.into_iter().map(many).collect::<Vec<_>>().join(operator);
            }
        }
        self.term(words.trim_matches(['(', ')']).trim())
    }

    fn term(&mut self, name: &str) -> String {
        let with = split_ignoring_case(name, " with ");
        if let [licence, exception] = &with[..]
            && let (Some(id), Some(exception)) = (identifier(licence), exception_id(exception))
        {
            return format!("{id} WITH {exception}");
        }
        match identifier(name) {
            Some(id) if with.len() == 1 => id,
            _ => {
                let text = self.texts.get(name).map_or("", String::as_str);
                refer(name, text, self.references)
            }
        }
    }
}

fn refer(name: &str, text: &str, references: &mut BTreeMap<String, Reference>) -> String {
    let name = if name.is_empty() { "unnamed" } else { name };
    let word: String = name.chars().take(60).map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let digest = Digest::of(format!("{name}\n{text}")).to_string();
    let id = format!("LicenseRef-{word}-{}", &digest[..12]);
    let text = if text.is_empty() { name } else { text };
    references.insert(id.clone(), Reference { name: name.into(), text: text.into() });
    id
}

fn grouped(term: String) -> String {
    if term.contains(" OR ") && !enclosed(&term) { format!("({term})") } else { term }
}

/// Whether one pair of brackets goes round it all.
fn enclosed(term: &str) -> bool {
    let mut depth = 0_usize;
    term.starts_with('(')
        && term.char_indices().all(|(at, c)| {
            match c {
                '(' => depth += 1,
                ')' => depth = depth.saturating_sub(1),
                _ => {}
            }
            depth > 0 || at + 1 == term.len()
        })
}

fn split_ignoring_case<'a>(text: &'a str, word: &str) -> Vec<&'a str> {
    let (mut parts, mut from, mut at) = (Vec::new(), 0, 0);
    while let Some(window) = text.as_bytes().get(at..at + word.len()) {
        if window.eq_ignore_ascii_case(word.as_bytes()) {
            parts.push(&text[from..at]);
            at += word.len();
            from = at;
        } else {
            at += 1;
        }
    }
    parts.push(&text[from..]);
    parts
}

/// SPDX's identifier of what Debian and others call `name`.
fn identifier(name: &str) -> Option<String> {
    let (base, or_later) = match name.strip_suffix('+').or_else(|| name.strip_suffix("-or-later")) {
        Some(base) => (base, true),
        None => (name.strip_suffix("-only").unwrap_or(name), false),
    };
    if let Some(id) = gnu(base, or_later) {
        return Some(id);
    }
    if or_later {
        return None;
    }
    // Names that copyright-format 1.0 defines otherwise than SPDX, and spellings that mean nothing else.
    let by_hand = match name.to_ascii_lowercase().as_str() {
        "expat" => Some("MIT"),
        "artistic" | "artistic-1" => Some("Artistic-1.0"),
        "artistic-2" => Some("Artistic-2.0"),
        "bsd-4-clause-uc" => Some("BSD-4-Clause-UC"),
        "apache-2" | "apache license 2.0" | "apache 2.0" | "apache license, version 2.0" => Some("Apache-2.0"),
        "mpl-1.1" => Some("MPL-1.1"),
        "mpl-2" => Some("MPL-2.0"),
        "psf-2" => Some("PSF-2.0"),
        "cc0" => Some("CC0-1.0"),
        "mit license" => Some("MIT"),
        _ => None,
    };
    if let Some(id) = by_hand {
        return Some(id.into());
    }
    // SPDX matches identifiers whatever their case.
    let known = spdx::identifiers::LICENSES.iter().find(|licence| licence.name.eq_ignore_ascii_case(name))?;
    Some(known.name.to_string())
}

/// `GPL-2`, `LGPL-2.1`, `GFDL-NIV-1.3`, `AGPL-3.0`: with a version, which SPDX spells with a minor number.
fn gnu(base: &str, or_later: bool) -> Option<String> {
    let (family, version) = base.rsplit_once('-')?;
    let family = family.to_ascii_uppercase();
    let (family, invariants) = match family.as_str() {
        "GPL" | "LGPL" | "AGPL" | "GFDL" => (family.as_str(), ""),
        "GFDL-NIV" => ("GFDL", "-no-invariants"),
        _ => return None,
    };
    let version = if version.contains('.') { version.to_string() } else { format!("{version}.0") };
    let id = format!("{family}-{version}{invariants}-{}", if or_later { "or-later" } else { "only" });
    spdx::license_id(&id).map(|id| id.name.to_string())
}

fn exception_id(words: &str) -> Option<String> {
    let words = words.trim();
    let name = words.strip_suffix(" exception").or_else(|| words.strip_suffix(" Exception")).unwrap_or(words);
    let name = match name.to_ascii_lowercase().as_str() {
        "bison" => "Bison-exception-2.2",
        "libtool" => "Libtool-exception",
        "linux-syscall-note" => "Linux-syscall-note",
        "font" => "Font-exception-2.0",
        "classpath" => "Classpath-exception-2.0",
        _ => words,
    };
    spdx::exception_id(name).map(|id| id.name.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> String {
        let licence = Licence::of_words(text, &BTreeMap::new());
        spdx::Expression::parse(&licence.expression).unwrap_or_else(|e| panic!("{text}: {e}"));
        for name in licence.references.keys() {
            assert!(licence.expression.contains(name.as_str()));
        }
        licence.expression
    }

    #[test]
    fn debian_s_names_become_spdx_s() {
        for (debian, spdx) in [
            ("GPL-2+", "GPL-2.0-or-later"),
            ("GPL-2", "GPL-2.0-only"),
            ("GPL-2.0+", "GPL-2.0-or-later"),
            ("LGPL-2.1+", "LGPL-2.1-or-later"),
            ("GFDL-NIV-1.3+", "GFDL-1.3-no-invariants-or-later"),
            ("Expat", "MIT"),
            ("BSD-3-clause", "BSD-3-Clause"),
            ("ZLIB", "Zlib"),
            ("Artistic", "Artistic-1.0"),
            ("GPL-1+ or Artistic", "GPL-1.0-or-later OR Artistic-1.0"),
            ("GPL-1+ or Artistic, and Expat", "(GPL-1.0-or-later OR Artistic-1.0) AND MIT"),
            ("GPL-2+ and MIT or ISC", "GPL-2.0-or-later AND MIT OR ISC"),
            ("GPL-3+ with Bison exception", "GPL-3.0-or-later WITH Bison-exception-2.2"),
            ("Apache-2.0", "Apache-2.0"),
        ] {
            assert_eq!(words(debian), spdx, "{debian}");
        }
    }

    #[test]
    fn what_spdx_does_not_know_is_referred_to_by_name_and_text() {
        for name in ["GPL", "public-domain", "MIT/X11", "GPL-3+ with Frob exception", "", "GPL-9+", "a with b with c"] {
            assert!(words(name).starts_with("LicenseRef-"), "{name}: {}", words(name));
        }
        let texts = |text: &str| BTreeMap::from([("odd".to_string(), text.to_string())]);
        let (one, other) = (Licence::of_words("odd", &texts("a")), Licence::of_words("odd", &texts("b")));
        assert_ne!(one.expression, other.expression);
        assert_eq!(one.references.values().next().unwrap().text, "a");
        assert!(!one.is_known());
    }

    #[test]
    fn a_package_is_under_the_licences_of_all_its_files() {
        let text = "Format: copyright-format/1.0\n\nFiles: *\nCopyright: A\nLicense: GPL-2+ or MIT\n\n\
            Files: a\nCopyright: B\nLicense: ISC\n\nFiles: b\nCopyright: A\nLicense: isc and Zlib\n";
        let told = told("x", text);
        assert_eq!(told.licence.unwrap().expression, "(GPL-2.0-or-later OR MIT) AND ISC AND Zlib");
        assert_eq!(told.copyright.as_deref(), Some("A\nB"));
    }

    #[test]
    fn prose_is_referred_to_and_an_empty_file_says_nothing() {
        let prose = told("gcc-12", "This package was made by hand.\n\n  Copyright (C) 2001 A\nCopyright is held.\n");
        assert!(prose.licence.unwrap().expression.starts_with("LicenseRef-gcc-12-"));
        assert_eq!(prose.copyright.as_deref(), Some("Copyright (C) 2001 A"));
        assert_eq!(told("gcc-12", " \n"), Told::default());
    }

    #[test]
    fn an_expression_is_taken_only_if_it_is_one() {
        assert_eq!(Licence::of_expression("MIT or Apache-2.0").unwrap().expression, "MIT OR Apache-2.0");
        assert_eq!(Licence::of_expression("BSD-3-Clause").unwrap().expression, "BSD-3-Clause");
        for text in ["", "MIT AND", "LicenseRef-x", "something else"] {
            assert_eq!(Licence::of_expression(text), None, "{text}");
        }
    }
}
