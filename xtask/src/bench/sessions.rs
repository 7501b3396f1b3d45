//! Snapshots: what they cost the writes that follow, and how long they take.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::load::Load;
use super::scratch::settle;
use super::servers::{Array, Mode, Peer, Server};
use super::tools::run;
use crate::campaign::Clock;

/// The least that a measurement is run on.
const LARGE: &str = "1T";

/// Who takes snapshots.
pub const SERVERS: [Server; 4] =
    [Server::Twintrack, Server::TwintrackAgain, Server::QcowInternal, Server::QcowExternal];

/// Writes to each track of a device that is fully written, without a snapshot and after one: operations a second.
/// The device is made for it, and goes.
pub fn first_writes_of_array(
    array: &Array,
    load: &Load,
    size: &str,
    depth: u32,
) -> Result<(f64, f64), String> {
    array.tell(&["device", "create", "fresh", size])?;
    let uri = array.uri("fresh");
    load.copy_in(&uri)?;
    settle(array.folder())?;
    let before = load.visit(&uri, depth)?;
    settle(array.folder())?;
    let session = activate(array, "fresh")?;
    let after = load.visit(&uri, depth)?;
    array.tell(&["session", "remove", &session.number])?;
    array.tell(&["device", "delete", "fresh"])?;
    array.tell(&["device", "delete", VIEW])?;
    Ok((before, after))
}

/// The same with qcow2. Its server is stopped for the snapshot, and has its tables in memory again before the writes.
pub fn first_writes_of_qcow(
    server: Server,
    folder: &Path,
    load: &Load,
    size: &str,
    depth: u32,
    mode: Mode,
) -> Result<(f64, f64), String> {
    let image = create_image(folder, size)?;
    let before = {
        let peer = Peer::qemu(folder, "qcow2", &image, mode)?;
        load.copy_in(peer.uri())?;
        settle(folder)?;
        load.visit(peer.uri(), depth)?
    };
    settle(folder)?;
    let shown = take_snapshot(server, folder, &image)?.0;
    let after = {
        let peer = Peer::qemu(folder, "qcow2", &shown, mode)?;
        load.copy_out(peer.uri())?;
        load.visit(peer.uri(), depth)?
    };
    remove_images(folder)?;
    Ok((before, after))
}

/// How long activating a session takes, in ms, the command's own start and end included.
pub fn activation_of_array(array: &Array, device: &str) -> Result<f64, String> {
    let session = activate(array, device)?;
    array.tell(&["session", "remove", &session.number])?;
    array.tell(&["device", "delete", VIEW])?;
    Ok(session.took_ms)
}

/// How long `qemu-img` takes for a snapshot of an image, in ms, its own start and end included.
pub fn activation_of_qcow(
    server: Server,
    folder: &Path,
    load: &Load,
    size: Option<&str>,
) -> Result<f64, String> {
    let image = create_image(folder, size.unwrap_or(LARGE))?;
    if size.is_some() {
        load.copy_in(Peer::qemu(folder, "qcow2", &image, Mode::PageCache)?.uri())?;
        settle(folder)?;
    }
    let (_, took_ms) = take_snapshot(server, folder, &image)?;
    remove_images(folder)?;
    Ok(took_ms)
}

/// The device whose activation is measured without anything in it.
pub const LARGE_DEVICE: &str = "large";

/// Makes it.
pub fn create_large(array: &Array) -> Result<(), String> {
    array.tell(&["device", "create", LARGE_DEVICE, LARGE]).map(drop)
}

const VIEW: &str = "view";

struct Activated {
    number: String,
    took_ms: f64,
}

fn activate(array: &Array, device: &str) -> Result<Activated, String> {
    array.tell(&["device", "create", VIEW, "--virtual"])?;
    let number = array.tell(&["session", "register", device])?;
    array.tell(&["session", "relate", &number, VIEW])?;
    let clock = Clock::start();
    array.tell(&["session", "activate", &number])?;
    Ok(Activated { number, took_ms: clock.elapsed().as_secs_f64() * 1000.0 })
}

fn create_image(folder: &Path, size: &str) -> Result<PathBuf, String> {
    let image = folder.join("image");
    let mut create = Command::new("qemu-img");
    create.args(["create", "-q", "-f", "qcow2", "-o", "cluster_size=64k"]).arg(&image).arg(size);
    run(&mut create)?;
    Ok(image)
}

/// Returns the image that is written from now on, and how long it took in ms.
fn take_snapshot(server: Server, folder: &Path, image: &Path) -> Result<(PathBuf, f64), String> {
    let mut command = Command::new("qemu-img");
    let shown = if server == Server::QcowInternal {
        command.args(["snapshot", "-c", "first"]).arg(image);
        image.to_path_buf()
    } else {
        let over = folder.join("over");
        command.args(["create", "-q", "-f", "qcow2", "-o", "cluster_size=64k", "-F", "qcow2", "-b"]);
        command.arg(image).arg(&over);
        over
    };
    let clock = Clock::start();
    run(&mut command)?;
    Ok((shown, clock.elapsed().as_secs_f64() * 1000.0))
}

fn remove_images(folder: &Path) -> Result<(), String> {
    for name in ["image", "over"] {
        match fs::remove_file(folder.join(name)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(format!("{name}: {error}"));
            }
            _ => {}
        }
    }
    Ok(())
}
