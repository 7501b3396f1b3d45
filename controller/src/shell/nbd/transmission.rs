//! Requests in, replies out, and the disk operations between them, all in the connection's own task.
//!
//! Nothing in the loop waits for the socket alone: a client that does not read its replies holds up itself, up to its
//! limits, and nobody else. When the client is gone, its requests are carried to their end, and keep the place and the
//! payload of their connection until then: else who comes, asks for much and goes could have any number under way.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::time::Instant;
use tracing::debug;
use twintrack_link::nbd::{
    Content, Cookie, Errno, Incoming, Negotiated, ReplyEncoder, Request, RequestDecoder, StatusExtent,
    TransmissionError,
};

use super::share::Share;
use super::{CONNECTION_PAYLOAD_BYTES_MAX, OWN_BYTES, REQUESTS_MAX, STALL_TIMEOUT};
use crate::firmware::{ConnId, Event, Extent, HostError, HostOp, Reply, Segment, StatusOf, Tag};
use crate::shell::array::{Array, Host, Outcome, ToHost};
use crate::shell::outbox::Outbox;
use crate::shell::seams::Disk;
use crate::shell::stores::{Operations, perform};

/// What is allocated at a time for what a client sends.
const BUFFER_BYTES: usize = 64 << 10;
/// The same once it sends large writes: most of them lie in one piece in it, and need not be moved.
const LARGE_BUFFER_BYTES: usize = 1 << 20;
/// The room that is left when more is allocated.
const SPARE_BYTES: usize = 4 << 10;
/// With so much to write, or about to be read, that goes before more requests: what was read is still in the
/// processor's cache when the socket takes it. With a client that asks for much at a time, all of it would else be read
/// into cold memory while the socket is full. Less of it is left to gather, for one system call. A disk that takes its
/// time gets more requests all the same.
const WRITE_FIRST_BYTES: usize = 256 << 10;

/// Why a transmission ended.
#[derive(Debug)]
pub(super) enum End {
    /// The client is done, or gone.
    Client,
    /// The array ends, or reloads.
    Array,
    /// The client reads no replies, or does not send the rest of a request.
    Stalled,
    Protocol(TransmissionError),
    Socket(io::Error),
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client => f.write_str("by the client"),
            Self::Array => f.write_str("by the array"),
            Self::Stalled => write!(f, "it took and sent nothing for {} s", STALL_TIMEOUT.as_secs()),
            Self::Protocol(error) => write!(f, "protocol error: {error}"),
            Self::Socket(error) => write!(f, "socket: {error}"),
        }
    }
}

