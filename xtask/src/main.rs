//! What one does with the workspace: `cargo xtask sim`, `cargo xtask test`, `cargo xtask bench`, `cargo xtask demo`.

mod bench;
mod campaign;
mod demo;
mod packages;
mod process;
mod sim;
mod table;
mod test;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about = "Tasks of the twintrack workspace")]
struct Args {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Runs the simulator: seeds of all scenarios and the recorded traces, or what the options say.
    Sim(sim::Options),
    /// Runs all tests, real clients against the daemon, and a short simulation, with one summary.
    ///
    /// What clients are missing is installed, if this is Debian and root asks, or named.
    Test,
    /// Measures twintrack beside nbdkit and qemu-nbd.
    Bench(bench::Options),
    /// Starts two arrays with a pair of volumes in a temporary folder, says what to try, and cleans up on Ctrl-C.
    Demo,
}

fn main() -> ExitCode {
    let done = match Args::parse().task {
        Task::Sim(options) => sim::run(&options),
        Task::Test => test::run(),
        Task::Bench(options) => bench::run(&options),
        Task::Demo => demo::run(),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("xtask: {error}");
            ExitCode::from(2)
        }
    }
}
