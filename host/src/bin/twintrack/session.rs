//! `session`: register, relate, activate, or all in one; and what changed since.

use std::path::PathBuf;

use clap::{Subcommand, ValueHint};
use twintrack_core::{GroupId, SessionId};
use twintrack_host::manage::{
    Activation, PairPace, PinnedInfo, Refusal, RefusalCode, Restore, SessionInfo, SessionInfoState,
    TrackRange,
};
use twintrack_host::{ArrayError, EstablishError, EstablishStep, Pair, establish};
use twintrack_link::time::utc;

use crate::Context;
use crate::advice::Advice;
use crate::args::{self, Other};
use crate::changed;
use crate::device;
use crate::diff;
use crate::failure::Failure;
use crate::group;
use crate::output::Waiting;
use crate::read;
use crate::table::{Side, Table};

/// Commands on sessions.
#[derive(Debug, Subcommand)]
pub enum SessionCommand {
    /// Reserves a session on a standard device and prints its number
    Register {
        /// The standard device, or the tracks of it that the session is of
        #[arg(value_name = "DEVICE[:C/H-C/H]", value_parser = args::part)]
        standard: (String, Option<TrackRange>),
        /// The open group that it is to be activated with
        #[arg(long, value_parser = args::group)]
        group: Option<GroupId>,
    },
    /// Gives a registered session the virtual device that is to show it
    Relate {
        /// The session
        #[arg(value_parser = args::session)]
        session: SessionId,
        /// The virtual device
        #[arg(value_name = "VIRTUAL")]
        virtual_device: String,
        /// Only if the session waits in this group
        #[arg(long, value_parser = args::group)]
        group: Option<GroupId>,
    },
    /// Activates related sessions, all at one instant: they are copies from then on
    Activate {
        /// The sessions
        #[arg(value_name = "SESSION", required = true, value_parser = args::session)]
        sessions: Vec<SessionId>,
        /// A new name for the virtual device; for several sessions once for each, in their order
        #[arg(long = "name", value_name = "NAME")]
        names: Vec<String>,
        /// Keeps hosts off the virtual devices
        #[arg(long)]
        offline: bool,
    },
    /// Registers, relates and activates in one go, all pairs at one instant
    ///
    /// Virtual devices that do not exist are created. If a step fails, all is undone. Several parts of devices with one virtual
    /// device make it up, one behind the other.
    Establish {
        /// A standard device, or its tracks from a cylinder and head to another, and the virtual device that is to show it as it
        /// is now
        #[arg(value_name = "STANDARD[:C/H-C/H]=VIRTUAL", required = true, value_parser = args::pair)]
        pairs: Vec<Pair>,
        /// A new name for the virtual device; for several pairs once for each, in their order, the same one for parts of one
        /// device
        #[arg(long = "name", value_name = "NAME")]
        names: Vec<String>,
        /// Keeps hosts off the virtual devices
        #[arg(long)]
        offline: bool,
        /// Each pair at an instant of its own
        #[arg(long)]
        one_by_one: bool,
    },
    /// Makes devices what sessions show, all at one instant; they are usable at once
    ///
    /// What a standard device was is kept as a session, so that this can be undone; the session that is restored is used up.
    Restore {
        /// A session; and the device that is to become what it shows, if that is not its own standard device
        #[arg(value_name = "SESSION[=DEVICE]", required = true, value_parser = args::restore)]
        restores: Vec<(SessionId, Option<String>)>,
        /// The sessions stay
        #[arg(long)]
        keep: bool,
        /// What the devices were is not kept
        #[arg(long)]
        discard_before: bool,
        /// A new name for the device; for several sessions once for each, in their order
        #[arg(long = "name", value_name = "NAME")]
        names: Vec<String>,
        /// Keeps hosts off the devices
        #[arg(long)]
        offline: bool,
        /// Tracks that are moved at a time if the sessions' are in another pool: slow (1), medium (3), fast (15), or adaptive
        #[arg(long, default_value = "fast", value_parser = args::pace)]
        pace: PairPace,
    },
    /// Ends a session's I/O and cost; its changed tracks stay to be read
    Deactivate {
        /// The session
        #[arg(value_parser = args::session)]
        session: SessionId,
    },
    /// Removes a session and gives back the space that only it needs; its virtual device stays
    Remove {
        /// The session
        #[arg(value_parser = args::session)]
        session: SessionId,
    },
    /// Lists sessions
    List {
        /// Only those of this standard device
        standard: Option<String>,
    },
    /// Prints which tracks changed, as ranges: 7, 12-40
    ///
    /// On the standard device since the activation, or through the virtual device; for a deactivated session until then.
    Changed {
        /// The session, active or deactivated
        #[arg(value_parser = args::session)]
        session: SessionId,
    },
    /// Prints which bytes differ between two sessions of a device, or between one and the device now
    ///
    /// What was written through the virtual devices counts. What was written may be told of as a whole track.
    Diff {
        /// The session, active
        #[arg(value_parser = args::session)]
        session: SessionId,
        /// Another one of the same standard device, or `now`
        #[arg(value_name = "SESSION|now", default_value = "now", value_parser = args::other)]
        other: Other,
    },
    /// Writes changed tracks of a deactivated session, as they were, to standard output
    ///
    /// One behind the other, in the order in which they are named. If one of them is no changed track, nothing is written.
    Read {
        /// The session
        #[arg(value_parser = args::session)]
        session: SessionId,
        /// Numbers of tracks, or ranges of them, as `session changed` prints them
        #[arg(value_name = "TRACK|FIRST-LAST", required = true)]
        tracks: Vec<TrackRange>,
        /// Writes to a file instead
        #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
        output: Option<PathBuf>,
    },
}

