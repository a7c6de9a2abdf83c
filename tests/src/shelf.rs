//! A server on the loopback that keeps the files put to it, as those do that binary caches are put on.
//!
//! A file is there once it is whole. What was asked, and what was answered, is remembered in the order of the answers.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use tempfile::TempDir;

use crate::ground::{self, Ground};

/// A running server; it answers for as long as the test's process lives.
#[derive(Debug)]
pub struct Shelf {
    dir: TempDir,
    address: String,
    asked: Arc<Mutex<Vec<Asked>>>,
}

/// A request that was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// `GET`, `HEAD`, `PUT`.
    pub method: String,
    /// The file, without a slash before it.
    pub file: String,
    /// The value of `Authorization`.
    pub authorization: Option<String>,
    /// What was answered.
    pub status: u16,
    /// How many requests for the same came before.
    pub nth: usize,
}

/// What the server does instead of what was asked: a status to answer, 0 to hang up.
type Fault = dyn Fn(&Asked) -> Option<u16> + Send + Sync;

impl Shelf {
    /// A server that does what it is asked.
    pub fn start() -> Self {
        Self::failing(|_| None)
    }

    /// A server that answers what `fault` says of a request (whose status is 200), if that is something.
    pub fn failing(fault: impl Fn(&Asked) -> Option<u16> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("the loopback is there");
        let address = format!("http://{}", listener.local_addr().expect("it is bound"));
        let shelf = Self { dir: ground::directory(Ground::Disk), address, asked: Arc::default() };
        let (root, asked, fault) = (shelf.path().to_owned(), shelf.asked.clone(), Arc::new(fault));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (root, asked, fault) = (root.clone(), asked.clone(), fault.clone());
                // A client that goes away is its own concern.
                std::thread::spawn(move || converse(&stream, &root, &asked, &*fault).ok());
            }
        });
        shelf
    }

    /// `http://127.0.0.1:PORT`
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Where the files lie.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// All requests so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().expect("no thread of ours panics").clone()
    }

    /// Files that were put since `since` requests, successfully.
    pub fn put_since(&self, since: usize) -> Vec<String> {
        let put = self.asked().into_iter().skip(since).filter(|asked| asked.method == "PUT" && asked.status < 300);
        put.map(|asked| asked.file).collect()
    }
}

fn converse(stream: &TcpStream, root: &Path, asked: &Mutex<Vec<Asked>>, fault: &Fault) -> io::Result<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let mut words = line.split_ascii_whitespace().map(str::to_owned);
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let mut headers = BTreeMap::new();
        loop {
            let mut field = String::new();
            reader.read_line(&mut field)?;
            let Some((name, value)) = field.trim_end().split_once(':') else { break };
            headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
        // Asked as a proxy, it is every host.
        let target = match target.strip_prefix("http://") {
            Some(rest) => rest.split_once('/').map_or("", |(_, file)| file),
            None => target.trim_start_matches('/'),
        };
        let file = target.to_owned();
        let authorization = headers.get("authorization").cloned();
        let nth = {
            let asked = asked.lock().expect("no thread of ours panics");
            asked.iter().filter(|before| before.method == method && before.file == file).count()
        };
        let mut request = Asked { method, file, authorization, status: 200, nth };
        let told = fault(&request);
        let length: u64 = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        let place = root.join(&request.file);
        let mut body = Vec::new();
        let waits = headers.contains_key("expect");
        if waits && told.is_none() {
            (&*stream).write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        if told.is_none() || !waits {
            (&mut reader).take(length).read_to_end(&mut body)?;
        }
        let mut answer = Vec::new();
        request.status = match (told, request.method.as_str()) {
            (Some(status), _) => status,
            (None, "PUT") if body.len() as u64 == length => {
                keep(&place, &body)?;
                201
            }
            (None, "GET" | "HEAD") => match fs::read(&place) {
                Ok(bytes) => {
                    answer = bytes;
                    200
                }
                Err(_) => 404,
            },
            (None, _) => return Ok(()),
        };
        let (head_only, status) = (request.method == "HEAD", request.status);
        asked.lock().expect("no thread of ours panics").push(request);
        if status == 0 {
            return Ok(());
        }
        let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n", answer.len());
        (&*stream).write_all(head.as_bytes())?;
        if !head_only {
            (&*stream).write_all(&answer)?;
        }
        if told.is_some() {
            // What was not read of a body is no request.
            return Ok(());
        }
    }
}

fn keep(place: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut private: PathBuf = place.into();
    private.add_extension(format!("{:?}", std::thread::current().id()));
    fs::create_dir_all(place.parent().expect("a file of the shelf is in it"))?;
    fs::write(&private, bytes)?;
    fs::rename(private, place)
}
