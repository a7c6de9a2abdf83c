//! Two values that differ: what the part of them that differs is.

/// The words that differ between two values: the part between what they have in common, grown to whole words.
pub(super) fn words<'a>(first: &'a str, second: &'a str) -> (&'a str, &'a str) {
    let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '_' | '-' | '+' | ':' | '~');
    grown(first, second, word)
}

/// The same, grown to runs of characters that satisfy `part`.
pub(super) fn grown<'a>(first: &'a str, second: &'a str, part: impl Fn(char) -> bool) -> (&'a str, &'a str) {
    let before: usize = first.chars().zip(second.chars()).take_while(|(a, b)| a == b).map(|(a, _)| a.len_utf8()).sum();
    let (a, b) = (&first[before..], &second[before..]);
    let after: usize =
        a.chars().rev().zip(b.chars().rev()).take_while(|(x, y)| x == y).map(|(x, _)| x.len_utf8()).sum();
    let start = before - first[..before].chars().rev().take_while(|&c| part(c)).map(char::len_utf8).sum::<usize>();
    let end = |text: &str| {
        let end = text.len() - after;
        end + text[end..].chars().take_while(|&c| part(c)).map(char::len_utf8).sum::<usize>()
    };
    (&first[start..end(first)], &second[start..end(second)])
}

/// The year that a text is, if it is one that software could have been built in.
pub(super) fn year(text: &str) -> Option<u32> {
    let year: u32 = text.parse().ok()?;
    (text.len() == 4 && (1985..=2105).contains(&year)).then_some(year)
}

/// Whether a text is seconds since 1970, between 2001 and 2096.
pub(super) fn is_unix_time(text: &str) -> bool {
    text.len() == 10 && text.parse::<u64>().is_ok_and(|t| (1_000_000_000..4_000_000_000).contains(&t))
}

/// Whether a text is a time of day or a date: `12:30:05`, `2024-05-01`, with anything around it.
pub(super) fn is_date(text: &str) -> bool {
    let shape: String = text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    ["00:00:00", "0000-00-00", "0000/00/00", "0000.00.00"].iter().any(|s| shape.contains(s))
}

/// Hour, minute and second of the first time of day in a text.
pub(super) fn time_of_day(text: &str) -> Option<(u32, u32, u32)> {
    let number = |part: &str| part.parse::<u32>().ok().filter(|n| *n < 60);
    (0..text.len().saturating_sub(7)).filter_map(|at| text.get(at..at + 8)).find_map(|part| {
        let mut parts = part.split(':').map(|p| (p.len() == 2).then(|| number(p)).flatten());
        match (parts.next()??, parts.next()??, parts.next()??, parts.next()) {
            (hour @ 0..24, minute, second, None) => Some((hour, minute, second)),
            _ => None,
        }
    })
}

/// The date in a text, `YYYY-MM-DD`.
pub(super) fn date(text: &str) -> Option<&str> {
    (0..text.len().saturating_sub(9)).filter_map(|at| text.get(at..at + 10)).find(|part| {
        let bytes = part.as_bytes();
        let digits = [0, 1, 2, 3, 5, 6, 8, 9].iter().all(|&i| bytes[i].is_ascii_digit());
        digits && bytes[4] == b'-' && bytes[7] == b'-' && year(&part[..4]).is_some()
    })
}

/// Whether a text is a UUID.
pub(super) fn is_uuid(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    parts.iter().map(|p| p.len()).eq([8, 4, 4, 4, 12]) && parts.iter().all(|p| p.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// The directories of two absolute paths that differ in a directory: without the end that they have in common.
pub(super) fn directories<'a>(first: &'a str, second: &'a str) -> Option<(&'a str, &'a str)> {
    let absolute = |text: &str| text.starts_with('/') && text.len() > 1 && !text.contains(' ');
    if !absolute(first) || !absolute(second) || first == second {
        return None;
    }
    let common =
        first.rsplit('/').zip(second.rsplit('/')).take_while(|(a, b)| a == b).map(|(a, _)| a.len() + 1).sum::<usize>();
    let (a, b) = (&first[..first.len().saturating_sub(common)], &second[..second.len().saturating_sub(common)]);
    let (a, b) = (if a.is_empty() { "/" } else { a }, if b.is_empty() { "/" } else { b });
    // Two names in one directory are two files, not two places of one.
    let parent = |path: &str| path.rfind('/').map_or(0, |at| at);
    let siblings = common == 0 && a[..parent(a)] == b[..parent(b)] && a.contains('.') && b.contains('.');
    (!siblings).then_some((a, b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_grown_to_whole_words() {
        assert_eq!(words("built in 2022.", "built in 2026."), ("2022.", "2026."));
        assert_eq!(grown("(C) 2022 x", "(C) 2026 x", |c| c.is_ascii_digit()), ("2022", "2026"));
        assert_eq!(words("same", "same"), ("same", "same"));
        assert_eq!(words("", "more"), ("", "more"));
        assert_eq!(words("ä1ö", "ä2ö"), ("1", "2"));
    }

    #[test]
    fn dates_and_ids_are_known_by_their_shape() {
        assert_eq!((year("2022"), year("1234"), year("02022")), (Some(2022), None, None));
        assert!(is_unix_time("1700000000") && !is_unix_time("170000000") && !is_unix_time("9999999999"));
        assert!(is_date("at 12:30:05") && is_date("2024-05-01T") && !is_date("1.2.3"));
        assert_eq!(date("on 2024-05-01 at"), Some("2024-05-01"));
        assert_eq!(time_of_day("on 2024-05-01 23:30:05 UTC"), Some((23, 30, 5)));
        assert_eq!((time_of_day("24:00:00"), time_of_day("1:2:3"), time_of_day("")), (None, None, None));
        assert!(is_uuid("550e8400-e29b-41d4-a716-446655440000") && !is_uuid("550e8400-e29b-41d4-a716-44665544000g"));
    }

    #[test]
    fn directories_differ_without_the_end_that_they_share() {
        assert_eq!(directories("/build/a/src/x.c", "/tmp/b/src/x.c"), Some(("/build/a", "/tmp/b")));
        assert_eq!(directories("/build", "/build/second"), Some(("/build", "/build/second")));
        assert_eq!(directories("/usr/lib/a.so", "/usr/lib/b.so"), None);
        assert_eq!(directories("relative/x", "/absolute/x"), None);
    }
}
