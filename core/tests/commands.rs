//! What the commands refuse, with what, and that nothing has changed then (D7, D8, D9, D15); the limits of an array
//! (F1).

mod common;

use common::{Durable, formatted};
use twintrack_core::{
    ActivateSession, Change, CommandError, DEVICES_MAX, DeviceId, DeviceKind, GROUPS_MAX, Generation,
    Geometry, GroupId, NAME_BYTES_MAX, Owner, Place, PoolId, SESSIONS_PER_DEVICE_MAX, SessionId,
    SessionState, Tables, TrackNo,
};

const POOL: PoolId = PoolId(0);

fn tables() -> Tables {
    load(&formatted(&[100]))
}

fn load(durable: &Durable) -> Tables {
    Tables::load(Geometry::default(), durable.changes()).expect("a legal array")
}

fn standard(tables: &mut Tables, name: &str) -> DeviceId {
    tables.create_standard(name, POOL, 1 << 20).expect("a legal device").0
}

/// A session that has only to be activated, and the device that will show it.
fn related(
    tables: &mut Tables,
    standard: DeviceId,
    name: &str,
    group: Option<GroupId>,
) -> (SessionId, DeviceId) {
    let (session, _) = tables.register(standard, group).expect("a standard device");
    let (shows, _) = tables.create_virtual(name).expect("a free name");
    tables.relate(session, shows).expect("a registered session and a free device");
    (session, shows)
}

fn item(session: SessionId) -> ActivateSession {
    ActivateSession { session, name: None, online: true }
}

fn named(session: SessionId, name: &str) -> ActivateSession {
    ActivateSession { session, name: Some(name.into()), online: false }
}

/// D7: each call on a session that has not come so far, or is past it, is an error that says what it would take.
#[test]
fn out_of_order_calls_are_refused() {
    let mut t = tables();
    let dev = standard(&mut t, "dev");
    let (session, _) = t.register(dev, None).unwrap();
    let (shows, _) = t.create_virtual("shows").unwrap();
    let (spare, _) = t.create_virtual("spare").unwrap();
    let before = t.last_unit();

    let error = t.activate(&[item(session)], None, 0).unwrap_err();
    assert_eq!(error.to_string(), "ses-2 is registered, and only a session that is related can be activated");
    assert!(matches!(t.deactivate(session), Err(CommandError::SessionState { verb: "deactivated", .. })));
    assert!(matches!(t.fail_session(session), Err(CommandError::SessionState { verb: "failed", .. })));
    assert!(matches!(t.changed(session, TrackNo(0), 1), Err(CommandError::SessionState { .. })));
    let nobody = SessionId(77);
    assert_eq!(t.relate(nobody, shows), Err(CommandError::NoSession { session: nobody }));
    assert_eq!(t.activate(&[item(nobody)], None, 0), Err(CommandError::NoSession { session: nobody }));
    assert!(matches!(t.relate(session, dev), Err(CommandError::NotVirtual { .. })));
    assert!(matches!(t.relate(session, DeviceId(77)), Err(CommandError::NoDevice { .. })));
    assert!(matches!(t.register(shows, None), Err(CommandError::NotStandard { .. })));
    assert!(matches!(t.register(dev, Some(GroupId(77))), Err(CommandError::NoGroup { .. })));
    assert_eq!(t.last_unit(), before);

    t.relate(session, shows).unwrap();
    let before = t.last_unit();
    assert!(matches!(t.relate(session, spare), Err(CommandError::SessionState { wanted: "registered", .. })));
    let (second, _) = t.register(dev, None).unwrap();
    assert_eq!(t.relate(second, shows), Err(CommandError::Shown { name: "shows".into(), session }));
    assert_eq!(t.activate(&[], None, 0), Err(CommandError::Nothing));
    assert_eq!(t.activate(&[item(session), item(session)], None, 0), Err(CommandError::Twice { session }));
    assert_eq!(t.last_unit(), before.next());

    t.activate(&[item(session)], None, 5).unwrap();
    assert!(matches!(t.activate(&[item(session)], None, 0), Err(CommandError::SessionState { .. })));
    assert!(matches!(t.delete_device(dev), Err(CommandError::HasSessions { sessions: 2, .. })));
    assert!(matches!(t.delete_device(shows), Err(CommandError::Shown { .. })));
    t.remove_session(session).unwrap();
    assert_eq!(t.remove_session(session), Err(CommandError::NoSession { session }));
    assert_eq!(t.audit(), Ok(()));
}

