//! Under which terms inputs may come: SPDX expressions held against licences that are allowed or denied.
//!
//! An expression passes if a choice that it offers uses allowed licences only (if any are named) and no denied one.

use std::collections::BTreeSet;

use spdx::{Expression, LicenseReq, ParseMode};

/// What a thing causes of which nothing is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unknown {
    /// It is refused.
    Denied,
    /// It passes.
    Allowed,
}

/// Which licences inputs may have. Judged only if one is named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Licences {
    /// Only these, if there are any.
    pub allow: BTreeSet<String>,
    /// None of these.
    pub deny: BTreeSet<String>,
    /// What no licence, or one that is no SPDX expression, causes.
    pub unknown: Unknown,
}

/// Why an input's licence does not pass.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LicenceError {
    /// There is none.
    #[error("no licence is stated")]
    Missing,
    /// Not an SPDX expression.
    #[error("{found:?} is not an SPDX expression")]
    NotSpdx {
        /// As given.
        found: String,
    },
    /// No choice that it offers passes.
    #[error("{found:?} leaves no choice that the policy allows")]
    Denied {
        /// As given.
        found: String,
    },
}

impl Licences {
    /// Whether licences are judged at all.
    pub fn judges(&self) -> bool {
        !self.allow.is_empty() || !self.deny.is_empty()
    }

    /// Judges the licence of one input.
    pub fn judge(&self, licence: Option<&str>) -> Result<(), LicenceError> {
        if !self.judges() {
            return Ok(());
        }
        let unknown = |error| match self.unknown {
            Unknown::Denied => Err(error),
            Unknown::Allowed => Ok(()),
        };
        let Some(text) = licence.filter(|text| !matches!(*text, "" | "NOASSERTION" | "NONE")) else {
            return unknown(LicenceError::Missing);
        };
        let Ok(expression) = Expression::parse_mode(text, MODE) else {
            return unknown(LicenceError::NotSpdx { found: text.into() });
        };
        let passes = expression.evaluate(|requirement| {
            let (with, alone) = names(requirement);
            let names = |set: &BTreeSet<String>| set.contains(&with) || set.contains(&alone);
            // An exception grants more than the licence alone: it is allowed where the licence is, denied where it is.
            !names(&self.deny) && (self.allow.is_empty() || names(&self.allow))
        });
        if passes { Ok(()) } else { Err(LicenceError::Denied { found: text.into() }) }
    }
}

/// Old spellings ("GPL-2.0+") are read, and names that are in no list are refused.
const MODE: ParseMode = ParseMode { allow_unknown: false, ..ParseMode::LAX };

/// The one spelling of a licence, with its exception if there is one.
pub(super) fn canonical(text: &str) -> Option<String> {
    let expression = Expression::parse_mode(text, MODE).ok()?;
    let mut requirements = expression.requirements();
    let only = requirements.next()?;
    requirements.next().is_none().then(|| names(&only.req).0)
}

/// A licence with its exception, and without.
fn names(requirement: &LicenseReq) -> (String, String) {
    let alone = modern(requirement.license.to_string());
    let with = match &requirement.addition {
        Some(addition) => format!("{alone} WITH {addition}"),
        None => alone.clone(),
    };
    (with, alone)
}

/// What SPDX 3.0 of the list (2017) renamed: a bare GNU licence is its `-only`, with a plus its `-or-later`.
fn modern(name: String) -> String {
    let gnu = ["AGPL-", "GFDL-", "GPL-", "LGPL-"].iter().any(|family| name.starts_with(family));
    if !gnu || name.ends_with("-only") || name.ends_with("-or-later") {
        return name;
    }
    match name.strip_suffix('+') {
        Some(base) => format!("{base}-or-later"),
        None => format!("{name}-only"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn licences(allow: &[&str], deny: &[&str]) -> Licences {
        let set = |texts: &[&str]| texts.iter().map(|text| canonical(text).unwrap()).collect();
        Licences { allow: set(allow), deny: set(deny), unknown: Unknown::Denied }
    }

    #[test]
    fn a_denied_licence_fails_unless_another_can_be_chosen() {
        let rules = licences(&[], &["AGPL-3.0-only"]);
        assert!(rules.judge(Some("AGPL-3.0-only")).is_err());
        assert!(rules.judge(Some("MIT AND AGPL-3.0-only")).is_err());
        assert!(rules.judge(Some("MIT OR AGPL-3.0-only")).is_ok());
        assert!(rules.judge(Some("AGPL-3.0-or-later")).is_ok());
    }

    #[test]
    fn an_old_spelling_is_the_same_licence() {
        let rules = licences(&[], &["AGPL-3.0-only", "GPL-2.0+"]);
        assert!(rules.judge(Some("AGPL-3.0")).is_err());
        assert!(rules.judge(Some("GPL-2.0-or-later")).is_err());
        assert!(rules.judge(Some("AGPL-3.0+")).is_ok());
    }

    #[test]
    fn only_allowed_licences_pass_where_any_are_named() {
        let rules = licences(&["MIT", "GPL-2.0-only"], &[]);
        assert!(rules.judge(Some("MIT AND GPL-2.0-only WITH Classpath-exception-2.0")).is_ok());
        assert!(rules.judge(Some("Apache-2.0")).is_err());
    }

    #[test]
    fn what_is_not_known_is_denied_unless_the_policy_allows_it() {
        let mut rules = licences(&[], &["AGPL-3.0-only"]);
        assert_eq!(rules.judge(None), Err(LicenceError::Missing));
        assert!(matches!(rules.judge(Some("my own")), Err(LicenceError::NotSpdx { .. })));
        rules.unknown = Unknown::Allowed;
        assert!(rules.judge(None).is_ok());
        assert!(rules.judge(Some("my own")).is_ok());
        assert!(rules.judge(Some("AGPL-3.0-only")).is_err());
    }

    #[test]
    fn nothing_is_judged_where_no_licence_is_named() {
        assert!(licences(&[], &[]).judge(None).is_ok());
    }
}
