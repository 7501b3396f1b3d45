//! Change reports (D15): what changed since an activation, and the changed tracks.

use twintrack_host::manage::{RefusalCode, TrackList, TrackRange};

use super::Host;
use super::operator::Told;
use crate::ledger::{Ledger, Stage};
use crate::oracle::{Moment, Span, Violation, check_refused_track, check_report, check_report_across};

/// Tracks of a change report that one operation reads.
const TRACKS_READ_MAX: usize = 8;

impl Host {
    /// The change report of a session, whole; `None` if it was not to be had.
    pub(super) async fn changed(&self, label: &str) -> Option<Vec<u32>> {
        let (id, stage) = self.session(label)?;
        let was = self.shared.ledger().volume_now(label);
        let call = self.shared.ledger().history.tick();
        let (mut report, mut from) = (Vec::new(), 0);
        loop {
            let told = self.ask(self.array.session_changed(id, from)).await;
            let reports = stage.known().map(|s| matches!(s, Stage::Active | Stage::Deactivated));
            let allowed = reports.filter(|_| !self.shared.ledger().excuses.full);
            self.judge("the change report", allowed, &told);
            let Told::Done(page) = told else { return None };
            report.extend(page.tracks);
            match page.next {
                Some(next) if next > from => from = next,
                _ => break,
            }
        }
        let mut ledger = self.shared.ledger();
        let answer = ledger.history.tick();
        let session = &ledger.sessions[label];
        let end = match (stage.known(), session.deactivated) {
            (Some(Stage::Active), None) => Span { call, answer },
            (Some(Stage::Deactivated), Some(span)) => span,
            _ => return None,
        };
        let (volume, tracks) = (session.volume?, session.tracks());
        self.note(format_args!("{label} changed {report:?}"));
        let (history, track_bytes) = (&ledger.history, ledger.track_bytes);
        let is_one_pool = self.shared.plan.devices.iter().all(|spec| !spec.far);
        let checked = match was.filter(|was| ledger.volume_now(label) == Some(*was)) {
            _ if ledger.is_reported_whole(label) => {
                check_report(history, volume, track_bytes, &tracks, &report, end)
            }
            Some(device) if stage.surely(&Stage::Active) && session.part.is_none() => {
                check_report_across(history, (volume, device), track_bytes, &report, end, is_one_pool)
            }
            _ => Ok(()),
        };
        ledger.hold(checked)?;
        Some(report)
    }

    pub(super) async fn read_tracks(&self, label: &str) {
        let Some((id, stage)) = self.session(label) else { return };
        let Some(report) = self.changed(label).await else { return };
        if !stage.surely(&Stage::Deactivated) {
            return;
        }
        let spread = (report.len() / TRACKS_READ_MAX).max(1);
        let others =
            (0..=report.last().map_or(1, |last| last + 1)).filter(|t| report.binary_search(t).is_err());
        let tracks: Vec<u32> = report.iter().step_by(spread).copied().chain(others.take(2)).collect();
        for track in tracks {
            if !self.read_track(label, id, track, &report).await {
                return;
            }
        }
        let some: Vec<u32> = report.iter().step_by(spread).take(TRACKS_READ_MAX).copied().collect();
        self.read_list(label, id, &some, true).await;
        let next = some.last().map_or(0, |last| last + 1);
        if report.binary_search(&next).is_err() {
            self.read_list(label, id, &[some, vec![next]].concat(), false).await;
        }
    }

    /// One by itself. `false`: there is no answer.
    async fn read_track(&self, label: &str, id: u32, track: u32, report: &[u32]) -> bool {
        let call = self.shared.ledger().history.tick();
        let told = self.ask(self.array.session_track(id, track)).await;
        let mut ledger = self.shared.ledger();
        let checked = match told {
            Told::Done(bytes) => check_refused_track(false, track, report)
                .and_then(|()| check_tracks(&mut ledger, label, &[track], &bytes, call)),
            Told::Refused(code) => {
                let reported = report.binary_search(&track).is_ok();
                judge_refused(&mut ledger, reported, code);
                Ok(())
            }
            Told::Unasked | Told::Unknown => return false,
        };
        ledger.hold(checked);
        true
    }

    /// Several by one request, which are all there, or else are all refused.
    async fn read_list(&self, label: &str, id: u32, tracks: &[u32], reported: bool) {
        let ranges = tracks.iter().map(|track| TrackRange { first: *track, last: *track }).collect();
        let Ok(list) = TrackList::new(ranges) else { return };
        let call = self.shared.ledger().history.tick();
        let all = async {
            let mut reader = self.array.session_tracks(id, &list).await?;
            let mut bytes = Vec::new();
            while let Some(some) = reader.next().await? {
                bytes.extend_from_slice(&some);
            }
            Ok(bytes)
        };
        let told = self.ask(all).await;
        let mut ledger = self.shared.ledger();
        match told {
            Told::Done(bytes) => {
                self.note(format_args!("{label} tracks {tracks:?}: {} bytes", bytes.len()));
                let checked = match tracks.last() {
                    Some(last) if !reported => check_refused_track(false, *last, &[]),
                    _ => check_tracks(&mut ledger, label, tracks, &bytes, call),
                };
                ledger.hold(checked);
            }
            Told::Refused(code) => judge_refused(&mut ledger, reported, code),
            Told::Unasked | Told::Unknown => {}
        }
    }
}

fn judge_refused(ledger: &mut Ledger, reported: bool, code: RefusalCode) {
    let sound = !ledger.excuses.full && !ledger.excuses.disks;
    ledger.judge("reading a changed track", Some(true).filter(|_| reported && sound), Some(code));
}

/// Whether tracks of a session, one behind the other, are what it has of them.
fn check_tracks(
    ledger: &mut Ledger,
    label: &str,
    tracks: &[u32],
    bytes: &[u8],
    call: Moment,
) -> Result<(), Violation> {
    let track_bytes = ledger.track_bytes;
    // A device may end within its last track.
    if bytes.len().div_ceil(track_bytes as usize) != tracks.len() {
        let what = format_args!("of the tracks {tracks:?} of {label} came {} bytes", bytes.len());
        return Err(Violation::new("changed", what));
    }
    let Some(volume) = ledger.sessions.get(label).and_then(|session| session.volume) else { return Ok(()) };
    for (track, bytes) in tracks.iter().zip(bytes.chunks(track_bytes as usize)) {
        ledger.history.end_read(volume, u64::from(*track) * track_bytes, bytes, call)?;
    }
    Ok(())
}
