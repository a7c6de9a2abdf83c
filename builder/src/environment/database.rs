//! dpkg's database, written as `dpkg --unpack` would have left it.
//!
//! After this, `dpkg --configure` finishes the job: `info/` holds lists and scripts, `status` says `install ok unpacked`
//! with the MD5 of each configuration file already in place, or that it waits, and triggers that configured packages wait
//! for are in `triggers/Unincorp`. Formats: deb-triggers(5), dpkg's `doc/spec/triggers.txt`, `lib/dpkg/{dump,trigdeferred}.c`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;
use std::io::Read as _;

use md5::Digest as _;

use super::EnvironmentError;
use super::deb::{ControlFile, Executable};
use super::package::Paragraph;
use super::tree::{Tree, canonical};
use super::unpack::{Installed, Layer, Unpacked};

const DPKG: &str = "var/lib/dpkg";

/// Makes the empty database of a new system.
pub(super) fn create(tree: &Tree) -> Result<(), EnvironmentError> {
    let mut cursor = tree.cursor();
    for directory in ["alternatives", "info", "parts", "triggers", "updates"] {
        let path = format!("{DPKG}/{directory}");
        cursor.make_directory(path.as_bytes()).map_err(|e| EnvironmentError::write(tree, path.as_bytes(), e))?;
    }
    for (name, bytes) in [("status", ""), ("available", ""), ("info/format", "1\n"), ("triggers/File", "")] {
        write(tree, &format!("{DPKG}/{name}"), bytes.as_bytes())?;
    }
    Ok(())
}

/// What is installed in a configured tree.
pub(super) fn read(tree: &Tree) -> Result<Installed, EnvironmentError> {
    let mut installed = Installed::default();
    let status = text(tree, &format!("{DPKG}/status"))?;
    for paragraph in status.split("\n\n").filter(|paragraph| !paragraph.trim().is_empty()) {
        let paragraph = Paragraph::parse(paragraph).map_err(|violation| EnvironmentError::Database {
            path: tree.path().join(DPKG).join("status"),
            violation,
        })?;
        let list = text(tree, &list_path(&paragraph))?;
        let number = installed.packages.len();
        for path in list.lines().filter_map(|line| line.strip_prefix('/')).filter(|path| *path != ".") {
            installed.owners.entry(canonical(path.as_bytes())).or_insert(number);
        }
        installed.packages.push(paragraph);
    }
    let diversions = text(tree, &format!("{DPKG}/diversions"))?;
    let lines: Vec<&str> = diversions.lines().collect();
    for group in lines.chunks_exact(3) {
        let path = |line: &str| canonical(line.trim_start_matches('/').as_bytes());
        installed.diversions.insert(path(group[0]), (path(group[1]), group[2].to_owned()));
    }
    Ok(installed)
}

/// Writes what unpacking `layer` on top of `installed` means.
pub(super) fn record(tree: &Tree, installed: &Installed, layer: &Layer) -> Result<(), EnvironmentError> {
    let mut status = text(tree, &format!("{DPKG}/status"))?;
    if !status.is_empty() && !status.ends_with("\n\n") {
        status.push('\n');
    }
    let mut interests = Interests::read(tree)?;
    // Only what is configured already is told: the others are configured afterwards anyway.
    let listening = interests.clone();
    let mut pending: BTreeSet<String> = BTreeSet::new();
    for package in &layer.packages {
        let paragraph = &package.paragraph;
        let name = paragraph.info_name();
        let empty = BTreeSet::new();
        let lost = layer.lost.get(&name).unwrap_or(&empty);
        for (suffix, file) in &package.control {
            // dpkg takes no list from a package.
            if suffix != "list" {
                let path = format!("{DPKG}/info/{name}.{suffix}");
                tree.write(&path, &file.bytes, file.executable)
                    .map_err(|e| EnvironmentError::write(tree, path.as_bytes(), e))?;
            }
        }
        write(tree, &list_path(paragraph), &list(package, lost))?;
        let conffiles = conffiles(paragraph.name(), &package.control)?;
        if !package.control.contains_key("md5sums") {
            write(tree, &format!("{DPKG}/info/{name}.md5sums"), sums(tree, package, lost, &conffiles)?.as_bytes())?;
        }
        status.push_str(&paragraph.unpacked(&conffile_field(tree, package, lost, &conffiles)?));
        for line in trigger_lines(package)? {
            match line {
                Directive::Interest { trigger, options } => interests.add(&trigger, paragraph.name(), options),
                Directive::Activate { trigger } if listening.has(&trigger) => drop(pending.insert(trigger)),
                Directive::Activate { .. } => {}
            }
        }
        pending.extend(package.paths.iter().flat_map(|path| listening.files_at(path)));
    }
    write(tree, &format!("{DPKG}/status"), status.as_bytes())?;
    for (name, lost) in &layer.lost {
        if installed.packages.iter().any(|paragraph| paragraph.info_name() == *name) {
            let path = format!("{DPKG}/info/{name}.list");
            let kept: String = text(tree, &path)?
                .lines()
                .filter(|line| !lost.contains(&canonical(line.trim_start_matches('/').as_bytes())))
                .flat_map(|line| [line, "\n"])
                .collect();
            write(tree, &path, kept.as_bytes())?;
        }
    }
    interests.write(tree)?;
    // "-": nobody waits. Whether a package waits only decides in which order dpkg calls it configured.
    let unincorporated: String = pending.iter().map(|trigger| format!("{trigger} -\n")).collect();
    write(tree, &format!("{DPKG}/triggers/Unincorp"), unincorporated.as_bytes())
}

