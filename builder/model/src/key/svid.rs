//! X.509-SVIDs: keys that a SPIFFE trust domain vouches for, for a short while, instead of a policy that names each.
//!
//! [`Svid::parse`] holds a leaf to the rules of the X509-SVID specification (sections 2, 3 and 4: one URI, no authority, digital
//! signatures and no signing of certificates); [`Svid::verify`] holds its chain against a [`TrustBundle`] at a moment that the
//! caller chooses. What a certificate says before that is a claim. Paths are checked by `webpki`; names and usages here.

use std::fmt;

use rustls_pki_types::{CertificateDer, UnixTime};
use webpki::{EndEntityCert, KeyUsage as Usage, anchor_from_trusted_cert, ring};
use x509_cert::Certificate;
use x509_cert::der::oid::db::rfc5280::{ID_KP_CLIENT_AUTH, ID_KP_SERVER_AUTH};
use x509_cert::der::{Decode as _, Encode as _, pem};
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{BasicConstraints, ExtendedKeyUsage, KeyUsage, SubjectAltName};

use super::{KeyError, PublicKey};
use crate::canonical::{self, Limits};
use crate::format::base64;
use crate::outcome::Moment;

/// Certificates in one chain, and in one bundle of a trust domain.
const MOST_CHAIN: usize = 8;
const MOST_ANCHORS: usize = 256;
/// Bytes of one certificate.
const LARGEST: usize = 64 << 10;
/// Bytes of the file of a trust bundle.
const LARGEST_BUNDLE: usize = 4 << 20;
const LABEL: &str = "CERTIFICATE";
/// SPIFFE-ID, 2.1 and 2.3.
const LONGEST_DOMAIN: usize = 255;
const LONGEST_ID: usize = 2048;

/// `spiffe://TRUST-DOMAIN/PATH`, as a workload's.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SpiffeId(String);

/// A leaf certificate by the rules for workloads, and what else leads to its authority. Nobody has vouched for it yet.
#[derive(Clone, PartialEq, Eq)]
pub struct Svid {
    id: SpiffeId,
    key: PublicKey,
    /// In DER, the leaf first.
    chain: Vec<Vec<u8>>,
}

/// The authorities of a trust domain, in DER.
#[derive(Clone, PartialEq, Eq)]
pub struct TrustBundle(Vec<Vec<u8>>);

/// Why something is no SVID, or nobody vouches for it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SvidError {
    /// Not `spiffe://TRUST-DOMAIN/PATH`.
    #[error(
        "{found:?} is no SPIFFE id of a workload: expected spiffe://TRUST-DOMAIN/PATH, in the characters that SPIFFE allows"
    )]
    Id {
        /// As given.
        found: String,
    },
    /// No certificates, too many, or something else.
    #[error("expected {expected}")]
    Form {
        /// What it should be.
        expected: &'static str,
    },
    /// A leaf that breaks a rule.
    #[error("the certificate is no X.509-SVID of a workload: {rule}")]
    Leaf {
        /// Which rule.
        rule: String,
    },
    /// A key that signs no statements here.
    #[error("the certificate's key")]
    Key(#[source] KeyError),
    /// A chain that does not lead to the bundle.
    #[error("the certificate of {id} at {at}: {why}")]
    Path {
        /// Whose.
        id: String,
        /// When it was to hold.
        at: Moment,
        /// Why it does not.
        why: String,
    },
    /// An authority that may not vouch for it.
    #[error("an authority on the path of {id} {rule}")]
    Authority {
        /// Whose path.
        id: String,
        /// Which rule it breaks.
        rule: &'static str,
    },
}

impl SpiffeId {
    /// A workload's id: with a path.
    pub fn parse(text: &str) -> Result<Self, SvidError> {
        let wrong = || SvidError::Id { found: text.chars().take(120).collect() };
        let (domain, path) = split(text).ok_or_else(wrong)?;
        let segment = |part: &str| {
            let plain = part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
            !part.is_empty() && part != "." && part != ".." && plain
        };
        let path = path.strip_prefix('/').ok_or_else(wrong)?;
        let fits = is_domain(domain) && text.len() <= LONGEST_ID && path.split('/').all(segment);
        if fits { Ok(Self(text.into())) } else { Err(wrong()) }
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The trust domain.
    pub fn trust_domain(&self) -> &str {
        split(&self.0).map_or("", |(domain, _)| domain)
    }
}

/// What stands after the scheme: the trust domain, and the path with its slash or nothing.
fn split(text: &str) -> Option<(&str, &str)> {
    let rest = text.strip_prefix("spiffe://")?;
    Some(rest.split_at(rest.find('/').unwrap_or(rest.len())))
}

fn is_domain(text: &str) -> bool {
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b);
    (1..=LONGEST_DOMAIN).contains(&text.len()) && text.bytes().all(fits)
}

