//! The state of a pair on four axes, each with its transition table as a pure function: who serves ([`Role`]), the
//! link ([`LinkState`]), the data ([`DataState`]) and the cause ([`Cause`]: why nothing moves). `next` gives the state
//! after an event, `None` if the event does not belong to the state. The operator's name for it all is
//! [`PairStatus`], which follows from the four. Every state has an exit (F5).

use std::fmt;

use super::{Half, Halt, Role};

/// What happens to the role of a half.
///
/// ```text
///             Release    Yield      Take    TakeBack   Force
/// Owner       Released   Standby    -       -          Owner
/// Standby     -          -          Owner   -          Owner
/// Released    -          Standby    -       Owner      Owner
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RoleEvent {
    /// A planned failover begins: this half gives the volume up.
    Release,
    /// The peer owns the volume: it took it, or was forced to and this half was not, or somebody chose it.
    Yield,
    /// The peer has released the volume: this half takes it.
    Take,
    /// The peer has not taken what was released, and says so: the failover is off.
    TakeBack,
    /// A person says that the peer is out of order. An owner that was restarted may serve again by it, too.
    Force,
}

impl RoleEvent {
    /// All events.
    pub const ALL: [Self; 5] = [Self::Release, Self::Yield, Self::Take, Self::TakeBack, Self::Force];
}

impl Role {
    /// All roles.
    pub const ALL: [Self; 3] = [Self::Owner, Self::Standby, Self::Released];

    /// The table at [`RoleEvent`].
    pub fn next(self, event: RoleEvent) -> Option<Self> {
        match (self, event) {
            (Self::Owner, RoleEvent::Release) => Some(Self::Released),
            (Self::Owner | Self::Released, RoleEvent::Yield) => Some(Self::Standby),
            (Self::Standby, RoleEvent::Take) => Some(Self::Owner),
            (Self::Released, RoleEvent::TakeBack) => Some(Self::Owner),
            (_, RoleEvent::Force) => Some(Self::Owner),
            _ => None,
        }
    }

    /// Whether one event leads from this role to that one: [`RoleEvent::Force`], or any other.
    pub fn may_become(self, to: Self, forced: bool) -> bool {
        let events = RoleEvent::ALL.iter().filter(|event| (**event == RoleEvent::Force) == forced);
        events.into_iter().any(|event| self.next(*event) == Some(to))
    }
}

/// Which half serves hosts, as far as this half knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Serving {
    /// The source volume's: the usual.
    R1,
    /// The destination volume's, after a failover.
    R2,
    /// None: a failover is under way.
    Nobody,
}

impl Serving {
    /// All values.
    pub const ALL: [Self; 3] = [Self::R1, Self::R2, Self::Nobody];

    /// From which half this is and its role.
    pub fn of(half: Half, role: Role) -> Self {
        let serving = match role {
            Role::Owner => half,
            Role::Standby => half.other(),
            Role::Released => return Self::Nobody,
        };
        match serving {
            Half::R1 => Self::R1,
            Half::R2 => Self::R2,
        }
    }
}

/// The link to the peer, for one pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LinkState {
    /// There is none; it is dialled again.
    Down,
    /// A new epoch: both sides say what they have; no data flow.
    Agreeing,
    /// Both have committed what follows from that.
    Up,
}

/// What happens to the link.
///
/// ```text
///             Opened     Agreed   Lost
/// Down        Agreeing   -        -
/// Agreeing    Agreeing   Up       Down
/// Up          Agreeing   -        Down
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LinkEvent {
    /// A new connection, and so a new epoch.
    Opened,
    /// Both sides have committed what follows from what they said.
    Agreed,
    /// The connection ended, or the peer was silent for too long.
    Lost,
}

impl LinkEvent {
    /// All events.
    pub const ALL: [Self; 3] = [Self::Opened, Self::Agreed, Self::Lost];
}

impl LinkState {
    /// All states.
    pub const ALL: [Self; 3] = [Self::Down, Self::Agreeing, Self::Up];

    /// The table at [`LinkEvent`].
    pub fn next(self, event: LinkEvent) -> Option<Self> {
        match (self, event) {
            (_, LinkEvent::Opened) => Some(Self::Agreeing),
            (Self::Agreeing, LinkEvent::Agreed) => Some(Self::Up),
            (Self::Agreeing | Self::Up, LinkEvent::Lost) => Some(Self::Down),
            _ => None,
        }
    }
}

/// How the data here stand to the peer's, as far as this half knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DataState {
    /// They are the same, but for writes under way.
    Same,
    /// The peer lacks tracks that are here.
    Owed,
    /// Tracks that the peer has are lacking here; or a copy into this half is not complete.
    Lacked,
    /// Both at once: a half that took over before it had everything, and was written since.
    Crossed,
    /// Both were written alone.
    Diverged,
}

