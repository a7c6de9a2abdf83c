//! What a file is, by how it begins and, where that does not tell, by what it is called.

use std::io;

use kiln_model::format::stream::Stream;
use kiln_model::format::{ar, elf, gettext, png, zip};

use super::blob::Blob;

/// Bytes that are looked at.
const HEAD: usize = 512;

/// A format that is looked into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// A compressed stream.
    Stream(Stream),
    /// `ar`: a package, or a library.
    Ar,
    /// tar.
    Tar,
    /// zip.
    Zip,
    /// ELF.
    Elf,
    /// A PNG image.
    Png,
    /// A message catalogue.
    Catalogue,
    /// A byte-compiled Python module.
    Module,
    /// A text, or any other bytes.
    Other,
}

impl Format {
    /// What `blob`, which is called `name`, is.
    pub(super) fn of(name: &str, blob: &Blob) -> io::Result<Self> {
        let head = blob.head(HEAD)?;
        if let Some(stream) = Stream::of(&head) {
            return Ok(Self::Stream(stream));
        }
        Ok(match head.as_slice() {
            h if h.starts_with(ar::MAGIC) => Self::Ar,
            h if h.starts_with(elf::MAGIC) => Self::Elf,
            h if h.starts_with(png::MAGIC) => Self::Png,
            h if h.starts_with(zip::LOCAL) || h.starts_with(zip::END) => Self::Zip,
            h if gettext::MAGIC.iter().any(|magic| h.starts_with(magic)) => Self::Catalogue,
            h if h.get(257..262) == Some(b"ustar") => Self::Tar,
            h if name.ends_with(".pyc") && h.get(2..4) == Some(b"\r\n") => Self::Module,
            _ => Self::Other,
        })
    }

    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Stream(stream) => stream.as_str(),
            Self::Ar => "ar archive",
            Self::Tar => "tar archive",
            Self::Zip => "zip archive",
            Self::Elf => "ELF file",
            Self::Png => "PNG image",
            Self::Catalogue => "message catalogue",
            Self::Module => "byte-compiled module",
            Self::Other => "file of no known format",
        }
    }
}
