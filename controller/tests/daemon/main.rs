//! The daemon as a process of its own, used through its sockets by the host library.

mod clients;
mod folders;
mod full;
mod pki;
mod process;
mod stores;
mod tls;
