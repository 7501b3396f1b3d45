//! The command line as a whole, and how words of it are read.

use std::fmt;
use std::path::PathBuf;
use std::time::UNIX_EPOCH;

use clap::{Parser, Subcommand, ValueHint};
use clap_complete::Shell;
use thiserror::Error;
use twintrack_core::{Geometry, GroupId, ScheduleId, SessionId, TRACKS_PER_CYLINDER, TrackNo};
use twintrack_host::Pair;
use twintrack_host::manage::{PairHalf, PairMode, PairPace, PairPolicy, TrackRange};

use crate::advice::Advice;
use crate::array::{ArrayCommand, PoolCommand};
use crate::device::DeviceCommand;
use crate::group::GroupCommand;
use crate::link::LinkCommand;
use crate::pair::PairCommand;
use crate::reach::Reach;
use crate::remote::RemoteCommand;
use crate::session::SessionCommand;

const AFTER: &str = "\
Array: if -a does not name it, TWINTRACK_ARRAY does; TWINTRACK_CA stands for --ca,
TWINTRACK_TOKEN_FILE for --token-file.
Sizes: 512, 64K, 64KiB, 10G, 1TiB; units are powers of 1024.
Exit codes:
  0  it was done
  1  the array refused it; standard error says why, and what to do next
  2  the command line makes no sense
  3  no array answered";

const AFTER_SESSION: &str = "\
A session is registered, then related, then active; deactivated, if only its changed tracks are of \
interest; then removed. `establish` does the first three steps at once. A session that failed lost its old \
tracks to a full pool: remove it.";

const AFTER_PAIR: &str = "\
A pair is paired and not copied, then copied at an instant: from then on both volumes are used, and what is written on \
either is noted. `resync` takes the secondary back; the next copy moves only what differs. In the same pool a copy \
moves nothing at all; to another pool it goes on in the background, at its pace.";

const AFTER_REMOTE: &str = "\
A pair is R1, the source volume, and R2, the destination volume, on two arrays that know each other by \
`link add`. Each command names the volume on the array that -a names, and most are for the array that \
serves the volume. `remote show` says why a pair is in its state, and what comes next.";

/// Manages a twintrack array: devices, instant copies of them, and pairs with devices of another array.
#[derive(Debug, Parser)]
#[command(name = "twintrack", version, after_help = AFTER)]
pub struct Cli {
    /// Which array.
    #[command(flatten)]
    pub reach: Reach,
    /// Prints answers and errors as JSON
    #[arg(long, global = true)]
    pub json: bool,
    /// How long to wait for an answer: 30, or as long as it takes for `remote verify`
    #[arg(
        long = "timeout",
        global = true,
        value_name = "SECONDS",
        value_parser = clap::value_parser!(u64).range(1..=86_400)
    )]
    pub timeout_s: Option<u64>,
    /// What about.
    #[command(subcommand)]
    pub noun: Noun,
}

/// What a command is about.
#[derive(Debug, Subcommand)]
pub enum Noun {
    /// The array itself
    #[command(subcommand)]
    Array(ArrayCommand),
    /// Pools: where devices and sessions take their space
    #[command(subcommand)]
    Pool(PoolCommand),
    /// Devices: standard ones have data, virtual ones show a session
    #[command(subcommand)]
    Device(DeviceCommand),
    /// Sessions: instant copies of standard devices
    #[command(subcommand, after_help = AFTER_SESSION)]
    Session(SessionCommand),
    /// Pairs: a volume, and another one of the same array that becomes what it is
    #[command(subcommand, after_help = AFTER_PAIR)]
    Pair(PairCommand),
    /// Groups: sessions that are activated at one instant
    #[command(subcommand)]
    Group(GroupCommand),
    /// Links: the other arrays that this one knows
    #[command(subcommand)]
    Link(LinkCommand),
    /// Remote pairs: a volume here and one on another array, with the same content
    #[command(subcommand, after_help = AFTER_REMOTE)]
    Remote(RemoteCommand),
    /// Prints completions for a shell
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Writes a man page for each command
    Man {
        /// Where to; the folder is made if it is not there
        #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
        folder: PathBuf,
    },
}

