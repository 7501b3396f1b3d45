//! Management: what a person or a program can ask of an array, and what it answers. Travels as JSON over HTTP.
//!
//! A command is one JSON object, `{"command": "device-create", "name": "db", …}`, sent by `POST /v1/command`; the
//! answer is 200 with an [`Answer`], or 4xx/5xx with a [`Refusal`]. Unknown fields are refused, so that a newer
//! client learns that an older array would ignore what it asks.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The path that takes commands.
pub const COMMAND_PATH: &str = "/v1/command";
/// The largest body of a command in bytes.
pub const COMMAND_BYTES_MAX: usize = 1 << 20;
/// The most items that one answer lists; the rest is asked for from its `next` on.
pub const PAGE_MAX: usize = 4096;

/// What can be asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case", rename_all_fields = "snake_case", deny_unknown_fields)]
pub enum Command {
    /// What the array is: [`Answer::Array`].
    ArrayShow {},
    /// The pools and their space: [`Answer::Pools`].
    PoolList {},
    /// A standard device of `size_bytes` in a pool (the first pool if none is named): [`Answer::Device`].
    DeviceCreate {
        /// Its name and NBD export name: 1 to 64 bytes of letters, digits, `-`, `_`, `.`.
        name: String,
        /// A multiple of 512, up to 16 TiB.
        size_bytes: u64,
        /// The pool's name.
        #[serde(default)]
        pool: Option<String>,
    },
    /// A virtual device; it has no size until a session is related to it: [`Answer::Device`].
    DeviceCreateVirtual {
        /// As for `DeviceCreate`.
        name: String,
    },
    /// All devices: [`Answer::Devices`].
    DeviceList {},
    /// One device: [`Answer::Device`].
    DeviceShow {
        /// Its name.
        name: String,
    },
    /// Removes a device that no session uses; its space is given back in the background: [`Answer::Done`].
    DeviceDelete {
        /// Its name.
        name: String,
    },
    /// [`Answer::Device`].
    DeviceRename {
        /// The present name.
        name: String,
        /// The new one.
        to: String,
    },
    /// Grows a standard device; what is added reads as zeros: [`Answer::Device`].
    DeviceResize {
        /// Its name.
        name: String,
        /// Not less than its size.
        size_bytes: u64,
    },
    /// Lets hosts use a device, or stops them: [`Answer::Device`].
    DeviceOnline {
        /// Its name.
        name: String,
        /// `false`: hosts get an error until it is online again.
        online: bool,
    },
    /// *Register* (Fig. 17): reserves a session on a standard device: [`Answer::Session`].
    SessionRegister {
        /// The standard device's name.
        standard: String,
        /// The open group it is to be activated with.
        #[serde(default)]
        group: Option<u32>,
    },
    /// *Relate* (Fig. 18): gives a registered session its virtual device: [`Answer::Session`].
    SessionRelate {
        /// The session.
        session: u32,
        /// The name of a virtual device that no other session uses.
        virtual_device: String,
    },
    /// *Activate* (Fig. 19A): all these sessions begin at one instant: [`Answer::Sessions`].
    SessionActivate {
        /// What to activate.
        sessions: Vec<Activation>,
    },
    /// *Deactivate* (Fig. 27): no more I/O, no more cost, changed tracks stay readable: [`Answer::Session`].
    SessionDeactivate {
        /// The session.
        session: u32,
    },
    /// Ends a session and gives back what only it needs: [`Answer::Done`].
    SessionRemove {
        /// The session.
        session: u32,
    },
    /// The sessions of a standard device, or all: [`Answer::Sessions`].
    SessionList {
        /// The standard device's name.
        #[serde(default)]
        standard: Option<String>,
    },
    /// Which tracks changed since the activation (D15): [`Answer::Changed`].
    SessionChanged {
        /// The session, active or deactivated.
        session: u32,
        /// The first track to report on; `next` of the answer before.
        #[serde(default)]
        from_track: u32,
    },
    /// *Begin group* (D8): [`Answer::Group`].
    GroupBegin {},
    /// *Process group*: activates all sessions registered with it, then closes it: [`Answer::Sessions`].
    GroupProcess {
        /// The group.
        group: u32,
        /// At one instant or one by one.
        #[serde(default)]
        mode: GroupMode,
        /// New names and offline, for sessions of the group that want it.
        #[serde(default)]
        options: Vec<Activation>,
    },
    /// Ends a group and activates nothing; its sessions stay, in no group, to be activated or removed by themselves:
    /// [`Answer::Sessions`] says which.
    GroupCancel {
        /// The group.
        group: u32,
    },
    /// The open groups: [`Answer::Groups`].
    GroupList {},
}

