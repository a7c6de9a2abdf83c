//! The table of a capsule: what a build needs to be done again, member by member, each with size and digest.
//!
//! A capsule is a tar, compressed with zstd: this table (`capsule.json`, RFC 8785) first, then its members in its order,
//! and nothing else. A member's name says what it is ([`Place`]); no other name is known, so none can lead anywhere. Files and
//! trees are named by their digests. Who reads a capsule believes none of it: digests are held against the bytes.
//!
//! The build is a recipe's under its lock, or that of derivations as they are. Those rest on store paths, which the table says
//! how to make of its trees ([`Source`]): each follows from its own contents, so nobody is believed for them either.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::canonical::{self, CanonicalError, Limits};
use crate::digest::{Digest, NarHash, serde_as_text};
use crate::store_path::{ContentAddress, StorePath};

/// The only schema there is.
pub const SCHEMA: &str = "kiln/capsule/v1";
/// Name of the table itself.
pub const TABLE: &str = "capsule.json";
/// What is read of a table: some hundred thousand members.
pub const LIMITS: Limits = Limits { bytes: 32 << 20, depth: 8 };
/// Bytes of a recipe, a lock or a derivation.
pub const MOST_TEXT: u64 = 64 << 20;
/// Bytes of an outcome: those of large outputs list every file.
pub const MOST_OUTCOME: u64 = 512 << 20;
/// Bytes of a file or a tree: the largest number that canonical JSON holds exactly (RFC 7493, 2.2).
pub const MOST_BYTES: u64 = (1 << 53) - 1;
/// Levels of directories that recipes may lie in.
const MOST_DEPTH: usize = 16;

/// The table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// [`SCHEMA`].
    pub schema: String,
    /// Directory of the recipe to be built, below `recipes`; empty if it is that itself. `None`: its derivation is all there is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipe: Option<String>,
    /// Store path of its derivation.
    pub derivation: StorePath,
    /// What derivations without a recipe rest on, sorted by path.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<Source>,
    /// What follows, in this order.
    pub members: Vec<Member>,
}

/// A store path that no build here makes: a source, or an output whose digest is fixed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Source {
    /// Where builds find it.
    pub path: StorePath,
    /// The digest of its archive: the name of a member among the trees.
    pub nar_hash: NarHash,
    /// How its path follows from what it holds.
    pub address: ContentAddress,
    /// What it names: other sources, and itself if it does.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub references: BTreeSet<StorePath>,
}

/// One member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// What it is.
    #[serde(rename = "path")]
    pub place: Place,
    /// Bytes.
    pub size: u64,
    /// Digest of the bytes.
    pub sha256: Digest,
}

/// What a member is, as its name says. In the order in which members stand.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// `outcome.json`: what the machine saw that made the capsule.
    Outcome,
    /// `statement.json`: what somebody signed that came out, in place of that. An envelope or a bundle.
    Statement,
    /// `derivations/HASH-NAME.drv`.
    Derivation(StorePath),
    /// `recipes/…/recipe.toml` or `recipes/…/recipe.lock`: a file of a recipe, where recipes lie to each other.
    Recipe(String),
    /// `files/SHA256`: a package, or a file of a source.
    File(Digest),
    /// `trees/SHA256.nar`: a source that is a tree, by the digest of its archive.
    Tree(NarHash),
}

/// Why a text is no name of a member.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{found:?} is no member of a capsule: expected outcome.json, statement.json, derivations/HASH-NAME.drv, recipes/…/recipe.toml, \
     recipes/…/recipe.lock, files/SHA256 or trees/SHA256.nar"
)]
pub struct PlaceError {
    /// The text's beginning.
    pub found: String,
}

