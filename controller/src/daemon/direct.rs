//! I/O past the page cache (`O_DIRECT`): whole units of the disk, from and to memory that is aligned to them.
//!
//! Hosts use sectors of 512 bytes, and their payloads lie anywhere in memory. So what is written goes through a buffer of
//! ours, and what fills a unit in part is read, changed and written back. Two such writes to one unit go one after the
//! other, or the second would bring back what the first has replaced. Writes of whole units need no such care: those that
//! overlap are the caller's to order.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use rustix::fs::{AtFlags, OFlags, StatxFlags, fcntl_getfl, fcntl_setfl, ioctl_blksszget, statx};
use rustix::io::Errno;
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard, OwnedSemaphorePermit, Semaphore};

/// Where neither kernel nor disk says what they want: it fits every disk of today.
const USUAL_UNIT_BYTES: u32 = 4096;
/// A disk that wants more is none that this was made for.
const UNIT_BYTES_MAX: u32 = 64 << 10;
/// What is written at a time.
const BUFFER_BYTES: usize = 256 << 10;
/// What is written comes from memory that is aligned to the blocks of file systems, too, though the disk asks for less: from
/// any other ext4 takes a write to room that was not written before for one that fills a block in part, and does it alone.
const BLOCK_BYTES: usize = 4096;
/// Writes of one store under way at a time; more wait.
const BUFFERS_MAX: usize = 64;
/// AlignedBuffers that are kept for the next write.
const BUFFERS_KEPT_MAX: usize = 16;
/// Units that are written in part are told apart by so many locks.
const LOCKS: u64 = 64;

/// How one store is read and written directly.
#[derive(Debug)]
pub(super) struct Direct {
    /// Offsets, lengths and addresses are multiples of it: a power of two.
    unit: usize,
    buffers: Arc<AlignedBuffers>,
    locks: Vec<Arc<AsyncMutex<()>>>,
}

/// What one write holds until it has ended.
pub(super) struct Turn {
    buffers: Arc<AlignedBuffers>,
    _units: Vec<OwnedMutexGuard<()>>,
    _permit: OwnedSemaphorePermit,
}

impl Direct {
    /// Takes a file out of the page cache's hands. An error says what to do instead.
    pub(super) fn new(file: &File) -> io::Result<Self> {
        match fcntl_getfl(file).and_then(|flags| fcntl_setfl(file, flags | OFlags::DIRECT)) {
            Ok(()) => {}
            Err(Errno::INVAL) => return Err(refused()),
            Err(error) => return Err(error.into()),
        }
        Ok(Self::with_unit(unit(file)?))
    }

    fn with_unit(unit: usize) -> Self {
        let buffers =
            AlignedBuffers { unit, free: Mutex::default(), permits: Arc::new(Semaphore::new(BUFFERS_MAX)) };
        let locks = (0..LOCKS).map(|_| Arc::default()).collect();
        Self { unit, buffers: Arc::new(buffers), locks }
    }

    /// Bytes of the unit.
    pub(super) fn unit(&self) -> u64 {
        self.unit as u64
    }

    /// Waits until a write may begin.
    pub(super) async fn turn(&self, offset: u64, length: usize) -> io::Result<Turn> {
        // First the units, then the buffer: who has a buffer waits for nothing that somebody without one has.
        let mut units = Vec::new();
        for lock in self.shared(offset, length) {
            units.push(Arc::clone(&self.locks[lock]).lock_owned().await);
        }
        let permit = Arc::clone(&self.buffers.permits).acquire_owned().await.map_err(io::Error::other)?;
        Ok(Turn { buffers: Arc::clone(&self.buffers), _units: units, _permit: permit })
    }

    /// The locks of the units that a write fills in part, in the order in which everybody takes them.
    fn shared(&self, offset: u64, length: usize) -> impl Iterator<Item = usize> + use<> {
        let (unit, end) = (self.unit(), offset + length as u64);
        let lock = |at: u64| (!at.is_multiple_of(unit)).then_some((at / unit % LOCKS) as usize);
        let (head, tail) = (lock(offset), lock(end));
        [head.min(tail), head.max(tail).filter(|_| head != tail)].into_iter().flatten()
    }

    /// Reads `length` bytes at `offset`; blocks.
    pub(super) fn read(file: &File, unit: u64, offset: u64, length: u32) -> io::Result<Bytes> {
        let skip = (offset % unit) as usize;
        let wanted = skip + length as usize;
        let mut buffer = AlignedBuffer::new(wanted.next_multiple_of(unit as usize), unit as usize);
        read_whole(file, buffer.bytes(), offset - skip as u64, wanted)?;
        let begin = buffer.begin + skip;
        Ok(Bytes::from(buffer.memory).slice(begin..begin + length as usize))
    }
}

