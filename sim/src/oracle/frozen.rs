//! **A frozen pair takes no write**: from when the half that serves says that it is frozen, until that has an end (the
//! other array is back, or a person lets it go on), no host is told that a write happened. So whoever makes the other
//! half serve loses nothing. A pair that says twice that it is frozen, since the same time, was so all the while.

use super::Violation;
use super::register::Moment;

/// A pair that was seen frozen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frozen {
    /// Since when it says to be, wall time in ms.
    since_ms: u64,
    /// When it was first told.
    from: Moment,
    /// Writes that were called since and answered well.
    written: Vec<(Moment, String)>,
}

impl Frozen {
    /// An answer says so.
    pub fn new(since_ms: u64, from: Moment) -> Self {
        Self { since_ms, from, written: Vec::new() }
    }

    /// A write that was called at `call` is answered, well, at `answer`.
    pub fn wrote(&mut self, call: Moment, answer: Moment, what: &str) {
        if call > self.from {
            self.written.push((answer, what.into()));
        }
    }

    /// An answer to a question of `call` says that a pair is frozen since a time. `false`: that is another freeze.
    pub fn check(&self, pair: &str, since_ms: u64, call: Moment) -> Result<bool, Violation> {
        if since_ms != self.since_ms {
            return Ok(false);
        }
        match self.written.iter().find(|(answer, _)| *answer < call) {
            None => Ok(true),
            Some((_, what)) => Err(Violation::new(
                "frozen",
                format_args!("pair {pair} is frozen, and {what} was carried out all the same"),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_between_two_looks_is_found() {
        let mut frozen = Frozen::new(70, 10);
        frozen.wrote(9, 12, "a write that was under way");
        assert_eq!(frozen.check("p", 70, 20), Ok(true));
        frozen.wrote(21, 24, "a write");
        assert_eq!(frozen.check("p", 70, 23), Ok(true), "it may have thawed just before");
        assert_eq!(frozen.check("p", 71, 30), Ok(false), "it did, and froze again");
        assert_eq!(frozen.check("p", 70, 30).unwrap_err().oracle, "frozen");
    }
}
