//! What is told of links and pairs: how they stand on their axes, what people call it, why, and what comes next.

use twintrack_core::{
    Cause, DataState, Halt, LinkState, PairId, PairStatus, PeerId, Role, Serving, Stage, TrackNo, TrackSet,
};
use twintrack_link::manage::{
    LinkInfo, LinkInfoState, PairData, PairLink, PairStatusInfo, RemoteInfo, show_serial,
};

use super::Firmware;
use super::copies::shown_pace;

impl Firmware {
    pub(super) fn link_info(&self, peer: PeerId) -> LinkInfo {
        let record = self.tables.peer(peer);
        let up = self.links.up(peer).is_some();
        LinkInfo {
            name: record.map(|record| record.name.clone()).unwrap_or_default(),
            endpoint: record.and_then(|record| record.endpoint.clone()),
            serial: record.and_then(|record| record.serial).map(show_serial),
            state: if up { LinkInfoState::Up } else { self.links.state(peer) },
            why: (!up).then(|| self.links.why(peer).to_owned()),
            since_ms: self.links.since(peer).map_or(0, |at| self.wall_ms_at(at)),
            round_trip_us: self.links.round_trip(peer).map(|time| time.as_micros() as u64),
            pairs: self.tables.pairs_of_peer(peer).count() as u32,
        }
    }

    /// The link of a pair, its data, and what people call it all.
    pub(super) fn status_of(&self, pair: PairId) -> Option<(LinkState, DataState, PairStatus)> {
        let record = self.tables.pair(pair)?;
        let link = match (self.is_agreed(pair), self.links.up(record.peer)) {
            (true, _) => LinkState::Up,
            (false, Some(_)) => LinkState::Agreeing,
            (false, None) => LinkState::Down,
        };
        let owner = record.role == Role::Owner;
        let owed = self.tables.next_owed(pair, TrackNo(0)).is_some() || owner && !self.is_whole(pair);
        let lacked = self.tables.next_lacked(pair, TrackNo(0)).is_some() || !owner && !record.complete;
        let data = DataState::of(owed, lacked, record.halt == Some(Halt::Diverged));
        let status =
            PairStatus::of(Serving::of(record.half, record.role), link, data, Cause::from(record.halt));
        Some((link, data, status))
    }

    /// Whether both halves are the same, but for writes under way, and stay so, and this half serves.
    pub(super) fn is_synchronized(&self, pair: PairId) -> bool {
        self.mirrors(pair) && self.is_same(pair)
    }

    /// Whether both halves are the same, but for writes under way, and this half serves.
    pub(super) fn is_same(&self, pair: PairId) -> bool {
        self.moves(pair)
            && self.is_whole(pair)
            && self.tables.next_owed(pair, TrackNo(0)).is_none()
            && self.tables.next_lacked(pair, TrackNo(0)).is_none()
    }

    pub(super) fn remote_info(&self, pair: PairId) -> Option<RemoteInfo> {
        let record = self.tables.pair(pair)?;
        let (link, data, status) = self.status_of(pair)?;
        let device = self.tables.device(record.device);
        let size_bytes = device.map_or(0, |device| device.size_bytes);
        let track = u64::from(self.tables.geometry().track_bytes());
        let bytes =
            |set: Option<&TrackSet>| (u64::from(set.map_or(0, TrackSet::count)) * track).min(size_bytes);
        let (why, next) = self.explain(pair, status);
        let (owed_bytes, lacked_bytes) = (bytes(self.tables.owed(pair)), bytes(self.tables.lacked(pair)));
        let left_bytes = if status == PairStatus::SyncInProg { owed_bytes + lacked_bytes } else { 0 };
        let (copied_bytes_per_s, left_s) = self.pace(pair, left_bytes);
        Some(RemoteInfo {
            pair: pair.to_string(),
            device: device.map(|device| device.name.clone()).unwrap_or_default(),
            peer: self.tables.peer(record.peer).map(|peer| peer.name.clone()).unwrap_or_default(),
            peer_device: record.peer_device.clone(),
            half: record.half.into(),
            status: status_info(status),
            role: record.role.into(),
            link: match link {
                LinkState::Down => PairLink::Down,
                LinkState::Agreeing => PairLink::Agreeing,
                LinkState::Up => PairLink::Up,
            },
            data: match data {
                DataState::Same => PairData::Same,
                DataState::Owed => PairData::Owed,
                DataState::Lacked => PairData::Lacked,
                DataState::Crossed => PairData::Crossed,
                DataState::Diverged => PairData::Diverged,
            },
            cause: record.halt.into(),
            why,
            next,
            mode: record.mode.into(),
            pace: shown_pace(record.pace),
            policy: record.policy.into(),
            group: Some(record.group.clone()).filter(|group| !group.is_empty()),
            size_bytes,
            owed_bytes,
            lacked_bytes,
            copied_bytes: self.standings.get(&pair).map_or(0, |standing| standing.copied_bytes),
            copied_bytes_per_s,
            left_s,
            // Of what moves it is not known.
            since_ms: record.halt.map_or(0, |_| record.halted_ms),
            lag_ms: self.lag_ms(pair),
            forced: self.forced_info(pair),
            diverged: self.diverged_info(pair),
            safety_copy: self.safety_copy(pair),
        })
    }