impl Noun {
    /// Where its failures lead.
    pub fn advice(&self) -> Advice {
        match self {
            Self::Array(command) => command.advice(),
            Self::Pool(command) => command.advice(),
            Self::Device(command) => command.advice(),
            Self::Session(command) => command.advice(),
            Self::Pair(command) => command.advice(),
            Self::Group(command) => command.advice(),
            Self::Link(command) => command.advice(),
            Self::Remote(command) => command.advice(),
            Self::Completions { .. } => Advice::new("completions", &[], &["array show"]),
            Self::Man { .. } => Advice::new("man", &[], &["array show"]),
        }
    }
}

/// A word of the command line is not what it has to be.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum WordError {
    /// Not a session.
    #[error("write a session's number, such as ses-4 or 4")]
    Session,
    /// Not a session, and not now.
    #[error("write a session's number, such as ses-4 or 4, or now")]
    Other,
    /// Not a group.
    #[error("write a group's number, such as grp-2 or 2")]
    Group,
    /// Not a pair.
    #[error(
        "write STANDARD=VIRTUAL: a standard device, and the virtual device that is to show it; for a part of it \
         STANDARD:C/H-C/H=VIRTUAL"
    )]
    Pair,
    /// Not a device, nor a part of one.
    #[error(
        "write DEVICE, or DEVICE:C/H-C/H for its tracks from a cylinder and head to another: heads go from 0 to {}",
        TRACKS_PER_CYLINDER - 1
    )]
    Part,
    /// Not a new name.
    #[error("write SESSION=NAME: a session of the group, and the new name of its virtual device")]
    Rename,
    /// Not a volume.
    #[error("write DEVICE for a volume on this array, DEVICE@LINK for one on another")]
    Volume,
    /// Not a session and a device.
    #[error("write SESSION for its own standard device, or SESSION=DEVICE for another device")]
    Restore,
    /// Not a pace.
    #[error("write slow, medium, fast or adaptive")]
    Pace,
    /// Not a schedule.
    #[error("write a schedule's number, such as sch-4 or 4")]
    Schedule,
    /// Not a time.
    #[error("write a time in UTC, such as 2026-12-01T02:00:00Z")]
    Time,
    /// Not a period.
    #[error("write a period of a second or more, such as 15m, 6h or 1day")]
    Period,
    /// Not a half.
    #[error("write r1 or r2")]
    Half,
    /// Not a mode.
    #[error("write synchronous or adaptive")]
    Mode,
    /// Not a policy.
    #[error("write continue or freeze")]
    Policy,
}

/// A session: `ses-4` or `4`.
pub fn session(text: &str) -> Result<SessionId, WordError> {
    number(text, "ses-").map(SessionId).ok_or(WordError::Session)
}

/// What a session is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Other {
    /// Another one.
    Session(SessionId),
    /// Its standard device.
    Now,
}

/// A session, or `now`.
pub fn other(text: &str) -> Result<Other, WordError> {
    match text {
        "now" => Ok(Other::Now),
        _ => session(text).map(Other::Session).map_err(|_| WordError::Other),
    }
}

/// A group: `grp-2` or `2`.
pub fn group(text: &str) -> Result<GroupId, WordError> {
    number(text, "grp-").map(GroupId).ok_or(WordError::Group)
}

/// A session, and the device that becomes what it shows: `ses-4`, or `ses-4=db-copy`.
pub fn restore(text: &str) -> Result<(SessionId, Option<String>), WordError> {
    if let Ok(session) = session(text) {
        return Ok((session, None));
    }
    let (left, device) = halves(text).ok_or(WordError::Restore)?;
    Ok((session(left).map_err(|_| WordError::Restore)?, Some(device.to_owned())))
}

/// A schedule: `sch-4` or `4`.
pub fn schedule(text: &str) -> Result<ScheduleId, WordError> {
    number(text, "sch-").map(ScheduleId).ok_or(WordError::Schedule)
}

/// A time in UTC, as ms since 1970: `2026-12-01T02:00:00Z`, or without the `Z`.
pub fn time(text: &str) -> Result<u64, WordError> {
    let since =
        humantime::parse_rfc3339_weak(text).ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    since.and_then(|since| u64::try_from(since.as_millis()).ok()).ok_or(WordError::Time)
}

