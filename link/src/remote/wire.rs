//! The pieces of a body: how numbers, names, lists and the types of `core` look as bytes. All numbers are
//! little-endian; what can be absent begins with a byte 0 or 1, what can vary in length with its length.

use thiserror::Error;
use twintrack_core::remote::{ANCESTORS_MAX, Half, Halt, Lineage, Mode, Policy, Role, Stage};
use twintrack_core::{PairGeneration, PairId, RegionNo, TrackNo};

use super::message::{
    CreateDevice, CreateHalf, Hello, LinkRefusal, MARKS_MAX, MarkSet, Marks, NAME_BYTES_MAX, PAIRS_MAX,
    POINTS_MAX, PairState, PeerError, PeerErrorCode, PreparedPoint, REASON_BYTES_MAX, Refused, RequestNo,
    SETTLED_MAX, STATES_MAX, SUMS_MAX,
};

/// Something that a message cannot carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum EncodeError {
    /// A name or list is too long.
    #[error("{what} has {length} of at most {max}")]
    TooLong {
        /// What it is.
        what: &'static str,
        /// Bytes of a name, items of a list.
        length: usize,
        /// The limit.
        max: usize,
    },
    /// A payload is too long, or no multiple of 512.
    #[error("a payload of {bytes} bytes is not possible")]
    Payload {
        /// Bytes.
        bytes: usize,
    },
    /// Marks are out of order, or a region without any.
    #[error("marks are not in order")]
    Marks,
}

/// What is wrong with a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed(pub(super) &'static str);

/// What is left of a body.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    fn bytes(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (bytes, rest) = self.0.split_at_checked(length).ok_or(Malformed("it is too short"))?;
        self.0 = rest;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (bytes, rest) = self.0.split_first_chunk().ok_or(Malformed("it is too short"))?;
        self.0 = rest;
        Ok(*bytes)
    }
}

/// A piece of a body.
pub(super) trait Field: Sized {
    /// The most bytes that it takes.
    const BYTES_MAX: usize;
    fn put(&self, out: &mut Vec<u8>) -> Result<(), EncodeError>;
    fn get(from: &mut Reader<'_>) -> Result<Self, Malformed>;
}

/// What there are lists of, in messages.
trait Item: Field {
    /// The most of one list.
    const LIST_MAX: usize;
    /// What such a list is called.
    const LIST: &'static str;
}

macro_rules! numbers {
    ($($type:ty),*) => {$(
        impl Field for $type {
            const BYTES_MAX: usize = size_of::<$type>();

            fn put(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
                out.extend_from_slice(&self.to_le_bytes());
                Ok(())
            }

            fn get(from: &mut Reader<'_>) -> Result<Self, Malformed> {
                Ok(Self::from_le_bytes(from.array()?))
            }
        }
    )*};
}

numbers!(u8, u16, u32, u64);

macro_rules! numbered {
    ($($type:ident($inner:ty)),*) => {$(
        impl Field for $type {
            const BYTES_MAX: usize = <$inner>::BYTES_MAX;

            fn put(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
                self.0.put(out)
            }

            fn get(from: &mut Reader<'_>) -> Result<Self, Malformed> {
                <$inner>::get(from).map($type)
            }
        }
    )*};
}

numbered!(RequestNo(u64), TrackNo(u32), RegionNo(u32));

macro_rules! records {
    ($($type:ident { $($field:ident: $of:ty),* })*) => {$(
        impl Field for $type {
            const BYTES_MAX: usize = 0 $(+ <$of>::BYTES_MAX)*;

            fn put(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
                $(self.$field.put(out)?;)*
                Ok(())
            }

            fn get(from: &mut Reader<'_>) -> Result<Self, Malformed> {
                Ok($type { $($field: <$of>::get(from)?),* })
            }
        }
    )*};
}

records! {
    PairId { serial: u64, number: u32 }
    PairGeneration { serial: u64, number: u32 }
    Hello { version: u16, serial: u64, boot: u32, track_bytes: u32, name: String }
    PairState {
        pair: PairId, half: Half, stage: Stage, role: Role, forced: bool, mode: Mode, policy: Policy,
        halt: Option<Halt>, complete: bool, lineage: Lineage, shared: Option<PairGeneration>, peer_boot: u32,
        size_bytes: u64, owed_tracks: u32
    }
    CreateHalf {
        pair: PairId, request: u64, half: Half, device: String, peer_device: String,
        create: Option<CreateDevice>, size_bytes: u64, from: Half, mode: Mode, policy: Policy, group: String,
        lineage: Lineage
    }
    CreateDevice { pool: Option<String> }
    PreparedPoint { session: u32, shown_by: String }
}

macro_rules! codes {
    ($($type:ident { $($code:literal $variant:ident),* })*) => {$(
        impl Field for $type {
            const BYTES_MAX: usize = 1;

            fn put(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
                out.push(match self { $(Self::$variant => $code),* });
                Ok(())
            }

            fn get(from: &mut Reader<'_>) -> Result<Self, Malformed> {
                match u8::get(from)? {
                    $($code => Ok(Self::$variant),)*
                    _ => Err(Malformed(concat!("it has an unknown ", stringify!($type)))),
                }
            }
        }
    )*};
}

codes! {
    Half { 1 R1, 2 R2 }
    Stage { 1 Creating, 2 Ready, 3 Undoing, 4 Ended }
    Role { 1 Owner, 2 Standby, 3 Released }
    Mode { 1 Synchronous, 2 Adaptive, 3 Asynchronous }
    Policy { 1 Continue, 2 Freeze }
    Halt { 1 Operator, 2 Link, 3 Peer, 4 Space, 5 Split, 6 Frozen, 7 Diverged }
    MarkSet { 1 Dirty, 2 Owed, 3 Lacked }
    LinkRefusal { 1 Version, 2 UnknownArray, 3 WrongSerial, 4 SelfLink, 5 TrackSize, 6 Busy }
    PeerErrorCode {
        1 NotFound, 2 Exists, 3 WrongState, 4 Limit, 5 Invalid, 6 NoSpace, 7 Io, 8 Unavailable
    }
}

impl Field for bool {
    const BYTES_MAX: usize = 1;

