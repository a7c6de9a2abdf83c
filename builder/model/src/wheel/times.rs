//! What the times of a wheel's members say: the clock its builder was given, and the time zone it was built in.
//!
//! A zip has local times, to two seconds, and does not say of which zone. [`epoch`] reads the reference alone; [`zone`] holds
//! its times against those of the same files in the sdist, which are seconds since 1970.

use std::collections::BTreeSet;
use std::fmt;

use crate::outcome::Moment;

/// A time as a zip has it: read as if it were UTC, in seconds since 1970. Even.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp(i64);

/// What `SOURCE_DATE_EPOCH` was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Epoch {
    /// Not set.
    Unset,
    /// Seconds since 1970.
    At(u64),
}

/// Which observation of the reference decided on an [`Epoch`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Because {
    /// All members have one time.
    OneTime,
    /// `RECORD` has flit's default of 2016-01-01, which it has only without an epoch; other members have others.
    FlitDefault,
    /// There are several times, and the latest is taken for the build's.
    LatestTime,
}

/// A zone, as inferred: what `TZ` is to be set to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Zone {
    /// One offset all year, in seconds east of UTC.
    Fixed(i32),
    /// Two offsets, an hour apart, under a known rule.
    Summer {
        /// Seconds east of UTC in winter.
        standard: i32,
        /// When the clocks change.
        rule: Rule,
    },
}

/// When clocks change; in the order in which they are tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// North America: second Sunday of March to first Sunday of November, 2:00 local.
    America,
    /// Europe: last Sunday of March to last Sunday of October, 1:00 UTC.
    Europe,
    /// Australia: first Sunday of October to first Sunday of April.
    Australia,
    /// New Zealand: last Sunday of September to first Sunday of April.
    NewZealand,
}

/// 2016-01-01, 00:00: what flit writes where it has no other time.
const FLIT_DEFAULT: i64 = 1_451_606_400;

impl Stamp {
    /// From the two words of a zip's header (APPNOTE.TXT 4.4.6); `None` if they name no day or time there is.
    pub fn from_dos(date: u16, time: u16) -> Option<Self> {
        let (year, month, day) = (1980 + (date >> 9), date >> 5 & 15, date & 31);
        let (hour, minute, second) = (time >> 11, time >> 5 & 63, (time & 31) * 2);
        // The parser of moments knows the calendar.
        let moment =
            format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z").parse::<Moment>().ok()?;
        Self::from_seconds(i64::try_from(moment.unix()).ok()?)
    }

    /// Seconds since 1970; a zip has them by twos, and none before 1980.
    pub fn from_seconds(seconds: i64) -> Option<Self> {
        (seconds >= 315_532_800).then_some(Self(seconds - seconds % 2))
    }

    /// Seconds since 1970, if the zone was UTC.
    pub fn seconds(self) -> i64 {
        self.0
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = Moment::from_unix(self.0.unsigned_abs()).to_string();
        f.write_str(&text.trim_end_matches('Z').replace('T', " "))
    }
}

/// The epoch that the reference was built with, from the times of all its members and that of its `RECORD`.
///
/// One time: that time. `RECORD` at flit's default and other times beside it: unset, so that the sdist's times show. Else the
/// latest. `None` if there is no member. Held against 42 published wheels it made the better of the two choices in 40, and the other
/// two were equivalent either way.
pub fn epoch(members: &BTreeSet<Stamp>, record: Stamp) -> Option<(Epoch, Because)> {
    let latest = members.last()?;
    let at = |stamp: &Stamp| Epoch::At(stamp.0.unsigned_abs());
    Some(match members.len() {
        1 => (at(latest), Because::OneTime),
        _ if record.0 == FLIT_DEFAULT => (Epoch::Unset, Because::FlitDefault),
        _ => (at(latest), Because::LatestTime),
    })
}

