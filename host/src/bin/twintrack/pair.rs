//! `pair`: two volumes of one array, of which one becomes what the other is.

use std::time::Duration;

use clap::{Args, Subcommand};
use twintrack_core::{CopyId, ScheduleId};
use twintrack_host::manage::{PairInfo, PairPace};
use twintrack_link::time::utc;

use crate::Context;
use crate::advice::Advice;
use crate::args;
use crate::failure::Failure;
use crate::table::{Side, Table};

/// Commands on pairs within the array.
#[derive(Debug, Subcommand)]
pub enum PairCommand {
    /// Makes a pair; nothing is copied yet, and hosts do not use the secondary until it is
    Create {
        /// The primary: what is copied
        primary: String,
        /// The secondary: what becomes the copy; the lowest-numbered reserved volume that fits if none is named
        secondary: Option<String>,
        /// Tracks that are moved to another pool at a time: slow (1), medium (3), fast (15), or adaptive
        #[arg(long, default_value = "medium", value_parser = args::pace)]
        pace: PairPace,
    },
    /// Lists the pairs
    List,
    /// Shows one pair
    Show(Volumes),
    /// The secondary becomes the primary as it is at this instant; both are usable at once
    Copy {
        #[command(flatten)]
        pair: Volumes,
        #[command(flatten)]
        at: AtPace,
    },
    /// Takes the secondary back from its hosts; the next copy moves only what differs
    Resync {
        #[command(flatten)]
        pair: Volumes,
        #[command(flatten)]
        at: AtPace,
    },
    /// The primary becomes the secondary as it is at this instant; both are usable at once
    ///
    /// What the primary was is kept as a session, so that this can be undone by `session restore`.
    Restore {
        #[command(flatten)]
        pair: Volumes,
        /// What the primary was is not kept
        #[arg(long)]
        discard_before: bool,
        #[command(flatten)]
        at: AtPace,
    },
    /// Sets another pace, also for a copy in progress, and for restores and copies of pairs that were deleted
    Pace {
        #[command(flatten)]
        pair: Volumes,
        /// slow (1 track at a time), medium (3), fast (15), or adaptive
        #[arg(value_parser = args::pace)]
        pace: PairPace,
    },
    /// Ends a pair; both volumes stay
    Delete(Volumes),
    /// Copies at a time and every period
    #[command(subcommand)]
    Schedule(ScheduleCommand),
}

/// Commands on schedules.
#[derive(Debug, Subcommand)]
pub enum ScheduleCommand {
    /// Copies a primary to one of its secondaries after the other, which then have its history
    ///
    /// Each secondary is that of a pair. What a time out of service has missed is made up for once.
    Add {
        /// The primary
        primary: String,
        /// Its secondaries, in their turns
        #[arg(value_name = "SECONDARY", required = true)]
        secondaries: Vec<String>,
        /// The first copy, in UTC, such as 2026-12-01T02:00:00Z; now if it is not given
        #[arg(long, value_name = "TIME", value_parser = args::time)]
        at: Option<u64>,
        /// Between two copies, such as 15m, 6h or 1day; without it there is one
        #[arg(long, value_name = "PERIOD", value_parser = args::period)]
        every: Option<u64>,
    },
    /// Lists the schedules
    List,
    /// Ends a schedule; its pairs stay
    Remove {
        /// The schedule
        #[arg(value_parser = args::schedule)]
        schedule: ScheduleId,
    },
}

/// Which pair.
#[derive(Debug, Args)]
pub struct Volumes {
    /// The primary: what is copied
    primary: String,
    /// The secondary: what becomes the copy
    secondary: String,
}

/// How fast.
#[derive(Debug, Args)]
pub struct AtPace {
    /// Another pace of the pair from now on: slow, medium, fast or adaptive
    #[arg(long, value_parser = args::pace)]
    pace: Option<PairPace>,
}

impl PairCommand {
    /// Where its failures lead.
    pub fn advice(&self) -> Advice {
        let (devices, pairs) = (["device list"], ["pair list"]);
        match self {
            Self::Create { .. } => Advice::new("pair create", &devices, &pairs),
            Self::List => Advice::new("pair list", &devices, &pairs),
            Self::Show(_) => Advice::new("pair show", &pairs, &pairs),
            Self::Copy { .. } => Advice::new("pair copy", &pairs, &pairs),
            Self::Resync { .. } => Advice::new("pair resync", &pairs, &pairs),
            Self::Restore { .. } => Advice::new("pair restore", &pairs, &pairs),
            Self::Pace { .. } => Advice::new("pair pace", &pairs, &pairs),
            Self::Schedule(command) => {
                let command = match command {
                    ScheduleCommand::Add { .. } => "pair schedule add",
                    ScheduleCommand::List => "pair schedule list",
                    ScheduleCommand::Remove { .. } => "pair schedule remove",
                };
                Advice::new(command, &["pair schedule list", "pair list"], &["pair schedule list"])
            }
            Self::Delete(_) => Advice::new("pair delete", &pairs, &pairs),
        }
    }

