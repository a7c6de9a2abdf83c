//! One pass over JSON: UTF-8, RFC 8259's grammar, depth, and no key twice in an object.
//!
//! Builds nothing but the keys of the objects that are open; a [`Sink`] is told what there is, in turn, and may build more.
//! Duplicates are found by sorting an object's keys when it closes, so that no choice of keys makes it slow. What is taken here,
//! `serde_json` takes as well (fuzzed).

use std::borrow::Cow;

use super::{CanonicalError, Limits};

/// Keys are compared one by one up to here, and sorted from here on.
const FEW: usize = 8;

/// What is told of JSON while it is checked. What it is told is within limits and of right grammar; that no key is there twice
/// is known of an object only once it ended.
pub(super) trait Sink<'t> {
    /// An object or array begins; its members or values follow.
    fn begin(&mut self, _kind: Kind) {}
    /// The innermost object or array ends.
    fn end(&mut self) {}
    /// A key, or a value.
    #[expect(clippy::ptr_arg, reason = "a sink may keep what is borrowed for as long as the text lives")]
    fn text(&mut self, _text: &Cow<'t, str>) {}
    /// A number as it is spelled.
    fn number(&mut self, _spelled: &'t str) {}
    /// `true`, `false` or `null`.
    fn word(&mut self, _word: Option<bool>) {}
}

/// What can have others in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// `[…]`
    Array,
    /// `{…}`
    Object,
}

/// Checks only.
impl Sink<'_> for () {}

pub(super) fn check<'t, S: Sink<'t>>(bytes: &'t [u8], limits: Limits, sink: &mut S) -> Result<(), CanonicalError> {
    if bytes.len() > limits.bytes {
        return Err(CanonicalError::TooLong { found: bytes.len(), limit: limits.bytes });
    }
    let text = std::str::from_utf8(bytes).map_err(|error| CanonicalError::NotUtf8 { at: error.valid_up_to() })?;
    let mut scan = Scan { text, at: 0, limits, keys: Vec::new(), open: Vec::new(), sink };
    scan.value()?;
    match scan.at == bytes.len() {
        true => Ok(()),
        false => Err(scan.expected("nothing after the value")),
    }
}

struct Scan<'t, 's, S> {
    text: &'t str,
    at: usize,
    limits: Limits,
    /// Keys of all open objects, innermost last.
    keys: Vec<Cow<'t, str>>,
    open: Vec<Open>,
    sink: &'s mut S,
}

/// An object or array whose end was not seen yet.
#[derive(Clone, Copy)]
enum Open {
    Array,
    /// And where its keys begin.
    Object(usize),
}

