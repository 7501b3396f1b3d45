//! What differs between two sessions of a device, or between one and the device as it is (F7): asked by the command and by block
//! status, and held against what hosts wrote, and in the end against what both show.

use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;
use twintrack_host::{NbdClient, NbdError};

use super::operator::Told;
use super::{Host, Phase};
use crate::oracle::{DifferencesTold, Moment, Span, Violation, check_answered_in_time};
use crate::plan::{Act, DiffBy, Op};

/// Sessions of a device that are compared in the end.
const SESSIONS_MAX: usize = 8;
/// A device takes so many requests of block status, or more.
const REQUESTS: [u64; 3] = [1, 3, 8];

impl Host {
    /// Nobody makes the device another volume meanwhile.
    pub(super) async fn diff(&self, label: &str, other: Option<&str>, by: DiffBy) {
        let standard = self.shared.ledger().sessions.get(label).map(|session| session.standard.clone());
        let Some(standard) = standard.map(|standard| [standard]) else {
            self.shared.ledger().counts.skipped += 1;
            return;
        };
        self.claim(&standard, &[]).await;
        self.diff_claimed(label, other, by).await;
        self.shared.ledger().unclaim(&standard, &[]);
    }

    async fn diff_claimed(&self, label: &str, other: Option<&str>, by: DiffBy) {
        // A write that nobody awaits any more ends later than it becomes quiet.
        let is_quiet = self.shared.in_phase(Phase::Quiet);
        let compared = self.shared.ledger().compared(label, other);
        let told = match by {
            DiffBy::Command => self.diff_by_command(label, other).await,
            DiffBy::Context | DiffBy::Bitmap => self.diff_by_status(label, other, by).await,
        };
        let (Some(compared), Some(told)) = (compared, told) else { return };
        let than = other.unwrap_or("now");
        self.note(format_args!("{label} and {than} differ in {:?}", told.ranges));
        {
            let mut ledger = self.shared.ledger();
            let checked = told.check(&ledger.history, ledger.track_bytes, compared);
            ledger.hold(checked);
        }
        if is_quiet {
            self.check_shown(label, other, &told).await;
        }
    }

    async fn diff_by_command(&self, label: &str, other: Option<&str>) -> Option<DifferencesTold> {
        let (id, _) = self.session(label)?;
        let other_id = match other {
            Some(other) => Some(self.session(other)?.0),
            None => None,
        };
        let call = self.shared.ledger().history.tick();
        let (mut ranges, mut from) = (Vec::new(), 0);
        loop {
            let allowed = self.shared.ledger().may_compare(label, other);
            let told = self.ask(self.array.session_diff(id, other_id, from)).await;
            self.judge("session diff", allowed, &told);
            let Told::Done(page) = told else { return None };
            ranges.extend(page.ranges.iter().map(|range| range.offset..range.offset + range.length));
            match page.next {
                Some(next) if next > from => from = next,
                _ => break,
            }
        }
        let asked = Span { call, answer: self.shared.ledger().history.tick() };
        Some(DifferencesTold { ranges, end: u64::MAX, asked })
    }

    async fn diff_by_status(&self, label: &str, other: Option<&str>, by: DiffBy) -> Option<DifferencesTold> {
        let (device, context, named) = self.context_of(label, other, by)?;
        let call = self.shared.ledger().history.tick();
        let allowed = self.shared.ledger().may_compare(label, other);
        let client = match self.attach_for(&self.device(&device).0, vec![context.clone()]).await {
            Ok(client) => client,
            Err(error) => {
                self.note(format_args!("{device} for {context}: {error}"));
                return None;
            }
        };
        let is_offered = client.negotiated().context(&context).is_some();
        let allowed =
            allowed.filter(|allowed| !allowed || self.is_comparable_since(label, other, &device, call));
        // Of a session that is over, its virtual device may show another one by now, which can be compared.
        let allowed = allowed.filter(|allowed| *allowed || !named);
        if allowed.is_some_and(|allowed| allowed != is_offered) {
            let what = format_args!("{device} offers {context}: {is_offered}");
            self.shared.ledger().hold::<()>(Err(Violation::new("differs", what)));
        }
        if !is_offered {
            return None;
        }
        match self.ranges_of(&client, &context).await {
            Ok(ranges) => {
                let asked = Span { call, answer: self.shared.ledger().history.tick() };
                Some(DifferencesTold { ranges, end: client.info().size_bytes, asked })
            }
            Err(error) => {
                self.note(format_args!("{context} of {device}: {error}"));
                let is_refused = matches!(error, NbdError::Remote { .. } | NbdError::Unanswered);
                if is_refused && self.is_comparable_since(label, other, &device, call) {
                    let what =
                        format_args!("{context} of {device}: {error}, though nothing is wrong with it");
                    self.shared.ledger().hold::<()>(Err(Violation::new("errors", what)));
                }
                None
            }
        }
    }

    /// Whether all that a question needs is there, and was all the time.
    fn is_comparable_since(&self, label: &str, other: Option<&str>, device: &str, call: Moment) -> bool {
        let ledger = self.shared.ledger();
        ledger.may_compare(label, other) == Some(true) && ledger.is_steady(device, call)
    }

