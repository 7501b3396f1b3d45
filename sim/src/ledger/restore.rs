//! What is known of restores. A restore is a point in time, like a copy: from its call on each target is a volume of its own,
//! which began as what a session showed. What was asked of the target and was not answered by then may have reached it before
//! the instant or after. What it was before the array keeps as a session, which the plan has a name for.

use std::ops::Range;

use super::{Claim, Ledger, Maybe, Part, Stage};
use crate::disk::SECTOR_BYTES;
use crate::oracle::{CutId, Origin, VolumeId};
use crate::plan::RestoreItem;

/// What a restore did to a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lent {
    /// No standard device was restored from it.
    No,
    /// Hosts do not write there while a device takes it over, and nobody ends it.
    Kept,
    /// It goes when a device has taken it over.
    UsedUp,
}

/// A restore that was called, or the copy of a pair back to its primary.
#[derive(Debug)]
pub struct Restoring {
    cut: CutId,
    /// What each target was.
    before: Vec<Before>,
    /// Where each session stood.
    stages: Vec<Maybe<Stage>>,
}

/// What a device was before a restore was called.
#[derive(Debug)]
struct Before {
    target: String,
    standard: Option<VolumeId>,
    shows: Option<String>,
    name: Maybe<String>,
    online: Maybe<bool>,
}

impl Ledger {
    /// The device that an item of a restore is about, and whether it is a standard device.
    pub fn restore_target(&self, item: &RestoreItem) -> Option<(String, bool)> {
        let target =
            item.to.as_ref().or(self.sessions.get(&item.session).map(|session| &session.standard))?;
        Some((target.clone(), self.devices.get(target)?.standard.is_some()))
    }

    /// A restore is called. Nobody else makes its targets other volumes meanwhile.
    pub fn restore_begins(&mut self, items: &[RestoreItem]) -> Option<Restoring> {
        let parts = |item: &RestoreItem| {
            let session = self.sessions.get(&item.session)?;
            Some((
                session.volume?,
                session.standard.clone(),
                session.stage.clone(),
                session.part.clone(),
                self.restore_target(item)?,
            ))
        };
        let parts: Vec<_> = items.iter().map(parts).collect::<Option<_>>()?;
        let site = self.sessions.get(&items.first()?.session)?.site;
        let stages = parts.iter().map(|(_, _, stage, ..)| stage.clone()).collect();
        let mut restoring = Restoring { cut: self.history.begin_cut(site), before: Vec::new(), stages };
        for (item, (of, standard, _, part, (target, is_standard))) in items.iter().zip(parts) {
            self.turn_begins(&mut restoring, &target);
            self.device_changes(&target, |device| {
                device.online.also(!item.offline);
                if let Some(name) = &item.name {
                    device.name.also(name.clone());
                }
            });
            self.session_changes(&item.session, None);
            if !item.keep {
                self.session_may_end(&item.session);
            }
            if is_standard {
                self.turn(&restoring, &target, (&standard, of), part.as_ref(), item.makes.as_deref());
            } else if let Some(label) = &item.makes {
                self.brought.insert((standard.clone(), standard.clone()));
                self.restored.insert(standard.clone());
                self.made_begins(&restoring, label, &standard, of);
                if let Some(session) = self.sessions.get_mut(label) {
                    session.shown_by.also(Some(target.clone()));
                }
                if !self.is_used_by_others(&target, std::slice::from_ref(label))
                    && let Some(device) = self.devices.get_mut(&target)
                {
                    device.shows = Some(label.clone());
                }
            }
        }
        Some(restoring)
    }

    /// The copy of a pair back to its primary is called. `makes`: what the plan calls the session of what that was.
    pub fn copy_back_begins(
        &mut self,
        primary: &str,
        secondary: &str,
        makes: Option<&str>,
    ) -> Option<Restoring> {
        let (of, site) =
            self.devices.get(secondary).and_then(|device| Some((device.standard?, device.site)))?;
        let cut = self.history.begin_cut(site);
        let mut restoring = Restoring { cut, before: Vec::new(), stages: Vec::new() };
        self.turn_begins(&mut restoring, primary);
        self.device_changes(primary, |_| {});
        self.turn(&restoring, primary, (secondary, of), None, makes);
        Some(restoring)
    }

    fn turn_begins(&mut self, restoring: &mut Restoring, target: &str) {
        let Some(device) = self.devices.get(target) else { return };
        restoring.before.push(Before {
            target: target.into(),
            standard: device.standard,
            shows: device.shows.clone(),
            name: device.name.clone(),
            online: device.online.clone(),
        });
        self.turning.insert(target.into());
    }

    /// A standard device may be another volume from now on, or a part of it.
    fn turn(
        &mut self,
        restoring: &Restoring,
        target: &str,
        (from, of): (&str, VolumeId),
        part: Option<&Part>,
        makes: Option<&str>,
    ) {
        let Some(before) = self.devices.get(target).and_then(|device| device.standard) else { return };
        if let Some(label) = makes {
            self.expect_device(self.devices[target].site, label, None);
            if let Some(device) = self.devices.get_mut(label) {
                (device.online, device.shows) = (Maybe::is(false), Some(label.into()));
                device.exists.also(true);
            }
            self.made_begins(restoring, label, target, before);
            if let Some(session) = self.sessions.get_mut(label) {
                (session.is_before, session.shown_by) = (true, Maybe::is(Some(label.into())));
                session.part = part.map(|part| Part { at: 0, all: vec![label.into()], ..part.clone() });
            }
        }
        let (cut, sectors) = (restoring.cut, self.track_bytes / SECTOR_BYTES);
        let origin = part.map_or(Origin::Snapshot(of, cut), |part| {
            let Range { start, end } = part.within();
            Origin::Patched { sectors: (start * sectors, end * sectors), part: of, rest: before, cut }
        });
        self.becomes(target, from, origin);
        self.restored.insert(target.into());
    }

