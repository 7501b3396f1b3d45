//! The copy job of remote pairs: what is owed goes to the peer, what is lacked comes from it, in the background or because a
//! host asks for it (A8, A9).
//!
//! A copy of a track is an operation like a write: it has the track to itself while it reads, and its frames are sent before
//! the next write of the track is, so the peer's queue gets them in order. A track stays owed until the peer has
//! answered all its frames.
//!
//! Before the first frame of a copy, the peer makes durable that its half is no longer one point of the lineage
//! ([`Request::Begin`]); when nothing is owed any more, it flushes, takes the sender's lineage, and makes durable that it is one
//! again ([`Request::Complete`]). A crash between leaves *not complete* there, and the copy goes on.
//!
//! A fetch is an operation that has the track to itself until the peer's content is written here. What a host wants of
//! the track waits behind it; if the peer cannot be asked, the host gets an error, at once, never what lies here.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use twintrack_core::defect::{Defect, planted};
use twintrack_core::{
    BLOCK_BYTES, DeviceId, Owner, PairGeneration, PairId, PeerId, Place, Role, Stage, TrackNo,
};
use twintrack_link::remote::{Answer, PeerError, REQUESTS_MAX, Request};

use super::copies::tracks_at;
use super::durability::Waiter;
use super::event::{Effect, HostError, LinkId, Segment};
use super::io::{Change, OpId, Parent};
use super::links::Asked;
use super::mirror::cause_of;
use super::reads::Reader;
use super::told::Rate;
use super::{Firmware, Work};

/// Tracks of one pair that are copied side by side, as far as the link takes them: the other requests are for hosts.
const COPIES_MAX: usize = REQUESTS_MAX / 2;
/// How long a pair stays halted by what the arrays noticed, while they are linked.
const HEAL_AFTER: Duration = Duration::from_secs(10);
/// How long what a host wants of the peer waits for both arrays to agree.
const AGREE_WITHIN: Duration = Duration::from_secs(10);
/// After a track could not be read here, how long until it is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// What is known of a pair besides its record, while the array is up.
#[derive(Debug, Default)]
pub(super) struct Standing {
    /// The link on which both arrays have agreed how the pair stands.
    pub(super) agreed: Option<LinkId>,
    /// Until when both may be expected to agree.
    agrees_until: Duration,
    /// Hosts may use the device: since the array is up both arrays have agreed that this one serves, or a person said so.
    pub(super) vouched: bool,
    /// Raised when copying stops: which answers count.
    run: u32,
    pub(super) begun: Begun,
    /// Tracks that are copied now.
    copying: BTreeMap<TrackNo, Copying>,
    completing: bool,
    /// The generation of which the peer has said that its half has it whole.
    pub(super) whole: Option<PairGeneration>,
    /// Of a half that does not serve: it is what the other one is, as far as that has said.
    pub(super) follows: bool,
    /// When both agreed last, and when the last copy into the half here began.
    pub(super) agreed_at: Duration,
    pub(super) begun_at: Duration,
    /// Up to when the half here surely has all that the other one had answered hosts. `None`: see
    /// [`PairRecord::had_all_ms`](twintrack_core::PairRecord::had_all_ms).
    pub(super) had_all_at: Option<Duration>,
    /// Of a half that serves: since when the other one is behind, if that is known.
    pub(super) behind_since: Option<Duration>,
    /// A copy into the half here was completed since both have agreed.
    pub(super) settled: bool,
    /// The peer has been told of all of the group since then.
    pub(super) group_told: bool,
    /// Tracks could not be read: when to try again.
    pub(super) retry_at: Option<Duration>,
    /// When a pair that the arrays have halted themselves is tried again.
    heal_at: Option<Duration>,
    /// Bytes that were copied since the link is up.
    pub(super) copied_bytes: u64,
    pub(super) rate: Rate,
}

/// One copy of one track: only its own answers count, for the track may have been written since, and be copied anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CopyNo(u64);

