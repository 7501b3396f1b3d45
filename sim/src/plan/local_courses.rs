//! Plans of copies within an array that are one course of events each: volumes so large that a copy to them takes a while, and
//! power cuts just where a pair's knowledge and its data could part.

use super::build::Draft;
use super::hot::Temper;
use super::local::RestoreItem;
use super::{Act, Fault, LocalAct, Op, Plan, Scenario, Task, Turns, diffs};
use crate::dice::Dice;
use crate::disk::Survival;
use twintrack_link::manage::PairPace;

const TRACK: u64 = 16 << 10;

/// A course.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Course {
    /// Restores and copies of volumes of many tracks, used before they have got there.
    Vast,
    /// Both sides of a pair are written, and the program dies before it is durable that they are unequal.
    Bits,
    /// A pair is deleted while both sides are written, and the program dies before that is durable.
    Unpaired,
    /// Copies to another pool, read, written and cut off while their tracks are moved. That pool may be too small.
    Moves,
    /// A schedule copies to one secondary after the other, whatever it misses (C8).
    Turns,
}

/// The course of a seed, if its plan is one: of dice of its own, so that the other plans stay as they are.
pub(super) fn draw(seed: u64) -> Option<Course> {
    let courses = [
        (6, Some(Course::Turns)),
        (60, None),
        (10, Some(Course::Vast)),
        (8, Some(Course::Bits)),
        (8, Some(Course::Unpaired)),
        (8, Some(Course::Moves)),
    ];
    Dice::new(seed, "local course").weighted(&courses)
}

/// The plan of a course.
pub(super) fn generate(course: Course, seed: u64) -> Plan {
    let mut draft = Draft::new(Scenario::Local, seed);
    draft.track_bytes = TRACK;
    draft.temper =
        if course == Course::Bits || course == Course::Vast { Temper::Points } else { Temper::Rounds };
    match course {
        Course::Vast => vast(&mut draft),
        Course::Bits => bits(&mut draft),
        Course::Unpaired => unpaired(&mut draft),
        Course::Moves => {
            moves(&mut draft);
            hasten(&mut draft, seed);
            shrink_pool(&mut draft, seed);
        }
        Course::Turns => turns(&mut draft),
    }
    if matches!(course, Course::Vast | Course::Moves) {
        diffs::add(&mut draft, seed);
    }
    draft.finish()
}

fn local(act: LocalAct) -> Op {
    Op::now(Act::Local(act))
}

/// The commands of one pair.
struct Pair {
    primary: String,
    secondary: String,
}

impl Pair {
    fn new(primary: &str, secondary: &str) -> Self {
        Self { primary: primary.into(), secondary: secondary.into() }
    }

    fn names(&self) -> (String, String) {
        (self.primary.clone(), self.secondary.clone())
    }

    fn create(&self, pace: PairPace) -> Op {
        let (primary, secondary) = self.names();
        local(LocalAct::Create { primary, secondary, pace })
    }

    fn copy(&self) -> Op {
        let (primary, secondary) = self.names();
        local(LocalAct::Copy { primary, secondary })
    }

    fn resync(&self) -> Op {
        let (primary, secondary) = self.names();
        local(LocalAct::Resync { primary, secondary })
    }

    fn delete(&self) -> Op {
        let (primary, secondary) = self.names();
        local(LocalAct::Delete { primary, secondary })
    }

    fn copy_back(&self, before: &str) -> Op {
        let (primary, secondary) = self.names();
        local(LocalAct::CopyBack { primary, secondary, before: Some(before.into()) })
    }
}

fn at(at_ms: u64, op: Op) -> Op {
    Op { at_ms, ..op }
}

fn after(after_ms: u64, op: Op) -> Op {
    Op { after_ms, ..op }
}

fn flush(device: &str) -> Op {
    Op::now(Act::Flush { device: device.into() })
}

fn read(device: &str, track: u64) -> Op {
    Op::now(Act::Read { device: device.into(), offset: track * TRACK, length: TRACK as u32 })
}

fn whole(device: &str, track: u64) -> Op {
    Op::now(Act::Write { device: device.into(), offset: track * TRACK, length: TRACK as u32, fua: false })
}

/// Whole blocks: nothing has to be read for them.
fn part(device: &str, track: u64, dice: &mut Dice) -> Op {
    let offset = track * TRACK + dice.below(4) * 4096;
    Op::now(Act::Write { device: device.into(), offset, length: 4096, fua: false })
}

fn establish(session: &str, device: &str, shown_by: &str) -> Op {
    Op::now(Act::Establish { pairs: vec![(session.into(), device.into(), shown_by.into())] })
}

