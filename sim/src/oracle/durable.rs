//! **Flushed means there after any crash.** After a crash a sector holds what it held at some instant between the call
//! of the last answered flush (of the whole volume, on any connection) and the crash; and nothing that was
//! overwritten before a write with FUA was called which was answered. A sector that was written and not flushed
//! may be torn: part old, part new. What was read after a crash is what the sector holds from then on; but if only the
//! program died and the disks' caches live, it may still be lost by the next crash, unless there was a flush.

use super::content::Value;
use super::history::{History, Origin, VolumeId};
use super::register::{Source, Span};
use super::{Violation, history};
use crate::disk::SECTOR_BYTES;

/// Whether the crash at the end of an epoch can have left a value.
pub(super) fn check(
    history: &mut History,
    volume: VolumeId,
    sector: u64,
    epoch: u32,
    value: Value,
) -> Result<(), Violation> {
    if let Value::Torn(_) = value
        && history.state(volume, sector, epoch).initial != Some(value)
    {
        let candidates = candidates(history, volume, sector, epoch);
        let seen = history.bytes_of(value, sector);
        let torn = |candidates: &[[u8; SECTOR_BYTES as usize]]| {
            seen.iter().enumerate().all(|(i, byte)| candidates.iter().any(|c| c[i] == *byte))
        };
        if candidates.len() > 1 && torn(&candidates) {
            return Ok(());
        }
    }
    let span = survivors(history, volume, epoch);
    let by_fua = overwritten_with_fua(history, volume, sector, epoch, value);
    if let Some(fua) = by_fua {
        let (seen, fua) = (history.tell_value(value), history.tell_value(Value::Written(fua)));
        let what = format_args!("after the crash {seen} was seen, but {fua} with FUA came after it");
        return Err(renamed(history.broken(volume, sector, what)));
    }
    let Err(violation) = history.observe(volume, sector, epoch, value, span) else { return Ok(()) };
    let goes_back = epoch > 0 && history.kept_after(volume, epoch - 1) && history.flushed(volume, epoch) == 0;
    if goes_back
        && !history.is_birth(volume, epoch)
        && check(history, volume, sector, epoch - 1, value).is_ok()
    {
        return Ok(());
    }
    Err(renamed(violation))
}

/// When a value has to have been there to be there after the crash.
fn survivors(history: &History, volume: VolumeId, epoch: u32) -> Span {
    Span { call: history.flushed(volume, epoch), answer: history.end_of(volume, epoch) }
}

/// An answered FUA write of the epoch that certainly came after the value.
fn overwritten_with_fua(
    history: &mut History,
    volume: VolumeId,
    sector: u64,
    epoch: u32,
    value: Value,
) -> Option<u64> {
    let state = history.state(volume, sector, epoch);
    let register = &state.register;
    let by = match value {
        Value::Written(write) => register.find(write).map_or(Source::Initial, Source::Write),
        // Zeros may have come from any write of zeros: only if there is none is it certain.
        Value::Zero if register.writes().iter().any(|w| w.zeros) => return None,
        _ => Source::Initial,
    };
    let seen_by = register.seen_by(by);
    let after: Vec<u64> = register.writes().iter().filter(|w| w.call > seen_by).map(|w| w.write).collect();
    after.into_iter().find(|write| {
        let record = history.record(history::WriteId(*write));
        record.fua && record.span.answer != super::NEVER
    })
}

/// All that a sector can hold after the crash at the end of an epoch, torn sectors apart.
fn candidates(
    history: &mut History,
    volume: VolumeId,
    sector: u64,
    epoch: u32,
) -> Vec<[u8; SECTOR_BYTES as usize]> {
    let mut span = survivors(history, volume, epoch);
    let (mut volume, mut epoch) = (volume, epoch);
    let mut found = Vec::new();
    loop {
        let state = history.state(volume, sector, epoch);
        let mut values: Vec<Value> = Vec::new();
        for (at, write) in state.register.writes().iter().enumerate() {
            if state.register.fits(Source::Write(at), span).is_ok() {
                values.push(if write.zeros { Value::Zero } else { Value::Written(write.write) });
            }
        }
        let initial = state.initial;
        let goes_back = state.register.fits(Source::Initial, span).is_ok();
        values.extend(initial.filter(|_| goes_back));
        found.extend(values.into_iter().map(|value| history.bytes_of(value, sector)));
        let only_program_died =
            epoch > 0 && history.kept_after(volume, epoch - 1) && !history.is_birth(volume, epoch);
        if (initial.is_some() && !only_program_died) || !goes_back {
            return found;
        }
        match history.origin_at(volume, sector) {
            Origin::Snapshot(of, cut) | Origin::Heir(of, Some(cut)) if history.is_birth(volume, epoch) => {
                let cut = &history.cuts[cut.0 as usize];
                (span, epoch) = (cut.span, cut.epoch);
                volume = of;
            }
            _ if epoch == 0 => return found,
            _ => {
                epoch -= 1;
                span = survivors(history, volume, epoch);
            }
        }
    }
}

