//! Where a run has its files.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::servers::create;

/// Held by a run, and says whose the folder is.
const LOCK: &str = "bench.lock";

/// A folder that goes with the run.
pub struct Scratch {
    folder: PathBuf,
    _lock: File,
}

impl Scratch {
    /// Makes it, or takes over what a run that was killed has left behind; never what somebody else has put there.
    pub fn make(folder: PathBuf) -> Result<Self, String> {
        let failed = |error: io::Error| format!("{} cannot be used: {error}", folder.display());
        create(&folder)?;
        let entries: Result<Vec<_>, _> = fs::read_dir(&folder).map_err(failed)?.collect();
        let names: Vec<_> = entries.map_err(failed)?.iter().map(|entry| entry.file_name()).collect();
        if !names.is_empty() && !names.iter().any(|name| name == LOCK) {
            return Err(format!(
                "{} is there and is not a bench's: choose another --folder",
                folder.display()
            ));
        }
        let lock = File::create(folder.join(LOCK)).map_err(failed)?;
        lock.try_lock().map_err(|_| format!("another bench runs in {}", folder.display()))?;
        for name in names.iter().filter(|name| *name != LOCK) {
            let path = folder.join(name);
            let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            removed.map_err(failed)?;
        }
        Ok(Self { folder, _lock: lock })
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.folder) {
            eprintln!("{} is left behind: {error}", self.folder.display());
        }
    }
}

/// What is dirty of the files below a folder goes to the disk, so that one measurement does not pay for another; what
/// others have on that file system does not.
pub fn settle(folder: &Path) -> Result<(), String> {
    let failed = |error: io::Error| format!("{} cannot be synced: {error}", folder.display());
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let kind = entry.file_type().map_err(failed)?;
        if kind.is_dir() {
            settle(&entry.path())?;
        } else if kind.is_file() {
            match File::open(entry.path()).and_then(|file| file.sync_data()) {
                // A server has removed it meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                result => result.map_err(failed)?,
            }
        }
    }
    Ok(())
}
