//! Management: each command as the plan gives it, judged against what is known.

use std::collections::BTreeSet;
use std::future::Future;
use std::time::Duration;

use tokio::time::{sleep, timeout};
use twintrack_host::ArrayError;
use twintrack_host::manage::{Activation, GroupMode, RefusalCode, SessionInfo};

use super::establish::Item;
use super::{Host, Phase};
use crate::ledger::{Lent, Maybe, Session, Stage};
use crate::oracle::{Moment, NEVER, Span, check_answered_in_time};
use crate::plan::{Act, Op};

/// How a command ended.
pub(super) enum Told<T> {
    /// It happened.
    Done(T),
    /// It was refused, and changed nothing.
    Refused(RefusalCode),
    /// It was never asked: the array is down.
    Unasked,
    /// It happened or not.
    Unknown,
}

impl Host {
    /// Carries out a management operation of the plan.
    pub(super) async fn manage(&self, op: &Op) {
        self.note(format_args!("{:?}", op.act));
        if self.shared.in_phase(Phase::Safety) {
            self.shared.commands.set(self.shared.commands.get() + 1);
            self.shared.titles.borrow_mut().extend(op.act.title());
        }
        let since_ms = self.shared.timeline.now_ms();
        let act = self.command(&op.act);
        // Large, with all its branches.
        Box::pin(act).await;
        if self.shared.in_phase(Phase::Quiet) {
            let until_ms = self.shared.timeline.now_ms();
            let bound_ms = 3 * self.shared.deadlines.answer_ms;
            let checked = check_answered_in_time(&format!("{:?}", op.act), since_ms, until_ms, bound_ms);
            self.shared.ledger().hold(checked);
        }
    }

    async fn command(&self, act: &Act) {
        match act {
            Act::Create { device, size_bytes } => {
                if !self.shared.ledger().devices.contains_key(device) {
                    self.shared.ledger().expect_device(self.site, device, Some(*size_bytes));
                }
                self.create(device, Some(*size_bytes)).await;
            }
            Act::Delete { device } => self.delete(device).await,
            Act::Rename { device, to } => self.rename(device, to).await,
            Act::Grow { device, size_bytes } => self.grow(device, *size_bytes).await,
            Act::Online { device, online } => self.online(device, *online).await,
            Act::Register { session, device, group } => {
                self.register(session, device, group.as_deref()).await;
            }
            Act::Relate { session, device } => self.relate(session, device).await,
            Act::Activate { sessions, offline } => self.activate(sessions, *offline).await,
            Act::Establish { pairs } => self.establish(&Item::of_pairs(pairs)).await,
            Act::EstablishParts { shown_by, parts } => {
                self.establish(&Item::of_parts(shown_by, parts)).await;
            }
            Act::GroupBegin { group } => {
                if let Told::Done(number) = self.ask(self.array.group_begin()).await {
                    self.shared.ledger().groups.insert(group.clone(), number);
                }
            }
            Act::GroupProcess { group, one_by_one } => self.process(group, *one_by_one).await,
            Act::Deactivate { session } => self.deactivate(session).await,
            Act::Remove { session } => self.remove(session).await,
            Act::Changed { session } => drop(self.changed(session).await),
            Act::ReadTracks { session } => self.read_tracks(session).await,
            Act::Diff { session, other, by } => self.diff(session, other.as_deref(), *by).await,
            Act::List {} => self.compare_all().await,
            Act::Pair(act) => self.pair_act(act).await,
            Act::Local(act) => self.local_act(act).await,
            _ => {}
        }
    }

