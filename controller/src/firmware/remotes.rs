//! Management commands about other arrays and the pairs with them, and what is told of both.

use bytes::Bytes;
use twintrack_core::{
    Cause, CommandError, DataState, DeviceId, Halt, LinkState, PairId, PairStatus, PeerId, Role, Serving,
    Stage, TrackNo, TrackSet,
};
use twintrack_link::manage::{
    Answer, Command, LINK_TEST_BYTES_MAX, LinkInfo, LinkInfoState, LinkTestInfo, PairData, PairHalf,
    PairLink, PairStatusInfo, Refusal, RefusalCode, RemoteInfo, parse_serial, show_serial,
};
use twintrack_link::remote::{Answer as PeerAnswer, Note, PAYLOAD_BYTES_MAX, PeerError, Request};

use super::creation::NewPair;
use super::durability::Waiter;
use super::event::{CallId, Effect};
use super::links::Asked;
use super::pairs::told_by_peer;
use super::{Firmware, manage, rounds};

/// Messages of a test that are under way side by side.
const ECHOES_MAX: u32 = 16;

/// A measurement of a link.
#[derive(Debug)]
pub(super) struct LinkTest {
    peer: PeerId,
    began: std::time::Duration,
    round_trip: Option<std::time::Duration>,
    left_bytes: u64,
    under_way: u32,
    back_bytes: u64,
}

impl Firmware {
    /// A command about links or pairs; `None`: it is about something else.
    pub(super) fn remote_command(&mut self, call: CallId, command: Command, fx: &mut Vec<Effect>) {
        if let Err(refusal) = self.begin_remote(call, command, fx) {
            self.answer(call, Err(refusal), fx);
        }
    }

    fn begin_remote(&mut self, call: CallId, command: Command, fx: &mut Vec<Effect>) -> Result<(), Refusal> {
        let answer = match command {
            Command::LinkAdd { name, endpoint, serial } => {
                let serial = serial.map(|text| serial_of(&text)).transpose()?;
                if let Some(text) = &endpoint
                    && let Err(error) = text.parse::<twintrack_link::Endpoint>()
                {
                    return Err(Refusal { code: RefusalCode::BadRequest, reason: error.to_string() });
                }
                let (peer, _) = self.tables.add_peer(&name, endpoint.as_deref(), serial).map_err(refusal)?;
                self.look_at_peers();
                self.changed();
                Answer::Links(vec![self.link_info(peer)])
            }
            Command::LinkList {} => {
                let mut links: Vec<_> = self.tables.peers().map(|(peer, _)| peer).collect();
                links.sort_by_key(|peer| self.tables.peer(*peer).map(|record| record.name.clone()));
                Answer::Links(links.into_iter().map(|peer| self.link_info(peer)).collect())
            }
            Command::LinkRemove { name } => {
                let peer = self.peer_named(&name)?;
                self.tables.remove_peer(peer).map_err(refusal)?;
                self.hang_up(peer, fx);
                self.changed();
                Answer::Done
            }
            Command::LinkTest { name, size_bytes } => {
                let peer = self.peer_named(&name)?;
                return self.begin_test(call, peer, size_bytes, fx);
            }
            Command::RemoteCreate {
                request,
                device,
                peer,
                peer_device,
                half,
                from,
                create_local,
                create_peer,
                mode,
                policy,
                group,
            } => {
                let new = NewPair {
                    request,
                    device,
                    peer,
                    peer_device,
                    half,
                    from,
                    create_local,
                    create_peer,
                    mode,
                    policy,
                    group,
                };
                return self.create_remote(call, new, fx);
            }
            Command::RemoteList {} => {
                let mut pairs: Vec<PairId> = self.tables.pairs().map(|(pair, _)| pair).collect();
                pairs.sort_by_key(|pair| self.device_name(*pair));
                Answer::Remotes(pairs.into_iter().filter_map(|pair| self.remote_info(pair)).collect())
            }
            Command::RemoteShow { device } => {
                let pair = self.pair_named(&device)?;
                return self.answer_remote(call, pair, fx);
            }
            Command::RemoteSuspend { device, whole_group, split } => {
                let pair = self.owned_pair(&device)?;
                let cause = if split { Halt::Split } else { Halt::Operator };
                let pairs = self.members(pair, whole_group);
                self.suspend(pair, pairs, cause, fx);
                self.changed();
                return self.answer_remote(call, pair, fx);
            }
            Command::RemoteResume { device, whole_group } => {
                let pair = self.pair_named(&device)?;
                if self.tables.pair(pair).is_some_and(|record| record.halt == Some(Halt::Diverged)) {
                    return Err(wrong_state(format!(
                        "both sides of {pair} were written alone: say which one stays, `twintrack remote resolve {device} \
                         --keep r1|r2`"
                    )));
                }
                let pair = self.owned_pair(&device)?;
                let pairs = self.members(pair, whole_group);
                for pair in &pairs {
                    self.resume_here(*pair);
                }
                if let Some(peer) = self.tables.pair(pair).map(|record| record.peer)
                    && self.is_agreed(pair)
                {
                    self.ask(peer, Request::Resume { pairs }, Asked::Nobody, fx);
                }
                self.changed();
                return self.answer_remote(call, pair, fx);
            }
            Command::RemoteMode { device, mode } => {
                let pair = self.owned_pair(&device)?;
                self.tables.set_mode(pair, mode.into()).map_err(refusal)?;
                if let Some(peer) = self.tables.pair(pair).map(|record| record.peer)
                    && self.is_agreed(pair)
                {
                    self.ask(peer, Request::SetMode { pair, mode: mode.into() }, Asked::Nobody, fx);
                }
                self.changed();
                return self.answer_remote(call, pair, fx);
            }
            Command::RemoteFailover { device, force } => return self.fail_over(call, &device, force, fx),
            Command::RemoteResolve { device, keep } => return self.resolve(call, &device, keep, fx),
            Command::RemoteVerify { device, mark } => return self.verify(call, &device, mark, fx),
            Command::RemoteDelete { device, force } => return self.delete_remote(call, &device, force, fx),
            _ => return Ok(()),
        };
        self.answer(call, Ok(answer), fx);
        Ok(())
    }

