//! `kiln sandbox`: one command in a sandbox, for people who know bubblewrap.

use std::ffi::OsString;
use std::fs::File;
use std::io::Write as _;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use kiln_sandbox::{Ended, How, Ids, Launcher, Limits, ProcMode, SetupError};
use serde_json::json;

use super::{Failure, Session};
use crate::build::graph::Origin;
use crate::command::{CommandError, Mount, Output, Request, What};
use crate::exit::{self, Kind};
use crate::interrupt;

mod value;

use value::{duration, octal, size, tmpfs};

/// What the command is called.
pub(super) const NAME: &str = "sandbox";

/// Bytes of a tmpfs whose size is not given.
const TMPFS: u64 = 2 << 30;

const AFTER_HELP: &str = "\
Exit codes: the command's own, or 128 plus the number of the signal that ended it, or
  2    the command was not run: usage, a path that is not there, a command that is not in the root
  3    the command was not run: this host cannot do what is asked; see `kiln doctor`
  5    the command ran into its deadline or a limit
  7    the command was not run: a file of kiln's own could not be made
  130  interrupted
A command may exit with these numbers, too. --result FILE tells them apart: there `started` is
true if and only if the command ran.

Examples:
  kiln sandbox --host-root -- sh -c 'id; ls /'
  kiln sandbox --ro-bind /usr /usr --symlink usr/lib /lib --symlink usr/lib64 /lib64 --symlink usr/bin /bin \\
      --ro-bind . /src --bind out /out --chdir /src -- make DESTDIR=/out install
  kiln sandbox --environment recipes/hello --memory 1G --deadline 5m -- gcc --version";

/// Run one command in a sandbox that shows nothing of the host but what you name.
///
/// By default the root is empty and read-only, there are no variables but PATH, no network but a loopback of its own, one
/// user (uid 1000) who is never root outside, fixed names and clocks, and the calls that lead out are refused. stdin,
/// stdout and stderr are the caller's. Run as root, the command is a user of the host that owns nothing there.
///
/// Options of bubblewrap that ask for what is always so (--unshare-all, --die-with-parent, --new-session, --clearenv, --dev
/// /dev, --cap-drop ALL) are accepted.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Sandbox {
    /// Write how it ended as JSON to this file, which may be a descriptor: /dev/fd/N
    #[arg(long, value_name = "FILE")]
    result: Option<PathBuf>,
    #[command(flatten)]
    files: Files,
    #[command(flatten)]
    process: Process,
    #[command(flatten)]
    bounds: Bounds,
    #[command(flatten)]
    always: Always,
    /// The command, by its path inside or its name in PATH, and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "CMD")]
    command: Vec<OsString>,
}

/// What is there.
#[derive(Debug, Args)]
#[command(next_help_heading = "Files")]
struct Files {
    /// The host's files as root, read-only, but /dev, /proc, /run, /sys and /tmp are the sandbox's own
    #[arg(long)]
    host_root: bool,
    /// The locked environment of this recipe as root, read-only
    #[arg(long, value_name = "RECIPE", conflicts_with = "host_root")]
    environment: Option<PathBuf>,
    /// A directory or file of the host, read-only; at / it is the root. A symlink stays one
    #[arg(long, visible_alias = "input", num_args = 2, value_names = ["SRC", "DEST"])]
    ro_bind: Vec<PathBuf>,
    /// A directory of the host that the command may change. As root it must be root's own, with all in it
    #[arg(long, num_args = 2, value_names = ["SRC", "DEST"])]
    bind: Vec<PathBuf>,
    /// A fresh file system in memory, such as /var/tmp:64M [default size: 2G]; /tmp and /dev/shm are always there
    #[arg(long, value_name = "DEST[:SIZE]", value_parser = tmpfs)]
    tmpfs: Vec<Mount>,
    /// A symlink at DEST that says TEXT
    #[arg(long, num_args = 2, value_names = ["TEXT", "DEST"])]
    symlink: Vec<PathBuf>,
    /// How much of /proc there is
    #[arg(long, value_enum, default_value_t, value_name = "MODE")]
    proc: Proc,
}

/// How much of /proc there is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Proc {
    /// Processes only.
    Strict,
    /// Full; what tells of the host is masked, fixed or read-only.
    #[default]
    #[value(alias = "/proc")]
    Compat,
    /// None.
    None,
}

