//! What a sector says of itself: which write put it there. Every write fills its sectors with its own number and
//! theirs, and with bytes that follow from both, so that a sector that was read names its write or is no write's.

use crate::dice::mix;
use crate::disk::SECTOR_BYTES;

const S: usize = SECTOR_BYTES as usize;

/// What a sector holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Value {
    /// Zeros: never written, trimmed, or zeroed.
    Zero,
    /// What that write put there.
    Written(u64),
    /// Something that no write put there: parts of two versions, after a crash. The number stands for its bytes.
    Torn(u32),
}

/// The bytes of one sector of one write.
pub fn fill(write: u64, sector: u64, out: &mut [u8; S]) {
    let mut state = mix(write ^ sector.rotate_left(32));
    for (i, word) in out.chunks_exact_mut(8).enumerate() {
        let value = match i {
            0 => write,
            1 => sector,
            _ => {
                state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
                state ^ (state >> 29)
            }
        };
        word.copy_from_slice(&value.to_le_bytes());
    }
}

/// Zeros, or the write of this sector that its bytes name; `None` if they are neither.
pub fn parse(bytes: &[u8; S], sector: u64) -> Option<Value> {
    let write = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes"));
    let mut expected = [0; S];
    if write != 0 {
        fill(write, sector, &mut expected);
    }
    (*bytes == expected).then_some(if write == 0 { Value::Zero } else { Value::Written(write) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sector_names_its_write_or_none() {
        let mut bytes = [0; S];
        assert_eq!(parse(&bytes, 99), Some(Value::Zero));
        fill(7, 99, &mut bytes);
        assert_eq!(parse(&bytes, 99), Some(Value::Written(7)));
        assert_eq!(parse(&bytes, 98), None, "it went astray");
        bytes[300] ^= 1;
        assert_eq!(parse(&bytes, 99), None);
    }
}
