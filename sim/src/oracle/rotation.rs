//! **What a schedule copies to one secondary after the other is a history of the primary** (C8): whose turn it is follows the
//! one that was copied to last, the others are older the longer ago their turn was, and none is left out. A period has one copy
//! at most: what a time out of service has missed is made up for once.

use super::Violation;

/// A schedule as it was told, with what its copies are told to be.
#[derive(Debug)]
pub struct Rotation<'a> {
    /// The time of the first copy, ms since 1970.
    pub at_ms: u64,
    /// Between two of them.
    pub every_ms: u64,
    /// The secondaries in the order of their turns, each with the instant of the last copy that the schedule made.
    pub copied: &'a [(&'a str, Option<u64>)],
    /// Whose turn it is.
    pub next: &'a str,
}

impl Rotation<'_> {
    /// Checks it.
    pub fn check(&self) -> Result<(), Violation> {
        let violation = |what: std::fmt::Arguments<'_>| Violation::new("rotation", what);
        let count = self.copied.len();
        let last = (0..count).filter(|at| self.copied[*at].1.is_some()).max_by_key(|at| self.copied[*at].1);
        let next = self.copied[last.map_or(0, |last| (last + 1) % count)].0;
        if next != self.next {
            return Err(violation(format_args!(
                "it is the turn of {}, and should be that of {next}",
                self.next
            )));
        }
        let Some(last) = last else { return Ok(()) };
        let period = |copied_ms: u64| copied_ms.saturating_sub(self.at_ms) / self.every_ms;
        let mut later = None;
        for back in 0..count {
            let (name, copied_ms) = self.copied[(last + count - back) % count];
            match (copied_ms.map(period), later) {
                (None, _) if back <= last => {
                    return Err(violation(format_args!("{name} was left out")));
                }
                (Some(period), Some(later)) if period >= later => {
                    return Err(violation(format_args!(
                        "{name} is of period {period}, and the one after it of {later}"
                    )));
                }
                (period, _) => later = period.or(later),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(copied: [Option<u64>; 3], next: &str) -> bool {
        let copied: Vec<_> = ["a", "b", "c"].into_iter().zip(copied).collect();
        Rotation { at_ms: 500, every_ms: 1000, copied: &copied, next }.check().is_ok()
    }

    #[test]
    fn turns_follow_each_other() {
        assert!(check([None; 3], "a"));
        assert!(!check([None; 3], "b"));
        assert!(check([Some(500), None, None], "b"));
        assert!(!check([Some(500), None, None], "a"));
        assert!(check([Some(500), Some(1510), Some(2600)], "a"));
        assert!(check([Some(3500), Some(1510), Some(2600)], "b"));
        assert!(!check([Some(3500), Some(2600), Some(1510)], "b"));
        assert!(!check([None, Some(1500), None], "c"));
        assert!(!check([Some(500), None, Some(2500)], "a"));
    }

    #[test]
    fn a_period_has_one_copy() {
        assert!(!check([Some(1600), Some(2400), None], "c"));
        assert!(check([Some(1600), Some(2500), None], "c"));
    }
}
