//! The simulated network as the controller's and the host library's seams want it: endpoints are ports of turmoil hosts.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::sleep;
use turmoil::net::{TcpListener, TcpStream};
use twintrack_controller::shell::{Endpoint, Net};
use twintrack_host::{Dial, Endpoint as HostEndpoint};

use crate::net::{End, Line, Wires};
use crate::site::Site;

/// Where an array's management listens.
pub const MANAGE_PORT: u16 = 80;
/// Where its NBD server listens.
pub const NBD_PORT: u16 = 10809;

/// Where it listens for the other array.
pub const LINK_PORT: u16 = 10908;

/// How long an array tries to connect to another that does not answer.
const DIAL_MS: u64 = 1000;

/// The network as an array sees it.
#[derive(Debug, Clone)]
pub struct SimNet {
    /// The connections.
    pub wires: Wires,
    /// Which array.
    pub site: Site,
}

impl Net for SimNet {
    type Listener = TcpListener;
    type Stream = Line;

    async fn bind(&self, endpoint: &Endpoint) -> io::Result<TcpListener> {
        match endpoint {
            Endpoint::Tcp(_, port) => TcpListener::bind(("0.0.0.0", *port)).await,
            Endpoint::Unix(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    async fn accept(&self, listener: &mut TcpListener) -> io::Result<Line> {
        let (stream, _) = listener.accept().await?;
        let is_link = listener.local_addr()?.port() == LINK_PORT;
        let end = if is_link { End::Link(self.site) } else { End::Array(self.site) };
        Ok(self.wires.attach(stream, end))
    }

    async fn dial(&self, endpoint: &Endpoint) -> io::Result<Line> {
        let Endpoint::Tcp(host, port) = endpoint else { return Err(io::ErrorKind::Unsupported.into()) };
        for _ in 0..DIAL_MS {
            if self.wires.may_dial() {
                let stream = TcpStream::connect((host.as_str(), *port)).await?;
                return Ok(self.wires.attach(stream, End::Link(self.site)));
            }
            sleep(Duration::from_millis(1)).await;
        }
        Err(io::ErrorKind::TimedOut.into())
    }
}

/// The network as a host sees it.
#[derive(Debug, Clone)]
pub struct SimDial(pub Wires);

impl Dial for SimDial {
    type Stream = Line;

    async fn dial(&self, endpoint: &HostEndpoint) -> io::Result<Line> {
        match endpoint {
            HostEndpoint::Tcp(host, port) => {
                let stream = TcpStream::connect((host.as_str(), *port)).await?;
                Ok(self.0.attach(stream, End::Host))
            }
            HostEndpoint::Unix(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }
}

/// A dial that notes in which epochs it connected: in which ones what was asked was done, if it was.
#[derive(Debug, Clone)]
pub struct NotedDial {
    dial: SimDial,
    site: Site,
    made_in: u32,
    epochs: Arc<Mutex<Vec<u32>>>,
}

impl NotedDial {
    /// Connects to an array over these wires; has not yet.
    pub fn new(wires: Wires, site: Site) -> Self {
        let made_in = wires.epoch(site);
        Self { dial: SimDial(wires), site, made_in, epochs: Arc::default() }
    }

    /// The epochs of all connections, each once; before the first one, that of its making.
    pub fn epochs(&self) -> Vec<u32> {
        let epochs = self.noted().clone();
        if epochs.is_empty() { vec![self.made_in] } else { epochs }
    }

    /// The last of them.
    pub fn epoch(&self) -> u32 {
        self.noted().last().copied().unwrap_or(self.made_in)
    }

    fn noted(&self) -> MutexGuard<'_, Vec<u32>> {
        self.epochs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Dial for NotedDial {
    type Stream = Line;

    async fn dial(&self, endpoint: &HostEndpoint) -> io::Result<Line> {
        let line = self.dial.dial(endpoint).await?;
        let epoch = self.dial.0.epoch(self.site);
        let mut noted = self.noted();
        if noted.last() != Some(&epoch) {
            noted.push(epoch);
        }
        Ok(line)
    }
}
