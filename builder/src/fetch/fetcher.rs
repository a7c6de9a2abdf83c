//! The fetcher: which mirror is asked for what, and what is remembered.
//!
//! Files are fetched by several threads; each file asks its archive's mirrors one after another. A mirror that said no to an
//! address is not asked for it again, and one that did not answer gets one attempt from then on instead of several. Client
//! settings are read when the first file is not in the cache, so that a run that needs nothing starts no program. Offline,
//! there is no HTTP client in the value at all.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use kiln_model::digest::Digest;
use kiln_model::lock::Suite;
use url::Url;

use super::apt::Apt;
use super::cache::{Cache, Entry, Part};
use super::credentials::Credentials;
use super::http::Client;
use super::mirror::{Mirrors, compact_date};
use super::pip::Pip;
use super::route::Proxies;
use super::transfer::{
    Setback, any_from_directory, any_from_web, from_directory, from_web, listing_of_directory, small_file, small_web,
};
use super::{Archive, Archives, FetchError, Host, Judge, Refusal, Try, Unfetched, Wanted};
use crate::config::Config;
use crate::event::{Event, Level, SILENT, Task, Unit, say};

mod index;
mod sources;

use index::Page;
use sources::{From, Source, web_address};

/// Whether sockets may be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// They may.
    Online,
    /// They may not: cache and directories have to do.
    Offline,
}

/// How patient the fetcher is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Files fetched at once.
    pub parallel: usize,
    /// How often one mirror is asked for one file.
    pub attempts: u32,
    /// How long a silent connection is waited for.
    pub stall: Duration,
    /// How long is waited before the second attempt; doubled each time.
    pub backoff: Duration,
    /// The most bytes of a file whose size is not locked.
    pub largest: u64,
}

/// Reads archives over the network and from directories, into the store's cache of files.
pub struct Fetcher {
    cache: Cache,
    config: Config,
    host: Host,
    network: Network,
    policy: Policy,
    events: Box<dyn Fn(Event) + Send + Sync>,
    reach: OnceLock<Reach>,
    /// Addresses that said no for good.
    refused: Mutex<BTreeMap<String, Refusal>>,
    /// Servers (scheme, host, port) that did not answer.
    silent: Mutex<BTreeSet<String>>,
    /// Listings of Python projects that were read: by mirror and project, with the address that they came from.
    listings: Mutex<BTreeMap<(String, String), Page>>,
}

/// A [`Fetcher`] that knows the dates of a lock's suites, for mirrors with `{date}` in their address.
pub struct Dated<'f> {
    fetcher: &'f Fetcher,
    dates: Dates,
}

/// Dates by archive, in dated archives' spelling.
type Dates = BTreeMap<String, BTreeSet<String>>;

/// What can be asked: gathered once.
struct Reach {
    mirrors: Mirrors,
    /// None offline.
    client: Option<Client>,
    pip_default: OnceLock<Option<Url>>,
}

/// Why one file is not there.
enum Lost {
    File(Unfetched),
    Fatal(FetchError),
}

impl std::convert::From<FetchError> for Lost {
    fn from(error: FetchError) -> Self {
        Self::Fatal(error)
    }
}

