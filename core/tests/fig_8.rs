//! C1, C2: the status of a pair, and what each command does in each, as in Fig. 8. Every sequence of commands up to a length is
//! walked, with both volumes in one pool and in two, beside a model that knows nothing but the figure.

mod common;

use std::collections::BTreeSet;

use twintrack_core::{
    Change, CommandError, CopyId, CopyStatus, DeviceId, Geometry, Owner, Pace, PairCommand, Place, PoolId,
    PoolRecord, StoreId, StoreRecord, Tables, TrackNo,
};

/// Steps of a sequence: all of 6 to the power of this many are walked.
const STEPS: u32 = 6;

/// The statuses of Fig. 8, and two of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Status {
    /// 801.
    NoPair,
    /// 802.
    PairedAndNotCopied,
    /// 803.
    CopyInProgress,
    /// 803, from the secondary to the primary.
    CopyBackInProgress,
    /// 804.
    PairedAndCopied,
    /// 801, while the secondary takes over the last of the copy in which its pair was deleted.
    Ending,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Create,
    Copy,
    Resync,
    /// Ours: the copy the other way.
    Restore,
    Delete,
    /// The copy ends; no command.
    Ends,
}

use Status::{CopyBackInProgress, CopyInProgress, Ending, NoPair, PairedAndCopied, PairedAndNotCopied};

const STATUSES: [Status; 6] =
    [NoPair, PairedAndNotCopied, CopyInProgress, CopyBackInProgress, PairedAndCopied, Ending];
const ALL_STEPS: [Step; 6] =
    [Step::Create, Step::Copy, Step::Resync, Step::Restore, Step::Delete, Step::Ends];

/// Fig. 8, arrow by arrow; `None`: the command does nothing (Fig. 2).
fn fig_8(from: Status, step: Step) -> Option<Status> {
    Some(match (from, step) {
        (NoPair, Step::Create) => PairedAndNotCopied,
        (PairedAndNotCopied, Step::Copy) => CopyInProgress,
        (CopyInProgress | CopyBackInProgress, Step::Ends) => PairedAndCopied,
        (PairedAndCopied, Step::Resync) => PairedAndNotCopied,
        (PairedAndNotCopied | PairedAndCopied, Step::Delete) => NoPair,
        (PairedAndCopied, Step::Restore) => CopyBackInProgress,
        // Hosts have used the secondary as the copy since the command: it still becomes that.
        (CopyInProgress | CopyBackInProgress, Step::Delete) => Ending,
        (Ending, Step::Ends) => NoPair,
        _ => return None,
    })
}

struct Walk {
    tables: Tables,
    primary: DeviceId,
    secondary: DeviceId,
    /// The pair last made.
    pair: CopyId,
}

impl Walk {
    fn new(second_pool: bool) -> Self {
        let mut durable = common::formatted(&[64]);
        let (pool, store) = (PoolId(1), StoreId(7));
        let record = StoreRecord { name: "far".into(), pool, first: 100, tracks: 64 };
        durable
            .apply(vec![Change::Pool(pool, PoolRecord { name: "far".into() }), Change::Store(store, record)]);
        let mut tables = Tables::load(Geometry::new(1 << 14).unwrap(), durable.changes()).unwrap();
        let pools = [PoolId(0), if second_pool { pool } else { PoolId(0) }];
        let [primary, secondary] = [("p", pools[0]), ("s", pools[1])]
            .map(|(name, pool)| tables.create_standard(name, pool, 4 << 14).unwrap().0);
        for device in [primary, secondary] {
            let place = Place { owner: Owner::Device(device), track: TrackNo(1) };
            let plan = tables.plan_write(place, tables.geometry().full()).unwrap();
            tables.land_write(plan).unwrap();
        }
        Self { tables, primary, secondary, pair: CopyId(0) }
    }

    fn status(&self) -> Status {
        let Some(copy) = self.tables.copy(self.pair) else { return NoPair };
        match copy.status {
            // Only what lies elsewhere is moved yet: that is in no pair's way.
            _ if !copy.is_pair() && copy.fill.is_none() => NoPair,
            _ if !copy.is_pair() => Ending,
            CopyStatus::Paired => PairedAndNotCopied,
            CopyStatus::Copying if copy.back => CopyBackInProgress,
            CopyStatus::Copying => CopyInProgress,
            CopyStatus::Copied => PairedAndCopied,
        }
    }

    fn take(&mut self, step: Step) -> Result<(), CommandError> {
        let (id, t) = (self.pair, &mut self.tables);
        match step {
            Step::Create => {
                self.pair = t.create_local_pair(self.primary, self.secondary, Pace::Medium)?.0;
            }
            Step::Copy => _ = t.begin_local_copy(id, PairCommand::Copy, true, 7)?,
            Step::Restore => _ = t.begin_local_copy(id, PairCommand::Restore, true, 7)?,
            Step::Resync => _ = t.resync_local_pair(id)?,
            Step::Delete => _ = t.delete_local_pair(id)?,
            Step::Ends => self.end(),
        }
        Ok(())
    }

    /// Every copy comes to its end.
    fn end(&mut self) {
        let t = &mut self.tables;
        while let Some(id) = t.next_filling() {
            t.fill_step(id);
        }
        while let Some(id) = { t.relocating().next() } {
            match t.next_foreign(id, TrackNo(0)) {
                Ok(track) => {
                    let target = t.copy(id).unwrap().target();
                    let plan = t.plan_relocate(Place { owner: Owner::Device(target), track }).unwrap();
                    t.land_write(plan.unwrap()).unwrap();
                }
                Err(more) => {
                    assert_eq!(more, None);
                    t.end_relocation(id);
                }
            }
        }
    }

    /// What a step that does not fit must not change.
    fn kept(&self) -> String {
        let t = &self.tables;
        let (copies, sessions): (Vec<_>, Vec<_>) = (t.copies().collect(), t.sessions().collect());
        format!("{} {copies:?} {sessions:?}", t.last_unit())
    }
}

#[test]
fn every_status_and_command() {
    for second_pool in [false, true] {
        let mut seen = BTreeSet::new();
        for sequence in 0..ALL_STEPS.len().pow(STEPS) {
            let mut walk = Walk::new(second_pool);
            let mut status = NoPair;
            let digit = |at: u32| sequence / ALL_STEPS.len().pow(at) % ALL_STEPS.len();
            for step in (0..STEPS).map(|at| ALL_STEPS[digit(at)]) {
                let (before, leads) = (walk.kept(), fig_8(status, step));
                let done = walk.take(step);
                let what = format!("{step:?} on {status:?}, two pools: {second_pool}");
                match leads {
                    Some(_) => done.unwrap_or_else(|error| panic!("{what}: {error}")),
                    None if step == Step::Ends => {}
                    None => {
                        let says = done.expect_err(&what);
                        let fits = match (status, step) {
                            (_, Step::Create) => matches!(says, CommandError::InCopy { .. }),
                            (NoPair | Ending, _) => matches!(says, CommandError::NoCopy { .. }),
                            _ => matches!(says, CommandError::CopyState { .. }),
                        };
                        assert!(fits, "{what}: {says}");
                        assert_eq!(walk.kept(), before, "{what} changes nothing");
                    }
                }
                seen.insert((status, step));
                status = leads.unwrap_or(status);
                assert_eq!(walk.status(), status, "{what}");
            }
            walk.tables.audit().unwrap();
        }
        assert_eq!(seen.len(), STATUSES.len() * ALL_STEPS.len(), "every status and every command");
    }
}
