//! The metadata store: what is durable of an array apart from the blocks themselves, in one redb file.
//!
//! Tables of the file; the values are drawn in `records.rs`:
//!
//! ```text
//! table      key                              value
//! meta       "format"                         u32: version of these layouts, 4
//!            "array"                          u64 serial, u32 track size in bytes
//!            "boot"                           u32: the number of the last boot, from 1
//!            "next-id"                        u32: the least number that no device, session or group has had
//! pools      u16 pool                         pool
//! stores     u16 store                        store
//! devices    u32 device                       device
//! sessions   u32 session                      session
//! groups     u32 group                        nothing
//! entries    (u32 device, u32 track / 256)    chunk; none: 256 times zeros
//! versions   (u32 device, u32 track, u32 generation)    entry
//! own        (u32 session, u32 track)         entry
//! peers      u32 peer                         peer
//! pairs      (u64 serial, u32 number)         pair
//! owed       (u64 serial, u32 number, u32 region)       word: tracks that are not as the pair's copy pointer says
//! lacked     (u64 serial, u32 number, u32 region)       word
//! dirty      (u64 serial, u32 number, u32 region)       nothing
//! sagas      u64 request                      saga
//! copies     u32 copy                         copy
//! schedules  u32 schedule                     schedule
//! to-copy    (u32 copy, u32 region)           word: tracks that are not as the copy's pointer says
//! unequal    (u32 copy, u32 region)           word
//! ```
//!
//! A file without the last ten tables, from before there were pairs, opens: what is not there is empty, and the first
//! commit makes it.
//!
//! Versions: 1 was the first; in 2 sessions may be pinned, and pairs have what they go back to; in 3 there
//! are copies within the array; in 4 a pair may know since when it lacks something. An older file is one of 4 in which there is
//! none of that; it becomes one by the next boot.
//!
//! A commit is one redb transaction, durable when it returns; one that fails has an unknown outcome (crash rule 9).

mod copies;
mod load;
mod pairs;
mod records;

use std::fmt;

use redb::{Database, Durability, Key, ReadableTable, TableDefinition, WriteTransaction};
use thiserror::Error;
use twintrack_core::{
    Change, CopyId, DeviceId, Entry, Generation, Geometry, GeometryError, GroupId, PairId, PeerId, PoolId,
    PoolRecord, RegionNo, ScheduleId, SessionId, StoreId, StoreRecord, TrackNo,
};

use super::stores::disk_error;
use crate::firmware::DiskError;
use records::{CHUNK_TRACKS, Chunk, Damaged};

/// The version of the layouts that this program writes and reads.
pub const FORMAT_VERSION: u32 = 4;
/// What redb may keep in memory: commits touch few pages, and the firmware has the tables.
const CACHE_BYTES: usize = 16 << 20;

const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");
const POOLS: TableDefinition<u16, &[u8]> = TableDefinition::new("pools");
const STORES: TableDefinition<u16, &[u8]> = TableDefinition::new("stores");
const DEVICES: TableDefinition<u32, &[u8]> = TableDefinition::new("devices");
const SESSIONS: TableDefinition<u32, &[u8]> = TableDefinition::new("sessions");
const GROUPS: TableDefinition<u32, ()> = TableDefinition::new("groups");
const ENTRIES: TableDefinition<(u32, u32), &[u8]> = TableDefinition::new("entries");
const VERSIONS: TableDefinition<(u32, u32, u32), &[u8]> = TableDefinition::new("versions");
const OWN: TableDefinition<(u32, u32), &[u8]> = TableDefinition::new("own");
const PEERS: TableDefinition<u32, &[u8]> = TableDefinition::new("peers");
const PAIRS: TableDefinition<(u64, u32), &[u8]> = TableDefinition::new("pairs");
const OWED: TableDefinition<(u64, u32, u32), u64> = TableDefinition::new("owed");
const LACKED: TableDefinition<(u64, u32, u32), u64> = TableDefinition::new("lacked");
const DIRTY: TableDefinition<(u64, u32, u32), ()> = TableDefinition::new("dirty");
const SAGAS: TableDefinition<u64, &[u8]> = TableDefinition::new("sagas");
const COPIES: TableDefinition<u32, &[u8]> = TableDefinition::new("copies");
const SCHEDULES: TableDefinition<u32, &[u8]> = TableDefinition::new("schedules");
const TO_COPY: TableDefinition<(u32, u32), u64> = TableDefinition::new("to-copy");
const UNEQUAL: TableDefinition<(u32, u32), u64> = TableDefinition::new("unequal");

