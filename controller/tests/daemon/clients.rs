//! What clients are promised, and what they may do wrong.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::AsyncWriteExt;
use tokio::sync::watch;
use twintrack_host::{GroupMode, NbdClient, Pair, establish};

use crate::process::Place;

const BLOCK: u64 = 4096;
const MIB: u64 = 1 << 20;

fn block(seed: u64) -> Bytes {
    (0..BLOCK / 8).flat_map(|n| (seed ^ (n << 32)).to_le_bytes()).collect()
}

/// What was flushed is there after `kill -9`, a session too; twice, for the second start comes after a repair.
#[tokio::test]
async fn nothing_flushed_is_lost_by_a_kill() {
    let place = Place::new();
    let mut daemon = place.start().await;
    daemon.array().device_create("db", 64 * MIB, None).await.unwrap();
    for round in 0..3 {
        let db = daemon.device("db").await;
        for n in 0..200 {
            db.write(n * 37 % 1000 * BLOCK, block(round << 16 | n), false).await.unwrap();
        }
        db.flush().await.unwrap();
        let name = format!("db-{round}");
        establish(&daemon.array(), &[Pair::new("db", &name)], GroupMode::Synchronous).await.unwrap();
        // Not flushed: may or may not be there.
        for n in 0..50 {
            db.write((2000 + n) * BLOCK, block(n), false).await.unwrap();
        }
        daemon.kill();
        daemon = place.start().await;
        let (db, copy) = (daemon.device("db").await, daemon.device(&name).await);
        for n in 0..200 {
            for device in [&db, &copy] {
                let read = device.read(n * 37 % 1000 * BLOCK, BLOCK as u32).await.unwrap();
                assert_eq!(read, block(round << 16 | n));
            }
        }
    }
    // The older sessions show older rounds.
    let first = daemon.device("db-0").await;
    assert_eq!(first.read(37 * BLOCK, BLOCK as u32).await.unwrap(), block(1));
}

/// SIGTERM under load: exit code 0, and everything that was answered is there, flushed or not.
#[tokio::test]
async fn terminated_it_keeps_all_that_it_answered() {
    let place = Place::new();
    let daemon = place.start().await;
    daemon.array().device_create("db", 64 * MIB, None).await.unwrap();
    let mut writers = Vec::new();
    for lane in 0..4u64 {
        let db = daemon.device("db").await;
        let (tell, told) = watch::channel(0);
        let writer = tokio::spawn(async move {
            let mut answered = 0;
            while answered < 4000 {
                let at = (lane * 4000 + answered) * BLOCK;
                if db.write(at, block(lane << 32 | answered), false).await.is_err() {
                    break;
                }
                answered += 1;
                tell.send_replace(answered);
            }
            answered
        });
        writers.push((writer, told));
    }
    for (_, told) in &mut writers {
        told.wait_for(|answered| *answered >= 200).await.unwrap();
    }
    assert_eq!(daemon.terminate().await.code(), Some(0), "{}", place.log());
    let daemon = place.start().await;
    let db = daemon.device("db").await;
    for (lane, (writer, _)) in writers.into_iter().enumerate() {
        let lane = lane as u64;
        let answered = writer.await.unwrap();
        for n in 0..answered {
            let read = db.read((lane * 4000 + n) * BLOCK, BLOCK as u32).await.unwrap();
            assert_eq!(read, block(lane << 32 | n), "lane {lane}, write {n} of {answered}");
        }
    }
}

