//! *Establish* (D18): one call of the host library for sessions that begin together, of whole devices or of parts (D19).

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::timeout;
use twintrack_host::manage::GroupMode;
use twintrack_host::{ArrayClient, Pair, establish};

use super::Host;
use super::operator::Told;
use crate::endpoints::NotedDial;
use crate::ledger::{Maybe, Part, Stage};
use crate::plan::PartSpec;

/// One session of an *Establish*, as the plan calls it and its devices.
#[derive(Debug)]
pub(super) struct Item {
    session: String,
    standard: String,
    shown_by: String,
    part: Option<Part>,
}

impl Item {
    pub(super) fn of_pairs(pairs: &[(String, String, String)]) -> Vec<Self> {
        let item = |(session, standard, shown_by): &(String, String, String)| Self {
            session: session.clone(),
            standard: standard.clone(),
            shown_by: shown_by.clone(),
            part: None,
        };
        pairs.iter().map(item).collect()
    }

    pub(super) fn of_parts(shown_by: &str, parts: &[PartSpec]) -> Vec<Self> {
        let all: Vec<_> = parts.iter().map(|part| part.session.clone()).collect();
        let mut at = 0;
        let item = |spec: &PartSpec| {
            let (first, tracks) =
                (u64::from(spec.first), u64::from(spec.last.saturating_sub(spec.first)) + 1);
            let part = Part { first, tracks, at, all: all.clone() };
            at += tracks;
            let (session, standard) = (spec.session.clone(), spec.device.clone());
            Self { session, standard, shown_by: shown_by.to_owned(), part: Some(part) }
        };
        parts.iter().map(item).collect()
    }
}

impl Host {
    pub(super) async fn establish(&self, items: &[Item]) {
        let standards: BTreeSet<_> = items.iter().map(|item| item.standard.clone()).collect();
        let standards: Vec<_> = standards.into_iter().collect();
        // Of two at a time of the same parts nobody could tell which of them a listing shows.
        let is_of_parts = items.iter().any(|item| item.part.is_some());
        let (shared, alone) = if is_of_parts { (&[][..], &standards[..]) } else { (&standards[..], &[][..]) };
        self.claim(shared, alone).await;
        self.establish_claimed(items).await;
        self.shared.ledger().unclaim(shared, alone);
    }

    async fn establish_claimed(&self, items: &[Item]) {
        let list: Vec<_> = items.iter().map(|item| self.expect(item)).collect();
        let labels: Vec<String> = items.iter().map(|item| item.session.clone()).collect();
        self.shared.ledger().cut_begins(&labels, true);
        let dial = NotedDial::new(self.shared.wires.clone(), self.site);
        let array = ArrayClient::new(dial.clone(), self.array.endpoint().clone());
        let call = establish(&array, &list, GroupMode::Synchronous);
        let told = match timeout(Duration::from_millis(3 * self.shared.deadlines.answer_ms), call).await {
            Ok(Ok(infos)) => Told::Done(infos),
            Ok(Err(error)) => {
                self.note(format_args!("{error}"));
                Told::Unknown
            }
            Err(_) => Told::Unknown,
        };
        // The array may have crashed, and be back, between two of the calls.
        let mut epochs = dial.epochs();
        self.asked_in[self.site.index()].set(dial.epoch());
        if let Told::Done(_) = told {
            // The last call activates. If it fails, others undo what was done.
            epochs = vec![dial.epoch()];
        }
        self.shared.ledger().cut_asked_in(&labels, &epochs);
        let counts = |ledger: &mut crate::ledger::Ledger, done| {
            if done { ledger.counts.done += 1 } else { ledger.counts.unknown += 1 }
        };
        counts(&mut self.shared.ledger(), matches!(told, Told::Done(_)));
        for item in items {
            self.shared.ledger().device_changed(&item.shown_by, |device| {
                if let Told::Done(_) = &told {
                    (device.exists, device.online) = (Maybe::is(true), Maybe::is(true));
                }
            });
        }
        if let Told::Done(infos) = &told {
            for (item, info) in items.iter().zip(infos) {
                self.shared.ledger().cut_happened(&item.session);
                if let Some(session) = self.shared.ledger().sessions.get_mut(&item.session) {
                    (session.id, session.shown_by) = (Some(info.id), Maybe::is(Some(item.shown_by.clone())));
                }
            }
        }
        self.stage_after(&labels, &told, Stage::Active, |_, _| {}).await;
    }

    /// What the call may do with one of the sessions, and how it is asked for.
    fn expect(&self, item: &Item) -> Pair {
        let Item { session: label, standard, shown_by, part } = item;
        let pair = Pair::new(&self.device(standard).0, &self.device(shown_by).0);
        let mut ledger = self.shared.ledger();
        ledger.expect_session(self.site, label, standard, None);
        for stage in [Stage::Registered, Stage::Related, Stage::Active] {
            ledger.session_changes(label, Some(stage));
        }
        if let Some(session) = ledger.sessions.get_mut(label) {
            session.busy -= 2;
            session.part.clone_from(part);
            session.shown_by.also(Some(shown_by.clone()));
        }
        ledger.device_changes(shown_by, |device| {
            device.exists.also(true);
            device.online.also(true);
        });
        match part {
            Some(part) => pair.part(part.first as u32, (part.first + part.tracks) as u32 - 1),
            None => pair,
        }
    }
}
