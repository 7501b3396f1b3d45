//! The end of a run, when no fault is left: every pair comes to its end state.

use std::time::Duration;

use tokio::time::sleep;
use twintrack_host::manage::{PairCause, PairRole};

use super::Host;
use super::looks::Views;
use crate::inspect;
use crate::ledger::Maybe;
use crate::oracle::{Halves, Progress, check_answered_in_time, check_created};
use crate::plan::{Act, Op, PairAct};
use crate::site::Site;

/// Between two looks, ms.
const LOOK_MS: u64 = 100;
/// How long what comes by itself is waited for, before an operator does something, ms.
const PATIENCE_MS: u64 = 15_000;

impl Host {
    /// Waits until every pair is synchronized, or gone, and checks it.
    pub(super) async fn heal(&self) {
        let names: Vec<String> = self.shared.ledger().pairs.keys().cloned().collect();
        for name in &names {
            self.heal_pair(name).await;
            if self.is_over() {
                return;
            }
        }
        for name in &names {
            self.flush_pair(name).await;
        }
        // A link whose other end is gone looks well until something is to go over it, as that flush was.
        for name in &names {
            self.heal_pair(name).await;
            if self.is_over() {
                return;
            }
        }
        self.settle_joints().await;
        if !names.is_empty() && !self.is_over() {
            let checked = inspect::check_pairs(&self.shared, true);
            self.shared.ledger().hold(checked);
        }
    }

    /// Both halves of all pairs are compared; what differs is copied again.
    pub(super) async fn verify_pairs(&self) {
        let names: Vec<String> = self.shared.ledger().pairs.keys().cloned().collect();
        for name in &names {
            self.verify_quiet(name).await;
        }
        if !names.is_empty() && !self.is_over() {
            self.heal().await;
        }
    }

    async fn heal_pair(&self, name: &str) {
        let since_ms = self.shared.timeline.now_ms();
        let mut progress = Progress::new(since_ms);
        let mut last = String::from("not both arrays answer");
        loop {
            if self.end_what_is_open(name).await
                && let Some(views) = self.look(name).await
            {
                if self.is_at_end(name, &views) {
                    return;
                }
                last = views.tell();
                let now_ms = self.shared.timeline.now_ms();
                let (left_bytes, copying) = views.left();
                let checked = progress.seen(name, left_bytes, copying, now_ms);
                self.shared.ledger().hold(checked);
                if self.decide(name, &views, now_ms - since_ms).await {
                    progress = Progress::new(now_ms);
                }
            }
            let bound_ms = self.shared.deadlines.pair_ms;
            let what = format!("pair {name} ({last})");
            let checked = check_answered_in_time(&what, since_ms, self.shared.timeline.now_ms(), bound_ms);
            if self.shared.ledger().hold(checked).is_none() || self.is_over() {
                return;
            }
            sleep(Duration::from_millis(LOOK_MS)).await;
        }
    }

    /// Finds out what became of commands that were cut off. Whether nothing is open any more.
    async fn end_what_is_open(&self, name: &str) -> bool {
        let Some(pair) = self.shared.ledger().pairs.get(name).cloned() else { return true };
        if let Some((to, _)) = pair.moving {
            let names = self.shared.ledger().moving_with(name);
            return self.at(to).try_settle(&names, pair.forced, true).await;
        }
        if pair.answered || pair.exists.known().is_some() {
            return true;
        }
        self.finish_creation(name).await
    }

    /// Whether a pair is as it should be, or gone.
    fn is_at_end(&self, name: &str, views: &Views) -> bool {
        let listed = Site::ALL.map(|site| views.at(site).is_some());
        let mut ledger = self.shared.ledger();
        let Some(pair) = ledger.pairs.get(name).cloned() else { return true };
        if listed == [false, false] {
            let halves = Halves { listed, made: None, answered: pair.answered && pair.exists.surely(&true) };
            let checked = check_created(name, halves);
            ledger.hold(checked);
            if pair.exists.may_be(&true) {
                ledger.pair_ended(name);
            }
            return true;
        }
        let same = views.is_synchronized() && views.owner().is_some() && !pair.forked;
        if same && let Some(pair) = ledger.pairs.get_mut(name) {
            (pair.calm, pair.exists) = (true, Maybe::is(true));
        }
        same
    }

    /// Does what an operator would do. Whether that was something.
    async fn decide(&self, name: &str, views: &Views, waited_ms: u64) -> bool {
        let causes = Site::ALL.map(|site| views.at(site).map(|info| info.cause));
        if causes.contains(&Some(PairCause::Diverged)) {
            let keep = if self.dice.borrow_mut().chance(500) { Site::A } else { Site::B };
            self.at(keep).resolve(name).await;
            return true;
        }
        let mut done = false;
        for site in Site::ALL {
            let halted = views.at(site).is_some_and(|info| {
                info.role == PairRole::Owner && !matches!(info.cause, PairCause::Moving | PairCause::Link)
            });
            if halted {
                let op = Op { array: site, ..Op::now(Act::Pair(PairAct::Resume { pair: name.into() })) };
                self.at(site).manage(&op).await;
                done = true;
            }
        }
        let nobody = Site::ALL.iter().all(|site| !views.serves(*site));
        if nobody && waited_ms > PATIENCE_MS {
            let to = self.shared.ledger().pairs.get(name).map_or(Site::A, |pair| *pair.serves.latest());
            self.at(to).fail_over(name).await;
            done = true;
        }
        done
    }

    /// After a flush everything is on the disks of both arrays.
    async fn flush_pair(&self, name: &str) {
        if self.shared.plan.is_handled(name) {
            self.use_handle(name, &Op::now(Act::Flush { device: name.into() })).await;
            return;
        }
        let device = {
            let mut ledger = self.shared.ledger();
            let Some(pair) = ledger.pairs.get_mut(name).filter(|pair| pair.exists.surely(&true)) else {
                return;
            };
            // Its policy may be that the flush fails then.
            pair.calm &= !pair.spec.freeze;
            pair.spec.device(*pair.serves.latest()).to_string()
        };
        self.finish_one(Act::Flush { device }).await;
    }

    /// Has the other half of every pair serve, and reads all of it there.
    pub(super) async fn swap_pairs(&self) {
        let names: Vec<String> = self.shared.ledger().pairs.keys().cloned().collect();
        for name in names {
            let serves = {
                let ledger = self.shared.ledger();
                let pair = &ledger.pairs[&name];
                pair.exists.surely(&true).then(|| *pair.serves.latest())
            };
            // One of its group may have gone along with another.
            let Some(serves) = serves.filter(|site| *site == Site::A) else { continue };
            self.at(serves.other()).fail_over(&name).await;
        }
        self.heal().await;
    }

    /// Deletes all pairs.
    pub(super) async fn delete_pairs(&self) {
        let names: Vec<String> = self.shared.ledger().pairs.keys().cloned().collect();
        for name in names {
            let exists = self.shared.ledger().pairs[&name].exists.surely(&true);
            if exists {
                self.delete_pair(&name, false).await;
            }
        }
    }
}
