//! From what was asked for to jobs: who means the same build, asks for one.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::path::Path;

use kiln_model::campaign::Asked;
use kiln_model::digest::Digest;
use kiln_model::engine::{Job, JobId, Platform, Rebuilder};
use kiln_model::verdict::Verdict;
use serde::Serialize;
use sha2::Digest as _;

use super::request::{Request, Wish};
use crate::rebuild::debian::canonical;
use crate::rebuild::plan;
use crate::rebuild::rebuilding::{Causes, RebuildError, Rebuilding};
use crate::rebuild::setting::Settings;
use crate::rebuild::target::Target;

/// The only schema there is.
const SCHEMA: &str = "kiln/rebuild-job/v1";
/// Who works here.
const REBUILDER: &str = "local";
/// What is built on here.
const PLATFORM: &str = "x86_64-linux";

/// A target of a campaign and all who asked for it.
#[derive(Debug, Clone)]
pub(super) struct Work {
    /// As all would say it.
    pub(super) target: Target,
    pub(super) settings: Settings,
    pub(super) asked: Vec<Asked>,
}

/// What a campaign is to do.
pub(super) enum Task {
    Work(Work),
    /// Nothing can be done for it, and why.
    Nothing(Asked, String),
}

/// What a job says. Another kiln, other settings, other bytes of a file: another job.
#[derive(Serialize)]
struct Payload<'a> {
    schema: &'a str,
    kiln: &'a str,
    round: u32,
    target: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<Digest>,
    settings: BTreeMap<String, String>,
    suites: &'a [String],
    causes: &'a str,
}

/// Who works here.
pub(super) fn rebuilder() -> Rebuilder {
    REBUILDER.parse().expect("a name of ours")
}

/// What is built on here.
pub(super) fn platforms() -> BTreeSet<Platform> {
    BTreeSet::from([PLATFORM.parse().expect("a name of ours")])
}

/// What is to be done, in the order asked for: one for all who mean the same build.
pub(super) fn tasks(requests: Vec<Request>, rebuilding: &Rebuilding<'_, '_>) -> Result<Vec<Task>, RebuildError> {
    let wished = requests.iter().filter_map(|request| request.wish.as_ref().ok());
    let known = canonical(rebuilding, &wished.map(|wish| wish.target.clone()).collect())?;
    let mut tasks: Vec<Task> = Vec::new();
    let mut places: BTreeMap<(Target, Settings), usize> = BTreeMap::new();
    for Request { text, line, wish, expected } in requests {
        let asked = |package: Option<String>, expected: Option<Verdict>| Asked {
            target: text.clone(),
            line,
            package,
            expected,
            verdict: None,
        };
        let Wish { target, package, settings } = match wish {
            Ok(wish) => wish,
            Err(why) => {
                tasks.push(Task::Nothing(asked(None, expected), why));
                continue;
            }
        };
        let (target, package) = match known.get(&target) {
            Some(found) => (found.target.clone(), package.or_else(|| found.package.clone())),
            None => (target, package),
        };
        let key = (target, settings);
        let asked = asked(package, expected);
        match places.get(&key).and_then(|at| tasks.get_mut(*at)) {
            Some(Task::Work(work)) => work.asked.push(asked),
            Some(Task::Nothing(..)) | None => {
                places.insert(key.clone(), tasks.len());
                let (target, settings) = key;
                tasks.push(Task::Work(Work { target, settings, asked: vec![asked] }));
            }
        }
    }
    Ok(tasks)
}

impl Work {
    /// Its job, the `round`th: a round is a deliberate repeat.
    pub(super) fn job(&self, rebuilding: &Rebuilding<'_, '_>, round: u32) -> Job {
        let payload = Payload {
            schema: SCHEMA,
            kiln: env!("CARGO_PKG_VERSION"),
            round,
            target: self.target.to_string(),
            file: self.target.path().and_then(contents),
            settings: self.settings.told(),
            suites: &rebuilding.suites,
            causes: match rebuilding.causes {
                Causes::Told => "told",
                Causes::Tried => "tried",
            },
        };
        let payload = serde_json::to_vec(&payload).expect("texts and maps with text keys are always JSON");
        let [platform] = platforms().into_iter().collect::<Vec<_>>().try_into().expect("one platform");
        Job::new(payload, platform, BTreeSet::from([rebuilder()]))
    }

    /// Name of the directory of what is left of it, different for each job.
    pub(super) fn directory(&self, job: &JobId) -> String {
        let name = kiln_model::name::sanitised(&self.target.to_string().replace([':', '/'], "_"));
        let mut name = name.as_str().to_string();
        name.truncate(100);
        format!("{name}-{}", &job.to_string()[..8])
    }
}

/// Digest of a file, or of the plan in a directory; what cannot be read has none, and says so when it is its turn.
fn contents(path: &Path) -> Option<Digest> {
    let digest = |path: &Path| -> Option<Digest> {
        let mut file = std::fs::File::open(path).ok()?;
        let (mut hasher, mut block) = (sha2::Sha256::new(), vec![0; 256 << 10]);
        loop {
            match file.read(&mut block).ok()? {
                0 => return Some(Digest::from_bytes(hasher.finalize().into())),
                n => hasher.update(&block[..n]),
            }
        }
    };
    match path.is_dir() {
        false => digest(path),
        true => {
            let digests: Option<Vec<Digest>> = plan::FILES.iter().map(|name| digest(&path.join(name))).collect();
            digests.map(|digests| Digest::of(digests.iter().map(Digest::to_string).collect::<String>()))
        }
    }
}
