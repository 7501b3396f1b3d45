//! Copies by the clock to one secondary after the other (C8): a schedule is made, and whatever happens to the array meanwhile,
//! what it copies is a history of the primary.

use std::time::Duration;

use tokio::time::sleep;
use twintrack_host::manage::{PairInfo, RefusalCode, ScheduleInfo};

use super::Host;
use super::operator::Told;
use super::scheduled::LATE_MS;
use crate::cabinet::EPOCH_MS;
use crate::oracle::{CutId, Rotation, Violation, VolumeId};
use crate::plan::Turns;

const POLL: Duration = Duration::from_millis(5);

/// A secondary whose next copy may have been made already.
struct Turn {
    secondary: String,
    cut: CutId,
    before: VolumeId,
    /// When it was last copied to by the schedule, in ms since 1970.
    copied_ms: Option<u64>,
    /// The epoch in which the next copy was last seen not to be made.
    waited_in: u32,
}

/// A schedule and the pairs of the array, of one time.
struct Look {
    /// `None`: it is gone.
    schedule: Option<ScheduleInfo>,
    pairs: Vec<PairInfo>,
    epoch: u32,
}

impl Host {
    /// Nobody else makes the secondaries other volumes meanwhile, nor do hosts use them.
    pub(super) async fn rotate(&self, turns: &Turns) {
        let Turns { primary, secondaries, .. } = turns;
        let shared = [primary.clone()];
        self.claim(&shared, secondaries).await;
        for secondary in secondaries {
            self.local_begins(primary, secondary).await;
        }
        if secondaries.iter().all(|secondary| self.is_paired(secondary) == Some(true)) {
            let begun: Vec<_> = secondaries.iter().filter_map(|name| self.turn_begins(name)).collect();
            self.take_turns(turns, begun).await;
        } else {
            self.shared.ledger().counts.skipped += 1;
        }
        for secondary in secondaries {
            self.local_settle(secondary).await;
            self.look_at_pair(primary, secondary).await;
        }
        self.shared.ledger().unclaim(&shared, secondaries);
    }

    /// From now on a secondary may have been copied to.
    fn turn_begins(&self, secondary: &str) -> Option<Turn> {
        let mut ledger = self.shared.ledger();
        let (cut, before) = ledger.copy_begins(secondary)?;
        let waited_in = ledger.history.epoch(self.site);
        Some(Turn { secondary: secondary.into(), cut, before, copied_ms: None, waited_in })
    }

    /// It was not.
    fn turn_ends(&self, turn: &Turn) {
        if let Some(device) = self.shared.ledger().devices.get_mut(&turn.secondary) {
            device.standard = Some(turn.before);
        }
    }

    async fn take_turns(&self, turns: &Turns, mut begun: Vec<Turn>) {
        let at_ms = EPOCH_MS + self.shared.timeline.now_ms() + turns.in_ms;
        let first = self.device(&turns.primary).0;
        let seconds = turns.secondaries.iter().map(|name| self.device(name).0).collect();
        let told =
            self.ask(self.array.schedule_add(&first, seconds, Some(at_ms), Some(turns.every_ms))).await;
        self.judge("schedule add", Some(true), &told);
        let surely = matches!(told, Told::Done(_));
        if let Told::Unknown = told {
            self.settle().await;
        }
        let (mut runs, mut number, mut idle_since_ms) = (0, None, None);
        while runs < turns.runs && self.shared.ledger().violations.is_empty() {
            let Some(look) = self.look_at_turns(&first).await else {
                idle_since_ms = None;
                continue;
            };
            let Some(schedule) = &look.schedule else {
                if surely {
                    let what = format_args!("the schedule of {first} is gone");
                    self.shared.ledger().hold::<()>(Err(Violation::new("rotation", what)));
                }
                break;
            };
            number = Some(schedule.number);
            self.check_turns(turns, at_ms, schedule, &look.pairs);
            let excused = schedule.trouble.is_some() || self.shared.ledger().excuses.disks;
            let now_ms = self.shared.timeline.now_ms();
            let made = self.see_turns(at_ms, &mut begun, &look).await;
            if made > 0 || excused || EPOCH_MS + now_ms < schedule.next_ms {
                idle_since_ms = None;
            } else if now_ms - *idle_since_ms.get_or_insert(now_ms) > LATE_MS {
                let what = format_args!("nothing is copied to {}, though a schedule says so", schedule.next);
                self.shared.ledger().hold::<()>(Err(Violation::new("rotation", what)));
            }
            runs += made;
            sleep(POLL).await;
        }
        if let Some(number) = number {
            self.end_turns(number, &first, at_ms, &mut begun).await;
        }
        begun.iter().for_each(|turn| self.turn_ends(turn));
    }