    /// A command has changed something: nobody is told of anything before it is durable.
    pub(super) fn changed(&mut self) {
        self.command_unit = self.tables.last_unit();
    }

    fn answer_remote(&mut self, call: CallId, pair: PairId, fx: &mut Vec<Effect>) -> Result<(), Refusal> {
        let answer = self.remote_answer(pair);
        self.answer(call, answer, fx);
        Ok(())
    }

    pub(super) fn remote_answer(&self, pair: PairId) -> Result<Answer, Refusal> {
        self.remote_info(pair).map(|info| Answer::Remote(Box::new(info))).ok_or_else(|| Refusal {
            code: RefusalCode::NotFound,
            reason: format!("{pair} is not there any more"),
        })
    }

    /// The pairs that a command is about.
    fn members(&self, pair: PairId, whole_group: bool) -> Vec<PairId> {
        if whole_group { self.tables.group_of(pair) } else { vec![pair] }
    }

    /// Nothing of these pairs moves because a person says so. What is on its way is owed from now on; the peer hears of it.
    fn suspend(&mut self, pair: PairId, pairs: Vec<PairId>, halt: Halt, fx: &mut Vec<Effect>) {
        self.strike(&pairs, halt);
        if let Some(peer) = self.tables.pair(pair).map(|record| record.peer) {
            self.note_to(peer, Note::Halted { pairs, halt }, fx);
        }
    }

    /// The peer says something that needs no answer.
    pub(super) fn noted(&mut self, link: super::event::LinkId, note: Note) {
        match note {
            Note::Halted { pairs, halt } => {
                for pair in pairs {
                    let ours =
                        self.tables.pair(pair).is_some_and(|record| Some(record.peer) == self.peer_of(link));
                    if ours && self.tables.pair(pair).is_some_and(|record| record.role == Role::Standby) {
                        let wall_ms = self.wall_ms();
                        let _ = self.tables.halt_group(&[pair], halt, wall_ms, &[]);
                    }
                }
            }
            // The link's end will follow.
            Note::Leaving => {}
        }
    }

    /// A failover to this side: asked for, or forced.
    fn fail_over(
        &mut self,
        call: CallId,
        device: &str,
        force: bool,
        fx: &mut Vec<Effect>,
    ) -> Result<(), Refusal> {
        let pair = self.pair_named(device)?;
        let record = self.tables.pair(pair).ok_or_else(gone)?;
        let (peer, role) = (record.peer, record.role);
        if record.stage != Stage::Ready {
            return Err(wrong_state(format!("{pair} is not ready yet")));
        }
        let pairs = self.tables.group_of(pair);
        if force {
            return self.force(call, &pairs, fx);
        }
        if role == Role::Owner && self.is_vouched(pair) {
            let infos = pairs.iter().filter_map(|pair| self.remote_info(*pair)).collect();
            self.answer(call, Ok(Answer::Remotes(infos)), fx);
            return Ok(());
        }
        if !pairs.iter().all(|pair| self.is_agreed(*pair)) {
            let out_of_order = "; if it is out of order, add --force";
            let advice = if self.links.up(peer).is_some() { "" } else { out_of_order };
            return Err(wrong_state(self.cannot_ask(peer) + advice));
        }
        self.ask_release(peer, call, pairs, fx);
        Ok(())
    }