/// D7: a session that is registered or related costs its device's writes nothing.
#[test]
fn inactive_sessions_cost_nothing() {
    let mut t = tables();
    let dev = standard(&mut t, "dev");
    let place = Place { owner: Owner::Device(dev), track: TrackNo(0) };
    let full = t.geometry().full();
    let plan = t.plan_write(place, full).unwrap();
    t.land_write(plan).unwrap();
    let (session, _) = related(&mut t, dev, "shows", None);
    assert!(t.writes_in_place(place));
    t.activate(&[item(session)], None, 0).unwrap();
    assert!(!t.writes_in_place(place));
}

/// A list is activated whole or not at all, even if only its last session is refused.
#[test]
fn a_refused_list_activates_nothing() {
    let mut t = tables();
    let dev = standard(&mut t, "dev");
    let (first, _) = related(&mut t, dev, "first", None);
    let (last, _) = t.register(dev, None).unwrap();
    let before = t.last_unit();
    assert!(t.activate(&[item(first), item(last)], None, 0).is_err());
    assert_eq!(t.last_unit(), before);
    assert_eq!(t.session(first).unwrap().state, SessionState::Related { group: None });
    assert_eq!(t.device(dev).unwrap().generation(), Generation(0));
}

/// D9: new names at activation; each must be free, and no two the same.
#[test]
fn names_at_activation() {
    let mut t = tables();
    let dev = standard(&mut t, "dev");
    let (a, shows_a) = related(&mut t, dev, "a", None);
    let (b, _) = related(&mut t, dev, "b", None);
    let exists = |name: &str| Err(CommandError::Exists { name: name.into() });
    assert_eq!(t.activate(&[named(a, "dev")], None, 0), exists("dev"));
    assert_eq!(t.activate(&[named(a, "b")], None, 0), exists("b"));
    assert_eq!(t.activate(&[named(a, "new"), named(b, "new")], None, 0), exists("new"));
    assert!(matches!(t.activate(&[named(a, "-")], None, 0), Err(CommandError::Name { .. })));
    t.activate(&[named(a, "a"), named(b, "new")], None, 0).unwrap();
    assert_eq!(t.device_named("new").map(|(_, record)| record.online), Some(false));
    assert_eq!(t.device_named("a").map(|(id, _)| id), Some(shows_a));
    assert_eq!(t.device_named("b"), None);
}

/// D8: a session of a group is activated with it and not otherwise; a closed group leaves none behind.
#[test]
fn groups() {
    let mut t = tables();
    let (one, two) = (standard(&mut t, "one"), standard(&mut t, "two"));
    let (group, _) = t.begin_group().unwrap();
    let (other, _) = t.begin_group().unwrap();
    let (a, _) = related(&mut t, one, "a", Some(group));
    let (b, _) = related(&mut t, two, "b", Some(group));
    let in_group = Err(CommandError::InGroup { session: a, group });
    assert_eq!(t.activate(&[item(a)], None, 0), in_group);
    assert_eq!(t.activate(&[item(a)], Some(other), 0), in_group);
    assert_eq!(t.group_sessions(group), Ok(vec![a, b]));
    assert_eq!(t.group_sessions(GroupId(77)), Err(CommandError::NoGroup { group: GroupId(77) }));

    t.activate(&[item(a), item(b)], Some(group), 9).unwrap();
    assert_eq!(t.groups().collect::<Vec<_>>(), [other]);
    for (session, device) in [(a, one), (b, two)] {
        let activated = t.device(device).unwrap().generation();
        assert_eq!(t.session(session).unwrap().state, SessionState::Active { activated });
        assert_eq!(activated, Generation(1));
    }

    let (c, _) = related(&mut t, one, "c", Some(other));
    t.close_group(other).unwrap();
    assert_eq!(t.session(c).unwrap().state, SessionState::Related { group: None });
    assert!(matches!(t.close_group(other), Err(CommandError::NoGroup { .. })));
    t.activate(&[item(c)], None, 0).unwrap();
}

/// Several sessions of one device in one list begin one generation.
#[test]
fn one_instant_is_one_generation() {
    let mut t = tables();
    let dev = standard(&mut t, "dev");
    let list: Vec<_> = (0..5).map(|n| item(related(&mut t, dev, &format!("v{n}"), None).0)).collect();
    t.activate(&list, None, 0).unwrap();
    assert_eq!(t.device(dev).unwrap().generation(), Generation(1));
}

#[test]
fn names() {
    let mut t = tables();
    let long = "x".repeat(NAME_BYTES_MAX);
    let device = standard(&mut t, &long);
    for bad in ["", "-a", ".a", "_", "a b", "ä", "a/b", "a\0", &format!("{long}x")] {
        let before = t.last_unit();
        assert!(matches!(t.create_virtual(bad), Err(CommandError::Name { .. })), "{bad:?}");
        assert!(matches!(t.rename(device, bad), Err(CommandError::Name { .. })), "{bad:?}");
        assert_eq!(t.last_unit(), before);
    }
    assert_eq!(t.create_virtual(&long), Err(CommandError::Exists { name: long.clone() }));
    t.rename(device, &long).unwrap();
    // The name of a device that is being deleted is free at once.
    t.delete_device(device).unwrap();
    t.create_virtual(&long).unwrap();
}

