//! Build logs: zstd, one file each.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::sync::Arc;

use kiln_model::name::Name;

use super::error::{StoreError, failed};
use super::session::Session;
use super::{Store, durable};

/// Enough for text, cheap enough to keep up with any build.
const LEVEL: i32 = 3;

/// Takes the output of a build. What is not [finished](LogWriter::finish) is gone when dropped.
pub struct LogWriter {
    encoder: zstd::Encoder<'static, File>,
    temporary: PathBuf,
    logs: PathBuf,
    /// Keeps the temporary name.
    _session: Arc<Session>,
}

impl std::fmt::Debug for LogWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("LogWriter").field(&self.temporary).finish()
    }
}

impl Write for LogWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.encoder.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.encoder.flush()
    }
}

impl LogWriter {
    /// Ends the log, and gives it its name; a log of that name is replaced. On return it is on the disk.
    pub fn finish(mut self, name: &Name) -> Result<PathBuf, StoreError> {
        self.encoder.do_finish().map_err(failed("writing", &self.temporary))?;
        self.encoder.get_ref().sync_all().map_err(failed("syncing", &self.temporary))?;
        let place = self.logs.join(format!("{name}.zst"));
        durable::rename(&self.temporary, &place)?;
        Ok(place)
    }
}

impl Drop for LogWriter {
    fn drop(&mut self) {
        // After `finish` there is nothing under this name.
        std::fs::remove_file(&self.temporary).ok();
    }
}

impl Store {
    /// Starts a log.
    pub fn log_writer(&self) -> Result<LogWriter, StoreError> {
        let temporary = self.session.private_name();
        let file = File::create_new(&temporary).map_err(failed("creating", &temporary))?;
        let encoder = zstd::Encoder::new(file, LEVEL).map_err(failed("writing", &temporary))?;
        Ok(LogWriter { encoder, temporary, logs: self.layout.logs(), _session: Arc::clone(&self.session) })
    }

    /// Reads the log called `name`, if there is one.
    pub fn log(&self, name: &Name) -> Result<Option<Box<dyn Read>>, StoreError> {
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
