//! The tables of a pair's axes (`core::remote::axes`) against two whole arrays: every state that a pair gets into, with
//! every command of a person at either array; every change of role and cause on all those ways; and every event of the link.
//! What is a rule of `Tables` alone is walked in `core/tests/axes.rs`.

mod rig;
#[path = "remote/two.rs"]
mod two;

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::time::Duration;

use twintrack_controller::firmware::{HostError, HostOp};
use twintrack_core::remote::axes::{CauseEvent, DataEvent, LinkEvent, RoleEvent};
use twintrack_core::{
    Cause, DataState, Half, Halt, LinkState, PairId, PairRecord, PairStatus, Policy, Role, Serving, Stage,
};
use twintrack_link::manage::{Answer, Command, NewDevice, PairHalf, PairMode, RefusalCode, RemoteInfo};
use twintrack_link::remote::Message;
use two::{A, B, TRACK, Two};

const NAMES: [&str; 2] = ["d", "e"];
const HALVES: [Half; 2] = [Half::R1, Half::R2];
const TRACKS: u64 = 8;
const LONG: Duration = Duration::from_secs(20);

/// How a half stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Axes {
    role: Role,
    link: LinkState,
    data: DataState,
    cause: Cause,
}

impl Axes {
    /// From what a person is told, and with the name that he is told for it.
    fn told(half: Half, info: &RemoteInfo) -> Self {
        let axes = Self {
            role: same_name(&Role::ALL, info.role),
            link: same_name(&LinkState::ALL, info.link),
            data: same_name(&DataState::ALL, info.data),
            cause: *Cause::ALL.iter().find(|cause| name(**cause) == format!("{:?}", info.cause)).unwrap(),
        };
        let status = PairStatus::of(Serving::of(half, axes.role), axes.link, axes.data, axes.cause);
        assert_eq!(format!("{:?}", info.status), format!("{status:?}"), "{info:?}");
        axes
    }

    fn of(two: &mut Two, array: usize) -> Self {
        let info = two.show(array, NAMES[array]);
        assert!(!info.why.is_empty() && !info.next.is_empty(), "{info:?}");
        Self::told(HALVES[array], &info)
    }
}

/// What management calls as the rules do.
fn same_name<T: Copy + Debug>(all: &[T], told: impl Debug) -> T {
    *all.iter().find(|one| format!("{one:?}") == format!("{told:?}")).unwrap()
}

fn name(cause: Cause) -> String {
    match cause {
        Cause::Moving => "Moving".into(),
        Cause::Halted(halt) => format!("{halt:?}"),
    }
}

fn pair_of(two: &Two, array: usize) -> (PairId, &PairRecord) {
    two.rigs[array].firmware.tables().pairs().next().unwrap()
}

// The ways into states.

fn suspend(split: bool) -> Command {
    Command::RemoteSuspend { device: "d".into(), whole_group: false, split }
}

fn force(array: usize) -> Command {
    Command::RemoteFailover { device: NAMES[array].into(), force: true }
}

fn fail_over(array: usize) -> Command {
    Command::RemoteFailover { device: NAMES[array].into(), force: false }
}

fn synchronized() -> Two {
    Two::synchronized(TRACKS)
}

/// Synchronized, with this mode and policy.
fn made(mode: PairMode, policy: Policy) -> Two {
    let mut two = Two::linked();
    two.device(A, "d", TRACKS);
    let create = Command::RemoteCreate {
        request: 78,
        device: "d".into(),
        peer: "b".into(),
        peer_device: "e".into(),
        half: PairHalf::R1,
        from: PairHalf::R1,
        create_local: None,
        create_peer: Some(NewDevice { pool: None, size_bytes: TRACKS * TRACK }),
        mode,
        policy: policy.into(),
        group: None,
    };
    two.command(A, create).unwrap();
    two.settle();
    two
}

