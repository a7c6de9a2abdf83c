//! Package URLs: one spelling for a package of any ecosystem, `pkg:deb/debian/gcc-12@12.2.0-14?arch=amd64`.
//!
//! [`Purl`] parses and prints the canonical form of the specification (ECMA-427): type in lower case, qualifiers sorted,
//! everything percent-encoded but letters, digits, `.-_~` and `:` (and `/` inside a qualifier's value). What types ask for
//! (deb, pypi and github are spelled in lower case, `_` of pypi is `-`) is applied when one is made, so that two spellings
//! of one package are equal. Knows of no registry.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::digest::serde_as_text;

/// More than any honest purl has.
pub const MOST_BYTES: usize = 16 << 10;

/// A package URL.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Purl {
    kind: String,
    namespace: Vec<String>,
    name: String,
    version: Option<String>,
    qualifiers: BTreeMap<String, String>,
    subpath: Vec<String>,
}

/// Why a text is not a package URL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} is not a package URL: {why}; expected pkg:TYPE/NAMESPACE/NAME@VERSION?KEY=VALUE")]
pub struct PurlError {
    /// The text's beginning.
    pub found: String,
    /// Which rule it breaks.
    pub why: &'static str,
}

impl Purl {
    /// A package of that type and name. `namespace` is separated by slashes, and may be empty.
    pub fn new(kind: &str, namespace: &str, name: &str) -> Result<Self, PurlError> {
        let refuse = |why| PurlError { found: name.chars().take(80).collect(), why };
        let namespace = namespace.split('/').filter(|part| !part.is_empty()).map(String::from).collect();
        let purl = Self {
            kind: kind.into(),
            namespace,
            name: name.into(),
            version: None,
            qualifiers: BTreeMap::new(),
            subpath: Vec::new(),
        };
        purl.settled().map_err(refuse)
    }

    /// A binary package of a distribution with Debian's packages.
    pub fn deb(vendor: &str, name: &str, version: &str, architecture: &str) -> Result<Self, PurlError> {
        Self::new("deb", vendor, name)?.at(version).with("arch", architecture)
    }

    /// A release on the Python package index.
    pub fn pypi(project: &str, version: &str) -> Result<Self, PurlError> {
        Ok(Self::new("pypi", "", project)?.at(version))
    }

    /// A package of no ecosystem.
    pub fn generic(name: &str, version: &str) -> Result<Self, PurlError> {
        Ok(Self::new("generic", "", name)?.at(version))
    }

    /// The same package at `version`; at none if that is empty.
    pub fn at(mut self, version: &str) -> Self {
        self.version = (!version.is_empty()).then(|| version.into());
        self
    }

    /// The same with a qualifier; without it if `value` is empty.
    pub fn with(mut self, key: &str, value: &str) -> Result<Self, PurlError> {
        let key = key.to_ascii_lowercase();
        if !is_key(&key) {
            return Err(PurlError { found: key.chars().take(80).collect(), why: "a qualifier's key is no word" });
        }
        match value {
            "" => self.qualifiers.remove(&key),
            value => self.qualifiers.insert(key, value.into()),
        };
        Ok(self)
    }

    /// Its type: `deb`, `pypi`, `github`, `generic`…
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// Its namespace; empty if it has none.
    pub fn namespace(&self) -> String {
        self.namespace.join("/")
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its version.
    pub fn version(&self) -> Option<&str> {
        self.version.as_deref()
    }

    /// A qualifier's value.
    pub fn qualifier(&self, key: &str) -> Option<&str> {
        self.qualifiers.get(key).map(String::as_str)
    }

    /// Whether `other` is one of those that this one names: equal, but for a version, qualifiers or a path that this one
    /// does not give.
    pub fn names(&self, other: &Self) -> bool {
        (&self.kind, &self.namespace, &self.name) == (&other.kind, &other.namespace, &other.name)
            && self.version.as_ref().is_none_or(|version| Some(version) == other.version.as_ref())
            && self.qualifiers.iter().all(|(key, value)| other.qualifiers.get(key) == Some(value))
            && (self.subpath.is_empty() || self.subpath == other.subpath)
    }

    /// Checks the parts, and spells them as their type asks for.
    fn settled(mut self) -> Result<Self, &'static str> {
        self.kind.make_ascii_lowercase();
        let first = self.kind.bytes().next();
        let word = |b: u8| b.is_ascii_alphanumeric() || b".+-".contains(&b);
        if !first.is_some_and(|b| b.is_ascii_alphabetic()) || !self.kind.bytes().all(word) {
            return Err("the type is no word");
        }
        if matches!(self.kind.as_str(), "deb" | "pypi" | "github" | "gitlab" | "bitbucket") {
            self.namespace.iter_mut().for_each(|part| part.make_ascii_lowercase());
            self.name.make_ascii_lowercase();
        }
        if self.kind == "pypi" {
            self.name = self.name.replace('_', "-");
        }
        if self.name.is_empty() {
            return Err("it has no name");
        }
        if self.namespace.iter().any(|part| part.contains('/')) || self.name.contains('/') {
            return Err("a part of it has a slash");
        }
        if self.subpath.iter().any(|part| part.contains('/') || part == "." || part == "..") {
            return Err("its path leads elsewhere");
        }
        let control = |text: &String| text.chars().any(char::is_control);
        let parts = self.namespace.iter().chain([&self.name]).chain(&self.version).chain(&self.subpath);
        if parts.chain(self.qualifiers.values()).any(control) {
            return Err("it has a control character");
        }
        Ok(self)
    }
}

