//! An array with two halves of a group that stand by, one alone, and a volume of its own, beside what each was. Blocks are
//! durable when they are written; power fails where nothing was written since the last commit. (`crash.rs` has the rest.)

use std::collections::BTreeMap;
use std::ops::Range;

use twintrack_core::remote::{PairRecord, Role};
use twintrack_core::{
    ActivateSession, BlockMask, DeviceId, Owner, PairId, PhysicalTrack, Pinned, Place, SessionId,
    SessionState, Tables, TrackNo, WriteError,
};

use crate::common::{Durable, Rng, formatted};
use crate::halves::{POOL, TRACK_BYTES, commit, load, pair, record};

const TRACKS: u32 = 5;
const BLOCKS: u32 = 4;

type Content = Vec<u64>;

pub struct World {
    pub t: Tables,
    durable: Durable,
    disk: BTreeMap<(PhysicalTrack, u32), u64>,
    /// Two of a group, and one alone.
    pub pairs: [PairId; 3],
    own: DeviceId,
    /// What each standard device has, block by block, and each session when it began.
    now: BTreeMap<DeviceId, Content>,
    then: BTreeMap<SessionId, Content>,
    last_value: u64,
    pub trace: Vec<String>,
}

impl World {
    pub fn new() -> Self {
        let mut durable = formatted(&[34]);
        let mut t = load(&durable);
        let (peer, _) = t.add_peer("there", None, Some(crate::halves::THERE)).expect("the first peer");
        let half = |group: &str| PairRecord { role: Role::Standby, group: group.into(), ..record(peer) };
        let pairs = [("p", "g"), ("q", "g"), ("r", "")]
            .map(|(name, group)| pair(&mut t, half(group), name, u64::from(TRACKS)).0);
        let (own, _) = t.create_standard("own", POOL, u64::from(TRACKS) * TRACK_BYTES).expect("a device");
        commit(&mut t, &mut durable);
        let now = t.devices().map(|(id, _)| (id, vec![0; (TRACKS * BLOCKS) as usize])).collect();
        let then = BTreeMap::new();
        Self { t, durable, disk: BTreeMap::new(), pairs, own, now, then, last_value: 0, trace: Vec::new() }
    }

    pub fn device(&self, pair: PairId) -> DeviceId {
        self.t.pair(pair).expect("it is there").device
    }

    fn say(&mut self, what: String) {
        self.trace.push(what);
    }

    pub fn step(&mut self, rng: &mut Rng) -> Result<(), String> {
        let id = self.pairs[rng.below(3)];
        let (track, from) = (rng.below(TRACKS as usize) as u32, rng.below(BLOCKS as usize) as u32);
        let blocks = from..if rng.chance(40) { BLOCKS } else { from + 1 };
        let returning = self.t.pair(id).is_some_and(PairRecord::is_returning);
        match rng.below(100) {
            0..=29 if !returning => self.host_write(self.device(id), track, blocks),
            30..=39 => self.host_write(self.own, track, blocks),
            40..=47 => self.establish_if_possible(if rng.chance(60) { self.device(id) } else { self.own }),
            48..=52 => self.remove_some(rng),
            53..=62 => self.begin_copy_if_fit(id),
            63..=69 => self.end_copy_if_fit(id),
            70..=76 => self.go_back(id),
            77..=84 => self.steps(id),
            85..=88 => self.merge(self.device(id), track),
            89..=92 => self.reclaim(),
            93..=95 => commit(&mut self.t, &mut self.durable),
            96..=99 => self.power_cut(),
            _ => {}
        }
        Ok(())
    }

    /// Room is made as for a host; what finds none is refused.
    fn host_write(&mut self, device: DeviceId, track: u32, blocks: Range<u32>) {
        commit(&mut self.t, &mut self.durable);
        while self.write(Owner::Device(device), track, blocks.clone()).is_none() {
            self.reclaim();
            if self.write(Owner::Device(device), track, blocks.clone()).is_some() {
                return;
            }
            let Some(victim) = self.t.oldest_failable(POOL) else {
                return self.say(format!("{device} finds no room"));
            };
            self.say(format!("{victim} fails"));
            self.t.fail_session(victim).expect("a victim can be failed");
        }
    }

