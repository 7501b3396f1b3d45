//! A plan: all that a run does, as data. One seed makes one plan, one plan makes one run; a plan prints as text, is
//! read back from it, and replays.

mod build;
mod courses;
mod diffs;
mod faults;
mod hot;
mod local;
mod local_courses;
mod operators;
mod pairs;
mod parts;
mod remote;
mod remote_courses;
mod remote_faults;
mod remote_landing;
mod remote_returns;
mod remote_snapshots;
mod remote_thaws;
mod reserves;
mod scenario;
mod text;

use serde::{Deserialize, Serialize};

use twintrack_link::manage::WhenFull;

use crate::disk::{DiskFault, Latency, Survival};
use crate::net::{Trouble, Wires};
use crate::site::Site;

pub use local::{LocalAct, RestoreItem, Turns};
pub use pairs::{PairAct, PairSpec};
pub use scenario::{Scenario, generate, generate_from_trace};
pub use text::PlanError;

/// The name of the disk that holds an array's metadata.
pub const METADATA_DISK: &str = "metadata";

/// The name of the second pool.
pub const FAR_POOL: &str = "far";

/// A run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Which scenario it was made for.
    pub scenario: String,
    /// What it was made from; the run draws its own chances (latencies, torn sectors) from it, too.
    pub seed: u64,
    /// Where it takes place.
    pub world: WorldSpec,
    /// What there is when the tasks begin.
    pub devices: Vec<DeviceSpec>,
    /// The pairs that there are then.
    pub pairs: Vec<PairSpec>,
    /// What the hosts do.
    pub tasks: Vec<Task>,
    /// What goes wrong.
    pub faults: Vec<Strike>,
}

/// Where a run takes place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorldSpec {
    /// Bytes of a track.
    pub track_bytes: u32,
    /// How many arrays there are: 1, or 2 that are linked.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub arrays: u8,
    /// The stores of each array's first pool.
    pub stores: Vec<StoreSpec>,
    /// Those of its second pool; none: there is one pool.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub far_stores: Vec<StoreSpec>,
    /// Whether a pool may run full: room for less than hosts may write.
    #[serde(default, skip_serializing_if = "is_false")]
    pub may_fill: bool,
    /// What the pool does when it runs full.
    #[serde(default, skip_serializing_if = "is_default")]
    pub when_full: WhenFull,
    /// How long disk operations take.
    pub disk: Latency,
    /// Whether a sector may be half written when the power goes.
    pub tears: bool,
    /// The least time a message takes, ms.
    pub net_least_ms: u64,
    /// The most time a message takes, ms.
    pub net_most_ms: u64,
    /// The most bytes that one in three sends and receives takes; 0: no limit.
    #[serde(default)]
    pub chop_bytes: u32,
    /// Whether the faults' times count from power on, so that they strike while the array formats and boots; otherwise
    /// from when all devices are there.
    #[serde(default)]
    pub faults_at_boot: bool,
    /// How long the tasks may take, ms; what they have not done by then they leave.
    pub safety_ms: u64,
}

/// A store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreSpec {
    /// Its name.
    pub name: String,
    /// Bytes of it.
    pub size_bytes: u64,
}

/// A device that is there from the beginning.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceSpec {
    /// Its name, by which the whole plan calls it, whatever it is renamed to.
    pub name: String,
    /// Its array.
    #[serde(default, skip_serializing_if = "Site::is_first")]
    pub array: Site,
    /// Bytes of a standard device; `None`: a virtual device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<u64>,
    /// Whether it lies in the second pool.
    #[serde(default, skip_serializing_if = "is_false")]
    pub far: bool,
}

/// Operations of one host, begun in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// Which host: 0 or 1.
    pub host: u8,
    /// How many of the operations may run at a time. Management operations and waits run alone.
    pub depth: u8,
    /// The operations.
    pub ops: Vec<Op>,
}

/// One operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Op {
    /// Which array it goes to, if that does not follow from its device or session.
    #[serde(default, skip_serializing_if = "Site::is_first")]
    pub array: Site,
    /// How long to wait before it, ms.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub after_ms: u64,
    /// When to begin it at the earliest, ms after the tasks began.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub at_ms: u64,
    /// When the host gives it up, ms after its beginning; 0: never.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub give_up_ms: u64,
    /// What it is.
    #[serde(flatten)]
    pub act: Act,
}

