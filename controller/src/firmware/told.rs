//! What is told of a pair besides its record: how fast a copy moves, what a split brain is about, what a forced failover may
//! have cost.

use std::time::Duration;

use twintrack_core::defect::{Defect, planted};
use twintrack_core::{Halt, Mode, PairId, PairRecord, PairStatus, Role, TrackSet};
use twintrack_link::manage::{DivergedInfo, ForcedInfo};
use twintrack_link::time::utc;

use super::Firmware;
use super::event::LinkId;

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

    /// What a split brain is about, as far as it is known here.
    pub(super) fn diverged_info(&self, pair: PairId) -> Option<DivergedInfo> {
        let record = self.tables.pair(pair).filter(|record| record.halt == Some(Halt::Diverged))?;
        let track_bytes = u64::from(self.tables.geometry().track_bytes());
        let here_tracks = u64::from(self.tables.owed(pair).map_or(0, TrackSet::count));
        let there_tracks = self.owed_there(pair).map(u64::from);
        let bytes = (here_tracks + there_tracks.unwrap_or(0)) * track_bytes;
        let size_bytes = self.tables.device(record.device).map_or(0, |device| device.size_bytes);
        Some(DivergedInfo {
            here_tracks,
            there_tracks,
            bytes: bytes.min(size_bytes),
            since_ms: record.halted_ms,
        })
    }

    /// For how long both halves have not been the same.
    pub(super) fn lag_ms(&self, pair: PairId) -> Option<u64> {
        let record = self.tables.pair(pair)?;
        let standing = self.standings.get(&pair)?;
        let (_, _, status) = self.status_of(pair)?;
        let (same, since) = if record.is_owner() {
            (matches!(status, PairStatus::Synchronized | PairStatus::R1Updated), standing.behind_since)
        } else {
            (self.is_followed(pair), standing.had_all_at)
        };
        if same {
            return Some(0);
        }
        since.map(|since| self.now.saturating_sub(since).as_millis() as u64)
    }

    // What a failover without the other array may cost. Of a pair that is mirrored synchronously nothing is answered that is not
    // on both, until the half that serves goes on alone; and before it does that it says so, on the link, ahead of anything
    // else. So when a ping is answered and nothing was said, then at the time when the ping was sent nothing was
    // answered alone. The same holds when a copy is complete: then all is here that was answered before it.

    /// A ping of that time was answered.
    pub(super) fn ponged(&mut self, link: LinkId, pinged: Duration) {
        let Some(peer) = self.peer_of(link) else { return };
        let pairs: Vec<PairId> = self.tables.pairs_of_peer(peer).collect();
        for pair in pairs {
            let synchronous = self.tables.pair(pair).is_some_and(|record| record.mode == Mode::Synchronous);
            if synchronous && self.agreed_link(pair) == Some(link) && self.is_followed(pair) {
                let standing = self.standing(pair);
                if standing.agreed_at <= pinged {
                    standing.had_all_at = Some(pinged);
                }
            }
        }
    }

    /// A copy into the half here is complete: it has what was answered before the other one said so, which was after the copy
    /// began.
    pub(super) fn has_all(&mut self, pair: PairId, link: LinkId) {
        let ponged = self.links.ponged(link);
        let standing = self.standing(pair);
        standing.follows = true;
        let at = ponged.map_or(standing.begun_at, |pinged| pinged.max(standing.begun_at));
        standing.had_all_at = Some(at);
        let _ = self.tables.note_had_all(pair, self.wall_ms_at(at));
    }

    /// Whether the half here, which stands by, is what the other one is, as far as that has said.
    fn is_followed(&self, pair: PairId) -> bool {
        let follows = self.standings.get(&pair).is_some_and(|standing| standing.follows);
        let stands_by = |record: &PairRecord| record.role == Role::Standby && record.complete;
        follows && self.tables.pair(pair).is_some_and(|record| stands_by(record) && record.halt.is_none())
    }

    /// Up to when a half that is about to serve by force has all that was answered; 0: it is not known.
    pub(super) fn had_all_ms(&self, pair: PairId) -> u64 {
        let Some(record) = self.tables.pair(pair) else { return 0 };
        if record.is_owner() {
            // It has answered itself, and whether the other one did, too, is what is not known.
            return 0;
        }
        if planted(Defect::LossUntold) {
            return self.wall_ms();
        }
        let known = self.standings.get(&pair).and_then(|standing| standing.had_all_at);
        known.map_or(record.had_all_ms, |at| self.wall_ms_at(at))
    }

    /// What a failover by force may have cost, until the other array knows of it.
    pub(super) fn forced_info(&self, pair: PairId) -> Option<ForcedInfo> {
        let record = self.tables.pair(pair).filter(|record| record.is_owner() && record.forced)?;
        Some(ForcedInfo { had_all_ms: Some(record.had_all_ms).filter(|ms| *ms != 0) })
    }

    /// The same in words.
    pub(super) fn what_may_be_lost(&self, pair: PairId) -> String {
        match self.forced_info(pair).and_then(|forced| forced.had_all_ms) {
            Some(had_all_ms) => format!(
                "all is here that the other array had answered by {}; what it answered later without this one is not",
                utc(had_all_ms)
            ),
            None => "what the other array has and this one did not get is not here".into(),
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
