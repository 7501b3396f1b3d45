//! What redb keeps the metadata in: one small file.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::{Errno, retry_on_intr};

/// The room that even a small file has.
const RESERVE_BYTES: u64 = 16 << 20;

/// The open metadata file. That no other process has it is seen to by the lock on the folder.
#[derive(Debug)]
pub struct MetadataFile(pub(super) File);

impl redb::StorageBackend for MetadataFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(out, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)?;
        // With its room and as much again, for as long as there is some: so on a full file system what was acknowledged
        // can be committed and sessions be removed, the growth included that this takes. redb doubles the file.
        let reserve =
            || fallocate(&self.0, FallocateFlags::KEEP_SIZE, 0, len.saturating_mul(2).max(RESERVE_BYTES));
        match retry_on_intr(reserve) {
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSPC | Errno::DQUOT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_all_at(data, offset)
    }
}
