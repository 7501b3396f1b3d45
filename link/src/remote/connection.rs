//! One link between two arrays, from its first message to its end: an epoch.

use std::time::Duration;

use thiserror::Error;
use twintrack_core::PairId;

use super::frame;
use super::message::{
    Answer, Hello, LinkRefusal, Marks, Message, Note, PairState, PeerError, Refused, Request, RequestNo,
};
use super::timing::Timing;
use super::window::{Ours, REQUESTS_RESERVED, Theirs, can_be_fetched};
use super::wire::EncodeError;

/// What comes of a message or of time; in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Happening {
    /// To be sent.
    Send(Message),
    /// Only to who accepted: somebody says who he is, and it fits so far. Either [`Connection::welcome`] or
    /// [`Connection::refuse`] follows at once.
    Introduced(Hello),
    /// The link is up. Both tell how their pairs stand next.
    Up(Hello),
    /// How the peer's halves stand; `last`: that was all.
    States {
        /// Some of them.
        pairs: Vec<PairState>,
        /// No more come.
        last: bool,
    },
    /// Part of a set of tracks of the peer, in order.
    Marks(Marks),
    /// The peer has made durable what follows from the states.
    Agreed {
        /// Which pairs.
        pairs: Vec<PairId>,
    },
    /// The peer asks for something; [`Connection::answer`] is due.
    Asked(RequestNo, Request),
    /// A request was answered.
    Told(RequestNo, Result<Answer, PeerError>),
    /// Something to know.
    Note(Note),
    /// The peer has answered a ping.
    Pong {
        /// When that was sent: whatever the peer says from now on it says later.
        pinged: Duration,
    },
    /// The peer wants no link. It is over: close it.
    Refused(Refused),
    /// It is over: close it, once what was to be sent before is sent or cannot be.
    Reset(Reset),
}

/// Why a link was ended by this side.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Reset {
    /// The peer was refused, and told so.
    #[error("{}", .0.reason)]
    Refused(Refused),
    /// Nothing was heard.
    #[error("the peer was silent for {silent_ms} ms")]
    Silent {
        /// For how long.
        silent_ms: u64,
    },
    /// No request was answered, or one was not.
    #[error("the peer did not answer a request for {waited_ms} ms")]
    Unanswered {
        /// For how long.
        waited_ms: u64,
    },
    /// A message that does not fit.
    #[error("the peer sent what it must not: {what}")]
    Unexpected {
        /// What it was.
        what: &'static str,
    },
}

/// Why a request cannot be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SendError {
    /// There is no link yet, or no more.
    #[error("the link is not up")]
    NotUp,
    /// Too much is under way: [`Connection::may_send`] would have said so.
    #[error("too much is under way on the link")]
    Window,
    /// It cannot be said.
    #[error(transparent)]
    Message(#[from] EncodeError),
}

/// The state of one link. Whoever owns it passes on what arrives ([`on_message`](Self::on_message)) and the time when
/// [`due`](Self::due) has come ([`on_timer`](Self::on_timer)), does what they say, and sends what the other
/// methods return, in that order. `now` never goes back.
///
/// | who dialled | who accepted |
/// |---|---|
/// | [`dialled`](Self::dialled): its hello goes out | [`accepted`](Self::accepted): says nothing |
/// | | gets the hello: [`Happening::Introduced`]; [`welcome`](Self::welcome): up |
/// | gets the hello: [`Happening::Up`] | |
///
/// After [`Happening::Reset`] or [`Happening::Refused`] nothing happens any more. What was asked and not answered
/// has an unknown outcome then. A new connection is a new epoch: nothing of this one counts in it.
#[derive(Debug)]
pub struct Connection {
    timing: Timing,
    own: Hello,
    stage: Stage,
    /// When something was last heard and sent.
    heard: Duration,
    sent: Duration,
    /// Of the last ping, while it is not answered.
    ping: Option<(u64, Duration)>,
    /// When that was sent, or the link began.
    pinged: Duration,
    pings: u64,
    /// When the last ping that was answered was sent, and how long that took.
    ponged: Option<Duration>,
    round_trip: Option<Duration>,
    ours: Ours,
    theirs: Theirs,
}

#[derive(Debug)]
enum Stage {
    /// The peer has not said who it is. `serial`: who it has to be.
    Hello {
        dialled: bool,
        serial: Option<u64>,
    },
    /// The caller decides.
    Introduced(Hello),
    Up,
    Ended,
}

impl Connection {
    /// This side connected, to who has that serial number, if it is known. The message is to be sent.
    pub fn dialled(now: Duration, timing: Timing, own: Hello, serial: Option<u64>) -> (Self, Message) {
        let hello = Message::Hello(own.clone());
        (Self::new(now, timing, own, Stage::Hello { dialled: true, serial }), hello)
    }

    /// The peer connected.
    pub fn accepted(now: Duration, timing: Timing, own: Hello) -> Self {
        Self::new(now, timing, own, Stage::Hello { dialled: false, serial: None })
    }

