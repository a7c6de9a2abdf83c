//! What is varied between two builds of one derivation.
//!
//! [`Conditions`] are all the settings that one build runs under; they belong to its outcome and never to the derivation.
//! [`Plan::new`] derives the varied conditions from the control's and says of every factor that stays as it is why.
//! [`observed`] holds both builds' probes against the plan: only a factor that was seen to differ inside the sandboxes
//! counts as varied. [`suspect`] looks for the varied values in bytes that differ.
//! Knows nothing of how a sandbox brings a setting about.

mod conditions;
pub mod observed;
pub mod suspect;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

pub use conditions::{Aslr, BuildFs, Conditions, Kernel, Umask, UmaskError};

/// The locale that is varied to: its collation and its number format are unlike those of C.
pub const VARIED_LOCALE: &str = "et_EE.UTF-8";

/// A varied build starts at least this long after its control began, so that whole-second clocks differ (zip rounds to two).
pub const START_DELAY_SECONDS: u32 = 2;

macro_rules! factors {
    ($($(#[$doc:meta])* $variant:ident $text:literal $labels:expr;)*) => {
        /// One thing that is varied between builds.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "kebab-case")]
        pub enum Factor {
            $($(#[$doc])* $variant,)*
        }

        impl Factor {
            /// Every factor, in the order in which reports list them.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The word in reports and on the command line.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)*
                }
            }

            /// The causes that releasing this factor can show, the main one first.
            pub fn labels(self) -> &'static [Label] {
                match self {
                    $(Self::$variant => $labels,)*
                }
            }
        }
    };
}

factors! {
    /// Where the build runs.
    BuildPath "build-path" &[Label::Path];
    /// The machine's name.
    Hostname "hostname" &[Label::Host];
    /// The machine's NIS domain.
    Domain "domain" &[Label::Host];
    /// What the build's uid is called in `/etc/passwd`.
    UserName "user-name" &[Label::User];
    /// The numeric user.
    Uid "uid" &[Label::User];
    /// The numeric group.
    Gid "gid" &[Label::User];
    /// The file mode creation mask.
    Umask "umask" &[Label::Umask];
    /// `TZ`.
    TimeZone "time-zone" &[Label::Tz];
    /// `LANG`, `LC_ALL` and `LANGUAGE`.
    Locale "locale" &[Label::Locale];
    /// `HOME`.
    Home "home" &[Label::Home];
    /// `PATH`.
    ExecPath "exec-path" &[Label::ExecPath];
    /// Variables that no build should read.
    Environment "environment" &[Label::Env];
    /// Processors that the build may run on.
    CpuCount "cpu-count" &[Label::Ncpu, Label::Race];
    /// `NIX_BUILD_CORES`: jobs that the build may run at once.
    Parallelism "parallelism" &[Label::Race, Label::Ncpu];
    /// The file system below the build directory.
    FileSystem "file-system" &[Label::Fs, Label::Order, Label::Inode];
    /// The first process id that the build sees.
    Pid "pid" &[Label::Pid];
    /// Address space layout randomisation.
    Aslr "aslr" &[Label::Aslr];
    /// The kernel's release, as `uname` tells it.
    Kernel "kernel" &[Label::Kernel];
    /// When the build started.
    Time "time" &[Label::Time, Label::Mtime, Label::Monotime];
}

macro_rules! labels {
    ($($(#[$doc:meta])* $variant:ident $text:literal;)*) => {
        /// The name of a cause, as the zoo and the literature spell it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum Label {
            $($(#[$doc])* #[serde(rename = $text)] $variant,)*
        }

        impl Label {
            /// The label's text.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)*
                }
            }
        }
    };
}

labels! {
    /// The clock.
    Time "TIME";
    /// A file's modification time.
    Mtime "MTIME";
    /// A clock that only measures durations.
    Monotime "MONOTIME";
    /// The time zone.
    Tz "TZ";
    /// The locale.
    Locale "LOCALE";
    /// A variable.
    Env "ENV";
    /// The home directory.
    Home "HOME";
    /// The search path of programs.
    ExecPath "EXECPATH";
    /// The build directory.
    Path "PATH";
    /// User or group, by name or number.
    User "USER";
    /// The file mode creation mask.
    Umask "UMASK";
    /// The machine's name or domain.
    Host "HOST";
    /// The kernel's name or release.
    Kernel "KERNEL";
    /// The number of processors.
    Ncpu "NCPU";
    /// The processor's model or features.
    Cpuid "CPUID";
    /// Where things lie in memory.
    Aslr "ASLR";
    /// A process id.
    Pid "PID";
    /// Randomness.
    Random "RANDOM";
    /// The order of a directory's entries.
    Order "ORDER";
    /// An inode or device number.
    Inode "INODE";
    /// A property of the file system.
    Fs "FS";
    /// The order in which processes or threads happened to run.
    Race "RACE";
    /// None of these was shown.
    Unknown "UNKNOWN";
    /// The published one is a binary-only rebuild, with a changelog entry of its own.
    BinNmu "binnmu";
    /// The one has its changelog whole, the other as debhelper trims it today.
    ChangelogTrimming "changelog-trimming";
    /// The compiler was another revision of the same version.
    CompilerRevision "compiler-revision";
    /// Something that was built against had another version.
    DependencyVersion "dependency-version";
    /// Times of files that a build made, beside those that its source had.
    FileTimes "file-times";
    /// The one has compiled modules that the other has not.
    NativeExtension "native-extension";
    /// Another version of a program that built it.
    OlderToolchain "older-toolchain";
    /// Only what debug information fed into the build id, and that is not there any more.
    StrippedDebugInfo "stripped-debug-info";
}

impl Factor {
    /// The main cause that it stands for.
    pub fn label(self) -> Label {
        self.labels()[0]
    }
}

impl fmt::Display for Factor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The variables that a recipe sets itself. What they decide is not varied.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fixed(BTreeSet<String>);

impl Fixed {
    /// Those variables; of a recipe `build.env`'s keys, of a foreign derivation all of its environment's.
    pub fn new(variables: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self(variables.into_iter().map(Into::into).collect())
    }

    /// The variable that decides `factor`, if one was set. One locale variable decides all: the others would override it.
    pub fn by(&self, factor: Factor) -> Option<&str> {
        let first = |names: &[&str]| self.0.iter().find(|v| names.contains(&v.as_str())).map(String::as_str);
        match factor {
            Factor::TimeZone => first(&["TZ"]),
            Factor::Locale => {
                self.0.iter().find(|v| v.starts_with("LC_") || *v == "LANG" || *v == "LANGUAGE").map(String::as_str)
            }
            Factor::Home => first(&["HOME"]),
            Factor::ExecPath => first(&["PATH"]),
            Factor::Parallelism => first(&["NIX_BUILD_CORES"]),
            Factor::BuildPath
            | Factor::Hostname
            | Factor::Domain
            | Factor::UserName
            | Factor::Uid
            | Factor::Gid
            | Factor::Umask
            | Factor::Environment
            | Factor::CpuCount
            | Factor::FileSystem
            | Factor::Pid
            | Factor::Aslr
            | Factor::Kernel
            | Factor::Time => None,
        }
    }
}

/// What of the host and of the environment decides how far factors can be varied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Means {
    /// Processors that kiln itself may run on.
    pub cpus: NonZeroU32,
    /// Name of the file system that the store lies on: `ext4`, `tmpfs`.
    pub store_fs: String,
    /// Locales that the environment's programs find (`locale -a`'s spelling or the full one).
    pub locales: BTreeSet<String>,
    /// Now, in seconds since 1970: decides which time zone has another date.
    pub unix_time: u64,
}

/// Why a factor was not varied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all = "kebab-case")]
pub enum NotVaried {
    /// The recipe decides it.
    SetByRecipe {
        /// By this variable.
        variable: String,
    },
    /// There is no fewer than one.
    OneCpu,
    /// The environment cannot show it.
    NoLocale {
        /// The locale that is missing.
        locale: String,
    },
    /// Both choices are one file system.
    SameFileSystem {
        /// Its name.
        file_system: String,
    },
    /// The caller asked for it to be held.
    Held,
    /// The probe saw the same on both sides.
    NoEffect {
        /// What it saw.
        seen: String,
    },
    /// The probe saw nothing on one side.
    NotProbed,
}

impl fmt::Display for NotVaried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SetByRecipe { variable } => write!(f, "set by the recipe ({variable})"),
            Self::OneCpu => f.write_str("the host has one processor"),
            Self::NoLocale { locale } => write!(f, "the environment lacks the locale {locale}"),
            Self::SameFileSystem { file_system } => write!(f, "the store is on {file_system} as well"),
            Self::Held => f.write_str("held on request"),
            Self::NoEffect { seen } => write!(f, "set, but both builds saw {seen}"),
            Self::NotProbed => f.write_str("no probe could show that it took effect"),
        }
    }
}

