//! All that hosts asked and were answered, sector by sector, crash by crash: what each volume may show.
//!
//! Between two crashes (an *epoch*) a sector is a [register](super::register). What it holds at the beginning of an
//! epoch is not known until it is read; then it must be something that the epoch before [could
//! leave](super::durable), and stays that. A virtual device is a volume of its own, which began as [one
//! instant](super::snapshot) of another.

use std::collections::BTreeMap;

use super::content::{Value, fill, parse};
use super::epochs::{Ending, Epochs};
use super::register::{Moment, NEVER, Register, Source, Span};
use super::{Violation, durable, failover, snapshot};
use crate::disk::SECTOR_BYTES;
use crate::site::Site;

const S: usize = SECTOR_BYTES as usize;

/// A volume: a standard device from its creation on, or a session from its activation on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct VolumeId(pub u32);

/// A write, trim or write of zeros, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct WriteId(pub u64);

/// An instant at which sessions were activated together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct CutId(pub u32);

/// What a write puts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// Bytes that name it.
    Data,
    /// Zeros.
    Zeros,
}

/// What a volume shows at first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Zeros.
    Blank,
    /// Another volume at the instant of a cut.
    Snapshot(VolumeId, CutId),
    /// One volume in these sectors, and another one in all others, at the instant of a cut: a part was restored (D19).
    Patched {
        /// The first sector of the part, and the first one behind it.
        sectors: (u64, u64),
        /// What the part is.
        part: VolumeId,
        /// What all else is.
        rest: VolumeId,
        /// When.
        cut: CutId,
    },
    /// The other half of a pair, at the instant when it takes over; `None`: it has not.
    Heir(VolumeId, Option<CutId>),
}

/// What is known of one write.
#[derive(Debug, Clone)]
pub(super) struct WriteRecord {
    pub(super) volume: VolumeId,
    pub(super) offset: u64,
    pub(super) length: u64,
    pub(super) content: Content,
    pub(super) fua: bool,
    pub(super) epoch: u32,
    pub(super) span: Span,
    /// Which of two volumes it reached is not known, see [`History::succeed`].
    astray: bool,
}

impl WriteRecord {
    /// The tracks that it touches.
    pub(super) fn tracks(&self, track_bytes: u64) -> std::ops::Range<u64> {
        self.offset / track_bytes..(self.offset + self.length).div_ceil(track_bytes)
    }
}

/// One sector in one epoch.
#[derive(Debug)]
pub(super) struct State {
    epoch: u32,
    /// What it held at the beginning; `None`: not read yet.
    pub(super) initial: Option<Value>,
    pub(super) register: Register,
}

#[derive(Debug)]
pub(super) struct Volume {
    pub(super) site: Site,
    label: String,
    pub(super) origin: Origin,
    pub(super) birth: u32,
    /// Of an heir: when it was to take over.
    pub(super) moved: Moment,
    sectors: BTreeMap<u64, Vec<State>>,
    /// The last call among the answered flushes of each epoch.
    flushes: BTreeMap<u32, Moment>,
    /// The answered flushes.
    pub(super) flushed: Vec<Span>,
    writes: Vec<WriteId>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct History {
    now: Moment,
    /// Which moment had come by which time in ms.
    clock: Vec<(u64, Moment)>,
    /// Of each array.
    pub(super) epochs: [Epochs; 2],
    pub(super) writes: Vec<WriteRecord>,
    pub(super) volumes: Vec<Volume>,
    pub(super) cuts: Vec<snapshot::Cut>,
    pub(super) torn: Vec<[u8; S]>,
    torn_numbers: BTreeMap<[u8; S], u32>,
}

impl History {
    /// The moment of a call or an answer: each is later than all before.
    pub fn tick(&mut self) -> Moment {
        self.now += 1;
        self.now
    }

    /// It is so late, in ms.
    pub fn tell_time(&mut self, ms: u64) {
        if self.clock.last().is_none_or(|(last, _)| *last < ms) {
            self.clock.push((ms, self.now));
        }
    }

    /// A moment after all that had surely come by a time that an array tells: its clock may be ahead of another's by a step of the
    /// simulator.
    pub(super) fn moment_by(&self, ms: u64) -> Moment {
        let before = self.clock.partition_point(|(at, _)| at + 2 <= ms);
        before.checked_sub(1).map_or(0, |at| self.clock[at].1 + 1)
    }

