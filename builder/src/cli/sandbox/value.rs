//! Values of options: sizes, times, masks, file systems in memory.

use std::num::NonZeroU64;
use std::time::Duration;

use super::TMPFS;
use crate::command::{Mount, What};

/// `512`, `64K`, `512M`, `2G`, `1T`: powers of 1024.
pub(super) fn size(text: &str) -> Result<NonZeroU64, String> {
    let (digits, shift) = match text.strip_suffix(['K', 'M', 'G', 'T', 'k', 'm', 'g', 't']) {
        None => (text, 0),
        Some(digits) => (
            digits,
            match text.as_bytes()[digits.len()].to_ascii_uppercase() {
                b'K' => 10,
                b'M' => 20,
                b'G' => 30,
                _ => 40,
            },
        ),
    };
    let expected = "expected a size of at least 1 byte, such as 512M or 2G";
    let number: u64 = digits.parse().map_err(|_| expected.to_owned())?;
    number.checked_mul(1 << shift).and_then(NonZeroU64::new).ok_or_else(|| expected.to_owned())
}

/// `90`, `90s`, `5m`, `2h`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let (digits, unit) = match text.strip_suffix(['s', 'm', 'h']) {
        None => (text, 1),
        Some(digits) => (
            digits,
            match text.as_bytes()[digits.len()] {
                b's' => 1,
                b'm' => 60,
                _ => 3600,
            },
        ),
    };
    let expected = "expected a time of at least 1 second, such as 90s, 5m or 2h";
    let number: u64 = digits.parse().map_err(|_| expected.to_owned())?;
    match number.checked_mul(unit) {
        None | Some(0) => Err(expected.to_owned()),
        Some(seconds) => Ok(Duration::from_secs(seconds)),
    }
}

pub(super) fn octal(text: &str) -> Result<u32, String> {
    let mask = u32::from_str_radix(text, 8).ok().filter(|mask| *mask <= 0o777);
    mask.ok_or_else(|| "expected an octal mask up to 777".to_owned())
}

/// `DEST` or `DEST:SIZE`. A colon that no size follows belongs to the name.
pub(super) fn tmpfs(text: &str) -> Result<Mount, String> {
    let (target, bytes) = match text.rsplit_once(':') {
        Some((target, last)) if last.starts_with(|c: char| c.is_ascii_digit()) => (target, size(last)?.get()),
        _ => (text, TMPFS),
    };
    Ok(Mount { target: target.into(), what: What::Memory(bytes) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_have_units_and_are_never_nothing() {
        let bytes = |text| size(text).map(NonZeroU64::get);
        assert_eq!(
            (bytes("512"), bytes("64K"), bytes("2G"), bytes("1t")),
            (Ok(512), Ok(65_536), Ok(2 << 30), Ok(1 << 40))
        );
        assert_eq!(duration("90"), Ok(Duration::from_secs(90)));
        assert_eq!((duration("5m"), duration("2h")), (Ok(Duration::from_secs(300)), Ok(Duration::from_secs(7200))));
        for text in ["0", "0M", "", "M", "-1", "1.5G", "12X", "99999999999T", "1GG"] {
            assert!(size(text).is_err(), "{text}");
        }
        for text in ["0", "0s", "", "s", "-1", "1d", "99999999999999999h"] {
            assert!(duration(text).is_err(), "{text}");
        }
        assert_eq!(octal("027"), Ok(0o27));
        assert!(octal("1777").is_err() && octal("8").is_err());
    }

    #[test]
    fn a_tmpfs_has_the_size_after_its_last_colon() {
        let parsed = |text| tmpfs(text).map(|mount| (mount.target.display().to_string(), mount.what));
        assert_eq!(parsed("/a"), Ok(("/a".into(), What::Memory(TMPFS))));
        assert_eq!(parsed("/a:64M"), Ok(("/a".into(), What::Memory(64 << 20))));
        assert_eq!(parsed("/a:b"), Ok(("/a:b".into(), What::Memory(TMPFS))));
        assert!(parsed("/a:0").is_err());
    }
}
