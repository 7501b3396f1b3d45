//! Connections to other arrays: which one is a peer's link, what was asked on it, and when to dial again. What is said on
//! a link, and when it is over, is [`Connection`]'s; what it means for pairs is the other parts'.
//!
//! Both arrays may dial. Of two links between the same two, the one stays that the array with the lower serial number
//! dialled; but one from a later boot of the peer takes the place of any before it.

use std::collections::BTreeMap;
use std::time::Duration;

use twintrack_core::defect::{Defect, planted};
use twintrack_core::{PairGeneration, PairId, PeerId, TrackNo};
use twintrack_link::manage::LinkInfoState;
use twintrack_link::remote::{
    Answer, Connection, Happening, Hello, LinkRefusal, Message, Note, PeerError, PeerErrorCode, Redial,
    Request, RequestNo, Reset, Timing, VERSION,
};

use super::event::{CallId, Effect, LinkId};
use super::hosts::RequestId;
use super::io::OpId;
use super::mirror::LegId;
use super::resync::CopyNo;
use super::{Firmware, Work};

/// Whom an answer of the peer is for.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Asked {
    /// The remote leg of a write.
    Leg(LegId),
    /// A host's flush.
    Flush(RequestId, PairId),
    /// A frame of a copy.
    Copy(PairId, TrackNo, CopyNo),
    /// A track that is lacked.
    Fetch(OpId),
    /// The begin of a copy, and its number.
    Begin(PairId, u32),
    /// Its end, in this generation.
    Complete(PairId, PairGeneration, u32),
    /// The other half of a new pair.
    Create(PairId),
    /// Both halves exist.
    Ready(PairId),
    /// The other half is to go.
    Destroy(PairId),
    /// The end of a pair, for a person.
    End(CallId),
    /// A planned failover of these pairs to this array.
    Release(CallId, Vec<PairId>),
    /// This array serves now.
    Taken(PairId),
    /// A flush that cleans marks of a pair.
    Clean(PairId),
    /// The other side is to give up what it wrote alone.
    Yield(CallId, PairId),
    /// The other part of a point in time on both arrays.
    Prepare(u64),
    /// What was decided of such points.
    Settle(Vec<u64>),
    /// A track's check sums.
    Sums(OpId),
    /// A measurement of the link.
    Echo(CallId),
    /// Nobody: the other side is to know.
    Nobody,
}

/// A request of a peer, to be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Served {
    pub(super) link: LinkId,
    pub(super) id: RequestNo,
}

#[derive(Debug)]
struct Link {
    connection: Connection,
    /// Whose it is; of an accepted one, once he has said it.
    peer: Option<PeerId>,
    /// This side dialled.
    dialled: bool,
    /// Of the peer's hello.
    boot: u32,
    asked: BTreeMap<RequestNo, Asked>,
}

/// How a peer is to be reached.
#[derive(Debug)]
struct Way {
    /// `None`: the peer dials.
    redial: Option<Redial>,
    /// Why there is no link.
    why: String,
    /// One of the arrays does not want it.
    refused: bool,
    up: Option<LinkId>,
    /// Since when there is a link, or none.
    since: Duration,
}

#[derive(Debug, Default)]
pub(super) struct Links {
    links: BTreeMap<LinkId, Link>,
    ways: BTreeMap<PeerId, Way>,
    timing: Timing,
}

impl Links {
    pub(super) fn set_timing(&mut self, timing: Timing) {
        self.timing = timing;
        self.ways.clear();
    }

    pub(super) fn deadline(&self) -> Option<Duration> {
        let dials = self.ways.values().filter_map(|way| way.redial.as_ref()?.due());
        let links = self.links.values().filter_map(|link| link.connection.due());
        dials.chain(links).min()
    }

    /// The link to a peer that is up.
    pub(super) fn up(&self, peer: PeerId) -> Option<LinkId> {
        self.ways.get(&peer)?.up
    }

    /// Since when there is one, or none.
    pub(super) fn since(&self, peer: PeerId) -> Option<Duration> {
        self.ways.get(&peer).map(|way| way.since)
    }

    /// Why there is none.
    pub(super) fn why(&self, peer: PeerId) -> &str {
        self.ways.get(&peer).map_or("it was not tried yet", |way| way.why.as_str())
    }

