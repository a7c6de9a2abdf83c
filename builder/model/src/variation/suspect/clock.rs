//! Times in differing bytes: each build's own time, in the encodings that archives, compilers and scripts use.
//!
//! A time is believed if both sides have one in the same encoding at the same distance, each within its own build. The
//! chance that four random bytes do is about one in ten million per place, for a build of a minute.

use super::{Bytes, Clue, Place};
use crate::outcome::{Moment, Outcome};
use crate::report::Confidence;
use crate::variation::{Factor, Label};

/// What a build may have written as its time: from a little before its start (coarse clocks, zip's two seconds) to its end.
fn lasted(outcome: &Outcome) -> std::ops::RangeInclusive<i64> {
    let start = i64::try_from(outcome.started.unix()).unwrap_or(i64::MAX / 2);
    let seconds = i64::try_from(outcome.seconds.as_secs()).unwrap_or(i64::MAX / 4);
    start - 2..=start + seconds + 2
}

/// Seconds by which the build's local time is ahead of UTC. `GMT-14` is ahead: POSIX counts westward (XBD 8.3).
fn ahead(side: &Bytes<'_>) -> i64 {
    let zone = side.settings().and_then(|s| s.time_zone.as_deref());
    zone.and_then(|z| z.strip_prefix("GMT")).and_then(|n| n.parse::<i64>().ok()).map_or(0, |west| -west * 3600)
}

pub(super) fn clues(place: &Place<'_>) -> Vec<Clue> {
    let (first, second) = (&place.first, &place.second);
    for encoding in ENCODINGS {
        for at in 0..first.near.len().min(second.near.len()) {
            let (Some(a), Some(b)) = ((encoding.read)(first, at), (encoding.read)(second, at)) else { continue };
            let near_difference = at <= first.at && first.at < at + encoding.width;
            let during = |side: &Bytes<'_>, time: i64, shift: i64| lasted(side.outcome).contains(&(time - shift));
            let (a_ahead, b_ahead) = (ahead(first), ahead(second));
            let local = encoding.local
                && (a_ahead, b_ahead) != (0, 0)
                && during(first, a, a_ahead)
                && during(second, b, b_ahead);
            let plain = during(first, a, 0) && during(second, b, 0);
            if a == b || !near_difference || !(plain || local) {
                continue;
            }
            let clue = |label, factor| Clue {
                label,
                factor: Some(factor),
                confidence: Confidence::Likely,
                evidence: format!(
                    "{}: {} and {}, when each build ran{}",
                    encoding.name,
                    shown(a),
                    shown(b),
                    if plain { "" } else { " in its own time zone" }
                ),
            };
            let mut clues = vec![clue(encoding.label, Factor::Time)];
            if !plain {
                clues.push(clue(Label::Tz, Factor::TimeZone));
            }
            return clues;
        }
    }
    zone_names(place).into_iter().collect()
}

fn shown(time: i64) -> String {
    Moment::from_unix(u64::try_from(time).unwrap_or(0)).to_string().trim_end_matches('Z').replace('T', " ")
}

