//! Trees that are not taken.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::PathBuf;

use kiln::store::{Digests, Refusal, StoreError, TreeError, TreeLimits};

use crate::{Scene, crate_digest, leftovers, name, refusal, take, take_with};

#[test]
fn what_is_no_file_directory_or_link_is_refused() {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    let scene = Scene::new();
    let store = scene.open();
    let make = |case: &str, kind: FileType, device: u64| {
        let tree = scene.output(case);
        mknodat(CWD, tree.join("it"), kind, Mode::from_raw_mode(0o644), device).map(|()| tree)
    };
    let fifo = make("fifo", FileType::Fifo, 0).unwrap();
    assert_eq!(refusal(take(&store, &fifo)), ("it".into(), Refusal::Fifo));

    let socket = scene.output("socket");
    let _listener = std::os::unix::net::UnixListener::bind(socket.join("it")).unwrap();
    assert!(fs::symlink_metadata(socket.join("it")).unwrap().file_type().is_socket());
    assert_eq!(refusal(take(&store, &socket)), ("it".into(), Refusal::Socket));

    // Whiteouts anybody may make, devices only root.
    if let Ok(tree) = make("whiteout", FileType::CharacterDevice, 0) {
        assert_eq!(refusal(take(&store, &tree)), ("it".into(), Refusal::Whiteout));
    }
    if let Ok(tree) = make("device", FileType::CharacterDevice, rustix::fs::makedev(1, 3)) {
        assert_eq!(refusal(take(&store, &tree)), ("it".into(), Refusal::Device));
    }
    assert_eq!(leftovers(&store), [] as [PathBuf; 0]);
}

#[test]
fn set_id_bits_and_writable_roots_of_a_build_are_refused() {
    let scene = Scene::new();
    let store = scene.open();
    for (case, mode) in [("setuid", 0o4755), ("setgid", 0o2755)] {
        let tree = scene.output(case);
        fs::write(tree.join("it"), b"x").unwrap();
        fs::set_permissions(tree.join("it"), fs::Permissions::from_mode(mode)).unwrap();
        assert_eq!(refusal(take(&store, &tree)), ("it".into(), Refusal::SetId));
        // Given by the user, the bit is just dropped: a NAR has none.
        let added = store.add_tree(&name(case), &tree, Digests::Nar).unwrap();
        assert_eq!(fs::metadata(store.physical(&added.info.path).join("it")).unwrap().mode() & 0o7777, 0o555);
    }
    let tree = scene.output("writable");
    fs::set_permissions(&tree, fs::Permissions::from_mode(0o775)).unwrap();
    assert_eq!(refusal(take(&store, &tree)), (String::new(), Refusal::WritableRoot));
}

#[test]
fn security_attributes_are_refused() {
    let scene = Scene::new();
    let store = scene.open();
    let tree = scene.output("tree");
    let file = tree.join("it");
    fs::write(&file, b"x").unwrap();
    // cap_net_raw+ep as capabilities(7) lays it out, version 2.
    let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let set = rustix::fs::setxattr(&file, "security.capability", &capability, rustix::fs::XattrFlags::empty());
    if set.is_err() {
        eprintln!("not root, or no such attributes here: nothing to refuse");
        return;
    }
    assert_eq!(refusal(take(&store, &tree)), ("it".into(), Refusal::SecurityAttribute));
}

#[test]
fn sixty_five_levels_are_refused_and_sixty_three_taken() {
    let scene = Scene::new();
    let store = scene.open();
    for (levels, taken) in [(63, true), (65, false)] {
        let tree = scene.output(&format!("tree{levels}"));
        fs::create_dir_all(tree.join(vec!["d"; levels - 1].join("/"))).unwrap();
        let result = take(&store, &tree);
        if taken {
            assert_eq!(result.unwrap().nar_hash.digest(), crate_digest(&tree).1);
        } else {
            assert_eq!(refusal(result).1, Refusal::TooDeep);
        }
    }
}

#[test]
fn a_sparse_file_above_the_limit_is_refused_unread() {
    let scene = Scene::new();
    let store = scene.open();
    let tree = scene.output("tree");
    File::create(tree.join("huge")).unwrap().set_len(1 << 42).unwrap();
    let limits = TreeLimits { bytes: 1 << 30, ..TreeLimits::default() };
    let refused = take_with(&store, &tree, &BTreeSet::new(), limits);
    assert!(matches!(refused, Err(StoreError::Tree(TreeError::TooLarge { what: "bytes", .. }))), "{refused:?}");
    assert_eq!(leftovers(&store), [] as [PathBuf; 0]);
}

#[test]
fn a_missing_output_is_said_to_be_missing() {
    let scene = Scene::new();
    let store = scene.open();
    let missing = scene.directory.path().join("missing");
    let refused = take(&store, &missing);
    assert!(matches!(refused, Err(StoreError::Tree(TreeError::Missing { .. }))), "{refused:?}");
}