    /// Who makes the next attempt at one, and when, in words.
    pub(super) fn next_attempt(&self, peer: PeerId, now: Duration) -> String {
        let Some(redial) = self.ways.get(&peer).and_then(|way| way.redial.as_ref()) else {
            return "the other array dials".into();
        };
        match redial.due().map(|due| due.saturating_sub(now).as_millis().div_ceil(1000)) {
            None | Some(0) => "it is dialled now".into(),
            Some(seconds) => format!("it is dialled again within {seconds} s"),
        }
    }

    /// How it stands with a peer to which no link is up.
    pub(super) fn state(&self, peer: PeerId) -> LinkInfoState {
        if self.links.values().any(|link| link.peer == Some(peer)) {
            LinkInfoState::Connecting
        } else if self.ways.get(&peer).is_some_and(|way| way.refused) {
            LinkInfoState::Refused
        } else {
            LinkInfoState::Down
        }
    }

    /// When the last ping of a link was sent that was answered.
    pub(super) fn ponged(&self, link: LinkId) -> Option<Duration> {
        self.links.get(&link)?.connection.ponged()
    }

    pub(super) fn round_trip(&self, peer: PeerId) -> Option<Duration> {
        self.links.get(&self.up(peer)?)?.connection.round_trip()
    }
}

impl Firmware {
    /// Peers that can be dialled are dialled, now or when their time comes.
    pub(super) fn look_at_peers(&mut self) {
        let known: Vec<(PeerId, bool)> =
            self.tables.peers().map(|(id, record)| (id, record.endpoint.is_some())).collect();
        self.links.ways.retain(|peer, _| known.iter().any(|(id, _)| id == peer));
        for (peer, dials) in known {
            let (now, timing) = (self.now, self.links.timing);
            self.links.ways.entry(peer).or_insert_with(|| Way {
                redial: dials.then(|| Redial::new(now, timing)),
                why: if dials {
                    "it was not tried yet".into()
                } else {
                    "it waits for the peer to connect".into()
                },
                refused: false,
                up: None,
                since: now,
            });
        }
    }

    /// Time has passed for links.
    pub(super) fn links_timer(&mut self, fx: &mut Vec<Effect>) {
        let now = self.now;
        for (peer, way) in &mut self.links.ways {
            let Some(redial) = way.redial.as_mut().filter(|redial| redial.due().is_some_and(|at| at <= now))
            else {
                continue;
            };
            redial.dialling();
            let endpoint = self.tables.peer(*peer).and_then(|record| record.endpoint.as_ref()?.parse().ok());
            fx.extend(endpoint.map(|endpoint| Effect::Dial { peer: *peer, endpoint }));
        }
        let due: Vec<_> = self
            .links
            .links
            .iter()
            .filter(|(_, link)| link.connection.due().is_some_and(|at| at <= now))
            .map(|(id, _)| *id)
            .collect();
        for id in due {
            let Some(link) = self.links.links.get_mut(&id) else { continue };
            let happenings = link.connection.on_timer(now);
            self.happen(id, happenings, fx);
        }
    }

    fn hello(&self) -> Hello {
        Hello {
            version: VERSION,
            serial: self.identity.serial,
            boot: self.identity.boot,
            track_bytes: self.tables.geometry().track_bytes(),
            name: format!("{:016x}", self.identity.serial),
        }
    }

    /// A connection was made. `peer`: this side dialled it.
    pub(super) fn link_opened(&mut self, id: LinkId, peer: Option<PeerId>, fx: &mut Vec<Effect>) {
        let (own, timing) = (self.hello(), self.links.timing);
        let connection = match peer {
            None => Connection::accepted(self.now, timing, own),
            Some(peer) => {
                let Some(serial) = self.tables.peer(peer).map(|record| record.serial) else {
                    fx.push(Effect::CloseLink { link: id });
                    return;
                };
                let (connection, hello) = Connection::dialled(self.now, timing, own, serial);
                fx.push(Effect::Send { link: id, message: hello });
                connection
            }
        };
        let dialled = peer.is_some();
        self.links.links.insert(id, Link { connection, peer, dialled, boot: 0, asked: BTreeMap::new() });
    }

