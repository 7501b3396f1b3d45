//! What the firmware is told and what it asks for: plain data, so that tests compare whole lists.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use twintrack_core::{Change, DeviceId, Moment, PeerId, StoreId, UnitSeq};
use twintrack_link::Endpoint;
use twintrack_link::manage::{Answer, Command, Refusal};
use twintrack_link::remote::Message;

/// One host connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConnId(pub u64);
/// One request of a host: unique among those of its connection that are not yet answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tag(pub u64);
/// One management call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct CallId(pub u64);
/// One disk operation. Never used twice while the array is up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct IoId(pub u64);

/// A connection to another array. Never used twice while the array is up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LinkId(pub u64);

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A connection wants to use a device; answered by [`Effect::Attached`].
    Attach {
        /// Which connection; new.
        conn: ConnId,
        /// The device's name.
        export: String,
    },
    /// A connection is gone. What it had asked for is carried out all the same, unanswered.
    Detach {
        /// Which connection.
        conn: ConnId,
    },
    /// An attached connection asks for I/O; answered by one [`Effect::Reply`].
    Host {
        /// Which connection.
        conn: ConnId,
        /// Its own name for the request.
        tag: Tag,
        /// What it asks.
        op: HostOp,
    },
    /// A disk operation ended.
    Disk {
        /// Which.
        io: IoId,
        /// For a read its bytes, for others nothing.
        result: Result<Bytes, DiskError>,
    },
    /// A commit ended. One that failed has an unknown outcome.
    Committed {
        /// As in [`Effect::Commit`].
        upto: UnitSeq,
        /// Whether it is durable.
        result: Result<(), DiskError>,
    },
    /// A management call; answered by one [`Effect::Answer`].
    Manage {
        /// Which.
        call: CallId,
        /// Wall time, ms since 1970.
        wall_ms: u64,
        /// What is asked.
        command: Command,
    },
    /// Reads one track of a deactivated session (D15); answered by one [`Effect::TrackRead`].
    ReadTrack {
        /// Which call.
        call: CallId,
        /// The session.
        session: u32,
        /// The track.
        track: u32,
    },
    /// A connection to another array was made.
    LinkOpened {
        /// Its name; new.
        link: LinkId,
        /// Who was dialled; `None`: somebody connected.
        peer: Option<PeerId>,
    },
    /// The other side of a link says something. In its order, and nothing is left out.
    LinkMessage {
        /// Which link.
        link: LinkId,
        /// What.
        message: Message,
    },
    /// A link has ended, whoever ended it. Nothing of it follows.
    LinkClosed {
        /// Which.
        link: LinkId,
        /// For people.
        why: String,
    },
    /// What [`Effect::Dial`] asked for did not come about.
    DialFailed {
        /// Which peer.
        peer: PeerId,
        /// For people.
        why: String,
    },
    /// The deadline has come.
    Timer,
    /// The array is to end: everything that was answered becomes durable; answered by [`Effect::Stopped`].
    Stop,
}

/// I/O on the device of a connection. Offsets and lengths are multiples of 512 and lie on the device (the front end
/// has refused others, and refuses lengths of 0); the firmware checks again and answers [`HostError::Invalid`].
#[derive(Debug, Clone, PartialEq)]
pub enum HostOp {
    /// Answered by [`Reply::Data`].
    Read {
        /// First byte.
        offset: u64,
        /// Bytes: at most 32 MiB.
        length: u32,
    },
    /// Writes.
    Write {
        /// First byte.
        offset: u64,
        /// What to write: at most 32 MiB.
        data: Bytes,
        /// Durable before the answer.
        fua: bool,
    },
    /// Everything answered before it, on any connection, becomes durable.
    Flush,
    /// The content is no longer needed: whole tracks become zeros and take no space, the rest stays as it is.
    Trim {
        /// First byte.
        offset: u64,
        /// Bytes.
        length: u32,
        /// Durable before the answer.
        fua: bool,
    },
    /// The content becomes zeros.
    WriteZeroes {
        /// First byte.
        offset: u64,
        /// Bytes.
        length: u32,
        /// Takes space, so that later writes find it.
        no_hole: bool,
        /// Durable before the answer.
        fua: bool,
    },
    /// What can be told of blocks; answered by [`Reply::Status`].
    BlockStatus {
        /// First byte.
        offset: u64,
        /// Bytes.
        length: u32,
        /// At most one extent of each is wanted.
        one: bool,
        /// What is to be told.
        of: Arc<[StatusOf]>,
    },
}

/// What a block status tells of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatusOf {
    /// Which parts take space.
    Allocation,
    /// Which parts differ between two moments of one standard device.
    Differs(Moment, Moment),
}

/// What a host gets.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    /// It is done.
    Done,
    /// Read data, in order, as long as what was asked for.
    Data(Vec<Segment>),
    /// For each thing that was asked: extents from the offset on, in order; they may end early, never before the first.
    Status(Vec<Vec<Extent>>),
}

/// A piece of read data.
#[derive(Debug, Clone, PartialEq)]
pub enum Segment {
    /// Bytes from a disk.
    Bytes(Bytes),
    /// That many zeros.
    Zeros(u32),
}

impl Segment {
    /// Bytes of it.
    pub fn len(&self) -> u32 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u32,
            Self::Zeros(length) => *length,
        }
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A run of block status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Bytes.
    pub length: u32,
    /// Whether it takes space (if not it reads as zeros), or differs.
    pub set: bool,
}

