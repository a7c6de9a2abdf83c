//! Derivations for tests: those that a real Nix wrote, small ones made up on the spot, and the shell that builds them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use kiln_model::derivation::{Closed, Derivation, Modulo, Output, Parts};
use kiln_model::store_path::{Algorithm, Method, StorePath, placeholder};
use tempfile::TempDir;

use crate::ground::{self, Ground};
use crate::run::Kiln;

/// The store path of the builder of all these derivations: Debian's busybox-static 1:1.35.0-4+deb12u1 in a directory.
pub const BUILDER: &str = "/nix/store/b8zzzm23p9pd6h8zbaiz806gqid7q81v-bb";

/// Where what a real Nix wrote lies.
pub fn vectors() -> PathBuf {
    ground::repository().join("builder/model/tests/vectors")
}

/// The file of the derivation called `name` that a real Nix wrote.
pub fn vector(name: &str) -> PathBuf {
    let mut found = fs::read_dir(vectors().join("drv"))
        .expect("the vectors are there")
        .map(|entry| entry.expect("readable").path());
    let end = format!("-{name}.drv");
    found.find(|path| path.to_str().is_some_and(|path| path.ends_with(&end))).expect("there is such a vector")
}

/// A store that has the builder. `None`, and the test is counted as skipped, where the host's busybox is another one.
pub fn with_builder(test: &str) -> Option<Kiln> {
    let kiln = Kiln::fresh(Ground::Tmpfs);
    let made = ground::directory(Ground::Disk);
    let bin = made.path().join("bb/bin");
    fs::create_dir_all(&bin).expect("a directory of ours");
    if fs::copy("/bin/busybox", bin.join("busybox")).is_err() {
        ground::skipped(test, "no /bin/busybox; scripts/setup --test installs it");
        return None;
    }
    std::os::unix::fs::symlink("busybox", bin.join("sh")).expect("a directory of ours");
    let added = kiln.run(["store".as_ref(), "add".as_ref(), made.path().join("bb").as_os_str()]).succeeded();
    if added.stdout.trim() != BUILDER {
        ground::skipped(test, "the host's busybox is another version");
        return None;
    }
    Some(kiln)
}

/// Derivations made up by a test, in a directory of their own.
#[derive(Debug)]
pub struct Made {
    dir: TempDir,
}

impl Default for Made {
    fn default() -> Self {
        Self { dir: ground::directory(Ground::Disk) }
    }
}

impl Made {
    /// Writes a derivation that runs `script`; `needs` are derivations with the outputs that it needs of each.
    pub fn derivation(
        &self,
        name: &str,
        outputs: &[(&str, Output)],
        needs: &[(&StorePath, &[&str])],
        script: &str,
    ) -> StorePath {
        let name_of = |text: &str| text.parse().expect("a name");
        let mut environment = BTreeMap::from([(b"PATH".to_vec(), format!("{BUILDER}/bin").into_bytes())]);
        for (output, kind) in outputs {
            let value = match kind {
                Output::Deferred => String::new(),
                Output::Floating { .. } => placeholder(&name_of(output)),
                Output::Fixed { path, .. } | Output::InputAddressed(path) => path.to_string(),
            };
            environment.insert(output.as_bytes().to_vec(), value.into_bytes());
        }
        let names = |outputs: &[&str]| outputs.iter().map(|output| name_of(output)).collect::<BTreeSet<_>>();
        let derivation = Derivation {
            name: name_of(name),
            outputs: outputs.iter().map(|(output, kind)| (name_of(output), kind.clone())).collect(),
            input_derivations: needs.iter().map(|(path, outputs)| ((*path).clone(), names(outputs))).collect(),
            input_sources: [BUILDER.parse().expect("a store path")].into(),
            system: "x86_64-linux".into(),
            builder: format!("{BUILDER}/bin/busybox").into_bytes(),
            arguments: ["sh", "-euc", script].map(|word| word.as_bytes().to_vec()).to_vec(),
            environment,
        };
        let path = derivation.path().expect("a derivation of ours");
        fs::write(self.file(&path), derivation.print()).expect("the directory is ours");
        path
    }

    /// Writes an input-addressed derivation with the output `out` that runs `script`; `needs` as before.
    pub fn closed(&self, name: &str, needs: &[(&Closed, &[&str])], script: &str) -> Closed {
        self.with(name, needs, script, &[])
    }

    /// The same, with further variables.
    pub fn with(&self, name: &str, needs: &[(&Closed, &[&str])], script: &str, variables: &[(&str, &str)]) -> Closed {
        let name_of = |text: &str| text.parse().expect("a name");
        let names = |outputs: &[&str]| outputs.iter().map(|output| name_of(output)).collect::<BTreeSet<_>>();
        let modulos: BTreeMap<StorePath, Modulo> =
            needs.iter().map(|(need, _)| (need.path.clone(), need.modulo)).collect();
        let parts = Parts {
            name: name_of(name),
            outputs: [name_of("out")].into(),
            input_derivations: needs.iter().map(|(need, used)| (need.path.clone(), names(used))).collect(),
            input_sources: [BUILDER.parse().expect("a store path")].into(),
            system: "x86_64-linux".into(),
            builder: format!("{BUILDER}/bin/busybox").into_bytes(),
            arguments: ["sh", "-euc", script].map(|word| word.as_bytes().to_vec()).to_vec(),
            environment: [("PATH", format!("{BUILDER}/bin").as_str())]
                .iter()
                .chain(variables)
                .map(|(key, value)| (key.as_bytes().to_vec(), value.as_bytes().to_vec()))
                .collect(),
        };
        let closed = Derivation::close(parts, &modulos).expect("a derivation of ours");
        fs::write(self.file(&closed.path), &closed.bytes).expect("the directory is ours");
        closed
    }

    /// Where the derivation at `path` lies.
    pub fn file(&self, path: &StorePath) -> PathBuf {
        self.dir.path().join(path.base_name())
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }
}

/// An output that floats, addressed as most are.
pub fn floating() -> Output {
    Output::Floating { method: Method::Recursive, algorithm: Algorithm::Sha256 }
}
