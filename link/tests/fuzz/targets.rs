//! What is fed with anything: each target is a function of bytes that panics if a promise is broken. The crate
//! `link/fuzz` runs them under libFuzzer, `main.rs` beside this file over the corpus and mutations of it.

use std::fmt::Debug;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use serde::Serialize;
use serde::de::DeserializeOwned;
use twintrack_link::manage::{Answer, Command, Refusal};
use twintrack_link::nbd::{
    BASE_ALLOCATION, BlockSizes, ClientHandshake, ClientWish, Cookie, DRAIN_BYTES_MAX, Expected, ExportInfo,
    ExportRefusal, HandshakeEnd, Incoming, Negotiated, ReadAssembly, ReplyDecoder, Request, RequestDecoder,
    ServerHandshake, ServerStep,
};
use twintrack_link::remote::{
    Connection, Decoder, Encoder, HEADER_BYTES, Happening, Hello, PAYLOAD_BYTES_MAX, Timing, VERSION,
};

/// Exports that the server has, beside one that is not ready.
const EXPORTS: [(&str, bool); 2] = [("db", false), ("ro", true)];
const NOT_READY: &str = "offline";
/// The contexts of each.
const CONTEXTS: [&str; 3] = [BASE_ALLOCATION, "x-twintrack:diff/4/now", "qemu:dirty-bitmap:db"];
const SIZE_BYTES: u64 = 1 << 30;
/// What a handshake may send back for one byte that it gets; a list is the longest answer.
const ANSWER_BYTES_MAX: usize = 1024;

/// In what pieces bytes arrive. It must make no difference.
const STEPS: [usize; 3] = [usize::MAX, 1, 13];

/// What a client sends: a handshake, then requests. No request that is let through is outside of the export, and each
/// is the same when it is encoded and decoded again. Where TLS is required, nothing is told of exports before it.
pub fn nbd_server(data: &[u8]) {
    assert_same(STEPS.map(|step| serve(data, step)));
    STEPS.into_iter().for_each(|step| serve_before_tls(data, step));
}

/// What a server sends: a handshake, then replies. No reply gives a read more or less than it asked for.
///
/// Four kinds of cookies are in flight, told apart by their last two bits: reads of the first 4 KiB, block status,
/// other requests; the fourth kind is unknown.
pub fn nbd_client(data: &[u8]) {
    let over_tls = ClientHandshake::over_tls(ClientWish::List);
    match over_tls_end(data, over_tls) {
        None | Some(HandshakeEnd::StartTls) => {}
        Some(end) => panic!("{end:?} before TLS"),
    }
    let enter = |structured, status: bool| {
        let contexts = if status { CONTEXTS.map(str::to_owned).into() } else { Vec::new() };
        ClientWish::Enter { export: "db".to_owned(), structured, contexts }
    };
    let describe = ClientWish::Describe { export: "db".to_owned() };
    for wish in [enter(true, true), enter(true, false), enter(false, false), describe, ClientWish::List] {
        assert_same(STEPS.map(|step| ask(data, step, wish.clone())));
    }
}

/// What another array sends: as it is, and with the check sums, sequence and lengths of its frames made right, for no
/// mutation hits upon those. Each message is the same when it is sent again; a link that takes them is up or over.
pub fn remote(data: &[u8]) {
    assert_same(STEPS.map(|step| listen(data, step)));
    let sealed = seal(data);
    assert_same(STEPS.map(|step| listen(&sealed, step)));
}

/// What is sent for management, both ways. What is understood is the same when it is written and read again.
pub fn manage(data: &[u8]) {
    comes_back::<Command>(data);
    comes_back::<Answer>(data);
    comes_back::<Refusal>(data);
}

/// What was heard, and how it ended.
#[derive(Debug, Default, PartialEq)]
struct Heard {
    happenings: Vec<Happening>,
    end: Option<String>,
}

fn listen(data: &[u8], step: usize) -> Heard {
    let own = Hello { version: VERSION, serial: 1, boot: 3, track_bytes: 65536, name: "west".to_owned() };
    let mut connection = Connection::accepted(Duration::ZERO, Timing::default(), own);
    let mut heard = Heard::default();
    let mut decoder = Decoder::new();
    let mut input = BytesMut::new();
    for piece in data.chunks(step.min(data.len().max(1))) {
        input.extend_from_slice(piece);
        loop {
            let message = match decoder.next(&mut input) {
                Ok(None) => break,
                Ok(Some(message)) => message,
                Err(error) => {
                    heard.end = Some(error.to_string());
                    return heard;
                }
            };
            let mut again = Vec::new();
            Encoder::new().encode(&message, &mut again).expect("what was heard can be said");
            let found = Decoder::new().next(&mut BytesMut::from(&again.concat()[..]));
            assert_eq!(found.ok().flatten().as_ref(), Some(&message));
            for happening in connection.on_message(Duration::ZERO, message) {
                if let Happening::Introduced(_) = happening {
                    assert_eq!(connection.welcome(Duration::ZERO).len(), 2);
                }
                if let Happening::Reset(_) | Happening::Refused(_) = happening {
                    assert!(!connection.is_up() && connection.due().is_none());
                }
                heard.happenings.push(happening);
            }
        }
        assert!(decoder.reserve_bytes(&input) <= input.len().max(256 << 10), "memory for nothing");
    }
    heard
}

