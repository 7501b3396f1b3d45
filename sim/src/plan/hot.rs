//! What a plan is bent on, and I/O that collides: a standard device and the virtual devices that show it, all on one
//! track, one write over the other.

use super::build::Draft;
use super::{Act, Op, Task};

/// What a plan is bent on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Temper {
    /// Nothing in particular.
    Plain,
    /// Small devices: everything happens on a few tracks.
    Focus,
    /// Tasks that stay on one track of a standard device and its virtual devices.
    Hot,
    /// Sessions that end as soon as they have begun, while hosts write.
    Brief,
    /// The course of [`courses::add_relay`](super::courses::add_relay).
    Relay,
    /// The course of [`courses::add_rounds`](super::courses::add_rounds).
    Rounds,
    /// The course of [`courses::add_points`](super::courses::add_points).
    Points,
}

impl Temper {
    /// Whether the plan is one course of events, which others would disturb.
    pub(super) fn is_course(self) -> bool {
        matches!(self, Self::Relay | Self::Rounds | Self::Points)
    }
}

/// Adds tasks that stay on one track of a pair of a standard and a virtual device.
pub(super) fn add_hot_tasks(draft: &mut Draft, pairs: &[(String, u64, String)]) {
    for (standard, size, shown_by) in pairs {
        let track = draft.dice.below(2).min((size - 1) / draft.track_bytes) * draft.track_bytes;
        let length = draft.track_bytes.min(size - track);
        let depth = *draft.dice.pick(&[1, 2, 4]);
        let host = draft.dice.below(2) as u8;
        let count = draft.dice.between(50, 120);
        let mut ops = Vec::new();
        for _ in 0..count {
            let dice = &mut draft.dice;
            let device = if dice.chance(500) { standard.clone() } else { shown_by.clone() };
            let whole = dice.chance(300);
            let offset = if whole { track } else { track + dice.below(length / 512) * 512 };
            let part = (512 * dice.between(1, 24)).min(track + length - offset);
            let length = if whole { length } else { part } as u32;
            let act = match dice.below(100) {
                0..68 => Act::Write { device, offset, length, fua: dice.chance(40) },
                68..75 => Act::Flush { device },
                75..86 => Act::Trim { device, offset: track, length: draft.track_bytes as u32, fua: false },
                86..90 => Act::Zero { device, offset, length, no_hole: false, fua: false },
                _ => Act::Read { device, offset, length },
            };
            ops.push(Op { after_ms: if dice.chance(700) { 0 } else { dice.below(12) }, ..Op::now(act) });
        }
        // After the sessions are there.
        ops[0].after_ms = 40;
        draft.tasks.push(Task { host, depth, ops });
    }
}
