//! A small HTTP server at the other end of a pipe, that answers as a test says.

use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::DuplexStream;
use twintrack_host::{ArrayClient, Dial, Endpoint};

/// What a test's server does with a request.
pub enum Act {
    /// Answers with a status and a body.
    Answer(u16, Vec<u8>),
    /// Never answers.
    Silence,
    /// Closes the connection.
    Cut,
}

type Script = dyn FnMut(&str, &str, &[u8]) -> Act + Send;

/// Dials the test's server.
#[derive(Clone)]
pub struct Pipes(Arc<Mutex<Box<Script>>>);

impl Dial for Pipes {
    type Stream = DuplexStream;

    async fn dial(&self, _: &Endpoint) -> io::Result<DuplexStream> {
        let (here, there) = tokio::io::duplex(4096);
        tokio::spawn(serve(there, self.0.clone()));
        Ok(here)
    }
}

/// A client whose server calls `script` with method, path and body of each request.
pub fn array(script: impl FnMut(&str, &str, &[u8]) -> Act + Send + 'static) -> ArrayClient<Pipes> {
    ArrayClient::new(Pipes(Arc::new(Mutex::new(Box::new(script)))), Endpoint::Unix("/array".into()))
}

async fn serve(stream: DuplexStream, script: Arc<Mutex<Box<Script>>>) {
    let (cut, cut_now) = tokio::sync::oneshot::channel::<()>();
    let cut = Arc::new(Mutex::new(Some(cut)));
    let service = service_fn(move |request: Request<Incoming>| {
        let (script, cut) = (script.clone(), cut.clone());
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
            let act = (script.lock().unwrap())(head.method.as_str(), head.uri.path(), &body);
            match act {
                Act::Answer(status, body) => {
                    let mut response = Response::new(Full::new(Bytes::from(body)));
                    *response.status_mut() = status.try_into().unwrap();
                    return Ok::<_, Infallible>(response);
                }
                Act::Cut => drop(cut.lock().unwrap().take()),
                Act::Silence => {}
            }
            std::future::pending().await
        }
    });
    let mut http = hyper::server::conn::http1::Builder::new();
    let connection = http.auto_date_header(false).serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        biased;
        _ = connection => {}
        _ = cut_now => {}
    }
}
