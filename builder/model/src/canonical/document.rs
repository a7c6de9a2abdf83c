//! JSON that was checked and read in one pass: a flat list of what stands there, borrowed from the text.
//!
//! [`Document::read`] refuses what [`super::check`] refuses, by the same code. What it holds is then read with `serde` as often
//! and as far as need be ([`Document::root`]), without looking at the text again. Stricter than `serde_json` in one thing: an
//! array is never taken for an object.

use std::borrow::Cow;
use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{
    self, Deserialize, DeserializeSeed, Deserializer, Error as _, IntoDeserializer as _, MapAccess, SeqAccess,
    Unexpected, Visitor,
};

use super::check::{self, Kind, Sink};
use super::{CanonicalError, Limits};

/// Bytes of JSON for each node, about, in what is signed: room is made for so many at once.
const BYTES_PER_NODE: usize = 10;

/// What a text says.
#[derive(Debug)]
pub(crate) struct Document<'t> {
    nodes: Vec<Node<'t>>,
    /// Objects and arrays whose end was not seen yet.
    open: Vec<u32>,
}

#[derive(Debug)]
enum Node<'t> {
    Word(Option<bool>),
    Number(&'t str),
    Text(Cow<'t, str>),
    /// And where the node after its last value is.
    Array(u32),
    /// Keys and values in turn, and where the node after the last is.
    Object(u32),
}

/// One value of a document.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Item<'d, 't> {
    nodes: &'d [Node<'t>],
    at: usize,
}

impl<'t> Document<'t> {
    /// Reads `bytes`, if they are one JSON value within `limits` with no key twice in an object.
    pub(crate) fn read(bytes: &'t [u8], limits: Limits) -> Result<Self, CanonicalError> {
        let room = bytes.len().min(limits.bytes) / BYTES_PER_NODE;
        let mut document = Self { nodes: Vec::with_capacity(room), open: Vec::new() };
        check::check(bytes, limits, &mut document)?;
        Ok(document)
    }

    /// All of it.
    pub(crate) fn root(&self) -> Item<'_, 't> {
        Item { nodes: &self.nodes, at: 0 }
    }

    fn place(&self) -> u32 {
        u32::try_from(self.nodes.len()).expect("limits are far below 2^32 bytes, and no node is shorter than one")
    }
}

impl<'t> Sink<'t> for Document<'t> {
    fn begin(&mut self, kind: Kind) {
        self.open.push(self.place());
        self.nodes.push(match kind {
            Kind::Array => Node::Array(0),
            Kind::Object => Node::Object(0),
        });
    }

    fn end(&mut self) {
        let place = self.place();
        let first = self.open.pop().expect("what ends has begun");
        if let Node::Array(end) | Node::Object(end) = &mut self.nodes[first as usize] {
            *end = place;
        }
    }

    fn text(&mut self, text: &Cow<'t, str>) {
        self.nodes.push(Node::Text(text.clone()));
    }

    fn number(&mut self, spelled: &'t str) {
        self.nodes.push(Node::Number(spelled));
    }

    fn word(&mut self, word: Option<bool>) {
        self.nodes.push(Node::Word(word));
    }
}

impl<'d, 't> Item<'d, 't> {
    fn node(&self) -> &'d Node<'t> {
        &self.nodes[self.at]
    }

    /// Where the next value is.
    fn after(&self) -> usize {
        match self.node() {
            Node::Array(end) | Node::Object(end) => *end as usize,
            Node::Word(_) | Node::Number(_) | Node::Text(_) => self.at + 1,
        }
    }

    /// The value of this key, if it is an object that has it.
    pub(crate) fn member(self, key: &str) -> Option<Self> {
        self.members().find(|(name, _)| *name == key).map(|(_, value)| value)
    }

    /// Keys and values, if it is an object; else nothing.
    pub(crate) fn members(self) -> Members<'d, 't> {
        let end = if let Node::Object(end) = self.node() { *end as usize } else { self.at };
        Members { nodes: self.nodes, at: self.at + 1, end }
    }

