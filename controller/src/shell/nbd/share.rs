//! How much payload all connections of an array may occupy together, and what of it one has.
//!
//! A little is everyone's own, so that a small request always gets through, whatever others hold. Beyond it a
//! connection takes from what is common before it takes the request, and waits in the order of asking if there is not
//! enough. What it holds meanwhile it gives back as its requests end, whether it waits or not; so nobody waits in a
//! circle. A client that lets what it holds lie is cut off ([`STALL_TIMEOUT`](super::STALL_TIMEOUT)).

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What is given and taken at a time.
const UNIT_BYTES: usize = 64 << 10;

/// What is common to all connections of an array.
#[derive(Debug, Clone)]
pub(in crate::shell) struct Budget {
    units: Arc<Semaphore>,
    all: usize,
}

impl Budget {
    pub(in crate::shell) fn new(bytes: usize) -> Self {
        let all = bytes / UNIT_BYTES;
        Self { units: Arc::new(Semaphore::new(all)), all }
    }
}

type Asking = Pin<Box<dyn Future<Output = Option<OwnedSemaphorePermit>> + Send>>;

/// What one connection has.
pub(super) struct Share {
    budget: Budget,
    own_bytes: usize,
    held: Option<OwnedSemaphorePermit>,
    asking: Option<Asking>,
}

impl fmt::Debug for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Share").field("units", &self.units()).finish_non_exhaustive()
    }
}

impl Share {
    pub(super) fn new(budget: Budget, own_bytes: usize) -> Self {
        Self { budget, own_bytes, held: None, asking: None }
    }

    /// Whether the connection may occupy so much. If not, it asks for it: look again when [`Self::granted`] is over. If
    /// so, what it has beyond goes back.
    pub(super) fn fits(&mut self, bytes: usize) -> bool {
        let wanted = bytes.saturating_sub(self.own_bytes).div_ceil(UNIT_BYTES).min(self.budget.all);
        let units = self.units();
        if wanted <= units {
            self.asking = None;
            if wanted == 0 {
                self.held = None;
            } else if let Some(surplus) = self.held.as_mut().and_then(|held| held.split(units - wanted)) {
                drop(surplus);
            }
            return true;
        }
        if self.asking.is_none() {
            // No more than 32 bits: the whole budget is less.
            let more = (wanted - units) as u32;
            let common = Arc::clone(&self.budget.units);
            match Arc::clone(&common).try_acquire_many_owned(more) {
                Ok(permit) => {
                    self.take(permit);
                    return true;
                }
                Err(_) => {
                    self.asking = Some(Box::pin(async move { common.acquire_many_owned(more).await.ok() }));
                }
            }
        }
        false
    }

    /// Whether it has some of what is common.
    pub(super) fn holds(&self) -> bool {
        self.held.is_some()
    }

    pub(super) fn is_asking(&self) -> bool {
        self.asking.is_some()
    }

    /// Ends when it has what it asked for; may be dropped at any time, and keeps its place.
    pub(super) async fn granted(&mut self) {
        let Some(asking) = &mut self.asking else { return };
        let permit = asking.await;
        self.asking = None;
        if let Some(permit) = permit {
            self.take(permit);
        }
    }

    fn units(&self) -> usize {
        self.held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits)
    }

    fn take(&mut self, permit: OwnedSemaphorePermit) {
        match &mut self.held {
            Some(held) => held.merge(permit),
            None => self.held = Some(permit),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    const OWN: usize = 1 << 20;

    fn share(budget: &Budget) -> Share {
        Share::new(budget.clone(), OWN)
    }

    #[test]
    fn who_asks_first_is_first_and_the_small_need_not_ask() {
        let budget = Budget::new(4 << 20);
        let [mut a, mut b, mut c, mut d] = [(); 4].map(|()| share(&budget));
        assert!(a.fits(4 << 20) && a.holds());
        assert!(!b.fits(5 << 20) && b.granted().now_or_never().is_none());
        // There would be room, but not before those who asked.
        assert!(!c.fits(2 << 20) && c.granted().now_or_never().is_none());
        assert!(d.fits(OWN) && !d.holds());
        assert!(a.fits(2 << 20));
        assert!(b.granted().now_or_never().is_none() && c.granted().now_or_never().is_none());
        assert!(a.fits(0) && !a.holds());
        b.granted().now_or_never().unwrap();
        assert!(b.fits(5 << 20) && !c.fits(2 << 20));
        // More than there is: all of it is enough.
        assert!(b.fits(1 << 30));
        drop(b);
        c.granted().now_or_never().unwrap();
        assert!(c.fits(2 << 20));
        drop((a, c));
        assert_eq!(budget.units.available_permits(), budget.all);
    }

    #[test]
    fn who_needs_it_no_more_leaves_the_line() {
        let budget = Budget::new(1 << 20);
        let [mut a, mut b, mut c] = [(); 3].map(|()| share(&budget));
        assert!(a.fits(2 << 20) && !b.fits(2 << 20));
        assert!(b.granted().now_or_never().is_none());
        assert!(b.fits(OWN) && !b.is_asking());
        drop(a);
        assert!(c.fits(2 << 20));
    }
}
