//! What redb keeps the metadata in: one small file.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::{Errno, retry_on_intr};

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
        // With its room: a file that has grown can be written on a full disk, so that sessions can be removed there.
        let now = self.0.metadata()?.len();
        if len > now {
            match retry_on_intr(|| fallocate(&self.0, FallocateFlags::KEEP_SIZE, now, len - now)) {
                Ok(()) | Err(Errno::OPNOTSUPP) => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_all_at(data, offset)
    }
}
