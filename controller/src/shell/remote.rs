//! Links to other arrays: one task for each, whoever dialled. Bytes become [`Event::LinkMessage`], what the firmware sends
//! becomes bytes; what it means is the firmware's. As a host's, a link's task runs the disk operations that it causes.
//!
//! A peer is bounded by its window: the firmware ends a link on which more is asked than that. What waits to be sent is
//! bounded by both windows; a peer that reads nothing is not heard any more ([`wire`]).
//!
//! [`Event::LinkMessage`]: crate::firmware::Event::LinkMessage

mod mailbox;
mod wire;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{debug, info, warn};
use twintrack_core::PeerId;
use twintrack_link::Endpoint;
use twintrack_link::remote::{EncodeError, FrameError, Hello, Message};

use super::array::{Array, Outcome};
use super::places::{Place, Turn as PlaceTurn};
use super::seams::{Disk, Net};
use super::stores::{Operations, perform};
use crate::firmware::LinkId;
pub(super) use mailbox::Mailbox;
use wire::{Turn, Wire};

/// How long connecting may take, and TLS on either side.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the last words of a link may take.
const FINISH_TIMEOUT: Duration = Duration::from_secs(1);
/// So much work of disks is begun before more is heard.
const MESSAGES_AT_ONCE: usize = 64;
/// How often it is told that connections of arrays that are not known end.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// A peer to connect to.
#[derive(Debug)]
pub(super) struct Dialling {
    pub(super) peer: PeerId,
    pub(super) endpoint: Endpoint,
}

/// Connects, and serves the link to its end. When `closing` changes, it is given up.
pub(super) async fn dial<D: Disk, N: Net>(
    array: Arc<Array<D>>,
    net: N,
    Dialling { peer, endpoint }: Dialling,
    mut closing: watch::Receiver<bool>,
) {
    let connected = tokio::select! {
        biased;
        connected = net.dial(&endpoint) => connected.map_err(|error| error.to_string()),
        () = tokio::time::sleep(CONNECT_TIMEOUT) => {
            Err(format!("nobody answered within {} s", CONNECT_TIMEOUT.as_secs()))
        }
        _ = closing.changed() => return,
    };
    match connected {
        Ok(stream) => serve(&array, stream, Some(peer), None).await,
        Err(why) => {
            let why = format!("{endpoint} cannot be reached: {why}");
            array.link_log().failed(Some(peer), &why);
            array.dial_failed(peer, why);
        }
    }
}

/// Serves a link that somebody else began. Until he has said who he is, and is known, his place may go to a newcomer.
pub(super) async fn serve_connection<D: Disk, N: Net>(
    array: Arc<Array<D>>,
    net: N,
    mut stream: N::Stream,
    place: Place,
    mut closing: watch::Receiver<bool>,
) {
    if net.requires_encryption(&stream) {
        let encrypted = tokio::select! {
            biased;
            encrypted = net.encrypt(stream) => encrypted,
            () = tokio::time::sleep(CONNECT_TIMEOUT) => Err(io::ErrorKind::TimedOut.into()),
            _ = closing.changed() => return,
            () = place.lost() => return debug!("a connection of an array gave way to a newer one"),
        };
        stream = match encrypted {
            Ok(encrypted) => encrypted,
            Err(error) => {
                return array.link_log().failed(None, &format!("no TLS, or one that fails: {error}"));
            }
        };
    }
    serve(&array, stream, None, Some(place)).await;
}

/// Why a link ended.
#[derive(Debug)]
enum End {
    /// The firmware wants it no more, or the array ends.
    Here,
    /// The peer closed it.
    Peer,
    PlaceLost,
    Frame(FrameError),
    Encode(EncodeError),
    Socket(io::Error),
    /// So, before the array that was dialled has said anything: it may not take this one's certificate.
    Unheard(io::Error),
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Here => f.write_str("this array closed the connection"),
            Self::Peer => f.write_str("the other array closed the connection"),
            Self::PlaceLost => f.write_str("too many arrays connected at a time"),
            Self::Frame(error) => write!(f, "{error}"),
            Self::Encode(error) => write!(f, "this array had something to say that cannot be said: {error}"),
            Self::Socket(error) => write!(f, "the connection broke: {error}"),
            Self::Unheard(error) => {
                write!(f, "the other array did not let this one in ({error}): its log says why")
            }
        }
    }
}

