//! A daemon, and how the clients of each kind reach it.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, Ordering};

use twintrack_host::{ArrayClient, TokioDial};

use crate::process::{Daemon, Place};

pub const MIB: u64 = 1 << 20;

/// What NBD goes over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    Unix,
    /// TCP on this machine.
    Tcp,
}

/// A daemon with its folder.
pub struct Server {
    place: Place,
    daemon: Daemon,
    transport: Transport,
    port: u16,
}

impl Transport {
    pub const ALL: [Self; 2] = [Self::Unix, Self::Tcp];

    /// For the name of a test.
    pub fn word(self) -> &'static str {
        match self {
            Self::Unix => "unix",
            Self::Tcp => "tcp",
        }
    }

    fn settings(self, port: u16) -> String {
        match self {
            Self::Unix => String::new(),
            Self::Tcp => format!("nbd.listen = [\"unix:nbd.sock\", \"tcp:127.0.0.1:{port}\"]\n"),
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
        let place = Place::new();
        let port = free_port();
        let pool = format!(
            "[[pool]]\nname = \"main\"\n[[pool.store]]\npath = \"store\"\nsize = \"{pool_mib} MiB\"\n"
        );
        place.set(&format!("{}{pool}", transport.settings(port)));
        let daemon = place.start().await;
        for (name, size_mib) in devices {
            daemon.array().device_create(name, size_mib * MIB, None).await.unwrap();
        }
        Self { place, daemon, transport, port }
    }

    /// `kill -9`, then a new one on the same folder.
    pub async fn killed(self) -> Self {
        let Self { place, daemon, transport, port } = self;
        daemon.kill();
        let daemon = place.start().await;
        Self { place, daemon, transport, port }
    }

    pub fn daemon(&self) -> &Daemon {
        &self.daemon
    }

    pub fn array(&self) -> ArrayClient<TokioDial> {
        self.daemon.array()
    }

    pub fn log(&self) -> String {
        self.place.log()
    }

    /// A path in the folder of the test, beside the array's.
    pub fn beside(&self, name: &str) -> PathBuf {
        self.place.folder().with_file_name(name)
    }

    pub fn folder(&self) -> PathBuf {
        self.place.folder()
    }

    /// How libnbd's programs, fio and qemu name a device.
    pub fn uri(&self, device: &str) -> String {
        match self.transport {
            Transport::Unix => nbd_unix(&self.folder().join("nbd.sock"), device),
            Transport::Tcp => format!("nbd://127.0.0.1:{}/{device}", self.port),
        }
    }
}

fn nbd_unix(socket: &Path, device: &str) -> String {
    format!("nbd+unix:///{device}?socket={}", socket.display())
}

/// A port that nothing listens on. Ports below the ephemeral ones, so that no outgoing connection takes it meanwhile;
/// counted from a place of this process's own, so that no other process that does the same does.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = std::process::id() % 150 * 64;
    loop {
        let port = 20_000 + (first as u16 + NEXT.fetch_add(1, Ordering::Relaxed)) % 10_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
