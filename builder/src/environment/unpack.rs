//! Unpacking many packages into one tree at once.
//!
//! Decoding dominates, so packages are taken largest first by as many threads as there are processors, and threads meet
//! only in the table of who owns which path. The result does not depend on their order: directories are alike whoever
//! makes them, a file that two packages own is decided by `Replaces` or refused with both names, and what replaces is
//! put in place after all threads are done.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use kiln_model::lock::LockedPackage;

use super::database::{self, Conffile};
use super::deb::{ControlFile, Deb, Entry, EntryKind};
use super::kept::{Keep, Kept};
use super::package::Paragraph;
use super::tree::{Cursor, MERGED, Tree, canonical};
use super::{EnvironmentError, Package};

/// A package whose files are in the tree.
#[derive(Debug)]
pub(super) struct Unpacked {
    /// Its control paragraph.
    pub(super) paragraph: Paragraph,
    /// Its other control files by name.
    pub(super) control: BTreeMap<String, ControlFile>,
    /// Its paths in the order of the archive, without a leading slash; the root is empty.
    pub(super) paths: Vec<Vec<u8>>,
    /// Canonical paths of configuration files that wait under [`WAITING`] for `dpkg --configure` to put them in place.
    pub(super) waiting: BTreeSet<Vec<u8>>,
}

/// What dpkg appends to the name of a configuration file until its package is configured: the hooks of a package that is
/// not ready yet must not be found (libpaper1 runs those in `/etc/libpaper.d`, of which texlive-base has one).
const WAITING: &[u8] = b".dpkg-new";

/// What a layer's packages left behind.
#[derive(Debug)]
pub(super) struct Layer {
    /// The packages, in the lock's order.
    pub(super) packages: Vec<Unpacked>,
    /// Canonical paths that packages lost to one that replaces them, by the loser's `info/` name.
    pub(super) lost: BTreeMap<String, BTreeSet<Vec<u8>>>,
}

/// Packages that were there before.
#[derive(Debug, Default)]
pub(super) struct Installed {
    /// Their paragraphs.
    pub(super) packages: Vec<Paragraph>,
    /// Canonical path to index in `packages`.
    pub(super) owners: HashMap<Vec<u8>, usize>,
    /// Canonical path to (where it is diverted to, the package that is not diverted).
    pub(super) diversions: BTreeMap<Vec<u8>, (Vec<u8>, String)>,
}

/// Who owns a path. Indices count `Installed::packages` first, then the packages of this layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Claim {
    /// A directory, by any number of packages; this is the first.
    Directory(usize),
    /// A file or link.
    Leaf(usize),
    /// Listed by a package of the layer below; what it is can be seen in the tree.
    Below(usize),
}

/// What a package may do with a path that it wants for a file or link.
enum Turn {
    Make,
    /// Another package has it, and this one replaces that one.
    Replace,
    /// Another package has it and replaces this one, or the two are in conflict, which was noted.
    Skip,
}

struct Shared<'a> {
    tree: &'a Tree,
    installed: &'a Installed,
    paragraphs: Vec<Paragraph>,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    claims: HashMap<Vec<u8>, Claim>,
    conflicts: BTreeMap<Vec<u8>, BTreeSet<usize>>,
    /// Files that lie under a private name until all threads are done: private name, name.
    replacements: Vec<(Vec<u8>, Vec<u8>)>,
    lost: Vec<(usize, Vec<u8>)>,
}

