//! What is known of snapshots on both arrays (F3). Their sessions and virtual devices, those of both arrays, go by one name: the
//! volume's, a dot, and the snapshot's. Until it is known what has become of a snapshot on an array they count as being changed;
//! from then on they are like any others.

use twintrack_link::manage::{DeviceInfo, RemoteSnapshotInfo, SessionInfo, SessionInfoState};

use super::{Ledger, Maybe, Stage};
use crate::oracle::{CutId, Origin, Part, Violation, VolumeId, check_parts};
use crate::site::Site;

/// A snapshot on both arrays.
#[derive(Debug, Clone)]
pub struct Joint {
    /// The array that is asked, and decides.
    pub at: Site,
    /// The number of the call (F2).
    pub request: u64,
    /// What it is called.
    pub name: String,
    /// One of its pairs.
    pub pair: String,
    /// Whether there is one; `None`: that is not known yet.
    pub there: Option<bool>,
    /// Whether each array's part is what it will be.
    pub settled: [bool; 2],
    /// The epochs of the array in which it was asked for, and not answered.
    asked: Vec<u32>,
    /// Either array was seen to have it.
    seen: bool,
    /// Its sessions on each array.
    labels: [Vec<String>; 2],
    /// What it is of: the devices, and their volumes when it was called.
    of: Vec<(String, VolumeId)>,
    cut: CutId,
}

impl Joint {
    /// Its sessions on an array, by the names of their virtual devices, too.
    pub fn labels(&self, site: Site) -> &[String] {
        &self.labels[site.index()]
    }
}

impl Ledger {
    /// A snapshot of a pair and its group is called, at an array: whether it can be known what it shows.
    pub fn joint_begins(&mut self, pair: &str, name: &str, at: Site) -> bool {
        let specs: Vec<_> = self.group_of(pair).iter().map(|pair| self.pairs[pair].spec.clone()).collect();
        let label = |device: &str| format!("{device}.{name}");
        let volume = |device: &str| self.devices.get(device).and_then(|device| device.standard);
        let of = specs.iter().map(|spec| Some((spec.device(at).to_string(), volume(spec.device(at))?)));
        let Some(of) = of.collect::<Option<Vec<_>>>().filter(|of| !of.is_empty()) else { return false };
        let known = |(device, _): &(String, _)| {
            self.devices.contains_key(&label(device)) || self.handled.contains(device)
        };
        if self.joints.contains_key(name) || of.iter().any(known) {
            return false;
        }
        self.changes += 1;
        let (request, cut) = (self.changes, self.history.begin_cut(at));
        for site in Site::ALL {
            for (spec, (_, of)) in specs.iter().zip(&of) {
                self.expect_part(
                    site,
                    spec.device(site),
                    &label(spec.device(site)),
                    Origin::Snapshot(*of, cut),
                );
            }
        }
        let labels = Site::ALL.map(|site| specs.iter().map(|spec| label(spec.device(site))).collect());
        let joint = Joint {
            at,
            request,
            name: name.into(),
            pair: pair.into(),
            there: None,
            settled: [false; 2],
            asked: Vec::new(),
            seen: false,
            labels,
            of,
            cut,
        };
        self.joints.insert(name.into(), joint);
        true
    }

    fn expect_part(&mut self, site: Site, standard: &str, label: &str, origin: Origin) {
        self.expect_device(site, label, None);
        self.device_changes(label, |device| {
            device.exists.also(true);
            device.shows = Some(label.into());
        });
        let volume = self.history.add_volume(site, label, origin);
        self.expect_session(site, label, standard, None);
        self.session_changes(label, Some(Stage::Related));
        if let Some(session) = self.sessions.get_mut(label) {
            session.stage.also(Stage::Active);
            session.shown_by = Maybe::is(Some(label.into()));
            session.volume = Some(volume);
        }
    }

    /// It was asked for, in an epoch of the array, and nobody knows whether that came to anything.
    pub fn joint_unanswered(&mut self, name: &str, epoch: u32) {
        if let Some(joint) = self.joints.get_mut(name) {
            joint.asked.push(epoch);
        }
    }

    /// It was refused: there is none, nor will be.
    pub fn joint_refused(&mut self, name: &str) {
        let Some(joint) = self.joints.get_mut(name) else { return };
        let (at, before) = (joint.at, joint.there.replace(false));
        if before == Some(true) || joint.seen {
            self.blame_joint(name, "it was refused when it was asked for again, and there is one");
        } else if before.is_none() {
            self.joint_settled(name, at, false);
        }
    }

