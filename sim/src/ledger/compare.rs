//! What a listing must show: every command that was answered is there, for good; one that was not is there or not;
//! and nothing else.

use std::collections::BTreeMap;
use std::ops::Range;

use twintrack_link::manage::{
    DeviceInfo, DeviceInfoKind, PinnedKind, SessionInfo, SessionInfoState, TrackRange, WhenFull,
};

use super::{Device, Ledger, Lent, Maybe, Part, Session, Stage};
use crate::oracle::CutId;
use crate::site::Site;

impl Ledger {
    /// Holds a listing of an array's devices and sessions against what is known, and takes from it what was not. Whatever
    /// a command is changing just now is left out.
    pub fn compare(&mut self, site: Site, devices: &[DeviceInfo], sessions: &[SessionInfo]) {
        self.compare_joints(site, devices, sessions);
        self.adopt(site, devices, sessions);
        self.compare_cuts(site, sessions);
        let here = self.devices.iter().filter(|(_, device)| device.site == site);
        for name in here.map(|(name, _)| name.clone()).collect::<Vec<_>>() {
            self.compare_device(&name, devices);
        }
        let here = self.sessions.iter().filter(|(_, session)| session.site == site);
        for label in here.map(|(label, _)| label.clone()).collect::<Vec<_>>() {
            self.compare_session(&label, devices, sessions);
        }
        let busy = |ledger: &Self| {
            ledger.sessions.values().any(|s| s.busy > 0) || ledger.devices.values().any(|d| d.busy > 0)
        };
        if !busy(self) {
            let known = |info: &&SessionInfo| {
                info.state == SessionInfoState::Removing
                    // What a copy of a pair is made from.
                    || (is_pinned(info, PinnedKind::Source)
                        && info.virtual_device.is_none()
                        && self
                            .plan_name(site, devices, &info.standard)
                            .is_some_and(|name| self.is_copied(&name)))
                    || (info.pinned.is_some() && self.was_paired(site, devices, &info.standard))
                    || self
                        .sessions
                        .values()
                        .any(|session| session.site == site && session.id == Some(info.id))
            };
            if let Some(info) = sessions.iter().find(|info| !known(info)) {
                self.blame(format_args!("session {} on {} is nobody's", info.id, info.standard));
            }
        }
    }

    /// Sessions that one command activates are active all, or none.
    fn compare_cuts(&mut self, site: Site, listed: &[SessionInfo]) {
        let mut seen: BTreeMap<CutId, (String, bool)> = BTreeMap::new();
        let mut torn = Vec::new();
        for (label, session) in self.sessions.iter().filter(|(_, session)| session.site == site) {
            let open = session.stage.may_be(&Stage::Active) && session.stage.may_be(&Stage::Related);
            let (Some(cut), true, 0) = (session.cut, open, session.busy) else { continue };
            let info = session.id.and_then(|id| listed.iter().find(|info| info.id == id));
            let Some(info) = info else { continue };
            let active = info.state == SessionInfoState::Active;
            let (first, first_active) = seen.entry(cut).or_insert_with(|| (label.clone(), active));
            if *first_active != active {
                torn.push(format!(
                    "{first} and {label} were to be activated by one command, and one of them is"
                ));
            }
        }
        for what in torn {
            self.blame(format_args!("{what}"));
        }
    }

