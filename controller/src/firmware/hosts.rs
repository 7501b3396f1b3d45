//! Host connections and their requests: each is cut into tracks, and answered when all its parts are over.

use std::time::Duration;

use bytes::Bytes;
use twintrack_core::{DeviceId, Owner, Place, SECTOR_BYTES, SessionId, SessionState};
use twintrack_link::nbd::PAYLOAD_BYTES_MAX;

use super::durability::Waiter;
use super::event::{AttachError, ConnId, Effect, ExportInfo, HostError, HostOp, Reply, Segment, Tag};
use super::io::{self, Parent};
use super::reads::Reader;
use super::{Firmware, Work};

/// Parts of one request under way at a time.
const PARTS_MAX: u32 = 64;
/// Parts that one step begins, of all requests together: a trim may have so many that others would wait for it.
pub(super) const PARTS_A_STEP: u32 = 512;

/// One request of a host, array-wide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RequestId(pub(super) u64);

/// A connection.
#[derive(Debug)]
pub(super) struct Conn {
    device: DeviceId,
    /// What the device showed when it was attached. A host must not find another session under it (D6).
    owner: Owner,
}

/// A request under way.
#[derive(Debug)]
pub(super) struct Request {
    conn: ConnId,
    tag: Tag,
    pub(super) owner: Owner,
    what: What,
    /// The bytes whose parts have not begun.
    at: u64,
    end: u64,
    fua: bool,
    /// When it came.
    since: Duration,
    outstanding: u32,
    /// It waits for a track of the peer.
    fetching: bool,
    /// It is among those that go on in a later step.
    queued: bool,
    /// All parts are over, and it waits for durability: here, and at the peer.
    flushes: u8,
    error: Option<HostError>,
    segments: Vec<Segment>,
}

#[derive(Debug)]
enum What {
    Read,
    Write { offset: u64, data: Bytes },
    Trim,
    WriteZeroes { no_hole: bool },
    Flush,
}

impl Firmware {
    pub(super) fn attach(&mut self, conn: ConnId, export: &str, fx: &mut Vec<Effect>) {
        let result = match self.tables.device_named(export) {
            None => Err(AttachError::Unknown),
            Some((device, _)) => match self.usable(device) {
                Ok((owner, size_bytes)) => {
                    self.conns.insert(conn, Conn { device, owner });
                    let track_bytes = self.tables.geometry().track_bytes();
                    Ok(ExportInfo { device, size_bytes, read_only: self.is_read_only(owner), track_bytes })
                }
                Err(_) => Err(AttachError::NotReady),
            },
        };
        fx.push(Effect::Attached { conn, result });
    }

    pub(super) fn detach(&mut self, conn: ConnId) {
        self.conns.remove(&conn);
    }

    /// The names that hosts may attach to, for `NBD_OPT_LIST`.
    pub fn exports(&self) -> Vec<String> {
        let usable = self.tables.devices().filter(|(id, _)| self.usable(*id).is_ok());
        usable.map(|(_, record)| record.name.clone()).collect()
    }

    /// Whose tracks a device's I/O goes to, and its size; refused while hosts may not use it.
    pub(super) fn usable(&self, device: DeviceId) -> Result<(Owner, u64), HostError> {
        let record = self.tables.device(device).filter(|record| record.online && !record.is_deleting());
        let record = record.ok_or(HostError::Gone)?;
        if record.is_standard() {
            if !self.serves(device) || self.tables.is_held_by_pair(device) {
                return Err(HostError::Gone);
            }
            return Ok((Owner::Device(device), record.size_bytes));
        }
        let sessions = self.tables.sessions_shown_by(device);
        let is_active = |session: &SessionId| {
            let state = self.tables.session(*session).map(|session| session.state);
            matches!(state, Some(SessionState::Active { .. })) && !self.tables.is_undecided(*session)
        };
        match sessions.first() {
            Some(first) if sessions.iter().all(is_active) && self.tables.is_shown_whole(device) => {
                Ok((Owner::Session(*first), record.size_bytes))
            }
            _ => Err(HostError::Gone),
        }
    }

