//! The NBD client against a scripted server, made of the server's half of the wire format, over a pipe in memory.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::time::{sleep, timeout};
use twintrack_host::{Lost, NbdClient, NbdError, NbdOptions, describe_export, list_exports};
use twintrack_link::nbd::{
    BASE_ALLOCATION, Content, Context, Cookie, Errno, ExportInfo, ExportRefusal, HandshakeError, Incoming,
    Negotiated, ReplyEncoder, Request, RequestDecoder, ServerHandshake, ServerStep, StatusExtent,
    TransmissionError,
};

const SIZE: usize = 1 << 20;
/// The contexts that it has.
const CONTEXTS: [&str; 2] = [BASE_ALLOCATION, "x-twintrack:diff/4/now"];
const DEADLINE: Duration = Duration::from_secs(5);

/// A server's end of a pipe.
struct Server {
    stream: DuplexStream,
    input: BytesMut,
    decoder: RequestDecoder,
    encoder: ReplyEncoder,
    contexts: Vec<Context>,
}

impl Server {
    /// Does the handshake; `None` if the client did not enter.
    async fn accept(mut stream: DuplexStream) -> Option<Self> {
        let (mut input, mut output) = (BytesMut::new(), BytesMut::new());
        let mut machine = ServerHandshake::start(&mut output);
        let negotiated: Negotiated = loop {
            let step = machine.feed(&mut input, &mut output).unwrap();
            let mut entered = None;
            match step {
                Some(ServerStep::Aborted | ServerStep::StartTls) => {
                    stream.write_all_buf(&mut output).await.ok();
                    return None;
                }
                Some(ServerStep::List) => machine.answer_list(["db", "log"], &mut output),
                Some(ServerStep::Contexts(question)) => {
                    let names = CONTEXTS.into_iter().filter(|name| question.asks_for(name));
                    let names = names.map(str::to_owned).collect();
                    machine.answer_contexts(question, Ok(names), &mut output);
                }
                Some(ServerStep::Export(question)) => {
                    let answer = match question.name.as_str() {
                        "db" => Ok(ExportInfo::device(SIZE as u64, false)),
                        _ => Err(ExportRefusal::Unknown),
                    };
                    entered = machine.answer_export(question, answer, &mut output).unwrap();
                }
                None => {
                    stream.write_all_buf(&mut output).await.ok()?;
                    stream.read_buf(&mut input).await.ok().filter(|&n| n > 0)?;
                }
            }
            if let Some(negotiated) = entered {
                stream.write_all_buf(&mut output).await.ok()?;
                break negotiated;
            }
        };
        let (decoder, encoder) = (RequestDecoder::new(&negotiated), ReplyEncoder::new(&negotiated));
        Some(Self { stream, input, decoder, encoder, contexts: negotiated.contexts })
    }

    /// The next request; `None` when the client says goodbye or is gone.
    async fn next(&mut self) -> Option<(Cookie, Request)> {
        loop {
            match self.decoder.next(&mut self.input).unwrap() {
                Some(Incoming::Request { cookie, request }) => return Some((cookie, request)),
                Some(Incoming::Rejected { cookie, errno, reason, .. }) => {
                    let mut out = Vec::new();
                    self.encoder.error(cookie, errno, reason, &mut out);
                    self.send(&out).await;
                }
                Some(Incoming::Disconnect) => return None,
                None => {
                    self.stream.read_buf(&mut self.input).await.ok().filter(|&n| n > 0)?;
                }
            }
        }
    }

    async fn send(&mut self, segments: &[Bytes]) {
        for segment in segments {
            self.stream.write_all(segment).await.unwrap();
        }
    }

    async fn done(&mut self, cookie: Cookie) {
        let mut out = Vec::new();
        self.encoder.done(cookie, &mut out);
        self.send(&out).await;
    }

