//! What `--check` prints: the settings, and the array that is there.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;

use twintrack_core::layout::SUPERBLOCK_BYTES;
use twintrack_core::{StoreId, StoreRecord, Tables};
use twintrack_link::Endpoint;

use super::folder::{Folder, Standing};
use super::settings::{Size, StoreIo};
use super::{DaemonError, FileDisk, ServerTls};
use crate::shell::superblock::Superblock;
use crate::shell::{Config, Disk, ServeError};

/// Reads everything that a start would read, and says what is there; an error is what a start would say.
pub(super) fn print(
    folder: &Folder,
    standing: &Standing,
    config: &Config,
    tls: &BTreeMap<Endpoint, ServerTls>,
    added: &[String],
) -> Result<(), DaemonError> {
    println!("folder   {}", folder.path().display());
    for (name, endpoints) in
        [("nbd    ", &config.nbd), ("control", &config.control), ("link   ", &config.link)]
    {
        for endpoint in endpoints {
            println!("{name}  {endpoint}{}", if tls.contains_key(endpoint) { ", TLS" } else { "" });
        }
    }
    match standing {
        Standing::Empty => println!("array    none yet: the next start formats one"),
        Standing::Unfinished { .. } => {
            println!("array    none yet: formatting was interrupted, the next start does it anew");
        }
        Standing::Formatted { array, stores } => {
            let metadata = folder.open_metadata()?;
            let mut damage = None;
            let changes = metadata.load().map_err(ServeError::from)?;
            let changes = changes.map_while(|change| change.map_err(|error| damage = Some(error)).ok());
            let tables = Tables::load(array.geometry, changes);
            if let Some(error) = damage {
                return Err(ServeError::from(error).into());
            }
            let tables = tables.map_err(ServeError::from)?;
            println!(
                "array    {:016x}, {} devices, {} sessions, tracks of {}",
                array.serial,
                tables.devices().count(),
                tables.sessions().count(),
                Size(u64::from(array.geometry.track_bytes()))
            );
            for (id, record) in stores {
                check_store(folder, *id, record, array.serial)?;
            }
        }
    }
    for name in added {
        println!("store    {name}, to be added by the next start");
    }
    Ok(())
}

fn check_store(folder: &Folder, id: StoreId, record: &StoreRecord, serial: u64) -> Result<(), DaemonError> {
    let name = || record.name.clone();
    let failed = |source| DaemonError::Store { name: name(), source };
    let path = folder.path().join(&record.name);
    let disk = FileDisk::open(&path, None, folder.io(&record.name)).map_err(failed)?;
    let mut start = Vec::new();
    File::open(&path)
        .and_then(|f| f.take(SUPERBLOCK_BYTES.into()).read_to_end(&mut start))
        .map_err(failed)?;
    let found =
        Superblock::decode(&start).map_err(|source| ServeError::Superblock { name: name(), source })?;
    if (found.serial, found.store) != (serial, id) {
        return Err(
            ServeError::ForeignStore { name: name(), serial: found.serial, store: found.store }.into()
        );
    }
    let io = match folder.io(&record.name) {
        StoreIo::PageCache => "",
        StoreIo::Direct => ", direct I/O",
    };
    println!("store    {}, {}{io}", record.name, Size(disk.size()));
    Ok(())
}
