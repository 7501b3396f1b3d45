//! The daemon as it is used: by the NBD clients that people have, by file systems, by a database.
//!
//! `cargo xtask test` runs this, after it has looked for the programs. A test that lacks one is left out, says which,
//! and is counted as ignored. By hand: `cargo test --release -p twintrack-controller --test clients -- fio`.

mod ext4;
mod fio;
mod full;
mod image;
mod incremental;
mod iolog;
mod killed;
mod nbdcopy;
mod nbdinfo;
mod needs;
// Not everything that the daemon's own tests use is used here; so, too, below.
#[allow(dead_code)]
#[path = "../daemon/pki.rs"]
mod pki;
#[path = "../daemon/port.rs"]
mod port;
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

use std::cell::RefCell;
use std::panic::{self, AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

thread_local! {
    /// Of the test that this thread runs.
    static TOLD: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

fn main() -> ExitCode {
    let usual = panic::take_hook();
    panic::set_hook(Box::new(move |what| {
        tell(&what.to_string());
        usual(what);
    }));
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
    trials.extend(incremental::trials());
    trials.extend(nbdinfo::trials());
    trials.extend(refused::trials());
    for trial in trials.iter().filter(|trial| trial.has_ignored_flag()) {
        println!("left out: {}, which {}", trial.name(), trial.kind());
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// Adds to what is said, at the end of all, of a test that fails.
fn tell(text: &str) {
    TOLD.with_borrow_mut(|told| told.push(text.to_owned()));
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
        // What it holds is dropped here, and tells what it knows.
        let ended = catch_unwind(AssertUnwindSafe(|| runtime.block_on(test())));
        let told = TOLD.take();
        ended.map_err(|_| told.join("\n").into())
    };
    let trial = Trial::test(name, run);
    if missing.is_empty() {
        return trial;
    }
    trial.with_kind(format!("needs {}", missing.join(", "))).with_ignored_flag(true)
}

/// *Establish* by the command: pairs as `STANDARD=VIRTUAL`, all at one instant.
async fn establish(server: &server::Server, pairs: &[&str]) {
    command(server, &[&["session", "establish"], pairs].concat()).await;
}

/// The command.
async fn command(server: &server::Server, words: &[&str]) {
    let command = needs::command();
    let folder = server.folder();
    let arguments = [&["-a", folder.to_str().unwrap()], words].concat();
    program::run(command.to_str().unwrap(), arguments).await;
}

/// The session of a device that a virtual device shows, as the command takes it.
async fn session(server: &server::Server, device: &str, shown_by: &str) -> String {
    let sessions = server.array().session_list(Some(device)).await.unwrap();
    let found = sessions.iter().find(|session| session.virtual_device.as_deref() == Some(shown_by));
    found.unwrap_or_else(|| panic!("{sessions:?}")).id.to_string()
}
