//! The disks of one array, and their power.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::platter::{DiskFault, Platter, Survival};
use crate::dice::Dice;
use crate::note;
use crate::timeline::Timeline;

/// More operations than that in one ms of simulated time are a program that goes round in circles.
const OPERATIONS_MAX: u64 = 5_000;

/// How long disk operations take, in ms of simulated time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latency {
    /// At least.
    pub least_ms: u64,
    /// At most, usually.
    pub most_ms: u64,
    /// How many in a thousand are slow.
    pub slow_per_mille: u32,
    /// How long those take at most.
    pub slow_most_ms: u64,
}

/// One disk of an enclosure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskSpec {
    /// Its name.
    pub name: String,
    /// Bytes of it.
    pub size_bytes: u64,
    /// What its never written bytes are: not zeros, if nobody may count on zeros.
    pub fill: u8,
}

/// What the disks did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DiskStats {
    /// Operations.
    pub operations: u64,
    /// Operations that failed because a fault said so.
    pub faults_hit: u64,
    /// Times that the power went.
    pub power_cuts: u64,
}

/// Whether the power is on. Clones share it; what else hangs on the power looks here.
#[derive(Debug, Clone)]
pub struct Power(Arc<AtomicBool>);

impl Power {
    /// On.
    pub fn on() -> Self {
        Self(Arc::new(AtomicBool::new(true)))
    }

    /// Whether it is on.
    pub fn is_on(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    fn set(&self, on: bool) {
        self.0.store(on, Ordering::Relaxed);
    }
}

/// The disks of one array. Clones share them.
#[derive(Debug, Clone)]
pub struct Enclosure {
    state: Arc<Mutex<State>>,
    latency: Latency,
}

#[derive(Debug)]
struct State {
    disks: Vec<(String, Platter)>,
    marked: bool,
    /// Of the array that is, or was, being formatted.
    serial: Option<u64>,
    power: Power,
    /// Raised each time it is switched on: handles of before are dead.
    boot: u64,
    cut_after: Option<u64>,
    /// The disk, how many more of its writes take long, and how long.
    slow: Option<(String, u64, Duration)>,
    /// The disk, and how many more operations of it are done before the power goes.
    cut_at: Option<(String, u64)>,
    stats: DiskStats,
    /// Operations in the present ms.
    busy: (u64, u64),
    /// The disks that were opened, one after the other, and by which boot.
    opens: Vec<(u64, String)>,
    dice: Dice,
    timeline: Timeline,
}

impl Enclosure {
    /// New disks, switched on. `tears`: sectors may be half written when the power goes.
    pub fn new(disks: &[DiskSpec], tears: bool, latency: Latency, seed: u64, timeline: Timeline) -> Self {
        let disks = disks
            .iter()
            .map(|disk| (disk.name.clone(), Platter::new(disk.size_bytes, disk.fill, tears)))
            .collect();
        Self {
            state: Arc::new(Mutex::new(State {
                disks,
                marked: false,
                serial: None,
                power: Power::on(),
                boot: 0,
                cut_after: None,
                slow: None,
                cut_at: None,
                stats: DiskStats::default(),
                busy: (0, 0),
                opens: Vec::new(),
                dice: Dice::new(seed, "disks"),
                timeline,
            })),
            latency,
        }
    }

    /// Cuts the power when that many more operations have begun.
    pub fn cut_after(&self, operations: u64) {
        self.state().cut_after = Some(operations);
    }

    /// Cuts the power when that many more operations of one disk have begun.
    pub fn cut_at(&self, disk: &str, operations: u64) {
        self.state().cut_at = Some((disk.into(), operations));
    }

    /// Has the next writes of a disk take that long.
    pub fn slow_down(&self, disk: &str, writes: u64, time: Duration) {
        self.state().slow = Some((disk.into(), writes, time));
    }

    /// Cuts the power now.
    pub fn cut(&self) {
        self.state().cut();
    }

    /// Its power.
    pub fn power(&self) -> Power {
        self.state().power.clone()
    }

