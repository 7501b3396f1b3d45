//! Two firmwares and the link between them: pairs from their creation to failover and back, with everything that can
//! break broken by hand.

mod rig;
#[path = "remote/two.rs"]
mod two;

use std::time::Duration;

use twintrack_controller::firmware::{HostError, HostOp, Reply, StatusOf};
use twintrack_core::{Change, Stage};
use twintrack_link::manage::{
    Answer, Command, NewDevice, PairHalf, PairMode, PairPace, PairPolicy, PairStatusInfo, RefusalCode,
};
use two::{A, B, TRACK, Two};

/// A1, A2, A4, A6, A8: the halves are made in their order, the content is copied, and writes are on both.
#[test]
fn a_pair_is_made_and_becomes_synchronized() {
    let mut two = Two::linked();
    two.device(A, "d", 8);
    two.write(A, 1, 0, TRACK as usize, 1);
    two.write(A, 1, 3 * TRACK + 4096, 4096, 2);
    two.create("d", "e", true).unwrap();
    two.settle();
    assert_eq!(two.status(A, "d"), PairStatusInfo::Synchronized);
    two.write(A, 1, 5 * TRACK, 512, 3);
    two.flush(A, 1);
    assert_eq!(two.content(B, "e"), two.content(A, "d"));
    assert!(two.rigs[B].attach_error("e").is_some(), "hosts do not get at the half that stands by");
}

/// A7: the other half cannot be made, so neither is.
#[test]
fn a_creation_that_is_refused_leaves_nothing() {
    let mut two = Two::linked();
    two.device(A, "d", 8);
    two.device(B, "e", 4);
    let refusal = two.create("d", "e", false).unwrap_err();
    assert_eq!(refusal.code, RefusalCode::WrongState, "{}", refusal.reason);
    assert!(refusal.reason.contains("size"), "{}", refusal.reason);
    two.settle();
    for array in [A, B] {
        assert_eq!(two.rigs[array].firmware.tables().pairs().count(), 0);
    }
    two.rigs[A].command(Command::DeviceDelete { name: "d".into() }).unwrap();
}

/// A7: a crash of either array after any number of effects leaves no half behind once both run and are connected.
#[test]
fn a_creation_is_whole_or_not_at_all() {
    for crashed in [A, B] {
        for effects in 0..60 {
            let mut two = Two::linked();
            two.device(A, "d", 4);
            two.write(A, 1, 0, 4096, 7);
            two.begin_create("d", "e", true);
            for _ in 0..effects {
                two.carry_out();
            }
            two.restart(crashed);
            two.wait(Duration::from_secs(20));
            let [here, there] = [A, B].map(|array| two.rigs[array].firmware.tables().pairs().count());
            assert_eq!(here, there, "array {crashed} crashed after {effects} effects");
            let made = two.rigs[B].firmware.tables().device_named("e").is_some();
            assert_eq!(made, there == 1, "array {crashed} crashed after {effects} effects");
            if here == 1 {
                assert_eq!(two.status(A, "d"), PairStatusInfo::Synchronized, "{crashed} {effects}");
                assert_eq!(two.content(B, "e"), two.content(A, "d"));
            }
        }
    }
}

/// A3, A9: the destination has the content: a read of the source fetches what it needs, and the rest follows.
#[test]
fn the_source_is_filled_from_the_destination() {
    let mut two = Two::linked();
    two.device(A, "d", 8);
    two.device(B, "e", 8);
    two.write(B, 1, 2 * TRACK, 4096, 9);
    two.detach(B, 1);
    two.write(A, 1, 2 * TRACK, 8192, 1);
    two.create_from("d", "e", PairHalf::R2).unwrap();
    let read = two.read(A, 1, 2 * TRACK, 8192).unwrap();
    assert_eq!(read, [vec![9; 8], vec![0; 8]].concat());
    // A part of a block that is not here.
    two.write(A, 1, 6 * TRACK + 512, 512, 5);
    two.settle();
    assert_eq!(two.status(A, "d"), PairStatusInfo::Synchronized);
    assert_eq!(two.content(B, "e"), two.content(A, "d"));
}