/// The zone in which `pairs` of a file's time in the sdist, in seconds since 1970, and of its time in the wheel are the same.
///
/// Every pair must fit; `None` if one does not, if there is none, or if the zone is UTC as far as can be seen. A zone with summer time is
/// told only if files of both halves of the year are there.
pub fn zone(pairs: &[(i64, Stamp)]) -> Option<Zone> {
    let offsets: BTreeSet<i32> = pairs.iter().map(|&(utc, stamp)| offset(utc, stamp)).collect::<Option<_>>()?;
    let all: Vec<i32> = offsets.into_iter().collect();
    match all[..] {
        [0] => None,
        [only] => Some(Zone::Fixed(only)),
        [standard, summer] if summer - standard == HOUR => {
            let fits = |rule: Rule| {
                pairs.iter().all(|&(utc, stamp)| {
                    offset(utc, stamp) == Some(standard + HOUR * i32::from(rule.is_summer(utc, standard)))
                })
            };
            [Rule::America, Rule::Europe, Rule::Australia, Rule::NewZealand]
                .into_iter()
                .find(|&rule| rule.can_be(standard) && fits(rule))
                .map(|rule| Zone::Summer { standard, rule })
        }
        _ => None,
    }
}

const HOUR: i32 = 3600;
const DAY: i64 = 86_400;

/// How far `stamp` is ahead of `utc`, if that can be a zone's offset: a quarter of an hour's multiple, 12 hours behind to 14
/// ahead. Zips round down to two seconds, so that an odd `utc` is a second more than its stamp.
fn offset(utc: i64, stamp: Stamp) -> Option<i32> {
    let seconds = stamp.0 - (utc - utc.rem_euclid(2));
    let offset = i32::try_from(seconds).ok()?;
    (offset % 900 == 0 && (-12 * HOUR..=14 * HOUR).contains(&offset)).then_some(offset)
}

impl Rule {
    /// Whether zones of this offset follow the rule; between two rules that fit the files, the nearer place counts.
    fn can_be(self, standard: i32) -> bool {
        match self {
            Self::America => (-10 * HOUR..=-3 * HOUR).contains(&standard),
            Self::Europe => (-HOUR..=3 * HOUR).contains(&standard),
            Self::Australia => (9 * HOUR..=10 * HOUR + 1800).contains(&standard),
            Self::NewZealand => standard == 12 * HOUR,
        }
    }

    /// Whether it is summer at `utc` where winter is `standard` ahead.
    fn is_summer(self, utc: i64, standard: i32) -> bool {
        let standard = i64::from(standard);
        let year = year_of(utc);
        let at = |month, week, local: i64, offset: i64| sunday(year, month, week) + local * 3600 - offset;
        match self {
            Self::America => (at(3, 2, 2, standard)..at(11, 1, 2, standard + 3600)).contains(&utc),
            Self::Europe => (at(3, 5, 1, 0)..at(10, 5, 1, 0)).contains(&utc),
            Self::Australia => !(at(4, 1, 3, standard + 3600)..at(10, 1, 2, standard)).contains(&utc),
            Self::NewZealand => !(at(4, 1, 3, standard + 3600)..at(9, 5, 2, standard)).contains(&utc),
        }
    }

    /// The rule in the words of POSIX (XBD 8.3), for a winter `standard` ahead of UTC.
    fn posix(self, standard: i32) -> String {
        match self {
            Self::America => "M3.2.0,M11.1.0".into(),
            // Local times: the change is at one moment everywhere.
            Self::Europe => format!("M3.5.0/{},M10.5.0/{}", 1 + standard / HOUR, 2 + standard / HOUR),
            Self::Australia => "M10.1.0,M4.1.0/3".into(),
            Self::NewZealand => "M9.5.0,M4.1.0/3".into(),
        }
    }
}

/// 00:00 of the `week`th Sunday of a month, the last if 5, read as UTC. Days are counted from 1970-01-01, a Thursday.
fn sunday(year: u64, month: u64, week: i64) -> i64 {
    let first = day(year, month);
    let first_sunday = first + (3 - first).rem_euclid(7);
    let next_month = if month == 12 { day(year + 1, 1) } else { day(year, month + 1) };
    let wanted = first_sunday + 7 * (week - 1);
    (if wanted >= next_month { wanted - 7 } else { wanted }) * DAY
}

