//! Reads of single tracks: they take no part in the queues of writes, and pin what they read.

use std::ops::Range;

use twintrack_core::{BLOCK_BYTES, Entry, Owner, PhysicalTrack};

use super::event::{CallId, Effect, HostError, Segment};
use super::hosts::RequestId;
use super::io::{IoFor, OpId};
use super::links::Served;
use super::{Firmware, Work};

/// One read of a track.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ReadId(pub(super) u64);

/// Whom a read is for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Reader {
    /// A host's request.
    Host(RequestId),
    /// A management call for one track.
    Call(CallId),
    /// A copy to the peer.
    Copy(OpId),
    /// A comparison with the peer.
    Compare(OpId),
    /// The peer, for the content.
    Peer(Served),
    /// The peer, for the check sums of the blocks.
    Sums(Served),
}

/// A read of one track.
#[derive(Debug)]
pub(super) struct Read {
    owner: Owner,
    entry: Entry,
    reader: Reader,
    /// Its pieces, in order; filled as they come.
    pub(super) segments: Vec<Option<Segment>>,
    /// Where its first segment goes among those of the reader.
    first: usize,
    pub(super) outstanding: u32,
    pub(super) error: Option<HostError>,
}

/// The bytes `within..within + length` of an entry: runs that lie on one physical track, or are zeros.
pub(super) fn runs(
    entry: Entry,
    within: u32,
    length: u32,
) -> impl Iterator<Item = (Range<u32>, Option<PhysicalTrack>)> {
    let end = within + length;
    let mut at = within;
    std::iter::from_fn(move || {
        if at >= end {
            return None;
        }
        let (start, lies) = (at, entry.place_of(at / BLOCK_BYTES));
        while at < end && entry.place_of(at / BLOCK_BYTES) == lies {
            at = (at / BLOCK_BYTES + 1) * BLOCK_BYTES;
        }
        at = at.min(end);
        Some((start..at, lies))
    })
}

impl Firmware {
    /// Begins a read; the reader is told of its end, perhaps within this step. Returns how many segments it has.
    pub(super) fn start_read(
        &mut self,
        owner: Owner,
        entry: Entry,
        bytes: Range<u32>,
        reader: Reader,
        first: usize,
        fx: &mut Vec<Effect>,
    ) -> usize {
        let id = ReadId(self.next_number());
        let parts: Vec<_> = runs(entry, bytes.start, bytes.end - bytes.start).collect();
        let mut read =
            Read { owner, entry, reader, segments: Vec::new(), first, outstanding: 0, error: None };
        self.tables.pin(owner, entry);
        let mut issue = Vec::new();
        for (index, (range, lies)) in parts.iter().enumerate() {
            match lies {
                None => read.segments.push(Some(Segment::Zeros(range.end - range.start))),
                Some(track) => {
                    read.segments.push(None);
                    read.outstanding += 1;
                    issue.push((IoFor::Read(id, index), *track, range.clone()));
                }
            }
        }
        let done = read.outstanding == 0;
        self.reads.insert(id, read);
        for (what, track, range) in issue {
            self.issue_read(what, track, range, fx);
        }
        if done {
            self.work.push_back(Work::ReadOver(id));
        }
        parts.len()
    }

    pub(super) fn read_over(&mut self, id: ReadId, fx: &mut Vec<Effect>) {
        let Some(read) = self.reads.remove(&id) else { return };
        self.tables.unpin(read.owner, read.entry);
        let segments = read.segments.into_iter().map(|segment| segment.unwrap_or(Segment::Zeros(0)));
        let result = match read.error {
            Some(error) => Err(error),
            None => Ok(segments.collect()),
        };
        match read.reader {
            Reader::Host(request) => self.host_read_done(request, read.first, result),
            Reader::Call(call) => self.track_read_done(call, result, fx),
            Reader::Copy(op) => self.copy_read(op, result, fx),
            Reader::Compare(op) => self.compare_read(op, result),
            Reader::Peer(served) => self.peer_read(served, result, fx),
            Reader::Sums(served) => self.peer_summed(served, result, fx),
        }
    }
}
