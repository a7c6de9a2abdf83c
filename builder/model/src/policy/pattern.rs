//! Patterns over URIs and purls: `*` stands for any run of characters, everything else for itself.
//!
//! No other character is special (`?` and `[` occur in purls). A pattern never says more than its author sees: a `*` in the
//! host of a URI stays within the host, and a text with `.` or `..` segments, a backslash or a control character equals
//! itself only. Matching takes time linear in the text for each `*`, and no recursion.

use std::fmt;

/// A pattern that was checked.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pattern(String);

/// Why a text is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// Nothing matches it.
    #[error("an empty pattern matches nothing; write \"*\" for anything")]
    Empty,
    /// `https://example.org*` is also `https://example.org.attacker.example`.
    #[error("{pattern:?} also matches other hosts, since its * follows part of a host name; write \"{host}/*\"")]
    OpenHost {
        /// The pattern.
        pattern: String,
        /// It without its last `*`.
        host: String,
    },
}

impl Pattern {
    /// A pattern from its text.
    pub fn new(text: &str) -> Result<Self, PatternError> {
        if text.is_empty() {
            return Err(PatternError::Empty);
        }
        let (head, tail) = authority(text);
        let host = head.find("://").map_or("", |at| &head[at + 3..]);
        if tail.is_empty() && host.len() > 1 && host.ends_with('*') {
            return Err(PatternError::OpenHost { pattern: text.into(), host: head.trim_end_matches('*').into() });
        }
        Ok(Self(text.into()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether anything matches.
    pub fn is_any(&self) -> bool {
        self.0 == "*"
    }

    /// Whether `text` is one of those that the pattern stands for.
    pub fn matches(&self, text: &str) -> bool {
        if self.is_any() || self.0 == text {
            return true;
        }
        if is_devious(text) {
            return false;
        }
        let (head, tail) = authority(&self.0);
        if !head.contains("://") {
            return runs(&self.0, text);
        }
        let (text_head, text_tail) = authority(text);
        // `https://*` has no path: it leaves the path open, too.
        runs(head, text_head) && ((tail.is_empty() && head.ends_with("://*")) || runs(tail, text_tail))
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Scheme and host, and what follows them; everything is the former where there is no host.
fn authority(text: &str) -> (&str, &str) {
    match text.find("://") {
        Some(at) => {
            let end = text[at + 3..].find(['/', '?', '#']).map_or(text.len(), |end| at + 3 + end);
            text.split_at(end)
        }
        None => (text, ""),
    }
}

/// What another reader might take for another resource than it looks like.
fn is_devious(text: &str) -> bool {
    text.bytes().any(|b| b == b'\\' || b.is_ascii_control() || b == b' ')
        || (text.contains("/.") || text.contains("/%2")) && text.split(['/', '?', '#']).any(is_dots)
}

/// `.` and `..`, in any spelling that RFC 3986 section 6.2.2 makes equal to them.
fn is_dots(segment: &str) -> bool {
    let plain = segment.replace("%2e", ".").replace("%2E", ".");
    plain == "." || plain == ".."
}

/// Whether `text` is the literals of `pattern` in order, with anything for each `*`.
fn runs(pattern: &str, text: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(first) else { return false };
    let (middle, last) = rest.rsplit_once('*').unwrap_or(("", rest));
    // The leftmost place of each literal leaves most for the others.
    for literal in middle.split('*') {
        match text.find(literal) {
            Some(at) => text = &text[at + literal.len()..],
            None => return false,
        }
    }
    text.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn matches(pattern: &str, text: &str) -> bool {
        Pattern::new(pattern).unwrap().matches(text)
    }

    #[test]
    fn a_star_stands_for_any_run() {
        assert!(matches("pkg:generic/hello@*", "pkg:generic/hello@1.0?arch=amd64"));
        assert!(matches(
            "git+https://example.org/r@refs/tags/v*",
            "git+https://example.org/r@refs/tags/v1#recipes/a.toml"
        ));
        assert!(matches("*", ""));
        assert!(matches("a*b*c", "abc"));
        assert!(matches("a*b*c", "a-b-b-c"));
        assert!(matches("a**c", "abc"));
        assert!(!matches("pkg:generic/hello@*", "pkg:generic/hello-evil@1"));
        assert!(!matches("a*b*c", "ac"));
        assert!(!matches("a*a", "a"));
        assert!(!matches("abc", "ab"));
    }

    #[test]
    fn a_star_in_a_host_stays_in_the_host() {
        assert!(matches("https://*.example.org/x", "https://a.b.example.org/x"));
        assert!(!matches("https://*.example.org/*", "https://evil.test/.example.org/x"));
        assert!(!matches("https://*.example.org/*", "https://evil.test?.example.org/x"));
        assert!(!matches("https://*.example.org/*", "https://evil.test#.example.org/x"));
        assert!(!matches("https://example.org/*", "https://example.org.evil.test/"));
        assert!(!matches("https://example.org/*", "https://example.org@evil.test/"));
        assert!(matches("https://*", "https://example.org/anything"));
        assert!(!matches("https://*", "http://example.org/anything"));
    }

    #[test]
    fn dot_segments_backslashes_and_controls_match_only_themselves() {
        assert!(!matches("git+https://example.org/r/*", "git+https://example.org/r/../evil"));
        assert!(!matches("git+https://example.org/r/*", "git+https://example.org/r/%2e%2E/evil"));
        assert!(!matches("https://*.example.org/*", "https://evil.test\\.example.org/"));
        assert!(!matches("pkg:*", "pkg:a\nb"));
        assert!(matches("git+https://example.org/r/../s", "git+https://example.org/r/../s"));
        assert!(matches("https://example.org/*", "https://example.org/.hidden/a..b"));
    }

    #[test]
    fn an_open_host_and_nothing_are_refused_and_say_what_to_write() {
        let error = Pattern::new("https://example.org*").unwrap_err();
        assert!(error.to_string().contains("https://example.org/*"), "{error}");
        assert_eq!(Pattern::new(""), Err(PatternError::Empty));
        assert!(Pattern::new("https://*.example.org/*").is_ok());
    }

    proptest! {
        #[test]
        fn a_pattern_matches_every_text_made_from_it(parts in prop::collection::vec("[a-c@/]{0,4}", 1..5), fill in "[a-c]{0,3}") {
            let pattern = parts.join("*");
            prop_assume!(!pattern.is_empty());
            prop_assert!(matches(&pattern, &parts.join(&fill)));
        }

        #[test]
        fn any_pair_of_texts_ends(pattern in "\\PC{1,20}", text in "\\PC{0,20}") {
            if let Ok(pattern) = Pattern::new(&pattern) {
                let _ = pattern.matches(&text);
            }
        }
    }
}
