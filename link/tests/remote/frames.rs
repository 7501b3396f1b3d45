//! Frames.

use bytes::{BufMut, Bytes, BytesMut};
use proptest::collection::vec;
use proptest::prelude::*;
use twintrack_core::{PairId, RegionNo, TrackNo};
use twintrack_link::remote::{
    Answer, Decoder, EncodeError, Encoder, FrameError, HEADER_BYTES, Hello, MARKS_MAX, MarkSet, Marks,
    Message, PAIRS_MAX, PAYLOAD_BYTES_MAX, PeerError, PeerErrorCode, REASON_BYTES_MAX, Request, RequestNo,
    STATES_MAX, VERSION,
};

use crate::messages::{hello, message};

const PAIR: PairId = PairId { serial: 7, number: 1 };

fn encoded(messages: &[Message]) -> Vec<u8> {
    let mut encoder = Encoder::new();
    let mut pieces = Vec::new();
    for message in messages {
        encoder.encode(message, &mut pieces).unwrap();
    }
    pieces.concat()
}

/// What is decoded of bytes that come in pieces of that size, and how it ended.
fn decoded(bytes: &[u8], step: usize) -> (Vec<Message>, Option<FrameError>) {
    let mut decoder = Decoder::new();
    let (mut input, mut messages) = (BytesMut::new(), Vec::new());
    for piece in bytes.chunks(step.max(1)) {
        input.extend_from_slice(piece);
        loop {
            match decoder.next(&mut input) {
                Ok(None) => break,
                Ok(Some(message)) => messages.push(message),
                Err(error) => {
                    assert_eq!(decoder.next(&mut input), Ok(None), "it goes on after an error");
                    return (messages, Some(error));
                }
            }
        }
        assert!(decoder.reserve_bytes(&input) <= input.len().max(256 << 10), "memory for nothing");
    }
    (messages, None)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_sent_comes_out_however_it_is_cut(
        messages in vec(message(), 1..6), step in 1..3000usize,
    ) {
        let bytes = encoded(&messages);
        prop_assert_eq!(decoded(&bytes, step), (messages.clone(), None));
        prop_assert_eq!(decoded(&bytes, usize::MAX), (messages, None));
    }

    #[test]
    fn what_is_cut_off_is_not_there(messages in vec(message(), 1..4), at in any::<prop::sample::Index>()) {
        let bytes = encoded(&messages);
        let (found, error) = decoded(&bytes[..at.index(bytes.len())], usize::MAX);
        prop_assert!(error.is_none());
        prop_assert!(found.len() < messages.len());
        prop_assert_eq!(&found[..], &messages[..found.len()]);
    }

    /// CRC32C finds every change of a few bits, so what was damaged is an error, and what came before it is whole.
    #[test]
    fn what_is_damaged_is_an_error(
        messages in vec(message(), 1..4), at in any::<prop::sample::Index>(), bits in 1..=255u8, step in 1..3000usize,
    ) {
        let mut bytes = encoded(&messages);
        let at = at.index(bytes.len());
        bytes[at] ^= bits;
        let (found, error) = decoded(&bytes, step);
        prop_assert!(error.is_some());
        prop_assert!(found.len() < messages.len());
        prop_assert_eq!(&found[..], &messages[..found.len()]);
    }

    /// With check sums that fit, any body is understood or refused, and what is understood can be sent again.
    #[test]
    fn a_body_of_anything(
        message in message(), kind in any::<Option<u8>>(), body in vec(any::<u8>(), 0..60),
        at in any::<prop::sample::Index>(), cut in any::<bool>(),
    ) {
        let mut encoder = Encoder::new();
        let mut pieces = Vec::new();
        encoder.encode(&message, &mut pieces).unwrap();
        let head = &pieces[0];
        let payload = pieces.get(1).cloned().unwrap_or_default();
        let mut changed = head[HEADER_BYTES..].to_vec();
        let at = at.index(changed.len() + 1);
        if cut {
            changed.truncate(at);
        }
        let end = (at + body.len()).min(changed.len());
        changed.splice(at.min(end)..end, body);
        let bytes = sealed(kind.unwrap_or(head[5]), 1, &changed, &payload);
        let (found, error) = decoded(&bytes, usize::MAX);
        prop_assert!(found.len() == 1 || error.is_some());
        if let [message] = &found[..] {
            let mut pieces = Vec::new();
            prop_assert_eq!(Encoder::new().encode(message, &mut pieces), Ok(()));
            let (again, error) = decoded(&pieces.concat(), usize::MAX);
            prop_assert_eq!((&again[..], error), (&found[..], None));
        }
    }

    #[test]
    fn a_hello_of_a_later_version_is_understood(hello in hello(), more in vec(any::<u8>(), 0..1024)) {
        let known = encoded(&[Message::Hello(hello.clone())]);
        let mut body = known[HEADER_BYTES..].to_vec();
        body.extend_from_slice(&more);
        prop_assert_eq!(decoded(&sealed(1, 1, &body, &[]), 7), (vec![Message::Hello(hello)], None));
    }
}