/// A9: while the peer is away, what is lacked gives an error at once, and what is here is read.
#[test]
fn what_is_lacked_is_an_error_while_the_peer_is_away() {
    let mut two = Two::linked();
    two.device(A, "d", 200);
    two.device(B, "e", 200);
    two.write(B, 1, 150 * TRACK, 4096, 9);
    two.detach(B, 1);
    two.begin_create_from("d", "e", false, PairHalf::R2);
    while two.rigs[A].firmware.tables().pairs().all(|(_, r)| r.stage != Stage::Ready) {
        two.carry_out();
    }
    two.cut();
    // Who looks for zeros to skip finds none in what is not here yet.
    let of = [StatusOf::Allocation].into();
    let status = HostOp::BlockStatus { offset: 149 * TRACK, length: 2 * TRACK as u32, one: false, of };
    let tag = two.rigs[A].host(1, status);
    let extents = two.rigs[A].replies.remove(&tag);
    assert!(
        matches!(&extents, Some(Ok(Reply::Status(list))) if list[0].iter().all(|extent| extent.set)),
        "{extents:?}"
    );
    assert_eq!(two.read(A, 1, 150 * TRACK, 4096), Err(HostError::Io));
    // Of part of a block it would have to know the rest.
    assert_eq!(two.try_write(A, 1, 150 * TRACK + 512, 512, 4), Err(HostError::Io));
    two.heal();
    two.wait(Duration::from_secs(20));
    assert_eq!(two.read(A, 1, 150 * TRACK, 4096).unwrap(), [9; 8]);
}

/// A cut link: the host has its answer, what the peer lacks is owed, and only that is sent afterwards.
#[test]
fn a_cut_suspends_and_only_what_is_owed_is_sent() {
    let mut two = Two::synchronized(64);
    two.cut();
    two.write(A, 1, 9 * TRACK, 4096, 4);
    two.flush(A, 1);
    let info = two.show(A, "d");
    assert_eq!(info.status, PairStatusInfo::Partitioned);
    assert_eq!(info.owed_bytes, TRACK);
    two.heal();
    two.wait(Duration::from_secs(20));
    let info = two.show(A, "d");
    assert_eq!(info.status, PairStatusInfo::Synchronized, "{info:?}");
    assert!(info.copied_bytes <= TRACK, "{info:?}");
    assert_eq!(two.content(B, "e"), two.content(A, "d"));
}

/// A write that is under way when the link breaks is answered, once that the peer lacks it is durable.
#[test]
fn a_write_under_way_when_the_link_breaks() {
    let mut two = Two::synchronized(8);
    let tag = two.rigs[A].write(1, 0, 4096, 5);
    two.cut();
    two.settle();
    assert!(matches!(two.rigs[A].replies.remove(&tag), Some(Ok(_))));
    let committed = two.rigs[A].metadata.clone();
    two.restart(A);
    assert!(committed.iter().any(|change| matches!(change, Change::Owed(..))));
    two.heal();
    two.wait(Duration::from_secs(20));
    assert_eq!(two.status(A, "d"), PairStatusInfo::Synchronized);
    assert_eq!(two.content(B, "e"), two.content(A, "d"));
}

/// Crash rule 5: after a crash of the array that serves, only the regions that were dirty are sent.
#[test]
fn after_a_crash_dirty_regions_are_sent() {
    let mut two = Two::synchronized(256);
    two.write(A, 1, 70 * TRACK, 4096, 8);
    two.restart(A);
    assert!(two.rigs[A].attach_error("d").is_some(), "not before both have agreed who serves");
    two.wait(Duration::from_secs(20));
    two.rigs[A].attach(1, "d");
    let info = two.show(A, "d");
    assert_eq!(info.status, PairStatusInfo::Synchronized, "{info:?}");
    assert!(info.copied_bytes <= 64 * TRACK, "{info:?}");
    assert_eq!(two.content(B, "e"), two.content(A, "d"));
}

