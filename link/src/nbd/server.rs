//! The server's side of the handshake.
//!
//! `EXPORT_NAME` is answered without a reply header, and cannot be refused but by closing:
//!
//! ```text
//! 0           8      10                134
//! size bytes  flags  124 zero bytes, unless both sides do without
//! ```

use bytes::{Buf, BufMut, BytesMut};

use super::context::{CONTEXTS_MAX, Context, ContextQuery};
use super::error::HandshakeError;
use super::export::{ExportInfo, ExportRefusal, Negotiated, TransmissionFlags};
use super::option::{self, GoRequest, Info, MetaContextRequest, OptionErrorKind, OptionReply};
use super::{
    EXPORT_NAME_ZEROES, FLAG_FIXED_NEWSTYLE, FLAG_NO_ZEROES, MAGIC_INIT, MAGIC_OPTION, OPTION_BYTES_MAX,
    OPTIONS_MAX, TEXT_BYTES_MAX,
};

/// Queries of one option for metadata contexts; each takes some looking up.
const QUERIES_MAX: usize = 256;

/// The server's side of the handshake.
///
/// [`start`](Self::start) or [`over_tls`](Self::over_tls), then again and again: write out what was appended to `output`, read some bytes into
/// `input`, [`feed`](Self::feed) until it wants more. A question is to be answered before the next `feed`. It ends
/// when an answer returns [`Negotiated`] (what is left in `input` belongs to the transmission), with
/// [`ServerStep::Aborted`], or with an error; in the last two cases write out `output` and close. A deadline for the
/// whole handshake is the caller's.
///
/// At [`ServerStep::StartTls`] write out `output`, do the TLS handshake on the same connection, and go on over the
/// encrypted one with [`encrypted`](Self::encrypted): the negotiation begins anew, without another greeting.
///
/// It keeps no more than the names of one export and of [`CONTEXTS_MAX`] contexts. `input` need not hold more than 32 KiB and a header.
#[derive(Debug)]
pub struct ServerHandshake {
    state: State,
    tls: Tls,
    options: u32,
    no_zeroes: bool,
    structured: bool,
    /// The contexts that the client selected, and for which export.
    selected: Option<(String, Vec<Context>)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tls {
    /// `STARTTLS` is refused, everything else is served.
    Absent,
    /// Nothing is served before it (the protocol's mode FORCEDTLS).
    Required,
    Established,
}

#[derive(Debug, Clone, Copy)]
enum State {
    ClientFlags,
    Header,
    Data {
        option: u32,
        length: u32,
    },
    /// Throws bytes away, then answers.
    Skip {
        option: u32,
        left: u32,
        then: Skipped,
    },
}

#[derive(Debug, Clone, Copy)]
enum Skipped {
    Abort,
    Unsupported,
    TooBig,
    TlsRequired,
}

/// What the handshake wants of its caller.
#[derive(Debug)]
pub enum ServerStep {
    /// To know about an export: [`ServerHandshake::answer_export`].
    Export(ExportQuestion),
    /// To know which metadata contexts an export has: [`ServerHandshake::answer_contexts`].
    Contexts(ContextQuestion),
    /// To know all exports: [`ServerHandshake::answer_list`].
    List,
    /// TLS begins: [`ServerHandshake::encrypted`].
    StartTls,
    /// The client has ended it: close.
    Aborted,
}

/// An export is asked for.
#[derive(Debug)]
pub struct ExportQuestion {
    /// Its name; empty for the default export.
    pub name: String,
    /// What for.
    pub purpose: ExportPurpose,
    asked: Asked,
}

/// Why a client asks for an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExportPurpose {
    /// Only to know about it.
    Describe,
    /// To use it: if the answer is yes, the transmission begins.
    Enter,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    ExportName,
    Go,
    Info,
}

/// Metadata contexts are asked for. Every query has the form of one.
#[derive(Debug)]
pub struct ContextQuestion {
    /// Whose.
    pub export: String,
    /// Which, as [`ContextQuery`] understands it.
    pub queries: Vec<String>,
    /// The client selects them, and only those that are named in full count; else it wants a list.
    pub select: bool,
}

impl ContextQuestion {
    /// Whether a context that there is is among those that are asked for.
    pub fn asks_for(&self, name: &str) -> bool {
        if self.select {
            self.queries.iter().any(|query| query == name)
        } else {
            ContextQuery::lists(&self.queries, name)
        }
    }
}

