//! What two arrays say to each other: plain data. How it looks on the wire: [`super::frame`] and the codec; who may
//! say what when: [`super::Connection`].
//!
//! A link begins with a [`Hello`] of each side, the dialler's first, or ends with a [`Refused`]. Then both tell how
//! their common pairs stand ([`Message::States`], [`Message::Marks`]), and once both have made durable what follows
//! from that, they say so ([`Message::Agreed`]). Requests go both ways from then on; each is answered once, in any
//! order.

use std::fmt;

use bytes::Bytes;
use thiserror::Error;
use twintrack_core::remote::{self, Half, Halt, Lineage, Mode, Policy, Role, Stage};
use twintrack_core::{PairGeneration, PairId, RegionNo, TrackNo};

/// The version of the protocol that this code speaks; both sides have to speak the same.
///
/// - 1: the first one. Nothing in it is asynchronous yet: numbered sets will be requests of their own, and
///   [`PairState`] will tell the last one.
/// - 2: points in time on both arrays ([`Request::Prepare`], [`Request::Settle`]); [`Request::End`]. Before [`Request::Begin`] is answered
///   nothing of the pair is sent, for the receiver keeps what it has first.
/// - 3: [`PairState::owed_tracks`]; the code of [`Mode::Asynchronous`], which every array refuses yet.
pub const VERSION: u16 = 3;

/// The largest payload of a message in bytes: the largest track.
pub const PAYLOAD_BYTES_MAX: u32 = 1 << 20;
/// A payload is a multiple of so many bytes.
pub const PAYLOAD_UNIT_BYTES: u32 = 512;
/// Pairs that two arrays can have.
pub const PAIRS_MAX: usize = remote::PAIRS_MAX;
/// The most pairs that one [`Message::States`] tells of.
pub const STATES_MAX: usize = 64;
/// The most regions that one [`Message::Marks`] tells of.
pub const MARKS_MAX: usize = 4096;
/// The most check sums of one [`Answer::Sums`]: one for each block of the largest track.
pub const SUMS_MAX: usize = 256;
/// The most volumes of one [`Request::Prepare`].
pub const POINTS_MAX: usize = SUMS_MAX;
/// The most requests that one [`Request::Settle`] names.
pub const SETTLED_MAX: usize = remote::SAGAS_MAX;
/// The longest name of an array, device, pool or group in bytes.
pub const NAME_BYTES_MAX: usize = 64;
/// The longest reason of a refusal in bytes; what is longer is cut when it is sent.
pub const REASON_BYTES_MAX: usize = 1024;

/// One message, either way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Who the sender is. The first message from either side, and only that.
    Hello(Hello),
    /// Instead of a [`Hello`], or after one: there will be no link. The sender closes the connection after it.
    Refused(Refused),
    /// Are you there? Answered by a [`Message::Pong`] with the same number.
    Ping {
        /// Any number.
        n: u64,
    },
    /// I am.
    Pong {
        /// That of the ping.
        n: u64,
    },
    /// How the sender's halves of the pairs with the receiver stand, at the begin of an epoch. Sent even without pairs.
    States {
        /// At most [`STATES_MAX`], each pair once an epoch.
        pairs: Vec<PairState>,
        /// No more come.
        last: bool,
    },
    /// A set of tracks of a pair, as the sender has it.
    Marks(Marks),
    /// The sender has made durable what follows from both sides' states of these pairs: their data may flow.
    Agreed {
        /// At most [`PAIRS_MAX`].
        pairs: Vec<PairId>,
    },
    /// Something to do.
    Request {
        /// Rises by one from each of the sender's requests to the next; the first of a link is 1.
        id: RequestNo,
        /// What.
        what: Request,
    },
    /// What became of a request.
    Answer {
        /// Which.
        id: RequestNo,
        /// What is asked for, or why it was not done.
        result: Result<Answer, PeerError>,
    },
    /// Something to know, without an answer.
    Note(Note),
}

/// A request of one direction of a link.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestNo(pub u64);

impl fmt::Display for RequestNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

impl fmt::Debug for RequestNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Who an array is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// The version that it speaks: [`VERSION`].
    pub version: u16,
    /// Its serial number.
    pub serial: u64,
    /// Its boot number: raised by each start, durably, before it says hello.
    pub boot: u32,
    /// Bytes of its tracks: both arrays of a link have the same.
    pub track_bytes: u32,
    /// Its name, for people: at most [`NAME_BYTES_MAX`] bytes.
    pub name: String,
}

/// Why there is no link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The sender's serial number, so that a person can enter it at the other array.
    pub serial: u64,
    /// For programs.
    pub code: LinkRefusal,
    /// For people: what is wrong and what to do, at most [`REASON_BYTES_MAX`] bytes.
    pub reason: String,
}

