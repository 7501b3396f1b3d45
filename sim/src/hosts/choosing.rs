//! After a split brain: one half is chosen, and what the other one had is kept (F4).

use std::time::Duration;

use tokio::time::timeout;
use twintrack_host::manage::{Command, PairHalf};

use super::Host;
use super::operator::Told;
use crate::oracle::{Violation, VolumeId};
use crate::site::Site;

/// Bytes of one read.
const READ_BYTES: u64 = 128 << 10;
/// How long looking at what was kept may take.
const LOOK: Duration = Duration::from_secs(10);

impl Host {
    /// The half on the host's array is the one that stays.
    pub(super) async fn resolve(&self, name: &str) {
        let loser = self.site.other();
        let epoch = self.shared.ledger().history.epoch(loser);
        let keep = if self.site == Site::A { PairHalf::R1 } else { PairHalf::R2 };
        let kept = self.shared.ledger().choice_begins(name, loser);
        let told =
            self.ask(self.array.call(&Command::RemoteResolve { device: self.pair_device(name), keep })).await;
        let done = match told {
            Told::Done(_) => Some(true),
            Told::Refused(_) | Told::Unasked => Some(false),
            Told::Unknown => None,
        };
        self.shared.ledger().choice_ended(name, done);
        let same_epoch = self.shared.ledger().history.epoch(loser) == epoch;
        if let (Some(true), Some((cut, volume)), true) = (done, kept, same_epoch) {
            self.shared.ledger().history.end_cut(cut);
            // Arrays that crash meanwhile are asked no more.
            let _ = timeout(LOOK, self.at(loser).read_loser(name, volume)).await;
        }
        self.look(name).await;
    }

    /// What lost is there, as a session of the volume on the host's array.
    async fn read_loser(&self, name: &str, volume: VolumeId) {
        let device = self.pair_device(name);
        let Told::Done(sessions) = self.ask(self.array.session_list(Some(&device))).await else { return };
        let shown_by = |session: &twintrack_host::manage::SessionInfo| {
            let virtual_device = session.virtual_device.clone()?;
            virtual_device.contains(".lost-").then_some((session.id, virtual_device))
        };
        let Some((_, shown_by)) = sessions.iter().filter_map(shown_by).max_by_key(|(id, _)| *id) else {
            let what = format_args!("pair {name}: what lost the split brain was not kept on {device}");
            self.shared.ledger().hold::<()>(Err(Violation::new("split", what)));
            return;
        };
        let Told::Done(_) = self.ask(self.array.device_online(&shown_by, true)).await else { return };
        let Ok(client) = self.attach(&shown_by).await else { return };
        self.note(format_args!("{name}: what lost is kept as {shown_by}"));
        let size = client.info().size_bytes;
        for offset in (0..size).step_by(READ_BYTES as usize) {
            let call = self.shared.ledger().history.tick();
            let Ok(bytes) = client.read(offset, READ_BYTES.min(size - offset) as u32).await else { return };
            let mut ledger = self.shared.ledger();
            let checked = ledger.history.end_read(volume, offset, &bytes, call);
            ledger.hold(checked);
        }
    }
}
