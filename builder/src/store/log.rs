//! Build logs: zstd, one file each.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::sync::Arc;

use kiln_model::digest::Digest;

use super::Store;
use super::error::{StoreError, failed};
use super::session::Session;

/// Enough for text, cheap enough to keep up with any build.
const LEVEL: i32 = 3;
/// A log up to this size is compressed when it ends: the tables of a stream cost more than most builds say.
const SMALL: usize = 64 << 10;

/// Takes the output of a build. What is not [finished](LogWriter::finish) is gone when dropped.
pub struct LogWriter {
    said: Said,
    logs: PathBuf,
    session: Arc<Session>,
}

enum Said {
    Little(Vec<u8>),
    Much { encoder: zstd::Encoder<'static, File>, temporary: PathBuf },
}

impl std::fmt::Debug for LogWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("LogWriter").field(&self.logs).finish()
    }
}

impl Write for LogWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.said {
            Said::Little(said) if said.len() + bytes.len() <= SMALL => {
                said.extend_from_slice(bytes);
                Ok(bytes.len())
            }
            Said::Little(said) => {
                let said = std::mem::take(said);
                let temporary = self.session.private_name();
                let encoder = zstd::Encoder::new(File::create_new(&temporary)?, LEVEL)?;
                self.said = Said::Much { encoder, temporary };
                self.write_all(&said)?;
                self.write(bytes)
            }
            Said::Much { encoder, .. } => encoder.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.said {
            Said::Little(_) => Ok(()),
            Said::Much { encoder, .. } => encoder.flush(),
        }
    }
}

impl LogWriter {
    /// Ends the log, and gives it its name: the digest of what it says. One of that name says the same, and stays.
    pub fn finish(mut self, name: &Digest) -> Result<PathBuf, StoreError> {
        let place = self.logs.join(format!("{name}.zst"));
        if place.exists() {
            return Ok(place);
        }
        match &mut self.said {
            Said::Little(said) => {
                let bytes = zstd::bulk::compress(said, LEVEL).map_err(failed("compressing", &place))?;
                self.session.making()?.write(&place, &bytes)?;
            }
            Said::Much { encoder, temporary } => {
                encoder.do_finish().map_err(failed("writing", temporary))?;
                let _making = self.session.making()?;
                std::fs::rename(temporary, &place).map_err(failed("renaming to", &place))?;
            }
        }
        Ok(place)
    }
}

impl Drop for LogWriter {
    fn drop(&mut self) {
        if let Said::Much { temporary, .. } = &self.said {
            // After `finish` there is nothing under this name.
            std::fs::remove_file(temporary).ok();
        }
    }
}

impl Store {
    /// Starts a log.
    pub fn log_writer(&self) -> LogWriter {
        let (said, session) = (Said::Little(Vec::new()), Arc::clone(&self.session));
        LogWriter { said, logs: self.layout.logs(), session }
    }

    /// Reads the log with this digest, if there is one.
    pub fn log(&self, name: &Digest) -> Result<Option<Box<dyn Read>>, StoreError> {
        let path = self.layout.logs().join(format!("{name}.zst"));
        match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            file => {
                let decoder = file.and_then(zstd::Decoder::new).map_err(failed("reading", &path))?;
                Ok(Some(Box::new(decoder)))
            }
        }
    }
}
