//! `cargo xtask demo` as a person uses it: what it prints is typed, then Ctrl-C. Run by `cargo xtask test`, once the release
//! build is there that the demo would make otherwise.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde_json::Value;
use tempfile::TempDir;

/// How long a release build from nothing may take.
const BUILD_MAX: Duration = Duration::from_secs(1800);
/// How long anything else may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(20);
const ARRAYS: [&str; 2] = ["berlin", "tokyo"];

#[test]
fn what_it_prints_works_and_ctrl_c_leaves_nothing() {
    let mut demo = Demo::start();
    let text = demo.hear_until("Ctrl-C here ends both");
    let lines: Vec<&str> = text.iter().filter_map(|line| line.strip_prefix("  ")).collect();
    let [path, folder, commands @ ..] = &lines[..] else { panic!("{text:?}") };
    assert!(path.starts_with("export PATH=") && folder.starts_with("cd "), "{path}\n{folder}");
    let shell = Shell { begin: format!("{path}\n{folder}\n"), said: demo.temp.path().join("said") };
    assert_eq!(shell.status_at("berlin"), "Synchronized");

    let mut daemons = demo.daemons();
    for command in commands {
        if command.starts_with("nbdcopy") && !is_installed("nbdcopy") {
            eprintln!("left out, for it needs nbdcopy: {command}");
            continue;
        }
        shell.until_it_works(command);
    }
    assert!(commands.len() >= 14, "{commands:?}");
    // Berlin was lost, and is its copy now.
    assert_eq!(shell.status_at("tokyo"), "R1Updated");
    daemons.extend(demo.daemons());
    daemons.sort_unstable();
    daemons.dedup();
    assert_eq!(daemons.len(), 3, "berlin was started twice, once by hand: {daemons:?}");

    fs::remove_file(shell.said).unwrap();
    let ended = demo.interrupt();
    let last = demo.hear_until("ending both arrays, and removing");
    assert!(ended.success(), "{ended}: {last:?}");
    demo.left_nothing(&daemons);
}

/// Ctrl-C while it still makes its arrays.
#[test]
fn ctrl_c_at_once_leaves_nothing() {
    let mut demo = Demo::start();
    wait_until(BUILD_MAX, "it starts its arrays", || !demo.daemons().is_empty());
    let daemons = demo.daemons();
    demo.interrupt();
    demo.left_nothing(&daemons);
}

/// The program, and the folder that it takes for temporary files. Dropped, it is interrupted; then it cleans up.
struct Demo {
    program: Child,
    lines: Receiver<String>,
    temp: TempDir,
}

impl Demo {
    fn start() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let mut program = Command::new(env!("CARGO_BIN_EXE_xtask"))
            .arg("demo")
            .env("TMPDIR", temp.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, lines) = channel();
        let stdout = BufReader::new(program.stdout.take().unwrap());
        thread::spawn(move || {
            // Nobody listens any more once the test is over.
            stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        Self { program, lines, temp }
    }

    /// What it prints, to the line that begins so.
    fn hear_until(&self, last: &str) -> Vec<String> {
        let mut heard = Vec::new();
        while heard.last().is_none_or(|line: &String| !line.starts_with(last)) {
            match self.lines.recv_timeout(BUILD_MAX) {
                Ok(line) => heard.push(line),
                Err(RecvTimeoutError::Timeout) => panic!("it does not print {last:?}: {heard:?}"),
                Err(RecvTimeoutError::Disconnected) => panic!("it ended without {last:?}: {heard:?}"),
            }
        }
        heard
    }

    /// Its folder, once it is there.
    fn folder(&self) -> Option<PathBuf> {
        let entries = fs::read_dir(self.temp.path()).unwrap().map(|entry| entry.unwrap());
        let mut ours =
            entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("twintrack-demo-"));
        ours.next().map(|entry| entry.path())
    }

    /// The processes that hold its arrays.
    fn daemons(&self) -> Vec<i32> {
        let holder = |array| {
            let lock = fs::read_to_string(self.folder()?.join(array).join("lock")).ok()?;
            lock.trim().parse().ok().filter(|id| is_daemon(*id))
        };
        ARRAYS.into_iter().filter_map(holder).collect()
    }

    /// As by Ctrl-C; how it ends.
    fn interrupt(&mut self) -> ExitStatus {
        kill_process(Pid::from_child(&self.program), Signal::INT).unwrap();
        ended(&mut self.program, PATIENCE).expect("it ends when it is interrupted")
    }

    fn left_nothing(&self, daemons: &[i32]) {
        let left: Vec<_> = daemons.iter().filter(|id| is_daemon(**id)).collect();
        assert!(left.is_empty(), "daemons are left: {left:?}");
        let left: Vec<_> = fs::read_dir(self.temp.path()).unwrap().collect();
        assert!(left.is_empty(), "files are left: {left:?}");
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        if matches!(self.program.try_wait(), Ok(None)) {
            let _ = kill_process(Pid::from_child(&self.program), Signal::INT);
            if ended(&mut self.program, PATIENCE).is_none() {
                let _ = self.program.kill();
                let _ = self.program.wait();
            }
        }
    }
}

/// The other terminal.
struct Shell {
    /// What is typed there first.
    begin: String,
    /// What the commands print.
    said: PathBuf,
}

impl Shell {
    /// A person tries again what an array is not ready for.
    fn until_it_works(&self, command: &str) {
        wait_until(PATIENCE, command, || self.run(command));
    }

    fn run(&self, command: &str) -> bool {
        use std::os::unix::process::CommandExt;
        let said = File::create(&self.said).unwrap();
        let mut shell = Command::new("sh")
            .args(["-c", &format!("{}{command}", self.begin)])
            .stdin(Stdio::null())
            .stdout(said.try_clone().unwrap())
            .stderr(said)
            .process_group(0)
            .spawn()
            .unwrap();
        let status = ended(&mut shell, PATIENCE).unwrap_or_else(|| {
            let _ = kill_process_group(Pid::from_child(&shell), Signal::KILL);
            let _ = shell.wait();
            panic!("{command} does not end: {}", self.said());
        });
        if !status.success() {
            eprintln!("{command}: {status}: {}", self.said());
        }
        status.success()
    }

    fn status_at(&self, array: &str) -> String {
        self.until_it_works(&format!("twintrack --json -a {array} remote show db"));
        let info: Value = serde_json::from_str(&self.said()).unwrap();
        info["status"].as_str().unwrap_or_default().to_owned()
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.said).unwrap_or_default()
    }
}

fn ended(child: &mut Child, most: Duration) -> Option<ExitStatus> {
    let mut waited = Duration::ZERO;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        if waited >= most {
            return None;
        }
        thread::sleep(POLL);
        waited += POLL;
    }
}

fn wait_until(most: Duration, what: &str, mut done: impl FnMut() -> bool) {
    let mut waited = Duration::ZERO;
    while !done() {
        assert!(waited < most, "not within {} s: {what}", most.as_secs());
        thread::sleep(POLL);
        waited += POLL;
    }
}

fn is_installed(program: &str) -> bool {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&folders).any(|folder| folder.join(program).is_file())
}

/// Whether a process is a daemon of an array, and runs.
fn is_daemon(id: i32) -> bool {
    let program = fs::read_link(Path::new("/proc").join(id.to_string()).join("exe"));
    program.is_ok_and(|path| path.file_name().is_some_and(|name| name == "twintrackd"))
}
