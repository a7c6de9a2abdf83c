//! What Nix promises a build: the program, its arguments and variables, the files that lie in its directory.
//!
//! Pure: a derivation and the paths of its outputs go in, bytes come out. Rows and precedence are those of Nix 2.8
//! (`local-derivation-goal.cc`, `initEnv` and `writeStructuredAttrs`), with the two files of structured attributes named as
//! later versions name them. What kiln does not offer is refused here, by the name of the attribute.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::derivation::{Attributes, Derivation, DerivationError, Output};
use crate::digest::NarHash;
use crate::name::Name;
use crate::store_path::{StorePath, nix32, placeholder, spelled};

mod check;

pub use check::{CheckError, Checks, Known, Made};

/// Where a build works, to it.
pub const BUILD_DIRECTORY: &str = "/build";

/// One build as its process will see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contract {
    /// The program's path.
    pub program: Vec<u8>,
    /// Its arguments, with its own name first.
    pub arguments: Vec<Vec<u8>>,
    /// Its variables.
    pub environment: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Files in the build directory, by name.
    pub files: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// Store paths, and what is known of each.
pub type Closure = BTreeMap<StorePath, Named>;

/// What a build may be told of a store path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// Paths it names.
    pub references: BTreeSet<StorePath>,
    /// Digest of its NAR.
    pub nar_hash: NarHash,
    /// Bytes of its NAR.
    pub nar_size: u64,
    /// Its content address as a narinfo spells it, if it has one.
    pub address: Option<String>,
}

/// What a contract depends on besides the derivation.
#[expect(missing_debug_implementations, reason = "it holds functions")]
pub struct Given<'a> {
    /// Where each output is to be made.
    pub outputs: &'a BTreeMap<Name, StorePath>,
    /// Processors that the build is told to use.
    pub cores: u32,
    /// `HOME`; no such directory exists.
    pub home: &'a str,
    /// Where the build works, as it sees it.
    pub directory: &'a str,
    /// The closure of a store path among the inputs; `None` for other paths.
    pub closure: &'a dyn Fn(&StorePath) -> Option<Closure>,
    /// The caller's variable of that name, for what a fixed output declares impure.
    pub caller: &'a dyn Fn(&[u8]) -> Option<Vec<u8>>,
}

/// Why a derivation cannot be built here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ContractError {
    /// It asks for less isolation than kiln ever gives, or for what kiln does not have.
    #[error("attribute {attribute}: {what}")]
    Unsupported {
        /// The attribute, or the feature named in it.
        attribute: String,
        /// Why not.
        what: &'static str,
    },
    /// Made for another machine.
    #[error("attribute system is {found:?}; this machine builds {expected:?}")]
    System {
        /// As the derivation says.
        found: String,
        /// What can be built here.
        expected: &'static str,
    },
    /// `exportReferencesGraph` is no list of names and paths.
    #[error(
        "attribute exportReferencesGraph: expected pairs of a file name and a path of the input closure, found {found:?}"
    )]
    ReferencesGraph {
        /// As given.
        found: String,
    },
    /// The structured attributes are not what Nix writes.
    #[error("attribute __json: {what}")]
    Structured {
        /// Why not.
        what: String,
    },
}

/// The systems that this machine builds.
pub const SYSTEM: &str = "x86_64-linux";

/// Features that a derivation may require and that every kiln has.
const FEATURES: [&str; 4] = ["benchmark", "big-parallel", "nixos-test", "kvm"];

/// What is fetched in place of a build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchUrl {
    /// The address, as the derivation's author wrote it.
    pub url: String,
    /// Whether the file is an archive, and its contents are the output.
    pub unpack: bool,
    /// Whether the file may be run.
    pub executable: bool,
}

impl Derivation {
    /// What it fetches, if it is no build: its builder is `builtin:fetchurl`.
    pub fn fetch_url(&self) -> Result<Option<FetchUrl>, ContractError> {
        let refuse = |attribute: &str, what| Err(ContractError::Unsupported { attribute: attribute.into(), what });
        match self.builder.strip_prefix(b"builtin:") {
            None => return Ok(None),
            Some(b"fetchurl") => {}
            Some(other) => {
                let name = String::from_utf8_lossy(other);
                return refuse(&format!("builder builtin:{name}"), "of Nix's own builders there is only fetchurl");
            }
        }
        if !self.is_fixed() {
            return refuse("outputHash", "builtin:fetchurl fetches what has a digest: expected a fixed output");
        }
        let is = |name| Ok(self.attribute(name)?.is_some_and(|value| value == "1"));
        match self.attribute("url")? {
            Some(url) if !url.is_empty() => {
                Ok(Some(FetchUrl { url, unpack: is("unpack")?, executable: is("executable")? }))
            }
            _ => refuse("url", "builtin:fetchurl fetches an address: expected one"),
        }
    }

