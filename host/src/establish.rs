//! *Establish* (D18, Fig. 25): one call for what takes several commands.

use std::fmt;

use thiserror::Error;
use twintrack_link::manage::{Activation, GroupMode, RefusalCode, SessionInfo, TrackRange};

use crate::array::{ArrayClient, ArrayError};
use crate::dial::Dial;

/// A standard device and the virtual device that is to show it as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// The standard device's name.
    pub standard: String,
    /// The tracks of it that are shown (D19); `None`: all. Several pairs with tracks may have one virtual device, which shows
    /// them one after the other.
    pub tracks: Option<TrackRange>,
    /// The virtual device's name; it is created if there is none.
    pub virtual_device: String,
    /// A new name for the virtual device (D9).
    pub new_name: Option<String>,
    /// Keeps hosts off the virtual device (D9).
    pub offline: bool,
}

impl Pair {
    /// Online, and no new name.
    pub fn new(standard: &str, virtual_device: &str) -> Self {
        Self {
            standard: standard.to_owned(),
            tracks: None,
            virtual_device: virtual_device.to_owned(),
            new_name: None,
            offline: false,
        }
    }

    /// Of some tracks of the standard device only.
    #[must_use]
    pub fn part(self, first: u32, last: u32) -> Self {
        Self { tracks: Some(TrackRange { first, last }), ..self }
    }

    /// With a new name for the virtual device.
    #[must_use]
    pub fn renamed(self, name: &str) -> Self {
        Self { new_name: Some(name.to_owned()), ..self }
    }

    /// With hosts kept off the virtual device.
    #[must_use]
    pub fn offline(self) -> Self {
        Self { offline: true, ..self }
    }
}

/// Where an *Establish* failed. `pair` counts from 0 in the list that was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EstablishStep {
    /// *Begin group*.
    Begin,
    /// Looking for a virtual device, or creating it.
    VirtualDevice {
        /// Of which pair.
        pair: usize,
    },
    /// *Register*.
    Register {
        /// Of which pair.
        pair: usize,
    },
    /// *Relate*.
    Relate {
        /// Of which pair.
        pair: usize,
    },
    /// *Process group*.
    Process,
}

impl fmt::Display for EstablishStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Begin => write!(f, "begin group"),
            Self::VirtualDevice { pair } => write!(f, "virtual device of pair {pair}"),
            Self::Register { pair } => write!(f, "register pair {pair}"),
            Self::Relate { pair } => write!(f, "relate pair {pair}"),
            Self::Process => write!(f, "process group"),
        }
    }
}

/// What an *Establish* that failed could not undo. It has to be removed by hand, if it is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leftover {
    /// An open group; cancelling it activates nothing.
    Group(u32),
    /// A session.
    Session(u32),
    /// Sessions of a group on a standard device, which could not be listed.
    SessionsOf {
        /// The standard device.
        standard: String,
        /// The group.
        group: u32,
    },
    /// A virtual device that was created or renamed.
    VirtualDevice(String),
}

impl fmt::Display for Leftover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Group(group) => write!(f, "group {group}"),
            Self::Session(session) => write!(f, "session {session}"),
            Self::SessionsOf { standard, group } => write!(f, "sessions of group {group} on {standard}"),
            Self::VirtualDevice(name) => write!(f, "virtual device {name}"),
        }
    }
}

/// An *Establish* failed. All that it had done is undone, but for the leftovers.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("establish failed at {step}: {cause}{}", Leftovers(leftovers))]
pub struct EstablishError {
    /// Where.
    pub step: EstablishStep,
    /// Why.
    #[source]
    pub cause: ArrayError,
    /// What could not be undone, in the order in which it was made.
    pub leftovers: Vec<Leftover>,
}

struct Leftovers<'a>(&'a [Leftover]);

impl fmt::Display for Leftovers<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, leftover) in self.0.iter().enumerate() {
            write!(f, "{}{leftover}", if n == 0 { "; left behind: " } else { ", " })?;
        }
        Ok(())
    }
}

/// Gives each standard device of `pairs` a virtual device that shows it as it is at one instant, or one by one, as
/// `mode` says. The sessions come back in the order of the pairs.
///
/// *Begin group*; for each pair a virtual device if there is none, *Register*, *Relate*; then *Process group*. If a step
/// fails, what was done is undone: the group's sessions are removed, also those of a call whose outcome is not known, the
/// virtual devices that this call created are deleted, and the group is cancelled. A caller that drops the future undoes
/// nothing, and a *Begin group* whose outcome is not known may leave an empty group, whose number nobody knows.
pub async fn establish<D: Dial>(
    array: &ArrayClient<D>,
    pairs: &[Pair],
    mode: GroupMode,
) -> Result<Vec<SessionInfo>, EstablishError> {
    let group = array.group_begin().await.map_err(|cause| EstablishError {
        step: EstablishStep::Begin,
        cause,
        leftovers: Vec::new(),
    })?;
    let mut attempt =
        Attempt { array, pairs, group, created: Vec::new(), sessions: Vec::new(), standards: 0 };
    match attempt.run(mode).await {
        Ok(sessions) => Ok(sessions),
        Err((step, cause)) => {
            let leftovers = attempt.undo().await;
            Err(EstablishError { step, cause, leftovers })
        }
    }
}

struct Attempt<'a, D> {
    array: &'a ArrayClient<D>,
    pairs: &'a [Pair],
    group: u32,
    /// Pairs whose virtual device this call created, or may have.
    created: Vec<usize>,
    /// The sessions of the first pairs.
    sessions: Vec<u32>,
    /// On the standard devices of that many pairs sessions have been, or may have been, registered.
    standards: usize,
}