impl Svid {
    /// The SVID of a chain in DER, the leaf first.
    pub fn parse(chain: Vec<Vec<u8>>) -> Result<Self, SvidError> {
        if !(1..=MOST_CHAIN).contains(&chain.len()) || chain.iter().any(|one| one.len() > LARGEST) {
            return Err(SvidError::Form { expected: "one to eight certificates, the workload's first" });
        }
        let leaf = certificate(&chain[0])?;
        let id = leaf_id(&leaf)?;
        let spki = leaf.tbs_certificate.subject_public_key_info.to_der();
        let spki = spki.map_err(|_| SvidError::Leaf { rule: "its key cannot be read".into() })?;
        let key = PublicKey::from_spki(&spki).map_err(SvidError::Key)?;
        Ok(Self { id, key, chain })
    }

    /// The SVID in a PEM file, the leaf first.
    pub fn from_pem(text: &str) -> Result<Self, SvidError> {
        Self::parse(certificates(text)?)
    }

    /// Whom it is said to belong to.
    pub fn id(&self) -> &SpiffeId {
        &self.id
    }

    /// The key that it is about.
    pub fn key(&self) -> &PublicKey {
        &self.key
    }

    /// Its certificates in DER, the leaf first.
    pub fn chain(&self) -> &[Vec<u8>] {
        &self.chain
    }

    /// Whether the leaf's time has come and is not over at `at`.
    pub fn is_valid_at(&self, at: Moment) -> bool {
        certificate(&self.chain[0]).is_ok_and(|leaf| is_valid(&leaf, at))
    }

    /// Whether `trust`, the bundle of this id's trust domain, vouched for it at `at`.
    pub fn verify(&self, trust: &TrustBundle, at: Moment) -> Result<(), SvidError> {
        let no = |why: String| SvidError::Path { id: self.id.0.clone(), at, why };
        let ders: Vec<CertificateDer<'_>> = self.chain.iter().map(|der| CertificateDer::from(&der[..])).collect();
        let leaf = EndEntityCert::try_from(&ders[0]).map_err(|error| no(words(error)))?;
        let mut roots = Vec::new();
        for der in &trust.0 {
            let one = certificate(der)?;
            // webpki takes an anchor at its word, whatever its time.
            if is_valid(&one, at) {
                self.check_authority(&one)?;
                roots.push(CertificateDer::from(&der[..]));
            }
        }
        let anchors: Result<Vec<_>, _> = roots.iter().map(anchor_from_trusted_cert).collect();
        let anchors = anchors.map_err(|error| no(words(error)))?;
        if anchors.is_empty() {
            return Err(no("no authority of the trust bundle is valid then".into()));
        }
        for der in &self.chain[1..] {
            self.check_authority(&certificate(der)?)?;
        }
        let time = UnixTime::since_unix_epoch(std::time::Duration::from_secs(at.unix()));
        let algorithms = [
            ring::ECDSA_P256_SHA256,
            ring::ECDSA_P256_SHA384,
            ring::ECDSA_P384_SHA256,
            ring::ECDSA_P384_SHA384,
            ring::ED25519,
            ring::RSA_PKCS1_2048_8192_SHA256,
            ring::RSA_PKCS1_2048_8192_SHA384,
            ring::RSA_PKCS1_2048_8192_SHA512,
        ];
        let path = leaf.verify_for_usage(&algorithms, &anchors, &ders[1..], time, Usage::client_auth(), None, None);
        path.map(drop).map_err(|error| no(words(error)))
    }

    /// X509-SVID, 3.2 and 4.3: an authority's own id, if it has one, is its trust domain's, and it may sign certificates.
    fn check_authority(&self, one: &Certificate) -> Result<(), SvidError> {
        let breaks = |rule| SvidError::Authority { id: self.id.0.clone(), rule };
        let unreadable = |_| breaks("has extensions that cannot be read");
        for uri in uris(one).map_err(unreadable)? {
            if split(&uri) != Some((self.id.trust_domain(), "")) {
                return Err(breaks("has an id of its own that is not this trust domain's"));
            }
        }
        let constraints = one.tbs_certificate.get::<BasicConstraints>().map_err(unreadable)?;
        if !constraints.is_some_and(|(_, constraints)| constraints.ca) {
            return Err(breaks("is none: its basic constraints do not say CA"));
        }
        let usage = one.tbs_certificate.get::<KeyUsage>().map_err(unreadable)?;
        if !usage.is_some_and(|(_, usage)| usage.key_cert_sign()) {
            return Err(breaks("may not sign certificates: its key usage does not say keyCertSign"));
        }
        Ok(())
    }
}

