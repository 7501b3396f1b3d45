//! A network in the test's own process: a TCP port whose connections go on to another one, until they are cut, held,
//! delayed or throttled.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Bytes that are passed on at a time.
const CHUNK_BYTES: usize = 32 << 10;
/// Chunks on their way: more wait with the sender.
const CHUNKS_MAX: usize = 256;

/// How the network is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Weather {
    pub way: Way,
    /// What every byte takes longer, each way.
    pub delay: Duration,
    /// What goes through in a second, each way.
    pub bytes_per_s: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Open,
    /// Connections break, and no new one is made.
    Cut,
    /// Nothing comes through, and nobody is told.
    Held,
}

impl Weather {
    pub const FINE: Self = Self { way: Way::Open, delay: Duration::ZERO, bytes_per_s: None };
    pub const CUT: Self = Self { way: Way::Cut, ..Self::FINE };
    pub const HELD: Self = Self { way: Way::Held, ..Self::FINE };
}

/// The network; gone with the test.
pub struct Proxy {
    pub port: u16,
    weather: watch::Sender<Weather>,
    task: JoinHandle<()>,
}

impl Proxy {
    /// To a port of this machine.
    pub async fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (weather, seen) = watch::channel(Weather::FINE);
        let own = listener.local_addr().unwrap().port();
        Self { port: own, weather, task: tokio::spawn(serve(listener, port, seen)) }
    }

    /// From now on, for connections that there are, too.
    pub fn set(&self, weather: Weather) {
        self.weather.send_replace(weather);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
        self.set(Weather::CUT);
    }
}

async fn serve(listener: TcpListener, port: u16, weather: watch::Receiver<Weather>) {
    while let Ok((near, _)) = listener.accept().await {
        if weather.borrow().way == Way::Cut {
            continue;
        }
        let Ok(far) = TcpStream::connect(("127.0.0.1", port)).await else { continue };
        for stream in [&near, &far] {
            stream.set_nodelay(true).unwrap();
        }
        let (near_in, near_out) = near.into_split();
        let (far_in, far_out) = far.into_split();
        let (there, back) =
            (pass(near_in, far_out, weather.clone()), pass(far_in, near_out, weather.clone()));
        let mut weather = weather.clone();
        tokio::spawn(async move {
            tokio::select! {
                biased;
                // Both halves of both connections go with it.
                _ = weather.wait_for(|weather| weather.way == Way::Cut) => {}
                _ = there => {}
                _ = back => {}
            }
        });
    }
}

/// One direction.
async fn pass(from: OwnedReadHalf, to: OwnedWriteHalf, weather: watch::Receiver<Weather>) -> io::Result<()> {
    let (sender, receiver) = mpsc::channel(CHUNKS_MAX);
    tokio::try_join!(take(from, sender), give(to, receiver, weather)).map(drop)
}

async fn take(mut from: OwnedReadHalf, chunks: mpsc::Sender<(Instant, Vec<u8>)>) -> io::Result<()> {
    loop {
        let mut chunk = vec![0; CHUNK_BYTES];
        let length = from.read(&mut chunk).await?;
        chunk.truncate(length);
        if length == 0 || chunks.send((Instant::now(), chunk)).await.is_err() {
            return Ok(());
        }
    }
}

async fn give(
    mut to: OwnedWriteHalf,
    mut chunks: mpsc::Receiver<(Instant, Vec<u8>)>,
    mut weather: watch::Receiver<Weather>,
) -> io::Result<()> {
    while let Some((came, chunk)) = chunks.recv().await {
        let now = weather.wait_for(|weather| weather.way == Way::Open).await;
        let Weather { delay, bytes_per_s, .. } = *now.map_err(|_| io::ErrorKind::NotConnected)?;
        tokio::time::sleep_until(came + delay).await;
        to.write_all(&chunk).await?;
        if let Some(rate) = bytes_per_s {
            tokio::time::sleep(Duration::from_secs(1) * chunk.len() as u32 / rate).await;
        }
    }
    to.shutdown().await
}
