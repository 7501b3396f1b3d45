//! A twintrack array: the [`firmware`], a pure state machine, and around it the [`shell`] that gives it disks,
//! connections and time. [`serve`] is the one entry, for the daemon and for the simulator.

#[cfg(feature = "daemon")]
pub mod daemon;
pub mod firmware;
pub mod shell;

pub use shell::serve;
