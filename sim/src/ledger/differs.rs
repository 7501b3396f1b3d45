//! What is known of two moments of a device that are compared (F7).

use super::{Ledger, Stage};
use crate::oracle::Compared;

impl Ledger {
    /// Whether a comparison with another session of the device, or with the device as it is, has to be carried out; `None`:
    /// that is not known.
    pub fn may_compare(&self, label: &str, other: Option<&str>) -> Option<bool> {
        let of = |label: &str| Some(self.sessions.get(label)?.standard.as_str());
        if let Some(other) = other
            && of(label)? != of(other)?
        {
            return Some(false);
        }
        let all: Vec<_> = [label].into_iter().chain(other).map(|label| self.is_comparable(label)).collect();
        match () {
            () if all.contains(&Some(false)) => Some(false),
            () if all.contains(&None) || self.excuses.full => None,
            () => Some(true),
        }
    }

    /// Whether a session is active, with all tracks of its device.
    fn is_comparable(&self, label: &str) -> Option<bool> {
        let session = self.sessions.get(label)?;
        if session.part.is_some() {
            return Some(false);
        }
        let stage = session.stage.known().filter(|_| session.busy == 0)?;
        Some(*stage == Stage::Active)
    }

    /// A session and another one of its device, or the device as it is, for the oracle; `None`: they cannot be compared, or
    /// that is not known.
    pub fn compared(&self, label: &str, other: Option<&str>) -> Option<[Compared; 2]> {
        let session = |label: &str| {
            let session = self.sessions.get(label).filter(|_| self.is_comparable(label) == Some(true))?;
            Some(Compared { volume: session.volume?, is_session: true, size_bytes: session.size_bytes })
        };
        let now = || {
            let name = &self.sessions.get(label)?.standard;
            let volume = self.devices.get(name)?.standard?;
            Some(Compared { volume, is_session: false, size_bytes: self.size_bytes(name) })
        };
        Some([session(label)?, other.map_or_else(now, session)?])
    }

    /// The least and the most bytes that a standard device can have.
    pub(super) fn size_bytes(&self, device: &str) -> (u64, u64) {
        let sizes = self.devices.get(device).map_or(&[][..], |device| device.size.all());
        (sizes.iter().copied().min().unwrap_or(0), sizes.iter().copied().max().unwrap_or(u64::MAX))
    }
}
