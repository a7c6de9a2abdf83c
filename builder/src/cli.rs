//! The command line: one file per subcommand, each its arguments and a short `run` that calls the library.
//!
//! stdout is data, stderr is talk. Every `run` returns the exit code of its result, or a [`Failure`] whose kind has one.

mod affected;
mod attest;
mod build;
mod campaign;
mod capsule;
mod check;
mod compare;
mod completions;
mod derivation;
mod doctor;
mod evidence;
mod exchange;
mod gate;
mod installed;
mod judged;
mod judging;
mod key;
mod keyring;
mod lock;
mod log;
mod man;
mod nar;
mod policy;
mod progress;
mod publish;
mod rebuild;
mod rules;
mod sandbox;
mod sbom;
mod serve;
mod session;
mod shell;
mod store;
mod substitution;
mod tlog;
mod verify;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use kiln_sandbox::{Launcher, SetupError};

use crate::exit::Kind;
use crate::interrupt;

pub use session::Session;

const AFTER_HELP: &str = "\
Exit codes:
  0    yes: built, reproduced, verified
  1    no: diverged, upstream differs, policy denies (equivalent too, unless accepted)
  2    bad input: usage, recipe, lock, malformed file
  3    this host cannot isolate (says what is missing and how to get it)
  4    inconclusive: too little evidence, reference unavailable
  5    the build itself failed, or ran into its deadline or a limit
  6    tampered: a digest, signature or proof does not hold
  7    the host or the network failed
  70   a bug in kiln
  130  interrupted";

/// Columns of help at most.
const WIDTH: usize = 100;

/// Builds recipes in sealed sandboxes from pinned inputs, builds them again, and says why bytes differ.
#[derive(Debug, Parser)]
#[command(name = "kiln", version, after_help = AFTER_HELP, max_term_width = WIDTH)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
    /// The launcher of `kiln sandbox`, if it was forked off before the command line was read.
    #[arg(skip)]
    launcher: Option<Result<Launcher, SetupError>>,
}

/// Options of every command.
#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Store directory [default: $XDG_DATA_HOME/kiln]
    #[arg(long, global = true, env = "KILN_STORE", value_name = "DIR")]
    store: Option<PathBuf>,
    /// Print one JSON document on stdout
    #[arg(long, global = true)]
    json: bool,
    /// Open no socket: use the cache and offline directories only
    #[arg(long, global = true)]
    offline: bool,
    /// Say nothing on stderr but errors
    #[arg(long, short, global = true, conflicts_with = "verbose")]
    quiet: bool,
    /// Say more: show the build's log as it is written
    #[arg(long, short, global = true)]
    verbose: bool,
    /// When to colour
    #[arg(long, global = true, value_enum, default_value_t, value_name = "WHEN")]
    color: Color,
    /// Read the bytes of inputs before use instead of trusting their recorded fingerprints
    #[arg(long, global = true)]
    paranoid: bool,
}

/// When to colour.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Color {
    /// On a terminal.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Pin a recipe's inputs and environment to digests
    Lock(lock::Lock),
    /// Build recipes in the sandbox, or take what is already built from the store
    Build(build::Build),
    /// Build twice under varied conditions and compare every byte
    Check(check::Check),
    /// Build what was published again from its source, and hold it against the real thing
    Rebuild(Box<rebuild::Rebuild>),
    Compare(compare::Compare),
    Attest(Box<attest::Attest>),
    /// Show the log of a build
    Log(log::Log),
    /// Enter a recipe's environment, or what a failed build left
    Shell(shell::Shell),
    // Without a line here the help is the command's own, whole.
    Sandbox(Box<sandbox::Sandbox>),
    Doctor(doctor::Doctor),
    /// Look at and tend the store
    Store(store::StoreCommand),
    /// Publish evidence in a transparency log, or paths as a binary cache that Nix substitutes from
    Publish(Box<publish::Publish>),
    /// Check, watch and cosign transparency logs
    Tlog(tlog::TlogCommand),
    /// Fetch evidence of others
    Evidence(evidence::EvidenceCommand),
    Key(key::KeyCommand),
    Sbom(sbom::SbomCommand),
    Affected(affected::AffectedCommand),
    Capsule(capsule::CapsuleCommand),
    Verify(Box<verify::Verify>),
    Gate(gate::GateCommand),
    /// Check policies of `kiln verify`, and write a first one
    Policy(policy::PolicyCommand),
    /// Answer others from the store
    Serve(serve::Serve),
    /// Show derivations, add them to the store
    Derivation(derivation::DerivationCommand),
    /// Make, unpack and look into archives
    Nar(nar::NarCommand),
    /// Print shell completions
    Completions(completions::Completions),
    /// Write man pages
    Man(man::Man),
}

/// An error with the one thing that decides the exit code.
#[derive(Debug)]
pub struct Failure {
    /// What sort of error it is.
    pub kind: Kind,
    /// The chain, outermost act first.
    pub error: anyhow::Error,
}