/// Kinds of refusals of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkRefusal {
    /// The versions of the protocol differ.
    Version,
    /// The refusing array has no peer of this serial number.
    UnknownArray,
    /// The refusing array expected another serial number at this address.
    WrongSerial,
    /// An array was connected with itself.
    SelfLink,
    /// The arrays have tracks of different sizes.
    TrackSize,
    /// Another link of these two arrays is up, or the refusing array is about to end.
    Busy,
}

/// How one side's half of a pair stands. What it means, and what follows from two of them: `twintrack_core`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PairState {
    /// Which pair.
    pub pair: PairId,
    /// The sender's half.
    pub half: Half,
    /// How far its creation is.
    pub stage: Stage,
    /// Who serves, as the sender has it.
    pub role: Role,
    /// The sender's role was forced by a person.
    pub forced: bool,
    /// How the pair is mirrored.
    pub mode: Mode,
    /// What its group does when the link fails.
    pub policy: Policy,
    /// Why nothing moves.
    pub halt: Option<Halt>,
    /// The sender's content is one point of its lineage.
    pub complete: bool,
    /// Where the sender's content comes from.
    pub lineage: Lineage,
    /// The newest generation that the receiver is known to have whole.
    pub shared: Option<PairGeneration>,
    /// The receiver's boot number when both last agreed; 0: never.
    pub peer_boot: u32,
    /// Bytes of the sender's device.
    pub size_bytes: u64,
    /// Tracks that the sender has and the receiver may lack.
    pub owed_tracks: u32,
}

/// Part of a set of tracks of one pair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marks {
    /// Which pair.
    pub pair: PairId,
    /// Which set.
    pub set: MarkSet,
    /// All tracks from this one on are in it. The same in all parts of a set.
    pub from: Option<TrackNo>,
    /// Regions with their tracks that are in it, lowest bit first: in order, none empty, at most [`MARKS_MAX`]. For
    /// [`MarkSet::Dirty`] all bits are set.
    pub regions: Vec<(RegionNo, u64)>,
    /// No more of this set come.
    pub last: bool,
}

/// Which set of tracks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum MarkSet {
    /// May have been written since the last flush (crash rule 5).
    Dirty,
    /// The sender has them and the receiver lacks them.
    Owed,
    /// The receiver has them and the sender lacks them.
    Lacked,
}

