//! Two arrays that connect over TCP: who is let in, and to whom.

use std::fs;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::daemon::{Stream, TokioNet};
use crate::shell::Net;

// Each has its use for a part of it.
#[allow(dead_code)]
#[path = "../../../tests/daemon/pki.rs"]
mod pki;
#[path = "../../../tests/daemon/port.rs"]
mod port;

use pki::Pki;
use port::Port;

/// An array's part of a network, and where it listens for others.
struct Place {
    net: TokioNet,
    endpoint: Endpoint,
    _port: Port,
    _folder: TempDir,
}

impl Place {
    /// `link`: what else stands in the table.
    fn new(ca: &Pki, of: &Pki, name: &str, link: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let pki::Identity { certificate, key } = of.sign(name);
        for (file, text) in [("ca.pem", &ca.ca), ("cert.pem", &certificate), ("key.pem", &key)] {
            fs::write(folder.path().join(file), text).unwrap();
        }
        let port = Port::reserve();
        let text = format!("[link]\nlisten = [\"tcp:localhost:{}\"]\n{link}", port.number());
        let settings = Settings::parse(&text).unwrap();
        let net = TokioNet::new(|| {}).with_tls(load(&settings, folder.path()).unwrap());
        let net = net.with_link(super::link(&settings, folder.path()).unwrap());
        let endpoint = Endpoint::Tcp("localhost".to_owned(), port.number());
        Self { net, endpoint, _port: port, _folder: folder }
    }

    /// Connects to another, and both say a word; what each makes of it.
    async fn connect(&self, other: &Self) -> [Result<(), String>; 2] {
        let mut listener = other.net.bind(&other.endpoint).await.unwrap();
        let dialled = async {
            let mut stream = self.net.dial(&other.endpoint).await.map_err(|error| error.to_string())?;
            talk(&mut stream).await
        };
        let accepted = async {
            let stream = other.net.accept(&mut listener).await.unwrap();
            if !other.net.requires_encryption(&stream) {
                return talk(&mut { stream }).await;
            }
            let mut stream = other.net.encrypt(stream).await.map_err(|error| error.to_string())?;
            talk(&mut stream).await
        };
        let (dialled, accepted) = tokio::join!(dialled, accepted);
        [dialled, accepted]
    }
}

async fn talk(stream: &mut Stream) -> Result<(), String> {
    let talk = async {
        stream.write_all(b"word").await?;
        stream.flush().await?;
        let mut word = [0; 4];
        stream.read_exact(&mut word).await?;
        Ok(word)
    };
    match talk.await {
        Ok(word) if word == *b"word" => Ok(()),
        Ok(word) => Err(format!("{}", word.escape_ascii())),
        Err(error) => Err(std::io::Error::to_string(&error)),
    }
}

const TLS: &str = "tls = { certificate = \"cert.pem\", key = \"key.pem\", peer-ca = \"ca.pem\" }";

#[tokio::test]
async fn arrays_show_each_other_who_they_are() {
    let (ca, other) = (Pki::new(), Pki::new());
    let [west, east] = [(); 2].map(|()| Place::new(&ca, &ca, "localhost", TLS));
    assert_eq!(west.connect(&east).await, [Ok(()), Ok(())]);

    let stranger = Place::new(&ca, &other, "localhost", TLS);
    let [dialled, accepted] = stranger.connect(&east).await;
    assert!(dialled.is_err());
    assert!(accepted.unwrap_err().contains("invalid peer certificate"), "its certificate is of another CA");
    let [dialled, _] = east.connect(&stranger).await;
    assert!(dialled.unwrap_err().contains("invalid peer certificate"), "the same from the other side");

    let elsewhere = Place::new(&ca, &ca, "west.example.org", TLS);
    let [dialled, _] = west.connect(&elsewhere).await;
    assert!(dialled.unwrap_err().contains("not valid for name"), "it is another array's");
    assert_eq!(elsewhere.connect(&west).await, [Ok(()), Ok(())], "who connects may be anywhere");
}

#[tokio::test]
async fn who_has_tls_talks_to_nobody_without() {
    let ca = Pki::new();
    let (west, plain) = (Place::new(&ca, &ca, "localhost", TLS), Place::new(&ca, &ca, "localhost", ""));
    assert_eq!(plain.connect(&Place::new(&ca, &ca, "localhost", "")).await, [Ok(()), Ok(())]);
    let [_, accepted] = plain.connect(&west).await;
    assert!(accepted.is_err());
    let [dialled, _] = west.connect(&plain).await;
    assert!(dialled.is_err());
}

#[tokio::test]
async fn without_tls_no_other_machine_is_connected_to() {
    let ca = Pki::new();
    let elsewhere = Endpoint::Tcp("192.0.2.1".to_owned(), 1);
    let plain = Place::new(&ca, &ca, "localhost", "");
    let error = plain.net.dial(&elsewhere).await.unwrap_err();
    assert!(error.to_string().contains("[link.tls]"), "{error}");
}