    /// Asks once, and counts.
    pub(super) async fn ask<T>(&self, call: impl Future<Output = Result<T, ArrayError>>) -> Told<T> {
        let bound = Duration::from_millis(self.shared.deadlines.answer_ms);
        self.asked_in[self.site.index()].set(self.shared.ledger().history.epoch(self.site));
        let told = match timeout(bound, call).await {
            Ok(Ok(answer)) => Told::Done(answer),
            Ok(Err(ArrayError::Unreachable { .. })) => Told::Unasked,
            Ok(Err(ArrayError::Refused(refusal))) => {
                self.note(format_args!("refused: {refusal}"));
                match refusal.code {
                    RefusalCode::Unavailable => Told::Unknown,
                    code => Told::Refused(code),
                }
            }
            Ok(Err(error)) => {
                self.note(format_args!("{error}"));
                Told::Unknown
            }
            Err(_) => {
                self.note(format_args!("no answer in time"));
                Told::Unknown
            }
        };
        let counts = &mut self.shared.ledger().counts;
        match &told {
            Told::Done(_) => counts.done += 1,
            Told::Refused(_) => counts.failed += 1,
            Told::Unasked => counts.skipped += 1,
            Told::Unknown => counts.unknown += 1,
        }
        told
    }

    /// Judges an answer, if there was one.
    pub(super) fn judge<T>(&self, command: &str, allowed: Option<bool>, told: &Told<T>) {
        match told {
            Told::Done(_) => self.shared.ledger().judge(command, allowed, None),
            Told::Refused(code) => self.shared.ledger().judge(command, allowed, Some(*code)),
            Told::Unasked | Told::Unknown => {}
        }
    }

    /// The present name of a device, and whether it is surely there and nobody else is changing it.
    pub(super) fn device(&self, device: &str) -> (String, Option<bool>) {
        let ledger = self.shared.ledger();
        match ledger.devices.get(device) {
            None => (device.into(), Some(false)),
            Some(known) => {
                let sure = known.busy == 0 && known.name.known().is_some();
                (known.name.latest().clone(), known.exists.known().copied().filter(|_| sure))
            }
        }
    }

    pub(super) async fn create(&self, device: &str, size_bytes: Option<u64>) {
        let (name, exists) = self.device(device);
        self.shared.ledger().device_changes(device, |device| device.exists.also(true));
        let told = match size_bytes {
            Some(size) => {
                let pool = self.shared.plan.pool_of(device);
                self.ask(self.array.device_create(&name, size, pool)).await
            }
            None => self.ask(self.array.device_create_virtual(&name)).await,
        };
        self.judge("create", exists.map(|exists| !exists), &told);
        let was = exists.unwrap_or(true);
        self.shared.ledger().device_changed(device, |device| match &told {
            Told::Done(info) => (device.id, device.exists) = (Some(info.id), Maybe::is(true)),
            Told::Refused(_) if exists == Some(false) => device.exists = Maybe::is(false),
            Told::Unasked if !was => device.exists = Maybe::is(false),
            _ => {}
        });
        if let Told::Unknown | Told::Refused(RefusalCode::Exists) = told {
            self.settle().await;
        }
    }

    async fn delete(&self, device: &str) {
        let (name, exists) = self.device(device);
        let used = self.shared.ledger().sessions.values().any(|session| {
            !session.stage.surely(&Stage::Gone)
                && (session.standard == device
                    || session.shown_by.all().iter().any(|v| v.as_deref() == Some(device)))
        });
        self.shared.ledger().device_changes(device, |device| device.exists.also(false));
        let told = self.ask(self.array.device_delete(&name)).await;
        let allowed = if used { None } else { exists };
        self.judge("delete", allowed, &told);
        self.shared.ledger().device_changed(device, |device| match &told {
            Told::Done(()) => device.exists = Maybe::is(false),
            Told::Refused(_) | Told::Unasked => device.exists = Maybe::is(exists.unwrap_or(true)),
            Told::Unknown => {}
        });
        if let Told::Unknown = told {
            self.settle().await;
        }
    }

    async fn rename(&self, device: &str, to: &str) {
        let (name, exists) = self.device(device);
        let taken = self.shared.ledger().devices.values().any(|device| device.name.may_be(&to.to_string()));
        self.shared.ledger().device_changes(device, |device| device.name.also(to.into()));
        let told = self.ask(self.array.device_rename(&name, to)).await;
        self.judge("rename", exists.filter(|_| !taken), &told);
        self.shared.ledger().device_changed(device, |device| match &told {
            Told::Done(_) => device.name = Maybe::is(to.into()),
            Told::Refused(_) | Told::Unasked => device.name = Maybe::is(name),
            Told::Unknown => {}
        });
        if let Told::Unknown = told {
            self.settle().await;
        }
    }

