//! Bombs: each meets its limit, which is named, and neither a neighbour nor kiln itself suffers.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use kiln_sandbox::{How, PlanError, Refusal, Stdio, Tmpfs, Which, plan, probe};

use crate::ground::{Background, FILES, LIMITS, held, not_here, told};
use crate::harness::bench_of;

#[test]
fn e28_a_fork_bomb_meets_the_limit_and_a_sibling_does_not_notice() {
    let Some(bench) = bench_of(LIMITS) else { return };
    let mut spec = bench.spec("fork-bomb", &["3"]);
    spec.limits.processes = Some(50);
    let bombs = [(); 2].map(|()| Background::start(&bench, &spec, "burning"));
    // As many as each of the bombs may have, of the same slot, while they burn.
    let mut sibling = bench.spec("forks", &["200"]);
    sibling.limits.processes = Some(50);
    held(&bench.run(&sibling), 1);
    for bomb in bombs {
        let (ended, log) = bomb.end();
        assert_eq!(ended.how, How::Exited(0), "{log}");
        assert!(ended.usage.wall >= Duration::from_secs(2), "it was still burning");
        let made: u32 = log.lines().find_map(|line| line.strip_prefix("made ")).unwrap().parse().unwrap();
        assert!((1..=50).contains(&made), "{made}");
    }
}

#[test]
fn e29_memory_beyond_a_process_s_limit_is_not_given() {
    let Some(bench) = bench_of(LIMITS) else { return };
    let mut spec = bench.spec("touch", &[&(1u64 << 30).to_string()]);
    spec.limits.address_space = Some(256 << 20);
    let run = bench.run(&spec);
    held(&run, 1);
    let touched: u64 = told(&run, "touched").parse().unwrap();
    assert!((64 << 20..256 << 20).contains(&touched), "{touched}");
}

#[test]
fn e29_memory_of_all_processes_together_is_bounded_or_the_spec_is_refused() {
    let Some(bench) = bench_of(LIMITS) else { return };
    let mut spec = bench.spec("touch", &[&(256u64 << 20).to_string()]);
    spec.limits.memory_total = Some(64 << 20);
    match plan(&spec, &probe()) {
        Err(PlanError::Host(Refusal { missing, remedy, .. })) => {
            assert!(missing.contains("memory") || missing.contains("cgroup"), "{missing}");
            assert!(remedy.contains("systemd-run --user --scope -p Delegate=yes kiln"), "{remedy}");
            not_here("E29 total", "no cgroup of ours bounds the memory of many processes; asking for it is refused");
        }
        Err(PlanError::Spec(bad)) => panic!("{bad}"),
        Ok(plan) => {
            let running = bench.start(&plan, Stdio::Log).unwrap();
            let ended = running.wait(&mut |_| {}).unwrap();
            assert!(matches!(ended.how, How::LimitExceeded(_) | How::Signaled(9)), "{:?}", ended.how);
        }
    }
}

#[test]
fn e29_file_systems_and_files_in_memory_have_an_end() {
    let Some(bench) = bench_of(LIMITS) else { return };
    for place in ["/tmp", "/dev/shm"] {
        let mut spec = bench.spec("fill", &[&format!("{place}/bomb")]);
        spec.tmpfs = ["/tmp", "/dev/shm"].map(|target| Tmpfs { size: 16 << 20, ..Tmpfs::scratch(target) }).into();
        let run = bench.run(&spec);
        held(&run, 1);
        assert_eq!(told(&run, "filled"), (16 << 20).to_string());
    }
    // Of files in memory without a file system, each has the size that any file may have.
    let mut spec = bench.spec("memfd", &[]);
    spec.limits.file_size = Some(16 << 20);
    let run = bench.run(&spec);
    assert_eq!((run.ended.how, run.log.as_str()), (How::LimitExceeded(Which::FileSize), "filling\n"));
}

