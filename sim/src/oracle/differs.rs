//! **What differs between two sessions of a device, or between one and the device as it is, is told, all of it; and no track
//! that nobody wrote in between** (F7).
//!
//! From each of both the way goes back over the instants at which it began, and what that was of, to the volume that both are
//! of. What was written on either way, and on that volume between both instants, may differ. Each write of data puts bytes of
//! its own: what it wrote surely differs, unless zeros can have come after it.

use std::collections::BTreeSet;
use std::ops::Range;

use super::Violation;
use super::changed::survives;
use super::history::{Content, History, Origin, VolumeId, WriteRecord};
use super::register::Span;
use crate::disk::SECTOR_BYTES;

/// One of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compared {
    /// What it shows.
    pub volume: VolumeId,
    /// Whether it is a session, and not the device as it is.
    pub is_session: bool,
    /// The least and the most bytes that it can have.
    pub size_bytes: (u64, u64),
}

/// What an array told of them.
#[derive(Debug)]
pub struct Told {
    /// The bytes that differ.
    pub ranges: Vec<Range<u64>>,
    /// Bytes from here on were not asked about.
    pub end: u64,
    /// From the first question to the last answer.
    pub asked: Span,
}

/// What differs between two volumes at about one time.
pub(super) struct Between {
    /// The bytes of which each of both has something of its own.
    pub(super) surely: Vec<Range<u64>>,
    /// The tracks that somebody may have written on the way from one to the other.
    pub(super) may: BTreeSet<u64>,
}

impl Between {
    /// `None`: of an instant on the way it is not known when it was.
    pub(super) fn of(
        history: &History,
        track_bytes: u64,
        volumes: [VolumeId; 2],
        asked: Span,
    ) -> Option<Self> {
        let ways = volumes.map(|volume| way_back(history, volume, asked));
        let met = meet(&ways);
        if is_vague(&ways, met) {
            return None;
        }
        let may = match met {
            Some(met) => may_differ(history, track_bytes, &ways, met),
            None => {
                let writes = ways.iter().flatten().flat_map(|step| history.writes_of(step.volume));
                writes.flat_map(|write| write.tracks(track_bytes)).collect()
            }
        };
        Some(Self { surely: surely_differ(history, &ways, met), may })
    }
}

/// A volume on a way back, and the instant at which the next one began, or at which it was looked at.
struct Step {
    volume: VolumeId,
    left: Span,
    is_vague: bool,
}