    /// Why a peer is not asked about a pair.
    fn cannot_ask(&self, peer: PeerId) -> String {
        match self.links.up(peer) {
            Some(_) => "both arrays are agreeing on what each has: try again in a moment".to_owned(),
            None => format!("the other array cannot be asked: {}", self.links.why(peer)),
        }
    }

    /// This array serves, whatever the other one does: a person says that it is out of order.
    fn force(&mut self, call: CallId, pairs: &[PairId], fx: &mut Vec<Effect>) -> Result<(), Refusal> {
        for pair in pairs {
            let record = self.tables.pair(*pair).ok_or_else(gone)?;
            if self.links.up(record.peer).is_some() {
                return Err(wrong_state(format!(
                    "the other array of {pair} answers: fail over without --force"
                )));
            }
            if !record.complete {
                return Err(wrong_state(format!(
                    "a copy into this half of {pair} was under way: what is here is no state that the device ever had; \
                     bring the other array back"
                )));
            }
        }
        for pair in pairs {
            if !(self.tables.pair(*pair).is_some_and(|record| record.role == Role::Owner)
                && self.is_vouched(*pair))
            {
                self.tables.set_roles(&[*pair], Role::Owner, true).map_err(refusal)?;
                // What this half may have or not have of the last writes goes to the other one, whatever that has.
                let dirty = self.dirty_words(*pair);
                self.tables.owe_words(*pair, &dirty);
            }
            self.standing(*pair).vouched = true;
        }
        self.changed();
        let infos = pairs.iter().filter_map(|pair| self.remote_info(*pair)).collect();
        self.answer(call, Ok(Answer::Remotes(infos)), fx);
        Ok(())
    }

    /// Both were written alone, and a person chooses this side. The other one keeps what it has as a session, tells what
    /// may differ there, and stands by; then all that is owed, durably, and copied.
    fn resolve(
        &mut self,
        call: CallId,
        device: &str,
        keep: PairHalf,
        fx: &mut Vec<Effect>,
    ) -> Result<(), Refusal> {
        let pair = self.pair_named(device)?;
        let record = self.tables.pair(pair).ok_or_else(gone)?;
        if record.halt != Some(Halt::Diverged) {
            return Err(wrong_state(format!("{pair} has not diverged: there is nothing to resolve")));
        }
        if PairHalf::from(record.half) != keep {
            return Err(wrong_state(format!("ask the array whose half is to stay: {}", record.peer_device)));
        }
        let (peer, lineage) = (record.peer, record.lineage.clone());
        let Some(link) = self.agreed_link(pair) else {
            return Err(wrong_state(self.cannot_ask(peer)));
        };
        self.await_marks(link, pair);
        self.ask(peer, Request::Yield { pair, lineage }, Asked::Yield(call, pair), fx);
        Ok(())
    }

    /// The other side has yielded, and told what may differ there.
    pub(super) fn yield_answered(
        &mut self,
        call: CallId,
        pair: PairId,
        result: Result<PeerAnswer, PeerError>,
        fx: &mut Vec<Effect>,
    ) {
        if let Err(error) = result {
            self.answer(call, Err(told_by_peer(&error)), fx);
            return;
        }
        let owner = self.tables.pair(pair).is_some_and(|record| record.role == Role::Owner);
        let link = self.tables.pair(pair).and_then(|record| self.links.up(record.peer));
        let loser = link.and_then(|link| self.lineage_there(link, pair));
        let resolved = self.tables.resolve(pair, loser.as_ref()).and_then(|_| {
            if owner { Ok(()) } else { self.tables.set_roles(&[pair], Role::Owner, false).map(drop) }
        });
        if let Err(error) = resolved {
            self.answer(call, Err(refusal(error)), fx);
            return;
        }
        let dirty = self.dirty_words(pair);
        self.tables.owe_words(pair, &dirty);
        // The other side hears of it once it is durable.
        self.standing(pair).agreed = None;
        if !self.durability.wait(&self.tables, Waiter::Resolved(call, pair)) {
            fx.push(Effect::Answer { call, result: Err(rounds::unavailable()) });
        }
    }

