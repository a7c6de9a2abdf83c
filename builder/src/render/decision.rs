//! Decisions as text: the answer, what was reached of what is required, who says what, and what to do.

use std::fmt::Write as _;

use kiln_model::verify::{Answer, Check, Decision, Status};

use super::Colour;

/// How much is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// What decided.
    Short,
    /// Every check.
    Explain,
}

/// Tells one decision.
pub fn decision(decision: &Decision, detail: Detail, colour: Colour) -> String {
    let mut out = headline(decision, colour);
    let wide = decision.achieved.iter().map(|row| row.what.len()).max().unwrap_or(0);
    let required =
        decision.achieved.iter().map(|row| row.required.chars().count()).max().unwrap_or(0).max("required".len());
    let _ = writeln!(out, "    {:wide$}  {:required$}  achieved", "", "required");
    for row in &decision.achieved {
        let mark = if row.holds { " " } else { "!" };
        let _ =
            writeln!(out, "  {mark} {:wide$}  {:required$}  {}", row.what, plain(&row.required), plain(&row.achieved));
    }
    for said in &decision.operators {
        let counts = if said.counts { "counts" } else { "does not count" };
        let _ =
            write!(out, "  {}: {} ({counts}), {}", plain(&said.operator), said.says.as_str(), plain(&said.rebuilder));
        if let Some(witnessed) = said.witnessed {
            let _ = write!(out, ", witnessed by {witnessed}");
        }
        if !said.normalisers.is_empty() {
            let _ = write!(out, ", after {}", plain(&said.normalisers.join(", ")));
        }
        out.push('\n');
        if detail == Detail::Explain {
            let _ = writeln!(out, "      {} in {}", said.envelope, plain(&said.source));
        }
    }
    for check in decision.checks.iter().filter(|check| detail == Detail::Explain || told(check, decision.answer)) {
        out.push_str(&one(check));
    }
    if !decision.levels.is_empty() {
        let levels: Vec<&str> = decision.levels.iter().map(|level| level.as_str()).collect();
        let _ = writeln!(out, "  levels: {}", levels.join(", "));
    }
    if detail == Detail::Explain {
        out.push_str("  freshness: files cannot show that nothing newer exists; what witnesses saw is dated above\n");
    }
    out
}

/// One decision in one line.
pub fn headline(decision: &Decision, colour: Colour) -> String {
    let style = match decision.answer {
        Answer::Allowed => "\u{1b}[1;32m",
        Answer::Insufficient => "\u{1b}[1;33m",
        Answer::Denied | Answer::Tampered => "\u{1b}[1;31m",
    };
    let (begin, end) = if colour == Colour::Always { (style, "\u{1b}[0m") } else { ("", "") };
    let name = plain(&decision.artifact.name);
    format!("{begin}{}{end}: {name} (verdict of all operators: {})\n", decision.answer.as_str(), decision.verdict)
}

/// What a reader must know without asking: all that is worse than a passed check, and why statements did not count if that
/// mattered.
fn told(check: &Check, answer: Answer) -> bool {
    match check.status {
        Status::Passed => false,
        Status::Noted | Status::Insufficient | Status::Denied | Status::Tampered => true,
        Status::NotCounted => answer != Answer::Allowed,
    }
}

/// One check.
pub fn one(check: &Check) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "  {} ({}): {}", check.code.as_str(), check.status.as_str(), plain(&check.field));
    let _ = writeln!(out, "      expected {}", plain(&check.expected));
    let _ = writeln!(out, "      got      {}", plain(&check.got));
    if let Some(source) = &check.source {
        let _ = writeln!(out, "      in       {}", plain(source));
    }
    if !check.way_out.is_empty() {
        let _ = writeln!(out, "      do       {}", check.way_out);
    }
    out
}

/// Without what would steer a terminal: statements are written by strangers.
pub(crate) fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() || is_invisible(c) { '\u{fffd}' } else { c }).collect()
}

/// What changes the direction of text, or takes no place.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}
