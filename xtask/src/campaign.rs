//! Many runs on all cores.

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::process::answer;

/// Wall time since a start.
#[derive(Debug, Clone, Copy)]
pub struct Clock(Instant);

impl Clock {
    /// From now on.
    #[allow(clippy::disallowed_methods)] // how long a campaign takes is told to a person, and nothing follows from it
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Since the start.
    pub fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}

/// One run of a campaign.
pub struct Ran {
    /// Its place in the campaign.
    pub place: u64,
    /// What was asked.
    pub job: Value,
    /// What came of it.
    pub report: Value,
    /// Whether a second process answered the same, byte for byte; `true` if there was none.
    pub same_twice: bool,
}

impl Ran {
    /// What was found.
    pub fn violations(&self) -> &[Value] {
        self.report["outcome"]["violations"].as_array().map_or(&[], Vec::as_slice)
    }

    /// Whether nothing was found.
    pub fn passed(&self) -> bool {
        self.same_twice && self.report["outcome"].is_object() && self.violations().is_empty()
    }
}

/// Runs jobs on all cores, in order, until there are none or `done` says so; `done` is told of each run that ended.
pub fn run(
    simulator: &Path,
    jobs: impl Iterator<Item = Value> + Send,
    twice: bool,
    done: &mut (dyn FnMut(Ran) -> bool + Send),
) {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let (jobs, done, stop) = (Mutex::new((0..).zip(jobs)), Mutex::new(done), AtomicBool::new(false));
    let next = || jobs.lock().unwrap_or_else(std::sync::PoisonError::into_inner).next();
    thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let Some((place, job)) = next() else { return };
                    let bytes = answer(simulator, &job);
                    let same_twice = !twice || bytes == answer(simulator, &job);
                    let report = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
                    let mut done = done.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    if done(Ran { place, job, report, same_twice }) {
                        stop.store(true, Ordering::Relaxed);
                    }
                }
            });
        }
    });
}
