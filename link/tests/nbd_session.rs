//! Scripted sessions between the two NBD machines, in memory, and what clients and servers do wrongly.

use bytes::{BufMut, Bytes, BytesMut};
use twintrack_link::nbd::option::{self, GoRequest, Info, MetaContextRequest, OptionErrorKind, OptionReply};
use twintrack_link::nbd::*;

const MIB: u64 = 1 << 20;

/// The contexts of its exports: one more than a connection may have.
const BITMAPS: [&str; 9] = [
    BASE_ALLOCATION,
    "qemu:dirty-bitmap:a",
    "qemu:dirty-bitmap:b",
    "qemu:dirty-bitmap:c",
    "qemu:dirty-bitmap:d",
    "qemu:dirty-bitmap:e",
    "qemu:dirty-bitmap:f",
    "qemu:dirty-bitmap:g",
    "x-twintrack:diff/4/now",
];

/// A server with the exports `db` (8 MiB), `ro` (read-only) and `off` (not ready).
struct Server {
    machine: ServerHandshake,
    input: BytesMut,
    output: BytesMut,
}

#[derive(Debug, PartialEq)]
enum Outcome {
    More,
    Entered(Negotiated),
    Aborted,
    StartTls,
    Failed(HandshakeError),
}

impl Server {
    fn new() -> Self {
        let mut output = BytesMut::new();
        Self { machine: ServerHandshake::start(&mut output), input: BytesMut::new(), output }
    }

    /// One that serves nothing without TLS.
    fn over_tls() -> Self {
        let mut output = BytesMut::new();
        Self { machine: ServerHandshake::over_tls(&mut output), input: BytesMut::new(), output }
    }

    /// One that has seen the client flags, with its greeting taken away.
    fn greeted() -> Self {
        Self::new().greet()
    }

    fn greet(self) -> Self {
        let mut server = self;
        server.output.clear();
        assert_eq!(server.take(&3u32.to_be_bytes()), Outcome::More);
        server
    }

    fn take(&mut self, bytes: &[u8]) -> Outcome {
        self.input.extend_from_slice(bytes);
        loop {
            match self.machine.feed(&mut self.input, &mut self.output) {
                Err(error) => return Outcome::Failed(error),
                Ok(None) => return Outcome::More,
                Ok(Some(ServerStep::Aborted)) => return Outcome::Aborted,
                Ok(Some(ServerStep::StartTls)) => return Outcome::StartTls,
                Ok(Some(ServerStep::List)) => {
                    self.machine.answer_list(["db", "off", "ro"], &mut self.output);
                }
                Ok(Some(ServerStep::Contexts(question))) => {
                    let asked = BITMAPS.into_iter().filter(|name| question.asks_for(name));
                    let answer = export(&question.export).map(|_| asked.map(str::to_owned).collect());
                    self.machine.answer_contexts(question, answer, &mut self.output);
                }
                Ok(Some(ServerStep::Export(question))) => {
                    let answer = export(&question.name);
                    match self.machine.answer_export(question, answer, &mut self.output) {
                        Ok(None) => {}
                        Ok(Some(negotiated)) => return Outcome::Entered(negotiated),
                        Err(error) => return Outcome::Failed(error),
                    }
                }
            }
        }
    }

    fn option(&mut self, option: u32, data: &[u8]) -> Outcome {
        let mut bytes = BytesMut::new();
        option::encode(option, data, &mut bytes);
        self.take(&bytes)
    }

    /// All replies since the last call, with the options that they answer.
    fn replies(&mut self) -> Vec<(u32, OptionReply)> {
        let mut rest = self.output.split().freeze();
        let mut replies = Vec::new();
        while !rest.is_empty() {
            let header = rest.split_to(20);
            assert_eq!(header[..8], 0x0003_e889_0455_65a9_u64.to_be_bytes());
            let number = |at: usize| u32::from_be_bytes(header[at..at + 4].try_into().unwrap());
            let data = rest.split_to(number(16) as usize);
            replies.push((number(8), OptionReply::decode(number(12), &data).unwrap().unwrap()));
        }
        replies
    }

    /// The only reply since the last call, an error.
    fn error(&mut self) -> OptionErrorKind {
        match self.replies().as_slice() {
            [(_, OptionReply::Error { kind, message })] if !message.is_empty() => *kind,
            other => panic!("{other:?}"),
        }
    }
}

