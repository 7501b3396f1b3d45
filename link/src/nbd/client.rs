//! The client's side of the handshake.

use bytes::{Buf, BufMut, BytesMut};

use super::context::Context;
use super::error::HandshakeError;
use super::export::{BlockSizes, ExportInfo, Negotiated, TransmissionFlags};
use super::option::{self, GoRequest, Info, MetaContextRequest, OptionErrorKind, OptionReply};
use super::{
    EXPORT_NAME_ZEROES, FLAG_FIXED_NEWSTYLE, FLAG_NO_ZEROES, MAGIC_INIT, MAGIC_OPTION, MAGIC_OPTION_REPLY,
    TEXT_BYTES_MAX,
};

/// One reply: two strings and a few numbers.
const REPLY_BYTES_MAX: usize = 2 * TEXT_BYTES_MAX + 64;
/// All replies to one option, headers included.
const REPLIES_BYTES_MAX: usize = 16 << 20;

/// What a client wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientWish {
    /// To use an export.
    Enter {
        /// Its name.
        export: String,
        /// Structured replies, if the server has them.
        structured: bool,
        /// What block status is to tell of, as far as the server has it; needs `structured`.
        contexts: Vec<String>,
    },
    /// To know about an export.
    Describe {
        /// Its name.
        export: String,
    },
    /// To know all exports.
    List,
}

impl ClientWish {
    fn export(&self) -> &str {
        match self {
            Self::Enter { export, .. } | Self::Describe { export } => export,
            Self::List => "",
        }
    }
}

/// An export in a server's list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedExport {
    /// Its name.
    pub name: String,
    /// For people; may be empty.
    pub description: String,
}

/// What came of a handshake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HandshakeEnd {
    /// The transmission has begun; what is left of the input belongs to it.
    Entered(Negotiated),
    /// Close, after what is to be sent has been sent.
    Described(ExportInfo),
    /// The same.
    Listed(Vec<ListedExport>),
    /// TLS begins: [`ClientHandshake::encrypted`].
    StartTls,
}

/// The client's side of the handshake.
///
/// Read some bytes into `input`, [`feed`](Self::feed), write out what was appended to `output`; until it ends. After an
/// error too, write out `output` (a polite goodbye, if the server refused) and close. A deadline is the caller's.
///
/// One that was begun by [`over_tls`](Self::over_tls) pauses at [`HandshakeEnd::StartTls`]: do the TLS handshake on the
/// same connection, and go on over the encrypted one with [`encrypted`](Self::encrypted).
#[derive(Debug)]
pub struct ClientHandshake {
    wish: ClientWish,
    tls: bool,
    state: State,
    no_zeroes: bool,
    structured: bool,
    contexts: Vec<Context>,
    /// Bytes of replies to the present option.
    replies_bytes: usize,
    found: Found,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Greeting,
    /// Waits for the replies to an option.
    Replies {
        option: u32,
    },
    /// Waits for the answer to `EXPORT_NAME`.
    ExportName,
}

#[derive(Debug, Default)]
struct Found {
    export: Option<(u64, TransmissionFlags)>,
    sizes: Option<BlockSizes>,
    description: Option<String>,
    exports: Vec<ListedExport>,
}

impl ClientHandshake {
    /// Begins; the server speaks first.
    pub fn new(wish: ClientWish) -> Self {
        Self {
            wish,
            tls: false,
            state: State::Greeting,
            no_zeroes: false,
            structured: false,
            contexts: Vec::new(),
            replies_bytes: 0,
            found: Found::default(),
        }
    }

    /// Begins; says nothing about the wish before the connection is encrypted.
    pub fn over_tls(wish: ClientWish) -> Self {
        Self { tls: true, ..Self::new(wish) }
    }

    /// Goes on after [`HandshakeEnd::StartTls`], when the connection is encrypted.
    pub fn encrypted(&mut self, output: &mut BytesMut) {
        self.tls = false;
        self.begin(output);
    }

