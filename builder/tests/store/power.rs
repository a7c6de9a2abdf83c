//! The machine stops: what an unended turn made is read again, what is torn goes, and what was told of stays.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use kiln::store::{Arrival, Digests, PathInfo, Store, Trust};
use kiln_model::digest::Digest;
use kiln_model::format::realisation::{Realisation, RealisationId};
use kiln_model::store_path::StorePath;

use crate::{Scene, derivation, name, outcome, output_path, path, take};

/// The files of the sessions that are there, with what they say.
fn sessions(scene: &Scene) -> Vec<(PathBuf, String)> {
    let entries = fs::read_dir(scene.root().join("sessions")).unwrap();
    entries.map(|entry| entry.unwrap().path()).map(|path| (path.clone(), fs::read_to_string(path).unwrap())).collect()
}

/// Another boot of the machine than this one.
const OTHER_BOOT: &str = "00000000-0000-4000-8000-000000000000";

/// `store` as if its process had died with its last turn open, in this boot or another.
fn dies(scene: &Scene, store: Store, boot: Option<&str>) {
    let (file, text) = sessions(scene).pop().unwrap();
    drop(store);
    let line = |line: &str| match (&line.split(' ').collect::<Vec<_>>()[..], boot) {
        (["unsynced", turn, _, since], Some(boot)) => format!("unsynced {turn} {boot} {since}\n"),
        _ => format!("{line}\n"),
    };
    fs::write(file, text.lines().map(line).collect::<String>()).unwrap();
}

fn tear(path: &Path, how: &str) {
    let length = fs::metadata(path).unwrap().len();
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
    let file = File::options().write(true).open(path).unwrap();
    match how {
        "cut" => file.set_len(length / 2).unwrap(),
        "empty" => file.set_len(0).unwrap(),
        // The size is there and the bytes are not: what ext4 and XFS show after a crash.
        _ => (&file).write_all(&vec![0; length as usize]).unwrap(),
    }
}

/// One of everything that a turn makes.
struct Made {
    source: PathInfo,
    registered: PathInfo,
    kept: kiln::store::Taken,
    outcome: String,
    log: Digest,
}

fn make(scene: &Scene, store: &Store) -> Made {
    let source = store.add_tree(&name("source"), &scene.tree("source"), Digests::Nar).unwrap().info;
    let tree = scene.output("output");
    fs::write(tree.join("file"), b"built").unwrap();
    let taken = take(store, &tree).unwrap();
    let outcome = store.record_outcome(&outcome(&derivation(), &taken)).unwrap();
    let registered = store.register_output(&output_path(), &taken, &derivation(), None).unwrap();
    let tree = scene.output("other");
    fs::write(tree.join("file"), b"built otherwise").unwrap();
    let kept = take(store, &tree).unwrap();
    let id = RealisationId { derivation: Digest::of("resolved"), output: name("out") };
    let realisation =
        Realisation { id, path: output_path(), dependent: Default::default(), signatures: Default::default() };
    store.add_realisation(&derivation(), realisation).unwrap();
    let mut log = store.log_writer();
    log.write_all(b"said\n").unwrap();
    let digest = Digest::of("said\n");
    log.finish(&digest).unwrap();
    Made { source, registered, kept, outcome, log: digest }
}

#[track_caller]
fn has_everything(store: &Store, made: &Made) {
    assert_eq!(store.lost(), []);
    assert_eq!(store.path_info(&made.source.path).unwrap().as_ref(), Some(&made.source));
    assert_eq!(store.path_info(&output_path()).unwrap().as_ref(), Some(&made.registered));
    assert!(store.tree(&made.kept.nar_hash).unwrap().is_some());
    assert_eq!(store.outcomes(&derivation()).unwrap(), std::slice::from_ref(&made.outcome));
    assert!(store.log(&made.log).unwrap().is_some());
    assert!(store.realisation(&derivation(), &name("out")).unwrap().is_some());
    assert_eq!(store.verify(Trust::Bytes).unwrap().problems, []);
}

#[test]
fn a_killed_process_loses_nothing_and_nothing_is_read_again() {
    let scene = Scene::new();
    let store = scene.open();
    let made = make(&scene, &store);
    dies(&scene, store, None);
    // What is torn by other hands is not seen, as nothing is read; the fingerprint finds it on use.
    let store = scene.open();
    has_everything(&store, &made);
    assert_eq!(sessions(&scene).len(), 1);
    drop(store);
    assert_eq!(sessions(&scene), []);
}

#[test]
fn after_the_machine_stopped_what_is_whole_stays() {
    let scene = Scene::new();
    let store = scene.open();
    let made = make(&scene, &store);
    dies(&scene, store, Some(OTHER_BOOT));
    has_everything(&scene.open(), &made);
    assert_eq!(sessions(&scene), []);
}

