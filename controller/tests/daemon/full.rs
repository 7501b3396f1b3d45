//! A sparse store on a file system that runs full. Needs the right to mount one; `shell::tests` has the same over a
//! disk in memory.

use bytes::Bytes;
use twintrack_host::{GroupMode, NbdError, Pair, establish};
use twintrack_link::nbd::Errno;

use crate::process::Place;

const MIB: u64 = 1 << 20;

fn is_no_space(error: &NbdError) -> bool {
    matches!(error, NbdError::Remote { errno: Errno::NoSpace, .. })
}

/// Writes get "no space", everything that was acknowledged is flushed and kept, commands go on, and once there is room
/// so do the writes.
#[tokio::test]
async fn a_full_file_system_harms_no_flush() {
    let store = "[[pool]]\nname = \"main\"\n[[pool.store]]\npath = \"store\"\nsize = \"512 MiB\"\n";
    let Some(place) = Place::small(96, store) else {
        eprintln!("passed over: this user may not mount a file system");
        return;
    };
    let daemon = place.start().await;
    let array = daemon.array();
    array.device_create("db", 256 * MIB, None).await.unwrap();
    establish(&array, &[Pair::new("db", "before")], GroupMode::Synchronous).await.unwrap();
    let warnings = array.array_show().await.unwrap().warnings;
    assert!(warnings[0].starts_with("the file system under store store has "), "{warnings:?}");
    let db = daemon.device("db").await;
    let data = |fill: u64| Bytes::from(vec![fill as u8; 1 << 16]);
    let mut written = Vec::new();
    let mut refused = 0;
    for n in 0..(256 * MIB) >> 16 {
        match db.write(n << 16, data(n), false).await {
            Ok(()) => written.push(n),
            Err(error) => {
                assert!(is_no_space(&error), "{error}");
                refused += 1;
            }
        }
        // Not all of the headers and the metadata only when it is full already.
        if n == 100 {
            db.flush().await.unwrap();
        }
    }
    assert!(written.len() > 500 && refused > 500, "{} written, {refused} refused", written.len());
    db.flush().await.unwrap();
    // Commands, and what they make durable, find room too.
    establish(&array, &[Pair::new("db", "after")], GroupMode::Synchronous).await.unwrap();
    let told = place.log().lines().filter(|line| line.contains("store failed")).count();
    assert!(told <= 2, "{refused} writes were refused, and the log says so {told} times");

    daemon.kill();
    let daemon = place.start().await;
    let (db, after) = (daemon.device("db").await, daemon.device("after").await);
    for n in &written {
        assert_eq!(db.read(n << 16, 1 << 16).await.unwrap(), data(*n));
        assert_eq!(after.read(n << 16, 1 << 16).await.unwrap(), data(*n));
    }
    assert!(is_no_space(&db.write(200 * MIB, data(1), false).await.unwrap_err()));
    for session in daemon.array().session_list(None).await.unwrap() {
        daemon.array().session_remove(session.id).await.unwrap();
    }
    db.trim(0, 8 << 20, false).await.unwrap();
    // The room comes back in the background.
    let mut tries = 0;
    while let Err(error) = db.write(200 * MIB, data(1), true).await {
        assert!(is_no_space(&error) && tries < 1000, "{error}");
        tries += 1;
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(db.read(200 * MIB, 1 << 16).await.unwrap(), data(1));
    assert!(daemon.terminate().await.success());
}
