//! The shell of an array: gives the firmware its disks, connections and time. [`serve`] is the one entry.
//!
//! ```text
//!   nbd, control ──event──▶ array (the lock; Firmware::step) ──effects──▶ replies ─▶ nbd, control
//!        ▲                    ▲                    │                      commits ─▶ engine ─▶ metadata
//!        └── disk operations, run by who stepped ──┘                      timer   ─▶ engine
//! ```
//!
//! - `array`: the lock around the firmware, and where each effect goes.
//! - `engine`: the task with the timer, the commits, and disk operations of nobody else's.
//! - `nbd`, `control`: the front ends, one task for each connection. `remote`: the same for links to other arrays.
//!   `places`: how many, and who gives way.
//! - `metrics`: what Prometheus is told.
//! - `troubles`: one line in the log for one cause.
//! - `boot`: format, open, load. [`metadata`]: what is durable. `stores`: the disks. `superblock`: whose a disk is.
//!
//! A failed commit (crash rule 9) ends in a reload: everything under way is carried to its end and unanswered, all
//! connections are closed, the metadata are opened anew, and a new firmware is loaded from them; listeners stay bound.
//! A store whose sync failed stays offline all the same.
//!
//! A disk operation that never ends would hold up a reload, and the end, for ever: after a time it is given up, and the
//! array with it, as by a kill.

mod array;
mod boot;
mod config;
mod connections;
mod control;
mod engine;
pub mod metadata;
mod metrics;
mod nbd;
mod outbox;
mod places;
mod remote;
mod seams;
mod stores;
pub(crate) mod superblock;
mod token;
mod troubles;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tracing::{info, warn};

use crate::firmware::Firmware;
pub use crate::firmware::{PoolPolicy, Threshold};
use array::Array;
pub use config::{Config, PoolConfig, ServeError};
use connections::{Connections, Doors};
use metadata::Metadata;
pub use seams::{Cabinet, Disk, Env, Net, Thin};
use stores::Stores;
pub use superblock::SuperblockError;
pub use token::{Token, TokenError};
pub use twintrack_link::Endpoint;

/// How long requests under way may take when the array is told to end.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the last flush may take.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(60);
/// How long what is under way then may take to end, and after it the closing of the metadata.
const END_TIMEOUT: Duration = Duration::from_secs(20);

/// Serves an array until `shutdown` is ready; formats it first if that was not done before.
///
/// After `shutdown` it takes no more requests, answers those under way, makes everything durable, and returns; a start
/// that is under way is given up at once. It
/// may be dropped at any time instead, as by a power cut: nothing is lost that was promised.
pub async fn serve<N: Net, C: Cabinet, E: Env>(
    net: N,
    cabinet: C,
    env: E,
    config: Config,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), ServeError> {
    let cabinet = Arc::new(cabinet);
    tokio::pin!(shutdown);
    let start = async {
        let (metadata, stores) = boot::open(&cabinet, &env, &config).await?;
        let doors = Doors::bind(net, &config).await?;
        let booted = boot::load(&cabinet, metadata, &env, &config).await?;
        Ok::<_, ServeError>((Arc::new(stores), doors, booted))
    };
    let Some(started) = unless_told(shutdown.as_mut(), start).await else {
        info!("ended before it had started");
        return Ok(());
    };
    let (stores, mut doors, mut booted) = started?;
    loop {
        let (metadata, end) =
            live(&cabinet, booted, &stores, &env, &config, &mut doors, shutdown.as_mut()).await?;
        close_metadata(&cabinet, metadata).await?;
        match end {
            End::Clean => {
                info!("ended");
                return Ok(());
            }
            End::Unclean => return Err(ServeError::UncleanEnd),
            End::Reload => {}
        }
        let reload = async {
            let metadata = boot::reopen(&cabinet).await?;
            boot::load(&cabinet, metadata, &env, &config).await
        };
        let Some(reloaded) = unless_told(shutdown.as_mut(), reload).await else {
            // What was answered before may not have been flushed.
            return Err(ServeError::UncleanEnd);
        };
        booted = reloaded?;
    }
}

/// Does a piece of work; `None`: the array is told to end first, and the work is given up as by a kill.
async fn unless_told<T>(
    shutdown: Pin<&mut (impl Future<Output = ()> + Send)>,
    work: impl Future<Output = T> + Send,
) -> Option<T> {
    tokio::select! {
        biased;
        () = shutdown => None,
        done = work => Some(done),
    }
}

/// How an array's life ended.
enum End {
    /// As it was told, everything durable.
    Clean,
    /// As it was told, but a flush failed.
    Unclean,
    /// The firmware cannot go on.
    Reload,
}

/// One life of the firmware, to its end.
async fn live<N: Net, C: Cabinet, E: Env>(
    cabinet: &Arc<C>,
    (metadata, firmware): (Metadata, Firmware),
    stores: &Arc<Stores<C::Disk>>,
    env: &E,
    config: &Config,
    doors: &mut Doors<N>,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(Metadata, End), ServeError> {
    let (array, queues, dials) = Array::new(firmware, Arc::clone(stores));
    let token = config.control_token.as_ref();
    let mut connections = Connections::new(Arc::clone(&array), env.clone(), token, dials);
    let mut end = End::Reload;
    let serving = async {
        tokio::select! {
            biased;
            () = shutdown => {}
            () = connections.accept(doors) => {}
        }
        end = End::Unclean;
        if close(&array, &mut connections).await {
            end = End::Clean;
        }
        array.halt();
        // The engine ends when nothing is under way any more.
        std::future::pending::<()>().await;
    };
    let engine = engine::run(&array, cabinet, metadata, queues);
    let metadata = tokio::select! {
        biased;
        metadata = engine => metadata?,
        () = serving => unreachable!("it waits for the engine"),
    };
    connections.drop_all().await;
    Ok((metadata, end))
}

/// All that was told of is durable by now; but nothing may go on while the file may still change.
async fn close_metadata<C: Cabinet>(cabinet: &Arc<C>, metadata: Metadata) -> Result<(), ServeError> {
    let closed = tokio::time::timeout(END_TIMEOUT, boot::close(cabinet, metadata)).await;
    let waiting = || "the metadata file to be closed".to_owned();
    closed.map_err(|_| ServeError::Stuck { waiting: waiting(), seconds: END_TIMEOUT.as_secs() })
}

/// Ends what is under way and makes it durable. `false`: not all of it.
async fn close<D: Disk>(array: &Array<D>, connections: &mut Connections<D>) -> bool {
    info!("ending");
    array.close();
    if tokio::time::timeout(CLOSE_TIMEOUT, connections.close()).await.is_err() {
        warn!("clients took too long: their connections are cut");
    }
    match tokio::time::timeout(FLUSH_TIMEOUT, array.flush_all()).await {
        Ok(Ok(())) => true,
        Ok(Err(error)) => {
            warn!(?error, "the last flush failed");
            false
        }
        Err(_) => {
            warn!("the last flush took too long");
            false
        }
    }
}

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
