//! Details as they are found: how many there were, which are told, and whether normalisers account for all of them.

use std::collections::BTreeSet;

use kiln_model::normalise::Normaliser;
use kiln_model::report::{Aspect, Detail};

/// Details that are held until the most telling of them are chosen.
const HELD: usize = 4096;

/// Details of one pair of files.
#[derive(Debug, Default)]
pub(super) struct Found {
    details: Vec<Detail>,
    left_out: u64,
    normalisers: BTreeSet<Normaliser>,
    unaccounted: bool,
}

impl Found {
    pub(super) fn push(&mut self, detail: Detail) {
        match (detail.normaliser, detail.kind) {
            (Some(normaliser), _) => {
                self.normalisers.insert(normaliser);
            }
            // Checksums follow from members: whether they follow from these alone is found when they are normalised.
            (None, Aspect::Checksum) => {}
            (None, _) => self.unaccounted = true,
        }
        if self.details.len() < HELD {
            self.details.push(detail);
        } else {
            self.left_out += 1;
        }
    }

    /// How many there are so far.
    pub(super) fn count(&self) -> u64 {
        self.details.len() as u64 + self.left_out
    }

    /// Those that were found after the first `count`.
    pub(super) fn since(&self, count: u64) -> impl Iterator<Item = &Detail> {
        self.details.iter().skip(usize::try_from(count).unwrap_or(usize::MAX))
    }

    /// The normalisers that may make all of this go away; `None` if there is something that none is named for.
    pub(super) fn candidates(&self) -> Option<&BTreeSet<Normaliser>> {
        (!self.unaccounted && !self.normalisers.is_empty()).then_some(&self.normalisers)
    }

    /// The most telling details, and how many more there are.
    pub(super) fn told(mut self, most: usize) -> (Vec<Detail>, u64) {
        // Stable: what is equally telling stays in the order of the containers.
        self.details.sort_by_key(|detail| detail.kind);
        let left_out = self.left_out + self.details.len().saturating_sub(most) as u64;
        self.details.truncate(most);
        (self.details, left_out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detail(kind: Aspect) -> Detail {
        Detail::new("", kind, "x")
    }

    #[test]
    fn the_most_telling_come_first_and_the_others_are_counted() {
        let mut found = Found::default();
        for _ in 0..HELD {
            found.push(detail(Aspect::Time));
        }
        found.push(detail(Aspect::Time));
        assert_eq!(found.count(), HELD as u64 + 1);
        let mut found = Found::default();
        for kind in [Aspect::Checksum, Aspect::Time, Aspect::Text, Aspect::Value] {
            found.push(detail(kind));
        }
        let (told, left_out) = found.told(2);
        assert_eq!((told.iter().map(|d| d.kind).collect::<Vec<_>>(), left_out), (vec![Aspect::Value, Aspect::Text], 2));
    }

    #[test]
    fn one_detail_that_no_normaliser_is_named_for_spoils_it() {
        let mut found = Found::default();
        found.push(detail(Aspect::Checksum));
        assert_eq!(found.candidates(), None);
        found.push(detail(Aspect::BuildId).under(Normaliser::ElfBuildId));
        assert_eq!(found.candidates(), Some(&BTreeSet::from([Normaliser::ElfBuildId])));
        found.push(detail(Aspect::Content));
        assert_eq!(found.candidates(), None);
    }
}