/// So after a crash of the other one, which may have lost what it had not flushed.
#[test]
fn after_a_crash_of_the_peer_its_dirty_regions_are_sent() {
    let mut two = Two::synchronized(256);
    two.write(A, 1, 70 * TRACK, 4096, 8);
    let lost = two.rigs[B].disk.clone();
    two.write(A, 1, 71 * TRACK, 4096, 9);
    two.rigs[B].disk = lost;
    two.restart(B);
    two.wait(Duration::from_secs(20));
    assert_eq!(two.status(A, "d"), PairStatusInfo::Synchronized);
    assert_eq!(two.content(B, "e"), two.content(A, "d"));
}

/// Crash rule 5 costs a copy few commits, either way: marks are made ahead of it, for many regions at a time.
#[test]
fn a_copy_does_not_stop_at_each_region() {
    for (from, to) in [(A, B), (B, A)] {
        let mut two = Two::linked();
        two.rigs.iter_mut().for_each(|rig| rig.audit = false);
        two.device(A, "d", 96 * 64);
        two.device(B, "e", 96 * 64);
        let name = ["d", "e"][from];
        for region in 0..96 {
            two.write(from, 1, region * 64 * TRACK, 512, 3);
        }
        two.detach(B, 1);
        two.create_from("d", "e", [PairHalf::R1, PairHalf::R2][from]).unwrap();
        let before = two.commits(to);
        two.settle();
        assert_eq!(two.status(A, "d"), PairStatusInfo::Synchronized);
        let commits = two.commits(to) - before;
        assert!(commits <= 96 / 16 + 8, "{commits} commits for 96 regions of {name}");
        assert_eq!(two.content(B, "e"), two.content(A, "d"));
    }
}

/// A8: a copy has as much under way as fits the link, for one that is long: not a few tracks, and not all that it takes.
#[test]
fn a_copy_fills_the_link_and_leaves_room() {
    let mut two = Two::linked();
    two.device(A, "d", 400);
    for track in 0..400 {
        two.write(A, 1, track * TRACK, TRACK as usize, 3);
    }
    two.create("d", "e", true).unwrap();
    let mut most = 0;
    while two.carry_out() {
        most = most.max(two.on_the_way(B));
    }
    assert!((100..=130).contains(&most), "{most} messages at a time");
    two.settle();
    assert_eq!(two.content(B, "e"), two.content(A, "d"));
}

/// A8: a copy goes at its pace, which changes while it runs; each array has its own.
#[test]
fn a_copy_has_a_pace() {
    let mut two = Two::linked();
    two.device(A, "d", 400);
    for track in 0..400 {
        two.write(A, 1, track * TRACK, TRACK as usize, 3);
    }
    two.create("d", "e", true).unwrap();
    for (pace, at_a_time) in [(PairPace::Slow, 1), (PairPace::Medium, 3), (PairPace::Fast, 15)] {
        let set = Command::RemotePace { device: "d".into(), pace };
        let set = two.command(A, set).unwrap();
        assert!(matches!(&set, Answer::Remote(info) if info.pace == pace), "{set:?}");
        // What was sent before goes first.
        (0..500).for_each(|_| {
            two.carry_out();
        });
        let most = (0..150)
            .map(|_| {
                assert!(two.carry_out(), "the copy has ended");
                two.on_the_way(B)
            })
            .max();
        assert_eq!(most, Some(at_a_time), "{pace:?}");
    }
    assert_eq!(two.show(B, "e").pace, PairPace::Adaptive);
    two.restart(A);
    assert_eq!(two.show(A, "d").pace, PairPace::Fast);
    two.wait(Duration::from_secs(20));
    assert_eq!(two.content(B, "e"), two.content(A, "d"));
}