    /// What a pinned session shows stays what it was; so does a virtual device of parts of which one is pinned.
    fn is_read_only(&self, owner: Owner) -> bool {
        let Owner::Session(id) = owner else { return false };
        let is_pinned = |id: &SessionId| self.tables.session(*id).is_some_and(|it| it.pinned.is_some());
        let shown_by = self.tables.session(id).and_then(|record| record.virtual_device);
        let parts = shown_by.map_or(&[][..], |device| self.tables.sessions_shown_by(device));
        is_pinned(&id) || parts.iter().any(is_pinned)
    }

    /// The byte behind the last one of an owner, as the tracks of its standard device are counted.
    pub(super) fn size_of(&self, owner: Owner) -> u64 {
        let device = match owner {
            Owner::Device(id) => Some(id),
            Owner::Session(id) => {
                let session = self.tables.session(id);
                if let Some(extent) = session.and_then(|session| session.extent) {
                    return extent.end(self.tables.geometry());
                }
                session.and_then(|session| session.virtual_device)
            }
        };
        device.and_then(|id| self.tables.device(id)).map_or(0, |record| record.size_bytes)
    }

    pub(super) fn host(&mut self, conn: ConnId, tag: Tag, op: HostOp, fx: &mut Vec<Effect>) {
        if let Err(error) = self.take_request(conn, tag, op, fx) {
            fx.push(Effect::Reply { conn, tag, result: Err(error) });
        }
    }

    fn take_request(
        &mut self,
        conn: ConnId,
        tag: Tag,
        op: HostOp,
        fx: &mut Vec<Effect>,
    ) -> Result<(), HostError> {
        let attached = self.conns.get(&conn).ok_or(HostError::Gone)?;
        let (owner, size_bytes) = self.usable(attached.device)?;
        if owner != attached.owner {
            return Err(HostError::Gone);
        }
        let (what, at, length, fua) = match op {
            HostOp::Read { offset, length } => (What::Read, offset, u64::from(length), false),
            HostOp::Write { offset, data, fua } => {
                let length = data.len() as u64;
                (What::Write { offset, data }, offset, length, fua)
            }
            HostOp::Flush => (What::Flush, 0, 0, true),
            HostOp::Trim { offset, length, fua } => (What::Trim, offset, u64::from(length), fua),
            HostOp::WriteZeroes { offset, length, no_hole, fua } => {
                (What::WriteZeroes { no_hole }, offset, u64::from(length), fua)
            }
            HostOp::BlockStatus { offset, length, one, of } => {
                check_range(offset, u64::from(length), size_bytes)?;
                let result = self.block_status(owner, offset, length, one, &of);
                fx.push(Effect::Reply { conn, tag, result });
                return Ok(());
            }
        };
        if !matches!(what, What::Flush) {
            check_range(at, length, size_bytes)?;
        }
        if !matches!(what, What::Read | What::Flush) && self.is_read_only(owner) {
            return Err(HostError::ReadOnly);
        }
        if matches!(what, What::Read | What::Write { .. }) && length > u64::from(PAYLOAD_BYTES_MAX) {
            return Err(HostError::Invalid);
        }
        let id = RequestId(self.next_number());
        let request = Request {
            conn,
            tag,
            owner,
            what,
            at,
            end: at + length,
            fua,
            since: self.now,
            outstanding: 0,
            fetching: false,
            queued: false,
            flushes: 0,
            error: None,
            segments: Vec::new(),
        };
        self.requests.insert(id, request);
        if !matches!(self.requests[&id].what, What::Read) {
            self.jobs.busy(self.now);
        }
        self.advance(id, fx);
        Ok(())
    }

