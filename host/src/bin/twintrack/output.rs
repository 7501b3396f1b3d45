//! What goes to standard output.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::failure::Failure;

/// Prints answers: for people, or for programs.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    /// For programs: one line of JSON, of the library's own types.
    pub json: bool,
}

impl Output {
    /// An answer.
    pub fn show<T: Serialize + ?Sized>(
        self,
        answer: &T,
        text: impl FnOnce() -> String,
    ) -> Result<(), Failure> {
        if self.json {
            let mut line = serde_json::to_vec(answer).map_err(|error| Failure::Stdout(error.into()))?;
            line.push(b'\n');
            return print(&line);
        }
        print(text().as_bytes())
    }

    /// It was done, and there is nothing to tell.
    pub fn done(self) -> Result<(), Failure> {
        self.show(&(), String::new)
    }
}

/// Bytes as they are.
pub fn print(bytes: &[u8]) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes).and_then(|()| stdout.flush()).map_err(Failure::Stdout)
}

/// Tells a person that it takes a while, until it is dropped. Nothing is shown where standard error is no terminal.
#[derive(Debug)]
pub struct Waiting(ProgressBar);

impl Waiting {
    /// Ends before an answer is printed.
    pub fn new(message: String) -> Self {
        let bar = ProgressBar::new_spinner().with_message(message);
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(200));
        Self(bar)
    }

    /// For while an answer is printed: nothing is shown between its lines on a terminal.
    pub fn beside_lines(message: String) -> Self {
        if io::stdout().is_terminal() { Self(ProgressBar::hidden()) } else { Self::new(message) }
    }

    /// Says how far it is.
    pub fn message(&self, message: String) {
        self.0.set_message(message);
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
