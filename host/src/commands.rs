//! Every management command on devices, sessions and groups as a typed call. What each does and answers is told at its [`Command`].

use twintrack_link::manage::{
    Activation, Answer, ArrayInfo, ChangedTracks, Command, DeviceInfo, Differences, GroupMode, PoolInfo,
    SessionInfo, TrackRange,
};

use crate::array::{ArrayClient, ArrayError};
use crate::dial::Dial;

/// Sends a command and takes the one kind of answer that fits it.
macro_rules! ask {
    ($client:expr, $command:expr, $answer:ident) => {
        match $client.call(&$command).await? {
            Answer::$answer(answer) => Ok(answer),
            _ => Err($client.protocol(hyper::StatusCode::OK)),
        }
    };
}
pub(crate) use ask;

impl<D: Dial> ArrayClient<D> {
    /// What the array is.
    pub async fn array_show(&self) -> Result<ArrayInfo, ArrayError> {
        ask!(self, Command::ArrayShow {}, Array)
    }

    /// The pools and their space.
    pub async fn pool_list(&self) -> Result<Vec<PoolInfo>, ArrayError> {
        ask!(self, Command::PoolList {}, Pools)
    }

    /// Creates a standard device of `size_bytes`, in the first pool if none is named.
    pub async fn device_create(
        &self,
        name: &str,
        size_bytes: u64,
        pool: Option<&str>,
    ) -> Result<DeviceInfo, ArrayError> {
        let (name, pool) = (name.to_owned(), pool.map(str::to_owned));
        ask!(self, Command::DeviceCreate { name, size_bytes, pool }, Device)
    }

    /// Creates a virtual device.
    pub async fn device_create_virtual(&self, name: &str) -> Result<DeviceInfo, ArrayError> {
        ask!(self, Command::DeviceCreateVirtual { name: name.to_owned() }, Device)
    }

    /// All devices.
    pub async fn device_list(&self) -> Result<Vec<DeviceInfo>, ArrayError> {
        ask!(self, Command::DeviceList {}, Devices)
    }

    /// One device.
    pub async fn device_show(&self, name: &str) -> Result<DeviceInfo, ArrayError> {
        ask!(self, Command::DeviceShow { name: name.to_owned() }, Device)
    }

    /// Removes a device that no session uses.
    pub async fn device_delete(&self, name: &str) -> Result<(), ArrayError> {
        self.done(&Command::DeviceDelete { name: name.to_owned() }).await
    }

    /// Gives a device another name.
    pub async fn device_rename(&self, name: &str, to: &str) -> Result<DeviceInfo, ArrayError> {
        ask!(self, Command::DeviceRename { name: name.to_owned(), to: to.to_owned() }, Device)
    }

    /// Grows a standard device.
    pub async fn device_resize(&self, name: &str, size_bytes: u64) -> Result<DeviceInfo, ArrayError> {
        ask!(self, Command::DeviceResize { name: name.to_owned(), size_bytes }, Device)
    }

    /// Lets hosts use a device, or stops them.
    pub async fn device_online(&self, name: &str, online: bool) -> Result<DeviceInfo, ArrayError> {
        ask!(self, Command::DeviceOnline { name: name.to_owned(), online }, Device)
    }

    /// Keeps a device to become the secondary of a pair, or lets it go (C9).
    pub async fn device_reserve(&self, name: &str, reserved: bool) -> Result<DeviceInfo, ArrayError> {
        ask!(self, Command::DeviceReserve { name: name.to_owned(), reserved }, Device)
    }

    /// *Register* (D7): reserves a session on a standard device.
    pub async fn session_register(
        &self,
        standard: &str,
        group: Option<u32>,
    ) -> Result<SessionInfo, ArrayError> {
        ask!(self, Command::SessionRegister { standard: standard.to_owned(), group, tracks: None }, Session)
    }

    /// *Register* for some tracks of a standard device (D19). Related to one virtual device, sessions of parts make it up.
    pub async fn session_register_part(
        &self,
        standard: &str,
        group: Option<u32>,
        tracks: TrackRange,
    ) -> Result<SessionInfo, ArrayError> {
        let tracks = Some(tracks);
        ask!(self, Command::SessionRegister { standard: standard.to_owned(), group, tracks }, Session)
    }

    /// *Relate* (D7): gives a registered session its virtual device.
    pub async fn session_relate(
        &self,
        session: u32,
        virtual_device: &str,
    ) -> Result<SessionInfo, ArrayError> {
        ask!(self, Command::SessionRelate { session, virtual_device: virtual_device.to_owned() }, Session)
    }

    /// *Activate* (D7): all these sessions begin at one instant.
    pub async fn session_activate(&self, sessions: Vec<Activation>) -> Result<Vec<SessionInfo>, ArrayError> {
        ask!(self, Command::SessionActivate { sessions }, Sessions)
    }

    /// *Deactivate* (D15).
    pub async fn session_deactivate(&self, session: u32) -> Result<SessionInfo, ArrayError> {
        ask!(self, Command::SessionDeactivate { session }, Session)
    }

    /// Ends a session (D6).
    pub async fn session_remove(&self, session: u32) -> Result<(), ArrayError> {
        self.done(&Command::SessionRemove { session }).await
    }

    /// The sessions of a standard device, or all.
    pub async fn session_list(&self, standard: Option<&str>) -> Result<Vec<SessionInfo>, ArrayError> {
        ask!(self, Command::SessionList { standard: standard.map(str::to_owned) }, Sessions)
    }

    /// Which tracks changed, from one track on (D15). There are more if the answer has a `next`.
    pub async fn session_changed(&self, session: u32, from_track: u32) -> Result<ChangedTracks, ArrayError> {
        ask!(self, Command::SessionChanged { session, from_track }, Changed)
    }

    /// What differs between two sessions of a device, or between one and the device now, from a byte on (F7). There is more
    /// if the answer has a `next`.
    pub async fn session_diff(
        &self,
        session: u32,
        other: Option<u32>,
        from_byte: u64,
    ) -> Result<Differences, ArrayError> {
        ask!(self, Command::SessionDiff { session, other, from_byte }, Differences)
    }

    /// *Begin group* (D8).
    pub async fn group_begin(&self) -> Result<u32, ArrayError> {
        ask!(self, Command::GroupBegin {}, Group)
    }

    /// *Process group* (D8).
    pub async fn group_process(
        &self,
        group: u32,
        mode: GroupMode,
        options: Vec<Activation>,
    ) -> Result<Vec<SessionInfo>, ArrayError> {
        ask!(self, Command::GroupProcess { group, mode, options }, Sessions)
    }

    /// Ends a group and activates nothing. Its sessions, which stay, in no group.
    pub async fn group_cancel(&self, group: u32) -> Result<Vec<SessionInfo>, ArrayError> {
        ask!(self, Command::GroupCancel { group }, Sessions)
    }

    /// The open groups.
    pub async fn group_list(&self) -> Result<Vec<u32>, ArrayError> {
        ask!(self, Command::GroupList {}, Groups)
    }

    /// A command with nothing to tell.
    pub(crate) async fn done(&self, command: &Command) -> Result<(), ArrayError> {
        match self.call(command).await? {
            Answer::Done => Ok(()),
            _ => Err(self.protocol(hyper::StatusCode::OK)),
        }
    }
}
