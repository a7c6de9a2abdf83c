//! recipe + lock → derivation.
//!
//! The environment and the sources are content-addressed store paths among the derivation's sources: no address, mirror
//! or version of kiln enters a package's identity. The derivation runs under any Nix too: its builder is the
//! environment's own dynamic loader, which runs the environment's perl, which makes a user and a mount namespace, binds what
//! Nix offers into the environment, and runs the script there as uid 1000 and gid 100. [`entered`] recognises exactly this form, so that
//! kiln's sandbox can mount the environment as `/` itself and run the script without the detour.

use std::collections::{BTreeMap, BTreeSet};

use crate::derivation::{Closed, Derivation, DerivationError, Modulo, Output, Parts};
use crate::lock::{Lock, LockedInput};
use crate::name::{self, Name, Variable};
use crate::recipe::{Accounts, Input, Recipe};
use crate::store_path::StorePath;

/// Where the sandbox's shell finds programs, unless the recipe says otherwise.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The locale of a build, unless the recipe says otherwise. Every glibc has it.
pub const LOCALE: &str = "C.UTF-8";

/// Run by the environment's perl under Nix, with the environment and the script as its arguments. Of the packages that every
/// Debian has, only perl makes system calls by number: mount(8) is not among them, and unshare(1) binds nothing. The
/// numbers are x86-64's: 272 unshare(2) with `CLONE_NEWUSER | CLONE_NEWNS`, 165 mount(2) with `MS_BIND | MS_REC`, recursive
/// because mounts that a less privileged namespace inherits cannot be bound without what lies on them. perl must
/// be able to write to a string that it passes, so none is a literal. `/var/tmp` is a file system in memory of its own, as in kiln's
/// sandbox: programs' own tests write to it. The capabilities of the new namespace end with `exec`, as the
/// user in it is not 0 (capabilities(7)).
const ENTER: &str = r#"my ($root, $script) = @ARGV;
my ($uid, $gid) = ($>, 0 + $));
sub call { my $number = shift; syscall($number, @_) == 0 or die "entering $root: system call $number: $!\n" }
sub set {
  open(my $file, ">", "/proc/self/$_[0]") or die "entering $root: $_[0]: $!\n";
  print $file $_[1];
  close $file or die "entering $root: $_[0]: $!\n";
}
call(272, 0x10020000);
set("setgroups", "deny");
set("uid_map", "1000 $uid 1");
set("gid_map", "100 $gid 1");
for my $path (qw(/nix/store /build /proc /dev /tmp /etc/passwd /etc/group /etc/hosts)) {
  my ($from, $to) = ("$path", "$root$path");
  call(165, $from, $to, 0, 0x5000, 0);
}
my ($type, $to, $mode) = ("tmpfs", "$root/var/tmp", "mode=1777");
call(165, $type, $to, $type, 0, $mode);
chroot $root and chdir $ENV{NIX_BUILD_TOP} or die "entering $root: $!\n";
exec "/bin/sh", "-e", "-c", $script or die "entering $root: /bin/sh: $!\n";
"#;

/// What [`ENTER`] has in place of `/etc/passwd /etc/group` among what it binds, and before it, for a build that sees the
/// environment's own users and groups: each file is merged as [`Accounts::merged`] does it, and gone from the build's directory
/// before the build begins.
const MERGE: &str = r#"for my $path (qw(/etc/passwd /etc/group)) {
  my %seen;
  my $merged = "$ENV{NIX_BUILD_TOP}/.accounts";
  open(my $file, ">", $merged) or die "entering $root: $merged: $!\n";
  for my $from ("$root$path", $path) {
    open(my $lines, "<", $from) or die "entering $root: $from: $!\n";
    while (my $line = <$lines>) {
      chomp $line;
      print $file "$line\n" unless $line eq "" or $seen{(split /:/, $line, 2)[0]}++;
    }
  }
  close $file or die "entering $root: $merged: $!\n";
  chmod 0444, $merged;
  my ($from, $to) = ("$merged", "$root$path");
  call(165, $from, $to, 0, 0x1000, 0);
  unlink $merged;
}
"#;

