//! The daemon: an array over the files, disks, sockets and clock of Linux. [`run`] is all of the program `twintrackd`.
//!
//! - `settings`: the file `twintrack.toml`; `folder`: the array's folder, what may be in it, and who has it;
//!   `metadata_look`: a look that changes nothing.
//! - `disk` (and `direct`, `room`), `metadata_file`, `net`, `env`: the shell's seams, given real things.
//! - `tls`, `token_file`: what keeps others out where they can reach a socket.
//! - `report`: what `--check` prints. `supervisor`: what systemd is told.

mod buffers;
mod direct;
mod disk;
mod env;
mod folder;
mod metadata_file;
mod metadata_look;
mod net;
mod report;
mod room;
mod settings;
mod supervisor;
mod tls;
mod token_file;

use std::fs::{self, File};
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use rustix::fs::Mode;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit, umask};
use thiserror::Error;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{info, warn};

pub use disk::FileDisk;
pub use env::SystemEnv;
use folder::Standing;
pub use folder::{CONTROL_SOCKET, Folder, LINK_SOCKET, NBD_SOCKET, SETTINGS, TOKEN};
pub use metadata_file::MetadataFile;
pub use net::{Listener, Stream, TokioNet};
pub use settings::{
    Address, Control, ControlTls, Format, Link, LinkTls, Log, LogFormat, LogLevel, Nbd, NbdTls, Pool,
    Settings, SettingsError, Size, SizeError, Store, StoreIo,
};
pub use tls::{LinkSecurity, ServerTls, TlsError};
pub use token_file::TokenFileError;

use crate::shell::metadata::MetadataError;
use crate::shell::{ServeError, serve};

/// The largest store that a first start takes without being asked.
const FIRST_STORE_BYTES_MAX: u64 = 100 << 30;
/// Threads for what waits for a disk.
const BLOCKING_THREADS_MAX: usize = 128;
/// The array did not start, or cannot go on.
const EXIT_FAILED: u8 = 1;
/// It ended before everything that was written was durable; what was flushed is.
const EXIT_UNCLEAN: u8 = 3;

/// What the daemon is started with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The array's folder.
    pub folder: PathBuf,
    /// Settings from elsewhere than the folder.
    pub settings: Option<PathBuf>,
    /// Looks at everything and serves nothing.
    pub check: bool,
}

/// Why the daemon does not run.
#[derive(Debug, Error)]
pub enum DaemonError {
    /// The folder cannot be used.
    #[error("the folder {} cannot be used: {source}", path.display())]
    Folder {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Something else is in it.
    #[error("{} holds {name:?} and no array: give an empty folder, or one that does not exist yet", path.display())]
    NotEmpty {
        /// The folder.
        path: PathBuf,
        /// What is in it.
        name: String,
    },
    /// Another daemon has it.
    #[error(
        "{} is in use by another twintrackd{}: stop that first",
        path.display(),
        process.map(|process| format!(" (process {process})")).unwrap_or_default()
    )]
    InUse {
        /// The folder.
        path: PathBuf,
        /// Which process, if it is known.
        process: Option<u32>,
    },
    /// The settings cannot be read or written.
    #[error("the settings {} cannot be used: {source}", path.display())]
    SettingsFile {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The settings are wrong.
    #[error("the settings {} are wrong: {source}", path.display())]
    Settings {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        source: SettingsError,
    },
    /// Certificates or a key cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The token cannot be used.
    #[error(transparent)]
    Token(#[from] TokenFileError),
    /// A store that is to be created needs a size.
    #[error(
        "store {name} is not there, or is an empty file: correct the path, or give it a size to have it created as a \
         sparse file"
    )]
    StoreAbsent {
        /// Its path as configured.
        name: String,
    },
    /// A store that is to be added has content.
    #[error(
        "store {name} is not empty, and this array does not know it: if nothing on it is needed, clear its first \
         128 KiB (blkdiscard, or wipefs and dd), then start again"
    )]
    StoreNotEmpty {
        /// Its path as configured.
        name: String,
    },
    /// A store that is to be added belongs to an array.
    #[error(
        "store {name} belongs to array {serial:016x}: if that is this one, its metadata file is missing and has to be \
         put back; if nothing on it is needed, clear its first 128 KiB (blkdiscard or dd), then start again"
    )]
    StoreTaken {
        /// Its path as configured.
        name: String,
        /// Whose it is.
        serial: u64,
    },
    /// A store cannot be looked at.
    #[error("store {name} cannot be used: {source}")]
    Store {
        /// Its path as configured.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// The metadata cannot be used.
    #[error("{}: {source}{}", path.display(), advice(source))]
    Metadata {
        /// The file.
        path: PathBuf,
        /// Why.
        source: MetadataError,
    },
    /// The operating system refuses what every daemon needs.
    #[error("the operating system refuses: {0}")]
    System(#[source] io::Error),
    /// As the array says.
    #[error(transparent)]
    Serve(#[from] ServeError),
}

/// What to do about metadata that cannot be used.
fn advice(error: &MetadataError) -> &'static str {
    match error {
        MetadataError::NewerFormat { .. } => ": start the newer twintrackd that wrote it",
        MetadataError::Damaged { .. } | MetadataError::Geometry { .. } | MetadataError::Empty => {
            "; keep a copy of the folder as it is, and put back a backup of the whole folder, stores included"
        }
        MetadataError::Storage { .. } => {
            "; if the disk that it is on is in order, the file is damaged: keep a copy of the folder as it is"
        }
    }
}

/// Runs the daemon to its end; tells what goes wrong on stderr.
pub fn run(options: &Options) -> ExitCode {
    // Nothing that it creates is for others.
    umask(Mode::RWXG | Mode::RWXO);
    let result = start(options);
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("twintrackd: {}", chain(&error));
            let unclean =
                matches!(error, DaemonError::Serve(ServeError::UncleanEnd | ServeError::Stuck { .. }));
            ExitCode::from(if unclean { EXIT_UNCLEAN } else { EXIT_FAILED })
        }
    }
}

