//! Keys that sign statements, and those they are verified with: Ed25519 and ECDSA P-256.
//!
//! A key is its SubjectPublicKeyInfo, and its [`KeyId`] that one's SHA-256: names and hints beside a signature prove nothing.
//! Signing is deterministic with both algorithms, so the same facts have the same bytes. Keys are made elsewhere, because making
//! one takes randomness; so is what an encrypted file is salted with. Other programs' spellings of the same keys are in the files
//! below.

pub mod id;
pub mod minisign;
pub mod nix;
pub mod prepared;
pub mod public;
pub mod secret;
pub mod signify;
pub mod ssh;
pub mod svid;

pub use id::KeyId;
pub use prepared::Prepared;
pub use public::{BadSignature, PublicKey};
pub use secret::{Passphrase, SecretKey};
pub use svid::{SpiffeId, Svid, SvidError, TrustBundle};

/// Which of the two kinds of key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    /// RFC 8032.
    Ed25519,
    /// FIPS 186-5 with SHA-256, nonces of RFC 6979.
    P256,
}

impl Algorithm {
    /// The word on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ed25519 => "ed25519",
            Self::P256 => "p256",
        }
    }
}

/// Why something is no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not a SubjectPublicKeyInfo of a kind we know.
    #[error("expected the SubjectPublicKeyInfo of an Ed25519 or P-256 key")]
    Kind,
    /// Bytes that are no point of the curve, or one of few that anybody can sign for.
    #[error("these bytes are no {} key", .algorithm.as_str())]
    NotAKey {
        /// Of which kind.
        algorithm: Algorithm,
    },
    /// Not PEM, or with another label.
    #[error("expected a PEM file that begins with -----BEGIN {label}-----")]
    Pem {
        /// What it should be.
        label: &'static str,
    },
    /// PEM with something else in it.
    #[error("expected a PKCS#8 private key, Ed25519 or P-256")]
    Pkcs8,
    /// Encrypted, and no passphrase was given.
    #[error("the key is encrypted: give its passphrase")]
    Encrypted,
    /// Encrypted with another passphrase, or in a way that is not read.
    #[error("the passphrase does not fit, or the key is encrypted in a way that is not read (PBES2 is)")]
    Passphrase,
    /// A format that has no such kind of key.
    #[error("{format} has no {} keys", .algorithm.as_str())]
    NoSuchKind {
        /// The format.
        format: &'static str,
        /// The kind.
        algorithm: Algorithm,
    },
    /// A text of another program that does not have its form.
    #[error("expected {expected}")]
    Form {
        /// What it should be.
        expected: &'static str,
    },
}
