//! The open stores of an array, and the disk operations of the firmware carried out on them.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::Bytes;
use futures_util::future::{Either, Pending, pending};
use futures_util::stream::{FuturesUnordered, StreamExt};
use tracing::error;
use twintrack_core::StoreId;
use twintrack_link::size;

use super::seams::{Disk, Thin};
use super::troubles::Troubles;
use crate::firmware::{DiskError, Effect, Event, IoId};

/// The open stores by number. They stay open from start to end, reloads included.
pub(super) struct Stores<D>(pub(super) BTreeMap<StoreId, Store<D>>);

impl<D> Stores<D> {
    /// The stores by name, and whether each is offline.
    pub(super) fn offline(&self) -> impl Iterator<Item = (&str, bool)> {
        self.0.values().map(|store| (store.name.as_str(), store.offline.load(Ordering::Relaxed)))
    }

    /// The stores with operations that have not ended, and how many.
    pub(super) fn under_way(&self) -> impl Iterator<Item = (&str, usize)> {
        let each =
            self.0.values().map(|store| (store.name.as_str(), store.under_way.load(Ordering::Relaxed)));
        each.filter(|(_, count)| *count > 0)
    }
}

impl<D: Disk> Stores<D> {
    /// Where thin stores may find no room before they are full: a sentence for each place that they take it from.
    pub(super) async fn shortages(&self) -> Vec<String> {
        let mut places: BTreeMap<u64, (Thin, Vec<&str>)> = BTreeMap::new();
        for store in self.0.values() {
            // One that cannot be asked will show what is wrong with it otherwise.
            let Ok(Some(thin)) = store.disk.thin().await else { continue };
            let (sum, names) =
                places.entry(thin.source).or_insert_with(|| (Thin { missing_bytes: 0, ..thin }, Vec::new()));
            sum.missing_bytes = sum.missing_bytes.saturating_add(thin.missing_bytes);
            sum.free_bytes = sum.free_bytes.min(thin.free_bytes);
            names.push(&store.name);
        }
        let short = places.into_values().filter(|(thin, _)| thin.free_bytes < thin.missing_bytes);
        let tell = |(thin, names): (Thin, Vec<&str>)| {
            format!(
                "the file system under store {} has {} free, and may have to give {} more: make room on it, or \
                 writes will find none before the pool is full",
                names.join(", "),
                size::show(thin.free_bytes),
                size::show(thin.missing_bytes)
            )
        };
        short.map(tell).collect()
    }
}

/// Counts an operation as under way.
struct UnderWay<'a>(&'a AtomicUsize);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One open store.
pub(super) struct Store<D> {
    pub(super) name: String,
    pub(super) disk: D,
    /// A sync failed. What was written since the last good one may be lost though a read still shows it and a second
    /// sync reports success; so nothing is taken from or given to the store until a restart (crash rule 9).
    offline: AtomicBool,
    troubles: Troubles,
    /// Operations that have not ended.
    under_way: AtomicUsize,
}

/// A disk operation that the firmware asked for.
#[derive(Debug)]
pub(super) struct DiskWork {
    io: IoId,
    store: StoreId,
    op: DiskOp,
}

#[derive(Debug)]
enum DiskOp {
    Read { offset: u64, length: u32 },
    Write { offset: u64, data: Vec<Bytes> },
    Discard { offset: u64, length: u64 },
    Sync,
}

impl DiskWork {
    /// Takes the effects that are disk operations; gives others back.
    #[allow(clippy::result_large_err, reason = "what is given back is no error, and is carried out next")]
    pub(super) fn from_effect(effect: Effect) -> Result<Self, Effect> {
        Ok(match effect {
            Effect::Read { io, store, offset, length } => {
                Self { io, store, op: DiskOp::Read { offset, length } }
            }
            Effect::Write { io, store, offset, data } => {
                Self { io, store, op: DiskOp::Write { offset, data } }
            }
            Effect::Discard { io, store, offset, length } => {
                Self { io, store, op: DiskOp::Discard { offset, length } }
            }
            Effect::Sync { io, store } => Self { io, store, op: DiskOp::Sync },
            other => return Err(other),
        })
    }
}

impl<D: Disk> Store<D> {
    pub(super) fn new(name: String, disk: D) -> Self {
        Self {
            name,
            disk,
            offline: AtomicBool::new(false),
            troubles: Troubles::default(),
            under_way: AtomicUsize::new(0),
        }
    }