    async fn grow(&self, device: &str, size_bytes: u64) {
        let (name, exists) = self.device(device);
        let size = self.shared.ledger().devices.get(device).map(|device| device.size.clone());
        let grows = size.as_ref().and_then(Maybe::known).map(|size| size_bytes >= *size);
        self.shared.ledger().device_changes(device, |device| device.size.also(size_bytes));
        let told = self.ask(self.array.device_resize(&name, size_bytes)).await;
        let allowed = exists.zip(grows).map(|(exists, grows)| exists && grows);
        self.judge("grow", allowed, &told);
        self.shared.ledger().device_changed(device, |device| match (&told, size) {
            (Told::Done(_), _) => device.size = Maybe::is(size_bytes),
            (Told::Refused(_) | Told::Unasked, Some(size)) => device.size = size,
            _ => {}
        });
        if let Told::Unknown = told {
            self.settle().await;
        }
    }

    async fn online(&self, device: &str, online: bool) {
        let (name, exists) = self.device(device);
        self.shared.ledger().device_changes(device, |device| device.online.also(online));
        let told = self.ask(self.array.device_online(&name, online)).await;
        self.judge("online", exists, &told);
        self.shared.ledger().device_changed(device, |device| {
            if let Told::Done(_) = &told {
                device.online = Maybe::is(online);
            }
        });
        if !matches!(told, Told::Done(_)) {
            self.settle().await;
        }
    }

    async fn register(&self, label: &str, device: &str, group: Option<&str>) {
        let (name, exists) = self.device(device);
        let number = group.map(|group| self.shared.ledger().groups.get(group).copied());
        if let Some(None) = number {
            self.shared.ledger().counts.skipped += 1;
            return;
        }
        self.shared.ledger().expect_session(self.site, label, device, group);
        self.shared.ledger().session_changes(label, Some(Stage::Registered));
        let told = self.ask(self.array.session_register(&name, number.flatten())).await;
        let allowed = exists.filter(|exists| !exists || group.is_none());
        self.judge("register", allowed, &told);
        let info = if let Told::Done(info) = &told { Some(info.id) } else { None };
        self.stage_after(&[label.into()], &told, Stage::Registered, |session, _| session.id = info).await;
    }

    async fn relate(&self, label: &str, device: &str) {
        let Some((id, stage)) = self.session(label) else { return };
        let (name, _) = self.device(device);
        let allowed = {
            let ledger = self.shared.ledger();
            let virtual_device = ledger.devices.get(device).is_some_and(|device| device.standard.is_none());
            match stage.known() {
                Some(Stage::Registered) if !virtual_device => Some(false),
                Some(Stage::Registered) if ledger.is_free_virtual(device) => Some(true),
                Some(Stage::Registered) | None => None,
                Some(_) => Some(false),
            }
        };
        if let Some(session) = self.shared.ledger().sessions.get_mut(label) {
            session.shown_by.also(Some(device.into()));
        }
        self.shared.ledger().session_changes(label, Some(Stage::Related));
        let told = self.ask(self.array.session_relate(id, &name)).await;
        self.judge("relate", allowed, &told);
        let related = Some(device.to_string());
        let done = matches!(told, Told::Done(_));
        let undone = matches!(told, Told::Refused(_) | Told::Unasked);
        self.stage_after(&[label.into()], &told, Stage::Related, |session, _| {
            if done {
                session.shown_by = Maybe::is(related.clone());
            } else if undone {
                let before: Vec<_> =
                    session.shown_by.all().iter().filter(|v| **v != related).cloned().collect();
                session.shown_by = Maybe::is(before.first().cloned().flatten());
            }
        })
        .await;
    }

    async fn activate(&self, labels: &[String], offline: bool) {
        let standards = self.standards_of(labels);
        self.claim(&standards, &[]).await;
        self.activate_claimed(labels, offline).await;
        self.shared.ledger().unclaim(&standards, &[]);
    }