/// Serves an attached connection; detaches it; ends when its last request was answered, though perhaps to nobody, and
/// its last disk operation has ended.
pub(super) async fn run<D, S>(
    array: Arc<Array<D>>,
    stream: S,
    mut host: Host,
    (negotiated, statuses): (&Negotiated, Arc<[StatusOf]>),
    mut input: BytesMut,
    outbox: Outbox,
) -> End
where
    D: Disk,
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut reader, mut writer) = tokio::io::split(stream);
    let mut transmission = Transmission::new(Arc::clone(&array), host.conn, negotiated, statuses, outbox);
    let mut operations = Operations::new();
    let stall = tokio::time::sleep(STALL_TIMEOUT);
    tokio::pin!(stall);
    let end = loop {
        let more = match transmission.decode(&mut input) {
            Ok(more) => more,
            Err(error) => break End::Protocol(error),
        };
        if std::mem::take(&mut transmission.outcome.told_link) {
            // First the link's task sends it: what the other array does is to go on while this one's disk is busy, perhaps
            // right here, with a sync that is short.
            tokio::task::yield_now().await;
        }
        // What can be done at once is done before more is taken.
        loop {
            for operation in transmission.outcome.work.drain(..) {
                operations.push(perform(array.stores(), operation));
            }
            match operations.next().now_or_never() {
                Some(Some(event)) => transmission.step(event),
                _ => break,
            }
        }
        if transmission.is_over() {
            break if transmission.told_to_close { End::Array } else { End::Client };
        }
        transmission.occupy(&input);
        transmission.make_room(&mut input);
        if transmission.outbox.bytes() >= WRITE_FIRST_BYTES
            && let Some(result) = transmission.outbox.write(&mut writer).now_or_never()
        {
            match result {
                Ok(()) => transmission.progress = Instant::now(),
                Err(error) => break End::Socket(error),
            }
        }
        // Nothing else would wake it for a request that has come whole.
        if more && transmission.wants_input() {
            continue;
        }
        tokio::select! {
            biased;
            Some(event) = operations.next() => transmission.step(event),
            message = host.inbox.recv() => match message {
                Some(message) => transmission.hear(message),
                None => break End::Array,
            },
            result = transmission.outbox.write(&mut writer), if !transmission.outbox.is_empty() => {
                if let Err(error) = result {
                    break End::Socket(error);
                }
                transmission.progress = Instant::now();
            }
            result = reader.read_buf(&mut input), if transmission.wants_input() => match result {
                Ok(0) => transmission.reading = false,
                Ok(_) => transmission.received(),
                Err(error) => break End::Socket(error),
            },
            () = transmission.share.granted(), if transmission.share.is_asking() => {}
            () = stall.as_mut(), if transmission.is_client_due() => {
                let due = transmission.progress + STALL_TIMEOUT;
                if due <= Instant::now() {
                    break End::Stalled;
                }
                stall.as_mut().reset(due);
            }
        }
    };
    drop((reader, writer, input));
    transmission.leave();
    // The inbox ends when the array goes down, which is bounded.
    while !transmission.pending.is_empty() {
        for operation in transmission.outcome.work.drain(..) {
            operations.push(perform(array.stores(), operation));
        }
        tokio::select! {
            biased;
            Some(event) = operations.next() => transmission.step(event),
            message = host.inbox.recv() => match message {
                Some(message) => transmission.hear(message),
                None => break,
            },
        }
    }
    let mut outcome = Outcome::left(std::mem::take(&mut transmission.outcome.work));
    array.detach(host.conn);
    loop {
        for operation in outcome.work.drain(..) {
            operations.push(perform(array.stores(), operation));
        }
        match operations.next().await {
            Some(event) => array.step(event, &mut outcome),
            None => return end,
        }
    }
}

struct Transmission<D> {
    array: Arc<Array<D>>,
    conn: ConnId,
    decoder: RequestDecoder,
    encoder: ReplyEncoder,
    /// What each metadata context means, and its number.
    statuses: Arc<[StatusOf]>,
    contexts: Vec<u32>,
    /// Whether more requests are taken.
    reading: bool,
    told_to_close: bool,
    /// The client takes no replies any more.
    left: bool,
    pending: BTreeMap<Tag, Pending>,
    /// What `pending` occupies.
    pending_bytes: usize,
    /// What it may occupy of what all connections have together.
    share: Share,
    /// Whether that is enough to take more.
    has_share: bool,
    /// A request that waits until it is.
    held: Option<(Cookie, Request)>,
    last_tag: u64,
    outbox: Outbox,
    /// When the client last took a byte, or had none to take.
    progress: Instant,
    /// Holds disk operations that are to be started.
    outcome: Outcome,
    /// Kept for its capacity.
    segments: Vec<Bytes>,
}

/// A request that the firmware has.
struct Pending {
    cookie: Cookie,
    offset: u64,
    dont_fragment: bool,
    bytes: usize,
}

impl<D: Disk> Transmission<D> {
    fn new(
        array: Arc<Array<D>>,
        conn: ConnId,
        negotiated: &Negotiated,
        statuses: Arc<[StatusOf]>,
        outbox: Outbox,
    ) -> Self {
        let share = Share::new(array.payload(), OWN_BYTES);
        Self {
            array,
            conn,
            decoder: RequestDecoder::new(negotiated),
            encoder: ReplyEncoder::new(negotiated),
            statuses,
            contexts: negotiated.contexts.iter().map(|context| context.id).collect(),
            reading: true,
            told_to_close: false,
            left: false,
            pending: BTreeMap::new(),
            pending_bytes: 0,
            share,
            has_share: true,
            held: None,
            last_tag: 0,
            outbox,
            progress: Instant::now(),
            outcome: Outcome::of(conn),
            segments: Vec::new(),
        }
    }

    /// Whether another request fits its limits.
    fn has_room(&self) -> bool {
        self.outbox.bytes() < WRITE_FIRST_BYTES
            && self.pending.len() + self.outbox.replies() < REQUESTS_MAX
            && self.pending_bytes + self.outbox.bytes() < CONNECTION_PAYLOAD_BYTES_MAX
    }

