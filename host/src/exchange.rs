//! One HTTP/1.1 request over a connection of its own, from the head of its answer on.

use std::future::Future;
use std::pin::Pin;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

/// The connection, the status of the answer, and the body that is still to come.
pub(crate) struct Exchange {
    pub(crate) status: StatusCode,
    body: Incoming,
    connection: Connection,
    /// The connection ends when it is dropped.
    _sender: SendRequest<Full<Bytes>>,
}

/// Has to be driven while anything is expected of it.
struct Connection {
    task: Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>,
    is_over: bool,
}

impl Connection {
    async fn drive<T>(&mut self, work: impl Future<Output = T>) -> T {
        tokio::pin!(work);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return done,
                // What it has received is still to be taken.
                _ = &mut self.task, if !self.is_over => self.is_over = true,
            }
        }
    }
}

impl Exchange {
    /// Sends a request, and waits for the head of its answer.
    pub(crate) async fn begin(
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        request: Request<Full<Bytes>>,
    ) -> hyper::Result<Self> {
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let mut connection = Connection { task: Box::pin(connection), is_over: false };
        let response = connection.drive(sender.send_request(request)).await?;
        Ok(Self { status: response.status(), body: response.into_body(), connection, _sender: sender })
    }

    /// The next bytes of the body; `None`: that was all.
    pub(crate) async fn next(&mut self) -> hyper::Result<Option<Bytes>> {
        while let Some(frame) = self.connection.drive(self.body.frame()).await {
            if let Ok(bytes) = frame?.into_data() {
                return Ok(Some(bytes));
            }
        }
        Ok(None)
    }

    /// The whole body; `None`: it is longer than that.
    pub(crate) async fn whole(&mut self, bytes_max: usize) -> hyper::Result<Option<Bytes>> {
        let mut whole = BytesMut::new();
        while let Some(bytes) = self.next().await? {
            if bytes.len() > bytes_max - whole.len() {
                return Ok(None);
            }
            whole.extend_from_slice(&bytes);
        }
        Ok(Some(whole.freeze()))
    }
}