/// Unpacks `packages` into `tree`.
pub(super) fn unpack(
    tree: &Tree,
    packages: &[Package<'_>],
    installed: &Installed,
    kept: Option<&Kept>,
) -> Result<Layer, EnvironmentError> {
    let mut opened = packages.iter().map(|package| open(package, kept)).collect::<Result<Vec<_>, _>>()?;
    // A base layer has them in place at once, as debootstrap does: its packages cannot be configured one after another.
    if installed.packages.is_empty() {
        opened.iter_mut().for_each(|package| package.conffiles.clear());
    }
    let mut claims = HashMap::with_capacity(installed.owners.len() + 1024);
    claims.extend(installed.owners.iter().map(|(path, owner)| (path.clone(), Claim::Below(*owner))));
    let shared = Shared {
        tree,
        installed,
        paragraphs: opened.iter().map(|o| o.paragraph.clone()).collect(),
        table: Mutex::new(Table { claims, ..Table::default() }),
    };

    let mut order: Vec<usize> = (0..opened.len()).collect();
    order.sort_by_key(|i| (std::cmp::Reverse(opened[*i].deb.size()), *i));
    let (next, failures) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
    let placed: Vec<Mutex<Placed>> = opened.iter().map(|_| Mutex::default()).collect();
    std::thread::scope(|scope| {
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(order.len());
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(index) = order.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if !lock(&failures).is_empty() {
                        return;
                    }
                    match shared.unpack(*index, &opened[*index]) {
                        Ok(found) => *lock(&placed[*index]) = found,
                        Err(error) => drop(lock(&failures).insert(*index, error)),
                    }
                }
            });
        }
    });
    // The first in the lock's order, not in time.
    if let Some((_, error)) = failures.into_inner().unwrap_or_else(|e| e.into_inner()).pop_first() {
        return Err(error);
    }
    let (paragraphs, table) = (shared.paragraphs, shared.table.into_inner().unwrap_or_else(|e| e.into_inner()));
    let all: Vec<&Paragraph> = installed.packages.iter().chain(&paragraphs).collect();
    if let Some((path, owners)) = table.conflicts.into_iter().next() {
        let mut names = owners.into_iter().map(|owner| all[owner].name().to_owned());
        let (first, second) = (names.next().unwrap_or_default(), names.next().unwrap_or_default());
        return Err(EnvironmentError::Conflict { path: display(&path), first, second });
    }
    let mut cursor = tree.cursor();
    for (from, to) in &table.replacements {
        cursor.rename(from, to).map_err(|source| EnvironmentError::write(tree, to, source))?;
    }
    let mut lost: BTreeMap<String, BTreeSet<Vec<u8>>> = BTreeMap::new();
    for (owner, path) in table.lost {
        lost.entry(all[owner].info_name()).or_default().insert(path);
    }
    let packages = opened.into_iter().zip(placed).map(|(opened, placed)| {
        let Placed { paths, waiting } = placed.into_inner().unwrap_or_else(|e| e.into_inner());
        Unpacked { paragraph: opened.paragraph, control: opened.control, paths, waiting }
    });
    Ok(Layer { packages: packages.collect(), lost })
}

struct Opened {
    deb: Deb,
    keep: Option<Keep>,
    paragraph: Paragraph,
    control: BTreeMap<String, ControlFile>,
    /// Canonical paths of configuration files that are to wait for the package's configuration.
    conffiles: BTreeSet<Vec<u8>>,
}

/// Where a package's files are.
#[derive(Default)]
struct Placed {
    paths: Vec<Vec<u8>>,
    waiting: BTreeSet<Vec<u8>>,
}

/// Opens a package, or its kept form, and checks that it is the one the lock names.
fn open(package: &Package<'_>, kept: Option<&Kept>) -> Result<Opened, EnvironmentError> {
    let cached = kept.and_then(|kept| kept.find(&package.locked.sha256));
    let keep = kept.filter(|_| cached.is_none()).map(|kept| kept.keep(package.locked.sha256));
    let deb = Deb::open(cached.as_deref().unwrap_or(&package.file))?;
    let mut control = deb.control()?;
    let paragraph = paragraph(package.locked, &package.file, control.remove("control"))?;
    let conffiles = database::conffiles(paragraph.name(), &control)?;
    let conffiles = conffiles.into_iter().filter_map(|conffile| match conffile {
        Conffile::Shipped(path) => Some(canonical(path.trim_start_matches('/').as_bytes())),
        Conffile::Gone(_) => None,
    });
    Ok(Opened { deb, keep, paragraph, control, conffiles: conffiles.collect() })
}

