//! Dirty-region marks (crash rule 5), measured: `cargo bench -p twintrack-controller --bench marks`.
//!
//! Pairs of whole arrays in this process, with a link that carries everything at once and stores that keep no data; so what
//! is measured is what both arrays do for a write, and nothing else. Random writes of 4 KiB over a working set of 1 GiB and of
//! 64 GiB, one at a time, with marks being cleaned as ever; rounds take turns between the pairs. Then R1 crashes, and what goes
//! over the link until both halves are the same is held against the regions that were dirty.
//!
//! What must be as it is ends the run with an error: the costs are alike, and only dirty regions are sent. Besides there are
//! a second pair of 1 GiB, whose ratio to the first is what chance makes, and devices without a pair: a write to one track of
//! many costs more than to one of few there, too, for the tables do not fit the processor's cache.

#[path = "marks/pair.rs"]
mod pair;

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use pair::{Pair, REGION, REGION_TRACKS};

const GIB: u64 = 1 << 30;
/// Timed writes of one round, and rounds.
const WRITES: u32 = 40_000;
const ROUNDS: usize = 25;
/// On the arrays' clock, so many writes are made in a second.
const RATES: [u32; 3] = [20_000, 5_000, 1_000];
/// The same within so many percent.
const ALIKE_PERCENT: f64 = 10.0;
/// Regions that are dirty when R1 crashes.
const DIRTY: u64 = 40;

