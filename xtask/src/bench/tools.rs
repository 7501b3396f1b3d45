//! The programs that the bench runs, and where they come from.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

/// A program, and the Debian package that has it.
const PACKAGES: [(&str, &str); 6] = [
    ("fio", "fio"),
    ("nbdkit", "nbdkit"),
    ("nbdcopy", "libnbd-bin"),
    ("qemu-img", "qemu-utils"),
    ("qemu-nbd", "qemu-utils"),
    ("openssl", "openssl"),
];

/// Sees to it that tools are there: installs what is missing when it may, names it otherwise.
pub fn require(tools: &[&'static str]) -> Result<(), String> {
    let missing_now = missing(tools);
    if missing_now.is_empty() {
        return Ok(());
    }
    let packages = packages(&missing_now);
    let debian = Path::new("/etc/debian_version").exists();
    if debian && rustix::process::getuid().is_root() {
        eprintln!("installing {}", packages.join(" "));
        for args in [vec!["update", "-qq"], [vec!["install", "-y", "-qq"], packages.clone()].concat()] {
            let mut apt = Command::new("apt-get");
            apt.args(args).env("DEBIAN_FRONTEND", "noninteractive").stdout(Stdio::null());
            // What it could not do shows below.
            let _ = apt.status();
        }
    }
    match missing(tools).as_slice() {
        [] => Ok(()),
        missing => Err(format!(
            "{} cannot be run; on Debian: apt-get install {}",
            missing.join(", "),
            packages.join(" ")
        )),
    }
}

fn missing(tools: &[&'static str]) -> Vec<&'static str> {
    let runs = |tool: &str| {
        Command::new(tool)
            .arg("--version")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok()
    };
    tools.iter().copied().filter(|tool| !runs(tool)).collect()
}

fn packages(tools: &[&str]) -> Vec<&'static str> {
    let mut packages: Vec<_> =
        PACKAGES.iter().filter(|(tool, _)| tools.contains(tool)).map(|(_, package)| *package).collect();
    packages.dedup();
    packages
}

/// What tools say that they are, for the reader of the figures.
pub fn versions(tools: &[&'static str]) -> Value {
    let said = |tool: &str| {
        let output = Command::new(tool).arg("--version").stdin(Stdio::null()).output();
        let line =
            output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
        line.lines().next().unwrap_or("?").trim().to_owned()
    };
    tools.iter().map(|tool| ((*tool).to_owned(), Value::from(said(tool)))).collect()
}

/// Runs a program to its end; what it printed.
pub fn run(command: &mut Command) -> Result<String, String> {
    let name = PathBuf::from(command.get_program());
    let name = name.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let output =
        command.stdin(Stdio::null()).output().map_err(|error| format!("{name} cannot be run: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let args: Vec<_> = command.get_args().map(|arg| arg.to_string_lossy()).collect();
    Err(format!("{name} {} failed: {}", args.join(" "), said.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_is_named_once() {
        assert_eq!(packages(&["qemu-img", "qemu-nbd", "fio"]), ["fio", "qemu-utils"]);
    }

    #[test]
    fn a_failure_says_what_was_run() {
        let error = run(Command::new("sh").args(["-c", "echo why >&2; exit 3"])).unwrap_err();
        assert!(error.starts_with("sh -c") && error.ends_with("failed: why"), "{error}");
    }
}
