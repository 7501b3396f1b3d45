//! **Who gives way when a pool is full is as its policy says.** With *refuse-writes* no session ever fails (a listing
//! shows it, see the ledger). With *fail-sessions* no write to a standard device is refused while a session keeps
//! something: a track that surely had content at its activation and was surely written to since, and of which the
//! session has surely no empty track of its own.

use std::collections::BTreeSet;
use std::ops::Range;

use super::Violation;
use super::history::{Content, History, Origin, VolumeId, WriteRecord};
use super::register::Moment;

/// A session of these tracks that keeps one, as far as answers before `call` show: which. What happened before the last crash
/// does not count, for it may be undone.
pub fn kept_track(
    history: &History,
    session: VolumeId,
    track_bytes: u64,
    within: &Range<u64>,
    call: Moment,
) -> Option<u64> {
    let Origin::Snapshot(of, cut) = history.origin(session) else { return None };
    if history.site(of) != history.site(session) {
        // Of what hosts did on the other array: this one may not have heard of it yet (F3).
        return None;
    }
    let cut = &history.cuts[cut.0 as usize];
    let epoch = history.epoch(history.site(session));
    if cut.epoch != epoch || cut.span.answer >= call {
        return None;
    }
    let cut = cut.span;
    let of_epoch = || history.writes_of(of).filter(|write| write.epoch == epoch);
    let touches = |write: &WriteRecord, track| tracks(write, track_bytes).contains(&track);
    // Nothing emptied it between the write and the cut.
    let had = |track| {
        of_epoch().any(|write| {
            let content = write.content == Content::Data && write.span.answer < cut.call;
            content && touches(write, track) && {
                !of_epoch().any(|other| {
                    other.content == Content::Zeros
                        && other.span.answer > write.span.call
                        && other.span.call < cut.answer
                        && touches(other, track)
                })
            }
        })
    };
    let emptied: BTreeSet<_> = history
        .writes_of(session)
        .filter(|write| write.content == Content::Zeros)
        .flat_map(|write| tracks(write, track_bytes))
        .collect();
    let since = of_epoch().filter(|write| write.span.call > cut.answer && write.span.answer < call);
    let mut since = since.flat_map(|write| tracks(write, track_bytes));
    since.find(|track| within.contains(track) && !emptied.contains(track) && had(*track))
}

/// A write to a standard device was refused, and a session that keeps a track is active all the same.
pub fn refused_instead(device: &str, session: &str, track: u64) -> Violation {
    Violation::new(
        "room",
        format_args!(
            "a write to {device} was refused for want of room, though {session} keeps track {track}"
        ),
    )
}

fn tracks(write: &WriteRecord, track_bytes: u64) -> Range<u64> {
    write.offset / track_bytes..(write.offset + write.length).div_ceil(track_bytes)
}

#[cfg(test)]
mod tests {
    use super::super::{Ending, WriteId};
    use super::*;
    use crate::site::Site;

    const T: u64 = 16 << 10;

    fn write(history: &mut History, volume: VolumeId, track: u64, content: Content) -> WriteId {
        let write = history.begin_write(volume, track * T, 512, content, false);
        history.end_write(write).unwrap();
        write
    }

    #[test]
    fn what_is_surely_kept() {
        let mut history = History::default();
        let d = history.add_volume(Site::A, "d", Origin::Blank);
        for track in 0..3 {
            write(&mut history, d, track, Content::Data);
        }
        write(&mut history, d, 0, Content::Zeros);
        let cut = history.begin_cut(Site::A);
        history.end_cut(cut);
        let s = history.add_volume(Site::A, "s", Origin::Snapshot(d, cut));
        let look = |history: &mut History| {
            let call = history.tick();
            kept_track(history, s, T, &(0..9), call)
        };
        write(&mut history, d, 0, Content::Data);
        assert_eq!(look(&mut history), None, "it may have been empty");
        history.begin_write(d, T, 512, Content::Data, false);
        assert_eq!(look(&mut history), None, "not answered");
        write(&mut history, d, 2, Content::Data);
        assert_eq!(look(&mut history), Some(2));
        write(&mut history, s, 2, Content::Zeros);
        assert_eq!(look(&mut history), None, "the session has an empty one of its own");
        write(&mut history, d, 1, Content::Zeros);
        assert_eq!(look(&mut history), Some(1));
        history.crash(Site::A, Ending::PowerCut);
        assert_eq!(look(&mut history), None);
    }
}
