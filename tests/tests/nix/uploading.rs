//! Caches that kiln puts on a server.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};

use kiln_model::digest::Digest;
use kiln_model::format::narinfo::NarInfo;
use kiln_tests::ground::Ground;
use kiln_tests::lab::Lab;
use kiln_tests::run::{Kiln, Ran};
use kiln_tests::shelf::Shelf;

use crate::{listing, narinfo, stocked, trees};

/// kiln that reaches the loopback, with `paths` of Nix's first store.
fn online(lab: &Lab, paths: &[&str]) -> Kiln {
    let kiln = stocked(lab, paths).online();
    kiln.configure("[fetch]\nclients = []\nattempts = 3\n");
    kiln
}

fn publish(kiln: &Kiln, lab: &Lab, to: &str, key: &str, paths: &[&str]) -> Ran {
    let key = lab.secret(key).display().to_string();
    kiln.run(["publish", "--json", "--nix-cache", "--to", to, "--key", &key].iter().chain(paths))
}

fn base(file: &Path) -> String {
    file.file_name().unwrap().to_str().unwrap().to_owned()
}

#[test]
fn nix_substitutes_what_was_put_on_a_server_and_putting_it_again_sends_nothing() {
    let test = "nix_substitutes_what_was_put_on_a_server_and_putting_it_again_sends_nothing";
    let Some(lab) = Lab::open(test) else { return };
    let (path, naming) = trees(&lab);
    let (kiln, shelf) = (online(&lab, &[&path, &naming]), Shelf::start());
    let published = publish(&kiln, &lab, shelf.address(), "ours", &[&naming]).succeeded().json();
    assert_eq!((&published["added"], &published["kept"]), (&2.into(), &0.into()));
    let put = shelf.put_since(0);
    assert_eq!(put[0], "nix-cache-info");
    let at = |file: &str| put.iter().position(|put| put == file).unwrap_or_else(|| panic!("{file} in {put:?}"));
    let infos = [&path, &naming].map(|path| {
        let file = narinfo(shelf.path(), path);
        let info = NarInfo::parse(&fs::read(&file).unwrap()).unwrap();
        assert!(at(&info.url) < at(&base(&file)));
        info
    });
    assert!(at(&base(&narinfo(shelf.path(), &path))) < at(&base(&narinfo(shelf.path(), &naming))));

    let refused = lab.second(shelf.address(), "other", "nix-store", ["--realise", &naming]);
    assert_ne!(refused.code(), Some(0), "another key is not enough:\n{}", refused.stderr);
    lab.fresh();
    lab.second(shelf.address(), "ours", "nix-store", ["--realise", &naming]).succeeded();
    let key = lab.public("ours");
    let verify = ["store", "verify", "-r", "--sigs-needed", "1", "--trusted-public-keys", &key, &naming];
    lab.second(shelf.address(), "ours", "nix", verify).succeeded();

    let asked = shelf.asked().len();
    assert_eq!(publish(&kiln, &lab, shelf.address(), "ours", &[&naming]).succeeded().json()["kept"], 2);
    assert_eq!(shelf.put_since(asked), [] as [&str; 0]);

    // Another rebuilder signs, and sends no archive; one that is gone is sent again, and nothing else.
    let asked = shelf.asked().len();
    assert_eq!(publish(&kiln, &lab, shelf.address(), "other", &[&naming]).succeeded().json()["signed"], 2);
    assert!(shelf.put_since(asked).iter().all(|file| file.ends_with(".narinfo")));
    fs::remove_file(shelf.path().join(&infos[0].url)).unwrap();
    let asked = shelf.asked().len();
    assert_eq!(publish(&kiln, &lab, shelf.address(), "ours", &[&naming]).succeeded().json()["added"], 1);
    assert_eq!(shelf.put_since(asked)[0], infos[0].url);
    let signed = NarInfo::parse(&fs::read(narinfo(shelf.path(), &path)).unwrap()).unwrap();
    assert_eq!(signed.signatures.len(), 2);
    assert!(shelf.asked().iter().all(|asked| asked.authorization.is_none()));
}

