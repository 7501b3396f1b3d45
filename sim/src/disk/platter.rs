//! What one disk holds: the bytes that a reader sees, and for each sector that was not synced, all that it may become.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use bytes::Bytes;

use super::sparse::Sparse;
use crate::dice::Dice;

/// The unit that a disk writes whole, or tears.
pub const SECTOR_BYTES: u64 = 512;

/// So many sectors at the beginning of a disk never decay.
const KEPT_SECTORS: u64 = 8;

/// What happens to unsynced sectors when the power goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Survival {
    /// All are lost.
    Nothing,
    /// Each by itself is old, newer, or (if the disk tears) a mix of both.
    Mixed,
    /// All are there, as after a crash of the program alone; they are still not synced.
    Everything,
}

/// What a disk is told to do wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DiskFault {
    /// The next reads fail.
    Reads(u32),
    /// The next writes fail; some of their sectors may be written all the same.
    Writes(u32),
    /// The next syncs fail. What was written before is lost: readers still see it until the power goes, and no later
    /// sync saves it. (That is what Linux does.)
    Syncs(u32),
    /// The next syncs fail, and what was written before is lost at once.
    SyncsDropping(u32),
    /// Some written sectors cannot be read until they are written again: how many, and which, as a random number.
    Decay(u32, u64),
    /// Whether writes to places that were never written fail for want of room.
    Full(bool),
}

/// One version of a sector that was not synced.
#[derive(Debug)]
struct Version {
    /// The write that made it; 0: it is on the disk.
    at: u64,
    bytes: Bytes,
}

/// A write that has begun and not ended: it may or may not be there if the power goes now.
#[derive(Debug)]
struct Flight {
    offset: u64,
    data: Vec<Bytes>,
}

/// One disk.
#[derive(Debug)]
pub struct Platter {
    length: u64,
    durable_length: u64,
    now: Sparse,
    unsynced: BTreeMap<u64, Vec<Version>>,
    flying: BTreeMap<u64, Flight>,
    clock: u64,
    doomed: u64,
    decayed: BTreeSet<u64>,
    failing_reads: u32,
    failing_writes: u32,
    failing_syncs: u32,
    drops_on_failed_sync: bool,
    full: bool,
    tears: bool,
    faults_hit: u64,
}

impl Platter {
    /// A disk of `length` bytes. Never written bytes are `fill`; `tears`: a sector may be half written.
    pub fn new(length: u64, fill: u8, tears: bool) -> Self {
        Self {
            length,
            durable_length: length,
            now: Sparse::new(fill),
            unsynced: BTreeMap::new(),
            flying: BTreeMap::new(),
            clock: 0,
            doomed: 0,
            decayed: BTreeSet::new(),
            failing_reads: 0,
            failing_writes: 0,
            failing_syncs: 0,
            drops_on_failed_sync: false,
            full: false,
            tears,
            faults_hit: 0,
        }
    }

    /// Bytes of it.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Grows with every change of what is on it.
    pub fn version(&self) -> u64 {
        self.clock
    }

    /// How many operations failed because a fault said so.
    pub fn faults_hit(&self) -> u64 {
        self.faults_hit
    }

    /// How many sectors are not synced.
    pub fn unsynced_sectors(&self) -> usize {
        self.unsynced.len()
    }

    /// Arms a fault. Returns whether it could be: a disk where nothing was written has nothing that decays.
    pub fn arm(&mut self, fault: DiskFault) -> bool {
        match fault {
            DiskFault::Reads(count) => self.failing_reads = count,
            DiskFault::Writes(count) => self.failing_writes = count,
            DiskFault::Syncs(count) => (self.failing_syncs, self.drops_on_failed_sync) = (count, false),
            DiskFault::SyncsDropping(count) => {
                (self.failing_syncs, self.drops_on_failed_sync) = (count, true);
            }
            DiskFault::Decay(sectors, pick) => return self.decay(sectors, pick),
            DiskFault::Full(full) => self.full = full,
        }
        true
    }

    /// Ends all faults but decay, which only a write ends.
    pub fn disarm(&mut self) {
        (self.failing_reads, self.failing_writes, self.failing_syncs, self.full) = (0, 0, 0, false);
    }

    fn decay(&mut self, sectors: u32, pick: u64) -> bool {
        let chunks = self.now.offsets();
        if chunks.len() == 0 {
            return false;
        }
        let at = pick as usize % chunks.len();
        let chunk = chunks.into_iter().nth(at).unwrap_or(0) / SECTOR_BYTES;
        // The first blocks of a disk say what it is, and there is no other copy of that.
        let first = (chunk + (pick >> 32) % 128).max(KEPT_SECTORS);
        self.decayed.extend(first..first + u64::from(sectors));
        true
    }

