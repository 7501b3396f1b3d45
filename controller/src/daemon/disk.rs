//! A store over a file or a block device, through the page cache or past it (`direct`).
//!
//! What the page cache can answer at once is done in the caller's task: reads that it holds, and writes, which it
//! takes in. What would wait for the device goes to a thread that may block, but for syncs on a device that does them
//! in less time than it takes to change threads twice on a busy machine.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, IoSlice, IoSliceMut, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use rustix::fs::{FallocateFlags, OFlags, fallocate, fstatvfs};
use rustix::io::{Errno, ReadWriteFlags, preadv2, pwritev2, retry_on_intr};

use tokio::time::Instant;

use super::buffers::Buffers;
use super::direct::Direct;
use super::room::RoomAhead;
use super::settings::StoreIo;
use crate::shell::{Disk, Thin};

/// Pieces that one system call takes (`IOV_MAX`).
const PIECES_MAX: usize = 1024;
/// A sync that usually takes less is done in the caller's task. It is also how long others may have to wait for it.
const SHORT_SYNC_US: u64 = 500;

/// A store that is open. Nobody else who asks has it open.
#[derive(Debug)]
pub struct FileDisk {
    file: Arc<File>,
    size: u64,
    /// `None`: through the page cache.
    direct: Option<Direct>,
    /// Of a file that is written directly.
    room_ahead: Option<Arc<RoomAhead>>,
    /// A block device is left as it is: what `discard` leaves behind is undefined anyway.
    punches_holes: bool,
    /// Whether the file system can read, and write, only what it can at once.
    reads_nowait: AtomicBool,
    writes_nowait: AtomicBool,
    usual_sync_us: Arc<AtomicU64>,
    buffers: Buffers,
}

impl FileDisk {
    /// Opens a store; with `create_bytes` creates it as a sparse file of that size if it is not there, or empty.
    pub fn open(path: &Path, create_bytes: Option<u64>, io: StoreIo) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        let is_device = match fs::metadata(path) {
            Ok(metadata) => metadata.file_type().is_block_device(),
            Err(error) if error.kind() == io::ErrorKind::NotFound && create_bytes.is_some() => {
                options.create_new(true);
                false
            }
            Err(error) => return Err(error),
        };
        if is_device {
            // Refused if it is mounted, or part of something.
            options.custom_flags(OFlags::EXCL.bits().cast_signed());
        }
        let mut file = options.open(path)?;
        if !is_device && !file.metadata()?.is_file() {
            let what = "it is neither a file nor a block device";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let what = "another process has it open as a store";
                return Err(io::Error::new(io::ErrorKind::ResourceBusy, what));
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
        let direct = match io {
            StoreIo::PageCache => None,
            StoreIo::Direct => Some(Direct::new(&file)?),
        };
        // The length of a device is not in its metadata.
        let mut size = file.seek(SeekFrom::End(0))?;
        if let Some(bytes) = create_bytes.filter(|_| !is_device && size == 0) {
            file.set_len(bytes)?;
            file.sync_all()?;
            super::sync_folder_of(path)?;
            size = bytes;
        }
        if let Some(direct) = &direct {
            size -= size % direct.unit();
        }
        let room_ahead = (direct.is_some() && !is_device).then(|| Arc::new(RoomAhead::new(size)));
        Ok(Self {
            file: Arc::new(file),
            size,
            direct,
            room_ahead,
            punches_holes: !is_device,
            reads_nowait: AtomicBool::new(true),
            writes_nowait: AtomicBool::new(true),
            // Unknown: nobody waits for the first ones.
            usual_sync_us: Arc::new(AtomicU64::new(4 * SHORT_SYNC_US)),
            buffers: Buffers::default(),
        })
    }

