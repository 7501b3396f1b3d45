//! What the histories share: a small deterministic generator, what a metadata store would keep, campaigns of seeds,
//! and hunts for planted defects in processes of their own.
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

use twintrack_core::remote::{PairRecord, PeerRecord, SagaOutcome};
use twintrack_core::{
    Change, CopyId, CopyRecord, DeviceId, DeviceRecord, Entry, Generation, GroupId, PairId, PeerId, PoolId,
    PoolRecord, RegionNo, ScheduleId, ScheduleRecord, SessionId, SessionRecord, StoreId, StoreRecord,
    TrackNo,
};

/// Pseudo-random numbers that depend on the seed alone (splitmix64).
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 to `n - 1`.
    pub fn below(&mut self, n: usize) -> usize {
        (self.word() % n as u64) as usize
    }

    pub fn chance(&mut self, percent: u64) -> bool {
        self.word() % 100 < percent
    }

    /// One of them; `None` if there is none.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        if from.is_empty() { None } else { Some(from[self.below(from.len())]) }
    }
}

/// What a metadata store keeps: the latest change of each thing, nothing for what is gone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Durable {
    pub pools: BTreeMap<PoolId, PoolRecord>,
    pub stores: BTreeMap<StoreId, StoreRecord>,
    pub next_id: Option<u32>,
    pub devices: BTreeMap<DeviceId, DeviceRecord>,
    pub sessions: BTreeMap<SessionId, SessionRecord>,
    pub groups: BTreeSet<GroupId>,
    pub entries: BTreeMap<(DeviceId, TrackNo), Entry>,
    pub versions: BTreeMap<(DeviceId, TrackNo, Generation), Entry>,
    pub own: BTreeMap<(SessionId, TrackNo), Entry>,
    pub peers: BTreeMap<PeerId, PeerRecord>,
    pub pairs: BTreeMap<PairId, PairRecord>,
    pub owed: BTreeMap<(PairId, RegionNo), u64>,
    pub lacked: BTreeMap<(PairId, RegionNo), u64>,
    pub dirty: BTreeSet<(PairId, RegionNo)>,
    pub sagas: BTreeMap<u64, SagaOutcome>,
    pub copies: BTreeMap<CopyId, CopyRecord>,
    pub schedules: BTreeMap<ScheduleId, ScheduleRecord>,
    pub to_copy: BTreeMap<(CopyId, RegionNo), u64>,
    pub unequal: BTreeMap<(CopyId, RegionNo), u64>,
}