    /// Reads.
    pub fn read(&mut self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.check(offset, out.len() as u64)?;
        if self.failing_reads > 0 {
            self.failing_reads -= 1;
            self.faults_hit += 1;
            return Err(io::Error::other("read error"));
        }
        if self.decayed.range(sectors(offset, out.len() as u64)).next().is_some() {
            self.faults_hit += 1;
            return Err(io::Error::other("unreadable sector"));
        }
        self.now.read(offset, out);
        Ok(())
    }

    /// What lies there, faults or not: for who looks at the disk from outside.
    pub fn peek(&self, offset: u64, out: &mut [u8]) {
        self.now.read(offset, out);
    }

    /// Changes a sector, and tells nobody.
    pub fn spoil(&mut self, offset: u64) {
        self.clock += 1;
        let sector = offset / SECTOR_BYTES;
        let spoiled: Vec<u8> = self.sector(sector).iter().map(|byte| byte ^ 0x5a).collect();
        self.now.write(sector * SECTOR_BYTES, &spoiled);
    }

    /// What had decayed can be read again.
    pub fn mend(&mut self) {
        self.decayed.clear();
    }

    /// Begins a write; [`Self::end_write`] ends it. A power cut in between leaves any part of it.
    pub fn begin_write(&mut self, offset: u64, data: Vec<Bytes>) -> io::Result<u64> {
        self.check(offset, data.iter().map(|piece| piece.len() as u64).sum())?;
        self.clock += 1;
        self.flying.insert(self.clock, Flight { offset, data });
        Ok(self.clock)
    }

    /// Ends a write. Does nothing if the power went in between.
    pub fn end_write(&mut self, ticket: u64, dice: &mut Dice) -> io::Result<()> {
        let Some(flight) = self.flying.remove(&ticket) else {
            return Err(io::Error::other("the power went"));
        };
        let length: usize = flight.data.iter().map(Bytes::len).sum();
        if self.full && !self.now.has(flight.offset, length) {
            self.faults_hit += 1;
            return Err(io::Error::new(io::ErrorKind::StorageFull, "no room"));
        }
        if self.failing_writes > 0 {
            self.failing_writes -= 1;
            self.faults_hit += 1;
            self.apply(&flight, Some(dice));
            return Err(io::Error::other("write error"));
        }
        self.apply(&flight, None);
        Ok(())
    }

    /// Writes at one instant.
    pub fn write(&mut self, offset: u64, data: &[u8], dice: &mut Dice) -> io::Result<()> {
        let ticket = self.begin_write(offset, vec![Bytes::copy_from_slice(data)])?;
        self.end_write(ticket, dice)
    }

    /// Puts a write into the cache: all its sectors, or with dice some of them.
    fn apply(&mut self, flight: &Flight, mut some: Option<&mut Dice>) {
        self.clock += 1;
        let mut at = flight.offset;
        for piece in &flight.data {
            let mut done = 0;
            while done < piece.len() {
                let sector = at / SECTOR_BYTES;
                let within = (at % SECTOR_BYTES) as usize;
                let take = (SECTOR_BYTES as usize - within).min(piece.len() - done);
                if some.as_mut().is_none_or(|dice| dice.chance(500)) {
                    let bytes = piece.slice(done..done + take);
                    self.put(sector, within, bytes);
                }
                done += take;
                at += take as u64;
            }
        }
    }

    /// A new version of (a part of) one sector.
    fn put(&mut self, sector: u64, within: usize, bytes: Bytes) {
        let start = sector * SECTOR_BYTES;
        let old = self.sector(sector);
        let versions =
            self.unsynced.entry(sector).or_insert_with(|| vec![Version { at: 0, bytes: old.clone() }]);
        let bytes = if bytes.len() == SECTOR_BYTES as usize {
            bytes
        } else {
            let mut whole = old.to_vec();
            whole[within..within + bytes.len()].copy_from_slice(&bytes);
            Bytes::from(whole)
        };
        self.now.write(start, &bytes);
        versions.push(Version { at: self.clock, bytes });
        self.decayed.remove(&sector);
    }

    fn sector(&self, sector: u64) -> Bytes {
        let mut bytes = vec![0; SECTOR_BYTES as usize];
        self.now.read(sector * SECTOR_BYTES, &mut bytes);
        Bytes::from(bytes)
    }

