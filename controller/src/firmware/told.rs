//! What is told of a pair besides its record: how fast a copy moves, what a split brain is about, what a forced failover may
//! have cost.

use std::time::Duration;

use twintrack_core::{Halt, Mode, PairId, TrackSet};
use twintrack_link::manage::DivergedInfo;

use super::Firmware;

/// Over how long a rate is measured.
const WINDOW: Duration = Duration::from_secs(1);
/// A rate that is older is none.
const STALE: Duration = Duration::from_secs(4);

/// How fast something moves.
#[derive(Debug, Default)]
pub(super) struct Rate {
    begun: Duration,
    moved_bytes: u64,
    bytes_per_s: u64,
}

impl Rate {
    /// So many bytes more have moved.
    pub(super) fn add(&mut self, now: Duration, bytes: u64) {
        let passed = now.saturating_sub(self.begun);
        if passed >= WINDOW {
            let is_stale = passed > STALE;
            self.bytes_per_s = if is_stale { 0 } else { per_s(self.moved_bytes, passed) };
            (self.begun, self.moved_bytes) = (now, 0);
        }
        self.moved_bytes += bytes;
    }

    /// Bytes a second; 0: nothing has moved lately.
    pub(super) fn bytes_per_s(&self, now: Duration) -> u64 {
        let passed = now.saturating_sub(self.begun);
        match passed {
            _ if passed > STALE => 0,
            _ if self.bytes_per_s == 0 && !passed.is_zero() => per_s(self.moved_bytes, passed),
            _ => self.bytes_per_s,
        }
    }
}

fn per_s(bytes: u64, passed: Duration) -> u64 {
    let rate = u128::from(bytes) * 1000 / passed.as_millis().max(1);
    u64::try_from(rate).unwrap_or(u64::MAX)
}

impl Firmware {
    /// How fast the copy of a pair moves now, and how long the rest takes at that rate.
    pub(super) fn pace(&self, pair: PairId, left_bytes: u64) -> (u64, Option<u64>) {
        let rate = self.standings.get(&pair).map_or(0, |standing| standing.rate.bytes_per_s(self.now));
        let left_s = (rate > 0 && left_bytes > 0).then(|| left_bytes.div_ceil(rate.max(1)));
        (if left_bytes > 0 { rate } else { 0 }, left_s)
    }

    /// What a split brain is about, as far as it is known here: the other array knows what was written there.
    pub(super) fn diverged_info(&self, pair: PairId) -> Option<DivergedInfo> {
        let record = self.tables.pair(pair).filter(|record| record.halt == Some(Halt::Diverged))?;
        let track_bytes = u64::from(self.tables.geometry().track_bytes());
        let here_tracks = self.tables.owed(pair).map_or(0, TrackSet::count).into();
        let bytes = here_tracks * track_bytes;
        Some(DivergedInfo { here_tracks, there_tracks: None, bytes, since_ms: record.halted_ms })
    }

    /// What a failover without the other array may have cost.
    pub(super) fn what_may_be_lost(&self, pair: PairId) -> &'static str {
        match self.tables.pair(pair).map(|record| (record.mode, record.halt)) {
            Some((Mode::Synchronous, None)) => {
                "nothing is lost that hosts were told of before the link broke; what the other array took alone since then is \
                 not here"
            }
            // What halts it may be of after the failover, so when it was halted says nothing of what is lost.
            _ => "what the other array has and this one did not get is not here",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_of_the_last_second() {
        let at = Duration::from_millis;
        let mut rate = Rate::default();
        assert_eq!(rate.bytes_per_s(at(0)), 0);
        rate.add(at(100_000), 1000);
        rate.add(at(100_500), 1000);
        assert_eq!(rate.bytes_per_s(at(100_500)), 4000);
        rate.add(at(101_000), 0);
        assert_eq!(rate.bytes_per_s(at(101_900)), 2000);
        assert_eq!(rate.bytes_per_s(at(110_000)), 0, "nothing has moved since");
        rate.add(at(u64::MAX), u64::MAX);
        rate.bytes_per_s(at(u64::MAX));
    }
}
