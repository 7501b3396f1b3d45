//! Copies within one array: pairs of volumes, and restores of sessions. A pair goes by its secondary, which has one primary.

use serde::{Deserialize, Serialize};
use twintrack_link::manage::PairPace;

use super::build::Draft;
use super::{Act, Fault, Op, Task};
use crate::dice::Dice;
use crate::disk::DiskFault;

/// What an operator does with a pair within an array, or with sessions that are to be restored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs)] // the volumes of the pair
pub enum LocalAct {
    /// *Create pair* (C1).
    Create { primary: String, secondary: String, pace: PairPace },
    /// *Copy* (C4).
    Copy { primary: String, secondary: String },
    /// A schedule has it copied in so many ms, once (C8).
    CopyAt { primary: String, secondary: String, in_ms: u64 },
    /// A schedule has several copied to by turns (C8).
    CopyByTurns(Turns),
    /// *Re-synchronize* (C5).
    Resync { primary: String, secondary: String },
    /// Another pace (C6).
    Pace { primary: String, secondary: String, pace: PairPace },
    /// *Delete pair*.
    Delete { primary: String, secondary: String },
    /// The primary becomes the secondary (D14). `before`: what the plan calls the session of what the primary was.
    CopyBack {
        primary: String,
        secondary: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        before: Option<String>,
    },
    /// Keeps a volume to become a secondary, or lets it go (C9).
    Reserve { device: String, reserved: bool },
    /// *Create pair* with whatever reserved volume fits (C9), *copy*, and *delete pair*, unless the pair is to stay.
    CopyToReserved { primary: String, pace: PairPace, keep: bool },
    /// *Restore* (D10 to D13), all at one instant (D8).
    Restore { items: Vec<RestoreItem> },
}

/// What a schedule with a period is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turns {
    /// What is copied.
    pub primary: String,
    /// Where to, by turns.
    pub secondaries: Vec<String>,
    /// How long until the first copy.
    pub in_ms: u64,
    /// Between two of them.
    pub every_ms: u64,
    /// After so many the schedule is removed.
    pub runs: u32,
}

/// One session to restore.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreItem {
    /// Which.
    pub session: String,
    /// The device that becomes what it shows; `None`: its standard device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// The session stays.
    #[serde(default, skip_serializing_if = "super::is_false")]
    pub keep: bool,
    /// What the plan calls the session that the array makes: of what a standard device was before (`None`: that is not
    /// kept), or the one that a virtual device shows then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub makes: Option<String>,
    /// The device's new name (D9).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Hosts do not use the device then (D9).
    #[serde(default, skip_serializing_if = "super::is_false")]
    pub offline: bool,
}

impl RestoreItem {
    /// To its own device, used up, what was before not kept.
    pub(super) fn of(session: &str) -> Self {
        let session = session.to_owned();
        Self { session, to: None, keep: false, makes: None, name: None, offline: false }
    }
}

impl LocalAct {
    /// What it is called where a fault waits for it.
    pub fn title(&self) -> Option<String> {
        match self {
            Self::Create { secondary, .. } => Some(format!("pair {secondary}")),
            Self::Copy { secondary, .. } | Self::CopyAt { secondary, .. } => {
                Some(format!("copy {secondary}"))
            }
            Self::Resync { secondary, .. } => Some(format!("resync {secondary}")),
            Self::Delete { secondary, .. } => Some(format!("unpair {secondary}")),
            Self::CopyBack { secondary, .. } => Some(format!("copy back {secondary}")),
            Self::Restore { items } => Some(format!("restore {}", items.first()?.session)),
            Self::Reserve { device, .. } => Some(format!("reserve {device}")),
            Self::Pace { .. } | Self::CopyByTurns(_) | Self::CopyToReserved { .. } => None,
        }
    }
}

/// Devices to which others can be restored.
pub(super) fn add_mates(draft: &mut Draft) {
    let mates = if draft.dice.chance(600) { draft.dice.between(1, 2) } else { 0 };
    for n in 0..mates {
        let size = draft.dice.pick(&draft.standard).1;
        draft.standard.push((format!("e{n}"), size));
    }
}

/// A second pool, in which some of the devices lie that others are copied to (C7), and whose disk fails at times.
pub(super) fn add_pool(draft: &mut Draft, seed: u64) {
    let mut dice = Dice::new(seed, "second pool");
    if !dice.chance(450) {
        return;
    }
    let copied_to = |name: &str| name.starts_with(['c', 'e']);
    let some = draft.standard.iter().filter(|(name, _)| copied_to(name) && dice.chance(700));
    let far: Vec<(String, u64)> = some.cloned().collect();
    let tracks: u64 = far.iter().map(|(_, size)| size.div_ceil(draft.track_bytes)).sum();
    draft.far_tracks = tracks * 8 + 32;
    draft.far = far.into_iter().map(|(name, _)| name).collect();
    if dice.chance(200) {
        fail_at_times(draft, "far0", &mut dice);
    }
}

/// In some plans the disk of the first pool fails at times.
pub(super) fn fail_disk(draft: &mut Draft, seed: u64) {
    let mut dice = Dice::new(seed, "first pool");
    if dice.chance(150) {
        fail_at_times(draft, "store0", &mut dice);
    }
}

fn fail_at_times(draft: &mut Draft, disk: &str, dice: &mut Dice) {
    for _ in 0..dice.between(1, 5) {
        let count = dice.between(1, 4) as u32;
        let fault = if dice.chance(500) { DiskFault::Reads(count) } else { DiskFault::Writes(count) };
        let at_ms = dice.below(draft.horizon_ms);
        draft.faults.push(Fault::Disk { at_ms, disk: disk.into(), fault }.into());
    }
}

