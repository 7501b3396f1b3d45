//! The bytes of what is kept of remote pairs; the rules of `records.rs` hold here, too.
//!
//! ```text
//! generation u64 serial, u32 number
//! peer       u8 flags (bit 0 has an endpoint, bit 1 has a serial), u64 serial or 0, u16 n, n bytes name,
//!            u16 n, n bytes endpoint                            (n is 0 without an endpoint)
//! pair       u32 peer, u32 device, u64 request, u8 half (0 R1, 1 R2), u8 stage (0 creating, 1 ready, 2 undoing),
//!            u8 role (0 owner, 1 standby, 2 released), u8 mode (0 synchronous, 1 adaptive, 2 asynchronous),
//!            u8 policy (0 continue, 1 freeze),
//!            u8 halt (0 none, 1 operator, 2 link, 3 peer, 4 space, 5 split, 6 frozen, 7 diverged),
//!            u8 flags (bit 0 forced, bit 1 complete, bit 2 made its device, bit 3 has a shared generation,
//!            bit 4 can go back, bit 5 is on its way back, bit 6 knows since when it may lack something),
//!            u8 pace (0 adaptive, 1 slow, 2 medium, 3 fast),
//!            u64 wall time of the halt in ms, u32 the peer's boot, u32 owed from, u32 lacked from,
//!            generation shared or zeros, generation current, u8 n, n generations before it, newest first,
//!            u16 n, n bytes name of the peer's device, u16 n, n bytes group,
//!            if it can go back: u32 session, generation of then, u8 n, n generations before it,
//!            if it knows: u64 wall time in ms up to which it has all that the other half had answered
//! word       u64: bit i is the i-th track of the region; never 0
//! saga       u64 order, u8 result (0 done, 1 refused, 2 done and not told), if refused: u16 code, u16 n, n bytes reason,
//!            if not told: u32 peer
//! ```

use twintrack_core::remote::{
    Half, Halt, Kept, Lineage, Mode, PairRecord, PeerRecord, Policy, Role, SagaOutcome, SagaResult, Stage,
};
use twintrack_core::{DeviceId, Pace, PairGeneration, PeerId, SessionId, TrackNo};

use super::records::{Damaged, Fields, optional, put_name};

const HAS_ENDPOINT: u8 = 1;
const HAS_SERIAL: u8 = 2;
const FORCED: u8 = 1;
const COMPLETE: u8 = 2;
const MADE_DEVICE: u8 = 4;
const HAS_SHARED: u8 = 8;
const HAS_KEPT: u8 = 16;
const RETURNING: u8 = 32;
const HAD_ALL: u8 = 64;

const HALVES: [Half; 2] = [Half::R1, Half::R2];
const STAGES: [Stage; 4] = [Stage::Creating, Stage::Ready, Stage::Undoing, Stage::Ended];
const ROLES: [Role; 3] = [Role::Owner, Role::Standby, Role::Released];
const MODES: [Mode; 3] = [Mode::Synchronous, Mode::Adaptive, Mode::Asynchronous];
const PACES: [Pace; 4] = [Pace::Adaptive, Pace::Slow, Pace::Medium, Pace::Fast];
const POLICIES: [Policy; 2] = [Policy::Continue, Policy::Freeze];
const HALTS: [Option<Halt>; 8] = [
    None,
    Some(Halt::Operator),
    Some(Halt::Link),
    Some(Halt::Peer),
    Some(Halt::Space),
    Some(Halt::Split),
    Some(Halt::Frozen),
    Some(Halt::Diverged),
];

pub(super) fn put_peer(record: &PeerRecord) -> Vec<u8> {
    let mut flags = 0;
    if record.endpoint.is_some() {
        flags |= HAS_ENDPOINT;
    }
    if record.serial.is_some() {
        flags |= HAS_SERIAL;
    }
    let mut out = vec![flags];
    out.extend(record.serial.unwrap_or(0).to_le_bytes());
    put_name(&mut out, &record.name);
    put_name(&mut out, record.endpoint.as_deref().unwrap_or(""));
    out
}

