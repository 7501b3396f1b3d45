//! The other end of a pair: what the array that serves sends is written here by the one write path, and read back.

use bytes::{Bytes, BytesMut};
use twintrack_core::defect::{Defect, planted};
use twintrack_core::{BLOCK_BYTES, Owner, Place, Role, Stage};
use twintrack_link::remote::{Answer, PeerError, PeerErrorCode, Request};

use super::Firmware;
use super::event::{Effect, HostError, Segment};
use super::io::{Change, Parent};
use super::links::Served;
use super::mirror::{not_found, wrong_state};
use super::reads::Reader;

impl Firmware {
    /// An operation of a peer is over.
    pub(super) fn served(&mut self, served: Served, result: Result<(), HostError>, fx: &mut Vec<Effect>) {
        self.answer_peer(served, result.map(|()| Answer::Done).map_err(peer_error), fx);
    }

    /// What a peer wanted to read.
    pub(super) fn peer_read(
        &mut self,
        served: Served,
        result: Result<Vec<Segment>, HostError>,
        fx: &mut Vec<Effect>,
    ) {
        let result = result.map_err(peer_error).map(|segments| match &segments[..] {
            [Segment::Zeros(_)] => Answer::Zeros,
            [Segment::Bytes(data)] => Answer::Data(data.clone()),
            // From several places: one message takes one payload.
            _ => Answer::Data(join(&segments)),
        });
        self.answer_peer(served, result, fx);
    }

    /// The check sums that a peer wanted.
    pub(super) fn peer_summed(
        &mut self,
        served: Served,
        result: Result<Vec<Segment>, HostError>,
        fx: &mut Vec<Effect>,
    ) {
        let result = result.map_err(peer_error).map(|segments| Answer::Sums(sums(&segments)));
        self.answer_peer(served, result, fx);
    }

    /// The peer asks for I/O on its pair.
    pub(super) fn serve_io(&mut self, served: Served, what: Request, fx: &mut Vec<Effect>) {
        if let Err(error) = self.begin_served(served, what, fx) {
            self.answer_peer(served, Err(error), fx);
        }
    }

    fn begin_served(&mut self, served: Served, what: Request, fx: &mut Vec<Effect>) -> Result<(), PeerError> {
        let geometry = self.tables.geometry();
        let (pair, track, within, length) = match &what {
            Request::Write { pair, track, within, data } => (*pair, *track, *within, data.len() as u64),
            Request::Zeros { pair, track, within, length }
            | Request::Fetch { pair, track, within, length } => (*pair, *track, *within, u64::from(*length)),
            Request::Clear { pair, track, count } => {
                (*pair, *track, 0, u64::from(*count) * u64::from(geometry.track_bytes()))
            }
            Request::Sums { pair, track } => (*pair, *track, 0, 512),
            _ => return Err(invalid("a request that is none for data")),
        };
        let record = self.tables.pair(pair).filter(|record| record.stage == Stage::Ready);
        let record = record.ok_or_else(|| not_found(pair))?;
        let device = record.device;
        let agreed = self.agreed_link(pair);
        let current = agreed == Some(served.link) || agreed.is_some() && planted(Defect::StaleFrameTaken);
        if record.role != Role::Standby || !current {
            return Err(wrong_state(format!("this array has not agreed to take what belongs to {pair}")));
        }
        let size = self.tables.device(device).map_or(0, |record| record.size_bytes);
        let start = geometry.offset_of(track) + u64::from(within);
        let clear = matches!(what, Request::Clear { .. });
        let inside = u64::from(within) + length <= u64::from(geometry.track_bytes()) || clear && within == 0;
        let last = if clear { start < size && length > 0 } else { start + length <= size };
        if !inside || !last || length == 0 || !length.is_multiple_of(512) || !within.is_multiple_of(512) {
            return Err(invalid("bytes that the device does not have"));
        }
        let owner = Owner::Device(device);
        let place = Place { owner, track };
        let parent = Parent::Peer(served);
        match what {
            Request::Write { data, .. } => {
                self.start_op(place, within, length as u32, Change::Data(data), parent);
            }
            Request::Zeros { .. } => self.start_op(place, within, length as u32, Change::Zeros, parent),
            Request::Clear { count: 1, .. } => {
                let whole = geometry.track_bytes();
                self.start_op(place, 0, whole, Change::Clear, parent);
            }
            Request::Fetch { .. } | Request::Sums { .. } => {
                let length = match what {
                    Request::Sums { .. } => (size - start).min(u64::from(geometry.track_bytes())) as u32,
                    _ => length as u32,
                };
                let entry = self.tables.entry(place).ok_or_else(|| not_found(pair))?;
                let reader = match what {
                    Request::Sums { .. } => Reader::Sums(served),
                    _ => Reader::Peer(served),
                };
                self.start_read(owner, entry, within..within + length, reader, 0, fx);
            }
            _ => return Err(invalid("more tracks than one")),
        }
        Ok(())
    }
}

/// CRC32C of each block of a track.
pub(super) fn sums(segments: &[Segment]) -> Vec<u32> {
    join(segments).chunks(BLOCK_BYTES as usize).map(crc32c::crc32c).collect()
}

fn join(segments: &[Segment]) -> Bytes {
    let mut joined = BytesMut::with_capacity(segments.iter().map(|segment| segment.len() as usize).sum());
    for segment in segments {
        match segment {
            Segment::Bytes(data) => joined.extend_from_slice(data),
            Segment::Zeros(length) => joined.resize(joined.len() + *length as usize, 0),
        }
    }
    joined.freeze()
}

fn peer_error(error: HostError) -> PeerError {
    let (code, reason) = match error {
        HostError::NoSpace => (PeerErrorCode::NoSpace, "the pool of the other array's device is full"),
        HostError::Invalid | HostError::NotComparable => {
            (PeerErrorCode::Invalid, "the other array took it for no request of this device")
        }
        HostError::Gone | HostError::ReadOnly => {
            (PeerErrorCode::WrongState, "the other array's device is not there any more")
        }
        HostError::Io => (PeerErrorCode::Io, "a store of the other array failed"),
    };
    PeerError { code, reason: reason.into() }
}

fn invalid(what: &str) -> PeerError {
    PeerError { code: PeerErrorCode::Invalid, reason: format!("the request asks for {what}") }
}
