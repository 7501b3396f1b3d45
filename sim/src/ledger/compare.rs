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
            let fits = |session: &Session| {
                session.site == site
                    && session.id.is_none()
                    && session.standard == standard
                    && session.part.as_ref().map(Part::within) == info.tracks.map(within)
                    && session.is_before == is_before
                    && (session.stage.may_be(&stage(info.state))
                        || (stage(info.state) == Stage::Failed && session.stage.may_be(&Stage::Active)))
                    && (is_before || session.shown_by.may_be(&shown_by))
            };
            // Who is just being made may be it, too.
            if self.sessions.values().any(|session| session.busy > 0 && fits(session)) {
                continue;
            }
            let Some((label, session)) = self.sessions.iter_mut().find(|(_, session)| fits(session)) else {
                continue;
            };
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
        // With a session of before a restore its device goes.
        let ends = self.sessions.get(name).is_some_and(|session| session.is_before && session.busy > 0);
        if device.busy > 0 || ends {
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

#[cfg(test)]
mod tests {
    use twintrack_link::manage::PinnedInfo;

    use super::*;
    use crate::ledger::Excuses;
    use crate::oracle::Ending;
    use crate::plan::RestoreItem;
    use crate::timeline::Timeline;

    fn ledger() -> Ledger {
        let when_full = WhenFull::FailSessions;
        let excuses = Excuses { disks: false, full: false, connections: true, when_full };
        let mut ledger = Ledger::new(65536, excuses, Timeline::new(false));
        ledger.expect_device(Site::A, "d0", Some(1 << 20));
        ledger.devices.get_mut("d0").unwrap().exists = Maybe::is(true);
        ledger
    }

    fn standard() -> DeviceInfo {
        let kind = DeviceInfoKind::Standard { pool: "p".into(), sessions: 0 };
        DeviceInfo {
            id: 1,
            name: "d0".into(),
            size_bytes: 1 << 20,
            kind,
            online: true,
            reserved: false,
            copies: Vec::new(),
        }
    }

    fn shows(session: u32, name: &str) -> DeviceInfo {
        let kind = DeviceInfoKind::Virtual { shows: vec![session] };
        DeviceInfo { id: 100 + session, name: name.into(), kind, online: false, ..standard() }
    }

    fn active(id: u32, shown_by: &str, what: Option<PinnedKind>) -> SessionInfo {
        SessionInfo {
            id,
            standard: "d0".into(),
            tracks: None,
            virtual_device: Some(shown_by.into()),
            state: SessionInfoState::Active,
            group: None,
            activated_ms: Some(1),
            pinned: what.map(|what| PinnedInfo { what, pair: String::new(), needed: false }),
        }
    }

    /// A restore used up what an earlier one had kept, and with that went its device; but a listing of amid the command had shown
    /// it, and then it had to stay for ever (`local` 1500).
    #[test]
    fn a_device_of_before_a_restore_goes_with_its_session() {
        let mut ledger = ledger();
        let (name, before) = ("d0.before-1", Some(PinnedKind::Before));
        let restore = |session: &str, keep, makes: &str| RestoreItem {
            session: session.into(),
            to: None,
            keep,
            makes: Some(makes.into()),
            name: None,
            offline: false,
        };
        ledger.expect_session(Site::A, "s", "d0", None);
        ledger.cut_begins(&["s".into()], true);
        let items = [restore("s", true, "b")];
        let restoring = ledger.restore_begins(&items).unwrap();
        ledger.restore_called(&items, &restoring, &["b".into()]);
        ledger.restore_ended(&items, restoring, &["b".into()], true);
        ledger.sessions.get_mut("s").unwrap().stage = Maybe::is(Stage::Gone);
        let kept = [standard(), shows(8, name)];
        ledger.compare(Site::A, &kept, &[active(8, name, before)]);
        assert_eq!(ledger.violations, []);

        let items = [restore("b", false, "c")];
        let restoring = ledger.restore_begins(&items).unwrap();
        ledger.crashed(Site::A, Ending::Killed);
        ledger.compare(Site::A, &kept, &[active(8, name, before)]);
        let name = "d0.before-2";
        let kept = [standard(), shows(9, name)];
        ledger.compare(Site::A, &kept, &[active(9, name, before)]);
        ledger.restore_called(&items, &restoring, &["c".into()]);
        ledger.restore_ended(&items, restoring, &["c".into()], true);
        ledger.compare(Site::A, &kept, &[active(9, name, before)]);
        assert_eq!(ledger.violations, []);
    }

    /// Nobody knew whether an establishment had come to anything, when another one of the same part of the device was seen amid its
    /// steps. That was taken for the first one's, and then it was gone (`full` 1612).
    #[test]
    fn what_is_being_made_is_nobody_elses() {
        let mut ledger = ledger();
        for label in ["first", "second"] {
            ledger.expect_session(Site::A, label, "d0", None);
            ledger.session_changes(label, Some(Stage::Registered));
            ledger.sessions.get_mut(label).unwrap().part =
                Some(Part { first: 0, tracks: 2, at: 0, all: vec![label.into()] });
        }
        ledger.session_changed("first", |_| {});
        let tracks = Some(TrackRange { first: 0, last: 1 });
        let state = SessionInfoState::Registered;
        let info = SessionInfo { tracks, state, virtual_device: None, ..active(8, "", None) };
        ledger.compare(Site::A, &[standard()], &[info]);
        assert_eq!(ledger.sessions["first"].id, None);
        ledger.session_changed("second", |session| session.id = Some(8));
        ledger.compare(Site::A, &[standard()], &[]);
        assert_eq!(ledger.violations, []);
    }
}