    pub(super) fn link_message(&mut self, id: LinkId, message: Message, fx: &mut Vec<Effect>) {
        let now = self.now;
        let Some(link) = self.links.links.get_mut(&id) else { return };
        let happenings = link.connection.on_message(now, message);
        self.happen(id, happenings, fx);
    }

    /// A connection has ended.
    pub(super) fn link_closed(&mut self, id: LinkId, why: String, fx: &mut Vec<Effect>) {
        self.end_link(id, why, fx);
    }

    pub(super) fn dial_failed(&mut self, peer: PeerId, why: String) {
        let now = self.now;
        if let Some(way) = self.links.ways.get_mut(&peer).filter(|way| way.up.is_none()) {
            (way.why, way.refused) = (why, false);
            if let Some(redial) = &mut way.redial {
                redial.ended(now);
            }
        }
    }

    fn happen(&mut self, id: LinkId, happenings: Vec<Happening>, fx: &mut Vec<Effect>) {
        for happening in happenings {
            match happening {
                Happening::Send(message) => fx.push(Effect::Send { link: id, message }),
                Happening::Introduced(hello) => self.introduced(id, &hello, fx),
                Happening::Up(hello) => self.link_up(id, &hello, fx),
                Happening::States { pairs, last } => self.take_states(id, pairs, last, fx),
                Happening::Marks(marks) => self.take_marks(id, marks),
                Happening::Agreed { pairs } => self.agreed_there(id, pairs),
                Happening::Asked(request, what) => self.asked(Served { link: id, id: request }, what, fx),
                Happening::Told(request, result) => {
                    let asked = self.links.links.get_mut(&id).and_then(|link| link.asked.remove(&request));
                    if let Some(asked) = asked {
                        self.told(asked, result, fx);
                    }
                    self.crowd_on();
                }
                Happening::Note(note) => self.noted(id, note),
                Happening::Pong { pinged } => self.ponged(id, pinged),
                Happening::Refused(refused) => {
                    let peer = self.links.links.get(&id).and_then(|link| link.peer);
                    if let Some(peer) = peer
                        && refused.code == LinkRefusal::UnknownArray
                        && self.tables.peer(peer).is_some_and(|record| record.serial.is_none())
                    {
                        // Whoever refuses says who he is: so two arrays that add each other both get to know.
                        let _ = self.tables.learn_serial(peer, refused.serial);
                    }
                    self.end_refused(id, refused.reason, fx);
                }
                Happening::Reset(Reset::Refused(refused)) => self.end_refused(id, refused.reason, fx),
                Happening::Reset(why) => {
                    fx.push(Effect::CloseLink { link: id });
                    self.end_link(id, why.to_string(), fx);
                }
            }
        }
    }

    /// Somebody has connected and says who he is.
    fn introduced(&mut self, id: LinkId, hello: &Hello, fx: &mut Vec<Effect>) {
        let known = self.tables.peer_of_serial(hello.serial).map(|(peer, _)| peer);
        let rival = known.and_then(|peer| self.rival_of(id, peer));
        let own = self.identity.serial;
        let Some(link) = self.links.links.get_mut(&id) else { return };
        let happenings = match (known, rival) {
            (None, _) => link.connection.refuse(
                LinkRefusal::UnknownArray,
                format!(
                    "array {own:016x} does not know array {0:016x}: add it there, `twintrack link add NAME --serial {0:016x}`",
                    hello.serial
                ),
            ),
            (Some(_), Some((_, boot))) if own < hello.serial && boot.is_none_or(|boot| boot == hello.boot) => {
                link.connection.refuse(
                    LinkRefusal::Busy,
                    format!("array {own:016x} has a link to array {:016x} already", hello.serial),
                )
            }
            (Some(peer), rival) => {
                link.peer = Some(peer);
                let happenings = link.connection.welcome(self.now);
                if let Some((rival, _)) = rival.filter(|_| !planted(Defect::StaleFrameTaken)) {
                    fx.push(Effect::CloseLink { link: rival });
                    self.end_link(rival, "a newer link took its place".into(), fx);
                }
                happenings
            }
        };
        self.happen(id, happenings, fx);
    }