/// Why a table is none.
#[derive(Debug, thiserror::Error)]
pub enum CapsuleError {
    /// Not JSON of this form.
    #[error("capsule.json")]
    Json(#[from] CanonicalError),
    /// Another version.
    #[error("capsule.json: schema is {found:?}; this kiln reads {SCHEMA:?}")]
    Schema {
        /// What it says.
        found: String,
    },
    /// Members out of order, or twice.
    #[error("capsule.json: {member} stands after {before}: members must be sorted and single")]
    Order {
        /// The later.
        member: String,
        /// The earlier.
        before: String,
    },
    /// Something that every capsule has.
    #[error("capsule.json: {member} is missing")]
    Missing {
        /// Which member.
        member: String,
    },
    /// Two things that are said to have come out.
    #[error("capsule.json: it has both outcome.json and statement.json: one of them says what came out")]
    Both,
    /// A member whose name and digest disagree.
    #[error("capsule.json: {member} is said to have the digest {digest}, which is not its name")]
    Digest {
        /// The member.
        member: String,
        /// What is said.
        digest: Digest,
    },
    /// Recipes and sources of derivations, of which a build has one.
    #[error("capsule.json: {member} goes with {expected}: a capsule is of a recipe or of derivations")]
    Mixed {
        /// What does not belong there.
        member: String,
        /// Where it would.
        expected: &'static str,
    },
    /// A source at a path that is another's.
    #[error("capsule.json: sources: {path} is not where {address} with what it names lies")]
    Address {
        /// Where it is said to lie.
        path: StorePath,
        /// What it is said to hold.
        address: ContentAddress,
    },
    /// A source that names what is not there.
    #[error("capsule.json: sources: {path} names {reference}, which is not among them")]
    Reference {
        /// The source.
        path: StorePath,
        /// What it names.
        reference: StorePath,
    },
    /// A text that is larger than any.
    #[error("capsule.json: {member} is said to have {size} bytes: at most {most} are read")]
    TooLarge {
        /// The member.
        member: String,
        /// What is said.
        size: u64,
        /// The bound.
        most: u64,
    },
}

impl Table {
    /// The table as bytes.
    pub fn print(&self) -> Result<Vec<u8>, CapsuleError> {
        self.check()?;
        Ok(canonical::print(self)?)
    }

    /// A table from its bytes.
    pub fn parse(bytes: &[u8]) -> Result<Self, CapsuleError> {
        let table: Self = canonical::parse(bytes, LIMITS)?;
        table.check()?;
        Ok(table)
    }

    fn check(&self) -> Result<(), CapsuleError> {
        if self.schema != SCHEMA {
            return Err(CapsuleError::Schema { found: self.schema.chars().take(80).collect() });
        }
        if let Some(pair) = self.members.windows(2).find(|pair| pair[0].place >= pair[1].place) {
            let (before, member) = (pair[0].place.to_string(), pair[1].place.to_string());
            return Err(CapsuleError::Order { member, before });
        }
        let files =
            |recipe: &String| ["recipe.toml", "recipe.lock"].map(|file| Place::Recipe(recipe_file(recipe, file)));
        let needed = self.recipe.as_ref().map(files).into_iter().flatten();
        let has = |place: &Place| self.members.iter().any(|member| member.place == *place);
        for place in [Place::Derivation(self.derivation.clone())].into_iter().chain(needed) {
            if !has(&place) {
                return Err(CapsuleError::Missing { member: place.to_string() });
            }
        }
        match (has(&Place::Outcome), has(&Place::Statement)) {
            (true, false) | (false, true) => {}
            (false, false) => return Err(CapsuleError::Missing { member: Place::Outcome.to_string() }),
            (true, true) => return Err(CapsuleError::Both),
        }
        self.check_sources()?;
        self.members.iter().try_for_each(Member::check)
    }

    fn check_sources(&self) -> Result<(), CapsuleError> {
        match (&self.recipe, self.sources.first()) {
            (Some(_), Some(source)) => {
                return Err(CapsuleError::Mixed { member: source.path.to_string(), expected: "derivations" });
            }
            (Some(_), None) => return Ok(()),
            (None, _) => {}
        }
        let of_recipes = |member: &&Member| matches!(member.place, Place::Recipe(_) | Place::File(_));
        if let Some(member) = self.members.iter().find(of_recipes) {
            return Err(CapsuleError::Mixed { member: member.place.to_string(), expected: "a recipe" });
        }
        if let Some(pair) = self.sources.windows(2).find(|pair| pair[0].path >= pair[1].path) {
            let (before, member) = (pair[0].path.to_string(), pair[1].path.to_string());
            return Err(CapsuleError::Order { member, before });
        }
        let there: BTreeSet<&StorePath> = self.sources.iter().map(|source| &source.path).collect();
        for Source { path, address, references, .. } in &self.sources {
            if let Some(reference) = references.iter().find(|reference| !there.contains(reference)) {
                return Err(CapsuleError::Reference { path: path.clone(), reference: reference.clone() });
            }
            if !address.yields(path, references) {
                return Err(CapsuleError::Address { path: path.clone(), address: address.clone() });
            }
        }
        Ok(())
    }
}

impl Member {
    fn check(&self) -> Result<(), CapsuleError> {
        let member = || self.place.to_string();
        let (named, most) = match &self.place {
            Place::Outcome => (None, MOST_OUTCOME),
            Place::Statement | Place::Derivation(_) | Place::Recipe(_) => (None, MOST_TEXT),
            Place::File(digest) => (Some(*digest), MOST_BYTES),
            Place::Tree(nar_hash) => (Some(nar_hash.digest()), MOST_BYTES),
        };
        if named.is_some_and(|named| named != self.sha256) {
            return Err(CapsuleError::Digest { member: member(), digest: self.sha256 });
        }
        if self.size > most {
            return Err(CapsuleError::TooLarge { member: member(), size: self.size, most });
        }
        Ok(())
    }
}

/// Path below `recipes` of a file of the recipe in `directory`.
pub fn recipe_file(directory: &str, file: &str) -> String {
    if directory.is_empty() { file.into() } else { format!("{directory}/{file}") }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Outcome => f.write_str("outcome.json"),
            Self::Statement => f.write_str("statement.json"),
            Self::Derivation(path) => write!(f, "derivations/{}", path.base_name()),
            Self::Recipe(path) => write!(f, "recipes/{path}"),
            Self::File(digest) => write!(f, "files/{digest}"),
            Self::Tree(nar_hash) => write!(f, "trees/{}.nar", nar_hash.digest()),
        }
    }
}

