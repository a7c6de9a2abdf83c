//! Causes that a single detail gives away, in whatever it was found: times, zones, order, modes, owners, paths.

use super::value::{self, date, directories, grown, is_date, is_unix_time, is_uuid, words, year};
use super::{Clue, SettingName, at, line_pairs};
use crate::report::{Aspect, Confidence, Detail};
use crate::variation::Label;

/// A day in seconds: no two time zones are further apart than 26 hours.
const DAY: i64 = 24 * 3600;

pub(super) fn clues(detail: &Detail) -> Vec<Clue> {
    match detail.kind {
        Aspect::Time => time(detail).into_iter().collect(),
        Aspect::Order => vec![order(detail)],
        Aspect::Mode => mode(detail).into_iter().collect(),
        Aspect::Owner => owner(detail).into_iter().collect(),
        Aspect::String | Aspect::DebugInfo | Aspect::Value => {
            let pair = detail.first.as_deref().zip(detail.second.as_deref());
            match pair {
                // Several values, one a line.
                Some((a, b)) if a.contains('\n') && a.lines().count() == b.lines().count() => {
                    values(detail, a.lines().zip(b.lines()))
                }
                Some((a, b)) => value(detail, a, b),
                None => Vec::new(),
            }
        }
        Aspect::Text => values(detail, line_pairs(detail).into_iter()),
        Aspect::Section => number_of_a_year(detail).into_iter().collect(),
        _ => Vec::new(),
    }
}

/// What pairs of values give away, each label once.
fn values<'a>(detail: &Detail, pairs: impl Iterator<Item = (&'a str, &'a str)>) -> Vec<Clue> {
    let mut clues: Vec<Clue> = Vec::new();
    for clue in pairs.flat_map(|(a, b)| value(detail, a, b)) {
        if clues.iter().all(|known| known.label != clue.label) {
            clues.push(clue);
        }
    }
    clues
}

/// A year in code or data, where nothing else differs: a number of four bytes, the least significant first.
fn number_of_a_year(detail: &Detail) -> Option<Clue> {
    let content = detail.content.as_ref().filter(|content| content.differing_bytes <= 2)?;
    let at_byte = usize::try_from(content.offset.checked_sub(content.excerpt_offset)?).ok()?;
    let number = |excerpt: &[u8], from: usize| -> Option<u32> {
        let bytes = excerpt.get(from..from + 4)?.try_into().ok()?;
        Some(u32::from_le_bytes(bytes)).filter(|number| (1985..=2105).contains(number))
    };
    // The byte that differs is the lowest, or the one after it.
    let (ours, theirs) = [Some(at_byte), at_byte.checked_sub(1)].into_iter().flatten().find_map(|from| {
        number(content.first.as_bytes(), from).zip(number(content.second.as_bytes(), from)).filter(|(a, b)| a != b)
    })?;
    let evidence = format!(
        "{}contains a year as a number, as of the build: {ours} and {theirs}; nothing else there differs",
        at(detail)
    );
    let clue = Clue::new(Label::Time, Confidence::Likely, evidence);
    Some(clue.proved_by(SettingName::Clock, theirs.to_string()))
}

fn time(detail: &Detail) -> Option<Clue> {
    let zone = detail.shift.filter(|by| *by != 0 && by % 900 == 0 && by.abs() <= DAY + 2 * 3600);
    if let Some(by) = zone {
        // A zip and a gzip of one build an hour later would look like this too; a whole number of quarters is telling.
        let evidence =
            format!("{}times differ by {:+} h exactly, as local times of two zones do", at(detail), by as f64 / 3600.0);
        return Some(
            Clue::new(Label::Tz, Confidence::Likely, evidence).proved_by(SettingName::TimeZone, posix_zone(by)),
        );
    }
    let (a, b) = (detail.first.as_deref()?, detail.second.as_deref()?);
    let confidence = if a == "none" || b == "none" { Confidence::Suspected } else { Confidence::Likely };
    Some(Clue::new(Label::Mtime, confidence, format!("{}{}", at(detail), detail.says)))
}

