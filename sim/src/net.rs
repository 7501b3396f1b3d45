//! Connections of a simulated network that can be cut: all that end at one array, when its power goes, or one at a time.
//! Over turmoil's TCP.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use turmoil::net::TcpStream;

use crate::dice::Dice;
use crate::disk::Power;
use crate::note;
use crate::timeline::Timeline;

/// All connections of a world. Clones share them.
#[derive(Debug, Clone)]
pub struct Wires(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    wires: BTreeMap<u64, Wire>,
    next: u64,
    /// What an array of before the last power cut sends or waits for goes nowhere.
    silent_before: u64,
    /// How often the array crashed, or loaded everything anew.
    epoch: u32,
    power: Power,
    chop_bytes: u32,
    dice: Dice,
    timeline: Timeline,
}

#[derive(Debug, Default)]
struct Wire {
    broken: bool,
    of_array: bool,
    wakers: [Option<Waker>; 2],
}

impl Wires {
    /// No connections yet. Without `power` the array's ends neither send nor receive. `chop_bytes`: the most that one in
    /// three sends and receives takes; 0: no limit.
    pub fn new(power: Power, chop_bytes: u32, seed: u64, timeline: Timeline) -> Self {
        Self(Arc::new(Mutex::new(State {
            wires: BTreeMap::new(),
            next: 0,
            silent_before: 0,
            epoch: 0,
            power,
            chop_bytes,
            dice: Dice::new(seed, "wires"),
            timeline,
        })))
    }

    /// A connection's end: at the array, or at a host.
    pub fn attach(&self, stream: TcpStream, of_array: bool) -> Line {
        let mut state = self.state();
        let id = state.next;
        state.next += 1;
        state.wires.insert(id, Wire { of_array, ..Wire::default() });
        Line { stream, id, wires: self.clone() }
    }

    /// The array crashed, or loaded everything anew.
    pub fn begin_epoch(&self) {
        self.state().epoch += 1;
    }

    /// How often it did. Who is connected now is heard in this epoch or never.
    pub fn epoch(&self) -> u32 {
        self.state().epoch
    }

    /// The array's ends of all connections there are stay silent, also when the power is on again.
    pub fn silence(&self) {
        let mut state = self.state();
        state.silent_before = state.next;
    }

    /// Breaks the `nth` connection (counted round and round), or all. Returns how many.
    pub fn drop_connections(&self, nth: Option<u64>) -> usize {
        let mut state = self.state();
        let state = &mut *state;
        let whole: Vec<u64> =
            state.wires.iter().filter(|(_, wire)| !wire.broken).map(|(id, _)| *id).collect();
        let chosen: Vec<u64> = match nth {
            _ if whole.is_empty() => return 0,
            Some(nth) => vec![whole[(nth % whole.len() as u64) as usize]],
            None => whole,
        };
        for id in &chosen {
            let Some(wire) = state.wires.get_mut(id) else { continue };
            wire.broken = true;
            note!(state.timeline, "net", "connection {id} breaks");
            wire.wakers.iter_mut().filter_map(Option::take).for_each(Waker::wake);
        }
        chosen.len()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One end of a connection.
#[derive(Debug)]
pub struct Line {
    stream: TcpStream,
    id: u64,
    wires: Wires,
}

enum Gate {
    Open { most: usize },
    Silent,
    Broken,
}

impl Line {
    /// `side`: 0 receives, 1 sends. `some`: the bytes that there are to be moved.
    fn gate(&self, side: usize, some: usize, cx: &Context<'_>) -> Gate {
        let mut state = self.wires.state();
        let state = &mut *state;
        let Some(wire) = state.wires.get_mut(&self.id) else { return Gate::Broken };
        if wire.broken {
            return Gate::Broken;
        }
        if wire.of_array && (self.id < state.silent_before || !state.power.is_on()) {
            return Gate::Silent;
        }
        wire.wakers[side] = Some(cx.waker().clone());
        let most = match state.chop_bytes {
            0 => some,
            // Now and then only: turmoil takes time in proportion to the square of the messages under way.
            _ if state.dice.chance(700) => some,
            chop => state.dice.between(1, u64::from(chop)).min(some as u64) as usize,
        };
        Gate::Open { most }
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
        match self.gate(0, buf.remaining(), cx) {
            Gate::Broken => Poll::Ready(Err(reset())),
            Gate::Silent => Poll::Pending,
            Gate::Open { most } if most == buf.remaining() => Pin::new(&mut self.stream).poll_read(cx, buf),
            Gate::Open { most } => {
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
        match self.gate(1, buf.len(), cx) {
            Gate::Broken => Poll::Ready(Err(reset())),
            Gate::Silent => Poll::Pending,
            Gate::Open { most } => Pin::new(&mut self.stream).poll_write(cx, &buf[..most]),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.gate(1, 0, cx) {
            Gate::Broken => Poll::Ready(Err(reset())),
            Gate::Silent => Poll::Pending,
            Gate::Open { .. } => Pin::new(&mut self.stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.gate(1, 0, cx) {
            Gate::Broken => Poll::Ready(Err(reset())),
            Gate::Silent => Poll::Pending,
            Gate::Open { .. } => Pin::new(&mut self.stream).poll_shutdown(cx),
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.wires.state().wires.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use turmoil::net::TcpListener;

    use super::*;

    /// A server that says "hello" again and again; what a client gets when, after some time, `cut` happens.
    fn received(cut: impl Fn(&Wires)) -> (usize, bool) {
        let wires = Wires::new(Power::on(), 3, 1, Timeline::new(false));
        let mut sim = turmoil::Builder::new().rng_seed(1).simulation_duration(Duration::from_secs(5)).build();
        let at_server = wires.clone();
        sim.host("array", move || {
            let wires = at_server.clone();
            async move {
                let listener = TcpListener::bind("0.0.0.0:1").await?;
                let mut line = wires.attach(listener.accept().await?.0, true);
                while line.write_all(b"hello").await.is_ok() {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                std::future::pending().await
            }
        });
        let got = Rc::new(Cell::new((0, false)));
        let (seen, at_client) = (got.clone(), wires.clone());
        sim.client("host0", async move {
            let mut line = at_client.attach(TcpStream::connect("array:1").await?, false);
            let mut bytes = [0; 100];
            loop {
                match line.read(&mut bytes).await {
                    Ok(0) | Err(_) => break,
                    Ok(n) => seen.set((seen.get().0 + n, false)),
                }
            }
            seen.set((seen.get().0, true));
            Ok(())
        });
        for step in 0..1000 {
            if step == 500 {
                cut(&wires);
            }
            sim.step().unwrap();
        }
        got.get()
    }

    #[test]
    fn chopped_bytes_arrive_and_a_silent_array_sends_nothing() {
        let (all, over) = received(|_| {});
        assert!(all > 100 && !over, "{all}");
        let (some, over) = received(Wires::silence);
        assert!(some < all && !over, "no end is seen, only silence");
    }

    #[test]
    fn a_broken_connection_is_noticed() {
        let (_, over) = received(|wires| assert!(wires.drop_connections(None) > 0));
        assert!(over);
    }
}
