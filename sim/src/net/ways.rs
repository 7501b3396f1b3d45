//! The two ways of the link between two arrays, and what can be wrong with each.

use std::time::Duration;

/// What goes wrong on a way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// Nothing gets through any more, and what was under way is lost.
    Cut {
        /// Until when, ms.
        until_ms: u64,
    },
    /// What is sent waits, and arrives later.
    Held {
        /// Until when, ms.
        until_ms: u64,
    },
    /// What is sent takes longer.
    Slow {
        /// Until when, ms.
        until_ms: u64,
        /// By how much, ms.
        by_ms: u64,
    },
    /// The connection breaks once so many more bytes were sent.
    Reset {
        /// How many.
        after_bytes: u64,
    },
}

/// One way.
#[derive(Debug, Default)]
pub(super) struct Way {
    cut_until_ms: Option<u64>,
    held_until_ms: Option<u64>,
    slow: Option<(u64, Duration)>,
    /// How many more bytes may be sent before the connection breaks.
    bytes_left: Option<u64>,
}

impl Way {
    pub(super) fn begin(&mut self, trouble: Trouble) {
        match trouble {
            Trouble::Cut { until_ms } => self.cut_until_ms = self.cut_until_ms.max(Some(until_ms)),
            Trouble::Held { until_ms } => self.held_until_ms = self.held_until_ms.max(Some(until_ms)),
            Trouble::Slow { until_ms, by_ms } => self.slow = Some((until_ms, Duration::from_millis(by_ms))),
            Trouble::Reset { after_bytes } => self.bytes_left = Some(after_bytes.max(1)),
        }
    }

    /// Ends what was to last until now, or everything. Whether something ended.
    pub(super) fn end(&mut self, now_ms: u64, all: bool) -> bool {
        let over = |until_ms: u64| all || until_ms <= now_ms;
        if all {
            self.bytes_left = None;
        }
        let cut = self.cut_until_ms.take_if(|until_ms| over(*until_ms)).is_some();
        let held = self.held_until_ms.take_if(|until_ms| over(*until_ms)).is_some();
        let slow = self.slow.take_if(|(until_ms, _)| over(*until_ms)).is_some();
        cut || held || slow
    }

    pub(super) fn is_cut(&self) -> bool {
        self.cut_until_ms.is_some()
    }

    pub(super) fn is_held(&self) -> bool {
        self.held_until_ms.is_some()
    }

    pub(super) fn delay(&self) -> Duration {
        self.slow.map_or(Duration::ZERO, |(_, by)| by)
    }

    /// How many more bytes may be sent; `None`: no matter how many.
    pub(super) fn bytes_left(&self) -> Option<u64> {
        self.bytes_left
    }

    /// So many bytes were sent. Whether they were the last ones of their connection.
    pub(super) fn is_spent_by(&mut self, bytes: u64) -> bool {
        let Some(left) = &mut self.bytes_left else { return false };
        *left = left.saturating_sub(bytes);
        let spent = *left == 0;
        self.bytes_left = self.bytes_left.filter(|_| !spent);
        spent
    }
}