/// Crash rule 5: the first link that breaks after a pair was made is no crash of the other array. What its copy has written there
/// was sent once more, as far as it was not flushed.
#[test]
fn after_the_first_cut_only_what_is_owed_is_sent() {
    let mut two = Two::linked();
    two.device(A, "d", 200);
    two.write(A, 1, 0, 200 * TRACK as usize, 3);
    two.create("d", "e", true).unwrap();
    two.settle();
    assert_eq!(two.status(A, "d"), PairStatusInfo::Synchronized);
    two.cut();
    two.write(A, 1, 7 * TRACK, 4096, 4);
    two.heal();
    two.wait(Duration::from_secs(2));
    let told = two.show(A, "d");
    assert_eq!((told.status, told.copied_bytes), (PairStatusInfo::Synchronized, TRACK));
    assert_eq!(two.content(B, "e"), two.content(A, "d"));
}

/// A region that is written again and again stays marked, and commits nothing; one that is left alone becomes clean.
#[test]
fn what_is_written_all_the_time_stays_marked() {
    let mut two = Two::synchronized(192);
    let dirty = |two: &mut Two, array: usize| {
        let tables = two.rigs[array].firmware.tables();
        let (pair, _) = tables.pairs().next().unwrap();
        tables.regions(pair).unwrap().count()
    };
    let offsets = [0, 70 * TRACK];
    // Whole tracks, so that nothing is left to be merged.
    offsets.into_iter().for_each(|offset| two.write(A, 1, offset, TRACK as usize, 1));
    two.flush(A, 1);
    let before = [A, B].map(|array| two.commits(array));
    for second in 0..30 {
        offsets.into_iter().for_each(|offset| two.write(A, 1, offset, 512, second));
        two.wait(Duration::from_secs(1));
        assert_eq!([A, B].map(|array| dirty(&mut two, array)), [2, 2], "after {second} s");
    }
    assert_eq!([A, B].map(|array| two.commits(array)), before);
    for second in 0..16 {
        two.write(A, 1, offsets[1], 512, second);
        two.wait(Duration::from_secs(1));
    }
    assert_eq!([A, B].map(|array| dirty(&mut two, array)), [1, 1]);
    two.wait(Duration::from_secs(16));
    assert_eq!([A, B].map(|array| dirty(&mut two, array)), [0, 0]);
}

/// What is copied here and there is marked here and there: only a copy that goes up through the device is marked ahead of.
#[test]
fn scattered_tracks_mark_their_regions_alone() {
    let mut two = Two::synchronized(200 * 64);
    two.command(A, Command::RemoteSuspend { device: "d".into(), whole_group: false, split: false }).unwrap();
    for region in [10, 80, 150] {
        two.write(A, 1, region * 64 * TRACK, TRACK as usize, 1);
    }
    two.command(A, Command::RemoteResume { device: "d".into(), whole_group: false }).unwrap();
    two.settle();
    assert_eq!(two.status(A, "d"), PairStatusInfo::Synchronized);
    let tables = two.rigs[B].firmware.tables();
    let (pair, _) = tables.pairs().next().unwrap();
    assert_eq!(tables.regions(pair).unwrap().count(), 3);
}

/// What R1 has sent lands before R2 serves by force: a host would see it come (`failover` 645 did).
#[test]
fn a_forced_failover_waits_for_what_is_landing() {
    let mut two = Two::synchronized(4);
    two.hold_writes(B);
    two.rigs[A].write(1, 0, 4096, 7);
    two.settle();
    two.cut();
    let call = two.rigs[B].manage(Command::RemoteFailover { device: "e".into(), force: true });
    two.settle();
    assert!(!two.rigs[B].answers.contains_key(&call) && two.rigs[B].attach_error("e").is_some());
    two.let_writes_go(B);
    two.settle();
    two.rigs[B].answers.remove(&call).expect("it is answered").unwrap();
    two.rigs[B].attach(2, "e");
    assert_eq!(two.read(B, 2, 0, 4096).unwrap(), [7; 8]);
}

