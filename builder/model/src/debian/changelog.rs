//! The newest entry of a `debian/changelog` (deb-changelog(5)): whose date is a build's `SOURCE_DATE_EPOCH`, and which a
//! binary-only rebuild puts before the others.
//!
//! Strict about the three lines that carry meaning (heading, end of the changes, trailer), and takes everything between them
//! as it stands. The rest of the file is not looked into.

use super::version::{Version, VersionError};

/// The newest entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The source package.
    pub source: &'a str,
    /// Its version.
    pub version: &'a str,
    /// What stands between heading and trailer, as it is.
    pub changes: &'a str,
    /// The heading's keywords, such as `urgency=medium`, as they stand.
    pub keywords: &'a str,
    /// Seconds since 1970 of the trailer's date.
    pub date: i64,
    /// All of it: heading to trailer, with the line end.
    pub text: &'a str,
}

/// Why a text is no changelog. Lines count from 1.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangelogError {
    /// No heading, or another line in its place.
    #[error("changelog, line {line}: expected \"SOURCE (VERSION) SUITE; urgency=…\", found {found:?}")]
    Heading {
        /// Where.
        line: usize,
        /// The line's beginning.
        found: String,
    },
    /// A version that is none.
    #[error("changelog, line {line}")]
    Version {
        /// Where.
        line: usize,
        /// Why not.
        source: VersionError,
    },
    /// No trailer with a date.
    #[error(
        "changelog, line {line}: expected \" -- NAME <ADDRESS>  DAY, DD MON YYYY HH:MM:SS +ZZZZ\", found {found:?}"
    )]
    Trailer {
        /// Where.
        line: usize,
        /// The line's beginning.
        found: String,
    },
}

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

impl<'a> Entry<'a> {
    /// The newest entry of a changelog.
    pub fn newest(text: &'a str) -> Result<Self, ChangelogError> {
        let mut lines = Lines { text, at: 0, number: 0 };
        let start = |text: &str| text.chars().take(80).collect::<String>();
        let (begin, heading) = loop {
            match lines.next() {
                None => return Err(ChangelogError::Heading { line: lines.number, found: String::new() }),
                Some((_, line)) if line.trim_ascii().is_empty() => continue,
                Some(found) => break found,
            }
        };
        let refuse = || ChangelogError::Heading { line: lines.number, found: start(heading) };
        let (source, rest) = heading.split_once(" (").ok_or_else(refuse)?;
        let (version, rest) = rest.split_once(')').ok_or_else(refuse)?;
        let (_, keywords) = rest.split_once(';').ok_or_else(refuse)?;
        if source.is_empty() || source.contains(char::is_whitespace) {
            return Err(refuse());
        }
        Version::parse(version).map_err(|source| ChangelogError::Version { line: lines.number, source })?;
        let after = lines.at;
        while let Some((at, line)) = lines.next() {
            let number = lines.number;
            if let Some(trailer) = line.strip_prefix(" -- ") {
                let date = trailer.rsplit_once(">  ").and_then(|(_, date)| seconds(date));
                let date = date.ok_or_else(|| ChangelogError::Trailer { line: number, found: start(line) })?;
                let changes = &text[after..at];
                return Ok(Self { source, version, changes, keywords, date, text: &text[begin..lines.at] });
            }
            // A line at the margin is the next heading: this entry was never finished.
            if !line.trim_ascii().is_empty() && !line.starts_with([' ', '\t']) {
                return Err(ChangelogError::Trailer { line: number, found: start(line) });
            }
        }
        Err(ChangelogError::Trailer { line: lines.number, found: String::new() })
    }

    /// Whether it is the entry of a binary-only rebuild.
    pub fn is_binary_only(&self) -> bool {
        self.keywords.split(',').any(|word| word.trim_ascii().eq_ignore_ascii_case("binary-only=yes"))
    }
}

struct Lines<'a> {
    text: &'a str,
    at: usize,
    number: usize,
}

impl<'a> Lines<'a> {
    /// Offset and text of the next line.
    fn next(&mut self) -> Option<(usize, &'a str)> {
        let begin = self.at;
        let rest = self.text.get(begin..).filter(|rest| !rest.is_empty())?;
        let length = rest.find('\n').unwrap_or(rest.len());
        self.at = (begin + length + 1).min(self.text.len());
        self.number += 1;
        Some((begin, rest[..length].trim_end_matches('\r')))
    }
}

