//! All the settings that one build runs under.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU32;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::digest::serde_as_text;

use super::Factor;

/// A file mode creation mask, spelled in octal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Umask(u32);

impl Umask {
    /// The mask of these bits; bits beyond `0777` are dropped, as the kernel does (umask(2)).
    pub const fn new(bits: u32) -> Self {
        Self(bits & 0o777)
    }

    /// The bits.
    pub const fn bits(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Umask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04o}", self.0)
    }
}

/// The text is not a mask.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} is not a umask: expected octal digits up to 0777")]
pub struct UmaskError {
    /// The text as given.
    pub found: String,
}

impl std::str::FromStr for Umask {
    type Err = UmaskError;

    fn from_str(text: &str) -> Result<Self, UmaskError> {
        match u32::from_str_radix(text, 8) {
            Ok(bits) if bits <= 0o777 && text.bytes().all(|b| b.is_ascii_digit()) => Ok(Self(bits)),
            _ => Err(UmaskError { found: text.into() }),
        }
    }
}

serde_as_text!(Umask);

/// What the build directory lies on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BuildFs {
    /// A fresh tmpfs.
    Tmpfs,
    /// The file system that the store lies on.
    Store,
}

/// Address space layout randomisation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Aslr {
    /// `ADDR_NO_RANDOMIZE`, as Nix sets it.
    Off,
    /// The kernel's own.
    On,
}

/// What `uname` tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kernel {
    /// The truth.
    Native,
    /// A release that begins with 2.6, by `UNAME26` (personality(2)).
    Uname26,
}

/// All the settings that one build runs under.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conditions {
    /// The build's first working directory; `/build`, or deeper.
    pub build_dir: String,
    /// The machine's name.
    pub hostname: String,
    /// The machine's NIS domain.
    pub domain: String,
    /// Name of the user in `/etc/passwd` and of the group in `/etc/group`.
    pub user_name: String,
    /// Numeric user.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
    /// File mode creation mask.
    pub umask: Umask,
    /// `TZ`; not set if absent.
    pub time_zone: Option<String>,
    /// `LANG`, `LC_ALL` and `LANGUAGE`; none of them set if absent.
    pub locale: Option<String>,
    /// `HOME`.
    pub home: String,
    /// Appended to `PATH`, after a colon.
    pub path_suffix: Option<String>,
    /// Variables that no build should read.
    pub noise: BTreeMap<String, String>,
    /// How many processors the build may run on; all of the host's if absent.
    pub cpus: Option<NonZeroU32>,
    /// `NIX_BUILD_CORES`.
    pub cores: NonZeroU32,
    /// What the build directory lies on.
    pub build_fs: BuildFs,
    /// Process id of the builder.
    pub first_pid: u32,
    /// Address space layout randomisation.
    pub aslr: Aslr,
    /// What `uname` tells.
    pub kernel: Kernel,
    /// The build starts no earlier than so many seconds after its control began.
    pub start_delay_seconds: u32,
}

impl Conditions {
    /// What every build gets that is not varied: Nix's contract, and nothing that the caller's session would leak. `cores`
    /// is configuration, never the host's count, so that two hosts run the same build.
    pub fn control(cores: NonZeroU32) -> Self {
        Self {
            build_dir: "/build".into(),
            hostname: "localhost".into(),
            domain: "(none)".into(),
            user_name: "nixbld".into(),
            uid: 1000,
            gid: 100,
            umask: Umask::new(0o022),
            time_zone: None,
            locale: None,
            home: "/homeless-shelter".into(),
            path_suffix: None,
            noise: BTreeMap::new(),
            cpus: None,
            cores,
            build_fs: BuildFs::Store,
            first_pid: 2,
            aslr: Aslr::Off,
            kernel: Kernel::Native,
            start_delay_seconds: 0,
        }
    }

    /// The setting of one factor, as reports show it.
    pub fn setting(&self, factor: Factor) -> String {
        let or_unset = |value: &Option<String>| value.clone().unwrap_or_else(|| "unset".into());
        match factor {
            Factor::BuildPath => self.build_dir.clone(),
            Factor::Hostname => self.hostname.clone(),
            Factor::Domain => self.domain.clone(),
            Factor::UserName => self.user_name.clone(),
            Factor::Uid => self.uid.to_string(),
            Factor::Gid => self.gid.to_string(),
            Factor::Umask => self.umask.to_string(),
            Factor::TimeZone => or_unset(&self.time_zone),
            Factor::Locale => or_unset(&self.locale),
            Factor::Home => self.home.clone(),
            Factor::ExecPath => match &self.path_suffix {
                Some(suffix) => format!("PATH:{suffix}"),
                None => "PATH".into(),
            },
            Factor::Environment => match self.noise.len() {
                0 => "the recipe's".into(),
                _ => format!("the recipe's and {}", self.noise.keys().cloned().collect::<Vec<_>>().join(", ")),
            },
            Factor::CpuCount => self.cpus.map_or_else(|| "all".into(), |n| n.to_string()),
            Factor::Parallelism => self.cores.to_string(),
            Factor::FileSystem => match self.build_fs {
                BuildFs::Tmpfs => "tmpfs".into(),
                BuildFs::Store => "the store's".into(),
            },
            Factor::Pid => self.first_pid.to_string(),
            Factor::Aslr => match self.aslr {
                Aslr::Off => "off".into(),
                Aslr::On => "on".into(),
            },
            Factor::Kernel => match self.kernel {
                Kernel::Native => "native".into(),
                Kernel::Uname26 => "2.6".into(),
            },
            Factor::Time => match self.start_delay_seconds {
                0 => "at once".into(),
                n => format!("at least {n} s later"),
            },
        }
    }
}
