//! A world in memory for tests: disks and a metadata file that lose what was not synced, a network of pipes.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tokio::io::DuplexStream;
use tokio::sync::mpsc;
use twintrack_link::Endpoint;

use super::{Cabinet, Disk, Env, Net, Thin};

/// The disks of one array; clones are the same disks.
#[derive(Debug, Clone, Default)]
pub(crate) struct Shelf(Arc<Mutex<Drawers>>);

#[derive(Debug, Default)]
struct Drawers {
    files: BTreeMap<String, File>,
    formatted: bool,
    /// Of the attempt to format.
    serial: Option<u64>,
    /// Operations that change something until the power fails; `None`: it does not.
    power: Option<u32>,
    /// Picks what of the unsynced writes survives.
    luck: u64,
    /// Files whose syncs fail, and whether it is but the next.
    sick: BTreeMap<String, bool>,
}

#[derive(Debug, Default)]
struct File {
    durable: Vec<u8>,
    now: Vec<u8>,
    /// Since the last sync, in order.
    unsynced: Vec<Change>,
    /// Blocks of 4 KiB that have their room; only these can be written when it is full.
    room: BTreeSet<u64>,
    full: bool,
    hangs: bool,
}

fn blocks(offset: u64, length: u64) -> std::ops::Range<u64> {
    offset / 4096..(offset + length).div_ceil(4096)
}

#[derive(Debug)]
enum Change {
    Write(u64, Vec<u8>),
    Length(u64),
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Write(offset, data) => {
                let end = *offset as usize + data.len();
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                bytes[*offset as usize..end].copy_from_slice(data);
            }
            Self::Length(length) => bytes.resize(*length as usize, 0),
        }
    }
}

