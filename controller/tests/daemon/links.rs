//! Where other arrays connect.

use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::Instant;
use twintrack_host::{Dial, Endpoint, TlsDial, TokioDial};
use twintrack_link::manage::{
    Answer, Command, NewDevice, PairHalf, PairMode, PairPolicy, PairStatusInfo, RemoteInfo,
};
use twintrack_link::remote::{Decoder, Encoder, Hello, LinkRefusal, Message, VERSION};

use crate::pki::Pki;
use crate::port::Port;
use crate::process::{Daemon, Place};

const TLS: &str = "tls = { certificate = \"cert.pem\", key = \"key.pem\", peer-ca = \"ca.pem\" }";
/// For what takes a second or two.
const PATIENCE: Duration = Duration::from_secs(60);

/// Introduces itself as an array that nobody knows; what is answered before the connection is closed.
async fn introduce(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> Result<Option<Message>, String> {
    let hello =
        Hello { version: VERSION, serial: 1000, boot: 1, track_bytes: 64 << 10, name: "stranger".to_owned() };
    let mut pieces = Vec::new();
    Encoder::new().encode(&Message::Hello(hello), &mut pieces).unwrap();
    let mut input = BytesMut::new();
    let talk = async {
        stream.write_all(&pieces.concat()).await?;
        stream.flush().await?;
        while stream.read_buf(&mut input).await? > 0 {}
        Ok(())
    };
    talk.await.map_err(|error: std::io::Error| error.to_string())?;
    Decoder::new().next(&mut input).map_err(|error| error.to_string())
}

fn is_unknown(answer: &Result<Option<Message>, String>) -> bool {
    matches!(answer, Ok(Some(Message::Refused(refused))) if refused.code == LinkRefusal::UnknownArray)
}

/// An array that listens for others over TCP, too. `link`: what else stands in the table.
fn listening(link: &str) -> (Place, Endpoint, Port) {
    let place = Place::new();
    let port = Port::reserve();
    place.set(&format!(
        "[link]\nlisten = [\"unix:link.sock\", \"tcp:localhost:{}\"]\n{link}\n\
         [[pool]]\nname = \"main\"\n[[pool.store]]\npath = \"store\"\nsize = \"64 MiB\"\n",
        port.number()
    ));
    (place, Endpoint::Tcp("localhost".to_owned(), port.number()), port)
}

#[tokio::test]
async fn an_array_is_refused_in_words_and_one_without_certificate_without() {
    let (pki, other) = (Pki::new(), Pki::new());
    let (place, endpoint, _port) = listening(TLS);
    pki.install(&place.folder());
    let daemon = place.start().await;

    let plain = introduce(TokioDial.dial(&endpoint).await.unwrap()).await;
    assert!(!is_unknown(&plain), "{plain:?}");
    for tls in [pki.stranger(), pki.host(&other)] {
        if let Ok(stream) = TlsDial::new(tls).dial(&endpoint).await {
            let answer = introduce(stream).await;
            assert!(!is_unknown(&answer), "{answer:?}");
        }
    }
    let known = introduce(TlsDial::new(pki.host(&pki)).dial(&endpoint).await.unwrap()).await;
    assert!(is_unknown(&known), "{known:?}");
    let owner = introduce(daemon.socket("link.sock").await).await;
    assert!(is_unknown(&owner), "{owner:?}");
    assert!(daemon.terminate().await.success());
}

async fn show(daemon: &Daemon) -> RemoteInfo {
    match daemon.array().call(&Command::RemoteShow { device: "db".into() }).await.unwrap() {
        Answer::Remote(info) => *info,
        other => panic!("{other:?}"),
    }
}

async fn until(daemon: &Daemon, status: PairStatusInfo) {
    let begun = Instant::now();
    while show(daemon).await.status != status {
        assert!(begun.elapsed() < PATIENCE, "{:?}", show(daemon).await);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn until_linked(daemon: &Daemon) {
    let begun = Instant::now();
    let test = Command::LinkTest { name: "other".into(), size_bytes: 1 << 20 };
    while let Err(error) = daemon.array().call(&test).await {
        assert!(begun.elapsed() < PATIENCE, "{error}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Two daemons with a pair, over TCP as it is and over TLS; one is killed meanwhile, and then the other side serves.
#[tokio::test]
async fn two_daemons_hold_the_same() {
    for tls in ["", TLS] {
        let pki = Pki::new();
        let [west, east] = [(); 2].map(|()| listening(tls));
        for (place, _, _) in [&west, &east] {
            pki.install(&place.folder());
        }
        let (west_daemon, east_daemon) = (west.0.start().await, east.0.start().await);
        for (daemon, endpoint) in [(&west_daemon, &east.1), (&east_daemon, &west.1)] {
            let endpoint = Some(endpoint.to_string());
            let add = Command::LinkAdd { name: "other".into(), endpoint, serial: None };
            daemon.array().call(&add).await.unwrap();
        }
        until_linked(&west_daemon).await;
        west_daemon.array().device_create("db", 8 << 20, None).await.unwrap();
        let host = west_daemon.device("db").await;
        host.write(0, vec![1; 1 << 20].into(), false).await.unwrap();
        let create = Command::RemoteCreate {
            request: 1,
            device: "db".into(),
            peer: "other".into(),
            peer_device: "db".into(),
            half: PairHalf::R1,
            from: PairHalf::R1,
            create_local: None,
            create_peer: Some(NewDevice { pool: None, size_bytes: 8 << 20 }),
            mode: PairMode::Synchronous,
            policy: PairPolicy::Continue,
            group: None,
        };
        west_daemon.array().call(&create).await.unwrap();
        until(&west_daemon, PairStatusInfo::Synchronized).await;
        host.write(4 << 20, vec![2; 1 << 20].into(), true).await.unwrap();

        drop(east_daemon);
        host.write(6 << 20, vec![3; 1 << 20].into(), true).await.unwrap();
        let east_daemon = east.0.start().await;
        until_linked(&west_daemon).await;
        until(&west_daemon, PairStatusInfo::Synchronized).await;
        let content = host.read(0, 8 << 20).await.unwrap();
        host.disconnect().await;

        let failover = Command::RemoteFailover { device: "db".into(), force: false };
        east_daemon.array().call(&failover).await.unwrap();
        let host = east_daemon.device("db").await;
        assert!(host.read(0, 8 << 20).await.unwrap() == content);
        host.disconnect().await;
        for (daemon, place) in [(west_daemon, &west.0), (east_daemon, &east.0)] {
            assert!(daemon.terminate().await.success(), "{}", place.log());
        }
    }
}
