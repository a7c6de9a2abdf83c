//! Trees that are added and taken: canonical, hashed, scanned.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::PathBuf;

use kiln::exit::Kind;
use kiln::store::{Digests, Taken, TreeLimits, Trust};
use kiln_model::digest::Digest;
use kiln_model::store_path::StorePath;
use kiln_model::tree::Entry;

use crate::{Scene, crate_digest, derivation, leftovers, name, path, take, take_with};

#[test]
fn a_tree_is_kept_canonically_under_the_digest_that_nix_computes() {
    let scene = Scene::new();
    let store = scene.open();
    let tree = scene.tree("tree");
    let added = store.add_tree(&name("tree"), &tree, Digests::NarAndFiles).unwrap();

    let (size, digest) = crate_digest(&tree);
    assert_eq!((added.info.nar_size, added.info.nar_hash.digest()), (size, digest));
    assert_eq!(added.info.path, StorePath::source(&name("tree"), &added.info.nar_hash, &BTreeSet::new()));

    let kept = store.physical(&added.info.path);
    for (entry, mode) in [("", 0o555), ("bin", 0o555), ("bin/run", 0o555), ("data", 0o444)] {
        let metadata = fs::metadata(kept.join(entry)).unwrap();
        assert_eq!(metadata.mode() & 0o7777, mode, "{entry}");
        assert_eq!(metadata.mtime(), 1, "{entry}");
    }
    assert_eq!(fs::symlink_metadata(kept.join("link")).unwrap().mtime(), 1);
    assert_ne!(fs::metadata(kept.join("data")).unwrap().ino(), fs::metadata(tree.join("data")).unwrap().ino());

    let manifest = added.manifest.unwrap();
    let expected = Entry::File { size: 700_000, sha256: Digest::of(vec![b'x'; 700_000]), executable: false };
    assert_eq!(manifest.entry(b"data"), Some(&expected));
    assert_eq!(manifest.len(), 5);
    assert_eq!(store.path_info(&added.info.path).unwrap(), Some(added.info));
    assert_eq!(leftovers(&store), [] as [PathBuf; 0]);
}

#[test]
fn names_and_link_targets_that_are_not_utf8_are_kept() {
    let scene = Scene::new();
    let store = scene.open();
    let tree = scene.output("tree");
    let odd = std::ffi::OsString::from_vec(b"caf\xe9\n".to_vec());
    fs::write(tree.join(&odd), b"x").unwrap();
    symlink(std::ffi::OsString::from_vec(b"\xff/\xfe".to_vec()), tree.join("link")).unwrap();
    let taken = take(&store, &tree).unwrap();
    assert_eq!((taken.nar_size, taken.nar_hash.digest()), crate_digest(&tree));
    assert!(taken.manifest.entry(b"caf\xe9\n").is_some());
    assert_eq!(fs::read(store.tree(&taken.nar_hash).unwrap().unwrap().join(&odd)).unwrap(), b"x");
}

#[test]
fn files_and_links_can_be_roots() {
    let scene = Scene::new();
    let store = scene.open();
    let file = scene.directory.path().join("file");
    fs::write(&file, b"contents").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let link = scene.directory.path().join("link");
    symlink("nowhere", &link).unwrap();
    for tree in [&file, &link] {
        let taken = take(&store, tree).unwrap();
        assert_eq!((taken.nar_size, taken.nar_hash.digest()), crate_digest(tree));
        let info = store.register_output(&store_path_for(&taken), &taken, &derivation(), None).unwrap();
        assert_eq!(store.check(&info.path, Trust::Fingerprint).unwrap(), info);
        assert_eq!(store.check(&info.path, Trust::Bytes).unwrap(), info);
    }
}

fn store_path_for(taken: &Taken) -> StorePath {
    StorePath::source(&name("any"), &taken.nar_hash, &BTreeSet::new())
}