const FORMAT: &str = "format";
const ARRAY: &str = "array";
const BOOT: &str = "boot";
const NEXT_ID: &str = "next-id";

/// Which record is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordName {
    /// The version of the layouts.
    Format,
    /// Serial and track size.
    Array,
    /// The number of the last boot.
    Boot,
    /// The least unused number.
    NextId,
    /// A pool.
    Pool(PoolId),
    /// A store.
    Store(StoreId),
    /// A device.
    Device(DeviceId),
    /// A session.
    Session(SessionId),
    /// The entries of 256 tracks of a device from this one on.
    Entries(DeviceId, TrackNo),
    /// A version of a track.
    Version(DeviceId, TrackNo, Generation),
    /// A track of a session.
    Own(SessionId, TrackNo),
    /// Another array.
    Peer(PeerId),
    /// A half of a pair.
    Pair(PairId),
    /// What a half owes in a region.
    Owed(PairId, RegionNo),
    /// What a half lacks in a region.
    Lacked(PairId, RegionNo),
    /// How a request that spanned two arrays ended.
    Saga(u64),
    /// A copy within the array.
    Copy(CopyId),
    /// A schedule of copies.
    Schedule(ScheduleId),
    /// What is to be copied in a region.
    ToCopy(CopyId, RegionNo),
    /// What is unequal in a region.
    Unequal(CopyId, RegionNo),
}

impl fmt::Display for RecordName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Format => write!(f, "the format version"),
            Self::Array => write!(f, "the array's record"),
            Self::Boot => write!(f, "the number of the last boot"),
            Self::NextId => write!(f, "the next number"),
            Self::Pool(id) => write!(f, "the record of {id}"),
            Self::Store(id) => write!(f, "the record of {id}"),
            Self::Device(id) => write!(f, "the record of {id}"),
            Self::Session(id) => write!(f, "the record of {id}"),
            Self::Entries(id, track) => write!(f, "the entries of {id} from {track} on"),
            Self::Version(id, track, generation) => {
                write!(f, "the version of {id}/{track} up to {generation}")
            }
            Self::Own(id, track) => write!(f, "the entry of {id}/{track}"),
            Self::Peer(id) => write!(f, "the record of {id}"),
            Self::Pair(id) => write!(f, "the record of {id}"),
            Self::Owed(id, region) => write!(f, "what {id} owes in {region}"),
            Self::Lacked(id, region) => write!(f, "what {id} lacks in {region}"),
            Self::Copy(id) => write!(f, "the record of {id}"),
            Self::Schedule(id) => write!(f, "the record of {id}"),
            Self::ToCopy(id, region) => write!(f, "what {id} has to copy in {region}"),
            Self::Unequal(id, region) => write!(f, "what is unequal of {id} in {region}"),
            Self::Saga(request) => write!(f, "the result of request {request}"),
        }
    }
}

