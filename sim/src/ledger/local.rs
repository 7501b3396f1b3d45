//! What is known of pairs within an array. A copy is the point in time of a session, with a device as its holder: from its
//! call on the secondary is a volume of its own, and nobody can have used it just before, for it was refused to hosts.

use super::{Ledger, Maybe};
use crate::oracle::{CutId, Origin, VolumeId};

/// Where a pair stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coupling {
    /// There is none: not yet, or no more.
    Gone,
    /// Paired and not copied: hosts do not use the secondary.
    Paired,
    /// Copied, or being copied.
    Open,
}

/// A pair, by its secondary.
#[derive(Debug, Clone)]
pub struct LocalPair {
    /// The primary, as the plan calls it.
    pub primary: String,
    /// Where it stands.
    pub stage: Maybe<Coupling>,
    /// Whether a command on it is under way, or one of which it is not known what became of it.
    pub busy: bool,
}

impl Ledger {
    /// Whether hosts may not use a device, because it is a secondary, or that is not known.
    pub fn may_be_held(&self, device: &str) -> bool {
        self.locals.get(device).is_some_and(|pair| {
            pair.busy || !(pair.stage.surely(&Coupling::Open) || pair.stage.surely(&Coupling::Gone))
        })
    }

    /// Whether a device is or was the primary of a pair: then an array has sessions of its own there.
    pub fn is_copied(&self, device: &str) -> bool {
        self.locals.values().any(|pair| pair.primary == device)
    }

    /// A copy is called: its instant, and what the secondary was before.
    pub fn copy_begins(&mut self, secondary: &str) -> Option<(CutId, VolumeId)> {
        let primary = self.locals.get(secondary)?.primary.clone();
        let of = self.devices.get(&primary)?.standard?;
        let device = self.devices.get(secondary)?;
        let (site, before) = (device.site, device.standard?);
        let cut = self.history.begin_cut(site);
        let volume = self.history.add_volume(site, secondary, Origin::Snapshot(of, cut));
        self.devices.get_mut(secondary)?.standard = Some(volume);
        Some((cut, before))
    }
}
