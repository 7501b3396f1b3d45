//! One end of a connection, over turmoil's TCP.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};
use turmoil::net::TcpStream;

use super::wires::{Gate, Wires};

/// The most bytes that an end takes in before their time.
const LATE_BYTES_MAX: usize = 4 << 20;
/// Bytes of one look at what has come.
const TAKEN_BYTES: usize = 64 << 10;

/// One end of a connection.
#[derive(Debug)]
pub struct Line {
    stream: TcpStream,
    id: u64,
    wires: Wires,
    late: Late,
}

/// What has come and is not yet to be seen.
#[derive(Debug, Default)]
struct Late {
    /// With the time from which on; nothing: the end.
    pieces: VecDeque<(Instant, Bytes)>,
    bytes: usize,
    ended: bool,
    alarm: Option<Pin<Box<Sleep>>>,
}

impl Line {
    pub(super) fn new(stream: TcpStream, id: u64, wires: Wires) -> Self {
        Self { stream, id, wires, late: Late::default() }
    }

    /// Receives what was sent before `later`.
    fn poll_late(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
        most: usize,
        later: Duration,
    ) -> Poll<io::Result<()>> {
        let (late, now) = (&mut self.late, Instant::now());
        let mut space = Vec::new();
        while !late.ended && late.bytes < LATE_BYTES_MAX {
            space.resize(TAKEN_BYTES, 0);
            let mut part = ReadBuf::new(&mut space);
            let Poll::Ready(taken) = Pin::new(&mut self.stream).poll_read(cx, &mut part) else { break };
            taken?;
            let piece = Bytes::copy_from_slice(part.filled());
            late.ended = piece.is_empty();
            late.bytes += piece.len();
            late.pieces.push_back((now + later, piece));
        }
        let Some((due, piece)) = late.pieces.front_mut() else {
            return if late.ended { Poll::Ready(Ok(())) } else { Poll::Pending };
        };
        if *due > now {
            let alarm = late.alarm.insert(Box::pin(sleep_until(*due)));
            ready!(alarm.as_mut().poll(cx));
        }
        let length = piece.len().min(most).min(buf.remaining());
        buf.put_slice(&piece[..length]);
        piece.advance(length);
        late.bytes -= length;
        if piece.is_empty() {
            late.pieces.pop_front();
        }
        Poll::Ready(Ok(()))
    }
}

fn reset() -> io::Error {
    io::ErrorKind::ConnectionReset.into()
}

impl AsyncRead for Line {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.wires.gate(self.id, 0, buf.remaining(), cx) {
            Gate::Broken => Poll::Ready(Err(reset())),
            Gate::Silent => Poll::Pending,
            Gate::Open { most, later: Some(later) } => self.poll_late(cx, buf, most.max(1), later),
            Gate::Open { most, .. } if most == buf.remaining() => {
                Pin::new(&mut self.stream).poll_read(cx, buf)
            }
            Gate::Open { most, .. } => {
                let mut some = vec![0; most.max(1)];
                let mut part = ReadBuf::new(&mut some);
                let polled = Pin::new(&mut self.stream).poll_read(cx, &mut part);
                buf.put_slice(part.filled());
                polled
            }
        }
    }
}

impl AsyncWrite for Line {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.wires.gate(self.id, 1, buf.len(), cx) {
            Gate::Broken => Poll::Ready(Err(reset())),
            Gate::Silent => Poll::Pending,
            Gate::Open { most, .. } => {
                let sent = ready!(Pin::new(&mut self.stream).poll_write(cx, &buf[..most]))?;
                self.wires.sent(self.id, sent);
                Poll::Ready(Ok(sent))
            }
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.wires.gate(self.id, 1, 0, cx) {
            Gate::Broken => Poll::Ready(Err(reset())),
            Gate::Silent => Poll::Pending,
            Gate::Open { .. } => Pin::new(&mut self.stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.wires.gate(self.id, 1, 0, cx) {
            Gate::Broken => Poll::Ready(Err(reset())),
            Gate::Silent => Poll::Pending,
            Gate::Open { .. } => Pin::new(&mut self.stream).poll_shutdown(cx),
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.wires.detach(self.id);
    }
}