#[test]
fn sizes() {
    let mut t = tables();
    for bad in [0, 1, 513, (16 << 40) + 512] {
        assert!(matches!(t.create_standard("dev", POOL, bad), Err(CommandError::Size(_))), "{bad}");
    }
    assert_eq!(t.create_standard("dev", PoolId(9), 512), Err(CommandError::NoPool { pool: PoolId(9) }));
    let (dev, _) = t.create_standard("dev", POOL, 1024).unwrap();
    assert!(matches!(t.grow(dev, 512), Err(CommandError::Shrink { size_bytes: 1024, to_bytes: 512, .. })));
    t.grow(dev, 16 << 40).unwrap();
    let (shows, _) = t.create_virtual("shows").unwrap();
    assert!(matches!(t.grow(shows, 1024), Err(CommandError::NotStandard { .. })));
}

/// F1: 1,024 sessions a device, counting those that are being removed.
#[test]
fn the_limit_of_sessions() {
    let mut t = tables();
    let dev = standard(&mut t, "dev");
    let sessions: Vec<_> = (0..SESSIONS_PER_DEVICE_MAX).map(|_| t.register(dev, None).unwrap().0).collect();
    let before = t.last_unit();
    let most = SESSIONS_PER_DEVICE_MAX;
    assert!(matches!(t.register(dev, None), Err(CommandError::Limit { most: limit, .. }) if limit == most));
    assert_eq!(t.last_unit(), before);
    // Another device has its own.
    let other = standard(&mut t, "other");
    t.register(other, None).unwrap();
    t.remove_session(sessions[500]).unwrap();
    t.register(dev, None).unwrap();
}

#[test]
fn the_limits_of_devices_and_groups() {
    let mut t = tables();
    for n in 0..DEVICES_MAX {
        t.create_virtual(&format!("v{n}")).unwrap();
    }
    assert!(matches!(t.create_virtual("more"), Err(CommandError::Limit { most: DEVICES_MAX, .. })));
    let groups: Vec<_> = (0..GROUPS_MAX).map(|_| t.begin_group().unwrap().0).collect();
    assert!(matches!(t.begin_group(), Err(CommandError::Limit { most: GROUPS_MAX, .. })));
    t.close_group(groups[7]).unwrap();
    t.begin_group().unwrap();
}

/// A device whose generations are used up refuses activations and deactivations; its sessions can still be removed.
#[test]
fn generations_end() {
    let mut t = tables();
    let dev = standard(&mut t, "dev");
    let (first, _) = related(&mut t, dev, "first", None);
    let (second, _) = related(&mut t, dev, "second", None);
    let mut durable = formatted(&[100]);
    let last = t.last_unit();
    durable.apply(t.take_commit(last));
    let mut record = durable.devices[&dev].clone();
    record.kind = DeviceKind::Standard { pool: POOL, generation: Generation(u32::MAX - 1), deleting: false };
    durable.apply(vec![Change::Device(dev, Some(record))]);

    let mut t = load(&durable);
    t.activate(&[item(first)], None, 0).unwrap();
    let before = t.last_unit();
    assert!(matches!(t.activate(&[item(second)], None, 0), Err(CommandError::Limit { .. })));
    assert!(matches!(t.deactivate(first), Err(CommandError::Limit { .. })));
    assert_eq!(t.last_unit(), before);
    assert!(matches!(t.session(first).unwrap().state, SessionState::Active { .. }));
    t.remove_session(first).unwrap();
}

/// Numbers are never used twice, not even after a restart or when nothing is left.
#[test]
fn numbers_are_never_used_twice() {
    let mut durable = formatted(&[100]);
    let mut seen = Vec::new();
    for _ in 0..5 {
        let mut t = load(&durable);
        let dev = standard(&mut t, "dev");
        let (session, shows) = related(&mut t, dev, "shows", None);
        let (group, _) = t.begin_group().unwrap();
        seen.extend([dev.0, session.0, shows.0, group.0]);
        t.remove_session(session).unwrap();
        t.close_group(group).unwrap();
        t.delete_device(shows).unwrap();
        t.delete_device(dev).unwrap();
        while t.has_reclaim() {
            t.reclaim();
        }
        let last = t.last_unit();
        durable.apply(t.take_commit(last));
    }
    let count = seen.len();
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), count);
    assert!(durable.is_bare());
}
