//! A disk with a cache: what was not synced becomes, at a power cut, any of the values that it had since.

use std::collections::BTreeMap;

use twintrack_core::PhysicalTrack;

use crate::common::Rng;

/// What a block shows that was never written, or was discarded.
pub const JUNK: u32 = u32::MAX;

/// A value a 4 KiB block of every physical track.
#[derive(Debug, Default)]
pub struct Disk {
    platter: BTreeMap<(PhysicalTrack, u32), u32>,
    /// Values since the last sync that covered them, oldest first, each with its place in the order of all writes.
    cache: BTreeMap<(PhysicalTrack, u32), Vec<(u64, u32)>>,
    written: u64,
}

impl Disk {
    pub fn write(&mut self, track: PhysicalTrack, block: u32, value: u32) {
        self.written += 1;
        self.cache.entry((track, block)).or_default().push((self.written, value));
    }

    /// `None` stands for zeros, as in an entry.
    pub fn read(&self, track: Option<PhysicalTrack>, block: u32) -> u32 {
        let Some(track) = track else { return 0 };
        let cached = self.cache.get(&(track, block)).and_then(|values| values.last());
        let value = cached.map(|(_, value)| value).or_else(|| self.platter.get(&(track, block)));
        value.copied().unwrap_or(JUNK)
    }

    /// What a sync that begins now covers.
    pub fn mark(&self) -> u64 {
        self.written
    }

    /// A sync that began at `mark` has ended, on the tracks that `on` names.
    pub fn sync(&mut self, mark: u64, on: impl Fn(PhysicalTrack) -> bool) {
        for (place, values) in self.cache.iter_mut().filter(|((track, _), _)| on(*track)) {
            let covered = values.partition_point(|(at, _)| *at <= mark);
            if let Some((_, value)) = values.drain(..covered).next_back() {
                self.platter.insert(*place, value);
            }
        }
        self.cache.retain(|_, values| !values.is_empty());
    }

    pub fn cut(&mut self, rng: &mut Rng) {
        for (place, values) in std::mem::take(&mut self.cache) {
            // One of those that came since the last sync, or none of them.
            if let Some((_, value)) = values.get(rng.below(values.len() + 1)) {
                self.platter.insert(place, *value);
            }
        }
    }
}
