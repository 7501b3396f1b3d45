//! Files with content that is known.

use std::fs;
use std::path::Path;

/// Bytes that are different everywhere and the same every time; every fourth MiB is zeros.
pub fn content(seed: u64, size_bytes: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = |at: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        if (at >> 17) % 4 == 3 { 0 } else { state }
    };
    (0..size_bytes / 8).flat_map(|at| next(at).to_le_bytes()).collect()
}

/// Where two files differ.
pub fn same(a: &Path, b: &Path) {
    let (a, b) = (fs::read(a).unwrap(), fs::read(b).unwrap());
    same_bytes(&a, &b);
}

/// As [`same`], without printing megabytes.
pub fn same_bytes(a: &[u8], b: &[u8]) {
    assert_eq!(a.len(), b.len(), "lengths");
    let differs = a.iter().zip(b).position(|(a, b)| a != b);
    assert_eq!(differs, None, "the first byte that differs");
}
