//! `cargo xtask test`: everything, with one summary.

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};
use std::thread;

use crate::campaign::Clock;
use crate::packages;
use crate::table::time;

/// One part of the tests.
struct Part {
    name: &'static str,
    args: Vec<&'static str>,
}

/// How a part went.
struct Went {
    name: &'static str,
    passed: bool,
    /// The runner's own words.
    summary: Vec<String>,
    ms: u64,
}

/// The daemon as people run it, with the command beside it.
const RELEASE: [&str; 6] =
    ["build", "--release", "--package", "twintrack-controller", "--package", "twintrack-host"];
/// Runs it against real clients.
const CLIENTS: [&str; 6] = ["test", "--release", "--package", "twintrack-controller", "--test", "clients"];

/// Runs everything. `false`: something failed.
pub fn run() -> Result<bool, String> {
    let nextest = Command::new("cargo")
        .args(["nextest", "--version"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    let runner: &[&str] = if nextest { &["nextest", "run", "--no-tests", "pass"] } else { &["test"] };
    let with = |more: &[&'static str]| [runner, more].concat();
    let mut parts = vec![Part { name: "tests", args: with(&[]) }];
    if nextest {
        parts.push(Part { name: "examples in the docs", args: vec!["test", "--doc"] });
    }
    parts.push(Part { name: "daemon and command", args: RELEASE.to_vec() });
    parts.push(Part { name: "real clients", args: CLIENTS.to_vec() });
    parts.push(Part { name: "tests of the simulator", args: with(&["--package", "twintrack-sim"]) });
    parts.push(Part { name: "simulation", args: vec!["xtask", "sim", "--seeds", "0..6"] });
    parts.push(Part {
        name: "simulation, twice the same",
        args: vec!["xtask", "sim", "--seeds", "6..8", "--twice"],
    });
    packages::provide();
    let went: Vec<Went> = parts.iter().map(part).collect::<Result<_, _>>()?;
    println!("\nsummary");
    for went in &went {
        let word = if went.passed { "passed" } else { "FAILED" };
        println!("  {word}  {}, {}", went.name, time(went.ms));
        for line in &went.summary {
            println!("            {line}");
        }
    }
    Ok(went.iter().all(|went| went.passed))
}

/// Runs one part, passing on what it prints.
fn part(part: &Part) -> Result<Went, String> {
    println!("\n== {}: cargo {}", part.name, part.args.join(" "));
    let clock = Clock::start();
    let mut child = Command::new("cargo")
        .args(&part.args)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("cargo cannot be run: {error}"))?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let readers = [stdout.map(|out| pass_on(out, false)), stderr.map(|err| pass_on(err, true))];
    let summary: Vec<String> =
        readers.into_iter().flatten().flat_map(|reader| reader.join().unwrap_or_default()).collect();
    let status = child.wait().map_err(|error| error.to_string())?;
    let (results, others): (Vec<_>, Vec<_>) =
        summary.into_iter().partition(|line| line.starts_with("test result"));
    let mut summary = if results.len() > 1 { vec![added_up(&results)] } else { results };
    summary.extend(others);
    Ok(Went { name: part.name, passed: status.success(), summary, ms: clock.elapsed().as_millis() as u64 })
}

/// Prints what comes, and picks out the lines that sum up.
fn pass_on(from: impl Read + Send + 'static, to_stderr: bool) -> thread::JoinHandle<Vec<String>> {
    thread::spawn(move || {
        let mut picked = Vec::new();
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            if to_stderr {
                eprintln!("{line}");
            } else {
                println!("{line}");
            }
            if is_summary(line.trim_start()) {
                picked.push(line.trim().to_string());
            }
        }
        picked
    })
}

fn is_summary(line: &str) -> bool {
    ["Summary [", "test result:", "total ", "FAILED  cargo xtask sim", "left out: "]
        .iter()
        .any(|start| line.starts_with(start))
        || line.contains("times as fast as the clock")
}

/// The results of many test binaries as one.
fn added_up(results: &[String]) -> String {
    let count = |what: &str| -> u64 {
        let number = |line: &String| line.split(what).next()?.split_whitespace().last()?.parse::<u64>().ok();
        results.iter().filter_map(number).sum()
    };
    format!("{} passed; {} failed; {} ignored", count(" passed"), count(" failed"), count(" ignored"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_add_up() {
        let line =
            |n| format!("test result: ok. {n} passed; 1 failed; 2 ignored; 0 measured; 0 filtered out");
        assert_eq!(added_up(&[line(3), line(4)]), "7 passed; 2 failed; 4 ignored");
        assert!(is_summary("Summary [   1.2s] 3 tests run") && !is_summary("running 3 tests"));
        assert!(is_summary("left out: ext4, which needs /dev/fuse"));
    }
}
