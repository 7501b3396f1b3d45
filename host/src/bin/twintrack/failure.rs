//! What can go wrong, as a person reads it, and the exit code that it ends with.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use serde::Serialize;
use twintrack_host::manage::Refusal;
use twintrack_host::{ArrayError, Endpoint, EstablishStep, Leftover, TlsFailure};

use crate::advice::Steps;
use crate::table::printable;

const REFUSED: u8 = 1;
const USAGE: u8 = 2;
const NOT_REACHABLE: u8 = 3;

/// Why a command came to no good end.
#[derive(Debug)]
pub enum Failure {
    /// The array said no, or did not answer.
    Array(ArrayError),
    /// *Establish* failed.
    Establish {
        /// Where.
        step: EstablishStep,
        /// The pair, as it was written; none for what concerns all of them.
        pair: Option<String>,
        /// Why.
        cause: ArrayError,
        /// What could not be undone.
        leftovers: Vec<Leftover>,
    },
    /// It is not known whether what spans two arrays was made: a pair, or a snapshot on both.
    Create {
        /// Why.
        cause: ArrayError,
        /// The call's own number.
        request: u64,
    },
    /// The halves of a pair are not the same.
    Differs {
        /// The volume.
        device: String,
        /// How many tracks.
        tracks: u64,
    },
    /// Page after page, the array does not get on.
    Pages {
        /// Which array.
        endpoint: Endpoint,
    },
    /// The command line makes no sense.
    Usage(String),
    /// Standard output takes no more.
    Stdout(io::Error),
    /// A file cannot be written.
    File {
        /// Which one.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The operating system gives this process too little.
    Runtime(io::Error),
}

impl From<ArrayError> for Failure {
    fn from(error: ArrayError) -> Self {
        Self::Array(error)
    }
}

/// A failure as programs read it.
#[derive(Debug, Serialize)]
struct Told {
    code: String,
    reason: String,
    next: String,
}

impl Failure {
    /// Says it on standard error. A reader of standard output who has seen enough is no failure.
    pub fn report(&self, steps: &Steps, json: bool) -> ExitCode {
        if matches!(self, Self::Stdout(error) if error.kind() == io::ErrorKind::BrokenPipe) {
            return ExitCode::SUCCESS;
        }
        let told = self.told(steps);
        let text = match serde_json::to_string(&told) {
            Ok(line) if json => format!("{line}\n"),
            _ => format!("error: {}\n  next: {}\n", told.reason, told.next),
        };
        // Where nobody listens, the exit code has to do.
        let _ = io::stderr().lock().write_all(text.as_bytes());
        ExitCode::from(self.exit_code())
    }

    fn exit_code(&self) -> u8 {
        match self {
            Self::Array(ArrayError::Refused(_))
            | Self::Establish { cause: ArrayError::Refused(_), .. }
            | Self::Create { cause: ArrayError::Refused(_), .. }
            | Self::Differs { .. }
            | Self::Stdout(_)
            | Self::File { .. }
            | Self::Runtime(_) => REFUSED,
            Self::Usage(_) => USAGE,
            Self::Array(_) | Self::Establish { .. } | Self::Create { .. } | Self::Pages { .. } => {
                NOT_REACHABLE
            }
        }
    }

    fn told(&self, steps: &Steps) -> Told {
        let (reason, next) = match self {
            Self::Array(error) => (error.to_string(), next(error, steps)),
            Self::Establish { step, pair, cause, leftovers } => {
                (established(*step, pair.as_deref(), cause), next_of_establish(cause, leftovers, steps))
            }
            Self::Create { cause, request } => (
                cause.to_string(),
                format!(
                    "give the same command once more with --request {request}: it is done once at most, and tells what \
                     became of it"
                ),
            ),
            Self::Differs { device, tracks } => (
                format!("the halves of {device} differ in {tracks} tracks"),
                format!(
                    "{} has them copied from here to the other array",
                    steps.typed(&format!("remote verify {device} --mark"))
                ),
            ),
            Self::Pages { endpoint } => (
                format!("array at {endpoint} answers with pages that have no end"),
                "compare its version with `twintrack --version`".to_owned(),
            ),
            Self::Usage(reason) => (reason.clone(), steps.usage()),
            Self::Stdout(error) => (
                format!("standard output cannot be written: {error}"),
                format!("see {} before you try again", steps.states()),
            ),
            Self::File { path, error } => {
                (format!("{} cannot be written: {error}", path.display()), "name a place that can".to_owned())
            }
            Self::Runtime(error) => (
                format!("this process cannot start: {error}"),
                "look at its limits of memory, files and processes".to_owned(),
            ),
        };
        Told { code: self.code(), reason: printable(&reason), next: printable(&next) }
    }

