//! Sockets that others can reach: encryption, certificates, the token.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use twintrack_host::manage::RefusalCode;
use twintrack_host::{
    ArrayClient, ArrayError, ClientTls, Dial, Endpoint, NbdClient, NbdError, NbdOptions, TlsDial, TlsFailure,
    TokioDial,
};
use twintrack_link::nbd::{HandshakeError, option};

use crate::pki::Pki;
use crate::port::Port;
use crate::process::{Daemon, Place, said};

const STORE: &str = "[[pool]]\nname = \"main\"\n[[pool.store]]\npath = \"store\"\nsize = \"256 MiB\"\n";

/// An array with sockets over TCP.
struct Reachable {
    place: Place,
    nbd: Endpoint,
    control: Endpoint,
    _ports: [Port; 2],
}

impl Reachable {
    /// `nbd`, `control`: what else stands in these tables, where `{tls}` is the certificate and its key.
    fn new(nbd: &str, control: &str) -> Self {
        let place = Place::new();
        let ports = [Port::reserve(), Port::reserve()];
        let [nbd_port, control_port] = ports.each_ref().map(Port::number);
        let tls = "certificate = \"cert.pem\", key = \"key.pem\"";
        let settings = format!(
            "log.level = \"debug\"\n\
             [nbd]\nlisten = [\"unix:nbd.sock\", \"tcp:localhost:{nbd_port}\"]\n{nbd}\n\
             [control]\nlisten = [\"unix:control.sock\", \"tcp:localhost:{control_port}\"]\n{control}\n{STORE}"
        );
        place.set(&settings.replace("{tls}", tls));
        let endpoint = |port| Endpoint::Tcp("localhost".to_owned(), port);
        Self { place, nbd: endpoint(nbd_port), control: endpoint(control_port), _ports: ports }
    }

    async fn start(&self) -> Daemon {
        let daemon = self.place.start().await;
        if daemon.array().device_list().await.unwrap().is_empty() {
            daemon.array().device_create("db", 64 << 20, None).await.unwrap();
        }
        daemon
    }

    async fn enter(&self, tls: &ClientTls) -> Result<NbdClient, NbdError> {
        let stream = TokioDial.dial(&self.nbd).await.unwrap();
        NbdClient::connect_tls(stream, tls, "localhost", "db", &NbdOptions::default()).await
    }

    fn token(&self) -> String {
        fs::read_to_string(self.place.folder().join("token")).unwrap().trim().to_owned()
    }

    fn over_https(&self, tls: &ClientTls, token: &str) -> ArrayClient<TlsDial> {
        ArrayClient::new(TlsDial::new(tls.clone()), self.control.clone()).with_token(token).unwrap()
    }
}

const NBD_TLS: &str = "tls = { {tls}, client-ca = \"ca.pem\" }";
const CONTROL_TLS: &str = "tls = { {tls} }";

#[tokio::test]
async fn devices_are_used_over_tls_by_those_with_a_certificate() {
    let pki = Pki::new();
    let array = Reachable::new(NBD_TLS, "");
    pki.install(&array.place.folder());
    let daemon = array.start().await;

    // Many large requests in flight, both ways, on two connections.
    let hosts = [array.enter(&pki.host(&pki)).await.unwrap(), array.enter(&pki.host(&pki)).await.unwrap()];
    let content = |n: u64| Bytes::from(vec![n as u8 + 1; 3 << 20]);
    let writes = (0..16u64).map(|n| {
        let host = hosts[n as usize % 2].clone();
        tokio::spawn(async move { host.write(n * (4 << 20) + 512, content(n), false).await })
    });
    for write in writes.collect::<Vec<_>>() {
        write.await.unwrap().unwrap();
    }
    hosts[0].flush().await.unwrap();
    let reads = (0..16u64).map(|n| {
        let host = hosts[1].clone();
        tokio::spawn(async move { host.read(n * (4 << 20) + 512, 3 << 20).await })
    });
    for (read, n) in reads.collect::<Vec<_>>().into_iter().zip(0..) {
        assert_eq!(read.await.unwrap().unwrap(), content(n));
    }
    assert_eq!(
        daemon.device("db").await.read(512, 4096).await.unwrap(),
        vec![1; 4096],
        "the socket of the owner"
    );
    for host in hosts {
        host.disconnect().await;
    }
    assert!(daemon.terminate().await.success());
    assert!(!array.place.log().contains("socket:"), "no connection was cut\n{}", array.place.log());
}

