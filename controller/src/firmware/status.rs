//! What is told of blocks: which take space, and which differ between two moments (F7).

use twintrack_core::{CommandError, DeviceId, Look, Moment, Owner, Place, SessionId};
use twintrack_link::manage::{ByteRange, Differences, PAGE_MAX};
use twintrack_link::nbd::{BASE_ALLOCATION, ContextQuery, ContextQuestion, DIFF, DIRTY_BITMAP, NOW};

use super::Firmware;
use super::event::{AttachError, Extent, HostError, Reply, StatusOf};
use super::reads;

/// Extents that one block status tells of, for each thing that is asked.
const EXTENTS_MAX: usize = 1024;
/// Tracks that one block status looks at, of all that is asked together.
const TRACKS_MAX: u32 = 1 << 16;
/// The same for what is compared, which takes longer; tracks that neither can have changed do not count.
const COMPARED_MAX: u32 = 1 << 14;

impl Firmware {
    /// The metadata contexts of an export that are asked for, each once: its name, and what it means from now on, whatever
    /// is renamed later.
    pub fn contexts(&self, question: &ContextQuestion) -> Result<Vec<(String, StatusOf)>, AttachError> {
        let (device, _) = self.tables.device_named(&question.export).ok_or(AttachError::Unknown)?;
        let (owner, _) = self.usable(device).map_err(|_| AttachError::NotReady)?;
        let shown = match owner {
            Owner::Device(device) => Some((device, Moment::Now(device))),
            Owner::Session(id) => self.tables.session(id).map(|it| (it.standard, Moment::Session(id))),
        };
        let (standard, shown) = shown.ok_or(AttachError::NotReady)?;
        let mut names = question.queries.clone();
        if !question.select {
            names.extend(self.context_names(standard, shown).filter(|name| question.asks_for(name)));
        }
        let mut found: Vec<(String, StatusOf)> = Vec::new();
        for name in names {
            if let Some(of) = self.context(standard, shown, &name)
                && found.iter().all(|(known, _)| *known != name)
            {
                found.push((name, of));
            }
        }
        Ok(found)
    }

    /// What can be asked of an export; of what compares two sessions only one form of many.
    fn context_names(&self, standard: DeviceId, shown: Moment) -> impl Iterator<Item = String> {
        let sessions = self.tables.sessions_of(standard).map(Moment::Session);
        let usable = sessions.filter(move |session| self.is_comparable(*session, shown));
        let of_session = move |moment: Moment| {
            let Moment::Session(session) = moment else { return Vec::new() };
            let bitmap = self.shown_as(session).filter(|_| moment != shown);
            let bitmap = bitmap.map(|name| format!("{DIRTY_BITMAP}{name}"));
            [format!("{DIFF}{session}/{NOW}")].into_iter().chain(bitmap).collect()
        };
        [BASE_ALLOCATION.to_owned()].into_iter().chain(usable.flat_map(of_session))
    }

    /// What a context means for an export that shows a moment of a standard device; `None`: there is none of that name.
    fn context(&self, standard: DeviceId, shown: Moment, name: &str) -> Option<StatusOf> {
        let (a, b) = match ContextQuery::parse(name).ok()?? {
            ContextQuery::Allocation => return Some(StatusOf::Allocation),
            // The bytes of an export of parts are not those of one standard device.
            _ if !self.is_comparable(shown, shown) => return None,
            ContextQuery::Diff(a, b) => (self.moment(standard, a)?, self.moment(standard, b)?),
            ContextQuery::DirtyBitmap(name) => (self.moment_named(standard, name)?, shown),
        };
        self.is_comparable(a, b).then_some(StatusOf::Differs(a, b))
    }

    /// A session by its number or its virtual device, or the standard device as it is now.
    fn moment(&self, standard: DeviceId, word: &str) -> Option<Moment> {
        let number = word.strip_prefix("ses-").unwrap_or(word);
        let session = || number.parse().ok().map(|number| Moment::Session(SessionId(number)));
        match word {
            NOW => Some(Moment::Now(standard)),
            _ => session().or_else(|| self.moment_named(standard, word)),
        }
        .filter(|moment| self.is_comparable(*moment, Moment::Now(standard)))
    }

    /// Whether it can be told over all of an export what differs: a session of a part (D19) has nothing of the rest.
    fn is_comparable(&self, moment: Moment, shown: Moment) -> bool {
        let whole = [moment, shown].iter().all(|moment| self.tables.part_of(*moment).is_none());
        whole && self.tables.compare(moment, shown).is_ok()
    }

    fn moment_named(&self, standard: DeviceId, name: &str) -> Option<Moment> {
        let mut sessions = self.tables.sessions_of(standard);
        sessions.find(|session| self.shown_as(*session) == Some(name)).map(Moment::Session)
    }