/// A forced failover: R1, back again, stops before anything flows; it was not written alone, so it becomes the copy.
#[test]
fn a_forced_failover() {
    let mut two = Two::synchronized(8);
    two.write(A, 1, 0, 4096, 3);
    two.stop(A);
    let refused = two.command(B, Command::RemoteFailover { device: "e".into(), force: false }).unwrap_err();
    assert!(refused.reason.contains("--force"), "{}", refused.reason);
    two.command(B, Command::RemoteFailover { device: "e".into(), force: true }).unwrap();
    two.rigs[B].attach(2, "e");
    let told = two.show(B, "e");
    assert!(
        told.why.starts_with("a person forced it: all is here that the other array had answered by "),
        "{}",
        told.why
    );
    assert!(told.next.starts_with("it is dialled"), "{}", told.next);
    two.write(B, 2, TRACK, 4096, 4);
    two.flush(B, 2);
    let told = two.show(B, "e");
    assert!(told.why.starts_with("a person forced it: "), "{}", told.why);
    two.start(A);
    assert!(two.rigs[A].attach_error("d").is_some());
    two.wait(Duration::from_secs(20));
    assert_eq!(two.status(B, "e"), PairStatusInfo::R1Updated);
    assert_eq!(two.content(A, "d"), two.content(B, "e"));
}

/// All that was sent has come back when a link's test is answered.
#[test]
fn a_link_is_tested() {
    let mut two = Two::linked();
    for size_bytes in [0, 512, 20 << 20] {
        let tested = two.command(A, Command::LinkTest { name: "b".into(), size_bytes });
        assert!(matches!(&tested, Ok(Answer::LinkTest(info)) if info.size_bytes == size_bytes), "{tested:?}");
    }
}

/// F4: both were written alone. Nothing moves until a person chooses; the loser is kept as a session.
#[test]
fn split_brain() {
    let mut two = Two::synchronized(8);
    two.write(A, 1, 0, 4096, 3);
    two.cut();
    two.write(A, 1, TRACK, 4096, 4);
    two.command(B, Command::RemoteFailover { device: "e".into(), force: true }).unwrap();
    two.rigs[B].attach(2, "e");
    two.write(B, 2, 2 * TRACK, 4096, 5);
    two.heal();
    two.wait(Duration::from_secs(20));
    assert_eq!(two.status(A, "d"), PairStatusInfo::Diverged);
    assert_eq!(two.status(B, "e"), PairStatusInfo::Diverged);
    assert_eq!(
        two.try_write(A, 1, 0, 512, 1),
        Err(HostError::Gone),
        "the one that was not forced has stopped"
    );
    for (array, device) in [(A, "d"), (B, "e")] {
        let resume = Command::RemoteResume { device: device.into(), whole_group: false };
        let reason = two.command(array, resume).unwrap_err().reason;
        assert!(reason.contains("remote resolve"), "{reason}");
    }
    let told = [(A, "d"), (B, "e")].map(|(array, device)| two.show(array, device).diverged.unwrap());
    for (mine, theirs) in [(&told[0], &told[1]), (&told[1], &told[0])] {
        assert!(mine.here_tracks >= 1);
        assert_eq!(mine.there_tracks, Some(theirs.here_tracks));
        assert_eq!(mine.bytes, (mine.here_tracks + theirs.here_tracks).min(8) * TRACK);
    }
    let lost = two.content(B, "e");
    two.detach(B, 2);
    let resolved = two.command(A, Command::RemoteResolve { device: "d".into(), keep: PairHalf::R1 });
    assert!(matches!(&resolved, Ok(Answer::Remote(info)) if info.device == "d"), "{resolved:?}");
    two.wait(Duration::from_secs(20));
    assert_eq!(two.status(A, "d"), PairStatusInfo::Synchronized);
    assert_eq!(two.content(B, "e"), two.content(A, "d"));
    two.command(B, Command::DeviceOnline { name: "e.lost-1".into(), online: true }).unwrap();
    assert_eq!(two.content(B, "e.lost-1"), lost);
}