fn export(name: &str) -> Result<ExportInfo, ExportRefusal> {
    match name {
        "db" => Ok(ExportInfo::device(8 * MIB, false)),
        "ro" => Ok(ExportInfo::device(MIB, true)),
        "off" => Err(ExportRefusal::NotReady),
        _ => Err(ExportRefusal::Unknown),
    }
}

fn go(export: &str) -> BytesMut {
    GoRequest { export: export.to_owned(), infos: vec![option::INFO_BLOCK_SIZE, 77] }.encode()
}

fn contexts(export: &str, queries: &[&str]) -> BytesMut {
    let queries = queries.iter().map(|&query| query.to_owned()).collect();
    MetaContextRequest { export: export.to_owned(), queries }.encode()
}

/// Runs a client against a server until one of them ends; moves `step` bytes at a time.
fn run(wish: ClientWish, step: usize) -> (Result<HandshakeEnd, HandshakeError>, Outcome) {
    let mut client = ClientHandshake::new(wish);
    let mut server = Server::new();
    let (mut input, mut output) = (BytesMut::new(), BytesMut::new());
    let mut served = Outcome::More;
    for _ in 0..100_000 {
        let now = server.output.len().min(step);
        input.extend_from_slice(&server.output.split_to(now));
        let end = client.feed(&mut input, &mut output);
        if matches!(end, Ok(None)) {
            let now = output.len().min(step);
            if served == Outcome::More {
                served = server.take(&output.split_to(now));
            }
            continue;
        }
        if served == Outcome::More {
            served = server.take(&output.split());
        }
        assert!(input.is_empty());
        return (end.map(Option::unwrap), served);
    }
    panic!("stuck");
}

fn enter(export: &str, structured: bool, allocation: bool) -> ClientWish {
    let contexts = if allocation { vec![BASE_ALLOCATION.to_owned()] } else { Vec::new() };
    ClientWish::Enter { export: export.to_owned(), structured, contexts }
}

#[test]
fn both_sides_agree_on_what_was_negotiated() {
    for step in [1, 7, 1000] {
        for (structured, allocation) in [(true, true), (true, false), (false, false), (false, true)] {
            let (client, server) = run(enter("db", structured, allocation), step);
            let Ok(HandshakeEnd::Entered(client)) = client else { panic!("{client:?}") };
            assert_eq!(Outcome::Entered(client.clone()), server);
            assert_eq!(client.export, "db");
            assert_eq!(client.info.size_bytes, 8 * MIB);
            assert_eq!(client.info.sizes, BlockSizes::DEVICE);
            assert_eq!(client.structured, structured);
            assert_eq!(client.allocation().is_some(), structured && allocation);
            assert_eq!(client.info.flags.contains(TransmissionFlags::SEND_DF), structured);
            assert!(client.info.flags.contains(TransmissionFlags::CAN_MULTI_CONN));
            assert!(!client.info.flags.contains(TransmissionFlags::READ_ONLY));
        }
    }
}

#[test]
fn exports_are_listed_and_described() {
    let (client, server) = run(ClientWish::List, 5);
    let Ok(HandshakeEnd::Listed(exports)) = client else { panic!("{client:?}") };
    assert_eq!(exports.iter().map(|e| e.name.as_str()).collect::<Vec<_>>(), ["db", "off", "ro"]);
    assert_eq!(server, Outcome::Aborted);

    let (client, server) = run(ClientWish::Describe { export: "ro".to_owned() }, 1000);
    let Ok(HandshakeEnd::Described(info)) = client else { panic!("{client:?}") };
    assert_eq!(info, ExportInfo::device(MIB, true));
    assert_eq!(server, Outcome::Aborted);
}

#[test]
fn a_refused_client_learns_why_and_says_goodbye() {
    for (export, expected) in [("nope", OptionErrorKind::Unknown), ("off", OptionErrorKind::Policy)] {
        let (client, server) = run(enter(export, true, true), 1000);
        let Err(HandshakeError::Refused { option: option::GO, kind, message }) = client else {
            panic!("{client:?}")
        };
        assert_eq!(kind, expected);
        assert!(message.contains(export), "{message}");
        assert_eq!(server, Outcome::Aborted);
    }
}

#[test]
fn the_greeting_is_fixed_newstyle() {
    let server = Server::new();
    assert_eq!(server.output, &b"NBDMAGICIHAVEOPT\0\x03"[..]);
    let mut server = Server::new();
    assert_eq!(
        server.take(&[0, 0, 0, 4]),
        Outcome::Failed(HandshakeError::ClientFlags { flags: 4 }),
        "a flag that nobody offered"
    );
}