    /// Whether its attributes are structured: one JSON object for all variables.
    pub fn is_structured(&self) -> bool {
        self.environment.contains_key(b"__json".as_slice())
    }

    /// Whether its one output's contents are known beforehand.
    pub fn is_fixed(&self) -> bool {
        self.outputs.values().any(|output| matches!(output, Output::Fixed { .. }))
    }

    /// An attribute's value as text, wherever it stands. Lists of a structured one are joined by blanks, as the
    /// unstructured ones are written.
    pub fn attribute(&self, name: &str) -> Result<Option<String>, ContractError> {
        let text = |value: &Value| match value {
            Value::String(text) => text.clone(),
            Value::Bool(true) => "1".into(),
            Value::Bool(false) | Value::Null => String::new(),
            other => other.to_string(),
        };
        match self.structured()? {
            Some(object) => Ok(object.get(name).map(|value| match value {
                Value::Array(items) => items.iter().map(text).collect::<Vec<_>>().join(" "),
                other => text(other),
            })),
            None => {
                let value = self.environment.get(name.as_bytes());
                Ok(value.map(|value| String::from_utf8_lossy(value).into_owned()))
            }
        }
    }

    fn structured(&self) -> Result<Option<serde_json::Map<String, Value>>, ContractError> {
        let Some(json) = self.environment.get(b"__json".as_slice()) else { return Ok(None) };
        let parsed = serde_json::from_slice(json);
        parsed.map(Some).map_err(|error| ContractError::Structured { what: error.to_string() })
    }

    /// Refuses what cannot be built here, by name.
    pub fn refuse_unsupported(&self) -> Result<(), ContractError> {
        let refuse = |attribute: &str, what| Err(ContractError::Unsupported { attribute: attribute.into(), what });
        if self.system != SYSTEM && self.system != "builtin" {
            return Err(ContractError::System { found: self.system.clone(), expected: SYSTEM });
        }
        self.fetch_url()?;
        for (attribute, what) in [
            ("__noChroot", "builds run in a sandbox or not at all"),
            ("__impure", "impure derivations have no digest to hold them to"),
            ("__impureHostDeps", "a build sees its inputs and nothing else of this machine"),
        ] {
            if self.attribute(attribute)?.is_some_and(|value| !value.is_empty() && value != "0") {
                return refuse(attribute, what);
            }
        }
        for feature in self.attribute("requiredSystemFeatures")?.unwrap_or_default().split_ascii_whitespace() {
            let what = match feature {
                "recursive-nix" => "a build does not start others",
                "uid-range" => "a build has one user",
                "ca-derivations" => continue,
                feature if FEATURES.contains(&feature) && feature != "kvm" => continue,
                _ => "this machine does not offer it",
            };
            return refuse(&format!("requiredSystemFeatures: {feature}"), what);
        }
        Ok(())
    }

