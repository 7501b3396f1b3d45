//! `cargo xtask bench remote`: pairs of volumes, beside what bounds them: the disk, the link, and an unmirrored volume.
//!
//! All in one run on one machine: two arrays for each kind of link, and the disk without a server. They take turns
//! within each round, and rounds begin with a different one each. Before each measurement what is dirty is synced.

mod bare;
mod figures;
mod twins;

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use clap::{Args, ValueEnum};
use indicatif::ProgressBar;
use serde_json::json;

use super::load::{Load, Pattern};
use super::scratch::{Scratch, settle};
use super::servers::{Binaries, Mode, create};
use super::turns::{Plan, TOLD_TO_END, bar};
use super::{binaries, tools};
use crate::campaign::Clock;
use crate::process::told_to_end;
use crate::table::time;
use bare::Bare;
use figures::{Disk, Linked, Row};
use twins::{Over, Twins};

#[derive(Debug, Args)]
pub struct Options {
    /// Smaller and shorter: 256 MiB, 3 rounds, 1 s; for a first look
    #[arg(long)]
    quick: bool,
    /// Over which kinds of link [default: all]
    #[arg(long, value_enum, value_delimiter = ',')]
    over: Vec<Over>,
    /// Direct I/O instead of the page cache
    #[arg(long)]
    direct: bool,
    /// How often everything is measured [default: 7]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: Option<u32>,
    /// How long writes are measured, in seconds [default: 5]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=3600))]
    seconds: Option<u32>,
    /// Where files are made: a folder "bench" in this one, which must not be there yet [default: where cargo builds]
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
    /// Prints one JSON object
    #[arg(long)]
    json: bool,
}

/// Steps of one turn, for the progress bar: of the disk, and of two arrays.
const DISK_STEPS: u64 = 4;
const LINKED_STEPS: u64 = 6;
/// How long hosts write before they are measured: each region of the volume is marked then.
const WARM_UP_S: u32 = 1;

/// Runs it. `false`: a goal was missed.
pub fn run(options: &Options) -> Result<bool, String> {
    let (bytes, rounds, seconds) = if options.quick { (256 << 20, 3, 1) } else { (1 << 30, 7, 5) };
    let plan = Plan {
        bytes,
        rounds: options.rounds.unwrap_or(rounds),
        seconds: options.seconds.unwrap_or(seconds),
        mode: if options.direct { Mode::Direct } else { Mode::PageCache },
    };
    let mut over =
        if options.over.is_empty() { Over::value_variants().to_vec() } else { options.over.clone() };
    over.dedup();
    let mut needed = vec!["fio", "nbdcopy"];
    if over.contains(&Over::Tls) {
        needed.push("openssl");
    }
    tools::require(&needed)?;
    let (binaries, folder) = binaries(options.folder.as_deref())?;
    let clock = Clock::start();
    let (disk, linked) = {
        let scratch = Scratch::make(folder)?;
        Bench::start(plan, &over, &binaries, scratch.folder())?.measure(options.json)?
    };
    let tables: Vec<(Over, Vec<Row>)> =
        over.into_iter().zip(&linked).map(|(over, linked)| (over, figures::rows(&disk, linked))).collect();
    if options.json {
        let links = tables.iter().map(|(over, rows)| {
            json!({ "over": over.name(), "rows": rows.iter().map(Row::json).collect::<Vec<_>>() })
        });
        println!(
            "{}",
            json!({
                "direct": options.direct, "device_bytes": plan.bytes, "rounds": plan.rounds,
                "seconds": plan.seconds, "links": links.collect::<Vec<_>>(), "tools": tools::versions(&needed),
            })
        );
    } else {
        let how = if options.direct { "direct I/O" } else { "page cache" };
        let (mib, rounds, seconds) = (plan.bytes >> 20, plan.rounds, plan.seconds);
        println!(
            "{how}, volume of {mib} MiB, {rounds} rounds, writes for {seconds} s each; rates in bytes a second"
        );
        for (over, rows) in &tables {
            figures::print(&format!("over {}", over.name()), rows);
        }
        println!("\nin {}", time(clock.elapsed().as_millis() as u64));
    }
    Ok(tables.iter().flat_map(|(_, rows)| rows).all(Row::is_met))
}

