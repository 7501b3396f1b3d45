//! A model that copies everything: each device and each session is an image of all its sectors.

use std::collections::{BTreeMap, BTreeSet};

use twintrack_core::{DeviceId, GroupId, NAME_BYTES_MAX, SECTOR_BYTES, SessionId};

/// The content of a track table, in whole tracks: what lies behind the end of a device is zeros.
#[derive(Debug, Clone, Default)]
pub struct Image {
    pub sectors: Vec<u32>,
    /// Tracks that take space: written and not trimmed since.
    pub allocated: Vec<bool>,
    /// Which write or trim of a track was the last one.
    pub written: Vec<u32>,
}

#[derive(Debug, Clone)]
pub struct Device {
    pub name: String,
    pub standard: bool,
    pub size_bytes: u64,
    pub online: bool,
    pub image: Image,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Registered,
    Related,
    Active,
    Deactivated,
    Failed,
}

impl State {
    /// As core displays it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Registered => "registered",
            Self::Related => "related",
            Self::Active => "active",
            Self::Deactivated => "deactivated",
            Self::Failed => "failed",
        }
    }

    pub fn is_point(self) -> bool {
        matches!(self, Self::Active | Self::Deactivated)
    }
}

#[derive(Debug, Clone)]
pub struct Session {
    pub standard: DeviceId,
    /// What it is of; `None`: all of it (D19).
    pub part: Option<Part>,
    pub shown_by: Option<DeviceId>,
    pub group: Option<GroupId>,
    pub state: State,
    pub size_bytes: u64,
    pub image: Image,
    /// Tracks that were written or trimmed since its activation, on either device, until its deactivation.
    pub changed: BTreeSet<u32>,
}

/// Some tracks of a standard device.
#[derive(Debug, Clone, Copy)]
pub struct Part {
    pub first: u32,
    pub last: u32,
    pub size_bytes: u64,
    /// The byte of the virtual device behind it.
    pub end: u64,
}

impl Session {
    /// Whether a track of its standard device is one of its own.
    pub fn shows(&self, track: u32) -> bool {
        self.part.is_none_or(|part| (part.first..=part.last).contains(&track))
    }
}

/// Everything, and the rules of the commands in plain words.
#[derive(Debug, Default)]
pub struct Model {
    pub devices: BTreeMap<DeviceId, Device>,
    pub sessions: BTreeMap<SessionId, Session>,
    pub groups: BTreeSet<GroupId>,
}

/// The variant of the error that a command must give.
pub type Refused = &'static str;

impl Model {
    pub fn standard(&self, id: DeviceId) -> Result<&Device, Refused> {
        let device = self.devices.get(&id).ok_or("NoDevice")?;
        if device.standard { Ok(device) } else { Err("NotStandard") }
    }

    pub fn session_of(&self, virtual_device: DeviceId) -> Option<SessionId> {
        self.sessions.iter().find(|(_, s)| s.shown_by == Some(virtual_device)).map(|(id, _)| *id)
    }

    pub fn check_name(&self, name: &str, holder: Option<DeviceId>) -> Result<(), Refused> {
        let letters = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_' || b == b'.');
        let begins = name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
        if name.is_empty() || name.len() > NAME_BYTES_MAX || !letters || !begins {
            return Err("Name");
        }
        match self.devices.iter().find(|(_, device)| device.name == name) {
            Some((id, _)) if Some(*id) != holder => Err("Exists"),
            _ => Ok(()),
        }
    }

    /// The byte behind the last part that a virtual device shows.
    pub fn parts_end(&self, virtual_device: DeviceId) -> u64 {
        let shown = self.sessions.values().filter(|session| session.shown_by == Some(virtual_device));
        shown.filter_map(|session| session.part).map(|part| part.end).max().unwrap_or(0)
    }

