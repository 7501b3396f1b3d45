//! What differs between two sessions of a standard device, or between one and the device as it is (F7).
//!
//! Blocks are compared by where they lie: the same block of the same physical track has one content at any instant. So
//! nothing that differs is left out, and no track is told of that nobody wrote since the older of the two. A track that
//! was written may be told of as a whole.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::command::CommandError;
use crate::defect::{Defect, planted};
use crate::entry::Entry;
use crate::extent::Extent;
use crate::geometry::BLOCK_BYTES;
use crate::ids::{DeviceId, Generation, Owner, Place, SessionId, TrackNo};
use crate::mask::BlockMask;
use crate::records::SessionState;
use crate::remote::TrackSet;
use crate::tables::{Device, Tables};

/// One of two things that are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// What an active session shows, with what was written through its virtual device.
    Session(SessionId),
    /// A standard device as it is now.
    Now(DeviceId),
}

/// Two moments of one standard device.
#[derive(Debug)]
pub struct Comparison<'a> {
    tables: &'a Tables,
    device: &'a Device,
    owners: [Owner; 2],
    own: [Option<&'a BTreeMap<TrackNo, Entry>>; 2],
    /// Tracks that are still to come to the device by a copy within the array.
    to_come: Option<&'a TrackSet>,
    /// Tracks whose present content only the other array has.
    lacked: Option<&'a TrackSet>,
    /// The first byte that is compared: that of the part, if one of them is of a part.
    begin: u64,
    /// The end of the smaller moment, and that of the larger one.
    sizes: [u64; 2],
}

/// What one look finds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Look {
    /// These bytes differ, and none before them.
    Differs(Range<u64>),
    /// Nothing differs before this byte, and the look has ended there.
    SameUntil(u64),
    /// Nothing more differs.
    End,
}

impl Tables {
    /// Two moments side by side; if one of them is of a part of the standard device (D19), by that part, at the bytes where the
    /// device has it. Refused if one of them is no active session, which alone has all its tracks, if they are not of one
    /// standard device, or of two different parts of it.
    pub fn compare(&self, a: Moment, b: Moment) -> Result<Comparison<'_>, CommandError> {
        let [first, second] = [self.standard_at(a)?, self.standard_at(b)?];
        if first != second {
            let name = self.devices.get(&first).map_or_else(String::new, |device| device.record.name.clone());
            let other =
                if let Moment::Session(session) = b { session.to_string() } else { second.to_string() };
            return Err(CommandError::NotOfDevice { other, name });
        }
        let device =
            self.devices.get(&first).ok_or_else(|| CommandError::NoDevice { device: first.to_string() })?;
        let copy = self.filling.get(&first).and_then(|id| self.copies.get(id));
        let to_come = copy.filter(|copy| copy.record.fill.is_some()).map(|copy| &copy.to_copy.set);
        let with_now = [a, b].contains(&Moment::Now(first));
        let pair = self.pair_of_device(first).filter(|_| with_now);
        let part = self.common_part(a, b, &device.record.name)?;
        let end = part.map_or(u64::MAX, |part| part.end(self.geometry));
        let mut sizes = [a, b].map(|moment| self.size_at(moment, device).min(end));
        sizes.sort_unstable();
        Ok(Comparison {
            tables: self,
            device,
            owners: [a, b].map(Moment::owner),
            own: [a, b].map(|moment| self.own_at(moment)),
            to_come,
            lacked: pair.and_then(|pair| self.lacked(pair)),
            begin: part.map_or(0, |part| self.geometry.offset_of(part.first)),
            sizes,
        })
    }

    fn standard_at(&self, moment: Moment) -> Result<DeviceId, CommandError> {
        match moment {
            Moment::Now(device) => self.standard(device).map(|_| device),
            Moment::Session(session) => {
                let record = self.session(session).ok_or(CommandError::NoSession { session })?;
                if self.is_undecided(session) {
                    return Err(CommandError::Undecided { session });
                }
                let SessionState::Active { .. } = record.state else {
                    let (wanted, verb) = ("active", "compared");
                    return Err(CommandError::SessionState { session, state: record.state, wanted, verb });
                };
                Ok(record.standard)
            }
        }
    }

    /// The part that both have of their standard device; `None`: both are of all of it.
    fn common_part(&self, a: Moment, b: Moment, name: &str) -> Result<Option<Extent>, CommandError> {
        match [a, b].map(|moment| self.part_of(moment)) {
            [Some(first), Some(second)]
                if (first.first, first.size_bytes) != (second.first, second.size_bytes) =>
            {
                Err(CommandError::PartsDiffer { name: name.to_owned() })
            }
            [first, second] => Ok(first.or(second)),
        }
    }

    /// The part of its standard device that a moment is of; `None`: it is of all of it.
    pub fn part_of(&self, moment: Moment) -> Option<Extent> {
        match moment {
            Moment::Now(_) => None,
            Moment::Session(session) => self.session(session)?.extent,
        }
    }

    /// Up to which byte of the standard device a moment has it.
    fn size_at(&self, moment: Moment, device: &Device) -> u64 {
        if let Some(part) = self.part_of(moment) {
            return part.end(self.geometry);
        }
        let shows = match moment {
            Moment::Now(_) => None,
            Moment::Session(session) => self.session(session).and_then(|record| record.virtual_device),
        };
        shows.and_then(|shows| self.device(shows)).unwrap_or(&device.record).size_bytes
    }

    fn own_at(&self, moment: Moment) -> Option<&BTreeMap<TrackNo, Entry>> {
        match moment {
            Moment::Now(_) => None,
            Moment::Session(session) => self.sessions.get(&session).map(|session| &session.own),
        }
    }
}

