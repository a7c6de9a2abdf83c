//! Paths in an order in which each comes after what it names, made in parallel and finished in that order.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use kiln_model::store_path::StorePath;

/// `paths`, each after what it names; what is not among them is left out. `Err` is a path in a circle.
pub fn references_first(paths: &BTreeMap<StorePath, BTreeSet<StorePath>>) -> Result<Vec<&StorePath>, &StorePath> {
    let mut missing: BTreeMap<&StorePath, usize> = BTreeMap::new();
    let mut referrers: BTreeMap<&StorePath, Vec<&StorePath>> = BTreeMap::new();
    for (path, references) in paths {
        let others = references.iter().filter(|reference| *reference != path && paths.contains_key(*reference));
        missing.insert(path, others.clone().count());
        others.for_each(|reference| referrers.entry(reference).or_default().push(path));
    }
    let mut ordered: Vec<&StorePath> =
        missing.iter().filter(|(_, count)| **count == 0).map(|(path, _)| *path).collect();
    let mut done = 0;
    while let Some(path) = ordered.get(done) {
        done += 1;
        for referrer in referrers.remove(*path).unwrap_or_default() {
            if let Some(count) = missing.get_mut(referrer) {
                *count -= 1;
                if *count == 0 {
                    ordered.push(referrer);
                }
            }
        }
    }
    match missing.into_iter().find(|(_, count)| *count > 0) {
        Some((path, _)) => Err(path),
        None => Ok(ordered),
    }
}

/// Calls `make` for each index below `count`, several at once, and `finish` with each result on this thread, in order. After a
/// first error nothing more is begun.
pub(super) fn made_in_order<R: Send, E: Send>(
    count: usize,
    workers: NonZeroUsize,
    make: impl Fn(usize) -> Result<R, E> + Sync,
    mut finish: impl FnMut(usize, R) -> Result<(), E>,
) -> Result<(), E> {
    let workers = workers.get().min(count);
    if workers <= 1 {
        // A chain of derivations is looked at link by link: a thread for each would cost more than the look.
        return (0..count).try_for_each(|index| finish(index, make(index)?));
    }
    let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let (sender, results) = crossbeam_channel::bounded(workers);
        for _ in 0..workers {
            let (sender, make, next, stop) = (sender.clone(), &make, &next, &stop);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= count || sender.send((index, make(index))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        let mut made = BTreeMap::new();
        let mut finished = 0;
        let ended = loop {
            let Ok((index, result)) = results.recv() else { break Ok(()) };
            match result {
                Ok(result) => drop(made.insert(index, result)),
                Err(error) => break Err(error),
            }
            let mut step = || -> Result<(), E> {
                while let Some(result) = made.remove(&finished) {
                    finish(finished, result)?;
                    finished += 1;
                }
                Ok(())
            };
            if let Err(error) = step() {
                break Err(error);
            }
        };
        stop.store(true, Ordering::Relaxed);
        // Workers that wait to send give up.
        drop(results);
        ended
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(name: &str) -> StorePath {
        format!("/nix/store/1ncm7wbm5d286vjcmdnyqwwkndbl28s6-{name}").parse().unwrap()
    }

    #[test]
    fn each_path_comes_after_what_it_names_and_a_circle_is_refused() {
        let set = |names: &[&str]| names.iter().map(|name| path(name)).collect::<BTreeSet<_>>();
        let mut paths = BTreeMap::from([
            (path("a"), set(&["a", "b", "elsewhere"])),
            (path("b"), set(&["c"])),
            (path("c"), set(&[])),
        ]);
        let names: Vec<&str> = references_first(&paths).unwrap().iter().map(|path| path.name()).collect();
        assert_eq!(names, ["c", "b", "a"]);
        paths.insert(path("c"), set(&["a"]));
        assert!(references_first(&paths).is_err());
    }

    #[test]
    fn results_are_finished_in_order_and_an_error_ends_it() {
        let workers = NonZeroUsize::new(4).unwrap();
        let mut finished = Vec::new();
        made_in_order(100, workers, Ok::<_, ()>, |index, made| {
            assert_eq!(index, made);
            finished.push(index);
            Ok(())
        })
        .unwrap();
        assert!(finished.iter().copied().eq(0..100));
        let refused = made_in_order(100, workers, |index| if index == 7 { Err(index) } else { Ok(()) }, |_, ()| Ok(()));
        assert_eq!(refused, Err(7));
        let refused = made_in_order(100, workers, |_| Ok(()), |index, ()| if index == 3 { Err(index) } else { Ok(()) });
        assert_eq!(refused, Err(3));
    }
}
