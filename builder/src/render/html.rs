//! A report as one page: no script, nothing loaded, readable from a file, in light and dark.
//!
//! The order is that of a maintainer's questions: is it reproducible, what differs, why, under which conditions, where.

use kiln_model::outcome::{Outcome, Status};
use kiln_model::report::{Content, Difference, Judged, Report};
use kiln_model::verdict::Verdict;
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::detail;
use super::excerpt::{self, Cell, Mark};
use super::rebuilt;
use super::words::{self, plain, plain_lines};

pub(super) const STYLE: &str = include_str!("style.css");

/// Nothing may be loaded or run, whatever a build managed to put on the page.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'";

/// Differences on the page; the JSON has all.
const SHOWN: usize = 100;

/// Rows of bytes for one difference.
const ROWS: usize = 8;

/// Reports as an HTML document: one in full, or several after an overview.
pub fn page(reports: &[Report]) -> String {
    let title = match reports {
        [report] => format!("{}: {}", report.verdict.as_str(), plain(&report.title)),
        _ => words::counted(reports.len() as u64, "report", "reports"),
    };
    let markup = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                main {
                    @if reports.len() != 1 { (overview(reports)) }
                    @for (i, report) in reports.iter().enumerate() { article id=(anchor(i)) { (told(report)) } }
                }
            }
        }
    };
    let mut text = markup.into_string();
    text.push('\n');
    text
}

fn told(report: &Report) -> Markup {
    let names = words::names(report);
    html! {
        (head(report))
        (rebuilt(report))
        (subjects(report, &names))
        (failures(report, &names))
        (causes(report))
        (differences(report, &names))
        (factors(report))
        @if !report.outcomes.is_empty() { (builds(report, &names)) }
        (footer(report))
    }
}

/// What is told of a rebuild.
fn rebuilt(report: &Report) -> Markup {
    let lines = rebuilt::lines(report);
    html! {
        @if !lines.is_empty() {
            section {
                h2 { "Rebuild" }
                div.card {
                    table.pairs {
                        @for (key, value) in lines { tr { td.quiet { (key) } td { (value) } } }
                    }
                }
            }
        }
    }
}

fn anchor(index: usize) -> String {
    format!("report-{}", index + 1)
}

/// Every target with its verdict, the worst first.
fn overview(reports: &[Report]) -> Markup {
    let mut order: Vec<(usize, &Report)> = reports.iter().enumerate().collect();
    order.sort_by_key(|(i, report)| (std::cmp::Reverse(report.verdict), *i));
    html! {
        section {
            p.brand { "kiln report" }
            h2 { (words::counted(reports.len() as u64, "target", "targets")) }
            div.card {
                table.pairs {
                    @for (i, report) in order {
                        tr {
                            td { span.tag.(tone(report.verdict)) { (report.verdict.as_str()) } }
                            td { a href=(format!("#{}", anchor(i))) { (plain(&report.title)) } }
                            td.quiet { (words::sentence(report)) }
                        }
                    }
                }
            }
        }
    }
}

pub(super) fn tone(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Reproduced => "good",
        Verdict::Equivalent | Verdict::Inconclusive => "warn",
        Verdict::Failed | Verdict::Diverged | Verdict::UpstreamDiffers => "bad",
    }
}

/// A sign beside the word, so that the verdict does not rest on colour.
pub(super) fn sign(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Reproduced => "=",
        Verdict::Equivalent => "≈",
        Verdict::Inconclusive => "?",
        Verdict::Failed => "×",
        Verdict::Diverged => "≠",
        Verdict::UpstreamDiffers => "!",
    }
}

fn head(report: &Report) -> Markup {
    let tone = tone(report.verdict);
    html! {
        header {
            p.brand { "kiln report" }
            h1 { (plain(&report.title)) }
            div.verdict {
                span.sign.(tone) aria-hidden="true" { (sign(report.verdict)) }
                strong.(tone) { (report.verdict.as_str()) }
            }
            p.sentence { (words::sentence(report)) }
            dl.facts {
                @if let Some(recipe) = &report.recipe { dt { "Recipe" } dd { code { (plain(recipe)) } } }
                @if let Some(derivation) = &report.derivation { dt { "Derivation" } dd { code { (plain(derivation)) } } }
                @if let Some(published) = &report.reference {
                    dt { "Reference" }
                    dd { (plain(&published.origin)) @if !published.available { " (could not be had)" } }
                }
            }
        }
    }
}

