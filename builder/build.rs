//! How the program `kiln` is linked.
//!
//! At a fixed address, so that nothing of it has to be moved before it starts: the tens of thousands of pointers in its tables
//! would cost as much as a third of a sandbox (`scripts/bench sandbox`). Libraries, heap, stack and every program in a
//! sandbox keep their random addresses.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-link-arg-bin=kiln=-no-pie");
}
