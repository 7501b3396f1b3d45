//! What waits to be written to a host or another array, and what it holds up meanwhile.

use std::collections::VecDeque;
use std::io::{self, IoSlice};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncWrite, AsyncWriteExt};

/// Segments given to one write.
const SLICES_MAX: usize = 64;

/// Replies in order, as segments.
#[derive(Debug)]
pub(super) struct Outbox {
    /// The stream may hold back what it has taken: it is to be flushed.
    flushes: bool,
    /// What the stream has taken is with the client, as far as the stream knows.
    flushed: bool,
    segments: VecDeque<Bytes>,
    /// Bytes in `segments`.
    bytes: usize,
    /// Bytes that were ever put in, and that were ever written.
    put: u64,
    written: u64,
    /// Where each reply that is not wholly written ends, counted as `put` is.
    ends: VecDeque<u64>,
}

impl Outbox {
    /// Empty. `flushes`: its stream may hold back what it has taken.
    pub(super) fn new(flushes: bool) -> Self {
        Self {
            flushes,
            flushed: true,
            segments: VecDeque::new(),
            bytes: 0,
            put: 0,
            written: 0,
            ends: VecDeque::new(),
        }
    }

    /// Takes the segments of one reply.
    pub(super) fn push(&mut self, segments: &mut Vec<Bytes>) {
        for segment in segments.drain(..).filter(|segment| !segment.is_empty()) {
            self.bytes += segment.len();
            self.put += segment.len() as u64;
            self.segments.push_back(segment);
        }
        self.ends.push_back(self.put);
    }

    /// Replies that are not wholly written.
    pub(super) fn replies(&self) -> usize {
        self.ends.len()
    }

    /// Bytes that are not written.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether everything is written, and nothing held back.
    pub(super) fn is_empty(&self) -> bool {
        self.segments.is_empty() && self.flushed
    }

    /// Writes some of it; may be dropped at any time without harm.
    pub(super) async fn write(&mut self, socket: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        if self.segments.is_empty() {
            socket.flush().await?;
            self.flushed = true;
            return Ok(());
        }
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let mut count = 0;
        for (slice, segment) in slices.iter_mut().zip(&self.segments) {
            *slice = IoSlice::new(segment);
            count += 1;
        }
        let written = socket.write_vectored(&slices[..count]).await?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.flushed = !self.flushes;
        self.advance(written);
        Ok(())
    }

    fn advance(&mut self, mut count: usize) {
        self.bytes -= count;
        self.written += count as u64;
        while let Some(first) = self.segments.front_mut()
            && count > 0
        {
            let now = count.min(first.len());
            first.advance(now);
            count -= now;
            if first.is_empty() {
                self.segments.pop_front();
            }
        }
        while self.ends.front().is_some_and(|end| *end <= self.written) {
            self.ends.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn replies_come_out_whole_and_in_order() {
        let (mut near, mut far) = tokio::io::duplex(7);
        let mut outbox = Outbox::new(false);
        for n in 0..100u8 {
            outbox.push(&mut vec![Bytes::from(vec![n; 3]), Bytes::new(), Bytes::from(vec![n; 2])]);
        }
        assert_eq!((outbox.replies(), outbox.bytes()), (100, 500));
        let mut got = vec![0; 500];
        let write = async {
            while !outbox.is_empty() {
                outbox.write(&mut near).await.unwrap();
            }
        };
        let (_, ()) = tokio::join!(far.read_exact(&mut got), write);
        assert!(got.chunks(5).zip(0u8..).all(|(reply, n)| *reply == [n; 5]));
        assert_eq!((outbox.replies(), outbox.bytes()), (0, 0));
    }

    #[tokio::test]
    async fn what_a_stream_holds_back_is_flushed() {
        let (near, mut far) = tokio::io::duplex(64);
        let mut near = tokio::io::BufWriter::new(near);
        let mut outbox = Outbox::new(true);
        outbox.push(&mut vec![Bytes::from_static(b"reply")]);
        while !outbox.is_empty() {
            outbox.write(&mut near).await.unwrap();
        }
        let mut got = [0; 5];
        far.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"reply");
    }

    #[test]
    fn a_reply_counts_until_its_last_byte() {
        let mut outbox = Outbox::new(false);
        outbox.push(&mut vec![Bytes::from_static(b"abc")]);
        outbox.advance(2);
        assert_eq!((outbox.replies(), outbox.bytes()), (1, 1));
        outbox.advance(1);
        assert_eq!((outbox.replies(), outbox.bytes()), (0, 0));
    }
}