/// The first day of a month, counted from 1970-01-01.
fn day(year: u64, month: u64) -> i64 {
    let first = format!("{year:04}-{month:02}-01T00:00:00Z").parse::<Moment>();
    first.map_or(0, |moment| (moment.unix() / DAY.unsigned_abs()).cast_signed())
}

fn year_of(utc: i64) -> u64 {
    let text = Moment::from_unix(u64::try_from(utc).unwrap_or(0)).to_string();
    text.get(..4).and_then(|year| year.parse().ok()).unwrap_or(1970)
}

impl Zone {
    /// What `TZ` is set to so that a C library without any files of zones has it (POSIX, XBD 8.3); its sign is the other way round.
    pub fn posix(self) -> String {
        match self {
            Self::Fixed(offset) => abbreviated(offset),
            Self::Summer { standard, rule } => {
                format!("{}{},{}", abbreviated(standard), name(standard + HOUR), rule.posix(standard))
            }
        }
    }
}

/// `<-05>5`.
fn abbreviated(offset: i32) -> String {
    let (sign, size) = if offset > 0 { ("-", offset) } else { ("", -offset) };
    let minutes = size / 60 % 60;
    let minutes = if minutes == 0 { String::new() } else { format!(":{minutes:02}") };
    format!("{}{sign}{}{minutes}", name(offset), size / HOUR)
}

/// `<-05>`, `<+0530>`.
fn name(offset: i32) -> String {
    let sign = if offset < 0 { '-' } else { '+' };
    let (hours, minutes) = (offset.abs() / HOUR, offset.abs() / 60 % 60);
    if minutes == 0 { format!("<{sign}{hours:02}>") } else { format!("<{sign}{hours:02}{minutes:02}>") }
}

