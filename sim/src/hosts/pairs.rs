//! Pairs: each command as the plan gives it, and what is found out about it.

use std::time::Duration;

use tokio::time::sleep;
use twintrack_host::manage::{Answer, Command, NewDevice, PairHalf, PairMode, PairPolicy};

use super::operator::Told;
use super::{Host, Phase};
use crate::cabinet::EPOCH_MS;
use crate::endpoints::LINK_PORT;
use crate::ledger::{Maybe, Takeover};
use crate::plan::{PairAct, PairSpec};
use crate::site::Site;

/// How often it is tried to find out what became of a command, before it is left to the end of the run.
const TRIES: u32 = 40;
/// How long after a command it may still be under way, in tries.
const UNDER_WAY_TRIES: u32 = 24;
/// Between two tries, ms.
const TRY_MS: u64 = 500;

impl Host {
    /// Makes the arrays known to each other: one of them dials, or both.
    pub(super) async fn link_arrays(&self) {
        for site in Site::ALL {
            let dials = self.shared.plan.seed % 3 != site.index() as u64;
            let there = site.other();
            let endpoint = dials.then(|| format!("tcp:{}:{LINK_PORT}", there.address()));
            let other = self.at(there);
            other.wait_until_up().await;
            let Told::Done(array) = other.ask(other.array.array_show()).await else { continue };
            // Who does not dial has to know who may.
            let serial = (!dials).then_some(array.serial);
            let command = Command::LinkAdd { name: there.name().into(), endpoint, serial };
            let host = self.at(site);
            while let Told::Unasked | Told::Unknown = host.ask(host.array.call(&command)).await {
                sleep(Duration::from_millis(10)).await;
            }
        }
    }

    /// An operator's command, asked of the host's array.
    pub(super) async fn pair_act(&self, act: &PairAct) {
        let name = act.pair();
        if let PairAct::Create(spec) = act {
            return self.create_pair(spec).await;
        }
        let there = self.shared.ledger().pairs.get(name).is_some_and(|pair| pair.exists.surely(&true));
        if !there {
            self.shared.ledger().counts.skipped += 1;
            return;
        }
        let device = self.pair_device(name);
        match act {
            PairAct::Create(_) => {}
            PairAct::Suspend { split, .. } => {
                self.tell(Command::RemoteSuspend { device, whole_group: true, split: *split }).await;
            }
            PairAct::Resume { .. } => {
                self.tell(Command::RemoteResume { device, whole_group: true }).await;
            }
            PairAct::Mode { adaptive, .. } => {
                let mode = if *adaptive { PairMode::Adaptive } else { PairMode::Synchronous };
                self.shared.ledger().pair_changes(name);
                self.tell(Command::RemoteMode { device, mode }).await;
                // What the other half has is no instant any more.
                self.shared.ledger().pair_changed(name, |pair| pair.floor = None);
            }
            PairAct::Failover { force, to_safety_copy, .. } => {
                let command = if *to_safety_copy {
                    Command::RemoteGoBack { device }
                } else {
                    Command::RemoteFailover { device, force: *force }
                };
                self.fail_over_by(name, *force, &command).await;
            }
            PairAct::Resolve { keep, .. } => self.at(*keep).resolve(name).await,
            PairAct::Delete { force, .. } => self.delete_pair(name, *force).await,
            PairAct::Verify { mark, .. } => drop(self.verify(name, *mark).await),
            PairAct::Snapshot { name: snapshot, .. } => self.snapshot_pair(name, snapshot).await,
            PairAct::Show { .. } => drop(self.look(name).await),
        }
    }

    async fn tell(&self, command: Command) {
        self.ask(self.array.call(&command)).await;
    }

    /// The present name of a pair's device on the host's array.
    pub(super) fn pair_device(&self, name: &str) -> String {
        let ledger = self.shared.ledger();
        let Some(pair) = ledger.pairs.get(name) else { return String::new() };
        let device = pair.spec.device(self.site);
        ledger.devices.get(device).map_or_else(|| device.into(), |device| device.name.latest().clone())
    }

    /// Makes a pair, unless it is there or may be.
    pub(super) async fn create_pair(&self, spec: &PairSpec) {
        let fading = self.shared.ledger().pairs.get(&spec.name).is_some_and(|pair| pair.fading);
        if fading {
            self.look(&spec.name).await;
        }
        {
            let mut ledger = self.shared.ledger();
            if ledger.pairs.get(&spec.name).is_some_and(|pair| pair.fading || pair.exists.may_be(&true)) {
                ledger.counts.skipped += 1;
                return;
            }
            ledger.pair_begins(spec);
        }
        for _ in 0..TRIES {
            if self.finish_creation(&spec.name).await {
                return;
            }
            if self.shared.phase.get() > Phase::Safety || self.is_over() {
                return;
            }
            let setting_up = self.shared.in_phase(Phase::Setup);
            sleep(Duration::from_millis(if setting_up { TRY_MS / 10 } else { TRY_MS })).await;
        }
    }