/// What the process is.
#[derive(Debug, Args)]
#[command(next_help_heading = "Process")]
struct Process {
    /// A variable for the command
    #[arg(long, num_args = 2, value_names = ["NAME", "VALUE"], allow_hyphen_values = true)]
    setenv: Vec<OsString>,
    /// Working directory inside
    #[arg(long, default_value = "/", value_name = "DIR")]
    chdir: PathBuf,
    /// The host's name inside
    #[arg(long, default_value = "localhost", value_name = "NAME")]
    hostname: String,
    /// User id inside
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    uid: u32,
    /// Group id inside
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    gid: u32,
    /// Be root inside, as far as installing packages needs it; changes of owner are only pretended
    #[arg(long, conflicts_with_all = ["uid", "gid"])]
    fake_root: bool,
    /// Be root inside over 65536 users that are really distinct, from /etc/subuid and /etc/subgid; what they leave in --bind
    /// directories is yours afterwards
    #[arg(long, conflicts_with_all = ["uid", "gid", "fake_root"])]
    uid_range: bool,
    /// File mode creation mask
    #[arg(long, default_value = "022", value_parser = octal, value_name = "MASK")]
    umask: u32,
    /// What it can reach
    #[arg(long, value_enum, default_value_t, value_name = "NET")]
    network: Network,
    /// Show the host's uptime instead of a fixed one
    #[arg(long)]
    host_clocks: bool,
}

/// What it can reach.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Network {
    /// Nothing but an own loopback.
    #[default]
    None,
    /// The caller's: for a command that only fetches what is then held against a digest
    Host,
}

/// Where it must stop.
#[derive(Debug, Args)]
#[command(next_help_heading = "Limits")]
struct Bounds {
    /// Wall clock: 90, 90s, 5m, 2h
    #[arg(long, value_parser = duration, value_name = "TIME")]
    deadline: Option<Duration>,
    /// CPU time of each process
    #[arg(long, value_parser = duration, value_name = "TIME")]
    cpu_time: Option<Duration>,
    /// Memory of all processes together: 512M, 2G. Refused where no control group can hold it
    #[arg(long, value_parser = size, value_name = "SIZE")]
    memory: Option<NonZeroU64>,
    /// Address space of each process
    #[arg(long, value_parser = size, value_name = "SIZE")]
    address_space: Option<NonZeroU64>,
    /// Processes and threads [default: 4096]
    #[arg(long, value_name = "N")]
    processes: Option<NonZeroU64>,
    /// Open files of each process [default: 4096]
    #[arg(long, value_name = "N")]
    open_files: Option<NonZeroU64>,
    /// Size of each file [default: 64G]
    #[arg(long, value_parser = size, value_name = "SIZE")]
    file_size: Option<NonZeroU64>,
    /// What writable directories may hold more than at the start
    #[arg(long, value_parser = size, value_name = "SIZE")]
    disk: Option<NonZeroU64>,
}

/// What bubblewrap has to be asked for: accepted for the sake of habits and scripts, since it is always so.
#[derive(Debug, Args)]
struct Always {
    #[arg(long, hide = true)]
    unshare_all: bool,
    #[arg(long, hide = true)]
    unshare_user: bool,
    #[arg(long, hide = true)]
    unshare_pid: bool,
    #[arg(long, hide = true)]
    unshare_net: bool,
    #[arg(long, hide = true)]
    unshare_ipc: bool,
    #[arg(long, hide = true)]
    unshare_uts: bool,
    #[arg(long, hide = true)]
    unshare_cgroup: bool,
    #[arg(long, hide = true)]
    disable_userns: bool,
    #[arg(long, hide = true)]
    die_with_parent: bool,
    #[arg(long, hide = true)]
    new_session: bool,
    #[arg(long, hide = true)]
    clearenv: bool,
    #[arg(long, hide = true, value_parser = ["/dev"])]
    dev: Option<String>,
    #[arg(long, hide = true, value_parser = ["ALL"])]
    cap_drop: Option<String>,
}

impl From<CommandError> for Failure {
    fn from(error: CommandError) -> Self {
        Self::new(error.kind(), error)
    }
}

