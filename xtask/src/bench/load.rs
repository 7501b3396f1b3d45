//! The load: fio and nbdcopy, and what they measure.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::tools::run;
use crate::campaign::Clock;

const BLOCK_BYTES: u64 = 4096;
/// The track of twintrack and the cluster of qcow2, at their defaults.
pub const TRACK_BYTES: u64 = 64 << 10;

/// What fio does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pattern {
    /// Random 4 KiB writes, a flush after each, one at a time.
    WriteFlush,
    /// Random 4 KiB writes, 32 at a time.
    Writes,
    /// Random 4 KiB reads, 32 at a time.
    Reads,
}

/// The folder where files are written that the load needs.
pub struct Load {
    folder: PathBuf,
    bytes: u64,
}

impl Load {
    /// For devices of so many bytes: a file with what to fill them with, and one with a write to each track.
    pub fn prepare(folder: PathBuf, bytes: u64) -> Result<Self, String> {
        let load = Self { folder, bytes };
        let written = load.write_content().and_then(|()| load.write_visits());
        written.map_err(|error| format!("{} cannot be written to: {error}", load.folder.display()))?;
        Ok(load)
    }

    /// Content that no server takes for zeros, or for the same twice.
    fn write_content(&self) -> io::Result<()> {
        let mut file = BufWriter::with_capacity(1 << 20, File::create(self.content())?);
        let mut dice = Dice(1);
        for _ in 0..self.bytes / 8 {
            file.write_all(&dice.next().to_le_bytes())?;
        }
        file.flush()?;
        file.get_ref().sync_data()
    }

    /// One 4 KiB write to each track, in an order and at places that chance chose once, as fio replays it.
    fn write_visits(&self) -> io::Result<()> {
        let mut file = BufWriter::new(File::create(self.visits())?);
        writeln!(file, "fio version 2 iolog\ndevice add\ndevice open")?;
        for (track, block) in visits(self.bytes / TRACK_BYTES) {
            writeln!(file, "device write {} {BLOCK_BYTES}", track * TRACK_BYTES + block * BLOCK_BYTES)?;
        }
        writeln!(file, "device close")?;
        file.flush()
    }

    /// Of a device.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    fn content(&self) -> PathBuf {
        self.folder.join("content")
    }

    fn visits(&self) -> PathBuf {
        self.folder.join("visits")
    }

    /// Copies the content in; bytes a second.
    pub fn copy_in(&self, uri: &str) -> Result<f64, String> {
        self.copy(self.content().as_os_str().as_ref(), uri.as_ref())
    }

    /// Copies a device out, to nowhere; bytes a second.
    pub fn copy_out(&self, uri: &str) -> Result<f64, String> {
        self.copy(uri.as_ref(), "null:".as_ref())
    }

    fn copy(&self, from: &Path, to: &Path) -> Result<f64, String> {
        let clock = Clock::start();
        run(Command::new("nbdcopy").args([from, to]))?;
        Ok(self.bytes as f64 / clock.elapsed().as_secs_f64())
    }

    /// Does one thing for so many seconds; operations a second.
    pub fn steady(&self, uri: &str, pattern: Pattern, seconds: u32) -> Result<f64, String> {
        operations(&self.run_steady(uri, pattern, seconds)?)
    }

    /// How long [`Pattern::WriteFlush`] takes for one write and its flush, in seconds: the medians of both.
    pub fn write_flush_s(&self, uri: &str, seconds: u32) -> Result<f64, String> {
        let report = self.run_steady(uri, Pattern::WriteFlush, seconds)?;
        synced_write_s(&report["jobs"][0])
    }

    fn run_steady(&self, uri: &str, pattern: Pattern, seconds: u32) -> Result<Value, String> {
        let args: &[&str] = match pattern {
            Pattern::WriteFlush => &["--rw=randwrite", "--iodepth=1", "--fsync=1"],
            Pattern::Writes => &["--rw=randwrite", "--iodepth=32"],
            Pattern::Reads => &["--rw=randread", "--iodepth=32"],
        };
        let time = ["--time_based".to_owned(), format!("--runtime={seconds}"), "--norandommap".to_owned()];
        self.fio(uri, args.iter().map(|arg| (*arg).to_owned()).chain(time))
    }

    /// Writes 4 KiB to each track once; operations a second.
    pub fn visit(&self, uri: &str, depth: u32) -> Result<f64, String> {
        let replay = [format!("--read_iolog={}", self.visits().display()), format!("--iodepth={depth}")];
        let report = self.fio(uri, replay.into_iter())?;
        let done = report["jobs"][0]["write"]["total_ios"].as_u64();
        if done != Some(self.bytes / TRACK_BYTES) {
            return Err(format!("fio wrote {done:?} times instead of once to each track"));
        }
        operations(&report)
    }

    /// Writes so many tracks whole, each once and at places that chance chose.
    pub fn scatter(&self, uri: &str, tracks: u64) -> Result<(), String> {
        let bytes = tracks * TRACK_BYTES;
        let args = [
            "--rw=randwrite".to_owned(),
            format!("--bs={TRACK_BYTES}"),
            "--iodepth=16".to_owned(),
            format!("--io_size={bytes}"),
        ];
        self.fio(uri, args.into_iter()).map(drop)
    }

    fn fio(&self, uri: &str, args: impl Iterator<Item = String>) -> Result<Value, String> {
        let nbd = ["--name=bench".to_owned(), "--ioengine=nbd".to_owned(), format!("--uri={uri}")];
        fio(&self.folder, nbd.into_iter().chain(args))
    }
}