/// All that takes part, started and filled.
struct Bench {
    plan: Plan,
    load: Load,
    bare: Bare,
    twins: Vec<Twins>,
    folder: PathBuf,
    told_to_end: std::sync::Arc<std::sync::atomic::AtomicBool>,
}

impl Bench {
    fn start(plan: Plan, over: &[Over], binaries: &Binaries, folder: &Path) -> Result<Self, String> {
        let told_to_end = told_to_end()?;
        let of_load = folder.join("load");
        create(&of_load)?;
        let load = Load::prepare(of_load, plan.bytes)?;
        let bare = Bare::new(folder.join("bare"), plan.bytes, plan.mode)?;
        let start = |over: &Over| {
            Twins::start(*over, binaries, &folder.join(over.name()), plan.mode, &load, &told_to_end)
        };
        let twins = over.iter().map(start).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { plan, load, bare, twins, folder: folder.to_path_buf(), told_to_end })
    }

    /// Round by round, turn by turn.
    fn measure(&self, quiet: bool) -> Result<(Disk, Vec<Linked>), String> {
        let mut disk = Disk::default();
        let mut linked: Vec<Linked> = self.twins.iter().map(|_| Linked::default()).collect();
        let steps = DISK_STEPS + LINKED_STEPS * self.twins.len() as u64;
        let bar = bar(steps * u64::from(self.plan.rounds), quiet);
        let turns = 1 + self.twins.len();
        for round in 0..self.plan.rounds as usize {
            for turn in 0..turns {
                match ((round + turn) % turns).checked_sub(1) {
                    None => self.disk_turn(&mut disk, &bar)?,
                    Some(at) => self.linked_turn(&self.twins[at], &mut linked[at], &bar)?,
                }
            }
        }
        bar.finish_and_clear();
        Ok((disk, linked))
    }

    fn disk_turn(&self, disk: &mut Disk, bar: &ProgressBar) -> Result<(), String> {
        let (bare, seconds) = (&self.bare, self.plan.seconds);
        self.step(bar, &mut disk.write, "the disk: writing", || bare.write())?;
        self.step(bar, &mut disk.read, "the disk: reading", || bare.read())?;
        self.step(bar, &mut disk.one_s, "the disk: synced writes", || bare.synced_write_s(1, seconds))?;
        self.step(bar, &mut disk.two_s, "the disk: synced writes, two", || bare.synced_write_s(2, seconds))
    }

    fn linked_turn(&self, twins: &Twins, linked: &mut Linked, bar: &ProgressBar) -> Result<(), String> {
        let (load, seconds) = (&self.load, self.plan.seconds);
        let flushed = |uri: &str| {
            load.steady(uri, Pattern::Writes, WARM_UP_S)?;
            self.settle()?;
            load.write_flush_s(uri, seconds)
        };
        self.step(bar, &mut linked.link, "the link", || twins.throughput())?;
        self.step(bar, &mut linked.first_copy, "initial copy", || twins.first_copy())?;
        self.step(bar, &mut linked.plain_s, "write + flush, no pair", || flushed(&twins.plain()))?;
        self.step(bar, &mut linked.round_trip_s, "round trip", || twins.round_trip_s())?;
        self.step(bar, &mut linked.paired_s, "write + flush, paired", || flushed(&twins.paired()))?;
        self.step(bar, &mut linked.second_copy, "resync", || twins.second_copy(load, || self.settle()))?;
        twins.verify()?;
        twins.part()
    }

    /// One measurement.
    fn step(
        &self,
        bar: &ProgressBar,
        values: &mut Vec<f64>,
        what: &'static str,
        measure: impl FnOnce() -> Result<f64, String>,
    ) -> Result<(), String> {
        bar.set_message(what);
        let measured = self.settle().and_then(|()| measure());
        if self.told_to_end.load(Ordering::Relaxed) {
            return Err(TOLD_TO_END.into());
        }
        values.push(measured?);
        bar.inc(1);
        Ok(())
    }

    fn settle(&self) -> Result<(), String> {
        settle(&self.folder)
    }
}
