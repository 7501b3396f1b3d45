//! Plans of two arrays that are one course of events each, as [`super::courses`] are of one: chains so long that chance
//! would hardly ever make them, with room for chance in every step, and what goes wrong at their turning points only.

use super::build::Draft;
use super::remote::{add_looks, op};
use super::{Act, Fault, LinkTrouble, METADATA_DISK, Op, PairAct, PairSpec, Scenario, Strike, Task};
use crate::dice::Dice;
use crate::disk::Survival;
use crate::site::Site;

/// How many plans of a scenario are courses, per mille.
const COURSES: u32 = 250;
/// After so long without a write a region is clean, ms.
const CLEAN_MS: u64 = 11_000;
/// When a link is cut for good, or nearly so, ms.
const CUT_MS: u64 = 260;

/// Makes one of the scenario's courses of a plan, of some plans. Whether it did.
pub(super) fn add(draft: &mut Draft, scenario: Scenario, seed: u64) -> bool {
    // Of dice of its own, so that other plans are what they were.
    let mut dice = Dice::new(seed, "course");
    if !dice.chance(COURSES) {
        return false;
    }
    let first = dice.chance(500);
    match scenario {
        Scenario::Pair if first => add_rest(draft),
        Scenario::Pair => add_late(draft),
        Scenario::Failover if first => add_heir(draft),
        Scenario::Failover => add_half_copied(draft),
        Scenario::SplitBrain => add_apart(draft),
        _ => return false,
    }
    true
}

/// All that is written is clean again, on both arrays; then it is written in place once more, while the link holds back what
/// is sent, and the power of the array that serves goes at one of the first disk operations, or its metadata take long. What
/// differs then has to be noted already (crash rule 5).
fn add_rest(draft: &mut Draft) {
    let volume = add_pair(draft, 4, 12);
    let mut io: Vec<Op> = whole(&volume).map(Op::now).collect();
    io.push(Op::now(Act::Flush { device: volume.r1() }));
    let dice = &mut draft.dice;
    let begin_ms = CLEAN_MS + dice.below(600);
    let count = dice.between(2, 6);
    io.extend((0..count).map(|_| Op { at_ms: begin_ms, ..Op::now(part(&volume, &volume.r1(), dice)) }));
    let hold = LinkTrouble::Hold { for_ms: dice.between(100, 900) };
    draft.faults.push(Fault::Link { at_ms: begin_ms - 5, trouble: hold }.into());
    let at_ms = begin_ms - 1;
    draft.faults.push(
        if dice.chance(500) {
            let (disk, writes) = (METADATA_DISK.into(), dice.between(1, 8));
            Fault::Slow { at_ms, disk, writes, take_ms: dice.between(40, 200) }
        } else {
            let (after_ops, down_ms) = (dice.below(8), dice.between(1, 30));
            let survival = *dice.pick(&[Survival::Everything, Survival::Mixed]);
            Fault::PowerCut { at_ms, after_ops, down_ms, survival }
        }
        .into(),
    );
    draft.tasks.push(Task { host: 0, depth: 8, ops: io });
    draft.horizon_ms = begin_ms + 500;
}

/// What the array that serves sends on a connection stays on its way; meanwhile its power goes, with what it has just written
/// itself, and it is back at once, on a new connection. Then what was under way arrives.
fn add_late(draft: &mut Draft) {
    const ROUNDS: u64 = 3;
    const ROUND_MS: u64 = 2600;
    let volume = add_pair(draft, 2, 8);
    let mut io = Vec::new();
    for begin_ms in (0..ROUNDS).map(|round| round * ROUND_MS) {
        let dice = &mut draft.dice;
        io.extend(whole(&volume).map(|act| Op { at_ms: begin_ms, ..Op::now(act) }));
        io.push(Op::now(Act::Flush { device: volume.r1() }));
        let stall_ms = begin_ms + 400;
        for _ in 0..dice.between(1, 6) {
            io.push(Op { at_ms: stall_ms + 5, ..Op::now(part(&volume, &volume.r1(), dice)) });
        }
        let trouble = LinkTrouble::Stall { for_ms: dice.between(500, 1900) };
        draft.faults.push(Fault::Link { at_ms: stall_ms, trouble }.into());
        let (at_ms, down_ms) = (stall_ms + dice.between(8, 40), dice.between(1, 20));
        draft.faults.push(Fault::Crash { at_ms, down_ms, survival: Survival::Nothing }.into());
    }
    draft.tasks.push(Task { host: 0, depth: 8, ops: io });
    draft.horizon_ms = ROUNDS * ROUND_MS;
}

