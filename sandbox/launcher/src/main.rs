//! The launcher's binary: embedded in kiln, run from a sealed memfd with the request socket as descriptor 0.

fn main() -> std::process::ExitCode {
    kiln_launcher::serve::run()
}
