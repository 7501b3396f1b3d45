//! The running array: the firmware behind its lock, and where its effects go.
//!
//! Whoever has an event calls [`Array::step`]: it takes the lock, steps, hands replies, answers and commits to their
//! queues, lets go of the lock, and gives back the disk operations, which the caller then runs itself, in its own
//! task. So host I/O never changes tasks, and what is queued under the lock cannot be overtaken. There is one lock;
//! nothing waits while holding it.
//!
//! A connection's task takes the replies to its own requests straight from the step: by its own inbox it would wake
//! itself while it runs, and tokio takes a task that does for one that another thread may well continue.
//!
//! Requests outlive the connection that caused them: its task runs their disk operations to the end and steps with the
//! results, whether its client is there or not. Once the firmware asked for a reload, steps do nothing but count the
//! operations that end; the firmware is given up when none is left, for a late write of it could hit a track that the
//! next one has given to somebody else.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::Instant;
use tracing::{info, warn};
use twintrack_core::{Change, PeerId, UnitSeq};
use twintrack_link::manage::{Answer, Command, Refusal, RefusalCode, TrackList};
use twintrack_link::nbd::ContextQuestion;
use twintrack_link::remote::Message;

use super::metrics::Counters;
use super::nbd::{ALL_PAYLOAD_BYTES_MAX, Budget};
use super::remote::{Dialling, LinkLog, Mailbox};
use super::stores::{DiskWork, Stores};
use crate::firmware::{
    AttachError, CallId, ConnId, DiskError, Effect, Event, ExportInfo, Firmware, HostError, LinkId, Reply,
    Segment, StatusOf, Tag,
};

/// Commands that are not answered yet. They go on when who sent them is gone, so that his place does not bound them;
/// those who are there, one each, come to half of it.
const CALLS_MAX: usize = 1024;
/// How many tracks are looked up in one go, while all else waits.
const CHECKED_TRACKS_MAX: usize = 4096;

/// One array while it is up, until it ends or reloads.
pub(super) struct Array<D> {
    state: Mutex<State>,
    stores: Arc<Stores<D>>,
    /// What `now` counts from.
    started: Instant,
    /// Tells the engine that the deadline is nearer, or that the phase changed, or that the last operation ended.
    wake: Notify,
    /// Disk operations of those who cannot run them themselves. As many as the firmware has under way.
    work: mpsc::UnboundedSender<DiskWork>,
    /// As many as the firmware has under way.
    commits: mpsc::UnboundedSender<Commit>,
    /// One a peer at most.
    dials: mpsc::UnboundedSender<Dialling>,
    /// What went wrong with links.
    link_log: LinkLog,
    /// What the payload of all host connections has to fit in.
    payload: Budget,
}

/// Changes to be made durable.
#[derive(Debug)]
pub(super) struct Commit {
    pub(super) upto: UnitSeq,
    pub(super) changes: Vec<Change>,
}

/// What the engine of an [`Array`] is fed by.
pub(super) struct Queues {
    pub(super) work: mpsc::UnboundedReceiver<DiskWork>,
    pub(super) commits: mpsc::UnboundedReceiver<Commit>,
}

/// What a host connection is told.
#[derive(Debug)]
pub(super) enum ToHost {
    /// Its attach was answered.
    Attached(Result<ExportInfo, AttachError>),
    /// One of its requests was answered.
    Reply(Tag, Result<Reply, HostError>),
    /// Take no more requests; end when those under way are answered.
    Close,
}

/// What a step leaves to its caller.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// The connection whose replies the caller takes himself; those of others go to their inboxes.
    conn: Option<ConnId>,
    /// The link whose messages the caller looks for himself: for them he is not woken.
    pub(super) link: Option<LinkId>,
    /// Disk operations that the caller has to run to their end.
    pub(super) work: Vec<DiskWork>,
    /// The task of a link that is not the caller's was given something to send.
    pub(super) told_link: bool,
    /// Replies to `conn`, in their order.
    pub(super) replies: Vec<(Tag, Result<Reply, HostError>)>,
}

impl Outcome {
    /// For the task of a connection.
    pub(super) fn of(conn: ConnId) -> Self {
        Self { conn: Some(conn), ..Self::default() }
    }

    /// For who takes no replies, with what is still to be run.
    pub(super) fn left(work: Vec<DiskWork>) -> Self {
        Self { work, ..Self::default() }
    }
}

/// An attached connection, or one that is about to be. [`Array::detach`] ends it.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) conn: ConnId,
    /// Ends when the array goes down. Holds at most the replies to what is in flight, as far as others than its own
    /// task stepped.
    pub(super) inbox: mpsc::UnboundedReceiver<ToHost>,
}

