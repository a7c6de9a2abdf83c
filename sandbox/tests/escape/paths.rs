//! Descriptors, working directories, symlinks and races: no path leads out.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use kiln_sandbox::{How, Input, Root, SetupError};
use rustix::fs::{Mode, OFlags, RenameFlags};

use crate::ground::{FILES, PATIENCE, held, told};
use crate::harness::{Bench, bench_of};

/// CVE-2024-21626 walked out through a descriptor of the host's that had been left open.
#[test]
fn e14_only_descriptors_0_to_2_are_open_whatever_the_caller_had_open() {
    let Some(bench) = bench_of(FILES) else { return };
    let marker = marker(&bench);
    // Without close-on-exec, as a careless caller would; the later launcher is started with them open.
    let careless: Vec<_> =
        (0..200).map(|_| rustix::fs::open("/", OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap()).collect();
    let Some(late) = bench_of(FILES) else { return };
    held(&late.run(&late.spec("descriptors", &[&marker])), 250);
    held(&bench.run(&bench.spec("descriptors", &[&marker])), 250);
    drop(careless);
}

/// The same CVE's other half: a working directory that names a descriptor.
#[test]
fn e14_a_working_directory_named_by_descriptor_is_refused_or_inside() {
    let Some(bench) = bench_of(FILES) else { return };
    let marker = marker(&bench);
    let (mut refused, mut inside) = (0, 0);
    for fd in 0..32 {
        let mut spec = bench.spec("descriptors", &[&marker]);
        spec.process.cwd = format!("/proc/self/fd/{fd}").into();
        match bench.try_run(&spec) {
            Ok(run) => {
                inside += 1;
                held(&run, 250);
            }
            Err(SetupError::Step { step, .. }) => {
                refused += 1;
                assert!(step.contains("/proc/self/fd"), "{step}");
            }
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(refused + inside, 32);
    assert!(refused > 0);
}

/// A file of the host's that no spec names.
fn marker(bench: &Bench) -> String {
    let marker = bench.path("marker");
    fs::write(&marker, "the host's\n").unwrap();
    marker.into_os_string().into_string().unwrap()
}

/// Exchanges two names over and over while `tried` runs.
fn while_exchanged(one: &Path, other: &Path, tried: impl FnOnce()) {
    let (done, cwd) = (AtomicBool::new(false), rustix::fs::CWD);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for pause in (0..8).cycle() {
                if done.load(Ordering::Relaxed) {
                    break;
                }
                // Sometimes faster than a sandbox starts, sometimes slower, so that each stage of a start meets it.
                std::thread::sleep(Duration::from_millis(pause));
                // A sandbox's own mount point is busy.
                let _ = rustix::fs::renameat_with(cwd, one, cwd, other, RenameFlags::EXCHANGE);
            }
        });
        let finished = std::panic::catch_unwind(std::panic::AssertUnwindSafe(tried));
        done.store(true, Ordering::Relaxed);
        finished.unwrap();
    });
}

/// CVE-2024-42472.
#[test]
fn e15_a_source_swapped_for_a_symlink_is_never_followed() {
    let Some(bench) = bench_of(FILES) else { return };
    fs::create_dir(bench.path("secret")).unwrap();
    fs::write(bench.path("secret/file"), "the host's\n").unwrap();
    std::os::unix::fs::symlink(bench.path("secret"), bench.path("swap")).unwrap();
    let (mut pinned, mut otherwise) = (0, 0);
    while_exchanged(&bench.path("input"), &bench.path("swap"), || {
        let began = Instant::now();
        while pinned + otherwise < 150 || ((pinned == 0 || otherwise == 0) && began.elapsed() < PATIENCE) {
            // What the run before made there, a stub or a link, would be in this one's way.
            let stub = bench.path("store/input");
            let _ = fs::remove_file(&stub).or_else(|_| fs::remove_dir(&stub));
            match bench.try_run(&bench.spec("read", &["/nix/store/input/file"])) {
                Ok(run) => match run.log.as_str() {
                    "pinned\n" => pinned += 1,
                    // As a symlink it is re-created, and leads nowhere inside.
                    "" => otherwise += 1,
                    other => panic!("{other}"),
                },
                Err(SetupError::Step { .. } | SetupError::Source { .. }) => otherwise += 1,
                Err(other) => panic!("{other}"),
            }
        }
    });
    assert!(pinned > 0 && otherwise > 0, "no race: {pinned} and {otherwise}");
}

