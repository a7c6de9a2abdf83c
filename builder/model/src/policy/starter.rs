//! A first policy, written from evidence that was seen, with a comment on each choice that its reader must make.
//!
//! It is a proposal: that a key signed something says nothing of who holds it. So every key is asked to be confirmed, and
//! whoever shares a host is taken for one operator. What it prints, [`super::Policy::parse`] takes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::{BUILD_TYPE, Form};
use crate::key::KeyId;
use crate::outcome::Moment;

/// What was seen of one artifact.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observed {
    /// The artifact's purl, if a statement or the caller names it.
    pub purl: Option<String>,
    /// The artifact's file name.
    pub name: String,
    /// Pairs of builder id and key that signed provenance of it.
    pub rebuilders: BTreeSet<(String, KeyId)>,
    /// Keys that said in others' forms that they have it, and what those forms call whoever that is.
    pub others: BTreeSet<(KeyId, Form, Option<String>)>,
    /// Build types in that provenance.
    pub build_types: BTreeSet<String>,
    /// External parameters with their values.
    pub external_parameters: BTreeMap<String, BTreeSet<String>>,
    /// Whether log proofs came with it.
    pub logged: Logged,
}

/// Whether evidence came with proofs of a transparency log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Logged {
    /// It did not.
    #[default]
    No,
    /// It did.
    Yes,
}

/// A rebuilder as it is proposed.
#[derive(Debug, Default)]
struct Proposed {
    keys: BTreeSet<KeyId>,
    accepts: BTreeSet<Form>,
}

/// Rebuilders by operator and id. A key stands in one place only, with all that it said.
fn proposed(observed: &Observed) -> BTreeMap<(String, String), Proposed> {
    let mut found: BTreeMap<(String, String), Proposed> = BTreeMap::new();
    let mut places: BTreeMap<KeyId, (String, String)> = BTreeMap::new();
    for (id, key) in &observed.rebuilders {
        let place = (operator(id).to_owned(), id.clone());
        found.entry(place.clone()).or_default().keys.insert(*key);
        places.insert(*key, place);
    }
    for (key, form, name) in &observed.others {
        let place = places.entry(*key).or_insert_with(|| {
            // Only OSS-Rebuild's statements have the id of a builder; what stands for it elsewhere is a name for readers.
            match (form, name) {
                (Form::OssRebuild, Some(id)) => (operator(id).to_owned(), id.clone()),
                (_, Some(name)) => (name.clone(), format!("nix-key:{name}")),
                (_, None) => {
                    let digits: String = key.to_string().chars().take(8).collect();
                    (format!("key-{digits}"), format!("key:{digits}"))
                }
            }
        });
        let one = found.entry(place.clone()).or_default();
        one.keys.insert(*key);
        one.accepts.insert(*form);
    }
    found
}