#[test]
fn export_name_has_no_reply_header_and_no_error() {
    for (flags, zeroes) in [(1u32, 124), (3, 0), (0, 124)] {
        let mut server = Server::new();
        server.output.clear();
        server.take(&flags.to_be_bytes());
        let Outcome::Entered(negotiated) = server.option(option::EXPORT_NAME, b"db") else { panic!() };
        let mut expected = BytesMut::new();
        expected.put_u64(8 * MIB);
        expected.put_u16(negotiated.info.flags.0);
        expected.put_bytes(0, zeroes);
        assert_eq!(server.output, expected);
        assert!(!negotiated.structured);
    }
    let failed = Server::greeted().option(option::EXPORT_NAME, b"nope");
    let refusal = ExportRefusal::Unknown;
    assert_eq!(failed, Outcome::Failed(HandshakeError::Export { name: "nope".to_owned(), refusal }));
    for name in [&[b'a'; 4097][..], b"a\0", b"\xff"] {
        let failed = Server::greeted().option(option::EXPORT_NAME, name);
        assert_eq!(failed, Outcome::Failed(HandshakeError::ExportName { max: 4096 }));
    }
}

#[test]
fn a_client_falls_back_to_export_name() {
    let mut client = ClientHandshake::new(enter("old", true, true));
    let (mut input, mut output) = (BytesMut::from(&b"NBDMAGICIHAVEOPT\0\x01"[..]), BytesMut::new());
    let unsupported = OptionReply::Error { kind: OptionErrorKind::Unsupported, message: String::new() };
    assert_eq!(client.feed(&mut input, &mut output), Ok(None));
    unsupported.encode(option::STRUCTURED_REPLY, &mut input);
    assert_eq!(client.feed(&mut input, &mut output), Ok(None));
    unsupported.encode(option::GO, &mut input);
    output.clear();
    assert_eq!(client.feed(&mut input, &mut output), Ok(None));
    assert_eq!(output, &b"IHAVEOPT\0\0\0\x01\0\0\0\x03old"[..]);
    input.put_u64(4096);
    input.put_u16(TransmissionFlags::HAS_FLAGS.0);
    input.put_bytes(0, 123);
    assert_eq!(client.feed(&mut input, &mut output), Ok(None));
    input.put_slice(&[0, b'x']);
    let Ok(Some(HandshakeEnd::Entered(negotiated))) = client.feed(&mut input, &mut output) else { panic!() };
    assert_eq!(negotiated.info.size_bytes, 4096);
    assert_eq!(negotiated.info.sizes, BlockSizes::UNTOLD);
    assert_eq!(input, &b"x"[..], "what follows belongs to the transmission");
}

#[test]
fn what_clients_do_wrongly_gets_the_protocols_error_and_harms_nobody() {
    let mut server = Server::greeted();
    server.option(99, b"something new");
    assert_eq!(server.error(), OptionErrorKind::Unsupported);
    server.option(option::EXTENDED_HEADERS, b"");
    assert_eq!(server.error(), OptionErrorKind::Unsupported);
    server.option(option::STARTTLS, b"");
    assert_eq!(server.error(), OptionErrorKind::Unsupported);
    for option in [option::STARTTLS, option::LIST, option::STRUCTURED_REPLY] {
        server.option(option, b"x");
        assert_eq!(server.error(), OptionErrorKind::Invalid);
    }
    for option in [option::GO, option::INFO] {
        for data in [&b""[..], b"\0\0\0\x09db\0\0", b"\0\0\0\x02db\0\x05\0\0"] {
            server.option(option, data);
            assert_eq!(server.error(), OptionErrorKind::Invalid);
        }
    }
    server.option(option::SET_META_CONTEXT, &contexts("db", &["base:allocation"]));
    assert_eq!(server.error(), OptionErrorKind::Invalid, "before structured replies");

    // 4 GiB of an option flow through without being kept.
    let mut header = BytesMut::new();
    header.put_slice(b"IHAVEOPT");
    header.put_u32(option::GO);
    header.put_u32(OPTION_BYTES_MAX + 1);
    server.take(&header);
    for _ in 0..OPTION_BYTES_MAX / 1024 {
        assert_eq!(server.take(&[0; 1024]), Outcome::More);
        assert!(server.input.is_empty() && server.output.is_empty());
    }
    server.take(b"x");
    assert_eq!(server.error(), OptionErrorKind::TooBig);

    // After all that the connection is as good as new.
    assert!(matches!(server.option(option::GO, &go("db")), Outcome::Entered(_)));
}

