//! Dirty marks, tracks owed and tracks lacking, of one half: beside plain sets, through restarts at any unit (crash
//! rules 2, 4 and 5).

mod common;
#[path = "common/pairs.rs"]
mod halves;

use std::collections::BTreeMap;

use common::{Durable, Failure, Rng, campaign, cases};
use halves::{TRACK_BYTES, array, commit, load, pair, record};
use twintrack_core::remote::{FlushNo, Halt, PairRecord, Role, TrackSet};
use twintrack_core::{ActivateSession, Look, Moment, PairId, RegionNo, Tables, TrackNo, UnitSeq};

/// Regions that may be marked without end.
#[test]
fn steady_writing_logs_nothing() {
    let (mut t, mut durable, peer) = array();
    let (id, _) = pair(&mut t, record(peer), "db", 10_000);
    let r = RegionNo(3);
    let unit = t.begin_write(id, r).expect("the first write waits for its mark");
    assert!(!t.is_marked(id, r));
    // The second one waits for the same unit.
    assert_eq!(t.begin_write(id, r), Some(unit));
    commit(&mut t, &mut durable);
    assert!(t.is_marked(id, r));
    let before = t.last_unit();
    for _ in 0..1000 {
        assert_eq!(t.begin_write(id, r), None);
        t.end_write(id, r);
        t.begin_flush(id);
    }
    assert_eq!(t.mark_dirty(id, r), None);
    assert_eq!(t.last_unit(), before);
    // Beyond the device there is nothing to mark.
    assert_eq!(t.begin_write(id, RegionNo(157)), None);
    assert_eq!(t.mark_dirty(id, RegionNo(157)), None);
    assert!(t.begin_write(id, RegionNo(156)).is_some());
}

#[test]
fn many_regions_are_marked_by_one_unit() {
    let (mut t, mut durable, peer) = array();
    let (id, _) = pair(&mut t, record(peer), "db", 1000);
    t.mark_dirty(id, RegionNo(5));
    let unit = t.mark_run(id, RegionNo(3), 100).expect("most of them are clean");
    assert_eq!(t.begin_write(id, RegionNo(4)), Some(unit));
    commit(&mut t, &mut durable);
    // The device ends within region 15.
    let marked: Vec<_> = t.regions(id).unwrap().marked().collect();
    assert_eq!(marked, (3..=15).map(RegionNo).collect::<Vec<_>>());
    assert_eq!(t.mark_run(id, RegionNo(3), u32::MAX), None);
}

#[test]
fn a_region_is_cleaned_by_a_flush_begun_after_its_last_write() {
    let (mut t, mut durable, peer) = array();
    let (id, _) = pair(&mut t, record(peer), "db", 1000);
    let [a, b] = [RegionNo(1), RegionNo(2)];
    let flush = |t: &mut Tables| t.begin_flush(id).unwrap();
    t.begin_write(id, a);
    t.begin_write(id, b);
    t.end_write(id, b);
    let first = flush(&mut t);
    assert_eq!(t.cleanable(id, first, 9), [b]);
    // A write that ends after the flush began is not covered by it.
    t.end_write(id, a);
    assert_eq!(t.cleanable(id, first, 9), [b]);
    let second = flush(&mut t);
    assert_eq!(t.cleanable(id, second, 9), [a, b]);
    assert_eq!(t.cleanable(id, second, 1), [a]);
    // A write under way keeps its region, whatever ended before.
    t.begin_write(id, a);
    assert_eq!(t.cleanable(id, second, 9), [b]);
    t.clean(id, &[b]);
    assert_eq!(t.regions(id).unwrap().marked().collect::<Vec<_>>(), [a]);
    // The next write marks it again, although the cleaning is not durable.
    assert!(t.begin_write(id, b).is_some());
    commit(&mut t, &mut durable);
    assert_eq!(durable.dirty.len(), 2);
}

