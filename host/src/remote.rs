//! Links to other arrays and remote pairs, as typed calls. What each does and answers is told at its [`Command`].

use twintrack_link::manage::{
    Answer, Command, LinkInfo, LinkTestInfo, NewDevice, PairHalf, PairMode, PairPace, PairPolicy, Refusal,
    RefusalCode, RemoteInfo, RemoteSnapshotInfo, VerifyInfo,
};

use crate::array::{ArrayClient, ArrayError};
use crate::commands::ask;
use crate::dial::Dial;

/// A remote pair to make of a volume here and one on another array (A1–A8).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRemote {
    /// The call's own number, chosen at random: with the same number it is done once at most, and answered the same (F2).
    pub request: u64,
    /// The volume here, that is on the array that is asked.
    pub device: String,
    /// The other array, by the name of its link here.
    pub peer: String,
    /// The volume there.
    pub peer_device: String,
    /// Which half the volume here is.
    pub half: PairHalf,
    /// Whose content both are to have (A3).
    pub from: PairHalf,
    /// The volume here is made.
    pub create_local: Option<NewDevice>,
    /// The volume there is made; of the size that the one here has.
    pub create_peer: Option<NewDevice>,
    /// How it is mirrored.
    pub mode: PairMode,
    /// What happens when a write cannot reach the other side.
    pub policy: PairPolicy,
    /// The consistency group.
    pub group: Option<String>,
}

impl NewRemote {
    /// Of two volumes that there are: the one here is R1, has the content, and is mirrored synchronously; if the other side
    /// is away, hosts go on.
    pub fn new(request: u64, device: &str, peer: &str, peer_device: &str) -> Self {
        Self {
            request,
            device: device.to_owned(),
            peer: peer.to_owned(),
            peer_device: peer_device.to_owned(),
            half: PairHalf::R1,
            from: PairHalf::R1,
            create_local: None,
            create_peer: None,
            mode: PairMode::Synchronous,
            policy: PairPolicy::Continue,
            group: None,
        }
    }
}

/// A point in time to make, of volumes here and of their other halves (F3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewSnapshot {
    /// The call's own number, chosen at random: with the same number it is done once at most, and answered the same (F2).
    pub request: u64,
    /// The volumes here.
    pub devices: Vec<String>,
    /// With all volumes of their consistency groups.
    pub whole_group: bool,
    /// What the virtual devices that show it are called on either array: the volume's name, a dot, and this.
    pub name: String,
    /// Keeps hosts off the virtual devices.
    pub offline: bool,
}

impl NewSnapshot {
    /// Of one volume; hosts may use it.
    pub fn new(request: u64, device: &str, name: &str) -> Self {
        let devices = vec![device.to_owned()];
        Self { request, devices, whole_group: false, name: name.to_owned(), offline: false }
    }
}

impl<D: Dial> ArrayClient<D> {
    /// Makes another array known. `endpoint`: where it listens for links, or `None`: it dials. `serial`: as it shows it, or
    /// `None`: whoever answers there first.
    pub async fn link_add(
        &self,
        name: &str,
        endpoint: Option<&str>,
        serial: Option<&str>,
    ) -> Result<LinkInfo, ArrayError> {
        let (endpoint, serial) = (endpoint.map(str::to_owned), serial.map(str::to_owned));
        let links: Vec<LinkInfo> =
            ask!(self, Command::LinkAdd { name: name.to_owned(), endpoint, serial }, Links)?;
        links.into_iter().next().ok_or_else(|| self.protocol(hyper::StatusCode::OK))
    }

    /// The links.
    pub async fn link_list(&self) -> Result<Vec<LinkInfo>, ArrayError> {
        ask!(self, Command::LinkList {}, Links)
    }

    /// Measures round trip and throughput with so many bytes there and back.
    pub async fn link_test(&self, name: &str, size_bytes: u64) -> Result<LinkTestInfo, ArrayError> {
        ask!(self, Command::LinkTest { name: name.to_owned(), size_bytes }, LinkTest)
    }

    /// Forgets an array with which there is no pair.
    pub async fn link_remove(&self, name: &str) -> Result<(), ArrayError> {
        self.done(&Command::LinkRemove { name: name.to_owned() }).await
    }

    /// Makes a pair; its content is copied in the background. If the outcome is not known, the same call tells it.
    pub async fn remote_create(&self, new: &NewRemote) -> Result<RemoteInfo, ArrayError> {
        let new = new.clone();
        let command = Command::RemoteCreate {
            request: new.request,
            device: new.device,
            peer: new.peer,
            peer_device: new.peer_device,
            half: new.half,
            from: new.from,
            create_local: new.create_local,
            create_peer: new.create_peer,
            mode: new.mode,
            policy: new.policy,
            group: new.group,
        };
        self.remote(&command).await
    }

