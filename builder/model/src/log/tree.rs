//! The tree over a log's entries (RFC 6962, section 2.1): its root, proofs about it, how it grows.
//!
//! [`Tree`] reads tiles through a function and keeps what it needs again; nothing of it is believed but by the root that comes
//! out. [`Growth`] makes the tiles that a longer log has, from the right edge of the shorter one. Neither knows files.

use std::collections::BTreeMap;

use sha2::{Digest as _, Sha256};

use super::LogError;
use super::tile::{self, Level, Tile, WIDTH};
use crate::digest::Digest;

/// Tiles of hashes that are kept expanded, 16 KiB each.
const KEPT: usize = 4096;

/// The hash of a leaf.
pub fn leaf_hash(entry: &[u8]) -> Digest {
    Digest::from_bytes(Sha256::new_with_prefix([0]).chain_update(entry).finalize().into())
}

/// The hash of a node with two children.
pub fn node_hash(left: &Digest, right: &Digest) -> Digest {
    let hasher = Sha256::new_with_prefix([1]).chain_update(left.as_bytes()).chain_update(right.as_bytes());
    Digest::from_bytes(hasher.finalize().into())
}

/// The root of no entries.
pub fn empty_root() -> Digest {
    Digest::of(b"")
}

/// A tree of a certain size, read by tiles.
#[derive(Debug)]
pub struct Tree<R> {
    size: u64,
    read: R,
    /// Expanded tiles, by level and index: row `r` has the hashes of subtrees of 2^r of the tile's hashes.
    kept: BTreeMap<(u8, u64), Vec<Vec<Digest>>>,
}

/// The largest power of two below `count`, which is more than one: RFC 6962's k.
fn split(count: u64) -> u64 {
    1 << (u64::BITS - 1 - (count - 1).leading_zeros())
}

/// The hashes of a tile.
pub fn hashes(tile: Tile, bytes: &[u8]) -> Result<Vec<Digest>, LogError> {
    let (hashes, rest) = bytes.as_chunks::<32>();
    if hashes.len() == usize::from(tile.width) && rest.is_empty() {
        Ok(hashes.iter().map(|hash| Digest::from_bytes(*hash)).collect())
    } else {
        Err(LogError::TileLength { tile, bytes: bytes.len() })
    }
}

fn expanded(hashes: Vec<Digest>) -> Vec<Vec<Digest>> {
    let mut rows = vec![hashes];
    while let Some(last) = rows.last().filter(|row| row.len() > 1) {
        let next = last.as_chunks::<2>().0.iter().map(|[left, right]| node_hash(left, right)).collect();
        rows.push(next);
    }
    rows
}

impl<E: From<LogError>, R: FnMut(Tile) -> Result<Vec<u8>, E>> Tree<R> {
    /// The tree of `size` entries whose tiles `read` returns: exactly those that such a tree has.
    pub fn new(size: u64, read: R) -> Self {
        Self { size, read, kept: BTreeMap::new() }
    }

    /// How many entries it has.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The hash of the subtree of `2^height` leaves that is number `index` of its kind.
    fn node(&mut self, height: u32, index: u64) -> Result<Digest, E> {
        let (level, row) = (height / 8, height % 8);
        let level = u8::try_from(level).expect("64 / 8 fits");
        let (tile, place) = (index >> (8 - row), index & ((1 << (8 - row)) - 1));
        if !self.kept.contains_key(&(level, tile)) {
            let wanted = Level::Hashes(level).tile(tile, self.size).ok_or(LogError::Beyond { size: self.size })?;
            let rows = expanded(hashes(wanted, &(self.read)(wanted)?)?);
            if self.kept.len() >= KEPT {
                self.kept.pop_first();
            }
            self.kept.insert((level, tile), rows);
        }
        let rows = &self.kept[&(level, tile)];
        let place = usize::try_from(place).expect("below 256");
        Ok(*rows.get(row as usize).and_then(|row| row.get(place)).ok_or(LogError::Beyond { size: self.size })?)
    }

    /// MTH(D[start:end]): the hash over some leaves. What RFC 6962 asks for has a start that is a multiple of its first
    /// half's size.
    fn range(&mut self, start: u64, end: u64) -> Result<Digest, E> {
        let count = end - start;
        if count.is_power_of_two() && start.is_multiple_of(count) {
            return self.node(count.trailing_zeros(), start >> count.trailing_zeros());
        }
        let middle = start + split(count);
        let left = self.range(start, middle)?;
        Ok(node_hash(&left, &self.range(middle, end)?))
    }

    /// The root.
    pub fn root(&mut self) -> Result<Digest, E> {
        self.root_at(self.size)
    }

    /// The root that the tree had when it had `size` entries.
    pub fn root_at(&mut self, size: u64) -> Result<Digest, E> {
        match size {
            0 => Ok(empty_root()),
            size if size > self.size => Err(LogError::Beyond { size: self.size }.into()),
            size => self.range(0, size),
        }
    }