/// Why the metadata cannot be used.
#[derive(Debug, Error)]
pub enum MetadataError {
    /// The file could not be read or written.
    #[error("the metadata file failed")]
    Storage {
        /// What redb says.
        #[from]
        source: redb::Error,
    },
    /// The file is empty, though the array was formatted.
    #[error(
        "the metadata file is empty, though the array was formatted: put back the file that belongs to it"
    )]
    Empty,
    /// A record is missing or is not what it should be.
    #[error("the metadata file is damaged: {record} cannot be read")]
    Damaged {
        /// Which.
        record: RecordName,
    },
    /// Written by a newer program.
    #[error(
        "the metadata file has format version {found}, this program knows versions up to {FORMAT_VERSION}"
    )]
    NewerFormat {
        /// The file's version.
        found: u32,
    },
    /// Its track size is not one.
    #[error("the metadata file is damaged: {source}")]
    Geometry {
        /// What is wrong with it.
        #[from]
        source: GeometryError,
    },
}

impl MetadataError {
    /// What the firmware is told of it.
    pub(super) fn disk_error(&self) -> DiskError {
        match self {
            Self::Storage { source: redb::Error::Io(error) } => disk_error(error),
            _ => DiskError::Failed,
        }
    }
}

impl RecordName {
    /// As the error that says so.
    fn damaged(self) -> impl FnOnce(Damaged) -> MetadataError {
        move |Damaged| MetadataError::Damaged { record: self }
    }
}

/// Makes `?` work on each of redb's error types.
fn failed(error: impl Into<redb::Error>) -> MetadataError {
    MetadataError::Storage { source: error.into() }
}

/// What an array is, fixed when it was formatted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArrayRecord {
    /// Its serial number.
    pub serial: u64,
    /// Its track size.
    pub geometry: Geometry,
}

/// The open metadata file of one array. It writes when it is dropped: drop it where blocking is allowed.
#[derive(Debug)]
pub struct Metadata {
    database: Database,
    array: ArrayRecord,
}

impl Metadata {
    /// Creates the metadata of a new array in an empty file.
    pub fn create(backend: impl redb::StorageBackend, array: ArrayRecord) -> Result<Self, MetadataError> {
        let database = open_database(backend)?;
        let transaction = begin(&database)?;
        {
            // All tables are there from the start, so that a load finds them.
            let meta = &mut Tables::open(&transaction)?.meta;
            let mut record = array.serial.to_le_bytes().to_vec();
            record.extend(array.geometry.track_bytes().to_le_bytes());
            meta.insert(FORMAT, FORMAT_VERSION.to_le_bytes().as_slice()).map_err(failed)?;
            meta.insert(ARRAY, record.as_slice()).map_err(failed)?;
            meta.insert(BOOT, 0u32.to_le_bytes().as_slice()).map_err(failed)?;
            meta.insert(NEXT_ID, 1u32.to_le_bytes().as_slice()).map_err(failed)?;
        }
        transaction.commit().map_err(failed)?;
        Ok(Self { database, array })
    }

    /// Opens the metadata of a formatted array.
    pub fn open(backend: impl redb::StorageBackend) -> Result<Self, MetadataError> {
        if backend.len().map_err(|error| failed(redb::Error::Io(error)))? == 0 {
            return Err(MetadataError::Empty);
        }
        let database = open_database(backend)?;
        let array = read_array(&database)?;
        Ok(Self { database, array })
    }

    /// What the array is.
    pub fn array(&self) -> ArrayRecord {
        self.array
    }

    /// The pools, by number.
    pub fn pools(&self) -> Result<Vec<(PoolId, PoolRecord)>, MetadataError> {
        load::pools(&load::begin(&self.database)?)?.collect()
    }

    /// The stores, by number.
    pub fn stores(&self) -> Result<Vec<(StoreId, StoreRecord)>, MetadataError> {
        load::stores(&load::begin(&self.database)?)?.collect()
    }

