//! The simulated network as the controller's and the host library's seams want it: endpoints are ports of turmoil hosts.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use turmoil::net::{TcpListener, TcpStream};
use twintrack_controller::shell::{Endpoint, Net};
use twintrack_host::{Dial, Endpoint as HostEndpoint};

use crate::net::{Line, Wires};

/// The array's name in the simulated network.
pub const ARRAY: &str = "array";
/// Where its management listens.
pub const MANAGE_PORT: u16 = 80;
/// Where its NBD server listens.
pub const NBD_PORT: u16 = 10809;

/// The network as the array sees it.
#[derive(Debug, Clone)]
pub struct SimNet(pub Wires);

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
        Ok(self.0.attach(stream, true))
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
                Ok(self.0.attach(stream, false))
            }
            HostEndpoint::Unix(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }
}

/// A dial that notes in which epoch it last connected: in which one what was asked last was done, if it was.
#[derive(Debug, Clone)]
pub struct NotedDial {
    dial: SimDial,
    epoch: Arc<AtomicU32>,
}

impl NotedDial {
    /// Connects over these wires; has not yet.
    pub fn new(wires: Wires) -> Self {
        let epoch = Arc::new(AtomicU32::new(wires.epoch()));
        Self { dial: SimDial(wires), epoch }
    }

    /// The epoch of the last connection; before the first one, that of its making.
    pub fn epoch(&self) -> u32 {
        self.epoch.load(Ordering::Relaxed)
    }
}

impl Dial for NotedDial {
    type Stream = Line;

    async fn dial(&self, endpoint: &HostEndpoint) -> io::Result<Line> {
        let line = self.dial.dial(endpoint).await?;
        self.epoch.store(self.dial.0.epoch(), Ordering::Relaxed);
        Ok(line)
    }
}
