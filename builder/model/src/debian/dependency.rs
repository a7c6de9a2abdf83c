//! Dependency fields: clauses of alternatives, each a package with version, architectures and build profiles.
//!
//! `a (>= 1) [amd64] <!nocheck> | b:any, c`. Reference: Policy 7.1, deb-src-control(5). Borrows from the field. It knows
//! no archive; what satisfies a relation is asked of [`Relation::accepts`] with a version, by `universe`.

use std::fmt;

use super::version::Version;

/// Alternatives in one clause, clauses in one field: beyond any honest field.
const LIMIT: usize = 100_000;

/// How a version is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    /// `<<`
    Earlier,
    /// `<=`
    EarlierOrEqual,
    /// `=`
    Equal,
    /// `>=`
    LaterOrEqual,
    /// `>>`
    Later,
}

/// What stands after a package's name and a colon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Qualifier<'a> {
    /// Nothing.
    None,
    /// `:any`
    Any,
    /// `:native`
    Native,
    /// An architecture.
    Architecture(&'a str),
}

/// One alternative.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relation<'a> {
    /// Name of a package, real or virtual.
    pub package: &'a str,
    /// Of which architecture.
    pub qualifier: Qualifier<'a>,
    /// Which versions.
    pub version: Option<(Operator, Version<'a>)>,
    /// `[…]`, words as written; empty if absent.
    pub architectures: Vec<&'a str>,
    /// `<…> <…>`: one list of words per pair of brackets.
    pub profiles: Vec<Vec<&'a str>>,
}

/// Alternatives, any of which will do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clause<'a>(pub Vec<Relation<'a>>);

/// Why a text is not a dependency field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("dependency {found:?}: {why}")]
pub struct DependencyError {
    /// The alternative at fault.
    pub found: String,
    /// What is wrong with it.
    pub why: String,
}

/// The clauses of a field, in order. Empty clauses (a comma at the end) are passed over, as `dpkg` does.
pub fn parse(field: &str) -> Result<Vec<Clause<'_>>, DependencyError> {
    let mut clauses = Vec::new();
    let mut count = 0;
    for clause in field.split(',').filter(|clause| !clause.trim_ascii().is_empty()) {
        let mut relations = Vec::new();
        for relation in clause.split('|') {
            count += 1;
            if count > LIMIT {
                return Err(DependencyError {
                    found: relation.chars().take(80).collect(),
                    why: format!("more than {LIMIT} alternatives in one field"),
                });
            }
            relations.push(Relation::parse(relation)?);
        }
        clauses.push(Clause(relations));
    }
    Ok(clauses)
}

/// The clauses that hold for a build on `architecture` with the active `profiles`: alternatives that do not apply are
/// taken out, and clauses that lose all of theirs.
pub fn applicable<'a>(clauses: Vec<Clause<'a>>, architecture: &str, profiles: &[&str]) -> Vec<Clause<'a>> {
    let keep = |relation: &Relation<'_>| relation.applies(architecture, profiles);
    let reduced = clauses.into_iter().map(|clause| Clause(clause.0.into_iter().filter(keep).collect()));
    reduced.filter(|clause| !clause.0.is_empty()).collect()
}

