//! The bytes of each metadata record. All numbers are little-endian; what a layout calls 0 must be 0, so that every
//! value has one spelling; nothing may follow the last field.
//!
//! ```text
//! pool       u16 n, n bytes name
//! store      u16 pool, u32 first track, u32 tracks, u16 n, n bytes name
//! device     u8 kind (0 standard, 1 virtual), u8 flags (bit 0 online, bit 1 deleting, bit 2 reserved), u16 pool, u32 generation,
//!            u64 size in bytes, u16 n, n bytes name            (a virtual device: pool and generation 0)
//! session    u8 state (0 registered, 1 related, 2 active, 3 deactivated, 4 failed, 5 removing),
//!            u8 flags (bit 0 has a virtual device, bit 1 has a group, bit 2 is pinned, bit 3 is of a part), u16 0,
//!            u32 standard device,
//!            u32 virtual device or 0, u32 group or 0, u32 generation activated or 0, u32 generation until or 0,
//!            u64 wall time of activation in ms,
//!            if it is of a part: u32 first track, u32 its first track in the virtual device, u64 bytes,
//!            if it is pinned: u8 what for (0 safety copy, 1 loser, 2 undecided, 3 before a restore, 4 source of a
//!            copy), u64 serial, u32 number of the pair; undecided: u64 request, u32 peer that decides or 0; before a
//!            restore: 0, 0; source: 0, u32 copy
//! group      nothing
//! entry      u32 base or 0, u32 overlay or 0, m bytes mask     (m: a bit a block, at least one byte)
//! chunk      256 × u32 base or 0,
//!            then for each track with an overlay, ascending: u8 place in the chunk, u32 overlay, m bytes mask
//! ```
//!
//! A version and an own track are one `entry`. A mask is empty if and only if there is no overlay, and never full.

use twintrack_core::layout::{get_mask, mask_bytes, put_mask};
use twintrack_core::{
    CopyId, Decision, DeviceId, DeviceKind, DeviceRecord, Entry, Extent, Generation, Geometry, GroupId,
    Overlay, PairId, PeerId, PhysicalTrack, Pinned, PoolId, PoolRecord, SessionRecord, SessionState,
    StoreRecord, TrackNo,
};

/// Tracks of a chunk.
pub(super) const CHUNK_TRACKS: u32 = 256;
/// Bytes of the bases of a chunk.
const BASES_BYTES: usize = 4 * CHUNK_TRACKS as usize;

const ONLINE: u8 = 1;
const DELETING: u8 = 2;
const RESERVED: u8 = 4;
const HAS_VIRTUAL: u8 = 1;
const HAS_GROUP: u8 = 2;
const IS_PINNED: u8 = 4;
const HAS_EXTENT: u8 = 8;

/// The bytes are no such record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Damaged;

pub(super) fn put_pool(record: &PoolRecord) -> Vec<u8> {
    let mut out = Vec::with_capacity(2 + record.name.len());
    put_name(&mut out, &record.name);
    out
}

pub(super) fn get_pool(bytes: &[u8]) -> Result<PoolRecord, Damaged> {
    let mut fields = Fields(bytes);
    let record = PoolRecord { name: fields.name()? };
    fields.end(record)
}

pub(super) fn put_store(record: &StoreRecord) -> Vec<u8> {
    let mut out = Vec::with_capacity(12 + record.name.len());
    out.extend(record.pool.0.to_le_bytes());
    out.extend(record.first.to_le_bytes());
    out.extend(record.tracks.to_le_bytes());
    put_name(&mut out, &record.name);
    out
}

pub(super) fn get_store(bytes: &[u8]) -> Result<StoreRecord, Damaged> {
    let mut fields = Fields(bytes);
    let pool = PoolId(fields.u16()?);
    let (first, tracks) = (fields.u32()?, fields.u32()?);
    let record = StoreRecord { pool, first, tracks, name: fields.name()? };
    fields.end(record)
}

pub(super) fn put_device(record: &DeviceRecord) -> Vec<u8> {
    let (kind, pool, generation, deleting) = match record.kind {
        DeviceKind::Standard { pool, generation, deleting } => (0, pool.0, generation.0, deleting),
        DeviceKind::Virtual => (1, 0, 0, false),
    };
    let mut out = Vec::with_capacity(18 + record.name.len());
    out.push(kind);
    let flag = |set, bit| if set { bit } else { 0 };
    out.push(flag(record.online, ONLINE) | flag(deleting, DELETING) | flag(record.reserved, RESERVED));
    out.extend(pool.to_le_bytes());
    out.extend(generation.to_le_bytes());
    out.extend(record.size_bytes.to_le_bytes());
    put_name(&mut out, &record.name);
    out
}

