//! The command `twintrack` as it is built, run as a process: what it asks an array, prints and ends with.

mod array;
mod commands;
mod copies;
mod failures;
mod generated;
mod remote;
mod tls;