/// Refuses a tree in which a package is left half configured or a trigger is pending. dpkg's own `--audit` exits with 0
/// whatever it finds.
pub(super) fn check_configured(tree: &Tree) -> Result<(), EnvironmentError> {
    for package in read(tree)?.packages {
        match package.field("status") {
            Some("install ok installed") => {}
            status => {
                let status = status.unwrap_or("without status");
                let violation =
                    format!("package {} is {status:?} after configuring, not \"install ok installed\"", package.name());
                return Err(EnvironmentError::Database { path: tree.path().join(DPKG).join("status"), violation });
            }
        }
    }
    Ok(())
}

fn list_path(paragraph: &Paragraph) -> String {
    format!("{DPKG}/info/{}.list", paragraph.info_name())
}

fn list(package: &Unpacked, lost: &BTreeSet<Vec<u8>>) -> Vec<u8> {
    let mut list = Vec::new();
    for path in package.paths.iter().filter(|path| !lost.contains(&canonical(path))) {
        list.push(b'/');
        list.extend_from_slice(if path.is_empty() { b"." } else { path });
        list.push(b'\n');
    }
    list
}

/// A configuration file as the package declares it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Conffile {
    Shipped(String),
    /// To be removed on upgrade; not in the archive. deb-conffiles(5)
    Gone(String),
}

/// The configuration files that a package with these control files declares.
pub(super) fn conffiles(
    name: &str,
    control: &BTreeMap<String, ControlFile>,
) -> Result<Vec<Conffile>, EnvironmentError> {
    let lines = control_text(name, control, "conffiles")?;
    let lines = lines.lines().map(str::trim_end).filter(|line| !line.is_empty());
    lines
        .map(|line| match (line.strip_prefix("remove-on-upgrade "), line.starts_with('/')) {
            (Some(path), _) if path.trim_start().starts_with('/') => Ok(Conffile::Gone(path.trim_start().into())),
            (None, true) => Ok(Conffile::Shipped(line.into())),
            _ => Err(broken(name, format!("conffiles: {line:?} is no absolute path"))),
        })
        .collect()
}

fn conffile_field(
    tree: &Tree,
    package: &Unpacked,
    lost: &BTreeSet<Vec<u8>>,
    conffiles: &[Conffile],
) -> Result<String, EnvironmentError> {
    let mut field = String::new();
    for conffile in conffiles {
        if field.is_empty() {
            field.push_str("Conffiles:\n");
        }
        match conffile {
            Conffile::Gone(path) => {
                let _ = writeln!(field, " {path} newconffile remove-on-upgrade");
            }
            Conffile::Shipped(path) => {
                let canonical = canonical(path.trim_start_matches('/').as_bytes());
                if package.waiting.contains(&canonical) {
                    let _ = writeln!(field, " {path} newconffile");
                } else if !lost.contains(&canonical) {
                    let _ = writeln!(field, " {path} {}", md5(tree, &canonical)?);
                }
            }
        }
    }
    Ok(field)
}

/// `md5sums` of a package that brings none: dpkg writes one itself.
fn sums(
    tree: &Tree,
    package: &Unpacked,
    lost: &BTreeSet<Vec<u8>>,
    conffiles: &[Conffile],
) -> Result<String, EnvironmentError> {
    let mut sums = String::new();
    for path in &package.paths {
        let at = canonical(path);
        let shown = String::from_utf8_lossy(path);
        let is_conffile = conffiles.contains(&Conffile::Shipped(format!("/{shown}")));
        if lost.contains(&at) || is_conffile {
            continue;
        }
        if tree.open_file(&at).is_ok() {
            let _ = writeln!(sums, "{}  {shown}", md5(tree, &at)?);
        }
    }
    Ok(sums)
}

fn md5(tree: &Tree, path: &[u8]) -> Result<String, EnvironmentError> {
    let hash = || -> std::io::Result<String> {
        let mut file = tree.open_file(path)?;
        let (mut hasher, mut block) = (md5::Md5::new(), [0; 16 << 10]);
        loop {
            match file.read(&mut block)? {
                0 => return Ok(data_encoding::HEXLOWER.encode(&hasher.finalize())),
                n => hasher.update(&block[..n]),
            }
        }
    };
    hash().map_err(|source| EnvironmentError::read(tree, path, source))
}

