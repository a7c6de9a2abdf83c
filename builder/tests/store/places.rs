//! Where things lie.

use std::fs;
use std::os::unix::fs::symlink;

use kiln::exit::Kind;
use kiln::store::{Digests, Trust};

use crate::{Scene, name};

#[test]
fn an_environment_is_there_whole_or_not_at_all() {
    let scene = Scene::new();
    let store = scene.open();
    let tree = scene.tree("tree");
    let added = store.add_tree(&name("environment"), &tree, Digests::Nar).unwrap();
    let nar_hash = added.info.nar_hash;
    assert_eq!(store.environment(&nar_hash, Trust::Fingerprint).unwrap(), None);
    let private = store.private_dir().unwrap();
    let made = private.path().join("root");
    fs::create_dir(&made).unwrap();
    fs::create_dir(made.join("bin")).unwrap();
    for file in ["bin/run", "data"] {
        fs::copy(tree.join(file), made.join(file)).unwrap();
    }
    symlink("bin/run", made.join("link")).unwrap();
    let place = store.add_environment(&nar_hash, 1, &made).unwrap();
    assert_eq!(store.environment(&nar_hash, Trust::Bytes).unwrap(), Some(place.clone()));

    fs::write(place.join("data"), b"altered").unwrap();
    assert_eq!(store.environment(&nar_hash, Trust::Fingerprint).unwrap_err().kind(), Kind::Tampered);
    store.remove_environment(&nar_hash).unwrap();
    assert_eq!(store.environment(&nar_hash, Trust::Fingerprint).unwrap(), None);
}

#[test]
fn the_default_root_follows_the_variables() {
    let root = |set: &[(&str, &str)]| {
        kiln::store::default_root(|name| set.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into()))
    };
    assert_eq!(root(&[("KILN_STORE", "/a"), ("XDG_DATA_HOME", "/b"), ("HOME", "/c")]), Some("/a".into()));
    assert_eq!(root(&[("KILN_STORE", ""), ("XDG_DATA_HOME", "/b"), ("HOME", "/c")]), Some("/b/kiln".into()));
    assert_eq!(root(&[("HOME", "/c")]), Some("/c/.local/share/kiln".into()));
    assert_eq!(root(&[]), None);
}