/// What the engine goes by.
#[derive(Debug)]
pub(super) struct Status {
    /// No event is of interest any more.
    pub(super) down: bool,
    /// No disk operation is under way.
    pub(super) idle: bool,
    /// When a timer event is due.
    pub(super) deadline: Option<Instant>,
}

/// Whether the array takes requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Up,
    /// Ending: what is under way is answered, nothing new is taken.
    Closing,
    /// Nothing is answered any more.
    Down,
}

struct State {
    firmware: Firmware,
    phase: Phase,
    counters: Counters,
    /// Kept for its capacity.
    effects: Vec<Effect>,
    hosts: BTreeMap<ConnId, mpsc::UnboundedSender<ToHost>>,
    /// Those that the firmware has not closed.
    links: BTreeMap<LinkId, Arc<Mailbox>>,
    calls: BTreeMap<CallId, oneshot::Sender<Result<Answer, Refusal>>>,
    track_reads: BTreeMap<CallId, oneshot::Sender<Result<Vec<Segment>, Refusal>>>,
    /// Who waits for [`Effect::Stopped`].
    stopping: Option<oneshot::Sender<Result<(), DiskError>>>,
    /// Numbers connections and calls.
    last_number: u64,
    /// Disk operations that were handed out and have not ended.
    operations: usize,
    /// The deadline that the engine knows.
    armed: Option<Duration>,
}

impl<D> Array<D> {
    pub(super) fn new(
        firmware: Firmware,
        stores: Arc<Stores<D>>,
    ) -> (Arc<Self>, Queues, mpsc::UnboundedReceiver<Dialling>) {
        let (work, work_queue) = mpsc::unbounded_channel();
        let (dials, dial_queue) = mpsc::unbounded_channel();
        let (commits, commit_queue) = mpsc::unbounded_channel();
        let armed = firmware.next_deadline();
        let state = Mutex::new(State {
            firmware,
            phase: Phase::Up,
            counters: Counters::default(),
            effects: Vec::new(),
            hosts: BTreeMap::new(),
            links: BTreeMap::new(),
            calls: BTreeMap::new(),
            track_reads: BTreeMap::new(),
            stopping: None,
            last_number: 0,
            operations: 0,
            armed,
        });
        let array = Self {
            state,
            stores,
            started: Instant::now(),
            wake: Notify::new(),
            work,
            commits,
            dials,
            link_log: LinkLog::default(),
            payload: Budget::new(ALL_PAYLOAD_BYTES_MAX),
        };
        (Arc::new(array), Queues { work: work_queue, commits: commit_queue }, dial_queue)
    }

    /// Steps the firmware and appends what the caller has to do.
    pub(super) fn step(&self, event: Event, outcome: &mut Outcome) {
        self.step_locked(&mut self.lock(), event, outcome);
    }

    fn step_locked(&self, state: &mut State, event: Event, outcome: &mut Outcome) {
        if let Event::Disk { .. } = event {
            state.operations -= 1;
            if state.phase == Phase::Down && state.operations == 0 {
                self.wake.notify_one();
            }
        }
        if state.phase == Phase::Down {
            return;
        }
        state.counters.event(&event);
        let mut effects = std::mem::take(&mut state.effects);
        // Under the lock, so that time never goes back from one step to the next.
        let now = self.started.elapsed();
        state.firmware.step(now, event, &mut effects);
        for effect in effects.drain(..) {
            if !self.dispatch(state, effect, outcome) {
                break;
            }
        }
        state.effects = effects;
        let deadline = state.firmware.next_deadline();
        if deadline.is_some_and(|due| state.armed.is_none_or(|armed| due < armed)) {
            self.wake.notify_one();
        }
        state.armed = deadline;
    }

