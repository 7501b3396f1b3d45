//! The kinds of frames, and what the body of each is.
//!
//! A body is the fields of a message in the order given here, one after the other; how each looks: `wire`. A payload
//! is beside it. Numbers are never given to something else: what is new gets a new one.

use bytes::Bytes;
use twintrack_core::remote::{Halt, Lineage, Mode};
use twintrack_core::{PairId, TrackNo};

use super::message::{
    Answer, CreateHalf, Hello, Marks, Message, Note, PairState, PeerError, PreparedPoint, Refused, Request,
    RequestNo,
};
use super::wire::{EncodeError, Field, Malformed, Reader};

/// What a later version may add to a [`Hello`] or [`Refused`], in bytes: both are read whatever follows what is known,
/// so that arrays of different versions can tell each other.
const LATER_BYTES_MAX: usize = 1024;

macro_rules! kinds {
    ($($code:literal $name:ident: [$($message:tt)*] { $($field:ident: $type:ty),* } $(payload $payload:ident)?;)*) => {
        /// What a frame carries.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u8)]
        pub(super) enum Kind {
            $($name = $code,)*
        }

        impl Kind {
            pub(super) fn new(code: u8) -> Option<Self> {
                match code {
                    $($code => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// The longest body.
            pub(super) fn body_bytes_max(self) -> u32 {
                let fields = match self {
                    $(Self::$name => 0 $(+ <$type>::BYTES_MAX)*,)*
                };
                (fields + if self.may_be_longer() { LATER_BYTES_MAX } else { 0 }) as u32
            }

            /// Whether a payload is beside the body.
            pub(super) fn has_payload(self) -> bool {
                match self {
                    $(Self::$name => kinds!(@has $($payload)?),)*
                }
            }
        }

        /// Appends a message's body.
        pub(super) fn put(message: &Message, out: &mut Vec<u8>) -> Result<Kind, EncodeError> {
            match message {
                $($($message)* => {
                    $($field.put(out)?;)*
                    $(let _: &Bytes = $payload;)?
                    Ok(Kind::$name)
                })*
            }
        }

        /// Puts a message together.
        pub(super) fn take(kind: Kind, body: &[u8], payload: Bytes) -> Result<Message, Malformed> {
            let mut body = Reader(body);
            let message = match kind {
                $(Kind::$name => {
                    $(let $field = <$type>::get(&mut body)?;)*
                    $(let $payload = payload;)?
                    $($message)*
                })*
            };
            if body.0.is_empty() || kind.may_be_longer() {
                Ok(message)
            } else {
                Err(Malformed("it is too long"))
            }
        }
    };
    (@has $payload:ident) => { true };
    (@has) => { false };
}

kinds! {
    1 Hello: [Message::Hello(hello)] { hello: Hello };
    2 Refused: [Message::Refused(refused)] { refused: Refused };
    3 Ping: [Message::Ping { n }] { n: u64 };
    4 Pong: [Message::Pong { n }] { n: u64 };
    5 States: [Message::States { pairs, last }] { pairs: Vec<PairState>, last: bool };
    6 Marks: [Message::Marks(marks)] { marks: Marks };
    7 Agreed: [Message::Agreed { pairs }] { pairs: Vec<PairId> };

    16 Write: [Message::Request { id, what: Request::Write { pair, track, within, data } }]
        { id: RequestNo, pair: PairId, track: TrackNo, within: u32 } payload data;
    17 Zeros: [Message::Request { id, what: Request::Zeros { pair, track, within, length } }]
        { id: RequestNo, pair: PairId, track: TrackNo, within: u32, length: u32 };
    18 Clear: [Message::Request { id, what: Request::Clear { pair, track, count } }]
        { id: RequestNo, pair: PairId, track: TrackNo, count: u32 };
    19 Fetch: [Message::Request { id, what: Request::Fetch { pair, track, within, length } }]
        { id: RequestNo, pair: PairId, track: TrackNo, within: u32, length: u32 };
    20 Flush: [Message::Request { id, what: Request::Flush { pairs } }] { id: RequestNo, pairs: Vec<PairId> };
    21 AskSums: [Message::Request { id, what: Request::Sums { pair, track } }]
        { id: RequestNo, pair: PairId, track: TrackNo };
    22 Echo: [Message::Request { id, what: Request::Echo { data } }] { id: RequestNo } payload data;
    23 Create: [Message::Request { id, what: Request::Create(half) }] { id: RequestNo, half: Box<CreateHalf> };
    24 Ready: [Message::Request { id, what: Request::Ready { pair } }] { id: RequestNo, pair: PairId };
    25 Destroy: [Message::Request { id, what: Request::Destroy { pair } }] { id: RequestNo, pair: PairId };
    26 Halt: [Message::Request { id, what: Request::Halt { pairs, halt } }]
        { id: RequestNo, pairs: Vec<PairId>, halt: Halt };
    27 Resume: [Message::Request { id, what: Request::Resume { pairs } }]
        { id: RequestNo, pairs: Vec<PairId> };
    28 SetMode: [Message::Request { id, what: Request::SetMode { pair, mode } }]
        { id: RequestNo, pair: PairId, mode: Mode };
    29 Release: [Message::Request { id, what: Request::Release { pairs } }]
        { id: RequestNo, pairs: Vec<PairId> };
    30 Complete: [Message::Request { id, what: Request::Complete { pair, lineage } }]
        { id: RequestNo, pair: PairId, lineage: Lineage };
    31 Begin: [Message::Request { id, what: Request::Begin { pair } }] { id: RequestNo, pair: PairId };
    32 Taken: [Message::Request { id, what: Request::Taken { pair } }] { id: RequestNo, pair: PairId };
    33 Yield: [Message::Request { id, what: Request::Yield { pair, lineage } }]
        { id: RequestNo, pair: PairId, lineage: Lineage };
    34 End: [Message::Request { id, what: Request::End { pair } }] { id: RequestNo, pair: PairId };
    35 Prepare: [Message::Request { id, what: Request::Prepare { request, pairs, name, online } }]
        { id: RequestNo, request: u64, pairs: Vec<PairId>, name: String, online: bool };
    36 Settle: [Message::Request { id, what: Request::Settle { decided, open } }]
        { id: RequestNo, decided: Vec<u64>, open: Vec<u64> };

    64 Done: [Message::Answer { id, result: Ok(Answer::Done) }] { id: RequestNo };
    65 Data: [Message::Answer { id, result: Ok(Answer::Data(data)) }] { id: RequestNo } payload data;
    66 AreZeros: [Message::Answer { id, result: Ok(Answer::Zeros) }] { id: RequestNo };
    67 Sums: [Message::Answer { id, result: Ok(Answer::Sums(sums)) }] { id: RequestNo, sums: Vec<u32> };
    68 Created: [Message::Answer { id, result: Ok(Answer::Created { made_device, lineage }) }]
        { id: RequestNo, made_device: bool, lineage: Lineage };
    69 Released: [Message::Answer { id, result: Ok(Answer::Released { pairs }) }]
        { id: RequestNo, pairs: Vec<(PairId, Lineage)> };
    70 Failed: [Message::Answer { id, result: Err(error) }] { id: RequestNo, error: PeerError };
    71 Prepared: [Message::Answer { id, result: Ok(Answer::Prepared { points }) }]
        { id: RequestNo, points: Vec<PreparedPoint> };

    96 Halted: [Message::Note(Note::Halted { pairs, halt })] { pairs: Vec<PairId>, halt: Halt };
    97 Leaving: [Message::Note(Note::Leaving)] {};
}

impl Kind {
    fn may_be_longer(self) -> bool {
        matches!(self, Self::Hello | Self::Refused)
    }
}
