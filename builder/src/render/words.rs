//! Words that text and HTML share.

use std::time::Duration;

use kiln_model::cause::Setting;
use kiln_model::outcome::{Entry, Outcome, Status};
use kiln_model::report::{Cause, Confidence, Difference, Kind, Report};
use kiln_model::variation::Factor;
use kiln_model::verdict::Verdict;

/// What each of the report's outcomes is called.
pub(super) fn names(report: &Report) -> Vec<String> {
    let mut names = outcomes(report);
    names.extend(match report.is_comparison() {
        // Their own names are paths: said once, in the title.
        true => vec!["first".to_string(), "second".to_string()],
        false => report.sides.iter().map(|side| plain(side)).collect(),
    });
    names
}

fn outcomes(report: &Report) -> Vec<String> {
    let varied = |outcome: &Outcome| outcome.conditions.as_ref().is_some_and(|ran| ran.effects.is_some());
    if !report.outcomes.iter().any(varied) {
        return (1..=report.outcomes.len()).map(|n| format!("build {n}")).collect();
    }
    let alone = report.outcomes.iter().filter(|o| varied(o)).count() == 1;
    let (mut controls, mut others) = (0, 0);
    let numbered = |word: &str, count: &mut usize, alone: bool| {
        *count += 1;
        if alone { word.to_string() } else { format!("{word} {count}") }
    };
    let single_control = report.outcomes.iter().filter(|o| !varied(o)).count() == 1;
    report
        .outcomes
        .iter()
        .map(|o| match varied(o) {
            true => numbered("varied", &mut others, alone),
            false => numbered("control", &mut controls, single_control),
        })
        .collect()
}

/// The verdict in one sentence.
pub(super) fn sentence(report: &Report) -> String {
    let built = report.outcomes.iter().filter(|o| o.status == Status::Built).count();
    let factors = report.factors.varied.len();
    let published = report.reference.is_some();
    match report.verdict {
        Verdict::Reproduced if report.is_comparison() => "The two have the same bytes.".into(),
        Verdict::Diverged if report.is_comparison() => "The two differ.".into(),
        Verdict::Reproduced if published && built == 1 => "The build has exactly the bytes that were published.".into(),
        Verdict::Reproduced if published => {
            format!("{built} builds have the same bytes, and exactly those that were published.")
        }
        Verdict::Reproduced if factors > 0 => {
            format!("{built} builds have the same bytes, with {factors} of {} factors varied.", Factor::ALL.len())
        }
        Verdict::Reproduced => format!("{built} builds have the same bytes."),
        Verdict::Equivalent => match normalisers(report) {
            names if names.is_empty() => {
                "The bytes differ, and agree only after named normalisers. This is not identity.".into()
            }
            names => format!("The bytes differ, and agree only after {}. This is not identity.", names.join(", ")),
        },
        Verdict::Inconclusive if report.rebuild.as_ref().is_some_and(|rebuilt| !rebuilt.missing.is_empty()) => {
            "Something that it takes could not be had, so nothing was built and nobody is judged.".into()
        }
        Verdict::Inconclusive if report.reference.as_ref().is_some_and(|r| !r.available) => {
            "The published artifact could not be had, so there is nothing to compare with.".into()
        }
        Verdict::Inconclusive => "Too little was seen to judge.".into(),
        Verdict::Failed => "No build ended well.".into(),
        Verdict::Diverged if built < report.outcomes.len() => {
            "It builds under one condition and fails under another.".into()
        }
        Verdict::Diverged => "Builds disagree with each other: the build is not deterministic.".into(),
        Verdict::UpstreamDiffers => {
            format!("{built} builds agree with each other and not with what was published: look into it.")
        }
    }
}

/// What agreement of so many builds leaves open: the probability of a chance difference that n alike builds do not rule out
/// at 95 %, 1 − 0.05^(1/n).
pub(super) fn left_open(report: &Report) -> Option<String> {
    let built = report.outcomes.iter().filter(|o| o.status == Status::Built && !o.cached).count();
    if report.verdict != Verdict::Reproduced || built < 2 {
        return None;
    }
    let bound = (1.0 - 0.05_f64.powf(1.0 / built as f64)) * 100.0;
    Some(format!(
        "Identical in {built} builds. A difference by chance in up to {bound:.0} % of builds is not ruled out (95 % confidence)."
    ))
}

