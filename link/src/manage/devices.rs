//! The array, its pools and its devices, as they are told.

use serde::{Deserialize, Serialize};

/// The array.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArrayInfo {
    /// Its serial number.
    pub serial: String,
    /// The version of the software.
    pub version: String,
    /// Bytes of a track.
    pub track_bytes: u32,
    /// Devices there are.
    pub devices: u32,
    /// Sessions there are.
    pub sessions: u32,
    /// What needs a person's eye, one sentence each.
    pub warnings: Vec<String>,
}

/// A pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolInfo {
    /// Its name.
    pub name: String,
    /// All of it.
    pub size_bytes: u64,
    /// What the standard devices' present content takes.
    pub data_bytes: u64,
    /// What only sessions keep.
    pub log_bytes: u64,
    /// What nothing takes.
    pub free_bytes: u64,
    /// What happens when log space runs out.
    pub when_full: WhenFull,
    /// With less free than this it is among the warnings.
    pub warn_below_bytes: u64,
}

/// What a pool does when a host's write to a standard device finds no free track.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WhenFull {
    /// The oldest sessions fail, visibly, until the write finds room.
    #[default]
    FailSessions,
    /// The write is refused; every session stays.
    RefuseWrites,
}

impl WhenFull {
    /// As it is written in settings and shown to people.
    pub fn name(self) -> &'static str {
        match self {
            Self::FailSessions => "fail-sessions",
            Self::RefuseWrites => "refuse-writes",
        }
    }
}

/// A device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceInfo {
    /// Its number.
    pub id: u32,
    /// Its name.
    pub name: String,
    /// 0 for a virtual device that was never related.
    pub size_bytes: u64,
    /// Standard or virtual.
    pub kind: DeviceInfoKind,
    /// Whether hosts may use it.
    pub online: bool,
    /// Kept to become the secondary of a pair: hosts use it only once it has been copied to.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub reserved: bool,
    /// The numbers of the pairs and other copies within the array that it is in; a standard device in none is *simplex* (C13).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub copies: Vec<u32>,
}

/// What kind of device it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum DeviceInfoKind {
    /// Has data.
    Standard {
        /// Its pool.
        pool: String,
        /// Sessions on it.
        sessions: u32,
    },
    /// Has pointers.
    Virtual {
        /// The sessions that it shows: none, one, or that of each part, in the order of its bytes.
        shows: Vec<u32>,
    },
}
