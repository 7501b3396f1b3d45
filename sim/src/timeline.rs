//! What happened, in order, in simulated time: text that two runs of one plan must share byte for byte.

use std::fmt::{self, Write as _};
use std::sync::{Arc, Mutex};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

/// A log of a run. Clones write to the same log.
#[derive(Debug, Clone)]
pub struct Timeline(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    now_ms: u64,
    text: String,
    keep: bool,
    lines: u64,
    hash: u64,
    line: String,
}

impl Timeline {
    /// An empty log. With `keep` its text is kept, without it only the text's hash.
    pub fn new(keep: bool) -> Self {
        Self(Arc::new(Mutex::new(State {
            now_ms: 0,
            text: String::new(),
            keep,
            lines: 0,
            hash: 0xcbf2_9ce4_8422_2325,
            line: String::new(),
        })))
    }

    /// Sets the simulated time of the lines to come, in ms since the run began.
    pub fn set_now(&self, now_ms: u64) {
        self.state().now_ms = now_ms;
    }

    /// Simulated time in ms since the run began.
    pub fn now_ms(&self) -> u64 {
        self.state().now_ms
    }

    /// Appends a line of one source (`disk`, `host0`, `array`, …).
    pub fn note(&self, source: &str, what: fmt::Arguments<'_>) {
        let mut state = self.state();
        let state = &mut *state;
        state.line.clear();
        // Writing to a string cannot fail.
        let _ = writeln!(state.line, "{:>7} {source:<8} {what}", state.now_ms);
        for byte in state.line.bytes() {
            state.hash = (state.hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        state.lines += 1;
        if state.keep {
            state.text.push_str(&state.line);
        }
    }

    /// The hash of all text so far (FNV-1a).
    pub fn hash(&self) -> u64 {
        self.state().hash
    }

    /// How many lines there are.
    pub fn lines(&self) -> u64 {
        self.state().lines
    }

    /// The text so far; empty if it is not kept.
    pub fn text(&self) -> String {
        self.state().text.clone()
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Takes what the programs under test log into the timeline.
#[derive(Debug, Clone)]
pub struct TimelineLayer {
    timeline: Timeline,
    target: &'static str,
    least: Level,
}

impl TimelineLayer {
    /// Takes the events whose target begins with `target` and that are at least as important as `least`.
    pub fn new(timeline: Timeline, target: &'static str, least: Level) -> Self {
        Self { timeline, target, least }
    }
}

impl<S: Subscriber> Layer<S> for TimelineLayer {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        if !metadata.target().starts_with(self.target) || *metadata.level() > self.least {
            return;
        }
        let mut line = Line(String::new());
        event.record(&mut line);
        self.timeline.note("array", format_args!("{}{}", metadata.level(), line.0));
    }
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let _ = match field.name() {
            "message" => write!(self.0, " {value:?}"),
            name => write!(self.0, " {name}={value:?}"),
        };
    }
}

/// Appends a formatted line to a [`Timeline`].
#[macro_export]
macro_rules! note {
    ($timeline:expr, $source:expr, $($what:tt)+) => {
        $timeline.note($source, format_args!($($what)+))
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_does_not_need_the_text() {
        let (kept, hashed) = (Timeline::new(true), Timeline::new(false));
        for timeline in [&kept, &hashed] {
            timeline.set_now(12);
            note!(timeline, "disk", "write {}", 5);
        }
        assert_eq!(kept.text(), "     12 disk     write 5\n");
        assert_eq!(kept.hash(), hashed.hash());
        assert_eq!((hashed.text().as_str(), hashed.lines()), ("", 1));
    }
}