    async fn activate_claimed(&self, labels: &[String], offline: bool) {
        let known: Vec<_> = labels.iter().filter_map(|label| Some((label, self.session(label)?))).collect();
        if known.len() < labels.len() {
            self.shared.ledger().counts.skipped += 1;
            return;
        }
        let all = |stage: Stage| known.iter().all(|(_, (_, s))| s.surely(&stage));
        let none = known.iter().any(|(_, (_, s))| s.known().is_some_and(|stage| *stage != Stage::Related));
        let grouped = labels.iter().any(|label| self.shared.ledger().sessions[label].group.is_some());
        let allowed = match () {
            () if none => Some(false),
            () if all(Stage::Related) && !grouped => Some(true),
            () => None,
        };
        let activations =
            known.iter().map(|(_, (id, _))| Activation { session: *id, name: None, offline }).collect();
        self.begin_activation(labels, true, offline);
        let told = self.ask(self.array.session_activate(activations)).await;
        self.judge("activate", allowed, &told);
        self.end_activation(labels, &told, offline).await;
    }

    async fn process(&self, group: &str, one_by_one: bool) {
        let Some(number) = self.shared.ledger().groups.get(group).copied() else { return };
        let waits = |(_, session): &(&String, &Session)| {
            session.group.as_deref() == Some(group) && session.stage.may_be(&Stage::Related)
        };
        let labels: Vec<String> =
            self.shared.ledger().sessions.iter().filter(waits).map(|(label, _)| label.clone()).collect();
        let mode = if one_by_one { GroupMode::OneByOne } else { GroupMode::Synchronous };
        let standards = self.standards_of(&labels);
        self.claim(&standards, &[]).await;
        self.begin_activation(&labels, !one_by_one, false);
        let told = self.ask(self.array.group_process(number, mode, Vec::new())).await;
        self.end_activation(&labels, &told, false).await;
        self.shared.ledger().unclaim(&standards, &[]);
    }

    /// Takes devices, see [`Ledger::claim`](crate::ledger::Ledger::claim).
    pub(super) async fn claim(&self, shared: &[String], alone: &[String]) {
        while !self.shared.ledger().claim(shared, alone) {
            sleep(Duration::from_millis(1)).await;
        }
    }

    fn standards_of(&self, labels: &[String]) -> Vec<String> {
        let ledger = self.shared.ledger();
        let standards: BTreeSet<_> =
            labels.iter().filter_map(|label| Some(ledger.sessions.get(label)?.standard.clone())).collect();
        standards.into_iter().collect()
    }

    fn begin_activation(&self, labels: &[String], one_instant: bool, offline: bool) {
        let mut ledger = self.shared.ledger();
        for label in labels {
            ledger.session_changes(label, Some(Stage::Active));
            let shown_by = ledger.sessions.get(label).and_then(|session| session.shown_by.latest().clone());
            if let Some(device) = shown_by {
                ledger.device_changes(&device, |device| device.online.also(!offline));
            }
        }
        ledger.cut_begins(labels, one_instant);
    }

    async fn end_activation(&self, labels: &[String], told: &Told<Vec<SessionInfo>>, offline: bool) {
        let mut answered = Vec::new();
        {
            let mut ledger = self.shared.ledger();
            for label in labels {
                let Some(session) = ledger.sessions.get(label) else { continue };
                let shown_by = session.shown_by.latest().clone();
                let is_active = match told {
                    Told::Done(infos) => infos.iter().any(|info| Some(info.id) == session.id),
                    _ => false,
                };
                if is_active {
                    ledger.cut_happened(label);
                    answered.push(label.clone());
                }
                if let Some(device) = shown_by {
                    ledger.device_changed(&device, |device| {
                        if is_active {
                            device.online = Maybe::is(!offline);
                        }
                    });
                }
            }
        }
        let done = matches!(told, Told::Done(_));
        self.stage_after(labels, told, Stage::Active, |session, label| {
            // A group is processed though one of its sessions was not ready.
            if done && !answered.iter().any(|a| a == label) {
                session.stage = Maybe::is(Stage::Related);
            }
        })
        .await;
        let open = |name: &String| {
            self.shared.ledger().devices.get(name).is_some_and(|device| device.online.known().is_none())
        };
        let names: Vec<String> = self.shared.ledger().devices.keys().cloned().collect();
        if !done && names.iter().any(open) {
            self.settle().await;
        }
    }

