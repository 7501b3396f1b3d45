//! How a store is laid out: superblock, header area, tracks; and what a header says.
//!
//! ```text
//! byte 0            superblock, 4 KiB (written by the shell when the store is taken in, never again)
//! byte 4096         header area: one slot per physical track, in order, rounded up to 4 KiB
//! next multiple     tracks, in order
//! of the track size
//! ```
//!
//! A header says which track a physical track was born as (D17), which of its blocks are valid if it is an overlay,
//! and a check code for each block (crash rule 6). Its slot, all numbers little-endian, with `m` bytes of mask (one
//! bit a block, at least one byte) and the codes at the next multiple of four:
//!
//! ```text
//! offset      bytes  what
//! 0           4      magic, "TTHD"
//! 4           4      flags: bit 0: the owner is a session, not a device; the others are 0
//! 8           4      owner: device or session number
//! 12          4      track of the owner
//! 16          4      generation of the standard device when the track was born
//! 20          8      sequence: the order in which tracks were born, array-wide
//! 28          8      serial number of the array: a slot that an earlier array left behind is not a header
//! 36          4      CRC32C of all that is used of the slot, with these four bytes as zeros
//! 40          m      mask: the blocks that are valid, bit 0 of byte 0 first; all of them if it is no overlay
//! 40+m, up    4 × n  check codes, one a block; 0: void
//! ```
//!
//! The slot is the next power of two: 128 bytes at tracks of 64 KiB, so that no slot crosses a sector at sizes up to
//! 512 bytes.

use std::ops::Range;

use thiserror::Error;

use crate::geometry::BLOCK_BYTES;
use crate::{BlockMask, DeviceId, Generation, Geometry, Owner, SessionId, TrackNo};

/// Bytes of the superblock at the start of a store.
pub const SUPERBLOCK_BYTES: u32 = 4096;
/// Where the mask begins in a header.
const HEADER_FIXED_BYTES: usize = 40;
const HEADER_MAGIC: [u8; 4] = *b"TTHD";
const FLAG_SESSION: u32 = 1;
const CRC_AT: usize = 36;

/// A store that cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum LayoutError {
    /// There is no room for one track.
    #[error(
        "a store of {size_bytes} bytes has no room for a track of {track_bytes} bytes: it needs {least_bytes}"
    )]
    TooSmall {
        /// Its size.
        size_bytes: u64,
        /// The array's track size.
        track_bytes: u32,
        /// The least size that would do.
        least_bytes: u64,
    },
}

/// Where things lie on one store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreLayout {
    geometry: Geometry,
    tracks: u32,
}

impl StoreLayout {
    /// As many tracks as fit a store of that size (and as can be numbered).
    pub fn new(geometry: Geometry, size_bytes: u64) -> Result<Self, LayoutError> {
        let each = u64::from(geometry.track_bytes()) + u64::from(header_bytes(geometry));
        let mut layout = Self { geometry, tracks: u32::try_from(size_bytes / each).unwrap_or(u32::MAX - 1) };
        // Rounding costs at most a track or two.
        while layout.tracks > 0 && layout.size_bytes() > size_bytes {
            layout.tracks -= 1;
        }
        if layout.tracks > 0 {
            return Ok(layout);
        }
        let least_bytes = Self { geometry, tracks: 1 }.size_bytes();
        Err(LayoutError::TooSmall { size_bytes, track_bytes: geometry.track_bytes(), least_bytes })
    }

    /// The layout of a store that is known to have that many tracks.
    pub fn with_tracks(geometry: Geometry, tracks: u32) -> Self {
        Self { geometry, tracks }
    }

    /// Physical tracks of the store.
    pub fn tracks(&self) -> u32 {
        self.tracks
    }

    /// Bytes that the store must have.
    pub fn size_bytes(&self) -> u64 {
        self.track_offset(self.tracks)
    }

    /// The first byte of a physical track, counted from 0 within the store.
    pub fn track_offset(&self, index: u32) -> u64 {
        let headers = u64::from(self.tracks) * u64::from(header_bytes(self.geometry));
        let headers = headers.next_multiple_of(u64::from(BLOCK_BYTES));
        let track_bytes = u64::from(self.geometry.track_bytes());
        (u64::from(SUPERBLOCK_BYTES) + headers).next_multiple_of(track_bytes) + u64::from(index) * track_bytes
    }