impl Told {
    /// Holds it against what hosts wrote.
    pub fn check(
        &self,
        history: &History,
        track_bytes: u64,
        compared: [Compared; 2],
    ) -> Result<(), Violation> {
        let between = compared.map(|one| history.label(one.volume));
        let wrong = |what: std::fmt::Arguments<'_>| {
            let [a, b] = between;
            let now = compared.iter().find(|one| !one.is_session).map_or("", |_| " as it is");
            Violation::new("differs", format_args!("between {a} and {b}{now} {what}"))
        };
        let most = compared.map(|one| one.size_bytes.1);
        let is_ordered = self.ranges.is_sorted_by(|a, b| a.end <= b.start);
        let fits = |range: &Range<u64>| range.start < range.end && range.end <= most[0].max(most[1]);
        if !is_ordered || !self.ranges.iter().all(fits) {
            return Err(wrong(format_args!("this is told to differ: {:?}", self.ranges)));
        }
        let ways = compared.map(|one| way_back(history, one.volume, self.asked));
        let met = meet(&ways);
        if is_vague(&ways, met) {
            return Ok(());
        }
        let grown = [(0, 1), (1, 0)].map(|(a, b)| compared[a].size_bytes.1..compared[b].size_bytes.0);
        for range in surely_differ(history, &ways, met).into_iter().chain(grown) {
            if let Some(at) = self.first_untold(range) {
                return Err(wrong(format_args!("byte {at} differs, and is not told of: {:?}", self.ranges)));
            }
        }
        // What is copied may come to lie elsewhere.
        let copied = |(one, at): (&Compared, usize)| at != usize::from(one.is_session);
        let Some(met) = met.filter(|met| !compared.iter().zip(*met).any(copied)) else { return Ok(()) };
        let may = may_differ(history, track_bytes, &ways, met);
        let least = compared.map(|one| one.size_bytes.0);
        let same_until =
            if least == most && least[0] == least[1] { u64::MAX } else { least[0].min(least[1]) };
        let tracks = self.ranges.iter().flat_map(|range| tracks(range, track_bytes));
        let untouched = |track: &u64| !may.contains(track) && (track + 1) * track_bytes <= same_until;
        match tracks.into_iter().find(untouched) {
            Some(track) => {
                Err(wrong(format_args!("nobody wrote track {track}, and it is told of: {:?}", self.ranges)))
            }
            None => Ok(()),
        }
    }

    /// Holds it against what both show from a byte on, while nobody writes.
    pub fn check_shown(&self, offset: u64, a: &[u8], b: &[u8]) -> Result<(), Violation> {
        let sectors = [a, b].map(|bytes| bytes.chunks(SECTOR_BYTES as usize));
        let [a, b] = sectors;
        let differing = a.zip(b).zip((offset..).step_by(SECTOR_BYTES as usize)).filter(|((a, b), _)| a != b);
        for (_, at) in differing {
            if let Some(at) = self.first_untold(at..at + SECTOR_BYTES) {
                let what = format_args!("byte {at} is another, and is not told of: {:?}", self.ranges);
                return Err(Violation::new("differs", what));
            }
        }
        Ok(())
    }

    /// The first byte of a range that was asked about, and not told of.
    fn first_untold(&self, range: Range<u64>) -> Option<u64> {
        let told = |at: u64, told: &Range<u64>| if told.contains(&at) { told.end } else { at };
        let at = self.ranges.iter().fold(range.start, told);
        (at < range.end.min(self.end)).then_some(at)
    }
}

fn way_back(history: &History, volume: VolumeId, asked: Span) -> Vec<Step> {
    let mut way = vec![Step { volume, left: asked, is_vague: false }];
    let mut at = volume;
    loop {
        let (of, cut, is_one) = match history.origin(at) {
            Origin::Snapshot(of, cut) => (of, cut, true),
            // In the part it goes another way.
            Origin::Patched { rest, cut, .. } => (rest, cut, false),
            Origin::Blank | Origin::Heir(..) => return way,
        };
        let left = history.cuts[cut.0 as usize].span;
        way.push(Step { volume: of, left, is_vague: !is_one || history.is_vague(cut) });
        at = of;
    }
}

/// How many steps each way has until the first volume that is on both.
fn meet([a, b]: &[Vec<Step>; 2]) -> Option<[usize; 2]> {
    let on_both = |step: &Step| b.iter().position(|other| other.volume == step.volume);
    a.iter().enumerate().find_map(|(at, step)| Some([at, on_both(step)?]))
}

/// Whether of an instant on the ways until they meet it is not known when it was.
fn is_vague(ways: &[Vec<Step>; 2], met: Option<[usize; 2]>) -> bool {
    let of_all = ways.each_ref().map(Vec::len);
    let begun = met.map_or(of_all, |at| at.map(|at| at + 1));
    ways.iter().zip(begun).any(|(way, begun)| way[..begun].iter().any(|step| step.is_vague))
}

