//! PostgreSQL on ext4 on a device: killed together with the daemon, and copied while it runs.

use std::fs;
use std::io::{Seek, Write};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use libtest_mimic::Trial;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::time::Instant;

use crate::needs::{Need, postgres};
use crate::process::PATIENCE;
use crate::program::{Program, run};
use crate::server::{Server, Transport};
use crate::trial;
use crate::volume::{NEEDS, Volume};

pub fn trials() -> Vec<Trial> {
    let needs = [&NEEDS[..], &[Need::Postgres, Need::Program("setpriv")]].concat();
    vec![
        trial("postgres::killed", &needs, killed_with_the_daemon),
        trial("postgres::copied", &needs, copied_while_it_runs),
        trial("postgres::restored", &needs, restored_in_place),
    ]
}

/// Crash rules 1 to 4: database and daemon are killed under load; after the restart of both every transaction that was
/// answered is there, and the balances agree.
async fn killed_with_the_daemon() {
    let mut server = Server::start(Transport::Unix, &[("db", 256)]).await;
    let volume = Volume::create(&server, "db").await;
    let cluster = Cluster::create(&volume).await;
    let load = Load::start(&cluster).await;
    load.is_under_way(&cluster, 300).await;
    drop(cluster);
    server = server.killed().await;
    let answered = load.answered().await;
    drop(volume);

    let volume = Volume::open(&server, "db", &[]).await;
    let cluster = Cluster::start(&volume).await;
    let found = cluster.consistent().await;
    assert!(found >= answered, "{answered} insertions were answered, {found} are there");
    cluster.stop().await;
    volume.check().await;
}

/// D2 to D5, D8: the virtual device of a running database is a second cluster, as after a power cut at the session's
/// instant; it takes changes of its own, and the first one goes on.
async fn copied_while_it_runs() {
    let server = Server::start(Transport::Unix, &[("db", 256)]).await;
    let volume = Volume::create(&server, "db").await;
    let cluster = Cluster::create(&volume).await;
    let load = Load::start(&cluster).await;
    load.is_under_way(&cluster, 300).await;
    let before = cluster.count().await;
    crate::establish(&server, &["db=then"]).await;
    let after = cluster.count().await;
    load.is_under_way(&cluster, after + 100).await;

    let copy = Volume::open(&server, "then", &[]).await;
    // It names the process of the first cluster.
    fs::remove_file(copy.path().join("data/postmaster.pid")).unwrap();
    let second = Cluster::start(&copy).await;
    let found = second.consistent().await;
    assert!((before..=after).contains(&found), "{found}, but it was {before} to {after}");
    second.ask("UPDATE pgbench_branches SET bbalance = -1; DELETE FROM ledger").await;
    second.stop().await;
    copy.check().await;
    assert!(cluster.consistent().await >= after + 100);
    drop(load);
    cluster.stop().await;
    volume.check().await;
}

/// D10: a running database is copied, loses a table, and is put back in place: it is as after a power cut at the session's
/// instant. That is undone: it is as it was when it was stopped.
async fn restored_in_place() {
    let server = Server::start(Transport::Unix, &[("db", 256)]).await;
    let volume = Volume::create(&server, "db").await;
    let cluster = Cluster::create(&volume).await;
    let load = Load::start(&cluster).await;
    load.is_under_way(&cluster, 300).await;
    let earliest = cluster.count().await;
    crate::establish(&server, &["db=then"]).await;
    let latest = cluster.count().await;
    load.is_under_way(&cluster, latest + 100).await;
    drop(load);
    cluster.is_quiet().await;
    cluster.ask("DROP TABLE pgbench_accounts; DELETE FROM ledger WHERE n > 10").await;
    assert_eq!(cluster.count().await, 10);
    cluster.stop().await;
    volume.check().await;

    let then = crate::session(&server, "db", "then").await;
    crate::command(&server, &["session", "restore", &then]).await;
    let volume = Volume::open(&server, "db", &[]).await;
    fs::remove_file(volume.path().join("data/postmaster.pid")).unwrap();
    let cluster = Cluster::start(&volume).await;
    let found = cluster.consistent().await;
    assert!((earliest..=latest).contains(&found), "{found}, but it was {earliest} to {latest}");
    cluster.stop().await;
    volume.check().await;

    let kept = crate::session(&server, "db", "db.before-1").await;
    crate::command(&server, &["session", "restore", &kept]).await;
    let volume = Volume::open(&server, "db", &[]).await;
    let cluster = Cluster::start(&volume).await;
    assert_eq!(cluster.count().await, 10);
    assert!(!cluster.try_ask("SELECT 1 FROM pgbench_accounts").await, "it was dropped");
    cluster.stop().await;
    volume.check().await;
}

