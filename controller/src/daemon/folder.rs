//! The folder of an array, and the stores that its settings name.
//!
//! ```text
//! twintrack.toml    settings, written once, then the owner's
//! lock              held while a daemon uses the folder; its process id
//! metadata-….new    metadata while the array with that serial number is formatted
//! metadata          metadata; there when formatting is complete, by renaming
//! store-0           the first store, unless the settings say otherwise
//! token             for commands over TCP, if the settings have such a socket
//! nbd.sock, control.sock, link.sock
//! ```
//!
//! So the metadata file is its own marker (crash rule 8), and one that is whole is never made empty. An attempt to format
//! that was interrupted is taken up under its own serial number: only stores that bear it count as left over from it, and
//! another array's never.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::Mutex;
use twintrack_core::{StoreId, StoreRecord};

use super::disk::FileDisk;
use super::metadata_file::MetadataFile;
use super::metadata_look::MetadataLook;
use super::settings::StoreIo;
use super::{DaemonError, sync_folder};
use crate::shell::metadata::{ArrayRecord, Metadata};
use crate::shell::superblock::Superblock;
use crate::shell::{Cabinet, SuperblockError};

/// The settings of an array.
pub const SETTINGS: &str = "twintrack.toml";
/// Where hosts connect, unless the settings say otherwise.
pub const NBD_SOCKET: &str = "nbd.sock";
/// Where commands are taken, unless the settings say otherwise.
pub const CONTROL_SOCKET: &str = "control.sock";
/// Where other arrays connect, unless the settings say otherwise.
pub const LINK_SOCKET: &str = "link.sock";
/// The token for commands over TCP, unless the settings say otherwise.
pub const TOKEN: &str = "token";

const LOCK: &str = "lock";
const METADATA: &str = "metadata";
/// At the start of a store, what has to be zeros for it to count as empty: any file system or partition table shows.
const LOOK_BYTES: u64 = 128 << 10;

/// What the folder holds.
#[derive(Debug)]
pub(super) enum Standing {
    /// Nothing, or settings.
    Empty,
    /// Formatting was interrupted.
    Unfinished {
        /// The serial number that the array was to have.
        serial: u64,
    },
    /// An array.
    Formatted {
        /// Which.
        array: ArrayRecord,
        /// Its stores.
        stores: Vec<(StoreId, StoreRecord)>,
    },
}

/// The folder of an array, in use by this process alone.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    /// Sizes of the stores that are created if they are not there.
    creatable: BTreeMap<String, u64>,
    /// Stores that are used past the page cache.
    direct: BTreeSet<String>,
    /// What the folder is locked by. One piece of work on the metadata at a time has it, to its end, should even the
    /// array be given up before.
    lock: Arc<Mutex<File>>,
}

impl Folder {
    /// Takes the folder; with `create` it is created if it is not there, and without nothing in it changes. One that
    /// holds neither an array nor settings nor nothing is refused.
    pub(super) fn take(path: &Path, create: bool) -> Result<Self, DaemonError> {
        let failed = |source| DaemonError::Folder { path: path.to_owned(), source };
        if create {
            DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
        }
        let path = path.canonicalize().map_err(failed)?;
        let ours = [SETTINGS, METADATA].iter().any(|name| path.join(name).exists())
            || unfinished(&path).map_err(failed)?.is_some();
        if !ours {
            let foreign = fs::read_dir(&path).map_err(failed)?.flatten().map(|entry| entry.file_name());
            let foreign = foreign.into_iter().find(|name| name != LOCK && name != "lost+found");
            if let Some(name) = foreign {
                return Err(DaemonError::NotEmpty { path, name: name.to_string_lossy().into_owned() });
            }
        }
        let lock = lock(&path, create)?;
        Ok(Self {
            path,
            creatable: BTreeMap::new(),
            direct: BTreeSet::new(),
            lock: Arc::new(Mutex::new(lock)),
        })
    }

    /// Uses these stores past the page cache.
    pub(super) fn use_direct(&mut self, stores: BTreeSet<String>) {
        self.direct = stores;
    }