/// An output of another recipe that this one has as an input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Built {
    /// The derivation that makes it.
    pub derivation: StorePath,
    /// Which of its outputs.
    pub output: Variable,
    /// Where that output will be.
    pub path: StorePath,
}

/// A recipe closed into one build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lowered {
    /// What is built; its path is the build's id.
    pub closed: Closed,
    /// Where its outputs will be.
    pub outputs: BTreeMap<Variable, StorePath>,
    /// Where the script finds its inputs.
    pub inputs: BTreeMap<Variable, StorePath>,
    /// The root file system.
    pub environment: StorePath,
}

/// Why recipe and lock do not make a derivation.
#[derive(Debug, thiserror::Error)]
pub enum LowerError {
    /// The lock has no entry for an input.
    #[error("inputs.{input} is not in the lock: run `kiln lock`")]
    NotLocked {
        /// The input.
        input: Variable,
    },
    /// A recipe input was not built before this one.
    #[error("inputs.{input} names output {output} of another recipe, which has no such output")]
    NoSuchOutput {
        /// The input.
        input: Variable,
        /// The output.
        output: Variable,
    },
    /// An architecture for which the form above is not defined.
    #[error("environment.debian.architecture is {architecture:?}; this kiln builds for \"amd64\"")]
    Architecture {
        /// What the lock says.
        architecture: String,
    },
    /// Nix's rules refuse the result.
    #[error("making the derivation")]
    Derivation(#[from] DerivationError),
}

/// The name of a locked input's store path.
pub fn input_name(input: &LockedInput) -> Name {
    match input {
        LockedInput::DebianSource { name, version, .. } => name::sanitised(&format!("{name}-{version}")),
        LockedInput::Pypi { project, version, .. } => name::sanitised(&format!("{project}-{version}")),
        LockedInput::Url { files, .. } => {
            name::sanitised(files.first().map_or("url", |f| f.path.rsplit('/').next().unwrap_or(&f.path)))
        }
        LockedInput::Git { rev, .. } => name::sanitised(&format!("git-{}", rev.get(..12).unwrap_or(rev))),
        LockedInput::Path { .. } => name::sanitised("source"),
    }
}

/// The name of a locked environment's store path.
pub fn environment_name(recipe: &Recipe) -> Name {
    let suite = recipe.environment.debian.suites.first().map_or("debian", String::as_str);
    name::sanitised(&format!("{suite}-environment"))
}

/// The derivation of `recipe` under `lock`; `built` has the outputs of other recipes among its inputs, `modulos` what stands
/// for their derivations.
pub fn lower(
    recipe: &Recipe,
    lock: &Lock,
    built: &BTreeMap<Variable, Built>,
    modulos: &BTreeMap<StorePath, Modulo>,
) -> Result<Lowered, LowerError> {
    if lock.environment.architecture != "amd64" {
        return Err(LowerError::Architecture { architecture: lock.environment.architecture.clone() });
    }
    let environment = StorePath::source(&environment_name(recipe), &lock.environment.nar_hash, &BTreeSet::new());
    let mut input_sources = BTreeSet::from([environment.clone()]);
    let mut input_derivations: BTreeMap<StorePath, BTreeSet<Name>> = BTreeMap::new();
    let mut inputs = BTreeMap::new();
    for (variable, input) in &recipe.inputs {
        let path = match input {
            Input::Recipe { output, .. } => {
                let Some(built) = built.get(variable) else {
                    return Err(LowerError::NoSuchOutput { input: variable.clone(), output: output.clone() });
                };
                input_derivations.entry(built.derivation.clone()).or_default().insert((&built.output).into());
                built.path.clone()
            }
            Input::DebianSource { .. }
            | Input::Url { .. }
            | Input::Pypi { .. }
            | Input::Git { .. }
            | Input::Path { .. } => {
                let locked =
                    lock.inputs.get(variable).ok_or_else(|| LowerError::NotLocked { input: variable.clone() })?;
                let path = StorePath::source(&input_name(locked), &locked.nar_hash(), &BTreeSet::new());
                input_sources.insert(path.clone());
                path
            }
        };
        inputs.insert(variable.clone(), path);
    }

    let mut env = BTreeMap::from([("PATH".to_string(), PATH.to_string())]);
    for variable in ["LANG", "LC_ALL"] {
        env.insert(variable.into(), LOCALE.into());
    }
    if let Some(epoch) = recipe.build.source_date_epoch {
        env.insert("SOURCE_DATE_EPOCH".into(), epoch.to_string());
    }
    for (variable, path) in &inputs {
        env.insert(variable.to_string(), path.to_string());
    }
    env.extend(recipe.build.env.clone());

    let name = name::sanitised(&format!("{}-{}", recipe.name, recipe.version));
    let builder = loader(&environment);
    // What Nix's own `derivation` function adds, so that the same attributes make the same bytes there.
    env.insert("name".into(), name.to_string());
    env.insert("system".into(), SYSTEM.into());
    env.insert("builder".into(), builder.clone());
    if recipe.build.outputs.iter().any(|o| o.as_str() != "out") {
        let outputs: Vec<&str> = recipe.build.outputs.iter().map(Variable::as_str).collect();
        env.insert("outputs".into(), outputs.join(" "));
    }
    let parts = Parts {
        name,
        outputs: recipe.build.outputs.iter().map(Name::from).collect(),
        input_derivations,
        input_sources,
        system: SYSTEM.into(),
        builder: builder.into_bytes(),
        arguments: arguments(&environment, recipe.build.accounts, recipe.build.script.as_bytes()),
        environment: env.into_iter().map(|(key, value)| (key.into_bytes(), value.into_bytes())).collect(),
    };
    let closed = Derivation::close(parts, modulos)?;
    let mut outputs = BTreeMap::new();
    for variable in &recipe.build.outputs {
        if let Some(path) = closed.derivation.outputs.get(&Name::from(variable)).and_then(Output::path) {
            outputs.insert(variable.clone(), path.clone());
        }
    }
    Ok(Lowered { closed, outputs, inputs, environment })
}

const SYSTEM: &str = "x86_64-linux";

fn loader(environment: &StorePath) -> String {
    format!("{environment}/lib64/ld-linux-x86-64.so.2")
}

fn arguments(environment: &StorePath, accounts: Accounts, script: &[u8]) -> Vec<Vec<u8>> {
    let enter = match accounts {
        Accounts::Build => ENTER.into(),
        Accounts::Environment => {
            let others = ENTER.replace(" /etc/passwd /etc/group", "");
            others.replace("chroot $root", &format!("{MERGE}chroot $root"))
        }
    };
    let mut arguments = vec!["--library-path".to_string(), format!("{environment}/usr/lib/x86_64-linux-gnu")];
    arguments.extend([format!("{environment}/usr/bin/perl"), "-e".into(), enter, environment.to_string()]);
    arguments.into_iter().map(String::into_bytes).chain([script.to_vec()]).collect()
}

/// What a derivation of a recipe does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entered<'a> {
    /// The environment that it enters.
    pub environment: StorePath,
    /// Whose users and groups have names there.
    pub accounts: Accounts,
    /// The script that it runs there.
    pub script: &'a [u8],
}

