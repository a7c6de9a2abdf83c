//! A policy's further rules in Rego: read from beside it, and asked about each decision. A kiln that was built without Rego
//! refuses a policy that has some, by name: rules that nobody reads cannot be kept.

#[cfg(feature = "rego")]
use std::path::Path;
use std::path::PathBuf;

use anyhow::anyhow;
use kiln_model::outcome::Moment;
use kiln_model::policy::Policy;
use kiln_model::verify::{Decision, Evidence, Verifier};

use super::Failure;
use crate::exit::Kind;

/// Further rules, if a policy has some.
#[derive(Debug)]
pub(super) struct Rules {
    #[cfg(feature = "rego")]
    rego: Option<kiln_model::policy::rego::Rego>,
}

impl Rules {
    /// The rules of `policy`, which names their files as `beside` finds them; they are asked as of `now`.
    #[cfg(feature = "rego")]
    pub(super) fn load(policy: &Policy, beside: &dyn Fn(&str) -> PathBuf, now: Moment) -> Result<Self, Failure> {
        use kiln_model::policy::rego::Rego;
        let bad = |error: anyhow::Error| Failure::new(Kind::BadInput, error);
        let mut modules = std::collections::BTreeMap::new();
        for name in &policy.rego_modules {
            let text = text(&beside(name)).map_err(|error| bad(error.context(format!("rego module {name}"))))?;
            if modules.insert(name.clone(), text).is_some() {
                return Err(bad(anyhow!("rego.modules: {name} is named twice")));
            }
        }
        let rego = match modules.is_empty() {
            true => None,
            false => Some(Rego::new(&modules, now).map_err(|error| bad(error.into()))?),
        };
        Ok(Self { rego })
    }

    /// Refuses rules.
    #[cfg(not(feature = "rego"))]
    pub(super) fn load(policy: &Policy, _: &dyn Fn(&str) -> PathBuf, _: Moment) -> Result<Self, Failure> {
        match policy.rego_modules.is_empty() {
            true => Ok(Self {}),
            false => Err(Failure::new(
                Kind::BadInput,
                anyhow!(
                    "rego.modules: this kiln was built without Rego; leave the modules out, or build kiln with --features rego"
                ),
            )),
        }
    }

    /// Lets the rules say no.
    #[cfg(feature = "rego")]
    pub(super) fn judge(&self, verifier: &Verifier<'_>, decision: &mut Decision, evidence: &Evidence) {
        if let Some(rego) = &self.rego {
            verifier.further(rego, decision, evidence);
        }
    }

    /// There are none.
    #[cfg(not(feature = "rego"))]
    pub(super) fn judge(&self, _: &Verifier<'_>, _: &mut Decision, _: &Evidence) {}
}

/// A module's text, of at most a mebibyte.
#[cfg(feature = "rego")]
fn text(path: &Path) -> anyhow::Result<String> {
    use std::io::Read as _;
    const LARGEST: u64 = 1 << 20;
    let mut text = String::new();
    std::fs::File::open(path)?.take(LARGEST + 1).read_to_string(&mut text)?;
    if text.len() as u64 > LARGEST {
        return Err(anyhow!("more than {LARGEST} bytes"));
    }
    Ok(text)
}
