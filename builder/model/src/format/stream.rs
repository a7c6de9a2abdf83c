//! Compressed streams: which one it is, and what its head says of how it was compressed.
//!
//! gzip (RFC 1952; its header has a module of its own), xz (the .xz file format 1.1), Zstandard (RFC 8878), bzip2.

/// A format of compressed streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stream {
    /// gzip.
    Gzip,
    /// xz.
    Xz,
    /// Zstandard.
    Zstd,
    /// bzip2.
    Bzip2,
}

impl Stream {
    /// The format that `head` is the beginning of.
    pub fn of(head: &[u8]) -> Option<Self> {
        match head {
            [0x1f, 0x8b, 8, ..] => Some(Self::Gzip),
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Some(Self::Xz),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Some(Self::Zstd),
            [b'B', b'Z', b'h', b'1'..=b'9', rest @ ..]
                if rest.starts_with(b"1AY&SY") || rest.starts_with(b"\x17rE8P\x90") =>
            {
                Some(Self::Bzip2)
            }
            _ => None,
        }
    }

    /// What it is called.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Xz => "xz",
            Self::Zstd => "zstd",
            Self::Bzip2 => "bzip2",
        }
    }

    /// What the head of a stream says of how it was compressed, beside a gzip header.
    pub fn parameters(self, head: &[u8]) -> Vec<(&'static str, String)> {
        match self {
            Self::Gzip => Vec::new(),
            Self::Xz => xz(head),
            Self::Zstd => zstd(head),
            Self::Bzip2 => {
                head.get(3).map(|&b| ("block size", format!("{}00 kB", char::from(b)))).into_iter().collect()
            }
        }
    }
}

fn xz(head: &[u8]) -> Vec<(&'static str, String)> {
    let mut all = Vec::new();
    let check = head.get(7).map(|check| match check {
        0 => "none".to_string(),
        1 => "crc32".into(),
        4 => "crc64".into(),
        10 => "sha256".into(),
        other => format!("type {other}"),
    });
    all.extend(check.map(|check| ("check", check)));
    // The first block: size, flags, optional sizes of the block, then filters.
    let Some((&[size, flags], mut rest)) = head.get(12..).and_then(|b| b.split_first_chunk::<2>()) else { return all };
    if size == 0 {
        return all;
    }
    all.push(("block sizes", if flags & 0xc0 != 0 { "written, as by several threads" } else { "not written" }.into()));
    for flag in [0x40, 0x80] {
        if flags & flag != 0 {
            let length = rest.iter().take(9).take_while(|b| **b & 0x80 != 0).count() + 1;
            rest = rest.get(length..).unwrap_or(&[]);
        }
    }
    if let ([0x21, 1, bits, ..], 0) = (rest, flags & 3) {
        let bits = u32::from(*bits).min(40);
        all.push(("dictionary", format!("{} KiB", (u64::from(2 | (bits & 1)) << (bits / 2 + 11)) >> 10)));
    }
    all
}

fn zstd(head: &[u8]) -> Vec<(&'static str, String)> {
    let Some(&descriptor) = head.get(4) else { return Vec::new() };
    let mut all = vec![("checksum", if descriptor & 4 != 0 { "written" } else { "not written" }.to_string())];
    if descriptor & 0x20 == 0
        && let Some(&window) = head.get(5)
    {
        let base = 1_u64 << (10 + (window >> 3));
        all.push(("window", format!("{} KiB", (base + base / 8 * u64::from(window & 7)) >> 10)));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_known_by_their_heads() {
        assert_eq!(Stream::of(b"\x1f\x8b\x08\0"), Some(Stream::Gzip));
        assert_eq!(Stream::of(b"\xfd7zXZ\0\0\x04"), Some(Stream::Xz));
        assert_eq!(Stream::of(b"\x28\xb5\x2f\xfd\x24"), Some(Stream::Zstd));
        assert_eq!(Stream::of(b"BZh91AY&SY"), Some(Stream::Bzip2));
        assert_eq!(Stream::of(b"BZh9 is how a text may begin"), None);
        assert_eq!(Stream::of(b""), None);
    }

    #[test]
    fn heads_say_how_it_was_compressed() {
        // xz -6 and xz -9, as xz 5.4 writes them.
        let six = b"\xfd7zXZ\0\0\x04\xe6\xd6\xb4\x46\x02\0\x21\x01\x16\0\0\0";
        let nine = b"\xfd7zXZ\0\0\x04\xe6\xd6\xb4\x46\x02\0\x21\x01\x1c\0\0\0";
        assert_eq!(Stream::Xz.parameters(six).last(), Some(&("dictionary", "8192 KiB".into())));
        assert_eq!(Stream::Xz.parameters(nine).last(), Some(&("dictionary", "65536 KiB".into())));
        assert_eq!(Stream::Bzip2.parameters(b"BZh9"), [("block size", "900 kB".into())]);
        for end in 0..six.len() {
            Stream::Xz.parameters(&six[..end]);
        }
    }
}
