//! Comparing both halves of a pair while hosts write: track by track, by check sums.
//!
//! A comparison has its track to itself, here, from before the peer is asked until both sums are there: no write comes in
//! between, and none is on its way, for it waits for those. So what differs differs (no false alarms), and what is owed
//! or lacked is passed over.

use std::collections::BTreeMap;

use twintrack_core::{Owner, PairId, Place, Role, Stage, TrackNo};
use twintrack_link::manage::{Answer, PAGE_MAX, Refusal, RefusalCode, VerifyInfo};
use twintrack_link::remote::{Answer as PeerAnswer, PeerError, Request};

use super::Firmware;
use super::event::{CallId, Effect, HostError, Segment};
use super::io::{Change, OpId, Parent};
use super::links::Asked;
use super::pairs::told_by_peer;
use super::reads::Reader;
use super::remotes::wrong_state;
use super::standby::sums;

/// Tracks that are compared side by side.
const SIDE_BY_SIDE: usize = 8;
/// Comparisons that run at a time.
const VERIFIES_MAX: usize = 16;

/// Comparisons under way.
#[derive(Debug, Default)]
pub(super) struct Verifies {
    runs: BTreeMap<PairId, Run>,
    tracks: BTreeMap<OpId, Sums>,
}

#[derive(Debug)]
struct Run {
    call: CallId,
    next: TrackNo,
    under_way: usize,
    mark: bool,
    error: Option<PeerError>,
    info: VerifyInfo,
}

/// Both sides' sums of a track.
#[derive(Debug, Default)]
struct Sums {
    here: Option<Vec<u32>>,
    there: Option<Vec<u32>>,
}

impl Firmware {
    /// `remote verify`.
    pub(super) fn verify(
        &mut self,
        call: CallId,
        device: &str,
        mark: bool,
        fx: &mut Vec<Effect>,
    ) -> Result<(), Refusal> {
        let pair = self.pair_named(device)?;
        let record = self.tables.pair(pair);
        if !record.is_some_and(|record| record.role == Role::Owner && record.stage == Stage::Ready) {
            return Err(wrong_state(format!("the other array serves {pair}: ask it there")));
        }
        if !self.is_agreed(pair) {
            return Err(wrong_state(format!("there is no link to compare {pair} over")));
        }
        if self.verifies.runs.contains_key(&pair) || self.verifies.runs.len() >= VERIFIES_MAX {
            return Err(Refusal {
                code: RefusalCode::Limit,
                reason: format!("{pair} is being compared already"),
            });
        }
        let info = VerifyInfo {
            device: device.to_owned(),
            compared_tracks: 0,
            passed_over_tracks: 0,
            differing: Vec::new(),
            differing_tracks: 0,
            marked: false,
        };
        let run = Run { call, next: TrackNo(0), under_way: 0, mark, error: None, info };
        self.verifies.runs.insert(pair, run);
        self.go_on_comparing(pair, fx);
        Ok(())
    }

    fn go_on_comparing(&mut self, pair: PairId, fx: &mut Vec<Effect>) {
        let device = self.tables.pair(pair).map(|record| record.device);
        let size = device.and_then(|device| self.tables.device(device)).map_or(0, |device| device.size_bytes);
        let tracks = self.tables.geometry().tracks(size);
        let whole = self.tables.geometry().track_bytes();
        loop {
            let agreed = self.is_agreed(pair);
            let Some(run) = self.verifies.runs.get_mut(&pair) else { return };
            let more = run.next.0 < tracks && run.error.is_none() && agreed;
            let Some(device) = device.filter(|_| more && run.under_way < SIDE_BY_SIDE) else { break };
            let track = run.next;
            run.next = TrackNo(track.0 + 1);
            run.under_way += 1;
            let place = Place { owner: Owner::Device(device), track };
            self.start_op(place, 0, whole, Change::Compare, Parent::Verify(pair));
        }
        let Some(run) = self.verifies.runs.get(&pair).filter(|run| run.under_way == 0) else { return };
        let whole_way = run.next.0 >= tracks;
        let call = run.call;
        let Some(mut run) = self.verifies.runs.remove(&pair) else { return };
        run.info.marked = run.mark && run.info.differing_tracks > 0;
        self.changed();
        let answer = match run.error {
            Some(error) => Err(told_by_peer(&error)),
            None if whole_way => Ok(Answer::Verified(run.info)),
            None => {
                Err(wrong_state(format!("the link broke: {} tracks were compared", run.info.compared_tracks)))
            }
        };
        self.answer(call, answer, fx);
    }

