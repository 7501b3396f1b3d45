//! **A copy goes forward**: when no fault is left and nobody writes, what is still to be copied of a pair grows only if the
//! arrays agree anew, once or twice; it never stands still for long; and a pair that is the same stays so.

use super::Violation;

/// How often what is to be copied may grow: a link of before may still break, at either end, and bring marks of both
/// arrays.
const GROWTHS_MAX: u32 = 4;
/// How long a copy may move nothing, ms: an array tries again what it could not read after five seconds, and a pair that it
/// has halted after ten.
const STILL_MS_MAX: u64 = 25_000;

/// The course of one pair, while all is quiet and nobody does anything about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    left_bytes: u64,
    moved_ms: u64,
    growths: u32,
}

impl Progress {
    /// From now on.
    pub fn new(now_ms: u64) -> Self {
        Self { left_bytes: u64::MAX, moved_ms: now_ms, growths: 0 }
    }

    /// Both arrays say what is still to be copied, and whether a copy is said to be under way.
    pub fn seen(&mut self, pair: &str, left_bytes: u64, copying: bool, now_ms: u64) -> Result<(), Violation> {
        let before = std::mem::replace(&mut self.left_bytes, left_bytes);
        if left_bytes > before {
            self.growths += 1;
        }
        if left_bytes != before || !copying {
            self.moved_ms = now_ms;
        }
        let wrong = |what: std::fmt::Arguments<'_>| {
            Err(Violation::new("progress", format_args!("pair {pair}, without faults and writes: {what}")))
        };
        if self.growths > GROWTHS_MAX {
            return wrong(format_args!(
                "what is to be copied grew {} times, last to {left_bytes}",
                self.growths
            ));
        }
        let still_ms = now_ms - self.moved_ms;
        if still_ms > STILL_MS_MAX {
            return wrong(format_args!("it is said to be copied, and nothing moves for {still_ms} ms"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backwards_and_stuck_are_found() {
        let mut progress = Progress::new(0);
        for (at, left) in [9, 5, 7, 3, 4, 2].into_iter().enumerate() {
            assert!(progress.seen("p", left, true, at as u64).is_ok());
        }
        assert!(progress.seen("p", 2, true, 5 + STILL_MS_MAX).is_ok());
        assert!(progress.seen("p", 2, true, 6 + STILL_MS_MAX).is_err());
        assert!(progress.seen("p", 2, false, 7 + STILL_MS_MAX).is_ok(), "nothing is said to move");
        for left in 3..=4 {
            assert!(progress.seen("p", left, true, 8 + STILL_MS_MAX).is_ok());
        }
        assert!(progress.seen("p", 5, true, 9 + STILL_MS_MAX).is_err());
    }
}
