//! Restores: each as the plan gives it, judged against what is known; and the copy of a pair back to its primary, which is one.

use twintrack_host::manage::{PairInfo, PairPace, Restore};

use super::Host;
use super::operator::Told;
use crate::ledger::{Coupling, Lent, Restoring, Stage};
use crate::oracle::Violation;
use crate::plan::RestoreItem;

impl Host {
    /// Restores sessions, all at one instant.
    pub(super) async fn restore(&self, items: &[RestoreItem]) {
        // What leaves no trace could not be told from what did not happen.
        let traceless = |item: &RestoreItem| item.keep && item.makes.is_none() && item.name.is_none();
        let targets: Option<Vec<_>> = {
            let ledger = self.shared.ledger();
            items.iter().map(|item| Some(ledger.restore_target(item)?.0)).collect()
        };
        let known = items.iter().all(|item| self.session(&item.session).is_some());
        let Some(targets) = targets.filter(|_| known && !items.iter().any(traceless)) else {
            self.shared.ledger().counts.skipped += 1;
            return;
        };
        self.claim(&[], &targets).await;
        self.restore_claimed(items, &targets).await;
        self.shared.ledger().unclaim(&[], &targets);
    }

    async fn restore_claimed(&self, items: &[RestoreItem], targets: &[String]) {
        let allowed = items.iter().map(|item| self.may_restore(item));
        let allowed: Vec<Option<bool>> = allowed.collect();
        let allowed = match () {
            () if allowed.contains(&Some(false)) => Some(false),
            () if allowed.contains(&None) => None,
            () => Some(true),
        };
        let asked = items.iter().zip(targets).filter_map(|(item, target)| {
            Some(Restore {
                session: self.session(&item.session)?.0,
                to: Some(self.device(target).0),
                keep: item.keep,
                discard_before: item.makes.is_none(),
                name: item.name.clone(),
                offline: item.offline,
                pace: None,
            })
        });
        let asked: Vec<_> = asked.collect();
        let Some(restoring) = self.shared.ledger().restore_begins(items) else { return };
        let makes: Vec<_> = items.iter().filter_map(|item| item.makes.clone()).collect();
        let told = self.ask(self.array.session_restore(asked)).await;
        self.judge("restore", allowed, &told);
        self.shared.ledger().restore_called(items, &restoring, &makes);
        let happened = match told {
            Told::Done(_) => true,
            Told::Refused(_) | Told::Unasked => false,
            Told::Unknown => {
                self.settle_for_good().await;
                self.restore_happened(items)
            }
        };
        self.end_restore(items, restoring, &makes, happened).await;
    }

    async fn end_restore(
        &self,
        items: &[RestoreItem],
        restoring: Restoring,
        makes: &[String],
        happened: bool,
    ) {
        self.note(format_args!("{}", if happened { "restored" } else { "not restored" }));
        self.shared.ledger().restore_ended(items, restoring, makes, happened);
        if happened && !makes.is_empty() {
            // What the array made has a number now.
            self.compare_all().await;
        }
    }

    /// Whether one item would be carried out; `None`: that is not known.
    fn may_restore(&self, item: &RestoreItem) -> Option<bool> {
        let ledger = self.shared.ledger();
        let session = ledger.sessions.get(&item.session)?;
        let (target, is_standard) = ledger.restore_target(item)?;
        let stage = session.stage.known().filter(|_| session.busy == 0 && session.lent == Lent::No)?;
        let held = ledger.locals.get(&target).is_some_and(|pair| pair.stage.surely(&Coupling::Paired));
        if *stage != Stage::Active || held {
            return Some(false);
        }
        let size = |name: &str| ledger.devices.get(name).and_then(|device| device.size.known().copied());
        if is_standard && size(&target)? != size(&session.standard)? {
            return Some(false);
        }
        let device = &ledger.devices[&target];
        let name = item.name.as_ref();
        let taken = name.is_some_and(|name| ledger.devices.values().any(|device| device.name.may_be(name)));
        let still = |name: &String| !ledger.restored.contains(name) && !ledger.locals.contains_key(name);
        let sure = device.exists.surely(&true) && device.busy == 0 && device.name.known().is_some() && !taken;
        let free = if is_standard { still(&target) } else { ledger.is_free_virtual(&target) };
        let calm = sure && free && still(&session.standard) && !ledger.excuses.full;
        calm.then_some(true)
    }