impl FromStr for Purl {
    type Err = PurlError;

    /// In the order of the specification: from the right for path, qualifiers and version, from the left for the rest.
    fn from_str(text: &str) -> Result<Self, PurlError> {
        let refuse = |why| PurlError { found: text.chars().take(80).collect(), why };
        if text.len() > MOST_BYTES {
            return Err(refuse("it is too long"));
        }
        let (rest, subpath) = text.split_once('#').map_or((text, ""), |(rest, subpath)| (rest, subpath));
        let (rest, qualifiers) = rest.split_once('?').map_or((rest, ""), |(rest, qualifiers)| (rest, qualifiers));
        let rest = match rest.split_once(':') {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("pkg") => rest.trim_start_matches('/'),
            _ => return Err(refuse("it does not begin with pkg:")),
        };
        let (kind, rest) = rest.split_once('/').ok_or_else(|| refuse("it has no name"))?;
        // The last at sign after the last slash: a namespace may have one (npm's), spelled plainly by some.
        let rest = rest.trim_matches('/');
        let (path, version) =
            match rest.rfind('@').filter(|at| *at > 0 && rest.rfind('/').is_none_or(|slash| slash < *at)) {
                Some(at) => (&rest[..at], Some(&rest[at + 1..])),
                None => (rest, None),
            };
        let decode =
            |part: &str| decoded(part).ok_or_else(|| refuse("a percent sign is not followed by a byte of UTF-8"));
        let mut parts = path.split('/').filter(|part| !part.is_empty()).map(decode).collect::<Result<Vec<_>, _>>()?;
        let name = parts.pop().ok_or_else(|| refuse("it has no name"))?;
        let version = version.map(decode).transpose()?.filter(|version| !version.is_empty());
        let mut purl = Self {
            kind: kind.into(),
            namespace: parts,
            name,
            version,
            qualifiers: BTreeMap::new(),
            subpath: Vec::new(),
        };
        for pair in qualifiers.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').ok_or_else(|| refuse("a qualifier has no value"))?;
            let key = key.to_ascii_lowercase();
            if !is_key(&key) {
                return Err(refuse("a qualifier's key is no word"));
            }
            let value = decode(value)?;
            if !value.is_empty() && purl.qualifiers.insert(key, value).is_some() {
                return Err(refuse("a qualifier stands twice"));
            }
        }
        purl.subpath = subpath.split('/').filter(|part| !part.is_empty()).map(decode).collect::<Result<_, _>>()?;
        purl.settled().map_err(refuse)
    }
}

impl fmt::Display for Purl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pkg:{}/", self.kind)?;
        for part in &self.namespace {
            encode(f, part, "")?;
            f.write_char('/')?;
        }
        encode(f, &self.name, "")?;
        if let Some(version) = &self.version {
            f.write_char('@')?;
            encode(f, version, "")?;
        }
        for (n, (key, value)) in self.qualifiers.iter().enumerate() {
            write!(f, "{}{key}=", if n == 0 { '?' } else { '&' })?;
            encode(f, value, "/")?;
        }
        for (n, part) in self.subpath.iter().enumerate() {
            f.write_char(if n == 0 { '#' } else { '/' })?;
            encode(f, part, "")?;
        }
        Ok(())
    }
}

fn encode(f: &mut fmt::Formatter<'_>, text: &str, also: &str) -> fmt::Result {
    for byte in text.bytes() {
        let plain = byte.is_ascii_alphanumeric() || b".-_~:".contains(&byte) || also.as_bytes().contains(&byte);
        match plain {
            true => f.write_char(char::from(byte))?,
            false => write!(f, "%{byte:02X}")?,
        }
    }
    Ok(())
}

