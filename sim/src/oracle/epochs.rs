//! The crashes of one array: between two of them lies an *epoch*.

use super::register::{Moment, NEVER};

/// How an epoch ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The power went: so did the disks' caches.
    PowerCut,
    /// Only the program died; what it shows next may still be lost with the power.
    Killed,
    /// The program forgot what it had not committed, and went on. A call may have waited meanwhile.
    Reloaded,
}

/// The epochs of one array, from 0.
#[derive(Debug, Default)]
pub(super) struct Epochs {
    /// The moments of the crashes: epoch `n` ends at the `n`-th.
    crashes: Vec<Moment>,
    /// How they went.
    endings: Vec<Ending>,
}

impl Epochs {
    /// The present one.
    pub(super) fn present(&self) -> u32 {
        self.crashes.len() as u32
    }

    /// The present one ends.
    pub(super) fn end(&mut self, now: Moment, how: Ending) {
        self.crashes.push(now);
        self.endings.push(how);
    }

    /// When one began; `None`: before everything.
    pub(super) fn begin_of(&self, epoch: u32) -> Option<Moment> {
        self.crashes.get(epoch.checked_sub(1)? as usize).copied()
    }

    /// When one ended; [`NEVER`] if it has not.
    pub(super) fn end_of(&self, epoch: u32) -> Moment {
        self.crashes.get(epoch as usize).copied().unwrap_or(NEVER)
    }

    /// How one ended.
    pub(super) fn ending_of(&self, epoch: u32) -> Option<Ending> {
        self.endings.get(epoch as usize).copied()
    }

    /// Whether it crashed between two moments: even of a program that only died, what it had not committed is gone.
    pub(super) fn crashed(&self, from: Moment, until: Moment) -> bool {
        self.crashes.iter().any(|at| (from..until).contains(at))
    }

    /// The one in which a moment lies.
    pub(super) fn of(&self, moment: Moment) -> u32 {
        self.crashes.partition_point(|crash| *crash < moment) as u32
    }
}
