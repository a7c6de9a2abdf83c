//! OpenVEX 0.2.0: somebody's word on whether a vulnerability matters in a product.
//!
//! Read, and written in one spelling (members sorted, two blanks to a level, a newline at the end). [`Document::excuse`] finds
//! what takes a vulnerability off a product: only `fixed`, or `not_affected` with one of the five justifications, of exactly
//! that version. Whose word it is, and whether that counts, the envelope and the policy say.
//! Reference: <https://github.com/openvex/spec>, OPENVEX-SPEC.md.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::purl::Purl;
use crate::canonical::{self, CanonicalError, Limits};
use crate::digest::Digest;
use crate::outcome::Moment;
use crate::sbom::document;

/// The version that kiln reads and writes.
pub const CONTEXT: &str = "https://openvex.dev/ns/v0.2.0";
/// More than any honest document has.
pub const LIMITS: Limits = Limits { bytes: 16 << 20, depth: 64 };

/// One document.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Document {
    /// [`CONTEXT`].
    #[serde(rename = "@context")]
    pub context: String,
    /// Its name, an address.
    #[serde(rename = "@id")]
    pub id: String,
    /// Whose word it is, in its own words.
    pub author: String,
    /// When it was written, RFC 3339.
    pub timestamp: String,
    /// Grows with each change.
    pub version: u64,
    /// What is said.
    pub statements: Vec<Statement>,
    /// What kiln does not read.
    #[serde(flatten)]
    pub other: BTreeMap<String, serde_json::Value>,
}

/// One statement.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Statement {
    /// Of which vulnerability.
    pub vulnerability: Vulnerability,
    /// In which products.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub products: Vec<Product>,
    /// Whether it matters.
    pub status: Status,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub justification: Option<Justification>,
    /// Why not, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub impact_statement: Option<String>,
    /// What kiln does not read.
    #[serde(flatten)]
    pub other: BTreeMap<String, serde_json::Value>,
}

/// A vulnerability.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Vulnerability {
    /// Its id.
    pub name: String,
    /// Other ids of the same.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
    /// What kiln does not read.
    #[serde(flatten)]
    pub other: BTreeMap<String, serde_json::Value>,
}

/// A product, or a component of one.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Product {
    /// Its name: a package URL, for kiln to know it by that.
    #[serde(rename = "@id", default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Digests of its bytes by algorithm: `sha-256`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub hashes: BTreeMap<String, String>,
    /// Other names by kind: `purl`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub identifiers: BTreeMap<String, String>,
    /// Parts that the statement is limited to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subcomponents: Vec<Product>,
}

/// Whether a vulnerability matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Not in this product; with a justification.
    NotAffected,
    /// It does.
    Affected,
    /// Not any more.
    Fixed,
    /// Nobody knows yet.
    UnderInvestigation,
}

/// Why a vulnerability does not matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Justification {
    /// The component is not there.
    ComponentNotPresent,
    /// The component is there without that code.
    VulnerableCodeNotPresent,
    /// The code is never run.
    VulnerableCodeNotInExecutePath,
    /// The code is run, but not as an attacker likes.
    VulnerableCodeCannotBeControlledByAdversary,
    /// Something else is in the way.
    InlineMitigationsAlreadyExist,
}

/// Why a file is not read, or a document not written.
#[derive(Debug, thiserror::Error)]
pub enum OpenVexError {
    /// Not JSON of this schema.
    #[error("not an OpenVEX document")]
    Json(#[from] CanonicalError),
    /// Another version.
    #[error("@context is {found:?}: expected {CONTEXT:?}")]
    Context {
        /// What it says.
        found: String,
    },
    /// A statement that must say why and does not.
    #[error("statements[{index}]: not_affected by {vulnerability} needs a justification")]
    Unjustified {
        /// Which.
        index: usize,
        /// Of what.
        vulnerability: String,
    },
    /// A document that says nothing.
    #[error("statements: there are none")]
    Empty,
}

impl Document {
    /// A document from a file.
    pub fn parse(bytes: &[u8]) -> Result<Self, OpenVexError> {
        let document: Self = canonical::parse(bytes, LIMITS)?;
        if document.context != CONTEXT {
            return Err(OpenVexError::Context { found: document.context.chars().take(80).collect() });
        }
        // The specification takes words in place of a justification: such a statement is read, and excuses nothing.
        document.check(|statement| statement.justification.is_some() || statement.impact_statement.is_some())?;
        Ok(document)
    }

