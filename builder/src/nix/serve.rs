//! The store as a binary cache over HTTP, read only.
//!
//! Narinfos and realisations are made when they are asked for, archives are streamed from the trees: nothing is written and nothing kept but
//! which paths were asked for, so that they stay while the server runs. A fixed number of threads answers, each one connection at
//! a time; what a client sends is bounded in size and time.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufRead, BufReader, BufWriter, Read as _, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use kiln_model::format::cache_info::CacheInfo;
use kiln_model::format::narinfo::{Compression, NarInfo};
use kiln_model::format::realisation::{Realisation, RealisationId};
use kiln_model::format::signature::SecretKey;
use kiln_model::store_path::{HASH_LENGTH, StorePath};

use super::dump::dump;
use super::error::CacheError;
use crate::store::{PathInfo, Store, StoreError, Trust};

/// The most bytes of a request: no client of a cache has more to say.
const LONGEST_REQUEST: u64 = 16 << 10;
/// How long a silent client keeps its thread.
const PATIENCE: Duration = Duration::from_secs(20);
/// Connections at once.
const THREADS: NonZeroUsize = NonZeroUsize::new(32).expect("not zero");
/// How long what was found of realisations is believed: each is asked for by an id that its file is not named by.
const REMEMBERED: Duration = Duration::from_secs(1);
/// Asked before caches that say nothing.
const PRIORITY: u32 = 30;

/// A store that is served.
pub struct Server<'a> {
    store: &'a Store,
    keys: Vec<SecretKey>,
    listener: TcpListener,
    held: Mutex<BTreeSet<StorePath>>,
    realisations: Mutex<Option<Realisations>>,
}

/// What the store knows of outputs whose paths follow from their contents, and since when.
struct Realisations {
    read: Instant,
    by_id: BTreeMap<RealisationId, Realisation>,
}

struct Request {
    head_only: bool,
    target: String,
    keep: bool,
}

enum Answer {
    Text { kind: &'static str, text: String },
    Nar(Box<PathInfo>),
    Status(&'static str),
}

impl<'a> Server<'a> {
    /// Serves `store` at `address`; narinfos are signed with `keys`.
    pub fn bind(store: &'a Store, address: SocketAddr, keys: Vec<SecretKey>) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        Ok(Self { store, keys, listener, held: Mutex::default(), realisations: Mutex::default() })
    }

    /// Where it listens.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Answers until the process ends, or accepting fails.
    pub fn run(&self) -> io::Result<()> {
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS.get()).map(|_| scope.spawn(|| self.accept())).collect();
            threads.into_iter().try_for_each(|thread| thread.join().unwrap_or(Ok(())))
        })
    }

    fn accept(&self) -> io::Result<()> {
        loop {
            match self.listener.accept() {
                // A client that goes away, or speaks no HTTP, is its own concern.
                Ok((stream, _)) => drop(self.converse(&stream)),
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn converse(&self, stream: &TcpStream) -> io::Result<()> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        let mut reader = BufReader::new(stream);
        let mut writer = BufWriter::with_capacity(256 << 10, stream);
        loop {
            let Some(request) = Request::read(&mut reader)? else {
                writer.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")?;
                return writer.flush();
            };
            self.answer(&request, &mut writer)?;
            writer.flush()?;
            if !request.keep {
                return Ok(());
            }
        }
    }

    fn answer(&self, request: &Request, out: &mut dyn Write) -> io::Result<()> {
        let answer = match self.found(&request.target) {
            Ok(answer) => answer,
            Err(_) => Answer::Status("500 Internal Server Error"),
        };
        let head = |status: &str, kind: &str, length: u64| {
            let keep = if request.keep { "keep-alive" } else { "close" };
            format!(
                "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: {keep}\r\n\r\n"
            )
        };
        match answer {
            Answer::Text { kind, text } => {
                out.write_all(head("200 OK", kind, text.len() as u64).as_bytes())?;
                if request.head_only { Ok(()) } else { out.write_all(text.as_bytes()) }
            }
            Answer::Nar(info) => {
                out.write_all(head("200 OK", "application/x-nix-nar", info.nar_size).as_bytes())?;
                if request.head_only {
                    return Ok(());
                }
                // The length is promised: all that can be done about a tree that cannot be read is to hang up.
                dump(&self.store.physical(&info.path), out).map_err(io::Error::other)
            }
            Answer::Status(status) => out.write_all(head(status, "text/plain", 0).as_bytes()),
        }
    }

    fn found(&self, target: &str) -> Result<Answer, CacheError> {
        let missing = Ok(Answer::Status("404 Not Found"));
        if target == "/nix-cache-info" {
            let text = CacheInfo { priority: PRIORITY }.print();
            return Ok(Answer::Text { kind: "text/x-nix-cache-info", text });
        }
        if let Some(hash) = target.strip_prefix("/").and_then(|file| file.strip_suffix(".narinfo")) {
            return match self.path(hash)? {
                Some(info) => Ok(Answer::Text { kind: "text/x-nix-narinfo", text: self.narinfo(info).print() }),
                None => missing,
            };
        }
        if let Some(hash) = target.strip_prefix("/nar/").and_then(|file| file.strip_suffix(".nar")) {
            return Ok(self.path(hash)?.map_or(Answer::Status("404 Not Found"), |info| Answer::Nar(Box::new(info))));
        }
        if let Some(id) = target.strip_prefix("/realisations/").and_then(|file| file.strip_suffix(".doi")) {
            // Clients differ in whether they encode these two.
            let Ok(id) = id.replace("%3A", ":").replace("%21", "!").parse() else { return missing };
            return match self.realisation(&id)? {
                Some(realisation) => Ok(Answer::Text { kind: "application/json", text: realisation.print() }),
                None => missing,
            };
        }
        missing
    }

    /// The valid path with this hash part, unaltered, and kept while the server runs.
    fn path(&self, hash: &str) -> Result<Option<PathInfo>, CacheError> {
        if hash.len() != HASH_LENGTH || !hash.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Ok(None);
        }
        let Some(path) = self.store.path_with_hash(hash)? else { return Ok(None) };
        let first = self.held.lock().unwrap_or_else(PoisonError::into_inner).insert(path.clone());
        if first {
            match self.store.hold(&BTreeSet::from([path.clone()])) {
                Err(StoreError::NotValid { .. }) => return Ok(None),
                held => held?,
            }
        }
        Ok(Some(self.store.check(&path, Trust::Fingerprint)?))
    }

    /// Which path an output turned out to be, signed; the path is kept while the server runs.
    fn realisation(&self, id: &RealisationId) -> Result<Option<Realisation>, CacheError> {
        let found = {
            let mut known = self.realisations.lock().unwrap_or_else(PoisonError::into_inner);
            if known.as_ref().is_none_or(|known| known.read.elapsed() > REMEMBERED) {
                let by_id =
                    self.store.realisations()?.into_iter().map(|(_, found)| (found.id.clone(), found)).collect();
                *known = Some(Realisations { read: Instant::now(), by_id });
            }
            known.as_ref().and_then(|known| known.by_id.get(id)).cloned()
        };
        let Some(mut realisation) = found else { return Ok(None) };
        if self.path(realisation.path.hash_part())?.is_none() {
            return Ok(None);
        }
        self.keys.iter().for_each(|key| realisation.sign(key));
        Ok(Some(realisation))
    }

    fn narinfo(&self, info: PathInfo) -> NarInfo {
        let mut narinfo = NarInfo {
            url: format!("nar/{}.nar", info.path.hash_part()),
            path: info.path,
            compression: Compression::None,
            file_hash: Some(info.nar_hash.digest()),
            file_size: Some(info.nar_size),
            nar_hash: info.nar_hash,
            nar_size: info.nar_size,
            references: info.references,
            deriver: info.deriver,
            signatures: info.signatures.into_iter().collect(),
            address: info.ca.and_then(|address| address.parse().ok()),
        };
        self.keys.iter().for_each(|key| narinfo.sign(key));
        narinfo
    }
}

