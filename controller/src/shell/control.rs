//! The management front end: HTTP/JSON, one task for each connection.
//!
//! | request | answer |
//! |---|---|
//! | `POST /v1/command`, a [`Command`] | 200, an `Answer` |
//! | `GET /v1/session/{id}/track/{list}` | 200, the bytes of the tracks of a [`TrackList`], one behind the other, as `application/octet-stream` (D15) |
//! | `GET /v1/health` | 200, `{"status":"up"}` |
//! | `GET /metrics` | 200, text for Prometheus |
//!
//! A request is heard whole before it is carried out: until then, and when it is answered, the connection's place may go
//! to a newcomer. Of tracks, one is read when the last one is on its way, so any number of them takes the memory of a few; if
//! all are there is known before the first. Whatever fails is answered with a [`Refusal`] and the status of its code. Over TCP every request shows the token, as
//! `authorization: Bearer TOKEN`. A command has to be `application/json`: that a page of another site cannot make a browser
//! send.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};
use futures_util::{StreamExt, stream};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use serde::Serialize;
use tokio::sync::watch;
use tracing::{debug, info, warn};
use twintrack_link::manage::{
    Answer, COMMAND_BYTES_MAX, COMMAND_PATH, Command, Refusal, RefusalCode, TrackList,
};

use super::array::Array;
use super::metrics::CONTENT_TYPE;
use super::places::Place;
use super::seams::{Disk, Env, Net};
use super::token::Token;
use crate::firmware::Segment;

/// How long a client may take for the head of a request, the time before it begins included.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a client may take for the body of a request.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a client may take for the TLS handshake.
const TLS_TIMEOUT: Duration = Duration::from_secs(10);

/// Serves one connection to its end. When `closing` changes, it ends with the request that is under way; when the
/// place is lost, at once, for then none is.
pub(super) async fn serve_connection<N: Net>(
    router: Router,
    net: N,
    mut stream: N::Stream,
    place: Place,
    mut closing: watch::Receiver<bool>,
) {
    if net.requires_encryption(&stream) {
        let encrypted = tokio::select! {
            biased;
            encrypted = net.encrypt(stream) => encrypted,
            () = tokio::time::sleep(TLS_TIMEOUT) => Err(io::ErrorKind::TimedOut.into()),
            _ = closing.changed() => return,
            () = place.lost() => return debug!("management connection gave way to a newer one"),
        };
        stream = match encrypted {
            Ok(encrypted) => encrypted,
            Err(error) => return info!(%error, "management connection refused: no TLS, or one that fails"),
        };
    }
    let (router, its_place) = (TowerToHyperService::new(router), place.clone());
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(its_place.clone());
        router.call(request)
    });
    let connection = http1::Builder::new()
        // It would be wall time, and differ from run to run.
        .auto_date_header(false)
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let served = tokio::select! {
        biased;
        served = connection.as_mut() => served,
        _ = closing.changed() => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                biased;
                served = connection => served,
                () = place.lost() => return,
            }
        }
        () = place.lost() => return debug!("management connection gave way to a newer one"),
    };
    if let Err(error) = served {
        debug!(%error, "management connection ended");
    }
}

/// What can be asked.
pub(super) fn router<D: Disk, E: Env>(array: Arc<Array<D>>, env: E) -> Router {
    Router::new()
        .route(COMMAND_PATH, post(command::<D, E>))
        .route("/v1/session/{session}/track/{tracks}", get(tracks::<D, E>))
        .route("/v1/health", get(health))
        .route("/metrics", get(metrics::<D, E>))
        .fallback(unknown)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn(hear))
        .with_state(Context { array, env })
}

/// The same for those who know the token.
pub(super) fn guarded(router: Router, token: Token) -> Router {
    let check = move |request: Request, next: Next| {
        let knows = knows(request.headers(), &token);
        async move { if knows { next.run(request).await } else { refused(&unauthorized()) } }
    };
    router.layer(middleware::from_fn(check))
}

fn knows(headers: &HeaderMap, token: &Token) -> bool {
    let Some(value) = headers.get(header::AUTHORIZATION) else { return false };
    let Some((scheme, shown)) = value.as_bytes().split_at_checked(b"Bearer ".len()) else { return false };
    scheme.eq_ignore_ascii_case(b"Bearer ") && token.is(shown.trim_ascii())
}

fn unauthorized() -> Refusal {
    let reason =
        "over TCP the array takes requests with its token only, and this one has none, or a wrong one: \
                  send it as `authorization: Bearer TOKEN`"
            .to_owned();
    Refusal { code: RefusalCode::Unauthorized, reason }
}

struct Context<D, E> {
    array: Arc<Array<D>>,
    env: E,
}

impl<D, E: Clone> Clone for Context<D, E> {
    fn clone(&self) -> Self {
        Self { array: Arc::clone(&self.array), env: self.env.clone() }
    }
}

/// Hears a request whole, then has it carried out.
async fn hear(Extension(place): Extension<Place>, request: Request, next: Next) -> Response {
    let (head, body) = request.into_parts();
    let body = match read_body(body).await {
        Ok(body) => body,
        Err(refusal) => return refused(&refusal),
    };
    let Some(_turn) = place.turn() else {
        // At the last moment.
        let reason = "the array has too many connections, and this one gave way to a newer one: try again";
        return refused(&Refusal { code: RefusalCode::Unavailable, reason: reason.to_owned() });
    };
    next.run(Request::from_parts(head, body.into())).await
}

