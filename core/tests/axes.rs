//! The tables of a pair's axes (`remote::axes`) against what the tables of an array do: every state with every event. What a
//! cell says is read from the documentation, which a test beside the tables holds to their functions: so neither changes
//! without the other, nor without the code here.
//!
//! The link is no part of `Tables`: its table, and what commands of a person do, are walked with two whole arrays, in
//! `controller/tests/axes.rs`.

mod common;
#[path = "common/pairs.rs"]
mod halves;

use std::collections::BTreeMap;
use std::fmt::Debug;

use halves::{HERE, POOL, TRACK_BYTES, array, commit, generation, load, pair, record};
use twintrack_core::remote::axes::{Cause, CauseEvent, DataEvent, DataState, RoleEvent};
use twintrack_core::remote::{Halt, Lineage, PairRecord, Role, Stage};
use twintrack_core::{CommandError, PairDevice, PairId, RegionNo, Tables, TrackNo, UnitSeq};

/// The wall times of the halt that there was, and of what is done.
const BEFORE_MS: u64 = 7;
const NOW_MS: u64 = 9;

/// A table as it is documented: what follows from a state and an event, if anything does.
struct Table(BTreeMap<(String, String), Option<String>>);

impl Table {
    fn of(events: &str) -> Self {
        let source = include_str!("../src/remote/axes.rs");
        let end = source.find(&format!("pub enum {events}")).expect("the enum");
        let rows = source[..end].rsplit("/// ```text\n").next().expect("a table");
        let mut rows = rows.lines().take_while(|line| !line.contains("```"));
        let words = |line: &str| -> Vec<String> {
            line.trim_start_matches('/').split_whitespace().map(str::to_owned).collect()
        };
        let heads = words(rows.next().expect("the events"));
        let mut cells = BTreeMap::new();
        for row in rows.map(words) {
            let (state, nexts) = row.split_first().expect("a state");
            assert_eq!(nexts.len(), heads.len(), "{row:?}");
            for (event, next) in heads.iter().zip(nexts) {
                cells.insert((state.clone(), event.clone()), Some(next.clone()).filter(|next| next != "-"));
            }
        }
        Self(cells)
    }

    fn next(&self, state: impl Debug, event: impl Debug) -> Option<&str> {
        self.0[&(format!("{state:?}"), format!("{event:?}"))].as_deref()
    }

    fn cells(&self) -> usize {
        self.0.len()
    }
}

fn halt_of(cause: Cause) -> Option<Halt> {
    match cause {
        Cause::Moving => None,
        Cause::Halted(halt) => Some(halt),
    }
}

/// The name of a cause in its table.
fn name(cause: Cause) -> String {
    halt_of(cause).map_or_else(|| format!("{cause:?}"), |halt| format!("{halt:?}"))
}

/// An array with a ready half in this state.
fn half(role: Role, cause: Cause, complete: bool) -> (Tables, common::Durable, PairId) {
    let (mut tables, mut durable, peer) = array();
    let halt = halt_of(cause);
    let halted_ms = halt.map_or(0, |_| BEFORE_MS);
    let record = PairRecord { role, halt, halted_ms, complete, ..record(peer) };
    let (id, _) = pair(&mut tables, record, "db", 10);
    commit(&mut tables, &mut durable);
    (tables, durable, id)
}

/// The half is as it is wanted, whatever its lineage; nothing is owed or lacked, and a restart brings it back.
fn is(t: &mut Tables, durable: &mut common::Durable, id: PairId, want: PairRecord, what: &str) {
    let now = t.pair(id).expect("it is there").clone();
    assert_eq!(now, PairRecord { lineage: now.lineage.clone(), ..want }, "{what}");
    assert!(t.owed(id).unwrap().is_empty() && t.lacked(id).unwrap().is_empty(), "{what}");
    t.audit().unwrap();
    commit(t, durable);
    assert_eq!(load(durable).pair(id), Some(&now), "{what}");
}

