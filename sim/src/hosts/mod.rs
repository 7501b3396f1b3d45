//! The hosts of a world: they do what the plan says, over the host library, and note in the ledger what they did.

mod choosing;
mod closing;
mod diffs;
mod establish;
mod handles;
mod healing;
mod io;
mod joint;
mod local;
mod looks;
mod operator;
mod pairs;
mod reports;
mod reserve;
mod restore;
mod rotation;
mod scheduled;
mod settle;

use std::cell::{Cell, RefCell, RefMut};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use tokio::time::sleep;
use twintrack_host::{ArrayClient, Endpoint, NbdClient, NbdError, NbdOptions};

use crate::dice::Dice;
use crate::disk::{Enclosure, Survival};
use crate::endpoints::{MANAGE_PORT, NBD_PORT, SimDial};
use crate::inspect::Seen;
use crate::ledger::Ledger;
use crate::net::Wires;
use crate::note;
use crate::oracle::{Deadlines, check_answered_in_time};
use crate::plan::{Act, Op, Plan, Task};
use crate::site::Site;
use crate::timeline::Timeline;

pub use handles::Handle;

/// How far a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// The plan's devices are made.
    Setup,
    /// The tasks run, the faults strike.
    Safety,
    /// No fault any more: everything comes to its end and is checked.
    Quiet,
    /// Over.
    Done,
}

/// What the hosts of a world and the world share.
#[derive(Debug)]
pub struct Shared {
    /// What is run.
    pub plan: Plan,
    /// What is known.
    pub ledger: RefCell<Ledger>,
    /// How far it is.
    pub phase: Cell<Phase>,
    /// Management commands of the plan that were begun.
    pub commands: Cell<u64>,
    /// What those on sessions are called.
    pub titles: RefCell<BTreeSet<String>>,
    /// Volumes that hosts use through a handle over both arrays, by their pairs.
    pub handles: RefCell<BTreeMap<String, Rc<Handle>>>,
    /// When the tasks began, ms.
    pub began_ms: Cell<u64>,
    /// When the faults stopped, ms.
    pub quiet_ms: Cell<u64>,
    /// Hosts whose tasks have all ended.
    pub finished: Cell<usize>,
    /// How long things may take.
    pub deadlines: Deadlines,
    /// The network.
    pub wires: Wires,
    /// The arrays.
    pub arrays: Vec<Array>,
    /// What happens.
    pub timeline: Timeline,
}

/// One array as its world sees it.
#[derive(Debug)]
pub struct Array {
    /// Which.
    pub site: Site,
    /// Its disks.
    pub enclosure: Enclosure,
    /// A crash that a host asks for, to see what is left after it.
    pub crash_wanted: Cell<Option<Survival>>,
    /// Whether it is down.
    pub down: Cell<bool>,
    /// What its metadata says.
    pub seen: Seen,
    /// The log of a run, for what happens in it.
    pub timeline: Timeline,
}

impl Shared {
    /// The arrays there are.
    pub fn sites(&self) -> &'static [Site] {
        self.plan.sites()
    }

    /// One of them.
    pub fn array(&self, site: Site) -> &Array {
        &self.arrays[site.index()]
    }

    /// The ledger. Never held while waiting.
    pub fn ledger(&self) -> RefMut<'_, Ledger> {
        let mut ledger = self.ledger.borrow_mut();
        ledger.tell_time();
        ledger
    }

    fn in_phase(&self, phase: Phase) -> bool {
        self.phase.get() == phase
    }
}

/// One host, as it deals with one array.
#[derive(Clone)]
pub struct Host {
    name: &'static str,
    shared: Rc<Shared>,
    site: Site,
    array: ArrayClient<SimDial>,
    dice: Rc<RefCell<Dice>>,
    /// The epochs of the arrays in which the last command was asked.
    asked_in: Rc<[Cell<u32>; 2]>,
}

/// The hosts' names in the simulated network.
pub const NAMES: [&str; 2] = ["host0", "host1"];

impl Host {
    /// One of the two hosts.
    pub fn new(number: u8, shared: Rc<Shared>) -> Self {
        let name = NAMES[usize::from(number)];
        let array = client(&shared.wires, Site::A);
        let dice = Rc::new(RefCell::new(Dice::new(shared.plan.seed, name)));
        Self { name, shared, site: Site::A, array, dice, asked_in: Rc::default() }
    }

    /// The same host, as it deals with another array.
    fn at(&self, site: Site) -> Self {
        Self { site, array: client(&self.shared.wires, site), ..self.clone() }
    }

    /// All that a host does in a run.
    pub async fn run(self, number: u8) {
        if number == 0 {
            self.set_up().await;
            self.shared.began_ms.set(self.shared.timeline.now_ms());
            self.shared.phase.set(Phase::Safety);
        }
        self.wait_for(Phase::Safety).await;
        let tasks: Vec<Task> =
            self.shared.plan.tasks.iter().filter(|task| task.host == number).cloned().collect();
        let running: Vec<_> = tasks
            .into_iter()
            .map(|task| {
                let host = self.clone();
                tokio::task::spawn_local(async move { host.task(task).await })
            })
            .collect();
        for task in running {
            // A panic in a task ends the run by itself.
            let _ = task.await;
        }
        self.shared.finished.set(self.shared.finished.get() + 1);
        if number == 0 {
            self.wait_for(Phase::Quiet).await;
            while self.shared.finished.get() < NAMES.len() {
                sleep(Duration::from_millis(1)).await;
            }
            self.close().await;
            self.shared.phase.set(Phase::Done);
        } else {
            self.wait_for(Phase::Done).await;
        }
    }