    /// Asks once, or once more with the same number (F2). Whether it is known now what came of it.
    pub(super) async fn finish_creation(&self, name: &str) -> bool {
        let Some(pair) = self.shared.ledger().pairs.get(name).cloned() else { return true };
        let spec = &pair.spec;
        let host = self.at(spec.asked);
        let half = |site: Site| if site == Site::A { PairHalf::R1 } else { PairHalf::R2 };
        let made = |site: Site| {
            let size = spec.makes.filter(|(at, _)| *at == site).map(|(_, size_bytes)| size_bytes);
            size.map(|size_bytes| NewDevice { pool: None, size_bytes })
        };
        let command = Command::RemoteCreate {
            request: pair.request,
            device: host.pair_device(name),
            peer: spec.asked.other().name().into(),
            peer_device: self.at(spec.asked.other()).pair_device(name),
            half: half(spec.asked),
            from: half(spec.from),
            create_local: made(spec.asked),
            create_peer: made(spec.asked.other()),
            mode: if spec.adaptive { PairMode::Adaptive } else { PairMode::Synchronous },
            policy: if spec.freeze { PairPolicy::Freeze } else { PairPolicy::Continue },
            group: spec.group.clone(),
        };
        let told = host.ask(host.array.call(&command)).await;
        match told {
            Told::Done(_) => self.shared.ledger().pair_made(name, true),
            Told::Refused(_) => self.shared.ledger().pair_made(name, false),
            Told::Unasked | Told::Unknown => return false,
        }
        true
    }

    /// The half on the host's array is to serve, with the other array's consent.
    pub(super) async fn fail_over(&self, name: &str) {
        let command = Command::RemoteFailover { device: self.pair_device(name), force: false };
        self.fail_over_by(name, false, &command).await;
    }

    /// The half on the host's array is to serve. What was kept of it is what it was when the pair was last synchronized, or
    /// later, as what a failover by force finds there.
    async fn fail_over_by(&self, name: &str, force: bool, command: &Command) {
        let names = {
            let mut ledger = self.shared.ledger();
            let names = ledger.group_of(name);
            let settled = names.iter().all(|name| {
                let pair = &ledger.pairs[name];
                pair.moving.is_none() && !pair.forked && pair.busy == 0 && pair.serves.known().is_some()
            });
            if !settled {
                ledger.counts.skipped += 1;
                return;
            }
            // After a split brain those of one group may be served by different arrays.
            let away = |name: &String| ledger.pairs[name].serves.surely(&self.site.other());
            names.into_iter().filter(away).collect::<Vec<_>>()
        };
        let away = !names.is_empty();
        if force {
            self.shared.ledger().force_begins(name);
        }
        if away {
            let takeover = match command {
                Command::RemoteGoBack { .. } => Takeover::ToSafetyCopy,
                _ if force => Takeover::Forced,
                _ => Takeover::Planned,
            };
            self.shared.ledger().failover_begins(&names, self.site, takeover);
        }
        let told = self.ask(self.array.call(command)).await;
        if !away {
            return;
        }
        match told {
            Told::Done(answer) => {
                if force {
                    self.note_had_all(&names, &answer);
                }
                self.end_failover(&names, force, true);
                if force {
                    self.shared.ledger().force_answered(&names);
                }
            }
            Told::Refused(_) | Told::Unasked | Told::Unknown => {
                self.settle_failover(&names, force, matches!(told, Told::Unasked)).await;
            }
        }
    }

    /// Up to when the array has all that the other one had answered, as it says who forced it.
    fn note_had_all(&self, names: &[String], answer: &Answer) {
        let Answer::Remotes(infos) = answer else { return };
        let told = |name: &String| {
            let info = infos.iter().find(|info| info.device == self.pair_device(name))?;
            info.forced.as_ref()?.had_all_ms?.checked_sub(EPOCH_MS)
        };
        let told: Vec<_> = names.iter().map(told).collect();
        self.shared.ledger().failover_told(names, &told);
    }

    fn end_failover(&self, names: &[String], force: bool, happened: bool) {
        let down = self.shared.array(self.site.other()).down.get();
        self.shared.ledger().failover_ended(names, self.site, force, happened, down);
    }

    /// Finds out what became of a failover to the host's array.
    async fn settle_failover(&self, names: &[String], force: bool, unasked: bool) {
        for tried in 0..TRIES {
            if self.try_settle(names, force, unasked || tried >= UNDER_WAY_TRIES).await
                || self.shared.phase.get() > Phase::Safety
                || self.is_over()
            {
                return;
            }
            sleep(Duration::from_millis(TRY_MS)).await;
        }
    }

    /// Looks once. `late`: what has not happened will not.
    pub(super) async fn try_settle(&self, names: &[String], force: bool, late: bool) -> bool {
        let Some(first) = names.first() else { return true };
        let Some(views) = self.look(first).await else { return false };
        if views.serves(self.site) {
            self.end_failover(names, force, true);
            return true;
        }
        if late && views.serves(self.site.other()) {
            self.end_failover(names, force, false);
            return true;
        }
        false
    }

    /// Ends a pair.
    pub(super) async fn delete_pair(&self, name: &str, force: bool) {
        let (settled, losing) = {
            let ledger = self.shared.ledger();
            let pair = &ledger.pairs[name];
            let settled = pair.moving.is_none() && !pair.forked && pair.busy == 0;
            (settled, pair.spec.from == Site::B && pair.floor.is_none())
        };
        if !settled {
            return;
        }
        // By force R1 would lose what it has not got from R2 yet. Nobody wants that here; without force it is refused.
        let force = force && !losing;
        self.shared.ledger().pair_ends(name);
        let device = self.pair_device(name);
        let told = self.ask(self.array.call(&Command::RemoteDelete { device, force })).await;
        match told {
            Told::Done(_) => self.shared.ledger().pair_ended(name),
            Told::Unknown => self.shared.ledger().pair_changed(name, |_| {}),
            Told::Refused(_) | Told::Unasked => {
                self.shared.ledger().pair_changed(name, |pair| pair.exists = Maybe::is(true));
            }
        }
    }

    pub(super) fn is_over(&self) -> bool {
        !self.shared.ledger().violations.is_empty()
    }
}