#[test]
fn the_connection_ends_where_nothing_else_helps() {
    let failed = Server::greeted().take(b"IHAVEOPX\0\0\0\x02\0\0\0\0");
    assert!(matches!(failed, Outcome::Failed(HandshakeError::Magic { .. })));

    let mut server = Server::greeted();
    for _ in 0..OPTIONS_MAX {
        assert_eq!(server.option(99, b""), Outcome::More);
        server.output.clear();
    }
    assert_eq!(server.option(99, b""), Outcome::Failed(HandshakeError::TooManyOptions { max: OPTIONS_MAX }));
    assert_eq!(Server::greeted().option(option::ABORT, b"data are ignored"), Outcome::Aborted);
}

#[test]
fn metadata_contexts() {
    let mut server = Server::greeted();
    server.option(option::STRUCTURED_REPLY, b"");
    assert_eq!(server.replies(), [(option::STRUCTURED_REPLY, OptionReply::Ack)]);
    let told = |option, id, name: &str| (option, OptionReply::MetaContext { id, name: name.to_owned() });
    let ack = |option| (option, OptionReply::Ack);
    for (queries, found) in [
        (&[][..], &BITMAPS[..]),
        (&["base:"], &BITMAPS[..1]),
        (&["x-y:", "base:allocation"], &BITMAPS[..1]),
        (&["qemu:"], &BITMAPS[1..8]),
        (&["x-twintrack:diff/", "qemu:dirty-bitmap:g"], &BITMAPS[7..]),
        (&["x-y:z"], &[]),
    ] {
        server.option(option::LIST_META_CONTEXT, &contexts("db", queries));
        let mut expected: Vec<_> =
            found.iter().map(|name| told(option::LIST_META_CONTEXT, 0, name)).collect();
        expected.push(ack(option::LIST_META_CONTEXT));
        assert_eq!(server.replies(), expected, "{queries:?}");
    }
    server.option(option::SET_META_CONTEXT, &contexts("nope", &["base:allocation"]));
    assert_eq!(server.error(), OptionErrorKind::Unknown);
    for garbage in ["base", "x-twintrack:diff/4", "x-twintrack:diff//now"] {
        for option in [option::SET_META_CONTEXT, option::LIST_META_CONTEXT] {
            server.option(option, &contexts("db", &["base:allocation", garbage]));
            assert_eq!(server.error(), OptionErrorKind::Invalid, "{garbage}");
        }
    }
    for queries in [&["base:"][..], &["base:nothing", "qemu:dirty-bitmap:x"], &[]] {
        server.option(option::SET_META_CONTEXT, &contexts("db", queries));
        assert_eq!(server.replies(), [ack(option::SET_META_CONTEXT)], "{queries:?}");
    }
    server.option(option::SET_META_CONTEXT, &contexts("db", &BITMAPS));
    assert_eq!(server.error(), OptionErrorKind::TooBig);
    server.option(option::SET_META_CONTEXT, &contexts("db", &["qemu:dirty-bitmap:b", BASE_ALLOCATION]));
    let told = |id, name| told(option::SET_META_CONTEXT, id, name);
    let selected = [told(1, BASE_ALLOCATION), told(2, "qemu:dirty-bitmap:b"), ack(option::SET_META_CONTEXT)];
    assert_eq!(server.replies(), selected);
}

/// A selection counts for the export that it named, and is gone once another was tried, even in vain.
#[test]
fn a_selection_is_for_one_export() {
    let select = |server: &mut Server, export| {
        server.option(option::SET_META_CONTEXT, &contexts(export, &["base:allocation"]))
    };
    for (last, export, selected) in
        [("db", "db", true), ("db", "ro", false), ("nope", "db", false), ("ro", "ro", true)]
    {
        let mut server = Server::greeted();
        server.option(option::STRUCTURED_REPLY, b"");
        select(&mut server, "db");
        select(&mut server, last);
        let Outcome::Entered(negotiated) = server.option(option::GO, &go(export)) else { panic!() };
        assert_eq!(negotiated.allocation().is_some(), selected, "{last} then {export}");
    }
}

