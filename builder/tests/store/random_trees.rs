//! Any tree: the digest is the one that another implementation computes.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use kiln_model::digest::Digest;
use kiln_model::tree::Entry;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use crate::{Scene, crate_digest, take};

#[derive(Debug, Clone)]
enum Node {
    File { contents: Vec<u8>, executable: bool },
    Symlink(Vec<u8>),
    Directory(std::collections::BTreeMap<Vec<u8>, Node>),
}

fn names() -> impl Strategy<Value = Vec<u8>> {
    vec(prop_oneof![Just(b'.'), Just(b'a'), Just(b'-'), Just(0xff), 1_u8..=255], 1..12)
        .prop_map(|name| name.into_iter().map(|byte| if byte == b'/' { b'_' } else { byte }).collect::<Vec<u8>>())
        .prop_filter("reserved", |name| name != b"." && name != b"..")
}

fn trees() -> impl Strategy<Value = Node> {
    let leaf = prop_oneof![
        // Around the sizes that need other padding, around the least of a block, and around a whole one.
        (
            prop_oneof![0_usize..20, 16_200_usize..16_500, 1_048_300_usize..1_048_700, 500_000_usize..800_000],
            any::<u8>(),
            any::<bool>()
        )
            .prop_map(|(size, byte, executable)| Node::File { contents: vec![byte; size], executable }),
        vec(1_u8..=255, 1..40).prop_map(Node::Symlink),
    ];
    leaf.prop_recursive(4, 24, 6, |inner| btree_map(names(), inner, 0..6).prop_map(Node::Directory))
}

fn make(path: &Path, node: &Node) {
    match node {
        Node::File { contents, executable } => {
            fs::write(path, contents).unwrap();
            let mode = if *executable { 0o755 } else { 0o644 };
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        }
        Node::Symlink(target) => symlink(std::ffi::OsStr::from_bytes(target), path).unwrap(),
        Node::Directory(entries) => {
            fs::create_dir(path).unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
            for (name, node) in entries {
                make(&path.join(std::ffi::OsStr::from_bytes(name)), node);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn the_copy_and_the_original_have_the_digest_that_the_crate_computes(tree in trees()) {
        let scene = Scene::new();
        let store = scene.open();
        let original = scene.directory.path().join("tree");
        make(&original, &tree);
        let taken = take(&store, &original).unwrap();
        let expected = crate_digest(&original);
        prop_assert_eq!((taken.nar_size, taken.nar_hash.digest()), expected);
        let copy = store.tree(&taken.nar_hash).unwrap().unwrap();
        prop_assert_eq!(crate_digest(&copy), expected);
        for (entry, found) in taken.manifest.entries() {
            if let Entry::File { sha256, .. } = found {
                let file = match entry.as_bytes() {
                    b"" => copy.clone(),
                    path => copy.join(std::ffi::OsStr::from_bytes(path)),
                };
                prop_assert_eq!(Digest::of(fs::read(file).unwrap()), *sha256);
            }
        }
    }
}