/// What a host does. Devices and sessions go by the names that the plan gives them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "snake_case")]
#[allow(missing_docs)] // offset and length in bytes, as in NBD and the management commands
pub enum Act {
    /// Reads.
    Read { device: String, offset: u64, length: u32 },
    /// Writes bytes that name the write.
    Write {
        device: String,
        offset: u64,
        length: u32,
        #[serde(default, skip_serializing_if = "is_false")]
        fua: bool,
    },
    /// Flushes.
    Flush { device: String },
    /// Trims.
    Trim {
        device: String,
        offset: u64,
        length: u32,
        #[serde(default, skip_serializing_if = "is_false")]
        fua: bool,
    },
    /// Writes zeros.
    Zero {
        device: String,
        offset: u64,
        length: u32,
        #[serde(default, skip_serializing_if = "is_false")]
        no_hole: bool,
        #[serde(default, skip_serializing_if = "is_false")]
        fua: bool,
    },
    /// Asks which parts are allocated.
    Status { device: String, offset: u64, length: u32 },
    /// Leaves the connection to a device and makes a new one.
    Reconnect { device: String },
    /// Creates a standard device.
    Create { device: String, size_bytes: u64 },
    /// Deletes a device.
    Delete { device: String },
    /// Renames a device; the plan goes on calling it as before.
    Rename { device: String, to: String },
    /// Grows a device.
    Grow { device: String, size_bytes: u64 },
    /// Takes a device on or off line.
    Online { device: String, online: bool },
    /// Registers a session.
    Register {
        session: String,
        device: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        group: Option<String>,
    },
    /// Relates a session to a virtual device.
    Relate { session: String, device: String },
    /// Activates sessions at one instant.
    Activate {
        sessions: Vec<String>,
        #[serde(default, skip_serializing_if = "is_false")]
        offline: bool,
    },
    /// Register, relate and activate in one call of the host library: session, standard device, virtual device.
    Establish { pairs: Vec<(String, String, String)> },
    /// The same for one virtual device that shows parts of standard devices, one after the other (D19).
    EstablishParts { shown_by: String, parts: Vec<PartSpec> },
    /// Begins a group.
    GroupBegin { group: String },
    /// Processes a group.
    GroupProcess {
        group: String,
        #[serde(default, skip_serializing_if = "is_false")]
        one_by_one: bool,
    },
    /// Deactivates a session.
    Deactivate { session: String },
    /// Removes a session.
    Remove { session: String },
    /// Reads the change report of a session, and checks it.
    Changed { session: String },
    /// Reads the change report of a deactivated session and all its tracks, and some that it does not have.
    ReadTracks { session: String },
    /// Asks what differs between a session and another one, or its standard device as it is, and checks it (F7).
    Diff {
        session: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        other: Option<String>,
        by: DiffBy,
    },
    /// Lists everything, and compares it with what should be.
    List {},
    /// Of a pair.
    Pair(PairAct),
    /// Of a copy within the array.
    Local(LocalAct),
}

/// How a host asks what differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DiffBy {
    /// By a command.
    Command,
    /// By the block status of the context `x-twintrack:diff/A/B`.
    Context,
    /// By that of `qemu:dirty-bitmap:NAME`.
    Bitmap,
}

/// Some tracks of a standard device, from a first to a last one, and the session of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct PartSpec {
    pub session: String,
    pub device: String,
    pub first: u32,
    pub last: u32,
}

impl Op {
    /// At once, and to the end.
    pub fn now(act: Act) -> Self {
        Self { array: Site::A, after_ms: 0, at_ms: 0, give_up_ms: 0, act }
    }
}

/// A fault, and which array it strikes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Strike {
    /// Which; where it is about no array, the first.
    #[serde(default, skip_serializing_if = "Site::is_first")]
    pub array: Site,
    /// What.
    #[serde(flatten)]
    pub fault: Fault,
}

impl From<Fault> for Strike {
    /// Of the first array.
    fn from(fault: Fault) -> Self {
        Self { array: Site::A, fault }
    }
}

