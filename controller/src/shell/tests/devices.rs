//! With devices and hosts.

use bytes::Bytes;
use twintrack_host::{ArrayError, NbdError, Pair, establish, manage};
use twintrack_link::nbd::{Cookie, Errno, Request};

use super::*;
use crate::shell::testing::METADATA;

const MIB: u64 = 1 << 20;

fn fill(byte: u8, length: usize) -> Bytes {
    Bytes::from(vec![byte; length])
}

fn errno<T: std::fmt::Debug>(result: Result<T, NbdError>) -> Errno {
    match result.unwrap_err() {
        NbdError::Remote { errno, .. } => errno,
        other => panic!("{other}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_device_keeps_what_is_written() {
    let shelf = shelf();
    let array = start(&shelf).await;
    array.array().device_create("db", 4 * MIB, None).await.unwrap();
    let db = array.attach("db").await;
    assert_eq!(db.info().size_bytes, 4 * MIB);
    assert_eq!(db.read(0, 4 << 20).await.unwrap(), fill(0, 4 << 20));
    db.write(65536 - 512, fill(1, 1024), false).await.unwrap();
    db.write(MIB, fill(2, 1 << 20), true).await.unwrap();
    db.write_zeroes(MIB + 4096, 4096, false, false).await.unwrap();
    db.trim(MIB + 65536, 65536, false).await.unwrap();
    db.flush().await.unwrap();
    let mut want = vec![0; 4 << 20];
    want[65536 - 512..65536 + 512].fill(1);
    want[1 << 20..2 << 20].fill(2);
    want[(1 << 20) + 4096..(1 << 20) + 8192].fill(0);
    want[(1 << 20) + 65536..(1 << 20) + 2 * 65536].fill(0);
    let allocated = |extents: &[twintrack_link::nbd::StatusExtent]| {
        extents.iter().filter(|e| !e.is_hole()).map(|e| u64::from(e.length)).sum::<u64>()
    };
    let extents = db.block_status(0, 4 << 20).await.unwrap();
    assert!(allocated(&extents) >= 15 * 65536 && allocated(&extents) <= 17 * 65536, "{extents:?}");
    assert_eq!(db.read(0, 4 << 20).await.unwrap(), want);

    let plain = NbdOptions { structured: false, block_status: false, ..NbdOptions::default() };
    let other = NbdClient::connect(array.net.connect(&endpoint("nbd")), "db", &plain).await.unwrap();
    assert_eq!(other.read(512, (4 << 20) - 512).await.unwrap(), want[512..]);
    drop((db, other));
    array.stop().await.unwrap();

    let array = start(&shelf).await;
    assert_eq!(array.attach("db").await.read(0, 4 << 20).await.unwrap(), want);
    array.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_the_device_cannot_do_gets_its_error() {
    let array = start(&shelf()).await;
    array.array().device_create("db", 4 * MIB, None).await.unwrap();
    let db = array.attach("db").await;
    assert_eq!(errno(db.read(4 * MIB, 512).await), Errno::Invalid);
    assert_eq!(errno(db.write(4 * MIB - 512, fill(1, 1024), false).await), Errno::NoSpace);
    assert_eq!(errno(db.read(1, 512).await), Errno::Invalid);
    assert_eq!(errno(db.trim(4 * MIB, 512, false).await), Errno::Invalid);
    let gone = NbdClient::connect(array.net.connect(&endpoint("nbd")), "none", &NbdOptions::default()).await;
    assert!(gone.is_err());
    array.array().device_online("db", false).await.unwrap();
    assert_eq!(errno(db.read(0, 512).await), Errno::Shutdown);
    array.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_virtual_device_shows_its_instant() {
    let shelf = shelf();
    let array = start(&shelf).await;
    array.array().device_create("db", MIB, None).await.unwrap();
    let db = array.attach("db").await;
    db.write(0, fill(1, 1 << 20), false).await.unwrap();
    let pairs = [Pair::new("db", "monday")];
    let sessions = establish(&array.array(), &pairs, manage::GroupMode::Synchronous).await.unwrap();
    db.write(65536, fill(2, 4096), false).await.unwrap();
    let monday = array.attach("monday").await;
    assert_eq!(monday.read(0, 1 << 20).await.unwrap(), fill(1, 1 << 20));
    assert_eq!(db.read(65536, 8192).await.unwrap(), [vec![2; 4096], vec![1; 4096]].concat());
    let session = sessions[0].id;
    array.array().session_deactivate(session).await.unwrap();
    assert_eq!(array.array().session_changed(session, 0).await.unwrap().tracks, [1]);
    assert_eq!(array.array().session_track(session, 1).await.unwrap(), fill(1, 65536));
    assert!(array.array().session_track(session, 2).await.is_err());
    assert_eq!(errno(monday.read(0, 512).await), Errno::Shutdown);
    array.stop().await.unwrap();
}

/// One call reads many tracks (D15): in the order asked for, or none of them.
#[tokio::test(start_paused = true)]
async fn saved_tracks_are_read_in_one_call() {
    const TRACK: usize = 65536;
    let array = start(&shelf()).await;
    let size = 64 * TRACK as u64 + 512;
    array.array().device_create("db", size, None).await.unwrap();
    let db = array.attach("db").await;
    for track in 0..65 {
        let length = (size - track * TRACK as u64).min(TRACK as u64) as usize;
        db.write(track * TRACK as u64, fill(1 + track as u8, length), false).await.unwrap();
    }
    let pairs = [Pair::new("db", "monday")];
    let session = establish(&array.array(), &pairs, manage::GroupMode::Synchronous).await.unwrap()[0].id;
    let read = async |list: &str| {
        let mut reader = array.array().session_tracks(session, &list.parse().unwrap()).await?;
        let mut all = Vec::new();
        while let Some(bytes) = reader.next().await? {
            all.extend_from_slice(&bytes);
        }
        Ok::<_, ArrayError>(all)
    };
    let code = |told: Result<Vec<u8>, ArrayError>| match told {
        Err(ArrayError::Refused(refusal)) => (refusal.code, refusal.reason),
        told => panic!("{told:?}"),
    };
    let whole = async |track: u64| db.write(track * TRACK as u64, fill(0, 512), false).await.unwrap();
    for track in (0..32).chain([40, 64]) {
        whole(track).await;
    }
    assert_eq!(code(read("0").await).0, RefusalCode::WrongState);
    array.array().session_deactivate(session).await.unwrap();

    let filled = |track: u8, length: usize| vec![1 + track; length];
    assert_eq!(read("40").await.unwrap(), filled(40, TRACK));
    let expected =
        [filled(64, 512), filled(3, TRACK), filled(4, TRACK), filled(40, TRACK), filled(3, TRACK)].concat();
    assert!(read("64,3-4,40,3").await.unwrap() == expected);
    let expected: Vec<u8> = (0..32).flat_map(|track| filled(track, TRACK)).collect();
    assert!(read("0-31").await.unwrap() == expected);

    let (found, reason) = code(read("0-33,40,50,64-70").await);
    assert_eq!(found, RefusalCode::NotFound);
    assert!(
        reason.ends_with(
            "no changed tracks t32, t33, t50, t65, t66, t67, t68, t69 and others: ask which tracks changed"
        ),
        "{reason}"
    );
    assert_eq!(code(read("0-4294967295").await).0, RefusalCode::NotFound);
    array.stop().await.unwrap();
}

/// Crash rules 1 to 4, seen from a host: what was flushed, and what a command has answered, is there after a cut.
#[tokio::test(start_paused = true)]
async fn what_was_flushed_survives_a_power_cut() {
    for operations in 0..60 {
        let shelf = shelf();
        let array = start(&shelf).await;
        array.array().device_create("db", MIB, None).await.unwrap();
        let db = array.attach("db").await;
        db.write(0, fill(1, 128 << 10), false).await.unwrap();
        db.flush().await.unwrap();
        shelf.cut_power_after(operations, u64::from(operations));
        // Fails or not, as the cut will have it.
        let _ = db.write(0, fill(2, 65536), false).await;
        let flushed = db.flush().await.is_ok();
        array.kill().await;
        shelf.restore_power();

        let array = start(&shelf).await;
        let data = array.attach("db").await.read(0, 128 << 10).await.unwrap();
        assert_eq!(data[65536..], fill(1, 65536), "cut after {operations}");
        let first = &data[..65536];
        assert!(first.iter().all(|byte| *byte == 2 || *byte == 1 && !flushed), "cut after {operations}");
        array.stop().await.unwrap();
    }
}

/// Crash rule 9: a failed commit is answered by nothing; all connections end, and the array comes back by itself.
#[tokio::test(start_paused = true)]
async fn a_failed_commit_reloads() {
    let shelf = shelf();
    let array = start(&shelf).await;
    array.array().device_create("db", MIB, None).await.unwrap();
    let db = array.attach("db").await;
    db.write(0, fill(1, 4096), true).await.unwrap();
    shelf.fail_syncs(METADATA, true);
    db.write(65536, fill(2, 4096), false).await.unwrap();
    let flush = tokio::spawn(async move { db.flush().await });
    let error = array.array().device_create("more", MIB, None).await.unwrap_err();
    assert!(error.is_outcome_unknown(), "{error}");
    let error = flush.await.unwrap().unwrap_err();
    assert!(matches!(error, NbdError::OutcomeUnknown { .. }), "{error}");
    // It cannot be opened either, so the array gives up; a restart finds all that was durable.
    assert!(matches!(array.served.await.unwrap(), Err(ServeError::Metadata(_))));
    shelf.fail_syncs(METADATA, false);
    let array = start(&shelf).await;
    let db = array.attach("db").await;
    assert_eq!(db.read(0, 4096).await.unwrap(), fill(1, 4096));
    array.stop().await.unwrap();
}

/// As before, but the trouble is over when the metadata are opened anew.
#[tokio::test(start_paused = true)]
async fn after_a_reload_it_serves_on_the_same_sockets() {
    let shelf = shelf();
    let array = start(&shelf).await;
    array.array().device_create("db", MIB, None).await.unwrap();
    let db = array.attach("db").await;
    db.write(0, fill(1, 4096), true).await.unwrap();
    shelf.fail_one_sync(METADATA);
    let error = db.write(65536, fill(2, 4096), true).await.unwrap_err();
    assert!(matches!(error, NbdError::OutcomeUnknown { .. }), "{error}");
    let db = array.attach("db").await;
    assert_eq!(db.read(0, 4096).await.unwrap(), fill(1, 4096));
    db.write(65536, fill(3, 4096), true).await.unwrap();
    assert_eq!(db.read(65536, 4096).await.unwrap(), fill(3, 4096));
    array.stop().await.unwrap();
}

/// Crash rule 9: a store whose sync failed is not asked again, not even after a reload.
#[tokio::test(start_paused = true)]
async fn a_store_whose_sync_failed_stays_offline() {
    let shelf = shelf();
    let array = start(&shelf).await;
    array.array().device_create("db", MIB, None).await.unwrap();
    let db = array.attach("db").await;
    db.write(0, fill(1, 4096), false).await.unwrap();
    shelf.fail_syncs("a", true);
    assert_eq!(errno(db.flush().await), Errno::Io);
    shelf.fail_syncs("a", false);
    assert_eq!(errno(db.flush().await), Errno::Io);
    assert_eq!(errno(db.read(0, 4096).await), Errno::Io);
    assert!(matches!(array.stop().await, Err(ServeError::UncleanEnd)));
}

/// A client that asks and does not read its answers is held up, and after a minute cut off; the others go on.
#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_harms_nobody() {
    let array = start(&shelf()).await;
    array.array().device_create("db", 4 * MIB, None).await.unwrap();
    let db = array.attach("db").await;
    db.write(0, fill(7, 4 << 20), false).await.unwrap();

    let mut greedy = array.net.connect(&endpoint("nbd"));
    let (mut input, mut output) = (BytesMut::new(), BytesMut::new());
    let wish = ClientWish::Enter { export: "db".into(), structured: true, contexts: Vec::new() };
    let mut client = ClientHandshake::new(wish);
    while client.feed(&mut input, &mut output).unwrap().is_none() {
        greedy.write_all_buf(&mut output).await.unwrap();
        greedy.read_buf(&mut input).await.unwrap();
    }
    let started = tokio::time::Instant::now();
    let request =
        Request::Read { offset: 0, length: 4 << 20, dont_fragment: false }.header(Cookie(1)).encode();
    let asking = async {
        let mut asked = 0;
        while greedy.write_all(&request).await.is_ok() {
            asked += 1;
        }
        asked
    };
    let reading = async {
        for _ in 0..100 {
            assert_eq!(db.read(MIB, 4096).await.unwrap(), fill(7, 4096));
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        started.elapsed()
    };
    let (asked, read_for) = tokio::join!(asking, reading);
    assert_eq!(started.elapsed().as_secs(), 60);
    assert!(read_for < Duration::from_secs(1), "{read_for:?}");
    assert!(asked < 64 * 1024 / 28 * 3, "{asked} requests were taken from the socket");
    assert_eq!(db.read(MIB, 4096).await.unwrap(), fill(7, 4096));
    array.stop().await.unwrap();
}

/// What a client had asked for is carried out when it is gone.
#[tokio::test(start_paused = true)]
async fn a_client_that_is_gone_holds_up_nothing() {
    let array = start(&shelf()).await;
    array.array().device_create("db", MIB, None).await.unwrap();
    for round in 1..20u8 {
        let db = array.attach("db").await;
        let writes: Vec<_> = (0..16u64)
            .map(|n| {
                let db = db.clone();
                tokio::spawn(async move { db.write(n * 65536, fill(round, 65536), false).await })
            })
            .collect();
        if round % 2 == 0 {
            tokio::task::yield_now().await;
        }
        writes.iter().for_each(JoinHandle::abort);
        drop(db);
        let other = array.attach("db").await;
        other.write(0, fill(100 + round, 1 << 20), false).await.unwrap();
        other.flush().await.unwrap();
    }
    array.stop().await.unwrap();
}

/// A sparse store whose file system is full: data find no room, what was acknowledged is flushed all the same, and once
/// there is room everything goes on.
#[tokio::test(start_paused = true)]
async fn a_store_without_room_harms_no_flush() {
    let shelf = shelf();
    let array = start(&shelf).await;
    array.array().device_create("db", 4 * MIB, None).await.unwrap();
    assert!(array.array().array_show().await.unwrap().warnings.is_empty());
    let db = array.attach("db").await;
    for track in 0..16 {
        db.write(track << 16, fill(track as u8 + 1, 1 << 16), false).await.unwrap();
    }
    shelf.fill_up("a", true);
    for _ in 0..100 {
        assert_eq!(errno(db.write(2 * MIB, fill(7, 4096), false).await), Errno::NoSpace);
    }
    db.write(4096, fill(9, 4096), false).await.unwrap();
    // Its headers were never written before.
    db.flush().await.unwrap();
    establish(&array.array(), &[Pair::new("db", "copy")], manage::GroupMode::Synchronous).await.unwrap();
    let warnings = array.array().array_show().await.unwrap().warnings;
    assert!(warnings[0].contains("under store a has 0 B free, and may have to give"), "{warnings:?}");
    array.kill().await;

    let array = start(&shelf).await;
    let (db, copy) = (array.attach("db").await, array.attach("copy").await);
    for track in 1..16 {
        for device in [&db, &copy] {
            assert_eq!(device.read(track << 16, 1 << 16).await.unwrap(), fill(track as u8 + 1, 1 << 16));
        }
    }
    assert_eq!(errno(db.write(2 * MIB, fill(7, 4096), false).await), Errno::NoSpace);
    shelf.fill_up("a", false);
    db.write(2 * MIB, fill(7, 4096), true).await.unwrap();
    array.stop().await.unwrap();
}

/// A write that never ends: the array ends all the same, says what it waited for, and has what was flushed.
#[tokio::test(start_paused = true)]
async fn a_write_that_never_ends_is_given_up() {
    let shelf = shelf();
    let array = start(&shelf).await;
    array.array().device_create("db", 4 * MIB, None).await.unwrap();
    let db = array.attach("db").await;
    db.write(0, fill(1, 65536), true).await.unwrap();
    shelf.hang("a");
    let other = db.clone();
    let stuck = tokio::spawn(async move { other.write(MIB, fill(2, 4096), false).await });
    tokio::time::sleep(Duration::from_millis(1)).await;
    let began = tokio::time::Instant::now();
    let error = array.stop().await.unwrap_err();
    assert!(error.to_string().contains("waiting for 1 operations of store a"), "{error}");
    assert!((20..=85).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
    assert!(stuck.await.unwrap().is_err());
    drop(db);

    let shelf = shelf.unstuck("a");
    let array = start(&shelf).await;
    assert_eq!(array.attach("db").await.read(0, 65536).await.unwrap(), fill(1, 65536));
    array.stop().await.unwrap();
}

/// The same for a commit, for a write that holds up a reload, and for the closing of the metadata.
#[tokio::test(start_paused = true)]
async fn nothing_is_waited_for_without_end() {
    let shelf = shelf();
    let array = start(&shelf).await;
    array.array().device_create("db", 4 * MIB, None).await.unwrap();
    shelf.hang(METADATA);
    let client = array.array();
    let stuck = tokio::spawn(async move { client.device_create("other", MIB, None).await });
    tokio::time::sleep(Duration::from_millis(1)).await;
    let error = array.stop().await.unwrap_err();
    assert!(error.to_string().contains("waiting for a commit of the metadata"), "{error}");
    assert!(stuck.await.unwrap().is_err());

    let shelf = shelf.unstuck(METADATA);
    let array = start(&shelf).await;
    let db = array.attach("db").await;
    shelf.hang("a");
    let stuck = tokio::spawn(async move { db.write(MIB, fill(2, 4096), false).await });
    tokio::time::sleep(Duration::from_millis(1)).await;
    shelf.fail_syncs(METADATA, true);
    assert!(array.array().device_create("other", MIB, None).await.is_err());
    let error = array.served.await.unwrap().unwrap_err();
    assert!(error.to_string().contains("store a"), "{error}");
    assert!(stuck.await.unwrap().is_err());

    let shelf = shelf.unstuck("a");
    shelf.fail_syncs(METADATA, false);
    let array = start(&shelf).await;
    array.array().device_list().await.unwrap();
    shelf.hang(METADATA);
    let error = array.stop().await.unwrap_err();
    assert!(error.to_string().contains("waiting for the metadata file to be closed"), "{error}");
}

/// Clients that do not read cannot take all that there is for payload: others' small requests pass them, and large ones
/// have their turn when the idle are cut off.
#[tokio::test(start_paused = true)]
async fn payload_is_shared_by_all_connections() {
    const LENGTH: u32 = 32 << 20;
    let array = start(&shelf()).await;
    // Never written: it reads as zeros, which take no memory.
    array.array().device_create("db", u64::from(LENGTH), None).await.unwrap();
    let db = array.attach("db").await;
    let request =
        Request::Read { offset: 0, length: LENGTH, dont_fragment: false }.header(Cookie(1)).encode();
    let mut greedy = Vec::new();
    // Of each no second one is taken before the first is read.
    for _ in 0..40 {
        let mut stream = raw(&array).await;
        stream.write_all(&request).await.unwrap();
        stream.write_all(&request).await.unwrap();
        greedy.push(stream);
    }
    tokio::time::sleep(Duration::from_millis(1)).await;
    let started = tokio::time::Instant::now();
    db.write(0, fill(7, 4096), false).await.unwrap();
    assert_eq!(db.read(0, 1 << 20).await.unwrap()[..4096], fill(7, 4096));
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    assert_eq!(db.read(4096, LENGTH - 4096).await.unwrap(), fill(0, LENGTH as usize - 4096));
    assert!((59..=61).contains(&started.elapsed().as_secs()), "{:?}", started.elapsed());
    drop(greedy);
    array.stop().await.unwrap();
}

/// A plain connection to "db".
pub(super) async fn raw(array: &Running) -> DuplexStream {
    let mut stream = array.net.connect(&endpoint("nbd"));
    let (mut input, mut output) = (BytesMut::new(), BytesMut::new());
    let wish = ClientWish::Enter { export: "db".into(), structured: false, contexts: Vec::new() };
    let mut client = ClientHandshake::new(wish);
    while client.feed(&mut input, &mut output).unwrap().is_none() {
        stream.write_all_buf(&mut output).await.unwrap();
        stream.read_buf(&mut input).await.unwrap();
    }
    stream
}

/// Who has begun to send a large write may take his time, but not for ever.
#[tokio::test(start_paused = true)]
async fn a_large_write_may_be_slow_but_not_stop() {
    const LENGTH: usize = 3 << 20;
    let array = start(&shelf()).await;
    array.array().device_create("db", 4 * MIB, None).await.unwrap();
    let mut stream = raw(&array).await;
    let write = Request::Write { offset: 0, data: fill(7, LENGTH), fua: false };
    let header = write.header(Cookie(1)).encode();
    tokio::time::sleep(Duration::from_secs(100)).await;
    stream.write_all(&header).await.unwrap();
    for piece in fill(7, LENGTH).chunks(1 << 19) {
        stream.write_all(piece).await.unwrap();
        tokio::time::sleep(Duration::from_secs(50)).await;
    }
    let mut reply = [0; 16];
    stream.read_exact(&mut reply).await.unwrap();
    assert_eq!(reply[4..8], [0; 4]);
    tokio::time::sleep(Duration::from_secs(100)).await;
    stream.write_all(&header).await.unwrap();
    stream.write_all(&fill(8, 2 << 20)).await.unwrap();
    let stopped = tokio::time::Instant::now();
    assert_eq!(read_to_end(stream).await, 0);
    assert_eq!(stopped.elapsed().as_secs(), 60);
    assert_eq!(array.attach("db").await.read(0, LENGTH as u32).await.unwrap(), fill(7, LENGTH));
    array.stop().await.unwrap();
}