/// A zone that is `by` seconds east, as TZ spells it: POSIX counts westwards.
fn posix_zone(by: i64) -> String {
    let (sign, inverse) = if by < 0 { ('-', "") } else { ('+', "-") };
    let (hours, minutes) = (by.abs() / 3600, by.abs() % 3600 / 60);
    match minutes {
        0 => format!("<{sign}{hours:02}>{inverse}{hours}"),
        minutes => format!("<{sign}{hours:02}{minutes:02}>{inverse}{hours}:{minutes:02}"),
    }
}

fn order(detail: &Detail) -> Clue {
    let side = |first: bool| -> Vec<&str> {
        let own = |l: &&crate::report::Line| if first { l.first.is_some() } else { l.second.is_some() };
        detail.lines.iter().filter(own).map(|l| l.text.as_str()).collect()
    };
    let (a, b) = (side(true), side(false));
    let folded = |lines: &[&str]| lines.is_sorted_by_key(|l| l.to_lowercase());
    let sorted = |x: &[&str], y: &[&str]| x.len() > 1 && x.is_sorted() && folded(y) && !y.is_sorted();
    if sorted(&a, &b) || sorted(&b, &a) {
        let evidence = format!("{}one side is sorted by bytes, the other as a language sorts", at(detail));
        return Clue::new(Label::Locale, Confidence::Likely, evidence).proved_by(SettingName::Locale, "C.UTF-8");
    }
    Clue::new(Label::Order, Confidence::Suspected, format!("{}{}", at(detail), detail.says))
}

fn mode(detail: &Detail) -> Option<Clue> {
    let octal = |text: &Option<String>| u32::from_str_radix(text.as_deref()?, 8).ok().map(|m| m & 0o7777);
    let (a, b) = (octal(&detail.first)?, octal(&detail.second)?);
    // A mask takes bits away from one of the two, and none of the owner's.
    let taken = a ^ b;
    if (a & b != a && a & b != b) || taken & 0o7700 != 0 || taken == 0 {
        return None;
    }
    // A file is made with 0666, a program or directory with 0777: what is missing was masked.
    let made = if b & 0o100 != 0 { 0o777 } else { 0o666 };
    let evidence = format!("{}modes {a:04o} and {b:04o} are one mode under two masks", at(detail));
    let clue = Clue::new(Label::Umask, Confidence::Likely, evidence);
    Some(clue.proved_by(SettingName::Umask, format!("{:04o}", made & !b)))
}

fn owner(detail: &Detail) -> Option<Clue> {
    let (a, b) = (detail.first.as_deref()?, detail.second.as_deref()?);
    Some(Clue::new(Label::User, Confidence::Likely, format!("{}owners {a} and {b}", at(detail))))
}

