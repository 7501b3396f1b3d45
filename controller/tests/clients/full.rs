//! A full pool: the host that writes gets the error, or the oldest session fails; the array goes on.

use libtest_mimic::Trial;
use twintrack_link::manage::SessionInfoState;

use crate::needs::Need::{Command, Program};
use crate::program::{Program as Child, run};
use crate::qemu::qemu_io;
use crate::server::{MIB, Server, Transport};
use crate::trial;

pub fn trials() -> Vec<Trial> {
    vec![
        trial("full::host", &[Program("qemu-io"), Program("fio")], a_host_gets_the_error),
        trial("full::session", &[Program("qemu-io"), Program("fio"), Command], the_oldest_session_fails),
    ]
}

/// D1: writes to a thin device end with "no space" when the pool is full. What was written stays, and can be
/// written again in place; what is trimmed can be used.
async fn a_host_gets_the_error() {
    let server = Server::start_small(Transport::Unix, 48, &[("db", 128), ("fio", 8)]).await;
    let (db, fio) = (server.uri("db"), server.uri("fio"));
    run("fio", verify(&fio, "--rw=write", &[])).await;
    let writes = (0..128).map(|n| format!("write -P {} {} 1M", n + 1, n * MIB));
    let said = Child::start("qemu-io", qemu_io(&server, "db", writes)).end().await;
    let text = format!("{}{}", said.stdout, said.stderr);
    let written = said.stdout.matches("wrote 1048576/1048576").count() as u64;
    assert!((1..48).contains(&written), "{text}");
    assert!(text.contains("No space left on device"), "{text}");
    let check = (0..written).map(|n| format!("read -P {} {} 1M", n + 1, n * MIB));
    run("qemu-io", qemu_io(&server, "db", check)).await;
    let again = (0..written).map(|n| format!("write -P {} {} 1M", 200, n * MIB));
    run("qemu-io", qemu_io(&server, "db", again.chain(["flush".to_owned()]))).await;
    run("fio", verify(&fio, "--rw=randwrite", &[])).await;
    let failed = Child::start("fio", verify(&db, "--rw=write", &["--size=128M"])).end().await.badly();
    assert!(failed.contains("No space left on device"), "{failed}");

    let trim = [format!("discard 0 {}", 4 * MIB), "flush".to_owned(), format!("write -P 9 {} 2M", 120 * MIB)];
    run("qemu-io", qemu_io(&server, "db", trim)).await;
    let server = server.killed().await;
    run("fio", verify(&server.uri("fio"), "--rw=randread", &["--verify_only"])).await;
    run("qemu-io", qemu_io(&server, "db", [format!("read -P 9 {} 2M", 120 * MIB)])).await;
    assert!(!server.log().contains("panicked"), "{}", server.log());
}

/// D3, F1: a write to a standard device never fails because of sessions: when old tracks fill the pool, the oldest
/// session fails and says so, its virtual device gives errors and no data; the younger one shows what it should.
async fn the_oldest_session_fails() {
    let server = Server::start_small(Transport::Unix, 64, &[("db", 24)]).await;
    let db = server.uri("db");
    run("qemu-io", qemu_io(&server, "db", ["write -P 1 0 24M".to_owned()])).await;
    crate::establish(&server, &["db=oldest"]).await;
    run("qemu-io", qemu_io(&server, "db", ["write -P 2 0 24M".to_owned()])).await;
    run("qemu-io", qemu_io(&server, "oldest", ["read -P 1 0 24M".to_owned()])).await;
    crate::establish(&server, &["db=youngest"]).await;
    run("fio", verify(&db, "--rw=write", &["--size=24M"])).await;

    let sessions = server.array().session_list(None).await.unwrap();
    let states: Vec<_> = sessions.iter().map(|session| session.state).collect();
    assert_eq!(states, [SessionInfoState::Failed, SessionInfoState::Active]);
    let warnings = server.array().array_show().await.unwrap().warnings;
    assert!(warnings.iter().any(|warning| warning.contains("fail")), "{warnings:?}");
    let read = Child::start("qemu-io", qemu_io(&server, "oldest", ["read 0 4k".to_owned()]));
    read.end().await.badly();
    let server = server.killed().await;
    run("fio", verify(&server.uri("db"), "--rw=read", &["--size=24M", "--verify_only"])).await;
    run("qemu-io", qemu_io(&server, "youngest", ["read -P 2 0 24M".to_owned()])).await;
}

fn verify<'a>(uri: &str, pattern: &'a str, more: &[&'a str]) -> Vec<String> {
    let mut words = vec!["--name=job".to_owned(), "--ioengine=nbd".to_owned(), format!("--uri={uri}")];
    let common = "--size=8M --bs=64k --iodepth=8 --verify=crc32c --verify_fatal=1 --verify_state_save=0 --end_fsync=1 --randrepeat=1";
    words.extend(common.split(' ').map(str::to_owned));
    words.push(pattern.to_owned());
    words.extend(more.iter().map(|word| (*word).to_owned()));
    words
}
