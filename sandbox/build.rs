//! Builds the launcher as a small static program of its own, for `include_bytes!`.
//!
//! Needs only the workspace and cargo: same lock file, its own target directory and profile, none of the outer
//! build's flags. Linking all of kiln into the launcher would make every start copy and map 25 MB.

use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    let manifest_dir = PathBuf::from(variable("CARGO_MANIFEST_DIR"));
    let out_dir = PathBuf::from(variable("OUT_DIR"));
    let target = variable("TARGET");
    let launcher = manifest_dir.join("launcher");
    println!("cargo::rerun-if-changed={}", launcher.join("src").display());
    println!("cargo::rerun-if-changed={}", launcher.join("Cargo.toml").display());
    println!("cargo::rerun-if-changed=build.rs");

    let target_dir = out_dir.join("launcher");
    let mut cargo = Command::new(variable("CARGO"));
    // The outer build's flags and profiles would leak into this one; what is wanted is set below.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        let inherited = text.starts_with("CARGO_ENCODED_")
            || text.starts_with("CARGO_PROFILE_")
            || text.starts_with("CARGO_FEATURE_")
            || text.starts_with("CARGO_CFG_")
            || text.starts_with("CARGO_TARGET_")
            || text.starts_with("CARGO_BUILD_")
            || text == "RUSTC_WORKSPACE_WRAPPER"
            || text == "CARGO_MAKEFLAGS"
            || text == "RUSTC_WRAPPER"
            || text == "RUSTFLAGS";
        if inherited {
            cargo.env_remove(&name);
        }
    }
    cargo
        .current_dir(&manifest_dir)
        // Offline always: cargo has just unpacked the same locked packages for this very build.
        .args(["build", "--release", "--quiet", "--locked", "--offline"])
        .args(["--package", "kiln-launcher", "--bin", "kiln-launcher"])
        .args(["--target", &target])
        .arg("--target-dir")
        .arg(&target_dir)
        .env("RUSTFLAGS", "-C target-feature=+crt-static -C relocation-model=static")
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "s")
        .env("CARGO_PROFILE_RELEASE_LTO", "fat")
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1")
        .env("CARGO_PROFILE_RELEASE_PANIC", "abort")
        .env("CARGO_PROFILE_RELEASE_DEBUG", "false")
        .env("CARGO_PROFILE_RELEASE_STRIP", "symbols");
    let status = cargo.status().expect("cargo runs, since it runs this script");
    assert!(status.success(), "building kiln-launcher failed: {status}");

    let binary = target_dir.join(&target).join("release").join("kiln-launcher");
    copy(&binary, &out_dir.join("kiln-launcher"));
}

fn copy(from: &Path, to: &Path) {
    std::fs::copy(from, to).unwrap_or_else(|error| panic!("copying {} to {}: {error}", from.display(), to.display()));
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|error| panic!("cargo sets {name} for build scripts: {error}"))
}
