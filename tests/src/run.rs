//! Runs commands: kiln with a store, home and environment of its own, and what it said.
//!
//! A command that has not ended after [`DEADLINE`] is killed and the test fails: nothing here waits for ever.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::ground::{self, Ground, StoreDirectory};

/// Longer than any one command of the tests takes on a slow, busy machine.
pub const DEADLINE: Duration = Duration::from_secs(900);

/// kiln, with a store and a home.
#[derive(Debug)]
pub struct Kiln {
    store: PathBuf,
    home: TempDir,
    variables: BTreeMap<String, String>,
    wrapper: Vec<String>,
    offline: Vec<&'static str>,
    _own: Option<StoreDirectory>,
}

/// A command that has ended.
#[derive(Debug)]
pub struct Ran {
    /// How.
    pub status: ExitStatus,
    /// What it wrote to stdout: data.
    pub stdout: String,
    /// What it wrote to stderr: talk.
    pub stderr: String,
    /// How long it took.
    pub took: Duration,
    line: String,
}

/// A command that is running.
#[derive(Debug)]
pub struct Running {
    child: Child,
    stdout: File,
    stderr: File,
    began: Instant,
    line: String,
}

impl Kiln {
    /// With the prepared store, which tests share.
    pub fn warm() -> Self {
        Self::at(&ground::warm(), None)
    }

    /// With an empty store of its own.
    pub fn fresh(ground: Ground) -> Self {
        let own = StoreDirectory::new(ground);
        Self::at(&own.path().join("store"), Some(own))
    }

    /// With the store at `store`.
    pub fn with_store(store: &Path) -> Self {
        Self::at(store, None)
    }

    fn at(store: &Path, own: Option<StoreDirectory>) -> Self {
        let home = ground::directory(Ground::Disk);
        let kiln = Self {
            store: store.into(),
            home,
            variables: BTreeMap::new(),
            wrapper: Vec::new(),
            offline: vec!["--offline"],
            _own: own,
        };
        kiln.mirrors(&[&ground::files().display().to_string()]);
        kiln
    }

    /// Takes files from these mirrors (addresses or directories) and from nowhere else.
    pub fn mirrors(&self, mirrors: &[&str]) {
        let list = serde_json::to_string(mirrors).expect("texts are JSON, and so TOML");
        let archives = ["debian", "debian-security", "pypi", "url"].map(|archive| format!("{archive} = {list}\n"));
        self.configure(&format!("[mirrors]\n{}[fetch]\nclients = []\nattempts = 1\n", archives.concat()));
    }

    /// Replaces kiln's configuration.
    pub fn configure(&self, text: &str) {
        let dir = self.home.path().join(".config/kiln");
        fs::create_dir_all(&dir).expect("the home is ours");
        fs::write(dir.join("config.toml"), text).expect("the home is ours");
    }

    /// Lets kiln open sockets; only for servers on the loopback.
    pub fn online(mut self) -> Self {
        self.offline.clear();
        self
    }

    /// Sets a variable of kiln's own environment, which no build may see.
    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.variables.insert(name.into(), value.into());
        self
    }

    /// Runs kiln through another program: `wrapper … kiln …`.
    pub fn through<S: Into<String>>(mut self, wrapper: impl IntoIterator<Item = S>) -> Self {
        self.wrapper = wrapper.into_iter().map(Into::into).collect();
        self
    }

    /// Runs kiln in network namespaces of its own, where not even a loopback is up.
    pub fn cut_off(self) -> Self {
        match nix::unistd::geteuid().is_root() {
            true => self.through(["unshare", "--net"]),
            false => self.through(["unshare", "--user", "--map-current-user", "--net"]),
        }
    }

    /// The store.
    pub fn store(&self) -> &Path {
        &self.store
    }

    /// The home directory.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// The command, not yet started.
    pub fn command<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        let mut words: Vec<std::ffi::OsString> = self.wrapper.iter().map(Into::into).collect();
        words.push(ground::kiln().into());
        words.extend(self.offline.iter().map(Into::into));
        words.extend(arguments.into_iter().map(|a| a.as_ref().to_owned()));
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("HOME", self.home.path()).env("KILN_STORE", &self.store).envs(&self.variables);
        command.current_dir(ground::repository());
        command
    }

    /// Runs it to its end.
    pub fn run<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Ran {
        self.start(arguments).end()
    }

    /// Runs it to its end; it reads the file at `stdin`.
    pub fn run_reading<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>, stdin: &Path) -> Ran {
        let mut command = self.command(arguments);
        command.stdin(File::open(stdin).expect("a file of the test"));
        Running::reading(command).end()
    }

    /// Starts it.
    pub fn start<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Running {
        Running::of(self.command(arguments))
    }

    /// Builds recipes; the outcomes.
    pub fn build(&self, recipes: &[&Path]) -> Vec<Value> {
        let mut arguments: Vec<&OsStr> = vec!["build".as_ref(), "--json".as_ref()];
        arguments.extend(recipes.iter().map(|r| r.as_os_str()));
        let document = self.run(arguments).succeeded().json();
        document["builds"].as_array().expect("builds is a list").clone()
    }

    /// Builds one recipe; its outcome.
    pub fn build_one(&self, recipe: &Path) -> Value {
        let builds = self.build(&[recipe]);
        assert_eq!(builds.len(), 1, "one recipe, one outcome: {builds:#?}");
        builds[0].clone()
    }

    /// The store is whole.
    pub fn verified(&self) {
        self.run(["store", "verify", "--paranoid"]).succeeded();
    }
}