/// The text of a commented policy. `today` begins the keys' validity, which lasts a year.
pub fn starter(observed: &Observed, today: Moment) -> String {
    let proposed = proposed(observed);
    let operators: BTreeSet<&String> = proposed.keys().map(|(operator, _)| operator).collect();
    let agreeing = operators.len().clamp(1, 2);
    let (tools, why) = match observed.others.is_empty() {
        true => (1, ""),
        false => (0, "   # 0: others' forms name no tool"),
    };
    let (match_, resource) = match observed.purl.as_deref().and_then(|purl| purl.split('@').next()) {
        Some(unversioned) => (format!("{unversioned}@*"), "{version}/{name}"),
        None => ("*".into(), "{name}"),
    };
    let logged = observed.logged == Logged::Yes;

    let mut text = String::from(
        "# Written by `kiln policy init` from evidence that was seen. It trusts nobody that you do not confirm: read every\n\
         # line, ask each rebuilder for its key on another way than the evidence came, then run `kiln policy check`.\n",
    );
    let _ = write!(
        text,
        "schema = 1\n\n\
         [artifact]\n\
         match = {}                      # purls that this policy is for\n\
         # Where you fetch the artifact: a summary that you issue is about this address only.\n\
         resource_uri = {}\n\n\
         [threshold]\n\
         identical = {agreeing}                       # distinct operators that must have built the very same bytes\n\
         on_dissent = \"deny\"                  # one operator that says DIFFERENT is a veto; warn and outvote are weaker\n\
         min_independence = {{ operators = {agreeing}, tool_versions = {tools}, architectures_or_os = 0 }}{why}\n",
        quoted(&match_),
        quoted(&format!("https://dl.example.org/{resource}")),
    );
    if operators.is_empty() {
        text.push_str(
            "\n# No evidence was seen: name the rebuilders that you believe.\n\
             # [[rebuilder]]\n\
             # id = \"https://rb1.example.org/kiln/sandboxed\"\n\
             # operator = \"org-a\"\n\
             # keys = [\"sha256:…\"]\n\
             # valid = [\"2026-01-01\", \"2027-01-01\"]\n",
        );
    }
    let until = Moment::from_unix(today.unix() + 365 * 86_400);
    for ((operator, id), Proposed { keys, accepts }) in &proposed {
        let list = |texts: Vec<String>| texts.join(", ");
        let keys = list(keys.iter().map(|key| format!("\"sha256:{key}\"")).collect());
        let _ = write!(
            text,
            "\n[[rebuilder]]\n\
             id = {}\n\
             operator = {}       # a guess from the id: who runs it? Two names of one operator count twice\n\
             keys = [{keys}]  # seen, not confirmed\n\
             max_slsa_level = 0                  # what you grant this rebuilder's builds: 0 to 3\n\
             valid = [\"{}\", \"{}\"]\n",
            quoted(id),
            quoted(operator),
            day(today),
            day(until),
        );
        if !accepts.is_empty() {
            let forms = list(accepts.iter().map(|form| quoted(form.as_str())).collect());
            let _ = writeln!(
                text,
                "accepts = [{forms}]       # says that its key has this digest; nothing of inputs, tools or logs"
            );
        }
    }
    let build_types: Vec<String> = match observed.build_types.is_empty() {
        true => vec![quoted(BUILD_TYPE)],
        false => observed.build_types.iter().map(|text| quoted(text)).collect(),
    };
    let _ = write!(text, "\n[provenance]\nbuild_types = [{}]\n", build_types.join(", "));
    text.push_str(
        "# What was to be built. A provenance with any other parameter does not count. `*` stands for any text.\n",
    );
    text.push_str("external_parameters = {");
    let mut members: Vec<String> = Vec::new();
    for (name, values) in &observed.external_parameters {
        let value = match values.iter().next() {
            Some(one) if values.len() == 1 => one.replace('*', ""),
            Some(_) | None => "*".into(),
        };
        members.push(format!(" {} = {}", quoted(name), quoted(&value)));
    }
    if members.is_empty() {
        members.push(" recipe = \"*\", target = \"*\"".into());
    }
    text.push_str(&members.join(","));
    text.push_str(" }\nmin_level = 0                       # raise it with max_slsa_level\n");
    let _ = write!(
        text,
        "\n[inputs]\n\
         require_digest = true\n\
         allow_uri = [\"*\"]                   # e.g. [\"pkg:deb/debian/*\", \"git+https://example.org/*\"]\n\
         # licences = {{ deny = [\"AGPL-3.0-only\"], unknown = \"deny\" }}\n\
         \n[log]\n\
         {}require_inclusion = {logged}           # {}\n",
        if logged { "tlog_policy = \"log.policy\"          # which logs and witnesses you believe\n" } else { "" },
        if logged {
            "every statement must stand in a log"
        } else {
            "no proofs were seen; without a log nobody notices what is withheld, and keys that expire take all with them"
        },
    );
    text
}

/// The host of an id, as the best guess of who runs it.
fn operator(id: &str) -> &str {
    let rest = id.split_once("://").map_or(id, |(_, rest)| rest);
    let host = rest.split(['/', ':', '?', '#']).next().unwrap_or(rest);
    if host.is_empty() { id } else { host }
}

fn day(moment: Moment) -> String {
    moment.to_string().chars().take(10).collect()
}

/// A TOML basic string.
fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}
