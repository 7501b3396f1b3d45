//! Planned failovers: both arrays take part, and nothing is lost.

mod rig;
#[path = "remote/two.rs"]
mod two;

use std::time::Duration;

use twintrack_controller::firmware::HostError;
use twintrack_link::manage::{Answer, Command, PairMode, PairStatusInfo, Refusal};
use two::{A, B, TRACK, Two};

/// To R2.
fn fail_over(two: &mut Two) -> Result<Answer, Refusal> {
    two.command(B, Command::RemoteFailover { device: "e".into(), force: false })
}

/// A pair of so many tracks whose hosts do not wait for R2.
fn adaptive(tracks: u64, spare: u32) -> Two {
    let mut two = Two::with_tracks(tracks as u32 + spare).link_up();
    two.device(A, "d", tracks);
    two.create("d", "e", true).unwrap();
    two.settle();
    two.command(A, Command::RemoteMode { device: "d".into(), mode: PairMode::Adaptive }).unwrap();
    two.settle();
    assert_eq!(two.status(A, "d"), PairStatusInfo::Synchronized);
    two
}

/// Hosts write where they did; and when R2's writes end again, it takes over.
fn goes_on(two: &mut Two) {
    two.write(A, 1, 0, 4096, 4);
    two.let_writes_go(B);
    two.settle();
    fail_over(two).unwrap();
    assert_eq!(two.content(B, "e")[..8], [4; 8]);
}

/// Planned failover and back: nothing is lost, the old side serves no more.
#[test]
fn failover_and_failback() {
    let mut two = Two::synchronized(8);
    two.write(A, 1, TRACK, 4096, 3);
    two.command(B, Command::RemoteFailover { device: "e".into(), force: false }).unwrap();
    two.settle();
    assert_eq!(two.try_write(A, 1, 0, 512, 1), Err(HostError::Gone));
    two.rigs[B].attach(2, "e");
    two.write(B, 2, 2 * TRACK, 4096, 6);
    let info = two.show(B, "e");
    assert_eq!(info.status, PairStatusInfo::R1Updated, "{info:?}");
    assert_eq!(two.content(B, "e"), two.content(A, "d"));
    two.command(A, Command::RemoteFailover { device: "d".into(), force: false }).unwrap();
    two.settle();
    assert_eq!(two.status(A, "d"), PairStatusInfo::Synchronized);
    two.rigs[A].attach(3, "d");
    assert_eq!(two.read(A, 3, 2 * TRACK, 512).unwrap(), [6]);
}

/// A failover is whole or not at all, whoever crashes when; and one side serves in the end.
#[test]
fn a_failover_that_is_interrupted() {
    for crashed in [A, B] {
        for effects in 0..40 {
            let mut two = Two::synchronized(4);
            two.write(A, 1, 0, 4096, 3);
            two.flush(A, 1);
            two.rigs[B].manage(Command::RemoteFailover { device: "e".into(), force: false });
            for _ in 0..effects {
                two.carry_out();
            }
            two.restart(crashed);
            two.wait(Duration::from_secs(20));
            let serving =
                [(A, "d"), (B, "e")].map(|(array, name)| two.rigs[array].attach_error(name).is_none());
            assert_eq!(
                serving.iter().filter(|serves| **serves).count(),
                1,
                "{crashed} after {effects}: {serving:?}"
            );
            let at = if serving[0] { A } else { B };
            let name = ["d", "e"][at];
            two.rigs[at].attach(7, name);
            assert_eq!(two.read(at, 7, 0, 512).unwrap(), [3]);
        }
    }
}

/// In adaptive mode R2 is behind when it is asked for: the rest gets there first, and hosts are held off meanwhile.
#[test]
fn what_r2_lacks_gets_there_first() {
    let mut two = adaptive(40, 40);
    two.hold_writes(B);
    for track in 0..40 {
        two.write(A, 1, track * TRACK, TRACK as usize, 3);
    }
    assert_eq!(two.show(A, "d").owed_bytes, 40 * TRACK);
    let call = two.rigs[B].manage(Command::RemoteFailover { device: "e".into(), force: false });
    two.settle();
    assert!(!two.rigs[B].answers.contains_key(&call));
    assert_eq!(two.try_write(A, 1, 0, 512, 1), Err(HostError::Gone));
    two.let_writes_go(B);
    two.settle();
    two.rigs[B].answers.remove(&call).expect("it is answered").unwrap();
    assert_eq!(two.status(B, "e"), PairStatusInfo::R1Updated);
    assert_eq!(two.content(B, "e"), [3; (40 * TRACK / 512) as usize]);
    assert_eq!(two.content(A, "d"), two.content(B, "e"));
}

/// If it does not get there, hosts go on where they were.
#[test]
fn hosts_are_not_held_off_for_ever() {
    let mut two = adaptive(8, 40);
    two.hold_writes(B);
    two.write(A, 1, 0, 4096, 3);
    let call = two.rigs[B].manage(Command::RemoteFailover { device: "e".into(), force: false });
    two.wait(Duration::from_secs(4));
    assert_eq!(two.try_write(A, 1, 0, 512, 1), Err(HostError::Gone));
    two.wait(Duration::from_secs(2));
    let refusal = two.rigs[B].answers.remove(&call).expect("it is answered").unwrap_err();
    assert!(refusal.reason.contains("had not landed on both arrays after 5 s"), "{refusal}");
    goes_on(&mut two);
}

/// With much to copy nobody is held off at all.
#[test]
fn who_is_far_behind_does_not_take_over() {
    let mut two = adaptive(1100, 1300);
    two.hold_writes(B);
    for track in 0..1100 {
        two.write(A, 1, track * TRACK, 4096, 3);
    }
    let refusal = fail_over(&mut two).unwrap_err();
    assert!(refusal.reason.contains("MiB are still to be copied"), "{refusal}");
    goes_on(&mut two);
}

/// Of a pair that does not move nothing gets there.
#[test]
fn who_is_suspended_does_not_take_over() {
    let mut two = adaptive(8, 40);
    two.command(A, Command::RemoteSuspend { device: "d".into(), whole_group: false, split: false }).unwrap();
    let refusal = fail_over(&mut two).unwrap_err();
    assert!(refusal.reason.contains("resume it"), "{refusal}");
    two.write(A, 1, 0, 4096, 4);
}