    /// Decides what became of all that was not synced, and ends the boot: what still runs of the array reaches
    /// nothing any more.
    pub fn lose(&self, survival: Survival) {
        let mut state = self.state();
        let state = &mut *state;
        state.power.set(false);
        (state.cut_after, state.cut_at, state.slow) = (None, None, None);
        for (name, platter) in &mut state.disks {
            let unsynced = platter.unsynced_sectors();
            platter.lose(survival, &mut state.dice);
            note!(state.timeline, "disk", "{name} loses {survival:?} of {unsynced} unsynced sectors");
        }
    }

    /// Switches it on again, for a new boot of the array.
    pub fn switch_on(&self) {
        let mut state = self.state();
        state.power.set(true);
        state.boot += 1;
    }

    /// Arms a fault of a disk; `false` if there is no such disk or nothing that the fault could hit.
    pub fn arm(&self, disk: &str, fault: DiskFault) -> bool {
        let mut state = self.state();
        let armed = state
            .disks
            .iter_mut()
            .find(|(name, _)| name == disk)
            .is_some_and(|(_, platter)| platter.arm(fault));
        note!(state.timeline, "disk", "{disk} {fault:?}{}", if armed { "" } else { " (nothing to hit)" });
        armed
    }

    /// A part of a disk as it is, faults or not; `None`: there is no such disk, or no such part of it.
    pub fn peek(&self, disk: &str, offset: u64, length: u64) -> Option<Vec<u8>> {
        let state = self.state();
        let (_, platter) = state.disks.iter().find(|(name, _)| name == disk)?;
        offset.checked_add(length).filter(|end| *end <= platter.length())?;
        let mut out = vec![0; length as usize];
        platter.peek(offset, &mut out);
        Some(out)
    }

    /// Grows with every change of what is on a disk; 0 if there is none of that name.
    pub fn version(&self, disk: &str) -> u64 {
        let state = self.state();
        state.disks.iter().find(|(name, _)| name == disk).map_or(0, |(_, platter)| platter.version())
    }

    /// Bytes of a disk; 0 if there is none of that name.
    pub fn length(&self, disk: &str) -> u64 {
        let state = self.state();
        state.disks.iter().find(|(name, _)| name == disk).map_or(0, |(_, platter)| platter.length())
    }

    /// Changes a sector of a disk behind the array's back.
    pub fn spoil(&self, disk: &str, offset: u64) {
        let mut state = self.state();
        let state = &mut *state;
        note!(state.timeline, "disk", "{disk} spoiled {offset}");
        let spoiled = state.disks.iter_mut().find(|(name, _)| name == disk);
        if let Some((_, platter)) = spoiled {
            platter.spoil(offset);
        }
    }

    /// What has decayed on any disk can be read again.
    pub fn mend(&self) {
        self.state().disks.iter_mut().for_each(|(_, platter)| platter.mend());
    }

    /// Ends all faults but decay.
    pub fn disarm(&self) {
        let mut state = self.state();
        (state.cut_after, state.cut_at, state.slow) = (None, None, None);
        for (_, platter) in &mut state.disks {
            platter.disarm();
        }
    }

    /// What the disks did.
    pub fn stats(&self) -> DiskStats {
        let state = self.state();
        DiskStats {
            faults_hit: state.disks.iter().map(|(_, platter)| platter.faults_hit()).sum(),
            ..state.stats
        }
    }

    /// How often a disk was opened again by a boot that had opened it before.
    pub fn reopens(&self, disk: &str) -> u64 {
        let state = self.state();
        let opened = |(at, (boot, name)): (usize, &(u64, String))| {
            name == disk && state.opens[..at].iter().any(|(b, n)| b == boot && n == name)
        };
        state.opens.iter().enumerate().filter(|open| opened(*open)).count() as u64
    }

