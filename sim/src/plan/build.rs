//! Topology and host I/O of a plan.

use super::hot::Temper;
use super::{Act, DeviceSpec, Op, PairSpec, Plan, Scenario, StoreSpec, Strike, Task, WorldSpec};
use twintrack_link::manage::WhenFull;

use crate::dice::Dice;
use crate::disk::{Latency, SECTOR_BYTES};
use crate::site::Site;
use crate::trace::{Trace, TraceKind};

/// The most operations of a trace that one plan replays.
const TRACE_OPS: usize = 1500;
/// The most bytes of one operation.
const IO_BYTES_MAX: u64 = 1 << 20;
const BLOCK: u64 = 4096;

/// A plan in the making.
pub(super) struct Draft {
    pub(super) scenario: Option<Scenario>,
    pub(super) dice: Dice,
    pub(super) track_bytes: u64,
    /// How long the tasks are meant to take, ms.
    pub(super) horizon_ms: u64,
    /// Standard devices: name and size.
    pub(super) standard: Vec<(String, u64)>,
    /// Standard devices of the second array.
    pub(super) second: Vec<(String, u64)>,
    /// Those that lie in the second pool, and how many tracks that has.
    pub(super) far: Vec<String>,
    pub(super) far_tracks: u64,
    /// How many tracks the first pool has, if that does not follow from the devices.
    pub(super) store_tracks: Option<u64>,
    /// Whether that is less than may be written.
    pub(super) is_tight: bool,
    /// Pairs that are there from the beginning.
    pub(super) pairs: Vec<PairSpec>,
    /// Virtual devices.
    pub(super) virtuals: Vec<String>,
    pub(super) tasks: Vec<Task>,
    pub(super) faults: Vec<Strike>,
    pub(super) faults_at_boot: bool,
    pub(super) temper: Temper,
    /// The times at which bursts of I/O begin, ms; in between the array is idle, and does its background work.
    bursts: Vec<u64>,
    name: String,
    seed: u64,
}

/// How often which I/O is asked for.
pub(super) struct Mix {
    weights: Vec<(u32, Kind)>,
    fua_per_mille: u32,
    give_up_per_mille: u32,
    tasks: u64,
    ops: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Read,
    Write,
    Flush,
    Trim,
    Zero,
    Status,
    Reconnect,
}

impl Mix {
    pub(super) fn draw(scenario: Scenario, give_ups: bool, dice: &mut Dice) -> Self {
        let mut some = |weight: u32, off_per_mille: u32| if dice.chance(off_per_mille) { 0 } else { weight };
        let weights = vec![
            (25, Kind::Read),
            (45, Kind::Write),
            (some(9, 200), Kind::Flush),
            (some(6, 300), Kind::Trim),
            (some(5, 300), Kind::Zero),
            (some(3, 300), Kind::Status),
            (some(1, 500), Kind::Reconnect),
        ];
        let (tasks, ops) = match scenario {
            Scenario::Io | Scenario::Restart => (dice.between(2, 6), 130),
            Scenario::Full => (dice.between(2, 5), 130),
            _ => (dice.between(2, 5), 100),
        };
        Self {
            weights,
            fua_per_mille: *dice.pick(&[0, 100, 400]),
            give_up_per_mille: if give_ups { 120 } else { 0 },
            tasks,
            ops,
        }
    }
}