fn subjects(report: &Report, names: &[String]) -> Markup {
    html! {
        @if !report.subjects.is_empty() {
            section {
                h2 { (words::subjects(report)) }
                @for judged in &report.subjects { (subject(report, judged, names)) }
            }
        }
    }
}

fn subject(report: &Report, judged: &Judged, names: &[String]) -> Markup {
    // Digests are held against what was published, or else against the control's.
    let norm = judged.reference.as_ref().or(judged.digests.first().and_then(Option::as_ref));
    html! {
        div.card {
            div.row {
                @if !report.is_comparison() { span.name { (plain(judged.subject.name())) } }
                span.tag.(tone(judged.verdict)) { (judged.verdict.as_str()) }
            }
            table.digests {
                @for (name, digest) in names.iter().zip(&judged.digests) {
                    tr {
                        td { (name) }
                        td {
                            @match digest {
                                Some(digest) => code.other[Some(digest) != norm] { (digest) },
                                None => span.quiet { "none" },
                            }
                        }
                    }
                }
                @if let Some(published) = &judged.reference { tr { td { "published" } td { code { (published) } } } }
            }
        }
    }
}

fn failures(report: &Report, names: &[String]) -> Markup {
    let failed: Vec<(&String, &Outcome)> =
        names.iter().zip(&report.outcomes).filter(|(_, o)| o.status != Status::Built).collect();
    html! {
        @if !failed.is_empty() {
            section {
                h2 { "What failed" }
                @for (name, outcome) in failed {
                    div.card {
                        div.row { span.name { (name) } span.what { (plain(&words::ending(outcome))) } }
                        @if let Some(failure) = outcome.failure.as_ref().filter(|f| !f.log_tail.is_empty()) {
                            pre { (plain_lines(failure.log_tail.trim_end())) }
                        }
                    }
                }
            }
        }
    }
}

