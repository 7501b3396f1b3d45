//! Pairs: which half serves, what a failover takes along, and what each device shows. A device that stands by has as its
//! volume the *heir* of the one that serves: nobody reads it before it takes over.

use std::collections::BTreeSet;

use super::{Ledger, Maybe};
use crate::oracle::{CutId, Frozen, Moment, Origin, Split, VolumeId};
use crate::plan::PairSpec;
use crate::site::Site;

/// A pair.
#[derive(Debug, Clone)]
pub struct Pair {
    /// As the plan has it.
    pub spec: PairSpec,
    /// Whether it is there.
    pub exists: Maybe<bool>,
    /// Whether its creation was answered well.
    pub answered: bool,
    /// Whose half serves; after a forced failover the other may go on, too.
    pub serves: Maybe<Site>,
    /// Somebody forced one half, and the other has not given up yet, as far as is known.
    pub forked: bool,
    /// It was deleted, and one half may still have to hear of that.
    pub fading: bool,
    /// The failover under way: to where, and the instant that it takes along.
    pub moving: Option<(Site, CutId)>,
    /// When the half that serves was last asked and said that the other has everything.
    pub floor: Option<Moment>,
    /// When the half that stands by was last asked and said that it is linked to the other, and the same.
    pub linked: Moment,
    /// When that was at `floor`.
    pub floor_linked: Moment,
    /// Its end under way: the instant that what stood by shows.
    pub ending: Option<CutId>,
    /// Whether it was forced, the failover under way.
    pub forced: bool,
    /// When its creation was called.
    pub begun: Moment,
    /// The volume that its creation is to make was there before: an earlier pair left it.
    pub volume_left: bool,
    /// The number of its creation (F2).
    pub request: u64,
    /// Commands that change it under way.
    pub busy: u32,
    /// When the last of them ended.
    pub changed: Moment,
    /// Nothing is wrong with it any more, so that errors count.
    pub calm: bool,
    /// Each half, while it says that it is frozen.
    pub frozen: [Option<Frozen>; 2],
    /// What is known of its split brains.
    pub split: Split,
    /// Tracks that somebody changed behind an array's back.
    pub spoiled: BTreeSet<u32>,
}

/// How halves come to serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Takeover {
    /// Both arrays take part.
    Planned,
    /// The other one is not asked.
    Forced,
    /// The same, with what was before a copy.
    ToSafetyCopy,
}

impl Ledger {
    /// The creation of a pair is called.
    pub fn pair_begins(&mut self, spec: &PairSpec) {
        self.changes += 1;
        if let Some((site, size)) = spec.makes
            && !self.devices.contains_key(spec.device(site))
        {
            self.expect_device(site, spec.device(site), Some(size));
        }
        let mut volume_left = false;
        if let Some((site, _)) = spec.makes {
            self.device_changes(spec.device(site), |device| {
                volume_left = device.exists.surely(&true);
                device.exists.also(true);
            });
        }
        let begun = self.history.tick();
        let pair = Pair {
            spec: spec.clone(),
            exists: Maybe::is(false),
            answered: false,
            serves: Maybe::is(Site::A),
            forked: false,
            fading: false,
            moving: None,
            floor: None,
            linked: begun,
            floor_linked: begun,
            ending: None,
            forced: false,
            begun,
            volume_left,
            request: self.changes,
            busy: 1,
            changed: 0,
            calm: false,
            frozen: [None, None],
            split: Split::default(),
            spoiled: BTreeSet::new(),
        };
        self.pairs.insert(spec.name.clone(), pair);
        if let Some(pair) = self.pairs.get_mut(&spec.name) {
            pair.exists.also(true);
        }
    }

    /// It is there, or it is not and will not be.
    pub fn pair_made(&mut self, name: &str, exists: bool) {
        let Some(Pair { spec, volume_left, .. }) = self.pairs.get(name).cloned() else { return };
        // A half that was undone may be left until the other array hears of it.
        self.pair_changed(name, |pair| {
            (pair.exists, pair.answered, pair.fading) = (Maybe::is(exists), exists, !exists);
        });
        if let Some((site, _)) = spec.makes {
            self.device_changed(spec.device(site), |device| device.exists = Maybe::is(exists || volume_left));
        }
        if !exists {
            return;
        }
        if spec.from == Site::B {
            // R1 takes over what R2 has, and serves it.
            self.stand_by(name, Site::A);
            let begun = self.pairs.get(name).map_or(0, |pair| pair.begun);
            if let Some(cut) = self.begin_move(&[name.into()], Site::A, begun) {
                self.history.end_move(cut, false);
            }
        }
        self.stand_by(name, Site::B);
    }