    /// `None`: there is no room.
    pub fn write(&mut self, owner: Owner, track: u32, blocks: Range<u32>) -> Option<()> {
        let place = Place { owner, track: TrackNo(track) };
        let plan = match self.t.plan_write(place, BlockMask::range(blocks.start, blocks.end)) {
            Ok(plan) => plan,
            Err(WriteError::NoSpace(_)) => return None,
            Err(WriteError::Gone) => panic!("{place} takes no writes"),
        };
        for block in plan.carry().runs().flatten() {
            let old = plan.old().place_of(block).and_then(|from| self.disk.get(&(from, block)).copied());
            self.disk.insert((plan.slot(), block), old.unwrap_or(0));
        }
        for block in blocks {
            self.last_value += 1;
            self.disk.insert((plan.slot(), block), self.last_value);
            if let Owner::Device(device) = owner {
                self.now.get_mut(&device)?[(track * BLOCKS + block) as usize] = self.last_value;
            }
        }
        self.say(format!("write {place} up to {}", self.last_value));
        self.t.land_write(plan).expect("the device is there");
        commit(&mut self.t, &mut self.durable);
        Some(())
    }

    /// If there is room, and no copy into it is under way.
    fn establish_if_possible(&mut self, device: DeviceId) {
        let pair = self.t.pair_of_device(device).and_then(|pair| self.t.pair(pair));
        if pair.is_none_or(|half| half.complete) && self.t.sessions_of(device).count() < 5 {
            self.establish(device);
        }
    }

    pub fn establish(&mut self, device: DeviceId) -> SessionId {
        let (session, _) = self.t.register(device, None).expect("there is room");
        let (shows, _) = self.t.create_virtual(&format!("v{}", session.0)).expect("a new name");
        self.t.relate(session, shows).expect("both are new");
        let list = [ActivateSession { session, name: None, online: true }];
        self.t.activate(&list, None, self.last_value).expect("it is related");
        self.then.insert(session, self.now[&device].clone());
        self.say(format!("{session} of {device}"));
        session
    }

    fn remove_some(&mut self, rng: &mut Rng) {
        let all: Vec<_> = self.t.sessions().map(|(id, _)| id).collect();
        if let Some(session) = rng.pick(&all)
            && self.t.remove_session(session).is_ok()
        {
            self.say(format!("{session} is removed"));
        }
    }

    fn group(&self, id: PairId) -> Vec<PairId> {
        self.t.group_of(id)
    }

    fn begin_copy_if_fit(&mut self, id: PairId) {
        if self.t.pair(id).is_some_and(|record| record.role == Role::Standby) {
            self.begin_copy(id);
        }
    }

    /// With a safety copy of all of the group that are one state.
    pub fn begin_copy(&mut self, id: PairId) {
        let fit =
            |id: &PairId| self.t.pair(*id).is_some_and(|record| record.complete && record.kept.is_none());
        let keep: Vec<_> = self.group(id).into_iter().filter(fit).collect();
        self.t.begin_copy(id, &keep, Pinned::SafetyCopy, self.last_value).expect("nothing is in the way");
        for id in keep {
            let record = self.t.pair(id).expect("it is there");
            let session = record.kept.as_ref().expect("it was just kept").session;
            self.then.insert(session, self.now[&record.device].clone());
            self.say(format!("{session} keeps {id}"));
        }
    }

    fn end_copy_if_fit(&mut self, id: PairId) {
        if self.t.pair(id).is_some_and(|record| record.role == Role::Standby && !record.complete) {
            self.end_copy(id);
        }
    }

    pub fn end_copy(&mut self, id: PairId) {
        let group = self.group(id);
        let others = group.iter().filter(|other| **other != id);
        let last = others.into_iter().all(|other| self.t.pair(*other).is_some_and(|record| record.complete));
        let lineage = self.t.pair(id).expect("it is there").lineage.clone();
        let forget = if last { group } else { Vec::new() };
        self.t.end_copy(id, &lineage, &forget).expect("it is there");
        self.say(format!("the copy into {id} ends, and {forget:?} forget"));
    }

