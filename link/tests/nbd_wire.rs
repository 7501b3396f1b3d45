//! NBD codecs: what is encoded comes back; any bytes at all do no harm; and every rule about requests.

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use twintrack_link::nbd::option::{GoRequest, Info, MetaContextRequest, OptionErrorKind, OptionReply};
use twintrack_link::nbd::*;

const SIZE: u64 = 1 << 30;

fn negotiated(structured: bool, read_only: bool) -> Negotiated {
    let mut info = ExportInfo::device(SIZE, read_only);
    if structured {
        info.flags = info.flags.with(TransmissionFlags::SEND_DF);
    }
    let context = |id, name: &str| Context { id, name: name.to_owned() };
    let contexts = vec![context(1, BASE_ALLOCATION), context(2, "qemu:dirty-bitmap:mon")];
    let contexts = if structured { contexts } else { Vec::new() };
    Negotiated { export: "db".to_owned(), info, structured, contexts }
}

fn decode_one(negotiated: &Negotiated, header: RequestHeader) -> Result<Option<Incoming>, TransmissionError> {
    RequestDecoder::new(negotiated).next(&mut BytesMut::from(&header.encode()[..]))
}

fn errno_of(flags: u16, kind: u16, offset: u64, length: u32) -> Option<Errno> {
    for payload in [0, length as usize] {
        let header = RequestHeader { flags, kind, cookie: Cookie(1), offset, length };
        let mut input = BytesMut::from(&header.encode()[..]);
        input.resize(28 + payload, 0);
        match RequestDecoder::new(&negotiated(true, false)).next(&mut input).unwrap() {
            Some(Incoming::Rejected { errno, .. }) => return Some(errno),
            Some(Incoming::Request { .. }) => return None,
            Some(Incoming::Disconnect) => panic!(),
            None => {}
        }
    }
    panic!("no answer");
}

#[test]
fn requests_that_are_none_get_their_error() {
    const END: u64 = SIZE;
    let cases = [
        // flags, type, offset, length, error
        (0, 0, 0, 512, None),
        (1, 0, 0, 512, None),
        (4, 0, 0, 512, None),
        (2, 0, 0, 512, Some(Errno::Invalid)),
        (0, 0, 0, 0, Some(Errno::Invalid)),
        (0, 0, 1, 512, Some(Errno::Invalid)),
        (0, 0, 0, 513, Some(Errno::Invalid)),
        (0, 0, END, 512, Some(Errno::Invalid)),
        (0, 0, u64::MAX - 511, 512, Some(Errno::Invalid)),
        (0, 0, 0, (32 << 20) + 512, Some(Errno::Overflow)),
        (0, 1, END - 512, 512, None),
        (1, 1, 0, 512, None),
        (4, 1, 0, 512, Some(Errno::Invalid)),
        (0, 1, 0, 0, Some(Errno::Invalid)),
        (0, 1, END - 512, 1024, Some(Errno::NoSpace)),
        (0, 1, 0, (32 << 20) + 512, Some(Errno::Invalid)),
        (0, 3, 0, 0, None),
        (1, 3, 0, 0, None),
        (0, 3, 0, 512, Some(Errno::Invalid)),
        (1, 4, 0, 64 << 20, None),
        (0, 4, END, 512, Some(Errno::Invalid)),
        (0, 5, 0, 512, Some(Errno::Invalid)),
        (3, 6, 0, 64 << 20, None),
        (16, 6, 0, 512, Some(Errno::Invalid)),
        (0, 6, END, 512, Some(Errno::NoSpace)),
        (8, 7, 0, 512, None),
        (0, 7, END, 512, Some(Errno::Invalid)),
        (0, 8, 0, 512, Some(Errno::Invalid)),
        (32, 0, 0, 512, Some(Errno::Invalid)),
    ];
    for (flags, kind, offset, length, errno) in cases {
        assert_eq!(errno_of(flags, kind, offset, length), errno, "{flags} {kind} {offset} {length}");
    }
}

