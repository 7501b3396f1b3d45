//! Management of links and remote pairs: what is told of them.

use serde::{Deserialize, Serialize};
use twintrack_core::remote::axes::{DataState, LinkState, PairStatus};
use twintrack_core::remote::{Half, Halt, Mode, Policy, Role};

/// The largest amount of data that a test of a link sends in bytes.
pub const LINK_TEST_BYTES_MAX: u64 = 1 << 30;

/// A serial number as people read and write it: 16 hexadecimal digits.
pub fn show_serial(serial: u64) -> String {
    format!("{serial:016x}")
}

/// A serial number from 1 to 16 hexadecimal digits; `None`: it is none.
pub fn parse_serial(text: &str) -> Option<u64> {
    let digits = (1..=16).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if digits { u64::from_str_radix(text, 16).ok() } else { None }
}

/// A device to make for a pair (A6).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewDevice {
    /// The pool's name; the first pool of its array if none is named.
    #[serde(default)]
    pub pool: Option<String>,
    /// A multiple of 512. Both volumes of a pair have the same size.
    pub size_bytes: u64,
}

/// The link to another array.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkInfo {
    /// The name of the other array here.
    pub name: String,
    /// Where it is dialled; `None`: it dials.
    pub endpoint: Option<String>,
    /// Its serial number, once it is known.
    pub serial: Option<String>,
    /// How the link stands.
    pub state: LinkInfoState,
    /// Why it is not up: one sentence, with what to do.
    pub why: Option<String>,
    /// Since when it is up, or is not: wall time in ms since 1970.
    pub since_ms: u64,
    /// How long a message takes there and back in µs, as last measured.
    pub round_trip_us: Option<u64>,
    /// Pairs with that array.
    pub pairs: u32,
}

/// How a link stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LinkInfoState {
    /// No connection; it is tried again.
    Down,
    /// It is being dialled, or both say who they are.
    Connecting,
    /// Data can flow.
    Up,
    /// One of the arrays does not want it.
    Refused,
}

/// What a test of a link measured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkTestInfo {
    /// The other array's name.
    pub name: String,
    /// The shortest time of a small message there and back in µs.
    pub round_trip_us: u64,
    /// Bytes that were sent there and back.
    pub size_bytes: u64,
    /// How long that took in µs.
    pub took_us: u64,
}

/// A pair, as one of its arrays knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteInfo {
    /// The pair's own name, the same on both arrays.
    pub pair: String,
    /// The volume here.
    pub device: String,
    /// The other array's name here.
    pub peer: String,
    /// The volume there.
    pub peer_device: String,
    /// Which half is here.
    pub half: PairHalf,
    /// What an operator calls the state; it follows from the four that come next.
    pub status: PairStatusInfo,
    /// Who serves.
    pub role: PairRole,
    /// The link, for this pair.
    pub link: PairLink,
    /// How the data here stand to those there.
    pub data: PairData,
    /// Why nothing moves.
    pub cause: PairCause,
    /// Why it is in that state: one sentence.
    pub why: String,
    /// What comes next, and what a person can do: one sentence.
    pub next: String,
    /// How it is mirrored.
    pub mode: PairMode,
    /// How many tracks this array copies at a time, either way.
    #[serde(default = "adaptive")]
    pub pace: super::PairPace,
    /// What happens when a write cannot reach the other side.
    pub policy: PairPolicy,
    /// The consistency group, if it is in one.
    pub group: Option<String>,
    /// Bytes of the volume.
    pub size_bytes: u64,
    /// What the other side lacks.
    pub owed_bytes: u64,
    /// What is lacked here.
    pub lacked_bytes: u64,
    /// What the present copy has moved.
    pub copied_bytes: u64,
    /// How fast it moves now.
    pub copied_bytes_per_s: u64,
    /// How long the rest takes at that rate.
    pub left_s: Option<u64>,
    /// Since when nothing moves: wall time in ms since 1970; 0: it moves.
    pub since_ms: u64,
    /// How far the half that does not serve is behind: for how long both were not the same, in ms; 0: they are, but for writes
    /// under way. `None`: it is not known here.
    #[serde(default)]
    pub lag_ms: Option<u64>,
    /// What a failover without the other array may have cost, while that array does not know of it.
    #[serde(default)]
    pub forced: Option<ForcedInfo>,
    /// What a split brain is about, if there is one.
    pub diverged: Option<DivergedInfo>,
    /// What the half here can go back to while a copy into it is under way.
    #[serde(default)]
    pub safety_copy: Option<SafetyCopyInfo>,
}

