//! `pair`: two volumes of one array, of which one becomes what the other is.

use clap::{Args, Subcommand};
use twintrack_core::CopyId;
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
        #[command(flatten)]
        pair: Volumes,
        /// Tracks that are moved to another pool at a time: slow (1), medium (3), fast (15), or adaptive
        #[arg(long, default_value = "medium", value_parser = args::pace)]
        pace: PairPace,
    },
    /// Lists the pairs
    List,
    /// Shows one pair
    Show(Volumes),
    /// The secondary becomes the primary as it is at this instant; both are usable at once
    Copy(Volumes),
    /// Takes the secondary back from its hosts; the next copy moves only what differs
    Resync(Volumes),
    /// The primary becomes the secondary as it is at this instant; both are usable at once
    ///
    /// What the primary was is kept as a session, so that this can be undone by `session restore`.
    Restore {
        #[command(flatten)]
        pair: Volumes,
        /// What the primary was is not kept
        #[arg(long)]
        discard_before: bool,
    },
    /// Sets another pace, also for a copy in progress
    Pace {
        #[command(flatten)]
        pair: Volumes,
        /// slow (1 track at a time), medium (3), fast (15), or adaptive
        #[arg(value_parser = args::pace)]
        pace: PairPace,
    },
    /// Ends a pair; both volumes stay
    Delete(Volumes),
}

/// Which pair.
#[derive(Debug, Args)]
pub struct Volumes {
    /// The primary: what is copied
    primary: String,
    /// The secondary: what becomes the copy
    secondary: String,
}

impl PairCommand {
    /// Where its failures lead.
    pub fn advice(&self) -> Advice {
        let (devices, pairs) = (["device list"], ["pair list"]);
        match self {
            Self::Create { .. } => Advice::new("pair create", &devices, &pairs),
            Self::List => Advice::new("pair list", &devices, &pairs),
            Self::Show(_) => Advice::new("pair show", &pairs, &pairs),
            Self::Copy(_) => Advice::new("pair copy", &pairs, &pairs),
            Self::Resync(_) => Advice::new("pair resync", &pairs, &pairs),
            Self::Restore { .. } => Advice::new("pair restore", &pairs, &pairs),
            Self::Pace { .. } => Advice::new("pair pace", &pairs, &pairs),
            Self::Delete(_) => Advice::new("pair delete", &pairs, &pairs),
        }
    }

    /// Carries it out.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let array = &context.array;
        let pair = match self {
            Self::Create { pair, pace } => array.pair_create(&pair.primary, &pair.secondary, pace).await?,
            Self::List => {
                let pairs = array.pair_list().await?;
                return context.output.show(&pairs, || table(&pairs));
            }
            Self::Show(pair) => array.pair_show(&pair.primary, &pair.secondary).await?,
            Self::Copy(pair) => array.pair_copy(&pair.primary, &pair.secondary).await?,
            Self::Resync(pair) => array.pair_resync(&pair.primary, &pair.secondary).await?,
            Self::Restore { pair, discard_before } => {
                array.pair_restore(&pair.primary, &pair.secondary, discard_before).await?
            }
            Self::Pace { pair, pace } => array.pair_pace(&pair.primary, &pair.secondary, pace).await?,
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