/// What one array asks of the other. Requests that touch the same track take effect in the order in which they were
/// sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Bytes of a track. [`Answer::Done`] once they could be read; durable after a [`Request::Flush`] only.
    Write {
        /// Which pair.
        pair: PairId,
        /// Which track.
        track: TrackNo,
        /// The first byte in the track.
        within: u32,
        /// The payload.
        data: Bytes,
    },
    /// Bytes of a track become zeros: [`Answer::Done`].
    Zeros {
        /// Which pair.
        pair: PairId,
        /// Which track.
        track: TrackNo,
        /// The first byte in the track.
        within: u32,
        /// Bytes.
        length: u32,
    },
    /// Whole tracks become zeros and take no space: [`Answer::Done`].
    Clear {
        /// Which pair.
        pair: PairId,
        /// The first one.
        track: TrackNo,
        /// How many.
        count: u32,
    },
    /// Bytes of a track: [`Answer::Data`] or [`Answer::Zeros`].
    Fetch {
        /// Which pair.
        pair: PairId,
        /// Which track.
        track: TrackNo,
        /// The first byte in the track.
        within: u32,
        /// Bytes, at most [`PAYLOAD_BYTES_MAX`].
        length: u32,
    },
    /// Everything answered before becomes durable: [`Answer::Done`].
    Flush {
        /// Of these pairs, at most [`PAIRS_MAX`]; none named: of all.
        pairs: Vec<PairId>,
    },
    /// The check sums of a track's blocks: [`Answer::Sums`].
    Sums {
        /// Which pair.
        pair: PairId,
        /// Which track.
        track: TrackNo,
    },
    /// The same bytes back, to measure the link: [`Answer::Data`].
    Echo {
        /// The payload.
        data: Bytes,
    },
    /// Make the other half of a pair (A2, A5): [`Answer::Created`]. Asked again it changes nothing.
    Create(Box<CreateHalf>),
    /// A copy into the receiver's half begins: it is no point of its lineage any more. [`Answer::Done`] once that is
    /// durable.
    Begin {
        /// Which pair.
        pair: PairId,
    },
    /// Both halves exist, durably: the pair is made (A4). [`Answer::Done`].
    Ready {
        /// Which pair.
        pair: PairId,
    },
    /// A person has the pair deleted: the receiver, which serves, ends its half and has the sender's removed.
    /// [`Answer::Done`] once its own end is durable.
    End {
        /// Which pair.
        pair: PairId,
    },
    /// Remove the other half (A7), and the device that was made for it if the pair never was ready. [`Answer::Done`],
    /// also if there is none.
    Destroy {
        /// Which pair.
        pair: PairId,
    },
    /// Nothing more moves: [`Answer::Done`] once that is durable.
    Halt {
        /// Which pairs, at most [`PAIRS_MAX`].
        pairs: Vec<PairId>,
        /// Why.
        halt: Halt,
    },
    /// What is owed moves again: [`Answer::Done`].
    Resume {
        /// Which pairs, at most [`PAIRS_MAX`].
        pairs: Vec<PairId>,
    },
    /// [`Answer::Done`].
    SetMode {
        /// Which pair.
        pair: PairId,
        /// From now on.
        mode: Mode,
    },
    /// Serve these no more, so that the sender can (planned failover). [`Answer::Released`] once that is durable and
    /// nothing is under way; what the sender lacks was told by [`Marks`] before it.
    Release {
        /// Which pairs, at most [`PAIRS_MAX`].
        pairs: Vec<PairId>,
    },
    /// The sender serves, durably, what the receiver has released: the receiver stands by. [`Answer::Done`].
    Taken {
        /// Which pair.
        pair: PairId,
    },
    /// The copy into the receiver is done: it flushes, takes the lineage for its own, and answers [`Answer::Done`].
    Complete {
        /// Which pair.
        pair: PairId,
        /// The sender's lineage.
        lineage: Lineage,
    },
    /// The receiver's part of a point in time on both arrays (F3): all that was sent before it is in, nothing that is sent
    /// after it. [`Answer::Prepared`] once that is durable; nobody reads it before a [`Request::Settle`].
    Prepare {
        /// The sender's request, by which it goes.
        request: u64,
        /// What it is of, at most [`POINTS_MAX`], at one instant.
        pairs: Vec<PairId>,
        /// What the virtual devices that show it are called, behind the names of the volumes and a dot.
        name: String,
        /// Whether hosts may use them.
        online: bool,
    },
    /// What became of the sender's points in time: those decided are shown from now on, those open may be yet, and all others
    /// of it that the receiver has prepared go. The first request of an epoch, and one after each decision.
    /// [`Answer::Done`] once that is durable.
    Settle {
        /// There is the point in time, durably: at most [`SETTLED_MAX`].
        decided: Vec<u64>,
        /// It is not decided: at most [`SETTLED_MAX`].
        open: Vec<u64>,
    },
    /// A person chose the sender's data of a pair that diverged: the receiver keeps its own as a session, lacks from then
    /// on whatever may differ, and serves no more (F4). [`Answer::Done`] once that is durable.
    Yield {
        /// Which pair.
        pair: PairId,
        /// The sender's lineage.
        lineage: Lineage,
    },
}

/// One volume of a point in time, prepared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreparedPoint {
    /// The number of its session.
    pub session: u32,
    /// The name of the virtual device that shows it.
    pub shown_by: String,
}

/// The half of a pair that the receiver is to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateHalf {
    /// The pair's name, given by the sender.
    pub pair: PairId,
    /// The command's name: who asks again is given the same.
    pub request: u64,
    /// The receiver's half.
    pub half: Half,
    /// The receiver's device.
    pub device: String,
    /// The sender's device.
    pub peer_device: String,
    /// The receiver's device is to be made.
    pub create: Option<CreateDevice>,
    /// What the device has to have.
    pub size_bytes: u64,
    /// Whose content is copied to the other (A3).
    pub from: Half,
    /// How the pair is mirrored.
    pub mode: Mode,
    /// What its group does when the link fails.
    pub policy: Policy,
    /// The consistency group that it belongs to; empty: it is alone.
    pub group: String,
    /// The sender's lineage.
    pub lineage: Lineage,
}

/// A device to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateDevice {
    /// The pool; `None`: the first.
    pub pool: Option<String>,
}

/// What comes of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It is done.
    Done,
    /// The payload: as long as what was asked for.
    Data(Bytes),
    /// All of what was asked for is zeros.
    Zeros,
    /// CRC32C of each block of 4 KiB in order, at most [`SUMS_MAX`].
    Sums(Vec<u32>),
    /// The half exists, durably.
    Created {
        /// The device was made for it.
        made_device: bool,
        /// Its lineage.
        lineage: Lineage,
    },
    /// All of the point in time, in the order asked for.
    Prepared {
        /// At most [`POINTS_MAX`].
        points: Vec<PreparedPoint>,
    },
    /// The answering side serves these no more; their lineages, in the order asked for.
    Released {
        /// At most [`PAIRS_MAX`].
        pairs: Vec<(PairId, Lineage)>,
    },
}

