//! What is learnt of pairs from what arrays tell, and from what hosts are answered meanwhile.

use std::collections::{BTreeMap, BTreeSet};

use twintrack_link::manage::{PairCause, PairLink, PairRole, PairStatusInfo, RemoteInfo};

use super::{Ledger, Maybe};
use crate::oracle::{Frozen, Held, Listing, Member, Moment, Span, check_group, check_told};
use crate::site::Site;

impl Ledger {
    /// An array was asked how its half of a pair is.
    pub fn pair_told(&mut self, name: &str, site: Site, info: &RemoteInfo, asked: Span) {
        self.hold(check_told(info));
        let Some(pair) = self.pairs.get_mut(name) else { return };
        let frozen = &mut pair.frozen[site.index()];
        if info.role != PairRole::Owner || info.cause != PairCause::Frozen {
            *frozen = None;
            return;
        }
        let still = frozen.as_ref().map_or(Ok(false), |frozen| frozen.check(name, info.since_ms, asked.call));
        if still != Ok(true) {
            *frozen = Some(Frozen::new(info.since_ms, asked.answer));
        }
        self.hold(still);
    }

    /// A host was told that a write happened.
    pub fn pair_wrote(&mut self, device: &str, call: Moment, what: &str) {
        let answer = self.history.tick();
        for pair in self.pairs.values_mut() {
            let here = Site::ALL.into_iter().find(|site| pair.spec.device(*site) == device);
            let Some(site) = here else { continue };
            if let Some(frozen) = pair.frozen[site.index()].as_mut() {
                frozen.wrote(call, answer, what);
            }
            if pair.forked && pair.busy == 0 && pair.changed < call && pair.serves.surely(&site.other()) {
                pair.split.wrote_apart();
            }
        }
    }

    /// Both arrays were asked, and no command on a pair began or ended meanwhile. `diverged`: whether they say that the
    /// halves have; `owner`: whose half serves while the other stands by.
    pub fn pair_looked(&mut self, name: &str, diverged: Option<[bool; 2]>, owner: Option<Site>) {
        let Some(pair) = self.pairs.get_mut(name) else { return };
        let mut seen = pair.split.seen(name, diverged);
        if owner.is_some() && pair.moving.is_none() && pair.busy == 0 {
            seen = seen.and(pair.split.joined(name));
        }
        self.hold(seen);
    }

    /// An array has listed its pairs, at one instant. `links`, see [`Listing`].
    pub fn pairs_listed(&mut self, site: Site, infos: &[RemoteInfo], at_ms: u64, links: (u64, u64)) {
        let mut groups: BTreeMap<&str, Vec<Member>> = BTreeMap::new();
        for info in infos.iter().filter(|info| info.role == PairRole::Owner) {
            let held = match info.cause {
                PairCause::Moving => Held::No,
                PairCause::Link | PairCause::Peer | PairCause::Space | PairCause::Frozen => Held::Noticed,
                PairCause::Operator | PairCause::Split | PairCause::Diverged => Held::Otherwise,
            };
            if let Some(group) = &info.group {
                let (device, agreed) = (info.device.clone(), info.link == PairLink::Up);
                let agreeing = info.link == PairLink::Agreeing;
                groups.entry(group).or_default().push(Member { device, held, agreed, agreeing });
            }
        }
        for (group, members) in groups {
            let now = Listing { at_ms, links, members };
            let before = self.listed.insert((site, group.into()), now.clone());
            self.hold(before.map_or(Ok(()), |before| check_group(group, &before, &now)));
        }
    }

    /// The half that serves was asked at `call`, and said how it is.
    pub fn pair_seen(&mut self, name: &str, call: Moment, synchronized: bool) {
        if let Some(pair) = self.pairs.get_mut(name)
            && synchronized
            && pair.busy == 0
        {
            pair.floor = Some(call);
            pair.floor_linked = pair.linked;
        }
    }

    /// The half that stands by was asked, and said that it is linked and the same: what the other one tells from now on, it
    /// tells of this run of its array.
    pub fn pair_linked(&mut self, name: &str) {
        let now = self.history.tick();
        if let Some(pair) = self.pairs.get_mut(name) {
            pair.linked = now;
        }
    }

    /// Both halves are one again, served by an array: the other one stands by.
    pub fn reunited(&mut self, name: &str, serves: Site) {
        let Some(pair) = self.pairs.get_mut(name) else { return };
        if !std::mem::take(&mut pair.forked) {
            return;
        }
        pair.serves = Maybe::is(serves);
        pair.changed = self.history.tick();
        self.stand_by(name, serves.other());
    }

    /// Tracks of a pair's volume.
    pub fn tracks_of(&self, name: &str) -> u64 {
        let device = self.pairs.get(name).and_then(|pair| self.devices.get(&pair.spec.r1));
        device.map_or(0, |device| device.size.latest().div_ceil(self.track_bytes))
    }

    /// A track of a pair was changed on one array behind its back.
    pub fn pair_spoiled(&mut self, device: &str, track: u32) {
        for pair in self.pairs.values_mut() {
            if Site::ALL.iter().any(|site| pair.spec.device(*site) == device) {
                pair.spoiled.insert(track);
            }
        }
    }

    /// Tracks of the pair of a device that somebody changed behind an array's back.
    pub fn spoiled(&self, device: &str) -> BTreeSet<u32> {
        let of = |pair: &&super::Pair| Site::ALL.iter().any(|site| pair.spec.device(*site) == device);
        self.pairs.values().find(of).map_or_else(BTreeSet::new, |pair| pair.spoiled.clone())
    }
}

/// Whether an array says that both halves have the same, but for writes under way.
pub fn is_same(info: &RemoteInfo) -> bool {
    matches!(info.status, PairStatusInfo::Synchronized | PairStatusInfo::R1Updated)
}