pub(super) fn get_peer(bytes: &[u8]) -> Result<PeerRecord, Damaged> {
    let mut fields = Fields(bytes);
    let flags = fields.u8()?;
    if flags & !(HAS_ENDPOINT | HAS_SERIAL) != 0 {
        return Err(Damaged);
    }
    let serial = optional(flags & HAS_SERIAL != 0, fields.u64()?)?;
    let name = fields.name()?;
    let endpoint = optional(flags & HAS_ENDPOINT != 0, fields.name()?)?;
    fields.end(PeerRecord { name, endpoint, serial })
}

pub(super) fn put_pair(record: &PairRecord) -> Vec<u8> {
    let flag = |set, bit| if set { bit } else { 0 };
    let flags = flag(record.forced, FORCED)
        | flag(record.complete, COMPLETE)
        | flag(record.made_device, MADE_DEVICE)
        | flag(record.shared.is_some(), HAS_SHARED)
        | flag(record.kept.is_some(), HAS_KEPT)
        | flag(record.is_returning(), RETURNING)
        | flag(record.had_all_ms != 0, HAD_ALL);
    let mut out = Vec::with_capacity(96);
    out.extend(record.peer.0.to_le_bytes());
    out.extend(record.device.0.to_le_bytes());
    out.extend(record.request.to_le_bytes());
    out.extend([
        number(&HALVES, record.half),
        number(&STAGES, record.stage),
        number(&ROLES, record.role),
        number(&MODES, record.mode),
        number(&POLICIES, record.policy),
        number(&HALTS, record.halt),
        flags,
        number(&PACES, record.pace),
    ]);
    out.extend(record.halted_ms.to_le_bytes());
    out.extend(record.peer_boot.to_le_bytes());
    out.extend(record.owed_from.0.to_le_bytes());
    out.extend(record.lacked_from.0.to_le_bytes());
    put_generation(&mut out, record.shared.unwrap_or(PairGeneration { serial: 0, number: 0 }));
    put_lineage(&mut out, &record.lineage);
    put_name(&mut out, &record.peer_device);
    put_name(&mut out, &record.group);
    if let Some(kept) = &record.kept {
        out.extend(kept.session.0.to_le_bytes());
        put_lineage(&mut out, &kept.lineage);
    }
    if record.had_all_ms != 0 {
        out.extend(record.had_all_ms.to_le_bytes());
    }
    out
}

pub(super) fn get_pair(bytes: &[u8]) -> Result<PairRecord, Damaged> {
    let mut fields = Fields(bytes);
    let (peer, device) = (PeerId(fields.u32()?), DeviceId(fields.u32()?));
    let request = fields.u64()?;
    let (half, stage) = (named(&HALVES, fields.u8()?)?, named(&STAGES, fields.u8()?)?);
    let (role, mode) = (named(&ROLES, fields.u8()?)?, named(&MODES, fields.u8()?)?);
    let (policy, halt) = (named(&POLICIES, fields.u8()?)?, named(&HALTS, fields.u8()?)?);
    let (flags, pace) = (fields.u8()?, named(&PACES, fields.u8()?)?);
    let known = FORCED | COMPLETE | MADE_DEVICE | HAS_SHARED | HAS_KEPT | RETURNING | HAD_ALL;
    if flags & !known != 0 || flags & (HAS_KEPT | RETURNING) == RETURNING {
        return Err(Damaged);
    }
    let (halted_ms, peer_boot) = (fields.u64()?, fields.u32()?);
    let (owed_from, lacked_from) = (TrackNo(fields.u32()?), TrackNo(fields.u32()?));
    let shared = get_generation(&mut fields)?;
    let shared = match (flags & HAS_SHARED != 0, shared) {
        (true, shared) => Some(shared),
        (false, PairGeneration { serial: 0, number: 0 }) => None,
        (false, _) => return Err(Damaged),
    };
    let lineage = get_lineage(&mut fields)?;
    let (peer_device, group) = (fields.name()?, fields.name()?);
    let kept = if flags & HAS_KEPT == 0 {
        None
    } else {
        let (session, lineage) = (SessionId(fields.u32()?), get_lineage(&mut fields)?);
        Some(Kept { session, lineage, returning: flags & RETURNING != 0 })
    };
    let had_all_ms = if flags & HAD_ALL == 0 { 0 } else { fields.u64()? };
    if flags & HAD_ALL != 0 && had_all_ms == 0 {
        return Err(Damaged);
    }
    fields.end(PairRecord {
        peer,
        device,
        peer_device,
        request,
        half,
        stage,
        role,
        forced: flags & FORCED != 0,
        mode,
        pace,
        policy,
        group,
        lineage,
        shared,
        complete: flags & COMPLETE != 0,
        halt,
        halted_ms,
        had_all_ms,
        peer_boot,
        owed_from,
        lacked_from,
        made_device: flags & MADE_DEVICE != 0,
        kept,
    })
}

