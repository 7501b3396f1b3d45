//! Points in time on both arrays (F3), with two firmwares: the same on both, byte for byte, while hosts write; and both or
//! none, whoever crashes when, and whenever the link breaks.

mod rig;
#[path = "remote/two.rs"]
mod two;

use std::time::Duration;

use twintrack_controller::firmware::HostOp;
use twintrack_link::manage::{
    Answer, Command, NewDevice, PairHalf, PairMode, PairPolicy, PairStatusInfo, Refusal, RefusalCode,
    RemoteSnapshotInfo, SessionInfo, SessionInfoState,
};
use two::{A, B, TRACK, Two};

const REQUEST: u64 = 500;

fn snapshot(request: u64, devices: &[&str]) -> Command {
    Command::RemoteSnapshot {
        request,
        devices: devices.iter().map(|name| (*name).to_owned()).collect(),
        whole_group: true,
        name: "now".into(),
        offline: false,
    }
}

fn made(answer: Result<Answer, Refusal>) -> Vec<RemoteSnapshotInfo> {
    match answer {
        Ok(Answer::RemoteSnapshots(made)) => made,
        other => panic!("{other:?}"),
    }
}

fn sessions(two: &mut Two, array: usize) -> Vec<SessionInfo> {
    match two.command(array, Command::SessionList { standard: None }).unwrap() {
        Answer::Sessions(sessions) => sessions,
        other => panic!("{other:?}"),
    }
}

/// Two pairs of a consistency group, d – e and f – g, synchronized; connections 1 and 2 of A are attached.
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
            create_peer: Some(NewDevice { pool: None, size_bytes: 4 * TRACK }),
            mode: PairMode::Synchronous,
            policy: PairPolicy::Continue,
            group: Some("g".into()),
        };
        two.command(A, command).unwrap();
        two.settle();
    }
    two.wait(Duration::from_secs(12));
    assert_eq!([two.status(A, "d"), two.status(A, "f")], [PairStatusInfo::Synchronized; 2]);
    two
}

/// Of both halves, and named after them; they stay what they are when the volumes are written.
#[test]
fn both_arrays_have_the_same_snapshot() {
    let mut two = grouped();
    two.write(A, 1, TRACK, 4096, 3);
    two.write(A, 2, 0, 512, 4);
    let made = made(two.command(A, snapshot(REQUEST, &["d"])));
    let told: Vec<_> = made
        .iter()
        .map(|made| {
            let here = made.here.virtual_device.as_deref().unwrap();
            (here, made.virtual_device_there.as_str(), made.shown_there, made.there.is_some())
        })
        .collect();
    assert_eq!(told, [("d.now", "e.now", true, true), ("f.now", "g.now", true, true)]);
    let then = [two.content(A, "d"), two.content(A, "f")];
    two.write(A, 1, TRACK, 8192, 7);
    two.write(A, 2, 0, 8192, 7);
    two.settle();
    for (here, there, content) in [("d.now", "e.now", &then[0]), ("f.now", "g.now", &then[1])] {
        assert_eq!(&two.content(A, here), content);
        assert_eq!(&two.content(B, there), content);
    }
    two.rigs[B].attach(9, "e.now");
    assert_eq!(two.read(B, 9, TRACK, 512).unwrap(), [3]);
    two.write(B, 9, 0, 512, 9);
    let again = two.command(A, snapshot(REQUEST, &["f"]));
    assert_eq!(self::made(again).len(), 2, "the same request has the same result");
    assert_eq!(sessions(&mut two, A).len(), 2);
    for array in [A, B] {
        let all = sessions(&mut two, array);
        assert!(all.iter().all(|info| info.state == SessionInfoState::Active && info.pinned.is_none()));
        for info in all {
            two.command(array, Command::SessionRemove { session: info.id }).unwrap();
        }
    }
}