    /// The present epoch of an array.
    pub fn epoch(&self, site: Site) -> u32 {
        self.epochs[site.index()].present()
    }

    /// An array crashed: what it runs is never answered, what was not flushed may be lost.
    pub fn crash(&mut self, site: Site, how: Ending) {
        let now = self.tick();
        self.epochs[site.index()].end(now, how);
    }

    /// A new volume of an array.
    pub fn add_volume(&mut self, site: Site, label: &str, origin: Origin) -> VolumeId {
        let birth = match origin {
            Origin::Blank | Origin::Heir(..) => self.epoch(site),
            Origin::Snapshot(_, cut) | Origin::Patched { cut, .. } => match &self.cuts[cut.0 as usize] {
                cut if cut.site == site => cut.epoch,
                // Of the other array's volume (F3): it is there in this epoch or in a later one.
                _ => self.epoch(site),
            },
        };
        self.volumes.push(Volume {
            site,
            label: label.into(),
            origin,
            birth,
            moved: 0,
            sectors: BTreeMap::new(),
            flushes: BTreeMap::new(),
            flushed: Vec::new(),
            writes: Vec::new(),
        });
        VolumeId(self.volumes.len() as u32 - 1)
    }

    /// What a volume is called.
    pub fn label(&self, volume: VolumeId) -> &str {
        &self.volumes[volume.0 as usize].label
    }

    /// A write is called. Offset and length are in bytes, multiples of 512.
    pub fn begin_write(
        &mut self,
        volume: VolumeId,
        offset: u64,
        length: u64,
        content: Content,
        fua: bool,
    ) -> WriteId {
        let (call, epoch) = (self.tick(), self.epoch(self.site(volume)));
        let span = Span { call, answer: NEVER };
        self.writes.push(WriteRecord { volume, offset, length, content, fua, epoch, span, astray: false });
        let write = WriteId(self.writes.len() as u64);
        self.volumes[volume.0 as usize].writes.push(write);
        for sector in sectors(offset, length) {
            self.state(volume, sector, epoch).register.begin(write.0, content == Content::Zeros, call);
        }
        write
    }

    /// The bytes that a write of data puts.
    pub fn payload(&self, write: WriteId) -> Vec<u8> {
        let record = self.record(write);
        let mut bytes = vec![0; record.length as usize];
        for (sector, out) in sectors(record.offset, record.length).zip(bytes.as_chunks_mut().0) {
            fill(write.0, sector, out);
        }
        bytes
    }

    /// A write is answered, well. One that fails, or is given up, is never answered.
    pub fn end_write(&mut self, write: WriteId) -> Result<(), Violation> {
        let now = self.tick();
        let record = self.record(write).clone();
        if record.astray {
            return Ok(());
        }
        let answer = now.min(self.end_of(record.volume, record.epoch));
        self.writes[write.0 as usize - 1].span.answer = answer;
        for sector in sectors(record.offset, record.length) {
            let ended = self.state(record.volume, sector, record.epoch).register.end(write.0, answer);
            if let Err(other) = ended {
                let other = self.tell_source(record.volume, sector, record.epoch, other);
                return Err(self.broken(
                    record.volume,
                    sector,
                    format_args!("write {} was answered, but all the while {other} was seen", write.0),
                ));
            }
        }
        Ok(())
    }

    /// A volume may take the place of another from now on. What was asked of that and is not answered yet may reach either:
    /// its answer tells nothing then.
    pub fn succeed(&mut self, volume: VolumeId, before: VolumeId) {
        let epoch = self.epoch(self.site(before));
        let open = |write: &&WriteId| {
            let record = self.record(**write);
            record.epoch == epoch && record.span.answer == NEVER
        };
        let open: Vec<_> = self.volumes[before.0 as usize].writes.iter().filter(open).copied().collect();
        for write in open {
            self.writes[write.0 as usize - 1].astray = true;
            let record = self.record(write).clone();
            self.volumes[volume.0 as usize].writes.push(write);
            for sector in sectors(record.offset, record.length) {
                let zeros = record.content == Content::Zeros;
                self.state(volume, sector, epoch).register.begin(write.0, zeros, record.span.call);
            }
        }
    }

