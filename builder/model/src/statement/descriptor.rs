//! in-toto's ResourceDescriptor: one thing, by address, digest or content.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{DigestSet, DigestSetError, StatementError};

/// One thing. At least one of `uri`, `digest` and `content` is there.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What the one who writes calls it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Where it is, or its purl.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uri: Option<String>,
    /// Digests of its bytes.
    #[serde(default, skip_serializing_if = "DigestSet::is_empty")]
    pub digest: DigestSet,
    /// Its bytes, in base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// Where it was fetched from, if that is not `uri`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub download_location: Option<String>,
    /// What it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// What else is said of it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, Value>,
}

impl Descriptor {
    /// What is known by its digest.
    pub fn of(digest: DigestSet) -> Self {
        Self { digest, ..Self::default() }
    }

    /// With a name.
    pub fn named_as(self, name: impl Into<String>) -> Self {
        Self { name: Some(name.into()), ..self }
    }

    /// With an address.
    pub fn at(self, uri: impl Into<String>) -> Self {
        Self { uri: Some(uri.into()), ..self }
    }

    /// With a media type.
    pub fn being(self, media_type: impl Into<String>) -> Self {
        Self { media_type: Some(media_type.into()), ..self }
    }

    /// With one more annotation.
    pub fn noting(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.annotations.insert(key.into(), value.into());
        self
    }

    /// A word for it in messages.
    pub(super) fn named(&self) -> String {
        self.name.clone().or_else(|| self.uri.clone()).unwrap_or_default()
    }

    /// It says something, and its digests are some. `of` names it in errors.
    pub(super) fn sound(&self, of: &str) -> Result<(), StatementError> {
        let says = self.uri.is_some() || !self.digest.is_empty() || self.content.is_some();
        sound(says.then_some(()), self.digest.sound(), || of.into())
    }
}

/// The rule for all descriptors: something is said, and the digests are some.
pub(super) fn sound(
    says: Option<()>,
    digests: Result<(), DigestSetError>,
    of: impl Fn() -> String,
) -> Result<(), StatementError> {
    says.ok_or_else(|| StatementError::Empty { of: of() })?;
    digests.map_err(|source| StatementError::Digest { of: of(), source })
}
