//! A device as a file system of this machine: NBD as a file by `nbdfuse`, that as a loop device, that mounted. Everything
//! is taken down again when it is dropped, in that order.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, SystemTime};

use tempfile::TempDir;

use crate::needs::Need::{self, Loop, Program, Root};
use crate::needs::find;
use crate::process::PATIENCE;
use crate::program::{Program as Child, run};
use crate::server::Server;

/// What a volume needs.
pub const NEEDS: [Need; 7] =
    [Root, Need::Fuse, Loop, Program("nbdfuse"), Program("mkfs.ext4"), Program("e2fsck"), Need::Command];

/// A device with an ext4 file system, mounted.
pub struct Volume {
    // Dropped in this order.
    mount: Option<Mount>,
    device: LoopDevice,
    _fuse: Fuse,
    _folder: TempDir,
}

struct Mount(PathBuf);

struct LoopDevice(String);

struct Fuse {
    folder: PathBuf,
    _program: Child,
}

impl Volume {
    /// Makes a file system on a device, and mounts it.
    pub async fn create(server: &Server, device: &str) -> Self {
        let mut volume = Self::attach(server, device).await;
        run("mkfs.ext4", ["-q", "-E", "lazy_itable_init=0,lazy_journal_init=0", &volume.device.0]).await;
        volume.mount(&[]);
        volume
    }

    /// Mounts the file system of a device; what its journal holds is carried out first, on that device.
    pub async fn open(server: &Server, device: &str, options: &[&str]) -> Self {
        let mut volume = Self::attach(server, device).await;
        volume.mount(options);
        volume
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.mount.as_ref().expect("it is mounted").0
    }

    /// Everything that was written is on the device.
    pub async fn sync(&self) {
        run("sync", ["-f".as_ref(), self.path()]).await;
    }

    /// Unmounts it and has it checked from end to end.
    pub async fn check(mut self) {
        self.mount = None;
        run("e2fsck", ["-fn", &self.device.0]).await;
    }

    async fn attach(server: &Server, device: &str) -> Self {
        // Others than root have to get through.
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        let folder = tempfile::Builder::new().permissions(mode).tempdir().unwrap();
        let fuse = Fuse::mount(server, device, folder.path().join("nbd")).await;
        let device = run("losetup", ["--find", "--show", fuse.folder.join("device").to_str().unwrap()]).await;
        Self { mount: None, device: LoopDevice(device.trim().to_owned()), _fuse: fuse, _folder: folder }
    }

    fn mount(&mut self, options: &[&str]) {
        let path = self._folder.path().join("mounted");
        std::fs::create_dir(&path).unwrap();
        let output =
            now("mount", &[&["-t", "ext4"], options, &[&self.device.0, path.to_str().unwrap()]].concat());
        assert!(output.status.success(), "mount: {output:?}");
        self.mount = Some(Mount(path));
    }
}

impl Fuse {
    async fn mount(server: &Server, device: &str, folder: PathBuf) -> Self {
        std::fs::create_dir(&folder).unwrap();
        let file = folder.join("device");
        let words = ["--connections", "4", file.to_str().unwrap(), &server.uri(device)].map(str::to_owned);
        let mut fuse = Self { folder, _program: Child::start("nbdfuse", words) };
        while !file.exists() {
            assert!(fuse._program.runs(), "nbdfuse has ended");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        fuse
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        unmount(&self.0);
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        now("losetup", &["--detach", &self.0]);
    }
}

impl Drop for Fuse {
    fn drop(&mut self) {
        unmount(&self.folder);
    }
}

/// Processes that are on their way out may still be in there.
#[allow(clippy::disallowed_methods)] // a limit of wall time
fn unmount(path: &Path) {
    let begun = SystemTime::now();
    let path = path.to_str().unwrap();
    while !now("umount", &[path]).status.success() {
        if begun.elapsed().is_ok_and(|time| time > PATIENCE / 2) {
            now("umount", &["--lazy", path]);
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// As [`run`], for a `Drop`, which cannot wait in any other way, and must not panic.
fn now(program: &str, arguments: &[&str]) -> Output {
    let path = find(program).unwrap_or_else(|| program.into());
    let output = Command::new(path).args(arguments).stdin(Stdio::null()).output();
    output.unwrap_or_else(|error| panic!("{program}: {error}"))
}