/// F4: a force that the other array has obeyed is over. Later, when the other half is forced, this one stops at the first
/// contact like any other that served; once it went on, for it had been forced, too.
#[test]
fn of_two_forced_one_after_the_other_the_last_one_serves() {
    let mut two = Two::synchronized(8);
    two.stop(A);
    two.command(B, Command::RemoteFailover { device: "e".into(), force: true }).unwrap();
    two.start(A);
    two.wait(Duration::from_secs(20));
    assert_eq!(two.status(B, "e"), PairStatusInfo::R1Updated);
    two.cut();
    two.command(A, Command::RemoteFailover { device: "d".into(), force: true }).unwrap();
    two.rigs[A].attach(3, "d");
    two.write(A, 3, 0, 4096, 4);
    two.heal();
    two.wait(Duration::from_secs(20));
    assert!(two.rigs[B].attach_error("e").is_some(), "both serve");
    assert_eq!(two.status(A, "d"), PairStatusInfo::Synchronized);
    assert_eq!(two.content(B, "e"), two.content(A, "d"));
}

/// Suspended by a person, it stays so over a new link, and goes on by a person.
#[test]
fn suspend_and_resume() {
    let mut two = Two::synchronized(16);
    let device = || "d".to_string();
    two.command(A, Command::RemoteSuspend { device: device(), whole_group: false, split: false }).unwrap();
    two.write(A, 1, 3 * TRACK, 4096, 8);
    two.cut();
    two.heal();
    two.wait(Duration::from_secs(20));
    assert_eq!(two.status(A, "d"), PairStatusInfo::Suspended);
    assert_eq!(two.show(A, "d").owed_bytes, TRACK);
    two.command(A, Command::RemoteResume { device: device(), whole_group: false }).unwrap();
    two.settle();
    assert_eq!(two.status(A, "d"), PairStatusInfo::Synchronized);
    assert_eq!(two.content(B, "e"), two.content(A, "d"));
}

/// Adaptive copy: hosts do not wait for the peer; back in synchronous mode, they do.
#[test]
fn modes_change_in_use() {
    let mut two = Two::synchronized(16);
    two.command(A, Command::RemoteMode { device: "d".into(), mode: PairMode::Adaptive }).unwrap();
    two.write(A, 1, 3 * TRACK, 4096, 8);
    two.settle();
    assert_eq!(two.content(B, "e"), two.content(A, "d"));
    two.command(A, Command::RemoteMode { device: "d".into(), mode: PairMode::Synchronous }).unwrap();
    two.write(A, 1, 4 * TRACK, 4096, 9);
    two.settle();
    assert_eq!(two.status(A, "d"), PairStatusInfo::Synchronized);
    assert_eq!(two.content(B, "e"), two.content(A, "d"));
}

/// Adaptive copy, crash rule 5: a track that is written while a copy of it is on its way is copied once more, wherever the
/// copy is at that moment. A copy that had been read before the write once paid for it: the pair was called synchronized, and
/// the halves differed.
#[test]
fn what_is_written_behind_its_copy_is_copied_too() {
    let mut two = Two::synchronized(4);
    two.command(A, Command::RemoteMode { device: "d".into(), mode: PairMode::Adaptive }).unwrap();
    for steps in 0..60 {
        two.write(A, 1, TRACK, 4096, steps);
        for _ in 0..steps {
            two.carry_out();
        }
        two.write(A, 1, TRACK, 4096, 100 + steps);
        two.settle();
        assert_eq!(two.content(B, "e"), two.content(A, "d"), "after {steps} steps");
        assert_eq!(two.status(A, "d"), PairStatusInfo::Synchronized);
    }
}

