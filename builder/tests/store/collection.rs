//! What is collected and what stays.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use kiln::store::{Budget, Collected, Digests, Room, Store, Taken, TreeLimits, Trust};
use kiln_model::digest::{Digest, NarHash};
use kiln_model::store_path::StorePath;

use crate::{Scene, derivation, leftovers, name, outcome, output_path, take, take_with};

fn small(scene: &Scene, store: &Store, text: &str) -> StorePath {
    let tree = scene.output(text);
    fs::write(tree.join("x"), text).unwrap();
    store.add_tree(&name(text), &tree, Digests::Nar).unwrap().info.path
}

#[test]
fn collection_keeps_roots_and_what_running_processes_hold() {
    let scene = Scene::new();
    let [rooted, held, dead] = {
        let store = scene.open();
        ["rooted", "held", "dead"].map(|text| small(&scene, &store, text))
    };
    let running = scene.open();
    running.hold(&BTreeSet::from([held.clone()])).unwrap();
    let store = scene.open();
    store.add_root(&name("hello"), &rooted).unwrap();
    let collected = store.gc(&Budget::default()).unwrap();
    assert_eq!(collected.paths, BTreeSet::from([dead.clone()]));
    assert!(!store.physical(&dead).exists());
    assert_eq!(store.path_info(&dead).unwrap(), None);
    assert!(store.path_info(&rooted).unwrap().is_some());
    assert!(running.path_info(&held).unwrap().is_some());
    assert!(running.hold(&BTreeSet::from([dead])).is_err());

    drop(running);
    store.remove_root(&name("hello")).unwrap();
    assert_eq!(store.gc(&Budget::default()).unwrap().paths, BTreeSet::from([rooted, held]));
    assert_eq!(leftovers(&store), [] as [PathBuf; 0]);
}

#[test]
fn collection_keeps_what_a_kept_path_names() {
    let scene = Scene::new();
    let (input, output) = {
        let store = scene.open();
        let input = small(&scene, &store, "input");
        let tree = scene.output("output");
        fs::write(tree.join("x"), input.to_string()).unwrap();
        let candidates = BTreeSet::from([input.clone()]);
        let taken = take_with(&store, &tree, &candidates, TreeLimits::default()).unwrap();
        store.register_output(&output_path(), &taken, &derivation(), None).unwrap();
        assert_eq!(store.referrers(&input).unwrap(), BTreeSet::from([output_path()]));
        (input, output_path())
    };
    let store = scene.open();
    store.add_root(&name("it"), &output).unwrap();
    assert_eq!(store.gc(&Budget::default()).unwrap().paths, BTreeSet::new());
    assert_eq!(store.closure(&BTreeSet::from([output.clone()])).unwrap().len(), 2);
    store.remove_root(&name("it")).unwrap();
    assert_eq!(store.gc(&Budget::default()).unwrap().paths, BTreeSet::from([input, output]));
}

#[test]
fn the_oldest_decoded_packages_go_when_there_are_more_than_the_budget_for_files() {
    let scene = Scene::new();
    let store = scene.open();
    let packages = store.kept_packages();
    fs::create_dir(&packages).unwrap();
    let digests: Vec<Digest> = (0..3_u8).map(|number| Digest::of([number])).collect();
    for (age, digest) in digests.iter().enumerate() {
        let file = fs::File::create(packages.join(format!("{digest}.deb"))).unwrap();
        file.set_len(100).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(age as u64)).unwrap();
    }
    let budget = |files| Budget { files, ..Budget::default() };
    assert_eq!(store.gc(&budget(300)).unwrap().packages, BTreeSet::new());
    let collected = store.gc(&budget(299)).unwrap();
    assert_eq!((collected.packages, collected.bytes), (BTreeSet::from([digests[0]]), 100));
    store.gc(&budget(0)).unwrap();
    assert_eq!(fs::read_dir(&packages).unwrap().count(), 0);
}

#[test]
fn what_a_failed_build_left_goes_with_the_next_collection() {
    let scene = Scene::new();
    let store = scene.open();
    let private = store.private_dir().unwrap();
    fs::write(private.path().join("half"), b"x").unwrap();
    let kept = store.keep_failed(&private, &derivation()).unwrap();
    drop(private);
    assert!(kept.join("half").exists());
    store.gc(&Budget::default()).unwrap();
    assert!(!kept.exists());
}

