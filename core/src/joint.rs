//! Points in time that the array makes itself, each with the virtual device that shows it; and those that two arrays have
//! together (F3): prepared on both, and a session like any other, or gone, once one of them has decided.
//!
//! Prepared, a session is active but for its hosts: its tracks are kept, nobody reads it, and it is pinned. The array that
//! decides makes all of its own sessions ordinary ones in one unit, with the note that the other array has yet to hear of it
//! ([`SagaResult::Untold`]). What it finds undecided after a crash was not decided, and goes; the other one keeps its own until
//! it hears.

use crate::command::CommandError;
use crate::ids::{DeviceId, PeerId, SessionId, UnitSeq};
use crate::pair_records::Records;
use crate::records::{
    Change, DEVICES_MAX, Decision, DeviceKind, DeviceRecord, Pinned, SESSIONS_PER_DEVICE_MAX, SessionRecord,
    SessionState,
};
use crate::remote::{SAGAS_MAX, SagaResult};
use crate::tables::Tables;

/// A point in time to make, with its virtual device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewPoint {
    /// The standard device.
    pub device: DeviceId,
    /// The name of the virtual device, which is made.
    pub shown_by: String,
    /// Whether hosts may use the virtual device.
    pub online: bool,
}

impl Tables {
    /// Whether [`Self::prepare`] would do it.
    pub fn check_prepare(&self, points: &[NewPoint]) -> Result<(), CommandError> {
        if points.is_empty() {
            return Err(CommandError::Nothing);
        }
        for (at, point) in points.iter().enumerate() {
            let name = self.standard(point.device)?.name.clone();
            self.check_new_name(&point.shown_by, None)?;
            let same = |other: &NewPoint| other.shown_by == point.shown_by || other.device == point.device;
            if points[..at].iter().any(same) {
                return Err(CommandError::Exists { name: point.shown_by.clone() });
            }
            self.check_whole_half(point.device)?;
            if self.devices[&point.device].sessions.len() >= SESSIONS_PER_DEVICE_MAX {
                let (what, most) =
                    (format!("the number of sessions of device {name}"), SESSIONS_PER_DEVICE_MAX);
                return Err(CommandError::Limit { what, most });
            }
            self.next_activation(point.device)?;
        }
        if self.devices.len() + points.len() > DEVICES_MAX {
            return Err(CommandError::Limit { what: "the number of devices".into(), most: DEVICES_MAX });
        }
        Ok(())
    }

    /// This array's part of a point in time on two arrays, at one instant for all devices: it is active, and shown once it is
    /// decided. No write to the devices may be under way.
    pub fn prepare(
        &mut self,
        points: &[NewPoint],
        decision: Decision,
        wall_ms: u64,
    ) -> Result<Vec<SessionId>, CommandError> {
        self.check_prepare(points)?;
        let (mut unit, mut changes) = (Records::new(self), Vec::with_capacity(3 * points.len()));
        let mut sessions = Vec::with_capacity(points.len());
        for point in points {
            let pinned = Pinned::Undecided(decision);
            sessions.push(self.point_changes(point, pinned, wall_ms, &mut unit, &mut changes)?);
        }
        changes.extend(unit.changes());
        self.put(changes, &[]);
        Ok(sessions)
    }

    /// The sessions that are undecided, and who decides.
    pub fn undecided(&self) -> impl Iterator<Item = (SessionId, Decision)> {
        self.sessions().filter_map(|(id, record)| match record.pinned {
            Some(Pinned::Undecided(decision)) if record.state.window().is_some() => Some((id, decision)),
            _ => None,
        })
    }

    /// Whether another such point in time may be decided: what the other array has yet to hear of is not forgotten.
    pub fn check_decidable(&self) -> Result<(), CommandError> {
        let untold =
            self.sagas.values().filter(|saga| matches!(saga.result, SagaResult::Untold { .. })).count();
        if untold >= SAGAS_MAX {
            let what =
                "the number of snapshots on two arrays of which the other array has yet to hear".into();
            return Err(CommandError::Limit { what, most: SAGAS_MAX });
        }
        Ok(())
    }

