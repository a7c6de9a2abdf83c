//! `kiln`: where results and errors become exit codes.

use std::process::ExitCode;

use kiln::cli::{self, Failure};
use kiln::{exit, interrupt};

fn main() -> ExitCode {
    // A panic is a broken invariant of ours: say so, and exit as documented.
    std::panic::set_hook(Box::new(|panic| {
        anstream::eprintln!("kiln: a bug: {panic}\nPlease report it with the command that you ran.");
    }));
    // Signals are blocked before any thread exists, so that all inherit it.
    if let Err(error) = interrupt::block() {
        return fail(&Failure::new(exit::Kind::Host, error));
    }
    let cli = match cli::parse(std::env::args_os()) {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { exit::BAD_INPUT } else { exit::YES });
        }
    };
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| cli::run(cli))) {
        Ok(Ok(code)) => ExitCode::from(code),
        Ok(Err(failure)) => fail(&failure),
        Err(_) => ExitCode::from(exit::BUG),
    }
}

fn fail(failure: &Failure) -> ExitCode {
    anstream::eprintln!("{}", cli::told(failure));
    ExitCode::from(failure.kind.code())
}
