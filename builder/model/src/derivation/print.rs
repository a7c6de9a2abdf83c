//! Derivation → ATerm, as Nix writes it.

use std::collections::{BTreeMap, BTreeSet};

use data_encoding::HEXLOWER;

use super::{Derivation, Output};
use crate::format::aterm::{write_list, write_string};
use crate::name::Name;
use crate::store_path::{Algorithm, Method};

/// Whether output paths are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outputs {
    /// As they are.
    Shown,
    /// Empty, and so are the variables named like them: what an output path is computed from.
    Masked,
}

impl Derivation {
    /// The text of the derivation.
    pub fn print(&self) -> Vec<u8> {
        let inputs = self.input_derivations.iter().map(|(path, outputs)| (path.to_string(), outputs.clone())).collect();
        self.print_with(&inputs, Outputs::Shown)
    }

    /// The text with other names for the input derivations, as modulo hashes need.
    pub(super) fn print_with(&self, inputs: &BTreeMap<String, BTreeSet<Name>>, shown: Outputs) -> Vec<u8> {
        let mut out = b"Derive(".to_vec();
        write_list(&mut out, &self.outputs, |out, (name, output)| {
            let path = match shown {
                Outputs::Shown => output.path().map(ToString::to_string).unwrap_or_default(),
                Outputs::Masked => String::new(),
            };
            let (algorithm, digest) = content_address(output);
            write_tuple(out, [name.as_str(), &path, &algorithm, &digest].map(str::as_bytes));
        });
        out.push(b',');
        write_list(&mut out, inputs, |out, (path, outputs)| {
            out.push(b'(');
            write_string(out, path.as_bytes());
            out.push(b',');
            write_list(out, outputs, |out, output| write_string(out, output.as_str().as_bytes()));
            out.push(b')');
        });
        out.push(b',');
        write_list(&mut out, &self.input_sources, |out, path| write_string(out, path.to_string().as_bytes()));
        out.push(b',');
        write_string(&mut out, self.system.as_bytes());
        out.push(b',');
        write_string(&mut out, &self.builder);
        out.push(b',');
        write_list(&mut out, &self.arguments, |out, argument| write_string(out, argument));
        out.push(b',');
        write_list(&mut out, &self.environment, |out, (key, value)| {
            let is_output = || self.outputs.keys().any(|output| output.as_str().as_bytes() == key.as_slice());
            let masked = shown == Outputs::Masked && is_output();
            write_tuple(out, [key.as_slice(), if masked { b"" } else { value.as_slice() }]);
        });
        out.push(b')');
        out
    }
}

fn content_address(output: &Output) -> (String, String) {
    let prefixed = |method: &Method, algorithm: &Algorithm| match method {
        Method::Flat => algorithm.name().to_owned(),
        Method::Recursive => format!("r:{algorithm}"),
    };
    match output {
        Output::InputAddressed(_) | Output::Deferred => Default::default(),
        Output::Fixed { method, algorithm, digest, .. } => (prefixed(method, algorithm), HEXLOWER.encode(digest)),
        Output::Floating { method, algorithm } => (prefixed(method, algorithm), String::new()),
    }
}

fn write_tuple<const N: usize>(out: &mut Vec<u8>, strings: [&[u8]; N]) {
    for (index, string) in strings.into_iter().enumerate() {
        out.push(if index == 0 { b'(' } else { b',' });
        write_string(out, string);
    }
    out.push(b')');
}