#[derive(Debug)]
struct Copying {
    number: CopyNo,
    /// Frames that are not answered.
    frames: u32,
}

/// Whether the peer has been told that a copy into its half begins.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Begun {
    #[default]
    No,
    Asked,
    Yes,
}

impl Standing {
    /// What is on its way counts no more: answers to it pay nothing.
    pub(super) fn stop_copying(&mut self, now: Duration) {
        self.leave_behind(now);
        self.run += 1;
        self.copying.clear();
        self.begun = Begun::No;
        self.completing = false;
        self.follows = false;
        self.settled = false;
        self.group_told = false;
        self.retry_at = None;
    }

    /// The peer's half is no longer known to be whole.
    fn leave_behind(&mut self, now: Duration) {
        if self.whole.take().is_some() {
            self.behind_since = Some(now);
        }
    }
}

impl Firmware {
    /// What is known of a pair.
    pub(super) fn standing(&mut self, pair: PairId) -> &mut Standing {
        self.standings.entry(pair).or_default()
    }

    /// Whether hosts may use a device, as far as its pair goes: this array serves it, and has been told since it is up that
    /// the other one does not, or to serve all the same.
    pub(super) fn serves(&self, device: DeviceId) -> bool {
        let Some(pair) = self.tables.pair_of_device(device) else {
            return !self.pairs.is_leaving(device);
        };
        let Some(record) = self.tables.pair(pair) else { return true };
        let vouched = record.stage != Stage::Ready || self.is_vouched(pair);
        record.role == Role::Owner && vouched && !record.is_returning() && !self.is_releasing(pair)
    }

    /// Both arrays are about to agree how a pair stands: what a host wants of the peer waits for that, for some time.
    pub(super) fn expect_accord(&mut self, pair: PairId) {
        let until = self.now + AGREE_WITHIN;
        self.standing(pair).agrees_until = until;
    }

    /// The other half is no more: nobody will agree, nor answer what a host wants of it.
    pub(super) fn expect_nothing(&mut self, pair: PairId) {
        let standing = self.standing(pair);
        (standing.agreed, standing.agrees_until) = (None, Duration::ZERO);
    }

    fn agrees_soon(&self, pair: PairId) -> bool {
        self.standings.get(&pair).is_some_and(|standing| self.now < standing.agrees_until)
    }

    /// Whether it is known since this array is up that it is the one to serve.
    pub(super) fn is_vouched(&self, pair: PairId) -> bool {
        self.standings.get(&pair).is_some_and(|standing| standing.vouched)
    }

    /// Whether the peer has said that its half is one point of the lineage, this half's present one.
    pub(super) fn is_whole(&self, pair: PairId) -> bool {
        let whole = self.standings.get(&pair).and_then(|standing| standing.whole);
        whole.is_some() && whole == self.tables.pair(pair).map(|record| record.lineage.current())
    }

    /// Owed, and not on its way: a write to it need not be sent, for the copy comes after it.
    pub(super) fn is_owed_still(&self, pair: PairId, track: TrackNo) -> bool {
        self.tables.is_owed(pair, track)
            && !self.standings.get(&pair).is_some_and(|standing| standing.copying.contains_key(&track))
    }

    /// There may be something to copy.
    pub(super) fn look_at_copy(&mut self, pair: PairId) {
        self.copies.insert(pair);
    }

    /// Begins what copies there is room for, of one pair; `false`: there is none to look at.
    pub(super) fn advance_copies(&mut self, fx: &mut Vec<Effect>) -> bool {
        let Some(pair) = self.copies.pop_first() else { return false };
        if self.moves(pair) {
            self.advance_copy(pair, fx);
        }
        true
    }

