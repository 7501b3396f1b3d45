//! From a fresh socket to an attached device.

use std::io;
use std::sync::Arc;

use bytes::BytesMut;
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use twintrack_link::nbd::{
    Context, ExportInfo, ExportPurpose, ExportRefusal, HandshakeError, Negotiated, ServerHandshake,
    ServerStep,
};

use super::HANDSHAKE_TIMEOUT;
use crate::firmware::{AttachError, StatusOf};
use crate::shell::array::{Array, Host, ToHost};
use crate::shell::seams::{Disk, Net};

/// What is read at a time.
const READ_BYTES: usize = 4096;

/// The client has chosen.
pub(super) struct Entered<S> {
    pub(super) stream: S,
    pub(super) encrypted: bool,
    pub(super) negotiated: Negotiated,
    /// What each of its contexts means.
    pub(super) statuses: Arc<[StatusOf]>,
    /// What it has sent beyond the handshake.
    pub(super) input: BytesMut,
}

/// Why a handshake ended in nothing.
#[derive(Debug, Error)]
pub(super) enum Failure {
    #[error(transparent)]
    Protocol(#[from] HandshakeError),
    #[error(transparent)]
    Socket(#[from] io::Error),
    #[error("TLS: {0}")]
    Tls(#[source] io::Error),
    #[error("it took longer than {} s", HANDSHAKE_TIMEOUT.as_secs())]
    TooSlow,
    #[error("there are too many connections, and it was the oldest that had not chosen an export")]
    PlaceLost,
}

/// Talks until the client has chosen an export, which then is in `attached`; `None`: it left.
pub(super) async fn shake<D, N>(
    array: &Array<D>,
    net: &N,
    mut stream: N::Stream,
    attached: &mut Option<Host>,
) -> Result<Option<Entered<N::Stream>>, Failure>
where
    D: Disk,
    N: Net,
{
    let (mut input, mut output) = (BytesMut::new(), BytesMut::new());
    let (mut encrypted, mut selected) = (false, Vec::new());
    let mut machine = if net.requires_encryption(&stream) {
        ServerHandshake::over_tls(&mut output)
    } else {
        ServerHandshake::start(&mut output)
    };
    loop {
        let step = match machine.feed(&mut input, &mut output) {
            Ok(step) => step,
            Err(error) => {
                send(&mut stream, encrypted, &mut output).await?;
                return Err(error.into());
            }
        };
        match step {
            None => {
                send(&mut stream, encrypted, &mut output).await?;
                input.reserve(READ_BYTES);
                if stream.read_buf(&mut input).await? == 0 {
                    return Ok(None);
                }
            }
            Some(ServerStep::Aborted) => {
                send(&mut stream, encrypted, &mut output).await?;
                return Ok(None);
            }
            Some(ServerStep::StartTls) => {
                send(&mut stream, encrypted, &mut output).await?;
                stream = net.encrypt(stream).await.map_err(Failure::Tls)?;
                encrypted = true;
                machine.encrypted();
            }
            Some(ServerStep::List) => {
                let exports = array.exports();
                machine.answer_list(exports.iter().map(String::as_str), &mut output);
            }
            Some(ServerStep::Contexts(question)) => {
                let answer = array.contexts(&question).map_err(refusal);
                let names = answer.as_ref().map(|found| names(found)).map_err(|refusal| *refusal);
                if question.select {
                    selected = answer.unwrap_or_default();
                }
                machine.answer_contexts(question, names, &mut output);
            }
            Some(ServerStep::Export(question)) => {
                let answer = attach(array, &question.name, attached).await;
                if question.purpose == ExportPurpose::Describe {
                    leave(array, attached);
                }
                if let Some(negotiated) = machine.answer_export(question, answer, &mut output)? {
                    send(&mut stream, encrypted, &mut output).await?;
                    let statuses = statuses(&negotiated.contexts, &selected);
                    return Ok(Some(Entered { stream, encrypted, negotiated, statuses, input }));
                }
                // What was not entered is not kept.
                leave(array, attached);
            }
        }
    }
}

async fn send<S: AsyncWrite + Unpin>(
    stream: &mut S,
    encrypted: bool,
    output: &mut BytesMut,
) -> io::Result<()> {
    stream.write_all_buf(output).await?;
    if encrypted {
        stream.flush().await?;
    }
    Ok(())
}

/// Asks the firmware for a device; on success it is in `attached`.
async fn attach<D: Disk>(
    array: &Array<D>,
    name: &str,
    attached: &mut Option<Host>,
) -> Result<ExportInfo, ExportRefusal> {
    let host = attached.insert(array.attach(name.to_owned()).ok_or(ExportRefusal::ShuttingDown)?);
    match host.inbox.recv().await {
        Some(ToHost::Attached(Ok(info))) => Ok(ExportInfo::device(info.size_bytes, info.read_only)),
        Some(ToHost::Attached(Err(error))) => Err(refusal(error)),
        Some(ToHost::Reply(..) | ToHost::Close) | None => Err(ExportRefusal::ShuttingDown),
    }
}

fn refusal(error: AttachError) -> ExportRefusal {
    match error {
        AttachError::Unknown => ExportRefusal::Unknown,
        AttachError::NotReady => ExportRefusal::NotReady,
    }
}

fn names(found: &[(String, StatusOf)]) -> Vec<String> {
    found.iter().map(|(name, _)| name.clone()).collect()
}

/// What the contexts mean that were agreed on: all of them are from the last selection.
fn statuses(contexts: &[Context], selected: &[(String, StatusOf)]) -> Arc<[StatusOf]> {
    let meaning = |context: &Context| selected.iter().find(|(name, _)| *name == context.name);
    contexts.iter().filter_map(meaning).map(|(_, of)| *of).collect()
}

fn leave<D>(array: &Array<D>, attached: &mut Option<Host>) {
    if let Some(host) = attached.take() {
        array.detach(host.conn);
    }
}
