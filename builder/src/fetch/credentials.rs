//! User names and passwords of mirrors: netrc, apt's `auth.conf`, and addresses that hold them.
//!
//! They are sent to the host they are written for and to no other, never after a redirect elsewhere, and are never printed:
//! [`Credentials`] has no `Debug` that shows them. A netrc's `default` entry is ignored, since it would be sent to any host.

use std::fmt;
use std::path::PathBuf;

use data_encoding::{BASE64, HEXLOWER_PERMISSIVE};
use url::Url;

use super::host::{Host, text_of};
use super::mirror::Origin;

/// All credentials of the host.
#[derive(Default)]
pub(super) struct Credentials {
    entries: Vec<Entry>,
}

struct Entry {
    source: Source,
    /// `http` or `https`, where the entry says it.
    scheme: Option<String>,
    host: String,
    port: Option<u16>,
    path: String,
    login: String,
    password: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    Netrc,
    /// Only for apt's mirrors, and over http only where the entry itself says `http://` (apt_auth.conf(5)).
    Apt,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials of {} hosts", self.entries.len())
    }
}

impl Credentials {
    /// Those of `$NETRC` or `~/.netrc`, and of apt's files.
    pub(super) fn of(host: &Host, apt_files: &[PathBuf]) -> Self {
        let netrc = match host.variable("NETRC") {
            Some(path) => Some(PathBuf::from(path)),
            None => host.home().map(|home| home.join(".netrc")),
        };
        let mut entries = Vec::new();
        for (source, file) in netrc.iter().map(|f| (Source::Netrc, f)).chain(apt_files.iter().map(|f| (Source::Apt, f)))
        {
            entries.extend(parse(&text_of(file).unwrap_or_default(), source));
        }
        Self { entries }
    }

    /// The value of the `Authorization` header for a mirror's own address.
    pub(super) fn header(&self, url: &Url, origin: Origin) -> Option<String> {
        if !url.username().is_empty() || url.password().is_some() {
            return Some(basic(&decoded(url.username()), &decoded(url.password().unwrap_or_default())));
        }
        let entry = self.entries.iter().find(|entry| entry.is_for(url, origin))?;
        Some(basic(&entry.login, &entry.password))
    }
}

/// `Basic` authentication (RFC 7617).
pub(super) fn basic(login: &str, password: &str) -> String {
    format!("Basic {}", BASE64.encode(format!("{login}:{password}").as_bytes()))
}

impl Entry {
    fn is_for(&self, url: &Url, origin: Origin) -> bool {
        let allowed = match self.source {
            Source::Netrc => true,
            Source::Apt => origin == Origin::Apt && (url.scheme() == "https" || self.scheme.is_some()),
        };
        let below = self.path.is_empty()
            || url.path() == self.path
            || url.path().strip_prefix(&self.path).is_some_and(|r| self.path.ends_with('/') || r.starts_with('/'));
        allowed
            && below
            && url.host_str().is_some_and(|host| host.eq_ignore_ascii_case(&self.host))
            && self.scheme.as_deref().is_none_or(|scheme| scheme == url.scheme())
            && self.port.is_none_or(|port| url.port_or_known_default() == Some(port))
    }
}

fn parse(text: &str, source: Source) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut open = false; // whether the last entry is the one that fields belong to
    let mut in_macro = false;
    for line in text.lines() {
        if line.trim().is_empty() {
            in_macro = false; // an empty line ends a macdef (netrc(5))
        }
        if in_macro || line.trim_start().starts_with('#') {
            continue;
        }
        let mut words = line.split_whitespace();
        while let Some(word) = words.next() {
            match word {
                "machine" => {
                    open = words.next().and_then(|m| machine(m, source)).map(|entry| entries.push(entry)).is_some();
                }
                "default" => open = false,
                "macdef" => {
                    in_macro = true;
                    break;
                }
                "login" | "password" | "account" => {
                    let Some(value) = words.next().map(|v| v.trim_matches('"')) else { break };
                    match (word, entries.last_mut().filter(|_| open)) {
                        ("login", Some(entry)) => entry.login = value.into(),
                        ("password", Some(entry)) => entry.password = value.into(),
                        _ => {}
                    }
                }
                _ => {}
            }
        }
    }
    entries
}

/// `[SCHEME://]HOST[:PORT][/PATH]`; netrc has only the host.
fn machine(word: &str, source: Source) -> Option<Entry> {
    let (scheme, rest) = match word.split_once("://") {
        Some((scheme, rest)) => (Some(scheme.to_ascii_lowercase()), rest),
        None => (None, word),
    };
    let (place, path) = match rest.find('/') {
        Some(slash) => rest.split_at(slash),
        None => (rest, ""),
    };
    let (host, port) = match place.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port.parse().ok()?)),
        _ => (place, None),
    };
    let text = String::new;
    Some(Entry { source, scheme, host: host.into(), port, path: path.into(), login: text(), password: text() })
}

/// `text` without its percent-encoding; a `%` that encodes nothing stays.
pub(super) fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let pair = after.get(..2).filter(|_| first == b'%').and_then(|pair| HEXLOWER_PERMISSIVE.decode(pair).ok());
        match pair {
            Some(byte) => {
                bytes.extend(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(text: &str, source: Source, url: &str, origin: Origin) -> Option<String> {
        Credentials { entries: parse(text, source) }.header(&url.parse().unwrap(), origin)
    }

    #[test]
    fn a_host_has_its_own_credentials_and_no_other() {
        let netrc = "machine a.test\n  login me\n  password s3cret\nmacdef x\nmachine evil.test login e password e\n\n\
                     default login all password all\n";
        let asked = |url| header(netrc, Source::Netrc, url, Origin::Kiln);
        assert_eq!(asked("https://a.test/x"), Some(basic("me", "s3cret")));
        assert_eq!(asked("https://b.test/x"), None);
        assert_eq!(asked("https://evil.test/x"), None);
        assert_eq!(asked("https://a.test.evil.test/x"), None);
    }

    #[test]
    fn apts_entries_are_for_apts_mirrors_below_their_path_and_not_over_http() {
        let auth = "machine a.test/debian login me password x\nmachine http://plain.test login p password y\n";
        let asked = |url, origin| header(auth, Source::Apt, url, origin);
        assert_eq!(asked("https://a.test/debian/pool/x", Origin::Apt), Some(basic("me", "x")));
        assert_eq!(asked("https://a.test/debian/pool/x", Origin::Kiln), None);
        assert_eq!(asked("https://a.test/debianish/x", Origin::Apt), None);
        assert_eq!(asked("http://a.test/debian/x", Origin::Apt), None);
        assert_eq!(asked("http://plain.test/debian/x", Origin::Apt), Some(basic("p", "y")));
    }

    #[test]
    fn an_address_may_hold_credentials_and_they_are_decoded() {
        let url = "https://me%40corp:p%2Bw+1&%26@a.test/";
        assert_eq!(header("", Source::Netrc, url, Origin::Kiln), Some(basic("me@corp", "p+w+1&&")));
    }
}
