//! What an array tells Prometheus: counted where events and effects pass under the lock anyway, and what the tables say at
//! the moment. Text exposition format 0.0.4.

use std::fmt::{Display, Write};

use twintrack_core::{PoolId, SessionState};

use super::stores::Stores;
use crate::firmware::{Effect, Event, Firmware, HostError, HostOp, Reply, Segment};

/// The type of the text.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

const OPS: [&str; 6] = ["read", "write", "flush", "trim", "write-zeroes", "block-status"];
const ERRORS: [&str; 5] = ["invalid", "io", "no-space", "read-only", "gone"];
const STATES: [&str; 6] = ["registered", "related", "active", "deactivated", "failed", "removing"];

/// Counts since the array was last loaded.
#[derive(Debug, Default)]
pub(super) struct Counters {
    /// By the order of `OPS`.
    requests: [u64; OPS.len()],
    read_bytes: u64,
    written_bytes: u64,
    /// By the order of `ERRORS`.
    errors: [u64; ERRORS.len()],
    syncs: u64,
    commits: u64,
}

impl Counters {
    pub(super) fn event(&mut self, event: &Event) {
        let Event::Host { op, .. } = event else { return };
        let kind = match op {
            HostOp::Read { .. } => 0,
            HostOp::Write { data, .. } => {
                self.written_bytes += data.len() as u64;
                1
            }
            HostOp::Flush => 2,
            HostOp::Trim { .. } => 3,
            HostOp::WriteZeroes { .. } => 4,
            HostOp::BlockStatus { .. } => 5,
        };
        self.requests[kind] += 1;
    }

    pub(super) fn effect(&mut self, effect: &Effect) {
        match effect {
            Effect::Reply { result: Ok(Reply::Data(segments)), .. } => {
                self.read_bytes +=
                    segments.iter().map(|segment| u64::from(Segment::len(segment))).sum::<u64>();
            }
            Effect::Reply { result: Err(error), .. } => {
                let kind = match error {
                    HostError::Invalid | HostError::NotComparable => 0,
                    HostError::Io => 1,
                    HostError::NoSpace => 2,
                    HostError::ReadOnly => 3,
                    HostError::Gone => 4,
                };
                self.errors[kind] += 1;
            }
            Effect::Sync { .. } => self.syncs += 1,
            Effect::Commit { .. } => self.commits += 1,
            _ => {}
        }
    }

    /// Everything, as Prometheus reads it.
    pub(super) fn render<D>(&self, firmware: &Firmware, hosts: usize, stores: &Stores<D>) -> String {
        let mut page = Page(String::with_capacity(4096));
        let op = |(op, value): (&'static str, u64)| ([("op", op)], value);
        page.series(
            "host_requests_total",
            "counter",
            "Requests taken from hosts.",
            zip(OPS, self.requests).map(op),
        );
        let bytes = [("read", self.read_bytes), ("write", self.written_bytes)];
        page.series("host_bytes_total", "counter", "Bytes that hosts read and wrote.", bytes.map(op));
        let error = |(error, value): (&'static str, u64)| ([("error", error)], value);
        page.series(
            "host_errors_total",
            "counter",
            "Requests that failed.",
            zip(ERRORS, self.errors).map(error),
        );
        page.plain("store_syncs_total", "counter", "Syncs of stores.", self.syncs);
        page.plain("commits_total", "counter", "Commits of metadata.", self.commits);
        page.plain("hosts", "gauge", "NBD connections that use a device.", hosts as u64);
        self.tables(&mut page, firmware);
        let store = |(name, offline): (&str, bool)| ([("store", name.to_owned())], u64::from(offline));
        page.series(
            "store_offline",
            "gauge",
            "1: its sync failed, until a restart.",
            stores.offline().map(store),
        );
        page.0
    }

    fn tables(&self, page: &mut Page, firmware: &Firmware) {
        let tables = firmware.tables();
        page.plain("devices", "gauge", "Devices.", tables.devices().count() as u64);
        let mut sessions = [0; STATES.len()];
        for (_, record) in tables.sessions() {
            sessions[match record.state {
                SessionState::Registered { .. } => 0,
                SessionState::Related { .. } => 1,
                SessionState::Active { .. } => 2,
                SessionState::Deactivated { .. } => 3,
                SessionState::Failed => 4,
                SessionState::Removing => 5,
            }] += 1;
        }
        let state = |(state, value): (&'static str, u64)| ([("state", state)], value);
        page.series("sessions", "gauge", "Sessions.", zip(STATES, sessions).map(state));
        let track_bytes = u64::from(tables.geometry().track_bytes());
        let pools = |bytes: &dyn Fn(PoolId) -> u64| -> Vec<_> {
            tables
                .pools()
                .map(|(id, pool)| ([("pool", pool.name.clone())], bytes(id) * track_bytes))
                .collect()
        };
        let used = |id| tables.pool_space(id).tracks - tables.pool_space(id).free;
        let data = |id| tables.data_tracks(id).min(used(id));
        page.series("pool_size_bytes", "gauge", "All of a pool.", pools(&|id| tables.pool_space(id).tracks));
        page.series(
            "pool_free_bytes",
            "gauge",
            "What nothing takes.",
            pools(&|id| tables.pool_space(id).free),
        );
        page.series("pool_data_bytes", "gauge", "What standard devices take.", pools(&data));
        page.series("pool_log_bytes", "gauge", "What only sessions keep.", pools(&|id| used(id) - data(id)));
    }
}

fn zip<const N: usize>(
    names: [&'static str; N],
    values: [u64; N],
) -> impl Iterator<Item = (&'static str, u64)> {
    names.into_iter().zip(values)
}

struct Page(String);

impl Page {
    fn plain(&mut self, name: &str, kind: &str, help: &str, value: u64) {
        self.series::<&str, 0>(name, kind, help, [([], value)]);
    }

    fn series<V: Display, const N: usize>(
        &mut self,
        name: &str,
        kind: &str,
        help: &str,
        samples: impl IntoIterator<Item = ([(&'static str, V); N], u64)>,
    ) {
        // Writing to a string does not fail.
        let _ = write!(self.0, "# HELP twintrack_{name} {help}\n# TYPE twintrack_{name} {kind}\n");
        for (labels, value) in samples {
            let labels: Vec<_> = labels
                .iter()
                .map(|(label, text)| format!("{label}=\"{}\"", escaped(&text.to_string())))
                .collect();
            let _ = match labels.is_empty() {
                true => writeln!(self.0, "twintrack_{name} {value}"),
                false => writeln!(self.0, "twintrack_{name}{{{}}} {value}", labels.join(",")),
            };
        }
    }
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_break_out_of_their_quotes() {
        let mut page = Page(String::new());
        page.series("x", "gauge", "Test.", [([("pool", "a\"b\\c\nd")], 7)]);
        assert_eq!(
            page.0,
            "# HELP twintrack_x Test.\n# TYPE twintrack_x gauge\ntwintrack_x{pool=\"a\\\"b\\\\c\\nd\"} 7\n"
        );
    }
}
