use super::*;
use crate::firmware::PoolPolicy;
use crate::shell::config::PoolConfig;
use crate::shell::testing::{Counter, Shelf};

fn config(pools: &[(&str, &[&str])]) -> Config {
    let pool = |(name, stores): &(&str, &[&str])| PoolConfig {
        name: (*name).to_owned(),
        stores: stores.iter().map(|store| (*store).to_owned()).collect(),
        policy: PoolPolicy::default(),
    };
    Config {
        nbd: Vec::new(),
        control: Vec::new(),
        control_token: None,
        link: Vec::new(),
        pools: pools.iter().map(pool).collect(),
        track_bytes: 1 << 14,
    }
}

async fn start(
    shelf: &Shelf,
    env: &Counter,
    config: &Config,
) -> Result<(ArrayRecord, Vec<Change>), ServeError> {
    let cabinet = Arc::new(shelf.clone());
    let (metadata, stores) = open(&cabinet, env, config).await?;
    let (metadata, _) = load(&cabinet, metadata, env, config).await?;
    let changes: Vec<_> = metadata.load()?.collect::<Result<_, _>>()?;
    let known = changes.iter().filter(|change| matches!(change, Change::Store(..))).count();
    assert_eq!(known, stores.0.len());
    Ok((metadata.array(), changes))
}

const TWO: &[(&str, &[&str])] = &[("fast", &["a", "b"]), ("slow", &["c"])];

fn shelf() -> Shelf {
    Shelf::with_stores(&[("a", 1 << 20), ("b", 1 << 17), ("c", 1 << 19)])
}

#[tokio::test]
async fn stores_get_ranges_of_physical_tracks() {
    let (array, changes) = start(&shelf(), &Counter::default(), &config(TWO)).await.unwrap();
    assert_eq!(array, ArrayRecord { serial: 1, geometry: Geometry::new(1 << 14).unwrap() });
    let store = |name: &str, pool, first, tracks| StoreRecord {
        name: name.into(),
        pool: PoolId(pool),
        first,
        tracks,
    };
    let want = [
        Change::Pool(PoolId(0), PoolRecord { name: "fast".into() }),
        Change::Pool(PoolId(1), PoolRecord { name: "slow".into() }),
        Change::Store(StoreId(0), store("a", 0, 1, 63)),
        Change::Store(StoreId(1), store("b", 0, 64, 7)),
        Change::Store(StoreId(2), store("c", 1, 71, 31)),
        Change::NextId(1),
    ];
    assert_eq!(changes, want);
}

/// Crash rule 8: wherever the power fails, the next start has an array, and the one after that the same.
#[tokio::test]
async fn formatting_is_atomic() {
    let mut cuts = 0;
    for operations in 0.. {
        let mut all_done = false;
        for luck in 0..3 {
            let (shelf, env) = (shelf(), Counter::default());
            shelf.cut_power_after(operations, luck);
            let first = start(&shelf, &env, &config(TWO)).await;
            if !shelf.restore_power() {
                first.unwrap();
                all_done = true;
                continue;
            }
            cuts += 1;
            let second = start(&shelf, &env, &config(TWO))
                .await
                .unwrap_or_else(|e| panic!("cut {operations}/{luck}: {e}"));
            let third = start(&shelf, &env, &config(TWO)).await.unwrap();
            assert_eq!(second, third);
            if let Ok(first) = first {
                assert_eq!(first, second, "it was formatted before the cut");
            }
        }
        if all_done {
            break;
        }
    }
    assert!(cuts > 3 * 20, "{cuts} cuts");
}

/// The store of another array, under the name of one that the first start did not come to.
#[tokio::test]
async fn an_attempt_takes_up_its_own_stores_only() {
    let (shelf, env) = (shelf(), Counter::default());
    let superblock =
        |serial| Superblock { serial, store: StoreId(0), track_bytes: 1 << 14, tracks: 7 }.encode();
    start(&shelf, &env, &config(&[("fast", &["missing"])])).await.unwrap_err();
    shelf.scribble("b", 0, &superblock(99));
    for _ in 0..2 {
        let error = start(&shelf, &env, &config(TWO)).await.unwrap_err();
        assert!(matches!(error, ServeError::StoreTaken { ref name, serial: 99 } if name == "b"), "{error}");
    }
    let untouched = open_store(&shelf, "a").await.unwrap().disk.read(0, SUPERBLOCK_BYTES).await.unwrap();
    assert!(untouched.iter().all(|byte| *byte == 0), "all are looked at before the first is claimed");
    // What the attempt itself left behind.
    shelf.scribble("b", 0, &superblock(1));
    let (array, _) = start(&shelf, &env, &config(&[("fast", &["a", "b"])])).await.unwrap();
    assert_eq!(array.serial, 1, "the attempt's");
    // The same when a store is added.
    shelf.scribble("c", 0, &superblock(99));
    let error = start(&shelf, &env, &config(TWO)).await.unwrap_err();
    assert!(matches!(error, ServeError::StoreTaken { serial: 99, .. }), "{error}");
}