    pub fn relate(
        &self,
        session: SessionId,
        virtual_device: DeviceId,
        track_bytes: u32,
    ) -> Result<(), Refused> {
        let session = self.sessions.get(&session).ok_or("NoSession")?;
        if session.state != State::Registered {
            return Err("SessionState");
        }
        if self.devices.get(&virtual_device).ok_or("NoDevice")?.standard {
            return Err("NotVirtual");
        }
        let mut others = self.sessions.values().filter(|other| other.shown_by == Some(virtual_device));
        let joins = |other: &Session| {
            session.part.is_some()
                && other.part.is_some()
                && other.state == State::Related
                && other.group == session.group
        };
        if !others.all(joins) {
            return Err("Shown");
        }
        if self.parts_end(virtual_device).is_multiple_of(u64::from(track_bytes)) {
            Ok(())
        } else {
            Err("PartialTrack")
        }
    }

    pub fn activate(
        &self,
        list: &[(SessionId, Option<String>)],
        group: Option<GroupId>,
    ) -> Result<(), Refused> {
        if list.is_empty() {
            return Err("Nothing");
        }
        for (at, (id, name)) in list.iter().enumerate() {
            let session = self.sessions.get(id).ok_or("NoSession")?;
            if session.state != State::Related {
                return Err("SessionState");
            }
            if session.group.is_some() && session.group != group {
                return Err("InGroup");
            }
            if list[..at].iter().any(|(other, _)| other == id) {
                return Err("Twice");
            }
            let apart = |(other, of): (&SessionId, &Session)| {
                of.shown_by == session.shown_by && list.iter().all(|(listed, _)| listed != other)
            };
            if session.shown_by.is_some() && self.sessions.iter().any(apart) {
                return Err("Apart");
            }
            if let Some(name) = name {
                self.check_name(name, session.shown_by)?;
                if list[..at].iter().any(|(_, other)| other.as_ref() == Some(name)) {
                    return Err("Exists");
                }
            }
        }
        Ok(())
    }

    /// The cut: each session is a copy of its device as it is now.
    pub fn cut(&mut self, list: &[(SessionId, Option<String>)]) {
        for (id, name) in list {
            let Some(session) = self.sessions.get_mut(id) else { continue };
            let standard = &self.devices[&session.standard];
            session.state = State::Active;
            session.group = None;
            session.image = standard.image.clone();
            session.size_bytes = standard.size_bytes;
            if let Some(shows) = session.shown_by.and_then(|shows| self.devices.get_mut(&shows)) {
                if session.part.is_none() {
                    shows.size_bytes = session.size_bytes;
                }
                shows.online = true;
                if let Some(name) = name {
                    shows.name.clone_from(name);
                }
            }
        }
    }

    /// A track of a standard device changed: the sessions that can tell.
    pub fn mark_changed(&mut self, standard: DeviceId, track: u32) {
        for session in self.sessions.values_mut() {
            let tracks = session.image.allocated.len() as u32;
            let sees = track < tracks && session.shows(track);
            if session.standard == standard && session.state == State::Active && sees {
                session.changed.insert(track);
            }
        }
    }
}

impl Image {
    /// Zeros, of so many tracks.
    pub fn resize(&mut self, tracks: usize, sectors_per_track: usize) {
        self.sectors.resize(tracks * sectors_per_track, 0);
        self.allocated.resize(tracks, false);
        self.written.resize(tracks, 0);
    }

    pub fn write(&mut self, first: usize, count: usize, value: u32, sectors_per_track: usize) {
        self.sectors[first..first + count].fill(value);
        let tracks = first / sectors_per_track..=(first + count - 1) / sectors_per_track;
        self.allocated[tracks.clone()].fill(true);
        self.written[tracks].fill(value);
    }

    pub fn trim(&mut self, track: usize, value: u32, sectors_per_track: usize) {
        self.sectors[track * sectors_per_track..(track + 1) * sectors_per_track].fill(0);
        self.allocated[track] = false;
        self.written[track] = value;
    }
}

/// Sectors of a device.
pub fn sectors(size_bytes: u64) -> usize {
    (size_bytes / u64::from(SECTOR_BYTES)) as usize
}
