//! How a rebuild is done, beside what the publisher did by default: each setting is honest (it could have been so at the
//! publisher's), is part of what is built, and is told in the report.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use kiln_model::cause::{Setting, SettingName};
use kiln_model::wheel::times::Epoch;

/// Settings of one rebuild.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Settings {
    /// Whether the package's own tests run.
    pub tests: Tests,
    /// Further words of `DEB_BUILD_OPTIONS`.
    pub build_options: BTreeSet<String>,
    /// Versions that the environment must have, by package; for a wheel's also `<VERSION`, below which they must be.
    pub pins: BTreeMap<String, String>,
    /// Packages that the environment must have besides: what a wheel is compiled with.
    pub packages: BTreeSet<String>,
    /// What is done to the changelog.
    pub changelog: Changelog,
    /// What stands in for recorded versions that are gone.
    pub substitute: Substitute,
    /// `TZ` of the build of a wheel; `UTC` if absent.
    pub time_zone: Option<String>,
    /// `SOURCE_DATE_EPOCH` of the build of a wheel; what the reference shows if absent.
    pub epoch: Option<Epoch>,
}

/// Whether a package's own tests run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tests {
    /// As official builders run them.
    #[default]
    Run,
    /// They are left out, and the report says so.
    Skip,
}

/// What is done to the changelog of a Debian source.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Changelog {
    /// Nothing.
    #[default]
    AsIs,
    /// The entry of the published binary-only rebuild is put before it.
    Binnmu,
}

/// What stands in for recorded versions that are gone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Substitute {
    /// Nothing: the rebuild is inconclusive.
    #[default]
    None,
    /// The version nearest to it that there is.
    Nearest,
}

impl Settings {
    /// The settings that are not the default, by name, as reports have them.
    pub fn told(&self) -> BTreeMap<String, String> {
        let mut told = BTreeMap::new();
        if self.tests == Tests::Skip {
            told.insert("no-check".into(), String::new());
        }
        if !self.build_options.is_empty() {
            let words: Vec<&str> = self.build_options.iter().map(String::as_str).collect();
            told.insert("build-options".into(), words.join(","));
        }
        if !self.pins.is_empty() {
            let words: Vec<String> = self.pins.iter().map(|(name, version)| format!("{name}:{version}")).collect();
            told.insert("pin".into(), words.join(","));
        }
        if !self.packages.is_empty() {
            told.insert("package".into(), self.packages.iter().cloned().collect::<Vec<_>>().join(","));
        }
        if self.changelog == Changelog::Binnmu {
            told.insert("changelog".into(), "binnmu".into());
        }
        if self.substitute == Substitute::Nearest {
            told.insert("substitute".into(), "nearest".into());
        }
        if let Some(zone) = &self.time_zone {
            told.insert("time-zone".into(), zone.clone());
        }
        match self.epoch {
            Some(Epoch::At(seconds)) => drop(told.insert("epoch".into(), seconds.to_string())),
            Some(Epoch::Unset) => drop(told.insert("epoch".into(), "unset".into())),
            None => {}
        }
        told
    }
}

impl Settings {
    /// These settings and `setting`, if a rebuild can be told it.
    pub fn with(&self, setting: &Setting) -> Option<Self> {
        let mut settings = self.clone();
        match setting.name {
            SettingName::BuildOptions => {
                settings.build_options.extend(setting.value.split([' ', ',']).map(str::to_string));
            }
            SettingName::Changelog if setting.value == "binnmu" => settings.changelog = Changelog::Binnmu,
            SettingName::Pin => {
                for pin in setting.value.split(',') {
                    let (name, version) = pin.split_once(':')?;
                    settings.pins.insert(name.into(), version.into());
                }
            }
            SettingName::TimeZone => settings.time_zone = Some(setting.value.clone()),
            SettingName::Epoch => {
                settings.epoch = Some(match setting.value.as_str() {
                    "unset" => Epoch::Unset,
                    seconds => Epoch::At(seconds.parse().ok()?),
                });
            }
            SettingName::BuildPath
            | SettingName::Changelog
            | SettingName::Clock
            | SettingName::FileTimes
            | SettingName::Identity
            | SettingName::Locale
            | SettingName::Umask => return None,
        }
        (settings != *self).then_some(settings)
    }
}

impl fmt::Display for Settings {
    /// The settings in words, as the ground truth of targets has them: `build-options=notrimdch`, or `default`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = |(name, value): (String, String)| match value.is_empty() {
            true => name,
            false => format!("{name}={value}"),
        };
        let words: Vec<String> = self.told().into_iter().map(word).collect();
        f.write_str(if words.is_empty() { "default" } else { "" })?;
        f.write_str(&words.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suggested_setting_is_added_once_and_what_cannot_be_set_is_not() {
        let setting = |text: &str| text.parse::<Setting>().unwrap();
        let settings = Settings::default().with(&setting("build-options=notrimdch")).unwrap();
        assert_eq!(settings.to_string(), "build-options=notrimdch");
        assert_eq!(settings.with(&setting("build-options=notrimdch")), None);
        let settings = settings.with(&setting("pin=perl:5.36.0-7+deb12u3")).unwrap();
        assert_eq!(settings.to_string(), "build-options=notrimdch pin=perl:5.36.0-7+deb12u3");
        assert_eq!(settings.with(&setting("clock=2024-07-25")), None);
        let zone =
            Settings::default().with(&setting("time-zone=<-05>5")).unwrap().with(&setting("epoch=unset")).unwrap();
        assert_eq!(zone.to_string(), "epoch=unset time-zone=<-05>5");
        assert_eq!(zone.with(&setting("epoch=soon")), None);
        assert_eq!(Settings::default().to_string(), "default");
    }
}
