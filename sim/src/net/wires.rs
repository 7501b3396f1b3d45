//! All connections of a world, and what is wrong with them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};
use std::time::Duration;

use turmoil::net::TcpStream;

use super::line::Line;
use super::ways::{Trouble, Way};
use crate::dice::Dice;
use crate::disk::Power;
use crate::note;
use crate::site::Site;
use crate::timeline::Timeline;

/// All connections of a world. Clones share them.
#[derive(Debug, Clone)]
pub struct Wires(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    wires: BTreeMap<u64, Wire>,
    next: u64,
    /// Ends of connections between the arrays that there ever were.
    links: u64,
    arrays: [Array; 2],
    /// What one array sends to the other goes this way: from the first, from the second.
    ways: [Way; 2],
    chop_bytes: u32,
    dice: Dice,
    timeline: Timeline,
}

#[derive(Debug)]
struct Array {
    /// What it sent or waited for before its last power cut goes nowhere.
    silent_before: u64,
    /// How often it crashed, or loaded everything anew.
    epoch: u32,
    power: Power,
}

/// Whose end of which connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// A host's.
    Host,
    /// An array's, of a connection with a host.
    Array(Site),
    /// An array's, of a connection with the other one.
    Link(Site),
}

impl End {
    /// Whose power it hangs on.
    fn site(self) -> Option<Site> {
        match self {
            Self::Host => None,
            Self::Array(site) | Self::Link(site) => Some(site),
        }
    }
}

#[derive(Debug)]
struct Wire {
    end: End,
    broken: bool,
    /// What was sent to this end was lost on its way once, so nothing comes after it.
    deaf: bool,
    /// What was and is sent to this end waits until then.
    stalled_until_ms: u64,
    wakers: [Option<Waker>; 2],
}

/// What an end may do now.
pub(super) enum Gate {
    /// Move at most so many bytes; received ones so much later than they came, if it is an end of the link.
    Open { most: usize, later: Option<Duration> },
    /// Wait.
    Silent,
    /// See that it is broken.
    Broken,
}

impl Wires {
    /// No connections yet. Without its power an array's ends neither send nor receive. `chop_bytes`: the most that one in
    /// three sends and receives takes; 0: no limit.
    pub fn new(powers: [Power; 2], chop_bytes: u32, seed: u64, timeline: Timeline) -> Self {
        Self(Arc::new(Mutex::new(State {
            wires: BTreeMap::new(),
            next: 0,
            links: 0,
            arrays: powers.map(|power| Array { silent_before: 0, epoch: 0, power }),
            ways: Default::default(),
            chop_bytes,
            dice: Dice::new(seed, "wires"),
            timeline,
        })))
    }

    /// An end of a connection.
    pub fn attach(&self, stream: TcpStream, end: End) -> Line {
        let mut state = self.state();
        let id = state.next;
        state.next += 1;
        state.links += u64::from(matches!(end, End::Link(_)));
        state
            .wires
            .insert(id, Wire { end, broken: false, deaf: false, stalled_until_ms: 0, wakers: [None, None] });
        Line::new(stream, id, self.clone())
    }

    /// An array crashed, or loaded everything anew.
    pub fn begin_epoch(&self, site: Site) {
        self.state().arrays[site.index()].epoch += 1;
    }

    /// How often it did. Who is connected now is heard in this epoch or never.
    pub fn epoch(&self, site: Site) -> u32 {
        self.state().arrays[site.index()].epoch
    }

    /// An array's ends of all connections there are stay silent, also when the power is on again.
    pub fn silence(&self, site: Site) {
        let mut state = self.state();
        state.arrays[site.index()].silent_before = state.next;
    }

    /// Something goes wrong on the way from an array to the other.
    pub fn trouble(&self, from: Site, trouble: Trouble) {
        let mut state = self.state();
        let state = &mut *state;
        state.ways[from.index()].begin(trouble);
        if let Trouble::Cut { .. } = trouble {
            // What is under way is lost, and TCP's sending it again is not simulated: what comes later does not arrive.
            let deaf = |wire: &&mut Wire| wire.end == End::Link(from.other());
            state.wires.values_mut().filter(deaf).for_each(|wire| wire.deaf = true);
        }
    }

