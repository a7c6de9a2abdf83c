//! Tiles: how C2SP's tlog-tiles cuts a log into files, and what each is called.
//!
//! A tile has up to 256 hashes of one level, a bundle up to 256 entries. Full ones never change; a partial one has its width in
//! its name, so that no name ever has other bytes. Knows nothing of where files are.

use std::fmt;
use std::str::FromStr;

use super::LogError;

/// Hashes of a full tile, entries of a full bundle.
pub const WIDTH: u64 = 256;
/// Bytes of the largest entry: its length is a `u16`.
pub const MOST_ENTRY_BYTES: usize = u16::MAX as usize;
/// Bytes of the largest bundle.
pub const MOST_BUNDLE_BYTES: usize = WIDTH as usize * (2 + MOST_ENTRY_BYTES);
/// Entries of the largest log: sizes are exact in every language's integers of 64 bits.
pub const MOST_ENTRIES: u64 = i64::MAX as u64;

/// Hashes have levels; level 8 would be that of a tree with more than 2^63 entries.
const LEVELS: u8 = 8;

/// What a tile has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// The entries themselves.
    Entries,
    /// Hashes of subtrees of 256^n entries.
    Hashes(u8),
}

/// One tile: its place, and how much of it there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tile {
    /// What is in it.
    pub level: Level,
    /// Which of that level, from the left.
    pub index: u64,
    /// How many hashes or entries it has, 1 to 256.
    pub width: u16,
}

impl Level {
    /// How many hashes or entries of this level a tree of `size` entries has.
    pub fn count(self, size: u64) -> u64 {
        match self {
            Self::Entries => size,
            Self::Hashes(level) => size.checked_shr(8 * u32::from(level)).unwrap_or(0),
        }
    }

    /// The tile that a tree of `size` entries has at `index`; none if it is right of the tree.
    pub fn tile(self, index: u64, size: u64) -> Option<Tile> {
        let left = self.count(size).checked_sub(index.checked_mul(WIDTH)?)?;
        let width = u16::try_from(left.min(WIDTH)).expect("256 fits");
        (width > 0).then_some(Tile { level: self, index, width })
    }

    /// All tiles of this level that a tree of `size` entries has, from the left.
    pub fn tiles(self, size: u64) -> impl Iterator<Item = Tile> {
        (0..self.count(size).div_ceil(WIDTH)).filter_map(move |index| self.tile(index, size))
    }

    /// The levels of hashes that a tree of `size` entries has.
    pub fn of_hashes(size: u64) -> impl Iterator<Item = Self> {
        (0..LEVELS).map(Self::Hashes).take_while(move |level| level.count(size) > 0)
    }
}

impl Tile {
    /// Whether it will not grow.
    pub fn is_full(&self) -> bool {
        u64::from(self.width) == WIDTH
    }

    /// The full tile at its place, where a log that no longer keeps the partial one has its hashes, too.
    pub fn full(self) -> Self {
        Self { width: WIDTH as u16, ..self }
    }

    /// Most bytes that it may have.
    pub fn most_bytes(&self) -> usize {
        match self.level {
            Level::Entries => usize::from(self.width) * (2 + MOST_ENTRY_BYTES),
            Level::Hashes(_) => usize::from(self.width) * 32,
        }
    }
}

impl fmt::Display for Tile {
    /// Its path: `tile/0/x001/x234/067`, `tile/entries/000.p/12`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.level {
            Level::Entries => f.write_str("tile/entries/")?,
            Level::Hashes(level) => write!(f, "tile/{level}/")?,
        }
        // 2^63 has 19 digits, seven groups of three.
        let groups: Vec<u64> = (0..7).map(|group| self.index / 1000_u64.pow(group) % 1000).collect();
        let last = groups.iter().rposition(|group| *group > 0).unwrap_or(0);
        for group in groups[1..=last].iter().rev() {
            write!(f, "x{group:03}/")?;
        }
        write!(f, "{:03}", groups[0])?;
        if !self.is_full() {
            write!(f, ".p/{}", self.width)?;
        }
        Ok(())
    }
}

impl FromStr for Tile {
    type Err = LogError;

    /// The one spelling of a path, nothing else.
    fn from_str(text: &str) -> Result<Self, LogError> {
        let refused = || LogError::TilePath { found: text.into() };
        let (level, rest) = text.strip_prefix("tile/").and_then(|rest| rest.split_once('/')).ok_or_else(refused)?;
        let level = match level {
            "entries" => Level::Entries,
            number => Level::Hashes(number.parse().ok().filter(|level| *level < LEVELS).ok_or_else(refused)?),
        };
        let (place, width) = match rest.split_once(".p/") {
            Some((place, width)) => (place, width.parse().ok().filter(|w| (1..256).contains(w)).ok_or_else(refused)?),
            None => (rest, WIDTH as u16),
        };
        let digits: String = place.chars().filter(char::is_ascii_digit).collect();
        let tile = Self { level, index: digits.parse().map_err(|_| refused())?, width };
        // What is spelled otherwise is another name, with bytes of its own.
        if tile.index <= MOST_ENTRIES && tile.to_string() == text { Ok(tile) } else { Err(refused()) }
    }
}

/// Appends an entry to a bundle.
pub fn append_entry(bundle: &mut Vec<u8>, entry: &[u8]) -> Result<(), LogError> {
    let length = u16::try_from(entry.len()).map_err(|_| LogError::EntryTooLong { bytes: entry.len() })?;
    bundle.extend_from_slice(&length.to_be_bytes());
    bundle.extend_from_slice(entry);
    Ok(())
}

