//! The connection to an array's management: one call, one HTTP/1.1 connection, one deadline.

use std::fmt;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Method, Request, StatusCode};
use thiserror::Error;
use tokio::time::{Instant, timeout_at};
use twintrack_link::manage::{Answer, COMMAND_PATH, Command, Refusal, TrackList};

use twintrack_link::Endpoint;

use crate::dial::Dial;
use crate::exchange::Exchange;
use crate::tls_failure::TlsFailure;

/// The largest answer to a command in bytes.
pub const ANSWER_BYTES_MAX: usize = 16 << 20;
/// The largest track in bytes.
pub const TRACK_BYTES_MAX: usize = 1 << 20;
const DEADLINE: Duration = Duration::from_secs(30);

/// Manages one array. Every command of [`Command`] is a method.
///
/// Each call makes a connection of its own and ends it, so calls may run side by side, and none suffers from the fate of
/// another. A call that is dropped may or may not be carried out.
#[derive(Clone)]
pub struct ArrayClient<D> {
    dial: D,
    endpoint: Endpoint,
    deadline: Duration,
    authorization: Option<HeaderValue>,
}

/// The text is no token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a token is one word of visible ASCII characters")]
pub struct TokenError;

/// Why a call failed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ArrayError {
    /// The array said no.
    #[error(transparent)]
    Refused(Refusal),
    /// No connection was made: the command was not carried out.
    #[error("array at {endpoint} cannot be reached: {kind}")]
    Unreachable {
        /// Where.
        endpoint: Endpoint,
        /// As the connection said.
        kind: io::ErrorKind,
    },
    /// The connection could not be encrypted, or the array is not trusted: the command was not carried out.
    #[error("array at {endpoint} cannot be used: {failure}")]
    Tls {
        /// Where.
        endpoint: Endpoint,
        /// Why.
        failure: Box<TlsFailure>,
    },
    /// What answered does not speak HTTP.
    #[error("what listens at {endpoint} does not speak HTTP, or only over TLS")]
    NotHttp {
        /// Where.
        endpoint: Endpoint,
    },
    /// No answer in time: whether the command was carried out is not known.
    #[error("array at {endpoint} did not answer within {deadline_ms} ms; whether it did it is not known")]
    Timeout {
        /// Where.
        endpoint: Endpoint,
        /// The deadline.
        deadline_ms: u64,
    },
    /// The connection ended before the answer: whether the command was carried out is not known.
    #[error("array at {endpoint} went away before it answered; whether it did it is not known")]
    Cut {
        /// Where.
        endpoint: Endpoint,
    },
    /// Tracks were coming, and no more of them does: the connection ended, the deadline passed, or the array could not read
    /// on. What came is right.
    #[error("array at {endpoint} broke off after {bytes} bytes: the rest is missing")]
    BrokenOff {
        /// Where.
        endpoint: Endpoint,
        /// How many bytes came.
        bytes: u64,
    },
    /// The answer is none: not that of an array of this version, or too long. Whether the command was carried out is not
    /// known.
    #[error("array at {endpoint} answered {status} with what is no answer to that")]
    Protocol {
        /// Where.
        endpoint: Endpoint,
        /// The status of the answer.
        status: u16,
    },
}

impl ArrayError {
    /// Whether the command may have been carried out all the same. A [`Refusal`] of code `Unavailable` says so of itself.
    pub fn is_outcome_unknown(&self) -> bool {
        use twintrack_link::manage::RefusalCode::Unavailable;
        match self {
            Self::Refused(refusal) => refusal.code == Unavailable,
            Self::Unreachable { .. } | Self::Tls { .. } | Self::BrokenOff { .. } => false,
            Self::NotHttp { .. } | Self::Timeout { .. } | Self::Cut { .. } | Self::Protocol { .. } => true,
        }
    }
}

impl<D: Dial> ArrayClient<D> {
    /// Of the array whose management listens there. Connects only when it is called.
    pub fn new(dial: D, endpoint: Endpoint) -> Self {
        Self { dial, endpoint, deadline: DEADLINE, authorization: None }
    }

    /// With another deadline a call than 30 s.
    #[must_use]
    pub fn with_deadline(self, deadline: Duration) -> Self {
        Self { deadline, ..self }
    }