#[test]
fn what_was_not_negotiated_is_refused() {
    let header = |flags, kind| RequestHeader { flags, kind, cookie: Cookie(1), offset: 0, length: 512 };
    let errno = |negotiated: &Negotiated, header| match decode_one(negotiated, header) {
        Ok(Some(Incoming::Rejected { errno, .. })) => Some(errno),
        _ => None,
    };
    let simple = negotiated(false, false);
    assert_eq!(errno(&simple, header(4, 0)), Some(Errno::Invalid), "DF");
    assert_eq!(errno(&simple, header(0, 7)), Some(Errno::Invalid), "BLOCK_STATUS");
    let long = RequestHeader { length: 64 << 20, ..header(0, 0) };
    assert_eq!(errno(&simple, long), Some(Errno::Invalid));
    let read_only = negotiated(true, true);
    assert_eq!(errno(&read_only, header(0, 4)), Some(Errno::Perm));
    assert_eq!(errno(&read_only, header(0, 6)), Some(Errno::Perm));
    assert_eq!(errno(&read_only, header(0, 0)), None);
    let mut fast = negotiated(true, false);
    fast.info.flags = fast.info.flags.with(TransmissionFlags::SEND_FAST_ZERO);
    assert_eq!(errno(&fast, header(16, 6)), None);
}

/// A write that is refused is read to its end, so that the next request is found; one that is far too long is not.
#[test]
fn refused_writes_are_drained() {
    let mut decoder = RequestDecoder::new(&negotiated(true, true));
    let mut input = BytesMut::new();
    let write = Request::Write { offset: 0, data: Bytes::from(vec![9; 1 << 20]), fua: false };
    let mut segments = Vec::new();
    write.encode(Cookie(1), &mut segments);
    let bytes = segments.concat();
    for part in bytes.chunks(1000) {
        input.extend_from_slice(part);
        let incoming = decoder.next(&mut input).unwrap();
        assert!(input.len() < 28, "a refused payload is not kept");
        if let Some(incoming) = incoming {
            assert!(matches!(incoming, Incoming::Rejected { errno: Errno::Perm, read: false, .. }));
        }
    }
    input.extend_from_slice(&Request::encode_disconnect());
    assert_eq!(decoder.next(&mut input), Ok(Some(Incoming::Disconnect)));
    input.extend_from_slice(&bytes);
    assert_eq!(decoder.next(&mut input), Ok(None), "after the end there is nothing");

    let length = DRAIN_BYTES_MAX + 512;
    let header = RequestHeader { flags: 0, kind: 1, cookie: Cookie(1), offset: 0, length };
    let max = DRAIN_BYTES_MAX;
    assert_eq!(
        decode_one(&negotiated(true, false), header),
        Err(TransmissionError::WriteTooLong { length, max })
    );
}

#[test]
fn memory_follows_what_has_arrived() {
    let mut decoder = RequestDecoder::new(&negotiated(true, false));
    let header = RequestHeader { flags: 0, kind: 1, cookie: Cookie(1), offset: 0, length: 32 << 20 };
    let mut input = BytesMut::from(&header.encode()[..]);
    assert_eq!(decoder.next(&mut input), Ok(None));
    assert_eq!(decoder.reserve_bytes(&input), 512 << 10);
    input.resize(1 << 20, 0);
    assert_eq!(decoder.reserve_bytes(&input), 1 << 20);
    input.resize((32 << 20) - 512, 0);
    assert_eq!(decoder.reserve_bytes(&input), 512);
}