/// A refusal tells the state, what is not possible and what to do, and changes nothing.
fn is_refused(
    t: &Tables,
    before: (UnitSeq, &PairRecord),
    id: PairId,
    error: &CommandError,
    words: [&str; 2],
) {
    let text = error.to_string();
    let [state, verb] = words;
    let advice = text.strip_prefix(&format!("{id} is {state} and cannot be {verb}: "));
    assert!(advice.is_some_and(|advice| advice.len() > 10), "{text}");
    assert_eq!((t.last_unit(), t.pair(id)), (before.0, Some(before.1)), "{text}");
    t.audit().unwrap();
}

/// What a command answers.
#[derive(Debug, PartialEq)]
enum Answer {
    Done,
    /// There was nothing to do.
    Nothing,
    Refused(CommandError),
}

impl From<Result<UnitSeq, CommandError>> for Answer {
    fn from(result: Result<UnitSeq, CommandError>) -> Self {
        result.map_or_else(Self::Refused, |_| Self::Done)
    }
}

/// Whether the event is a halt: one that is weaker than the halt that there is leaves that, and is not refused, since what
/// comes with it is done all the same.
fn halts(event: CauseEvent) -> Option<Halt> {
    Some(match event {
        CauseEvent::Suspend => Halt::Operator,
        CauseEvent::Split => Halt::Split,
        CauseEvent::LinkLost => Halt::Link,
        CauseEvent::PeerFailed => Halt::Peer,
        CauseEvent::NoSpace => Halt::Space,
        CauseEvent::Freeze => Halt::Frozen,
        CauseEvent::Diverge => Halt::Diverged,
        CauseEvent::Agreed | CauseEvent::Resume | CauseEvent::Resolve => return None,
    })
}

fn cause_event(t: &mut Tables, id: PairId, event: CauseEvent) -> Answer {
    if let Some(halt) = halts(event) {
        return t.halt_group(&[id], halt, NOW_MS, &[]).into();
    }
    match event {
        CauseEvent::Agreed => t.agreed(id).map_or(Answer::Nothing, |_| Answer::Done),
        CauseEvent::Resume => t.resume(id).into(),
        _ => t.resolve(id, None).into(),
    }
}

/// Cause: all 80 cells, for each of the three roles.
#[test]
fn every_cause_takes_every_event_as_its_table_says() {
    let table = Table::of("CauseEvent");
    let mut seen = 0;
    for role in Role::ALL {
        for (cause, event) in
            Cause::ALL.into_iter().flat_map(|cause| CauseEvent::ALL.map(|event| (cause, event)))
        {
            let what = format!("{role:?} {cause:?} {event:?}");
            let (mut t, mut durable, id) = half(role, cause, true);
            let (unit, before) = (t.last_unit(), t.pair(id).unwrap().clone());
            let next = table.0[&(name(cause), format!("{event:?}"))].as_deref();
            let answer = cause_event(&mut t, id, event);
            let to = Cause::ALL.into_iter().find(|to| Some(name(*to).as_str()) == next);
            assert_eq!(to.is_some(), next.is_some(), "{what}: a state that there is not");
            assert_eq!(Cause::from(t.pair(id).unwrap().halt), to.unwrap_or(cause), "{what}");
            seen += 1;

            if to.is_none() && halts(event).is_none() && event != CauseEvent::Agreed {
                let Answer::Refused(error) = answer else { panic!("{what}: {answer:?}") };
                let state =
                    if cause == Cause::Moving { "not halted".into() } else { format!("halted ({cause})") };
                let verb = if event == CauseEvent::Resume { "resumed" } else { "resolved" };
                is_refused(&t, (unit, &before), id, &error, [&state, verb]);
                continue;
            }
            // It moves already, or it takes more than an agreement: that is no error, for nobody asked for more.
            let nothing = event == CauseEvent::Agreed && (cause == Cause::Moving || to.is_none());
            assert_eq!(answer, if nothing { Answer::Nothing } else { Answer::Done }, "{what}");
            if nothing {
                assert_eq!((t.last_unit(), t.pair(id)), (unit, Some(&before)), "{what}");
                continue;
            }
            let now = t.pair(id).unwrap();
            // Who serves and goes on without the other half begins a generation, before it may answer any write.
            let alone = now.halt.is_some_and(|halt| halt != Halt::Frozen) && role == Role::Owner;
            let began = now.lineage.current() != before.lineage.current();
            assert_eq!((began, now.is_alone()), (alone, alone), "{what}");
            assert!(!began || now.lineage.current().serial == HERE, "{what}");
            // Who has diverged did so when the first of it happened.
            let anew = to.is_some_and(|to| to != Cause::Moving)
                && !(to == Some(Cause::Halted(Halt::Diverged)) && cause != Cause::Moving);
            let halted_ms = if anew { NOW_MS } else { before.halted_ms };
            let want = PairRecord { halt: halt_of(to.unwrap_or(cause)), halted_ms, ..before };
            is(&mut t, &mut durable, id, want, &what);
        }
    }
    assert_eq!((seen, table.cells()), (3 * 80, 80));
}

