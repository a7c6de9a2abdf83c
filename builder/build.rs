//! How the program `kiln` is linked, so that it starts quickly: every command pays for that.

use std::path::PathBuf;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // The tens of thousands of addresses in its tables, which the loader moves before the program starts, are stored as bit
    // maps (DT_RELR; glibc 2.36, binutils 2.38): a twentieth of the bytes to read. A linker that cannot do it says so and
    // leaves it.
    println!("cargo::rustc-link-arg-bin=kiln=-Wl,-z,pack-relative-relocs");
    if std::env::var("CARGO_CFG_TARGET_ENV").is_ok_and(|env| env == "gnu") {
        unwinder();
    }
}

/// The unwinder comes out of the compiler's archive instead of libgcc_s.so.1, whose loading is a tenth of a start: only one
/// program uses this one, and no exception crosses into another library. rustc asks for `-lgcc_s` and has no option for it;
/// what the linker finds first under that name is this script for it. A compiler without the archive keeps the library.
fn unwinder() {
    println!("cargo::rerun-if-env-changed=RUSTC_LINKER");
    let linker = std::env::var_os("RUSTC_LINKER").unwrap_or_else(|| "cc".into());
    let asked = Command::new(linker).arg("-print-file-name=libgcc_eh.a").output();
    // gcc(1): the name alone, if there is no such file.
    if !asked.is_ok_and(|said| said.status.success() && said.stdout.starts_with(b"/")) {
        return;
    }
    let directory = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets it")).join("unwinder");
    std::fs::create_dir_all(&directory)
        .and_then(|()| std::fs::write(directory.join("libgcc_s.so"), "INPUT(-lgcc_eh -lgcc)\n"))
        .unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    println!("cargo::rustc-link-arg-bin=kiln=-L{}", directory.display());
}
