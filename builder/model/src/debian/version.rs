//! Debian versions and their order.
//!
//! `[epoch:]upstream[-revision]`, compared as `dpkg` does (deb-version(7), Policy 5.6.12): digits as numbers, other
//! characters with letters before the rest and `~` before everything, even the end. Two versions that are spelled
//! differently may be equal in this order (`1.0` and `0:1.00`); [`Version::as_str`] tells them apart.

use std::cmp::Ordering;
use std::fmt;

/// A checked version, borrowed from where it stands.
#[derive(Clone, Copy)]
pub struct Version<'a>(&'a str);

/// Why a text is not a version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} is not a Debian version: {why}")]
pub struct VersionError {
    /// The text.
    pub found: String,
    /// Which rule it breaks.
    pub why: &'static str,
}

impl<'a> Version<'a> {
    /// A version from its text.
    pub fn parse(text: &'a str) -> Result<Self, VersionError> {
        let refuse = |why| Err(VersionError { found: text.chars().take(80).collect(), why });
        let (epoch, rest) = text.split_once(':').unwrap_or(("0", text));
        if epoch.is_empty() || !epoch.bytes().all(|b| b.is_ascii_digit()) || epoch.parse::<i32>().is_err() {
            return refuse("the epoch is not a number");
        }
        let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, "0"));
        if upstream.is_empty() || revision.is_empty() {
            return refuse("a part of it is empty");
        }
        let allowed = |b: u8, more: &[u8]| b.is_ascii_alphanumeric() || more.contains(&b);
        if !upstream.bytes().all(|b| allowed(b, b".+~-:")) || !revision.bytes().all(|b| allowed(b, b".+~")) {
            return refuse("expected letters, digits and . + ~ - (and : after an epoch)");
        }
        Ok(Self(text))
    }

    /// The text as written.
    pub fn as_str(&self) -> &'a str {
        self.0
    }

    fn parts(&self) -> (u32, &'a str, &'a str) {
        let (epoch, rest) = self.0.split_once(':').unwrap_or(("0", self.0));
        let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, ""));
        (epoch.parse().expect("checked when parsed"), upstream, revision)
    }
}

impl Ord for Version<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        if self.0 == other.0 {
            return Ordering::Equal;
        }
        let (a, b) = (self.parts(), other.parts());
        a.0.cmp(&b.0).then_with(|| compare(a.1, b.1)).then_with(|| compare(a.2, b.2))
    }
}

/// Alternately the part without digits and the digits.
fn compare(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    while !a.is_empty() || !b.is_empty() {
        loop {
            let (x, y) = (a.first().copied(), b.first().copied());
            let word = |c: Option<u8>| c.is_some_and(|c| !c.is_ascii_digit());
            if !word(x) && !word(y) {
                break;
            }
            match weight(x).cmp(&weight(y)) {
                Ordering::Equal => (a, b) = (&a[1..], &b[1..]),
                unequal => return unequal,
            }
        }
        let (x, y);
        ((x, a), (y, b)) = (number(a), number(b));
        // Without leading zeros the longer number is the larger one, however long.
        match x.len().cmp(&y.len()).then_with(|| x.cmp(y)) {
            Ordering::Equal => {}
            unequal => return unequal,
        }
    }
    Ordering::Equal
}

/// `~` before the end of the part, the end (a digit counts as one) before letters, letters before the rest.
fn weight(c: Option<u8>) -> i16 {
    match c {
        Some(b'~') => -1,
        None | Some(b'0'..=b'9') => 0,
        Some(c) if c.is_ascii_alphabetic() => i16::from(c),
        Some(c) => i16::from(c) + 256,
    }
}

/// The digits at the beginning, without leading zeros, and what follows them.
fn number(text: &[u8]) -> (&[u8], &[u8]) {
    let end = text.iter().position(|b| !b.is_ascii_digit()).unwrap_or(text.len());
    let zeros = text[..end].iter().position(|b| *b != b'0').unwrap_or(end);
    (&text[zeros..end], &text[end..])
}

impl PartialOrd for Version<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Version<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Version<'_> {}

impl fmt::Display for Version<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl fmt::Debug for Version<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Version({})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_is_the_manual_s() {
        let order = [
            "~~", "~~a", "~", "0~1", "0", "0a", "0.1-0", "0.1-0.1", "1.0~rc1", "1.0", "1.0a", "1.0+b", "1.2", "1.10",
            "1:0.1",
        ];
        for (n, a) in order.iter().enumerate() {
            for (m, b) in order.iter().enumerate() {
                let (a, b) = (Version::parse(a).unwrap(), Version::parse(b).unwrap());
                assert_eq!(a.cmp(&b), n.cmp(&m), "{a} against {b}");
            }
        }
    }

    #[test]
    fn different_spellings_of_one_version_are_equal() {
        for (a, b) in [("1.0", "0:1.00"), ("1", "1-0"), ("1.0-1", "1.0-01"), ("a", "a0"), ("1.a", "1.a0")] {
            assert_eq!(Version::parse(a).unwrap(), Version::parse(b).unwrap());
        }
        let long = format!("1{}", "0".repeat(4000));
        assert!(Version::parse(&long).unwrap() > Version::parse("9").unwrap());
    }

    #[test]
    fn what_is_no_version_is_refused() {
        for text in ["", ":1", "a:1", "-1:1", "99999999999:1", "1-", "-1", "1 2", "1_2", "1:", "1-2_3", "1/2", "é"] {
            assert!(Version::parse(text).is_err(), "{text:?}");
        }
    }
}