/// After a restart an owner owes what was dirty, and notes it durably when the mark goes.
#[test]
fn what_was_dirty_is_owed() {
    let (mut t, mut durable, peer) = array();
    let (id, _) = pair(&mut t, record(peer), "db", 100);
    t.begin_write(id, RegionNo(1));
    commit(&mut t, &mut durable);
    let mut t = load(&durable);
    // The last region has 36 tracks.
    assert_eq!((t.owed(id).unwrap().count(), t.next_owed(id, TrackNo(0))), (36, Some(TrackNo(64))));
    assert!(durable.owed.is_empty() && t.is_marked(id, RegionNo(1)));
    t.pay(id, TrackNo(70));
    let flush = t.begin_flush(id).unwrap();
    assert_eq!(t.cleanable(id, flush, 9), [RegionNo(1)]);
    t.clean(id, &[RegionNo(1)]);
    commit(&mut t, &mut durable);
    assert_eq!((durable.owed.len(), durable.dirty.len()), (1, 0));
    let t = load(&durable);
    assert_eq!((t.owed(id).unwrap().count(), t.is_owed(id, TrackNo(70))), (35, false));
    t.audit().unwrap();
}

/// A half that does not serve keeps its marks until the owner has been told; if it has to serve itself, it owes them.
#[test]
fn a_standby_keeps_its_marks_to_be_told() {
    let (mut t, mut durable, peer) = array();
    let (id, _) = pair(&mut t, PairRecord { role: Role::Standby, ..record(peer) }, "db", 1000);
    t.begin_write(id, RegionNo(4));
    commit(&mut t, &mut durable);
    let mut t = load(&durable);
    assert!(t.owed(id).unwrap().is_empty());
    let flush = t.begin_flush(id).unwrap();
    assert!(t.cleanable(id, flush, 9).is_empty());
    assert_eq!(t.regions(id).unwrap().marked().collect::<Vec<_>>(), [RegionNo(4)]);
    t.marks_told(id);
    assert_eq!(t.cleanable(id, flush, 9), [RegionNo(4)]);
    let mut t = load(&durable);
    t.set_roles(&[id], Role::Owner, true).unwrap();
    assert_eq!(t.owed(id).unwrap().count(), 64);
    t.audit().unwrap();
}

/// A copy of a whole device, in order: a unit every so many regions, and no words left behind.
#[test]
fn a_copy_in_order_writes_little() {
    let (mut t, mut durable, peer) = array();
    let (id, _) = pair(&mut t, PairRecord { owed_from: TrackNo(0), ..record(peer) }, "db", 64 * 100 + 5);
    let before = t.last_unit();
    while let Some(track) = t.next_owed(id, TrackNo(0)) {
        t.pay(id, track);
    }
    let units = t.last_unit().0 - before.0;
    assert!((5..10).contains(&units), "{units} units");
    t.settle_owed(id);
    assert_eq!(t.settle_owed(id), None);
    commit(&mut t, &mut durable);
    assert!(durable.owed.is_empty());
    assert!(load(&durable).owed(id).unwrap().is_empty());
}

/// What is fetched is noted at once, for a host may write there and flush.
#[test]
fn what_is_fetched_is_noted_at_once() {
    let (mut t, mut durable, peer) = array();
    let (id, _) = pair(&mut t, PairRecord { lacked_from: TrackNo(0), ..record(peer) }, "db", 64 * 100);
    for track in (0..1000).chain([5000, 6399]) {
        assert!(t.fetched(id, TrackNo(track)).is_some());
        assert_eq!(t.fetched(id, TrackNo(track)), None);
        t.audit().unwrap();
    }
    commit(&mut t, &mut durable);
    // Words pile up for no more than the regions that the pointer is ahead.
    assert!(durable.lacked.len() <= 18, "{} words", durable.lacked.len());
    let mut t = load(&durable);
    assert_eq!(t.lacked(id).unwrap().count(), 64 * 100 - 1002);
    while let Some(track) = t.next_lacked(id, TrackNo(0)) {
        t.fetched(id, track);
    }
    commit(&mut t, &mut durable);
    assert!(durable.lacked.is_empty());
    assert_eq!(load(&durable).pair(id).unwrap().lacked_from, TrackNo(64 * 100));
}

