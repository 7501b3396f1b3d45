//! The connection to an array's management: one call, one HTTP/1.1 connection, one deadline.

use std::fmt;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use thiserror::Error;
use twintrack_link::manage::{Answer, COMMAND_PATH, Command, Refusal};

use twintrack_link::Endpoint;

use crate::dial::Dial;
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
            Self::Unreachable { .. } | Self::Tls { .. } => false,
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
        let path = format!("/v1/session/{session}/track/{track}");
        let request = self
            .request(Method::GET, &path)
            .body(Full::new(Bytes::new()))
            .map_err(|_| self.protocol(StatusCode::BAD_REQUEST))?;
        let (status, body) = self.exchange(request, TRACK_BYTES_MAX).await?;
        self.accepted(status, &body)?;
        Ok(body)
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

    async fn exchange(
        &self,
        request: Request<Full<Bytes>>,
        bytes_max: usize,
    ) -> Result<(StatusCode, Bytes), ArrayError> {
        let unreachable = |kind| ArrayError::Unreachable { endpoint: self.endpoint.clone(), kind };
        let cut = || ArrayError::Cut { endpoint: self.endpoint.clone() };
        let deadline = tokio::time::Instant::now() + self.deadline;
        let stream = tokio::time::timeout_at(deadline, self.dial.dial(&self.endpoint))
            .await
            .map_err(|_| unreachable(io::ErrorKind::TimedOut))?
            .map_err(|error| match TlsFailure::of(&error) {
                Some(failure) => {
                    let failure = Box::new(failure);
                    ArrayError::Tls { endpoint: self.endpoint.clone(), failure }
                }
                None => unreachable(error.kind()),
            })?;
        let exchange = async {
            let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|_| cut())?;
            let answer = async move {
                let response = sender.send_request(request).await.map_err(|error| {
                    let endpoint = self.endpoint.clone();
                    if error.is_parse() { ArrayError::NotHttp { endpoint } } else { cut() }
                })?;
                let status = response.status();
                match Limited::new(response.into_body(), bytes_max).collect().await {
                    Ok(body) => Ok((status, body.to_bytes())),
                    Err(error) if error.is::<http_body_util::LengthLimitError>() => {
                        Err(self.protocol(status))
                    }
                    Err(_) => Err(cut()),
                }
            };
            tokio::pin!(answer, connection);
            tokio::select! {
                biased;
                answer = &mut answer => answer,
                // The connection is done; what it has received is still to be taken.
                _ = &mut connection => answer.await,
            }
        };
        tokio::time::timeout_at(deadline, exchange).await.unwrap_or_else(|_| {
            let deadline_ms = self.deadline.as_millis() as u64;
            Err(ArrayError::Timeout { endpoint: self.endpoint.clone(), deadline_ms })
        })
    }
}

impl<D> fmt::Debug for ArrayClient<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "array at {}", self.endpoint)
    }
}