/// A line of a `triggers` control file.
#[derive(Debug, PartialEq, Eq)]
enum Directive {
    Interest { trigger: String, options: &'static str },
    Activate { trigger: String },
}

fn trigger_lines(package: &Unpacked) -> Result<Vec<Directive>, EnvironmentError> {
    let text = control_text(package.paragraph.name(), &package.control, "triggers")?;
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    lines
        .filter(|line| !line.is_empty())
        .map(|line| {
            let (directive, trigger) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
            let trigger = trigger.trim().to_owned();
            let sound = !trigger.is_empty()
                && trigger.bytes().all(|b| b.is_ascii_graphic())
                && (trigger.starts_with('/') || !trigger.contains('/') && !trigger.starts_with('.'));
            match directive {
                _ if !sound => Err(broken(package.paragraph.name(), format!("triggers: {line:?} names no trigger"))),
                "interest" | "interest-await" => Ok(Directive::Interest { trigger, options: "" }),
                "interest-noawait" => Ok(Directive::Interest { trigger, options: "/noawait" }),
                "activate" | "activate-await" | "activate-noawait" => Ok(Directive::Activate { trigger }),
                _ => Err(broken(
                    package.paragraph.name(),
                    format!("triggers: {directive:?} is no directive of deb-triggers(5)"),
                )),
            }
        })
        .collect()
}

/// Who wants to know of which trigger: trigger, then package and options.
#[derive(Debug, Clone, Default)]
struct Interests {
    /// By path, without the leading slash and canonical, to the spelling in use.
    paths: HashMap<Vec<u8>, String>,
    all: BTreeMap<String, BTreeSet<String>>,
}

impl Interests {
    fn read(tree: &Tree) -> Result<Self, EnvironmentError> {
        let mut interests = Self::default();
        for line in text(tree, &format!("{DPKG}/triggers/File"))?.lines() {
            if let Some((path, package)) = line.split_once(' ') {
                interests.add(path, package, "");
            }
        }
        let directory = tree.path().join(DPKG).join("triggers");
        let failed = |source| EnvironmentError::Read { path: directory.clone(), source };
        for entry in std::fs::read_dir(&directory).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name().to_string_lossy().into_owned();
            if !["File", "Lock", "Unincorp"].contains(&name.as_str()) {
                for package in text(tree, &format!("{DPKG}/triggers/{name}"))?.lines() {
                    interests.add(&name, package, "");
                }
            }
        }
        Ok(interests)
    }

    fn add(&mut self, trigger: &str, package: &str, options: &str) {
        if let Some(path) = trigger.strip_prefix('/') {
            self.paths.insert(canonical(path.as_bytes()), trigger.to_owned());
        }
        self.all.entry(trigger.to_owned()).or_default().insert(format!("{package}{options}"));
    }

    fn has(&self, trigger: &str) -> bool {
        self.all.contains_key(trigger)
    }

    /// File triggers at `path` or at a directory above it.
    fn files_at(&self, path: &[u8]) -> Vec<String> {
        let path = canonical(path);
        let ends = (0..path.len()).filter(|i| path[*i] == b'/').chain([path.len()]);
        ends.filter_map(|end| self.paths.get(&path[..end])).cloned().collect()
    }

    fn write(&self, tree: &Tree) -> Result<(), EnvironmentError> {
        let mut files = String::new();
        for (trigger, packages) in &self.all {
            match trigger.starts_with('/') {
                true => packages.iter().for_each(|package| files.push_str(&format!("{trigger} {package}\n"))),
                false => {
                    let lines: String = packages.iter().flat_map(|package| [package.as_str(), "\n"]).collect();
                    write(tree, &format!("{DPKG}/triggers/{trigger}"), lines.as_bytes())?;
                }
            }
        }
        write(tree, &format!("{DPKG}/triggers/File"), files.as_bytes())
    }
}

fn control_text(
    package: &str,
    control: &BTreeMap<String, ControlFile>,
    name: &str,
) -> Result<String, EnvironmentError> {
    match control.get(name) {
        None => Ok(String::new()),
        Some(file) => {
            String::from_utf8(file.bytes.clone()).map_err(|_| broken(package, format!("{name}: is not UTF-8")))
        }
    }
}

fn broken(package: &str, violation: String) -> EnvironmentError {
    EnvironmentError::Control { path: package.into(), violation }
}

fn text(tree: &Tree, path: &str) -> Result<String, EnvironmentError> {
    let bytes = tree.read(path).map_err(|e| EnvironmentError::read(tree, path.as_bytes(), e))?;
    String::from_utf8(bytes.unwrap_or_default())
        .map_err(|_| EnvironmentError::Database { path: tree.path().join(path), violation: "is not UTF-8".into() })
}

fn write(tree: &Tree, path: &str, bytes: &[u8]) -> Result<(), EnvironmentError> {
    tree.write(path, bytes, Executable::No).map_err(|e| EnvironmentError::write(tree, path.as_bytes(), e))
}