/// The same frames, as far as they go, as if they had been sent so.
fn seal(data: &[u8]) -> Vec<u8> {
    let mut sealed = data.to_vec();
    let mut rest = &mut sealed[..];
    for sequence in 1u64.. {
        let Some((header, content)) = rest.split_first_chunk_mut::<HEADER_BYTES>() else { break };
        let length = |header: &[u8], at: usize| {
            header[at..at + 4].iter().rev().fold(0, |length, byte| length << 8 | usize::from(*byte))
        };
        let body = length(header, 16).min(content.len());
        let payload =
            length(header, 20).min(content.len() - body).min(PAYLOAD_BYTES_MAX as usize) / 512 * 512;
        let (content, after) = content.split_at_mut(body + payload);
        header[..5].copy_from_slice(b"twln\x01");
        header[8..16].copy_from_slice(&sequence.to_le_bytes());
        header[16..20].copy_from_slice(&(body as u32).to_le_bytes());
        header[20..24].copy_from_slice(&(payload as u32).to_le_bytes());
        header[24..28].copy_from_slice(&crc32c::crc32c(content).to_le_bytes());
        let sum = crc32c::crc32c(&header[..28]);
        header[28..].copy_from_slice(&sum.to_le_bytes());
        rest = after;
    }
    sealed
}

fn comes_back<T: Serialize + DeserializeOwned + PartialEq + Debug>(data: &[u8]) {
    let Ok(value) = serde_json::from_slice::<T>(data) else { return };
    let text = serde_json::to_vec(&value).expect("what was read can be written");
    assert_eq!(serde_json::from_slice::<T>(&text).ok().as_ref(), Some(&value));
}

fn assert_same<T: PartialEq + Debug>([whole, bytes, pieces]: [T; 3]) {
    assert_eq!(whole, bytes, "whole, and byte by byte");
    assert_eq!(whole, pieces, "whole, and in pieces");
}

/// What was told to the client, what it wanted, and how it ended.
#[derive(Debug, Default, PartialEq)]
struct Served {
    output: BytesMut,
    incoming: Vec<Incoming>,
    end: Option<String>,
}

fn serve(data: &[u8], step: usize) -> Served {
    let mut served = Served::default();
    let mut machine = ServerHandshake::start(&mut served.output);
    let mut requests: Option<(RequestDecoder, Negotiated)> = None;
    let mut input = BytesMut::new();
    for piece in data.chunks(step.min(data.len().max(1))) {
        input.extend_from_slice(piece);
        loop {
            if let Some((decoder, negotiated)) = &mut requests {
                match decoder.next(&mut input) {
                    Ok(None) => break,
                    Ok(Some(incoming)) => {
                        check(&incoming, negotiated);
                        served.incoming.push(incoming);
                    }
                    Err(error) => return served.ended(error),
                }
                assert!(decoder.reserve_bytes(&input) <= input.len().max(64 << 10), "memory for nothing");
                continue;
            }
            match machine.feed(&mut input, &mut served.output) {
                Ok(None) => break,
                Ok(Some(ServerStep::Aborted)) => return served.ended("aborted"),
                Ok(Some(ServerStep::StartTls)) => panic!("TLS begins where there is none"),
                Ok(Some(ServerStep::List)) => {
                    machine.answer_list(EXPORTS.map(|(name, _)| name), &mut served.output);
                }
                Ok(Some(ServerStep::Contexts(question))) => {
                    let names =
                        CONTEXTS.into_iter().filter(|name| question.asks_for(name)).map(str::to_owned);
                    let answer = export(&question.export).map(|_| names.collect());
                    machine.answer_contexts(question, answer, &mut served.output);
                }
                Ok(Some(ServerStep::Export(question))) => {
                    let answer = export(&question.name);
                    match machine.answer_export(question, answer, &mut served.output) {
                        Ok(None) => {}
                        Ok(Some(negotiated)) => {
                            requests = Some((RequestDecoder::new(&negotiated), negotiated));
                        }
                        Err(error) => return served.ended(error),
                    }
                }
                Err(error) => return served.ended(error),
            }
        }
    }
    assert!(served.output.len() <= (data.len() + 1) * ANSWER_BYTES_MAX, "an answer out of proportion");
    served
}

