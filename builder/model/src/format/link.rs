//! in-toto's links as they were before DSSE: what rebuilderd signs of a good rebuild.
//!
//! `{"signatures": [{"keyid", "sig"}], "signed": {"_type": "link", "products": …}}`, signed over the canonical JSON of `signed`
//! (in-toto-rs, `interchange/cjson`: keys sorted, escapes as JSON has them), which for what links hold is RFC 8785's. A link
//! that another canonical form would spell differently has no signature that holds. Nothing is verified here.

use std::collections::{BTreeMap, BTreeSet};

use data_encoding::HEXLOWER_PERMISSIVE;
use serde::Deserialize;
use serde_json::Value;

use crate::canonical::{self, CanonicalError, Document, Item, Limits};
use crate::envelope::SIGNATURES;
use crate::statement::{DigestSet, DigestSetError};

/// Files of one link: a package has few.
const MOST_PRODUCTS: usize = 1024;

/// A link, none of whose signatures is verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// What the step is called: `rebuild FILE`.
    pub name: String,
    /// What was made, by name; each has a SHA-256.
    pub products: BTreeMap<String, DigestSet>,
    /// By whom, as it is said, and the bytes.
    pub signatures: Vec<(String, Vec<u8>)>,
    /// What was signed.
    pub signed: Vec<u8>,
}

/// Why a text is no link.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// Not strict JSON, or of another form.
    #[error("reading an in-toto link")]
    Json {
        /// What is wrong.
        #[source]
        source: CanonicalError,
    },
    /// Another `_type`.
    #[error("_type of what is signed is {found:?}: expected \"link\"")]
    Type {
        /// What stands there.
        found: String,
    },
    /// Too many or too few of something.
    #[error("{field} of a link: {found} of them, expected {expected}")]
    Count {
        /// Of what.
        field: &'static str,
        /// How many there are.
        found: usize,
        /// How many there may be.
        expected: &'static str,
    },
    /// Two signatures with one keyid.
    #[error("two signatures of a link have the keyid {keyid}")]
    SameKey {
        /// The id.
        keyid: String,
    },
    /// A signature that is none.
    #[error("sig of a link: expected hexadecimal digits")]
    Hex,
    /// A product without a digest that can be relied on.
    #[error("product {name:?} of a link has no sha256: other algorithms alone are not relied on")]
    NoSha256 {
        /// Its name.
        name: String,
    },
    /// A digest that is none.
    #[error("product {name:?} of a link")]
    Digest {
        /// Its name.
        name: String,
        /// What is wrong.
        #[source]
        source: DigestSetError,
    },
}

#[derive(Deserialize)]
struct Signed {
    #[serde(rename = "_type")]
    kind: String,
    #[serde(default)]
    name: String,
    products: BTreeMap<String, DigestSet>,
}

#[derive(Deserialize)]
struct Signature {
    keyid: String,
    sig: String,
}

impl Link {
    /// Whether `bytes` are meant for a link, and not for an envelope.
    pub fn is_meant(bytes: &[u8]) -> bool {
        memchr::memmem::find(bytes, b"\"signed\"").is_some()
            && Document::read(bytes, Limits::ENVELOPE).is_ok_and(|document| {
                let has = |name| document.root().member(name).is_some();
                has("signed") && has("signatures") && !has("payload")
            })
    }