#[test]
fn e30_an_endless_file_a_sparse_one_and_a_million_small_ones_meet_an_end() {
    let Some(bench) = bench_of(LIMITS) else { return };
    let mut spec = bench.spec("fill", &["/build/endless"]);
    spec.limits.file_size = Some(8 << 20);
    assert_eq!(bench.run(&spec).ended.how, How::LimitExceeded(Which::FileSize));
    assert_eq!(fs::metadata(bench.path("build/endless")).unwrap().len(), 8 << 20);
    held(&bench.run(&bench.spec("sparse", &[])), 3);
    let stat = fs::metadata(bench.path("build/sparse")).unwrap();
    assert!(stat.len() == 1 << 16 && stat.blocks() * 512 <= 1 << 16, "{stat:?}");
    for place in ["/tmp", "/dev/shm"] {
        let mut spec = bench.spec("inodes", &[place, "1000"]);
        spec.tmpfs = ["/tmp", "/dev/shm"].map(|target| Tmpfs { inodes: 1000, ..Tmpfs::scratch(target) }).into();
        held(&bench.run(&spec), 1);
    }
    let names = bench.run(&bench.spec("names", &[]));
    held(&names, 2);
    // What is so deep is taken back without falling over.
    bench.slot.reclaim_tree(&bench.path("build")).unwrap();
}

/// The largest resident set that this process ever had, in KiB.
fn high_water() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// A line of 10 GB where `scripts/escape` asks for it, else of one.
#[test]
fn e31_a_line_of_gigabytes_passes_through_bounded_memory() {
    let Some(bench) = bench_of(LIMITS) else { return };
    let length: u64 =
        if std::env::var_os("KILN_TEST_WHOLE").is_some_and(|value| value == "1") { 10 << 30 } else { 1 << 30 };
    let mut spec = bench.spec("flood", &[&length.to_string()]);
    spec.limits.wall = Some(Duration::from_secs(600));
    spec.limits.log_bytes = None;
    let before = high_water();
    let running = bench.start(&plan(&spec, &probe()).unwrap(), Stdio::Log).unwrap();
    let (mut passed, mut largest) = (0u64, 0);
    let ended = running.wait(&mut |bytes| {
        passed += bytes.len() as u64;
        largest = largest.max(bytes.len());
        assert!(bytes.iter().all(|&byte| byte == b'y'));
    });
    assert_eq!(ended.unwrap().how, How::Exited(0));
    assert_eq!(passed, length);
    assert!(largest <= 1 << 20);
    // Beside other tests of this process.
    assert!(high_water() - before < 256 << 10, "{before} and then {} KiB", high_water());
}

#[test]
fn e31_a_flood_of_log_is_cut_at_its_limit_and_ends_the_payload() {
    let Some(bench) = bench_of(LIMITS) else { return };
    let mut spec = bench.spec("flood", &[&(10u64 << 30).to_string()]);
    spec.limits.log_bytes = Some(1_000_000);
    spec.limits.grace = Duration::from_millis(100);
    let run = bench.run(&spec);
    assert_eq!(run.ended.how, How::LimitExceeded(Which::Log));
    assert_eq!(run.log.len(), 1_000_000);
    assert!(run.ended.usage.log_bytes > 1_000_000 && run.ended.usage.log_bytes < 10 << 30);
}

#[test]
fn e31_bytes_that_are_no_text_and_codes_for_terminals_are_kept_as_they_are() {
    let Some(bench) = bench_of(LIMITS) else { return };
    let spec = bench.spec("raw", &[]);
    let running = bench.start(&plan(&spec, &probe()).unwrap(), Stdio::Log).unwrap();
    let mut log = Vec::new();
    assert_eq!(running.wait(&mut |bytes| log.extend_from_slice(bytes)).unwrap().how, How::Exited(0));
    let expected: Vec<u8> = (0..=255).chain(*b"\x1b[2J\x1b]0;title\x07\x1b[6n").collect();
    assert_eq!(log, expected);
}

#[test]
fn e32_descriptors_watchers_watches_and_mounts_run_out() {
    let Some(bench) = bench_of(FILES) else { return };
    let mut spec = bench.spec("many", &[]);
    spec.limits.open_files = Some(1000);
    spec.tmpfs = vec![Tmpfs { inodes: 2000, ..Tmpfs::scratch("/tmp") }];
    let run = bench.run(&spec);
    held(&run, 1000);
    assert!((900..1000).contains(&told(&run, "opened").parse::<u32>().unwrap()), "{}", run.log);
    assert!(told(&run, "watchers").parse::<u32>().unwrap() < 1000);
    assert!(told(&run, "watches").parse::<u32>().unwrap() <= 2000);
}