impl ServerHandshake {
    /// Greets.
    pub fn start(output: &mut BytesMut) -> Self {
        output.put_u64(MAGIC_INIT);
        output.put_u64(MAGIC_OPTION);
        output.put_u16((FLAG_FIXED_NEWSTYLE | FLAG_NO_ZEROES) as u16);
        Self {
            state: State::ClientFlags,
            tls: Tls::Absent,
            options: 0,
            no_zeroes: false,
            structured: false,
            selected: None,
        }
    }

    /// Greets, and serves nothing before the connection is encrypted.
    pub fn over_tls(output: &mut BytesMut) -> Self {
        Self { tls: Tls::Required, ..Self::start(output) }
    }

    /// Takes what it can from `input`. `Ok(None)`: it needs more.
    pub fn feed(
        &mut self,
        input: &mut BytesMut,
        output: &mut BytesMut,
    ) -> Result<Option<ServerStep>, HandshakeError> {
        loop {
            match self.state {
                State::ClientFlags => {
                    let Ok(flags) = input.try_get_u32() else { return Ok(None) };
                    // A client without FIXED_NEWSTYLE is served all the same, as the protocol allows.
                    if flags & !(FLAG_FIXED_NEWSTYLE | FLAG_NO_ZEROES) != 0 {
                        return Err(HandshakeError::ClientFlags { flags });
                    }
                    self.no_zeroes = flags & FLAG_NO_ZEROES != 0;
                    self.state = State::Header;
                }
                State::Header => {
                    if input.len() < option::OPTION_HEADER_BYTES {
                        return Ok(None);
                    }
                    self.header(input)?;
                }
                State::Data { option, length } => {
                    if input.len() < length as usize {
                        return Ok(None);
                    }
                    let data = input.split_to(length as usize);
                    self.state = State::Header;
                    if option == option::STARTTLS && self.tls == Tls::Required && !input.is_empty() {
                        // Whoever put it there, it would count as said under TLS.
                        return Err(HandshakeError::BeforeTls);
                    }
                    if let Some(step) = self.option(option, &data, output)? {
                        return Ok(Some(step));
                    }
                }
                State::Skip { option, left, then } => {
                    let now = input.len().min(left as usize);
                    input.advance(now);
                    let left = left - now as u32;
                    if left > 0 {
                        self.state = State::Skip { option, left, then };
                        return Ok(None);
                    }
                    self.state = State::Header;
                    match then {
                        Skipped::Abort => {
                            OptionReply::Ack.encode(option, output);
                            return Ok(Some(ServerStep::Aborted));
                        }
                        Skipped::Unsupported => {
                            refuse(option, OptionErrorKind::Unsupported, "option is not supported", output);
                        }
                        Skipped::TooBig => {
                            refuse(option, OptionErrorKind::TooBig, "option is over 32 KiB", output);
                        }
                        Skipped::TlsRequired => {
                            let message = "this server is used over TLS only: begin with STARTTLS";
                            refuse(option, OptionErrorKind::TlsRequired, message, output);
                        }
                    }
                }
            }
        }
    }

    /// Answers an [`ExportQuestion`]. If that begins the transmission, it returns what was agreed on.
    pub fn answer_export(
        &mut self,
        question: ExportQuestion,
        answer: Result<ExportInfo, ExportRefusal>,
        output: &mut BytesMut,
    ) -> Result<Option<Negotiated>, HandshakeError> {
        let ExportQuestion { name, asked, .. } = question;
        let option = asked.option();
        let mut info = match (answer, &asked) {
            (Ok(info), _) => info,
            (Err(refusal), Asked::ExportName) => return Err(HandshakeError::Export { name, refusal }),
            (Err(refusal), _) => {
                refuse_export(option, &name, refusal, output);
                return Ok(None);
            }
        };
        info.flags = info.flags.with(TransmissionFlags::HAS_FLAGS);
        info.flags = if self.structured {
            info.flags.with(TransmissionFlags::SEND_DF)
        } else {
            info.flags.without(TransmissionFlags::SEND_DF)
        };
        match asked {
            Asked::ExportName => {
                output.put_u64(info.size_bytes);
                output.put_u16(info.flags.0);
                if !self.no_zeroes {
                    output.put_bytes(0, EXPORT_NAME_ZEROES);
                }
                return Ok(Some(self.negotiated(name, info)));
            }
            Asked::Go | Asked::Info => {
                // All that there is to tell is told, asked for or not.
                let told = Info::Export { size_bytes: info.size_bytes, flags: info.flags };
                OptionReply::Info(told).encode(option, output);
                OptionReply::Info(Info::Name(name.clone())).encode(option, output);
                if let Some(description) = &info.description {
                    OptionReply::Info(Info::Description(description.clone())).encode(option, output);
                }
                OptionReply::Info(Info::BlockSizes(info.sizes)).encode(option, output);
                OptionReply::Ack.encode(option, output);
                if matches!(asked, Asked::Go) {
                    return Ok(Some(self.negotiated(name, info)));
                }
            }
        }
        Ok(None)
    }