/// The bytes of which each of both has something of its own.
fn surely_differ(history: &History, ways: &[Vec<Step>; 2], met: Option<[usize; 2]>) -> Vec<Range<u64>> {
    let mut ranges = Vec::new();
    for side in [0, 1] {
        let way = &ways[side];
        for (at, step) in way.iter().enumerate() {
            let since = match met {
                Some(met) if at > met[side] => break,
                Some(met) if at == met[side] => ways[1 - side][met[1 - side]].left.answer,
                _ => 0,
            };
            let is_there = |write: &&WriteRecord| {
                let Span { call, answer } = write.span;
                write.content == Content::Data
                    && call > since
                    && answer < step.left.call
                    && survives(history, step.volume, write.epoch, write.span, write.fua, step.left.answer)
                    && !may_be_emptied(history, &way[..=at], write)
            };
            let writes = history.writes_of(step.volume).filter(is_there);
            ranges.extend(writes.map(|write| write.offset..write.offset + write.length));
        }
    }
    ranges
}

/// Whether zeros may have come after a write.
fn may_be_emptied(history: &History, way: &[Step], write: &WriteRecord) -> bool {
    let empties = |other: &WriteRecord| {
        let overlaps =
            other.offset < write.offset + write.length && write.offset < other.offset + other.length;
        other.content == Content::Zeros && overlaps && other.span.answer > write.span.call
    };
    way.iter().any(|step| history.writes_of(step.volume).any(empties))
}

/// The tracks that somebody may have written between two instants of a volume, or in the sessions that then began.
fn may_differ(history: &History, track_bytes: u64, ways: &[Vec<Step>; 2], met: [usize; 2]) -> BTreeSet<u64> {
    let [a, b] = [0, 1].map(|side| &ways[side][met[side]]);
    let between = |write: &&WriteRecord| {
        write.span.answer > a.left.call.min(b.left.call) && write.span.call < a.left.answer.max(b.left.answer)
    };
    let of_sessions = ways.iter().zip(met).flat_map(|(way, at)| &way[..at]);
    let own = of_sessions.flat_map(|step| history.writes_of(step.volume));
    let writes = history.writes_of(a.volume).filter(between).chain(own);
    writes.flat_map(|write| write.tracks(track_bytes)).collect()
}

fn tracks(range: &Range<u64>, track_bytes: u64) -> Range<u64> {
    range.start / track_bytes..range.end.div_ceil(track_bytes)
}

#[cfg(test)]
mod tests {
    use super::super::Ending;
    use super::*;
    use crate::site::Site;

    const T: u64 = 16 << 10;

    struct Rig {
        history: History,
        device: VolumeId,
    }

    impl Rig {
        fn new() -> Self {
            let mut history = History::default();
            let device = history.add_volume(Site::A, "d", Origin::Blank);
            Self { history, device }
        }

        fn write(&mut self, volume: VolumeId, track: u64, content: Content) {
            let write = self.history.begin_write(volume, track * T, 4096, content, false);
            self.history.end_write(write).unwrap();
        }

        fn session(&mut self, of: VolumeId) -> VolumeId {
            let cut = self.history.begin_cut(Site::A);
            self.history.end_cut(cut);
            self.history.add_volume(Site::A, "s", Origin::Snapshot(of, cut))
        }

        fn check(&mut self, sides: [(VolumeId, bool); 2], tracks: &[u64]) -> bool {
            let sizes = [(8 * T, 8 * T); 2];
            self.check_sizes(sides, sizes, tracks.iter().map(|track| track * T..track * T + 4096))
        }

        fn check_sizes(
            &mut self,
            sides: [(VolumeId, bool); 2],
            sizes: [(u64, u64); 2],
            ranges: impl IntoIterator<Item = Range<u64>>,
        ) -> bool {
            let ranges = ranges.into_iter().collect();
            let asked = Span { call: self.history.tick(), answer: self.history.tick() };
            let compared =
                [0, 1].map(|n| Compared { volume: sides[n].0, is_session: sides[n].1, size_bytes: sizes[n] });
            Told { ranges, end: u64::MAX, asked }.check(&self.history, T, compared).is_ok()
        }
    }