/// A comparison finds what differs, and nothing else.
#[test]
fn verify_finds_what_differs() {
    let mut two = Two::synchronized(16);
    two.write(A, 1, 3 * TRACK, 4096, 8);
    let clean = two.command(A, Command::RemoteVerify { device: "d".into(), mark: false }).unwrap();
    assert!(
        matches!(&clean, Answer::Verified(info) if info.differing.is_empty() && info.compared_tracks == 16)
    );
    two.spoil(B, "e", 3);
    let told = two.command(A, Command::RemoteVerify { device: "d".into(), mark: false }).unwrap();
    assert!(matches!(&told, Answer::Verified(info) if info.differing == [3] && !info.marked), "{told:?}");
    two.wait(Duration::from_secs(20));
    assert_eq!(two.status(A, "d"), PairStatusInfo::Synchronized);
    assert_ne!(two.content(B, "e"), two.content(A, "d"), "nobody said that it is to be set right");
    let found = two.command(A, Command::RemoteVerify { device: "d".into(), mark: true }).unwrap();
    assert!(matches!(&found, Answer::Verified(info) if info.differing == [3] && info.marked), "{found:?}");
    two.settle();
    assert_eq!(two.content(B, "e"), two.content(A, "d"));
}

/// A3: a write to what becomes the half that stands by, under way when the pair is made, is answered: the other half has it.
/// It was fetched without it, and the write lost, for nobody waited for it.
#[test]
fn what_is_under_way_when_a_pair_is_made_is_copied() {
    let mut two = Two::linked();
    two.device(A, "d", 8);
    two.device(B, "e", 8);
    let tag = two.rigs[B].write(1, 2 * TRACK, 4096, 9);
    let slow: Vec<_> = two.rigs[B].pending.drain(..).collect();
    two.begin_create_from("d", "e", false, PairHalf::R2);
    two.wait(Duration::from_secs(1));
    two.rigs[B].pending.extend(slow);
    two.wait(Duration::from_secs(1));
    assert!(two.rigs[B].replies[&tag].is_ok());
    assert_eq!(two.status(A, "d"), PairStatusInfo::Synchronized);
    assert_eq!(two.content(A, "d")[2 * 32], 9);
    assert_eq!(two.content(B, "e"), two.content(A, "d"));
}

/// F2: the same request again gives the same pair.
#[test]
fn asked_again_the_pair_is_the_same() {
    let mut two = Two::linked();
    two.device(A, "d", 4);
    let first = two.create("d", "e", true).unwrap();
    two.settle();
    for restarts in [false, true] {
        if restarts {
            two.restart(A);
            two.wait(Duration::from_secs(20));
        }
        assert_eq!(two.create("d", "e", true).unwrap(), first);
        assert_eq!(two.rigs[A].firmware.tables().pairs().count(), 1);
    }
    // And none once it has been deleted, whether the other array knows that yet or not.
    two.cut();
    two.command(A, Command::RemoteDelete { device: "d".into(), force: true }).unwrap();
    for heals in [false, true] {
        if heals {
            two.heal();
            two.wait(Duration::from_secs(20));
            assert_eq!(two.rigs[A].firmware.tables().pairs().count(), 0);
        }
        let refusal = two.create("d", "e", false).unwrap_err();
        assert_eq!(refusal.code, RefusalCode::WrongState);
        assert!(refusal.reason.contains("what it made is not there any more"), "{refusal}");
    }
}