/// Hosts write and flush, again and again. Then the link goes, and with it the power of the half that stands by, with all that
/// it has not made durable; it is made to serve, and read.
fn add_heir(draft: &mut Draft) {
    let volume = add_pair(draft, 2, 10);
    let mut io: Vec<Op> = whole(&volume).map(Op::now).collect();
    let dice = &mut draft.dice;
    for at_ms in (80..CUT_MS).step_by(12) {
        io.push(Op { at_ms, ..Op::now(part(&volume, &volume.r1(), dice)) });
        io.extend((0..dice.below(3)).map(|_| Op::now(part(&volume, &volume.r1(), dice))));
        io.push(Op::now(Act::Flush { device: volume.r1() }));
    }
    let survival = *dice.pick(&[Survival::Nothing, Survival::Nothing, Survival::Mixed]);
    let (at_ms, down_ms) = (CUT_MS + dice.below(4), dice.between(1, 30));
    let crash = Fault::Crash { at_ms, down_ms, survival };
    cut_off(draft, CUT_MS);
    draft.faults.push(Strike { array: Site::B, fault: crash });
    draft.tasks.push(Task { host: 0, depth: 1, ops: io });
    serve_by_force(draft, &volume, CUT_MS + 150, Site::B);
}

/// The link goes for a while, and hosts write; while what the other half lacks is copied to it, slowly, the link goes again,
/// and that half is asked to serve: what it has is no state that the volume ever had.
fn add_half_copied(draft: &mut Draft) {
    let volume = add_pair(draft, 8, 24);
    let mut io: Vec<Op> = whole(&volume).map(Op::now).collect();
    let back_ms = CUT_MS + draft.dice.between(200, 500);
    partition(draft, CUT_MS, back_ms - CUT_MS);
    let dice = &mut draft.dice;
    let mut tracks: Vec<u64> = (0..volume.tracks()).collect();
    while !tracks.is_empty() {
        let track = tracks.swap_remove(dice.below(tracks.len() as u64) as usize);
        io.push(Op { at_ms: CUT_MS + 5, ..Op::now(part_of(&volume, &volume.r1(), track, dice)) });
    }
    let slow = LinkTrouble::Delay { for_ms: 4000, by_ms: dice.between(30, 250) };
    draft.faults.push(Fault::Link { at_ms: back_ms, trouble: slow }.into());
    let again_ms = back_ms + dice.between(150, 2500);
    cut_off(draft, again_ms);
    draft.tasks.push(Task { host: 0, depth: 1, ops: io });
    serve_by_force(draft, &volume, again_ms + 100, Site::B);
}

/// The link goes; one half is forced; one of them is written, or both are, or none. When the link is back, nobody has said
/// which one is to stay (F4).
fn add_apart(draft: &mut Draft) {
    let volume = add_pair(draft, 1, 6);
    let mut io: Vec<Op> = whole(&volume).map(Op::now).collect();
    io.push(Op::now(Act::Flush { device: volume.r1() }));
    cut_off(draft, CUT_MS);
    let dice = &mut draft.dice;
    let mut writers =
        *dice.pick(&[[true, false], [true, false], [false, true], [true, true], [false, false]]);
    // Before the other half is forced, or after, or both.
    let from_ms = if dice.chance(500) { CUT_MS + 20 } else { CUT_MS + 300 };
    for (device, writes) in [volume.r1(), volume.r2()].into_iter().zip(&mut writers) {
        for _ in 0..if *writes { dice.between(1, 8) } else { 0 } {
            let at_ms = from_ms + dice.below(300);
            io.push(Op { at_ms, ..Op::now(part(&volume, &device, dice)) });
        }
    }
    let mut later = io.split_off(volume.tracks() as usize + 1);
    later.sort_by_key(|op| op.at_ms);
    draft.tasks.push(Task { host: 0, depth: 2, ops: io });
    draft.tasks.push(Task { host: 1, depth: 4, ops: later });
    serve_by_force(draft, &volume, CUT_MS + 150, Site::B);
}

