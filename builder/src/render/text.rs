//! A report for a terminal or a log.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};
use kiln_model::outcome::{Outcome, Status};
use kiln_model::report::{Content, Difference, Report};
use kiln_model::verdict::Verdict;

use super::Colour;
use super::detail::{self, Told};
use super::excerpt::{self, Cell, Mark};
use super::rebuilt;
use super::words;

/// Differences that are shown with their bytes; the JSON has all.
const SHOWN: usize = 20;

/// Rows of bytes for one difference.
const ROWS: usize = 3;

/// The report as text.
pub fn report(report: &Report, colour: Colour) -> String {
    let mut page = Page { out: String::new(), colour };
    let names = words::names(report);
    page.head(report);
    page.rebuilt(report);
    page.subjects(report, &names);
    page.causes(report);
    page.differences(report, &names);
    if !report.outcomes.is_empty() {
        page.outcomes(&report.outcomes, &names);
    }
    page.factors(report);
    if report.is_comparison() {
        return page.out;
    }
    if let Some(note) = words::left_open(report) {
        page.line(&format!("\n{note}"));
    } else {
        page.line("");
    }
    page.line("Seen by this machine alone; nobody independent has confirmed it.");
    page.out
}

/// Outcomes of `kiln build` as text: a line each, and the end of the log of what failed.
pub fn builds(outcomes: &[Outcome], colour: Colour) -> String {
    let mut page = Page { out: String::new(), colour };
    for outcome in outcomes {
        let name = outcome.derivation.rsplit('/').next().unwrap_or_default();
        let name = name.split_once('-').map_or(name, |(_, name)| name).trim_end_matches(".drv");
        let status = page.styled(status_style(outcome.status), outcome.status.as_str());
        page.line(&format!("{}  {status}  {}", words::plain(name), words::plain(&words::ending(outcome))));
        for (name, output) in &outcome.outputs {
            page.line(&format!("  {name}  {}  {}", words::plain(&output.path), output.nar_hash));
        }
        page.log_tail(outcome);
    }
    page.out
}

struct Page {
    out: String,
    colour: Colour,
}

const BOLD: Style = Style::new().bold();
const DIM: Style = Style::new().dimmed();
const RED: Style = Style::new().bold().fg_color(Some(anstyle::Color::Ansi(AnsiColor::Red)));
const GREEN: Style = Style::new().bold().fg_color(Some(anstyle::Color::Ansi(AnsiColor::Green)));
const YELLOW: Style = Style::new().bold().fg_color(Some(anstyle::Color::Ansi(AnsiColor::Yellow)));

fn verdict_style(verdict: Verdict) -> Style {
    match verdict {
        Verdict::Reproduced => GREEN,
        Verdict::Equivalent | Verdict::Inconclusive => YELLOW,
        Verdict::Failed | Verdict::Diverged | Verdict::UpstreamDiffers => RED,
    }
}

fn status_style(status: Status) -> Style {
    match status {
        Status::Built => GREEN,
        Status::Failed | Status::TimedOut => RED,
        Status::Unavailable => YELLOW,
    }
}

impl Page {
    fn styled(&self, style: Style, text: &str) -> String {
        match self.colour {
            Colour::Never => text.into(),
            Colour::Always => format!("{style}{text}{style:#}"),
        }
    }

    fn line(&mut self, line: &str) {
        self.out.push_str(line.trim_end());
        self.out.push('\n');
    }

    fn heading(&mut self, text: &str) {
        let text = self.styled(BOLD, text);
        self.line(&format!("\n{text}"));
    }

    fn head(&mut self, report: &Report) {
        let verdict = self.styled(verdict_style(report.verdict), report.verdict.as_str());
        let title = self.styled(BOLD, &words::plain(&report.title));
        self.line(&format!("{title}: {verdict}"));
        self.line(&words::sentence(report));
        let origin = report.reference.as_ref().map(|published| {
            let found = if published.available { "" } else { " (could not be had)" };
            format!("{}{found}", published.origin)
        });
        for (key, value) in [("recipe", &report.recipe), ("derivation", &report.derivation), ("reference", &origin)] {
            if let Some(value) = value {
                self.line(&format!("  {key:<11}{}", words::plain(value)));
            }
        }
    }

    fn rebuilt(&mut self, report: &Report) {
        for (key, value) in rebuilt::lines(report) {
            self.line(&format!("  {key:<12}{value}"));
        }
    }

    fn subjects(&mut self, report: &Report, names: &[String]) {
        if report.subjects.is_empty() {
            return;
        }
        self.heading(words::subjects(report));
        let width = names.iter().map(String::len).chain([9]).max().unwrap_or(9);
        for judged in &report.subjects {
            let verdict = self.styled(verdict_style(judged.verdict), judged.verdict.as_str());
            if !report.is_comparison() {
                self.line(&format!("  {}  {verdict}", words::plain(judged.subject.name())));
            }
            for (name, digest) in names.iter().zip(&judged.digests) {
                self.line(&format!("    {name:<width$}  {}", digest.as_deref().unwrap_or("-")));
            }
            if let Some(published) = &judged.reference {
                self.line(&format!("    {:<width$}  {published}", "published"));
            }
        }
    }