#[tokio::test]
async fn whoever_has_no_certificate_is_kept_out() {
    let (pki, other) = (Pki::new(), Pki::new());
    let array = Reachable::new(NBD_TLS, "");
    pki.install(&array.place.folder());
    let daemon = array.start().await;

    let stream = TokioDial.dial(&array.nbd).await.unwrap();
    let error = NbdClient::connect(stream, "db", &NbdOptions::default()).await.unwrap_err();
    let NbdError::Handshake(HandshakeError::Refused { message, .. }) = &error else { panic!("{error}") };
    assert!(message.contains("over TLS only"), "{message}");

    for tls in [pki.stranger(), pki.host(&other)] {
        let error = array.enter(&tls).await.unwrap_err();
        assert_eq!(error, NbdError::Tls(TlsFailure::CertificateRefused), "{error}");
    }
    // And a host does not talk to whom it does not trust, or to the wrong one.
    let error = array.enter(&other.host(&pki)).await.unwrap_err();
    assert_eq!(error, NbdError::Tls(TlsFailure::UnknownIssuer));
    let stream = TokioDial.dial(&array.nbd).await.unwrap();
    let options = NbdOptions::default();
    let error =
        NbdClient::connect_tls(stream, &pki.host(&pki), "127.0.0.1", "db", &options).await.unwrap_err();
    assert_eq!(error, NbdError::Tls(TlsFailure::WrongName { host: "127.0.0.1".to_owned() }));
    // Where there is no TLS, it does not do without.
    let plain = daemon.socket("nbd.sock").await;
    let error =
        NbdClient::connect_tls(plain, &pki.host(&pki), "localhost", "db", &options).await.unwrap_err();
    assert!(
        matches!(error, NbdError::Handshake(HandshakeError::Refused { option: option::STARTTLS, .. })),
        "{error}"
    );

    array.enter(&pki.host(&pki)).await.unwrap();
    assert!(array.place.log().contains("host refused"), "{}", array.place.log());
}

/// Options behind STARTTLS, garbage instead of TLS, and connections that stop in the middle of it.
#[tokio::test]
async fn who_does_not_keep_to_tls_harms_nobody() {
    let pki = Pki::new();
    let array = Reachable::new(NBD_TLS, CONTROL_TLS);
    pki.install(&array.place.folder());
    let daemon = array.start().await;
    let db = array.enter(&pki.host(&pki)).await.unwrap();

    let starttls = [&[0, 0, 0, 3][..], b"IHAVEOPT", &[0, 0, 0, 5, 0, 0, 0, 0]].concat();
    let list = [&b"IHAVEOPT"[..], &[0, 0, 0, 3, 0, 0, 0, 0]].concat();
    let mut socket = TokioDial.dial(&array.nbd).await.unwrap();
    socket.write_all(&[&starttls[..], &list].concat()).await.unwrap();
    let mut said = Vec::new();
    let _ = socket.read_to_end(&mut said).await;
    assert_eq!(said.len(), 18, "the greeting, and no answer: {said:?}");

    let mut kept = Vec::new();
    for endpoint in [&array.nbd, &array.control] {
        for n in 0..60usize {
            let mut socket = TokioDial.dial(endpoint).await.unwrap();
            let garbage: Vec<u8> = (0..n * 40).map(|at| (at * 31 + n * 17) as u8).collect();
            let hello = [&[0x16, 3, 1, 0x7F, 0xFF, 1, 0, 0x7F][..], &garbage].concat();
            let start: &[u8] = if endpoint == &array.nbd { &starttls } else { b"" };
            // It may be closed already.
            let _ = socket.write_all(&[start, if n % 2 == 0 { &garbage } else { &hello }].concat()).await;
            kept.push(socket);
        }
    }
    db.write(0, Bytes::from(vec![7; 4096]), true).await.unwrap();
    let https = array.over_https(&pki.stranger(), &array.token());
    assert_eq!(https.device_list().await.unwrap().len(), 1);
    drop((kept, db));
    assert!(daemon.terminate().await.success(), "{}", array.place.log());
    assert!(!array.place.log().contains("panicked"), "{}", array.place.log());
}

