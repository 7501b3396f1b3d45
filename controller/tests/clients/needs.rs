//! What a machine may lack.

use std::env;
use std::path::PathBuf;

/// Something that a test cannot do without.
#[derive(Debug, Clone, Copy)]
pub enum Need {
    /// A program, by its name.
    Program(&'static str),
    /// The command `twintrack`, built beside the daemon.
    Command,
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
        }
    }
}

/// Where the command `twintrack` is, if it is there.
pub fn command() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_twintrackd")).with_file_name("twintrack")
}

/// Where a program is, named with or without its path. What only root uses is found, too.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    folders.map(|folder| folder.join(program)).find(|path| path.is_file())
}