    /// The first byte of a physical track's header.
    pub fn header_offset(&self, index: u32) -> u64 {
        u64::from(SUPERBLOCK_BYTES) + u64::from(index) * u64::from(self.header_bytes())
    }

    /// The physical tracks whose headers lie in the block of the header area that begins at this byte.
    pub fn headers_in(&self, block_offset: u64) -> Range<u32> {
        let each = u64::from(self.header_bytes());
        let index = |offset: u64| {
            let before = offset.saturating_sub(u64::from(SUPERBLOCK_BYTES)) / each;
            u32::try_from(before).map_or(self.tracks, |index| index.min(self.tracks))
        };
        index(block_offset)..index(block_offset + u64::from(BLOCK_BYTES))
    }

    /// Bytes of a header's slot.
    pub fn header_bytes(&self) -> u32 {
        header_bytes(self.geometry)
    }
}

/// Bytes of a header's slot: a power of two from 64 to 2048.
pub fn header_bytes(geometry: Geometry) -> u32 {
    (header_used(geometry) as u32).next_power_of_two()
}

/// What a slot of the header area says of its physical track.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Whose track it was born as.
    pub owner: Owner,
    /// Which track.
    pub track: TrackNo,
    /// The generation of the standard device then.
    pub generation: Generation,
    /// Births in order, array-wide.
    pub sequence: u64,
    /// The blocks that are valid; all if it is not an overlay.
    pub mask: BlockMask,
    /// A check code for each block, as of [`Header::code`]; 0: void.
    pub codes: Vec<u32>,
}

/// A slot that holds no header of this array.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum HeaderError {
    /// Fewer bytes than a slot.
    #[error("a track header of {len} bytes where {want} are needed")]
    Short {
        /// What there was.
        len: usize,
        /// What a slot takes.
        want: usize,
    },
    /// Never written, or something else.
    #[error("the slot holds no track header")]
    Absent,
    /// Torn or decayed.
    #[error("the track header does not match its check code")]
    Damaged,
    /// Left behind by an array that used the store before.
    #[error("the track header belongs to array {serial:016x}")]
    Foreign {
        /// That array.
        serial: u64,
    },
}