impl FromStr for Place {
    type Err = PlaceError;

    /// Takes exactly what it would print.
    fn from_str(text: &str) -> Result<Self, PlaceError> {
        let place = match text.split_once('/') {
            None if text == "outcome.json" => Some(Self::Outcome),
            None if text == "statement.json" => Some(Self::Statement),
            Some(("derivations", base)) => {
                let path = StorePath::from_base_name(base).ok().filter(|path| path.name().ends_with(".drv"));
                path.map(Self::Derivation)
            }
            Some(("recipes", path)) => is_recipe_file(path).then(|| Self::Recipe(path.into())),
            Some(("files", digest)) => digest.parse().ok().map(Self::File),
            Some(("trees", name)) => {
                name.strip_suffix(".nar").and_then(|digest| digest.parse().ok()).map(|d| Self::Tree(NarHash::new(d)))
            }
            None | Some(_) => None,
        };
        let found = || PlaceError { found: text.chars().take(80).collect() };
        place.filter(|place| place.to_string() == text).ok_or_else(found)
    }
}

/// Relative, without dots, control characters or anything that a file system may take for something else.
fn is_recipe_file(path: &str) -> bool {
    let good = |part: &str| {
        let plain = part.chars().all(|c| !c.is_control() && c != '\\');
        !part.is_empty() && part != "." && part != ".." && part.len() <= 255 && plain
    };
    let file = path.rsplit('/').next().unwrap_or(path);
    matches!(file, "recipe.toml" | "recipe.lock")
        && path.split('/').all(good)
        && path.split('/').count() <= MOST_DEPTH
        && path.len() <= 4000
}

