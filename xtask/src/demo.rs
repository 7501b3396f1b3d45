//! `cargo xtask demo`: two arrays on this machine, with a pair of volumes that is synchronized, until Ctrl-C.

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::campaign::Clock;
use crate::process::{build, reserve_port, told_to_end};

/// How long anything may take to start or to end.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);
/// The arrays; each is a folder, and the name by which the other one knows it.
const ARRAYS: [&str; 2] = ["berlin", "tokyo"];
const SETTINGS: &str = "[[pool]]\nname = \"main\"\n[[pool.store]]\npath = \"store\"\nsize = \"2 GiB\"\n";

/// Starts it, says what can be tried, and waits for Ctrl-C.
pub fn run() -> Result<bool, String> {
    let told_to_end = told_to_end()?;
    let [daemon, command] =
        build("release", &["twintrack-controller", "twintrack-host"], ["twintrackd", "twintrack"])?;
    let demo = Demo::start(&daemon, command, told_to_end)?;
    demo.make_pair()?;
    let programs = daemon.parent().unwrap_or(Path::new("."));
    println!("{}", what_to_try(programs, &demo.folder));
    while !demo.is_over() {
        thread::sleep(POLL);
    }
    println!("\nending both arrays, and removing {}", demo.folder.display());
    Ok(true)
}

/// Two arrays. Dropped, their daemons are ended by their ids, and the folder goes.
struct Demo {
    folder: PathBuf,
    command: PathBuf,
    daemons: Vec<Child>,
    /// The ports of both, kept from others also while a daemon is not there.
    ports: Vec<OwnedFd>,
    told_to_end: Arc<AtomicBool>,
}

impl Demo {
    fn start(daemon: &Path, command: PathBuf, told_to_end: Arc<AtomicBool>) -> Result<Self, String> {
        let folder = std::env::temp_dir().join(format!("twintrack-demo-{}", std::process::id()));
        let failed = |error: io::Error| format!("{} cannot be used: {error}", folder.display());
        // Not one that somebody else has made there.
        fs::create_dir(&folder).map_err(failed)?;
        let (daemons, ports) = (Vec::new(), Vec::new());
        let mut demo = Self { folder: folder.clone(), command, daemons, ports, told_to_end };
        for name in ARRAYS {
            let array = folder.join(name);
            let (port, reserved) = reserve_port()?;
            demo.ports.push(reserved);
            fs::create_dir(&array).map_err(failed)?;
            let settings = format!("[link]\nlisten = [\"tcp:127.0.0.1:{port}\"]\n{SETTINGS}");
            fs::write(array.join("twintrack.toml"), settings).map_err(failed)?;
            fs::write(array.join("port"), port.to_string()).map_err(failed)?;
            let log = File::create(folder.join(format!("{name}.log"))).map_err(failed)?;
            let started = Command::new(daemon)
                .arg(name)
                .current_dir(&folder)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(log)
                .env_remove("NOTIFY_SOCKET")
                // Ctrl-C is for this program, which ends them.
                .process_group(0)
                .spawn();
            demo.daemons.push(started.map_err(|error| format!("twintrackd cannot be started: {error}"))?);
        }
        Ok(demo)
    }

    fn make_pair(&self) -> Result<(), String> {
        let [berlin, tokyo] = ARRAYS;
        for (here, there) in [(berlin, tokyo), (tokyo, berlin)] {
            self.until(|| self.twintrack(here, "array show").map(drop))?;
            let port = fs::read_to_string(self.folder.join(there).join("port")).unwrap_or_default();
            self.twintrack(here, &format!("link add {there} tcp:127.0.0.1:{port}"))?;
        }
        self.until(|| match self.twintrack(berlin, "link list")?[0]["state"].as_str() {
            Some("up") => Ok(()),
            state => Err(format!("the link is not up: {state:?}")),
        })?;
        self.twintrack(berlin, "device create db 256M")?;
        self.fill(&self.folder.join(berlin), "db");
        self.twintrack(berlin, "remote create db db@tokyo --create-r2")?;
        self.until(|| match self.twintrack(berlin, "remote show db")?["status"].as_str() {
            Some("Synchronized") => Ok(()),
            status => Err(format!("the pair is not synchronized: {status:?}")),
        })
    }

