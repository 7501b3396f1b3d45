//! Why a command is refused.

use thiserror::Error;

use crate::geometry::GeometryError;
use crate::ids::{CopyId, GroupId, PairId, PoolId, ScheduleId, SessionId, TrackNo};
use crate::local::{CopyStatus, PERIOD_MS_MIN, PairCommand};
use crate::records::{NAME_BYTES_MAX, SessionState};
use crate::remote::ENDPOINT_BYTES_MAX;

/// Why a command was refused; nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CommandError {
    /// Not a name.
    #[error(
        "{name:?} is not a name: use 1 to {NAME_BYTES_MAX} of the letters a-z and A-Z, digits, '-', '_' and '.', and begin with a letter or digit"
    )]
    Name {
        /// What was given.
        name: String,
    },
    /// Not a size.
    #[error(transparent)]
    Size(#[from] GeometryError),
    /// A device cannot shrink.
    #[error("device {name} has {size_bytes} bytes and cannot shrink to {to_bytes}: choose a larger size")]
    Shrink {
        /// Which device.
        name: String,
        /// Its size.
        size_bytes: u64,
        /// What was asked for.
        to_bytes: u64,
    },
    /// The name is taken.
    #[error("a device named {name} exists already: choose another name")]
    Exists {
        /// The name.
        name: String,
    },
    /// No such device.
    #[error("there is no device {device}")]
    NoDevice {
        /// Its number or name.
        device: String,
    },
    /// No such session.
    #[error("there is no {session}: it was never registered, or it was removed")]
    NoSession {
        /// Its number.
        session: SessionId,
    },
    /// No such group.
    #[error("there is no open {group}: begin a group first")]
    NoGroup {
        /// Its number.
        group: GroupId,
    },
    /// No such pool.
    #[error("there is no {pool}")]
    NoPool {
        /// Which.
        pool: PoolId,
    },
    /// A standard device is wanted.
    #[error("device {name} is virtual: name a standard device")]
    NotStandard {
        /// Which.
        name: String,
    },
    /// A virtual device is wanted.
    #[error("device {name} is not virtual: name a virtual device")]
    NotVirtual {
        /// Which.
        name: String,
    },
    /// The virtual device is taken.
    #[error(
        "virtual device {name} shows {session} already: remove that session, or name another virtual device"
    )]
    Shown {
        /// Which device.
        name: String,
        /// Its session.
        session: SessionId,
    },
    /// The device has not these tracks.
    #[error("device {name} has {tracks} tracks: name a first and a last one of them")]
    Extent {
        /// Which device.
        name: String,
        /// How many it has.
        tracks: u32,
    },
    /// What comes behind it would not begin with a track.
    #[error("the last part of {name} ends within a track: it has to stay the last one")]
    PartialTrack {
        /// Which virtual device.
        name: String,
    },
    /// The parts of a virtual device begin at one instant.
    #[error("{session} and {other} are parts of one virtual device: activate them by one command")]
    Apart {
        /// One part.
        session: SessionId,
        /// One that is not in the command.
        other: SessionId,
    },
    /// The session is of a part of its device.
    #[error("{session} is of a part of device {name}: it is restored there, and to no other device")]
    OfPart {
        /// Which.
        session: SessionId,
        /// Its standard device.
        name: String,
    },
    /// Two parts that are not the same one.
    #[error("these sessions are of different parts of device {name}: sessions of the same part are compared")]
    PartsDiffer {
        /// Their standard device.
        name: String,
    },
    /// The device has sessions.
    #[error("device {name} has {sessions} sessions: remove them first")]
    HasSessions {
        /// Which device.
        name: String,
        /// How many.
        sessions: usize,
    },
    /// The session's state does not allow it.
    #[error("{session} is {state}, and only a session that is {wanted} can be {verb}")]
    SessionState {
        /// Which.
        session: SessionId,
        /// Its state.
        state: SessionState,
        /// The state it would need.
        wanted: &'static str,
        /// What was asked for.
        verb: &'static str,
    },
    /// The session is activated with its group.
    #[error("{session} waits in {group}: process the group to activate it")]
    InGroup {
        /// Which session.
        session: SessionId,
        /// Its group.
        group: GroupId,
    },
    /// The session waits in no group, or in another.
    #[error("{session} does not wait in {group}: register it with the group")]
    NotInGroup {
        /// Which session.
        session: SessionId,
        /// The group.
        group: GroupId,
    },
    /// The session has no such tracks.
    #[error("{session} has no changed {}: ask which tracks changed", listed(tracks))]
    NotChanged {
        /// Which session.
        session: SessionId,
        /// Which tracks.
        tracks: Vec<TrackNo>,
    },
    /// Two things are compared that are not of one standard device.
    #[error("{other} is not of device {name}: only what is of one standard device can be compared")]
    NotOfDevice {
        /// The one that is not.
        other: String,
        /// The standard device of the other.
        name: String,
    },
    /// No pool of that name.
    #[error("there is no pool named {name}")]
    NoPoolNamed {
        /// The name.
        name: String,
    },
    /// A session is named twice.
    #[error("{session} is named twice")]
    Twice {
        /// Which.
        session: SessionId,
    },
    /// There is nothing to activate.
    #[error("no session is named: name at least one")]
    Nothing,
    /// A limit.
    #[error("{what} is limited to {most}: remove one first")]
    Limit {
        /// What has the limit.
        what: String,
        /// The limit.
        most: usize,
    },
    /// No such peer.
    #[error("there is no peer {peer}: add it with `twintrack link add`")]
    NoPeer {
        /// Its number or name.
        peer: String,
    },
    /// The peer's name is taken.
    #[error("a peer named {name} exists already: choose another name, or remove that peer first")]
    PeerExists {
        /// The name.
        name: String,
    },
    /// Not an endpoint.
    #[error(
        "{endpoint:?} is not an endpoint: use 1 to {ENDPOINT_BYTES_MAX} bytes, such as unix:/run/array.sock or 192.0.2.1:7070"
    )]
    Endpoint {
        /// What was given, its beginning.
        endpoint: String,
    },
    /// The serial is another peer's.
    #[error("array {serial:016x} is known as peer {name} already: use that name, or remove that peer first")]
    PeerKnown {
        /// The serial.
        serial: u64,
        /// The peer that has it.
        name: String,
    },
    /// The peer was pinned to another serial.
    #[error(
        "peer {name} is array {known:016x}, and array {found:016x} answered: correct the endpoint, or remove the peer and add it again if the array was replaced"
    )]
    OtherArray {
        /// The peer.
        name: String,
        /// Its serial.
        known: u64,
        /// Whose answer came.
        found: u64,
    },
    /// The serial is this array's own.
    #[error("array {serial:016x} is this array: name another one")]
    SelfLink {
        /// The serial.
        serial: u64,
    },
    /// The peer has pairs.
    #[error("peer {name} has {pairs} pairs: delete them first")]
    HasPairs {
        /// Which peer.
        name: String,
        /// How many.
        pairs: usize,
    },
    /// No such pair.
    #[error("there is no {pair}: it was deleted, or its creation was undone")]
    NoPair {
        /// Which.
        pair: PairId,
    },
    /// The pair is there already.
    #[error("{pair} exists already, or existed")]
    PairExists {
        /// Which.
        pair: PairId,
    },
    /// The device is half of a pair.
    #[error(
        "device {name} is paired with {peer_device} of peer {peer}: delete the pair first (`twintrack remote delete {name}`)"
    )]
    Paired {
        /// The device here.
        name: String,
        /// The device there.
        peer_device: String,
        /// The peer.
        peer: String,
    },
    /// The pairs of a group go together.
    #[error(
        "the pairs of group {group} have {what} {has}, and the new one {wants}: use another group, or the same {what}"
    )]
    GroupDiffers {
        /// Which group.
        group: String,
        /// What is not the same.
        what: &'static str,
        /// What the group has.
        has: String,
        /// What the new pair would have.
        wants: String,
    },
    /// The pair's state does not allow it.
    #[error("{pair} is {state} and cannot be {verb}: {advice}")]
    PairState {
        /// Which.
        pair: PairId,
        /// Its state.
        state: String,
        /// What was asked for.
        verb: &'static str,
        /// What to do instead.
        advice: &'static str,
    },
    /// A device that lacks tracks of its remote pair, or gets what its peer was written since, has no point in time of its own.
    #[error(
        "device {name} is being filled from its remote pair: wait until that copy is done (`twintrack remote show {name}`)"
    )]
    Filling {
        /// Its name.
        name: String,
    },
    /// A pinned session is not failed.
    #[error("{session} is pinned: it does not give way when room runs out")]
    Pinned {
        /// Which.
        session: SessionId,
    },
    /// A pair may have to go back to the session.
    #[error(
        "{session} has the last whole state of this half of {pair}: it goes by itself when the copy into it is complete; to be without it before, end the pair first"
    )]
    Needed {
        /// Which session.
        session: SessionId,
        /// The pair.
        pair: PairId,
    },
    /// Two arrays have yet to decide whether there is the point in time.
    #[error(
        "{session} is half of a snapshot on two arrays, and whether there is one is decided at the next contact with the other array; if that is lost for good, end the pairs with it first"
    )]
    Undecided {
        /// Which session.
        session: SessionId,
    },
    /// No such copy.
    #[error("there is no {copy}: it was deleted, or it has ended")]
    NoCopy {
        /// Which.
        copy: CopyId,
    },
    /// Not a schedule.
    #[error(
        "a schedule has at least one secondary, and a period of {PERIOD_MS_MIN} ms or more, or none: give both"
    )]
    Schedule,
    /// No such schedule.
    #[error("there is no {schedule}: it was removed, or has run")]
    NoSchedule {
        /// Which.
        schedule: ScheduleId,
    },
    /// The two volumes are no pair.
    #[error("{primary} and {secondary} are no pair: `twintrack pair list` shows them")]
    NotPaired {
        /// The primary that was named.
        primary: String,
        /// The secondary that was named.
        secondary: String,
    },
    /// A volume cannot be its own secondary.
    #[error("{name} cannot be paired with itself: name another volume")]
    SameVolume {
        /// Which.
        name: String,
    },
    /// What is copied has the size of what it is copied to.
    #[error(
        "{name} has {size_bytes} bytes and {other} has {other_bytes}: both must have the same size (`twintrack device resize`)"
    )]
    SizesDiffer {
        /// The one.
        name: String,
        /// Its size.
        size_bytes: u64,
        /// The other.
        other: String,
        /// Its size.
        other_bytes: u64,
    },
    /// The device has part in a copy within the array.
    #[error(
        "device {name} has part in {copy}: wait until it has ended, or delete the pair (`twintrack pair list`)"
    )]
    InCopy {
        /// Which device.
        name: String,
        /// The copy.
        copy: CopyId,
    },
    /// No reserved volume fits.
    #[error(
        "no reserved volume fits {name}: create one of {size_bytes} bytes and reserve it (`twintrack device reserve`)"
    )]
    NoneReserved {
        /// The primary.
        name: String,
        /// Its size.
        size_bytes: u64,
    },
    /// The secondary of a pair that is not copied is not there for others.
    #[error(
        "device {name} is reserved, or the secondary of a pair that is not copied: copy or delete the pair first (`twintrack pair list`)"
    )]
    HeldByPair {
        /// Which device.
        name: String,
    },
    /// The status of a pair does not allow it (Fig. 8).
    #[error("{copy} is {state}, and cannot be {verb}: {}", .verb.advice(*.state))]
    CopyState {
        /// Which.
        copy: CopyId,
        /// Its status.
        state: CopyStatus,
        /// What was asked for.
        verb: PairCommand,
    },
    /// A copy is made from the session.
    #[error("{session} is what a copy is made from: wait until that has ended")]
    InUse {
        /// Which session.
        session: SessionId,
    },
    /// A device is named twice.
    #[error("{name} is to become two things at once: name it once, or do one after the other")]
    TwiceInto {
        /// Which.
        name: String,
    },
    /// The half has no complete copy.
    #[error(
        "{pair}: the copy here was not complete, so it cannot serve alone: bring the peer back, or go back to the session that was kept before the copy began"
    )]
    Incomplete {
        /// Which pair.
        pair: PairId,
    },
    /// A way to mirror that is not there yet.
    #[error(
        "pairs are not mirrored asynchronously yet: choose `synchronous`, or `adaptive`, which copies in the background"
    )]
    NoAsynchronous,
}

/// How many tracks are named where many could be.
const LISTED_MAX: usize = 8;

/// `track t3`, or `tracks t3, t5`.
fn listed(tracks: &[TrackNo]) -> String {
    let named: Vec<_> = tracks.iter().take(LISTED_MAX).map(TrackNo::to_string).collect();
    let plural = if tracks.len() == 1 { "" } else { "s" };
    let others = if tracks.len() > LISTED_MAX { " and others" } else { "" };
    format!("track{plural} {}{others}", named.join(", "))
}
