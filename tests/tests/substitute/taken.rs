//! What a cache has is taken and remembered, and what rests on it is built.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use kiln_model::format::realisation::Realisation;
use kiln_model::format::signature::SecretKey;
use kiln_tests::derivation::{BUILDER, with_builder};
use kiln_tests::ground::{self, Ground};
use kiln_tests::run::Kiln;
use kiln_tests::web::{Files, Server};

use crate::{On, bare, edit, narinfo, outcome, paths, replace};

#[test]
fn what_a_cache_has_is_not_built_and_what_only_that_needs_is_not_even_asked_for() {
    let Some(on) = On::new("what_a_cache_has_is_not_built_and_what_only_that_needs_is_not_even_asked_for") else {
        return;
    };
    let last = on.built("last");
    let middle = on.built("middle");
    let server = Server::of(&on.cache("cache", &[&last]));
    // Without the builder and without the source: nothing could be built here.
    let kiln = bare(Kiln::fresh(Ground::Disk).online());
    let ran = on.build(&kiln, server.address(), &on.file("last")).succeeded();
    let outcome = outcome(&ran);
    assert_eq!((&outcome["status"], &outcome["cached"]), (&"built".into(), &true.into()));
    assert_eq!(outcome["outputs"]["out"]["path"], *last);
    assert_eq!(outcome["outputs"]["out"]["nar_hash"], on.nar_hash(&last));
    let from = &outcome["substituted"][&last];
    assert_eq!((&from["from"], &from["signed_by"]), (&server.address().into(), &"ours-1".into()));
    let asked = server.asked();
    let narinfos: Vec<&String> = asked.iter().filter(|target| target.ends_with(".narinfo")).collect();
    assert_eq!(narinfos, [&narinfo(&last), &narinfo(&middle)], "{asked:?}");
    assert_eq!(asked.len(), 5, "nix-cache-info, and a narinfo and an archive for each of two paths: {asked:?}");
    assert_eq!(paths(&kiln).len(), 2);
    kiln.verified();
    // And again: from the store, and nobody is asked.
    assert_eq!(on.build(&kiln, server.address(), &on.file("last")).succeeded().json()["builds"][0]["cached"], true);
    assert_eq!(server.asked(), Vec::<String>::new());
}

#[test]
fn a_text_comes_out_of_a_cache_because_its_bytes_are_those_of_its_path() {
    let test = "a_text_comes_out_of_a_cache_because_its_bytes_are_those_of_its_path";
    let Some(on) = On::new(test) else { return };
    let noted = on.built("noted");
    let note = on.lab.first("nix-store", ["-q", "--references", &on.derivation("noted")]).succeeded().stdout;
    let note = note.lines().find(|path| path.ends_with("-note")).unwrap().to_owned();
    let cache = on.cache("cache", &[&note]);
    edit(&cache, &note, |info| info.signatures.clear());
    let address = cache.display().to_string();
    let built = outcome(&on.build(&on.kiln, &address, &on.file("noted")).succeeded());
    assert_eq!(built["outputs"]["out"]["path"], *noted);
    assert_eq!(built["outputs"]["out"]["nar_hash"], on.nar_hash(&noted));
    assert_eq!(built["substituted"][&note], serde_json::json!({ "from": address }), "nobody signed it");
    on.kiln.verified();
    // Other bytes, told honestly but for the address.
    let other = on.lab.path().join("other");
    fs::write(&other, "see something else\n").unwrap();
    let nar = on.lab.command("nix-store", ["--dump".as_ref(), other.as_os_str()]).output().unwrap().stdout;
    edit(&cache, &note, |info| {
        replace(&cache, info, &nar);
        info.nar_hash = kiln_model::digest::NarHash::new(kiln_model::digest::Digest::of(&nar));
        info.nar_size = nar.len() as u64;
    });
    let kiln = with_builder(test).unwrap();
    on.build(&kiln, &address, &on.file("noted")).exits(6).says(&["CA of", "text:sha256:"]);
    assert_eq!(paths(&kiln), [BUILDER]);
}