impl SessionCommand {
    /// Where its failures lead.
    pub fn advice(&self) -> Advice {
        let sessions = |command| Advice::new(command, &["session list"], &["session list"]);
        match self {
            Self::Register { group: None, .. } => {
                Advice::new("session register", &["device list"], &["device list", "session list"])
            }
            Self::Register { group: Some(_), .. } => Advice::new(
                "session register",
                &["device list", "group list"],
                &["device list", "session list"],
            ),
            Self::Relate { .. } => {
                let things = ["session list", "device list"];
                Advice::new("session relate", &things, &things)
            }
            Self::Activate { .. } => Advice::new("session activate", &["session list"], &["session list"]),
            Self::Establish { .. } => Advice::new(
                "session establish",
                &["device list"],
                &["session list", "device list", "group list"],
            ),
            Self::Restore { .. } => {
                let things = ["session list", "device list"];
                Advice::new("session restore", &things, &things)
            }
            Self::Deactivate { .. } => sessions("session deactivate"),
            Self::Remove { .. } => sessions("session remove"),
            Self::List { .. } => Advice::new("session list", &["device list"], &["session list"]),
            Self::Changed { .. } => sessions("session changed"),
            Self::Diff { .. } => sessions("session diff"),
            Self::Read { session, .. } => {
                let changed = format!("session changed {session}");
                Advice::new("session read", &["session list", &changed], &["session list"])
            }
        }
    }

    /// Carries it out.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let array = &context.array;
        let sessions = match self {
            Self::Register { standard, group } => {
                let ((standard, tracks), group) = (standard, group.map(|group| group.0));
                let session = match tracks {
                    None => array.session_register(&standard, group).await?,
                    Some(tracks) => array.session_register_part(&standard, group, tracks).await?,
                };
                return context.output.show(&session, || format!("{}\n", SessionId(session.id)));
            }
            Self::Relate { session, virtual_device, group } => {
                if let Some(group) = group {
                    check_group(context, session, group).await?;
                }
                let related = array.session_relate(session.0, &virtual_device).await?;
                return show_one(context, related);
            }
            Self::Activate { sessions, names, offline } => {
                let names = new_names(names, sessions.len(), "sessions")?;
                let activation =
                    |(session, name): (SessionId, _)| Activation { session: session.0, name, offline };
                array.session_activate(sessions.into_iter().zip(names).map(activation).collect()).await?
            }
            Self::Establish { pairs, names, offline, one_by_one } => {
                establish_all(context, pairs, names, offline, one_by_one).await?
            }
            Self::Restore { restores, keep, discard_before, names, offline, pace } => {
                let names = new_names(names, restores.len(), "sessions")?;
                let restore = |((session, to), name): ((SessionId, Option<String>), _)| Restore {
                    session: session.0,
                    to,
                    keep,
                    discard_before,
                    name,
                    offline,
                    pace: Some(pace),
                };
                let restores = restores.into_iter().zip(names).map(restore).collect();
                let devices = array.session_restore(restores).await?;
                return context.output.show(&devices, || device::table(&devices).to_string());
            }
            Self::Deactivate { session } => {
                return show_one(context, array.session_deactivate(session.0).await?);
            }
            Self::Remove { session } => {
                array.session_remove(session.0).await?;
                return context.output.done();
            }
            Self::List { standard } => array.session_list(standard.as_deref()).await?,
            Self::Changed { session } => return changed::print(context, session).await,
            Self::Diff { session, other } => return diff::print(context, session, other).await,
            Self::Read { session, tracks, output } => {
                return read::print(context, session, tracks, output).await;
            }
        };
        context.output.show(&sessions, || table(&sessions))
    }
}

