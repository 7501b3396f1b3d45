//! How long hosts wait for their answers, which an adaptive copy goes by (C6): it backs off while that is longer than usual.
//!
//! What is usual is learnt while nothing is copied. Where that is not known, as after a restart in the middle of a copy, it is
//! learnt from a few answers while no copy has more than one track under way, which is as slow as copies go.

use std::time::Duration;

/// How much longer than usual hosts may wait before an adaptive copy backs off: as long again, and this.
const SLACK: Duration = Duration::from_millis(1);
/// Answers from which it is known what is usual.
const ENOUGH: u32 = 8;
/// Answers that the mean of what is recent, and of what is usual, is about.
const RECENT: u32 = 8;
const USUAL: u32 = 64;
/// Without an answer for so long, no host waits.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(1);

/// What copies do when a host is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Load {
    /// Nothing.
    None,
    /// They have a track under way each, and not more.
    Least,
    /// More.
    More,
}

/// The means of the last answers.
#[derive(Debug, Default)]
pub(super) struct Waits {
    recent: Mean,
    usual: Mean,
    last: Option<Duration>,
}

#[derive(Debug, Default)]
struct Mean {
    of: Duration,
    answers: u32,
}

impl Waits {
    /// A host has its answer, after so long.
    pub(super) fn answered(&mut self, now: Duration, waited: Duration, load: Load) {
        if !self.is_watched(now) {
            self.recent = Mean::default();
        }
        self.last = Some(now);
        self.recent.take(waited, RECENT);
        if load == Load::None || (load == Load::Least && self.usual.answers < ENOUGH) {
            self.usual.take(waited, USUAL);
        }
    }

    /// Whether hosts wait longer than usual, or may do so.
    pub(super) fn are_long(&self, now: Duration) -> bool {
        let known = self.usual.answers >= ENOUGH;
        self.is_watched(now) && (!known || self.recent.of > self.usual.of * 2 + SLACK)
    }

    fn is_watched(&self, now: Duration) -> bool {
        self.last.is_some_and(|last| now < last + FORGOTTEN_AFTER)
    }
}

impl Mean {
    fn take(&mut self, waited: Duration, most: u32) {
        self.answers = (self.answers + 1).min(most);
        self.of = (self.of * (self.answers - 1) + waited) / self.answers;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn answers(waits: &mut Waits, from_ms: u64, count: u64, waited_ms: u64, load: Load) {
        (0..count).for_each(|n| waits.answered(ms(from_ms + n), ms(waited_ms), load));
    }

    /// C6: hosts that wait longer than they did while nothing was copied are noticed, and that they do not any more.
    #[test]
    fn longer_than_usual() {
        let mut waits = Waits::default();
        assert!(!waits.are_long(ms(0)), "nobody waits");
        answers(&mut waits, 0, 20, 2, Load::None);
        answers(&mut waits, 20, 20, 4, Load::More);
        assert!(!waits.are_long(ms(40)), "twice as long");
        answers(&mut waits, 40, 20, 9, Load::More);
        assert!(waits.are_long(ms(60)));
        answers(&mut waits, 60, 20, 3, Load::More);
        assert!(!waits.are_long(ms(80)));
        answers(&mut waits, 80, 20, 50, Load::Least);
        assert!(waits.are_long(ms(100)), "what a copy does to hosts is not what is usual");
    }

    /// After hosts have gone, what they waited is nobody's concern, and those that come later begin anew.
    #[test]
    fn hosts_that_have_gone() {
        let mut waits = Waits::default();
        answers(&mut waits, 0, 20, 2, Load::None);
        answers(&mut waits, 20, 20, 90, Load::More);
        assert!(waits.are_long(ms(1_000)) && !waits.are_long(ms(1_100)));
        answers(&mut waits, 9_000, 1, 3, Load::More);
        assert!(!waits.are_long(ms(9_001)));
    }

    /// A slow disk is no reason to go slowly for ever: what is usual is learnt amid a copy, too, once it takes the least.
    #[test]
    fn learnt_amid_a_copy() {
        let mut waits = Waits::default();
        answers(&mut waits, 0, 20, 30, Load::More);
        assert!(waits.are_long(ms(20)), "it is not known yet");
        answers(&mut waits, 20, 7, 30, Load::Least);
        assert!(waits.are_long(ms(27)));
        answers(&mut waits, 27, 1, 30, Load::Least);
        assert!(!waits.are_long(ms(28)));
        answers(&mut waits, 28, 20, 90, Load::More);
        assert!(waits.are_long(ms(48)));
    }
}