    fn new(now: Duration, timing: Timing, own: Hello, stage: Stage) -> Self {
        Self {
            timing,
            own,
            stage,
            heard: now,
            sent: now,
            ping: None,
            pinged: now,
            pings: 0,
            ponged: None,
            round_trip: None,
            ours: Ours::default(),
            theirs: Theirs::default(),
        }
    }

    /// Takes who introduced himself.
    pub fn welcome(&mut self, now: Duration) -> Vec<Happening> {
        let Stage::Introduced(peer) = &self.stage else { return Vec::new() };
        let peer = peer.clone();
        self.stage = Stage::Up;
        self.sent = now;
        vec![Happening::Send(Message::Hello(self.own.clone())), Happening::Up(peer)]
    }

    /// Ends the link and tells the peer why, at any time.
    pub fn refuse(&mut self, code: LinkRefusal, reason: String) -> Vec<Happening> {
        if matches!(self.stage, Stage::Ended) {
            return Vec::new();
        }
        self.stage = Stage::Ended;
        let refused = Refused { serial: self.own.serial, code, reason };
        vec![Happening::Send(Message::Refused(refused.clone())), Happening::Reset(Reset::Refused(refused))]
    }

    /// Takes a message of the peer.
    pub fn on_message(&mut self, now: Duration, message: Message) -> Vec<Happening> {
        if matches!(self.stage, Stage::Ended) {
            return Vec::new();
        }
        self.heard = now;
        match (&self.stage, message) {
            (_, Message::Refused(refused)) => {
                self.stage = Stage::Ended;
                vec![Happening::Refused(refused)]
            }
            (Stage::Hello { dialled, serial }, Message::Hello(peer)) => {
                let (dialled, serial) = (*dialled, *serial);
                self.introduced(peer, dialled, serial)
            }
            (Stage::Hello { .. }, _) => self.reset("the first message is no hello"),
            (Stage::Up, message) => match self.heard_up(now, message) {
                Ok(happening) => happening.into_iter().collect(),
                Err(what) => self.reset(what),
            },
            (Stage::Introduced(_) | Stage::Ended, _) => self.reset("a message before it was answered"),
        }
    }

    /// When [`on_timer`](Self::on_timer) is due. `None`: the link is over.
    pub fn due(&self) -> Option<Duration> {
        let silent = self.heard + self.timing.silence_max;
        match self.stage {
            Stage::Ended => None,
            Stage::Hello { .. } | Stage::Introduced(_) => Some(silent),
            Stage::Up => {
                let unanswered = self.ours.due(&self.timing);
                Some(silent.min(self.ping_due()).min(unanswered.unwrap_or(silent)))
            }
        }
    }

    /// Time has passed. May be called before anything is due.
    pub fn on_timer(&mut self, now: Duration) -> Vec<Happening> {
        let up = match self.stage {
            Stage::Ended => return Vec::new(),
            Stage::Hello { .. } | Stage::Introduced(_) => false,
            Stage::Up => true,
        };
        if self.heard + self.timing.silence_max <= now {
            return self.end(Reset::Silent { silent_ms: millis(now, self.heard) });
        }
        if up && self.ours.due(&self.timing).is_some_and(|due| due <= now) {
            let waited_ms = self.ours.oldest().map_or(0, |oldest| millis(now, oldest));
            return self.end(Reset::Unanswered { waited_ms });
        }
        if up && self.ping_due() <= now {
            self.pings += 1;
            self.ping = Some((self.pings, now));
            (self.pinged, self.sent) = (now, now);
            return vec![Happening::Send(Message::Ping { n: self.pings })];
        }
        Vec::new()
    }

    /// A link on which nothing is sent needs one to stay; a busy one needs one now and then, to be measured.
    fn ping_due(&self) -> Duration {
        (self.sent + self.timing.ping_after).min(self.pinged + self.timing.silence_max)
    }

    /// Whether it is up.
    pub fn is_up(&self) -> bool {
        matches!(self.stage, Stage::Up)
    }

    /// Whether a request for data with so much payload fits the window now.
    pub fn may_send(&self, payload_bytes: u32) -> bool {
        self.is_up() && self.ours.fits(payload_bytes, REQUESTS_RESERVED)
    }

    /// How much payload a background copy may have under way now, in bytes: so much that the link has enough to do, and
    /// so little that what hosts send behind it does not wait for long ([`Timing::copy_delay`]). Never 0, so that a copy
    /// gets on however busy hosts are; [`may_send`](Self::may_send) holds for it as well.
    pub fn copy_bytes(&self) -> u32 {
        self.ours.copy_bytes()
    }

    /// Requests and bytes of payload that are under way.
    pub fn under_way(&self) -> (usize, u32) {
        self.ours.under_way()
    }

    /// When the last ping was sent that was answered.
    pub fn ponged(&self) -> Option<Duration> {
        self.ponged
    }

