use std::io;
use std::sync::Arc;

use proptest::prelude::*;
use redb::StorageBackend;
use redb::backends::InMemoryBackend;
use twintrack_core::remote::{
    Half, Halt, Kept, Lineage, Mode, PairRecord, PeerRecord, Policy, Role, SagaOutcome, SagaResult, Stage,
};
use twintrack_core::{
    BlockMask, CopyRecord, CopyStatus, DeviceKind, DeviceRecord, Extent, Fill, Pace, PairGeneration,
    PhysicalTrack, Pinned, PoolRecord, Purpose, ScheduleRecord, SessionRecord, SessionState,
};

use super::*;

/// A file in memory that outlives the database.
#[derive(Debug, Clone)]
struct File(Arc<InMemoryBackend>);

impl File {
    fn new() -> Self {
        Self(Arc::new(InMemoryBackend::new()))
    }
}

impl StorageBackend for File {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data)
    }
}

fn array_record() -> ArrayRecord {
    ArrayRecord { serial: 0x1234_5678_9abc_def0, geometry: Geometry::default() }
}

fn track(number: u32) -> PhysicalTrack {
    PhysicalTrack::new(number).unwrap()
}

fn everything(metadata: &Metadata) -> Vec<Change> {
    metadata.load().unwrap().collect::<Result<_, _>>().unwrap()
}

fn samples() -> Vec<Change> {
    let geometry = Geometry::default();
    let layered = Entry::layered(Some(track(7)), track(8), BlockMask::range(3, 5), geometry.full());
    let device = |name: &str, kind| {
        Some(DeviceRecord { name: name.into(), kind, size_bytes: 1 << 30, online: true, reserved: false })
    };
    let standard = DeviceKind::Standard { pool: PoolId(0), generation: Generation(2), deleting: false };
    let session = SessionRecord {
        standard: DeviceId(1),
        extent: Some(Extent { first: TrackNo(2), size_bytes: 1 << 20, at: TrackNo(0) }),
        virtual_device: Some(DeviceId(2)),
        state: SessionState::Active { activated: Generation(2) },
        activated_ms: 99,
        pinned: Some(Pinned::Loser(PAIR)),
    };
    vec![
        Change::Pool(PoolId(0), PoolRecord { name: "main".into() }),
        Change::Store(StoreId(0), StoreRecord { name: "s0".into(), pool: PoolId(0), first: 1, tracks: 500 }),
        Change::NextId(5),
        Change::Device(DeviceId(1), device("db", standard)),
        Change::Device(DeviceId(2), device("copy", DeviceKind::Virtual)),
        Change::Session(SessionId(3), Some(session)),
        Change::Group(GroupId(4), true),
        Change::Entry(DeviceId(1), TrackNo(0), Entry::whole(track(1))),
        Change::Entry(DeviceId(1), TrackNo(255), layered),
        Change::Entry(
            DeviceId(1),
            TrackNo(256),
            Entry::layered(None, track(9), BlockMask::range(0, 1), geometry.full()),
        ),
        Change::Version(DeviceId(1), TrackNo(0), Generation(2), Some(Entry::ZEROS)),
        Change::Version(DeviceId(1), TrackNo(255), Generation(1), Some(Entry::whole(track(3)))),
        Change::Own(SessionId(3), TrackNo(17), Some(layered)),
        Change::Peer(
            PeerId(1),
            Some(PeerRecord { name: "b".into(), endpoint: Some("tcp:b:1".into()), serial: Some(7) }),
        ),
        Change::Peer(PeerId(2), Some(PeerRecord { name: "c".into(), endpoint: None, serial: None })),
        Change::Pair(PAIR, Some(pair_record())),
        Change::Owed(PAIR, RegionNo(0), u64::MAX),
        Change::Owed(PAIR, RegionNo(9), 1),
        Change::Lacked(PAIR, RegionNo(2), 3),
        Change::Dirty(PAIR, RegionNo(0), true),
        Change::Dirty(PAIR, RegionNo(u32::MAX), true),
        Change::Saga(8, Some(SagaOutcome { order: 1, result: SagaResult::Done })),
        Change::Saga(
            9,
            Some(SagaOutcome {
                order: 2,
                result: SagaResult::Refused { code: 3, reason: "no space".into() },
            }),
        ),
        Change::Copy(COPY, Some(copy_record())),
        Change::ToCopy(COPY, RegionNo(0), 5),
        Change::Unequal(COPY, RegionNo(3), 7),
        Change::Schedule(ScheduleId(6), Some(schedule_record())),
    ]
}

const COPY: CopyId = CopyId(5);

