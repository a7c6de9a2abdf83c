//! A worker of an embedded engine that does as it is told on stdin, one word a line, and answers each with a line. It holds what
//! it claims until it is killed: `worker DIRECTORY REBUILDER LEASE_MILLISECONDS`.

use std::collections::BTreeSet;
use std::io::{BufRead as _, Write as _};
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use kiln::engine::{Embedded, Limits};
use kiln_model::engine::{Desk as _, Engine as _, Enqueued, Lease, Priority};
use kiln_tests::engine::{job, platform};

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut next = || arguments.next().context("expected DIRECTORY REBUILDER LEASE_MILLISECONDS");
    let directory = PathBuf::from(next()?);
    let rebuilder = next()?.parse()?;
    let limits = Limits { lease: Duration::from_millis(next()?.parse()?), ..Limits::default() };
    let engine = Embedded::open(&directory, limits)?;
    let desk = engine.desk(rebuilder);
    let mut held: Option<Lease> = None;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let (word, rest) = line.split_once(' ').unwrap_or((&line, ""));
        let wait = if word == "claim-now" { Duration::ZERO } else { Duration::from_secs(20) };
        let said = match word {
            "date" => SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs().to_string(),
            "enqueue" => match engine.enqueue(&job(rest), Priority::Normal)? {
                Enqueued::New => "new".into(),
                Enqueued::Known => "known".into(),
            },
            "claim" | "claim-now" => match desk.claim(&BTreeSet::from([platform()]), wait)? {
                Some(lease) => {
                    let said = format!("{} {}", lease.job.id(), lease.delivery);
                    held = Some(lease);
                    said
                }
                None => "none".into(),
            },
            "extend" => {
                desk.extend(held.as_ref().context("nothing is held")?)?;
                "ok".into()
            }
            other => anyhow::bail!("{other:?} is nothing that a worker does"),
        };
        println!("{said}");
        std::io::stdout().flush()?;
    }
    Ok(())
}