    /// Begins a boot: returns its number, greater than any before, which is durable by then.
    pub fn begin_boot(&mut self) -> Result<u32, MetadataError> {
        let last = {
            let meta = load::begin(&self.database)?.open_table(META).map_err(failed)?;
            load::meta(&meta, BOOT, RecordName::Boot, |fields| fields.u32())?
        };
        let boot = last.checked_add(1).ok_or(MetadataError::Damaged { record: RecordName::Boot })?;
        let transaction = begin(&self.database)?;
        {
            let mut meta = transaction.open_table(META).map_err(failed)?;
            put(&mut meta, BOOT, Some(boot.to_le_bytes().to_vec()))?;
            // From now on there may be what an older program does not know.
            put(&mut meta, FORMAT, Some(FORMAT_VERSION.to_le_bytes().to_vec()))?;
        }
        transaction.commit().map_err(failed)?;
        Ok(boot)
    }

    /// Everything, as the changes that make it: pools, stores, next number, devices, sessions, groups, entries,
    /// versions, own tracks, peers, pairs, what they owe, lack and have marked, sagas, copies and their tracks, each in order of its key. Entries of zeros are left out.
    pub fn load(&self) -> Result<impl Iterator<Item = Result<Change, MetadataError>> + use<>, MetadataError> {
        load::everything(&self.database, self.array.geometry)
    }

    /// Makes changes durable, all or none. They take effect in order; a device or session that goes takes nothing
    /// else with it, a pair takes all that it owed, lacked and had marked. After an error the outcome is unknown and the file has to be opened anew (crash rule 9).
    pub fn commit(&mut self, changes: &[Change]) -> Result<(), MetadataError> {
        let transaction = begin(&self.database)?;
        {
            let mut tables = Tables::open(&transaction)?;
            for change in changes {
                tables.apply(change, self.array.geometry)?;
            }
            tables.apply_entries(changes, self.array.geometry)?;
        }
        transaction.commit().map_err(failed)
    }
}

fn open_database(backend: impl redb::StorageBackend) -> Result<Database, MetadataError> {
    Database::builder().set_cache_size(CACHE_BYTES).create_with_backend(backend).map_err(failed)
}

fn begin(database: &Database) -> Result<WriteTransaction, MetadataError> {
    let mut transaction = database.begin_write().map_err(failed)?;
    transaction.set_durability(Durability::Immediate).map_err(failed)?;
    Ok(transaction)
}

fn read_array(database: &Database) -> Result<ArrayRecord, MetadataError> {
    let transaction = load::begin(database)?;
    let meta = match transaction.open_table(META) {
        Err(redb::TableError::TableDoesNotExist(_)) => {
            return Err(MetadataError::Damaged { record: RecordName::Format });
        }
        other => other.map_err(failed)?,
    };
    let format = load::meta(&meta, FORMAT, RecordName::Format, |fields| fields.u32())?;
    if format > FORMAT_VERSION {
        return Err(MetadataError::NewerFormat { found: format });
    }
    if format == 0 {
        return Err(MetadataError::Damaged { record: RecordName::Format });
    }
    let (serial, track_bytes) =
        load::meta(&meta, ARRAY, RecordName::Array, |fields| Ok((fields.u64()?, fields.u32()?)))?;
    Ok(ArrayRecord { serial, geometry: Geometry::new(track_bytes)? })
}

/// The tables of a transaction that writes.
struct Tables<'t> {
    meta: redb::Table<'t, &'static str, &'static [u8]>,
    pools: redb::Table<'t, u16, &'static [u8]>,
    stores: redb::Table<'t, u16, &'static [u8]>,
    devices: redb::Table<'t, u32, &'static [u8]>,
    sessions: redb::Table<'t, u32, &'static [u8]>,
    groups: redb::Table<'t, u32, ()>,
    entries: redb::Table<'t, (u32, u32), &'static [u8]>,
    versions: redb::Table<'t, (u32, u32, u32), &'static [u8]>,
    own: redb::Table<'t, (u32, u32), &'static [u8]>,
    peers: redb::Table<'t, u32, &'static [u8]>,
    pairs: redb::Table<'t, (u64, u32), &'static [u8]>,
    owed: redb::Table<'t, (u64, u32, u32), u64>,
    lacked: redb::Table<'t, (u64, u32, u32), u64>,
    dirty: redb::Table<'t, (u64, u32, u32), ()>,
    sagas: redb::Table<'t, u64, &'static [u8]>,
    copies: redb::Table<'t, u32, &'static [u8]>,
    schedules: redb::Table<'t, u32, &'static [u8]>,
    to_copy: redb::Table<'t, (u32, u32), u64>,
    unequal: redb::Table<'t, (u32, u32), u64>,
}

