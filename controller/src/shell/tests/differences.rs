//! What differs between sessions, and since one, by the metadata contexts of an export (F7).

use bytes::Bytes;
use twintrack_host::{NbdError, Pair, establish, manage};
use twintrack_link::nbd::Errno;

use super::*;

const MIB: u64 = 1 << 20;
const MON_TUE: &str = "x-twintrack:diff/mon/tue";
const MON_NOW: &str = "x-twintrack:diff/mon/now";
const SINCE_MON: &str = "qemu:dirty-bitmap:mon";

/// A client of an export that asks for contexts.
async fn attach(array: &Running, export: &str, contexts: &[&str]) -> NbdClient {
    let contexts = contexts.iter().map(|name| (*name).to_owned()).collect();
    let options = NbdOptions { contexts, ..NbdOptions::default() };
    NbdClient::connect(array.net.connect(&endpoint("nbd")), export, &options).await.unwrap()
}

/// The session's number.
async fn snapshot(array: &Running, name: &str) -> u32 {
    let pairs = [Pair::new("db", name)];
    establish(&array.array(), &pairs, manage::GroupMode::Synchronous).await.unwrap()[0].id
}

/// What a context tells of the whole export: the dirty ranges.
async fn dirty(client: &NbdClient, context: &str) -> Vec<(u64, u32)> {
    let size = client.info().size_bytes;
    let (mut at, mut dirty) = (0, Vec::new());
    while at < size {
        for extent in client.status_of(context, at, (size - at) as u32).await.unwrap() {
            if extent.is_dirty() {
                dirty.push((at, extent.length));
            }
            at += u64::from(extent.length);
        }
    }
    assert_eq!(at, size);
    dirty
}

async fn write(client: &NbdClient, at: u64, length: usize) {
    client.write(at, Bytes::from(vec![7; length]), false).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn changed_blocks_are_told_between_any_two() {
    let array = start(&shelf()).await;
    array.array().device_create("db", 4 * MIB, None).await.unwrap();
    let plain = array.attach("db").await;
    write(&plain, 0, 2 << 20).await;
    let mon = snapshot(&array, "mon").await;
    write(&plain, 65536, 4096).await;
    let tue = snapshot(&array, "tue").await;
    write(&plain, MIB, 100 << 10).await;

    let by_number = format!("x-twintrack:diff/ses-{mon}/{tue}");
    let asked =
        [MON_TUE, MON_NOW, SINCE_MON, &by_number, "qemu:dirty-bitmap:wed", "x-twintrack:diff/mon/wed"];
    let db = attach(&array, "db", &asked).await;
    let names: Vec<_> = db.negotiated().contexts.iter().map(|context| context.name.as_str()).collect();
    assert_eq!(names, ["base:allocation", MON_TUE, MON_NOW, SINCE_MON, &by_number]);
    // Each block of a track of 64 KiB by itself.
    let (first, second) = ((65536, 4096), (MIB, 100 << 10));
    assert_eq!(dirty(&db, MON_TUE).await, [first]);
    assert_eq!(dirty(&db, &by_number).await, [first]);
    assert_eq!(dirty(&db, MON_NOW).await, [first, second]);
    assert_eq!(dirty(&db, SINCE_MON).await, [first, second]);
    let allocation = db.block_status(0, 4 << 20).await.unwrap();
    assert_eq!((allocation[0].length, allocation[0].is_hole()), (2 << 20, false));

    let told = async |from: u32, other| {
        let told = array.array().session_diff(from, other, 0).await.unwrap();
        assert_eq!(told.next, None);
        told.ranges.iter().map(|range| (range.offset, range.length as u32)).collect::<Vec<_>>()
    };
    assert_eq!(told(mon, Some(tue)).await, [first]);
    assert_eq!(told(tue, Some(mon)).await, [first]);
    assert_eq!(told(mon, None).await, [first, second]);
    assert_eq!(told(tue, None).await, [second]);

    // On the virtual device of another session: between the two.
    let shown = attach(&array, "tue", &[SINCE_MON]).await;
    assert_eq!(dirty(&shown, SINCE_MON).await, [first]);
    write(&shown, 3 * MIB, 512).await;
    assert_eq!(dirty(&shown, SINCE_MON).await, [first, (3 * MIB, 4096)]);

    array.array().device_resize("db", 5 * MIB).await.unwrap();
    let grown = attach(&array, "db", &[SINCE_MON, MON_TUE]).await;
    assert_eq!(dirty(&grown, SINCE_MON).await, [first, second, (4 * MIB, 1 << 20)]);
    assert_eq!(dirty(&grown, MON_TUE).await, [first, (3 * MIB, 4096)]);
    array.stop().await.unwrap();
}

/// A session may end while a host has a context of it: that status fails, and nothing else.
#[tokio::test(start_paused = true)]
async fn a_context_may_lose_its_meaning() {
    let array = start(&shelf()).await;
    array.array().device_create("db", MIB, None).await.unwrap();
    let mon = snapshot(&array, "mon").await;
    let db = attach(&array, "db", &[SINCE_MON]).await;
    write(&db, 0, 4096).await;
    assert_eq!(dirty(&db, SINCE_MON).await, [(0, 4096)]);
    array.array().device_rename("mon", "old").await.unwrap();
    assert_eq!(dirty(&db, SINCE_MON).await, [(0, 4096)]);
    array.array().session_deactivate(mon).await.unwrap();
    let refused = array.array().session_diff(mon, None, 0).await.unwrap_err();
    let why = "is deactivated, and only a session that is active can be compared";
    assert!(refused.to_string().contains(why), "{refused}");
    for _ in 0..2 {
        let refused = db.status_of(SINCE_MON, 0, 1 << 20).await.unwrap_err();
        assert!(matches!(refused, NbdError::Remote { errno: Errno::Invalid, .. }), "{refused}");
        array.array().session_remove(mon).await.ok();
    }
    write(&db, 4096, 4096).await;
    assert_eq!(db.read(0, 8192).await.unwrap(), vec![7; 8192]);
    let other = attach(&array, "db", &[SINCE_MON]).await;
    assert_eq!(other.status_of(SINCE_MON, 0, 4096).await, Err(NbdError::NoBlockStatus));
    assert_eq!(other.block_status(0, 4096).await.unwrap().len(), 1);
    array.stop().await.unwrap();
}
