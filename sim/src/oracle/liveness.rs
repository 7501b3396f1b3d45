//! **When the faults stop, everything comes to its end**: the array gets ready, every request is answered, background
//! work ends, every pair reaches its end state, each in bounded simulated time.

use super::Violation;

/// How long things may take, in ms of simulated time, once no fault is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadlines {
    /// From power on to the first answer.
    pub ready_ms: u64,
    /// From a request to its answer.
    pub answer_ms: u64,
    /// From the removal of sessions and devices to their space being free.
    pub background_ms: u64,
    /// From the last fault, or the last word of an operator, to the end state of a pair.
    pub pair_ms: u64,
}

impl Deadlines {
    /// Of two arrays: a request may wait until one of them gives the other up.
    pub fn of_pairs() -> Self {
        Self { answer_ms: 40_000, ..Self::default() }
    }
}

impl Default for Deadlines {
    fn default() -> Self {
        Self { ready_ms: 5_000, answer_ms: 10_000, background_ms: 20_000, pair_ms: 60_000 }
    }
}

/// Checks that something which began at `since_ms` and ended at `until_ms`, or has not ended at that time, did not take too long.
pub fn check_answered_in_time(
    what: &str,
    since_ms: u64,
    until_ms: u64,
    bound_ms: u64,
) -> Result<(), Violation> {
    let took_ms = until_ms.saturating_sub(since_ms);
    if took_ms > bound_ms {
        let what = format_args!("{what}: no end after {took_ms} ms without faults (bound: {bound_ms} ms)");
        return Err(Violation::new("liveness", what));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_too_long_is_told() {
        assert!(check_answered_in_time("read", 100, 150, 50).is_ok());
        assert!(check_answered_in_time("read", 100, 151, 50).is_err());
    }
}