impl<'t> Tables<'t> {
    fn open(transaction: &'t WriteTransaction) -> Result<Self, MetadataError> {
        Ok(Self {
            meta: transaction.open_table(META).map_err(failed)?,
            pools: transaction.open_table(POOLS).map_err(failed)?,
            stores: transaction.open_table(STORES).map_err(failed)?,
            devices: transaction.open_table(DEVICES).map_err(failed)?,
            sessions: transaction.open_table(SESSIONS).map_err(failed)?,
            groups: transaction.open_table(GROUPS).map_err(failed)?,
            entries: transaction.open_table(ENTRIES).map_err(failed)?,
            versions: transaction.open_table(VERSIONS).map_err(failed)?,
            own: transaction.open_table(OWN).map_err(failed)?,
            peers: transaction.open_table(PEERS).map_err(failed)?,
            pairs: transaction.open_table(PAIRS).map_err(failed)?,
            owed: transaction.open_table(OWED).map_err(failed)?,
            lacked: transaction.open_table(LACKED).map_err(failed)?,
            dirty: transaction.open_table(DIRTY).map_err(failed)?,
            sagas: transaction.open_table(SAGAS).map_err(failed)?,
            copies: transaction.open_table(COPIES).map_err(failed)?,
            schedules: transaction.open_table(SCHEDULES).map_err(failed)?,
            to_copy: transaction.open_table(TO_COPY).map_err(failed)?,
            unequal: transaction.open_table(UNEQUAL).map_err(failed)?,
        })
    }

    /// Every kind of change but entries.
    fn apply(&mut self, change: &Change, geometry: Geometry) -> Result<(), MetadataError> {
        match change {
            Change::Pool(id, record) => put(&mut self.pools, id.0, Some(records::put_pool(record))),
            Change::Store(id, record) => put(&mut self.stores, id.0, Some(records::put_store(record))),
            Change::NextId(next) => put(&mut self.meta, NEXT_ID, Some(next.to_le_bytes().to_vec())),
            Change::Device(id, record) => {
                put(&mut self.devices, id.0, record.as_ref().map(records::put_device))
            }
            Change::Session(id, record) => {
                put(&mut self.sessions, id.0, record.as_ref().map(records::put_session))
            }
            Change::Group(GroupId(id), true) => self.groups.insert(id, ()).map(drop).map_err(failed),
            Change::Group(GroupId(id), false) => self.groups.remove(id).map(drop).map_err(failed),
            Change::Entry(..) => Ok(()),
            Change::Version(id, track, generation, entry) => {
                let entry = entry.map(|entry| records::put_entry(entry, geometry));
                put(&mut self.versions, (id.0, track.0, generation.0), entry)
            }
            Change::Own(id, track, entry) => {
                let entry = entry.map(|entry| records::put_entry(entry, geometry));
                put(&mut self.own, (id.0, track.0), entry)
            }
            Change::Peer(id, record) => put(&mut self.peers, id.0, record.as_ref().map(pairs::put_peer)),
            Change::Pair(id, record) => {
                if record.is_none() {
                    let range = (id.serial, id.number, 0)..=(id.serial, id.number, u32::MAX);
                    self.owed.retain_in(range.clone(), |_, _| false).map_err(failed)?;
                    self.lacked.retain_in(range.clone(), |_, _| false).map_err(failed)?;
                    self.dirty.retain_in(range, |_, ()| false).map_err(failed)?;
                }
                put(&mut self.pairs, (id.serial, id.number), record.as_ref().map(pairs::put_pair))
            }
            Change::Owed(id, region, word) => {
                put_word(&mut self.owed, (id.serial, id.number, region.0), *word)
            }
            Change::Lacked(id, region, word) => {
                put_word(&mut self.lacked, (id.serial, id.number, region.0), *word)
            }
            Change::Copy(id, record) => {
                if record.is_none() {
                    let range = (id.0, 0)..=(id.0, u32::MAX);
                    self.to_copy.retain_in(range.clone(), |_, _| false).map_err(failed)?;
                    self.unequal.retain_in(range, |_, _| false).map_err(failed)?;
                }
                put(&mut self.copies, id.0, record.as_ref().map(copies::put_copy))
            }
            Change::Schedule(id, record) => {
                put(&mut self.schedules, id.0, record.as_ref().map(copies::put_schedule))
            }
            Change::ToCopy(id, region, word) => put_word(&mut self.to_copy, (id.0, region.0), *word),
            Change::Unequal(id, region, word) => put_word(&mut self.unequal, (id.0, region.0), *word),
            Change::Dirty(id, region, true) => {
                self.dirty.insert((id.serial, id.number, region.0), ()).map(drop).map_err(failed)
            }
            Change::Dirty(id, region, false) => {
                self.dirty.remove((id.serial, id.number, region.0)).map(drop).map_err(failed)
            }
            Change::Saga(request, outcome) => {
                put(&mut self.sagas, *request, outcome.as_ref().map(pairs::put_saga))
            }
        }
    }

