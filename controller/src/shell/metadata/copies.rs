//! The bytes of what is kept of copies within the array; the rules of `records.rs` hold here, too.
//!
//! ```text
//! copy       u8 purpose (0 pair, 1 once), u8 flags (bit 0 its session is kept, bit 1 that was pinned before, bit 2 back,
//!            bit 3 tracks are to come), u8 status (0 paired, 1 copying, 2 copied), u8 pace (0 slow, 1 medium, 2 fast,
//!            3 adaptive), u32 primary, u32 secondary, u32 session or 0, u32 generation until or 0,
//!            u64 wall time of its instant in ms, u32 to copy from, u32 unequal from, u32 moved to,
//!            if its session was pinned before: what for, as in a session
//! schedule   u32 primary, u64 wall time of the next run in ms, u64 ms between two or 0, u32 whose turn, u16 n, n u32 secondaries
//! ```

use twintrack_core::{
    CopyRecord, CopyStatus, DeviceId, Fill, Generation, Pace, Purpose, ScheduleRecord, SessionId, TrackNo,
};

use super::pairs::{named, number};
use super::records::{Damaged, Fields, get_pinned, put_pinned};

const KEEP: u8 = 1;
const WAS_PINNED: u8 = 2;
const BACK: u8 = 4;
const HAS_FILL: u8 = 8;

const STATUSES: [CopyStatus; 3] = [CopyStatus::Paired, CopyStatus::Copying, CopyStatus::Copied];
const PACES: [Pace; 4] = [Pace::Slow, Pace::Medium, Pace::Fast, Pace::Adaptive];

pub(super) fn put_copy(record: &CopyRecord) -> Vec<u8> {
    let flag = |set, bit| if set { bit } else { 0 };
    let (once, keep, pinned) = match record.purpose {
        Purpose::Pair => (0, false, None),
        Purpose::Once { keep, pinned } => (1, keep, pinned),
    };
    let flags = flag(keep, KEEP)
        | flag(pinned.is_some(), WAS_PINNED)
        | flag(record.back, BACK)
        | flag(record.fill.is_some(), HAS_FILL);
    let mut out = vec![once, flags, number(&STATUSES, record.status), number(&PACES, record.pace)];
    out.extend(record.primary.0.to_le_bytes());
    out.extend(record.secondary.0.to_le_bytes());
    out.extend(record.fill.map_or(0, |fill| fill.session.0).to_le_bytes());
    out.extend(record.fill.map_or(0, |fill| fill.until.0).to_le_bytes());
    out.extend(record.copied_ms.to_le_bytes());
    out.extend(record.to_copy_from.0.to_le_bytes());
    out.extend(record.unequal_from.0.to_le_bytes());
    out.extend(record.moved_to.0.to_le_bytes());
    if let Some(pinned) = pinned {
        put_pinned(&mut out, pinned);
    }
    out
}

pub(super) fn get_copy(bytes: &[u8]) -> Result<CopyRecord, Damaged> {
    let mut fields = Fields(bytes);
    let (once, flags) = (fields.u8()?, fields.u8()?);
    let (status, pace) = (named(&STATUSES, fields.u8()?)?, named(&PACES, fields.u8()?)?);
    let (primary, secondary) = (DeviceId(fields.u32()?), DeviceId(fields.u32()?));
    let (session, until) = (SessionId(fields.u32()?), Generation(fields.u32()?));
    let copied_ms = fields.u64()?;
    let (to_copy_from, unequal_from) = (TrackNo(fields.u32()?), TrackNo(fields.u32()?));
    let moved_to = TrackNo(fields.u32()?);
    let fill = match (flags & HAS_FILL != 0, session.0, until.0) {
        (true, ..) => Some(Fill { session, until }),
        (false, 0, 0) => None,
        _ => return Err(Damaged),
    };
    let purpose = match (once, flags & !(BACK | HAS_FILL)) {
        (0, 0) => Purpose::Pair,
        (1, kept) if kept & !(KEEP | WAS_PINNED) == 0 => {
            let pinned = if kept & WAS_PINNED == 0 { None } else { Some(get_pinned(&mut fields)?) };
            Purpose::Once { keep: kept & KEEP != 0, pinned }
        }
        _ => return Err(Damaged),
    };
    fields.end(CopyRecord {
        purpose,
        primary,
        secondary,
        status,
        back: flags & BACK != 0,
        fill,
        pace,
        copied_ms,
        to_copy_from,
        unequal_from,
        moved_to,
    })
}