/// A period, as ms: `15m`, `6h`, `1day`.
pub fn period(text: &str) -> Result<u64, WordError> {
    let period = humantime::parse_duration(text).ok();
    let period = period.and_then(|period| u64::try_from(period.as_millis()).ok());
    period.filter(|ms| *ms >= 1000).ok_or(WordError::Period)
}

/// `slow`, `medium`, `fast` or `adaptive`.
pub fn pace(text: &str) -> Result<PairPace, WordError> {
    let all = [PairPace::Slow, PairPace::Medium, PairPace::Fast, PairPace::Adaptive];
    all.into_iter().find(|pace| pace.name() == text).ok_or(WordError::Pace)
}

/// `r1` or `r2`, in either case.
pub fn half(text: &str) -> Result<PairHalf, WordError> {
    let named = |half: &PairHalf| half.name().eq_ignore_ascii_case(text);
    [PairHalf::R1, PairHalf::R2].into_iter().find(named).ok_or(WordError::Half)
}

/// `synchronous` or `adaptive`; `asynchronous`, too, for the array says that it is not there yet.
pub fn mode(text: &str) -> Result<PairMode, WordError> {
    let named = |mode: &PairMode| mode.name() == text;
    [PairMode::Synchronous, PairMode::Adaptive, PairMode::Asynchronous]
        .into_iter()
        .find(named)
        .ok_or(WordError::Mode)
}

/// `continue` or `freeze`.
pub fn policy(text: &str) -> Result<PairPolicy, WordError> {
    let named = |policy: &PairPolicy| policy.name() == text;
    [PairPolicy::Continue, PairPolicy::Freeze].into_iter().find(named).ok_or(WordError::Policy)
}

/// A standard device or a part of one, and its virtual device: `db=db-monday`, `db:0/0-9/14=db-monday`.
pub fn pair(text: &str) -> Result<Pair, WordError> {
    let (left, virtual_device) = halves(text).ok_or(WordError::Pair)?;
    let (standard, tracks) = part(left)?;
    Ok(Pair { tracks, ..Pair::new(&standard, virtual_device) })
}

/// A standard device, or some tracks of one: `db`, `db:0/0-9/14`.
pub fn part(text: &str) -> Result<(String, Option<TrackRange>), WordError> {
    let Some((standard, range)) = text.split_once(':') else { return Ok((text.to_owned(), None)) };
    let track = |text: &str| {
        let (cylinder, head) = text.split_once('/')?;
        let (cylinder, head) = (number(cylinder, "")?, number(head, "")?);
        let first = cylinder.checked_mul(TRACKS_PER_CYLINDER)?;
        (head < TRACKS_PER_CYLINDER).then(|| first.checked_add(head)).flatten()
    };
    let ends = range.split_once('-').and_then(|(first, last)| Some((track(first)?, track(last)?)));
    let (first, last) = ends.filter(|(first, last)| first <= last).ok_or(WordError::Part)?;
    Ok((standard.to_owned(), Some(TrackRange { first, last })))
}

/// A standard device, or a part of one, as [`part`] reads it.
pub fn part_text(standard: &str, tracks: Option<TrackRange>) -> String {
    let track = |track| {
        let (cylinder, head) = Geometry::cylinder_head(TrackNo(track));
        format!("{cylinder}/{head}")
    };
    let range = tracks.map(|tracks| format!(":{}-{}", track(tracks.first), track(tracks.last)));
    format!("{standard}{}", range.unwrap_or_default())
}

/// A session and a new name for its virtual device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rename {
    /// The session.
    pub session: SessionId,
    /// The name.
    pub name: String,
}

impl fmt::Display for Rename {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.session, self.name)
    }
}

/// `ses-4=db-tuesday`.
pub fn rename(text: &str) -> Result<Rename, WordError> {
    let (left, name) = halves(text).ok_or(WordError::Rename)?;
    let session = session(left).map_err(|_| WordError::Rename)?;
    Ok(Rename { session, name: name.to_owned() })
}

fn halves(text: &str) -> Option<(&str, &str)> {
    text.split_once('=').filter(|(left, right)| !left.is_empty() && !right.is_empty() && !right.contains('='))
}

fn number(text: &str, prefix: &str) -> Option<u32> {
    let digits = text.strip_prefix(prefix).unwrap_or(text);
    digits.chars().all(|c| c.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
}
