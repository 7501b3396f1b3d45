//! **A session shows its standard device as it was at one instant** between the call and the answer of its activation,
//! every sector of it, and for sessions activated together the same instant on all devices. A write answered before
//! the call is in, one called after the answer is out, one in between is in or out, but never is a write in while
//! another is out that was answered before the first was called. That stays so after a crash, if the activation
//! was answered or the session is there. Writes through the virtual device lie over it.
//!
//! **A copy or a restore makes a device what another volume was at one instant**, in the same sense: its primary, or what a
//! session showed. From its call on the device is a volume of its own; what it was before goes on in the sessions that
//! began before.

use super::Violation;
use super::content::Value;
use super::history::{CutId, History, VolumeId};
use super::joint::Shown;
use super::register::{Moment, NEVER, Source, Span};
use crate::site::Site;

/// What is known of the instant of an activation.
#[derive(Debug)]
pub(super) struct Cut {
    pub(super) site: Site,
    pub(super) epoch: u32,
    pub(super) span: Span,
    /// The last call among the writes that are in.
    last_in: Moment,
    /// The first answer among the writes that are out.
    first_out: Moment,
    /// Nothing is known of it.
    pub(super) vague: bool,
    /// Of a failover: since when a crash of the half that takes over counts.
    pub(super) linked: Moment,
    /// What was seen of it.
    shown: Shown,
}

impl Cut {
    pub(super) fn new(site: Site, epoch: u32, call: Moment) -> Self {
        let span = Span { call, answer: NEVER };
        Self {
            site,
            epoch,
            span,
            last_in: 0,
            first_out: NEVER,
            vague: false,
            linked: call,
            shown: Shown::default(),
        }
    }
}

/// Whether a session that began at a cut can have shown a value at first.
pub(super) fn check(
    history: &mut History,
    session: VolumeId,
    of: VolumeId,
    cut: CutId,
    sector: u64,
    value: Value,
) -> Result<(), Violation> {
    fits(history, session, of, cut, sector, value)?;
    if let Err(other) = history.cuts[cut.0 as usize].shown.show(of, sector, value) {
        let what = format_args!(
            "{} shows {} in sector {sector} of {}, where another session of that instant shows {}",
            history.label(session),
            history.tell_value(value),
            history.label(of),
            history.tell_value(other)
        );
        return Err(Violation::new("joint", what));
    }
    Ok(())
}

/// Whether the volume that it is of can have held that at the cut.
fn fits(
    history: &mut History,
    session: VolumeId,
    of: VolumeId,
    cut: CutId,
    sector: u64,
    value: Value,
) -> Result<(), Violation> {
    if history.is_vague(cut) {
        return Ok(());
    }
    let Cut { epoch, span, .. } = history.cuts[cut.0 as usize];
    let span = Span { answer: span.answer.min(history.end_of(of, epoch)), ..span };
    let source = history.observe(of, sector, epoch, value, span).map_err(|violation| {
        let what = format_args!("{} in the point in time of {}", violation.what, history.label(session));
        Violation::new("snapshot", what)
    })?;
    at_one_instant(history, session, (of, epoch), cut, sector, value, source)
}

