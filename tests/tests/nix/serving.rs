//! A store that kiln serves.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Stdio};

use kiln_tests::ground::Ground;
use kiln_tests::lab::Lab;
use kiln_tests::run::Kiln;

use crate::{stocked, substitute, trees};

/// `kiln serve`, ended when dropped.
pub(crate) struct Served {
    child: Child,
    pub(crate) address: String,
}

impl Served {
    pub(crate) fn start(kiln: &Kiln, key: &Path) -> Self {
        let arguments = ["serve".as_ref(), "--nix-cache".as_ref(), "--listen".as_ref(), "127.0.0.1:0".as_ref()];
        let mut command = kiln.command(arguments.into_iter().chain(["--key".as_ref(), key.as_os_str()]));
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut address = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut address).unwrap();
        Self { child, address: address.trim_end().into() }
    }

    fn ask(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(self.address.trim_start_matches("http://")).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

#[test]
fn nix_and_kiln_substitute_straight_from_a_store_that_kiln_serves() {
    let Some(lab) = Lab::open("nix_and_kiln_substitute_straight_from_a_store_that_kiln_serves") else { return };
    let (path, naming) = trees(&lab);
    let kiln = stocked(&lab, &[&path, &naming]);
    let served = Served::start(&kiln, &lab.secret("other"));
    lab.second(&served.address, "other", "nix-store", ["--realise", &naming]).succeeded();
    let key = lab.public("other");
    let verify = ["store", "verify", "-r", "--sigs-needed", "1", "--trusted-public-keys", &key, &naming];
    lab.second(&served.address, "other", "nix", verify).succeeded();
    let fresh = Kiln::fresh(Ground::Disk).online();
    substitute(&fresh, &served.address, &lab.public("other"), &naming).succeeded();
    fresh.verified();
    substitute(&Kiln::fresh(Ground::Disk), &served.address, &lab.public("other"), &naming).says(&["offline"]);

    let status = |request: &str| served.ask(request).lines().next().unwrap_or_default().to_owned();
    let close = "Connection: close\r\n\r\n";
    assert_eq!(status(&format!("GET /nix-cache-info HTTP/1.1\r\n{close}")), "HTTP/1.1 200 OK");
    for missing in ["/", "/../etc/passwd", "/nar/../../etc/passwd.nar", "/00000000000000000000000000000000.narinfo"] {
        assert_eq!(status(&format!("GET {missing} HTTP/1.1\r\n{close}")), "HTTP/1.1 404 Not Found", "{missing}");
    }
    assert_eq!(
        status(&format!("PUT /nix-cache-info HTTP/1.1\r\nContent-Length: 1\r\n\r\nx{close}")),
        "HTTP/1.1 400 Bad Request"
    );
    // While it is served, what was asked for stays.
    kiln.run(["store", "gc"]).succeeded();
    assert!(kiln.run(["store", "ls"]).succeeded().stdout.contains(&path));
}