/// A frame with right check sums.
fn sealed(kind: u8, sequence: u64, body: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut bytes = header(kind, sequence, body.len() as u32, payload.len() as u32, {
        crc32c::crc32c_append(crc32c::crc32c(body), payload)
    });
    bytes.extend_from_slice(body);
    bytes.extend_from_slice(payload);
    bytes
}

fn header(kind: u8, sequence: u64, body_bytes: u32, payload_bytes: u32, content: u32) -> Vec<u8> {
    let mut bytes = b"twln\x01".to_vec();
    bytes.put_u8(kind);
    bytes.put_u16_le(0);
    bytes.put_u64_le(sequence);
    bytes.put_u32_le(body_bytes);
    bytes.put_u32_le(payload_bytes);
    bytes.put_u32_le(content);
    let sum = crc32c::crc32c(&bytes);
    bytes.put_u32_le(sum);
    bytes
}

#[test]
fn a_ping_byte_by_byte() {
    let bytes = encoded(&[Message::Ping { n: 0x0102 }]);
    assert_eq!(bytes, sealed(3, 1, &[2, 1, 0, 0, 0, 0, 0, 0], &[]));
    assert_eq!(bytes[..16], *b"twln\x01\x03\0\0\x01\0\0\0\0\0\0\0");
}

#[test]
fn frames_that_are_missing_doubled_or_of_another_connection() {
    let frame = |sequence| sealed(3, sequence, &[0; 8], &[]);
    let end = |frames: &[u64]| {
        let bytes: Vec<u8> = frames.iter().flat_map(|sequence| frame(*sequence)).collect();
        let (messages, error) = decoded(&bytes, 5);
        (messages.len(), error)
    };
    assert_eq!(end(&[1, 2, 3]), (3, None));
    assert_eq!(end(&[1, 3]), (1, Some(FrameError::Sequence { expected: 2, found: 3 })));
    assert_eq!(end(&[1, 2, 2]), (2, Some(FrameError::Sequence { expected: 3, found: 2 })));
    assert_eq!(end(&[17]), (0, Some(FrameError::Sequence { expected: 1, found: 17 })));
    assert_eq!(end(&[0]), (0, Some(FrameError::Sequence { expected: 1, found: 0 })));
}

#[test]
fn what_else_may_be_wrong_with_a_header() {
    let end = |bytes: &[u8]| decoded(bytes, usize::MAX).1;
    assert_eq!(end(b"GET "), Some(FrameError::Magic));
    assert_eq!(end(b"t"), None);
    assert_eq!(end(b"tx"), Some(FrameError::Magic));
    let mut other = header(3, 1, 8, 0, 0);
    other[4] = 2;
    assert_eq!(end(&other), Some(FrameError::Version { found: 2 }));
    assert_eq!(end(&header(200, 1, 0, 0, 0)), Some(FrameError::Kind { code: 200, flags: 0 }));
    // Lengths are refused before anything of them is waited for.
    let lengths = |kind, body_bytes, payload_bytes| {
        let error = end(&header(kind, 1, body_bytes, payload_bytes, 0));
        error == Some(FrameError::Lengths { code: kind, body_bytes, payload_bytes })
    };
    assert!(lengths(3, 9, 0));
    assert!(lengths(3, u32::MAX, 0));
    assert!(lengths(3, 8, 512));
    assert!(lengths(16, 36, 513));
    assert!(lengths(16, 36, PAYLOAD_BYTES_MAX + 512));
    assert!(!lengths(16, 28, PAYLOAD_BYTES_MAX));
}

