//! Sessions, groups and their limits, through the management commands and host I/O of a firmware.

mod rig;

use rig::{Rig, geometry};
use std::time::Duration;
use twintrack_controller::firmware::{Effect, HostError, HostOp, Reply};
use twintrack_core::layout::{Header, StoreLayout};
use twintrack_core::{DeviceId, Owner, Place, SessionId, TrackNo};
use twintrack_link::manage::{
    Activation, Answer, Command, GroupMode, RefusalCode, SessionInfo, SessionInfoState,
};

const TRACK: u64 = 16 << 10;

fn code(result: Result<Answer, twintrack_link::manage::Refusal>) -> RefusalCode {
    result.expect_err("refused").code
}

fn register(rig: &mut Rig, standard: &str, group: Option<u32>) -> u32 {
    match rig.command(Command::SessionRegister { standard: standard.into(), group, tracks: None }).unwrap() {
        Answer::Session(info) => info.id,
        other => panic!("{other:?}"),
    }
}

fn activate(session: u32) -> Command {
    Command::SessionActivate { sessions: vec![Activation { session, name: None, offline: false }] }
}

fn sessions(rig: &mut Rig) -> Vec<SessionInfo> {
    match rig.command(Command::SessionList { standard: None }).unwrap() {
        Answer::Sessions(infos) => infos,
        other => panic!("{other:?}"),
    }
}

fn create(rig: &mut Rig, name: &str) {
    rig.command(Command::DeviceCreate { name: name.into(), size_bytes: 4 * TRACK, pool: None }).unwrap();
}

fn create_virtual(rig: &mut Rig, name: &str) {
    rig.command(Command::DeviceCreateVirtual { name: name.into() }).unwrap();
}

/// D7: the calls in any other order are errors, and change nothing.
#[test]
fn calls_out_of_order_are_refused() {
    let mut rig = Rig::with_device(64, 4 * TRACK);
    create_virtual(&mut rig, "v");
    let before = rig.metadata.len();
    let relate = |session| Command::SessionRelate { session, virtual_device: "v".into() };
    assert_eq!(code(rig.command(relate(77))), RefusalCode::NotFound);
    assert_eq!(code(rig.command(activate(77))), RefusalCode::NotFound);
    assert_eq!(rig.metadata.len(), before, "nothing was changed");
    let session = register(&mut rig, "d", None);
    assert_eq!(code(rig.command(activate(session))), RefusalCode::WrongState);
    assert_eq!(code(rig.command(Command::SessionDeactivate { session })), RefusalCode::WrongState);
    assert_eq!(
        code(rig.command(Command::SessionChanged { session, from_track: 0 })),
        RefusalCode::WrongState
    );
    rig.command(relate(session)).unwrap();
    assert_eq!(code(rig.command(relate(session))), RefusalCode::WrongState);
    let other = register(&mut rig, "d", None);
    assert_eq!(code(rig.command(relate(other))), RefusalCode::WrongState, "v is taken");
    assert_eq!(
        code(rig.command(Command::SessionRegister { standard: "v".into(), group: None, tracks: None })),
        RefusalCode::WrongState
    );
    assert_eq!(code(rig.command(Command::DeviceDelete { name: "d".into() })), RefusalCode::WrongState);
    assert_eq!(code(rig.command(Command::DeviceDelete { name: "v".into() })), RefusalCode::WrongState);
    rig.command(activate(session)).unwrap();
    assert_eq!(code(rig.command(activate(session))), RefusalCode::WrongState);
    let twice = Activation { session: other, name: None, offline: false };
    let list = vec![twice.clone(), twice];
    rig.command(Command::SessionRemove { session }).unwrap();
    rig.command(relate(other)).unwrap();
    assert_eq!(code(rig.command(Command::SessionActivate { sessions: list })), RefusalCode::BadRequest);
    assert_eq!(code(rig.command(Command::SessionActivate { sessions: vec![] })), RefusalCode::BadRequest);
}

