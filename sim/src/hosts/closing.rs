//! The end of a run, when no fault is left: everything is read back, once as it is, once after a power cut; then all
//! of it is removed, and the space must be free.

use std::time::Duration;

use tokio::time::{sleep, timeout};
use twintrack_host::NbdClient;

use super::Host;
use super::io::Connections;
use super::operator::Told;
use crate::disk::Survival;
use crate::ledger::Stage;
use crate::note;
use crate::oracle::{Emptied, Violation, check_answered_in_time, check_emptied};
use crate::plan::{Act, Op};

/// Bytes of one read.
const READ_BYTES: u64 = 128 << 10;
/// What was never written on a large device is read at so many places only.
const SAMPLES: u64 = 8;
/// A device up to this size is read whole.
const WHOLE_BYTES: u64 = 8 << 20;

impl Host {
    /// Checks everything.
    pub(super) async fn close(&self) {
        self.heal().await;
        self.verify_pairs().await;
        self.snapshot_at_last().await;
        if self.shared.plan.has_copies() {
            self.release_reserved().await;
            self.copies_end().await;
            self.show_before().await;
        }
        self.compare_each().await;
        let (kill, whole) = (self.dice.borrow_mut().chance(400), !self.is_large());
        if kill {
            // What was just written, and not flushed, outlives the program, and with a flush the power, too.
            self.write_a_little().await;
            self.crash(Survival::Everything).await;
        }
        if !kill || whole {
            self.read_everything(true).await;
        }
        if self.is_broken() {
            return;
        }
        self.swap_pairs().await;
        self.crash(Survival::Nothing).await;
        self.read_everything(false).await;
        self.report_everything().await;
        if self.shared.plan.has_diffs() {
            self.diff_everything().await;
        }
        if !self.is_broken() {
            self.delete_pairs().await;
            self.delete_local_pairs().await;
            for site in self.shared.sites() {
                self.at(*site).remove_everything().await;
            }
        }
    }

    /// Hosts are shown what is kept of before restores, so that it can be read.
    async fn show_before(&self) {
        let labels: Vec<String> = {
            let ledger = self.shared.ledger();
            let before = ledger.sessions.iter().filter(|(_, session)| session.is_before);
            before
                .filter(|(_, session)| session.stage.surely(&Stage::Active))
                .map(|(label, _)| label.clone())
                .collect()
        };
        for device in labels {
            self.manage(&Op::now(Act::Online { device, online: true })).await;
        }
    }

    /// Has the arrays crash, waits until they are back, and compares what they list.
    async fn crash(&self, survival: Survival) {
        note!(self.shared.timeline, "world", "a last crash: {survival:?}");
        for array in &self.shared.arrays {
            array.crash_wanted.set(Some(survival));
        }
        while self.shared.arrays.iter().any(|array| array.crash_wanted.get().is_some()) {
            sleep(Duration::from_millis(1)).await;
        }
        self.heal().await;
        self.compare_each().await;
    }

    /// Whether reading everything takes long.
    fn is_large(&self) -> bool {
        self.shared.plan.devices.iter().filter_map(|device| device.size_bytes).sum::<u64>() > 4 * WHOLE_BYTES
    }

    /// A few small writes to the first tracks of each standard device.
    async fn write_a_little(&self) {
        let mut connections = Connections::new(self.clone());
        let names: Vec<String> = self.shared.ledger().devices.keys().cloned().collect();
        let track = self.shared.ledger().track_bytes;
        for device in names {
            let now = self.shared.ledger().history.tick();
            let steady = self.shared.ledger().is_steady(&device, now);
            let known = self.shared.ledger().devices.get(&device).cloned();
            let Some(size) =
                known.filter(|device| steady && device.standard.is_some()).map(|d| *d.size.latest())
            else {
                continue;
            };
            for offset in (0..size.min(6 * track)).step_by(track as usize) {
                let act = Act::Write { device: device.clone(), offset, length: 512, fua: false };
                self.finish(&mut connections, act).await;
            }
        }
    }

    fn is_broken(&self) -> bool {
        !self.shared.ledger().violations.is_empty()
    }

    /// Reads every device that can be read, after a flush or not.
    async fn read_everything(&self, flush: bool) {
        let mut connections = Connections::new(self.clone());
        let names: Vec<String> = self.shared.ledger().devices.keys().cloned().collect();
        for name in names {
            let ready = {
                let mut ledger = self.shared.ledger();
                let now = ledger.history.tick();
                ledger.is_steady(&name, now)
            };
            if !ready || self.is_broken() {
                continue;
            }
            let Some(client) = connections.client(&name).await else { continue };
            if flush {
                self.finish(&mut connections, Act::Flush { device: name.clone() }).await;
            }
            self.read_device(&mut connections, &client, &name).await;
        }
        self.read_handles(flush).await;
    }