    /// Gives room back: the content becomes anything, here old bytes, zeros or junk.
    pub fn discard(&mut self, offset: u64, length: u64, dice: &mut Dice) -> io::Result<()> {
        self.check(offset, length)?;
        self.clock += 1;
        let becomes = match dice.below(3) {
            0 => return Ok(()),
            1 => 0,
            _ => 0xd5,
        };
        for sector in offset.div_ceil(SECTOR_BYTES)..(offset + length) / SECTOR_BYTES {
            if self.now.has(sector * SECTOR_BYTES, SECTOR_BYTES as usize) {
                self.put(sector, 0, Bytes::from(vec![becomes; SECTOR_BYTES as usize]));
            }
        }
        Ok(())
    }

    /// Changes the length. What is added is zeros.
    pub fn set_length(&mut self, length: u64) {
        self.clock += 1;
        for sector in length.div_ceil(SECTOR_BYTES)..self.length.div_ceil(SECTOR_BYTES) {
            self.put(sector, 0, Bytes::from_static(&[0; SECTOR_BYTES as usize]));
        }
        self.length = length;
    }

    /// Begins a sync: it covers the writes that have ended.
    pub fn begin_sync(&self) -> u64 {
        self.clock
    }

    /// Ends a sync that began at `mark`.
    pub fn end_sync(&mut self, mark: u64, dice: &mut Dice) -> io::Result<()> {
        if self.failing_syncs > 0 {
            self.failing_syncs -= 1;
            self.faults_hit += 1;
            if self.drops_on_failed_sync {
                self.settle(Survival::Mixed, dice);
            } else {
                self.doomed = mark;
            }
            return Err(io::Error::other("sync error"));
        }
        let doomed = self.doomed;
        self.unsynced.retain(|_, versions| {
            if let Some(last) = versions.iter().rposition(|v| v.at > doomed && v.at <= mark) {
                versions.drain(..last);
                versions[0].at = 0;
            }
            versions.len() > 1
        });
        self.durable_length = self.length;
        Ok(())
    }

    /// The power went: decides what every unsynced sector is. Afterwards all is on the disk.
    pub fn lose(&mut self, survival: Survival, dice: &mut Dice) {
        for flight in std::mem::take(&mut self.flying).into_values() {
            match survival {
                Survival::Nothing => {}
                Survival::Mixed => self.apply(&flight, Some(dice)),
                Survival::Everything if dice.chance(500) => self.apply(&flight, None),
                Survival::Everything => {}
            }
        }
        // What a failed sync has doomed is gone for whoever comes next.
        if survival != Survival::Everything || self.doomed > 0 {
            self.settle(if survival == Survival::Everything { Survival::Nothing } else { survival }, dice);
            self.doomed = 0;
        }
    }

    fn settle(&mut self, survival: Survival, dice: &mut Dice) {
        self.clock += 1;
        for (sector, versions) in std::mem::take(&mut self.unsynced) {
            let old = &versions[0].bytes;
            let becomes = match survival {
                Survival::Everything => continue,
                Survival::Nothing => old.clone(),
                // A cache that goes to the disk in some order: often the newest version, or none.
                Survival::Mixed => match dice.below(if self.tears { 7 } else { 6 }) {
                    0..3 => old.clone(),
                    3..5 => versions[versions.len() - 1].bytes.clone(),
                    5 => dice.pick(&versions).bytes.clone(),
                    _ => {
                        let newer = 1 + dice.below(versions.len() as u64 - 1) as usize;
                        torn(&versions[newer - 1].bytes, &versions[newer].bytes, dice)
                    }
                },
            };
            self.now.write(sector * SECTOR_BYTES, &becomes);
        }
        if survival == Survival::Mixed && dice.chance(500) {
            self.durable_length = self.length;
        }
        self.length = self.durable_length;
    }

    fn check(&self, offset: u64, length: u64) -> io::Result<()> {
        match offset.checked_add(length) {
            Some(end) if end <= self.length => Ok(()),
            _ => Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{offset}+{length} lies behind the end, {}", self.length),
            )),
        }
    }
}

/// A sector of which a part was written: up to some byte, or from some byte on.
fn torn(old: &Bytes, new: &Bytes, dice: &mut Dice) -> Bytes {
    let at = 8 * dice.between(1, SECTOR_BYTES / 8 - 1) as usize;
    let (first, second) = if dice.chance(500) { (new, old) } else { (old, new) };
    [&first[..at], &second[at..]].concat().into()
}

