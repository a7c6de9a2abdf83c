//! Assembles a base layer, and a delta on it, and says on stdout how long each took and what came out. `scripts/bench`
//! calls it; so does anyone who wants to see whether two hosts make the same tree.
//!
//! `environment_bench INTO BASE_DEBS [--delta DELTA_DEBS] [--kept DIRECTORY] [--epoch SECONDS]`: directories of `.deb`
//! files; `INTO` must exist and gets `base` and `delta`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use kiln::environment::{Assembler, Deb, Kept, Package, Sandboxed};
use kiln_model::digest::Digest;
use kiln_model::lock::{Layer, LockedPackage};

struct Arguments {
    into: PathBuf,
    base: PathBuf,
    delta: Option<PathBuf>,
    kept: Option<Kept>,
    epoch: i64,
}

fn arguments() -> Result<Arguments> {
    let (mut positional, mut options) = (Vec::new(), std::collections::BTreeMap::new());
    let mut words = std::env::args_os().skip(1);
    while let Some(word) = words.next() {
        match word.to_str().and_then(|word| word.strip_prefix("--")) {
            Some(option) => drop(options.insert(option.to_owned(), words.next().context("an option without value")?)),
            None => positional.push(word),
        }
    }
    let Ok([into, base]) = <[OsString; 2]>::try_from(positional) else {
        bail!("environment_bench INTO BASE_DEBS [--delta DELTA_DEBS] [--kept DIRECTORY] [--epoch SECONDS]");
    };
    let epoch = options.remove("epoch").map_or(Ok(1_000_000_000), |text| text.to_string_lossy().parse())?;
    let arguments = Arguments {
        into: into.into(),
        base: base.into(),
        delta: options.remove("delta").map(PathBuf::from),
        kept: options.remove("kept").map(|kept| Kept::new(&kept, Path::new(&kept).parent().unwrap_or(Path::new(".")))),
        epoch,
    };
    match options.into_keys().next() {
        Some(unknown) => bail!("unknown option --{unknown}"),
        None => Ok(arguments),
    }
}

/// Every `.deb` in a directory, with what a lock would say of it.
fn packages(directory: &Path, layer: Layer) -> Result<Vec<(LockedPackage, PathBuf)>> {
    let mut packages = Vec::new();
    for entry in directory.read_dir()? {
        let file = entry?.path();
        if file.extension().is_none_or(|extension| extension != "deb") {
            continue;
        }
        let bytes = std::fs::read(&file)?;
        let control = Deb::open(&file)?.control()?.remove("control").context("no control file")?;
        let text = String::from_utf8(control.bytes)?;
        let field = |name: &str| {
            let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
            value.map(str::to_owned).with_context(|| format!("no field {name} in {}", file.display()))
        };
        let locked = LockedPackage {
            name: field("Package")?,
            arch: field("Architecture")?,
            version: field("Version")?,
            layer,
            archive: "debian".into(),
            path: String::new(),
            size: bytes.len() as u64,
            sha256: Digest::of(&bytes),
        };
        packages.push((locked, file));
    }
    packages.sort();
    Ok(packages)
}

fn borrowed(packages: &[(LockedPackage, PathBuf)]) -> Vec<Package<'_>> {
    packages.iter().map(|(locked, file)| Package { locked, file: file.clone() }).collect()
}

fn report(what: &str, packages: usize, tree: &Path, started: Instant) -> Result<()> {
    let seconds = started.elapsed().as_secs_f64();
    let nar = nix_archive::nar::hash_path(tree, nix_archive::nar::CaseHack::Disabled)?;
    println!("{what}\tpackages {packages}\tseconds {seconds:.2}\tnar {}", data_encoding::HEXLOWER.encode(&nar.sha256));
    Ok(())
}

fn main() -> Result<()> {
    let Arguments { into, base, delta, kept, epoch } = arguments()?;
    let base_packages = packages(&base, Layer::Base)?;
    let delta_packages = delta.map(|delta| packages(&delta, Layer::Delta)).transpose()?;
    let launcher = kiln_sandbox::Launcher::start()?;
    let inside = Sandboxed::new(&launcher, into.join("slots"));
    let assembler = Assembler { inside: &inside, epoch, kept: kept.as_ref() };

    let (base, started) = (into.join("base"), Instant::now());
    assembler.base(&borrowed(&base_packages), &base)?;
    report("base", base_packages.len(), &base, started)?;
    if let Some(packages) = delta_packages {
        let (delta, started) = (into.join("delta"), Instant::now());
        assembler.delta(&base, &borrowed(&packages), &delta)?;
        report("delta", packages.len(), &delta, started)?;
    }
    Ok(())
}
