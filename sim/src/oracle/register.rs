//! **One sector between two crashes is a register**: each operation on it takes effect at one instant between its call
//! and its answer, and a read returns what the last write before it put there. A write that was never answered may
//! take effect at any time after its call, or never; but once it was seen and something else was seen after it, it does
//! not come back.
//!
//! Every write puts a value of its own, so the check is that of Gibbons and Korach (Testing shared memories, 1997): take
//! for each value the write and the reads that returned it. From the first answer to the last call among
//! them (if in that order) the register held that value and nothing else. Two such times do not overlap; and what lies,
//! from its last call to its first answer, inside such a time has no room.

/// A place in the order of all calls and answers. 0 is before the first.
pub type Moment = u64;

/// After the last.
pub const NEVER: Moment = u64::MAX;

/// From a call to its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// When it was called.
    pub call: Moment,
    /// When it was answered; [`NEVER`] if it was not, or with an error.
    pub answer: Moment,
}

/// What put a value into the register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// It was there at the beginning.
    Initial,
    /// The write at that place among the writes of the register.
    Write(usize),
}

/// A write and the reads that returned its value.
#[derive(Debug, Clone, Copy)]
pub struct Cluster {
    /// The number of the write.
    pub write: u64,
    /// Whether it wrote zeros.
    pub zeros: bool,
    /// The write's call.
    pub call: Moment,
    /// The write's answer.
    pub answer: Moment,
    /// The first answer among the write and its reads.
    first_answer: Moment,
    /// The last call among the write and its reads.
    last_call: Moment,
}

/// One register.
#[derive(Debug, Default)]
pub struct Register {
    /// The last call among the reads that returned the initial value.
    initial_last_call: Moment,
    clusters: Vec<Cluster>,
}

impl Register {
    /// The writes, in the order of their calls.
    pub fn writes(&self) -> &[Cluster] {
        &self.clusters
    }

    /// A write was called.
    pub fn begin(&mut self, write: u64, zeros: bool, call: Moment) {
        self.clusters.push(Cluster {
            write,
            zeros,
            call,
            answer: NEVER,
            first_answer: NEVER,
            last_call: call,
        });
    }

    /// A write was answered. `Err`: the value that leaves it no room.
    pub fn end(&mut self, write: u64, answer: Moment) -> Result<(), Source> {
        let Some(at) = self.find(write) else { return Ok(()) };
        self.clusters[at].answer = answer;
        let span = Span { call: self.clusters[at].call, answer };
        self.fits(Source::Write(at), span)?;
        self.add(Source::Write(at), span);
        Ok(())
    }

    /// The place of a write.
    pub fn find(&self, write: u64) -> Option<usize> {
        self.clusters.iter().rposition(|cluster| cluster.write == write)
    }

    /// Whether a read in that span may return that value. `Err`: the value that leaves it no room.
    pub fn fits(&self, source: Source, span: Span) -> Result<(), Source> {
        self.fits_copy(source, span, NEVER)
    }

    /// Whether a copy of the register, which each write reaches before it is answered, and maybe not before it is seen here,
    /// may have shown that value in that span: what was read counts of writes that were answered until `told` only.
    pub fn fits_copy(&self, source: Source, span: Span, told: Moment) -> Result<(), Source> {
        if let Source::Write(at) = source
            && span.answer < self.clusters[at].call
        {
            return Err(source);
        }
        let mine = widened(self.zone_told(source, told), span);
        let others = std::iter::once(Source::Initial).chain((0..self.clusters.len()).map(Source::Write));
        for other in others.filter(|other| *other != source) {
            if conflict(mine, self.zone_told(other, told)) {
                return Err(other);
            }
        }
        Ok(())
    }

    /// Notes that a read in that span returned that value.
    pub fn add(&mut self, source: Source, span: Span) {
        let (first_answer, last_call) = widened(self.zone(source), span);
        match source {
            Source::Initial => self.initial_last_call = last_call,
            Source::Write(at) => {
                self.clusters[at].first_answer = first_answer;
                self.clusters[at].last_call = last_call;
            }
        }
    }

