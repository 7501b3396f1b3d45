//! Pairs of a plan: a volume on each of two arrays, and what operators do with them. Host I/O on the name of a pair, not of a
//! device, goes through a handle over both arrays; then nobody else uses its volumes.

use serde::{Deserialize, Serialize};

use super::{is_false, is_none};
use crate::site::Site;

/// A pair of volumes: R1 on the first array, R2 on the second.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PairSpec {
    /// What the plan calls it.
    pub name: String,
    /// R1: a device of the first array.
    pub r1: String,
    /// R2: a device of the second array.
    pub r2: String,
    /// Which array is asked to make it: its half exists first (A1, A5).
    #[serde(default, skip_serializing_if = "Site::is_first")]
    pub asked: Site,
    /// Whose content both get (A3).
    #[serde(default, skip_serializing_if = "Site::is_first")]
    pub from: Site,
    /// The device that is made with it, and its size (A6).
    #[serde(default, skip_serializing_if = "is_none")]
    pub makes: Option<(Site, u64)>,
    /// R2 is told in the background only.
    #[serde(default, skip_serializing_if = "is_false")]
    pub adaptive: bool,
    /// When a write cannot reach R2 nothing more is written; otherwise R1 goes on alone.
    #[serde(default, skip_serializing_if = "is_false")]
    pub freeze: bool,
    /// Its consistency group.
    #[serde(default, skip_serializing_if = "is_none")]
    pub group: Option<String>,
}

impl PairSpec {
    /// The device on an array.
    pub fn device(&self, site: Site) -> &str {
        match site {
            Site::A => &self.r1,
            Site::B => &self.r2,
        }
    }
}

/// What an operator does with pairs. Each goes to the array that its [`Op`](super::Op) names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "snake_case")]
#[allow(missing_docs)]
pub enum PairAct {
    /// Makes it.
    Create(PairSpec),
    /// Nothing moves any more, for its group, too.
    Suspend {
        pair: String,
        #[serde(default, skip_serializing_if = "is_false")]
        split: bool,
    },
    /// What is owed moves again.
    Resume { pair: String },
    /// From now on it is adaptive, or synchronous.
    Mode { pair: String, adaptive: bool },
    /// The array's half serves from now on. By force: without asking the other; into whose half a copy was under way, with what
    /// it was before that.
    Failover {
        pair: String,
        #[serde(default, skip_serializing_if = "is_false")]
        force: bool,
        #[serde(default, skip_serializing_if = "is_false")]
        to_safety_copy: bool,
    },
    /// Both sides were written alone: that one's content stays.
    Resolve { pair: String, keep: Site },
    /// Ends it. By force: without asking the other.
    Delete {
        pair: String,
        #[serde(default, skip_serializing_if = "is_false")]
        force: bool,
    },
    /// Compares both halves, by the array that serves. What differs is copied again, if `mark` says so.
    Verify {
        pair: String,
        #[serde(default, skip_serializing_if = "is_false")]
        mark: bool,
    },
    /// Makes a snapshot of it and its group on both arrays (F3), by the array that serves. Its sessions are called as the virtual
    /// devices that show them, on both arrays: each volume's name, a dot, and this name, as `d0.now`.
    Snapshot { pair: String, name: String },
    /// Asks both arrays how it is.
    Show { pair: String },
}

impl PairAct {
    /// Which pair.
    pub fn pair(&self) -> &str {
        match self {
            Self::Create(spec) => &spec.name,
            Self::Suspend { pair, .. }
            | Self::Resume { pair }
            | Self::Mode { pair, .. }
            | Self::Failover { pair, .. }
            | Self::Resolve { pair, .. }
            | Self::Delete { pair, .. }
            | Self::Verify { pair, .. }
            | Self::Snapshot { pair, .. }
            | Self::Show { pair } => pair,
        }
    }

    /// What it is called where a fault waits for it.
    pub fn title(&self) -> Option<String> {
        let what = match self {
            Self::Create(_) => "create",
            Self::Suspend { .. } => "suspend",
            Self::Resume { .. } => "resume",
            Self::Failover { .. } => "failover",
            Self::Resolve { .. } => "resolve",
            Self::Delete { .. } => "delete",
            Self::Snapshot { .. } => "snapshot",
            Self::Mode { .. } | Self::Verify { .. } | Self::Show { .. } => return None,
        };
        Some(format!("{what} {}", self.pair()))
    }
}