pub(super) fn put_schedule(record: &ScheduleRecord) -> Vec<u8> {
    let mut out = Vec::with_capacity(26 + 4 * record.secondaries.len());
    out.extend(record.primary.0.to_le_bytes());
    out.extend(record.next_ms.to_le_bytes());
    out.extend(record.every_ms.unwrap_or(0).to_le_bytes());
    out.extend(record.turn.to_le_bytes());
    let count = u16::try_from(record.secondaries.len()).expect("a schedule has few secondaries");
    out.extend(count.to_le_bytes());
    record.secondaries.iter().for_each(|device| out.extend(device.0.to_le_bytes()));
    out
}

pub(super) fn get_schedule(bytes: &[u8]) -> Result<ScheduleRecord, Damaged> {
    let mut fields = Fields(bytes);
    let primary = DeviceId(fields.u32()?);
    let (next_ms, every_ms, turn) = (fields.u64()?, fields.u64()?, fields.u32()?);
    let secondaries: Vec<_> =
        (0..fields.u16()?).map(|_| fields.u32().map(DeviceId)).collect::<Result<_, _>>()?;
    if turn as usize >= secondaries.len() {
        return Err(Damaged);
    }
    let every_ms = Some(every_ms).filter(|every_ms| *every_ms > 0);
    fields.end(ScheduleRecord { primary, secondaries, next_ms, every_ms, turn })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use twintrack_core::Pinned;

    use super::*;

    fn copies() -> impl Strategy<Value = CopyRecord> {
        let purpose = prop_oneof![
            Just(Purpose::Pair),
            any::<(bool, bool)>()
                .prop_map(|(keep, was)| Purpose::Once { keep, pinned: was.then_some(Pinned::Before) }),
        ];
        let numbers = any::<(u32, u32, u64, u32, u32, u32, bool)>();
        let fill = prop::option::of(
            any::<(u32, u32)>().prop_map(|(s, g)| Fill { session: SessionId(s), until: Generation(g) }),
        );
        (purpose, numbers, fill, 0usize..3, 0usize..4).prop_map(|(purpose, numbers, fill, status, pace)| {
            CopyRecord {
                purpose,
                primary: DeviceId(numbers.0),
                secondary: DeviceId(numbers.1),
                status: STATUSES[status],
                back: numbers.6,
                fill,
                pace: PACES[pace],
                copied_ms: numbers.2,
                to_copy_from: TrackNo(numbers.3),
                unequal_from: TrackNo(numbers.4),
                moved_to: TrackNo(numbers.5),
            }
        })
    }

    proptest! {
        #[test]
        fn records_survive(copy in copies()) {
            prop_assert_eq!(get_copy(&put_copy(&copy)), Ok(copy));
        }

        #[test]
        fn schedules_survive(
            numbers in any::<(u32, u64, u64)>(), secondaries in prop::collection::vec(any::<u32>(), 1..9), turn in any::<u32>()
        ) {
            let secondaries: Vec<_> = secondaries.into_iter().map(DeviceId).collect();
            let schedule = ScheduleRecord {
                primary: DeviceId(numbers.0),
                turn: turn % secondaries.len() as u32,
                secondaries,
                next_ms: numbers.1,
                every_ms: Some(numbers.2).filter(|every_ms| *every_ms > 0),
            };
            prop_assert_eq!(get_schedule(&put_schedule(&schedule)), Ok(schedule));
        }

        #[test]
        fn any_bytes_decode(bytes in prop::collection::vec(prop_oneof![Just(0u8), any::<u8>()], 0..60)) {
            if let Ok(schedule) = get_schedule(&bytes) {
                prop_assert_eq!(&put_schedule(&schedule), &bytes);
            }
            if let Ok(copy) = get_copy(&bytes) {
                prop_assert_eq!(put_copy(&copy), bytes);
            }
        }
    }
}
