//! F5: who fails over by force is told up to when all is there that the other array had answered hosts, and how far the other
//! half is behind.

mod rig;
#[path = "remote/two.rs"]
mod two;

use std::time::Duration;

use twintrack_link::manage::{Answer, Command, PairMode, PairStatusInfo};
use two::{A, B, TRACK, Two};

fn now_ms(two: &Two) -> u64 {
    two.rigs[A].wall_ms().max(two.rigs[B].wall_ms())
}

/// Forces B, and gives what it says.
fn force(two: &mut Two) -> Option<u64> {
    let force = Command::RemoteFailover { device: "e".into(), force: true };
    let Answer::Remotes(pairs) = two.command(B, force).unwrap() else { panic!("not the pairs") };
    let forced = pairs[0].forced.clone().expect("it was forced");
    assert_eq!(two.show(B, "e").forced, Some(forced.clone()), "it stays so");
    forced.had_all_ms
}

fn set_mode(two: &mut Two, mode: PairMode) {
    two.command(A, Command::RemoteMode { device: "d".into(), mode }).unwrap();
    two.settle();
}

/// R1 is gone: nothing of before the last ping is lost. That stays so over a restart of R2 afterwards.
#[test]
fn of_a_pair_that_was_synchronized() {
    let mut two = Two::synchronized(8);
    two.write(A, 1, 0, 4096, 3);
    two.wait(Duration::from_secs(30));
    let gone_ms = now_ms(&two);
    two.stop(A);
    two.wait(Duration::from_secs(3600));
    let had_all_ms = force(&mut two).unwrap();
    assert!((gone_ms - 6_000..=gone_ms).contains(&had_all_ms), "{had_all_ms}, gone at {gone_ms}");
    assert_eq!(two.show(B, "e").lag_ms, Some(0), "R1 is behind since then");
    two.restart(B);
    two.wait(Duration::from_secs(10));
    assert_eq!(two.show(B, "e").forced.unwrap().had_all_ms, Some(had_all_ms));
}

/// Both have served since: who stands by after a failover knows it like who always did.
#[test]
fn of_a_pair_that_was_failed_over_and_back() {
    let mut two = Two::synchronized(8);
    two.wait(Duration::from_secs(30));
    for (array, device) in [(B, "e"), (A, "d")] {
        two.command(array, Command::RemoteFailover { device: device.into(), force: false }).unwrap();
        two.wait(Duration::from_secs(30));
        assert_eq!([two.show(A, "d").lag_ms, two.show(B, "e").lag_ms], [Some(0); 2]);
    }
    let gone_ms = now_ms(&two);
    two.stop(A);
    let had_all_ms = force(&mut two).unwrap();
    assert!((gone_ms - 6_000..=gone_ms).contains(&had_all_ms), "{had_all_ms}, gone at {gone_ms}");
}

/// On a busy link, too, though R2 sends nothing of itself.
#[test]
fn of_a_busy_pair() {
    let mut two = Two::synchronized(8);
    for n in 0..200 {
        two.write(A, 1, 0, 4096, n);
        two.wait(Duration::from_millis(100));
    }
    let gone_ms = now_ms(&two);
    two.stop(A);
    let had_all_ms = force(&mut two).unwrap();
    assert!((gone_ms - 6_000..=gone_ms).contains(&had_all_ms), "{had_all_ms}, gone at {gone_ms}");
}

/// R1 was suspended, or lost the link, and went on alone; and then it is gone.
#[test]
fn of_a_pair_that_was_halted() {
    for cuts in [false, true] {
        let mut two = Two::synchronized(8);
        two.wait(Duration::from_secs(30));
        let halted_ms = now_ms(&two);
        if cuts {
            two.cut();
        } else {
            let device = "d".into();
            two.command(A, Command::RemoteSuspend { device, whole_group: false, split: false }).unwrap();
        }
        two.wait(Duration::from_secs(60));
        two.write(A, 1, 0, 4096, 3);
        two.wait(Duration::from_secs(60));
        let behind_ms = now_ms(&two) - halted_ms;
        for (array, device) in [(A, "d"), (B, "e")] {
            let lag_ms = two.show(array, device).lag_ms.unwrap();
            assert!((behind_ms..behind_ms + 6_000).contains(&lag_ms), "{lag_ms} of {behind_ms}");
        }
        two.cut();
        let had_all_ms = force(&mut two).unwrap();
        assert!((halted_ms - 6_000..=halted_ms).contains(&had_all_ms), "{had_all_ms}, at {halted_ms}");
    }
}

/// In adaptive mode hosts have their answers before: what counts is the last time when all had been copied.
#[test]
fn of_a_pair_that_is_behind() {
    let mut two = Two::synchronized(8);
    set_mode(&mut two, PairMode::Adaptive);
    two.wait(Duration::from_secs(30));
    two.write(A, 1, 0, 4096, 3);
    let copied_ms = now_ms(&two);
    two.settle();
    assert_eq!(two.show(A, "d").lag_ms, Some(0));
    two.wait(Duration::from_secs(30));
    two.write(A, 1, TRACK, 4096, 4);
    two.cut();
    two.wait(Duration::from_secs(30));
    let lag_ms = two.show(A, "d").lag_ms.unwrap();
    assert!((30_000..31_000).contains(&lag_ms), "{lag_ms}");
    let had_all_ms = force(&mut two).unwrap();
    assert!((copied_ms - 6_000..copied_ms + 1_000).contains(&had_all_ms), "{had_all_ms}, at {copied_ms}");
}

/// R2 does not remember more than when it last became whole: less is claimed, nothing false.
#[test]
fn after_a_restart() {
    let mut two = Two::synchronized(8);
    let copied_ms = now_ms(&two);
    two.wait(Duration::from_secs(600));
    two.stop(A);
    two.restart(B);
    assert_eq!(two.show(B, "e").lag_ms, None);
    two.wait(Duration::from_secs(20));
    assert!(force(&mut two).unwrap() <= copied_ms);
}

/// Who had served itself, and does not know whether the other one did since, claims nothing.
#[test]
fn of_who_served() {
    let mut two = Two::synchronized(8);
    two.stop(B);
    two.restart(A);
    let force = Command::RemoteFailover { device: "d".into(), force: true };
    let Answer::Remotes(pairs) = two.command(A, force).unwrap() else { panic!("not the pairs") };
    assert_eq!(pairs[0].forced.as_ref().map(|forced| forced.had_all_ms), Some(None));
}

/// Once the other array knows of it, it is history.
#[test]
fn until_both_arrays_agree() {
    let mut two = Two::synchronized(8);
    two.stop(A);
    force(&mut two);
    two.start(A);
    two.wait(Duration::from_secs(20));
    let told = two.show(B, "e");
    assert_eq!((told.status, told.forced, told.lag_ms), (PairStatusInfo::R1Updated, None, Some(0)));
}
