//! The launcher's binary: embedded in kiln, run from a sealed memfd with the request socket as descriptor 0 and,
//! as its only argument, how many networks to keep ready.

fn main() -> std::process::ExitCode {
    let networks = std::env::args().nth(1).and_then(|count| count.parse().ok()).unwrap_or(0);
    kiln_launcher::serve::run(networks)
}
