//! What a folder may hold, and what its owner is told.

use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::os::unix::net::UnixDatagram;

use bytes::Bytes;

use crate::process::{Place, said};

#[tokio::test]
async fn an_empty_folder_becomes_an_array_with_defaults() {
    let place = Place::unset();
    let output = place.run(&["--check"]);
    assert_eq!(output.status.code(), Some(1), "there is no folder, and none is made");
    assert!(!place.folder().exists());
    fs::create_dir(place.folder()).unwrap();
    let output = place.run(&["--check"]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert_eq!(fs::read_dir(place.folder()).unwrap().count(), 0, "it changes nothing");
    fs::remove_dir(place.folder()).unwrap();

    let daemon = place.start().await;
    let settings = fs::read_to_string(place.folder().join("twintrack.toml")).unwrap();
    assert!(settings.contains("#listen = [\"unix:nbd.sock\"]"), "{settings}");
    for (name, mode) in
        [("", 0o700), ("nbd.sock", 0o600), ("control.sock", 0o600), ("link.sock", 0o600), ("store-0", 0o600)]
    {
        let found = fs::metadata(place.folder().join(name)).unwrap().permissions().mode();
        assert_eq!(found & 0o777, mode, "{name}");
    }
    let pools = daemon.array().pool_list().await.unwrap();
    assert_eq!(pools.len(), 1);
    assert_eq!((pools[0].name.as_str(), pools[0].data_bytes, pools[0].log_bytes), ("default", 0, 0));
    let serial = daemon.array().array_show().await.unwrap().serial;
    daemon.array().device_create("db", 1 << 30, None).await.unwrap();
    assert!(daemon.terminate().await.success());

    let lock = fs::read(place.folder().join("lock")).unwrap();
    let output = place.run(&["--check"]);
    assert_eq!(fs::read(place.folder().join("lock")).unwrap(), lock);
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    assert!(output.status.success(), "{}", said(&output));
    assert!(text.contains(&format!("{serial}, 1 devices, 0 sessions, tracks of 64 KiB")), "{text}");
    let daemon = place.start().await;
    assert_eq!(daemon.array().array_show().await.unwrap().serial, serial);
}

#[tokio::test]
async fn a_folder_has_one_daemon() {
    let place = Place::new();
    let daemon = place.start().await;
    for arguments in [&[][..], &["--check"]] {
        let output = place.run(arguments);
        assert_eq!(output.status.code(), Some(1));
        let text = said(&output);
        assert!(
            text.contains("in use by another twintrackd") && text.contains(&daemon.id().to_string()),
            "{text}"
        );
    }
    assert!(daemon.array().array_show().await.is_ok(), "the first one does not notice");
    daemon.kill();
    place.start().await;
}

#[tokio::test]
async fn what_is_no_array_is_refused_and_left_alone() {
    let place = Place::unset();
    fs::create_dir(place.folder()).unwrap();
    fs::write(place.folder().join("thesis.txt"), "chapter 1").unwrap();
    let output = place.run(&[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("holds \"thesis.txt\" and no array"), "{}", said(&output));
    assert_eq!(fs::read_dir(place.folder()).unwrap().count(), 1);

    let place = Place::new();
    place.set("[[pool]]\nname = \"main\"\nstores = []\n");
    let output = place.run(&[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("line 3"), "{}", said(&output));

    place.set("");
    let output = place.run(&[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("names no store"), "{}", said(&output));

    assert_eq!(place.run(&["--frobnicate"]).status.code(), Some(2));
}

/// A first start fails, its settings are corrected, and name a store of another array.
#[tokio::test]
async fn a_corrected_first_start_takes_no_store_of_another_array() {
    let other = Place::new();
    assert!(other.start().await.terminate().await.success());
    let its_store = other.folder().join("store");
    let before = fs::read(&its_store).unwrap();

    let place = Place::new();
    let settings = |path: &str, size: &str| {
        place.set(&format!("[[pool]]\nname = \"main\"\n[[pool.store]]\npath = \"{path}\"\n{size}\n"));
    };
    settings("not/there", "size = \"64 MiB\"");
    let output = place.run(&[]);
    assert!(said(&output).contains("store not/there cannot be used"), "{}", said(&output));
    let output = place.run(&["--check"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("formatting was interrupted"), "{text}{}", said(&output));
    settings(its_store.to_str().unwrap(), "");
    for arguments in [&[][..], &["--check"]] {
        let output = place.run(arguments);
        assert_eq!(output.status.code(), Some(1));
        assert!(said(&output).contains("belongs to array"), "{}", said(&output));
    }
    assert!(fs::read(&its_store).unwrap() == before, "its store was changed");
    settings("store", "size = \"64 MiB\"");
    assert!(place.start().await.terminate().await.success());
    other.start().await;
}

#[tokio::test]
async fn damage_is_refused() {
    let place = Place::new();
    let daemon = place.start().await;
    daemon.array().device_create("db", 1 << 20, None).await.unwrap();
    assert!(daemon.terminate().await.success());
    let refused = |why: &str| {
        for arguments in [&[][..], &["--check"]] {
            let output = place.run(arguments);
            assert_eq!(output.status.code(), Some(1));
            assert!(said(&output).contains(why), "{}", said(&output));
        }
    };
    let (metadata, store) = (place.folder().join("metadata"), place.folder().join("store"));

    let whole = fs::read(&metadata).unwrap();
    fs::write(&metadata, "").unwrap();
    refused("the metadata file is empty");
    fs::write(&metadata, vec![0x5A; whole.len()]).unwrap();
    refused("the metadata file failed");
    fs::write(&metadata, &whole[..whole.len() / 2]).unwrap();
    refused("metadata");
    fs::remove_file(&metadata).unwrap();
    refused("its metadata file is missing");
    fs::write(&metadata, &whole).unwrap();

    let file = fs::OpenOptions::new().read(true).write(true).open(&store).unwrap();
    let mut superblock = vec![0; 4096];
    file.read_exact_at(&mut superblock, 0).unwrap();
    let mut newer = superblock.clone();
    newer[8] = 2;
    let code = crc32c::crc32c(&newer[..4092]).to_le_bytes();
    newer[4092..].copy_from_slice(&code);
    file.write_all_at(&newer, 0).unwrap();
    refused("format version 2, this program knows versions up to 1");
    file.write_all_at(&[0; 4096], 0).unwrap();
    refused("does not begin with a superblock");
    file.write_all_at(&superblock, 0).unwrap();
    drop(file);
    fs::rename(&store, place.folder().join("elsewhere")).unwrap();
    refused("store store cannot be used: No such file or directory");
    assert!(!store.exists(), "it is not created anew");
    fs::rename(place.folder().join("elsewhere"), &store).unwrap();

    let settings = place.folder().join("twintrack.toml");
    let text = fs::read(&settings).unwrap();
    fs::remove_file(&settings).unwrap();
    refused("its settings are not");
    fs::write(&settings, text).unwrap();
    let daemon = place.start().await;
    assert_eq!(daemon.array().device_list().await.unwrap().len(), 1, "nothing was changed by all that");
}

/// As if a later version had upgraded it: this one says so, and leaves every byte as it is.
#[tokio::test]
async fn a_newer_format_is_refused_and_left_alone() {
    let place = Place::new();
    let daemon = place.start().await;
    daemon.array().device_create("db", 1 << 20, None).await.unwrap();
    assert!(daemon.terminate().await.success());
    let metadata = place.folder().join("metadata");
    let set_format = |format: u32| {
        let database = redb::Database::open(&metadata).unwrap();
        let transaction = database.begin_write().unwrap();
        let meta: redb::TableDefinition<&str, &[u8]> = redb::TableDefinition::new("meta");
        transaction.open_table(meta).unwrap().insert("format", format.to_le_bytes().as_slice()).unwrap();
        transaction.commit().unwrap();
    };
    set_format(5);
    let before = [fs::read(&metadata).unwrap(), fs::read(place.folder().join("store")).unwrap()];
    for arguments in [&[][..], &["--check"]] {
        let output = place.run(arguments);
        assert_eq!(output.status.code(), Some(1));
        let text = said(&output);
        assert!(text.contains("format version 5, this program knows versions up to 4"), "{text}");
        assert!(text.contains("start the newer twintrackd that wrote it"), "{text}");
    }
    let after = [fs::read(&metadata).unwrap(), fs::read(place.folder().join("store")).unwrap()];
    assert!(before == after, "something was changed");
    set_format(3);
    let daemon = place.start().await;
    assert_eq!(daemon.array().device_list().await.unwrap().len(), 1);
}

#[tokio::test]
async fn pools_and_stores_are_added_by_a_start() {
    let place = Place::new();
    assert!(place.start().await.terminate().await.success());
    let before = fs::read_to_string(place.folder().join("twintrack.toml")).unwrap();
    let more =
        "[[pool]]\nname = \"more\"\nstore = [{ path = \"other\", size = \"64 MiB\" }, { path = \"own\" }]\n";
    place.set(&format!("{before}{more}"));
    let output = place.run(&[]);
    assert!(said(&output).contains("store own is not there"), "{}", said(&output));
    fs::write(place.folder().join("own"), vec![7; 1 << 20]).unwrap();
    let output = place.run(&[]);
    assert!(said(&output).contains("store own is not empty"), "{}", said(&output));
    fs::write(place.folder().join("own"), vec![0; 16 << 20]).unwrap();
    let daemon = place.start().await;
    let pools = daemon.array().pool_list().await.unwrap();
    let sizes: Vec<_> = pools.iter().map(|pool| (pool.name.as_str(), pool.size_bytes >> 20)).collect();
    assert_eq!(sizes, [("main", 510), ("more", 79)]);
    daemon.array().device_create("db", 1 << 20, Some("more")).await.unwrap();
    daemon.device("db").await.write(0, Bytes::from(vec![1; 4096]), true).await.unwrap();
    daemon.kill();
    // What is no longer listed stays.
    place.set(&before);
    let daemon = place.start().await;
    assert_eq!(daemon.device("db").await.read(0, 4096).await.unwrap(), vec![1; 4096]);
}

#[tokio::test]
async fn a_supervisor_is_told() {
    let place = Place::new();
    let path = place.folder().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(std::time::Duration::from_secs(30))).unwrap();
    let daemon = place.start_with(&[("NOTIFY_SOCKET", &path)]).await;
    let hear = || {
        let mut heard = [0; 32];
        let length = socket.recv(&mut heard).unwrap();
        String::from_utf8_lossy(&heard[..length]).into_owned()
    };
    assert_eq!(hear(), "READY=1");
    assert!(daemon.terminate().await.success());
    assert_eq!(hear(), "STOPPING=1");
    for name in ["nbd.sock", "control.sock", "link.sock"] {
        assert!(!place.folder().join(name).exists(), "{name} is gone");
    }
}
