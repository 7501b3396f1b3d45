//! How a pair is made, on the side that was asked (A1–A7): see [`super::pairs`] for the order.

use twintrack_core::{
    CommandError, Half, Lineage, Pace, PairDevice, PairGeneration, PairId, PairRecord, PeerId, Role,
    SagaResult, Stage, TrackNo,
};
use twintrack_link::manage::{NewDevice, PairHalf, PairMode, PairPolicy, Refusal, RefusalCode};
use twintrack_link::remote::{CreateDevice, CreateHalf, PeerError, PeerErrorCode, Request};

use super::Firmware;
use super::durability::Waiter;
use super::event::{CallId, Effect};
use super::links::Asked;
use super::manage;
use super::mirror::not_found;
use super::pairs::{refused, told_by_peer};
use super::remotes::wrong_state;
use super::rounds;

/// A pair to make, as it was asked for.
#[derive(Debug)]
pub(super) struct NewPair {
    pub(super) request: u64,
    pub(super) device: String,
    pub(super) peer: String,
    pub(super) peer_device: String,
    pub(super) half: PairHalf,
    pub(super) from: PairHalf,
    pub(super) create_local: Option<NewDevice>,
    pub(super) create_peer: Option<NewDevice>,
    pub(super) mode: PairMode,
    pub(super) policy: PairPolicy,
    pub(super) group: Option<String>,
}

/// No track: a copy pointer beyond every device.
const NO_TRACK: TrackNo = TrackNo(u32::MAX);

impl Firmware {
    /// `remote create`: this half first, not ready (A1).
    pub(super) fn create_remote(
        &mut self,
        call: CallId,
        new: NewPair,
        fx: &mut Vec<Effect>,
    ) -> Result<(), Refusal> {
        if let Some(again) = self.asked_before(call, &new, fx) {
            return again;
        }
        let refusal = |error: CommandError| manage::refusal(&error);
        let Some((peer, _)) = self.tables.peer_named(&new.peer) else {
            let reason = format!(
                "there is no link {}: `twintrack link list` shows them",
                new.peer.chars().take(64).collect::<String>()
            );
            return Err(Refusal { code: RefusalCode::NotFound, reason });
        };
        if self.links.up(peer).is_none() {
            let why = self.links.why(peer).to_owned();
            let reason = format!("the link {} is down: {why}; nothing was changed", new.peer);
            return Err(Refusal { code: RefusalCode::Unavailable, reason });
        }
        if !self.has_states(peer) {
            // A half that is made now would be in nobody's states, and be taken for one that is left.
            let reason = "the arrays are just telling each other their pairs; nothing was changed: ask again";
            return Err(Refusal { code: RefusalCode::Unavailable, reason: reason.into() });
        }
        let device = match &new.create_local {
            Some(volume) => PairDevice::New {
                name: new.device.clone(),
                pool: self.pool(volume.pool.as_deref()).map_err(refusal)?,
                size_bytes: volume.size_bytes,
            },
            None => PairDevice::Existing(self.device(&new.device).map_err(refusal)?),
        };
        if let (Some(here), Some(there)) = (&new.create_local, &new.create_peer)
            && here.size_bytes != there.size_bytes
        {
            return Err(wrong_state("both volumes of a pair have the same size: give one".into()));
        }
        let pair = self.tables.next_pair_id();
        let lineage = Lineage::new(PairGeneration { serial: pair.serial, number: pair.number });
        let create = CreateHalf {
            pair,
            request: new.request,
            half: Half::from(new.half).other(),
            device: new.peer_device.clone(),
            peer_device: new.device.clone(),
            create: new.create_peer.as_ref().map(|volume| CreateDevice { pool: volume.pool.clone() }),
            size_bytes: 0,
            from: new.from.into(),
            mode: new.mode.into(),
            policy: new.policy.into(),
            group: new.group.clone().unwrap_or_default(),
            lineage,
        };
        let mine = CreateHalf { half: Half::from(new.half), peer_device: new.peer_device, ..create.clone() };
        let (device, _) = self.tables.create_pair(pair, record_of(peer, &mine), device).map_err(refusal)?;
        let size_bytes = self.tables.device(device).map_or(0, |device| device.size_bytes);
        self.pairs.callers.insert(pair, call);
        self.pairs.creating.insert(pair, CreateHalf { size_bytes, ..create });
        self.changed();
        if !self.durability.wait(&self.tables, Waiter::PairMade(pair)) {
            self.fail_creation(pair, rounds::unavailable(), fx);
        }
        Ok(())
    }

    /// The same request again gets the same answer (F2).
    fn asked_before(
        &mut self,
        call: CallId,
        new: &NewPair,
        fx: &mut Vec<Effect>,
    ) -> Option<Result<(), Refusal>> {
        let ended = self.tables.saga(new.request).map(|saga| &saga.result);
        if let Some(SagaResult::Refused { code, reason }) = ended {
            return Some(Err(refused_before(*code, reason)));
        }
        let known = self.tables.pairs().find(|(_, record)| record.request == new.request);
        match known.map(|(pair, record)| (pair, record.stage)) {
            None => ended.map(|_| Err(gone_since(new.request))),
            Some((pair, Stage::Ready)) => {
                let answer = self.remote_answer(pair);
                self.answer(call, answer, fx);
                Some(Ok(()))
            }
            Some((_, Stage::Ended)) => Some(Err(gone_since(new.request))),
            Some(_) => {
                let reason = format!("request {} is under way: ask again", new.request);
                Some(Err(Refusal { code: RefusalCode::Unavailable, reason }))
            }
        }
    }

