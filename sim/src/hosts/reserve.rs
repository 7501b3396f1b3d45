//! Volumes that are reserved, and pairs whose secondary the array chooses among them (C9).

use std::time::Duration;

use bytes::Bytes;
use tokio::time::{sleep, timeout};
use twintrack_host::NbdClient;
use twintrack_host::manage::{PairPace, PairStage};

use super::Host;
use super::operator::Told;
use crate::ledger::{Coupling, LocalPair, Maybe};
use crate::oracle::{NEVER, Violation, check_choice};
use crate::plan::{Act, LocalAct, Op};

/// How often somebody looks whether a copy has ended, and how long between two looks.
const LOOKS: u32 = 100;
const LOOK: Duration = Duration::from_millis(10);
/// How long an answer that is to be a refusal may take.
const REFUSAL: Duration = Duration::from_secs(10);

impl Host {
    pub(super) async fn reserve(&self, device: &str, reserved: bool) {
        let alone = [device.to_owned()];
        self.claim(&[], &alone).await;
        let (name, exists) = self.device(device);
        let before = self.shared.ledger().devices.get(device).map(|device| device.reserved.clone());
        self.shared.ledger().device_changes(device, |device| device.reserved.also(reserved));
        let told = self.ask(self.array.device_reserve(&name, reserved)).await;
        self.judge("device reserve", exists, &told);
        self.shared.ledger().device_changed(device, |device| match (&told, before) {
            (Told::Done(_), _) => device.reserved = Maybe::is(reserved),
            (Told::Refused(_) | Told::Unasked, Some(before)) => device.reserved = before,
            _ => {}
        });
        if let Told::Unknown = told {
            self.settle().await;
        }
        self.shared.ledger().unclaim(&[], &alone);
    }

    /// Nobody else makes the volumes that may be chosen others meanwhile.
    pub(super) async fn copy_to_reserved(&self, primary: &str, pace: PairPace, keep: bool) {
        let shared = [primary.to_owned()];
        let candidates = self.shared.ledger().candidates(primary);
        let alone: Vec<_> = candidates.into_iter().map(|candidate| candidate.name).collect();
        self.claim(&shared, &alone).await;
        if let Some(secondary) = self.create_with_chosen(primary, pace, &alone).await {
            self.check_held(&secondary).await;
            self.use_chosen(primary, &secondary, keep).await;
        }
        self.shared.ledger().unclaim(&shared, &alone);
    }

    /// A pair with what the array chooses; what that is.
    async fn create_with_chosen(&self, primary: &str, pace: PairPace, claimed: &[String]) -> Option<String> {
        let mut candidates = self.shared.ledger().candidates(primary);
        candidates.retain(|candidate| claimed.contains(&candidate.name));
        let fits = |fits| candidates.iter().any(|candidate| candidate.fits == fits);
        let (first, exists) = self.device(primary);
        let may = fits(Some(true)) || fits(None);
        let allowed = exists.map(|exists| exists && may).filter(|may| !may || fits(Some(true)));
        let told = self.ask(self.array.pair_create(&first, None, pace)).await;
        self.judge("pair create", allowed, &told);
        let listed = match told {
            Told::Done(info) => Some(info.secondary),
            Told::Refused(_) | Told::Unasked => None,
            Told::Unknown => {
                self.settle_for_good().await;
                let free = candidates.iter().filter(|candidate| candidate.fits != Some(false));
                let free: Vec<_> = free.map(|candidate| self.device(&candidate.name).0).collect();
                self.find_chosen(&first, &free).await
            }
        }?;
        let is_chosen = |name: &&String| self.device(name).0 == listed;
        let chosen = claimed.iter().find(is_chosen).cloned().unwrap_or(listed);
        self.note(format_args!("{chosen} was chosen for {primary}"));
        let mut ledger = self.shared.ledger();
        let checked = check_choice(&candidates, &chosen);
        ledger.hold(checked)?;
        let (primary, stage) = (primary.to_owned(), Maybe::is(Coupling::Paired));
        let pair = LocalPair { primary, stage, busy: false, deleted: false };
        ledger.locals.insert(chosen.clone(), pair);
        Some(chosen)
    }