/// What the other array has and this one has not may differ from any session (F7); two sessions are told apart as ever.
#[test]
fn what_is_lacking_differs_from_every_session() {
    let (mut t, _, peer) = array();
    let (id, device) = pair(&mut t, record(peer), "db", 70);
    let sessions = [0, 1].map(|n| {
        let (shows, _) = t.create_virtual(&format!("v{n}")).expect("a new name");
        let (session, _) = t.register(device, None).expect("room for a session");
        t.relate(session, shows).expect("it is registered");
        let item = ActivateSession { session, name: None, online: true };
        t.activate(&[item], None, 1).expect("it is related");
        session
    });
    let [a, b] = sessions.map(Moment::Session);
    let looks = |t: &Tables, other, at| t.compare(a, other).expect("one device").next(at, &mut 9);
    assert_eq!(looks(&t, Moment::Now(device), 0), Look::End);
    t.lack_words(id, &[(RegionNo(0), 1 << 5)]);
    let track = 5 * TRACK_BYTES..6 * TRACK_BYTES;
    assert_eq!(looks(&t, Moment::Now(device), 0), Look::Differs(track.clone()));
    assert_eq!(looks(&t, Moment::Now(device), track.end), Look::End);
    assert_eq!(looks(&t, b, 0), Look::End);
}

#[test]
fn words_beyond_the_device_are_ignored() {
    let (mut t, _, peer) = array();
    let (id, _) = pair(&mut t, record(peer), "db", 70);
    assert!(t.owe_words(id, &[(RegionNo(1), !0), (RegionNo(2), !0), (RegionNo(u32::MAX), 1)]).is_some());
    assert_eq!(t.owed(id).unwrap().count(), 6);
    assert_eq!(t.owe_words(id, &[(RegionNo(1), 0b11)]), None);
    assert_eq!(t.owe(id, TrackNo(70)), None);
    t.audit().unwrap();
    t.owe_all(id).unwrap();
    assert_eq!(t.owed(id).unwrap().count(), 70);
    t.audit().unwrap();
}

/// Tracks of one region that become owed in one unit: the unit once had the word of the first alone, if all of them
/// together were as an older unit had left them. The histories of two halves found it.
#[test]
fn tracks_of_one_region_are_owed_together() {
    for by_words in [false, true] {
        let (mut t, mut durable, peer) = array();
        let (id, _) = pair(&mut t, record(peer), "db", 100);
        t.owe_words(id, &[(RegionNo(0), 0b11)]).unwrap();
        // Paid, and not noted yet.
        assert_eq!((t.pay(id, TrackNo(0)), t.pay(id, TrackNo(1))), (None, None));
        if by_words {
            assert_eq!(t.owe_words(id, &[(RegionNo(0), 0b01), (RegionNo(0), 0b10)]), None);
        } else {
            t.halt_group(&[id], Halt::Link, 1, &[(id, TrackNo(0)), (id, TrackNo(1))]).unwrap();
        }
        t.audit().unwrap();
        commit(&mut t, &mut durable);
        assert_eq!(load(&durable).owed(id).unwrap().count(), 2);
    }
}

// Histories.

const TRACKS: u32 = 64 * 40 + 7;
const STEPS: usize = 300;

/// A word a region, as plain as can be.
#[derive(Debug, Clone, PartialEq)]
struct Plain(Vec<u64>);

impl Plain {
    fn none() -> Self {
        Self(vec![0; TRACKS.div_ceil(64) as usize])
    }

    fn all() -> Self {
        let mut all = Self::none();
        (0..TRACKS).for_each(|track| all.insert(TrackNo(track)));
        all
    }

    fn insert(&mut self, track: TrackNo) {
        if track.0 < TRACKS {
            self.0[track.0 as usize / 64] |= 1 << (track.0 % 64);
        }
    }

    fn remove(&mut self, track: TrackNo) {
        self.0[track.0 as usize / 64] &= !(1 << (track.0 % 64));
    }

