//! `kiln affected`: which builds have something in their closure.

use std::path::PathBuf;

use anyhow::{Context as _, anyhow};
use clap::Args;
use kiln_model::format::osv::{self, Advisory};
use serde_json::json;

use super::{Failure, Session};
use crate::exit::{self, Kind};
use crate::sbom::affected::{Query, affected};

/// Say which builds have a file, a package or what an advisory is about in their closure
///
/// Looks at the builds of the store, and at published provenance where told to; what was built from something affected is
/// affected, too. Opens no socket. Exits with 0 if nothing is affected, with 1 if something is, and with 4 if nothing was found
/// but not everything could be looked into.
#[derive(Debug, Args)]
pub(super) struct AffectedCommand {
    /// SHA-256 of a file or tree (hex, or sha256-… of a NAR), package URL (pkg:deb/debian/NAME@VERSION), or file with an OSV
    /// advisory
    #[arg(value_name = "DIGEST|PURL|FILE")]
    what: String,
    /// Also look at provenance in this directory; signatures are not judged
    #[arg(long, value_name = "DIR")]
    evidence: Option<PathBuf>,
}

impl AffectedCommand {
    pub(super) fn run(self, session: &Session) -> Result<u8, Failure> {
        let query = self.query()?;
        let found = affected(session.store()?, self.evidence.as_deref(), &query)?;
        if session.json() {
            let asked = match &query {
                Query::Digest(digest) => json!({ "kind": "digest", "sha256": digest }),
                Query::Purl(purl) => json!({ "kind": "purl", "purl": purl }),
                Query::Advisory(advisory) => {
                    json!({ "kind": "advisory", "id": advisory.id, "score": advisory.score() })
                }
            };
            session.print_json(&json!({
                "schema": "kiln/affected/v1",
                "query": asked,
                "builds": found.builds,
                "published": found.published,
                "undetermined": found.undetermined,
            }))?;
        } else {
            for build in &found.builds {
                session.print_line(&format!("{}: {}", build.derivation, build.because.join("; ")))?;
            }
            for one in &found.published {
                let subjects = one.subjects.join(" ");
                session.print_line(&format!("{} ({subjects}): {}", one.file, one.because.join("; ")))?;
            }
            for one in &found.undetermined {
                session.say(format!("undetermined: {}: {}", one.what, one.why));
            }
            if found.is_empty() {
                session.say("nothing is affected");
            }
        }
        Ok(match (found.builds.is_empty() && found.published.is_empty(), found.undetermined.is_empty()) {
            (false, _) => exit::NO,
            (true, false) => exit::INCONCLUSIVE,
            (true, true) => exit::YES,
        })
    }

    fn query(&self) -> Result<Query, Failure> {
        if let Some(query) = Query::parse(&self.what) {
            return Ok(query);
        }
        let path = PathBuf::from(&self.what);
        let bad = |error: anyhow::Error| Failure::new(Kind::BadInput, error);
        if !path.is_file() {
            let expected =
                "expected a SHA-256, a package URL such as pkg:deb/debian/curl, or a file with an OSV advisory";
            return Err(bad(anyhow!("{:?} is none of these: {expected}", self.what)));
        }
        let shown = || format!("in {}", path.display());
        let size = path.metadata().with_context(shown).map_err(bad)?.len();
        if size > osv::LIMITS.bytes as u64 {
            return Err(bad(anyhow!("{} is larger than any advisory", path.display())));
        }
        let bytes = std::fs::read(&path).with_context(shown).map_err(bad)?;
        let advisory = Advisory::parse(&bytes).with_context(shown).map_err(bad)?;
        Ok(Query::Advisory(Box::new(advisory)))
    }
}