impl Sandbox {
    pub(super) fn run(self, session: &Session, launcher: Result<Launcher, SetupError>) -> Result<u8, Failure> {
        // Before the command runs: a result that nobody gets is no reason to run it.
        let result = self.result.as_deref().map(open).transpose()?;
        let output = if session.json() { Output::Talk } else { Output::Caller };
        let ended = self.enter(session, launcher, output);
        let document = match &ended {
            Ok(ended) => told(ended),
            Err(failure) => json!({
                "schema": "kiln/sandbox/v1",
                "started": false,
                "exit": failure.kind.code(),
                "error": failure.error.chain().map(ToString::to_string).collect::<Vec<_>>().join(": "),
            }),
        };
        if let Some(mut file) = result {
            file.write_all(crate::render::json(&document).as_bytes())
                .context("writing the result")
                .map_err(|error| Failure { kind: Kind::Host, error })?;
        }
        if session.json() {
            session.print_json(&document)?;
        }
        let ended = ended?;
        match ended.how {
            How::TimedOut => session.say("the command ran into its deadline"),
            How::LimitExceeded(which) => session.say(format!("the command ran into a limit: {}", word(&which))),
            How::Exited(_) | How::Signaled(_) | How::Cancelled => {}
        }
        Ok(code(ended.how))
    }

    fn enter(
        self,
        session: &Session,
        launcher: Result<Launcher, SetupError>,
        output: Output,
    ) -> Result<Ended, Failure> {
        let environment = match &self.files.environment {
            None => None,
            Some(recipe) => {
                interrupt::listen();
                let graph = session.graph(std::slice::from_ref(recipe))?;
                let node = &graph.nodes[graph.wanted[0]];
                let shown = node.shown.display().to_string();
                let Origin::Recipe(locked) = &node.origin else {
                    let error = anyhow::anyhow!("{shown} is no recipe: only a recipe has an environment to enter");
                    return Err(Failure::new(Kind::BadInput, error));
                };
                Some(session.with_builder(|builder| Ok(builder.environment(&shown, &locked.lock)?))?)
            }
        };
        Ok(self.request(environment).run(launcher, output)?)
    }

    fn request(self, environment: Option<PathBuf>) -> Request {
        let Self { files, process, bounds, .. } = self;
        let root = files.host_root.then(|| PathBuf::from("/")).or(environment);
        let mut own = if files.host_root { host_state() } else { Vec::new() };
        let mut mounts: Vec<Mount> =
            root.into_iter().map(|source| Mount { target: "/".into(), what: What::Host(source) }).collect();
        let pairs = |list: &[PathBuf], what: fn(PathBuf) -> What| -> Vec<Mount> {
            let mount = |pair: &[PathBuf]| Mount { target: pair[1].clone(), what: what(pair[0].clone()) };
            list.chunks_exact(2).map(mount).collect()
        };
        mounts.extend(pairs(&files.ro_bind, What::Host));
        mounts.extend(pairs(&files.bind, What::Writable));
        mounts.extend(pairs(&files.symlink, |text| What::Link(text.into_os_string())));
        mounts.extend(files.tmpfs);
        own.retain(|own| !mounts.iter().any(|mount| mount.target == own.target));
        mounts.extend(own);

        let mut request = Request::new(self.command);
        request.mounts = mounts;
        request.env = process.setenv.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect();
        request.cwd = process.chdir;
        request.hostname = process.hostname;
        request.umask = process.umask;
        request.ids = match (process.fake_root, process.uid_range) {
            (true, _) => Ids::FakeRoot,
            (false, true) => Ids::Range,
            (false, false) => Ids::One { uid: process.uid, gid: process.gid },
        };
        request.network = match process.network {
            Network::None => kiln_sandbox::Network::None,
            Network::Host => kiln_sandbox::Network::Host,
        };
        request.proc_mode = match files.proc {
            Proc::Strict => ProcMode::Strict,
            Proc::Compat => ProcMode::Compat,
            Proc::None => ProcMode::None,
        };
        if process.host_clocks {
            request.clocks = None;
        }
        let own = |value: Option<NonZeroU64>, default: Option<u64>| value.map(NonZeroU64::get).or(default);
        let limits = request.limits;
        request.limits = Limits {
            wall: bounds.deadline,
            // RLIMIT_CPU knows whole seconds only.
            cpu: bounds.cpu_time.map(|time| time.as_secs()),
            memory_total: own(bounds.memory, None),
            address_space: own(bounds.address_space, None),
            processes: own(bounds.processes, limits.processes),
            open_files: own(bounds.open_files, limits.open_files),
            file_size: own(bounds.file_size, limits.file_size),
            disk_bytes: own(bounds.disk, limits.disk_bytes),
            ..limits
        };
        request
    }
}

