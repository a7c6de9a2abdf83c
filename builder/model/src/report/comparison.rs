//! Two artifacts held against each other, without any build: what `kiln compare` says.
//!
//! Who has the artifacts finds the differences (`kiln::diff::compare`); what they mean is decided here. A rebuild puts the
//! same comparisons into its own report, one for each artifact ([`Comparison::placed`]).

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{Difference, Differences, Kind};
use crate::digest::Digest;
use crate::normalise::Normaliser;
use crate::outcome::EntryPath;
use crate::verdict::Verdict;

/// What was found between two artifacts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Comparison {
    /// `reproduced`, `equivalent` or `diverged`.
    pub verdict: Verdict,
    /// The artifacts.
    pub sides: [Side; 2],
    /// All normalisers without which the verdict would be worse. Empty unless it is `equivalent`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub normalisers: Vec<Normaliser>,
    /// One for a pair of files, with the empty path; one for each entry that differs between directories.
    #[serde(flatten)]
    pub differences: Differences,
}

/// One artifact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Side {
    /// As it was named.
    pub name: String,
    /// Whether it is a file or a directory.
    pub kind: SideKind,
    /// Bytes of all its files.
    pub size: u64,
    /// Digest of a file's bytes. A directory has none: where trees agree, their bytes are compared and not hashed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Digest>,
}

/// What an artifact is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SideKind {
    /// A regular file.
    File,
    /// A directory with all that is in it.
    Directory,
    /// A link, not followed: only below a directory or as a store path.
    Symlink,
}

impl Comparison {
    /// Judges what was found between two artifacts.
    pub fn of(sides: [Side; 2], differences: Differences) -> Self {
        let mut normalisers = BTreeSet::new();
        let mut equivalent = differences.differences_left_out == 0;
        for difference in &differences.differences {
            match &difference.equivalence {
                Some(equivalence) if difference.kind == Kind::Content => normalisers.extend(&equivalence.normalisers),
                Some(_) | None => equivalent = false,
            }
        }
        let verdict = match (differences.differences.is_empty(), equivalent) {
            (true, true) => Verdict::Reproduced,
            (false, true) => Verdict::Equivalent,
            (_, false) => Verdict::Diverged,
        };
        let normalisers = if verdict == Verdict::Equivalent { normalisers.into_iter().collect() } else { Vec::new() };
        Self { verdict, sides, normalisers, differences }
    }

    /// The digest that both files have after the normalisers, if they are equivalent.
    pub fn normalised(&self) -> Option<Digest> {
        match self.differences.differences.as_slice() {
            [difference] if self.verdict == Verdict::Equivalent && difference.path.as_bytes().is_empty() => {
                difference.equivalence.as_ref().map(|e| e.normalised)
            }
            _ => None,
        }
    }

    /// The differences as a report over several artifacts lists them: each below `path`, between the outcomes or sides
    /// numbered in `between`.
    pub fn placed(&self, path: &EntryPath, between: [usize; 2]) -> Vec<Difference> {
        let below = |inner: &EntryPath| match (path.as_bytes(), inner.as_bytes()) {
            ([], _) => inner.clone(),
            (_, []) => path.clone(),
            (outer, inner) => EntryPath::from_bytes([outer, b"/", inner].concat()),
        };
        let placed = |d: &Difference| Difference { path: below(&d.path), between, ..d.clone() };
        self.differences.differences.iter().map(placed).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Equivalence;

    fn side(name: &str) -> Side {
        Side { name: name.into(), kind: SideKind::File, size: 1, sha256: Some(Digest::of(name)) }
    }

    fn difference(path: &str, kind: Kind, normaliser: Option<Normaliser>) -> Difference {
        let equivalence = normaliser.map(|n| Equivalence { normalisers: vec![n], normalised: Digest::of("same") });
        let output = "out".parse().unwrap();
        let mut difference = Difference::new([0, 1], output, EntryPath::from(path), kind);
        difference.equivalence = equivalence;
        difference
    }

    fn judged(differences: Vec<Difference>, left_out: u64) -> Comparison {
        let differences = Differences { differences, differences_left_out: left_out };
        Comparison::of([side("a"), side("b")], differences)
    }

    #[test]
    fn nothing_that_differs_is_reproduced() {
        let same = judged(Vec::new(), 0);
        assert_eq!((same.verdict, same.normalisers.len(), same.normalised()), (Verdict::Reproduced, 0, None));
    }

    #[test]
    fn every_difference_must_go_away_to_be_equivalent() {
        let (zip, elf) = (Some(Normaliser::WheelZip), Some(Normaliser::ElfBuildId));
        let both = judged(vec![difference("x", Kind::Content, zip), difference("y", Kind::Content, elf)], 0);
        assert_eq!(both.verdict, Verdict::Equivalent);
        assert_eq!(both.normalisers, [Normaliser::ElfBuildId, Normaliser::WheelZip]);
        assert_eq!(both.normalised(), None);
        let one = judged(vec![difference("x", Kind::Content, zip), difference("y", Kind::Content, None)], 0);
        assert_eq!((one.verdict, one.normalisers.len()), (Verdict::Diverged, 0));
        let alone = judged(vec![difference("", Kind::Content, zip)], 0);
        assert_eq!(alone.normalised(), Some(Digest::of("same")));
    }

    #[test]
    fn what_was_left_out_or_is_missing_is_never_equivalent() {
        let zip = Some(Normaliser::WheelZip);
        assert_eq!(judged(vec![difference("x", Kind::Content, zip)], 1).verdict, Verdict::Diverged);
        assert_eq!(judged(Vec::new(), 1).verdict, Verdict::Diverged);
        assert_eq!(judged(vec![difference("x", Kind::OnlyInFirst, zip)], 0).verdict, Verdict::Diverged);
    }

    #[test]
    fn a_report_over_artifacts_places_each_below_its_name() {
        let comparison = judged(vec![difference("", Kind::Content, None), difference("in/it", Kind::Content, None)], 0);
        let placed = comparison.placed(&EntryPath::from("cowsay.deb"), [0, 2]);
        let paths: Vec<String> = placed.iter().map(|d| d.path.to_string()).collect();
        assert_eq!(paths, ["cowsay.deb", "cowsay.deb/in/it"]);
        assert_eq!(placed[0].between, [0, 2]);
        assert_eq!(comparison.placed(&EntryPath::default(), [0, 1])[1].path, EntryPath::from("in/it"));
    }
}
