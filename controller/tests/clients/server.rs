//! A daemon, and how the clients of each kind reach it.

use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};

use rustix::process::geteuid;
use serde_json::{Value, json};
use tempfile::TempDir;
use twintrack_host::{ArrayClient, TokioDial};

use crate::pki::Pki;
use crate::port::Port;
use crate::process::{Daemon, Place};

pub const MIB: u64 = 1 << 20;

/// Hosts, as [`certificates`] has it. Here libnbd looks by itself, from the home of who is not root.
const HOST: &str = ".pki/libnbd";
pub const STRANGER: &str = "stranger";
pub const IMPOSTOR: &str = "impostor";
pub const DECEIVED: &str = "deceived";

/// What NBD goes over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    Unix,
    /// TCP on this machine.
    Tcp,
    /// TLS over TCP; both sides show certificates.
    Tls,
}

/// Who runs programs for which root is not the right one; the number of `nobody`.
const OTHER_USER: u32 = 65534;

/// A daemon with its site.
pub struct Server {
    daemon: Daemon,
    site: Site,
}

/// Where a daemon is, or was: its folder, its port, and what clients need to reach it.
pub struct Site {
    place: Place,
    home: TempDir,
    transport: Transport,
    port: Port,
}

impl Transport {
    pub const ALL: [Self; 3] = [Self::Unix, Self::Tcp, Self::Tls];

    /// For the name of a test.
    pub fn word(self) -> &'static str {
        match self {
            Self::Unix => "unix",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
        }
    }

    fn settings(self, port: u16) -> String {
        match self {
            Self::Unix => String::new(),
            Self::Tcp => format!("nbd.listen = [\"unix:nbd.sock\", \"tcp:127.0.0.1:{port}\"]\n"),
            Self::Tls => format!(
                "[nbd]\nlisten = [\"tcp:127.0.0.1:{port}\"]\n\
                 tls = {{ certificate = \"cert.pem\", key = \"key.pem\", client-ca = \"ca.pem\" }}\n"
            ),
        }
    }
}

impl Server {
    /// One with a pool of 512 MiB, and these devices, by name and size in MiB.
    pub async fn start(transport: Transport, devices: &[(&str, u64)]) -> Self {
        Self::start_small(transport, 512, devices).await
    }

    /// One with a pool of `pool_mib`, minus what a store needs for itself.
    pub async fn start_small(transport: Transport, pool_mib: u64, devices: &[(&str, u64)]) -> Self {
        let (place, home) = (Place::new(), tempfile::tempdir().unwrap());
        if geteuid().is_root() {
            chown(home.path(), Some(OTHER_USER), Some(OTHER_USER)).unwrap();
        }
        let port = Port::reserve();
        let pool = format!(
            "[[pool]]\nname = \"main\"\n[[pool.store]]\npath = \"store\"\nsize = \"{pool_mib} MiB\"\n"
        );
        place.set(&format!("{}{pool}", transport.settings(port.number())));
        if transport == Transport::Tls {
            certificates(&place.folder(), home.path());
        }
        let server = Site { place, home, transport, port }.start().await;
        for (name, size_mib) in devices {
            server.array().device_create(name, size_mib * MIB, None).await.unwrap();
        }
        server
    }

    /// `kill -9`, then a new one on the same folder.
    pub async fn killed(self) -> Self {
        self.kill().start().await
    }

    /// `kill -9`. Some clients connect anew by themselves: let them end before the next start.
    pub fn kill(self) -> Site {
        self.daemon.kill();
        self.site
    }

    pub fn daemon(&self) -> &Daemon {
        &self.daemon
    }

    pub fn array(&self) -> ArrayClient<TokioDial> {
        self.daemon.array()
    }

    pub fn log(&self) -> String {
        self.site.place.log()
    }

    /// A path in the folder of the test, beside the array's.
    pub fn beside(&self, name: &str) -> PathBuf {
        self.site.place.folder().with_file_name(name)
    }

    pub fn folder(&self) -> PathBuf {
        self.site.place.folder()
    }

    /// The home of a user who is not root.
    pub fn home(&self) -> &Path {
        self.site.home.path()
    }

