//! Two ends of a link and the line between them: bytes that take their time, and are cut, held or damaged when a plan
//! says so. Time is a number.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::BytesMut;
use twintrack_link::remote::{
    Connection, Decoder, Encoder, Happening, Hello, LinkRefusal, Message, Refused, Reset, Timing, VERSION,
};

/// An array with that serial number.
pub fn array(serial: u64) -> Hello {
    Hello { version: VERSION, serial, boot: 1, track_bytes: 65536, name: format!("array-{serial}") }
}

/// One end.
pub struct End {
    pub connection: Connection,
    encoder: Encoder,
    decoder: Decoder,
    input: BytesMut,
    /// Why it is over.
    pub over: Option<Over>,
    /// What the caller has to look at; what [`Line`] does itself is not among it.
    pub happenings: Vec<Happening>,
    /// Serial numbers that are let in; `None`: all.
    pub knows: Option<u64>,
}

/// How a link ended, as one end sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Over {
    Reset(Reset),
    Refused(Refused),
    /// Bytes that are no frame.
    Frame,
    /// The other end closed.
    Closed,
}

/// Two ends, 0 dialled 1, and what is on its way to each.
pub struct Line {
    pub now: Duration,
    pub ends: [End; 2],
    /// When it arrives, and what.
    way: [VecDeque<(Duration, Vec<u8>)>; 2],
    pub delay: [Duration; 2],
    /// Nothing gets through to that end, nor is it lost.
    pub held: [bool; 2],
    /// All that was ever sent to each end.
    pub sent: [u64; 2],
    /// The byte to that end that is damaged, counted from the first.
    pub damaged: [Option<u64>; 2],
}

impl Line {
    pub fn new(timing: Timing, [dialler, acceptor]: [Hello; 2], expected: Option<u64>) -> Self {
        let now = Duration::from_secs(100);
        let (dialled, hello) = Connection::dialled(now, timing, dialler, expected);
        let accepted = Connection::accepted(now, timing, acceptor);
        let ends = [dialled, accepted].map(|connection| End {
            connection,
            encoder: Encoder::new(),
            decoder: Decoder::new(),
            input: BytesMut::new(),
            over: None,
            happenings: Vec::new(),
            knows: None,
        });
        let mut line = Self {
            now,
            ends,
            way: [VecDeque::new(), VecDeque::new()],
            delay: [Duration::from_millis(1); 2],
            held: [false; 2],
            sent: [0; 2],
            damaged: [None; 2],
        };
        line.send(0, hello);
        line
    }

    /// With both ends up.
    pub fn up(timing: Timing) -> Self {
        let mut line = Self::new(timing, [array(1), array(2)], Some(2));
        line.run(Duration::from_millis(10));
        assert!(line.ends.iter().all(|end| end.connection.is_up()));
        for end in &mut line.ends {
            end.happenings.clear();
        }
        line
    }

    pub fn send(&mut self, from: usize, message: Message) {
        let mut pieces = Vec::new();
        self.ends[from].encoder.encode(&message, &mut pieces).unwrap();
        let to = 1 - from;
        let mut bytes = pieces.concat();
        let first = self.sent[to];
        self.sent[to] += bytes.len() as u64;
        if let Some(damaged) = self.damaged[to]
            && (first..self.sent[to]).contains(&damaged)
        {
            bytes[(damaged - first) as usize] ^= 1;
        }
        self.way[to].push_back((self.now + self.delay[to], bytes));
    }

    /// Lets time pass until nothing is left to happen before it is over.
    pub fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some((at, to)) = self.next().filter(|(at, _)| *at <= end) {
            self.now = self.now.max(at);
            match to {
                Some(to) => self.deliver(to),
                None => self.timers(),
            }
        }
        self.now = end;
    }

    /// Both ends learn that the line is gone; what is on its way is lost.
    pub fn cut(&mut self) {
        for end in &mut self.ends {
            end.over.get_or_insert(Over::Closed);
        }
        self.way = [VecDeque::new(), VecDeque::new()];
    }

    /// When the next thing happens: something arrives at an end, or a timer.
    fn next(&self) -> Option<(Duration, Option<usize>)> {
        let arrivals = [0, 1].map(|to| {
            let (at, _) = self.way[to].front().filter(|_| !self.held[to] && self.ends[to].over.is_none())?;
            Some(((*at).max(self.now), Some(to)))
        });
        let timers = self.ends.iter().filter(|end| end.over.is_none());
        let timer = timers.filter_map(|end| end.connection.due()).min().map(|due| (due.max(self.now), None));
        arrivals.into_iter().flatten().chain(timer).min_by_key(|(at, _)| *at)
    }

    fn deliver(&mut self, to: usize) {
        let Some((_, bytes)) = self.way[to].pop_front() else { return };
        self.ends[to].input.extend_from_slice(&bytes);
        while self.ends[to].over.is_none() {
            let end = &mut self.ends[to];
            match end.decoder.next(&mut end.input) {
                Ok(None) => return,
                Ok(Some(message)) => {
                    let happenings = end.connection.on_message(self.now, message);
                    self.take(to, happenings);
                }
                Err(_) => self.close(to, Over::Frame),
            }
        }
    }

    fn timers(&mut self) {
        for end in [0, 1] {
            if self.ends[end].over.is_none() {
                let happenings = self.ends[end].connection.on_timer(self.now);
                self.take(end, happenings);
            }
        }
    }

    fn take(&mut self, at: usize, happenings: Vec<Happening>) {
        for happening in happenings {
            match happening {
                Happening::Send(message) => self.send(at, message),
                Happening::Introduced(peer) => {
                    let end = &mut self.ends[at];
                    let known = end.knows.is_none_or(|serial| serial == peer.serial);
                    let happenings = if known {
                        end.connection.welcome(self.now)
                    } else {
                        end.connection.refuse(LinkRefusal::UnknownArray, "who are you?".to_owned())
                    };
                    self.take(at, happenings);
                }
                Happening::Reset(reset) => self.close(at, Over::Reset(reset)),
                Happening::Refused(refused) => self.close(at, Over::Refused(refused)),
                // Of a link with nothing to do there is one each second.
                Happening::Pong { .. } => {}
                other => self.ends[at].happenings.push(other),
            }
        }
    }

    /// The other end gets what was sent, then the end of it.
    fn close(&mut self, at: usize, why: Over) {
        assert!(self.ends[at].over.is_none());
        self.ends[at].over = Some(why);
        self.way[at].clear();
        let other = 1 - at;
        while !self.held[other] && self.ends[other].over.is_none() && !self.way[other].is_empty() {
            self.deliver(other);
        }
        if !self.held[other] {
            self.ends[other].over.get_or_insert(Over::Closed);
        }
    }
}