    /// Gives numbers to those whose creation was not answered.
    fn adopt(&mut self, site: Site, devices: &[DeviceInfo], sessions: &[SessionInfo]) {
        for info in devices {
            if self.devices.values().any(|device| device.site == site && device.id == Some(info.id)) {
                continue;
            }
            let nameless = self.devices.values_mut().find(|device| {
                device.site == site
                    && device.id.is_none()
                    && device.busy == 0
                    && device.name.may_be(&info.name)
                    && device.exists.may_be(&true)
            });
            if let Some(device) = nameless {
                device.id = Some(info.id);
            }
        }
        for info in sessions {
            // An array's own, but for what it keeps of before a restore.
            let is_before = is_pinned(info, PinnedKind::Before);
            if info.pinned.is_some() && !is_before {
                continue;
            }
            if self.sessions.values().any(|session| session.site == site && session.id == Some(info.id)) {
                continue;
            }
            let Some(standard) = self.plan_name(site, devices, &info.standard) else { continue };
            let shown_by =
                info.virtual_device.as_ref().and_then(|listed| self.plan_name(site, devices, listed));
            let fits = |(_, session): &(&String, &mut Session)| {
                session.site == site
                    && session.id.is_none()
                    && session.busy == 0
                    && session.standard == standard
                    && session.part.as_ref().map(Part::within) == info.tracks.map(within)
                    && session.is_before == is_before
                    && (session.stage.may_be(&stage(info.state))
                        || (stage(info.state) == Stage::Failed && session.stage.may_be(&Stage::Active)))
                    && (is_before || session.shown_by.may_be(&shown_by))
            };
            let Some((label, session)) = self.sessions.iter_mut().find(fits) else { continue };
            session.id = Some(info.id);
            let shown = devices.iter().find(|device| Some(&device.name) == info.virtual_device.as_ref());
            let device = self.devices.get_mut(label).filter(|_| is_before);
            if let (Some(device), Some(shown)) = (device, shown) {
                (device.id, device.name) = (Some(shown.id), Maybe::is(shown.name.clone()));
            }
        }
    }

    /// What is kept of before a restore can be seen: its virtual device is there as long as it is.
    fn compare_before(&mut self, label: &str, listed: &[DeviceInfo], info: Option<&SessionInfo>) {
        let shown = self.devices.get(label).and_then(|device| device.id);
        let there = shown.is_some_and(|id| listed.iter().any(|info| info.id == id));
        let lives = info.is_some_and(|info| info.virtual_device.is_some());
        if lives != there {
            self.blame(format_args!(
                "session {label}, of before a restore, is there: {lives}, its device: {there}"
            ));
        }
    }

    /// Whether a listed device is or was in a pair: then an array may have kept there what lost a split brain (F4).
    fn was_paired(&self, site: Site, devices: &[DeviceInfo], listed: &str) -> bool {
        let name = self.plan_name(site, devices, listed);
        name.is_some_and(|name| self.pairs.values().any(|pair| pair.spec.device(site) == name))
    }

    /// What the plan calls the device that is listed under a name.
    fn plan_name(&self, site: Site, devices: &[DeviceInfo], listed: &str) -> Option<String> {
        let id = devices.iter().find(|info| info.name == listed)?.id;
        let named = |(_, device): &(&String, &Device)| device.site == site && device.id == Some(id);
        self.devices.iter().find(named).map(|(name, _)| name.clone())
    }

    fn compare_device(&mut self, name: &str, listed: &[DeviceInfo]) {
        let device = &self.devices[name];
        if device.busy > 0 {
            return;
        }
        let info = device.id.and_then(|id| listed.iter().find(|info| info.id == id));
        let mut wrong = Vec::new();
        if !device.exists.may_be(&info.is_some()) {
            wrong.push(if info.is_some() {
                "it was deleted".to_string()
            } else {
                "it is not there".to_string()
            });
        }
        if let Some(info) = info {
            if !device.name.may_be(&info.name) {
                wrong.push(format!("it is called {}, not {:?}", info.name, device.name.all()));
            }
            if !device.online.may_be(&info.online) {
                wrong.push(format!("online is {}", info.online));
            }
            if !device.reserved.may_be(&info.reserved) {
                wrong.push(format!("reserved is {}", info.reserved));
            }
            let standard = matches!(info.kind, DeviceInfoKind::Standard { .. });
            if standard != device.standard.is_some() {
                wrong.push(format!("it is {:?}", info.kind));
            }
            if standard && !device.size.may_be(&info.size_bytes) {
                wrong.push(format!("it has {} bytes, not {:?}", info.size_bytes, device.size.all()));
            }
        }
        let (now, epoch) = (self.history.tick(), self.history.epoch(device.site));
        if let Some(device) = self.devices.get_mut(name) {
            // What was asked before a crash and is there after it is committed; what is not there will not come.
            let for_good = device.asked < epoch;
            let open = device.exists.known().is_none()
                || device.name.known().is_none()
                || device.online.known().is_none()
                || device.reserved.known().is_none();
            device.exists.shown(info.is_some(), for_good);
            if let Some(info) = info {
                device.name.shown(info.name.clone(), for_good);
                device.online.shown(info.online, for_good);
                device.reserved.shown(info.reserved, for_good);
                if device.standard.is_some() {
                    device.size.shown(info.size_bytes, for_good);
                }
            }
            if open {
                device.changed = now;
            }
        }
        for what in wrong {
            self.blame(format_args!("device {name}: {what}"));
        }
    }