pub(super) fn get_device(bytes: &[u8]) -> Result<DeviceRecord, Damaged> {
    let mut fields = Fields(bytes);
    let (kind, flags) = (fields.u8()?, fields.u8()?);
    let (pool, generation, size_bytes) = (fields.u16()?, fields.u32()?, fields.u64()?);
    let name = fields.name()?;
    let kind = match (kind, flags & !(ONLINE | RESERVED)) {
        (0, deleting @ (0 | DELETING)) => DeviceKind::Standard {
            pool: PoolId(pool),
            generation: Generation(generation),
            deleting: deleting == DELETING,
        },
        (1, 0) if pool == 0 && generation == 0 => DeviceKind::Virtual,
        _ => return Err(Damaged),
    };
    fields.end(DeviceRecord {
        name,
        kind,
        size_bytes,
        online: flags & ONLINE != 0,
        reserved: flags & RESERVED != 0,
    })
}

pub(super) fn put_session(record: &SessionRecord) -> Vec<u8> {
    let (state, group, activated, until) = match record.state {
        SessionState::Registered { group } => (0, group, 0, 0),
        SessionState::Related { group } => (1, group, 0, 0),
        SessionState::Active { activated } => (2, None, activated.0, 0),
        SessionState::Deactivated { activated, until } => (3, None, activated.0, until.0),
        SessionState::Failed => (4, None, 0, 0),
        SessionState::Removing => (5, None, 0, 0),
    };
    let mut flags = 0;
    if record.virtual_device.is_some() {
        flags |= HAS_VIRTUAL;
    }
    if group.is_some() {
        flags |= HAS_GROUP;
    }
    if record.pinned.is_some() {
        flags |= IS_PINNED;
    }
    if record.extent.is_some() {
        flags |= HAS_EXTENT;
    }
    let mut out = Vec::with_capacity(61);
    out.extend([state, flags, 0, 0]);
    out.extend(record.standard.0.to_le_bytes());
    out.extend(record.virtual_device.map_or(0, |id| id.0).to_le_bytes());
    out.extend(group.map_or(0, |id| id.0).to_le_bytes());
    out.extend(activated.to_le_bytes());
    out.extend(until.to_le_bytes());
    out.extend(record.activated_ms.to_le_bytes());
    if let Some(extent) = record.extent {
        out.extend(extent.first.0.to_le_bytes());
        out.extend(extent.at.0.to_le_bytes());
        out.extend(extent.size_bytes.to_le_bytes());
    }
    if let Some(pinned) = record.pinned {
        put_pinned(&mut out, pinned);
    }
    out
}

pub(super) fn get_session(bytes: &[u8]) -> Result<SessionRecord, Damaged> {
    let mut fields = Fields(bytes);
    let (state, flags, zero) = (fields.u8()?, fields.u8()?, fields.u16()?);
    let standard = DeviceId(fields.u32()?);
    let (virtual_device, group) = (fields.u32()?, fields.u32()?);
    let (activated, until, activated_ms) = (fields.u32()?, fields.u32()?, fields.u64()?);
    if zero != 0 || flags & !(HAS_VIRTUAL | HAS_GROUP | IS_PINNED | HAS_EXTENT) != 0 {
        return Err(Damaged);
    }
    let virtual_device = optional(flags & HAS_VIRTUAL != 0, virtual_device)?.map(DeviceId);
    let group = optional(flags & HAS_GROUP != 0, group)?.map(GroupId);
    let state = match (state, group, activated, until) {
        (0, group, 0, 0) => SessionState::Registered { group },
        (1, group, 0, 0) => SessionState::Related { group },
        (2, None, activated, 0) => SessionState::Active { activated: Generation(activated) },
        (3, None, activated, until) => {
            SessionState::Deactivated { activated: Generation(activated), until: Generation(until) }
        }
        (4, None, 0, 0) => SessionState::Failed,
        (5, None, 0, 0) => SessionState::Removing,
        _ => return Err(Damaged),
    };
    let mut extent = None;
    if flags & HAS_EXTENT != 0 {
        let (first, at) = (TrackNo(fields.u32()?), TrackNo(fields.u32()?));
        extent = Some(Extent { first, size_bytes: fields.u64()?, at });
    }
    let pinned = if flags & IS_PINNED == 0 { None } else { Some(get_pinned(&mut fields)?) };
    fields.end(SessionRecord { standard, extent, virtual_device, state, activated_ms, pinned })
}

