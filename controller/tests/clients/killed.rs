//! `kill -9` in the middle of load: what clients were told is durable is there.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
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
        let site = server.kill();
        let logs = load.end().await;
        server = site.start().await;
        let (now, then) = (device(&server, "db").await, device(&server, &name).await);
        assert!(then == before, "session {name} has changed by the kill");
        assert!(logs.iter().any(|log| log.flushed > 0), "nothing was flushed");
        for log in &logs {
            log.at_least_flushed(&now);
            log.instant(&then);
        }
    }
}

/// Crash rule 1: of qemu-io's writes, round and round through a part of the device, each with its own pattern and
/// followed by a flush, all are there that were flushed when the daemon was killed.
async fn what_qemu_flushed_is_there(transport: Transport) {
    const BLOCKS: u64 = 4096;
    let pattern = |n: u64| n % 254 + 1;
    let place = |n: u64| n % BLOCKS * 4096;
    let mut server = Server::start(transport, &[("db", 128)]).await;
    let (input, mut script) = std::io::pipe().unwrap();
    let mut qemu = Child::start_with("qemu-io", qemu_io(&server, "db", []), input);
    let stop = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&stop);
    // It gets commands for as long as it takes, however fast it is.
    let feeder = tokio::task::spawn_blocking(move || {
        let mut numbers = (0..).take_while(|_| !told.load(Ordering::Relaxed));
        numbers.try_for_each(|n| writeln!(script, "write -P {} {} 4k\nflush", pattern(n), place(n)))
    });
    while server.daemon().metric("twintrack_host_requests_total{op=\"flush\"}").await < 200 {
        assert!(qemu.runs(), "qemu-io has ended too early");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let site = server.kill();
    stop.store(true, Ordering::Relaxed);
    // Before the next start, for it would connect anew, and go on after those that failed.
    let said = qemu.end().await.stdout;
    feeder.await.unwrap().unwrap();
    server = site.start().await;
    let written = said.matches("wrote 4096/4096 bytes").count() as u64;
    assert!(written >= 200, "{written} writes were answered");
    // The flush of the last one may not have been, and the one after it may be there or not.
    let flushed = written - 1;
    let unsure = [place(written - 1), place(written)];
    let newest = flushed.saturating_sub(BLOCKS)..flushed;
    let reads = newest.filter(|n| !unsure.contains(&place(*n)));
    let reads = reads.map(|n| format!("read -P {} {} 4k", pattern(n), place(n)));
    let read = Child::start("qemu-io", qemu_io(&server, "db", reads)).end().await;
    let wrong: Vec<&str> = read.stdout.lines().filter(|line| line.contains("failed")).collect();
    assert!(wrong.is_empty(), "of {flushed} flushed writes these are not there: {wrong:#?}");
    read.well();
    run("qemu-io", qemu_io(&server, "db", [format!("write -P 1 0 {}", 64 * MIB)])).await;
}
