//! Management: what a person or a program can ask of an array, and what it answers. Travels as JSON over HTTP.
//!
//! A command is one JSON object, `{"command": "device-create", "name": "db", …}`, sent by `POST /v1/command`; the
//! answer is 200 with an [`Answer`], or 4xx/5xx with a [`Refusal`]. Unknown fields are refused, so that a newer
//! client learns that an older array would ignore what it asks.

/// Enums that are written and shown as one word or a few.
macro_rules! named {
    ($($(#[$doc:meta])* $name:ident { $($(#[$item:meta])* $variant:ident = $text:literal),* $(,)? })*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
        pub enum $name {
            $($(#[$item])* #[serde(rename = $text)] $variant,)*
        }

        impl $name {
            /// As it is written and shown.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)*
                }
            }
        }
    )*};
}

mod devices;
mod local;
mod remote;
mod sessions;
mod tracks;

use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use devices::{ArrayInfo, DeviceInfo, DeviceInfoKind, PoolInfo, WhenFull};
pub use local::{PairCalled, PairInfo, PairPace, PairStage, Restore, ScheduleInfo};
pub use remote::{
    DivergedInfo, ForcedInfo, LINK_TEST_BYTES_MAX, LinkInfo, LinkInfoState, LinkTestInfo, NewDevice,
    PairCause, PairData, PairHalf, PairLink, PairMode, PairPolicy, PairRole, PairStatusInfo, PinnedKind,
    RemoteInfo, RemoteSnapshotInfo, SafetyCopyInfo, VerifyInfo, parse_serial, show_serial,
};
pub use sessions::{
    ByteRange, ChangedTracks, Differences, PinnedInfo, SessionInfo, SessionInfoState, TrackRange,
};
pub use tracks::{TRACK_RANGES_MAX, TrackList, TrackListError};

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
    /// Keeps a standard device to become the secondary of a pair, or lets it go (C9): [`Answer::Device`].
    DeviceReserve {
        /// Its name.
        name: String,
        /// `false`: hosts may use it.
        reserved: bool,
    },
    /// *Register* (Fig. 17): reserves a session on a standard device: [`Answer::Session`].
    SessionRegister {
        /// The standard device's name.
        standard: String,
        /// The open group it is to be activated with.
        #[serde(default)]
        group: Option<u32>,
        /// Its tracks that the session is of (D19); `None`: all.
        #[serde(default)]
        tracks: Option<TrackRange>,
    },
    /// *Relate* (Fig. 18): gives a registered session its virtual device: [`Answer::Session`]. Sessions of parts (D19) may have
    /// one together: it shows them in the order in which they are related.
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
    /// What differs between what a session shows and what another one does, or the standard device now (F7):
    /// [`Answer::Differences`].
    SessionDiff {
        /// An active session.
        session: u32,
        /// Another one of the same standard device; `None`: the device as it is now.
        #[serde(default)]
        other: Option<u32>,
        /// The first byte to report on; `next` of the answer before.
        #[serde(default)]
        from_byte: u64,
    },
    /// Each device becomes what a session shows, all at one instant (D8, D10 to D13): [`Answer::Devices`], usable at once.
    SessionRestore {
        /// What to restore.
        restores: Vec<Restore>,
    },
    /// *Create pair* of two volumes of one size (C1): [`Answer::Pair`].
    PairCreate {
        /// The primary.
        primary: String,
        /// The secondary: hosts do not use it until it is copied. `None`: the lowest-numbered reserved volume that fits (C9).
        #[serde(default)]
        secondary: Option<String>,
        /// How many tracks are moved to another pool at a time.
        #[serde(default)]
        pace: PairPace,
    },
    /// The pairs, and the copies that end by themselves: [`Answer::Pairs`].
    PairList {},
    /// One pair, or else a copy of these two volumes that ends by itself: [`Answer::Pair`].
    PairShow {
        /// The primary.
        primary: String,
        /// The secondary.
        secondary: String,
    },
    /// *Copy* (C4): the secondary becomes the primary as it is now: [`Answer::Pair`].
    PairCopy {
        /// The primary.
        primary: String,
        /// The secondary.
        secondary: String,
        /// How many tracks are moved to another pool at a time; `None`: as before.
        #[serde(default)]
        pace: Option<PairPace>,
    },
    /// *Re-synchronize*: hosts leave the secondary, and the next copy moves what differs (C5): [`Answer::Pair`].
    PairResync {
        /// The primary.
        primary: String,
        /// The secondary.
        secondary: String,
        /// How many tracks are moved to another pool at a time; `None`: as before.
        #[serde(default)]
        pace: Option<PairPace>,
    },
    /// The primary becomes the secondary as it is now (D14): [`Answer::Pair`].
    PairRestore {
        /// The primary.
        primary: String,
        /// The secondary.
        secondary: String,
        /// What the primary was before is not kept as a session.
        #[serde(default)]
        discard_before: bool,
        /// How many tracks are moved to another pool at a time; `None`: as before.
        #[serde(default)]
        pace: Option<PairPace>,
    },
    /// Another pace of a pair, also of a copy in progress, or else of all copies of these two volumes that end by themselves (C6):
    /// [`Answer::Pair`].
    PairPace {
        /// The primary.
        primary: String,
        /// The secondary.
        secondary: String,
        /// From now on.
        pace: PairPace,
    },
    /// *Delete pair*; both volumes stay, the secondary as the last copy makes it: [`Answer::Done`].
    PairDelete {
        /// The primary.
        primary: String,
        /// The secondary.
        secondary: String,
    },
    /// Copies a primary at a time, and then every period, to one secondary after the other (C8): [`Answer::Schedules`] with this one.
    /// What was missed is made up for once.
    ScheduleAdd {
        /// The primary.
        primary: String,
        /// Its secondaries, each of a pair with it.
        secondaries: Vec<String>,
        /// The first run, in ms since 1970; `None`: now.
        #[serde(default)]
        at_ms: Option<u64>,
        /// Between two runs; `None`: there is one.
        #[serde(default)]
        every_ms: Option<u64>,
    },
    /// The schedules: [`Answer::Schedules`].
    ScheduleList {},
    /// Ends a schedule; its pairs stay: [`Answer::Done`].
    ScheduleRemove {
        /// The schedule.
        schedule: u32,
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
    /// Makes another array known, under a name that is used here: [`Answer::Links`] with this one link.
    LinkAdd {
        /// Unique among the links: 1 to 64 bytes of letters, digits, `-`, `_`, `.`.
        name: String,
        /// Where it listens for links; `None`: it dials. One of the two arrays has to.
        #[serde(default)]
        endpoint: Option<String>,
        /// Its serial number, as it shows it; `None`: whoever answers at the endpoint first.
        #[serde(default)]
        serial: Option<String>,
    },
    /// The links: [`Answer::Links`].
    LinkList {},
    /// Measures round trip and throughput: [`Answer::LinkTest`].
    LinkTest {
        /// The link's name.
        name: String,
        /// How much to send there and back: at most [`LINK_TEST_BYTES_MAX`].
        size_bytes: u64,
    },
    /// Forgets an array with which there is no pair: [`Answer::Done`].
    LinkRemove {
        /// The link's name.
        name: String,
    },
    /// Makes a pair of a volume here and one on another array (A1–A8): [`Answer::Remote`] once both halves exist;
    /// the copy follows.
    RemoteCreate {
        /// The command's own name, chosen by the caller: asked again, it gives the same result (F2).
        request: u64,
        /// The volume here.
        device: String,
        /// The other array, by the name of its link.
        peer: String,
        /// The volume there.
        peer_device: String,
        /// Which half the volume here is.
        half: PairHalf,
        /// Whose content both are to have (A3).
        from: PairHalf,
        /// The volume here is made.
        #[serde(default)]
        create_local: Option<NewDevice>,
        /// The volume there is made.
        #[serde(default)]
        create_peer: Option<NewDevice>,
        /// How it is mirrored.
        mode: PairMode,
        /// What happens when a write cannot reach the other side.
        policy: PairPolicy,
        /// The consistency group.
        #[serde(default)]
        group: Option<String>,
    },
    /// The pairs: [`Answer::Remotes`].
    RemoteList {},
    /// One pair: [`Answer::Remote`].
    RemoteShow {
        /// The volume here.
        device: String,
    },
    /// Nothing more moves until it is resumed: [`Answer::Remote`].
    RemoteSuspend {
        /// The volume here.
        device: String,
        /// With all pairs of its consistency group, at one instant.
        #[serde(default)]
        whole_group: bool,
        /// The sides are to stay apart: the state is called split.
        #[serde(default)]
        split: bool,
    },
    /// What is owed moves again: [`Answer::Remote`].
    RemoteResume {
        /// The volume here.
        device: String,
        /// With all pairs of its consistency group.
        #[serde(default)]
        whole_group: bool,
    },
    /// [`Answer::Remote`].
    RemoteMode {
        /// The volume here.
        device: String,
        /// From now on.
        mode: PairMode,
    },
    /// Changes how many tracks the array copies at a time, to the other one or from it: [`Answer::Remote`].
    RemotePace {
        /// The volume here.
        device: String,
        /// From now on.
        pace: PairPace,
    },
    /// The volume here is served from now on, that of the other side no more, with all pairs of its consistency group:
    /// [`Answer::Remotes`]. Back again is the same command at the other array.
    RemoteFailover {
        /// The volume here.
        device: String,
        /// The other side is not asked: a person says that it is out of order.
        #[serde(default)]
        force: bool,
    },
    /// The volume here is served from now on as it was before a copy into it began, with all pairs of its consistency group:
    /// the copy was not complete, and the other side is out of order, as a person says. [`Answer::Remotes`] once every
    /// track is back.
    RemoteGoBack {
        /// The volume here.
        device: String,
    },
    /// One point in time of volumes on both arrays (F3): a session of each half, at the same instant, byte for byte the same.
    /// Asked of the array that serves them. [`Answer::RemoteSnapshots`]; if it fails, neither array has anything of it.
    RemoteSnapshot {
        /// The command's own name, chosen by the caller: asked again, it gives the same result (F2).
        request: u64,
        /// The volumes here, each synchronized.
        devices: Vec<String>,
        /// With all volumes of their consistency groups.
        #[serde(default)]
        whole_group: bool,
        /// What the virtual devices that show it are called on either array: the volume's name, a dot, and this.
        name: String,
        /// Keeps hosts off the virtual devices.
        #[serde(default)]
        offline: bool,
    },
    /// Ends a split brain; what is given up is kept as a session first (F4): [`Answer::Remote`].
    RemoteResolve {
        /// The volume here.
        device: String,
        /// Whose content both are to have.
        keep: PairHalf,
    },
    /// Compares both sides while hosts write: [`Answer::Verified`].
    RemoteVerify {
        /// The volume here.
        device: String,
        /// What differs is marked, so that it is copied again.
        #[serde(default)]
        mark: bool,
    },
    /// Ends a pair; both volumes stay as they are: [`Answer::Done`].
    RemoteDelete {
        /// The volume here.
        device: String,
        /// Also if the other side cannot be reached.
        #[serde(default)]
        force: bool,
    },
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
    /// Bytes that differ.
    Differences(Differences),
    /// Links, by name.
    Links(Vec<LinkInfo>),
    /// What a test of a link measured.
    LinkTest(LinkTestInfo),
    /// A pair as it is now.
    Remote(Box<RemoteInfo>),
    /// Pairs, by the name of the volume here.
    Remotes(Vec<RemoteInfo>),
    /// A point in time on both arrays, volume by volume.
    RemoteSnapshots(Vec<RemoteSnapshotInfo>),
    /// What comparing found.
    Verified(VerifyInfo),
    /// A local pair as it is now.
    Pair(Box<PairInfo>),
    /// Local pairs, by number.
    Pairs(Vec<PairInfo>),
    /// Schedules of copies, by number.
    Schedules(Vec<ScheduleInfo>),
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

impl RefusalCode {
    const ALL: [Self; 8] = [
        Self::BadRequest,
        Self::Unauthorized,
        Self::NotFound,
        Self::Exists,
        Self::WrongState,
        Self::Limit,
        Self::NoSpace,
        Self::Unavailable,
    ];

    /// Its number, from 1, where an array keeps how a request ended.
    pub fn number(self) -> u16 {
        Self::ALL.iter().position(|code| *code == self).map_or(0, |at| at as u16 + 1)
    }

    /// The kind of a number; `None`: no kind has it.
    pub fn of_number(number: u16) -> Option<Self> {
        Self::ALL.get(usize::from(number).checked_sub(1)?).copied()
    }
}
