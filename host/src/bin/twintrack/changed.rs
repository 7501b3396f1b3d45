//! `session changed`: page after page of changed tracks (D15), as ranges or as JSON.

use std::io::{self, BufWriter, Write};

use twintrack_core::SessionId;

use crate::Context;
use crate::failure::Failure;
use crate::output::Waiting;

/// Prints them while they come: a large device has hundreds of millions of tracks.
pub async fn print(context: &Context, session: SessionId) -> Result<(), Failure> {
    let stdout = BufWriter::new(io::stdout().lock());
    let mut writer = Writer::new(stdout, context.output.json);
    let waiting = Waiting::beside_lines(format!("{session}: changed tracks"));
    let mut from = 0;
    loop {
        let page = context.array.session_changed(session.0, from).await?;
        for track in page.tracks {
            writer.track(track).map_err(Failure::Stdout)?;
        }
        let Some(next) = page.next else { break };
        if next <= from {
            return Err(Failure::Pages { endpoint: context.array.endpoint().clone() });
        }
        from = next;
        waiting.message(format!("{session}: changed tracks, at {from}"));
    }
    writer.end().map_err(Failure::Stdout)
}

/// Tracks in order as ranges: `7`, `12-40`.
pub fn ranges(tracks: &[u32]) -> Vec<String> {
    let joined = tracks.chunk_by(|left, right| left.checked_add(1) == Some(*right));
    let shown = joined.filter_map(|range| match range {
        [] => None,
        [one] => Some(one.to_string()),
        [first, .., last] => Some(format!("{first}-{last}")),
    });
    shown.collect()
}

/// Joins tracks that follow each other, or writes them as one `ChangedTracks` of the library.
struct Writer<W> {
    out: W,
    json: bool,
    /// What was not yet written: the first and the last track.
    range: Option<(u32, u32)>,
    is_empty: bool,
}

impl<W: Write> Writer<W> {
    fn new(out: W, json: bool) -> Self {
        Self { out, json, range: None, is_empty: true }
    }

    fn track(&mut self, track: u32) -> io::Result<()> {
        if self.json {
            let before = if self.is_empty { r#"{"tracks":["# } else { "," };
            self.is_empty = false;
            return write!(self.out, "{before}{track}");
        }
        match &mut self.range {
            Some((_, last)) if last.checked_add(1) == Some(track) => *last = track,
            range => {
                let done = range.replace((track, track));
                self.range(done)?;
            }
        }
        Ok(())
    }

    fn end(mut self) -> io::Result<()> {
        if self.json {
            let before = if self.is_empty { r#"{"tracks":["# } else { "" };
            writeln!(self.out, r#"{before}],"next":null}}"#)?;
        } else {
            let last = self.range.take();
            self.range(last)?;
        }
        self.out.flush()
    }

    fn range(&mut self, range: Option<(u32, u32)>) -> io::Result<()> {
        match range {
            None => Ok(()),
            Some((first, last)) if first == last => writeln!(self.out, "{first}"),
            Some((first, last)) => writeln!(self.out, "{first}-{last}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use twintrack_host::manage::ChangedTracks;

    use super::*;

    fn written(tracks: &[u32], json: bool) -> String {
        let mut bytes = Vec::new();
        let mut writer = Writer::new(&mut bytes, json);
        for &track in tracks {
            writer.track(track).unwrap();
        }
        writer.end().unwrap();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn tracks_are_joined_to_ranges() {
        assert_eq!(written(&[], false), "");
        assert_eq!(written(&[0], false), "0\n");
        assert_eq!(written(&[0, 1, 2, 7, 9, 10], false), "0-2\n7\n9-10\n");
        assert_eq!(written(&[u32::MAX - 1, u32::MAX, 0], false), "4294967294-4294967295\n0\n");
    }

    #[test]
    fn a_list_is_joined_likewise() {
        assert_eq!(ranges(&[0, 1, 2, 7, 9, 10, u32::MAX]).join(", "), "0-2, 7, 9-10, 4294967295");
        assert!(ranges(&[]).is_empty());
    }

    /// However many pages there were, it is the library's type.
    #[test]
    fn json_is_one_answer() {
        for tracks in [vec![], vec![3], vec![3, 4, 9]] {
            let answer = ChangedTracks { tracks: tracks.clone(), next: None };
            assert_eq!(written(&tracks, true), serde_json::to_string(&answer).unwrap() + "\n");
        }
    }
}
