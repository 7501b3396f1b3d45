//! Out of log space: which session is to fail; never one that is pinned, nor one for what a pinned one needs, too. All that is kept for the sessions of a pool has to be looked at, which may
//! be millions of entries; so the search goes in bounded steps, between which the tables may change.

use std::ops::Bound;

use crate::ids::{DeviceId, Generation, PoolId, SessionId, TrackNo};
use crate::tables::{Device, Tables};

/// Entries that one step looks at, and devices and sessions that have none.
const LOOKS: usize = 1 << 12;

/// A search under way; [`Tables::find_victim`] goes on with it.
#[derive(Debug, Clone)]
pub struct VictimSearch {
    pool: PoolId,
    /// The device looked at, or about to be, and how far; before the first: none.
    device: Option<DeviceId>,
    at: Option<At>,
    /// The oldest session that alone refers to a physical track, so that its failure frees it.
    freeing: Option<Age>,
    /// The oldest that needs one, if only together with others.
    needing: Option<Age>,
}

type Age = (u64, SessionId);

/// The next thing to look at on a device.
#[derive(Debug, Clone, Copy)]
enum At {
    /// An own track of a session.
    Own((Generation, SessionId), TrackNo),
    Version(TrackNo, Generation),
}

/// What a step of a search came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Victim {
    /// There is more to look at.
    Looking,
    /// No session that took space before the search began takes any now.
    Nobody,
    /// Its failure frees space, now or when others have failed, too.
    Session(SessionId),
}

impl VictimSearch {
    /// From the beginning.
    pub fn new(pool: PoolId) -> Self {
        Self { pool, device: None, at: None, freeing: None, needing: None }
    }
}

impl Tables {
    /// The session whose failure frees log space of a pool: the oldest that alone refers to a physical track, else the
    /// oldest that needs one together with others. `None`: no session of the pool takes any space.
    ///
    /// Looks at all that is kept for the sessions of the pool, once; [`Self::find_victim`] does so in steps.
    pub fn oldest_failable(&self, pool: PoolId) -> Option<SessionId> {
        let mut search = VictimSearch::new(pool);
        loop {
            match self.find_victim(&mut search) {
                Victim::Looking => {}
                Victim::Nobody => return None,
                Victim::Session(session) => return Some(session),
            }
        }
    }

    /// One bounded step of a search. What came to be kept after it began may be missed.
    pub fn find_victim(&self, search: &mut VictimSearch) -> Victim {
        let mut looks = 0;
        loop {
            if search.at.is_none() {
                let after = search.device.map_or(Bound::Unbounded, Bound::Excluded);
                let Some((id, device)) = self.devices.range((after, Bound::Unbounded)).next() else { break };
                search.device = Some(*id);
                looks += 1;
                if device.pool() == Some(search.pool) {
                    search.at = Some(At::Own((Generation(0), SessionId(0)), TrackNo(0)));
                }
            }
            if let Some(id) = search.device
                && let Some(device) = self.devices.get(&id)
                && let Some(at) = search.at
            {
                search.at = self.look_at(id, device, at, search, &mut looks);
            } else {
                // Deleted meanwhile.
                search.at = None;
            }
            if looks >= LOOKS {
                return Victim::Looking;
            }
        }
        match search.freeing.or(search.needing) {
            None => Victim::Nobody,
            Some((_, session)) if self.session(session).is_some_and(|s| s.state.window().is_some()) => {
                Victim::Session(session)
            }
            Some(_) => {
                *search = VictimSearch::new(search.pool);
                Victim::Looking
            }
        }
    }

    /// Where to go on; `None`: that was all of the device.
    fn look_at(
        &self,
        id: DeviceId,
        device: &Device,
        at: At,
        search: &mut VictimSearch,
        looks: &mut usize,
    ) -> Option<At> {
        let mut from = (TrackNo(0), Generation(0));
        match at {
            At::Own(point, track) => {
                let mut track = track;
                for point in device.points.range(point..) {
                    *looks += 1;
                    for (own, entry) in self.sessions[&point.1].own.range(track..) {
                        if *looks >= LOOKS {
                            return Some(At::Own(*point, *own));
                        }
                        *looks += 1;
                        self.consider(search, point.1, true, *entry);
                    }
                    track = TrackNo(0);
                }
            }
            At::Version(track, upto) => from = (track, upto),
        }
        let before = device.versions.range(..from).next_back();
        let mut before = before.map_or((TrackNo(u32::MAX), Generation(0)), |(at, _)| *at);
        for ((track, upto), entry) in device.versions.range(from..) {
            if *looks >= LOOKS {
                return Some(At::Version(*track, *upto));
            }
            let after = if before.0 == *track { before.1 } else { Generation(0) };
            before = (*track, *upto);
            *looks += 1;
            if self.is_pinned_version(device, *track, after, *upto, looks) {
                continue;
            }
            let sessions = self.activated_between(id, after, *upto).inspect(|_| *looks += 1);
            let mut needing = sessions.filter(|session| self.ends_at(*session, *track, *upto));
            let (first, alone) = (needing.next(), needing.next().is_none());
            if let Some(first) = first {
                self.consider(search, first, alone, *entry);
            }
        }
        None
    }

    /// Whether a pinned session needs a version: nobody's failure frees it.
    fn is_pinned_version(
        &self,
        device: &Device,
        track: TrackNo,
        after: Generation,
        upto: Generation,
        looks: &mut usize,
    ) -> bool {
        let first = (Generation(after.0.saturating_add(1).min(upto.0)), SessionId(0));
        let mut pinned = device.pinned.range(first..=(upto, SessionId(u32::MAX))).inspect(|_| *looks += 1);
        pinned.any(|(_, session)| self.ends_at(*session, track, upto))
    }

    /// An entry that a session needs, alone or not.
    fn consider(&self, search: &mut VictimSearch, session: SessionId, alone: bool, entry: crate::Entry) {
        let age = Some((self.sessions[&session].record.activated_ms, session));
        let frees = |track| self.space.count(track) == Some(1);
        if alone && (search.freeing.is_none() || age < search.freeing) && entry.tracks().any(frees) {
            search.freeing = age;
        }
        if (search.needing.is_none() || age < search.needing) && !entry.is_zeros() {
            search.needing = age;
        }
    }
}
