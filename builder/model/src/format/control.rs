//! Control files (deb822): stanzas of `Field: value`, with folded values, as Debian's indices and source packages use them.
//!
//! [`Stanzas`] walks a text once and borrows every name and value from it, so that an index of fifty megabytes costs
//! little more than finding its line ends. A field that stands twice in a stanza, a line that is neither a field nor a
//! continuation, and a text past the bounds are refused with the line. It knows no field's meaning, and takes values as
//! they stand: a folded value keeps its line ends and leading blanks ([`text`] takes them off).
//! Reference: Debian Policy 5.1, deb822(5).

/// Fields in one stanza: Debian's own have at most some forty.
const FIELDS: usize = 1024;
/// Bytes in one stanza. The longest in Debian are source packages with thousands of binaries (some 300 kB).
const STANZA_BYTES: usize = 64 << 20;

/// Why a text is not a control file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// Neither a field, nor a continuation, nor a comment.
    #[error("line {line}: expected \"Field: value\" or a continuation that starts with a blank, found {found:?}")]
    NotAField {
        /// Where, from 1.
        line: usize,
        /// The line's beginning.
        found: String,
    },
    /// A continuation before any field.
    #[error("line {line}: a continuation without a field before it")]
    Orphan {
        /// Where, from 1.
        line: usize,
    },
    /// One field twice in a stanza.
    #[error("line {line}: field {field} stands twice in this stanza")]
    Twice {
        /// The second time, from 1.
        line: usize,
        /// Its name.
        field: String,
    },
    /// A character that no control file has.
    #[error("line {line}: the text has a NUL or is not UTF-8")]
    NotText {
        /// Where, from 1.
        line: usize,
    },
    /// More than any honest file has.
    #[error("line {line}: more than {limit} {what} in one stanza")]
    TooMuch {
        /// Where, from 1.
        line: usize,
        /// Of what.
        what: &'static str,
        /// The bound.
        limit: usize,
    },
}

/// One field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field<'a> {
    /// Its name as written.
    pub name: &'a str,
    /// Its value, blanks at both ends taken off, line ends inside kept.
    pub value: &'a str,
    /// Its line, from 1.
    pub line: usize,
}

/// One paragraph of fields.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stanza<'a> {
    fields: Vec<Field<'a>>,
}

/// The stanzas of a text, in order.
#[derive(Debug, Clone)]
pub struct Stanzas<'a> {
    text: &'a str,
    /// Offset of the next line.
    at: usize,
    /// Number of the next line, from 1.
    line: usize,
    stanza: Stanza<'a>,
}

/// Bytes as text, or the line where they stop being it.
pub fn text(bytes: &[u8]) -> Result<&str, ControlError> {
    std::str::from_utf8(bytes).map_err(|e| ControlError::NotText { line: line_of(bytes, e.valid_up_to()) })
}

fn line_of(bytes: &[u8], offset: usize) -> usize {
    bytes[..offset].iter().filter(|b| **b == b'\n').count() + 1
}

impl<'a> Stanza<'a> {
    /// All fields in order.
    pub fn fields(&self) -> &[Field<'a>] {
        &self.fields
    }

    /// The line of the first field, from 1.
    pub fn line(&self) -> usize {
        self.fields.first().map_or(1, |field| field.line)
    }

    /// The field of that name, in whichever case.
    pub fn field(&self, name: &str) -> Option<&Field<'a>> {
        self.fields.iter().find(|field| field.name.eq_ignore_ascii_case(name))
    }

    /// The value of the field of that name.
    pub fn value(&self, name: &str) -> Option<&'a str> {
        self.field(name).map(|field| field.value)
    }
}

impl<'a> Field<'a> {
    /// The value's lines that are not empty, blanks taken off, each with its number.
    pub fn lines(&self) -> impl Iterator<Item = (usize, &'a str)> + use<'a> {
        let first = self.line;
        let numbered = self.value.split('\n').enumerate().map(move |(n, line)| (first + n, line.trim_ascii()));
        numbered.filter(|(_, line)| !line.is_empty())
    }
}

impl<'a> Stanzas<'a> {
    /// The stanzas of `text`.
    pub fn new(text: &'a str) -> Self {
        Self { text, at: 0, line: 1, stanza: Stanza::default() }
    }

