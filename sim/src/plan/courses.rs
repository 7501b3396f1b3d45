//! Plans that are one course of events each: chains so long that chance would hardly ever make them, with room for
//! chance in every step. A course has a power cut at its turning points, and no others.

use super::build::Draft;
use super::{Act, Fault, Op, Task};
use crate::dice::Dice;
use crate::disk::Survival;

/// How many rounds a course has, and how long one takes.
const ROUNDS: u64 = 4;
const ROUND_MS: u64 = 700;

/// Round after round: tracks are written whole; a session begins; parts of them are written through its virtual device; and
/// while the session ends, parts of all of them are written on the standard device. If the power goes just then, the
/// session is back, and must show nothing of that. Some of the tracks are trimmed while they are written for the first
/// time since the session began, and read: no block of before may come back.
pub(super) fn add_rounds(draft: &mut Draft) {
    let Some((standard, size)) = draft.standard.first().cloned() else { return };
    let track = draft.track_bytes;
    let tracks = size.div_ceil(track).min(8);
    let bytes = |n: u64| track.min(size - n * track);
    let whole = |n: u64| {
        let (device, offset, length) = (standard.clone(), n * track, bytes(n) as u32);
        Act::Write { device, offset, length, fua: false }
    };
    let trim = |n: u64| {
        let (device, offset, length) = (standard.clone(), n * track, bytes(n) as u32);
        Act::Trim { device, offset, length, fua: false }
    };
    // Whole blocks, mostly: nothing has to be read for them, so they are quick.
    let part = |device: &str, n: u64, dice: &mut Dice| {
        let unit = if dice.chance(800) && bytes(n) >= 4096 { 4096 } else { 512 };
        let length = (unit * dice.between(1, 3)).min(bytes(n) / unit * unit);
        let offset = n * track + dice.below((bytes(n) - length) / unit + 1) * unit;
        Act::Write { device: device.into(), offset, length: length as u32, fua: false }
    };
    let (mut io, mut management) = (Vec::new(), Vec::new());
    for (round, shown_by) in (0..ROUNDS).zip(draft.virtuals.clone()) {
        let dice = &mut draft.dice;
        let begin_ms = round * ROUND_MS;
        let end_ms = begin_ms + 520;
        io.extend((0..tracks).map(|n| Op { at_ms: begin_ms, ..Op::now(whole(n)) }));
        io.push(Op::now(Act::Flush { device: standard.clone() }));
        let (session, trims) = (format!("r{round}"), dice.chance(350));
        for n in 0..tracks {
            if trims {
                io.push(Op { at_ms: begin_ms + 330, ..Op::now(part(&standard, n, dice)) });
                io.push(Op::now(trim(n)));
            } else if dice.chance(700) {
                io.push(Op { at_ms: begin_ms + 330, ..Op::now(part(&shown_by, n, dice)) });
            }
        }
        if trims {
            let read = |n| Act::Read { device: standard.clone(), offset: n * track, length: bytes(n) as u32 };
            io.extend((0..tracks).map(|n| Op { at_ms: begin_ms + 390, ..Op::now(read(n)) }));
        }
        if dice.chance(600) {
            io.push(Op::now(Act::Flush { device: shown_by.clone() }));
        }
        let during_ms = end_ms + 1 + dice.below(7);
        for _ in 0..dice.between(1, 2) {
            for n in 0..tracks {
                io.push(Op { at_ms: during_ms, ..Op::now(part(&standard, n, dice)) });
            }
        }
        let pairs = vec![(session.clone(), standard.clone(), shown_by)];
        management.push(Op { at_ms: begin_ms + 80, ..Op::now(Act::Establish { pairs }) });
        let deactivate = Act::Deactivate { session: session.clone() };
        let remove = Act::Remove { session };
        let (before, end) = match dice.below(5) {
            0 => (None, deactivate),
            1 => (None, remove),
            _ => (Some(deactivate), remove),
        };
        management.extend(before.map(|act| Op { at_ms: end_ms - 90, ..Op::now(act) }));
        if dice.chance(850)
            && let Some(command) = end.title()
        {
            // What is written just then must not be lost with the cache.
            let survival = *dice.pick(&[Survival::Everything, Survival::Everything, Survival::Mixed]);
            let (after_ops, down_ms) =
                (if dice.chance(800) { 0 } else { dice.below(20) }, dice.between(1, 20));
            draft.faults.push(Fault::CommitCut { command, after_ops, down_ms, survival }.into());
        }
        management.push(Op { at_ms: end_ms, ..Op::now(end) });
    }
    draft.tasks.push(Task { host: 0, depth: 1, ops: management });
    draft.tasks.push(Task { host: 0, depth: 16, ops: io });
}

