//! The array's own task: the timer, commits, and the disk operations of those who cannot run them themselves.

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::time::Instant;
use tracing::{error, warn};
use twintrack_core::UnitSeq;

use super::END_TIMEOUT;
use super::array::{Array, Commit, Outcome, Queues};
use super::config::ServeError;
use super::metadata::Metadata;
use super::seams::Cabinet;
use super::stores::{Operations, perform};
use crate::firmware::{DiskError, Event};

/// How often it is said meanwhile what is waited for.
const TELL_EVERY: Duration = Duration::from_secs(5);

/// Runs until the array is down and nothing of it is under way; then gives the metadata back. A disk operation or
/// commit that does not end is given up, and with it the array: nothing may be served while it may still happen.
pub(super) async fn run<C: Cabinet>(
    array: &Array<C::Disk>,
    cabinet: &Arc<C>,
    metadata: Metadata,
    mut queues: Queues,
) -> Result<Metadata, ServeError> {
    let mut operations = Operations::new();
    let mut outcome = Outcome::default();
    // The firmware asks for one commit at a time, with all that waits; the metadata are either here or in it.
    let mut committing = FuturesUnordered::new();
    let mut at_rest = Some(metadata);
    // Since the array is down: when to give up, and when to say next what is waited for.
    let mut ending = None;
    loop {
        for operation in outcome.work.drain(..) {
            operations.push(perform(array.stores(), operation));
        }
        let status = array.status();
        if let Some(metadata) = at_rest.take_if(|_| status.down && status.idle && operations.is_empty()) {
            return Ok(metadata);
        }
        let mut deadline = status.deadline;
        if status.down {
            let now = Instant::now();
            let (end, tell) = ending.get_or_insert((now + END_TIMEOUT, now + TELL_EVERY));
            if *tell <= now {
                let waiting = waits_for(array, at_rest.is_none());
                if *end <= now {
                    return Err(ServeError::Stuck { waiting, seconds: END_TIMEOUT.as_secs() });
                }
                warn!(%waiting, "ending takes long");
                *tell = now + TELL_EVERY;
            }
            deadline = Some((*tell).min(*end));
        }
        tokio::select! {
            biased;
            Some(event) = operations.next() => array.step(event, &mut outcome),
            Some((metadata, upto, result)) = committing.next() => {
                at_rest = Some(metadata);
                array.step(Event::Committed { upto, result }, &mut outcome);
            }
            Some(operation) = queues.work.recv() => outcome.work.push(operation),
            Some(next) = queues.commits.recv(), if at_rest.is_some() && !status.down => {
                if let Some(metadata) = at_rest.take() {
                    committing.push(commit(Arc::clone(cabinet), metadata, next));
                }
            }
            () = array.changed() => {}
            () = sleep_until(deadline), if deadline.is_some() => {
                // It may have moved while this slept.
                if !status.down && array.status().deadline.is_some_and(|due| due <= Instant::now()) {
                    array.step(Event::Timer, &mut outcome);
                }
            }
        }
    }
}

/// What has not ended, in words.
fn waits_for<D>(array: &Array<D>, committing: bool) -> String {
    let stores = array.stores();
    let of_store = |(name, count): (&str, usize)| format!("{count} operations of store {name}");
    let mut waiting: Vec<_> = stores.under_way().map(of_store).collect();
    if committing {
        waiting.push("a commit of the metadata".to_owned());
    }
    if waiting.is_empty() { "an operation".to_owned() } else { waiting.join(" and ") }
}

async fn commit<C: Cabinet>(
    cabinet: Arc<C>,
    mut metadata: Metadata,
    commit: Commit,
) -> (Metadata, UnitSeq, Result<(), DiskError>) {
    cabinet
        .blocking(move || {
            let result = metadata.commit(&commit.changes).map_err(|error| {
                error!(%error, "commit failed");
                error.disk_error()
            });
            (metadata, commit.upto, result)
        })
        .await
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