    /// Opens a disk, for this boot.
    pub fn open(&self, disk: &str) -> io::Result<DiskHandle> {
        let mut state = self.state();
        let index = state
            .disks
            .iter()
            .position(|(name, _)| name == disk)
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("no disk {disk}")))?;
        let boot = state.boot;
        state.opens.push((boot, disk.into()));
        Ok(DiskHandle { enclosure: self.clone(), index, boot: state.boot })
    }

    /// Whether the marker was written.
    pub fn is_marked(&self) -> bool {
        self.state().marked
    }

    /// Writes a marker that is there, durably, or not.
    pub fn mark(&self) -> io::Result<()> {
        let mut state = self.state();
        let boot = state.boot;
        state.count(boot, "mark", format_args!(""))?;
        state.marked = true;
        Ok(())
    }

    /// Keeps a serial number as a small file does that is there, durably, or not; returns the one that is kept.
    pub fn keep_serial(&self, serial: u64) -> io::Result<u64> {
        let mut state = self.state();
        let boot = state.boot;
        state.count(boot, "serial", format_args!(""))?;
        Ok(*state.serial.get_or_insert(serial))
    }

    /// Some time, as a disk operation takes.
    pub async fn take_time(&self) {
        let ms = {
            let dice = &mut self.state().dice;
            let Latency { least_ms, most_ms, slow_per_mille, slow_most_ms } = self.latency;
            let most_ms = if dice.chance(slow_per_mille) { slow_most_ms } else { most_ms };
            dice.between(least_ms, most_ms)
        };
        if ms == 0 {
            tokio::task::yield_now().await;
        } else {
            tokio::time::sleep(Duration::from_millis(ms)).await;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn cut(&mut self) {
        if self.power.is_on() {
            self.power.set(false);
            self.stats.power_cuts += 1;
            note!(self.timeline, "disk", "the power goes");
        }
    }

    /// How long a write takes, if that was said.
    fn takes_long(&mut self, index: usize) -> Option<Duration> {
        let (disk, writes, time) = self.slow.as_mut()?;
        let its = *disk == self.disks[index].0 && *writes > 0;
        *writes -= u64::from(its);
        its.then_some(*time)
    }

    /// One operation more. Fails if the power is off, or goes now.
    fn count(&mut self, boot: u64, name: &str, what: std::fmt::Arguments<'_>) -> io::Result<()> {
        if !self.power.is_on() || boot != self.boot {
            return Err(dead());
        }
        self.stats.operations += 1;
        let now_ms = self.timeline.now_ms();
        self.busy = if self.busy.0 == now_ms { (now_ms, self.busy.1 + 1) } else { (now_ms, 1) };
        assert!(
            self.busy.1 < OPERATIONS_MAX,
            "the array goes round in circles: {name} {what}, again and again"
        );
        let count_down = |left: &mut u64| {
            let now = *left == 0;
            *left = left.saturating_sub(1);
            now
        };
        let any = self.cut_after.as_mut().is_some_and(count_down);
        let its = self.cut_at.as_mut().is_some_and(|(disk, left)| disk == name && count_down(left));
        if any || its {
            (self.cut_after, self.cut_at) = (None, None);
            note!(self.timeline, "disk", "{name} {what}: never done");
            self.cut();
            return Err(dead());
        }
        note!(self.timeline, "disk", "{name} {what}");
        Ok(())
    }
}

fn dead() -> io::Error {
    io::Error::other("the power is off")
}

/// One disk, as one boot of the array sees it.
#[derive(Debug)]
pub struct DiskHandle {
    enclosure: Enclosure,
    index: usize,
    boot: u64,
}

impl DiskHandle {
    /// Bytes of it.
    pub fn size(&self) -> u64 {
        self.enclosure.state().disks[self.index].1.length()
    }

    /// Waits for ever if the power is off: to a program that is gone nothing comes back.
    async fn alive(&self) {
        let alive = {
            let state = self.enclosure.state();
            state.power.is_on() && state.boot == self.boot
        };
        if !alive {
            std::future::pending::<()>().await;
        }
    }

    /// Reads, taking time.
    pub async fn read(&self, offset: u64, length: u32) -> io::Result<Bytes> {
        self.enclosure.take_time().await;
        self.alive().await;
        let mut out = vec![0; length as usize];
        self.read_now(offset, &mut out)?;
        Ok(out.into())
    }

    /// Writes, taking time. If the future is dropped the write ends at once.
    pub async fn write(&self, offset: u64, data: Vec<Bytes>) -> io::Result<()> {
        self.alive().await;
        let length: usize = data.iter().map(Bytes::len).sum();
        let ticket =
            self.on(format_args!("write {offset}+{length}"), |platter, _| platter.begin_write(offset, data))?;
        let mut landing = Landing { disk: self, ticket: Some(ticket) };
        let slow = self.enclosure.state().takes_long(self.index);
        match slow {
            Some(time) => tokio::time::sleep(time).await,
            None => self.enclosure.take_time().await,
        }
        self.alive().await;
        landing.land()
    }

    /// Gives room back, taking time.
    pub async fn discard(&self, offset: u64, length: u64) -> io::Result<()> {
        self.enclosure.take_time().await;
        self.alive().await;
        self.on(format_args!("discard {offset}+{length}"), |platter, dice| {
            platter.discard(offset, length, dice)
        })
    }

    /// Syncs, taking time.
    pub async fn sync(&self) -> io::Result<()> {
        self.alive().await;
        let mark = self.on(format_args!("sync"), |platter, _| Ok(platter.begin_sync()))?;
        self.enclosure.take_time().await;
        self.alive().await;
        self.on(format_args!("synced"), |platter, dice| platter.end_sync(mark, dice))
    }

    /// Reads at once.
    pub fn read_now(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.on(format_args!("read {offset}+{}", out.len()), |platter, _| platter.read(offset, out))
    }

    /// Writes at once.
    pub fn write_now(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.on(format_args!("write {offset}+{}", data.len()), |platter, dice| {
            platter.write(offset, data, dice)
        })
    }

    /// Syncs at once.
    pub fn sync_now(&self) -> io::Result<()> {
        self.on(format_args!("sync"), |platter, dice| platter.end_sync(platter.begin_sync(), dice))
    }

    /// Changes the length at once.
    pub fn set_length_now(&self, length: u64) -> io::Result<()> {
        self.on(format_args!("length {length}"), |platter, _| {
            platter.set_length(length);
            Ok(())
        })
    }

    fn on<R>(
        &self,
        what: std::fmt::Arguments<'_>,
        act: impl FnOnce(&mut Platter, &mut Dice) -> io::Result<R>,
    ) -> io::Result<R> {
        let mut state = self.enclosure.state();
        let state = &mut *state;
        let name = state.disks[self.index].0.clone();
        state.count(self.boot, &name, what)?;
        let done = act(&mut state.disks[self.index].1, &mut state.dice);
        if let Err(error) = &done {
            note!(state.timeline, "disk", "{name} {what}: {error}");
        }
        done
    }
}

/// Ends a write once, when its time has come or its caller is gone.
struct Landing<'a> {
    disk: &'a DiskHandle,
    ticket: Option<u64>,
}

