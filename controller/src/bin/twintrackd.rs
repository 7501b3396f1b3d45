//! The daemon of one array.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use twintrack_controller::daemon::{Options, run};

/// Serves one storage array: block devices over NBD, commands over HTTP, both on sockets in its folder.
///
/// A folder that is empty or does not exist yet becomes an array with default settings, which are written to
/// twintrack.toml in it. SIGTERM or SIGINT ends the daemon with everything written durable.
///
/// Exit codes: 0 ended as it was told, 1 did not start or could not go on, 2 wrong usage, 3 ended before everything
/// that was written was durable (what was flushed is).
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// The array's folder
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// Reads settings from there instead of DIR/twintrack.toml
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Looks at the settings, the metadata and the stores, says what is there, and ends
    #[arg(long)]
    check: bool,
}

fn main() -> ExitCode {
    let Arguments { folder, config, check } = Arguments::parse();
    run(&Options { folder, settings: config, check })
}
