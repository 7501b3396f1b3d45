//! `fio` on a remote pair that the command made, while the link is cut, silent and slow and either daemon is killed; after
//! a failover the other side has what fio wrote.

use std::path::Path;
use std::time::Duration;

use libtest_mimic::Trial;

use crate::needs::Need::{Command, Program};
use crate::needs::command;
use crate::pki::Pki;
use crate::program::{Program as Child, run};
use crate::proxy::Weather;
use crate::trial;
use crate::twins::Twins;

pub fn trials() -> Vec<Trial> {
    let needs = [Program("fio"), Command];
    vec![
        trial("remote::fio::tcp", &needs, || fio_on_both_sides(None)),
        trial("remote::fio::tls", &needs, || fio_on_both_sides(Some(Pki::new()))),
    ]
}

async fn fio_on_both_sides(pki: Option<Pki>) {
    let mut twins = Twins::new(pki.as_ref()).await;
    let [here, there] = [0, 1].map(|array: usize| twins.places[array].folder());
    twintrack(&here, "device create db 32M").await;
    twintrack(&here, "remote create db copy@there --create-r2").await;
    twintrack(&here, "remote watch db --interval-ms 50").await;

    // It has to take longer than all that happens meanwhile, which on a busy machine may be long.
    let mut loops = 3;
    loop {
        let words = ["--rw=randwrite", "--do_verify=1", "--rate=16m", &format!("--loops={loops}")];
        let mut fio = Child::start("fio", job(&here, "db", &words));
        storms(&mut twins).await;
        let was_long_enough = fio.runs();
        fio.end().await.well();
        if was_long_enough {
            break;
        }
        loops *= 2;
    }

    // What fio flushed at its end is there after a kill, on both sides.
    twins.crash_here().await;
    twins.synchronized().await;
    run("fio", job(&here, "db", &["--rw=randwrite", "--verify_only"])).await;
    twintrack(&here, "remote verify db").await;
    twintrack(&there, "remote failover copy").await;
    run("fio", job(&there, "copy", &["--rw=randwrite", "--verify_only"])).await;
    run("fio", job(&there, "copy", &["--rw=randwrite", "--do_verify=1", "--randseed=7"])).await;
    twintrack(&there, "remote watch copy --interval-ms 50").await;
    twintrack(&here, "remote failback db").await;
    run("fio", job(&here, "db", &["--rw=randwrite", "--verify_only", "--randseed=7"])).await;
}

async fn storms(twins: &mut Twins) {
    for weather in [
        Weather::CUT,
        Weather { delay: Duration::from_millis(5), bytes_per_s: Some(16 << 20), ..Weather::FINE },
        Weather::HELD,
        Weather::CUT,
    ] {
        tokio::time::sleep(Duration::from_millis(300)).await;
        twins.network.set(weather);
        tokio::time::sleep(Duration::from_millis(700)).await;
        twins.network.set(Weather::FINE);
    }
    twins.crash_there().await;
}

/// The command, with words divided by spaces.
async fn twintrack(folder: &Path, line: &str) {
    let words = ["-a", folder.to_str().unwrap()].into_iter().chain(line.split(' '));
    run(command().to_str().unwrap(), words).await;
}

/// Writes all of a device once, at random places.
fn job(folder: &Path, device: &str, more: &[&str]) -> Vec<String> {
    let uri = format!("--uri=nbd+unix:///{device}?socket={}/nbd.sock", folder.display());
    let words = "--name=job --ioengine=nbd --size=32m --bs=16k --iodepth=16 --end_fsync=1 --randrepeat=1 \
                 --verify=crc32c --verify_fatal=1 --verify_state_save=0";
    let words = words.split_whitespace().chain(more.iter().copied()).map(str::to_owned);
    words.chain([uri]).collect()
}