    async fn read_device(&self, connections: &mut Connections, client: &NbdClient, name: &str) {
        for (offset, length) in self.ranges_to_read(name, client.info().size_bytes) {
            if self.is_broken() {
                return;
            }
            let device = name.to_string();
            self.finish(connections, Act::Read { device, offset, length }).await;
        }
    }

    /// What to read of a device to have seen all of it that can be other than zeros.
    pub(super) fn ranges_to_read(&self, name: &str, size: u64) -> Vec<(u64, u32)> {
        let ledger = self.shared.ledger();
        let Some(layout) = ledger.layout(name) else { return Vec::new() };
        let mut ranges = vec![(0, size)];
        if size > WHOLE_BYTES {
            let track = ledger.track_bytes;
            // A device of parts is never so large.
            ranges = layout.volumes().flat_map(|volume| ledger.history.touched(volume)).collect();
            ranges.extend((0..SAMPLES).map(|n| (size / SAMPLES * n / track * track, 4096)));
        }
        let pieces = |(offset, length): (u64, u64)| {
            let end = (offset + length).min(size);
            let at = (offset..end).step_by(READ_BYTES as usize);
            at.map(move |at| (at, READ_BYTES.min(offset + length - at) as u32))
        };
        ranges.into_iter().flat_map(pieces).collect()
    }

    /// Does one operation over connections of its own.
    pub(super) async fn finish_one(&self, act: Act) {
        self.finish(&mut Connections::new(self.clone()), act).await;
    }

    /// Does one operation; the host I/O itself checks that it ends in time.
    async fn finish(&self, connections: &mut Connections, act: Act) {
        if let Some(io) = connections.prepare(Op::now(act)).await {
            io.await;
        }
    }

    /// Asks for the change report of every session that has one.
    async fn report_everything(&self) {
        let labels: Vec<String> = self.shared.ledger().sessions.keys().cloned().collect();
        for label in labels {
            let stage = {
                let ledger = self.shared.ledger();
                let session = &ledger.sessions[&label];
                // A copy changes a half that stands by, too, and the report is held against what hosts wrote.
                if ledger.is_joint(&label) {
                    continue;
                }
                session.stage.clone()
            };
            let act = match stage.known() {
                Some(Stage::Active) => Act::Changed { session: label },
                Some(Stage::Deactivated) => Act::ReadTracks { session: label },
                _ => continue,
            };
            let op = Op::now(act);
            self.at(self.site_of(&op)).manage(&op).await;
        }
    }

    /// Removes all sessions and devices, and waits for the space.
    async fn remove_everything(&self) {
        let since_ms = self.shared.timeline.now_ms();
        let bound_ms = self.shared.deadlines.background_ms;
        let mut last: Vec<String>;
        loop {
            let tidy = timeout(Duration::from_secs(10), self.remove_what_is_left()).await;
            match tidy {
                Ok(Some(left)) if left.is_empty() => return,
                Ok(Some(left)) => last = left,
                Ok(None) => last = vec!["a call was not answered".into()],
                Err(_) => last = vec!["a call took more than ten seconds".into()],
            }
            let now_ms = self.shared.timeline.now_ms();
            let checked = check_answered_in_time("the removal of everything", since_ms, now_ms, bound_ms);
            if let Err(late) = checked {
                let what = format_args!("{}; last: {}", late.what, last.join("; "));
                let oracle = if last.iter().any(|what| what.starts_with("every session")) {
                    "space"
                } else {
                    "liveness"
                };
                self.shared.ledger().hold::<()>(Err(Violation::new(oracle, what)));
                return;
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// What is left, in words, after one more attempt. `None`: a call failed.
    async fn remove_what_is_left(&self) -> Option<Vec<String>> {
        let mut left = Vec::new();
        let Told::Done(sessions) = self.ask(self.array.session_list(None)).await else { return None };
        for session in &sessions {
            left.push(format!("session {} is {:?}", session.id, session.state));
            if session.state != twintrack_host::manage::SessionInfoState::Removing {
                self.ask(self.array.session_remove(session.id)).await;
            }
        }
        let Told::Done(devices) = self.ask(self.array.device_list()).await else { return None };
        for device in &devices {
            left.push(format!("device {} is there", device.name));
            self.ask(self.array.device_delete(&device.name)).await;
        }
        if !left.is_empty() {
            return Some(left);
        }
        let Told::Done(pools) = self.ask(self.array.pool_list()).await else { return None };
        for pool in pools {
            let emptied =
                Emptied { pool: pool.name, size_bytes: pool.size_bytes, free_bytes: pool.free_bytes };
            left.extend(check_emptied(&emptied).err().map(|violation| violation.what));
        }
        Some(left)
    }
}
