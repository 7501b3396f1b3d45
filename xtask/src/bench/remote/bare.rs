//! The disk without a server, reached as the daemons reach it: what a copy, and a write that is flushed, cannot beat.

use std::fs;
use std::path::PathBuf;

use super::super::load::{fio, synced_write_s};
use super::super::scratch::settle;
use super::super::servers::{Mode, create};

/// Files of the size of a device, and smaller ones to overwrite.
pub struct Bare {
    folder: PathBuf,
    bytes: u64,
    mode: Mode,
}

const STREAM: &str = "stream";
/// What is overwritten: large enough that no block comes soon again.
const OVERWRITTEN: &str = "256m";

impl Bare {
    pub fn new(folder: PathBuf, bytes: u64, mode: Mode) -> Result<Self, String> {
        create(&folder)?;
        Ok(Self { folder, bytes, mode })
    }

    /// Writes a file that is not there yet, a track at a time, and syncs it; bytes a second. As the other half of a new pair
    /// is written: without room that it had before, and durable in the end.
    pub fn write(&self) -> Result<f64, String> {
        match fs::remove_file(self.folder.join(STREAM)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(format!("{STREAM} cannot be removed: {error}"));
            }
            _ => {}
        }
        settle(&self.folder)?;
        self.stream("write", "--end_fsync=1")
    }

    /// Reads what [`Self::write`] has written, likewise.
    pub fn read(&self) -> Result<f64, String> {
        // The page cache keeps it, as it keeps what a daemon was given.
        self.stream("read", "--invalidate=0")
    }

    fn stream(&self, kind: &str, more: &str) -> Result<f64, String> {
        let size = format!("--size={}", self.bytes);
        let rw = format!("--rw={kind}");
        let name = format!("--filename={STREAM}");
        let job = ["--name=stream", "--bs=64k", "--fallocate=none", &name, &size, &rw, more];
        let report = fio(&self.folder, words(&[&self.io(16)[..], &job].concat()))?;
        let job = &report["jobs"][0];
        let rate = job[kind]["bw_bytes"].as_f64().filter(|rate| *rate > 0.0 && job["error"] == 0);
        rate.ok_or_else(|| format!("fio did not {kind}: {job}"))
    }

    /// How long a 4 KiB write with a sync takes, one after the other, by so many at a time, each on a file of its own; in
    /// seconds, medians.
    pub fn synced_write_s(&self, writers: u32, seconds: u32) -> Result<f64, String> {
        let (jobs, time) = (format!("--numjobs={writers}"), format!("--runtime={seconds}"));
        let size = format!("--size={OVERWRITTEN}");
        let job = [
            "--name=synced",
            "--rw=randwrite",
            "--fdatasync=1",
            // What is new would have to be noted in the file system's journal, too.
            "--overwrite=1",
            "--time_based",
            "--norandommap",
            &jobs,
            &time,
            &size,
        ];
        let report = fio(&self.folder, words(&[&self.io(1)[..], &job].concat()))?;
        let jobs = report["jobs"].as_array().map_or(&[][..], Vec::as_slice);
        let each = jobs.iter().map(synced_write_s).collect::<Result<Vec<f64>, _>>()?;
        if each.len() != writers as usize {
            return Err(format!("fio ran {} jobs, not {writers}", each.len()));
        }
        Ok(each.iter().sum::<f64>() / f64::from(writers))
    }

    /// How fio reaches the file, options for all its jobs.
    fn io(&self, depth: u32) -> Vec<&'static str> {
        match (self.mode, depth) {
            (Mode::PageCache, _) => vec!["--ioengine=psync"],
            (Mode::Direct, 1) => vec!["--ioengine=psync", "--direct=1"],
            // As many as a copy has under way.
            (Mode::Direct, _) => vec!["--ioengine=libaio", "--direct=1", "--iodepth=16"],
        }
    }
}

fn words(words: &[&str]) -> impl Iterator<Item = String> {
    words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>().into_iter()
}
