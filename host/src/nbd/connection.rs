//! The task that drives a connection, and what it shares with the handles.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use twintrack_link::nbd::{
    Chunk, Cookie, Expected, ReadAssembly, Reply, ReplyDecoder, Request, StatusExtent,
};

use super::error::{Lost, NbdError};

/// Room made for reading at least.
const READ_BYTES: usize = 64 << 10;
/// How long the goodbye may take once the last handle is gone.
const GOODBYE: Duration = Duration::from_secs(1);

/// What a handle gives to the task.
#[derive(Debug)]
pub(super) enum ToSend {
    Request(Cookie, Request),
    Disconnect,
}

/// What a request comes to.
#[derive(Debug)]
pub(super) enum Finished {
    Done,
    Data(Bytes),
    /// By the number of the metadata context.
    Status(BTreeMap<u32, Vec<StatusExtent>>),
}

type Answer = Result<Finished, NbdError>;

/// The requests in flight. Never locked across an await.
#[derive(Debug, Default)]
pub(super) struct Shared(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    pending: BTreeMap<Cookie, Pending>,
    last_cookie: u64,
    lost: Option<Lost>,
}

#[derive(Debug)]
struct Pending {
    expected: Expected,
    read: Option<ReadAssembly>,
    status: BTreeMap<u32, Vec<StatusExtent>>,
    error: Option<NbdError>,
    answer: oneshot::Sender<Answer>,
    /// Held until the answer has come, whether or not somebody waits for it.
    _slot: OwnedSemaphorePermit,
}

impl Shared {
    /// Why the connection ended, if it did.
    pub(super) fn lost(&self) -> Option<Lost> {
        self.lock().lost.clone()
    }

    /// Names a request and notes that it is in flight.
    pub(super) fn register(
        &self,
        request: &Request,
        slot: OwnedSemaphorePermit,
    ) -> Result<(Cookie, oneshot::Receiver<Answer>), NbdError> {
        let mut state = self.lock();
        if let Some(lost) = &state.lost {
            return Err(NbdError::Closed { lost: Some(lost.clone()) });
        }
        state.last_cookie += 1;
        let cookie = Cookie(state.last_cookie);
        let (answer, receiver) = oneshot::channel();
        let expected = Expected::of(request);
        let read = match expected {
            Expected::Data { offset, length } => Some(ReadAssembly::new(offset, length)),
            Expected::Status | Expected::Done => None,
        };
        let pending = Pending { expected, read, status: BTreeMap::new(), error: None, answer, _slot: slot };
        state.pending.insert(cookie, pending);
        Ok((cookie, receiver))
    }

    fn expected(&self, cookie: Cookie) -> Option<Expected> {
        self.lock().pending.get(&cookie).map(|pending| pending.expected)
    }

    fn take(&self, reply: Reply) {
        let Reply { cookie, last, chunk } = reply;
        let mut state = self.lock();
        let Some(pending) = state.pending.get_mut(&cookie) else { return };
        pending.take(chunk);
        if last && let Some(pending) = state.pending.remove(&cookie) {
            drop(state);
            pending.finish();
        }
    }

    /// Fails everything in flight, in the order in which it was asked.
    fn fail(&self, lost: &Lost) {
        let pending = {
            let mut state = self.lock();
            state.lost.get_or_insert_with(|| lost.clone());
            std::mem::take(&mut state.pending)
        };
        for pending in pending.into_values() {
            // Nobody may be waiting any more.
            let _ = pending.answer.send(Err(NbdError::OutcomeUnknown { lost: lost.clone() }));
        }
    }

    /// Nothing panics while it is held; if something did, the state is still whole.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pending {
    fn take(&mut self, chunk: Chunk) {
        match chunk {
            Chunk::None => {}
            Chunk::Error { errno, message, offset } => {
                self.error.get_or_insert(NbdError::Remote { errno, message, offset });
            }
            // A second chunk of the same context says nothing new.
            Chunk::Status { context, extents } => {
                self.status.entry(context).or_insert(extents);
            }
            chunk @ (Chunk::Data { .. } | Chunk::Hole { .. }) => {
                if let Some(Err(error)) = self.read.as_mut().map(|read| read.add(chunk)) {
                    self.error.get_or_insert(NbdError::Read(error));
                }
            }
        }
    }

