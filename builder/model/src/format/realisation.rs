//! Realisations: which store path an output of a derivation turned out to be, as binary caches publish it.
//!
//! Nix 2.8 names them by the derivation's digest with the outputs masked (`realisations/sha256:HEX!OUT.doi`), later versions
//! by its path (`build-trace-v2/HASH-NAME.drv/OUT.doi`); the text is 2.8's. Parsing takes any JSON with these fields,
//! because nothing is computed from the text; printing gives Nix's bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::digest::{Digest, serde_as_text};
use crate::format::signature::SecretKey;
use crate::name::Name;
use crate::store_path::StorePath;

/// More than any such file has: a thousand dependent realisations are a fifth of it.
pub const MOST_BYTES: u64 = 1 << 20;

/// What Nix 2.8 names an output by before its path is known: `sha256:HEX!OUT`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RealisationId {
    /// The derivation's: [`crate::derivation::Derivation::realisation_digest`].
    pub derivation: Digest,
    /// Which of its outputs.
    pub output: Name,
}

/// Which store path an output turned out to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "Text", try_from = "Text")]
pub struct Realisation {
    /// The output.
    pub id: RealisationId,
    /// Its path.
    pub path: StorePath,
    /// Realisations of inputs that the path names.
    pub dependent: BTreeMap<RealisationId, StorePath>,
    /// `NAME:BASE64` over the text without signatures.
    pub signatures: BTreeSet<String>,
}

/// Why this is no realisation.
#[derive(Debug, thiserror::Error)]
pub enum RealisationError {
    /// Not the name of an output.
    #[error("{found:?} is not the id of a realisation: expected sha256:HEX!OUTPUT")]
    Id {
        /// As given.
        found: String,
    },
    /// Not the JSON of one.
    #[error("not a realisation: {0}")]
    Json(String),
    /// A path that is not the base name of one.
    #[error("{field} is {found:?}: expected HASH-NAME")]
    Path {
        /// Where.
        field: &'static str,
        /// As given.
        found: String,
    },
}

/// The JSON, fields in Nix's order, which is that of their names.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Text {
    #[serde(default)]
    dependent_realisations: BTreeMap<RealisationId, String>,
    id: RealisationId,
    out_path: String,
    #[serde(default)]
    signatures: BTreeSet<String>,
}

impl From<Realisation> for Text {
    fn from(realisation: Realisation) -> Self {
        let base = |path: &StorePath| path.base_name().to_owned();
        Self {
            dependent_realisations: realisation.dependent.iter().map(|(id, path)| (id.clone(), base(path))).collect(),
            out_path: base(&realisation.path),
            id: realisation.id,
            signatures: realisation.signatures,
        }
    }
}

impl TryFrom<Text> for Realisation {
    type Error = RealisationError;

    fn try_from(text: Text) -> Result<Self, RealisationError> {
        let path = |field, found: String| {
            StorePath::from_base_name(&found).map_err(|_| RealisationError::Path { field, found })
        };
        let dependent = text.dependent_realisations.into_iter();
        Ok(Self {
            id: text.id,
            path: path("outPath", text.out_path)?,
            dependent: dependent
                .map(|(id, found)| Ok((id, path("dependentRealisations", found)?)))
                .collect::<Result<_, RealisationError>>()?,
            signatures: text.signatures,
        })
    }
}

impl Realisation {
    /// Parses the text of a `.doi` file.
    pub fn parse(text: &[u8]) -> Result<Self, RealisationError> {
        serde_json::from_slice(text).map_err(|error| RealisationError::Json(error.to_string()))
    }

    /// The text, as Nix writes it.
    pub fn print(&self) -> String {
        serde_json::to_string(self).expect("a realisation has string keys only")
    }

    /// What a signature is over: the text with `signatures` left out.
    pub fn fingerprint(&self) -> String {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Unsigned<'a> {
            dependent_realisations: &'a BTreeMap<RealisationId, String>,
            id: &'a RealisationId,
            out_path: &'a str,
        }
        let text = Text::from(self.clone());
        let unsigned =
            Unsigned { dependent_realisations: &text.dependent_realisations, id: &text.id, out_path: &text.out_path };
        serde_json::to_string(&unsigned).expect("a realisation has string keys only")
    }

    /// Adds the signature of `key`, unless it is there already.
    pub fn sign(&mut self, key: &SecretKey) {
        self.signatures.insert(key.sign(self.fingerprint().as_bytes()).to_string());
    }

    /// Where it lies in a cache, for Nix 2.8.
    pub fn file(&self) -> String {
        self.id.file()
    }
}

impl RealisationId {
    /// Where a realisation of this output lies in a cache, for Nix 2.8.
    pub fn file(&self) -> String {
        format!("realisations/{self}.doi")
    }
}

impl fmt::Display for RealisationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}!{}", self.derivation, self.output)
    }
}

impl FromStr for RealisationId {
    type Err = RealisationError;

    fn from_str(text: &str) -> Result<Self, RealisationError> {
        let parse = || {
            let (derivation, output) = text.strip_prefix("sha256:")?.split_once('!')?;
            Some(Self { derivation: derivation.parse().ok()?, output: output.parse().ok()? })
        };
        parse().ok_or_else(|| RealisationError::Id { found: text.to_owned() })
    }
}

serde_as_text!(RealisationId);