    fn advance_copy(&mut self, pair: PairId, fx: &mut Vec<Effect>) {
        let Some(record) = self.tables.pair(pair) else { return };
        let (peer, device, lineage) = (record.peer, record.device, record.lineage.clone());
        let size = self.tables.device(device).map_or(0, |device| device.size_bytes);
        let whole = self.tables.geometry().track_bytes();
        let tracks = self.tables.geometry().tracks(size);
        let owes = self.tables.next_owed(pair, TrackNo(0)).is_some_and(|track| track.0 < tracks);
        let (now, is_whole) = (self.now, self.is_whole(pair));
        let standing = self.standing(pair);
        let begun = standing.begun;
        if begun == Begun::No && (owes || !is_whole) {
            // At once, whatever else has to wait: the peer takes it that it is what this half is, until it hears that.
            standing.leave_behind(now);
            standing.begun = Begun::Asked;
            let run = standing.run;
            self.ask(peer, Request::Begin { pair }, Asked::Begin(pair, run), fx);
            return;
        }
        if begun == Begun::Asked || standing.retry_at.is_some_and(|at| at > now) {
            return;
        }
        standing.retry_at = None;
        if begun == Begun::No {
            return self.fetch_some(pair);
        }
        if !owes && standing.copying.is_empty() {
            if standing.completing || is_whole {
                return self.fetch_some(pair);
            }
            // The peer may have it whole even if its answer is lost: first this side has it durably that it may.
            standing.completing = true;
            let _ = self.tables.set_shared(pair, lineage.current());
            let run = self.standing(pair).run;
            self.durability.wait(&self.tables, Waiter::Complete(pair, lineage.current(), run));
            return;
        }
        let mut from = TrackNo(0);
        while self.may_copy(pair, peer, whole) {
            let Some(track) = self.tables.next_owed(pair, from).filter(|track| track.0 < tracks) else {
                // Of what is left, each is on its way, or has to come from the peer first.
                return self.fetch_some(pair);
            };
            from = TrackNo(track.0 + 1);
            if self.standing(pair).copying.contains_key(&track) || self.tables.is_lacked(pair, track) {
                continue;
            }
            let number = self.begin_copying(pair, track);
            let place = Place { owner: Owner::Device(device), track };
            self.start_op(place, 0, whole, Change::Copy, Parent::Copy(pair, track, number));
        }
    }

    fn begin_copying(&mut self, pair: PairId, track: TrackNo) -> CopyNo {
        let number = CopyNo(self.next_number());
        // One frame too many, until it has been read.
        self.standing(pair).copying.insert(track, Copying { number, frames: 1 });
        number
    }

    fn is_copying(&self, pair: PairId, track: TrackNo, number: CopyNo) -> bool {
        let copying = self.standings.get(&pair).and_then(|standing| standing.copying.get(&track));
        copying.is_some_and(|copying| copying.number == number)
    }

    /// Whether another track may be copied beside those that are: few enough of them, and the link has room beside what
    /// hosts wait for. What waits is looked at again with the next answer.
    fn may_copy(&mut self, pair: PairId, peer: PeerId, whole: u32) -> bool {
        let under_way = self.standing(pair).copying.len();
        let most = self.tables.pair(pair).and_then(|record| tracks_at(record.pace)).unwrap_or(COPIES_MAX);
        let fits = (under_way as u32 + 1).saturating_mul(whole) <= self.copy_bytes(peer).max(whole);
        under_way < most && fits && self.has_room(peer, whole)
    }

    /// A copy has its track to itself: it reads it.
    pub(super) fn run_copy(&mut self, id: OpId, fx: &mut Vec<Effect>) {
        let Some(op) = self.ops.get(&id) else { return };
        let (place, parent) = (op.place, op.parent);
        let Parent::Copy(pair, track, number) = parent else { return };
        let Some(entry) = self.tables.entry(place) else {
            self.end_op(id, Err(HostError::Gone));
            return;
        };
        // What is lacked lies at the peer alone, whatever else is known of the track: nothing here may go over it.
        let here = !self.tables.is_lacked(pair, place.track);
        if !self.moves(pair) || !self.is_copying(pair, track, number) {
            self.end_op(id, Ok(()));
        } else if !here {
            self.end_op(id, Err(HostError::Gone));
        } else if entry.is_zeros() {
            self.send_copy(pair, track, number, Request::Clear { pair, track, count: 1 }, fx);
            self.end_op(id, Ok(()));
        } else {
            let mut length = self.bytes_of(place);
            if planted(Defect::CopyWithoutTail) && length > BLOCK_BYTES {
                length -= length % BLOCK_BYTES;
            }
            self.start_read(place.owner, entry, 0..length, Reader::Copy(id), 0, fx);
        }
    }

