//! Inputs that are nearly right: the same every time.

/// Lengths, counts and flags that are worth a try.
const NUMBERS: [u32; 12] = [
    0,
    1,
    2,
    0x1FF,
    0x200,
    0x1000,
    0x7FFF_FFFF,
    0x8000_0000,
    0x8000_0001,
    0xFFFF_FFFE,
    0xFFFF_FFFF,
    0x0400_0001,
];
/// The most bytes of an input.
const LENGTH_MAX: usize = 64 << 10;

/// A source of chance that is known.
pub struct Dice(u64);

impl Dice {
    /// One for each seed.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// A number below `end`, which is not 0.
    pub fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % end
    }
}

/// Changes `data` in one to four places; may take a piece of `other`.
pub fn mutate(data: &mut Vec<u8>, other: &[u8], dice: &mut Dice) {
    for _ in 0..=dice.below(4) {
        let at = dice.below(data.len() + 1);
        let rest = data.len() - at;
        match dice.below(7) {
            0 if rest > 0 => data[at] ^= 1 << dice.below(8),
            1 if rest > 0 => data[at] = dice.below(256) as u8,
            2 if rest >= 4 => {
                data[at..at + 4].copy_from_slice(&NUMBERS[dice.below(NUMBERS.len())].to_be_bytes());
            }
            3 => data.truncate(at),
            4 => {
                let length = dice.below(rest + 1);
                data.drain(at..at + length.min(32));
            }
            5 => {
                let from = dice.below(other.len() + 1);
                let length = dice.below(other.len() - from + 1);
                data.splice(at..at, other[from..from + length].iter().copied());
            }
            _ => {
                let length = dice.below(rest + 1);
                data.extend_from_within(at..at + length);
            }
        }
    }
    data.truncate(LENGTH_MAX);
}
