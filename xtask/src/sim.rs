//! `cargo xtask sim`.

use std::io::{IsTerminal, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use crate::campaign::{self, Clock, Ran};
use crate::process;
use crate::table::{Totals, time};

/// Seeds of each scenario that a run without options takes.
const SEEDS: u64 = 75;
/// Seeds of each recorded trace that a run without options takes.
const TRACE_SEEDS: u64 = 25;
/// Seeds that a planted defect may need.
const DEFECT_SEEDS: u64 = 200;
/// Runs that shrinking a plan may take.
const SHRINK_RUNS: u64 = 600;
/// Failures that are told with what was found; of others only what replays them.
const FAILURES_TOLD: usize = 20;

/// What `cargo xtask sim` takes.
#[derive(Debug, Args)]
pub struct Options {
    /// Only this seed
    #[arg(long, value_name = "N", conflicts_with = "seeds")]
    seed: Option<u64>,
    /// Only these seeds: from A to B, B not included
    #[arg(long, value_name = "A..B", value_parser = seeds)]
    seeds: Option<Range<u64>>,
    /// Only this scenario (may be given several times)
    #[arg(long, value_name = "S")]
    scenario: Vec<String>,
    /// Runs a plan
    #[arg(long, value_name = "FILE", conflicts_with_all = ["scenario", "trace", "defects"])]
    plan: Option<PathBuf>,
    /// Replays a recorded block trace: fio iolog, version 2 or 3, plain or xz
    #[arg(long, value_name = "FILE", conflicts_with_all = ["scenario", "defects"])]
    trace: Option<PathBuf>,
    /// Runs each seed in two processes, which must do the same byte for byte
    #[arg(long)]
    twice: bool,
    /// Goes on with new seeds for so long: 90s, 10m, 8h
    #[arg(long = "for", value_name = "TIME", value_parser = duration)]
    time: Option<Duration>,
    /// Prints JSON
    #[arg(long)]
    json: bool,
    /// Prints the timeline of a single run, in simulated time; -vv: with every write of metadata
    #[arg(short, action = clap::ArgAction::Count)]
    verbose: u8,
    /// Reduces the plan of a run that fails, and writes it to a file
    #[arg(long)]
    shrink: bool,
    /// Plants one defect after the other (or the one that is named) and shows how many seeds it takes to find it
    #[arg(long, value_name = "NAME", num_args = 0..=1, default_missing_value = "")]
    defects: Option<String>,
    /// Plants a defect in all runs
    #[arg(long, value_name = "NAME", conflicts_with = "defects")]
    defect: Option<String>,
}

/// Runs. `false`: something failed.
pub fn run(options: &Options) -> Result<bool, String> {
    if !options.json {
        eprintln!("building the simulator");
    }
    let simulator = process::build_simulator()?;
    let known = process::list(&simulator)?;
    for scenario in &options.scenario {
        if !names(&known).contains(scenario) {
            return Err(format!("there is no scenario {scenario}; there are: {}", names(&known).join(", ")));
        }
    }
    match &options.defects {
        Some(only) => defects(&simulator, &known, only, options),
        None => runs(&simulator, &known, options),
    }
}

fn names(known: &Value) -> Vec<String> {
    strings(&known["scenarios"])
}

/// The scenarios that are asked for, or all.
fn chosen(known: &Value, options: &Options) -> Vec<String> {
    if options.scenario.is_empty() { names(known) } else { options.scenario.clone() }
}

fn strings(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().filter_map(|name| name.as_str().map(String::from)).collect()
}

/// The ordinary runs.
fn runs(simulator: &Path, known: &Value, options: &Options) -> Result<bool, String> {
    let (jobs, count) = jobs(known, options);
    let single = count == Some(1);
    let clock = Clock::start();
    let bar = bar(count, options);
    let (mut totals, mut failed) = (Totals::default(), Vec::new());
    let mut timeline = String::new();
    let keep = options.twice || (single && options.verbose > 0);
    let jobs = jobs.map(|job| asked(job, keep, options));
    let enough = |elapsed: Duration| options.time.is_some_and(|limit| elapsed >= limit);
    campaign::run(simulator, jobs, options.twice, &mut |ran| {
        let outcome = &ran.report["outcome"];
        totals.add(outcome, ran.passed());
        bar.inc(1);
        if totals.failures() > 0 {
            bar.set_message(format!("{} failed", totals.failures()));
        }
        if single {
            timeline = outcome["timeline"].as_str().unwrap_or("").to_string();
        }
        if !ran.passed() {
            // At once: a long campaign that is cut off has told what it found.
            bar.suspend(|| eprintln!("failed: {}", replay(&ran)));
            failed.push(ran);
        }
        enough(clock.elapsed())
    });
    bar.finish_and_clear();
    failed.sort_by_key(|ran| ran.place);
    if single && options.verbose > 0 {
        print_timeline(&timeline, options.verbose);
    }
    let wall_ms = clock.elapsed().as_millis().max(1) as u64;
    if options.json {
        let failures: Vec<Value> = failed.iter().map(|ran| told(ran, options)).collect();
        let mut all = totals.json();
        all["wall_ms"] = wall_ms.into();
        all["failures"] = failures.into();
        println!("{all}");
    } else {
        totals.print();
        println!(
            "\n{} simulated in {}: {} times as fast as the clock",
            time(totals.simulated_ms()),
            time(wall_ms),
            totals.simulated_ms() / wall_ms
        );
        let (first, more) = failed.split_at(failed.len().min(FAILURES_TOLD));
        for ran in first {
            tell(ran, options);
        }
        if !more.is_empty() {
            println!("\n… and {} more:", more.len());
        }
        for ran in more {
            println!("{}", replay(ran));
        }
    }
    if options.shrink {
        failed
            .iter()
            .filter(|ran| !ran.violations().is_empty())
            .take(3)
            .try_for_each(|ran| shrink(simulator, ran))?;
    }
    Ok(failed.is_empty())
}

/// The jobs that the options ask for, and how many, if that is known.
fn jobs(known: &Value, options: &Options) -> (Box<dyn Iterator<Item = Value> + Send>, Option<u64>) {
    let seeds = options.seed.map(|seed| seed..seed + 1).or_else(|| options.seeds.clone());
    if let Some(plan) = &options.plan {
        return (Box::new(std::iter::once(json!({ "plan": plan }))), Some(1));
    }
    if let Some(trace) = options.trace.clone() {
        let seeds = if options.time.is_some() { 0..u64::MAX } else { seeds.unwrap_or(0..TRACE_SEEDS) };
        let count = options.time.is_none().then(|| seeds.end - seeds.start);
        return (Box::new(seeds.map(move |seed| json!({ "trace": { "file": trace, "seed": seed } }))), count);
    }
    let scenarios = chosen(known, options);
    if options.time.is_some() {
        let first = seeds.map_or(0, |seeds| seeds.start);
        let all =
            (first..).flat_map(move |seed| scenarios.clone().into_iter().map(move |s| seed_job(&s, seed)));
        return (Box::new(all), None);
    }
    let each = |scenario: &String| match &seeds {
        Some(seeds) => seeds.clone(),
        None if scenario.starts_with("trace:") => 0..TRACE_SEEDS,
        None => 0..SEEDS,
    };
    let most = scenarios.iter().map(|scenario| each(scenario).end).max().unwrap_or(0);
    // Seed by seed through the scenarios: what is wrong with one of them shows early.
    let mut all = Vec::new();
    for seed in 0..most {
        all.extend(scenarios.iter().filter(|s| each(s).contains(&seed)).map(|s| seed_job(s, seed)));
    }
    let count = all.len() as u64;
    (Box::new(all.into_iter()), Some(count))
}

fn seed_job(scenario: &str, seed: u64) -> Value {
    json!({ "seed": { "scenario": scenario, "seed": seed } })
}

fn asked(run: Value, keep: bool, options: &Options) -> Value {
    let mut job = json!({ "run": run, "keep": keep });
    if let Some(defect) = &options.defect {
        job["defect"] = json!(defect);
    }
    job
}

/// The line that replays a run.
fn replay(ran: &Ran) -> String {
    let run = &ran.job["run"];
    let text = |value: &Value| value.as_str().unwrap_or("").to_string();
    let mut line = String::from("cargo xtask sim");
    if let Some(seed) = run["seed"].as_object() {
        line += &format!(" --scenario {} --seed {}", text(&seed["scenario"]), seed["seed"]);
    } else if let Some(trace) = run["trace"].as_object() {
        line += &format!(" --trace {} --seed {}", text(&trace["file"]), trace["seed"]);
    } else {
        line += &format!(" --plan {}", text(&run["plan"]));
    }
    if let Some(defect) = ran.job["defect"].as_str() {
        line += &format!(" --defect {defect}");
    }
    line
}

fn told(ran: &Ran, options: &Options) -> Value {
    let twice = options.twice.then_some(ran.same_twice);
    json!({ "replay": replay(ran), "violations": ran.violations(), "same_twice": twice })
}

fn tell(ran: &Ran, options: &Options) {
    println!("\nFAILED  {}{}", replay(ran), if options.twice { " --twice" } else { "" });
    if !ran.same_twice {
        println!("  two processes did not do the same");
    }
    for violation in ran.violations() {
        let text = |key: &str| violation[key].as_str().unwrap_or("").to_string();
        println!("  {}: {}", text("oracle"), text("what"));
    }
}

fn print_timeline(timeline: &str, verbose: u8) {
    let noise = |line: &&str| {
        let Some(disk) = line.split_once("disk     ").map(|(_, what)| what) else { return false };
        ["metadata read", "metadata write", "metadata length"].iter().any(|noise| disk.starts_with(noise))
    };
    let mut out = std::io::stdout().lock();
    for line in timeline.lines().filter(|line| verbose > 1 || !noise(line)) {
        // Who reads it may have seen enough.
        if writeln!(out, "{line}").is_err() {
            return;
        }
    }
    let _ = writeln!(out);
}

fn shrink(simulator: &Path, ran: &Ran) -> Result<(), String> {
    println!("\nshrinking {}", replay(ran));
    let mut job = ran.job.clone();
    job["shrink"] = SHRINK_RUNS.into();
    let report = process::report(simulator, &job);
    let Some(plan) = report["plan"].as_str() else {
        println!("  it did not fail again");
        return Ok(());
    };
    let outcome = &report["outcome"];
    let scenario = outcome["scenario"].as_str().unwrap_or("plan").replace(':', "-");
    let folder = simulator.parent().map_or_else(PathBuf::new, Path::to_path_buf);
    let file = folder.join(format!("{scenario}-{}.plan", outcome["seed"]));
    std::fs::write(&file, plan).map_err(|error| format!("{} cannot be written: {error}", file.display()))?;
    let defect = ran.job["defect"].as_str().map_or(String::new(), |defect| format!(" --defect {defect}"));
    println!(
        "  {} lines are left: cargo xtask sim --plan {}{defect} -v",
        plan.lines().count(),
        file.display()
    );
    for violation in outcome["violations"].as_array().into_iter().flatten() {
        println!("  {}", violation["what"].as_str().unwrap_or(""));
    }
    Ok(())
}

/// Plants defects and looks how soon each is found.
fn defects(simulator: &Path, known: &Value, only: &str, options: &Options) -> Result<bool, String> {
    let all = known["defects"].as_array().cloned().unwrap_or_default();
    let chosen: Vec<&Value> = all.iter().filter(|defect| only.is_empty() || defect["name"] == only).collect();
    if chosen.is_empty() {
        let names: Vec<_> = all.iter().filter_map(|defect| defect["name"].as_str()).collect();
        return Err(format!("there is no defect {only}; there are: {}", names.join(", ")));
    }
    // Each is looked for where it can show.
    let (pairs, copies) = (strings(&known["of_pairs"]), strings(&known["of_copies"]));
    let shows_in = |defect: &Value| {
        if defect["of_copies"] == true {
            return copies.clone();
        }
        let of_two = defect["of_pairs"] == true;
        names(known).into_iter().filter(|name| pairs.contains(name) == of_two).collect()
    };
    let (clock, mut results) = (Clock::start(), Vec::new());
    let width = chosen.iter().filter_map(|defect| defect["name"].as_str()).map(str::len).max().unwrap_or(0);
    if !options.json {
        println!("{:<width$}  seeds  found by", "defect");
    }
    for defect in chosen {
        let name = defect["name"].as_str().unwrap_or("");
        let scenarios = if options.scenario.is_empty() { shows_in(defect) } else { options.scenario.clone() };
        let found = find(simulator, name, &scenarios);
        let result = match &found {
            Some(ran) => {
                let oracle = ran.violations().first().map_or(&Value::Null, |violation| &violation["oracle"]);
                json!({ "defect": name, "seeds": ran.place + 1, "oracle": oracle, "replay": replay(ran) })
            }
            None => json!({ "defect": name, "seeds": null, "breaks": defect["breaks"] }),
        };
        if !options.json {
            match &found {
                Some(ran) => println!(
                    "{name:<width$}  {:>5}  {}: {}",
                    ran.place + 1,
                    result["oracle"].as_str().unwrap_or("?"),
                    replay(ran)
                ),
                None => println!(
                    "{name:<width$}      -  NOT FOUND in {DEFECT_SEEDS} seeds ({})",
                    defect["breaks"].as_str().unwrap_or("")
                ),
            }
        }
        results.push(result);
    }
    let missed = results.iter().filter(|result| result["seeds"].is_null()).count();
    if options.json {
        println!("{}", json!({ "defects": results, "wall_ms": clock.elapsed().as_millis() as u64 }));
    } else {
        let wall_ms = clock.elapsed().as_millis() as u64;
        println!("\n{} of {} defects found in {}", results.len() - missed, results.len(), time(wall_ms));
    }
    Ok(missed == 0)
}

/// The first run that finds a defect: seed by seed through the scenarios.
fn find(simulator: &Path, defect: &str, scenarios: &[String]) -> Option<Ran> {
    // A recorded trace once in eight seeds: it is long, and manages nothing.
    let often = |scenario: &&String, seed: u64| seed.is_multiple_of(8) || !scenario.starts_with("trace:");
    let all = (0..).flat_map(|seed| {
        let some: Vec<_> = scenarios.iter().filter(|scenario| often(scenario, seed)).collect();
        some.into_iter().map(move |scenario| seed_job(scenario, seed))
    });
    let jobs = all.take(DEFECT_SEEDS as usize).map(|run| json!({ "run": run, "defect": defect }));
    let mut first: Option<Ran> = None;
    campaign::run(simulator, jobs, false, &mut |ran| {
        // A seed that fails without the defect proves nothing.
        let sound = || {
            let job = json!({ "run": ran.job["run"] });
            process::report(simulator, &job)["outcome"]["violations"].as_array().is_some_and(Vec::is_empty)
        };
        if !ran.passed() && first.as_ref().is_none_or(|first| ran.place < first.place) && sound() {
            first = Some(ran);
        }
        // Those that were begun before it are awaited all the same.
        first.is_some()
    });
    first
}

fn bar(count: Option<u64>, options: &Options) -> ProgressBar {
    if options.json || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = count.map_or_else(ProgressBar::no_length, ProgressBar::new);
    let style = ProgressStyle::with_template("{wide_bar} {pos}/{len} seeds, {elapsed}, {eta} left {msg}");
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

fn seeds(text: &str) -> Result<Range<u64>, String> {
    let (from, to) = text.split_once("..").ok_or("write A..B, as in 100..200")?;
    let number = |text: &str| text.parse::<u64>().map_err(|error| format!("{text:?}: {error}"));
    let range = number(from)?..number(to)?;
    if range.is_empty() { Err("there is no seed in it".into()) } else { Ok(range) }
}

fn duration(text: &str) -> Result<Duration, String> {
    let unit = |unit: &str, seconds: u64| Some((text.strip_suffix(unit)?, seconds));
    let (number, seconds) = unit("s", 1)
        .or_else(|| unit("m", 60))
        .or_else(|| unit("h", 3600))
        .ok_or("write a number and s, m or h, as in 10m")?;
    let number: u64 = number.parse().map_err(|error| format!("{number:?}: {error}"))?;
    number.checked_mul(seconds).map(Duration::from_secs).ok_or_else(|| "that is too long".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_and_times_are_read() {
        assert_eq!(seeds("3..7"), Ok(3..7));
        assert!(seeds("7..7").is_err() && seeds("7").is_err() && seeds("a..b").is_err());
        assert_eq!(duration("10m"), Ok(Duration::from_secs(600)));
        assert!(duration("10").is_err() && duration("xs").is_err());
    }

    #[test]
    fn a_failure_names_the_line_that_replays_it() {
        let job = json!({ "run": seed_job("io", 7), "defect": "x" });
        let ran = Ran { place: 0, job, report: Value::Null, same_twice: true };
        assert_eq!(replay(&ran), "cargo xtask sim --scenario io --seed 7 --defect x");
        assert!(!ran.passed());
    }
}