    /// A command that changes a pair ended.
    pub fn pair_changed(&mut self, name: &str, change: impl FnOnce(&mut Pair)) {
        self.changes += 1;
        let now = self.history.tick();
        if let Some(pair) = self.pairs.get_mut(name) {
            pair.busy = pair.busy.saturating_sub(1);
            pair.changed = now;
            change(pair);
        }
    }

    /// A command that changes a pair begins.
    pub fn pair_changes(&mut self, name: &str) {
        self.changes += 1;
        if let Some(pair) = self.pairs.get_mut(name) {
            pair.busy += 1;
        }
    }

    /// The half on an array stands by from now on: what it shows next is what the other one has.
    pub fn stand_by(&mut self, name: &str, site: Site) {
        let Some(spec) = self.pairs.get(name).map(|pair| pair.spec.clone()) else { return };
        let of = self.devices.get(spec.device(site.other())).and_then(|device| device.standard);
        let Some(of) = of else { return };
        let heir = self.history.add_heir(site, spec.device(site), of);
        if let Some(device) = self.devices.get_mut(spec.device(site)) {
            device.standard = Some(heir);
        }
    }

    /// A failover of a pair and its group is called. By force: what it takes along is what was there when the pair was
    /// last seen synchronized, or later.
    pub fn failover_begins(&mut self, names: &[String], to: Site, takeover: Takeover) {
        let force = takeover != Takeover::Planned;
        let now = self.history.tick();
        let floors = names.iter().map(|name| self.pairs.get(name).and_then(|pair| pair.floor));
        let floors = floors.collect::<Option<Vec<_>>>();
        // Of a group, when the last of them was; but its safety copies are of before the copy that has made one of them whole.
        let floor = floors.and_then(|floors| {
            let floors = floors.into_iter();
            if takeover == Takeover::ToSafetyCopy { floors.min() } else { floors.max() }
        });
        let cut = self.begin_move(names, to, if force { floor.unwrap_or(now) } else { now });
        if let (Some(cut), true, None) = (cut, force, floor) {
            self.history.blur_cut(cut);
        }
        if let (Some(cut), true) = (cut, force) {
            let pairs = names.iter().filter_map(|name| self.pairs.get(name));
            pairs.for_each(|pair| self.history.doubt_move(cut, pair.floor_linked));
        }
        for name in names {
            self.pair_changes(name);
            if let Some(pair) = self.pairs.get_mut(name) {
                (pair.moving, pair.forced) = (cut.map(|cut| (to, cut)), force);
                pair.serves.also(to);
            }
        }
    }

    fn begin_move(&mut self, names: &[String], to: Site, floor: Moment) -> Option<CutId> {
        let heir = |name: &String| {
            let spec = &self.pairs.get(name)?.spec;
            self.devices.get(spec.device(to))?.standard
        };
        let heirs: Vec<VolumeId> = names.iter().filter_map(heir).collect();
        self.history.begin_move(&heirs, floor)
    }

    /// Somebody says that the half of a pair, and of all of its group, is to serve, whatever the other array does.
    pub fn force_begins(&mut self, name: &str) {
        let group = self.pairs.get(name).and_then(|pair| pair.spec.group.clone());
        for (other, pair) in &mut self.pairs {
            if other == name || (group.is_some() && pair.spec.group == group) {
                pair.split.forced = true;
            }
        }
    }

    /// These pairs were forced, and who did it was told so.
    pub fn force_answered(&mut self, names: &[String]) {
        let forced = self.pairs.iter_mut().filter(|(name, _)| names.contains(name));
        forced.for_each(|(_, pair)| pair.split.force_answered());
    }

    /// A person is about to choose one of two halves that were written alone: what will be kept of the other one (F4), from
    /// the array's call on.
    pub fn choice_begins(&mut self, name: &str, loser: Site) -> Option<(CutId, VolumeId)> {
        self.pair_changes(name);
        let pair = self.pairs.get_mut(name)?;
        pair.split.chosen();
        let pair = self.pairs.get(name).filter(|pair| pair.forked && pair.moving.is_none())?;
        let of = self.devices.get(pair.spec.device(loser))?.standard?;
        let cut = self.history.begin_cut(loser);
        Some((cut, self.history.add_volume(loser, &format!("{name}, lost"), Origin::Snapshot(of, cut))))
    }

    /// It was done (`None`: that is not known).
    pub fn choice_ended(&mut self, name: &str, done: Option<bool>) {
        self.pair_changed(name, |pair| pair.split.choice_ended(done));
    }