    fn wants_input(&self) -> bool {
        self.reading && self.held.is_none() && self.has_share && self.has_room()
    }

    /// Room for what is announced, as far as it has begun to arrive. For a large payload that does not fit, at once:
    /// what is there of it has to be moved, and that grows. Else not before the last room is nearly full, for payloads
    /// in flight hold it.
    fn make_room(&self, input: &mut BytesMut) {
        if !self.wants_input() {
            return;
        }
        let room = self.decoder.reserve_bytes(input);
        let spare = input.capacity() - input.len();
        if room > BUFFER_BYTES {
            if spare < room {
                input.reserve(room.max(LARGE_BUFFER_BYTES));
            }
        } else if spare < room.min(SPARE_BYTES) {
            input.reserve(BUFFER_BYTES);
        }
    }

    /// What it occupies, but for what is being received.
    fn occupied(&self) -> usize {
        self.pending_bytes + self.outbox.bytes()
    }

    /// Sees to its share of what all have together, with what is being received.
    fn occupy(&mut self, input: &BytesMut) {
        if self.held.is_none() {
            let received = input.len().saturating_sub(BUFFER_BYTES);
            let more = if received > 0 { self.decoder.reserve_bytes(input) } else { 0 };
            let had = self.has_share && self.share.holds();
            self.has_share = self.share.fits(self.occupied() + received + more);
            if !had && self.share.holds() && self.outbox.is_empty() {
                // From now on it holds up others; what it did before is no matter.
                self.progress = Instant::now();
            }
        }
    }

    /// Whether it is the client's turn, while it holds up others: to read, or to send the rest of a request.
    fn is_client_due(&self) -> bool {
        !self.outbox.is_empty() || (self.share.holds() && self.pending.is_empty() && self.wants_input())
    }

    fn received(&mut self) {
        if self.share.holds() && self.outbox.is_empty() {
            self.progress = Instant::now();
        }
    }

    fn is_over(&self) -> bool {
        !self.reading && self.held.is_none() && self.pending.is_empty() && self.outbox.is_empty()
    }

    /// Takes what requests there are, as far as there is room, and not so many that what they read grows cold. Returns
    /// whether there may be more: then no input needs to come before the next call finds it.
    fn decode(&mut self, input: &mut BytesMut) -> Result<bool, TransmissionError> {
        let before = self.pending_bytes;
        if let Some((cookie, request)) = self.held.take() {
            self.admit(cookie, request);
        }
        while self.wants_input() && self.pending_bytes < before + WRITE_FIRST_BYTES {
            match self.decoder.next(input)? {
                None => return Ok(false),
                Some(Incoming::Request { cookie, request }) => self.admit(cookie, request),
                Some(Incoming::Rejected { cookie, errno, reason, .. }) => self.reject(cookie, errno, reason),
                Some(Incoming::Disconnect) => self.reading = false,
            }
        }
        Ok(true)
    }

    /// Carries out a request, or keeps it until there is a share for it.
    fn admit(&mut self, cookie: Cookie, request: Request) {
        let bytes = match &request {
            Request::Read { length, .. } => *length as usize,
            Request::Write { data, .. } => data.len(),
            _ => 0,
        };
        if bytes > 0 && !self.share.fits(self.occupied() + bytes) {
            self.held = Some((cookie, request));
            return;
        }
        self.request(cookie, request);
    }

    fn request(&mut self, cookie: Cookie, request: Request) {
        let (mut dont_fragment, mut bytes) = (false, 0);
        let (offset, _) = request.range();
        let op = match request {
            Request::Read { offset, length, dont_fragment: whole } => {
                dont_fragment = whole;
                bytes = length as usize;
                HostOp::Read { offset, length }
            }
            Request::Write { offset, data, fua } => {
                bytes = data.len();
                HostOp::Write { offset, data, fua }
            }
            Request::Flush => HostOp::Flush,
            Request::Trim { offset, length, fua } => HostOp::Trim { offset, length, fua },
            Request::WriteZeroes { fast: true, .. } => {
                return self.reject(cookie, Errno::NotSupported, "zeroing is not promised to be fast");
            }
            Request::WriteZeroes { offset, length, no_hole, fua, .. } => {
                HostOp::WriteZeroes { offset, length, no_hole, fua }
            }
            Request::BlockStatus { offset, length, one } => {
                HostOp::BlockStatus { offset, length, one, of: Arc::clone(&self.statuses) }
            }
        };
        self.last_tag += 1;
        let tag = Tag(self.last_tag);
        self.pending.insert(tag, Pending { cookie, offset, dont_fragment, bytes });
        self.pending_bytes += bytes;
        self.step(Event::Host { conn: self.conn, tag, op });
    }