/// The bounds of the kinds are those of the lists, and no more memory is asked for than a frame can have.
#[test]
fn the_largest_messages() {
    let pair = |number| PairId { serial: u64::MAX, number };
    let regions = (0..MARKS_MAX as u32).map(|n| (RegionNo(n), u64::MAX)).collect();
    let marks = Marks { pair: PAIR, set: MarkSet::Owed, from: Some(TrackNo(9)), regions, last: true };
    let flush = Request::Flush { pairs: (0..PAIRS_MAX as u32).map(pair).collect() };
    let echo = Request::Echo { data: vec![5; PAYLOAD_BYTES_MAX as usize].into() };
    let all = [
        Message::Marks(marks.clone()),
        Message::Request { id: RequestNo(1), what: flush },
        Message::Request { id: RequestNo(2), what: echo },
    ];
    assert_eq!(decoded(&encoded(&all), 4096), (all.to_vec(), None));

    let refuses = |message: Message| Encoder::new().encode(&message, &mut Vec::new()).unwrap_err();
    let pairs: Vec<_> = (0..=PAIRS_MAX as u32).map(pair).collect();
    let too_long = |what, length, max| EncodeError::TooLong { what, length, max };
    assert_eq!(refuses(Message::Agreed { pairs }), too_long("a list of pairs", PAIRS_MAX + 1, PAIRS_MAX));
    let name = "n".repeat(65);
    let hello = Hello { version: VERSION, serial: 1, boot: 1, track_bytes: 65536, name };
    assert_eq!(refuses(Message::Hello(hello)), too_long("a name", 65, 64));
    for bytes in [1, 513, PAYLOAD_BYTES_MAX as usize + 512] {
        let data = Bytes::from(vec![0; bytes]);
        let message = Message::Answer { id: RequestNo(1), result: Ok(Answer::Data(data)) };
        assert_eq!(refuses(message), EncodeError::Payload { bytes });
    }
    let mut unordered = marks;
    unordered.regions.swap(3, 4);
    assert_eq!(refuses(Message::Marks(unordered)), EncodeError::Marks);
    assert_eq!(STATES_MAX, 64);
}

/// A frame that cannot be made leaves no gap in the sequence.
#[test]
fn a_message_that_cannot_be_sent_costs_nothing() {
    let mut encoder = Encoder::new();
    let mut pieces = Vec::new();
    let odd = Message::Answer { id: RequestNo(1), result: Ok(Answer::Data(Bytes::from_static(b"odd"))) };
    encoder.encode(&odd, &mut pieces).unwrap_err();
    encoder.encode(&Message::Ping { n: 1 }, &mut pieces).unwrap();
    assert_eq!(decoded(&pieces.concat(), 1), (vec![Message::Ping { n: 1 }], None));
}

#[test]
fn a_long_reason_is_cut_between_characters() {
    let error = PeerError { code: PeerErrorCode::Io, reason: "ä".repeat(REASON_BYTES_MAX) };
    let message = Message::Answer { id: RequestNo(1), result: Err(error) };
    let (found, end) = decoded(&encoded(&[message]), usize::MAX);
    let [Message::Answer { result: Err(error), .. }] = &found[..] else { panic!("{found:?} {end:?}") };
    assert_eq!(error.reason, "ä".repeat(REASON_BYTES_MAX / 2));
}

/// Neither side copies a payload.
#[test]
fn payloads_are_not_copied() {
    let data = Bytes::from(vec![7; 4096]);
    let what = Request::Write { pair: PAIR, track: TrackNo(3), within: 512, data: data.clone() };
    let mut pieces = Vec::new();
    Encoder::new().encode(&Message::Request { id: RequestNo(1), what }, &mut pieces).unwrap();
    assert_eq!(pieces[1].as_ptr(), data.as_ptr());
    let mut input = BytesMut::from(&pieces.concat()[..]);
    let at = input[pieces[0].len()..].as_ptr();
    let Ok(Some(Message::Request { what: Request::Write { data, .. }, .. })) =
        Decoder::new().next(&mut input)
    else {
        panic!("no write");
    };
    assert_eq!(data.as_ptr(), at);
}

/// What is announced is not allocated.
#[test]
fn a_large_payload_gets_room_as_it_comes() {
    let bytes = encoded(&[Message::Request {
        id: RequestNo(1),
        what: Request::Echo { data: vec![1; PAYLOAD_BYTES_MAX as usize].into() },
    }]);
    let mut decoder = Decoder::new();
    let mut input = BytesMut::from(&bytes[..HEADER_BYTES]);
    assert_eq!((decoder.want(&BytesMut::new()), decoder.want(&input)), (HEADER_BYTES, 0));
    assert_eq!(decoder.next(&mut input), Ok(None));
    assert_eq!(decoder.want(&input), bytes.len() - HEADER_BYTES);
    assert_eq!(decoder.reserve_bytes(&input), 256 << 10);
    input.extend_from_slice(&bytes[HEADER_BYTES..600 << 10]);
    assert_eq!(decoder.next(&mut input), Ok(None));
    assert_eq!(decoder.reserve_bytes(&input), bytes.len() - (600 << 10));
}
