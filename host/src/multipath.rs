//! A volume that is on two arrays, as one handle: what is asked goes to the array that serves, and after a failover to the
//! other one.
//!
//! An array that does not serve refuses the export or says `ESHUTDOWN`; one that is gone breaks the connection or is silent.
//! In each case the handle looks for the side that serves, and asks again there. So a call may be carried out twice;
//! reads, writes, zeros, trims and flushes may.
//!
//! What an array has acknowledged and not flushed may be lost with it. So the handle keeps what was written until a flush
//! has covered it, and writes it again on each new connection before anything else: a flush that succeeds tells the truth,
//! whatever happened in between. What it keeps is bounded; beyond [`MultipathOptions::kept_bytes_max`] it flushes by itself.
//!
//! It follows the arrays and decides nothing: which side serves is an operator's business (`remote failover`), and of
//! two sides that both serve, after a forced failover, it stays with the one that it has.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use thiserror::Error;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout_at};
use twintrack_link::Endpoint;
use twintrack_link::nbd::Errno;

use crate::dial::Dial;
use crate::nbd::{NbdClient, NbdError, NbdOptions};
#[cfg(feature = "tls")]
use crate::tls::ClientTls;

/// What an entry counts in memory besides its data.
const ENTRY_BYTES: usize = 64;

/// One of the places where the volume is.
#[derive(Debug, Clone)]
pub struct NbdPath<D> {
    dial: D,
    endpoint: Endpoint,
    export: String,
    options: NbdOptions,
    #[cfg(feature = "tls")]
    tls: Option<(ClientTls, String)>,
}

impl<D: Dial> NbdPath<D> {
    /// A device of the array whose NBD listens there.
    pub fn new(dial: D, endpoint: Endpoint, device: &str) -> Self {
        Self {
            dial,
            endpoint,
            export: device.to_owned(),
            options: NbdOptions::default(),
            #[cfg(feature = "tls")]
            tls: None,
        }
    }

    /// Connects otherwise than by default.
    #[must_use]
    pub fn with_options(self, options: NbdOptions) -> Self {
        Self { options, ..self }
    }

    /// Asks for TLS; the server has to be `host`.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn with_tls(self, tls: ClientTls, host: &str) -> Self {
        Self { tls: Some((tls, host.to_owned())), ..self }
    }

    async fn connect(&self) -> Result<NbdClient, NbdError> {
        let stream = self.dial.dial(&self.endpoint).await.map_err(NbdError::connect)?;
        #[cfg(feature = "tls")]
        if let Some((tls, host)) = &self.tls {
            return NbdClient::connect_tls(stream, tls, host, &self.export, &self.options).await;
        }
        NbdClient::connect(stream, &self.export, &self.options).await
    }
}

/// How long a [`MultipathVolume`] waits, and how much it keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MultipathOptions {
    /// A connection attempt or a request without an answer for so long: the array is taken for gone. Longer than an
    /// array needs to notice that its link is silent, 10 s.
    pub silence: Duration,
    /// A call has no side that serves for so long: it fails.
    pub give_up_after: Duration,
    /// Between two attempts on all sides.
    pub pause: Duration,
    /// The most that is kept of what was written and not flushed, in bytes.
    pub kept_bytes_max: usize,
}

impl Default for MultipathOptions {
    /// 20 s, 2 min, 100 ms, 32 MiB.
    fn default() -> Self {
        Self {
            silence: Duration::from_secs(20),
            give_up_after: Duration::from_secs(120),
            pause: Duration::from_millis(100),
            kept_bytes_max: 32 << 20,
        }
    }
}

/// Why a call failed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum MultipathError {
    /// The array that serves has refused it, with an error of its own: a failed store, no space, a wrong place.
    #[error(transparent)]
    Refused(NbdError),
    /// No side served for so long. A write may have been carried out.
    #[error("no array serves the volume for {waited_ms} ms; the last one said: {last}")]
    Nobody {
        /// How long that was waited for.
        waited_ms: u64,
        /// What the last attempt ended with.
        last: NbdError,
    },
}