    /// The contract of this derivation.
    pub fn contract(&self, given: &Given<'_>) -> Result<Contract, ContractError> {
        let mut files = BTreeMap::new();
        let mut environment = BTreeMap::new();
        let mut set = |key: &str, value: &str| drop(environment.insert(key.into(), value.into()));
        set("PATH", "/path-not-set");
        set("HOME", given.home);
        set("NIX_STORE", crate::store_path::STORE_DIRECTORY);
        set("NIX_BUILD_CORES", &given.cores.to_string());

        if !self.is_structured() {
            let in_files: BTreeSet<&[u8]> = words(self.environment.get(b"passAsFile".as_slice())).collect();
            for (key, value) in &self.environment {
                if in_files.contains(key.as_slice()) {
                    let file = [b".attr-".as_slice(), nix32(&Sha256::digest(key)).as_bytes()].concat();
                    let path = [given.directory.as_bytes(), b"/", &file].concat();
                    environment.insert([key.as_slice(), b"Path"].concat(), path);
                    files.insert(file, value.clone());
                } else {
                    environment.insert(key.clone(), value.clone());
                }
            }
        }
        for key in ["NIX_BUILD_TOP", "TMPDIR", "TEMPDIR", "TMP", "TEMP", "PWD"] {
            environment.insert(key.into(), given.directory.into());
        }
        if self.is_fixed() {
            environment.insert("NIX_OUTPUT_CHECKED".into(), "1".into());
            for name in self.attribute("impureEnvVars")?.unwrap_or_default().split_ascii_whitespace() {
                environment.insert(name.into(), (given.caller)(name.as_bytes()).unwrap_or_default());
            }
        }
        environment.insert("NIX_LOG_FD".into(), "2".into());
        environment.insert("TERM".into(), "xterm-256color".into());
        if self.is_structured() {
            let refuse = |error: DerivationError| ContractError::Structured { what: error.to_string() };
            let graphs = self.structured_graphs(given)?;
            if let Some(Attributes { json, shell }) = self.attributes(given.outputs, &graphs).map_err(refuse)? {
                for (variable, file, contents) in
                    [("NIX_ATTRS_JSON_FILE", ".attrs.json", json), ("NIX_ATTRS_SH_FILE", ".attrs.sh", shell)]
                {
                    environment.insert(variable.into(), format!("{}/{file}", given.directory).into_bytes());
                    files.insert(file.into(), contents);
                }
            }
        } else {
            files.extend(self.references_graphs(given)?);
        }

        let placeholders: Vec<(String, String)> =
            given.outputs.iter().map(|(name, path)| (placeholder(name), path.to_string())).collect();
        let rewrite = |bytes: Vec<u8>| rewritten(bytes, &placeholders);
        let base = self.builder.rsplit(|byte| *byte == b'/').next().unwrap_or(&self.builder).to_vec();
        let arguments = [base].into_iter().chain(self.arguments.iter().cloned()).map(rewrite).collect();
        Ok(Contract {
            program: self.builder.clone(),
            arguments,
            environment: environment.into_iter().map(|(key, value)| (key, rewrite(value))).collect(),
            files: files.into_iter().map(|(name, contents)| (name, rewrite(contents))).collect(),
        })
    }

    /// For each attribute of a structured `exportReferencesGraph`: what is known of the closure of its paths, as Nix 2.8 has
    /// it (`Store::pathInfoToJSON`).
    fn structured_graphs(&self, given: &Given<'_>) -> Result<BTreeMap<String, Value>, ContractError> {
        let attributes = self.structured()?.unwrap_or_default();
        // What is not an object is an attribute like any other.
        let Some(Value::Object(wanted)) = attributes.get("exportReferencesGraph") else { return Ok(BTreeMap::new()) };
        let mut graphs = BTreeMap::new();
        for (name, paths) in wanted {
            let refuse = || ContractError::ReferencesGraph { found: format!("{name} = {paths}") };
            let paths = match paths {
                Value::Array(paths) => paths.as_slice(),
                path => std::slice::from_ref(path),
            };
            let mut closure = Closure::new();
            for path in paths {
                let path: Option<StorePath> = path.as_str().and_then(|path| path.parse().ok());
                closure.extend(path.and_then(|path| (given.closure)(&path)).ok_or_else(refuse)?);
            }
            let known = closure.iter().map(|(path, named)| {
                let mut known = serde_json::json!({
                    "path": path.to_string(),
                    "narHash": spelled(&named.nar_hash.digest()),
                    "narSize": named.nar_size,
                    "references": named.references.iter().map(ToString::to_string).collect::<Vec<_>>(),
                    "closureSize": closure_size(path, &closure),
                });
                if let Some(address) = &named.address {
                    known["ca"] = address.as_str().into();
                }
                known
            });
            graphs.insert(name.clone(), Value::Array(known.collect()));
        }
        Ok(graphs)
    }

    /// For each pair of `exportReferencesGraph`: a file with the closure of a path, as Nix 2.8 writes it.
    fn references_graphs(&self, given: &Given<'_>) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, ContractError> {
        let Some(value) = self.environment.get(b"exportReferencesGraph".as_slice()) else {
            return Ok(BTreeMap::new());
        };
        let refuse = || ContractError::ReferencesGraph { found: String::from_utf8_lossy(value).into_owned() };
        let words: Vec<&[u8]> = words(Some(value)).collect();
        let mut files = BTreeMap::new();
        for pair in words.chunks(2) {
            let [name, path] = pair else { return Err(refuse()) };
            let [first, rest @ ..] = *name else { return Err(refuse()) };
            let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"_.-".contains(byte);
            if !(first.is_ascii_alphabetic() || *first == b'_') || !rest.iter().all(allowed) {
                return Err(refuse());
            }
            let path: Option<StorePath> = std::str::from_utf8(path).ok().and_then(|path| path.parse().ok());
            let closure = path.and_then(|path| (given.closure)(&path)).ok_or_else(refuse)?;
            let mut text = String::new();
            for (path, Named { references, .. }) in &closure {
                text.push_str(&format!("{path}\n\n{}\n", references.len()));
                references.iter().for_each(|reference| text.push_str(&format!("{reference}\n")));
            }
            files.insert(name.to_vec(), text.into_bytes());
        }
        Ok(files)
    }
}

