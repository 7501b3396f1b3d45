//! How long things may take on a link, and when it is dialled again.

use std::time::Duration;

/// How long things may take. Data, so that a simulation can have it shorter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// With nothing sent for so long, a ping is sent; on a busy link one each [`Self::silence_max`].
    pub ping_after: Duration,
    /// With nothing heard for so long, the link is reset; also the time for the peer's hello.
    pub silence_max: Duration,
    /// With requests under way and none of them answered for so long, the link is reset.
    pub answer_max: Duration,
    /// So long a request may be under way, however many others are answered meanwhile: a slow link with much under
    /// way is no broken one.
    pub request_max: Duration,
    /// What hosts wait for behind a background copy: it takes so much of the link that requests are answered within so
    /// long.
    pub copy_delay: Duration,
    /// Between the first two attempts to connect; each pause is twice the one before.
    pub redial_min: Duration,
    /// The longest pause between two attempts. A link that was up for so long was a good one: the next pause is the
    /// least again.
    pub redial_max: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            ping_after: Duration::from_secs(1),
            silence_max: Duration::from_secs(5),
            answer_max: Duration::from_secs(10),
            request_max: Duration::from_secs(60),
            copy_delay: Duration::from_millis(200),
            redial_min: Duration::from_millis(100),
            redial_max: Duration::from_secs(10),
        }
    }
}

/// When a peer is to be dialled. The caller says what happened, and dials when [`due`](Self::due) has come.
///
/// ```text
/// waiting ── due, dialling() ──▶ dialling ── up() ──▶ up ── ended() ──▶ waiting, a pause later
///    ▲                               │
///    └─────── a pause later ── ended()
/// ```
#[derive(Debug, Clone)]
pub struct Redial {
    timing: Timing,
    /// The next pause.
    pause: Duration,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting { until: Duration },
    Dialling,
    Up { since: Duration },
}

impl Redial {
    /// Due at once.
    pub fn new(now: Duration, timing: Timing) -> Self {
        Self { timing, pause: timing.redial_min, state: State::Waiting { until: now } }
    }

    /// When to dial; `None`: it is being dialled, or the link is up.
    pub fn due(&self) -> Option<Duration> {
        match self.state {
            State::Waiting { until } => Some(until),
            State::Dialling | State::Up { .. } => None,
        }
    }

    /// It is being dialled.
    pub fn dialling(&mut self) {
        self.state = State::Dialling;
    }

    /// A link is up, whoever dialled.
    pub fn up(&mut self, now: Duration) {
        self.state = State::Up { since: now };
    }

    /// An attempt failed, or the link has ended.
    pub fn ended(&mut self, now: Duration) {
        match self.state {
            State::Up { since } if now.saturating_sub(since) >= self.timing.redial_max => {
                self.pause = self.timing.redial_min;
            }
            _ => {}
        }
        self.wait(now);
    }

    fn wait(&mut self, now: Duration) {
        self.state = State::Waiting { until: now + self.pause };
        self.pause = (self.pause * 2).min(self.timing.redial_max);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    #[test]
    fn pauses_grow_until_a_link_was_good() {
        let mut redial = Redial::new(MS(5), Timing::default());
        assert_eq!(redial.due(), Some(MS(5)));
        let mut pauses = Vec::new();
        let mut now = MS(5);
        for _ in 0..9 {
            redial.dialling();
            assert_eq!(redial.due(), None);
            redial.ended(now);
            let due = redial.due().unwrap();
            pauses.push((due - now).as_millis());
            now = due;
        }
        assert_eq!(pauses, [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
        // Up for a moment only.
        redial.up(now);
        assert_eq!(redial.due(), None);
        redial.ended(now + MS(9_999));
        assert_eq!(redial.due(), Some(now + MS(19_999)));
        redial.up(now);
        redial.ended(now + MS(10_000));
        assert_eq!(redial.due(), Some(now + MS(10_100)));
    }
}