    /// The hash of leaf `index`.
    pub fn leaf(&mut self, index: u64) -> Result<Digest, E> {
        self.node(0, index)
    }

    /// Hashes that prove that leaf `index` is in it, from the sibling upward (RFC 6962, section 2.1.1).
    pub fn inclusion(&mut self, index: u64) -> Result<Vec<Digest>, E> {
        if index >= self.size {
            return Err(LogError::Beyond { size: self.size }.into());
        }
        let (mut proof, mut start, mut end) = (Vec::new(), 0, self.size);
        // From the root downward.
        while end - start > 1 {
            let middle = start + split(end - start);
            if index < middle {
                proof.push(self.range(middle, end)?);
                end = middle;
            } else {
                proof.push(self.range(start, middle)?);
                start = middle;
            }
        }
        proof.reverse();
        Ok(proof)
    }

    /// Hashes that prove that the tree of `old` entries was a part of it (RFC 6962, section 2.1.2).
    pub fn consistency(&mut self, old: u64) -> Result<Vec<Digest>, E> {
        if old > self.size {
            return Err(LogError::Beyond { size: self.size }.into());
        }
        if old == 0 || old == self.size {
            return Ok(Vec::new());
        }
        let (mut proof, mut start, mut end) = (Vec::new(), 0, self.size);
        while old != end {
            let middle = start + split(end - start);
            if old <= middle {
                proof.push(self.range(middle, end)?);
                end = middle;
            } else {
                proof.push(self.range(start, middle)?);
                start = middle;
            }
        }
        // The old tree itself is known to who asks.
        if start > 0 {
            proof.push(self.range(start, end)?);
        }
        proof.reverse();
        Ok(proof)
    }
}

/// A log that gets longer: takes entries, gives the tiles that come to be.
#[derive(Debug)]
pub struct Growth {
    size: u64,
    bundle: Vec<u8>,
    /// The hashes of each level's last tile, which is not full.
    edge: Vec<Vec<Digest>>,
}

impl Growth {
    /// From the log of `size` entries, whose rightmost partial tiles `read` returns.
    pub fn of<E: From<LogError>>(size: u64, mut read: impl FnMut(Tile) -> Result<Vec<u8>, E>) -> Result<Self, E> {
        let mut partial = |level: Level| match level.tile(level.count(size) / WIDTH, size) {
            Some(tile) => Ok::<_, E>(Some((tile, read(tile)?))),
            None => Ok(None),
        };
        let bundle = match partial(Level::Entries)? {
            Some((tile, bytes)) => {
                tile::entries(tile, &bytes)?;
                bytes
            }
            None => Vec::new(),
        };
        let mut edge = Vec::new();
        for level in Level::of_hashes(size) {
            edge.push(match partial(level)? {
                Some((tile, bytes)) => hashes(tile, &bytes)?,
                None => Vec::new(),
            });
        }
        Ok(Self { size, bundle, edge })
    }

