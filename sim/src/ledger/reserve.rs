//! What is known of volumes that are reserved (C9).

use super::{Coupling, Device, Ledger};
use crate::oracle::{Candidate, Moment};

impl Ledger {
    /// Whether hosts may not use a device, because it may be reserved, and is not surely copied to.
    pub(super) fn may_be_spare(&self, name: &str) -> bool {
        let is_reserved = self.devices.get(name).is_some_and(|device| device.reserved.may_be(&true));
        is_reserved
            && !self.locals.get(name).is_some_and(|pair| !pair.busy && pair.stage.surely(&Coupling::Open))
    }

    /// Whether hosts may surely not use a device, and might not since then: it is reserved, and not copied to.
    pub fn is_spare(&self, name: &str, since: Moment) -> bool {
        let Some(device) = self.devices.get(name).filter(|device| device.exists.surely(&true)) else {
            return false;
        };
        let is_copied = self
            .locals
            .get(name)
            .is_some_and(|pair| pair.busy || pair.deleted || pair.stage.may_be(&Coupling::Open));
        device.busy == 0 && device.changed < since && device.reserved.surely(&true) && !is_copied
    }

    /// What may be chosen as the secondary of a volume.
    pub fn candidates(&self, primary: &str) -> Vec<Candidate> {
        let site = self.site_of(primary);
        let standards = self.devices.iter().filter(|(_, device)| {
            device.standard.is_some() && Some(device.site) == site && device.reserved.may_be(&true)
        });
        let candidate = |(name, device): (&String, &Device)| Candidate {
            name: name.clone(),
            number: device.id,
            fits: self.fits(primary, name, device),
        };
        standards.map(candidate).collect()
    }

    fn fits(&self, primary: &str, name: &str, device: &Device) -> Option<bool> {
        let size = |name: &str| self.devices.get(name).and_then(|device| device.size.known());
        let is_free = match self.locals.get(name) {
            None => Some(true),
            Some(pair) => match pair.stage.known().filter(|_| !pair.busy)? {
                // A copy may go on.
                Coupling::Gone if pair.deleted => None,
                stage => Some(*stage == Coupling::Gone),
            },
        };
        let has_size = size(primary).zip(size(name)).map(|(a, b)| a == b);
        let all = [is_free, has_size, device.exists.known().copied(), device.reserved.known().copied()];
        match () {
            () if name == primary || all.contains(&Some(false)) => Some(false),
            () if device.busy > 0 || all.contains(&None) => None,
            () => Some(true),
        }
    }
}