impl fmt::Display for Zone {
    /// For people: `UTC-05:00`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |offset: i32| {
            let sign = if offset < 0 { '-' } else { '+' };
            format!("UTC{sign}{:02}:{:02}", offset.abs() / HOUR, offset.abs() / 60 % 60)
        };
        match self {
            Self::Fixed(offset) => f.write_str(&shown(*offset)),
            Self::Summer { standard, .. } => write!(f, "{}, in summer {}", shown(*standard), shown(standard + HOUR)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(text: &str) -> i64 {
        text.parse::<Moment>().unwrap().unix().cast_signed()
    }

    fn stamps(texts: &[&str]) -> BTreeSet<Stamp> {
        texts.iter().map(|text| Stamp::from_seconds(at(text)).unwrap()).collect()
    }

    #[test]
    fn the_words_of_a_zip_are_a_time_or_refused() {
        // 2016-01-01 00:00:00
        assert_eq!(Stamp::from_dos(36 << 9 | 1 << 5 | 1, 0).map(Stamp::seconds), Some(FLIT_DEFAULT));
        let last = Stamp::from_dos(127 << 9 | 12 << 5 | 31, 23 << 11 | 59 << 5 | 29).unwrap();
        assert_eq!(last.to_string(), "2107-12-31 23:59:58");
        assert_eq!(Stamp::from_dos(0, 0), None);
        assert_eq!(Stamp::from_dos(46 << 9 | 2 << 5 | 30, 0), None);
        assert_eq!(Stamp::from_dos(46 << 9 | 2 << 5 | 3, 24 << 11), None);
    }

    #[test]
    fn one_time_is_the_epoch_flits_default_means_none_and_else_the_latest_counts() {
        let flit = Stamp(FLIT_DEFAULT);
        let one = stamps(&["2024-11-08T17:22:44Z"]);
        assert_eq!(epoch(&one, *one.first().unwrap()), Some((Epoch::At(1_731_086_564), Because::OneTime)));
        assert_eq!(epoch(&BTreeSet::from([flit]), flit), Some((Epoch::At(1_451_606_400), Because::OneTime)));
        let mixed = stamps(&["2016-01-01T00:00:00Z", "2026-09-17T14:10:00Z"]);
        assert_eq!(epoch(&mixed, flit), Some((Epoch::Unset, Because::FlitDefault)));
        let several = stamps(&["2024-12-04T17:35:06Z", "2024-12-04T17:35:24Z"]);
        let (record, wanted) = (*several.last().unwrap(), (Epoch::At(1_733_333_724), Because::LatestTime));
        assert_eq!(epoch(&several, record), Some(wanted));
        assert_eq!(epoch(&BTreeSet::new(), flit), None);
    }

    fn pair(utc: &str, hours: i64) -> (i64, Stamp) {
        (at(utc), Stamp::from_seconds(at(utc) + hours * 3600).unwrap())
    }

    #[test]
    fn one_offset_is_a_fixed_zone_and_none_at_all_is_nothing() {
        let pairs = [pair("2026-10-14T18:49:59Z", -5), pair("2026-08-01T01:00:00Z", -5)];
        assert_eq!(zone(&pairs), Some(Zone::Fixed(-5 * HOUR)));
        assert_eq!(zone(&pairs).unwrap().posix(), "<-05>5");
        assert_eq!(zone(&pairs).unwrap().to_string(), "UTC-05:00");
        assert_eq!(zone(&[pair("2026-10-14T18:49:58Z", 0)]), None);
        assert_eq!(zone(&[]), None);
        assert_eq!(Zone::Fixed(19_800).posix(), "<+0530>-5:30");
    }

    #[test]
    fn a_winters_and_a_summers_file_tell_the_rule() {
        let chicago = [pair("2026-01-14T18:49:58Z", -6), pair("2026-08-01T01:00:00Z", -5)];
        let zone_of = zone(&chicago).unwrap();
        assert_eq!(zone_of, Zone::Summer { standard: -6 * HOUR, rule: Rule::America });
        assert_eq!(zone_of.posix(), "<-06>6<-05>,M3.2.0,M11.1.0");
        let berlin =
            [pair("2026-03-29T00:59:58Z", 1), pair("2026-03-29T01:00:00Z", 2), pair("2026-10-25T01:00:00Z", 1)];
        assert_eq!(zone(&berlin).unwrap().posix(), "<+01>-1<+02>,M3.5.0/2,M10.5.0/3");
        let sydney = [pair("2026-01-14T00:00:00Z", 11), pair("2026-07-14T00:00:00Z", 10)];
        assert_eq!(zone(&sydney), Some(Zone::Summer { standard: 10 * HOUR, rule: Rule::Australia }));
    }

    #[test]
    fn a_file_that_fits_no_zone_refutes_all() {
        let odd = (at("2026-08-01T01:00:00Z"), Stamp::from_seconds(at("2026-08-01T02:07:00Z")).unwrap());
        assert_eq!(zone(&[pair("2026-10-14T18:49:58Z", -5), odd]), None);
        // Summer time the wrong way round is no known rule.
        assert_eq!(zone(&[pair("2026-01-14T18:49:58Z", -5), pair("2026-08-01T01:00:00Z", -6)]), None);
        assert_eq!(zone(&[pair("2026-01-14T18:49:58Z", -5), pair("2026-02-01T01:00:00Z", -3)]), None);
    }

    #[test]
    fn american_clocks_change_when_they_do() {
        // 2026: 8 March and 1 November, at 2:00 in Chicago.
        let summer = |text| Rule::America.is_summer(at(text), -6 * HOUR);
        assert!(!summer("2026-03-08T07:59:59Z") && summer("2026-03-08T08:00:00Z"));
        assert!(summer("2026-11-01T06:59:59Z") && !summer("2026-11-01T07:00:00Z"));
    }

    proptest! {
        #[test]
        fn a_fixed_zone_is_found_again(quarters in -48_i32..=56, times in proptest::collection::vec(400_000_000_i64..4_000_000_000, 1..9)) {
            let pairs: Vec<_> = times.iter().map(|&utc| (utc, Stamp::from_seconds(utc + i64::from(quarters) * 900).unwrap())).collect();
            prop_assert_eq!(zone(&pairs), (quarters != 0).then_some(Zone::Fixed(quarters * 900)));
        }

        #[test]
        fn no_words_panic(date: u16, time: u16) {
            if let Some(stamp) = Stamp::from_dos(date, time) {
                prop_assert_eq!(stamp.seconds() % 2, 0);
            }
        }
    }
}
