//! **A split brain is none unless somebody forced it, and none ends by itself** (F4): halves are said to have diverged only
//! after a forced failover; once both sides say so, it stays until a person has chosen one; and what one half wrote after
//! the other one was forced is given up by nobody else.

use super::Violation;

/// What is known of a pair's split brains.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Split {
    /// Somebody forced one half since both were last one.
    pub forced: bool,
    /// Somebody was asked to choose, and it is not known what came of it.
    choosing: bool,
    /// Both sides have said that they diverged, and nobody has chosen since.
    open: bool,
    /// Whoever forced one half was told that it serves: it does after any crash, too.
    answered: bool,
    /// After one half was forced the other one carried out a write, and nobody has chosen since.
    parted: bool,
}

impl Split {
    /// A person chooses.
    pub fn chosen(&mut self) {
        (self.choosing, self.open, self.parted) = (true, false, false);
    }

    /// That was done (`None`: it is not known). Who serves now is the one that was chosen: what it writes, it does not write
    /// apart from the other.
    pub fn choice_ended(&mut self, done: Option<bool>) {
        self.choosing = done.is_none();
        self.answered &= done != Some(true);
    }

    /// One half was forced, and who did it was told so.
    pub fn force_answered(&mut self) {
        self.answered = true;
    }

    /// A write was called after one half was forced, and carried out by the other, while nobody chose.
    pub fn wrote_apart(&mut self) {
        self.parted |= self.answered && !self.choosing;
    }

    /// Both arrays say whether they have diverged; `None`: one of them does not have the pair.
    pub fn seen(&mut self, pair: &str, diverged: Option<[bool; 2]>) -> Result<(), Violation> {
        let wrong = |what: &str| Err(Violation::new("split", format_args!("pair {pair}: {what}")));
        let Some(diverged) = diverged else { return Ok(()) };
        if diverged.contains(&true) && !self.forced {
            return wrong("its halves are said to have diverged, and nobody forced one");
        }
        if diverged == [false, false] && std::mem::take(&mut self.open) {
            return wrong("its halves had diverged, and have not any more, though nobody chose one");
        }
        self.open |= diverged == [true, true] && !self.choosing;
        Ok(())
    }

    /// Both halves are one again.
    pub fn joined(&mut self, pair: &str) -> Result<(), Violation> {
        if !std::mem::take(self).parted {
            return Ok(());
        }
        let what =
            "one half was forced, the other was written, and they are one again, though nobody chose one";
        Err(Violation::new("split", format_args!("pair {pair}: {what}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_split_brain_needs_a_person_at_both_ends() {
        let mut split = Split::default();
        assert!(split.seen("p", Some([false, false])).is_ok());
        assert!(split.seen("p", Some([true, false])).is_err());
        split.forced = true;
        assert!(split.seen("p", Some([true, false])).is_ok());
        assert!(split.seen("p", Some([false, false])).is_ok(), "the other side had not said so");
        assert!(split.seen("p", Some([true, true])).is_ok());
        assert!(split.seen("p", None).is_ok());
        assert!(split.seen("p", Some([false, false])).is_err());
        assert!(split.seen("p", Some([true, true])).is_ok());
        split.chosen();
        assert!(split.seen("p", Some([false, false])).is_ok());
        assert!(split.joined("p").is_ok());
        assert!(split.seen("p", Some([true, true])).is_err());
    }

    #[test]
    fn what_one_half_wrote_alone_is_not_given_up() {
        let mut split = Split::default();
        split.wrote_apart();
        assert!(split.joined("p").is_ok(), "a crash may have undone the force");
        split.force_answered();
        split.wrote_apart();
        assert!(split.joined("p").is_err());
        assert!(split.joined("p").is_ok());
        split.force_answered();
        split.wrote_apart();
        split.chosen();
        split.wrote_apart();
        assert!(split.joined("p").is_ok(), "somebody was choosing");
        split.force_answered();
        split.chosen();
        split.choice_ended(Some(true));
        split.wrote_apart();
        assert!(split.joined("p").is_ok(), "it was chosen");
    }
}
