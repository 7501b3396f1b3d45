//! The NBD front end: one task for each connection.

mod handshake;
mod share;
mod transmission;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tracing::{debug, info};

use super::array::Array;
use super::outbox::Outbox;
use super::places::Place;
use super::seams::{Disk, Net};
use handshake::Entered;
pub(super) use share::Budget;

/// How long a client may take to choose an export, TLS included.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Requests of one connection that are not answered yet, or whose answers are not written yet.
const REQUESTS_MAX: usize = 128;
/// Bytes of payload that one connection may occupy, from a request's arrival until its answer is written. What goes
/// beyond waits in the socket.
const CONNECTION_PAYLOAD_BYTES_MAX: usize = 64 << 20;
/// Bytes of payload that all connections of an array may occupy together, and beyond that each of them
/// [`OWN_BYTES`].
pub(super) const ALL_PAYLOAD_BYTES_MAX: usize = 1 << 30;
/// Bytes of payload that a connection may occupy whatever the others do.
const OWN_BYTES: usize = 1 << 20;
/// How long a client may take no byte of what it has to read, or send none of what it has begun to send.
const STALL_TIMEOUT: Duration = Duration::from_secs(60);

/// Serves one connection to its end, and what it has asked for beyond that. When `closing` changes, or the
/// place is lost, a handshake is given up; a transmission keeps its place, and learns the end from the array.
pub(super) async fn serve_connection<D, N>(
    array: Arc<Array<D>>,
    net: N,
    stream: N::Stream,
    place: Place,
    mut closing: watch::Receiver<bool>,
) where
    D: Disk,
    N: Net,
{
    // Outside of what the timeout drops, so that a connection that was attached is detached.
    let mut attached = None;
    let entered = tokio::select! {
        biased;
        entered = handshake::shake(&array, &net, stream, &mut attached) => entered,
        () = tokio::time::sleep(HANDSHAKE_TIMEOUT) => Err(handshake::Failure::TooSlow),
        _ = closing.changed() => Ok(None),
        () = place.lost() => Err(handshake::Failure::PlaceLost),
    };
    match (entered, attached) {
        (Ok(Some(Entered { stream, encrypted, negotiated, statuses, input })), Some(host)) => {
            let Some(_turn) = place.turn() else {
                // At the last moment.
                array.detach(host.conn);
                return debug!(error = %handshake::Failure::PlaceLost, "handshake failed");
            };
            let how = if encrypted { "host connected over TLS" } else { "host connected" };
            info!(conn = host.conn.0, export = %negotiated.export, "{how}");
            let conn = host.conn;
            let outbox = Outbox::new(encrypted);
            let end = transmission::run(array, stream, host, (&negotiated, statuses), input, outbox).await;
            info!(conn = conn.0, %end, "host disconnected");
        }
        (result, attached) => {
            if let Some(host) = attached {
                array.detach(host.conn);
            }
            match result {
                Ok(_) => debug!("handshake ended without an export"),
                // Who is kept out shows: it may be a certificate that has expired.
                Err(error @ handshake::Failure::Tls(_)) => info!(%error, "host refused"),
                Err(error) => debug!(%error, "handshake failed"),
            }
        }
    }
}