/// Empty places for what of the host is no file: sockets of its services, its hardware.
fn host_state() -> Vec<Mount> {
    let places = ["/run", "/sys"].into_iter().filter(|place| Path::new(place).is_dir());
    places.map(|place| Mount { target: place.into(), what: What::Memory(64 << 20) }).collect()
}

fn code(how: How) -> u8 {
    match how {
        How::Exited(code) => code,
        How::Signaled(signal) => 128u8.saturating_add(u8::try_from(signal).unwrap_or(u8::MAX)),
        How::TimedOut | How::LimitExceeded(_) => exit::BUILD_FAILED,
        How::Cancelled => exit::INTERRUPTED,
    }
}

/// How it ended, as a document.
fn told(ended: &Ended) -> serde_json::Value {
    let (how, status, signal, limit) = match ended.how {
        How::Exited(code) => ("exited", Some(code), None, None),
        How::Signaled(signal) => ("signaled", None, Some(signal), None),
        How::TimedOut => ("timed-out", None, None, None),
        How::LimitExceeded(which) => ("limit-exceeded", None, None, Some(word(&which))),
        How::Cancelled => ("cancelled", None, None, None),
    };
    let seconds = |time: Option<Duration>| time.map(|time| time.as_secs_f64());
    json!({
        "schema": "kiln/sandbox/v1",
        "started": true,
        "exit": code(ended.how),
        "how": how,
        "status": status,
        "signal": signal,
        "limit": limit,
        "usage": {
            "wall_seconds": ended.usage.wall.as_secs_f64(),
            "user_seconds": seconds(ended.usage.user),
            "system_seconds": seconds(ended.usage.system),
            "peak_memory": ended.usage.peak_memory,
            "peak_memory_total": ended.usage.peak_memory_total,
        },
        "isolation": ended.achieved,
    })
}

/// The word that a document has for a plain variant.
fn word(value: &impl serde::Serialize) -> String {
    let value = serde_json::to_value(value).unwrap_or_default();
    value.as_str().unwrap_or_default().to_owned()
}

/// In place, since it may be a descriptor of the caller's; what that has already is kept.
fn open(path: &Path) -> Result<File, Failure> {
    let kept = path.starts_with("/dev") || path.starts_with("/proc");
    let opened = File::options().create(true).append(kept).write(true).truncate(!kept).open(path);
    opened
        .with_context(|| format!("opening {} for the result", path.display()))
        .map_err(|error| Failure { kind: Kind::Host, error })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_help_reads_like_this() {
        let kiln = super::super::Cli::command();
        let mut command = kiln.find_subcommand("sandbox").expect("a subcommand").clone().term_width(100);
        insta::assert_snapshot!("sandbox.help", command.render_long_help());
    }

    #[test]
    fn the_command_is_the_same_whether_it_comes_first_or_behind_an_option_of_all_commands() {
        let read = |words: &str| {
            let words = words.split(' ').map(OsString::from);
            match super::super::parse(words) {
                Ok(cli) => format!("{:?}", cli.command),
                Err(error) => format!("{} {}", error.use_stderr(), error.render()),
            }
        };
        for words in [
            "sandbox",
            "sandbox --help",
            "sandbox -h",
            "sandbox --version",
            "sandbox --host-rot x",
            "sandbox --proc half x",
            "sandbox --fake-root --uid 1 x",
            "sandbox --uid 0 x",
            "sandbox --ro-bind /a --chdir /tmp x -h",
            "sandbox --quiet --store /s --tmpfs /t:1M -- x --help",
        ] {
            assert_eq!(read(&format!("kiln {words}")), read(&format!("kiln --color auto {words}")), "{words}");
        }
        assert!(read("kiln sandbox --help").contains("--color <WHEN>"));
    }

    #[test]
    fn a_signal_is_128_and_its_number_and_a_limit_is_5() {
        assert_eq!((code(How::Exited(3)), code(How::Signaled(15)), code(How::TimedOut)), (3, 143, 5));
    }
}
