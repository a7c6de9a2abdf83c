//! What probes saw inside two sandboxes, and which factors they show to have been varied.
//!
//! A setting that was asked for proves nothing: a mount may be shadowed, a system call ignored. A factor counts as varied
//! only if both builds' probes saw it and saw it differ; a probe that failed makes it "not varied".

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::outcome::Moment;

use super::{Factor, NotVaried, Plan, START_DELAY_SECONDS, Umask};

/// `ADDR_NO_RANDOMIZE` in a personality (personality(2)).
const ADDR_NO_RANDOMIZE: u32 = 0x0004_0000;

/// What a probe saw inside a sandbox, as the build would see it. A fact that could not be had is absent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observed {
    /// `getcwd`.
    #[serde(default)]
    pub cwd: Option<String>,
    /// `uname`'s node name.
    #[serde(default)]
    pub hostname: Option<String>,
    /// `uname`'s domain.
    #[serde(default)]
    pub domain: Option<String>,
    /// Name of the own uid in the sandbox's `/etc/passwd`.
    #[serde(default)]
    pub user_name: Option<String>,
    /// `getuid`.
    #[serde(default)]
    pub uid: Option<u32>,
    /// `getgid`.
    #[serde(default)]
    pub gid: Option<u32>,
    /// `Umask` of `/proc/self/status`.
    #[serde(default)]
    pub umask: Option<Umask>,
    /// Processors in the affinity mask.
    #[serde(default)]
    pub cpus: Option<u32>,
    /// Name of the file system that the build directory lies on.
    #[serde(default)]
    pub file_system: Option<String>,
    /// `getpid` of the builder.
    #[serde(default)]
    pub pid: Option<u32>,
    /// `personality(0xffffffff)`.
    #[serde(default)]
    pub personality: Option<u32>,
    /// `uname`'s release.
    #[serde(default)]
    pub kernel: Option<String>,
    /// When the builder was started, in seconds since 1970.
    #[serde(default)]
    pub unix_time: Option<u64>,
    /// The builder's variables, as passed to `execve`.
    #[serde(default)]
    pub env: Option<BTreeMap<String, String>>,
}

impl Observed {
    /// What was seen of `factor`, as text; `None` where the probe failed.
    pub fn seen(&self, factor: Factor) -> Option<String> {
        let variable = |name: &str| {
            let env = self.env.as_ref()?;
            Some(env.get(name).cloned().unwrap_or_else(|| "unset".into()))
        };
        match factor {
            Factor::BuildPath => self.cwd.clone(),
            Factor::Hostname => self.hostname.clone(),
            Factor::Domain => self.domain.clone(),
            Factor::UserName => self.user_name.clone(),
            Factor::Uid => self.uid.map(|n| n.to_string()),
            Factor::Gid => self.gid.map(|n| n.to_string()),
            Factor::Umask => self.umask.map(|mask| mask.to_string()),
            Factor::TimeZone => variable("TZ"),
            Factor::Locale => variable("LC_ALL"),
            Factor::Home => variable("HOME"),
            Factor::ExecPath => variable("PATH"),
            Factor::Environment => {
                let others = self.env.as_ref()?.iter().filter(|(name, _)| !decided(name));
                Some(others.map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" "))
            }
            Factor::CpuCount => self.cpus.map(|n| n.to_string()),
            Factor::Parallelism => variable("NIX_BUILD_CORES"),
            Factor::FileSystem => self.file_system.clone(),
            Factor::Pid => self.pid.map(|n| n.to_string()),
            Factor::Aslr => {
                self.personality.map(|bits| if bits & ADDR_NO_RANDOMIZE == 0 { "on" } else { "off" }.to_string())
            }
            Factor::Kernel => self.kernel.clone(),
            Factor::Time => self.unix_time.map(|n| Moment::from_unix(n).to_string()),
        }
    }
}

/// Whether another factor than `environment` decides this variable.
fn decided(name: &str) -> bool {
    name.starts_with("LC_")
        || matches!(name, "TZ" | "LANG" | "LANGUAGE" | "HOME" | "PATH" | "NIX_BUILD_CORES")
        || matches!(name, "PWD" | "TMP" | "TEMP" | "TMPDIR" | "TEMPDIR" | "NIX_BUILD_TOP")
}

/// How one factor differed between two builds, as their probes saw it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// What the control saw.
    pub control: String,
    /// What the varied build saw.
    pub varied: String,
}

/// Every factor once: either seen to differ, or not, with the reason.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Effects {
    /// Factors that took effect.
    pub varied: BTreeMap<Factor, Change>,
    /// Factors that did not.
    pub not_varied: BTreeMap<Factor, NotVaried>,
}

impl Effects {
    /// Holds what was planned against what both builds' probes saw.
    pub fn of(plan: &Plan, control: &Observed, varied: &Observed) -> Self {
        let mut effects = Self::default();
        for &factor in Factor::ALL {
            if let Some(reason) = plan.same.get(&factor) {
                effects.not_varied.insert(factor, reason.clone());
                continue;
            }
            match (control.seen(factor), varied.seen(factor)) {
                (Some(control_saw), Some(varied_saw)) => {
                    let differs = match factor {
                        Factor::Time => later(control, varied),
                        _ => control_saw != varied_saw,
                    };
                    if differs {
                        let change = match factor {
                            Factor::Environment => {
                                Change { control: beyond(control, varied), varied: beyond(varied, control) }
                            }
                            _ => Change { control: control_saw, varied: varied_saw },
                        };
                        effects.varied.insert(factor, change);
                    } else {
                        let seen = match factor {
                            Factor::Environment => "the same variables".into(),
                            _ => control_saw,
                        };
                        effects.not_varied.insert(factor, NotVaried::NoEffect { seen });
                    }
                }
                (None, _) | (_, None) => {
                    effects.not_varied.insert(factor, NotVaried::NotProbed);
                }
            }
        }
        effects
    }
}