    /// When the value was there at the latest.
    pub fn seen_by(&self, source: Source) -> Moment {
        self.zone(source).0
    }

    /// The first answer and the last call of a value.
    fn zone(&self, source: Source) -> (Moment, Moment) {
        match source {
            Source::Initial => (0, self.initial_last_call),
            Source::Write(at) => (self.clusters[at].first_answer, self.clusters[at].last_call),
        }
    }

    /// The same, without reads of a write that was answered later than `told`, or never.
    fn zone_told(&self, source: Source, told: Moment) -> (Moment, Moment) {
        match source {
            Source::Write(at) if self.clusters[at].answer > told => {
                (self.clusters[at].answer, self.clusters[at].call)
            }
            _ => self.zone(source),
        }
    }
}

fn widened((first_answer, last_call): (Moment, Moment), span: Span) -> (Moment, Moment) {
    (first_answer.min(span.answer), last_call.max(span.call))
}

fn conflict(a: (Moment, Moment), b: (Moment, Moment)) -> bool {
    let held = |(first_answer, last_call): (Moment, Moment)| first_answer < last_call;
    let inside = |(answer, call): (Moment, Moment), (from, to): (Moment, Moment)| from < call && answer < to;
    match (held(a), held(b)) {
        (true, true) => a.0.max(b.0) < a.1.min(b.1),
        (true, false) => inside(b, a),
        (false, true) => inside(a, b),
        (false, false) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(call: Moment, answer: Moment) -> Span {
        Span { call, answer }
    }

    fn read(register: &mut Register, source: Source, call: Moment, answer: Moment) -> bool {
        let fits = register.fits(source, span(call, answer)).is_ok();
        if fits {
            register.add(source, span(call, answer));
        }
        fits
    }

    #[test]
    fn an_answered_write_hides_what_was_before() {
        let mut register = Register::default();
        assert!(read(&mut register, Source::Initial, 1, 2));
        register.begin(1, false, 3);
        assert!(read(&mut register, Source::Initial, 4, 5), "while it runs either may be seen");
        register.end(1, 6).unwrap();
        assert!(!read(&mut register, Source::Initial, 7, 8));
        assert!(read(&mut register, Source::Write(0), 7, 8));
    }

    #[test]
    fn a_seen_write_stays_seen() {
        let mut register = Register::default();
        register.begin(1, false, 1);
        assert!(read(&mut register, Source::Write(0), 2, 3));
        assert!(!read(&mut register, Source::Initial, 4, 5));
    }

    #[test]
    fn an_unknown_write_appears_late_but_does_not_come_and_go() {
        let mut register = Register::default();
        register.begin(1, false, 1);
        register.begin(2, false, 2);
        register.end(2, 3).unwrap();
        assert!(read(&mut register, Source::Write(1), 4, 5));
        assert!(read(&mut register, Source::Write(0), 6, 7), "the unknown write after all");
        assert!(!read(&mut register, Source::Write(1), 8, 9), "and nothing takes it away");
    }

    #[test]
    fn a_write_has_no_room_where_another_value_was_all_the_time() {
        let mut register = Register::default();
        assert!(read(&mut register, Source::Initial, 1, 2));
        register.begin(1, false, 3);
        register.end(1, 4).unwrap();
        assert!(!read(&mut register, Source::Initial, 5, 6));
    }

    #[test]
    fn nothing_is_read_before_it_is_written() {
        let mut register = Register::default();
        register.begin(1, false, 5);
        assert!(!read(&mut register, Source::Write(0), 1, 2));
    }

    #[test]
    fn concurrent_writes_take_either_order_but_one() {
        let mut register = Register::default();
        register.begin(1, false, 1);
        register.begin(2, false, 2);
        register.end(1, 3).unwrap();
        register.end(2, 4).unwrap();
        assert!(read(&mut register, Source::Write(0), 5, 6));
        assert!(!read(&mut register, Source::Write(1), 7, 8));
    }
}
