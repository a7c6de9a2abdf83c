//! What all of the suite stands on: the probe programs, their judgement, sandboxes in the background, parts not tried.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Output, Stdio as ProcessStdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use kiln_sandbox::{Canceller, Ended, How, Spec, Stdio, plan, probe};

use crate::harness::{Bench, Program, Run, bench, bench_of};
pub(crate) use crate::here::not_here;

pub(crate) const REACH: Program = Program { name: "reach", source: include_str!("reach.c") };
pub(crate) const FILES: Program = Program { name: "files", source: include_str!("files.c") };
pub(crate) const PROCESS: Program = Program { name: "process", source: include_str!("process.c") };
pub(crate) const LIMITS: Program = Program { name: "limits", source: include_str!("limits.c") };
pub(crate) const SURFACE: Program = Program { name: "surface", source: include_str!("surface.c") };

/// Longer than anything here takes on a slow, busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The probe made at least so many attempts, and all of them ended as they must.
#[track_caller]
pub(crate) fn held(run: &Run, at_least: u32) {
    assert_eq!(run.ended.how, How::Exited(0), "\n{}", run.log);
    let attempts: u32 = told(run, "attempts").parse().unwrap();
    assert!(attempts >= at_least, "only {attempts} attempts:\n{}", run.log);
}

/// What the probe said of `key`.
#[track_caller]
pub(crate) fn told<'a>(run: &'a Run, key: &str) -> &'a str {
    let mut lines = run.log.lines();
    let line = lines.find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("nothing of {key} in\n{}", run.log))
}

/// The program outside of any sandbox, in the bench's build directory: the control that its attempts are real ones.
pub(crate) fn outside(bench: &Bench, arguments: &[&str]) -> Output {
    let mut command = Command::new(bench.path("probe"));
    command.arg0("probe").args(arguments).current_dir(bench.path("build")).stdin(ProcessStdio::null());
    command.output().unwrap()
}

/// A word that no other process on this machine has in its command line.
pub(crate) fn mark(name: &str) -> String {
    format!("mark-{name}-{}", std::process::id())
}

/// Polls until `done`.
#[track_caller]
pub(crate) fn within(patience: Duration, what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + patience;
    while !done() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::yield_now();
    }
}

/// A sandbox that goes on running while something else is tried.
pub(crate) struct Background {
    canceller: Canceller,
    log: Arc<(Mutex<String>, Condvar)>,
    thread: JoinHandle<Ended>,
}

impl Background {
    /// Starts it and waits until it has said `word`.
    #[track_caller]
    pub(crate) fn start(bench: &Bench, spec: &Spec, word: &str) -> Self {
        let running = bench.start(&plan(spec, &probe()).unwrap(), Stdio::Log).unwrap();
        let canceller = running.canceller();
        let log: Arc<(Mutex<String>, Condvar)> = Arc::default();
        let shared = Arc::clone(&log);
        let thread = std::thread::spawn(move || {
            let add = &mut |bytes: &[u8]| {
                shared.0.lock().unwrap().push_str(&String::from_utf8_lossy(bytes));
                shared.1.notify_all();
            };
            running.wait(add).unwrap()
        });
        let background = Self { canceller, log, thread };
        background.says(word);
        background
    }

    /// Waits until it has said `word`.
    #[track_caller]
    pub(crate) fn says(&self, word: &str) {
        let log = self.log.0.lock().unwrap();
        let (log, _) = self.log.1.wait_timeout_while(log, PATIENCE, |log| !log.contains(word)).unwrap();
        assert!(log.contains(word), "it did not say {word:?}:\n{log}");
    }

    /// Ends it; what it said.
    pub(crate) fn stop(self) -> String {
        self.canceller.cancel();
        self.end().1
    }

    /// Waits for its end.
    pub(crate) fn end(self) -> (Ended, String) {
        let ended = self.thread.join().unwrap();
        (ended, self.log.0.lock().unwrap().clone())
    }
}

/// Whether the tests run as root.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A kiln of its own, for tests that kill it or start it somewhere else: runs what `KILN_TEST_SPEC` says.
#[test]
#[ignore = "started by other tests"]
fn another_kiln() {
    let words = std::env::var("KILN_TEST_SPEC").unwrap();
    let words: Vec<&str> = words.split(' ').collect();
    let [program, stdio, command, arguments @ ..] = words.as_slice() else { panic!("{words:?}") };
    let program = [REACH, FILES, PROCESS, LIMITS, SURFACE].into_iter().find(|known| known.name == *program);
    let spec = |bench: &Bench| bench.spec(command, arguments);
    if *stdio == "plan" {
        // Only what this place allows.
        match plan(&Spec::new("/probe"), &probe()) {
            Ok(_) => println!("planned"),
            Err(refusal) => println!("refused: {refusal}"),
        }
        return;
    }
    let bench = program.map_or_else(bench, bench_of).unwrap();
    let spec = spec(&bench);
    let stdio = if *stdio == "inherit" { Stdio::Inherit } else { Stdio::Log };
    let running = match bench.start(&plan(&spec, &probe()).unwrap(), stdio) {
        Ok(running) => running,
        Err(error) => return println!("setup: {error:?}"),
    };
    match running.wait(&mut |bytes| std::io::stdout().write_all(bytes).unwrap()) {
        Ok(ended) => println!("ended: {:?}", ended.how),
        Err(error) => println!("setup: {error:?}"),
    }
}

/// The command line of [`another_kiln`], and the variable that tells it what to do.
pub(crate) fn another(spec: &str) -> (Vec<String>, (&'static str, String)) {
    let itself = std::env::current_exe().unwrap().into_os_string().into_string().unwrap();
    let words = [&itself, "--exact", "ground::another_kiln", "--nocapture", "--ignored"].map(String::from);
    (words.to_vec(), ("KILN_TEST_SPEC", spec.to_owned()))
}

/// Starts [`another_kiln`] behind the words of `wrapper`.
pub(crate) fn start_another(wrapper: &[&str], spec: &str) -> Child {
    let (words, variable) = another(spec);
    let words: Vec<&str> = wrapper.iter().copied().chain(words.iter().map(String::as_str)).collect();
    Command::new(words[0])
        .args(&words[1..])
        .envs([variable])
        .stdin(ProcessStdio::null())
        .stdout(ProcessStdio::piped())
        .stderr(ProcessStdio::piped())
        .spawn()
        .unwrap()
}