/// The variables that `own` has and `other` lacks, or has with another value.
fn beyond(own: &Observed, other: &Observed) -> String {
    let (Some(own), Some(other)) = (&own.env, &other.env) else { return String::new() };
    let more: Vec<&str> =
        own.iter().filter(|(n, v)| !decided(n) && other.get(*n) != Some(v)).map(|(n, _)| n.as_str()).collect();
    if more.is_empty() { "none of these".into() } else { more.join(", ") }
}

/// Whether the varied build started late enough for clocks of whole seconds to differ.
fn later(control: &Observed, varied: &Observed) -> bool {
    match (control.unix_time, varied.unix_time) {
        (Some(first), Some(second)) => second >= first.saturating_add(START_DELAY_SECONDS.into()),
        (None, _) | (_, None) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Conditions, Fixed, Means};
    use super::*;
    use std::collections::BTreeSet;
    use std::num::NonZeroU32;

    fn plan() -> Plan {
        let two = NonZeroU32::new(2).unwrap();
        let means =
            Means { cpus: two, store_fs: "ext4".into(), locales: ["et_EE.utf8".to_string()].into(), unix_time: 0 };
        Plan::new(Conditions::control(two), &Fixed::new(["HOME"]), &BTreeSet::new(), &means)
    }

    /// A sandbox that does all that it is told.
    fn obedient(c: &Conditions, start: u64) -> Observed {
        let mut env: BTreeMap<String, String> = c.noise.clone();
        env.insert("HOME".into(), c.home.clone());
        env.insert(
            "PATH".into(),
            format!("/bin{}", c.path_suffix.as_deref().map(|s| format!(":{s}")).unwrap_or_default()),
        );
        env.insert("NIX_BUILD_CORES".into(), c.cores.to_string());
        env.extend(c.time_zone.iter().map(|tz| ("TZ".into(), tz.clone())));
        env.extend(c.locale.iter().map(|l| ("LC_ALL".into(), l.clone())));
        Observed {
            cwd: Some(c.build_dir.clone()),
            hostname: Some(c.hostname.clone()),
            domain: Some(c.domain.clone()),
            user_name: Some(c.user_name.clone()),
            uid: Some(c.uid),
            gid: Some(c.gid),
            umask: Some(c.umask),
            cpus: Some(c.cpus.map_or(2, NonZeroU32::get)),
            file_system: Some(format!("{:?}", c.build_fs)),
            pid: Some(c.first_pid),
            personality: Some(if c.aslr == super::super::Aslr::Off { ADDR_NO_RANDOMIZE } else { 0 }),
            kernel: Some(format!("{:?}", c.kernel)),
            unix_time: Some(start + u64::from(c.start_delay_seconds)),
            env: Some(env),
        }
    }

    #[test]
    fn an_obedient_sandbox_varies_all_but_what_the_recipe_sets() {
        let plan = plan();
        let effects = Effects::of(&plan, &obedient(&plan.control, 100), &obedient(&plan.varied, 100));
        assert_eq!(effects.not_varied.keys().copied().collect::<Vec<_>>(), [Factor::Home]);
        assert_eq!(effects.varied.len(), Factor::ALL.len() - 1);
        assert_eq!(effects.varied[&Factor::Umask], Change { control: "0022".into(), varied: "0077".into() });
        let added =
            Change { control: "none of these".into(), varied: "BUILD_TAG, CAPTURE_ENVIRONMENT, COLUMNS".into() };
        assert_eq!(effects.varied[&Factor::Environment], added);
    }

    #[test]
    fn a_sandbox_that_ignores_its_settings_is_found_out() {
        let plan = plan();
        let effects = Effects::of(&plan, &obedient(&plan.control, 100), &obedient(&plan.control, 100));
        assert_eq!(effects.varied, BTreeMap::new());
        assert_eq!(effects.not_varied[&Factor::Hostname], NotVaried::NoEffect { seen: "localhost".into() });
        assert_eq!(effects.not_varied[&Factor::Time], NotVaried::NoEffect { seen: "1970-01-01T00:01:40Z".into() });
    }

    #[test]
    fn an_environment_that_did_not_change_is_told_by_what_it_holds() {
        let plan = plan();
        let mut varied = obedient(&plan.varied, 100);
        varied.env.as_mut().unwrap().retain(|name, _| decided(name));
        let effects = Effects::of(&plan, &obedient(&plan.control, 100), &varied);
        assert_eq!(effects.not_varied[&Factor::Environment], NotVaried::NoEffect { seen: "the same variables".into() });
    }

    #[test]
    fn a_failed_probe_is_never_a_varied_factor() {
        let plan = plan();
        let effects = Effects::of(&plan, &obedient(&plan.control, 100), &Observed::default());
        assert_eq!(effects.varied, BTreeMap::new());
        assert_eq!(effects.not_varied[&Factor::TimeZone], NotVaried::NotProbed);
        assert_eq!(effects.not_varied[&Factor::Pid], NotVaried::NotProbed);
    }

    #[test]
    fn one_second_is_not_another_time_and_earlier_is_not_later() {
        let plan = plan();
        let control = obedient(&plan.control, 100);
        for (start, varied) in [(97, false), (99, false), (100, true)] {
            let effects = Effects::of(&plan, &control, &obedient(&plan.varied, start));
            assert_eq!(effects.varied.contains_key(&Factor::Time), varied, "{start}");
        }
    }
}
