//! One run: an array and two hosts in a turmoil simulation, driven tick by tick by a plan.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use tracing_subscriber::layer::SubscriberExt;
use turmoil::Sim;
use twintrack_controller::shell::{Config, Endpoint, PoolConfig, PoolPolicy};

use crate::cabinet::{EPOCH_MS, SimCabinet, SimEnv};
use crate::disk::{DiskSpec, Enclosure, Survival};
use crate::endpoints::{ARRAY, MANAGE_PORT, NBD_PORT, SimNet};
use crate::hosts::{Host, NAMES, Phase, Shared};
use crate::inspect;
use crate::ledger::{Counts, Excuses, Ledger};
use crate::net::Wires;
use crate::note;
use crate::oracle::{Deadlines, Ending, Violation};
use crate::plan::{Fault, METADATA_DISK, Plan};
use crate::timeline::{Timeline, TimelineLayer};

/// The most simulated time that a run may take.
const RUN_MS_MAX: u64 = 300_000;
/// Connections' segments under way in one direction.
const TCP_SEGMENTS: usize = 1 << 20;
/// How long the array stays down when it has ended by itself, ms.
const RESPAWN_MS: u64 = 20;

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
    faults: VecDeque<Fault>,
    /// Those that wait for a command.
    command_cuts: Vec<Fault>,
    /// Since when the faults' times count.
    faults_from_ms: Option<u64>,
    /// How the next power cut goes: down for so long, and what the caches become.
    next_cut: (u64, Survival),
    restart_at_ms: Option<u64>,
    /// How often an array that was up opened its metadata again.
    reloads: u64,
    crashes: u64,
    faults_done: u64,
    now_ms: u64,
}

impl World {
    fn new(plan: &Plan, timeline: Timeline) -> Self {
        let world = &plan.world;
        let mut disks = vec![DiskSpec { name: METADATA_DISK.into(), size_bytes: 0, fill: 0 }];
        disks.extend(world.stores.iter().map(|store| DiskSpec {
            name: store.name.clone(),
            size_bytes: store.size_bytes,
            fill: 0xa5,
        }));
        let enclosure = Enclosure::new(&disks, world.tears, world.disk, plan.seed, timeline.clone());
        let wires = Wires::new(enclosure.power(), world.chop_bytes, plan.seed, timeline.clone());
        let excuses = Excuses {
            disks: plan.has_disk_faults(),
            full: plan.scenario == "full" || plan.has_disk_faults(),
            connections: !plan.faults.is_empty(),
            when_full: world.when_full,
        };
        let (command_cuts, timed): (Vec<_>, Vec<_>) =
            plan.faults.iter().cloned().partition(Fault::waits_for_command);
        let ledger = Ledger::new(u64::from(world.track_bytes), excuses, timeline.clone());
        let shared = Shared {
            plan: plan.clone(),
            ledger: RefCell::new(ledger),
            phase: Cell::new(Phase::Setup),
            crash_wanted: Cell::new(None),
            commands: Cell::new(0),
            titles: RefCell::default(),
            began_ms: Cell::new(0),
            quiet_ms: Cell::new(0),
            finished: Cell::new(0),
            deadlines: Deadlines::default(),
            wires,
            enclosure,
            timeline,
        };
        Self {
            faults: timed.into(),
            command_cuts,
            faults_from_ms: world.faults_at_boot.then_some(0),
            shared: Rc::new(shared),
            next_cut: (10, Survival::Mixed),
            restart_at_ms: None,
            reloads: 0,
            crashes: 0,
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
        self.add_array(&mut sim);
        for (number, name) in NAMES.iter().enumerate() {
            let host = Host::new(number as u8, self.shared.clone());
            sim.client(*name, async move {
                host.run(number as u8).await;
                Ok(())
            });
        }
        while self.shared.phase.get() != Phase::Done && self.shared.ledger().violations.is_empty() {
            self.tick(&mut sim);
        }
        // What is torn down now writes nothing any more.
        self.shared.enclosure.cut();
        self.outcome()
    }

    fn add_array<'a>(&self, sim: &mut Sim<'a>) {
        let shared = self.shared.clone();
        let (plan, wires) = (&self.shared.plan, self.shared.wires.clone());
        let config = Config {
            nbd: vec![Endpoint::Tcp(ARRAY.into(), NBD_PORT)],
            control: vec![Endpoint::Tcp(ARRAY.into(), MANAGE_PORT)],
            control_token: None,
            link: Vec::new(),
            pools: vec![PoolConfig {
                name: "pool".into(),
                stores: plan.world.stores.iter().map(|store| store.name.clone()).collect(),
                policy: PoolPolicy { when_full: plan.world.when_full, ..PoolPolicy::default() },
            }],
            track_bytes: plan.world.track_bytes,
        };
        let env = SimEnv::new(plan.seed);
        sim.host(ARRAY, move || {
            let (shared, config) = (shared.clone(), config.clone());
            let (net, env) = (SimNet(wires.clone()), env.clone());
            async move {
                let cabinet = SimCabinet(shared.enclosure.clone());
                let served =
                    twintrack_controller::serve(net, cabinet, env, config, std::future::pending()).await;
                // It ended by itself, as it does if a disk fails while it starts: it is started again.
                note!(
                    shared.timeline,
                    "array",
                    "ended: {}",
                    served.map_or_else(|e| e.to_string(), |()| "done".into())
                );
                if shared.crash_wanted.get().is_none() && shared.enclosure.power().is_on() {
                    shared.crash_wanted.set(Some(Survival::Everything));
                }
                std::future::pending().await
            }
        });
    }

