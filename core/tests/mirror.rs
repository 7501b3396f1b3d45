//! Two halves of a pair on two arrays, with writes, marks, halts, failovers, lost links and power cuts of either side,
//! beside what was promised (crash rules 4 and 5; A8, F4, F5):
//!
//! - what differs between the halves is always covered by what either owes or has marked;
//! - a pair that is called synchronized is equal;
//! - no write that one side acknowledged alone is overwritten without a person's choice;
//! - whatever happened, with a healthy link the pair gets well.
//!
//! What the rules leave to the caller of core is played by a small array, whose own rules can be broken.
//! `TWINTRACK_CASES` sets how many histories run, `TWINTRACK_SEED` the first seed.

mod common;
#[path = "common/pairs.rs"]
mod halves;
#[path = "mirror/link.rs"]
mod link;
#[path = "mirror/side.rs"]
mod side;
#[path = "mirror/steps.rs"]
mod steps;
#[path = "mirror/world.rs"]
mod world;

use common::{Failure, Rng, campaign, cases, find};
use side::Break;
use world::{Mix, World};

const STEPS: usize = 600;

fn history(words: &[u64], broken: Option<Break>) -> Result<(), Failure> {
    let mix = Mix::new(&mut Rng::new(words.first().copied().unwrap_or(0)));
    let mut world = World::new(mix, broken);
    let fail =
        |world: &mut World, step, what| Failure { step, what, trace: std::mem::take(&mut world.trace) };
    for (step, word) in words.iter().enumerate() {
        world.step(&mut Rng::new(*word)).map_err(|what| fail(&mut world, step, what))?;
    }
    world.wind_up().map_err(|what| fail(&mut world, words.len(), what))
}

#[test]
fn promises_hold_through_power_cuts() {
    campaign(&|words| history(words, None), cases(300), STEPS);
}

/// Each rule is needed, and the histories notice when it is broken.
#[test]
fn every_rule_is_needed() {
    for rule in Break::ALL {
        let found = find(&|words| history(words, Some(rule)), 1000, STEPS);
        let (seed, failure) = found.unwrap_or_else(|| panic!("{rule:?} was not noticed"));
        println!("{rule:?}: seed {seed}, step {}: {}", failure.step, failure.what);
    }
}