/// Why the other array did not do what it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{reason}")]
pub struct PeerError {
    /// For programs.
    pub code: PeerErrorCode,
    /// For people: what is wrong with which thing, at most [`REASON_BYTES_MAX`] bytes.
    pub reason: String,
}

/// Kinds of errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerErrorCode {
    /// There is no such pair, device or pool.
    NotFound,
    /// The name is taken, or the device is in another pair.
    Exists,
    /// The pair's or device's state does not allow it.
    WrongState,
    /// A limit is reached.
    Limit,
    /// Not a request that fits the pair: a track or bytes that it does not have.
    Invalid,
    /// No room.
    NoSpace,
    /// A store failed.
    Io,
    /// The array is going down, or waits for a restart: whether it happened is not known.
    Unavailable,
}

/// Something to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// The sender has suspended these, durably.
    Halted {
        /// At most [`PAIRS_MAX`].
        pairs: Vec<PairId>,
        /// Why.
        halt: Halt,
    },
    /// The sender is about to end; the link goes with it.
    Leaving,
}

impl Request {
    /// The pairs that it is a command for; none, if it is I/O or about no pair.
    pub fn commanded(&self) -> &[PairId] {
        match self {
            Self::Ready { pair }
            | Self::End { pair }
            | Self::Destroy { pair }
            | Self::Begin { pair }
            | Self::Taken { pair }
            | Self::SetMode { pair, .. }
            | Self::Yield { pair, .. }
            | Self::Complete { pair, .. } => std::slice::from_ref(pair),
            Self::Create(half) => std::slice::from_ref(&half.pair),
            Self::Halt { pairs, .. }
            | Self::Resume { pairs }
            | Self::Release { pairs }
            | Self::Prepare { pairs, .. } => pairs,
            Self::Write { .. }
            | Self::Zeros { .. }
            | Self::Clear { .. }
            | Self::Fetch { .. }
            | Self::Flush { .. }
            | Self::Sums { .. }
            | Self::Settle { .. }
            | Self::Echo { .. } => &[],
        }
    }

    /// Bytes of payload that it takes on the link, there or back: what the window counts.
    pub fn payload_bytes(&self) -> u32 {
        match self {
            Self::Write { data, .. } | Self::Echo { data } => data.len() as u32,
            Self::Fetch { length, .. } => *length,
            _ => 0,
        }
    }
}

impl Message {
    /// What is sent beside the body: written from where it lies, not copied.
    pub fn payload(&self) -> Option<&Bytes> {
        match self {
            Self::Request { what: Request::Write { data, .. } | Request::Echo { data }, .. }
            | Self::Answer { result: Ok(Answer::Data(data)), .. } => Some(data),
            _ => None,
        }
    }
}

/// One line for traces: payloads and lists by their length.
impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hello(Hello { serial, boot, .. }) => write!(f, "hello {serial:016x} boot {boot}"),
            Self::Refused(Refused { code, reason, .. }) => write!(f, "refused {code:?}: {reason}"),
            Self::Ping { n } => write!(f, "ping {n}"),
            Self::Pong { n } => write!(f, "pong {n}"),
            Self::States { pairs, last } => write!(f, "states of {}{}", pairs.len(), end(*last)),
            Self::Marks(Marks { pair, set, from, regions, last }) => {
                write!(f, "marks {pair} {set:?} from {from:?} in {}{}", regions.len(), end(*last))
            }
            Self::Agreed { pairs } => write!(f, "agreed {pairs:?}"),
            Self::Request { id, what } => write!(f, "{id} {what}"),
            Self::Answer { id, result: Ok(answer) } => write!(f, "{id} is {answer}"),
            Self::Answer { id, result: Err(error) } => write!(f, "{id} failed {:?}: {error}", error.code),
            Self::Note(note) => write!(f, "note {note:?}"),
        }
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Write { pair, track, within, data } => {
                write!(f, "write {pair}/{track} {within}+{}", data.len())
            }
            Self::Echo { data } => write!(f, "echo {}", data.len()),
            other => write!(f, "{other:?}"),
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Data(data) => write!(f, "data {}", data.len()),
            Self::Sums(sums) => write!(f, "sums of {}", sums.len()),
            other => write!(f, "{other:?}"),
        }
    }
}

fn end(last: bool) -> &'static str {
    if last { "" } else { " and more" }
}
