//! `session read`: changed tracks of a deactivated session (D15), one behind the other, to standard output or a file.

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::PathBuf;

use twintrack_core::SessionId;
use twintrack_host::TrackReader;
use twintrack_host::manage::{TrackList, TrackRange};

use crate::Context;
use crate::failure::Failure;
use crate::output::Waiting;

/// Writes them while they come. A file is made, or made empty, when it is known that all of them are there.
pub async fn print(
    context: &Context,
    session: SessionId,
    tracks: Vec<TrackRange>,
    output: Option<PathBuf>,
) -> Result<(), Failure> {
    let Some(path) = output else {
        if context.output.json {
            let reason = "tracks are bytes, which JSON cannot tell: use -o FILE, or leave out --json";
            return Err(Failure::Usage(reason.to_owned()));
        }
        if io::stdout().is_terminal() {
            let reason = "tracks are bytes, and standard output is a terminal: use -o FILE, or send them on";
            return Err(Failure::Usage(reason.to_owned()));
        }
        let mut reader = ask(context, session, tracks).await?;
        return write(&mut reader, session, io::stdout().lock(), Failure::Stdout).await;
    };
    let mut reader = ask(context, session, tracks).await?;
    let failed = |error| Failure::File { path: path.clone(), error };
    let file = File::create(&path).map_err(failed)?;
    write(&mut reader, session, file, failed).await?;
    context.output.done()
}

async fn ask(context: &Context, session: SessionId, tracks: Vec<TrackRange>) -> Result<TrackReader, Failure> {
    let tracks = TrackList::new(tracks).map_err(|error| Failure::Usage(error.to_string()))?;
    Ok(context.array.session_tracks(session.0, &tracks).await?)
}

async fn write(
    reader: &mut TrackReader,
    session: SessionId,
    to: impl Write,
    failed: impl Fn(io::Error) -> Failure,
) -> Result<(), Failure> {
    let mut to = BufWriter::new(to);
    let waiting = Waiting::new(format!("{session}: reading tracks"));
    while let Some(bytes) = reader.next().await? {
        to.write_all(&bytes).map_err(&failed)?;
    }
    drop(waiting);
    to.flush().map_err(failed)
}
