//! Pairs within the array: each command as the plan gives it, judged against what is known.

use std::time::Duration;

use tokio::time::{sleep, timeout};
use twintrack_host::manage::{PairInfo, PairPace, PairStage};

use super::Host;
use super::operator::Told;
use crate::ledger::{Coupling, LocalPair, Maybe};
use crate::note;
use crate::oracle::{Span, Violation, check_answered_in_time, check_called, check_unequal};
use crate::plan::LocalAct;

impl Host {
    /// Carries out what an operator does with a pair, or has restored.
    pub(super) async fn local_act(&self, act: &LocalAct) {
        let (LocalAct::Create { primary, secondary, .. }
        | LocalAct::Copy { primary, secondary }
        | LocalAct::CopyAt { primary, secondary, .. }
        | LocalAct::Resync { primary, secondary }
        | LocalAct::Pace { primary, secondary, .. }
        | LocalAct::CopyBack { primary, secondary, .. }
        | LocalAct::Delete { primary, secondary }) = act
        else {
            match act {
                LocalAct::Restore { items } => self.restore(items).await,
                LocalAct::CopyByTurns(turns) => self.rotate(turns).await,
                LocalAct::Reserve { device, reserved } => self.reserve(device, *reserved).await,
                LocalAct::CopyToReserved { primary, pace, keep } => {
                    self.copy_to_reserved(primary, *pace, *keep).await;
                }
                _ => {}
            }
            return;
        };
        let back = matches!(act, LocalAct::CopyBack { .. });
        let alone: Vec<String> =
            [secondary].into_iter().chain(Some(primary).filter(|_| back)).cloned().collect();
        let shared = [primary.clone()];
        self.claim(&shared, &alone).await;
        self.pair_command(act, primary, secondary).await;
        self.shared.ledger().unclaim(&shared, &alone);
    }

    pub(super) async fn pair_command(&self, act: &LocalAct, primary: &str, secondary: &str) {
        self.local_begins(primary, secondary).await;
        let (first, second) = (self.device(primary).0, self.device(secondary).0);
        match act {
            LocalAct::Create { pace, .. } => {
                let call = self.array.pair_create(&first, Some(&second), *pace);
                self.local_command(secondary, Coupling::Gone, Coupling::Paired, call).await;
            }
            LocalAct::Copy { .. } => self.local_copy(primary, secondary).await,
            LocalAct::CopyAt { in_ms, .. } => self.copy_at(primary, secondary, *in_ms).await,
            LocalAct::CopyBack { before, .. } => self.copy_back(primary, secondary, before.as_deref()).await,
            LocalAct::Resync { .. } => {
                let call = self.array.pair_resync(&first, &second, None);
                self.local_command(secondary, Coupling::Open, Coupling::Paired, call).await;
            }
            LocalAct::Pace { pace, .. } => {
                let calm = self.calm_epoch().await;
                let told = self.pair_pace(primary, secondary, *pace).await;
                // A copy that nobody calls a pair has a pace, too.
                let allowed = self.is_paired(secondary).filter(|is| *is || self.is_calm_since(calm));
                self.judge("pair pace", allowed, &told);
            }
            LocalAct::Delete { .. } => {
                let allowed = self.is_paired(secondary);
                let told = self.ask(self.array.pair_delete(&first, &second)).await;
                self.judge("pair delete", allowed, &told);
                self.local_told(secondary, &told, Coupling::Gone);
                if let Some(pair) = self.shared.ledger().locals.get_mut(secondary) {
                    pair.deleted = true;
                }
            }
            _ => {}
        }
        self.local_settle(secondary).await;
        self.look_at_pair(primary, secondary).await;
    }

