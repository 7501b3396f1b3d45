//! What a pool does when it runs full, and when it warns before.

use std::time::Duration;

use twintrack_core::defect::{Defect, planted};
use twintrack_core::{PoolId, Victim, VictimSearch};
use twintrack_link::manage::WhenFull;

use super::Firmware;
use super::io::OpId;

/// A search for the session to fail in a pool.
#[derive(Debug)]
pub(super) struct Search {
    /// The last operation there was when it began, or a later number.
    begins: OpId,
    victims: VictimSearch,
    found: Victim,
    found_at: Duration,
}

/// What the owner decided for a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PoolPolicy {
    /// What becomes of a host's write to a standard device that finds no free track.
    pub when_full: WhenFull,
    /// With less free than this, the pool is among the array's warnings.
    pub warn_below: Threshold,
}

/// How much of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Threshold {
    /// So many hundredths of its size; more than 100 are 100.
    PerCent(u8),
    /// So many bytes.
    Bytes(u64),
}

impl Default for Threshold {
    fn default() -> Self {
        Self::PerCent(10)
    }
}

impl Threshold {
    /// In bytes, of a pool of so many.
    pub fn of(self, size_bytes: u64) -> u64 {
        match self {
            Self::PerCent(part) => (u128::from(size_bytes) * u128::from(part.min(100)) / 100) as u64,
            Self::Bytes(bytes) => bytes,
        }
    }
}

impl Firmware {
    pub(super) fn policy(&self, pool: PoolId) -> PoolPolicy {
        self.policies.get(&pool).copied().unwrap_or_default()
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

    /// Whether a host's write that finds no room may fail sessions to get it.
    fn may_fail_sessions(&self, pool: PoolId) -> bool {
        match self.policy(pool).when_full {
            WhenFull::FailSessions => !planted(Defect::WriteRefused),
            WhenFull::RefuseWrites => planted(Defect::PolicyIgnored),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds() {
        for (threshold, size, bytes) in [
            (Threshold::default(), 1000, 100),
            (Threshold::PerCent(0), 1000, 0),
            (Threshold::PerCent(255), 1000, 1000),
            (Threshold::PerCent(99), u64::MAX, u64::MAX / 100 * 99 + 14),
            (Threshold::Bytes(7), 1000, 7),
        ] {
            assert_eq!(threshold.of(size), bytes);
        }
    }
}