    /// A forced failover was answered: up to when the array says to have all that the other one had answered, of each pair.
    pub fn failover_told(&mut self, names: &[String], had_all_ms: &[Option<u64>]) {
        let moved = names.iter().find_map(|name| self.pairs.get(name)?.moving);
        let all = had_all_ms.iter().copied().collect::<Option<Vec<_>>>().unwrap_or_default();
        if let (Some((_, cut)), Some(ms)) = (moved, all.into_iter().min()) {
            self.history.promise_move(cut, ms);
        }
    }

    /// The failover has happened, or not and will not. `down`: the other array is, since its last crash.
    pub fn failover_ended(&mut self, names: &[String], to: Site, force: bool, happened: bool, down: bool) {
        let moved = names.iter().find_map(|name| self.pairs.get(name)?.moving);
        if let (Some((_, cut)), true) = (moved, happened) {
            self.history.end_move(cut, down);
        }
        for name in names {
            self.pair_changed(name, |pair| {
                pair.moving = None;
                pair.forked |= happened && force;
                pair.serves = Maybe::is(if happened { to } else { to.other() });
                if happened {
                    pair.floor = None;
                }
            });
            if happened && !force {
                self.stand_by(name, to.other());
            }
        }
    }

    /// The end of a pair is called: what stood by shows what it has then, if that is known.
    pub fn pair_ends(&mut self, name: &str) {
        let Some(pair) = self.pairs.get(name).cloned() else { return };
        let now = self.history.tick();
        let to = pair.serves.latest().other();
        let cut = self.begin_move(&[name.into()], to, pair.floor.unwrap_or(now));
        if let (Some(cut), None) = (cut, pair.floor) {
            self.history.blur_cut(cut);
        }
        if let Some(cut) = cut {
            self.history.doubt_move(cut, pair.floor_linked);
        }
        self.pair_changes(name);
        if let Some(pair) = self.pairs.get_mut(name) {
            pair.ending = cut;
            pair.exists.also(false);
        }
    }

    /// It has ended.
    pub fn pair_ended(&mut self, name: &str) {
        if let Some(cut) = self.pairs.get(name).and_then(|pair| pair.ending) {
            self.history.end_move(cut, false);
        }
        self.pair_changed(name, |pair| (pair.exists, pair.fading) = (Maybe::is(false), true));
    }

    /// The pair that a device is, or may be, in.
    pub fn pair_of(&self, device: &str) -> Option<&Pair> {
        let mut pairs = self.pairs.values();
        pairs.find(|pair| {
            (pair.fading || pair.exists.may_be(&true))
                && Site::ALL.iter().any(|site| pair.spec.device(*site) == device)
        })
    }

    /// The pairs that move together with one.
    pub fn group_of(&self, name: &str) -> Vec<String> {
        let Some(pair) = self.pairs.get(name) else { return Vec::new() };
        let with = |other: &&Pair| {
            other.exists.surely(&true)
                && (other.spec.name == name
                    || (pair.spec.group.is_some() && other.spec.group == pair.spec.group))
        };
        self.pairs.values().filter(with).map(|pair| pair.spec.name.clone()).collect()
    }

    /// The pairs of the failover that a pair is in.
    pub fn moving_with(&self, name: &str) -> Vec<String> {
        let moving = self.pairs.get(name).and_then(|pair| pair.moving);
        let with = self.pairs.values().filter(|pair| pair.moving.is_some() && pair.moving == moving);
        with.map(|pair| pair.spec.name.clone()).collect()
    }

