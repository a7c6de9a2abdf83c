//! The escape suite through kiln: what a hostile build leaves, and who could use it. Names start with the line of
//! `sandbox/tests/escape/table`; what needs no store is tried there.
//!
//! Where the filter already keeps a build from making something, an accomplice on the host makes it in the build's own
//! directory, so that the scan of outputs is tried on its own.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use kiln_tests::ground::{self, Ground};
use kiln_tests::recipe::{self, Made};
use kiln_tests::run::{Kiln, Ran, Running};
use serde_json::Value;

#[path = "../../../sandbox/tests/harness/here.rs"]
mod here;

/// Ends a test here, noted, where no files are prepared.
macro_rules! needs_files {
    ($name:literal) => {
        if !kiln_tests::ground::has_files($name) {
            return;
        }
    };
}

mod archives;
mod others;
mod run;
mod scan;

/// A build that has made its output and waits.
struct Paused {
    running: Running,
    /// kiln's private directory of it.
    private: PathBuf,
    /// The output, in there.
    out: PathBuf,
}

/// Starts a build whose output is a directory with `file` in it and what `script` does, and stops it at its end.
fn paused(kiln: &Kiln, script: &str, options: &[&str]) -> Paused {
    let mark = format!("mark-{}", recipe::nonce());
    let made = Made::new(&format!(
        r#"mkdir "$out"; echo data >"$out/file"; {script}
touch "$out/{mark}"; n=0; while [ ! -e "$out/go" ]; do sleep 0.02; n=$((n+1)); [ $n -lt 3000 ]; done
rm -f "$out/go" "$out/{mark}""#
    ));
    let words = ["build", "--json"].iter().chain(options).map(|word| (*word).into());
    let words: Vec<std::ffi::OsString> = words.chain([made.path().as_os_str().to_owned()]).collect();
    let running = kiln.start(words);
    let found = wait_for("the build did not come to its end", || {
        let private = fs::read_dir(kiln.store().join("tmp")).ok()?.filter_map(|entry| Some(entry.ok()?.path()));
        private.into_iter().find_map(|private| {
            let outputs = fs::read_dir(private.join("store")).ok()?;
            let out = outputs.filter_map(|entry| Some(entry.ok()?.path())).find(|out| out.join(&mark).exists())?;
            Some((private, out))
        })
    });
    // The recipe has been read; the directory may go.
    Paused { running, private: found.0, out: found.1 }
}

impl Paused {
    /// Lets it end.
    fn go(self) -> Ran {
        fs::write(self.out.join("go"), "").unwrap();
        self.running.end()
    }
}

#[track_caller]
fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn only(ran: &Ran) -> Value {
    ran.json()["builds"][0].clone()
}

fn message(outcome: &Value) -> &str {
    outcome["failure"]["message"].as_str().unwrap_or_else(|| panic!("no failure in {outcome:#}"))
}

/// Where an output lies in the store.
fn stored(kiln: &Kiln, outcome: &Value, output: &str) -> PathBuf {
    let path = outcome["outputs"][output]["path"].as_str().unwrap_or_else(|| panic!("no {output} in {outcome:#}"));
    kiln.store().join(path.trim_start_matches('/'))
}

/// Lets an accomplice change the output between the script's end and the scan, as if the filter had a hole.
fn with_accomplice(change: impl FnOnce(&Path)) -> (Kiln, Ran, Value) {
    let kiln = Kiln::warm();
    let paused = paused(&kiln, r#"mkdir "$out/dir""#, &[]);
    change(&paused.out);
    let ran = paused.go();
    let outcome = only(&ran);
    (kiln, ran, outcome)
}

/// A directory of the host's that nothing may change.
struct Canary {
    dir: tempfile::TempDir,
    before: Vec<String>,
}

impl Canary {
    fn new() -> Self {
        let dir = ground::directory(Ground::Disk);
        fs::create_dir(dir.path().join("inner")).unwrap();
        fs::set_permissions(dir.path().join("inner"), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(dir.path().join("inner/file"), "the host's\n").unwrap();
        fs::write(dir.path().join("file"), "the host's\n").unwrap();
        let before = Self::look(dir.path());
        Self { dir, before }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn look(dir: &Path) -> Vec<String> {
        let tell = |name: &str| {
            let stat = fs::symlink_metadata(dir.join(name)).map_err(|error| error.kind());
            let stat = stat.map(|s| (s.ino(), s.mode(), s.uid(), s.gid(), s.size(), s.mtime(), s.mtime_nsec()));
            format!("{name} {stat:?} {:?}", fs::read(dir.join(name)).ok())
        };
        ["", "inner", "inner/file", "file"].map(tell).to_vec()
    }

    #[track_caller]
    fn untouched(&self) {
        assert_eq!(Self::look(self.path()), self.before);
    }
}
