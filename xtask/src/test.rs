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
    said: Said,
    ms: u64,
}

/// The runner's own words.
#[derive(Default)]
struct Said {
    /// The lines that sum up.
    summary: Vec<String>,
    /// The first lines about failures.
    failures: Vec<String>,
}

/// Lines that are said again of a part that failed.
const FAILURE_LINES_MAX: usize = 60;

/// The daemon as people run it, with the command beside it.
const RELEASE: [&str; 6] =
    ["build", "--release", "--package", "twintrack-controller", "--package", "twintrack-host"];
/// Runs it against real clients.
const CLIENTS: [&str; 6] = ["test", "--release", "--package", "twintrack-controller", "--test", "clients"];
/// Types what the demo prints.
const DEMO: [&str; 5] = ["test", "--package", "xtask", "--test", "demo"];

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
    parts.push(Part { name: "demo", args: DEMO.to_vec() });
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
        for line in &went.said.summary {
            println!("            {line}");
        }
    }
    // Where it is found, however much was said since.
    for went in went.iter().filter(|went| !went.passed && !went.said.failures.is_empty()) {
        println!("\n{} FAILED, in its own words:", went.name);
        went.said.failures.iter().for_each(|line| println!("{line}"));
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
    let mut said = Said::default();
    for reader in readers.into_iter().flatten() {
        let Said { summary, failures } = reader.join().unwrap_or_default();
        said.summary.extend(summary);
        said.failures.extend(failures);
    }
    let status = child.wait().map_err(|error| error.to_string())?;
    let (results, others): (Vec<_>, Vec<_>) =
        said.summary.into_iter().partition(|line| line.starts_with("test result"));
    said.summary = if results.len() > 1 { vec![added_up(&results)] } else { results };
    said.summary.extend(others);
    Ok(Went { name: part.name, passed: status.success(), said, ms: clock.elapsed().as_millis() as u64 })
}

/// Prints what comes, and picks out what is to be said again.
fn pass_on(from: impl Read + Send + 'static, to_stderr: bool) -> thread::JoinHandle<Said> {
    thread::spawn(move || {
        let mut said = Said::default();
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            if to_stderr {
                eprintln!("{line}");
            } else {
                println!("{line}");
            }
            said.hear(line);
        }
        said
    })
}

impl Said {
    fn hear(&mut self, line: String) {
        let word = line.trim();
        if is_summary(word) {
            self.summary.push(word.to_owned());
        }
        let begins = word == "failures:" || word.starts_with("FAIL [");
        if (begins || !self.failures.is_empty()) && self.failures.len() < FAILURE_LINES_MAX {
            self.failures.push(line);
        }
    }
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

    #[test]
    fn a_failure_is_heard_from_its_beginning_and_not_for_ever() {
        let mut said = Said::default();
        let lines = ["running 2 tests", "failures:", "---- killed ----", "it was not there"];
        let more = (0..100).map(|n| n.to_string());
        lines.into_iter().map(str::to_owned).chain(more).for_each(|line| said.hear(line));
        assert_eq!(said.failures[..3], lines[1..]);
        assert_eq!((said.failures.len(), said.summary.len()), (FAILURE_LINES_MAX, 0));
    }
}