fn closure_size(path: &StorePath, all: &Closure) -> u64 {
    let mut closure = BTreeSet::new();
    let mut open = vec![path];
    while let Some(path) = open.pop() {
        if closure.insert(path) {
            open.extend(all.get(path).into_iter().flat_map(|named| &named.references));
        }
    }
    closure.into_iter().filter_map(|path| all.get(path)).map(|named| named.nar_size).sum()
}

fn words(value: Option<&Vec<u8>>) -> impl Iterator<Item = &[u8]> {
    let split = value.map(|value| value.split(u8::is_ascii_whitespace));
    split.into_iter().flatten().filter(|word| !word.is_empty())
}

/// `bytes` with each placeholder replaced by the path it stands for.
pub fn rewritten(bytes: Vec<u8>, replacements: &[(String, String)]) -> Vec<u8> {
    replacements.iter().fold(bytes, |bytes, (from, to)| {
        let mut out = Vec::new();
        let mut rest = &bytes[..];
        let Some(mut at) = memchr::memmem::find(rest, from.as_bytes()) else { return bytes };
        loop {
            out.extend_from_slice(&rest[..at]);
            out.extend_from_slice(to.as_bytes());
            rest = &rest[at + from.len()..];
            match memchr::memmem::find(rest, from.as_bytes()) {
                Some(next) => at = next,
                None => break,
            }
        }
        out.extend_from_slice(rest);
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::derivation::Parts;

    fn derivation(environment: &[(&str, &str)]) -> Derivation {
        let parts = Parts {
            name: "x".parse().unwrap(),
            outputs: ["out".parse().unwrap()].into(),
            input_derivations: BTreeMap::new(),
            input_sources: BTreeSet::new(),
            system: SYSTEM.into(),
            builder: b"/nix/store/b8zzzm23p9pd6h8zbaiz806gqid7q81v-bb/bin/busybox".to_vec(),
            arguments: vec![b"sh".to_vec(), placeholder(&"out".parse().unwrap()).into_bytes()],
            environment: environment.iter().map(|(k, v)| (k.as_bytes().to_vec(), v.as_bytes().to_vec())).collect(),
        };
        Derivation::close(parts, &BTreeMap::new()).unwrap().derivation
    }

    fn contract(derivation: &Derivation) -> Result<Contract, ContractError> {
        let outputs = derivation.outputs.iter();
        let outputs = outputs.filter_map(|(name, output)| Some((name.clone(), output.path()?.clone()))).collect();
        derivation.contract(&Given {
            outputs: &outputs,
            cores: 3,
            home: "/homeless-shelter",
            directory: BUILD_DIRECTORY,
            closure: &|path| {
                let other: StorePath = "/nix/store/b8zzzm23p9pd6h8zbaiz806gqid7q81v-bb".parse().unwrap();
                let named = Named {
                    references: [other].into(),
                    nar_hash: NarHash::new(crate::digest::Digest::of("bb")),
                    nar_size: 7,
                    address: None,
                };
                (path.name() == "bb").then(|| BTreeMap::from([(path.clone(), named)]))
            },
            caller: &|name| (name == b"proxy").then(|| b"there".to_vec()),
        })
    }

    fn text<'a>(contract: &'a Contract, key: &str) -> Option<&'a str> {
        contract.environment.get(key.as_bytes()).map(|value| std::str::from_utf8(value).unwrap())
    }

    #[test]
    fn the_derivation_overrides_the_defaults_and_the_build_directory_overrides_it() {
        let contract = contract(&derivation(&[("PATH", "/p"), ("TMP", "/t"), ("NIX_LOG_FD", "9")])).unwrap();
        assert_eq!(text(&contract, "PATH"), Some("/p"));
        assert_eq!(text(&contract, "TMP"), Some("/build"));
        assert_eq!(text(&contract, "NIX_LOG_FD"), Some("2"));
        assert_eq!(text(&contract, "NIX_BUILD_CORES"), Some("3"));
        assert_eq!(contract.arguments[0], b"busybox");
        assert_eq!(contract.arguments[2], contract.environment[b"out".as_slice()]);
    }

    #[test]
    fn a_variable_passed_as_a_file_is_one() {
        let contract =
            contract(&derivation(&[("passAsFile", " text  other"), ("text", "long"), ("plain", "p")])).unwrap();
        let path = text(&contract, "textPath").unwrap();
        let name = path.strip_prefix("/build/").unwrap();
        assert_eq!(contract.files[name.as_bytes()], b"long");
        assert_eq!((text(&contract, "text"), text(&contract, "plain")), (None, Some("p")));
        assert_eq!(text(&contract, "otherPath"), None);
    }

    #[test]
    fn a_closure_is_written_for_each_pair_and_a_path_outside_it_is_refused() {
        let bb = "/nix/store/b8zzzm23p9pd6h8zbaiz806gqid7q81v-bb";
        let contract_of = |value: &str| contract(&derivation(&[("exportReferencesGraph", value)]));
        let written = contract_of(&format!("graph {bb}")).unwrap();
        assert_eq!(written.files[b"graph".as_slice()], format!("{bb}\n\n1\n{bb}\n").as_bytes());
        for bad in [format!("graph {bb} odd"), format!("../up {bb}"), format!("g {}", bb.replace("-bb", "-cc"))] {
            assert!(matches!(contract_of(&bad), Err(ContractError::ReferencesGraph { .. })), "{bad}");
        }
    }

    #[test]
    fn structured_attributes_are_two_files_and_no_variables() {
        let json = r#"{"list":[1,"two"],"name":"x","out":"no"}"#;
        let contract = contract(&derivation(&[("__json", json)])).unwrap();
        assert_eq!(text(&contract, "NIX_ATTRS_SH_FILE"), Some("/build/.attrs.sh"));
        assert_eq!((text(&contract, "__json"), text(&contract, "out")), (None, None));
        let shell = String::from_utf8(contract.files[b".attrs.sh".as_slice()].clone()).unwrap();
        assert!(
            shell.contains("declare -a list=(1 'two' )") || shell.contains("declare -a list=('1' 'two' )"),
            "{shell}"
        );
    }

    #[test]
    fn a_structured_graph_is_part_of_the_attributes() {
        let bb = "/nix/store/b8zzzm23p9pd6h8zbaiz806gqid7q81v-bb";
        let contract_of =
            |graph: &str| contract(&derivation(&[("__json", &format!(r#"{{"exportReferencesGraph":{graph}}}"#))]));
        let files = contract_of(&format!(r#"{{"it":["{bb}"]}}"#)).unwrap().files;
        let json: Value = serde_json::from_slice(&files[b".attrs.json".as_slice()]).unwrap();
        assert_eq!((&json["it"][0]["path"], &json["it"][0]["closureSize"]), (&bb.into(), &7.into()));
        assert!(json["it"][0]["narHash"].as_str().unwrap().starts_with("sha256:"));
        for bad in [format!(r#"{{"it":["{}"]}}"#, bb.replace("-bb", "-cc")), r#"{"it":[7]}"#.into()] {
            assert!(matches!(contract_of(&bad), Err(ContractError::ReferencesGraph { .. })), "{bad}");
        }
        // As Nix: what is no object is an attribute like any other.
        assert!(contract_of("[]").is_ok());
    }

    #[test]
    fn what_kiln_does_not_offer_is_refused_by_name() {
        derivation(&[("requiredSystemFeatures", "big-parallel benchmark")]).refuse_unsupported().unwrap();
        derivation(&[("__noChroot", "")]).refuse_unsupported().unwrap();
        for (attribute, value) in [
            ("__noChroot", "1"),
            ("__impure", "1"),
            ("requiredSystemFeatures", "recursive-nix"),
            ("requiredSystemFeatures", "kvm"),
            ("__json", r#"{"requiredSystemFeatures":["uid-range"]}"#),
            ("__json", "["),
        ] {
            assert!(derivation(&[(attribute, value)]).refuse_unsupported().is_err(), "{attribute} = {value}");
        }
        let foreign = Derivation { system: "aarch64-linux".into(), ..derivation(&[]) };
        assert!(matches!(foreign.refuse_unsupported(), Err(ContractError::System { .. })));
    }
}