    /// What runs fio: over TLS by that user, in whose home it finds certificates.
    pub fn fio(&self) -> Vec<String> {
        let mut words = Vec::new();
        if self.site.transport == Transport::Tls {
            let home = self.home().display();
            words.extend(["env".to_owned(), format!("--chdir={home}"), format!("HOME={home}")]);
        }
        if self.site.transport == Transport::Tls && geteuid().is_root() {
            words.extend(["setpriv", "--clear-groups"].map(str::to_owned));
            words.extend([format!("--reuid={OTHER_USER}"), format!("--regid={OTHER_USER}")]);
        }
        words.push("fio".to_owned());
        words
    }

    /// Of TCP.
    pub fn port(&self) -> u16 {
        self.site.port.number()
    }

    /// How libnbd's programs name a device.
    pub fn uri(&self, device: &str) -> String {
        match self.site.transport {
            Transport::Unix => nbd_unix(&self.folder().join("nbd.sock"), device),
            Transport::Tcp => format!("nbd://127.0.0.1:{}/{device}", self.port()),
            Transport::Tls => self.uri_of_host(HOST, device),
        }
    }

    /// As [`Self::uri`], over TLS, with what a host of that name has; see [`certificates`].
    pub fn uri_of_host(&self, host: &str, device: &str) -> String {
        let folder = self.home().join(host);
        format!("nbds://localhost:{}/{device}?tls-certificates={}", self.port(), folder.display())
    }

    /// How fio names a device. Its libnbd takes no certificates from a URI, but those in the home of a user who is not root.
    pub fn fio_uri(&self, device: &str) -> String {
        match self.site.transport {
            Transport::Unix | Transport::Tcp => self.uri(device),
            Transport::Tls => format!("nbds://localhost:{}/{device}", self.port()),
        }
    }

    /// How qemu's programs name a device, after `-f raw`: over TLS they take no URI.
    pub fn qemu(&self, device: &str) -> String {
        match self.site.transport {
            Transport::Unix | Transport::Tcp => self.uri(device),
            Transport::Tls => format!("json:{}", json!({ "file": self.qemu_node(device) })),
        }
    }

    /// A device as qemu's programs take it within a larger description.
    pub fn qemu_node(&self, device: &str) -> Value {
        let tcp = |host| json!({ "type": "inet", "host": host, "port": self.port().to_string() });
        match self.site.transport {
            Transport::Unix => {
                let server = json!({ "type": "unix", "path": self.folder().join("nbd.sock") });
                json!({ "driver": "nbd", "server": server, "export": device })
            }
            Transport::Tcp => json!({ "driver": "nbd", "server": tcp("127.0.0.1"), "export": device }),
            Transport::Tls => {
                json!({ "driver": "nbd", "server": tcp("localhost"), "export": device, "tls-creds": "tls0" })
            }
        }
    }

    /// What qemu's programs are told before anything else is named.
    pub fn qemu_options(&self) -> Vec<String> {
        match self.site.transport {
            Transport::Unix | Transport::Tcp => Vec::new(),
            Transport::Tls => self.qemu_options_of_host(HOST),
        }
    }

    /// As [`Self::qemu_options`], with what a host of that name has.
    pub fn qemu_options_of_host(&self, host: &str) -> Vec<String> {
        let folder = self.home().join(host);
        // Else qemu itself refuses a certificate of another CA than the one it trusts.
        let object =
            format!("tls-creds-x509,id=tls0,endpoint=client,sanity-check=off,dir={}", folder.display());
        vec!["--object".to_owned(), object]
    }
}

impl Site {
    /// A daemon there.
    pub async fn start(self) -> Server {
        Server { daemon: self.place.start().await, site: self }
    }
}

/// The array's certificates, and those of hosts, a folder in `home` for each: [`HOST`] may enter, [`STRANGER`] shows nothing,
/// [`IMPOSTOR`] shows a certificate of another CA, [`DECEIVED`] may enter but trusts another CA.
fn certificates(array: &Path, home: &Path) {
    let (pki, other) = (Pki::new(), Pki::new());
    pki.install(array);
    pki.equip(&home.join(HOST), Some(&pki));
    pki.equip(&home.join(STRANGER), None);
    pki.equip(&home.join(IMPOSTOR), Some(&other));
    other.equip(&home.join(DECEIVED), Some(&pki));
}

fn nbd_unix(socket: &Path, device: &str) -> String {
    format!("nbd+unix:///{device}?socket={}", socket.display())
}