pub(super) fn put_pinned(out: &mut Vec<u8>, pinned: Pinned) {
    let (kind, long, short): (u8, u64, u32) = match pinned {
        Pinned::SafetyCopy(pair) => (0, pair.serial, pair.number),
        Pinned::Loser(pair) => (1, pair.serial, pair.number),
        Pinned::Undecided(Decision { by, request }) => (2, request, by.map_or(0, |peer| peer.0)),
        Pinned::Before => (3, 0, 0),
        Pinned::Source(copy) => (4, 0, copy.0),
    };
    out.push(kind);
    out.extend(long.to_le_bytes());
    out.extend(short.to_le_bytes());
}

pub(super) fn get_pinned(fields: &mut Fields<'_>) -> Result<Pinned, Damaged> {
    let (kind, long, short) = (fields.u8()?, fields.u64()?, fields.u32()?);
    let pair = PairId { serial: long, number: short };
    let by = Some(PeerId(short)).filter(|peer| peer.0 != 0);
    match kind {
        0 => Ok(Pinned::SafetyCopy(pair)),
        1 => Ok(Pinned::Loser(pair)),
        2 => Ok(Pinned::Undecided(Decision { by, request: long })),
        3 if long == 0 && short == 0 => Ok(Pinned::Before),
        4 if long == 0 => Ok(Pinned::Source(CopyId(short))),
        _ => Err(Damaged),
    }
}

pub(super) fn put_entry(entry: Entry, geometry: Geometry) -> Vec<u8> {
    let mut out = vec![0; 8 + mask_bytes(geometry)];
    out[..4].copy_from_slice(&number(entry.base).to_le_bytes());
    if let Some(over) = entry.over {
        out[4..8].copy_from_slice(&over.track.get().to_le_bytes());
        put_mask(&mut out[8..], over.mask);
    }
    out
}

pub(super) fn get_entry(bytes: &[u8], geometry: Geometry) -> Result<Entry, Damaged> {
    let mut fields = Fields(bytes);
    let base = PhysicalTrack::new(fields.u32()?);
    let over = PhysicalTrack::new(fields.u32()?);
    let mask = fields.take(mask_bytes(geometry))?;
    let over = match over {
        Some(track) => Some(overlay(track, mask, geometry)?),
        None if mask.iter().all(|byte| *byte == 0) => None,
        None => return Err(Damaged),
    };
    fields.end(Entry { base, over })
}

/// The entries of up to 256 adjacent tracks of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Chunk(pub(super) Box<[Entry; CHUNK_TRACKS as usize]>);

impl Chunk {
    pub(super) fn zeros() -> Self {
        Self(Box::new([Entry::ZEROS; CHUNK_TRACKS as usize]))
    }

    pub(super) fn is_zeros(&self) -> bool {
        self.0.iter().all(|entry| entry.is_zeros())
    }

    pub(super) fn encode(&self, geometry: Geometry) -> Vec<u8> {
        let mask_bytes = mask_bytes(geometry);
        let overlays = self.0.iter().filter(|entry| entry.over.is_some()).count();
        let mut out = Vec::with_capacity(BASES_BYTES + overlays * (5 + mask_bytes));
        for entry in self.0.iter() {
            out.extend(number(entry.base).to_le_bytes());
        }
        for (place, entry) in self.0.iter().enumerate() {
            if let Some(over) = entry.over {
                out.push(place as u8);
                out.extend(over.track.get().to_le_bytes());
                let at = out.len();
                out.resize(at + mask_bytes, 0);
                put_mask(&mut out[at..], over.mask);
            }
        }
        out
    }

