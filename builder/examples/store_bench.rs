//! How fast the store takes a tree, as a ratio: hash, scan, canonicalise and copy in one pass, against SHA-256 alone over
//! as many bytes in memory. Interleaved, medians; absolutes mean nothing on a shared machine.
//!
//! `cargo run --release --example store_bench -- DIRECTORY [MEGABYTES [ROUNDS]]`; DIRECTORY on tmpfs for the goal (0.9).

#![expect(clippy::unwrap_used, reason = "a measurement that cannot be made ends")]

use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use kiln::store::{Budget, Digests, Origin, Source, Store, TreeLimits};
use kiln_model::digest::Digest;
use kiln_model::store_path::StorePath;

const CANDIDATES: usize = 100;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let directory = PathBuf::from(arguments.next().expect("usage: store_bench DIRECTORY [MEGABYTES [ROUNDS]]"));
    let megabytes: usize = arguments.next().map_or(600, |text| text.parse().unwrap());
    let rounds: usize = arguments.next().map_or(5, |text| text.parse().unwrap());
    let scratch = tempfile::tempdir_in(directory).unwrap();
    let tree = scratch.path().join("tree");
    let bytes = make_tree(&tree, megabytes);
    let memory = vec![0x5a_u8; 64 << 20];
    let candidates: BTreeSet<StorePath> =
        (0..CANDIDATES).map(|number| StorePath::text(&format!("c{number}"), b"", &BTreeSet::new()).unwrap()).collect();

    let (mut raw, mut hash, mut copy, mut manifest) = (vec![], vec![], vec![], vec![]);
    for round in 0..rounds {
        raw.push(seconds(|| {
            let mut left = bytes;
            let mut digest = Digest::of(b"");
            while left > 0 {
                let piece = memory.len().min(left);
                digest = Digest::of(&memory[..piece]);
                left -= piece;
            }
            std::hint::black_box(digest);
        }));
        hash.push(seconds(|| {
            with_source(&tree, |source| {
                Store::digest_tree(source, Digests::Nar, TreeLimits::default()).unwrap();
            })
        }));
        copy.push(take(scratch.path(), &tree, &candidates, Digests::Nar, round));
        manifest.push(take(scratch.path(), &tree, &candidates, Digests::NarAndFiles, round));
    }
    let raw = median(&mut raw);
    let ratio = |times: &mut Vec<f64>| (raw / median(times) * 1000.0).round() / 1000.0;
    let figures = serde_json::json!({
        "schema": "kiln/store-bench/v1",
        "bytes": bytes,
        "rounds": rounds,
        "sha256_bytes_per_second": (bytes as f64 / raw).round(),
        "ratio_hash": ratio(&mut hash),
        "ratio_hash_scan_copy": ratio(&mut copy),
        "ratio_hash_scan_copy_manifest": ratio(&mut manifest),
    });
    println!("{figures}");
}

fn take(scratch: &Path, tree: &Path, candidates: &BTreeSet<StorePath>, digests: Digests, round: usize) -> f64 {
    let root = scratch.join(format!("store-{round}"));
    let store = Store::open(&root).unwrap();
    let time = seconds(|| {
        with_source(tree, |source| match digests {
            Digests::Nar => {
                drop(store.add_tree_at(&"tree".parse().unwrap(), source, Digests::Nar, candidates).unwrap())
            }
            Digests::NarAndFiles => drop(store.take_output(source, candidates, TreeLimits::default()).unwrap()),
        })
    });
    drop(store);
    Store::open(&root).unwrap().gc(&Budget::default()).unwrap();
    time
}

fn with_source(tree: &Path, work: impl FnOnce(Source<'_>)) {
    let directory = fs::File::open(tree.parent().unwrap()).unwrap();
    let name = CString::new(tree.file_name().unwrap().to_str().unwrap()).unwrap();
    work(Source { directory: directory.as_fd(), name: &name, shown: tree, origin: Origin::Built });
}

/// A thousand files of sizes from 1 kB to 16 MB, in directories of fifty.
fn make_tree(tree: &Path, megabytes: usize) -> usize {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut noise = vec![0; 16 << 20];
    for chunk in noise.chunks_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        chunk.copy_from_slice(&state.to_le_bytes());
    }
    let (mut total, mut number) = (0, 0_usize);
    while total < megabytes << 20 {
        let size = [1 << 10, 5 << 10, 40 << 10, 300 << 10, 3 << 20][number % 5].max((number % 100 / 99) * (16 << 20));
        let directory = tree.join(format!("d{}", number / 50));
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join(format!("f{number}")), &noise[..size]).unwrap();
        total += size;
        number += 1;
    }
    total
}

fn seconds(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64()
}

fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}