/// Seconds since 1970 of a date as RFC 2822 writes it, with the day of the week, which is not held against the date.
pub fn seconds(date: &str) -> Option<i64> {
    let rest = date.trim_ascii().split_once(',').map_or(date, |(_, rest)| rest);
    let words: Vec<&str> = rest.split_ascii_whitespace().collect();
    let [day, month, year, time, zone] = words[..] else { return None };
    let number = |text: &str, least: i64, most: i64| {
        let value = text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse::<i64>().ok())??;
        (least..=most).contains(&value).then_some(value)
    };
    let month = MONTHS.iter().position(|name| *name == month)? as i64 + 1;
    let year = number(year, 1970, 9999)?;
    let day = number(day, 1, days_of(year, month))?;
    let mut parts = time.split(':');
    let (hour, minute, second) = (parts.next()?, parts.next()?, parts.next()?);
    let time = number(hour, 0, 23)? * 3600 + number(minute, 0, 59)? * 60 + number(second, 0, 60)?;
    let (sign, digits) = match zone.split_at_checked(1)? {
        ("+", digits) => (1, digits),
        ("-", digits) => (-1, digits),
        _ => return None,
    };
    let (hours, minutes) = digits.split_at_checked(2).filter(|_| digits.len() == 4)?;
    let offset = sign * (number(hours, 0, 23)? * 3600 + number(minutes, 0, 59)? * 60);
    match parts.next() {
        None => Some(days_before(year, month) * 86_400 + (day - 1) * 86_400 + time - offset),
        Some(_) => None,
    }
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_of(year: i64, month: i64) -> i64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970 to the first of that month.
fn days_before(year: i64, month: i64) -> i64 {
    let before = year - 1;
    let years = 365 * (year - 1970) + (before / 4 - before / 100 + before / 400) - (1969 / 4 - 1969 / 100 + 1969 / 400);
    years + (1..month).map(|month| days_of(year, month)).sum::<i64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &str = "\nhello (1:2.10-3) unstable; urgency=medium, binary-only=yes\n\n  * One.\n  * Two.\n\n \
        -- A. B. <a@b.test>  Mon, 26 Dec 2022 16:30:00 +0100\n\nhello (2.10-2) unstable; urgency=low\n\n  * Old.\n";

    #[test]
    fn the_newest_entry_is_read_and_the_others_are_not_looked_into() {
        let entry = Entry::newest(TWO).unwrap();
        assert_eq!((entry.source, entry.version), ("hello", "1:2.10-3"));
        assert_eq!(entry.changes, "\n  * One.\n  * Two.\n\n");
        assert_eq!(entry.date, 1_672_068_600);
        assert!(entry.text.starts_with("hello (1:2.10-3)") && entry.text.ends_with("+0100\n"));
        assert!(entry.is_binary_only());
    }

    #[test]
    fn dates_are_seconds_whatever_their_zone() {
        for (date, expected) in [
            ("Thu, 01 Jan 1970 00:00:00 +0000", 0),
            ("Thu, 29 Feb 2024 23:59:59 -0130", 1_709_256_599),
            ("Tue, 1 Mar 2022 00:00:00 +0000", 1_646_092_800),
            ("Sun, 22 Nov 2026 08:40:43 +0000", 1_795_336_843),
        ] {
            assert_eq!(seconds(date), Some(expected), "{date}");
        }
        for date in
            ["", "Thu, 30 Feb 2024 00:00:00 +0000", "Thu, 01 Jan 1970 00:00 +0000", "Thu, 01 Jan 1970 00:00:00 CET"]
        {
            assert_eq!(seconds(date), None, "{date}");
        }
    }

    #[test]
    fn what_is_no_changelog_is_refused_with_its_line() {
        assert!(matches!(Entry::newest(""), Err(ChangelogError::Heading { .. })));
        assert!(matches!(Entry::newest("hello 2.10\n"), Err(ChangelogError::Heading { line: 1, .. })));
        assert!(matches!(Entry::newest(&TWO.replace("1:2.10-3", "a b")), Err(ChangelogError::Version { line: 2, .. })));
        assert!(matches!(Entry::newest(&TWO.replace(" -- A", " - A")), Err(ChangelogError::Trailer { line: 9, .. })));
        assert!(matches!(
            Entry::newest(&TWO.replace("26 Dec", "46 Dec")),
            Err(ChangelogError::Trailer { line: 7, .. })
        ));
    }
}
