//! Writes that find no physical track: what they wait for, and which session is failed for them if nothing else helps.

use std::time::Duration;

use twintrack_core::{Owner, PoolId, UnitSeq, Victim, VictimSearch};

use super::event::HostError;
use super::io::OpId;
use super::{Firmware, Work};

/// What an operation has waited for to find space, since a session was last failed.
#[derive(Debug, Default)]
pub(super) struct Waits {
    commits: u32,
    /// The last unit that there was when it last began to wait for commits.
    until: Option<UnitSeq>,
    merges: u32,
    /// Whether it has had all that sessions keep looked at for what nobody needs.
    searched: bool,
}

/// A search for the session to fail in a pool.
#[derive(Debug)]
pub(super) struct Search {
    /// The last operation there was when it began, or a later number.
    begins: OpId,
    victims: VictimSearch,
    found: Victim,
    found_at: Duration,
}

impl Firmware {
    /// No physical track is free for a write. What commits and reclaims can free is waited for; then, for a standard
    /// device, sessions are failed, oldest first: a host's write to it never fails because of them. In a pool that
    /// refuses writes instead, the write fails, and the tables are as they were.
    pub(super) fn out_of_space(&mut self, id: OpId, pool: PoolId) {
        /// Under steady load every commit frees something, for others; after so many it is our turn. So with merges.
        const WAITS_MAX: u32 = 4;
        let Some(op) = self.ops.get_mut(&id) else { return };
        let owner = op.place.owner;
        if self.durability.is_broken() {
            // No commit will free anything.
            self.end_op(id, Err(HostError::Io));
            return;
        }
        // As long as the tables are what they were then, another look would find no more; and it begins anew what is under
        // way for others.
        let tables = (self.tables.last_unit(), self.tables.committed_unit());
        if !std::mem::replace(&mut op.waits.searched, true)
            && self.looked_over.insert(pool, tables) != Some(tables)
        {
            // What needs no session may still be kept for one, or lie below an overlay.
            self.tables.collect_all(pool);
            self.merge_all();
        }
        let Some(op) = self.ops.get_mut(&id) else { return };
        let mut coming = self.tables.has_reclaim() || self.jobs.is_discarding();
        // Once a search goes on, steady load must not make it go on for ever.
        let searching = self.searches.contains_key(&pool);
        if !coming && !searching && self.tables.owes_space() {
            // However often this looks, and however many commits that takes, it is one wait until all that there was
            // is committed.
            if op.waits.until.is_none_or(|until| until <= self.tables.committed_unit()) {
                op.waits.until = Some(self.tables.last_unit());
                op.waits.commits += 1;
            }
            coming = op.waits.commits <= WAITS_MAX;
        } else if !coming && !searching && self.jobs.is_merging() {
            op.waits.merges += 1;
            coming = op.waits.merges <= WAITS_MAX;
        }
        if coming {
            self.starving.push_back(id);
            self.jobs.hurry();
            return;
        }
        let victim = match owner {
            Owner::Device(_) if self.gives_way(id).is_some() => Victim::Nobody,
            Owner::Device(_) => self.victim(id, pool),
            Owner::Session(_) => Victim::Nobody,
        };
        match victim {
            Victim::Session(session) if self.tables.fail_session(session).is_ok() => {
                self.command_unit = self.tables.last_unit();
                self.starving.push_back(id);
                // That is for all who wait: none fails another session before this one's space has come.
                for op in self.ops.values_mut() {
                    op.waits = Waits { searched: op.waits.searched, ..Waits::default() };
                }
                self.jobs.hurry();
            }
            Victim::Looking => {
                self.starving.push_back(id);
                self.jobs.hurry();
            }
            Victim::Session(_) | Victim::Nobody => self.end_op(id, Err(HostError::NoSpace)),
        }
    }

    /// Space may have come free: those that wait for it try again.
    pub(super) fn feed_starving(&mut self) {
        self.work.extend(std::mem::take(&mut self.starving).into_iter().map(Work::Op));
    }

    /// The session to fail so that an operation finds room. Small arrays know it at once; in large ones
    /// [`Self::search_victims`] goes on with it, step by step, while the operation waits.
    pub(super) fn victim(&mut self, op: OpId, pool: PoolId) -> Victim {
        if !self.may_fail_sessions(pool) {
            return Victim::Nobody;
        }
        let (begins, now) = (OpId(self.numbers), self.now);
        // What was found counts when it was found, and not later.
        self.searches.retain(|_, search| search.found == Victim::Looking || search.found_at == now);
        let search = self.searches.entry(pool).or_insert_with(|| {
            let mut victims = VictimSearch::new(pool);
            let found = self.tables.find_victim(&mut victims);
            Search { begins, victims, found, found_at: now }
        });
        match search.found {
            Victim::Session(session) => {
                self.searches.remove(&pool);
                Victim::Session(session)
            }
            // What came to be kept since it began it may have missed; who came before it cannot ask for more.
            Victim::Nobody if search.begins < op => Victim::Looking,
            found => found,
        }
    }

    /// One step of each search; who waits for room hears of it in the same step.
    pub(super) fn search_victims(&mut self) {
        self.searches.retain(|_, search| search.found == Victim::Looking);
        for search in self.searches.values_mut() {
            search.found = self.tables.find_victim(&mut search.victims);
            search.found_at = self.now;
        }
        if !self.searches.is_empty() {
            self.jobs.hurry();
        }
    }
}
