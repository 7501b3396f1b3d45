//! The simulated disks as the controller's seams want them.

use std::io;

use bytes::Bytes;
use twintrack_controller::shell::{Cabinet, Disk, Env};

use crate::dice::mix;
use crate::disk::{DiskHandle, Enclosure};
use crate::plan::METADATA_DISK;

/// The disks of one boot of an array.
#[derive(Debug, Clone)]
pub struct SimCabinet(pub Enclosure);

impl Disk for DiskHandle {
    fn size(&self) -> u64 {
        self.size()
    }

    async fn read(&self, offset: u64, length: u32) -> io::Result<Bytes> {
        self.read(offset, length).await
    }

    async fn write(&self, offset: u64, data: Vec<Bytes>) -> io::Result<()> {
        self.write(offset, data).await
    }

    async fn discard(&self, offset: u64, length: u64) -> io::Result<()> {
        self.discard(offset, length).await
    }

    async fn sync(&self) -> io::Result<()> {
        self.sync().await
    }
}

impl Cabinet for SimCabinet {
    type Disk = DiskHandle;
    type Metadata = MetadataFile;

    async fn open(&self, store: &str) -> io::Result<DiskHandle> {
        self.0.open(store)
    }

    fn is_formatted(&self) -> io::Result<bool> {
        Ok(self.0.is_marked())
    }

    fn begin_format(&self, serial: u64) -> io::Result<u64> {
        self.0.keep_serial(serial)
    }

    fn wipe_metadata(&self) -> io::Result<()> {
        self.0.open(METADATA_DISK)?.set_length_now(0)
    }

    fn mark_formatted(&self) -> io::Result<()> {
        self.0.mark()
    }

    fn metadata(&self) -> io::Result<MetadataFile> {
        Ok(MetadataFile(self.0.open(METADATA_DISK)?))
    }

    async fn blocking<R: Send + 'static>(&self, work: impl FnOnce() -> R + Send + 'static) -> R {
        self.0.take_time().await;
        let done = work();
        self.0.take_time().await;
        done
    }
}

/// The metadata file, used without waiting.
#[derive(Debug)]
pub struct MetadataFile(DiskHandle);

impl redb::StorageBackend for MetadataFile {
    fn len(&self) -> Result<u64, io::Error> {
        Ok(self.0.size())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        self.0.read_now(offset, out)
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        self.0.set_length_now(len)
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        self.0.sync_now()
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        self.0.write_now(offset, data)
    }
}

/// Simulated wall time, and entropy from a seed.
#[derive(Debug, Clone)]
pub struct SimEnv {
    seed: u64,
    drawn: std::sync::Arc<std::sync::atomic::AtomicU64>,
}

impl SimEnv {
    /// Of a run.
    pub fn new(seed: u64) -> Self {
        Self { seed, drawn: std::sync::Arc::default() }
    }
}

/// Wall time when a run begins: 2026-01-01, in ms since 1970.
pub const EPOCH_MS: u64 = 1_767_225_600_000;

impl Env for SimEnv {
    fn wall_ms(&self) -> u64 {
        EPOCH_MS + turmoil::sim_elapsed().map_or(0, |elapsed| elapsed.as_millis() as u64)
    }

    fn entropy(&self) -> u64 {
        let drawn = self.drawn.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        mix(self.seed ^ mix(drawn))
    }
}
