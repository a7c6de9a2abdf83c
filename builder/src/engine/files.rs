//! The engine's files: each written aside, synced, and given its name in one step.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use data_encoding::BASE64;
use kiln_model::digest::Digest;
use kiln_model::engine::{Answer, EngineError, Job, JobId, Priority, Rebuilder, Record};
use kiln_model::outcome::Status;
use serde::{Deserialize, Serialize};

use super::failed;
use super::ledger::Row;

/// Version of the directory's layout.
const VERSION: &str = "1";

/// The directory of an engine.
pub(super) struct Files {
    root: PathBuf,
}

/// What a record is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kept {
    Result,
    Conflict,
    Letter,
}

/// A job on disk.
pub(super) struct Filed {
    pub(super) job: Job,
    pub(super) priority: Priority,
    /// Where it is in the order of enqueueing.
    pub(super) place: u64,
}

#[derive(Serialize, Deserialize)]
struct JobFile {
    place: u64,
    priority: String,
    platform: String,
    rebuilders: BTreeSet<String>,
    payload: String,
}

#[derive(Serialize, Deserialize)]
struct AnswerFile {
    job: JobId,
    status: Status,
    outputs: BTreeMap<String, Digest>,
    document: String,
}

/// Whether a name was free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Named {
    Now,
    Before,
}

impl Kept {
    pub(super) const ALL: [Self; 3] = [Self::Result, Self::Conflict, Self::Letter];

    pub(super) fn directory(self) -> &'static str {
        match self {
            Self::Result => "results",
            Self::Conflict => "conflicts",
            Self::Letter => "dead",
        }
    }
}