/// D8, D18: sessions established under load show both devices at one instant.
#[tokio::test]
async fn sessions_under_load_are_one_instant() {
    const SLOTS: u64 = 64;
    let place = Place::new();
    let daemon = place.start().await;
    for name in ["a", "b"] {
        daemon.array().device_create(name, 16 * MIB, None).await.unwrap();
    }
    let stop = Arc::new(AtomicBool::new(false));
    let mut writers = Vec::new();
    for lane in 0..4 {
        // In turn to a and b, one after the other: at any instant a prefix has been written.
        let devices = [daemon.device("a").await, daemon.device("b").await];
        let stop = Arc::clone(&stop);
        writers.push(tokio::spawn(async move {
            let mut n = 0;
            while !stop.load(Ordering::Relaxed) {
                n += 1;
                let at = (lane * SLOTS + n / 2 % SLOTS) * BLOCK;
                devices[(n % 2) as usize].write(at, block(n), false).await.unwrap();
            }
            n
        }));
    }
    let mut copies = Vec::new();
    for n in 0..5 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let names = [format!("a-{n}"), format!("b-{n}")];
        let pairs = [Pair::new("a", &names[0]), Pair::new("b", &names[1])];
        establish(&daemon.array(), &pairs, GroupMode::Synchronous).await.unwrap();
        let devices = [daemon.device(&names[0]).await, daemon.device(&names[1]).await];
        let mut seen = Vec::new();
        for lane in 0..4 {
            seen.push(newest(&devices, lane * SLOTS, SLOTS).await);
        }
        copies.push((devices, seen));
    }
    stop.store(true, Ordering::Relaxed);
    let mut last = Vec::new();
    for writer in writers {
        last.push(writer.await.unwrap());
    }
    for (devices, seen) in &copies {
        for lane in 0..4 {
            let again = newest(devices, lane * SLOTS, SLOTS).await;
            assert_eq!(again, seen[lane as usize], "it is stable");
            assert!(again <= last[lane as usize]);
        }
    }
    assert_eq!(daemon.metric("twintrack_sessions{state=\"active\"}").await, 10);
    assert!(daemon.metric("twintrack_host_requests_total{op=\"write\"}").await >= last.iter().sum());
}

/// The number of the lane's last write that is to be seen, when all before it are and none after it is.
async fn newest(devices: &[NbdClient; 2], first: u64, slots: u64) -> u64 {
    let mut found = [Vec::new(), Vec::new()];
    for (device, found) in devices.iter().zip(&mut found) {
        for slot in 0..slots {
            let read = device.read((first + slot) * BLOCK, BLOCK as u32).await.unwrap();
            let n = u64::from_le_bytes(read[..8].try_into().unwrap());
            assert!(n == 0 || read == block(n), "a torn block");
            found.push(n);
        }
    }
    let newest = *found.iter().flatten().max().unwrap();
    for (odd, found) in found.iter().enumerate() {
        for (slot, n) in found.iter().enumerate() {
            // The last write of this parity and slot up to the newest.
            let wanted = (0..=newest).rev().find(|n| n % 2 == odd as u64 && n / 2 % slots == slot as u64);
            assert_eq!(*n, wanted.unwrap_or(0), "slot {slot} of device {odd}, newest {newest}");
        }
    }
    newest
}

/// Garbage, half frames, huge lengths and clients that do not read: others do not notice, and nothing stays behind.
#[tokio::test]
async fn bad_clients_harm_nobody() {
    let place = Place::new();
    let daemon = place.start().await;
    daemon.array().device_create("db", 16 * MIB, None).await.unwrap();
    let db = daemon.device("db").await;
    db.write(0, block(1), true).await.unwrap();

    let mut random = 0x9E37_79B9_7F4A_7C15u64;
    let mut kept = Vec::new();
    for n in 0..200 {
        let mut bytes: Vec<u8> = match n % 4 {
            0 => Vec::new(),
            // The flags of a client, and an option of 4 GiB.
            1 => [&[0, 0, 0, 3][..], b"IHAVEOPT", &[0, 0, 0, 7, 0xFF, 0xFF, 0xFF, 0xFF]].concat(),
            2 => b"POST /v1/command HTTP/1.1\r\nhost: x\r\ncontent-length: 18446744073709551615\r\n\r\n{"
                .to_vec(),
            _ => b"GET /v1/session/1/track/99999999999999999999 HTTP/1.1\r\n".to_vec(),
        };
        for _ in 0..n * 7 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            bytes.push(random as u8);
        }
        let mut socket = daemon.socket(if n % 2 == 0 { "nbd.sock" } else { "control.sock" }).await;
        // It may be closed already.
        let _ = socket.write_all(&bytes).await;
        if n % 3 == 0 {
            kept.push(socket);
        }
    }
    // Asks for much and reads nothing: a handshake, then reads of 4 MiB.
    let mut greedy = daemon.socket("nbd.sock").await;
    let go = [&[0, 0, 0, 3][..], b"IHAVEOPT", &[0, 0, 0, 7, 0, 0, 0, 8, 0, 0, 0, 2], b"db", &[0, 0]].concat();
    greedy.write_all(&go).await.unwrap();
    let mut asked = 0;
    let flood = async {
        for cookie in 0..100_000u64 {
            let magic = 0x2560_9513u32.to_be_bytes();
            let request = [&magic[..], &[0; 4], &cookie.to_be_bytes(), &[0; 8], &(4u32 << 20).to_be_bytes()];
            greedy.write_all(&request.concat()).await.unwrap();
            asked += 1;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(2), flood).await.is_err(), "it is held up");
    assert!(asked > 10);

    db.write(BLOCK, block(2), true).await.unwrap();
    assert_eq!(db.read(0, 2 * BLOCK as u32).await.unwrap(), [block(1), block(2)].concat());
    assert!(resident_mib(daemon.id()) < 300, "{} MiB", resident_mib(daemon.id()));
    assert_eq!(daemon.metric("twintrack_hosts").await, 2);
    drop((greedy, kept));
    assert!(daemon.terminate().await.success(), "{}", place.log());
    assert!(!place.log().contains("panicked"), "{}", place.log());
}