impl Failure {
    /// An error of `kind`.
    pub fn new(kind: Kind, error: impl Into<anyhow::Error>) -> Self {
        Self { kind, error: error.into() }
    }
}

/// Turns a library error into a failure: its own kind, its own chain.
macro_rules! failures {
    ($($error:ty),+ $(,)?) => {
        $(impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Self::new(error.kind(), error)
            }
        })+
    };
}

failures! {
    crate::build::BuildError,
    crate::build::graph::GraphError,
    crate::campaign::CampaignError,
    crate::campaign::request::RequestError,
    crate::capsule::CapsuleError,
    crate::config::ConfigError,
    crate::diff::DiffError,
    crate::evidence::ArtifactError,
    crate::evidence::EvidenceError,
    crate::evidence::KeysError,
    crate::evidence::PinsError,
    crate::fetch::FetchError,
    crate::installed::InstalledError,
    crate::nix::CacheError,
    crate::nix::DerivationsError,
    crate::nix::ExchangeError,
    crate::nix::RecipesError,
    crate::nix::UnpackError,
    crate::pin::PinError,
    crate::publish::PublishError,
    crate::rebuild::CheckError,
    crate::rebuild::rebuilding::RebuildError,
    crate::recipe_dir::RecipeDirError,
    crate::sbom::SbomError,
    crate::sign::SignError,
    crate::store::StoreError,
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::new(Kind::Host, error)
    }
}

/// Reads a command line.
///
/// `kiln sandbox` is to start in the time that bubblewrap takes, and a tenth of that goes into describing all other
/// commands: where it comes first, it is the only one that is described. Its launcher is forked off even before that, while
/// there is little memory to copy, and gets ready meanwhile.
pub fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Cli, clap::Error> {
    let arguments: Vec<OsString> = arguments.collect();
    let is_sandbox = arguments.get(1).is_some_and(|word| word == sandbox::NAME);
    let launcher = is_sandbox.then(Launcher::fork);
    let commands = if is_sandbox { sandbox_alone() } else { Cli::command() };
    // Every rule is clap's own: what matched can be taken.
    let cli = Cli::from_arg_matches(&commands.try_get_matches_from(arguments)?)?;
    Ok(Cli { launcher, ..cli })
}

/// kiln's command line with no other command but `sandbox`.
fn sandbox_alone() -> clap::Command {
    let kiln =
        clap::Command::new("kiln").version(env!("CARGO_PKG_VERSION")).after_help(AFTER_HELP).max_term_width(WIDTH);
    Global::augment_args(kiln)
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(sandbox::Sandbox::augment_args(clap::Command::new(sandbox::NAME)))
}

/// Runs the command line `cli` and returns its exit code.
pub fn run(cli: Cli) -> Result<u8, Failure> {
    // Its launcher is forked off before there is a second thread.
    if !matches!(cli.command, Command::Sandbox(_)) {
        interrupt::listen();
    }
    match cli.global.color {
        Color::Auto => {}
        Color::Always => anstream::ColorChoice::Always.write_global(),
        Color::Never => anstream::ColorChoice::Never.write_global(),
    }
    let session = Session::new(cli.global);
    let code = match cli.command {
        Command::Lock(command) => command.run(&session),
        Command::Build(command) => command.run(&session),
        Command::Check(command) => command.run(&session),
        Command::Rebuild(command) => command.run(&session),
        Command::Compare(command) => command.run(&session),
        Command::Attest(command) => command.run(&session),
        Command::Log(command) => command.run(&session),
        Command::Shell(command) => command.run(&session),
        Command::Sandbox(command) => command.run(&session, cli.launcher.unwrap_or_else(Launcher::fork)),
        Command::Doctor(command) => command.run(&session),
        Command::Store(command) => command.run(&session),
        Command::Publish(command) => command.run(&session),
        Command::Tlog(command) => command.run(&session),
        Command::Evidence(command) => command.run(&session),
        Command::Key(command) => command.run(&session),
        Command::Sbom(command) => command.run(&session),
        Command::Affected(command) => command.run(&session),
        Command::Capsule(command) => command.run(&session),
        Command::Verify(command) => command.run(&session),
        Command::Gate(command) => command.run(&session),
        Command::Policy(command) => command.run(&session),
        Command::Serve(command) => command.run(&session),
        Command::Derivation(command) => command.run(&session),
        Command::Nar(command) => command.run(&session),
        Command::Completions(command) => command.run(),
        Command::Man(command) => command.run(),
    }?;
    session.sync()?;
    Ok(code)
}

/// A failure as it is shown: `error:` and the chain, one act per level.
pub fn told(failure: &Failure) -> String {
    let mut text = String::from("\u{1b}[1;31merror:\u{1b}[0m ");
    for (level, cause) in failure.error.chain().enumerate() {
        if level > 0 {
            text.push_str(": ");
        }
        text.push_str(&cause.to_string());
    }
    if failure.kind == Kind::Bug {
        text.push_str("\nThis is a bug in kiln: please report it with the command that you ran.");
    }
    text
}
