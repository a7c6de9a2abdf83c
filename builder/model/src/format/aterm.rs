//! ATerm, as far as a `.drv` uses it: strings, lists, tuples.
//!
//! Written by hand because Nix's strings are bytes and the crate's are not. The reader takes exactly
//! what the writer writes: escapes `\" \\ \n \r \t` and nothing else escaped, no blanks. It knows nothing of derivations.

/// Why bytes are not the expected term.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("byte {offset}: expected {expected}")]
pub struct AtermError {
    /// Where.
    pub offset: usize,
    /// What should have been there.
    pub expected: &'static str,
}

/// Reads terms off the front of a text.
#[derive(Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl<'a> Reader<'a> {
    /// A reader at the start of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, offset: 0 }
    }

    /// How many bytes were read.
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// Reads exactly `text`.
    pub fn literal(&mut self, text: &'static str) -> Result<(), AtermError> {
        if self.rest().starts_with(text.as_bytes()) {
            self.offset += text.len();
            Ok(())
        } else {
            Err(self.expected(text))
        }
    }

    /// Reads a string and undoes its escapes.
    pub fn string(&mut self) -> Result<Vec<u8>, AtermError> {
        self.literal("\"")?;
        let mut string = Vec::new();
        loop {
            let plain = self
                .rest()
                .iter()
                .position(|byte| matches!(byte, b'"' | b'\\' | b'\n' | b'\r' | b'\t'))
                .ok_or_else(|| self.expected("the end of a string"))?;
            string.extend_from_slice(&self.rest()[..plain]);
            self.offset += plain;
            match self.rest() {
                [b'"', ..] => {
                    self.offset += 1;
                    return Ok(string);
                }
                [b'\\', escaped, ..] => {
                    string.push(match escaped {
                        b'"' | b'\\' => *escaped,
                        b'n' => b'\n',
                        b'r' => b'\r',
                        b't' => b'\t',
                        _ => return Err(self.expected("one of the escapes \\\" \\\\ \\n \\r \\t")),
                    });
                    self.offset += 2;
                }
                _ => return Err(self.expected("an escape")),
            }
        }
    }

    /// Reads `[element,…]`.
    pub fn list<E: From<AtermError>>(&mut self, mut element: impl FnMut(&mut Self) -> Result<(), E>) -> Result<(), E> {
        self.literal("[")?;
        if self.literal("]").is_ok() {
            return Ok(());
        }
        loop {
            element(self)?;
            if self.literal("]").is_ok() {
                return Ok(());
            }
            self.literal(",").map_err(|_| self.expected("',' or ']'"))?;
        }
    }

    /// Refuses anything after the last term.
    pub fn end(&self) -> Result<(), AtermError> {
        if self.rest().is_empty() { Ok(()) } else { Err(self.expected("the end of the file")) }
    }

    fn rest(&self) -> &'a [u8] {
        &self.bytes[self.offset..]
    }

    fn expected(&self, expected: &'static str) -> AtermError {
        AtermError { offset: self.offset, expected }
    }
}

/// Appends a string, escaped.
pub fn write_string(out: &mut Vec<u8>, string: &[u8]) {
    out.push(b'"');
    for &byte in string {
        match byte {
            b'"' | b'\\' => out.extend([b'\\', byte]),
            b'\n' => out.extend(b"\\n"),
            b'\r' => out.extend(b"\\r"),
            b'\t' => out.extend(b"\\t"),
            _ => out.push(byte),
        }
    }
    out.push(b'"');
}

/// Appends `[element,…]`.
pub fn write_list<T>(out: &mut Vec<u8>, elements: impl IntoIterator<Item = T>, mut write: impl FnMut(&mut Vec<u8>, T)) {
    out.push(b'[');
    for (index, element) in elements.into_iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write(out, element);
    }
    out.push(b']');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_string_reads_back(string: Vec<u8>) {
            let mut text = Vec::new();
            write_string(&mut text, &string);
            let mut reader = Reader::new(&text);
            prop_assert_eq!(reader.string(), Ok(string));
            prop_assert_eq!(reader.end(), Ok(()));
        }

        #[test]
        fn what_reads_is_what_is_written(text in "\"[ -~\n]*\"") {
            if let Ok(string) = Reader::new(text.as_bytes()).string() {
                let mut again = Vec::new();
                write_string(&mut again, &string);
                prop_assert!(text.as_bytes().starts_with(&again));
            }
        }
    }

    #[test]
    fn unknown_escapes_and_raw_newlines_are_refused() {
        for bad in ["\"a", "\"\\q\"", "\"a\nb\"", "\"\\", "a"] {
            assert!(Reader::new(bad.as_bytes()).string().is_err(), "{bad:?}");
        }
    }
}
