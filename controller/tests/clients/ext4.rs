//! ext4 on a device: files as they were when a session was established.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use libtest_mimic::Trial;

use crate::image::content;
use crate::server::{Server, Transport};
use crate::trial;
use crate::volume::{NEEDS, Volume};

pub fn trials() -> Vec<Trial> {
    vec![trial("ext4", &NEEDS, files_as_they_were), trial("ext4::restored", &NEEDS, files_restored)]
}

/// D1 to D5, D8: files are made, a session is established, files are changed, and the virtual device, mounted
/// read-only, has them as they were. A session that is established in the middle of changes is what a power cut
/// would leave: the journal is carried out, and nothing is wrong. Both file systems pass `e2fsck`.
async fn files_as_they_were() {
    let server = Server::start(Transport::Unix, &[("db", 192)]).await;
    let volume = Volume::create(&server, "db").await;
    for folder in ["a", "a/b", "c"] {
        fs::create_dir(volume.path().join(folder)).unwrap();
    }
    for n in 0..120u64 {
        let folder = ["a", "a/b", "c"][n as usize % 3];
        fs::write(volume.path().join(folder).join(n.to_string()), content(n, n * n * 8 + n % 7 * 8)).unwrap();
    }
    volume.sync().await;
    let before = files(volume.path());
    assert_eq!(before.len(), 120);
    crate::establish(&server, &["db=then"]).await;

    for (n, path) in before.keys().enumerate() {
        let path = volume.path().join(path);
        match n % 4 {
            0 => fs::write(path, content(1000 + n as u64, 70_000)).unwrap(),
            1 => fs::remove_file(path).unwrap(),
            2 => fs::rename(&path, path.with_extension("renamed")).unwrap(),
            _ => {}
        }
    }
    volume.sync().await;
    let after = files(volume.path());
    assert_ne!(before, after);

    let stop = Arc::new(AtomicBool::new(false));
    let writer = {
        let (stop, folder) = (Arc::clone(&stop), volume.path().join("many"));
        fs::create_dir(&folder).unwrap();
        tokio::task::spawn_blocking(move || {
            let mut n = 0u64;
            while !stop.load(Ordering::Relaxed) {
                n += 1;
                let path = folder.join((n % 50).to_string());
                fs::write(&path, content(n, n % 40 * 4096)).unwrap();
                fs::File::open(&path).unwrap().sync_all().unwrap();
                fs::rename(&path, folder.join(format!("{}-renamed", n % 50))).unwrap();
            }
        })
    };
    for name in ["middle-1", "middle-2"] {
        crate::establish(&server, &[&format!("db={name}")]).await;
    }
    stop.store(true, Ordering::Relaxed);
    writer.await.unwrap();

    let then = Volume::open(&server, "then", &["-o", "ro"]).await;
    assert!(files(then.path()) == before, "the files are not as they were");
    then.check().await;
    for name in ["middle-1", "middle-2"] {
        let middle = Volume::open(&server, name, &["-o", "ro"]).await;
        let mut found = files(middle.path());
        found.retain(|path, _| !path.starts_with("many"));
        assert!(found == after, "files that nobody was writing have changed");
        middle.check().await;
    }
    fs::remove_dir_all(volume.path().join("many")).unwrap();
    assert!(files(volume.path()) == after, "the device has changed by what was mounted beside it");
    volume.check().await;
}

/// D10 to D14: files are changed, and the device is restored in place: it has them as they were, and so has another device to
/// which the session is restored, another virtual device, and a split mirror. What they were changed to is kept, and comes back.
async fn files_restored() {
    let server = Server::start(Transport::Unix, &[("db", 96), ("other", 96), ("mirror", 96)]).await;
    let volume = Volume::create(&server, "db").await;
    for n in 0..60u64 {
        fs::write(volume.path().join(n.to_string()), content(n, n * n * 16)).unwrap();
    }
    volume.sync().await;
    let before = files(volume.path());
    crate::establish(&server, &["db=then"]).await;
    crate::command(&server, &["pair", "create", "db", "mirror"]).await;
    crate::command(&server, &["pair", "copy", "db", "mirror"]).await;

    for n in 0..60u64 {
        let path = volume.path().join(n.to_string());
        match n % 3 {
            0 => fs::write(path, content(1000 + n, 50_000)).unwrap(),
            1 => fs::remove_file(path).unwrap(),
            _ => {}
        }
    }
    let after = files(volume.path());
    volume.check().await;
    let then = crate::session(&server, "db", "then").await;
    crate::command(&server, &["device", "create", "again", "--virtual"]).await;
    for target in ["other", "again"] {
        crate::command(&server, &["session", "restore", &format!("{then}={target}"), "--keep"]).await;
        has(&server, target, &before).await;
    }
    crate::command(&server, &["session", "restore", &then]).await;
    has(&server, "db", &before).await;

    let kept = crate::session(&server, "db", "db.before-1").await;
    crate::command(&server, &["session", "restore", &kept]).await;
    has(&server, "db", &after).await;
    crate::command(&server, &["pair", "restore", "db", "mirror"]).await;
    has(&server, "db", &before).await;
    has(&server, "mirror", &before).await;
}

/// The file system of a device has these files, and passes `e2fsck`.
async fn has(server: &Server, device: &str, wanted: &BTreeMap<PathBuf, Vec<u8>>) {
    let volume = Volume::open(server, device, &[]).await;
    assert!(files(volume.path()) == *wanted, "{device} has other files");
    volume.check().await;
}

/// Every file below `root`, by its path there.
fn files(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.ends_with("lost+found") {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else {
                found.insert(path.strip_prefix(root).unwrap().to_owned(), fs::read(&path).unwrap());
            }
        }
    }
    found
}
