//! `fio`: random writes that are verified, by one connection and four; sessions established meanwhile.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use libtest_mimic::Trial;

use crate::iolog::{BLOCK, IoLog, WRITES_MAX};
use crate::needs::Need::{self, Command, Program};
use crate::process::PATIENCE;
use crate::program::{Program as Child, run};
use crate::server::{MIB, Server, Transport};
use crate::trial;

/// What a job has for itself, from its number on.
const JOB_BYTES: u64 = 8 * MIB;

pub fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for transport in Transport::ALL {
        let word = transport.word();
        for jobs in [1, 4] {
            let name = format!("fio::verify::{word}::connections_{jobs}");
            trials.push(trial(name, &[Program("fio"), Program("setpriv")], move || {
                what_is_written_is_read(transport, jobs)
            }));
            let name = format!("fio::sessions::{word}::connections_{jobs}");
            let needs: [Need; 4] = [Program("fio"), Program("setpriv"), Program("nbdcopy"), Command];
            trials.push(trial(name, &needs, move || sessions_under_load(transport, jobs)));
        }
    }
    trials
}

/// D1: blocks of 512 bytes to 128 KiB at random places, many at a time, come back as they were written; also after
/// `kill -9`, for fio flushed at its end.
async fn what_is_written_is_read(transport: Transport, jobs: u64) {
    let server = Server::start(transport, &[("db", 64)]).await;
    let arguments = |server: &Server, more: &[&str]| {
        let mut arguments = vec!["--name=job".to_owned(), "--ioengine=nbd".to_owned()];
        arguments.push(format!("--uri={}", server.fio_uri("db")));
        arguments.push(format!("--numjobs={jobs}"));
        // Fewer connections have more to write each.
        let size = 64 * MIB / jobs;
        arguments.push(format!("--size={size}"));
        arguments.push(format!("--offset_increment={size}"));
        arguments.push(format!("--io_size={}", 16 * MIB / jobs));
        for word in "--iodepth=16 --bsrange=512-128k --bs_unaligned=0 --end_fsync=1 --randrepeat=1".split(' ')
        {
            arguments.push(word.to_owned());
        }
        arguments.extend(["--verify=crc32c", "--verify_fatal=1", "--verify_state_save=0"].map(str::to_owned));
        arguments.extend(more.iter().map(|word| (*word).to_owned()));
        arguments
    };
    let run = async |server: &Server, more: &[&str]| fio(server, arguments(server, more)).end().await.well();
    run(&server, &["--rw=randwrite", "--do_verify=1"]).await;
    run(&server, &["--rw=randrw", "--do_verify=1"]).await;
    let server = server.killed().await;
    run(&server, &["--rw=randrw", "--verify_only"]).await;
}

/// D3, D5, D8, F1: each session that is established while fio writes shows every job's part of the device at one
/// instant of that job: a prefix of its writes, whole blocks, nothing else. It stays like that.
async fn sessions_under_load(transport: Transport, jobs: u64) {
    let server = Server::start(transport, &[("db", 32)]).await;
    let mut load = Load::start(&server, jobs, 64);
    load.is_under_way(&server).await;
    let names: Vec<String> = (0..6).map(|n| format!("db-{n}")).collect();
    for name in &names {
        crate::establish(&server, &[&format!("db={name}")]).await;
        assert!(load.fio.runs(), "fio has ended too early to prove anything");
        // Whatever the speed of the machine, something is written in between.
        load.is_under_way(&server).await;
    }
    let while_it_runs = device(&server, "db-0").await;
    load.fio.interrupt();
    let logs = load.end().await;

    let mut before = vec![0; logs.len()];
    for name in &names {
        let image = device(&server, name).await;
        for (log, before) in logs.iter().zip(&mut before) {
            let count = log.instant(&image);
            assert!(count >= *before, "{name} is later than the one before it");
            *before = count;
        }
        assert!(name != "db-0" || image == while_it_runs, "db-0 has changed");
    }
    assert!(before.iter().sum::<u64>() > 0, "the sessions show nothing");
    let image = device(&server, "db").await;
    for log in &logs {
        assert_eq!(log.instant(&image), log.begun, "the device has all of it");
    }
}

/// fio writing blocks at random places, each job one at a time in a part of the device of its own.
pub struct Load {
    pub fio: Child,
    logs: Vec<PathBuf>,
    writes: u64,
}

impl Load {
    /// On `db`, with a flush after each `flush_every` writes; slow enough that it takes longer than [`PATIENCE`].
    pub fn start(server: &Server, jobs: u64, flush_every: u64) -> Self {
        let logs: Vec<PathBuf> = (0..jobs).map(|job| server.home().join(format!("job-{job}"))).collect();
        let common = "--ioengine=nbd --rw=randwrite --norandommap --iodepth=1 --bs=4k --verify=crc32c \
                      --do_verify=0 --verify_state_save=0";
        let mut arguments: Vec<String> = common.split_whitespace().map(str::to_owned).collect();
        arguments.push(format!("--uri={}", server.fio_uri("db")));
        arguments.push(format!("--fsync={flush_every}"));
        arguments.push(format!("--rate_iops={}", WRITES_MAX / (PATIENCE.as_secs() + 1)));
        arguments.push(format!("--size={JOB_BYTES}"));
        arguments.push(format!("--io_size={}", (WRITES_MAX - 1) * BLOCK));
        for (job, log) in logs.iter().enumerate() {
            // fio would write on at its end.
            if log.exists() {
                fs::remove_file(log).unwrap();
            }
            arguments.push(format!("--name=job-{job}"));
            arguments.push(format!("--offset={}", job as u64 * JOB_BYTES));
            arguments.push(format!("--write_iolog={}", log.display()));
        }
        Self { fio: fio(server, arguments), logs, writes: 0 }
    }

    /// Waits until some more was written.
    pub async fn is_under_way(&mut self, server: &Server) {
        loop {
            let writes = server.daemon().metric("twintrack_host_requests_total{op=\"write\"}").await;
            if writes >= self.writes + 100 * self.logs.len() as u64 {
                self.writes = writes;
                return;
            }
            assert!(self.fio.runs(), "fio has ended too early to prove anything");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits for the end of fio, which may be one by a signal or an error; what each job wrote.
    pub async fn end(self) -> Vec<IoLog> {
        self.fio.end().await;
        self.logs.iter().map(|path| IoLog::read(path)).collect()
    }
}

/// Starts fio.
fn fio(server: &Server, arguments: Vec<String>) -> Child {
    let words = [server.fio(), arguments].concat();
    Child::start(&words[0], &words[1..])
}

/// All of a device.
pub async fn device(server: &Server, name: &str) -> Vec<u8> {
    let path = server.beside("image");
    run("nbdcopy", [server.uri(name).as_str(), path.to_str().unwrap()]).await;
    fs::read(path).unwrap()
}
