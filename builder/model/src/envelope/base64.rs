//! Base64 in an envelope: written in the standard alphabet, read in that and the URL-safe one, as DSSE asks.
//!
//! Padding is required and the bits that say nothing are zero: otherwise one signature would have several spellings.

use data_encoding::{BASE64, BASE64URL};

pub(super) fn encode(bytes: &[u8]) -> String {
    BASE64.encode(bytes)
}

pub(super) fn decode(text: &str) -> Option<Vec<u8>> {
    let text = single(text.as_bytes())?;
    BASE64.decode(text).or_else(|_| BASE64URL.decode(text)).ok()
}

/// In the standard alphabet only.
pub(super) fn decode_standard(text: &[u8]) -> Option<Vec<u8>> {
    BASE64.decode(single(text)?).ok()
}

/// The decoder also takes one text after another, each with its padding.
fn single(text: &[u8]) -> Option<&[u8]> {
    let padding = memchr::memchr(b'=', text).unwrap_or(text.len());
    text[padding..].iter().all(|byte| *byte == b'=').then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_alphabets_are_read_but_not_mixed() {
        let bytes = [0xfb, 0xff, 0xfe, 0xfb];
        assert_eq!(encode(&bytes), "+//++w==");
        assert_eq!(decode("+//++w==").as_deref(), Some(&bytes[..]));
        assert_eq!(decode("-__--w==").as_deref(), Some(&bytes[..]));
        assert_eq!(decode("+__--w=="), None);
        assert_eq!(decode("").as_deref(), Some(&b""[..]));
    }

    #[test]
    fn other_spellings_of_the_same_bytes_are_refused() {
        for bad in ["+//++w", "+//++w=", "+//++x==", "+//+ +w==", "+//++w==\n", "====", "-__--x==", "+//++w==AAAA"] {
            assert_eq!(decode(bad), None, "{bad:?}");
        }
    }
}
