//! Lineage: which state of a pair's data a half has, so that a split brain is seen, never guessed (F4).

use crate::ids::PairGeneration;

/// Generations before the present one that a lineage remembers.
pub const ANCESTORS_MAX: usize = 15;

/// The generation that a half's data have, and those that it came from.
///
/// A side begins a generation before it first acknowledges a write that its peer lacks, and only then: while one side
/// alone advances, the other's generation is at most a few steps behind, and two sides that both advanced alone name
/// generations that the other does not know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lineage {
    current: PairGeneration,
    /// Newest first.
    ancestors: Vec<PairGeneration>,
}

/// How a lineage stands to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kinship {
    /// The same generation: what differs is owed or dirty.
    Same,
    /// It came from the other's generation: it has what the other has, and more.
    Ahead,
    /// The other came from its generation.
    Behind,
    /// Each has what the other lacks; or the other is so old that nothing is known of it any more.
    Diverged,
}

impl Kinship {
    /// As the other side sees it.
    #[must_use]
    pub fn reversed(self) -> Self {
        match self {
            Self::Ahead => Self::Behind,
            Self::Behind => Self::Ahead,
            same => same,
        }
    }
}

impl Lineage {
    /// Of data that begin with a pair.
    pub fn new(first: PairGeneration) -> Self {
        Self { current: first, ancestors: Vec::new() }
    }

    /// From its parts, ancestors newest first. `None`: too many ancestors, or a generation that comes twice.
    pub fn from_parts(current: PairGeneration, ancestors: Vec<PairGeneration>) -> Option<Self> {
        let mut all: Vec<_> = ancestors.iter().chain([&current]).collect();
        all.sort();
        let twice = all.windows(2).any(|pair| pair[0] == pair[1]);
        (ancestors.len() <= ANCESTORS_MAX && !twice).then_some(Self { current, ancestors })
    }

    /// The present generation.
    pub fn current(&self) -> PairGeneration {
        self.current
    }

    /// Those before it, newest first; at most [`ANCESTORS_MAX`].
    pub fn ancestors(&self) -> &[PairGeneration] {
        &self.ancestors
    }

    /// Begins a generation, one that never was.
    pub fn begin(&mut self, generation: PairGeneration) {
        self.ancestors.truncate(ANCESTORS_MAX - 1);
        self.ancestors.insert(0, self.current);
        self.current = generation;
    }

    /// Takes the other's lineage: a copy of its data into this half is complete and flushed.
    pub fn adopt(&mut self, other: &Self) {
        self.clone_from(other);
    }

    /// Begins a generation that takes the place of the other's, too: both were written alone, and somebody chose these
    /// data. From now on this side is ahead. The other side must have stopped serving, durably, before; and what it
    /// wrote alone must be owed to it.
    pub fn supersede(&mut self, generation: PairGeneration, other: &Self) {
        self.begin(generation);
        if !self.ancestors.contains(&other.current) {
            self.ancestors.truncate(ANCESTORS_MAX - 1);
            self.ancestors.insert(0, other.current);
        }
    }

    /// Of a past of the present generation, in which a generation begins. What the present one had since is not in it, so it
    /// is none of its ancestors: whoever has that, or went on from it, has diverged from this.
    #[must_use]
    pub fn fallen_back(&self, generation: PairGeneration) -> Self {
        Self { current: generation, ancestors: self.ancestors.clone() }
    }

