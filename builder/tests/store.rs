//! The store's promises: nothing half-valid, nothing lost, nothing taken that should not be.

#![expect(clippy::unwrap_used, reason = "a scene that cannot be set up fails its test")]

use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use kiln::exit::Kind;
use kiln::store::{
    Budget, Digests, Origin, Problem, Refusal, Source, Store, StoreError, Taken, TreeError, TreeLimits, Trust,
};
use kiln_model::digest::Digest;
use kiln_model::format::realisation::{Realisation, RealisationId};
use kiln_model::name::Name;
use kiln_model::rewrite::Rewrites;
use kiln_model::store_path::StorePath;
use kiln_model::tree::Entry;

struct Scene {
    directory: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    fn root(&self) -> PathBuf {
        self.directory.path().join("store")
    }

    fn open(&self) -> Store {
        Store::open(&self.root()).unwrap()
    }

    /// An empty directory for a build to leave things in.
    fn output(&self, name: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    fn tree(&self, name: &str) -> PathBuf {
        let path = self.output(name);
        fs::create_dir(path.join("bin")).unwrap();
        fs::write(path.join("bin/run"), b"#!/bin/sh\n").unwrap();
        fs::set_permissions(path.join("bin/run"), fs::Permissions::from_mode(0o700)).unwrap();
        fs::write(path.join("data"), vec![b'x'; 700_000]).unwrap();
        symlink("bin/run", path.join("link")).unwrap();
        path
    }
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn path(text: &str) -> StorePath {
    text.parse().unwrap()
}

fn output_path() -> StorePath {
    path("/nix/store/1ncm7wbm5d286vjcmdnyqwwkndbl28s6-hello")
}

fn derivation() -> StorePath {
    path("/nix/store/bj7a77xyh1gjmfa2618lflmq0im8bl0s-hello.drv")
}

fn take(store: &Store, tree: &Path) -> Result<Taken, StoreError> {
    take_with(store, tree, &BTreeSet::new(), TreeLimits::default())
}

fn take_with(
    store: &Store,
    tree: &Path,
    candidates: &BTreeSet<StorePath>,
    limits: TreeLimits,
) -> Result<Taken, StoreError> {
    let directory = File::open(tree.parent().unwrap()).unwrap();
    let base = CString::new(tree.file_name().unwrap().as_bytes()).unwrap();
    let source = Source { directory: directory.as_fd(), name: &base, shown: tree, origin: Origin::Built };
    store.take_output(source, candidates, limits)
}

fn refusal(result: Result<Taken, StoreError>) -> (String, Refusal) {
    match result {
        Err(StoreError::Tree(TreeError::Refused { entry, what })) => (entry.to_string(), what),
        other => panic!("{other:?}"),
    }
}

fn outcome(derivation: &StorePath, taken: &Taken) -> Vec<u8> {
    format!(
        r#"{{"status":"built","derivation":"{derivation}","outputs":{{"out":{{"path":"{}","nar_hash":"{}"}}}}}}"#,
        output_path(),
        taken.nar_hash
    )
    .into_bytes()
}

/// The crate's own digest of a tree on disk.
fn crate_digest(path: &Path) -> (u64, Digest) {
    let hash = nix_archive::nar::hash_path(path, nix_archive::nar::CaseHack::Disabled).unwrap();
    (hash.size, Digest::from_bytes(hash.sha256))
}

fn leftovers(store: &Store) -> Vec<PathBuf> {
    fs::read_dir(store.root().join("tmp")).unwrap().map(|entry| entry.unwrap().path()).collect()
}

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
    assert_eq!(store.latest_outcome(&derivation()).unwrap(), None);
    let id = store.record_outcome(&first).unwrap();
    let second = br#"{"status":"failed","derivation":"DRV","outputs":{}}"#.to_vec();
    let second = String::from_utf8(second).unwrap().replace("DRV", &derivation().to_string()).into_bytes();
    let later = store.record_outcome(&second).unwrap();
    assert_eq!(store.outcomes(&derivation()).unwrap(), [id.clone(), later]);
    assert_eq!(store.outcome(&derivation(), &id).unwrap(), first);
    assert_eq!(store.latest_outcome(&derivation()).unwrap(), Some(second));
    for bad in ["", "{}", r#"{"derivation":"/etc/passwd"}"#] {
        assert_eq!(store.record_outcome(bad.as_bytes()).unwrap_err().kind(), Kind::BadInput, "{bad}");
    }
}

#[test]
fn logs_are_read_back_and_unfinished_ones_leave_nothing() {
    let scene = Scene::new();
    let store = scene.open();
    let mut log = store.log_writer().unwrap();
    log.write_all(b"compiling\n").unwrap();
    assert!(store.log(&name("build-1")).unwrap().is_none());
    log.finish(&name("build-1")).unwrap();
    let mut text = String::new();
    store.log(&name("build-1")).unwrap().unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "compiling\n");
    drop(store.log_writer().unwrap());
    assert_eq!(leftovers(&store), [] as [PathBuf; 0]);
}

#[test]
fn a_derivation_lies_at_its_path_and_its_valid_outputs_are_found() {
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

    let derivation = store.derivation(&drv).unwrap();
    assert_eq!(store.valid_outputs(&derivation).unwrap(), None);
    let output = derivation.outputs.values().next().unwrap().path().unwrap().clone();
    let taken = take(&store, &scene.tree("tree")).unwrap();
    store.register_output(&output, &taken, &drv, None).unwrap();
    let outputs = store.valid_outputs(&derivation).unwrap().unwrap();
    assert_eq!(outputs[&name("out")].path, output);
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
    fs::write(scene.root().join("schema"), "2\n").unwrap();
    let refused = Store::open(&scene.root()).unwrap_err();
    assert!(matches!(refused, StoreError::NewerSchema { found: 2, known: 1, .. }), "{refused}");
    assert_eq!(refused.kind(), Kind::BadInput);
    assert_eq!(fs::read_to_string(scene.root().join("schema")).unwrap(), "2\n");
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
    let place = store.add_environment(&nar_hash, &made).unwrap();
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

mod random_trees {
    use proptest::collection::{btree_map, vec};
    use proptest::prelude::*;

    use super::*;

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
            // Around the sizes that need other padding, and around a block.
            (prop_oneof![0_usize..20, 262_000_usize..262_400, 500_000_usize..800_000], any::<u8>(), any::<bool>())
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
}