fn halted_by_a_person(split: bool) -> Two {
    let mut two = synchronized();
    two.command(A, suspend(split)).unwrap();
    two.write(A, 1, 0, 4096, 1);
    two.settle();
    two
}

fn partitioned() -> Two {
    let mut two = synchronized();
    two.cut();
    two.write(A, 1, 0, 4096, 1);
    two
}

fn frozen() -> Two {
    let mut two = made(PairMode::Synchronous, Policy::Freeze);
    two.cut();
    two.try_write(A, 1, 0, 4096, 1).unwrap_err();
    two
}

/// The pool of the second array is full.
fn without_space() -> Two {
    let mut two = Two::with_tracks(64).link_up();
    two.device(A, "d", TRACKS);
    two.create("d", "e", true).unwrap();
    two.settle();
    two.device(B, "filler", 128);
    let mut at = 0;
    while two.try_write(B, 1, at * TRACK, 512, 1).is_ok() {
        at += 1;
    }
    two.write(A, 1, 0, 4096, 1);
    two.settle();
    two
}

/// The second array failed to write.
fn peer_failed() -> Two {
    let mut two = synchronized();
    two.rigs[B].fail_next_write = true;
    two.write(A, 1, 0, 4096, 1);
    two.settle();
    two
}

/// The second array can make nothing durable any more.
fn peer_broken() -> Two {
    let mut two = synchronized();
    two.write(A, 1, 0, 4096, 1);
    two.rigs[B].fail_next_sync = true;
    let _ = two.rigs[A].host(1, HostOp::Flush);
    two.settle();
    two.write(A, 1, TRACK, 4096, 1);
    two.settle();
    two
}

/// The second array has removed its half while nobody could ask the first one.
fn removed_there() -> Two {
    let mut two = synchronized();
    two.cut();
    two.command(B, Command::RemoteDelete { device: "e".into(), force: true }).unwrap();
    two
}

fn failed_over() -> Two {
    let mut two = synchronized();
    two.command(B, fail_over(B)).unwrap();
    two.settle();
    two
}

fn forced() -> Two {
    let mut two = synchronized();
    two.cut();
    two.command(B, force(B)).unwrap();
    two
}

/// So, and it had gone on alone before that.
fn frozen_alone() -> Two {
    let mut two = made(PairMode::Synchronous, Policy::Freeze);
    two.command(A, suspend(false)).unwrap();
    two.write(A, 1, 0, 4096, 1);
    two.cut();
    two.command(A, Asked::Resume.command(A)).unwrap();
    two.try_write(A, 1, 0, 4096, 1).unwrap_err();
    two
}

/// Then the first array is written, if it takes that, and the second one is forced to serve.
fn diverged(mut two: Two) -> Two {
    let _ = two.try_write(A, 1, TRACK, 4096, 2);
    two.detach(A, 1);
    two.cut();
    if two.command(B, force(B)).is_err() {
        // It can make nothing durable any more, is not ready yet, or has no such pair.
        return two;
    }
    two.rigs[B].attach(2, "e");
    let _ = two.try_write(B, 2, 2 * TRACK, 4096, 3);
    two.detach(B, 2);
    two.heal();
    two.wait(LONG);
    two
}

fn parted(mut two: Two) -> Two {
    two.cut();
    two
}

/// The first array is back from a crash, and cannot ask the other one.
fn restarted() -> Two {
    let mut two = synchronized();
    two.cut();
    two.restart(A);
    two
}

/// The source's content comes from the destination, and the link is cut before it has all.
fn lacking() -> Two {
    let mut two = Two::linked();
    two.device(A, "d", 200);
    two.device(B, "e", 200);
    two.write(B, 1, 150 * TRACK, 4096, 9);
    two.detach(B, 1);
    two.begin_create_from("d", "e", false, PairHalf::R2);
    while two.rigs[A].firmware.tables().pairs().all(|(_, record)| record.stage != Stage::Ready) {
        two.carry_out();
    }
    two.cut();
    two
}