/// Whether what was seen of one sector fits to what was seen of all others: one instant shows all of it.
pub(super) fn at_one_instant(
    history: &mut History,
    shown_by: VolumeId,
    (of, epoch): (VolumeId, u32),
    cut: CutId,
    sector: u64,
    value: Value,
    source: Option<Source>,
) -> Result<(), Violation> {
    let Some(source) = source else { return Ok(()) };
    let register = &history.state(of, sector, epoch).register;
    let (called, seen_by) = match source {
        Source::Initial => (0, 0),
        Source::Write(at) => (register.writes()[at].call, register.seen_by(source)),
    };
    let later = register.writes().iter().filter(|write| write.call > seen_by).map(|write| write.answer);
    let first_out = later.min().unwrap_or(NEVER);
    let cut = &mut history.cuts[cut.0 as usize];
    cut.last_in = cut.last_in.max(called);
    cut.first_out = cut.first_out.min(first_out);
    if cut.last_in > cut.first_out {
        let (last_in, first_out) = (cut.last_in, cut.first_out);
        return Err(Violation::new(
            "snapshot",
            format_args!(
                "{} is not one instant: a write called at {last_in} is in, one answered at {first_out} is out \
                 (seen at {} sector {sector}: {})",
                history.label(shown_by),
                history.label(of),
                history.tell_value(value)
            ),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::{Content, Ending, History, Origin, VolumeId, WriteId};
    use super::*;

    fn write(history: &mut History, volume: VolumeId, sector: u64) -> WriteId {
        let write = history.begin_write(volume, sector * 512, 512, Content::Data, false);
        history.end_write(write).unwrap();
        write
    }

    fn read(history: &mut History, volume: VolumeId, sector: u64, bytes: &[u8]) -> Result<(), Violation> {
        let call = history.tick();
        history.end_read(volume, sector * 512, bytes, call)
    }

    #[test]
    fn what_was_written_before_is_in_and_after_is_out() {
        let mut history = History::default();
        let d = history.add_volume(Site::A, "d", Origin::Blank);
        let before = write(&mut history, d, 0);
        let cut = history.begin_cut(Site::A);
        history.end_cut(cut);
        let s = history.add_volume(Site::A, "s", Origin::Snapshot(d, cut));
        let after = write(&mut history, d, 0);
        let (before, after) = (history.payload(before), history.payload(after));
        assert_eq!(read(&mut history, s, 0, &after).unwrap_err().oracle, "snapshot");
        assert!(read(&mut history, s, 0, &[0; 512]).is_err());
        history.crash(Site::A, Ending::PowerCut);
        read(&mut history, s, 0, &before).unwrap();
    }

    /// A crash undid the removal of a session, and its host finds it active once more. Once the instant ended with that
    /// sight of it, and `lapse-forgotten` went unnoticed.
    #[test]
    fn a_session_that_is_seen_again_began_when_it_began() {
        let mut history = History::default();
        let d = history.add_volume(Site::A, "d", Origin::Blank);
        write(&mut history, d, 0);
        let cut = history.begin_cut(Site::A);
        history.end_cut(cut);
        let s = history.add_volume(Site::A, "s", Origin::Snapshot(d, cut));
        let after = write(&mut history, d, 0);
        history.crash(Site::A, Ending::Killed);
        history.end_cut(cut);
        let after = history.payload(after);
        assert!(read(&mut history, s, 0, &after).is_err());
    }

    /// *Establish* is many calls: an array that is back before the next one goes on with it. Once what was written
    /// after that crash, and before the activation, was taken for written too late.
    #[test]
    fn an_establishment_may_outlive_a_crash() {
        let mut history = History::default();
        let d = history.add_volume(Site::A, "d", Origin::Blank);
        let cut = history.begin_cut(Site::A);
        history.crash(Site::A, Ending::Killed);
        let before = write(&mut history, d, 0);
        history.cut_asked_in(cut, &[1]);
        history.end_cut(cut);
        let s = history.add_volume(Site::A, "s", Origin::Snapshot(d, cut));
        let after = write(&mut history, d, 0);
        let (before, after) = (history.payload(before), history.payload(after));
        assert!(read(&mut history, s, 0, &after).is_err());
        read(&mut history, s, 0, &before).unwrap();
    }

    #[test]
    fn a_group_is_one_instant() {
        let mut history = History::default();
        let (a, b) = (
            history.add_volume(Site::A, "a", Origin::Blank),
            history.add_volume(Site::A, "b", Origin::Blank),
        );
        let cut = history.begin_cut(Site::A);
        let first = write(&mut history, a, 0);
        let second = write(&mut history, b, 0);
        history.end_cut(cut);
        let sa = history.add_volume(Site::A, "sa", Origin::Snapshot(a, cut));
        let sb = history.add_volume(Site::A, "sb", Origin::Snapshot(b, cut));
        let (_, second) = (first, history.payload(second));
        read(&mut history, sa, 0, &[0; 512]).unwrap();
        let violation = read(&mut history, sb, 0, &second).unwrap_err();
        assert!(violation.what.contains("not one instant"), "{violation}");
    }

    #[test]
    fn what_a_session_shows_binds_its_standard_device() {
        let mut history = History::default();
        let d = history.add_volume(Site::A, "d", Origin::Blank);
        let unknown = history.begin_write(d, 0, 512, Content::Data, false);
        let cut = history.begin_cut(Site::A);
        history.end_cut(cut);
        let s = history.add_volume(Site::A, "s", Origin::Snapshot(d, cut));
        let bytes = history.payload(unknown);
        read(&mut history, s, 0, &bytes).unwrap();
        assert!(read(&mut history, d, 0, &[0; 512]).is_err(), "it had happened");
    }

    /// A restore: the device is what the session showed, its own writes included; the session of what it was before shows that.
    #[test]
    fn a_restored_device_is_what_its_session_showed() {
        let mut history = History::default();
        let d = history.add_volume(Site::A, "d", Origin::Blank);
        let first = write(&mut history, d, 0);
        let cut = history.begin_cut(Site::A);
        history.end_cut(cut);
        let s = history.add_volume(Site::A, "s", Origin::Snapshot(d, cut));
        let own = write(&mut history, s, 1);
        let after = write(&mut history, d, 0);
        let flying = history.begin_write(d, 2 * 512, 512, Content::Data, false);
        let restore = history.begin_cut(Site::A);
        let again = history.add_volume(Site::A, "d", Origin::Snapshot(s, restore));
        let before = history.add_volume(Site::A, "b", Origin::Snapshot(d, restore));
        history.succeed(again, d);
        history.end_cut(restore);
        history.end_write(flying).unwrap();
        let [first, own, after, flying] = [first, own, after, flying].map(|write| history.payload(write));
        assert!(read(&mut history, again, 0, &after).is_err());
        read(&mut history, again, 0, &first).unwrap();
        read(&mut history, again, 1, &own).unwrap();
        read(&mut history, before, 0, &after).unwrap();
        // Which of both it reached is not known.
        read(&mut history, again, 2, &[0; 512]).unwrap();
        read(&mut history, before, 2, &flying).unwrap();
    }

    /// The restore of a part (D19): the rest of the device is what it was.
    #[test]
    fn of_a_part_the_rest_stays() {
        let mut history = History::default();
        let d = history.add_volume(Site::A, "d", Origin::Blank);
        let first = [0, 1].map(|sector| write(&mut history, d, sector));
        let cut = history.begin_cut(Site::A);
        history.end_cut(cut);
        let part = history.add_volume(Site::A, "s", Origin::Snapshot(d, cut));
        let after = [0, 1].map(|sector| write(&mut history, d, sector));
        let cut = history.begin_cut(Site::A);
        let origin = Origin::Patched { sectors: (1, 2), part, rest: d, cut };
        let again = history.add_volume(Site::A, "d", origin);
        history.succeed(again, d);
        history.end_cut(cut);
        let [first, after] = [first, after].map(|writes| writes.map(|write| history.payload(write)));
        assert!(read(&mut history, again, 0, &first[0]).is_err());
        assert!(read(&mut history, again, 1, &after[1]).is_err());
        read(&mut history, again, 0, &after[0]).unwrap();
        read(&mut history, again, 1, &first[1]).unwrap();
    }

    #[test]
    fn own_writes_lie_over_it() {
        let mut history = History::default();
        let d = history.add_volume(Site::A, "d", Origin::Blank);
        let cut = history.begin_cut(Site::A);
        history.end_cut(cut);
        let s = history.add_volume(Site::A, "s", Origin::Snapshot(d, cut));
        let own = write(&mut history, s, 0);
        let own = history.payload(own);
        read(&mut history, s, 0, &own).unwrap();
        assert!(read(&mut history, d, 0, &own).is_err(), "and not on the standard device");
    }
}
