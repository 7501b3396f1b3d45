//! Two firmwares and how their pairs end, deleted at the one array or the other, at any time.

mod rig;
#[path = "remote/two.rs"]
mod two;

use std::time::Duration;

use twintrack_controller::firmware::{AttachError, Effect, HostError, HostOp};
use twintrack_core::Stage;
use twintrack_link::manage::{Command, NewDevice, PairHalf, PairMode, PairPolicy};
use two::{A, B, TRACK, Two};

fn delete(two: &mut Two, array: usize, device: &str, force: bool) -> Result<(), String> {
    let command = Command::RemoteDelete { device: device.into(), force };
    two.command(array, command).map(drop).map_err(|refusal| refusal.reason)
}

fn pairs(two: &Two) -> [usize; 2] {
    [A, B].map(|array| two.rigs[array].firmware.tables().pairs().count())
}

/// A pair ends: both devices stay, free.
#[test]
fn a_pair_is_deleted() {
    let mut two = Two::synchronized(8);
    two.command(A, Command::RemoteDelete { device: "d".into(), force: false }).unwrap();
    two.settle();
    for (array, name) in [(A, "d"), (B, "e")] {
        assert_eq!(two.rigs[array].firmware.tables().pairs().count(), 0);
        two.command(array, Command::DeviceDelete { name: name.into() }).unwrap();
    }
}

/// A9: what only the other array has is not given up by a deletion, whichever array is asked; by force it is, where the force
/// is used, and the half that lacks it gives errors for it, not zeros.
#[test]
fn a_pair_is_not_deleted_while_the_source_lacks_something() {
    let mut two = Two::linked();
    two.device(A, "d", 8);
    two.device(B, "e", 8);
    two.write(B, 1, 2 * TRACK, 4096, 9);
    two.detach(B, 1);
    two.create_from("d", "e", PairHalf::R2).unwrap();
    for (array, name) in [(A, "d"), (B, "e")] {
        let refused = two.command(array, Command::RemoteDelete { device: name.into(), force: false });
        let reason = refused.unwrap_err().reason;
        assert!(reason.contains("have not been copied"), "{reason}");
    }
    two.command(B, Command::RemoteDelete { device: "e".into(), force: true }).unwrap();
    assert_eq!(two.read(A, 1, 2 * TRACK, 4096), Err(HostError::Io));
    assert!(two.show(A, "d").why.contains("it was removed there"));
    two.command(A, Command::RemoteDelete { device: "d".into(), force: true }).unwrap();
    two.settle();
    assert!([A, B].iter().all(|array| two.rigs[*array].firmware.tables().pairs().count() == 0));
    assert_eq!(two.content(B, "e")[2 * 32], 9);
}

/// A deletion asked for at the half that stands by.
#[test]
fn a_pair_is_deleted_at_either_array() {
    let mut two = Two::synchronized(8);
    two.command(B, Command::RemoteDelete { device: "e".into(), force: false }).unwrap();
    two.settle();
    assert!([A, B].iter().all(|array| two.rigs[*array].firmware.tables().pairs().count() == 0));
}

/// What the other array had sent is written, or refused, before hosts use the half again: what they read would change by itself
/// (`create` 473: it did).
#[test]
fn a_deleted_half_is_its_hosts_when_nothing_is_written_into_it_any_more() {
    for (at, name) in [(A, "d"), (B, "e")] {
        let mut two = Two::linked();
        two.device(A, "d", 8);
        two.device(B, "e", 8);
        two.detach(B, 1);
        (0..8).for_each(|track| two.write(A, 1, track * TRACK, 4096, 7));
        two.begin_create("d", "e", false);
        let is_write = |effect: &Effect| matches!(effect, Effect::Write { .. });
        while !two.rigs[B].pending.iter().any(is_write) {
            two.step_on();
        }
        let slow = std::mem::take(&mut two.rigs[B].pending);
        let (slow, rest) = slow.into_iter().partition(is_write);
        two.rigs[B].pending = rest;
        delete(&mut two, at, name, false).unwrap();
        two.settle();
        assert_eq!(pairs(&two)[B], 0);
        assert_eq!(two.rigs[B].attach_error("e"), Some(AttachError::NotReady));
        two.rigs[B].pending.extend::<std::collections::VecDeque<_>>(slow);
        two.settle();
        assert_eq!(two.rigs[B].attach_error("e"), None);
        assert_eq!(pairs(&two), [0, 0]);
    }
}