fn start(options: &Options) -> Result<(), DaemonError> {
    let mut folder = Folder::take(&options.folder, !options.check)?;
    let standing = folder.standing()?;
    let settings = read_settings(&folder, options, &standing)?;
    let tls = tls::load(&settings, folder.path())?;
    let link = tls::link(&settings, folder.path())?;
    let token_file = settings.token_file(folder.path());
    let token = match &token_file {
        None => None,
        Some(path) => token_file::open(path, !options.check, &SystemEnv)?,
    };
    folder.use_direct(settings.direct_stores());
    let added = folder.adopt(&standing, settings.stores())?;
    let config = settings.config(folder.path(), token);
    if options.check {
        return report::print(&folder, &standing, &config, &tls, &added);
    }
    start_log(settings.log);
    raise_file_limit();
    if let Some(path) = token_file {
        info!(token_file = %path.display(), "commands over TCP need the token");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .thread_name("twintrackd")
        .build()
        .map_err(DaemonError::System)?;
    let result = runtime.block_on(async {
        let shutdown = shutdown().map_err(DaemonError::System)?;
        let folder_path = folder.path().to_owned();
        let net = TokioNet::new(move || {
            info!(folder = %folder_path.display(), "ready");
            supervisor::tell("READY=1");
        });
        let net = net.with_tls(tls).with_link(link);
        // As a task, so that it runs where the connections do.
        let serving = tokio::spawn(serve(net, folder, SystemEnv, config, shutdown));
        match serving.await {
            Ok(result) => Ok(result?),
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(error) => Err(DaemonError::System(io::Error::other(error))),
            },
        }
    });
    // A thread that waits for a disk for ever is not waited for.
    runtime.shutdown_background();
    result
}

/// The settings of the folder, which are written at the first start, or those that the options name.
fn read_settings(folder: &Folder, options: &Options, standing: &Standing) -> Result<Settings, DaemonError> {
    let path = options.settings.clone().unwrap_or_else(|| folder.path().join(SETTINGS));
    let failed = |source| DaemonError::SettingsFile { path: path.clone(), source };
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound && options.settings.is_none() => {
            if let Standing::Formatted { .. } = standing {
                // The array knows its stores; what else there was to say is lost, and must not be guessed at.
                return Err(failed(io::Error::new(
                    io::ErrorKind::NotFound,
                    "the array is there, its settings are not: put them back, or create an empty file for defaults",
                )));
            }
            let text = settings::first_settings(first_store_bytes(folder.path()).map_err(failed)?);
            if !options.check {
                folder::write_new(&path, &text).map_err(failed)?;
            }
            text
        }
        Err(error) => return Err(failed(error)),
    };
    Settings::parse(&text).map_err(|source| DaemonError::Settings { path: path.clone(), source })
}

/// What the file system can hold, with a tenth left over, and not more than is taken unasked.
fn first_store_bytes(folder: &Path) -> io::Result<u64> {
    let space = rustix::fs::statvfs(folder)?;
    let free = space.f_bavail.saturating_mul(space.f_frsize);
    let bytes = (free / 10 * 9).min(FIRST_STORE_BYTES_MAX);
    let unit = if bytes >= 1 << 30 { 1 << 30 } else { 1 << 20 };
    Ok(bytes / unit * unit)
}

fn start_log(log: Log) {
    let builder = tracing_subscriber::fmt()
        .with_max_level(tracing::level_filters::LevelFilter::from(log.level))
        .with_target(false)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr);
    match log.format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
}

/// All places for connections, and the stores, may be more than the usual limit allows.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })
    {
        warn!(%error, "the limit of open files stays as it is");
    }
}

/// Ends with the first SIGTERM or SIGINT; a second one ends the program at once.
fn shutdown() -> io::Result<impl Future<Output = ()> + Send + use<>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        any(&mut terminate, &mut interrupt).await;
        info!("told to end; once more ends it at once, without making durable what was not flushed");
        supervisor::tell("STOPPING=1");
        tokio::spawn(async move {
            any(&mut terminate, &mut interrupt).await;
            warn!("ended at once");
            std::process::exit(i32::from(EXIT_UNCLEAN));
        });
    })
}

async fn any(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        biased;
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

/// An error with its causes, as far as they are not in its own words.
fn chain(error: &DaemonError) -> String {
    let mut text = error.to_string();
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        let words = cause.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        next = cause.source();
    }
    text
}

/// Makes the names in a folder durable.
fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn sync_folder_of(file: &Path) -> io::Result<()> {
    file.parent().map_or(Ok(()), sync_folder)
}