/// And then a track is written that it has not yet, whole.
fn crossed() -> Two {
    let mut two = lacking();
    two.write(A, 1, 20 * TRACK, TRACK as usize, 1);
    two
}

/// The link is back, and what was owed is on its way.
fn copying() -> Two {
    let mut two = synchronized();
    two.cut();
    for track in 0..TRACKS {
        two.write(A, 1, track * TRACK, TRACK as usize, 2);
    }
    two.heal();
    while pair_of(&two, B).1.complete {
        two.step_on();
    }
    two
}

/// The first array has given the volume up, and the link breaks before the second one has taken it.
fn released() -> Two {
    let mut two = synchronized();
    two.rigs[B].manage(fail_over(B));
    while pair_of(&two, A).1.role == Role::Owner {
        two.step_on();
    }
    two.cut();
    two.settle();
    two
}

type Way = (&'static str, fn() -> Two);

/// Each state that a person finds a pair in.
const WAYS: [Way; 26] = [
    ("synchronized", synchronized),
    ("adaptive", || made(PairMode::Adaptive, Policy::Continue)),
    ("cut, not written", || parted(synchronized())),
    ("partitioned", partitioned),
    ("suspended", || halted_by_a_person(false)),
    ("suspended, cut", || parted(halted_by_a_person(false))),
    ("split", || halted_by_a_person(true)),
    ("split, cut", || parted(halted_by_a_person(true))),
    ("frozen", frozen),
    ("frozen, alone before", frozen_alone),
    ("no space", without_space),
    ("no space, cut", || parted(without_space())),
    ("peer failed", peer_failed),
    ("peer failed, cut", || parted(peer_failed())),
    ("peer broken", peer_broken),
    ("removed there", removed_there),
    ("failed over", failed_over),
    ("failed over, cut", || parted(failed_over())),
    ("forced", forced),
    ("diverged", || diverged(partitioned())),
    ("diverged, cut", || parted(diverged(partitioned()))),
    ("restarted", restarted),
    ("lacking", lacking),
    ("crossed", crossed),
    ("copying", copying),
    ("released", released),
];

/// What a person can ask for that is an event of an axis.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Asked {
    Suspend,
    Split,
    Resume,
    FailOver,
    Force,
    Keep(Half),
}

impl Asked {
    const ALL: [Self; 7] = [
        Self::Suspend,
        Self::Split,
        Self::Resume,
        Self::FailOver,
        Self::Force,
        Self::Keep(Half::R1),
        Self::Keep(Half::R2),
    ];

    fn command(self, array: usize) -> Command {
        let device = NAMES[array].to_owned();
        match self {
            Self::Suspend => Command::RemoteSuspend { device, whole_group: false, split: false },
            Self::Split => Command::RemoteSuspend { device, whole_group: false, split: true },
            Self::Resume => Command::RemoteResume { device, whole_group: false },
            Self::FailOver => fail_over(array),
            Self::Force => force(array),
            Self::Keep(half) => Command::RemoteResolve { device, keep: half.into() },
        }
    }
}

