//! Turns: what a session made and has not yet seen on the disk.
//!
//! A process that is killed loses nothing that it wrote: the kernel has it, and shows it to others in the order in which it
//! was written. Only a machine that stops loses writes, and then any of those since the last sync, whatever their order. So a
//! build does not wait for the disk piece by piece. Before a session gives the first thing a name that others find, it writes
//! into its file, and waits until that is on the disk, that a turn began, and in which boot of the machine
//! (`/proc/sys/kernel/random/boot_id`, random(4)). Records made in a turn bear its stamp. One syncfs(2) ends it: before
//! anything is told to the world outside of the store, and every half minute.
//!
//! A turn that a dead session did not end is ended by whoever starts next, if it is of this boot. One of another boot is
//! doubted (`repair`): what bears its stamp is read again before anybody uses it.

use std::fmt;
use std::fs::File;
use std::path::Path;
use std::sync::{PoisonError, RwLockReadGuard};
use std::time::{Duration, Instant};

use super::durable;
use super::error::{StoreError, failed};
use super::session::Session;

/// How long a turn may last. The kernel writes back what is older than this of its own accord (`dirty_expire_centisecs`), so
/// a sync then finds most of it done; what a stop of the machine can cost, or cost reading, is bounded by it.
const LONGEST: Duration = Duration::from_secs(30);

/// Stands for the boot of a turn that could not be synced: it is none.
const NO_BOOT: &str = "-";

/// A session's turn: its number, and when it began, if it has not ended.
#[derive(Debug, Default)]
pub(super) struct Turn {
    number: u32,
    began: Option<Instant>,
}

/// Which turn of which session made a record.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub(super) struct Stamp {
    session: String,
    turn: u32,
}

/// A turn that its session did not end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unsynced {
    pub(super) stamp: Stamp,
    boot: String,
    /// When it began, in seconds since the epoch.
    pub(super) since: i64,
}

/// While held, things may be given names; the turn does not end meanwhile. Take it after all locks that others may hold, so
/// that nobody who waits for one keeps a turn from ending.
pub(super) struct Making<'s> {
    session: &'s Session,
    turn: RwLockReadGuard<'s, Turn>,
}

impl Session {
    /// Begins a turn, if none has begun.
    pub(super) fn making(&self) -> Result<Making<'_>, StoreError> {
        loop {
            let turn = self.turn.read().unwrap_or_else(PoisonError::into_inner);
            if turn.began.is_some_and(|began| began.elapsed() < LONGEST) {
                return Ok(Making { session: self, turn });
            }
            drop(turn);
            let mut turn = self.turn.write().unwrap_or_else(PoisonError::into_inner);
            match turn.began {
                None => self.begin(&mut turn)?,
                Some(began) if began.elapsed() >= LONGEST => self.end(&mut turn)?,
                Some(_) => {}
            }
        }
    }

    /// Ends the turn, if one has begun: on return all that this session made is on the disk.
    pub(super) fn sync(&self) -> Result<(), StoreError> {
        let mut turn = self.turn.write().unwrap_or_else(PoisonError::into_inner);
        if turn.began.is_some() { self.end(&mut turn) } else { Ok(()) }
    }

    fn begin(&self, turn: &mut Turn) -> Result<(), StoreError> {
        let directory = self.layout.sessions();
        turn.number += 1;
        self.hold(&unsynced_line(turn.number, &boot()))?;
        self.file.sync_all().map_err(failed("syncing", &directory))?;
        if turn.number == 1 {
            File::open(&directory).and_then(|open| open.sync_all()).map_err(failed("syncing", &directory))?;
        }
        turn.began = Some(Instant::now());
        Ok(())
    }

    fn end(&self, turn: &mut Turn) -> Result<(), StoreError> {
        if let Err(error) = durable::sync_all(self.layout.root()) {
            // The kernel tells of lost writes once; they must not be taken for done later (fsync(2), "EIO").
            self.hold(&unsynced_line(turn.number, NO_BOOT))?;
            return Err(error);
        }
        // Not synced itself: if this line is lost, things are read that need not be.
        self.hold(&format!("synced {}", turn.number))?;
        turn.began = None;
        Ok(())
    }
}

impl Making<'_> {
    pub(super) fn stamp(&self) -> Stamp {
        Stamp { session: self.session.name.clone(), turn: self.turn.number }
    }

    /// Writes `bytes` as `path`, replacing what is there: all of it or nothing for those who look, and on the disk when the
    /// turn ends.
    pub(super) fn write(&self, path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
        let unnamed = durable::Unnamed::of(self.session, bytes)?;
        std::fs::rename(unnamed.path(), path).map_err(failed("renaming to", path))
    }

    /// Removes a file, if it is there.
    pub(super) fn remove(&self, path: &Path) -> Result<(), StoreError> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            removed => removed.map_err(failed("removing", path)),
        }
    }
}

impl Unsynced {
    /// The turn that the session called `name` did not end, going by its file.
    pub(super) fn of(name: &str, file: &str) -> Option<Self> {
        let mut unsynced = None;
        for line in file.lines() {
            let mut words = line.split(' ');
            match (words.next(), words.next().and_then(|turn| turn.parse().ok()), words.next(), words.next()) {
                (Some("unsynced"), Some(turn), Some(boot), Some(since)) => {
                    let stamp = Stamp { session: name.to_owned(), turn };
                    unsynced = Some(Self { stamp, boot: boot.to_owned(), since: since.parse().unwrap_or(0) });
                }
                (Some("synced"), Some(_), None, None) => unsynced = None,
                _ => {}
            }
        }
        unsynced
    }

    /// Whether the machine has not stopped since: what was written is still to be had.
    pub(super) fn is_of_this_boot(&self) -> bool {
        self.boot != NO_BOOT && self.boot == boot()
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.session, self.turn)
    }
}

fn unsynced_line(turn: u32, boot: &str) -> String {
    format!("unsynced {turn} {boot} {}", super::record::now())
}

/// Which boot of the machine this is; [`NO_BOOT`] where the kernel does not say.
fn boot() -> String {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    match id.trim() {
        "" => NO_BOOT.into(),
        id => id.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_turn_can_be_unsynced_and_other_lines_say_nothing_of_turns() {
        let of = |text: &str| Unsynced::of("s", text).map(|unsynced| (unsynced.stamp.turn, unsynced.boot));
        assert_eq!(of(""), None);
        assert_eq!(of("1ncm7wbm5d286vjcmdnyqwwkndbl28s6-x\ntree sha256-xxx\n"), None);
        assert_eq!(of("unsynced 1 b 7\nheld\n"), Some((1, "b".into())));
        assert_eq!(of("unsynced 1 b 7\nsynced 1\nheld\n"), None);
        assert_eq!(of("unsynced 1 b 7\nsynced 1\nunsynced 2 c 8\n"), Some((2, "c".into())));
        assert_eq!(of("unsynced 1 b 7\nunsynced 1 - 8\n"), Some((1, "-".into())));
        // A line that was cut off ends nothing.
        assert_eq!(of("unsynced 1 b 7\nsynce"), Some((1, "b".into())));
    }

    #[test]
    fn a_turn_that_could_not_be_synced_is_of_no_boot() {
        assert!(!Unsynced::of("s", "unsynced 1 - 7\n").unwrap().is_of_this_boot());
        assert!(Unsynced::of("s", &unsynced_line(1, &boot())).unwrap().is_of_this_boot() || boot() == NO_BOOT);
    }
}