    /// Another link to the same peer that this side dialled or that is up, and the peer's boot if that has been said.
    fn rival_of(&self, id: LinkId, peer: PeerId) -> Option<(LinkId, Option<u32>)> {
        let mut others =
            self.links.links.iter().filter(|(other, link)| **other != id && link.peer == Some(peer));
        others.next().map(|(other, link)| (*other, link.connection.is_up().then_some(link.boot)))
    }

    fn link_up(&mut self, id: LinkId, hello: &Hello, fx: &mut Vec<Effect>) {
        let Some(link) = self.links.links.get_mut(&id) else { return };
        let Some(peer) = link.peer else { return };
        link.boot = hello.boot;
        let dialled = link.dialled;
        if let Some((rival, boot)) = self.rival_of(id, peer)
            && dialled
        {
            let keeps_mine =
                self.identity.serial < hello.serial || boot.is_some_and(|boot| boot != hello.boot);
            let goes = if keeps_mine { rival } else { id };
            fx.push(Effect::CloseLink { link: goes });
            self.end_link(goes, "another link took its place".into(), fx);
            if goes == id {
                return;
            }
        }
        if self.tables.peer(peer).is_some_and(|record| record.serial.is_none())
            && self.tables.learn_serial(peer, hello.serial).is_err()
        {
            // Two names for one array: the other one has the link.
            fx.push(Effect::CloseLink { link: id });
            self.end_link(id, format!("array {:016x} is known by another name", hello.serial), fx);
            return;
        }
        if let Some(way) = self.links.ways.get_mut(&peer) {
            (way.up, way.since) = (Some(id), self.now);
            way.why.clear();
            if let Some(redial) = &mut way.redial {
                redial.up(self.now);
            }
        }
        self.begin_accord(id, peer, fx);
    }

    /// A peer is no longer known: its links end.
    pub(super) fn hang_up(&mut self, peer: PeerId, fx: &mut Vec<Effect>) {
        let links: Vec<LinkId> =
            self.links.links.iter().filter(|(_, link)| link.peer == Some(peer)).map(|(id, _)| *id).collect();
        for id in links {
            fx.push(Effect::CloseLink { link: id });
            self.end_link(id, "the link was removed".into(), fx);
        }
        self.look_at_peers();
    }

    /// What both arrays are to know could not be made durable on one of them: the next epoch tries again. If here nothing
    /// becomes durable any more it would not help, and the link stays for what else it is good for.
    pub(super) fn break_epoch(&mut self, link: LinkId, fx: &mut Vec<Effect>) {
        if !self.durability.is_broken() {
            fx.push(Effect::CloseLink { link });
            self.end_link(link, "an array could not make durable how its pairs stand".into(), fx);
        }
    }

    /// One of the arrays does not want a link.
    fn end_refused(&mut self, id: LinkId, why: String, fx: &mut Vec<Effect>) {
        let peer = self.peer_of(id);
        fx.push(Effect::CloseLink { link: id });
        self.end_link(id, why, fx);
        if let Some(way) = peer.and_then(|peer| self.links.ways.get_mut(&peer)) {
            way.refused = way.up.is_none();
        }
    }

    /// A link is over: nobody will answer what was asked on it.
    fn end_link(&mut self, id: LinkId, why: String, fx: &mut Vec<Effect>) {
        let Some(link) = self.links.links.remove(&id) else { return };
        self.end_accord(id);
        self.forget_releases(id);
        let others = link.peer.is_some_and(|peer| self.rival_of(id, peer).is_some());
        let now = self.now;
        if let Some(peer) = link.peer
            && let Some(way) = self.links.ways.get_mut(&peer)
        {
            let was_up = way.up == Some(id);
            if was_up {
                (way.up, way.since) = (None, now);
            }
            // Of two that are being made the last one tells why there is none.
            if was_up || way.up.is_none() && !others {
                (way.why, way.refused) = (why, false);
            }
            if way.up.is_none()
                && !others
                && let Some(redial) = way.redial.as_mut().filter(|redial| redial.due().is_none())
            {
                redial.ended(now);
            }
        }
        for asked in link.asked.into_values() {
            self.told(asked, Err(gone()), fx);
        }
        self.crowd_again();
    }

