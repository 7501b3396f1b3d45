//! The daemon as a process of its own, used through its sockets by the host library.

mod clients;
mod folders;
mod full;
mod links;
// Not everything that the tests with real clients use is used here.
#[allow(dead_code)]
mod pki;
mod port;
mod process;
mod proxy;
mod refusals;
mod remote;
mod stores;
mod tls;
mod twins;

/// Adds to what is said of a test that fails.
fn tell(text: &str) {
    eprintln!("{text}");
}
