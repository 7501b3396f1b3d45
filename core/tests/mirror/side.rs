//! One array with its half: tables, what is durable, a disk with a cache, and what is under way.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use twintrack_core::remote::{FlushNo, Lineage, PairRecord, Role};
use twintrack_core::{
    CommandError, Geometry, PairDevice, PairGeneration, PairId, RegionNo, Tables, TrackNo, UnitSeq,
};

use crate::common::{Durable, Rng, formatted};
use crate::halves::{HERE, POOL, THERE, TRACK_BYTES, record};

/// A rule that is broken on purpose, to see that the histories notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Break {
    /// Rule 5: a write does not wait until the mark of its region is committed.
    MarkNotCommitted,
    /// Rule 5: a region is cleaned although writes to it are under way.
    CleanedWhileWriting,
    /// Rules 2 and 5: a flush waits for no sync, and what it cleans is durable before one. (Either would do: that the
    /// flush waits, or that rule 2 holds.)
    CleanedAheadOfSync,
    /// A track is no longer owed once it is sent.
    PaidWhenSent,
    /// After a restart of the peer what it had marked is not asked for.
    MarksNotAsked,
    /// Writes that the peer lacks are acknowledged in the generation that it has.
    GenerationNotBegun,
    /// Rule 4: a write that the peer lacks is acknowledged before the halt and the generation are committed.
    HaltNotCommitted,
    /// The peer is asked to take a generation that is not noted as shared.
    SharedNotNoted,
    /// A write that came while the copy was under way does not count as owed when the link is lost.
    MirroredNotOwed,
    /// By force no generation begins.
    ForcedWithoutGeneration,
}

impl Break {
    pub const ALL: [Self; 10] = [
        Self::MarkNotCommitted,
        Self::CleanedWhileWriting,
        Self::CleanedAheadOfSync,
        Self::PaidWhenSent,
        Self::MarksNotAsked,
        Self::GenerationNotBegun,
        Self::HaltNotCommitted,
        Self::SharedNotNoted,
        Self::MirroredNotOwed,
        Self::ForcedWithoutGeneration,
    ];
}

/// Tracks of the volume, in three regions and a part of a fourth; only some of them are used.
pub const TRACKS: u64 = 200;
pub const USED: [u32; 9] = [0, 1, 2, 63, 64, 65, 128, 130, 199];

/// A value a track; what was not synced becomes, at a power cut, any of the values that it had since.
#[derive(Debug, Default, Clone)]
pub struct Disk {
    platter: BTreeMap<u32, u32>,
    cache: Vec<(u32, u32)>,
    synced: u64,
}

impl Disk {
    pub fn read(&self, track: u32) -> u32 {
        let cached = self.cache.iter().rev().find(|(t, _)| *t == track).map(|(_, value)| *value);
        cached.or_else(|| self.platter.get(&track).copied()).unwrap_or(0)
    }

    pub fn write(&mut self, track: u32, value: u32) {
        self.cache.push((track, value));
    }

    /// What a sync that begins now covers.
    pub fn mark(&self) -> u64 {
        self.synced + self.cache.len() as u64
    }

    pub fn synced(&self) -> u64 {
        self.synced
    }

    pub fn sync(&mut self, mark: u64) {
        let covered = mark.saturating_sub(self.synced) as usize;
        self.platter.extend(self.cache.drain(..covered));
        self.synced = self.synced.max(mark);
    }

    pub fn cut(&mut self, rng: &mut Rng) {
        for track in USED {
            let values: Vec<_> = self.cache.iter().filter(|(t, _)| *t == track).map(|(_, v)| *v).collect();
            if let Some(value) = values.get(rng.below(values.len() + 1)) {
                self.platter.insert(track, *value);
            }
        }
        self.synced = self.mark();
        self.cache.clear();
    }
}

/// What travels over the link, in order.
#[derive(Debug, Clone)]
pub enum Message {
    Write { track: u32, value: u32, resync: bool },
    Written { track: u32, resync: bool },
    Flush,
    Flushed,
    Complete { lineage: Lineage },
    Completed,
}

/// Where the remote leg of a host's write is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remote {
    /// It has not begun: the mark is not durable yet.
    Waiting(Option<UnitSeq>),
    Sent,
    Done,
    /// The peer lacks it: this unit must be committed before the answer.
    Owed(UnitSeq),
}

#[derive(Debug, Clone)]
pub struct HostWrite {
    pub track: u32,
    pub value: u32,
    pub remote: Remote,
    pub landed: bool,
}

/// A write that was acknowledged although the peer lacks it.
#[derive(Debug, Clone, Copy)]
pub struct Lone {
    pub track: u32,
    /// Where the disk was when it was acknowledged: flushed once that is synced and all units are committed.
    pub mark: u64,
    pub unit: UnitSeq,
    pub flushed: bool,
}

/// What the first message in the inbox waits for.
#[derive(Debug, Clone)]
pub enum Applying {
    /// The mark of a region.
    Mark(Option<UnitSeq>),
    /// A sync up to here.
    Sync(u64, Option<FlushNo>),
    /// The unit that adopts.
    Adopt(UnitSeq),
}

/// A flush of both arrays, at its owner.
#[derive(Debug, Clone, Copy)]
pub struct Flushing {
    pub flush: FlushNo,
    pub mark: u64,
    pub peer_done: bool,
}

/// The last step of a copy, at its owner.
#[derive(Debug, Clone, Copy)]
pub struct Completing {
    /// The unit that notes the generation as shared.
    pub unit: UnitSeq,
    pub generation: PairGeneration,
    pub sent: bool,
}

