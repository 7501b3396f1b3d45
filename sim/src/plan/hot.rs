//! I/O that collides: a standard device and the virtual devices that show it, all on one track, one write over the
//! other; and the long chain of events by which a write in flight comes to refer to what nobody else does any more.

use super::build::Draft;
use super::{Act, Op, Task};
use crate::dice::Dice;

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
    /// The chain of [`add_relay`].
    Relay,
    /// The rounds of [`add_rounds`].
    Rounds,
}

impl Temper {
    /// Whether the plan is one course of events, which others would disturb.
    pub(super) fn is_course(self) -> bool {
        matches!(self, Self::Relay | Self::Rounds)
    }
}

/// Adds tasks that stay on one track of a pair of a standard and a virtual device.
pub(super) fn add_hot_tasks(draft: &mut Draft, pairs: &[(String, u64, String)]) {
    for (standard, size, shown_by) in pairs {
        let track = draft.dice.below(2).min((size - 1) / draft.track_bytes) * draft.track_bytes;
        let length = draft.track_bytes.min(size - track);
        let depth = *draft.dice.pick(&[1, 1, 2]);
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
                0..72 => Act::Write { device, offset, length, fua: dice.chance(60) },
                72..80 => Act::Flush { device },
                80..86 => Act::Trim { device, offset: track, length: draft.track_bytes as u32, fua: false },
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

/// Round after round: tracks are written whole; a session begins; parts of them are written through its virtual device; and
/// while the session ends, parts of all of them are written on the standard device. If the power goes just then, the
/// session is back, and must show nothing of that.
pub(super) fn add_rounds(draft: &mut Draft) {
    let Some((standard, size)) = draft.standard.first().cloned() else { return };
    let track = draft.track_bytes;
    let tracks = size.div_ceil(track).min(8);
    let (mut io, mut management) = (Vec::new(), Vec::new());
    for (round, shown_by) in (0..).zip(draft.virtuals.clone()) {
        let dice = &mut draft.dice;
        let begin_ms = round * 260;
        let end_ms = begin_ms + 180;
        let bytes = |n: u64| track.min(size - n * track);
        let part = |device: &str, n: u64, dice: &mut Dice| {
            let length = (512 * dice.between(1, 16)).min(bytes(n));
            let offset = n * track + dice.below((bytes(n) - length) / 512 + 1) * 512;
            Act::Write { device: device.into(), offset, length: length as u32, fua: false }
        };
        for n in 0..tracks {
            let (offset, length) = (n * track, bytes(n) as u32);
            let act = Act::Write { device: standard.clone(), offset, length, fua: false };
            io.push(Op { at_ms: begin_ms, ..Op::now(act) });
        }
        io.push(Op::now(Act::Flush { device: standard.clone() }));
        for n in 0..tracks {
            if dice.chance(500) {
                io.push(Op { at_ms: begin_ms + 130, ..Op::now(part(&shown_by, n, dice)) });
            }
        }
        if dice.chance(600) {
            io.push(Op::now(Act::Flush { device: shown_by.clone() }));
        }
        let during_ms = end_ms - 2 + dice.below(8);
        for _ in 0..dice.between(1, 3) {
            io.extend((0..tracks).map(|n| Op { at_ms: during_ms, ..Op::now(part(&standard, n, dice)) }));
        }
        let session = format!("r{round}");
        let pairs = vec![(session.clone(), standard.clone(), shown_by)];
        management.push(Op { at_ms: begin_ms + 50, ..Op::now(Act::Establish { pairs }) });
        let end = if dice.chance(500) { Act::Remove { session } } else { Act::Deactivate { session } };
        management.push(Op { at_ms: end_ms, ..Op::now(end) });
    }
    draft.tasks.push(Task { host: 0, depth: 1, ops: management });
    draft.tasks.push(Task { host: 0, depth: 16, ops: io });
}

/// Tracks are written whole; a session; parts of them are written; a second session; the first one ends. Now the second
/// shows tracks with an overlay that their standard device is about to complete. Its virtual device is written,
/// and some of these writes take very long; meanwhile the overlays are completed, what they lay over is given back, and
/// others take it.
pub(super) fn add_relay(draft: &mut Draft) {
    let Some((standard, size)) = draft.standard.first().cloned() else { return };
    let [first, second] = [0, 1].map(|n| draft.virtuals[n % draft.virtuals.len()].clone());
    let track = draft.track_bytes;
    let tracks = (size / track).clamp(1, 12);
    let half = (tracks / 2).max(1);
    let mut ops = Vec::new();
    let whole = |n: u64| {
        let length = track.min(size - n * track) as u32;
        Act::Write { device: standard.clone(), offset: n * track, length, fua: false }
    };
    let mut part = |device: &String, n: u64| {
        let blocks = track.min(size - n * track) / 4096;
        let (offset, length) = (draft.dice.below(blocks) * 4096, 4096.min(size - n * track) as u32);
        Act::Write { device: device.clone(), offset: n * track + offset, length, fua: false }
    };
    ops.extend((0..half).map(whole).map(Op::now));
    ops.push(Op::now(Act::Establish { pairs: vec![("r1".into(), standard.clone(), first)] }));
    ops.extend((0..half).map(|n| Op::now(part(&standard, n))));
    ops.push(Op::now(Act::Establish { pairs: vec![("r2".into(), standard.clone(), second.clone())] }));
    ops.push(Op::now(Act::Remove { session: "r1".into() }));
    ops.extend((0..half).map(|n| Op::now(part(&second, n))));
    let idle_ms = draft.dice.between(505, 640);
    ops.push(Op { after_ms: idle_ms, ..Op::now(Act::Flush { device: standard.clone() }) });
    ops.extend((half..tracks).map(whole).map(Op::now));
    ops.push(Op::now(Act::Flush { device: standard.clone() }));
    ops.extend((0..half).map(|n| {
        let length = track.min(size - n * track) as u32;
        Op::now(Act::Read { device: second.clone(), offset: n * track, length })
    }));
    draft.tasks.push(Task { host: 0, depth: 16, ops });
}
