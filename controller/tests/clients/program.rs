//! Other people's programs, as child processes that end with the test.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::io::{Read, Seek};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::Instant;

use crate::needs::find;
use crate::process::{PATIENCE, end_of};

/// A program that runs; killed when it is dropped.
pub struct Program {
    child: Child,
    line: String,
    stdout: File,
    stderr: File,
}

/// One that has ended.
pub struct Ended {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
    line: String,
}

/// Runs a program to its end, which has to be a good one, and returns what it wrote to its standard output.
pub async fn run<S: AsRef<OsStr>>(program: &str, arguments: impl IntoIterator<Item = S>) -> String {
    Program::start(program, arguments).end().await.well()
}

impl Program {
    /// Starts one without input.
    pub fn start<S: AsRef<OsStr>>(program: &str, arguments: impl IntoIterator<Item = S>) -> Self {
        Self::start_with(program, arguments, Stdio::null())
    }

    /// Starts one that reads `input`.
    pub fn start_with<S: AsRef<OsStr>>(
        program: &str,
        arguments: impl IntoIterator<Item = S>,
        input: impl Into<Stdio>,
    ) -> Self {
        let path = find(program).unwrap_or_else(|| panic!("there is no {program}"));
        let arguments: Vec<OsString> = arguments.into_iter().map(|word| word.as_ref().to_owned()).collect();
        let line = format!("{program} {}", arguments.join(OsStr::new(" ")).display());
        let (stdout, stderr) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        let child = Command::new(path)
            .args(arguments)
            .stdin(input)
            .stdout(stdout.try_clone().unwrap())
            .stderr(stderr.try_clone().unwrap())
            .spawn()
            .unwrap_or_else(|error| panic!("{line}: {error}"));
        Self { child, line, stdout, stderr }
    }

    /// Its process, which is there until this is dropped.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has not ended yet.
    pub fn runs(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Asks it to end, as by Ctrl-C.
    pub fn interrupt(&self) {
        kill_process(Pid::from_child(&self.child), Signal::INT).unwrap();
    }

    /// Waits for its end.
    pub async fn end(mut self) -> Ended {
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(begun.elapsed() < 2 * PATIENCE, "{} does not end", self.line);
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        self.ended(status)
    }

    fn ended(&mut self, status: ExitStatus) -> Ended {
        let (stdout, stderr) = (written(&mut self.stdout), written(&mut self.stderr));
        Ended { status, stdout, stderr, line: self.line.clone() }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let has_ended = matches!(self.child.try_wait(), Ok(Some(_)));
        let _ = self.child.kill();
        if let Ok(status) = self.child.wait()
            && std::thread::panicking()
        {
            let word = if has_ended { "it had ended" } else { "it ran, and is killed" };
            crate::tell(&format!("{word}: {}", self.ended(status)));
        }
    }
}

impl Ended {
    /// The standard output of a program that did what it was asked.
    pub fn well(self) -> String {
        assert!(self.status.success(), "it failed: {self}");
        self.stdout
    }

    /// Everything that it said, when it was to fail.
    pub fn badly(self) -> String {
        assert!(!self.status.success(), "it should have failed: {self}");
        self.stdout + &self.stderr
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [stdout, stderr] = [&self.stdout, &self.stderr].map(|text| end_of(text));
        writeln!(f, "{:.300}\n{}, after its output\n{stdout}and its errors\n{stderr}", self.line, self.status)
    }
}

fn written(file: &mut File) -> String {
    let mut bytes = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut bytes).unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}
