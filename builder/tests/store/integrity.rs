//! The index and the disk: what is found to differ, and what is not believed.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use kiln::exit::Kind;
use kiln::store::{Digests, Problem, Store, StoreError, Trust};
use kiln_model::store_path::StorePath;

use crate::{Scene, derivation, leftovers, name, outcome, output_path, take};

#[test]
fn threads_and_stores_that_add_the_same_tree_agree() {
    let scene = Scene::new();
    let tree = scene.tree("tree");
    scene.open();
    let paths: BTreeSet<StorePath> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    let store = scene.open();
                    store.add_tree(&name("tree"), &tree, Digests::Nar).unwrap().info.path
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(paths.len(), 1);
    let store = scene.open();
    assert_eq!(store.verify(Trust::Bytes).unwrap().problems, []);
    assert_eq!(store.paths().unwrap().len(), 1);
    assert_eq!(leftovers(&store), [] as [PathBuf; 0]);
}

#[test]
fn the_index_made_from_disk_is_the_index_that_was_lost() {
    let scene = Scene::new();
    let store = scene.open();
    let taken = take(&store, &scene.tree("tree")).unwrap();
    let kept = scene.output("kept");
    fs::write(kept.join("x"), b"x").unwrap();
    let kept = take(&store, &kept).unwrap();
    store.register_output(&output_path(), &taken, &derivation(), None).unwrap();
    let id = store.record_outcome(&outcome(&derivation(), &taken)).unwrap();
    let before = store.paths().unwrap();
    drop(store);

    for damage in ["missing", "garbage"] {
        for suffix in ["", "-wal", "-shm"] {
            let file = scene.root().join(format!("index.sqlite{suffix}"));
            match damage {
                "garbage" if suffix.is_empty() => fs::write(file, vec![0xa5; 8192]).unwrap(),
                _ => fs::remove_file(file).unwrap_or_default(),
            }
        }
        let store = scene.open();
        assert_eq!(store.paths().unwrap(), before, "{damage}");
        assert_eq!(store.outcomes(&derivation()).unwrap(), std::slice::from_ref(&id), "{damage}");
        assert!(store.tree(&kept.nar_hash).unwrap().is_some(), "{damage}");
        assert_eq!(store.verify(Trust::Bytes).unwrap().problems, [], "{damage}");
    }
}

#[test]
fn a_path_whose_index_row_was_never_written_is_valid() {
    let scene = Scene::new();
    let store = scene.open();
    let added = store.add_tree(&name("tree"), &scene.tree("tree"), Digests::Nar).unwrap();
    let index = rusqlite::Connection::open(scene.root().join("index.sqlite")).unwrap();
    index.execute("DELETE FROM paths", []).unwrap();
    assert_eq!(store.verify(Trust::Fingerprint).unwrap().problems, [Problem::Index { path: added.info.path.clone() }]);
    assert_eq!(store.path_info(&added.info.path).unwrap(), Some(added.info));
    assert_eq!(store.verify(Trust::Fingerprint).unwrap().problems, []);
}

#[test]
fn a_tree_without_a_record_is_not_valid_and_is_replaced() {
    let scene = Scene::new();
    let store = scene.open();
    let tree = scene.tree("tree");
    let added = store.add_tree(&name("tree"), &tree, Digests::Nar).unwrap();
    let kept = store.physical(&added.info.path);
    drop(store);
    // As a crash between rename and record leaves it, and worse: with other bytes.
    fs::remove_file(scene.root().join("meta").join(format!("{}.json", added.info.path.base_name()))).unwrap();
    fs::remove_file(scene.root().join("index.sqlite")).unwrap();
    write_into(&kept.join("data"), b"half");
    let store = scene.open();
    assert_eq!(store.path_info(&added.info.path).unwrap(), None);
    let again = store.add_tree(&name("tree"), &tree, Digests::Nar).unwrap();
    assert_eq!(again.info.path, added.info.path);
    assert_eq!(store.verify(Trust::Bytes).unwrap().problems, []);
}