/// A volume that is on two arrays. Clones share it.
#[derive(Debug)]
pub struct MultipathVolume<D> {
    paths: Arc<[NbdPath<D>]>,
    options: MultipathOptions,
    state: Arc<Mutex<State>>,
}

impl<D> Clone for MultipathVolume<D> {
    fn clone(&self) -> Self {
        Self { paths: self.paths.clone(), options: self.options.clone(), state: self.state.clone() }
    }
}

#[derive(Debug, Default)]
struct State {
    /// The path that is or was in use.
    path: usize,
    client: Option<NbdClient>,
    /// Counts connections: what an old one says does not count.
    epoch: u64,
    /// Written, acknowledged, not flushed; in the order of the acknowledgements.
    kept: VecDeque<Kept>,
    kept_bytes: usize,
    /// The number of the next entry.
    next: u64,
}

#[derive(Debug, Clone)]
struct Kept {
    number: u64,
    change: Change,
}

/// A call that changes content.
#[derive(Debug, Clone)]
enum Change {
    Write { offset: u64, data: Bytes, fua: bool },
    Zeroes { offset: u64, length: u32, no_hole: bool, fua: bool },
    Trim { offset: u64, length: u32, fua: bool },
}

impl Change {
    async fn ask(&self, client: &NbdClient) -> Result<(), NbdError> {
        match self {
            Self::Write { offset, data, fua } => client.write(*offset, data.clone(), *fua).await,
            Self::Zeroes { offset, length, no_hole, fua } => {
                client.write_zeroes(*offset, *length, *no_hole, *fua).await
            }
            Self::Trim { offset, length, fua } => client.trim(*offset, *length, *fua).await,
        }
    }

    fn kept_bytes(&self) -> usize {
        match self {
            Self::Write { data, .. } => data.len() + ENTRY_BYTES,
            Self::Zeroes { .. } | Self::Trim { .. } => ENTRY_BYTES,
        }
    }
}

impl<D: Dial> MultipathVolume<D> {
    /// Of a volume that is at each of these places; connects with the first call.
    pub fn new(paths: [NbdPath<D>; 2], options: MultipathOptions) -> Self {
        Self { paths: Arc::new(paths), options, state: Arc::default() }
    }

    /// Bytes of the volume.
    pub async fn size_bytes(&self) -> Result<u64, MultipathError> {
        self.call(async |client| Ok(client.info().size_bytes)).await.map(|(size, _)| size)
    }

    /// Reads `length` bytes at `offset`.
    pub async fn read(&self, offset: u64, length: u32) -> Result<Bytes, MultipathError> {
        self.call(async |client| client.read(offset, length).await).await.map(|(data, _)| data)
    }

    /// Writes; with `fua` it is durable before this returns.
    pub async fn write(&self, offset: u64, data: Bytes, fua: bool) -> Result<(), MultipathError> {
        self.change(Change::Write { offset, data, fua }).await
    }

    /// The content becomes zeros; with `no_hole` it takes space.
    pub async fn write_zeroes(
        &self,
        offset: u64,
        length: u32,
        no_hole: bool,
        fua: bool,
    ) -> Result<(), MultipathError> {
        self.change(Change::Zeroes { offset, length, no_hole, fua }).await
    }

    /// The content is no longer needed.
    pub async fn trim(&self, offset: u64, length: u32, fua: bool) -> Result<(), MultipathError> {
        self.change(Change::Trim { offset, length, fua }).await
    }

    /// What was written before through this handle or a clone, and was answered, is durable when this returns.
    pub async fn flush(&self) -> Result<(), MultipathError> {
        loop {
            let upto = self.state.lock().await.next;
            let ((), epoch) = self.call(async |client| client.flush().await).await?;
            let mut state = self.state.lock().await;
            if state.epoch == epoch {
                while state.kept.front().is_some_and(|kept| kept.number < upto) {
                    let done = state.kept.pop_front();
                    state.kept_bytes -= done.map_or(0, |kept| kept.change.kept_bytes());
                }
                return Ok(());
            }
        }
    }