    /// How a store is used.
    pub(super) fn io(&self, store: &str) -> StoreIo {
        if self.direct.contains(store) { StoreIo::Direct } else { StoreIo::PageCache }
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens the metadata to see.
    pub(super) fn standing(&self) -> Result<Standing, DaemonError> {
        if !self.is_formatted().map_err(|source| self.failed(source))? {
            let unfinished = unfinished(&self.path).map_err(|source| self.failed(source))?;
            return Ok(unfinished.map_or(Standing::Empty, |serial| Standing::Unfinished { serial }));
        }
        let metadata = self.open_metadata()?;
        let stores = metadata.stores().map_err(|source| self.unreadable(source))?;
        Ok(Standing::Formatted { array: metadata.array(), stores })
    }

    /// Opens the metadata of a formatted array to look at them: the file stays as it is, should it be damaged or of a
    /// newer format.
    pub(super) fn open_metadata(&self) -> Result<Metadata, DaemonError> {
        let file = File::open(self.path.join(METADATA)).and_then(MetadataLook::new);
        let file = file.map_err(|source| self.failed(source))?;
        Metadata::open(file).map_err(|source| self.unreadable(source))
    }

    /// Looks at the stores that the settings name and the array does not know yet: they have to be empty, or must
    /// not be there and have a size. Returns their names.
    pub(super) fn adopt(
        &mut self,
        standing: &Standing,
        stores: BTreeMap<String, Option<u64>>,
    ) -> Result<Vec<String>, DaemonError> {
        let known: BTreeSet<&str> = match standing {
            Standing::Formatted { stores, .. } => stores.iter().map(|(_, s)| s.name.as_str()).collect(),
            Standing::Empty | Standing::Unfinished { .. } => BTreeSet::new(),
        };
        let mut added = Vec::new();
        for (name, size) in stores {
            if known.contains(name.as_str()) {
                continue;
            }
            let failed = |source| DaemonError::Store { name: name.clone(), source };
            let exists = look(&self.path.join(&name)).map_err(failed)?;
            match (exists, size) {
                (Some(start), _) if !start.is_empty() => check_empty(&name, &start, standing)?,
                (Some(_) | None, Some(bytes)) => drop(self.creatable.insert(name.clone(), bytes)),
                (Some(_) | None, None) => return Err(DaemonError::StoreAbsent { name }),
            }
            added.push(name);
        }
        Ok(added)
    }

    /// The metadata file of the attempt to format that is under way.
    fn unfinished(&self) -> io::Result<PathBuf> {
        let serial = unfinished(&self.path)?.ok_or(io::ErrorKind::NotFound)?;
        Ok(self.path.join(unfinished_name(serial)))
    }

    fn failed(&self, source: io::Error) -> DaemonError {
        DaemonError::Folder { path: self.path.clone(), source }
    }

    fn unreadable(&self, source: crate::shell::metadata::MetadataError) -> DaemonError {
        DaemonError::Metadata { path: self.path.join(METADATA), source }
    }
}

impl Cabinet for Folder {
    type Disk = FileDisk;
    type Metadata = MetadataFile;

    async fn open(&self, store: &str) -> io::Result<FileDisk> {
        let (path, size, io) = (self.path.join(store), self.creatable.get(store).copied(), self.io(store));
        tokio::task::spawn_blocking(move || FileDisk::open(&path, size, io))
            .await
            .map_err(io::Error::other)?
    }

    fn is_formatted(&self) -> io::Result<bool> {
        self.path.join(METADATA).try_exists()
    }

    fn begin_format(&self, serial: u64) -> io::Result<u64> {
        let serial = match unfinished(&self.path)? {
            Some(before) => before,
            None => {
                File::create_new(self.path.join(unfinished_name(serial)))?;
                serial
            }
        };
        // Also the name that an attempt before gave, which may not be durable yet.
        sync_folder(&self.path)?;
        Ok(serial)
    }

    fn wipe_metadata(&self) -> io::Result<()> {
        File::create(self.unfinished()?)?.sync_all()
    }

