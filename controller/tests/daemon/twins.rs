//! Two daemons with a link over TCP, between them a network that the test spoils.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use twintrack_host::manage::{LinkInfoState, NewDevice, PairStatusInfo, RemoteInfo};
use twintrack_host::{NbdClient, NewRemote, Pair, establish};

use crate::pki::Pki;
use crate::port::Port;
use crate::process::{Daemon, PATIENCE, Place};
use crate::proxy::Proxy;

/// Bytes that are written at a time.
pub const BLOCK: usize = 64 << 10;

/// Two arrays that know each other: "here" dials "there" through the network.
pub struct Twins {
    pub places: [Place; 2],
    pub here: Option<Daemon>,
    pub there: Option<Daemon>,
    pub network: Proxy,
    _port: Port,
}

impl Twins {
    pub async fn new(tls: Option<&Pki>) -> Self {
        let places = [Place::new(), Place::new()];
        let port = Port::reserve();
        let network = Proxy::to(port.number()).await;
        for (place, listen) in
            places.iter().zip(["unix:link.sock", &format!("tcp:localhost:{}", port.number())])
        {
            let mut settings = format!(
                "log.level = \"debug\"\n[[pool]]\nname = \"main\"\n[[pool.store]]\npath = \"store\"\nsize = \"256 MiB\"\n\
                 [link]\nlisten = [\"{listen}\"]\n"
            );
            if let Some(pki) = tls {
                pki.install(&place.folder());
                settings += "tls = { certificate = \"cert.pem\", key = \"key.pem\", peer-ca = \"ca.pem\" }\n";
            }
            place.set(&settings);
        }
        let (here, there) = (places[0].start().await, places[1].start().await);
        let serial = here.array().array_show().await.unwrap().serial;
        let endpoint = format!("tcp:localhost:{}", network.port);
        there.array().link_add("here", None, Some(&serial)).await.unwrap();
        here.array().link_add("there", Some(&endpoint), None).await.unwrap();
        let twins = Self { places, here: Some(here), there: Some(there), network, _port: port };
        twins.link(LinkInfoState::Up).await;
        twins
    }

    pub fn here(&self) -> &Daemon {
        self.here.as_ref().unwrap()
    }

    pub fn there(&self) -> &Daemon {
        self.there.as_ref().unwrap()
    }

    /// Kills the array that dials, and starts it again.
    pub async fn crash_here(&mut self) {
        self.here.take().unwrap().kill();
        self.here = Some(self.places[0].start().await);
    }

    pub async fn crash_there(&mut self) {
        self.there.take().unwrap().kill();
        self.there = Some(self.places[1].start().await);
    }

    /// A pair "db" here – "copy" there, synchronized, with this content.
    pub async fn pair(&self, content: &Content) {
        let array = self.here().array();
        array.device_create("db", content.bytes.len() as u64, None).await.unwrap();
        let db = self.here().device("db").await;
        content.write_all(&db).await;
        let new = NewRemote {
            create_peer: Some(NewDevice { pool: None, size_bytes: content.bytes.len() as u64 }),
            ..NewRemote::new(1, "db", "there", "copy")
        };
        array.remote_create(&new).await.unwrap();
        self.synchronized().await;
    }

    pub async fn link(&self, wanted: LinkInfoState) {
        let begun = Instant::now();
        loop {
            let link = self.here().array().link_list().await.unwrap().remove(0);
            if link.state == wanted {
                return;
            }
            self.be_patient(begun, &format!("{link:?}")).await;
        }
    }

    pub async fn synchronized(&self) {
        self.becomes(self.here(), "db", PairStatusInfo::Synchronized).await;
    }

    pub async fn becomes(&self, array: &Daemon, device: &str, wanted: PairStatusInfo) -> RemoteInfo {
        let begun = Instant::now();
        loop {
            let info = array.array().remote_show(device).await.unwrap();
            if info.status == wanted {
                return info;
            }
            self.be_patient(begun, &format!("not {wanted:?} but {info:?}")).await;
        }
    }

    async fn be_patient(&self, begun: Instant, what: &str) {
        if begun.elapsed() > PATIENCE {
            panic!("{what}\n{}\n{}", self.places[0].log(), self.places[1].log());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// What a device has to hold.
pub struct Content {
    pub bytes: Vec<u8>,
    pub random: u64,
}

impl Content {
    pub fn new(size_bytes: usize, seed: u64) -> Self {
        let mut content = Self { bytes: vec![0; size_bytes], random: seed };
        for block in 0..size_bytes / BLOCK {
            content.change(block);
        }
        content
    }

    fn next(&mut self) -> u64 {
        // splitmix64
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.random;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// New bytes for a block.
    fn change(&mut self, block: usize) {
        for at in (block * BLOCK..(block + 1) * BLOCK).step_by(8) {
            let word = self.next().to_le_bytes();
            self.bytes[at..at + 8].copy_from_slice(&word);
        }
    }

    async fn write_all(&self, device: &NbdClient) {
        for (block, bytes) in self.bytes.chunks(BLOCK).enumerate() {
            device.write((block * BLOCK) as u64, Bytes::copy_from_slice(bytes), false).await.unwrap();
        }
        device.flush().await.unwrap();
    }

    /// Changes so many blocks at random, here and on the device; then flushes.
    pub async fn write_some(&mut self, device: &NbdClient, blocks: usize) {
        for _ in 0..blocks {
            let (offset, bytes) = self.next_write();
            device.write(offset, bytes, false).await.unwrap();
        }
        device.flush().await.unwrap();
    }

    /// A block at random gets new bytes, here; to be written.
    pub fn next_write(&mut self) -> (u64, Bytes) {
        let block = self.next() as usize % (self.bytes.len() / BLOCK);
        self.change(block);
        ((block * BLOCK) as u64, Bytes::copy_from_slice(&self.bytes[block * BLOCK..][..BLOCK]))
    }

    /// The device has it, byte for byte.
    pub async fn is_on(&self, device: &NbdClient) {
        for (block, bytes) in self.bytes.chunks(BLOCK).enumerate() {
            let read = device.read((block * BLOCK) as u64, BLOCK as u32).await.unwrap();
            assert!(read == bytes, "block {block} differs");
        }
    }

    /// So has one that hosts do not get at, through a session.
    pub async fn is_kept(&self, array: &Daemon, device: &str) {
        let view = format!("{device}-view");
        let session =
            establish(&array.array(), &[Pair::new(device, &view)], Default::default()).await.unwrap();
        self.is_on(&array.device(&view).await).await;
        array.array().session_remove(session[0].id).await.unwrap();
        array.array().device_delete(&view).await.unwrap();
    }
}