    fn begin_test(
        &mut self,
        call: CallId,
        peer: PeerId,
        size_bytes: u64,
        fx: &mut Vec<Effect>,
    ) -> Result<(), Refusal> {
        if size_bytes > LINK_TEST_BYTES_MAX {
            let reason = format!("{size_bytes} bytes are too many for a test: at most {LINK_TEST_BYTES_MAX}");
            return Err(Refusal { code: RefusalCode::BadRequest, reason });
        }
        let test = LinkTest {
            peer,
            began: self.now,
            round_trip: None,
            left_bytes: size_bytes,
            under_way: 1,
            back_bytes: 0,
        };
        self.tests.insert(call, test);
        self.ask(peer, Request::Echo { data: Bytes::from_static(&[0; 512]) }, Asked::Echo(call), fx);
        Ok(())
    }

    pub(super) fn echo_answered(
        &mut self,
        call: CallId,
        result: Result<PeerAnswer, PeerError>,
        fx: &mut Vec<Effect>,
    ) {
        let now = self.now;
        let Some(test) = self.tests.get_mut(&call) else { return };
        test.under_way -= 1;
        match result {
            Err(error) => {
                self.tests.remove(&call);
                self.answer(call, Err(told_by_peer(&error)), fx);
                return;
            }
            Ok(PeerAnswer::Data(data)) if test.round_trip.is_some() => test.back_bytes += data.len() as u64,
            Ok(_) => {
                test.round_trip = Some(now.saturating_sub(test.began));
                test.began = now;
            }
        }
        self.echo_more(call, fx);
        self.end_test(call, fx);
    }

    fn echo_more(&mut self, call: CallId, fx: &mut Vec<Effect>) {
        while let Some(test) = self.tests.get_mut(&call)
            && test.under_way < ECHOES_MAX
            && test.left_bytes > 0
        {
            let bytes = test.left_bytes.min(u64::from(PAYLOAD_BYTES_MAX)).next_multiple_of(512) as u32;
            test.left_bytes = test.left_bytes.saturating_sub(u64::from(bytes));
            test.under_way += 1;
            let (peer, data) = (test.peer, Bytes::from_static(&ECHO[..bytes as usize]));
            self.ask(peer, Request::Echo { data }, Asked::Echo(call), fx);
        }
    }

    fn end_test(&mut self, call: CallId, fx: &mut Vec<Effect>) {
        let now = self.now;
        if self.tests.get(&call).is_none_or(|test| test.under_way > 0) {
            return;
        }
        let Some(test) = self.tests.remove(&call) else { return };
        let tested = LinkTestInfo {
            name: self.tables.peer(test.peer).map(|peer| peer.name.clone()).unwrap_or_default(),
            round_trip_us: test.round_trip.unwrap_or_default().as_micros() as u64,
            size_bytes: test.back_bytes,
            took_us: now.saturating_sub(test.began).as_micros() as u64,
        };
        self.answer(call, Ok(Answer::LinkTest(tested)), fx);
    }

    fn peer_named(&self, name: &str) -> Result<PeerId, Refusal> {
        self.tables.peer_named(name).map(|(peer, _)| peer).ok_or_else(|| Refusal {
            code: RefusalCode::NotFound,
            reason: format!(
                "there is no link {}: `twintrack link list` shows them",
                name.chars().take(64).collect::<String>()
            ),
        })
    }

    /// The pair of a device that people name.
    pub(super) fn pair_named(&self, device: &str) -> Result<PairId, Refusal> {
        let found = self.tables.device_named(device).map(|(id, _)| id);
        let shown: String = device.chars().take(64).collect();
        let id: DeviceId = found.ok_or_else(|| refusal(CommandError::NoDevice { device: shown.clone() }))?;
        self.tables.pair_of_device(id).ok_or_else(|| Refusal {
            code: RefusalCode::NotFound,
            reason: format!("device {shown} is in no pair: `twintrack remote list` shows those that are"),
        })
    }

    /// So, and this array serves it.
    fn owned_pair(&self, device: &str) -> Result<PairId, Refusal> {
        let pair = self.pair_named(device)?;
        match self.tables.pair(pair) {
            Some(record) if record.role == Role::Owner => Ok(pair),
            _ => Err(wrong_state(format!("the other array serves {pair}: ask it there"))),
        }
    }

