//! What the fetcher promises, against servers that behave and servers that do not.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kiln_model::digest::Digest;
use kiln_model::lock::Suite;

use super::server::{Answer, Request, Server, announced};
use super::*;
use crate::config::Config;
use crate::event::Event;
use crate::exit::Kind;

mod sources;
mod transfers;

const PATH: &str = "pool/main/h/hello/hello_2.10-3_amd64.deb";

fn content() -> Vec<u8> {
    (0..100_000_u32).flat_map(u32::to_le_bytes).collect()
}

/// A store, and a host with nothing configured.
struct Ground {
    directory: tempfile::TempDir,
    variables: BTreeMap<String, String>,
    python: Option<String>,
    /// Long enough that no busy machine takes a good server for a stalled one.
    stall: Duration,
}

impl Ground {
    fn new() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
            variables: BTreeMap::new(),
            python: None,
            stall: Duration::from_secs(60),
        }
    }

    fn set(mut self, name: &str, value: impl ToString) -> Self {
        self.variables.insert(name.into(), value.to_string());
        self
    }

    fn path(&self, path: &str) -> PathBuf {
        self.directory.path().join(path)
    }

    fn write(&self, path: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path
    }

    fn fetcher(&self, mirrors: &str, network: Network) -> Fetcher {
        let config = Config::parse(&format!("[mirrors]\n{mirrors}\n"), &self.path("config.toml")).unwrap();
        let python = self.python.clone();
        let host = Host::told(self.variables.clone(), self.path("host"), move |command| {
            if command[0].ends_with("python3") { python.clone() } else { None }
        });
        let policy =
            Policy { parallel: 4, attempts: 3, stall: self.stall, backoff: Duration::from_millis(1), largest: 1 << 20 };
        Fetcher::new(&self.path("store"), config, host, network).unwrap().with_policy(policy)
    }

    /// A fetcher for the archive `debian` with these mirrors.
    fn debian(&self, mirrors: &[String]) -> Fetcher {
        self.fetcher(&format!("debian = {mirrors:?}"), Network::Online)
    }

    fn part(&self, bytes: &[u8]) -> PathBuf {
        self.path(&format!("store/tmp/{}.part", Digest::of(bytes)))
    }
}

fn debian() -> Archive {
    Archive::Debian("debian".into())
}

fn wanted(bytes: &[u8]) -> Wanted {
    Wanted { archive: debian(), path: PATH.into(), size: Some(bytes.len() as u64), sha256: Digest::of(bytes) }
}

fn good() -> Server {
    Server::start(|_| Answer::File(content()))
}

fn base(server: &Server) -> String {
    server.url("debian/")
}

/// What each mirror said about the one file wanted.
fn refusals(error: FetchError) -> Vec<Refusal> {
    match error {
        FetchError::Missing { files, .. } | FetchError::Tampered { files, .. } => {
            files.into_iter().flat_map(|f| f.tries).map(|t| t.refusal).collect()
        }
        other => panic!("{other}"),
    }
}

/// Fetches from one server that answers so, after which a good one is asked.
fn after(answer: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> (Vec<Request>, Vec<Request>) {
    let (bad, good, ground) = (Server::start(answer), good(), Ground::new());
    let paths = ground.debian(&[base(&bad), base(&good)]).pinned(&[wanted(&content())]).unwrap();
    assert!(fs::read(&paths[0]).unwrap() == content());
    (bad.seen(), good.seen())
}

/// Fetches from one server that answers so.
fn only(answer: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> FetchError {
    let (bad, ground) = (Server::start(answer), Ground::new());
    ground.debian(&[base(&bad)]).pinned(&[wanted(&content())]).unwrap_err()
}