/// What two values give away by the part in which they differ.
fn value(detail: &Detail, a: &str, b: &str) -> Vec<Clue> {
    let mut clues = Vec::new();
    let (x, y) = words(a, b);
    let (p, q) = grown(a, b, |c| c.is_ascii_digit());
    let place = at(detail);
    let (seconds, others) = (leading_digits(p), leading_digits(q));
    if let (Some(x), Some(y)) = (value::time_of_day(a), value::time_of_day(b))
        && x.0 != y.0
        && (x.1, x.2) == (y.1, y.2)
    {
        // The same minute and second in another hour: one moment, told in two zones.
        let evidence = format!("{place}one moment in two zones: {} and {}", a.trim(), b.trim());
        clues.push(Clue::new(Label::Tz, Confidence::Likely, evidence));
    } else if let (Some(ours), Some(theirs)) = (year(p), year(q)) {
        let evidence = format!("{place}contains a year, as of the build: {ours} and {theirs}");
        let clock = date(b).map_or_else(|| theirs.to_string(), str::to_owned);
        clues.push(Clue::new(Label::Time, Confidence::Likely, evidence).proved_by(SettingName::Clock, clock));
    } else if is_unix_time(seconds) && is_unix_time(others) && seconds != others {
        let evidence = format!("{place}contains a time in seconds: {seconds} and {others}");
        clues.push(Clue::new(Label::Time, Confidence::Likely, evidence).proved_by(SettingName::Epoch, others));
    } else if is_date(x) && is_date(y) {
        let clue = Clue::new(Label::Time, Confidence::Likely, format!("{place}contains a date: {x} and {y}"));
        clues.push(match date(b) {
            Some(day) => clue.proved_by(SettingName::Clock, day),
            None => clue,
        });
    } else if is_uuid(x) && is_uuid(y) {
        clues.push(Clue::new(Label::Random, Confidence::Likely, format!("{place}contains a random id: {x} and {y}")));
    } else if let Some((ours, theirs)) = temporary(a, b) {
        let evidence =
            format!("{place}contains the name of a temporary file, another in each build: {ours} and {theirs}");
        clues.push(Clue::new(Label::Random, Confidence::Likely, evidence));
    } else if let Some((ours, theirs)) = paths(a, b).filter(|(x, y)| is_home(x) || is_home(y)) {
        let evidence = format!("{place}contains a home directory: {ours} and {theirs}");
        clues.push(Clue::new(Label::Home, Confidence::Suspected, evidence));
    } else if let Some((ours, theirs)) = paths(a, b) {
        let evidence = format!("{place}contains the directory of the build: {ours} and {theirs}");
        clues.push(Clue::new(Label::Path, Confidence::Likely, evidence).proved_by(SettingName::BuildPath, theirs));
    } else if is_pointer(x) && is_pointer(y) {
        clues.push(Clue::new(Label::Aslr, Confidence::Suspected, format!("{place}contains an address: {x} and {y}")));
    } else if is_random(x) && is_random(y) {
        clues.push(Clue::new(
            Label::Random,
            Confidence::Suspected,
            format!("{place}contains what looks random: {x} and {y}"),
        ));
    }
    if let (Some(ours), Some(theirs)) = (zone(a), zone(b))
        && ours != theirs
        && clues.iter().all(|c| c.label != Label::Tz)
    {
        clues.push(Clue::new(Label::Tz, Confidence::Likely, format!("{place}dates in two zones: {ours} and {theirs}")));
    }
    clues
}

/// Whether a path of a build has it; paths end at what none has.
fn is_in_a_path(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '_' | '-' | '+' | '~')
}

/// Names in one directory that differ in what mkdtemp(3) and Python's `tempfile` make up: six to twelve letters and digits
/// after what they were told, of which the first may be the same by chance.
fn temporary<'a>(a: &'a str, b: &'a str) -> Option<(&'a str, &'a str)> {
    let (p, q) = grown(a, b, is_in_a_path);
    let mut names = p.split('/').zip(q.split('/')).filter(|(x, y)| x != y);
    let (x, y) = names.next().filter(|_| names.next().is_none() && p.matches('/').count() == q.matches('/').count())?;
    let same = x.bytes().zip(y.bytes()).take_while(|(x, y)| x == y).count();
    let made_up = |name: &str| {
        let end = name.as_bytes().get(same..).unwrap_or_default();
        let has = |kind: fn(&u8) -> bool| end.iter().any(kind);
        let kinds =
            [u8::is_ascii_digit, u8::is_ascii_lowercase, u8::is_ascii_uppercase].into_iter().filter(|k| has(*k));
        (5..=12).contains(&end.len())
            && end.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'_')
            && kinds.count() > 1
    };
    (p.contains('/') && same > 0 && x.len() == y.len() && made_up(x) && made_up(y)).then_some((x, y))
}