/// What goes wrong, and when: `at_ms` counts as [`WorldSpec::faults_at_boot`] says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "snake_case")]
#[allow(missing_docs)]
pub enum Fault {
    /// The power goes `after_ops` disk operations later; on again `down_ms` after that.
    PowerCut { at_ms: u64, after_ops: u64, down_ms: u64, survival: Survival },
    /// The array stops at once, with its power, or ([`Survival::Everything`]) as a program that is killed.
    Crash { at_ms: u64, down_ms: u64, survival: Survival },
    /// The power goes `after_ops` disk operations after the hosts' `nth` management command was begun (from 1); on again
    /// `down_ms` after that.
    CommandCut { nth: u64, after_ops: u64, down_ms: u64, survival: Survival },
    /// The power goes `after_ops` operations of the metadata's disk after a command on sessions ([`Act::title`]) was
    /// begun: before, in, between or after its commits; on again `down_ms` after that.
    CommitCut { command: String, after_ops: u64, down_ms: u64, survival: Survival },
    /// Connections break: the `nth` of those there are, or all.
    Drop {
        at_ms: u64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        nth: Option<u64>,
    },
    /// The next so many writes of a disk take so long: nothing is wrong with that.
    Slow { at_ms: u64, disk: String, writes: u64, take_ms: u64 },
    /// A disk does something wrong.
    Disk { at_ms: u64, disk: String, fault: DiskFault },
    /// A sector of a pair's half that stands by becomes another, and no disk notices; the other half has it as it was. Which:
    /// a random number. Not in plans where that half takes over: who reads there would see it.
    Spoil { at_ms: u64, pick: u64 },
    /// The link between two arrays does something wrong with what one of them sends.
    Link { at_ms: u64, trouble: LinkTrouble },
}

/// What goes wrong with what an array sends to the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "snake_case")]
#[allow(missing_docs)]
pub enum LinkTrouble {
    /// Nothing gets through, and what is under way is lost; nor, for that time, what the other sends.
    Partition { for_ms: u64 },
    /// The same, and what the other sends still arrives.
    OneWay { for_ms: u64 },
    /// It waits, and arrives after that time.
    Hold { for_ms: u64 },
    /// For that time it takes so much longer.
    Delay { for_ms: u64, by_ms: u64 },
    /// What is sent on the connections that there are waits for that time; on new ones it does not.
    Stall { for_ms: u64 },
    /// The connection breaks once so many more bytes were sent.
    Reset { after_bytes: u64 },
}

impl LinkTrouble {
    /// Has it begin in a network, now.
    pub fn begin(self, wires: &Wires, from: Site, now_ms: u64) {
        match self {
            Self::Partition { for_ms } => {
                let cut = Trouble::Cut { until_ms: now_ms + for_ms };
                wires.trouble(from, cut);
                wires.trouble(from.other(), cut);
            }
            Self::OneWay { for_ms } => wires.trouble(from, Trouble::Cut { until_ms: now_ms + for_ms }),
            Self::Hold { for_ms } => wires.trouble(from, Trouble::Held { until_ms: now_ms + for_ms }),
            Self::Delay { for_ms, by_ms } => {
                wires.trouble(from, Trouble::Slow { until_ms: now_ms + for_ms, by_ms });
            }
            Self::Stall { for_ms } => wires.stall(from, now_ms + for_ms),
            Self::Reset { after_bytes } => wires.trouble(from, Trouble::Reset { after_bytes }),
        }
    }
}

impl Act {
    /// The device that it is about, if it is about one that exists.
    pub fn device(&self) -> Option<&str> {
        match self {
            Self::Read { device, .. }
            | Self::Write { device, .. }
            | Self::Flush { device }
            | Self::Trim { device, .. }
            | Self::Zero { device, .. }
            | Self::Status { device, .. }
            | Self::Reconnect { device }
            | Self::Delete { device }
            | Self::Rename { device, .. }
            | Self::Grow { device, .. }
            | Self::Online { device, .. }
            | Self::Register { device, .. } => Some(device),
            Self::Establish { pairs } => pairs.first().map(|(_, standard, _)| standard.as_str()),
            Self::EstablishParts { parts, .. } => parts.first().map(|part| part.device.as_str()),
            _ => None,
        }
    }

