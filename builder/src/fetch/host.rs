//! What the fetcher reads of the host: variables, files below a root, and the answers of the clients' own programs.
//!
//! A value, so that tests hand in another host than the one they run on.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The most that is read of a client's settings or of its program's answer.
const MOST: u64 = 4 << 20;

/// The host whose clients' settings are honoured.
pub struct Host {
    variables: BTreeMap<String, String>,
    root: PathBuf,
    ask: Ask,
}

/// Runs a program and returns what it prints, or nothing if it cannot be run or fails.
type Ask = Box<dyn Fn(&[&str]) -> Option<String> + Send + Sync>;

impl Host {
    /// The host this process runs on.
    pub fn current() -> Self {
        let variables = std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)));
        Self { variables: variables.collect(), root: "/".into(), ask: Box::new(run) }
    }

    /// A host that is told: its variables, the directory that stands for `/`, and what its programs answer.
    pub fn told(
        variables: BTreeMap<String, String>,
        root: PathBuf,
        ask: impl Fn(&[&str]) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        Self { variables, root, ask: Box::new(ask) }
    }

    /// A variable that is set and not empty.
    pub fn variable(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// The user's home directory.
    pub fn home(&self) -> Option<PathBuf> {
        self.variable("HOME").map(PathBuf::from)
    }

    /// `$XDG_CONFIG_HOME`, or its default.
    pub fn user_settings(&self) -> Option<PathBuf> {
        let named = self.variable("XDG_CONFIG_HOME").map(PathBuf::from).filter(|p| p.is_absolute());
        named.or_else(|| Some(self.home()?.join(".config")))
    }

    /// A path of the host's own, such as `etc/pip.conf`.
    pub fn rooted(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    pub(super) fn ask(&self, command: &[&str]) -> Option<String> {
        (self.ask)(command)
    }
}

/// A file's text, if it is there, readable and of a sensible size. Bytes that are not UTF-8 become replacement characters:
/// only comments have them in practice, and a mangled address merely fails.
pub(super) fn text_of(path: &Path) -> Option<String> {
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).ok()?;
    file.metadata().ok()?.is_file().then_some(())?;
    file.take(MOST).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

fn run(command: &[&str]) -> Option<String> {
    let (program, arguments) = command.split_first()?;
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .current_dir("/") // an interpreter must not import what lies where kiln was started
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    String::from_utf8(output.stdout).ok()
}
