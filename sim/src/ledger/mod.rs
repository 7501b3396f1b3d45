//! What the hosts know of the arrays: devices, sessions, and the history of what they did with them. All hosts of a world
//! share one ledger. What they cannot know, because an answer was lost, it holds open until a listing tells.

mod compare;
mod cuts;
mod differs;
mod joint;
mod local;
mod looks;
mod maybe;
mod pairs;
mod parts;
mod reserve;
mod restore;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use twintrack_link::manage::{RefusalCode, WhenFull};

use crate::note;
use crate::oracle::{CutId, Ending, History, Listing, Moment, Origin, Span, Violation, VolumeId, kept_track};
use crate::site::Site;
use crate::timeline::Timeline;

pub use joint::{Joint, part};
pub use local::{Birthplace, Claim, Coupling, LocalPair};
pub use looks::is_same;
pub use maybe::Maybe;
pub use pairs::{Pair, Takeover};
pub use parts::{Layout, Part};
pub use restore::{Lent, Restoring};

/// Where a session may stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Not there: not yet, or no more.
    Gone,
    /// Registered.
    Registered,
    /// Related.
    Related,
    /// Active.
    Active,
    /// Deactivated.
    Deactivated,
    /// It lost its tracks to a full pool.
    Failed,
}

/// A device.
#[derive(Debug, Clone)]
pub struct Device {
    /// Its array.
    pub site: Site,
    /// Its number, once an answer told.
    pub id: Option<u32>,
    /// Its present name.
    pub name: Maybe<String>,
    /// Whether it is there.
    pub exists: Maybe<bool>,
    /// Whether hosts may use it.
    pub online: Maybe<bool>,
    /// Whether it is kept to become the secondary of a pair (C9).
    pub reserved: Maybe<bool>,
    /// Bytes of a standard device; of a virtual device it is not kept.
    pub size: Maybe<u64>,
    /// `None`: virtual.
    pub standard: Option<VolumeId>,
    /// Of a virtual device: the session whose content it shows, or will once that is active.
    pub shows: Option<String>,
    /// How many commands that change it are under way.
    pub busy: u32,
    /// When the last such command ended.
    pub changed: Moment,
    /// The epoch in which the last such command was called.
    pub asked: u32,
}

/// A session.
#[derive(Debug, Clone)]
pub struct Session {
    /// Its array.
    pub site: Site,
    /// Its number, once an answer told.
    pub id: Option<u32>,
    /// Its standard device, as the plan calls it.
    pub standard: String,
    /// The tracks that it is of; `None`: all.
    pub part: Option<Part>,
    /// Its virtual device, as the plan calls it.
    pub shown_by: Maybe<Option<String>>,
    /// Where it stands.
    pub stage: Maybe<Stage>,
    /// Its content, from the call of its activation on.
    pub volume: Option<VolumeId>,
    /// The instant of its activation.
    pub cut: Option<CutId>,
    /// The least and the most bytes that its standard device can have had then.
    pub size_bytes: (u64, u64),
    /// Its deactivation.
    pub deactivated: Option<Span>,
    /// The group that it waits in.
    pub group: Option<String>,
    /// What a restore did to it.
    pub lent: Lent,
    /// Whether a device was taking it over when it was listed last.
    pub is_source: bool,
    /// The array made it, of what a device was before a restore. Its virtual device is called as it is, and goes with it.
    pub is_before: bool,
    /// How many commands that change it are under way.
    pub busy: u32,
    /// The epoch in which the last such command was called.
    pub asked: u32,
}

impl Session {
    /// The tracks of its standard device that it is of.
    pub fn tracks(&self) -> Range<u64> {
        self.part.as_ref().map_or(0..u64::MAX, Part::within)
    }
}

/// What a run did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct Counts {
    /// Host I/O and commands that were answered well.
    pub done: u64,
    /// Those that failed or were refused.
    pub failed: u64,
    /// Those whose end was not seen: given up, or cut off.
    pub unknown: u64,
    /// Those that could not be tried.
    pub skipped: u64,
}

