//! What a build was made of and what it made: the facts of a bill of materials, in no format.
//!
//! [`Sbom`] is gathered by the builder and printed by [`crate::format`] (`cyclonedx`, `spdx`, `spdx3`). It holds what two
//! rebuilders with one version of kiln must agree on, and so the same bytes come out of each printer: time is the
//! recipe's, the serial is a digest of the facts. What one machine saw is in [`RunDetails`], only where it is asked for.

pub mod licence;

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::Value;
use sha1::Digest as _;

use crate::digest::{Digest, NarHash};
use crate::format::purl::Purl;
use crate::outcome::Moment;
use crate::statement::KILN_URI;

pub use licence::Licence;

/// What a build was made of and what it made.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Sbom {
    /// What was built.
    pub product: Component,
    /// Files and trees that the build made.
    pub outputs: Vec<Component>,
    /// Sources, and outputs of other builds.
    pub inputs: Vec<Component>,
    /// Packages of the environment, and what runs the build.
    pub packages: Vec<Component>,
    /// What each needs, by [`Component::id`], besides the product, which needs all inputs and packages.
    pub depends: BTreeMap<String, BTreeSet<String>>,
    /// How it was built.
    pub build: Build,
    /// Who wrote the recipe.
    pub author: Party,
    /// `SOURCE_DATE_EPOCH`: the one time that all rebuilders agree on.
    pub moment: Moment,
    /// Version of kiln.
    pub kiln: String,
    /// What one machine saw. Not part of what others can agree on.
    #[serde(skip)]
    pub run: Option<RunDetails>,
}

/// A thing with a name and a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Component {
    /// Unique within the bill: `package-gcc-12-amd64`.
    pub id: String,
    /// What it is.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// Its version; for what has none, its digest.
    pub version: String,
    /// One line for people.
    pub description: Option<String>,
    /// Who distributes it.
    pub supplier: Party,
    /// Who made or maintains it, if that is known.
    pub originator: Option<Party>,
    /// Its package URL.
    pub purl: Option<Purl>,
    /// Digest of its bytes: of a file, or of the NAR of a tree.
    pub sha256: Option<Digest>,
    /// Digest of its tree, where its bytes are those of other files.
    pub tree: Option<NarHash>,
    /// What its makers say it is licensed under.
    pub licence: Option<Licence>,
    /// Statements of copyright, one a line.
    pub copyright: Option<String>,
    /// Source package that it was built from, and its version.
    pub source: Option<(String, String)>,
    /// Where its author offers it, if the recipe says so.
    pub location: Option<String>,
}

/// What a component is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// What a recipe builds.
    Product,
    /// A file that the build made.
    File,
    /// A tree that the build made, as a NAR.
    Tree,
    /// Something built from.
    Source,
    /// A package of the environment.
    Package,
}

/// A person or an organisation.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Party {
    /// Which of the two.
    pub kind: PartyKind,
    /// Its name.
    pub name: String,
    /// Where to write to.
    pub email: Option<String>,
}

/// Whether it is one human being.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PartyKind {
    /// One.
    Person,
    /// A team, a project, a company.
    Organization,
}

/// How a build was described.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Build {
    /// Store path of the derivation: its id.
    pub derivation: String,
    /// Digest of the derivation's text.
    pub derivation_sha256: Digest,
    /// What is run.
    pub script: Option<String>,
    /// Variables that the recipe gives it.
    pub parameters: BTreeMap<String, String>,
    /// Digest of the recipe's text, if there is a recipe.
    pub recipe: Option<Digest>,
    /// `x86_64-linux`.
    pub system: String,
    /// Digest of the root file system.
    pub environment: Option<NarHash>,
}

/// What one machine saw of the build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunDetails {
    /// When it was started.
    pub started: Moment,
    /// When it had ended.
    pub finished: Moment,
}

impl Sbom {
    /// Name of this bill, the same wherever the same was built: UUIDv5 (RFC 9562, 5.5) of its address.
    pub fn uuid(&self) -> String {
        uuid5(&self.address())
    }

    /// Address that nobody else uses.
    pub fn address(&self) -> String {
        let facts = serde_json::to_vec(self).expect("strings and maps with string keys are always JSON");
        format!("{KILN_URI}/sbom/{}", Digest::of(facts))
    }

    /// All components: the product first, then outputs, inputs and packages.
    pub fn components(&self) -> impl Iterator<Item = &Component> {
        std::iter::once(&self.product).chain(&self.outputs).chain(self.needed())
    }

    /// What the product was made from: inputs and packages.
    pub fn needed(&self) -> impl Iterator<Item = &Component> {
        self.inputs.iter().chain(&self.packages)
    }