impl Draft {
    pub(super) fn new(scenario: Scenario, seed: u64) -> Self {
        let mut dice = Dice::new(seed, scenario.name());
        let track_bytes: u64 = match scenario {
            Scenario::Limits => *dice.pick(&[16 << 10, 16 << 10, 512 << 10, 1 << 20]),
            _ => {
                dice.weighted(&[(5, 16 << 10), (2, 32 << 10), (4, 64 << 10), (1, 128 << 10), (1, 256 << 10)])
            }
        };
        let temper = match scenario {
            _ if matches!(scenario, Scenario::Io | Scenario::Local) || scenario.is_remote() => {
                dice.weighted(&[(60, Temper::Plain), (40, Temper::Focus)])
            }
            // A course does not fill a pool.
            Scenario::Full => dice.weighted(&[
                (65, Temper::Plain),
                (15, Temper::Focus),
                (15, Temper::Hot),
                (5, Temper::Brief),
            ]),
            _ => dice.weighted(&[
                (20, Temper::Plain),
                (14, Temper::Focus),
                (18, Temper::Hot),
                (8, Temper::Brief),
                (12, Temper::Relay),
                (22, Temper::Rounds),
                (6, Temper::Points),
            ]),
        };
        let horizon_ms = match temper {
            Temper::Plain => dice.between(300, 2400),
            Temper::Relay | Temper::Rounds | Temper::Points => 1500,
            _ => dice.between(150, 700),
        };
        let mut bursts = Vec::new();
        if !temper.is_course() && dice.chance(300) {
            let (count, apart_ms) = (dice.between(2, 5), dice.between(505, 600));
            bursts = (0..count).map(|n| n * apart_ms).collect();
        }
        Self {
            temper,
            bursts,
            scenario: Some(scenario),
            dice,
            track_bytes,
            horizon_ms,
            standard: Vec::new(),
            second: Vec::new(),
            far: Vec::new(),
            far_tracks: 0,
            store_tracks: None,
            is_tight: scenario == Scenario::Full,
            pairs: Vec::new(),
            virtuals: Vec::new(),
            tasks: Vec::new(),
            faults: Vec::new(),
            faults_at_boot: scenario == Scenario::Restart,
            name: scenario.name().into(),
            seed,
        }
    }

    pub(super) fn for_trace(name: &str, trace: &Trace, seed: u64) -> Self {
        let mut dice = Dice::new(seed, name);
        let track_bytes = *dice.pick(&[32 << 10, 64 << 10, 64 << 10, 128 << 10]);
        let size = trace.size_bytes.max(SECTOR_BYTES);
        Self {
            temper: Temper::Plain,
            bursts: Vec::new(),
            scenario: None,
            dice,
            track_bytes,
            horizon_ms: 3000,
            standard: vec![("d0".into(), size)],
            second: Vec::new(),
            far: Vec::new(),
            far_tracks: 0,
            store_tracks: None,
            is_tight: false,
            pairs: Vec::new(),
            virtuals: Vec::new(),
            tasks: Vec::new(),
            faults: Vec::new(),
            faults_at_boot: false,
            name: name.into(),
            seed,
        }
    }

    pub(super) fn add_devices(&mut self) {
        let (dice, track) = (&mut self.dice, self.track_bytes);
        let count = match self.scenario {
            Some(Scenario::Groups) => dice.between(2, 4),
            Some(Scenario::Limits) => dice.between(1, 2),
            _ => dice.between(1, 3),
        };
        let most_tracks = if self.temper == Temper::Focus { 3 } else { ((2 << 20) / track).clamp(3, 24) };
        let least_tracks = if self.temper.is_course() { most_tracks.min(8) } else { 1 };
        for n in 0..count {
            let tracks = dice.between(least_tracks, most_tracks);
            let cut_off = match dice.below(4) {
                0 => dice.below(track / SECTOR_BYTES) * SECTOR_BYTES,
                1 => dice.below(track / BLOCK) * BLOCK,
                _ => 0,
            };
            let size = match self.scenario {
                Some(Scenario::Limits) if dice.chance(150) => SECTOR_BYTES * dice.between(1, 9),
                _ => (tracks * track - cut_off).max(SECTOR_BYTES),
            };
            self.standard.push((format!("d{n}"), size));
        }
    }

    pub(super) fn add_virtual_devices(&mut self) {
        let count = match self.scenario {
            Some(Scenario::Limits) => 24,
            _ => self.dice.between(2, 6),
        };
        self.virtuals = (0..count).map(|n| format!("v{n}")).collect();
    }

    /// Tasks that do I/O on all devices.
    pub(super) fn add_io_tasks(&mut self, mix: &Mix) {
        // Others would disturb the chain.
        let tasks = if self.temper.is_course() { 0 } else { mix.tasks };
        for n in 0..tasks {
            let ops = self.dice.between(mix.ops / 2, mix.ops * 3 / 2);
            let depth = *self.dice.pick(&[1, 2, 4, 8]);
            // Some tasks stay on one device, so that much happens on it at a time.
            let only = self.dice.chance(400).then(|| self.any_device());
            let pause = self.horizon_ms * u64::from(depth) / ops.max(1);
            let mut list: Vec<Op> = (0..ops).map(|_| self.io(mix, only.as_ref(), pause)).collect();
            let in_burst = list.len().div_ceil(self.bursts.len().max(1));
            for (burst, at_ms) in list.chunks_mut(in_burst).zip(&self.bursts) {
                burst.iter_mut().for_each(|op| op.after_ms /= 8);
                burst[0].at_ms = at_ms + self.dice.below(30);
            }
            self.tasks.push(Task { host: (n % 2) as u8, depth, ops: list });
        }
    }

