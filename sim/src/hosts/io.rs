//! Host I/O: connections to exports, and one operation at a time told to the oracles.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{sleep, timeout};
use twintrack_host::{NbdClient, NbdError};
use twintrack_link::manage::SessionInfoState;
use twintrack_link::nbd::Errno;

use super::operator::Told;
use super::{Host, Phase};
use crate::ledger::Layout;
use crate::oracle::{
    Content, Moment, Violation, WriteId, check_answered_in_time, refused_instead, served_by_another,
};
use crate::plan::{Act, Op};

/// The connections of one task: one a device.
pub(super) struct Connections {
    host: Host,
    /// With the moment when the connection was begun.
    clients: BTreeMap<String, (NbdClient, Moment)>,
}

/// How an operation ended.
enum End<T> {
    Done(T),
    /// The array said no.
    Failed(NbdError),
    /// Given up, or cut off.
    Unknown(Option<NbdError>),
}

/// An operation on its way.
struct Io {
    host: Host,
    client: NbdClient,
    device: String,
    layout: Layout,
    give_up_ms: u64,
    since_ms: u64,
    call: Moment,
    /// When the connection was begun: what changed since excuses an error, too.
    attached: Moment,
}

impl Connections {
    pub(super) fn new(host: Host) -> Self {
        Self { host, clients: BTreeMap::new() }
    }

    /// Leaves a device.
    pub(super) fn leave(&mut self, device: &str) {
        self.clients.remove(device);
    }

    /// Connects if need be, and gets an operation ready. `None`: it cannot be done now.
    pub(super) async fn prepare(&mut self, op: Op) -> Option<impl Future<Output = ()> + use<>> {
        let device = op.act.device().unwrap_or_default().to_string();
        let site = self.host.shared.ledger().site_of(&device).unwrap_or(op.array);
        let client = self.connected(&device).await;
        if let Some((client, _)) = &client {
            self.host.at(site).try_spare(&device, client, &op.act).await;
        }
        let mut ledger = self.host.shared.ledger();
        let (Some((client, attached)), Some(layout)) = (client, ledger.layout(&device)) else {
            ledger.counts.skipped += 1;
            return None;
        };
        let Some(act) = clipped(op.act, client.info().size_bytes) else {
            ledger.counts.skipped += 1;
            return None;
        };
        *ledger.flying.entry(device.clone()).or_default() += 1;
        let io = Io {
            host: self.host.at(site),
            client,
            device,
            layout,
            give_up_ms: op.give_up_ms,
            since_ms: 0,
            call: 0,
            attached,
        };
        Some(io.run(act))
    }

    /// A connection to a device; waits while the array is down.
    pub(super) async fn client(&mut self, device: &str) -> Option<NbdClient> {
        Some(self.connected(device).await?.0)
    }

    async fn connected(&mut self, device: &str) -> Option<(NbdClient, Moment)> {
        if let Some(connected) = self.clients.get(device).filter(|(client, _)| !client.is_closed()) {
            return Some(connected.clone());
        }
        self.clients.remove(device);
        let shared = self.host.shared.clone();
        loop {
            let call = shared.ledger().history.tick();
            let (name, site) = {
                let ledger = shared.ledger();
                let device = ledger.devices.get(device)?;
                (device.name.latest().clone(), device.site)
            };
            match self.host.at(site).attach(&name).await {
                Ok(client) => {
                    self.host.note(format_args!("attached to {device}, {} bytes", client.info().size_bytes));
                    self.clients.insert(device.into(), (client.clone(), call));
                    return Some((client, call));
                }
                Err(NbdError::Handshake(error)) => {
                    let mut ledger = shared.ledger();
                    if ledger.is_steady(device, call) && !ledger.excuses.disks {
                        let what = format_args!("{device} cannot be attached to: {error}");
                        ledger.hold::<()>(Err(Violation::new("errors", what)));
                    }
                    return None;
                }
                Err(_) => sleep(Duration::from_millis(4)).await,
            }
            if !shared.ledger().violations.is_empty() || shared.in_phase(Phase::Done) {
                return None;
            }
        }
    }
}

impl Io {
    async fn run(mut self, act: Act) {
        let (shared, device) = (self.host.shared.clone(), self.device.clone());
        self.carry_out(act).await;
        if let Some(count) = shared.ledger().flying.get_mut(&device) {
            *count -= 1;
        }
    }