    /// Takes what it can from `input`. `Ok(None)`: it needs more.
    pub fn feed(
        &mut self,
        input: &mut BytesMut,
        output: &mut BytesMut,
    ) -> Result<Option<HandshakeEnd>, HandshakeError> {
        loop {
            match self.state {
                State::Greeting => {
                    if input.len() < 18 {
                        return Ok(None);
                    }
                    self.greeting(input, output)?;
                }
                State::Replies { option } => {
                    let Some(reply) = self.next_reply(option, input)? else { return Ok(None) };
                    if option == option::STARTTLS && reply == OptionReply::Ack && !input.is_empty() {
                        return Err(HandshakeError::BeforeTls);
                    }
                    if let Some(end) = self.reply(option, reply, output)? {
                        return Ok(Some(end));
                    }
                }
                State::ExportName => {
                    let zeroes = if self.no_zeroes { 0 } else { EXPORT_NAME_ZEROES };
                    if input.len() < 10 + zeroes {
                        return Ok(None);
                    }
                    self.found.export = Some((input.get_u64(), TransmissionFlags(input.get_u16())));
                    input.advance(zeroes);
                    return self.entered(option::EXPORT_NAME).map(Some);
                }
            }
        }
    }

    fn greeting(&mut self, input: &mut BytesMut, output: &mut BytesMut) -> Result<(), HandshakeError> {
        for (expected, place) in
            [(MAGIC_INIT, "the greeting"), (MAGIC_OPTION, "the second half of the greeting")]
        {
            let found = input.get_u64();
            if found != expected {
                return Err(HandshakeError::Magic { place, found });
            }
        }
        let offered = u32::from(input.get_u16());
        if offered & FLAG_FIXED_NEWSTYLE == 0 {
            return Err(HandshakeError::Magic { place: "handshake flags", found: u64::from(offered) });
        }
        self.no_zeroes = offered & FLAG_NO_ZEROES != 0;
        output.put_u32(offered & (FLAG_FIXED_NEWSTYLE | FLAG_NO_ZEROES));
        if self.tls {
            self.send(option::STARTTLS, &[], output);
        } else {
            self.begin(output);
        }
        Ok(())
    }

    fn begin(&mut self, output: &mut BytesMut) {
        match &self.wish {
            ClientWish::Enter { structured: true, .. } => self.send(option::STRUCTURED_REPLY, &[], output),
            ClientWish::Enter { .. } => self.ask_export(option::GO, output),
            ClientWish::Describe { .. } => self.ask_export(option::INFO, output),
            ClientWish::List => self.send(option::LIST, &[], output),
        }
    }

    fn ask_export(&mut self, option: u32, output: &mut BytesMut) {
        let infos = vec![option::INFO_NAME, option::INFO_DESCRIPTION, option::INFO_BLOCK_SIZE];
        let data = GoRequest { export: self.wish.export().to_owned(), infos }.encode();
        self.send(option, &data, output);
    }

    fn send(&mut self, option: u32, data: &[u8], output: &mut BytesMut) {
        option::encode(option, data, output);
        self.replies_bytes = 0;
        self.state = State::Replies { option };
    }

    /// The next whole reply.
    fn next_reply(
        &mut self,
        option: u32,
        input: &mut BytesMut,
    ) -> Result<Option<OptionReply>, HandshakeError> {
        let Some(mut header) = input.get(..option::REPLY_HEADER_BYTES) else { return Ok(None) };
        let magic = header.get_u64();
        if magic != MAGIC_OPTION_REPLY {
            return Err(HandshakeError::Magic { place: "an option's reply", found: magic });
        }
        let (found_option, found_type) = (header.get_u32(), header.get_u32());
        let length = header.get_u32() as usize;
        if found_option != option {
            return Err(HandshakeError::UnexpectedReply { option, found_option, found_type });
        }
        if length > REPLY_BYTES_MAX {
            return Err(HandshakeError::ReplyTooLong { option, max: REPLY_BYTES_MAX });
        }
        let whole = option::REPLY_HEADER_BYTES + length;
        if input.len() < whole {
            return Ok(None);
        }
        self.replies_bytes += whole;
        if self.replies_bytes > REPLIES_BYTES_MAX {
            return Err(HandshakeError::ReplyTooLong { option, max: REPLIES_BYTES_MAX });
        }
        let data = input.split_to(whole);
        let reply = OptionReply::decode(found_type, &data[option::REPLY_HEADER_BYTES..])
            .map_err(|_| HandshakeError::MalformedReply { option })?;
        match reply {
            Some(reply) => Ok(Some(reply)),
            None => Err(HandshakeError::UnexpectedReply { option, found_option, found_type }),
        }
    }

