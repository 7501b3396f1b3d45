//! What a half goes back to while a copy into it is under way, with two firmwares: a resync that ends, one that never does,
//! and a crash at every step of either.

mod rig;
#[path = "remote/two.rs"]
mod two;

use std::time::Duration;

use twintrack_controller::firmware::{HostError, HostOp};
use twintrack_core::{Change, Pinned};
use twintrack_link::manage::{
    Activation, Answer, Command, PairHalf, PairMode, PairPace, PairPolicy, PairStatusInfo, PinnedKind,
    RefusalCode, SessionInfo,
};
use two::{A, B, TRACK, Two};

const FORCE: fn(&str) -> Command = |device| Command::RemoteFailover { device: device.into(), force: true };
const GO_BACK: fn(&str) -> Command = |device| Command::RemoteGoBack { device: device.into() };

fn sessions(two: &mut Two, array: usize) -> Vec<SessionInfo> {
    match two.command(array, Command::SessionList { standard: None }).unwrap() {
        Answer::Sessions(sessions) => sessions,
        other => panic!("{other:?}"),
    }
}

/// The pair of a device of the second array is no point of its lineage, or is.
fn complete(two: &Two, device: &str) -> bool {
    let tables = two.rigs[B].firmware.tables();
    let (id, _) = tables.device_named(device).unwrap();
    tables.pair(tables.pair_of_device(id).unwrap()).unwrap().complete
}

/// R2 is synchronized and has some content; then R1 was written without it, so that two tracks are owed.
fn behind() -> (Two, Vec<u8>) {
    behind_of(8)
}

/// So, with so many tracks.
fn behind_of(tracks: u64) -> (Two, Vec<u8>) {
    let mut two = Two::synchronized(tracks);
    two.write(A, 1, 0, 2 * TRACK as usize, 1);
    two.flush(A, 1);
    let before = two.content(B, "e");
    two.cut();
    for track in [0, 1, 5] {
        two.write(A, 1, track * TRACK, TRACK as usize, 2);
    }
    (two, before)
}

/// The link comes up again, and the copy goes so far that R2 has a track of it.
fn amid_the_copy(two: &mut Two) {
    two.heal();
    let written = |two: &Two| {
        let tables = two.rigs[B].firmware.tables();
        let (id, _) = tables.device_named("e").unwrap();
        tables.sessions_of(id).next().is_some_and(|session| {
            tables.changed(session, twintrack_core::TrackNo(0), 9).is_ok_and(|(tracks, _)| !tracks.is_empty())
        })
    };
    while !written(two) {
        two.step_on();
    }
}

/// While the copy is under way R2 can be put back to what it was; the refusal says so; afterwards it serves, and the other
/// array has diverged.
#[test]
fn an_interrupted_resync_is_undone() {
    let (mut two, before) = behind();
    amid_the_copy(&mut two);
    let kept = two.show(B, "e").safety_copy.unwrap();
    assert_eq!(kept.device, "e.safe-1");
    let listed = sessions(&mut two, B);
    let pinned = listed[0].pinned.as_ref().unwrap();
    assert_eq!((pinned.what, pinned.needed, listed[0].id), (PinnedKind::SafetyCopy, true, kept.session));
    two.stop(A);
    let refused = two.command(B, FORCE("e")).unwrap_err();
    assert!(
        refused.reason.contains("is kept as ses-") && refused.reason.contains("--to-safety-copy"),
        "{refused}"
    );
    assert!(refused.reason.contains("e.safe-1"), "{refused}");
    let remove = Command::SessionRemove { session: kept.session };
    let needed = two.command(B, remove).unwrap_err();
    assert!(needed.code == RefusalCode::WrongState && needed.reason.contains("when the copy"), "{needed}");
    let back = two.command(B, GO_BACK("e")).unwrap();
    assert!(
        matches!(&back, Answer::Remotes(pairs) if pairs[0].status == PairStatusInfo::FailedOver),
        "{back:?}"
    );
    assert_eq!(two.content(B, "e"), before);
    assert_eq!(sessions(&mut two, B), [], "nothing has to be kept any more");
    two.rigs[B].attach(2, "e");
    two.write(B, 2, 3 * TRACK, 512, 7);
    two.start(A);
    two.wait(Duration::from_secs(20));
    assert_eq!([two.status(A, "d"), two.status(B, "e")], [PairStatusInfo::Diverged; 2]);
    two.detach(B, 2);
    for (array, device, keep) in [(B, "e", PairHalf::R2), (A, "d", PairHalf::R1)] {
        if two.status(array, device) != PairStatusInfo::Diverged {
            continue;
        }
        two.command(array, Command::RemoteResolve { device: device.into(), keep }).unwrap();
        two.wait(Duration::from_secs(20));
    }
    assert_eq!(two.content(A, "d"), two.content(B, "e"));
}

