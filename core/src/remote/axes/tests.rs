use super::*;

/// Whether the tables of states and events have the named shape, and no state is without an exit (F5).
fn walk<S, E>(states: &[S], events: &[E], next: impl Fn(S, E) -> Option<S>) -> Vec<(S, S)>
where
    S: Copy + PartialEq + fmt::Debug,
    E: Copy + fmt::Debug,
{
    let mut steps = Vec::new();
    for state in states {
        for event in events {
            if let Some(to) = next(*state, *event) {
                assert!(states.contains(&to), "{state:?} and {event:?} lead to {to:?}");
                steps.push((*state, to));
            }
        }
        assert!(steps.iter().any(|(from, to)| from == state && to != state), "{state:?} has no exit");
        assert!(steps.iter().any(|(from, _)| from == state), "{state:?} takes no event");
    }
    for state in states {
        assert!(steps.iter().any(|(from, to)| to == state && from != state), "nothing leads to {state:?}");
    }
    steps
}

/// Every state of every axis takes some event, has an exit and can be reached.
#[test]
fn no_state_is_without_an_exit() {
    walk(&Role::ALL, &RoleEvent::ALL, Role::next);
    walk(&LinkState::ALL, &LinkEvent::ALL, LinkState::next);
    walk(&DataState::ALL, &DataEvent::ALL, DataState::next);
    walk(&Cause::ALL, &CauseEvent::ALL, Cause::next);
}

/// The table of a doc comment, as it is written there.
fn table(source: &str, of: &str) -> Vec<Vec<String>> {
    let end = source.find(&format!("pub enum {of}")).expect("the enum");
    let rows = source[..end].rsplit("/// ```text\n").next().expect("a table");
    let rows = rows.lines().take_while(|line| !line.contains("```"));
    rows.map(|row| row.trim_start_matches('/').split_whitespace().map(str::to_owned).collect()).collect()
}

fn documented<S, E>(
    of: &str,
    states: &[S],
    events: &[E],
    next: impl Fn(S, E) -> Option<S>,
    name: impl Fn(S) -> String,
) where
    S: Copy,
    E: Copy + fmt::Debug,
{
    let table = table(include_str!("../axes.rs"), of);
    let heads: Vec<_> = events.iter().map(|event| format!("{event:?}")).collect();
    assert_eq!(table[0], heads, "the events of {of}");
    assert_eq!(table.len(), states.len() + 1, "the states of {of}");
    for (state, row) in states.iter().zip(&table[1..]) {
        let mut want = vec![name(*state)];
        want.extend(events.iter().map(|event| next(*state, *event).map_or_else(|| "-".into(), &name)));
        assert_eq!(*row, want, "a row of {of}");
    }
}

/// What the documentation says is what the functions do.
#[test]
fn the_tables_are_as_documented() {
    let cause = |cause| match cause {
        Cause::Moving => "Moving".to_owned(),
        Cause::Halted(halt) => format!("{halt:?}"),
    };
    documented("RoleEvent", &Role::ALL, &RoleEvent::ALL, Role::next, |s| format!("{s:?}"));
    documented("LinkEvent", &LinkState::ALL, &LinkEvent::ALL, LinkState::next, |s| format!("{s:?}"));
    documented("DataEvent", &DataState::ALL, &DataEvent::ALL, DataState::next, |s| format!("{s:?}"));
    documented("CauseEvent", &Cause::ALL, &CauseEvent::ALL, Cause::next, cause);
}

/// A whole pair as one half sees it.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Whole {
    role: Role,
    link: LinkState,
    data: DataState,
    cause: Cause,
}

fn all() -> impl Iterator<Item = Whole> {
    let of_link = |role, link| {
        DataState::ALL
            .into_iter()
            .flat_map(move |data| Cause::ALL.into_iter().map(move |cause| Whole { role, link, data, cause }))
    };
    Role::ALL
        .into_iter()
        .flat_map(move |role| LinkState::ALL.into_iter().flat_map(move |link| of_link(role, link)))
}