impl<'t, S: Sink<'t>> Scan<'t, '_, S> {
    fn bytes(&self) -> &'t [u8] {
        self.text.as_bytes()
    }

    fn peek(&self) -> Option<u8> {
        self.bytes().get(self.at).copied()
    }

    fn expected(&self, expected: &'static str) -> CanonicalError {
        CanonicalError::Syntax { at: self.at, expected }
    }

    fn blank(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn take(&mut self, byte: u8, expected: &'static str) -> Result<(), CanonicalError> {
        match self.peek() == Some(byte) {
            true => {
                self.at += 1;
                Ok(())
            }
            false => Err(self.expected(expected)),
        }
    }

    /// A value, and the blanks around it. Without recursion: depth is a limit of ours and never one of the stack.
    fn value(&mut self) -> Result<(), CanonicalError> {
        loop {
            self.blank();
            match self.peek() {
                Some(b'{') => {
                    self.enter(Open::Object(self.keys.len()))?;
                    self.blank();
                    if self.peek() != Some(b'}') {
                        self.key()?;
                        continue;
                    }
                }
                Some(b'[') => {
                    self.enter(Open::Array)?;
                    self.blank();
                    if self.peek() != Some(b']') {
                        continue;
                    }
                }
                Some(b'"') => {
                    let text = self.string()?;
                    self.sink.text(&text);
                }
                Some(b'-' | b'0'..=b'9') => self.number()?,
                Some(b't') => self.word("true", Some(true))?,
                Some(b'f') => self.word("false", Some(false))?,
                Some(b'n') => self.word("null", None)?,
                _ => return Err(self.expected("a value")),
            }
            if self.after()? {
                return Ok(());
            }
        }
    }

    fn enter(&mut self, open: Open) -> Result<(), CanonicalError> {
        if self.open.len() >= self.limits.depth {
            return Err(CanonicalError::TooDeep { at: self.at, limit: self.limits.depth });
        }
        self.at += 1;
        self.open.push(open);
        self.sink.begin(match open {
            Open::Array => Kind::Array,
            Open::Object(_) => Kind::Object,
        });
        Ok(())
    }

    /// Ends what ends after a value; says whether that was all, and otherwise stands where the next value begins.
    fn after(&mut self) -> Result<bool, CanonicalError> {
        loop {
            self.blank();
            match (self.open.last().copied(), self.peek()) {
                (None, _) => return Ok(true),
                (Some(Open::Array), Some(b']')) => {
                    self.at += 1;
                    self.open.pop();
                    self.sink.end();
                }
                (Some(Open::Object(first)), Some(b'}')) => {
                    self.at += 1;
                    self.open.pop();
                    self.single(first)?;
                    self.keys.truncate(first);
                    self.sink.end();
                }
                (Some(Open::Array), Some(b',')) => {
                    self.at += 1;
                    return Ok(false);
                }
                (Some(Open::Object(_)), Some(b',')) => {
                    self.at += 1;
                    self.blank();
                    self.key()?;
                    return Ok(false);
                }
                (Some(_), _) => return Err(self.expected("a comma, or the end of the object or array")),
            }
        }
    }

    fn key(&mut self) -> Result<(), CanonicalError> {
        if self.peek() != Some(b'"') {
            return Err(self.expected("a key"));
        }
        let key = self.string()?;
        self.sink.text(&key);
        self.keys.push(key);
        self.blank();
        self.take(b':', "a colon")
    }

    /// No key from `first` on is there twice.
    fn single(&mut self, first: usize) -> Result<(), CanonicalError> {
        let keys = &mut self.keys[first..];
        let twice = match keys.len() <= FEW {
            true => (1..keys.len()).find(|&i| keys[..i].contains(&keys[i])),
            false => {
                keys.sort_unstable();
                (1..keys.len()).find(|&i| keys[i - 1] == keys[i])
            }
        };
        match twice {
            Some(index) => Err(CanonicalError::Duplicate { key: keys[index].to_string() }),
            None => Ok(()),
        }
    }

    /// A string, decoded only if it has escapes.
    fn string(&mut self) -> Result<Cow<'t, str>, CanonicalError> {
        self.at += 1;
        let begin = self.at;
        let mut decoded: Option<String> = None;
        let mut plain = begin;
        loop {
            self.at += plain_run(&self.bytes()[self.at..]);
            match self.peek() {
                Some(b'"') => {
                    let rest = &self.text[plain..self.at];
                    self.at += 1;
                    return Ok(match decoded {
                        Some(decoded) => Cow::Owned(decoded + rest),
                        None => Cow::Borrowed(rest),
                    });
                }
                Some(b'\\') => {
                    let so_far = decoded.get_or_insert_default();
                    so_far.push_str(&self.text[plain..self.at]);
                    let character = self.escape()?;
                    decoded.get_or_insert_default().push(character);
                    plain = self.at;
                }
                Some(_) => return Err(self.expected("an escape for a control character")),
                None => return Err(self.expected("the end of the string")),
            }
        }
    }

    fn escape(&mut self) -> Result<char, CanonicalError> {
        self.at += 1;
        let character = match self.peek() {
            Some(byte @ (b'"' | b'\\' | b'/')) => char::from(byte),
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                self.at += 1;
                return self.utf16();
            }
            _ => return Err(self.expected("an escape")),
        };
        self.at += 1;
        Ok(character)
    }

    /// The digits after `\u`, and those of the other half of a surrogate pair: half a pair is no character.
    fn utf16(&mut self) -> Result<char, CanonicalError> {
        let first = self.four()?;
        let code = match first {
            0xd800..0xdc00 => {
                self.take(b'\\', "the second half of a surrogate pair")?;
                self.take(b'u', "the second half of a surrogate pair")?;
                match self.four()? {
                    second @ 0xdc00..0xe000 => 0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00),
                    _ => return Err(self.expected("the second half of a surrogate pair")),
                }
            }
            code => code,
        };
        char::from_u32(code).ok_or_else(|| self.expected("a surrogate pair"))
    }

    fn four(&mut self) -> Result<u32, CanonicalError> {
        let mut code = 0;
        for _ in 0..4 {
            let digit = self.peek().and_then(|byte| char::from(byte).to_digit(16));
            code = code * 16 + digit.ok_or_else(|| self.expected("four hexadecimal digits"))?;
            self.at += 1;
        }
        Ok(code)
    }

    fn digits(&mut self) -> Result<(), CanonicalError> {
        if !matches!(self.peek(), Some(b'0'..=b'9')) {
            return Err(self.expected("a digit"));
        }
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        Ok(())
    }

    fn number(&mut self) -> Result<(), CanonicalError> {
        let begin = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        match self.peek() {
            Some(b'0') => self.at += 1,
            _ => self.digits()?,
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        self.sink.number(&self.text[begin..self.at]);
        Ok(())
    }

    fn word(&mut self, word: &'static str, value: Option<bool>) -> Result<(), CanonicalError> {
        match self.text[self.at..].starts_with(word) {
            true => {
                self.at += word.len();
                self.sink.word(value);
                Ok(())
            }
            false => Err(self.expected(word)),
        }
    }
}