    /// Begins as many parts as may be under way, and as the step has left; ends the request if there is none left.
    pub(super) fn advance(&mut self, id: RequestId, fx: &mut Vec<Effect>) {
        loop {
            let broken = self.durability.is_broken();
            let Some(request) = self.requests.get_mut(&id) else { return };
            if request.at < request.end && broken && !matches!(request.what, What::Read) {
                // It could never become durable, and what it makes of the tables would be kept for the commit.
                request.error = Some(HostError::Io);
            }
            if request.at == request.end || request.error.is_some() {
                if request.outstanding == 0 {
                    self.parts_over(id, fx);
                }
                return;
            }
            if request.outstanding == PARTS_MAX || request.fetching {
                return;
            }
            let Some(left) = self.parts_left.checked_sub(1) else {
                if !std::mem::replace(&mut request.queued, true) {
                    self.turns.push_back(id);
                }
                return;
            };
            self.parts_left = left;
            let (owner, at, rest) = self.tables.part_at(request.owner, request.at);
            let (track, within, length) = self
                .tables
                .geometry()
                .split(at, (request.end - request.at).min(rest))
                .next()
                .expect("there are bytes left");
            let place = Place { owner, track };
            if matches!(request.what, What::Read) && self.must_fetch(place) {
                self.fetch_for(id, place);
                return;
            }
            let Some(request) = self.requests.get_mut(&id) else { return };
            let offset = request.at;
            request.at += u64::from(length);
            self.begin_part(id, offset, place, within, length, fx);
        }
    }

    /// A read goes on when the peer's content of a track is here (A9).
    fn fetch_for(&mut self, id: RequestId, place: Place) {
        let Some(request) = self.requests.get_mut(&id) else { return };
        request.outstanding += 1;
        request.fetching = true;
        let whole = self.tables.geometry().track_bytes();
        self.start_op(place, 0, whole, io::Change::Fetch, Parent::Read(id));
    }

    /// Requests that have waited for a step go on, in their order, until this one has begun enough.
    pub(super) fn take_turns(&mut self, fx: &mut Vec<Effect>) {
        // Those that come to wait again do so behind the others.
        for _ in 0..self.turns.len() {
            if self.parts_left == 0 {
                return;
            }
            let Some(id) = self.turns.pop_front() else { return };
            if let Some(request) = self.requests.get_mut(&id) {
                request.queued = false;
            }
            self.advance(id, fx);
        }
    }

    fn begin_part(
        &mut self,
        id: RequestId,
        offset: u64,
        place: Place,
        within: u32,
        length: u32,
        fx: &mut Vec<Effect>,
    ) {
        let Some(request) = self.requests.get_mut(&id) else { return };
        let change = match &request.what {
            What::Read => {
                let Some(entry) = self.tables.entry(place) else {
                    request.error = Some(HostError::Gone);
                    return;
                };
                request.outstanding += 1;
                let first = request.segments.len();
                let segments =
                    self.start_read(place.owner, entry, within..within + length, Reader::Host(id), first, fx);
                if let Some(request) = self.requests.get_mut(&id) {
                    request.segments.resize(first + segments, Segment::Zeros(0));
                }
                return;
            }
            What::Write { offset: start, data } => {
                let from = (offset - start) as usize;
                io::Change::Data(data.slice(from..from + length as usize))
            }
            What::Trim | What::WriteZeroes { .. } => {
                let whole = self.covers(place, within, length);
                let Some(request) = self.requests.get_mut(&id) else { return };
                match request.what {
                    What::Trim | What::WriteZeroes { no_hole: false } if whole => io::Change::Clear,
                    What::Trim => return,
                    _ => io::Change::Zeros,
                }
            }
            What::Flush => return,
        };
        if let Some(request) = self.requests.get_mut(&id) {
            request.outstanding += 1;
        }
        if self.must_fetch(place) && !self.covers(place, within, length) {
            // The write comes behind it in the track's queue.
            let whole = self.tables.geometry().track_bytes();
            self.start_op(place, 0, whole, io::Change::Fetch, Parent::Nobody);
        }
        self.start_op(place, within, length, change, Parent::Host(id));
    }