impl Header {
    /// The slot's bytes, [`header_bytes`] of them. `serial` is the array's. A list of codes that is too long is cut, one
    /// that is too short is filled with voids.
    pub fn encode(&self, geometry: Geometry, serial: u64) -> Vec<u8> {
        let mut slot = vec![0; header_bytes(geometry) as usize];
        let (flags, owner) = owner_fields(self.owner);
        slot[0..4].copy_from_slice(&HEADER_MAGIC);
        slot[4..8].copy_from_slice(&flags.to_le_bytes());
        slot[8..12].copy_from_slice(&owner.to_le_bytes());
        slot[12..16].copy_from_slice(&self.track.0.to_le_bytes());
        slot[16..20].copy_from_slice(&self.generation.0.to_le_bytes());
        slot[20..28].copy_from_slice(&self.sequence.to_le_bytes());
        slot[28..36].copy_from_slice(&serial.to_le_bytes());
        put_mask(&mut slot[HEADER_FIXED_BYTES..HEADER_FIXED_BYTES + mask_bytes(geometry)], self.mask);
        let codes = &mut slot[codes_at(geometry)..header_used(geometry)];
        for (place, code) in codes.chunks_exact_mut(4).zip(&self.codes) {
            place.copy_from_slice(&code.to_le_bytes());
        }
        let crc = slot_crc(&slot[..header_used(geometry)]);
        slot[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
        slot
    }

    /// Reads a slot of this array. Total: any bytes give a header or an error.
    pub fn decode(slot: &[u8], geometry: Geometry, serial: u64) -> Result<Self, HeaderError> {
        let want = header_used(geometry);
        let slot = slot.get(..want).ok_or(HeaderError::Short { len: slot.len(), want })?;
        if slot[..4] != HEADER_MAGIC {
            return Err(HeaderError::Absent);
        }
        let flags = u32_at(slot, 4);
        if slot_crc(slot) != u32_at(slot, CRC_AT) || flags & !FLAG_SESSION != 0 {
            return Err(HeaderError::Damaged);
        }
        let found = u64_at(slot, 28);
        if found != serial {
            return Err(HeaderError::Foreign { serial: found });
        }
        let mask = get_mask(&slot[HEADER_FIXED_BYTES..HEADER_FIXED_BYTES + mask_bytes(geometry)]);
        if !geometry.full().covers(mask) {
            return Err(HeaderError::Damaged);
        }
        let owner = u32_at(slot, 8);
        Ok(Self {
            owner: if flags & FLAG_SESSION == 0 {
                Owner::Device(DeviceId(owner))
            } else {
                Owner::Session(SessionId(owner))
            },
            track: TrackNo(u32_at(slot, 12)),
            generation: Generation(u32_at(slot, 16)),
            sequence: u64_at(slot, 20),
            mask,
            codes: slot[codes_at(geometry)..].chunks_exact(4).map(|code| u32_at(code, 0)).collect(),
        })
    }

    /// The check code of a block: CRC32C of the track's birth identity, the block's number and its bytes, never 0.
    /// A block that lies where it does not belong fails it.
    pub fn code(&self, serial: u64, block: u32, data: &[u8]) -> u32 {
        let (flags, owner) = owner_fields(self.owner);
        let mut seed = [0; 32];
        seed[0..8].copy_from_slice(&serial.to_le_bytes());
        seed[8..12].copy_from_slice(&flags.to_le_bytes());
        seed[12..16].copy_from_slice(&owner.to_le_bytes());
        seed[16..20].copy_from_slice(&self.track.0.to_le_bytes());
        seed[20..28].copy_from_slice(&self.sequence.to_le_bytes());
        seed[28..32].copy_from_slice(&block.to_le_bytes());
        crc32c::crc32c_append(crc32c::crc32c(&seed), data).max(1)
    }
}

/// Bytes of a written mask: a bit a block, at least one byte.
pub fn mask_bytes(geometry: Geometry) -> usize {
    geometry.blocks().div_ceil(8) as usize
}

/// Writes a mask, least blocks first, in as many bytes as `out` has.
pub fn put_mask(out: &mut [u8], mask: BlockMask) {
    for (index, byte) in out.iter_mut().enumerate() {
        *byte = (mask.words()[index / 8] >> (index % 8 * 8)) as u8;
    }
}

/// Reads a mask of at most 32 bytes as [`put_mask`] writes it; what is beyond is not looked at.
pub fn get_mask(bytes: &[u8]) -> BlockMask {
    let mut words = [0; 4];
    for (index, byte) in bytes.iter().take(32).enumerate() {
        words[index / 8] |= u64::from(*byte) << (index % 8 * 8);
    }
    BlockMask::from_words(words)
}

fn codes_at(geometry: Geometry) -> usize {
    (HEADER_FIXED_BYTES + mask_bytes(geometry)).next_multiple_of(4)
}

fn header_used(geometry: Geometry) -> usize {
    codes_at(geometry) + 4 * geometry.blocks() as usize
}

fn owner_fields(owner: Owner) -> (u32, u32) {
    match owner {
        Owner::Device(id) => (0, id.0),
        Owner::Session(id) => (FLAG_SESSION, id.0),
    }
}

fn slot_crc(slot: &[u8]) -> u32 {
    let crc = crc32c::crc32c_append(crc32c::crc32c(&slot[..CRC_AT]), &[0; 4]);
    crc32c::crc32c_append(crc, &slot[CRC_AT + 4..])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::geometry::{TRACK_BYTES_MAX, TRACK_BYTES_MIN};

    fn geometries() -> impl Strategy<Value = Geometry> {
        (14u32..=20).prop_map(|shift| Geometry::new(1 << shift).unwrap())
    }

    fn headers() -> impl Strategy<Value = (Geometry, Header)> {
        (geometries(), any::<(bool, u32, u32, u32, u64)>(), any::<[u64; 4]>(), any::<u32>()).prop_map(
            |(geometry, (session, owner, track, generation, sequence), words, code)| {
                let owner =
                    if session { Owner::Session(SessionId(owner)) } else { Owner::Device(DeviceId(owner)) };
                let (track, generation) = (TrackNo(track), Generation(generation));
                let mask = BlockMask::from_words(words) & geometry.full();
                let codes = (0..geometry.blocks()).map(|block| code.wrapping_mul(block)).collect();
                (geometry, Header { owner, track, generation, sequence, mask, codes })
            },
        )
    }

    #[test]
    fn slots_are_small() {
        let bytes = |shift: u32| header_bytes(Geometry::new(1 << shift).unwrap());
        assert_eq!((14..=20).map(bytes).collect::<Vec<_>>(), [64, 128, 128, 256, 512, 1024, 2048]);
    }

    #[test]
    fn the_largest_store_can_be_counted() {
        let geometry = Geometry::new(TRACK_BYTES_MIN).unwrap();
        let layout = StoreLayout::new(geometry, u64::MAX / 2).unwrap();
        assert!(layout.tracks() > 1 << 31);
    }

    proptest! {
        #[test]
        fn parts_of_a_store_do_not_overlap(geometry in geometries(), size in 0u64..1 << 34) {
            match StoreLayout::new(geometry, size) {
                Ok(layout) => {
                    prop_assert!(layout.size_bytes() <= size);
                    prop_assert!(StoreLayout::with_tracks(geometry, layout.tracks() + 1).size_bytes() > size);
                    prop_assert!(layout.header_offset(layout.tracks()) <= layout.track_offset(0));
                    prop_assert_eq!(layout.track_offset(0) % u64::from(geometry.track_bytes()), 0);
                    prop_assert_eq!(layout.header_offset(0), u64::from(SUPERBLOCK_BYTES));
                }
                Err(LayoutError::TooSmall { least_bytes, .. }) => {
                    prop_assert!(size < least_bytes);
                    prop_assert_eq!(StoreLayout::new(geometry, least_bytes).unwrap().tracks(), 1);
                    prop_assert!(least_bytes <= 2 * u64::from(TRACK_BYTES_MAX));
                }
            }
        }

        #[test]
        fn a_header_survives((geometry, header) in headers(), serial in any::<u64>()) {
            let slot = header.encode(geometry, serial);
            prop_assert_eq!(slot.len(), header_bytes(geometry) as usize);
            prop_assert_eq!(Header::decode(&slot, geometry, serial), Ok(header));
            let foreign = HeaderError::Foreign { serial };
            prop_assert_eq!(Header::decode(&slot, geometry, !serial), Err(foreign));
        }

        #[test]
        fn any_bytes_decode(geometry in geometries(), mut bytes in prop::collection::vec(any::<u8>(), 0..2100), magic: bool) {
            if magic && bytes.len() >= 4 {
                bytes[..4].copy_from_slice(&HEADER_MAGIC);
            }
            prop_assert!(Header::decode(&bytes, geometry, 1).is_err());
        }

        #[test]
        fn a_flipped_bit_shows((geometry, header) in headers(), at in any::<prop::sample::Index>(), bit in 0u32..8) {
            let mut slot = header.encode(geometry, 7);
            let at = at.index(header_used(geometry));
            slot[at] ^= 1 << bit;
            prop_assert!(Header::decode(&slot, geometry, 7).is_err());
        }
    }

    #[test]
    fn a_code_belongs_to_its_place() {
        let geometry = Geometry::default();
        let header = Header {
            owner: Owner::Device(DeviceId(1)),
            track: TrackNo(2),
            generation: Generation(3),
            sequence: 4,
            mask: geometry.full(),
            codes: Vec::new(),
        };
        let data = [5; BLOCK_BYTES as usize];
        let code = header.code(6, 0, &data);
        assert_ne!(code, 0);
        assert_ne!(code, header.code(7, 0, &data));
        assert_ne!(code, header.code(6, 1, &data));
        assert_ne!(code, Header { sequence: 5, ..header.clone() }.code(6, 0, &data));
        assert_eq!(code, Header { generation: Generation(9), ..header }.code(6, 0, &data));
    }
}
