//! What both arrays tell of a pair, and what a comparison of its halves finds: held against what is known.

use twintrack_host::manage::{
    Answer, Command, PairData, PairMode, PairRole, PairStatusInfo, RefusalCode, RemoteInfo, VerifyInfo,
};

use super::Host;
use super::operator::Told;
use crate::inspect;
use crate::ledger::is_same;
use crate::oracle::{Differing, Span, check_verified};
use crate::site::Site;

/// A pair as each of its arrays has it.
pub(super) struct Views {
    pub(super) views: [Option<RemoteInfo>; 2],
}

impl Views {
    pub(super) fn at(&self, site: Site) -> Option<&RemoteInfo> {
        self.views[site.index()].as_ref()
    }

    pub(super) fn serves(&self, site: Site) -> bool {
        self.at(site).is_some_and(|info| info.role == PairRole::Owner)
    }

    /// The one array whose half serves, while the other's stands by, and will not come back with what it has.
    pub(super) fn owner(&self) -> Option<Site> {
        if self.views.iter().flatten().any(|info| info.data == PairData::Diverged) {
            return None;
        }
        let stands_by = |site: Site| self.at(site).is_some_and(|info| info.role == PairRole::Standby);
        Site::ALL.into_iter().find(|site| self.serves(*site) && stands_by(site.other()))
    }

    /// Whether each says that both were written alone; `None`: one does not have the pair.
    fn diverged(&self) -> Option<[bool; 2]> {
        let [Some(a), Some(b)] = &self.views else { return None };
        Some([a, b].map(|info| info.data == PairData::Diverged))
    }

    /// Bytes that one half lacks, and whether they are said to be copied just now.
    pub(super) fn left(&self) -> (u64, bool) {
        let of = |info: &RemoteInfo| info.owed_bytes + info.lacked_bytes;
        let serving = self.views.iter().flatten().filter(|info| info.role == PairRole::Owner);
        let copying = |info: &RemoteInfo| info.status == PairStatusInfo::SyncInProg;
        serving.fold((0, false), |(left, any), info| (left + of(info), any || copying(info)))
    }

    /// How both arrays say that it is, and why.
    pub(super) fn tell(&self) -> String {
        let told = |site: Site| match self.at(site) {
            Some(info) => format!("{} at {}: {:?}, {}", info.device, site.name(), info.status, info.why),
            None => format!("{} does not have it", site.name()),
        };
        Site::ALL.map(told).join("; ")
    }

    /// Both halves have the same, but for writes under way.
    pub(super) fn is_synchronized(&self) -> bool {
        self.views.iter().all(|view| view.as_ref().is_some_and(is_same))
    }
}

impl Host {
    /// Asks both arrays; `None`: one of them did not answer.
    pub(super) async fn look(&self, name: &str) -> Option<Views> {
        let changes = self.shared.ledger().changes;
        let since = self.shared.ledger().history.tick();
        let (mut views, mut silent) = ([None, None], false);
        for site in Site::ALL {
            let host = self.at(site);
            let command = Command::RemoteShow { device: host.pair_device(name) };
            let call = self.shared.ledger().history.tick();
            match host.ask(host.array.call(&command)).await {
                Told::Done(Answer::Remote(info)) => {
                    host.note_look(name, &info);
                    let mut ledger = self.shared.ledger();
                    let asked = Span { call, answer: ledger.history.tick() };
                    ledger.pair_told(name, site, &info, asked);
                    views[site.index()] = Some(*info);
                }
                Told::Refused(RefusalCode::NotFound) => {}
                _ => silent = true,
            }
        }
        let views = Views { views };
        let grouped = self.shared.ledger().pairs.get(name).is_some_and(|pair| pair.spec.group.is_some());
        for site in Site::ALL.into_iter().filter(|site| grouped && views.serves(*site)) {
            self.at(site).list_pairs().await;
        }
        let mut ledger = self.shared.ledger();
        if changes == ledger.changes {
            for site in Site::ALL.into_iter().filter(|site| views.serves(*site)) {
                let serves = ledger.pairs.get(name).is_some_and(|p| p.serves.surely(&site) && !p.forked);
                let same =
                    views.at(site).is_some_and(|info| is_same(info) && info.mode == PairMode::Synchronous);
                if serves {
                    ledger.pair_seen(name, since, same);
                    if views.at(site.other()).is_some_and(is_same) {
                        ledger.pair_linked(name);
                    }
                }
            }
            let gone = !silent && views.views.iter().all(Option::is_none);
            if let Some(pair) = ledger.pairs.get_mut(name).filter(|pair| gone && pair.fading) {
                pair.fading = false;
            }
            if !silent {
                ledger.pair_looked(name, views.diverged(), views.owner());
            }
            if let (Some(owner), false) = (views.owner(), silent) {
                ledger.reunited(name, owner);
            }
        }
        drop(ledger);
        (!silent).then_some(views)
    }