#[test]
fn replies_that_answer_nothing_end_the_connection() {
    let read = Expected::Data { offset: 4096, length: 1024 };
    let decode = |structured: bool, expected: Option<Expected>, segments: &[Bytes]| {
        let mut input = BytesMut::from(&segments.concat()[..]);
        ReplyDecoder::new(&negotiated(structured, false)).next(&mut input, |_| expected)
    };
    let structured = ReplyEncoder::new(&negotiated(true, false));
    let simple = ReplyEncoder::new(&negotiated(false, false));
    let cookie = Cookie(9);
    let data = |encoder: &ReplyEncoder, offset, length: usize| {
        let mut out = Vec::new();
        encoder.data(cookie, offset, false, [Content::Data(Bytes::from(vec![1; length]))], &mut out);
        out
    };
    let hole = |offset, length| {
        let mut out = Vec::new();
        structured.data(cookie, offset, false, [Content::Zeros(length)], &mut out);
        out
    };
    assert!(decode(true, Some(read), &data(&structured, 4096, 1024)).is_ok());
    assert_eq!(
        decode(true, None, &data(&structured, 4096, 1024)),
        Err(TransmissionError::UnknownCookie { cookie })
    );
    assert_eq!(decode(true, Some(read), &data(&simple, 4096, 1024)), Err(TransmissionError::Form { cookie }));
    assert_eq!(
        decode(false, Some(read), &data(&structured, 4096, 1024)),
        Err(TransmissionError::Form { cookie })
    );
    for segments in [
        data(&structured, 4095, 1024),
        data(&structured, 4097, 1024),
        data(&structured, 4096, 1025),
        data(&structured, u64::MAX - 600, 512),
        hole(4096, 1025),
        hole(0, 512),
    ] {
        assert!(matches!(decode(true, Some(read), &segments), Err(TransmissionError::Chunk { .. })));
    }
    assert!(matches!(
        decode(true, Some(Expected::Done), &data(&structured, 4096, 512)),
        Err(TransmissionError::Chunk { .. })
    ));
}

fn text() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9._:-]{0,40}"
}

fn request() -> impl Strategy<Value = Request> {
    let range = (0..SIZE / 512 - 64, 1u32..64).prop_map(|(at, sectors)| (at * 512, sectors * 512));
    (range, any::<[bool; 3]>(), 0..6, any::<u8>()).prop_map(|((offset, length), [a, b, _], kind, fill)| {
        match kind {
            0 => Request::Read { offset, length, dont_fragment: a },
            1 => Request::Write { offset, data: Bytes::from(vec![fill; length as usize]), fua: a },
            2 => Request::Flush,
            3 => Request::Trim { offset, length, fua: a },
            4 => Request::WriteZeroes { offset, length, no_hole: a, fast: false, fua: b },
            _ => Request::BlockStatus { offset, length, one: a },
        }
    })
}

fn option_reply() -> impl Strategy<Value = OptionReply> {
    let kind = prop_oneof![
        Just(OptionErrorKind::Unsupported),
        Just(OptionErrorKind::TooBig),
        Just(OptionErrorKind::Shutdown),
        (100u32..1000).prop_map(OptionErrorKind::Other),
    ];
    prop_oneof![
        Just(OptionReply::Ack),
        (text(), text()).prop_map(|(name, description)| OptionReply::Server { name, description }),
        (any::<u32>(), text()).prop_map(|(id, name)| OptionReply::MetaContext { id, name }),
        (kind, text()).prop_map(|(kind, message)| OptionReply::Error { kind, message }),
        (any::<u64>(), any::<u16>()).prop_map(|(size_bytes, flags)| {
            OptionReply::Info(Info::Export { size_bytes, flags: TransmissionFlags(flags) })
        }),
        text().prop_map(|name| OptionReply::Info(Info::Name(name))),
        text().prop_map(|words| OptionReply::Info(Info::Description(words))),
        Just(OptionReply::Info(Info::BlockSizes(BlockSizes::DEVICE))),
    ]
}