    /// The track of a copy was read: its frames go, and then the next write of it may.
    pub(super) fn copy_read(
        &mut self,
        id: OpId,
        result: Result<Vec<Segment>, HostError>,
        fx: &mut Vec<Effect>,
    ) {
        let Some(op) = self.ops.get(&id) else { return };
        let Parent::Copy(pair, track, number) = op.parent else { return };
        let ended = match result {
            Err(error) => Err(error),
            Ok(segments) => {
                if self.moves(pair) && self.is_copying(pair, track, number) {
                    let mut within = 0;
                    for segment in segments {
                        let length = segment.len();
                        let what = match segment {
                            Segment::Bytes(data) => Request::Write { pair, track, within, data },
                            Segment::Zeros(length) => Request::Zeros { pair, track, within, length },
                        };
                        self.send_copy(pair, track, number, what, fx);
                        within += length;
                    }
                }
                Ok(())
            }
        };
        self.end_op(id, ended);
    }

    fn send_copy(
        &mut self,
        pair: PairId,
        track: TrackNo,
        number: CopyNo,
        what: Request,
        fx: &mut Vec<Effect>,
    ) {
        let Some(peer) = self.tables.pair(pair).map(|record| record.peer) else { return };
        let now = self.now;
        let standing = self.standing(pair);
        standing.copied_bytes += u64::from(what.payload_bytes());
        standing.rate.add(now, what.payload_bytes().into());
        if let Some(copying) = standing.copying.get_mut(&track) {
            copying.frames += 1;
        }
        self.ask(peer, what, Asked::Copy(pair, track, number), fx);
    }

    /// A copy has sent what it had to.
    pub(super) fn copy_sent(
        &mut self,
        pair: PairId,
        track: TrackNo,
        number: CopyNo,
        result: Result<(), HostError>,
    ) {
        if !self.is_copying(pair, track, number) {
            return;
        }
        if result.is_err() {
            // It cannot be read here: it stays owed, and the others go on meanwhile.
            let retry_at = self.now + RETRY_AFTER;
            let standing = self.standing(pair);
            standing.copying.remove(&track);
            standing.retry_at = Some(retry_at);
            self.copies_at(retry_at);
            return;
        }
        if planted(Defect::PaidEarly)
            && let Some(copying) = self.standing(pair).copying.get_mut(&track)
        {
            copying.frames = 1;
        }
        self.frame_over(pair, track);
    }

    /// The peer has answered a frame of a copy.
    pub(super) fn copy_answered(
        &mut self,
        pair: PairId,
        track: TrackNo,
        number: CopyNo,
        result: Result<Answer, PeerError>,
        fx: &mut Vec<Effect>,
    ) {
        if !self.is_copying(pair, track, number) && !planted(Defect::StaleAnswerCounts) {
            return;
        }
        match result {
            Ok(_) => self.frame_over(pair, track),
            Err(error) => self.halt(pair, cause_of(&error), fx),
        }
    }

    fn frame_over(&mut self, pair: PairId, track: TrackNo) {
        let Some(copying) = self.standing(pair).copying.get_mut(&track) else { return };
        copying.frames -= 1;
        if copying.frames == 0 {
            self.standing(pair).copying.remove(&track);
            self.tables.pay(pair, track);
            self.look_at_copy(pair);
        }
    }