    /// How long the last ping took. `None`: none was answered yet.
    pub fn round_trip(&self) -> Option<Duration> {
        self.round_trip
    }

    /// Asks the peer for something.
    pub fn request(&mut self, now: Duration, what: Request) -> Result<(RequestNo, Message), SendError> {
        if !self.is_up() {
            return Err(SendError::NotUp);
        }
        if let Request::Fetch { length, .. } = what
            && !can_be_fetched(length)
        {
            return Err(EncodeError::Payload { bytes: length as usize }.into());
        }
        if !self.ours.fits(what.payload_bytes(), 0) {
            return Err(SendError::Window);
        }
        let id = self.ours.next();
        let message = Message::Request { id, what };
        frame::check(&message)?;
        if let Message::Request { what, .. } = &message {
            self.ours.ask(now, what);
        }
        self.sent = now;
        Ok((id, message))
    }

    /// Answers the peer. `None`: it has not asked, or the link is over.
    pub fn answer(
        &mut self,
        now: Duration,
        id: RequestNo,
        result: Result<Answer, PeerError>,
    ) -> Option<Message> {
        if !self.is_up() || !self.theirs.answered(id) {
            return None;
        }
        self.sent = now;
        Some(Message::Answer { id, result })
    }

    /// Tells something that is not answered: states, marks, what is agreed, a note. `None`: the link is not up.
    pub fn tell(&mut self, now: Duration, message: Message) -> Option<Message> {
        if !self.is_up() {
            return None;
        }
        self.sent = now;
        Some(message)
    }

    fn introduced(&mut self, peer: Hello, dialled: bool, serial: Option<u64>) -> Vec<Happening> {
        let own = &self.own;
        if peer.version != own.version {
            let reason = format!(
                "array {:016x} speaks version {} of the link's protocol and array {:016x} version {}: both need the same \
                 version of the software",
                own.serial, own.version, peer.serial, peer.version
            );
            return self.refuse(LinkRefusal::Version, reason);
        }
        if peer.serial == own.serial {
            let reason = format!("array {:016x} was connected with itself: check the address", own.serial);
            return self.refuse(LinkRefusal::SelfLink, reason);
        }
        if let Some(serial) = serial.filter(|serial| *serial != peer.serial) {
            let reason = format!(
                "array {serial:016x} was expected at this address and array {:016x} answers: check the address; if the \
                 array was replaced on purpose, remove the link and add it again",
                peer.serial
            );
            return self.refuse(LinkRefusal::WrongSerial, reason);
        }
        if peer.track_bytes != own.track_bytes {
            let reason = format!(
                "array {:016x} has tracks of {} bytes and array {:016x} of {}: both need the same, which is chosen when \
                 an array is formatted",
                own.serial, own.track_bytes, peer.serial, peer.track_bytes
            );
            return self.refuse(LinkRefusal::TrackSize, reason);
        }
        if dialled {
            self.stage = Stage::Up;
            vec![Happening::Up(peer)]
        } else {
            self.stage = Stage::Introduced(peer.clone());
            vec![Happening::Introduced(peer)]
        }
    }

    /// What a message means while the link is up, or what is wrong with it.
    fn heard_up(&mut self, now: Duration, message: Message) -> Result<Option<Happening>, &'static str> {
        Ok(Some(match message {
            Message::Hello(_) | Message::Refused(_) => return Err("a second hello"),
            Message::Ping { n } => {
                self.sent = now;
                Happening::Send(Message::Pong { n })
            }
            Message::Pong { n } => {
                let Some((_, pinged)) = self.ping.take_if(|(ping, _)| *ping == n) else {
                    return if n <= self.pings { Ok(None) } else { Err("a pong without a ping") };
                };
                self.ponged = Some(pinged);
                self.round_trip = Some(now.saturating_sub(pinged));
                Happening::Pong { pinged }
            }
            Message::States { pairs, last } => {
                self.theirs.states(last)?;
                Happening::States { pairs, last }
            }
            Message::Marks(marks) => {
                self.theirs.marks(&marks)?;
                Happening::Marks(marks)
            }
            Message::Agreed { .. } if !self.theirs.has_told() => {
                return Err("it agrees before it told its states");
            }
            Message::Agreed { pairs } => Happening::Agreed { pairs },
            Message::Request { id, what } => {
                self.theirs.asked(id, &what)?;
                Happening::Asked(id, what)
            }
            Message::Answer { id, result } => {
                self.ours.told(now, &self.timing, id, &result)?;
                Happening::Told(id, result)
            }
            Message::Note(note) => Happening::Note(note),
        }))
    }

    fn reset(&mut self, what: &'static str) -> Vec<Happening> {
        self.end(Reset::Unexpected { what })
    }

    fn end(&mut self, why: Reset) -> Vec<Happening> {
        self.stage = Stage::Ended;
        vec![Happening::Reset(why)]
    }
}

fn millis(now: Duration, since: Duration) -> u64 {
    now.saturating_sub(since).as_millis() as u64
}
