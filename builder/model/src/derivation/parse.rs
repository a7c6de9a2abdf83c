//! ATerm → derivation, strictly: printing gives the bytes back.

use std::collections::{BTreeMap, BTreeSet};

use data_encoding::HEXLOWER;

use super::{Derivation, DerivationError, Output};
use crate::format::aterm::Reader;
use crate::name::Name;
use crate::store_path::{Algorithm, Method, StorePath};

impl Derivation {
    /// Parses the text of the derivation at `path`, and checks that the path is that of the text.
    pub fn parse_at(path: &StorePath, bytes: &[u8]) -> Result<Self, DerivationError> {
        let name = path.derivation_name().ok_or_else(|| DerivationError::Path {
            what: "the derivation's own path",
            source: crate::store_path::StorePathError::NotAStorePath { found: path.to_string() },
        })?;
        let derivation = Self::parse(name, bytes)?;
        let expected = derivation.path_of(bytes)?;
        if expected == *path {
            Ok(derivation)
        } else {
            Err(DerivationError::DerivationPath { expected, found: path.clone() })
        }
    }

    /// Parses the text of a derivation called `name`.
    ///
    /// Output paths are not held against the contents here, because that needs the inputs: see [`Derivation::check`].
    pub fn parse(name: Name, bytes: &[u8]) -> Result<Self, DerivationError> {
        let mut reader = Reader::new(bytes);
        reader.literal("Derive(")?;
        let mut outputs = BTreeMap::new();
        reader.list(|reader| {
            reader.literal("(")?;
            let output = output_name(reader.string()?)?;
            let [path, algorithm, digest] = [(); 3].map(|()| {
                reader.literal(",")?;
                text(reader.string()?, "an output")
            });
            reader.literal(")")?;
            let value = parse_output(&name, &output, &path?, &algorithm?, &digest?)?;
            insert_in_order(&mut outputs, output, value, "the list of outputs")
        })?;
        reader.literal(",")?;
        let mut input_derivations = BTreeMap::new();
        reader.list(|reader| {
            reader.literal("(")?;
            let path = store_path(reader.string()?, "the list of input derivations")?;
            if path.derivation_name().is_none() {
                return Err(DerivationError::Path {
                    what: "the list of input derivations",
                    source: crate::store_path::StorePathError::NotAStorePath { found: path.to_string() },
                });
            }
            reader.literal(",")?;
            let mut names = BTreeMap::new();
            reader.list(|reader| {
                insert_in_order(&mut names, output_name(reader.string()?)?, (), "the outputs of an input derivation")
            })?;
            reader.literal(")")?;
            insert_in_order(
                &mut input_derivations,
                path,
                names.into_keys().collect::<BTreeSet<_>>(),
                "the list of input derivations",
            )
        })?;
        reader.literal(",")?;
        let mut input_sources = BTreeMap::new();
        reader.list(|reader| {
            let path = store_path(reader.string()?, "the list of input sources")?;
            insert_in_order(&mut input_sources, path, (), "the list of input sources")
        })?;
        reader.literal(",")?;
        let system = text(reader.string()?, "the system")?;
        reader.literal(",")?;
        let builder = reader.string()?;
        reader.literal(",")?;
        let mut arguments = Vec::new();
        reader.list(|reader| {
            arguments.push(reader.string()?);
            Ok::<_, DerivationError>(())
        })?;
        reader.literal(",")?;
        let mut environment = BTreeMap::new();
        reader.list(|reader| {
            reader.literal("(")?;
            let key = reader.string()?;
            reader.literal(",")?;
            let value = reader.string()?;
            reader.literal(")")?;
            insert_in_order(&mut environment, key, value, "the list of variables")
        })?;
        reader.literal(")")?;
        reader.end()?;

        if outputs.is_empty() {
            return Err(DerivationError::NoOutputs);
        }
        let fixed = outputs.values().any(|output| matches!(output, Output::Fixed { .. }));
        if fixed && (outputs.len() > 1 || outputs.keys().any(|output| output.as_str() != "out")) {
            return Err(DerivationError::FixedAmongOthers);
        }
        let floats = |output: &Output| matches!(output, Output::Floating { .. });
        if let Some((output, _)) = outputs.iter().find(|(_, output)| floats(output))
            && !outputs.values().all(floats)
        {
            return Err(DerivationError::FloatingAmongOthers { output: output.clone() });
        }
        let input_sources = input_sources.into_keys().collect();
        let derivation =
            Self { name, outputs, input_derivations, input_sources, system, builder, arguments, environment };
        derivation.refuse_nul()?;
        if derivation.print() == bytes { Ok(derivation) } else { Err(DerivationError::NotCanonical { what: "a part" }) }
    }
}

fn parse_output(
    name: &Name,
    output: &Name,
    path: &str,
    algorithm: &str,
    digest: &str,
) -> Result<Output, DerivationError> {
    let bad_address = || DerivationError::ContentAddress {
        output: output.clone(),
        found: if digest.is_empty() { algorithm.into() } else { format!("{algorithm}:{digest}") },
    };
    if algorithm.is_empty() {
        return match (path, digest) {
            (_, digest) if !digest.is_empty() => Err(bad_address()),
            ("", _) => Ok(Output::Deferred),
            (path, _) => Ok(Output::InputAddressed(store_path(path.into(), "an output")?)),
        };
    }
    if digest == "impure" {
        return Err(DerivationError::Unsupported { output: output.clone(), what: "an impure output" });
    }
    let (method, algorithm) = match algorithm.strip_prefix("r:") {
        Some(algorithm) => (Method::Recursive, algorithm),
        None => (Method::Flat, algorithm),
    };
    if algorithm.starts_with("text:") || algorithm.starts_with("git:") {
        return Err(DerivationError::Unsupported { output: output.clone(), what: "text or git ingestion" });
    }
    let algorithm = Algorithm::named(algorithm).ok_or_else(bad_address)?;
    if digest.is_empty() {
        return if path.is_empty() { Ok(Output::Floating { method, algorithm }) } else { Err(bad_address()) };
    }
    let digest = HEXLOWER.decode(digest.as_bytes()).map_err(|_| bad_address())?;
    let expected = StorePath::fixed(name, method, algorithm, &digest).map_err(|_| bad_address())?;
    let found = store_path(path.into(), "an output")?;
    if expected == found {
        Ok(Output::Fixed { path: found, method, algorithm, digest })
    } else {
        Err(DerivationError::OutputPath { output: output.clone(), expected, found })
    }
}

fn insert_in_order<K: Ord, V>(
    map: &mut BTreeMap<K, V>,
    key: K,
    value: V,
    what: &'static str,
) -> Result<(), DerivationError> {
    if map.last_key_value().is_some_and(|(last, _)| *last >= key) {
        return Err(DerivationError::NotCanonical { what });
    }
    map.insert(key, value);
    Ok(())
}

fn text(bytes: Vec<u8>, what: &'static str) -> Result<String, DerivationError> {
    String::from_utf8(bytes).map_err(|_| DerivationError::NotText { what })
}

fn store_path(bytes: Vec<u8>, what: &'static str) -> Result<StorePath, DerivationError> {
    text(bytes, what)?.parse().map_err(|source| DerivationError::Path { what, source })
}

fn output_name(bytes: Vec<u8>) -> Result<Name, DerivationError> {
    text(bytes, "the name of an output")?.parse().map_err(DerivationError::OutputName)
}