/// A resync that ends leaves nothing behind.
#[test]
fn a_resync_that_ends_removes_its_safety_copy() {
    let (mut two, _) = behind();
    two.heal();
    two.wait(Duration::from_secs(20));
    assert_eq!(two.status(A, "d"), PairStatusInfo::Synchronized);
    assert_eq!(two.content(B, "e"), two.content(A, "d"));
    assert_eq!((sessions(&mut two, B), two.show(B, "e").safety_copy), (vec![], None));
    let tables = two.rigs[B].firmware.tables();
    assert!(tables.device_named("e.safe-1").is_none());
    two.command(B, GO_BACK("e")).unwrap_err();
}

/// A half into which a copy is under way is no state that the volume ever had: no session of it begins, and nothing is copied
/// from it within its array, by hand or by the clock, until that is complete.
#[test]
fn what_is_amid_a_copy_is_not_copied_from() {
    let (mut two, before) = behind();
    two.device(B, "f", 8);
    two.detach(B, 1);
    let (primary, secondary) = ("e".to_owned(), "f".to_owned());
    let create = Command::PairCreate {
        primary: primary.clone(),
        secondary: Some(secondary.clone()),
        pace: PairPace::Fast,
    };
    two.command(B, create).unwrap();
    amid_the_copy(&mut two);
    two.stop(A);
    assert!(!complete(&two, "e"));
    let copy = Command::PairCopy { primary: primary.clone(), secondary: secondary.clone(), pace: None };
    let refused = two.command(B, copy).unwrap_err();
    assert_eq!(refused.code, RefusalCode::WrongState);
    let reason = "device e is being filled from its remote pair: wait until that copy is done (`twintrack remote show e`)";
    assert_eq!(refused.reason, reason);
    two.command(B, Command::DeviceCreateVirtual { name: "v".into() }).unwrap();
    let register = Command::SessionRegister { standard: "e".into(), group: None, tracks: None };
    let session = match two.command(B, register).unwrap() {
        Answer::Session(session) => session.id,
        other => panic!("{other:?}"),
    };
    two.command(B, Command::SessionRelate { session, virtual_device: "v".into() }).unwrap();
    let activate =
        Command::SessionActivate { sessions: vec![Activation { session, name: None, offline: false }] };
    assert_eq!(two.command(B, activate.clone()).unwrap_err().reason, reason);
    let schedule =
        Command::ScheduleAdd { primary, secondaries: vec![secondary], at_ms: None, every_ms: None };
    let number = match two.command(B, schedule).unwrap() {
        Answer::Schedules(made) => made[0].number,
        other => panic!("{other:?}"),
    };
    let listed = |two: &mut Two| match two.command(B, Command::ScheduleList {}).unwrap() {
        Answer::Schedules(listed) => listed,
        other => panic!("{other:?}"),
    };
    two.wait(Duration::from_secs(3));
    let waits = listed(&mut two);
    assert_eq!((waits[0].number, waits[0].trouble.as_deref()), (number, Some(refused.reason.as_str())));
    assert!(!complete(&two, "e"));
    assert_eq!(two.content(B, "f"), vec![0; before.len()], "nothing came of it");

    two.start(A);
    two.wait(Duration::from_secs(30));
    assert!(complete(&two, "e"));
    two.command(B, activate).unwrap();
    assert_eq!(listed(&mut two), [], "it ran, and was the only one");
    assert_eq!(two.content(B, "f"), two.content(B, "e"));
    assert_eq!(two.content(B, "f"), two.content(A, "d"));
}