fn cut(command: String, dice: &mut Dice) -> Fault {
    let survival = *dice.pick(&[Survival::Everything, Survival::Everything, Survival::Mixed]);
    let after_ops = if dice.chance(700) { 0 } else { dice.below(20) };
    Fault::CommitCut { command, after_ops, down_ms: dice.between(1, 20), survival }
}

/// Sessions of a large volume, one of them restored: to it or to another one, which is used at once, as are the other sessions;
/// then what was before is restored. The same with a pair. Some tracks everywhere have content, the last ones, too.
fn vast(draft: &mut Draft) {
    let tracks = draft.dice.between(300_000, 700_000);
    draft.standard = ["d0", "e0"].map(|name| (name.to_owned(), tracks * TRACK)).to_vec();
    draft.virtuals = (0..3).map(|n| format!("v{n}")).collect();
    draft.store_tracks = Some(600);
    draft.horizon_ms = 3000;
    let dice = &mut draft.dice;
    let spots: Vec<u64> = (0..14).map(|n| (tracks * n / 13).saturating_sub(dice.between(1, 3))).collect();
    let mut ops: Vec<Op> = spots.iter().map(|spot| whole("d0", *spot)).collect();
    ops.push(flush("d0"));
    let some = |ops: &mut Vec<Op>, device: &str, dice: &mut Dice| {
        let spots: Vec<_> = spots.iter().filter(|_| dice.chance(600)).copied().collect();
        ops.extend(spots.into_iter().map(|spot| part(device, spot, dice)));
    };
    some(&mut ops, "e0", dice);
    for n in 0..3 {
        ops.push(establish(&format!("s{n}"), "d0", &format!("v{n}")));
        some(&mut ops, "d0", dice);
        some(&mut ops, &format!("v{n}"), dice);
    }
    // What is still to come is at the end.
    let look = |ops: &mut Vec<Op>, device: &str| {
        ops.extend(spots.iter().rev().map(|spot| read(device, *spot)));
    };
    let elsewhere = dice.chance(300);
    let target = if elsewhere { "e0" } else { "d0" };
    let mut item = RestoreItem::of("s1");
    item.to = elsewhere.then(|| "e0".to_owned());
    (item.keep, item.makes) = (dice.chance(500), Some("b0".to_owned()));
    ops.push(local(LocalAct::Restore { items: vec![item] }));
    look(&mut ops, target);
    look(&mut ops, "v0");
    some(&mut ops, target, dice);
    look(&mut ops, "v2");
    ops.push(Op::now(Act::Online { device: "b0".into(), online: true }));
    look(&mut ops, "b0");
    let mut undo = RestoreItem::of("b0");
    undo.to = elsewhere.then(|| "e0".to_owned());
    undo.makes = Some("b1".to_owned());
    ops.push(after(450, local(LocalAct::Restore { items: vec![undo] })));
    look(&mut ops, target);
    look(&mut ops, "v0");
    let pair = Pair::new("d0", "e0");
    ops.push(after(450, pair.create(PairPace::Fast)));
    ops.push(pair.copy());
    look(&mut ops, "e0");
    some(&mut ops, "d0", dice);
    some(&mut ops, "e0", dice);
    ops.push(after(450, pair.copy_back("b2")));
    look(&mut ops, "d0");
    some(&mut ops, "d0", dice);
    ops.push(after(300, pair.resync()));
    ops.push(pair.copy());
    look(&mut ops, "e0");
    match dice.below(3) {
        0 => {
            let command = (*dice.pick(&["restore s1", "restore b0", "copy e0", "copy back e0"])).to_owned();
            draft.faults.push(cut(command, dice).into());
        }
        1 => {
            let survival = *dice.pick(&[Survival::Nothing, Survival::Mixed, Survival::Everything]);
            let at_ms = dice.between(100, 1800);
            draft.faults.push(Fault::Crash { at_ms, down_ms: dice.between(1, 20), survival }.into());
        }
        _ => {}
    }
    draft.tasks.push(Task { host: 0, depth: *dice.pick(&[1, 4]), ops });
}

/// Devices of which the second of each pair lies in another pool; how many tracks they have.
fn pairs(draft: &mut Draft, count: u64, least: u64, most: u64) -> u64 {
    let tracks = draft.dice.between(least, most);
    for n in 0..count {
        for name in [format!("d{n}"), format!("c{n}")] {
            draft.standard.push((name, tracks * TRACK));
        }
        draft.far.push(format!("c{n}"));
    }
    draft.far_tracks = count * tracks * 3 + 16;
    tracks
}