    pub(super) fn io(&mut self, mix: &Mix, only: Option<&(String, u64)>, pause_ms: u64) -> Op {
        let (device, size) = only.cloned().unwrap_or_else(|| self.any_device());
        let kind = self.dice.weighted(&mix.weights);
        let mut range = self.range(size);
        if matches!(kind, Kind::Trim | Kind::Zero) && self.dice.chance(600) {
            // Whole tracks: what else a trim leaves as it is.
            let (track, first) = (self.track_bytes, range.0 / self.track_bytes * self.track_bytes);
            range = (first, track.min(size - first) as u32);
        }
        let (offset, length) = range;
        let fua = self.dice.chance(mix.fua_per_mille);
        let act = match kind {
            Kind::Read => Act::Read { device, offset, length },
            Kind::Write => Act::Write { device, offset, length, fua },
            Kind::Flush => Act::Flush { device },
            Kind::Trim => Act::Trim { device, offset, length, fua },
            Kind::Zero => Act::Zero { device, offset, length, no_hole: self.dice.chance(300), fua },
            Kind::Status => Act::Status { device, offset, length },
            Kind::Reconnect => Act::Reconnect { device },
        };
        let after_ms = if self.dice.chance(600) { 0 } else { self.dice.below(pause_ms * 5) };
        let give_up_ms = if self.dice.chance(mix.give_up_per_mille) { self.dice.between(1, 12) } else { 0 };
        Op { after_ms, give_up_ms, ..Op::now(act) }
    }

    /// A device and its size; a virtual device has that of some standard device.
    fn any_device(&mut self) -> (String, u64) {
        let standard = self.dice.pick(&self.standard).clone();
        if !self.virtuals.is_empty() && self.dice.chance(if self.temper == Temper::Focus { 500 } else { 350 })
        {
            return (self.dice.pick(&self.virtuals).clone(), standard.1);
        }
        standard
    }

    /// A part of a device: of sectors, blocks or tracks, often where others are, often across a boundary.
    fn range(&mut self, size: u64) -> (u64, u32) {
        let (dice, track) = (&mut self.dice, self.track_bytes);
        let region = match dice.below(10) {
            0..5 if self.temper == Temper::Focus => size.min(track),
            0..5 if self.temper == Temper::Brief => size,
            0..5 => size.min(track * 2),
            _ => size,
        };
        let within = |dice: &mut Dice, unit: u64| dice.below(region.div_ceil(unit)) * unit;
        let (offset, length) = match dice.below(10) {
            0..3 => (within(dice, SECTOR_BYTES), dice.between(1, 12) * SECTOR_BYTES),
            3..6 => (within(dice, BLOCK), dice.between(1, 4) * BLOCK),
            6..8 => (within(dice, track), if dice.chance(700) { track } else { track * 2 }),
            8 => {
                let edge = dice.between(1, region.div_ceil(track)) * track;
                let before = dice.between(1, 16) * SECTOR_BYTES;
                (edge.saturating_sub(before), before + dice.between(1, 16) * SECTOR_BYTES)
            }
            _ => (within(dice, BLOCK), dice.between(1, 32) * BLOCK),
        };
        let offset = offset.min(size - SECTOR_BYTES);
        (offset, length.min(size - offset).min(IO_BYTES_MAX) as u32)
    }

    /// A task that replays a piece of a trace, as fast as it can.
    pub(super) fn add_trace(&mut self, trace: &Trace) {
        let count = trace.ops.len().min(TRACE_OPS);
        let first = self.dice.below((trace.ops.len() - count) as u64 + 1) as usize;
        let device = || "d0".to_string();
        let mut ops = Vec::new();
        for op in &trace.ops[first..first + count] {
            let mut at = op.offset;
            loop {
                let length = (op.offset + op.length - at).min(IO_BYTES_MAX) as u32;
                let act = match op.kind {
                    TraceKind::Read => Act::Read { device: device(), offset: at, length },
                    TraceKind::Write => Act::Write { device: device(), offset: at, length, fua: false },
                    TraceKind::Trim => Act::Trim { device: device(), offset: at, length, fua: false },
                    TraceKind::Flush => Act::Flush { device: device() },
                };
                ops.push(Op::now(act));
                at += u64::from(length);
                if at >= op.offset + op.length {
                    break;
                }
            }
        }
        let depth = *self.dice.pick(&[1, 8, 16]);
        self.tasks.push(Task { host: 0, depth, ops });
    }

