//! **What a pair tells to be unequal is what differs, and nothing that nobody wrote** (C5): at least the tracks that surely
//! differ, and at most those that somebody may have written on either side since the instant of the copy. So it is none if
//! nobody wrote since.
//!
//! Each write of data puts bytes of its own. A track surely differs if such a write, called after the instant, was answered
//! on one side, and no zeros can have come after it.

use std::collections::BTreeSet;

use super::Violation;
use super::history::{Content, History, Origin, VolumeId};
use super::register::{NEVER, Span};

/// Checks the number that was told in `asked` of a primary and a secondary. Unless one of both is a copy of what the other is now
/// nothing is known, nor of one that the clock had copied in an epoch that nobody knows.
pub fn check_unequal(
    history: &History,
    (primary, secondary): (VolumeId, VolumeId),
    track_bytes: u64,
    told: u32,
    asked: Span,
) -> Result<(), Violation> {
    let ways = [(secondary, primary), (primary, secondary)];
    let copied = ways.into_iter().find_map(|(copy, other)| match history.origin(copy) {
        Origin::Snapshot(of, cut) if of == other => Some(cut),
        _ => None,
    });
    let Some(cut) = copied.filter(|cut| !history.is_vague(*cut)) else { return Ok(()) };
    let instant = history.cuts[cut.0 as usize].span;
    let epoch = history.epoch(history.site(secondary));
    let (mut may, mut must) = (BTreeSet::new(), BTreeSet::new());
    for volume in [primary, secondary] {
        for write in history.writes_of(volume) {
            let tracks = write.tracks(track_bytes);
            if write.span.answer > instant.call && write.span.call < asked.answer {
                may.extend(tracks.clone());
            }
            let lasts = write.content == Content::Data && write.epoch == epoch && write.span.answer != NEVER;
            let emptied = || {
                history.writes_of(volume).any(|other| {
                    let overlaps = other.offset < write.offset + write.length
                        && write.offset < other.offset + other.length;
                    other.content == Content::Zeros && overlaps && other.span.answer > write.span.call
                })
            };
            if lasts && write.span.call > instant.answer && write.span.answer < asked.call && !emptied() {
                must.extend(tracks);
            }
        }
    }
    let (least, most) = (must.len() as u32, may.len() as u32);
    if told < least || told > most {
        let label = history.label(secondary);
        let what = format_args!(
            "{told} tracks of the pair of {label} are told to be unequal: {least} differ, {most} were written"
        );
        return Err(Violation::new("unequal", what));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::site::Site;

    #[test]
    fn what_differs_and_no_more() {
        const T: u64 = 16 << 10;
        let mut history = History::default();
        let p = history.add_volume(Site::A, "p", Origin::Blank);
        let write = |history: &mut History, volume, track: u64, content| {
            let write = history.begin_write(volume, track * T, 512, content, false);
            history.end_write(write).unwrap();
        };
        write(&mut history, p, 9, Content::Data);
        let cut = history.begin_cut(Site::A);
        history.end_cut(cut);
        let s = history.add_volume(Site::A, "s", Origin::Snapshot(p, cut));
        let look = |history: &mut History, told| {
            let asked = Span { call: history.tick(), answer: history.tick() };
            check_unequal(history, (p, s), T, told, asked).is_ok()
        };
        assert!(look(&mut history, 0) && !look(&mut history, 1), "a quiet pair");
        write(&mut history, p, 1, Content::Data);
        write(&mut history, s, 2, Content::Data);
        assert!(look(&mut history, 2) && !look(&mut history, 1) && !look(&mut history, 3));
        write(&mut history, s, 2, Content::Zeros);
        history.begin_write(p, 3 * T, 512, Content::Data, false);
        let told = [0, 1, 2, 3, 4].map(|told| look(&mut history, told));
        assert_eq!(
            told,
            [false, true, true, true, false],
            "zeros may be equal; what was not answered may be written"
        );
        history.crash(Site::A, crate::oracle::Ending::PowerCut);
        assert!(look(&mut history, 0), "all of it may be lost");
    }

    /// A copy the other way makes both the same, too.
    #[test]
    fn after_a_copy_back() {
        const T: u64 = 16 << 10;
        let mut history = History::default();
        let s = history.add_volume(Site::A, "s", Origin::Blank);
        let cut = history.begin_cut(Site::A);
        history.end_cut(cut);
        let p = history.add_volume(Site::A, "p", Origin::Snapshot(s, cut));
        let look = |history: &mut History, told| {
            let asked = Span { call: history.tick(), answer: history.tick() };
            check_unequal(history, (p, s), T, told, asked).is_ok()
        };
        assert!(look(&mut history, 0) && !look(&mut history, 1));
        let write = history.begin_write(s, T, 512, Content::Data, false);
        history.end_write(write).unwrap();
        assert!(!look(&mut history, 0) && look(&mut history, 1));
    }

    /// The clock had a copy made about a crash; a write came after the crash, and before the copy or after it. Once it came after
    /// it, for the copy had been waited for since before the crash (`local` 926).
    #[test]
    fn of_a_copy_in_one_of_two_epochs_nothing_is_known() {
        const T: u64 = 16 << 10;
        let mut history = History::default();
        let p = history.add_volume(Site::A, "p", Origin::Blank);
        let cut = history.begin_cut(Site::A);
        let s = history.add_volume(Site::A, "s", Origin::Snapshot(p, cut));
        history.crash(Site::A, crate::oracle::Ending::Killed);
        let write = history.begin_write(p, T, 512, Content::Data, false);
        history.end_write(write).unwrap();
        history.blur_cut(cut);
        history.end_cut(cut);
        let asked = Span { call: history.tick(), answer: history.tick() };
        for told in [0, 1] {
            assert!(check_unequal(&history, (p, s), T, told, asked).is_ok());
        }
    }
}