/// What follows from the tables, and from what else a command asks for; `None`: it is refused.
fn want(two: &Two, array: usize, here: Axes, there: Option<Axes>, asked: Asked) -> Option<Axes> {
    let (_, record) = pair_of(two, array);
    let caused = |event| Some(Axes { cause: here.cause.next(event).unwrap_or(here.cause), ..here });
    let serves = here.role == Role::Owner;
    let next_role = |event| here.role.next(event).map(|role| Axes { role, ..here });
    match asked {
        Asked::Suspend => caused(CauseEvent::Suspend).filter(|_| serves),
        Asked::Split => caused(CauseEvent::Split).filter(|_| serves),
        Asked::Resume => {
            caused(CauseEvent::Resume).filter(|_| serves && here.cause != Cause::Halted(Halt::Diverged))
        }
        Asked::Force if here.link != LinkState::Down || !record.complete || record.kept.is_some() => None,
        Asked::FailOver | Asked::Force if serves && two.rigs[array].vouches(NAMES[array]) => Some(here),
        Asked::FailOver => {
            let (role, cause) = (Role::Owner, Cause::Moving);
            // What is owed yet is little here, and gets to the other half first.
            let lets_go = [DataState::Same, DataState::Owed].map(|data| Axes {
                role,
                link: LinkState::Up,
                data,
                cause,
            });
            let taken = next_role(RoleEvent::Take).map(|axes| Axes { data: DataState::Same, ..axes });
            taken.filter(|_| there.is_some_and(|there| lets_go.contains(&there)))
        }
        Asked::Force => next_role(RoleEvent::Force),
        Asked::Keep(keep) => {
            let cause = here.cause.next(CauseEvent::Resolve)?;
            let data = here.data.next(DataEvent::KeepHere)?;
            let is_asked = keep == HALVES[array] && here.link == LinkState::Up;
            is_asked.then_some(Axes { role: Role::Owner, data, cause, ..here })
        }
    }
}

/// How a half stands, if it is there. An array that can make nothing durable any more does not tell.
fn find(two: &mut Two, array: usize) -> Option<Axes> {
    let (_, record) = two.rigs[array].firmware.tables().pairs().next()?;
    if record.stage != Stage::Ready {
        return None;
    }
    match two.command(array, Command::RemoteShow { device: NAMES[array].into() }) {
        Err(refusal) => assert_eq!(refusal.code, RefusalCode::Unavailable),
        Ok(_) => return Some(Axes::of(two, array)),
    }
    None
}

/// What a person is told by an answer.
fn told(array: usize, answer: Answer) -> Axes {
    match answer {
        Answer::Remote(info) => Axes::told(HALVES[array], &info),
        Answer::Remotes(infos) => Axes::told(HALVES[array], &infos[0]),
        other => panic!("{other:?}"),
    }
}

/// Asks, and compares what is done with what is to be done; `false`: it was refused.
fn ask(two: &mut Two, array: usize, asked: Asked, what: &str) -> bool {
    let Some(here) = find(two, array) else { return false };
    let there = find(two, 1 - array);
    let want = want(two, array, here, there, asked);
    let records = |two: &Two| {
        let record = |rig: &rig::Rig| rig.firmware.tables().pairs().next().map(|(_, record)| record.clone());
        [&two.rigs[A], &two.rigs[B]].map(record)
    };
    let before = records(two);
    let result = two.command(array, asked.command(array));
    let Some(want) = want else {
        let refusal = result.expect_err(what);
        assert!(matches!(refusal.code, RefusalCode::WrongState), "{what}: {refusal:?}");
        assert!(refusal.reason.len() > 20, "{what}: {}", refusal.reason);
        let roles = |records: [Option<PairRecord>; 2]| {
            records.map(|record| record.map(|it| (it.role, it.halt, it.lineage, it.forced)))
        };
        assert_eq!(roles(records(two)), roles(before), "{what}: {}", refusal.reason);
        return false;
    };
    let answer = result.unwrap_or_else(|refusal| panic!("{what}: {}", refusal.reason));
    let now = told(array, answer);
    assert_eq!((now.role, now.cause), (want.role, want.cause), "{what}");
    // Who goes on alone begins a generation that the other half has not.
    let owes = want.data.next(DataEvent::Owe);
    assert!(now.data == want.data || Some(now.data) == owes, "{what}: {now:?} for {want:?}");
    // Who takes over, or is chosen, agrees anew with the other half.
    if matches!(asked, Asked::Suspend | Asked::Split | Asked::Resume | Asked::Force) {
        assert_eq!(now.link, here.link, "{what}");
    }
    two.settle();
    let (Some(there), Some(now)) = (there, find(two, 1 - array)) else { return true };
    let here_now = find(two, array).unwrap();
    let agreed = here.link == LinkState::Up;
    let role = match asked {
        Asked::FailOver if want.role != here.role => {
            there.role.next(RoleEvent::Release).and_then(|role| role.next(RoleEvent::Yield)).unwrap()
        }
        Asked::Keep(_) => Role::Standby,
        _ => there.role,
    };
    // The other half hears of it, if it can; and of what comes of it, if what stood in the way does so still.
    let follows = agreed && !matches!(asked, Asked::FailOver | Asked::Force) && here.role == Role::Owner;
    let cause = if follows || matches!(asked, Asked::Keep(_)) { here_now.cause } else { there.cause };
    assert_eq!((now.role, now.cause), (role, cause), "{what}: the other half");
    true
}