proptest! {
    #[test]
    fn requests_come_back(requests in prop::collection::vec(request(), 1..8), step in 1usize..5000) {
        let mut segments = Vec::new();
        for (n, request) in requests.iter().enumerate() {
            request.clone().encode(Cookie(n as u64), &mut segments);
        }
        let mut decoder = RequestDecoder::new(&negotiated(true, false));
        let mut input = BytesMut::new();
        let mut found = Vec::new();
        for part in segments.concat().chunks(step) {
            input.extend_from_slice(part);
            while let Some(incoming) = decoder.next(&mut input).unwrap() {
                found.push(incoming);
            }
        }
        let expected: Vec<_> = requests.into_iter().enumerate()
            .map(|(n, request)| Incoming::Request { cookie: Cookie(n as u64), request }).collect();
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn headers_come_back(flags: u16, kind: u16, cookie: u64, offset: u64, length: u32) {
        let header = RequestHeader { flags, kind, cookie: Cookie(cookie), offset, length };
        prop_assert_eq!(RequestHeader::decode(header.encode()[..].try_into().unwrap()), Ok(header));
    }

    #[test]
    fn reads_come_back(
        pieces in prop::collection::vec((any::<bool>(), 1u32..300_000), 1..8),
        structured: bool,
        dont_fragment: bool,
    ) {
        let negotiated = negotiated(structured, false);
        let content: Vec<_> = pieces.iter().map(|&(zero, length)| {
            if zero { Content::Zeros(length) } else { Content::Data(Bytes::from(vec![7; length as usize])) }
        }).collect();
        let plain: Vec<u8> = pieces.iter()
            .flat_map(|&(zero, length)| std::iter::repeat_n(if zero { 0 } else { 7 }, length as usize)).collect();
        let (offset, length) = (512, plain.len() as u32);
        let mut segments = Vec::new();
        ReplyEncoder::new(&negotiated).data(Cookie(3), offset, dont_fragment, content, &mut segments);
        let mut input = BytesMut::from(&segments.concat()[..]);
        let mut decoder = ReplyDecoder::new(&negotiated);
        let mut assembly = ReadAssembly::new(offset, length);
        let mut chunks = 0;
        while let Some(reply) = decoder.next(&mut input, |_| Some(Expected::Data { offset, length })).unwrap() {
            prop_assert_eq!(reply.last, input.is_empty());
            assembly.add(reply.chunk).unwrap();
            chunks += 1;
        }
        prop_assert!(chunks == 1 || (structured && !dont_fragment));
        prop_assert_eq!(assembly.finish().unwrap(), plain);
    }

    #[test]
    fn status_and_errors_come_back(
        extents in prop::collection::vec((1u32.., any::<u32>()), 1..50),
        reason in text(),
        code in prop::sample::select(vec![1u32, 5, 12, 22, 28, 75, 95, 108]),
    ) {
        let negotiated = negotiated(true, false);
        let encoder = ReplyEncoder::new(&negotiated);
        let mut decoder = ReplyDecoder::new(&negotiated);
        let mut next = |segments: Vec<Bytes>, expected| {
            decoder.next(&mut BytesMut::from(&segments.concat()[..]), |_| Some(expected)).unwrap().unwrap()
        };
        let extents: Vec<_> = extents.into_iter()
            .map(|(length, status)| StatusExtent { length, status }).collect();
        let mut segments = Vec::new();
        encoder.status(Cookie(1), [(2, extents.clone()), (1, extents.clone())], &mut segments);
        let second = segments.split_off(2);
        for (context, segments, last) in [(2, segments, false), (1, second, true)] {
            let reply = next(segments, Expected::Status);
            let chunk = Chunk::Status { context, extents: extents.clone() };
            prop_assert_eq!(reply, Reply { cookie: Cookie(1), last, chunk });
        }

        let errno = Errno::from_code(code).unwrap();
        prop_assert_eq!(errno.code(), code);
        let mut segments = Vec::new();
        encoder.error(Cookie(1), errno, &reason, &mut segments);
        let chunk = next(segments, Expected::Done).chunk;
        prop_assert_eq!(chunk, Chunk::Error { errno, message: reason.clone(), offset: None });
        let mut segments = Vec::new();
        encoder.error_at(Cookie(1), errno, 77, &reason, &mut segments);
        let chunk = next(segments, Expected::Done).chunk;
        prop_assert_eq!(chunk, Chunk::Error { errno, message: reason, offset: Some(77) });
    }

    #[test]
    fn options_come_back(
        export in text(),
        infos in prop::collection::vec(any::<u16>(), 0..10),
        queries in prop::collection::vec(text(), 0..10),
        reply in option_reply(),
    ) {
        let go = GoRequest { export: export.clone(), infos };
        prop_assert_eq!(GoRequest::decode(&go.encode()), Ok(go));
        let contexts = MetaContextRequest { export, queries };
        prop_assert_eq!(MetaContextRequest::decode(&contexts.encode()), Ok(contexts));
        let mut out = BytesMut::new();
        reply.encode(7, &mut out);
        let kind = u32::from_be_bytes(out[12..16].try_into().unwrap());
        prop_assert_eq!(OptionReply::decode(kind, &out[20..]), Ok(Some(reply)));
    }

    /// Whatever arrives, in whatever pieces: no panic, and no more kept than what has arrived.
    #[test]
    fn any_bytes_do_no_harm(
        bytes in prop::collection::vec(any::<u8>(), 0..600),
        start in 0usize..6,
        kind in any::<u32>(),
        step in 1usize..50,
    ) {
        let _ = GoRequest::decode(&bytes);
        let _ = MetaContextRequest::decode(&bytes);
        for kind in [kind, kind % 16, (kind % 16) | (1 << 31)] {
            let _ = OptionReply::decode(kind, &bytes);
        }
        // Half of the runs begin with what the decoders look for, or they would not get far.
        let magic: &[u8] = match start {
            0 => b"\0\0\0\x03IHAVEOPT\0\0\0",
            1 => b"NBDMAGICIHAVEOPT\0\x03\0\x03\xe8\x89\x04\x55\x65\xa9\0\0\0\x08\0\0\0",
            2 => b"\x25\x60\x95\x13\0\0\0",
            3 => b"\x67\x44\x66\x98\0\0\0",
            4 => b"\x66\x8e\x33\xef\0\x01",
            _ => b"",
        };
        let bytes = [magic, &bytes[..]].concat();
        let greet = if step % 2 == 0 { ServerHandshake::over_tls } else { ServerHandshake::start };
        let mut server = greet(&mut BytesMut::new());
        let wish = ClientWish::Enter { export: "db".to_owned(), structured: true, contexts: vec![BASE_ALLOCATION.to_owned()] };
        let mut client = ClientHandshake::new(wish);
        let mut requests = RequestDecoder::new(&negotiated(true, false));
        let mut replies = ReplyDecoder::new(&negotiated(start % 2 == 0, false));
        let mut inputs: [BytesMut; 4] = Default::default();
        let mut failed = [false; 4];
        for part in bytes.chunks(step) {
            for (input, _) in inputs.iter_mut().zip(failed).filter(|(_, failed)| !failed) {
                input.extend_from_slice(part);
            }
            let mut output = BytesMut::new();
            for _ in 0..1000 {
                match server.feed(&mut inputs[0], &mut output) {
                    Ok(Some(ServerStep::Export(question))) => {
                        let answer = Err(ExportRefusal::Unknown);
                        failed[0] |= server.answer_export(question, answer, &mut output).is_err();
                    }
                    Ok(Some(ServerStep::Contexts(question))) => {
                        server.answer_contexts(question, Err(ExportRefusal::Unknown), &mut output);
                    }
                    Ok(Some(ServerStep::List)) => server.answer_list(["db"], &mut output),
                    Ok(Some(ServerStep::Aborted | ServerStep::StartTls)) => failed[0] = true,
                    Ok(None) => break,
                    Err(_) => { failed[0] = true; break; }
                }
            }
            failed[1] |= client.feed(&mut inputs[1], &mut output).map_or(true, |end| end.is_some());
            loop {
                match requests.next(&mut inputs[2]) {
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(_) => { failed[2] = true; break; }
                }
            }
            let mut assembly = ReadAssembly::new(0, 4096);
            loop {
                let expected = if start % 2 == 0 { Expected::Data { offset: 0, length: 4096 } } else { Expected::Status };
                match replies.next(&mut inputs[3], |_| Some(expected)) {
                    Ok(Some(reply)) => { let _ = assembly.add(reply.chunk); }
                    Ok(None) => break,
                    Err(_) => { failed[3] = true; break; }
                }
            }
            let _ = assembly.finish();
            prop_assert!(output.len() <= 64 << 10);
            prop_assert!(inputs.iter().all(|input| input.len() <= bytes.len()));
        }
    }
}
