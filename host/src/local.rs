//! Pairs within the array, and restores, as typed calls. What each does and answers is told at its [`Command`].

use twintrack_link::manage::{Answer, Command, DeviceInfo, PairInfo, PairPace, Restore, ScheduleInfo};

use crate::array::{ArrayClient, ArrayError};
use crate::commands::ask;
use crate::dial::Dial;

impl<D: Dial> ArrayClient<D> {
    /// *Restore* (D10 to D13, D18, Fig. 26): one or many sessions, all at one instant. The devices as they are then.
    pub async fn session_restore(&self, restores: Vec<Restore>) -> Result<Vec<DeviceInfo>, ArrayError> {
        ask!(self, Command::SessionRestore { restores }, Devices)
    }

    /// *Create pair* (C1); without a secondary, the lowest-numbered reserved volume that fits is chosen (C9).
    pub async fn pair_create(
        &self,
        primary: &str,
        secondary: Option<&str>,
        pace: PairPace,
    ) -> Result<PairInfo, ArrayError> {
        let (primary, secondary) = (primary.to_owned(), secondary.map(str::to_owned));
        ask!(self, Command::PairCreate { primary, secondary, pace }, Pair).map(|pair| *pair)
    }

    /// The pairs, by number.
    pub async fn pair_list(&self) -> Result<Vec<PairInfo>, ArrayError> {
        ask!(self, Command::PairList {}, Pairs)
    }

    /// One pair.
    pub async fn pair_show(&self, primary: &str, secondary: &str) -> Result<PairInfo, ArrayError> {
        let (primary, secondary) = (primary.to_owned(), secondary.to_owned());
        ask!(self, Command::PairShow { primary, secondary }, Pair).map(|pair| *pair)
    }

    /// *Copy* (C4): the secondary becomes the primary as it is now; at another pace from now on, if one is given (C6).
    pub async fn pair_copy(
        &self,
        primary: &str,
        secondary: &str,
        pace: Option<PairPace>,
    ) -> Result<PairInfo, ArrayError> {
        let (primary, secondary) = (primary.to_owned(), secondary.to_owned());
        ask!(self, Command::PairCopy { primary, secondary, pace }, Pair).map(|pair| *pair)
    }

    /// *Re-synchronize*: hosts leave the secondary, and the next copy moves what differs (C5).
    pub async fn pair_resync(
        &self,
        primary: &str,
        secondary: &str,
        pace: Option<PairPace>,
    ) -> Result<PairInfo, ArrayError> {
        let (primary, secondary) = (primary.to_owned(), secondary.to_owned());
        ask!(self, Command::PairResync { primary, secondary, pace }, Pair).map(|pair| *pair)
    }

    /// The primary becomes the secondary as it is now (D14).
    pub async fn pair_restore(
        &self,
        primary: &str,
        secondary: &str,
        discard_before: bool,
        pace: Option<PairPace>,
    ) -> Result<PairInfo, ArrayError> {
        let (primary, secondary) = (primary.to_owned(), secondary.to_owned());
        ask!(self, Command::PairRestore { primary, secondary, discard_before, pace }, Pair).map(|pair| *pair)
    }

    /// Another pace of a pair, or else of the copies of two volumes that end by themselves (C6).
    pub async fn pair_pace(
        &self,
        primary: &str,
        secondary: &str,
        pace: PairPace,
    ) -> Result<PairInfo, ArrayError> {
        let (primary, secondary) = (primary.to_owned(), secondary.to_owned());
        ask!(self, Command::PairPace { primary, secondary, pace }, Pair).map(|pair| *pair)
    }

    /// *Delete pair*; both volumes stay.
    pub async fn pair_delete(&self, primary: &str, secondary: &str) -> Result<(), ArrayError> {
        let (primary, secondary) = (primary.to_owned(), secondary.to_owned());
        self.done(&Command::PairDelete { primary, secondary }).await
    }

    /// Copies a primary at a time (now, if none is given), and then every period, to one secondary after the other (C8).
    pub async fn schedule_add(
        &self,
        primary: &str,
        secondaries: Vec<String>,
        at_ms: Option<u64>,
        every_ms: Option<u64>,
    ) -> Result<Vec<ScheduleInfo>, ArrayError> {
        let primary = primary.to_owned();
        ask!(self, Command::ScheduleAdd { primary, secondaries, at_ms, every_ms }, Schedules)
    }

    /// The schedules, by number.
    pub async fn schedule_list(&self) -> Result<Vec<ScheduleInfo>, ArrayError> {
        ask!(self, Command::ScheduleList {}, Schedules)
    }

    /// Ends a schedule; its pairs stay.
    pub async fn schedule_remove(&self, schedule: u32) -> Result<(), ArrayError> {
        self.done(&Command::ScheduleRemove { schedule }).await
    }
}