    /// Answers a [`ContextQuestion`] with the names of those that there are, each once.
    pub fn answer_contexts(
        &mut self,
        question: ContextQuestion,
        answer: Result<Vec<String>, ExportRefusal>,
        output: &mut BytesMut,
    ) {
        let ContextQuestion { export, select, .. } = question;
        let option = if select { option::SET_META_CONTEXT } else { option::LIST_META_CONTEXT };
        let names = match answer {
            Ok(names) => names,
            Err(refusal) => return refuse_export(option, &export, refusal, output),
        };
        if select && names.len() > CONTEXTS_MAX {
            let message = format!("a connection has at most {CONTEXTS_MAX} metadata contexts");
            return refuse(option, OptionErrorKind::TooBig, &message, output);
        }
        // The number means nothing in a list.
        let number = |at: usize| if select { at as u32 + 1 } else { 0 };
        let contexts = names.into_iter().enumerate().map(|(at, name)| Context { id: number(at), name });
        let contexts: Vec<_> = contexts.collect();
        for Context { id, name } in &contexts {
            OptionReply::MetaContext { id: *id, name: name.clone() }.encode(option, output);
        }
        OptionReply::Ack.encode(option, output);
        if select {
            self.selected = Some((export, contexts));
        }
    }

    /// Answers [`ServerStep::List`] with the names of the exports.
    pub fn answer_list<'a>(&mut self, names: impl IntoIterator<Item = &'a str>, output: &mut BytesMut) {
        for name in names {
            OptionReply::Server { name: name.to_owned(), description: String::new() }
                .encode(option::LIST, output);
        }
        OptionReply::Ack.encode(option::LIST, output);
    }

    /// Goes on after [`ServerStep::StartTls`], when the connection is encrypted. What was negotiated before is void.
    pub fn encrypted(&mut self) {
        self.tls = Tls::Established;
        self.structured = false;
        self.selected = None;
    }

    fn header(&mut self, input: &mut BytesMut) -> Result<(), HandshakeError> {
        let magic = input.get_u64();
        if magic != MAGIC_OPTION {
            return Err(HandshakeError::Magic { place: "an option", found: magic });
        }
        self.options += 1;
        if self.options > OPTIONS_MAX {
            return Err(HandshakeError::TooManyOptions { max: OPTIONS_MAX });
        }
        let option = input.get_u32();
        let length = input.get_u32();
        self.state = match option {
            option::EXPORT_NAME if self.tls == Tls::Required => return Err(HandshakeError::TlsRequired),
            option::EXPORT_NAME if length as usize > TEXT_BYTES_MAX => {
                return Err(HandshakeError::ExportName { max: TEXT_BYTES_MAX });
            }
            option::ABORT => State::Skip { option, left: length, then: Skipped::Abort },
            _ if self.tls == Tls::Required && option != option::STARTTLS => {
                State::Skip { option, left: length, then: Skipped::TlsRequired }
            }
            option::EXPORT_NAME
            | option::LIST
            | option::STARTTLS
            | option::INFO
            | option::GO
            | option::STRUCTURED_REPLY
            | option::LIST_META_CONTEXT
            | option::SET_META_CONTEXT => {
                if option == option::SET_META_CONTEXT {
                    // What was selected before is gone, whatever becomes of this.
                    self.selected = None;
                }
                if length > OPTION_BYTES_MAX {
                    State::Skip { option, left: length, then: Skipped::TooBig }
                } else {
                    State::Data { option, length }
                }
            }
            _ => State::Skip { option, left: length, then: Skipped::Unsupported },
        };
        Ok(())
    }

    /// One whole option.
    fn option(
        &mut self,
        option: u32,
        data: &[u8],
        output: &mut BytesMut,
    ) -> Result<Option<ServerStep>, HandshakeError> {
        let invalid = |reason: &str, output: &mut BytesMut| {
            refuse(option, OptionErrorKind::Invalid, reason, output);
            Ok(None)
        };
        match option {
            option::EXPORT_NAME => {
                let name =
                    option::text(data).map_err(|_| HandshakeError::ExportName { max: TEXT_BYTES_MAX })?;
                Ok(Some(ask(name, Asked::ExportName)))
            }
            option::LIST | option::STARTTLS | option::STRUCTURED_REPLY if !data.is_empty() => {
                invalid("this option takes no data", output)
            }
            option::LIST => Ok(Some(ServerStep::List)),
            option::STARTTLS => match self.tls {
                Tls::Required => {
                    OptionReply::Ack.encode(option, output);
                    Ok(Some(ServerStep::StartTls))
                }
                Tls::Absent => {
                    refuse(option, OptionErrorKind::Unsupported, "TLS is not supported here", output);
                    Ok(None)
                }
                Tls::Established => invalid("TLS is in use already", output),
            },
            option::STRUCTURED_REPLY => {
                self.structured = true;
                OptionReply::Ack.encode(option, output);
                Ok(None)
            }
            option::INFO | option::GO => match GoRequest::decode(data) {
                Ok(request) if option == option::GO => Ok(Some(ask(request.export, Asked::Go))),
                Ok(request) => Ok(Some(ask(request.export, Asked::Info))),
                Err(_) => invalid("lengths or text of the option are wrong", output),
            },
            // LIST_META_CONTEXT and SET_META_CONTEXT: `header` lets no other through.
            _ => {
                if !self.structured {
                    return invalid("structured replies have to be negotiated first", output);
                }
                let Ok(request) = MetaContextRequest::decode(data) else {
                    return invalid("lengths or text of the option are wrong", output);
                };
                if request.queries.iter().any(|query| ContextQuery::parse(query).is_err()) {
                    return invalid(
                        "a query has no namespace, or not the form that its namespace has",
                        output,
                    );
                }
                let MetaContextRequest { export, queries } = request;
                if queries.len() > QUERIES_MAX {
                    let message = format!("more than {QUERIES_MAX} queries in one option");
                    refuse(option, OptionErrorKind::TooBig, &message, output);
                    return Ok(None);
                }
                let select = option == option::SET_META_CONTEXT;
                Ok(Some(ServerStep::Contexts(ContextQuestion { export, queries, select })))
            }
        }
    }

    fn negotiated(&mut self, export: String, info: ExportInfo) -> Negotiated {
        let selected = self.selected.take().filter(|(of, _)| self.structured && *of == export);
        let contexts = selected.map_or_else(Vec::new, |(_, contexts)| contexts);
        Negotiated { export, info, structured: self.structured, contexts }
    }
}

impl Asked {
    fn option(self) -> u32 {
        match self {
            Self::ExportName => option::EXPORT_NAME,
            Self::Go => option::GO,
            Self::Info => option::INFO,
        }
    }
}

fn ask(name: String, asked: Asked) -> ServerStep {
    let purpose = match asked {
        Asked::ExportName | Asked::Go => ExportPurpose::Enter,
        Asked::Info => ExportPurpose::Describe,
    };
    ServerStep::Export(ExportQuestion { name, purpose, asked })
}

fn refuse_export(option: u32, name: &str, refusal: ExportRefusal, output: &mut BytesMut) {
    let kind = match refusal {
        ExportRefusal::Unknown => OptionErrorKind::Unknown,
        ExportRefusal::NotReady => OptionErrorKind::Policy,
        ExportRefusal::ShuttingDown => OptionErrorKind::Shutdown,
    };
    refuse(option, kind, &format!("export {name:?}: {refusal}"), output);
}

fn refuse(option: u32, kind: OptionErrorKind, message: &str, output: &mut BytesMut) {
    OptionReply::Error { kind, message: message.to_owned() }.encode(option, output);
}
