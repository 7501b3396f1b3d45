//! The records of pairs that one unit changes together, and the generations that begin with it.

use crate::command::CommandError;
use crate::defect::{Defect, planted};
use crate::ids::{PairGeneration, PairId};
use crate::pair::too_many_ids;
use crate::records::Change;
use crate::remote::PairRecord;
use crate::tables::Tables;

/// The records of pairs that one unit changes, and the numbers that it takes.
pub(crate) struct Records {
    records: Vec<(PairId, PairRecord)>,
    first_id: u32,
    next_id: u32,
}

impl Records {
    pub(crate) fn new(tables: &Tables) -> Self {
        Self { records: Vec::new(), first_id: tables.next_id, next_id: tables.next_id }
    }

    /// The record of a pair that is known to be there, to be changed.
    pub(crate) fn record(&mut self, tables: &Tables, id: PairId) -> &mut PairRecord {
        let at = self.records.iter().position(|(other, _)| *other == id).unwrap_or_else(|| {
            self.records.push((id, tables.pairs[&id].record.clone()));
            self.records.len() - 1
        });
        &mut self.records[at].1
    }

    pub(crate) fn begin_if_shared(&mut self, tables: &Tables, id: PairId) -> Result<(), CommandError> {
        let noted = self.record(tables, id).is_alone() || planted(Defect::AloneUnnoted);
        if noted { Ok(()) } else { self.begin(tables, id) }
    }

    pub(crate) fn begin(&mut self, tables: &Tables, id: PairId) -> Result<(), CommandError> {
        let generation = self.new_generation(tables)?;
        self.record(tables, id).lineage.begin(generation);
        Ok(())
    }

    pub(crate) fn new_generation(&mut self, tables: &Tables) -> Result<PairGeneration, CommandError> {
        Ok(PairGeneration { serial: tables.serial, number: self.take_id()? })
    }

    /// A number that nothing has had.
    pub(crate) fn take_id(&mut self) -> Result<u32, CommandError> {
        let number = self.next_id;
        self.next_id = number.checked_add(1).ok_or_else(too_many_ids)?;
        Ok(number)
    }

    pub(crate) fn changes(self) -> Vec<Change> {
        let next = (self.next_id != self.first_id).then_some(Change::NextId(self.next_id));
        let records = self.records.into_iter().map(|(id, record)| Change::Pair(id, Some(record)));
        next.into_iter().chain(records).collect()
    }
}
