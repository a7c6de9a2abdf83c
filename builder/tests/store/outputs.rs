//! What builds leave behind: outputs, outcomes, logs, drafts, realisations.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use kiln::exit::Kind;
use kiln::store::{Budget, Digests, Origin, Problem, Source, StoreError, TreeError, TreeLimits, Trust};
use kiln_model::digest::Digest;
use kiln_model::format::realisation::{Realisation, RealisationId};
use kiln_model::rewrite::Rewrites;
use kiln_model::store_path::StorePath;

use crate::{Scene, crate_digest, derivation, leftovers, name, outcome, output_path, path, take};

#[test]
fn a_registered_output_is_valid_and_is_not_kept_twice() {
    let scene = Scene::new();
    let store = scene.open();
    let taken = take(&store, &scene.tree("tree")).unwrap();
    assert_eq!(store.path_info(&output_path()).unwrap(), None);
    let info = store.register_output(&output_path(), &taken, &derivation(), None).unwrap();
    assert_eq!(info.nar_hash, taken.nar_hash);
    assert_eq!(info.deriver, Some(derivation()));
    assert_eq!(store.tree(&taken.nar_hash).unwrap(), Some(store.physical(&output_path())));
    assert_eq!(fs::read_dir(store.root().join("outcomes/trees")).unwrap().count(), 0);
    assert_eq!(store.check(&output_path(), Trust::Fingerprint).unwrap(), info);

    // A second path with the same contents is a copy.
    let other = path("/nix/store/1ncm7wbm5d286vjcmdnyqwwkndbl28s7-hello");
    let copied = store.register_output(&other, &taken, &derivation(), None).unwrap();
    assert_eq!(copied.nar_hash, taken.nar_hash);
    assert!(store.physical(&output_path()).join("data").exists());
}

#[test]
fn a_valid_path_is_never_replaced() {
    let scene = Scene::new();
    let store = scene.open();
    let first = take(&store, &scene.tree("first")).unwrap();
    let tree = scene.tree("second");
    fs::write(tree.join("data"), b"other").unwrap();
    let second = take(&store, &tree).unwrap();
    let info = store.register_output(&output_path(), &first, &derivation(), None).unwrap();
    assert_eq!(store.register_output(&output_path(), &second, &derivation(), None).unwrap(), info);
    assert_eq!(info.nar_hash, first.nar_hash);
    // The other build's tree is still there to be compared.
    assert!(store.tree(&second.nar_hash).unwrap().is_some());
}

#[test]
fn outcomes_are_found_by_derivation_and_come_back_as_they_were() {
    let scene = Scene::new();
    let store = scene.open();
    let taken = take(&store, &scene.tree("tree")).unwrap();
    let first = outcome(&derivation(), &taken);
    assert_eq!(store.outcomes(&derivation()).unwrap(), [] as [String; 0]);
    let id = store.record_outcome(&first).unwrap();
    let second = br#"{"status":"failed","derivation":"DRV","outputs":{}}"#.to_vec();
    let second = String::from_utf8(second).unwrap().replace("DRV", &derivation().to_string()).into_bytes();
    let later = store.record_outcome(&second).unwrap();
    assert_eq!(store.outcomes(&derivation()).unwrap(), [id.clone(), later.clone()]);
    assert_eq!(store.outcome(&derivation(), &id).unwrap(), first);
    assert_eq!(store.outcome(&derivation(), &later).unwrap(), second);
    for bad in ["", "{}", r#"{"derivation":"/etc/passwd"}"#] {
        assert_eq!(store.record_outcome(bad.as_bytes()).unwrap_err().kind(), Kind::BadInput, "{bad}");
    }
}

#[test]
fn logs_are_read_back_and_unfinished_ones_leave_nothing() {
    let scene = Scene::new();
    let store = scene.open();
    let mut log = store.log_writer();
    log.write_all(b"compiling\n").unwrap();
    let digest = Digest::of("compiling\n");
    assert!(store.log(&digest).unwrap().is_none());
    log.finish(&digest).unwrap();
    let read = || {
        let mut text = String::new();
        store.log(&digest).unwrap().unwrap().read_to_string(&mut text).unwrap();
        text
    };
    assert_eq!(read(), "compiling\n");
    // Longer than what is kept in memory until the end.
    let much = b"a line\n".repeat(100_000);
    let mut log = store.log_writer();
    much.chunks(1000).for_each(|chunk| log.write_all(chunk).unwrap());
    log.finish(&Digest::of(&much)).unwrap();
    let mut all = Vec::new();
    store.log(&Digest::of(&much)).unwrap().unwrap().read_to_end(&mut all).unwrap();
    assert!(all == much);
    // One that says the same again leaves the first.
    let mut log = store.log_writer();
    log.write_all(b"compiling\n").unwrap();
    log.finish(&digest).unwrap();
    assert_eq!(read(), "compiling\n");
    let mut log = store.log_writer();
    log.write_all(&much).unwrap();
    drop(log);
    assert_eq!(leftovers(&store), [] as [PathBuf; 0]);
}

