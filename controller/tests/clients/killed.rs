//! `kill -9` in the middle of load: what clients were told is durable is there.

use std::fs::File;
use std::io::{Seek, Write};
use std::time::Duration;

use libtest_mimic::Trial;

use crate::fio::{Load, device};
use crate::needs::Need::{Command, Program};
use crate::program::{Program as Child, run};
use crate::qemu::qemu_io;
use crate::server::{MIB, Server, Transport};
use crate::trial;

pub fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for transport in Transport::ALL {
        let word = transport.word();
        for jobs in [1, 4] {
            let needs = [Program("fio"), Program("setpriv"), Program("nbdcopy"), Command];
            let name = format!("killed::fio::{word}::connections_{jobs}");
            trials.push(trial(name, &needs, move || what_fio_flushed_is_there(transport, jobs)));
        }
        let needs = [Program("qemu-io")];
        let name = format!("killed::qemu_io::{word}");
        trials.push(trial(name, &needs, move || what_qemu_flushed_is_there(transport)));
    }
    trials
}

/// D1, D3, F1 and crash rules 1 to 4: killed three times under fio's writes and flushes. Each job's log says what was
/// flushed; that is there, and no block is torn or from elsewhere. A session that was established, and told of, before the kill
/// shows the same as before it.
async fn what_fio_flushed_is_there(transport: Transport, jobs: u64) {
    let mut server = Server::start(transport, &[("db", 32)]).await;
    for round in 0..3 {
        // As if new, so that a block without a header is one that was not written.
        run("qemu-io", qemu_io(&server, "db", ["discard 0 32M".to_owned(), "flush".to_owned()])).await;
        let mut load = Load::start(&server, jobs, 16);
        load.is_under_way(&server).await;
        let name = format!("db-{round}");
        crate::establish(&server, &[&format!("db={name}")]).await;
        load.is_under_way(&server).await;
        let before = device(&server, &name).await;
        load.is_under_way(&server).await;
        server = server.killed().await;
        let logs = load.end().await;
        let (now, then) = (device(&server, "db").await, device(&server, &name).await);
        assert!(then == before, "session {name} has changed by the kill");
        for log in &logs {
            assert!(log.flushed > 0, "nothing was flushed");
            log.at_least_flushed(&now);
            log.instant(&then);
        }
    }
}

/// Crash rule 1: of qemu-io's writes, each with its own pattern and followed by a flush, all are there that were
/// flushed when the daemon was killed.
async fn what_qemu_flushed_is_there(transport: Transport) {
    const WRITES: u64 = 20_000;
    let pattern = |n: u64| n % 254 + 1;
    let place = |n: u64| n * 4096;
    let mut server = Server::start(transport, &[("db", 128)]).await;
    let mut script = tempfile::tempfile().unwrap();
    for n in 0..WRITES {
        writeln!(script, "write -P {} {} 4k\nflush", pattern(n), place(n)).unwrap();
    }
    script.rewind().unwrap();
    let input: File = script;
    let mut qemu = Child::start_with("qemu-io", qemu_io(&server, "db", []), input);
    while server.daemon().metric("twintrack_host_requests_total{op=\"flush\"}").await < 200 {
        assert!(qemu.runs(), "qemu-io has ended too early");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    server = server.killed().await;
    let said = qemu.end().await.stdout;
    let written = said.matches("wrote 4096/4096 bytes").count() as u64;
    assert!((200..WRITES).contains(&written), "{written} writes were answered");
    // The flush of the last one may not have been.
    let reads = (0..written - 1).map(|n| format!("read -P {} {} 4k", pattern(n), place(n)));
    let text = run("qemu-io", qemu_io(&server, "db", reads)).await;
    assert!(!text.contains("failed"), "{text}");
    run("qemu-io", qemu_io(&server, "db", [format!("write -P 1 0 {}", 64 * MIB)])).await;
}
