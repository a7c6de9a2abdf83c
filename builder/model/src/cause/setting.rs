//! A setting of a build: what to change so that a suspected cause is shown or ruled out.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

macro_rules! names {
    ($($(#[$doc:meta])* $variant:ident $text:literal;)*) => {
        /// What can be set.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum SettingName {
            $($(#[$doc])* $variant,)*
        }

        impl SettingName {
            /// All there are.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The word before the equals sign.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)*
                }
            }
        }
    };
}

names! {
    /// A word of `DEB_BUILD_OPTIONS`: `notrimdch`.
    BuildOptions "build-options";
    /// The directory that is built in.
    BuildPath "build-path";
    /// How the changelog is changed first: `binnmu` prepends the published entry of a binary-only rebuild.
    Changelog "changelog";
    /// The date that the build sees.
    Clock "clock";
    /// `SOURCE_DATE_EPOCH` in seconds, or `unset`.
    Epoch "epoch";
    /// Times of the files of the source: `now` stamps them all.
    FileTimes "file-times";
    /// Diagnostic: the identity that the compiler writes into what it makes. It alters the toolchain.
    Identity "identity";
    /// The locale.
    Locale "locale";
    /// Packages of another version: `NAME:VERSION`.
    Pin "pin";
    /// The time zone.
    TimeZone "time-zone";
    /// The file mode creation mask.
    Umask "umask";
}

/// A setting, written `NAME=VALUE`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Setting {
    /// What is set.
    pub name: SettingName,
    /// What to.
    pub value: String,
}

/// A text that is no setting.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} is not a setting: expected NAME=VALUE with one of {}", SettingName::ALL.iter().map(|n| n.as_str()).collect::<Vec<_>>().join(", "))]
pub struct SettingError {
    /// The text as given.
    pub found: String,
}

impl Setting {
    /// `name` set to `value`.
    pub fn new(name: SettingName, value: impl Into<String>) -> Self {
        Self { name, value: value.into() }
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.name.as_str(), self.value)
    }
}

impl FromStr for Setting {
    type Err = SettingError;

    fn from_str(text: &str) -> Result<Self, SettingError> {
        let wrong = || SettingError { found: text.into() };
        let (name, value) = text.split_once('=').ok_or_else(wrong)?;
        let name = SettingName::ALL.iter().copied().find(|n| n.as_str() == name).ok_or_else(wrong)?;
        Ok(Self::new(name, value))
    }
}

impl Serialize for Setting {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Setting {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_is_written_as_the_targets_write_it_and_read_back() {
        let setting = Setting::new(SettingName::BuildOptions, "notrimdch");
        assert_eq!(setting.to_string(), "build-options=notrimdch");
        assert_eq!("build-options=notrimdch".parse(), Ok(setting));
        assert_eq!("pin=perl:5.36.0-7=x".parse(), Ok(Setting::new(SettingName::Pin, "perl:5.36.0-7=x")));
        assert!("notrimdch".parse::<Setting>().is_err() && "clocks=1".parse::<Setting>().is_err());
    }
}
