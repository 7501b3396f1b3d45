//! An NBD client: one connection to one export, many requests in flight.
//!
//! A task of its own drives the connection; handles are cheap to clone and share it. A call that is dropped (by
//! `tokio::time::timeout`, say) harms nobody: its request stays in flight, its late answer is thrown away, and its place
//! among the requests in flight is free only then.

mod connection;
mod error;

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Semaphore, mpsc, oneshot};
use twintrack_link::nbd::{
    BASE_ALLOCATION, ClientHandshake, ClientWish, ExportInfo, HandshakeEnd, ListedExport, Negotiated,
    ReplyDecoder, Request, StatusExtent,
};

use connection::{FailOnEnd, Finished, Shared, ToSend};
pub use error::{Lost, NbdError};

#[cfg(feature = "tls")]
use crate::tls::ClientTls;

/// How a client connects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NbdOptions {
    /// Requests in flight at once; more wait. At least 1.
    pub in_flight_max: usize,
    /// Asks for structured replies.
    pub structured: bool,
    /// Asks for `base:allocation`, for [`NbdClient::block_status`]; needs `structured`.
    pub block_status: bool,
    /// Asks for these metadata contexts, for [`NbdClient::status_of`]: `x-twintrack:diff/A/B` tells what differs between
    /// A and B, each of them a session, the name of a virtual device, or `now`. Needs `structured`.
    pub contexts: Vec<String>,
    /// The handshake has to end within it.
    pub handshake_deadline: Duration,
}

impl Default for NbdOptions {
    /// 64 in flight, structured replies, block status, 30 s.
    fn default() -> Self {
        Self {
            in_flight_max: 64,
            structured: true,
            block_status: true,
            contexts: Vec::new(),
            handshake_deadline: Duration::from_secs(30),
        }
    }
}

impl NbdOptions {
    fn wish(&self, export: &str) -> ClientWish {
        let allocation = self.block_status.then(|| BASE_ALLOCATION.to_owned());
        let contexts = allocation.into_iter().chain(self.contexts.iter().cloned()).collect();
        ClientWish::Enter { export: export.to_owned(), structured: self.structured, contexts }
    }
}

/// A connection to an export. Clones share it; once the last is gone, the connection ends politely.
#[derive(Debug, Clone)]
pub struct NbdClient {
    shared: Arc<Shared>,
    sender: mpsc::Sender<ToSend>,
    slots: Arc<Semaphore>,
    in_flight_max: u32,
    negotiated: Arc<Negotiated>,
    /// Tells the task when the last handle is gone.
    _alive: Arc<oneshot::Sender<()>>,
}

