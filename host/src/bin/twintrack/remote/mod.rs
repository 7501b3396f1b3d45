//! `remote`: pairs of a volume here and one on another array.

mod create;
mod show;
mod snapshot;
mod watch;

use std::time::Duration;

use clap::Subcommand;
use twintrack_host::ArrayError;
use twintrack_host::manage::{PairHalf, PairMode, PairPace, RemoteInfo};

use crate::Context;
use crate::advice::Advice;
use crate::args;
use crate::failure::Failure;
use crate::output::Waiting;
use crate::table::printable;

use create::CreateArgs;
use snapshot::SnapshotArgs;

/// Commands on remote pairs.
#[derive(Debug, Subcommand)]
pub enum RemoteCommand {
    /// Makes a pair of a volume on this array and one on another; the copy follows in the background
    #[command(
        after_help = "A pair is asked about by its volume on the array that -a names. Which array that is decides which of R1 and \
                            R2 is written without a link: `remote create db db@tokyo` has R1 here, `remote create \
                            db@tokyo db` has R2 here."
    )]
    Create(CreateArgs),
    /// Lists the pairs
    List,
    /// Shows one pair: its state, why it is so, and what comes next
    Show {
        /// The volume on this array
        device: String,
    },
    /// Follows a pair until both halves are the same
    Watch {
        /// The volume on this array
        device: String,
        /// How often to look
        #[arg(long, value_name = "MS", default_value_t = 500, value_parser = clap::value_parser!(u64).range(10..=3_600_000))]
        interval_ms: u64,
        /// Goes on when both halves are the same
        #[arg(long)]
        follow: bool,
    },
    /// Lets nothing more move until it is resumed; what changes is remembered
    Suspend {
        /// The volume on this array, which serves it
        device: String,
        /// With all pairs of its consistency group, at one instant
        #[arg(long)]
        whole_group: bool,
        /// The sides are to stay apart: the state is called Split
        #[arg(long)]
        split: bool,
    },
    /// Lets what is owed move again
    Resume {
        /// The volume on this array, which serves it
        device: String,
        /// With all pairs of its consistency group
        #[arg(long)]
        whole_group: bool,
    },
    /// Changes how a pair is mirrored
    Mode {
        /// The volume on this array, which serves it
        device: String,
        /// synchronous or adaptive
        #[arg(value_parser = args::mode)]
        mode: PairMode,
    },
    /// Changes how much this array copies at a time, to the other or from it
    Pace {
        /// The volume on this array
        device: String,
        /// slow (1 track), medium (3), fast (15), or adaptive (what fits the link)
        #[arg(value_parser = args::pace)]
        pace: PairPace,
    },
    /// Serves the volume on this array from now on, and on the other no more, with all pairs of its consistency group
    Failover {
        /// The volume on this array
        device: String,
        /// Does not ask the other array: you say that it is out of order, and that nobody writes there
        #[arg(long)]
        force: bool,
        /// Puts the volume back to what it was before a copy into it began that is not complete
        #[arg(long, requires = "force")]
        to_safety_copy: bool,
    },
    /// The way back: serves R1 again, which is on this array
    Failback {
        /// The volume on this array
        device: String,
    },
    /// Ends a split brain, at the array whose half is kept; what the other has is kept there as a session
    Resolve {
        /// The volume on this array
        device: String,
        /// Whose content both are to have
        #[arg(long, value_parser = args::half)]
        keep: PairHalf,
    },
    /// Makes the same snapshot of volumes on both arrays, at one instant
    Snapshot(SnapshotArgs),
    /// Compares both sides while hosts write; exit code 1 if they differ
    Verify {
        /// The volume on this array, which serves it
        device: String,
        /// What differs is copied again, from this array to the other
        #[arg(long)]
        mark: bool,
    },
    /// Ends a pair; both volumes stay as they are
    Delete {
        /// The volume on this array
        device: String,
        /// Also if the other array cannot be reached: there it ends at the next contact
        #[arg(long)]
        force: bool,
    },
}

