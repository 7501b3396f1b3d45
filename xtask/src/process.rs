//! Child processes: what is built, one simulator process a run, and what those need that run for long.

use std::io::{self, Read};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use rustix::net::{self, AddressFamily, SocketFlags, SocketType, sockopt};
use serde_json::{Value, json};

/// The longest that one run may take, in wall time.
const RUN_MAX: Duration = Duration::from_secs(180);
/// The longest that shrinking may take.
const SHRINK_MAX: Duration = Duration::from_secs(1800);

/// Builds the simulator and returns the path of its binary.
pub fn build_simulator() -> Result<PathBuf, String> {
    build("sim", &["twintrack-sim"], ["twintrack-sim"]).map(|[simulator]| simulator)
}

/// Builds binaries of these packages and returns their paths.
pub fn build<const N: usize>(
    profile: &str,
    packages: &[&str],
    binaries: [&str; N],
) -> Result<[PathBuf; N], String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build.args(["build", "--quiet", "--profile", profile]);
    build.args(packages.iter().flat_map(|package| ["--package", package]));
    build.args(binaries.iter().flat_map(|binary| ["--bin", binary]));
    build.args(["--message-format", "json-render-diagnostics"]);
    let built =
        build.stderr(Stdio::inherit()).output().map_err(|error| format!("cargo cannot be run: {error}"))?;
    if !built.status.success() {
        return Err(format!("{} cannot be built", binaries.join(", ")));
    }
    let messages = String::from_utf8_lossy(&built.stdout).into_owned();
    let path = |binary: &str| {
        messages
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .filter(|message| message["target"]["name"] == binary)
            .find_map(|message| message["executable"].as_str().map(PathBuf::from))
    };
    let paths: Option<Vec<PathBuf>> = binaries.iter().map(|binary| path(binary)).collect();
    let paths = paths.and_then(|paths| paths.try_into().ok());
    paths.ok_or_else(|| format!("cargo does not say where {} are", binaries.join(", ")))
}

/// Becomes true when somebody wants this program to end, by Ctrl-C or otherwise; then what it has started is to end too.
pub fn told_to_end() -> Result<Arc<AtomicBool>, String> {
    let told = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&told))
            .map_err(|error| format!("signals cannot be heard: {error}"))?;
    }
    Ok(told)
}

/// A port of this machine that nobody else gets, for as long as the descriptor is held: it is bound, and nothing listens
/// there. A daemon that is told its number can.
pub fn reserve_port() -> Result<(u16, OwnedFd), String> {
    let reserve = || -> rustix::io::Result<(u16, OwnedFd)> {
        let socket = net::socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        sockopt::set_socket_reuseaddr(&socket, true)?;
        net::bind(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0))?;
        let address = SocketAddrV4::try_from(net::getsockname(&socket)?)?;
        Ok((address.port(), socket))
    };
    reserve().map_err(|error| format!("there is no free port: {error}"))
}

/// What the simulator says of itself: scenarios and defects.
pub fn list(simulator: &Path) -> Result<Value, String> {
    let output = Command::new(simulator).arg("list").output().map_err(|error| error.to_string())?;
    serde_json::from_slice(&output.stdout).map_err(|error| format!("the simulator lists nothing: {error}"))
}

/// The answer of one simulator process, as it came. A process that dies or hangs answers with a violation, too.
pub fn answer(simulator: &Path, job: &Value) -> Vec<u8> {
    let limit = if job["shrink"].as_u64().unwrap_or(0) > 0 { SHRINK_MAX } else { RUN_MAX };
    match attempt(simulator, job, limit) {
        Ok(answer) => answer,
        Err((oracle, what)) => {
            let seed = &job["run"]["seed"];
            let outcome = json!({
                "scenario": seed["scenario"], "seed": seed["seed"], "simulated_ms": 0,
                "counts": {"done": 0, "failed": 0, "unknown": 0, "skipped": 0},
                "crashes": 0, "faults": 0, "hash": 0,
                "violations": [{"oracle": oracle, "what": what}],
            });
            json!({ "outcome": outcome }).to_string().into_bytes()
        }
    }
}

/// As [`answer`], parsed.
pub fn report(simulator: &Path, job: &Value) -> Value {
    serde_json::from_slice(&answer(simulator, job)).unwrap_or(Value::Null)
}

fn attempt(simulator: &Path, job: &Value, limit: Duration) -> Result<Vec<u8>, (&'static str, String)> {
    let died = |error: io::Error| ("died", error.to_string());
    let mut child = Command::new(simulator)
        .arg(job.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(died)?;
    let (Some(mut stdout), Some(mut stderr)) = (child.stdout.take(), child.stderr.take()) else {
        return Err(("died", "it has no output".into()));
    };
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut answer = Vec::new();
        // An answer that was cut short is no JSON.
        let _ = stdout.read_to_end(&mut answer);
        let _ = sender.send(answer);
    });
    let said = thread::spawn(move || {
        let mut said = String::new();
        let _ = stderr.read_to_string(&mut said);
        said
    });
    let Ok(answer) = receiver.recv_timeout(limit) else {
        // It may have ended just now.
        let _ = child.kill();
        let _ = child.wait();
        return Err(("hang", format!("no end after {} s of wall time", limit.as_secs())));
    };
    let status = child.wait().map_err(died)?;
    if serde_json::from_slice::<Value>(&answer).is_ok() {
        return Ok(answer);
    }
    let said = said.join().unwrap_or_default();
    Err(("died", format!("{status}: {}", said.lines().last().unwrap_or("without a word"))))
}
