//! Servers take turns.

use std::fs;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use indicatif::{ProgressBar, ProgressStyle};

use super::load::{Load, Pattern};
use super::rows::{Kind, Row};
use super::score::{Measured, Series};
use super::scratch::settle;
use super::servers::{Array, Binaries, Mode, Peer, Server, create};
use super::sessions::{self, LARGE_DEVICE};
use crate::process::told_to_end;

/// Who takes part in the rows without snapshots.
pub const STEADY: [Server; 4] = [Server::Twintrack, Server::TwintrackAgain, Server::Nbdkit, Server::QemuRaw];
/// The device of these rows.
const DEVICE: &str = "bench";
/// A store holds that device, another one with all that a session keeps of it, and as much again.
const STORE_DEVICES: u64 = 4;
/// What a store is to have beyond that.
const STORE_SPARE_BYTES: u64 = 1 << 30;

/// What a bench ends with that somebody interrupts.
pub const TOLD_TO_END: &str = "told to end: servers are stopped and files removed";

/// How much is done.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Of a device.
    pub bytes: u64,
    pub rounds: u32,
    pub seconds: u32,
    pub mode: Mode,
}

/// All servers, started and filled.
pub struct Bench {
    plan: Plan,
    load: Load,
    arrays: Vec<(Server, Array)>,
    peers: Vec<(Server, Peer)>,
    folder: PathBuf,
    /// Somebody wants it to end.
    told_to_end: Arc<AtomicBool>,
}

impl Bench {
    /// Starts those that the rows need, each on a folder of its own.
    pub fn start(plan: Plan, rows: &[Row], binaries: &Binaries, folder: &Path) -> Result<Self, String> {
        let told_to_end = told_to_end()?;
        let place = |name: &str| {
            let folder = folder.join(name);
            create(&folder).map(|()| folder)
        };
        let load = Load::prepare(place("load")?, plan.bytes)?;
        let mut arrays = Vec::new();
        let store_bytes = plan.bytes * STORE_DEVICES + STORE_SPARE_BYTES;
        for (server, name) in [(Server::Twintrack, "twintrack"), (Server::TwintrackAgain, "again")] {
            let array = Array::start(binaries, place(name)?, plan.mode, store_bytes, "")?;
            array.tell(&["device", "create", DEVICE, &plan.size()])?;
            load.copy_in(&array.uri(DEVICE))?;
            sessions::create_large(&array)?;
            arrays.push((server, array));
        }
        let mut peers = Vec::new();
        if rows.iter().any(|row| matches!(row.kind(), Kind::Rate { .. })) {
            for server in
                STEADY.into_iter().filter(|server| server.is_peer() && server.lacks(plan.mode).is_none())
            {
                let folder = place(if server == Server::Nbdkit { "nbdkit" } else { "qemu" })?;
                let file = folder.join("raw");
                let made = fs::File::create(&file).and_then(|file| file.set_len(plan.bytes));
                made.map_err(|error| format!("{}: {error}", file.display()))?;
                let peer = match server {
                    Server::Nbdkit => Peer::nbdkit(&folder, &file)?,
                    _ => Peer::qemu(&folder, "raw", &file, plan.mode)?,
                };
                load.copy_in(peer.uri())?;
                peers.push((server, peer));
            }
        }
        settle(folder)?;
        Ok(Self { plan, load, arrays, peers, folder: folder.to_path_buf(), told_to_end })
    }

    /// Round by round, row by row, server by server.
    pub fn measure(&self, rows: &[Row], quiet: bool) -> Result<Vec<Measured>, String> {
        let mut measured: Vec<Measured> = rows.iter().map(|row| self.empty(*row)).collect();
        let steps: usize = measured.iter().map(|row| row.servers.len()).sum();
        let bar = bar(steps as u64 * u64::from(self.plan.rounds), quiet);
        for round in 0..self.plan.rounds as usize {
            for Measured { row, servers } in &mut measured {
                let count = servers.len();
                for turn in 0..count {
                    let (server, series) = &mut servers[(round + turn) % count];
                    bar.set_message(format!("{}: {}", row.title(), server.name()));
                    let result = self.one(*row, *server, series);
                    if self.told_to_end.load(Ordering::Relaxed) {
                        return Err(TOLD_TO_END.into());
                    }
                    result?;
                    bar.inc(1);
                }
            }
        }
        bar.finish_and_clear();
        Ok(measured)
    }

    fn empty(&self, row: Row) -> Measured {
        let servers = match row.kind() {
            Kind::Rate { .. } => STEADY,
            Kind::Change { .. } | Kind::Time => sessions::SERVERS,
        };
        let able = servers.into_iter().filter(|server| server.lacks(self.plan.mode).is_none());
        Measured { row, servers: able.map(|server| (server, Series::default())).collect() }
    }

    fn one(&self, row: Row, server: Server, series: &mut Series) -> Result<(), String> {
        let (load, seconds) = (&self.load, self.plan.seconds);
        settle(&self.folder)?;
        let value = match row {
            Row::WriteFlush => load.steady(&self.uri(server)?, Pattern::WriteFlush, seconds)?,
            Row::RandomWrite => load.steady(&self.uri(server)?, Pattern::Writes, seconds)?,
            Row::RandomRead => load.steady(&self.uri(server)?, Pattern::Reads, seconds)?,
            Row::CopyOut => load.copy_out(&self.uri(server)?)?,
            Row::CopyIn => load.copy_in(&self.uri(server)?)?,
            Row::FirstWrite | Row::FirstWriteDeep => {
                let (depth, size) = (if row == Row::FirstWrite { 1 } else { 32 }, self.plan.size());
                let (before, after) = match self.array(server) {
                    Some(array) => sessions::first_writes_of_array(array, load, &size, depth)?,
                    None => {
                        let (folder, mode) = (&self.images()?, self.plan.mode);
                        sessions::first_writes_of_qcow(server, folder, load, &size, depth, mode)?
                    }
                };
                series.before.push(before);
                after
            }
            Row::Activate | Row::ActivateLarge => match self.array(server) {
                Some(array) => {
                    let device = if row == Row::Activate { DEVICE } else { LARGE_DEVICE };
                    sessions::activation_of_array(array, device)?
                }
                None => {
                    let size = self.plan.size();
                    let full = (row == Row::Activate).then_some(size.as_str());
                    sessions::activation_of_qcow(server, &self.images()?, load, full)?
                }
            },
        };
        series.values.push(value);
        Ok(())
    }

    fn images(&self) -> Result<PathBuf, String> {
        let folder = self.folder.join("images");
        create(&folder).map(|()| folder)
    }

    fn array(&self, server: Server) -> Option<&Array> {
        self.arrays.iter().find(|(other, _)| *other == server).map(|(_, array)| array)
    }

    fn uri(&self, server: Server) -> Result<String, String> {
        if let Some(array) = self.array(server) {
            return Ok(array.uri(DEVICE));
        }
        let peer = self.peers.iter().find(|(other, _)| *other == server);
        peer.map(|(_, peer)| peer.uri().to_owned())
            .ok_or_else(|| format!("{} was not started", server.name()))
    }
}

impl Plan {
    /// Of a device, as the tools take it.
    pub fn size(&self) -> String {
        format!("{}M", self.bytes >> 20)
    }
}

/// A bar of so many steps on standard error, if somebody sees it there.
pub fn bar(steps: u64, quiet: bool) -> ProgressBar {
    if quiet || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar} {pos}/{len}, {elapsed}, {eta} left, {msg}");
    ProgressBar::new(steps).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