fn main() -> ExitCode {
    let mut pairs = [
        ("1 GiB", Pair::new(GIB, true)),
        ("64 GiB", Pair::new(64 * GIB, true)),
        ("1 GiB again", Pair::new(GIB, true)),
        ("1 GiB, no pair", Pair::new(GIB, false)),
        ("64 GiB, no pair", Pair::new(64 * GIB, false)),
    ];
    println!("marking each region                  regions    commits of R1, of R2");
    for (name, pair) in &mut pairs {
        pair.take_commits();
        (0..pair.size / REGION).for_each(|region| pair.write(region * REGION));
        let [r1, r2] = pair.take_commits();
        println!("  {name:32} {:9} {r1:10} {r2:10}", pair.size / REGION);
    }
    let alike = compare(&mut pairs);
    slower(&mut pairs);
    let mut sent_alone = true;
    println!(
        "\nafter a crash of R1      dirty regions    tracks of them    sent    compared    of the device    elsewhere"
    );
    for (name, pair) in pairs.iter_mut().take(2) {
        sent_alone &= crash(name, pair);
    }
    if alike && sent_alone { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Rounds of each in turn; whether both working sets cost the same.
fn compare(pairs: &mut [(&str, Pair)]) -> bool {
    let mut rounds: Vec<Vec<f64>> = vec![Vec::new(); pairs.len()];
    for (_, pair) in pairs.iter_mut() {
        round(pair, RATES[0]);
        pair.take_commits();
        pair.take_operations();
        pair.take_messages();
    }
    for first in 0..ROUNDS {
        // Each round begins with another one.
        for at in 0..pairs.len() {
            let at = (at + first) % pairs.len();
            rounds[at].push(round(&mut pairs[at].1, RATES[0]));
        }
    }
    println!(
        "\n{ROUNDS} rounds of {WRITES} writes each, {} in a second      \
         ns a write (range)    disk operations, messages a write    commits in a million writes: R1, R2",
        RATES[0]
    );
    for ((name, pair), costs) in pairs.iter_mut().zip(&rounds) {
        let writes = f64::from(WRITES) * ROUNDS as f64;
        let [r1, r2] = pair.take_commits().map(|commits| commits as f64 * 1e6 / writes);
        let operations = pair.take_operations() as f64 / writes;
        let messages = pair.take_messages() as f64 / writes;
        let (median, least, most) = of(costs.clone());
        println!(
            "  {name:32} {median:8.0} ({least:.0}–{most:.0})    {operations:8.3} {messages:8.3}    {r1:8.1} {r2:8.1}"
        );
    }
    let ratio = |a: usize, b: usize| of(rounds[a].iter().zip(&rounds[b]).map(|(a, b)| a / b).collect());
    let added = |large: usize, plain: usize, at: usize| rounds[large][at] - rounds[plain][at];
    let adds = of((0..ROUNDS).map(|at| added(1, 4, at) / added(0, 3, at)).collect());
    let limit = ALIKE_PERCENT / 100.0;
    println!("\nratio, median of the rounds' (range)");
    let tell = |what: &str, (median, least, most): (f64, f64, f64), more: &str| {
        println!("  {what:46} {median:.3} ({least:.3}–{most:.3}){more}");
    };
    let large = ratio(1, 0);
    let alike = (large.0 - 1.0).abs() <= limit;
    let verdict = if alike { "met" } else { "MISSED" };
    tell("64 GiB to 1 GiB", large, &format!("    within {ALIKE_PERCENT} %: {verdict}"));
    tell("1 GiB to itself: chance", ratio(2, 0), "");
    tell("64 GiB to 1 GiB, no pair: the processor's cache", ratio(4, 3), "");
    tell("what a pair adds, 64 GiB to 1 GiB", adds, "");
    alike
}

/// With fewer writes in a second more regions are left alone for long enough to become clean, and are marked anew.
fn slower(pairs: &mut [(&str, Pair)]) {
    println!(
        "\nthe slower, the more marks become clean and are made anew; commits in a million writes: R1, R2"
    );
    for rate in RATES {
        for (name, pair) in pairs.iter_mut().take(2) {
            // Until it is as it stays.
            for _ in 0..3 {
                round(pair, rate);
            }
            pair.take_commits();
            let ns = round(pair, rate);
            let [r1, r2] = pair.take_commits().map(|commits| commits as f64 * 1e6 / f64::from(WRITES));
            println!("  {rate:6} in a second  {name:10} {r1:10.0} {r2:10.0}    {ns:8.0} ns a write");
        }
    }
}

/// Nanoseconds a write.
fn round(pair: &mut Pair, rate: u32) -> f64 {
    let start = now();
    for _ in 0..WRITES {
        pair.pass(Duration::from_secs(1) / rate);
        pair.write_anywhere();
    }
    start.elapsed().as_secs_f64() * 1e9 / f64::from(WRITES)
}

/// Everything becomes clean, some regions are written, R1 crashes, and both become the same again: whether nothing but those
/// regions was sent or compared.
fn crash(name: &str, pair: &mut Pair) -> bool {
    for _ in 0..20_000 {
        if pair.dirty().is_empty() {
            break;
        }
        pair.pass(Duration::from_millis(100));
    }
    assert!(pair.dirty().is_empty(), "marks become clean");
    for n in 0..DIRTY {
        pair.write(n * (pair.size / REGION / DIRTY) * REGION + n % REGION_TRACKS * 4096);
    }
    let dirty: BTreeSet<u32> = pair.dirty().into_iter().collect();
    pair.crash();
    pair.take_sent();
    pair.start();
    for _ in 0..20_000 {
        pair.pass(Duration::from_millis(100));
        if pair.is_synchronized() {
            break;
        }
    }
    if !pair.is_synchronized() {
        println!("  {name:24} not the same again after 2000 s: MISSED");
        return false;
    }
    let sent = pair.take_sent();
    let elsewhere = |tracks: &BTreeSet<u32>| {
        tracks.iter().filter(|track| !dirty.contains(&(**track / REGION_TRACKS as u32))).count()
    };
    let strays = elsewhere(&sent.written) + elsewhere(&sent.compared);
    println!(
        "  {name:22} {:14} {:17} {:7} {:11} {:16} {strays:12}",
        dirty.len(),
        dirty.len() as u64 * REGION_TRACKS,
        sent.written.len(),
        sent.compared.len(),
        pair.size / REGION * REGION_TRACKS,
    );
    strays == 0 && !sent.written.is_empty() && dirty.len() as u64 == DIRTY
}

/// Median, least and most.
fn of(mut values: Vec<f64>) -> (f64, f64, f64) {
    values.sort_by(f64::total_cmp);
    (values[values.len() / 2], values[0], values[values.len() - 1])
}

/// The clock, which library crates do without.
#[allow(clippy::disallowed_methods)]
fn now() -> Instant {
    Instant::now()
}