    #[test]
    fn what_was_written_between_two_sessions_and_in_them() {
        let mut rig = Rig::new();
        let d = rig.device;
        rig.write(d, 0, Content::Data);
        let a = rig.session(d);
        rig.write(d, 1, Content::Data);
        let b = rig.session(d);
        rig.write(d, 2, Content::Data);
        rig.write(a, 3, Content::Data);
        rig.write(b, 4, Content::Data);
        let (both, with_now) = ([(a, true), (b, true)], [(a, true), (d, false)]);
        assert!(rig.check(both, &[1, 3, 4]));
        assert!([&[1, 3][..], &[1, 4], &[3, 4]].iter().all(|less| !rig.check(both, less)));
        assert!([0, 2, 5].iter().all(|more| {
            let mut tracks = vec![1, 3, 4, *more];
            tracks.sort_unstable();
            !rig.check(both, &tracks)
        }));
        assert!(!rig.check(both, &[3, 1, 4]), "not in order");
        assert!(rig.check(with_now, &[1, 2, 3]));
        assert!(!rig.check(with_now, &[1, 3]) && !rig.check(with_now, &[1, 2, 3, 4]));
    }

    #[test]
    fn what_may_be_there_may_be_told_of() {
        let mut rig = Rig::new();
        let d = rig.device;
        let a = rig.session(d);
        rig.write(d, 1, Content::Data);
        rig.write(d, 1, Content::Zeros);
        rig.history.begin_write(d, 2 * T, 512, Content::Data, false);
        rig.write(d, 3, Content::Data);
        rig.history.crash(Site::A, Ending::PowerCut);
        let with_now = [(d, false), (a, true)];
        assert!(rig.check(with_now, &[]) && rig.check(with_now, &[1, 2, 3]) && !rig.check(with_now, &[4]));
    }

    #[test]
    fn what_has_grown_differs() {
        let mut rig = Rig::new();
        let d = rig.device;
        let a = rig.session(d);
        let (sides, sizes) = ([(a, true), (d, false)], [(2 * T, 2 * T), (3 * T, 3 * T)]);
        assert!(rig.check_sizes(sides, sizes, Some(2 * T..3 * T)));
        assert!(!rig.check_sizes(sides, sizes, None));
        assert!(!rig.check_sizes(sides, sizes, Some(2 * T..3 * T - 512)));
        assert!(!rig.check_sizes(sides, sizes, Some(0..3 * T)));
        assert!(!rig.check_sizes(sides, sizes, Some(2 * T..4 * T)));
        let open = [(2 * T, 2 * T), (2 * T, 3 * T)];
        assert!(rig.check_sizes(sides, open, None) && rig.check_sizes(sides, open, Some(2 * T..3 * T)));
    }

    /// The device was restored to the first session: what was written before that is gone from it, and may be told of.
    #[test]
    fn over_a_restore() {
        let mut rig = Rig::new();
        let d = rig.device;
        let a = rig.session(d);
        rig.write(d, 1, Content::Data);
        let b = rig.session(d);
        let again = rig.session(a);
        rig.write(again, 2, Content::Data);
        rig.write(a, 3, Content::Data);
        assert!(
            !rig.check([(a, true), (again, false)], &[2]) && !rig.check([(a, true), (again, false)], &[3])
        );
        assert!(rig.check([(a, true), (again, false)], &[2, 3]));
        assert!(rig.check([(a, true), (again, false)], &[1, 2, 3, 5]), "a copy was made");
        assert!(rig.check([(b, true), (again, false)], &[1, 2]));
        assert!(
            !rig.check([(b, true), (again, false)], &[2]) && !rig.check([(b, true), (again, false)], &[1])
        );
    }

    #[test]
    fn bytes_that_both_show() {
        let told = Told {
            ranges: Vec::from_iter(Some(512..1024)),
            end: u64::MAX,
            asked: Span { call: 1, answer: 2 },
        };
        let (a, mut b) = ([0; 2048], [0; 2048]);
        b[600] = 1;
        assert!(told.check_shown(0, &a, &b).is_ok() && told.check_shown(512, &a, &b).is_err());
        b[1024] = 1;
        assert!(told.check_shown(0, &a, &b).is_err());
    }
}