impl Durable {
    pub fn apply(&mut self, changes: Vec<Change>) {
        fn put<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, value: Option<V>) {
            match value {
                Some(value) => map.insert(key, value),
                None => map.remove(&key),
            };
        }
        for change in changes {
            match change {
                Change::Pool(id, record) => put(&mut self.pools, id, Some(record)),
                Change::Store(id, record) => put(&mut self.stores, id, Some(record)),
                Change::NextId(next) => self.next_id = Some(next),
                Change::Device(id, record) => put(&mut self.devices, id, record),
                Change::Session(id, record) => put(&mut self.sessions, id, record),
                Change::Group(id, true) => drop(self.groups.insert(id)),
                Change::Group(id, false) => drop(self.groups.remove(&id)),
                Change::Entry(id, track, entry) => {
                    put(&mut self.entries, (id, track), Some(entry).filter(|entry| !entry.is_zeros()));
                }
                Change::Version(id, track, upto, entry) => put(&mut self.versions, (id, track, upto), entry),
                Change::Own(id, track, entry) => put(&mut self.own, (id, track), entry),
                Change::Peer(id, record) => put(&mut self.peers, id, record),
                Change::Pair(id, record) => {
                    if record.is_none() {
                        self.owed.retain(|(pair, _), _| *pair != id);
                        self.lacked.retain(|(pair, _), _| *pair != id);
                        self.dirty.retain(|(pair, _)| *pair != id);
                    }
                    put(&mut self.pairs, id, record);
                }
                Change::Owed(id, region, word) => {
                    put(&mut self.owed, (id, region), Some(word).filter(|word| *word != 0));
                }
                Change::Lacked(id, region, word) => {
                    put(&mut self.lacked, (id, region), Some(word).filter(|word| *word != 0));
                }
                Change::Dirty(id, region, true) => drop(self.dirty.insert((id, region))),
                Change::Dirty(id, region, false) => drop(self.dirty.remove(&(id, region))),
                Change::Saga(request, outcome) => put(&mut self.sagas, request, outcome),
                Change::Schedule(id, record) => put(&mut self.schedules, id, record),
                Change::Copy(id, record) => {
                    if record.is_none() {
                        self.to_copy.retain(|(copy, _), _| *copy != id);
                        self.unequal.retain(|(copy, _), _| *copy != id);
                    }
                    put(&mut self.copies, id, record);
                }
                Change::ToCopy(id, region, word) => {
                    put(&mut self.to_copy, (id, region), Some(word).filter(|word| *word != 0));
                }
                Change::Unequal(id, region, word) => {
                    put(&mut self.unequal, (id, region), Some(word).filter(|word| *word != 0));
                }
            }
        }
    }

    /// In the order that `Tables::load` wants.
    pub fn changes(&self) -> Vec<Change> {
        let mut all = Vec::new();
        all.extend(self.pools.iter().map(|(id, record)| Change::Pool(*id, record.clone())));
        all.extend(self.stores.iter().map(|(id, record)| Change::Store(*id, record.clone())));
        all.extend(self.next_id.map(Change::NextId));
        all.extend(self.devices.iter().map(|(id, record)| Change::Device(*id, Some(record.clone()))));
        all.extend(self.sessions.iter().map(|(id, record)| Change::Session(*id, Some(record.clone()))));
        all.extend(self.groups.iter().map(|id| Change::Group(*id, true)));
        all.extend(self.entries.iter().map(|((id, track), entry)| Change::Entry(*id, *track, *entry)));
        let versions = self.versions.iter();
        all.extend(versions.map(|((id, track, upto), e)| Change::Version(*id, *track, *upto, Some(*e))));
        all.extend(self.own.iter().map(|((id, track), entry)| Change::Own(*id, *track, Some(*entry))));
        all.extend(self.peers.iter().map(|(id, record)| Change::Peer(*id, Some(record.clone()))));
        all.extend(self.pairs.iter().map(|(id, record)| Change::Pair(*id, Some(record.clone()))));
        all.extend(self.owed.iter().map(|((id, region), word)| Change::Owed(*id, *region, *word)));
        all.extend(self.lacked.iter().map(|((id, region), word)| Change::Lacked(*id, *region, *word)));
        all.extend(self.dirty.iter().map(|(id, region)| Change::Dirty(*id, *region, true)));
        all.extend(self.sagas.iter().map(|(request, outcome)| Change::Saga(*request, Some(outcome.clone()))));
        all.extend(self.copies.iter().map(|(id, record)| Change::Copy(*id, Some(record.clone()))));
        all.extend(self.schedules.iter().map(|(id, record)| Change::Schedule(*id, Some(record.clone()))));
        all.extend(self.to_copy.iter().map(|((id, region), word)| Change::ToCopy(*id, *region, *word)));
        all.extend(self.unequal.iter().map(|((id, region), word)| Change::Unequal(*id, *region, *word)));
        all
    }

    /// Whether no device, session, group or track is left; a bare array has no pairs either.
    pub fn is_bare(&self) -> bool {
        let rows = [self.devices.len(), self.sessions.len(), self.groups.len(), self.entries.len()];
        rows.iter().sum::<usize>()
            + self.versions.len()
            + self.own.len()
            + self.pairs.len()
            + self.copies.len()
            == 0
    }
}

/// One pool with stores of so many physical tracks each.
pub fn formatted(stores: &[u32]) -> Durable {
    let mut durable = Durable::default();
    let pool = PoolId(0);
    durable.apply(vec![Change::Pool(pool, PoolRecord { name: "pool".into() }), Change::NextId(1)]);
    let mut first = 1;
    for (number, tracks) in stores.iter().enumerate() {
        let record = StoreRecord { name: format!("store{number}"), pool, first, tracks: *tracks };
        // A gap between stores: their numbers need not be adjacent.
        first += tracks + 3;
        durable.apply(vec![Change::Store(StoreId(number as u16), record)]);
    }
    durable
}