fn copy_record() -> CopyRecord {
    CopyRecord {
        purpose: Purpose::Once { keep: true, pinned: Some(Pinned::Before) },
        primary: DeviceId(1),
        secondary: DeviceId(1),
        status: CopyStatus::Copying,
        back: false,
        fill: Some(Fill { session: SessionId(3), until: Generation(4) }),
        pace: Pace::Fast,
        copied_ms: 77,
        to_copy_from: TrackNo(9),
        unequal_from: TrackNo(10),
        moved_to: TrackNo(0),
    }
}

fn schedule_record() -> ScheduleRecord {
    let secondaries = vec![DeviceId(2), DeviceId(9)];
    ScheduleRecord { primary: DeviceId(1), secondaries, next_ms: 8, every_ms: None, turn: 1 }
}

const PAIR: PairId = PairId { serial: 7, number: 4 };

fn pair_record() -> PairRecord {
    let generation = |number| PairGeneration { serial: 7, number };
    let mut lineage = Lineage::new(generation(1));
    lineage.begin(generation(2));
    PairRecord {
        peer: PeerId(1),
        device: DeviceId(1),
        peer_device: "db".into(),
        request: 1 << 40,
        half: Half::R2,
        stage: Stage::Ready,
        role: Role::Standby,
        forced: false,
        mode: Mode::Synchronous,
        pace: Pace::Adaptive,
        policy: Policy::Freeze,
        group: "g".into(),
        lineage,
        shared: Some(generation(1)),
        complete: true,
        halt: Some(Halt::Link),
        halted_ms: 99,
        had_all_ms: 98,
        peer_boot: 3,
        owed_from: TrackNo(5),
        lacked_from: TrackNo(6),
        made_device: false,
        kept: Some(Kept { session: SessionId(3), lineage: Lineage::new(generation(1)), returning: true }),
    }
}

#[test]
fn what_is_committed_is_loaded_after_a_restart() {
    let file = File::new();
    let mut metadata = Metadata::create(file.clone(), array_record()).unwrap();
    assert_eq!(everything(&metadata), [Change::NextId(1)]);
    metadata.commit(&samples()).unwrap();
    drop(metadata);
    let metadata = Metadata::open(file).unwrap();
    assert_eq!(metadata.array(), array_record());
    assert_eq!(everything(&metadata), samples());
    assert_eq!(metadata.stores().unwrap().len(), 1);
}

#[test]
fn every_boot_has_a_number() {
    let file = File::new();
    let mut metadata = Metadata::create(file.clone(), array_record()).unwrap();
    assert_eq!((metadata.begin_boot().unwrap(), metadata.begin_boot().unwrap()), (1, 2));
    drop(metadata);
    assert_eq!(Metadata::open(file).unwrap().begin_boot().unwrap(), 3);
}

#[test]
fn what_is_taken_back_is_gone() {
    let mut metadata = Metadata::create(File::new(), array_record()).unwrap();
    metadata.commit(&samples()).unwrap();
    let undo: Vec<_> = samples()
        .into_iter()
        .filter_map(|change| match change {
            Change::Device(id, _) => Some(Change::Device(id, None)),
            Change::Session(id, _) => Some(Change::Session(id, None)),
            Change::Group(id, _) => Some(Change::Group(id, false)),
            Change::Entry(id, track, _) => Some(Change::Entry(id, track, Entry::ZEROS)),
            Change::Version(id, track, generation, _) => Some(Change::Version(id, track, generation, None)),
            Change::Own(id, track, _) => Some(Change::Own(id, track, None)),
            Change::Peer(id, _) => Some(Change::Peer(id, None)),
            Change::Pair(..) => None,
            Change::Owed(id, region, _) => Some(Change::Owed(id, region, 0)),
            Change::Lacked(id, region, _) => Some(Change::Lacked(id, region, 0)),
            Change::Dirty(id, region, _) => Some(Change::Dirty(id, region, false)),
            Change::Saga(request, _) => Some(Change::Saga(request, None)),
            // Takes its tracks with it.
            Change::Copy(id, _) => Some(Change::Copy(id, None)),
            Change::Schedule(id, _) => Some(Change::Schedule(id, None)),
            _ => None,
        })
        .collect();
    metadata.commit(&undo).unwrap();
    metadata.commit(&[Change::Pair(PAIR, None)]).unwrap();
    assert_eq!(everything(&metadata), samples()[..3]);
    let chunks = load::begin(&metadata.database).unwrap().open_table(ENTRIES).unwrap();
    assert_eq!(redb::ReadableTableMetadata::len(&chunks).unwrap(), 0);
}