    async fn perform(&self, op: DiskOp) -> Result<Bytes, DiskError> {
        self.under_way.fetch_add(1, Ordering::Relaxed);
        let _under_way = UnderWay(&self.under_way);
        if self.offline.load(Ordering::Acquire) {
            return Err(DiskError::Failed);
        }
        let (what, result) = match op {
            DiskOp::Read { offset, length } => {
                let read = self.disk.read(offset, length).await;
                ("read", read.and_then(|bytes| exactly(bytes, length)))
            }
            DiskOp::Write { offset, data } => {
                ("write", self.disk.write(offset, data).await.map(|()| Bytes::new()))
            }
            DiskOp::Discard { offset, length } => {
                ("discard", self.disk.discard(offset, length).await.map(|()| Bytes::new()))
            }
            DiskOp::Sync => {
                let synced = self.disk.sync().await;
                if synced.is_err() && !self.offline.swap(true, Ordering::AcqRel) {
                    error!(store = %self.name, "sync failed: the store is offline until a restart");
                }
                ("sync", synced.map(|()| Bytes::new()))
            }
        };
        match result {
            // A sync failed meanwhile: a read may show what was there before the writes that are lost by that.
            Ok(_) if self.offline.load(Ordering::Acquire) => Err(DiskError::Failed),
            Ok(bytes) => {
                self.troubles.passed(&self.name, what);
                Ok(bytes)
            }
            Err(error) => {
                self.troubles.failed(&self.name, what, &error);
                Err(disk_error(&error))
            }
        }
    }
}

/// The disk operations of one task that are under way.
///
/// One that never ends is always among them: `FuturesUnordered` lets its task be polled anew each time when it has
/// polled all that it holds, and with a single operation under way that is each time, for nothing.
pub(super) struct Operations<F>(FuturesUnordered<Either<F, Pending<Event>>>);

impl<F: Future<Output = Event>> Operations<F> {
    pub(super) fn new() -> Self {
        let futures = FuturesUnordered::new();
        futures.push(Either::Right(pending()));
        Self(futures)
    }

    /// Takes one; it begins with the next [`Self::next`].
    pub(super) fn push(&self, operation: F) {
        self.0.push(Either::Left(operation));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.len() == 1
    }

    /// The end of one; `None`: there is none. May be dropped before it is ready.
    pub(super) async fn next(&mut self) -> Option<Event> {
        if self.is_empty() { None } else { self.0.next().await }
    }
}

/// Carries out one operation and tells of its end.
pub(super) async fn perform<D: Disk>(stores: Arc<Stores<D>>, work: DiskWork) -> Event {
    let result = match stores.0.get(&work.store) {
        Some(store) => store.perform(work.op).await,
        None => Err(DiskError::Failed),
    };
    Event::Disk { io: work.io, result }
}

/// What the firmware is told of an error.
pub(super) fn disk_error(error: &io::Error) -> DiskError {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            DiskError::Full
        }
        _ => DiskError::Failed,
    }
}

/// A disk that returns less than it was asked for has failed.
fn exactly(bytes: Bytes, length: u32) -> io::Result<Bytes> {
    if bytes.len() == length as usize { Ok(bytes) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

#[cfg(test)]
mod tests {
    use tokio::sync::Notify;

    use super::*;

    /// Its reads end when they are told to, and its syncs fail.
    struct Slow(Arc<Notify>);

    impl Disk for Slow {
        fn size(&self) -> u64 {
            1 << 20
        }

        async fn read(&self, _offset: u64, length: u32) -> io::Result<Bytes> {
            self.0.notified().await;
            Ok(Bytes::from(vec![1; length as usize]))
        }

        async fn write(&self, _offset: u64, _data: Vec<Bytes>) -> io::Result<()> {
            Ok(())
        }

        async fn discard(&self, _offset: u64, _length: u64) -> io::Result<()> {
            Ok(())
        }

        async fn sync(&self) -> io::Result<()> {
            Err(io::Error::other("a write was lost"))
        }
    }

    /// Found by `cargo xtask sim --scenario pair --seed 1413`: such a read showed what had been overwritten and told so.
    #[tokio::test]
    async fn a_read_that_ends_after_a_sync_failed_shows_nothing() {
        let goes_on = Arc::new(Notify::new());
        let store = Store::new("a".to_owned(), Slow(goes_on.clone()));
        let read = || store.perform(DiskOp::Read { offset: 0, length: 512 });
        let before = async {
            goes_on.notify_one();
            read().await
        };
        assert!(before.await.is_ok());
        let (read, synced) = tokio::join!(read(), async {
            let synced = store.perform(DiskOp::Sync).await;
            goes_on.notify_one();
            synced
        });
        assert_eq!((read, synced), (Err(DiskError::Failed), Err(DiskError::Failed)));
    }
}