/// `4.3 s`, `12 min 5 s`, `2 h 3 min`
pub(super) fn duration(duration: Duration) -> String {
    match duration.as_secs() {
        0..60 => format!("{:.1} s", duration.as_millis() as f64 / 1000.0),
        seconds @ 60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        seconds => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

/// `812 bytes`, `4.5 MiB`
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 10_240 {
        return format!("{bytes} byte{}", if bytes == 1 { "" } else { "s" });
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// How a build ended, in a few words.
pub(super) fn ending(outcome: &Outcome) -> String {
    let ran = duration(outcome.seconds);
    let ended = match (outcome.status, outcome.limit) {
        (Status::Built, _) if outcome.cached => return format!("built earlier, in {ran}"),
        (Status::Built, _) => format!("built in {ran}"),
        (Status::Failed, Some(limit)) => format!("stopped after {ran} by a limit ({})", limit.as_str()),
        (Status::Failed, None) => format!("failed after {ran}"),
        (Status::TimedOut, _) => format!("ran into its deadline after {ran}"),
        (Status::Unavailable, _) => "not run".into(),
    };
    match &outcome.failure {
        Some(failure) => format!("{ended}: {}", failure.message),
        None => ended,
    }
}

/// What differs at one path, in a few words. `names` are those of the report's outcomes.
pub(super) fn difference(difference: &Difference, names: &[String]) -> String {
    let name = |side: usize| names.get(difference.between[side]).map_or("?", String::as_str);
    let kind = |entry: &Option<Entry>| entry.as_ref().map_or("nothing", |e| e.kind());
    let target = |entry: &Option<Entry>| match entry {
        Some(Entry::Symlink { target }) => plain(&target.to_string()),
        Some(_) | None => String::new(),
    };
    match difference.kind {
        Kind::OnlyInFirst => format!("only in {}", name(0)),
        Kind::OnlyInSecond => format!("only in {}", name(1)),
        Kind::Type => {
            format!("{} in {}, {} in {}", kind(&difference.first), name(0), kind(&difference.second), name(1))
        }
        Kind::Target => format!("points to {} and {}", target(&difference.first), target(&difference.second)),
        Kind::Executable => {
            let first = matches!(difference.first, Some(Entry::File { executable: true, .. }));
            format!("same bytes, executable only in {}", name(usize::from(!first)))
        }
        Kind::Content => contents(difference),
    }
}

/// All normalisers that were needed.
fn normalisers(report: &Report) -> Vec<&'static str> {
    let needed = report.differences.differences.iter().filter_map(|d| d.equivalence.as_ref());
    let names: std::collections::BTreeSet<_> = needed.flat_map(|e| &e.normalisers).collect();
    names.into_iter().map(|n| n.as_str()).collect()
}

/// The heading of what was judged.
pub(super) fn subjects(report: &Report) -> &'static str {
    if report.is_comparison() { "Digests" } else { "Outputs" }
}

/// The heading of what differs.
pub(super) fn differing(report: &Report, count: u64) -> String {
    match report.differences.differences.as_slice() {
        [one] if report.is_comparison() && one.path.as_bytes().is_empty() => "What differs".into(),
        _ => counted(count, "entry differs", "entries differ"),
    }
}

/// Where a difference is: output and path, or the path alone where there is no output.
pub(super) fn place(report: &Report, difference: &Difference) -> String {
    let path = plain(&difference.path.to_string());
    match (report.is_comparison(), path.is_empty()) {
        (true, true) => "contents".into(),
        (true, false) => path,
        (false, true) => difference.output.to_string(),
        (false, false) => format!("{}/{path}", difference.output),
    }
}

fn contents(difference: &Difference) -> String {
    let bytes = |entry: &Option<Entry>| match entry {
        Some(Entry::File { size, .. }) => *size,
        Some(_) | None => 0,
    };
    let (first, second) = (bytes(&difference.first), bytes(&difference.second));
    let sizes = if first == second { size(first) } else { format!("{} and {}", size(first), size(second)) };
    match &difference.content {
        Some(content) if first == second => {
            format!("{} of {sizes} differ, first at {:#x}", content.differing_bytes, content.offset)
        }
        Some(content) => format!("{sizes}, first difference at {:#x}", content.offset),
        None => sizes,
    }
}

/// How sure a cause is, as a word before its name.
pub(super) fn confidence(confidence: Confidence) -> &'static str {
    match confidence {
        Confidence::Proven => "proven",
        Confidence::Likely => "likely",
        Confidence::Suspected => "suspected",
    }
}