    /// Whether these bytes are all that the device has of the track.
    pub(super) fn covers(&self, place: Place, within: u32, length: u32) -> bool {
        let geometry = self.tables.geometry();
        let rest = self.size_of(place.owner).saturating_sub(geometry.offset_of(place.track));
        within == 0 && u64::from(length) >= rest.min(u64::from(geometry.track_bytes()))
    }

    pub(super) fn host_read_done(
        &mut self,
        id: RequestId,
        first: usize,
        result: Result<Vec<Segment>, HostError>,
    ) {
        let Some(request) = self.requests.get_mut(&id) else { return };
        request.outstanding -= 1;
        match result {
            Ok(segments) => {
                for (index, segment) in segments.into_iter().enumerate() {
                    request.segments[first + index] = segment;
                }
            }
            Err(error) => request.error = Some(error),
        }
        self.work.push_back(Work::Advance(id));
    }

    pub(super) fn host_op_done(&mut self, id: RequestId, result: Result<(), HostError>) {
        let Some(request) = self.requests.get_mut(&id) else { return };
        request.outstanding -= 1;
        if let Err(error) = result {
            request.error = Some(error);
        }
        self.work.push_back(Work::Advance(id));
    }

    /// No part is left: the answer, or the wait for durability before it.
    fn parts_over(&mut self, id: RequestId, fx: &mut Vec<Effect>) {
        let Some(request) = self.requests.get_mut(&id) else { return };
        if request.flushes > 0 {
            return;
        }
        if request.fua && request.error.is_none() {
            // Nobody ends it before both were asked.
            request.flushes = 2;
            let owner = request.owner;
            if !self.flush_peer(id, owner, fx) {
                self.flushed(id, Ok(()), fx);
            }
            if !self.durability.wait(&self.tables, Waiter::Host(id)) {
                self.flushed(id, Err(HostError::Io), fx);
            }
            return;
        }
        self.reply(id, fx);
    }

    /// One of the two arrays has flushed for a request, or has failed to.
    pub(super) fn flushed(&mut self, id: RequestId, result: Result<(), HostError>, fx: &mut Vec<Effect>) {
        let Some(request) = self.requests.get_mut(&id) else { return };
        request.flushes -= 1;
        if let Err(error) = result {
            request.error = Some(error);
        }
        if request.flushes == 0 {
            self.reply(id, fx);
        }
    }

    /// The track that a read needs was fetched, or could not be.
    pub(super) fn read_fetched(&mut self, id: RequestId, result: Result<(), HostError>) {
        if let Some(request) = self.requests.get_mut(&id) {
            request.fetching = false;
        }
        self.host_op_done(id, result);
    }

    /// Answers a request, unless its connection is gone.
    fn reply(&mut self, id: RequestId, fx: &mut Vec<Effect>) {
        let Some(request) = self.requests.remove(&id) else { return };
        self.moves.host_waited(self.now, self.now - request.since);
        let result = match request.error {
            Some(error) => Err(error),
            None => Ok(match request.what {
                What::Read => Reply::Data(join_zeros(request.segments)),
                _ => Reply::Done,
            }),
        };
        if self.conns.contains_key(&request.conn) {
            fx.push(Effect::Reply { conn: request.conn, tag: request.tag, result });
        }
    }
}

fn check_range(offset: u64, length: u64, size_bytes: u64) -> Result<(), HostError> {
    let sector = u64::from(SECTOR_BYTES);
    let aligned = offset.is_multiple_of(sector) && length.is_multiple_of(sector);
    let inside = offset.checked_add(length).is_some_and(|end| end <= size_bytes);
    if aligned && inside && length > 0 { Ok(()) } else { Err(HostError::Invalid) }
}

fn join_zeros(segments: Vec<Segment>) -> Vec<Segment> {
    let mut joined: Vec<Segment> = Vec::with_capacity(segments.len());
    for segment in segments {
        match (joined.last_mut(), &segment) {
            (Some(Segment::Zeros(before)), Segment::Zeros(more)) => *before += more,
            _ => joined.push(segment),
        }
    }
    joined
}