    /// The name of a session's virtual device.
    fn shown_as(&self, session: SessionId) -> Option<&str> {
        let device = self.tables.session(session)?.virtual_device?;
        self.tables.device(device).map(|record| record.name.as_str())
    }

    /// What differs between two sessions, or a session and its standard device as it is, from a byte on: a bounded part.
    pub(super) fn differing(
        &self,
        session: SessionId,
        other: Option<SessionId>,
        from: u64,
    ) -> Result<Differences, CommandError> {
        let standard = self.tables.session(session).map(|record| record.standard);
        let standard = standard.ok_or(CommandError::NoSession { session })?;
        let other = other.map_or(Moment::Now(standard), Moment::Session);
        let comparison = self.tables.compare(Moment::Session(session), other)?;
        let (mut ranges, mut looks): (Vec<ByteRange>, _) = (Vec::new(), COMPARED_MAX);
        let mut at = from;
        let next = loop {
            let range = match comparison.next(at, &mut looks) {
                Look::Differs(range) => range,
                Look::SameUntil(until) => break Some(until),
                Look::End => break None,
            };
            let (length, count) = (range.end - range.start, ranges.len());
            match ranges.last_mut() {
                Some(last) if last.offset + last.length == range.start => last.length += length,
                _ if count == PAGE_MAX => break Some(range.start),
                _ => ranges.push(ByteRange { offset: range.start, length }),
            }
            at = range.end;
        };
        Ok(Differences { ranges, next })
    }

    pub(super) fn block_status(
        &self,
        owner: Owner,
        offset: u64,
        length: u32,
        one: bool,
        of: &[StatusOf],
    ) -> Result<Reply, HostError> {
        let most = if one { 1 } else { EXTENTS_MAX };
        let share = |all: u32| (all / of.len().max(1) as u32).max(1);
        let told = of.iter().map(|of| match *of {
            StatusOf::Allocation => self.allocation(owner, offset, length, most, share(TRACKS_MAX)),
            StatusOf::Differs(a, b) => self.differences((a, b), offset, length, most, share(COMPARED_MAX)),
        });
        told.collect::<Result<_, _>>().map(Reply::Status)
    }

    fn allocation(
        &self,
        owner: Owner,
        offset: u64,
        length: u32,
        most: usize,
        tracks: u32,
    ) -> Result<Vec<Extent>, HostError> {
        let mut extents = Extents::new(most);
        let (mut from, end) = (offset, offset + u64::from(length));
        for _ in 0..tracks {
            let (owner, at, rest) = self.tables.part_at(owner, from);
            let mut parts = self.tables.geometry().split(at, (end - from).min(rest));
            let Some((track, within, length)) = parts.next() else { break };
            from += u64::from(length);
            let place = Place { owner, track };
            let entry = self.tables.entry(place).ok_or(HostError::Gone)?;
            // What is still to come from the other array is not known to be zeros.
            let lacked = self.must_fetch(place);
            for (range, lies) in reads::runs(entry, within, length) {
                if !extents.push(u64::from(range.end - range.start), lies.is_some() || lacked) {
                    return Ok(extents.list);
                }
            }
        }
        Ok(extents.list)
    }

    fn differences(
        &self,
        (a, b): (Moment, Moment),
        offset: u64,
        length: u32,
        most: usize,
        looks: u32,
    ) -> Result<Vec<Extent>, HostError> {
        let comparison = self.tables.compare(a, b).map_err(|_| HostError::NotComparable)?;
        let (mut at, end, mut looks) = (offset, offset + u64::from(length), looks);
        let mut extents = Extents::new(most);
        while at < end {
            let (same, differs, goes_on) = match comparison.next(at, &mut looks) {
                Look::Differs(range) => (range.start.min(end), range.end.min(end), true),
                Look::SameUntil(until) => (until.min(end), until.min(end), false),
                Look::End => (end, end, false),
            };
            if !extents.push(same - at, false) || !extents.push(differs - same, true) || !goes_on {
                break;
            }
            at = differs;
        }
        Ok(extents.list)
    }
}

/// Neighbours that say the same become one, up to a number of them.
struct Extents {
    list: Vec<Extent>,
    most: usize,
}

impl Extents {
    fn new(most: usize) -> Self {
        Self { list: Vec::new(), most }
    }

    /// `false`: there is no room for it, nor for what follows. No request is longer than 4 GiB.
    fn push(&mut self, length: u64, set: bool) -> bool {
        let (length, count) = (length as u32, self.list.len());
        match self.list.last_mut() {
            _ if length == 0 => {}
            Some(last) if last.set == set => last.length += length,
            _ if count == self.most => return false,
            _ => self.list.push(Extent { length, set }),
        }
        true
    }
}