    pub(super) fn finish(mut self) -> Plan {
        let stores = self.stores();
        let far_stores = match self.far_tracks {
            0 => Vec::new(),
            tracks => {
                vec![StoreSpec { name: "far0".into(), size_bytes: store_bytes(self.track_bytes, tracks, 0) }]
            }
        };
        let dice = &mut self.dice;
        let (most_ms, slow_per_mille, slow_most_ms) = match self.temper {
            Temper::Relay => (1, 20, 600),
            Temper::Rounds => (1, 600, 40),
            _ => *dice.pick(&[(0, 0, 0), (2, 5, 30), (2, 50, 60), (6, 20, 100), (1, 30, 400)]),
        };
        let disk = Latency { least_ms: 0, most_ms, slow_per_mille, slow_most_ms };
        let world = WorldSpec {
            track_bytes: self.track_bytes as u32,
            arrays: 1 + u8::from(self.scenario.is_some_and(Scenario::is_remote)),
            stores,
            far_stores,
            may_fill: self.is_tight,
            when_full: WhenFull::default(),
            disk,
            tears: dice.chance(600),
            net_least_ms: 0,
            net_most_ms: *dice.pick(&[1, 1, 2, 8]),
            chop_bytes: *dice.pick(&[0, 0, 0, 1, 300, 5000]),
            faults_at_boot: self.faults_at_boot,
            safety_ms: self.horizon_ms * 4 + 1000,
        };
        let standard = self.standard.into_iter().map(|(name, size)| (name, Some(size)));
        let virtuals = self.virtuals.into_iter().map(|name| (name, None));
        let first = standard.chain(virtuals).map(|(name, size_bytes)| (Site::A, name, size_bytes));
        let second = self.second.into_iter().map(|(name, size)| (Site::B, name, Some(size)));
        let devices = first
            .chain(second)
            .map(|(array, name, size_bytes)| {
                let far = self.far.contains(&name);
                DeviceSpec { name, array, size_bytes, far }
            })
            .collect();
        self.faults.sort_by_key(|strike| strike.fault.at_ms());
        Plan {
            scenario: self.name,
            seed: self.seed,
            world,
            devices,
            pairs: self.pairs,
            tasks: self.tasks,
            faults: self.faults,
        }
    }

    /// Stores with room for what the plan may write, or not quite.
    fn stores(&mut self) -> Vec<StoreSpec> {
        let track = self.track_bytes;
        let tracks: u64 = self.standard.iter().map(|(_, size)| size.div_ceil(track)).sum();
        let dice = &mut self.dice;
        let (tracks, count) = match self.scenario {
            _ if self.store_tracks.is_some() => (self.store_tracks.unwrap_or(0), 1),
            Some(_) if self.is_tight => (tracks * dice.between(5, 14) / 10 + 3, dice.between(1, 2)),
            None => (tracks + 64, dice.between(1, 2)),
            // Room is used again soon.
            Some(_) if self.temper == Temper::Relay => (tracks * 3 + 6, 1),
            Some(Scenario::Sessions | Scenario::Io | Scenario::Groups | Scenario::Deactivate)
                if self.temper != Temper::Plain =>
            {
                (tracks * 8 + 12, 1)
            }
            Some(Scenario::Limits) => (tracks * 30 + 64, dice.between(1, 3)),
            _ => (tracks * 8 + 64, dice.between(1, 3)),
        };
        (0..count)
            .map(|n| {
                let mine = tracks / count + 1;
                let odd = dice.below(8) * SECTOR_BYTES;
                let size_bytes = store_bytes(track, mine, odd);
                StoreSpec { name: format!("store{n}"), size_bytes }
            })
            .collect()
    }
}

/// Bytes of a store of so many tracks, with their headers.
fn store_bytes(track: u64, tracks: u64, odd: u64) -> u64 {
    let blocks = track / BLOCK;
    let header = (48 + blocks / 8 + 4 * blocks).next_power_of_two();
    let area = 4096 + (tracks * header).next_multiple_of(4096);
    area.next_multiple_of(track) + tracks * track + odd
}