/// What is under way when it is asked for is in both, wherever it is on its way; what comes after is in neither.
#[test]
fn it_is_one_instant_while_hosts_write() {
    for effects in 0..30 {
        let mut two = grouped();
        two.write(A, 1, 0, TRACK as usize, 1);
        // Over a session of before: in place, and to a new track.
        let early = [(1, 0), (1, 512), (2, 2 * TRACK)].map(|(conn, at)| two.rigs[A].write(conn, at, 4096, 2));
        (0..effects).for_each(|_| two.step_on());
        let call = two.rigs[A].manage(snapshot(REQUEST, &["d"]));
        let late = [(1, 512), (2, 2 * TRACK), (2, 0)].map(|(conn, at)| two.rigs[A].write(conn, at, 4096, 3));
        let flush = two.rigs[A].host(1, HostOp::Flush);
        two.wait(Duration::from_secs(5));
        for tag in early.into_iter().chain(late).chain([flush]) {
            two.rigs[A].replies.remove(&tag).unwrap().unwrap();
        }
        let made = made(two.rigs[A].answers.remove(&call).unwrap());
        assert!(made.iter().all(|made| made.shown_there));
        let [d, f] = ["d.now", "f.now"].map(|name| two.content(A, name));
        assert_eq!([&d, &f], [&two.content(B, "e.now"), &two.content(B, "g.now")], "after {effects} effects");
        assert!(!d.contains(&3) && !f.contains(&3), "after {effects} effects");
        assert!(d[..9] == [2; 9] && f.contains(&2), "after {effects} effects");
        assert_eq!(two.content(A, "d")[1], 3);
    }
}

/// It was asked for, and what became of it: of both arrays both or none of the volumes have a snapshot, all of one instant.
fn check(two: &mut Two, when: &str) -> bool {
    two.wait(Duration::from_secs(30));
    let shown = [(A, ["d.now", "f.now"]), (B, ["e.now", "g.now"])].map(|(array, names)| {
        names.map(|name| {
            let there = two.rigs[array].firmware.tables().device_named(name).is_some();
            assert_eq!(
                there,
                two.rigs[array].attach_error(name).is_none(),
                "{when}: {name} is there, and not shown"
            );
            there
        })
    });
    let all = shown[0][0];
    assert_eq!(shown, [[all; 2]; 2], "{when}");
    for array in [A, B] {
        let states: Vec<_> = sessions(two, array).into_iter().map(|info| (info.state, info.pinned)).collect();
        let wanted = vec![(SessionInfoState::Active, None); if all { 2 } else { 0 }];
        assert_eq!(states, wanted, "{when}: array {array}");
    }
    if all {
        assert_eq!(two.content(A, "d.now"), two.content(B, "e.now"), "{when}");
        assert_eq!(two.content(A, "f.now"), two.content(B, "g.now"), "{when}");
    }
    all
}

/// F2: both or none, whichever array loses its power after any number of effects; and who asks again with the same number
/// gets what there is, or has it made.
#[test]
fn a_crash_leaves_both_or_none() {
    let mut ends = [0, 0];
    for crashed in [A, B] {
        for effects in 0..40 {
            let mut two = grouped();
            two.write(A, 1, 0, TRACK as usize, 1);
            let call = two.rigs[A].manage(snapshot(REQUEST, &["d"]));
            two.rigs[A].write(1, 0, TRACK as usize, 2);
            (0..effects).for_each(|_| two.step_on());
            two.restart(crashed);
            let when = format!("array {crashed} crashed after {effects} effects");
            let there = check(&mut two, &when);
            ends[usize::from(there)] += 1;
            match two.rigs[A].answers.remove(&call) {
                Some(answer) => assert_eq!(answer.is_ok(), there, "{when}: {answer:?}"),
                None => assert_eq!(crashed, A, "{when}: no answer"),
            }
            for array in [A, B] {
                two.command(array, Command::ArrayShow {}).unwrap();
            }
            match two.command(A, snapshot(REQUEST, &["d"])) {
                Ok(_) => assert!(check(&mut two, &when)),
                // It failed, and that is remembered.
                Err(refusal) => {
                    assert!(!there && refusal.code == RefusalCode::WrongState, "{when}: {refusal}");
                }
            }
        }
    }
    assert!(ends.iter().all(|count| *count > 10), "{ends:?}");
}

