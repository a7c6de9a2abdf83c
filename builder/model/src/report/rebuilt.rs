//! What is told of a rebuild beyond its verdict and causes: what it was asked for, how near its environment is to the
//! publisher's, what is missing, and what was tried.
//!
//! Verdicts speak of bytes alone. These fields keep them honest: the alarm is `upstream-differs` in a recorded
//! environment that nothing explains.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::verdict::Verdict;

/// What is told of one rebuild.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rebuilt {
    /// What was asked for, as it would be asked for again: `debian:hello=2.10-3`.
    pub target: String,
    /// Which environment it was built in.
    pub environment: EnvironmentKind,
    /// Where the environment is another than the publisher's, as far as that one is known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub environment_differs: Vec<VersionDiffers>,
    /// Whether it is known why the bytes differ.
    pub explained: Explained,
    /// Settings other than the default ones, by name. A test that was left out is a setting.
    pub settings: BTreeMap<String, String>,
    /// What could not be had, if that is why nothing was judged.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<Missing>,
    /// Other settings that were built with, and what that came to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tried: Vec<Tried>,
    /// What people should know besides.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// Which environment a rebuild was done in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EnvironmentKind {
    /// The versions that the publisher recorded.
    Recorded,
    /// Nearest versions in place of some that the publisher recorded.
    Substituted,
    /// What the archive has now.
    Current,
}

/// Whether it is known why bytes differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Explained {
    /// No idea, or nothing to explain.
    No,
    /// The bytes point at a reason.
    Suspected,
    /// A build with one setting changed has the published bytes.
    Proved,
}

/// A package whose version is another than recorded.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct VersionDiffers {
    /// The package.
    pub name: String,
    /// The publisher's version; null if it recorded none.
    pub recorded: Option<String>,
    /// The version that was used; null if none.
    pub used: Option<String>,
}

/// Something that could not be had.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    /// What it is: a file, a version of a package, a reference.
    pub what: String,
    /// Where it was looked for and what was said there, one line each.
    #[serde(default)]
    pub tries: Vec<String>,
}

/// A build with other settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tried {
    /// The settings: `build-options=notrimdch`.
    pub setting: String,
    /// What it came to.
    pub verdict: Verdict,
    /// The verdict of each artifact.
    pub subjects: BTreeMap<String, Verdict>,
    /// Store path of its derivation, if there was a build.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub derivation: Option<String>,
    /// Why it came to nothing, if there was no build.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl EnvironmentKind {
    /// The word in JSON and in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Recorded => "recorded",
            Self::Substituted => "substituted",
            Self::Current => "current",
        }
    }
}

impl Explained {
    /// The word in JSON and in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::No => "no",
            Self::Suspected => "suspected",
            Self::Proved => "proved",
        }
    }
}

impl Rebuilt {
    /// Of a rebuild of `target` in the archive's present environment, with nothing further known.
    pub fn new(target: String) -> Self {
        Self {
            target,
            environment: EnvironmentKind::Current,
            environment_differs: Vec::new(),
            explained: Explained::No,
            settings: BTreeMap::new(),
            missing: Vec::new(),
            tried: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// The settings as words: `build-options=notrimdch no-check`.
    pub fn settings_in_words(&self) -> String {
        let word = |(name, value): (&String, &String)| match value.is_empty() {
            true => name.clone(),
            false => format!("{name}={value}"),
        };
        match self.settings.is_empty() {
            true => "default".into(),
            false => self.settings.iter().map(word).collect::<Vec<_>>().join(" "),
        }
    }
}