    /// How it stands to another.
    pub fn compare(&self, other: &Self) -> Kinship {
        if self.current == other.current {
            Kinship::Same
        } else if self.ancestors.contains(&other.current) {
            Kinship::Ahead
        } else if other.ancestors.contains(&self.current) {
            Kinship::Behind
        } else {
            Kinship::Diverged
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn generation(serial: u64, number: u32) -> PairGeneration {
        PairGeneration { serial, number }
    }

    /// A lineage that two sides share.
    fn common() -> impl Strategy<Value = Lineage> {
        prop::collection::vec(1u64..=2, 0..40).prop_map(|sides| {
            let mut lineage = Lineage::new(generation(1, 0));
            for (number, serial) in (1..).zip(sides) {
                lineage.begin(generation(serial, number));
            }
            lineage
        })
    }

    fn advance(lineage: &mut Lineage, serial: u64, times: u32) {
        for number in 0..times {
            lineage.begin(generation(serial, 100 + number));
        }
    }

    proptest! {
        #[test]
        fn one_that_only_advanced_is_ahead(old in common(), times in 1..=ANCESTORS_MAX as u32) {
            let mut new = old.clone();
            prop_assert_eq!(new.compare(&old), Kinship::Same);
            advance(&mut new, 1, times);
            prop_assert_eq!(new.compare(&old), Kinship::Ahead);
            prop_assert_eq!(old.compare(&new), Kinship::Behind);
        }

        /// However often: what was forgotten never makes two that forked look alike.
        #[test]
        fn two_that_fork_are_diverged(fork in common(), left in 1u32..40, right in 1u32..40) {
            let (mut a, mut b) = (fork.clone(), fork);
            advance(&mut a, 1, left);
            advance(&mut b, 2, right);
            prop_assert_eq!(a.compare(&b), Kinship::Diverged);
            prop_assert_eq!(b.compare(&a), Kinship::Diverged);
        }

        /// One that advanced further than is remembered counts as diverged: a person looks, nothing is overwritten.
        #[test]
        fn one_that_is_forgotten_is_diverged(old in common(), times in ANCESTORS_MAX as u32 + 1..40) {
            let mut new = old.clone();
            advance(&mut new, 1, times);
            prop_assert_eq!(new.compare(&old), Kinship::Diverged);
        }

        #[test]
        fn the_other_side_sees_it_the_other_way(a in common(), b in common()) {
            prop_assert_eq!(a.compare(&b), b.compare(&a).reversed());
        }

        #[test]
        fn who_adopts_is_the_same(fork in common(), left in 0u32..40, right in 0u32..40) {
            let (mut a, mut b) = (fork.clone(), fork);
            advance(&mut a, 1, left);
            advance(&mut b, 2, right);
            b.adopt(&a);
            prop_assert_eq!(b.compare(&a), Kinship::Same);
            // And whoever goes on from there is ahead.
            b.begin(generation(2, 1000));
            prop_assert_eq!(b.compare(&a), Kinship::Ahead);
        }

        /// However often it comes to that: the side that is kept is ahead, of what it had before as well.
        #[test]
        fn who_supersedes_is_ahead(fork in common(), left in 1u32..40, right in 1u32..40) {
            let (mut a, mut b) = (fork.clone(), fork);
            advance(&mut a, 1, left);
            advance(&mut b, 2, right);
            let before = a.clone();
            a.supersede(generation(1, 1000), &b);
            prop_assert_eq!(a.compare(&b), Kinship::Ahead);
            prop_assert_eq!(a.compare(&before), Kinship::Ahead);
            prop_assert!(a.ancestors().len() <= ANCESTORS_MAX);
            // But not of what the other side does later, should it go on.
            b.begin(generation(2, 1000));
            prop_assert_eq!(a.compare(&b), Kinship::Diverged);
        }

        /// However far the other side went on: it has diverged from a side that went back, and so has one that did not.
        #[test]
        fn who_falls_back_has_diverged(fork in common(), left in 0u32..40) {
            let (mut a, mut b) = (fork.clone(), fork);
            advance(&mut a, 1, left);
            b = b.fallen_back(generation(2, 1000));
            prop_assert_eq!(a.compare(&b), Kinship::Diverged);
            prop_assert_eq!(b.compare(&a), Kinship::Diverged);
        }

        #[test]
        fn parts_make_the_whole(lineage in common()) {
            prop_assert!(lineage.ancestors().len() <= ANCESTORS_MAX);
            let again = Lineage::from_parts(lineage.current(), lineage.ancestors().to_vec());
            prop_assert_eq!(again, Some(lineage));
        }
    }

    #[test]
    fn parts_that_cannot_be_are_refused() {
        let (a, b) = (generation(1, 1), generation(2, 2));
        assert_eq!(Lineage::from_parts(a, vec![a]), None);
        assert_eq!(Lineage::from_parts(a, vec![b, b]), None);
        let many = (0..=ANCESTORS_MAX as u32).map(|n| generation(2, n)).collect();
        assert_eq!(Lineage::from_parts(a, many), None);
    }
}