    /// The pair of a device that surely stood by from `since` until now.
    pub fn stands_by(&self, device: &str, since: Moment) -> Option<String> {
        let pair = self.pair_of(device)?;
        let here = Site::ALL.into_iter().find(|site| pair.spec.device(*site) == device)?;
        let sure = pair.exists.surely(&true)
            && !pair.forked
            && pair.moving.is_none()
            && pair.busy == 0
            && pair.changed < since
            && pair.serves.surely(&here.other());
        sure.then(|| pair.spec.name.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Excuses;
    use crate::oracle::{Content, Violation};
    use crate::timeline::Timeline;
    use twintrack_link::manage::WhenFull;

    fn ledger() -> Ledger {
        let when_full = WhenFull::FailSessions;
        let excuses = Excuses { disks: false, full: false, connections: true, when_full };
        let mut ledger = Ledger::new(16384, excuses, Timeline::new(false));
        ledger.expect_device(Site::A, "d0", Some(512));
        ledger.expect_device(Site::B, "e0", Some(512));
        let spec = r#"{"name":"p0","r1":"d0","r2":"e0"}"#;
        ledger.pair_begins(&serde_json::from_str(spec).unwrap());
        ledger.pair_made("p0", true);
        ledger
    }

    fn write(ledger: &mut Ledger, device: &str) -> Vec<u8> {
        let volume = ledger.volume(device).unwrap();
        let write = ledger.history.begin_write(volume, 0, 512, Content::Data, false);
        ledger.history.end_write(write).unwrap();
        ledger.history.payload(write)
    }

    fn read(ledger: &mut Ledger, device: &str, bytes: &[u8]) -> Result<(), Violation> {
        let volume = ledger.volume(device).unwrap();
        let call = ledger.history.tick();
        ledger.history.end_read(volume, 0, bytes, call)
    }

    #[test]
    fn a_volume_goes_there_and_back() {
        let mut ledger = ledger();
        let names = ["p0".to_string()];
        let mut last = write(&mut ledger, "d0");
        for (to, device) in [(Site::B, "e0"), (Site::A, "d0"), (Site::B, "e0")] {
            let since = ledger.history.tick();
            assert!(ledger.stands_by(device, since).is_some());
            ledger.failover_begins(&names, to, Takeover::Planned);
            ledger.failover_ended(&names, to, false, true, false);
            assert!(read(&mut ledger, device, &[0; 512]).is_err());
            read(&mut ledger, device, &last).unwrap();
            let since = ledger.history.tick();
            assert!(ledger.stands_by(device, since).is_none());
            last = write(&mut ledger, device);
            read(&mut ledger, device, &last).unwrap();
        }
    }

    /// R2 crashed, and R1 had not noticed: it still said that both are the same. Once what R2 had lost then was missed.
    #[test]
    fn what_is_told_of_a_half_that_has_crashed_is_of_before() {
        for (flushed, linked_again) in [(false, false), (true, false), (false, true)] {
            let mut ledger = ledger();
            let names = ["p0".to_string()];
            let last = write(&mut ledger, "d0");
            if flushed {
                let (volume, call) = (ledger.volume("d0").unwrap(), ledger.history.tick());
                ledger.history.end_flush(volume, call);
            }
            ledger.history.crash(Site::B, crate::oracle::Ending::Killed);
            if linked_again {
                ledger.pair_linked("p0");
            }
            let call = ledger.history.tick();
            ledger.pair_seen("p0", call, true);
            ledger.failover_begins(&names, Site::B, Takeover::Forced);
            ledger.failover_ended(&names, Site::B, true, true, false);
            assert_eq!(read(&mut ledger, "e0", &[0; 512]).is_err(), flushed || linked_again);
            if flushed || linked_again {
                read(&mut ledger, "e0", &last).unwrap();
            }
        }
    }

    /// Of two pairs of a group one was the same again, and the other not yet, when a person chose what both were before. Once what
    /// the first had got meanwhile was missed (split-brain 3729).
    #[test]
    fn a_group_goes_back_to_what_all_were() {
        for (takeover, may_lack) in [(Takeover::ToSafetyCopy, true), (Takeover::Forced, false)] {
            let mut ledger = ledger();
            ledger.expect_device(Site::A, "d1", Some(512));
            ledger.expect_device(Site::B, "e1", Some(512));
            ledger.pair_begins(&serde_json::from_str(r#"{"name":"p1","r1":"d1","r2":"e1"}"#).unwrap());
            ledger.pair_made("p1", true);
            let names = ["p0".to_string(), "p1".to_string()];
            let first = write(&mut ledger, "d0");
            for name in &names {
                let call = ledger.history.tick();
                ledger.pair_seen(name, call, true);
            }
            write(&mut ledger, "d0");
            let call = ledger.history.tick();
            ledger.pair_seen("p0", call, true);
            ledger.failover_begins(&names, Site::B, takeover);
            ledger.failover_ended(&names, Site::B, true, true, false);
            assert_eq!(read(&mut ledger, "e0", &first).is_ok(), may_lack, "{takeover:?}");
        }
    }

    #[test]
    fn of_two_sides_one_is_chosen() {
        let mut ledger = ledger();
        let names = ["p0".to_string()];
        let first = write(&mut ledger, "d0");
        let call = ledger.history.tick();
        ledger.pair_seen("p0", call, true);
        let alone = write(&mut ledger, "d0");
        ledger.failover_begins(&names, Site::B, Takeover::Forced);
        ledger.failover_ended(&names, Site::B, true, true, false);
        read(&mut ledger, "e0", &first).unwrap();
        read(&mut ledger, "d0", &alone).unwrap();
        let other = write(&mut ledger, "e0");
        ledger.reunited("p0", Site::B);
        ledger.failover_begins(&names, Site::A, Takeover::Planned);
        ledger.failover_ended(&names, Site::A, false, true, false);
        assert!(read(&mut ledger, "d0", &alone).is_err());
        read(&mut ledger, "d0", &other).unwrap();
    }
}