/// Runs fio in a folder, 4 KiB at a time unless told otherwise; its report.
pub fn fio(folder: &Path, args: impl Iterator<Item = String>) -> Result<Value, String> {
    let output = folder.join("fio.json");
    let mut fio = Command::new("fio");
    fio.args(["--bs=4k", "--output-format=json"]).arg(format!("--output={}", output.display())).args(args);
    run(fio.current_dir(folder))?;
    let text = fs::read_to_string(&output).map_err(|error| format!("{}: {error}", output.display()))?;
    // What its engine has to say comes before.
    let json = text.find('{').map_or("", |start| &text[start..]);
    serde_json::from_str(json).map_err(|error| format!("fio's report cannot be read: {error}"))
}

fn operations(report: &Value) -> Result<f64, String> {
    let job = &report["jobs"][0];
    let rate = |kind: &str| job[kind]["iops"].as_f64().unwrap_or(0.0);
    let rate = rate("read") + rate("write");
    if job["error"] != 0 || rate <= 0.0 {
        return Err(format!("fio did nothing: error {}", job["error"]));
    }
    Ok(rate)
}

/// How long a job's writes and the syncs after them take, in seconds: the medians of both.
pub fn synced_write_s(job: &Value) -> Result<f64, String> {
    let median = |latencies: &Value| latencies["percentile"]["50.000000"].as_f64();
    match (median(&job["write"]["clat_ns"]), median(&job["sync"]["lat_ns"])) {
        (Some(write_ns), Some(sync_ns)) if job["error"] == 0 => Ok((write_ns + sync_ns) / 1e9),
        _ => Err(format!("fio did not write and sync: error {}", job["error"])),
    }
}

/// Each track once, and the block in it.
fn visits(tracks: u64) -> impl Iterator<Item = (u64, u64)> {
    let mut dice = Dice(2);
    let mut order: Vec<u64> = (0..tracks).collect();
    for last in (1..order.len()).rev() {
        order.swap(last, (dice.next() % (last as u64 + 1)) as usize);
    }
    order.into_iter().map(move |track| (track, dice.next() % (TRACK_BYTES / BLOCK_BYTES)))
}

/// Numbers that look random and are the same each time (splitmix64).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_track_is_visited_once_and_not_in_order() {
        let visited: Vec<_> = visits(1000).collect();
        let mut tracks: Vec<_> = visited.iter().map(|(track, _)| *track).collect();
        assert!(!tracks.is_sorted());
        tracks.sort_unstable();
        assert!(tracks.into_iter().eq(0..1000));
        assert!(visited.iter().all(|(_, block)| *block < 16));
    }

    #[test]
    fn a_report_without_operations_is_an_error() {
        let report = |error: i32, iops: f64| json!({"jobs": [{"error": error, "write": {"iops": iops}}]});
        assert_eq!(operations(&report(0, 5.5)), Ok(5.5));
        assert!(operations(&report(5, 5.5)).is_err() && operations(&report(0, 0.0)).is_err());
        assert!(operations(&Value::Null).is_err());
    }

    #[test]
    fn a_write_with_its_sync_takes_what_both_take() {
        let latencies = |ns: u64| json!({"percentile": {"50.000000": ns, "99.000000": 1_000_000_000}});
        let job = |error: i32| json!({"error": error, "write": {"clat_ns": latencies(10_000)}, "sync": {"lat_ns": latencies(90_000)}});
        assert_eq!(synced_write_s(&job(0)), Ok(1e-4));
        assert!(synced_write_s(&job(5)).is_err());
        assert!(synced_write_s(&json!({"error": 0, "write": {"clat_ns": latencies(10_000)}})).is_err());
    }
}