    fn tick(&mut self, sim: &mut Sim<'_>) {
        self.shared.timeline.set_now(self.now_ms);
        self.strike(sim);
        if self.restart_at_ms.is_some_and(|at| at <= self.now_ms) {
            self.restart_at_ms = None;
            note!(self.shared.timeline, "world", "the array starts");
            self.shared.enclosure.switch_on();
            sim.bounce(ARRAY);
            if self.shared.phase.get() == Phase::Quiet {
                self.shared.crash_wanted.set(None);
            }
        }
        if let Err(error) = sim.step() {
            let violation = Violation::new("panic", format_args!("{error}"));
            self.shared.ledger().hold::<()>(Err(violation));
            return;
        }
        self.now_ms += 1;
        self.shared.timeline.set_now(self.now_ms);
        let reloads = self.shared.enclosure.reopens(METADATA_DISK);
        if reloads > self.reloads {
            // A commit failed, and the array loads its tables anew: what was not committed is lost.
            self.reloads = reloads;
            self.shared.ledger().crashed(Ending::Reloaded);
            self.shared.wires.begin_epoch();
        }
        if self.restart_at_ms.is_none() {
            if !self.shared.enclosure.power().is_on() {
                self.crash(sim, self.next_cut.0, self.next_cut.1);
            } else if let Some(survival) = self.shared.crash_wanted.get() {
                if self.shared.phase.get() != Phase::Quiet {
                    self.shared.crash_wanted.set(None);
                }
                self.crash(sim, RESPAWN_MS, survival);
            }
        }
        self.advance(sim);
        if self.now_ms > RUN_MS_MAX {
            let violation = Violation::new("liveness", format_args!("the run does not come to its end"));
            self.shared.ledger().hold::<()>(Err(violation));
        }
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
        self.shared.enclosure.disarm();
        // A store whose sync failed is offline until a restart.
        if self.shared.plan.has_disk_faults() && self.restart_at_ms.is_none() {
            self.crash(sim, RESPAWN_MS, Survival::Mixed);
        }
        self.shared.quiet_ms.set(self.now_ms);
        self.shared.phase.set(Phase::Quiet);
    }