impl RemoteCommand {
    /// Where its failures lead.
    pub fn advice(&self) -> Advice {
        let (command, device) = match self {
            Self::Create(_) => {
                let things = ["link list", "device list"];
                return Advice::new("remote create", &things, &["remote list", "device list"]);
            }
            Self::List => return Advice::new("remote list", &["remote list"], &["remote list"]),
            Self::Snapshot(_) => {
                let things = ["remote list", "device list"];
                return Advice::new("remote snapshot", &things, &["remote list", "session list"]);
            }
            Self::Show { device } => ("remote show", device),
            Self::Watch { device, .. } => ("remote watch", device),
            Self::Suspend { device, .. } => ("remote suspend", device),
            Self::Resume { device, .. } => ("remote resume", device),
            Self::Mode { device, .. } => ("remote mode", device),
            Self::Pace { device, .. } => ("remote pace", device),
            Self::Failover { device, .. } => ("remote failover", device),
            Self::Failback { device } => ("remote failback", device),
            Self::Resolve { device, .. } => ("remote resolve", device),
            Self::Verify { device, .. } => ("remote verify", device),
            Self::Delete { device, .. } => ("remote delete", device),
        };
        Advice::new(command, &["remote list"], &[&format!("remote show {device}")])
    }

    /// Carries it out.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let array = &context.array;
        let info = match self {
            Self::Create(args) => create::run(context, args).await?,
            Self::List => return show_all(context, &array.remote_list().await?),
            Self::Show { device } => {
                let info = array.remote_show(&device).await?;
                return context.output.show(&info, || show::facts(&info).to_string());
            }
            Self::Watch { device, interval_ms, follow } => {
                return watch::run(context, &device, Duration::from_millis(interval_ms), follow).await;
            }
            Self::Suspend { device, whole_group, split } => {
                array.remote_suspend(&device, whole_group, split).await?
            }
            Self::Resume { device, whole_group } => array.remote_resume(&device, whole_group).await?,
            Self::Mode { device, mode } => array.remote_mode(&device, mode).await?,
            Self::Pace { device, pace } => array.remote_pace(&device, pace).await?,
            Self::Failover { device, to_safety_copy: true, .. } => return go_back(context, &device).await,
            Self::Failover { device, force, .. } => {
                let pairs = context.array.remote_failover(&device, force);
                return hand_over(context, &device, force, pairs).await;
            }
            Self::Failback { device } => {
                let pairs = context.array.remote_failback(&device);
                return hand_over(context, &device, false, pairs).await;
            }
            Self::Resolve { device, keep } => array.remote_resolve(&device, keep).await?,
            Self::Snapshot(args) => return snapshot::run(context, args).await,
            Self::Verify { device, mark } => return verify(context, &device, mark).await,
            Self::Delete { device, force } => {
                array.remote_delete(&device, force).await?;
                return context.output.done();
            }
        };
        context.output.show(&info, || show::table(std::slice::from_ref(&info)).to_string())
    }
}

fn show_all(context: &Context, pairs: &[RemoteInfo]) -> Result<(), Failure> {
    context.output.show(pairs, || show::table(pairs).to_string())
}

async fn hand_over(
    context: &Context,
    device: &str,
    force: bool,
    pairs: impl Future<Output = Result<Vec<RemoteInfo>, ArrayError>>,
) -> Result<(), Failure> {
    let waiting = Waiting::new(format!("waiting until the last writes of {device} have landed"));
    let pairs = pairs.await?;
    drop(waiting);
    // What was lost by it.
    let whys = || pairs.iter().map(|pair| format!("{}: {}\n", printable(&pair.device), printable(&pair.why)));
    let said = if force { whys().collect() } else { String::new() };
    context.output.show(&pairs[..], || format!("{}{said}", show::table(&pairs)))
}

async fn go_back(context: &Context, device: &str) -> Result<(), Failure> {
    let waiting = Waiting::new(format!("putting {device} back to its safety copy"));
    let pairs = context.patient().remote_go_back(device).await?;
    drop(waiting);
    show_all(context, &pairs)
}

async fn verify(context: &Context, device: &str, mark: bool) -> Result<(), Failure> {
    let waiting = Waiting::new(format!("comparing both halves of {device}"));
    let found = context.patient().remote_verify(device, mark).await?;
    drop(waiting);
    context.output.show(&found, || show::verified(&found).to_string())?;
    if found.differing_tracks > 0 && !found.marked {
        return Err(Failure::Differs { device: device.to_owned(), tracks: found.differing_tracks });
    }
    Ok(())
}