    /// Waits until a command that was cut off has surely happened or not, and what it did is committed; then lists everything.
    pub(super) async fn settle_for_good(&self) {
        self.settle().await;
        while self.shared.ledger().violations.is_empty() {
            self.wait_until_up().await;
            // What is answered is committed, and with it all that came before.
            let Told::Done(group) = self.ask(self.array.group_begin()).await else { continue };
            if let Told::Done(_) = self.ask(self.array.group_cancel(group)).await {
                break;
            }
        }
        self.compare_all().await;
    }

    /// Whether all of a restore happened, or none of it did.
    fn restore_happened(&self, items: &[RestoreItem]) -> bool {
        let mut ledger = self.shared.ledger();
        let seen: Vec<_> = items.iter().flat_map(|item| ledger.restore_seen(item)).flatten().collect();
        let happened = seen.first() == Some(&true);
        if seen.iter().any(|it| *it != happened) {
            let what = format_args!("a restore happened in part: {seen:?}");
            ledger.hold::<()>(Err(Violation::new("manage", what)));
        }
        happened
    }

    /// A pair is copied back to its primary.
    pub(super) async fn copy_back(&self, primary: &str, secondary: &str, before: Option<&str>) {
        let stage = self.shared.ledger().locals[secondary].stage.known().copied();
        let Told::Done(info) = self.ask(self.pair_show(primary, secondary)).await else { return };
        let calm = self.calm_epoch().await;
        let began = self.shared.ledger().copy_back_begins(primary, secondary, before);
        let Some(restoring) = began else { return };
        let makes: Vec<_> = before.iter().map(|label| (*label).to_owned()).collect();
        let (from, to) = (self.device(primary).0, self.device(secondary).0);
        let told = self.ask(self.array.pair_restore(&from, &to, before.is_none(), None)).await;
        // While it is being copied it is not copied back.
        let allowed =
            stage.map(|stage| stage == Coupling::Open).filter(|fits| !fits || self.is_calm_since(calm));
        self.judge("copying back", allowed, &told);
        self.shared.ledger().restore_called(&[], &restoring, &makes);
        let happened = match told {
            Told::Done(_) => true,
            Told::Refused(_) | Told::Unasked => false,
            Told::Unknown => {
                self.settle_for_good().await;
                self.was_copied_since(primary, secondary, &info).await
            }
        };
        self.end_restore(&[], restoring, &makes, happened).await;
    }

    async fn was_copied_since(&self, primary: &str, secondary: &str, before: &PairInfo) -> bool {
        while self.shared.ledger().violations.is_empty() {
            self.wait_until_up().await;
            match self.ask(self.pair_show(primary, secondary)).await {
                Told::Done(info) => return info.copied_ms != before.copied_ms,
                Told::Refused(_) => return false,
                Told::Unasked | Told::Unknown => {}
            }
        }
        false
    }

    pub(super) async fn pair_show(
        &self,
        primary: &str,
        secondary: &str,
    ) -> Result<PairInfo, twintrack_host::ArrayError> {
        let (primary, secondary) = (self.device(primary).0, self.device(secondary).0);
        self.array.pair_show(&primary, &secondary).await
    }

    /// Another pace for a pair, whose answer is that of something committed.
    pub(super) async fn pair_pace(&self, primary: &str, secondary: &str, pace: PairPace) -> Told<PairInfo> {
        let (primary, secondary) = (self.device(primary).0, self.device(secondary).0);
        self.ask(self.array.pair_pace(&primary, &secondary, pace)).await
    }
}
