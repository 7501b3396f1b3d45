//! What an array is told when it starts, and what can be wrong with it.

use std::io;

use thiserror::Error;
use twintrack_core::layout::LayoutError;
use twintrack_core::{GeometryError, LoadError, NAME_BYTES_MAX};

use twintrack_link::Endpoint;

use super::metadata::MetadataError;
use super::superblock::SuperblockError;
use super::token::Token;
use crate::firmware::PoolPolicy;

/// What an array serves, and from what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where hosts connect.
    pub nbd: Vec<Endpoint>,
    /// Where commands are taken.
    pub control: Vec<Endpoint>,
    /// Where other arrays connect.
    pub link: Vec<Endpoint>,
    /// What has to be known to command the array over TCP; `None`: nothing. Who reaches a Unix socket needs none.
    pub control_token: Option<Token>,
    /// The pools with their stores. What the array already has stays, whether it is listed or not; what is new is
    /// added, empty.
    pub pools: Vec<PoolConfig>,
    /// The track size of an array that is formatted now: a power of two from 16 KiB to 1 MiB. One that was formatted
    /// before keeps its own.
    pub track_bytes: u32,
}

/// A pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolConfig {
    /// Unique among the pools, 1 to 64 bytes.
    pub name: String,
    /// Its stores, by the names under which the cabinet opens them: unique in the array, 1 to 4096 bytes.
    pub stores: Vec<String>,
    /// What it does when it runs full, and when it warns. Not part of the metadata: each start says it anew.
    pub policy: PoolPolicy,
}

/// Why an array cannot start, or had to stop.
#[derive(Debug, Error)]
pub enum ServeError {
    /// The configuration has no store.
    #[error("the configuration names no store: an array needs at least one pool with one store")]
    NoStore,
    /// A name is empty or too long.
    #[error(
        "the name {name:?} cannot be used: a pool's name has 1 to {NAME_BYTES_MAX} bytes, a store's 1 to 4096"
    )]
    Name {
        /// The name.
        name: String,
    },
    /// A pool is configured twice.
    #[error("pool {name} is configured twice")]
    PoolTwice {
        /// Its name.
        name: String,
    },
    /// A store is configured twice.
    #[error("store {name} is configured twice")]
    StoreTwice {
        /// Its name.
        name: String,
    },
    /// A store of the array is configured in another pool.
    #[error(
        "store {name} belongs to another pool than the one that the configuration says: a store cannot change pools"
    )]
    StoreMoved {
        /// Its name.
        name: String,
    },
    /// More pools, stores or tracks than can be numbered.
    #[error(
        "store {name} does not fit: an array has at most 65,536 pools and stores and 4,294,967,294 physical tracks"
    )]
    TooLarge {
        /// The first store that does not fit.
        name: String,
    },
    /// Not a track size.
    #[error(transparent)]
    TrackSize(#[from] GeometryError),
    /// A store cannot be laid out.
    #[error("store {name}: {source}")]
    Layout {
        /// Its name.
        name: String,
        /// Why.
        source: LayoutError,
    },
    /// A store cannot be opened, read or written.
    #[error("store {name} cannot be used: {source}")]
    Store {
        /// Its name.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// A store of this array does not begin as it should.
    #[error("store {name}: {source}")]
    Superblock {
        /// Its name.
        name: String,
        /// What is wrong.
        source: SuperblockError,
    },
    /// A store is another array's, or another store of this array.
    #[error(
        "store {name} belongs to array {serial:016x} as its {store}: it is not what this array knows by that name"
    )]
    ForeignStore {
        /// Its name.
        name: String,
        /// Whose it is.
        serial: u64,
        /// Which it is there.
        store: twintrack_core::StoreId,
    },
    /// A store that is to be added belongs to another array.
    #[error(
        "store {name} belongs to array {serial:016x}: if nothing on it is needed, clear its first 128 KiB (blkdiscard or \
         dd), then start again"
    )]
    StoreTaken {
        /// Its name.
        name: String,
        /// Whose it is.
        serial: u64,
    },
    /// A store is smaller than it was.
    #[error("store {name} has {size_bytes} bytes, but its tracks need {needed_bytes}: was it cut?")]
    StoreShrunk {
        /// Its name.
        name: String,
        /// Its size now.
        size_bytes: u64,
        /// What it needs.
        needed_bytes: u64,
    },
    /// The marker or the metadata file cannot be reached.
    #[error("the array's folder cannot be used: {0}")]
    Cabinet(#[source] io::Error),
    /// The metadata cannot be used.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    /// The metadata contradict themselves.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A socket cannot be bound.
    #[error("cannot listen on {endpoint}: {source}")]
    Bind {
        /// Where.
        endpoint: Endpoint,
        /// Why.
        source: io::Error,
    },
    /// Something that the array had begun does not end.
    #[error(
        "gave up after {seconds} s of waiting for {waiting}: look at the disk; what was flushed is safe, and the array \
         can be started again once the operating system has ended this process"
    )]
    Stuck {
        /// What did not end.
        waiting: String,
        /// How long it was waited for.
        seconds: u64,
    },
    /// The array was told to end and could not make durable all that it had answered.
    #[error("the array ended before everything written was durable")]
    UncleanEnd,
}