    /// `false`: nothing of the list counts any more.
    fn dispatch(&self, state: &mut State, effect: Effect, outcome: &mut Outcome) -> bool {
        state.counters.effect(&effect);
        let effect = match DiskWork::from_effect(effect) {
            Ok(operation) => {
                state.operations += 1;
                outcome.work.push(operation);
                return true;
            }
            Err(effect) => effect,
        };
        // A receiver that is gone was a client that is gone.
        match effect {
            Effect::Attached { conn, result } => state.tell(conn, ToHost::Attached(result)),
            Effect::Reply { conn, tag, result } if outcome.conn == Some(conn) => {
                outcome.replies.push((tag, result));
            }
            Effect::Reply { conn, tag, result } => state.tell(conn, ToHost::Reply(tag, result)),
            Effect::Answer { call, result } => {
                if let Some(caller) = state.calls.remove(&call) {
                    let _ = caller.send(result);
                }
            }
            Effect::TrackRead { call, result } => {
                if let Some(caller) = state.track_reads.remove(&call) {
                    let _ = caller.send(result);
                }
            }
            Effect::Stopped { result } => {
                if let Some(caller) = state.stopping.take() {
                    let _ = caller.send(result);
                }
            }
            Effect::Commit { upto, changes } => {
                let _ = self.commits.send(Commit { upto, changes });
            }
            Effect::Send { link, message } => {
                // A link that is gone is told of as such.
                if let Some(mailbox) = state.links.get(&link) {
                    let is_other = outcome.link != Some(link);
                    outcome.told_link |= is_other;
                    mailbox.put(message, is_other);
                }
            }
            Effect::CloseLink { link } => {
                if let Some(mailbox) = state.links.remove(&link) {
                    mailbox.close(outcome.link != Some(link));
                }
            }
            Effect::Dial { peer, endpoint } => {
                let _ = self.dials.send(Dialling { peer, endpoint });
            }
            Effect::Reload => {
                warn!("the outcome of a commit is unknown: reloading from the metadata");
                self.go_down(state);
                return false;
            }
            Effect::Read { .. } | Effect::Write { .. } | Effect::Discard { .. } | Effect::Sync { .. } => {}
        }
        true
    }

    /// Steps, and leaves the disk operations to the engine.
    pub(super) fn step_aside(&self, event: Event) {
        let mut outcome = Outcome::default();
        self.step(event, &mut outcome);
        for operation in outcome.work {
            let _ = self.work.send(operation);
        }
    }

    /// What the payload of all host connections has to fit in.
    pub(super) fn payload(&self) -> Budget {
        self.payload.clone()
    }

    /// The stores, for running disk operations.
    pub(super) fn stores(&self) -> Arc<Stores<D>> {
        Arc::clone(&self.stores)
    }

    /// Asks for a device. `None`: the array takes no new connections. The answer comes to the inbox.
    pub(super) fn attach(&self, export: String) -> Option<Host> {
        let (sender, inbox) = mpsc::unbounded_channel();
        let conn = {
            let mut state = self.lock();
            if state.phase != Phase::Up {
                return None;
            }
            let conn = ConnId(state.number());
            state.hosts.insert(conn, sender);
            conn
        };
        self.step_aside(Event::Attach { conn, export });
        Some(Host { conn, inbox })
    }

    /// Ends an attached connection. What it had asked for is carried out all the same.
    pub(super) fn detach(&self, conn: ConnId) {
        self.lock().hosts.remove(&conn);
        self.step_aside(Event::Detach { conn });
    }

    /// A connection to another array: one that was dialled for a peer, or that came by itself. `None`: the array takes
    /// no new ones. [`Self::close_link`] ends it.
    pub(super) fn open_link(
        &self,
        peer: Option<PeerId>,
        outcome: &mut Outcome,
    ) -> Option<(LinkId, Arc<Mailbox>)> {
        let mut state = self.lock();
        if state.phase != Phase::Up {
            return None;
        }
        let (link, mailbox) = (LinkId(state.number()), Arc::new(Mailbox::default()));
        state.links.insert(link, Arc::clone(&mailbox));
        outcome.link = Some(link);
        self.step_locked(&mut state, Event::LinkOpened { link, peer }, outcome);
        Some((link, mailbox))
    }

    /// What came over a link. `false`: it is closed, and nothing of it counts any more.
    pub(super) fn hear(&self, link: LinkId, message: Message, outcome: &mut Outcome) -> bool {
        let mut state = self.lock();
        let open = state.links.contains_key(&link);
        if open {
            self.step_locked(&mut state, Event::LinkMessage { link, message }, outcome);
        }
        open
    }

    /// A link has ended. If it was the firmware that closed it, it knows.
    pub(super) fn close_link(&self, link: LinkId, why: String, outcome: &mut Outcome) {
        let mut state = self.lock();
        if state.links.remove(&link).is_some() {
            self.step_locked(&mut state, Event::LinkClosed { link, why }, outcome);
        }
    }

    /// A peer could not be connected to.
    pub(super) fn dial_failed(&self, peer: PeerId, why: String) {
        self.step_aside(Event::DialFailed { peer, why });
    }

    /// What went wrong with links.
    pub(super) fn link_log(&self) -> &LinkLog {
        &self.link_log
    }

    /// The devices that hosts may attach to.
    pub(super) fn exports(&self) -> Vec<String> {
        self.lock().firmware.exports()
    }

    /// The metadata contexts of an export.
    pub(super) fn contexts(
        &self,
        question: &ContextQuestion,
    ) -> Result<Vec<(String, StatusOf)>, AttachError> {
        self.lock().firmware.contexts(question)
    }