    /// The place whose array served last, counted from 0.
    pub async fn active(&self) -> usize {
        self.state.lock().await.path
    }

    async fn change(&self, change: Change) -> Result<(), MultipathError> {
        loop {
            let ((), epoch) = self.call(async |client| change.ask(client).await).await?;
            let mut state = self.state.lock().await;
            // An array that was left may acknowledge what the one that serves now has never seen: once more, there.
            if state.epoch != epoch {
                continue;
            }
            let number = state.next;
            state.next += 1;
            state.kept_bytes += change.kept_bytes();
            state.kept.push_back(Kept { number, change });
            let is_full = state.kept_bytes > self.options.kept_bytes_max;
            drop(state);
            return if is_full { self.flush().await } else { Ok(()) };
        }
    }

    /// Asks the side that serves, until one answers; what it said, and on which connection.
    async fn call<T>(
        &self,
        ask: impl AsyncFn(&NbdClient) -> Result<T, NbdError>,
    ) -> Result<(T, u64), MultipathError> {
        let give_up = Instant::now() + self.options.give_up_after;
        loop {
            let (client, epoch) = self.client(give_up).await?;
            let silent = Instant::now() + self.options.silence;
            match timeout_at(silent, ask(&client)).await {
                Ok(Ok(answer)) => return Ok((answer, epoch)),
                Ok(Err(error)) if !is_elsewhere(&error) => return Err(MultipathError::Refused(error)),
                Ok(Err(_)) | Err(_) => {
                    let mut state = self.state.lock().await;
                    if state.epoch == epoch {
                        state.client = None;
                    }
                }
            }
        }
    }

    /// The connection to the side that serves. One caller looks for it, the others wait.
    async fn client(&self, give_up: Instant) -> Result<(NbdClient, u64), MultipathError> {
        let waited_ms = self.options.give_up_after.as_millis() as u64;
        let mut last = NbdError::Closed { lost: None };
        let nobody = |last| MultipathError::Nobody { waited_ms, last };
        let Ok(mut state) = timeout_at(give_up, self.state.lock()).await else { return Err(nobody(last)) };
        if let Some(client) = &state.client {
            return Ok((client.clone(), state.epoch));
        }
        // What the old connection still says does not count from here on.
        state.epoch += 1;
        loop {
            for _ in 0..self.paths.len() {
                match self.enter(state.path, &state.kept, give_up).await {
                    Ok(client) => {
                        state.client = Some(client.clone());
                        return Ok((client, state.epoch));
                    }
                    Err(error) => last = error,
                }
                state.path = (state.path + 1) % self.paths.len();
            }
            if Instant::now() + self.options.pause >= give_up {
                return Err(nobody(last));
            }
            sleep(self.options.pause).await;
        }
    }

    /// Connects, and writes again what may have been lost.
    async fn enter(
        &self,
        path: usize,
        kept: &VecDeque<Kept>,
        give_up: Instant,
    ) -> Result<NbdClient, NbdError> {
        let silent = |_| NbdError::Connect { kind: std::io::ErrorKind::TimedOut };
        let until = || give_up.min(Instant::now() + self.options.silence);
        let client = timeout_at(until(), self.paths[path].connect()).await.map_err(silent)??;
        for entry in kept {
            timeout_at(until(), entry.change.ask(&client)).await.map_err(silent)??;
        }
        Ok(client)
    }
}

/// Whether an error says that this side does not serve, or is gone.
fn is_elsewhere(error: &NbdError) -> bool {
    match error {
        NbdError::Remote { errno, .. } => *errno == Errno::Shutdown,
        NbdError::Connect { .. }
        | NbdError::Handshake(_)
        | NbdError::HandshakeEnd
        | NbdError::Closed { .. }
        | NbdError::OutcomeUnknown { .. } => true,
        NbdError::Tls(_)
        | NbdError::TooLong { .. }
        | NbdError::NoBlockStatus
        | NbdError::Unanswered
        | NbdError::Read(_) => false,
    }
}
