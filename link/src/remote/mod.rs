//! What travels between two arrays, without sockets: messages, frames, and who may say what when.

mod message;

pub use message::{
    Answer, CreateDevice, CreateHalf, Hello, LinkRefusal, MARKS_MAX, MarkSet, Marks, Message, NAME_BYTES_MAX,
    Note, PAIRS_MAX, PAYLOAD_BYTES_MAX, PAYLOAD_UNIT_BYTES, PairState, PeerError, PeerErrorCode,
    REASON_BYTES_MAX, Refused, Request, RequestNo, STATES_MAX, SUMS_MAX, VERSION,
};
