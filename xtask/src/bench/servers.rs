//! The servers that are compared: twintrack twice, so that what chance alone makes shows, and its peers.

use std::fs::{self, File};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::tools::run;
use crate::campaign::Clock;

/// How long a server may take to listen, or to end.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(5);
/// Connections that a server has to take at a time.
const CLIENTS: &str = "8";

/// How servers reach their files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Through the page cache.
    PageCache,
    /// Past it (`O_DIRECT`).
    Direct,
}

/// What serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Server {
    Twintrack,
    /// A second daemon of the same build: what it differs by from the first is chance.
    TwintrackAgain,
    Nbdkit,
    QemuRaw,
    /// The snapshot is inside the image.
    QcowInternal,
    /// The image becomes the backing file of a new one.
    QcowExternal,
}

impl Server {
    /// Its column.
    pub fn name(self) -> &'static str {
        match self {
            Self::Twintrack => "twintrack",
            Self::TwintrackAgain => "twintrack again",
            Self::Nbdkit => "nbdkit file",
            Self::QemuRaw => "qemu-nbd raw",
            Self::QcowInternal => "qcow2 internal",
            Self::QcowExternal => "qcow2 external",
        }
    }

    /// Whether a user would pick it instead.
    pub fn is_peer(self) -> bool {
        !matches!(self, Self::Twintrack | Self::TwintrackAgain)
    }

    /// Why it cannot be run so.
    pub fn lacks(self, mode: Mode) -> Option<&'static str> {
        match (self, mode) {
            (Self::Nbdkit, Mode::Direct) => Some(
                "its file plugin has no direct I/O: cache=none only asks the kernel to drop pages after their use",
            ),
            _ => None,
        }
    }
}

/// A running server. Dropped, it is ended by its id.
pub struct Process {
    child: Child,
    log: PathBuf,
    name: String,
}

impl Process {
    fn start(mut command: Command, folder: &Path) -> Result<Self, String> {
        let log = folder.join("log");
        let name =
            Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy().into_owned();
        let writer = File::create(&log).map_err(|error| format!("{}: {error}", log.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(writer)
            .env_remove("NOTIFY_SOCKET")
            .spawn()
            .map_err(|error| format!("{name} cannot be started: {error}"))?;
        Ok(Self { child, log, name })
    }

    /// Waits until it listens.
    fn listens(&mut self, socket: &Path) -> Result<(), String> {
        let clock = Clock::start();
        while UnixStream::connect(socket).is_err() {
            let ended = self.child.try_wait().map_err(|error| error.to_string())?.is_some();
            if ended || clock.elapsed() > PATIENCE {
                let said = fs::read_to_string(&self.log).unwrap_or_default();
                return Err(format!("{} does not serve: {}", self.name, said.trim()));
            }
            thread::sleep(POLL);
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself; what it wrote goes with the folder.
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let clock = Clock::start();
        while matches!(self.child.try_wait(), Ok(None)) {
            if clock.elapsed() > PATIENCE {
                let _ = self.child.kill();
                let _ = self.child.wait();
            }
            thread::sleep(POLL);
        }
    }
}

/// The programs of this workspace.
pub struct Binaries {
    pub daemon: PathBuf,
    pub command: PathBuf,
}

/// Its store, in its folder.
const STORE: &str = "store";

/// A daemon on a folder of its own.
pub struct Array {
    folder: PathBuf,
    command: PathBuf,
    _process: Process,
}

impl Array {
    /// Starts one with a sparse store of so many bytes, and more settings: whole tables, or nothing.
    pub fn start(
        binaries: &Binaries,
        folder: PathBuf,
        mode: Mode,
        store_bytes: u64,
        tables: &str,
    ) -> Result<Self, String> {
        create(&folder)?;
        let array = folder.join("array");
        create(&array)?;
        let io = match mode {
            Mode::PageCache => "",
            Mode::Direct => "io = \"direct\"\n",
        };
        let settings = format!(
            "log.level = \"warn\"\n{tables}[[pool]]\nname = \"bench\"\n{io}[[pool.store]]\npath = \"{STORE}\"\nsize = \"{} MiB\"\n",
            store_bytes >> 20
        );
        fs::write(array.join("twintrack.toml"), settings).map_err(|error| error.to_string())?;
        let mut daemon = Command::new(&binaries.daemon);
        daemon.arg(&array);
        let mut process = Process::start(daemon, &folder)?;
        process.listens(&array.join("control.sock"))?;
        process.listens(&array.join("nbd.sock"))?;
        Ok(Self { folder: array, command: binaries.command.clone(), _process: process })
    }

    /// Carries out a command; what it printed.
    pub fn tell(&self, args: &[&str]) -> Result<String, String> {
        run(&mut self.command(args)).map(|said| said.trim().to_owned())
    }

    /// Carries out a command; what it answered.
    pub fn ask(&self, args: &[&str]) -> Result<Value, String> {
        let said = self.tell(&[&["--json"], args].concat())?;
        serde_json::from_str(&said)
            .map_err(|error| format!("twintrack {} says {said:?}: {error}", args.join(" ")))
    }

    /// A command to it, for who runs it himself.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.command);
        command.arg("-a").arg(&self.folder).args(args);
        command
    }

    /// The file of its store.
    pub fn store(&self) -> PathBuf {
        self.folder.join(STORE)
    }

    /// Where it has its files.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// How a client names a device.
    pub fn uri(&self, device: &str) -> String {
        format!("nbd+unix:///{device}?socket={}", self.folder.join("nbd.sock").display())
    }
}

/// A peer on one file.
pub struct Peer {
    uri: String,
    _process: Process,
}

impl Peer {
    /// `nbdkit file` on a raw file.
    pub fn nbdkit(folder: &Path, file: &Path) -> Result<Self, String> {
        let mut nbdkit = Command::new("nbdkit");
        nbdkit.args(["--foreground", "--unix"]).arg(socket(folder)).arg("file").arg(file);
        Self::start(nbdkit, folder)
    }

    /// `qemu-nbd` on a file of a format.
    pub fn qemu(folder: &Path, format: &str, file: &Path, mode: Mode) -> Result<Self, String> {
        let mut qemu = Command::new("qemu-nbd");
        qemu.args(["--persistent", "--shared", CLIENTS, "--format", format]);
        match mode {
            Mode::PageCache => {}
            Mode::Direct => {
                qemu.args(["--cache", "none", "--aio", "native"]);
            }
        }
        qemu.arg("--socket").arg(socket(folder)).arg(file);
        Self::start(qemu, folder)
    }

    fn start(command: Command, folder: &Path) -> Result<Self, String> {
        let socket = socket(folder);
        // What a server before it has left behind.
        let _ = fs::remove_file(&socket);
        let mut process = Process::start(command, folder)?;
        process.listens(&socket)?;
        Ok(Self { uri: format!("nbd+unix:///?socket={}", socket.display()), _process: process })
    }

    /// How a client names it.
    pub fn uri(&self) -> &str {
        &self.uri
    }
}

fn socket(folder: &Path) -> PathBuf {
    folder.join("nbd.sock")
}

/// Makes a folder.
pub fn create(folder: &Path) -> Result<(), String> {
    fs::create_dir_all(folder).map_err(|error| format!("{} cannot be made: {error}", folder.display()))
}
