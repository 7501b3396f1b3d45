//! The headers beside the physical tracks (crash rule 6, D17): noted as tracks are born and masks grow, written by
//! the sync round before the commit that refers to them.
//!
//! Several headers share a 4 KiB block of the header area, so a block is read before its first change and then kept
//! for a while. After a failed write it is not known what a block says on the store, of its other headers neither: it
//! is kept, and the next round writes it again, changed or not.
//!
//! A block that cannot be read fails its round, as a failed write does: who flushes gets an error, and nothing is lost.
//! But a store with one decayed sector must not refuse flushes for ever, and a sector that has decayed takes a write.
//! So when the next round cannot read it either, the block is begun anew, with the headers noted since. Two things tell
//! decay from a disk that is away for a while. The block must fail to be read in two rounds, one after the other; and
//! the write must succeed while it cannot be read: if it fails, the next round reads the block once more, and if it can
//! be read then, takes from it all headers that were not noted. What is lost with a decayed sector costs a later
//! recovery the origin of the tracks beside it, and no data; the log has the failed reads.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;

use bytes::Bytes;
use twintrack_core::defect::{Defect, planted};
use twintrack_core::layout::{Header, StoreLayout, header_bytes};
use twintrack_core::{BLOCK_BYTES, BlockMask, Generation, Geometry, Owner, Place, StoreId};

/// Blocks of the header area that are kept between rounds, beyond those whose writes failed: 4 MiB.
const CACHED_BLOCKS_MAX: usize = 1024;

/// A block of the header area of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct HeaderBlock {
    pub(super) store: StoreId,
    /// First byte on the store.
    pub(super) offset: u64,
}

/// What is to be said of a physical track.
#[derive(Debug, Clone, Copy)]
struct Note {
    /// Who it was born for; `None`: its mask grew.
    birth: Option<(Place, Generation, u64)>,
    mask: BlockMask,
}

#[derive(Debug)]
pub(super) struct Headers {
    geometry: Geometry,
    serial: u64,
    /// Births so far; begins with the number of the boot, so that it goes on after a restart.
    sequence: u64,
    /// By store and place in it: what the next round writes.
    notes: BTreeMap<(StoreId, u32), Note>,
    /// A planted defect's: what the round before should have written.
    late: BTreeMap<(StoreId, u32), Note>,
    cache: BTreeMap<HeaderBlock, Vec<u8>>,
    /// The cache in the order in which it was filled.
    filled: VecDeque<HeaderBlock>,
    /// Blocks of the cache that are being written, or could not be.
    unwritten: BTreeSet<HeaderBlock>,
    /// Blocks that the last round that wanted them could not read.
    unread: BTreeSet<HeaderBlock>,
    /// Blocks of `unwritten` that were begun anew: only what is not zeros in them is known.
    anew: BTreeSet<HeaderBlock>,
}

impl Headers {
    pub(super) fn new(geometry: Geometry, serial: u64, boot: u32) -> Self {
        let sequence = u64::from(boot) << 32;
        Self {
            geometry,
            serial,
            sequence,
            notes: BTreeMap::new(),
            late: BTreeMap::new(),
            cache: BTreeMap::new(),
            filled: VecDeque::new(),
            unwritten: BTreeSet::new(),
            unread: BTreeSet::new(),
            anew: BTreeSet::new(),
        }
    }

    /// A physical track is born as `place`.
    pub(super) fn born(&mut self, at: (StoreId, u32), place: Place, generation: Generation, mask: BlockMask) {
        self.sequence += 1;
        self.notes.insert(at, Note { birth: Some((place, generation, self.sequence)), mask });
    }

    /// The mask of a physical track grew.
    pub(super) fn grew(&mut self, at: (StoreId, u32), mask: BlockMask) {
        self.notes.entry(at).or_insert(Note { birth: None, mask }).mask = mask;
    }

    /// A round begins: the blocks that the notes change, and those that could not be written before, in their order.
    pub(super) fn begin(&mut self, layout: impl Fn(StoreId) -> StoreLayout) -> Vec<HeaderBlock> {
        if planted(Defect::HeaderLate) {
            std::mem::swap(&mut self.notes, &mut self.late);
        }
        let (mut blocks, mut from) = (Vec::new(), Bound::Unbounded);
        while let Some((at, _)) = self.notes.range((from, Bound::Unbounded)).next() {
            let (store, layout) = (at.0, layout(at.0));
            let offset = layout.header_offset(at.1) / u64::from(BLOCK_BYTES) * u64::from(BLOCK_BYTES);
            blocks.push(HeaderBlock { store, offset });
            // Many notes in a row are of one block.
            from = Bound::Included((store, layout.headers_in(offset).end));
        }
        if !self.unwritten.is_empty() {
            blocks.extend(&self.unwritten);
            blocks.sort_unstable();
            blocks.dedup();
        }
        blocks
    }

