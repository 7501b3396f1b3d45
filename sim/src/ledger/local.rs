//! What is known of pairs within an array. A copy is the point in time of a session, with a device as its holder: from its
//! call on the secondary is a volume of its own, and nobody can have used it just before, for it was refused to hosts.

use super::{Ledger, Maybe};
use crate::oracle::{CutId, Origin, VolumeId};
use crate::site::Site;

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
    /// Whether it was deleted once: a copy that was in progress then goes on.
    pub deleted: bool,
}

/// Where a track was born, by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Birthplace {
    /// In a standard device.
    Device(u32),
    /// In a session.
    Session(u32),
}

/// Who holds a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// So many commands that need it to stay the volume that it is.
    Shared(u32),
    /// One that makes it another.
    Alone,
}

impl Ledger {
    /// Whether hosts may not use a device, because it is a secondary, or reserved, or that is not known.
    pub fn may_be_held(&self, device: &str) -> bool {
        self.turning.contains(device)
            || self.may_be_spare(device)
            || self.locals.get(device).is_some_and(|pair| {
                pair.busy || !(pair.stage.surely(&Coupling::Open) || pair.stage.surely(&Coupling::Gone))
            })
    }

    /// Whether a device is or was in a pair: then an array has sessions of its own there, which nobody is shown.
    pub fn is_copied(&self, device: &str) -> bool {
        self.locals.contains_key(device)
            || self.locals.values().any(|pair| pair.primary == device)
            || self.brought.iter().any(|(from, _)| from == device)
    }

    /// Takes devices for a command that makes points in time of them (`shared`) or makes them other volumes (`alone`): all of
    /// them, or none. Of two such commands at a time nobody could tell which came first.
    pub fn claim(&mut self, shared: &[String], alone: &[String]) -> bool {
        let free = |device: &String| !self.claims.contains_key(device);
        let open = |device: &String| self.claims.get(device) != Some(&Claim::Alone);
        if !alone.iter().all(free) || !shared.iter().all(open) {
            return false;
        }
        for device in alone {
            self.claims.insert(device.clone(), Claim::Alone);
        }
        for device in shared.iter().filter(|device| !alone.contains(device)) {
            match self.claims.entry(device.clone()).or_insert(Claim::Shared(0)) {
                Claim::Shared(count) => *count += 1,
                Claim::Alone => {}
            }
        }
        true
    }

    /// Gives back what [`Self::claim`] took.
    pub fn unclaim(&mut self, shared: &[String], alone: &[String]) {
        for device in shared.iter().filter(|device| !alone.contains(device)) {
            match self.claims.get_mut(device) {
                Some(Claim::Shared(count)) if *count > 1 => *count -= 1,
                _ => drop(self.claims.remove(device)),
            }
        }
        for device in alone {
            self.claims.remove(device);
        }
    }

    /// Whether a track that was born on a device, or in a session of it, may lie in another device, or in a session of that.
    pub fn may_have_come(&self, site: Site, born: Birthplace, to: u32) -> bool {
        let named = |id: u32| {
            let found = |device: &super::Device| device.site == site && device.id == Some(id);
            self.devices.iter().find(|(_, device)| found(device)).map(|(name, _)| name.as_str())
        };
        let of_session = |id: u32| {
            let found = |session: &&super::Session| session.site == site && session.id == Some(id);
            self.sessions.values().find(found).map(|session| session.standard.as_str())
        };
        let (from, to) = match born {
            Birthplace::Device(id) => (named(id), named(to)),
            Birthplace::Session(id) => (of_session(id), named(to)),
        };
        let (Some(from), Some(to)) = (from, to) else { return false };
        let (mut reached, mut left) = (Vec::new(), vec![from]);
        while let Some(at) = left.pop() {
            let next = self.brought.iter().filter(|(from, _)| from == at).map(|(_, to)| to.as_str());
            let next: Vec<_> = next.filter(|next| !reached.contains(next)).collect();
            reached.extend(&next);
            left.extend(next);
        }
        reached.contains(&to)
    }

    /// A copy is called: its instant, and what the secondary was before.
    pub fn copy_begins(&mut self, secondary: &str) -> Option<(CutId, VolumeId)> {
        let primary = self.locals.get(secondary)?.primary.clone();
        let (of, site) =
            self.devices.get(&primary).and_then(|device| Some((device.standard?, device.site)))?;
        let cut = self.history.begin_cut(site);
        let before = self.becomes(secondary, &primary, Origin::Snapshot(of, cut))?;
        Some((cut, before))
    }
}
