//! Sockets: listening, accepting, and the tasks of the connections.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinSet};
use tracing::{debug, info, warn};
use twintrack_link::Endpoint;

use super::array::Array;
use super::config::{Config, ServeError};
use super::places::Places;
use super::remote::{self, Dialling};
use super::seams::{Disk, Env, Net};
use super::token::Token;
use super::{control, nbd};

/// NBD connections over Unix sockets, and as many over TCP.
const HOSTS_MAX: usize = 1024;
/// Management connections over Unix sockets, and as many over TCP.
const CALLERS_MAX: usize = 256;
/// Connections of other arrays over Unix sockets, and as many over TCP.
const LINKS_MAX: usize = 64;
/// Connections that have lost their places and are not gone yet. With more, newcomers wait.
const LEAVING_MAX: usize = 64;
/// All connections of an array, but for those that it dials: one a peer.
const CONNECTIONS_MAX: usize = 2 * (HOSTS_MAX + CALLERS_MAX + LINKS_MAX) + LEAVING_MAX;
/// Between two attempts to accept, when one failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The bound sockets. They stay bound over reloads; who connects meanwhile waits.
pub(super) struct Doors<N: Net> {
    net: N,
    listeners: Vec<(Kind, N::Listener)>,
}

/// What is spoken on a socket, and who gets there.
#[derive(Clone, Copy)]
struct Kind {
    speech: Speech,
    reach: Reach,
}

#[derive(Clone, Copy)]
enum Speech {
    Nbd,
    Control,
    Link,
}

/// Places are counted for each alone, so that who comes from anywhere never keeps out the owner.
#[derive(Clone, Copy)]
enum Reach {
    /// Unix sockets: the array's owner.
    Owner,
    /// TCP: anybody. Commands take the token, if there is one.
    Anybody,
}

impl Kind {
    fn new(speech: Speech, endpoint: &Endpoint) -> Self {
        let reach = match endpoint {
            Endpoint::Unix(_) => Reach::Owner,
            Endpoint::Tcp(..) => Reach::Anybody,
        };
        Self { speech, reach }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.speech {
            Speech::Nbd => "Nbd",
            Speech::Control => "Control",
            Speech::Link => "Link",
        })
    }
}

impl<N: Net> Doors<N> {
    pub(super) async fn bind(net: N, config: &Config) -> Result<Self, ServeError> {
        let mut doors = Self { net, listeners: Vec::new() };
        for endpoint in &config.nbd {
            doors.bind_one(Kind::new(Speech::Nbd, endpoint), endpoint).await?;
        }
        for endpoint in &config.control {
            doors.bind_one(Kind::new(Speech::Control, endpoint), endpoint).await?;
        }
        for endpoint in &config.link {
            doors.bind_one(Kind::new(Speech::Link, endpoint), endpoint).await?;
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

/// The places of those who come by one reach.
struct Rooms {
    hosts: Places,
    callers: Places,
    links: Places,
}

impl Rooms {
    fn new() -> Self {
        let [hosts, callers, links] = [HOSTS_MAX, CALLERS_MAX, LINKS_MAX].map(Places::new);
        Self { hosts, callers, links }
    }
}

/// The connections of one life of an array. When it is dropped, so are they.
pub(super) struct Connections<D> {
    array: Arc<Array<D>>,
    router: Router,
    /// The same behind the token.
    guarded: Router,
    closing: watch::Sender<bool>,
    of_owner: Rooms,
    of_anybody: Rooms,
    hosts: JoinSet<()>,
    callers: JoinSet<()>,
    /// Those that came, and those that were dialled.
    links: JoinSet<()>,
    dials: mpsc::UnboundedReceiver<Dialling>,
}

impl<D: Disk> Connections<D> {
    pub(super) fn new<E: Env>(
        array: Arc<Array<D>>,
        env: E,
        token: Option<&Token>,
        dials: mpsc::UnboundedReceiver<Dialling>,
    ) -> Self {
        let router = control::router(Arc::clone(&array), env);
        let guarded = match token {
            Some(token) => control::guarded(router.clone(), token.clone()),
            None => router.clone(),
        };
        let closing = watch::Sender::new(false);
        Self {
            array,
            router,
            guarded,
            closing,
            of_owner: Rooms::new(),
            of_anybody: Rooms::new(),
            hosts: JoinSet::new(),
            callers: JoinSet::new(),
            links: JoinSet::new(),
            dials,
        }
    }

    /// Takes connections and makes those that the firmware wants, for ever.
    pub(super) async fn accept<N: Net>(&mut self, doors: &mut Doors<N>) {
        let net = &doors.net;
        let mut accepts: FuturesUnordered<_> =
            doors.listeners.iter_mut().map(|(kind, listener)| accept_one(net, *kind, listener)).collect();
        loop {
            let has_room = self.hosts.len() + self.callers.len() + self.links.len() < CONNECTIONS_MAX;
            tokio::select! {
                biased;
                Some(ended) = self.hosts.join_next() => reap(ended),
                Some(ended) = self.callers.join_next() => reap(ended),
                Some(ended) = self.links.join_next() => reap(ended),
                Some(dialling) = self.dials.recv() => {
                    let (array, closing) = (Arc::clone(&self.array), self.closing.subscribe());
                    self.links.spawn(remote::dial(array, net.clone(), dialling, closing));
                }
                Some((kind, listener, accepted)) = accepts.next(), if has_room => {
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
        let (rooms, router) = match kind.reach {
            Reach::Owner => (&self.of_owner, &self.router),
            Reach::Anybody => (&self.of_anybody, &self.guarded),
        };
        let place = match kind.speech {
            Speech::Nbd => rooms.hosts.take(),
            Speech::Control => rooms.callers.take(),
            Speech::Link => rooms.links.take(),
        };
        let Some(place) = place else {
            return debug!(%kind, "too many connections, and all are needed: one is refused");
        };
        let (net, closing) = (net.clone(), self.closing.subscribe());
        match kind.speech {
            Speech::Nbd => {
                let array = Arc::clone(&self.array);
                self.hosts.spawn(nbd::serve_connection(array, net, stream, place, closing));
            }
            Speech::Control => {
                self.callers.spawn(control::serve_connection(router.clone(), net, stream, place, closing));
            }
            Speech::Link => {
                let array = Arc::clone(&self.array);
                self.links.spawn(remote::serve_connection(array, net, stream, place, closing));
            }
        }
    }

    /// Waits for all connections of hosts and callers to end; [`Array::close`] has told the attached ones. What hosts
    /// have under way may need the links, which therefore stay until the array is down.
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
        self.links.shutdown().await;
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