    fn note_look(&self, name: &str, info: &RemoteInfo) {
        let RemoteInfo { status, role, link, data, cause, owed_bytes, lacked_bytes, why, next, .. } = info;
        self.note(format_args!(
            "{name} at {}: {status:?} {role:?} {link:?} {data:?} {cause:?} {owed_bytes} {lacked_bytes}: {why}; {next}",
            self.site.name()
        ));
    }

    /// Has the array list its pairs: those of one group at one instant.
    async fn list_pairs(&self) {
        let links = self.shared.wires.links();
        if let Told::Done(infos) = self.ask(self.array.remote_list()).await {
            let (at_ms, links) = (self.shared.timeline.now_ms(), (links, self.shared.wires.links()));
            let of_plan = |info: &RemoteInfo| {
                self.shared.plan.pairs.iter().any(|pair| pair.device(self.site) == info.device)
            };
            let infos: Vec<_> = infos.into_iter().filter(of_plan).collect();
            self.shared.ledger().pairs_listed(self.site, &infos, at_ms, links);
        }
    }

    /// Has the array compare both halves of a pair while hosts write; what it found.
    pub(super) async fn verify(&self, name: &str, mark: bool) -> Option<VerifyInfo> {
        let told = self.ask(self.array.remote_verify(&self.pair_device(name), mark)).await;
        let Told::Done(info) = told else { return None };
        self.note(format_args!(
            "{name}: {} tracks compared, differing {:?}",
            info.compared_tracks, info.differing
        ));
        let mut ledger = self.shared.ledger();
        // What a failing disk does not give differs, too.
        if !ledger.excuses.disks {
            let spoiled = ledger.pairs.get(name).map(|pair| pair.spoiled.clone()).unwrap_or_default();
            let checked = check_verified(name, &info, ledger.tracks_of(name), &Differing::May(spoiled));
            ledger.hold(checked);
        }
        Some(info)
    }

    /// Compares both halves of a pair when nobody writes: all that differs is found, and set right.
    pub(super) async fn verify_quiet(&self, name: &str) {
        let serves = {
            let ledger = self.shared.ledger();
            let Some(pair) = ledger.pairs.get(name).filter(|pair| pair.exists.surely(&true)) else { return };
            *pair.serves.latest()
        };
        let host = self.at(serves);
        let differing = inspect::differing(&self.shared, serves, &host.pair_device(name));
        let Some(differing) = self.shared.ledger().hold(differing) else { return };
        let told = host.ask(host.array.remote_verify(&host.pair_device(name), !differing.is_empty())).await;
        host.judge("the comparison", Some(true), &told);
        if let Told::Done(info) = told {
            host.note(format_args!("{name}: {} tracks differ, found {:?}", differing.len(), info.differing));
            let mut ledger = self.shared.ledger();
            let checked = check_verified(name, &info, ledger.tracks_of(name), &Differing::Do(differing));
            ledger.hold(checked);
            if let Some(pair) = ledger.pairs.get_mut(name) {
                pair.spoiled.clear();
            }
        }
    }
}