#[test]
fn what_no_cache_has_is_built_upon_what_one_has() {
    let Some(on) = On::new("what_no_cache_has_is_built_upon_what_one_has") else { return };
    let (last, middle, first) = (on.built("last"), on.built("middle"), on.built("first"));
    let source = on.lab.first("nix-store", ["-q", "--references", &on.derivation("last")]).succeeded().stdout;
    let source = source.lines().find(|path| path.ends_with("-text")).unwrap().to_owned();
    let cache = on.cache("cache", &[&middle, &source]);
    let outcome = outcome(&on.build(&on.kiln, &cache.display().to_string(), &on.file("last")).succeeded());
    assert_eq!((&outcome["status"], &outcome["cached"]), (&"built".into(), &false.into()));
    assert_eq!(outcome["outputs"]["out"]["nar_hash"], on.nar_hash(&last));
    let substituted: Vec<&String> = outcome["substituted"].as_object().unwrap().keys().collect();
    let mut expected = [&middle, &source];
    expected.sort();
    assert_eq!(substituted, expected);
    assert!(!paths(&on.kiln).contains(&first), "it was of no use");
    on.kiln.verified();
}

#[test]
fn a_check_substitutes_what_its_target_needs_and_never_the_target() {
    let Some(on) = On::new("a_check_substitutes_what_its_target_needs_and_never_the_target") else { return };
    let (last, middle) = (on.built("last"), on.built("middle"));
    let source = on.lab.first("nix-store", ["-q", "--references", &on.derivation("last")]).succeeded().stdout;
    let source = source.lines().find(|path| path.ends_with("-text")).unwrap().to_owned();
    let server = Server::of(&on.cache("cache", &[&last, &source]));
    let (file, key) = (on.file("last"), on.lab.public("ours"));
    let words = ["check", "--json", "--substituters", server.address(), "--trusted-public-keys", &key];
    let report = on.kiln.run(words.iter().map(std::ffi::OsStr::new).chain([file.as_os_str()])).succeeded().json();
    assert_eq!(report["verdict"], "reproduced");
    for outcome in report["outcomes"].as_array().unwrap() {
        assert_eq!(outcome["cached"], false);
        assert_eq!(outcome["substituted"][&middle]["signed_by"], "ours-1");
        assert_eq!(outcome["outputs"]["out"]["nar_hash"], on.nar_hash(&last));
    }
    let asked = server.asked();
    assert!(asked.contains(&narinfo(&middle)) && !asked.contains(&narinfo(&last)), "{asked:?}");
}

#[test]
fn a_derivation_is_built_if_it_or_the_caller_says_so() {
    let Some(on) = On::new("a_derivation_is_built_if_it_or_the_caller_says_so") else { return };
    let cache = on.cache("cache", &[&on.built("always"), &on.built("first")]).display().to_string();
    let always = outcome(&on.build(&on.kiln, &cache, &on.file("always")).succeeded());
    assert_eq!(always["cached"], false, "its author says so");
    let substituted: Vec<&String> = always["substituted"].as_object().unwrap().keys().collect();
    assert_eq!(substituted, [&on.built("first")], "what it reads is another matter");
    let kiln = with_builder("a_derivation_is_built_if_it_or_the_caller_says_so").unwrap();
    kiln.configure(&format!(
        "[caches]\nsubstituters = [{cache:?}]\ntrusted-public-keys = [{:?}]\n",
        on.lab.public("ours")
    ));
    let file = on.file("first");
    let build = |words: &[&str]| {
        let words = ["build", "--json"].iter().chain(words).map(std::ffi::OsStr::new);
        outcome(&kiln.run(words.chain([file.as_os_str()])).succeeded())
    };
    assert_eq!(build(&["--no-substitute"])["cached"], false);
    // As configured.
    let kiln = Kiln::fresh(Ground::Disk);
    kiln.configure(&format!(
        "[caches]\nsubstituters = [{cache:?}]\ntrusted-public-keys = [{:?}]\n",
        on.lab.public("ours")
    ));
    let outcome = outcome(&kiln.run(["build".as_ref(), "--json".as_ref(), file.as_os_str()]).succeeded());
    assert_eq!(outcome["cached"], true);
    assert_eq!(outcome["substituted"].as_object().unwrap().values().next().unwrap()["from"], *cache);
}