/// A control, its varied companion, and what they have in common by necessity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The conditions of the first build.
    pub control: Conditions,
    /// The conditions of the other.
    pub varied: Conditions,
    /// Factors that are the same in both, with the reason. Every other factor differs.
    pub same: BTreeMap<Factor, NotVaried>,
}

impl Plan {
    /// Varies everything that `means` allow, except what the recipe fixes and what the caller wants `held`.
    pub fn new(control: Conditions, fixed: &Fixed, held: &BTreeSet<Factor>, means: &Means) -> Self {
        let mut varied = control.clone();
        let mut same = BTreeMap::new();
        for &factor in Factor::ALL {
            let done = if held.contains(&factor) {
                Err(NotVaried::Held)
            } else if let Some(variable) = fixed.by(factor) {
                Err(NotVaried::SetByRecipe { variable: variable.into() })
            } else {
                varied.vary(factor, fixed, means)
            };
            if let Err(reason) = done {
                same.insert(factor, reason);
            }
        }
        Self { control, varied, same }
    }

    /// The factors that differ.
    pub fn factors(&self) -> impl Iterator<Item = Factor> {
        Factor::ALL.iter().copied().filter(|f| !self.same.contains_key(f))
    }
}

impl Conditions {
    /// Changes one factor. Values are of another length than the control's and rare enough to be found in bytes.
    fn vary(&mut self, factor: Factor, fixed: &Fixed, means: &Means) -> Result<(), NotVaried> {
        match factor {
            // Below /build, since that is the one place where a build directory can be mounted.
            Factor::BuildPath => self.build_dir = format!("{}/another/much-longer-path", self.build_dir),
            Factor::Hostname => self.hostname = "another-hostname".into(),
            Factor::Domain => self.domain = "another-domain.example".into(),
            Factor::UserName => self.user_name = "another-user".into(),
            Factor::Uid => self.uid += 3177,
            Factor::Gid => self.gid += 4178,
            Factor::Umask => self.umask = Umask::new(self.umask.bits() ^ 0o055),
            // POSIX signs (XBD 8.3): GMT-14 is 14 hours ahead of UTC, GMT+12 is 12 behind. The control has UTC; of the two
            // the one is taken whose date is another than in UTC for at least two hours more.
            Factor::TimeZone => {
                let hour = means.unix_time / 3600 % 24;
                self.time_zone = Some(if hour < 10 { "GMT+12" } else { "GMT-14" }.into());
            }
            Factor::Locale => {
                let wanted = spelled_plainly(VARIED_LOCALE);
                if !means.locales.iter().any(|l| spelled_plainly(l) == wanted) {
                    return Err(NotVaried::NoLocale { locale: VARIED_LOCALE.into() });
                }
                self.locale = Some(VARIED_LOCALE.into());
            }
            Factor::Home => self.home = "/nonexistent/another-home".into(),
            Factor::ExecPath => self.path_suffix = Some("/nonexistent/another-path".into()),
            // Not CFLAGS and the like: a build obeys those rightly.
            Factor::Environment => {
                self.noise =
                    [("BUILD_TAG", "another-tag"), ("CAPTURE_ENVIRONMENT", "another-value"), ("COLUMNS", "67")]
                        .into_iter()
                        .filter(|(name, _)| !fixed.0.contains(*name))
                        .map(|(name, value)| (name.into(), value.into()))
                        .collect();
                if self.noise.is_empty() {
                    return Err(NotVaried::SetByRecipe { variable: "CAPTURE_ENVIRONMENT".into() });
                }
            }
            // Half, so that a varied build takes at most about twice as long as its control.
            Factor::CpuCount => {
                let all = self.cpus.map_or(means.cpus, |n| n.min(means.cpus));
                match NonZeroU32::new(all.get() / 2) {
                    Some(half) => self.cpus = Some(half),
                    None => return Err(NotVaried::OneCpu),
                }
            }
            Factor::Parallelism => {
                self.cores = NonZeroU32::new(self.cores.get() / 2).unwrap_or(self.cores.saturating_add(1))
            }
            Factor::FileSystem => {
                if means.store_fs == "tmpfs" {
                    return Err(NotVaried::SameFileSystem { file_system: means.store_fs.clone() });
                }
                self.build_fs = match self.build_fs {
                    BuildFs::Tmpfs => BuildFs::Store,
                    BuildFs::Store => BuildFs::Tmpfs,
                };
            }
            Factor::Pid => self.first_pid += 5000,
            Factor::Aslr => self.aslr = Aslr::On,
            Factor::Kernel => self.kernel = Kernel::Uname26,
            Factor::Time => self.start_delay_seconds = START_DELAY_SECONDS,
        }
        Ok(())
    }
}

