//! The tables beside a model that copies everything (D1–D8, D15, F1): random histories of writes, trims, sessions,
//! groups, merges, commits and restarts; after every step all contents, all change reports, all records and all
//! reference counts are compared, and at the end nothing is left.
//!
//! `TWINTRACK_CASES` sets how many histories run, `TWINTRACK_SEED` the seed.

mod common;
#[path = "copies/differences.rs"]
mod differences;
#[path = "copies/model.rs"]
mod model;
#[path = "copies/ops.rs"]
mod ops;
#[path = "copies/steps.rs"]
mod steps;
#[path = "copies/world.rs"]
mod world;

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use twintrack_core::Geometry;

use ops::{Op, op};
use world::World;

/// The array of a history: the size of its tracks as a power of two, and its stores.
type Config = (u32, Vec<u32>);

fn config() -> impl Strategy<Value = Config> {
    // Small tracks mostly: a large one has all its blocks compared, too.
    let shift = prop_oneof![8 => Just(14u32), 2 => Just(16u32), 1 => 15..=20u32];
    // Some arrays run out of space.
    let stores = prop_oneof![3 => Just(vec![300u32, 500]), 1 => proptest::collection::vec(1..25u32, 1..3)];
    (shift, stores)
}

fn histories(steps: usize) -> impl Strategy<Value = (Config, Vec<Op>)> {
    (config(), proptest::collection::vec(op(), 0..steps))
}

fn run((shift, stores): &Config, ops: &[Op]) -> Result<(), String> {
    let mut world = World::new(Geometry::new(1 << shift).expect("a legal track size"), stores);
    // Something to begin with.
    world.step(&Op::CreateStandard { name: 6, sectors: 77 })?;
    world.step(&Op::CreateVirtual { name: 7 })?;
    for (at, op) in ops.iter().enumerate() {
        let done = world.step(op).and_then(|()| world.check());
        done.map_err(|what| format!("after step {at}, {op:?}: {what}"))?;
    }
    world.wind_up().map_err(|what| format!("at the end: {what}"))
}

fn settings(default: u32) -> ProptestConfig {
    ProptestConfig {
        cases: common::cases(u64::from(default)) as u32,
        rng_seed: RngSeed::Fixed(common::first_seed()),
        failure_persistence: None,
        max_shrink_iters: 20_000,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(settings(400))]

    #[test]
    fn everything_is_as_if_it_were_copied((config, ops) in histories(160)) {
        run(&config, &ops).map_err(TestCaseError::fail)?;
    }
}

/// A history out of words, for the hunts below: the same strategy, one seed a history.
#[cfg(debug_assertions)]
fn history(words: &[u64]) -> Result<(), common::Failure> {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};

    let seed: Vec<u8> = words.iter().take(4).flat_map(|word| word.to_le_bytes()).collect();
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
    let mut runner = TestRunner::new_with_rng(settings(1), rng);
    let (config, ops) = histories(160).new_tree(&mut runner).expect("a history").current();
    run(&config, &ops).map_err(|what| common::Failure { step: ops.len(), what, trace: Vec::new() })
}

/// The far end of the hunts below.
#[cfg(debug_assertions)]
#[test]
fn hunted() {
    common::hunt::hunted(&history, 4);
}

/// The defects that show without a power cut.
#[cfg(debug_assertions)]
mod planted {
    use crate::common::hunt::found;

    found! {
        commit_out_of_order CommitOutOfOrder 50;
        drop_reused DropReused 50;
        discard_unheld DiscardUnheld 50;
        old_track_not_kept OldTrackNotKept 50;
        version_off_by_one VersionOffByOne 50;
        stamp_from_device StampFromDevice 50;
        mask_bit_too_many MaskBitTooMany 50;
        overlay_not_carried OverlayNotCarried 50;
        window_end_ignored WindowEndIgnored 50;
        own_not_returned OwnNotReturned 50;
    }
}
