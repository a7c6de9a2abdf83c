//! Runs one program of this host in a sandbox: `run PROGRAM [ARGUMENT…]`, with an absolute path.
//!
//! The host's files are the root, read-only; there is no network, no variable, and no other process. Exits as the program
//! does, with 3 if this host cannot isolate, with 1 if anything else prevented it.

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use kiln_sandbox::{How, Launcher, PlanError, Root, Slot, Spec, Stdio, plan, probe};

fn main() -> ExitCode {
    let argv: Vec<OsString> = std::env::args_os().skip(1).collect();
    let Some(program) = argv.first().cloned() else {
        eprintln!("usage: run PROGRAM [ARGUMENT…]");
        return ExitCode::from(2);
    };
    let mut spec = Spec::new(program);
    spec.root = Root::Tree("/".into());
    spec.process.argv = argv;
    spec.limits.wall = Some(Duration::from_secs(600));

    let plan = match plan(&spec, &probe()) {
        Ok(plan) => plan,
        Err(PlanError::Spec(bad)) => {
            eprintln!("{bad}");
            return ExitCode::from(2);
        }
        Err(PlanError::Host(refusal)) => {
            eprintln!("{refusal}");
            return ExitCode::from(3);
        }
    };
    match run(&plan) {
        Ok(How::Exited(code)) => ExitCode::from(code),
        Ok(how) => {
            eprintln!("ended otherwise: {how:?}");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(plan: &kiln_sandbox::Plan) -> Result<How, Box<dyn std::error::Error>> {
    let launcher = Launcher::start()?;
    let slot = Slot::lease(&std::env::temp_dir().join("kiln-run-slots"))?;
    let running = launcher.spawn(plan, &slot, Stdio::Inherit)?;
    Ok(running.wait(&mut |_| {})?.how)
}