    async fn carry_out(&mut self, act: Act) {
        self.since_ms = self.host.shared.timeline.now_ms();
        let track = {
            let mut ledger = self.host.shared.ledger();
            // Since it was got ready the device may have become another volume.
            let Some(layout) = ledger.layout(&self.device) else {
                ledger.counts.skipped += 1;
                return;
            };
            self.layout = layout;
            ledger.track_bytes
        };
        match act {
            Act::Read { offset, length, .. } => self.read(offset, length).await,
            Act::Status { offset, length, .. } => self.status(offset, length).await,
            Act::Flush { .. } => self.flush().await,
            Act::Write { offset, length, fua, .. } => {
                let writes = self.begin(offset, u64::from(length), Content::Data, fua, "write");
                let data: Vec<_> = {
                    let ledger = self.host.shared.ledger();
                    writes.iter().map(|write| ledger.history.payload(*write)).collect()
                };
                let client = self.client.clone();
                let end = self.end(client.write(offset, Bytes::from(data.concat()), fua)).await;
                self.wrote(&writes, &end);
            }
            Act::Zero { offset, length, no_hole, fua, .. } => {
                let writes = self.begin(offset, u64::from(length), Content::Zeros, fua, "zero");
                let client = self.client.clone();
                let end = self.end(client.write_zeroes(offset, length, no_hole, fua)).await;
                self.wrote(&writes, &end);
            }
            Act::Trim { offset, length, fua, .. } => {
                // Whole tracks become zeros; of the others nothing is promised.
                let (from, to) = (offset, offset + u64::from(length));
                let (first, last) = (from.next_multiple_of(track).min(to), to / track * track);
                let last = last.max(first);
                let mut promised = Vec::new();
                for (at, until, sure) in [(from, first, false), (first, last, true), (last, to, false)] {
                    if at < until {
                        let writes = self.begin(at, until - at, Content::Zeros, fua && sure, "trim");
                        promised.extend(writes.into_iter().filter(|_| sure));
                    }
                }
                let client = self.client.clone();
                let end = self.end(client.trim(offset, length, fua)).await;
                self.wrote(&promised, &end);
            }
            _ => {}
        }
    }

    /// To the oracles it is a write to each of the volumes that it is about.
    fn begin(&mut self, offset: u64, length: u64, content: Content, fua: bool, what: &str) -> Vec<WriteId> {
        let mut writes = Vec::new();
        for piece in self.layout.pieces(offset, length) {
            let history = &mut self.host.shared.ledger().history;
            let write = history.begin_write(piece.volume, piece.there, piece.length, content, fua);
            let fua = if fua { " fua" } else { "" };
            let (offset, length) = (piece.offset, piece.length);
            self.host.note(format_args!("#{} {what} {} {offset}+{length}{fua}", write.0, self.device));
            writes.push(write);
        }
        self.call = self.host.shared.ledger().history.tick();
        writes
    }

    fn wrote(&self, writes: &[WriteId], end: &End<()>) {
        if let (End::Done(()), Some(first)) = (end, writes.first()) {
            self.host.note(format_args!("#{} done", first.0));
            self.check_owner("a write");
            self.host.shared.ledger().pair_wrote(&self.device, self.call, &format!("write #{}", first.0));
            let mut ledger = self.host.shared.ledger();
            for write in writes {
                let ended = ledger.history.end_write(*write);
                ledger.hold(ended);
            }
        }
    }

    async fn read(&mut self, offset: u64, length: u32) {
        self.call = self.host.shared.ledger().history.tick();
        let client = self.client.clone();
        if let End::Done(bytes) = self.end(client.read(offset, length)).await {
            self.host.note(format_args!("read {} {offset}+{length}", self.device));
            self.check_owner("a read");
            let mut ledger = self.host.shared.ledger();
            if ledger.layout(&self.device).as_ref() != Some(&self.layout) {
                return;
            }
            if bytes.len() != length as usize {
                let what = format_args!("{} bytes were read instead of {length}", bytes.len());
                ledger.hold::<()>(Err(Violation::new("history", what)));
                return;
            }
            let mut left = &bytes[..];
            for piece in self.layout.pieces(offset, u64::from(length)) {
                let (bytes, rest) = left.split_at(piece.length as usize);
                let checked = ledger.history.end_read(piece.volume, piece.there, bytes, self.call);
                ledger.hold(checked);
                left = rest;
            }
        }
    }

    /// Something was carried out: not on a half that does not serve.
    fn check_owner(&self, what: &str) {
        let mut ledger = self.host.shared.ledger();
        if let Some(pair) = ledger.stands_by(&self.device, self.call) {
            ledger.hold::<()>(Err(served_by_another(&self.device, &pair, what)));
        }
    }

    async fn status(&mut self, offset: u64, length: u32) {
        if self.client.negotiated().allocation().is_none() {
            return;
        }
        self.call = self.host.shared.ledger().history.tick();
        let client = self.client.clone();
        let size = client.info().size_bytes;
        if let End::Done(extents) = self.end(client.block_status(offset, length)).await {
            let mut at = offset;
            let mut ledger = self.host.shared.ledger();
            if ledger.layout(&self.device).as_ref() != Some(&self.layout) {
                return;
            }
            for extent in extents {
                let until = (at + u64::from(extent.length)).min(size);
                let holes = if extent.is_zero() { until.saturating_sub(at) } else { 0 };
                for hole in self.layout.pieces(at, holes) {
                    let checked = ledger.history.end_hole(hole.volume, hole.there, hole.length, self.call);
                    ledger.hold(checked);
                }
                at = until;
            }
        }
    }