    fn reply(
        &mut self,
        option: u32,
        reply: OptionReply,
        output: &mut BytesMut,
    ) -> Result<Option<HandshakeEnd>, HandshakeError> {
        match (option, reply) {
            (option::INFO | option::GO, OptionReply::Info(info)) => {
                match info {
                    Info::Export { size_bytes, flags } => self.found.export = Some((size_bytes, flags)),
                    Info::BlockSizes(sizes) => self.found.sizes = Some(sizes),
                    Info::Description(description) => self.found.description = Some(description),
                    Info::Name(_) | Info::Other(_) => {}
                }
                Ok(None)
            }
            (option::LIST, OptionReply::Server { name, description }) => {
                self.found.exports.push(ListedExport { name, description });
                Ok(None)
            }
            (option::SET_META_CONTEXT, OptionReply::MetaContext { id, name }) => {
                if self.contexts.iter().any(|known| known.id == id) {
                    return Err(HandshakeError::MalformedReply { option });
                }
                let wanted =
                    matches!(&self.wish, ClientWish::Enter { contexts, .. } if contexts.contains(&name));
                if wanted && self.contexts.iter().all(|known| known.name != name) {
                    self.contexts.push(Context { id, name });
                }
                Ok(None)
            }
            (_, OptionReply::Ack) => self.acknowledged(option, output),
            (_, OptionReply::Error { kind, message }) => self.refused(option, kind, message, output),
            (_, _) => Err(HandshakeError::MalformedReply { option }),
        }
    }

    fn acknowledged(
        &mut self,
        option: u32,
        output: &mut BytesMut,
    ) -> Result<Option<HandshakeEnd>, HandshakeError> {
        match option {
            option::STARTTLS => Ok(Some(HandshakeEnd::StartTls)),
            option::STRUCTURED_REPLY => {
                self.structured = true;
                self.after_structured(output);
                Ok(None)
            }
            option::GO => self.entered(option).map(Some),
            option::INFO => {
                let info = self.info(option)?;
                option::encode(option::ABORT, &[], output);
                Ok(Some(HandshakeEnd::Described(info)))
            }
            option::LIST => {
                option::encode(option::ABORT, &[], output);
                Ok(Some(HandshakeEnd::Listed(std::mem::take(&mut self.found.exports))))
            }
            _ => {
                self.ask_export(option::GO, output);
                Ok(None)
            }
        }
    }

    fn refused(
        &mut self,
        option: u32,
        kind: OptionErrorKind,
        message: String,
        output: &mut BytesMut,
    ) -> Result<Option<HandshakeEnd>, HandshakeError> {
        match (option, kind) {
            // The server does without, so does the client.
            (option::STRUCTURED_REPLY | option::SET_META_CONTEXT, kind)
                if kind != OptionErrorKind::Shutdown =>
            {
                self.contexts.clear();
                self.ask_export(option::GO, output);
                Ok(None)
            }
            (option::GO, OptionErrorKind::Unsupported) => {
                option::encode(option::EXPORT_NAME, option::clip(self.wish.export()), output);
                self.state = State::ExportName;
                Ok(None)
            }
            _ => {
                option::encode(option::ABORT, &[], output);
                Err(HandshakeError::Refused { option, kind, message })
            }
        }
    }

    fn after_structured(&mut self, output: &mut BytesMut) {
        match &self.wish {
            ClientWish::Enter { export, contexts, .. } if !contexts.is_empty() => {
                let request = MetaContextRequest { export: export.clone(), queries: contexts.clone() };
                let data = request.encode();
                self.send(option::SET_META_CONTEXT, &data, output);
            }
            _ => self.ask_export(option::GO, output),
        }
    }

    fn entered(&mut self, option: u32) -> Result<HandshakeEnd, HandshakeError> {
        let info = self.info(option)?;
        Ok(HandshakeEnd::Entered(Negotiated {
            export: self.wish.export().to_owned(),
            info,
            structured: self.structured,
            contexts: std::mem::take(&mut self.contexts),
        }))
    }

    fn info(&mut self, option: u32) -> Result<ExportInfo, HandshakeError> {
        let (size_bytes, flags) = self.found.export.ok_or(HandshakeError::MalformedReply { option })?;
        Ok(ExportInfo {
            size_bytes,
            flags,
            sizes: self.found.sizes.unwrap_or(BlockSizes::UNTOLD),
            description: self.found.description.take(),
        })
    }
}
