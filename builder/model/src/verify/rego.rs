//! Further rules about a decision: what they are shown, and what becomes of their answer. Step 12 of the algorithm, deny only.

use serde_json::{Value, json};

use super::Verifier;
use super::check::{Check, Code, Status};
use super::decision::Decision;
use super::evidence::Evidence;
use super::fact::{Claim, Fact, Speaker};
use crate::policy::rego::Rego;

impl Verifier<'_> {
    /// Asks `rego` about `decision`, which it can only make a no. What it is shown is written down in docs/policy.md.
    pub fn further(&self, rego: &Rego, decision: &mut Decision, evidence: &Evidence) {
        let denied = |got: String, way_out: &'static str| {
            Check::new(Code::Rego, Status::Denied, "rego.modules", "no reason to deny", got, way_out)
        };
        match rego.reasons(&self.shown(decision, evidence)) {
            Ok(reasons) => {
                for reason in reasons {
                    decision.add(denied(reason, "whoever wrote the rule knows why"));
                }
            }
            // Rules that did not answer have not agreed.
            Err(error) => decision.add(denied(error.to_string(), "mend the module, or leave it out of rego.modules")),
        }
    }

    fn shown(&self, decision: &Decision, evidence: &Evidence) -> Value {
        let near = evidence.near(&decision.artifact.digest).into_iter();
        let about = near.filter(|fact| fact.is_about(&decision.artifact.digest));
        // What the decision rests on besides: the provenance of those who found a difference.
        let linked = decision.inputs.keys().filter_map(|id| evidence.fact(*id));
        let mut statements: Vec<(String, Value)> =
            about.chain(linked).map(|fact| (fact.id.to_string(), self.statement(fact))).collect();
        statements.sort_by(|a, b| a.0.cmp(&b.0));
        statements.dedup_by(|a, b| a.0 == b.0);
        json!({
            "artifact": decision.artifact,
            "now": self.now.unix(),
            "decision": decision,
            "statements": statements.into_iter().map(|(_, statement)| statement).collect::<Vec<_>>(),
        })
    }

    /// A verified statement with whose it is.
    fn statement(&self, fact: &Fact) -> Value {
        let speaker = match &fact.claim {
            Claim::Built(built) => Speaker::Rebuilder(built.rebuilder),
            Claim::Compared(compared) => Speaker::Rebuilder(compared.rebuilder),
            Claim::Judged(judged) => Speaker::Verifier(judged.verifier),
            Claim::Other { speaker, .. } => *speaker,
        };
        let (role, id, operator) = match speaker {
            Speaker::Rebuilder(number) => {
                let rebuilder = &self.policy.rebuilders[number];
                ("rebuilder", Some(&rebuilder.id), Some(&rebuilder.operator))
            }
            Speaker::Verifier(number) => ("verifier", Some(&self.policy.verifiers[number].id), None),
            Speaker::VexAuthor => ("vex-author", None, None),
        };
        json!({
            "envelope": fact.id.to_string(),
            "signer": format!("sha256:{}", fact.key),
            "role": role,
            "id": id,
            "operator": operator,
            "counts": fact.failures.is_empty(),
            "witnessed": fact.existed.map(|moment| moment.unix()),
            "statement": fact.whole,
        })
    }
}