    /// What a pair tells of itself is held against what it is, and against what hosts wrote.
    pub(super) async fn look_at_pair(&self, primary: &str, secondary: &str) {
        if self.is_paired(secondary) != Some(true) {
            return;
        }
        let call = self.shared.ledger().history.tick();
        let epoch = self.shared.ledger().history.epoch(self.site);
        let Told::Done(info) = self.ask(self.pair_show(primary, secondary)).await else { return };
        let mut ledger = self.shared.ledger();
        let asked = Span { call, answer: ledger.history.tick() };
        let stage = ledger.locals.get(secondary).and_then(|pair| pair.stage.known().copied());
        let is_open = stage.filter(|stage| *stage != Coupling::Gone).map(|stage| stage == Coupling::Open);
        let checked = check_called(&info, is_open, ledger.excuses.full || ledger.excuses.disks);
        ledger.hold(checked);
        let standard = |name: &str| ledger.devices.get(name).and_then(|device| device.standard);
        if let (Some(first), Some(second), Some(_)) = (standard(primary), standard(secondary), info.copied_ms)
            && ledger.history.epoch(self.site) == epoch
        {
            let (volumes, track_bytes) = ((first, second), ledger.track_bytes);
            let checked = check_unequal(&ledger.history, volumes, track_bytes, info.unequal_tracks, asked);
            ledger.hold(checked);
        }
    }

    /// What hosts have under way on the secondary ends first, and nothing new begins.
    pub(super) async fn local_begins(&self, primary: &str, secondary: &str) {
        {
            let mut ledger = self.shared.ledger();
            ledger.changes += 1;
            let fresh = LocalPair {
                primary: primary.into(),
                stage: Maybe::is(Coupling::Gone),
                busy: true,
                deleted: false,
            };
            ledger.locals.entry(secondary.into()).or_insert(fresh).busy = true;
        }
        while self.shared.ledger().flying.get(secondary).is_some_and(|count| *count > 0) {
            sleep(Duration::from_millis(1)).await;
        }
    }

    pub(super) fn is_paired(&self, secondary: &str) -> Option<bool> {
        let ledger = self.shared.ledger();
        let stage = ledger.locals.get(secondary)?.stage.known().copied()?;
        Some(stage != Coupling::Gone)
    }

    /// A command that leads from one status to another, and is refused in any other.
    async fn local_command<T>(
        &self,
        secondary: &str,
        from: Coupling,
        to: Coupling,
        call: impl Future<Output = Result<T, twintrack_host::ArrayError>>,
    ) {
        let stage = self.shared.ledger().locals[secondary].stage.known().copied();
        let calm = self.calm_epoch().await;
        let told = self.ask(call).await;
        // While it is being copied a pair is not re-synchronized; nor is a device paired that something is copied to.
        let allowed = stage.map(|stage| stage == from).filter(|fits| !fits || self.is_calm_since(calm));
        self.judge("pair command", allowed, &told);
        self.local_told(secondary, &told, to);
    }

    /// The epoch, if no copy is in progress: none is after it on devices that the caller has claimed, for a crash alone could
    /// bring one back.
    pub(super) async fn calm_epoch(&self) -> Option<u32> {
        let epoch = self.shared.ledger().history.epoch(self.site);
        let Told::Done(pairs) = self.ask(self.array.pair_list()).await else { return None };
        for info in &pairs {
            let mut ledger = self.shared.ledger();
            let checked = check_called(info, None, ledger.excuses.full || ledger.excuses.disks);
            ledger.hold(checked);
        }
        let is_calm = pairs.iter().all(|pair| pair.status != PairStage::Copying);
        Some(epoch).filter(|_| is_calm)
    }

    pub(super) fn is_calm_since(&self, epoch: Option<u32>) -> bool {
        epoch == Some(self.shared.ledger().history.epoch(self.site))
    }

    async fn local_copy(&self, primary: &str, secondary: &str) {
        let stage = self.shared.ledger().locals[secondary].stage.known().copied();
        let calm = self.calm_epoch().await;
        let Some((cut, before)) = self.shared.ledger().copy_begins(secondary) else { return };
        let (first, second) = (self.device(primary).0, self.device(secondary).0);
        let told = self.ask(self.array.pair_copy(&first, &second, None)).await;
        let allowed =
            stage.map(|stage| stage == Coupling::Paired).filter(|fits| !fits || self.is_calm_since(calm));
        self.judge("pair copy", allowed, &told);
        self.local_told(secondary, &told, Coupling::Open);
        if let Told::Unknown = told {
            self.local_settle(secondary).await;
        }
        let mut ledger = self.shared.ledger();
        let opened = ledger.locals[secondary].stage.surely(&Coupling::Open);
        let happened = match told {
            Told::Done(_) => true,
            Told::Refused(_) | Told::Unasked => false,
            Told::Unknown => opened && stage != Some(Coupling::Open),
        };
        if happened {
            ledger.history.end_cut(cut);
        } else if let Some(device) = ledger.devices.get_mut(secondary) {
            device.standard = Some(before);
        }
    }