fn paragraph(locked: &LockedPackage, file: &Path, control: Option<ControlFile>) -> Result<Paragraph, EnvironmentError> {
    let refuse = |violation: String| EnvironmentError::Control { path: file.into(), violation };
    let bytes = control.ok_or_else(|| refuse("control.tar has no file 'control'".into()))?.bytes;
    let text = String::from_utf8(bytes).map_err(|_| refuse("is not UTF-8".into()))?;
    let paragraph = Paragraph::parse(&text).map_err(refuse)?;
    for (field, expected) in [("package", &locked.name), ("version", &locked.version), ("architecture", &locked.arch)] {
        let found = paragraph.field(field).unwrap_or_default();
        if found != expected {
            return Err(refuse(format!("field {field}: expected {expected:?} from the lock, found {found:?}")));
        }
    }
    Ok(paragraph)
}

impl Shared<'_> {
    fn unpack(&self, index: usize, opened: &Opened) -> Result<Placed, EnvironmentError> {
        let mut cursor = self.tree.cursor();
        let mut placed = Placed::default();
        let mut visit = |entry: Entry, body: &mut dyn Read| {
            placed.paths.push(entry.path.clone());
            self.place(index, &mut cursor, entry, body, &opened.conffiles, &mut placed.waiting)
        };
        let result = match &opened.keep {
            Some(keep) => keep.record(&opened.deb, |copy| opened.deb.entries(Some(copy), &mut visit)),
            None => opened.deb.entries(None, &mut visit),
        };
        result.map(|()| placed)
    }

    fn place(
        &self,
        index: usize,
        cursor: &mut Cursor<'_>,
        entry: Entry,
        body: &mut dyn Read,
        conffiles: &BTreeSet<Vec<u8>>,
        waiting: &mut BTreeSet<Vec<u8>>,
    ) -> Result<(), EnvironmentError> {
        let mut path = canonical(&entry.path);
        let failed = |path: &[u8], source| EnvironmentError::unpack(self.name(index), path, source);
        if let EntryKind::Directory = entry.kind {
            return match self.claim_directory(index, &path) {
                true => cursor.make_directory(&path).map_err(|source| failed(&path, source)),
                false => Ok(()),
            };
        }
        if let EntryKind::Symlink { target } = &entry.kind
            && is_merged_link(&entry.path, target)
        {
            return Ok(());
        }
        if let Some((elsewhere, exempt)) = self.installed.diversions.get(&path)
            && exempt != self.name(index)
        {
            path = elsewhere.clone();
        }
        let waits = matches!(entry.kind, EntryKind::File { .. }) && conffiles.contains(&canonical(&entry.path));
        let (place, deferred) = match self.claim_leaf(index, &path) {
            Turn::Skip => return Ok(()),
            // dpkg would ask whose a file is that a maintainer script made: that one is overwritten.
            Turn::Make if waits && self.tree.open_file(&path).is_err() => {
                waiting.insert(canonical(&entry.path));
                ([&path, WAITING].concat(), false)
            }
            Turn::Make => (path.clone(), false),
            Turn::Replace => {
                let mut table = lock(&self.table);
                let (directory, _) = super::tree::split(&path);
                let name = format!(".kiln-{index}-{}", table.replacements.len());
                let place = match directory {
                    b"" => name.into_bytes(),
                    _ => [directory, b"/", name.as_bytes()].concat(),
                };
                table.replacements.push((place.clone(), path.clone()));
                (place, true)
            }
        };
        let mut make = |cursor: &mut Cursor<'_>| match &entry.kind {
            EntryKind::Directory => Ok(()),
            EntryKind::File { executable, size } => {
                let written = cursor.make_file(&place, *executable, entry.modified, body)?;
                match written == *size {
                    true => Ok(()),
                    false => {
                        Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("has {written} of {size} bytes")))
                    }
                }
            }
            EntryKind::Symlink { target } => {
                cursor.make_symlink(&place, target).and_then(|()| cursor.set_modified(&place, entry.modified))
            }
            EntryKind::HardLink { target } => {
                let target = canonical(target);
                match lock(&self.table).claims.get(&target) {
                    Some(Claim::Leaf(owner)) if *owner == self.number(index) => {}
                    _ => return Err(io::Error::other("is a hard link to what is no file of this package")),
                }
                cursor.make_hard_link(&place, &target)
            }
        };
        let made = match make(cursor) {
            // No package owns what is there (a maintainer script made it): dpkg overwrites it, too.
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists && !deferred => {
                cursor.remove(&place).and_then(|()| make(cursor))
            }
            other => other,
        };
        made.map_err(|source| failed(&path, source))
    }

    /// Whether the directory is to be made; if not, a conflict was noted.
    fn claim_directory(&self, index: usize, path: &[u8]) -> bool {
        let mut table = lock(&self.table);
        match table.claims.get(path).copied() {
            None => drop(table.claims.insert(path.to_vec(), Claim::Directory(self.number(index)))),
            Some(Claim::Directory(_) | Claim::Below(_)) => {}
            Some(Claim::Leaf(owner)) => {
                let number = self.number(index);
                table.conflicts.entry(path.to_vec()).or_default().extend([owner, number]);
                return false;
            }
        }
        true
    }

    fn claim_leaf(&self, index: usize, path: &[u8]) -> Turn {
        let number = self.number(index);
        let mut table = lock(&self.table);
        let owner = match table.claims.get(path).copied() {
            None => {
                table.claims.insert(path.to_vec(), Claim::Leaf(number));
                return Turn::Make;
            }
            Some(Claim::Leaf(owner) | Claim::Below(owner)) => owner,
            Some(Claim::Directory(owner)) => {
                table.conflicts.entry(path.to_vec()).or_default().extend([owner, number]);
                return Turn::Skip;
            }
        };
        let (mine, other) = (self.paragraph(number), self.paragraph(owner));
        // Both ways, as dpkg asks: whichever is unpacked second must end the same.
        match (mine.replaces(other), other.replaces(mine)) {
            _ if owner == number => table.conflicts.entry(path.to_vec()).or_default().extend([owner]),
            (true, false) => {
                table.claims.insert(path.to_vec(), Claim::Leaf(number));
                table.lost.push((owner, path.to_vec()));
                return Turn::Replace;
            }
            (false, true) => table.lost.push((number, path.to_vec())),
            (true, true) | (false, false) => {
                table.conflicts.entry(path.to_vec()).or_default().extend([owner, number]);
            }
        }
        Turn::Skip
    }

    fn number(&self, index: usize) -> usize {
        self.installed.packages.len() + index
    }

    fn paragraph(&self, number: usize) -> &Paragraph {
        let below = self.installed.packages.len();
        match number < below {
            true => &self.installed.packages[number],
            false => &self.paragraphs[number - below],
        }
    }

    fn name(&self, index: usize) -> &str {
        self.paragraphs[index].name()
    }
}

/// Whether this is one of the links that the tree has anyway; newer suites ship them in a package.
fn is_merged_link(path: &[u8], target: &[u8]) -> bool {
    let target = target.strip_prefix(b"/").unwrap_or(target);
    MERGED.iter().any(|link| link.as_bytes() == path) && target.strip_prefix(b"usr/") == Some(path)
}

pub(super) fn display(path: &[u8]) -> PathBuf {
    PathBuf::from(String::from_utf8_lossy(path).into_owned())
}

/// A thread that panicked has failed the whole run already; its half of a table harms no one.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
