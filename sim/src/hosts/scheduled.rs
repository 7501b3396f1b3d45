//! A copy by the clock (C8): a schedule is made, and whatever happens to the array meanwhile, its copy is made, once.

use std::time::Duration;

use tokio::time::sleep;
use twintrack_host::manage::{PairPace, RefusalCode};

use super::Host;
use super::operator::Told;
use crate::cabinet::EPOCH_MS;
use crate::ledger::Coupling;
use crate::oracle::{CutId, Violation};

/// How late a copy may be while the array is up, and says of no trouble, ms.
pub(super) const LATE_MS: u64 = 3000;
const POLL: Duration = Duration::from_millis(5);

/// What an array tells of a copy that was asked for.
enum Found {
    /// It was made, for good: in this epoch.
    Made(u32),
    /// Not yet, in this epoch; whether something is said to hold it up.
    Waits(u32, bool),
    /// The schedule is gone, and its copy was not made.
    Never,
    /// The array went down meanwhile.
    Unknown,
}

impl Host {
    /// Nobody else makes the secondary another volume meanwhile, nor do hosts use it.
    pub(super) async fn copy_at(&self, primary: &str, secondary: &str, in_ms: u64) {
        let paired = self.shared.ledger().locals[secondary].stage.known().copied();
        if !matches!(paired, Some(Coupling::Paired | Coupling::Open)) {
            self.shared.ledger().counts.skipped += 1;
            return;
        }
        let at_ms = EPOCH_MS + self.shared.timeline.now_ms() + in_ms;
        let Some((cut, before)) = self.shared.ledger().copy_begins(secondary) else { return };
        let mut waited_in = self.shared.ledger().history.epoch(self.site);
        let (first, second) = (self.device(primary).0, self.device(secondary).0);
        let told = self.ask(self.array.schedule_add(&first, vec![second], Some(at_ms), None)).await;
        self.judge("schedule add", Some(true), &told);
        if let Told::Unknown = told {
            self.settle().await;
        }
        let mut idle_since_ms = None;
        let made_in = loop {
            if !self.shared.ledger().violations.is_empty() {
                return;
            }
            let now_ms = self.shared.timeline.now_ms();
            match self.find_copy(primary, secondary, at_ms).await {
                Found::Made(epoch) => break Some(epoch),
                Found::Never => break None,
                Found::Unknown => idle_since_ms = None,
                Found::Waits(epoch, trouble) => {
                    // With a store that fails nothing becomes durable until a restart.
                    let excused = trouble || self.shared.ledger().excuses.disks;
                    if epoch != waited_in || excused || EPOCH_MS + now_ms < at_ms {
                        idle_since_ms = None;
                    }
                    waited_in = epoch;
                    if now_ms - *idle_since_ms.get_or_insert(now_ms) > LATE_MS {
                        let what = format_args!("{secondary} is not copied to, though a schedule says so");
                        self.shared.ledger().hold::<()>(Err(Violation::new("local", what)));
                    }
                }
            }
            sleep(POLL).await;
        };
        let mut ledger = self.shared.ledger();
        let Some(epoch) = made_in else {
            if let Told::Done(_) = told {
                let what = format_args!("the schedule of {secondary} is gone, and has not copied to it");
                ledger.hold::<()>(Err(Violation::new("local", what)));
            }
            if let Some(device) = ledger.devices.get_mut(secondary) {
                device.standard = Some(before);
            }
            return;
        };
        drop(ledger);
        self.clock_copied(secondary, cut, waited_in, epoch);
    }

    /// The clock had a copy made, last seen not to be in one epoch, and seen to be in another.
    pub(super) fn clock_copied(&self, secondary: &str, cut: CutId, waited_in: u32, epoch: u32) {
        let mut ledger = self.shared.ledger();
        // Seen only after a crash it may be of before that.
        if epoch == waited_in {
            ledger.history.cut_asked_in(cut, &[epoch]);
        } else {
            ledger.history.blur_cut(cut);
        }
        ledger.history.end_cut(cut);
        drop(ledger);
        self.local_told(secondary, &Told::Done(()), Coupling::Open);
    }

    /// Whether a copy that was seen in an epoch is there for good.
    pub(super) async fn is_there_for_good(
        &self,
        (primary, secondary): (&str, &str),
        copied_ms: Option<u64>,
        epoch: u32,
    ) -> bool {
        // What is answered is committed, and with it all that came before.
        let paced = self.pair_pace(primary, secondary, PairPace::Fast).await;
        let is_told = matches!(&paced, Told::Done(again) if again.copied_ms == copied_ms);
        is_told && self.shared.ledger().history.epoch(self.site) == epoch
    }

    async fn find_copy(&self, primary: &str, secondary: &str, at_ms: u64) -> Found {
        self.wait_until_up().await;
        let epoch = self.shared.ledger().history.epoch(self.site);
        // First, for the copy and the end of the schedule are one.
        let Told::Done(schedules) = self.ask(self.array.schedule_list()).await else { return Found::Unknown };
        let pair = match self.ask(self.pair_show(primary, secondary)).await {
            Told::Done(pair) => pair,
            Told::Refused(RefusalCode::NotFound) => return Found::Never,
            _ => return Found::Unknown,
        };
        if pair.copied_ms.is_some_and(|copied_ms| copied_ms >= at_ms) {
            let is_there = self.is_there_for_good((primary, secondary), pair.copied_ms, epoch).await;
            return if is_there { Found::Made(epoch) } else { Found::Unknown };
        }
        if self.shared.ledger().history.epoch(self.site) != epoch {
            return Found::Unknown;
        }
        let secondary = self.device(secondary).0;
        let waiting = schedules.iter().find(|schedule| schedule.secondaries.contains(&secondary));
        waiting.map_or(Found::Never, |schedule| Found::Waits(epoch, schedule.trouble.is_some()))
    }
}