#[test]
fn derivations_themselves_come_out_of_caches() {
    let Some(on) = On::new("derivations_themselves_come_out_of_caches") else { return };
    let (last, derivation) = (on.built("last"), on.derivation("last"));
    let cache = on.cache("cache", &[&last]);
    on.cache("cache", &["--derivation", &derivation]);
    let address = cache.display().to_string();
    let kiln = Kiln::fresh(Ground::Disk);
    let built = outcome(&on.build(&kiln, &address, Path::new(&derivation)).succeeded());
    assert_eq!((&built["outputs"]["out"]["path"], &built["cached"]), (&last.as_str().into(), &true.into()));
    let shown = kiln.run(["derivation", "show", &derivation]).succeeded().json();
    assert!(shown[&derivation].is_object());
    kiln.verified();

    // Its closure has the builder and the sources: so it can be built, too.
    fs::remove_file(cache.join(&narinfo(&last)[1..])).unwrap();
    let kiln = Kiln::fresh(Ground::Tmpfs);
    let built = outcome(&on.build(&kiln, &address, Path::new(&derivation)).succeeded());
    assert_eq!((&built["outputs"]["out"]["path"], &built["cached"]), (&last.as_str().into(), &false.into()));
    assert_eq!(built["outputs"]["out"]["nar_hash"], on.nar_hash(&last));
    let by = &built["substituted"][BUILDER];
    assert!(by["from"].is_string(), "{built:#}");

    let other = on.lab.path().join("other");
    let text = fs::read_to_string(on.lab.physical(&derivation)).unwrap();
    fs::write(&other, text.replacen("busybox", "busyboy", 1)).unwrap();
    let nar = on.lab.command("nix-store", ["--dump".as_ref(), other.as_os_str()]).output().unwrap().stdout;
    edit(&cache, &derivation, |info| replace(&cache, info, &nar));
    let kiln = Kiln::fresh(Ground::Disk);
    on.build(&kiln, &address, Path::new(&derivation)).exits(6).says(&["NarHash"]);
    assert_eq!(paths(&kiln), Vec::<String>::new());
    let gone = "/nix/store/00000000000000000000000000000000-gone.drv";
    on.build(&kiln, &address, Path::new(gone)).exits(2).says(&["gone.drv", "no cache has it"]);
}

#[test]
fn what_caches_answered_is_remembered_for_a_while_absence_too() {
    let Some(on) = On::new("what_caches_answered_is_remembered_for_a_while_absence_too") else { return };
    let (middle, dev) = (on.built("middle"), on.built("middle.dev"));
    let empty = on.lab.path().join("empty");
    fs::create_dir_all(&empty).unwrap();
    fs::write(empty.join("nix-cache-info"), "StoreDir: /nix/store\nPriority: 1\n").unwrap();
    let server = Server::of(&empty);
    let file = on.file("middle");
    let settings = |negative: u32| {
        format!("[fetch]\nclients = []\nattempts = 1\n[caches]\nnarinfo-cache-negative-ttl = {negative}\n")
    };
    on.kiln.configure(&settings(3600));
    let words = |more: &[&str]| {
        let key = on.lab.public("ours");
        let words = ["store", "substitute", "--substituters", server.address(), "--trusted-public-keys", &key];
        on.kiln.run(words.iter().chain(more).copied().chain([middle.as_str()])).exits(7).says(&["in none of 1 caches"]);
        server.asked()
    };
    assert_eq!(words(&[]), ["/nix-cache-info".to_owned(), narinfo(&middle)]);
    assert_eq!(words(&[]), Vec::<String>::new());
    assert_eq!(words(&["--refresh"]), ["/nix-cache-info".to_owned(), narinfo(&middle)]);
    assert_eq!(words(&[]), Vec::<String>::new());
    on.kiln.configure(&settings(0));
    assert_eq!(words(&[]), [narinfo(&middle)], "what it said of itself still holds");
    on.kiln.configure(&settings(3600));
    assert_eq!(words(&[]), [narinfo(&middle)], "what does not hold is not kept");
    // A build asks for what was not asked for yet, and only for that.
    on.build(&on.kiln, server.address(), &file).succeeded();
    let first = on.built("first");
    let mut asked = server.asked();
    asked.sort();
    let mut expected = [narinfo(&dev), narinfo(&first)];
    expected.sort();
    assert_eq!(asked, expected);

    // What is remembered and no longer so does not stand in the way: here all was published again under other names.
    let cache = on.cache("cache", &[&middle]);
    let files = Arc::new(Mutex::new(Files::of(&cache)));
    let shared = Arc::clone(&files);
    let server = Server::start(move |target| shared.lock().unwrap().answer(target));
    let kiln = bare(Kiln::fresh(Ground::Disk).online());
    let substitute = || {
        let key = on.lab.public("ours");
        let words = ["store", "substitute", "--substituters", server.address(), "--trusted-public-keys", &key];
        kiln.run(words.into_iter().chain([middle.as_str()]))
    };
    fs::rename(cache.join("nar"), cache.join("moved")).unwrap();
    *files.lock().unwrap() = Files::of(&cache);
    substitute().exits(7).says(&["and not the archive"]);
    fs::create_dir(cache.join("nar")).unwrap();
    let nar = on.lab.command("nix-store", ["--dump".into(), on.lab.physical(&middle)]).output().unwrap().stdout;
    edit(&cache, &middle, |info| replace(&cache, info, &nar));
    *files.lock().unwrap() = Files::of(&cache);
    server.asked();
    substitute().succeeded();
    assert_eq!(server.asked().len(), 3, "an archive that is gone, its narinfo again, and the archive that this names");
    kiln.verified();
}

