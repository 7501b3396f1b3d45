//! Reads everything back, one record at a time.

use redb::{Database, Key, ReadOnlyTable, ReadTransaction, ReadableDatabase, TableDefinition, Value};
use twintrack_core::{
    Change, CopyId, DeviceId, Generation, Geometry, GroupId, PairId, PeerId, PoolId, PoolRecord, RegionNo,
    ScheduleId, SessionId, StoreId, StoreRecord, TrackNo,
};

use super::records::{self, CHUNK_TRACKS, Chunk, Damaged, Fields};
use super::{
    COPIES, DEVICES, DIRTY, ENTRIES, GROUPS, LACKED, META, MetadataError, NEXT_ID, OWED, OWN, PAIRS, PEERS,
    POOLS, RecordName, SAGAS, SCHEDULES, SESSIONS, STORES, TO_COPY, UNEQUAL, VERSIONS, failed,
};
use super::{copies, pairs};

pub(super) fn begin(database: &Database) -> Result<ReadTransaction, MetadataError> {
    database.begin_read().map_err(failed)
}

/// A record of the table `meta`.
pub(super) fn meta<T>(
    table: &ReadOnlyTable<&'static str, &'static [u8]>,
    key: &str,
    name: RecordName,
    read: impl FnOnce(&mut Fields<'_>) -> Result<T, Damaged>,
) -> Result<T, MetadataError> {
    let bytes = table.get(key).map_err(failed)?.ok_or(MetadataError::Damaged { record: name })?;
    let mut fields = Fields(bytes.value());
    read(&mut fields).and_then(|value| fields.end(value)).map_err(name.damaged())
}

pub(super) fn pools(
    transaction: &ReadTransaction,
) -> Result<impl Iterator<Item = Result<(PoolId, PoolRecord), MetadataError>> + use<>, MetadataError> {
    rows(transaction, POOLS, |key, value| {
        let id = PoolId(key);
        Ok((id, records::get_pool(value).map_err(RecordName::Pool(id).damaged())?))
    })
}

pub(super) fn stores(
    transaction: &ReadTransaction,
) -> Result<impl Iterator<Item = Result<(StoreId, StoreRecord), MetadataError>> + use<>, MetadataError> {
    rows(transaction, STORES, |key, value| {
        let id = StoreId(key);
        Ok((id, records::get_store(value).map_err(RecordName::Store(id).damaged())?))
    })
}

pub(super) fn everything(
    database: &Database,
    geometry: Geometry,
) -> Result<impl Iterator<Item = Result<Change, MetadataError>> + use<>, MetadataError> {
    let from = &begin(database)?;
    let next_id =
        meta(&from.open_table(META).map_err(failed)?, NEXT_ID, RecordName::NextId, |fields| fields.u32())?;
    let pools = pools(from)?.map(|row| row.map(|(id, record)| Change::Pool(id, record)));
    let stores = stores(from)?.map(|row| row.map(|(id, record)| Change::Store(id, record)));
    let devices = rows(from, DEVICES, |key, value| {
        let id = DeviceId(key);
        Ok(Change::Device(id, Some(records::get_device(value).map_err(RecordName::Device(id).damaged())?)))
    })?;
    let sessions = rows(from, SESSIONS, |key, value| {
        let id = SessionId(key);
        Ok(Change::Session(id, Some(records::get_session(value).map_err(RecordName::Session(id).damaged())?)))
    })?;
    let groups = rows(from, GROUPS, |key, ()| Ok(Change::Group(GroupId(key), true)))?;
    let chunks = rows(from, ENTRIES, move |(device, number), value| {
        let (id, first) = (DeviceId(device), TrackNo(number.saturating_mul(CHUNK_TRACKS)));
        Ok((id, first, Chunk::decode(value, geometry).map_err(RecordName::Entries(id, first).damaged())?))
    })?;
    let versions = rows(from, VERSIONS, move |(device, track, generation), value| {
        let (id, track, generation) = (DeviceId(device), TrackNo(track), Generation(generation));
        let name = RecordName::Version(id, track, generation);
        Ok(Change::Version(
            id,
            track,
            generation,
            Some(records::get_entry(value, geometry).map_err(name.damaged())?),
        ))
    })?;
    let own = rows(from, OWN, move |(session, track), value| {
        let (id, track) = (SessionId(session), TrackNo(track));
        let name = RecordName::Own(id, track);
        Ok(Change::Own(id, track, Some(records::get_entry(value, geometry).map_err(name.damaged())?)))
    })?;
    Ok(pools
        .chain(stores)
        .chain(std::iter::once(Ok(Change::NextId(next_id))))
        .chain(devices)
        .chain(sessions)
        .chain(groups)
        .chain(chunks.flat_map(entries))
        .chain(versions)
        .chain(own)
        .chain(remote(from)?))
}

/// Peers, then pairs and what refers to them, then sagas. A file from before there were pairs has none of the tables.
fn remote(
    from: &ReadTransaction,
) -> Result<impl Iterator<Item = Result<Change, MetadataError>> + use<>, MetadataError> {
    let peers = later_rows(from, PEERS, |key, value| {
        let id = PeerId(key);
        Ok(Change::Peer(id, Some(pairs::get_peer(value).map_err(RecordName::Peer(id).damaged())?)))
    })?;
    let pairs = later_rows(from, PAIRS, |(serial, number), value| {
        let id = PairId { serial, number };
        Ok(Change::Pair(id, Some(pairs::get_pair(value).map_err(RecordName::Pair(id).damaged())?)))
    })?;
    let owed = later_rows(from, OWED, move |(serial, number, region), value| {
        let (id, region) = (PairId { serial, number }, RegionNo(region));
        Ok(Change::Owed(id, region, word(value, RecordName::Owed(id, region))?))
    })?;
    let lacked = later_rows(from, LACKED, move |(serial, number, region), value| {
        let (id, region) = (PairId { serial, number }, RegionNo(region));
        Ok(Change::Lacked(id, region, word(value, RecordName::Lacked(id, region))?))
    })?;
    let dirty = later_rows(from, DIRTY, |(serial, number, region), ()| {
        Ok(Change::Dirty(PairId { serial, number }, RegionNo(region), true))
    })?;
    let sagas = later_rows(from, SAGAS, |request, value| {
        let outcome = pairs::get_saga(value).map_err(RecordName::Saga(request).damaged())?;
        Ok(Change::Saga(request, Some(outcome)))
    })?;
    Ok(peers.chain(pairs).chain(owed).chain(lacked).chain(dirty).chain(sagas).chain(copies(from)?))
}

/// Copies within the array, and their tracks. A file from before there were any has none of the tables.
fn copies(
    from: &ReadTransaction,
) -> Result<impl Iterator<Item = Result<Change, MetadataError>> + use<>, MetadataError> {
    let copies = later_rows(from, COPIES, |key, value| {
        let id = CopyId(key);
        Ok(Change::Copy(id, Some(copies::get_copy(value).map_err(RecordName::Copy(id).damaged())?)))
    })?;
    let to_copy = later_rows(from, TO_COPY, |(copy, region), value| {
        let (id, region) = (CopyId(copy), RegionNo(region));
        Ok(Change::ToCopy(id, region, word(value, RecordName::ToCopy(id, region))?))
    })?;
    let unequal = later_rows(from, UNEQUAL, |(copy, region), value| {
        let (id, region) = (CopyId(copy), RegionNo(region));
        Ok(Change::Unequal(id, region, word(value, RecordName::Unequal(id, region))?))
    })?;
    let schedules = later_rows(from, SCHEDULES, |key, value| {
        let id = ScheduleId(key);
        let record = copies::get_schedule(value).map_err(RecordName::Schedule(id).damaged())?;
        Ok(Change::Schedule(id, Some(record)))
    })?;
    Ok(copies.chain(to_copy).chain(unequal).chain(schedules))
}

fn word(word: u64, name: RecordName) -> Result<u64, MetadataError> {
    if word == 0 { Err(name.damaged()(Damaged)) } else { Ok(word) }
}

/// The entries of a chunk that are not zeros.
fn entries(
    chunk: Result<(DeviceId, TrackNo, Chunk), MetadataError>,
) -> impl Iterator<Item = Result<Change, MetadataError>> {
    let (chunk, error) = match chunk {
        Ok(chunk) => (Some(chunk), None),
        Err(error) => (None, Some(Err(error))),
    };
    let entries = chunk.into_iter().flat_map(|(id, first, chunk)| {
        let entries = chunk.0.into_iter().zip(first.0..).filter(|(entry, _)| !entry.is_zeros());
        entries.map(move |(entry, track)| Ok(Change::Entry(id, TrackNo(track), entry)))
    });
    error.into_iter().chain(entries)
}

/// The rows of a table that older files do not have.
fn later_rows<K, V, T, F>(
    transaction: &ReadTransaction,
    table: TableDefinition<K, V>,
    read: F,
) -> Result<impl Iterator<Item = Result<T, MetadataError>> + use<K, V, T, F>, MetadataError>
where
    K: Key + for<'a> Value<SelfType<'a> = K> + 'static,
    V: Value + 'static,
    F: Fn(K, V::SelfType<'_>) -> Result<T, MetadataError>,
{
    let there = match transaction.open_table(table) {
        Err(redb::TableError::TableDoesNotExist(_)) => false,
        other => other.map(|_| true).map_err(failed)?,
    };
    let rows = if there { Some(rows(transaction, table, read)?) } else { None };
    Ok(rows.into_iter().flatten())
}

/// The rows of a table, in order of their keys.
fn rows<K, V, T, F>(
    transaction: &ReadTransaction,
    table: TableDefinition<K, V>,
    read: F,
) -> Result<impl Iterator<Item = Result<T, MetadataError>> + use<K, V, T, F>, MetadataError>
where
    K: Key + for<'a> Value<SelfType<'a> = K> + 'static,
    V: Value + 'static,
    F: Fn(K, V::SelfType<'_>) -> Result<T, MetadataError>,
{
    let rows = transaction.open_table(table).map_err(failed)?.range::<K>(..).map_err(failed)?;
    Ok(rows.map(move |row| {
        let (key, value) = row.map_err(failed)?;
        read(key.value(), value.value())
    }))
}
