//! The first 4 KiB of a store: whose it is. All numbers are little-endian, the rest is 0.
//!
//! ```text
//! offset  bytes  what
//! 0       8      magic, "TWINTRKS"
//! 8       4      format version, 1
//! 12      4      track size in bytes
//! 16      8      serial number of the array
//! 24      4      physical tracks
//! 28      2      store number
//! 4092    4      CRC32C of all that comes before
//! ```
//!
//! Where headers and tracks lie follows from it: [`twintrack_core::layout`].

use thiserror::Error;
use twintrack_core::StoreId;
use twintrack_core::layout::SUPERBLOCK_BYTES;

const BYTES: usize = SUPERBLOCK_BYTES as usize;
const MAGIC: [u8; 8] = *b"TWINTRKS";
const FORMAT_VERSION: u32 = 1;
const CRC_AT: usize = BYTES - 4;

/// Whose a store is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Superblock {
    /// The array's serial number.
    pub(crate) serial: u64,
    /// Its number there.
    pub(crate) store: StoreId,
    /// The array's track size.
    pub(crate) track_bytes: u32,
    /// Physical tracks.
    pub(crate) tracks: u32,
}

/// Why the start of a store is no superblock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SuperblockError {
    /// Something else stands there.
    #[error("it does not begin with a superblock: it is no store of any array")]
    Absent,
    /// It does not match its check code.
    #[error("its superblock is damaged")]
    Damaged,
    /// Written by a newer program.
    #[error("its superblock has format version {found}, this program knows versions up to {FORMAT_VERSION}")]
    NewerFormat {
        /// The version.
        found: u32,
    },
}

impl Superblock {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = vec![0; BYTES];
        out[0..8].copy_from_slice(&MAGIC);
        out[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        out[12..16].copy_from_slice(&self.track_bytes.to_le_bytes());
        out[16..24].copy_from_slice(&self.serial.to_le_bytes());
        out[24..28].copy_from_slice(&self.tracks.to_le_bytes());
        out[28..30].copy_from_slice(&self.store.0.to_le_bytes());
        let crc = crc32c::crc32c(&out[..CRC_AT]);
        out[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Total: any bytes give a superblock or an error.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, SuperblockError> {
        let bytes = bytes.first_chunk::<BYTES>().ok_or(SuperblockError::Absent)?;
        if bytes[..8] != MAGIC {
            return Err(SuperblockError::Absent);
        }
        let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        if crc32c::crc32c(&bytes[..CRC_AT]) != u32_at(CRC_AT) {
            return Err(SuperblockError::Damaged);
        }
        match u32_at(8) {
            FORMAT_VERSION => {}
            0 => return Err(SuperblockError::Damaged),
            found => return Err(SuperblockError::NewerFormat { found }),
        }
        Ok(Self {
            serial: u64::from_le_bytes(bytes[16..24].try_into().expect("eight bytes")),
            store: StoreId(u16::from_le_bytes(bytes[28..30].try_into().expect("two bytes"))),
            track_bytes: u32_at(12),
            tracks: u32_at(24),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_survives(serial: u64, store: u16, track_bytes: u32, tracks: u32, at in 0..BYTES, bit in 0u32..8) {
            let superblock = Superblock { serial, store: StoreId(store), track_bytes, tracks };
            let mut bytes = superblock.encode();
            prop_assert_eq!(Superblock::decode(&bytes), Ok(superblock));
            bytes[at] ^= 1 << bit;
            prop_assert!(Superblock::decode(&bytes).is_err());
        }
    }

    #[test]
    fn any_bytes_decode() {
        assert_eq!(Superblock::decode(&[]), Err(SuperblockError::Absent));
        assert_eq!(Superblock::decode(&[0; BYTES]), Err(SuperblockError::Absent));
        let mut bytes = Superblock { serial: 1, store: StoreId(0), track_bytes: 1 << 16, tracks: 9 }.encode();
        bytes[8] = 2;
        let crc = crc32c::crc32c(&bytes[..CRC_AT]);
        bytes[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(Superblock::decode(&bytes), Err(SuperblockError::NewerFormat { found: 2 }));
    }
}