#[derive(Debug)]
pub struct Side {
    pub serial: u64,
    pub t: Tables,
    pub durable: Durable,
    pub disk: Disk,
    pub boot: u32,
    /// Hosts may use it: not after a restart, until the peer has agreed or a person forces it.
    pub ready: bool,
    /// The unit that gave it its role.
    pub role_unit: UnitSeq,
    /// A round of durability: what it covers, and whether its sync has ended.
    pub round: Option<(UnitSeq, u64, bool)>,
    pub writes: Vec<HostWrite>,
    pub inbox: VecDeque<Message>,
    pub applying: Option<Applying>,
    /// Tracks of the copy that were sent and not answered.
    pub copying: BTreeSet<u32>,
    pub flushing: Option<Flushing>,
    pub completing: Option<Completing>,
    pub lone: Vec<Lone>,
}

impl Side {
    /// The array of a serial, with a half of the pair that is durable and ready.
    pub fn new(serial: u64, id: PairId, half: impl FnOnce(PairRecord) -> PairRecord) -> Self {
        let other = if serial == HERE { THERE } else { HERE };
        let mut durable = formatted(&[40]);
        let mut t = load(serial, &durable);
        let (peer, _) = t.add_peer("peer", None, Some(other)).expect("the first peer");
        let device = PairDevice::New { name: "db".into(), pool: POOL, size_bytes: TRACKS * TRACK_BYTES };
        // The number that the pair's array gives out next.
        let id = if id.serial == serial { t.next_pair_id() } else { id };
        t.create_pair(id, half(record(peer)), device).expect("a legal pair");
        t.ready_pair(id).expect("it was being created");
        crate::halves::commit(&mut t, &mut durable);
        Self {
            serial,
            t: load(serial, &durable),
            durable,
            disk: Disk::default(),
            boot: 1,
            ready: true,
            role_unit: UnitSeq::ZERO,
            round: None,
            writes: Vec::new(),
            inbox: VecDeque::new(),
            applying: None,
            copying: BTreeSet::new(),
            flushing: None,
            completing: None,
            lone: Vec::new(),
        }
    }

    pub fn id(&self) -> PairId {
        self.t.pairs().next().expect("the pair is there").0
    }

    pub fn half(&self) -> &PairRecord {
        self.t.pairs().next().expect("the pair is there").1
    }

    /// Whether hosts are served.
    pub fn serves(&self) -> bool {
        self.ready && self.half().is_owner() && self.role_unit <= self.t.committed_unit()
    }

    pub fn set_role(&mut self, role: Role, forced: bool) -> Result<(), CommandError> {
        let id = self.id();
        self.role_unit = self.t.set_roles(&[id], role, forced)?;
        Ok(())
    }

    /// Whether all that was made is durable.
    pub fn is_durable(&self) -> bool {
        self.t.last_unit() == self.t.committed_unit()
    }

    pub fn covers(&self, track: u32) -> bool {
        let (id, region) = (self.id(), RegionNo::of(TrackNo(track)));
        let marked = self.t.regions(id).is_some_and(|regions| regions.unit_of(region).is_some());
        marked || self.t.is_owed(id, TrackNo(track))
    }

    /// A sync and a commit, each taking time: the next of their three steps.
    pub fn round(&mut self) {
        match self.round {
            None => self.round = Some((self.t.last_unit(), self.disk.mark(), false)),
            Some((unit, mark, false)) => {
                self.disk.sync(mark);
                self.round = Some((unit, mark, true));
            }
            Some((unit, _, true)) => {
                self.durable.apply(self.t.take_commit(unit));
                self.t.committed(unit);
                self.round = None;
                let (synced, committed) = (self.disk.synced(), self.t.committed_unit());
                for lone in &mut self.lone {
                    lone.flushed |= lone.mark <= synced && lone.unit <= committed;
                }
            }
        }
    }

    /// Cleans regions; `ahead`: durably, without a sync.
    pub fn clean(&mut self, regions: &[RegionNo], ahead: bool) {
        let id = self.id();
        let unit = self.t.clean(id, regions);
        if ahead {
            self.durable.apply(self.t.take_commit(unit));
            self.t.committed(unit);
        }
    }

    pub fn power_cut(&mut self, rng: &mut Rng) {
        for write in std::mem::take(&mut self.writes) {
            let begun = !write.landed && !matches!(write.remote, Remote::Waiting(_));
            if begun && rng.chance(50) {
                self.disk.write(write.track, write.value);
            }
        }
        self.disk.cut(rng);
        self.t = load(self.serial, &self.durable);
        (self.boot, self.ready, self.round, self.role_unit) = (self.boot + 1, false, None, UnitSeq::ZERO);
        self.link_lost();
        // What was not flushed may be lost, and nobody was promised more.
        self.lone.retain(|lone| lone.flushed);
        for lone in &mut self.lone {
            lone.unit = UnitSeq::ZERO;
        }
    }

    /// What was under way over the link is gone.
    pub fn link_lost(&mut self) {
        if let (Some(Applying::Mark(_)), Some(Message::Write { track, .. })) =
            (self.applying.take(), self.inbox.front())
        {
            let (id, region) = (self.id(), RegionNo::of(TrackNo(*track)));
            self.t.end_write(id, region);
        }
        self.inbox.clear();
        self.copying.clear();
        (self.flushing, self.completing) = (None, None);
    }
}

fn load(serial: u64, durable: &Durable) -> Tables {
    let geometry = Geometry::new(TRACK_BYTES as u32).expect("a legal track size");
    Tables::load(geometry, durable.changes()).expect("what is durable loads").of_array(serial)
}