/// Every change of role and of cause since the last start is in its table: by one event.
fn check_changes(two: &Two, seen: &mut Seen, what: &str) {
    for rig in &two.rigs {
        for (from, to) in rig.stood.iter().zip(rig.stood.iter().skip(1)) {
            if from.boot != to.boot || from.pair != to.pair {
                continue;
            }
            let roles = RoleEvent::ALL.iter().any(|event| from.role.next(*event) == Some(to.role));
            assert!(from.role == to.role || roles, "{what}: {from:?} to {to:?}");
            let (before, now) = (Cause::from(from.halt), Cause::from(to.halt));
            let causes = CauseEvent::ALL.iter().any(|event| before.next(*event) == Some(now));
            assert!(before == now || causes, "{what}: {from:?} to {to:?}");
            seen.roles.insert((from.role, to.role));
            seen.causes.insert((before, now));
        }
    }
}

/// Changes that were seen.
#[derive(Default)]
struct Seen {
    roles: BTreeSet<(Role, Role)>,
    causes: BTreeSet<(Cause, Cause)>,
}

/// What a table leads from and to, besides to the same.
fn edges<S: Copy + Ord, E: Copy>(
    states: &[S],
    events: &[E],
    next: impl Fn(S, E) -> Option<S>,
) -> BTreeSet<(S, S)> {
    let all = states.iter().flat_map(|from| events.iter().map(|event| (*from, next(*from, *event))));
    all.filter_map(|(from, to)| Some((from, to?))).filter(|(from, to)| from != to).collect()
}

/// Changes of cause that are in the table, and that no pair makes here. Who is halted for what the arrays have noticed goes on
/// alone: no write of it has to reach the other half, so none freezes it.
const NEVER: [(Halt, Halt); 3] =
    [(Halt::Link, Halt::Frozen), (Halt::Peer, Halt::Frozen), (Halt::Space, Halt::Frozen)];

#[test]
fn what_a_person_asks_for_is_what_the_tables_say() {
    let (mut seen, mut done) = (Seen::default(), BTreeSet::new());
    for (way, reach) in WAYS {
        for array in [A, B] {
            for asked in Asked::ALL {
                let mut two = reach();
                let what = format!("{way}: {asked:?} at {}", ["r1", "r2"][array]);
                if ask(&mut two, array, asked, &what) {
                    done.insert(format!("{asked:?}"));
                }
                // And however it goes on.
                two.heal();
                two.wait(LONG);
                check_changes(&two, &mut seen, &what);
            }
        }
    }
    for (way, reach) in WAYS {
        let mut two = reach();
        if find(&mut two, A).is_some_and(|axes| axes.role == Role::Owner) {
            let two = diverged(two);
            check_changes(&two, &mut seen, way);
        }
    }
    assert_eq!(done.len(), Asked::ALL.len(), "{done:?}");
    let roles = edges(&Role::ALL, &RoleEvent::ALL, Role::next);
    let causes = edges(&Cause::ALL, &CauseEvent::ALL, Cause::next);
    assert_eq!(roles.difference(&seen.roles).collect::<Vec<_>>(), Vec::<&(Role, Role)>::new());
    let never: BTreeSet<_> =
        NEVER.into_iter().map(|(from, to)| (Cause::Halted(from), Cause::Halted(to))).collect();
    assert_eq!(&causes - &seen.causes, never);
}

