//! One unit that begins sessions and raises generations of several devices, each perhaps more than once.

use std::collections::{BTreeMap, BTreeSet};

use crate::command::CommandError;
use crate::extent::Extent;
use crate::ids::{DeviceId, Generation, SessionId, TrackNo};
use crate::pair::too_many_ids;
use crate::records::{
    Change, DEVICES_MAX, DeviceKind, DeviceRecord, Pinned, SESSIONS_PER_DEVICE_MAX, SessionRecord,
    SessionState,
};
use crate::tables::Tables;

/// What the unit changes so far.
pub(super) struct Draft<'t> {
    tables: &'t Tables,
    next_id: u32,
    devices: BTreeMap<DeviceId, DeviceRecord>,
    sessions: Vec<(SessionId, SessionRecord)>,
    names: BTreeSet<String>,
}

impl<'t> Draft<'t> {
    pub(super) fn new(tables: &'t Tables) -> Self {
        Self {
            tables,
            next_id: tables.next_id,
            devices: BTreeMap::new(),
            sessions: Vec::new(),
            names: BTreeSet::new(),
        }
    }

    /// Names that the same unit gives to devices.
    pub(super) fn with_names<'n>(mut self, names: impl IntoIterator<Item = &'n String>) -> Self {
        self.names = names.into_iter().cloned().collect();
        self
    }

    /// A number that nothing has had.
    pub(super) fn take_id(&mut self) -> Result<u32, CommandError> {
        let number = self.next_id;
        self.next_id = number.checked_add(1).ok_or_else(too_many_ids)?;
        Ok(number)
    }

    /// The record of a device, to be changed.
    pub(super) fn device(&mut self, id: DeviceId) -> Result<&mut DeviceRecord, CommandError> {
        if !self.devices.contains_key(&id) {
            self.devices.insert(id, self.tables.live_device(id)?.clone());
        }
        self.devices.get_mut(&id).ok_or(CommandError::NoDevice { device: id.to_string() })
    }

    /// A standard device's generation ends, and another begins: the one that has ended.
    pub(super) fn raise(&mut self, id: DeviceId) -> Result<Generation, CommandError> {
        let device = self.device(id)?;
        let DeviceKind::Standard { generation, .. } = &mut device.kind else {
            return Err(CommandError::NotStandard { name: device.name.clone() });
        };
        let ended = *generation;
        *generation = ended.next().ok_or_else(|| CommandError::Limit {
            what: format!("the number of generations of {id}"),
            most: u32::MAX as usize,
        })?;
        Ok(ended)
    }

    /// A session of a device, or of a part of it, that begins now. `shown`: with a virtual device of its own, offline, named after
    /// the device.
    pub(super) fn session(
        &mut self,
        standard: DeviceId,
        part: Option<Extent>,
        pinned: Pinned,
        shown: Option<&str>,
        wall_ms: u64,
    ) -> Result<SessionId, CommandError> {
        if shown.is_some() {
            self.check_room(standard)?;
        }
        self.raise(standard)?;
        let device = self.device(standard)?;
        let (name, activated) = (device.name.clone(), device.generation());
        let size_bytes = part.map_or(device.size_bytes, |part| part.size_bytes);
        let extent = part.map(|part| Extent { at: TrackNo(0), ..part });
        let virtual_device = match shown {
            None => None,
            Some(what) => {
                let id = DeviceId(self.take_id()?);
                let name = self.free_name(&name, what);
                self.names.insert(name.clone());
                let record = DeviceRecord {
                    name,
                    kind: DeviceKind::Virtual,
                    size_bytes,
                    online: false,
                    reserved: false,
                };
                self.devices.insert(id, record);
                Some(id)
            }
        };
        let id = SessionId(self.take_id()?);
        let state = SessionState::Active { activated };
        let pinned = Some(pinned);
        let record = SessionRecord { standard, extent, virtual_device, state, activated_ms: wall_ms, pinned };
        self.sessions.push((id, record));
        Ok(id)
    }

    /// The changes, in the order in which they refer to each other.
    pub(super) fn changes(self) -> Vec<Change> {
        let next = (self.next_id != self.tables.next_id).then_some(Change::NextId(self.next_id));
        let devices = self.devices.into_iter().map(|(id, record)| Change::Device(id, Some(record)));
        let sessions = self.sessions.into_iter().map(|(id, record)| Change::Session(id, Some(record)));
        next.into_iter().chain(devices).chain(sessions).collect()
    }

    /// Whether another session of a device may be made, with another virtual device.
    fn check_room(&self, standard: DeviceId) -> Result<(), CommandError> {
        let made = self.sessions.iter().filter(|(_, record)| record.standard == standard).count();
        if self.tables.sessions_of(standard).count() + made >= SESSIONS_PER_DEVICE_MAX {
            let what = format!("the number of sessions of {standard}");
            return Err(CommandError::Limit { what, most: SESSIONS_PER_DEVICE_MAX });
        }
        let shown = self.sessions.iter().filter(|(_, record)| record.virtual_device.is_some()).count();
        if self.tables.devices.len() + shown >= DEVICES_MAX {
            return Err(CommandError::Limit { what: "the number of devices".into(), most: DEVICES_MAX });
        }
        Ok(())
    }

    fn free_name(&self, device: &str, what: &str) -> String {
        let mut names = (1u32..).map(|n| format!("{device:.48}.{what}-{n}"));
        let free = names.find(|name| !self.names.contains(name) && self.tables.device_named(name).is_none());
        free.unwrap_or_default()
    }
}
