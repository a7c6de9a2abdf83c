//! A bundle as its JSON spells it: what is borrowed from its text and not yet believed.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Spelled<'a> {
    #[serde(borrow)]
    pub(super) media_type: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) verification_material: Material<'a>,
    #[serde(borrow)]
    pub(super) dsse_envelope: Dsse<'a>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Material<'a> {
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub(super) public_key: Option<Hint<'a>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub(super) certificate: Option<RawBytes<'a>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub(super) x509_certificate_chain: Option<Chain<'a>>,
    #[serde(borrow, default, skip_serializing_if = "Vec::is_empty")]
    pub(super) tlog_entries: Vec<SpelledEntry<'a>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Hint<'a> {
    #[serde(borrow)]
    pub(super) hint: Cow<'a, str>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RawBytes<'a> {
    #[serde(borrow)]
    pub(super) raw_bytes: Cow<'a, str>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Chain<'a> {
    #[serde(borrow)]
    pub(super) certificates: Vec<RawBytes<'a>>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Dsse<'a> {
    #[serde(borrow)]
    pub(super) payload: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) payload_type: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) signatures: Vec<DsseSignature<'a>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DsseSignature<'a> {
    #[serde(borrow)]
    pub(super) sig: Cow<'a, str>,
    /// Bundles with certificates have none.
    #[serde(borrow, default, skip_serializing_if = "str::is_empty")]
    pub(super) keyid: Cow<'a, str>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct SpelledEntry<'a> {
    #[serde(borrow)]
    pub(super) log_index: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) log_id: LogId<'a>,
    #[serde(borrow)]
    pub(super) kind_version: KindVersion<'a>,
    /// Protobuf's JSON may leave a zero out.
    #[serde(borrow, default = "zero")]
    pub(super) integrated_time: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) inclusion_proof: SpelledProof<'a>,
    #[serde(borrow)]
    pub(super) canonicalized_body: Cow<'a, str>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct LogId<'a> {
    #[serde(borrow)]
    pub(super) key_id: Cow<'a, str>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KindVersion<'a> {
    #[serde(borrow)]
    pub(super) kind: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) version: Cow<'a, str>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct SpelledProof<'a> {
    #[serde(borrow, default = "zero")]
    pub(super) log_index: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) root_hash: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) tree_size: Cow<'a, str>,
    /// None in a log of one entry.
    #[serde(borrow, default)]
    pub(super) hashes: Vec<Cow<'a, str>>,
    #[serde(borrow)]
    pub(super) checkpoint: SpelledNote<'a>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SpelledNote<'a> {
    #[serde(borrow)]
    pub(super) envelope: Cow<'a, str>,
}

pub(super) fn zero() -> Cow<'static, str> {
    "0".into()
}