    pub(super) fn decode(bytes: &[u8], geometry: Geometry) -> Result<Self, Damaged> {
        let mut chunk = Self::zeros();
        let (bases, overlays) = bytes.split_at_checked(BASES_BYTES).ok_or(Damaged)?;
        for (entry, base) in chunk.0.iter_mut().zip(bases.chunks_exact(4)) {
            entry.base = PhysicalTrack::new(u32::from_le_bytes(base.try_into().expect("four bytes")));
        }
        let records = overlays.chunks_exact(5 + mask_bytes(geometry));
        if !records.remainder().is_empty() {
            return Err(Damaged);
        }
        let mut least = 0;
        for record in records {
            let mut fields = Fields(record);
            let place = usize::from(fields.u8()?);
            let track = PhysicalTrack::new(fields.u32()?).ok_or(Damaged)?;
            if place < least {
                return Err(Damaged);
            }
            least = place + 1;
            chunk.0[place].over = Some(overlay(track, fields.0, geometry)?);
        }
        Ok(chunk)
    }
}

fn overlay(track: PhysicalTrack, mask: &[u8], geometry: Geometry) -> Result<Overlay, Damaged> {
    let (mask, full) = (get_mask(mask), geometry.full());
    if mask.is_empty() || mask == full || !full.covers(mask) {
        Err(Damaged)
    } else {
        Ok(Overlay { track, mask })
    }
}

fn number(track: Option<PhysicalTrack>) -> u32 {
    track.map_or(0, PhysicalTrack::get)
}

pub(super) fn optional<T: Default + PartialEq>(present: bool, value: T) -> Result<Option<T>, Damaged> {
    match (present, value) {
        (true, value) => Ok(Some(value)),
        (false, value) if value == T::default() => Ok(None),
        (false, _) => Err(Damaged),
    }
}

/// The firmware refuses names of more than 64 bytes, so that a length always fits.
pub(super) fn put_name(out: &mut Vec<u8>, name: &str) {
    let length = u16::try_from(name.len()).expect("a name of less than 64 KiB");
    out.extend(length.to_le_bytes());
    out.extend(name.as_bytes());
}