    fn put(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        u8::from(*self).put(out)
    }

    fn get(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        match u8::get(from)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed("it has a flag that is neither 0 nor 1")),
        }
    }
}

impl<T: Field> Field for Option<T> {
    const BYTES_MAX: usize = 1 + T::BYTES_MAX;

    fn put(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        self.is_some().put(out)?;
        self.as_ref().map_or(Ok(()), |value| value.put(out))
    }

    fn get(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(if bool::get(from)? { Some(T::get(from)?) } else { None })
    }
}

impl<T: Field> Field for Box<T> {
    const BYTES_MAX: usize = T::BYTES_MAX;

    fn put(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        T::put(self, out)
    }

    fn get(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        T::get(from).map(Self::new)
    }
}

impl<A: Field, B: Field> Field for (A, B) {
    const BYTES_MAX: usize = A::BYTES_MAX + B::BYTES_MAX;

    fn put(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        self.0.put(out)?;
        self.1.put(out)
    }

    fn get(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok((A::get(from)?, B::get(from)?))
    }
}

impl<T: Item> Field for Vec<T> {
    const BYTES_MAX: usize = 4 + T::LIST_MAX * T::BYTES_MAX;

    fn put(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        put_list(self, out)
    }

    fn get(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let length = u32::get(from)? as usize;
        // Each takes a byte at least, so that no more is allocated than in proportion to what has come.
        if length > T::LIST_MAX.min(from.0.len()) {
            return Err(Malformed("it has a list that is too long"));
        }
        let mut list = Self::with_capacity(length);
        for _ in 0..length {
            list.push(T::get(from)?);
        }
        Ok(list)
    }
}

fn put_list<T: Item>(list: &[T], out: &mut Vec<u8>) -> Result<(), EncodeError> {
    if list.len() > T::LIST_MAX {
        return Err(EncodeError::TooLong { what: T::LIST, length: list.len(), max: T::LIST_MAX });
    }
    (list.len() as u32).put(out)?;
    list.iter().try_for_each(|item| item.put(out))
}

macro_rules! items {
    ($($type:ty: $max:expr, $what:literal;)*) => {$(
        impl Item for $type {
            const LIST_MAX: usize = $max;
            const LIST: &'static str = $what;
        }
    )*};
}

