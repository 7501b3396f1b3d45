//! A daemon as a process, in a folder that goes with the test.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;
use twintrack_host::{ArrayClient, Dial, Endpoint, NbdClient, NbdOptions, Socket, TokioDial};

/// How long anything may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// What is told of a log or an output: so many lines of so many letters.
const LINES_TOLD: usize = 30;
const LINE_TOLD: usize = 300;

/// A folder for an array, and where its daemons write their logs.
pub struct Place {
    dir: TempDir,
    /// The folder is a file system of its own.
    mounted: bool,
}

impl Drop for Place {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            crate::tell(&format!("the log of {}, to its end:\n{}", self.folder().display(), end_of(&log)));
        }
        if self.mounted {
            let _ = Command::new("umount").arg(self.folder()).status();
        }
    }
}

impl Place {
    /// Settings with one store of 512 MiB.
    pub fn new() -> Self {
        let place = Self::unset();
        let store = "[[pool]]\nname = \"main\"\n[[pool.store]]\npath = \"store\"\nsize = \"512 MiB\"\n";
        fs::create_dir(place.folder()).unwrap();
        place.set(&format!("log.level = \"debug\"\n{store}"));
        place
    }

    /// No folder yet.
    pub fn unset() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), mounted: false }
    }

    /// A folder that is a file system of so many MiB, with settings. `None`: this user may mount none.
    pub fn small(mib: u32, settings: &str) -> Option<Self> {
        let mut place = Self::unset();
        fs::create_dir(place.folder()).unwrap();
        let size = format!("size={mib}m");
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(place.folder())
            .stderr(Stdio::null())
            .status();
        place.mounted = mount.is_ok_and(|status| status.success());
        place.set(settings);
        place.mounted.then_some(place)
    }

    pub fn folder(&self) -> PathBuf {
        self.dir.path().join("array")
    }

    pub fn set(&self, settings: &str) {
        fs::write(self.folder().join("twintrack.toml"), settings).unwrap();
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_twintrackd"));
        command.arg(self.folder()).stdin(Stdio::null()).env_remove("NOTIFY_SOCKET");
        command
    }

    /// Runs one that is to end by itself.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command().args(arguments).output().unwrap()
    }

    /// Starts one and waits until it answers.
    pub async fn start(&self) -> Daemon {
        self.start_with(&[]).await
    }

    pub async fn start_with(&self, environment: &[(&str, &Path)]) -> Daemon {
        let log = File::options().create(true).append(true).open(self.dir.path().join("log")).unwrap();
        let child = self.command().envs(environment.iter().copied()).stderr(log).spawn().unwrap();
        let mut daemon = Daemon { child, folder: self.folder() };
        let begun = Instant::now();
        while daemon.array().array_show().await.is_err() {
            assert_eq!(daemon.child.try_wait().unwrap(), None, "it ended\n{}", self.log());
            assert!(begun.elapsed() < PATIENCE, "it does not answer\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        daemon
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

/// A running daemon; killed when it is dropped.
pub struct Daemon {
    child: Child,
    folder: PathBuf,
}

impl Daemon {
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn array(&self) -> ArrayClient<TokioDial> {
        ArrayClient::new(TokioDial, Endpoint::Unix(self.folder.join("control.sock")))
    }

    pub async fn socket(&self, name: &str) -> Socket {
        TokioDial.dial(&Endpoint::Unix(self.folder.join(name))).await.unwrap()
    }

    pub async fn device(&self, name: &str) -> NbdClient {
        NbdClient::connect(self.socket("nbd.sock").await, name, &NbdOptions::default()).await.unwrap()
    }

    /// A value of `/metrics`.
    pub async fn metric(&self, name: &str) -> u64 {
        let mut socket = self.socket("control.sock").await;
        socket.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut text = String::new();
        socket.read_to_string(&mut text).await.unwrap();
        assert!(text.starts_with("HTTP/1.1 200 OK\r\ncontent-type: text/plain; version=0.0.4"), "{text}");
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("no {name} in\n{text}")).parse().unwrap()
    }

    /// As by `kill -9`.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// As by `kill`; waits for the end.
    pub async fn terminate(mut self) -> ExitStatus {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(begun.elapsed() < PATIENCE, "it does not end");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The last lines, as many as a person reads.
pub fn end_of(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let lines = lines[lines.len().saturating_sub(LINES_TOLD)..].iter();
    lines.map(|line| format!("  {line:.LINE_TOLD$}\n")).collect()
}

/// What one that ended said.
pub fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