fn serve_before_tls(data: &[u8], step: usize) {
    let (mut input, mut output) = (BytesMut::new(), BytesMut::new());
    let mut machine = ServerHandshake::over_tls(&mut output);
    for piece in data.chunks(step.min(data.len().max(1))) {
        input.extend_from_slice(piece);
        match machine.feed(&mut input, &mut output) {
            Ok(None) => {}
            Ok(Some(ServerStep::StartTls | ServerStep::Aborted)) | Err(_) => return,
            Ok(Some(step)) => panic!("{step:?} before TLS"),
        }
    }
}

impl Served {
    fn ended(mut self, why: impl ToString) -> Self {
        self.end = Some(why.to_string());
        self
    }
}

fn export(name: &str) -> Result<ExportInfo, ExportRefusal> {
    if name == NOT_READY {
        return Err(ExportRefusal::NotReady);
    }
    let found = EXPORTS.iter().find(|(export, _)| *export == name).ok_or(ExportRefusal::Unknown)?;
    Ok(ExportInfo::device(SIZE_BYTES, found.1))
}

fn check(incoming: &Incoming, negotiated: &Negotiated) {
    let Incoming::Request { cookie, request } = incoming else { return };
    let (offset, length) = request.range();
    assert!(offset.checked_add(length.into()).is_some_and(|end| end <= SIZE_BYTES), "{incoming:?}");
    let minimum = BlockSizes::DEVICE.minimum_bytes;
    assert!(offset % u64::from(minimum) == 0 && length % minimum == 0, "{incoming:?}");
    assert!(length > 0 || *request == Request::Flush, "{incoming:?}");
    if let Request::Write { data, .. } = request {
        assert!(negotiated.export == "db" && data.len() <= DRAIN_BYTES_MAX as usize, "{incoming:?}");
    }
    let mut again: Vec<Bytes> = Vec::new();
    request.clone().encode(*cookie, &mut again);
    let found = RequestDecoder::new(negotiated).next(&mut BytesMut::from(&again.concat()[..]));
    assert_eq!(found.ok().flatten().as_ref(), Some(incoming));
}

/// How a handshake that wants TLS first ends with what comes in plain text.
fn over_tls_end(data: &[u8], mut machine: ClientHandshake) -> Option<HandshakeEnd> {
    machine.feed(&mut BytesMut::from(data), &mut BytesMut::new()).ok().flatten()
}

/// What was told to the server, how the handshake ended, which replies came, how it ended.
#[derive(Debug, Default, PartialEq)]
struct Asked {
    output: BytesMut,
    handshake: Option<HandshakeEnd>,
    replies: Vec<String>,
    read: Option<Bytes>,
    end: Option<String>,
}

fn ask(data: &[u8], step: usize, wish: ClientWish) -> Asked {
    const LENGTH: u32 = 4096;
    let mut asked = Asked::default();
    let mut machine = ClientHandshake::new(wish);
    let mut replies = None;
    let mut assembly = ReadAssembly::new(0, LENGTH);
    let mut input = BytesMut::new();
    'pieces: for piece in data.chunks(step.min(data.len().max(1))) {
        input.extend_from_slice(piece);
        loop {
            let Some(decoder) = &mut replies else {
                match machine.feed(&mut input, &mut asked.output) {
                    Ok(None) => break,
                    Ok(Some(end)) => {
                        let HandshakeEnd::Entered(negotiated) = &end else {
                            asked.handshake = Some(end);
                            break 'pieces;
                        };
                        replies = Some(ReplyDecoder::new(negotiated));
                        asked.handshake = Some(end);
                    }
                    Err(error) => {
                        asked.end = Some(error.to_string());
                        break 'pieces;
                    }
                }
                continue;
            };
            let expected = |Cookie(cookie)| match cookie % 4 {
                0 => Some(Expected::Data { offset: 0, length: LENGTH }),
                1 => Some(Expected::Status),
                2 => Some(Expected::Done),
                _ => None,
            };
            match decoder.next(&mut input, expected) {
                Ok(None) => break,
                Ok(Some(reply)) => {
                    asked.replies.push(format!("{reply:?}"));
                    if let Err(error) = assembly.add(reply.chunk) {
                        asked.replies.push(error.to_string());
                    }
                }
                Err(error) => {
                    asked.end = Some(error.to_string());
                    break 'pieces;
                }
            }
        }
    }
    asked.read = assembly.finish().ok();
    assert!(asked.read.as_ref().is_none_or(|read| read.len() == LENGTH as usize), "a read of another length");
    asked
}
