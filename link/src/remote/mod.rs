//! What travels between two arrays, without sockets: messages, frames, and who may say what when.
//!
//! ```text
//!   Message ─▶ Encoder ─▶ bytes ~~~▶ Decoder ─▶ Message ─▶ Connection ─▶ what it means
//! ```
//!
//! - [`Message`]: all that can be said, as plain data.
//! - [`Encoder`], [`Decoder`]: as frames, one pair of them for each direction of a connection. Total: any bytes give
//!   messages or an error. A payload is copied by neither.
//! - [`Connection`]: one link, from hello to its end: what fits when, keep-alive, deadlines, windows.
//! - [`Redial`]: when to connect again. [`Timing`]: how long all that may take.

mod connection;
mod frame;
mod kind;
mod message;
mod timing;
mod window;
mod wire;

pub use connection::{Connection, Happening, Reset, SendError};
pub use frame::{Decoder, Encoder, FrameError, HEADER_BYTES};
pub use message::{
    Answer, CreateDevice, CreateHalf, Hello, LinkRefusal, MARKS_MAX, MarkSet, Marks, Message, NAME_BYTES_MAX,
    Note, PAIRS_MAX, PAYLOAD_BYTES_MAX, PAYLOAD_UNIT_BYTES, POINTS_MAX, PairState, PeerError, PeerErrorCode,
    PreparedPoint, REASON_BYTES_MAX, Refused, Request, RequestNo, SETTLED_MAX, STATES_MAX, SUMS_MAX, VERSION,
};
pub use timing::{Redial, Timing};
pub use window::{COPY_BYTES_MAX, COPY_BYTES_MIN, REQUESTS_MAX, REQUESTS_RESERVED, WINDOW_BYTES_MAX};
pub use wire::EncodeError;