#[test]
fn a_path_that_is_being_made_is_not_taken_for_a_leftover() {
    let scene = Scene::new();
    let store = scene.open();
    let place = store.physical(&output_path());
    fs::create_dir(&place).unwrap();
    let lock = store.lock_path(&output_path()).unwrap();
    assert!(store.try_lock_path(&output_path()).unwrap().is_none());
    store.gc(&Budget::default()).unwrap();
    assert!(place.exists());
    drop(lock);
    store.gc(&Budget::default()).unwrap();
    assert!(!place.exists());
}

#[test]
fn the_budget_evicts_trees_without_an_outcome_first_and_then_the_oldest() {
    let scene = Scene::new();
    let taken: Vec<Taken> = {
        let store = scene.open();
        ["first", "second", "orphan"]
            .map(|text| {
                let tree = scene.output(text);
                fs::write(tree.join("x"), format!("{text:>9}")).unwrap();
                let taken = take(&store, &tree).unwrap();
                if text != "orphan" {
                    store.record_outcome(&outcome(&derivation(), &taken)).unwrap();
                }
                taken
            })
            .into()
    };
    // The order of making must not hang on the clock's resolution.
    let index = rusqlite::Connection::open(scene.root().join("index.sqlite")).unwrap();
    for (made, tree) in taken.iter().enumerate() {
        index
            .execute("UPDATE trees SET made = ?1 WHERE nar_hash = ?2", (made as i64, tree.nar_hash.to_string()))
            .unwrap();
    }
    let size = taken[0].nar_size;
    assert!(taken.iter().all(|tree| tree.nar_size == size));

    let store = scene.open();
    let budget = |count: u64| Budget { trees: count * size, ..Budget::default() };
    assert_eq!(store.gc(&budget(3)).unwrap().trees, BTreeSet::new());
    assert_eq!(store.gc(&budget(2)).unwrap().trees, BTreeSet::from([taken[2].nar_hash]));
    assert_eq!(store.gc(&budget(1)).unwrap().trees, BTreeSet::from([taken[0].nar_hash]));
    // Being used, it stays whatever the budget says.
    assert!(store.tree(&taken[1].nar_hash).unwrap().is_some());
    assert_eq!(store.gc(&budget(0)).unwrap().trees, BTreeSet::new());
    // What was seen is still known.
    assert_eq!(store.outcomes(&derivation()).unwrap().len(), 2);
}

#[test]
fn environments_beyond_their_room_go_the_one_used_the_longest_ago_first_and_none_that_is_held() {
    let scene = Scene::new();
    let made: Vec<(NarHash, u64)> = (0..3)
        .map(|n| {
            let store = scene.open();
            let private = store.private_dir().unwrap();
            let made = private.path().join("root");
            fs::create_dir(&made).unwrap();
            fs::write(made.join("file"), [n]).unwrap();
            let (nar_hash, size, _) = store.digest_directory(&made, Digests::Nar).unwrap();
            store.add_environment(&nar_hash, size, &made).unwrap();
            (nar_hash, size)
        })
        .collect();
    let size = made[0].1;
    let used = |n: usize, store: &Store| store.environment(&made[n].0, Trust::Fingerprint).unwrap().is_some();
    let (holder, trimmer) = (scene.open(), scene.open());
    assert!(used(1, &holder));
    assert!(used(0, &scene.open()));
    let trim = |rest: u64| trimmer.trim(&Room { trees: 0, environments: rest }).unwrap();
    assert_eq!(trim(3 * size), Collected::default(), "there is room for all");
    let gone = trim(2 * size);
    assert_eq!((gone.environments, gone.bytes), (BTreeSet::from([made[2].0]), size), "0 was used after it, 1 is held");
    assert_eq!(trim(0).environments, BTreeSet::from([made[0].0]));
    drop(holder);
    assert_eq!(trim(0).environments, BTreeSet::from([made[1].0]));
    assert!((0..3).all(|n| !used(n, &trimmer)));
}