/// What happens to the data.
///
/// ```text
///             Owe       Lack      Paid     Fetched   Diverge    KeepHere   KeepThere
/// Same        Owed      Lacked    -        -         Diverged   -          -
/// Owed        Owed      Crossed   Same     -         Diverged   -          -
/// Lacked      Crossed   Lacked    -        Same      Diverged   -          -
/// Crossed     Crossed   Crossed   Lacked   Owed      Diverged   -          -
/// Diverged    -         -         -        -         -          Owed       Lacked
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DataEvent {
    /// A track was written that the peer lacks.
    Owe,
    /// The peer has a track that is lacking here.
    Lack,
    /// The peer has the last track that was owed.
    Paid,
    /// The last track that was lacking is here.
    Fetched,
    /// The lineages show that both sides were written alone.
    Diverge,
    /// Somebody chose the data here.
    KeepHere,
    /// Somebody chose the peer's data.
    KeepThere,
}

impl DataEvent {
    /// All events.
    pub const ALL: [Self; 7] =
        [Self::Owe, Self::Lack, Self::Paid, Self::Fetched, Self::Diverge, Self::KeepHere, Self::KeepThere];
}

impl DataState {
    /// All states.
    pub const ALL: [Self; 5] = [Self::Same, Self::Owed, Self::Lacked, Self::Crossed, Self::Diverged];

    /// The table at [`DataEvent`].
    pub fn next(self, event: DataEvent) -> Option<Self> {
        match (self, event) {
            (Self::Same | Self::Owed, DataEvent::Owe) => Some(Self::Owed),
            (Self::Same | Self::Lacked, DataEvent::Lack) => Some(Self::Lacked),
            (Self::Lacked | Self::Crossed, DataEvent::Owe) => Some(Self::Crossed),
            (Self::Owed | Self::Crossed, DataEvent::Lack) => Some(Self::Crossed),
            (Self::Owed, DataEvent::Paid) | (Self::Lacked, DataEvent::Fetched) => Some(Self::Same),
            (Self::Crossed, DataEvent::Paid) => Some(Self::Lacked),
            (Self::Crossed, DataEvent::Fetched) => Some(Self::Owed),
            (Self::Diverged, DataEvent::KeepHere) => Some(Self::Owed),
            (Self::Diverged, DataEvent::KeepThere) => Some(Self::Lacked),
            (Self::Diverged, _) => None,
            (_, DataEvent::Diverge) => Some(Self::Diverged),
            _ => None,
        }
    }

    /// From what a half keeps: whether something is owed, whether something is lacking, whether both sides were
    /// written alone.
    pub fn of(owed: bool, lacked: bool, diverged: bool) -> Self {
        match (diverged, owed, lacked) {
            (true, ..) => Self::Diverged,
            (false, false, false) => Self::Same,
            (false, true, false) => Self::Owed,
            (false, false, true) => Self::Lacked,
            (false, true, true) => Self::Crossed,
        }
    }
}

/// Why nothing moves between the halves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// It moves, or would if there were a link.
    Moving,
    /// It does not, durably.
    Halted(Halt),
}

impl From<Option<Halt>> for Cause {
    fn from(halt: Option<Halt>) -> Self {
        halt.map_or(Self::Moving, Self::Halted)
    }
}

/// What happens to the cause. The operator's will outlasts what the arrays notice; a divergence outlasts all.
///
/// ```text
///             Suspend   Split  LinkLost  PeerFailed  NoSpace  Freeze  Diverge   Agreed  Resume  Resolve
/// Moving      Operator  Split  Link      Peer        Space    Frozen  Diverged  Moving  -       -
/// Operator    -         Split  -         -           -        -       Diverged  -       Moving  -
/// Link        Operator  Split  -         -           -        Frozen  Diverged  Moving  Moving  -
/// Peer        Operator  Split  -         -           -        Frozen  Diverged  Moving  Moving  -
/// Space       Operator  Split  -         -           -        Frozen  Diverged  Moving  Moving  -
/// Split       Operator  -      -         -           -        -       Diverged  -       Moving  -
/// Frozen      Operator  Split  -         -           -        -       Diverged  Moving  Moving  -
/// Diverged    -         -      -         -           -        -       -         -       -       Moving
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CauseEvent {
    /// The operator suspends the pair.
    Suspend,
    /// The operator splits the pair.
    Split,
    /// A write could not reach the peer: the link was lost.
    LinkLost,
    /// The peer failed to write.
    PeerFailed,
    /// The peer has no space left.
    NoSpace,
    /// A write could not reach the peer, and the policy of the group is to take no more.
    Freeze,
    /// The lineages show that both sides were written alone.
    Diverge,
    /// A new epoch was agreed on, or the peer says that what it lacked is there again.
    Agreed,
    /// The operator resumes the pair.
    Resume,
    /// Somebody chose whose data are kept.
    Resolve,
}