    /// It was made, or had been, as an answer says to what was asked in an epoch of the array.
    pub fn joint_made(&mut self, name: &str, infos: &[RemoteSnapshotInfo], epoch: u32) {
        let Some(joint) = self.joints.get(name).cloned() else { return };
        let anew = infos.iter().any(|info| info.there.is_some());
        if joint.there.is_none() {
            self.date_joint(&joint, anew.then_some(epoch));
            if infos.len() != joint.of.len() {
                self.blame_joint(name, "it was made, and not of all of its volumes");
            }
        } else if joint.there == Some(false) || anew {
            self.blame_joint(name, "it was asked for again, and made anew");
        }
        for info in infos {
            let here = info.here.virtual_device.clone().unwrap_or_default();
            // Until the other array shows it, nobody does anything with it there.
            let there = info.there.filter(|_| info.shown_there);
            for (site, label, id) in
                [(joint.at, &here, Some(info.here.id)), (joint.at.other(), &info.virtual_device_there, there)]
            {
                self.name_part(&joint, site, label, id);
            }
        }
        if let Some(joint) = self.joints.get_mut(name) {
            joint.there = Some(true);
        }
        self.joint_settled(name, joint.at, true);
        if infos.iter().all(|info| info.shown_there) {
            self.joint_settled(name, joint.at.other(), true);
        }
    }

    /// A session of it has that number.
    fn name_part(&mut self, joint: &Joint, site: Site, label: &str, id: Option<u32>) {
        let known = joint.labels(site).iter().any(|known| known == label);
        match self.sessions.get_mut(label).filter(|_| known) {
            None => self.blame_joint(&joint.name, "a session of it is shown by a device of another name"),
            Some(session) if id.is_none() || session.id == id => {}
            Some(session) if session.id.is_none() => session.id = id,
            Some(_) => self.blame_joint(&joint.name, "it was asked for again, and has another session"),
        }
    }

    /// When it was: in the epoch in which it is made `anew`, or in one in which it was asked for before.
    fn date_joint(&mut self, joint: &Joint, anew: Option<u32>) {
        let mut epochs = joint.asked.clone();
        epochs.dedup();
        let epochs = anew.map_or(epochs, |epoch| vec![epoch]);
        self.history.cut_asked_in(joint.cut, &epochs);
        // One that was given up meanwhile may have come back as another volume, and be shown as that.
        let another = |(device, of): &(String, VolumeId)| {
            self.devices.get(device).is_none_or(|device| device.standard != Some(*of))
        };
        if joint.of.iter().any(another) {
            self.history.blur_cut(joint.cut);
        }
        self.history.end_cut(joint.cut);
    }

    /// What an array has of it is what it will have, for good.
    pub fn joint_settled(&mut self, name: &str, site: Site, there: bool) {
        let Some(joint) = self.joints.get_mut(name) else { return };
        if std::mem::replace(&mut joint.settled[site.index()], true) {
            return;
        }
        for label in joint.labels(site).to_vec() {
            self.device_changed(&label, |device| device.exists = Maybe::is(there));
            let stage = if there { Stage::Active } else { Stage::Gone };
            self.session_changed(&label, |session| session.stage = Maybe::is(stage));
        }
    }

    /// Those of which it is not known what became of them on either array.
    pub fn open_joints(&self) -> Vec<String> {
        let open = self.joints.values().filter(|joint| joint.settled != [true; 2]);
        open.map(|joint| joint.name.clone()).collect()
    }

    /// Whether a session is of a snapshot on both arrays.
    pub fn is_joint(&self, label: &str) -> bool {
        self.joints
            .values()
            .any(|joint| Site::ALL.iter().any(|site| joint.labels(*site).iter().any(|l| l == label)))
    }

    /// Holds a listing against what is known of those snapshots whose sessions may still be changed.
    pub(super) fn compare_joints(&mut self, site: Site, devices: &[DeviceInfo], sessions: &[SessionInfo]) {
        let mut found = Vec::new();
        for joint in self.joints.values_mut() {
            let parts: Vec<Part> = joint.labels(site).iter().map(|label| part(label, sessions)).collect();
            if !joint.settled[site.index()] {
                joint.seen |= site != joint.at && parts.contains(&Part::Shown);
                found.push(check_parts(&joint.name, &parts, joint.there, joint.at == site));
            } else if joint.there == Some(false) {
                let left = devices.iter().find(|info| joint.labels(site).contains(&info.name));
                found.extend(left.map(|info| {
                    let what =
                        format_args!("snapshot {}: there is none, and {} was left", joint.name, info.name);
                    Err(Violation::new("joint", what))
                }));
            }
        }
        for found in found {
            self.hold(found);
        }
    }

    fn blame_joint(&mut self, name: &str, what: &str) {
        self.hold::<()>(Err(Violation::new("joint", format_args!("snapshot {name}: {what}"))));
    }
}

/// What a listing shows of a session.
pub fn part(label: &str, sessions: &[SessionInfo]) -> Part {
    let info = sessions.iter().find(|info| info.virtual_device.as_deref() == Some(label));
    match info.map(|info| info.state) {
        None => Part::None,
        Some(SessionInfoState::Prepared) => Part::Prepared,
        Some(_) => Part::Shown,
    }
}