    fn of(set: Option<&TrackSet>) -> Self {
        let set = set.expect("the pair is there");
        let plain = Self((0..TRACKS.div_ceil(64)).map(|region| set.word(RegionNo(region))).collect());
        assert_eq!(set.count(), plain.0.iter().map(|word| word.count_ones()).sum::<u32>());
        plain
    }

    /// Tracks of the first that are not in the second.
    fn without(&self, other: &Self) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(a, b)| a & !b).collect())
    }

    fn with(&self, other: &Self) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(a, b)| a | b).collect())
    }
}

/// What one unit left behind.
#[derive(Debug, Clone)]
struct Then {
    owed: Plain,
    lacked: Plain,
}

struct World {
    t: Tables,
    durable: Durable,
    id: PairId,
    owed: Plain,
    lacked: Plain,
    /// Since the last restart, by unit.
    then: BTreeMap<UnitSeq, Then>,
    taken: UnitSeq,
    writes: Vec<RegionNo>,
    flush: Option<FlushNo>,
    trace: Vec<String>,
}

impl World {
    fn new(rng: &mut Rng) -> Self {
        let (mut t, mut durable, peer) = array();
        let whole = |all: bool| TrackNo(if all { 0 } else { u32::MAX });
        let (owing, lacking) = (rng.chance(50), rng.chance(50));
        let role = if rng.chance(70) { Role::Owner } else { Role::Standby };
        let half = PairRecord { owed_from: whole(owing), lacked_from: whole(lacking), role, ..record(peer) };
        let (id, _) = pair(&mut t, half, "db", u64::from(TRACKS));
        commit(&mut t, &mut durable);
        let tracks = |all: bool| if all { Plain::all() } else { Plain::none() };
        let mut world = Self {
            taken: t.last_unit(),
            t,
            durable,
            id,
            owed: tracks(owing),
            lacked: tracks(lacking),
            then: BTreeMap::new(),
            writes: Vec::new(),
            flush: None,
            trace: Vec::new(),
        };
        world.note();
        world
    }

    fn note(&mut self) {
        let now = || Then { owed: self.owed.clone(), lacked: self.lacked.clone() };
        self.then.entry(self.t.last_unit()).or_insert_with(now);
    }

    fn step(&mut self, rng: &mut Rng) -> Result<(), String> {
        let id = self.id;
        let near =
            |rng: &mut Rng| if rng.chance(70) { rng.below(200) } else { rng.below(TRACKS as usize) } as u32;
        let track = near(rng);
        let region = RegionNo(near(rng) / 64);
        match rng.below(16) {
            0 | 1 => {
                self.t.owe(id, TrackNo(track));
                self.owed.insert(TrackNo(track));
                self.say(format!("owe {track}"));
            }
            2..=4 => self.copy(rng),
            5 => {
                let word = rng.word() & rng.word() & rng.word();
                let words =
                    [(region, word), (RegionNo(40), 1 << rng.below(64)), (region, rng.word() & word >> 1)];
                self.t.owe_words(id, &words);
                let all = words.iter().flat_map(|(region, word)| region.tracks(*word));
                all.for_each(|track| self.owed.insert(track));
                self.say(format!("owe {words:?}"));
            }
            6 => {
                let word = rng.word() & rng.word() & rng.word();
                self.t.lack_words(id, &[(region, word)]);
                region.tracks(word).for_each(|track| self.lacked.insert(track));
                self.say(format!("lack {region} {word:x}"));
            }
            7 => {
                self.t.fetched(id, TrackNo(track));
                self.lacked.remove(TrackNo(track));
                self.say(format!("fetched {track}"));
            }
            8 | 9 => {
                self.t.begin_write(id, region);
                self.writes.push(region);
                self.say(format!("write to {region}"));
            }
            10 | 11 if !self.writes.is_empty() => {
                let region = self.writes.swap_remove(rng.below(self.writes.len()));
                self.t.end_write(id, region);
            }
            12 => match self.flush.take() {
                None => self.flush = self.t.begin_flush(id),
                Some(flush) => {
                    let regions = self.t.cleanable(id, flush, 1 + rng.below(3));
                    if let Some(busy) = regions.iter().find(|region| self.writes.contains(region)) {
                        return Err(format!("{busy} may be cleaned while it is written to"));
                    }
                    self.t.clean(id, &regions);
                    self.say(format!("clean {regions:?}"));
                }
            },
            13 => {
                self.t.settle_owed(id);
                self.say("settle".into());
            }
            14 => self.commit(rng),
            _ if rng.chance(40) => return self.restart(),
            _ if rng.chance(5) => {
                self.t.owe_all(id);
                self.owed = Plain::all();
            }
            _ => {}
        }
        self.note();
        self.check()
    }