/// What may go wrong without anybody being to blame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Excuses {
    /// Disks fail: any I/O error.
    pub disks: bool,
    /// A pool may run full: no space, failed sessions.
    pub full: bool,
    /// The array crashes or connections break: connections end.
    pub connections: bool,
    /// What gives way when the pool is full: sessions, or hosts' writes.
    pub when_full: WhenFull,
}

/// See the module.
#[derive(Debug)]
pub struct Ledger {
    /// Who wrote and read what.
    pub history: History,
    /// Bytes of a track.
    pub track_bytes: u64,
    /// What may go wrong.
    pub excuses: Excuses,
    /// By the plan's names.
    pub devices: BTreeMap<String, Device>,
    /// By the plan's names.
    pub sessions: BTreeMap<String, Session>,
    /// Groups that were begun, by the plan's names.
    pub groups: BTreeMap<String, u32>,
    /// By the plan's names.
    pub pairs: BTreeMap<String, Pair>,
    /// Pairs within an array, by their secondaries.
    pub locals: BTreeMap<String, LocalPair>,
    /// Snapshots on both arrays, by the plan's names.
    pub joints: BTreeMap<String, Joint>,
    /// Devices that a command may be making another volume: hosts do not use them meanwhile.
    pub turning: BTreeSet<String>,
    /// Devices that were restored, or whose sessions were.
    pub restored: BTreeSet<String>,
    /// From which devices copies brought tracks to which.
    pub brought: BTreeSet<(String, String)>,
    /// Who holds devices, see [`Self::claim`].
    claims: BTreeMap<String, Claim>,
    /// How much I/O hosts have under way, by device.
    pub flying: BTreeMap<String, u32>,
    /// How each array last listed the pairs of each group.
    pub listed: BTreeMap<(Site, String), Listing>,
    /// Devices that hosts use through a handle only, which has a check of its own.
    pub handled: BTreeSet<String>,
    /// What was found.
    pub violations: Vec<Violation>,
    /// What was done.
    pub counts: Counts,
    /// How often a command that changes something began or ended.
    pub changes: u64,
    timeline: Timeline,
}

/// The most violations that a run keeps.
const VIOLATIONS_MAX: usize = 8;

impl Ledger {
    /// Of new arrays.
    pub fn new(track_bytes: u64, excuses: Excuses, timeline: Timeline) -> Self {
        Self {
            history: History::default(),
            track_bytes,
            excuses,
            devices: BTreeMap::new(),
            sessions: BTreeMap::new(),
            groups: BTreeMap::new(),
            pairs: BTreeMap::new(),
            locals: BTreeMap::new(),
            joints: BTreeMap::new(),
            turning: BTreeSet::new(),
            restored: BTreeSet::new(),
            brought: BTreeSet::new(),
            claims: BTreeMap::new(),
            flying: BTreeMap::new(),
            listed: BTreeMap::new(),
            handled: BTreeSet::new(),
            violations: Vec::new(),
            counts: Counts::default(),
            changes: 0,
            timeline,
        }
    }

    /// Somebody is about to note something: it is so late.
    pub fn tell_time(&mut self) {
        self.history.tell_time(self.timeline.now_ms());
    }

    /// Notes a violation, if it is one.
    pub fn hold<T>(&mut self, checked: Result<T, Violation>) -> Option<T> {
        match checked {
            Ok(value) => Some(value),
            Err(violation) => {
                note!(self.timeline, "oracle", "VIOLATION {violation}");
                if self.violations.len() < VIOLATIONS_MAX {
                    self.violations.push(violation);
                }
                None
            }
        }
    }

    /// Notes a violation of the oracle on management.
    pub fn blame(&mut self, what: std::fmt::Arguments<'_>) {
        self.hold::<()>(Err(Violation::new("manage", what)));
    }