impl<'a> Relation<'a> {
    /// One alternative from its text.
    pub fn parse(text: &'a str) -> Result<Self, DependencyError> {
        let refuse = |why: String| DependencyError { found: text.trim_ascii().chars().take(80).collect(), why };
        let text_ = text.trim_ascii();
        let end = text_.find(|c: char| c.is_ascii_whitespace() || "([<".contains(c)).unwrap_or(text_.len());
        let (name, mut rest) = (&text_[..end], text_[end..].trim_ascii_start());
        let (package, qualifier) = match name.split_once(':') {
            None => (name, Qualifier::None),
            Some((package, "any")) => (package, Qualifier::Any),
            Some((package, "native")) => (package, Qualifier::Native),
            Some((package, architecture)) if is_word(architecture) => (package, Qualifier::Architecture(architecture)),
            Some((_, other)) => return Err(refuse(format!("{other:?} is no architecture"))),
        };
        if !is_package(package) {
            return Err(refuse(format!("{package:?} is no package name; expected letters, digits and + - .")));
        }
        let mut relation = Self { package, qualifier, version: None, architectures: Vec::new(), profiles: Vec::new() };
        while let Some(open) = rest.chars().next() {
            let close = match open {
                '(' if relation.version.is_none()
                    && relation.architectures.is_empty()
                    && relation.profiles.is_empty() =>
                {
                    ')'
                }
                '[' if relation.architectures.is_empty() && relation.profiles.is_empty() => ']',
                '<' => '>',
                _ => return Err(refuse(format!("did not expect {:?}", rest.chars().take(20).collect::<String>()))),
            };
            let inner_end = rest.find(close).ok_or_else(|| refuse(format!("{open:?} is never closed")))?;
            let inner = rest[1..inner_end].trim_ascii();
            rest = rest[inner_end + 1..].trim_ascii_start();
            match open {
                '(' => {
                    let (operator, version) = operator(inner)
                        .ok_or_else(|| refuse(format!("{inner:?} does not start with <<, <=, =, >= or >>")))?;
                    let version = Version::parse(version.trim_ascii()).map_err(|e| refuse(e.to_string()))?;
                    relation.version = Some((operator, version));
                }
                _ => {
                    let words: Vec<_> = inner.split_ascii_whitespace().collect();
                    if words.is_empty() || !words.iter().all(|word| is_word(word.strip_prefix('!').unwrap_or(word))) {
                        return Err(refuse(format!("expected words between {open:?} and {close:?}, found {inner:?}")));
                    }
                    match open {
                        '[' => relation.architectures = words,
                        _ => relation.profiles.push(words),
                    }
                }
            }
        }
        Ok(relation)
    }

    /// Whether it holds on `architecture` under the active `profiles`.
    pub fn applies(&self, architecture: &str, profiles: &[&str]) -> bool {
        // Policy 7.1: all words are negated or none is.
        let listed = |negated: bool| {
            self.architectures.iter().any(|word| {
                word.starts_with('!') == negated && covers(word.strip_prefix('!').unwrap_or(word), architecture)
            })
        };
        let negative = self.architectures.iter().any(|word| word.starts_with('!'));
        let here = self.architectures.is_empty() || if negative { !listed(true) } else { listed(false) };
        here && self.applies_to_profiles(profiles)
    }

    /// Whether it holds for a build with these profiles, on whatever architecture.
    pub fn applies_to_profiles(&self, profiles: &[&str]) -> bool {
        let active = |word: &&str| match word.strip_prefix('!') {
            Some(word) => !profiles.contains(&word),
            None => profiles.contains(word),
        };
        self.profiles.is_empty() || self.profiles.iter().any(|all| all.iter().all(active))
    }

    /// Whether a package of this version (`None`: a virtual package without one) is meant.
    pub fn accepts(&self, version: Option<Version<'_>>) -> bool {
        let Some((operator, bound)) = &self.version else { return true };
        let Some(version) = version else { return false };
        match operator {
            Operator::Earlier => version < *bound,
            Operator::EarlierOrEqual => version <= *bound,
            Operator::Equal => version == *bound,
            Operator::LaterOrEqual => version >= *bound,
            Operator::Later => version > *bound,
        }
    }
}

/// The operator and what follows. `<` and `>` are old spellings of `<=` and `>=`, as `dpkg` still reads them.
fn operator(text: &str) -> Option<(Operator, &str)> {
    const OPERATORS: [(&str, Operator); 7] = [
        ("<<", Operator::Earlier),
        ("<=", Operator::EarlierOrEqual),
        (">>", Operator::Later),
        (">=", Operator::LaterOrEqual),
        ("=", Operator::Equal),
        ("<", Operator::EarlierOrEqual),
        (">", Operator::LaterOrEqual),
    ];
    OPERATORS.iter().find_map(|(spelling, operator)| Some((*operator, text.strip_prefix(spelling)?)))
}

/// Policy 5.6.1, but capitals and one character too: real archives have had both.
fn is_package(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
}

fn is_word(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.+_".contains(&b))
}

