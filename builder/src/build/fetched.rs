//! `builtin:fetchurl`: an output that is fetched instead of built.
//!
//! The derivation says an address and a digest; whose bytes are taken is configuration, mirrors first (ARCHITECTURE.md, decision
//! 1). Nothing runs and nothing is believed: what does not have the digest is not the file, and the next place is asked. With
//! `unpack` the file is an archive as `nix-store --dump` writes it, compressed with xz if its address says so; with `executable`
//! it may be run (Nix 2.8, `builtins/fetchurl.cc`).

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{BufReader, Read};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::{Instant, SystemTime};

use data_encoding::BASE64;
use kiln_model::contract::FetchUrl;
use kiln_model::derivation::Output as Promised;
use kiln_model::digest::Digest;
use kiln_model::outcome::{Outcome, Output, Status};
use kiln_model::rewrite::Rewrites;
use kiln_model::store_path::{Algorithm, Method};

use super::float::Settled;
use super::graph::Node;
use super::provide::Provided;
use super::run::{Attempt, Run, moment};
use super::schedule::nothing_ran;
use super::{BuildError, Builder, io};
use crate::fetch::{Archive, FetchError, Wanted};
use crate::nix::{content_digest, decoder_of_xz, unpack};

/// More than any archive that is fetched unpacks to.
const LARGEST_TREE: u64 = 64 << 30;

impl Builder<'_> {
    /// Fetches the output of `node`, whatever the store has already.
    pub(super) fn fetch_url(&self, node: &Node, provided: &Provided, fetch: &FetchUrl) -> Result<Attempt, BuildError> {
        let (started, clock) = (SystemTime::now(), Instant::now());
        let private = self.store.private_dir()?;
        let store = private.path().join("store");
        DirBuilder::new().mode(0o700).create(&store).map_err(io("creating", &store))?;
        let target = provided.target(node);
        let promised = target.derivation.outputs.iter().zip(target.outputs.values()).next();
        let (Promised::Fixed { method, algorithm, digest, .. }, path) =
            promised.map(|((_, output), path)| (output, path)).expect("a derivation has an output")
        else {
            unreachable!("an output that is fetched is fixed: the contract says so")
        };
        let place = store.join(path.base_name());
        let refused = |source| BuildError::FetchUrl { target: node.shown.display().to_string(), source };
        match (<[u8; 32]>::try_from(digest.as_slice()), fetch) {
            // The digest is that of the file itself: it may be in the cache of files, and can be resumed.
            (Ok(sha256), FetchUrl { unpack: false, .. })
                if (*method, *algorithm) == (Method::Flat, Algorithm::Sha256) =>
            {
                let sha256 = Digest::from_bytes(sha256);
                let wanted = Wanted { archive: Archive::Address, path: fetch.url.clone(), size: None, sha256 };
                let files = self.archives.pinned(std::slice::from_ref(&wanted)).map_err(refused)?;
                lay(&files[0], &place, fetch)?.map_err(|message| refused(FetchError::Settings(message)))?;
            }
            _ => {
                let mut failed = None;
                let judged = self.archives.judged(&fetch.url, &mut |file| match self.is_promised(
                    file,
                    &place,
                    fetch,
                    (*method, *algorithm),
                    digest,
                ) {
                    Ok(judgement) => judgement,
                    Err(error) => {
                        failed = Some(error);
                        Ok(())
                    }
                });
                match failed {
                    Some(error) => return Err(error),
                    None => judged.map_err(refused)?,
                }
            }
        }
        let (Settled { drafts, taken, placed }, message) = match self.take(node, provided, &store)? {
            Ok(settled) => (settled, None),
            Err(message) => (Settled::default(), Some(message)),
        };
        let outputs = taken.iter().map(|(name, taken)| {
            let path = placed[name].path.to_string();
            let (nar_hash, nar_size, manifest) = (taken.nar_hash, taken.nar_size, taken.manifest.clone());
            (name.clone(), Output { path, nar_hash, nar_size, manifest })
        });
        let outcome = Outcome {
            status: if message.is_none() { Status::Built } else { Status::Failed },
            outputs: outputs.collect(),
            started: moment(started),
            seconds: clock.elapsed(),
            failure: message.map(super::run::failure),
            ..nothing_ran(self.store, node)
        };
        Ok(Attempt { run: Run { outcome, taken, placed, kept: None }, drafts, rest: None })
    }

    /// Lays what was fetched where the output belongs, if it has the digest; the inner error says what it has.
    fn is_promised(
        &self,
        file: &Path,
        place: &Path,
        fetch: &FetchUrl,
        (method, algorithm): (Method, Algorithm),
        digest: &[u8],
    ) -> Result<Result<(), String>, BuildError> {
        remove(place)?;
        if let Err(message) = lay(file, place, fetch)? {
            return Ok(Err(message));
        }
        let spelled = |digest: &[u8]| format!("{algorithm}-{}", BASE64.encode(digest));
        let metadata = place.symlink_metadata().map_err(io("looking at", place))?;
        if method == Method::Flat && !metadata.is_file() {
            return Ok(Err("unpacks to no file, and its digest is flat".into()));
        }
        let found = content_digest(place, method, algorithm, &Rewrites::default())?;
        Ok(match found == digest {
            true => Ok(()),
            false => Err(format!("is {}, expected {}", spelled(&found), spelled(digest))),
        })
    }
}

/// Makes the output of the file; the inner error is the file's fault.
fn lay(file: &Path, place: &Path, fetch: &FetchUrl) -> Result<Result<(), String>, BuildError> {
    if fetch.unpack {
        let opened = BufReader::with_capacity(128 << 10, File::open(file).map_err(io("opening", file))?);
        let mut reader: Box<dyn Read> = match fetch.url.ends_with(".xz") {
            true => Box::new(decoder_of_xz(opened).map_err(io("decompressing", file))?),
            false => Box::new(opened),
        };
        match unpack(&mut (&mut reader).take(LARGEST_TREE), place) {
            Ok(()) => {}
            Err(crate::nix::UnpackError::Nar(error)) => {
                return Ok(Err(format!("is no archive: {}", crate::nix::chain(&error))));
            }
            Err(crate::nix::UnpackError::Io { path, source }) => return Err(io("unpacking to", &path)(source)),
            Err(crate::nix::UnpackError::Exists { path }) => {
                return Err(io("unpacking to", &path)(std::io::ErrorKind::AlreadyExists.into()));
            }
        }
    } else {
        fs::copy(file, place).map_err(io("copying to", place))?;
    }
    let metadata = place.symlink_metadata().map_err(io("looking at", place))?;
    if !metadata.is_symlink() {
        let may_run =
            metadata.is_dir() || fetch.executable || (fetch.unpack && metadata.permissions().mode() & 0o100 != 0);
        // Whatever kiln's own umask is.
        let mode = if may_run { 0o755 } else { 0o644 };
        fs::set_permissions(place, Permissions::from_mode(mode)).map_err(io("changing the mode of", place))?;
    }
    Ok(Ok(()))
}

/// What an earlier place had.
fn remove(place: &Path) -> Result<(), BuildError> {
    let removed = match place.symlink_metadata() {
        Err(_) => return Ok(()),
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(place),
        Ok(_) => fs::remove_file(place),
    };
    removed.map_err(io("removing", place))
}