fn sectors(offset: u64, length: u64) -> std::ops::Range<u64> {
    offset / SECTOR_BYTES..(offset + length).div_ceil(SECTOR_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: usize = SECTOR_BYTES as usize;

    fn disk() -> (Platter, Dice) {
        (Platter::new(64 << 10, 0, true), Dice::new(1, "test"))
    }

    fn first(platter: &mut Platter) -> Vec<u8> {
        let mut out = vec![0; S];
        platter.read(0, &mut out).unwrap();
        out
    }

    #[test]
    fn synced_sectors_survive_and_others_are_lost() {
        let (mut platter, mut dice) = disk();
        platter.write(0, &[1; S], &mut dice).unwrap();
        let mark = platter.begin_sync();
        platter.write(0, &[2; S], &mut dice).unwrap();
        platter.end_sync(mark, &mut dice).unwrap();
        assert_eq!(first(&mut platter), [2; S], "a reader sees the newest");
        platter.lose(Survival::Nothing, &mut dice);
        assert_eq!(first(&mut platter), [1; S], "the write during the sync was not in it");
    }

    #[test]
    fn a_mixed_loss_gives_old_newer_and_torn_sectors() {
        let mut seen = BTreeSet::new();
        for seed in 0..200 {
            let (mut platter, mut dice) = (Platter::new(64 << 10, 0, true), Dice::new(seed, "mixed"));
            for value in 1..=3 {
                platter.write(0, &[value; S], &mut dice).unwrap();
            }
            platter.lose(Survival::Mixed, &mut dice);
            let bytes = first(&mut platter);
            seen.insert(if bytes.iter().all(|b| *b == bytes[0]) { bytes[0] } else { 99 });
        }
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), [0, 1, 2, 3, 99]);
    }

    #[test]
    fn a_failed_sync_is_not_made_good_by_a_later_one() {
        let (mut platter, mut dice) = disk();
        platter.write(0, &[1; S], &mut dice).unwrap();
        platter.arm(DiskFault::Syncs(1));
        assert!(platter.end_sync(platter.begin_sync(), &mut dice).is_err());
        platter.end_sync(platter.begin_sync(), &mut dice).unwrap();
        assert_eq!(first(&mut platter), [1; S], "still seen");
        platter.lose(Survival::Nothing, &mut dice);
        assert_eq!(first(&mut platter), [0; S], "and lost");
    }

    #[test]
    fn decayed_sectors_are_unreadable_until_written() {
        let (mut platter, mut dice) = disk();
        assert!(!platter.arm(DiskFault::Decay(1, 0)), "nothing was written");
        platter.write(4096, &[1; S], &mut dice).unwrap();
        assert!(platter.arm(DiskFault::Decay(1, 0)));
        assert!(platter.read(4096, &mut [0; S]).is_err());
        platter.write(4096, &[2; S], &mut dice).unwrap();
        platter.read(4096, &mut [0; S]).unwrap();
    }

    #[test]
    fn a_crash_of_the_program_keeps_the_cache_and_does_not_sync_it() {
        let (mut platter, mut dice) = disk();
        platter.write(0, &[1; S], &mut dice).unwrap();
        platter.lose(Survival::Everything, &mut dice);
        assert_eq!(first(&mut platter), [1; S]);
        platter.lose(Survival::Nothing, &mut dice);
        assert_eq!(first(&mut platter), [0; S]);
    }

    #[test]
    fn a_write_in_flight_may_be_there_or_not() {
        let mut there = 0;
        for seed in 0..100 {
            let (mut platter, mut dice) = (Platter::new(64 << 10, 0, false), Dice::new(seed, "flight"));
            platter.begin_write(0, vec![Bytes::from(vec![1; S])]).unwrap();
            platter.lose(Survival::Mixed, &mut dice);
            there += usize::from(first(&mut platter)[0] == 1);
        }
        assert!((5..95).contains(&there), "{there}");
    }

    #[test]
    fn a_shrunk_file_reads_zeros_when_it_grows_again() {
        let (mut platter, mut dice) = disk();
        platter.write(1024, &[1; S], &mut dice).unwrap();
        platter.set_length(1024);
        assert!(platter.read(1024, &mut [0; S]).is_err());
        platter.set_length(4096);
        let mut out = [9; S];
        platter.read(1024, &mut out).unwrap();
        assert_eq!(out, [0; S]);
    }

    #[test]
    fn a_full_disk_takes_what_it_has_room_for() {
        let (mut platter, mut dice) = (Platter::new(1 << 20, 0, true), Dice::new(1, "full"));
        platter.write(0, &[1; S], &mut dice).unwrap();
        platter.arm(DiskFault::Full(true));
        platter.write(512, &[1; S], &mut dice).unwrap();
        let error = platter.write(512 << 10, &[1; S], &mut dice).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }
}