    /// An array crashed: what it only listed may have been undone.
    pub fn crashed(&mut self, site: Site, how: Ending) {
        self.history.crash(site, how);
        for device in self.devices.values_mut().filter(|device| device.site == site) {
            device.name.crashed();
            device.exists.crashed();
            device.online.crashed();
            device.reserved.crashed();
            device.size.crashed();
        }
        for session in self.sessions.values_mut().filter(|session| session.site == site) {
            session.stage.crashed();
            session.shown_by.crashed();
        }
    }

    /// A device that a command may create.
    pub fn expect_device(&mut self, site: Site, name: &str, size_bytes: Option<u64>) {
        let standard = size_bytes.map(|_| self.history.add_volume(site, name, Origin::Blank));
        self.devices.insert(
            name.into(),
            Device {
                site,
                id: None,
                name: Maybe::is(name.into()),
                exists: Maybe::is(false),
                online: Maybe::is(true),
                reserved: Maybe::is(false),
                size: Maybe::is(size_bytes.unwrap_or(0)),
                standard,
                shows: None,
                busy: 0,
                changed: self.history.tick(),
                asked: self.history.epoch(site),
            },
        );
    }

    /// A session that a command may register.
    pub fn expect_session(&mut self, site: Site, label: &str, standard: &str, group: Option<&str>) {
        let size_bytes = self.size_bytes(standard);
        let session = Session {
            site,
            id: None,
            standard: standard.into(),
            part: None,
            shown_by: Maybe::is(None),
            stage: Maybe::is(Stage::Gone),
            volume: None,
            cut: None,
            size_bytes,
            deactivated: None,
            group: group.map(Into::into),
            lent: Lent::No,
            is_source: false,
            is_before: false,
            busy: 0,
            asked: self.history.epoch(site),
        };
        self.sessions.entry(label.into()).or_insert(session);
    }

    /// A command that changes a device begins.
    pub fn device_changes(&mut self, name: &str, change: impl FnOnce(&mut Device)) {
        self.changes += 1;
        if let Some(device) = self.devices.get_mut(name) {
            (device.busy, device.asked) = (device.busy + 1, self.history.epoch(device.site));
            change(device);
        }
    }

    /// A command that changes a device ended.
    pub fn device_changed(&mut self, name: &str, change: impl FnOnce(&mut Device)) {
        self.changes += 1;
        let now = self.history.tick();
        if let Some(device) = self.devices.get_mut(name) {
            device.busy -= 1;
            device.changed = now;
            change(device);
        }
    }

    /// A command that changes a session begins.
    pub fn session_changes(&mut self, label: &str, may_become: Option<Stage>) {
        self.changes += 1;
        if let Some(session) = self.sessions.get_mut(label) {
            (session.busy, session.asked) = (session.busy + 1, self.history.epoch(session.site));
            session.stage.also_if(may_become);
        }
        if may_become == Some(Stage::Gone) {
            self.session_may_end(label);
        }
    }

    /// With a session of before a restore goes its virtual device.
    fn session_may_end(&mut self, label: &str) {
        let Some(session) = self.sessions.get_mut(label) else { return };
        session.stage.also(Stage::Gone);
        if let Some(device) = self.devices.get_mut(label).filter(|_| session.is_before) {
            device.exists.also(false);
        }
    }

    /// A command that changes a session ended.
    pub fn session_changed(&mut self, label: &str, change: impl FnOnce(&mut Session)) {
        self.changes += 1;
        let Some(session) = self.sessions.get_mut(label) else { return };
        session.busy -= 1;
        change(session);
        let shown_by = session.shown_by.known().cloned().flatten();
        let now = self.history.tick();
        if let Some(device) = shown_by.and_then(|name| self.devices.get_mut(&name)) {
            device.changed = now;
        }
    }

    /// What a device is or shows, now, or the last one of its parts; `None`: nothing that hosts could use.
    fn volume(&self, device: &str) -> Option<VolumeId> {
        // Whether it is its own or the other half's is not known.
        let open = |pair: &Pair| pair.exists.known().is_none() && pair.spec.device(pair.spec.from) != device;
        if self.pair_of(device).is_some_and(open) || self.handled.contains(device) || self.may_be_held(device)
        {
            return None;
        }
        let device = self.devices.get(device)?;
        match &device.shows {
            Some(label) => self.sessions.get(label)?.volume,
            None => device.standard,
        }
    }

