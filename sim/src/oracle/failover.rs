//! **After a failover no write is missing that was flushed, or acknowledged while the pair was synchronized** and the half
//! that takes over has not crashed since. It shows the volume as it was at one instant, of all volumes that move
//! together: of a planned failover one between its call and its answer, of a forced one at the earliest the last moment
//! at which the owner said that the pair is synchronized. What that half had and did not flush it may lose with its power, or with its program's end:
//! then each sector is as it was at some instant since the last flush before that moment.
//!
//! Until the owner notices that its link has ended, what it tells is of the other half as it was before: a crash of that
//! half counts unless it was seen linked since.
//!
//! Who forces is told up to when all is there that was answered: from that time on, too, nothing is missing.
//!
//! A write that is under way on both arrays may be read on the one that serves before the other one has it. So that it was
//! read says nothing of what the other half has: only its answer does.

use super::Violation;
use super::content::Value;
use super::history::{CutId, History, Origin, VolumeId};
use super::register::{Moment, NEVER, Span};
use super::snapshot::{Cut, at_one_instant};
use crate::site::Site;

impl History {
    /// What the other half of a volume's pair will show on its array, once it takes over.
    pub fn add_heir(&mut self, site: Site, label: &str, of: VolumeId) -> VolumeId {
        self.add_volume(site, label, Origin::Heir(of, None))
    }

    /// A failover of volumes of one array is called: their heirs show them at an instant since `floor`.
    pub fn begin_move(&mut self, heirs: &[VolumeId], floor: Moment) -> Option<CutId> {
        let now = self.tick();
        let Origin::Heir(of, _) = self.origin(*heirs.first()?) else { return None };
        let site = self.site(of);
        let epoch = self.epochs[site.index()].of(floor);
        self.cuts.push(Cut::new(site, epoch, floor));
        let cut = CutId(self.cuts.len() as u32 - 1);
        for heir in heirs {
            let birth = self.epoch(self.site(*heir));
            let volume = &mut self.volumes[heir.0 as usize];
            if let Origin::Heir(_, moved) = &mut volume.origin {
                (*moved, volume.birth, volume.moved) = (Some(cut), birth, now);
            }
        }
        Some(cut)
    }

    /// The failover is answered, or seen to have happened. `down`: the array that it leaves is, since its last crash.
    pub fn end_move(&mut self, cut: CutId, down: bool) {
        let now = self.tick();
        let at = &self.cuts[cut.0 as usize];
        let epochs = &self.epochs[at.site.index()];
        // Of an array that was up again since it is not known what the other one has of it.
        let ended = epochs.present() - at.epoch;
        let (vague, answer) = (ended > u32::from(down), now.min(epochs.end_of(at.epoch)));
        let at = &mut self.cuts[cut.0 as usize];
        at.vague |= vague;
        at.span.answer = at.span.answer.min(answer);
    }

    /// The heirs are said to have all that was answered by a time, in ms.
    pub fn promise_move(&mut self, cut: CutId, ms: u64) {
        let floor = self.moment_by(ms);
        let cut = &mut self.cuts[cut.0 as usize];
        cut.span.call = cut.span.call.max(floor);
    }

    /// The owner, when it was last heard of, may not have known of crashes of the other array since `linked`.
    pub fn doubt_move(&mut self, cut: CutId, linked: Moment) {
        let cut = &mut self.cuts[cut.0 as usize];
        cut.linked = cut.linked.min(linked);
    }

    /// Whether an heir may have lost what it had of its volume and did not flush.
    fn has_lost(&self, heir: VolumeId, linked: Moment) -> bool {
        let volume = &self.volumes[heir.0 as usize];
        let epochs = &self.epochs[volume.site.index()];
        epochs.crashed(linked, volume.moved)
            || (self.flushed(heir, volume.birth) == 0 && epochs.crashed(volume.moved, NEVER))
    }
}

/// Whether an heir can have shown a value at first.
pub(super) fn check(
    history: &mut History,
    heir: VolumeId,
    of: VolumeId,
    cut: Option<CutId>,
    sector: u64,
    value: Value,
) -> Result<(), Violation> {
    let Some(cut) = cut else {
        let what = format_args!("{} was read, and has never taken over", history.label(heir));
        return Err(Violation::new("failover", what));
    };
    let Cut { epoch, span, vague, linked, .. } = history.cuts[cut.0 as usize];
    let end = history.end_of(of, epoch);
    if vague || (span.answer == NEVER && end != NEVER) {
        return Ok(());
    }
    let mut span = Span { answer: span.answer.min(end), ..span };
    let lost = history.has_lost(heir, linked);
    if lost {
        let flushed = history.volumes[of.0 as usize].flushed.iter().filter(|flush| flush.answer < span.call);
        span.call = flushed.map(|flush| flush.call).max().unwrap_or(0);
        if let Value::Torn(_) = value {
            return Ok(());
        }
    }
    let source = history.explain(of, sector, epoch, value, span, span.call).map_err(|violation| {
        let what = format_args!("{}, after a failover, in {}", violation.what, history.label(heir));
        Violation::new("failover", what)
    })?;
    if lost {
        return Ok(());
    }
    at_one_instant(history, heir, (of, epoch), cut, sector, value, source)
        .map_err(|violation| Violation { oracle: "failover".into(), ..violation })
}

#[cfg(test)]
mod tests {
    use super::super::{Content, Ending, History, Origin, VolumeId, WriteId};
    use super::*;

