//! One run: an array or two and two hosts in a turmoil simulation, driven tick by tick by a plan.

mod array;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use tracing_subscriber::layer::SubscriberExt;
use turmoil::Sim;

use crate::cabinet::EPOCH_MS;
use crate::disk::{DiskSpec, Enclosure, Power, Survival};
use crate::hosts::{self, Host, NAMES, Phase, Shared};
use crate::inspect;
use crate::ledger::{Counts, Excuses, Ledger};
use crate::net::Wires;
use crate::note;
use crate::oracle::{Deadlines, Violation};
use crate::plan::{Fault, METADATA_DISK, Plan, Strike};
use crate::site::Site;
use crate::timeline::{Timeline, TimelineLayer};
use array::{Array, RESPAWN_MS};

/// The most simulated time that a run may take.
const RUN_MS_MAX: u64 = 300_000;
/// How often the disks of two arrays are held against each other, ms.
const LOOK_MS: u64 = 17;
/// Connections' segments under way in one direction.
const TCP_SEGMENTS: usize = 1 << 20;

/// What came of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// The plan's scenario.
    pub scenario: String,
    /// The plan's seed.
    pub seed: u64,
    /// How long it took, in simulated time.
    pub simulated_ms: u64,
    /// What the hosts did.
    pub counts: Counts,
    /// How often the array crashed.
    pub crashes: u64,
    /// How often something else went wrong: failed disk operations, broken connections.
    pub faults: u64,
    /// What identifies the run's timeline.
    pub hash: u64,
    /// What was found.
    pub violations: Vec<Violation>,
    /// The timeline, if it was kept.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub timeline: String,
}

impl Outcome {
    /// Whether nothing was found.
    pub fn passed(&self) -> bool {
        self.violations.is_empty()
    }
}

/// Runs a plan. With `keep` the outcome has the timeline.
pub fn run(plan: &Plan, keep: bool) -> Outcome {
    let timeline = Timeline::new(keep);
    let layer = TimelineLayer::new(timeline.clone(), "twintrack", tracing::Level::DEBUG);
    let subscriber = tracing_subscriber::registry().with(layer);
    tracing::subscriber::with_default(subscriber, || World::new(plan, timeline).run())
}

struct World {
    shared: Rc<Shared>,
    arrays: Vec<Array>,
    faults: VecDeque<Strike>,
    /// Those that wait for a command.
    command_cuts: Vec<Strike>,
    /// Since when the faults' times count.
    faults_from_ms: Option<u64>,
    faults_done: u64,
    now_ms: u64,
}

impl World {
    fn new(plan: &Plan, timeline: Timeline) -> Self {
        let world = &plan.world;
        let mut disks = vec![DiskSpec { name: METADATA_DISK.into(), size_bytes: 0, fill: 0 }];
        disks.extend(world.stores.iter().chain(&world.far_stores).map(|store| DiskSpec {
            name: store.name.clone(),
            size_bytes: store.size_bytes,
            fill: 0xa5,
        }));
        let arrays: Vec<_> =
            plan.sites().iter().map(|site| shared_array(plan, *site, &disks, &timeline)).collect();
        let powers =
            Site::ALL.map(|site| arrays.get(site.index()).map_or_else(Power::on, |a| a.enclosure.power()));
        let wires = Wires::new(powers, world.chop_bytes, plan.seed, timeline.clone());
        let excuses = Excuses {
            disks: plan.has_disk_faults(),
            full: world.may_fill || plan.has_disk_faults(),
            connections: !plan.faults.is_empty(),
            when_full: world.when_full,
        };
        let (command_cuts, timed): (Vec<_>, Vec<_>) =
            plan.faults.iter().cloned().partition(|strike| strike.fault.waits_for_command());
        let mut ledger = Ledger::new(u64::from(world.track_bytes), excuses, timeline.clone());
        let handled = plan.pairs.iter().filter(|pair| plan.is_handled(&pair.name));
        ledger.handled = handled.flat_map(|pair| [pair.r1.clone(), pair.r2.clone()]).collect();
        let shared = Shared {
            plan: plan.clone(),
            ledger: RefCell::new(ledger),
            phase: Cell::new(Phase::Setup),
            commands: Cell::new(0),
            titles: RefCell::default(),
            handles: RefCell::default(),
            began_ms: Cell::new(0),
            quiet_ms: Cell::new(0),
            finished: Cell::new(0),
            deadlines: if plan.sites().len() > 1 { Deadlines::of_pairs() } else { Deadlines::default() },
            wires,
            arrays,
            timeline,
        };
        let shared = Rc::new(shared);
        Self {
            faults: timed.into(),
            command_cuts,
            faults_from_ms: world.faults_at_boot.then_some(0),
            arrays: plan.sites().iter().map(|site| Array::new(*site, shared.clone())).collect(),
            shared,
            faults_done: 0,
            now_ms: 0,
        }
    }

