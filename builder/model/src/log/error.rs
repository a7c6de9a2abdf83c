//! Why something about a log is refused, and how much that says.

use super::tile::Tile;

/// Why something about a log is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// No path of a tile, or another spelling of one.
    #[error(
        "{found:?} is no path of a tile: expected tile/<level>/<index>[.p/<width>] as c2sp.org/tlog-tiles spells it"
    )]
    TilePath {
        /// As given.
        found: String,
    },
    /// More than fits into a bundle.
    #[error("an entry of {bytes} bytes is too long for a log: at most 65535 fit")]
    EntryTooLong {
        /// How long it is.
        bytes: usize,
    },
    /// A bundle that is cut, or goes on.
    #[error("{tile}: expected {} entries, each after its length, and nothing else", tile.width)]
    Bundle {
        /// Which.
        tile: Tile,
    },
    /// A tile of hashes that is cut, or goes on.
    #[error("{tile}: expected {} bytes, found {bytes}", tile.most_bytes())]
    TileLength {
        /// Which.
        tile: Tile,
        /// How long it is.
        bytes: usize,
    },
    /// A place that the tree does not have.
    #[error("there is no such entry or subtree in a log of {size} entries")]
    Beyond {
        /// The log's size.
        size: u64,
    },
    /// Longer than anything of its kind.
    #[error("{what} of {bytes} bytes is too long: expected at most {most}")]
    TooLong {
        /// What.
        what: &'static str,
        /// How long it may be.
        most: usize,
        /// How long it is.
        bytes: usize,
    },
    /// No proof.
    #[error("{field} of a tlog-proof: expected {expected}")]
    Proof {
        /// Which part.
        field: &'static str,
        /// What belongs there.
        expected: &'static str,
    },
    /// No signed note.
    #[error("{field} of a signed note: expected {expected}")]
    Note {
        /// Which part.
        field: &'static str,
        /// What belongs there.
        expected: &'static str,
    },
    /// No checkpoint.
    #[error("{field} of a checkpoint: expected {expected}")]
    Checkpoint {
        /// Which part.
        field: &'static str,
        /// What belongs there.
        expected: &'static str,
    },
    /// No key of a log or witness.
    #[error("key {vkey:?}: expected {expected}")]
    Vkey {
        /// As given, cut short.
        vkey: String,
        /// What belongs there.
        expected: &'static str,
    },
    /// No policy.
    #[error("line {line} of a log policy: {what}")]
    Policy {
        /// Which, from 1.
        line: usize,
        /// What is wrong, and what belongs there.
        what: String,
    },
    /// An envelope that has no signature to log.
    #[error("an envelope without a signature by key {key}: only what was signed is logged")]
    NothingToLog {
        /// The key.
        key: String,
    },

    /// A proof of inclusion that does not lead to the root.
    #[error(
        "the proof does not lead from entry {index} to the root of the log with {size} entries: entry, proof or checkpoint was altered"
    )]
    NotIncluded {
        /// The entry's index.
        index: u64,
        /// The log's size.
        size: u64,
    },
    /// A proof of consistency that does not lead from one root to the other.
    #[error("the log with {new} entries does not begin with the {old} entries that it had: history was altered")]
    Inconsistent {
        /// The old size.
        old: u64,
        /// The new one.
        new: u64,
    },
    /// A log that is smaller than it was.
    #[error("the log has {new} entries and had {old}: it was rolled back")]
    Shrunk {
        /// The old size.
        old: u64,
        /// The new one.
        new: u64,
    },
    /// Two roots for one size.
    #[error("two different logs of {size} entries: it was forked")]
    Forked {
        /// The size of both.
        size: u64,
    },
    /// A known key's signature that fails.
    #[error("the signature by {name} does not hold: the note was altered, or the signature is another key's")]
    BadSignature {
        /// The key's name.
        name: String,
    },

    /// A checkpoint of a log that the policy does not have.
    #[error("the policy has no log {origin}: expected one of {}", known.join(", "))]
    UnknownLog {
        /// Its origin.
        origin: String,
        /// What the policy has.
        known: Vec<String>,
    },
    /// Nobody known signed.
    #[error("the checkpoint has no signature by {name}")]
    Unsigned {
        /// Who should have.
        name: String,
    },
    /// Too few witnesses.
    #[error("the quorum {quorum} is not met: cosigned by {}", if found.is_empty() { "nobody known".into() } else { found.join(", ") })]
    Quorum {
        /// Its name.
        quorum: String,
        /// Who cosigned, by the names of the policy.
        found: Vec<String>,
    },
}

/// How much a refusal says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weight {
    /// It is not what it should be; nobody signed that.
    Malformed,
    /// Cryptography says otherwise: something was altered.
    Contradicted,
    /// It may be true, and too few vouch for it.
    Insufficient,
}

impl LogError {
    /// How much it says.
    pub fn weight(&self) -> Weight {
        match self {
            Self::TilePath { .. }
            | Self::EntryTooLong { .. }
            | Self::Beyond { .. }
            | Self::TooLong { .. }
            | Self::Proof { .. }
            | Self::Note { .. }
            | Self::Checkpoint { .. }
            | Self::Vkey { .. }
            | Self::Policy { .. }
            | Self::NothingToLog { .. } => Weight::Malformed,
            Self::Bundle { .. }
            | Self::TileLength { .. }
            | Self::NotIncluded { .. }
            | Self::Inconsistent { .. }
            | Self::Shrunk { .. }
            | Self::Forked { .. }
            | Self::BadSignature { .. } => Weight::Contradicted,
            Self::UnknownLog { .. } | Self::Unsigned { .. } | Self::Quorum { .. } => Weight::Insufficient,
        }
    }
}
