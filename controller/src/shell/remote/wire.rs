//! Messages of one connection: bytes in and out, neither waiting for the other.

use std::io;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use twintrack_link::remote::{Decoder, EncodeError, Encoder, FrameError, Message, WINDOW_BYTES_MAX};

use crate::shell::outbox::Outbox;

/// What is allocated at a time for what the peer sends.
const BUFFER_BYTES: usize = 64 << 10;
/// The same once it sends large payloads: most of them lie in one piece in it, and need not be moved.
const LARGE_BUFFER_BYTES: usize = 1 << 20;
/// The room that is left when more is allocated.
const SPARE_BYTES: usize = 4 << 10;
/// With more than this to write nothing is read: no peer that keeps to its window gets so far, for this is what both
/// windows together hold, and headers. Who asks and does not read what it asked for is not heard any more.
const OUTBOX_BYTES_MAX: usize = 2 * WINDOW_BYTES_MAX as usize + (1 << 20);

/// A connection that messages go through.
pub(super) struct Wire<S> {
    reader: ReadHalf<S>,
    writer: WriteHalf<S>,
    decoder: Decoder,
    input: BytesMut,
    encoder: Encoder,
    outbox: Outbox,
    /// Kept for its capacity.
    segments: Vec<Bytes>,
}

/// What [`Wire::turn`] did.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Something came: there may be messages.
    Received,
    /// Something went.
    Sent,
    /// The peer sends nothing more.
    Ended,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    /// Over a fresh stream, which may hold back what it has taken until it is flushed.
    pub(super) fn new(stream: S) -> Self {
        let (reader, writer) = tokio::io::split(stream);
        Self {
            reader,
            writer,
            decoder: Decoder::new(),
            input: BytesMut::new(),
            encoder: Encoder::new(),
            outbox: Outbox::new(true),
            segments: Vec::new(),
        }
    }

    /// The next message that has come whole.
    pub(super) fn pop(&mut self) -> Result<Option<Message>, FrameError> {
        self.decoder.next(&mut self.input)
    }

    /// Something to send.
    pub(super) fn push(&mut self, message: &Message) -> Result<(), EncodeError> {
        self.encoder.encode(message, &mut self.segments)?;
        self.outbox.push(&mut self.segments);
        Ok(())
    }

    /// Whether all of it was sent.
    #[cfg(test)]
    pub(super) fn is_sent(&self) -> bool {
        self.outbox.is_empty()
    }

    /// Sends and receives, whichever can be done first. May be dropped at any time without harm.
    pub(super) async fn turn(&mut self) -> io::Result<Turn> {
        let reads = self.outbox.bytes() <= OUTBOX_BYTES_MAX;
        if reads {
            self.make_room();
        }
        tokio::select! {
            biased;
            result = self.outbox.write(&mut self.writer), if !self.outbox.is_empty() => {
                result.map(|()| Turn::Sent)
            }
            result = self.reader.read_buf(&mut self.input), if reads => {
                result.map(|bytes| if bytes == 0 { Turn::Ended } else { Turn::Received })
            }
            else => std::future::pending().await,
        }
    }

    /// Sends what there is, says that there is no more, and waits until the peer has heard it: who closes at once may
    /// take back what is still on its way.
    pub(super) async fn finish(&mut self) -> io::Result<()> {
        while !self.outbox.is_empty() {
            self.outbox.write(&mut self.writer).await?;
        }
        self.writer.shutdown().await?;
        loop {
            self.input.clear();
            self.input.reserve(BUFFER_BYTES);
            if self.reader.read_buf(&mut self.input).await? == 0 {
                return Ok(());
            }
        }
    }

    /// Room for what is announced, as far as it has begun to arrive. For a large payload that does not fit, at once:
    /// what is there of it has to be moved, and that grows. Else not before the last room is nearly full, for payloads
    /// in flight hold it.
    fn make_room(&mut self) {
        let room = self.decoder.reserve_bytes(&self.input);
        let spare = self.input.capacity() - self.input.len();
        let want = self.decoder.want(&self.input);
        if want > SPARE_BYTES {
            if spare < want.min(room) {
                self.input.reserve(room.max(LARGE_BUFFER_BYTES));
            }
        } else if spare < want.max(SPARE_BYTES) {
            self.input.reserve(BUFFER_BYTES);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::duplex;
    use twintrack_core::{PairId, TrackNo};
    use twintrack_link::remote::{Answer, Request, RequestNo};

    use super::*;

    fn write(n: u64, bytes: usize) -> Message {
        let pair = PairId { serial: 1, number: 1 };
        let data = Bytes::from(vec![n as u8; bytes]);
        let what = Request::Write { pair, track: TrackNo(n as u32), within: 0, data };
        Message::Request { id: RequestNo(n), what }
    }

    /// Messages come out whole and in order, both ways at once, through a pipe of any width.
    #[tokio::test(start_paused = true)]
    async fn both_send_at_once() {
        for width in [1, 37, 4096, 1 << 20] {
            let (a, b) = duplex(width);
            let side = |stream, bytes: usize| async move {
                let mut wire = Wire::new(stream);
                for n in 1..=20 {
                    wire.push(&write(n, bytes)).unwrap();
                }
                let mut heard = 0;
                while heard < 20 || !wire.is_sent() {
                    wire.turn().await.unwrap();
                    while let Some(message) = wire.pop().unwrap() {
                        heard += 1;
                        let Message::Request { id, what: Request::Write { data, .. } } = message else {
                            panic!("{message}");
                        };
                        assert_eq!(id, RequestNo(heard));
                        assert!(data.iter().all(|byte| u64::from(*byte) == heard));
                    }
                }
            };
            tokio::join!(side(a, 5120), side(b, 512));
        }
    }

    /// A stream that holds back what it has taken, as TLS does, is flushed.
    #[tokio::test]
    async fn what_is_held_back_is_flushed() {
        let (a, b) = duplex(64 << 10);
        let mut near = Wire::new(tokio::io::BufWriter::new(a));
        let mut far = Wire::new(b);
        near.push(&Message::Ping { n: 1 }).unwrap();
        while !near.is_sent() {
            assert_eq!(near.turn().await.unwrap(), Turn::Sent);
        }
        assert_eq!(far.turn().await.unwrap(), Turn::Received);
        assert_eq!(far.pop().unwrap(), Some(Message::Ping { n: 1 }));
    }

    #[tokio::test]
    async fn what_was_said_last_is_heard() {
        let (a, b) = duplex(8);
        let mut near = Wire::new(a);
        near.push(&Message::Ping { n: 1 }).unwrap();
        let far = async {
            let mut far = Wire::new(b);
            far.push(&write(1, 4096)).unwrap();
            while far.turn().await.unwrap() != Turn::Ended {}
            assert_eq!(far.pop().unwrap(), Some(Message::Ping { n: 1 }));
        };
        let (finished, ()) = tokio::join!(near.finish(), far);
        finished.unwrap();
    }

    /// A peer that asks and reads nothing is not heard any more, so that what it asks for has a bound.
    #[tokio::test(start_paused = true)]
    async fn who_does_not_read_is_not_heard() {
        let (a, mut b) = duplex(4096);
        let mut wire = Wire::new(a);
        let data = Bytes::from(vec![0; 1 << 20]);
        for n in 1..=66 {
            let result = Ok(Answer::Data(data.clone()));
            wire.push(&Message::Answer { id: RequestNo(n), result }).unwrap();
        }
        b.write_all(b"twln").await.unwrap();
        while let Ok(turn) = tokio::time::timeout(Duration::from_secs(1), wire.turn()).await {
            assert_eq!(turn.unwrap(), Turn::Sent);
        }
        assert!(wire.input.is_empty());
    }

    /// Payloads lie where they were read to: a stream of tracks is not moved about.
    #[tokio::test(start_paused = true)]
    async fn memory_follows_what_has_come() {
        let (a, b) = duplex(1 << 20);
        let mut near = Wire::new(a);
        let mut far = Wire::new(b);
        for n in 1..=64 {
            near.push(&write(n, 64 << 10)).unwrap();
        }
        let mut heard = Vec::new();
        while heard.len() < 64 {
            tokio::select! {
                biased;
                turn = far.turn() => drop(turn.unwrap()),
                turn = near.turn() => drop(turn.unwrap()),
            }
            while let Some(message) = far.pop().unwrap() {
                heard.push(message);
            }
            assert!(far.input.capacity() <= 2 * LARGE_BUFFER_BYTES);
        }
    }
}