impl NbdClient {
    /// Does the handshake over a fresh stream and starts the connection's task on the present runtime.
    pub async fn connect<S>(stream: S, export: &str, options: &NbdOptions) -> Result<Self, NbdError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut stream = stream;
        let (end, rest) = handshake(&mut stream, options.wish(export), options.handshake_deadline).await?;
        Self::start(stream, end, rest, options)
    }

    /// The same, encrypted: asks for TLS, checks that the server is `host` (a name or an address), and tells nothing
    /// before that.
    #[cfg(feature = "tls")]
    pub async fn connect_tls<S>(
        stream: S,
        tls: &ClientTls,
        host: &str,
        export: &str,
        options: &NbdOptions,
    ) -> Result<Self, NbdError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut machine = ClientHandshake::over_tls(options.wish(export));
        let encrypted = async {
            let mut stream = stream;
            let (mut input, mut output) = buffers();
            match talk(&mut stream, &mut machine, &mut input, &mut output).await? {
                HandshakeEnd::StartTls => {}
                _ => return Err(NbdError::HandshakeEnd),
            }
            let mut stream = tls.encrypt(stream, host).await.map_err(NbdError::connect)?;
            machine.encrypted(&mut output);
            send(&mut stream, &mut output).await.map_err(NbdError::connect)?;
            let end = talk(&mut stream, &mut machine, &mut input, &mut output).await?;
            Ok((stream, end, input))
        };
        let (stream, end, rest) = within(options.handshake_deadline, encrypted).await?;
        Self::start(stream, end, rest, options)
    }

    /// Starts the connection's task.
    fn start<S>(stream: S, end: HandshakeEnd, rest: BytesMut, options: &NbdOptions) -> Result<Self, NbdError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let HandshakeEnd::Entered(negotiated) = end else { return Err(NbdError::HandshakeEnd) };
        let in_flight_max = options.in_flight_max.clamp(1, 1 << 16);
        // A place in the queue for every request in flight, and one for the disconnect: sending never waits.
        let (sender, receiver) = mpsc::channel(in_flight_max + 1);
        let shared = Arc::new(Shared::default());
        let guard = FailOnEnd::new(shared.clone());
        let (alive, gone) = oneshot::channel();
        let decoder = ReplyDecoder::new(&negotiated);
        tokio::spawn(connection::drive(stream, rest, decoder, guard, receiver, gone));
        Ok(Self {
            shared,
            sender,
            slots: Arc::new(Semaphore::new(in_flight_max)),
            in_flight_max: in_flight_max as u32,
            negotiated: Arc::new(negotiated),
            _alive: Arc::new(alive),
        })
    }

    /// Size, features and block sizes of the export.
    pub fn info(&self) -> &ExportInfo {
        &self.negotiated.info
    }

    /// What was negotiated.
    pub fn negotiated(&self) -> &Negotiated {
        &self.negotiated
    }

    /// Whether the connection has ended; calls fail with [`NbdError::Closed`] then.
    pub fn is_closed(&self) -> bool {
        self.shared.lost().is_some()
    }

    /// Reads `length` bytes at `offset`.
    pub async fn read(&self, offset: u64, length: u32) -> Result<Bytes, NbdError> {
        let request = Request::Read { offset, length, dont_fragment: false };
        match self.call(request).await? {
            Finished::Data(data) => Ok(data),
            Finished::Done | Finished::Status(_) => Err(NbdError::Unanswered),
        }
    }

    /// Writes; with `fua` it is durable before this returns.
    pub async fn write(&self, offset: u64, data: Bytes, fua: bool) -> Result<(), NbdError> {
        self.call(Request::Write { offset, data, fua }).await.map(drop)
    }

    /// What has been written before, on any connection, and was answered, is durable when this returns.
    pub async fn flush(&self) -> Result<(), NbdError> {
        self.call(Request::Flush).await.map(drop)
    }

    /// The content is no longer needed.
    pub async fn trim(&self, offset: u64, length: u32, fua: bool) -> Result<(), NbdError> {
        self.call(Request::Trim { offset, length, fua }).await.map(drop)
    }

    /// The content becomes zeros; with `no_hole` it takes space.
    pub async fn write_zeroes(
        &self,
        offset: u64,
        length: u32,
        no_hole: bool,
        fua: bool,
    ) -> Result<(), NbdError> {
        self.call(Request::WriteZeroes { offset, length, no_hole, fast: false, fua }).await.map(drop)
    }

    /// What takes space from `offset` on: at least one extent, and perhaps less or more than `length` in all.
    pub async fn block_status(&self, offset: u64, length: u32) -> Result<Vec<StatusExtent>, NbdError> {
        self.status_of(BASE_ALLOCATION, offset, length).await
    }

    /// The same of another metadata context that was asked for ([`NbdOptions::contexts`]), if the server has it.
    pub async fn status_of(
        &self,
        context: &str,
        offset: u64,
        length: u32,
    ) -> Result<Vec<StatusExtent>, NbdError> {
        let context = self.negotiated.context(context).ok_or(NbdError::NoBlockStatus)?;
        match self.call(Request::BlockStatus { offset, length, one: false }).await? {
            Finished::Status(mut told) => told.remove(&context).ok_or(NbdError::Unanswered),
            Finished::Done | Finished::Data(_) => Err(NbdError::Unanswered),
        }
    }

    /// Waits for what is in flight, says goodbye and waits for the connection's end. Calls made after this fail. It may
    /// be dropped, if the server does not answer.
    pub async fn disconnect(self) {
        let Ok(all) = self.slots.acquire_many(self.in_flight_max).await else { return };
        self.slots.close();
        // The queue has a place for it; if it is closed, the connection has ended already.
        let _ = self.sender.try_send(ToSend::Disconnect);
        drop(all);
        self.sender.closed().await;
    }

    async fn call(&self, request: Request) -> Result<Finished, NbdError> {
        self.check(&request)?;
        let slot = self.slots.clone().acquire_owned().await.map_err(|_| NbdError::Closed { lost: None })?;
        let (cookie, answer) = self.shared.register(&request, slot)?;
        // Every slot has its place in the queue, so it is never full; if it is closed, the task has failed or will fail
        // all that is registered.
        let _ = self.sender.try_send(ToSend::Request(cookie, request));
        answer.await.unwrap_or(Err(NbdError::OutcomeUnknown { lost: Lost::Stopped }))
    }

    /// Refuses what would only make the server disconnect.
    fn check(&self, request: &Request) -> Result<(), NbdError> {
        let max = self.negotiated.info.sizes.maximum_bytes;
        let length = match request {
            Request::Read { length, .. } => *length as usize,
            Request::Write { data, .. } => data.len(),
            _ => 0,
        };
        if length > max as usize {
            return Err(NbdError::TooLong { length_bytes: length, max_bytes: max });
        }
        Ok(())
    }
}

