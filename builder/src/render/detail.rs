//! What differs inside a file, as text and as HTML: the place, a sentence, and both sides next to each other.

use kiln_model::report::{Content, Detail, Difference, Equivalence, Line};
use maud::{Markup, html};

use super::words::plain;

/// Details of one file that are shown in text; the JSON has more.
pub(super) const SHOWN: usize = 30;

/// Details of one file on a page.
const ON_PAGE: usize = 100;

/// Lines of a detail in text.
const LINES: usize = 16;

/// Excerpts of bytes of one file in text.
const EXCERPTS: usize = 6;

/// A part of what is told as text.
pub(super) enum Told<'a> {
    /// A line with its indentation.
    Line(String),
    /// Bytes of both sides.
    Bytes(&'a Content),
}

/// The details of a difference as text.
pub(super) fn text(difference: &Difference) -> Vec<Told<'_>> {
    let mut told = Vec::new();
    let mut excerpts = 0;
    for detail in difference.details.iter().take(SHOWN) {
        told.extend(lines_of(detail).into_iter().map(Told::Line));
        if let (Some(content), true) = (&detail.content, excerpts < EXCERPTS) {
            excerpts += 1;
            told.push(Told::Bytes(content));
        }
    }
    let rest = difference.details.len().saturating_sub(SHOWN) as u64 + difference.details_left_out;
    if rest > 0 {
        told.push(Told::Line(format!("    and {rest} more inside of it")));
    }
    if let Some(equivalence) = &difference.equivalence {
        told.push(Told::Line(format!("    {}", equal_after(equivalence))));
    }
    told
}

fn lines_of(detail: &Detail) -> Vec<String> {
    let place = if detail.place.is_empty() { String::new() } else { format!("{}  ", plain(&detail.place)) };
    let mut out =
        vec![format!("    {place}{}{}", detail.kind, normaliser(detail)), format!("      {}", plain(&detail.says))];
    let numbers = detail.lines.iter().flat_map(|l| [l.first, l.second]).flatten().max().unwrap_or(0);
    let width = numbers.to_string().len();
    let number = |n: Option<u64>| n.map_or(String::new(), |n| n.to_string());
    for line in detail.lines.iter().take(LINES) {
        let (first, second) = (number(line.first), number(line.second));
        out.push(format!("        {first:>width$} {second:>width$} {} {}", sign(line), plain(&line.text)));
    }
    let rest = detail.lines.len().saturating_sub(LINES) as u64 + detail.lines_left_out;
    if rest > 0 {
        out.push(format!("        and {rest} more lines"));
    }
    out
}

fn normaliser(detail: &Detail) -> String {
    detail.normaliser.map_or_else(String::new, |normaliser| format!("  ({normaliser})"))
}

fn sign(line: &Line) -> char {
    match (line.first, line.second) {
        (Some(_), None) => '-',
        (None, Some(_)) => '+',
        (Some(_), Some(_)) | (None, None) => ' ',
    }
}

/// After which normalisers two files are equal.
pub(super) fn equal_after(equivalence: &Equivalence) -> String {
    let names: Vec<&str> = equivalence.normalisers.iter().map(|n| n.as_str()).collect();
    format!("equal after {}; normalised digest {}", names.join(", "), equivalence.normalised)
}

/// The details of a difference on a page, both sides next to each other. `bytes` shows an excerpt of bytes.
pub(super) fn page(difference: &Difference, names: [&str; 2], bytes: impl Fn(&Content) -> Markup) -> Markup {
    let rest = difference.details.len().saturating_sub(ON_PAGE) as u64 + difference.details_left_out;
    html! {
        @for detail in difference.details.iter().take(ON_PAGE) {
            div.detail {
                div.row {
                    code.name { @if detail.place.is_empty() { "(the file itself)" } @else { (plain(&detail.place)) } }
                    span.what { (detail.kind) @if let Some(normaliser) = detail.normaliser { " · " (normaliser) } }
                }
                p.says { (plain(&detail.says)) }
                @if !detail.lines.is_empty() {
                    (lines(&detail.lines, names))
                    @if detail.lines_left_out > 0 { p.quiet { "and " (detail.lines_left_out) " more lines" } }
                } @else if let Some(content) = &detail.content {
                    (bytes(content))
                } @else if let (Some(first), Some(second)) = (&detail.first, &detail.second) {
                    table.sides {
                        tr { th { (names[0]) } th { (names[1]) } }
                        tr { td { code { (plain(first)) } } td { code { (plain(second)) } } }
                    }
                }
            }
        }
        @if rest > 0 { p.quiet { "and " (rest) " more inside of it" } }
        @if let Some(equivalence) = &difference.equivalence { p.quiet { (equal_after(equivalence)) } }
    }
}

/// Lines of two texts side by side: what stands in both on one row, then those of one side beside those of the other.
fn lines(lines: &[Line], names: [&str; 2]) -> Markup {
    html! {
        table.lines {
            tr { th {} th { (names[0]) } th {} th { (names[1]) } }
            @for (first, second) in rows(lines) {
                @let same = matches!((first, second), (Some(a), Some(b)) if std::ptr::eq(a, b));
                tr {
                    td.offset { @if let Some(n) = first.and_then(|l| l.first) { (n) } }
                    td.other[!same && first.is_some()] { @if let Some(line) = first { (plain(&line.text)) } }
                    td.offset { @if let Some(n) = second.and_then(|l| l.second) { (n) } }
                    td.other[!same && second.is_some()] { @if let Some(line) = second { (plain(&line.text)) } }
                }
            }
        }
    }
}

fn rows(lines: &[Line]) -> Vec<(Option<&Line>, Option<&Line>)> {
    let side = |line: &Line| (line.first.is_some(), line.second.is_some());
    let mut rows = Vec::new();
    let mut at = 0;
    while at < lines.len() {
        let run = |from: usize, wanted| lines[from..].iter().take_while(|l| side(l) == wanted).count();
        let (removed, added) = (run(at, (true, false)), run(at + run(at, (true, false)), (false, true)));
        if removed + added == 0 {
            rows.push((Some(&lines[at]), Some(&lines[at])));
            at += 1;
            continue;
        }
        for i in 0..removed.max(added) {
            let first = (i < removed).then(|| &lines[at + i]);
            let second = (i < added).then(|| &lines[at + removed + i]);
            rows.push((first, second));
        }
        at += removed + added;
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(first: Option<u64>, second: Option<u64>, text: &str) -> Line {
        Line { first, second, text: text.into() }
    }

    #[test]
    fn removed_and_added_lines_stand_beside_each_other() {
        let all = [
            line(Some(1), Some(1), "same"),
            line(Some(2), None, "old"),
            line(Some(3), None, "older"),
            line(None, Some(2), "new"),
            line(None, Some(9), "later"),
            line(None, Some(10), "latest"),
        ];
        let texts = |rows: Vec<(Option<&Line>, Option<&Line>)>| -> Vec<(String, String)> {
            let text = |l: Option<&Line>| l.map_or(String::new(), |l| l.text.clone());
            rows.into_iter().map(|(a, b)| (text(a), text(b))).collect()
        };
        let pairs = [("same", "same"), ("old", "new"), ("older", "later"), ("", "latest")];
        assert_eq!(texts(rows(&all)), pairs.map(|(a, b)| (a.to_string(), b.to_string())));
    }
}
