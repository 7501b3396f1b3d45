//! From disks to a running firmware: formats what is not formatted, takes in new stores, checks the others, loads the
//! tables. A reload (crash rule 9) goes the same way from the metadata on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use tracing::info;
use twintrack_core::defect::{Defect, planted};
use twintrack_core::layout::{SUPERBLOCK_BYTES, StoreLayout};
use twintrack_core::{Change, Geometry, NAME_BYTES_MAX, PoolId, PoolRecord, StoreId, StoreRecord, Tables};

use super::config::{Config, ServeError};
use super::metadata::{ArrayRecord, Metadata};
use super::seams::{Cabinet, Disk, Env};
use super::stores::{Store, Stores};
use super::superblock::Superblock;
use crate::firmware::{Firmware, Identity};

/// Bytes of a store's name: a path fits.
const STORE_NAME_BYTES_MAX: usize = 4096;

/// Opens the metadata and the stores of an array. One without the marker is formatted first (crash rule 8); stores and
/// pools that the configuration has and the array has not are added.
pub(super) async fn open<C: Cabinet, E: Env>(
    cabinet: &Arc<C>,
    env: &E,
    config: &Config,
) -> Result<(Metadata, Stores<C::Disk>), ServeError> {
    check_names(config)?;
    if !blocking(cabinet, |cabinet| cabinet.is_formatted().map_err(ServeError::Cabinet)).await? {
        format(cabinet, env, config).await?;
    }
    let (mut metadata, pools, known) = blocking(cabinet, |cabinet| {
        let metadata = open_file(cabinet)?;
        let (pools, stores) = (metadata.pools()?, metadata.stores()?);
        Ok::<_, ServeError>((metadata, pools, stores))
    })
    .await?;
    let array = metadata.array();

    let mut stores = BTreeMap::new();
    for (id, record) in &known {
        let store = open_store(&**cabinet, &record.name).await?;
        check_store(&store, *id, record, array).await?;
        stores.insert(*id, store);
    }
    let additions = plan(&**cabinet, config, array.geometry, &pools, &known).await?;
    check_free(&additions, array).await?;
    for (id, record, store) in additions.stores {
        info!(store = %record.name, tracks = record.tracks, "store added");
        claim(&store, id, &record, array).await?;
        stores.insert(id, store);
    }
    let changes = additions.changes;
    if !changes.is_empty() {
        metadata = blocking(cabinet, move |_| metadata.commit(&changes).map(|()| metadata)).await?;
    }
    Ok((metadata, Stores(stores)))
}

/// Opens the metadata anew, after [`close`].
pub(super) async fn reopen<C: Cabinet>(cabinet: &Arc<C>) -> Result<Metadata, ServeError> {
    blocking(cabinet, open_file).await
}

/// Builds the firmware from what the metadata hold.
pub(super) async fn load<C: Cabinet>(
    cabinet: &Arc<C>,
    mut metadata: Metadata,
    env: &impl Env,
    config: &Config,
) -> Result<(Metadata, Firmware), ServeError> {
    let wall_ms = env.wall_ms();
    let policies: Vec<_> = config.pools.iter().map(|pool| (pool.name.clone(), pool.policy)).collect();
    blocking(cabinet, move |_| {
        let array = metadata.array();
        let mut damage = None;
        let changes = metadata.load()?.map_while(|change| change.map_err(|error| damage = Some(error)).ok());
        let tables = Tables::load(array.geometry, changes);
        if let Some(error) = damage {
            return Err(error.into());
        }
        let tables = tables?;
        let identity = Identity { serial: array.serial, boot: metadata.begin_boot()? };
        info!(
            serial = format_args!("{:016x}", identity.serial),
            boot = identity.boot,
            track_bytes = array.geometry.track_bytes(),
            "booted"
        );
        let policies = policies.iter().map(|(name, policy)| (name.as_str(), *policy));
        Ok((metadata, Firmware::new(identity, tables).with_policies(policies).with_wall_ms(wall_ms)))
    })
    .await
}

/// Ends the use of the metadata; redb writes when it is dropped.
pub(super) async fn close<C: Cabinet>(cabinet: &Arc<C>, metadata: Metadata) {
    blocking(cabinet, move |_| drop(metadata)).await;
}