/// The environment that `derivation` enters and the script it runs there, if it has exactly the form made here.
pub fn entered(derivation: &Derivation) -> Option<Entered<'_>> {
    let [.., environment, script] = &derivation.arguments[..] else { return None };
    let environment: StorePath = std::str::from_utf8(environment).ok()?.parse().ok()?;
    if derivation.builder != loader(&environment).as_bytes() || !derivation.input_sources.contains(&environment) {
        return None;
    }
    let same = |accounts: &Accounts| derivation.arguments == arguments(&environment, *accounts, script);
    let accounts = [Accounts::Build, Accounts::Environment].into_iter().find(same)?;
    Some(Entered { environment, accounts, script })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::{Digest, NarHash};
    use crate::lock::{LockedEnvironment, SCHEMA};

    fn recipe(script: &str) -> Recipe {
        let text = "schema = 1\nname = \"a\"\nversion = \"1\"\nlicense = \"MIT\"\n[inputs.src]\npath = \".\"\n\
                    [environment]\ndebian = { suite = \"bookworm\" }\n[build]\noutputs = [\"out\", \"dev\"]\nscript = ";
        Recipe::parse(&format!("{text}{}", toml::Value::from(script))).unwrap()
    }

    fn lock(recipe: &Recipe) -> Lock {
        let nar_hash = NarHash::new(Digest::of("tree"));
        let path = LockedInput::Path { path: ".".into(), nar_hash };
        Lock {
            schema: SCHEMA,
            pins: recipe.pins(),
            suites: Vec::new(),
            inputs: BTreeMap::from([("src".parse().unwrap(), path)]),
            environment: LockedEnvironment {
                architecture: "amd64".into(),
                nar_hash,
                base: nar_hash,
                packages: Vec::new(),
            },
        }
    }

    fn lowered(script: &str) -> Lowered {
        let recipe = recipe(script);
        lower(&recipe, &lock(&recipe), &BTreeMap::new(), &BTreeMap::new()).unwrap()
    }

    #[test]
    fn the_id_of_a_lowered_recipe_does_not_move() {
        assert_eq!(lowered("true\n").closed.path.to_string(), "/nix/store/8ns5aavr6mmbcdxs0y9k2ar2akgdhqv9-a-1.drv");
    }

    #[test]
    fn the_form_made_here_is_recognised_and_one_changed_argument_is_not() {
        let mut derivation = lowered("make \"$out\"\n").closed.derivation;
        let Entered { environment, accounts, script } = entered(&derivation).unwrap();
        assert!(environment.name().ends_with("-environment"));
        assert_eq!((accounts, script), (Accounts::Build, &b"make \"$out\"\n"[..]));
        derivation.arguments[3] = b"-we".to_vec();
        assert!(entered(&derivation).is_none());
    }

    #[test]
    fn a_build_that_sees_its_environment_s_users_is_another_and_known_as_such() {
        let mut recipe = recipe("true\n");
        recipe.build.accounts = Accounts::Environment;
        let lowered = lower(&recipe, &lock(&recipe), &BTreeMap::new(), &BTreeMap::new()).unwrap();
        assert_eq!(lowered.closed.path.to_string(), "/nix/store/zl2ymx9sswdm7wxhx5rdwfv2l1z75zay-a-1.drv");
        let entered = entered(&lowered.closed.derivation).unwrap();
        assert_eq!((entered.accounts, entered.script), (Accounts::Environment, &b"true\n"[..]));
        let enter = String::from_utf8(lowered.closed.derivation.arguments[4].clone()).unwrap();
        assert!(enter.contains("qw(/nix/store /build /proc /dev /tmp /etc/hosts)"), "{enter}");
        assert!(enter.contains(".accounts"), "{enter}");
    }

    #[test]
    fn a_changed_script_changes_every_output_path_and_no_input() {
        let (a, b) = (lowered("true"), lowered("false"));
        assert_eq!(a.inputs, b.inputs);
        assert_eq!(a.environment, b.environment);
        for output in a.outputs.keys() {
            assert_ne!(a.outputs[output], b.outputs[output]);
        }
    }

    #[test]
    fn an_input_that_is_not_locked_is_refused() {
        let recipe = recipe("true");
        let mut lock = lock(&recipe);
        lock.inputs.clear();
        let error = lower(&recipe, &lock, &BTreeMap::new(), &BTreeMap::new()).unwrap_err();
        assert!(error.to_string().contains("inputs.src is not in the lock"), "{error}");
    }
}