/// In some plans the clock has some of the copies made.
pub(super) fn schedule(draft: &mut Draft, seed: u64) {
    let mut dice = Dice::new(seed, "schedules");
    if !dice.chance(350) {
        return;
    }
    for op in draft.tasks.iter_mut().flat_map(|task| &mut task.ops) {
        if let Act::Local(LocalAct::Copy { primary, secondary }) = &op.act
            && dice.chance(350)
        {
            let (primary, secondary) = (primary.clone(), secondary.clone());
            let in_ms = dice.between(2, 150);
            op.act = Act::Local(LocalAct::CopyAt { primary, secondary, in_ms });
        }
    }
}

/// In some plans with one pool there is not room for all: copies by reference end there all the same.
pub(super) fn make_tight(draft: &mut Draft, seed: u64) {
    draft.is_tight = draft.far_tracks == 0 && Dice::new(seed, "room").chance(250);
}

/// Devices of the sizes of those there are, and a task for each that pairs it with one, again and again.
pub(super) fn add(draft: &mut Draft) {
    let primaries = draft.standard.clone();
    let count = draft.dice.between(1, 3);
    for n in 0..count {
        let (primary, size) = draft.dice.pick(&primaries).clone();
        let secondary = format!("c{n}");
        draft.standard.push((secondary.clone(), size));
        let host = draft.dice.below(2) as u8;
        let shown_by = format!("w{n}");
        draft.virtuals.push(shown_by.clone());
        let ops = rounds(draft, &primary, &secondary, &shown_by);
        draft.tasks.push(Task { host, depth: 1, ops });
    }
}

fn rounds(draft: &mut Draft, primary: &str, secondary: &str, shown_by: &str) -> Vec<Op> {
    let (dice, count) = (&mut draft.dice, 24);
    let pause_ms = (draft.horizon_ms / count).max(1);
    let paces = [PairPace::Slow, PairPace::Medium, PairPace::Fast, PairPace::Adaptive];
    let mut ops = Vec::new();
    let names = || (primary.to_owned(), secondary.to_owned());
    let mut shown: Option<String> = None;
    for round in 0..count / 4 {
        // A session of the secondary keeps what the next copy replaces. Of this task, so that it is never asked for while
        // it is not known which of two volumes the secondary is.
        if let Some(session) = shown.take_if(|_| dice.chance(500)) {
            ops.push(Op::now(Act::Remove { session }));
        }
        let mut push = |act: LocalAct, after_ms: u64| ops.push(Op { after_ms, ..Op::now(Act::Local(act)) });
        let (primary, secondary) = names();
        if round == 0 || dice.chance(250) {
            push(LocalAct::Create { primary, secondary, pace: *dice.pick(&paces) }, dice.below(pause_ms));
        }
        let (primary, secondary) = names();
        push(LocalAct::Copy { primary, secondary }, dice.below(pause_ms * 2));
        let (primary, secondary) = names();
        if dice.chance(200) {
            push(
                LocalAct::Pace { primary, secondary: secondary.clone(), pace: *dice.pick(&paces) },
                dice.below(pause_ms),
            );
        }
        if shown.is_none() && dice.chance(600) {
            let session = format!("{secondary}.{round}");
            let pairs = vec![(session.clone(), secondary, shown_by.to_owned())];
            ops.push(Op { after_ms: dice.below(pause_ms * 2), ..Op::now(Act::Establish { pairs }) });
            shown = Some(session);
        }
        // Two of them: the second may be refused where the first one's copy is still in progress.
        for n in 0..if dice.chance(300) { dice.between(1, 2) } else { 0 } {
            let (primary, secondary) = names();
            let before = dice.chance(700).then(|| format!("{secondary}.b{round}.{n}"));
            let undone = before.clone().filter(|_| dice.chance(300));
            let act = Act::Local(LocalAct::CopyBack { primary, secondary, before });
            ops.push(Op { after_ms: dice.below(pause_ms * 3), ..Op::now(act) });
            // The primary becomes what it was before that, again (D14).
            if let Some(session) = undone {
                let mut item = RestoreItem::of(&session);
                item.keep = dice.chance(300);
                item.makes = (item.keep || dice.chance(500)).then(|| format!("{session}.u"));
                let act = Act::Local(LocalAct::Restore { items: vec![item] });
                ops.push(Op { after_ms: dice.below(pause_ms * 2), ..Op::now(act) });
            }
        }
        // The mirror, or its primary, becomes what the mirror was (D12).
        if let Some(session) = shown.clone().filter(|_| dice.chance(350)) {
            let (primary, secondary) = names();
            let mut item = RestoreItem::of(&session);
            item.to = dice.chance(600).then_some(primary);
            item.keep = dice.chance(300);
            item.makes = (item.keep || dice.chance(700)).then(|| format!("{secondary}.r{round}"));
            shown = shown.filter(|_| item.keep);
            let act = Act::Local(LocalAct::Restore { items: vec![item] });
            ops.push(Op { after_ms: dice.below(pause_ms * 2), ..Op::now(act) });
        }
        let (primary, secondary) = names();
        let mut push = |act: LocalAct, after_ms: u64| ops.push(Op { after_ms, ..Op::now(Act::Local(act)) });
        let after_ms = dice.below(pause_ms * 4);
        if dice.chance(250) {
            push(LocalAct::Delete { primary, secondary }, after_ms);
        } else {
            push(LocalAct::Resync { primary, secondary }, after_ms);
        }
    }
    ops
}