#[test]
fn after_the_machine_stopped_what_is_torn_is_gone_and_the_rest_is_whole() {
    for how in ["cut", "empty", "zeros"] {
        let scene = Scene::new();
        let store = scene.open();
        let made = make(&scene, &store);
        let root = scene.root();
        let tree = |path: &StorePath| root.join("nix/store").join(path.base_name());
        tear(&tree(&made.source.path).join("data"), how);
        tear(&tree(&output_path()).join("file"), how);
        let kept = root.join("outcomes/trees").join(made.kept.nar_hash.digest().to_string());
        tear(&kept.join("file"), how);
        tear(&root.join("logs").join(format!("{}.zst", made.log)), how);
        let records = root.join("outcomes/records").join(derivation().base_name());
        tear(&records.join(format!("{}.json", made.outcome)), how);
        dies(&scene, store, Some(OTHER_BOOT));

        let store = scene.open();
        let lost: Vec<_> = store.lost().iter().map(|lost| lost.what.split('/').next().unwrap().to_owned()).collect();
        assert_eq!(lost, ["nix", "nix", "outcomes", "outcomes", "logs"], "{how}: {:?}", store.lost());
        assert_eq!(store.paths().unwrap(), [], "{how}");
        assert_eq!(store.tree(&made.kept.nar_hash).unwrap(), None, "{how}");
        assert_eq!(store.outcomes(&derivation()).unwrap(), [] as [String; 0], "{how}");
        assert!(store.log(&made.log).unwrap().is_none(), "{how}");
        assert_eq!(store.realisation(&derivation(), &name("out")).unwrap(), None, "{how}");
        assert_eq!(store.verify(Trust::Bytes).unwrap().problems, [], "{how}");
        assert!(!tree(&output_path()).exists() && !kept.exists(), "{how}");
        // It can be made again.
        store.add_tree(&name("source"), &scene.directory.path().join("source"), Digests::Nar).unwrap();
        drop(store);
        let store = scene.open();
        assert_eq!(store.lost(), [], "{how}: the repair is not repeated");
        assert_eq!(store.verify(Trust::Bytes).unwrap().problems, [], "{how}");
    }
}

#[test]
fn after_the_machine_stopped_a_record_that_is_not_whole_costs_its_path_only() {
    for how in ["cut", "empty", "zeros"] {
        let scene = Scene::new();
        let store = scene.open();
        let made = make(&scene, &store);
        let root = scene.root();
        tear(&root.join("meta").join(format!("{}.json", made.source.path.base_name())), how);
        tear(&root.join("outcomes/trees").join(format!("{}.json", made.kept.nar_hash.digest())), how);
        tear(&root.join("realisations").join(derivation().base_name()).join("out.json"), how);
        dies(&scene, store, Some(OTHER_BOOT));
        // An index that says otherwise decides nothing.
        let store = scene.open();
        assert_eq!(store.lost().len(), 3, "{how}: {:?}", store.lost());
        assert_eq!(store.paths().unwrap(), [made.registered], "{how}");
        assert_eq!(store.tree(&made.kept.nar_hash).unwrap(), None, "{how}");
        assert_eq!(store.realisation(&derivation(), &name("out")).unwrap(), None, "{how}");
        assert_eq!(store.verify(Trust::Bytes).unwrap().problems, [], "{how}");
    }
}

#[test]
fn what_names_something_that_was_lost_is_not_valid_either() {
    let scene = Scene::new();
    let store = scene.open();
    let named = store.add_tree(&name("named"), &scene.tree("named"), Digests::Nar).unwrap().info;
    let tree = scene.output("names");
    fs::write(tree.join("file"), named.path.to_string()).unwrap();
    let mut nar = Vec::new();
    kiln::nix::dump(&tree, &mut nar).unwrap();
    let arrival = Arrival {
        path: path("/nix/store/b8zzzm23p9pd6h8zbaiz806gqid7q81v-names"),
        references: [named.path.clone()].into(),
        deriver: None,
        ca: None,
        signatures: Default::default(),
        substituted: None,
    };
    let names = arrival.path.clone();
    let restored = store.restore(&mut &nar[..], Default::default()).unwrap();
    store.register_restored(restored, arrival).unwrap();
    fs::remove_dir_all(store.physical(&named.path)).unwrap_or_else(|_| {
        // Its directories are read-only to their owner.
        let aside = scene.directory.path().join("aside");
        fs::set_permissions(store.physical(&named.path), fs::Permissions::from_mode(0o755)).unwrap();
        fs::rename(store.physical(&named.path), aside).unwrap();
    });
    dies(&scene, store, Some(OTHER_BOOT));
    let store = scene.open();
    assert_eq!(store.paths().unwrap(), []);
    assert!(!store.physical(&names).exists());
    let lost: Vec<_> = store.lost().iter().map(|lost| lost.found.clone()).collect();
    assert_eq!(lost, ["nothing is there".to_owned(), format!("it names {}, which was lost", named.path)]);
}