/// How *Process group* activates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GroupMode {
    /// A consistent cut over all devices of the group (Fig. 19A).
    #[default]
    Synchronous,
    /// Each pair by itself (Fig. 19B).
    OneByOne,
}

/// A session to activate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Activation {
    /// The session: related, not yet active.
    pub session: u32,
    /// A new name for its virtual device (D9).
    #[serde(default)]
    pub name: Option<String>,
    /// Keeps hosts off its virtual device (D9).
    #[serde(default)]
    pub offline: bool,
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", content = "is", rename_all = "kebab-case")]
pub enum Answer {
    /// It happened, durably.
    Done,
    /// The array.
    Array(ArrayInfo),
    /// Pools.
    Pools(Vec<PoolInfo>),
    /// A device as it is now.
    Device(DeviceInfo),
    /// Devices, by name.
    Devices(Vec<DeviceInfo>),
    /// A session as it is now.
    Session(SessionInfo),
    /// Sessions, by number.
    Sessions(Vec<SessionInfo>),
    /// A new group's number.
    Group(u32),
    /// Open groups' numbers.
    Groups(Vec<u32>),
    /// Changed tracks.
    Changed(ChangedTracks),
}

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
        /// The session that it shows.
        session: Option<u32>,
    },
}

/// A session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionInfo {
    /// Its number.
    pub id: u32,
    /// Its standard device.
    pub standard: String,
    /// Its virtual device.
    pub virtual_device: Option<String>,
    /// Where it stands.
    pub state: SessionInfoState,
    /// The group it waits in.
    pub group: Option<u32>,
    /// Wall time of its activation in ms since 1970.
    pub activated_ms: Option<u64>,
}

/// Where a session stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SessionInfoState {
    /// Reserved.
    Registered,
    /// Has its virtual device.
    Related,
    /// A point in time.
    Active,
    /// A set of changed tracks (D15).
    Deactivated,
    /// Lost its old tracks to a full pool.
    Failed,
    /// On its way out.
    Removing,
}

/// The tracks of a standard device that changed since a session's activation, or that were written through its
/// virtual device; for a deactivated session, until then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangedTracks {
    /// Track numbers in order, at most [`PAGE_MAX`].
    pub tracks: Vec<u32>,
    /// Where to go on, if that was not all.
    pub next: Option<u32>,
}

/// Why a command was refused. Nothing was changed, unless it says otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Error)]
#[error("{reason}")]
pub struct Refusal {
    /// What kind of refusal: for programs.
    pub code: RefusalCode,
    /// What is wrong with which thing, and what to do: for people.
    pub reason: String,
}

/// Kinds of refusals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RefusalCode {
    /// The request itself is not one (400).
    BadRequest,
    /// The token is missing or wrong (401).
    Unauthorized,
    /// There is no such thing (404).
    NotFound,
    /// The name is taken (409).
    Exists,
    /// The thing's state does not allow it (409).
    WrongState,
    /// A limit is reached (409).
    Limit,
    /// No room (507).
    NoSpace,
    /// A store or the metadata failed, or the array is going down: whether it happened is not known (503).
    Unavailable,
}
