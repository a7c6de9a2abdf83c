//! What a campaign may use. Both bounds are looked at before a build is started; one that runs is let run to its end.

use std::path::Path;
use std::str::FromStr;
use std::time::{Duration, Instant};

use kiln_model::campaign::Withheld;
use rustix::fs::statvfs;

/// How full the disk may be for another build to start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskLimit {
    /// So many bytes more are in use on the store's file system than when the campaign began.
    Used(u64),
    /// So much of the store's file system is in use, in hundredths.
    Full(u8),
}

/// What a campaign may use.
#[derive(Debug, Clone, Copy, Default)]
pub struct Budget {
    /// Time after which nothing is started.
    pub time: Option<Duration>,
    /// The disk.
    pub disk: Option<DiskLimit>,
}

/// A budget that is being used.
pub(super) struct Spent<'a> {
    budget: Budget,
    began: Instant,
    store: &'a Path,
    used: u64,
}

impl<'a> Spent<'a> {
    pub(super) fn begin(budget: Budget, store: &'a Path) -> Self {
        Self { budget, began: Instant::now(), store, used: used(store).map_or(0, |(used, _)| used) }
    }

    /// Why nothing may be started any more, if so. `free` is called once before the disk is said to be too full.
    pub(super) fn over(&self, free: impl FnOnce()) -> Option<Withheld> {
        if self.budget.time.is_some_and(|limit| self.began.elapsed() >= limit) {
            return Some(Withheld::TimeLimit);
        }
        let limit = self.budget.disk?;
        if self.fits(limit) {
            return None;
        }
        free();
        (!self.fits(limit)).then_some(Withheld::DiskLimit)
    }

    fn fits(&self, limit: DiskLimit) -> bool {
        // A file system that does not say is not held to anything: the build itself will meet its end.
        let Some((used, size)) = used(self.store) else { return true };
        match limit {
            DiskLimit::Used(bytes) => used.saturating_sub(self.used) < bytes,
            DiskLimit::Full(hundredths) => used / 100 < size / 10_000 * u64::from(hundredths),
        }
    }
}

/// Bytes in use on the file system of `path`, and its size without what only root may use.
fn used(path: &Path) -> Option<(u64, u64)> {
    let found = statvfs(path).ok()?;
    let used = found.f_blocks.saturating_sub(found.f_bfree).saturating_mul(found.f_frsize);
    Some((used, used.saturating_add(found.f_bavail.saturating_mul(found.f_frsize))))
}

impl FromStr for DiskLimit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?}: expected bytes such as 20G, or how full the disk may be such as 90%");
        if let Some(hundredths) = text.strip_suffix('%') {
            let hundredths: u8 = hundredths.parse().map_err(|_| wrong())?;
            return if hundredths <= 100 { Ok(Self::Full(hundredths)) } else { Err(wrong()) };
        }
        let (number, unit) = match text.char_indices().find(|(_, c)| !c.is_ascii_digit()) {
            Some((at, _)) => text.split_at(at),
            None => (text, ""),
        };
        let shift = match unit {
            "" => 0,
            "K" => 10,
            "M" => 20,
            "G" => 30,
            "T" => 40,
            _ => return Err(wrong()),
        };
        let number: u64 = number.parse().map_err(|_| wrong())?;
        number.checked_mul(1 << shift).map(Self::Used).ok_or_else(wrong)
    }
}

/// A time such as `90s`, `15m`, `8h`; seconds without a letter.
pub fn time(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?}: expected a time such as 90s, 15m, 8h or 2d");
    let (number, unit) = match text.char_indices().find(|(_, c)| !c.is_ascii_digit()) {
        Some((at, _)) => text.split_at(at),
        None => (text, "s"),
    };
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    number.checked_mul(seconds).map(Duration::from_secs).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_read_with_their_units_and_nothing_else() {
        assert_eq!("20G".parse(), Ok(DiskLimit::Used(20 << 30)));
        assert_eq!("0".parse(), Ok(DiskLimit::Used(0)));
        assert_eq!("90%".parse(), Ok(DiskLimit::Full(90)));
        for bad in ["", "G", "-1", "101%", "%", "1X", "99999999999T"] {
            assert!(bad.parse::<DiskLimit>().is_err(), "{bad}");
        }
        assert_eq!(time("90"), Ok(Duration::from_secs(90)));
        assert_eq!(time("2h"), Ok(Duration::from_secs(7200)));
        assert!(time("soon").is_err() && time("1w").is_err() && time("99999999999999999999d").is_err());
    }

    #[test]
    fn what_is_used_up_ends_it_and_what_is_not_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let spent = |budget| Spent::begin(budget, dir.path());
        assert_eq!(spent(Budget::default()).over(|| ()), None);
        let over = Budget { time: Some(Duration::ZERO), disk: None };
        assert_eq!(spent(over).over(|| ()), Some(Withheld::TimeLimit));
        let over = Budget { time: None, disk: Some(DiskLimit::Used(0)) };
        let mut freed = 0;
        assert_eq!(spent(over).over(|| freed += 1), Some(Withheld::DiskLimit));
        assert_eq!(freed, 1, "room is made first");
        let roomy = Budget { time: Some(Duration::from_secs(3600)), disk: Some(DiskLimit::Used(u64::MAX)) };
        assert_eq!(spent(roomy).over(|| ()), None);
        assert_eq!(spent(Budget { time: None, disk: Some(DiskLimit::Full(0)) }).over(|| ()), Some(Withheld::DiskLimit));
    }
}