    /// Steps, and answers what that answers.
    fn step(&mut self, event: Event) {
        self.array.step(event, &mut self.outcome);
        let mut replies = std::mem::take(&mut self.outcome.replies);
        for (tag, result) in replies.drain(..) {
            self.reply(tag, result);
        }
        self.outcome.replies = replies;
    }

    fn reject(&mut self, cookie: Cookie, errno: Errno, reason: &str) {
        debug!(conn = self.conn.0, %cookie, %errno, reason, "request refused");
        self.encoder.error(cookie, errno, reason, &mut self.segments);
        self.send();
    }

    fn hear(&mut self, message: ToHost) {
        match message {
            ToHost::Reply(tag, result) => self.reply(tag, result),
            ToHost::Close => {
                self.reading = false;
                self.told_to_close = true;
            }
            ToHost::Attached(_) => {}
        }
    }

    fn reply(&mut self, tag: Tag, result: Result<Reply, HostError>) {
        let Some(pending) = self.pending.remove(&tag) else { return };
        self.pending_bytes -= pending.bytes;
        if self.left {
            self.share.fits(self.pending_bytes);
        } else {
            self.answer(&pending, result);
        }
    }

    /// The client is gone: what remains is what the firmware has of it.
    fn leave(&mut self) {
        self.left = true;
        self.held = None;
        self.outbox = Outbox::new(false);
        self.share.fits(self.pending_bytes);
    }

    fn answer(&mut self, pending: &Pending, result: Result<Reply, HostError>) {
        let (cookie, out) = (pending.cookie, &mut self.segments);
        match result {
            Ok(Reply::Done) => self.encoder.done(cookie, out),
            Ok(Reply::Data(segments)) => {
                let content = segments.into_iter().map(content);
                self.encoder.data(cookie, pending.offset, pending.dont_fragment, content, out);
            }
            Ok(Reply::Status(lists)) => {
                let told = self.contexts.iter().zip(self.statuses.iter()).zip(lists);
                let told: Vec<_> =
                    told.map(|((id, of), list)| (*id, list.into_iter().map(|it| extent(*of, it)))).collect();
                self.encoder.status(cookie, told, out);
            }
            Err(error) => {
                let (errno, reason) = errno(error);
                debug!(conn = self.conn.0, %cookie, ?error, "request failed");
                self.encoder.error(cookie, errno, reason, out);
            }
        }
        self.send();
    }

    fn send(&mut self) {
        if self.outbox.is_empty() {
            self.progress = Instant::now();
        }
        self.outbox.push(&mut self.segments);
    }
}

fn content(segment: Segment) -> Content {
    match segment {
        Segment::Bytes(bytes) => Content::Data(bytes),
        Segment::Zeros(length) => Content::Zeros(length),
    }
}

fn extent(of: StatusOf, extent: Extent) -> StatusExtent {
    let status = match (of, extent.set) {
        (StatusOf::Allocation, true) | (StatusOf::Differs(..), false) => 0,
        (StatusOf::Allocation, false) => StatusExtent::HOLE | StatusExtent::ZERO,
        (StatusOf::Differs(..), true) => StatusExtent::DIRTY,
    };
    StatusExtent { length: extent.length, status }
}

fn errno(error: HostError) -> (Errno, &'static str) {
    match error {
        HostError::Invalid => (Errno::Invalid, "the device takes no such request"),
        HostError::Io => (Errno::Io, "a store of the array failed"),
        HostError::NoSpace => (Errno::NoSpace, "the pool is full"),
        HostError::ReadOnly => (Errno::Perm, "the device takes no writes"),
        HostError::NotComparable => {
            (Errno::Invalid, "a session of this metadata context is no longer active")
        }
        HostError::Gone => (Errno::Shutdown, "the device is offline or gone, or its session ended"),
    }
}