    fn finish(self) {
        let answer = match (self.error, self.expected) {
            (Some(error), _) => Err(error),
            (None, Expected::Done) => Ok(Finished::Done),
            (None, Expected::Status) if self.status.is_empty() => Err(NbdError::Unanswered),
            (None, Expected::Status) => Ok(Finished::Status(self.status)),
            (None, Expected::Data { .. }) => match self.read.map(ReadAssembly::finish) {
                Some(Ok(data)) => Ok(Finished::Data(data)),
                Some(Err(error)) => Err(NbdError::Read(error)),
                None => Err(NbdError::Unanswered),
            },
        };
        // Nobody may be waiting any more.
        let _ = self.answer.send(answer);
    }
}

/// Fails what is in flight when the task ends, in whatever way: also if it never ran.
pub(super) struct FailOnEnd {
    shared: Arc<Shared>,
    lost: Lost,
}

impl FailOnEnd {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, lost: Lost::Stopped }
    }
}

impl Drop for FailOnEnd {
    fn drop(&mut self) {
        self.shared.fail(&self.lost);
    }
}

/// Runs a connection until either side ends it.
pub(super) async fn drive<S>(
    stream: S,
    input: BytesMut,
    decoder: ReplyDecoder,
    guard: FailOnEnd,
    receiver: mpsc::Receiver<ToSend>,
    gone: oneshot::Receiver<()>,
) where
    S: AsyncRead + AsyncWrite + Send,
{
    let (mut guard, mut receiver) = (guard, receiver);
    let shared = guard.shared.clone();
    let (reader, writer) = tokio::io::split(stream);
    guard.lost = tokio::select! {
        biased;
        lost = read(reader, input, decoder, &shared) => lost,
        lost = write(writer, &mut receiver) => lost,
        lost = abandoned(gone) => lost,
    };
    // First no more calls, then the queue, so that who sees the closed queue also sees why.
    drop(guard);
    drop(receiver);
}

/// Ends some time after the last handle is gone: a server that takes nothing in must not keep the task for ever.
async fn abandoned(gone: oneshot::Receiver<()>) -> Lost {
    // Nothing is ever sent: it ends when the sender does.
    let _ = gone.await;
    tokio::time::sleep(GOODBYE).await;
    Lost::Disconnected
}

async fn read<R: AsyncRead + Unpin>(
    mut reader: R,
    mut input: BytesMut,
    mut decoder: ReplyDecoder,
    shared: &Shared,
) -> Lost {
    loop {
        loop {
            match decoder.next(&mut input, |cookie| shared.expected(cookie)) {
                Ok(Some(reply)) => shared.take(reply),
                Ok(None) => break,
                Err(error) => return Lost::Protocol(error),
            }
        }
        // As much again as is there: memory follows what has arrived.
        input.reserve(input.len().max(READ_BYTES));
        match reader.read_buf(&mut input).await {
            Ok(0) => return Lost::Eof,
            Ok(_) => {}
            Err(error) => return Lost::Io(error.kind()),
        }
    }
}

/// Ends if the stream fails, or after the goodbye.
async fn write<W: AsyncWrite + Unpin>(mut writer: W, receiver: &mut mpsc::Receiver<ToSend>) -> Lost {
    let written = async {
        let mut segments = Vec::with_capacity(2);
        // When the last handle is gone, the goodbye is said for it.
        while let Some(ToSend::Request(cookie, request)) = receiver.recv().await {
            request.encode(cookie, &mut segments);
            let mut segments = segments.drain(..);
            let (header, data) = (segments.next().unwrap_or_default(), segments.next().unwrap_or_default());
            writer.write_all_buf(&mut header.chain(data)).await?;
            if receiver.is_empty() {
                writer.flush().await?;
            }
        }
        writer.write_all(&Request::encode_disconnect()).await?;
        writer.shutdown().await
    };
    match written.await {
        Ok(()) => Lost::Disconnected,
        Err(error) => Lost::Io(error.kind()),
    }
}