/// Thousands that connect and say nothing, or half of what they should, on both sockets, more than there are places:
/// clients that are attached go on, new ones are let in all the same, and none of it takes memory worth mentioning.
#[tokio::test]
async fn silent_clients_keep_nobody_out() {
    // An array has places for 1024 connections of hosts, and for 256 of callers.
    const EACH: usize = 1500;
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
    let place = Place::new();
    let daemon = place.start().await;
    daemon.array().device_create("db", 16 * MIB, None).await.unwrap();
    let db = daemon.device("db").await;

    let half_an_option = [&[0, 0, 0, 3][..], b"IHAVEOPT", &[0, 0, 0, 7, 0, 0, 0, 8, 0, 0]].concat();
    let half_a_request = b"POST /v1/command HTTP/1.1\r\nhost: x\r\ncontent-length: 4294967295\r\n\r\n{";
    let mut silent = Vec::new();
    for n in 0..EACH {
        for (name, words) in [("nbd.sock", &half_an_option[..]), ("control.sock", &half_a_request[..])] {
            let mut socket = daemon.socket(name).await;
            // Every third says nothing at all, the others stop at some point. It may be closed already.
            let _ = socket.write_all(&words[..words.len() * (n % 3) / 2]).await;
            silent.push(socket);
        }
        if n % 100 == 0 {
            db.write(0, block(n as u64), false).await.unwrap();
            let late = daemon.device("db").await;
            assert_eq!(late.read(0, BLOCK as u32).await.unwrap(), block(n as u64), "after {n}");
            daemon.array().device_list().await.unwrap();
        }
    }
    assert!(resident_mib(daemon.id()) < 200, "{} MiB", resident_mib(daemon.id()));
    assert_eq!(daemon.device("db").await.read(0, BLOCK as u32).await.unwrap(), block(1400));
    drop(silent);
    assert!(daemon.terminate().await.success(), "{}", place.log());
    assert!(!place.log().contains("panicked"), "{}", place.log());
}

/// Lengths of nearly 4 GiB in requests of attached clients, with a part of the payload: they are refused, end that
/// connection, or wait for the rest, and take no memory for what was only announced.
#[tokio::test]
async fn huge_lengths_are_refused() {
    let place = Place::new();
    let daemon = place.start().await;
    daemon.array().device_create("db", 16 << 40, None).await.unwrap();
    let db = daemon.device("db").await;
    let go = [&[0, 0, 0, 3][..], b"IHAVEOPT", &[0, 0, 0, 7, 0, 0, 0, 8, 0, 0, 0, 2], b"db", &[0, 0]].concat();
    let mut kept = Vec::new();
    for n in 0..40u32 {
        let mut socket = daemon.socket("nbd.sock").await;
        socket.write_all(&go).await.unwrap();
        // Read, write, trim, write zeroes; so many bytes; 64 KiB of a payload.
        let kind = [0u16, 1, 4, 6][n as usize % 4];
        let length = [u32::MAX, 0xFFFF_FE00, 64 << 20, 32 << 20][n as usize / 4 % 4];
        let magic = 0x2560_9513u32.to_be_bytes();
        let header =
            [&magic[..], &[0; 2], &kind.to_be_bytes(), &[7; 8], &[0; 8], &length.to_be_bytes()].concat();
        socket.write_all(&header).await.unwrap();
        // It may be closed already.
        let _ = socket.write_all(&vec![7; 64 << 10]).await;
        kept.push(socket);
    }
    // Where none of them, of those that are legal, has an effect.
    db.write(8 << 40, block(3), true).await.unwrap();
    assert_eq!(db.read(8 << 40, BLOCK as u32).await.unwrap(), block(3));
    assert!(resident_mib(daemon.id()) < 600, "{} MiB", resident_mib(daemon.id()));
    drop(kept);
    assert!(daemon.terminate().await.success(), "{}", place.log());
    assert!(!place.log().contains("panicked"), "{}", place.log());
}

fn resident_mib(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}
