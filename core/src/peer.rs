//! Commands on peers, and the results of commands that spanned two arrays: each checks first, then changes everything
//! in one unit.

use crate::command::CommandError;
use crate::device::check_name;
use crate::ids::{PeerId, UnitSeq};
use crate::records::Change;
use crate::remote::{
    ENDPOINT_BYTES_MAX, PEERS_MAX, PeerRecord, REASON_BYTES_MAX, SAGAS_MAX, SagaOutcome, SagaResult,
};
use crate::tables::Tables;

impl Tables {
    /// The peers, by number.
    pub fn peers(&self) -> impl Iterator<Item = (PeerId, &PeerRecord)> {
        self.peers.iter().map(|(id, record)| (*id, record))
    }

    /// One peer.
    pub fn peer(&self, id: PeerId) -> Option<&PeerRecord> {
        self.peers.get(&id)
    }

    /// The peer of that name.
    pub fn peer_named(&self, name: &str) -> Option<(PeerId, &PeerRecord)> {
        self.peers().find(|(_, record)| record.name == name)
    }

    /// The peer with that serial.
    pub fn peer_of_serial(&self, serial: u64) -> Option<(PeerId, &PeerRecord)> {
        self.peers().find(|(_, record)| record.serial == Some(serial))
    }

    /// Makes another array known.
    pub fn add_peer(
        &mut self,
        name: &str,
        endpoint: Option<&str>,
        serial: Option<u64>,
    ) -> Result<(PeerId, UnitSeq), CommandError> {
        check_name(name)?;
        if self.peer_named(name).is_some() {
            return Err(CommandError::PeerExists { name: name.to_owned() });
        }
        if let Some(endpoint) = endpoint
            && (endpoint.is_empty() || endpoint.len() > ENDPOINT_BYTES_MAX)
        {
            return Err(CommandError::Endpoint { endpoint: endpoint.chars().take(64).collect() });
        }
        if let Some(serial) = serial {
            self.check_peer_serial(serial)?;
        }
        if self.peers.len() >= PEERS_MAX {
            return Err(CommandError::Limit { what: "the number of peers".into(), most: PEERS_MAX });
        }
        let (number, next) = self.take_id()?;
        let id = PeerId(number);
        let record = PeerRecord { name: name.to_owned(), endpoint: endpoint.map(str::to_owned), serial };
        Ok((id, self.put(vec![next, Change::Peer(id, Some(record))], &[])))
    }

    /// Forgets a peer that has no pairs.
    pub fn remove_peer(&mut self, id: PeerId) -> Result<UnitSeq, CommandError> {
        let record = self.known_peer(id)?;
        let pairs = self.pairs_of_peer(id).count();
        if pairs > 0 {
            return Err(CommandError::HasPairs { name: record.name.clone(), pairs });
        }
        let mut changes = vec![Change::Peer(id, None)];
        for request in self.untold_to(id) {
            // Nobody is left to hear of it.
            let order = self.sagas[&request].order;
            changes.push(Change::Saga(request, Some(SagaOutcome { order, result: SagaResult::Done })));
        }
        Ok(self.put(changes, &[]))
    }

    /// Pins a peer to the serial of the array that answered; refused if it is pinned to another. `None`: it was
    /// pinned to this one before.
    pub fn learn_serial(&mut self, id: PeerId, serial: u64) -> Result<Option<UnitSeq>, CommandError> {
        let mut record = self.known_peer(id)?.clone();
        match record.serial {
            Some(known) if known == serial => return Ok(None),
            Some(known) => return Err(CommandError::OtherArray { name: record.name, known, found: serial }),
            None => self.check_peer_serial(serial)?,
        }
        record.serial = Some(serial);
        Ok(Some(self.put(vec![Change::Peer(id, Some(record))], &[])))
    }

    /// How a request that spanned two arrays ended (F2). `None`: it was never made, is under way, or was forgotten.
    pub fn saga(&self, request: u64) -> Option<&SagaOutcome> {
        self.sagas.get(&request)
    }

    /// Keeps how such a request ended; of more than [`SAGAS_MAX`] the oldest is forgotten of which no peer has yet to hear.
    pub fn finish_saga(&mut self, request: u64, result: SagaResult) -> UnitSeq {
        let changes = self.saga_changes(request, result);
        self.put(changes, &[])
    }

    pub(crate) fn saga_changes(&self, request: u64, mut result: SagaResult) -> Vec<Change> {
        if let SagaResult::Refused { reason, .. } = &mut result {
            reason.truncate(reason.floor_char_boundary(REASON_BYTES_MAX));
        }
        let newest = self.sagas.values().map(|saga| saga.order).max().unwrap_or(0);
        let outcome = SagaOutcome { order: newest.saturating_add(1), result };
        let mut changes = vec![Change::Saga(request, Some(outcome))];
        if self.sagas.len() >= SAGAS_MAX && !self.sagas.contains_key(&request) {
            let told =
                self.sagas.iter().filter(|(_, saga)| !matches!(saga.result, SagaResult::Untold { .. }));
            let oldest = told.min_by_key(|(_, saga)| saga.order);
            changes.extend(oldest.map(|(request, _)| Change::Saga(*request, None)));
        }
        changes
    }

    pub(crate) fn known_peer(&self, id: PeerId) -> Result<&PeerRecord, CommandError> {
        self.peer(id).ok_or_else(|| CommandError::NoPeer { peer: id.to_string() })
    }

    fn check_peer_serial(&self, serial: u64) -> Result<(), CommandError> {
        if serial == self.serial {
            return Err(CommandError::SelfLink { serial });
        }
        match self.peer_of_serial(serial) {
            Some((_, record)) => Err(CommandError::PeerKnown { serial, name: record.name.clone() }),
            None => Ok(()),
        }
    }
}