/// Sessions, one a line; with what they are pinned for, if one is.
pub fn table(sessions: &[SessionInfo]) -> String {
    let columns = ["SESSION", "STANDARD", "VIRTUAL", "STATE", "GROUP", "ACTIVATED", "PINNED"]
        .map(|name| (name, Side::Left));
    let none = || "-".to_owned();
    let rows = sessions.iter().map(|session| {
        [
            SessionId(session.id).to_string(),
            args::part_text(&session.standard, session.tracks),
            session.virtual_device.clone().unwrap_or_else(none),
            state(session.state).to_owned(),
            session.group.map_or_else(none, |group| GroupId(group).to_string()),
            session.activated_ms.map_or_else(none, utc),
            session.pinned.as_ref().map_or_else(none, pinned),
        ]
    });
    if sessions.iter().any(|session| session.pinned.is_some()) {
        let mut table = Table::new(columns);
        rows.for_each(|row| table.row(row));
        return table.to_string();
    }
    let [columns @ .., _] = columns;
    let mut table = Table::new(columns);
    rows.for_each(|[row @ .., _]| table.row(row));
    table.to_string()
}

/// What a session is pinned for.
fn pinned(pinned: &PinnedInfo) -> String {
    match pinned.pair.as_str() {
        "" => pinned.what.name().to_owned(),
        pair => format!("{} of {pair}", pinned.what.name()),
    }
}

fn show_one(context: &Context, session: SessionInfo) -> Result<(), Failure> {
    context.output.show(&session, || table(std::slice::from_ref(&session)))
}

fn state(state: SessionInfoState) -> &'static str {
    match state {
        SessionInfoState::Registered => "registered",
        SessionInfoState::Related => "related",
        SessionInfoState::Prepared => "prepared",
        SessionInfoState::Active => "active",
        SessionInfoState::Deactivated => "deactivated",
        SessionInfoState::Failed => "failed",
        SessionInfoState::Removing => "removing",
    }
}

/// *Relate* itself takes no group: the session has been registered with it.
async fn check_group(context: &Context, session: SessionId, group: GroupId) -> Result<(), Failure> {
    let all = context.array.session_list(None).await?;
    match all.iter().find(|info| info.id == session.0) {
        Some(info) if info.group != Some(group.0) => {
            let reason = format!("{session} does not wait in {group}: register it with the group");
            Err(ArrayError::Refused(Refusal { code: RefusalCode::WrongState, reason }).into())
        }
        _ => Ok(()),
    }
}

/// A new name, or none, for each of `count` things.
fn new_names(names: Vec<String>, count: usize, things: &str) -> Result<Vec<Option<String>>, Failure> {
    if names.is_empty() {
        return Ok(vec![None; count]);
    }
    if names.len() != count {
        let given = names.len();
        return Err(Failure::Usage(format!(
            "--name is given {given} times for {count} {things}: give it once for each, in their order, or not at all"
        )));
    }
    Ok(names.into_iter().map(Some).collect())
}

async fn establish_all(
    context: &Context,
    pairs: Vec<Pair>,
    names: Vec<String>,
    offline: bool,
    one_by_one: bool,
) -> Result<Vec<SessionInfo>, Failure> {
    let names = new_names(names, pairs.len(), "pairs")?;
    let with = |(pair, new_name)| Pair { new_name, offline, ..pair };
    let pairs: Vec<_> = pairs.into_iter().zip(names).map(with).collect();
    let waiting = Waiting::new(format!("establishing {} of {}", pairs.len(), context.address));
    let established = establish(&context.array, &pairs, group::mode(one_by_one)).await;
    drop(waiting);
    established.map_err(|EstablishError { step, cause, leftovers }| {
        let number = match step {
            EstablishStep::VirtualDevice { pair }
            | EstablishStep::Register { pair }
            | EstablishStep::Relate { pair } => Some(pair),
            EstablishStep::Begin | EstablishStep::Process => None,
        };
        let pair = number.and_then(|number| pairs.get(number));
        let pair = pair
            .map(|pair| format!("{}={}", args::part_text(&pair.standard, pair.tracks), pair.virtual_device));
        Failure::Establish { step, pair, cause, leftovers }
    })
}