impl Moment {
    fn owner(self) -> Owner {
        match self {
            Self::Session(session) => Owner::Session(session),
            Self::Now(device) => Owner::Device(device),
        }
    }
}

impl Comparison<'_> {
    /// The next bytes from `at` on that differ. Every track that it has to look at takes one of `looks`; when there is none
    /// left, it ends.
    pub fn next(&self, at: u64, looks: &mut u32) -> Look {
        let [smaller, larger] = self.sizes;
        // Beyond the end of the smaller one everything differs, and so does the block in which that lies.
        let grown = if smaller < larger { smaller - smaller % u64::from(BLOCK_BYTES) } else { larger };
        let (geometry, mut at) = (self.tables.geometry(), at.max(self.begin));
        while at < grown {
            let (track, _) = geometry.locate(at);
            let suspect = self.next_suspect(track).filter(|suspect| geometry.offset_of(*suspect) < grown);
            let Some(suspect) = suspect else {
                at = grown;
                break;
            };
            let start = geometry.offset_of(suspect);
            at = at.max(start);
            let Some(left) = looks.checked_sub(1) else { return Look::SameUntil(at) };
            *looks = left;
            let byte = |block: u32| start + u64::from(block) * u64::from(BLOCK_BYTES);
            let missing = u32::from(planted(Defect::DiffShort));
            let mut runs = self.blocks(suspect).runs().map(|run| byte(run.start)..byte(run.end - missing));
            let within = |run: Range<u64>| run.start.max(at)..run.end.min(grown);
            if let Some(run) = runs.find_map(|run| Some(within(run)).filter(|run| run.start < run.end)) {
                return Look::Differs(run);
            }
            // What has grown may begin within the track.
            at = byte(geometry.blocks()).min(grown);
        }
        let at = at.max(grown);
        if at < larger { Look::Differs(at..larger) } else { Look::End }
    }

    /// The next track from `from` on of which the two may have different entries: all others they have from the device.
    fn next_suspect(&self, from: TrackNo) -> Option<TrackNo> {
        let own = self.own.iter().flatten().filter_map(|own| Some(*own.range(from..).next()?.0));
        let versions = self.device.versions.range((from, Generation(0))..);
        let last = || self.device.versions.keys().next_back().map(|(track, _)| *track);
        let is_left_out = |track: &TrackNo| planted(Defect::DiffMissesLast) && last() == Some(*track);
        let kept = versions.map(|((track, _), _)| *track).take(1).filter(|track| !is_left_out(track));
        let sets = [self.to_come, self.lacked].into_iter().flatten().filter_map(|set| set.next(from));
        own.chain(kept).chain(sets).min()
    }

    /// The blocks of a track that lie in different places.
    fn blocks(&self, track: TrackNo) -> BlockMask {
        let full = self.tables.geometry().full();
        if self.lacked.is_some_and(|set| set.contains(track)) || planted(Defect::DiffTellsSame) {
            return full;
        }
        let [a, b] = self.owners.map(|owner| self.tables.entry(Place { owner, track }));
        match (a, b) {
            (Some(a), Some(b)) => differing_blocks(a, b, full),
            _ => full,
        }
    }
}

fn differing_blocks(a: Entry, b: Entry, full: BlockMask) -> BlockMask {
    if a == b {
        return BlockMask::EMPTY;
    }
    full.runs()
        .flatten()
        .filter(|block| a.place_of(*block) != b.place_of(*block))
        .fold(BlockMask::EMPTY, |mask, block| mask | BlockMask::range(block, block + 1))
}
