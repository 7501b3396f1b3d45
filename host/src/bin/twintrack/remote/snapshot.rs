//! `remote snapshot`: one point in time on both arrays.

use clap::Args;
use twintrack_core::SessionId;
use twintrack_host::manage::RemoteSnapshotInfo;
use twintrack_host::{ArrayError, NewSnapshot};

use super::create::random;
use crate::Context;
use crate::failure::Failure;
use crate::output::Waiting;
use crate::table::{Side, Table};

/// Of which volumes, and what it is called.
#[derive(Debug, Args)]
pub struct SnapshotArgs {
    /// Volumes on this array, which serves them
    #[arg(required = true, value_name = "DEVICE")]
    devices: Vec<String>,
    /// What the snapshot is called: on either array it is shown by DEVICE.NAME
    #[arg(long, value_name = "NAME")]
    name: String,
    /// With all volumes of their consistency groups
    #[arg(long)]
    whole_group: bool,
    /// Keeps hosts off it until it is taken online
    #[arg(long)]
    offline: bool,
    /// The number of a call whose outcome was not known: it is made once at most, and told what became of it
    #[arg(long, value_name = "NUMBER")]
    request: Option<u64>,
}

/// Carries it out.
pub async fn run(context: &Context, args: SnapshotArgs) -> Result<(), Failure> {
    let SnapshotArgs { devices, name, whole_group, offline, request } = args;
    let request = request.map_or_else(random, Ok)?;
    let waiting = Waiting::new(format!("making snapshots of {} on both arrays", devices.join(", ")));
    let made =
        context.array.remote_snapshot(&NewSnapshot { request, devices, whole_group, name, offline }).await;
    drop(waiting);
    let made = made.map_err(|cause: ArrayError| {
        if cause.is_outcome_unknown() { Failure::Create { cause, request } } else { cause.into() }
    })?;
    context.output.show(&made, || table(&made).to_string())
}

/// Both halves of each volume's.
fn table(made: &[RemoteSnapshotInfo]) -> Table<7> {
    let columns = ["DEVICE", "SESSION", "VIRTUAL", "OTHER ARRAY", "SESSION", "VIRTUAL", "SHOWN THERE"];
    let mut table = Table::new(columns.map(|name| (name, Side::Left)));
    let none = || "-".to_owned();
    for RemoteSnapshotInfo { here, peer, there, virtual_device_there, shown_there } in made {
        table.row([
            here.standard.clone(),
            SessionId(here.id).to_string(),
            here.virtual_device.clone().unwrap_or_else(none),
            peer.clone(),
            there.map_or_else(none, |session| SessionId(session).to_string()),
            virtual_device_there.clone(),
            if *shown_there { "yes" } else { "at the next contact" }.to_owned(),
        ]);
    }
    table
}
