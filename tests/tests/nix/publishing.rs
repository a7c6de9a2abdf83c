//! Caches that kiln published, and the keys that it signs with.

use std::fs::{self, File};

use kiln_model::digest::{Digest, NarHash};
use kiln_model::format::narinfo::NarInfo;
use kiln_tests::ground::Ground;
use kiln_tests::lab::Lab;
use kiln_tests::run::Kiln;

use crate::{edit, listing, narinfo, stocked, trees};

#[test]
fn publishing_again_changes_nothing_a_second_rebuilder_adds_its_signature_and_one_who_differs_is_refused() {
    let test = "publishing_again_changes_nothing_a_second_rebuilder_adds_its_signature_and_one_who_differs_is_refused";
    let Some(lab) = Lab::open(test) else { return };
    let (path, naming) = trees(&lab);
    let kiln = stocked(&lab, &[&path, &naming]);
    let cache = lab.path().join("published");
    let publish = |key: &str| {
        let (cache, key) = (cache.display().to_string(), lab.secret(key).display().to_string());
        kiln.run(["publish", "--nix-cache", "--json", "--to", &cache, "--key", &key, &naming])
    };
    assert_eq!(publish("ours").succeeded().json()["added"], 2);
    let before = listing(&cache);
    assert_eq!(publish("ours").succeeded().json()["kept"], 2);
    assert_eq!(listing(&cache), before);
    assert_eq!(publish("other").succeeded().json()["signed"], 2);
    let info = NarInfo::parse(&fs::read(narinfo(&cache, &path)).unwrap()).unwrap();
    assert_eq!(info.signatures.len(), 2);
    // Nix asks for both, and sees that a third is wanting.
    let address = format!("file://{}", cache.display());
    lab.second(&address, "ours", "nix-store", ["--realise", &naming]).succeeded();
    let keys = format!("{} {}", lab.public("ours"), lab.public("other"));
    let verify = |needed| {
        let arguments = ["store", "verify", "-r", "--sigs-needed", needed, "--trusted-public-keys", &keys, &naming];
        lab.second(&address, "ours", "nix", arguments)
    };
    verify("2").succeeded();
    assert_ne!(verify("3").code(), Some(0));

    // A signature that cannot be verified here stays as well, and is not lost when the archive is written again.
    let theirs = format!("theirs-1:{}", "A".repeat(86) + "==");
    edit(&cache, &path, |info| info.signatures.insert(0, theirs.clone()));
    let before = listing(&cache);
    assert_eq!(publish("ours").succeeded().json()["kept"], 2);
    assert_eq!(listing(&cache), before);

    // An archive that went missing is written again; a narinfo that says otherwise is not replaced.
    fs::remove_file(cache.join(&info.url)).unwrap();
    assert_eq!(publish("ours").succeeded().json()["added"], 1);
    assert!(cache.join(&info.url).is_file());
    assert_eq!(listing(&cache), before);
    let other = NarHash::new(Digest::of("other"));
    let ours = info.nar_hash;
    edit(&cache, &path, |info| info.nar_hash = other);
    let before = listing(&cache);
    publish("ours").exits(1).says(&["two builds differ", "NAR hash", &ours.to_string(), &other.to_string()]);
    assert_eq!(listing(&cache), before);
    edit(&cache, &path, |info| {
        info.nar_hash = ours;
        info.references.insert(naming.parse().unwrap());
    });
    publish("ours").exits(1).says(&["references", "none here"]);
}

#[test]
fn a_publisher_that_is_killed_leaves_a_cache_that_is_whole_as_far_as_it_goes() {
    let Some(lab) = Lab::open("a_publisher_that_is_killed_leaves_a_cache_that_is_whole_as_far_as_it_goes") else {
        return;
    };
    let kiln = Kiln::fresh(Ground::Disk);
    let tree = lab.path().join("many");
    let mut paths = Vec::new();
    for number in 0..40 {
        fs::write(&tree, format!("{number}").repeat(20_000)).unwrap();
        let name = format!("tree-{number}");
        let added = kiln.run(["store".as_ref(), "add".as_ref(), "--name".as_ref(), name.as_ref(), tree.as_os_str()]);
        paths.push(added.succeeded().stdout.trim_end().to_owned());
    }
    let (cache, key) = (lab.path().join("killed"), lab.secret("ours").display().to_string());
    let to = cache.display().to_string();
    let arguments =
        || ["publish", "--nix-cache", "--to", &to, "--key", &key].into_iter().chain(paths.iter().map(String::as_str));
    // Killed once so many archives are there: what it is in the midst of then is up to the machine.
    for archives in [0, 2, 9, 25] {
        let mut running = kiln.start(arguments());
        let there = || fs::read_dir(cache.join("nar")).map_or(0, |entries| entries.count());
        while there() < archives && running.runs() {
            std::thread::yield_now();
        }
        nix::sys::signal::kill(running.pid(), nix::sys::signal::Signal::SIGKILL).ok();
        running.end();
        for (file, bytes) in
            listing(&cache).into_iter().filter(|(file, _)| file.extension().is_some_and(|e| e == "narinfo"))
        {
            let info = NarInfo::parse(&bytes).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
            assert_eq!(Digest::of(fs::read(cache.join(&info.url)).unwrap()), info.file_hash.unwrap());
        }
    }
    kiln.run(arguments()).succeeded();
    let fresh = Kiln::fresh(Ground::Disk);
    let public = lab.public("ours");
    let all = ["store", "substitute", "--substituters", &to, "--trusted-public-keys", &public];
    fresh.run(all.into_iter().chain(paths.iter().map(String::as_str))).succeeded();
    let left = listing(&cache).into_iter().filter(|(file, _)| file.to_string_lossy().contains(".tmp-")).count();
    assert_eq!(left, 0);
    fresh.verified();
    kiln.verified();
}

#[test]
fn keys_that_kiln_makes_are_nix_s_and_nobody_else_may_read_them() {
    let Some(lab) = Lab::open("keys_that_kiln_makes_are_nix_s_and_nobody_else_may_read_them") else { return };
    let kiln = Kiln::fresh(Ground::Disk);
    let file = lab.path().join("made");
    let generate = |name: &str| {
        kiln.run(["key".as_ref(), "generate".as_ref(), name.as_ref(), "--output".as_ref(), file.as_os_str()])
    };
    generate("a b").exits(2);
    let public = generate("made-1").succeeded().stdout;
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&file).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    generate("made-1").exits(7);
    let convert = lab.command("nix", ["key", "convert-secret-to-public"]).stdin(File::open(&file).unwrap()).output();
    assert_eq!(String::from_utf8(convert.unwrap().stdout).unwrap(), public.trim_end());
    let again = kiln.run(["key".as_ref(), "public".as_ref(), file.as_os_str()]).succeeded().stdout;
    assert_eq!(again, public);
}
