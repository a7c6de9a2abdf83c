//! Derivation → JSON, as `nix show-derivation` prints it.

use data_encoding::HEXLOWER;
use serde_json::{Map, Value, json};

use super::{Derivation, DerivationError, Output};
use crate::store_path::{Algorithm, Method};

impl Derivation {
    /// The derivation as one value of the object that `nix show-derivation` prints by path. JSON has no bytes: what
    /// is not UTF-8 is refused.
    pub fn show(&self) -> Result<Value, DerivationError> {
        let text = |bytes: &[u8], what| {
            std::str::from_utf8(bytes).map(Value::from).map_err(|_| DerivationError::NotText { what })
        };
        let arguments = self.arguments.iter().map(|argument| text(argument, "an argument"));
        let mut variables = Map::new();
        for (key, value) in &self.environment {
            let key = std::str::from_utf8(key).map_err(|_| DerivationError::NotText { what: "a variable's name" })?;
            variables.insert(key.into(), text(value, "a variable")?);
        }
        let outputs: Map<String, Value> =
            self.outputs.iter().map(|(name, output)| (name.to_string(), show_output(output))).collect();
        let inputs: Map<String, Value> =
            self.input_derivations.iter().map(|(path, outputs)| (path.to_string(), json!(outputs))).collect();
        Ok(json!({
            "args": arguments.collect::<Result<Vec<_>, _>>()?,
            "builder": text(&self.builder, "the builder")?,
            "env": variables,
            "inputDrvs": inputs,
            "inputSrcs": self.input_sources,
            "outputs": outputs,
            "system": self.system,
        }))
    }
}

fn show_output(output: &Output) -> Value {
    match output {
        Output::InputAddressed(path) => json!({ "path": path }),
        Output::Fixed { path, method, algorithm, digest } => {
            json!({ "path": path, "hashAlgo": hashed(*method, *algorithm), "hash": HEXLOWER.encode(digest) })
        }
        Output::Floating { method, algorithm } => json!({ "hashAlgo": hashed(*method, *algorithm) }),
        Output::Deferred => json!({}),
    }
}

fn hashed(method: Method, algorithm: Algorithm) -> String {
    match method {
        Method::Flat => algorithm.to_string(),
        Method::Recursive => format!("r:{algorithm}"),
    }
}
