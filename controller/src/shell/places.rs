//! Places for connections: so many, and who gives up his when none is left.
//!
//! Who only waits for his client, in a handshake or for the rest of a request, may lose his place to a newcomer, the
//! one first that has waited longest: else who connects and says nothing keeps out all others until its time is over.
//! Who is at his [`Turn`], an attached host or a request under way, keeps it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::Notify;

/// A number of places.
#[derive(Debug, Clone)]
pub(super) struct Places {
    places_max: usize,
    taken: Arc<Mutex<Taken>>,
}

#[derive(Debug, Default)]
struct Taken {
    /// Counts who comes, and who begins to wait.
    last: u64,
    by: BTreeMap<u64, Holder>,
}

#[derive(Debug)]
struct Holder {
    /// Since when it waits for its client; `None`: it is at its turn.
    waiting: Option<u64>,
    lost: Arc<Notify>,
}

impl Taken {
    fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    fn longest_waiting(&self) -> Option<u64> {
        let waiting = self.by.iter().filter_map(|(number, holder)| Some((holder.waiting?, *number)));
        waiting.min().map(|(_, number)| number)
    }
}

impl Places {
    pub(super) fn new(places_max: usize) -> Self {
        Self { places_max, taken: Arc::default() }
    }

    /// A place for a newcomer, if need be that of who has waited longest. `None`: all are at their turn.
    pub(super) fn take(&self) -> Option<Place> {
        let mut taken = lock(&self.taken);
        if taken.by.len() >= self.places_max {
            let number = taken.longest_waiting()?;
            if let Some(holder) = taken.by.remove(&number) {
                holder.lost.notify_one();
            }
        }
        let (number, lost) = (taken.next(), Arc::new(Notify::new()));
        taken.by.insert(number, Holder { waiting: Some(number), lost: Arc::clone(&lost) });
        Some(Place(Arc::new(Held { number, lost, taken: Arc::clone(&self.taken) })))
    }
}

/// A connection's place, until its last clone is dropped, or until it is [`Place::lost`].
#[derive(Debug, Clone)]
pub(super) struct Place(Arc<Held>);

#[derive(Debug)]
struct Held {
    number: u64,
    lost: Arc<Notify>,
    taken: Arc<Mutex<Taken>>,
}

impl Drop for Held {
    fn drop(&mut self) {
        lock(&self.taken).by.remove(&self.number);
    }
}

impl Place {
    /// Ready when somebody else has got it. The connection has to end then; one task waits for it.
    pub(super) async fn lost(&self) {
        self.0.lost.notified().await;
    }

    /// The client has said all that is needed: the place is kept while the turn lasts. `None`: it is lost already.
    pub(super) fn turn(&self) -> Option<Turn> {
        lock(&self.0.taken).by.get_mut(&self.0.number)?.waiting = None;
        Some(Turn(self.clone()))
    }
}

/// While it lasts, nobody takes the place away; afterwards it waits for its client again, as the last of all.
#[derive(Debug)]
pub(super) struct Turn(Place);

impl Drop for Turn {
    fn drop(&mut self) {
        let mut taken = lock(&self.0.0.taken);
        let now = taken.next();
        if let Some(holder) = taken.by.get_mut(&self.0.0.number) {
            holder.waiting = Some(now);
        }
    }
}

fn lock(taken: &Mutex<Taken>) -> MutexGuard<'_, Taken> {
    taken.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn is_lost(place: &Place) -> bool {
        place.lost().now_or_never().is_some()
    }

    #[test]
    fn who_has_waited_longest_gives_way() {
        let places = Places::new(3);
        let [a, b, c] = [(); 3].map(|()| places.take().unwrap());
        let of_a = a.turn().unwrap();
        let d = places.take().unwrap();
        assert!(is_lost(&b) && b.turn().is_none());
        assert!(!is_lost(&a) && !is_lost(&c));
        // Its turn over, it has waited less than the others.
        drop(of_a);
        let e = places.take().unwrap();
        assert!(is_lost(&c) && !is_lost(&a) && !is_lost(&d) && !is_lost(&e));
        // Who lost its place gives no other one up when it goes.
        drop((b, c));
        let _f = places.take().unwrap();
        assert!(is_lost(&d) && !is_lost(&a));
    }

    #[test]
    fn nobody_at_his_turn_gives_way() {
        let places = Places::new(2);
        let [a, b] = [(); 2].map(|()| places.take().unwrap());
        let _turns = [a.turn().unwrap(), b.turn().unwrap()];
        assert!(places.take().is_none());
        drop(a);
        assert!(places.take().is_none(), "its turn lasts");
        drop(b);
    }

    #[test]
    fn who_goes_leaves_a_place() {
        let places = Places::new(1);
        let a = places.take().unwrap();
        let turn = a.turn().unwrap();
        drop((turn, a));
        let b = places.take().unwrap();
        assert!(!is_lost(&b));
        assert_eq!(lock(&places.taken).by.len(), 1);
    }
}