    /// The one of some volumes that is a secondary now.
    async fn find_chosen(&self, primary: &str, free: &[String]) -> Option<String> {
        while self.shared.ledger().violations.is_empty() {
            self.wait_until_up().await;
            if let Told::Done(pairs) = self.ask(self.array.pair_list()).await {
                let made =
                    pairs.into_iter().find(|pair| pair.primary == primary && free.contains(&pair.secondary));
                return made.map(|pair| pair.secondary);
            }
        }
        None
    }

    /// Copied to, it is a volume like others; when the pair is deleted, it is a spare one again.
    async fn use_chosen(&self, primary: &str, secondary: &str, keep: bool) {
        let names = || (primary.to_owned(), secondary.to_owned());
        let (first, second) = names();
        let copy = LocalAct::Copy { primary: first, secondary: second };
        self.pair_command(&copy, primary, secondary).await;
        let (device, offset) = (secondary.to_owned(), 0);
        self.finish_one(Act::Read { device: device.clone(), offset, length: 64 << 10 }).await;
        self.finish_one(Act::Write { device: device.clone(), offset, length: 4096, fua: false }).await;
        self.finish_one(Act::Flush { device }).await;
        if keep {
            return;
        }
        let ended_in = self.copy_ended(primary, secondary).await;
        let (first, second) = names();
        let delete = LocalAct::Delete { primary: first, secondary: second };
        self.pair_command(&delete, primary, secondary).await;
        let mut ledger = self.shared.ledger();
        let is_over = ended_in == Some(ledger.history.epoch(self.site));
        if let Some(pair) = ledger.locals.get_mut(secondary).filter(|_| is_over) {
            pair.deleted = false;
        }
    }

    /// Waits for the end of a copy, for some time; the epoch in which it was seen.
    async fn copy_ended(&self, primary: &str, secondary: &str) -> Option<u32> {
        for _ in 0..LOOKS {
            let epoch = self.shared.ledger().history.epoch(self.site);
            let told = self.ask(self.pair_show(primary, secondary)).await;
            if let Told::Done(info) = told
                && info.status == PairStage::Copied
            {
                return Some(epoch);
            }
            sleep(LOOK).await;
        }
        None
    }

    /// A host tries to use a device that it may not.
    pub(super) async fn try_spare(&self, device: &str, client: &NbdClient, act: &Act) {
        if !self.shared.ledger().is_spare(device, NEVER) {
            return;
        }
        let call = self.shared.ledger().history.tick();
        let tried = async {
            match act {
                Act::Read { offset, length, .. } => client.read(*offset, *length).await.map(drop),
                Act::Write { offset, length, fua, .. } => {
                    client.write(*offset, Bytes::from(vec![0; *length as usize]), *fua).await
                }
                Act::Trim { offset, length, fua, .. } => client.trim(*offset, *length, *fua).await,
                Act::Zero { offset, length, no_hole, fua, .. } => {
                    client.write_zeroes(*offset, *length, *no_hole, *fua).await
                }
                _ => Err(twintrack_host::NbdError::Unanswered),
            }
        };
        let told = timeout(REFUSAL, tried).await;
        self.note(format_args!("{device} is reserved: {told:?}"));
        if let Ok(Ok(())) = told
            && self.shared.ledger().is_spare(device, call)
        {
            let what = format_args!("{device} was used, though it is reserved and not copied to");
            self.shared.ledger().hold::<()>(Err(Violation::new("local", what)));
        }
    }

    /// In the end all are let go, so that they can be read.
    pub(super) async fn release_reserved(&self) {
        let reserved: Vec<_> = {
            let ledger = self.shared.ledger();
            let may_be = ledger.devices.iter().filter(|(_, device)| device.reserved.may_be(&true));
            may_be.map(|(name, _)| name.clone()).collect()
        };
        for device in reserved {
            self.manage(&Op::now(Act::Local(LocalAct::Reserve { device, reserved: false }))).await;
        }
    }
}
