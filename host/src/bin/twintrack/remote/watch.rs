//! `remote watch`: a copy followed until it is done.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::Instant;
use twintrack_host::manage::{PairStatusInfo, RemoteInfo};

use crate::Context;
use crate::failure::Failure;
use crate::output::print;
use crate::time;
use twintrack_link::size;

/// How much of the newest rate goes into the one that is told.
const NEWEST: f64 = 0.3;

/// Follows a pair until both halves are the same; without end if `follow`.
pub async fn run(context: &Context, device: &str, interval: Duration, follow: bool) -> Result<(), Failure> {
    let bar = context.output.json || !std::io::stderr().is_terminal();
    let bar = if bar { None } else { Some(bar_of(device)) };
    let mut course = Course::default();
    loop {
        let info = context.array.remote_show(device).await?;
        course.seen(Instant::now(), left(&info));
        match &bar {
            Some(bar) => {
                bar.set_length(course.whole);
                bar.set_position(course.whole - course.left);
                bar.set_message(line(&info, &course));
            }
            None => context.output.show(&info, || line(&info, &course) + "\n")?,
        }
        if is_the_same(&info) && !follow {
            if let Some(bar) = bar {
                bar.finish_and_clear();
                print(format!("{}\n", line(&info, &course)).as_bytes())?;
            }
            return Ok(());
        }
        tokio::time::sleep(interval).await;
    }
}

/// Both halves are the same: there is nothing more to wait for.
fn is_the_same(info: &RemoteInfo) -> bool {
    matches!(info.status, PairStatusInfo::Synchronized | PairStatusInfo::R1Updated)
}

fn left(info: &RemoteInfo) -> u64 {
    info.owed_bytes.saturating_add(info.lacked_bytes)
}

fn bar_of(device: &str) -> ProgressBar {
    let bar = ProgressBar::new(0).with_prefix(device.to_owned());
    if let Ok(style) = ProgressStyle::with_template("{prefix} [{bar:30}] {msg}") {
        bar.set_style(style.progress_chars("=> "));
    }
    bar
}

/// How a copy goes on, as far as it was seen.
#[derive(Debug, Default)]
struct Course {
    /// The most that there was to copy.
    whole: u64,
    left: u64,
    last: Option<Instant>,
    per_s: f64,
}

impl Course {
    fn seen(&mut self, now: Instant, left: u64) {
        if let Some(last) = self.last {
            let took = now.duration_since(last).as_secs_f64();
            // What hosts write in between is copied, too: then it goes backwards.
            let moved = self.left.saturating_sub(left) as f64;
            if took > 0.0 {
                let newest = moved / took;
                let first = self.per_s == 0.0;
                self.per_s = if first { newest } else { self.per_s + NEWEST * (newest - self.per_s) };
            }
        }
        self.last = Some(now);
        self.left = left;
        // Something new to copy begins a new course.
        self.whole = if left == 0 { self.whole } else { self.whole.max(left) };
    }

    fn left_s(&self) -> Option<u64> {
        (self.per_s >= 1.0).then(|| (self.left as f64 / self.per_s).ceil() as u64)
    }
}

/// `SyncInProg  1.2 GiB left  340 MiB/s  0:00:04`
fn line(info: &RemoteInfo, course: &Course) -> String {
    let mut words = vec![info.status.name().to_owned()];
    if course.left > 0 {
        words.push(format!("{} left", size::show(course.left)));
        if let Some(left_s) = course.left_s() {
            words.push(format!("{}/s", size::show(course.per_s as u64)));
            words.push(time::span(left_s));
        }
    }
    if !is_the_same(info) && info.status != PairStatusInfo::SyncInProg {
        words.push(info.why.clone());
    }
    crate::table::printable(&words.join("  "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_of_what_was_copied() {
        let begun = Instant::now();
        let at = |s: u64| begun + Duration::from_secs(s);
        let mut course = Course::default();
        course.seen(at(0), 1000);
        assert_eq!((course.whole, course.left_s()), (1000, None));
        course.seen(at(1), 900);
        assert_eq!((course.per_s, course.left_s()), (100.0, Some(9)));
        // Hosts write more than is copied.
        course.seen(at(2), 1200);
        assert_eq!((course.whole, course.left), (1200, 1200));
        assert!(course.per_s < 100.0);
        course.seen(at(3), 0);
        assert_eq!((course.whole, course.left), (1200, 0));
        // The same instant twice.
        course.seen(at(3), 0);
    }
}