    /// What an array sends to the other on the connections that there are waits until then.
    pub fn stall(&self, from: Site, until_ms: u64) {
        let stalled = |wire: &&mut Wire| wire.end == End::Link(from.other());
        let mut state = self.state();
        state.wires.values_mut().filter(stalled).for_each(|wire| wire.stalled_until_ms = until_ms);
    }

    /// Ends what was to last until now. With `all`, everything.
    pub fn end_troubles(&self, now_ms: u64, all: bool) {
        let mut state = self.state();
        let state = &mut *state;
        let mut ended = false;
        let stalls = state.wires.values_mut().map(|wire| &mut wire.stalled_until_ms);
        for until_ms in stalls.filter(|until_ms| **until_ms > 0 && (all || **until_ms <= now_ms)) {
            (*until_ms, ended) = (0, true);
        }
        for way in &mut state.ways {
            ended |= way.end(now_ms, all);
        }
        if ended {
            note!(state.timeline, "net", "the link gets better");
            state.wires.values_mut().for_each(Wire::wake);
        }
    }

    /// Whether one array can connect to the other now: both ways are open.
    pub fn may_dial(&self) -> bool {
        self.state().ways.iter().all(|way| !way.is_cut() && !way.is_held())
    }

    /// Ends of connections between the arrays that there ever were.
    pub fn links(&self) -> u64 {
        self.state().links
    }

    /// Breaks the `nth` connection (counted round and round), or all. Returns how many.
    pub fn drop_connections(&self, nth: Option<u64>) -> usize {
        let mut state = self.state();
        let state = &mut *state;
        let whole: Vec<u64> =
            state.wires.iter().filter(|(_, wire)| !wire.broken).map(|(id, _)| *id).collect();
        let chosen: Vec<u64> = match nth {
            _ if whole.is_empty() => return 0,
            Some(nth) => vec![whole[(nth % whole.len() as u64) as usize]],
            None => whole,
        };
        for id in &chosen {
            let Some(wire) = state.wires.get_mut(id) else { continue };
            wire.broken = true;
            note!(state.timeline, "net", "connection {id} breaks");
            wire.wake();
        }
        chosen.len()
    }

    /// What an end may do. `side`: 0 receives, 1 sends. `some`: the bytes that there are to be moved.
    pub(super) fn gate(&self, id: u64, side: usize, some: usize, cx: &Context<'_>) -> Gate {
        let mut state = self.state();
        let state = &mut *state;
        let Some(wire) = state.wires.get_mut(&id) else { return Gate::Broken };
        if wire.broken {
            return Gate::Broken;
        }
        if let Some(array) = wire.end.site().map(|site| &state.arrays[site.index()])
            && (id < array.silent_before || !array.power.is_on())
        {
            return Gate::Silent;
        }
        wire.wakers[side] = Some(cx.waker().clone());
        let mut later = None;
        if let (End::Link(site), 0) = (wire.end, side) {
            let way = &state.ways[site.other().index()];
            if wire.deaf || wire.stalled_until_ms > 0 || way.is_held() {
                return Gate::Silent;
            }
            later = Some(way.delay());
        }
        let most = match state.chop_bytes {
            0 => some,
            // Now and then only: turmoil takes time in proportion to the square of the messages under way.
            _ if state.dice.chance(700) => some,
            chop => state.dice.between(1, u64::from(chop)).min(some as u64) as usize,
        };
        match wire.end {
            End::Link(site) if side == 1 => {
                let left = state.ways[site.index()].bytes_left();
                Gate::Open { most: left.map_or(most, |left| most.min(left as usize)), later }
            }
            _ => Gate::Open { most, later },
        }
    }

    /// So many bytes were sent from an end: maybe the last ones.
    pub(super) fn sent(&self, id: u64, bytes: usize) {
        let mut state = self.state();
        let state = &mut *state;
        let Some(wire) = state.wires.get_mut(&id) else { return };
        if let End::Link(site) = wire.end
            && state.ways[site.index()].is_spent_by(bytes as u64)
        {
            wire.broken = true;
            note!(state.timeline, "net", "connection {id} breaks");
            wire.wake();
        }
    }

    /// An end is gone.
    pub(super) fn detach(&self, id: u64) {
        self.state().wires.remove(&id);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wire {
    fn wake(&mut self) {
        self.wakers.iter_mut().filter_map(Option::take).for_each(Waker::wake);
    }
}
