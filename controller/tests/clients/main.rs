//! The daemon as it is used: by the NBD clients that people have, by file systems, by a database.
//!
//! `cargo xtask test` runs this, after it has looked for the programs. A test that lacks one is left out, says which,
//! and is counted as ignored. By hand: `cargo test --release -p twintrack-controller --test clients -- fio`.

mod ext4;
mod fio;
mod full;
mod image;
mod iolog;
mod killed;
mod nbdcopy;
mod nbdinfo;
mod needs;
// Not everything that the daemon's own tests use is used here; so, too, below.
#[allow(dead_code)]
#[path = "../daemon/pki.rs"]
mod pki;
mod postgres;
#[allow(dead_code)]
#[path = "../daemon/process.rs"]
mod process;
mod program;
#[allow(dead_code)]
#[path = "../daemon/proxy.rs"]
mod proxy;
mod qemu;
mod refused;
mod remote;
mod server;
#[allow(dead_code)]
#[path = "../daemon/twins.rs"]
mod twins;
mod volume;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let mut trials = Vec::new();
    // The longest first.
    trials.extend(postgres::trials());
    trials.extend(ext4::trials());
    trials.extend(fio::trials());
    trials.extend(remote::trials());
    trials.extend(killed::trials());
    trials.extend(full::trials());
    trials.extend(nbdcopy::trials());
    trials.extend(qemu::trials());
    trials.extend(nbdinfo::trials());
    trials.extend(refused::trials());
    for trial in trials.iter().filter(|trial| trial.has_ignored_flag()) {
        println!("left out: {}, which {}", trial.name(), trial.kind());
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// A test. It is left out if this machine lacks what it needs.
fn trial<T, F>(name: impl Into<String>, needs: &[needs::Need], test: T) -> Trial
where
    T: FnOnce() -> F + Send + 'static,
    F: Future<Output = ()>,
{
    let missing: Vec<String> = needs.iter().filter_map(needs::Need::missing).collect();
    let run = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(test());
        Ok(())
    };
    let trial = Trial::test(name, run);
    if missing.is_empty() {
        return trial;
    }
    trial.with_kind(format!("needs {}", missing.join(", "))).with_ignored_flag(true)
}

/// *Establish* by the command: pairs as `STANDARD=VIRTUAL`, all at one instant.
async fn establish(server: &server::Server, pairs: &[&str]) {
    let command = needs::command();
    let folder = server.folder();
    let mut arguments = vec!["-a", folder.to_str().unwrap(), "session", "establish"];
    arguments.extend(pairs);
    program::run(command.to_str().unwrap(), arguments).await;
}