/// Again and again: a group of sessions, of which several are of one standard device, is activated at one instant while
/// hosts write, and the power goes before, between or after its commits. All of them are there then, or none.
pub(super) fn add_points(draft: &mut Draft) {
    let (standards, virtuals) = (draft.standard.clone(), draft.virtuals.clone());
    let (mut io, mut management) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let dice = &mut draft.dice;
        let begin_ms = round * ROUND_MS;
        let group = format!("g{round}");
        let mut sessions = Vec::new();
        management.push(Op { at_ms: begin_ms, ..Op::now(Act::GroupBegin { group: group.clone() }) });
        for (n, shown_by) in virtuals.iter().enumerate() {
            let (session, device) = (format!("s{round}.{n}"), dice.pick(&standards).0.clone());
            let register = Act::Register { session: session.clone(), device, group: Some(group.clone()) };
            management.push(Op::now(register));
            management.push(Op::now(Act::Relate { session: session.clone(), device: shown_by.clone() }));
            sessions.push(session);
        }
        let process = Act::GroupProcess { group, one_by_one: false };
        if dice.chance(800)
            && let Some(command) = process.title()
        {
            let survival = *dice.pick(&[Survival::Nothing, Survival::Mixed, Survival::Everything]);
            let (after_ops, down_ms) = (dice.below(24), dice.between(1, 20));
            draft.faults.push(Fault::CommitCut { command, after_ops, down_ms, survival }.into());
        }
        management.push(Op::now(process));
        management.push(Op::now(Act::List {}));
        management.extend(sessions.into_iter().map(|session| Op::now(Act::Remove { session })));
        for _ in 0..dice.between(4, 16) {
            let (device, size) = dice.pick(&standards).clone();
            let length = (512 * dice.between(1, 64)).min(size);
            let offset = dice.below((size - length) / 512 + 1) * 512;
            let at_ms = begin_ms + dice.below(ROUND_MS);
            io.push(Op {
                at_ms,
                ..Op::now(Act::Write { device, offset, length: length as u32, fua: false })
            });
        }
    }
    draft.tasks.push(Task { host: 0, depth: 1, ops: management });
    draft.tasks.push(Task { host: 0, depth: 8, ops: io });
}

/// When the writes of a relay that take long begin.
const RELAY_MS: u64 = 450;

/// Tracks are written whole; a session; parts of them are written; a second session; the first one ends. Now the second
/// shows tracks with an overlay that their standard device is about to complete. Its virtual device is written,
/// and some of these writes take very long; meanwhile the overlays are completed, what they lay over is given back, and
/// others take it. So it goes with reads of tracks that are trimmed.
pub(super) fn add_relay(draft: &mut Draft) {
    let Some((standard, size)) = draft.standard.first().cloned() else { return };
    let [first, second] = [0, 1].map(|n| draft.virtuals[n % draft.virtuals.len()].clone());
    let track = draft.track_bytes;
    let tracks = (size / track).clamp(1, 12);
    let half = (tracks / 2).max(1);
    let mut ops = Vec::new();
    let (writes, take_ms) = (draft.dice.between(1, half), draft.dice.between(900, 2000));
    let whole = |n: u64| {
        let length = track.min(size - n * track) as u32;
        Act::Write { device: standard.clone(), offset: n * track, length, fua: false }
    };
    let dice = &mut draft.dice;
    let mut part = |device: &String, n: u64| {
        let blocks = track.min(size - n * track) / 4096;
        let (offset, length) = (dice.below(blocks) * 4096, 4096.min(size - n * track) as u32);
        Act::Write { device: device.clone(), offset: n * track + offset, length, fua: false }
    };
    let read = |device: &String| {
        let device = device.clone();
        move |n: u64| {
            let length = track.min(size - n * track) as u32;
            Act::Read { device: device.clone(), offset: n * track, length }
        }
    };
    ops.extend((0..half).map(whole).map(Op::now));
    ops.push(Op::now(Act::Establish { pairs: vec![("r1".into(), standard.clone(), first)] }));
    ops.extend((0..half).map(|n| Op::now(part(&standard, n))));
    ops.push(Op::now(Act::Establish { pairs: vec![("r2".into(), standard.clone(), second.clone())] }));
    ops.push(Op::now(Act::Remove { session: "r1".into() }));
    ops.extend((0..half).map(|n| Op { at_ms: RELAY_MS, ..Op::now(part(&second, n)) }));
    let (disk, at_ms) = ("store0".into(), RELAY_MS - 5);
    draft.faults.push(Fault::Slow { at_ms, disk, writes, take_ms }.into());
    // Reads that take long, of tracks that are given back and taken by others meanwhile.
    ops.extend((0..half).map(read(&standard)).map(Op::now));
    ops.extend((0..half).filter(|n| n % 4 == 1).map(|n| {
        Op::now(Act::Trim { device: standard.clone(), offset: n * track, length: track as u32, fua: false })
    }));
    ops.push(Op::now(Act::Flush { device: standard.clone() }));
    ops.extend((half..tracks).map(|n| Op::now(part(&second, n))));
    // Without a write the array completes overlays; what that gives back is free after a flush.
    for idle_ms in [draft.dice.between(520, 700), 40, 40] {
        ops.push(Op { after_ms: idle_ms, ..Op::now(Act::Flush { device: standard.clone() }) });
    }
    ops.extend((half..tracks).map(whole).map(Op::now));
    ops.push(Op::now(Act::Flush { device: standard.clone() }));
    ops.extend((0..half).map(read(&second)).map(Op::now));
    draft.tasks.push(Task { host: 0, depth: 64, ops });
}
