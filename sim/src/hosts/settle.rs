//! Finding out what became of a command whose answer was lost.

use std::time::Duration;

use tokio::time::sleep;

use super::Host;
use super::operator::Told;

/// How long a command that was cut off may still be under way in an array that did not crash, ms of simulated time.
const STILL_UNDER_WAY_MS: u64 = 3000;

impl Host {
    /// Waits until a command that was cut off has surely happened or not, then lists everything.
    pub(super) async fn settle(&self) {
        let epoch = self.shared.ledger().history.epoch();
        for _ in 0..STILL_UNDER_WAY_MS / 50 {
            if self.shared.ledger().history.epoch() != epoch {
                break;
            }
            sleep(Duration::from_millis(50)).await;
        }
        self.compare_all().await;
    }

    /// Lists everything and compares it with what is known.
    pub(super) async fn compare_all(&self) {
        loop {
            self.wait_until_up().await;
            let epoch = self.shared.ledger().history.epoch();
            let changes = self.changes();
            let devices = self.ask(self.array.device_list()).await;
            let sessions = self.ask(self.array.session_list(None)).await;
            if !self.shared.ledger().violations.is_empty() {
                return;
            }
            if let (Told::Done(devices), Told::Done(sessions)) = (devices, sessions)
                && epoch == self.shared.ledger().history.epoch()
                && changes == self.changes()
            {
                self.shared.ledger().compare(&devices, &sessions);
                return;
            }
            sleep(Duration::from_millis(7)).await;
        }
    }

    /// What tells whether another host managed something meanwhile.
    fn changes(&self) -> (u64, u32) {
        let ledger = self.shared.ledger();
        let changed = ledger.devices.values().map(|device| device.changed).sum();
        let busy = ledger.devices.values().map(|device| device.busy).sum::<u32>()
            + ledger.sessions.values().map(|session| session.busy).sum::<u32>();
        (changed, busy)
    }
}