/// Round after round: the two volumes of a pair, each with tracks of its own, are the same; a track of one of them is written,
/// then that of the other, and the program dies. Nothing of the first write is left then, not even that they are unequal.
fn bits(draft: &mut Draft) {
    let tracks = pairs(draft, 1, 6, 14);
    draft.horizon_ms = 3500;
    let (pair, dice) = (Pair::new("d0", "c0"), &mut draft.dice);
    let mut ops: Vec<Op> = (0..tracks).map(|n| whole("d0", n)).collect();
    ops.extend([flush("d0"), pair.create(PairPace::Fast), pair.copy()]);
    let (mut io, mut faults) = (Vec::new(), Vec::new());
    for round in 0..3 {
        let now_ms = 900 + round * 1000;
        // All that was moved is committed.
        ops.extend([at(now_ms - 150, flush("d0")), flush("c0")]);
        let mut sides = ["d0", "c0"];
        if dice.chance(500) {
            sides.reverse();
        }
        let apart_ms = dice.between(6, 16);
        io.extend((0..tracks).map(|n| at(now_ms, part(sides[0], n, dice))));
        io.extend((0..tracks).map(|n| at(now_ms + apart_ms, part(sides[1], n, dice))));
        let at_ms = now_ms + apart_ms + dice.between(8, 40);
        faults.push(Fault::Crash { at_ms, down_ms: dice.between(1, 20), survival: Survival::Everything });
        ops.extend([at(now_ms + 200, pair.resync()), pair.copy()]);
        ops.extend((0..tracks).map(|n| read("c0", n)));
    }
    draft.faults.extend(faults.into_iter().map(Into::into));
    draft.tasks.push(Task { host: 0, depth: 4, ops });
    draft.tasks.push(Task { host: 1, depth: 16, ops: io });
}

/// Pair after pair: both volumes are the same, each with tracks of its own; the pair is deleted, both are written meanwhile, and
/// the program dies. If the pair is back then, it knows what was written.
fn unpaired(draft: &mut Draft) {
    let tracks = pairs(draft, 3, 4, 10);
    draft.horizon_ms = 5000;
    let dice = &mut draft.dice;
    let (mut ops, mut io) = (Vec::new(), Vec::new());
    let pairs = (0..3).map(|n| Pair::new(&format!("d{n}"), &format!("c{n}")));
    let pairs: Vec<_> = pairs.collect();
    for pair in &pairs {
        ops.extend((0..tracks).map(|n| whole(&pair.primary, n)));
        ops.extend([flush(&pair.primary), pair.create(PairPace::Fast), pair.copy()]);
    }
    for (pair, round) in pairs.iter().zip(0..) {
        let now_ms = 2200 + round * 900;
        ops.extend([at(now_ms - 250, flush(&pair.primary)), flush(&pair.secondary)]);
        ops.push(at(now_ms, pair.delete()));
        let during_ms = now_ms + 1 + dice.below(7);
        for device in [&pair.primary, &pair.secondary] {
            io.extend((0..tracks).map(|n| at(during_ms, part(device, n, dice))));
        }
        draft.faults.push(cut(format!("unpair {}", pair.secondary), dice).into());
        ops.extend([at(now_ms + 350, pair.create(PairPace::Fast)), pair.resync(), pair.copy()]);
        ops.extend((0..tracks).map(|n| read(&pair.secondary, n)));
    }
    draft.tasks.push(Task { host: 0, depth: 4, ops });
    draft.tasks.push(Task { host: 1, depth: 24, ops: io });
}

/// A volume is copied to another pool; while its tracks are moved there, both are read and written, and the power goes. The same
/// with a restore.
fn moves(draft: &mut Draft) {
    let tracks = pairs(draft, 1, 12, 40);
    draft.virtuals = vec!["v0".into()];
    draft.horizon_ms = 4000;
    let (pair, dice) = (Pair::new("d0", "c0"), &mut draft.dice);
    let pace = *dice.pick(&[PairPace::Slow, PairPace::Medium, PairPace::Adaptive]);
    let mut ops: Vec<Op> = (0..tracks).map(|n| whole("d0", n)).collect();
    ops.extend([flush("d0"), establish("s0", "d0", "v0"), pair.create(pace), pair.copy()]);
    let use_both = |ops: &mut Vec<Op>, dice: &mut Dice| {
        for n in 0..tracks {
            match dice.below(6) {
                0 => ops.push(part("c0", n, dice)),
                1 => ops.push(part("d0", n, dice)),
                _ => {}
            }
            ops.push(read("c0", n));
            if dice.chance(250) {
                ops.push(flush("c0"));
            }
        }
    };
    use_both(&mut ops, dice);
    ops.extend([after(300, pair.resync()), pair.copy()]);
    use_both(&mut ops, dice);
    let mut item = RestoreItem::of("s0");
    (item.to, item.makes) = (Some("c0".to_owned()), Some("b0".to_owned()));
    ops.push(after(300, local(LocalAct::Restore { items: vec![item] })));
    use_both(&mut ops, dice);
    for _ in 0..dice.between(1, 4) {
        let survival = *dice.pick(&[Survival::Nothing, Survival::Mixed, Survival::Everything]);
        let at_ms = dice.between(300, 3000);
        draft.faults.push(Fault::Crash { at_ms, down_ms: dice.between(1, 20), survival }.into());
    }
    draft.tasks.push(Task { host: 0, depth: 4, ops });
}

