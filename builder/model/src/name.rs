//! Names that end up in store paths and in a build's variables.
//!
//! A [`Name`] has Nix's alphabet and length, checked once when it is parsed. [`sanitised`] turns any text (a file name, a
//! package version) into that alphabet; the mapping is part of what a lock means, so a golden test holds it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::digest::serde_as_text;

/// The longest name Nix takes in a store path, in bytes.
pub const MAX_NAME: usize = 211;

/// A name in Nix's alphabet: `[0-9a-zA-Z+.?=_-]`, 1 to 211 bytes, not starting with a dot.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(String);

/// A name of an input or output: a shell variable, `[a-zA-Z_][a-zA-Z0-9_]*`, since the script reads it as one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Variable(String);

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Outside Nix's alphabet or length.
    #[error("{found:?} is not a name: expected 1 to 211 of letters, digits and + - . _ ? =, not starting with a dot")]
    NotAName {
        /// The text as given.
        found: String,
    },
    /// Not usable as a shell variable.
    #[error("{found:?} is not a variable: expected letters, digits and _, not starting with a digit")]
    NotAVariable {
        /// The text as given.
        found: String,
    },
}

fn in_alphabet(c: char) -> bool {
    c.is_ascii_alphanumeric() || "+-._?=".contains(c)
}

/// `text` with each character outside Nix's alphabet replaced by `-`, a leading dot by `_`, cut to 211 bytes;
/// `unnamed` if nothing is left.
pub fn sanitised(text: &str) -> Name {
    let mut name: String = text.chars().map(|c| if in_alphabet(c) { c } else { '-' }).collect();
    name.truncate(MAX_NAME);
    if name.starts_with('.') {
        name.replace_range(..1, "_");
    }
    if name.is_empty() {
        name.push_str("unnamed");
    }
    Name(name)
}

impl Name {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Variable {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&Variable> for Name {
    fn from(variable: &Variable) -> Self {
        Self(variable.0.clone())
    }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let good = (1..=MAX_NAME).contains(&text.len()) && !text.starts_with('.') && text.chars().all(in_alphabet);
        if good { Ok(Self(text.into())) } else { Err(NameError::NotAName { found: text.into() }) }
    }
}

impl FromStr for Variable {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let good = text.len() <= MAX_NAME
            && text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if good { Ok(Self(text.into())) } else { Err(NameError::NotAVariable { found: text.into() }) }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Variable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

serde_as_text!(Name);
serde_as_text!(Variable);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sanitising_is_stable() {
        for (text, name) in [
            ("hello_2.10-3", "hello_2.10-3"),
            ("libcap2_1:2.66~deb12u1", "libcap2_1-2.66-deb12u1"),
            (".hidden", "_hidden"),
            ("", "unnamed"),
            ("größe", "gr--e"),
        ] {
            assert_eq!(sanitised(text).as_str(), name);
        }
        assert_eq!(sanitised(&"x".repeat(300)).as_str().len(), MAX_NAME);
    }

    #[test]
    fn names_outside_the_alphabet_are_refused() {
        for bad in ["", ".x", "a b", "a/b", "ä", "a\n"] {
            assert!(bad.parse::<Name>().is_err(), "{bad:?}");
        }
        for bad in ["", "1x", "a-b", "a.b"] {
            assert!(bad.parse::<Variable>().is_err(), "{bad:?}");
        }
    }
}