    /// A flush that was called at `call` is answered, well.
    pub fn end_flush(&mut self, volume: VolumeId, call: Moment) {
        let answer = self.tick();
        let epoch = self.epoch_of(volume, call);
        let volume = &mut self.volumes[volume.0 as usize];
        volume.flushed.push(Span { call, answer });
        let last = volume.flushes.entry(epoch).or_default();
        *last = call.max(*last);
    }

    /// A read that was called at `call` returns these bytes.
    pub fn end_read(
        &mut self,
        volume: VolumeId,
        offset: u64,
        bytes: &[u8],
        call: Moment,
    ) -> Result<(), Violation> {
        let now = self.tick();
        let epoch = self.epoch_of(volume, call);
        let span = Span { call, answer: now.min(self.end_of(volume, epoch)) };
        for (sector, bytes) in sectors(offset, bytes.len() as u64).zip(bytes.as_chunks().0) {
            let value = self.value(bytes, sector);
            self.observe(volume, sector, epoch, value, span)?;
        }
        Ok(())
    }

    /// Block status, called at `call`, says that this part reads as zeros.
    pub fn end_hole(
        &mut self,
        volume: VolumeId,
        offset: u64,
        length: u64,
        call: Moment,
    ) -> Result<(), Violation> {
        let now = self.tick();
        let epoch = self.epoch_of(volume, call);
        let span = Span { call, answer: now.min(self.end_of(volume, epoch)) };
        for sector in sectors(offset, length) {
            self.observe(volume, sector, epoch, Value::Zero, span)?;
        }
        Ok(())
    }

    /// An activation is called.
    pub fn begin_cut(&mut self, site: Site) -> CutId {
        let (call, epoch) = (self.tick(), self.epoch(site));
        self.cuts.push(snapshot::Cut::new(site, epoch, call));
        CutId(self.cuts.len() as u32 - 1)
    }

    /// An activation is answered, or seen to have happened: one that was not answered happened before the crash. What is
    /// known already stays: a session that is seen again, after an end that a crash undid, began when it began.
    pub fn end_cut(&mut self, cut: CutId) {
        let now = self.tick();
        let at = &self.cuts[cut.0 as usize];
        let answer = now.min(self.epochs[at.site.index()].end_of(at.epoch));
        let span = &mut self.cuts[cut.0 as usize].span;
        span.answer = span.answer.min(answer);
    }

    /// An activation is one of several calls, and was asked, if it was, in one of these epochs, ascending: not always in that of
    /// the first call.
    pub fn cut_asked_in(&mut self, cut: CutId, epochs: &[u32]) {
        let [epoch] = *epochs else { return self.blur_cut(cut) };
        let cut = &mut self.cuts[cut.0 as usize];
        if cut.epoch != epoch
            && let Some(crash) = self.epochs[cut.site.index()].begin_of(epoch)
        {
            (cut.epoch, cut.span.call) = (epoch, crash);
        }
    }

    /// Nothing is known of an instant: in which epoch it was, or of which of two volumes that a device was meanwhile; or of a
    /// failover what the heirs show at first, for the pair was not synchronous, or nobody saw it so.
    pub fn blur_cut(&mut self, cut: CutId) {
        self.cuts[cut.0 as usize].vague = true;
    }

    /// The ranges of bytes that were ever to be written on a volume, or on what it was made from, in order, merged.
    pub fn touched(&self, volume: VolumeId) -> Vec<(u64, u64)> {
        let (mut ranges, mut volumes) = (Vec::new(), vec![volume]);
        while let Some(volume) = volumes.pop() {
            ranges.extend(self.writes_of(volume).map(|write| (write.offset, write.length)));
            match self.origin(volume) {
                Origin::Blank => {}
                Origin::Snapshot(of, _) | Origin::Heir(of, _) => volumes.push(of),
                Origin::Patched { part, rest, .. } => volumes.extend([part, rest]),
            }
        }
        ranges.sort_unstable();
        let mut merged: Vec<(u64, u64)> = Vec::new();
        for (offset, length) in ranges {
            match merged.last_mut() {
                Some(last) if offset <= last.0 + last.1 => last.1 = last.1.max(offset + length - last.0),
                _ => merged.push((offset, length)),
            }
        }
        merged
    }

    pub(super) fn writes_of(&self, volume: VolumeId) -> impl Iterator<Item = &WriteRecord> {
        self.volumes[volume.0 as usize].writes.iter().map(|write| self.record(*write))
    }

