//! What can be wrong with a policy: which field, what was expected, what to do.

use std::fmt;

use super::PatternError;

/// Where in a policy something stands: `rebuilder[1].keys[0]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field(pub(super) String);

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a text is no policy. Lines count from 1.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// Not TOML, a wrong type, a member that is missing or not known.
    #[error("{}{message}{}", line.map(|l| format!("line {l}: ")).unwrap_or_default(), nearest.as_ref().map(|n| format!("; did you mean {n:?}?")).unwrap_or_default())]
    Syntax {
        /// Where, if it is in one place.
        line: Option<usize>,
        /// What is wrong and what was expected.
        message: String,
        /// The known member nearest to an unknown one.
        nearest: Option<String>,
    },
    /// Written for another kiln.
    #[error("schema: {found} is not known; this kiln reads schema {}", super::SCHEMA)]
    Schema {
        /// As given.
        found: u32,
    },
    /// A value that its field does not take.
    #[error("{field}: {found:?} is not {expected}")]
    Value {
        /// Where.
        field: Field,
        /// As given.
        found: String,
        /// What is, and what to do.
        expected: &'static str,
    },
    /// A list or table that must say something says nothing.
    #[error("{field} is empty; {way_out}")]
    Empty {
        /// Where.
        field: Field,
        /// What to do.
        way_out: &'static str,
    },
    /// A pattern that would match nothing, or too much.
    #[error("{field}")]
    Pattern {
        /// Where.
        field: Field,
        /// Why.
        #[source]
        source: PatternError,
    },
    /// Nobody is believed.
    #[error("no [[rebuilder]]: nothing could ever pass; name at least threshold.identical operators with their keys")]
    NoRebuilder,
    /// One pair of an id twice.
    #[error("{field}: {id:?} already stands in rebuilder[{first}]; put all its keys there")]
    IdTwice {
        /// The second place.
        field: Field,
        /// The builder id.
        id: String,
        /// Number of the first.
        first: usize,
    },
    /// One key that could speak with two voices.
    #[error(
        "{field}: key {key} already stands in {first}; every builder id and every role has keys of its own, so that no key counts twice"
    )]
    KeyTwice {
        /// The second place.
        field: Field,
        /// Its fingerprint.
        key: String,
        /// The first place.
        first: Field,
    },
    /// More must agree than there are.
    #[error("{field}: {wanted} can never be met by {there} operator{}{}; lower it, or add rebuilders", if *there == 1 { "" } else { "s" }, because)]
    Unreachable {
        /// Which demand.
        field: Field,
        /// As given.
        wanted: u32,
        /// How many operators could meet it.
        there: usize,
        /// Why not more, if some fall away.
        because: String,
    },
    /// A period that is empty.
    #[error("{field}: {from} is not before {to}; write [\"first day\", \"day after the last\"]")]
    Period {
        /// Where.
        field: Field,
        /// Its begin.
        from: String,
        /// Its end.
        to: String,
    },
    /// Two members that contradict each other.
    #[error("{field}: {found} contradicts {other}; {way_out}")]
    Contradiction {
        /// The one.
        field: Field,
        /// As given.
        found: String,
        /// The other, as given.
        other: String,
        /// What to do.
        way_out: &'static str,
    },
}

impl PolicyError {
    /// The nearest known member is offered for an unknown one.
    pub(super) fn syntax(text: &str, error: &toml::de::Error) -> Self {
        let crate::recipe::RecipeError { line, message, nearest } = crate::recipe::RecipeError::from_toml(text, error);
        Self::Syntax { line, message, nearest }
    }
}
