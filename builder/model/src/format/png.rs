//! The chunks of a PNG image (ISO/IEC 15948, section 5).

/// How an image begins.
pub const MAGIC: &[u8; 8] = b"\x89PNG\r\n\x1a\n";

/// A chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk<'a> {
    /// Its type: four letters.
    pub kind: [u8; 4],
    /// What it holds.
    pub data: &'a [u8],
}

/// Why bytes are not an image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PngError {
    /// It does not begin as one.
    #[error("no PNG image begins here")]
    Magic,
    /// A chunk is cut short.
    #[error("the chunk at byte {0} is cut short")]
    Cut(usize),
}

/// The chunks of an image, and what follows the last one.
pub fn chunks(bytes: &[u8]) -> Result<(Vec<Chunk<'_>>, &[u8]), PngError> {
    let mut rest = bytes.strip_prefix(MAGIC).ok_or(PngError::Magic)?;
    let mut chunks = Vec::new();
    while !rest.is_empty() {
        let cut = || PngError::Cut(bytes.len() - rest.len());
        let (head, after) = rest.split_first_chunk::<8>().ok_or_else(cut)?;
        let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let (data, after) = after.split_at_checked(length).ok_or_else(cut)?;
        let kind = [head[4], head[5], head[6], head[7]];
        rest = after.get(4..).ok_or_else(cut)?;
        chunks.push(Chunk { kind, data });
        if &kind == b"IEND" {
            break;
        }
    }
    Ok((chunks, rest))
}

impl Chunk<'_> {
    /// Its type as text.
    pub fn name(&self) -> String {
        self.kind.iter().map(|&b| char::from(b)).filter(char::is_ascii_graphic).collect()
    }

    /// What it says, if it is one that says something in words or as a time.
    pub fn text(&self) -> Option<String> {
        match &self.kind {
            b"tEXt" => Some(String::from_utf8_lossy(self.data).replace('\0', ": ")),
            b"tIME" => {
                let &[high, low, month, day, hour, minute, second] = self.data.first_chunk()?;
                let year = u16::from_be_bytes([high, low]);
                Some(format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}"))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(kind: &[u8; 4], data: &[u8]) -> Vec<u8> {
        [&(data.len() as u32).to_be_bytes(), &kind[..], data, b"crc."].concat()
    }

    #[test]
    fn chunks_are_read_until_the_last() {
        let time = [0x07, 0xe8, 1, 2, 3, 4, 5];
        let image =
            [&MAGIC[..], &chunk(b"tEXt", b"Software\0x"), &chunk(b"tIME", &time), &chunk(b"IEND", b""), b"rest"]
                .concat();
        let (chunks, rest) = chunks(&image).unwrap();
        assert_eq!(chunks.iter().map(Chunk::name).collect::<Vec<_>>(), ["tEXt", "tIME", "IEND"]);
        assert_eq!(chunks[0].text().as_deref(), Some("Software: x"));
        assert_eq!(chunks[1].text().as_deref(), Some("2024-01-02 03:04:05"));
        assert_eq!(rest, b"rest");
    }

    #[test]
    fn a_chunk_that_is_cut_short_is_refused() {
        let image = [&MAGIC[..], &chunk(b"IDAT", b"pixels")].concat();
        assert_eq!(chunks(&image[..image.len() - 1]), Err(PngError::Cut(8)));
        assert_eq!(chunks(b"\x89PNG"), Err(PngError::Magic));
    }
}
