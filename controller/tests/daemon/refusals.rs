//! Arrays whose certificates do not fit together: there is no link, either is told why, once, and nothing of it changes.

use std::fs;

use tokio::time::Instant;
use twintrack_host::manage::{LinkInfo, LinkInfoState};

use crate::pki::Pki;
use crate::port::Port;
use crate::process::{Daemon, PATIENCE, Place};

/// Attempts that are waited for.
const ATTEMPTS: usize = 5;

/// Two arrays with TLS on their link: "here" dials "there", which knows it.
struct Arrays {
    places: [Place; 2],
    daemons: [Daemon; 2],
    _port: Port,
}

impl Arrays {
    /// Each with its CA for others, the one that signed its certificate, and the name in that.
    async fn start(files: [(&Pki, &Pki, &str); 2]) -> Self {
        let port = Port::reserve();
        let number = port.number();
        let places = [Place::new(), Place::new()];
        for (place, (ca, signer, name)) in places.iter().zip(files) {
            let identity = signer.sign(name);
            for (file, text) in [("ca", &ca.ca), ("cert", &identity.certificate), ("key", &identity.key)] {
                fs::write(place.folder().join(format!("{file}.pem")), text).unwrap();
            }
        }
        for (place, listen) in places.iter().zip(["unix:link.sock", &format!("tcp:localhost:{number}")]) {
            place.set(&format!(
                "log.level = \"debug\"\n[[pool]]\nname = \"main\"\n[[pool.store]]\npath = \"store\"\nsize = \"64 MiB\"\n\
                 [link]\nlisten = [\"{listen}\"]\n\
                 tls = {{ certificate = \"cert.pem\", key = \"key.pem\", peer-ca = \"ca.pem\" }}\n"
            ));
        }
        let daemons = [places[0].start().await, places[1].start().await];
        let serial = daemons[0].array().array_show().await.unwrap().serial;
        daemons[1].array().link_add("here", None, Some(&serial)).await.unwrap();
        let endpoint = format!("tcp:localhost:{number}");
        daemons[0].array().link_add("there", Some(&endpoint), None).await.unwrap();
        Self { places, daemons, _port: port }
    }

    /// What is logged of attempts that failed: what a person reads, and how many more there were.
    fn failures(&self, at: usize) -> (Vec<String>, usize) {
        let log = self.places[at].log();
        assert!(!log.contains("panicked"), "{log}");
        let failures = log.lines().filter(|line| line.contains(" no link"));
        let (untold, told): (Vec<_>, Vec<_>) = failures.partition(|line| line.contains("DEBUG"));
        (told.into_iter().map(str::to_owned).collect(), untold.len())
    }

    async fn link(&self, at: usize) -> LinkInfo {
        self.daemons[at].array().link_list().await.unwrap().remove(0)
    }

    /// All that a person sees of an array but how its link stands, and how often something became durable.
    async fn seen(&self, at: usize) -> String {
        let array = self.daemons[at].array();
        let LinkInfo { name, endpoint, serial, pairs, .. } = self.link(at).await;
        format!(
            "{:?} {:?} {:?} {:?} {} commits",
            array.array_show().await.unwrap(),
            array.device_list().await.unwrap(),
            array.remote_list().await.unwrap(),
            (name, endpoint, serial, pairs),
            self.daemons[at].metric("twintrack_commits_total").await
        )
    }

    /// What both are told: `words` here in the log and in the list, `words_there` in the log there.
    async fn are_refused(self, words: &str, words_there: &str) {
        let before = [self.seen(0).await, self.seen(1).await];
        let begun = Instant::now();
        while self.failures(0).1 + 1 < ATTEMPTS || self.failures(1).1 + 1 < ATTEMPTS {
            assert!(begun.elapsed() < PATIENCE, "{words}: {:?} {:?}", self.failures(0), self.failures(1));
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        for (at, words) in [(0, words), (1, words_there)] {
            let (told, _) = self.failures(at);
            assert!(matches!(&told[..], [line] if line.contains(words)), "{at}: {words}: {told:#?}");
        }
        let link = self.link(0).await;
        assert_ne!(link.state, LinkInfoState::Up, "{link:?}");
        assert!(link.why.as_ref().is_some_and(|why| why.contains(words)), "{words}: {link:?}");
        assert_eq!(link.serial, None, "who is not believed tells nothing");
        assert_eq!(self.link(1).await.why.as_deref(), Some("it waits for the peer to connect"));
        assert_eq!([self.seen(0).await, self.seen(1).await], before);
        for daemon in self.daemons {
            assert!(daemon.terminate().await.success());
        }
    }
}

/// The array that is dialled shows a certificate of a CA that this one does not know.
#[tokio::test]
async fn a_certificate_of_another_ca_there() {
    let (pki, other) = (Pki::new(), Pki::new());
    let arrays = Arrays::start([(&pki, &pki, "localhost"), (&pki, &other, "localhost")]).await;
    arrays.are_refused("invalid peer certificate", "no TLS, or one that fails").await;
}

/// So does the one that dials.
#[tokio::test]
async fn a_certificate_of_another_ca_here() {
    let (pki, other) = (Pki::new(), Pki::new());
    let arrays = Arrays::start([(&pki, &other, "localhost"), (&pki, &pki, "localhost")]).await;
    arrays.are_refused("did not let this one in (received fatal alert", "invalid peer certificate").await;
}

/// The CA fits, and the certificate is of another array than the one that was named.
#[tokio::test]
async fn a_certificate_of_another_array_there() {
    let pki = Pki::new();
    let arrays = Arrays::start([(&pki, &pki, "localhost"), (&pki, &pki, "elsewhere")]).await;
    arrays.are_refused("not valid for name", "no TLS, or one that fails").await;
}
