//! Assembles environments and says how long each step took: what scripts/bench calls.
use std::path::{Path, PathBuf};
use std::time::Instant;

use kiln::environment::{Assembler, Deb, Kept, Package, Sandboxed};
use kiln_model::digest::Digest;
use kiln_model::lock::{Layer, LockedPackage};

fn packages(dir: &Path) -> Vec<(LockedPackage, PathBuf)> {
    let mut v: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e == "deb"))
        .map(|p| {
            let c = Deb::open(&p).unwrap().control().unwrap();
            let t = String::from_utf8(c["control"].bytes.clone()).unwrap();
            let f = |k: &str| {
                t.lines().find_map(|l| l.strip_prefix(k).and_then(|l| l.strip_prefix(": "))).unwrap().to_owned()
            };
            (
                LockedPackage {
                    name: f("Package"),
                    arch: f("Architecture"),
                    version: f("Version"),
                    layer: Layer::Base,
                    archive: "debian".into(),
                    path: "".into(),
                    size: 0,
                    sha256: Digest::of(p.file_name().unwrap().as_encoded_bytes()),
                },
                p,
            )
        })
        .collect();
    v.sort();
    v
}

fn main() {
    let a: Vec<String> = std::env::args().collect();
    let kept = a.get(4).map(|k| Kept::new(k));
    let base = packages(Path::new(&a[1]));
    let delta = packages(Path::new(&a[2]));
    let into = Path::new(&a[3]);
    fn ps(v: &[(LockedPackage, PathBuf)]) -> Vec<Package<'_>> {
        v.iter().map(|(l, p)| Package { locked: l, file: p.clone() }).collect()
    }
    let launcher = kiln_sandbox::Launcher::start().unwrap();
    let inside = Sandboxed::new(&launcher, into.join("slots"));
    let asm = Assembler { inside: &inside, epoch: 1_752_228_997, kept: kept.as_ref() };
    let t = Instant::now();
    if let Err(e) = asm.base(&ps(&base), &into.join("base")) {
        eprintln!("{e}\n{:?}", e);
        std::process::exit(1)
    }
    eprintln!("base {:?}", t.elapsed());
    let t = Instant::now();
    println!(
        "{:?} {:?}",
        nix_archive::nar::hash_path(&into.join("base"), nix_archive::nar::CaseHack::Disabled),
        t.elapsed()
    );
    let t = Instant::now();
    if let Err(e) = asm.delta(&into.join("base"), &ps(&delta), &into.join("delta")) {
        eprintln!("{e}\n{:?}", e);
        std::process::exit(1)
    }
    eprintln!("delta {:?}", t.elapsed());
    println!("{:?}", nix_archive::nar::hash_path(&into.join("delta"), nix_archive::nar::CaseHack::Disabled));
}
