//! A server on the loopback that keeps the files put to it, as those do that binary caches and logs are put on.
//!
//! A file is there once it is whole. A PUT under a condition (RFC 9110, 13.1) is decided and done at once; entity tags are made of the
//! bytes. What was asked, and what was answered, is remembered in the order of the answers.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use kiln_model::digest::Digest;
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
    /// `if-match: "…"`, `if-none-match: *`.
    pub condition: Option<String>,
    /// What was answered.
    pub status: u16,
    /// How many requests for the same came before.
    pub nth: usize,
}

/// What the server does instead of what was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Answers this status, and does nothing.
    Status(u16),
    /// Hangs up, and does nothing.
    HangUp,
    /// Does it, and hangs up.
    AnswerLost,
    /// Says nothing until the client goes away.
    Stall,
    /// Does it whatever the condition says.
    Unconditional,
    /// Has directories, which must be there before the files in them: as WebDAV (RFC 4918, 9.3 and 9.7.1).
    Directories,
    /// Gives no tag.
    NoTag,
    /// Gives a tag that says that the bytes are much the same.
    WeakTag,
}

type Faults = dyn Fn(&Asked) -> Option<Fault> + Send + Sync;

impl Shelf {
    /// A server that does what it is asked.
    pub fn start() -> Self {
        Self::failing(|_| None)
    }

    /// A server that answers what `status` says of a request (whose status is 200), if that is something; 0 hangs up.
    pub fn failing(status: impl Fn(&Asked) -> Option<u16> + Send + Sync + 'static) -> Self {
        Self::faulty(move |asked| {
            status(asked).map(|status| if status == 0 { Fault::HangUp } else { Fault::Status(status) })
        })
    }

    /// A server that has the fault that `fault` says of a request (whose status is 200), if there is one.
    pub fn faulty(fault: impl Fn(&Asked) -> Option<Fault> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("the loopback is there");
        let address = format!("http://{}", listener.local_addr().expect("it is bound"));
        let shelf = Self { dir: ground::directory(Ground::Disk), address, asked: Arc::default() };
        let (root, asked, fault) = (shelf.path().to_owned(), shelf.asked.clone(), Arc::new(fault));
        let writing = Arc::new(Mutex::new(()));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (root, asked, fault, writing) = (root.clone(), asked.clone(), fault.clone(), writing.clone());
                // A client that goes away is its own concern.
                std::thread::spawn(move || converse(&stream, &root, &asked, &*fault, &writing).ok());
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

fn converse(
    stream: &TcpStream,
    root: &Path,
    asked: &Mutex<Vec<Asked>>,
    fault: &Faults,
    writing: &Mutex<()>,
) -> io::Result<()> {
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
        let condition = ["if-match", "if-none-match"]
            .into_iter()
            .find_map(|name| headers.get(name).map(|value| format!("{name}: {value}")));
        let mut request = Asked { method, file, authorization, condition, status: 200, nth };
        let told = fault(&request);
        // These do what they were asked.
        let undone = matches!(told, Some(Fault::Status(_) | Fault::HangUp | Fault::Stall));
        let length: u64 = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        let place = root.join(&request.file);
        let mut body = Vec::new();
        let waits = headers.contains_key("expect");
        if waits && !undone {
            (&*stream).write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        if !undone || !waits {
            (&mut reader).take(length).read_to_end(&mut body)?;
        }
        let (mut answer, mut tag) = (Vec::new(), None);
        request.status = match (told, request.method.as_str()) {
            (Some(Fault::Status(status)), _) => status,
            (Some(Fault::HangUp), _) => 0,
            (Some(Fault::Stall), _) => {
                // Ends when the client does.
                return reader.read_line(&mut line).map(drop);
            }
            (Some(Fault::Directories), "MKCOL") => match fs::create_dir(&place) {
                Ok(()) => 201,
                Err(error) if error.kind() == io::ErrorKind::NotFound => 409,
                Err(_) => 405,
            },
            (_, "MKCOL") => 405,
            (Some(Fault::Directories), "PUT") if !place.parent().is_some_and(Path::is_dir) => 409,
            (_, "PUT") if body.len() as u64 == length => {
                let _alone = writing.lock().expect("no thread of ours panics");
                let holds = told == Some(Fault::Unconditional) || holds(&headers, &place);
                if holds {
                    keep(&place, &body)?;
                    201
                } else {
                    412
                }
            }
            (_, "GET" | "HEAD") => match fs::read(&place) {
                Ok(bytes) => {
                    tag = match told {
                        Some(Fault::NoTag) => None,
                        Some(Fault::WeakTag) => Some(format!("W/{}", tag_of(&bytes))),
                        _ => Some(tag_of(&bytes)),
                    };
                    answer = bytes;
                    200
                }
                Err(_) => 404,
            },
            _ => return Ok(()),
        };
        let (head_only, status) = (request.method == "HEAD", request.status);
        asked.lock().expect("no thread of ours panics").push(request);
        if status == 0 || told == Some(Fault::AnswerLost) {
            return Ok(());
        }
        let tag = tag.map(|tag| format!("ETag: {tag}\r\n")).unwrap_or_default();
        let mut whole = format!("HTTP/1.1 {status} X\r\n{tag}Content-Length: {}\r\n\r\n", answer.len()).into_bytes();
        if !head_only {
            whole.extend(answer);
        }
        // At once: a second piece would wait until the first is acknowledged, which clients put off for a while.
        (&*stream).write_all(&whole)?;
        if undone {
            // What was not read of a body is no request.
            return Ok(());
        }
    }
}

fn tag_of(bytes: &[u8]) -> String {
    format!("\"{}\"", &Digest::of(bytes).to_string()[..32])
}

/// Whether the conditions of a request hold for what is at `place`.
fn holds(headers: &BTreeMap<String, String>, place: &Path) -> bool {
    let there = fs::read(place).ok().map(|bytes| tag_of(&bytes));
    let absent = headers.get("if-none-match").is_none_or(|tag| tag == "*" && there.is_none());
    absent && headers.get("if-match").is_none_or(|tag| there.as_ref() == Some(tag))
}

fn keep(place: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut private: PathBuf = place.into();
    private.add_extension(format!("{:?}", std::thread::current().id()));
    fs::create_dir_all(place.parent().expect("a file of the shelf is in it"))?;
    fs::write(&private, bytes)?;
    fs::rename(private, place)
}