    /// Asks a peer; whoever asks is told, perhaps that there is no link.
    pub(super) fn ask(&mut self, peer: PeerId, what: Request, asked: Asked, fx: &mut Vec<Effect>) {
        let now = self.now;
        let link = self.links.up(peer);
        if let Some(id) = link
            && let Some(link) = self.links.links.get_mut(&id)
            && let Ok((request, message)) = link.connection.request(now, what)
        {
            link.asked.insert(request, asked);
            fx.push(Effect::Send { link: id, message });
            return;
        }
        self.work.push_back(Work::Told(asked, Err(gone())));
    }

    /// Whether a peer may be asked for data of so many bytes; with no link there is room, for it fails at once.
    pub(super) fn has_room(&self, peer: PeerId, bytes: u32) -> bool {
        let link = self.links.up(peer).and_then(|id| self.links.links.get(&id));
        link.is_none_or(|link| link.connection.may_send(bytes))
    }

    /// How much of the link to a peer background copies may take.
    pub(super) fn copy_bytes(&self, peer: PeerId) -> u32 {
        let link = self.links.up(peer).and_then(|id| self.links.links.get(&id));
        link.map_or(0, |link| link.connection.copy_bytes())
    }

    /// Answers a peer, if it is still there.
    pub(super) fn answer_peer(
        &mut self,
        served: Served,
        result: Result<Answer, PeerError>,
        fx: &mut Vec<Effect>,
    ) {
        let now = self.now;
        if let Some(link) = self.links.links.get_mut(&served.link)
            && let Some(message) = link.connection.answer(now, served.id, result)
        {
            fx.push(Effect::Send { link: served.link, message });
        }
    }

    /// Tells a peer what is not answered.
    pub(super) fn send(&mut self, id: LinkId, message: Message, fx: &mut Vec<Effect>) {
        let now = self.now;
        if let Some(link) = self.links.links.get_mut(&id)
            && let Some(message) = link.connection.tell(now, message)
        {
            fx.push(Effect::Send { link: id, message });
        }
    }

    pub(super) fn note_to(&mut self, peer: PeerId, note: Note, fx: &mut Vec<Effect>) {
        if let Some(id) = self.links.up(peer) {
            self.send(id, Message::Note(note), fx);
        }
    }

    /// Whose link it is.
    pub(super) fn peer_of(&self, id: LinkId) -> Option<PeerId> {
        self.links.links.get(&id)?.peer
    }

    /// The boot number that the other side of a link has said.
    pub(super) fn peer_boot(&self, id: LinkId) -> u32 {
        self.links.links.get(&id).map_or(0, |link| link.boot)
    }

    /// The answer to what was asked.
    pub(super) fn told(&mut self, asked: Asked, result: Result<Answer, PeerError>, fx: &mut Vec<Effect>) {
        match asked {
            Asked::Leg(leg) => self.leg_answered(leg, result, fx),
            Asked::Flush(request, pair) => self.peer_flushed(request, pair, result, fx),
            Asked::Copy(pair, track, number) => self.copy_answered(pair, track, number, result, fx),
            Asked::Fetch(op) => self.fetch_answered(op, result),
            Asked::Begin(pair, run) => self.begin_answered(pair, run, result, fx),
            Asked::Complete(pair, generation, run) => {
                self.complete_answered(pair, generation, run, result, fx);
            }
            Asked::Create(pair) => self.create_answered(pair, result, fx),
            Asked::Ready(pair) => self.ready_answered(pair, result, fx),
            Asked::End(call) => self.end_answered(call, result, fx),
            Asked::Destroy(pair) => self.destroy_answered(pair, result, fx),
            Asked::Release(call, pairs) => self.release_answered(call, pairs, result, fx),
            Asked::Taken(pair) => self.taken_answered(pair, result, fx),
            Asked::Clean(pair) => self.clean_flushed(pair, result.is_ok()),
            Asked::Yield(call, pair) => self.yield_answered(call, pair, result, fx),
            Asked::Prepare(request) => self.prepare_answered(request, result, fx),
            Asked::Settle(decided) => self.settle_answered(decided, result, fx),
            Asked::Sums(op) => self.sums_answered(op, result),
            Asked::Echo(call) => self.echo_answered(call, result, fx),
            Asked::Nobody => {}
        }
    }
}

fn gone() -> PeerError {
    let reason = "the link to the other array is down".into();
    PeerError { code: PeerErrorCode::Unavailable, reason }
}