pub(super) fn put_saga(outcome: &SagaOutcome) -> Vec<u8> {
    let mut out = outcome.order.to_le_bytes().to_vec();
    match &outcome.result {
        SagaResult::Done => out.push(0),
        SagaResult::Untold { peer } => {
            out.push(2);
            out.extend(peer.0.to_le_bytes());
        }
        SagaResult::Refused { code, reason } => {
            out.push(1);
            out.extend(code.to_le_bytes());
            put_name(&mut out, reason);
        }
    }
    out
}

pub(super) fn get_saga(bytes: &[u8]) -> Result<SagaOutcome, Damaged> {
    let mut fields = Fields(bytes);
    let order = fields.u64()?;
    let result = match fields.u8()? {
        0 => SagaResult::Done,
        1 => SagaResult::Refused { code: fields.u16()?, reason: fields.name()? },
        2 => SagaResult::Untold { peer: PeerId(fields.u32()?) },
        _ => return Err(Damaged),
    };
    fields.end(SagaOutcome { order, result })
}

fn put_lineage(out: &mut Vec<u8>, lineage: &Lineage) {
    put_generation(out, lineage.current());
    let ancestors = lineage.ancestors();
    out.push(u8::try_from(ancestors.len()).expect("a lineage has few ancestors"));
    ancestors.iter().for_each(|generation| put_generation(out, *generation));
}

fn get_lineage(fields: &mut Fields<'_>) -> Result<Lineage, Damaged> {
    let current = get_generation(fields)?;
    let ancestors = (0..fields.u8()?).map(|_| get_generation(fields)).collect::<Result<_, _>>()?;
    Lineage::from_parts(current, ancestors).ok_or(Damaged)
}

fn put_generation(out: &mut Vec<u8>, generation: PairGeneration) {
    out.extend(generation.serial.to_le_bytes());
    out.extend(generation.number.to_le_bytes());
}

fn get_generation(fields: &mut Fields<'_>) -> Result<PairGeneration, Damaged> {
    Ok(PairGeneration { serial: fields.u64()?, number: fields.u32()? })
}

/// The place of a value among all of its kind.
pub(super) fn number<T: PartialEq>(all: &[T], value: T) -> u8 {
    let at = all.iter().position(|one| *one == value);
    u8::try_from(at.expect("all values are listed")).expect("there are few")
}