    async fn flush(&mut self) {
        self.call = self.host.shared.ledger().history.tick();
        let client = self.client.clone();
        if let End::Done(()) = self.end(client.flush()).await {
            self.host.note(format_args!("flushed {}", self.device));
            let mut ledger = self.host.shared.ledger();
            for volume in self.layout.volumes() {
                ledger.history.end_flush(volume, self.call);
            }
        }
    }

    /// Waits for the end of an operation, and judges an error.
    async fn end<T>(&self, answer: impl Future<Output = Result<T, NbdError>>) -> End<T> {
        let bound_ms = self.host.shared.deadlines.answer_ms;
        let patience_ms = if self.give_up_ms > 0 { self.give_up_ms } else { bound_ms + 1 };
        let end = match timeout(Duration::from_millis(patience_ms), answer).await {
            Ok(Ok(value)) => End::Done(value),
            Ok(Err(error @ NbdError::Remote { .. })) => End::Failed(error),
            Ok(Err(error)) => End::Unknown(Some(error)),
            Err(_) => End::Unknown(None),
        };
        self.judge(&end);
        if let End::Failed(NbdError::Remote { errno: Errno::NoSpace, .. }) = end {
            self.judge_refusal().await;
        }
        end
    }

    fn judge<T>(&self, end: &End<T>) {
        let bound_ms = self.host.shared.deadlines.answer_ms;
        let mut ledger = self.host.shared.ledger();
        match end {
            End::Done(_) => ledger.counts.done += 1,
            End::Failed(error) => {
                ledger.counts.failed += 1;
                self.host.note(format_args!("{}: {error}", self.device));
                if let NbdError::Remote { errno, .. } = error {
                    let lacking = *errno == Errno::NoSpace && ledger.excuses.full;
                    if !lacking && !ledger.excuses.disks && ledger.is_steady(&self.device, self.attached) {
                        let what = format_args!("{}: {error}, though nothing is wrong with it", self.device);
                        ledger.hold::<()>(Err(Violation::new("errors", what)));
                    }
                }
            }
            End::Unknown(Some(error)) => {
                ledger.counts.unknown += 1;
                self.host.note(format_args!("{}: {error}", self.device));
                if !ledger.excuses.connections && ledger.is_steady(&self.device, self.attached) {
                    let what = format_args!("{}: {error}, though no connection was cut", self.device);
                    ledger.hold::<()>(Err(Violation::new("errors", what)));
                }
            }
            End::Unknown(None) => {
                ledger.counts.unknown += 1;
                self.host.note(format_args!("{}: given up", self.device));
                if self.give_up_ms == 0 {
                    let until_ms = self.host.shared.timeline.now_ms();
                    let what = format!("I/O on {}", self.device);
                    let checked = check_answered_in_time(&what, self.since_ms, until_ms, bound_ms);
                    ledger.hold(checked);
                }
            }
        }
    }

    /// No room: rightly, if no session of the pool could have given way.
    async fn judge_refusal(&self) {
        let (epoch, keeping) = {
            let ledger = self.host.shared.ledger();
            (ledger.history.epoch(self.host.site), ledger.sessions_that_keep(&self.device, self.call))
        };
        if keeping.is_empty() {
            return;
        }
        // They may have failed meanwhile; what is active now was so then, unless the array crashed in between.
        let Told::Done(sessions) = self.host.ask(self.host.array.session_list(None)).await else { return };
        let mut ledger = self.host.shared.ledger();
        let active = |id: u32| sessions.iter().any(|s| s.id == id && s.state == SessionInfoState::Active);
        if let Some((_, label, track)) = keeping.iter().find(|(id, ..)| active(*id))
            && ledger.history.epoch(self.host.site) == epoch
        {
            ledger.hold::<()>(Err(refused_instead(&self.device, label, *track)));
        }
    }
}

/// The operation with its range cut to the device's size; `None`: nothing of it is left.
fn clipped(mut act: Act, size: u64) -> Option<Act> {
    match &mut act {
        Act::Read { offset, length, .. }
        | Act::Write { offset, length, .. }
        | Act::Trim { offset, length, .. }
        | Act::Zero { offset, length, .. }
        | Act::Status { offset, length, .. } => {
            let left = size.checked_sub(*offset).filter(|left| *left > 0)?;
            *length = left.min(u64::from(*length)) as u32;
        }
        _ => {}
    }
    Some(act)
}
