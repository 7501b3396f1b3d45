//! Finding out what became of a command whose answer was lost.

use std::time::Duration;

use tokio::time::sleep;
use twintrack_link::manage::{DeviceInfo, DeviceInfoKind, SessionInfo};

use super::Host;
use super::operator::Told;
use crate::note;

/// How long a command that was cut off may still be under way in an array that did not crash, ms of simulated time.
const STILL_UNDER_WAY_MS: u64 = 3000;

impl Host {
    /// Waits until a command that was cut off has surely happened or not, then lists everything.
    pub(super) async fn settle(&self) {
        // With the array that crashed ended what it was asked.
        let epoch = self.asked_in[self.site.index()].get();
        for _ in 0..STILL_UNDER_WAY_MS / 50 {
            if self.shared.ledger().history.epoch(self.site) != epoch {
                break;
            }
            sleep(Duration::from_millis(50)).await;
        }
        self.compare_all().await;
    }

    /// Lists everything of all arrays and compares it with what is known.
    pub(super) async fn compare_each(&self) {
        for site in self.shared.sites() {
            self.at(*site).compare_all().await;
        }
    }

    /// Lists everything of the array and compares it with what is known.
    pub(super) async fn compare_all(&self) {
        let mut is_again = false;
        loop {
            self.wait_until_up().await;
            let epoch = self.shared.ledger().history.epoch(self.site);
            let changes = self.shared.ledger().changes;
            let devices = self.ask(self.array.device_list()).await;
            let sessions = self.ask(self.array.session_list(None)).await;
            if !self.shared.ledger().violations.is_empty() {
                return;
            }
            if let (Told::Done(devices), Told::Done(sessions)) = (devices, sessions)
                && epoch == self.shared.ledger().history.epoch(self.site)
                && changes == self.shared.ledger().changes
            {
                self.show(&devices, &sessions);
                // A restore that had still to take over may have ended between the two, and its session with it.
                if !is_again && shows_unlisted(&devices, &sessions) {
                    is_again = true;
                    continue;
                }
                self.shared.ledger().compare(self.site, &devices, &sessions);
                return;
            }
            sleep(Duration::from_millis(7)).await;
        }
    }

    /// The tables of devices and sessions, for who reads the timeline.
    fn show(&self, devices: &[DeviceInfo], sessions: &[SessionInfo]) {
        let timeline = &self.shared.array(self.site).timeline;
        for device in devices {
            let kind = match &device.kind {
                DeviceInfoKind::Standard { sessions, .. } => format!("standard, {sessions} sessions"),
                DeviceInfoKind::Virtual { shows } if shows.is_empty() => "virtual".to_owned(),
                DeviceInfoKind::Virtual { shows } => {
                    let shows: Vec<_> = shows.iter().map(u32::to_string).collect();
                    format!("virtual, shows {}", shows.join(", "))
                }
            };
            let state = if device.online { "online" } else { "offline" };
            note!(timeline, "table", "device {} {} bytes, {kind}, {state}", device.name, device.size_bytes);
        }
        for session in sessions {
            let shown = session.virtual_device.as_deref().unwrap_or("-");
            note!(
                timeline,
                "table",
                "session {} of {} on {shown}, {:?}",
                session.id,
                session.standard,
                session.state
            );
        }
    }
}

/// Whether a device shows a session that is not there.
fn shows_unlisted(devices: &[DeviceInfo], sessions: &[SessionInfo]) -> bool {
    let is_listed = |number: &u32| sessions.iter().any(|session| session.id == *number);
    devices.iter().any(|device| match &device.kind {
        DeviceInfoKind::Virtual { shows } => !shows.iter().all(is_listed),
        DeviceInfoKind::Standard { .. } => false,
    })
}