fn adaptive() -> super::PairPace {
    super::PairPace::Adaptive
}

/// The state of a half before a copy into it, or into another one of its group, began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SafetyCopyInfo {
    /// The session that has it.
    pub session: u32,
    /// The virtual device that shows it.
    pub device: String,
    /// When it was: wall time in ms since 1970.
    pub since_ms: u64,
}

/// What a failover by force may have cost (F5).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForcedInfo {
    /// Wall time by this array's clock, in ms since 1970, up to which all is here that the other array had answered hosts: only
    /// later writes may be lost. `None`: it is not known.
    pub had_all_ms: Option<u64>,
}

/// What a split brain is about (F4).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DivergedInfo {
    /// Tracks that were written here since the sides parted.
    pub here_tracks: u64,
    /// Tracks that were written there, as it said when the link came up last; `None`: it has not been up since.
    pub there_tracks: Option<u64>,
    /// The most that differs, in bytes, as far as it is known here: the tracks of both.
    pub bytes: u64,
    /// When the sides parted, as far as it is known here: wall time in ms since 1970.
    pub since_ms: u64,
}

/// A point in time of one volume on both arrays (F3).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteSnapshotInfo {
    /// The session here.
    pub here: super::SessionInfo,
    /// The other array's name here.
    pub peer: String,
    /// The session there; `None`: the request was made before, and only the other array knows.
    pub there: Option<u32>,
    /// The virtual device that shows it there, as far as it is known here.
    pub virtual_device_there: String,
    /// Whether it is known to be shown there; otherwise it is at the next contact.
    pub shown_there: bool,
}

/// What comparing both sides found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyInfo {
    /// The volume here.
    pub device: String,
    /// Tracks that were compared.
    pub compared_tracks: u64,
    /// Tracks that are owed or lacked, and so not compared.
    pub passed_over_tracks: u64,
    /// Tracks that differ; the first [`super::PAGE_MAX`] of them.
    pub differing: Vec<u32>,
    /// How many differ.
    pub differing_tracks: u64,
    /// Whether they were marked, so that they are copied again.
    pub marked: bool,
}