    fn run(mut self) -> Outcome {
        let world = &self.shared.plan.world;
        let epoch = SystemTime::UNIX_EPOCH + Duration::from_millis(EPOCH_MS);
        let mut sim = turmoil::Builder::new()
            .rng_seed(self.shared.plan.seed)
            .epoch(epoch)
            .tick_duration(Duration::from_millis(1))
            .min_message_latency(Duration::from_millis(world.net_least_ms))
            .max_message_latency(Duration::from_millis(world.net_most_ms))
            .simulation_duration(Duration::from_millis(RUN_MS_MAX * 2))
            .tcp_capacity(TCP_SEGMENTS)
            .enable_random_order()
            .build();
        for array in &self.arrays {
            array.join(&mut sim);
        }
        for (number, name) in NAMES.iter().enumerate() {
            let host = Host::new(number as u8, self.shared.clone());
            sim.client(*name, async move {
                Box::pin(host.run(number as u8)).await;
                Ok(())
            });
        }
        while self.shared.phase.get() != Phase::Done && self.shared.ledger().violations.is_empty() {
            self.tick(&mut sim);
        }
        // What is torn down now writes nothing any more.
        self.shared.arrays.iter().for_each(|array| array.enclosure.cut());
        self.outcome()
    }

    fn tick(&mut self, sim: &mut Sim<'_>) {
        self.shared.timeline.set_now(self.now_ms);
        self.strike(sim);
        for array in &mut self.arrays {
            array.restart(sim, self.now_ms);
        }
        if let Err(error) = sim.step() {
            let violation = Violation::new("panic", format_args!("{error}"));
            self.shared.ledger().hold::<()>(Err(violation));
            return;
        }
        self.now_ms += 1;
        self.shared.timeline.set_now(self.now_ms);
        for array in &mut self.arrays {
            array.look(sim, self.now_ms);
        }
        if self.now_ms.is_multiple_of(LOOK_MS) && self.shared.phase.get() == Phase::Safety {
            // As if all were to stop now: what differs has to be noted at every instant, and tracks lie where they belong.
            let looked = if self.shared.plan.has_disk_faults() {
                Ok(())
            } else {
                inspect::check_pairs(&self.shared, false).and_then(|()| self.look_at_pools())
            };
            self.shared.ledger().hold(looked);
        }
        self.advance(sim);
        if self.now_ms > RUN_MS_MAX {
            let violation = Violation::new("liveness", format_args!("the run does not come to its end"));
            self.shared.ledger().hold::<()>(Err(violation));
        }
    }

    /// Where tracks lie, in plans with a second pool.
    fn look_at_pools(&self) -> Result<(), Violation> {
        if self.shared.plan.world.far_stores.is_empty() {
            return Ok(());
        }
        for array in &self.shared.arrays {
            if let Some(found) = inspect::committed(array)? {
                inspect::check_pools(&found)?;
            }
        }
        Ok(())
    }

    /// From one phase to the next.
    fn advance(&mut self, sim: &mut Sim<'_>) {
        if self.shared.phase.get() != Phase::Safety {
            return;
        }
        let from = *self.faults_from_ms.get_or_insert(self.now_ms);
        let over = self.now_ms > from + self.shared.plan.world.safety_ms;
        if !over && self.shared.finished.get() < NAMES.len() {
            return;
        }
        note!(self.shared.timeline, "world", "no more faults");
        self.faults.clear();
        self.command_cuts.clear();
        self.shared.wires.end_troubles(self.now_ms, true);
        for array in &mut self.arrays {
            let enclosure = &self.shared.array(array.site).enclosure;
            enclosure.disarm();
            if self.shared.sites().len() > 1 {
                // A pair whose half that serves cannot read a track that it owes has no end until somebody repairs it: F8
                // is to come.
                enclosure.mend();
            }
            // A store whose sync failed is offline until a restart.
            if self.shared.plan.has_disk_faults() && !array.is_down() {
                array.crash(sim, self.now_ms, RESPAWN_MS, Survival::Mixed);
            }
        }
        self.shared.quiet_ms.set(self.now_ms);
        self.shared.phase.set(Phase::Quiet);
    }

