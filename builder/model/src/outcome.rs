//! What one machine saw of one build: a fact, without judgement.
//!
//! An [`Outcome`] is one JSON document (docs/outcome.schema.json). Its maps are ordered and its numbers exact, so that
//! equal outcomes have equal bytes, which a golden test holds; failures are outcomes like any other.
//! Knows nothing of other outcomes: those are compared in [`crate::verdict`].

mod moment;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::digest::{Digest, NarHash};
use crate::name::Variable;
use crate::normalise::Normaliser;
use crate::variation::Conditions;
use crate::variation::observed::{Effects, Observed};

pub use crate::tree::{Entry, EntryPath, Manifest};
pub use moment::{Moment, MomentError};

/// The only schema there is.
pub const SCHEMA: &str = "kiln/outcome/v1";

/// The schema of [`Builds`].
pub const BUILDS_SCHEMA: &str = "kiln/builds/v1";

/// What one machine saw of one build.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// [`SCHEMA`].
    #[serde(with = "schema")]
    pub schema: (),
    /// How it ended.
    pub status: Status,
    /// The limit that ended it; then `status` is `failed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<Limit>,
    /// Whether this is an earlier build's outcome, and nothing ran.
    pub cached: bool,
    /// Store path of the derivation: its id.
    pub derivation: String,
    /// What was made, by output. Empty unless `status` is `built`.
    #[serde(default)]
    pub outputs: BTreeMap<Variable, Output>,
    /// Files that are published as files, by file name.
    #[serde(default)]
    pub artifacts: BTreeMap<String, Artifact>,
    /// What the sandbox held, in the sandbox's words.
    #[serde(default)]
    pub isolation: BTreeMap<String, serde_json::Value>,
    /// What the build ran under. Absent if nothing ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conditions: Option<Ran>,
    /// Traits of the machine.
    pub host: Host,
    /// Store paths that the build could read, with the digest of each.
    #[serde(default)]
    pub inputs: BTreeMap<String, NarHash>,
    /// Which of the outputs and inputs others built, and whose word was taken for that.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub substituted: BTreeMap<String, Substituted>,
    /// When the build was started.
    pub started: Moment,
    /// How long it ran.
    #[serde(with = "seconds")]
    pub seconds: Duration,
    /// The whole log, kept in the store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<Log>,
    /// How it failed. Absent if `status` is `built`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
}

/// How a build ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// It made its outputs.
    Built,
    /// It said so, made no output, or ran into a limit.
    Failed,
    /// It ran into its deadline.
    TimedOut,
    /// It never ran: an input could not be had.
    Unavailable,
}

impl Status {
    /// The word in JSON and in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Built => "built",
            Self::Failed => "failed",
            Self::TimedOut => "timed-out",
            Self::Unavailable => "unavailable",
        }
    }
}

/// A limit that can end a build, besides the deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Limit {
    /// Bytes of log.
    LogBytes,
    /// Memory.
    Memory,
    /// Processes.
    Processes,
    /// Bytes or inodes on disk.
    Disk,
    /// Seconds without a line of log.
    Silence,
}

impl Limit {
    /// The word in JSON and in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::LogBytes => "log-bytes",
            Self::Memory => "memory",
            Self::Processes => "processes",
            Self::Disk => "disk",
            Self::Silence => "silence",
        }
    }
}

/// One output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    /// Logical store path: where the output belongs. Which bytes these are says `nar_hash`.
    pub path: String,
    /// Digest of the NAR.
    pub nar_hash: NarHash,
    /// Bytes of the NAR.
    pub nar_size: u64,
    /// Every file in it.
    pub manifest: Manifest,
}

/// A file of an output that is published as a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artifact {
    /// Digest of the bytes.
    pub sha256: Digest,
    /// Bytes.
    pub size: u64,
    /// The output that holds it.
    pub output: Variable,
    /// Where in that output.
    pub path: EntryPath,
    /// What it is after the normalisers that were needed to compare it, if any were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub normalised: Option<Normalised>,
    /// The published file that it is held against, if that one has another name: a wheel that was given other tags after its
    /// build.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_against: Option<String>,
}

impl Outcome {
    /// The artifact that is held against the published file `name`, with its own name.
    pub fn held_against(&self, name: &str) -> Option<(&String, &Artifact)> {
        let other = || self.artifacts.iter().find(|(_, artifact)| artifact.held_against.as_deref() == Some(name));
        self.artifacts.get_key_value(name).or_else(other)
    }
}

/// A file's digest after named normalisers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Normalised {
    /// Digest of what is left.
    pub sha256: Digest,
    /// Which were applied, each with its version, sorted: `elf-build-id/1`.
    pub normalisers: Vec<Normaliser>,
}

/// What a build ran under: what was set, what was seen, and what that varied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ran {
    /// What the sandbox was told.
    pub settings: Conditions,
    /// What a probe saw inside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed: Option<Observed>,
    /// Of a varied build: each factor, held against the control. Absent in the control.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effects: Option<Effects>,
}