    async fn wait_for(&self, phase: Phase) {
        while self.shared.phase.get() < phase {
            sleep(Duration::from_millis(1)).await;
        }
    }

    /// Makes the plan's devices.
    async fn set_up(&self) {
        for device in self.shared.plan.devices.clone() {
            self.shared.ledger().expect_device(device.array, &device.name, device.size_bytes);
            let host = self.at(device.array);
            loop {
                host.create(&device.name, device.size_bytes).await;
                let exists = self.shared.ledger().devices[&device.name].exists.clone();
                if exists.surely(&true) || !self.shared.ledger().violations.is_empty() {
                    break;
                }
                sleep(Duration::from_millis(10)).await;
            }
        }
        if self.shared.sites().len() > 1 {
            self.link_arrays().await;
            for spec in &self.shared.plan.pairs {
                self.at(spec.asked).create_pair(spec).await;
            }
        }
    }

    /// Runs a task to its end, or until the time for tasks is over.
    async fn task(&self, task: Task) {
        let mut nbd = io::Connections::new(self.clone());
        let mut running: Vec<tokio::task::JoinHandle<()>> = Vec::new();
        for op in task.ops {
            let now_ms = self.shared.timeline.now_ms() - self.shared.began_ms.get();
            let pause_ms = op.after_ms.max(op.at_ms.saturating_sub(now_ms));
            if pause_ms > 0 {
                sleep(Duration::from_millis(pause_ms)).await;
            }
            if !self.shared.in_phase(Phase::Safety) {
                break;
            }
            if let Some(pair) = op.act.device().filter(|name| self.shared.plan.is_handled(name)) {
                self.use_handle(pair, &op).await;
                continue;
            }
            if let Act::Read { .. }
            | Act::Write { .. }
            | Act::Flush { .. }
            | Act::Trim { .. }
            | Act::Zero { .. }
            | Act::Status { .. } = op.act
            {
                let Some(io) = nbd.prepare(op).await else { continue };
                running.push(tokio::task::spawn_local(io));
                running.retain(|io| !io.is_finished());
                while running.len() >= usize::from(task.depth) {
                    let _ = running.remove(0).await;
                    running.retain(|io| !io.is_finished());
                }
                continue;
            }
            for io in running.drain(..) {
                let _ = io.await;
            }
            match &op.act {
                Act::Reconnect { device } => nbd.leave(device),
                _ => self.at(self.site_of(&op)).manage(&op).await,
            }
        }
        for io in running {
            let _ = io.await;
        }
    }

    /// Connects to an export; the name is the present one.
    async fn attach(&self, export: &str) -> Result<NbdClient, NbdError> {
        self.attach_for(export, Vec::new()).await
    }

    /// The same, to ask for the block status of these metadata contexts, too.
    async fn attach_for(&self, export: &str, contexts: Vec<String>) -> Result<NbdClient, NbdError> {
        let connect = async {
            let stream = {
                use twintrack_host::Dial as _;
                let endpoint = Endpoint::Tcp(self.site.address().into(), NBD_PORT);
                let dialled = SimDial(self.shared.wires.clone()).dial(&endpoint).await;
                dialled.map_err(|error| NbdError::Connect { kind: error.kind() })?
            };
            let structured = !contexts.is_empty() || self.dice.borrow_mut().chance(800);
            let options = NbdOptions {
                in_flight_max: 16,
                structured,
                block_status: structured,
                contexts,
                handshake_deadline: Duration::from_secs(10),
            };
            NbdClient::connect(stream, export, &options).await
        };
        match tokio::time::timeout(Duration::from_secs(10), connect).await {
            Ok(client) => client,
            Err(_) => Err(NbdError::Connect { kind: std::io::ErrorKind::TimedOut }),
        }
    }

    /// Waits until the array answers. In the quiet phase that has a bound.
    async fn wait_until_up(&self) {
        let since_ms = self.shared.timeline.now_ms();
        loop {
            let asked = tokio::time::timeout(Duration::from_secs(2), self.array.array_show()).await;
            if let Ok(Ok(_)) = asked {
                return;
            }
            let now_ms = self.shared.timeline.now_ms();
            if self.shared.in_phase(Phase::Quiet) {
                let bound_ms = self.shared.deadlines.ready_ms;
                let since_ms = since_ms.max(self.shared.quiet_ms.get());
                let checked = check_answered_in_time("getting ready", since_ms, now_ms, bound_ms);
                if self.shared.ledger().hold(checked).is_none() {
                    return;
                }
            }
            if !self.shared.ledger().violations.is_empty() {
                return;
            }
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// The array that a command goes to.
    fn site_of(&self, op: &Op) -> Site {
        let ledger = self.shared.ledger();
        let known = op.act.session().and_then(|label| ledger.sessions.get(label)).map(|session| session.site);
        known.or_else(|| ledger.site_of(op.act.device()?)).unwrap_or(op.array)
    }

    fn note(&self, what: std::fmt::Arguments<'_>) {
        note!(self.shared.timeline, self.name, "{what}");
    }
}

fn client(wires: &Wires, site: Site) -> ArrayClient<SimDial> {
    ArrayClient::new(SimDial(wires.clone()), Endpoint::Tcp(site.address().into(), MANAGE_PORT))
}