/// So when the link breaks.
#[test]
fn a_broken_link_leaves_both_or_none() {
    let mut ends = [0, 0];
    for effects in 0..40 {
        let mut two = grouped();
        two.write(A, 1, 0, TRACK as usize, 1);
        let call = two.rigs[A].manage(snapshot(REQUEST, &["d"]));
        two.rigs[A].write(1, 0, TRACK as usize, 2);
        (0..effects).for_each(|_| two.step_on());
        two.cut();
        two.wait(Duration::from_secs(1));
        let answer = two.rigs[A].answers.remove(&call).expect("answered without the other array");
        two.heal();
        let there = check(&mut two, &format!("the link broke after {effects} effects"));
        assert_eq!(answer.is_ok(), there, "{answer:?}");
        ends[usize::from(there)] += 1;
    }
    assert!(ends.iter().all(|count| *count > 5), "{ends:?}");
}

/// What was decided the other array hears of however late, also when the array that decided was down meanwhile; until then
/// it keeps its part, and lets nobody read it.
#[test]
fn what_was_decided_is_heard_of() {
    let mut undecided = 0;
    for effects in 0..40 {
        let mut two = grouped();
        two.write(A, 1, 0, TRACK as usize, 1);
        two.rigs[A].manage(snapshot(REQUEST, &["d"]));
        (0..effects).for_each(|_| two.step_on());
        two.stop(A);
        two.restart(B);
        two.command(B, Command::RemoteFailover { device: "e".into(), force: true }).unwrap();
        two.rigs[B].attach(7, "e");
        two.write(B, 7, 0, TRACK as usize, 9);
        for info in sessions(&mut two, B).iter().filter(|info| info.state == SessionInfoState::Prepared) {
            undecided += 1;
            let refused = two.command(B, Command::SessionRemove { session: info.id }).unwrap_err();
            assert!(refused.reason.contains("decided at the next contact"), "{refused}");
            assert!(two.rigs[B].attach_error(info.virtual_device.as_deref().unwrap()).is_some());
        }
        two.start(A);
        check(&mut two, &format!("stopped after {effects} effects"));
    }
    assert!(undecided > 10, "{undecided}");
}

/// A write that was answered by neither array finds no room at the other one: then the halves are not the same, and there is
/// no snapshot, of whichever of its volumes.
#[test]
fn a_write_that_fails_there_is_waited_for() {
    let mut two = Two::with_tracks(16).link_up();
    two.device(A, "d", 8);
    two.create("d", "e", true).unwrap();
    two.settle();
    let create = Command::DeviceCreate { name: "own".into(), size_bytes: 16 * TRACK, pool: None };
    two.command(B, create).unwrap();
    two.rigs[B].attach(3, "own");
    two.write(B, 3, 0, 15 * TRACK as usize, 8);
    two.write(A, 1, 0, 512, 1);
    assert_eq!(two.status(A, "d"), PairStatusInfo::Synchronized);
    two.rigs[A].write(1, TRACK, 512, 2);
    let call = two.rigs[A].manage(snapshot(REQUEST, &["d"]));
    two.wait(Duration::from_secs(5));
    let refused = two.rigs[A].answers.remove(&call).unwrap().unwrap_err();
    assert!(refused.reason.contains("no longer synchronized"), "{refused}");
    assert_eq!([sessions(&mut two, A).len(), sessions(&mut two, B).len()], [0, 0]);
}

