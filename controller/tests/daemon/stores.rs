//! Stores of every kind, through the page cache and past it.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use bytes::Bytes;

use crate::process::{Daemon, Place, said};

const MIB: u64 = 1 << 20;
const IO: [&str; 2] = ["page-cache", "direct"];

fn settings(path: &Path, io: &str) -> String {
    let store = format!("[[pool.store]]\npath = {path:?}\nsize = \"64 MiB\"\n");
    format!("[[pool]]\nname = \"main\"\nio = \"{io}\"\n{store}")
}

/// What a host wrote at `place`, in which round.
fn content(place: u64, round: u64) -> Bytes {
    (0..512 / 8).flat_map(|n| (place << 32 | round << 16 | n).to_le_bytes()).collect()
}

/// Sectors side by side, many at a time, so that several lie in one unit of the disk; every other one is flushed by itself.
async fn write_sectors(daemon: &Daemon, round: u64) {
    let db = daemon.device("db").await;
    let writes = (0..256u64).map(|n| {
        let db = db.clone();
        tokio::spawn(async move { db.write(n * 512, content(n, round), n % 2 == 0).await })
    });
    for write in writes.collect::<Vec<_>>() {
        write.await.unwrap().unwrap();
    }
    let whole: Vec<u8> = (1000..3048).flat_map(|n| content(n, round)).collect();
    db.write(8 * MIB + 512, whole.into(), false).await.unwrap();
    db.flush().await.unwrap();
}

async fn check_sectors(daemon: &Daemon, round: u64) {
    let db = daemon.device("db").await;
    for n in 0..256 {
        assert!(db.read(n * 512, 512).await.unwrap() == content(n, round), "sector {n}, round {round}");
    }
    let whole: Vec<u8> = (1000..3048).flat_map(|n| content(n, round)).collect();
    assert!(db.read(8 * MIB + 512, 2048 * 512).await.unwrap() == whole);
}

/// Written in one mode, killed, read and written in the other: what was flushed is there.
async fn both_ways(place: &Place, store: &Path) {
    for round in 0..4 {
        place.set(&settings(store, IO[round as usize % 2]));
        let daemon = place.start().await;
        match round {
            0 => drop(daemon.array().device_create("db", 16 * MIB, None).await.unwrap()),
            _ => check_sectors(&daemon, round - 1).await,
        }
        write_sectors(&daemon, round).await;
        check_sectors(&daemon, round).await;
        daemon.kill();
    }
    let output = place.run(&["--check"]);
    assert!(String::from_utf8_lossy(&output.stdout).contains("direct I/O"), "{}", said(&output));
}

#[tokio::test]
async fn a_file_is_used_through_the_page_cache_and_past_it() {
    let place = Place::new();
    place.set(&settings(Path::new("store"), "direct"));
    // It may be on a file system without direct I/O: then the message says what to do, and that works.
    let output = place.run(&["--check"]);
    assert!(output.status.success(), "{}", said(&output));
    both_ways(&place, Path::new("store")).await;
}

#[test]
fn a_mode_that_does_not_exist_is_refused() {
    let place = Place::new();
    place.set(&settings(Path::new("store"), "fast"));
    let text = said(&place.run(&[]));
    assert!(text.contains("line 3") && text.contains("`page-cache` or `direct`"), "{text}");
}

/// A loop device over a file; detached when it is dropped.
struct Loop(String);

impl Loop {
    /// With sectors of so many bytes; `None`, with a word: there is none to be had.
    fn new(file: &Path, sector_bytes: u32) -> Option<Self> {
        File::create(file).unwrap().set_len(64 * MIB).unwrap();
        let sector = sector_bytes.to_string();
        let arguments = ["--find", "--show", "--sector-size", &sector];
        match Command::new("losetup").args(arguments).arg(file).output() {
            Ok(output) if output.status.success() => {
                Some(Self(String::from_utf8(output.stdout).unwrap().trim().to_owned()))
            }
            Ok(output) => {
                eprintln!("skipped: no loop device (root?): {}", said(&output));
                None
            }
            Err(error) => {
                eprintln!("skipped: no loop device: losetup: {error}");
                None
            }
        }
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").args(["--detach", &self.0]).status();
    }
}

#[tokio::test]
async fn a_block_device_is_a_store_of_one_array() {
    for sector_bytes in [512, 4096] {
        let disks = tempfile::tempdir().unwrap();
        let Some(device) = Loop::new(&disks.path().join("disk"), sector_bytes) else { return };
        let place = Place::new();
        both_ways(&place, Path::new(&device.0)).await;

        let daemon = place.start().await;
        let pools = daemon.array().pool_list().await.unwrap();
        assert!((62 * MIB..64 * MIB).contains(&pools[0].size_bytes), "it has its own size: {pools:?}");
        let other = Place::new();
        for io in IO {
            other.set(&settings(Path::new(&device.0), io));
            let text = said(&other.run(&[]));
            assert!(text.contains("belongs to array"), "{text}");
        }
        // And nobody else who asks for it gets it.
        let output = Command::new("mkfs.ext4").arg(&device.0).output();
        if let Ok(output) = output {
            assert!(!output.status.success(), "it was formatted under the daemon");
        }
        assert!(daemon.terminate().await.success());

        // One that is in use is refused, in words.
        let holder = fs::OpenOptions::new().read(true).open(&device.0).unwrap();
        holder.lock().unwrap();
        let text = said(&place.run(&[]));
        assert!(text.contains("another process has it open as a store"), "{text}");
    }
}