    pub(super) fn begin_answered(
        &mut self,
        pair: PairId,
        run: u32,
        result: Result<Answer, PeerError>,
        fx: &mut Vec<Effect>,
    ) {
        if self.standing(pair).run != run {
            return;
        }
        match result {
            Ok(_) => {
                self.standing(pair).begun = Begun::Yes;
                self.look_at_copy(pair);
                self.crowd_again();
            }
            Err(error) => {
                self.standing(pair).begun = Begun::No;
                self.halt(pair, cause_of(&error), fx);
            }
        }
    }

    /// That the peer may have all of it is durable: it is told so.
    pub(super) fn complete_ready(
        &mut self,
        pair: PairId,
        generation: PairGeneration,
        run: u32,
        fx: &mut Vec<Effect>,
    ) {
        if !self.moves(pair) || self.standing(pair).run != run {
            return;
        }
        let Some((peer, lineage)) =
            self.tables.pair(pair).map(|record| (record.peer, record.lineage.clone()))
        else {
            return;
        };
        if lineage.current() != generation {
            // A newer one has begun since: of that one it is not durable yet.
            self.standing(pair).completing = false;
            self.look_at_copy(pair);
            return;
        }
        self.ask(peer, Request::Complete { pair, lineage }, Asked::Complete(pair, generation, run), fx);
    }

    pub(super) fn complete_answered(
        &mut self,
        pair: PairId,
        generation: PairGeneration,
        run: u32,
        result: Result<Answer, PeerError>,
        fx: &mut Vec<Effect>,
    ) {
        let standing = self.standing(pair);
        if standing.run != run {
            return;
        }
        standing.completing = false;
        match result {
            Ok(_) => {
                (standing.whole, standing.behind_since) = (Some(generation), None);
                standing.begun = Begun::No;
                self.look_at_copy(pair);
            }
            Err(error) => self.halt(pair, cause_of(&error), fx),
        }
    }

    /// Brings what is lacked, in the background.
    fn fetch_some(&mut self, pair: PairId) {
        let Some(record) = self.tables.pair(pair) else { return };
        let (peer, device) = (record.peer, record.device);
        let whole = self.tables.geometry().track_bytes();
        let size = self.tables.device(device).map_or(0, |device| device.size_bytes);
        let tracks = self.tables.geometry().tracks(size);
        let mut from = TrackNo(0);
        while self.may_copy(pair, peer, whole) {
            let Some(track) = self.tables.next_lacked(pair, from).filter(|track| track.0 < tracks) else {
                return;
            };
            from = TrackNo(track.0 + 1);
            if self.standing(pair).copying.contains_key(&track) {
                continue;
            }
            self.begin_copying(pair, track);
            let place = Place { owner: Owner::Device(device), track };
            self.start_op(place, 0, whole, Change::Fetch, Parent::Fetch(pair, track));
        }
    }

    /// A fetch has its track to itself: the peer is asked, if it still lacks the track.
    pub(super) fn run_fetch(&mut self, id: OpId, fx: &mut Vec<Effect>) {
        let Some(op) = self.ops.get(&id) else { return };
        let place = op.place;
        let Some(pair) = self.pair_of(place.owner).filter(|pair| self.tables.is_lacked(*pair, place.track))
        else {
            self.end_op(id, Ok(()));
            return;
        };
        let peer =
            self.tables.pair(pair).filter(|record| record.stage == Stage::Ready).map(|record| record.peer);
        let agreed = self.is_agreed(pair);
        match peer {
            // Both are about to agree.
            Some(peer) if !agreed && self.links.up(peer).is_some() && self.agrees_soon(pair) => {
                self.mirror_again(id);
            }
            Some(peer) if agreed => {
                let length = self.bytes_of(place);
                let what = Request::Fetch { pair, track: place.track, within: 0, length };
                self.ask(peer, what, Asked::Fetch(id), fx);
            }
            _ => self.end_op(id, Err(HostError::Io)),
        }
    }