fn decoded(text: &str) -> Option<String> {
    let (mut bytes, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        bytes.push(match first {
            b'%' => {
                let digits = after.get(..2)?;
                rest = &after[2..];
                data_encoding::HEXUPPER_PERMISSIVE.decode(digits).ok()?[0]
            }
            byte => *byte,
        });
    }
    String::from_utf8(bytes).ok()
}

fn is_key(key: &str) -> bool {
    key.starts_with(|c: char| c.is_ascii_alphabetic())
        && key.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_".contains(&b))
}

serde_as_text!(Purl);

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical(text: &str) -> String {
        text.parse::<Purl>().unwrap().to_string()
    }

    #[test]
    fn every_spelling_becomes_the_canonical_one() {
        for (given, expected) in [
            (
                "pkg:deb/debian/curl@7.50.3-1?arch=i386&distro=jessie",
                "pkg:deb/debian/curl@7.50.3-1?arch=i386&distro=jessie",
            ),
            ("PKG:Deb/Debian/Curl@1:2.0+b1?distro=x&arch=amd64", "pkg:deb/debian/curl@1:2.0%2Bb1?arch=amd64&distro=x"),
            ("pkg:PYPI/Django_package@1.11.1.dev1", "pkg:pypi/django-package@1.11.1.dev1"),
            (
                "pkg://github/Package-url/Purl-Spec@244fd47#everybody/loves/dogs",
                "pkg:github/package-url/purl-spec@244fd47#everybody/loves/dogs",
            ),
            ("pkg:npm/%40angular/animation@12.3.1", "pkg:npm/%40angular/animation@12.3.1"),
            ("pkg:npm/@angular/animation", "pkg:npm/%40angular/animation"),
            (
                "pkg:generic/bitwarderl?vcs_url=git%2Bhttps://git.example.org/dxr.git%40cc55",
                "pkg:generic/bitwarderl?vcs_url=git%2Bhttps://git.example.org/dxr.git%40cc55",
            ),
            (
                "pkg:golang/example.org/api#/googleapis/api/annotations/",
                "pkg:golang/example.org/api#googleapis/api/annotations",
            ),
            ("pkg:generic/a@?b=", "pkg:generic/a"),
        ] {
            assert_eq!(canonical(given), expected);
            assert_eq!(canonical(expected), expected);
        }
    }

    #[test]
    fn what_is_made_prints_what_it_should() {
        let purl = Purl::deb("debian", "g++-12", "12.2.0-14+deb12u1", "amd64").unwrap();
        assert_eq!(purl.to_string(), "pkg:deb/debian/g%2B%2B-12@12.2.0-14%2Bdeb12u1?arch=amd64");
        assert_eq!(purl.to_string().parse(), Ok(purl));
        assert_eq!(Purl::pypi("A_b", "1!2").unwrap().to_string(), "pkg:pypi/a-b@1%212");
    }

    #[test]
    fn a_purl_without_a_version_names_every_version_and_no_other_package() {
        let exact: Purl = "pkg:deb/debian/curl@1?arch=amd64".parse().unwrap();
        for (pattern, names) in [
            ("pkg:deb/debian/curl", true),
            ("pkg:deb/debian/curl@1", true),
            ("pkg:deb/debian/curl@1?arch=amd64", true),
            ("pkg:deb/debian/curl@2", false),
            ("pkg:deb/debian/curl?arch=i386", false),
            ("pkg:deb/ubuntu/curl", false),
            ("pkg:deb/debian/curl#sub", false),
        ] {
            assert_eq!(pattern.parse::<Purl>().unwrap().names(&exact), names, "{pattern}");
        }
    }

    #[test]
    fn what_is_no_purl_is_refused() {
        for text in [
            "",
            "pkg:",
            "pkg:deb",
            "pkg:deb/",
            "deb/debian/curl",
            "pkg:1deb/a",
            "pkg:a b/c",
            "pkg:a/%zz",
            "pkg:a/%ff",
            "pkg:a/b%2fc",
            "pkg:a/b?x",
            "pkg:a/b?1=2",
            "pkg:a/b?x=1&X=2",
            "pkg:a/b#../c",
            "pkg:a/b%00",
        ] {
            assert!(text.parse::<Purl>().is_err(), "{text:?}");
        }
        assert!(Purl::new("deb", "", "a/b").is_err());
        assert!(Purl::new("deb", "", "").is_err());
        assert!("pkg:a/b".repeat(4000).parse::<Purl>().is_err());
    }
}
