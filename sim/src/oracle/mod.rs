//! What must hold, one statement a file: prose first, then a short check.
//!
//! The oracles know nothing of how an array works. They are told of every operation when it is called and when it is
//! answered, in the order in which that really happened, and of every crash; what a read returns they hold against
//! that.

mod alike;
mod called;
mod changed;
mod choice;
mod content;
mod creation;
mod differs;
mod durable;
mod epochs;
mod failover;
mod frozen;
mod group;
mod handle;
mod history;
mod joint;
mod liveness;
mod owner;
mod progress;
mod register;
mod room;
mod rotation;
mod snapshot;
mod space;
mod split;
mod tell;
mod told;
mod unequal;
mod verify;

use std::fmt;

pub use alike::{Twin, check_covered, check_equal};
pub use called::check_called;
pub use changed::{check_refused_track, check_report, check_report_across};
pub use choice::{Candidate, check_choice};
pub use content::{Value, fill, parse};
pub use creation::{Halves, check_created};
pub use differs::{Compared, Told as DifferencesTold};
pub use epochs::Ending;
pub use frozen::Frozen;
pub use group::{Held, Listing, Member, check_group};
pub use handle::Told as HandleTold;
pub use history::{Content, CutId, History, Origin, VolumeId, WriteId};
pub use joint::{Part, check_parts};
pub use liveness::{Deadlines, check_answered_in_time};
pub use owner::{Half, check_owners, served_by_another};
pub use progress::Progress;
pub use register::{Moment, NEVER, Span};
pub use room::{kept_track, refused_instead};
pub use rotation::Rotation;
pub use space::{Emptied, check_emptied};
pub use split::Split;
pub use told::check_told;
pub use unequal::check_unequal;
pub use verify::{Differing, check_verified};

/// A broken promise.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, serde::Serialize, serde::Deserialize)]
#[error("{oracle}: {what}")]
pub struct Violation {
    /// Which oracle found it.
    pub oracle: String,
    /// What was seen, and what had been promised.
    pub what: String,
}

impl Violation {
    /// Of an oracle.
    pub fn new(oracle: &str, what: fmt::Arguments<'_>) -> Self {
        Self { oracle: oracle.into(), what: what.to_string() }
    }
}