impl Turn {
    /// Writes the pieces one after the other from `offset` on; blocks.
    pub(super) fn write(self, file: &File, offset: u64, data: &[Bytes]) -> io::Result<()> {
        let unit = self.buffers.unit as u64;
        let end = offset + data.iter().map(|piece| piece.len() as u64).sum::<u64>();
        if end == offset {
            return Ok(());
        }
        let mut buffer = self.buffers.take();
        let mut at = offset - offset % unit;
        while at < end {
            let to = end.next_multiple_of(unit).min(at + BUFFER_BYTES as u64);
            let bytes = &mut buffer.bytes()[..(to - at) as usize];
            let last = to - unit;
            if at < offset || (last == at && end < to) {
                let first = &mut bytes[..unit as usize];
                read_whole(file, first, at, unit as usize)?;
            }
            if last > at && end < to {
                let first_of_last = (last - at) as usize;
                read_whole(file, &mut bytes[first_of_last..], last, unit as usize)?;
            }
            fill(bytes, at, offset, data);
            file.write_all_at(bytes, at)?;
            at = to;
        }
        self.buffers.give_back(buffer);
        Ok(())
    }
}

/// Copies to `bytes`, which begins at `at`, what of the pieces from `offset` on lies in it.
fn fill(bytes: &mut [u8], at: u64, offset: u64, data: &[Bytes]) {
    let within = at..at + bytes.len() as u64;
    let mut begin = offset;
    for piece in data {
        let end = begin + piece.len() as u64;
        let both: Range<u64> = begin.max(within.start)..end.min(within.end);
        if both.start < both.end {
            let from = &piece[(both.start - begin) as usize..(both.end - begin) as usize];
            bytes[(both.start - at) as usize..(both.end - at) as usize].copy_from_slice(from);
        }
        begin = end;
    }
}