impl CauseEvent {
    /// All events.
    pub const ALL: [Self; 10] = [
        Self::Suspend,
        Self::Split,
        Self::LinkLost,
        Self::PeerFailed,
        Self::NoSpace,
        Self::Freeze,
        Self::Diverge,
        Self::Agreed,
        Self::Resume,
        Self::Resolve,
    ];
}

impl Cause {
    /// All states.
    pub const ALL: [Self; 8] = [
        Self::Moving,
        Self::Halted(Halt::Operator),
        Self::Halted(Halt::Link),
        Self::Halted(Halt::Peer),
        Self::Halted(Halt::Space),
        Self::Halted(Halt::Split),
        Self::Halted(Halt::Frozen),
        Self::Halted(Halt::Diverged),
    ];

    /// The table at [`CauseEvent`].
    pub fn next(self, event: CauseEvent) -> Option<Self> {
        use Halt::{Diverged, Frozen, Link, Operator, Peer, Space, Split};
        let noticed = matches!(self, Self::Moving | Self::Halted(Link | Peer | Space));
        let to = match (self, event) {
            (Self::Halted(Diverged), CauseEvent::Resolve) => return Some(Self::Moving),
            (Self::Halted(Diverged), _) => return None,
            (_, CauseEvent::Diverge) => Diverged,
            (Self::Halted(Operator), CauseEvent::Suspend) => return None,
            (_, CauseEvent::Suspend) => Operator,
            (Self::Halted(Split), CauseEvent::Split) => return None,
            (_, CauseEvent::Split) => Split,
            (Self::Moving, CauseEvent::LinkLost) => Link,
            (Self::Moving, CauseEvent::PeerFailed) => Peer,
            (Self::Moving, CauseEvent::NoSpace) => Space,
            (_, CauseEvent::Freeze) if noticed => Frozen,
            (_, CauseEvent::Agreed) if noticed => return Some(Self::Moving),
            (Self::Halted(Frozen), CauseEvent::Agreed) => return Some(Self::Moving),
            (Self::Halted(_), CauseEvent::Resume) => return Some(Self::Moving),
            _ => return None,
        };
        Some(Self::Halted(to))
    }
}

/// The operator's name for the state of a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PairStatus {
    /// Tracks that differ are being copied, either way.
    SyncInProg,
    /// R1 serves, R2 is the same.
    Synchronized,
    /// R1 serves, nothing moves though the link is up; what R2 lacks is noted.
    Suspended,
    /// R1 serves, there is no link; what R2 lacks is noted.
    Partitioned,
    /// The operator split the pair.
    Split,
    /// R2 serves, or is about to; nothing moves to R1.
    FailedOver,
    /// R2 serves, R1 is the same: a failback moves nothing.
    R1Updated,
    /// Both were written alone: somebody has to choose (F4).
    Diverged,
}

impl PairStatus {
    /// From the four axes.
    pub fn of(serving: Serving, link: LinkState, data: DataState, cause: Cause) -> Self {
        match (serving, link, data, cause) {
            (_, _, DataState::Diverged, _) | (_, _, _, Cause::Halted(Halt::Diverged)) => Self::Diverged,
            (_, _, _, Cause::Halted(Halt::Split)) => Self::Split,
            (Serving::Nobody, ..) => Self::FailedOver,
            (Serving::R1, LinkState::Up, DataState::Same, Cause::Moving) => Self::Synchronized,
            (Serving::R2, LinkState::Up, DataState::Same, Cause::Moving) => Self::R1Updated,
            (_, LinkState::Up, _, Cause::Moving) => Self::SyncInProg,
            (Serving::R2, ..) => Self::FailedOver,
            (Serving::R1, LinkState::Up, ..) => Self::Suspended,
            (Serving::R1, LinkState::Down | LinkState::Agreeing, ..) => Self::Partitioned,
        }
    }
}

impl fmt::Display for PairStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl fmt::Display for LinkState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Down => "down",
            Self::Agreeing => "agreeing",
            Self::Up => "up",
        })
    }
}

impl fmt::Display for DataState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Same => "same",
            Self::Owed => "owed",
            Self::Lacked => "lacked",
            Self::Crossed => "owed and lacked",
            Self::Diverged => "diverged",
        })
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Moving => f.write_str("none"),
            Self::Halted(halt) => fmt::Display::fmt(halt, f),
        }
    }
}

#[cfg(test)]
mod tests;