/// How many bytes of a string come before its end, an escape or a control character. Eight at a time: of each byte of a word,
/// whether it is zero or below a bound is found by a borrow (H. Warren, Hacker's Delight, 6-1); one too many is only ever found
/// above the first, which alone is looked at.
fn plain_run(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::from_le_bytes([1; 8]);
    const HIGH: u64 = u64::from_le_bytes([0x80; 8]);
    let below = |word: u64, bound: u8| word.wrapping_sub(ONES * u64::from(bound)) & !word & HIGH;
    let mut at = 0;
    while let Some(eight) = bytes[at..].first_chunk::<8>() {
        let word = u64::from_le_bytes(*eight);
        let is = |byte: u8| below(word ^ (ONES * u64::from(byte)), 1);
        let found = is(b'"') | is(b'\\') | below(word, 0x20);
        if found != 0 {
            return at + found.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    at + bytes[at..].iter().position(|byte| matches!(byte, b'"' | b'\\' | ..0x20)).unwrap_or(bytes.len() - at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    const LIMITS: Limits = Limits { bytes: 1000, depth: 4 };

    fn checked(text: &str) -> Result<(), CanonicalError> {
        check(text.as_bytes(), LIMITS, &mut ())
    }

    #[test]
    fn json_is_taken_with_blanks_escapes_and_every_number() {
        for good in [
            "{}",
            "[]",
            " [ ] ",
            "0",
            "-0.5e+3",
            "1E9",
            "\"\"",
            r#""\ud83d\ude00\u0000\/\b""#,
            "[1,2,[3,{}]]",
            "{\"a\":{\"a\":1},\"b\":[{\"a\":1},{\"a\":2}]}",
            "\ttrue\n",
        ] {
            assert!(checked(good).is_ok(), "{good}");
        }
    }

    #[test]
    fn what_is_no_json_is_refused() {
        for bad in [
            "",
            " ",
            "{",
            "[",
            "[1",
            "[1,]",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "{a:1}",
            "{'a':1}",
            "01",
            "1.",
            ".5",
            "+1",
            "1e",
            "-",
            "nul",
            "truex",
            "[1 2]",
            "[1}",
            "{\"a\":1]",
            "1 2",
            "\"\n\"",
            r#""\x""#,
            r#""\u12g4""#,
            r#""\ud83d""#,
            r#""\ud83dx""#,
            r#""\ud83d\u0020""#,
            r#""\ude00""#,
            "\"",
            "\u{feff}{}",
            "NaN",
            "Infinity",
            "//\n1",
        ] {
            assert!(matches!(checked(bad), Err(CanonicalError::Syntax { .. })), "{bad:?}");
        }
        assert!(matches!(check(b"\"\xff\"", LIMITS, &mut ()), Err(CanonicalError::NotUtf8 { at: 1 })));
    }

    #[test]
    fn a_key_twice_in_one_object_is_refused_however_it_is_spelled() {
        let many: String = (0..20).map(|n| format!("\"k{n}\":0,")).collect();
        for bad in [
            r#"{"a":1,"a":1}"#.to_owned(),
            r#"[{"b":{"a":1,"\u0061":2}}]"#.to_owned(),
            r#"{"a":1,"b":{"a":1},"a":2}"#.to_owned(),
            format!("{{{many}\"k7\":1}}"),
        ] {
            assert!(matches!(checked(&bad), Err(CanonicalError::Duplicate { .. })), "{bad}");
        }
        assert!(checked(&format!("{{{many}\"k20\":1}}")).is_ok());
    }

    #[test]
    fn depth_and_length_have_limits() {
        assert!(checked("[[[[]]]]").is_ok());
        assert!(matches!(checked("[[[[[]]]]]"), Err(CanonicalError::TooDeep { at: 4, limit: 4 })));
        assert!(matches!(checked(&"{\"a\":".repeat(100)), Err(CanonicalError::TooDeep { .. })));
        assert!(checked(&" ".repeat(999).replacen(' ', "1 ", 1)).is_ok());
        assert!(matches!(checked(&" ".repeat(1001)), Err(CanonicalError::TooLong { found: 1001, limit: 1000 })));
    }

    #[test]
    fn a_run_ends_at_the_first_byte_that_a_string_cannot_just_hold() {
        let ends = |byte: u8| matches!(byte, b'"' | b'\\' | ..0x20);
        for length in 0..20 {
            for at in 0..length {
                for byte in 0..=255 {
                    // What follows must not matter, nor what a borrow of the byte before could make of it.
                    for after in [b'a', b'!', b' ', 0xff, 0x80] {
                        let mut bytes = vec![b'a'; length];
                        bytes[at] = byte;
                        bytes[at + 1..].fill(after);
                        let expected = if ends(byte) { at } else { length };
                        assert_eq!(plain_run(&bytes), expected, "{bytes:?}");
                    }
                }
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_taken_other_readers_take(text in r#"[\[\]{}:,"a\\u0-9.e \-]{0,24}"#) {
            if checked(&text).is_ok() {
                prop_assert!(serde_json::from_str::<Value>(&text).is_ok(), "{}", text);
            }
        }
    }
}