fn write_into(file: &Path, bytes: &[u8]) {
    fs::set_permissions(file, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(file, bytes).unwrap();
}

#[test]
fn verify_finds_a_flipped_byte_and_names_the_file() {
    let scene = Scene::new();
    let store = scene.open();
    let added = store.add_tree(&name("tree"), &scene.tree("tree"), Digests::Nar).unwrap();
    assert_eq!(store.verify(Trust::Bytes).unwrap().problems, []);
    let file = store.physical(&added.info.path).join("data");
    let mut bytes = fs::read(&file).unwrap();
    bytes[350_000] ^= 1;
    let ctime = |path: &Path| fs::metadata(path).map(|m| (m.ctime(), m.ctime_nsec())).unwrap();
    // The kernel's clock for files ticks a few hundred times a second: until it has, a change cannot be seen.
    while ctime(&file) <= ctime(&store.physical(&added.info.path)) {
        write_into(&file, &bytes);
    }
    fs::set_permissions(&file, fs::Permissions::from_mode(0o444)).unwrap();
    let times = fs::FileTimes::new().set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(1));
    File::open(&file).unwrap().set_times(times).unwrap();

    for trust in [Trust::Fingerprint, Trust::Bytes] {
        let problems = store.verify(trust).unwrap().problems;
        assert!(
            matches!(&problems[..], [Problem::Altered { entries, .. }] if entries == &["data".into()]),
            "{problems:?}"
        );
        let refused = store.check(&added.info.path, trust).unwrap_err();
        assert_eq!(refused.kind(), Kind::Tampered, "{refused}");
    }
}

#[test]
fn a_store_that_was_moved_is_read_once_and_believed_again() {
    let scene = Scene::new();
    let store = scene.open();
    let added = store.add_tree(&name("tree"), &scene.tree("tree"), Digests::Nar).unwrap();
    let file = store.physical(&added.info.path).join("data");
    let copy = file.with_file_name("copy");
    let parent = file.parent().unwrap();
    // Another inode with the same bytes, as a restored backup has.
    fs::set_permissions(parent, fs::Permissions::from_mode(0o755)).unwrap();
    fs::copy(&file, &copy).unwrap();
    fs::rename(&copy, &file).unwrap();
    fs::set_permissions(parent, fs::Permissions::from_mode(0o555)).unwrap();
    let checked = store.check(&added.info.path, Trust::Fingerprint).unwrap();
    assert_ne!(checked.fingerprint, added.info.fingerprint);
    assert_eq!(store.path_info(&added.info.path).unwrap(), Some(checked));
}

#[test]
fn a_newer_schema_is_refused_and_left_alone() {
    let scene = Scene::new();
    scene.open();
    let newer = format!("{}\n", kiln::store::SCHEMA + 1);
    fs::write(scene.root().join("schema"), &newer).unwrap();
    let refused = Store::open(&scene.root()).unwrap_err();
    assert!(matches!(refused, StoreError::NewerSchema { found, known, .. } if found == known + 1), "{refused}");
    assert_eq!(refused.kind(), Kind::BadInput);
    assert_eq!(fs::read_to_string(scene.root().join("schema")).unwrap(), newer);
    fs::write(scene.root().join("schema"), "what\n").unwrap();
    assert!(matches!(Store::open(&scene.root()), Err(StoreError::Damaged { .. })));
}

#[test]
fn a_store_that_cannot_be_written_says_so() {
    let scene = Scene::new();
    let file = scene.directory.path().join("file");
    fs::write(&file, b"").unwrap();
    let refused = Store::open(&file.join("store")).unwrap_err();
    assert_eq!(refused.kind(), Kind::Host);
    assert!(refused.to_string().contains("file/store"), "{refused}");
}

#[test]
fn what_a_killed_process_left_is_cleaned_up_and_what_a_living_one_has_stays() {
    let scene = Scene::new();
    let living = scene.open();
    let private = living.private_dir().unwrap();
    fs::create_dir(private.path().join("closed")).unwrap();
    fs::write(private.path().join("closed/file"), b"x").unwrap();
    fs::set_permissions(private.path().join("closed"), fs::Permissions::from_mode(0o000)).unwrap();
    assert_eq!(fs::metadata(private.path()).unwrap().mode() & 0o7777, 0o700);
    // A session that nobody locks.
    fs::write(scene.root().join("sessions/deaddeaddeaddead"), "").unwrap();
    let left = scene.root().join("tmp/deaddeaddeaddead.3");
    fs::create_dir(&left).unwrap();
    fs::write(left.join("half"), b"x").unwrap();
    fs::set_permissions(&left, fs::Permissions::from_mode(0o000)).unwrap();

    let store = scene.open();
    assert!(!left.exists());
    assert!(!scene.root().join("sessions/deaddeaddeaddead").exists());
    assert!(private.path().exists());
    drop(private);
    assert_eq!(leftovers(&store), [] as [PathBuf; 0]);
}