/// The call that an event of the role is: the role that it leads to, and whether it is forced.
fn call_of(event: RoleEvent) -> (Role, bool) {
    match event {
        RoleEvent::Release => (Role::Released, false),
        RoleEvent::Yield => (Role::Standby, false),
        RoleEvent::Take | RoleEvent::TakeBack => (Role::Owner, false),
        RoleEvent::Force => (Role::Owner, true),
    }
}

/// Cells that no call reaches: a call names the role that it leads to, so *take* and *take back* are the same one, and who
/// stands by takes where who has released takes back.
const SAME_CALL: [(Role, RoleEvent); 2] =
    [(Role::Standby, RoleEvent::TakeBack), (Role::Released, RoleEvent::Take)];

/// Role: all 15 cells, with each of the eight causes, and with a copy that is complete or not.
#[test]
fn every_role_takes_every_event_as_its_table_says() {
    let table = Table::of("RoleEvent");
    let mut seen = 0;
    for (role, event) in Role::ALL.into_iter().flat_map(|role| RoleEvent::ALL.map(|event| (role, event))) {
        seen += 1;
        let next = table.next(role, event);
        if SAME_CALL.contains(&(role, event)) {
            let other = if event == RoleEvent::Take { RoleEvent::TakeBack } else { RoleEvent::Take };
            assert_eq!((next, table.next(role, other)), (None, Some("Owner")), "{role:?} {event:?}");
            continue;
        }
        let (to, forced) = call_of(event);
        assert!(next.is_none_or(|next| next == format!("{to:?}")), "{role:?} {event:?} {next:?}");
        for (cause, complete) in Cause::ALL.into_iter().flat_map(|cause| [true, false].map(|c| (cause, c))) {
            let what = format!("{role:?} {event:?} {cause:?} complete: {complete}");
            let (mut t, mut durable, id) = half(role, cause, complete);
            let (unit, before) = (t.last_unit(), t.pair(id).unwrap().clone());
            let answer = t.set_roles(&[id], to, forced);
            if next.is_none() {
                is_refused(
                    &t,
                    (unit, &before),
                    id,
                    &answer.unwrap_err(),
                    [&format!("{role} here"), "failed over"],
                );
                continue;
            }
            if forced && !complete {
                assert_eq!(answer, Err(CommandError::Incomplete { pair: id }), "{what}");
                assert_eq!((t.last_unit(), t.pair(id)), (unit, Some(&before)), "{what}");
                continue;
            }
            answer.unwrap_or_else(|error| panic!("{what}: {error}"));
            let now = t.pair(id).unwrap();
            // By force, so that what the other half does from now on shows.
            assert_eq!(now.lineage.current() != before.lineage.current(), forced, "{what}");
            is(&mut t, &mut durable, id, PairRecord { role: to, forced, ..before }, &what);
        }
    }
    assert_eq!((seen, table.cells()), (15, 15));
}

/// A half that is not ready, or no more, has no role to move.
#[test]
fn no_role_moves_before_a_pair_is_ready_or_after_its_end() {
    for (role, event) in Role::ALL.into_iter().flat_map(|role| RoleEvent::ALL.map(|event| (role, event))) {
        for stage in [Stage::Creating, Stage::Undoing, Stage::Ended] {
            let (mut t, _, peer) = array();
            let id = t.next_pair_id();
            let new = PairDevice::New { name: "db".into(), pool: POOL, size_bytes: 10 * TRACK_BYTES };
            t.create_pair(id, PairRecord { role, ..record(peer) }, new).unwrap();
            match stage {
                Stage::Undoing => drop(t.undo_pair(id).unwrap()),
                Stage::Ended => {
                    t.ready_pair(id).unwrap();
                    t.end_pair(id).unwrap();
                }
                _ => {}
            }
            let (unit, before) = (t.last_unit(), t.pair(id).unwrap().clone());
            let (to, forced) = call_of(event);
            let error = t.set_roles(&[id], to, forced).unwrap_err();
            is_refused(&t, (unit, &before), id, &error, [&stage.to_string(), "failed over"]);
        }
    }
}

