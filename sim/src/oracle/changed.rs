//! **The change report of a session names every track that changed, and no other**: the tracks of its standard device
//! that were written after its activation (and before its deactivation), and those written through its virtual
//! device. A write that was never answered, or in flight at either end, may count or not; a write that a crash may have
//! taken back may count or not. Any other track of a deactivated session is refused.

use std::collections::BTreeSet;
use std::ops::Range;

use super::differs::Between;
use super::history::{Content, History, Origin, VolumeId};
use super::register::{Moment, Span};
use super::{NEVER, Violation};

/// Checks a report (track numbers, ascending, all of them) of a session: its standard device and its activation are those of
/// the volume's origin, and it is of the tracks `within`. `end` is the span of its deactivation or, if it is active, of the report.
pub fn check_report(
    history: &History,
    session: VolumeId,
    track_bytes: u64,
    within: &Range<u64>,
    report: &[u32],
    end: Span,
) -> Result<(), Violation> {
    if !report.is_sorted_by(|a, b| a < b) {
        return Err(Violation::new("changed", format_args!("the report is not in order: {report:?}")));
    }
    let Origin::Snapshot(of, cut) = history.origin(session) else { return Ok(()) };
    if history.is_vague(cut) {
        return Ok(());
    }
    let begin = history.cuts[cut.0 as usize].span;
    let (mut may, mut must) = (Vec::new(), Vec::new());
    for (volume, from) in [(of, begin), (session, begin)] {
        for write in history.writes_of(volume) {
            let tracks =
                write.tracks(track_bytes).filter(|track| within.contains(track)).map(|track| track as u32);
            if write.span.answer > from.call && write.span.call < end.answer {
                may.extend(tracks.clone());
            }
            let inside = write.span.call > from.answer && write.span.answer < end.call;
            // A reload may come between the call of the end and the end itself, and take the write back before it.
            let kept = survives(history, volume, write.epoch, write.span, write.fua, end.answer);
            if inside && kept && write.content == Content::Data {
                must.extend(tracks);
            }
        }
    }
    may.sort_unstable();
    must.sort_unstable();
    let label = history.label(session);
    if let Some(track) = must.iter().find(|track| report.binary_search(track).is_err()) {
        let what =
            format_args!("track {track} changed since the activation of {label}, and the report lacks it");
        return Err(Violation::new("changed", what));
    }
    if let Some(track) = report.iter().find(|track| may.binary_search(track).is_err()) {
        let what =
            format_args!("track {track} did not change since the activation of {label}, and is reported");
        return Err(Violation::new("changed", what));
    }
    Ok(())
}

/// Checks the report of an active session whose device has become another volume since, by restores or copies: what surely
/// differs between both is in it; and, if all of them lie in one pool, nothing but what was written on a way from it to what the
/// device has been. What was copied to another pool lies elsewhere, and is another.
pub fn check_report_across(
    history: &History,
    (session, device): (VolumeId, VolumeId),
    track_bytes: u64,
    report: &[u32],
    asked: Span,
    is_one_pool: bool,
) -> Result<(), Violation> {
    let Some(between) = Between::of(history, track_bytes, [session, device], asked) else { return Ok(()) };
    let is_told = |track: u64| report.binary_search(&(track as u32)).is_ok();
    let differ =
        between.surely.iter().flat_map(|range| range.start / track_bytes..range.end.div_ceil(track_bytes));
    let label = history.label(session);
    if let Some(track) = { differ }.find(|track| !is_told(*track)) {
        let what =
            format_args!("track {track} of {label} is another since its device is, and the report lacks it");
        return Err(Violation::new("changed", what));
    }
    if !is_one_pool {
        return Ok(());
    }
    let mut may = BTreeSet::new();
    for was in history.namesakes(device) {
        let Some(between) = Between::of(history, track_bytes, [session, was], asked) else { return Ok(()) };
        may.extend(between.may);
    }
    if let Some(track) = report.iter().find(|track| !may.contains(&u64::from(**track))) {
        let what =
            format_args!("track {track} of {label} did not change, though its device did, and is reported");
        return Err(Violation::new("changed", what));
    }
    Ok(())
}

/// Checks that a track which a deactivated session does not report was refused.
pub fn check_refused_track(refused: bool, track: u32, report: &[u32]) -> Result<(), Violation> {
    if !refused && report.binary_search(&track).is_err() {
        let what = format_args!("track {track} is not in the change report, and was read all the same");
        return Err(Violation::new("changed", what));
    }
    Ok(())
}

