//! Rules about one value: what it may be, and what is said of one that is not.

use super::{Loaded, PolicyError};
use crate::outcome::Moment;
use crate::policy::{Field, HIGHEST_BUILD_LEVEL, Needed, Pattern};

pub(super) fn field(name: &str) -> Field {
    Field(name.to_owned())
}

/// The first refusal of any, or all in their order.
pub(super) fn numbered<D, T>(things: Vec<D>, mut one: impl FnMut(usize, D) -> Loaded<T>) -> Loaded<Vec<T>> {
    things.into_iter().enumerate().map(|(number, thing)| one(number, thing)).collect()
}

pub(super) fn needed(required: bool) -> Needed {
    if required { Needed::Required } else { Needed::Optional }
}

pub(super) fn word<T: Copy>(place: &str, found: String, words: &[(&str, T)], expected: &'static str) -> Loaded<T> {
    let known = words.iter().find(|(word, _)| *word == found).map(|(_, value)| *value);
    known.ok_or(PolicyError::Value { field: field(place), found, expected })
}

pub(super) fn pattern(place: &str, text: &str) -> Loaded<Pattern> {
    Pattern::new(text).map_err(|source| PolicyError::Pattern { field: field(place), source })
}

pub(super) fn uri(place: &str, text: String) -> Loaded<String> {
    let scheme = text.split_once(':').map_or("", |(scheme, _)| scheme);
    let printable = !text.chars().any(|c| c.is_whitespace() || c.is_control());
    if !scheme.is_empty() && printable && !text.contains('*') {
        return Ok(text);
    }
    let expected = "a URI, exactly as it stands in statements, such as \"https://rb1.example.org/kiln/sandboxed\"";
    Err(PolicyError::Value { field: field(place), found: text, expected })
}

pub(super) fn build_level(place: &str, level: u8) -> Loaded<u8> {
    let expected = "a level of SLSA's build track; write 0 to 3";
    let found = level.to_string();
    if level <= HIGHEST_BUILD_LEVEL {
        Ok(level)
    } else {
        Err(PolicyError::Value { field: field(place), found, expected })
    }
}

pub(super) fn source_level(place: &str, text: &str) -> Loaded<u8> {
    let level = text.strip_prefix("SLSA_SOURCE_LEVEL_").and_then(|level| match level {
        "0" => Some(0),
        "1" => Some(1),
        "2" => Some(2),
        "3" => Some(3),
        "4" => Some(4),
        _ => None,
    });
    level.ok_or_else(|| PolicyError::Value {
        field: field(place),
        found: text.into(),
        expected: "a level of SLSA's source track: SLSA_SOURCE_LEVEL_0 to _4",
    })
}

/// A day, or a moment of it; days begin at midnight, UTC.
pub(super) fn moment(place: &str, text: &str) -> Loaded<Moment> {
    let spelled = if text.len() == 10 { format!("{text}T00:00:00Z") } else { text.to_owned() };
    spelled.parse().map_err(|_| PolicyError::Value {
        field: field(place),
        found: text.into(),
        expected: "a date or a moment in UTC, such as 2026-01-31 or 2026-01-31T12:00:00Z",
    })
}

pub(super) fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}