/// A running database.
struct Cluster {
    program: Program,
    sockets: TempDir,
    user: &'static str,
}

impl Cluster {
    /// Makes one on a volume, with pgbench's tables and one more.
    async fn create(volume: &Volume) -> Self {
        let (user, uid, gid) = user().await;
        let data = volume.path().join("data");
        fs::create_dir(&data).unwrap();
        chown(&data, Some(uid), Some(gid)).unwrap();
        let initdb = binary("initdb");
        let more = ["-U", "postgres", "-A", "trust", "-k", "-E", "UTF8", "--locale=C"];
        let words = [&[initdb.to_str().unwrap(), "-D", data.to_str().unwrap()], &more[..]].concat();
        run("setpriv", [&as_user(user), &words[..]].concat()).await;
        let cluster = Self::start(volume).await;
        run(
            binary("pgbench").to_str().unwrap(),
            [&["-q", "-i", "-s", "1"], &cluster.connection()[..]].concat(),
        )
        .await;
        cluster.ask("CREATE TABLE ledger (n int PRIMARY KEY)").await;
        cluster
    }

    /// Starts the one on a volume, and waits until it has recovered.
    async fn start(volume: &Volume) -> Self {
        let (user, uid, gid) = user().await;
        let sockets =
            tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o755)).tempdir().unwrap();
        chown(sockets.path(), Some(uid), Some(gid)).unwrap();
        let data = volume.path().join("data");
        let program = binary("postgres");
        let folder = format!("unix_socket_directories={}", sockets.path().display());
        let words = [program.to_str().unwrap(), "-D", data.to_str().unwrap(), "-c", &folder];
        let settings = ["-c", "listen_addresses=", "-c", "shared_buffers=16MB", "-c", "max_wal_size=64MB"];
        let program = Program::start("setpriv", [&as_user(user), &words[..], &settings].concat());
        let mut cluster = Self { program, sockets, user };
        let begun = Instant::now();
        while !cluster.try_ask("SELECT 1").await {
            assert!(cluster.program.runs(), "postgres has ended as {}", cluster.user);
            assert!(begun.elapsed() < PATIENCE, "postgres does not answer");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        cluster
    }

    /// Waits until the database has carried out what clients asked that are gone now.
    async fn is_quiet(&self) {
        let others = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()";
        let begun = Instant::now();
        while self.ask(others).await.trim() != "0" {
            assert!(begun.elapsed() < PATIENCE, "clients are still at work");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Rows of `ledger`, when everything in the database agrees: pgbench changes four tables in a transaction, and
    /// `ledger` gets its numbers in order.
    async fn consistent(&self) -> u64 {
        let sums = "SELECT (SELECT sum(abalance) FROM pgbench_accounts), (SELECT sum(tbalance) FROM pgbench_tellers), \
                    (SELECT sum(bbalance) FROM pgbench_branches), (SELECT sum(delta) FROM pgbench_history), \
                    (SELECT count(*) FROM ledger), (SELECT max(n) FROM ledger)";
        let answer = self.ask(sums).await;
        let values: Vec<&str> = answer.trim().split('|').collect();
        assert!(values[..4].iter().all(|sum| *sum == values[0] && !sum.is_empty()), "{answer}");
        assert_eq!(values[4], values[5], "{answer}");
        values[4].parse().unwrap()
    }

    /// Rows of `ledger`.
    async fn count(&self) -> u64 {
        self.ask("SELECT count(*) FROM ledger").await.trim().parse().unwrap()
    }

    async fn ask(&self, query: &str) -> String {
        let words = [&["-qtAX", "-c", query], &self.connection()[..]].concat();
        run(binary("psql").to_str().unwrap(), words).await
    }

    async fn try_ask(&self, query: &str) -> bool {
        let words = [&["-qtAX", "-c", query], &self.connection()[..]].concat();
        Program::start(binary("psql").to_str().unwrap(), words).end().await.status.success()
    }

    fn connection(&self) -> [&str; 5] {
        ["-h", self.sockets.path().to_str().unwrap(), "-U", "postgres", "postgres"]
    }

    /// Ends it as its operator would, its clients going.
    async fn stop(mut self) {
        self.program.interrupt();
        let begun = Instant::now();
        while self.program.runs() {
            assert!(begun.elapsed() < PATIENCE, "postgres does not end");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// As if the machine had stopped: the processes of a connection would otherwise wait for ever for those that have gone.
impl Drop for Cluster {
    fn drop(&mut self) {
        let kill = |id: u32, signal| {
            let process = Pid::from_raw(id.try_into().unwrap_or_default());
            // It may have ended.
            let _ = process.map(|process| kill_process(process, signal));
        };
        // Stopped, so that it starts no more of them.
        let server = self.program.id();
        kill(server, Signal::STOP);
        let connections = children(server);
        kill(server, Signal::KILL);
        connections.into_iter().for_each(|id| kill(id, Signal::KILL));
    }
}

fn children(parent: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let parent_of = |id: u32| -> Option<u32> {
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
    };
    ids.filter(|id| parent_of(*id) == Some(parent)).collect()
}

/// Clients of a database: pgbench with four connections, and one that inserts numbers.
struct Load {
    _pgbench: Program,
    psql: Program,
}

impl Load {
    async fn start(cluster: &Cluster) -> Self {
        let words = [&["-c", "4", "-T", "600", "-n"], &cluster.connection()[..]].concat();
        let pgbench = Program::start(binary("pgbench").to_str().unwrap(), words);
        let mut script = tempfile::tempfile().unwrap();
        for n in 1..200_000 {
            writeln!(script, "INSERT INTO ledger VALUES ({n});").unwrap();
        }
        script.rewind().unwrap();
        let words = [&["-tAX", "-v", "ON_ERROR_STOP=1"], &cluster.connection()[..]].concat();
        let psql = Program::start_with(binary("psql").to_str().unwrap(), words, script);
        Self { _pgbench: pgbench, psql }
    }

    /// Waits until this many numbers are there, and some of pgbench's transactions.
    async fn is_under_way(&self, cluster: &Cluster, numbers: u64) {
        let history = || cluster.ask("SELECT count(*) > 100 FROM pgbench_history");
        let begun = Instant::now();
        while cluster.count().await < numbers || history().await.trim() != "t" {
            assert!(begun.elapsed() < PATIENCE, "the load gets nowhere");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// How many insertions were answered, after the database has ended.
    async fn answered(self) -> u64 {
        self.psql.end().await.stdout.matches("INSERT 0 1").count() as u64
    }
}

fn binary(name: &str) -> PathBuf {
    postgres().unwrap_or_else(|| Path::new("").to_owned()).join(name)
}

/// Who runs the database, which refuses to run as root: name, user and group.
async fn user() -> (&'static str, u32, u32) {
    let passwd = fs::read_to_string("/etc/passwd").unwrap();
    let find = |name: &'static str| {
        let fields: Vec<&str> =
            passwd.lines().find(|line| line.split(':').next() == Some(name))?.split(':').collect();
        Some((name, fields[2].parse().ok()?, fields[3].parse().ok()?))
    };
    find("postgres").or_else(|| find("nobody")).expect("there is a user postgres or nobody")
}

fn as_user(user: &'static str) -> [&'static str; 6] {
    let group = if user == "nobody" { "nogroup" } else { user };
    ["--reuid", user, "--regid", group, "--clear-groups", "--"]
}
