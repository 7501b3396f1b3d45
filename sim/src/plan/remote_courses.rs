//! Plans of two arrays that are one course of events each, as [`super::courses`] are of one: chains so long that chance
//! would hardly ever make them, with room for chance in every step, and what goes wrong at their turning points only.

use super::build::Draft;
use super::remote::{add_looks, failover, op};
use super::{
    Act, Fault, LinkTrouble, Op, PairAct, PairSpec, Scenario, Strike, Task, remote_landing, remote_returns,
    remote_snapshots, remote_thaws,
};
use crate::dice::Dice;
use crate::disk::Survival;
use crate::site::Site;

/// How many plans of a scenario are courses, per mille.
const COURSES: u32 = 300;
/// After so long without a write a region is clean, ms.
pub(super) const CLEAN_MS: u64 = 11_000;
/// When a link is cut for good, or nearly so, ms.
pub(super) const CUT_MS: u64 = 260;

/// Makes one of the scenario's courses of a plan, of some plans. Whether it did.
pub(super) fn add(draft: &mut Draft, scenario: Scenario, seed: u64) -> bool {
    // Of dice of its own, so that other plans are what they were.
    let mut dice = Dice::new(seed, "course");
    if !dice.chance(COURSES) {
        return add_later(draft, scenario, seed);
    }
    let courses: &[fn(&mut Draft)] = match scenario {
        Scenario::Pair => &[add_rest, add_late, add_behind],
        Scenario::Failover => &[add_heir, add_half_copied, add_handover],
        Scenario::SplitBrain => &[add_apart],
        Scenario::Create => &[add_fetched, add_let_go],
        _ => return false,
    };
    dice.pick(courses)(draft);
    true
}

/// The courses that came later take none of those before their seeds.
fn add_later(draft: &mut Draft, scenario: Scenario, seed: u64) -> bool {
    if remote_snapshots::is_course(scenario, seed) {
        remote_snapshots::add_course(draft);
    } else if remote_returns::is_course(scenario, seed) {
        remote_returns::add_course(draft);
    } else if remote_thaws::is_course(scenario, seed) {
        remote_thaws::add_course(draft);
    } else if remote_landing::is_course(scenario, seed) {
        remote_landing::add_course(draft);
    } else {
        return false;
    }
    true
}

/// All that is written is clean again, on both arrays; then it is written in place once more, while the link holds back what
/// is sent, and the power of the array that serves goes at one of the first disk operations. What differs then has to be
/// noted already (crash rule 5).
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
    let (after_ops, down_ms) = (dice.below(16), dice.between(1, 30));
    let survival = *dice.pick(&[Survival::Everything, Survival::Everything, Survival::Mixed]);
    let cut = Fault::PowerCut { at_ms: begin_ms - 1, after_ops, down_ms, survival };
    draft.faults.push(cut.into());
    draft.tasks.push(Task { host: 0, depth: 8, ops: io });
    draft.horizon_ms = begin_ms + 500;
}

/// What the array that serves sends on a connection stays on its way; meanwhile its power goes, with what it has just written
/// itself, and it is back at once, on a new connection. Then what was under way arrives, when the other half has been made
/// what this one is.
fn add_late(draft: &mut Draft) {
    const STALL_MS: u64 = 400;
    let volume = add_pair(draft, 2, 8);
    let mut io: Vec<Op> = whole(&volume).map(Op::now).collect();
    io.push(Op { at_ms: STALL_MS - 150, ..Op::now(Act::Flush { device: volume.r1() }) });
    let dice = &mut draft.dice;
    let count = dice.between(1, 6);
    io.extend((0..count).map(|_| Op { at_ms: STALL_MS + 5, ..Op::now(part(&volume, &volume.r1(), dice)) }));
    let for_ms = dice.between(700, 1900);
    draft.faults.push(Fault::Link { at_ms: STALL_MS, trouble: LinkTrouble::Stall { for_ms } }.into());
    let (at_ms, down_ms) = (STALL_MS + dice.between(8, 40), dice.between(1, 20));
    draft.faults.push(Fault::Crash { at_ms, down_ms, survival: Survival::Nothing }.into());
    draft.tasks.push(Task { host: 0, depth: 8, ops: io });
    // Faults last until the tasks are over.
    draft.horizon_ms = STALL_MS + for_ms + 200;
    add_looks(draft, std::slice::from_ref(&volume.pair));
}