impl TrustBundle {
    /// A trust bundle from a file: certificates in PEM, or SPIFFE's JWK set.
    pub fn parse(bytes: &[u8]) -> Result<Self, SvidError> {
        let wrong = SvidError::Form { expected: "a trust bundle: certificates in PEM, or a JWK set as SPIFFE has it" };
        if bytes.len() > LARGEST_BUNDLE {
            return Err(wrong);
        }
        let text = std::str::from_utf8(bytes).map_err(|_| wrong.clone())?;
        let found = if text.trim_start().starts_with('{') { jwk_set(bytes)? } else { certificates(text)? };
        if !(1..=MOST_ANCHORS).contains(&found.len()) {
            return Err(SvidError::Form {
                expected: "a trust bundle of at least one X.509 authority, and at most 256",
            });
        }
        for der in &found {
            let one = certificate(der)?;
            let ca = one.tbs_certificate.get::<BasicConstraints>().ok().flatten().is_some_and(|(_, b)| b.ca);
            if !ca {
                return Err(SvidError::Form { expected: "authorities (CA) in a trust bundle, no leaves" });
            }
        }
        Ok(Self(found))
    }
}

/// SPIFFE Trust Domain and Bundle, 4: entries whose use is `x509-svid`, each with one certificate.
fn jwk_set(bytes: &[u8]) -> Result<Vec<Vec<u8>>, SvidError> {
    #[derive(serde::Deserialize)]
    struct Set {
        keys: Vec<Entry>,
    }
    #[derive(serde::Deserialize)]
    struct Entry {
        #[serde(rename = "use", default)]
        used_for: String,
        #[serde(default)]
        x5c: Vec<String>,
    }
    let wrong = SvidError::Form { expected: "a JWK set as SPIFFE has it: use x509-svid, and one certificate in x5c" };
    let set: Set = canonical::parse(bytes, Limits { bytes: LARGEST_BUNDLE, depth: 8 }).map_err(|_| wrong.clone())?;
    let mut found = Vec::new();
    // An entry of another use, or without one, is not ours to judge.
    for entry in set.keys.iter().filter(|entry| entry.used_for == "x509-svid") {
        let [one] = &entry.x5c[..] else { return Err(wrong) };
        found.push(base64::decode(one.as_bytes()).ok_or_else(|| wrong.clone())?);
    }
    Ok(found)
}

/// All certificates of a PEM file; what stands between them is ignored, as RFC 7468 says.
fn certificates(text: &str) -> Result<Vec<Vec<u8>>, SvidError> {
    let wrong = SvidError::Form { expected: "certificates in PEM" };
    let (begin, end) = ("-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----");
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(from) = rest.find(begin) {
        let to = rest[from..].find(end).ok_or_else(|| wrong.clone())? + from + end.len();
        match pem::decode_vec(&rest.as_bytes()[from..to]) {
            Ok((LABEL, der)) => found.push(der),
            Ok(_) | Err(_) => return Err(wrong),
        }
        rest = &rest[to..];
    }
    if found.is_empty() { Err(wrong) } else { Ok(found) }
}

fn certificate(der: &[u8]) -> Result<Certificate, SvidError> {
    Certificate::from_der(der).map_err(|_| SvidError::Form { expected: "an X.509 certificate in DER" })
}

fn is_valid(one: &Certificate, at: Moment) -> bool {
    let validity = &one.tbs_certificate.validity;
    let seconds = std::time::Duration::from_secs(at.unix());
    validity.not_before.to_unix_duration() <= seconds && seconds <= validity.not_after.to_unix_duration()
}

/// Every URI among its names.
fn uris(one: &Certificate) -> Result<Vec<String>, x509_cert::der::Error> {
    let names = one.tbs_certificate.get::<SubjectAltName>()?.map(|(_, names)| names.0).unwrap_or_default();
    Ok(names
        .iter()
        .filter_map(|name| match name {
            GeneralName::UniformResourceIdentifier(uri) => Some(uri.as_str().to_owned()),
            _ => None,
        })
        .collect())
}