    fn code(&self) -> String {
        match self {
            Self::Array(error) | Self::Establish { cause: error, .. } | Self::Create { cause: error, .. } => {
                code(error)
            }
            Self::Differs { .. } => "differs".to_owned(),
            Self::Pages { .. } => "no-answer".to_owned(),
            Self::Usage(_) => "usage".to_owned(),
            Self::Stdout(_) | Self::File { .. } | Self::Runtime(_) => "local".to_owned(),
        }
    }
}

/// A refusal's own, `unreachable`, `tls` or `no-answer`.
fn code(error: &ArrayError) -> String {
    match error {
        ArrayError::Refused(Refusal { code, .. }) => {
            serde_json::to_string(code).unwrap_or_default().trim_matches('"').to_owned()
        }
        ArrayError::Unreachable { .. } => "unreachable".to_owned(),
        ArrayError::Tls { .. } => "tls".to_owned(),
        ArrayError::NotHttp { .. }
        | ArrayError::Timeout { .. }
        | ArrayError::Cut { .. }
        | ArrayError::BrokenOff { .. }
        | ArrayError::Protocol { .. } => "no-answer".to_owned(),
    }
}

fn established(step: EstablishStep, pair: Option<&str>, cause: &ArrayError) -> String {
    match (step, pair) {
        (EstablishStep::VirtualDevice { .. }, Some(pair)) => {
            format!("establish failed at the virtual device of {pair}: {cause}")
        }
        (EstablishStep::Register { .. }, Some(pair)) => {
            format!("establish failed at register {pair}: {cause}")
        }
        (EstablishStep::Relate { .. }, Some(pair)) => format!("establish failed at relate {pair}: {cause}"),
        (step, _) => format!("establish failed at {step}: {cause}"),
    }
}

fn next_of_establish(cause: &ArrayError, leftovers: &[Leftover], steps: &Steps) -> String {
    if leftovers.is_empty() {
        return format!("all was undone; {}", next(cause, steps));
    }
    let left: Vec<_> = leftovers.iter().map(Leftover::to_string).collect();
    format!("all was undone, perhaps not {}: see {}", left.join(", "), steps.states())
}

fn next(error: &ArrayError, steps: &Steps) -> String {
    match error {
        ArrayError::Refused(refusal) => steps.after(refusal),
        ArrayError::Unreachable { endpoint, kind } => unreachable(endpoint, *kind),
        ArrayError::Tls { endpoint, failure } => tls(endpoint, failure),
        ArrayError::NotHttp { endpoint } => {
            format!("if it listens with TLS, write {}", https(endpoint))
        }
        ArrayError::Timeout { .. } => format!("{}, or give it longer by --timeout", steps.look()),
        ArrayError::Cut { .. } => steps.look(),
        ArrayError::BrokenOff { .. } => {
            "throw away what came, and give the command again; if it breaks off there again, see the array's log"
                .to_owned()
        }
        ArrayError::Protocol { .. } => {
            "check that management listens there, and compare its version with `twintrack --version`"
                .to_owned()
        }
    }
}

/// How it is named if it listens with TLS.
fn https(endpoint: &Endpoint) -> String {
    let place = endpoint.to_string();
    format!("`-a https://{} --ca FILE`", place.trim_start_matches("tcp:"))
}

fn tls(endpoint: &Endpoint, failure: &TlsFailure) -> String {
    match failure {
        TlsFailure::UnknownIssuer => {
            "name the certificate of the CA that signed the array's (or its own, if it is its own CA) by --ca or \
             TWINTRACK_CA"
                .to_owned()
        }
        TlsFailure::WrongName { .. } => {
            "name the array by a name or address that its certificate has as subject alternative name".to_owned()
        }
        TlsFailure::NotValidNow => {
            "compare the clocks; see the dates by `openssl x509 -dates -noout -in CERTIFICATE`".to_owned()
        }
        TlsFailure::NotTls => format!("if it listens without TLS, write `-a {endpoint}`"),
        TlsFailure::CertificateRefused | TlsFailure::Other { .. } => {
            "see the array's log, with log.level = \"debug\" in its settings".to_owned()
        }
    }
}

fn unreachable(endpoint: &Endpoint, kind: io::ErrorKind) -> String {
    let Endpoint::Unix(path) = endpoint else {
        return "check host and port, and that the daemon runs and listens there".to_owned();
    };
    match kind {
        io::ErrorKind::PermissionDenied => {
            "a daemon's sockets are its owner's: run this as the user that runs it".to_owned()
        }
        io::ErrorKind::NotADirectory => {
            "name the daemon's folder, or write unix:PATH for a socket".to_owned()
        }
        io::ErrorKind::InvalidInput => {
            "a socket's path has at most 107 bytes: use a shorter one, from the folder above perhaps"
                .to_owned()
        }
        _ => {
            let folder = path.parent().unwrap_or(path).display();
            format!("start the daemon by `twintrackd {folder}`, or name another array by `-a`")
        }
    }
}
