//! A person in a build's sandbox: the same root, inputs and variables, a shell instead of the script.

use std::ffi::OsString;
use std::path::PathBuf;

use kiln_model::contract::Contract;
use kiln_model::variation::{BuildFs, Conditions};
use kiln_sandbox::{How, Slot, Stdio, plan};

use super::graph::{Graph, Node};
use super::sandbox::{Places, spec};
use super::{BuildError, Builder};

impl Builder<'_> {
    /// Runs `command`, or an interactive shell if it is empty, in the sandbox of node `index` with a fresh build directory.
    pub fn enter(&self, graph: &Graph, index: usize, command: &[String]) -> Result<How, BuildError> {
        let private = self.store.private_dir()?;
        let slot = Slot::lease(&super::slots())?;
        let provided = self.provide(graph, index)?;
        let conditions = self.entering();
        let contract = self.contract(&graph.nodes[index], &provided, &conditions)?;
        let places = self.places(&private, &slot, &provided, &contract)?;
        self.run_shell(&graph.nodes[index], command, &contract, &places, &slot)
    }

    /// The same in what the last failed build of that node left, which is there again afterwards.
    pub fn enter_failed(&self, graph: &Graph, index: usize, command: &[String]) -> Result<How, BuildError> {
        let node = &graph.nodes[index];
        let kept = self.store.kept_failure(&node.path);
        if !kept.join("build").is_dir() {
            return Err(BuildError::NothingKept { recipe: node.shown.display().to_string() });
        }
        let slot = Slot::lease(&super::slots())?;
        let provided = self.provide(graph, index)?;
        let places = Places { store: kept.join("store"), build: kept.join("build"), ..self.surroundings(&provided) };
        let contract = self.contract(node, &provided, &self.entering())?;
        slot.adopt_tree(&places.store)?;
        slot.adopt_tree(&places.build)?;
        let how = self.run_shell(node, command, &contract, &places, &slot);
        slot.reclaim_tree(&places.store)?;
        slot.reclaim_tree(&places.build)?;
        how
    }

    /// What was kept is on the store's file system.
    fn entering(&self) -> Conditions {
        Conditions { build_fs: BuildFs::Store, ..Conditions::control(self.settings.cores) }
    }

    fn run_shell(
        &self,
        node: &Node,
        command: &[String],
        contract: &Contract,
        places: &Places,
        slot: &Slot,
    ) -> Result<How, BuildError> {
        if places.environment.is_none() {
            return Err(BuildError::NoEnvironment { target: node.shown.display().to_string() });
        }
        let mut spec = spec(&node.derivation, contract, &self.entering(), &node.limits(), places);
        spec.process.program = PathBuf::from("/bin/sh");
        spec.process.argv = match command.is_empty() {
            true => ["/bin/sh", "-i"].map(OsString::from).to_vec(),
            // "$@" keeps each word a word, and the shell finds the program in PATH.
            false => ["/bin/sh", "-c", "exec \"$@\"", "sh"]
                .into_iter()
                .map(OsString::from)
                .chain(command.iter().map(OsString::from))
                .collect(),
        };
        spec.limits.wall = None;
        spec.limits.log_bytes = None;
        let plan = plan(&spec, self.host)?;
        let running = self.launcher.spawn(&plan, slot, Stdio::Inherit)?;
        Ok(running.wait(&mut |_| ())?.how)
    }
}