    /// The pairs.
    pub async fn remote_list(&self) -> Result<Vec<RemoteInfo>, ArrayError> {
        ask!(self, Command::RemoteList {}, Remotes)
    }

    /// The pair of a volume here.
    pub async fn remote_show(&self, device: &str) -> Result<RemoteInfo, ArrayError> {
        self.remote(&Command::RemoteShow { device: device.to_owned() }).await
    }

    /// Nothing more moves until it is resumed; `split`: the sides are to stay apart.
    pub async fn remote_suspend(
        &self,
        device: &str,
        whole_group: bool,
        split: bool,
    ) -> Result<RemoteInfo, ArrayError> {
        self.remote(&Command::RemoteSuspend { device: device.to_owned(), whole_group, split }).await
    }

    /// What is owed moves again.
    pub async fn remote_resume(&self, device: &str, whole_group: bool) -> Result<RemoteInfo, ArrayError> {
        self.remote(&Command::RemoteResume { device: device.to_owned(), whole_group }).await
    }

    /// Changes how it is mirrored.
    pub async fn remote_mode(&self, device: &str, mode: PairMode) -> Result<RemoteInfo, ArrayError> {
        self.remote(&Command::RemoteMode { device: device.to_owned(), mode }).await
    }

    /// Changes how many tracks the array copies at a time.
    pub async fn remote_pace(&self, device: &str, pace: PairPace) -> Result<RemoteInfo, ArrayError> {
        self.remote(&Command::RemotePace { device: device.to_owned(), pace }).await
    }

    /// This array serves from now on, that of the other side no more, with all pairs of the consistency group. `force`: a
    /// person says that the other array is out of order. Back again is the same call at the other array.
    pub async fn remote_failover(&self, device: &str, force: bool) -> Result<Vec<RemoteInfo>, ArrayError> {
        ask!(self, Command::RemoteFailover { device: device.to_owned(), force }, Remotes)
    }

    /// R1 serves again, without loss: [`Self::remote_failover`], refused unless this array has R1.
    pub async fn remote_failback(&self, device: &str) -> Result<Vec<RemoteInfo>, ArrayError> {
        let info = self.remote_show(device).await?;
        if info.half == PairHalf::R1 {
            return self.remote_failover(device, false).await;
        }
        let reason = format!(
            "{} is R2, and failback makes R1 serve: ask the array that {} is here, for {}",
            info.device, info.peer, info.peer_device
        );
        Err(ArrayError::Refused(Refusal { code: RefusalCode::WrongState, reason }))
    }

    /// This array serves from now on, with what the volume was before a copy into it began, and so all pairs of its
    /// consistency group: the other array is out of order, as a person says, and the copy was not complete.
    pub async fn remote_go_back(&self, device: &str) -> Result<Vec<RemoteInfo>, ArrayError> {
        ask!(self, Command::RemoteGoBack { device: device.to_owned() }, Remotes)
    }

    /// One point in time of volumes on both arrays, which this one serves (F3): both have the same snapshot, or none. If the
    /// outcome is not known, the same call tells it.
    pub async fn remote_snapshot(&self, new: &NewSnapshot) -> Result<Vec<RemoteSnapshotInfo>, ArrayError> {
        let NewSnapshot { request, devices, whole_group, name, offline } = new.clone();
        ask!(self, Command::RemoteSnapshot { request, devices, whole_group, name, offline }, RemoteSnapshots)
    }

    /// Ends a split brain (F4), at the array whose half is kept.
    pub async fn remote_resolve(&self, device: &str, keep: PairHalf) -> Result<RemoteInfo, ArrayError> {
        self.remote(&Command::RemoteResolve { device: device.to_owned(), keep }).await
    }

    /// Compares both sides, which takes as long as reading them: give the client a deadline for it
    /// ([`ArrayClient::with_deadline`]). `mark`: what differs is copied again.
    pub async fn remote_verify(&self, device: &str, mark: bool) -> Result<VerifyInfo, ArrayError> {
        ask!(self, Command::RemoteVerify { device: device.to_owned(), mark }, Verified)
    }

    /// Ends a pair; both volumes stay as they are. `force`: also if the other array cannot be reached.
    pub async fn remote_delete(&self, device: &str, force: bool) -> Result<(), ArrayError> {
        self.done(&Command::RemoteDelete { device: device.to_owned(), force }).await
    }

    async fn remote(&self, command: &Command) -> Result<RemoteInfo, ArrayError> {
        let info: Box<RemoteInfo> = ask!(self, *command, Remote)?;
        Ok(*info)
    }
}