serde_as_text!(Place);

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let member =
            |place: &str, text: &str| Member { place: place.parse().unwrap(), size: 3, sha256: Digest::of(text) };
        let derivation: StorePath = format!("/nix/store/{}-hello-1.drv", "0".repeat(32)).parse().unwrap();
        let digest = Digest::of("file");
        Table {
            schema: SCHEMA.into(),
            recipe: Some("hello".into()),
            sources: Vec::new(),
            members: vec![
                member("outcome.json", "o"),
                member(&format!("derivations/{}", derivation.base_name()), "d"),
                member("recipes/hello/recipe.lock", "l"),
                member("recipes/hello/recipe.toml", "r"),
                member(&format!("files/{digest}"), "file"),
                member(&format!("trees/{digest}.nar"), "file"),
            ],
            derivation,
        }
    }

    #[test]
    fn a_printed_table_parses_back_to_itself_and_its_bytes_do_not_move() {
        let bytes = table().print().unwrap();
        assert_eq!(Table::parse(&bytes).unwrap(), table());
        assert_eq!(Digest::of(&bytes).to_string(), "093704f68eaef4eb71189fe4fc56d1021cd77938ece99c7b771042975cd0038e");
    }

    #[test]
    fn a_name_that_could_lead_elsewhere_is_none() {
        let digest = Digest::of("x");
        for name in [
            "",
            "/",
            "recipe.toml",
            "recipes/recipe.sh",
            "recipes/../recipe.toml",
            "recipes//recipe.toml",
            "recipes/./recipe.toml",
            "/recipes/recipe.toml",
            "recipes/a/../../recipe.toml",
            "recipes/a\\b/recipe.toml",
            "recipes/a\n/recipe.toml",
            "files/x",
            "files/",
            "trees/x.nar",
            "derivations/x.drv",
            "derivations/../x.drv",
            "outcome.json/",
            "files/../outcome.json",
        ] {
            assert!(name.parse::<Place>().is_err(), "{name:?}");
        }
        assert!(format!("files/sha256:{digest}").parse::<Place>().is_err());
        assert!(format!("files/{}", digest.to_string().to_uppercase()).parse::<Place>().is_err());
        assert!(format!("recipes/{}recipe.toml", "a/".repeat(MOST_DEPTH)).parse::<Place>().is_err());
    }

    #[test]
    fn a_table_that_is_not_in_order_lacks_something_or_contradicts_itself_is_refused() {
        let refused = |change: &dyn Fn(&mut Table)| {
            let mut changed = table();
            change(&mut changed);
            let bytes = canonical::print(&changed).unwrap();
            Table::parse(&bytes).unwrap_err().to_string()
        };
        assert!(refused(&|t| t.members.swap(0, 1)).contains("sorted"));
        assert!(refused(&|t| t.members.insert(0, t.members[0].clone())).contains("single"));
        assert!(refused(&|t| t.schema = "kiln/capsule/v2".into()).contains("schema"));
        assert!(refused(&|t| t.recipe = Some("other".into())).contains("missing"));
        assert!(refused(&|t| drop(t.members.remove(0))).contains("outcome.json is missing"));
        assert!(
            refused(&|t| {
                let statement = Member { place: Place::Statement, ..t.members[0].clone() };
                t.members.insert(1, statement);
            })
            .contains("both")
        );
        assert!(refused(&|t| t.members[4].sha256 = Digest::of("other")).contains("not its name"));
        assert!(refused(&|t| t.members[2].size = u64::from(u32::MAX)).contains("at most"));
        // Found by fuzzing: it was read and could not be written.
        let printed = String::from_utf8(table().print().unwrap()).unwrap();
        let large = printed.replace("\"size\":3", "\"size\":111111111111111111");
        assert!(Table::parse(large.as_bytes()).unwrap_err().to_string().contains("at most"));
    }

    /// One of a derivation with a source that names another.
    fn of_derivations() -> Table {
        let text = |name: &str, references: &[&StorePath]| {
            let references: BTreeSet<_> = references.iter().map(|&path| path.clone()).collect();
            let path = StorePath::text(name, name.as_bytes(), &references).unwrap();
            let address = StorePath::text_address(name.as_bytes()).parse().unwrap();
            Source { path, nar_hash: NarHash::new(Digest::of(name)), address, references }
        };
        let named = text("named", &[]);
        let mut sources = vec![text("naming", &[&named.path]), named];
        sources.sort_by(|a, b| a.path.cmp(&b.path));
        let mut table = table();
        table.members.retain(|member| !matches!(member.place, Place::Recipe(_) | Place::File(_)));
        Table { recipe: None, sources, ..table }
    }

    #[test]
    fn a_table_of_derivations_parses_back_and_every_source_lies_where_its_contents_say() {
        let bytes = of_derivations().print().unwrap();
        assert_eq!(Table::parse(&bytes).unwrap(), of_derivations());
        let refused = |change: &dyn Fn(&mut Table)| {
            let mut changed = of_derivations();
            change(&mut changed);
            Table::parse(&canonical::print(&changed).unwrap()).unwrap_err().to_string()
        };
        assert!(refused(&|t| t.sources.swap(0, 1)).contains("sorted"));
        assert!(refused(&|t| t.recipe = Some("hello".into())).contains("missing"));
        assert!(refused(&|t| t.members = table().members).contains("goes with a recipe"));
        let mut both = table();
        both.sources = of_derivations().sources;
        assert!(both.print().unwrap_err().to_string().contains("goes with derivations"));
        for index in 0..2 {
            assert!(
                refused(&|t| t.sources[index].address = t.sources[1 - index].address.clone()).contains("not where")
            );
        }
        let naming = of_derivations().sources.iter().position(|source| !source.references.is_empty()).unwrap();
        assert!(refused(&|t| t.sources[naming].references.clear()).contains("not where"));
        assert!(refused(&|t| drop(t.sources.remove(1 - naming))).contains("which is not among them"));
    }
}