    /// Whether a block has to be read, and [`Self::fill`]ed, before notes are entered into it.
    pub(super) fn is_unknown(&self, block: HeaderBlock) -> bool {
        !self.cache.contains_key(&block) || self.anew.contains(&block)
    }

    /// A block was read; `None`: it cannot be. `false`: the round must fail.
    pub(super) fn fill(&mut self, block: HeaderBlock, content: Option<&[u8]>) -> bool {
        let begun = self.anew.contains(&block);
        match content.filter(|content| content.len() == BLOCK_BYTES as usize) {
            Some(content) => {
                self.unread.remove(&block);
                self.anew.remove(&block);
                let mut content = content.to_vec();
                let slot_bytes = header_bytes(self.geometry) as usize;
                if let Some(noted) = self.cache.get(&block) {
                    let slots = content.chunks_mut(slot_bytes).zip(noted.chunks(slot_bytes));
                    slots
                        .filter(|(_, noted)| noted.iter().any(|byte| *byte != 0))
                        .for_each(|(slot, noted)| slot.copy_from_slice(noted));
                }
                self.keep(block, content);
            }
            None if begun => {}
            None if self.unread.remove(&block) => {
                self.anew.insert(block);
                self.keep(block, vec![0; BLOCK_BYTES as usize]);
            }
            None => {
                self.unread.insert(block);
                return false;
            }
        }
        true
    }

    fn keep(&mut self, block: HeaderBlock, content: Vec<u8>) {
        if self.cache.insert(block, content).is_none() {
            self.filled.push_back(block);
        }
    }

    /// Enters the notes of a block that is filled: what to write, until it is [`Self::written`]; `None`: it is on the
    /// store as it is.
    pub(super) fn apply(&mut self, block: HeaderBlock, layout: &StoreLayout) -> Option<Bytes> {
        let content = self.cache.get_mut(&block)?;
        let indices = layout.headers_in(block.offset);
        let noted = self.notes.range((block.store, indices.start)..(block.store, indices.end));
        let noted: Vec<_> = noted.map(|(at, note)| (*at, *note)).collect();
        for (at, note) in noted {
            self.notes.remove(&at);
            let within = (layout.header_offset(at.1) - block.offset) as usize;
            let slot = &mut content[within..within + layout.header_bytes() as usize];
            let header = match note.birth {
                Some((place, generation, sequence)) => {
                    let (owner, track, codes) = (place.owner, place.track, Vec::new());
                    Header { owner, track, generation, sequence, mask: note.mask, codes }
                }
                None => match Header::decode(slot, self.geometry, self.serial) {
                    Ok(header) => Header { mask: note.mask, ..header },
                    Err(_) => continue,
                },
            };
            slot.copy_from_slice(&header.encode(self.geometry, self.serial));
            self.unwritten.insert(block);
        }
        self.unwritten.contains(&block).then(|| Bytes::copy_from_slice(content))
    }

    /// A block is on the store. One that is not told of here is written again in the next round.
    pub(super) fn written(&mut self, block: HeaderBlock) {
        self.unwritten.remove(&block);
        self.anew.remove(&block);
    }

    /// After writes of a round: keeps no more of the cache than it may.
    pub(super) fn trim(&mut self) {
        for _ in CACHED_BLOCKS_MAX..self.filled.len() {
            let Some(oldest) = self.filled.pop_front() else { return };
            if self.unwritten.contains(&oldest) {
                self.filled.push_back(oldest);
            } else {
                self.cache.remove(&oldest);
            }
        }
    }
}

/// Whose generation a birth is stamped with.
pub(super) fn generation_of(tables: &twintrack_core::Tables, owner: Owner) -> Generation {
    let device = match owner {
        Owner::Device(id) => Some(id),
        Owner::Session(id) => tables.session(id).map(|session| session.standard),
    };
    device.and_then(|id| tables.device(id)).map_or(Generation(0), |device| device.generation())
}
