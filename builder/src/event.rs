//! Progress, as values: what a library says while it works.
//!
//! Libraries never print. They are handed an [`Events`] and send to it; whoever holds a terminal, a log or nothing decides
//! what becomes of it. Events are talk: no result may depend on one, and they may name a mirror's address, which
//! reports never do.

use std::sync::atomic::{AtomicU64, Ordering};

/// Where events go. May be called from several threads at once; must return soon and never fail.
pub type Events<'a> = &'a (dyn Fn(Event) + Sync);

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A task began.
    Started {
        /// Unique in this process.
        task: u64,
        /// What is being worked on: a file, a package, a derivation.
        name: String,
        /// What its progress counts.
        unit: Unit,
        /// How much there is to do, where known.
        total: Option<u64>,
    },
    /// A task got further.
    Advanced {
        /// As in `Started`.
        task: u64,
        /// How much is done in all, not since the last event. May fall: a mirror that failed is begun anew.
        done: u64,
    },
    /// A task ended, well or not: what came of it is in the value or error that the caller got.
    Finished {
        /// As in `Started`.
        task: u64,
    },
    /// A line of talk.
    Said {
        /// Whether it is shown by default.
        level: Level,
        /// One line, without a line feed.
        text: String,
    },
}

/// What a task's progress counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// Things: files, packages, steps, builds.
    Items,
}

/// How much a line matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Shown with `-v`.
    Detail,
    /// Shown unless `--quiet`.
    Note,
    /// Always shown.
    Warning,
}

/// For callers that want no events.
pub const SILENT: Events<'static> = &|_| {};

/// Says one line.
pub fn say(events: Events<'_>, level: Level, text: impl Into<String>) {
    events(Event::Said { level, text: text.into().replace('\n', " ") });
}

/// A running task: says that it started when it is made and that it finished when it is dropped.
pub struct Task<'a> {
    events: Events<'a>,
    id: u64,
}

impl<'a> Task<'a> {
    /// Starts a task.
    pub fn start(events: Events<'a>, name: impl Into<String>, unit: Unit, total: Option<u64>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        events(Event::Started { task: id, name: name.into(), unit, total });
        Self { events, id }
    }

    /// Says how much is done in all.
    pub fn advance(&self, done: u64) {
        (self.events)(Event::Advanced { task: self.id, done });
    }
}

impl Drop for Task<'_> {
    fn drop(&mut self) {
        (self.events)(Event::Finished { task: self.id });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn a_task_that_is_left_by_an_error_is_finished_all_the_same() {
        let seen = Mutex::new(Vec::new());
        let sink = |event| seen.lock().unwrap().push(event);
        let fails = |events: Events<'_>| -> Result<(), ()> {
            let task = Task::start(events, "hello", Unit::Bytes, Some(3));
            task.advance(2);
            Err(())
        };
        assert!(fails(&sink).is_err());
        let seen = seen.into_inner().unwrap();
        let Event::Started { task, .. } = seen[0] else { panic!("{seen:?}") };
        assert_eq!(seen[1..], [Event::Advanced { task, done: 2 }, Event::Finished { task }]);
    }

    #[test]
    fn talk_is_one_line() {
        let seen = Mutex::new(Vec::new());
        say(&|event| seen.lock().unwrap().push(event), Level::Note, "two\nlines");
        assert_eq!(*seen.lock().unwrap(), [Event::Said { level: Level::Note, text: "two lines".into() }]);
    }
}