/// Pairs that go both ways, snapshots of both at once and one after the other, local sessions and writes between: nobody
/// waits for somebody who waits for him.
#[test]
fn both_ways_at_once() {
    let mut two = Two::synchronized(4);
    let create = Command::DeviceCreate { name: "x".into(), size_bytes: 4 * TRACK, pool: None };
    two.command(B, create).unwrap();
    two.rigs[B].attach(2, "x");
    let command = Command::RemoteCreate {
        request: 300,
        device: "x".into(),
        peer: "a".into(),
        peer_device: "y".into(),
        half: PairHalf::R1,
        from: PairHalf::R1,
        create_local: None,
        create_peer: Some(NewDevice { pool: None, size_bytes: 4 * TRACK }),
        mode: PairMode::Synchronous,
        policy: PairPolicy::Continue,
        group: None,
    };
    two.command(B, command).unwrap();
    two.settle();
    let mut calls = Vec::new();
    for round in 0..12u64 {
        for (array, conn, device) in [(A, 1, "d"), (B, 2, "x")] {
            two.rigs[array].write(conn, round % 4 * TRACK, 4096, round as u8 + 1);
            let mut command = snapshot(REQUEST + round, &[device]);
            if let Command::RemoteSnapshot { name, .. } = &mut command {
                *name = format!("n{round}");
            }
            calls.push((array, device, round, two.rigs[array].manage(command)));
            two.rigs[array].write(conn, round % 4 * TRACK, 8192, 99);
            (0..round * 3).for_each(|_| two.step_on());
        }
    }
    // Long before anything on the link is late.
    two.wait(Duration::from_secs(2));
    for (array, device, round, call) in calls {
        let made = made(two.rigs[array].answers.remove(&call).expect("it is answered"));
        let [made] = &made[..] else { panic!("one volume has one snapshot") };
        let here = two.content(array, &format!("{device}.n{round}"));
        assert_eq!(two.content(1 - array, &made.virtual_device_there), here);
        // What was not answered then may be in or not; what came later is not.
        let sector = (round % 4 * TRACK / 512) as usize;
        assert!(here[sector] <= round as u8 + 1 || here[sector] == 99, "{round}: {here:?}");
    }
}

/// Where the two halves are not the same there is no such snapshot, and nothing is left of the attempt.
#[test]
fn what_is_not_the_same_is_refused() {
    let mut two = grouped();
    let refused = |two: &mut Two, array, devices: &[&str]| {
        let request = REQUEST + two.said.len() as u64;
        let refusal = two.command(array, snapshot(request, devices)).unwrap_err();
        two.settle();
        assert_eq!([sessions(two, A).len(), sessions(two, B).len()], [0, 0], "{refusal}");
        refusal.reason
    };
    assert!(refused(&mut two, B, &["e"]).contains("other array serves"));
    assert!(refused(&mut two, A, &[]).contains("name at least one"));
    two.device(A, "alone", 4);
    assert!(refused(&mut two, A, &["alone"]).contains("in no pair"));
    // The name is taken here, then there.
    for (array, name) in [(A, "f.now"), (B, "e.now")] {
        two.command(array, Command::DeviceCreateVirtual { name: name.into() }).unwrap();
        assert!(refused(&mut two, A, &["d"]).contains(name), "{name}");
        two.command(array, Command::DeviceDelete { name: name.into() }).unwrap();
    }
    two.command(A, Command::RemoteMode { device: "f".into(), mode: PairMode::Adaptive }).unwrap();
    assert!(refused(&mut two, A, &["d"]).contains("remote mode f synchronous"));
    two.command(A, Command::RemoteMode { device: "f".into(), mode: PairMode::Synchronous }).unwrap();
    two.wait(Duration::from_secs(5));
    two.cut();
    two.write(A, 1, 0, 512, 1);
    assert!(refused(&mut two, A, &["d"]).contains("not the same"));
    two.heal();
    two.wait(Duration::from_secs(20));
    assert_eq!(made(two.command(A, snapshot(REQUEST, &["d"]))).len(), 2);
}