    /// The next stanza, valid until the one after it is asked for; `None` at the end.
    #[expect(clippy::should_implement_trait, reason = "lends its one stanza, which an Iterator cannot")]
    pub fn next(&mut self) -> Result<Option<&Stanza<'a>>, ControlError> {
        self.stanza.fields.clear();
        let start = self.at;
        // One bit per (length, first, last) of the names seen: a clear bit proves a name new, so that nearly no names
        // are compared.
        let mut seen = 0u64;
        // The field being read: its name, its line, and where its value starts. Its end is the end of the last line.
        while self.at < self.text.len() {
            let rest = &self.text.as_bytes()[self.at..];
            let length = memchr::memchr2(b'\n', 0, rest).unwrap_or(rest.len());
            if rest.get(length) == Some(&0) {
                return Err(ControlError::NotText { line: self.line });
            }
            let line = &self.text[self.at..self.at + length];
            let (number, begin) = (self.line, self.at);
            self.at += (length + 1).min(rest.len());
            self.line += 1;
            if self.at - start > STANZA_BYTES {
                return Err(ControlError::TooMuch { line: number, what: "bytes", limit: STANZA_BYTES });
            }
            match line.as_bytes().first() {
                Some(b'#') => continue,
                Some(b' ' | b'\t') if !line.trim_ascii().is_empty() => {
                    let Some(field) = self.stanza.fields.last_mut() else {
                        return Err(ControlError::Orphan { line: number });
                    };
                    // Both are slices of the text, and only comments can lie between them.
                    let from = field.value.as_ptr() as usize - self.text.as_ptr() as usize;
                    field.value = self.text[from..begin + length].trim_ascii_end();
                    continue;
                }
                None | Some(b' ' | b'\t' | b'\r') => {
                    if self.stanza.fields.is_empty() {
                        continue;
                    }
                    return Ok(Some(&self.stanza));
                }
                Some(_) => {}
            }
            let colon = memchr::memchr(b':', line.as_bytes());
            let name = colon.map(|colon| &line[..colon]).filter(|name| is_name(name));
            let (Some(colon), Some(name)) = (colon, name) else {
                return Err(ControlError::NotAField { line: number, found: line.chars().take(60).collect() });
            };
            let bytes = name.as_bytes();
            let ends = usize::from((bytes[0] | 32) ^ (bytes[bytes.len() - 1] | 32).wrapping_mul(5));
            let bit = 1u64 << ((bytes.len().wrapping_mul(7) ^ ends) & 63);
            if seen & bit != 0 && self.stanza.field(name).is_some() {
                return Err(ControlError::Twice { line: number, field: name.into() });
            }
            seen |= bit;
            if self.stanza.fields.len() == FIELDS {
                return Err(ControlError::TooMuch { line: number, what: "fields", limit: FIELDS });
            }
            // A slice of the text even if empty, so that a continuation can extend it.
            let value = &line[colon + 1..];
            let value = value.trim_ascii_end();
            let value = &value[value.len() - value.trim_ascii_start().len()..];
            self.stanza.fields.push(Field { name, value, line: number });
        }
        Ok(if self.stanza.fields.is_empty() { None } else { Some(&self.stanza) })
    }
}

/// Policy 5.1: printable ASCII but blank and colon, not starting with `#` or `-`.
fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.starts_with(['#', '-']) && name.bytes().all(|b| b.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &str) -> Result<Vec<Stanza<'_>>, ControlError> {
        let (mut stanzas, mut all) = (Stanzas::new(text), Vec::new());
        while let Some(stanza) = stanzas.next()? {
            all.push(stanza.clone());
        }
        Ok(all)
    }

    #[test]
    fn stanzas_are_parted_by_empty_lines_and_fields_may_be_folded() {
        let text = "\n\nPackage: a\nDescription: one\n two\n .\n\tthree  \nEmpty:\n\n \nPackage: b\n# remark\nLast:x";
        let stanzas = all(text).unwrap();
        assert_eq!(stanzas.len(), 2);
        assert_eq!(stanzas[0].value("description"), Some("one\n two\n .\n\tthree"));
        assert_eq!(stanzas[0].value("Empty"), Some(""));
        assert_eq!(stanzas[0].line(), 3);
        assert_eq!(stanzas[1].value("Last"), Some("x"));
        assert_eq!(stanzas[1].field("Last").unwrap().line, 13);
    }

    #[test]
    fn a_list_that_starts_on_the_next_line_keeps_its_line_numbers() {
        let stanzas = all("Files:\n a 1\n b 2\nX: y\n").unwrap();
        let lines: Vec<_> = stanzas[0].field("Files").unwrap().lines().collect();
        assert_eq!(lines, [(2, "a 1"), (3, "b 2")]);
    }

    #[test]
    fn a_field_twice_is_refused_in_any_case_with_its_line() {
        assert_eq!(all("A: 1\nB: 2\na: 3\n"), Err(ControlError::Twice { line: 3, field: "a".into() }));
        assert!(all("A: 1\n\nA: 2\n").is_ok());
    }

    #[test]
    fn what_is_no_field_is_refused_with_its_line() {
        assert!(matches!(all("A: 1\nno colon\n"), Err(ControlError::NotAField { line: 2, .. })));
        assert!(matches!(all(": 1\n"), Err(ControlError::NotAField { line: 1, .. })));
        assert!(matches!(all("two words: 1\n"), Err(ControlError::NotAField { line: 1, .. })));
        assert_eq!(all("\n folded\n"), Err(ControlError::Orphan { line: 2 }));
        assert_eq!(all("A: 1\nB: \0\n"), Err(ControlError::NotText { line: 2 }));
        assert_eq!(text(b"A: 1\nB: \xff\n"), Err(ControlError::NotText { line: 2 }));
    }

    #[test]
    fn more_fields_than_any_honest_stanza_has_are_refused() {
        let text: String = (0..=FIELDS).map(|n| format!("F{n}: x\n")).collect();
        assert!(matches!(all(&text), Err(ControlError::TooMuch { .. })));
    }
}