    /// How many entries there are by now.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Appends an entry; calls `full` with each tile that it fills.
    pub fn push<E: From<LogError>>(
        &mut self,
        entry: &[u8],
        mut full: impl FnMut(Tile, Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        if self.size >= tile::MOST_ENTRIES {
            return Err(LogError::Beyond { size: self.size }.into());
        }
        tile::append_entry(&mut self.bundle, entry)?;
        self.size += 1;
        if self.size.is_multiple_of(WIDTH) {
            let tile = Level::Entries.tile(self.size / WIDTH - 1, self.size).expect("it is full now");
            full(tile, std::mem::take(&mut self.bundle))?;
        }
        let (mut hash, mut level) = (leaf_hash(entry), 0_u8);
        loop {
            let place = usize::from(level);
            if self.edge.len() == place {
                self.edge.push(Vec::new());
            }
            self.edge[place].push(hash);
            if self.edge[place].len() < WIDTH as usize {
                return Ok(());
            }
            let hashes = std::mem::take(&mut self.edge[place]);
            let index = Level::Hashes(level).count(self.size) / WIDTH - 1;
            let tile = Tile { level: Level::Hashes(level), index, width: WIDTH as u16 };
            full(tile, hashes.iter().flat_map(Digest::as_bytes).copied().collect())?;
            hash = expanded(hashes).pop().expect("256 hashes have a root")[0];
            level += 1;
        }
    }

    /// The partial tiles at the end.
    pub fn partial(&self) -> impl Iterator<Item = (Tile, Vec<u8>)> {
        let last = |level: Level| level.tile(level.count(self.size) / WIDTH, self.size);
        let bundle = last(Level::Entries).map(|tile| (tile, self.bundle.clone()));
        let hashes = Level::of_hashes(self.size).zip(&self.edge).filter_map(move |(level, hashes)| {
            Some((last(level)?, hashes.iter().flat_map(Digest::as_bytes).copied().collect()))
        });
        bundle.into_iter().chain(hashes)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// Tiles in memory, as a log of `size` small entries has them at its end.
    pub(in crate::log) fn tiles(size: u64) -> BTreeMap<Tile, Vec<u8>> {
        let mut tiles = BTreeMap::new();
        let mut growth =
            Growth::of(0, |_| -> Result<_, LogError> { unreachable!("an empty log has no tiles") }).unwrap();
        for index in 0..size {
            let full = |tile, bytes| {
                assert!(tiles.insert(tile, bytes).is_none());
                Ok::<_, LogError>(())
            };
            growth.push(&entry(index), full).unwrap();
        }
        tiles.extend(growth.partial());
        tiles
    }

    pub(in crate::log) fn entry(index: u64) -> Vec<u8> {
        format!("entry {index}").into_bytes()
    }

    pub(in crate::log) fn tree(
        tiles: &BTreeMap<Tile, Vec<u8>>,
        size: u64,
    ) -> Tree<impl FnMut(Tile) -> Result<Vec<u8>, LogError>> {
        Tree::new(size, |tile| tiles.get(&tile).cloned().ok_or(LogError::Beyond { size: 0 }))
    }

    /// RFC 6962's definition, word by word.
    fn by_definition(leaves: &[Digest]) -> Digest {
        match leaves {
            [] => empty_root(),
            [one] => *one,
            many => {
                let (left, right) = many.split_at(split(many.len() as u64) as usize);
                node_hash(&by_definition(left), &by_definition(right))
            }
        }
    }

    #[test]
    fn roots_are_those_of_the_definition_whatever_the_size() {
        for size in [0, 1, 2, 3, 7, 8, 255, 256, 257, 65_536, 70_000] {
            let leaves: Vec<Digest> = (0..size).map(|index| leaf_hash(&entry(index))).collect();
            let tiles = tiles(size);
            let expected: usize = Level::of_hashes(size).map(|level| level.tiles(size).count()).sum();
            assert_eq!(tiles.len(), expected + Level::Entries.tiles(size).count(), "{size}");
            assert_eq!(tree(&tiles, size).root().unwrap(), by_definition(&leaves), "{size}");
        }
    }

    #[test]
    fn the_roots_of_the_reference_vectors_come_out() {
        // The leaves and roots of certificate-transparency-go's tests of RFC 6962.
        let leaves =
            ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"];
        let roots = [
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
            "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
            "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
            "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
            "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
            "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
            "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
        ];
        let hex = data_encoding::HEXLOWER;
        let hashes: Vec<Digest> = leaves.iter().map(|leaf| leaf_hash(&hex.decode(leaf.as_bytes()).unwrap())).collect();
        for (count, root) in roots.iter().enumerate() {
            assert_eq!(by_definition(&hashes[..=count]).to_string(), *root);
        }
        assert_eq!(empty_root().to_string(), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    }

    #[test]
    fn a_log_that_grows_in_pieces_has_the_tiles_of_one_that_grew_at_once() {
        let (mut kept, mut size) = (BTreeMap::new(), 0);
        for more in [1, 254, 1, 1, 300, 0, 66_000] {
            let mut growth =
                Growth::of(size, |tile| kept.get(&tile).cloned().ok_or(LogError::Beyond { size })).unwrap();
            let mut new: Vec<(Tile, Vec<u8>)> = Vec::new();
            for index in size..size + more {
                let full = |tile, bytes| {
                    new.push((tile, bytes));
                    Ok::<_, LogError>(())
                };
                growth.push(&entry(index), full).unwrap();
            }
            new.extend(growth.partial());
            for (tile, bytes) in new {
                let before = kept.insert(tile, bytes.clone());
                assert!(before.is_none_or(|before| before == bytes), "{tile} changed");
            }
            size += more;
            assert!(tiles(size).iter().all(|(tile, bytes)| kept[tile] == *bytes), "{size}");
        }
    }

    #[test]
    fn tiles_of_the_wrong_length_and_places_outside_are_refused() {
        let mut tiles = tiles(300);
        assert!(tree(&tiles, 300).inclusion(300).is_err());
        assert!(tree(&tiles, 300).consistency(301).is_err());
        let tile = Level::Hashes(0).tile(1, 300).unwrap();
        tiles.get_mut(&tile).unwrap().pop();
        assert_eq!(tree(&tiles, 300).root(), Err(LogError::TileLength { tile, bytes: 44 * 32 - 1 }));
        assert!(Growth::of(300, |tile| Ok::<_, LogError>(tiles[&tile].clone())).is_err());
    }

    proptest! {
        #[test]
        fn any_size_has_the_root_of_the_definition(size in 0_u64..1_000, old in 0_u64..1_000) {
            let leaves: Vec<Digest> = (0..size).map(|index| leaf_hash(&entry(index))).collect();
            let tiles = tiles(size);
            let mut tree = tree(&tiles, size);
            prop_assert_eq!(tree.root().unwrap(), by_definition(&leaves));
            if old <= size {
                prop_assert_eq!(tree.root_at(old).unwrap(), by_definition(&leaves[..old as usize]));
            }
        }
    }
}
