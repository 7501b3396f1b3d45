//! `twintrack`, the command: manages an array from a shell, over the library of this crate.
//!
//! Each noun of the command line is a module with its definitions, what they call and how the answer looks. The exit code is
//! 0, or 1: the array refused it; 2: the command line makes no sense; 3: no array answered.

mod address;
mod advice;
mod args;
mod array;
mod changed;
mod device;
mod diff;
mod failure;
mod generate;
mod group;
mod link;
mod output;
mod pair;
mod reach;
mod read;
mod remote;
mod session;
mod table;
mod time;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use twintrack_host::ArrayClient;

use address::Address;
use args::{Cli, Noun};
use failure::Failure;
use output::Output;
use reach::{Dialer, Reach};

/// How long an answer may take, if the command line does not say it.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The same for what takes as long as reading a device.
const PATIENCE: Duration = Duration::from_secs(86_400);

/// What every command works with.
struct Context {
    array: ArrayClient<Dialer>,
    address: Address,
    output: Output,
    timeout: Option<Duration>,
}

impl Context {
    /// For what takes its time: as long as the command line says, or as it takes.
    fn patient(&self) -> ArrayClient<Dialer> {
        self.array.clone().with_deadline(self.timeout.unwrap_or(PATIENCE))
    }
}

fn main() -> ExitCode {
    let Cli { reach, json, timeout_s, noun } = Cli::parse();
    let advice = noun.advice();
    let done = match noun {
        Noun::Completions { shell } => generate::completions(shell),
        Noun::Man { folder } => generate::man(&folder),
        noun => manage(&reach, json, timeout_s, noun),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(&advice.of(&reach.options()), json),
    }
}

fn manage(reach: &Reach, json: bool, timeout_s: Option<u64>, noun: Noun) -> Result<(), Failure> {
    let (address, array) = reach.client()?;
    let timeout = timeout_s.map(Duration::from_secs);
    let array = array.with_deadline(timeout.unwrap_or(TIMEOUT));
    let context = Context { array, address, output: Output { json }, timeout };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(Failure::Runtime)?.block_on(async {
        match noun {
            Noun::Array(command) => command.run(&context).await,
            Noun::Pool(command) => command.run(&context).await,
            Noun::Device(command) => command.run(&context).await,
            Noun::Session(command) => command.run(&context).await,
            Noun::Pair(command) => command.run(&context).await,
            Noun::Group(command) => command.run(&context).await,
            Noun::Link(command) => command.run(&context).await,
            Noun::Remote(command) => command.run(&context).await,
            Noun::Completions { .. } | Noun::Man { .. } => Ok(()),
        }
    })
}
