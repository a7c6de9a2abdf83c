//! Caches that fail, lie, or lack what they said they had.

use std::fs;

use kiln_tests::derivation::with_builder;
use kiln_tests::ground::Ground;
use kiln_tests::run::Kiln;
use kiln_tests::web::{Answer, Files, Server, announcing};

use crate::{On, bare, impatient, narinfo, outcome, paths};

/// What a server does wrong: with a target, and what an honest one would answer.
type Bend = fn(&str, Answer) -> Answer;

fn bytes(answer: Answer) -> Vec<u8> {
    match answer {
        Answer::File(bytes) => bytes,
        other => panic!("{other:?} is no file"),
    }
}

#[test]
fn a_cache_that_fails_is_told_of_and_what_it_may_have_had_is_built() {
    let Some(on) = On::new("a_cache_that_fails_is_told_of_and_what_it_may_have_had_is_built") else { return };
    let last = on.built("first");
    let files = Files::of(&on.cache("cache", &[&last]));
    let cases: [(&str, Bend, &str); 11] = [
        ("is none", |_, _| Answer::Status(404), "not a binary cache"),
        ("never answers", |_, _| Answer::Stall(Vec::new()), "stalled"),
        ("fails", |_, _| Answer::Status(500), "answered 500"),
        ("redirects for ever", |target, _| Answer::Redirect(target.into()), "redirected more than"),
        (
            "trickles",
            |target, honest| match target.ends_with(".narinfo") {
                true => Answer::Trickle(b"HTTP/1.1 200 OK\r\n\r\nStorePath: ".to_vec()),
                false => honest,
            },
            "stalled after",
        ),
        (
            "trickles in the archive",
            |target, honest| match target.starts_with("/nar/") {
                true => Answer::Trickle(b"HTTP/1.1 200 OK\r\n\r\n".to_vec()),
                false => honest,
            },
            "stalled after",
        ),
        (
            "stalls in the archive",
            |target, honest| match target.starts_with("/nar/") {
                true => {
                    let bytes = bytes(honest);
                    Answer::Stall(announcing(bytes.len(), &bytes[..bytes.len() / 2]))
                }
                false => honest,
            },
            "stalled after",
        ),
        (
            "hangs up in the archive",
            |target, honest| match target.starts_with("/nar/") {
                true => {
                    let bytes = bytes(honest);
                    Answer::Raw(announcing(bytes.len(), &bytes[..bytes.len() / 2]))
                }
                false => honest,
            },
            "was not fetched",
        ),
        (
            "redirects an archive for ever",
            |target, honest| if target.starts_with("/nar/") { Answer::Redirect(target.into()) } else { honest },
            "redirected more than",
        ),
        (
            "lost the archive",
            |target, honest| if target.starts_with("/nar/") { Answer::Status(404) } else { honest },
            "and not the archive",
        ),
        (
            "speaks no http",
            |target, honest| if target.ends_with(".narinfo") { Answer::Raw(b"hello\r\n\r\n".to_vec()) } else { honest },
            "not asked any more",
        ),
    ];
    let file = on.file("first");
    for (name, bend, said) in cases {
        let files = files.clone();
        let server = Server::start(move |target| bend(target, files.answer(target)));
        let kiln = impatient(with_builder(name).unwrap().online());
        let ran = on.build(&kiln, server.address(), &file);
        assert_eq!(ran.code(), Some(0), "{name}:\n{}", ran.stderr);
        assert!(ran.stderr.contains(said), "{name} does not say {said:?}:\n{}", ran.stderr);
        assert_eq!(outcome(&ran)["cached"], false, "{name}");
        assert_eq!(outcome(&ran)["outputs"]["out"]["path"], *last, "{name}");
        assert!(ran.took.as_secs() < 60, "{name}");
        kiln.verified();
    }
    let kiln = with_builder("gone").unwrap().online();
    on.build(&impatient(kiln), "http://127.0.0.1:9", &file).succeeded().says(&["not asked any more", "127.0.0.1:9"]);
    let kiln = with_builder("gone").unwrap();
    on.build(&kiln, "/nonexistent/cache", &file).succeeded().says(&["/nonexistent/cache has no nix-cache-info"]);
    let kiln = with_builder("offline").unwrap();
    on.build(&kiln, "http://127.0.0.1:9", &file).succeeded().says(&["offline"]);
    on.build(&on.kiln, "no such:thing", &file).exits(2).says(&["is not a cache"]);
}

