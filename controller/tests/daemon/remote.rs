//! Remote pairs between two daemons: the link cut, held, slowed, either daemon killed, failovers, and both sides compared.

use std::time::Duration;

use twintrack_host::manage::{LinkInfoState, PairHalf, PairLink, PairStatusInfo};

use bytes::Bytes;
use twintrack_host::{Endpoint, MultipathError, MultipathOptions, MultipathVolume, NbdPath, TokioDial};

use crate::pki::Pki;
use crate::proxy::Weather;
use crate::twins::{Content, Twins};

const SIZE: usize = 16 << 20;

/// All that happens to a pair over its life.
async fn a_life(tls: Option<&Pki>) {
    let mut twins = Twins::new(tls).await;
    let mut content = Content::new(SIZE, 1);
    twins.pair(&content).await;
    let db = twins.here().device("db").await;

    // Cut: hosts go on, and what the other side lacks is copied afterwards.
    content.write_some(&db, 20).await;
    twins.network.set(Weather::CUT);
    content.write_some(&db, 20).await;
    let apart = twins.becomes(twins.here(), "db", PairStatusInfo::Partitioned).await;
    assert!(apart.owed_bytes > 0 && apart.owed_bytes < SIZE as u64, "{apart:?}");
    twins.network.set(Weather::FINE);
    twins.synchronized().await;
    content.is_kept(twins.there(), "copy").await;

    // Slow and far away.
    twins.network.set(Weather {
        delay: Duration::from_millis(10),
        bytes_per_s: Some(4 << 20),
        ..Weather::FINE
    });
    content.write_some(&db, 20).await;
    twins.network.set(Weather::FINE);

    // Kills. What was flushed is on both sides.
    twins.crash_there().await;
    content.write_some(&db, 20).await;
    twins.synchronized().await;
    content.is_kept(twins.there(), "copy").await;
    content.write_some(&db, 20).await;
    twins.crash_here().await;
    twins.synchronized().await;
    let db = twins.here().device("db").await;
    content.is_on(&db).await;
    content.is_kept(twins.there(), "copy").await;

    // Over there, and back.
    assert_eq!(twins.here().array().remote_verify("db", false).await.unwrap().differing_tracks, 0);
    twins.there().array().remote_failover("copy", false).await.unwrap();
    assert!(db.write(0, vec![1; 512].into(), false).await.is_err(), "the old side takes no more writes");
    let copy = twins.there().device("copy").await;
    content.is_on(&copy).await;
    content.write_some(&copy, 20).await;
    twins.becomes(twins.there(), "copy", PairStatusInfo::R1Updated).await;
    content.is_kept(twins.here(), "db").await;
    twins.here().array().remote_failover("db", false).await.unwrap();
    let db = twins.here().device("db").await;
    content.is_on(&db).await;
    content.write_some(&db, 20).await;
    twins.synchronized().await;
    content.is_kept(twins.there(), "copy").await;
    for daemon in [twins.here.take(), twins.there.take()].into_iter().flatten() {
        assert!(daemon.terminate().await.success());
    }
}

#[tokio::test]
async fn a_pair_lives_through_cuts_kills_and_failovers() {
    a_life(None).await;
}

#[tokio::test]
async fn so_it_does_over_tls() {
    a_life(Some(&Pki::new())).await;
}

/// Nothing comes through, and no connection breaks: the hosts' writes are answered all the same, in bounded time.
#[tokio::test]
async fn a_silent_link_does_not_hold_hosts_for_long() {
    let twins = Twins::new(None).await;
    let mut content = Content::new(SIZE, 2);
    twins.pair(&content).await;
    let db = twins.here().device("db").await;
    twins.network.set(Weather::HELD);
    content.write_some(&db, 5).await;
    twins.becomes(twins.here(), "db", PairStatusInfo::Partitioned).await;
    twins.network.set(Weather::FINE);
    twins.synchronized().await;
    content.is_kept(twins.there(), "copy").await;
}