pub(super) fn named<T: Copy>(all: &[T], number: u8) -> Result<T, Damaged> {
    all.get(usize::from(number)).copied().ok_or(Damaged)
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::super::records::tests::canonical;
    use super::*;

    fn generation() -> impl Strategy<Value = PairGeneration> {
        (0u64..3, any::<u32>()).prop_map(|(serial, number)| PairGeneration { serial, number })
    }

    fn lineages() -> impl Strategy<Value = Lineage> {
        let ancestors = prop::collection::vec(generation(), 0..=15);
        (generation(), ancestors).prop_filter_map("a generation comes twice", |(current, ancestors)| {
            Lineage::from_parts(current, ancestors)
        })
    }

    fn peers() -> impl Strategy<Value = PeerRecord> {
        (".{0,64}", prop::option::of(".{1,64}"), any::<Option<u64>>())
            .prop_map(|(name, endpoint, serial)| PeerRecord { name, endpoint, serial })
    }

    /// Any record of a half.
    pub fn halves() -> impl Strategy<Value = PairRecord> {
        let numbers = any::<(u32, u32, u64, u64, u32, u32, u32, u64)>();
        let axes = (0usize..2, 0usize..3, 0usize..3, 0usize..3, 0usize..2, 0usize..8, 0usize..4);
        let names = (".{0,64}", ".{0,64}", any::<(bool, bool, bool)>());
        let kept = (any::<u32>(), lineages(), any::<bool>()).prop_map(|(session, lineage, returning)| Kept {
            session: SessionId(session),
            lineage,
            returning,
        });
        let kept = prop::option::of(kept);
        (numbers, axes, names, lineages(), prop::option::of(generation()), kept).prop_map(
            |(numbers, axes, (peer_device, group, flags), lineage, shared, kept)| PairRecord {
                peer: PeerId(numbers.0),
                device: DeviceId(numbers.1),
                peer_device,
                request: numbers.2,
                half: HALVES[axes.0],
                stage: STAGES[axes.1],
                role: ROLES[axes.2],
                forced: flags.0,
                mode: MODES[axes.3],
                pace: PACES[axes.6],
                policy: POLICIES[axes.4],
                group,
                lineage,
                shared,
                complete: flags.1,
                halt: HALTS[axes.5],
                halted_ms: numbers.3,
                had_all_ms: numbers.7,
                peer_boot: numbers.4,
                owed_from: TrackNo(numbers.5),
                lacked_from: TrackNo(numbers.6),
                made_device: flags.2,
                kept,
            },
        )
    }

    fn sagas() -> impl Strategy<Value = SagaOutcome> {
        let refused =
            (any::<u16>(), ".{0,200}").prop_map(|(code, reason)| SagaResult::Refused { code, reason });
        let untold = any::<u32>().prop_map(|peer| SagaResult::Untold { peer: PeerId(peer) });
        (any::<u64>(), prop_oneof![Just(SagaResult::Done), refused, untold])
            .prop_map(|(order, result)| SagaOutcome { order, result })
    }

    proptest! {
        #[test]
        fn records_survive(peer in peers(), pair in halves(), saga in sagas()) {
            prop_assert_eq!(get_peer(&put_peer(&peer)), Ok(peer));
            prop_assert_eq!(get_pair(&put_pair(&pair)), Ok(pair));
            prop_assert_eq!(get_saga(&put_saga(&saga)), Ok(saga));
        }

        #[test]
        fn any_bytes_decode(bytes in prop::collection::vec(prop_oneof![Just(0u8), any::<u8>()], 0..120)) {
            canonical(&bytes, get_peer(&bytes), put_peer);
            canonical(&bytes, get_pair(&bytes), put_pair);
            canonical(&bytes, get_saga(&bytes), put_saga);
        }

        #[test]
        fn any_damage_decodes(
            pair in halves(),
            at in any::<prop::sample::Index>(),
            byte: u8,
            cut in 0usize..8,
        ) {
            let mut bytes = put_pair(&pair);
            let at = at.index(bytes.len());
            bytes[at] = byte;
            bytes.truncate(bytes.len() - cut);
            canonical(&bytes, get_pair(&bytes), put_pair);
        }
    }
}