/// In adaptive mode the other half is behind all the time: nothing is kept of it.
#[test]
fn nothing_is_kept_in_adaptive_mode() {
    let mut two = Two::synchronized(8);
    two.command(A, Command::RemoteMode { device: "d".into(), mode: PairMode::Adaptive }).unwrap();
    two.cut();
    two.write(A, 1, 0, TRACK as usize, 2);
    two.heal();
    two.wait(Duration::from_secs(20));
    assert_eq!(two.content(B, "e"), two.content(A, "d"));
    let pinned =
        |change: &Change| matches!(change, Change::Session(_, Some(record)) if record.pinned.is_some());
    let kept = two.rigs[B].metadata.iter().filter(|change| pinned(change)).count();
    assert!(kept <= 1, "at the beginning it was synchronous");
}

/// R1 is gone for good: R2 serves what it has, if that is whole, or goes back. `before`: what it had before the copy. Whether
/// it went back.
fn serve_alone(two: &mut Two, before: &[u8], when: &str) -> bool {
    let went_back = two.command(B, FORCE("e")).is_err();
    if went_back {
        two.command(B, GO_BACK("e")).unwrap();
        assert_eq!(two.content(B, "e"), before, "{when}");
    } else {
        // All of it, or nothing.
        let content = two.content(B, "e");
        let last = (content.len() as u64 * 512 / TRACK).saturating_sub(10).max(6);
        let state = [0, 1, 5, last].map(|track: u64| content[(track * TRACK / 512) as usize]);
        let legal = [[1, 1, 0, 0], [2, 2, 2, 0], [2, 3, 2, 0], [2, 2, 2, 3], [2, 3, 2, 3]];
        assert!(legal.contains(&state), "{when}: {state:?}");
    }
    two.rigs[B].attach(9, "e");
    two.write(B, 9, 7 * TRACK, 512, 9);
    went_back
}

/// Whenever R2 loses its power during a resync, and R1 never comes back: R2 can serve some state that the volume had. What
/// comes of the copy is durable only after what it goes over is kept.
#[test]
fn a_crash_of_r2_during_a_resync_leaves_a_state_of_the_volume() {
    let mut went_back = 0;
    for effects in 0..150 {
        let (mut two, before) = behind();
        two.heal();
        for _ in 0..effects {
            two.step_on();
        }
        two.stop(A);
        two.restart(B);
        went_back += u32::from(serve_alone(&mut two, &before, &format!("after {effects} effects")));
    }
    assert!(went_back > 20, "the copy was cut off {went_back} times");
}

/// Nothing of what hosts write leaves R1 before R2 has said that it keeps what it has: on its way there is no order between
/// the two.
#[test]
fn nothing_is_sent_before_r2_keeps_what_it_has() {
    for at in 0..120 {
        let (mut two, _) = behind_of(80);
        two.heal();
        two.said.clear();
        (0..at).for_each(|_| two.step_on());
        // Not in a region of what is owed.
        two.rigs[A].write(1, 70 * TRACK, TRACK as usize, 3);
        two.wait(Duration::from_secs(20));
        assert_eq!(two.status(A, "d"), PairStatusInfo::Synchronized);
        let first =
            |array, what: &str| two.said.iter().position(|(by, said)| *by == array && said.contains(what));
        let begin = first(A, "Begin").unwrap();
        let number = two.said[begin].1.split(' ').next().unwrap().to_owned();
        let begun = first(B, &format!("{number} is Done")).unwrap();
        let sent = first(A, " write ").unwrap();
        assert!(begin < begun && begun < sent, "written after {at} effects: {:?}", two.said);
    }
}

