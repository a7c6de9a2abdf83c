//! Message catalogues of gettext (`.mo`; GNU gettext manual, "The Format of GNU MO Files").

use std::collections::BTreeMap;

/// How a catalogue begins, in the one byte order and the other.
pub const MAGIC: [[u8; 4]; 2] = [[0xde, 0x12, 0x04, 0x95], [0x95, 0x04, 0x12, 0xde]];

/// Why bytes are not a catalogue.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GettextError {
    /// It does not begin as one.
    #[error("no message catalogue begins here")]
    Magic,
    /// A table or a message lies outside of the file.
    #[error("message {0} lies outside of the file")]
    Outside(usize),
}

/// The messages of a catalogue with their translations. The empty message is the header: lines of `Name: value`.
pub fn messages(bytes: &[u8]) -> Result<BTreeMap<&[u8], &[u8]>, GettextError> {
    let big = match bytes.first_chunk() {
        Some(magic) if *magic == MAGIC[0] => false,
        Some(magic) if *magic == MAGIC[1] => true,
        _ => return Err(GettextError::Magic),
    };
    let number = |at: usize| -> Option<usize> {
        let raw = *bytes.get(at..)?.first_chunk()?;
        Some(if big { u32::from_be_bytes(raw) } else { u32::from_le_bytes(raw) } as usize)
    };
    let text = |table: usize, index: usize| -> Option<&[u8]> {
        let at = table.checked_add(index.checked_mul(8)?)?;
        let (length, offset) = (number(at)?, number(at.checked_add(4)?)?);
        bytes.get(offset..)?.get(..length)
    };
    let (Some(count), Some(originals), Some(translations)) = (number(8), number(12), number(16)) else {
        return Err(GettextError::Outside(0));
    };
    let mut messages = BTreeMap::new();
    for index in 0..count {
        let outside = || GettextError::Outside(index);
        messages.insert(text(originals, index).ok_or_else(outside)?, text(translations, index).ok_or_else(outside)?);
    }
    Ok(messages)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn catalogue() -> Vec<u8> {
        let mut bytes = vec![0xde, 0x12, 0x04, 0x95];
        for number in [0_u32, 1, 28, 36, 0, 0, 1, 44, 2, 46] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(b"a\0xy\0");
        bytes
    }

    #[test]
    fn messages_are_found_with_their_translations() {
        assert_eq!(messages(&catalogue()), Ok(BTreeMap::from([(&b"a"[..], &b"xy"[..])])));
    }

    #[test]
    fn what_lies_outside_is_refused_however_many_are_claimed() {
        let mut many = catalogue();
        many[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(matches!(messages(&many), Err(GettextError::Outside(_))));
        for end in 0..catalogue().len() - 1 {
            assert!(messages(&catalogue()[..end]).is_err(), "{end}");
        }
    }
}
