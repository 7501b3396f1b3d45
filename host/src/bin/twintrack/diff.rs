//! `session diff`: page after page of byte ranges that differ (F7), as a table or as JSON.

use std::io::{self, BufWriter, Write};

use twintrack_core::SessionId;
use twintrack_host::manage::ByteRange;

use crate::Context;
use crate::args::Other;
use crate::failure::Failure;
use crate::output::Waiting;

/// Digits of the largest device's size.
const WIDTH: usize = 14;

/// Prints them while they come.
pub async fn print(context: &Context, session: SessionId, other: Other) -> Result<(), Failure> {
    let stdout = BufWriter::new(io::stdout().lock());
    let mut writer = Writer::new(stdout, context.output.json);
    let waiting = Waiting::beside_lines(format!("{session}: what differs"));
    let other = match other {
        Other::Session(session) => Some(session.0),
        Other::Now => None,
    };
    let mut from = 0;
    loop {
        let page = context.array.session_diff(session.0, other, from).await?;
        for range in page.ranges {
            writer.range(range).map_err(Failure::Stdout)?;
        }
        let Some(next) = page.next else { break };
        if next <= from {
            return Err(Failure::Pages { endpoint: context.array.endpoint().clone() });
        }
        from = next;
        waiting.message(format!("{session}: what differs, at {from}"));
    }
    writer.end().map_err(Failure::Stdout)
}

/// Joins ranges that follow each other, for a page may end within one; writes lines, or one `Differences` of the library.
struct Writer<W> {
    out: W,
    json: bool,
    /// What was not yet written.
    last: Option<ByteRange>,
    is_empty: bool,
}

impl<W: Write> Writer<W> {
    fn new(out: W, json: bool) -> Self {
        Self { out, json, last: None, is_empty: true }
    }

    fn range(&mut self, range: ByteRange) -> io::Result<()> {
        match &mut self.last {
            Some(last) if last.offset.checked_add(last.length) == Some(range.offset) => {
                last.length = last.length.saturating_add(range.length);
                Ok(())
            }
            last => {
                let done = last.replace(range);
                self.write(done)
            }
        }
    }

    fn end(mut self) -> io::Result<()> {
        let last = self.last.take();
        self.write(last)?;
        if self.json {
            let before = if self.is_empty { r#"{"ranges":["# } else { "" };
            writeln!(self.out, r#"{before}],"next":null}}"#)?;
        } else if self.is_empty {
            self.heading()?;
        }
        self.out.flush()
    }

    fn write(&mut self, range: Option<ByteRange>) -> io::Result<()> {
        let Some(ByteRange { offset, length }) = range else { return Ok(()) };
        let is_first = std::mem::replace(&mut self.is_empty, false);
        if self.json {
            let before = if is_first { r#"{"ranges":["# } else { "," };
            return write!(self.out, r#"{before}{{"offset":{offset},"length":{length}}}"#);
        }
        if is_first {
            self.heading()?;
        }
        writeln!(self.out, "{offset:>WIDTH$}  {length:>WIDTH$}")
    }

    fn heading(&mut self) -> io::Result<()> {
        writeln!(self.out, "{:>WIDTH$}  {:>WIDTH$}", "OFFSET", "BYTES")
    }
}

#[cfg(test)]
mod tests {
    use twintrack_host::manage::Differences;

    use super::*;

    fn written(ranges: &[(u64, u64)], json: bool) -> String {
        let mut bytes = Vec::new();
        let mut writer = Writer::new(&mut bytes, json);
        for &(offset, length) in ranges {
            writer.range(ByteRange { offset, length }).unwrap();
        }
        writer.end().unwrap();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn ranges_are_joined() {
        let heading = "        OFFSET           BYTES\n";
        assert_eq!(written(&[], false), heading);
        let lines = "             0            8192\n         16384             512\n";
        assert_eq!(written(&[(0, 4096), (4096, 4096), (16384, 512)], false), format!("{heading}{lines}"));
    }

    /// However many pages there were, it is the library's type.
    #[test]
    fn json_is_one_answer() {
        for ranges in [vec![], vec![(0, 4096)], vec![(0, 4096), (8192, 512)]] {
            let of_library = ranges.iter().map(|&(offset, length)| ByteRange { offset, length }).collect();
            let answer = Differences { ranges: of_library, next: None };
            assert_eq!(written(&ranges, true), serde_json::to_string(&answer).unwrap() + "\n");
        }
    }
}
