//! The firmware of one array: a pure state machine. No I/O, no waiting, no lock, no clock but `now`.

mod event;

use std::time::Duration;

pub use event::{
    AttachError, CallId, ConnId, DiskError, Effect, Event, ExportInfo, Extent, HostError, HostOp, IoId, Reply, Segment,
    Tag,
};
use twintrack_core::Tables;

/// What the array is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The serial number: 16 hex digits, given at format.
    pub serial: String,
}

/// The state of one array while it is up.
#[derive(Debug)]
pub struct Firmware {
    identity: Identity,
    tables: Tables,
}

impl Firmware {
    /// Over what the metadata store held. Nothing is under way; the first [`Event::Timer`] (due at once, see
    /// [`Self::next_deadline`]) takes up the background work of before.
    pub fn new(identity: Identity, tables: Tables) -> Self {
        Self { identity, tables }
    }

    /// Takes one event, appends what is to be done. `now` is time since any fixed instant and never goes back.
    pub fn step(&mut self, now: Duration, event: Event, effects: &mut Vec<Effect>) {
        let _ = (now, event, effects, &self.identity, &self.tables);
    }

    /// When [`Event::Timer`] is due, in the time of `now`. Ask again after each step.
    pub fn next_deadline(&self) -> Option<Duration> {
        None
    }

    /// The names that hosts may attach to, for `NBD_OPT_LIST`.
    pub fn exports(&self) -> Vec<String> {
        Vec::new()
    }
}
