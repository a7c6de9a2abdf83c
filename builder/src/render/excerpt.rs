//! A difference's bytes as rows of a hex dump, both sides in step.

use kiln_model::report::Content;

/// Bytes in a row.
pub(super) const ROW: usize = 16;

/// One row of both sides.
pub(super) struct Row {
    /// Offset of its first byte in the files.
    pub(super) offset: u64,
    pub(super) first: Vec<Cell>,
    pub(super) second: Vec<Cell>,
}

/// One byte of one side.
#[derive(Clone, Copy)]
pub(super) struct Cell {
    pub(super) byte: u8,
    /// Whether the other side has another byte, or none, at this offset.
    pub(super) mark: Mark,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Mark {
    Same,
    Differs,
}

impl Cell {
    pub(super) fn hex(self) -> String {
        format!("{:02x}", self.byte)
    }

    pub(super) fn text(self) -> char {
        if (0x20..0x7f).contains(&self.byte) { char::from(self.byte) } else { '.' }
    }
}

/// Up to `most` rows: one before the first difference, then on as long as there are differences.
pub(super) fn rows(content: &Content, most: usize) -> Vec<Row> {
    let (first, second) = (content.first.as_bytes(), content.second.as_bytes());
    let side = |from: usize, own: &[u8], other: &[u8]| -> Vec<Cell> {
        let part = own.get(from..).unwrap_or(&[]).iter().take(ROW).enumerate();
        let mark = |i: usize, byte: u8| if other.get(from + i) == Some(&byte) { Mark::Same } else { Mark::Differs };
        part.map(|(i, &byte)| Cell { byte, mark: mark(i, byte) }).collect()
    };
    let first_row = usize::try_from(content.offset.saturating_sub(content.excerpt_offset)).unwrap_or(0) / ROW;
    let mut rows: Vec<Row> = (first_row.saturating_sub(1)..)
        .map(|row| row * ROW)
        .take_while(|&from| from < first.len().max(second.len()))
        .take(most)
        .map(|from| Row {
            offset: content.excerpt_offset + from as u64,
            first: side(from, first, second),
            second: side(from, second, first),
        })
        .collect();
    let differs = |row: &Row| row.first.iter().chain(&row.second).any(|cell| cell.mark == Mark::Differs);
    rows.truncate(rows.iter().rposition(differs).map_or(0, |last| last + 1));
    rows
}
