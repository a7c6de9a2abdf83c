//! A point in time in an outcome: RFC 3339, UTC, whole seconds.
//!
//! The one spelling is `2026-11-22T01:27:54Z`, so that equal moments have equal bytes and sort as text.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::digest::serde_as_text;

/// The last second of the year 9999: RFC 3339 has four digits for a year.
const LAST: u64 = 253_402_300_799;

/// Seconds since 1970, without leap seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(u64);

/// The text is not a moment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} is not a moment: expected UTC in whole seconds, such as 2026-11-22T01:27:54Z")]
pub struct MomentError {
    /// The text as given.
    pub found: String,
}

impl Moment {
    /// So many seconds after 1970 began; the end of the year 9999 if later.
    pub fn from_unix(seconds: u64) -> Self {
        Self(seconds.min(LAST))
    }

    /// Seconds since 1970.
    pub fn unix(self) -> u64 {
        self.0
    }
}

/// Year, month and day of a day since 1970, in the proleptic Gregorian calendar. Eras of 400 years that begin in March,
/// after H. Hinnant, "chrono-compatible low-level date algorithms", `civil_from_days`.
fn date(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

/// Days since 1970 of a date; the inverse of [`date`] for dates that exist.
fn days(year: u64, month: u64, day: u64) -> Option<u64> {
    let year = year.checked_sub(u64::from(month <= 2))?;
    let (era, year_of_era) = (year / 400, year % 400);
    let from_march = (month + 9) % 12;
    let day_of_year = (153 * from_march + 2) / 5 + day.checked_sub(1)?;
    (era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year).checked_sub(719_468)
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = date(self.0 / 86_400);
        let second = self.0 % 86_400;
        write!(f, "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", second / 3600, second / 60 % 60, second % 60)
    }
}

impl FromStr for Moment {
    type Err = MomentError;

    fn from_str(text: &str) -> Result<Self, MomentError> {
        let number = |range: std::ops::Range<usize>| text.get(range)?.parse::<u64>().ok();
        let parsed = || {
            let day = days(number(0..4)?, number(5..7)?, number(8..10)?)?;
            Some(Self(day * 86_400 + number(11..13)? * 3600 + number(14..16)? * 60 + number(17..19)?))
        };
        // Whatever is not printed the same way (a 30th of February, a space, another zone) is refused.
        match parsed() {
            Some(moment) if moment.0 <= LAST && moment.to_string() == text => Ok(moment),
            Some(_) | None => Err(MomentError { found: text.into() }),
        }
    }
}

serde_as_text!(Moment);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_moments_have_their_known_spelling() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (LAST, "9999-12-31T23:59:59Z"),
        ] {
            assert_eq!(Moment::from_unix(seconds).to_string(), text);
        }
    }

    #[test]
    fn other_zones_and_days_that_do_not_exist_are_refused() {
        for bad in [
            "2026-11-22T01:27:54+00:00",
            "2026-11-22 01:27:54Z",
            "2026-02-29T00:00:00Z",
            "2026-00-10T00:00:00Z",
            "2026-11-22T24:00:00Z",
            "1969-12-31T23:59:59Z",
            "2026-11-22T01:27:54.5Z",
            "",
            "ä026-11-22T01:27:54Z",
        ] {
            assert!(bad.parse::<Moment>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn a_printed_moment_parses_back(seconds in 0..=LAST) {
            let moment = Moment::from_unix(seconds);
            prop_assert_eq!(moment.to_string().parse(), Ok(moment));
        }
    }
}
