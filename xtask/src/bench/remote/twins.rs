//! Two arrays on this machine with a link between them, and a pair of volumes over it.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use clap::ValueEnum;
use serde_json::Value;

use super::super::load::{Load, TRACK_BYTES};
use super::super::servers::{Array, Binaries, Mode, create};
use super::super::tools::run;
use super::super::turns::TOLD_TO_END;
use crate::campaign::Clock;
use crate::process::reserve_port;

/// The volume of the pair, on both arrays.
const PAIRED: &str = "paired";
/// One beside it, on the array that serves.
const PLAIN: &str = "plain";
/// The one that serves, and the other one; each knows the other by it.
const NEAR: &str = "near";
const FAR: &str = "far";
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(300);
const POLL: Duration = Duration::from_millis(5);
/// How often the array is asked whether a copy is over, in ms.
const LOOK_MS: &str = "10";
/// Round trips of which the median is taken.
const ROUND_TRIPS: usize = 21;
/// The most that a test of a link sends.
const TEST_BYTES_MAX: u64 = 1 << 30;

/// What the link goes over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Over {
    /// TCP on the loopback interface
    Tcp,
    /// The same, encrypted, with certificates of both ends
    Tls,
}

impl Over {
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Tls => "TLS",
        }
    }
}

/// The arrays, linked. The near one has both volumes, fully written.
pub struct Twins {
    near: Array,
    far: Array,
    /// The ports of their links, for as long as these are needed.
    _reserved: [OwnedFd; 2],
    bytes: u64,
    told_to_end: Arc<AtomicBool>,
}

impl Twins {
    /// Starts both below a folder, each with a sparse store of so many bytes.
    pub fn start(
        over: Over,
        binaries: &Binaries,
        folder: &Path,
        mode: Mode,
        load: &Load,
        told_to_end: &Arc<AtomicBool>,
    ) -> Result<Self, String> {
        let bytes = load.bytes();
        create(folder)?;
        if over == Over::Tls {
            make_certificates(folder)?;
        }
        let reserved = [reserve_port()?, reserve_port()?];
        let ports = [reserved[0].0, reserved[1].0];
        let array = |name: &str, port: u16| {
            // Both volumes, one of them twice for what is still being given back, and as much for what the array needs.
            let store_bytes = bytes * 4 + (1 << 30);
            Array::start(binaries, folder.join(name), mode, store_bytes, &link_settings(over, port))
        };
        let twins = Self {
            near: array(NEAR, ports[0])?,
            far: array(FAR, ports[1])?,
            _reserved: reserved.map(|(_, descriptor)| descriptor),
            bytes,
            told_to_end: Arc::clone(told_to_end),
        };
        twins.near.tell(&["link", "add", FAR, &format!("tcp:127.0.0.1:{}", ports[1])])?;
        twins.far.tell(&["link", "add", NEAR, &format!("tcp:127.0.0.1:{}", ports[0])])?;
        twins.until("the link is not up", || Ok(twins.near.ask(&["link", "list"])?[0]["state"] == "up"))?;
        for device in [PAIRED, PLAIN] {
            twins.near.tell(&["device", "create", device, &format!("{}M", bytes >> 20)])?;
            load.copy_in(&twins.near.uri(device))?;
        }
        Ok(twins)
    }

    /// How a client names the volume of the pair.
    pub fn paired(&self) -> String {
        self.near.uri(PAIRED)
    }

    /// And the one beside it.
    pub fn plain(&self) -> String {
        self.near.uri(PLAIN)
    }

    /// What the link takes in each direction while it is busy in both; bytes a second.
    pub fn throughput(&self) -> Result<f64, String> {
        let tested = self.test(self.bytes.min(TEST_BYTES_MAX))?;
        let number = |what: &str| tested[what].as_f64().filter(|number| *number > 0.0);
        match (number("size_bytes"), number("took_us")) {
            (Some(bytes), Some(took_us)) => Ok(bytes / took_us * 1e6),
            _ => Err(format!("a test of the link came to nothing: {tested}")),
        }
    }

    /// The median of some round trips, in seconds.
    pub fn round_trip_s(&self) -> Result<f64, String> {
        let trip = |_| {
            let tested = self.test(1)?;
            let round_trip_us = tested["round_trip_us"].as_f64();
            round_trip_us.ok_or_else(|| format!("a test of the link has no round trip: {tested}"))
        };
        let mut trips_us = (0..ROUND_TRIPS).map(trip).collect::<Result<Vec<_>, _>>()?;
        trips_us.sort_by(f64::total_cmp);
        Ok(trips_us[ROUND_TRIPS / 2] / 1e6)
    }

    fn test(&self, bytes: u64) -> Result<Value, String> {
        self.near.ask(&["link", "test", FAR, "--size", &bytes.to_string()])
    }

    /// Makes the pair, its other half anew, until both are the same; bytes a second, the command's own time included.
    pub fn first_copy(&self) -> Result<f64, String> {
        let clock = Clock::start();
        self.near.tell(&["remote", "create", PAIRED, &format!("{PAIRED}@{FAR}"), "--create-r2"])?;
        self.until_same()?;
        Ok(self.bytes as f64 / clock.elapsed().as_secs_f64())
    }