named! {
    /// Which half of a pair, fixed at its creation.
    PairHalf {
        /// The source volume's.
        R1 = "r1",
        /// The destination volume's.
        R2 = "r2",
    }
    /// How a pair is mirrored.
    PairMode {
        /// Both arrays have a write before the host has its answer.
        Synchronous = "synchronous",
        /// In the background.
        Adaptive = "adaptive",
        /// In numbered sets. Refused yet.
        Asynchronous = "asynchronous",
    }
    /// What a consistency group does when a write cannot reach the other side.
    PairPolicy {
        /// It goes on alone.
        Continue = "continue",
        /// It takes no more writes until the other side is back or a person decides.
        Freeze = "freeze",
    }
    /// Who serves the volume.
    PairRole {
        /// Hosts read and write here.
        Owner = "owner",
        /// Hosts are refused.
        Standby = "standby",
        /// Hosts are refused: it was given up, and not taken yet.
        Released = "released",
    }
    /// The link, for one pair.
    PairLink {
        /// There is none; it is dialled again.
        Down = "down",
        /// Both sides say what they have.
        Agreeing = "agreeing",
        /// Data can flow.
        Up = "up",
    }
    /// How the data here stand to those there.
    PairData {
        /// They are the same, but for writes under way.
        Same = "same",
        /// The other side lacks tracks that are here.
        Owed = "owed",
        /// Tracks that the other side has are lacking here.
        Lacked = "lacked",
        /// Both at once.
        Crossed = "crossed",
        /// Both were written alone.
        Diverged = "diverged",
    }
    /// Why nothing moves.
    PairCause {
        /// It moves, or would if there were a link.
        Moving = "moving",
        /// The operator suspended it.
        Operator = "operator",
        /// The link was lost.
        Link = "link",
        /// The other side failed to write.
        Peer = "peer",
        /// The other side has no space left.
        Space = "space",
        /// The operator split it.
        Split = "split",
        /// A write could not reach the other side, and the policy is to take no more.
        Frozen = "frozen",
        /// Both sides were written alone: somebody has to choose.
        Diverged = "diverged",
    }
    /// What a session has that the array keeps for a pair.
    PinnedKind {
        /// What a half was before a copy into it began.
        SafetyCopy = "safety copy",
        /// What was given up after a split brain.
        Loser = "loser",
        /// What a volume was before it was restored.
        Before = "before restore",
        /// What a copy within the array is made from.
        Source = "source of a copy",
    }
    /// What an operator calls the state of a pair.
    PairStatusInfo {
        /// Tracks that differ are being copied, either way.
        SyncInProg = "SyncInProg",
        /// The source volume serves, the destination volume is the same.
        Synchronized = "Synchronized",
        /// The source volume serves, and nothing moves though the link is up.
        Suspended = "Suspended",
        /// The source volume serves, and there is no link.
        Partitioned = "Partitioned",
        /// The operator split the pair.
        Split = "Split",
        /// The destination volume serves, or is about to; nothing moves to the source volume.
        FailedOver = "FailedOver",
        /// The destination volume serves, the source volume is the same: a failback moves nothing.
        R1Updated = "R1Updated",
        /// Both sides were written alone.
        Diverged = "Diverged",
    }
}

macro_rules! the_same {
    ($($name:ident, $core:ident: $($variant:ident),*;)*) => {$(
        impl From<$core> for $name {
            fn from(value: $core) -> Self {
                match value {
                    $($core::$variant => Self::$variant,)*
                }
            }
        }
    )*};
}

the_same! {
    PairHalf, Half: R1, R2;
    PairMode, Mode: Synchronous, Adaptive, Asynchronous;
    PairPolicy, Policy: Continue, Freeze;
    PairRole, Role: Owner, Standby, Released;
    PairCause, Halt: Operator, Link, Peer, Space, Split, Frozen, Diverged;
    PairLink, LinkState: Down, Agreeing, Up;
    PairData, DataState: Same, Owed, Lacked, Crossed, Diverged;
    PairStatusInfo, PairStatus:
        SyncInProg, Synchronized, Suspended, Partitioned, Split, FailedOver, R1Updated, Diverged;
}

impl From<PairHalf> for Half {
    fn from(half: PairHalf) -> Self {
        match half {
            PairHalf::R1 => Self::R1,
            PairHalf::R2 => Self::R2,
        }
    }
}

impl From<PairMode> for Mode {
    fn from(mode: PairMode) -> Self {
        match mode {
            PairMode::Synchronous => Self::Synchronous,
            PairMode::Adaptive => Self::Adaptive,
            PairMode::Asynchronous => Self::Asynchronous,
        }
    }
}

impl From<PairPolicy> for Policy {
    fn from(policy: PairPolicy) -> Self {
        match policy {
            PairPolicy::Continue => Self::Continue,
            PairPolicy::Freeze => Self::Freeze,
        }
    }
}

impl From<Option<Halt>> for PairCause {
    fn from(halt: Option<Halt>) -> Self {
        halt.map_or(Self::Moving, Self::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serial_numbers_are_read_as_they_are_written() {
        for serial in [0, 7, u64::MAX, 0x1234_5678_9abc_def0] {
            assert_eq!(parse_serial(&show_serial(serial)), Some(serial));
        }
        assert_eq!(parse_serial("2A"), Some(42));
        for text in ["", "+1", "0x1", "12345678901234567", "g", "1 "] {
            assert_eq!(parse_serial(text), None, "{text}");
        }
    }
}
