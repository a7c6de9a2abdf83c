//! Two steps for each of many: the first at any time, the second after the second steps of all that it waits for.
//!
//! Several threads do both; a second step goes before a first one, so that what can be finished is finished. After a first
//! error nothing more is begun, and what runs is waited for.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

struct Shared<T, E> {
    state: Mutex<State<T, E>>,
    changed: Condvar,
}

struct State<T, E> {
    /// The next whose first step is to be done.
    next: usize,
    /// What first steps gave.
    begun: Vec<Option<T>>,
    /// How many second steps each still waits for.
    missing: Vec<usize>,
    /// Those whose second step can be done.
    ready: BTreeSet<usize>,
    ended: usize,
    stopped: Option<E>,
    panicked: bool,
}

/// Calls `begin` for each index of `waits_for`, then `end` with what that gave once all that it waits for, which are smaller
/// indices, has ended.
pub(super) fn in_turn<T: Send, E: Send>(
    waits_for: &[Vec<usize>],
    workers: NonZeroUsize,
    begin: impl Fn(usize) -> Result<T, E> + Sync,
    end: impl Fn(usize, T) -> Result<(), E> + Sync,
) -> Result<(), E> {
    let count = waits_for.len();
    let mut waiting = vec![Vec::new(); count];
    for (index, others) in waits_for.iter().enumerate() {
        others.iter().for_each(|other| waiting[*other].push(index));
    }
    let shared = Shared {
        state: Mutex::new(State {
            next: 0,
            begun: (0..count).map(|_| None).collect(),
            missing: waits_for.iter().map(Vec::len).collect(),
            ready: BTreeSet::new(),
            ended: 0,
            stopped: None,
            panicked: false,
        }),
        changed: Condvar::new(),
    };
    std::thread::scope(|scope| {
        for _ in 0..workers.get().min(count) {
            scope.spawn(|| shared.work(&waiting, &begin, &end));
        }
    });
    let state = shared.state.into_inner().unwrap_or_else(PoisonError::into_inner);
    state.stopped.map_or(Ok(()), Err)
}

impl<T, E> Shared<T, E> {
    fn lock(&self) -> MutexGuard<'_, State<T, E>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(
        &self,
        waiting: &[Vec<usize>],
        begin: &impl Fn(usize) -> Result<T, E>,
        end: &impl Fn(usize, T) -> Result<(), E>,
    ) {
        let _alarm = Alarm(self);
        let mut state = self.lock();
        while state.stopped.is_none() && !state.panicked && state.ended < waiting.len() {
            let done = if let Some(index) = state.ready.pop_first() {
                let begun = state.begun[index].take().expect("what is ready has begun");
                drop(state);
                let ended = end(index, begun);
                state = self.lock();
                ended.map(|()| {
                    state.ended += 1;
                    for &other in &waiting[index] {
                        state.missing[other] -= 1;
                        state.consider(other);
                    }
                })
            } else if state.next < waiting.len() {
                let index = state.next;
                state.next += 1;
                drop(state);
                let begun = begin(index);
                state = self.lock();
                begun.map(|begun| {
                    state.begun[index] = Some(begun);
                    state.consider(index);
                })
            } else {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            if let Err(error) = done {
                state.stopped.get_or_insert(error);
            }
            self.changed.notify_all();
        }
    }
}

impl<T, E> State<T, E> {
    fn consider(&mut self, index: usize) {
        if self.missing[index] == 0 && self.begun[index].is_some() {
            self.ready.insert(index);
        }
    }
}

/// Nobody waits for a thread that panicked.
struct Alarm<'a, T, E>(&'a Shared<T, E>);

impl<T, E> Drop for Alarm<'_, T, E> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.lock().panicked = true;
            self.0.changed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOUR: NonZeroUsize = NonZeroUsize::new(4).expect("not zero");

    /// Each waits for the one at half its index, and for the one before if that is odd.
    fn graph() -> Vec<Vec<usize>> {
        let of = |index: usize| [index / 2, index - 1].into_iter().filter(move |o| *o == index / 2 || o % 2 == 1);
        (0..200_usize)
            .map(|index| if index == 0 { vec![] } else { of(index).collect::<BTreeSet<_>>().into_iter().collect() })
            .collect()
    }

    #[test]
    fn an_end_comes_after_its_own_beginning_and_after_the_ends_that_it_waits_for() {
        let graph = graph();
        let ended = Mutex::new(BTreeSet::new());
        let end = |index: usize, begun: usize| {
            assert_eq!(begun, index * 3);
            let mut ended = ended.lock().unwrap();
            assert!(graph[index].iter().all(|other| ended.contains(other)), "{index} came too early");
            ended.insert(index);
            Ok::<_, ()>(())
        };
        in_turn(&graph, FOUR, |index| Ok(index * 3), end).unwrap();
        assert_eq!(ended.lock().unwrap().len(), 200);
        in_turn(&[], FOUR, |_| Ok::<_, ()>(()), |_, ()| Ok(())).unwrap();
    }

    #[test]
    fn after_an_error_of_either_step_nothing_that_waits_for_it_ends() {
        let graph = graph();
        let ends = Mutex::new(BTreeSet::new());
        let end = |index: usize, ()| {
            ends.lock().unwrap().insert(index);
            if index == 9 { Err(index) } else { Ok(()) }
        };
        assert_eq!(in_turn(&graph, FOUR, |_| Ok(()), end), Err(9));
        assert!(!ends.lock().unwrap().contains(&18));
        assert_eq!(in_turn(&graph, FOUR, |index| if index == 7 { Err(index) } else { Ok(()) }, |_, ()| Ok(())), Err(7));
    }

    #[test]
    #[should_panic]
    fn a_panic_of_a_step_is_not_waited_for() {
        let begin = |index: usize| if index == 5 { panic!("as told") } else { Ok::<_, ()>(()) };
        let _ = in_turn(&graph(), FOUR, begin, |_, ()| Ok(()));
    }
}
