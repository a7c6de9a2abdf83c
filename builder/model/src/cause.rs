//! Causes that two artifacts give away, and the setting of another build that would prove them.
//!
//! What differs between what was built and what was published is evidence of how they were made: a changelog that the one
//! has whole and the other trimmed, a dependency of another version, a build id alone. A cause here is never proven: that
//! takes a build with its [`Setting`]. The second side is taken for the one to come to: settings are its.
//! Knows nothing of who builds, or whether a setting can be had.

mod debian;
mod general;
mod setting;
mod value;
mod wheel;

use crate::report::{Cause, Confidence, Detail, Difference, Differences};
use crate::variation::Label;

pub use setting::{Setting, SettingError, SettingName};

/// What the details of the listed differences give away: each cause once, by the file that shows it best, the surest first.
pub fn recognise(differences: &Differences) -> Vec<Cause> {
    let mut causes: Vec<Cause> = Vec::new();
    for difference in &differences.differences {
        for clue in clues(difference) {
            let cause = Cause {
                label: clue.label,
                factor: None,
                confidence: clue.confidence,
                output: difference.output.to_string(),
                path: difference.path.clone(),
                evidence: clue.evidence,
                setting: clue.setting,
            };
            match causes.iter_mut().find(|c| c.label == cause.label && c.setting == cause.setting) {
                Some(known) if cause.confidence < known.confidence => *known = cause,
                Some(_) => {}
                None => causes.push(cause),
            }
        }
    }
    causes.sort_by_key(|c| c.confidence);
    causes
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Clue {
    label: Label,
    confidence: Confidence,
    evidence: String,
    setting: Option<Setting>,
}

impl Clue {
    fn new(label: Label, confidence: Confidence, evidence: impl Into<String>) -> Self {
        Self { label, confidence, evidence: evidence.into(), setting: None }
    }

    fn proved_by(mut self, name: SettingName, value: impl Into<String>) -> Self {
        self.setting = Some(Setting::new(name, value));
        self
    }
}

fn clues(difference: &Difference) -> Vec<Clue> {
    // Two versions of a thing differ because they are two versions: nothing else is to be made of it.
    if debian::is_other_version(difference) || wheel::is_other_version(difference) {
        return Vec::new();
    }
    let mut clues = debian::clues(difference);
    clues.extend(wheel::clues(difference));
    for detail in &difference.details {
        clues.extend(general::clues(detail));
    }
    // Code that differs is the compiler's doing only if nothing else was found that does it.
    if clues.is_empty() {
        clues.extend(debian::code(difference));
    }
    clues
}

/// Where a detail is, as words before a sentence.
fn at(detail: &Detail) -> String {
    if detail.place.is_empty() { String::new() } else { format!("{}: ", detail.place) }
}

/// Lines of the one text beside those of the other, as they stand in an excerpt.
fn line_pairs(detail: &Detail) -> Vec<(&str, &str)> {
    let mut pairs = Vec::new();
    let mut at = 0;
    while at < detail.lines.len() {
        let run = |from: usize, first: bool| {
            let wanted = |l: &&crate::report::Line| (l.first.is_some(), l.second.is_some()) == (first, !first);
            detail.lines[from..].iter().take_while(wanted).count()
        };
        let removed = run(at, true);
        let added = run(at + removed, false);
        for i in 0..removed.min(added) {
            pairs.push((detail.lines[at + i].text.as_str(), detail.lines[at + removed + i].text.as_str()));
        }
        at += (removed + added).max(1);
    }
    pairs
}
