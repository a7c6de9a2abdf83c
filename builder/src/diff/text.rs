//! Lines that differ between two texts, with their numbers and a little of what stands around them.

use imara_diff::{Algorithm, Diff, InternedInput};
use kiln_model::report::{Aspect, Detail, Line};

/// Lines that are shown before and after those that differ.
const CONTEXT: usize = 2;

/// Characters of a line that are shown.
const WIDTH: usize = 200;

/// What differs between two texts; `most` lines are shown, the others counted.
pub(super) fn compare(place: &str, first: &str, second: &str, most: usize) -> Detail {
    let input = InternedInput::new(first, second);
    let mut diff = Diff::compute(Algorithm::Histogram, &input);
    diff.postprocess_lines(&input);
    let line =
        |side: &[imara_diff::Token], at: usize| input.interner[side[at]].trim_end_matches(['\n', '\r']).to_owned();
    let (mut removed, mut added) = (0_usize, 0_usize);
    let mut lines: Vec<Line> = Vec::new();
    let (mut left_out, mut shown) = (0_u64, 0_usize);
    let (mut after_first, mut after_second) = (0_usize, 0_usize);
    let number = |at: usize| Some(at as u64 + 1);
    for hunk in diff.hunks() {
        let (before, after) =
            (hunk.before.start as usize..hunk.before.end as usize, hunk.after.start as usize..hunk.after.end as usize);
        removed += before.len();
        added += after.len();
        if shown >= most {
            left_out += (before.len() + after.len()) as u64;
            continue;
        }
        // Context: what both have before it, but nothing twice.
        let back = CONTEXT.min(before.start - after_first);
        let gap = before.start - after_first;
        let forward = if lines.is_empty() { 0 } else { CONTEXT.min(gap.saturating_sub(back)) };
        for i in (0..forward)
            .map(|i| (after_first + i, after_second + i))
            .chain((0..back).map(|i| (before.start - back + i, after.start - back + i)))
        {
            lines.push(Line { first: number(i.0), second: number(i.1), text: clipped(&line(&input.before, i.0), 0) });
        }
        let from = difference(
            before.clone().next().map(|i| line(&input.before, i)),
            after.clone().next().map(|i| line(&input.after, i)),
        );
        let room = most - shown;
        let share = if before.len() + after.len() <= room {
            (before.len(), after.len())
        } else {
            let half = (room / 2).max(1);
            let ours = before.len().min(half.max(room.saturating_sub(after.len())));
            (ours, after.len().min(room.saturating_sub(ours)))
        };
        for at in before.clone().take(share.0) {
            lines.push(Line { first: number(at), second: None, text: clipped(&line(&input.before, at), from) });
        }
        for at in after.clone().take(share.1) {
            lines.push(Line { first: None, second: number(at), text: clipped(&line(&input.after, at), from) });
        }
        shown += share.0 + share.1;
        left_out += (before.len() - share.0 + after.len() - share.1) as u64;
        (after_first, after_second) = (before.end, after.end);
    }
    let end =
        CONTEXT.min(input.before.len().saturating_sub(after_first)).min(input.after.len().saturating_sub(after_second));
    for i in 0..if left_out == 0 { end } else { 0 } {
        let text = clipped(&line(&input.before, after_first + i), 0);
        lines.push(Line { first: number(after_first + i), second: number(after_second + i), text });
    }
    let sorted = |tokens: &[imara_diff::Token]| {
        let mut all: Vec<u32> = tokens.iter().map(|t| t.0).collect();
        all.sort_unstable();
        all
    };
    let counted = |n: usize| format!("{n} line{}", if n == 1 { "" } else { "s" });
    let (kind, says) = match (removed, added) {
        (0, 0) => (Aspect::Text, "the lines are the same, their ends differ".into()),
        _ if sorted(&input.before) == sorted(&input.after) => {
            (Aspect::Order, format!("the same {} in another order", counted(input.before.len())))
        }
        (0, n) => (Aspect::Text, format!("{} only in the second", counted(n))),
        (n, 0) => (Aspect::Text, format!("{} only in the first", counted(n))),
        (n, m) => (Aspect::Text, format!("{} only in the first, {} only in the second", counted(n), counted(m))),
    };
    Detail { lines, lines_left_out: left_out, ..Detail::new(place, kind, says) }
}

/// At which character two lines begin to differ, if there are two.
fn difference(first: Option<String>, second: Option<String>) -> usize {
    match (first, second) {
        (Some(a), Some(b)) => a.chars().zip(b.chars()).take_while(|(x, y)| x == y).count(),
        _ => 0,
    }
}

/// A long line around the character where it differs.
fn clipped(line: &str, from: usize) -> String {
    let length = line.chars().count();
    if length <= WIDTH {
        return line.to_owned();
    }
    let start = from.saturating_sub(WIDTH / 4).min(length - WIDTH);
    let part: String = line.chars().skip(start).take(WIDTH).collect();
    let (before, after) = (start, length - start - WIDTH);
    match (before, after) {
        (0, after) => format!("{part}[… {after} characters]"),
        (before, 0) => format!("[{before} characters …]{part}"),
        (before, after) => format!("[{before} characters …]{part}[… {after} characters]"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(detail: &Detail) -> Vec<String> {
        let sign = |line: &Line| match (line.first, line.second) {
            (Some(a), Some(b)) => format!("{a},{b}  {}", line.text),
            (Some(a), None) => format!("{a}- {}", line.text),
            (None, Some(b)) => format!("{b}+ {}", line.text),
            (None, None) => panic!("a line of no text"),
        };
        detail.lines.iter().map(sign).collect()
    }

    #[test]
    fn lines_are_shown_with_their_numbers_and_surroundings() {
        let first = "a\nb\nc\nd\ne\nf\ng\nh\ni\nj\n";
        let second = "a\nb\nc\nD\ne\nf\ng\nh\ni\nj\nk\n";
        let detail = compare("x", first, second, 40);
        assert_eq!(detail.says, "1 line only in the first, 2 lines only in the second");
        assert_eq!(
            shown(&detail),
            ["2,2  b", "3,3  c", "4- d", "4+ D", "5,5  e", "6,6  f", "9,9  i", "10,10  j", "11+ k"]
        );
        assert_eq!((detail.kind, detail.lines_left_out), (Aspect::Text, 0));
    }

    #[test]
    fn what_there_is_no_room_for_is_counted() {
        let first: String = (0..100).map(|i| format!("{i}\n")).collect();
        let second: String = (0..100).map(|i| format!("{i}!\n")).collect();
        let detail = compare("x", &first, &second, 10);
        assert_eq!((detail.lines.len(), detail.lines_left_out), (10, 190));
        assert!(detail.lines.iter().any(|l| l.second.is_none()) && detail.lines.iter().any(|l| l.first.is_none()));
    }

    #[test]
    fn an_order_is_called_an_order() {
        let detail = compare("x", "b\na\nc\n", "a\nb\nc\n", 40);
        assert_eq!((detail.kind, detail.says.as_str()), (Aspect::Order, "the same 3 lines in another order"));
    }

    #[test]
    fn a_long_line_is_shown_where_it_differs() {
        let (a, b) = (
            format!("{}first{}", "x".repeat(5000), "y".repeat(5000)),
            format!("{}second{}", "x".repeat(5000), "y".repeat(5000)),
        );
        let detail = compare("x", &a, &b, 40);
        assert!(detail.lines[0].text.contains("first") && detail.lines[1].text.contains("second"), "{detail:?}");
        assert!(detail.lines.iter().all(|l| l.text.len() < 300));
    }
}
