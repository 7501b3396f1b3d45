//! Where other arrays connect.

use std::net::TcpListener;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use twintrack_host::{Dial, Endpoint, TlsDial, TokioDial};
use twintrack_link::remote::{Decoder, Encoder, Hello, LinkRefusal, Message, VERSION};

use crate::pki::Pki;
use crate::process::Place;

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

#[tokio::test]
async fn an_array_is_refused_in_words_and_one_without_certificate_without() {
    let (pki, other) = (Pki::new(), Pki::new());
    let place = Place::new();
    let port = TcpListener::bind("localhost:0").unwrap().local_addr().unwrap().port();
    place.set(&format!(
        "[link]\nlisten = [\"unix:link.sock\", \"tcp:localhost:{port}\"]\n\
         tls = {{ certificate = \"cert.pem\", key = \"key.pem\", peer-ca = \"ca.pem\" }}\n\
         [[pool]]\nname = \"main\"\n[[pool.store]]\npath = \"store\"\nsize = \"64 MiB\"\n"
    ));
    pki.install(&place.folder());
    let daemon = place.start().await;
    let endpoint = Endpoint::Tcp("localhost".to_owned(), port);

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