    /// Suspends the pair, has a quarter of its tracks written, and lets it go on until both are the same. Before that goes
    /// `settle`; bytes owed a second, the command's own time included.
    pub fn second_copy(
        &self,
        load: &Load,
        settle: impl FnOnce() -> Result<(), String>,
    ) -> Result<f64, String> {
        self.near.tell(&["remote", "suspend", PAIRED])?;
        load.scatter(&self.paired(), self.bytes / TRACK_BYTES / 4)?;
        settle()?;
        let info = self.near.ask(&["remote", "show", PAIRED])?;
        let owed_bytes = info["owed_bytes"].as_u64();
        // That only this is sent is what the rate is about.
        if owed_bytes != Some(self.bytes / 4) {
            return Err(format!("a quarter of {} bytes was written, and owed is {info}", self.bytes));
        }
        let clock = Clock::start();
        self.near.tell(&["remote", "resume", PAIRED])?;
        self.until_same()?;
        Ok(self.bytes as f64 / 4.0 / clock.elapsed().as_secs_f64())
    }

    /// Both halves have to be the same: what is not would be no copy.
    pub fn verify(&self) -> Result<(), String> {
        self.near.tell(&["remote", "verify", PAIRED]).map(drop)
    }

    /// Ends the pair and removes its other half, until the room of that is the file system's again: a copy that comes next would
    /// pay for what is given back.
    pub fn part(&self) -> Result<(), String> {
        self.near.tell(&["remote", "delete", PAIRED])?;
        self.until("the other half of the pair is not ended", || {
            Ok(self.far.ask(&["remote", "list"])?.as_array().is_some_and(Vec::is_empty))
        })?;
        self.far.tell(&["device", "delete", PAIRED])?;
        let store = self.far.store();
        self.until("the other half takes room that nobody has", || {
            let metadata = fs::metadata(&store).map_err(|error| format!("{}: {error}", store.display()))?;
            // Headers stay. A block is 512 bytes here, whatever the file system's are.
            Ok(metadata.blocks() * 512 < self.bytes / 8)
        })
    }

    /// Waits until both halves are the same.
    fn until_same(&self) -> Result<(), String> {
        let mut watch = self
            .near
            .command(&["remote", "watch", PAIRED, "--interval-ms", LOOK_MS])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("twintrack cannot be run: {error}"))?;
        let clock = Clock::start();
        loop {
            match watch.try_wait() {
                Ok(Some(status)) if status.success() => return Ok(()),
                Ok(None) if clock.elapsed() < PATIENCE && !self.is_over() => thread::sleep(POLL),
                _ => break,
            }
        }
        let _ = watch.kill();
        let _ = watch.wait();
        if self.is_over() {
            return Err(TOLD_TO_END.into());
        }
        let state = self.near.tell(&["remote", "show", PAIRED]).unwrap_or_else(|error| error);
        Err(format!("both halves do not become the same:\n{state}"))
    }

    fn until(&self, what: &str, done: impl Fn() -> Result<bool, String>) -> Result<(), String> {
        let clock = Clock::start();
        while !done()? {
            if self.is_over() {
                return Err(TOLD_TO_END.into());
            }
            if clock.elapsed() > PATIENCE {
                return Err(format!("{what} after {} s", PATIENCE.as_secs()));
            }
            thread::sleep(POLL);
        }
        Ok(())
    }

    fn is_over(&self) -> bool {
        self.told_to_end.load(Ordering::Relaxed)
    }
}

/// Settings of an array, whose folder is two below the one with the certificates.
fn link_settings(over: Over, port: u16) -> String {
    let listen = format!("[link]\nlisten = [\"tcp:127.0.0.1:{port}\"]\n");
    let tls =
        "[link.tls]\ncertificate = \"../../cert.pem\"\nkey = \"../../key.pem\"\npeer-ca = \"../../ca.pem\"\n";
    match over {
        Over::Tcp => listen,
        Over::Tls => listen + tls,
    }
}

/// A CA, and one certificate for both arrays, as docs/daemon.md makes them.
fn make_certificates(folder: &Path) -> Result<(), String> {
    let openssl =
        |line: &str| run(Command::new("openssl").args(line.split(' ')).current_dir(folder)).map(drop);
    let names = folder.join("names");
    fs::write(&names, "subjectAltName=IP:127.0.0.1\n")
        .map_err(|error| format!("{}: {error}", names.display()))?;
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    openssl(&format!("req -x509 {key} -days 2 -subj /CN=bench-ca -keyout ca-key.pem -out ca.pem"))?;
    openssl(&format!("req {key} -subj /CN=bench -keyout key.pem -out cert.csr"))?;
    openssl(
        "x509 -req -in cert.csr -CA ca.pem -CAkey ca-key.pem -CAcreateserial -days 2 -extfile names -out cert.pem",
    )
}
