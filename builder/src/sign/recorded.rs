//! Outcomes in the store's records: what the building process filed, and nobody else.

use kiln_model::outcome::Outcome;
use kiln_model::store_path::StorePath;

use super::{Recorded, SignError};
use crate::store::Store;

fn read(store: &Store, derivation: &StorePath, id: &str) -> Result<Recorded, SignError> {
    let bytes = store.outcome(derivation, id)?;
    let wrong = |source| SignError::Record { id: id.into(), derivation: derivation.to_string(), source };
    Ok(Recorded { id: id.into(), outcome: serde_json::from_slice(&bytes).map_err(wrong)? })
}

/// The last that was recorded.
pub(super) fn latest(store: &Store, derivation: &StorePath) -> Result<Option<Recorded>, SignError> {
    store.outcomes(derivation)?.last().map(|id| read(store, derivation, id)).transpose()
}

/// The record of the run that `told` is about. A report adds to an outcome what is known only beside others; what the
/// building process saw of the run itself must be the same.
pub(super) fn find(store: &Store, derivation: &StorePath, told: &Outcome) -> Result<Option<Recorded>, SignError> {
    if told.derivation != derivation.to_string() {
        return Ok(None);
    }
    for id in store.outcomes(derivation)?.iter().rev() {
        let one = read(store, derivation, id)?;
        if same(&one.outcome, told) {
            return Ok(Some(one));
        }
    }
    Ok(None)
}

fn same(recorded: &Outcome, told: &Outcome) -> bool {
    (recorded.started, recorded.seconds, recorded.status, &recorded.log, &recorded.outputs)
        == (told.started, told.seconds, told.status, &told.log, &told.outputs)
        && recorded.host == told.host
}
