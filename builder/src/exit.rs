//! Exit codes, and which of them an error maps to.
//!
//! Scripts and other people's CI rely on these numbers (ARCHITECTURE.md, the command line). Results choose theirs
//! themselves (`Verdict::exit_code`); errors carry a [`Kind`].

/// Yes: built, reproduced, verified.
pub const YES: u8 = 0;
/// No: diverged, upstream differs, policy denies, a cache has other bytes; equivalent too, unless accepted.
pub const NO: u8 = 1;
/// Bad input: usage, recipe, lock, malformed file.
pub const BAD_INPUT: u8 = 2;
/// This host cannot isolate.
pub const CANNOT_ISOLATE: u8 = 3;
/// Too little evidence, or a reference is unavailable.
pub const INCONCLUSIVE: u8 = 4;
/// The build itself failed, or ran into its deadline or a limit.
pub const BUILD_FAILED: u8 = 5;
/// A digest, signature or proof does not hold.
pub const TAMPERED: u8 = 6;
/// The host or the network failed.
pub const HOST_FAILED: u8 = 7;
/// A bug in kiln.
pub const BUG: u8 = 70;
/// Interrupted.
pub const INTERRUPTED: u8 = 130;

/// What sort of error it is: the one thing a caller needs to know to act on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The user's input: mend it.
    BadInput,
    /// The host lacks a feature of isolation: enable it.
    CannotIsolate,
    /// Too little evidence.
    Inconclusive,
    /// A build that something else needs has failed.
    BuildFailed,
    /// Two builds that should agree do not: compare them.
    Disagreement,
    /// Bytes are not what they should be: investigate.
    Tampered,
    /// Disk, network or permissions: mend the host, or try again.
    Host,
    /// A broken invariant of ours: report it.
    Bug,
}

impl Kind {
    /// The process's exit code for an error of this kind.
    pub fn code(self) -> u8 {
        match self {
            Self::BadInput => BAD_INPUT,
            Self::CannotIsolate => CANNOT_ISOLATE,
            Self::Inconclusive => INCONCLUSIVE,
            Self::BuildFailed => BUILD_FAILED,
            Self::Disagreement => NO,
            Self::Tampered => TAMPERED,
            Self::Host => HOST_FAILED,
            Self::Bug => BUG,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_the_code_of_the_contract() {
        let table = [
            (Kind::BadInput, 2),
            (Kind::CannotIsolate, 3),
            (Kind::Inconclusive, 4),
            (Kind::BuildFailed, 5),
            (Kind::Disagreement, 1),
            (Kind::Tampered, 6),
            (Kind::Host, 7),
            (Kind::Bug, 70),
        ];
        for (kind, code) in table {
            assert_eq!(kind.code(), code);
        }
    }
}
