//! A whole array in memory, seen from the outside; here what needs no device.

mod crowds;
mod devices;
mod differences;
mod links;
mod pairs;
mod refusals;

use std::path::PathBuf;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use twintrack_host::{ArrayClient, NbdClient, NbdOptions};
use twintrack_link::Endpoint;
use twintrack_link::manage::{Refusal, RefusalCode};
use twintrack_link::nbd::{ClientHandshake, ClientWish, HandshakeEnd};

use super::testing::{Counter, METADATA, Pipes, Shelf};
use super::*;

fn endpoint(name: &str) -> Endpoint {
    Endpoint::Unix(PathBuf::from(name))
}

struct Running {
    net: Pipes,
    stop: oneshot::Sender<()>,
    served: JoinHandle<Result<(), ServeError>>,
}

async fn start(shelf: &Shelf) -> Running {
    start_with(shelf, None).await
}

async fn start_with(shelf: &Shelf, control_token: Option<Token>) -> Running {
    let net = Pipes::default();
    let config = Config {
        nbd: vec![endpoint("nbd"), remote_nbd()],
        control: vec![endpoint("control"), remote()],
        control_token,
        link: vec![endpoint("link"), remote_link()],
        pools: vec![PoolConfig {
            name: "main".into(),
            stores: vec!["a".into()],
            policy: PoolPolicy::default(),
        }],
        track_bytes: 1 << 16,
    };
    let (stop, stopped) = oneshot::channel::<()>();
    let shutdown = async { drop(stopped.await) };
    let served = tokio::spawn(serve(net.clone(), shelf.clone(), Counter::default(), config, shutdown));
    tokio::time::sleep(Duration::from_millis(1)).await;
    Running { net, stop, served }
}

impl Running {
    fn array(&self) -> ArrayClient<Pipes> {
        ArrayClient::new(self.net.clone(), endpoint("control"))
    }

    async fn attach(&self, export: &str) -> NbdClient {
        let stream = self.net.connect(&endpoint("nbd"));
        NbdClient::connect(stream, export, &NbdOptions::default()).await.unwrap()
    }

    /// As a power cut does.
    async fn kill(self) {
        self.served.abort();
        assert!(self.served.await.unwrap_err().is_cancelled());
    }

    async fn stop(self) -> Result<(), ServeError> {
        self.stop.send(()).unwrap();
        self.served.await.unwrap()
    }

    /// Sends a request, returns status and body.
    async fn ask(&self, request: &str) -> (u16, String) {
        self.ask_at(&endpoint("control"), request).await
    }

    async fn ask_at(&self, endpoint: &Endpoint, request: &str) -> (u16, String) {
        let mut stream = self.net.connect(endpoint);
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(!answer.contains("\r\ndate:"), "{answer}");
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head[9..12].parse().unwrap(), body.to_owned())
    }

    async fn refusal(&self, request: &str) -> (u16, Refusal) {
        let (status, body) = self.ask(request).await;
        (status, serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {body}")))
    }
}

/// Where others than the owner connect.
fn remote() -> Endpoint {
    Endpoint::Tcp("array".to_owned(), 80)
}

fn remote_nbd() -> Endpoint {
    Endpoint::Tcp("array".to_owned(), 10809)
}

fn remote_link() -> Endpoint {
    Endpoint::Tcp("array".to_owned(), 7747)
}

fn post(body: &str) -> String {
    post_as("content-type: application/json\r\n", body)
}

fn post_as(headers: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST /v1/command HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{headers}content-length: {length}\r\n\r\n{body}"
    )
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
}

fn shelf() -> Shelf {
    Shelf::with_stores(&[("a", 8 << 20)])
}