    /// The schedule is removed; a last copy may have come before that.
    async fn end_turns(&self, number: u32, primary: &str, at_ms: u64, begun: &mut [Turn]) {
        let mut allowed = Some(true);
        while self.shared.ledger().violations.is_empty() {
            self.wait_until_up().await;
            let told = self.ask(self.array.schedule_remove(number)).await;
            self.judge("schedule remove", allowed, &told);
            allowed = match told {
                Told::Done(()) | Told::Refused(RefusalCode::NotFound) => break,
                Told::Unknown => None,
                Told::Unasked | Told::Refused(_) => allowed,
            };
        }
        while self.shared.ledger().violations.is_empty() {
            if let Some(look) = self.look_at_turns(primary).await {
                self.see_turns(at_ms, begun, &look).await;
                let seen = |turn: &Turn| made_since(at_ms, &look.pairs, &self.device(&turn.secondary).0);
                if begun.iter().all(|turn| seen(turn) == turn.copied_ms) {
                    return;
                }
            }
        }
    }

    /// The schedule of a primary and all pairs; `None`: the array went down, or the schedule went on meanwhile.
    async fn look_at_turns(&self, primary: &str) -> Option<Look> {
        self.wait_until_up().await;
        let epoch = self.shared.ledger().history.epoch(self.site);
        let schedule = self.schedule_of(primary).await?;
        let Told::Done(pairs) = self.ask(self.array.pair_list()).await else { return None };
        let is_same = self.schedule_of(primary).await? == schedule;
        let is_up = self.shared.ledger().history.epoch(self.site) == epoch;
        (is_same && is_up).then_some(Look { schedule, pairs, epoch })
    }

    async fn schedule_of(&self, primary: &str) -> Option<Option<ScheduleInfo>> {
        let Told::Done(schedules) = self.ask(self.array.schedule_list()).await else { return None };
        // Those of a single copy are another task's.
        let by_turns = |schedule: &ScheduleInfo| schedule.primary == primary && schedule.every_ms.is_some();
        Some(schedules.into_iter().find(by_turns))
    }

    fn check_turns(&self, turns: &Turns, at_ms: u64, schedule: &ScheduleInfo, pairs: &[PairInfo]) {
        let names: Vec<_> = turns.secondaries.iter().map(|name| self.device(name).0).collect();
        let copied: Vec<_> =
            names.iter().map(|name| (name.as_str(), made_since(at_ms, pairs, name))).collect();
        let rotation = Rotation { at_ms, every_ms: turns.every_ms, copied: &copied, next: &schedule.next };
        self.shared.ledger().hold(rotation.check());
    }

    /// How many copies have been made that were not seen before.
    async fn see_turns(&self, at_ms: u64, begun: &mut [Turn], look: &Look) -> u32 {
        let mut made = 0;
        for turn in begun {
            let copied_ms = made_since(at_ms, &look.pairs, &self.device(&turn.secondary).0);
            if copied_ms == turn.copied_ms {
                turn.waited_in = look.epoch;
                continue;
            }
            // From before what confirms it: after that the next one may be made.
            let Some(next) = self.turn_begins(&turn.secondary) else { continue };
            let primary = self.shared.ledger().locals[&turn.secondary].primary.clone();
            if !self.is_there_for_good((&primary, &turn.secondary), copied_ms, look.epoch).await {
                self.turn_ends(&next);
                continue;
            }
            self.clock_copied(&turn.secondary, turn.cut, turn.waited_in, look.epoch);
            *turn = Turn { copied_ms, waited_in: look.epoch, ..next };
            made += 1;
        }
        made
    }
}

/// When a schedule that began at some time has last copied to a secondary.
fn made_since(at_ms: u64, pairs: &[PairInfo], secondary: &str) -> Option<u64> {
    let pair = pairs.iter().find(|pair| pair.secondary == secondary)?;
    pair.copied_ms.filter(|copied_ms| *copied_ms >= at_ms)
}
