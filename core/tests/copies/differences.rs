//! What differs between two moments, compared with the images of the model (F7): every sector that differs is told of, and
//! nothing of a track that nobody wrote since the older of the two.

use std::ops::Range;

use twintrack_core::{CommandError, DeviceId, Look, Moment, SECTOR_BYTES, SessionId};

use crate::model::{Image, Session, State};
use crate::world::World;

/// A moment, what the model has of it, and the bytes of its standard device that it is of.
type Seen<'a> = (Moment, &'a Image, Range<u64>);

impl World {
    /// Every session of each device beside the device, and beside the next of its sessions.
    pub fn check_differences(&self) -> Result<(), String> {
        for (id, device) in self.model.devices.iter().filter(|(_, device)| device.standard) {
            let of_device = |(_, session): &(&SessionId, &Session)| session.standard == *id;
            let sessions: Vec<_> = self.model.sessions.iter().filter(of_device).collect();
            let active: Vec<_> = sessions.iter().filter(|(_, s)| s.state == State::Active).collect();
            let now = (Moment::Now(*id), &device.image, 0..device.size_bytes);
            let seen = active.iter().map(|(id, s)| (Moment::Session(**id), &s.image, self.bytes_of(s)));
            let moments: Vec<Seen> = seen.chain([now.clone()]).collect();
            for (at, moment) in moments.iter().enumerate() {
                self.check_pair(moment, &now)?;
                if let Some(next) = moments.get(at + 1) {
                    self.check_pair(next, moment)?;
                }
            }
            for (session, _) in sessions.iter().filter(|(_, s)| s.state != State::Active) {
                let told = self.tables.compare(Moment::Session(**session), Moment::Now(*id));
                if !matches!(told, Err(CommandError::SessionState { .. })) {
                    return Err(format!("{session} is not active, and is compared: {told:?}"));
                }
            }
            self.check_strangers(*id, &active.iter().map(|(id, _)| **id).collect::<Vec<_>>())?;
        }
        Ok(())
    }

    fn bytes_of(&self, session: &Session) -> Range<u64> {
        let Some(part) = session.part else { return 0..session.size_bytes };
        let begin = u64::from(part.first) * u64::from(self.geometry.track_bytes());
        begin..begin + part.size_bytes
    }

    fn check_strangers(&self, device: DeviceId, sessions: &[SessionId]) -> Result<(), String> {
        let others = self.model.devices.iter().filter(|(id, other)| **id != device && other.standard);
        for (other, _) in others {
            for session in sessions {
                let told = self.tables.compare(Moment::Now(*other), Moment::Session(*session));
                if !matches!(told, Err(CommandError::NotOfDevice { .. })) {
                    return Err(format!("{session} is compared with {other}: {told:?}"));
                }
            }
        }
        Ok(())
    }

    fn check_pair(&self, first: &Seen, second: &Seen) -> Result<(), String> {
        let ((a, image_a, bytes_a), (b, image_b, bytes_b)) = (first.clone(), second.clone());
        let is_part = |moment| self.tables.part_of(moment).is_some();
        // What one of them is of a part of is compared there.
        let (begin, until) = match (is_part(a), is_part(b)) {
            (true, true) if bytes_a != bytes_b => {
                return match self.tables.compare(a, b) {
                    Err(CommandError::PartsDiffer { .. }) => Ok(()),
                    told => Err(format!("{a:?} and {b:?} are other parts, and are compared: {told:?}")),
                };
            }
            (true, _) => (bytes_a.start, bytes_a.end),
            (false, true) => (bytes_b.start, bytes_b.end),
            (false, false) => (0, u64::MAX),
        };
        let (size_a, size_b) = (bytes_a.end.min(until), bytes_b.end.min(until));
        // Few looks at a time, so that every track is the last one now and then.
        let mut told = self.told(a, b, 1)?;
        if told != self.told(a, b, u32::MAX)? {
            return Err(format!("{a:?} and {b:?} differ otherwise in one look"));
        }
        let (common, end) = (size_a.min(size_b), size_a.max(size_b));
        told.retain(|range| range.start < range.end);
        if told.windows(2).any(|two| two[0].end > two[1].start)
            || told.iter().any(|range| range.start < begin || range.end > end)
        {
            return Err(format!("{a:?} and {b:?} differ in {told:?}"));
        }
        let differs = |byte: u64| told.iter().any(|range| range.contains(&byte));
        for byte in (begin..end).step_by(SECTOR_BYTES as usize) {
            let sector = (byte / u64::from(SECTOR_BYTES)) as usize;
            let (track, _) = self.geometry.locate(byte);
            let [written_a, written_b] =
                [image_a, image_b].map(|image| image.written.get(track.0 as usize).copied());
            let same = byte < common && image_a.sectors[sector] == image_b.sectors[sector];
            if !same && !differs(byte) {
                return Err(format!("{a:?} and {b:?} differ at {byte}, told is {told:?}"));
            }
            // The block in which the smaller one ends is taken as a whole.
            let beyond = size_a != size_b && byte >= common - common % 4096;
            if differs(byte) && written_a == written_b && !beyond {
                return Err(format!("nobody wrote {track} between {a:?} and {b:?}, told is {told:?}"));
            }
        }
        Ok(())
    }

    fn told(&self, a: Moment, b: Moment, looks: u32) -> Result<Vec<Range<u64>>, String> {
        let comparison = self.tables.compare(a, b).map_err(|error| error.to_string())?;
        let (mut at, mut told) = (0, Vec::new());
        loop {
            let mut left = looks;
            // The first look ends where it began; the next goes on.
            at = match comparison.next(at, &mut left) {
                Look::Differs(range) if range.start < at => {
                    return Err(format!("{range:?} lies before {at}"));
                }
                Look::Differs(range) => {
                    told.push(range.clone());
                    range.end
                }
                Look::SameUntil(until) if until <= at => return Err(format!("no way on from {at}")),
                Look::SameUntil(until) => until,
                Look::End => return Ok(told),
            };
        }
    }
}