    /// The text, if it is one.
    pub(crate) fn text(self) -> Option<&'d str> {
        if let Node::Text(text) = self.node() { Some(text) } else { None }
    }

    /// What it is in Rust.
    pub(crate) fn read<T: Deserialize<'t>>(self) -> Result<T, CanonicalError> {
        T::deserialize(self).map_err(|source| CanonicalError::Form { source })
    }

    fn unexpected(&self) -> Unexpected<'d> {
        match self.node() {
            Node::Word(None) => Unexpected::Unit,
            Node::Word(Some(word)) => Unexpected::Bool(*word),
            Node::Number(_) => Unexpected::Other("number"),
            Node::Text(text) => Unexpected::Str(text),
            Node::Array(_) => Unexpected::Seq,
            Node::Object(_) => Unexpected::Map,
        }
    }
}

/// Keys and values of an object, in their order.
#[derive(Debug, Clone)]
pub(crate) struct Members<'d, 't> {
    nodes: &'d [Node<'t>],
    at: usize,
    end: usize,
}

impl<'d, 't> Iterator for Members<'d, 't> {
    type Item = (&'d str, Item<'d, 't>);

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.end {
            return None;
        }
        let key = Item { nodes: self.nodes, at: self.at }.text().expect("keys are texts");
        let value = Item { nodes: self.nodes, at: self.at + 1 };
        self.at = value.after();
        Some((key, value))
    }
}

impl<'de> Deserializer<'de> for Item<'_, 'de> {
    type Error = serde_json::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        match self.node() {
            Node::Word(None) => visitor.visit_unit(),
            Node::Word(Some(word)) => visitor.visit_bool(*word),
            Node::Number(spelled) => serde_json::from_str::<serde_json::Number>(spelled)?.deserialize_any(visitor),
            Node::Text(Cow::Borrowed(text)) => visitor.visit_borrowed_str(text),
            Node::Text(Cow::Owned(text)) => visitor.visit_str(text),
            Node::Array(_) => {
                let mut rest = Rest::of(self);
                let value = visitor.visit_seq(&mut rest)?;
                rest.ended()?;
                Ok(value)
            }
            Node::Object(_) => {
                let mut rest = Rest::of(self);
                let value = visitor.visit_map(&mut rest)?;
                rest.ended()?;
                Ok(value)
            }
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        if let Node::Word(None) = self.node() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        if let Node::Object(_) = self.node() {
            return self.deserialize_any(visitor);
        }
        Err(Self::Error::invalid_type(self.unexpected(), &visitor))
    }

    /// Only of variants without data: no format that is read so has others.
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        let Some(text) = self.text() else { return Err(Self::Error::invalid_type(self.unexpected(), &visitor)) };
        let text: StrDeserializer<'_, Self::Error> = text.into_deserializer();
        visitor.visit_enum(text)
    }

    /// Checked already, and not looked at again.
    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        visitor.visit_unit()
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string
        bytes byte_buf unit unit_struct seq tuple tuple_struct map identifier
    }
}

/// What follows in an object or array.
struct Rest<'d, 't> {
    next: Item<'d, 't>,
    end: usize,
}

impl<'d, 't> Rest<'d, 't> {
    fn of(item: Item<'d, 't>) -> Self {
        Self { end: item.after(), next: Item { at: item.at + 1, ..item } }
    }

    fn take(&mut self) -> Option<Item<'d, 't>> {
        let item = Some(self.next).filter(|item| item.at < self.end)?;
        self.next.at = item.after();
        Some(item)
    }

    /// Whoever wants fewer values than there are wants others.
    fn ended(&self) -> Result<(), serde_json::Error> {
        match self.next.at < self.end {
            true => Err(serde_json::Error::custom("more values than expected")),
            false => Ok(()),
        }
    }
}

impl<'t> SeqAccess<'t> for &mut Rest<'_, 't> {
    type Error = serde_json::Error;

    fn next_element_seed<T: DeserializeSeed<'t>>(&mut self, seed: T) -> Result<Option<T::Value>, Self::Error> {
        self.take().map(|item| seed.deserialize(item)).transpose()
    }
}

impl<'t> MapAccess<'t> for &mut Rest<'_, 't> {
    type Error = serde_json::Error;

    fn next_key_seed<K: DeserializeSeed<'t>>(&mut self, seed: K) -> Result<Option<K::Value>, Self::Error> {
        self.take().map(|item| seed.deserialize(item)).transpose()
    }

    fn next_value_seed<V: DeserializeSeed<'t>>(&mut self, seed: V) -> Result<V::Value, Self::Error> {
        seed.deserialize(self.take().expect("after each key there is a value"))
    }
}

/// A text, borrowed where it has no escapes. (In an `Option`, `serde` would copy a `Cow`.)
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Text<'t>(Cow<'t, str>);