    fn mark_formatted(&self) -> io::Result<()> {
        let unfinished = self.unfinished()?;
        File::open(&unfinished)?.sync_all()?;
        fs::rename(unfinished, self.path.join(METADATA))?;
        sync_folder(&self.path)
    }

    fn metadata(&self) -> io::Result<MetadataFile> {
        let path = if self.is_formatted()? { self.path.join(METADATA) } else { self.unfinished()? };
        OpenOptions::new().read(true).write(true).open(path).map(MetadataFile)
    }

    async fn blocking<R: Send + 'static>(&self, work: impl FnOnce() -> R + Send + 'static) -> R {
        let turn = Arc::clone(&self.lock).lock_owned().await;
        let run = move || {
            let result = work();
            drop(turn);
            result
        };
        match tokio::task::spawn_blocking(run).await {
            Ok(result) => result,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The program ends, and this with it.
                Err(_) => std::future::pending().await,
            },
        }
    }
}

/// The metadata file while the array with that serial number is formatted.
fn unfinished_name(serial: u64) -> String {
    format!("{METADATA}-{serial:016x}.new")
}

/// The serial number of an attempt to format that was begun and not completed.
fn unfinished(folder: &Path) -> io::Result<Option<u64>> {
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        let serial = name.to_str().and_then(|name| name.strip_prefix(METADATA)?.strip_prefix('-'));
        let serial = serial.and_then(|rest| u64::from_str_radix(rest.strip_suffix(".new")?, 16).ok());
        // Nothing but what was named here.
        if let Some(serial) = serial.filter(|serial| *name == *unfinished_name(*serial)) {
            return Ok(Some(serial));
        }
    }
    Ok(None)
}

/// Writes a file that is whole or not there.
pub(super) fn write_new(path: &Path, text: &str) -> io::Result<()> {
    let unfinished = path.with_extension("new");
    let mut file = File::create(&unfinished)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&unfinished, path)?;
    super::sync_folder_of(path)
}

