//! `cargo xtask bench`: twintrack beside what a user would pick instead, in one run on one file system. `cargo xtask bench
//! remote` is about pairs of volumes: [`remote`].
//!
//! Servers take turns within each round, and rounds begin with a different one each, so that what else the machine
//! does falls on all alike. Before each measurement what their files have dirty is synced. Ratios are of values of one round.

mod load;
mod remote;
mod rows;
mod score;
mod scratch;
mod servers;
mod sessions;
mod tools;
mod turns;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;

use crate::campaign::Clock;
use crate::process::build;
use crate::table::time;
use rows::{Kind, Row};
use score::Measured;
use scratch::Scratch;
use servers::{Binaries, Mode};
use turns::{Bench, Plan};

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Options {
    #[command(subcommand)]
    other: Option<Other>,
    /// Smaller and shorter: 256 MiB, 3 rounds, 1 s; for a first look
    #[arg(long)]
    quick: bool,
    /// Only these rows
    #[arg(long, value_enum, value_delimiter = ',')]
    rows: Vec<Row>,
    /// Direct I/O instead of the page cache, for all who can
    #[arg(long)]
    direct: bool,
    /// How often everything is measured [default: 7]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: Option<u32>,
    /// How long each load runs, in seconds [default: 5]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=3600))]
    seconds: Option<u32>,
    /// Where files are made: a folder "bench" in this one, which must not be there yet [default: where cargo builds]
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
    /// Prints one JSON object
    #[arg(long)]
    json: bool,
}

/// What else is measured.
#[derive(Debug, Subcommand)]
enum Other {
    /// Measures pairs of volumes beside the disk, the link and unmirrored volumes.
    Remote(remote::Options),
}

/// What it cannot do without.
const TOOLS: [&str; 5] = ["fio", "nbdkit", "nbdcopy", "qemu-img", "qemu-nbd"];

/// Runs it. `false`: a floor was missed.
pub fn run(options: &Options) -> Result<bool, String> {
    if let Some(Other::Remote(options)) = &options.other {
        return remote::run(options);
    }
    let (bytes, rounds, seconds) = if options.quick { (256 << 20, 3, 1) } else { (1 << 30, 7, 5) };
    let plan = Plan {
        bytes,
        rounds: options.rounds.unwrap_or(rounds),
        seconds: options.seconds.unwrap_or(seconds),
        mode: if options.direct { Mode::Direct } else { Mode::PageCache },
    };
    let rows = if options.rows.is_empty() { Row::value_variants().to_vec() } else { options.rows.clone() };
    tools::require(&TOOLS)?;
    let (binaries, folder) = binaries(options.folder.as_deref())?;
    let clock = Clock::start();
    let measured = {
        let scratch = Scratch::make(folder)?;
        let bench = Bench::start(plan, &rows, &binaries, scratch.folder())?;
        bench.measure(&rows, options.json)?
    };
    let lacking: Vec<_> =
        turns::STEADY.iter().filter_map(|server| Some((server.name(), server.lacks(plan.mode)?))).collect();
    if options.json {
        let lacking: Vec<_> =
            lacking.iter().map(|(name, why)| json!({ "server": name, "why": why })).collect();
        let rows: Vec<_> = measured.iter().map(Measured::json).collect();
        println!(
            "{}",
            json!({
                "direct": options.direct, "device_bytes": plan.bytes, "rounds": plan.rounds,
                "seconds": plan.seconds, "rows": rows, "left_out": lacking, "tools": tools::versions(&TOOLS),
            })
        );
    } else {
        let how = if options.direct { "direct I/O" } else { "page cache" };
        let (mib, rounds, seconds) = (plan.bytes >> 20, plan.rounds, plan.seconds);
        println!("{how}, device of {mib} MiB, {rounds} rounds, {seconds} s each, median ± half of the range");
        let of = |kind: fn(&Kind) -> bool| measured.iter().filter(move |row| kind(&row.row.kind()));
        score::print(of(|kind| matches!(kind, Kind::Rate { .. })));
        score::print(of(|kind| matches!(kind, Kind::Change { .. })));
        score::print(of(|kind| matches!(kind, Kind::Time)));
        println!();
        for (name, why) in lacking {
            println!("{name} is left out: {why}");
        }
        println!("in {}", time(clock.elapsed().as_millis() as u64));
    }
    Ok(measured.iter().filter_map(Measured::score).all(|score| score.is_met()))
}

/// Builds the programs; where files are made, unless a folder was named.
fn binaries(folder: Option<&Path>) -> Result<(Binaries, PathBuf), String> {
    let [daemon, command] =
        build("release", &["twintrack-controller", "twintrack-host"], ["twintrackd", "twintrack"])?;
    let folder = folder.or(daemon.parent()).unwrap_or(Path::new("."));
    let folder = std::path::absolute(folder).map_err(|error| error.to_string())?;
    Ok((Binaries { daemon, command }, folder.join("bench")))
}
