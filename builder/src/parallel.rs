//! The same work on many things, on every processor, with results in the order of the things.

use std::num::NonZero;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

/// `work` on each of `things`. A panic in one is the caller's.
pub fn map<T: Sync, R: Send + Sync>(things: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let results: Vec<OnceLock<R>> = things.iter().map(|_| OnceLock::new()).collect();
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get).min(things.len());
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
    #[test]
    fn results_come_in_the_order_of_the_things_whoever_finished_first() {
        let things: Vec<u64> = (0..64).collect();
        let doubled = super::map(&things, |thing| {
            std::thread::sleep(std::time::Duration::from_micros(640 - 10 * thing));
            thing * 2
        });
        assert_eq!(doubled, things.iter().map(|thing| thing * 2).collect::<Vec<_>>());
        assert_eq!(super::map(&[] as &[u8], |_| ()), []);
    }
}
