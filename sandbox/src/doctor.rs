//! Which features of this host a sandbox needs, which are there, and how to get those that are not.
//!
//! [`examine`] looks and tries ([`Facts`]); [`judge`] is pure, so that hosts that nobody has at hand can be judged in
//! tests. A whole sandbox that ran beats anything a file says: settings only explain why it did not. Knows nothing of
//! stores, mirrors or recipes.

mod attempt;
mod facts;
mod features;
mod namespaces;

use serde::Serialize;

pub use attempt::{Attempt, Attempts};
pub use facts::{ControlGroups, Facts, IdHelpers, examine};

/// What is known of one feature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Its name: lowercase words and hyphens. Scripts may rely on it.
    pub feature: &'static str,
    /// Whether it is there.
    pub state: State,
    /// Whether builds can do without.
    pub need: Need,
    /// What was found.
    pub found: String,
    /// What kiln uses it for.
    pub purpose: &'static str,
    /// What its absence costs; empty if it is there.
    pub cost: String,
    /// Ways to get it, the best first; empty if it is there.
    pub remedies: Vec<Remedy>,
}

/// Whether a feature is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Wholly.
    Ok,
    /// In part, or in a lesser form.
    Degraded,
    /// Not at all.
    Missing,
}

/// Whether builds can do without a feature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Need {
    /// They cannot: without it kiln refuses.
    Required,
    /// They can.
    Optional,
}

/// One way to get a feature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Remedy {
    /// What it does, and to whom it applies.
    pub what: String,
    /// The command, to be run by a person who may.
    pub command: Option<String>,
}

impl Remedy {
    /// A way that is a command.
    pub fn command(what: impl Into<String>, command: impl Into<String>) -> Self {
        Self { what: what.into(), command: Some(command.into()) }
    }

    /// A way that no one command is.
    pub fn advice(what: impl Into<String>) -> Self {
        Self { what: what.into(), command: None }
    }
}

impl Finding {
    /// Something that is there.
    pub fn ok(feature: &'static str, need: Need, purpose: &'static str, found: impl Into<String>) -> Self {
        Self { feature, state: State::Ok, need, found: found.into(), purpose, cost: String::new(), remedies: vec![] }
    }

    /// The same feature, but not (wholly) there.
    #[must_use]
    pub fn but(self, state: State, cost: impl Into<String>, remedies: Vec<Remedy>) -> Self {
        Self { state, cost: cost.into(), remedies, ..self }
    }

    /// Whether builds cannot be isolated because of it.
    pub fn forbids(&self) -> bool {
        self.need == Need::Required && self.state == State::Missing
    }
}

/// Every feature of a sandbox, in the order in which one is set up; the sandbox as a whole last.
pub fn judge(facts: &Facts) -> Vec<Finding> {
    vec![
        features::kernel(facts),
        namespaces::user(facts),
        namespaces::other(facts),
        namespaces::time(facts),
        features::calls(facts),
        features::mounts(facts),
        features::proc(facts),
        features::seccomp(facts),
        features::notification(facts),
        features::landlock(facts),
        features::identity(facts),
        features::fake_root(facts),
        features::uid_range(facts),
        features::control_groups(facts),
        features::overlay(facts),
        features::sandbox(facts),
    ]
}

#[cfg(test)]
mod tests;
