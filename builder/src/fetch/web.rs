//! Addresses that are no mirror's: binary caches, logs.
//!
//! One GET with the host's proxies, certificates and credentials, redirects followed as everywhere in `fetch`. What is
//! waited for is bounded; what is read is not believed, and bounded by the caller, who knows how much there should be.

use std::io::{self, Read};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use url::Url;

use super::credentials::Credentials;
use super::http::{Client, Reply, while_reading};
use super::mirror::Origin;
use super::route::Proxies;
use super::transfer::LEAST;
use super::{Host, Network, Policy, Refusal};

/// Asks addresses that are no mirror's.
pub struct Web {
    /// None offline.
    client: Option<Client>,
    policy: Policy,
}

/// An answer that goes on.
pub struct Stream {
    body: Box<dyn Read>,
    announced: Option<u64>,
    read: u64,
    window: (Instant, u64),
    stall: Duration,
}

impl Web {
    /// With the settings of `host`.
    pub fn new(host: &Host, network: Network, policy: Policy) -> Self {
        let client = match network {
            Network::Offline => None,
            Network::Online => Some(Client {
                proxies: Proxies::of(host, None),
                credentials: Credentials::of(host, &[]),
                apt: None,
                pip_certificates: None,
                stall: policy.stall,
                agents: Mutex::default(),
            }),
        };
        Self { client, policy }
    }

    /// The bytes at `url`; `None` if the server says that it has none. Asked again while that may help.
    pub fn get(&self, url: &Url) -> Result<Option<Stream>, Refusal> {
        self.patiently(|client| self.once(client, url))
    }

    /// Calls `ask` again while that may help.
    pub(super) fn patiently<T>(&self, mut ask: impl FnMut(&Client) -> Result<T, Refusal>) -> Result<T, Refusal> {
        let client = self.client.as_ref().ok_or(Refusal::Offline)?;
        let mut wait = self.policy.backoff;
        for attempt in 1.. {
            match ask(client) {
                Err(refusal) if refusal.may_pass() && attempt < self.policy.attempts => {
                    std::thread::sleep(wait);
                    wait *= 2;
                }
                answer => return answer,
            }
        }
        unreachable!("attempts end")
    }

    fn once(&self, client: &Client, url: &Url) -> Result<Option<Stream>, Refusal> {
        let reply = client.get(Origin::Kiln, url, 0, "*/*")?;
        match reply.status {
            200 => Ok(Some(self.stream(reply))),
            // Stores of objects answer 403 for what they lack to those who may not list them.
            403 | 404 | 410 => Ok(None),
            other => Err(Refusal::Status(other)),
        }
    }

    pub(super) fn stream(&self, reply: Reply) -> Stream {
        Stream {
            body: reply.body,
            announced: reply.length,
            read: 0,
            window: (Instant::now(), 0),
            stall: self.policy.stall,
        }
    }
}

impl Stream {
    /// Bytes announced, if any were.
    pub fn announced(&self) -> Option<u64> {
        self.announced
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.body.read(buffer).map_err(|error| io::Error::other(while_reading(&error, self.read)))?;
        self.read += count as u64;
        if count == 0 && !buffer.is_empty() && self.announced.is_some_and(|announced| announced > self.read) {
            return Err(io::Error::other(Refusal::CutShort(self.read)));
        }
        if self.window.0.elapsed() > self.stall {
            if self.read - self.window.1 < LEAST {
                return Err(io::Error::other(Refusal::Stalled(self.read)));
            }
            self.window = (Instant::now(), self.read);
        }
        Ok(count)
    }
}
