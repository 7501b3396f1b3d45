//! The tables with power cuts and with I/O in flight, beside what users were promised: every crash rule (D3, D6, D8,
//! D15, F1). What the rules leave to the caller of core is played by a small array, whose own rules can be broken.
//!
//! `TWINTRACK_CASES` sets how many histories run, `TWINTRACK_SEED` the first seed.

#[path = "crash/array.rs"]
mod array;
mod common;
#[path = "crash/disk.rs"]
mod disk;
#[path = "crash/mix.rs"]
mod mix;
#[path = "crash/steps.rs"]
mod steps;
#[path = "crash/world.rs"]
mod world;

use array::Break;
use common::{Failure, Rng, campaign, cases, find};
use mix::Mix;
use world::World;

const STEPS: usize = 250;

fn history(words: &[u64], broken: Option<Break>) -> Result<(), Failure> {
    let mut rng = Rng::new(words.first().copied().unwrap_or(0));
    // Some arrays have room, some run out of it.
    let stores = [3 + rng.below(20) as u32, 5 + rng.below(60) as u32];
    let mut world = World::new(&stores, Mix::new(&mut rng), broken);
    for (step, word) in words.iter().enumerate() {
        world.step(&mut Rng::new(*word)).map_err(|what| failure(&mut world, step, what))?;
    }
    world.wind_up(&mut rng).map_err(|what| failure(&mut world, words.len(), what))
}

fn failure(world: &mut World, step: usize, what: String) -> Failure {
    Failure { step, what, trace: std::mem::take(&mut world.trace) }
}

#[test]
fn promises_hold_through_power_cuts() {
    campaign(&|words| history(words, None), cases(500), STEPS);
}

/// Each of the caller's rules is needed, and the histories notice when it is broken.
#[test]
fn every_rule_of_the_caller_is_needed() {
    for rule in Break::ALL {
        let found = find(&|words| history(words, Some(rule)), 1000, STEPS);
        let (seed, failure) = found.unwrap_or_else(|| panic!("{rule:?} was not noticed"));
        println!("{rule:?}: seed {seed}, step {}: {}", failure.step, failure.what);
    }
}

/// The far end of the hunts below.
#[cfg(debug_assertions)]
#[test]
fn hunted() {
    common::hunt::hunted(&|words| history(words, None), STEPS);
}

/// Every defect that can be planted in core is found.
#[cfg(debug_assertions)]
mod planted {
    use crate::common::hunt::found;

    found! {
        commit_out_of_order CommitOutOfOrder 200;
        unit_torn UnitTorn 200;
        drop_reused DropReused 200;
        drop_written_in_place DropWrittenInPlace 1000;
        lapse_forgotten LapseForgotten 200;
        read_unpinned ReadUnpinned 200;
        write_unpinned WriteUnpinned 1000;
        discard_unheld DiscardUnheld 200;
        old_track_not_kept OldTrackNotKept 50;
        version_off_by_one VersionOffByOne 50;
        stamp_from_device StampFromDevice 200;
        mask_bit_too_many MaskBitTooMany 50;
        overlay_not_carried OverlayNotCarried 50;
        window_end_ignored WindowEndIgnored 50;
        own_not_returned OwnNotReturned 50;
    }
}