#[tokio::test(start_paused = true)]
async fn what_is_no_command_is_refused() {
    let array = start(&shelf()).await;
    assert_eq!(array.ask(&get("/v1/health")).await, (200, r#"{"status":"up"}"#.to_owned()));
    for body in ["", "{", "[]", "{\"command\":\"fly\"}", "{\"command\":\"array-show\",\"more\":1}", "\u{0}"] {
        let (status, refusal) = array.refusal(&post(body)).await;
        assert_eq!((status, refusal.code), (400, RefusalCode::BadRequest), "{body:?}: {refusal}");
    }
    let long = format!("{{\"command\":\"device-show\",\"name\":\"{}\"}}", "x".repeat(1 << 20));
    assert_eq!(array.refusal(&post(&long)).await.0, 400);
    for path in ["x/track/1", "%ff/track/1", "4294967296/track/1", "1/track/-1"] {
        assert_eq!(array.refusal(&get(&format!("/v1/session/{path}"))).await.0, 400, "{path}");
    }
    assert_eq!(array.refusal(&get("/v2")).await.0, 404);
    assert_eq!(array.refusal(&get("/v1/command")).await.0, 405);
    array.stop().await.unwrap();
}

/// A page of another site can make a browser send text or a form, but not JSON.
#[tokio::test(start_paused = true)]
async fn a_command_has_to_say_that_it_is_json() {
    let array = start(&shelf()).await;
    let body = r#"{"command":"array-show"}"#;
    for kind in
        ["", "text/plain", "application/x-www-form-urlencoded", "application/jsonp", "; application/json"]
    {
        let headers = if kind.is_empty() { String::new() } else { format!("content-type: {kind}\r\n") };
        let (status, refusal) = array.refusal(&post_as(&headers, body)).await;
        assert_eq!((status, refusal.code), (400, RefusalCode::BadRequest), "{kind:?}");
        assert!(refusal.reason.contains("content-type: application/json"), "{refusal}");
    }
    let headers = "content-type: Application/JSON; charset=utf-8\r\n";
    assert_eq!(array.ask(&post_as(headers, body)).await.0, 200);
    array.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn over_tcp_nothing_is_answered_without_the_token() {
    let secret = "0123456789abcdef0123456789abcdef";
    let array = start_with(&shelf(), Some(Token::new(secret).unwrap())).await;
    for path in ["/v1/health", "/metrics", "/v1/session/1/track/1", "/nothing", "/v1/command"] {
        for shown in ["", "authorization: Bearer\r\n", "authorization: Bearer 0123456789abcdef\r\n"] {
            let request = get(path).replace("host: a\r\n", &format!("host: a\r\n{shown}"));
            let (status, body) = array.ask_at(&remote(), &request).await;
            let refusal: Refusal = serde_json::from_str(&body).unwrap();
            assert_eq!((status, refusal.code), (401, RefusalCode::Unauthorized), "{path} {shown}");
            assert!(!body.contains("0123"), "{body}");
        }
    }
    let shown = format!("content-type: application/json\r\nauthorization: bearer {secret}\r\n");
    let request = post_as(&shown, r#"{"command":"array-show"}"#);
    assert_eq!(array.ask_at(&remote(), &request).await.0, 200);
    let over_tcp = || ArrayClient::new(array.net.clone(), remote());
    assert!(over_tcp().with_token(secret).unwrap().array_show().await.is_ok());
    assert!(over_tcp().array_show().await.is_err());
    assert_eq!(array.ask(&get("/v1/health")).await.0, 200, "the owner needs none");
    array.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn exports_are_listed() {
    let array = start(&shelf()).await;
    let mut stream = array.net.connect(&endpoint("nbd"));
    let (mut input, mut output) = (BytesMut::new(), BytesMut::new());
    let mut client = ClientHandshake::new(ClientWish::List);
    loop {
        match client.feed(&mut input, &mut output).unwrap() {
            Some(HandshakeEnd::Listed(exports)) => break assert!(exports.is_empty()),
            Some(other) => panic!("{other:?}"),
            None => {
                stream.write_all_buf(&mut output).await.unwrap();
                assert!(stream.read_buf(&mut input).await.unwrap() > 0);
            }
        }
    }
    array.stop().await.unwrap();
}

async fn read_to_end(mut stream: DuplexStream) -> usize {
    let mut all = Vec::new();
    stream.read_to_end(&mut all).await.unwrap()
}

/// Clients that say nothing, or nonsense, lose their connection, and nobody else anything.
#[tokio::test(start_paused = true)]
async fn idle_and_wrong_clients_are_sent_away() {
    let array = start(&shelf()).await;
    let started = tokio::time::Instant::now();
    assert_eq!(read_to_end(array.net.connect(&endpoint("nbd"))).await, 18);
    assert_eq!(started.elapsed().as_secs(), 10);
    let mut wrong = array.net.connect(&endpoint("nbd"));
    wrong.write_all(&[0xff; 64]).await.unwrap();
    assert_eq!(read_to_end(wrong).await, 18);
    assert_eq!(started.elapsed().as_secs(), 10);
    assert_eq!(read_to_end(array.net.connect(&endpoint("control"))).await, 0);
    assert_eq!(started.elapsed().as_secs(), 70);
    assert_eq!(array.ask(&get("/v1/health")).await.0, 200);
    array.stop().await.unwrap();
}

/// First while it formats a store that does not answer, then while it loads metadata that do not.
#[tokio::test(start_paused = true)]
async fn a_start_that_hangs_ends_when_told() {
    let shelf = shelf();
    shelf.hang("a");
    start(&shelf).await.stop().await.unwrap();
    let shelf = shelf.unstuck("a");
    start(&shelf).await.stop().await.unwrap();
    shelf.hang(METADATA);
    start(&shelf).await.stop().await.unwrap();
    start(&shelf.unstuck(METADATA)).await.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_array_ends_at_once_and_starts_again() {
    let shelf = shelf();
    let array = start(&shelf).await;
    let _in_handshake = array.net.connect(&endpoint("nbd"));
    let _idle = array.net.connect(&endpoint("control"));
    tokio::time::sleep(Duration::from_millis(1)).await;
    let began = tokio::time::Instant::now();
    array.stop().await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(1));
    start(&shelf).await.stop().await.unwrap();
}
