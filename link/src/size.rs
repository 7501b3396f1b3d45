//! Sizes as people write and read them. Units are powers of 1024; what could mean a power of 1000 is refused.

use thiserror::Error;

const LETTERS: &str = "KMGTPE";

/// The text is no size.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SizeError {
    /// No digits in front, or something between them.
    #[error("write a whole number and a unit, such as 512M, 10G or 1TiB")]
    Number,
    /// A part of a unit.
    #[error("write a whole number, of a smaller unit if need be: 1536M is one and a half G")]
    Fraction,
    /// An SI unit.
    #[error(
        "{unit} can mean a power of 1000 or of 1024: write {letter} or {letter}iB, which are powers of 1024"
    )]
    Ambiguous {
        /// As it was written.
        unit: String,
        /// Its first letter.
        letter: char,
    },
    /// No unit of ours.
    #[error("{unit:?} is no unit: use K, M, G, T, P or E, or KiB to EiB; without one it is bytes")]
    Unit {
        /// As it was written.
        unit: String,
    },
    /// More than 64 bits.
    #[error("it is more than {} bytes", u64::MAX)]
    TooLarge,
}

/// Bytes of `10G`, `64MiB`, `1 TiB`, `512`, `512B`. Case does not matter.
pub fn parse(text: &str) -> Result<u64, SizeError> {
    let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    if digits.is_empty() {
        return Err(SizeError::Number);
    }
    let unit = unit.strip_prefix(' ').unwrap_or(unit);
    let unit_bytes = match unit.to_ascii_uppercase().as_str() {
        "" | "B" => 1,
        upper if upper.starts_with(['.', ',']) => return Err(SizeError::Fraction),
        upper => {
            let unknown = || SizeError::Unit { unit: unit.to_owned() };
            let letter = upper.chars().next().ok_or_else(unknown)?;
            let power = LETTERS.find(letter).ok_or_else(unknown)? + 1;
            match &upper[1..] {
                "" | "IB" => 1u64 << (10 * power),
                "B" => return Err(SizeError::Ambiguous { unit: unit.to_owned(), letter }),
                _ => return Err(unknown()),
            }
        }
    };
    // Digits only, so all that can go wrong is their number.
    let number: u64 = digits.parse().map_err(|_| SizeError::TooLarge)?;
    number.checked_mul(unit_bytes).ok_or(SizeError::TooLarge)
}

/// For people: `10 GiB` is exact, `1.5 GiB` may be a little more: what a digit cannot show is cut off.
pub fn show(bytes: u64) -> String {
    let power = bytes.checked_ilog2().unwrap_or(0) / 10;
    let Some(letter) = (power as usize).checked_sub(1).and_then(|at| LETTERS.chars().nth(at)) else {
        return format!("{bytes} B");
    };
    let unit_bytes = 1u64 << (10 * power);
    let (whole, rest) = (bytes / unit_bytes, bytes % unit_bytes);
    if rest == 0 {
        return format!("{whole} {letter}iB");
    }
    // The rest has fewer than 60 bits: ten times it still fits.
    format!("{whole}.{} {letter}iB", rest * 10 / unit_bytes)
}

/// As it can be read back: `64 KiB`, or bytes where no unit says it exactly.
pub fn exact(bytes: u64) -> String {
    let power = bytes.checked_ilog2().map_or(0, |_| bytes.trailing_zeros() / 10) as usize;
    match power.checked_sub(1).and_then(|at| LETTERS.chars().nth(at)) {
        Some(letter) => format!("{} {letter}iB", bytes >> (10 * power)),
        None => bytes.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_exact() {
        for (text, bytes) in [
            ("0", 0),
            ("512", 512),
            ("512B", 512),
            ("10G", 10 << 30),
            ("64MiB", 64 << 20),
            ("1tib", 1 << 40),
            ("1 TiB", 1 << 40),
            ("1k", 1024),
            ("15E", 15 << 60),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused_by_name() {
        for (text, error) in [
            ("", SizeError::Number),
            ("G", SizeError::Number),
            ("-1G", SizeError::Number),
            (" 1G", SizeError::Number),
            ("1.5G", SizeError::Fraction),
            ("1,5G", SizeError::Fraction),
            ("10GB", SizeError::Ambiguous { unit: "GB".to_owned(), letter: 'G' }),
            ("10kb", SizeError::Ambiguous { unit: "kb".to_owned(), letter: 'K' }),
            ("10  G", SizeError::Unit { unit: " G".to_owned() }),
            ("10X", SizeError::Unit { unit: "X".to_owned() }),
            ("10Gi", SizeError::Unit { unit: "Gi".to_owned() }),
            ("10µ", SizeError::Unit { unit: "µ".to_owned() }),
            ("10Gµ", SizeError::Unit { unit: "Gµ".to_owned() }),
            ("16E", SizeError::TooLarge),
            ("18446744073709551616", SizeError::TooLarge),
        ] {
            assert_eq!(parse(text), Err(error), "{text}");
        }
    }

    #[test]
    fn shown_sizes_are_exact_or_cut() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1 KiB"),
            (65536, "64 KiB"),
            (1536, "1.5 KiB"),
            ((1 << 30) + 1, "1.0 GiB"),
            ((1 << 30) - 1, "1023.9 MiB"),
            (10 << 30, "10 GiB"),
            (16 << 40, "16 TiB"),
            (u64::MAX, "15.9 EiB"),
        ] {
            assert_eq!(show(bytes), text);
        }
    }

    #[test]
    fn exact_sizes_are_read_back() {
        for (bytes, text) in [
            (0, "0"),
            (1000, "1000"),
            (65536, "64 KiB"),
            (3 << 39, "1536 GiB"),
            (1 << 60, "1 EiB"),
            (u64::MAX, "18446744073709551615"),
        ] {
            assert_eq!(exact(bytes), text);
            assert_eq!(parse(text), Ok(bytes));
        }
    }
}