    /// Carries it out.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let array = &context.array;
        let pair = match self {
            Self::Create { primary, secondary, pace } => {
                array.pair_create(&primary, secondary.as_deref(), pace).await?
            }
            Self::List => {
                let pairs = array.pair_list().await?;
                return context.output.show(&pairs, || table(&pairs));
            }
            Self::Show(pair) => array.pair_show(&pair.primary, &pair.secondary).await?,
            Self::Copy { pair, at } => array.pair_copy(&pair.primary, &pair.secondary, at.pace).await?,
            Self::Resync { pair, at } => array.pair_resync(&pair.primary, &pair.secondary, at.pace).await?,
            Self::Restore { pair, discard_before, at } => {
                array.pair_restore(&pair.primary, &pair.secondary, discard_before, at.pace).await?
            }
            Self::Pace { pair, pace } => array.pair_pace(&pair.primary, &pair.secondary, pace).await?,
            Self::Schedule(command) => return schedule(context, command).await,
            Self::Delete(pair) => {
                array.pair_delete(&pair.primary, &pair.secondary).await?;
                return context.output.done();
            }
        };
        context.output.show(&pair, || {
            let trouble = pair.trouble.as_ref().map(|why| format!("It does not go on: {why}.\n"));
            table(std::slice::from_ref(&pair)) + &trouble.unwrap_or_default()
        })
    }
}

async fn schedule(context: &Context, command: ScheduleCommand) -> Result<(), Failure> {
    let array = &context.array;
    let schedules = match command {
        ScheduleCommand::Add { primary, secondaries, at, every } => {
            array.schedule_add(&primary, secondaries, at, every).await?
        }
        ScheduleCommand::List => array.schedule_list().await?,
        ScheduleCommand::Remove { schedule } => {
            array.schedule_remove(schedule.0).await?;
            return context.output.done();
        }
    };
    context.output.show(&schedules, || {
        let columns = ["SCHEDULE", "PRIMARY", "SECONDARIES", "EVERY", "NEXT", "TO", "TROUBLE"];
        let mut table = Table::new(columns.map(|name| (name, Side::Left)));
        for schedule in &schedules {
            let every = schedule.every_ms.map(|ms| humantime::format_duration(Duration::from_millis(ms)));
            table.row([
                ScheduleId(schedule.number).to_string(),
                schedule.primary.clone(),
                schedule.secondaries.join(", "),
                every.map_or_else(|| "once".to_owned(), |every| every.to_string()),
                utc(schedule.next_ms),
                schedule.next.clone(),
                schedule.trouble.clone().unwrap_or_else(|| "-".to_owned()),
            ]);
        }
        table.to_string()
    })
}

/// Pairs, one a line.
fn table(pairs: &[PairInfo]) -> String {
    let left = |name| (name, Side::Left);
    let mut table = Table::new([
        left("PAIR"),
        left("PRIMARY"),
        left("SECONDARY"),
        left("CALLED"),
        left("STATUS"),
        left("PROGRESS"),
        ("UNEQUAL", Side::Right),
        left("PACE"),
        left("AS OF"),
    ]);
    for pair in pairs {
        let status =
            if pair.back { format!("{}, back", pair.status.name()) } else { pair.status.name().into() };
        table.row([
            CopyId(pair.number).to_string(),
            pair.primary.clone(),
            pair.secondary.clone(),
            pair.called.name().to_owned(),
            status,
            progress(pair),
            format!("{} of {}", pair.unequal_tracks, pair.tracks),
            pair.pace.name().to_owned(),
            pair.copied_ms.map_or_else(|| "-".to_owned(), utc),
        ]);
    }
    table.to_string()
}

/// How far a copy in progress has come, in tracks.
fn progress(pair: &PairInfo) -> String {
    match pair.moved_to_track {
        Some(moved) => format!("{} of {} tracks moved", moved.min(pair.tracks), pair.tracks),
        None if pair.to_copy_tracks > 0 => format!("{} tracks to copy", pair.to_copy_tracks),
        None => "-".to_owned(),
    }
}
