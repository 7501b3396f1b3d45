//! The array's own task: the timer, commits, and the disk operations of those who cannot run them themselves.

use std::sync::Arc;

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::time::Instant;
use tracing::error;
use twintrack_core::UnitSeq;

use super::array::{Array, Commit, Outcome, Queues};
use super::metadata::Metadata;
use super::seams::Cabinet;
use super::stores::{Operations, perform};
use crate::firmware::{DiskError, Event};

/// Changes of one transaction at most, unless a single commit has more.
const GROUP_CHANGES_MAX: usize = 1 << 16;

/// Runs until the array is down and nothing of it is under way; then gives the metadata back.
pub(super) async fn run<C: Cabinet>(
    array: &Array<C::Disk>,
    cabinet: &Arc<C>,
    metadata: Metadata,
    mut queues: Queues,
) -> Metadata {
    let mut operations = Operations::new();
    let mut outcome = Outcome::default();
    // Holds one commit at most; the metadata are either here or in it.
    let mut committing = FuturesUnordered::new();
    let mut at_rest = Some(metadata);
    loop {
        for operation in outcome.work.drain(..) {
            operations.push(perform(array.stores(), operation));
        }
        let status = array.status();
        if let Some(metadata) = at_rest.take_if(|_| status.down && status.idle && operations.is_empty()) {
            return metadata;
        }
        let deadline = status.deadline.filter(|_| !status.down);
        tokio::select! {
            biased;
            Some(event) = operations.next() => array.step(event, &mut outcome),
            Some((metadata, group, result)) = committing.next() => {
                at_rest = Some(metadata);
                for upto in group {
                    array.step(Event::Committed { upto, result }, &mut outcome);
                }
            }
            Some(operation) = queues.work.recv() => outcome.work.push(operation),
            Some(first) = queues.commits.recv(), if at_rest.is_some() && !status.down => {
                if let Some(metadata) = at_rest.take() {
                    let group = group(first, &mut queues);
                    committing.push(commit(Arc::clone(cabinet), metadata, group));
                }
            }
            () = array.changed() => {}
            () = sleep_until(deadline), if deadline.is_some() => {
                // It may have moved while this slept.
                if array.status().deadline.is_some_and(|due| due <= Instant::now()) {
                    array.step(Event::Timer, &mut outcome);
                }
            }
        }
    }
}

/// All that waits, as long as it is not too much: it goes into one transaction.
fn group(first: Commit, queues: &mut Queues) -> Vec<Commit> {
    let mut changes = first.changes.len();
    let mut group = vec![first];
    while changes < GROUP_CHANGES_MAX
        && let Ok(next) = queues.commits.try_recv()
    {
        changes += next.changes.len();
        group.push(next);
    }
    group
}

async fn commit<C: Cabinet>(
    cabinet: Arc<C>,
    mut metadata: Metadata,
    group: Vec<Commit>,
) -> (Metadata, Vec<UnitSeq>, Result<(), DiskError>) {
    cabinet
        .blocking(move || {
            let uptos = group.iter().map(|commit| commit.upto).collect();
            let changes: Vec<_> = group.into_iter().flat_map(|commit| commit.changes).collect();
            let result = metadata.commit(&changes).map_err(|error| {
                error!(%error, "commit failed");
                error.disk_error()
            });
            (metadata, uptos, result)
        })
        .await
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