/// The first write that cannot reach the other half finds the link gone, and freezes the pair: it is no more answered than
/// those after it, for the other half may serve without it. It was, once, and in a generation of its own.
#[test]
fn the_write_that_freezes_a_pair_is_refused() {
    let mut two = made(PairMode::Synchronous, Policy::Freeze);
    let before = pair_of(&two, A).1.lineage.clone();
    two.cut();
    for _ in 0..2 {
        assert_eq!(two.try_write(A, 1, 0, 4096, 1), Err(HostError::Io));
        assert_eq!(Axes::of(&mut two, A).cause, Cause::Halted(Halt::Frozen));
        assert_eq!(pair_of(&two, A).1.lineage, before);
    }
    two.heal();
    two.wait(LONG);
    let (link, cause) = (LinkState::Up, Cause::Moving);
    let well = Axes { role: Role::Owner, link, data: DataState::Same, cause };
    assert_eq!(Axes::of(&mut two, A), well);
    assert_eq!(two.content(A, "d"), two.content(B, "e"));
}

/// The states of the link of R1's half while the arrays do what there is to do, until it is so.
fn follow(two: &mut Two, until: LinkState, seen: &mut Vec<LinkState>) {
    for _ in 0..10_000 {
        let now = Axes::of(two, A).link;
        if seen.last() != Some(&now) {
            seen.push(now);
        }
        if now == until {
            return;
        }
        two.step_on();
    }
    panic!("not {until}: {seen:?}");
}

/// Link: all 9 cells. That nothing is agreed on, and nothing lost, while there is no link is no event that could come: there is
/// no connection on which it would.
#[test]
fn the_link_takes_every_event_as_its_table_says() {
    use LinkEvent::{Agreed, Lost, Opened};
    use LinkState::{Agreeing, Down, Up};
    let mut cells = BTreeSet::new();
    let mut went = |from: LinkState, event: LinkEvent, to: LinkState| {
        assert_eq!(from.next(event).unwrap_or(from), to, "{from:?} {event:?}");
        cells.insert((from, event));
    };
    for from in LinkState::ALL {
        for event in LinkEvent::ALL {
            if from == Down && event != Opened {
                assert_eq!(from.next(event), None);
                went(from, event, from);
                continue;
            }
            let mut two = synchronized();
            let mut seen = Vec::new();
            if from != Up {
                two.cut();
            }
            if from == Agreeing {
                two.heal();
                follow(&mut two, Agreeing, &mut seen);
            }
            assert_eq!(Axes::of(&mut two, A).link, from);
            seen.clear();
            match event {
                Lost => two.cut(),
                // The other array says so; once more, if it has before.
                Agreed if from == Up => {
                    let pairs = vec![pair_of(&two, A).0];
                    two.say(B, Message::Agreed { pairs });
                    two.settle();
                }
                Agreed => follow(&mut two, Up, &mut seen),
                Opened if from == Down => {
                    two.heal();
                    follow(&mut two, Agreeing, &mut seen);
                }
                // A newer connection takes its place: the other array has started anew, and dials.
                Opened => {
                    two.start(B);
                    seen.push(from);
                    let epochs = two.said.len();
                    while !two.said[epochs..]
                        .iter()
                        .any(|(array, said)| *array == A && said.starts_with("hello"))
                    {
                        two.step_on();
                        follow_one(&mut two, &mut seen);
                    }
                }
            }
            let to = Axes::of(&mut two, A).link;
            went(from, event, to);
            assert!(seen.iter().all(|state| *state == from || *state == to), "{from:?} {event:?}: {seen:?}");
        }
    }
    assert_eq!(cells.len(), 9);
}

fn follow_one(two: &mut Two, seen: &mut Vec<LinkState>) {
    let now = Axes::of(two, A).link;
    if seen.last() != Some(&now) {
        seen.push(now);
    }
}