#[test]
fn an_input_directory_holds_files_under_their_original_names() {
    let scene = Scene::new();
    let store = scene.open();
    let bytes = vec![7; 300_000];
    let digest = Digest::of(&bytes);
    let file = store.add_file("hello.tar", &mut &bytes[..], &digest).unwrap();
    assert_eq!(store.file(&digest).unwrap(), Some(file.clone()));

    let added = store.add_files(&name("hello-src"), &[("hello_2.10.orig~.tar".into(), file.clone())]).unwrap();
    let kept = store.physical(&added.info.path);
    assert_eq!(fs::read(kept.join("hello_2.10.orig~.tar")).unwrap(), bytes);
    assert_eq!(fs::metadata(kept.join("hello_2.10.orig~.tar")).unwrap().nlink(), 1);

    // The same as a directory that holds such a file.
    let tree = scene.output("tree");
    fs::write(tree.join("hello_2.10.orig~.tar"), &bytes).unwrap();
    let again = store.add_tree(&name("hello-src"), &tree, Digests::Nar).unwrap();
    assert_eq!(again.info.path, added.info.path);

    for bad in ["", "..", "a/b"] {
        assert!(store.add_files(&name("bad"), &[(bad.into(), file.clone())]).is_err(), "{bad:?}");
    }
}

#[test]
fn a_file_of_another_digest_is_not_kept() {
    let scene = Scene::new();
    let store = scene.open();
    let wanted = Digest::of("wanted");
    let refused = store.add_file("hello.tar", &mut &b"other"[..], &wanted).unwrap_err();
    assert_eq!(refused.kind(), Kind::Tampered);
    assert!(refused.to_string().contains("hello.tar"), "{refused}");
    assert_eq!(store.file(&wanted).unwrap(), None);
    assert_eq!(leftovers(&store), [] as [PathBuf; 0]);
}

#[test]
fn a_link_out_of_the_tree_is_kept_and_not_followed() {
    let scene = Scene::new();
    let store = scene.open();
    let secret = scene.output("secret");
    fs::write(secret.join("key"), b"secret").unwrap();
    let tree = scene.output("tree");
    symlink(&secret, tree.join("link")).unwrap();
    let taken = take(&store, &tree).unwrap();
    assert_eq!(taken.manifest.len(), 2);
    assert!(matches!(taken.manifest.entry(b"link"), Some(Entry::Symlink { .. })));
}

#[test]
fn hard_links_become_files_of_their_own() {
    let scene = Scene::new();
    let store = scene.open();
    let tree = scene.output("tree");
    fs::write(tree.join("a"), b"x").unwrap();
    fs::hard_link(tree.join("a"), tree.join("b")).unwrap();
    let taken = take(&store, &tree).unwrap();
    let kept = store.tree(&taken.nar_hash).unwrap().unwrap();
    assert_eq!(fs::metadata(kept.join("a")).unwrap().nlink(), 1);
    assert_ne!(fs::metadata(kept.join("a")).unwrap().ino(), fs::metadata(kept.join("b")).unwrap().ino());
}

#[test]
fn references_are_found_in_contents_names_and_targets() {
    let scene = Scene::new();
    let store = scene.open();
    let hashes = ["0", "1", "2", "3"].map(|first| format!("{first}ncm7wbm5d286vjcmdnyqwwkndbl28s6"));
    let candidates: BTreeSet<StorePath> = hashes.iter().map(|hash| path(&format!("/nix/store/{hash}-x"))).collect();
    let tree = scene.output("tree");
    // Across the boundary of a block.
    let mut contents = vec![b' '; 256 * 1024 - 200];
    contents.extend(hashes[0].as_bytes());
    contents.extend(vec![b' '; 600_000]);
    fs::write(tree.join("contents"), contents).unwrap();
    fs::write(tree.join(&hashes[1]), b"").unwrap();
    symlink(format!("/nix/store/{}-x", hashes[2]), tree.join("link")).unwrap();
    let taken = take_with(&store, &tree, &candidates, TreeLimits::default()).unwrap();
    assert_eq!(taken.references, candidates.into_iter().take(3).collect());
}