/// D7: before *activate* a session costs writes nothing, and its virtual device is not there for hosts.
#[test]
fn an_inactive_session_costs_nothing() {
    let mut rig = Rig::with_device(64, 4 * TRACK);
    rig.write(1, 0, TRACK as usize, 1);
    rig.settle();
    create_virtual(&mut rig, "v");
    let session = register(&mut rig, "d", None);
    rig.command(Command::SessionRelate { session, virtual_device: "v".into() }).unwrap();
    assert!(!rig.firmware.exports().contains(&"v".to_owned()));
    rig.write(1, 0, TRACK as usize, 2);
    rig.settle();
    assert_eq!(rig.firmware.tables().used_tracks(), 1, "in place");
}

/// D5: sessions of the same and of different times share what they keep; D6: removing one gives back only what
/// nobody else needs, and hosts that still use it get an error.
#[test]
fn sessions_share_tracks() {
    let mut rig = Rig::with_device(64, 4 * TRACK);
    let used = |rig: &Rig| rig.firmware.tables().used_tracks();
    rig.write(1, 0, TRACK as usize, 1);
    rig.settle();
    let first = rig.establish("a", 2);
    let second = rig.establish("b", 3);
    rig.write(1, 0, TRACK as usize, 2);
    rig.settle();
    assert_eq!(used(&rig), 2, "one old track for both");
    let third = rig.establish("c", 4);
    rig.write(1, 0, TRACK as usize, 3);
    rig.settle();
    assert_eq!(used(&rig), 3);
    rig.command(Command::SessionRemove { session: first }).unwrap();
    rig.wait(Duration::from_secs(3));
    assert_eq!(used(&rig), 3, "b still needs it");
    assert_eq!(rig.read(2, 0, 512), Err(HostError::Gone));
    assert_eq!(rig.do_host(2, HostOp::Flush), Err(HostError::Gone));
    let again = register(&mut rig, "d", None);
    rig.command(Command::SessionRelate { session: again, virtual_device: "a".into() }).unwrap();
    rig.command(activate(again)).unwrap();
    assert_eq!(rig.read(2, 0, 512), Err(HostError::Gone), "another session is not what it attached to");
    rig.command(Command::SessionRemove { session: again }).unwrap();
    assert_eq!((rig.read(3, 0, 512), rig.read(4, 0, 512)), (Ok(vec![1]), Ok(vec![2])));
    rig.command(Command::SessionRemove { session: second }).unwrap();
    rig.command(Command::SessionRemove { session: third }).unwrap();
    rig.wait(Duration::from_secs(3));
    assert_eq!(used(&rig), 1);
    assert_eq!(sessions(&mut rig), []);
}

/// D8, Fig. 19A and 19B: a group over several devices, at one instant or one by one; several groups at a time.
#[test]
fn groups() {
    for mode in [GroupMode::Synchronous, GroupMode::OneByOne] {
        let mut rig = Rig::new(64);
        let group = |rig: &mut Rig| match rig.command(Command::GroupBegin {}).unwrap() {
            Answer::Group(group) => group,
            other => panic!("{other:?}"),
        };
        let (one, two) = (group(&mut rig), group(&mut rig));
        let mut list = Vec::new();
        for (name, shows, of) in [("x", "vx", one), ("y", "vy", one), ("z", "vz", two)] {
            create(&mut rig, name);
            create_virtual(&mut rig, shows);
            let session = register(&mut rig, name, Some(of));
            list.push(session);
            if name != "y" {
                rig.command(Command::SessionRelate { session, virtual_device: shows.into() }).unwrap();
            }
        }
        assert_eq!(code(rig.command(activate(list[0]))), RefusalCode::WrongState, "it waits in its group");
        let process = |group, options| Command::GroupProcess { group, mode, options };
        assert_eq!(code(rig.command(process(one, vec![]))), RefusalCode::WrongState, "y was not related");
        rig.command(Command::SessionRelate { session: list[1], virtual_device: "vy".into() }).unwrap();
        let stranger = Activation { session: list[2], name: None, offline: false };
        assert_eq!(code(rig.command(process(one, vec![stranger]))), RefusalCode::WrongState);
        assert_eq!(code(rig.command(process(99, vec![]))), RefusalCode::NotFound);
        // D9: a new name and offline.
        let options = vec![Activation { session: list[1], name: Some("y-monday".into()), offline: true }];
        let Answer::Sessions(done) = rig.command(process(one, options)).unwrap() else { panic!() };
        assert_eq!(done.iter().map(|info| info.state).collect::<Vec<_>>(), [SessionInfoState::Active; 2]);
        assert_eq!(done[1].virtual_device.as_deref(), Some("y-monday"));
        assert_eq!(rig.firmware.exports(), ["x", "vx", "y", "z"]);
        rig.command(Command::DeviceOnline { name: "y-monday".into(), online: true }).unwrap();
        assert_eq!(rig.firmware.exports(), ["x", "vx", "y", "y-monday", "z"]);
        assert_eq!(code(rig.command(process(one, vec![]))), RefusalCode::NotFound, "closed");
        let cancelled = rig.command(Command::GroupCancel { group: two }).unwrap();
        let Answer::Sessions(left) = cancelled else { panic!("{cancelled:?}") };
        assert_eq!((left.len(), left[0].id, left[0].group), (1, list[2], None), "it says what it leaves");
        assert_eq!(left[0].state, SessionInfoState::Related);
        rig.command(activate(list[2])).unwrap();
        assert_eq!(rig.command(Command::GroupList {}).unwrap(), Answer::Groups(vec![]));
    }
}

