//! Fills in what differs in the contents of two files: where their bytes do, what differs inside, and whether they are
//! equal after normalisers.

use std::path::Path;

use kiln_model::report::{Aspect, Detail, Difference};

use super::blob::Blob;
use super::limits::Options;
use super::normalised::{self, Refused};
use super::walk::{Failed, Walk};
use super::{DiffError, bytes};

/// Explains a difference between two files that are not equal. `path` names them: its ending counts, and errors say it.
pub(super) fn explain(
    difference: &mut Difference,
    path: &Path,
    sides: [&Blob; 2],
    options: &Options,
) -> Result<(), DiffError> {
    let stopped = |e: Failed| match e {
        Failed::Read(source) => DiffError::Read { path: path.into(), source },
        Failed::Spill(source) => DiffError::Spill { source },
    };
    let [a, b] = sides;
    let compared = bytes::compare(&mut a.reader(), &mut b.reader()).map_err(|e| stopped(Failed::Read(e)))?;
    difference.content = compared.content.clone();
    let name = path.to_string_lossy();
    let walked = Walk::into(&name, a, b, compared, &options.limits).map_err(stopped)?;
    let mut found = walked.found;
    let allowed = found.candidates().filter(|set| set.is_subset(&options.normalisers)).cloned();
    if let Some(candidates) = allowed {
        match normalised::equivalence(&name, sides, &candidates, walked.entries, &options.limits) {
            Ok(equivalence) => difference.equivalence = equivalence,
            Err(Refused::Unsound(why)) => {
                found.push(Detail::new("", Aspect::Unread, format!("no normaliser is applied: {why}")));
            }
            Err(Refused::Failed(e)) => return Err(stopped(e)),
        }
    }
    (difference.details, difference.details_left_out) = found.told(options.limits.details);
    Ok(())
}