    pub(super) fn local_told<T>(&self, secondary: &str, told: &Told<T>, to: Coupling) {
        let mut ledger = self.shared.ledger();
        let Some(pair) = ledger.locals.get_mut(secondary) else { return };
        match told {
            Told::Done(_) => pair.stage = Maybe::is(to),
            Told::Unknown => pair.stage.also(to),
            Told::Refused(_) | Told::Unasked => {}
        }
    }

    /// Finds out what became of a command that was cut off, and that for good: another one is answered after it.
    pub(super) async fn local_settle(&self, secondary: &str) {
        let open = self.shared.ledger().locals[secondary].stage.known().is_none();
        if open {
            self.settle().await;
        }
        while open && self.shared.ledger().violations.is_empty() {
            self.wait_until_up().await;
            let primary = self.shared.ledger().locals[secondary].primary.clone();
            // What is answered is committed, and with it all that came before.
            let paced = self.pair_pace(&primary, secondary, PairPace::Fast).await;
            let stage = match paced {
                Told::Done(info) if info.status == PairStage::Paired => Coupling::Paired,
                Told::Done(_) => Coupling::Open,
                Told::Refused(_) => Coupling::Gone,
                Told::Unasked | Told::Unknown => continue,
            };
            note!(self.shared.timeline, "table", "pair of {secondary}: {stage:?}");
            let mut ledger = self.shared.ledger();
            let pair = ledger.locals.get_mut(secondary).filter(|pair| pair.stage.may_be(&stage));
            match pair {
                Some(pair) => pair.stage = Maybe::is(stage),
                None => {
                    ledger.blame(format_args!("the pair of {secondary} is {stage:?}: nobody asked for it"));
                }
            }
            break;
        }
        self.check_held(secondary).await;
        let mut ledger = self.shared.ledger();
        let now = ledger.history.tick();
        ledger.changes += 1;
        if let Some(device) = ledger.devices.get_mut(secondary) {
            device.changed = now;
        }
        if let Some(pair) = ledger.locals.get_mut(secondary) {
            pair.busy = false;
        }
    }

    /// A secondary that is paired and not copied refuses hosts.
    pub(super) async fn check_held(&self, secondary: &str) {
        if !self.shared.ledger().locals[secondary].stage.surely(&Coupling::Paired) {
            return;
        }
        let Ok(client) = self.attach(&self.device(secondary).0).await else { return };
        if let Ok(Ok(_)) = timeout(Duration::from_secs(10), client.read(0, 512)).await {
            let what = format_args!("{secondary} was read, though it is paired and not copied");
            self.shared.ledger().hold::<()>(Err(Violation::new("local", what)));
        }
    }

    /// All pairs are deleted.
    pub(super) async fn delete_local_pairs(&self) {
        let pairs: Vec<(String, String)> = {
            let ledger = self.shared.ledger();
            ledger.locals.iter().map(|(secondary, pair)| (pair.primary.clone(), secondary.clone())).collect()
        };
        self.copies_end().await;
        for (primary, secondary) in pairs {
            if self.is_paired(&secondary) == Some(true) {
                self.local_act(&LocalAct::Delete { primary, secondary }).await;
            }
        }
    }

    /// Every copy within the array comes to its end, if there is room for it.
    pub(super) async fn copies_end(&self) {
        let since_ms = self.shared.timeline.now_ms();
        while self.shared.ledger().violations.is_empty() {
            self.wait_until_up().await;
            let Told::Done(pairs) = self.ask(self.array.pair_list()).await else { continue };
            // One that finds no room says so, and goes on when there is some.
            let stuck = |info: &PairInfo| self.shared.plan.world.may_fill && info.trouble.is_some();
            let copying = |info: &&PairInfo| info.status == PairStage::Copying && !stuck(info);
            let Some(copy) = pairs.iter().find(copying) else { return };
            let (now_ms, bound_ms) = (self.shared.timeline.now_ms(), self.shared.deadlines.background_ms);
            let what = format!("the copy from {} to {} ({:?})", copy.primary, copy.secondary, copy.trouble);
            let checked = check_answered_in_time(&what, since_ms, now_ms, bound_ms);
            self.shared.ledger().hold(checked);
            sleep(Duration::from_millis(20)).await;
        }
    }
}