    fn compare_session(&mut self, label: &str, devices: &[DeviceInfo], listed: &[SessionInfo]) {
        let session = &self.sessions[label];
        if session.busy > 0 {
            return;
        }
        let info = session.id.and_then(|id| listed.iter().find(|info| info.id == id));
        let info = info.cloned();
        let info = info.as_ref();
        let (is_before, lent) = (session.is_before, session.lent);
        if is_before {
            self.compare_before(label, devices, info);
        }
        let is_source = info.is_some_and(|info| is_pinned(info, PinnedKind::Source));
        if let Some(session) = self.sessions.get_mut(label) {
            session.is_source = is_source;
        }
        if lent == Lent::UsedUp {
            let goes_on = info.is_some_and(|info| info.state != SessionInfoState::Removing) && !is_source;
            if goes_on {
                self.blame(format_args!("session {label} goes on, though a restore has used it up"));
            }
            // A crash may undo its end, and no command ends it.
            if let Some(device) = self.devices.get_mut(label).filter(|_| is_before) {
                [true, false].into_iter().for_each(|exists| device.exists.also(exists));
            }
            return;
        }
        let session = &self.sessions[label];
        let stage = info.map_or(Stage::Gone, |info| stage(info.state));
        let lost_to_full = stage == Stage::Failed
            && (self.excuses.full || self.excuses.disks)
            && self.excuses.when_full == WhenFull::FailSessions
            && (session.stage.may_be(&Stage::Active) || session.stage.may_be(&Stage::Deactivated));
        if !session.stage.may_be(&stage) && !lost_to_full {
            let known = session.stage.all().to_vec();
            self.blame(format_args!("session {label}: it is {stage:?}, and should be {known:?}"));
        }
        let session = &self.sessions[label];
        let newly_active = stage == Stage::Active && session.stage.known().is_none();
        let newly_deactivated = stage == Stage::Deactivated && session.stage.known().is_none();
        let site = session.site;
        let shown_by = info.and_then(|info| info.virtual_device.clone()).and_then(|listed| {
            let named = |device: &Device| device.site == site && device.name.may_be(&listed);
            self.devices.iter().find(|(_, device)| named(device)).map(|(name, _)| name.clone())
        });
        let for_good = session.asked < self.history.epoch(site);
        if let (Some(session), true) = (self.sessions.get_mut(label), newly_active) {
            session.shown_by.shown(shown_by.clone(), for_good);
            self.cut_happened(label);
        }
        let now = self.history.tick();
        if let Some(session) = self.sessions.get_mut(label) {
            session.stage.shown(stage, for_good);
            session.shown_by.shown(shown_by.clone(), for_good);
            if let (true, Some(span)) = (newly_deactivated, &mut session.deactivated) {
                span.answer = span.answer.min(now);
            }
        }
        if (newly_active || newly_deactivated)
            && let Some(device) = shown_by.and_then(|name| self.devices.get_mut(&name))
        {
            device.changed = now;
        }
    }
}

fn within(tracks: TrackRange) -> Range<u64> {
    u64::from(tracks.first)..u64::from(tracks.last) + 1
}

fn is_pinned(info: &SessionInfo, kind: PinnedKind) -> bool {
    info.pinned.as_ref().is_some_and(|pinned| pinned.what == kind)
}

fn stage(state: SessionInfoState) -> Stage {
    match state {
        SessionInfoState::Registered => Stage::Registered,
        // Of a snapshot on both arrays that is not decided: it is not active yet.
        SessionInfoState::Related | SessionInfoState::Prepared => Stage::Related,
        SessionInfoState::Active => Stage::Active,
        SessionInfoState::Deactivated => Stage::Deactivated,
        SessionInfoState::Failed => Stage::Failed,
        SessionInfoState::Removing => Stage::Gone,
    }
}
