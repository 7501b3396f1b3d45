//! Change reports (D15): what changed since an activation, and the changed tracks.

use super::Host;
use super::operator::Told;
use crate::ledger::Stage;
use crate::oracle::{Span, check_refused_track, check_report, check_report_across};

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
            let call = self.shared.ledger().history.tick();
            let told = self.ask(self.array.session_track(id, track)).await;
            let mut ledger = self.shared.ledger();
            let checked = match told {
                Told::Done(bytes) => {
                    let offset = u64::from(track) * ledger.track_bytes;
                    let volume = ledger.sessions[label].volume;
                    check_refused_track(false, track, &report).and_then(|()| match volume {
                        Some(volume) => ledger.history.end_read(volume, offset, &bytes, call),
                        None => Ok(()),
                    })
                }
                Told::Refused(code) => {
                    let reported = report.binary_search(&track).is_ok();
                    let sound = !ledger.excuses.full && !ledger.excuses.disks;
                    ledger.judge(
                        "reading a changed track",
                        Some(true).filter(|_| reported && sound),
                        Some(code),
                    );
                    Ok(())
                }
                Told::Unasked | Told::Unknown => return,
            };
            ledger.hold(checked);
        }
    }
}