    fn device_name(&self, pair: PairId) -> String {
        let device = self.tables.pair(pair).and_then(|record| self.tables.device(record.device));
        device.map(|device| device.name.clone()).unwrap_or_default()
    }

    pub(super) fn link_info(&self, peer: PeerId) -> LinkInfo {
        let record = self.tables.peer(peer);
        let up = self.links.up(peer).is_some();
        LinkInfo {
            name: record.map(|record| record.name.clone()).unwrap_or_default(),
            endpoint: record.and_then(|record| record.endpoint.clone()),
            serial: record.and_then(|record| record.serial).map(show_serial),
            state: if up { LinkInfoState::Up } else { self.links.state(peer) },
            why: (!up).then(|| self.links.why(peer).to_owned()),
            since_ms: 0,
            round_trip_us: self.links.round_trip(peer).map(|time| time.as_micros() as u64),
            pairs: self.tables.pairs_of_peer(peer).count() as u32,
        }
    }

    /// The link of a pair, its data, and what people call it all.
    pub(super) fn status_of(&self, pair: PairId) -> Option<(LinkState, DataState, PairStatus)> {
        let record = self.tables.pair(pair)?;
        let link = match (self.is_agreed(pair), self.links.up(record.peer)) {
            (true, _) => LinkState::Up,
            (false, Some(_)) => LinkState::Agreeing,
            (false, None) => LinkState::Down,
        };
        let owner = record.role == Role::Owner;
        let owed = self.tables.next_owed(pair, TrackNo(0)).is_some() || owner && !self.is_whole(pair);
        let lacked = self.tables.next_lacked(pair, TrackNo(0)).is_some() || !owner && !record.complete;
        let data = DataState::of(owed, lacked, record.halt == Some(Halt::Diverged));
        let status =
            PairStatus::of(Serving::of(record.half, record.role), link, data, Cause::from(record.halt));
        Some((link, data, status))
    }

    /// Whether both halves are the same, but for writes under way, and this half serves.
    pub(super) fn is_synchronized(&self, pair: PairId) -> bool {
        self.mirrors(pair)
            && self.is_whole(pair)
            && self.tables.next_owed(pair, TrackNo(0)).is_none()
            && self.tables.next_lacked(pair, TrackNo(0)).is_none()
    }

    pub(super) fn remote_info(&self, pair: PairId) -> Option<RemoteInfo> {
        let record = self.tables.pair(pair)?;
        let (link, data, status) = self.status_of(pair)?;
        let device = self.tables.device(record.device);
        let size_bytes = device.map_or(0, |device| device.size_bytes);
        let track = u64::from(self.tables.geometry().track_bytes());
        let bytes =
            |set: Option<&TrackSet>| (u64::from(set.map_or(0, TrackSet::count)) * track).min(size_bytes);
        let (why, next) = self.explain(pair, status);
        let (owed_bytes, lacked_bytes) = (bytes(self.tables.owed(pair)), bytes(self.tables.lacked(pair)));
        let left_bytes = if status == PairStatus::SyncInProg { owed_bytes + lacked_bytes } else { 0 };
        let (copied_bytes_per_s, left_s) = self.pace(pair, left_bytes);
        Some(RemoteInfo {
            pair: pair.to_string(),
            device: device.map(|device| device.name.clone()).unwrap_or_default(),
            peer: self.tables.peer(record.peer).map(|peer| peer.name.clone()).unwrap_or_default(),
            peer_device: record.peer_device.clone(),
            half: record.half.into(),
            status: status_info(status),
            role: record.role.into(),
            link: match link {
                LinkState::Down => PairLink::Down,
                LinkState::Agreeing => PairLink::Agreeing,
                LinkState::Up => PairLink::Up,
            },
            data: match data {
                DataState::Same => PairData::Same,
                DataState::Owed => PairData::Owed,
                DataState::Lacked => PairData::Lacked,
                DataState::Crossed => PairData::Crossed,
                DataState::Diverged => PairData::Diverged,
            },
            cause: record.halt.into(),
            why,
            next,
            mode: record.mode.into(),
            policy: record.policy.into(),
            group: Some(record.group.clone()).filter(|group| !group.is_empty()),
            size_bytes,
            owed_bytes,
            lacked_bytes,
            copied_bytes: self.standings.get(&pair).map_or(0, |standing| standing.copied_bytes),
            copied_bytes_per_s,
            left_s,
            // Of what moves it is not known.
            since_ms: record.halt.map_or(0, |_| record.halted_ms),
            diverged: self.diverged_info(pair),
        })
    }