#[test]
fn a_derivation_lies_at_its_path_and_names_its_inputs() {
    let scene = Scene::new();
    let store = scene.open();
    let vectors = concat!(env!("CARGO_MANIFEST_DIR"), "/model/tests/vectors/drv/");
    let bytes = fs::read(format!("{vectors}bj7a77xyh1gjmfa2618lflmq0im8bl0s-ia-simple.drv")).unwrap();
    let drv = store.add_derivation(&name("ia-simple"), &bytes).unwrap();
    assert_eq!(drv.to_string(), "/nix/store/bj7a77xyh1gjmfa2618lflmq0im8bl0s-ia-simple.drv");
    assert_eq!(fs::read(store.physical(&drv)).unwrap(), bytes);
    let info = store.path_info(&drv).unwrap().unwrap();
    assert_eq!(info.references.len(), 1);
    assert!(info.ca.unwrap().starts_with("text:sha256:"));

    assert_eq!(store.derivation(&drv).unwrap().print(), bytes);
    assert!(store.add_derivation(&name("bad"), b"Derive(").is_err());
}

#[test]
fn a_draft_is_rewritten_wherever_it_holds_a_hash_part_and_a_name_that_does_is_refused() {
    let scene = Scene::new();
    let store = scene.open();
    let (from, to) = (output_path(), path("/nix/store/b8zzzm23p9pd6h8zbaiz806gqid7q81v-hello"));
    let make = |directory: &str, named: &StorePath| {
        let tree = scene.output(directory);
        // Longer than what is read at once, at offsets of every kind.
        fs::write(tree.join("many"), format!("{named} ").repeat(20_000)).unwrap();
        fs::write(tree.join("half"), &from.to_string()[..30]).unwrap();
        symlink(format!("{named}/many"), tree.join("link")).unwrap();
        tree
    };
    let draft = |tree: &Path| {
        let directory = File::open(tree.parent().unwrap()).unwrap();
        let base = CString::new(tree.file_name().unwrap().as_bytes()).unwrap();
        let source = Source { directory: directory.as_fd(), name: &base, shown: tree, origin: Origin::Built };
        store.draft_output(source, &[from.clone()].into(), TreeLimits::default()).unwrap()
    };
    let (tree, expected) = (make("tree", &from), make("expected", &to));
    let rewrites = Rewrites::new([(&from, &to)]);
    let before = draft(&tree);
    assert_eq!(*before.references(), [from.clone()].into());
    let after = store.rewrite_draft(&before, &rewrites, [to.clone()].into()).unwrap();
    assert_eq!(after.nar_hash().digest(), crate_digest(&expected).1);
    let taken = store.keep_draft(after).unwrap();
    assert_eq!(taken.references, [to].into());
    assert_eq!(crate_digest(&store.tree(&taken.nar_hash).unwrap().unwrap()), crate_digest(&expected));

    fs::create_dir(tree.join("below")).unwrap();
    fs::write(tree.join("below").join(from.hash_part()), "").unwrap();
    let refused = store.rewrite_draft(&draft(&tree), &rewrites, BTreeSet::new());
    let Err(StoreError::Tree(TreeError::OwnName { entry })) = refused else { panic!("{refused:?}") };
    assert_eq!(entry.to_string(), format!("below/{}", from.hash_part()));
    drop(before);
    assert_eq!(leftovers(&store), [] as [PathBuf; 0]);
}

#[test]
fn the_first_realisation_of_an_output_stays_until_its_path_goes() {
    let scene = Scene::new();
    let store = scene.open();
    let realisation = |path: &StorePath| Realisation {
        id: RealisationId { derivation: Digest::of("masked"), output: name("out") },
        path: path.clone(),
        dependent: Default::default(),
        signatures: BTreeSet::new(),
    };
    let refused = store.add_realisation(&derivation(), realisation(&output_path())).unwrap_err();
    assert!(matches!(refused, StoreError::NotValid { .. }), "{refused}");
    let first = store.add_tree(&name("first"), &scene.tree("first"), Digests::Nar).unwrap().info.path;
    let second = store.add_tree(&name("second"), &scene.tree("second"), Digests::Nar).unwrap().info.path;
    store.add_realisation(&derivation(), realisation(&first)).unwrap();
    assert_eq!(store.add_realisation(&derivation(), realisation(&second)).unwrap(), realisation(&first));
    assert_eq!(store.realisation(&derivation(), &name("dev")).unwrap(), None);
    drop(store);

    let store = scene.open();
    assert_eq!(store.realisations().unwrap(), [(derivation(), realisation(&first))]);
    store.add_root(&name("second"), &second).unwrap();
    let file = scene.root().join("realisations").join(derivation().base_name()).join("out.json");
    let text = fs::read(&file).unwrap();
    let collected = store.gc(&Budget::default()).unwrap();
    assert_eq!(collected.paths, [first.clone()].into());
    assert!(!file.parent().unwrap().exists());
    assert_eq!(store.realisation(&derivation(), &name("out")).unwrap(), None);

    // As a crash in between leaves it: it says nothing, and another takes its place.
    fs::create_dir(file.parent().unwrap()).unwrap();
    fs::write(&file, &text).unwrap();
    assert_eq!(store.realisation(&derivation(), &name("out")).unwrap(), None);
    assert_eq!(store.verify(Trust::Bytes).unwrap().problems, []);
    assert_eq!(store.add_realisation(&derivation(), realisation(&second)).unwrap(), realisation(&second));
    fs::write(file.with_file_name("dev.json"), &text).unwrap();
    let problems = store.verify(Trust::Bytes).unwrap().problems;
    assert!(matches!(&problems[..], [Problem::Realisation { file, .. }] if file.ends_with("dev.json")), "{problems:?}");
}
