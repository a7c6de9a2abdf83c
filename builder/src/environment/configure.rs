//! What is run inside a tree so that its packages become configured: `preinst` scripts, then `dpkg --configure`.
//!
//! Pure: it says which programs in which order with which variables, and [`Inside`] runs them. All variables are here;
//! nothing of the caller's environment gets in, since one `TMPDIR` is enough to make a script fail.

use std::ffi::OsString;
use std::path::Path;

use super::EnvironmentError;
use super::unpack::Unpacked;

/// A program to be run inside a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// What it does and to which package, for errors.
    pub act: String,
    /// Absolute path inside.
    pub program: String,
    /// Its arguments, without the program's name.
    pub arguments: Vec<String>,
    /// `KEY=VALUE`.
    pub variables: Vec<OsString>,
}

/// Runs programs of a tree as its pretended root, sealed off.
pub trait Inside {
    /// Runs the calls in order and stops at the first that does not exit with 0, which is the error. Afterwards no
    /// process is left, and the tree belongs to the caller again. Not idempotent: what a call did before it failed stays.
    fn run(&self, tree: &Path, calls: &[Call]) -> Result<(), EnvironmentError>;
}

/// When things happened, as far as the scripts can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Epoch(pub(super) i64);

/// `preinst install` of the packages that have one.
pub(super) fn preinsts(packages: &[Unpacked], epoch: Epoch) -> Vec<Call> {
    let with_script = packages.iter().filter(|package| package.control.contains_key("preinst"));
    with_script
        .map(|package| {
            let name = package.paragraph.name();
            let mut call = Call {
                act: format!("preinst of package {name}"),
                program: format!("/var/lib/dpkg/info/{}.preinst", package.paragraph.info_name()),
                arguments: vec!["install".into()],
                variables: variables(epoch),
            };
            // dpkg(1), ENVIRONMENT: what dpkg would set.
            let architecture = package.paragraph.field("architecture").unwrap_or_default();
            call.variables.extend([
                "DPKG_MAINTSCRIPT_NAME=preinst".into(),
                format!("DPKG_MAINTSCRIPT_PACKAGE={name}").into(),
                format!("DPKG_MAINTSCRIPT_ARCH={architecture}").into(),
                "DPKG_MAINTSCRIPT_PACKAGE_REFCOUNT=1".into(),
                "DPKG_ADMINDIR=/var/lib/dpkg".into(),
                "DPKG_ROOT=".into(),
            ]);
            call
        })
        .collect()
}

/// Configuring all packages.
pub(super) fn configure(packages: &[Unpacked], epoch: Epoch) -> Vec<Call> {
    let dpkg = |act: &str, arguments: &[&str]| Call {
        act: act.into(),
        program: "/usr/bin/dpkg".into(),
        arguments: arguments.iter().map(|argument| (*argument).to_owned()).collect(),
        variables: variables(epoch),
    };
    let mut calls = Vec::new();
    // Other scripts change owners by name, and base-passwd, which makes the names, depends on none of them.
    if packages.iter().any(|package| package.paragraph.name() == "base-passwd") {
        calls.push(dpkg("configuring package base-passwd", &["--force-depends", "--configure", "base-passwd"]));
    }
    calls.push(dpkg("configuring packages", &["--configure", "--pending"]));
    calls
}

fn variables(Epoch(seconds): Epoch) -> Vec<OsString> {
    vec![
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into(),
        "HOME=/root".into(),
        "LC_ALL=C.UTF-8".into(),
        "TZ=UTC".into(),
        "DEBIAN_FRONTEND=noninteractive".into(),
        "DEBCONF_NONINTERACTIVE_SEEN=true".into(),
        // Python's byte code: sets are written in hash order, Perl's hashes are walked in it.
        "PYTHONHASHSEED=0".into(),
        "PERL_HASH_SEED=0".into(),
        "PERL_PERTURB_KEYS=0".into(),
        format!("SOURCE_DATE_EPOCH={seconds}").into(),
        // TeX writes the date into its formats and logs, and takes that one only if told to (texmfmp.c).
        "FORCE_SOURCE_DATE=1".into(),
    ]
}