items! {
    PairId: PAIRS_MAX, "a list of pairs";
    PairState: STATES_MAX, "a list of states of pairs";
    PairGeneration: ANCESTORS_MAX, "a lineage";
    (PairId, Lineage): PAIRS_MAX, "a list of lineages";
    (RegionNo, u64): MARKS_MAX, "a list of marks";
    u32: SUMS_MAX, "a list of check sums";
    u64: SETTLED_MAX, "a list of requests";
    PreparedPoint: POINTS_MAX, "a point in time";
}

/// A name.
impl Field for String {
    const BYTES_MAX: usize = 2 + NAME_BYTES_MAX;

    fn put(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        if self.len() > NAME_BYTES_MAX {
            return Err(EncodeError::TooLong { what: "a name", length: self.len(), max: NAME_BYTES_MAX });
        }
        put_text(self, out)
    }

    fn get(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        take_text(from, NAME_BYTES_MAX)
    }
}

/// A reason, cut to what can be sent.
fn put_reason(reason: &str, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    put_text(&reason[..reason.floor_char_boundary(REASON_BYTES_MAX)], out)
}

fn put_text(text: &str, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    (text.len() as u16).put(out)?;
    out.extend_from_slice(text.as_bytes());
    Ok(())
}

fn take_text(from: &mut Reader<'_>, max: usize) -> Result<String, Malformed> {
    let length = usize::from(u16::get(from)?);
    if length > max {
        return Err(Malformed("it has a text that is too long"));
    }
    let text =
        str::from_utf8(from.bytes(length)?).map_err(|_| Malformed("it has a text that is no UTF-8"))?;
    Ok(text.to_owned())
}

impl Field for Refused {
    const BYTES_MAX: usize = u64::BYTES_MAX + LinkRefusal::BYTES_MAX + 2 + REASON_BYTES_MAX;

    fn put(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        self.serial.put(out)?;
        self.code.put(out)?;
        put_reason(&self.reason, out)
    }

    fn get(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let (serial, code) = (u64::get(from)?, LinkRefusal::get(from)?);
        Ok(Self { serial, code, reason: take_text(from, REASON_BYTES_MAX)? })
    }
}

impl Field for PeerError {
    const BYTES_MAX: usize = PeerErrorCode::BYTES_MAX + 2 + REASON_BYTES_MAX;

    fn put(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        self.code.put(out)?;
        put_reason(&self.reason, out)
    }

    fn get(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let code = PeerErrorCode::get(from)?;
        Ok(Self { code, reason: take_text(from, REASON_BYTES_MAX)? })
    }
}

impl Field for Marks {
    const BYTES_MAX: usize = PairId::BYTES_MAX
        + MarkSet::BYTES_MAX
        + Option::<TrackNo>::BYTES_MAX
        + Vec::<(RegionNo, u64)>::BYTES_MAX
        + bool::BYTES_MAX;

    fn put(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        if !self.is_in_order() {
            return Err(EncodeError::Marks);
        }
        self.pair.put(out)?;
        self.set.put(out)?;
        self.from.put(out)?;
        self.regions.put(out)?;
        self.last.put(out)
    }

    fn get(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let marks = Self {
            pair: PairId::get(from)?,
            set: MarkSet::get(from)?,
            from: Option::get(from)?,
            regions: Vec::get(from)?,
            last: bool::get(from)?,
        };
        if marks.is_in_order() { Ok(marks) } else { Err(Malformed("its marks are not in order")) }
    }
}

impl Marks {
    fn is_in_order(&self) -> bool {
        self.regions.is_sorted_by(|(a, _), (b, _)| a < b)
            && self.regions.iter().all(|(_, tracks)| *tracks != 0)
    }
}

/// The present one, then its ancestors.
impl Field for Lineage {
    const BYTES_MAX: usize = PairGeneration::BYTES_MAX + Vec::<PairGeneration>::BYTES_MAX;

    fn put(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        self.current().put(out)?;
        put_list(self.ancestors(), out)
    }

    fn get(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let (current, ancestors) = (PairGeneration::get(from)?, Vec::get(from)?);
        Self::from_parts(current, ancestors).ok_or(Malformed("it has a lineage that cannot be"))
    }
}