    /// Whether I/O on a device that was called then has a right to be carried out.
    pub fn is_steady(&self, name: &str, since: Moment) -> bool {
        let Some(device) = self.devices.get(name).filter(|_| !self.may_be_held(name)) else { return false };
        if let Some(pair) = self.pair_of(name)
            && !(pair.calm && pair.busy == 0 && pair.spec.device(*pair.serves.latest()) == name)
        {
            return false;
        }
        let shown = match (&device.standard, &device.shows) {
            (Some(_), _) => true,
            (None, Some(label)) => {
                let is_active = |label: &String| {
                    self.sessions.get(label).is_some_and(|session| {
                        session.busy == 0 && session.stage.surely(&Stage::Active) && session.lent == Lent::No
                    })
                };
                !self.excuses.full && self.shown_with(label).iter().all(is_active)
            }
            (None, None) => false,
        };
        shown
            && device.busy == 0
            && device.changed < since
            && device.exists.surely(&true)
            && device.online.surely(&true)
            && device.name.known().is_some()
    }

    /// Sessions that surely keep something, and would have to give way before a write to that device, called then, is
    /// refused for want of room: number, name, and a track that each keeps.
    pub fn sessions_that_keep(&self, device: &str, call: Moment) -> Vec<(u32, String, u64)> {
        let standard = self.devices.get(device).is_some_and(|device| device.standard.is_some());
        if !standard || self.excuses.disks || self.excuses.when_full != WhenFull::FailSessions {
            return Vec::new();
        }
        // What a session keeps may be a copy's, too: then nothing is free without it.
        if !self.brought.is_empty() {
            return Vec::new();
        }
        let sure = |session: &&Session| session.busy == 0 && session.stage.surely(&Stage::Active);
        let site = self.devices.get(device).map(|device| device.site);
        let sessions = self.sessions.iter().filter(|(_, s)| sure(s) && Some(s.site) == site);
        let kept = sessions.filter_map(|(label, session)| {
            let track =
                kept_track(&self.history, session.volume?, self.track_bytes, &session.tracks(), call)?;
            Some((session.id?, label.clone(), track))
        });
        kept.collect()
    }

    /// A virtual device that no session uses, as far as is known.
    pub fn is_free_virtual(&self, name: &str) -> bool {
        self.devices.get(name).is_some_and(|device| device.standard.is_none() && device.exists.surely(&true))
            && !self.is_used_by_others(name, &[])
    }

    /// The array of a device, if it is known.
    pub fn site_of(&self, device: &str) -> Option<Site> {
        self.devices.get(device).map(|device| device.site)
    }

    /// Whether a virtual device may show a session other than those.
    fn is_used_by_others(&self, name: &str, labels: &[String]) -> bool {
        self.sessions.iter().any(|(other, session)| {
            !labels.contains(other)
                && !session.stage.surely(&Stage::Gone)
                && session.shown_by.all().iter().any(|shown_by| shown_by.as_deref() == Some(name))
        })
    }

    /// A command was answered, refused or not: was that right? `allowed`: whether it had to be carried out; `None`: that
    /// is not known.
    pub fn judge(&mut self, command: &str, allowed: Option<bool>, refused: Option<RefusalCode>) {
        let lacking = matches!(refused, Some(RefusalCode::NoSpace | RefusalCode::Limit)) && self.excuses.full;
        let lacking = lacking || (refused == Some(RefusalCode::NoSpace) && self.excuses.disks);
        match (allowed, refused) {
            (Some(true), Some(code)) if !lacking => {
                self.blame(format_args!(
                    "{command} was refused ({code:?}), though nothing speaks against it"
                ));
            }
            (Some(false), None) => {
                self.blame(format_args!("{command} was carried out, though it must not be"));
            }
            _ => {}
        }
    }
}