/// Directories in which two paths differ.
fn paths<'a>(a: &'a str, b: &'a str) -> Option<(&'a str, &'a str)> {
    let (p, q) = grown(a, b, is_in_a_path);
    if !p.chars().chain(q.chars()).all(is_in_a_path) {
        return None;
    }
    let (p, q) = (p.get(p.find('/')?..)?, q.get(q.find('/')?..)?);
    // The end of an element of HTML begins with a slash, too.
    let closes = |text: &str, path: &str| text.contains(&format!("<{path}"));
    if closes(a, p) || closes(b, q) { None } else { directories(p, q) }
}

/// Directories that are somebody's home, and that nobody builds in.
fn is_home(path: &str) -> bool {
    let names_a_user = path.strip_prefix("/home/").is_some_and(|user| !user.contains('/'));
    names_a_user || matches!(path, "/root" | "/nonexistent" | "/homeless-shelter")
}

/// Digits that a text begins with: a time in seconds may have a fraction.
fn leading_digits(text: &str) -> &str {
    &text[..text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len()]
}

fn is_pointer(text: &str) -> bool {
    let digits = text.strip_prefix("0x").unwrap_or("");
    (9..=16).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_hexdigit())
}

fn is_random(text: &str) -> bool {
    text.len() >= 16 && text.bytes().all(|b| b.is_ascii_hexdigit()) && text.bytes().any(|b| b.is_ascii_digit())
}