    /// For Prometheus: how things stand.
    pub(super) fn metrics(&self) -> String {
        let state = self.lock();
        state.counters.render(&state.firmware, state.hosts.len(), &self.stores)
    }

    /// Carries out a command.
    pub(super) async fn command(&self, wall_ms: u64, command: Command) -> Result<Answer, Refusal> {
        let (sender, answer) = oneshot::channel();
        let call = self.register(|state, call| drop(state.calls.insert(call, sender)))?;
        info!(call = call.0, command = %short(&command), "command");
        self.step_aside(Event::Manage { call, wall_ms, command });
        let answer = answer.await.unwrap_or_else(|_| Err(went_down()));
        if let Err(refusal) = &answer {
            info!(call = call.0, code = ?refusal.code, reason = %refusal.reason, "command refused");
        }
        answer
    }

    /// Whether all of these are changed tracks of a deactivated session (D15).
    pub(super) async fn check_tracks(&self, session: u32, tracks: &TrackList) -> Result<(), Refusal> {
        let mut tracks = tracks.tracks();
        loop {
            let some: Vec<u32> = tracks.by_ref().take(CHECKED_TRACKS_MAX).collect();
            if some.is_empty() {
                return Ok(());
            }
            self.lock().firmware.check_tracks(session, &some)?;
            tokio::task::yield_now().await;
        }
    }

    /// Reads one track of a deactivated session.
    pub(super) async fn read_track(&self, session: u32, track: u32) -> Result<Vec<Segment>, Refusal> {
        let (sender, answer) = oneshot::channel();
        let call = self.register(|state, call| drop(state.track_reads.insert(call, sender)))?;
        self.step_aside(Event::ReadTrack { call, session, track });
        answer.await.unwrap_or_else(|_| Err(went_down()))
    }

    fn register(&self, insert: impl FnOnce(&mut State, CallId)) -> Result<CallId, Refusal> {
        let mut state = self.lock();
        if state.phase != Phase::Up {
            let reason = "the array is going down: nothing was done".to_owned();
            return Err(Refusal { code: RefusalCode::Unavailable, reason });
        }
        if state.calls.len() + state.track_reads.len() >= CALLS_MAX {
            let reason = format!(
                "{CALLS_MAX} commands are under way: nothing was done; try again when some are over, and see \
                 whether the stores and the array's folder still take what is written"
            );
            return Err(Refusal { code: RefusalCode::Unavailable, reason });
        }
        let call = CallId(state.number());
        insert(&mut state, call);
        Ok(call)
    }

    /// Takes nothing new; tells all connections to end.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        if state.phase == Phase::Up {
            state.phase = Phase::Closing;
            for host in state.hosts.values() {
                let _ = host.send(ToHost::Close);
            }
        }
    }

    /// Makes everything that was answered durable, after [`Self::close`].
    pub(super) async fn flush_all(&self) -> Result<(), DiskError> {
        let (sender, stopped) = oneshot::channel();
        self.lock().stopping = Some(sender);
        self.step_aside(Event::Stop);
        stopped.await.unwrap_or(Err(DiskError::Failed))
    }

    /// Gives everything up: nothing is answered any more.
    pub(super) fn halt(&self) {
        self.go_down(&mut self.lock());
    }

    fn go_down(&self, state: &mut State) {
        state.phase = Phase::Down;
        // Everyone who waits learns it by the end of his queue.
        state.hosts.clear();
        for mailbox in std::mem::take(&mut state.links).into_values() {
            mailbox.close(true);
        }
        state.calls.clear();
        state.track_reads.clear();
        state.stopping = None;
        self.wake.notify_one();
    }

    /// For the engine: how things stand.
    pub(super) fn status(&self) -> Status {
        let state = self.lock();
        Status {
            down: state.phase == Phase::Down,
            idle: state.operations == 0,
            deadline: state.armed.map(|due| self.started + due),
        }
    }

    /// For the engine: waits until [`Self::status`] may have changed.
    pub(super) async fn changed(&self) {
        self.wake.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic in a step leaves a state that nobody may build on: let it spread.
        self.state.lock().expect("the firmware panicked")
    }
}

impl State {
    fn number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    fn tell(&self, conn: ConnId, message: ToHost) {
        if let Some(host) = self.hosts.get(&conn) {
            let _ = host.send(message);
        }
    }
}

fn went_down() -> Refusal {
    let reason =
        "the array went down before it could answer: whether the command was carried out is not known";
    Refusal { code: RefusalCode::Unavailable, reason: reason.to_owned() }
}

/// For the log: a command in at most 200 bytes.
fn short(command: &Command) -> String {
    let mut text = format!("{command:?}");
    text.truncate(text.floor_char_boundary(200));
    text
}
