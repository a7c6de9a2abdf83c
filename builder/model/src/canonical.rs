//! JSON whose bytes are signed: RFC 8785 out, strict JSON in.
//!
//! Equal values have equal bytes ([`print()`]); what would not survive another reader (a float, an integer beyond 2^53) is refused
//! when writing. [`check`] is one pass over the bytes, made before anything is built from them: UTF-8, the grammar, sizes and
//! depth, and no key twice in an object, because readers disagree on which of the two counts. Knows nothing of what is signed.

mod check;
mod document;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

pub(crate) use document::{Document, Item, Text};

/// From here on a double no longer has every integer, and other readers have doubles.
const TOO_LARGE: u64 = 1 << 53;

/// What a reader takes before it looks closer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes in all.
    pub bytes: usize,
    /// Objects and arrays in each other.
    pub depth: usize,
}

impl Limits {
    /// Of an envelope, and of what is in it.
    pub const ENVELOPE: Self = Self { bytes: 4 << 20, depth: 64 };
}

/// Why JSON is not taken, or not written.
#[derive(Debug, thiserror::Error)]
pub enum CanonicalError {
    /// Longer than the limit.
    #[error("{found} bytes of JSON: at most {limit} are read")]
    TooLong {
        /// How long it is.
        found: usize,
        /// How long it may be.
        limit: usize,
    },
    /// Nested deeper than the limit.
    #[error("JSON is nested deeper than {limit} levels at byte {at}")]
    TooDeep {
        /// Where.
        at: usize,
        /// How deep it may be.
        limit: usize,
    },
    /// Not UTF-8.
    #[error("JSON is not UTF-8 at byte {at}")]
    NotUtf8 {
        /// Where.
        at: usize,
    },
    /// Not JSON.
    #[error("not JSON at byte {at}: expected {expected}")]
    Syntax {
        /// Where.
        at: usize,
        /// What should be there.
        expected: &'static str,
    },
    /// One key twice in an object: readers disagree on which of them counts.
    #[error("key {key:?} is twice in one object")]
    Duplicate {
        /// The key.
        key: String,
    },
    /// JSON that says something else than expected.
    #[error("JSON has not the expected form")]
    Form {
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// A value that has no canonical form.
    #[error("{number} is no integer that every reader has: write it as a string")]
    Number {
        /// The value.
        number: String,
    },
}

/// The canonical bytes of `value`, without a final newline.
pub fn print<T: Serialize>(value: &T) -> Result<Vec<u8>, CanonicalError> {
    let value = serde_json::to_value(value).map_err(|source| CanonicalError::Form { source })?;
    let mut out = Vec::new();
    write(&value, &mut out)?;
    Ok(out)
}

/// Checks that `bytes` are one JSON value within `limits`, with no key twice in an object.
pub fn check(bytes: &[u8], limits: Limits) -> Result<(), CanonicalError> {
    check::check(bytes, limits, &mut ())
}

/// What `bytes` say, after [`check`].
pub fn parse<T: DeserializeOwned>(bytes: &[u8], limits: Limits) -> Result<T, CanonicalError> {
    check(bytes, limits)?;
    serde_json::from_slice(bytes).map_err(|source| CanonicalError::Form { source })
}

fn write(value: &Value, out: &mut Vec<u8>) -> Result<(), CanonicalError> {
    match value {
        Value::Null => out.extend(b"null"),
        Value::Bool(true) => out.extend(b"true"),
        Value::Bool(false) => out.extend(b"false"),
        Value::Number(number) => {
            let magnitude = number.as_u64().or_else(|| number.as_i64().map(i64::unsigned_abs));
            if magnitude.is_none_or(|magnitude| magnitude >= TOO_LARGE) {
                return Err(CanonicalError::Number { number: number.to_string() });
            }
            out.extend(number.to_string().bytes());
        }
        Value::String(text) => string(text, out),
        Value::Array(items) => {
            out.push(b'[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write(item, out)?;
            }
            out.push(b']');
        }
        Value::Object(members) => {
            // RFC 8785, 3.2.3: by UTF-16 units, which is another order than that of UTF-8 bytes beyond U+FFFF.
            let mut sorted: Vec<_> = members.iter().collect();
            sorted.sort_by(|(a, _), (b, _)| a.encode_utf16().cmp(b.encode_utf16()));
            out.push(b'{');
            for (index, (key, item)) in sorted.into_iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                string(key, out);
                out.push(b':');
                write(item, out)?;
            }
            out.push(b'}');
        }
    }
    Ok(())
}

/// RFC 8785, 3.2.2.2: the two-letter escapes where there is one, `\u00xx` in lower case for other controls, all else as it is.
fn string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    for byte in text.bytes() {
        match byte {
            b'"' => out.extend(b"\\\""),
            b'\\' => out.extend(b"\\\\"),
            0x08 => out.extend(b"\\b"),
            0x09 => out.extend(b"\\t"),
            0x0a => out.extend(b"\\n"),
            0x0c => out.extend(b"\\f"),
            0x0d => out.extend(b"\\r"),
            0x00..0x20 => out.extend(format!("\\u{byte:04x}").bytes()),
            _ => out.push(byte),
        }
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn printed(value: &Value) -> String {
        String::from_utf8(print(value).unwrap()).unwrap()
    }

    #[test]
    fn the_examples_of_rfc_8785_come_out_as_printed_there() {
        // 3.2.3, without the numbers that we never write.
        let sorted = json!({"\u{20ac}": "Euro Sign", "\r": "Carriage Return", "\u{fb33}": "Hebrew Letter Dalet With Dagesh",
            "1": "One", "\u{1f600}": "Emoji: Grinning Face", "\u{80}": "Control", "\u{f6}": "Latin Small Letter O With Diaeresis"});
        assert_eq!(
            printed(&sorted),
            "{\"\\r\":\"Carriage Return\",\"1\":\"One\",\"\u{80}\":\"Control\",\"ö\":\"Latin Small Letter O With Diaeresis\",\
             \"€\":\"Euro Sign\",\"😀\":\"Emoji: Grinning Face\",\"\u{fb33}\":\"Hebrew Letter Dalet With Dagesh\"}"
        );
        // 3.2.2.2.
        assert_eq!(printed(&json!("\u{20ac}$\u{f}\u{a}A'\u{42}\u{22}\u{5c}\\\"/")), r#""€$\u000f\nA'B\"\\\\\"/""#);
        assert_eq!(
            printed(&json!({"literals": [null, true, false], "a": []})),
            r#"{"a":[],"literals":[null,true,false]}"#
        );
    }

    #[test]
    fn numbers_that_another_reader_would_change_are_not_written() {
        assert_eq!(
            printed(&json!([0, -1, 9_007_199_254_740_991_i64, -9_007_199_254_740_991_i64])),
            "[0,-1,9007199254740991,-9007199254740991]"
        );
        for bad in
            [json!(1.0), json!(0.5), json!(1_u64 << 53), json!(-(1_i64 << 53)), json!(u64::MAX), json!({"a": [1e300]})]
        {
            assert!(matches!(print(&bad), Err(CanonicalError::Number { .. })), "{bad}");
        }
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            (-(1_i64 << 53) + 1..1 << 53).prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(6, 40, 6, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                proptest::collection::btree_map(any::<String>(), inner, 0..6)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_printed_is_taken_and_parses_back(value in any_value()) {
            let bytes = print(&value).unwrap();
            prop_assert_eq!(parse::<Value>(&bytes, Limits::ENVELOPE).unwrap(), value);
        }
    }
}
