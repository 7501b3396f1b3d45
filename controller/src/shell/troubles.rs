//! What fails on a store, told once for each cause: a full file system fails thousands of writes for one reason.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tracing::{info, warn};

/// How often the same kind of failure is told of.
const EVERY: Duration = Duration::from_secs(10);

/// The failures of one store, by operation and kind of error.
#[derive(Debug, Default)]
pub(super) struct Troubles {
    /// Whether there are any: looked at by every operation that goes well.
    some: AtomicBool,
    lasting: Mutex<BTreeMap<(&'static str, io::ErrorKind), Trouble>>,
}

#[derive(Debug)]
struct Trouble {
    told: Instant,
    /// Failures that were not told of since.
    untold: u64,
}

impl Troubles {
    /// An operation failed: the first of its kind is told of at once, others by their number.
    pub(super) fn failed(&self, store: &str, what: &'static str, error: &io::Error) {
        let mut lasting = self.lasting.lock().unwrap_or_else(PoisonError::into_inner);
        self.some.store(true, Ordering::Relaxed);
        let now = Instant::now();
        match lasting.get_mut(&(what, error.kind())) {
            None => {
                lasting.insert((what, error.kind()), Trouble { told: now, untold: 0 });
                warn!(%store, what, %error, "store failed");
            }
            Some(trouble) if now.duration_since(trouble.told) < EVERY => trouble.untold += 1,
            Some(trouble) => {
                warn!(%store, what, %error, times = trouble.untold + 1, "store goes on failing");
                *trouble = Trouble { told: now, untold: 0 };
            }
        }
    }

    /// An operation went well: troubles of that operation that were not seen for a while are over.
    pub(super) fn passed(&self, store: &str, what: &'static str) {
        if !self.some.load(Ordering::Relaxed) {
            return;
        }
        let mut lasting = self.lasting.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        lasting.retain(|(operation, kind), trouble| {
            let over = *operation == what && now.duration_since(trouble.told) >= EVERY;
            if over {
                info!(%store, what, %kind, times = trouble.untold, "store works again");
            }
            !over
        });
        self.some.store(!lasting.is_empty(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Write};
    use std::sync::Arc;

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_cause_is_one_line() {
        let lines = Lines::default();
        let writer = lines.clone();
        let log = tracing_subscriber::fmt().with_writer(move || writer.clone()).without_time();
        let _log = tracing::subscriber::set_default(log.with_ansi(false).with_target(false).finish());
        let troubles = Troubles::default();
        troubles.passed("a", "write");
        for _ in 0..72 {
            troubles.failed("a", "write", &ErrorKind::StorageFull.into());
        }
        troubles.failed("a", "read", &ErrorKind::InvalidData.into());
        troubles.passed("a", "write");
        tokio::time::advance(EVERY).await;
        troubles.failed("a", "write", &ErrorKind::StorageFull.into());
        troubles.failed("a", "write", &ErrorKind::StorageFull.into());
        tokio::time::advance(EVERY).await;
        troubles.passed("a", "write");
        troubles.passed("a", "write");
        troubles.failed("a", "write", &ErrorKind::StorageFull.into());
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        insta::assert_snapshot!(text, @r#"
        WARN store failed store=a what="write" error=no storage space
        WARN store failed store=a what="read" error=invalid data
        WARN store goes on failing store=a what="write" error=no storage space times=72
        INFO store works again store=a what="write" kind=no storage space times=1
        WARN store failed store=a what="write" error=no storage space
        "#);
    }
}