#[test]
fn everything_is_told_about_an_export() {
    let mut server = Server::greeted();
    server.option(option::INFO, &go("ro"));
    let flags = TransmissionFlags::DEVICE.with(TransmissionFlags::READ_ONLY);
    let expected = [
        OptionReply::Info(Info::Export { size_bytes: MIB, flags }),
        OptionReply::Info(Info::Name("ro".to_owned())),
        OptionReply::Info(Info::BlockSizes(BlockSizes::DEVICE)),
        OptionReply::Ack,
    ];
    assert_eq!(server.replies(), expected.map(|reply| (option::INFO, reply)));
}

#[test]
fn servers_that_do_wrong_are_left() {
    let feed = |bytes: &[u8]| {
        let mut client = ClientHandshake::new(enter("db", false, false));
        client.feed(&mut BytesMut::from(bytes), &mut BytesMut::new())
    };
    let greeting = b"NBDMAGICIHAVEOPT\0\x03";
    let old = feed(b"NBDMAGIC\0\0\x42\x02\x81\x86\x12\x53\0\0");
    assert!(matches!(old, Err(HandshakeError::Magic { .. })));
    assert!(matches!(feed(b"NBDMAGICIHAVEOPT\0\0"), Err(HandshakeError::Magic { .. })));

    let reply = |option: u32, kind: u32, length: u32, data: &[u8]| {
        let mut bytes = BytesMut::from(&greeting[..]);
        bytes.put_u64(0x0003_e889_0455_65a9);
        bytes.put_u32(option);
        bytes.put_u32(kind);
        bytes.put_u32(length);
        bytes.put_slice(data);
        feed(&bytes)
    };
    let go = option::GO;
    assert!(matches!(reply(go, 1, 0, b""), Err(HandshakeError::MalformedReply { .. })), "nothing told");
    assert!(matches!(reply(go, 1, 1, b"x"), Err(HandshakeError::MalformedReply { .. })));
    assert!(matches!(reply(go, 3, 3, b"\0\0x"), Err(HandshakeError::MalformedReply { .. })));
    assert!(matches!(reply(go, 9, 0, b""), Err(HandshakeError::UnexpectedReply { .. })));
    assert!(matches!(reply(3, 1, 0, b""), Err(HandshakeError::UnexpectedReply { .. })));
    assert!(matches!(reply(go, 3, u32::MAX, b""), Err(HandshakeError::ReplyTooLong { .. })));
}

/// What a client asks reaches the server whole, and the answer comes back, in both forms of replies.
#[test]
fn requests_and_replies_cross() {
    for structured in [false, true] {
        let (client, _) = run(enter("db", structured, true), 1000);
        let Ok(HandshakeEnd::Entered(negotiated)) = client else { panic!("{client:?}") };
        let mut requests = RequestDecoder::new(&negotiated);
        let encoder = ReplyEncoder::new(&negotiated);
        let mut replies = ReplyDecoder::new(&negotiated);

        let request = Request::Read { offset: 4096, length: 3 * 4096, dont_fragment: false };
        let expected = Expected::of(&request);
        let mut segments = Vec::new();
        request.clone().encode(Cookie(5), &mut segments);
        let mut wire = BytesMut::from(&segments.concat()[..]);
        let incoming = requests.next(&mut wire).unwrap();
        assert_eq!(incoming, Some(Incoming::Request { cookie: Cookie(5), request }));

        let content = [
            Content::Data(Bytes::from(vec![1; 4096])),
            Content::Zeros(2048),
            Content::Zeros(2048),
            Content::Data(Bytes::from(vec![2; 1024])),
            Content::Data(Bytes::from(vec![3; 3072])),
        ];
        segments.clear();
        encoder.data(Cookie(5), 4096, false, content, &mut segments);
        let mut wire = BytesMut::from(&segments.concat()[..]);
        let mut assembly = ReadAssembly::new(4096, 3 * 4096);
        let mut chunks = 0;
        while let Some(reply) = replies.next(&mut wire, |_| Some(expected)).unwrap() {
            chunks += 1;
            assert_eq!(reply.last, wire.is_empty());
            assembly.add(reply.chunk).unwrap();
        }
        assert_eq!(chunks, if structured { 3 } else { 1 });
        let data = assembly.finish().unwrap();
        assert_eq!(data, [vec![1; 4096], vec![0; 4096], vec![2; 1024], vec![3; 3072]].concat());
    }
}