/// A pair takes all of its own with it, and nothing of its neighbours'.
#[test]
fn a_pair_takes_its_regions_with_it() {
    let mut metadata = Metadata::create(File::new(), array_record()).unwrap();
    let neighbours =
        [PairId { serial: 7, number: 3 }, PairId { serial: 7, number: 5 }, PairId { serial: 8, number: 4 }];
    let of = |id| {
        [
            Change::Pair(id, Some(pair_record())),
            Change::Owed(id, RegionNo(0), 1),
            Change::Owed(id, RegionNo(u32::MAX), 2),
            Change::Lacked(id, RegionNo(0), 1),
            Change::Dirty(id, RegionNo(u32::MAX), true),
        ]
    };
    for id in neighbours.into_iter().chain([PAIR]) {
        metadata.commit(&of(id)).unwrap();
    }
    // What came before goes, what comes after stays.
    let again = Change::Owed(PAIR, RegionNo(6), 6);
    let back = Change::Pair(PAIR, Some(pair_record()));
    metadata.commit(&[Change::Pair(PAIR, None), back.clone(), again.clone()]).unwrap();
    let mut want: Vec<_> =
        neighbours.into_iter().flat_map(of).chain([back, again, Change::NextId(1)]).collect();
    let mut found = everything(&metadata);
    let in_order = |changes: &mut Vec<Change>| changes.sort_by_key(|change| format!("{change:?}"));
    in_order(&mut want);
    in_order(&mut found);
    assert_eq!(found, want);
}

/// A file from before there were pairs opens, shows what it held, and takes pairs with the first commit.
#[test]
fn an_older_file_opens() {
    let file = File::new();
    let mut metadata = Metadata::create(file.clone(), array_record()).unwrap();
    let (old, new): (Vec<_>, Vec<_>) = samples().into_iter().partition(|change| {
        !matches!(
            change,
            Change::Peer(..)
                | Change::Pair(..)
                | Change::Owed(..)
                | Change::Lacked(..)
                | Change::Dirty(..)
                | Change::Saga(..)
                | Change::Copy(..)
                | Change::ToCopy(..)
                | Change::Unequal(..)
                | Change::Schedule(..)
        )
    });
    metadata.commit(&old).unwrap();
    let transaction = metadata.database.begin_write().unwrap();
    assert!(transaction.delete_table(PEERS).unwrap());
    assert!(transaction.delete_table(PAIRS).unwrap());
    assert!(transaction.delete_table(OWED).unwrap());
    assert!(transaction.delete_table(LACKED).unwrap());
    assert!(transaction.delete_table(DIRTY).unwrap());
    assert!(transaction.delete_table(SAGAS).unwrap());
    assert!(transaction.delete_table(COPIES).unwrap());
    assert!(transaction.delete_table(TO_COPY).unwrap());
    assert!(transaction.delete_table(UNEQUAL).unwrap());
    assert!(transaction.delete_table(SCHEDULES).unwrap());
    transaction.open_table(META).unwrap().insert(FORMAT, 1u32.to_le_bytes().as_slice()).unwrap();
    transaction.commit().unwrap();
    drop(metadata);
    let format = |metadata: &Metadata| {
        let meta = load::begin(&metadata.database).unwrap().open_table(META).unwrap();
        load::meta(&meta, FORMAT, RecordName::Format, |fields| fields.u32()).unwrap()
    };
    let mut metadata = Metadata::open(file.clone()).unwrap();
    assert_eq!(format(&metadata), 1, "a look changes nothing");
    assert_eq!((metadata.begin_boot().unwrap(), format(&metadata)), (1, FORMAT_VERSION));
    assert_eq!(everything(&metadata), old);
    metadata.commit(&new).unwrap();
    drop(metadata);
    assert_eq!(everything(&Metadata::open(file).unwrap()), samples());
}

#[test]
fn of_two_changes_the_later_counts() {
    let mut metadata = Metadata::create(File::new(), array_record()).unwrap();
    let (id, at) = (DeviceId(1), TrackNo(9));
    let entry = |n| Change::Entry(id, at, Entry::whole(track(n)));
    let version = |entry| Change::Version(id, at, Generation(1), entry);
    metadata
        .commit(&[
            entry(2),
            version(Some(Entry::ZEROS)),
            entry(1),
            version(None),
            Change::NextId(9),
            Change::NextId(8),
        ])
        .unwrap();
    assert_eq!(everything(&metadata), [Change::NextId(8), entry(1)]);
}