    /// The faults that are due.
    fn strike(&mut self, sim: &mut Sim<'_>) {
        self.shared.wires.end_troubles(self.now_ms, false);
        let begun = self.shared.commands.get();
        let titles = self.shared.titles.borrow();
        let due = |strike: &Strike| match &strike.fault {
            Fault::CommandCut { nth, .. } => *nth <= begun,
            Fault::CommitCut { command, .. } => titles.contains(command),
            _ => false,
        };
        let mut struck = Vec::new();
        while let Some(at) = self.command_cuts.iter().position(due) {
            struck.push(self.command_cuts.remove(at));
        }
        drop(titles);
        struck.into_iter().for_each(|strike| self.strike_one(sim, strike));
        let Some(from) = self.faults_from_ms else { return };
        while self.faults.front().is_some_and(|strike| from + strike.fault.at_ms() <= self.now_ms) {
            let Some(strike) = self.faults.pop_front() else { return };
            self.strike_one(sim, strike);
        }
    }

    fn strike_one(&mut self, sim: &mut Sim<'_>, Strike { array: site, fault }: Strike) {
        let shared = self.shared.clone();
        let Some(array) = self.arrays.get_mut(site.index()) else { return };
        let enclosure = &shared.array(site).enclosure;
        note!(shared.array(site).timeline, "world", "{fault:?}");
        match fault {
            Fault::PowerCut { after_ops, down_ms, survival, .. }
            | Fault::CommandCut { after_ops, down_ms, survival, .. } => {
                array.next_cut = (down_ms, survival);
                enclosure.cut_after(after_ops);
            }
            Fault::CommitCut { after_ops, down_ms, survival, .. } => {
                array.next_cut = (down_ms, survival);
                enclosure.cut_at(METADATA_DISK, after_ops);
            }
            Fault::Crash { down_ms, survival, .. } => {
                if !array.is_down() {
                    array.crash(sim, self.now_ms, down_ms, survival);
                }
            }
            Fault::Drop { nth, .. } => self.faults_done += shared.wires.drop_connections(nth) as u64,
            Fault::Slow { disk, writes, take_ms, .. } => {
                enclosure.slow_down(&disk, writes, Duration::from_millis(take_ms));
            }
            Fault::Disk { disk, fault, .. } => {
                enclosure.arm(&disk, fault);
            }
            Fault::Spoil { pick, .. } => {
                let spoiled = inspect::spoil(&shared, site, pick);
                self.faults_done += u64::from(shared.ledger().hold(spoiled).unwrap_or(false));
            }
            Fault::Link { trouble, .. } => {
                self.faults_done += 1;
                trouble.begin(&shared.wires, site, self.now_ms);
            }
        }
    }

    fn outcome(&self) -> Outcome {
        let ledger = self.shared.ledger();
        let plan = &self.shared.plan;
        let hit: u64 = self.shared.arrays.iter().map(|array| array.enclosure.stats().faults_hit).sum();
        Outcome {
            scenario: plan.scenario.clone(),
            seed: plan.seed,
            simulated_ms: self.now_ms,
            counts: ledger.counts,
            crashes: self.arrays.iter().map(|array| array.crashes).sum(),
            faults: self.faults_done + hit,
            hash: self.shared.timeline.hash(),
            violations: ledger.violations.clone(),
            timeline: self.shared.timeline.text(),
        }
    }
}

/// The parts of an array that outlive its crashes.
fn shared_array(plan: &Plan, site: Site, disks: &[DiskSpec], timeline: &Timeline) -> hosts::Array {
    let timeline = timeline.suffixed(site.suffix());
    let world = &plan.world;
    let enclosure = Enclosure::new(disks, world.tears, world.disk, site.seed(plan.seed), timeline.clone());
    let seen = inspect::Seen::default();
    hosts::Array { site, enclosure, crash_wanted: Cell::new(None), down: Cell::new(false), seen, timeline }
}