impl Landing<'_> {
    fn land(&mut self) -> io::Result<()> {
        let Some(ticket) = self.ticket.take() else { return Ok(()) };
        self.disk.on(format_args!("written"), |platter, dice| platter.end_write(ticket, dice))
    }
}

impl Drop for Landing<'_> {
    fn drop(&mut self) {
        // Nobody is left to hear of an error.
        let _ = self.land();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enclosure() -> Enclosure {
        let disks = [DiskSpec { name: "a".into(), size_bytes: 1 << 20, fill: 0 }];
        let latency = Latency { least_ms: 0, most_ms: 2, slow_per_mille: 0, slow_most_ms: 0 };
        Enclosure::new(&disks, true, latency, 1, Timeline::new(true))
    }

    #[test]
    fn the_power_goes_between_two_operations() {
        let enclosure = enclosure();
        let disk = enclosure.open("a").unwrap();
        enclosure.cut_after(2);
        disk.write_now(0, &[1; 512]).unwrap();
        disk.sync_now().unwrap();
        assert!(disk.write_now(0, &[2; 512]).is_err());
        assert!(!enclosure.power().is_on() && disk.sync_now().is_err());
        enclosure.lose(Survival::Mixed);
        enclosure.switch_on();
        assert!(disk.write_now(0, &[3; 512]).is_err(), "a handle of before stays dead");
        let mut out = [0; 512];
        enclosure.open("a").unwrap().read_now(0, &mut out).unwrap();
        assert_eq!(out, [1; 512]);
        assert_eq!(enclosure.stats().power_cuts, 1);
    }
}
