//! A pool that keeps its sessions and refuses writes instead, step by step.

mod rig;

use std::time::Duration;

use rig::Rig;
use twintrack_controller::firmware::{Event, HostError, HostOp, PoolPolicy, Reply, Threshold};
use twintrack_link::manage::{Answer, Command, SessionInfoState, WhenFull};

const TRACK: u64 = 16 << 10;

/// Six tracks: four of content, one kept for each of two sessions; none is free.
fn full(when_full: WhenFull) -> (Rig, u32, u32) {
    let mut rig = Rig::with_device(6, 4 * TRACK);
    rig.policy = PoolPolicy { when_full, warn_below: Threshold::Bytes(TRACK) };
    let (old, new) = rig.quiet(|rig| {
        rig.restart();
        rig.settle();
        rig.attach(1, "d");
        rig.write(1, 0, 4 * TRACK as usize, 1);
        rig.settle();
        let old = rig.establish("old", 2);
        rig.write(1, 0, TRACK as usize, 2);
        rig.settle();
        let new = rig.establish("new", 3);
        rig.write(1, 0, TRACK as usize, 3);
        rig.settle();
        rig.do_host(1, HostOp::Flush).unwrap();
        (old, new)
    });
    assert_eq!(rig.firmware.tables().used_tracks(), 6);
    (rig, old, new)
}

fn write(rig: &mut Rig, track: u64, fill: u8) -> Result<Reply, HostError> {
    let data = vec![fill; TRACK as usize].into();
    rig.do_host(1, HostOp::Write { offset: track * TRACK, data, fua: false })
}

fn state(rig: &mut Rig, session: u32) -> SessionInfoState {
    let answer = rig.command(Command::SessionList { standard: None }).unwrap();
    let Answer::Sessions(infos) = answer else { panic!("{answer:?}") };
    infos.iter().find(|info| info.id == session).unwrap().state
}

/// The write is refused and nothing has changed: no unit, no session, no content; what needs no track goes on.
#[test]
fn a_write_is_refused_and_changes_nothing() {
    let (mut rig, old, new) = full(WhenFull::RefuseWrites);
    let before = rig.firmware.tables().last_unit();
    assert_eq!(write(&mut rig, 1, 4), Err(HostError::NoSpace));
    insta::assert_snapshot!(rig.log);
    assert_eq!(rig.firmware.tables().last_unit(), before);
    assert_eq!(rig.firmware.tables().used_tracks(), 6);
    assert_eq!(
        (state(&mut rig, old), state(&mut rig, new)),
        (SessionInfoState::Active, SessionInfoState::Active)
    );
    assert_eq!(rig.read(1, TRACK, 512).unwrap(), [1]);
    assert_eq!(rig.read(2, 0, 512).unwrap(), [1]);
    assert_eq!(rig.read(3, 0, 512).unwrap(), [2]);
    assert_eq!(write(&mut rig, 0, 5), Ok(Reply::Done), "in place");
    assert_eq!(rig.do_host(1, HostOp::Flush), Ok(Reply::Done));
    let Answer::Array(info) = rig.command(Command::ArrayShow {}).unwrap() else { panic!() };
    assert_eq!(info.warnings.len(), 1);
    assert!(info.warnings[0].ends_with("before writes are refused"), "{:?}", info.warnings);
    let Answer::Pools(pools) = rig.command(Command::PoolList {}).unwrap() else { panic!() };
    assert_eq!((pools[0].when_full, pools[0].warn_below_bytes), (WhenFull::RefuseWrites, TRACK));
}

/// As long as nothing has changed, what the sessions keep is not looked at once more: the next write is refused at once.
#[test]
fn the_next_refusal_takes_no_time() {
    let (mut rig, old, _) = full(WhenFull::RefuseWrites);
    let refused_at_once = |rig: &mut Rig| {
        let tag = rig.write(1, TRACK, TRACK as usize, 4);
        rig.replies.remove(&tag) == Some(Err(HostError::NoSpace))
    };
    assert!(!refused_at_once(&mut rig), "it looks first");
    // What could be merged has been by then.
    rig.wait(Duration::from_secs(1));
    assert!(refused_at_once(&mut rig));
    assert_eq!(write(&mut rig, 0, 5), Ok(Reply::Done), "in place");
    assert!(refused_at_once(&mut rig));
    rig.command(Command::SessionDeactivate { session: old }).unwrap();
    assert!(!refused_at_once(&mut rig), "something may have come free");
}

/// Once there is room, writes go on: a session removed, or a track trimmed that no session sees.
#[test]
fn writes_go_on_once_there_is_room() {
    let (mut rig, old, new) = full(WhenFull::RefuseWrites);
    assert_eq!(write(&mut rig, 1, 4), Err(HostError::NoSpace));
    rig.command(Command::SessionRemove { session: old }).unwrap();
    assert_eq!(write(&mut rig, 1, 4), Ok(Reply::Done));
    assert_eq!(write(&mut rig, 2, 4), Err(HostError::NoSpace));
    rig.do_host(1, HostOp::Trim { offset: 0, length: TRACK as u32, fua: false }).unwrap();
    assert_eq!(write(&mut rig, 2, 4), Ok(Reply::Done), "its fresh track was the device's alone");
    assert_eq!(state(&mut rig, new), SessionInfoState::Active);
    assert_eq!(rig.read(3, 0, 512).unwrap(), [2]);
    assert_eq!(rig.read(3, 2 * TRACK, 512).unwrap(), [1]);
    rig.wait(Duration::from_secs(3));
    rig.firmware.tables().audit().unwrap();
}

/// Wherever the power goes between the refusal and what follows, every session is there and the next write is refused.
#[test]
fn a_power_cut_at_any_step_of_a_refusal() {
    for steps in 0..200 {
        let (mut rig, old, new) = full(WhenFull::RefuseWrites);
        let tag = rig.write(1, TRACK, TRACK as usize, 4);
        let mut done = 0;
        for _ in 0..steps {
            if rig.replies.contains_key(&tag) && rig.pending.is_empty() {
                break;
            }
            if !rig.carry_out() {
                let Some(at) = rig.firmware.next_deadline() else { break };
                rig.now = rig.now.max(at);
                rig.step(Event::Timer);
            }
            done += 1;
        }
        rig.restart();
        rig.settle();
        for (conn, name) in [(1, "d"), (2, "old"), (3, "new")] {
            rig.attach(conn, name);
        }
        for session in [old, new] {
            assert_eq!(state(&mut rig, session), SessionInfoState::Active, "after {done} steps");
        }
        assert_eq!(rig.read(1, TRACK, 512).unwrap(), [1]);
        assert_eq!(write(&mut rig, 1, 4), Err(HostError::NoSpace));
        assert_eq!((rig.read(2, 0, 512).unwrap(), rig.read(3, 0, 512).unwrap()), (vec![1], vec![2]));
        if done < steps {
            return;
        }
    }
    panic!("the refusal took more than 200 steps");
}

/// The policy is the start's, not the metadata's: told otherwise, the same array fails its oldest session.
#[test]
fn another_start_may_decide_otherwise() {
    let (mut rig, old, new) = full(WhenFull::RefuseWrites);
    assert_eq!(write(&mut rig, 1, 4), Err(HostError::NoSpace));
    rig.policy.when_full = WhenFull::FailSessions;
    rig.restart();
    rig.settle();
    rig.attach(1, "d");
    assert_eq!(write(&mut rig, 1, 4), Ok(Reply::Done));
    assert_eq!(state(&mut rig, old), SessionInfoState::Failed);
    assert_eq!(state(&mut rig, new), SessionInfoState::Active);
}