#[test]
fn damage_is_named() {
    let mut metadata = Metadata::create(File::new(), array_record()).unwrap();
    metadata.commit(&samples()).unwrap();
    let transaction = metadata.database.begin_write().unwrap();
    transaction.open_table(ENTRIES).unwrap().insert((1, 1), [0u8; 1025].as_slice()).unwrap();
    transaction.commit().unwrap();
    let error = metadata.load().unwrap().find_map(Result::err).unwrap();
    assert_eq!(
        error.to_string(),
        "the metadata file is damaged: the entries of dev-1 from t256 on cannot be read"
    );
    let error = metadata.commit(&[Change::Entry(DeviceId(1), TrackNo(300), Entry::ZEROS)]).unwrap_err();
    assert!(matches!(error, MetadataError::Damaged { record: RecordName::Entries(..) }), "{error}");
}

#[test]
fn damage_of_pairs_is_named() {
    let said = |damage: &dyn Fn(&WriteTransaction)| {
        let mut metadata = Metadata::create(File::new(), array_record()).unwrap();
        metadata.commit(&samples()).unwrap();
        let transaction = metadata.database.begin_write().unwrap();
        damage(&transaction);
        transaction.commit().unwrap();
        metadata.load().unwrap().find_map(Result::err).unwrap().to_string()
    };
    let junk = [0xffu8; 3].as_slice();
    let peer = said(&|file| drop(file.open_table(PEERS).unwrap().insert(1, junk).unwrap()));
    assert_eq!(peer, "the metadata file is damaged: the record of peer-1 cannot be read");
    let pair = said(&|file| drop(file.open_table(PAIRS).unwrap().insert((7, 4), junk).unwrap()));
    assert_eq!(pair, "the metadata file is damaged: the record of pair-0000000000000007-4 cannot be read");
    let owed = said(&|file| drop(file.open_table(OWED).unwrap().insert((7, 4, 9), 0).unwrap()));
    assert_eq!(owed, "the metadata file is damaged: what pair-0000000000000007-4 owes in r9 cannot be read");
    let lacked = said(&|file| drop(file.open_table(LACKED).unwrap().insert((7, 4, 2), 0).unwrap()));
    assert_eq!(
        lacked,
        "the metadata file is damaged: what pair-0000000000000007-4 lacks in r2 cannot be read"
    );
    let saga = said(&|file| drop(file.open_table(SAGAS).unwrap().insert(8, junk).unwrap()));
    assert_eq!(saga, "the metadata file is damaged: the result of request 8 cannot be read");
}

#[test]
fn a_newer_format_is_told_apart() {
    let file = File::new();
    let metadata = Metadata::create(file.clone(), array_record()).unwrap();
    let transaction = metadata.database.begin_write().unwrap();
    transaction.open_table(META).unwrap().insert(FORMAT, 5u32.to_le_bytes().as_slice()).unwrap();
    transaction.commit().unwrap();
    drop(metadata);
    assert!(matches!(Metadata::open(file), Err(MetadataError::NewerFormat { found: 5 })));
}

#[test]
fn what_is_no_metadata_file_is_refused() {
    assert!(matches!(Metadata::open(File::new()), Err(MetadataError::Empty)));
    let file = File::new();
    file.set_len(1 << 16).unwrap();
    file.write(0, &[0x5a; 1 << 16]).unwrap();
    assert!(matches!(Metadata::open(file), Err(MetadataError::Storage { .. })));
    // A redb file of somebody else's.
    let file = File::new();
    drop(open_database(file.clone()).unwrap());
    assert!(matches!(Metadata::open(file), Err(MetadataError::Damaged { record: RecordName::Format })));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    /// Whatever the order and grouping of changes of entries, a load shows the last of each track.
    #[test]
    fn commits_are_a_map(
        batches in prop::collection::vec(
            prop::collection::vec(((0u32..2, 0u32..600), records::tests::entries(Geometry::default())), 0..20),
            0..6,
        ),
    ) {
        let mut metadata = Metadata::create(File::new(), array_record()).unwrap();
        let mut map = std::collections::BTreeMap::new();
        for batch in batches {
            let changes: Vec<_> =
                batch.iter().map(|((id, at), entry)| Change::Entry(DeviceId(*id), TrackNo(*at), *entry)).collect();
            metadata.commit(&changes).unwrap();
            map.extend(batch);
        }
        map.retain(|_, entry| !entry.is_zeros());
        let want: Vec<_> = std::iter::once(Change::NextId(1))
            .chain(map.into_iter().map(|((id, at), entry)| Change::Entry(DeviceId(id), TrackNo(at), entry)))
            .collect();
        prop_assert_eq!(everything(&metadata), want);
    }
}