/// The one pair of a course.
struct Volume {
    pair: PairSpec,
    size: u64,
    track: u64,
}

impl Volume {
    fn r1(&self) -> String {
        self.pair.r1.clone()
    }

    fn r2(&self) -> String {
        self.pair.r2.clone()
    }

    fn tracks(&self) -> u64 {
        self.size.div_ceil(self.track)
    }
}

/// A pair of so many tracks; now and then the last one is not whole.
fn add_pair(draft: &mut Draft, least: u64, most: u64) -> Volume {
    let (dice, track) = (&mut draft.dice, draft.track_bytes);
    let rest = if dice.chance(300) { 512 * dice.between(1, track / 512 - 1) } else { 0 };
    let size = dice.between(least, most) * track - rest;
    let pair = PairSpec {
        name: "p0".into(),
        r1: "d0".into(),
        r2: "e0".into(),
        asked: Site::A,
        from: Site::A,
        makes: None,
        adaptive: false,
        freeze: false,
        group: None,
    };
    draft.standard.push(("d0".into(), size));
    draft.second.push(("e0".into(), size));
    draft.pairs.push(pair.clone());
    Volume { pair, size, track }
}

/// Writes of all tracks, each whole.
fn whole(volume: &Volume) -> impl Iterator<Item = Act> + '_ {
    (0..volume.tracks()).map(|n| {
        let length = volume.track.min(volume.size - n * volume.track) as u32;
        Act::Write { device: volume.r1(), offset: n * volume.track, length, fua: false }
    })
}

/// A small write of some track.
fn part(volume: &Volume, device: &str, dice: &mut Dice) -> Act {
    part_of(volume, device, dice.below(volume.tracks()), dice)
}

/// A small write of a track: a block or some, or sectors.
fn part_of(volume: &Volume, device: &str, track: u64, dice: &mut Dice) -> Act {
    let bytes = volume.track.min(volume.size - track * volume.track);
    let unit = if dice.chance(700) && bytes >= 4096 { 4096 } else { 512 };
    let length = (unit * dice.between(1, 3)).min(bytes / unit * unit);
    let offset = track * volume.track + dice.below((bytes - length) / unit + 1) * unit;
    Act::Write { device: device.into(), offset, length: length as u32, fua: false }
}

/// The link goes, for some seconds, and both arrays see it at once.
fn cut_off(draft: &mut Draft, at_ms: u64) {
    let for_ms = draft.dice.between(2000, 5000);
    partition(draft, at_ms, for_ms);
}

fn partition(draft: &mut Draft, at_ms: u64, for_ms: u64) {
    let trouble = LinkTrouble::Partition { for_ms };
    draft.faults.push(Fault::Link { at_ms, trouble }.into());
    draft.faults.push(Fault::Drop { at_ms, nth: None }.into());
}

/// A half is made to serve by force, and read a little later. Somebody looks at the pair all the time.
fn serve_by_force(draft: &mut Draft, volume: &Volume, at_ms: u64, site: Site) {
    let pair = volume.pair.name.clone();
    let force = Op { at_ms, ..op(site, 0, PairAct::Failover { pair, force: true }) };
    let device = volume.pair.device(site).to_string();
    let read = |n: u64| {
        let length = volume.track.min(volume.size - n * volume.track) as u32;
        Act::Read { device: device.clone(), offset: n * volume.track, length }
    };
    let mut ops = vec![force];
    ops.extend((0..volume.tracks()).map(|n| Op::now(read(n))));
    draft.tasks.push(Task { host: 0, depth: 1, ops });
    draft.horizon_ms = at_ms + 600;
    add_looks(draft, std::slice::from_ref(&volume.pair));
}