    /// Serves a disk in memory until the goodbye; returns the disk.
    async fn serve(mut self) -> Vec<u8> {
        let mut disk = vec![0; SIZE];
        while let Some((cookie, request)) = self.next().await {
            let mut out = Vec::new();
            let at = request.range().0 as usize;
            match request {
                Request::Read { offset, length, dont_fragment } => {
                    let data = Bytes::copy_from_slice(&disk[at..at + length as usize]);
                    let half = data.len() / 2;
                    let pieces = [Content::Data(data.slice(..half)), Content::Data(data.slice(half..))];
                    self.encoder.data(cookie, offset, dont_fragment, pieces, &mut out);
                }
                Request::Write { data, .. } => {
                    disk[at..at + data.len()].copy_from_slice(&data);
                    self.encoder.done(cookie, &mut out);
                }
                Request::WriteZeroes { length, .. } => {
                    disk[at..at + length as usize].fill(0);
                    self.encoder.done(cookie, &mut out);
                }
                Request::BlockStatus { length, .. } => {
                    let extents = [
                        StatusExtent { length: 4096, status: 0 },
                        StatusExtent { length: length - 4096, status: 3 },
                    ];
                    let dirty = [StatusExtent { length, status: 1 }];
                    let told = self.contexts.iter().map(|context| match context.name.as_str() {
                        BASE_ALLOCATION => (context.id, extents.to_vec()),
                        _ => (context.id, dirty.to_vec()),
                    });
                    self.encoder.status(cookie, told, &mut out);
                }
                Request::Trim { .. } => {
                    self.encoder.error(cookie, Errno::NoSpace, "no trim here", &mut out);
                }
                Request::Flush => self.encoder.done(cookie, &mut out),
            }
            self.send(&out).await;
        }
        disk
    }
}

/// A connected client and its server.
async fn pair(options: NbdOptions) -> (NbdClient, Server) {
    let (here, there) = tokio::io::duplex(16 << 10);
    let (client, server) = tokio::join!(NbdClient::connect(here, "db", &options), Server::accept(there));
    (client.unwrap(), server.unwrap())
}

fn block(fill: u8) -> Bytes {
    Bytes::from(vec![fill; 4096])
}

#[tokio::test]
async fn every_call_reaches_the_disk() {
    for structured in [true, false] {
        let contexts = vec![CONTEXTS[1].to_owned(), "qemu:dirty-bitmap:none".to_owned()];
        let (client, server) = pair(NbdOptions { structured, contexts, ..NbdOptions::default() }).await;
        assert_eq!(client.info().size_bytes, SIZE as u64);
        let server = tokio::spawn(server.serve());
        client.write(4096, block(7), true).await.unwrap();
        client.write(8192, block(8), false).await.unwrap();
        client.write_zeroes(4096, 512, true, false).await.unwrap();
        client.flush().await.unwrap();
        let data = client.read(0, 16384).await.unwrap();
        assert_eq!((data[4095], data[4096], data[4608], data[8192], data[12288]), (0, 0, 7, 8, 0));
        // A write of many times what the pipe holds, and back.
        let large = Bytes::from((0..SIZE).map(|n| (n % 251) as u8).collect::<Vec<_>>());
        client.write(0, large.clone(), false).await.unwrap();
        assert_eq!(client.read(0, SIZE as u32).await.unwrap(), large);

        let refused = client.trim(0, 4096, false).await.unwrap_err();
        let message = if structured { "no trim here" } else { "" }.to_owned();
        assert_eq!(refused, NbdError::Remote { errno: Errno::NoSpace, message, offset: None });
        let refused = client.read(SIZE as u64, 512).await.unwrap_err();
        assert!(matches!(refused, NbdError::Remote { errno: Errno::Invalid, .. }), "{refused}");
        let status = client.block_status(0, 8192).await;
        if structured {
            let status = status.unwrap();
            assert_eq!(
                status.iter().map(|e| (e.length, e.is_hole())).collect::<Vec<_>>(),
                [(4096, false), (4096, true)]
            );
        } else {
            assert_eq!(status, Err(NbdError::NoBlockStatus));
        }
        let dirty = client.status_of(CONTEXTS[1], 0, 8192).await;
        if structured {
            assert_eq!(dirty, Ok(vec![StatusExtent { length: 8192, status: StatusExtent::DIRTY }]));
        } else {
            assert_eq!(dirty, Err(NbdError::NoBlockStatus));
        }
        assert_eq!(client.status_of("qemu:dirty-bitmap:none", 0, 512).await, Err(NbdError::NoBlockStatus));
        client.disconnect().await;
        assert!(server.await.unwrap() == large);
    }
}