struct Encoding {
    name: &'static str,
    label: Label,
    width: usize,
    /// Whether the encoding is of local time.
    local: bool,
    read: fn(&Bytes<'_>, usize) -> Option<i64>,
}

const ENCODINGS: &[Encoding] = &[
    Encoding { name: "modification time in a gzip header", label: Label::Mtime, width: 4, local: false, read: gzip },
    Encoding { name: "modification time in a tar header", label: Label::Mtime, width: 11, local: false, read: octal },
    Encoding { name: "modification time in a zip entry", label: Label::Mtime, width: 4, local: true, read: dos },
    Encoding { name: "seconds since 1970 in decimal", label: Label::Time, width: 10, local: false, read: decimal },
    Encoding { name: "date and time as text", label: Label::Time, width: 19, local: true, read: iso },
    Encoding { name: "date and time as text", label: Label::Time, width: 20, local: true, read: english },
    Encoding { name: "seconds since 1970, little-endian", label: Label::Time, width: 4, local: false, read: little },
    Encoding { name: "seconds since 1970, big-endian", label: Label::Time, width: 4, local: false, read: big },
];

fn four(side: &Bytes<'_>, at: usize) -> Option<[u8; 4]> {
    side.near.get(at..at + 4)?.try_into().ok()
}

fn little(side: &Bytes<'_>, at: usize) -> Option<i64> {
    four(side, at).map(u32::from_le_bytes).map(i64::from)
}

fn big(side: &Bytes<'_>, at: usize) -> Option<i64> {
    four(side, at).map(u32::from_be_bytes).map(i64::from)
}

/// RFC 1952, 2.3: magic, method and flags, then MTIME at offset 4.
fn gzip(side: &Bytes<'_>, at: usize) -> Option<i64> {
    let header = at.checked_sub(4)?;
    if side.near.get(header..header + 3)? == [0x1f, 0x8b, 8] { little(side, at) } else { None }
}

/// POSIX pax, ustar interchange format: eleven octal digits and a terminator.
fn octal(side: &Bytes<'_>, at: usize) -> Option<i64> {
    let digits = side.near.get(at..at + 11)?;
    if matches!(side.near.get(at + 11), Some(0 | b' ')) {
        i64::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok()
    } else {
        None
    }
}

fn decimal(side: &Bytes<'_>, at: usize) -> Option<i64> {
    let digits = side.near.get(at..at + 10)?;
    if digits.iter().all(u8::is_ascii_digit) { std::str::from_utf8(digits).ok()?.parse().ok() } else { None }
}

/// APPNOTE 4.4.6: two little-endian words of MS-DOS time and date, ten bytes into a local file header (PK\x03\x04) or twelve
/// into a central one (PK\x01\x02).
fn dos(side: &Bytes<'_>, at: usize) -> Option<i64> {
    let headed = |back: usize, magic: &[u8]| at.checked_sub(back).is_some_and(|h| side.near[h..].starts_with(magic));
    if !headed(10, b"PK\x03\x04") && !headed(12, b"PK\x01\x02") {
        return None;
    }
    let [t0, t1, d0, d1] = four(side, at)?;
    let (time, date) = (u16::from_le_bytes([t0, t1]), u16::from_le_bytes([d0, d1]));
    moment(
        u32::from(date >> 9) + 1980,
        u32::from(date >> 5 & 15),
        u32::from(date & 31),
        [u32::from(time >> 11), u32::from(time >> 5 & 63), u32::from(time & 31) * 2],
    )
}

/// `2026-11-22 01:27:54`, with any one byte between date and time.
fn iso(side: &Bytes<'_>, at: usize) -> Option<i64> {
    let text = side.near.get(at..at + 19)?;
    let [year, month, day] = [0..4, 5..7, 8..10].map(|r| number(&text[r]));
    if text[4] != b'-' || text[7] != b'-' {
        return None;
    }
    moment(year?, month?, day?, clock(&text[11..])?)
}

/// `Nov 22 2026 01:27:54` with up to five bytes between date and time, as compilers write it, and `date`'s
/// `Nov 22 01:27:54 UTC 2026`.
fn english(side: &Bytes<'_>, at: usize) -> Option<i64> {
    const MONTHS: [&[u8]; 12] =
        [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];
    let text = side.near.get(at..)?;
    let month = MONTHS.iter().position(|m| text.starts_with(m))? + 1;
    let day = number(text.get(4..6)?.trim_ascii())?;
    let month = u32::try_from(month).ok()?;
    if let Some(time) = text.get(7..15).and_then(clock) {
        let rest = text.get(15..)?.trim_ascii_start();
        let year = rest.get(rest.iter().position(|&b| b == b' ')? + 1..)?.get(..4)?;
        return moment(number(year)?, month, day, time);
    }
    let year = number(text.get(7..11)?)?;
    let time = (11..=16).find_map(|from| clock(text.get(from..from + 8)?))?;
    moment(year, month, day, time)
}

fn number(digits: &[u8]) -> Option<u32> {
    if digits.iter().all(u8::is_ascii_digit) { std::str::from_utf8(digits).ok()?.parse().ok() } else { None }
}

/// `01:27:54`
fn clock(text: &[u8]) -> Option<[u32; 3]> {
    let shaped = text.len() == 8 && text[2] == b':' && text[5] == b':';
    if shaped { Some([number(&text[..2])?, number(&text[3..5])?, number(&text[6..8])?]) } else { None }
}

fn moment(year: u32, month: u32, day: u32, [hour, minute, second]: [u32; 3]) -> Option<i64> {
    let text = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z");
    text.parse::<Moment>().ok().and_then(|m| i64::try_from(m.unix()).ok())
}

/// A time zone's own name or offset at the place that differs, where the two builds had different ones.
fn zone_names(place: &Place<'_>) -> Option<Clue> {
    let zone = |side: &Bytes<'_>| {
        let hours = ahead(side) / 3600;
        let offset = format!("{}{:02}00", if hours < 0 { '-' } else { '+' }, hours.abs());
        [offset, "UTC".to_string(), "GMT".to_string()].into_iter().find(|text| side.has(text))
    };
    if ahead(&place.first) == ahead(&place.second) {
        return None;
    }
    let (a, b) = (zone(&place.first)?, zone(&place.second)?);
    (a != b).then(|| Clue {
        label: Label::Tz,
        factor: Some(Factor::TimeZone),
        confidence: Confidence::Likely,
        evidence: format!("each build wrote its own time zone: {a} and {b}"),
    })
}
