//! The launcher's binary: embedded in kiln, run from a sealed memfd with the request socket as descriptor 0. With
//! `reclaim` as its first argument it is another, shorter program: see [`kiln_launcher::reclaim`].

fn main() -> std::process::ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|first| first == kiln_launcher::reclaim::WORD) {
        return kiln_launcher::reclaim::run(arguments);
    }
    kiln_launcher::serve::run()
}