/// Reads the first `wanted` bytes at least.
fn read_whole(file: &File, bytes: &mut [u8], offset: u64, wanted: usize) -> io::Result<()> {
    let mut done = 0;
    while done < wanted {
        match file.read_at(&mut bytes[done..], offset + done as u64) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(length) => done += length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// What offsets and lengths have to be multiples of.
fn unit(file: &File) -> io::Result<usize> {
    let told = statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN)?;
    let unit = if told.stx_mask & StatxFlags::DIOALIGN.bits() != 0 {
        told.stx_dio_offset_align.max(told.stx_dio_mem_align)
    } else if file.metadata()?.file_type().is_block_device() {
        ioctl_blksszget(file)?
    } else {
        USUAL_UNIT_BYTES
    };
    match unit {
        0 => Err(refused()),
        // Not less than what everybody uses, and than what a disk may want of memory.
        1..=UNIT_BYTES_MAX if unit.is_power_of_two() => Ok(unit.max(512) as usize),
        _ => Err(io::Error::new(
            io::ErrorKind::Unsupported,
            format!(
                "direct I/O there goes by {unit} bytes, which is not supported: set io = \"page-cache\" for the pool"
            ),
        )),
    }
}

fn refused() -> io::Error {
    let what = "its file system has no direct I/O: set io = \"page-cache\" for the pool";
    io::Error::new(io::ErrorKind::Unsupported, what)
}

/// AlignedBuffers to write from.
#[derive(Debug)]
struct AlignedBuffers {
    unit: usize,
    free: Mutex<Vec<AlignedBuffer>>,
    /// One for each buffer that may be in use.
    permits: Arc<Semaphore>,
}

impl AlignedBuffers {
    fn take(&self) -> AlignedBuffer {
        let kept = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        kept.unwrap_or_else(|| AlignedBuffer::new(BUFFER_BYTES, self.unit.max(BLOCK_BYTES)))
    }

    fn give_back(&self, buffer: AlignedBuffer) {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        if free.len() < BUFFERS_KEPT_MAX {
            free.push(buffer);
        }
    }
}

/// Aligned memory.
#[derive(Debug)]
struct AlignedBuffer {
    memory: Vec<u8>,
    begin: usize,
    length: usize,
}

impl AlignedBuffer {
    fn new(length: usize, alignment: usize) -> Self {
        let memory = vec![0; length + alignment];
        let address = memory.as_ptr().addr();
        Self { begin: address.next_multiple_of(alignment) - address, memory, length }
    }

    fn bytes(&mut self) -> &mut [u8] {
        &mut self.memory[self.begin..self.begin + self.length]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: u64 = 4 << 20;

    /// A file that is used by that unit; `None`, with a word: the file system there has no direct I/O.
    fn open(unit: usize) -> Option<(tempfile::NamedTempFile, Arc<File>, Arc<Direct>)> {
        let named = tempfile::NamedTempFile::new().unwrap();
        named.as_file().set_len(SIZE).unwrap();
        let file = named.reopen().unwrap();
        match Direct::new(&file) {
            Ok(found) => assert!(found.unit <= unit, "the disk wants {} bytes", found.unit),
            Err(error) => {
                eprintln!("skipped: {} in {}", error, std::env::temp_dir().display());
                return None;
            }
        }
        Some((named, Arc::new(file), Arc::new(Direct::with_unit(unit))))
    }

    async fn write(file: &File, direct: &Direct, offset: u64, data: &[Bytes]) {
        let turn = direct.turn(offset, data.iter().map(Bytes::len).sum()).await.unwrap();
        turn.write(file, offset, data).unwrap();
    }

    #[tokio::test]
    async fn whatever_is_written_wherever_nothing_else_changes() {
        let Some((named, file, direct)) = open(4096) else { return };
        let mut wanted = vec![0; SIZE as usize];
        let mut random = 0x9E37_79B9_7F4A_7C15u64;
        let mut next = |below: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % below
        };
        for round in 0..300u64 {
            // Lengths of nothing, of a sector, of some units, and of more than a buffer.
            let most = [1, 512, 20_000, 700_000][round as usize % 4];
            let length = next(most) as usize;
            let offset = next(SIZE - length as u64 + 1);
            let data: Vec<u8> = (0..length).map(|at| (at as u64 * 7 + round) as u8).collect();
            wanted[offset as usize..offset as usize + length].copy_from_slice(&data);
            let cut = next(length as u64 + 1) as usize;
            let pieces = [Bytes::copy_from_slice(&data[..cut]), Bytes::copy_from_slice(&data[cut..])];
            write(&file, &direct, offset, &pieces).await;
            let from = next(offset + 1);
            let read = Direct::read(&file, 4096, from, (offset - from) as u32 + length as u32).unwrap();
            assert!(read == wanted[from as usize..offset as usize + length], "round {round}");
        }
        assert!(std::fs::read(named.path()).unwrap() == wanted);
        let error = Direct::read(&file, 4096, SIZE - 10, 11).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    /// Eight sectors of one unit, each written again and again by a thread of its own.
    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn writes_to_parts_of_one_unit_do_not_lose_one_another() {
        const ROUNDS: u8 = 60;
        let Some((_named, file, direct)) = open(4096) else { return };
        let writers: Vec<_> = (0..8u64)
            .map(|sector| {
                let (file, direct) = (Arc::clone(&file), Arc::clone(&direct));
                tokio::spawn(async move {
                    for round in 1..=ROUNDS {
                        let data = [Bytes::from(vec![round; 512])];
                        write(&file, &direct, 8192 + sector * 512, &data).await;
                        let read = Direct::read(&file, 4096, 8192 + sector * 512, 512).unwrap();
                        assert!(
                            read == data[0],
                            "sector {sector}: an older content came back in round {round}"
                        );
                    }
                })
            })
            .collect();
        for writer in writers {
            writer.await.unwrap();
        }
        assert!(Direct::read(&file, 4096, 8192, 4096).unwrap() == vec![ROUNDS; 4096]);
    }

    #[test]
    fn buffers_are_aligned_and_not_hoarded() {
        for alignment in [512, 4096, 65536] {
            let buffers = Direct::with_unit(alignment).buffers;
            let mut taken: Vec<_> = (0..40).map(|_| buffers.take()).collect();
            for buffer in &mut taken {
                assert!(buffer.bytes().as_ptr().addr().is_multiple_of(alignment));
                assert_eq!(buffer.bytes().len(), BUFFER_BYTES);
            }
            taken.into_iter().for_each(|buffer| buffers.give_back(buffer));
            assert_eq!(buffers.free.lock().unwrap().len(), BUFFERS_KEPT_MAX);
        }
    }

    #[test]
    fn only_units_that_are_written_in_part_are_locked() {
        let direct = Direct::with_unit(4096);
        let locks = |offset, length| direct.shared(offset, length).collect::<Vec<_>>();
        let none: [usize; 0] = [];
        assert_eq!(locks(0, 8192), none);
        assert_eq!(locks(512, 512), [0]);
        assert_eq!(locks(512, 3584), [0]);
        assert_eq!(locks(8192, 512), [2]);
        assert_eq!(locks(512, 8192), [0, 2]);
        assert_eq!(locks(63 * 4096 + 512, 4096), [0, 63], "in one order for all");
        assert_eq!(locks(512, 64 * 4096), [0], "a lock is taken once");
        assert_eq!(locks(0, 0), none);
    }

    #[test]
    fn pieces_land_where_they_belong() {
        let data = [Bytes::from_static(b"abc"), Bytes::new(), Bytes::from_static(b"defghi")];
        for at in 0..20u64 {
            let mut bytes = [b'.'; 4];
            fill(&mut bytes, at, 5, &data);
            let whole = b".....abcdefghi..............";
            assert_eq!(bytes, whole[at as usize..at as usize + 4], "{at}");
        }
    }
}
