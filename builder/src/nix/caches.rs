//! Several caches, asked as one: those of smaller priority numbers first, nobody twice for what he lacks.
//!
//! Nobody is asked anything before the first question. A cache that does not answer is not asked again for as long as this
//! lives: what it may have had is missing then, and who asks decides whether that is an error.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use super::cache::{Cache, Small};
use super::error::{CacheError, chain};
use crate::event::{Events, Level, say};

/// What becomes of a cache that is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// It was named for this one question: an error.
    Refused,
    /// There is another way to what is wanted: it is passed over, and that is said.
    PassedOver,
}

/// Caches in their order.
pub struct Caches<'a> {
    caches: Vec<Cache<'a>>,
    missing: Missing,
    events: Events<'a>,
    /// Indices, best first.
    ranked: OnceLock<Vec<usize>>,
    ranking: Mutex<()>,
    /// What a cache was found to lack: its index, and the file.
    lacking: Mutex<BTreeSet<(usize, String)>>,
    silent: Mutex<BTreeSet<usize>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is guarded is whole between any two statements.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<'a> Caches<'a> {
    /// These.
    pub fn new(caches: Vec<Cache<'a>>, missing: Missing, events: Events<'a>) -> Self {
        Self {
            caches,
            missing,
            events,
            ranked: OnceLock::new(),
            ranking: Mutex::default(),
            lacking: Mutex::default(),
            silent: Mutex::default(),
        }
    }

    /// How many there are, and how many of them do not answer.
    pub(super) fn count(&self) -> (usize, usize) {
        (self.caches.len(), locked(&self.silent).len())
    }

    /// One of them.
    pub(super) fn at(&self, index: usize) -> &Cache<'a> {
        &self.caches[index]
    }

    /// Asks one after another for `file` of at most `limit` bytes, until `judge` makes something of what one of them has.
    pub(super) fn ask<T>(
        &self,
        file: &str,
        limit: u64,
        mut judge: impl FnMut(usize, Small) -> Result<Option<T>, CacheError>,
    ) -> Result<Option<T>, CacheError> {
        for &index in self.ranked()? {
            if locked(&self.silent).contains(&index) || locked(&self.lacking).contains(&(index, file.to_owned())) {
                continue;
            }
            match self.caches[index].small(file, limit) {
                Ok(Some(small)) => match judge(index, small) {
                    Ok(Some(judged)) => return Ok(Some(judged)),
                    Ok(None) => self.lacks(index, file),
                    // It was asked again.
                    Err(error) if error.is_silence() => self.is_silent(index, &error),
                    Err(error) => return Err(error),
                },
                Ok(None) => self.lacks(index, file),
                Err(error) if error.is_silence() => self.is_silent(index, &error),
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Whether a cache is still asked.
    pub(super) fn answers(&self, index: usize) -> bool {
        !locked(&self.silent).contains(&index)
    }

    /// Notes that a cache lacks `file`, or what belongs to it.
    pub(super) fn lacks(&self, index: usize, file: &str) {
        locked(&self.lacking).insert((index, file.to_owned()));
    }

    /// Notes that a cache does not answer.
    pub(super) fn is_silent(&self, index: usize, error: &CacheError) {
        if locked(&self.silent).insert(index) {
            say(self.events, Level::Warning, format!("not asked any more: {}", chain(error)));
        }
    }

    fn ranked(&self) -> Result<&[usize], CacheError> {
        let _only_one = locked(&self.ranking);
        if let Some(ranked) = self.ranked.get() {
            return Ok(ranked);
        }
        let mut ranked = Vec::new();
        for (index, cache) in self.caches.iter().enumerate() {
            match cache.info() {
                Ok(info) => ranked.push((info.priority, index)),
                // Others may have everything; if not, what is missing will be said.
                Err(error) if error.is_silence() => self.is_silent(index, &error),
                Err(error @ CacheError::NotACache { .. }) if self.missing == Missing::PassedOver => {
                    self.is_silent(index, &error);
                }
                Err(error) => return Err(error),
            }
        }
        ranked.sort_unstable();
        Ok(self.ranked.get_or_init(|| ranked.into_iter().map(|(_, index)| index).collect()))
    }
}