/// What a build with a cause's setting does: a cause is proven by such a build only.
pub(super) fn shows(cause: &Cause, setting: &Setting, report: &Report) -> &'static str {
    if cause.confidence == Confidence::Proven {
        return "has shown it";
    }
    // Of several settings that were tried together, pins and options stand behind one name.
    let is_it = |one: &str| {
        one.split_once('=').is_some_and(|(name, values)| {
            name == setting.name.as_str() && values.split(',').any(|value| value == setting.value)
        })
    };
    let tried = report.rebuild.iter().flat_map(|rebuilt| &rebuilt.tried);
    let tried: Vec<_> = tried.filter(|one| one.setting.split(' ').any(is_it)).collect();
    match (!tried.is_empty(), tried.iter().any(|one| one.error.is_none())) {
        (false, _) => "would show it",
        (true, true) => "was tried, and does not account for all of it",
        (true, false) => "would show it, and could not be had",
    }
}

/// A heading that counts what it heads.
pub(super) fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// Text that a build could have chosen, on one line: control characters and those that change the direction or presence of
/// others (Unicode TR 36) are spelled out.
pub(super) fn plain(text: &str) -> String {
    spelled_out(text, harmless)
}

/// As [`plain`], but lines and tabs stay.
pub(super) fn plain_lines(text: &str) -> String {
    spelled_out(text, |c| harmless(c) || matches!(c, '\n' | '\t'))
}

fn spelled_out(text: &str, keep: impl Fn(char) -> bool) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut shown, c| {
        if keep(c) {
            shown.push(c);
        } else {
            shown.extend(c.escape_unicode());
        }
        shown
    })
}

fn harmless(c: char) -> bool {
    !c.is_control()
        && !matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use kiln_model::cause::SettingName;
    use kiln_model::report::{Rebuilt, Tried};
    use kiln_model::variation::Label;

    use super::*;
    use crate::render::samples;

    #[test]
    fn a_setting_that_was_tried_is_not_said_to_show_what_it_did_not() {
        let setting = Setting::new(SettingName::Pin, "libc6:2.33");
        let cause = |confidence| Cause {
            label: Label::DependencyVersion,
            factor: None,
            confidence,
            output: "out".into(),
            path: "x".into(),
            evidence: String::new(),
            setting: Some(setting.clone()),
        };
        let says = |tried: &[(&str, Option<&str>)], confidence| {
            let tried = tried.iter().map(|(setting, error)| Tried {
                setting: (*setting).into(),
                verdict: Verdict::Diverged,
                subjects: [].into(),
                derivation: None,
                error: error.map(Into::into),
            });
            let rebuilt = Rebuilt { tried: tried.collect(), ..Rebuilt::new("debian:x".into()) };
            let report = Report { rebuild: Some(rebuilt), ..samples::upstream_differs() };
            shows(&cause(confidence), &setting, &report)
        };
        let likely = Confidence::Likely;
        assert_eq!(says(&[("pin=perl:5", None), ("changelog=binnmu", None)], likely), "would show it");
        let tried = [("build-options=notrimdch pin=gcc:12,libc6:2.33", None)];
        assert_eq!(says(&tried, likely), "was tried, and does not account for all of it");
        assert_eq!(says(&[("pin=libc6:2.33", Some("gone"))], likely), "would show it, and could not be had");
        assert_eq!(says(&tried, Confidence::Proven), "has shown it");
    }
}