    /// Licences that SPDX does not know, of all components.
    pub fn references(&self) -> BTreeMap<&str, &licence::Reference> {
        let licences = self.components().filter_map(|component| component.licence.as_ref());
        licences.flat_map(|licence| licence.references.iter().map(|(id, text)| (id.as_str(), text))).collect()
    }
}

impl Component {
    /// A component of which no more is known than this.
    pub fn new(id: &str, kind: Kind, name: &str, version: &str, supplier: Party) -> Self {
        Self {
            id: id.into(),
            kind,
            name: name.into(),
            version: version.into(),
            description: None,
            supplier,
            originator: None,
            purl: None,
            sha256: None,
            tree: None,
            licence: None,
            copyright: None,
            source: None,
            location: None,
        }
    }

    /// Digest of its bytes: the file's, else those of its tree as a NAR.
    pub fn bytes(&self) -> Option<Digest> {
        self.sha256.or(self.tree.map(|tree| tree.digest()))
    }

    /// Whether its bytes are a NAR.
    pub fn is_nar(&self) -> bool {
        self.kind == Kind::Tree || self.sha256.is_none() && self.tree.is_some()
    }

    /// Its location, if that is an address on the web and nothing that a reader of addresses would stumble over.
    pub(crate) fn web_location(&self) -> Option<&str> {
        let location = self.location.as_deref()?;
        let web = ["https://", "http://", "ftp://", "git+https://", "git+http://"];
        let plain = location.bytes().all(|b| b.is_ascii_graphic() && !b"<>\"{}|\\^`".contains(&b));
        (plain && web.iter().any(|scheme| location.starts_with(scheme))).then_some(location)
    }

    /// Package URL of the source package that it was built from.
    pub fn source_purl(&self) -> Option<Purl> {
        let (name, version) = self.source.as_ref()?;
        Purl::deb(&self.purl.as_ref()?.namespace(), name, version, "source").ok()
    }
}

/// A JSON document as bytes: members sorted whatever the features of the JSON crate, two blanks to a level, and a newline.
pub(crate) fn document(value: Value) -> Vec<u8> {
    let mut bytes = serde_json::to_vec_pretty(&sorted(value)).expect("a JSON value is always JSON");
    bytes.push(b'\n');
    bytes
}

fn sorted(value: Value) -> Value {
    match value {
        Value::Object(members) => {
            let members: BTreeMap<String, Value> = members.into_iter().map(|(key, v)| (key, sorted(v))).collect();
            Value::Object(members.into_iter().collect())
        }
        Value::Array(items) => items.into_iter().map(sorted).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value,
    }
}

/// The value without members that are null, at every level: they stand for what is absent.
pub(crate) fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(members) => {
            let there = members.into_iter().filter(|(_, value)| !value.is_null());
            Value::Object(there.map(|(key, value)| (key, without_nulls(value))).collect())
        }
        Value::Array(items) => items.into_iter().map(without_nulls).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value,
    }
}

impl Party {
    /// An organisation without an address.
    pub fn organization(name: &str) -> Self {
        Self { kind: PartyKind::Organization, name: name.into(), email: None }
    }

    /// From a maintainer as packages have them: `Name <address>`. Teams are told by their names and lists.
    pub fn maintainer(text: &str) -> Option<Self> {
        let (name, email) = match text.rsplit_once('<') {
            Some((name, rest)) => (name, rest.split_once('>').map(|(email, _)| email.trim())),
            None => (text, None),
        };
        let name = name.trim().trim_matches('"').trim();
        let email = email.filter(|email| !email.is_empty() && !email.contains(char::is_whitespace));
        let name = if name.is_empty() { email? } else { name };
        let words = ["team", "maintainers", "developers", "group", "project", "packagers", "debian"];
        let is_team = name.to_ascii_lowercase().split(|c: char| !c.is_ascii_alphanumeric()).any(|w| words.contains(&w))
            || email.is_some_and(|email| email.contains("@lists.") || email.contains("@tracker."));
        let kind = if is_team { PartyKind::Organization } else { PartyKind::Person };
        Some(Self { kind, name: name.into(), email: email.map(String::from) })
    }
}

