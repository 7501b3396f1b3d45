//! What is under way in each direction of a link: which requests, how much payload, which answers fit.

use std::collections::BTreeMap;
use std::time::Duration;

use twintrack_core::{PairId, RegionNo, TrackNo};

use super::message::{
    Answer, MarkSet, Marks, PAYLOAD_BYTES_MAX, PAYLOAD_UNIT_BYTES, PeerError, Request, RequestNo,
};
use super::timing::Timing;

/// Requests of one direction that are not answered.
pub const REQUESTS_MAX: usize = 256;
/// How many of them data leaves free, so that a command never waits behind it.
pub const REQUESTS_RESERVED: usize = 16;
/// Payload of the requests of one direction that are not answered, there and back, in bytes.
pub const WINDOW_BYTES_MAX: u32 = 32 << 20;

/// The least and the most payload that a background copy has under way, and what it begins with, in bytes.
pub const COPY_BYTES_MIN: u32 = 1 << 20;
/// The rest is left to hosts.
pub const COPY_BYTES_MAX: u32 = WINDOW_BYTES_MAX / 2;
const COPY_BYTES_FIRST: u32 = 4 << 20;
/// What of a copy may stand before the narrowest place of the way, in bytes: enough to keep that busy, and no more, for
/// what hosts send stands behind it. With less there the copy takes more, with twice as much it takes less.
const COPY_QUEUE_BYTES: u32 = 1 << 20;

/// Requests of this side.
#[derive(Debug)]
pub(super) struct Ours {
    last: u64,
    waiting: BTreeMap<RequestNo, Waiting>,
    payload_bytes: u32,
    /// When one was last answered, or the first of these was sent.
    progress: Duration,
    /// What a background copy may have under way.
    copy_bytes: u32,
    /// When that was last halved. What was sent before says nothing about it.
    copy_cut: Duration,
    /// The least that an answer to one with payload took: the way there and back, with nothing else on it.
    way: Duration,
}

impl Default for Ours {
    fn default() -> Self {
        Self {
            last: 0,
            waiting: BTreeMap::new(),
            payload_bytes: 0,
            progress: Duration::ZERO,
            copy_bytes: COPY_BYTES_FIRST,
            copy_cut: Duration::ZERO,
            way: Duration::MAX,
        }
    }
}

#[derive(Debug)]
struct Waiting {
    since: Duration,
    payload_bytes: u32,
    /// Payload that was under way when it was sent, its own included.
    under_way_bytes: u32,
    wants: Wants,
}

/// Which answer fits.
#[derive(Debug, Clone, Copy)]
enum Wants {
    Done,
    Fetched { length: u32 },
    Echoed { length: u32 },
    Sums,
    Created,
    Released { pairs: usize },
    Prepared { pairs: usize },
}

/// What the peer has said.
#[derive(Debug, Default)]
pub(super) struct Theirs {
    last: u64,
    waiting: BTreeMap<RequestNo, u32>,
    payload_bytes: u32,
    /// All its states were told.
    has_told: bool,
    /// The set that is being told, and the last region of it.
    marks: Option<(PairId, MarkSet, Option<TrackNo>, Option<RegionNo>)>,
}

impl Ours {
    /// Whether a request with so much payload may be sent, and others of it be left.
    pub(super) fn fits(&self, payload_bytes: u32, left: usize) -> bool {
        self.waiting.len() + left < REQUESTS_MAX && payload_bytes <= WINDOW_BYTES_MAX - self.payload_bytes
    }

    /// Requests and bytes of payload.
    pub(super) fn under_way(&self) -> (usize, u32) {
        (self.waiting.len(), self.payload_bytes)
    }

    /// What a background copy may have under way, in bytes.
    pub(super) fn copy_bytes(&self) -> u32 {
        self.copy_bytes
    }

    /// The number of the next request.
    pub(super) fn next(&self) -> RequestNo {
        RequestNo(self.last + 1)
    }

    /// The next request is sent.
    pub(super) fn ask(&mut self, now: Duration, what: &Request) {
        let (id, payload_bytes) = (self.next(), what.payload_bytes());
        if self.waiting.is_empty() {
            self.progress = now;
        }
        self.last = id.0;
        self.payload_bytes += payload_bytes;
        let under_way_bytes = self.payload_bytes;
        self.waiting
            .insert(id, Waiting { since: now, payload_bytes, under_way_bytes, wants: Wants::of(what) });
    }

    /// Since when the one is waited for that was asked first.
    pub(super) fn oldest(&self) -> Option<Duration> {
        self.waiting.first_key_value().map(|(_, waiting)| waiting.since)
    }

    /// When the peer has taken too long.
    pub(super) fn due(&self, timing: &Timing) -> Option<Duration> {
        let oldest = self.oldest()?;
        Some((self.progress + timing.answer_max).min(oldest + timing.request_max))
    }