/// A numeric zone that ends a date: `+0200`.
fn zone(text: &str) -> Option<&str> {
    let at = text.find(['+', '-']).into_iter().chain(text.rfind(['+', '-']));
    at.filter_map(|at| text.get(at..at + 5))
        .find(|z| z[1..].bytes().all(|b| b.is_ascii_digit()) && value::is_date(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Line;

    fn named(detail: &Detail) -> Vec<(Label, Confidence, Option<String>)> {
        clues(detail).into_iter().map(|c| (c.label, c.confidence, c.setting.map(|s| s.to_string()))).collect()
    }

    fn between(kind: Aspect, a: &str, b: &str) -> Detail {
        Detail::new("x", kind, "differs").between(a, b)
    }

    #[test]
    fn values_give_their_cause_away() {
        for (a, b, label, setting) in [
            ("built 2026", "built 2022", Label::Time, Some("clock=2022")),
            ("on 2026-11-20", "on 2022-12-27", Label::Time, Some("clock=2022-12-27")),
            ("t=1795310874", "t=1672099200", Label::Time, Some("epoch=1672099200")),
            ("at 12:30:05", "at 17:01:59", Label::Time, None),
            ("t=1795310874.25", "t=1672099200.5", Label::Time, Some("epoch=1672099200")),
            ("2001-09-09 01:46:40", "2001-09-08 20:46:40", Label::Tz, None),
            ("HOME=/root", "HOME=/home/me", Label::Home, None),
            ("/build/source/x.c", "/tmp/other/source/x.c", Label::Path, Some("build-path=/tmp/other")),
            ("550e8400-e29b-41d4-a716-446655440000", "650e8400-e29b-41d4-a716-446655440abc", Label::Random, None),
            ("p=0x7ffe12345678", "p=0x7ffd87654321", Label::Aslr, None),
            ("/build/.tmp-x-z6tvqi4_/src", "/build/.tmp-x-15h8sp2p/src", Label::Random, None),
            ("in /tmp/cc1aB2c3/x.s", "in /tmp/ccZ9y8Xw/x.s", Label::Random, None),
            ("/build/a-1.0/x", "/build/b-1.0/x", Label::Path, Some("build-path=/build/b-1.0")),
            ("/build/one\n/build/one/src", "/build/two\n/build/two/src", Label::Path, Some("build-path=/build/two")),
        ] {
            let found = named(&between(Aspect::String, a, b));
            assert_eq!(found.len(), 1, "{a} {b} {found:?}");
            assert_eq!((found[0].0, found[0].2.as_deref()), (label, setting), "{a} {b}");
        }
    }

    #[test]
    fn a_year_in_code_is_known_where_nothing_else_there_differs() {
        // `mov $2026,%edx`, as hello 2.10-3 has it.
        let section = |first: &[u8], second: &[u8], differing_bytes| Detail {
            content: Some(crate::report::Content {
                offset: 258,
                differing_bytes,
                excerpt_offset: 256,
                first: crate::report::Excerpt::new(first),
                second: crate::report::Excerpt::new(second),
            }),
            ..Detail::new("data.tar.xz!usr/bin/hello!.text", Aspect::Section, "1 of 11022 bytes differ")
        };
        let (ours, theirs) = (b"\x00\xba\xea\x07\x00\x00\x48", b"\x00\xba\xe6\x07\x00\x00\x48");
        let expected = [(Label::Time, Confidence::Likely, Some("clock=2022".to_string()))];
        assert_eq!(named(&section(ours, theirs, 1)), expected);
        assert_eq!(named(&section(ours, theirs, 9)), [], "more than a year differs");
        let address = b"\x00\xba\xe6\x07\x40\x00\x48";
        assert_eq!(named(&section(ours, address, 1)), [], "an address");
        assert_eq!(named(&section(&ours[..4], &theirs[..4], 1)), [], "what is cut off says nothing");
    }

    #[test]
    fn values_that_say_nothing_give_nothing_away() {
        for (a, b) in [
            ("one", "two"),
            ("1.2.3", "1.2.4"),
            ("12345", "12346"),
            ("/usr/lib/a.so", "/usr/lib/b.so"),
            ("", "x"),
            ("</b>", "</a></li>"),
        ] {
            assert_eq!(named(&between(Aspect::String, a, b)), [], "{a} {b}");
        }
    }

    #[test]
    fn times_that_are_a_zone_apart_are_a_zones_doing() {
        let shifted =
            |by| Detail { shift: Some(by), ..between(Aspect::Time, "2024-01-01T05:00:00Z", "2024-01-01T00:00:00Z") };
        assert_eq!(named(&shifted(-6 * 3600))[0], (Label::Tz, Confidence::Likely, Some("time-zone=<-06>6".into())));
        assert_eq!(named(&shifted(19_800))[0].2.as_deref(), Some("time-zone=<+0530>-5:30"));
        assert_eq!(named(&shifted(17))[0].0, Label::Mtime);
        assert_eq!(named(&shifted(90 * 86_400))[0].0, Label::Mtime);
        assert_eq!(named(&between(Aspect::Time, "none", "2024-01-01T00:00:00Z"))[0].1, Confidence::Suspected);
    }

    #[test]
    fn a_mask_takes_bits_of_others_and_a_program_is_no_mask() {
        let found = named(&between(Aspect::Mode, "0600", "0644"));
        assert_eq!(found, [(Label::Umask, Confidence::Likely, Some("umask=0022".into()))]);
        assert_eq!(named(&between(Aspect::Mode, "0755", "0700"))[0].2.as_deref(), Some("umask=0077"));
        assert_eq!(named(&between(Aspect::Mode, "0755", "0644")), []);
        assert_eq!(named(&between(Aspect::Mode, "0640", "0604")), []);
    }

    #[test]
    fn an_order_by_language_is_told_from_any_other() {
        let lines = |first: &[&str], second: &[&str]| {
            let line = |text: &&str, is_first: bool| Line {
                first: is_first.then_some(1),
                second: (!is_first).then_some(1),
                text: (*text).into(),
            };
            let all = first.iter().map(|t| line(t, true)).chain(second.iter().map(|t| line(t, false)));
            Detail { lines: all.collect(), ..Detail::new("x", Aspect::Order, "order") }
        };
        assert_eq!(named(&lines(&["B", "a", "c"], &["a", "B", "c"]))[0].0, Label::Locale);
        assert_eq!(named(&lines(&["b", "c", "a"], &["c", "a", "b"]))[0].0, Label::Order);
    }
}