    /// Why a pair is as it is, and what comes next: every state has an exit (F5).
    fn explain(&self, pair: PairId, status: PairStatus) -> (String, String) {
        let Some(record) = self.tables.pair(pair) else { return Default::default() };
        let why_no_link = self.links.why(record.peer);
        match record.stage {
            Stage::Creating => {
                return ("its other half is being made".into(), "it is ready, or undone, soon".into());
            }
            Stage::Undoing | Stage::Ended => {
                let next = "the other array removes its half at the next contact";
                return (format!("it is being removed; the link: {why_no_link}"), next.into());
            }
            Stage::Ready => {}
        }
        if self.is_lost(pair) {
            let next = "`remote delete` ends it here, too; the volume stays";
            return ("the other array has no such pair: it was removed there".into(), next.into());
        }
        let link = || match self.links.up(record.peer) {
            Some(_) => "both arrays are agreeing on what each has".to_owned(),
            None => format!("there is no link: {why_no_link}"),
        };
        if record.is_returning() {
            let why = "a person chose its safety copy: each track that changed since is put back".into();
            return (why, "hosts are let in when that has ended".into());
        }
        let dialled =
            format!("{}, and what changed is copied then", self.links.next_attempt(record.peer, self.now));
        let owner = record.role == Role::Owner;
        if owner && !self.is_vouched(pair) {
            return (
                format!("after the restart it is not known whether the other array serves; {}", link()),
                "hosts are let in when the link is back; if the other array is out of order: `remote failover --force`".into(),
            );
        }
        let (why, next): (String, &str) = match (status, record.halt) {
            (PairStatus::Synchronized | PairStatus::R1Updated, _) => {
                ("both halves are the same".into(), "nothing to do")
            }
            (PairStatus::SyncInProg, _) => {
                ("what one half lacks is being copied".into(), "it becomes the same by itself")
            }
            (_, Some(Halt::Operator)) => {
                ("a person suspended it".into(), "`remote resume` copies what changed since")
            }
            (_, Some(Halt::Split)) => {
                ("a person split it".into(), "`remote resume` copies what changed since")
            }
            (_, Some(Halt::Diverged)) => (
                "both halves were written, each without the other".into(),
                "`remote resolve --keep r1|r2`: that half stays, the other becomes its copy",
            ),
            (_, Some(Halt::Frozen)) => (
                format!("writes are refused, as its policy says; {}", link()),
                "it goes on when the link is back, or alone by `remote suspend`",
            ),
            (_, Some(Halt::Peer)) => (
                "the other array failed to write".into(),
                "it is tried again within 10 s, or by `remote resume`",
            ),
            (_, Some(Halt::Space)) => (
                "the other array's pool is full, or has no room left for a copy that keeps what was there before".into(),
                "make room there; it is tried again within 10 s, or by `remote resume`",
            ),
            (PairStatus::FailedOver, _) if !owner => {
                ("the other half serves".into(), "it is copied here when the link is back")
            }
            _ if self.links.up(record.peer).is_some() => (link(), "it goes on once both have agreed"),
            _ if !owner && (!record.complete || record.kept.is_some()) => (
                format!("a copy into this half was cut off; {}", link()),
                "it goes on when the link is back; if the other array is out of order: `remote failover --force` says what there is to go back to",
            ),
            _ => (link(), &dialled),
        };
        if owner && status == PairStatus::FailedOver && record.forced {
            return (format!("a person forced it: {}; {why}", self.what_may_be_lost(pair)), next.into());
        }
        (why, next.into())
    }
}

fn status_info(status: PairStatus) -> PairStatusInfo {
    match status {
        PairStatus::SyncInProg => PairStatusInfo::SyncInProg,
        PairStatus::Synchronized => PairStatusInfo::Synchronized,
        PairStatus::Suspended => PairStatusInfo::Suspended,
        PairStatus::Partitioned => PairStatusInfo::Partitioned,
        PairStatus::Split => PairStatusInfo::Split,
        PairStatus::FailedOver => PairStatusInfo::FailedOver,
        PairStatus::R1Updated => PairStatusInfo::R1Updated,
        PairStatus::Diverged => PairStatusInfo::Diverged,
    }
}