/// X509-SVID, 2, 3.1, 4.1 to 4.4.
fn leaf_id(leaf: &Certificate) -> Result<SpiffeId, SvidError> {
    let breaks = |rule: &str| SvidError::Leaf { rule: rule.into() };
    let unreadable = |_| breaks("it has extensions that cannot be read, or twice");
    let uris = uris(leaf).map_err(unreadable)?;
    let [uri] = &uris[..] else {
        return Err(breaks(&format!("it has {} URIs among its names, and one is needed", uris.len())));
    };
    let id = SpiffeId::parse(uri)?;
    if leaf.tbs_certificate.get::<BasicConstraints>().map_err(unreadable)?.is_some_and(|(_, basic)| basic.ca) {
        return Err(breaks("it is an authority (CA), and authorities sign no statements"));
    }
    match leaf.tbs_certificate.get::<KeyUsage>().map_err(unreadable)? {
        None => return Err(breaks("it has no key usage")),
        Some((false, _)) => return Err(breaks("its key usage is not critical")),
        Some((true, usage)) if !usage.digital_signature() => {
            return Err(breaks("its key usage does not say digitalSignature"));
        }
        Some((true, usage)) if usage.key_cert_sign() || usage.crl_sign() => {
            return Err(breaks("its key usage says keyCertSign or cRLSign"));
        }
        Some((true, _)) => {}
    }
    if let Some((_, usage)) = leaf.tbs_certificate.get::<ExtendedKeyUsage>().map_err(unreadable)?
        && !(usage.0.contains(&ID_KP_SERVER_AUTH) && usage.0.contains(&ID_KP_CLIENT_AUTH))
    {
        return Err(breaks("its extended key usage lacks serverAuth or clientAuth"));
    }
    Ok(id)
}

fn words(error: webpki::Error) -> String {
    let said = match error {
        webpki::Error::CertExpired { .. } => "it, or an authority of its chain, has expired",
        webpki::Error::CertNotValidYet { .. } => "it, or an authority of its chain, is not valid yet",
        webpki::Error::UnknownIssuer => "no chain leads to an authority of the trust bundle",
        error => return error.to_string(),
    };
    said.into()
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Svid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Svid").field("id", &self.id.0).field("certificates", &self.chain.len()).finish()
    }
}

impl fmt::Debug for TrustBundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrustBundle").field("authorities", &self.0.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_a_trust_domain_and_a_path_in_the_characters_that_spiffe_allows() {
        for good in ["spiffe://example.org/kiln/rb1", "spiffe://a-b_c.d/X.y-Z_0"] {
            assert_eq!(SpiffeId::parse(good).unwrap().as_str(), good);
        }
        assert_eq!(SpiffeId::parse("spiffe://example.org/a/b").unwrap().trust_domain(), "example.org");
        for bad in [
            "",
            "https://example.org/a",
            "spiffe:///a",
            "spiffe://example.org",
            "spiffe://example.org/",
            "spiffe://example.org/a/",
            "spiffe://example.org//a",
            "spiffe://example.org/../a",
            "spiffe://example.org/./a",
            "spiffe://Example.org/a",
            "spiffe://example.org:80/a",
            "spiffe://u@example.org/a",
            "spiffe://example.org/a?b",
            "spiffe://example.org/a#b",
            "spiffe://example.org/a%20b",
            "SPIFFE://example.org/a",
        ] {
            assert!(SpiffeId::parse(bad).is_err(), "{bad:?}");
        }
        assert!(SpiffeId::parse(&format!("spiffe://{}/a", "a".repeat(256))).is_err());
        assert!(SpiffeId::parse(&format!("spiffe://a/{}", "a".repeat(2048))).is_err());
    }

    #[test]
    fn what_is_no_certificate_is_refused() {
        for text in
            ["", "x", "-----BEGIN CERTIFICATE-----\n", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
        {
            assert!(Svid::from_pem(text).is_err(), "{text:?}");
            assert!(TrustBundle::parse(text.as_bytes()).is_err(), "{text:?}");
        }
        for set in [
            "{}",
            "{\"keys\":[]}",
            "{\"keys\":[{\"use\":\"x509-svid\"}]}",
            "{\"keys\":[{\"use\":\"x509-svid\",\"x5c\":[\"AAAA\"]}]}",
            "{\"keys\":[{\"use\":\"jwt-svid\",\"x5c\":[\"AAAA\"]}]}",
        ] {
            assert!(TrustBundle::parse(set.as_bytes()).is_err(), "{set}");
        }
    }
}
