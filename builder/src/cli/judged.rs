//! What the commands that judge have in common: which verdicts are accepted, and how reports are told.

use std::path::Path;

use kiln_model::report::{Report, Reports};
use kiln_model::verdict::Accept;

use super::{Failure, Session};
use crate::render;

/// What is accepted beside identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Accepted {
    /// Equality after named normalisers
    Equivalent,
}

impl Accepted {
    /// As verdicts ask for it.
    pub(super) fn of(accepted: Option<Self>) -> Accept {
        match accepted {
            Some(Self::Equivalent) => Accept::Equivalent,
            None => Accept::Identical,
        }
    }
}

/// Tells reports on stdout, and as a page if `html` says where. Returns the exit code.
pub(super) fn tell(
    session: &Session,
    mut reports: Vec<Report>,
    html: Option<&Path>,
    accept: Accept,
) -> Result<u8, Failure> {
    if let Some(file) = html {
        session.write_file(file, render::html::page(&reports).as_bytes())?;
    }
    if !session.json() {
        for report in &reports {
            session.print_text(&render::text::report(report, session.colour()))?;
        }
        return Ok(Reports::new(reports).exit_code(accept));
    }
    // One target is one report, several are a list of them (ARCHITECTURE.md, the command line).
    if reports.len() == 1 {
        let report = reports.remove(0);
        session.print_json(&report)?;
        return Ok(report.exit_code(accept));
    }
    let reports = Reports::new(reports);
    session.print_json(&reports)?;
    Ok(reports.exit_code(accept))
}