impl Drawers {
    fn spend(&mut self) -> io::Result<()> {
        match &mut self.power {
            Some(0) => Err(io::Error::other("power cut")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn change(&mut self, file: &str, change: Change) -> io::Result<()> {
        self.spend()?;
        let file = self.files.get_mut(file).ok_or(io::ErrorKind::NotFound)?;
        change.apply(&mut file.now);
        file.unsynced.push(change);
        Ok(())
    }

    fn sync(&mut self, file: &str) -> io::Result<()> {
        self.spend()?;
        if let Some(once) = self.sick.get(file) {
            if *once {
                self.sick.remove(file);
            }
            return Err(io::Error::other("sync failed"));
        }
        let file = self.files.get_mut(file).ok_or(io::ErrorKind::NotFound)?;
        for change in file.unsynced.drain(..) {
            change.apply(&mut file.durable);
        }
        Ok(())
    }

    fn read(&self, file: &str, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if self.power == Some(0) {
            return Err(io::Error::other("power cut"));
        }
        let file = self.files.get(file).ok_or(io::ErrorKind::NotFound)?;
        let bytes = file.now.get(offset as usize..offset as usize + out.len());
        out.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn length(&self, file: &str) -> u64 {
        self.files.get(file).map_or(0, |file| file.now.len() as u64)
    }

    fn coin(&mut self) -> bool {
        self.luck = self.luck.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.luck >> 40 & 1 == 1
    }
}

/// The name of the metadata file among the stores.
pub(crate) const METADATA: &str = "metadata";

impl Shelf {
    /// Shelves with empty stores of these sizes.
    pub(crate) fn with_stores(stores: &[(&str, u64)]) -> Self {
        let shelf = Self::default();
        stores.iter().for_each(|(name, size_bytes)| shelf.put_store(name, *size_bytes));
        shelf
    }

    /// A new empty store, or one that has another size now.
    pub(crate) fn put_store(&self, name: &str, size_bytes: u64) {
        let mut drawers = self.0.lock().unwrap();
        let file = drawers.files.entry(name.to_owned()).or_default();
        file.now.resize(size_bytes as usize, 0);
        file.durable.clone_from(&file.now);
    }

    /// The power fails after that many operations that change something.
    pub(crate) fn cut_power_after(&self, operations: u32, luck: u64) {
        let mut drawers = self.0.lock().unwrap();
        drawers.power = Some(operations);
        drawers.luck = luck;
    }

    /// Whether the power failed since then; it is back. Of the unsynced writes some survive, by luck.
    pub(crate) fn restore_power(&self) -> bool {
        let mut drawers = self.0.lock().unwrap();
        let failed = drawers.power.take() == Some(0);
        let mut files = std::mem::take(&mut drawers.files);
        for file in files.values_mut().filter(|_| failed) {
            for change in file.unsynced.drain(..) {
                if drawers.coin() {
                    change.apply(&mut file.durable);
                }
            }
            file.now.clone_from(&file.durable);
        }
        drawers.files = files;
        failed
    }

    /// Whether syncs of a store, or of [`METADATA`], fail.
    pub(crate) fn fail_syncs(&self, name: &str, fail: bool) {
        let mut drawers = self.0.lock().unwrap();
        if fail {
            drawers.sick.insert(name.to_owned(), false);
        } else {
            drawers.sick.remove(name);
        }
    }

    /// Whether a store finds no more room for what it was not written before.
    pub(crate) fn fill_up(&self, name: &str, full: bool) {
        self.0.lock().unwrap().files.get_mut(name).unwrap().full = full;
    }

    /// Writes to a store, or of the metadata, do not end from now on.
    pub(crate) fn hang(&self, name: &str) {
        self.0.lock().unwrap().files.get_mut(name).unwrap().hangs = true;
    }

    /// Writes end again.
    pub(crate) fn unstuck(self, name: &str) -> Self {
        self.0.lock().unwrap().files.get_mut(name).unwrap().hangs = false;
        self
    }

    fn hangs(&self, name: &str) -> bool {
        self.0.lock().unwrap().files.get(name).is_some_and(|file| file.hangs)
    }

    /// The next sync fails.
    pub(crate) fn fail_one_sync(&self, name: &str) {
        self.0.lock().unwrap().sick.insert(name.to_owned(), true);
    }

    /// Overwrites a part of a store.
    pub(crate) fn scribble(&self, name: &str, offset: u64, data: &[u8]) {
        let mut drawers = self.0.lock().unwrap();
        drawers.change(name, Change::Write(offset, data.to_vec())).unwrap();
        drawers.sync(name).unwrap();
    }
}

impl Cabinet for Shelf {
    type Disk = Drawer;
    type Metadata = Drawer;

    async fn open(&self, store: &str) -> io::Result<Drawer> {
        let size = self.0.lock().unwrap().files.get(store).map(|file| file.now.len() as u64);
        let size = size.ok_or(io::ErrorKind::NotFound)?;
        Ok(Drawer { shelf: self.clone(), name: store.to_owned(), size })
    }

    fn is_formatted(&self) -> io::Result<bool> {
        Ok(self.0.lock().unwrap().formatted)
    }

    fn begin_format(&self, serial: u64) -> io::Result<u64> {
        let mut drawers = self.0.lock().unwrap();
        drawers.spend()?;
        Ok(*drawers.serial.get_or_insert(serial))
    }

    fn wipe_metadata(&self) -> io::Result<()> {
        let mut drawers = self.0.lock().unwrap();
        drawers.spend()?;
        drawers.files.insert(METADATA.to_owned(), File::default());
        Ok(())
    }

    fn mark_formatted(&self) -> io::Result<()> {
        let mut drawers = self.0.lock().unwrap();
        drawers.spend()?;
        drawers.formatted = true;
        Ok(())
    }

    fn metadata(&self) -> io::Result<Drawer> {
        Ok(Drawer { shelf: self.clone(), name: METADATA.to_owned(), size: 0 })
    }

    async fn blocking<R: Send + 'static>(&self, work: impl FnOnce() -> R + Send + 'static) -> R {
        if self.hangs(METADATA) {
            std::future::pending::<()>().await;
        }
        work()
    }
}

/// One store, or the metadata file.
#[derive(Debug)]
pub(crate) struct Drawer {
    shelf: Shelf,
    name: String,
    size: u64,
}

impl Disk for Drawer {
    fn size(&self) -> u64 {
        self.size
    }

    async fn read(&self, offset: u64, length: u32) -> io::Result<Bytes> {
        let mut out = vec![0; length as usize];
        self.shelf.0.lock().unwrap().read(&self.name, offset, &mut out)?;
        Ok(out.into())
    }

    async fn write(&self, offset: u64, data: Vec<Bytes>) -> io::Result<()> {
        if self.shelf.hangs(&self.name) {
            std::future::pending::<()>().await;
        }
        let (mut drawers, data) = (self.shelf.0.lock().unwrap(), data.concat());
        if let Some(file) = drawers.files.get_mut(&self.name) {
            let mut touched = blocks(offset, data.len() as u64);
            if file.full && !touched.all(|block| file.room.contains(&block)) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            file.room.extend(blocks(offset, data.len() as u64));
        }
        drawers.change(&self.name, Change::Write(offset, data))
    }

    async fn discard(&self, offset: u64, length: u64) -> io::Result<()> {
        let mut drawers = self.shelf.0.lock().unwrap();
        if let Some(file) = drawers.files.get_mut(&self.name) {
            file.room.retain(|block| !blocks(offset, length).contains(block));
        }
        drawers.spend()
    }

    async fn reserve(&self, offset: u64, length: u64) -> io::Result<()> {
        let mut drawers = self.shelf.0.lock().unwrap();
        if let Some(file) = drawers.files.get_mut(&self.name) {
            file.room.extend(blocks(offset, length));
        }
        Ok(())
    }

    async fn thin(&self) -> io::Result<Option<Thin>> {
        let drawers = self.shelf.0.lock().unwrap();
        Ok(drawers.files.get(&self.name).filter(|file| file.full).map(|file| Thin {
            source: 1,
            free_bytes: 0,
            missing_bytes: file.now.len() as u64 - 4096 * file.room.len() as u64,
        }))
    }

    async fn sync(&self) -> io::Result<()> {
        self.shelf.0.lock().unwrap().sync(&self.name)
    }
}

impl redb::StorageBackend for Drawer {
    fn len(&self) -> io::Result<u64> {
        Ok(self.shelf.0.lock().unwrap().length(&self.name))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.shelf.0.lock().unwrap().read(&self.name, offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.shelf.0.lock().unwrap().change(&self.name, Change::Length(len))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.shelf.0.lock().unwrap().sync(&self.name)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.shelf.0.lock().unwrap().change(&self.name, Change::Write(offset, data.to_vec()))
    }
}

/// Counts, so that no two serial numbers are the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Counter(Arc<Mutex<u64>>);

impl Env for Counter {
    fn wall_ms(&self) -> u64 {
        0
    }

    fn entropy(&self) -> u64 {
        let mut count = self.0.lock().unwrap();
        *count += 1;
        *count
    }
}

/// A network of pipes; an endpoint's name is its address.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pipes(Arc<Mutex<BTreeMap<String, mpsc::UnboundedSender<DuplexStream>>>>);

impl twintrack_host::Dial for Pipes {
    type Stream = DuplexStream;

    async fn dial(&self, endpoint: &Endpoint) -> io::Result<DuplexStream> {
        Ok(self.connect(endpoint))
    }
}

impl Pipes {
    /// A connection to what was bound there.
    pub(crate) fn connect(&self, endpoint: &Endpoint) -> DuplexStream {
        let (near, far) = tokio::io::duplex(1 << 16);
        self.0.lock().unwrap()[&endpoint.to_string()].send(far).unwrap();
        near
    }
}

impl Net for Pipes {
    type Listener = mpsc::UnboundedReceiver<DuplexStream>;
    type Stream = DuplexStream;

    async fn bind(&self, endpoint: &Endpoint) -> io::Result<Self::Listener> {
        let (sender, listener) = mpsc::unbounded_channel();
        self.0.lock().unwrap().insert(endpoint.to_string(), sender);
        Ok(listener)
    }

    async fn accept(&self, listener: &mut Self::Listener) -> io::Result<DuplexStream> {
        listener.recv().await.ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    async fn dial(&self, endpoint: &Endpoint) -> io::Result<DuplexStream> {
        let (near, far) = tokio::io::duplex(1 << 16);
        let bound = self.0.lock().unwrap().get(&endpoint.to_string()).cloned();
        bound.and_then(|bound| bound.send(far).ok()).ok_or(io::ErrorKind::ConnectionRefused)?;
        Ok(near)
    }
}
