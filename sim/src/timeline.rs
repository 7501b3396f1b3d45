//! What happened, in order, in simulated time: text that two runs of one plan must share byte for byte.

use std::fmt::{self, Write as _};
use std::sync::{Arc, Mutex};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::LookupSpan;

/// A log of a run. Clones write to the same log.
#[derive(Debug, Clone)]
pub struct Timeline {
    state: Arc<Mutex<State>>,
    /// What comes behind the names of this one's sources.
    suffix: &'static str,
}

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
        let state = State {
            now_ms: 0,
            text: String::new(),
            keep,
            lines: 0,
            hash: 0xcbf2_9ce4_8422_2325,
            line: String::new(),
        };
        Self { state: Arc::new(Mutex::new(state)), suffix: "" }
    }

    /// The same log, for sources whose names end so.
    pub fn suffixed(&self, suffix: &'static str) -> Self {
        Self { state: self.state.clone(), suffix }
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
        let (state, suffix) = (&mut *state, self.suffix);
        state.line.clear();
        let width = 8usize.saturating_sub(source.len());
        // Writing to a string cannot fail.
        let _ = writeln!(state.line, "{:>7} {source}{suffix:<width$} {what}", state.now_ms);
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
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
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

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for TimelineLayer {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        // turmoil runs each machine in a span of this name, with the machine's.
        if attributes.metadata().name() != "node" {
            return;
        }
        let mut machine = Machine(String::new());
        attributes.record(&mut machine);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(machine);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let metadata = event.metadata();
        if !metadata.target().starts_with(self.target) || *metadata.level() > self.least {
            return;
        }
        let mut line = Line(String::new());
        event.record(&mut line);
        let scope = context.event_scope(event);
        let source = scope.into_iter().flatten().find_map(|span| {
            let extensions = span.extensions();
            extensions.get::<Machine>().map(|machine| machine.0.clone())
        });
        let source = source.as_deref().unwrap_or("array");
        self.timeline.note(source, format_args!("{}{}", metadata.level(), line.0));
    }
}

/// Which machine a span is of.
struct Machine(String);

impl Visit for Machine {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "name" {
            self.0 = value.into();
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn fmt::Debug) {}
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