    /// A document of one's own, named by its contents.
    pub fn new(author: &str, timestamp: Moment, statements: Vec<Statement>) -> Self {
        let mut made = Self {
            context: CONTEXT.into(),
            id: String::new(),
            author: author.into(),
            timestamp: timestamp.to_string(),
            version: 1,
            statements,
            other: BTreeMap::new(),
        };
        let facts = serde_json::to_vec(&made).expect("strings and maps with string keys are always JSON");
        made.id = format!("{}/vex/{}", crate::statement::KILN_URI, Digest::of(facts));
        made
    }

    /// The document as bytes.
    pub fn print(&self) -> Result<Vec<u8>, OpenVexError> {
        self.check(|statement| statement.justification.is_some())?;
        Ok(document(serde_json::to_value(self).expect("strings and maps with string keys are always JSON")))
    }

    fn check(&self, justified: impl Fn(&Statement) -> bool) -> Result<(), OpenVexError> {
        if self.statements.is_empty() {
            return Err(OpenVexError::Empty);
        }
        for (index, statement) in self.statements.iter().enumerate() {
            if statement.status == Status::NotAffected && !justified(statement) {
                let vulnerability = statement.vulnerability.name.clone();
                return Err(OpenVexError::Unjustified { index, vulnerability });
            }
        }
        Ok(())
    }

    /// The statement that takes the vulnerability with these ids off `component` in `product`, if one does and no later one says
    /// otherwise. A product is told by a package URL with a version or by a digest; `component` is a part of it or the product
    /// itself.
    pub fn excuse(&self, ids: &[&str], product: &Known<'_>, component: &Known<'_>) -> Option<&Statement> {
        let mut about = self.statements.iter().filter(|statement| {
            let vulnerability = &statement.vulnerability;
            let mut names = std::iter::once(&vulnerability.name).chain(&vulnerability.aliases);
            names.any(|name| ids.contains(&name.as_str()))
                && statement.products.iter().any(|one| match one.subcomponents.is_empty() {
                    true => one.is(product) || one.is(component),
                    false => one.is(product) && one.subcomponents.iter().any(|part| part.is(component)),
                })
        });
        // Later statements of a document override earlier ones.
        about.next_back().filter(|statement| match statement.status {
            Status::Fixed => true,
            Status::NotAffected => statement.justification.is_some(),
            Status::Affected | Status::UnderInvestigation => false,
        })
    }
}

/// What is known of an artifact that statements may be about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known<'a> {
    /// Its package URL.
    pub purl: Option<&'a Purl>,
    /// Its digest.
    pub sha256: Option<&'a Digest>,
}