/// So when R1 goes, and hosts write to it whenever both arrays agree: what they write is not of the state that R2 has, and
/// comes to it only after that is kept.
#[test]
fn what_hosts_write_during_a_resync_is_part_of_it() {
    let mut went_back = 0;
    for at in (0..60).step_by(2) {
        for more in (0..30).step_by(3) {
            let (mut two, before) = behind_of(80);
            two.heal();
            (0..at).for_each(|_| two.step_on());
            // A track that is owed, and one that is not.
            two.rigs[A].write(1, TRACK, TRACK as usize, 3);
            two.rigs[A].write(1, 70 * TRACK, TRACK as usize, 3);
            (0..more).for_each(|_| two.step_on());
            two.stop(A);
            let when = format!("written after {at} effects, and gone {more} after that");
            went_back += u32::from(serve_alone(&mut two, &before, &when));
        }
    }
    assert!(went_back > 20, "the copy was cut off {went_back} times");
}

/// Whenever R2 loses its power on the way back, it goes on with it; no host sees it before it is there.
#[test]
fn a_crash_on_the_way_back() {
    for effects in 0..40 {
        let (mut two, before) = behind();
        amid_the_copy(&mut two);
        two.stop(A);
        two.rigs[B].manage(GO_BACK("e"));
        for _ in 0..effects {
            two.step_on();
        }
        two.restart(B);
        two.wait(Duration::from_secs(2));
        if !complete(&two, "e") {
            // It had not begun.
            two.command(B, GO_BACK("e")).unwrap();
        }
        assert!(complete(&two, "e"), "after {effects} effects");
        if two.rigs[B].attach_error("e").is_some() {
            two.command(B, FORCE("e")).unwrap();
        }
        assert_eq!(two.content(B, "e"), before, "after {effects} effects");
        assert_eq!(sessions(&mut two, B), [], "after {effects} effects");
        two.start(A);
        two.wait(Duration::from_secs(20));
        assert_eq!(two.status(B, "e"), PairStatusInfo::Diverged, "after {effects} effects");
        two.command(A, Command::RemoteResolve { device: "d".into(), keep: PairHalf::R1 }).unwrap();
        two.wait(Duration::from_secs(20));
        assert_eq!(two.status(A, "d"), PairStatusInfo::Synchronized, "after {effects} effects");
        assert_eq!(two.content(B, "e"), two.content(A, "d"), "after {effects} effects");
    }
}

fn grouped() -> Two {
    let mut two = Two::linked();
    for (n, (r1, r2)) in [("d", "e"), ("f", "g")].into_iter().enumerate() {
        let create = Command::DeviceCreate { name: r1.into(), size_bytes: 4 * TRACK, pool: None };
        two.command(A, create).unwrap();
        two.rigs[A].attach(1 + n as u64, r1);
        let command = Command::RemoteCreate {
            request: 100 + n as u64,
            device: r1.into(),
            peer: "b".into(),
            peer_device: r2.into(),
            half: PairHalf::R1,
            from: PairHalf::R1,
            create_local: None,
            create_peer: Some(twintrack_link::manage::NewDevice { pool: None, size_bytes: 4 * TRACK }),
            mode: PairMode::Synchronous,
            policy: PairPolicy::Continue,
            group: Some("g".into()),
        };
        two.command(A, command).unwrap();
        two.settle();
    }
    two.wait(Duration::from_secs(12));
    two
}

/// A group goes back as a whole, to one instant, also when the copy into one of its halves was complete.
#[test]
fn a_group_goes_back_to_one_instant() {
    let (mut went_back, mut one_complete) = (0, 0);
    for effects in 0..250 {
        let mut two = grouped();
        for conn in [1, 2] {
            two.write(A, conn, 0, TRACK as usize, 1);
            two.flush(A, conn);
        }
        two.cut();
        two.write(A, 1, 0, TRACK as usize, 2);
        for track in 0..4 {
            two.write(A, 2, track * TRACK, TRACK as usize, 2);
        }
        two.heal();
        for _ in 0..effects {
            two.step_on();
        }
        two.stop(A);
        two.restart(B);
        if two.command(B, FORCE("e")).is_err() {
            went_back += 1;
            one_complete += u32::from(complete(&two, "e") != complete(&two, "g"));
            two.command(B, GO_BACK("e")).unwrap();
        }
        let first = [two.content(B, "e")[0], two.content(B, "g")[0]];
        assert!(first == [1, 1] || first == [2, 2], "after {effects} effects: {first:?}");
        for device in ["e", "g"] {
            assert!(two.rigs[B].attach_error(device).is_none(), "after {effects} effects");
        }
    }
    assert!(went_back > 20 && one_complete > 0, "{went_back} {one_complete}");
}