#[test]
fn what_an_ended_turn_made_is_not_read_again() {
    let scene = Scene::new();
    let store = scene.open();
    let settled = store.add_tree(&name("settled"), &scene.tree("settled"), Digests::Nar).unwrap().info;
    store.sync().unwrap();
    store.sync().unwrap();
    let later = scene.output("later");
    fs::write(later.join("file"), b"x").unwrap();
    let later = store.add_tree(&name("later"), &later, Digests::Nar).unwrap().info;
    tear(&store.physical(&settled.path).join("data"), "zeros");
    tear(&store.physical(&later.path).join("file"), "zeros");
    dies(&scene, store, Some(OTHER_BOOT));
    let store = scene.open();
    // Were it read, it would be gone: it is found when it is used.
    assert_eq!(store.paths().unwrap(), std::slice::from_ref(&settled));
    assert_eq!(store.lost().len(), 1);
    assert!(store.check(&settled.path, Trust::Fingerprint).is_err());
}

#[test]
fn a_session_that_ended_its_turns_and_died_is_not_doubted() {
    let scene = Scene::new();
    let store = scene.open();
    let added = store.add_tree(&name("tree"), &scene.tree("tree"), Digests::Nar).unwrap().info;
    store.sync().unwrap();
    tear(&store.physical(&added.path).join("data"), "zeros");
    dies(&scene, store, Some(OTHER_BOOT));
    let store = scene.open();
    assert_eq!(store.lost(), []);
    assert_eq!(store.paths().unwrap(), [added]);
}

#[test]
fn a_living_session_is_not_doubted_and_its_turn_is_its_own_to_end() {
    let scene = Scene::new();
    let living = scene.open();
    let added = living.add_tree(&name("tree"), &scene.tree("tree"), Digests::Nar).unwrap().info;
    tear(&living.physical(&added.path).join("data"), "zeros");
    let (file, text) = sessions(&scene).pop().unwrap();
    assert!(text.lines().any(|line| line.starts_with("unsynced 1 ")), "{text}");
    // Even one whose line is of another boot: it is locked.
    fs::write(&file, text.replace("unsynced 1 ", "unsynced 1 x")).unwrap();
    let store = scene.open();
    assert_eq!(store.lost(), []);
    assert_eq!(store.paths().unwrap(), [added]);
    assert!(file.exists());
    drop(store);
    assert!(file.exists());
    living.sync().unwrap();
    assert!(fs::read_to_string(&file).unwrap().ends_with("synced 1\n"));
}

#[test]
fn a_repair_that_was_cut_short_is_made_again() {
    let scene = Scene::new();
    let store = scene.open();
    let added = store.add_tree(&name("tree"), &scene.tree("tree"), Digests::Nar).unwrap().info;
    let (file, _) = sessions(&scene).pop().unwrap();
    dies(&scene, store, Some(OTHER_BOOT));
    tear(&scene.root().join("nix/store").join(added.path.base_name()).join("data"), "zeros");
    // The repair cannot make an index here, and the session stays until it could.
    let index = scene.root().join("index.sqlite");
    for suffix in ["", "-wal", "-shm"] {
        fs::remove_file(scene.root().join(format!("index.sqlite{suffix}"))).unwrap_or_default();
    }
    fs::create_dir(&index).unwrap();
    Store::open(&scene.root()).unwrap_err();
    assert!(file.exists());
    fs::remove_dir(&index).unwrap();
    let store = scene.open();
    assert!(!file.exists());
    assert_eq!(store.paths().unwrap(), []);
}

#[test]
fn a_store_of_the_first_schema_is_brought_up_and_what_is_in_it_stays() {
    let scene = Scene::new();
    let store = scene.open();
    let added = store.add_tree(&name("tree"), &scene.tree("tree"), Digests::Nar).unwrap().info;
    drop(store);
    // As it was written then: a record alone.
    let record = scene.root().join("meta").join(format!("{}.json", added.path.base_name()));
    let text = fs::read_to_string(&record).unwrap();
    let (alone, stamp) = text.split_once('\n').unwrap();
    assert!(stamp.contains("turn"), "{stamp}");
    fs::set_permissions(&record, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(&record, alone).unwrap();
    fs::write(scene.root().join("schema"), "1\n").unwrap();
    let store = scene.open();
    store.rebuild_index().unwrap();
    assert_eq!(store.paths().unwrap(), [added]);
    assert_eq!(fs::read_to_string(scene.root().join("schema")).unwrap(), format!("{}\n", kiln::store::SCHEMA));
}