/// Traits of a machine that a build might have seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// `uname`'s system, release and version.
    pub kernel: String,
    /// `uname`'s machine.
    pub machine: String,
    /// Model of the processor.
    pub cpu: String,
    /// Processors that kiln may run on.
    pub cores: u32,
    /// File system that the store lies on.
    pub store_file_system: String,
    /// Version of kiln.
    pub kiln: String,
}

/// Where a store path came from that was not built here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Substituted {
    /// The binary cache, as it was configured, without credentials.
    pub from: String,
    /// Name of the trusted key that signed it. Absent if the path follows from its contents, which were checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed_by: Option<String>,
}

/// A build's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Log {
    /// Digest of the bytes, not compressed.
    pub sha256: Digest,
    /// How many.
    pub bytes: u64,
}

/// How a build failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// One line for people.
    pub message: String,
    /// Exit status of the builder, if it exited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<i32>,
    /// Signal that ended the builder, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// Last lines of the log, invalid UTF-8 replaced.
    #[serde(default)]
    pub log_tail: String,
}

/// What `kiln build --json` prints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Builds {
    /// [`BUILDS_SCHEMA`].
    #[serde(with = "builds_schema")]
    pub schema: (),
    /// One outcome for each recipe or derivation, in the order asked for.
    pub builds: Vec<Outcome>,
}

impl Builds {
    /// The document of these outcomes.
    pub fn new(builds: Vec<Outcome>) -> Self {
        Self { schema: (), builds }
    }

    /// The process's exit code: 0 if all are built, 5 if one ran and was not, otherwise 7.
    pub fn exit_code(&self) -> u8 {
        let code = |status| match status {
            Status::Built => 0,
            Status::Failed | Status::TimedOut => 5,
            Status::Unavailable => 7,
        };
        let codes: Vec<u8> = self.builds.iter().map(|b| code(b.status)).filter(|&c| c != 0).collect();
        codes.iter().copied().min().unwrap_or(0)
    }
}

macro_rules! schema_field {
    ($module:ident, $text:expr) => {
        /// A field that holds the document's schema: written always, anything else refused.
        pub(crate) mod $module {
            use super::*;

            pub(crate) fn serialize<S: Serializer>(_: &(), serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str($text)
            }

            pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
                let found = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                if found == $text {
                    Ok(())
                } else {
                    Err(de::Error::custom(format!("schema {found:?} is not known; this kiln reads {:?}", $text)))
                }
            }
        }
    };
}
pub(crate) use schema_field;

schema_field!(schema, SCHEMA);
schema_field!(builds_schema, BUILDS_SCHEMA);

/// Seconds as a JSON number, to the millisecond: finer is noise, and these values survive a double.
pub(crate) mod seconds {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(duration.as_millis() as f64 / 1000.0)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let seconds = f64::deserialize(deserializer)?;
        if !(0.0..1e12).contains(&seconds) {
            return Err(de::Error::custom(format!("{seconds} is not a number of seconds")));
        }
        Ok(Duration::from_millis((seconds * 1000.0).round() as u64))
    }
}

#[cfg(test)]
pub(crate) mod samples;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_canonical_bytes_do_not_move() {
        let bytes = |outcome: &Outcome| serde_json::to_vec(outcome).unwrap();
        assert_eq!(
            [samples::control(), samples::varied(), samples::failed()].map(|o| Digest::of(bytes(&o)).to_string()),
            [
                "b1e5d8b890070f7f002b174e908863e3b2522146bda74e4742f88999d12cb27c",
                "a71ebccd69067c46bc648fc111674b2c79ea8ea45eba24c87823747d80059df2",
                "b8e35b9709034c80a0b3d94dff4474095fb40a24ff50395b2988b74986172e8c"
            ]
        );
    }

    #[test]
    fn a_printed_outcome_parses_back_to_itself() {
        for outcome in [samples::control(), samples::varied(), samples::failed()] {
            let json = serde_json::to_string(&outcome).unwrap();
            assert_eq!(serde_json::from_str::<Outcome>(&json).unwrap(), outcome);
        }
    }

    #[test]
    fn another_schema_or_an_impossible_duration_is_refused() {
        let json = serde_json::to_string(&samples::control()).unwrap();
        for (good, bad) in [
            (SCHEMA, "kiln/outcome/v2"),
            ("\"seconds\":4.25", "\"seconds\":-1"),
            ("\"seconds\":4.25", "\"seconds\":1e300"),
            ("\"status\":\"built\"", "\"status\":\"fine\""),
        ] {
            assert!(json.contains(good), "{good}");
            assert!(serde_json::from_str::<Outcome>(&json.replace(good, bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_failed_build_outweighs_a_missing_input() {
        let unavailable = Outcome { status: Status::Unavailable, ..samples::failed() };
        assert_eq!(Builds::new(vec![samples::control()]).exit_code(), 0);
        assert_eq!(Builds::new(vec![samples::control(), unavailable.clone()]).exit_code(), 7);
        assert_eq!(Builds::new(vec![unavailable, samples::failed()]).exit_code(), 5);
    }
}