    fn go_back(&mut self, id: PairId) {
        let group = self.group(id);
        if self.t.check_go_back(&group).is_err() {
            return;
        }
        for id in &group {
            self.t.forget_owed(*id);
        }
        self.say(format!("{group:?} go back"));
        self.t.go_back(&group, 1).expect("checked");
    }

    /// A step or two. A half that is back stands by again, as the loser of the split brain that this was.
    fn steps(&mut self, id: PairId) {
        let Some(record) = self.t.pair(id).filter(|record| record.is_returning()).cloned() else { return };
        let session = record.kept.expect("it goes back to something").session;
        let theirs = self.now[&record.device].clone();
        if !self.t.go_back_step(id) {
            return;
        }
        let ours = self.then[&session].clone();
        for track in 0..TRACKS {
            let blocks = (track * BLOCKS) as usize..((track + 1) * BLOCKS) as usize;
            let differs = theirs[blocks.clone()] != ours[blocks];
            assert!(!differs || self.t.is_owed(id, TrackNo(track)), "t{track} went back, and is not owed");
        }
        self.say(format!("{id} is back"));
        self.now.insert(record.device, ours);
        // What is owed is durable with the rest.
        commit(&mut self.t, &mut self.durable);
        self.t.set_roles(&[id], Role::Standby, false).expect("an owner yields");
    }

    fn merge(&mut self, device: DeviceId, track: u32) {
        let Some(plan) = self.t.plan_merge(Place { owner: Owner::Device(device), track: TrackNo(track) })
        else {
            return;
        };
        for block in plan.blocks().runs().flatten() {
            let old = plan.old().place_of(block).and_then(|from| self.disk.get(&(from, block)).copied());
            self.disk.insert((plan.slot(), block), old.unwrap_or(0));
        }
        self.t.land_write(plan).expect("the device is there");
        commit(&mut self.t, &mut self.durable);
    }

    pub fn remove_left(&mut self) {
        for session in self.t.left_safety_copies() {
            self.t.remove_session(session).expect("nobody needs it");
        }
    }

    pub fn reclaim(&mut self) {
        self.remove_left();
        while self.t.has_reclaim() {
            self.t.reclaim();
        }
        commit(&mut self.t, &mut self.durable);
    }

    /// What was not committed had changed tables only: a copy begun or ended, a half put back in part.
    fn power_cut(&mut self) {
        self.say("power cut".into());
        self.t = load(&self.durable);
        self.then.retain(|session, _| self.t.session(*session).is_some());
    }

    pub fn check(&self) -> Result<(), String> {
        self.t.audit().map_err(|error| error.to_string())?;
        for (device, content) in &self.now {
            // One that is being put back is neither what it was nor what it will be.
            let id = self.t.pair_of_device(*device);
            if id.and_then(|id| self.t.pair(id)).is_some_and(PairRecord::is_returning) {
                continue;
            }
            self.compare(Owner::Device(*device), content)?;
        }
        for (session, content) in &self.then {
            let Some(record) = self.t.session(*session) else { continue };
            match record.state {
                SessionState::Active { .. } => self.compare(Owner::Session(*session), content)?,
                SessionState::Failed if record.pinned.is_some() => {
                    return Err(format!("{session} has failed"));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn compare(&self, owner: Owner, content: &Content) -> Result<(), String> {
        for track in 0..TRACKS {
            let entry = self.t.entry(Place { owner, track: TrackNo(track) }).ok_or("it has no such track")?;
            for block in 0..BLOCKS {
                let lies = entry.place_of(block);
                let value = lies.and_then(|lies| self.disk.get(&(lies, block)).copied()).unwrap_or(0);
                let expected = content[(track * BLOCKS + block) as usize];
                if value != expected {
                    return Err(format!("{owner}/t{track} block {block} is {value}, not {expected}"));
                }
            }
        }
        Ok(())
    }
}