#[test]
fn a_floating_output_is_taken_from_a_cache_if_a_trusted_key_says_what_it_became() {
    let test = "a_floating_output_is_taken_from_a_cache_if_a_trusted_key_says_what_it_became";
    let Some(on) = On::new(test) else { return };
    let (float, upon) = (on.built("float"), on.built("upon"));
    let deferred = on.built("deferred");
    let cache = on.cache("cache", &[&on.derivation("upon")]);
    on.cache("cache", &[&deferred]);
    let realisations: Vec<PathBuf> =
        fs::read_dir(cache.join("realisations")).unwrap().map(|entry| entry.unwrap().path()).collect();
    let server = Server::of(&cache);
    let kiln = bare(Kiln::fresh(Ground::Disk).online());
    let built = outcome(&on.build(&kiln, server.address(), &on.file("upon")).succeeded());
    assert_eq!((&built["outputs"]["out"]["path"], &built["cached"]), (&upon.as_str().into(), &true.into()));
    assert_eq!(built["outputs"]["out"]["nar_hash"], on.nar_hash(&upon));
    assert!(paths(&kiln).contains(&float), "what it names came along");
    let asked = server.asked();
    assert_eq!(asked.iter().filter(|target| target.starts_with("/realisations/")).count(), 1, "{asked:?}");
    let before = paths(&kiln);
    assert_eq!(outcome(&on.build(&kiln, server.address(), &on.file("upon")).succeeded())["cached"], true);
    assert_eq!(paths(&kiln), before);
    kiln.verified();

    // What is built upon it, too: once resolved, its path is known and can be asked for.
    let kiln = with_builder(test).unwrap();
    let built = outcome(&on.build(&kiln, &cache.display().to_string(), &on.file("deferred")).succeeded());
    assert_eq!((&built["outputs"]["out"]["path"], &built["cached"]), (&deferred.as_str().into(), &true.into()));
    kiln.verified();

    let change = |change: &dyn Fn(&mut Realisation)| {
        for file in &realisations {
            let mut realisation = Realisation::parse(&fs::read(file).unwrap()).unwrap();
            change(&mut realisation);
            fs::write(file, realisation.print()).unwrap();
        }
    };
    let originals: Vec<Vec<u8>> = realisations.iter().map(|file| fs::read(file).unwrap()).collect();
    // Another path, which is in the cache and whole: only the signature tells.
    change(&|realisation| realisation.path = deferred.parse().unwrap());
    let fresh = Kiln::fresh(Ground::Disk);
    let address = cache.display().to_string();
    on.build(&fresh, &address, &on.file("upon")).exits(6).says(&["realisation", "signature by ours-1"]);
    assert_eq!(paths(&fresh), Vec::<String>::new());
    // Signed by another key of the same name, and by one that nobody trusts.
    let other: SecretKey = fs::read_to_string(on.lab.secret("other")).unwrap().trim_end().parse().unwrap();
    change(&|realisation| {
        realisation.signatures = [other.sign(realisation.fingerprint().as_bytes()).to_string()].into();
    });
    on.build(&fresh, &address, &on.file("upon")).exits(6).says(&["realisation", "no trusted key signed it"]);
    // Nobody signed it: as good as none.
    change(&|realisation| realisation.signatures.clear());
    let kiln = with_builder(test).unwrap();
    let ran = on.build(&kiln, &address, &on.file("upon")).succeeded().says(&["has no signature and is not taken"]);
    assert_eq!((&outcome(&ran)["cached"], &outcome(&ran)["outputs"]["out"]["path"]), (&false.into(), &upon.into()));
    // Of another output, and none at all.
    for (file, original) in realisations.iter().zip(originals.iter().rev()) {
        fs::write(file, original).unwrap();
    }
    if realisations.len() > 1 {
        on.build(&fresh, &address, &on.file("upon")).exits(6).says(&["is one of sha256:"]);
    }
    for file in &realisations {
        fs::write(file, "<html>").unwrap();
    }
    on.build(&fresh, &address, &on.file("upon")).exits(6).says(&["not a realisation"]);
    assert_eq!(paths(&fresh), Vec::<String>::new());
}