    /// The peer's content of a track: it is written here.
    pub(super) fn fetch_answered(&mut self, id: OpId, result: Result<Answer, PeerError>) {
        let Some(place) = self.ops.get(&id).map(|op| op.place) else { return };
        let length = self.bytes_of(place);
        let data = match result {
            Ok(Answer::Data(data)) if data.len() as u64 == u64::from(length) => data,
            Ok(Answer::Zeros) => Bytes::new(),
            _ => {
                self.end_op(id, Err(HostError::Io));
                return;
            }
        };
        if let Some(op) = self.ops.get_mut(&id) {
            op.what = if data.is_empty() { Change::Clear } else { Change::Data(data) };
            op.length = length;
        }
        self.work.push_back(Work::Op(id));
    }

    /// A track that was fetched in the background is here, or is not.
    pub(super) fn fetch_over(&mut self, pair: PairId, track: TrackNo, result: Result<(), HostError>) {
        let retry_at = self.now + RETRY_AFTER;
        let standing = self.standing(pair);
        standing.copying.remove(&track);
        if result.is_err() {
            standing.retry_at = Some(retry_at);
            self.copies_at(retry_at);
        }
        self.look_at_copy(pair);
    }

    /// An operation has written a track: if it was lacked, all of it was written, and it no longer is.
    pub(super) fn settle_lacked(&mut self, pair: PairId, track: TrackNo, result: Result<(), HostError>) {
        if result.is_ok() && self.tables.is_lacked(pair, track) {
            self.tables.fetched(pair, track);
            if self.tables.next_lacked(pair, TrackNo(0)).is_none() {
                let _ = self.tables.set_complete(pair, true);
            }
        }
    }

    /// Copies that failed, or pairs that the arrays have halted themselves, are tried again then.
    fn copies_at(&mut self, at: Duration) {
        self.copies_due = Some(self.copies_due.map_or(at, |due| due.min(at)));
    }

    /// What has waited for a while is tried again: no pair stays as it is for want of somebody who looks (F5).
    pub(super) fn copies_timer(&mut self) {
        let now = self.now;
        if self.copies_due.is_none_or(|due| due > now) {
            return;
        }
        let due = |at: Option<Duration>| at.is_some_and(|at| at <= now);
        let pairs = self.standings.iter().filter(|(_, s)| due(s.retry_at) || due(s.heal_at));
        let pairs: Vec<(PairId, bool)> = pairs.map(|(pair, s)| (*pair, due(s.heal_at))).collect();
        for (pair, heals) in pairs {
            let standing = self.standing(pair);
            standing.retry_at = standing.retry_at.filter(|at| *at > now);
            if heals {
                standing.heal_at = None;
                if self.is_agreed(pair) {
                    self.tables.agreed(pair);
                }
            }
            self.look_at_copy(pair);
        }
        let each = self.standings.values().flat_map(|standing| [standing.retry_at, standing.heal_at]);
        self.copies_due = each.flatten().min();
    }

    /// A pair was halted by what the arrays noticed: it is tried again by itself.
    pub(super) fn heal_later(&mut self, pair: PairId) {
        let at = self.now + HEAL_AFTER;
        self.standing(pair).heal_at = Some(at);
        self.copies_at(at);
    }

    /// A track is not as the peer has it, whatever is on its way: it is copied, once more if it is copied now.
    pub(super) fn copy_anew(&mut self, pair: PairId, track: TrackNo) {
        self.standing(pair).copying.remove(&track);
        self.tables.owe(pair, track);
        self.look_at_copy(pair);
    }

    /// Whether what a host wants of a track has to be fetched first.
    pub(super) fn must_fetch(&self, place: Place) -> bool {
        !planted(Defect::LackedServedHere)
            && self.pair_of(place.owner).is_some_and(|pair| self.tables.is_lacked(pair, place.track))
    }

    /// Bytes that the device has of a track.
    pub(super) fn bytes_of(&self, place: Place) -> u32 {
        let geometry = self.tables.geometry();
        let rest = self.size_of(place.owner).saturating_sub(geometry.offset_of(place.track));
        rest.min(u64::from(geometry.track_bytes())) as u32
    }
}
