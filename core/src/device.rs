//! Commands on devices: each checks first, then changes everything in one unit (crash rule 2b).

use crate::command::CommandError;
use crate::ids::{DeviceId, Generation, PoolId, UnitSeq};
use crate::records::{Change, DEVICES_MAX, DeviceKind, DeviceRecord, NAME_BYTES_MAX};
use crate::tables::Tables;

impl Tables {
    /// A standard device.
    pub fn create_standard(
        &mut self,
        name: &str,
        pool: PoolId,
        size_bytes: u64,
    ) -> Result<(DeviceId, UnitSeq), CommandError> {
        self.geometry.check_device_size(size_bytes)?;
        if !self.pools.contains_key(&pool) {
            return Err(CommandError::NoPool { pool });
        }
        let kind = DeviceKind::Standard { pool, generation: Generation(0), deleting: false };
        self.create(DeviceRecord { name: name.to_owned(), kind, size_bytes, online: true, reserved: false })
    }

    /// A virtual device: shows nothing yet (Fig. 8: accessible once established).
    pub fn create_virtual(&mut self, name: &str) -> Result<(DeviceId, UnitSeq), CommandError> {
        let kind = DeviceKind::Virtual;
        self.create(DeviceRecord {
            name: name.to_owned(),
            kind,
            size_bytes: 0,
            online: true,
            reserved: false,
        })
    }

    fn create(&mut self, record: DeviceRecord) -> Result<(DeviceId, UnitSeq), CommandError> {
        self.check_new_device(&record.name)?;
        let (number, next) = self.take_id()?;
        let id = DeviceId(number);
        Ok((id, self.put(vec![next, Change::Device(id, Some(record))], &[])))
    }

    /// Another name.
    pub fn rename(&mut self, id: DeviceId, to: &str) -> Result<UnitSeq, CommandError> {
        self.check_new_name(to, Some(id))?;
        let mut record = self.live_device(id)?.clone();
        record.name = to.to_owned();
        Ok(self.put(vec![Change::Device(id, Some(record))], &[]))
    }

    /// More room at the end of a standard device, reading as zeros. Its sessions keep their size.
    pub fn grow(&mut self, id: DeviceId, to_bytes: u64) -> Result<UnitSeq, CommandError> {
        self.geometry.check_device_size(to_bytes)?;
        let mut record = self.standard(id)?.clone();
        self.check_unpaired(id)?;
        self.check_uncopied(id)?;
        if to_bytes < record.size_bytes {
            return Err(CommandError::Shrink { name: record.name, size_bytes: record.size_bytes, to_bytes });
        }
        record.size_bytes = to_bytes;
        Ok(self.put(vec![Change::Device(id, Some(record))], &[]))
    }

    /// Lets hosts use a device, or stops them.
    pub fn set_online(&mut self, id: DeviceId, online: bool) -> Result<UnitSeq, CommandError> {
        let mut record = self.live_device(id)?.clone();
        record.online = online;
        Ok(self.put(vec![Change::Device(id, Some(record))], &[]))
    }

    /// Keeps a standard device to become the secondary of a pair (C9), or lets it go.
    pub fn set_reserved(&mut self, id: DeviceId, reserved: bool) -> Result<UnitSeq, CommandError> {
        let mut record = self.standard(id)?.clone();
        self.check_unpaired(id)?;
        record.reserved = reserved;
        Ok(self.put(vec![Change::Device(id, Some(record))], &[]))
    }

    /// Removes a device that no session uses, and the copies that end with it. A standard device's tracks are given back by [`Self::reclaim`]; its
    /// name is free at once.
    pub fn delete_device(&mut self, id: DeviceId) -> Result<UnitSeq, CommandError> {
        let mut record = self.live_device(id)?.clone();
        self.check_unpaired(id)?;
        let copies = self.copies_that_end(id)?;
        if let Some(session) = self.session_shown_by(id) {
            return Err(CommandError::Shown { name: record.name, session });
        }
        let device = &self.devices[&id];
        if !device.sessions.is_empty() {
            return Err(CommandError::HasSessions { name: record.name, sessions: device.sessions.len() });
        }
        let change = match &mut record.kind {
            DeviceKind::Standard { deleting, .. } => {
                *deleting = true;
                Change::Device(id, Some(record))
            }
            DeviceKind::Virtual => Change::Device(id, None),
        };
        let mut changes: Vec<_> = copies.into_iter().map(|copy| Change::Copy(copy, None)).collect();
        changes.push(change);
        let seq = self.put(changes, &[]);
        // A session that ended may have left versions behind that were kept after they were last looked at.
        self.collect_anew(id);
        Ok(seq)
    }

    pub(crate) fn check_new_device(&self, name: &str) -> Result<(), CommandError> {
        self.check_new_name(name, None)?;
        if self.devices.len() >= DEVICES_MAX {
            return Err(CommandError::Limit { what: "the number of devices".into(), most: DEVICES_MAX });
        }
        Ok(())
    }

    pub(crate) fn live_device(&self, id: DeviceId) -> Result<&DeviceRecord, CommandError> {
        self.device(id)
            .filter(|record| !record.is_deleting())
            .ok_or_else(|| CommandError::NoDevice { device: id.to_string() })
    }

    pub(crate) fn standard(&self, id: DeviceId) -> Result<&DeviceRecord, CommandError> {
        let record = self.live_device(id)?;
        if record.is_standard() {
            Ok(record)
        } else {
            Err(CommandError::NotStandard { name: record.name.clone() })
        }
    }

    pub(crate) fn check_new_name(&self, name: &str, holder: Option<DeviceId>) -> Result<(), CommandError> {
        check_name(name)?;
        match self.device_named(name) {
            Some((id, _)) if Some(id) != holder => Err(CommandError::Exists { name: name.to_owned() }),
            _ => Ok(()),
        }
    }

    pub(crate) fn take_id(&self) -> Result<(u32, Change), CommandError> {
        let next = self.next_id.checked_add(1).ok_or_else(|| CommandError::Limit {
            what: "the number of devices, sessions and groups that ever were".into(),
            most: u32::MAX as usize,
        })?;
        Ok((self.next_id, Change::NextId(next)))
    }
}

/// Refuses what is no name of a device, peer or group of pairs.
pub(crate) fn check_name(name: &str) -> Result<(), CommandError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let begins = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    if name.len() > NAME_BYTES_MAX || !begins || !name.chars().all(plain) {
        return Err(CommandError::Name { name: name.chars().take(2 * NAME_BYTES_MAX).collect() });
    }
    Ok(())
}
