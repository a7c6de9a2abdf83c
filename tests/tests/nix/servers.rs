//! Servers that are no proper caches.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;

use kiln_tests::ground::Ground;
use kiln_tests::lab::Lab;
use kiln_tests::run::Kiln;

use crate::{cache_of_nix, edit, substitute, trees};

/// A server that answers every request with `answer` of its target; `None` is silence.
fn misbehaving(answer: impl Fn(&str) -> Option<Vec<u8>> + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        let mut silent = Vec::new();
        for stream in listener.incoming().flatten() {
            let mut line = String::new();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            reader.read_line(&mut line).unwrap();
            match answer(line.split(' ').nth(1).unwrap_or_default()) {
                Some(bytes) => {
                    // Unread requests would turn the end of the connection into a reset.
                    let mut field = String::new();
                    while reader.read_line(&mut field).is_ok_and(|read| read > 2) {
                        field.clear();
                    }
                    let _ = (&stream).write_all(&bytes);
                }
                None => silent.push(stream),
            }
        }
    });
    address
}

#[test]
fn a_server_that_stalls_lies_redirects_for_ever_or_serves_html_is_an_error_soon() {
    let Some(lab) = Lab::open("a_server_that_stalls_lies_redirects_for_ever_or_serves_html_is_an_error_soon") else {
        return;
    };
    let (path, _) = trees(&lab);
    let cache = cache_of_nix(&lab, "none", &[&path]);
    edit(&cache, &path, |info| info.address = None);
    let ok = |body: &[u8]| {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
        [head.as_bytes(), body].concat()
    };
    let honest = move |target: &str| fs::read(cache.join(target.trim_start_matches('/'))).ok().map(|bytes| ok(&bytes));
    type Bend = fn(&str, Vec<u8>) -> Option<Vec<u8>>;
    let cases: [(&str, Bend, i32, &str); 7] = [
        ("stalls", |target, whole| (!target.contains(".nar")).then_some(whole), 7, "stalled"),
        (
            "hangs up",
            |target, whole| Some(if target.contains("nar/") { whole[..whole.len() / 2].to_vec() } else { whole }),
            7,
            "",
        ),
        (
            "redirects for ever",
            |target, whole| {
                let redirect =
                    format!("HTTP/1.1 302 X\r\nLocation: {target}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
                Some(if target.contains("nar/") { redirect.into_bytes() } else { whole })
            },
            7,
            "redirected",
        ),
        (
            "serves html",
            |target, whole| {
                let html =
                    b"HTTP/1.1 200 OK\r\nContent-Length: 14\r\nConnection: close\r\n\r\n<html>\n</html>".to_vec();
                Some(if target.ends_with("narinfo") { html } else { whole })
            },
            6,
            "narinfo",
        ),
        (
            "an endless narinfo",
            |target, whole| {
                let mut endless = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n".to_vec();
                endless.extend(vec![b'x'; 3 << 20]);
                Some(if target.ends_with("narinfo") { endless } else { whole })
            },
            6,
            "larger than",
        ),
        (
            "fails",
            |target, whole| {
                let failed = b"HTTP/1.1 500 X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_vec();
                Some(if target.contains("nar/") { failed } else { whole })
            },
            7,
            "500",
        ),
        (
            "another store",
            |target, whole| {
                let other = b"HTTP/1.1 200 OK\r\nContent-Length: 21\r\nConnection: close\r\n\r\nStoreDir: /gnu/store\n";
                Some(if target.contains("cache-info") { other.to_vec() } else { whole })
            },
            2,
            "/gnu/store",
        ),
    ];
    for (name, bend, code, named) in cases {
        let honest = honest.clone();
        let address = misbehaving(move |target| match honest(target) {
            Some(whole) => bend(target, whole),
            None => Some(b"HTTP/1.1 404 X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_vec()),
        });
        let kiln = Kiln::fresh(Ground::Disk).online();
        kiln.configure("[fetch]\nclients = []\nattempts = 1\nstall-seconds = 1\n");
        let refused = substitute(&kiln, &address, &lab.public("ours"), &path);
        assert_eq!(refused.code(), Some(code), "{name}:\n{}", refused.stderr);
        assert!(refused.stderr.contains(named), "{name}:\n{}", refused.stderr);
        assert!(refused.took.as_secs() < 60, "{name}");
        assert_eq!(kiln.run(["store", "ls"]).succeeded().stdout, "", "{name}");
    }
    let address = misbehaving(move |target| honest(target));
    let kiln = Kiln::fresh(Ground::Disk).online();
    substitute(&kiln, &address, &lab.public("ours"), &path).succeeded();
}