    /// Why a pair is as it is, and what comes next: every state has an exit (F5).
    fn explain(&self, pair: PairId, status: PairStatus) -> (String, String) {
        let Some(record) = self.tables.pair(pair) else { return Default::default() };
        let why_no_link = self.links.why(record.peer);
        match record.stage {
            Stage::Creating => {
                return ("its other half is being made".into(), "it is ready, or undone, soon".into());
            }
            Stage::Undoing => {
                let next = "the other array removes its half at the next contact";
                return (format!("it is being removed; the link: {why_no_link}"), next.into());
            }
            Stage::Ready => {}
        }
        let link = || match self.links.up(record.peer) {
            Some(_) => "both arrays are agreeing on what each has".to_owned(),
            None => format!("there is no link: {why_no_link}"),
        };
        let owner = record.role == Role::Owner;
        if owner && !self.is_vouched(pair) {
            return (
                format!("after the restart it is not known whether the other array serves; {}", link()),
                "hosts are let in when the link is back; if the other array is out of order: `remote failover --force`".into(),
            );
        }
        let (why, next): (String, &str) = match (status, record.halt) {
            (PairStatus::Synchronized | PairStatus::R1Updated, _) => {
                ("both halves are the same".into(), "nothing to do")
            }
            (PairStatus::SyncInProg, _) => {
                ("what one half lacks is being copied".into(), "it becomes the same by itself")
            }
            (_, Some(Halt::Operator)) => {
                ("a person suspended it".into(), "`remote resume` copies what changed since")
            }
            (_, Some(Halt::Split)) => {
                ("a person split it".into(), "`remote resume` copies what changed since")
            }
            (_, Some(Halt::Diverged)) => (
                "both halves were written, each without the other".into(),
                "`remote resolve --keep r1|r2`: that half stays, the other becomes its copy",
            ),
            (_, Some(Halt::Frozen)) => (
                format!("writes are refused, as its policy says; {}", link()),
                "it goes on when the link is back, or alone by `remote suspend`",
            ),
            (_, Some(Halt::Peer)) => (
                "the other array failed to write".into(),
                "it is tried again at the next contact, or by `remote resume`",
            ),
            (_, Some(Halt::Space)) => {
                ("the other array's pool is full".into(), "make room there; then `remote resume`")
            }
            (PairStatus::FailedOver, _) if !owner => {
                ("the other half serves".into(), "it is copied here when the link is back")
            }
            _ if self.links.up(record.peer).is_some() => (link(), "it goes on once both have agreed"),
            (PairStatus::FailedOver, _) if record.forced => (
                format!("a person forced it: {}; {}", self.what_may_be_lost(pair), link()),
                "it is dialled again, and what changed is copied then",
            ),
            _ => (link(), "it is dialled again, and what changed is copied then"),
        };
        (why, next.into())
    }
}

static ECHO: [u8; PAYLOAD_BYTES_MAX as usize] = [0x5a; PAYLOAD_BYTES_MAX as usize];

fn status_info(status: PairStatus) -> PairStatusInfo {
    match status {
        PairStatus::SyncInProg => PairStatusInfo::SyncInProg,
        PairStatus::Synchronized => PairStatusInfo::Synchronized,
        PairStatus::Suspended => PairStatusInfo::Suspended,
        PairStatus::Partitioned => PairStatusInfo::Partitioned,
        PairStatus::Split => PairStatusInfo::Split,
        PairStatus::FailedOver => PairStatusInfo::FailedOver,
        PairStatus::R1Updated => PairStatusInfo::R1Updated,
        PairStatus::Diverged => PairStatusInfo::Diverged,
    }
}

fn serial_of(text: &str) -> Result<u64, Refusal> {
    parse_serial(text).ok_or_else(|| Refusal {
        code: RefusalCode::BadRequest,
        reason: format!(
            "{:?} is no serial number: up to 16 hexadecimal digits, as `twintrack array show` prints them",
            text.chars().take(32).collect::<String>()
        ),
    })
}

fn refusal(error: CommandError) -> Refusal {
    manage::refusal(&error)
}

pub(super) fn wrong_state(reason: String) -> Refusal {
    Refusal { code: RefusalCode::WrongState, reason }
}

fn gone() -> Refusal {
    Refusal { code: RefusalCode::NotFound, reason: "the pair is not there any more".into() }
}
