//! Volumes that are reserved and let go, tried by hosts, and chosen as secondaries (C9).

use twintrack_link::manage::PairPace;

use super::build::Draft;
use super::{Act, LocalAct, Op, Task};
use crate::dice::Dice;

/// How many plans have some, per mille.
const PLANS: u32 = 300;
const BLOCK: u64 = 4096;

/// Adds volumes, who reserves and copies to them, and who tries to use them, of dice of their own.
pub(super) fn add(draft: &mut Draft, seed: u64) {
    let mut dice = Dice::new(seed, "reserves");
    if !dice.chance(PLANS) {
        return;
    }
    let primaries: Vec<_> =
        draft.standard.iter().filter(|(name, _)| name.starts_with('d')).cloned().collect();
    let spares: Vec<(String, u64)> = (0..dice.between(2, 4))
        .map(|n| {
            let size = dice.pick(&primaries).1;
            (format!("z{n}"), if dice.chance(150) { size + BLOCK } else { size })
        })
        .collect();
    if draft.far_tracks > 0 {
        for (name, size) in spares.iter().filter(|_| dice.chance(400)) {
            draft.far.push(name.clone());
            draft.far_tracks += size.div_ceil(draft.track_bytes) * 8;
        }
    }
    draft.standard.extend(spares.iter().cloned());
    let (count, host) = (dice.between(8, 20), dice.below(2) as u8);
    let pause_ms = draft.horizon_ms * 2 / count + 1;
    let mut ops: Vec<Op> = spares
        .iter()
        .filter(|_| dice.chance(700))
        .map(|(name, _)| Op::now(Act::Local(LocalAct::Reserve { device: name.clone(), reserved: true })))
        .collect();
    // Who is reserved first is not who is chosen first.
    ops.reverse();
    for _ in 0..count {
        let after_ms = dice.below(pause_ms);
        ops.push(Op { after_ms, ..Op::now(command(&primaries, &spares, &mut dice)) });
    }
    let tries = dice.between(10, 50);
    let pause_ms = draft.horizon_ms * 2 / tries + 1;
    let io = (0..tries).map(|_| Op { after_ms: dice.below(pause_ms), ..Op::now(io(&spares, &mut dice)) });
    let io = io.collect();
    draft.tasks.push(Task { host, depth: 1, ops });
    draft.tasks.push(Task { host: 1 - host, depth: *dice.pick(&[1, 4]), ops: io });
}

fn command(primaries: &[(String, u64)], spares: &[(String, u64)], dice: &mut Dice) -> Act {
    let device = dice.pick(spares).0.clone();
    if dice.chance(500) {
        return Act::Local(LocalAct::Reserve { device, reserved: dice.chance(650) });
    }
    let primary = dice.pick(primaries).0.clone();
    let pace = *dice.pick(&[PairPace::Slow, PairPace::Fast]);
    Act::Local(LocalAct::CopyToReserved { primary, pace, keep: dice.chance(250) })
}

fn io(spares: &[(String, u64)], dice: &mut Dice) -> Act {
    let (device, size) = dice.pick(spares).clone();
    let offset = dice.below(size.div_ceil(BLOCK)) * BLOCK;
    let length = (size - offset).min(BLOCK * dice.between(1, 4)) as u32;
    match dice.below(8) {
        0..4 => Act::Read { device, offset, length },
        4..7 => Act::Write { device, offset, length, fua: false },
        _ => Act::Trim { device, offset, length, fua: false },
    }
}