fn renamed(violation: Violation) -> Violation {
    Violation { oracle: "durable".into(), ..violation }
}

#[cfg(test)]
mod tests {
    use super::super::{Content, Ending, History, Origin, VolumeId, WriteId};
    use super::*;
    use crate::site::Site;

    const S: usize = SECTOR_BYTES as usize;

    fn volume() -> (History, VolumeId) {
        let mut history = History::default();
        let volume = history.add_volume(Site::A, "d0", Origin::Blank);
        (history, volume)
    }

    fn write(history: &mut History, volume: VolumeId, fua: bool) -> WriteId {
        let write = history.begin_write(volume, 0, 512, Content::Data, fua);
        history.end_write(write).unwrap();
        write
    }

    fn flush(history: &mut History, volume: VolumeId) {
        let call = history.tick();
        history.end_flush(volume, call);
    }

    fn read(history: &mut History, volume: VolumeId, bytes: &[u8]) -> Result<(), Violation> {
        let call = history.tick();
        history.end_read(volume, 0, bytes, call)
    }

    #[test]
    fn what_was_flushed_is_there() {
        let (mut history, d) = volume();
        let (a, b) = (write(&mut history, d, false), write(&mut history, d, false));
        flush(&mut history, d);
        history.crash(Site::A, Ending::PowerCut);
        let (old, new) = (history.payload(a), history.payload(b));
        assert_eq!(read(&mut history, d, &old).unwrap_err().oracle, "durable");
        assert!(read(&mut history, d, &[0; S]).is_err());
        read(&mut history, d, &new).unwrap();
    }

    #[test]
    fn what_was_not_flushed_is_there_or_not_but_does_not_change() {
        let (mut history, d) = volume();
        let (a, b) = (write(&mut history, d, false), write(&mut history, d, false));
        history.crash(Site::A, Ending::PowerCut);
        history.crash(Site::A, Ending::PowerCut);
        let (old, new) = (history.payload(a), history.payload(b));
        read(&mut history, d, &old).unwrap();
        assert!(read(&mut history, d, &new).is_err());
        assert!(read(&mut history, d, &[0; S]).is_err());
        read(&mut history, d, &old).unwrap();
    }

    #[test]
    fn a_write_with_fua_is_there() {
        let (mut history, d) = volume();
        let a = write(&mut history, d, true);
        let b = write(&mut history, d, false);
        history.crash(Site::A, Ending::PowerCut);
        assert!(read(&mut history, d, &[0; S]).is_err());
        let (a, b) = (history.payload(a), history.payload(b));
        read(&mut history, d, &a).unwrap();
        assert!(read(&mut history, d, &b).is_err(), "it was read as the older one");
    }

    #[test]
    fn an_unflushed_sector_may_be_torn_and_a_flushed_one_not() {
        let (mut history, d) = volume();
        let a = write(&mut history, d, false);
        let mut torn = history.payload(a);
        torn[..64].fill(0);
        history.crash(Site::A, Ending::PowerCut);
        read(&mut history, d, &torn).unwrap();
        read(&mut history, d, &torn).unwrap();
        assert!(read(&mut history, d, &[0; S]).is_err(), "it stays torn");
        let (mut history, d) = volume();
        write(&mut history, d, false);
        flush(&mut history, d);
        history.crash(Site::A, Ending::PowerCut);
        assert!(read(&mut history, d, &torn).is_err());
    }

    #[test]
    fn what_outlives_the_program_may_be_lost_with_the_power() {
        for flushed in [false, true] {
            let (mut history, d) = volume();
            let a = write(&mut history, d, false);
            history.crash(Site::A, Ending::Killed);
            let bytes = history.payload(a);
            read(&mut history, d, &bytes).unwrap();
            if flushed {
                flush(&mut history, d);
            }
            history.crash(Site::A, Ending::PowerCut);
            assert_eq!(read(&mut history, d, &[0; S]).is_ok(), !flushed);
        }
    }

    #[test]
    fn a_write_during_the_flush_may_be_lost() {
        let (mut history, d) = volume();
        let a = write(&mut history, d, false);
        let call = history.tick();
        let b = write(&mut history, d, false);
        history.end_flush(d, call);
        history.crash(Site::A, Ending::PowerCut);
        let (old, _) = (history.payload(a), b);
        read(&mut history, d, &old).unwrap();
    }
}