/// In some plans the restore comes while the tracks of the copy before are still moved, all of them.
fn hasten(draft: &mut Draft, seed: u64) {
    let mut dice = Dice::new(seed, "haste");
    if !dice.chance(600) {
        return;
    }
    let tracks = draft.standard.first().map_or(0, |(_, size)| size.div_ceil(TRACK));
    for ops in draft.tasks.iter_mut().map(|task| &mut task.ops) {
        let is_restore = |op: &Op| matches!(op.act, Act::Local(LocalAct::Restore { .. }));
        let is_resync = |op: &Op| matches!(op.act, Act::Local(LocalAct::Resync { .. }));
        let (Some(resync), Some(restore)) = (ops.iter().position(is_resync), ops.iter().position(is_restore))
        else {
            continue;
        };
        let at_once = Op { after_ms: dice.below(8), ..ops.remove(restore) };
        // Behind the copy, which comes next.
        ops.insert(resync + 2, at_once);
        ops.splice(resync..resync, (0..tracks).map(|n| whole("d0", n)));
    }
}

/// In some plans the second pool has not room for all: the copies wait there, say so, and are right all the same.
fn shrink_pool(draft: &mut Draft, seed: u64) {
    let mut dice = Dice::new(seed, "far room");
    if !dice.chance(400) {
        return;
    }
    let far = draft.standard.iter().filter(|(name, _)| draft.far.contains(name));
    let tracks: u64 = far.map(|(_, size)| size.div_ceil(TRACK)).sum();
    draft.far_tracks = tracks * dice.between(5, 20) / 10 + 2;
    draft.is_tight = true;
    let first: u64 = draft.standard.iter().map(|(_, size)| size.div_ceil(TRACK)).sum();
    draft.store_tracks = Some(first * 8 + 64);
}

/// A volume is written all the time, and a schedule copies it to one of several after the other. Some runs are missed.
fn turns(draft: &mut Draft) {
    const EVERY_MS: u64 = 1000;
    let (tracks, count) = (draft.dice.between(3, 8), draft.dice.between(2, 3));
    let names: Vec<String> = (0..count).map(|n| format!("c{n}")).collect();
    draft.standard = ["d0"]
        .into_iter()
        .chain(names.iter().map(String::as_str))
        .map(|n| (n.to_owned(), tracks * TRACK))
        .collect();
    let dice = &mut draft.dice;
    if dice.chance(400) {
        draft.far = names.iter().filter(|_| dice.chance(600)).cloned().collect();
        draft.far_tracks = draft.far.len() as u64 * tracks * 8 + 16;
    }
    let runs = dice.between(3, 6);
    draft.horizon_ms = runs * EVERY_MS + 500;
    let pace = *dice.pick(&[PairPace::Slow, PairPace::Fast]);
    let mut ops: Vec<Op> = (0..tracks).map(|n| whole("d0", n)).collect();
    ops.extend(names.iter().map(|name| Pair::new("d0", name).create(pace)));
    let (in_ms, runs_made) = (dice.between(1, 300), runs as u32);
    let by_turns = Turns {
        primary: "d0".into(),
        secondaries: names.clone(),
        in_ms,
        every_ms: EVERY_MS,
        runs: runs_made,
    };
    ops.push(local(LocalAct::CopyByTurns(by_turns)));
    for name in &names {
        ops.extend((0..tracks).map(|n| read(name, n)));
        ops.push(part(name, 0, dice));
    }
    let writes = runs * 30;
    let io = (0..writes).map(|_| {
        let track = dice.below(tracks);
        let op = if dice.chance(300) { whole("d0", track) } else { part("d0", track, dice) };
        after(dice.below(EVERY_MS / 15), op)
    });
    let io = io.collect();
    for _ in 0..dice.between(0, 3) {
        let survival = *dice.pick(&[Survival::Nothing, Survival::Mixed, Survival::Everything]);
        let at_ms = dice.between(100, draft.horizon_ms);
        // So long that several are missed, at times.
        let down_ms = if dice.chance(500) { dice.between(1, 20) } else { dice.between(500, 2600) };
        draft.faults.push(Fault::Crash { at_ms, down_ms, survival }.into());
    }
    draft.tasks.push(Task { host: 0, depth: 1, ops });
    draft.tasks.push(Task { host: 1, depth: 4, ops: io });
}