    /// The session that it is about.
    pub fn session(&self) -> Option<&str> {
        match self {
            Self::Relate { session, .. }
            | Self::Deactivate { session }
            | Self::Remove { session }
            | Self::Changed { session }
            | Self::ReadTracks { session }
            | Self::Diff { session, .. } => Some(session),
            Self::Activate { sessions, .. } => sessions.first().map(String::as_str),
            _ => None,
        }
    }

    /// What a command that changes the state of sessions is called where a fault waits for it.
    pub fn title(&self) -> Option<String> {
        match self {
            Self::Activate { sessions, .. } => Some(format!("activate {}", sessions.first()?)),
            Self::Establish { pairs } => Some(format!("establish {}", pairs.first()?.0)),
            Self::EstablishParts { parts, .. } => Some(format!("establish {}", parts.first()?.session)),
            Self::GroupProcess { group, .. } => Some(format!("process {group}")),
            Self::Deactivate { session } => Some(format!("deactivate {session}")),
            Self::Remove { session } => Some(format!("remove {session}")),
            Self::Pair(act) => act.title(),
            Self::Local(act) => act.title(),
            _ => None,
        }
    }
}

impl Fault {
    /// Whether it strikes with a management command, not at a time.
    pub fn waits_for_command(&self) -> bool {
        matches!(self, Self::CommandCut { .. } | Self::CommitCut { .. })
    }

    /// When; one that waits for a command: 0.
    pub fn at_ms(&self) -> u64 {
        match self {
            Self::CommandCut { .. } | Self::CommitCut { .. } => 0,
            Self::PowerCut { at_ms, .. }
            | Self::Crash { at_ms, .. }
            | Self::Drop { at_ms, .. }
            | Self::Slow { at_ms, .. }
            | Self::Disk { at_ms, .. }
            | Self::Spoil { at_ms, .. }
            | Self::Link { at_ms, .. } => *at_ms,
        }
    }
}

impl Plan {
    /// How many operations the hosts are to do.
    pub fn operations(&self) -> usize {
        self.tasks.iter().map(|task| task.ops.len()).sum()
    }

    /// Whether disks do wrong in it, so that hosts may get I/O errors.
    pub fn has_disk_faults(&self) -> bool {
        self.faults.iter().any(|fault| matches!(fault.fault, Fault::Disk { .. }))
    }

    /// Whether anything is copied within an array.
    pub fn has_copies(&self) -> bool {
        self.tasks.iter().flat_map(|task| &task.ops).any(|op| matches!(op.act, Act::Local(_)))
    }

    /// Whether anybody asks what differs between sessions.
    pub fn has_diffs(&self) -> bool {
        self.tasks.iter().flat_map(|task| &task.ops).any(|op| matches!(op.act, Act::Diff { .. }))
    }

    /// The pool of a device, if it is not the first one.
    pub fn pool_of(&self, device: &str) -> Option<&'static str> {
        self.devices.iter().any(|spec| spec.name == device && spec.far).then_some(FAR_POOL)
    }

    /// Whether hosts use a pair through a handle over both arrays.
    pub fn is_handled(&self, pair: &str) -> bool {
        let on = |op: &Op| op.act.device() == Some(pair);
        self.pairs.iter().any(|spec| spec.name == pair)
            && self.tasks.iter().any(|task| task.ops.iter().any(on))
    }

    /// The arrays of its world.
    pub fn sites(&self) -> &'static [Site] {
        &Site::ALL[..usize::from(self.world.arrays.clamp(1, 2))]
    }

    /// Bytes of all stores.
    pub fn store_bytes(&self) -> u64 {
        let stores = self.world.stores.iter().chain(&self.world.far_stores);
        stores.map(|store| store.size_bytes).sum()
    }
}

fn one() -> u8 {
    1
}

fn is_one(value: &u8) -> bool {
    *value == 1
}

fn is_zero(value: &u64) -> bool {
    *value == 0
}

fn is_default(value: &WhenFull) -> bool {
    *value == WhenFull::default()
}

fn is_none<T>(value: &Option<T>) -> bool {
    value.is_none()
}

fn is_false(value: &bool) -> bool {
    !*value
}