    /// This half exists, durably: the other array makes its own (A2), once no host uses what stands by.
    pub(super) fn pair_made(&mut self, pair: PairId, fx: &mut Vec<Effect>) {
        if self.tables.pair(pair).is_some_and(|record| record.role == Role::Standby) {
            self.pairs.entering.push((pair, None));
        } else {
            self.ask_for_half(pair, fx);
        }
    }

    pub(super) fn ask_for_half(&mut self, pair: PairId, fx: &mut Vec<Effect>) {
        let Some(peer) = self.tables.pair(pair).map(|record| record.peer) else { return };
        if let Some(create) = self.pairs.creating.remove(&pair) {
            self.ask(peer, Request::Create(Box::new(create)), Asked::Create(pair), fx);
        }
    }

    /// The half that another array asks for.
    pub(super) fn wanted_half(
        &self,
        peer: PeerId,
        create: &CreateHalf,
    ) -> Result<(PairRecord, PairDevice), PeerError> {
        let refuse = |code, reason: String| Err(PeerError { code, reason });
        let device = match &create.create {
            Some(volume) => PairDevice::New {
                name: create.device.clone(),
                pool: self.pool(volume.pool.as_deref()).map_err(|error| refused(&error))?,
                size_bytes: create.size_bytes,
            },
            None => PairDevice::Existing(self.device(&create.device).map_err(|error| refused(&error))?),
        };
        if let PairDevice::Existing(id) = &device {
            let record = self.tables.device(*id).ok_or_else(|| not_found(create.pair))?;
            if record.size_bytes != create.size_bytes {
                return refuse(
                    PeerErrorCode::WrongState,
                    format!(
                        "device {} has {} bytes and device {} has {}: both halves of a pair need the same size",
                        create.device, record.size_bytes, create.peer_device, create.size_bytes
                    ),
                );
            }
            if create.half != create.from
                && self.tables.sessions_of(*id).next().is_some()
                && create.half == Half::R1
            {
                return refuse(
                    PeerErrorCode::WrongState,
                    format!(
                        "device {} has sessions, and would get another content below them: remove them",
                        create.device
                    ),
                );
            }
        }
        Ok((record_of(peer, create), device))
    }

    /// A creation has failed: who asked is told, now and when he asks again.
    pub(super) fn fail_creation(&mut self, pair: PairId, refusal: Refusal, fx: &mut Vec<Effect>) {
        self.note_failed(pair, &refusal);
        self.tell_failed(pair, refusal, fx);
    }

    /// What is said when he asks again.
    pub(super) fn note_failed(&mut self, pair: PairId, refusal: &Refusal) {
        if let Some(request) = self.tables.pair(pair).map(|record| record.request) {
            self.tables.finish_saga(request, saga_of(refusal));
        }
    }

    pub(super) fn tell_failed(&mut self, pair: PairId, refusal: Refusal, fx: &mut Vec<Effect>) {
        self.pairs.creating.remove(&pair);
        self.changed();
        if let Some(call) = self.pairs.callers.remove(&pair) {
            self.answer(call, Err(refusal), fx);
        }
    }
}

/// How a request ended that was refused.
pub(super) fn saga_of(refusal: &Refusal) -> SagaResult {
    SagaResult::Refused { code: refusal.code.number(), reason: refusal.reason.clone() }
}

/// What was said when a request was refused.
pub(super) fn refused_before(code: u16, reason: &str) -> Refusal {
    // Of some that are on record none was noted; and what was not known then is known now.
    let known = RefusalCode::of_number(code).filter(|code| *code != RefusalCode::Unavailable);
    let code = known.unwrap_or(RefusalCode::WrongState);
    Refusal { code, reason: reason.to_owned() }
}

/// A request was done, and what it made is no more.
fn gone_since(request: u64) -> Refusal {
    let what = "was done before, and what it made is not there any more";
    wrong_state(format!("request {request} {what}: take another number to have it made anew"))
}

/// What the other array said when it did not make its half.
pub(super) fn not_made(pair: PairId, error: &PeerError) -> Refusal {
    if error.code != PeerErrorCode::Unavailable {
        return told_by_peer(error);
    }
    let reason = format!("{}: {pair} is undone here, and there at the next contact", error.reason);
    Refusal { code: RefusalCode::Unavailable, reason }
}

/// The record of a half at its creation. The half that serves is R1; what it lacks, or the other one, is told by whose
/// content is copied (A3).
fn record_of(peer: PeerId, create: &CreateHalf) -> PairRecord {
    let serves = create.half == Half::R1;
    let has = create.half == create.from;
    let all = |all: bool| if all { TrackNo(0) } else { NO_TRACK };
    PairRecord {
        peer,
        device: twintrack_core::DeviceId(0),
        peer_device: create.peer_device.clone(),
        request: create.request,
        half: create.half,
        stage: Stage::Creating,
        role: if serves { Role::Owner } else { Role::Standby },
        forced: false,
        mode: create.mode,
        pace: Pace::Adaptive,
        policy: create.policy,
        group: create.group.clone(),
        shared: (serves && !has).then(|| create.lineage.current()),
        lineage: create.lineage.clone(),
        complete: has,
        halt: None,
        halted_ms: 0,
        had_all_ms: 0,
        peer_boot: 0,
        owed_from: all(serves && has),
        lacked_from: all(serves && !has),
        made_device: false,
        kept: None,
    }
}
