//! The headers beside the tracks (crash rule 6) when a store does not take them: the next round that ends well has
//! written them all.

mod rig;

use std::collections::BTreeMap;

use rig::{Rig, geometry};
use twintrack_controller::firmware::{DiskError, Effect, Event, HostError, HostOp, Reply};
use twintrack_core::BLOCK_BYTES;
use twintrack_core::layout::{Header, StoreLayout};

const TRACKS: u32 = 64;
const TRACK: u64 = 16 << 10;
const SERIAL: u64 = 0x1234;

/// What the headers on the store say: by track of the device, the blocks that are valid.
fn on_store(rig: &Rig) -> BTreeMap<u32, String> {
    let layout = StoreLayout::with_tracks(geometry(), TRACKS);
    let header = |index| {
        let at = layout.header_offset(index) as usize;
        Header::decode(&rig.disk[at..at + layout.header_bytes() as usize], geometry(), SERIAL).ok()
    };
    (0..TRACKS).filter_map(header).map(|header| (header.track.0, header.mask.to_string())).collect()
}

fn is_header(effect: &Effect) -> bool {
    let first = StoreLayout::with_tracks(geometry(), TRACKS).track_offset(0);
    matches!(effect, Effect::Write { offset, .. } if *offset < first)
}

/// A flush whose header writes fail, each after it has destroyed what was there.
fn flush_that_fails(rig: &mut Rig) {
    let tag = rig.host(1, HostOp::Flush);
    while let Some(effect) = rig.pending.pop_front() {
        match effect {
            Effect::Write { io, offset, .. } if is_header(&effect) => {
                rig.disk[offset as usize..][..BLOCK_BYTES as usize].fill(0xEE);
                rig.step(Event::Disk { io, result: Err(DiskError::Failed) });
            }
            other => rig.carry_out_this(other),
        }
    }
    assert_eq!(rig.replies.remove(&tag), Some(Err(HostError::Io)));
}

fn flush(rig: &mut Rig) {
    assert_eq!(rig.do_host(1, HostOp::Flush), Ok(Reply::Done));
}

fn write(rig: &mut Rig, offset: u64) {
    let op = HostOp::Write { offset, data: vec![1; BLOCK_BYTES as usize].into(), fua: false };
    assert_eq!(rig.do_host(1, op), Ok(Reply::Done));
}

/// The store of an array that had no failure.
fn without_failure(writes: &[u64]) -> BTreeMap<u32, String> {
    let mut rig = Rig::with_device(TRACKS, 8 * TRACK);
    for offset in writes {
        write(&mut rig, *offset);
        flush(&mut rig);
    }
    on_store(&rig)
}

/// A flush during which header blocks cannot be read, nor written if so wished: how it ends.
fn flush_unread(rig: &mut Rig, writes_fail: bool) -> Result<Reply, HostError> {
    let tag = rig.host(1, HostOp::Flush);
    let first = StoreLayout::with_tracks(geometry(), TRACKS).track_offset(0);
    while let Some(effect) = rig.pending.pop_front() {
        match effect {
            Effect::Read { io, offset, .. } if offset < first => {
                rig.step(Event::Disk { io, result: Err(DiskError::Failed) });
            }
            Effect::Write { io, .. } if writes_fail && is_header(&effect) => {
                rig.step(Event::Disk { io, result: Err(DiskError::Failed) });
            }
            other => rig.carry_out_this(other),
        }
    }
    rig.replies.remove(&tag).unwrap()
}

/// An array with two headers on the store, which it has not read since its restart, and a third noted.
fn restarted() -> Rig {
    let mut rig = Rig::with_device(TRACKS, 8 * TRACK);
    write(&mut rig, 0);
    write(&mut rig, TRACK);
    flush(&mut rig);
    rig.restart();
    rig.attach(1, "d");
    write(&mut rig, 2 * TRACK);
    rig
}

/// A read that fails once costs a flush, and no header.
#[test]
fn a_block_that_cannot_be_read_once_is_not_lost() {
    let mut rig = restarted();
    assert_eq!(flush_unread(&mut rig, false), Err(HostError::Io));
    flush(&mut rig);
    assert_eq!(on_store(&rig), without_failure(&[0, TRACK, 2 * TRACK]));
    assert_eq!(rig.firmware.tables().used_tracks(), 3);
}

/// A disk that is away for a while, however many rounds find it so, costs no header either.
#[test]
fn a_disk_that_is_away_loses_no_header() {
    let mut rig = restarted();
    for _ in 0..4 {
        assert_eq!(flush_unread(&mut rig, true), Err(HostError::Io));
    }
    write(&mut rig, 3 * TRACK);
    flush(&mut rig);
    assert_eq!(on_store(&rig), without_failure(&[0, TRACK, 2 * TRACK, 3 * TRACK]));
}

/// A sector that has decayed is written anew: flushes go on.
#[test]
fn a_decayed_block_is_begun_anew() {
    let mut rig = restarted();
    assert_eq!(flush_unread(&mut rig, false), Err(HostError::Io));
    assert_eq!(flush_unread(&mut rig, false), Ok(Reply::Done));
    assert_eq!(on_store(&rig).into_keys().collect::<Vec<_>>(), [2]);
    write(&mut rig, 3 * TRACK);
    flush(&mut rig);
    assert_eq!(on_store(&rig).into_keys().collect::<Vec<_>>(), [2, 3]);
}

/// A flush with nothing new writes what the one before could not.
#[test]
fn a_header_that_could_not_be_written_is_written_by_the_next_round() {
    let mut rig = Rig::with_device(TRACKS, 8 * TRACK);
    write(&mut rig, 0);
    flush_that_fails(&mut rig);
    assert!(on_store(&rig).is_empty());
    flush_that_fails(&mut rig);
    flush(&mut rig);
    assert_eq!(on_store(&rig), without_failure(&[0]));
    // Once is enough.
    rig.host(1, HostOp::Flush);
    while let Some(effect) = rig.pending.pop_front() {
        assert!(!is_header(&effect), "{effect:?}");
        rig.carry_out_this(effect);
    }
}

/// What is noted in between is not undone.
#[test]
fn what_was_noted_since_is_written_too() {
    let mut rig = Rig::with_device(TRACKS, 8 * TRACK);
    write(&mut rig, 0);
    flush_that_fails(&mut rig);
    write(&mut rig, 4096);
    write(&mut rig, TRACK);
    flush(&mut rig);
    assert_eq!(on_store(&rig), without_failure(&[0, 4096, TRACK]));
}

/// The headers that share its block, and were durable before, are there again.
#[test]
fn the_neighbours_of_a_header_are_kept() {
    let mut rig = Rig::with_device(TRACKS, 8 * TRACK);
    write(&mut rig, 0);
    write(&mut rig, TRACK);
    flush(&mut rig);
    write(&mut rig, 2 * TRACK);
    flush_that_fails(&mut rig);
    assert!(on_store(&rig).is_empty(), "they share it");
    flush(&mut rig);
    assert_eq!(on_store(&rig), without_failure(&[0, TRACK, 2 * TRACK]));
    assert_eq!(on_store(&rig).len(), 3);
}