    /// Reads a link.
    pub fn parse(bytes: &[u8]) -> Result<Self, LinkError> {
        let wrong = |source| LinkError::Json { source };
        let document = Document::read(bytes, Limits::ENVELOPE).map_err(wrong)?;
        let member = |name: &'static str| {
            let source = serde::de::Error::missing_field(name);
            document.root().member(name).ok_or(LinkError::Json { source: CanonicalError::Form { source } })
        };
        let whole: Item<'_, '_> = member("signed")?;
        let signed: Signed = whole.read().map_err(wrong)?;
        if signed.kind != "link" {
            return Err(LinkError::Type { found: signed.kind });
        }
        if !(1..=MOST_PRODUCTS).contains(&signed.products.len()) {
            let found = signed.products.len();
            return Err(LinkError::Count { field: "products", found, expected: "1 to 1024" });
        }
        for (name, digests) in &signed.products {
            digests.sound().map_err(|source| LinkError::Digest { name: name.clone(), source })?;
            if digests.sha256().is_none() {
                return Err(LinkError::NoSha256 { name: name.clone() });
            }
        }
        let spelled: Vec<Signature> = member("signatures")?.read().map_err(wrong)?;
        if !(1..=SIGNATURES).contains(&spelled.len()) {
            return Err(LinkError::Count { field: "signatures", found: spelled.len(), expected: "1 to 16" });
        }
        let mut ids = BTreeSet::new();
        let mut signatures = Vec::with_capacity(spelled.len());
        for Signature { keyid, sig } in spelled {
            let sig = HEXLOWER_PERMISSIVE.decode(sig.as_bytes()).map_err(|_| LinkError::Hex)?;
            if !ids.insert(keyid.clone()) {
                return Err(LinkError::SameKey { keyid });
            }
            signatures.push((keyid, sig));
        }
        let whole: Value = whole.read().map_err(wrong)?;
        let bytes = canonical::print(&whole).map_err(wrong)?;
        Ok(Self { name: signed.name, products: signed.products, signatures, signed: bytes })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn link() -> Value {
        json!({
            "signatures": [{ "keyid": "a", "sig": "00ff" }, { "keyid": "b", "sig": "AB" }],
            "signed": {
                "_type": "link", "name": "rebuild x_1_amd64.deb", "materials": {}, "environment": null, "byproducts": {},
                "command": [], "products": { "x_1_amd64.deb": { "sha256": "1".repeat(64), "sha512": "2".repeat(128) } },
            },
        })
    }

    #[test]
    fn what_is_signed_is_canonical_whatever_the_file_looks_like() {
        let plain = Link::parse(link().to_string().as_bytes()).unwrap();
        let pretty = serde_json::to_string_pretty(&link()).unwrap();
        assert!(Link::is_meant(pretty.as_bytes()));
        assert_eq!(Link::parse(pretty.as_bytes()).unwrap(), plain);
        let signed = String::from_utf8(plain.signed).unwrap();
        assert!(
            signed.starts_with(r#"{"_type":"link","byproducts":{},"command":[],"environment":null,"materials":{}"#)
        );
        assert_eq!(plain.signatures[1], ("b".to_owned(), vec![0xab]));
    }

    #[test]
    fn what_says_too_little_or_two_things_is_refused() {
        let refused = |change: &dyn Fn(&mut Value)| {
            let mut link = link();
            change(&mut link);
            Link::parse(link.to_string().as_bytes()).unwrap_err()
        };
        assert!(matches!(refused(&|l| l["signed"]["_type"] = "layout".into()), LinkError::Type { .. }));
        assert!(matches!(refused(&|l| l["signed"]["products"] = json!({})), LinkError::Count { .. }));
        assert!(matches!(refused(&|l| l["signatures"] = json!([])), LinkError::Count { .. }));
        assert!(matches!(refused(&|l| l["signatures"][1]["keyid"] = "a".into()), LinkError::SameKey { .. }));
        assert!(matches!(refused(&|l| l["signatures"][1]["sig"] = "xy".into()), LinkError::Hex));
        let product =
            |digests: Value| refused(&move |l: &mut Value| l["signed"]["products"]["x_1_amd64.deb"] = digests.clone());
        assert!(matches!(product(json!({"sha512": "2".repeat(128)})), LinkError::NoSha256 { .. }));
        assert!(matches!(product(json!({"sha256": "2"})), LinkError::Digest { .. }));
        let twice = link().to_string().replacen("\"products\":", "\"products\":{},\"products\":", 1);
        assert!(matches!(
            Link::parse(twice.as_bytes()),
            Err(LinkError::Json { source: CanonicalError::Duplicate { .. } })
        ));
    }
}