#[test]
fn an_upload_is_tried_again_and_what_is_never_taken_has_no_narinfo() {
    let Some(lab) = Lab::open("an_upload_is_tried_again_and_what_is_never_taken_has_no_narinfo") else { return };
    let (path, naming) = trees(&lab);
    let kiln = online(&lab, &[&path, &naming]);
    // Busy at first, then hanging up, then content.
    let passing = Shelf::failing(|asked| match (asked.method.as_str(), asked.nth) {
        ("PUT", 0) => Some(503),
        ("PUT", 1) => Some(0),
        _ => None,
    });
    publish(&kiln, &lab, passing.address(), "ours", &[&naming]).succeeded();
    lab.second(passing.address(), "ours", "nix-store", ["--realise", &naming]).succeeded();

    let first = NarInfo::parse(&fs::read(narinfo(passing.path(), &path)).unwrap()).unwrap().url;
    let broken = Shelf::failing(move |asked| (asked.method == "PUT" && asked.file == first).then_some(500));
    publish(&kiln, &lab, broken.address(), "ours", &[&naming]).exits(7).says(&["putting nar/", "answered 500"]);
    assert_eq!(broken.asked().iter().filter(|asked| asked.status == 500).count(), 3, "as often as configured");
    let narinfos = || listing(broken.path()).into_iter().filter(|(file, _)| base(file).ends_with("narinfo")).count();
    assert_eq!(narinfos(), 0, "neither its own, nor that of what names it");

    let elsewhere = Shelf::failing(|asked| (asked.method == "PUT").then_some(307));
    publish(&kiln, &lab, elsewhere.address(), "ours", &[&naming]).exits(7).says(&["redirected"]);
    let nobody = "http://127.0.0.1:1";
    publish(&kiln, &lab, nobody, "ours", &[&naming]).exits(7).says(&[nobody]);
    kiln.verified();
}

#[test]
fn uploads_go_through_a_proxy_whatever_is_in_them() {
    let Some(lab) = Lab::open("uploads_go_through_a_proxy_whatever_is_in_them") else { return };
    let shelf = Shelf::start();
    let kiln = Kiln::fresh(Ground::Disk).online().env("http_proxy", shelf.address());
    kiln.configure("[fetch]\nclients = []\nattempts = 1\n");
    // Wherever it is cut into pieces, some begin as a request does.
    let tree = lab.path().join("requests");
    fs::write(&tree, "PUT / HTTP/1.1\r\n".repeat(200_000)).unwrap();
    let added = kiln.run(["store".as_ref(), "add".as_ref(), tree.as_os_str()]).succeeded().stdout;
    let (path, key) = (added.trim_end(), lab.secret("ours").display().to_string());
    let to = ["--to", "http://cache.test/kiln", "--compression", "none", "--key", &key];
    kiln.run(["publish", "--nix-cache"].iter().chain(&to).copied().chain([path])).succeeded();
    let cache = shelf.path().join("kiln");
    let info = NarInfo::parse(&fs::read(narinfo(&cache, path)).unwrap()).unwrap();
    assert_eq!(Digest::of(fs::read(cache.join(&info.url)).unwrap()), info.file_hash.unwrap());
}