/// Why a host's request failed. Each has its NBD error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostError {
    /// Not a request that the device takes (EINVAL).
    Invalid,
    /// A store failed (EIO).
    Io,
    /// The pool is full (ENOSPC).
    NoSpace,
    /// The device takes no writes (EPERM).
    ReadOnly,
    /// One of two moments that are compared is not there any more (EINVAL).
    NotComparable,
    /// The device was taken offline, removed, or its session ended or failed (ESHUTDOWN).
    Gone,
}

/// What a disk says when it fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskError {
    /// The operation failed, or the disk is gone.
    Failed,
    /// A sparse file found no room on its file system.
    Full,
}

/// What an attached connection needs to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExportInfo {
    /// Which device.
    pub device: DeviceId,
    /// Its size.
    pub size_bytes: u64,
    /// Whether writes are refused.
    pub read_only: bool,
    /// Bytes of a track: what whole-track trims are aligned to.
    pub track_bytes: u32,
}

/// Why an attach was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttachError {
    /// No such device.
    Unknown,
    /// Offline, or a virtual device without an active session.
    NotReady,
}

/// What is to be done. The effects of one list start in order and none waits for another.
#[derive(Clone, PartialEq)]
pub enum Effect {
    /// Read; ends in [`Event::Disk`].
    Read {
        /// Its name.
        io: IoId,
        /// Where.
        store: StoreId,
        /// First byte on the store.
        offset: u64,
        /// Bytes.
        length: u32,
    },
    /// Write; ends in [`Event::Disk`].
    Write {
        /// Its name.
        io: IoId,
        /// Where.
        store: StoreId,
        /// First byte on the store.
        offset: u64,
        /// The pieces, one after the other.
        data: Vec<Bytes>,
    },
    /// Give the room back; the content becomes undefined. Ends in [`Event::Disk`].
    Discard {
        /// Its name.
        io: IoId,
        /// Where.
        store: StoreId,
        /// First byte on the store.
        offset: u64,
        /// Bytes.
        length: u64,
    },
    /// Make every write of this store that ended before durable; ends in [`Event::Disk`].
    Sync {
        /// Its name.
        io: IoId,
        /// Where.
        store: StoreId,
    },
    /// Make these changes durable, all or none, after those of every earlier commit; ends in [`Event::Committed`].
    Commit {
        /// The last unit that is in it.
        upto: UnitSeq,
        /// In order; a later change of the same thing replaces an earlier one.
        changes: Vec<Change>,
    },
    /// Answers an attach.
    Attached {
        /// Which connection.
        conn: ConnId,
        /// What it may use.
        result: Result<ExportInfo, AttachError>,
    },
    /// Answers a host.
    Reply {
        /// Which connection.
        conn: ConnId,
        /// Which request.
        tag: Tag,
        /// What it gets.
        result: Result<Reply, HostError>,
    },
    /// Answers a management call.
    Answer {
        /// Which.
        call: CallId,
        /// What it gets.
        result: Result<Answer, Refusal>,
    },
    /// Answers [`Event::ReadTrack`].
    TrackRead {
        /// Which call.
        call: CallId,
        /// One whole track, or what the device has of the last one.
        result: Result<Vec<Segment>, Refusal>,
    },
    /// Answers [`Event::Stop`]: everything that was answered before it is durable, or cannot be.
    Stopped {
        /// Whether it is durable.
        result: Result<(), DiskError>,
    },
    /// Connect to another array; ends in [`Event::LinkOpened`] or [`Event::DialFailed`].
    Dial {
        /// Which.
        peer: PeerId,
        /// Where.
        endpoint: Endpoint,
    },
    /// Say something on a link, in the order of the effects. A link that is gone takes it, and nothing comes of it.
    Send {
        /// Which.
        link: LinkId,
        /// What.
        message: Message,
    },
    /// End a link, after what was to be sent before it, which may not take long. Nothing of it follows.
    CloseLink {
        /// Which.
        link: LinkId,
    },
    /// The firmware must not go on: stop answering, and load everything anew from the metadata (crash rule 9).
    Reload,
}

impl fmt::Debug for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read { io, store, offset, length } => {
                write!(f, "read io{} {store} {offset}+{length}", io.0)
            }
            Self::Write { io, store, offset, data } => {
                write!(f, "write io{} {store} {offset}+{}", io.0, data.iter().map(Bytes::len).sum::<usize>())
            }
            Self::Discard { io, store, offset, length } => {
                write!(f, "discard io{} {store} {offset}+{length}", io.0)
            }
            Self::Sync { io, store } => write!(f, "sync io{} {store}", io.0),
            Self::Commit { upto, changes } => write!(f, "commit {upto} {changes:?}"),
            Self::Attached { conn, result } => write!(f, "attached conn{} {result:?}", conn.0),
            Self::Reply { conn, tag, result } => write!(f, "reply conn{} #{} {result:?}", conn.0, tag.0),
            Self::Answer { call, result } => write!(f, "answer call{} {result:?}", call.0),
            Self::TrackRead { call, result } => write!(f, "track call{} {result:?}", call.0),
            Self::Dial { peer, endpoint } => write!(f, "dial {peer} {endpoint}"),
            Self::Send { link, message } => write!(f, "send link{} {message}", link.0),
            Self::CloseLink { link } => write!(f, "close link{}", link.0),
            Self::Stopped { result } => write!(f, "stopped {result:?}"),
            Self::Reload => write!(f, "reload"),
        }
    }
}