    fn pair() -> (History, VolumeId, VolumeId) {
        let mut history = History::default();
        let volume = history.add_volume(Site::A, "d0", Origin::Blank);
        let heir = history.add_heir(Site::B, "e0", volume);
        (history, volume, heir)
    }

    fn write(history: &mut History, volume: VolumeId, sector: u64) -> WriteId {
        let write = history.begin_write(volume, sector * 512, 512, Content::Data, false);
        history.end_write(write).unwrap();
        write
    }

    fn read(history: &mut History, volume: VolumeId, write: Option<WriteId>) -> Result<(), Violation> {
        let bytes = write.map_or_else(|| vec![0; 512], |write| history.payload(write));
        let call = history.tick();
        history.end_read(volume, 0, &bytes, call)
    }

    #[test]
    fn a_planned_failover_loses_nothing() {
        let (mut history, volume, heir) = pair();
        let before = write(&mut history, volume, 0);
        let floor = history.tick();
        let cut = history.begin_move(&[heir], floor).unwrap();
        history.end_move(cut, false);
        let after = write(&mut history, volume, 0);
        assert_eq!(read(&mut history, heir, None).unwrap_err().oracle, "failover");
        assert!(read(&mut history, heir, Some(after)).is_err());
        read(&mut history, heir, Some(before)).unwrap();
    }

    #[test]
    fn a_forced_failover_may_lose_what_came_after_it_was_synchronized() {
        let (mut history, volume, heir) = pair();
        let first = write(&mut history, volume, 0);
        let floor = history.tick();
        let second = write(&mut history, volume, 0);
        history.crash(Site::A, Ending::PowerCut);
        let cut = history.begin_move(&[heir], floor).unwrap();
        history.end_move(cut, true);
        assert!(read(&mut history, heir, None).is_err());
        read(&mut history, heir, Some(first)).unwrap();
        assert!(read(&mut history, heir, Some(second)).is_err(), "it stays what it was");
    }

    #[test]
    fn what_was_answered_by_the_time_that_is_told_is_there() {
        for told_ms in [None, Some(9), Some(12)] {
            let (mut history, volume, heir) = pair();
            let floor = history.tick();
            let first = write(&mut history, volume, 0);
            history.tell_time(10);
            let second = write(&mut history, volume, 0);
            let cut = history.begin_move(&[heir], floor).unwrap();
            if let Some(told_ms) = told_ms {
                history.promise_move(cut, told_ms);
            }
            history.end_move(cut, false);
            assert_eq!(read(&mut history, heir, None).is_err(), told_ms == Some(12));
            if told_ms == Some(12) {
                read(&mut history, heir, Some(second)).unwrap();
            }
            assert!(read(&mut history, heir, Some(first)).is_err(), "it stays what it was");
        }
    }

    /// R1 showed a write to a reader that R2 had not yet, nor ever got, for the link was cut. Once that counted as lost.
    #[test]
    fn what_was_read_and_not_answered_may_go_with_the_half_that_had_it() {
        for answered in [false, true] {
            let (mut history, volume, heir) = pair();
            let first = write(&mut history, volume, 0);
            let second = history.begin_write(volume, 0, 512, Content::Data, false);
            read(&mut history, volume, Some(second)).unwrap();
            if answered {
                history.end_write(second).unwrap();
            }
            let floor = history.tick();
            let cut = history.begin_move(&[heir], floor).unwrap();
            history.end_move(cut, false);
            assert!(read(&mut history, heir, None).is_err());
            assert_eq!(read(&mut history, heir, Some(first)).is_err(), answered);
            assert!(read(&mut history, volume, Some(first)).is_err(), "here it was seen");
        }
    }

    #[test]
    fn all_of_it_is_of_one_instant() {
        let (mut history, volume, heir) = pair();
        let floor = history.tick();
        write(&mut history, volume, 0);
        let second = write(&mut history, volume, 1);
        let cut = history.begin_move(&[heir], floor).unwrap();
        history.end_move(cut, false);
        read(&mut history, heir, None).unwrap();
        let bytes = history.payload(second);
        let call = history.tick();
        let violation = history.end_read(heir, 512, &bytes, call).unwrap_err();
        assert!(violation.what.contains("not one instant"), "{violation}");
    }

    #[test]
    fn what_was_not_flushed_may_go_with_the_power_of_the_heir() {
        for (flushed, how) in [
            (false, Ending::PowerCut),
            (true, Ending::PowerCut),
            (false, Ending::Killed),
            (true, Ending::Killed),
        ] {
            let (mut history, volume, heir) = pair();
            write(&mut history, volume, 0);
            if flushed {
                let call = history.tick();
                history.end_flush(volume, call);
            }
            let floor = history.tick();
            history.crash(Site::B, how);
            let cut = history.begin_move(&[heir], floor).unwrap();
            history.end_move(cut, false);
            assert_eq!(read(&mut history, heir, None).is_err(), flushed);
        }
    }

    #[test]
    fn of_an_array_that_was_up_again_nothing_is_known() {
        let (mut history, volume, heir) = pair();
        let floor = history.tick();
        history.crash(Site::A, Ending::PowerCut);
        let later = write(&mut history, volume, 0);
        let cut = history.begin_move(&[heir], floor).unwrap();
        history.end_move(cut, false);
        read(&mut history, heir, Some(later)).unwrap();
    }

    #[test]
    fn an_heir_is_not_read_before_it_takes_over() {
        let (mut history, _, heir) = pair();
        assert!(read(&mut history, heir, None).unwrap_err().what.contains("never taken over"));
    }
}
