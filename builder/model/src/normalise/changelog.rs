//! `changelog-trimming/1`: the older entries of a Debian changelog.
//!
//! debhelper cuts off entries older than the release before last and says so in a comment; before version 13.9 or with
//! `notrimdch` it ships them all. The newest entries of both texts are kept, as many as the shorter has; all of them must
//! be equal, so that this forgets the tail of a list and nothing in its middle.

/// How an entry begins: a name, a version in parentheses, a distribution and an urgency (deb-changelog(5)).
fn begins_entry(line: &str) -> bool {
    let Some((name, rest)) = line.split_once(' ') else { return false };
    name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && rest.starts_with('(')
        && rest.contains(") ")
        && rest.contains(';')
}

/// What debhelper writes at the end of what it trimmed.
fn is_notice(line: &str) -> bool {
    line.starts_with("# Older entries have been removed from this changelog.")
        || line.starts_with("# To read the complete changelog use")
}

/// How many whole entries a changelog has.
pub fn entries(text: &str) -> usize {
    text.lines().filter(|line| begins_entry(line)).count()
}

/// Whether debhelper has trimmed it.
pub fn is_trimmed(text: &str) -> bool {
    text.lines().any(is_notice)
}

/// The newest `keep` entries, without the notice.
pub fn newest(text: &str, keep: usize) -> String {
    let mut seen = 0;
    let mut kept = String::new();
    for line in text.lines() {
        seen += usize::from(begins_entry(line));
        if seen > keep {
            break;
        }
        if !is_notice(line) {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    kept.truncate(kept.trim_end().len());
    kept
}

/// How many entries to keep so that two changelogs become equal; `None` if they are equal already, or not by trimming.
pub fn common(first: &str, second: &str) -> Option<usize> {
    let keep = entries(first).min(entries(second));
    let trimmed = entries(first) != entries(second) || is_trimmed(first) != is_trimmed(second);
    (keep > 0 && trimmed && newest(first, keep) == newest(second, keep)).then_some(keep)
}

/// Whether a file in a package is its Debian changelog: `usr/share/doc/PACKAGE/changelog.Debian.gz`, or `changelog.gz`.
pub fn is_changelog(name: &[u8]) -> bool {
    let name = name.strip_prefix(b"./").unwrap_or(name);
    let Some(rest) = name.strip_prefix(b"usr/share/doc/") else { return false };
    matches!(rest.splitn(2, |&b| b == b'/').nth(1), Some(b"changelog.Debian.gz" | b"changelog.gz"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = "cowsay (3.03-8) unstable; urgency=medium\n\n  * New.\n\n -- A <a@b>  Mon, 11 May 2020 10:00:00 +0200\n\ncowsay (3.03-7) unstable; urgency=low\n\n  * Old.\n\n -- A <a@b>  Mon, 11 May 2009 10:00:00 +0200\n";
    const TRIMMED: &str = "cowsay (3.03-8) unstable; urgency=medium\n\n  * New.\n\n -- A <a@b>  Mon, 11 May 2020 10:00:00 +0200\n\n# Older entries have been removed from this changelog.\n# To read the complete changelog use `apt changelog cowsay`.\n";

    #[test]
    fn a_trimmed_changelog_is_the_beginning_of_the_whole_one() {
        assert_eq!((entries(WHOLE), entries(TRIMMED)), (2, 1));
        assert!(is_trimmed(TRIMMED) && !is_trimmed(WHOLE));
        assert_eq!(common(WHOLE, TRIMMED), Some(1));
        assert_eq!(newest(WHOLE, 1), newest(TRIMMED, 1));
    }

    #[test]
    fn what_differs_in_an_entry_that_both_have_is_no_trimming() {
        assert_eq!(common(&WHOLE.replace("New", "Newer"), TRIMMED), None);
        assert_eq!(common(WHOLE, &WHOLE.replace("Old", "Older")), None);
        assert_eq!(common(WHOLE, WHOLE), None);
        assert_eq!(common("text", "other text"), None);
        let hidden = TRIMMED.replace("  * New.", "  * New.\n\n# Something else.");
        assert_eq!(common(WHOLE, &hidden), None);
    }

    #[test]
    fn only_a_packages_own_changelog_is_one() {
        assert!(
            is_changelog(b"./usr/share/doc/cowsay/changelog.Debian.gz")
                && is_changelog(b"usr/share/doc/x/changelog.gz")
        );
        for name in [
            &b"usr/share/doc/x/NEWS.gz"[..],
            b"usr/share/doc/changelog.gz",
            b"usr/share/doc/x/y/changelog.gz",
            b"changelog.gz",
        ] {
            assert!(!is_changelog(name));
        }
    }
}