/// Fig. 19A: all devices of a synchronous group are cut at one instant: a write that begins after another was
/// answered is not in the snapshot if the other is not.
#[test]
fn a_synchronous_group_is_one_cut() {
    let mut rig = Rig::new(64);
    for (name, conn) in [("x", 1), ("y", 2)] {
        create(&mut rig, name);
        rig.attach(conn, name);
        create_virtual(&mut rig, &format!("v{name}"));
    }
    let list: Vec<_> = ["x", "y"]
        .into_iter()
        .map(|name| {
            let session = register(&mut rig, name, None);
            let virtual_device = format!("v{name}");
            rig.command(Command::SessionRelate { session, virtual_device }).unwrap();
            Activation { session, name: None, offline: false }
        })
        .collect();
    // A write to x is in flight; y is idle. Were y cut now and x later, a pair of writes could be torn apart.
    let held = rig.write(1, 0, 4096, 1);
    let call = rig.manage(Command::SessionActivate { sessions: list });
    let late = rig.write(2, 0, 4096, 2);
    let writes =
        |rig: &Rig| rig.pending.iter().filter(|effect| matches!(effect, Effect::Write { .. })).count();
    assert_eq!(writes(&rig), 1, "y's write waits for the cut, which waits for x's write");
    rig.settle();
    assert!(rig.answers.remove(&call).unwrap().is_ok());
    assert_eq!(
        [rig.replies.remove(&held), rig.replies.remove(&late)],
        [Some(Ok(Reply::Done)), Some(Ok(Reply::Done))]
    );
    rig.attach(3, "vx");
    rig.attach(4, "vy");
    assert_eq!((rig.read(3, 0, 512), rig.read(4, 0, 512)), (Ok(vec![1]), Ok(vec![0])));
}

/// F1: 1,024 sessions of a device; one more is refused; each shows its own time.
#[test]
fn a_thousand_sessions() {
    let mut rig = Rig::with_device(2048, 2 * TRACK);
    rig.audit = false;
    rig.quiet(|rig| {
        let mut all = Vec::new();
        for n in 0..1024u32 {
            let conn = 10 + u64::from(n);
            all.push(rig.establish(&format!("v{n}"), conn));
            rig.write(1, 0, 512, (n % 200) as u8 + 1);
            rig.settle();
        }
        let refused =
            rig.command(Command::SessionRegister { standard: "d".into(), group: None, tracks: None });
        assert_eq!(code(refused), RefusalCode::Limit);
        for n in [0u32, 1, 2, 511, 512, 1023] {
            let expect = if n == 0 { 0 } else { ((n - 1) % 200) as u8 + 1 };
            assert_eq!(rig.read(10 + u64::from(n), 0, 512).unwrap(), [expect], "session {n}");
        }
        for session in all {
            rig.command(Command::SessionRemove { session }).unwrap();
        }
        rig.wait(Duration::from_secs(10));
    });
    assert_eq!(rig.firmware.tables().used_tracks(), 1);
}

