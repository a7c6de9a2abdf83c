//! The digest of something after normalisers: of a file as it is, or of a container by what is left of its members.
//!
//! A container that holds something normalised has no bytes of its own any more; what is left of it is a list of fields, and
//! a field for each member with the digest of what is in it. The list is framed by lengths, so that no two lists have the
//! same bytes.

use crate::digest::Digest;

/// What is left of a container: named fields in their order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Node {
    bytes: Vec<u8>,
}

impl Node {
    /// A node of this sort: `deb`, `tar`, a normaliser's name.
    pub fn new(sort: &str) -> Self {
        let mut node = Self::default();
        node.field("normalised 1", sort);
        node
    }

    /// Adds a field.
    pub fn field(&mut self, name: &str, value: impl AsRef<[u8]>) {
        for part in [name.as_bytes(), value.as_ref()] {
            self.bytes.extend_from_slice(&(part.len() as u64).to_le_bytes());
            self.bytes.extend_from_slice(part);
        }
    }

    /// Adds what a member holds.
    pub fn holds(&mut self, digest: Digest) {
        self.field("holds", digest.as_bytes());
    }

    /// Its digest.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(fields: &[(&str, &str)]) -> Digest {
        let mut node = Node::new("tar");
        fields.iter().for_each(|(name, value)| node.field(name, value));
        node.digest()
    }

    #[test]
    fn no_two_lists_of_fields_have_one_digest() {
        let all = [
            digest(&[]),
            digest(&[("a", "b")]),
            digest(&[("ab", "")]),
            digest(&[("a", ""), ("b", "")]),
            digest(&[("a", "b"), ("a", "b")]),
            Node::new("zip").digest(),
        ];
        for (i, a) in all.iter().enumerate() {
            assert!(all.iter().skip(i + 1).all(|b| a != b));
        }
    }

    #[test]
    fn the_digest_does_not_move() {
        assert_eq!(
            digest(&[("name", "usr/bin/x")]).to_string(),
            "30a5b3acb43d31776f7dcceb204cc85dc72e2baefa8abdc6bb2eebd456d74b4e"
        );
    }
}
