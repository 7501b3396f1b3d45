//! Arrays that are reached over a network: https, whom to trust, the token.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::net::{TcpListener, UnixStream};
use tokio_rustls::TlsAcceptor;
use twintrack_host::manage::Answer;

use crate::array::{Array, Ended, ended, twintrack};

/// Writes a CA for localhost to `ca.pem`; what a server of it shows.
fn server(folder: &Path) -> ServerConfig {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    fs::write(folder.join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    builder.with_no_client_auth().with_single_cert(vec![certificate.der().clone()], key).unwrap()
}

/// Passes on to the array what comes over TCP, with TLS or as it is, until the test's process ends. Returns the port.
fn gate(array: &Array, tls: Option<ServerConfig>) -> u16 {
    let socket = array.folder().join("control.sock");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let listener = runtime.block_on(TcpListener::bind("localhost:0")).unwrap();
    let port = listener.local_addr().unwrap().port();
    let tls = tls.map(|config| TlsAcceptor::from(Arc::new(config)));
    std::thread::spawn(move || {
        runtime.block_on(async {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut array = UnixStream::connect(&socket).await.unwrap();
                match &tls {
                    None => drop(tokio::io::copy_bidirectional(&mut stream, &mut array).await),
                    Some(tls) => {
                        if let Ok(mut stream) = tls.accept(stream).await {
                            let _ = tokio::io::copy_bidirectional(&mut stream, &mut array).await;
                        }
                    }
                }
            }
        });
    });
    port
}

fn failed(line: &str, code: i32) -> String {
    let Ended { code: found, stdout, stderr } = ended(twintrack(line));
    assert_eq!((found, stdout.as_str()), (Some(code), ""), "{line}: {stderr}");
    stderr
}

#[test]
fn an_array_is_managed_over_https() {
    let array = Array::answers([Answer::Devices(Vec::new()), Answer::Devices(Vec::new())]);
    let folder = array.folder().to_owned();
    let port = gate(&array, Some(server(&folder)));
    let ca = folder.join("ca.pem");
    let token = folder.join("token");
    fs::write(&token, "0123456789abcdef\n").unwrap();
    let named = format!("-a https://localhost:{port} device list");
    let done = ended(twintrack(&format!("{named} --ca {} --token-file {}", ca.display(), token.display())));
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    let mut process = twintrack("device list");
    process.env("TWINTRACK_ARRAY", format!("https://localhost:{port}/"));
    process.env("TWINTRACK_CA", &ca).env("TWINTRACK_TOKEN_FILE", &token);
    assert_eq!(ended(process).code, Some(0));
}

/// Each says what is wrong, and what to write instead.
#[test]
fn who_cannot_be_trusted_is_asked_nothing() {
    let array = Array::answers([]);
    let folder = array.folder().to_owned();
    let port = gate(&array, Some(server(&folder)));
    let ca = folder.join("ca.pem");
    let other = tempfile::tempdir().unwrap();
    let _ = server(other.path());
    let other = other.path().join("ca.pem");
    let list = |host: &str, ca: &Path| format!("-a https://{host}:{port} --ca {} device list", ca.display());

    let said = failed(&format!("-a https://localhost:{port} device list"), 2);
    assert!(said.contains("use `--ca FILE`, or set TWINTRACK_CA"), "{said}");
    let said = failed(&list("localhost", &folder.join("none")), 2);
    assert!(said.contains("none cannot be used: No such file"), "{said}");
    let said = failed(&list("localhost", &other), 3);
    assert!(said.contains("signed by none of the CAs") && said.contains("by --ca or TWINTRACK_CA"), "{said}");
    let said = failed(&list("127.0.0.1", &ca), 3);
    assert!(said.contains("its certificate is not for 127.0.0.1"), "{said}");
    let said = failed(&format!("{} --json", list("127.0.0.1", &ca)), 3);
    assert!(said.starts_with(r#"{"code":"tls","#), "{said}");
    let said = failed(&format!("-a tcp:localhost:{port} device list"), 3);
    assert!(said.contains(&format!("write `-a https://localhost:{port} --ca FILE`")), "{said}");
    let plain = gate(&array, None);
    let said = failed(&format!("-a https://localhost:{plain} --ca {} device list", ca.display()), 3);
    assert!(said.contains(&format!("write `-a tcp:localhost:{plain}`")), "{said}");
    assert!(array.asked().is_empty());
}

#[test]
fn a_token_is_one_word() {
    let array = Array::answers([]);
    let token = array.folder().join("token");
    fs::write(&token, "two words").unwrap();
    let said = failed(&format!("-a tcp:localhost:1 --token-file {} device list", token.display()), 2);
    assert!(said.contains("one word of visible ASCII") && !said.contains("two words"), "{said}");
}
