//! What the shell needs of the world: a network, disks, and the few things that only an environment can know.
//! The daemon gives it tokio and files, the simulator turmoil and simulated disks.

use std::fmt::Debug;
use std::future::{Future, ready};
use std::io;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use twintrack_link::Endpoint;

/// Sockets.
pub trait Net: Clone + Send + Sync + 'static {
    /// A bound socket.
    type Listener: Send + 'static;
    /// A connection.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// Listens on an endpoint.
    fn bind(&self, endpoint: &Endpoint) -> impl Future<Output = io::Result<Self::Listener>> + Send;
    /// The next connection. May be dropped before it is ready, and then loses none.
    fn accept(&self, listener: &mut Self::Listener) -> impl Future<Output = io::Result<Self::Stream>> + Send;

    /// Connects to another array, encrypted if that is how it is to be. May be dropped before it is ready; a deadline is
    /// the caller's.
    fn dial(&self, _endpoint: &Endpoint) -> impl Future<Output = io::Result<Self::Stream>> + Send {
        ready(Err(io::ErrorKind::Unsupported.into()))
    }

    /// Whether nothing may be served on a fresh connection before it is encrypted. A network without encryption leaves
    /// it at that.
    fn requires_encryption(&self, _stream: &Self::Stream) -> bool {
        false
    }
    /// Does the server's part of a TLS handshake, which the client begins, and checks the client. A deadline is the
    /// caller's. An encrypted stream may hold back what was written until it is flushed.
    fn encrypt(&self, _stream: Self::Stream) -> impl Future<Output = io::Result<Self::Stream>> + Send {
        ready(Err(io::ErrorKind::Unsupported.into()))
    }
}

/// One store of blocks. Operations may run at the same time and end in any order; what overlaps is the caller's to
/// order. The shell drops none before its end, but with the whole array. A write is durable once a sync begun after
/// its end has ended well.
pub trait Disk: Send + Sync + 'static {
    /// Bytes of it.
    fn size(&self) -> u64;
    /// Reads `length` bytes at `offset`.
    fn read(&self, offset: u64, length: u32) -> impl Future<Output = io::Result<Bytes>> + Send;
    /// Writes the pieces one after the other from `offset` on.
    fn write(&self, offset: u64, data: Vec<Bytes>) -> impl Future<Output = io::Result<()>> + Send;
    /// Gives the room back; the content is undefined until the next write.
    fn discard(&self, offset: u64, length: u64) -> impl Future<Output = io::Result<()>> + Send;
    /// Makes every write that has ended durable. After a failure nothing written since the last good sync may be
    /// counted on, whatever a later sync says.
    fn sync(&self) -> impl Future<Output = io::Result<()>> + Send;
    /// Takes the room of a part for good, so that no write to it ever finds none; what lies there may become zeros.
    /// A disk that has all its room has nothing to do.
    fn reserve(&self, _offset: u64, _length: u64) -> impl Future<Output = io::Result<()>> + Send {
        ready(Ok(()))
    }
    /// How far a disk that takes its room as it is written can get. `None`: it has all its room.
    fn thin(&self) -> impl Future<Output = io::Result<Option<Thin>>> + Send {
        ready(Ok(None))
    }
}

/// The room of a disk that takes it as it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Thin {
    /// What it takes it from; the same number is the same place.
    pub source: u64,
    /// What is left there.
    pub free_bytes: u64,
    /// What the disk may still take.
    pub missing_bytes: u64,
}

/// The disks of one array: its stores by name, and the small file that holds its metadata.
pub trait Cabinet: Send + Sync + 'static {
    /// A store.
    type Disk: Disk;
    /// What redb writes the metadata to.
    type Metadata: redb::StorageBackend;

    /// Opens a store.
    fn open(&self, store: &str) -> impl Future<Output = io::Result<Self::Disk>> + Send;
    /// Whether formatting was completed (crash rule 8): the marker is there.
    fn is_formatted(&self) -> io::Result<bool>;
    /// Begins to format, and keeps durably as whose array: that serial number, or the one with which an attempt that
    /// was interrupted began. Only stores that bear it, or none, become the array's.
    fn begin_format(&self, serial: u64) -> io::Result<u64>;
    /// Makes the metadata file empty, to format anew.
    fn wipe_metadata(&self) -> io::Result<()>;
    /// Writes the marker, durably, once everything else is durable.
    fn mark_formatted(&self) -> io::Result<()>;
    /// Opens the metadata file.
    fn metadata(&self) -> io::Result<Self::Metadata>;
    /// Runs a blocking piece of work on the metadata, one at a time: in the daemon on a thread of its own, in the
    /// simulator inline, with simulated time before and after.
    fn blocking<R: Send + 'static>(
        &self,
        work: impl FnOnce() -> R + Send + 'static,
    ) -> impl Future<Output = R> + Send;
}

/// What only an environment knows.
pub trait Env: Clone + Debug + Send + Sync + 'static {
    /// Wall time in ms since 1970.
    fn wall_ms(&self) -> u64;
    /// Random bits, for serial numbers.
    fn entropy(&self) -> u64;
}
