//! A deterministic simulator: the production array and the production host library, over simulated disks, a
//! simulated network and simulated time, with faults from a seed.
//!
//! One seed makes one [`plan::Plan`], one plan one run, byte for byte. [`world::run`] runs a plan and gives an outcome;
//! the [`oracle`]s judge it while it runs.
//!
//! [`disk`], [`net`], [`plan`], [`shrink`], [`trace`], [`timeline`] and the [`oracle`]s know nothing of twintrack, so that
//! others can use them.

#[cfg(not(any(tokio_unstable, doc)))]
compile_error!(
    "the simulator needs `--cfg tokio_unstable`, which .cargo/config.toml sets: without it a panic in a spawned task \
     passes for success. An environment variable RUSTFLAGS replaces what the file says; add the flag to it."
);

pub mod cabinet;
pub mod dice;
pub mod disk;
pub mod endpoints;
pub mod hosts;
pub mod inspect;
pub mod job;
pub mod ledger;
pub mod net;
pub mod oracle;
pub mod plan;
pub mod shrink;
pub mod site;
pub mod timeline;
pub mod trace;
pub mod world;