/// Whether no crash between a write and `until` can have taken it back.
pub(super) fn survives(
    history: &History,
    volume: VolumeId,
    epoch: u32,
    write: Span,
    fua: bool,
    until: Moment,
) -> bool {
    write.answer != NEVER
        && (fua || history.end_of(volume, epoch) >= until || history.flushed(volume, epoch) > write.answer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::site::Site;

    const ALL: Range<u64> = 0..100;

    #[test]
    fn reports_are_complete_and_tight() {
        let mut history = History::default();
        let d = history.add_volume(Site::A, "d", Origin::Blank);
        let write = |history: &mut History, volume, track: u64| {
            let write = history.begin_write(volume, track * 16384, 512, Content::Data, false);
            history.end_write(write).unwrap();
        };
        write(&mut history, d, 9);
        let cut = history.begin_cut(Site::A);
        history.end_cut(cut);
        let s = history.add_volume(Site::A, "s", Origin::Snapshot(d, cut));
        write(&mut history, d, 1);
        write(&mut history, s, 2);
        history.begin_write(d, 3 * 16384, 512, Content::Data, false);
        let call = history.tick();
        let end = Span { call, answer: history.tick() };
        write(&mut history, d, 4);
        let check = |report: &[u32]| check_report(&history, s, 16384, &ALL, report, end).is_ok();
        assert!(check(&[1, 2]) && check(&[1, 2, 3]), "the unanswered write may count");
        assert!(!check(&[1]) && !check(&[2]), "not complete");
        assert!(!check(&[1, 2, 9]) && !check(&[1, 2, 4]), "not tight");
        assert!(!check(&[2, 1]));
        let of_part = |report: &[u32]| check_report(&history, s, 16384, &(1..2), report, end).is_ok();
        assert!(of_part(&[1]) && !of_part(&[1, 2]) && !of_part(&[]), "a part tells of its own tracks");
        assert!(check_refused_track(false, 5, &[1, 2]).is_err());
        assert!(check_refused_track(true, 5, &[1, 2]).is_ok());
    }

    /// The device was brought back to an older session, and written before and after that.
    #[test]
    fn a_report_goes_on_over_a_restore() {
        let mut history = History::default();
        let instant = |history: &mut History| {
            let cut = history.begin_cut(Site::A);
            history.end_cut(cut);
            cut
        };
        let write = |history: &mut History, volume, track: u64| {
            let write = history.begin_write(volume, track * 16384, 512, Content::Data, false);
            history.end_write(write).unwrap();
        };
        let d = history.add_volume(Site::A, "d", Origin::Blank);
        write(&mut history, d, 0);
        let cut = instant(&mut history);
        let older = history.add_volume(Site::A, "older", Origin::Snapshot(d, cut));
        write(&mut history, d, 1);
        write(&mut history, older, 2);
        let cut = instant(&mut history);
        let s = history.add_volume(Site::A, "s", Origin::Snapshot(d, cut));
        write(&mut history, d, 3);
        let cut = instant(&mut history);
        let again = history.add_volume(Site::A, "d", Origin::Snapshot(older, cut));
        write(&mut history, again, 4);
        let asked = Span { call: history.tick(), answer: history.tick() };
        let check = |report: &[u32], is_one_pool| {
            check_report_across(&history, (s, again), 16384, report, asked, is_one_pool).is_ok()
        };
        assert!(check(&[1, 2, 4], true) && check(&[1, 2, 3, 4], true), "it was kept, and is the same again");
        assert!(!check(&[2, 4], false) && !check(&[1, 4], false) && !check(&[1, 2], false), "not complete");
        assert!(!check(&[0, 1, 2, 4], true) && !check(&[1, 2, 4, 5], true), "not tight");
        assert!(check(&[0, 1, 2, 4], false), "it may have come from another pool");
    }

    /// The array reloaded: a deactivation was called while it did, and was done after it, when a write that nobody had
    /// flushed was gone. Once the write had to be in the report (`disks` 1252).
    #[test]
    fn a_reload_may_come_between_the_call_of_the_end_and_the_end() {
        let mut history = History::default();
        let d = history.add_volume(Site::A, "d", Origin::Blank);
        let cut = history.begin_cut(Site::A);
        history.end_cut(cut);
        let s = history.add_volume(Site::A, "s", Origin::Snapshot(d, cut));
        let write = history.begin_write(d, 0, 512, Content::Data, false);
        history.end_write(write).unwrap();
        let call = history.tick();
        history.crash(Site::A, crate::oracle::Ending::Reloaded);
        let end = Span { call, answer: history.tick() };
        assert!(check_report(&history, s, 16384, &ALL, &[], end).is_ok());
        assert!(check_report(&history, s, 16384, &ALL, &[0], end).is_ok());
    }

    /// A write came while the last call of an establishment was under way, the array crashed, and what was asked to undo it
    /// was asked of the next epoch. Once the session had begun after the crash, and the write before it (`full` 370).
    #[test]
    fn an_establishment_that_failed_may_have_been_before_a_crash_or_after_it() {
        let mut history = History::default();
        let d = history.add_volume(Site::A, "d", Origin::Blank);
        let cut = history.begin_cut(Site::A);
        let write = history.begin_write(d, 0, 512, Content::Data, false);
        history.end_write(write).unwrap();
        history.crash(Site::A, crate::oracle::Ending::Killed);
        history.cut_asked_in(cut, &[0, 1]);
        history.end_cut(cut);
        let s = history.add_volume(Site::A, "s", Origin::Snapshot(d, cut));
        let call = history.tick();
        let end = Span { call, answer: history.tick() };
        assert!(check_report(&history, s, 16384, &ALL, &[], end).is_ok());
        assert!(check_report(&history, s, 16384, &ALL, &[0], end).is_ok());
        assert!(
            check_report(&history, s, 16384, &ALL, &[1, 0], end).is_err(),
            "the order counts all the same"
        );
    }

    #[test]
    fn what_a_crash_may_have_taken_back_may_be_missing() {
        let mut history = History::default();
        let d = history.add_volume(Site::A, "d", Origin::Blank);
        let cut = history.begin_cut(Site::A);
        history.end_cut(cut);
        let s = history.add_volume(Site::A, "s", Origin::Snapshot(d, cut));
        let write = history.begin_write(d, 0, 512, Content::Data, false);
        history.end_write(write).unwrap();
        history.crash(Site::A, crate::oracle::Ending::PowerCut);
        let call = history.tick();
        let end = Span { call, answer: history.tick() };
        assert!(check_report(&history, s, 16384, &ALL, &[], end).is_ok());
        assert!(check_report(&history, s, 16384, &ALL, &[0], end).is_ok());
    }
}