    /// The faults that are due.
    fn strike(&mut self, sim: &mut Sim<'_>) {
        let begun = self.shared.commands.get();
        let titles = self.shared.titles.borrow();
        let due = |fault: &Fault| match fault {
            Fault::CommandCut { nth, .. } => *nth <= begun,
            Fault::CommitCut { command, .. } => titles.contains(command),
            _ => false,
        };
        while let Some(at) = self.command_cuts.iter().position(due) {
            let fault = self.command_cuts.remove(at);
            note!(self.shared.timeline, "world", "{fault:?}");
            match fault {
                Fault::CommandCut { after_ops, down_ms, survival, .. } => {
                    self.next_cut = (down_ms, survival);
                    self.shared.enclosure.cut_after(after_ops);
                }
                Fault::CommitCut { after_ops, down_ms, survival, .. } => {
                    self.next_cut = (down_ms, survival);
                    self.shared.enclosure.cut_at(METADATA_DISK, after_ops);
                }
                _ => {}
            }
        }
        drop(titles);
        let Some(from) = self.faults_from_ms else { return };
        while self.faults.front().is_some_and(|fault| from + fault.at_ms() <= self.now_ms) {
            let Some(fault) = self.faults.pop_front() else { return };
            note!(self.shared.timeline, "world", "{fault:?}");
            match fault {
                Fault::PowerCut { after_ops, down_ms, survival, .. } => {
                    self.next_cut = (down_ms, survival);
                    self.shared.enclosure.cut_after(after_ops);
                }
                Fault::Crash { down_ms, survival, .. } => {
                    if self.restart_at_ms.is_none() {
                        self.crash(sim, down_ms, survival);
                    }
                }
                // They are not among the timed ones.
                Fault::CommandCut { .. } | Fault::CommitCut { .. } => {}
                Fault::Drop { nth, .. } => {
                    self.faults_done += self.shared.wires.drop_connections(nth) as u64;
                }
                Fault::Slow { disk, writes, take_ms, .. } => {
                    self.shared.enclosure.slow_down(&disk, writes, Duration::from_millis(take_ms));
                }
                Fault::Disk { disk, fault, .. } => {
                    self.shared.enclosure.arm(&disk, fault);
                }
            }
        }
    }

    fn crash(&mut self, sim: &mut Sim<'_>, down_ms: u64, survival: Survival) {
        note!(self.shared.timeline, "world", "the array is down for {down_ms} ms");
        self.crashes += 1;
        self.shared.enclosure.cut();
        self.shared.wires.silence();
        let kept = survival == Survival::Everything;
        self.shared.ledger().crashed(if kept { Ending::Killed } else { Ending::PowerCut });
        self.shared.wires.begin_epoch();
        self.shared.enclosure.lose(survival);
        sim.crash(ARRAY);
        self.inspect();
        self.restart_at_ms = Some(self.now_ms + down_ms.max(1));
    }

    /// Looks at the disks of an array that is down.
    fn inspect(&self) {
        let shared = &self.shared;
        let sound = !shared.plan.has_disk_faults();
        let checked = inspect::committed(&shared.enclosure).and_then(|found| {
            let Some((tables, serial)) = found else { return Ok(()) };
            if shared.phase.get() == Phase::Quiet {
                inspect::show(&shared.timeline, &tables);
            }
            let tears = shared.plan.world.tears;
            if sound && !tears { inspect::check_births(&shared.enclosure, &tables, serial) } else { Ok(()) }
        });
        // What a failing disk did to its metadata is not the array's doing.
        if sound {
            shared.ledger().hold(checked);
        }
    }

    fn outcome(&self) -> Outcome {
        let ledger = self.shared.ledger();
        let plan = &self.shared.plan;
        Outcome {
            scenario: plan.scenario.clone(),
            seed: plan.seed,
            simulated_ms: self.now_ms,
            counts: ledger.counts,
            crashes: self.crashes,
            faults: self.faults_done + self.shared.enclosure.stats().faults_hit,
            hash: self.shared.timeline.hash(),
            violations: ledger.violations.clone(),
            timeline: self.shared.timeline.text(),
        }
    }
}