/// R2 lost with its power what a host has flushed since, at R1, and is sent it again: what the host wrote after the flush, to
/// another volume of the group, does not get there before.
#[test]
fn a_group_stays_in_order_after_a_crash_of_r2() {
    let mut in_between = 0;
    let orders = [(1, 2), (2, 1)];
    for (at, (first, then)) in (0..40).step_by(2).flat_map(|at| orders.map(|order| (at, order))) {
        for more in (0..40).step_by(5) {
            let mut two = grouped();
            two.write(A, first, 0, TRACK as usize, 1);
            two.restart(B);
            (0..at).for_each(|_| two.step_on());
            two.flush(A, first);
            two.rigs[A].write(then, 0, TRACK as usize, 2);
            (0..more).for_each(|_| two.step_on());
            two.stop(A);
            if two.command(B, FORCE("e")).is_err() {
                two.command(B, GO_BACK("e")).unwrap();
                in_between += 1;
            }
            let [e, g] = [two.content(B, "e")[0], two.content(B, "g")[0]];
            let has = if first == 1 { [e, g] } else { [g, e] };
            assert!(has != [0, 2], "{first} flushed after {at} effects, and gone {more} after that");
        }
    }
    assert!(in_between > 20, "{in_between}");
}

/// So nothing is sent of a volume before R2 keeps what it has of all of its group.
#[test]
fn nothing_is_sent_before_r2_keeps_the_whole_group() {
    let mut behind = 0;
    for (at, (first, then)) in (0..60).flat_map(|at| [(1, 2), (2, 1)].map(|order| (at, order))) {
        let mut two = grouped();
        // Regions are marked, so that nothing is waited for.
        two.write(A, then, TRACK, 512, 1);
        two.write(A, first, 0, TRACK as usize, 1);
        two.restart(B);
        two.said.clear();
        (0..at).for_each(|_| two.step_on());
        two.rigs[A].write(then, TRACK, 512, 2);
        two.wait(Duration::from_secs(20));
        let said = |array, what: &str| {
            let found = |(by, said): &(usize, String)| *by == array && said.contains(what);
            two.said.iter().position(found)
        };
        let answered = |begin: usize| {
            let number = two.said[begin].1.split(' ').next().unwrap();
            said(B, &format!("{number} is Done")).unwrap()
        };
        let pair = |conn| ["d", "f"][conn as usize - 1];
        let [first, then] = [first, then].map(|conn| {
            let tables = two.rigs[A].firmware.tables();
            tables.pair_of_device(tables.device_named(pair(conn)).unwrap().0).unwrap()
        });
        let Some(sent) = said(A, &format!(" write {then}/t1 0+512")) else { continue };
        behind += 1;
        let begin = said(A, &format!("Begin {{ pair: {first:?} }}")).unwrap();
        assert!(answered(begin) < sent, "written after {at} effects: {:?}", two.said);
    }
    assert!(behind > 20, "{behind}");
}

/// What is kept is looked at, and not written; when its pair ends it stays, for a person to remove.
#[test]
fn a_pair_that_ends_amid_a_copy_leaves_its_safety_copy() {
    let (mut two, before) = behind();
    amid_the_copy(&mut two);
    two.command(B, Command::DeviceOnline { name: "e.safe-1".into(), online: true }).unwrap();
    two.rigs[B].attach(5, "e.safe-1");
    assert_eq!(two.try_write(B, 5, 0, 512, 9), Err(HostError::ReadOnly));
    let trim = HostOp::Trim { offset: 0, length: TRACK as u32, fua: false };
    let tag = two.rigs[B].host(5, trim);
    assert!(matches!(two.rigs[B].replies.remove(&tag), Some(Err(HostError::ReadOnly))));
    two.cut();
    two.command(B, Command::RemoteDelete { device: "e".into(), force: true }).unwrap();
    assert_eq!(two.content(B, "e.safe-1"), before);
    two.restart(B);
    two.settle();
    let left = sessions(&mut two, B);
    assert_eq!((left.len(), left[0].pinned.as_ref().unwrap().needed), (1, false));
    two.command(B, Command::DeviceDelete { name: "e".into() }).unwrap_err();
    two.command(B, Command::SessionRemove { session: left[0].id }).unwrap();
    two.command(B, Command::DeviceDelete { name: "e".into() }).unwrap();
    assert!(two.rigs[B].firmware.tables().device_named("e.safe-1").is_none());
}