/// Whether an architecture wildcard (`any`, `linux-any`, `any-amd64`) covers an architecture (Policy 11.1).
fn covers(wildcard: &str, architecture: &str) -> bool {
    if wildcard == architecture || wildcard == "any" {
        return true;
    }
    let (os, cpu) = architecture.split_once('-').unwrap_or(("linux", architecture));
    let parts: Vec<_> = wildcard.split('-').collect();
    let fits = |part: &str, is: &str| part == "any" || part == is;
    // `os-cpu`, or `libc-os-cpu` where every architecture kiln knows of has the GNU libc.
    match parts[..] {
        [a, b] if parts.contains(&"any") => fits(a, os) && fits(b, cpu),
        [libc, a, b] if parts.contains(&"any") => fits(libc, "gnu") && fits(a, os) && fits(b, cpu),
        _ => false,
    }
}

impl fmt::Display for Relation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.package)?;
        match self.qualifier {
            Qualifier::None => {}
            Qualifier::Any => f.write_str(":any")?,
            Qualifier::Native => f.write_str(":native")?,
            Qualifier::Architecture(architecture) => write!(f, ":{architecture}")?,
        }
        if let Some((operator, version)) = &self.version {
            let operator = match operator {
                Operator::Earlier => "<<",
                Operator::EarlierOrEqual => "<=",
                Operator::Equal => "=",
                Operator::LaterOrEqual => ">=",
                Operator::Later => ">>",
            };
            write!(f, " ({operator} {version})")?;
        }
        if !self.architectures.is_empty() {
            write!(f, " [{}]", self.architectures.join(" "))?;
        }
        for list in &self.profiles {
            write!(f, " <{}>", list.join(" "))?;
        }
        Ok(())
    }
}

impl fmt::Display for Clause<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, relation) in self.0.iter().enumerate() {
            write!(f, "{}{relation}", if n == 0 { "" } else { " | " })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_relation_is_read_and_printed() {
        let text =
            "debhelper-compat (= 13), libfoo-dev:native (>= 1:2~3) [linux-any !i386] <!nocheck> <a b> | perl:any";
        let clauses = parse(text).unwrap();
        assert_eq!(clauses.len(), 2);
        let printed: Vec<_> = clauses.iter().map(ToString::to_string).collect();
        assert_eq!(printed.join(", "), text);
        assert_eq!(clauses[1].0[0].qualifier, Qualifier::Native);
        assert_eq!(parse(" a,\n b , ").unwrap().len(), 2);
        assert_eq!(parse("a(<<1)").unwrap()[0].to_string(), "a (<< 1)");
    }

    #[test]
    fn restrictions_are_decided_for_one_architecture_and_its_profiles() {
        let applies = |text: &str, profiles: &[&str]| Relation::parse(text).unwrap().applies("amd64", profiles);
        assert!(applies("a [amd64 arm64]", &[]) && applies("a [linux-any]", &[]) && applies("a [any-amd64]", &[]));
        assert!(applies("a [!i386]", &[]) && applies("a [gnu-any-any]", &[]) && applies("a [any]", &[]));
        assert!(!applies("a [i386]", &[]) && !applies("a [!amd64]", &[]) && !applies("a [hurd-any]", &[]));
        assert!(!applies("a [!linux-any]", &[]) && !applies("a [musl-any-any]", &[]));
        assert!(applies("a <!nocheck>", &[]) && !applies("a <!nocheck>", &["nocheck"]));
        assert!(!applies("a <cross>", &[]) && applies("a <cross> <!nodoc>", &[]));
        assert!(!applies("a <!nodoc !nocheck>", &["nodoc"]));
        let clauses = applicable(parse("a [i386] | b, c [i386]").unwrap(), "amd64", &[]);
        assert_eq!(clauses.iter().map(ToString::to_string).collect::<Vec<_>>(), ["b"]);
    }

    #[test]
    fn a_version_is_held_against_its_bound_and_no_version_against_none() {
        let accepts = |text: &str, version| Relation::parse(text).unwrap().accepts(version);
        let two = Version::parse("2").ok();
        assert!(accepts("a", None) && accepts("a", two) && accepts("a (= 2)", two) && accepts("a (>= 1)", two));
        assert!(!accepts("a (= 2)", None) && !accepts("a (<< 2)", two) && !accepts("a (>> 2)", two));
    }

    #[test]
    fn what_is_no_relation_is_refused() {
        for text in [
            "a b",
            "a (1)",
            "a (>= )",
            "a (>= 1",
            "a [",
            "a []",
            "a <>",
            "(>= 1)",
            "a:",
            "a |",
            "a [i386] (= 1)",
            "a (= 1) (= 2)",
            "/etc",
        ] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }
}
