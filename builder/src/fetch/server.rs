//! A loopback HTTP server for tests: answers as told, badly if told so, and remembers what it was asked.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// A request as the server saw it.
#[derive(Debug, Clone)]
pub(super) struct Request {
    /// `GET /path HTTP/1.1`, without the version.
    pub(super) line: String,
    /// Header fields, names in lower case.
    pub(super) headers: BTreeMap<String, String>,
    /// How many requests for the same line came before.
    pub(super) nth: usize,
}

/// What the server does.
pub(super) enum Answer {
    /// The whole file, or the range asked for.
    File(Vec<u8>),
    /// A status without a body, and further header lines.
    Status(u16, &'static str),
    /// 302 to an address.
    Redirect(String),
    /// These bytes, then the connection is closed.
    Raw(Vec<u8>),
    /// These bytes, then nothing until the client goes away.
    Stall(Vec<u8>),
    /// These bytes, then a byte now and then.
    Trickle(Vec<u8>),
    /// These bytes, then RST.
    Reset(Vec<u8>),
    /// These bytes, then more and more of them.
    Endless(Vec<u8>),
}

/// A running server; it lives as long as the test's process.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    seen: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    pub(super) fn start(answer: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (answer, requests) = (Arc::new(answer), seen.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (answer, requests) = (answer.clone(), requests.clone());
                std::thread::spawn(move || serve(stream, &*answer, &requests));
            }
        });
        Self { address, seen }
    }

    /// `http://127.0.0.1:PORT/path`
    pub(super) fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.address)
    }

    /// All requests so far.
    pub(super) fn seen(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }
}

/// A response head with a length that may be a lie.
pub(super) fn announced(length: usize, body: &[u8]) -> Vec<u8> {
    let mut bytes = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n").into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

fn serve(
    mut stream: TcpStream,
    answer: &(dyn Fn(&Request) -> Answer + Sync),
    seen: &Mutex<Vec<Request>>,
) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    loop {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).ok()? == 0 {
                return None;
            }
            match line.trim_end() {
                "" => break,
                line => lines.push(line.to_string()),
            }
        }
        let line = lines[0].trim_end_matches(" HTTP/1.1").to_string();
        let field = |l: &String| l.split_once(':').map(|(k, v)| (k.to_ascii_lowercase(), v.trim().to_string()));
        let request = {
            let mut seen = seen.lock().unwrap();
            let nth = seen.iter().filter(|r| r.line == line).count();
            seen.push(Request { line, headers: lines[1..].iter().filter_map(field).collect(), nth });
            seen.last().unwrap().clone()
        };
        match answer(&request) {
            Answer::File(bytes) => stream.write_all(&ranged(&request, &bytes)).ok()?,
            Answer::Status(status, fields) => {
                stream
                    .write_all(format!("HTTP/1.1 {status} X\r\n{fields}Content-Length: 0\r\n\r\n").as_bytes())
                    .ok()?;
            }
            Answer::Redirect(to) => stream
                .write_all(format!("HTTP/1.1 302 X\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n").as_bytes())
                .ok()?,
            Answer::Raw(bytes) => return stream.write_all(&bytes).ok(),
            Answer::Stall(bytes) => {
                stream.write_all(&bytes).ok()?;
                let _ = reader.read(&mut [0]); // until the client closes
                return None;
            }
            Answer::Trickle(bytes) => {
                stream.write_all(&bytes).ok()?;
                // What is tested is a client's patience: time itself is the matter here.
                while stream.write_all(b"x").is_ok() {
                    std::thread::sleep(std::time::Duration::from_millis(10));
                }
                return None;
            }
            Answer::Reset(bytes) => {
                stream.write_all(&bytes).ok()?;
                // Closing with a linger time of zero sends RST (socket(7)), but drops what was not yet sent: the client
                // reads the first part and asks for no more, so that waiting for it needs no clock.
                rustix::net::sockopt::set_socket_linger(&stream, Some(std::time::Duration::ZERO)).ok()?;
                return None;
            }
            Answer::Endless(bytes) => {
                stream.write_all(&bytes).ok()?;
                while stream.write_all(&[b'x'; 4096]).is_ok() {}
                return None;
            }
        }
    }
}

fn ranged(request: &Request, bytes: &[u8]) -> Vec<u8> {
    let from =
        request.headers.get("range").and_then(|r| r.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
    let mut answer = match from {
        None => format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", bytes.len()),
        Some(from) if from < bytes.len() => format!(
            "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {from}-{}/{}\r\nContent-Length: {}\r\n\r\n",
            bytes.len() - 1,
            bytes.len(),
            bytes.len() - from
        ),
        Some(_) => return b"HTTP/1.1 416 X\r\nContent-Length: 0\r\n\r\n".to_vec(),
    }
    .into_bytes();
    answer.extend_from_slice(&bytes[from.unwrap_or(0)..]);
    answer
}