#[test]
fn a_cache_that_lies_ends_the_build_and_nothing_of_it_enters_the_store() {
    let Some(on) = On::new("a_cache_that_lies_ends_the_build_and_nothing_of_it_enters_the_store") else { return };
    let first = on.built("first");
    let files = Files::of(&on.cache("cache", &[&first]));
    let cases: [(&str, Bend, i32, &str); 11] = [
        ("all is html", |_, _| Answer::File(b"<html>\n<p>Welcome\n</html>\n".to_vec()), 2, "not a nix-cache-info"),
        (
            "another store",
            |target, honest| match target {
                "/nix-cache-info" => Answer::File(b"StoreDir: /gnu/store\n".to_vec()),
                _ => honest,
            },
            2,
            "/gnu/store",
        ),
        (
            "narinfos are html",
            |target, honest| match target.ends_with(".narinfo") {
                true => Answer::File(b"<html>\n<p>Welcome: yes\n</html>\n".to_vec()),
                false => honest,
            },
            6,
            "the narinfo of",
        ),
        (
            "an endless narinfo",
            |target, honest| match target.ends_with(".narinfo") {
                true => Answer::Endless(b"HTTP/1.1 200 OK\r\n\r\n".to_vec()),
                false => honest,
            },
            6,
            "larger than",
        ),
        (
            "an endless word on itself",
            |target, honest| match target {
                "/nix-cache-info" => Answer::Endless(b"HTTP/1.1 200 OK\r\n\r\n".to_vec()),
                _ => honest,
            },
            6,
            "larger than",
        ),
        (
            "archives are html",
            |target, honest| match target.starts_with("/nar/") {
                true => Answer::File(b"<html>\n<p>Welcome\n</html>\n".to_vec()),
                false => honest,
            },
            6,
            "FileSize",
        ),
        (
            "an archive with a flipped byte",
            |target, honest| match target.starts_with("/nar/") {
                true => {
                    let mut bytes = bytes(honest);
                    let last = bytes.len() - 1;
                    bytes[last] ^= 1;
                    Answer::File(bytes)
                }
                false => honest,
            },
            6,
            "FileHash",
        ),
        (
            "an archive that announces too much",
            |target, honest| match target.starts_with("/nar/") {
                true => Answer::Raw(announcing(1 << 40, &bytes(honest))),
                false => honest,
            },
            6,
            "FileSize",
        ),
        (
            "an archive that does not end",
            |target, honest| match target.starts_with("/nar/") {
                true => Answer::Endless([&b"HTTP/1.1 200 OK\r\n\r\n"[..], &bytes(honest)].concat()),
                false => honest,
            },
            6,
            "FileSize",
        ),
        (
            "a narinfo with a flipped byte in its signature",
            |target, honest| match target.ends_with(".narinfo") {
                true => {
                    let mut bytes = bytes(honest);
                    let at = bytes.windows(4).position(|window| window == b"Sig:").unwrap() + 20;
                    bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
                    Answer::File(bytes)
                }
                false => honest,
            },
            6,
            "signature",
        ),
        (
            "a narinfo with another size",
            |target, honest| match target.ends_with(".narinfo") {
                true => {
                    let text = String::from_utf8(bytes(honest)).unwrap();
                    Answer::File(text.replace("NarSize: ", "NarSize: 1").into_bytes())
                }
                false => honest,
            },
            6,
            "signature",
        ),
    ];
    let file = on.file("first");
    for (name, bend, code, said) in cases {
        let files = files.clone();
        let server = Server::start(move |target| bend(target, files.answer(target)));
        let kiln = bare(Kiln::fresh(Ground::Disk).online());
        let ran = on.build(&kiln, server.address(), &file);
        assert_eq!(ran.code(), Some(code), "{name}:\n{}", ran.stderr);
        assert!(ran.stderr.contains(said), "{name} does not say {said:?}:\n{}", ran.stderr);
        assert!(ran.took.as_secs() < 60, "{name}");
        assert_eq!(paths(&kiln), Vec::<String>::new(), "{name}");
        assert_eq!(fs::read_dir(kiln.store().join("nix/store")).unwrap().count(), 0, "{name}");
        assert_eq!(fs::read_dir(kiln.store().join("tmp")).unwrap().count(), 0, "{name}");
        kiln.verified();
    }
    // Honest, and signed by somebody else.
    let server = Server::start(move |target| files.answer(target));
    let kiln = bare(Kiln::fresh(Ground::Disk).online());
    let key = on.lab.public("other");
    let words = ["build", "--substituters", server.address(), "--trusted-public-keys", &key];
    kiln.run(words.iter().map(std::ffi::OsStr::new).chain([file.as_os_str()]))
        .exits(6)
        .says(&["not trusted", "no trusted key signed it, only ours-1"]);
    assert_eq!(paths(&kiln), Vec::<String>::new());
}

#[test]
fn what_one_cache_lacks_or_cannot_deliver_the_next_one_may_have() {
    let Some(on) = On::new("what_one_cache_lacks_or_cannot_deliver_the_next_one_may_have") else { return };
    let last = on.built("last");
    let whole = on.cache("whole", &[&last]);
    let broken = on.lab.path().join("broken");
    fs::create_dir_all(&broken).unwrap();
    for entry in fs::read_dir(&whole).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file()) {
        fs::copy(&entry, broken.join(entry.file_name().unwrap())).unwrap();
    }
    let empty = on.lab.path().join("empty");
    fs::create_dir_all(&empty).unwrap();
    fs::write(empty.join("nix-cache-info"), "StoreDir: /nix/store\nPriority: 1\n").unwrap();
    let caches = format!("{} {} {}", empty.display(), broken.display(), whole.display());
    let kiln = Kiln::fresh(Ground::Disk);
    let ran = on.build(&kiln, &caches, &on.file("last")).succeeded().says(&["was not fetched", "and not the archive"]);
    let outcome = outcome(&ran);
    assert_eq!(outcome["substituted"][&last]["from"], whole.display().to_string());
    kiln.verified();
    // A closure that nobody has as a whole is of no use, and nothing of it is fetched.
    fs::remove_file(whole.join(&narinfo(&on.built("middle"))[1..])).unwrap();
    let kiln = with_builder("what_one_cache_lacks_or_cannot_deliver_the_next_one_may_have").unwrap();
    kiln.run(["store".as_ref(), "add".as_ref(), on.lab.path().join("text").as_os_str()]).succeeded();
    let ran = on.build(&kiln, &whole.display().to_string(), &on.file("last")).succeeded();
    assert!(!ran.stderr.contains("fetching"), "{}", ran.stderr);
    assert_eq!(ran.json()["builds"][0]["cached"], false);
}