/// The entries of a bundle, which must be `tile`'s number of them and nothing more.
pub fn entries(tile: Tile, mut bundle: &[u8]) -> Result<Vec<&[u8]>, LogError> {
    let refused = || LogError::Bundle { tile };
    let mut entries = Vec::with_capacity(tile.width.into());
    for _ in 0..tile.width {
        let (length, rest) = bundle.split_first_chunk::<2>().ok_or_else(refused)?;
        let (entry, rest) = rest.split_at_checked(u16::from_be_bytes(*length).into()).ok_or_else(refused)?;
        entries.push(entry);
        bundle = rest;
    }
    if bundle.is_empty() { Ok(entries) } else { Err(refused()) }
}

/// The first entries of a larger bundle, as a smaller one of the same place.
pub fn bundle_prefix(tile: Tile, bundle: &[u8]) -> Result<&[u8], LogError> {
    let refused = || LogError::Bundle { tile };
    let mut end = 0_usize;
    for _ in 0..tile.width {
        let length = bundle.get(end..end + 2).and_then(<[u8]>::first_chunk::<2>).ok_or_else(refused)?;
        end += 2 + usize::from(u16::from_be_bytes(*length));
    }
    bundle.get(..end).ok_or_else(refused)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn paths_are_those_of_the_specification() {
        let path = |level, index, width| Tile { level, index, width }.to_string();
        assert_eq!(path(Level::Hashes(0), 1_234_067, 256), "tile/0/x001/x234/067");
        assert_eq!(path(Level::Hashes(1), 0, 17), "tile/1/000.p/17");
        assert_eq!(path(Level::Entries, 273, 112), "tile/entries/273.p/112");
        assert_eq!(path(Level::Entries, 1000, 256), "tile/entries/x001/000");
    }

    #[test]
    fn trees_have_the_tiles_of_the_specification() {
        let widths = |size: u64| -> Vec<Vec<u16>> {
            Level::of_hashes(size).map(|level| level.tiles(size).map(|tile| tile.width).collect()).collect()
        };
        assert_eq!(widths(0), [] as [Vec<u16>; 0]);
        assert_eq!(widths(1), [vec![1]]);
        assert_eq!(widths(255), [vec![255]]);
        assert_eq!(widths(256), [vec![256], vec![1]]);
        assert_eq!(widths(257), [vec![256, 1], vec![1]]);
        let whole = widths(65_536);
        assert_eq!((whole[0].len(), whole[1].as_slice(), whole[2].as_slice()), (256, &[256][..], &[1][..]));
        // The example of the specification: 273 full and 112; 1 full and 17; 1.
        let large = widths(70_000);
        assert_eq!((large[0].len(), large[0][272], large[0][273]), (274, 256, 112));
        assert_eq!(large[1..], [vec![256, 17], vec![1]]);
        assert_eq!(Level::of_hashes(MOST_ENTRIES).count(), 8);
    }

    #[test]
    fn another_spelling_of_a_path_is_refused() {
        for text in [
            "tile/0/1",
            "tile/0/0001",
            "tile/8/000",
            "tile/00/000",
            "tile/0/000.p/0",
            "tile/0/000.p/256",
            "tile/0/000.p/01",
            "tile/0/x000/001",
            "tile/0/001/002",
            "tile/0/x001",
            "tile/0/000/",
            "tile/0/000.p",
            "tile/x/000",
            "tile/0/../000",
            "tile/entries/+01",
            "tile/0/x999/x999/x999/x999/x999/x999/999",
            "tile//000",
            "",
        ] {
            assert_eq!(text.parse::<Tile>(), Err(LogError::TilePath { found: text.into() }), "{text:?}");
        }
    }

    #[test]
    fn the_longest_entry_passes_and_a_longer_one_is_refused() {
        let mut bundle = Vec::new();
        append_entry(&mut bundle, &[7; 65_535]).unwrap();
        let tile = Level::Entries.tile(0, 1).unwrap();
        assert_eq!(entries(tile, &bundle).unwrap(), [&[7; 65_535][..]]);
        assert_eq!(append_entry(&mut bundle, &[7; 65_536]), Err(LogError::EntryTooLong { bytes: 65_536 }));
        assert_eq!(bundle.len(), 65_537);
    }

    #[test]
    fn a_bundle_that_is_cut_or_goes_on_is_refused() {
        let mut bundle = Vec::new();
        for entry in [&b"a"[..], b"", b"bcd"] {
            append_entry(&mut bundle, entry).unwrap();
        }
        let of = |width| Tile { level: Level::Entries, index: 0, width };
        assert_eq!(entries(of(3), &bundle).unwrap(), [&b"a"[..], b"", b"bcd"]);
        assert_eq!(bundle_prefix(of(2), &bundle), Ok(&[0, 1, b'a', 0, 0][..]));
        assert!(entries(of(2), &bundle).is_err());
        assert!(entries(of(4), &bundle).is_err() && bundle_prefix(of(4), &bundle).is_err());
        for end in 0..bundle.len() {
            assert!(entries(of(3), &bundle[..end]).is_err(), "{end}");
        }
    }

    proptest! {
        #[test]
        fn a_path_parses_back(level in 0_u8..9, index in 0..MOST_ENTRIES, width in 1_u16..=256) {
            let level = if level == 8 { Level::Entries } else { Level::Hashes(level) };
            let tile = Tile { level, index, width };
            prop_assert_eq!(tile.to_string().parse(), Ok(tile));
        }
    }
}