    /// Shows a token with each call, as an array wants it that is reached over TCP.
    pub fn with_token(self, token: &str) -> Result<Self, TokenError> {
        if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(TokenError);
        }
        let mut authorization = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| TokenError)?;
        authorization.set_sensitive(true);
        Ok(Self { authorization: Some(authorization), ..self })
    }

    /// Where it connects to.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Any command.
    pub async fn call(&self, command: &Command) -> Result<Answer, ArrayError> {
        // A command is strings and numbers: it can always be written.
        let body = serde_json::to_vec(command).map_err(|_| self.protocol(StatusCode::BAD_REQUEST))?;
        let request = self
            .request(Method::POST, COMMAND_PATH)
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|_| self.protocol(StatusCode::BAD_REQUEST))?;
        let (status, body) = self.exchange(request, ANSWER_BYTES_MAX).await?;
        self.accepted(status, &body)?;
        serde_json::from_slice(&body).map_err(|_| self.protocol(status))
    }

    /// One track of a deactivated session (D15): its bytes, fewer if it is the last one of its device.
    pub async fn session_track(&self, session: u32, track: u32) -> Result<Bytes, ArrayError> {
        let request = self.get(&TrackList::one(track).path(session))?;
        let (status, body) = self.exchange(request, TRACK_BYTES_MAX).await?;
        self.accepted(status, &body)?;
        Ok(body)
    }

    /// Tracks of a deactivated session, one or many, in the order of the list. Refused, and none of them read, if one is no
    /// changed track of it.
    pub async fn session_tracks(&self, session: u32, tracks: &TrackList) -> Result<TrackReader, ArrayError> {
        let request = self.get(&tracks.path(session))?;
        let deadline = Instant::now() + self.deadline;
        let mut exchange = self.begin(request, deadline).await?;
        if exchange.status != StatusCode::OK {
            let refusal = self.whole(&mut exchange, ANSWER_BYTES_MAX, deadline).await?;
            self.accepted(exchange.status, &refusal)?;
        }
        Ok(TrackReader { exchange, endpoint: self.endpoint.clone(), deadline: self.deadline, bytes: 0 })
    }

    /// An answer of the wrong kind.
    pub(crate) fn protocol(&self, status: StatusCode) -> ArrayError {
        ArrayError::Protocol { endpoint: self.endpoint.clone(), status: status.as_u16() }
    }

    fn request(&self, method: Method, path: &str) -> hyper::http::request::Builder {
        let request = Request::builder().method(method).uri(path).header(HOST, "array");
        match &self.authorization {
            Some(value) => request.header(AUTHORIZATION, value),
            None => request,
        }
    }

    fn accepted(&self, status: StatusCode, body: &[u8]) -> Result<(), ArrayError> {
        if status == StatusCode::OK {
            return Ok(());
        }
        Err(match serde_json::from_slice(body) {
            Ok(refusal) => ArrayError::Refused(refusal),
            Err(_) => self.protocol(status),
        })
    }

    fn get(&self, path: &str) -> Result<Request<Full<Bytes>>, ArrayError> {
        let request = self.request(Method::GET, path).body(Full::new(Bytes::new()));
        request.map_err(|_| self.protocol(StatusCode::BAD_REQUEST))
    }

    async fn exchange(
        &self,
        request: Request<Full<Bytes>>,
        bytes_max: usize,
    ) -> Result<(StatusCode, Bytes), ArrayError> {
        let deadline = Instant::now() + self.deadline;
        let mut exchange = self.begin(request, deadline).await?;
        let body = self.whole(&mut exchange, bytes_max, deadline).await?;
        Ok((exchange.status, body))
    }

    /// Sends a request over a new connection, and waits for the head of its answer.
    async fn begin(&self, request: Request<Full<Bytes>>, deadline: Instant) -> Result<Exchange, ArrayError> {
        let unreachable = |kind| ArrayError::Unreachable { endpoint: self.endpoint.clone(), kind };
        let stream = timeout_at(deadline, self.dial.dial(&self.endpoint))
            .await
            .map_err(|_| unreachable(io::ErrorKind::TimedOut))?
            .map_err(|error| match TlsFailure::of(&error) {
                Some(failure) => {
                    let failure = Box::new(failure);
                    ArrayError::Tls { endpoint: self.endpoint.clone(), failure }
                }
                None => unreachable(error.kind()),
            })?;
        let begun =
            timeout_at(deadline, Exchange::begin(stream, request)).await.map_err(|_| self.timeout())?;
        begun.map_err(|error| {
            let endpoint = self.endpoint.clone();
            if error.is_parse() { ArrayError::NotHttp { endpoint } } else { ArrayError::Cut { endpoint } }
        })
    }

    /// The body of an answer.
    async fn whole(
        &self,
        exchange: &mut Exchange,
        bytes_max: usize,
        deadline: Instant,
    ) -> Result<Bytes, ArrayError> {
        let whole = timeout_at(deadline, exchange.whole(bytes_max)).await.map_err(|_| self.timeout())?;
        let whole = whole.map_err(|_| ArrayError::Cut { endpoint: self.endpoint.clone() })?;
        whole.ok_or_else(|| self.protocol(exchange.status))
    }

    fn timeout(&self) -> ArrayError {
        let deadline_ms = self.deadline.as_millis() as u64;
        ArrayError::Timeout { endpoint: self.endpoint.clone(), deadline_ms }
    }
}

/// Saved tracks as they come: one behind the other in the order in which they were asked for, cut into pieces anywhere.
/// Each track is as long as the array's tracks, but for the last one of a device.
pub struct TrackReader {
    exchange: Exchange,
    endpoint: Endpoint,
    deadline: Duration,
    bytes: u64,
}

impl TrackReader {
    /// The next bytes; `None`: those were all. The deadline of a call is that of each of these.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ArrayError> {
        let broken = ArrayError::BrokenOff { endpoint: self.endpoint.clone(), bytes: self.bytes };
        match tokio::time::timeout(self.deadline, self.exchange.next()).await {
            Ok(Ok(bytes)) => {
                self.bytes += bytes.as_ref().map_or(0, |bytes| bytes.len() as u64);
                Ok(bytes)
            }
            Ok(Err(_)) | Err(_) => Err(broken),
        }
    }
}

impl fmt::Debug for TrackReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tracks of array at {}, {} bytes so far", self.endpoint, self.bytes)
    }
}

impl<D> fmt::Debug for ArrayClient<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "array at {}", self.endpoint)
    }
}