/// The first array is lost; the second one serves because a person says so; the first one comes back and follows.
#[tokio::test]
async fn a_lost_array_comes_back_as_the_other_half() {
    let mut twins = Twins::new(None).await;
    let mut content = Content::new(SIZE, 3);
    twins.pair(&content).await;
    let db = twins.here().device("db").await;
    content.write_some(&db, 20).await;
    twins.here.take().unwrap().kill();
    let there = twins.there().array();
    while there.link_list().await.unwrap()[0].state == LinkInfoState::Up {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(there.remote_failover("copy", false).await.is_err(), "nobody can be asked");
    there.remote_failover("copy", true).await.unwrap();
    let copy = twins.there().device("copy").await;
    content.is_on(&copy).await;
    content.write_some(&copy, 20).await;
    twins.here = Some(twins.places[0].start().await);
    twins.becomes(twins.there(), "copy", PairStatusInfo::R1Updated).await;
    content.is_kept(twins.here(), "db").await;
    twins.here().array().remote_failover("db", false).await.unwrap();
    twins.synchronized().await;
    content.is_on(&twins.here().device("db").await).await;
}

/// Both sides are written, each without the other: a person chooses, and what is given up is kept beside.
#[tokio::test]
async fn a_split_brain_is_resolved() {
    let twins = Twins::new(None).await;
    let mut content = Content::new(SIZE, 4);
    twins.pair(&content).await;
    let mut other = Content { bytes: content.bytes.clone(), ..Content::new(0, 5) };
    let db = twins.here().device("db").await;
    twins.network.set(Weather::CUT);
    content.write_some(&db, 10).await;
    while twins.there().array().remote_failover("copy", true).await.is_err() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let copy = twins.there().device("copy").await;
    other.write_some(&copy, 10).await;
    twins.network.set(Weather::FINE);
    while twins.becomes(twins.here(), "db", PairStatusInfo::Diverged).await.link != PairLink::Up {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    twins.becomes(twins.there(), "copy", PairStatusInfo::Diverged).await;
    assert!(twins.here().array().remote_resume("db", false).await.is_err());
    twins.here().array().remote_resolve("db", PairHalf::R1).await.unwrap();
    twins.synchronized().await;
    content.is_on(&twins.here().device("db").await).await;
    content.is_kept(twins.there(), "copy").await;
    twins.there().array().device_online("copy.lost-1", true).await.unwrap();
    other.is_on(&twins.there().device("copy.lost-1").await).await;
}

/// One handle over both arrays: it follows a failover and back, an array that is killed and started again, and one that is
/// lost; and what it has flushed is there.
#[tokio::test]
async fn a_volume_follows_the_array_that_serves() {
    let mut twins = Twins::new(None).await;
    let mut content = Content::new(SIZE, 6);
    twins.pair(&content).await;
    let paths = [("db", 0), ("copy", 1)].map(|(device, array): (_, usize)| {
        let socket = twins.places[array].folder().join("nbd.sock");
        NbdPath::new(TokioDial, Endpoint::Unix(socket), device)
    });
    let volume = MultipathVolume::new(paths, MultipathOptions::default());
    assert_eq!(volume.size_bytes().await, Ok(SIZE as u64));
    let mut written = 0;
    for step in 0..5 {
        // Written, not flushed; then the array that has it is no more the one that serves, or is gone.
        for _ in 0..20 {
            let (offset, data) = content.next_write();
            volume.write(offset, data, false).await.unwrap();
            written += 1;
        }
        match step {
            0 => drop(twins.there().array().remote_failover("copy", false).await.unwrap()),
            1 => {
                twins.becomes(twins.there(), "copy", PairStatusInfo::R1Updated).await;
                drop(twins.here().array().remote_failover("db", false).await.unwrap());
            }
            2 => twins.crash_here().await,
            3 => {
                twins.synchronized().await;
                twins.here.take().unwrap().kill();
                while twins.there().array().remote_failover("copy", true).await.is_err() {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
            _ => {}
        }
        volume.flush().await.unwrap();
        assert_eq!(volume.active().await, [1, 0, 0, 1, 1][step]);
        let read = volume.read(0, SIZE as u32).await.unwrap();
        assert!(read == content.bytes, "step {step}, after {written} writes");
    }
    // An error that is no failover's is the caller's.
    let beyond = volume.write(SIZE as u64, Bytes::from_static(&[0; 512]), false).await;
    assert!(matches!(beyond, Err(MultipathError::Refused(_))), "{beyond:?}");
}