/// From everywhere, with a healthy link, a person who decides and a copy that goes on, a pair gets to where both
/// halves are the same and everything moves: whatever it was called before (F5).
#[test]
fn every_pair_gets_well() {
    for half in [Half::R1, Half::R2] {
        for start in all() {
            let mut whole = start;
            for (from, event) in
                [(LinkState::Down, LinkEvent::Opened), (LinkState::Agreeing, LinkEvent::Agreed)]
            {
                if whole.link == from {
                    whole.link = whole.link.next(event).expect("a link comes up");
                }
            }
            whole.data = whole.data.next(DataEvent::KeepHere).unwrap_or(whole.data);
            whole.cause = whole.cause.next(CauseEvent::Resolve).unwrap_or(whole.cause);
            whole.cause = whole.cause.next(CauseEvent::Resume).unwrap_or(whole.cause);
            whole.role = whole.role.next(RoleEvent::TakeBack).unwrap_or(whole.role);
            whole.data = whole.data.next(DataEvent::Paid).unwrap_or(whole.data);
            whole.data = whole.data.next(DataEvent::Fetched).unwrap_or(whole.data);
            let status = PairStatus::of(Serving::of(half, whole.role), whole.link, whole.data, whole.cause);
            assert!(
                matches!(status, PairStatus::Synchronized | PairStatus::R1Updated),
                "{start:?}: {status}"
            );
        }
    }
}

/// Each name is given to something, and says nothing that is not so.
#[test]
fn the_names_are_true() {
    let mut seen = std::collections::BTreeSet::new();
    for half in [Half::R1, Half::R2] {
        for Whole { role, link, data, cause } in all() {
            let serving = Serving::of(half, role);
            let status = PairStatus::of(serving, link, data, cause);
            seen.insert(status);
            let well = link == LinkState::Up && cause == Cause::Moving;
            let same = data == DataState::Same;
            let diverged = data == DataState::Diverged || cause == Cause::Halted(Halt::Diverged);
            let fits = match status {
                PairStatus::SyncInProg => well && !same && !diverged && serving != Serving::Nobody,
                PairStatus::Synchronized => well && same && serving == Serving::R1,
                PairStatus::R1Updated => well && same && serving == Serving::R2,
                PairStatus::Suspended => {
                    link == LinkState::Up && cause != Cause::Moving && serving == Serving::R1 && !diverged
                }
                PairStatus::Partitioned => link != LinkState::Up && serving == Serving::R1 && !diverged,
                PairStatus::Split => cause == Cause::Halted(Halt::Split) && !diverged,
                PairStatus::FailedOver => serving != Serving::R1 && !diverged,
                PairStatus::Diverged => diverged,
            };
            assert!(fits, "{role:?} {link:?} {data:?} {cause:?} of {half:?} is called {status}");
        }
    }
    assert_eq!(seen.len(), 8);
}

/// Only the two halves' roles together say who serves: never both, whatever each is told, as long as nobody forces.
#[test]
fn unforced_roles_never_serve_both() {
    // A half takes only what the other released, and takes back only what the other did not take.
    let mut todo = vec![(Role::Owner, Role::Standby)];
    let mut seen = Vec::new();
    while let Some((a, b)) = todo.pop() {
        if seen.contains(&(a, b)) {
            continue;
        }
        seen.push((a, b));
        assert!((a, b) != (Role::Owner, Role::Owner));
        for (me, other, swap) in [(a, b, false), (b, a, true)] {
            for event in RoleEvent::ALL {
                let allowed = match event {
                    RoleEvent::Release => true,
                    RoleEvent::Take => other == Role::Released,
                    RoleEvent::TakeBack => other == Role::Standby,
                    RoleEvent::Yield => other == Role::Owner,
                    RoleEvent::Force => false,
                };
                if let Some(to) = me.next(event).filter(|_| allowed) {
                    todo.push(if swap { (other, to) } else { (to, other) });
                }
            }
        }
    }
    assert!(seen.contains(&(Role::Standby, Role::Owner)));
}
