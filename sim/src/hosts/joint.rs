//! Snapshots on both arrays (F3): each is asked for until it is known what became of it, once more when it was made (F2), and at
//! the end of a run, when both arrays have met, both have it or neither.

use std::time::Duration;

use tokio::time::sleep;
use twintrack_host::manage::RefusalCode;
use twintrack_host::{ArrayClient, NewSnapshot};

use super::operator::Told;
use super::{Host, Phase};
use crate::endpoints::NotedDial;
use crate::ledger::part;
use crate::oracle::{Part, check_answered_in_time, check_parts};
use crate::plan::{Act, PairAct};

/// How often it is tried to find out what became of one, before that is left to the end of the run.
const TRIES: u32 = 20;
/// Between two tries, ms.
const TRY_MS: u64 = 300;

impl Host {
    /// Has a snapshot made of a pair and its group, by the host's array.
    pub(super) async fn snapshot_pair(&self, pair: &str, name: &str) {
        if !self.shared.ledger().joint_begins(pair, name, self.site) {
            self.shared.ledger().counts.skipped += 1;
            return;
        }
        for _ in 0..TRIES {
            if self.ask_for_joint(name).await || self.shared.phase.get() > Phase::Safety || self.is_over() {
                break;
            }
            sleep(Duration::from_millis(TRY_MS)).await;
        }
        let made = self.shared.ledger().joints[name].there == Some(true);
        if made && !self.is_over() {
            self.ask_for_joint(name).await;
        }
    }

    /// Asks for one, for the first time or once more. Whether it is known now whether there is one.
    async fn ask_for_joint(&self, name: &str) -> bool {
        let Some(joint) = self.shared.ledger().joints.get(name).cloned() else { return true };
        let host = self.at(joint.at);
        let new = NewSnapshot {
            whole_group: true,
            ..NewSnapshot::new(joint.request, &host.pair_device(&joint.pair), name)
        };
        let dial = NotedDial::new(self.shared.wires.clone(), joint.at);
        let array = ArrayClient::new(dial.clone(), host.array.endpoint().clone());
        let told = host.ask(array.remote_snapshot(&new)).await;
        let mut ledger = self.shared.ledger();
        match told {
            Told::Done(infos) => ledger.joint_made(name, &infos, dial.epoch()),
            Told::Refused(_) => ledger.joint_refused(name),
            Told::Unknown => ledger.joint_unanswered(name, dial.epoch()),
            Told::Unasked => {}
        }
        ledger.joints[name].there.is_some()
    }

    /// Of pairs whose halves are the same a snapshot is made, in a run that is about that.
    pub(super) async fn snapshot_at_last(&self) {
        let plan = &self.shared.plan;
        let has = |of: fn(&PairAct) -> bool| {
            plan.tasks
                .iter()
                .flat_map(|task| &task.ops)
                .any(|op| matches!(&op.act, Act::Pair(act) if of(act)))
        };
        if self.is_over() || !has(|act| matches!(act, PairAct::Snapshot { .. })) {
            return;
        }
        let Some(pair) = plan.pairs.first().map(|spec| spec.name.clone()) else { return };
        let Some(views) = self.look(&pair).await else { return };
        let Some(owner) = views.owner() else { return };
        self.at(owner).snapshot_pair(&pair, "last").await;
        let mut ledger = self.shared.ledger();
        let made = ledger.joints.get("last").and_then(|joint| joint.there);
        let synchronous =
            !has(|act| matches!(act, PairAct::Mode { .. })) && plan.pairs.iter().all(|spec| !spec.adaptive);
        // After a split brain those of one group may be served by different arrays.
        let together = ledger.pairs.values().all(|pair| pair.serves.surely(&owner));
        let allowed = Some(true).filter(|_| synchronous && together && !ledger.excuses.disks);
        if made == Some(false) {
            ledger.judge("the snapshot", allowed, Some(RefusalCode::WrongState));
        }
    }

    /// Both arrays have met: each comes to have what it will have of every snapshot.
    pub(super) async fn settle_joints(&self) {
        let open = self.shared.ledger().open_joints();
        for name in open {
            let since_ms = self.shared.timeline.now_ms();
            while !self.is_over() && !self.has_settled(&name).await {
                let (now_ms, bound_ms) = (self.shared.timeline.now_ms(), self.shared.deadlines.pair_ms);
                let checked = check_answered_in_time(&format!("snapshot {name}"), since_ms, now_ms, bound_ms);
                self.shared.ledger().hold(checked);
                sleep(Duration::from_millis(TRY_MS)).await;
            }
        }
    }

    /// Whether both arrays are known to have what they will have of a snapshot.
    async fn has_settled(&self, name: &str) -> bool {
        let there = self.shared.ledger().joints[name].there;
        if there != Some(false) {
            // Of one that is there the array that decided knows whether the other one shows it.
            self.ask_for_joint(name).await;
        }
        self.look_at_the_other(name).await;
        self.shared.ledger().joints[name].settled == [true; 2]
    }

    /// The other array shows its part when it hears that there is one, and otherwise forgets it.
    async fn look_at_the_other(&self, name: &str) {
        let joint = self.shared.ledger().joints[name].clone();
        let other = joint.at.other();
        let host = self.at(other);
        let Told::Done(sessions) = host.ask(host.array.session_list(None)).await else { return };
        let parts: Vec<Part> = joint.labels(other).iter().map(|label| part(label, &sessions)).collect();
        let mut ledger = self.shared.ledger();
        let checked = check_parts(name, &parts, joint.there, false);
        ledger.hold(checked);
        if joint.there == Some(false) && parts.iter().all(|part| *part == Part::None) {
            ledger.joint_settled(name, other, false);
        }
    }
}