    /// Reads from the page cache what it has of the beginning: so many bytes.
    fn read_cached(&self, offset: u64, out: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while done < out.len() && self.reads_nowait.load(Ordering::Relaxed) {
            let mut pieces = [IoSliceMut::new(&mut out[done..])];
            match preadv2(&*self.file, &mut pieces, offset + done as u64, ReadWriteFlags::NOWAIT) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(length) => done += length,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => self.reads_nowait.store(false, Ordering::Relaxed),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(done)
    }

    /// Writes what the page cache takes; returns how much that is if it is not all.
    fn write_cached(&self, offset: u64, data: &[Bytes]) -> io::Result<Option<usize>> {
        let mut slices: Vec<_> = data.iter().map(|piece| IoSlice::new(piece)).collect();
        let mut rest = &mut slices[..];
        IoSlice::advance_slices(&mut rest, 0);
        let mut done = 0;
        while !rest.is_empty() {
            let nowait = self.writes_nowait.load(Ordering::Relaxed);
            let flags = if nowait { ReadWriteFlags::NOWAIT } else { ReadWriteFlags::empty() };
            let now = &rest[..rest.len().min(PIECES_MAX)];
            match pwritev2(&*self.file, now, offset + done as u64, flags) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(length) => {
                    done += length;
                    IoSlice::advance_slices(&mut rest, length);
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) if nowait => return Ok(Some(done)),
                // Then it is written here, at the price of a wait when too much is dirty.
                Err(Errno::OPNOTSUPP | Errno::NOSYS) if nowait => {
                    self.writes_nowait.store(false, Ordering::Relaxed);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(None)
    }

    /// For a file system that cannot give room ahead.
    async fn write_zeros(&self, offset: u64, length: u64) -> io::Result<()> {
        const PIECE: u64 = 1 << 20;
        let zeros = Bytes::from(vec![0; PIECE.min(length) as usize]);
        let mut done = 0;
        while done < length {
            let now = PIECE.min(length - done);
            self.write(offset + done, vec![zeros.slice(..now as usize)]).await?;
            done += now;
        }
        Ok(())
    }

    async fn blocking<R: Send + 'static>(
        &self,
        work: impl FnOnce(&File) -> io::Result<R> + Send + 'static,
    ) -> io::Result<R> {
        let file = Arc::clone(&self.file);
        match tokio::task::spawn_blocking(move || work(&file)).await {
            Ok(result) => result,
            // Only when the program ends.
            Err(error) => Err(io::Error::other(error)),
        }
    }
}

impl Disk for FileDisk {
    fn size(&self) -> u64 {
        self.size
    }

    async fn read(&self, offset: u64, length: u32) -> io::Result<Bytes> {
        if let Some(direct) = &self.direct {
            let unit = direct.unit();
            return self.blocking(move |file| Direct::read(file, unit, offset, length)).await;
        }
        let mut buffer = self.buffers.take(length as usize);
        let done = self.read_cached(offset, buffer.as_mut())?;
        if done < length as usize {
            let read = move |file: &File| {
                file.read_exact_at(&mut buffer.as_mut()[done..], offset + done as u64)?;
                Ok(buffer)
            };
            buffer = self.blocking(read).await?;
        }
        Ok(buffer.freeze())
    }

    async fn write(&self, offset: u64, data: Vec<Bytes>) -> io::Result<()> {
        if let Some(direct) = &self.direct {
            let length = data.iter().map(Bytes::len).sum();
            let turn = direct.turn(offset, length).await?;
            let room_ahead = self.room_ahead.clone();
            let write = move |file: &File| {
                if let Some(room) = room_ahead {
                    room.take(file, offset, length as u64);
                }
                turn.write(file, offset, &data)
            };
            return self.blocking(write).await;
        }
        let Some(done) = self.write_cached(offset, &data)? else { return Ok(()) };
        self.blocking(move |file| write_rest(file, offset, &data, done)).await
    }

    async fn discard(&self, offset: u64, length: u64) -> io::Result<()> {
        if !self.punches_holes || length == 0 {
            return Ok(());
        }
        let punch = move |file: &File| {
            let mode = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            match retry_on_intr(|| fallocate(file, mode, offset, length)) {
                // A file system without holes keeps the room.
                Ok(()) | Err(Errno::OPNOTSUPP) => Ok(()),
                Err(error) => Err(error.into()),
            }
        };
        self.blocking(punch).await?;
        if let Some(room) = &self.room_ahead {
            room.given_back(offset, length);
        }
        Ok(())
    }

    async fn sync(&self) -> io::Result<()> {
        let usual_us = Arc::clone(&self.usual_sync_us);
        let sync = move |file: &File| {
            let begun = Instant::now();
            let result = file.sync_data();
            let took_us = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
            // One that took long is remembered for some time; an update that is lost does no harm.
            let usual = usual_us.load(Ordering::Relaxed);
            usual_us.store(usual - usual / 4 + took_us / 4, Ordering::Relaxed);
            result
        };
        if self.usual_sync_us.load(Ordering::Relaxed) < SHORT_SYNC_US {
            sync(&self.file)
        } else {
            self.blocking(sync).await
        }
    }

    async fn reserve(&self, offset: u64, length: u64) -> io::Result<()> {
        if !self.punches_holes || length == 0 {
            return Ok(());
        }
        let allocate = move |file: &File| match retry_on_intr(|| {
            fallocate(file, FallocateFlags::KEEP_SIZE, offset, length)
        }) {
            Ok(()) => Ok(true),
            Err(Errno::OPNOTSUPP) => Ok(false),
            Err(error) => Err(error.into()),
        };
        if self.blocking(allocate).await? { Ok(()) } else { self.write_zeros(offset, length).await }
    }

    async fn thin(&self) -> io::Result<Option<Thin>> {
        if !self.punches_holes {
            return Ok(None);
        }
        let look = |file: &File| {
            let metadata = file.metadata()?;
            // A block is 512 bytes here, whatever the file system's are.
            let missing_bytes = metadata.len().saturating_sub(metadata.blocks().saturating_mul(512));
            let space = fstatvfs(file)?;
            let free_bytes = space.f_bavail.saturating_mul(space.f_frsize);
            Ok((missing_bytes > 0).then(|| Thin { source: metadata.dev(), free_bytes, missing_bytes }))
        };
        self.blocking(look).await
    }
}

/// Writes what comes after the first `done` bytes.
fn write_rest(file: &File, offset: u64, data: &[Bytes], done: usize) -> io::Result<()> {
    let mut at = 0;
    for piece in data {
        let skip = done.saturating_sub(at).min(piece.len());
        file.write_all_at(&piece[skip..], offset + (at + skip) as u64)?;
        at += piece.len();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: u64 = 16 << 20;

    fn cached(path: &Path, create_bytes: Option<u64>) -> io::Result<FileDisk> {
        FileDisk::open(path, create_bytes, StoreIo::PageCache)
    }

    #[tokio::test]
    async fn what_is_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let disk = cached(&folder.path().join("store"), Some(SIZE)).unwrap();
        assert_eq!(disk.size(), SIZE);
        // More pieces than a system call takes, an empty one among them.
        let data: Vec<_> = (0..3000u32).map(|n| Bytes::from(vec![n as u8; (n % 5) as usize])).collect();
        let whole = data.concat();
        disk.write(777, data).await.unwrap();
        disk.sync().await.unwrap();
        assert_eq!(disk.read(777, whole.len() as u32).await.unwrap(), whole);
        // What was never written.
        assert_eq!(disk.read(SIZE - 10, 10).await.unwrap(), [0; 10][..]);
        disk.write(0, Vec::new()).await.unwrap();
    }

    #[tokio::test]
    async fn the_end_of_a_file_is_an_error_and_no_growth() {
        let folder = tempfile::tempdir().unwrap();
        let disk = cached(&folder.path().join("store"), Some(SIZE)).unwrap();
        let error = disk.read(SIZE - 10, 11).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[tokio::test]
    async fn a_discard_gives_the_room_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store");
        let disk = cached(&path, Some(SIZE)).unwrap();
        disk.write(1 << 20, vec![Bytes::from(vec![7; 4 << 20])]).await.unwrap();
        disk.sync().await.unwrap();
        let before = fs::metadata(&path).unwrap().blocks();
        disk.discard(1 << 20, 4 << 20).await.unwrap();
        disk.sync().await.unwrap();
        let metadata = fs::metadata(&path).unwrap();
        assert!(metadata.blocks() < before);
        assert_eq!(metadata.len(), SIZE);
    }

    #[tokio::test]
    async fn reserved_room_is_taken_and_the_rest_is_missing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store");
        let disk = cached(&path, Some(SIZE)).unwrap();
        disk.reserve(0, 2 << 20).await.unwrap();
        let metadata = fs::metadata(&path).unwrap();
        assert!(metadata.blocks() * 512 >= 2 << 20);
        assert_eq!(metadata.len(), SIZE);
        let thin = disk.thin().await.unwrap().unwrap();
        assert_eq!(thin.missing_bytes, SIZE - metadata.blocks() * 512);
        assert_eq!(thin.source, metadata.dev());
        disk.reserve(0, SIZE).await.unwrap();
        assert_eq!(disk.thin().await.unwrap(), None);
    }

    #[tokio::test]
    async fn zeros_are_written_where_room_cannot_be_taken() {
        let folder = tempfile::tempdir().unwrap();
        for io in [StoreIo::PageCache, StoreIo::Direct] {
            let path = folder.path().join(format!("{io:?}"));
            let disk = match FileDisk::open(&path, Some(SIZE), io) {
                Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                    eprintln!("skipped: {error} in {}", folder.path().display());
                    continue;
                }
                disk => disk.unwrap(),
            };
            disk.write(0, vec![Bytes::from(vec![7; 4 << 20])]).await.unwrap();
            disk.write_zeros(100, (3 << 20) + 5).await.unwrap();
            let read = disk.read(0, 4 << 20).await.unwrap();
            let end = 100 + (3 << 20) + 5;
            assert!(read[..100].iter().chain(&read[end..]).all(|byte| *byte == 7), "{io:?}");
            assert!(read[100..end].iter().all(|byte| *byte == 0), "{io:?}");
        }
    }

    #[test]
    fn the_rest_of_a_write_lands_where_it_belongs() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store");
        for done in 0..=9 {
            fs::write(&path, [b'.'; 12]).unwrap();
            let file = OpenOptions::new().write(true).open(&path).unwrap();
            let data = [Bytes::from_static(b"abc"), Bytes::new(), Bytes::from_static(b"defghi")];
            write_rest(&file, 1, &data, done).unwrap();
            let mut wanted = *b".abcdefghi..";
            wanted[1..=done].fill(b'.');
            assert_eq!(fs::read(&path).unwrap(), wanted);
        }
    }

    #[test]
    fn a_store_is_created_only_if_it_may_be_and_opened_by_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store");
        assert_eq!(cached(&path, None).unwrap_err().kind(), io::ErrorKind::NotFound);
        let disk = cached(&path, Some(SIZE)).unwrap();
        assert_eq!(cached(&path, None).unwrap_err().kind(), io::ErrorKind::ResourceBusy);
        drop(disk);
        assert_eq!(cached(&path, Some(2 * SIZE)).unwrap().size(), SIZE, "it keeps its size");
        assert!(cached(folder.path(), None).is_err());
    }
}