/// CVE-2021-30465, CVE-2024-23651: the place of a mount was a link when it was looked up for the second time.
#[test]
fn e15_a_target_swapped_for_a_symlink_never_redirects_a_mount() {
    let Some(bench) = bench_of(FILES) else { return };
    let canary = bench.path("build");
    fs::create_dir(bench.path("store/input")).unwrap();
    std::os::unix::fs::symlink("/build", bench.path("store/swap")).unwrap();
    let (mut mounted, mut refused) = (0, 0);
    while_exchanged(&bench.path("store/input"), &bench.path("store/swap"), || {
        let began = Instant::now();
        while mounted + refused < 150 || ((mounted == 0 || refused == 0) && began.elapsed() < PATIENCE) {
            match bench.try_run(&bench.spec("read", &["/build/file", "/nix/store/input/file"])) {
                Ok(run) => {
                    // Had the mount been redirected, the file would be seen twice.
                    assert!(run.log == "pinned\n" || run.log.is_empty(), "{}", run.log);
                    mounted += 1;
                }
                Err(SetupError::Step { .. }) => refused += 1,
                Err(other) => panic!("{other}"),
            }
        }
    });
    assert!(mounted > 0 && refused > 0, "no race: {mounted} and {refused}");
    assert_eq!(fs::read_dir(canary).unwrap().count(), 0);
}

/// CVE-2024-23652, GHSA-4v98: what cleaned up after the build followed the build's links.
#[test]
fn e16_a_stub_below_a_mount_cannot_be_replaced_and_nothing_on_the_host_needs_cleaning() {
    let Some(bench) = bench_of(FILES) else { return };
    let mounts = || fs::read_to_string("/proc/self/mountinfo").unwrap();
    let before = mounts();
    let marker = marker(&bench);
    held(&bench.run(&bench.spec("unlock", &[&marker])), 20);
    assert_eq!(mounts(), before);
    let stub = fs::symlink_metadata(bench.path("store/input")).unwrap();
    assert!(stub.is_dir());
    assert_eq!(fs::read_dir(bench.path("store/input")).unwrap().count(), 0, "the stub is empty, the input was mounted");
    assert_eq!(fs::read_to_string(bench.path("input/file")).unwrap(), "pinned\n");
    assert_eq!(fs::read_to_string(marker).unwrap(), "the host's\n");
}

/// CVE-2025-31133, CVE-2025-52565, CVE-2025-52881: /dev/null and /dev/console of the image were links, and what was to
/// be masked or written lay behind them.
#[test]
fn e17_devices_masks_and_proc_are_the_kernel_s_own_whatever_the_root_s_image_holds() {
    let Some(bench) = bench_of(FILES) else { return };
    let canary = bench.path("canary");
    fs::write(&canary, "untouched\n").unwrap();
    held(&bench.run(&bench.spec("kernel-files", &[])), 30);
    let spec = bench.tree_spec("kernel-files", &[], Root::Tree);
    let dev = bench.path("tree/dev");
    for name in ["null", "console", "zero", "pts", "shm", "fd"] {
        std::os::unix::fs::symlink(&canary, dev.join(name)).unwrap();
    }
    fs::write(bench.path("tree/proc/self"), "an image's own\n").unwrap();
    held(&bench.run(&spec), 30);
    assert_eq!(fs::read_to_string(&canary).unwrap(), "untouched\n");
    assert!(fs::symlink_metadata(dev.join("null")).unwrap().is_symlink());
}

#[test]
fn e17_a_symlink_of_the_image_in_the_place_of_a_mount_is_refused_by_name() {
    let Some(bench) = bench_of(FILES) else { return };
    for (name, step_word) in [("dev", "scratch"), ("proc", "proc"), ("etc", "etc"), ("nix", "nix")] {
        let spec = bench.tree_spec("kernel-files", &[], Root::Tree);
        let place = bench.path("tree").join(name);
        fs::remove_dir_all(&place).unwrap();
        std::os::unix::fs::symlink("/tmp", &place).unwrap();
        let Err(SetupError::Step { step, error, .. }) = bench.try_run(&spec) else { panic!("{name}: it ran") };
        assert!(step.contains(step_word), "{name}: {step}");
        assert!(
            matches!(error.raw_os_error(), Some(libc::ELOOP | libc::ENOTDIR | libc::ENOENT | libc::EINVAL)),
            "{name}: {error}"
        );
        fs::remove_file(&place).unwrap();
    }
}

#[test]
fn e17_a_relative_or_climbing_target_is_never_above_the_root() {
    let Some(bench) = bench_of(FILES) else { return };
    let marker = marker(&bench);
    for target in ["/../../../../tmp/out", "/nix/store/../../../out", "relative/out"] {
        let mut spec = bench.spec("descriptors", &[&marker]);
        spec.inputs.push(Input { source: bench.path("single"), target: target.into() });
        let Ok(plan) = kiln_sandbox::plan(&spec, &kiln_sandbox::probe()) else { continue };
        match bench.start(&plan, kiln_sandbox::Stdio::Log) {
            Err(SetupError::Step { .. } | SetupError::Source { .. }) => {}
            Err(other) => panic!("{other}"),
            Ok(running) => match running.wait(&mut |_| {}) {
                Err(SetupError::Step { .. }) => {}
                // Then it was inside, and the probe found nothing of the host's.
                other => assert_eq!(other.unwrap().how, How::Exited(0)),
            },
        }
        assert!(!Path::new("/tmp/out").exists() && !Path::new("/out").exists());
    }
    let run = bench.run(&bench.spec("descriptors", &[&marker]));
    assert_eq!(told(&run, "cwd"), "/build");
}
