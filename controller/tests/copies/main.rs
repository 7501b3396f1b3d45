//! Copies within the array through a firmware: pairs (C1 to C7, C10, C13), restores (D8 to D14), and what stops them.

mod clock;
mod pairs;
mod pools;
mod restores;
#[path = "../rig/mod.rs"]
mod rig;

use rig::Rig;
use twintrack_controller::firmware::Event;
use twintrack_link::manage::{
    Answer, Command, DeviceInfo, PairInfo, PairPace, Refusal, Restore, SessionInfo,
};

const TRACK: u64 = 16 << 10;
const TRACKS: u64 = 4;

fn create(rig: &mut Rig, name: &str, conn: u64) {
    rig.command(Command::DeviceCreate { name: name.into(), size_bytes: TRACKS * TRACK, pool: None }).unwrap();
    rig.attach(conn, name);
}

/// A volume "d" as connection 1, and "e" as connection 2.
fn two() -> Rig {
    let mut rig = Rig::with_device(64, TRACKS * TRACK);
    create(&mut rig, "e", 2);
    rig
}

fn pair(rig: &mut Rig, command: Command) -> Result<PairInfo, Refusal> {
    rig.command(command).map(|answer| match answer {
        Answer::Pair(info) => *info,
        other => panic!("{other:?}"),
    })
}

fn names() -> (String, String) {
    ("d".into(), "e".into())
}

fn pair_create(rig: &mut Rig) -> PairInfo {
    let (primary, secondary) = names();
    pair(rig, Command::PairCreate { primary, secondary: Some(secondary), pace: PairPace::Medium }).unwrap()
}

fn pair_copy(rig: &mut Rig) -> Result<PairInfo, Refusal> {
    let (primary, secondary) = names();
    pair(rig, Command::PairCopy { primary, secondary, pace: None })
}

fn pair_resync(rig: &mut Rig) -> Result<PairInfo, Refusal> {
    let (primary, secondary) = names();
    pair(rig, Command::PairResync { primary, secondary, pace: None })
}

fn pair_restore(rig: &mut Rig, discard_before: bool) -> Result<PairInfo, Refusal> {
    let (primary, secondary) = names();
    pair(rig, Command::PairRestore { primary, secondary, discard_before, pace: None })
}

fn pair_show(rig: &mut Rig) -> PairInfo {
    let (primary, secondary) = names();
    pair(rig, Command::PairShow { primary, secondary }).unwrap()
}

fn copies_of(rig: &mut Rig, name: &str) -> Vec<u32> {
    match rig.command(Command::DeviceShow { name: name.into() }).unwrap() {
        Answer::Device(info) => info.copies,
        other => panic!("{other:?}"),
    }
}

fn restore(rig: &mut Rig, restores: Vec<Restore>) -> Result<Vec<DeviceInfo>, Refusal> {
    rig.command(Command::SessionRestore { restores }).map(|answer| match answer {
        Answer::Devices(devices) => devices,
        other => panic!("{other:?}"),
    })
}

fn back(session: u32, to: Option<&str>) -> Restore {
    let to = to.map(str::to_owned);
    Restore { session, to, keep: false, discard_before: false, name: None, offline: false, pace: None }
}

fn sessions(rig: &mut Rig) -> Vec<SessionInfo> {
    match rig.command(Command::SessionList { standard: None }).unwrap() {
        Answer::Sessions(infos) => infos,
        other => panic!("{other:?}"),
    }
}

/// Writes a whole track.
fn write(rig: &mut Rig, conn: u64, track: u64, fill: u8) {
    rig.write(conn, track * TRACK, TRACK as usize, fill);
    rig.settle();
}

/// The first byte of each track.
fn content(rig: &mut Rig, conn: u64) -> Vec<u8> {
    (0..TRACKS).map(|track| rig.read(conn, track * TRACK, 512).unwrap()[0]).collect()
}

/// The first byte of a track.
fn first(rig: &mut Rig, conn: u64, track: u64) -> u8 {
    rig.read(conn, track * TRACK, 512).unwrap()[0]
}

/// "d" in the first pool, written whole, and "e" in the second, paired.
fn two_pools(tracks: u64, second: u32, pace: PairPace) -> Rig {
    let mut rig = Rig::with_second_pool(200, second);
    for (name, pool, conn) in [("d", "p", 1), ("e", "q", 2)] {
        let (name, pool, size_bytes) = (name.to_owned(), Some(pool.to_owned()), tracks * TRACK);
        rig.command(Command::DeviceCreate { name: name.clone(), size_bytes, pool }).unwrap();
        rig.attach(conn, &name);
    }
    (0..tracks).for_each(|track| write(&mut rig, 1, track, 10 + track as u8));
    let (primary, secondary) = names();
    pair(&mut rig, Command::PairCreate { primary, secondary: Some(secondary), pace }).unwrap();
    rig
}

/// A timer that is due, or one effect, or else the next timer.
fn go_on(rig: &mut Rig) -> bool {
    let next = rig.firmware.next_deadline();
    if next.is_none_or(|at| at > rig.now) && rig.carry_out() {
        return true;
    }
    let Some(at) = next else { return false };
    rig.now = rig.now.max(at);
    rig.step(Event::Timer);
    true
}