#[tokio::test]
async fn commands_over_tcp_need_the_token() {
    let (pki, other) = (Pki::new(), Pki::new());
    let array = Reachable::new("", CONTROL_TLS);
    pki.install(&array.place.folder());
    let output = array.place.run(&["--check"]);
    assert!(output.status.success(), "{}", said(&output));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains(&format!("control  {}, TLS\n", array.control)), "{text}");
    assert!(text.contains(&format!("nbd      {}\n", array.nbd)), "{text}");
    assert!(!array.place.folder().join("token").exists(), "a look changes nothing");
    let daemon = array.start().await;
    let file = array.place.folder().join("token");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);

    let token = array.token();
    assert_eq!(array.over_https(&pki.stranger(), &token).device_list().await.unwrap().len(), 1);
    let wrong = format!("{}{}", if token.starts_with('a') { 'b' } else { 'a' }, &token[1..]);
    let error = array.over_https(&pki.stranger(), &wrong).device_list().await.unwrap_err();
    let ArrayError::Refused(refusal) = error else { panic!("{error}") };
    assert_eq!(refusal.code, RefusalCode::Unauthorized);
    let error = array.over_https(&other.stranger(), &token).device_list().await.unwrap_err();
    let ArrayError::Tls { failure, .. } = error else { panic!("{error}") };
    assert_eq!(*failure, TlsFailure::UnknownIssuer);
    let error = ArrayClient::new(TokioDial, array.control.clone()).device_list().await.unwrap_err();
    assert!(matches!(error, ArrayError::NotHttp { .. }), "{error}");
    assert!(!array.place.log().contains(&token), "it is not logged");

    daemon.kill();
    let daemon = array.start().await;
    assert_eq!(array.token(), token, "it stays");
    assert!(daemon.terminate().await.success());
}

/// On the machine itself TLS may be done without, the token not.
#[tokio::test]
async fn the_token_is_asked_for_without_tls_too() {
    let array = Reachable::new("", "");
    let _daemon = array.start().await;
    let client = || ArrayClient::new(TokioDial, array.control.clone());
    assert!(matches!(client().device_list().await, Err(ArrayError::Refused(_))));
    assert!(client().with_token(&array.token()).unwrap().device_list().await.is_ok());
}

#[tokio::test]
async fn what_cannot_be_used_is_refused_at_the_start() {
    let (pki, other) = (Pki::new(), Pki::new());
    let array = Reachable::new(NBD_TLS, "");
    let refused = |why: &str| {
        for arguments in [&[][..], &["--check"]] {
            let output = array.place.run(arguments);
            assert_eq!(output.status.code(), Some(1));
            assert!(said(&output).contains(why), "{}", said(&output));
        }
    };
    refused("cert.pem cannot be used as a certificate: No such file or directory");
    pki.install(&array.place.folder());
    let file = |name: &str| array.place.folder().join(name);
    fs::write(file("key.pem"), other.sign("localhost").key).unwrap();
    refused("cannot be used together");
    fs::write(file("key.pem"), "no key").unwrap();
    refused("key.pem cannot be used as a private key");
    fs::write(file("ca.pem"), "").unwrap();
    pki.install(&array.place.folder());
    fs::write(file("ca.pem"), "").unwrap();
    refused("ca.pem cannot be used as the CA of hosts: there is no PEM certificate in it");
    pki.install(&array.place.folder());
    fs::write(file("token"), "secret\n").unwrap();
    refused("can be read by others");
    fs::set_permissions(file("token"), fs::Permissions::from_mode(0o600)).unwrap();
    refused("a token has 16 to 256");
    assert!(!file("metadata").exists(), "nothing was formatted");
    fs::remove_file(file("token")).unwrap();
    array.start().await;
}