/// F2: so does one that was refused, after a restart, too, and whatever has changed since.
#[test]
fn asked_again_the_refusal_is_the_same() {
    let mut two = Two::linked();
    two.device(A, "d", 4);
    let first = two.create("d", "e", false).unwrap_err();
    assert_eq!(first.code, RefusalCode::NotFound, "{first}");
    two.settle();
    two.device(B, "e", 4);
    for restarts in [false, true] {
        if restarts {
            two.restart(A);
            two.wait(Duration::from_secs(20));
        }
        assert_eq!(two.create("d", "e", false).unwrap_err(), first);
    }
}

/// A1, A2, A4, A5: whatever step it is at, the other array has its half only after the one that was asked has its own, durably,
/// and that is ready only once the other one is there; whichever half has the content.
#[test]
fn halves_are_made_in_their_order() {
    for from in [PairHalf::R1, PairHalf::R2] {
        let mut two = Two::linked();
        two.device(A, "d", 4);
        two.device(B, "e", 4);
        two.detach(B, 1);
        two.begin_create_from("d", "e", false, from);
        let mut seen = Vec::new();
        while two.rigs[A].answers.is_empty() {
            two.step_on();
            let durable = [A, B].map(|array| {
                let made = |change: &Change| match change {
                    Change::Pair(_, Some(record)) => Some(record.stage),
                    _ => None,
                };
                two.rigs[array].metadata.iter().rev().find_map(made)
            });
            if seen.last() != Some(&durable) {
                seen.push(durable);
            }
        }
        let (creating, ready) = (Some(Stage::Creating), Some(Stage::Ready));
        let order = [[creating, None], [creating, creating], [ready, creating]];
        assert_eq!(seen, order, "{from:?}");
    }
}

/// A6, A7: both volumes are made with the pair, or, as here at first, neither is.
#[test]
fn both_volumes_are_made_on_the_way() {
    let mut two = Two::linked();
    let create = |request, peer_pool: Option<&str>| Command::RemoteCreate {
        request,
        device: "d".into(),
        peer: "b".into(),
        peer_device: "e".into(),
        half: PairHalf::R1,
        from: PairHalf::R1,
        create_local: Some(NewDevice { pool: None, size_bytes: 4 * TRACK }),
        create_peer: Some(NewDevice { pool: peer_pool.map(Into::into), size_bytes: 4 * TRACK }),
        mode: PairMode::Synchronous,
        policy: PairPolicy::Continue,
        group: None,
    };
    let refusal = two.command(A, create(1, Some("nowhere"))).unwrap_err();
    assert_eq!(refusal.code, RefusalCode::NotFound, "{refusal}");
    two.wait(Duration::from_secs(20));
    let devices = |two: &Two| [A, B].map(|array| two.rigs[array].firmware.tables().devices().count());
    assert_eq!(devices(&two), [0, 0]);
    two.command(A, create(2, None)).unwrap();
    two.settle();
    assert_eq!(devices(&two), [1, 1]);
    two.rigs[A].attach(1, "d");
    two.write(A, 1, TRACK, 4096, 5);
    assert_eq!(two.content(B, "e"), two.content(A, "d"));
}

/// An unknown array is told who to ask; nothing is touched.
#[test]
fn strangers_are_refused() {
    let mut two = Two::new();
    two.command(
        A,
        Command::LinkAdd { name: "b".into(), endpoint: Some("tcp:127.0.0.1:1".into()), serial: None },
    )
    .unwrap();
    two.wait(Duration::from_secs(2));
    let why = two.link(A).why.unwrap_or_default();
    assert!(why.contains("does not know array") && why.contains("link add"), "{why}");
    assert_eq!(two.rigs[B].firmware.tables().peers().count(), 0);
    assert!(two.link(A).serial.is_some(), "who refuses says who he is");
}

/// A device of a pair is not deleted or resized under it.
#[test]
fn a_paired_device_is_held() {
    let mut two = Two::synchronized(4);
    for command in [
        Command::DeviceDelete { name: "d".into() },
        Command::DeviceResize { name: "d".into(), size_bytes: 8 * TRACK },
    ] {
        two.command(A, command).unwrap_err();
    }
}
