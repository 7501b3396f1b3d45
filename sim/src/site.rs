//! The arrays of a world: one, or two that know each other.

use serde::{Deserialize, Serialize};

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Site {
    /// The first, or the only one.
    #[default]
    A,
    /// The second.
    B,
}

impl Site {
    /// Both.
    pub const ALL: [Self; 2] = [Self::A, Self::B];

    /// Its place among them.
    pub fn index(self) -> usize {
        self as usize
    }

    /// Whether it is the first, to which everything goes that says nothing else.
    pub fn is_first(&self) -> bool {
        *self == Self::A
    }

    /// The other one.
    pub fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    /// As the other array and a plan's reader call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::B => "b",
        }
    }

    /// Its name in the simulated network.
    pub fn address(self) -> &'static str {
        match self {
            Self::A => "array",
            Self::B => "array-b",
        }
    }

    /// What the timeline's sources have behind their names.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::A => "",
            Self::B => "-b",
        }
    }

    /// A seed for its chances: those of the first are the run's.
    pub fn seed(self, seed: u64) -> u64 {
        match self {
            Self::A => seed,
            Self::B => crate::dice::mix(seed ^ 0x62),
        }
    }
}
