use std::io;
use std::sync::Arc;

use proptest::prelude::*;
use redb::StorageBackend;
use redb::backends::InMemoryBackend;
use twintrack_core::{
    BlockMask, DeviceKind, DeviceRecord, PhysicalTrack, PoolRecord, SessionRecord, SessionState,
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
    let device =
        |name: &str, kind| Some(DeviceRecord { name: name.into(), kind, size_bytes: 1 << 30, online: true });
    let standard = DeviceKind::Standard { pool: PoolId(0), generation: Generation(2), deleting: false };
    let session = SessionRecord {
        standard: DeviceId(1),
        virtual_device: Some(DeviceId(2)),
        state: SessionState::Active { activated: Generation(2) },
        activated_ms: 99,
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
    ]
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
            _ => None,
        })
        .collect();
    metadata.commit(&undo).unwrap();
    assert_eq!(everything(&metadata), samples()[..3]);
    let chunks = load::begin(&metadata.database).unwrap().open_table(ENTRIES).unwrap();
    assert_eq!(redb::ReadableTableMetadata::len(&chunks).unwrap(), 0);
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
fn a_newer_format_is_told_apart() {
    let file = File::new();
    let metadata = Metadata::create(file.clone(), array_record()).unwrap();
    let transaction = metadata.database.begin_write().unwrap();
    transaction.open_table(META).unwrap().insert(FORMAT, 2u32.to_le_bytes().as_slice()).unwrap();
    transaction.commit().unwrap();
    drop(metadata);
    assert!(matches!(Metadata::open(file), Err(MetadataError::NewerFormat { found: 2 })));
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