/// Locks the folder; only with `create` the lock is created if it is not there, and told whose it is.
fn lock(folder: &Path, create: bool) -> Result<File, DaemonError> {
    let failed = |source| DaemonError::Folder { path: folder.to_owned(), source };
    let mut options = OpenOptions::new();
    options.read(true).write(create).create(create).truncate(false);
    let mut file = match options.open(folder.join(LOCK)) {
        // No daemon was ever here.
        Err(error) if !create && error.kind() == io::ErrorKind::NotFound => {
            return File::open(folder).map_err(failed);
        }
        file => file.map_err(failed)?,
    };
    match file.try_lock() {
        Ok(()) => {
            if create {
                file.set_len(0).map_err(failed)?;
                writeln!(file, "{}", std::process::id()).map_err(failed)?;
            }
            Ok(file)
        }
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            // For the message only.
            let _ = file.take(20).read_to_string(&mut holder);
            Err(DaemonError::InUse { path: folder.to_owned(), process: holder.trim().parse().ok() })
        }
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

/// The start of a store; `None`: it is not there.
fn look(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let file_type = match fs::metadata(path) {
        Ok(metadata) => metadata.file_type(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if !file_type.is_file() && !file_type.is_block_device() {
        // A pipe would block.
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is neither a file nor a block device"));
    }
    let mut start = Vec::new();
    File::open(path)?.take(LOOK_BYTES).read_to_end(&mut start)?;
    Ok(Some(start))
}

/// Whether nothing is lost if a store that starts like this becomes the array's.
fn check_empty(name: &str, start: &[u8], standing: &Standing) -> Result<(), DaemonError> {
    if start.iter().all(|byte| *byte == 0) {
        return Ok(());
    }
    let name = name.to_owned();
    match (Superblock::decode(start), standing) {
        // What the interrupted start left behind.
        (Ok(found), Standing::Unfinished { serial }) if found.serial == *serial => Ok(()),
        (Ok(found), Standing::Formatted { array, .. }) if found.serial == array.serial => Ok(()),
        (Ok(found), _) => Err(DaemonError::StoreTaken { name, serial: found.serial }),
        (
            Err(SuperblockError::NewerFormat { .. } | SuperblockError::Damaged | SuperblockError::Absent),
            _,
        ) => Err(DaemonError::StoreNotEmpty { name }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(name: &str, size: Option<u64>) -> BTreeMap<String, Option<u64>> {
        BTreeMap::from([(name.to_owned(), size)])
    }

    #[test]
    fn a_folder_is_taken_once_and_only_if_it_is_ours() {
        let folder = tempfile::tempdir().unwrap();
        let array = folder.path().join("a/b");
        assert!(matches!(Folder::take(&array, false), Err(DaemonError::Folder { .. })));
        let first = Folder::take(&array, true).unwrap();
        let error = Folder::take(&array, true).unwrap_err().to_string();
        assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
        drop(first);
        Folder::take(&array, true).unwrap();

        let error = Folder::take(folder.path(), true).unwrap_err();
        assert!(matches!(error, DaemonError::NotEmpty { ref name, .. } if name == "a"), "{error}");
        assert!(!folder.path().join(LOCK).exists(), "nothing was written");
    }

    #[test]
    fn an_attempt_to_format_keeps_its_serial_to_its_end() {
        let at = tempfile::tempdir().unwrap();
        let folder = Folder::take(at.path(), true).unwrap();
        assert!(folder.wipe_metadata().is_err(), "nothing was begun");
        fs::write(at.path().join("metadata-7.new"), "").unwrap();
        assert!(matches!(folder.standing().unwrap(), Standing::Empty), "a name that was not given here");
        assert_eq!(folder.begin_format(7).unwrap(), 7);
        assert_eq!(folder.begin_format(8).unwrap(), 7);
        drop(folder);
        let folder = Folder::take(at.path(), true).unwrap();
        assert!(matches!(folder.standing().unwrap(), Standing::Unfinished { serial: 7 }));
        folder.wipe_metadata().unwrap();
        assert!(!folder.is_formatted().unwrap());
        folder.mark_formatted().unwrap();
        assert!(folder.is_formatted().unwrap());
        assert!(folder.metadata().is_ok() && unfinished(at.path()).unwrap().is_none());
    }

    #[test]
    fn a_store_with_content_is_refused() {
        let at = tempfile::tempdir().unwrap();
        let mut folder = Folder::take(at.path(), true).unwrap();
        let mut adopt = |name: &str, size| folder.adopt(&Standing::Empty, store(name, size));
        assert!(matches!(adopt("s", None), Err(DaemonError::StoreAbsent { .. })));
        assert_eq!(adopt("s", Some(1 << 20)).unwrap(), ["s"]);
        let file = File::create(at.path().join("s")).unwrap();
        assert!(matches!(adopt("s", None), Err(DaemonError::StoreAbsent { .. })), "it is empty");
        file.set_len(1 << 20).unwrap();
        assert_eq!(adopt("s", None).unwrap(), ["s"]);
        // Where ext4 has its magic.
        std::os::unix::fs::FileExt::write_all_at(&file, &[0x53, 0xEF], 1080).unwrap();
        assert!(matches!(adopt("s", None), Err(DaemonError::StoreNotEmpty { .. })));
        assert!(matches!(adopt(".", None), Err(DaemonError::Store { .. })));

        let superblock = Superblock { serial: 7, store: StoreId(0), track_bytes: 65536, tracks: 9 };
        fs::write(at.path().join("t"), superblock.encode()).unwrap();
        assert!(matches!(adopt("t", None), Err(DaemonError::StoreTaken { serial: 7, .. })));
        folder.adopt(&Standing::Unfinished { serial: 7 }, store("t", None)).unwrap();
        let other = folder.adopt(&Standing::Unfinished { serial: 8 }, store("t", None));
        assert!(matches!(other, Err(DaemonError::StoreTaken { serial: 7, .. })));
        let geometry = twintrack_core::Geometry::default();
        let own =
            |serial| Standing::Formatted { array: ArrayRecord { serial, geometry }, stores: Vec::new() };
        folder.adopt(&own(7), store("t", None)).unwrap();
        assert!(folder.adopt(&own(8), store("t", None)).is_err());
    }
}