/// D17: beside each physical track that the committed tables refer to lies the address that it was born as, and
/// which of its blocks are valid.
#[test]
fn headers_say_where_a_track_came_from() {
    let mut rig = Rig::with_device(64, 4 * TRACK);
    rig.write(1, 0, 3 * TRACK as usize, 1);
    rig.settle();
    let session = rig.establish("v", 2);
    rig.write(1, 4096, 4096, 2);
    rig.write(2, TRACK, TRACK as usize, 3);
    rig.settle();
    rig.write(1, 12288, 512, 4);
    rig.settle();
    rig.do_host(1, HostOp::Flush).unwrap();
    let layout = StoreLayout::with_tracks(geometry(), 64);
    let header = |rig: &Rig, track: twintrack_core::PhysicalTrack| {
        let offset = layout.header_offset(track.get() - 1) as usize;
        Header::decode(&rig.disk[offset..offset + layout.header_bytes() as usize], geometry(), 0x1234)
            .unwrap()
    };
    let device = Owner::Device(DeviceId(1));
    let tables = rig.firmware.tables();
    let mut sequences = Vec::new();
    for (owner, track) in [(device, 0), (device, 1), (device, 2), (Owner::Session(SessionId(session)), 1)] {
        let place = Place { owner, track: TrackNo(track) };
        let entry = tables.entry(place).unwrap();
        let top = header(&rig, entry.top().unwrap());
        assert_eq!((top.owner, top.track), (owner, TrackNo(track)));
        assert_eq!(top.mask, entry.over.map_or(geometry().full(), |over| over.mask), "{place} {entry}");
        sequences.push(top.sequence);
        if let Some(over) = entry.over {
            let base = header(&rig, entry.base.unwrap());
            assert_eq!((base.track, base.mask), (TrackNo(track), geometry().full()));
            assert!(base.sequence < top.sequence && over.mask.count() == 2);
        }
    }
    sequences.sort();
    sequences.dedup();
    assert_eq!(sequences.len(), 4);
}

/// What lies behind the end of a device is zeros when it grows, though its last block held junk on the disk.
#[test]
fn growth_shows_zeros() {
    let mut rig = Rig::with_device(64, TRACK + 512);
    rig.write(1, TRACK, 512, 7);
    rig.settle();
    rig.command(Command::DeviceResize { name: "d".into(), size_bytes: 2 * TRACK }).unwrap();
    let mut expect = vec![0; 32];
    expect[0] = 7;
    assert_eq!(rig.read(1, TRACK, TRACK as u32).unwrap(), expect);
    rig.wait(Duration::from_secs(3));
    assert_eq!(rig.read(1, TRACK, TRACK as u32).unwrap(), expect, "merged");
    let shrink = rig.command(Command::DeviceResize { name: "d".into(), size_bytes: TRACK });
    assert_eq!(code(shrink), RefusalCode::WrongState);
}

/// Requests that no device takes.
#[test]
fn bad_requests_are_refused() {
    let mut rig = Rig::with_device(64, 4 * TRACK);
    for (offset, length) in
        [(0, 0), (1, 512), (0, 511), (4 * TRACK, 512), (u64::MAX - 511, 512), (3 * TRACK, 40960)]
    {
        assert_eq!(
            rig.do_host(1, HostOp::Read { offset, length }),
            Err(HostError::Invalid),
            "{offset}+{length}"
        );
        let zeroes = HostOp::WriteZeroes { offset, length, no_hole: false, fua: false };
        assert_eq!(rig.do_host(1, zeroes), Err(HostError::Invalid));
    }
    assert_eq!(rig.do_host(9, HostOp::Flush), Err(HostError::Gone), "never attached");
    for name in ["", "a b", "-x", &"x".repeat(65), "d"] {
        let create = Command::DeviceCreate { name: name.into(), size_bytes: 512, pool: None };
        assert!(
            matches!(code(rig.command(create)), RefusalCode::BadRequest | RefusalCode::Exists),
            "{name:?}"
        );
    }
    for size_bytes in [0, 511, (16 << 40) + 512, u64::MAX] {
        let create = Command::DeviceCreate { name: "e".into(), size_bytes, pool: None };
        assert_eq!(code(rig.command(create)), RefusalCode::BadRequest, "{size_bytes}");
    }
    let create = Command::DeviceCreate { name: "e".into(), size_bytes: 512, pool: Some("q".into()) };
    assert_eq!(code(rig.command(create)), RefusalCode::NotFound);
}