/// How the data of a half stand, from what it keeps.
fn data(t: &Tables, id: PairId) -> DataState {
    let half = t.pair(id).unwrap();
    let behind = half.role != Role::Owner && !half.complete;
    let [owed, lacked] = [t.owed(id), t.lacked(id)].map(|set| !set.unwrap().is_empty());
    DataState::of(owed, lacked || behind, half.halt == Some(Halt::Diverged))
}

fn one(track: u32) -> [(RegionNo, u64); 1] {
    [(RegionNo(0), 1 << track)]
}

/// Does what the event is; `false`: it was refused, and nothing has changed.
fn data_event(t: &mut Tables, id: PairId, event: DataEvent) -> bool {
    match event {
        DataEvent::Owe => drop(t.owe(id, TrackNo(4))),
        DataEvent::Lack => drop(t.lack_words(id, &one(6))),
        DataEvent::Paid => {
            while let Some(track) = t.next_owed(id, TrackNo(0)) {
                t.pay(id, track);
            }
        }
        DataEvent::Fetched => {
            while let Some(track) = t.next_lacked(id, TrackNo(0)) {
                t.fetched(id, track);
            }
        }
        DataEvent::Diverge => drop(t.halt_group(&[id], Halt::Diverged, NOW_MS, &[]).unwrap()),
        DataEvent::KeepHere | DataEvent::KeepThere => {
            let mut loser = Lineage::new(generation(1));
            loser.begin(generation(9));
            let keep = event == DataEvent::KeepHere;
            let (unit, before) = (t.last_unit(), t.pair(id).unwrap().clone());
            if let Err(error) = t.resolve(id, keep.then_some(&loser)) {
                is_refused(t, (unit, &before), id, &error, ["not halted", "resolved"]);
                return false;
            }
            if keep {
                // What the other half has written alone.
                t.owe_words(id, &one(8));
            } else {
                t.set_roles(&[id], Role::Standby, false).unwrap();
                t.set_complete(id, false).unwrap();
                // The other half owes it now.
                t.forget_owed(id);
            }
        }
    }
    true
}

/// Data: all 35 cells. An event that does not belong to a state leaves it, and if the event is a person's it is refused.
#[test]
fn data_take_every_event_as_their_table_says() {
    let table = Table::of("DataEvent");
    let mut seen = 0;
    for (state, event) in
        DataState::ALL.into_iter().flat_map(|state| DataEvent::ALL.map(|event| (state, event)))
    {
        let what = format!("{state:?} {event:?}");
        let (mut t, mut durable, id) = half(Role::Owner, Cause::Moving, true);
        if matches!(state, DataState::Owed | DataState::Crossed | DataState::Diverged) {
            t.owe(id, TrackNo(3));
        }
        if matches!(state, DataState::Lacked | DataState::Crossed) {
            t.lack_words(id, &one(5));
        }
        if state == DataState::Diverged {
            t.halt_group(&[id], Halt::Diverged, BEFORE_MS, &[]).unwrap();
        }
        assert_eq!(data(&t, id), state, "{what}");
        let taken = data_event(&mut t, id, event);
        let next = table.next(state, event);
        let want = next.map_or_else(|| format!("{state:?}"), str::to_owned);
        assert_eq!(format!("{:?}", data(&t, id)), want, "{what}");
        let asked = matches!(event, DataEvent::KeepHere | DataEvent::KeepThere);
        assert!(taken || asked, "{what}");
        assert!(!asked || taken == next.is_some(), "{what}");
        t.audit().unwrap();
        t.settle_owed(id);
        commit(&mut t, &mut durable);
        assert_eq!(data(&load(&durable), id), data(&t, id), "{what}: after a restart");
        seen += 1;
    }
    assert_eq!((seen, table.cells()), (35, 35));
}
