//! Host I/O through a handle over both arrays: one operation at a time, and nobody else uses the volume.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;
use twintrack_host::{Endpoint, MultipathError, MultipathOptions, MultipathVolume, NbdPath};

use super::Host;
use crate::endpoints::{NBD_PORT, SimDial};
use crate::oracle::{HandleTold, Violation};
use crate::plan::{Act, Op};
use crate::site::Site;

/// A request without an answer for so long: the array is taken for gone. Longer than one needs to notice that its link is
/// silent.
const SILENCE: Duration = Duration::from_secs(12);
/// No array serves for so long: the operation fails.
const GIVE_UP_AFTER: Duration = Duration::from_secs(30);
/// What is kept unflushed at most: so little that the handle flushes by itself now and then.
const KEPT_BYTES_MAX: usize = 1 << 20;
/// Bytes of one read of a whole volume.
const READ_BYTES: u64 = 128 << 10;

/// A volume on two arrays, and what its user was told.
#[derive(Debug)]
pub struct Handle {
    volume: MultipathVolume<SimDial>,
    size_bytes: u64,
    devices: [String; 2],
    told: RefCell<HandleTold>,
}

/// How an operation ended.
enum End<T> {
    Done(T),
    /// An error, or given up.
    Open,
}

impl Host {
    /// Does one operation on the volume of a pair.
    pub(super) async fn use_handle(&self, pair: &str, op: &Op) {
        let Some(handle) = self.handle(pair) else { return };
        let clipped =
            |offset: u64, length: u32| (offset, handle.size_bytes.saturating_sub(offset).min(length.into()));
        match op.act {
            Act::Read { offset, length, .. } => {
                let (offset, length) = clipped(offset, length);
                let end = self.end(op, Box::pin(handle.volume.read(offset, length as u32))).await;
                if let (End::Done(bytes), true) = (end, length > 0) {
                    self.note(format_args!("{pair}: read {offset}+{length}"));
                    let checked = handle.told.borrow_mut().read(pair, offset, &bytes);
                    self.shared.ledger().hold(checked);
                }
            }
            Act::Write { offset, length, fua, .. } => {
                let (offset, length) = clipped(offset, length);
                let (write, bytes) = handle.told.borrow_mut().begin(offset, length);
                let call = Box::pin(handle.volume.write(offset, Bytes::from(bytes), fua));
                self.change(&handle, op, (write, offset, length, false), call).await;
            }
            // Of a trim nothing is promised that both sides would show alike.
            Act::Zero { offset, length, fua, .. } | Act::Trim { offset, length, fua, .. } => {
                let (offset, length) = clipped(offset, length);
                let (write, _) = handle.told.borrow_mut().begin(offset, length);
                let call = Box::pin(handle.volume.write_zeroes(offset, length as u32, false, fua));
                self.change(&handle, op, (write, offset, length, true), call).await;
            }
            Act::Flush { .. } => {
                if let End::Done(()) = self.end(op, Box::pin(handle.volume.flush())).await {
                    self.note(format_args!("{pair}: flushed"));
                }
            }
            _ => {}
        }
    }

    /// Reads all volumes that have a handle.
    pub(super) async fn read_handles(&self, flush: bool) {
        let pairs: Vec<String> = self.shared.ledger().pairs.keys().cloned().collect();
        for pair in pairs.iter().filter(|pair| self.shared.plan.is_handled(pair)) {
            let device = || pair.clone();
            if flush {
                self.use_handle(pair, &Op::now(Act::Flush { device: device() })).await;
            }
            let Some(handle) = self.handle(pair) else { continue };
            for offset in (0..handle.size_bytes).step_by(READ_BYTES as usize) {
                let act = Act::Read { device: device(), offset, length: READ_BYTES as u32 };
                self.use_handle(pair, &Op::now(act)).await;
            }
        }
    }

    async fn change(
        &self,
        handle: &Handle,
        op: &Op,
        (write, offset, length, zeros): (u64, u64, u64, bool),
        call: impl Future<Output = Result<(), MultipathError>>,
    ) {
        let pair = op.act.device().unwrap_or_default();
        self.note(format_args!(
            "{pair}: #{write} {} {offset}+{length}",
            if zeros { "zero" } else { "write" }
        ));
        let called = self.shared.ledger().history.tick();
        let answered = matches!(self.end(op, call).await, End::Done(()));
        handle.told.borrow_mut().end(write, offset, length, zeros, answered);
        if answered {
            let at = handle.volume.active().await;
            self.note(format_args!("{pair}: #{write} done at {}", Site::ALL[at].name()));
            let what = format!("write #{write} of the handle");
            self.shared.ledger().pair_wrote(&handle.devices[at], called, &what);
        }
    }

    /// Waits for the end of an operation, and judges an error.
    async fn end<T>(&self, op: &Op, call: impl Future<Output = Result<T, MultipathError>>) -> End<T> {
        let patience = match op.give_up_ms {
            0 => 2 * GIVE_UP_AFTER,
            ms => Duration::from_millis(ms),
        };
        let ended = timeout(patience, call).await;
        let mut ledger = self.shared.ledger();
        let pair = op.act.device().unwrap_or_default();
        let wrong = |what: std::fmt::Arguments<'_>| {
            Err::<(), _>(Violation::new("errors", format_args!("the handle of pair {pair}: {what}")))
        };
        match ended {
            Ok(Ok(value)) => {
                ledger.counts.done += 1;
                return End::Done(value);
            }
            Ok(Err(error)) => {
                ledger.counts.failed += 1;
                self.note(format_args!("{pair}: {error}"));
                let freezes = ledger.pairs.get(pair).is_some_and(|pair| pair.spec.freeze);
                let refused = matches!(error, MultipathError::Refused(_)) && !freezes;
                // Nothing is wrong with it any more.
                let calm = ledger.pairs.get(pair).is_some_and(|pair| pair.calm);
                if (refused || calm) && !ledger.excuses.disks {
                    ledger.hold(wrong(format_args!("{error}")));
                }
            }
            Err(_) => {
                ledger.counts.unknown += 1;
                self.note(format_args!("{pair}: given up"));
                if op.give_up_ms == 0 {
                    ledger.hold(wrong(format_args!("no end in {} s", patience.as_secs())));
                }
            }
        }
        End::Open
    }

    /// The handle of a pair, made with its first use.
    fn handle(&self, pair: &str) -> Option<Rc<Handle>> {
        if let Some(handle) = self.shared.handles.borrow().get(pair) {
            return Some(handle.clone());
        }
        let spec = self.shared.plan.pairs.iter().find(|spec| spec.name == pair)?;
        let size_bytes = *self.shared.ledger().devices.get(&spec.r1)?.size.latest();
        let devices = Site::ALL.map(|site| spec.device(site).to_string());
        let path = |site: Site| {
            let endpoint = Endpoint::Tcp(site.address().into(), NBD_PORT);
            NbdPath::new(SimDial(self.shared.wires.clone()), endpoint, &devices[site.index()])
        };
        let options = MultipathOptions {
            silence: SILENCE,
            give_up_after: GIVE_UP_AFTER,
            kept_bytes_max: KEPT_BYTES_MAX,
            ..MultipathOptions::default()
        };
        let volume = MultipathVolume::new(Site::ALL.map(path), options);
        let handle = Rc::new(Handle { volume, size_bytes, devices, told: RefCell::default() });
        self.shared.handles.borrow_mut().insert(pair.into(), handle.clone());
        Some(handle)
    }
}
