//! Sockets: listening, accepting, and the tasks of the connections.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tracing::{debug, info, warn};
use twintrack_link::Endpoint;

use super::array::Array;
use super::config::{Config, ServeError};
use super::seams::{Disk, Env, Net};
use super::token::Token;
use super::{control, nbd};

/// NBD connections of an array.
const HOSTS_MAX: usize = 1024;
/// Management connections of an array.
const CALLERS_MAX: usize = 256;
/// Between two attempts to accept, when one failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The bound sockets. They stay bound over reloads; who connects meanwhile waits.
pub(super) struct Doors<N: Net> {
    net: N,
    listeners: Vec<(Kind, N::Listener)>,
}

/// What is spoken on a socket.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Nbd,
    /// From the array's owner.
    Control,
    /// From anybody: with the token, if there is one.
    ControlOverTcp,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nbd => "Nbd",
            Self::Control | Self::ControlOverTcp => "Control",
        })
    }
}

impl<N: Net> Doors<N> {
    pub(super) async fn bind(net: N, config: &Config) -> Result<Self, ServeError> {
        let mut doors = Self { net, listeners: Vec::new() };
        for endpoint in &config.nbd {
            doors.bind_one(Kind::Nbd, endpoint).await?;
        }
        for endpoint in &config.control {
            let kind = match endpoint {
                Endpoint::Unix(_) => Kind::Control,
                Endpoint::Tcp(..) => Kind::ControlOverTcp,
            };
            doors.bind_one(kind, endpoint).await?;
        }
        Ok(doors)
    }

    async fn bind_one(&mut self, kind: Kind, endpoint: &Endpoint) -> Result<(), ServeError> {
        match self.net.bind(endpoint).await {
            Ok(listener) => {
                info!(%endpoint, %kind, "listening");
                self.listeners.push((kind, listener));
                Ok(())
            }
            Err(source) => Err(ServeError::Bind { endpoint: endpoint.clone(), source }),
        }
    }
}

/// The connections of one life of an array. When it is dropped, so are they.
pub(super) struct Connections<D> {
    array: Arc<Array<D>>,
    router: Router,
    /// The same behind the token.
    guarded: Router,
    closing: watch::Sender<bool>,
    hosts: JoinSet<()>,
    callers: JoinSet<()>,
}

impl<D: Disk> Connections<D> {
    pub(super) fn new<E: Env>(array: Arc<Array<D>>, env: E, token: Option<&Token>) -> Self {
        let router = control::router(Arc::clone(&array), env);
        let guarded = match token {
            Some(token) => control::guarded(router.clone(), token.clone()),
            None => router.clone(),
        };
        let closing = watch::Sender::new(false);
        Self { array, router, guarded, closing, hosts: JoinSet::new(), callers: JoinSet::new() }
    }

    /// Takes connections, for ever.
    pub(super) async fn accept<N: Net>(&mut self, doors: &mut Doors<N>) {
        let net = &doors.net;
        let mut accepts: FuturesUnordered<_> =
            doors.listeners.iter_mut().map(|(kind, listener)| accept_one(net, *kind, listener)).collect();
        loop {
            tokio::select! {
                biased;
                Some(ended) = self.hosts.join_next() => reap(ended),
                Some(ended) = self.callers.join_next() => reap(ended),
                Some((kind, listener, accepted)) = accepts.next() => {
                    if let Ok(stream) = accepted {
                        self.welcome(net, kind, stream);
                    }
                    accepts.push(accept_one(net, kind, listener));
                }
                else => std::future::pending().await,
            }
        }
    }

    fn welcome<N: Net>(&mut self, net: &N, kind: Kind, stream: N::Stream) {
        let closing = self.closing.subscribe();
        match kind {
            Kind::Nbd if self.hosts.len() < HOSTS_MAX => {
                let array = Arc::clone(&self.array);
                self.hosts.spawn(nbd::serve_connection(array, net.clone(), stream, closing));
            }
            Kind::Control | Kind::ControlOverTcp if self.callers.len() < CALLERS_MAX => {
                let router = if kind == Kind::Control { &self.router } else { &self.guarded };
                self.callers.spawn(control::serve_connection(router.clone(), net.clone(), stream, closing));
            }
            Kind::Nbd | Kind::Control | Kind::ControlOverTcp => {
                debug!(%kind, "too many connections: one is refused");
            }
        }
    }

    /// Waits for all connections to end; [`Array::close`] has told the attached ones.
    pub(super) async fn close(&mut self) {
        self.closing.send_replace(true);
        while let Some(ended) = self.hosts.join_next().await {
            reap(ended);
        }
        while let Some(ended) = self.callers.join_next().await {
            reap(ended);
        }
    }

    /// Ends all connections, when no disk operation is under way any more.
    pub(super) async fn drop_all(mut self) {
        self.hosts.shutdown().await;
        self.callers.shutdown().await;
    }
}

async fn accept_one<'a, N: Net>(
    net: &N,
    kind: Kind,
    listener: &'a mut N::Listener,
) -> (Kind, &'a mut N::Listener, io::Result<N::Stream>) {
    let accepted = net.accept(listener).await;
    if let Err(error) = &accepted {
        warn!(%kind, %error, "accept failed");
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }
    (kind, listener, accepted)
}

/// A panic in a connection's task is one of the array: what it left behind nobody may build on.
fn reap(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        std::panic::resume_unwind(error.into_panic());
    }
}