/// A name-based UUID in the namespace of addresses (RFC 9562, 5.5 and 6.6).
pub fn uuid5(address: &str) -> String {
    const NAMESPACE_URL: [u8; 16] =
        [0x6b, 0xa7, 0xb8, 0x11, 0x9d, 0xad, 0x11, 0xd1, 0x80, 0xb4, 0x00, 0xc0, 0x4f, 0xd4, 0x30, 0xc8];
    let digest: [u8; 20] = sha1::Sha1::new().chain_update(NAMESPACE_URL).chain_update(address).finalize().into();
    let mut id: [u8; 16] = std::array::from_fn(|n| digest[n]);
    id[6] = id[6] & 0x0f | 0x50;
    id[8] = id[8] & 0x3f | 0x80;
    let hex = data_encoding::HEXLOWER.encode(&id);
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

#[cfg(test)]
pub(crate) mod samples {
    use super::*;

    /// A bill with one of everything.
    pub(crate) fn sample() -> Sbom {
        let debian = || Party::organization("Debian");
        let recipe = || Party::maintainer("Ada Byron <ada@example.org>").expect("a party");
        let mut product = Component::new("product", Kind::Product, "hello", "2.10", recipe());
        product.purl = Purl::generic("hello", "2.10").ok();
        product.licence = Licence::of_expression("GPL-3.0-or-later");
        product.description = Some("Says \"hello\"".into());
        let mut tree = Component::new("output-out", Kind::Tree, "out.nar", "2.10", recipe());
        tree.sha256 = Some(Digest::of("tree"));
        let mut file = Component::new("artifact-bin_hello", Kind::File, "hello", "2.10", recipe());
        file.sha256 = Some(Digest::of("file"));
        let mut source = Component::new("input-src-hello.tar", Kind::Source, "hello.tar", "2.10-3", debian());
        source.purl = Purl::deb("debian", "hello", "2.10-3", "source").ok();
        source.sha256 = Some(Digest::of("source"));
        source.tree = Some(NarHash::new(Digest::of("source tree")));
        source.location = Some("https://example.org/hello.tar".into());
        let package = |name: &str| {
            let mut one = Component::new(&format!("package-{name}-amd64"), Kind::Package, name, "1:12-1+b1", debian());
            one.purl = Purl::deb("debian", name, "1:12-1+b1", "amd64").ok();
            one.sha256 = Some(Digest::of(name));
            one.originator = Party::maintainer("GCC Maintainers <gcc@lists.example.org>");
            one.source = Some(("gcc-12".into(), "1:12-1".into()));
            one
        };
        let mut compiler = package("g++");
        compiler.licence = Some(Licence::of_words("GPL-3+ and odd", &BTreeMap::from([("odd".into(), "Do.".into())])));
        compiler.copyright = Some("2001, A\n2002, B".into());
        Sbom {
            product,
            outputs: vec![tree, file],
            inputs: vec![source],
            packages: vec![compiler, package("libc6")],
            depends: BTreeMap::from([("package-g++-amd64".into(), BTreeSet::from(["package-libc6-amd64".into()]))]),
            build: Build {
                derivation: "/nix/store/0000-hello-2.10.drv".into(),
                derivation_sha256: Digest::of("drv"),
                script: Some("make\nmake install\n".into()),
                parameters: BTreeMap::from([("CFLAGS".into(), "-O2".into())]),
                recipe: Some(Digest::of("recipe")),
                system: "x86_64-linux".into(),
                environment: Some(NarHash::new(Digest::of("environment"))),
            },
            author: recipe(),
            moment: Moment::from_unix(1_416_139_200),
            kiln: "0.1.0".into(),
            run: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::samples::sample;
    use super::*;

    #[test]
    fn a_uuid_of_a_name_is_the_rfc_s() {
        // Python: uuid.uuid5(uuid.NAMESPACE_URL, "https://example.org/")
        assert_eq!(uuid5("https://example.org/"), "527dda32-a0de-5105-a042-cb475b5f7d11");
    }

    #[test]
    fn the_serial_moves_with_the_facts_and_not_with_the_run() {
        let (one, mut other) = (sample(), sample());
        other.run = Some(RunDetails { started: Moment::from_unix(1), finished: Moment::from_unix(2) });
        assert_eq!(one.uuid(), other.uuid());
        other.outputs[0].sha256 = Some(Digest::of("other"));
        assert_ne!(one.uuid(), other.uuid());
    }

    #[test]
    fn a_maintainer_is_a_person_or_a_team() {
        let party = Party::maintainer("Ada Byron <ada@example.org>").unwrap();
        assert_eq!((party.kind, party.email.as_deref()), (PartyKind::Person, Some("ada@example.org")));
        for team in ["Debian GCC Maintainers <gcc@example.org>", "X Team", "x <x@lists.example.org>"] {
            assert_eq!(Party::maintainer(team).unwrap().kind, PartyKind::Organization, "{team}");
        }
        assert_eq!(Party::maintainer("<a@b>").unwrap().name, "a@b");
        assert_eq!(Party::maintainer(" "), None);
    }
}