    /// Both arrays have their parts durably: it is decided here that there is the point in time. `peer` has yet to hear of it.
    pub fn decide(&mut self, request: u64, peer: PeerId) -> UnitSeq {
        let mut changes = self.shown_changes(Decision { by: None, request });
        changes.extend(self.saga_changes(request, SagaResult::Untold { peer }));
        self.put(changes, &[])
    }

    /// A peer has decided that there is the point in time. `None`: it is shown already, or there is none.
    pub fn decided(&mut self, peer: PeerId, request: u64) -> Option<UnitSeq> {
        let changes = self.shown_changes(Decision { by: Some(peer), request });
        (!changes.is_empty()).then(|| self.put(changes, &[]))
    }

    /// The other array has heard that it was decided.
    pub fn told(&mut self, request: u64) -> Option<UnitSeq> {
        let mut outcome = self.saga(request)?.clone();
        matches!(outcome.result, SagaResult::Untold { .. }).then(|| {
            outcome.result = SagaResult::Done;
            self.put(vec![Change::Saga(request, Some(outcome))], &[])
        })
    }

    /// The requests that were decided here, and of which a peer has yet to hear.
    pub fn untold_to(&self, peer: PeerId) -> Vec<u64> {
        let untold = self.sagas.iter().filter(|(_, saga)| saga.result == SagaResult::Untold { peer });
        untold.map(|(request, _)| *request).collect()
    }

    /// There is no such point in time after all: its sessions here go. `None`: there are none.
    pub fn drop_undecided(&mut self, decision: Decision) -> Option<UnitSeq> {
        let sessions: Vec<_> = self.undecided().filter(|(_, by)| *by == decision).map(|(id, _)| id).collect();
        let (mut changes, mut lapses) = (Vec::with_capacity(2 * sessions.len()), Vec::new());
        for id in &sessions {
            let record = &self.sessions[id].record;
            if let SessionState::Active { activated } = record.state {
                lapses.push((record.standard, activated));
            }
            changes.push(Change::Session(*id, None));
            changes.extend(record.virtual_device.map(|device| Change::Device(device, None)));
        }
        let standards: Vec<_> = lapses.iter().map(|(standard, _)| *standard).collect();
        let unit = (!changes.is_empty()).then(|| self.put(changes, &lapses));
        standards.into_iter().for_each(|standard| self.collect_anew(standard));
        unit
    }

    /// The sessions of a decision are sessions like any others.
    fn shown_changes(&self, decision: Decision) -> Vec<Change> {
        let sessions = self.undecided().filter(|(_, by)| *by == decision);
        let shown = sessions.map(|(id, _)| {
            let record = SessionRecord { pinned: None, ..self.sessions[&id].record.clone() };
            Change::Session(id, Some(record))
        });
        shown.collect()
    }

    /// The changes that begin a session of a device now, with the virtual device that shows it: its number.
    pub(crate) fn point_changes(
        &self,
        point: &NewPoint,
        pinned: Pinned,
        wall_ms: u64,
        unit: &mut Records,
        changes: &mut Vec<Change>,
    ) -> Result<SessionId, CommandError> {
        let mut device = self.standard(point.device)?.clone();
        let activated = self.next_activation(point.device)?;
        if let DeviceKind::Standard { generation, .. } = &mut device.kind {
            *generation = activated;
        }
        let (shown_by, session) = (DeviceId(unit.take_id()?), SessionId(unit.take_id()?));
        let shows = DeviceRecord {
            name: point.shown_by.clone(),
            kind: DeviceKind::Virtual,
            size_bytes: device.size_bytes,
            online: point.online,
            reserved: false,
        };
        let record = SessionRecord {
            extent: None,
            standard: point.device,
            virtual_device: Some(shown_by),
            state: SessionState::Active { activated },
            activated_ms: wall_ms,
            pinned: Some(pinned),
        };
        changes.push(Change::Device(point.device, Some(device)));
        changes.push(Change::Device(shown_by, Some(shows)));
        changes.push(Change::Session(session, Some(record)));
        Ok(session)
    }

    fn next_activation(&self, device: DeviceId) -> Result<crate::Generation, CommandError> {
        let next = self.devices.get(&device).and_then(|device| device.record.generation().next());
        next.ok_or_else(|| CommandError::Limit {
            what: format!("the number of activations on {device}"),
            most: u32::MAX as usize,
        })
    }
}