    /// The entries: each chunk is read, changed and written once, in order of the keys.
    fn apply_entries(&mut self, changes: &[Change], geometry: Geometry) -> Result<(), MetadataError> {
        let mut entries: Vec<(DeviceId, TrackNo, Entry)> = changes
            .iter()
            .filter_map(|change| match change {
                Change::Entry(id, track, entry) => Some((*id, *track, *entry)),
                _ => None,
            })
            .collect();
        // Stable: of two changes of one track the later stays the later.
        entries.sort_by_key(|(id, track, _)| (*id, track.0 / CHUNK_TRACKS));
        for group in entries.chunk_by(|a, b| a.0 == b.0 && a.1.0 / CHUNK_TRACKS == b.1.0 / CHUNK_TRACKS) {
            let (id, number) = (group[0].0, group[0].1.0 / CHUNK_TRACKS);
            let record = RecordName::Entries(id, TrackNo(number * CHUNK_TRACKS));
            let mut chunk = match self.entries.get((id.0, number)).map_err(failed)? {
                Some(bytes) => Chunk::decode(bytes.value(), geometry).map_err(record.damaged())?,
                None => Chunk::zeros(),
            };
            for (_, track, entry) in group {
                chunk.0[(track.0 % CHUNK_TRACKS) as usize] = *entry;
            }
            let chunk = if chunk.is_zeros() { None } else { Some(chunk.encode(geometry)) };
            put(&mut self.entries, (id.0, number), chunk)?;
        }
        Ok(())
    }
}

/// Writes or removes one record.
fn put<'k, K: Key + 'static>(
    table: &mut redb::Table<'_, K, &'static [u8]>,
    key: impl std::borrow::Borrow<K::SelfType<'k>>,
    value: Option<Vec<u8>>,
) -> Result<(), MetadataError> {
    match value {
        Some(value) => table.insert(key, value.as_slice()).map(drop),
        None => table.remove(key).map(drop),
    }
    .map_err(failed)
}

/// Writes or removes the word of a region.
fn put_word<K: Key + 'static>(
    table: &mut redb::Table<'_, K, u64>,
    key: impl for<'k> std::borrow::Borrow<K::SelfType<'k>>,
    word: u64,
) -> Result<(), MetadataError> {
    match word {
        0 => table.remove(key).map(drop),
        word => table.insert(key, word).map(drop),
    }
    .map_err(failed)
}

#[cfg(test)]
mod tests;