impl Running {
    /// Starts `command` with no stdin, its words kept in files.
    pub fn of(mut command: Command) -> Self {
        command.stdin(Stdio::null());
        Self::reading(command)
    }

    /// The same, with the stdin that it was given.
    pub fn reading(mut command: Command) -> Self {
        let line = format!("{command:?}");
        let [stdout, stderr] = [(); 2].map(|()| tempfile::tempfile().expect("a temporary file"));
        let keep = |f: &File| Stdio::from(f.try_clone().expect("a descriptor can be copied"));
        command.stdout(keep(&stdout)).stderr(keep(&stderr));
        let child = command.spawn().unwrap_or_else(|e| panic!("{line}: {e}"));
        Self { child, stdout, stderr, began: Instant::now(), line }
    }

    /// Its process id.
    pub fn pid(&self) -> nix::unistd::Pid {
        nix::unistd::Pid::from_raw(self.child.id().cast_signed())
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> bool {
        self.child.try_wait().expect("our own child").is_none()
    }

    /// Waits for its end.
    pub fn end(mut self) -> Ran {
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("our own child") {
                break status;
            }
            if self.began.elapsed() > DEADLINE {
                self.child.kill().expect("our own child");
                self.child.wait().expect("our own child");
                panic!("{} did not end within {DEADLINE:?}\n{}", self.line, whole(&mut self.stderr));
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        Ran {
            status,
            took: self.began.elapsed(),
            stdout: whole(&mut self.stdout),
            stderr: whole(&mut self.stderr),
            line: self.line,
        }
    }
}

fn whole(file: &mut File) -> String {
    use std::io::{Seek as _, SeekFrom};
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0)).and_then(|_| file.read_to_end(&mut bytes)).expect("our own file");
    String::from_utf8_lossy(&bytes).into_owned()
}

impl Ran {
    /// Runs `command` to its end, with the stdin that it has.
    pub fn of(mut command: Command) -> Self {
        let (line, began) = (format!("{command:?}"), Instant::now());
        let output = command.output().unwrap_or_else(|e| panic!("{line}: {e}"));
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let (stdout, stderr) = (text(output.stdout), text(output.stderr));
        Self { status: output.status, stdout, stderr, took: began.elapsed(), line }
    }

    /// The exit code; a death by a signal has none.
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// It ended with 0.
    #[track_caller]
    pub fn succeeded(self) -> Self {
        self.exits(0)
    }

    /// It ended with `code`.
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(
            self.code(),
            Some(code),
            "{}\nsignal {:?}\nstdout:\n{}\nstderr:\n{}",
            self.line,
            self.status.signal(),
            self.stdout,
            self.stderr
        );
        self
    }

    /// It said `words` on stderr, each of them, in any order.
    #[track_caller]
    pub fn says(self, words: &[&str]) -> Self {
        for word in words {
            assert!(self.stderr.contains(word), "{}\nsaid nothing of {word:?}:\n{}", self.line, self.stderr);
        }
        self
    }

    /// The one JSON document on stdout.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|e| panic!("{}\nnot one JSON document: {e}\n{}\n{}", self.line, self.stdout, self.stderr))
    }
}