impl Request {
    /// Reads a request; `None` if it is none that is answered. The end of the connection is an error.
    fn read(reader: &mut impl BufRead) -> io::Result<Option<Self>> {
        let mut reader = reader.take(LONGEST_REQUEST);
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut words = line.split_ascii_whitespace();
        let (Some(method), Some(target), Some(version)) = (words.next(), words.next(), words.next()) else {
            return Ok(None);
        };
        let head_only = match method {
            "GET" => false,
            "HEAD" => true,
            _ => return Ok(None),
        };
        let target = target.split('?').next().unwrap_or_default().to_owned();
        let mut keep = version == "HTTP/1.1";
        loop {
            let mut field = String::new();
            // Too long, or cut short: there is no empty line.
            if reader.read_line(&mut field)? == 0 {
                return Ok(None);
            }
            let field = field.trim_end();
            if field.is_empty() {
                return Ok(Some(Self { head_only, target, keep }));
            }
            let Some((name, value)) = field.split_once(':') else { return Ok(None) };
            if name.eq_ignore_ascii_case("connection") && value.trim().eq_ignore_ascii_case("close") {
                keep = false;
            }
            let body = ["content-length", "transfer-encoding"].iter().any(|body| name.eq_ignore_ascii_case(body));
            if body && value.trim() != "0" {
                return Ok(None);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<Request> {
        Request::read(&mut text.as_bytes()).ok().flatten()
    }

    #[test]
    fn a_request_is_read_to_its_empty_line() {
        let request = read("GET /a?b HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        assert_eq!((request.target.as_str(), request.head_only, request.keep), ("/a", false, true));
        assert!(!read("HEAD / HTTP/1.1\r\nConnection: Close\r\n\r\n").unwrap().keep);
        assert!(!read("GET / HTTP/1.0\r\n\r\n").unwrap().keep);
    }

    #[test]
    fn what_is_cut_short_too_long_writes_or_has_a_body_is_not_answered() {
        let long = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(20_000));
        for bad in ["", "GET\r\n\r\n", "GET / HTTP/1.1\r\nHost: x\r\n", "PUT / HTTP/1.1\r\n\r\n", &long] {
            assert!(read(bad).is_none(), "{bad:.40}");
        }
        assert!(read("GET / HTTP/1.1\r\nContent-Length: 5\r\n\r\nabcde").is_none());
    }
}