async fn read_body(body: Body) -> Result<Bytes, Refusal> {
    match tokio::time::timeout(BODY_TIMEOUT, axum::body::to_bytes(body, COMMAND_BYTES_MAX)).await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(_)) => Err(bad_request(format!(
            "the body of the request broke off, or is longer than {COMMAND_BYTES_MAX} bytes"
        ))),
        Err(_) => {
            let seconds = BODY_TIMEOUT.as_secs();
            Err(bad_request(format!("the body of the request took longer than {seconds} s")))
        }
    }
}

async fn command<D: Disk, E: Env>(
    State(context): State<Context<D, E>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if !is_json(&headers) {
        return refused(&bad_request("a command has the header `content-type: application/json`".to_owned()));
    }
    let command: Command = match serde_json::from_slice(&body) {
        Ok(command) => command,
        Err(error) => {
            let reason = format!("the body of the request is no command that this array knows: {error}");
            return refused(&bad_request(reason));
        }
    };
    match context.array.command(context.env.wall_ms(), command).await {
        Ok(mut answer) => {
            if let Answer::Array(info) = &mut answer {
                info.warnings.extend(context.array.stores().shortages().await);
            }
            json(StatusCode::OK, &answer)
        }
        Err(refusal) => refused(&refusal),
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let value = headers.get(header::CONTENT_TYPE).map_or(&b""[..], |value| value.as_bytes());
    let kind = value.split(|byte| *byte == b';').next().unwrap_or_default();
    kind.trim_ascii().eq_ignore_ascii_case(b"application/json")
}

async fn tracks<D: Disk, E: Env>(
    State(context): State<Context<D, E>>,
    Extension(place): Extension<Place>,
    path: Result<Path<(u32, String)>, PathRejection>,
) -> Response {
    let Ok(Path((session, list))) = path else {
        let reason = "the address has to be /v1/session/NUMBER/track/NUMBERS".to_owned();
        return refused(&bad_request(reason));
    };
    let list: TrackList = match list.parse() {
        Ok(list) => list,
        Err(error) => return refused(&bad_request(format!("the tracks of the address: {error}"))),
    };
    if let Err(refusal) = context.array.check_tracks(session, &list).await {
        return refused(&refusal);
    }
    let mut rest = list.tracks();
    let first = match rest.next() {
        Some(track) => context.array.read_track(session, track).await.map(joined),
        None => Ok(Bytes::new()),
    };
    let first = match first {
        Ok(first) => first,
        Err(refusal) => return refused(&refusal),
    };
    let array = context.array;
    let rest = stream::try_unfold(rest, move |mut rest| {
        let (array, place) = (Arc::clone(&array), place.clone());
        async move {
            let Some(track) = rest.next() else { return Ok(None) };
            // Who takes what it asked for waits less than who does not, and keeps its place.
            let _turn = place.turn().ok_or(io::ErrorKind::ConnectionAborted)?;
            match array.read_track(session, track).await {
                Ok(segments) => Ok(Some((joined(segments), rest))),
                Err(refusal) => {
                    // The head of the answer is gone: all that can be done is to break it off.
                    warn!(session, track, reason = %refusal.reason, "reading tracks broken off");
                    Err(io::Error::other(refusal.reason))
                }
            }
        }
    });
    let all = stream::once(async { Ok::<_, io::Error>(first) }).chain(rest);
    let kind = [(header::CONTENT_TYPE, "application/octet-stream")];
    (StatusCode::OK, kind, Body::from_stream(all)).into_response()
}

async fn health() -> Response {
    #[derive(Serialize)]
    struct Health {
        status: &'static str,
    }
    json(StatusCode::OK, &Health { status: "up" })
}

async fn metrics<D: Disk, E: Env>(State(context): State<Context<D, E>>) -> Response {
    let kind = [(header::CONTENT_TYPE, CONTENT_TYPE)];
    (StatusCode::OK, kind, context.array.metrics()).into_response()
}

async fn unknown(request: Request) -> Response {
    let reason = format!("there is nothing at {}: commands go to {COMMAND_PATH}", request.uri().path());
    refused(&Refusal { code: RefusalCode::NotFound, reason })
}

async fn wrong_method(request: Request) -> Response {
    let reason = format!("{} does not take {}", request.uri().path(), request.method());
    let mut response = refused(&bad_request(reason));
    *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
    response
}

fn bad_request(reason: String) -> Refusal {
    Refusal { code: RefusalCode::BadRequest, reason }
}

fn refused(refusal: &Refusal) -> Response {
    let status = match refusal.code {
        RefusalCode::BadRequest => StatusCode::BAD_REQUEST,
        RefusalCode::Unauthorized => StatusCode::UNAUTHORIZED,
        RefusalCode::NotFound => StatusCode::NOT_FOUND,
        RefusalCode::Exists | RefusalCode::WrongState | RefusalCode::Limit => StatusCode::CONFLICT,
        RefusalCode::NoSpace => StatusCode::INSUFFICIENT_STORAGE,
        RefusalCode::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
    };
    let mut response = json(status, refusal);
    if status == StatusCode::UNAUTHORIZED {
        // As HTTP wants it.
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

fn json(status: StatusCode, value: &impl Serialize) -> Response {
    (status, axum::Json(value)).into_response()
}

/// One track at most.
fn joined(segments: Vec<Segment>) -> Bytes {
    if let [Segment::Bytes(whole)] = &segments[..] {
        return whole.clone();
    }
    let mut bytes = Vec::with_capacity(segments.iter().map(|segment| segment.len() as usize).sum());
    for segment in segments {
        match segment {
            Segment::Bytes(part) => bytes.extend_from_slice(&part),
            Segment::Zeros(length) => bytes.resize(bytes.len() + length as usize, 0),
        }
    }
    bytes.into()
}