impl Files {
    pub(super) fn open(root: &Path) -> Result<Self, EngineError> {
        for directory in ["jobs", "results", "conflicts", "dead", "alive", "aside"] {
            let path = root.join(directory);
            fs::create_dir_all(&path).map_err(failed("making", &path))?;
        }
        let files = Self { root: root.into() };
        let version = root.join("version");
        match fs::read_to_string(&version) {
            Ok(found) if found.trim() == VERSION => {}
            Ok(found) => return Err(EngineError::Version { found: found.trim().into(), needed: VERSION.into() }),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                files.place(&version, VERSION.as_bytes())?;
            }
            Err(error) => return Err(failed("reading", &version)(error)),
        }
        Ok(files)
    }

    fn job_path(&self, job: &JobId) -> PathBuf {
        self.root.join("jobs").join(job.to_string())
    }

    fn kept_path(&self, kind: Kept, rebuilder: &Rebuilder, file: &str) -> PathBuf {
        self.root.join(kind.directory()).join(rebuilder.as_str()).join(file)
    }

    /// Gives `bytes` the name `path` unless it is taken. On return one or the other is on the disk.
    fn place(&self, path: &Path, bytes: &[u8]) -> Result<Named, EngineError> {
        let parent = path.parent().expect("below the engine's directory");
        fs::create_dir_all(parent).map_err(failed("making", parent))?;
        let aside = self.root.join("aside");
        let mut file = tempfile::NamedTempFile::new_in(&aside).map_err(failed("creating a file in", &aside))?;
        file.write_all(bytes).map_err(failed("writing", file.path()))?;
        file.as_file().sync_all().map_err(failed("syncing", file.path()))?;
        let named = match fs::hard_link(file.path(), path) {
            Ok(()) => Named::Now,
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Named::Before,
            Err(error) => return Err(failed("naming", path)(error)),
        };
        // Also where another was faster: it may not have come to this yet.
        File::open(parent).and_then(|directory| directory.sync_all()).map_err(failed("syncing", parent))?;
        Ok(named)
    }

    fn read(&self, path: &Path) -> Result<Option<Vec<u8>>, EngineError> {
        match fs::read(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            read => read.map(Some).map_err(failed("reading", path)),
        }
    }

    /// Files a job, unless one with its id is there.
    pub(super) fn keep_job(&self, filed: &Filed) -> Result<Named, EngineError> {
        let Filed { job, priority, place } = filed;
        let file = JobFile {
            place: *place,
            priority: priority.as_str().into(),
            platform: job.platform.to_string(),
            rebuilders: job.rebuilders.iter().map(Rebuilder::to_string).collect(),
            payload: BASE64.encode(job.payload()),
        };
        self.place(&self.job_path(&job.id()), &json(&file))
    }

    /// The job, if it is retained.
    pub(super) fn job(&self, id: &JobId) -> Result<Option<Filed>, EngineError> {
        let path = self.job_path(id);
        let Some(bytes) = self.read(&path)? else { return Ok(None) };
        let corrupt = |why: String| EngineError::Corrupt { what: format!("job {}", path.display()), why };
        let file: JobFile = serde_json::from_slice(&bytes).map_err(|e| corrupt(e.to_string()))?;
        let payload = BASE64.decode(file.payload.as_bytes()).map_err(|e| corrupt(e.to_string()))?;
        let platform = file.platform.parse().map_err(|e| corrupt(format!("{e}")))?;
        let rebuilders: Result<BTreeSet<Rebuilder>, _> = file.rebuilders.iter().map(|name| name.parse()).collect();
        let job = Job::new(payload, platform, rebuilders.map_err(|e| corrupt(e.to_string()))?);
        if job.id() != *id {
            return Err(corrupt(format!("its payload has the digest {}", job.id())));
        }
        let known = Priority::ALL.into_iter().find(|priority| priority.as_str() == file.priority);
        let priority = known.ok_or_else(|| corrupt(format!("priority {:?} is none", file.priority)))?;
        Ok(Some(Filed { job, priority, place: file.place }))
    }

    pub(super) fn remove_job(&self, id: &JobId) -> Result<(), EngineError> {
        let path = self.job_path(id);
        match fs::remove_file(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            removed => {
                let parent = path.parent().expect("below the engine's directory");
                removed.and_then(|()| File::open(parent)?.sync_all()).map_err(failed("removing", &path))
            }
        }
    }

    /// Ids of the jobs that are there.
    pub(super) fn jobs(&self) -> Result<Vec<JobId>, EngineError> {
        let names = names_in(&self.root.join("jobs"))?;
        Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
    }

    /// Everything that records are about.
    pub(super) fn kept(&self) -> Result<Vec<Row>, EngineError> {
        let mut rows = Vec::new();
        for kind in Kept::ALL {
            let directory = self.root.join(kind.directory());
            for rebuilder in names_in(&directory)? {
                let Ok(name) = rebuilder.parse::<Rebuilder>() else { continue };
                for file in names_in(&directory.join(&rebuilder))? {
                    rows.push(Row { kind, rebuilder: name.clone(), file });
                }
            }
        }
        Ok(rows)
    }

    /// Keeps an answer as the result, unless there is one.
    pub(super) fn keep_result(&self, rebuilder: &Rebuilder, answer: &Answer) -> Result<Named, EngineError> {
        self.place(&self.kept_path(Kept::Result, rebuilder, &answer.job.to_string()), &print(answer))
    }

    /// Keeps an answer that contradicts the result; the name of its file.
    pub(super) fn keep_conflict(&self, rebuilder: &Rebuilder, answer: &Answer) -> Result<String, EngineError> {
        let name = format!("{}-{}", answer.job, answer.distinction());
        self.place(&self.kept_path(Kept::Conflict, rebuilder, &name), &print(answer))?;
        Ok(name)
    }

    pub(super) fn keep_letter(&self, rebuilder: &Rebuilder, job: &JobId, why: &str) -> Result<(), EngineError> {
        self.place(&self.kept_path(Kept::Letter, rebuilder, &job.to_string()), why.as_bytes()).map(drop)
    }

    /// The result of a job, if there is one.
    pub(super) fn result(&self, rebuilder: &Rebuilder, job: &JobId) -> Result<Option<Answer>, EngineError> {
        self.answer(&self.kept_path(Kept::Result, rebuilder, &job.to_string()))
    }

    fn answer(&self, path: &Path) -> Result<Option<Answer>, EngineError> {
        let Some(bytes) = self.read(path)? else { return Ok(None) };
        let corrupt = |why: String| EngineError::Corrupt { what: format!("answer {}", path.display()), why };
        let file: AnswerFile = serde_json::from_slice(&bytes).map_err(|e| corrupt(e.to_string()))?;
        let document = BASE64.decode(file.document.as_bytes()).map_err(|e| corrupt(e.to_string()))?;
        Ok(Some(Answer { job: file.job, status: file.status, outputs: file.outputs, document }))
    }

    /// What a row is about.
    pub(super) fn record(&self, row: &Row) -> Result<Record, EngineError> {
        let path = self.kept_path(row.kind, &row.rebuilder, &row.file);
        let gone = || EngineError::Corrupt { what: format!("record {}", path.display()), why: "it is gone".into() };
        let rebuilder = row.rebuilder.clone();
        Ok(match row.kind {
            Kept::Result => Record::Result { rebuilder, answer: self.answer(&path)?.ok_or_else(gone)? },
            Kept::Conflict => Record::Conflict { rebuilder, answer: self.answer(&path)?.ok_or_else(gone)? },
            Kept::Letter => {
                let why = String::from_utf8_lossy(&self.read(&path)?.ok_or_else(gone)?).into_owned();
                Record::DeadLetter { rebuilder, job: row.file.parse().map_err(|_| gone())?, why }
            }
        })
    }
}

fn print(answer: &Answer) -> Vec<u8> {
    json(&AnswerFile {
        job: answer.job,
        status: answer.status,
        outputs: answer.outputs.clone(),
        document: BASE64.encode(&answer.document),
    })
}

fn json(file: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(file).expect("texts and maps with text keys are always JSON")
}

/// Names in a directory, sorted.
fn names_in(directory: &Path) -> Result<Vec<String>, EngineError> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed("listing", directory))? {
        let entry = entry.map_err(failed("listing", directory))?;
        names.extend(entry.file_name().into_string().ok());
    }
    names.sort_unstable();
    Ok(names)
}