/// What is formatted can be loaded: the tables need the number after the last track, too.
#[tokio::test]
async fn more_tracks_than_can_be_numbered_are_refused() {
    let geometry = Geometry::new(1 << 14).unwrap();
    let tracks = StoreLayout::new(geometry, 1 << 20).unwrap().tracks();
    let known = |first| {
        let rest = StoreRecord { name: "known".into(), pool: PoolId(0), first: 1, tracks: first - 1 };
        vec![(StoreId(0), rest)]
    };
    let pools = [(PoolId(0), PoolRecord { name: "main".into() })];
    let plan =
        async |first| plan(&shelf(), &config(&[("main", &["a"])]), geometry, &pools, &known(first)).await;
    let Err(error) = plan(u32::MAX - tracks + 1).await else { panic!("it is one too many") };
    assert!(matches!(error, ServeError::TooLarge { ref name } if name == "a"), "{error}");
    let first = u32::MAX - tracks;
    let additions = plan(first).await.unwrap();
    let known = known(first).into_iter().map(|(id, record)| Change::Store(id, record));
    let pools = pools.into_iter().map(|(id, record)| Change::Pool(id, record));
    // The new store is the second one.
    let changes = pools.chain(known).chain(additions.changes);
    Tables::load(geometry, changes).unwrap();
}

#[tokio::test]
async fn new_pools_and_stores_are_added() {
    let (shelf, env) = (shelf(), Counter::default());
    start(&shelf, &env, &config(&[("fast", &["a"])])).await.unwrap();
    let (_, changes) = start(&shelf, &env, &config(TWO)).await.unwrap();
    let (_, again) = start(&shelf, &env, &config(&[])).await.unwrap();
    assert_eq!(changes, again);
    assert!(
        changes.iter().any(
            |change| matches!(change, Change::Store(id, store) if *id == StoreId(2) && store.first == 71)
        )
    );
    let moved = start(&shelf, &env, &config(&[("slow", &["a"])])).await;
    assert!(matches!(moved, Err(ServeError::StoreMoved { .. })));
}

#[tokio::test]
async fn only_its_own_stores_are_used() {
    let (shelf, env) = (shelf(), Counter::default());
    start(&shelf, &env, &config(TWO)).await.unwrap();
    // The store "b" of another array is put in the place of this one's.
    let tracks = 7;
    let foreign = Superblock { serial: 99, store: StoreId(1), track_bytes: 1 << 14, tracks };
    shelf.scribble("b", 0, &foreign.encode());
    let error = start(&shelf, &env, &config(TWO)).await.unwrap_err();
    assert!(matches!(error, ServeError::ForeignStore { serial: 99, .. }), "{error}");
    shelf.scribble("b", 0, &[0; 4096]);
    let error = start(&shelf, &env, &config(TWO)).await.unwrap_err();
    assert!(matches!(error, ServeError::Superblock { .. }), "{error}");
    shelf.scribble("b", 0, &Superblock { serial: 1, ..foreign }.encode());
    start(&shelf, &env, &config(TWO)).await.unwrap();
    shelf.put_store("b", (1 << 17) - 1);
    let error = start(&shelf, &env, &config(TWO)).await.unwrap_err();
    assert!(matches!(error, ServeError::StoreShrunk { .. }), "{error}");
}

#[tokio::test]
async fn a_wrong_configuration_is_refused() {
    let start = async |pools| start(&shelf(), &Counter::default(), &config(pools)).await.unwrap_err();
    assert!(matches!(start(&[]).await, ServeError::NoStore));
    assert!(matches!(start(&[("", &["a"])]).await, ServeError::Name { .. }));
    assert!(matches!(start(&[("x", &["a"]), ("x", &["b"])]).await, ServeError::PoolTwice { .. }));
    assert!(matches!(start(&[("x", &["a"]), ("y", &["a"])]).await, ServeError::StoreTwice { .. }));
    assert!(matches!(start(&[("x", &["missing"])]).await, ServeError::Store { .. }));
    let small = Shelf::with_stores(&[("a", 9000)]);
    let error = open(&Arc::new(small), &Counter::default(), &config(&[("x", &["a"])])).await;
    assert!(matches!(error, Err(ServeError::Layout { .. })));
}