/// What is left of a record.
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], Damaged> {
        let (head, rest) = self.0.split_at_checked(length).ok_or(Damaged)?;
        self.0 = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Damaged> {
        Ok(self.take(N)?.try_into().expect("as many bytes as were taken"))
    }

    pub(super) fn u8(&mut self) -> Result<u8, Damaged> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    pub(super) fn u16(&mut self) -> Result<u16, Damaged> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub(super) fn u32(&mut self) -> Result<u32, Damaged> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(super) fn u64(&mut self) -> Result<u64, Damaged> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub(super) fn name(&mut self) -> Result<String, Damaged> {
        let length = usize::from(self.u16()?);
        String::from_utf8(self.take(length)?.to_vec()).map_err(|_| Damaged)
    }

    pub(super) fn end<T>(&self, value: T) -> Result<T, Damaged> {
        if self.0.is_empty() { Ok(value) } else { Err(Damaged) }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;
    use twintrack_core::BlockMask;

    use super::*;

    pub fn geometries() -> impl Strategy<Value = Geometry> {
        (14u32..=20).prop_map(|shift| Geometry::new(1 << shift).unwrap())
    }

    pub fn entries(geometry: Geometry) -> impl Strategy<Value = Entry> {
        (any::<u32>(), any::<u32>(), any::<[u64; 4]>(), any::<bool>()).prop_map(
            move |(base, over, words, plain)| {
                let mask = BlockMask::from_words(words) & geometry.full();
                let base = PhysicalTrack::new(base);
                match PhysicalTrack::new(over) {
                    Some(track) if !mask.is_empty() && !plain => {
                        Entry::layered(base, track, mask, geometry.full())
                    }
                    _ => Entry { base, over: None },
                }
            },
        )
    }

    fn devices() -> impl Strategy<Value = DeviceRecord> {
        let kind = prop_oneof![
            any::<(u16, u32, bool)>().prop_map(|(pool, generation, deleting)| DeviceKind::Standard {
                pool: PoolId(pool),
                generation: Generation(generation),
                deleting
            }),
            Just(DeviceKind::Virtual)
        ];
        (".{0,64}", kind, any::<u64>(), any::<(bool, bool)>()).prop_map(
            |(name, kind, size_bytes, (online, reserved))| DeviceRecord {
                name,
                kind,
                size_bytes,
                online,
                reserved,
            },
        )
    }

    fn sessions() -> impl Strategy<Value = SessionRecord> {
        let state =
            (0..6, any::<Option<u32>>(), any::<u32>(), any::<u32>()).prop_map(|(n, group, from, to)| {
                let (group, activated, until) = (group.map(GroupId), Generation(from), Generation(to));
                match n {
                    0 => SessionState::Registered { group },
                    1 => SessionState::Related { group },
                    2 => SessionState::Active { activated },
                    3 => SessionState::Deactivated { activated, until },
                    4 => SessionState::Failed,
                    _ => SessionState::Removing,
                }
            });
        let pinned = (0..4, any::<u64>(), 1..=u32::MAX).prop_map(|(kind, serial, number)| {
            let pair = PairId { serial, number };
            match kind {
                0 => None,
                1 => Some(Pinned::Loser(pair)),
                2 => Some(Pinned::SafetyCopy(pair)),
                _ => {
                    let by = Some(PeerId(number)).filter(|_| serial % 2 == 0);
                    Some(Pinned::Undecided(Decision { by, request: serial }))
                }
            }
        });
        let extent = prop::option::of((any::<u32>(), any::<u32>(), any::<u64>()).prop_map(
            |(first, at, size_bytes)| Extent { first: TrackNo(first), size_bytes, at: TrackNo(at) },
        ));
        (any::<u32>(), extent, any::<Option<u32>>(), state, any::<u64>(), pinned).prop_map(
            |(standard, extent, virtual_device, state, activated_ms, pinned)| SessionRecord {
                standard: DeviceId(standard),
                extent,
                virtual_device: virtual_device.map(DeviceId),
                state,
                activated_ms,
                pinned,
            },
        )
    }

    fn chunks() -> impl Strategy<Value = (Geometry, Chunk)> {
        geometries().prop_flat_map(|geometry| {
            prop::collection::vec(entries(geometry), CHUNK_TRACKS as usize)
                .prop_map(move |entries| (geometry, Chunk(entries.try_into().unwrap())))
        })
    }

    /// If bytes decode, they are what the value encodes to: no value has two spellings.
    pub fn canonical<T>(bytes: &[u8], value: Result<T, Damaged>, put: impl Fn(&T) -> Vec<u8>) {
        if let Ok(value) = value {
            assert_eq!(put(&value), bytes);
        }
    }

    proptest! {
        #[test]
        fn records_survive(
            device in devices(),
            session in sessions(),
            name in ".{0,64}",
            store in any::<(u16, u32, u32)>(),
        ) {
            prop_assert_eq!(get_device(&put_device(&device)), Ok(device));
            prop_assert_eq!(get_session(&put_session(&session)), Ok(session));
            let pool = PoolRecord { name: name.clone() };
            prop_assert_eq!(get_pool(&put_pool(&pool)), Ok(pool));
            let store = StoreRecord { name, pool: PoolId(store.0), first: store.1, tracks: store.2 };
            prop_assert_eq!(get_store(&put_store(&store)), Ok(store));
        }

        #[test]
        fn entries_survive((geometry, entry) in geometries().prop_flat_map(|g| (Just(g), entries(g)))) {
            prop_assert_eq!(get_entry(&put_entry(entry, geometry), geometry), Ok(entry));
        }

        #[test]
        fn chunks_survive((geometry, chunk) in chunks()) {
            prop_assert_eq!(Chunk::decode(&chunk.encode(geometry), geometry), Ok(chunk));
        }

        #[test]
        fn any_bytes_decode(
            bytes in prop::collection::vec(prop_oneof![Just(0u8), any::<u8>()], 0..64),
            geometry in geometries(),
        ) {
            canonical(&bytes, get_pool(&bytes), put_pool);
            canonical(&bytes, get_store(&bytes), put_store);
            canonical(&bytes, get_device(&bytes), put_device);
            canonical(&bytes, get_session(&bytes), put_session);
            canonical(&bytes, get_entry(&bytes, geometry), |entry| put_entry(*entry, geometry));
        }

        #[test]
        fn any_chunk_decodes(
            (geometry, chunk) in chunks(),
            at in any::<prop::sample::Index>(),
            byte: u8,
            cut in 0usize..8,
        ) {
            let mut bytes = chunk.encode(geometry);
            let at = at.index(bytes.len());
            bytes[at] = byte;
            bytes.truncate(bytes.len() - cut);
            canonical(&bytes, Chunk::decode(&bytes, geometry), |chunk| chunk.encode(geometry));
        }
    }
}