/// Builds everything, then sets the marker: whatever is there when it is interrupted is formatted anew. What can refuse
/// comes first.
async fn format<C: Cabinet, E: Env>(cabinet: &Arc<C>, env: &E, config: &Config) -> Result<(), ServeError> {
    let geometry = Geometry::new(config.track_bytes)?;
    let fresh = env.entropy();
    let begin = move |cabinet: &C| cabinet.begin_format(fresh).map_err(ServeError::Cabinet);
    let array = ArrayRecord { serial: blocking(cabinet, begin).await?, geometry };
    let serial = format!("{:016x}", array.serial);
    info!(%serial, track_bytes = config.track_bytes, "formatting");
    let additions = plan(&**cabinet, config, geometry, &[], &[]).await?;
    if additions.stores.is_empty() {
        return Err(ServeError::NoStore);
    }
    check_free(&additions, array).await?;
    blocking(cabinet, |cabinet| cabinet.wipe_metadata().map_err(ServeError::Cabinet)).await?;
    for (id, record, store) in &additions.stores {
        claim(store, *id, record, array).await?;
    }
    let changes = additions.changes;
    blocking(cabinet, move |cabinet| {
        let backend = cabinet.metadata().map_err(ServeError::Cabinet)?;
        if planted(Defect::MarkedEarly) {
            cabinet.mark_formatted().map_err(ServeError::Cabinet)?;
        }
        Metadata::create(backend, array)?.commit(&changes)?;
        // The metadata are closed by now, so that nothing is written after the marker.
        cabinet.mark_formatted().map_err(ServeError::Cabinet)
    })
    .await?;
    info!(%serial, "formatted");
    Ok(())
}

/// What the configuration has and the array has not.
struct Additions<D> {
    changes: Vec<Change>,
    stores: Vec<(StoreId, StoreRecord, Store<D>)>,
}

async fn plan<C: Cabinet>(
    cabinet: &C,
    config: &Config,
    geometry: Geometry,
    pools: &[(PoolId, PoolRecord)],
    stores: &[(StoreId, StoreRecord)],
) -> Result<Additions<C::Disk>, ServeError> {
    let mut additions = Additions { changes: Vec::new(), stores: Vec::new() };
    let mut next_pool = pools.iter().map(|(id, _)| u32::from(id.0) + 1).max().unwrap_or(0);
    let mut next_store = stores.iter().map(|(id, _)| u32::from(id.0) + 1).max().unwrap_or(0);
    // Physical tracks are numbered from 1.
    let mut next_track =
        stores.iter().map(|(_, s)| u64::from(s.first) + u64::from(s.tracks)).max().unwrap_or(1);
    for pool in &config.pools {
        let id = match pools.iter().find(|(_, record)| record.name == pool.name) {
            Some((id, _)) => *id,
            None => {
                let too_large = || ServeError::TooLarge { name: pool.name.clone() };
                let id = PoolId(u16::try_from(next_pool).map_err(|_| too_large())?);
                next_pool += 1;
                additions.changes.push(Change::Pool(id, PoolRecord { name: pool.name.clone() }));
                id
            }
        };
        for name in &pool.stores {
            if let Some((_, record)) = stores.iter().find(|(_, record)| record.name == *name) {
                if record.pool != id {
                    return Err(ServeError::StoreMoved { name: name.clone() });
                }
                continue;
            }
            let store = open_store(cabinet, name).await?;
            let layout = StoreLayout::new(geometry, store.disk.size())
                .map_err(|source| ServeError::Layout { name: name.clone(), source })?;
            let too_large = || ServeError::TooLarge { name: name.clone() };
            let first = u32::try_from(next_track).map_err(|_| too_large())?;
            let store_id = StoreId(u16::try_from(next_store).map_err(|_| too_large())?);
            next_track += u64::from(layout.tracks());
            next_store += 1;
            // The number after the last track has to be one, too: the tables count with it.
            if next_track > u64::from(u32::MAX) {
                return Err(too_large());
            }
            let record = StoreRecord { name: name.clone(), pool: id, first, tracks: layout.tracks() };
            additions.changes.push(Change::Store(store_id, record.clone()));
            additions.stores.push((store_id, record, store));
        }
    }
    Ok(additions)
}

