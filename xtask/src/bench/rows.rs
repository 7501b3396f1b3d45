//! What is measured.

use clap::ValueEnum;

/// One line of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Row {
    /// Random 4 KiB writes with a flush after each, one at a time
    WriteFlush,
    /// Random 4 KiB writes, 32 at a time
    RandomWrite,
    /// Random 4 KiB reads, 32 at a time
    RandomRead,
    /// nbdcopy from the device
    CopyOut,
    /// nbdcopy to the device
    CopyIn,
    /// The first 4 KiB write to each track after a snapshot, one at a time
    FirstWrite,
    /// The first 4 KiB write to each track after a snapshot, 32 at a time
    FirstWriteDeep,
    /// Time to take a snapshot of the device, fully written
    Activate,
    /// Time to take a snapshot of 1 TiB, unwritten
    ActivateLarge,
}

/// How a row is read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// More is better; the floor is a ratio to the better peer.
    Rate { floor: f64 },
    /// A rate after a snapshot and before; the floor is the ratio of the two.
    Change { floor: f64 },
    /// Less is better; ms.
    Time,
}

impl Kind {
    /// The head of the first column.
    pub fn head(self) -> &'static str {
        match self {
            Self::Rate { .. } => "a second",
            Self::Change { .. } => "a second, before → after",
            Self::Time => "time",
        }
    }

    /// Of a row's values.
    pub fn unit(self, row: Row) -> &'static str {
        match self {
            Self::Rate { .. } if matches!(row, Row::CopyIn | Row::CopyOut) => "bytes/s",
            Self::Rate { .. } | Self::Change { .. } => "operations/s",
            Self::Time => "ms",
        }
    }
}

impl Row {
    /// As `--rows` takes it.
    pub fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    pub fn title(self) -> &'static str {
        match self {
            Self::WriteFlush => "4 KiB write + flush, QD 1",
            Self::RandomWrite => "4 KiB random write, QD 32",
            Self::RandomRead => "4 KiB random read, QD 32",
            Self::CopyOut => "nbdcopy out, bytes",
            Self::CopyIn => "nbdcopy in, bytes",
            Self::FirstWrite => "first 4 KiB to a track, QD 1",
            Self::FirstWriteDeep => "first 4 KiB to a track, QD 32",
            Self::Activate => "snapshot, the device, full",
            Self::ActivateLarge => "snapshot, 1 TiB, unwritten",
        }
    }

    pub fn kind(self) -> Kind {
        match self {
            Self::WriteFlush | Self::RandomWrite | Self::RandomRead | Self::CopyOut | Self::CopyIn => {
                Kind::Rate { floor: 0.8 }
            }
            Self::FirstWrite | Self::FirstWriteDeep => Kind::Change { floor: 1.0 / 1.5 },
            Self::Activate | Self::ActivateLarge => Kind::Time,
        }
    }
}