async fn serve<D: Disk, S>(array: &Arc<Array<D>>, stream: S, peer: Option<PeerId>, place: Option<Place>)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let mut outcome = Outcome::default();
    let Some((link, mailbox)) = array.open_link(peer, &mut outcome) else {
        return debug!("the array takes no links any more");
    };
    let mut talk = Talk { link, peer, place, mailbox, wire: Wire::new(stream), said: Said::default() };
    outcome.link = Some(link);
    let mut operations = Operations::new();
    let end = loop {
        let heard = talk.hear(array, &mut outcome);
        // What can be done at once is done before more is heard.
        loop {
            for operation in outcome.work.drain(..) {
                operations.push(perform(array.stores(), operation));
            }
            match operations.next().now_or_never() {
                Some(Some(event)) => array.step(event, &mut outcome),
                _ => break,
            }
        }
        let more = match heard.and_then(|more| talk.say().map(|()| more)) {
            Ok(more) => more,
            Err(end) => break end,
        };
        if talk.mailbox.is_closed() {
            break End::Here;
        }
        if more {
            tokio::task::yield_now().await;
            continue;
        }
        tokio::select! {
            biased;
            Some(event) = operations.next() => array.step(event, &mut outcome),
            () = talk.mailbox.changed() => {}
            turn = talk.wire.turn() => match turn {
                Ok(Turn::Received | Turn::Sent) => {}
                Ok(Turn::Ended) => break End::Peer,
                Err(error) if talk.peer.is_some() && talk.said.peer.is_none() => break End::Unheard(error),
                Err(error) => break End::Socket(error),
            },
            () = lost(&talk.place) => break End::PlaceLost,
        }
    };
    talk.tell_end(array, &end);
    array.close_link(link, end.to_string(), &mut outcome);
    let last_words = async {
        if let End::Here = end {
            // Perhaps the reason why there is no link. Who does not listen misses it.
            let _ = tokio::time::timeout(FINISH_TIMEOUT, talk.wire.finish()).await;
        }
        drop(talk);
    };
    tokio::pin!(last_words);
    let mut closed = false;
    loop {
        for operation in outcome.work.drain(..) {
            operations.push(perform(array.stores(), operation));
        }
        tokio::select! {
            biased;
            Some(event) = operations.next() => array.step(event, &mut outcome),
            () = last_words.as_mut(), if !closed => closed = true,
            else => return,
        }
    }
}

/// What a task knows of its link.
struct Talk<S> {
    link: LinkId,
    /// Whom this array dialled.
    peer: Option<PeerId>,
    /// Of who came by himself.
    place: Option<Place>,
    mailbox: Arc<Mailbox>,
    wire: Wire<S>,
    said: Said,
}

/// What was said so far.
#[derive(Default)]
struct Said {
    /// This array introduced itself.
    hello: bool,
    /// And the other did.
    peer: Option<Hello>,
    /// And went on: who does not want the link says so instead.
    more: bool,
    up: bool,
    /// Why one of them does not want the link.
    refusal: Option<String>,
    turn: Option<PlaceTurn>,
}

impl<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin> Talk<S> {
    /// Passes on what has come, some of it. `true`: there may be more.
    fn hear<D>(&mut self, array: &Array<D>, outcome: &mut Outcome) -> Result<bool, End> {
        for _ in 0..MESSAGES_AT_ONCE {
            let Some(message) = self.wire.pop().map_err(End::Frame)? else { return Ok(false) };
            match &message {
                Message::Hello(hello) => self.said.peer = Some(hello.clone()),
                Message::Refused(refused) => {
                    self.said.refusal = Some(format!("the other array refuses: {}", refused.reason));
                }
                _ => self.said.more = true,
            }
            if !array.hear(self.link, message, outcome) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Sends what the firmware has to say.
    fn say(&mut self) -> Result<(), End> {
        while let Some(message) = self.mailbox.take() {
            match &message {
                Message::Hello(_) => self.said.hello = true,
                Message::Refused(refused) => self.said.refusal = Some(format!("refused: {}", refused.reason)),
                _ => {}
            }
            self.wire.push(&message).map_err(End::Encode)?;
        }
        if self.said.hello && !self.said.up && !self.mailbox.is_closed() {
            self.check_up();
        }
        Ok(())
    }

    /// Who accepts says hello to those only whom it knows; so both want the link when it has come to who dialled. The other
    /// side does not know that it has before it hears more.
    fn check_up(&mut self) {
        let Some(hello) = &self.said.peer else { return };
        if self.peer.is_none() && !self.said.more {
            return;
        }
        let serial = format_args!("{:016x}", hello.serial);
        info!(link = self.link.0, name = %hello.name, %serial, boot = hello.boot, "link is up");
        self.said.up = true;
        self.said.turn = self.place.as_ref().and_then(Place::turn);
    }

    fn tell_end<D>(&self, array: &Array<D>, end: &End) {
        let refusal = self.said.refusal.clone().unwrap_or_else(|| end.to_string());
        if self.said.up {
            info!(link = self.link.0, why = %refusal, "link is down");
            array.link_log().worked(self.peer);
        } else {
            array.link_log().failed(self.peer, &refusal);
        }
    }
}

async fn lost(place: &Option<Place>) {
    match place {
        Some(place) => place.lost().await,
        None => std::future::pending().await,
    }
}

/// Attempts that come to nothing: each peer is tried again and again, and the reason told once.
#[derive(Debug, Default)]
pub(super) struct LinkLog(Mutex<BTreeMap<Option<PeerId>, (String, Instant)>>);

impl LinkLog {
    /// `peer`: who was dialled; `None`: somebody came by himself.
    fn failed(&self, peer: Option<PeerId>, why: &str) {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let told = last.get(&peer).is_some_and(|(before, at)| {
            // Who is not known may say anything, for any number of reasons.
            before == why || (peer.is_none() && now.duration_since(*at) < TELL_EVERY)
        });
        if told {
            return debug!(?peer, %why, "no link");
        }
        match peer {
            Some(peer) => warn!(%peer, %why, "no link"),
            None => info!(%why, "no link with who connected"),
        }
        last.insert(peer, (why.to_owned(), now));
    }

    /// What went wrong before is over.
    fn worked(&self, peer: Option<PeerId>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&peer);
    }
}