async fn open_store<C: Cabinet>(cabinet: &C, name: &str) -> Result<Store<C::Disk>, ServeError> {
    match cabinet.open(name).await {
        Ok(disk) => Ok(Store::new(name.to_owned(), disk)),
        Err(source) => Err(ServeError::Store { name: name.to_owned(), source }),
    }
}

/// Refuses stores of other arrays. They are open by now, so nobody else can make one its own any more.
async fn check_free<D: Disk>(additions: &Additions<D>, array: ArrayRecord) -> Result<(), ServeError> {
    for (_, record, store) in &additions.stores {
        let name = || record.name.clone();
        let bytes = store.disk.read(0, SUPERBLOCK_BYTES).await;
        let bytes = bytes.map_err(|source| ServeError::Store { name: name(), source })?;
        match Superblock::decode(&bytes) {
            Ok(found) if found.serial != array.serial => {
                return Err(ServeError::StoreTaken { name: name(), serial: found.serial });
            }
            // An attempt of this array's, or nothing that is a store.
            _ => {}
        }
    }
    Ok(())
}

/// Makes a store the array's own, durably.
async fn claim<D: Disk>(
    store: &Store<D>,
    id: StoreId,
    record: &StoreRecord,
    array: ArrayRecord,
) -> Result<(), ServeError> {
    let track_bytes = array.geometry.track_bytes();
    let superblock = Superblock { serial: array.serial, store: id, track_bytes, tracks: record.tracks };
    let failed = |source| ServeError::Store { name: record.name.clone(), source };
    // What a flush writes beside the tracks finds room even where data does not any more.
    let headers = StoreLayout::with_tracks(array.geometry, record.tracks).track_offset(0);
    store.disk.reserve(0, headers).await.map_err(failed)?;
    store.disk.write(0, vec![Bytes::from(superblock.encode())]).await.map_err(failed)?;
    store.disk.sync().await.map_err(failed)
}

/// Refuses a store that is not what the array knows by its name.
async fn check_store<D: Disk>(
    store: &Store<D>,
    id: StoreId,
    record: &StoreRecord,
    array: ArrayRecord,
) -> Result<(), ServeError> {
    let name = || record.name.clone();
    let bytes = store.disk.read(0, SUPERBLOCK_BYTES).await;
    let bytes = bytes.map_err(|source| ServeError::Store { name: name(), source })?;
    let found =
        Superblock::decode(&bytes).map_err(|source| ServeError::Superblock { name: name(), source })?;
    let track_bytes = array.geometry.track_bytes();
    if found != (Superblock { serial: array.serial, store: id, track_bytes, tracks: record.tracks }) {
        return Err(ServeError::ForeignStore { name: name(), serial: found.serial, store: found.store });
    }
    let needed_bytes = StoreLayout::with_tracks(array.geometry, record.tracks).size_bytes();
    let size_bytes = store.disk.size();
    if size_bytes < needed_bytes {
        return Err(ServeError::StoreShrunk { name: name(), size_bytes, needed_bytes });
    }
    Ok(())
}

fn check_names(config: &Config) -> Result<(), ServeError> {
    let (mut pools, mut stores) = (BTreeSet::new(), BTreeSet::new());
    for pool in &config.pools {
        if pool.name.is_empty() || pool.name.len() > NAME_BYTES_MAX {
            return Err(ServeError::Name { name: pool.name.clone() });
        }
        if !pools.insert(&pool.name) {
            return Err(ServeError::PoolTwice { name: pool.name.clone() });
        }
        for name in &pool.stores {
            if name.is_empty() || name.len() > STORE_NAME_BYTES_MAX {
                return Err(ServeError::Name { name: name.clone() });
            }
            if !stores.insert(name) {
                return Err(ServeError::StoreTwice { name: name.clone() });
            }
        }
    }
    Ok(())
}

fn open_file<C: Cabinet>(cabinet: &C) -> Result<Metadata, ServeError> {
    Ok(Metadata::open(cabinet.metadata().map_err(ServeError::Cabinet)?)?)
}

async fn blocking<C: Cabinet, R: Send + 'static>(
    cabinet: &Arc<C>,
    work: impl FnOnce(&C) -> R + Send + 'static,
) -> R {
    let own = Arc::clone(cabinet);
    cabinet.blocking(move || work(&own)).await
}

#[cfg(test)]
mod tests;