    /// A device that can be asked, and what for; `true`: by the name of a virtual device.
    fn context_of(&self, label: &str, other: Option<&str>, by: DiffBy) -> Option<(String, String, bool)> {
        let (id, _) = self.session(label)?;
        let other_id = match other {
            Some(other) => Some(self.session(other)?.0),
            None => None,
        };
        let standard = self.shared.ledger().sessions[label].standard.clone();
        let [shown, other_shown] = [Some(label), other].map(|label| self.shown_by(label?));
        let named = |device: &String| Some(self.device(device)).filter(|(_, there)| *there == Some(true));
        let mut dice = self.dice.borrow_mut();
        if by == DiffBy::Bitmap {
            let (name, _) = named(&shown?)?;
            let device = if other.is_some() { other_shown? } else { standard };
            return Some((device, format!("qemu:dirty-bitmap:{name}"), true));
        }
        let word = |id: u32, shown: Option<&String>, way: u64| match (way, shown.and_then(named)) {
            (0, Some((name, _))) => (name, true),
            (1, _) => (id.to_string(), false),
            _ => (format!("ses-{id}"), false),
        };
        let (first, by_name) = word(id, shown.as_ref(), dice.below(3));
        let now = || ("now".into(), false);
        let (second, second_by_name) =
            other_id.map_or_else(now, |id| word(id, other_shown.as_ref(), dice.below(3)));
        let devices: Vec<_> = [standard].into_iter().chain(shown).chain(other_shown).collect();
        let context = format!("x-twintrack:diff/{first}/{second}");
        Some((dice.pick(&devices).clone(), context, by_name || second_by_name))
    }

    /// The virtual device that shows a session, if that is known.
    fn shown_by(&self, label: &str) -> Option<String> {
        self.shared.ledger().sessions.get(label)?.shown_by.known()?.clone()
    }

    /// The bytes that an export tells by a context, all of it.
    async fn ranges_of(&self, client: &NbdClient, context: &str) -> Result<Vec<Range<u64>>, NbdError> {
        let (size, count) = (client.info().size_bytes, *self.dice.borrow_mut().pick(&REQUESTS));
        let most = (size.div_ceil(count)).next_multiple_of(512).min(1 << 30);
        let (mut ranges, mut at) = (Vec::new(), 0);
        while at < size {
            let (since_ms, bound_ms) = (self.shared.timeline.now_ms(), self.shared.deadlines.answer_ms);
            let call = client.status_of(context, at, most.min(size - at) as u32);
            let Ok(extents) = timeout(Duration::from_millis(bound_ms + 1), call).await else {
                let now_ms = self.shared.timeline.now_ms();
                let checked = check_answered_in_time(context, since_ms, now_ms, bound_ms);
                self.shared.ledger().hold(checked);
                return Err(NbdError::Unanswered);
            };
            let from = at;
            for extent in extents? {
                let end = (at + u64::from(extent.length)).min(size);
                if extent.is_dirty() && at < end {
                    ranges.push(at..end);
                }
                at = end;
            }
            if at == from {
                return Err(NbdError::Unanswered);
            }
        }
        Ok(ranges)
    }

    /// What a session and another one, or its device, show is read: nobody writes any more.
    async fn check_shown(&self, label: &str, other: Option<&str>, told: &DifferencesTold) {
        let standard = self.shared.ledger().sessions[label].standard.clone();
        let second = if let Some(other) = other { self.shown_by(other) } else { Some(standard) };
        let (Some(first), Some(second)) = (self.shown_by(label), second) else { return };
        let Some(clients) = self.both(&first, &second).await else { return };
        let size = clients.each_ref().map(|client| client.info().size_bytes);
        let ranges = [&first, &second].map(|device| self.ranges_to_read(device, size[0].min(size[1])));
        for (offset, length) in ranges.concat() {
            let [a, b] = &clients;
            let both = (read(a, offset, length).await, read(b, offset, length).await);
            let (Some(a), Some(b)) = both else { return };
            let checked = told.check_shown(offset, &a, &b);
            if self.shared.ledger().hold(checked).is_none() {
                return;
            }
        }
    }

    /// Connections to two devices, if hosts can use them.
    async fn both(&self, first: &str, second: &str) -> Option<[NbdClient; 2]> {
        let usable = [first, second].iter().all(|device| {
            let mut ledger = self.shared.ledger();
            let now = ledger.history.tick();
            ledger.is_steady(device, now)
        });
        if !usable {
            return None;
        }
        let first = self.attach(&self.device(first).0).await.ok()?;
        Some([first, self.attach(&self.device(second).0).await.ok()?])
    }

    /// Compares the sessions of each device with one another, and with it.
    pub(super) async fn diff_everything(&self) {
        let labels: Vec<(String, String)> = {
            let ledger = self.shared.ledger();
            let sessions = ledger.sessions.iter();
            let known = sessions.filter(|(label, session)| session.id.is_some() && !ledger.is_joint(label));
            let usable = known.filter(|(label, _)| ledger.may_compare(label, None) == Some(true));
            usable.map(|(label, session)| (session.standard.clone(), label.clone())).collect()
        };
        let means = [DiffBy::Command, DiffBy::Context, DiffBy::Bitmap];
        let mut next_means = means.iter().copied().cycle();
        let mut standards: Vec<_> = labels.iter().map(|(standard, _)| standard).collect();
        standards.sort_unstable();
        standards.dedup();
        for standard in standards {
            let of_device = labels.iter().filter(|(of, _)| of == standard).map(|(_, label)| label);
            let labels: Vec<_> = of_device.take(SESSIONS_MAX).collect();
            let others = labels.windows(2).map(|both| (both[0], Some(both[1].clone())));
            for (label, other) in others.chain(labels.iter().map(|label| (*label, None))) {
                let (session, by) = (label.clone(), next_means.next().unwrap_or(DiffBy::Command));
                let op = Op::now(Act::Diff { session, other, by });
                self.at(self.site_of(&op)).manage(&op).await;
            }
        }
    }
}

/// Reads, if it can be read.
async fn read(client: &NbdClient, offset: u64, length: u32) -> Option<Bytes> {
    timeout(Duration::from_secs(10), client.read(offset, length)).await.ok()?.ok()
}