    /// The copy job goes on for a while, from the pointer or from somewhere else.
    fn copy(&mut self, rng: &mut Rng) {
        let from = if rng.chance(80) { 0 } else { rng.below(TRACKS as usize) as u32 };
        let most = [1, 10, 500][rng.below(3)];
        for _ in 0..most {
            let Some(track) = self.t.next_owed(self.id, TrackNo(from)) else { break };
            self.t.pay(self.id, track);
            self.owed.remove(track);
            self.note();
        }
        self.say(format!("pay up to {most} from {from}"));
    }

    fn commit(&mut self, rng: &mut Rng) {
        let left = self.t.last_unit().0 - self.taken.0;
        let more = if rng.chance(50) { left } else { rng.below(left as usize + 1) as u64 };
        self.taken = UnitSeq(self.taken.0 + more);
        self.durable.apply(self.t.take_commit(self.taken));
        self.t.committed(self.taken);
        self.say(format!("commit {}", self.taken));
    }

    fn restart(&mut self) -> Result<(), String> {
        self.t = load(&self.durable);
        self.say(format!("restart at {}", self.taken));
        let then = self.then.range(..=self.taken).next_back().map(|(_, then)| then.clone());
        let then = then.ok_or("nothing was noted")?;
        let (now, lacked) = (Plain::of(self.t.owed(self.id)), Plain::of(self.t.lacked(self.id)));
        let lost = then.owed.without(&now);
        if lost != Plain::none() {
            return Err(format!("{lost:x?} was owed, and is not after a restart"));
        }
        // What was paid since may be owed again, and what was dirty is, at an owner.
        let mut may = self.then.values().fold(Plain::none(), |may, then| may.with(&then.owed));
        if self.t.pair(self.id).is_some_and(|half| half.role == Role::Owner) {
            self.durable.dirty.iter().for_each(|(_, region)| may.0[region.0 as usize] = !0);
        }
        let more = now.without(&may);
        if more != Plain::none() {
            return Err(format!("{more:x?} was never owed, and is after a restart"));
        }
        if lacked != then.lacked {
            return Err(format!("{lacked:x?} are lacking after a restart, not {:x?}", then.lacked));
        }
        (self.owed, self.lacked, self.taken) = (now, lacked, UnitSeq::ZERO);
        (self.then, self.writes, self.flush) = (BTreeMap::new(), Vec::new(), None);
        self.note();
        self.check()
    }

    fn say(&mut self, what: String) {
        self.trace.push(what);
    }

    fn check(&self) -> Result<(), String> {
        self.t.audit().map_err(|error| error.to_string())?;
        for (set, model) in [(self.t.owed(self.id), &self.owed), (self.t.lacked(self.id), &self.lacked)] {
            let set = Plain::of(set);
            if set != *model {
                return Err(format!("{set:x?} are in the set, not {model:x?}"));
            }
        }
        Ok(())
    }
}

fn history(words: &[u64]) -> Result<(), Failure> {
    let mut rng = Rng::new(words.first().copied().unwrap_or(0));
    let mut world = World::new(&mut rng);
    for (step, word) in words.iter().enumerate() {
        let done = world.step(&mut Rng::new(*word));
        done.map_err(|what| Failure { step, what, trace: std::mem::take(&mut world.trace) })?;
    }
    Ok(())
}

/// Whatever is owed stays owed until it is paid, and no longer than that but for what was dirty; what is lacking is
/// exactly what the last durable unit says.
#[test]
fn sets_survive_restarts() {
    campaign(&history, cases(150), STEPS);
}
