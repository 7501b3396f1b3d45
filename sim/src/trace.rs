//! Recorded block traces: fio's iolog format, versions 2 and 3, plain or compressed with xz.
//!
//! ```text
//! fio version 2 iolog            fio version 3 iolog
//! FILE add                       0 FILE add
//! FILE open                      0 FILE open
//! FILE write 4096 8192           12 FILE write 4096 8192        (ms first, from the beginning)
//! FILE wait 10 0                 20 FILE datasync 0 0
//! ```
//!
//! Offsets and lengths are in bytes. Of several files only the first is taken.

use std::io::Read;

use thiserror::Error;

use crate::disk::SECTOR_BYTES;

/// The most operations that are taken from one trace.
pub const OPERATIONS_MAX: usize = 1 << 20;
/// The farthest that an operation of a trace may reach: 16 TiB, the largest device.
const SIZE_BYTES_MAX: u64 = 16 << 40;
/// The most bytes of a trace as text.
const TEXT_BYTES_MAX: u64 = 1 << 30;

/// The recorded traces that come with the simulator, by name, compressed.
pub const RECORDED: &[(&str, &[u8])] = &[
    ("ext4", include_bytes!("../traces/ext4.iolog.xz")),
    ("sqlite", include_bytes!("../traces/sqlite.iolog.xz")),
    ("pg", include_bytes!("../traces/pg.iolog.xz")),
];

/// What an operation of a trace is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TraceKind {
    /// A read.
    Read,
    /// A write.
    Write,
    /// A trim.
    Trim,
    /// A flush.
    Flush,
}

/// One operation of a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceOp {
    /// When it was recorded, ms from the beginning.
    pub at_ms: u64,
    /// What it was.
    pub kind: TraceKind,
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
}

/// A trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    /// The operations in order; whole sectors, none empty but flushes.
    pub ops: Vec<TraceOp>,
    /// The end of the farthest operation, in bytes.
    pub size_bytes: u64,
}

/// A file that is no trace.
#[derive(Debug, Error)]
pub enum TraceError {
    /// It cannot be read or unpacked.
    #[error("the trace cannot be read: {0}")]
    Io(#[from] std::io::Error),
    /// It does not say what it is.
    #[error("not an fio iolog of version 2 or 3: the first line is {first:?}")]
    Version {
        /// The first line.
        first: String,
    },
    /// A line that is none.
    #[error("line {line} of the trace is not one of an fio iolog: {text:?}")]
    Line {
        /// Which, from 1.
        line: usize,
        /// The line.
        text: String,
    },
    /// More than [`OPERATIONS_MAX`].
    #[error("the trace has more than {OPERATIONS_MAX} operations")]
    Long,
}

impl Trace {
    /// One of [`RECORDED`].
    pub fn recorded(name: &str) -> Option<Self> {
        let (_, bytes) = RECORDED.iter().find(|(known, _)| *known == name)?;
        Some(Self::from_bytes(bytes).expect("the recorded traces are traces"))
    }

    /// From the bytes of a file.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, TraceError> {
        const XZ: &[u8] = b"\xfd7zXZ\0";
        if !bytes.starts_with(XZ) {
            return Self::parse(&String::from_utf8_lossy(bytes));
        }
        let mut text = String::new();
        liblzma::read::XzDecoder::new(bytes).take(TEXT_BYTES_MAX).read_to_string(&mut text)?;
        Self::parse(&text)
    }

    /// From text.
    pub fn parse(text: &str) -> Result<Self, TraceError> {
        let mut lines = text.lines().enumerate();
        let first = lines.next().map_or("", |(_, line)| line.trim());
        let version = match first {
            "fio version 2 iolog" => 2,
            "fio version 3 iolog" => 3,
            _ => return Err(TraceError::Version { first: first.chars().take(80).collect() }),
        };
        let (mut ops, mut size_bytes, mut clock_ms, mut taken) = (Vec::new(), 0, 0, None);
        for (at, line) in lines {
            let bad = || TraceError::Line { line: at + 1, text: line.chars().take(80).collect() };
            let mut words = line.split_ascii_whitespace().peekable();
            if words.peek().is_none() {
                continue;
            }
            if version == 3 {
                clock_ms = words.next().and_then(|ms| ms.parse().ok()).ok_or_else(bad)?;
            }
            let file = words.next().ok_or_else(bad)?;
            let action = words.next().ok_or_else(bad)?;
            if matches!(action, "add" | "open" | "close") {
                continue;
            }
            let mut number = || words.next().and_then(|word| word.parse::<u64>().ok()).ok_or_else(bad);
            let (offset, length) = (number()?, number()?);
            let kind = match action {
                "read" => TraceKind::Read,
                "write" => TraceKind::Write,
                "trim" => TraceKind::Trim,
                "sync" | "datasync" | "sync_file_range" => TraceKind::Flush,
                "wait" => {
                    clock_ms += offset / 1000;
                    continue;
                }
                _ => return Err(bad()),
            };
            if *taken.get_or_insert(file) != file {
                continue;
            }
            // What is not whole sectors is widened to them.
            let end = offset.checked_add(length).filter(|end| *end <= SIZE_BYTES_MAX).ok_or_else(bad)?;
            let end = end.next_multiple_of(SECTOR_BYTES);
            let offset = offset / SECTOR_BYTES * SECTOR_BYTES;
            let length = end - offset;
            if kind == TraceKind::Flush {
                ops.push(TraceOp { at_ms: clock_ms, kind, offset: 0, length: 0 });
            } else if length > 0 {
                size_bytes = end.max(size_bytes);
                ops.push(TraceOp { at_ms: clock_ms, kind, offset, length });
            }
            if ops.len() > OPERATIONS_MAX {
                return Err(TraceError::Long);
            }
        }
        Ok(Self { ops, size_bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_recorded_traces_are_there() {
        let counts: Vec<_> = RECORDED
            .iter()
            .map(|(name, _)| {
                let trace = Trace::recorded(name).unwrap();
                let flushes = trace.ops.iter().filter(|op| op.kind == TraceKind::Flush).count();
                (*name, trace.ops.len(), flushes)
            })
            .collect();
        assert_eq!(counts, [("ext4", 2696, 108), ("sqlite", 6413, 2053), ("pg", 5337, 1190)]);
    }

    #[test]
    fn both_versions_are_read() {
        let two = "fio version 2 iolog\nf add\nf open\nf write 100 10\nf wait 3000 0\nf sync 0 0\ng read 0 1\nf close\n";
        let three = "fio version 3 iolog\n0 f write 0 512\n3 f sync 0 0\n";
        let three = Trace::parse(three).unwrap();
        assert_eq!(Trace::parse(two).unwrap(), three);
        assert_eq!((three.ops.len(), three.size_bytes), (2, 512));
    }

    #[test]
    fn other_files_are_refused() {
        assert!(matches!(Trace::parse("hello"), Err(TraceError::Version { .. })));
        let bad = "fio version 3 iolog\n0 f write 18446744073709551615 512\n";
        assert!(matches!(Trace::parse(bad), Err(TraceError::Line { line: 2, .. })));
        assert!(matches!(Trace::parse("fio version 2 iolog\nf jump 1 2\n"), Err(TraceError::Line { .. })));
    }
}