    /// The volumes that one device has been, one after the other.
    pub(super) fn namesakes(&self, of: VolumeId) -> impl Iterator<Item = VolumeId> {
        let of = &self.volumes[of.0 as usize];
        let same = move |volume: &Volume| volume.site == of.site && volume.label == of.label;
        let numbered = self.volumes.iter().enumerate().filter(move |(_, volume)| same(volume));
        numbered.map(|(number, _)| VolumeId(number as u32))
    }

    /// The volume of which another began as one instant.
    pub fn source(&self, volume: VolumeId) -> Option<VolumeId> {
        if let Origin::Snapshot(of, _) = self.origin(volume) { Some(of) } else { None }
    }

    pub(super) fn origin(&self, volume: VolumeId) -> Origin {
        self.volumes[volume.0 as usize].origin
    }

    /// What a sector of a volume is at first.
    pub(super) fn origin_at(&self, volume: VolumeId, sector: u64) -> Origin {
        match self.origin(volume) {
            Origin::Patched { sectors: (first, end), part, rest, cut } => {
                Origin::Snapshot(if (first..end).contains(&sector) { part } else { rest }, cut)
            }
            origin => origin,
        }
    }

    pub(super) fn record(&self, write: WriteId) -> &WriteRecord {
        &self.writes[write.0 as usize - 1]
    }

    /// The array of a volume.
    pub(super) fn site(&self, volume: VolumeId) -> Site {
        self.volumes[volume.0 as usize].site
    }

    /// The epochs of a volume's array.
    fn epochs(&self, volume: VolumeId) -> &Epochs {
        &self.epochs[self.site(volume).index()]
    }

    /// When an epoch of a volume's array ended; [`NEVER`] if it has not.
    pub(super) fn end_of(&self, volume: VolumeId, epoch: u32) -> Moment {
        self.epochs(volume).end_of(epoch)
    }

    /// Whether caches outlived the end of an epoch.
    pub(super) fn kept_after(&self, volume: VolumeId, epoch: u32) -> bool {
        self.epochs(volume).ending_of(epoch).is_some_and(|how| how != Ending::PowerCut)
    }

    /// Whether it is not known in which epoch an activation happened, or of what: it was called before the array loaded its tables
    /// anew, and answered after it or not at all.
    pub(super) fn is_vague(&self, cut: CutId) -> bool {
        let cut = &self.cuts[cut.0 as usize];
        let epochs = &self.epochs[cut.site.index()];
        if cut.vague {
            return true;
        }
        let reloaded = epochs.ending_of(cut.epoch) == Some(Ending::Reloaded);
        reloaded && cut.span.answer >= epochs.end_of(cut.epoch)
    }

    /// The last call of an answered flush in an epoch; 0 if there was none.
    pub(super) fn flushed(&self, volume: VolumeId, epoch: u32) -> Moment {
        self.volumes[volume.0 as usize].flushes.get(&epoch).copied().unwrap_or(0)
    }

    pub(super) fn is_birth(&self, volume: VolumeId, epoch: u32) -> bool {
        epoch <= self.volumes[volume.0 as usize].birth
    }

    /// A sector in an epoch.
    pub(super) fn state(&mut self, volume: VolumeId, sector: u64, epoch: u32) -> &mut State {
        let volume = &mut self.volumes[volume.0 as usize];
        let known = epoch <= volume.birth && volume.origin == Origin::Blank;
        let states = volume.sectors.entry(sector).or_default();
        let at = match states.iter().rposition(|state| state.epoch <= epoch) {
            Some(at) if states[at].epoch == epoch => at,
            before => {
                let at = before.map_or(0, |before| before + 1);
                let initial = known.then_some(Value::Zero);
                states.insert(at, State { epoch, initial, register: Register::default() });
                at
            }
        };
        &mut states[at]
    }

    /// A sector is seen to hold a value at some instant of `span`, in an epoch. What put it there, if only one can have.
    pub(super) fn observe(
        &mut self,
        volume: VolumeId,
        sector: u64,
        epoch: u32,
        value: Value,
        span: Span,
    ) -> Result<Option<Source>, Violation> {
        let source = self.explain(volume, sector, epoch, value, span, NEVER)?;
        if let Some(source) = source {
            let state = self.state(volume, sector, epoch);
            if source == Source::Initial {
                state.initial = Some(value);
            }
            state.register.add(source, span);
        }
        Ok(source)
    }

