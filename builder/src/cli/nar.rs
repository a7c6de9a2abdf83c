//! `kiln nar`: make, unpack and look into archives.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use clap::{Args, Subcommand};
use kiln_model::format::nar::{Event, Limits, NarError, decode};
use kiln_model::tree::EntryPath;

use super::{Failure, Session};
use crate::exit::{self, Kind};
use crate::nix::{DumpError, dump, unpack};

/// Make, unpack and look into archives.
#[derive(Debug, Args)]
pub(super) struct NarCommand {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write the archive of a tree to stdout.
    Dump {
        /// What to read; not followed if it is a link.
        tree: PathBuf,
    },
    /// Unpack the archive on stdin.
    Restore {
        /// Where to; nothing may be there.
        tree: PathBuf,
    },
    /// List what is in an archive.
    Ls {
        /// The archive; `-` is stdin.
        archive: PathBuf,
    },
    /// Write one file of an archive to stdout.
    Cat {
        /// The archive; `-` is stdin.
        archive: PathBuf,
        /// The file, relative to the root; empty if the root is the file.
        file: PathBuf,
    },
}

/// What an ordinary user may ask for (pipe(7), pipe-max-size).
const LARGEST_PIPE: usize = 1 << 20;

const ANY: Limits = Limits { entries: u64::MAX, bytes: u64::MAX };

impl NarCommand {
    pub(super) fn run(self, session: &Session) -> Result<u8, Failure> {
        match self.command {
            Command::Dump { tree } => {
                // Who reads, reads in larger pieces then; what is no pipe does without.
                rustix::pipe::fcntl_setpipe_size(io::stdout(), LARGEST_PIPE).ok();
                let mut out = BufWriter::with_capacity(256 << 10, io::stdout().lock());
                let dumped = dump(&tree, &mut out).and_then(|()| out.flush().map_err(DumpError::Write));
                match dumped {
                    Err(error) if !error.is_broken_pipe() => return Err(Failure::new(Kind::Host, error)),
                    // Who closed the pipe has read enough.
                    Ok(()) | Err(_) => {}
                }
            }
            Command::Restore { tree } => unpack(&mut io::stdin().lock(), &tree)?,
            Command::Ls { archive } => session.print_text(&list(&mut *opened(&archive)?)?)?,
            Command::Cat { archive, file } => cat(&mut *opened(&archive)?, &file)?,
        }
        Ok(exit::YES)
    }
}

fn opened(archive: &Path) -> Result<Box<dyn Read>, Failure> {
    if archive == Path::new("-") {
        return Ok(Box::new(BufReader::new(io::stdin().lock())));
    }
    let file = File::open(archive).with_context(|| format!("opening {}", archive.display()));
    Ok(Box::new(BufReader::new(file.map_err(|error| Failure { kind: Kind::Host, error })?)))
}

fn refused(error: NarError) -> Failure {
    let kind = match error {
        NarError::Io(ref error) if error.kind() != io::ErrorKind::UnexpectedEof => Kind::Host,
        _ => Kind::BadInput,
    };
    Failure::new(kind, error)
}

/// Kind, size and path of each entry, in the archive's order. Bytes of names that would steer a terminal are escaped.
fn list(archive: &mut dyn Read) -> Result<String, Failure> {
    let mut text = String::new();
    let mut open: Vec<EntryPath> = Vec::new();
    decode(archive, &ANY, |event| {
        let at = |name: Option<&[u8]>| match (open.last(), name) {
            (Some(directory), Some(name)) => directory.join(name),
            _ => EntryPath::default(),
        };
        let mut line = |kind: char, size: u64, path: &EntryPath, target: Option<&[u8]>| {
            let target = target.map(|target| format!(" -> {}", EntryPath::from(target))).unwrap_or_default();
            text.push_str(&format!("{kind} {size:>12} ./{path}{target}\n"));
        };
        match event {
            Event::DirectoryStart { name } => {
                let path = at(name);
                line('d', 0, &path, None);
                open.push(path);
            }
            Event::DirectoryEnd => drop(open.pop()),
            Event::Symlink { name, target } => line('l', 0, &at(name), Some(target)),
            Event::File { name, executable, size, .. } => {
                line(if executable { 'x' } else { 'f' }, size, &at(name), None);
            }
        }
        Ok(())
    })
    .map_err(refused)?;
    Ok(text)
}

fn cat(archive: &mut dyn Read, file: &Path) -> Result<(), Failure> {
    let wanted = EntryPath::from(file.as_os_str().as_bytes());
    let mut open: Vec<EntryPath> = Vec::new();
    let mut found = None;
    decode(archive, &ANY, |event| {
        let at = |name: Option<&[u8]>| match (open.last(), name) {
            (Some(directory), Some(name)) => directory.join(name),
            _ => EntryPath::default(),
        };
        match event {
            Event::DirectoryStart { name } => {
                let path = at(name);
                open.push(path);
            }
            Event::DirectoryEnd => drop(open.pop()),
            Event::Symlink { .. } => {}
            Event::File { name, mut contents, .. } => {
                if at(name) == wanted {
                    let copied = io::copy(&mut contents, &mut io::stdout().lock());
                    found = Some(copied);
                }
            }
        }
        Ok(())
    })
    .map_err(refused)?;
    match found {
        Some(Err(error)) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        Some(Ok(_) | Err(_)) => Ok(()),
        None => Err(Failure::new(Kind::BadInput, anyhow!("the archive has no file {}", file.display()))),
    }
}