#[tokio::test]
async fn many_requests_are_in_flight_and_answers_come_in_any_order() {
    let (client, mut server) = pair(NbdOptions { in_flight_max: 8, ..NbdOptions::default() }).await;
    let calls: Vec<_> = (0..20u8)
        .map(|n| {
            let client = client.clone();
            tokio::spawn(async move { client.write(u64::from(n) * 4096, block(n), false).await })
        })
        .collect();
    let mut waiting = Vec::new();
    for _ in 0..8 {
        waiting.push(server.next().await.unwrap().0);
    }
    let more = timeout(Duration::from_millis(50), server.next()).await;
    assert!(more.is_err(), "no more than 8 in flight");
    for cookie in waiting.into_iter().rev() {
        server.done(cookie).await;
    }
    for _ in 0..12 {
        let cookie = server.next().await.unwrap().0;
        server.done(cookie).await;
    }
    for call in calls {
        call.await.unwrap().unwrap();
    }
    drop(client);
    assert_eq!(server.next().await, None, "the last handle says goodbye");
}

#[tokio::test]
async fn a_call_that_was_given_up_harms_nobody() {
    let (client, mut server) = pair(NbdOptions { in_flight_max: 2, ..NbdOptions::default() }).await;
    let given_up = timeout(Duration::from_millis(20), client.read(0, 4096)).await;
    assert!(given_up.is_err());
    let (late, request) = server.next().await.unwrap();
    assert_eq!(request.range(), (0, 4096));

    // Its place is not free before its answer has come.
    let one = tokio::spawn({
        let client = client.clone();
        async move { client.flush().await }
    });
    let two = tokio::spawn({
        let client = client.clone();
        async move { client.read(4096, 512).await }
    });
    let flush = server.next().await.unwrap().0;
    assert!(timeout(Duration::from_millis(50), server.next()).await.is_err());
    let mut out = Vec::new();
    server.encoder.data(late, 0, false, [Content::Data(block(1))], &mut out);
    server.send(&out).await;
    let (read, request) = server.next().await.unwrap();
    assert_eq!(request.range(), (4096, 512));
    let mut out = Vec::new();
    server.encoder.data(read, 4096, false, [Content::Zeros(512)], &mut out);
    server.send(&out).await;
    assert_eq!(two.await.unwrap().unwrap(), vec![0; 512]);
    server.done(flush).await;
    one.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_lost_connection_leaves_outcomes_unknown() {
    let (client, mut server) = pair(NbdOptions::default()).await;
    let calls: Vec<_> = (0..3u64)
        .map(|n| {
            let client = client.clone();
            tokio::spawn(async move { client.write(n * 4096, block(1), false).await })
        })
        .collect();
    server.next().await.unwrap();
    drop(server);
    for call in calls {
        let error = call.await.unwrap().unwrap_err();
        assert!(matches!(error, NbdError::OutcomeUnknown { .. }), "{error}");
        assert!(error.is_outcome_unknown());
    }
    let error = client.flush().await.unwrap_err();
    assert!(matches!(error, NbdError::Closed { lost: Some(_) }), "{error}");
    assert!(!error.is_outcome_unknown());
    assert!(client.is_closed());
    client.disconnect().await;
}

#[tokio::test]
async fn a_server_that_breaks_the_protocol_is_left() {
    let (client, mut server) = pair(NbdOptions::default()).await;
    let call = tokio::spawn({
        let client = client.clone();
        async move { client.flush().await }
    });
    server.next().await.unwrap();
    server.done(Cookie(999)).await;
    let lost = Lost::Protocol(TransmissionError::UnknownCookie { cookie: Cookie(999) });
    assert_eq!(call.await.unwrap(), Err(NbdError::OutcomeUnknown { lost: lost.clone() }));
    assert_eq!(client.flush().await, Err(NbdError::Closed { lost: Some(lost) }));

    // Data that are sent in part are an error of that call alone.
    let (client, mut server) = pair(NbdOptions::default()).await;
    let call = tokio::spawn({
        let client = client.clone();
        async move { client.read(0, 8192).await }
    });
    let cookie = server.next().await.unwrap().0;
    let mut out = Vec::new();
    server.encoder.data(cookie, 4096, false, [Content::Data(block(1))], &mut out);
    server.send(&out).await;
    assert!(matches!(call.await.unwrap(), Err(NbdError::Read(_))));
    assert!(!client.is_closed());
}

#[tokio::test]
async fn what_is_too_long_is_not_sent() {
    let (client, mut server) = pair(NbdOptions::default()).await;
    let error = client.read(0, (32 << 20) + 512).await.unwrap_err();
    assert!(matches!(error, NbdError::TooLong { max_bytes: 33_554_432, .. }), "{error}");
    assert!(timeout(Duration::from_millis(20), server.next()).await.is_err());
}

#[tokio::test]
async fn a_disconnect_waits_for_what_is_in_flight() {
    let (client, mut server) = pair(NbdOptions::default()).await;
    let other = client.clone();
    let write = tokio::spawn(async move { other.write(0, block(1), false).await });
    let cookie = server.next().await.unwrap().0;
    let other = client.clone();
    let goodbye = tokio::spawn(client.disconnect());
    sleep(Duration::from_millis(20)).await;
    assert!(!goodbye.is_finished());
    server.done(cookie).await;
    write.await.unwrap().unwrap();
    assert_eq!(server.next().await, None);
    goodbye.await.unwrap();
    assert!(matches!(other.flush().await, Err(NbdError::Closed { .. })));
}

/// Handles that are gone leave nothing behind, even if the server takes nothing in.
#[tokio::test]
async fn an_abandoned_connection_ends() {
    let (client, mut server) = pair(NbdOptions::default()).await;
    let large = Bytes::from(vec![1; SIZE]);
    assert!(timeout(Duration::from_millis(20), client.write(0, large, false)).await.is_err());
    drop(client);
    sleep(Duration::from_millis(1500)).await;
    let mut rest = Vec::new();
    timeout(DEADLINE, server.stream.read_to_end(&mut rest)).await.unwrap().unwrap();
    assert!(rest.len() < SIZE, "cut off in the middle");
}

#[tokio::test]
async fn handshakes_that_end_otherwise() {
    let (here, there) = tokio::io::duplex(4096);
    let options = NbdOptions::default();
    let (client, _) = tokio::join!(NbdClient::connect(here, "nope", &options), Server::accept(there));
    assert!(matches!(client, Err(NbdError::Handshake(HandshakeError::Refused { .. }))));

    let (here, there) = tokio::io::duplex(4096);
    let (list, _) = tokio::join!(list_exports(here, DEADLINE), Server::accept(there));
    assert_eq!(list.unwrap().into_iter().map(|e| e.name).collect::<Vec<_>>(), ["db", "log"]);

    let (here, there) = tokio::io::duplex(4096);
    let (info, _) = tokio::join!(describe_export(here, "db", DEADLINE), Server::accept(there));
    assert_eq!(info.unwrap().size_bytes, SIZE as u64);

    let (here, there) = tokio::io::duplex(4096);
    drop(there);
    assert!(matches!(
        NbdClient::connect(here, "db", &options).await,
        Err(NbdError::Connect { kind: std::io::ErrorKind::UnexpectedEof | std::io::ErrorKind::BrokenPipe })
    ));

    let (here, _silent) = tokio::io::duplex(4096);
    let short = NbdOptions { handshake_deadline: Duration::from_millis(20), ..options };
    assert!(matches!(
        NbdClient::connect(here, "db", &short).await,
        Err(NbdError::Connect { kind: std::io::ErrorKind::TimedOut })
    ));
}