    /// The same for what was seen elsewhere: it does not follow that the volume itself held it; nor does it follow from what
    /// was read here of a write that was not answered until `told`.
    pub(super) fn explain(
        &mut self,
        volume: VolumeId,
        sector: u64,
        epoch: u32,
        value: Value,
        span: Span,
        told: Moment,
    ) -> Result<Option<Source>, Violation> {
        let state = self.state(volume, sector, epoch);
        let register = &state.register;
        let mut fitting = Vec::new();
        let mut refused = None;
        let written = register.writes().iter().enumerate().filter(|(_, w)| match value {
            Value::Zero => w.zeros,
            Value::Written(write) => w.write == write,
            Value::Torn(_) => false,
        });
        let sources = written.map(|(at, _)| Source::Write(at));
        for source in sources.chain((state.initial == Some(value)).then_some(Source::Initial)) {
            match register.fits_copy(source, span, told) {
                Ok(()) => fitting.push(source),
                // Zeros may come from anywhere else, too.
                Err(_) if value == Value::Zero && state.initial.is_none() => {}
                Err(other) => refused = Some((source, other)),
            }
        }
        let unknown = state.initial.is_none();
        if let [source] = fitting[..]
            && !(unknown && value == Value::Zero)
        {
            return Ok(Some(source));
        }
        if !fitting.is_empty() {
            return Ok(None);
        }
        // Not by a write of this epoch: then from before it, if that can be.
        let room = state.register.fits_copy(Source::Initial, span, told);
        if let (true, Ok(()), None) = (unknown, room, refused) {
            self.begin_with(volume, sector, epoch, value)?;
            return Ok(Some(Source::Initial));
        }
        let seen = self.tell_value(value);
        let why = match (refused, room) {
            (Some((source, other)), _) if source == other => "it was written only later".to_string(),
            (Some((_, other)), _) => {
                format!("{} does not allow it", self.tell_source(volume, sector, epoch, other))
            }
            (None, Err(other)) if unknown => {
                format!("that is from before {}", self.tell_source(volume, sector, epoch, other))
            }
            (None, _) => format!("it began as {}", self.tell_source(volume, sector, epoch, Source::Initial)),
        };
        let Span { call, answer } = span;
        Err(self.broken(
            volume,
            sector,
            format_args!("{seen} was seen between {call} and {answer}, but {why}"),
        ))
    }

    /// Whether an epoch can have begun with a value.
    fn begin_with(
        &mut self,
        volume: VolumeId,
        sector: u64,
        epoch: u32,
        value: Value,
    ) -> Result<(), Violation> {
        match self.origin_at(volume, sector) {
            Origin::Snapshot(of, cut) if self.is_birth(volume, epoch) => {
                snapshot::check(self, volume, of, cut, sector, value)
            }
            Origin::Heir(of, cut) if self.is_birth(volume, epoch) => {
                failover::check(self, volume, of, cut, sector, value)
            }
            _ if epoch == 0 => {
                let seen = self.tell_value(value);
                Err(self.broken(volume, sector, format_args!("{seen} was never written there")))
            }
            _ => durable::check(self, volume, sector, epoch - 1, value),
        }
    }

    /// The bytes of a value.
    pub(super) fn bytes_of(&self, value: Value, sector: u64) -> [u8; S] {
        match value {
            Value::Zero => [0; S],
            Value::Torn(number) => self.torn[number as usize],
            Value::Written(write) => {
                let mut bytes = [0; S];
                fill(write, sector, &mut bytes);
                bytes
            }
        }
    }

    fn value(&mut self, bytes: &[u8; S], sector: u64) -> Value {
        if let Some(value) = parse(bytes, sector) {
            return value;
        }
        if let Some(number) = self.torn_numbers.get(bytes) {
            return Value::Torn(*number);
        }
        let number = self.torn.len() as u32;
        self.torn.push(*bytes);
        self.torn_numbers.insert(*bytes, number);
        Value::Torn(number)
    }

    fn epoch_of(&self, volume: VolumeId, moment: Moment) -> u32 {
        self.epochs(volume).of(moment)
    }
}

fn sectors(offset: u64, length: u64) -> std::ops::Range<u64> {
    offset / SECTOR_BYTES..(offset + length) / SECTOR_BYTES
}