/// Before TLS nothing is told, whatever is asked; after it everything, and of what was negotiated before nothing counts.
#[test]
fn where_tls_is_required_nothing_is_served_without_it() {
    let mut server = Server::over_tls().greet();
    for option in [option::LIST, option::STRUCTURED_REPLY, option::EXTENDED_HEADERS, 4711] {
        assert_eq!(server.option(option, b""), Outcome::More);
        assert_eq!(server.error(), OptionErrorKind::TlsRequired, "{option}");
    }
    for (option, data) in [(option::GO, go("db")), (option::INFO, go("none")), (option::LIST, go("db"))] {
        assert_eq!(server.option(option, &data), Outcome::More);
        assert_eq!(server.error(), OptionErrorKind::TlsRequired, "{option}");
    }
    assert_eq!(server.option(option::STARTTLS, b"x"), Outcome::More);
    assert_eq!(server.error(), OptionErrorKind::Invalid);
    assert_eq!(server.option(option::STARTTLS, b""), Outcome::StartTls);
    assert_eq!(server.replies(), [(option::STARTTLS, OptionReply::Ack)]);
    server.machine.encrypted();
    server.option(option::STARTTLS, b"");
    assert_eq!(server.error(), OptionErrorKind::Invalid, "once is enough");
    assert!(matches!(server.option(option::GO, &go("db")), Outcome::Entered(_)));

    let mut server = Server::over_tls().greet();
    assert_eq!(server.option(option::EXPORT_NAME, b"db"), Outcome::Failed(HandshakeError::TlsRequired));
    assert!(server.output.is_empty(), "this option has no reply for errors");
    assert_eq!(Server::over_tls().greet().option(option::ABORT, b""), Outcome::Aborted);
}

/// What stands behind STARTTLS, or behind its reply, came over the open network: it must not count as encrypted.
#[test]
fn plain_text_behind_starttls_is_refused() {
    let mut server = Server::over_tls().greet();
    let mut bytes = BytesMut::new();
    option::encode(option::STARTTLS, b"", &mut bytes);
    option::encode(option::LIST, b"", &mut bytes);
    assert_eq!(server.take(&bytes), Outcome::Failed(HandshakeError::BeforeTls));

    let mut client = ClientHandshake::over_tls(enter("db", true, true));
    let mut server = Server::over_tls();
    let (mut input, mut output) = (server.output.split(), BytesMut::new());
    assert_eq!(client.feed(&mut input, &mut output), Ok(None));
    assert_eq!(server.take(&output.split()), Outcome::StartTls);
    input.extend_from_slice(&server.output.split());
    OptionReply::Ack.encode(option::STRUCTURED_REPLY, &mut input);
    assert_eq!(client.feed(&mut input, &mut output), Err(HandshakeError::BeforeTls));
}

#[test]
fn both_sides_agree_over_tls() {
    let mut client = ClientHandshake::over_tls(enter("db", true, true));
    let mut server = Server::over_tls();
    let (mut input, mut output) = (BytesMut::new(), BytesMut::new());
    let mut served = Outcome::More;
    for _ in 0..100 {
        input.extend_from_slice(&server.output.split());
        match client.feed(&mut input, &mut output) {
            Ok(None) => {}
            Ok(Some(HandshakeEnd::StartTls)) => {
                assert_eq!(served, Outcome::StartTls);
                server.machine.encrypted();
                client.encrypted(&mut output);
            }
            Ok(Some(HandshakeEnd::Entered(negotiated))) => {
                assert_eq!(served, Outcome::Entered(negotiated.clone()));
                assert!(negotiated.structured && negotiated.allocation().is_some());
                return;
            }
            other => panic!("{other:?}"),
        }
        served = server.take(&output.split());
    }
    panic!("stuck");
}

/// A server without TLS says so, and a client that wants it goes.
#[test]
fn a_client_that_wants_tls_does_not_do_without() {
    let mut client = ClientHandshake::over_tls(ClientWish::List);
    let mut server = Server::new();
    let (mut input, mut output) = (server.output.split(), BytesMut::new());
    assert_eq!(client.feed(&mut input, &mut output), Ok(None));
    server.take(&output.split());
    input.extend_from_slice(&server.output.split());
    let end = client.feed(&mut input, &mut output);
    let Err(HandshakeError::Refused { option: option::STARTTLS, kind, .. }) = end else { panic!("{end:?}") };
    assert_eq!(kind, OptionErrorKind::Unsupported);
}