impl std::ops::Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl<'de: 't, 't> Deserialize<'de> for Text<'t> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Borrow;
        impl<'de> Visitor<'de> for Borrow {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(Borrow)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde::Deserialize;
    use serde_json::{Value, json};

    use super::*;

    fn read(text: &str) -> Document<'_> {
        Document::read(text.as_bytes(), Limits::ENVELOPE).unwrap()
    }

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(rename_all = "lowercase")]
    enum Side {
        Left,
    }

    #[derive(Debug, Deserialize, PartialEq)]
    struct Form<'t> {
        #[serde(borrow)]
        name: Text<'t>,
        #[serde(borrow, default)]
        note: Option<Text<'t>>,
        #[serde(default)]
        side: Option<Side>,
        #[serde(default)]
        pair: Option<(u8, i64)>,
    }

    #[test]
    fn members_are_found_and_read_without_copies() {
        let text = r#"{"x":[{"name":1},[]],"form":{"name":"n","note":"a\nb","side":"left","pair":[1,-2],"more":[{}]}}"#;
        let document = read(text);
        let form = document.root().member("form").unwrap();
        let read: Form<'_> = form.read().unwrap();
        assert_eq!((read.side, read.pair), (Some(Side::Left), Some((1, -2))));
        assert!(matches!((&read.name.0, &read.note.unwrap().0), (Cow::Borrowed("n"), Cow::Owned(b)) if b == "a\nb"));
        assert_eq!(form.member("name").and_then(Item::text), Some("n"));
        assert!(form.member("name").unwrap().member("name").is_none() && document.root().member("name").is_none());
        let keys: Vec<&str> = form.members().map(|(key, _)| key).collect();
        assert_eq!(keys, ["name", "note", "side", "pair", "more"]);
    }

    #[test]
    fn another_form_is_refused() {
        for bad in [
            r#"{}"#,
            r#"["n"]"#,
            r#"{"name":null}"#,
            r#"{"name":"n","side":"up"}"#,
            r#"{"name":"n","side":{"left":null}}"#,
            r#"{"name":"n","pair":[1]}"#,
            r#"{"name":"n","pair":[1,2,3]}"#,
            r#"{"name":"n","pair":[256,2]}"#,
            r#"{"name":"n","pair":[1,1e999]}"#,
        ] {
            let refused = read(bad).root().read::<Form<'_>>();
            assert!(matches!(refused, Err(CanonicalError::Form { .. })), "{bad}: {refused:?}");
        }
    }

    #[test]
    fn what_a_check_refuses_is_not_read() {
        for bad in ["", "{", "{\"a\":1,\"\\u0061\":2}", "[{\"b\":{\"a\":1,\"a\":2}}]", "1 2", "\"\u{1}\""] {
            assert!(Document::read(bad.as_bytes(), Limits::ENVELOPE).is_err(), "{bad:?}");
        }
        let deep = |levels| "[".repeat(levels) + &"]".repeat(levels);
        assert!(Document::read(deep(64).as_bytes(), Limits::ENVELOPE).is_ok());
        assert!(matches!(Document::read(deep(65).as_bytes(), Limits::ENVELOPE), Err(CanonicalError::TooDeep { .. })));
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            (-1e300..1e300).prop_map(|f: f64| json!(f)),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(5, 40, 6, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                proptest::collection::btree_map(any::<String>(), inner, 0..12)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_read_is_what_another_reader_reads(value in any_value()) {
            for text in [value.to_string(), serde_json::to_string_pretty(&value).unwrap()] {
                let theirs: Value = serde_json::from_str(&text).unwrap();
                prop_assert_eq!(read(&text).root().read::<Value>().unwrap(), theirs);
            }
        }

        #[test]
        fn whatever_is_taken_says_the_same_to_both(text in r#"[\[\]{}:,"a\\u0-9.e \-]{0,24}"#) {
            if let Ok(document) = Document::read(text.as_bytes(), Limits::ENVELOPE) {
                let theirs = serde_json::from_str::<Value>(&text);
                prop_assert_eq!(document.root().read::<Value>().ok(), theirs.ok(), "{}", text);
            }
        }

        #[test]
        fn maps_are_read_whole(map in proptest::collection::btree_map(any::<String>(), any::<u32>(), 0..20)) {
            let text = json!(map).to_string();
            prop_assert_eq!(read(&text).root().read::<BTreeMap<String, u32>>().unwrap(), map);
        }
    }
}