fn causes(report: &Report) -> Markup {
    let causes = &report.causes;
    html! {
        @if !causes.is_empty() {
            section {
                h2 { "Why" }
                div.card {
                    @for cause in causes {
                        div.cause {
                            div {
                                div.label { (cause.label.as_str()) }
                                div.sure { (words::confidence(cause.confidence)) }
                            }
                            div {
                                p { (plain(&cause.evidence)) }
                                @if let Some(setting) = &cause.setting {
                                    p { "A build with " code { (plain(&setting.to_string())) } " " (words::shows(cause, setting, report)) "." }
                                }
                                @if !report.is_comparison() { p.where { "in " code { (place(&cause.output, &cause.path.to_string())) } } }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn place(output: &str, path: &str) -> String {
    if path.is_empty() { plain(output) } else { plain(&format!("{output}/{path}")) }
}

fn differences(report: &Report, names: &[String]) -> Markup {
    let listed = &report.differences.differences;
    let all = listed.len() as u64 + report.differences.differences_left_out;
    let rest = all - listed.len().min(SHOWN) as u64;
    html! {
        @if all > 0 {
            section {
                h2 { (words::differing(report, all)) }
                @for difference in listed.iter().take(SHOWN) { (entry(report, difference, names)) }
                @if rest > 0 { p.quiet { "and " (rest) " more" } }
            }
        }
    }
}

fn entry(report: &Report, difference: &Difference, names: &[String]) -> Markup {
    let name = |side: usize| names.get(difference.between[side]).map_or("?", String::as_str);
    html! {
        div.card {
            div.row {
                code.name { (words::place(report, difference)) }
                span.what { (words::difference(difference, names)) }
            }
            @if !difference.details.is_empty() {
                (detail::page(difference, [name(0), name(1)], |content| bytes(content, difference.between, names)))
            } @else if let Some(content) = &difference.content {
                (bytes(content, difference.between, names))
            }
        }
    }
}

fn bytes(content: &Content, between: [usize; 2], names: &[String]) -> Markup {
    let name = |side: usize| names.get(between[side]).map_or("?", String::as_str);
    html! {
        table.bytes {
            tr { th {} th colspan="2" { (name(0)) } th colspan="2" { (name(1)) } }
            @for row in excerpt::rows(content, ROWS) {
                tr {
                    td.offset { (format!("{:08x}", row.offset)) }
                    @for side in [&row.first, &row.second] {
                        td.hex { (cells(side, " ", Cell::hex)) }
                        td.text { (cells(side, "", |cell| cell.text().to_string())) }
                    }
                }
            }
        }
    }
}

/// Cells in runs, so that neighbours that differ are one mark.
fn cells(cells: &[Cell], between: &str, shown: impl Fn(Cell) -> String) -> Markup {
    let runs = cells.chunk_by(|a, b| a.mark == b.mark).map(|run| {
        let text: Vec<String> = run.iter().map(|&cell| shown(cell)).collect();
        (run[0].mark, text.join(between))
    });
    html! {
        @for (i, (mark, text)) in runs.enumerate() {
            @if i > 0 { (between) }
            @match mark { Mark::Differs => mark { (text) }, Mark::Same => (text), }
        }
    }
}

fn factors(report: &Report) -> Markup {
    let factors = &report.factors;
    html! {
        @if !factors.varied.is_empty() || !factors.not_varied.is_empty() {
            section {
                h2 { "Conditions" }
                div.card {
                    table.pairs {
                        tr { th { "Varied" } th { "control" } th { "varied" } }
                        @for (factor, change) in &factors.varied {
                            tr { td { (factor) } td { code { (plain(&change.control)) } } td { code { (plain(&change.varied)) } } }
                        }
                        @if factors.varied.is_empty() { tr { td.quiet colspan="3" { "nothing" } } }
                    }
                }
                @if !factors.not_varied.is_empty() {
                    div.card {
                        table.pairs {
                            tr { th { "Not varied" } th { "because" } }
                            @for (factor, why) in &factors.not_varied {
                                tr { td { (factor) } td { (plain(&why.to_string())) } }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn builds(report: &Report, names: &[String]) -> Markup {
    html! {
        section {
            h2 { "Builds" }
            @for (outcome, name) in report.outcomes.iter().zip(names) {
                details {
                    summary { (name) " " span.what { "· " (plain(&words::ending(outcome))) " · " (outcome.started) } }
                    (build(outcome))
                }
            }
        }
    }
}

fn build(outcome: &Outcome) -> Markup {
    let host = &outcome.host;
    html! {
        dl.facts {
            dt { "Host" } dd { (plain(&host.cpu)) ", " (host.cores) " processors, " (plain(&host.machine)) }
            dt { "Kernel" } dd { (plain(&host.kernel)) }
            dt { "Store on" } dd { (plain(&host.store_file_system)) }
            dt { "kiln" } dd { (plain(&host.kiln)) }
            @if let Some(log) = &outcome.log { dt { "Log" } dd { (words::size(log.bytes)) ", " code { (log.sha256) } } }
            @for (name, output) in &outcome.outputs { dt { (name) } dd { code { (plain(&output.path)) } ", " (words::size(output.nar_size)) } }
            @for (name, held) in &outcome.isolation { dt { (plain(name)) } dd { (plain(&value(held))) } }
        }
        @if !outcome.inputs.is_empty() {
            table {
                tr { th { "Inputs" } th {} }
                @for (path, digest) in &outcome.inputs { tr { td { code { (plain(path)) } } td { code { (digest) } } } }
            }
        }
    }
}

/// A JSON value without quotes where it is a plain text.
fn value(held: &serde_json::Value) -> String {
    match held {
        serde_json::Value::String(text) => text.clone(),
        serde_json::Value::Array(items) => items.iter().map(value).collect::<Vec<_>>().join(", "),
        serde_json::Value::Null
        | serde_json::Value::Bool(_)
        | serde_json::Value::Number(_)
        | serde_json::Value::Object(_) => held.to_string(),
    }
}

fn footer(report: &Report) -> Markup {
    html! {
        footer {
            @if let Some(note) = words::left_open(report) { p { (note) } }
            @if !report.is_comparison() { p { "Seen by one machine alone; nobody independent has confirmed it." } }
        }
    }
}
