//! When a statement existed, and whether its key was believed then. Step 7 of the algorithm.
//!
//! What a statement says of its own time never helps it: only witnesses of a log date a statement. Without them the only time
//! is `now`, so that the statements of a key which expired or was revoked all fall with it.

use super::check::{Check, Code, Status};
use crate::outcome::Moment;
use crate::policy::{Policy, Validity};

/// How far a clock may be ahead of ours: what happened then is taken for now.
const LEEWAY: u64 = 300;

/// What is known of a statement's time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Times {
    /// It existed then, at the latest: witnesses say so.
    pub(super) existed: Option<Moment>,
    /// The newest checkpoint that shows it is as fresh as this.
    pub(super) fresh: Option<Moment>,
    /// Its own word.
    pub(super) finished: Option<Moment>,
}

/// Whether the key was believed: what a disagreement needs to count, too.
pub(super) fn key(times: Times, validity: Validity, now: Moment) -> Vec<Check> {
    let mut failures = Vec::new();
    for (field, time) in [("cosignature", times.fresh), ("finishedOn", times.finished)] {
        if let Some(time) = time.filter(|time| time.unix() > now.unix().saturating_add(LEEWAY)) {
            failures.push(Check::new(
                Code::Clock,
                Status::NotCounted,
                field,
                format!("not after now, {now}"),
                time.to_string(),
                "set this host's clock, or say what time it is with --now",
            ));
        }
    }
    let (moment, whence) = match times.existed {
        Some(existed) => (existed, "by cosignature"),
        None => (now, "now, since no witness dates it"),
    };
    if moment < validity.from || moment >= validity.until {
        failures.push(Check::new(
            Code::Validity,
            Status::NotCounted,
            "rebuilder.valid",
            format!("from {} until before {}", validity.from, validity.until),
            format!("{moment} ({whence})"),
            "a statement outlives its key only with a cosigned log proof: ask for one, or for a statement by the new key",
        ));
    }
    if let Some(revoked) = validity.revoked_after.filter(|revoked| moment > *revoked) {
        failures.push(Check::new(
            Code::Revocation,
            Status::NotCounted,
            "rebuilder.revoked_after",
            format!("witnessed until {revoked}"),
            format!("{moment} ({whence})"),
            "ask the rebuilder for a statement by its new key",
        ));
    }
    failures
}

/// Whether the statement is as fresh as the policy asks.
pub(super) fn age(times: Times, policy: &Policy, now: Moment) -> Vec<Check> {
    let mut failures = Vec::new();
    if let Some(days) = policy.provenance.max_age_days {
        let oldest = Moment::from_unix(now.unix().saturating_sub(u64::from(days) * 86_400));
        // The older of the two: neither a late log entry nor a date in the future makes it young.
        let age = [times.existed, times.finished].into_iter().flatten().min();
        if age.is_none_or(|age| age < oldest) {
            failures.push(Check::new(
                Code::Age,
                Status::NotCounted,
                "provenance.max_age_days",
                format!("not before {oldest}"),
                age.map_or("no time at all".to_owned(), |age| age.to_string()),
                "ask for a new rebuild, or allow an older one",
            ));
        }
    }
    if let Some(hours) = policy.log.checkpoint_max_age_hours {
        let oldest = Moment::from_unix(now.unix().saturating_sub(u64::from(hours) * 3600));
        if times.fresh.is_none_or(|fresh| fresh < oldest) {
            failures.push(Check::new(
                Code::CheckpointAge,
                Status::NotCounted,
                "log.checkpoint_max_age_hours",
                format!("a checkpoint cosigned not before {oldest}"),
                times.fresh.map_or("no cosigned checkpoint".to_owned(), |fresh| fresh.to_string()),
                "fetch the evidence again; if it stays old, the storage withholds what came after",
            ));
        }
    }
    failures
}