/// How many histories to run: `TWINTRACK_CASES`, else `default`.
pub fn cases(default: u64) -> u64 {
    std::env::var("TWINTRACK_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(default)
}

/// The first seed: `TWINTRACK_SEED`, else 0.
pub fn first_seed() -> u64 {
    std::env::var("TWINTRACK_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0)
}

/// What went wrong in a history: at which of its steps, and what.
#[derive(Debug, Clone)]
pub struct Failure {
    pub step: usize,
    pub what: String,
    pub trace: Vec<String>,
}

/// A history: one word of randomness a step.
pub type Run<'a> = &'a dyn Fn(&[u64]) -> Result<(), Failure>;

/// The words of a seed's history.
pub fn words(seed: u64, steps: usize) -> Vec<u64> {
    let mut rng = Rng::new(seed.wrapping_mul(0x1000_0000_01b3));
    (0..steps).map(|_| rng.word()).collect()
}

/// Runs one history. A panic is a failure, too.
pub fn attempt(run: Run<'_>, words: &[u64]) -> Result<(), Failure> {
    catch_unwind(AssertUnwindSafe(|| run(words))).unwrap_or_else(|panic| {
        let what = panic.downcast_ref::<String>().cloned();
        let what = what.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
        let what = format!("panic: {}", what.unwrap_or_default());
        Err(Failure { step: words.len(), what, trace: Vec::new() })
    })
}

/// The first of `seeds` seeds that fails.
pub fn find(run: Run<'_>, seeds: u64, steps: usize) -> Option<(u64, Failure)> {
    let first = first_seed();
    (first..first + seeds).find_map(|seed| attempt(run, &words(seed, steps)).err().map(|f| (seed, f)))
}

/// Runs the histories of many seeds; the first failure is reduced and shown.
pub fn campaign(run: Run<'_>, seeds: u64, steps: usize) {
    if let Some((seed, failure)) = find(run, seeds, steps) {
        let short = reduce(run, words(seed, steps));
        let least = attempt(run, &short).expect_err("a reduced history fails still");
        panic!(
            "seed {seed} fails at step {}: {}\nreduced to {} steps: {}\n  {}",
            failure.step,
            failure.what,
            short.len(),
            least.what,
            least.trace.join("\n  "),
        );
    }
}

/// Leaves out steps as long as the history still fails.
fn reduce(run: Run<'_>, mut words: Vec<u64>) -> Vec<u64> {
    let mut chunk = words.len() / 2;
    while chunk > 0 {
        let mut at = 0;
        while at < words.len() {
            let mut fewer = words.clone();
            fewer.drain(at..(at + chunk).min(words.len()));
            match attempt(run, &fewer) {
                Err(_) => words = fewer,
                Ok(()) => at += chunk,
            }
        }
        chunk /= 2;
    }
    words
}

/// Hunts for planted defects. A defect is planted in a process for good, so each hunt is a process of its own: this
/// test program again, running only its test `hunted`.
#[cfg(debug_assertions)]
pub mod hunt {
    use std::process::Command;

    use twintrack_core::defect::{Defect, plant};

    use super::{Run, find};

    /// Tests that the histories find defects, each within so many seeds.
    #[allow(unused_macros, reason = "each test program uses a part of this")]
    macro_rules! found {
        ($($test:ident $defect:ident $within:literal;)*) => {
            $(#[test] fn $test() {
                $crate::common::hunt::expect_found(twintrack_core::defect::Defect::$defect, $within);
            })*
        };
    }
    #[allow(unused_imports, reason = "each test program uses a part of this")]
    pub(crate) use found;

    const DEFECT: &str = "TWINTRACK_DEFECT";
    const WITHIN: &str = "TWINTRACK_WITHIN";

    /// Expects the histories to find a defect of `core` within so many seeds.
    pub fn expect_found(defect: Defect, within: u64) {
        let program = std::env::current_exe().expect("a test program knows its own path");
        let output = Command::new(program)
            .args(["--exact", "hunted", "--nocapture"])
            .env(DEFECT, defect.name())
            .env(WITHIN, within.to_string())
            .output()
            .expect("a test program can start itself");
        let said = String::from_utf8_lossy(&output.stdout);
        let found = said.lines().find(|line| line.contains("FOUND"));
        assert!(found.is_some(), "{} was not found within {within} histories", defect.name());
        println!("{}: {}", defect.name(), found.unwrap_or_default());
    }

    /// The other end: plants what the environment names and looks for it. Does nothing in an ordinary run.
    pub fn hunted(run: Run<'_>, steps: usize) {
        let Ok(name) = std::env::var(DEFECT) else { return };
        let within = std::env::var(WITHIN).expect("given with the defect").parse().expect("a number");
        plant(Defect::from_name(&name).expect("a defect's name"));
        std::panic::set_hook(Box::new(|_| {}));
        if let Some((seed, failure)) = find(run, within, steps) {
            println!("\nFOUND by seed {seed} at step {}: {}", failure.step, failure.what);
        }
    }
}