    /// Takes an answer, or says what is wrong with it.
    pub(super) fn told(
        &mut self,
        now: Duration,
        timing: &Timing,
        id: RequestNo,
        result: &Result<Answer, PeerError>,
    ) -> Result<(), &'static str> {
        let waiting = self.waiting.remove(&id).ok_or("an answer to what was not asked")?;
        if let Ok(answer) = result
            && !waiting.wants.fits(answer)
        {
            return Err("an answer to something else");
        }
        self.payload_bytes -= waiting.payload_bytes;
        self.progress = now;
        self.weigh(now, timing, &waiting);
        Ok(())
    }

    /// Half of it for who waited too long; else a little more, or less, by how much seems to stand in a queue: so what is
    /// queued stays short, and a link is filled, be it long or slow. It becomes no more than is made use of.
    fn weigh(&mut self, now: Duration, timing: &Timing, answered: &Waiting) {
        if answered.payload_bytes == 0 {
            return;
        }
        let took = now.saturating_sub(answered.since);
        self.way = self.way.min(took);
        if took > timing.copy_delay {
            if answered.since >= self.copy_cut {
                self.copy_bytes = (self.copy_bytes / 2).max(COPY_BYTES_MIN);
                self.copy_cut = now;
            }
            return;
        }
        // For so much of the time it was not on its way, it and as much of what was sent before it stood somewhere.
        let under_way_bytes = u128::from(answered.under_way_bytes);
        let stood = (took - self.way).as_nanos() * under_way_bytes / took.as_nanos().max(1);
        let (step, in_use) = (answered.payload_bytes / 8, answered.under_way_bytes >= self.copy_bytes / 2);
        if stood > 2 * u128::from(COPY_QUEUE_BYTES) {
            self.copy_bytes = self.copy_bytes.saturating_sub(step).max(COPY_BYTES_MIN);
        } else if stood < u128::from(COPY_QUEUE_BYTES) && in_use {
            self.copy_bytes = (self.copy_bytes + step).min(COPY_BYTES_MAX);
        }
    }
}

impl Theirs {
    /// Takes a request, or says what is wrong with it.
    pub(super) fn asked(&mut self, id: RequestNo, what: &Request) -> Result<(), &'static str> {
        if id.0 != self.last + 1 {
            return Err("a request out of order");
        }
        if let Request::Fetch { length, .. } = what
            && !can_be_fetched(*length)
        {
            return Err("a fetch of a length that cannot be answered");
        }
        let payload_bytes = what.payload_bytes();
        if self.waiting.len() >= REQUESTS_MAX || payload_bytes > WINDOW_BYTES_MAX - self.payload_bytes {
            return Err("more requests than the window allows");
        }
        self.last = id.0;
        self.payload_bytes += payload_bytes;
        self.waiting.insert(id, payload_bytes);
        Ok(())
    }

    /// A request is answered. `false`: there is none of that number.
    pub(super) fn answered(&mut self, id: RequestNo) -> bool {
        let answered = self.waiting.remove(&id);
        self.payload_bytes -= answered.unwrap_or(0);
        answered.is_some()
    }

    /// States come once, in parts.
    pub(super) fn states(&mut self, last: bool) -> Result<(), &'static str> {
        if self.has_told {
            return Err("states after the last");
        }
        self.has_told = last;
        Ok(())
    }

    /// Whether its states were told, to the last.
    pub(super) fn has_told(&self) -> bool {
        self.has_told
    }

    /// Parts of a set follow each other, regions in order.
    pub(super) fn marks(&mut self, marks: &Marks) -> Result<(), &'static str> {
        let Marks { pair, set, from, regions, last } = marks;
        let before = match self.marks.take() {
            None => None,
            Some((p, s, f, before)) if (p, s, f) == (*pair, *set, *from) => before,
            Some(_) => return Err("marks of another set before the last of one"),
        };
        let first = regions.first().map(|(region, _)| *region);
        if before.is_some() && first.is_some() && first <= before {
            return Err("marks out of order");
        }
        if !last {
            let end = regions.last().map(|(region, _)| *region).or(before);
            self.marks = Some((*pair, *set, *from, end));
        }
        Ok(())
    }
}

impl Wants {
    fn of(request: &Request) -> Self {
        match request {
            Request::Fetch { length, .. } => Self::Fetched { length: *length },
            Request::Echo { data } => Self::Echoed { length: data.len() as u32 },
            Request::Sums { .. } => Self::Sums,
            Request::Create(_) => Self::Created,
            Request::Release { pairs } => Self::Released { pairs: pairs.len() },
            Request::Prepare { pairs, .. } => Self::Prepared { pairs: pairs.len() },
            _ => Self::Done,
        }
    }

    fn fits(self, answer: &Answer) -> bool {
        match (self, answer) {
            (Self::Fetched { length } | Self::Echoed { length }, Answer::Data(data)) => {
                data.len() == length as usize
            }
            (Self::Released { pairs: asked }, Answer::Released { pairs }) => pairs.len() == asked,
            (Self::Prepared { pairs }, Answer::Prepared { points }) => points.len() == pairs,
            (Self::Done, Answer::Done)
            | (Self::Fetched { .. }, Answer::Zeros)
            | (Self::Sums, Answer::Sums(_))
            | (Self::Created, Answer::Created { .. }) => true,
            _ => false,
        }
    }
}

/// Whether an answer can carry so much.
pub(super) fn can_be_fetched(length: u32) -> bool {
    length > 0 && length <= PAYLOAD_BYTES_MAX && length.is_multiple_of(PAYLOAD_UNIT_BYTES)
}