    /// Something on the device, if there is a program that can put it there.
    fn fill(&self, array: &Path, device: &str) {
        let content = self.folder.join("content");
        let text = "twintrack is here and there. ".repeat(1 << 20);
        if fs::write(&content, text).is_ok() {
            let uri = format!("nbd+unix:///{device}?socket={}/nbd.sock", array.display());
            // Without it the device is empty, which is as good.
            let _ = Command::new("nbdcopy").arg(&content).arg(uri).stderr(Stdio::null()).status();
        }
    }

    /// The command, with words divided by spaces; its answer.
    fn twintrack(&self, array: &str, line: &str) -> Result<Value, String> {
        let output = Command::new(&self.command)
            .args(["--json", "-a", array])
            .args(line.split(' '))
            .current_dir(&self.folder)
            .output()
            .map_err(|error| format!("twintrack cannot be run: {error}"))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err(format!("twintrack -a {array} {line}: {}", said.trim()));
        }
        Ok(serde_json::from_slice(&output.stdout).unwrap_or(Value::Null))
    }

    fn until(&self, done: impl Fn() -> Result<(), String>) -> Result<(), String> {
        let clock = Clock::start();
        loop {
            match done() {
                Ok(()) => return Ok(()),
                Err(_) if self.is_over() => return Err("interrupted".to_owned()),
                Err(error) if clock.elapsed() > PATIENCE => return Err(error),
                Err(_) => thread::sleep(POLL),
            }
        }
    }

    fn is_over(&self) -> bool {
        self.told_to_end.load(Ordering::Relaxed)
    }

    /// One that somebody has started again in one of the folders.
    fn others(&self) -> Vec<Pid> {
        let own = self.daemons.iter().map(Child::id).collect::<Vec<_>>();
        let holder = |name: &&str| {
            let number = fs::read_to_string(self.folder.join(name).join("lock")).ok()?.trim().parse().ok()?;
            let folder = fs::read_link(format!("/proc/{number}/cwd")).ok()?;
            let program = fs::read_link(format!("/proc/{number}/exe")).ok()?;
            let is_daemon = program.file_name().is_some_and(|name| name == "twintrackd");
            let is_new = !own.contains(&number) && is_daemon && folder.starts_with(&self.folder);
            is_new.then(|| Pid::from_raw(number as i32)).flatten()
        };
        ARRAYS.iter().filter_map(holder).collect()
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let others = self.others();
        let own = self.daemons.iter().map(Pid::from_child);
        // Those that have ended by themselves are not there any more.
        for pid in own.chain(others.iter().copied()) {
            let _ = kill_process(pid, Signal::CONT);
            let _ = kill_process(pid, Signal::TERM);
        }
        let clock = Clock::start();
        for daemon in &mut self.daemons {
            while matches!(daemon.try_wait(), Ok(None)) {
                if clock.elapsed() > PATIENCE {
                    let _ = daemon.kill();
                    let _ = daemon.wait();
                }
                thread::sleep(POLL);
            }
        }
        while clock.elapsed() < PATIENCE && !self.others().is_empty() {
            thread::sleep(POLL);
        }
        if let Err(error) = fs::remove_dir_all(&self.folder) {
            eprintln!("{} is left behind: {error}", self.folder.display());
        }
    }
}

fn what_to_try(programs: &Path, folder: &Path) -> String {
    format!(
        "\
Two arrays, berlin and tokyo, each a folder with a daemon; db is on both, and synchronized. In another terminal:

  export PATH={}:$PATH
  cd {}

how it stands
  twintrack -a berlin remote list
  twintrack -a tokyo remote show db
  twintrack -a berlin link test tokyo
  twintrack -a berlin remote verify db

write, on the side that serves (nbdcopy is of libnbd)
  head -c 64M /dev/urandom > data
  nbdcopy data \"nbd+unix:///db?socket=berlin/nbd.sock\"

let tokyo serve, and berlin again
  twintrack -a tokyo remote failover db
  twintrack -a berlin remote failback db

take tokyo away: berlin goes on, and sends afterwards what tokyo lacks
  kill -STOP $(cat tokyo/lock)
  nbdcopy data \"nbd+unix:///db?socket=berlin/nbd.sock\"; twintrack -a berlin remote show db
  kill -CONT $(cat tokyo/lock); twintrack -a berlin remote watch db

lose berlin: tokyo serves because you say so; berlin comes back as its copy
  kill -9 $(cat berlin/lock)
  twintrack -a tokyo remote failover db --force
  twintrackd berlin 2>> berlin.log &
  twintrack -a tokyo remote watch db

Ctrl-C here ends both and removes the folder. docs/remote.md tells what each state means.",
        programs.display(),
        folder.display()
    )
}
