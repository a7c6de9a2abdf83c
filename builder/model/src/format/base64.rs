//! Base64 with one spelling for some bytes: padding is required, the bits that say nothing are zero, and nothing stands behind the
//! padding.
//!
//! The decoder below this also takes one text after another, each with its padding: a signature or key that somebody else wrote is
//! never given to it as it is. DSSE asks for the URL-safe alphabet as well.

use data_encoding::{BASE64, BASE64URL};

/// In the standard alphabet, with padding.
pub fn encode(bytes: &[u8]) -> String {
    BASE64.encode(bytes)
}

/// The bytes of a text in the standard alphabet (RFC 4648, 4), if it is their one spelling.
pub fn decode(text: &[u8]) -> Option<Vec<u8>> {
    BASE64.decode(single(text)?).ok()
}

/// The same, or in the URL-safe alphabet (RFC 4648, 5).
pub fn decode_either(text: &[u8]) -> Option<Vec<u8>> {
    let text = single(text)?;
    BASE64.decode(text).or_else(|_| BASE64URL.decode(text)).ok()
}

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
        assert_eq!(decode_either(b"+//++w==").as_deref(), Some(&bytes[..]));
        assert_eq!(decode_either(b"-__--w==").as_deref(), Some(&bytes[..]));
        assert_eq!(decode_either(b"+__--w=="), None);
        assert_eq!(decode_either(b"").as_deref(), Some(&b""[..]));
    }

    #[test]
    fn other_spellings_of_the_same_bytes_are_refused() {
        for bad in ["+//++w", "+//++w=", "+//++x==", "+//+ +w==", "+//++w==\n", "====", "-__--x==", "+//++w==AAAA"] {
            assert_eq!(decode_either(bad.as_bytes()), None, "{bad:?}");
            assert_eq!(decode(bad.as_bytes()), None, "{bad:?}");
        }
    }
}