#[test]
fn many_derivations_come_out_of_a_cache_at_once() {
    let test = "many_derivations_come_out_of_a_cache_at_once";
    let Some(kiln) = with_builder(test) else { return };
    let lab = ground::directory(Ground::Disk);
    let made = kiln_tests::derivation::Made::default();
    let kiln = kiln.online();
    let secret = lab.path().join("key");
    let public = kiln
        .run(["key".as_ref(), "generate".as_ref(), "many-1".as_ref(), "--output".as_ref(), secret.as_os_str()])
        .succeeded()
        .stdout;
    let fans: Vec<_> =
        (0..60).map(|number| made.closed(&format!("fan-{number}"), &[], &format!("echo {number} > $out"))).collect();
    let needs: Vec<(&kiln_model::derivation::Closed, &[&str])> = fans.iter().map(|fan| (fan, &["out"][..])).collect();
    let names: Vec<String> =
        fans.iter().map(|fan| fan.derivation.outputs.values().next().unwrap().path().unwrap().to_string()).collect();
    let all = made.closed("all", &needs, &format!("echo {} > $out", names.join(" ")));
    let built = kiln.build_one(&made.file(&all.path));
    let out = built["outputs"]["out"]["path"].as_str().unwrap();
    let cache = lab.path().join("cache");
    let words = ["publish", "--nix-cache", "--to", cache.to_str().unwrap(), "--key", secret.to_str().unwrap(), out];
    kiln.run(words).succeeded();
    let server = Server::of(&cache);
    let fresh = bare(Kiln::fresh(Ground::Disk).online());
    let file = made.file(&all.path);
    let words = ["build", "--json", "--substituters", server.address(), "--trusted-public-keys", public.trim_end()];
    let ran = fresh.run(words.iter().map(std::ffi::OsStr::new).chain([file.as_os_str()])).succeeded();
    assert_eq!(outcome(&ran)["substituted"].as_object().unwrap().len(), 1);
    assert_eq!(paths(&fresh).len(), 61);
    assert_eq!(server.asked().len(), 1 + 2 * 61);
    fresh.verified();
}

#[test]
fn a_recipe_that_others_built_needs_neither_its_environment_nor_its_inputs() {
    let test = "a_recipe_that_others_built_needs_neither_its_environment_nor_its_inputs";
    if !ground::has_files(test) {
        return;
    }
    let made = kiln_tests::recipe::Made::new(r#"mkdir -p "$out"; echo built >"$out/file""#);
    let kiln = Kiln::warm();
    let built = kiln.build_one(made.path());
    let lab = ground::directory(Ground::Disk);
    let (secret, cache) = (lab.path().join("key"), lab.path().join("cache"));
    let public = kiln
        .run(["key".as_ref(), "generate".as_ref(), "recipes-1".as_ref(), "--output".as_ref(), secret.as_os_str()])
        .succeeded()
        .stdout;
    let out = built["outputs"]["out"]["path"].as_str().unwrap();
    let words = ["publish", "--nix-cache", "--to", cache.to_str().unwrap(), "--key", secret.to_str().unwrap(), out];
    kiln.run(words).succeeded();
    // Nothing to make an environment from.
    let fresh = Kiln::fresh(Ground::Disk);
    fresh.configure("[fetch]\nclients = []\n");
    let recipe = made.path().as_os_str();
    let build =
        ["build", "--json", "--substituters", cache.to_str().unwrap(), "--trusted-public-keys", public.trim_end()];
    let taken = outcome(&fresh.run(build.iter().map(std::ffi::OsStr::new).chain([recipe])).succeeded());
    assert_eq!(taken["outputs"], built["outputs"]);
    assert_eq!(taken["substituted"][out]["signed_by"], "recipes-1");
    let again = outcome(&fresh.run(["build".as_ref(), "--json".as_ref(), recipe]).succeeded());
    assert_eq!((&again["cached"], &again["substituted"]), (&true.into(), &taken["substituted"]));
    let check = ["check", "--substituters", cache.to_str().unwrap(), "--trusted-public-keys", public.trim_end()];
    // To check it, it must be built.
    fresh.run(check.iter().map(std::ffi::OsStr::new).chain([recipe])).exits(7).says(&["on no configured mirror"]);
    fresh.verified();
}