type Failed = (EstablishStep, ArrayError);

impl<D: Dial> Attempt<'_, D> {
    async fn run(&mut self, mode: GroupMode) -> Result<Vec<SessionInfo>, Failed> {
        for (n, pair) in self.pairs.iter().enumerate() {
            self.virtual_device(n)
                .await
                .map_err(|cause| (EstablishStep::VirtualDevice { pair: n }, cause))?;
            self.standards = n + 1;
            let registered = match pair.tracks {
                None => self.array.session_register(&pair.standard, Some(self.group)).await,
                Some(tracks) => {
                    self.array.session_register_part(&pair.standard, Some(self.group), tracks).await
                }
            };
            let session = registered.map_err(|cause| (EstablishStep::Register { pair: n }, cause))?.id;
            self.sessions.push(session);
            self.array
                .session_relate(session, &pair.virtual_device)
                .await
                .map_err(|cause| (EstablishStep::Relate { pair: n }, cause))?;
        }
        let options = self
            .pairs
            .iter()
            .zip(&self.sessions)
            .filter(|(pair, _)| pair.new_name.is_some() || pair.offline)
            .map(|(pair, &session)| Activation {
                session,
                name: pair.new_name.clone(),
                offline: pair.offline,
            })
            .collect();
        let mut active = self
            .array
            .group_process(self.group, mode, options)
            .await
            .map_err(|cause| (EstablishStep::Process, cause))?;
        active.sort_by_key(|session| self.sessions.iter().position(|&id| id == session.id));
        Ok(active)
    }

    async fn virtual_device(&mut self, pair: usize) -> Result<(), ArrayError> {
        let name = &self.pairs[pair].virtual_device;
        match self.array.device_show(name).await {
            Err(ArrayError::Refused(refusal)) if refusal.code == RefusalCode::NotFound => {}
            other => return other.map(drop),
        }
        let created = self.array.device_create_virtual(name).await;
        if created.as_ref().map_or_else(ArrayError::is_outcome_unknown, |_| true) {
            self.created.push(pair);
        }
        created.map(drop)
    }

    /// What could not be undone.
    async fn undo(&self) -> Vec<Leftover> {
        let mut leftovers = Vec::new();
        let mut renamed = vec![false; self.pairs.len()];
        self.remove_sessions(&mut renamed, &mut leftovers).await;
        self.give_back_names(&renamed, &mut leftovers).await;
        // Last, for from then on a session no longer says that it was the group's: not while some could not be listed.
        let unlisted = leftovers.iter().any(|leftover| matches!(leftover, Leftover::SessionsOf { .. }));
        if unlisted || !self.cancel_group().await {
            leftovers.insert(0, Leftover::Group(self.group));
        }
        leftovers
    }

    /// Whether the group is closed now; a *Process group* whose outcome is not known may have done it.
    async fn cancel_group(&self) -> bool {
        match self.array.group_cancel(self.group).await {
            Ok(_) => true,
            Err(ArrayError::Refused(refusal)) => refusal.code == RefusalCode::NotFound,
            Err(_) => false,
        }
    }

    /// Removes all sessions of the group, newest first, and notes whose virtual device has its new name already.
    async fn remove_sessions(&self, renamed: &mut [bool], leftovers: &mut Vec<Leftover>) {
        for pair in self.pairs[..self.standards].iter().rev() {
            let found = match self.array.session_list(Some(&pair.standard)).await {
                Ok(found) => found,
                Err(ArrayError::Refused(refusal)) if refusal.code == RefusalCode::NotFound => continue,
                Err(_) => {
                    let standard = pair.standard.clone();
                    leftovers.push(Leftover::SessionsOf { standard, group: self.group });
                    continue;
                }
            };
            for session in found {
                // The group is forgotten once a session is active; its number is not.
                if session.group != Some(self.group) && !self.sessions.contains(&session.id) {
                    continue;
                }
                let ours = self.sessions.iter().position(|&id| id == session.id);
                if let (Some(n), Some(name)) = (ours, &session.virtual_device) {
                    renamed[n] |= *name != self.pairs[n].virtual_device;
                }
                match self.array.session_remove(session.id).await {
                    Ok(()) => {}
                    Err(ArrayError::Refused(refusal)) if refusal.code == RefusalCode::NotFound => {}
                    Err(_) => leftovers.push(Leftover::Session(session.id)),
                }
            }
        }
    }

    /// Deletes the virtual devices that were created; the others get their old names back.
    async fn give_back_names(&self, renamed: &[bool], leftovers: &mut Vec<Leftover>) {
        for (n, pair) in self.pairs.iter().enumerate().rev() {
            let same = |other: &Pair| other.virtual_device == pair.virtual_device;
            // Several parts have one.
            if self.pairs[..n].iter().any(same) {
                continue;
            }
            let now = self.pairs.iter().zip(renamed).filter(|(other, renamed)| **renamed && same(other));
            let now = now.filter_map(|(other, _)| other.new_name.as_ref()).next();
            let name = now.unwrap_or(&pair.virtual_device);
            let undone = if self.created.contains(&n) {
                self.array.device_delete(name).await
            } else if now.is_some() {
                self.array.device_rename(name, &pair.virtual_device).await.map(drop)
            } else {
                continue;
            };
            match undone {
                Ok(()) => {}
                Err(ArrayError::Refused(refusal)) if refusal.code == RefusalCode::NotFound => {}
                Err(_) => leftovers.push(Leftover::VirtualDevice(name.clone())),
            }
        }
    }
}