    /// A session that the array makes.
    fn made_begins(&mut self, restoring: &Restoring, label: &str, standard: &str, of: VolumeId) {
        let Some(site) = self.devices.get(standard).map(|device| device.site) else { return };
        self.expect_session(site, label, standard, None);
        self.session_changes(label, Some(Stage::Active));
        let volume = self.history.add_volume(site, label, Origin::Snapshot(of, restoring.cut));
        if let Some(session) = self.sessions.get_mut(label) {
            (session.volume, session.cut) = (Some(volume), Some(restoring.cut));
        }
    }

    /// From now on a device is a volume that begins as another one; what it was.
    pub(super) fn becomes(&mut self, target: &str, from: &str, origin: Origin) -> Option<VolumeId> {
        let device = self.devices.get(target)?;
        let (site, before) = (device.site, device.standard?);
        let volume = self.history.add_volume(site, target, origin);
        self.history.succeed(volume, before);
        self.brought.insert((from.into(), target.into()));
        self.devices.get_mut(target)?.standard = Some(volume);
        Some(before)
    }

    /// The call is over: a listing may tell what became of it.
    pub fn restore_called(&mut self, items: &[RestoreItem], restoring: &Restoring, makes: &[String]) {
        for label in items.iter().map(|item| &item.session).chain(makes) {
            self.session_changed(label, |_| {});
        }
        for before in &restoring.before {
            self.device_changed(&before.target, |_| {});
        }
    }

    /// Whether the restore of an item happened, as far as the last listing shows.
    pub fn restore_seen(&self, item: &RestoreItem) -> [Option<bool>; 3] {
        let stage =
            |label: &String| self.sessions.get(label).and_then(|session| session.stage.known().copied());
        let made = item.makes.as_ref().and_then(stage).map(|stage| stage != Stage::Gone);
        let used = self.sessions.get(&item.session).filter(|_| !item.keep).and_then(|session| match session
            .stage
            .known()?
        {
            Stage::Gone => Some(true),
            Stage::Active => Some(session.is_source),
            _ => None,
        });
        let target = self.restore_target(item).and_then(|(target, _)| self.devices.get(&target));
        let named = item.name.as_ref().zip(target).map(|(name, device)| device.name.surely(name));
        [made, used, named]
    }

    /// It is known what became of a restore.
    pub fn restore_ended(
        &mut self,
        items: &[RestoreItem],
        restoring: Restoring,
        makes: &[String],
        happened: bool,
    ) {
        if happened {
            self.history.end_cut(restoring.cut);
        }
        for (item, stage) in items.iter().zip(restoring.stages) {
            let onto_standard = self.restore_target(item).is_some_and(|(_, standard)| standard);
            let Some(session) = self.sessions.get_mut(&item.session) else { continue };
            match item.keep {
                false if happened => {
                    session.lent = Lent::UsedUp;
                    session.stage = Maybe::is(Stage::Active);
                    self.session_may_end(&item.session);
                }
                true if happened && onto_standard => session.lent = Lent::Kept,
                false if session.stage.known().is_none() => session.stage = stage,
                _ => {}
            }
        }
        let named = |target: &str| {
            items
                .iter()
                .find(|item| self.restore_target(item).is_some_and(|(other, _)| other == target))
                .cloned()
        };
        let items: Vec<_> = restoring.before.iter().map(|before| named(&before.target)).collect();
        let now = self.history.tick();
        self.changes += 1;
        for (before, item) in restoring.before.into_iter().zip(items) {
            self.turning.remove(&before.target);
            let Some(device) = self.devices.get_mut(&before.target) else { continue };
            device.changed = now;
            match item {
                Some(item) if happened => {
                    if device.standard.is_none() {
                        device.shows = item.makes;
                    }
                    device.online = Maybe::is(!item.offline);
                    device.name = item.name.map_or(before.name, Maybe::is);
                }
                _ if happened => {}
                _ => {
                    (device.name, device.online) = (before.name, before.online);
                    (device.standard, device.shows) = (before.standard, before.shows);
                }
            }
        }
        for label in makes {
            let stage = if happened { Stage::Active } else { Stage::Gone };
            if let Some(session) = self.sessions.get_mut(label) {
                session.stage = Maybe::is(stage);
            }
            let made_device = self.sessions.get(label).is_some_and(|session| session.is_before);
            if let Some(device) = self.devices.get_mut(label).filter(|_| made_device) {
                device.exists = Maybe::is(happened);
            }
        }
    }

    /// The volume that the device of a session is, if nothing may be making it another.
    pub fn volume_now(&self, label: &str) -> Option<VolumeId> {
        let name = &self.sessions.get(label)?.standard;
        let is_changing = self.turning.contains(name)
            || self.claims.get(name) == Some(&Claim::Alone)
            || self.locals.get(name).is_some_and(|pair| pair.busy);
        self.devices.get(name)?.standard.filter(|_| !is_changing)
    }

    /// Whether what a session reports as changed follows from what hosts wrote: no copy changed its device since.
    pub fn is_reported_whole(&self, label: &str) -> bool {
        let Some(session) = self.sessions.get(label) else { return false };
        let standard = self.devices.get(&session.standard).and_then(|device| device.standard);
        let replaced =
            self.restored.contains(&session.standard) || self.locals.contains_key(&session.standard);
        !replaced || session.volume.is_some_and(|volume| self.history.source(volume) == standard)
    }
}