    fn differences(&mut self, report: &Report, names: &[String]) {
        let listed = &report.differences.differences;
        let all = listed.len() as u64 + report.differences.differences_left_out;
        if all == 0 {
            return;
        }
        self.heading(&words::differing(report, all));
        for difference in listed.iter().take(SHOWN) {
            self.difference(report, difference, names);
        }
        let rest = all - listed.len().min(SHOWN) as u64;
        if rest > 0 {
            let note = self.styled(DIM, &format!("and {rest} more"));
            self.line(&format!("  {note}"));
        }
    }

    fn difference(&mut self, report: &Report, difference: &Difference, names: &[String]) {
        let path = words::place(report, difference);
        self.line(&format!("  {path}  {}", words::difference(difference, names)));
        if !difference.details.is_empty() {
            for told in detail::text(difference) {
                match told {
                    Told::Line(line) => self.line(&line),
                    Told::Bytes(content) => self.bytes(content, difference, names),
                }
            }
            return;
        }
        if let Some(content) = &difference.content {
            self.bytes(content, difference, names);
        }
    }

    fn bytes(&mut self, content: &Content, difference: &Difference, names: &[String]) {
        let name = |side: usize| names.get(difference.between[side]).map_or("?", String::as_str);
        let width = name(0).len().max(name(1).len());
        let rows = excerpt::rows(content, ROWS);
        for row in rows {
            let (first, second) = (self.cells(&row.first), self.cells(&row.second));
            self.line(&format!("    {:08x}  {:<width$}  {first}", row.offset, name(0)));
            self.line(&format!("              {:<width$}  {second}", name(1)));
            if self.colour == Colour::Never {
                // Without colour the bytes that differ are pointed at; the longer side has the last word.
                let longer = if row.first.len() > row.second.len() { &row.first } else { &row.second };
                let marks: Vec<&str> =
                    longer.iter().map(|c| if c.mark == Mark::Differs { "^^" } else { "  " }).collect();
                if marks.contains(&"^^") {
                    self.line(&format!("              {:<width$}  {}", "", marks.join(" ")));
                }
            }
        }
    }

    fn cells(&self, cells: &[Cell]) -> String {
        let mut line = String::new();
        let shown = |text: String, cell: &Cell| match cell.mark {
            Mark::Differs => self.styled(YELLOW, &text),
            Mark::Same => text,
        };
        for cell in cells {
            let _ = write!(line, "{} ", shown(cell.hex(), cell));
        }
        let blank = "   ".repeat(excerpt::ROW - cells.len());
        let text: String = cells.iter().map(|cell| shown(cell.text().to_string(), cell)).collect();
        format!("{line}{blank} {text}")
    }

    fn causes(&mut self, report: &Report) {
        if report.causes.is_empty() {
            return;
        }
        self.heading("Why");
        for cause in &report.causes {
            let label = self.styled(BOLD, cause.label.as_str());
            let path = words::plain(&format!("{}/{}", cause.output, cause.path));
            self.line(&format!(
                "  {label}  {}: {}",
                words::confidence(cause.confidence),
                words::plain(&cause.evidence)
            ));
            let indent = " ".repeat(cause.label.as_str().len());
            if !report.is_comparison() {
                self.line(&format!("  {indent}  in {}", path.trim_end_matches('/')));
            }
            if let Some(setting) = &cause.setting {
                let (setting, shows) = (words::plain(&setting.to_string()), words::shows(cause, setting, report));
                self.line(&format!("  {indent}  a build with {setting} {shows}"));
            }
        }
    }

    fn factors(&mut self, report: &Report) {
        let factors = &report.factors;
        if !factors.varied.is_empty() {
            self.heading(&words::counted(factors.varied.len() as u64, "factor varied", "factors varied"));
            let mut line = String::from(" ");
            for factor in factors.varied.keys().map(|factor| factor.as_str()) {
                if line.len() + factor.len() > 100 {
                    self.line(&line);
                    line = String::from(" ");
                }
                let _ = write!(line, " {factor}");
            }
            self.line(&line);
        }
        if !factors.not_varied.is_empty() {
            self.heading("Not varied");
            for (factor, why) in &factors.not_varied {
                self.line(&format!("  {factor}: {}", words::plain(&why.to_string())));
            }
        }
    }

    fn outcomes(&mut self, outcomes: &[Outcome], names: &[String]) {
        self.heading("Builds");
        let width = names.iter().map(String::len).max().unwrap_or(0);
        for (outcome, name) in outcomes.iter().zip(names) {
            self.line(&format!("  {name:<width$}  {}", words::plain(&words::ending(outcome))));
            self.log_tail(outcome);
        }
    }

    fn log_tail(&mut self, outcome: &Outcome) {
        let Some(failure) = &outcome.failure else { return };
        for line in failure.log_tail.lines() {
            let line = format!("{} {}", self.styled(DIM, "│"), words::plain_lines(line));
            self.line(&format!("    {line}"));
        }
    }
}
