//! The instants at which sessions begin, as far as hosts know of them.

use super::{Ledger, Lent};
use crate::oracle::Origin;

impl Ledger {
    /// The activation of sessions begins: at one instant, or each at its own. From now on their virtual devices may show it.
    pub fn cut_begins(&mut self, labels: &[String], one_instant: bool) {
        let mut cut = None;
        for label in labels {
            let Some(session) = self.sessions.get(label) else { continue };
            let Some(of) = self.devices.get(&session.standard).and_then(|device| device.standard) else {
                continue;
            };
            let (site, shown_by) = (session.site, session.shown_by.latest().clone());
            let cut = match (one_instant, cut) {
                (true, Some(cut)) => cut,
                _ => *cut.insert(self.history.begin_cut(site)),
            };
            let volume = self.history.add_volume(site, label, Origin::Snapshot(of, cut));
            let size_bytes = self.size_bytes(&session.standard);
            if let Some(session) = self.sessions.get_mut(label) {
                (session.volume, session.cut) = (Some(volume), Some(cut));
                // It may have been asked for when the device was smaller.
                session.size_bytes.1 = size_bytes.1;
            }
            let Some(name) = shown_by else { continue };
            if self.is_used_up(&name) {
                // Which of both it shows is known when the command has ended.
                self.turning.insert(name);
            } else if !self.is_used_by_others(&name, &self.shown_with(label))
                && let Some(device) = self.devices.get_mut(&name)
            {
                // A virtual device that shows another session goes on doing so.
                device.shows = Some(label.clone());
            }
        }
    }

    /// It is known what became of an activation.
    pub fn cut_ended(&mut self, labels: &[String]) {
        for label in labels {
            let shown_by = self.sessions.get(label).and_then(|session| session.shown_by.latest().clone());
            if let Some(name) = shown_by {
                self.turning.remove(&name);
            }
        }
    }

    /// Whether a restore has used up a session of a virtual device, which may be gone by now.
    fn is_used_up(&self, name: &str) -> bool {
        self.sessions.values().any(|session| {
            session.lent == Lent::UsedUp
                && session.shown_by.all().iter().any(|shown_by| shown_by.as_deref() == Some(name))
        })
    }

    /// The activation of a session is known to have happened.
    pub fn cut_happened(&mut self, label: &str) {
        let Some(session) = self.sessions.get(label) else { return };
        let shown_by = session.shown_by.latest().clone();
        if let Some(cut) = session.cut {
            self.history.end_cut(cut);
        }
        if let Some(device) = shown_by.and_then(|name| self.devices.get_mut(&name)) {
            device.shows = Some(label.into());
        }
    }

    /// An establishment, of many calls, has ended; the one that activates was asked in one of these epochs.
    pub fn cut_asked_in(&mut self, labels: &[String], epochs: &[u32]) {
        let cuts: Vec<_> = labels.iter().filter_map(|label| self.sessions.get(label)?.cut).collect();
        cuts.into_iter().for_each(|cut| self.history.cut_asked_in(cut, epochs));
    }
}