impl Policy {
    /// As configured.
    pub fn of(config: &Config) -> Self {
        Self {
            parallel: config.fetch.parallel.get() as usize,
            attempts: config.fetch.attempts.get(),
            stall: Duration::from_secs(config.fetch.stall_seconds.get().into()),
            backoff: Duration::from_millis(500),
            largest: 16 << 30,
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is guarded is whole between any two statements: memory of answers, nothing more.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Fetcher {
    /// A fetcher into the cache of the store at `store`, as `config` says.
    pub fn new(store: &Path, config: Config, host: Host, network: Network) -> Result<Self, FetchError> {
        Ok(Self {
            cache: Cache::open(store)?,
            policy: Policy::of(&config),
            config,
            host,
            network,
            events: Box::new(SILENT),
            reach: OnceLock::new(),
            refused: Mutex::default(),
            silent: Mutex::default(),
            listings: Mutex::default(),
        })
    }

    /// The same, telling what it does.
    pub fn telling(self, events: impl Fn(Event) + Send + Sync + 'static) -> Self {
        Self { events: Box::new(events), ..self }
    }

    /// The same, with other patience than configured.
    pub fn with_policy(self, policy: Policy) -> Self {
        Self { policy, ..self }
    }

    /// This fetcher, for files of a lock: mirrors with `{date}` are asked for the archive as it was then.
    pub fn dated(&self, suites: &[Suite]) -> Dated<'_> {
        let mut dates = Dates::new();
        for suite in suites {
            dates.entry(suite.archive.clone()).or_default().insert(compact_date(&suite.date));
        }
        Dated { fetcher: self, dates }
    }

    fn reach(&self) -> Result<&Reach, FetchError> {
        if let Some(reach) = self.reach.get() {
            return Ok(reach);
        }
        let apt = Apt::of(&self.host);
        let pip = Pip::of(&self.host);
        let mirrors = Mirrors::of(&self.config, &self.host, Some(&apt), Some(&pip))?;
        let client = match self.network {
            Network::Offline => None,
            Network::Online => Some(Client {
                proxies: Proxies::of(&self.host, pip.proxy.clone()),
                credentials: Credentials::of(&self.host, &apt.credential_files()),
                apt: Some(apt),
                pip_certificates: pip.certificates,
                stall: self.policy.stall,
                agents: Mutex::default(),
            }),
        };
        // Several threads may get here at once; the notes are said by the one whose value is kept.
        let mut kept = false;
        let reach = self.reach.get_or_init(|| {
            kept = true;
            Reach { mirrors, client, pip_default: OnceLock::new() }
        });
        if kept {
            for note in &reach.mirrors.notes {
                say(&*self.events, Level::Note, note);
            }
        }
        Ok(reach)
    }

    fn pinned_at(&self, wanted: &[Wanted], dates: &Dates) -> Result<Vec<PathBuf>, FetchError> {
        for file in wanted {
            check_path(&file.archive, &file.path)?;
        }
        let next = AtomicUsize::new(0);
        let slots: Vec<OnceLock<Result<PathBuf, Lost>>> = wanted.iter().map(|_| OnceLock::new()).collect();
        std::thread::scope(|scope| {
            for _ in 0..self.policy.parallel.clamp(1, wanted.len().max(1)) {
                scope.spawn(|| {
                    while let Some((file, slot)) = {
                        let n = next.fetch_add(1, Ordering::Relaxed);
                        wanted.get(n).zip(slots.get(n))
                    } {
                        let result = self.one(file, dates);
                        if matches!(result, Err(Lost::Fatal(_))) {
                            next.store(wanted.len(), Ordering::Relaxed); // a full disk stays full for the others
                        }
                        let _ = slot.set(result);
                    }
                });
            }
        });
        let mut paths = Vec::with_capacity(wanted.len());
        let mut lost = Vec::new();
        // After a fatal error slots may be empty; the error itself is in one of the others.
        for result in slots.into_iter().filter_map(OnceLock::into_inner) {
            match result {
                Ok(path) => paths.push(path),
                Err(Lost::File(file)) => lost.push(file),
                Err(Lost::Fatal(error)) => return Err(error),
            }
        }
        if lost.is_empty() { Ok(paths) } else { Err(FetchError::of(lost, wanted.len())) }
    }

    fn one(&self, wanted: &Wanted, dates: &Dates) -> Result<PathBuf, Lost> {
        let waits = || say(&*self.events, Level::Note, format!("waiting: {} is being fetched already", wanted.path));
        let mut part = match self.cache.entry(&wanted.sha256, waits)? {
            Entry::Whole(path) => return Ok(path),
            Entry::Part(part) => part,
        };
        let limit = wanted.size.unwrap_or(self.policy.largest);
        if part.length() > limit {
            part.restart()?;
        }
        if part.length() > 0 && part.digest() == wanted.sha256 {
            return Ok(part.finish(&wanted.sha256)?); // killed between the last byte and the rename
        }
        let reach = self.reach()?;
        let mut tries = Vec::new();
        let mut task = None;
        for source in self.sources(reach, &wanted.archive, &wanted.path, dates)? {
            let task = task.get_or_insert_with(|| {
                let name = wanted.path.rsplit('/').next().unwrap_or_default();
                Task::start(&*self.events, name, Unit::Bytes, wanted.size)
            });
            match self.from(reach, &source, wanted, &mut part, task)? {
                Ok(()) => return Ok(part.finish(&wanted.sha256)?),
                Err(refusal) => {
                    say(&*self.events, Level::Detail, format!("{}: {}: {refusal}", wanted.path, source.label));
                    tries.push(Try { mirror: source.label, refusal });
                }
            }
        }
        if part.length() == 0 {
            part.discard()?;
        }
        let (archive, path) = (wanted.archive.clone(), wanted.path.clone());
        Err(Lost::File(Unfetched { archive, path, sha256: Some(wanted.sha256), tries }))
    }

    /// Tries one source; on success the part holds the file.
    fn from(
        &self,
        reach: &Reach,
        source: &Source,
        wanted: &Wanted,
        part: &mut Part,
        task: &Task<'_>,
    ) -> Result<Result<(), Refusal>, FetchError> {
        let (url, origin) = match &source.place {
            From::Nowhere(refusal) => return Ok(Err(refusal.clone())),
            From::Directory(directory) => {
                return from_directory(directory, wanted, part, self.policy.largest, task);
            }
            From::Web { url, origin } => (url.clone(), *origin),
            From::Index { base, origin } => match self.address_in_index(reach, base, *origin, &wanted.path)? {
                Ok(url) => (url, *origin),
                Err(refusal) => return Ok(Err(refusal)),
            },
        };
        let Some(client) = &reach.client else { return Ok(Err(Refusal::Offline)) };
        self.persist(&url, |_| {
            let before = part.length();
            let result = from_web(client, origin, &url, wanted, part, self.policy.largest, task);
            (result, part.length().saturating_sub(before))
        })
    }

    /// Asks until it works, cannot work, or was asked often enough. `act` also says how many bytes it got further: a
    /// transfer that gets on is not given up.
    fn persist<T>(
        &self,
        url: &Url,
        mut act: impl FnMut(u32) -> (Result<T, Setback>, u64),
    ) -> Result<Result<T, Refusal>, FetchError> {
        /// An attempt that got this far does not count.
        const PROGRESS: u64 = 1 << 20;
        const LONGEST_WAIT: Duration = Duration::from_secs(60);
        if let Some(refusal) = locked(&self.refused).get(url.as_str()) {
            return Ok(Err(refusal.clone()));
        }
        let server = url.origin().ascii_serialization();
        let attempts = if locked(&self.silent).contains(&server) { 1 } else { self.policy.attempts.max(1) };
        say(&*self.events, Level::Detail, format!("asking {}", shown(url)));
        let mut attempt = 0;
        loop {
            attempt += 1;
            let (result, further) = act(attempt);
            let (refusal, wait) = match result {
                Ok(value) => {
                    locked(&self.silent).remove(&server);
                    return Ok(Ok(value));
                }
                Err(Setback::Fatal(error)) => return Err(error),
                Err(Setback::Refused(refusal, wait)) => (refusal, wait),
            };
            if !refusal.may_pass() {
                locked(&self.refused).insert(url.to_string(), refusal.clone());
                return Ok(Err(refusal));
            }
            if further >= PROGRESS {
                attempt = 1;
            }
            if attempt >= attempts {
                if matches!(refusal, Refusal::Network(_) | Refusal::Stalled(0)) {
                    locked(&self.silent).insert(server);
                }
                return Ok(Err(refusal));
            }
            let backoff = self.policy.backoff.saturating_mul(1 << (attempt - 1).min(10));
            std::thread::sleep(wait.unwrap_or(backoff).min(LONGEST_WAIT));
        }
    }

    fn judged_at(&self, address: &str, dates: &Dates, judge: &mut Judge<'_>) -> Result<(), FetchError> {
        check_path(&Archive::Address, address)?;
        let waits = || say(&*self.events, Level::Note, format!("waiting: {address} is being fetched already"));
        let mut part = self.cache.scratch(address, waits)?;
        let reach = self.reach()?;
        let mut tries = Vec::new();
        let task = Task::start(&*self.events, address.rsplit('/').next().unwrap_or_default(), Unit::Bytes, None);
        for source in self.sources(reach, &Archive::Address, address, dates)? {
            let largest = self.policy.largest;
            let got = match (&source.place, &reach.client) {
                (From::Nowhere(refusal), _) => Err(refusal.clone()),
                (From::Directory(directory), _) => any_from_directory(directory, address, &mut part, largest, &task)?,
                (From::Web { .. } | From::Index { .. }, None) => Err(Refusal::Offline),
                (From::Web { url, origin } | From::Index { base: url, origin }, Some(client)) => {
                    self.persist(url, |_| (any_from_web(client, *origin, url, &mut part, largest, &task), 0))?
                }
            };
            match got.and_then(|()| judge(part.path()).map_err(Refusal::Judged)) {
                Ok(()) => return part.discard(),
                Err(refusal) => {
                    say(&*self.events, Level::Detail, format!("{address}: {}: {refusal}", source.label));
                    tries.push(Try { mirror: source.label, refusal });
                }
            }
        }
        part.discard()?;
        let (archive, path) = (Archive::Address, address.to_owned());
        Err(FetchError::of(vec![Unfetched { archive, path, sha256: None, tries }], 1))
    }

    fn unpinned_at(&self, archive: &Archive, path: &str, limit: u64, dates: &Dates) -> Result<Vec<u8>, FetchError> {
        check_path(archive, path)?;
        let reach = self.reach()?;
        let mut tries = Vec::new();
        let task = Task::start(&*self.events, path, Unit::Bytes, None);
        for source in self.sources(reach, archive, path, dates)? {
            let result = match (&source.place, &reach.client) {
                (From::Nowhere(refusal), _) => Err(refusal.clone()),
                (From::Directory(directory), _) if *archive == Archive::Pypi => {
                    listing_of_directory(directory, path, limit)
                }
                (From::Directory(directory), _) => small_file(directory, path, limit),
                (_, None) => Err(Refusal::Offline),
                (From::Index { base, origin }, Some(_)) => {
                    self.page(reach, base, *origin, path, limit)?.map(|page| page.bytes)
                }
                (From::Web { url, origin }, Some(client)) => {
                    self.persist(url, |_| (small_web(client, *origin, url, "*/*", limit), 0))?.map(|(_, bytes)| bytes)
                }
            };
            match result {
                Ok(bytes) => {
                    task.advance(bytes.len() as u64);
                    return Ok(bytes);
                }
                Err(refusal) => tries.push(Try { mirror: source.label, refusal }),
            }
        }
        let (archive, path) = (archive.clone(), path.to_string());
        Err(FetchError::of(vec![Unfetched { archive, path, sha256: None::<Digest>, tries }], 1))
    }
}

impl Archives for Fetcher {
    fn pinned(&self, wanted: &[Wanted]) -> Result<Vec<PathBuf>, FetchError> {
        self.pinned_at(wanted, &Dates::new())
    }

    fn judged(&self, address: &str, judge: &mut Judge<'_>) -> Result<(), FetchError> {
        self.judged_at(address, &Dates::new(), judge)
    }

    fn unpinned(&self, archive: &Archive, path: &str, limit: u64) -> Result<Vec<u8>, FetchError> {
        self.unpinned_at(archive, path, limit, &Dates::new())
    }
}

impl Archives for Dated<'_> {
    fn pinned(&self, wanted: &[Wanted]) -> Result<Vec<PathBuf>, FetchError> {
        self.fetcher.pinned_at(wanted, &self.dates)
    }

    fn judged(&self, address: &str, judge: &mut Judge<'_>) -> Result<(), FetchError> {
        self.fetcher.judged_at(address, &self.dates, judge)
    }

    fn unpinned(&self, archive: &Archive, path: &str, limit: u64) -> Result<Vec<u8>, FetchError> {
        self.fetcher.unpinned_at(archive, path, limit, &self.dates)
    }
}

/// A lock is read before it is trusted: its paths stay inside a mirror's directory.
fn check_path(archive: &Archive, path: &str) -> Result<(), FetchError> {
    let expected = match archive {
        Archive::Address => return web_address(path).map(|_| ()),
        Archive::Pypi if path.contains('/') => "expected a file name or a project's name",
        Archive::Debian(_) | Archive::Pypi => "expected a relative path without empty parts, \".\" and \"..\"",
    };
    let good = !path.contains(['\0', '\\', '\n'])
        && path.split('/').all(|part| !matches!(part, "" | "." | ".."))
        && !(*archive == Archive::Pypi && path.contains('/'));
    if good { Ok(()) } else { Err(FetchError::BadPath { archive: archive.clone(), path: path.into(), expected }) }
}

/// An address as it may be shown: without credentials and query, which may hold tokens.
fn shown(url: &Url) -> String {
    let mut shown = url.clone();
    let _ = (shown.set_username(""), shown.set_password(None)); // fails only without a host
    shown.set_query(None);
    shown.into()
}