#[test]
fn credentials_come_from_netrc_and_addresses_that_cannot_be_put_to_are_bad_input() {
    let test = "credentials_come_from_netrc_and_addresses_that_cannot_be_put_to_are_bad_input";
    let Some(lab) = Lab::open(test) else { return };
    let tree = lab.path().join("large");
    // Larger than what is sent before the server was heard.
    let noise: Vec<u8> = (0..3_u32 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    fs::write(&tree, noise).unwrap();
    let kiln = Kiln::fresh(Ground::Disk).online();
    kiln.configure("[fetch]\nclients = []\nattempts = 2\n");
    let added = kiln.run(["store".as_ref(), "add".as_ref(), tree.as_os_str()]).succeeded().stdout;
    let path = added.trim_end();
    // `me:s3cret`
    let welcome = |asked: &kiln_tests::shelf::Asked| {
        let known = asked.authorization.as_deref() == Some("Basic bWU6czNjcmV0");
        (asked.method == "PUT" && !known).then_some(401)
    };
    let shelf = Shelf::failing(welcome);
    fs::write(shelf.path().join("nix-cache-info"), "StoreDir: /nix/store\n").unwrap();
    publish(&kiln, &lab, shelf.address(), "ours", &[path]).exits(7).says(&["401", ".netrc"]);
    assert_eq!(shelf.asked().iter().filter(|asked| asked.status == 401).count(), 1, "asking again does not help");
    fs::write(kiln.home().join(".netrc"), "machine 127.0.0.1 login me password s3cret\n").unwrap();
    publish(&kiln, &lab, shelf.address(), "ours", &[path]).succeeded();
    lab.second(shelf.address(), "ours", "nix-store", ["--realise", path]).succeeded();

    publish(&kiln, &lab, "s3://bucket", "ours", &[path]).exits(2).says(&["s3://", "directory"]);
    let host = shelf.address().trim_start_matches("http://");
    let secret = publish(&kiln, &lab, &format!("http://me:s3cret@{host}"), "ours", &[path]).exits(2);
    assert!(secret.stderr.contains(".netrc") && !secret.stderr.contains("s3cret"), "{}", secret.stderr);
    let offline = Kiln::with_store(kiln.store());
    publish(&offline, &lab, shelf.address(), "ours", &[path]).exits(7).says(&["offline"]);
}

#[test]
fn killed_at_any_upload_the_server_has_a_whole_cache_and_the_next_run_sends_the_rest() {
    let test = "killed_at_any_upload_the_server_has_a_whole_cache_and_the_next_run_sends_the_rest";
    let Some(lab) = Lab::open(test) else { return };
    let (path, naming) = trees(&lab);
    let kiln = online(&lab, &[&path, &naming]);
    let key = lab.secret("ours").display().to_string();
    let unharmed = Shelf::start();
    publish(&kiln, &lab, unharmed.address(), "ours", &[&naming]).succeeded();
    let whole = |shelf: &Shelf| {
        let files = listing(shelf.path()).into_iter();
        files.map(|(file, bytes)| (file.strip_prefix(shelf.path()).unwrap().to_owned(), bytes)).collect::<Vec<_>>()
    };
    let uploads = unharmed.put_since(0).len();
    assert_eq!(uploads, 5);
    for (fatal, taken) in (0..uploads).flat_map(|fatal| [(fatal, false), (fatal, true)]) {
        let (pid, seen) = (Arc::new(AtomicI32::new(0)), AtomicUsize::new(0));
        let victim = pid.clone();
        let shelf = Shelf::failing(move |asked| {
            if asked.method != "PUT" || seen.fetch_add(1, Ordering::SeqCst) != fatal {
                return None;
            }
            let running = || victim.load(Ordering::SeqCst);
            while running() == 0 {
                std::thread::yield_now();
            }
            let pid = nix::unistd::Pid::from_raw(running());
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
            (!taken).then_some(0)
        });
        let running = kiln.start(["publish", "--nix-cache", "--to", shelf.address(), "--key", &key, &naming]);
        pid.store(running.pid().as_raw(), Ordering::SeqCst);
        assert_eq!(running.end().code(), None, "upload {fatal}");
        for (file, bytes) in whole(&shelf).iter().filter(|(file, _)| base(file).ends_with(".narinfo")) {
            let info = NarInfo::parse(bytes).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
            assert_eq!(Digest::of(fs::read(shelf.path().join(&info.url)).unwrap()), info.file_hash.unwrap());
        }
        publish(&kiln, &lab, shelf.address(), "ours", &[&naming]).succeeded();
        assert!(whole(&shelf) == whole(&unharmed), "upload {fatal}");
        kiln.verified();
    }
}