impl Product {
    fn is(&self, known: &Known<'_>) -> bool {
        let digest = self.hashes.get("sha-256").map(|text| text.parse::<Digest>().ok());
        if let (Some(said), Some(known)) = (digest, known.sha256) {
            // A digest that is another's says more than a name.
            return said == Some(*known);
        }
        let Some(known) = known.purl else { return false };
        let mut names = self.id.iter().chain(self.identifiers.get("purl"));
        names.any(|name| name.parse::<Purl>().is_ok_and(|said| said.version().is_some() && said.names(known)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"{"@context":"https://openvex.dev/ns/v0.2.0","@id":"https://example.org/vex/1","author":"A","role":"x",
        "timestamp":"2024-01-01T00:00:00Z","version":1,"statements":[
        {"vulnerability":{"name":"CVE-1","aliases":["GHSA-1"]},"products":[{"@id":"pkg:generic/hello@1","subcomponents":[{"@id":"pkg:deb/debian/curl@1"}]}],
         "status":"not_affected","justification":"component_not_present"},
        {"vulnerability":{"name":"CVE-2"},"products":[{"@id":"pkg:generic/hello"}],"status":"fixed"},
        {"vulnerability":{"name":"CVE-3"},"products":[{"@id":"pkg:generic/hello@1"}],"status":"not_affected","impact_statement":"No."},
        {"vulnerability":{"name":"CVE-4"},"products":[{"@id":"pkg:generic/hello@1"}],"status":"fixed"},
        {"vulnerability":{"name":"CVE-4"},"products":[{"@id":"pkg:generic/hello@1"}],"status":"affected","action_statement":"Update."},
        {"vulnerability":{"name":"CVE-5"},"products":[{"@id":"x","hashes":{"sha-256":"0000000000000000000000000000000000000000000000000000000000000000"}}],"status":"fixed"}]}"#;

    fn excused(id: &str, product: &str, component: &str, digest: Digest) -> bool {
        let document = Document::parse(TEXT.as_bytes()).unwrap();
        let (product, component) = (product.parse().unwrap(), component.parse().unwrap());
        let product = Known { purl: Some(&product), sha256: Some(&digest) };
        document.excuse(&[id], &product, &Known { purl: Some(&component), sha256: None }).is_some()
    }

    #[test]
    fn only_a_justified_word_on_exactly_this_excuses() {
        let (hello, curl) = ("pkg:generic/hello@1", "pkg:deb/debian/curl@1?arch=amd64");
        let any = Digest::of("any");
        assert!(excused("CVE-1", hello, curl, any));
        assert!(excused("GHSA-1", hello, curl, any));
        for (id, product, component) in [
            ("CVE-9", hello, curl),
            ("CVE-1", "pkg:generic/hello@2", curl),
            ("CVE-1", hello, "pkg:deb/debian/curl@2"),
            ("CVE-2", hello, curl),
            ("CVE-3", hello, curl),
            ("CVE-4", hello, curl),
            ("CVE-5", hello, curl),
        ] {
            assert!(!excused(id, product, component, any), "{id} {product} {component}");
        }
        assert!(excused("CVE-5", hello, curl, Digest::from_bytes([0; 32])));
    }

    #[test]
    fn a_printed_document_parses_back_to_itself_and_keeps_what_kiln_does_not_read() {
        let mut document = Document::parse(TEXT.as_bytes()).unwrap();
        assert!(matches!(document.print(), Err(OpenVexError::Unjustified { index: 2, .. })));
        document.statements.remove(2);
        let bytes = document.print().unwrap();
        assert!(String::from_utf8_lossy(&bytes).contains("\"role\": \"x\""));
        assert_eq!(Document::parse(&bytes).unwrap(), document);
    }

    #[test]
    fn a_document_of_one_s_own_is_named_by_what_it_says() {
        let statements = || Document::parse(TEXT.as_bytes()).unwrap().statements[..1].to_vec();
        let one = Document::new("A", Moment::from_unix(0), statements());
        assert_eq!(one, Document::new("A", Moment::from_unix(0), statements()));
        assert_ne!(one.id, Document::new("B", Moment::from_unix(0), statements()).id);
        assert_eq!(Document::parse(&one.print().unwrap()).unwrap(), one);
    }

    #[test]
    fn what_is_no_document_is_refused() {
        let other = TEXT.replace("v0.2.0", "v0.0.1");
        let unjustified = TEXT.replace(",\"impact_statement\":\"No.\"", "");
        let unknown = TEXT.replace("component_not_present", "trust_me");
        for text in [
            "",
            "{}",
            &other,
            &unjustified,
            &unknown,
            &TEXT.replace("\"fixed\"", "\"fine\""),
            &TEXT.replace("\"role\"", "\"author\""),
        ] {
            assert!(Document::parse(text.as_bytes()).is_err(), "{text}");
        }
    }
}