/// A pair of what the other array is to make of this one's volume, asked for by the half that stands by, deleted at any time at
/// the half that is made: both go, or none. Once the half that had the content went alone (`create` 496).
#[test]
fn a_pair_is_deleted_while_it_is_made() {
    let mut kept = 0;
    for effects in 0..80 {
        let mut two = Two::linked();
        two.device(B, "e", 8);
        (0..8).for_each(|track| two.write(B, 1, track * TRACK, 4096, 9));
        two.detach(B, 1);
        two.rigs[B].manage(Command::RemoteCreate {
            request: 78,
            device: "e".into(),
            peer: "a".into(),
            peer_device: "d".into(),
            half: PairHalf::R2,
            from: PairHalf::R2,
            create_local: None,
            create_peer: Some(NewDevice { pool: None, size_bytes: 8 * TRACK }),
            mode: PairMode::Synchronous,
            policy: PairPolicy::Continue,
            group: None,
        });
        for _ in 0..effects {
            two.carry_out();
        }
        let done = delete(&mut two, A, "d", false);
        two.wait(Duration::from_secs(20));
        let left = pairs(&two);
        assert!(
            left == [0, 0] && done.is_ok() || left == [1, 1] && done.is_err(),
            "{effects}: {left:?} {done:?}"
        );
        kept += left[A];
    }
    assert!(kept > 10 && kept < 80, "{kept}");
}

/// A6: the volume that was made for a pair stays when the pair is deleted, also by force at the array that has not heard yet that
/// the pair is made; whoever asked for it has been told (`create` 836: it went).
#[test]
fn a_volume_that_was_made_for_a_pair_stays() {
    let mut two = Two::linked();
    two.device(A, "d", 4);
    two.begin_create("d", "e", true);
    let stage = |two: &Two, array: usize| {
        two.rigs[array].firmware.tables().pairs().next().map(|(_, record)| record.stage)
    };
    while two.rigs[A].answers.is_empty() {
        assert!(two.rigs[B].answers.is_empty());
        two.step_on();
    }
    assert_eq!((stage(&two, A), stage(&two, B)), (Some(Stage::Ready), Some(Stage::Creating)));
    delete(&mut two, B, "e", true).unwrap();
    two.wait(Duration::from_secs(20));
    assert_eq!(pairs(&two), [0, 0]);
    assert_eq!(two.rigs[B].attach_error("e"), None);
}

/// By force the half that stood by ends alone; when the other array hears of that later, hosts have long been using the volume, and
/// go on.
#[test]
fn a_half_that_ended_alone_is_its_hosts_for_good() {
    let mut two = Two::synchronized(4);
    two.cut();
    delete(&mut two, B, "e", true).unwrap();
    two.settle();
    two.rigs[B].attach(2, "e");
    two.write(B, 2, 0, 4096, 9);
    two.heal();
    let mut met = false;
    for _ in 0..10_000 {
        met |= pairs(&two) == [0, 0];
        two.step_on();
        let tag = two.rigs[B].host(2, HostOp::Read { offset: 0, length: 512 });
        while !two.rigs[B].replies.contains_key(&tag) {
            two.step_on();
        }
        assert!(two.rigs[B].replies[&tag].is_ok(), "{:?}", two.rigs[B].replies[&tag]);
        if met && two.on_the_way(A) + two.on_the_way(B) == 0 {
            return;
        }
    }
    panic!("the arrays do not meet");
}