    async fn deactivate(&self, label: &str) {
        let Some((id, stage)) = self.session(label) else { return };
        let (allowed, call) = (stage.known().map(|stage| *stage == Stage::Active), self.begin_end(label));
        self.shared.ledger().session_changes(label, Some(Stage::Deactivated));
        let told = self.ask(self.array.session_deactivate(id)).await;
        let allowed = allowed.filter(|_| !self.shared.ledger().excuses.full && !self.may_be_in_use(label));
        self.judge("deactivate", allowed, &told);
        let mut span = None;
        if let Told::Done(_) = told {
            span = Some(Span { call, answer: self.shared.ledger().history.tick() });
        }
        self.stage_after(&[label.into()], &told, Stage::Deactivated, |session, _| {
            session.deactivated = span.or(session.deactivated);
        })
        .await;
    }

    /// Whether a restore may still need a session, or have its device still changed.
    fn may_be_in_use(&self, label: &str) -> bool {
        let ledger = self.shared.ledger();
        let session = ledger.sessions.get(label);
        session.is_some_and(|s| s.lent != Lent::No || ledger.restored.contains(&s.standard))
    }

    /// The deactivation of a session is called.
    fn begin_end(&self, label: &str) -> Moment {
        let mut ledger = self.shared.ledger();
        let call = ledger.history.tick();
        if let Some(session) = ledger.sessions.get_mut(label)
            && session.deactivated.is_none()
        {
            session.deactivated = Some(Span { call, answer: NEVER });
        }
        call
    }

    async fn remove(&self, label: &str) {
        let Some((id, stage)) = self.session(label) else { return };
        self.shared.ledger().session_changes(label, Some(Stage::Gone));
        let told = self.ask(self.array.session_remove(id)).await;
        let allowed = stage.known().map(|stage| *stage != Stage::Gone);
        // A session on its way out may be removed again, or be unknown.
        let allowed = allowed.filter(|allowed| *allowed && !self.may_be_in_use(label));
        self.judge("remove", allowed, &told);
        self.stage_after(&[label.into()], &told, Stage::Gone, |_, _| {}).await;
    }

    /// A session's number and where it stands, if it ever had a number.
    pub(super) fn session(&self, label: &str) -> Option<(u32, Maybe<Stage>)> {
        let mut ledger = self.shared.ledger();
        let found = ledger.sessions.get(label).and_then(|session| Some((session.id?, session.stage.clone())));
        if found.is_none() {
            ledger.counts.skipped += 1;
        }
        found
    }

    /// Notes where sessions stand after a command, and finds out if that is not known.
    pub(super) async fn stage_after<T>(
        &self,
        labels: &[String],
        told: &Told<T>,
        target: Stage,
        mut change: impl FnMut(&mut Session, &str),
    ) {
        for label in labels {
            self.shared.ledger().session_changed(label, |session| {
                match told {
                    Told::Done(_) => session.stage = Maybe::is(target),
                    Told::Refused(_) | Told::Unasked => {
                        let mut stages = session.stage.all().iter().filter(|stage| **stage != target);
                        if let (Some(stage), None) = (stages.next(), stages.next()) {
                            session.stage = Maybe::is(*stage);
                        }
                    }
                    Told::Unknown => {}
                }
                change(session, label);
            });
        }
        let open = labels.iter().any(|label| {
            self.shared.ledger().sessions.get(label).is_some_and(|session| session.stage.known().is_none())
        });
        if matches!(told, Told::Unknown) || open {
            self.settle().await;
        }
        if target == Stage::Active {
            self.shared.ledger().cut_ended(labels);
        }
    }
}
