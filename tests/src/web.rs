//! A loopback HTTP server: answers as told, badly if told so, and remembers what it was asked.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

/// What the server does with one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// 200 and these bytes.
    File(Vec<u8>),
    /// This status, no bytes.
    Status(u16),
    /// 302 to an address.
    Redirect(String),
    /// These bytes, head and all, then the connection is closed.
    Raw(Vec<u8>),
    /// These bytes, head and all, then nothing until the client goes away.
    Stall(Vec<u8>),
    /// These bytes, head and all, then one more now and then until the client goes away.
    Trickle(Vec<u8>),
    /// These bytes, head and all, then more and more of them until the client goes away.
    Endless(Vec<u8>),
}

/// A running server; it lives as long as the test's process.
#[derive(Debug)]
pub struct Server {
    address: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// Answers what `answer` says about a request's target: `/nix-cache-info`.
    pub fn start(answer: impl Fn(&str) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("the loopback is there");
        let address = format!("http://{}", listener.local_addr().expect("it is bound"));
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (answer, seen) = (Arc::new(answer), Arc::clone(&asked));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (answer, seen) = (Arc::clone(&answer), Arc::clone(&seen));
                // A client that goes away is none of the server's business.
                std::thread::spawn(move || serve(&stream, &*answer, &seen));
            }
        });
        Self { address, asked }
    }

    /// Serves the files of `directory`.
    pub fn of(directory: &Path) -> Self {
        let files = Files::of(directory);
        Self::start(move |target| files.answer(target))
    }

    /// Its address, without a slash at the end.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The targets of all requests since it was last asked, in order of arrival.
    pub fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock().expect("no thread panics while it holds it"))
    }
}

/// The files of a directory, as they were.
#[derive(Debug, Clone)]
pub struct Files(BTreeMap<String, Vec<u8>>);

impl Files {
    /// All files below `directory`.
    pub fn of(directory: &Path) -> Self {
        let mut files = BTreeMap::new();
        let mut open = vec![directory.to_owned()];
        while let Some(path) = open.pop() {
            if path.is_dir() {
                open.extend(fs::read_dir(&path).expect("a directory of ours").map(|e| e.expect("readable").path()));
            } else {
                let target = path.strip_prefix(directory).expect("it is below").display();
                files.insert(format!("/{target}"), fs::read(&path).expect("a file of ours"));
            }
        }
        Self(files)
    }

    /// The file, or 404.
    pub fn answer(&self, target: &str) -> Answer {
        // The one character of a realisation's name that addresses spell otherwise.
        self.0.get(&target.replace("%21", "!")).map_or(Answer::Status(404), |bytes| Answer::File(bytes.clone()))
    }
}

/// A whole answer with a length that may be a lie.
pub fn announcing(length: usize, body: &[u8]) -> Vec<u8> {
    let mut bytes = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n").into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

fn serve(mut stream: &TcpStream, answer: &(dyn Fn(&str) -> Answer + Sync), asked: &Mutex<Vec<String>>) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let target = line.split(' ').nth(1)?.to_owned();
    // Unread requests would turn the end of the connection into a reset.
    let mut field = String::new();
    while reader.read_line(&mut field).is_ok_and(|read| read > 2) {
        field.clear();
    }
    asked.lock().expect("no thread panics while it holds it").push(target.clone());
    let empty = |status: u16, more: &str| {
        format!("HTTP/1.1 {status} X\r\n{more}Content-Length: 0\r\nConnection: close\r\n\r\n").into_bytes()
    };
    match answer(&target) {
        Answer::File(bytes) => stream.write_all(&announcing(bytes.len(), &bytes)).ok(),
        Answer::Status(status) => stream.write_all(&empty(status, "")).ok(),
        Answer::Redirect(to) => stream.write_all(&empty(302, &format!("Location: {to}\r\n"))).ok(),
        Answer::Raw(bytes) => stream.write_all(&bytes).ok(),
        Answer::Trickle(bytes) => {
            stream.write_all(&bytes).ok()?;
            loop {
                std::thread::sleep(std::time::Duration::from_millis(100));
                stream.write_all(b"x").ok()?;
            }
        }
        Answer::Endless(bytes) => {
            stream.write_all(&bytes).ok()?;
            loop {
                stream.write_all(&[b'x'; 1 << 16]).ok()?;
            }
        }
        Answer::Stall(bytes) => {
            stream.write_all(&bytes).ok()?;
            // Ends when the client does.
            reader.read_line(&mut line).ok().map(drop)
        }
    }
}