/// A locale's name as `locale -a` has it: `et_EE.UTF-8` and `et_EE.utf8` are one (setlocale(3) normalises the codeset).
fn spelled_plainly(locale: &str) -> String {
    match locale.split_once('.') {
        Some((language, codeset)) => {
            let codeset: String = codeset.chars().filter(char::is_ascii_alphanumeric).collect();
            format!("{language}.{}", codeset.to_ascii_lowercase())
        }
        None => locale.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn control() -> Conditions {
        Conditions::control(NonZeroU32::new(2).unwrap())
    }

    fn means() -> Means {
        Means {
            cpus: NonZeroU32::new(2).unwrap(),
            store_fs: "ext4".into(),
            locales: ["C.utf8".to_string(), "et_EE.utf8".to_string()].into(),
            unix_time: 1_795_311_000,
        }
    }

    fn plan(fixed: &[&str]) -> Plan {
        Plan::new(control(), &Fixed::new(fixed.iter().copied()), &BTreeSet::new(), &means())
    }

    #[test]
    fn with_all_means_every_factor_is_varied_to_another_setting() {
        let plan = plan(&[]);
        assert_eq!(plan.same, BTreeMap::new());
        for factor in plan.factors() {
            assert_ne!(plan.control.setting(factor), plan.varied.setting(factor), "{factor}");
        }
    }

    #[test]
    fn the_control_is_nixs_contract() {
        let json = serde_json::to_string(&control()).unwrap();
        assert_eq!(
            json,
            r#"{"build_dir":"/build","hostname":"localhost","domain":"(none)","user_name":"nixbld","uid":1000,"gid":100,"umask":"0022","time_zone":null,"locale":null,"home":"/homeless-shelter","path_suffix":null,"noise":{},"cpus":null,"cores":2,"build_fs":"store","first_pid":2,"aslr":"off","kernel":"native","start_delay_seconds":0}"#
        );
        assert_eq!(serde_json::from_str::<Conditions>(&json).unwrap(), control());
    }

    #[test]
    fn what_the_recipe_sets_is_left_alone_and_said() {
        let plan = plan(&["TZ", "LC_CTYPE", "HOME", "PATH", "COLUMNS"]);
        let said: Vec<String> = plan.same.iter().map(|(f, why)| format!("{f}: {why}")).collect();
        assert_eq!(
            said,
            [
                "time-zone: set by the recipe (TZ)",
                "locale: set by the recipe (LC_CTYPE)",
                "home: set by the recipe (HOME)",
                "exec-path: set by the recipe (PATH)"
            ]
        );
        assert_eq!(plan.varied.time_zone, None);
        assert_eq!(plan.varied.noise.keys().collect::<Vec<_>>(), ["BUILD_TAG", "CAPTURE_ENVIRONMENT"]);
    }

    #[test]
    fn a_poor_host_is_told_what_it_cannot_vary() {
        let poor = Means {
            cpus: NonZeroU32::MIN,
            store_fs: "tmpfs".into(),
            locales: ["C.utf8".to_string()].into(),
            unix_time: 0,
        };
        let plan = Plan::new(control(), &Fixed::default(), &[Factor::Aslr].into(), &poor);
        assert_eq!(
            plan.same.keys().copied().collect::<Vec<_>>(),
            [Factor::Locale, Factor::CpuCount, Factor::FileSystem, Factor::Aslr]
        );
        assert_eq!(plan.same[&Factor::Aslr], NotVaried::Held);
    }

    #[test]
    fn the_varied_time_zone_always_has_another_date() {
        for hour in 0..24_i64 {
            let means = Means { unix_time: 86_400 * 20_000 + hour as u64 * 3600, ..means() };
            let varied = Plan::new(control(), &Fixed::default(), &BTreeSet::new(), &means).varied;
            let ahead = match varied.time_zone.as_deref() {
                Some("GMT-14") => 14,
                Some("GMT+12") => -12,
                other => panic!("{other:?}"),
            };
            assert_ne!((hour + ahead).div_euclid(24), 0, "at {hour} h UTC");
        }
    }

    #[test]
    fn a_umask_is_octal_and_nothing_else() {
        assert_eq!("0022".parse(), Ok(Umask::new(0o022)));
        for bad in ["", "8", "+22", "1777", "0x12", " 022"] {
            assert!(bad.parse::<Umask>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn words_in_json_are_those_on_the_command_line() {
        for &factor in Factor::ALL {
            assert_eq!(serde_json::to_value(factor).unwrap(), factor.as_str());
            assert_eq!(serde_json::to_value(factor.label()).unwrap(), factor.label().as_str());
        }
    }

    proptest! {
        #[test]
        fn a_factor_is_either_the_same_with_a_reason_or_differs(
            cores in 1_u32..64, cpus in 1_u32..64, hour in 0_u64..24, held in proptest::sample::subsequence(Factor::ALL, 0..5),
            fixed in proptest::sample::subsequence(vec!["TZ", "LANG", "HOME", "PATH", "NIX_BUILD_CORES", "BUILD_TAG"], 0..6),
        ) {
            let means = Means { cpus: NonZeroU32::new(cpus).unwrap(), unix_time: hour * 3600, ..means() };
            let control = Conditions::control(NonZeroU32::new(cores).unwrap());
            let plan = Plan::new(control, &Fixed::new(fixed), &held.into_iter().collect(), &means);
            for &factor in Factor::ALL {
                let differs = plan.control.setting(factor) != plan.varied.setting(factor);
                prop_assert_eq!(differs, !plan.same.contains_key(&factor), "{}", factor);
            }
        }
    }
}
