//! What a machine may lack.

use std::env;
use std::path::{Path, PathBuf};
use std::process;

/// Something that a test cannot do without.
#[derive(Debug, Clone, Copy)]
pub enum Need {
    /// A program, by its name.
    Program(&'static str),
    /// The command `twintrack`, built beside the daemon.
    Command,
    /// The right to mount.
    Root,
    /// `/dev/fuse`.
    Fuse,
    /// A free loop device.
    Loop,
    /// PostgreSQL's programs.
    Postgres,
}

impl Need {
    /// What is missing, in words; `None` if it is there.
    pub fn missing(&self) -> Option<String> {
        match self {
            Self::Program(name) => find(name).is_none().then(|| (*name).to_owned()),
            Self::Command => {
                let word = "the command twintrack, built by `cargo build --release -p twintrack-host`";
                (!command().exists()).then(|| word.to_owned())
            }
            Self::Root => (!may_mount()).then(|| "root's right to mount".to_owned()),
            Self::Fuse => (!Path::new("/dev/fuse").exists()).then(|| "/dev/fuse".to_owned()),
            Self::Loop => (!has_loop_device()).then(|| "a loop device".to_owned()),
            Self::Postgres => postgres().is_none().then(|| "PostgreSQL".to_owned()),
        }
    }
}

/// Where the command `twintrack` is, if it is there.
pub fn command() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_twintrackd")).with_file_name("twintrack")
}

/// The folder of PostgreSQL's programs: Debian keeps them apart, a folder for each version.
pub fn postgres() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut folders: Vec<PathBuf> = versions.map(|version| version.path().join("bin")).collect();
    folders.sort();
    folders.extend(find("postgres").and_then(|path| Some(path.canonicalize().ok()?.parent()?.to_owned())));
    let whole = |folder: &PathBuf| {
        ["initdb", "postgres", "psql", "pgbench"].iter().all(|name| folder.join(name).exists())
    };
    folders.into_iter().rfind(whole)
}

/// A container's root may lack it.
fn may_mount() -> bool {
    const CAP_SYS_ADMIN: u32 = 21;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask >> CAP_SYS_ADMIN & 1 == 1)
}

fn has_loop_device() -> bool {
    let Some(losetup) = find("losetup") else { return false };
    let Ok(output) = process::Command::new(losetup).arg("--find").output() else { return false };
    output.status.success() && Path::new(String::from_utf8_lossy(&output.stdout).trim()).exists()
}

/// Where a program is, named with or without its path. What only root uses is found, too.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    folders.map(|folder| folder.join(program)).find(|path| path.is_file())
}