/// F4: what was given up stays after the resync, whatever room there is, until a person removes it.
#[test]
fn a_loser_stays_until_a_person_removes_it() {
    let mut two = Two::synchronized(8);
    two.cut();
    two.write(A, 1, 0, 512, 1);
    two.command(B, FORCE("e")).unwrap();
    two.rigs[B].attach(2, "e");
    two.write(B, 2, 0, 512, 2);
    two.detach(B, 2);
    let lost = two.content(B, "e");
    two.heal();
    two.wait(Duration::from_secs(20));
    two.command(A, Command::RemoteResolve { device: "d".into(), keep: PairHalf::R1 }).unwrap();
    two.stop(A);
    let kept = two.show(B, "e").safety_copy.unwrap();
    assert_eq!(kept.device, "e.lost-1");
    let refused = two.command(B, FORCE("e")).unwrap_err();
    assert!(refused.reason.contains("e.lost-1"), "{refused}");
    two.start(A);
    two.wait(Duration::from_secs(20));
    assert_eq!(two.status(A, "d"), PairStatusInfo::Synchronized);
    two.restart(B);
    two.wait(Duration::from_secs(20));
    assert_eq!(two.content(B, "e.lost-1"), lost);
    let [session] = &sessions(&mut two, B)[..] else { panic!("there is one") };
    let pinned = session.pinned.as_ref().unwrap();
    assert_eq!((pinned.what, pinned.needed), (PinnedKind::Loser, false));
    two.command(B, Command::SessionRemove { session: session.id }).unwrap();
    assert_eq!(sessions(&mut two, B), []);
}

/// Where room runs out, the copy gives way: the pair halts and says why, hosts of either array write on, and no session of
/// theirs is failed for it. With more room the copy goes on.
#[test]
fn a_resync_leaves_room_for_hosts() {
    let mut two = Two::with_tracks(64).link_up();
    two.device(A, "d", 24);
    two.create("d", "e", true).unwrap();
    two.settle();
    two.write(A, 1, 0, 24 * TRACK as usize, 1);
    two.settle();
    assert_eq!(two.status(A, "d"), PairStatusInfo::Synchronized);
    let create = Command::DeviceCreate { name: "own".into(), size_bytes: 16 * TRACK, pool: None };
    two.command(B, create).unwrap();
    two.rigs[B].attach(3, "own");
    two.write(B, 3, 0, 16 * TRACK as usize, 8);
    two.cut();
    two.write(A, 1, 0, 24 * TRACK as usize, 2);
    two.heal();
    two.wait(Duration::from_secs(5));
    let info = two.show(A, "d");
    assert_eq!(info.status, PairStatusInfo::Suspended, "{info:?}");
    assert!(info.why.contains("full") && info.next.contains("make room"), "{info:?}");
    let tables = two.rigs[B].firmware.tables();
    assert!(tables.sessions().all(|(_, session)| matches!(session.pinned, Some(Pinned::SafetyCopy(_)))));
    let free = tables.pool_space(twintrack_core::PoolId(0)).free;
    assert!((4..=7).contains(&free), "a tenth is left for hosts: {free}");
    two.write(A, 1, 0, TRACK as usize, 3);
    two.write(B, 3, 0, TRACK as usize, 9);
    // The room of what nobody needs any more.
    two.detach(B, 3);
    two.command(B, Command::DeviceDelete { name: "own".into() }).unwrap();
    two.wait(Duration::from_secs(30));
    assert_eq!(two.status(A, "d"), PairStatusInfo::Synchronized);
    assert_eq!(two.content(B, "e"), two.content(A, "d"));
}