/// The exports that a server lists.
pub async fn list_exports<S>(stream: S, deadline: Duration) -> Result<Vec<ListedExport>, NbdError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let mut stream = stream;
    match handshake(&mut stream, ClientWish::List, deadline).await?.0 {
        HandshakeEnd::Listed(exports) => Ok(exports),
        HandshakeEnd::Entered(_) | HandshakeEnd::Described(_) | HandshakeEnd::StartTls => {
            Err(NbdError::HandshakeEnd)
        }
    }
}

/// What a server tells about an export, without using it.
pub async fn describe_export<S>(stream: S, export: &str, deadline: Duration) -> Result<ExportInfo, NbdError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let mut stream = stream;
    let wish = ClientWish::Describe { export: export.to_owned() };
    match handshake(&mut stream, wish, deadline).await?.0 {
        HandshakeEnd::Described(info) => Ok(info),
        HandshakeEnd::Entered(_) | HandshakeEnd::Listed(_) | HandshakeEnd::StartTls => {
            Err(NbdError::HandshakeEnd)
        }
    }
}

/// Also returns what has arrived of the transmission.
async fn handshake<S>(
    stream: &mut S,
    wish: ClientWish,
    deadline: Duration,
) -> Result<(HandshakeEnd, BytesMut), NbdError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut machine = ClientHandshake::new(wish);
    let (mut input, mut output) = buffers();
    let end = within(deadline, talk(stream, &mut machine, &mut input, &mut output)).await?;
    Ok((end, input))
}

/// What has arrived, and what is to be sent.
fn buffers() -> (BytesMut, BytesMut) {
    (BytesMut::with_capacity(4096), BytesMut::new())
}

async fn within<T>(
    deadline: Duration,
    work: impl Future<Output = Result<T, NbdError>>,
) -> Result<T, NbdError> {
    tokio::time::timeout(deadline, work)
        .await
        .map_err(|_| NbdError::Connect { kind: std::io::ErrorKind::TimedOut })?
}

/// Until the machine ends or pauses.
async fn talk<S>(
    stream: &mut S,
    machine: &mut ClientHandshake,
    input: &mut BytesMut,
    output: &mut BytesMut,
) -> Result<HandshakeEnd, NbdError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    loop {
        let end = machine.feed(input, output);
        if !output.is_empty() {
            // A server may close as soon as it has said no; what it said counts more.
            match (&end, send(stream, output).await) {
                (Ok(None) | Ok(Some(HandshakeEnd::Entered(_))), Err(error)) => {
                    return Err(NbdError::connect(error));
                }
                _ => output.clear(),
            }
        }
        if let Some(end) = end? {
            return Ok(end);
        }
        match stream.read_buf(input).await {
            Ok(0) => return Err(NbdError::Connect { kind: std::io::ErrorKind::UnexpectedEof }),
            Ok(_) => {}
            Err(error) => return Err(NbdError::connect(error)),
        }
    }
}

async fn send(stream: &mut (impl AsyncWrite + Unpin), output: &mut BytesMut) -> std::io::Result<()> {
    stream.write_all_buf(output).await?;
    stream.flush().await
}
