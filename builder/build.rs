//! How the program `kiln` is linked.
//!
//! The tens of thousands of addresses in its tables, which the loader moves before the program starts, are stored as bit maps
//! (DT_RELR; glibc 2.36, binutils 2.38): a twentieth of the bytes to read. A linker that cannot do it says so and leaves it.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-link-arg-bin=kiln=-Wl,-z,pack-relative-relocs");
}