/// The other half is told in the background only, over a slow link, and a few tracks are written over and over: a track is
/// written again while it is copied. Meanwhile both halves are compared, again and again.
fn add_behind(draft: &mut Draft) {
    let volume = add_pair(draft, 1, 3);
    draft.pairs[0].adaptive = true;
    let mut io: Vec<Op> = whole(&volume).map(Op::now).collect();
    let dice = &mut draft.dice;
    let end_ms = dice.between(500, 1500);
    for site in Site::ALL {
        let by_ms = if dice.chance(500) { dice.between(1, 6) } else { dice.between(6, 60) };
        let trouble = LinkTrouble::Delay { for_ms: end_ms, by_ms };
        draft.faults.push(Strike { array: site, fault: Fault::Link { at_ms: 50, trouble } });
    }
    let verify = PairAct::Verify { pair: volume.pair.name.clone(), mark: false };
    let verifies = (60..end_ms).step_by(70).map(|at_ms| Op { at_ms, ..op(Site::A, 0, verify.clone()) });
    draft.tasks.push(Task { host: 1, depth: 1, ops: verifies.collect() });
    let pause_ms = dice.between(4, 60);
    for at_ms in (60..end_ms).step_by(pause_ms as usize) {
        io.push(Op { at_ms: at_ms + dice.below(pause_ms), ..Op::now(part(&volume, &volume.r1(), dice)) });
    }
    draft.tasks.push(Task { host: 0, depth: *dice.pick(&[1, 2, 4]), ops: io });
    draft.horizon_ms = end_ms + 100;
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

/// The link goes for a while, and hosts write; while what the other half lacks is copied to it, more than a slow link takes at a
/// time, the link goes again, and that half is asked to serve: what it has is no state that the volume ever had.
fn add_half_copied(draft: &mut Draft) {
    draft.track_bytes = 256 << 10;
    let volume = add_pair(draft, 12, 24);
    let mut io: Vec<Op> = whole(&volume).map(Op::now).collect();
    let back_ms = CUT_MS + draft.dice.between(200, 500);
    partition(draft, CUT_MS, back_ms - CUT_MS);
    let dice = &mut draft.dice;
    let mut tracks: Vec<u64> = (0..volume.tracks()).collect();
    while !tracks.is_empty() {
        let track = tracks.swap_remove(dice.below(tracks.len() as u64) as usize);
        io.push(Op { at_ms: CUT_MS + 5, ..Op::now(part_of(&volume, &volume.r1(), track, dice)) });
    }
    let again_ms = slow_copy(draft, back_ms);
    cut_off(draft, again_ms);
    draft.tasks.push(Task { host: 0, depth: 1, ops: io });
    serve_by_force(draft, &volume, again_ms + 100, Site::B);
}

/// One half takes over from the other, and back, while hosts write to both, as fast as they can; the link is slow, and breaks
/// about then.
fn add_handover(draft: &mut Draft) {
    const ROUNDS: u64 = 6;
    let volume = add_pair(draft, 2, 12);
    let dice = &mut draft.dice;
    let round_ms = dice.between(150, 400);
    draft.horizon_ms = (ROUNDS + 1) * round_ms;
    for site in Site::ALL {
        let trouble = LinkTrouble::Delay { for_ms: draft.horizon_ms, by_ms: dice.between(1, 30) };
        draft.faults.push(Strike { array: site, fault: Fault::Link { at_ms: 1, trouble } });
    }
    let mut failovers = Vec::new();
    for (site, round) in [Site::B, Site::A].into_iter().cycle().zip(1..=ROUNDS) {
        let act = failover(volume.pair.name.clone(), false);
        let at_ms = round * round_ms + dice.below(round_ms / 3);
        failovers.push(Op { at_ms, ..op(site, 0, act) });
        if dice.chance(500) {
            draft.faults.push(Fault::Drop { at_ms: at_ms + dice.below(50), nth: Some(dice.below(8)) }.into());
        }
    }
    for (host, device) in [volume.r1(), volume.r2()].into_iter().enumerate() {
        let mut io = Vec::new();
        for at_ms in (1..draft.horizon_ms).step_by(20) {
            let count = dice.between(1, 6);
            io.extend((0..count).map(|_| Op { at_ms, ..Op::now(part(&volume, &device, dice)) }));
        }
        draft.tasks.push(Task { host: host as u8, depth: 8, ops: io });
    }
    draft.tasks.push(Task { host: 0, depth: 1, ops: failovers });
    // What the one that takes over lacks then has to get there first.
    draft.pairs[0].adaptive = draft.dice.chance(400);
    add_looks(draft, std::slice::from_ref(&volume.pair));
}

/// A pair is made of what its second half has, over a slow link; hosts use the first half before it has much of it (A3, A9).
fn add_fetched(draft: &mut Draft) {
    const MADE_MS: u64 = 200;
    let volume = add_pair(draft, 4, 24);
    let (made, mut spec) = (draft.standard.remove(0), draft.pairs.remove(0));
    let dice = &mut draft.dice;
    (spec.from, spec.makes) = (Site::B, Some((Site::A, made.1)));
    spec.asked = if dice.chance(500) { Site::A } else { Site::B };
    let before = whole(&volume).map(|act| match act {
        Act::Write { offset, length, fua, .. } => Act::Write { device: volume.r2(), offset, length, fua },
        act => act,
    });
    let before: Vec<Op> = before.map(Op::now).collect();
    for site in Site::ALL {
        let trouble = LinkTrouble::Delay { for_ms: 3000, by_ms: dice.between(10, 120) };
        draft.faults.push(Strike { array: site, fault: Fault::Link { at_ms: MADE_MS - 1, trouble } });
    }
    let mut io = Vec::new();
    for n in 0..dice.between(5, 30) {
        let (at_ms, device) = (MADE_MS + 250 + n * 15, volume.r1());
        let act = part(&volume, &device, dice);
        let act = match act {
            Act::Write { device, offset, length, .. } if dice.chance(600) => {
                Act::Read { device, offset, length }
            }
            act => act,
        };
        io.push(Op { at_ms, ..Op::now(act) });
    }
    let create = Op { at_ms: MADE_MS, ..op(spec.asked, 0, PairAct::Create(spec)) };
    draft.tasks.push(Task { host: 0, depth: 4, ops: before });
    draft.tasks.push(Task { host: 0, depth: 1, ops: vec![create] });
    draft.tasks.push(Task { host: 1, depth: 4, ops: io });
    draft.horizon_ms = 1500;
}

/// A pair is deleted while its second half, on a slow disk, is being made what the first one is; then hosts read that half, again
/// and again. Found at first by `create` 473: what they read changed by itself.
fn add_let_go(draft: &mut Draft) {
    const MADE_MS: u64 = 200;
    let volume = add_pair(draft, 2, 8);
    let spec = draft.pairs.remove(0);
    let before: Vec<Op> = whole(&volume).map(Op::now).collect();
    let dice = &mut draft.dice;
    let pair = spec.name.clone();
    let delete_ms = MADE_MS + dice.between(40, 160);
    let create = Op { at_ms: MADE_MS, ..op(Site::A, 0, PairAct::Create(spec)) };
    let delete =
        Op { at_ms: delete_ms, ..op(*dice.pick(&Site::ALL), 0, PairAct::Delete { pair, force: false }) };
    let (writes, take_ms) = (dice.between(4, 12), dice.between(100, 400));
    let slow = Fault::Slow { at_ms: MADE_MS + 5, disk: "store0".into(), writes, take_ms };
    draft.faults.push(Strike { array: Site::B, fault: slow });
    let rounds = (0..12).map(|round| delete_ms + 10 + round * 40);
    let reads = rounds.flat_map(|at_ms| volume.reads(volume.r2()).map(move |read| Op { at_ms, ..read }));
    let reads = reads.collect();
    draft.tasks.push(Task { host: 0, depth: 4, ops: before });
    draft.tasks.push(Task { host: 0, depth: 1, ops: vec![create, delete] });
    draft.tasks.push(Task { host: 1, depth: 4, ops: reads });
    draft.horizon_ms = 1500;
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

/// A pair of a course.
pub(super) struct Volume {
    pair: PairSpec,
    pub(super) size: u64,
    track: u64,
}

impl Volume {
    pub(super) fn r1(&self) -> String {
        self.pair.r1.clone()
    }

    pub(super) fn r2(&self) -> String {
        self.pair.r2.clone()
    }

    pub(super) fn tracks(&self) -> u64 {
        self.size.div_ceil(self.track)
    }

    /// Reads of all tracks of one of its devices.
    pub(super) fn reads(&self, device: String) -> impl Iterator<Item = Op> {
        let (track, size) = (self.track, self.size);
        (0..self.tracks()).map(move |n| {
            let length = track.min(size - n * track) as u32;
            Op::now(Act::Read { device: device.clone(), offset: n * track, length })
        })
    }
}

/// The one pair of a course.
fn add_pair(draft: &mut Draft, least: u64, most: u64) -> Volume {
    add_nth_pair(draft, 0, least, most)
}

/// A pair of so many tracks; now and then the last one is not whole.
pub(super) fn add_nth_pair(draft: &mut Draft, n: u64, least: u64, most: u64) -> Volume {
    let (dice, track) = (&mut draft.dice, draft.track_bytes);
    let rest = if dice.chance(300) { 512 * dice.between(1, track / 512 - 1) } else { 0 };
    let size = dice.between(least, most) * track - rest;
    let pair = PairSpec {
        name: format!("p{n}"),
        r1: format!("d{n}"),
        r2: format!("e{n}"),
        asked: Site::A,
        from: Site::A,
        makes: None,
        adaptive: false,
        freeze: false,
        group: None,
    };
    draft.standard.push((pair.r1.clone(), size));
    draft.second.push((pair.r2.clone(), size));
    draft.pairs.push(pair.clone());
    Volume { pair, size, track }
}

/// Writes of all tracks, each whole.
pub(super) fn whole(volume: &Volume) -> impl Iterator<Item = Act> + '_ {
    (0..volume.tracks()).map(|n| {
        let length = volume.track.min(volume.size - n * volume.track) as u32;
        Act::Write { device: volume.r1(), offset: n * volume.track, length, fua: false }
    })
}

/// A small write of some track.
pub(super) fn part(volume: &Volume, device: &str, dice: &mut Dice) -> Act {
    part_of(volume, device, dice.below(volume.tracks()), dice)
}

/// A small write of a track: a block or some, or sectors.
pub(super) fn part_of(volume: &Volume, device: &str, track: u64, dice: &mut Dice) -> Act {
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

pub(super) fn partition(draft: &mut Draft, at_ms: u64, for_ms: u64) {
    let trouble = LinkTrouble::Partition { for_ms };
    draft.faults.push(Fault::Link { at_ms, trouble }.into());
    draft.faults.push(Fault::Drop { at_ms, nth: None }.into());
}

/// The link is back, and slow. When both arrays have agreed, the copy has begun, and its first frames have arrived.
pub(super) fn slow_copy(draft: &mut Draft, back_ms: u64) -> u64 {
    let by_ms = draft.dice.between(60, 150);
    let slow = LinkTrouble::Delay { for_ms: 5000, by_ms };
    draft.faults.push(Fault::Link { at_ms: back_ms, trouble: slow }.into());
    back_ms + 40 + draft.dice.between(280, 480) * by_ms / 100
}

/// A half is made to serve by force, and read a little later. Somebody looks at the pair all the time.
fn serve_by_force(draft: &mut Draft, volume: &Volume, at_ms: u64, site: Site) {
    let pair = volume.pair.name.clone();
    let force = Op { at_ms, ..op(site, 0, failover(pair, true)) };
    let mut ops = vec![force];
    ops.extend(volume.reads(volume.pair.device(site).to_string()));
    draft.tasks.push(Task { host: 0, depth: 1, ops });
    draft.horizon_ms = at_ms + 600;
    add_looks(draft, std::slice::from_ref(&volume.pair));
}