    /// A comparison has its track to itself.
    pub(super) fn run_compare(&mut self, id: OpId, fx: &mut Vec<Effect>) {
        let Some(op) = self.ops.get(&id) else { return };
        let place = op.place;
        let (Some(pair), Some(entry)) = (self.pair_of(place.owner), self.tables.entry(place)) else {
            self.end_op(id, Err(HostError::Gone));
            return;
        };
        let passes = self.tables.is_owed(pair, place.track) || self.tables.is_lacked(pair, place.track);
        let peer = self.tables.pair(pair).map(|record| record.peer);
        let Some(peer) = peer.filter(|_| !passes && self.is_agreed(pair)) else {
            if let Some(run) = self.verifies.runs.get_mut(&pair) {
                run.info.passed_over_tracks += 1;
            }
            self.end_op(id, Ok(()));
            return;
        };
        if self.has_leg(pair, place.track) {
            // The peer may not have it yet: again when that has ended.
            self.mirror_again(id);
            return;
        }
        self.verifies.tracks.insert(id, Sums::default());
        self.ask(peer, Request::Sums { pair, track: place.track }, Asked::Sums(id), fx);
        let length = self.bytes_of(place);
        self.start_read(place.owner, entry, 0..length, Reader::Compare(id), 0, fx);
    }

    /// The track as it is here.
    pub(super) fn compare_read(&mut self, id: OpId, result: Result<Vec<Segment>, HostError>) {
        let Some(both) = self.verifies.tracks.get_mut(&id) else { return };
        match result {
            Ok(segments) => both.here = Some(sums(&segments)),
            // It cannot be read here, so it is not the same.
            Err(_) => both.here = Some(Vec::new()),
        }
        self.compare(id);
    }

    /// The track as it is there.
    pub(super) fn sums_answered(&mut self, id: OpId, result: Result<PeerAnswer, PeerError>) {
        let Some(both) = self.verifies.tracks.get_mut(&id) else { return };
        match result {
            Ok(PeerAnswer::Sums(sums)) => both.there = Some(sums),
            Ok(_) => both.there = Some(Vec::new()),
            Err(error) => {
                both.there = both.here.clone().or(Some(Vec::new()));
                let pair = self.ops.get(&id).and_then(|op| self.pair_of(op.place.owner));
                if let Some(run) = pair.and_then(|pair| self.verifies.runs.get_mut(&pair)) {
                    run.error = Some(error);
                }
            }
        }
        self.compare(id);
    }

    fn compare(&mut self, id: OpId) {
        let Some(Sums { here: Some(here), there: Some(there) }) = self.verifies.tracks.get(&id) else {
            return;
        };
        let differs = here != there;
        self.verifies.tracks.remove(&id);
        let Some(place) = self.ops.get(&id).map(|op| op.place) else { return };
        if let Some(pair) = self.pair_of(place.owner)
            && let Some(run) = self.verifies.runs.get_mut(&pair)
            && run.error.is_none()
        {
            run.info.compared_tracks += 1;
            if differs {
                run.info.differing_tracks += 1;
                if run.info.differing.len() < PAGE_MAX {
                    run.info.differing.push(place.track.0);
                }
                if run.mark {
                    self.copy_anew(pair, place.track);
                }
            }
        }
        self.end_op(id, Ok(()));
    }

    /// A comparison of a track is over.
    pub(super) fn compared(&mut self, pair: PairId, fx: &mut Vec<Effect>) {
        if let Some(run) = self.verifies.runs.get_mut(&pair) {
            run.under_way -= 1;
        }
        self.go_on_comparing(pair, fx);
    }
}
