//! The same work on many things, on every processor or on so many threads, with results in the order of the things.

use std::num::NonZero;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// How many threads work has, if it is work for processors.
pub fn processors() -> NonZero<usize> {
    std::thread::available_parallelism().unwrap_or(NonZero::<usize>::MIN)
}

/// `work` on each of `things`. A panic in one is the caller's.
pub fn map<T: Sync, R: Send + Sync>(things: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    map_on(processors(), things, work)
}

/// `work` on each of `things`, on `threads` threads, until one fails: then no more is begun, and the first failure in the order
/// of the things, of those that were begun, is returned.
pub fn try_map<T: Sync, R: Send + Sync, E: Send + Sync>(
    threads: NonZero<usize>,
    things: &[T],
    work: impl Fn(&T) -> Result<R, E> + Sync,
) -> Result<Vec<R>, E> {
    let failed = AtomicBool::new(false);
    let results = map_on(threads, things, |thing| {
        if failed.load(Ordering::Relaxed) {
            return None;
        }
        let result = work(thing);
        if result.is_err() {
            failed.store(true, Ordering::Relaxed);
        }
        Some(result)
    });
    // Without a failure none is missing.
    results.into_iter().flatten().collect()
}

fn map_on<T: Sync, R: Send + Sync>(threads: NonZero<usize>, things: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let results: Vec<OnceLock<R>> = things.iter().map(|_| OnceLock::new()).collect();
    let threads = threads.get().min(things.len());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some((thing, result)) = {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    things.get(number).zip(results.get(number))
                } {
                    // Each number is given out once.
                    result.set(work(thing)).ok();
                }
            });
        }
    });
    results.into_iter().map(|result| result.into_inner().expect("a thread that did not finish has panicked")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_the_order_of_the_things_whoever_finished_first() {
        let things: Vec<u64> = (0..64).collect();
        let doubled = map(&things, |thing| {
            std::thread::sleep(std::time::Duration::from_micros(640 - 10 * thing));
            thing * 2
        });
        assert_eq!(doubled, things.iter().map(|thing| thing * 2).collect::<Vec<_>>());
        assert_eq!(map(&[] as &[u8], |_| ()), []);
    }

    #[test]
    fn after_a_failure_no_more_is_begun() {
        let (things, begun) = ((0..1000).collect::<Vec<u64>>(), AtomicUsize::new(0));
        let four = NonZero::new(4).unwrap();
        let tried = try_map(four, &things, |thing| {
            begun.fetch_add(1, Ordering::Relaxed);
            if *thing < 3 { Ok(*thing) } else { Err(*thing) }
        });
        assert!(tried.is_err_and(|thing| thing >= 3));
        // Those that succeed, and one on each thread.
        assert!(begun.load(Ordering::Relaxed) <= 3 + 4);
        assert_eq!(try_map(four, &things, |thing| Ok::<_, ()>(thing + 1)).unwrap(), (1..=1000).collect::<Vec<u64>>());
    }
}
