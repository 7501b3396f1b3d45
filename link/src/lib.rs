//! What travels between machines, without sockets: the NBD wire format and the management requests and answers.
//! Decoding is total: any bytes give a value or an error, never a panic, and nothing is allocated because bytes
//! ask for it.

mod endpoint;
pub mod manage;
pub mod nbd;
pub mod remote;
pub mod size;
pub mod time;

pub use endpoint::{Endpoint, EndpointError};
