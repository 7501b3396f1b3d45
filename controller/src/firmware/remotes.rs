//! Management commands about other arrays and the pairs with them.

use twintrack_core::{CommandError, DeviceId, Halt, PairId, PeerId, Role};
use twintrack_link::manage::{Answer, Command, Refusal, RefusalCode, parse_serial};
use twintrack_link::remote::{Note, Request};

use super::copies::core_pace;
use super::creation::NewPair;
use super::event::{CallId, Effect};
use super::joint::NewSnapshot;
use super::links::Asked;
use super::{Firmware, manage};

impl Firmware {
    /// A command about links or pairs; `None`: it is about something else.
    pub(super) fn remote_command(&mut self, call: CallId, command: Command, fx: &mut Vec<Effect>) {
        if let Err(refusal) = self.begin_remote(call, command, fx) {
            self.answer(call, Err(refusal), fx);
        }
    }

    fn begin_remote(&mut self, call: CallId, command: Command, fx: &mut Vec<Effect>) -> Result<(), Refusal> {
        let answer = match command {
            Command::LinkAdd { name, endpoint, serial } => {
                let serial = serial.map(|text| serial_of(&text)).transpose()?;
                if let Some(text) = &endpoint
                    && let Err(error) = text.parse::<twintrack_link::Endpoint>()
                {
                    return Err(Refusal { code: RefusalCode::BadRequest, reason: error.to_string() });
                }
                let (peer, _) = self.tables.add_peer(&name, endpoint.as_deref(), serial).map_err(refusal)?;
                self.look_at_peers();
                self.changed();
                Answer::Links(vec![self.link_info(peer)])
            }
            Command::LinkList {} => {
                let mut links: Vec<_> = self.tables.peers().map(|(peer, _)| peer).collect();
                links.sort_by_key(|peer| self.tables.peer(*peer).map(|record| record.name.clone()));
                Answer::Links(links.into_iter().map(|peer| self.link_info(peer)).collect())
            }
            Command::LinkRemove { name } => {
                let peer = self.peer_named(&name)?;
                self.tables.remove_peer(peer).map_err(refusal)?;
                self.hang_up(peer, fx);
                self.changed();
                Answer::Done
            }
            Command::LinkTest { name, size_bytes } => {
                let peer = self.peer_named(&name)?;
                return self.begin_test(call, peer, size_bytes, fx);
            }
            Command::RemoteCreate {
                request,
                device,
                peer,
                peer_device,
                half,
                from,
                create_local,
                create_peer,
                mode,
                policy,
                group,
            } => {
                let new = NewPair {
                    request,
                    device,
                    peer,
                    peer_device,
                    half,
                    from,
                    create_local,
                    create_peer,
                    mode,
                    policy,
                    group,
                };
                return self.create_remote(call, new, fx);
            }
            Command::RemoteList {} => {
                let mut pairs: Vec<PairId> = self.tables.pairs().map(|(pair, _)| pair).collect();
                pairs.sort_by_key(|pair| self.device_name(*pair));
                Answer::Remotes(pairs.into_iter().filter_map(|pair| self.remote_info(pair)).collect())
            }
            Command::RemoteShow { device } => {
                let pair = self.pair_named(&device)?;
                return self.answer_remote(call, pair, fx);
            }
            Command::RemoteSuspend { device, whole_group, split } => {
                let pair = self.owned_pair(&device)?;
                let cause = if split { Halt::Split } else { Halt::Operator };
                let pairs = self.members(pair, whole_group);
                self.suspend(pair, pairs, cause, fx);
                self.changed();
                return self.answer_remote(call, pair, fx);
            }
            Command::RemoteResume { device, whole_group } => {
                let pair = self.pair_named(&device)?;
                if self.tables.pair(pair).is_some_and(|record| record.halt == Some(Halt::Diverged)) {
                    return Err(wrong_state(format!(
                        "both sides of {pair} were written alone: say which one stays, `twintrack remote resolve {device} \
                         --keep r1|r2`"
                    )));
                }
                let pair = self.owned_pair(&device)?;
                let pairs = self.members(pair, whole_group);
                for pair in &pairs {
                    self.resume_here(*pair);
                }
                if let Some(peer) = self.tables.pair(pair).map(|record| record.peer)
                    && self.is_agreed(pair)
                {
                    self.ask(peer, Request::Resume { pairs }, Asked::Nobody, fx);
                }
                self.changed();
                return self.answer_remote(call, pair, fx);
            }
            Command::RemoteMode { device, mode } => {
                let pair = self.owned_pair(&device)?;
                self.tables.set_mode(pair, mode.into()).map_err(refusal)?;
                self.look_at_copy(pair);
                if let Some(peer) = self.tables.pair(pair).map(|record| record.peer)
                    && self.is_agreed(pair)
                {
                    self.ask(peer, Request::SetMode { pair, mode: mode.into() }, Asked::Nobody, fx);
                }
                self.changed();
                return self.answer_remote(call, pair, fx);
            }
            Command::RemotePace { device, pace } => {
                let pair = self.pair_named(&device)?;
                self.tables.set_pair_pace(pair, core_pace(pace)).map_err(refusal)?;
                self.look_at_copy(pair);
                self.changed();
                return self.answer_remote(call, pair, fx);
            }
            Command::RemoteFailover { device, force } => return self.fail_over(call, &device, force, fx),
            Command::RemoteSnapshot { request, devices, whole_group, name, offline } => {
                let new = NewSnapshot { request, devices, whole_group, name, offline };
                return self.begin_snapshot(call, new, fx);
            }
            Command::RemoteGoBack { device } => return self.begin_going_back(call, &device),
            Command::RemoteResolve { device, keep } => return self.resolve(call, &device, keep, fx),
            Command::RemoteVerify { device, mark } => return self.verify(call, &device, mark, fx),
            Command::RemoteDelete { device, force } => return self.delete_remote(call, &device, force, fx),
            _ => return Ok(()),
        };
        self.answer(call, Ok(answer), fx);
        Ok(())
    }

    /// A command has changed something: nobody is told of anything before it is durable.
    pub(super) fn changed(&mut self) {
        self.command_unit = self.tables.last_unit();
    }

    fn answer_remote(&mut self, call: CallId, pair: PairId, fx: &mut Vec<Effect>) -> Result<(), Refusal> {
        let answer = self.remote_answer(pair);
        self.answer(call, answer, fx);
        Ok(())
    }

    pub(super) fn remote_answer(&self, pair: PairId) -> Result<Answer, Refusal> {
        self.remote_info(pair).map(|info| Answer::Remote(Box::new(info))).ok_or_else(|| Refusal {
            code: RefusalCode::NotFound,
            reason: format!("{pair} is not there any more"),
        })
    }

    /// The pairs that a command is about.
    fn members(&self, pair: PairId, whole_group: bool) -> Vec<PairId> {
        if whole_group { self.tables.group_of(pair) } else { vec![pair] }
    }

    /// Nothing of these pairs moves because a person says so. What is on its way is owed from now on; the peer hears of it.
    fn suspend(&mut self, pair: PairId, pairs: Vec<PairId>, halt: Halt, fx: &mut Vec<Effect>) {
        self.strike(&pairs, halt);
        if let Some(peer) = self.tables.pair(pair).map(|record| record.peer) {
            self.note_to(peer, Note::Halted { pairs, halt }, fx);
        }
    }

    /// The peer says something that needs no answer.
    pub(super) fn noted(&mut self, link: super::event::LinkId, note: Note) {
        match note {
            Note::Halted { pairs, halt } => {
                for pair in pairs {
                    let ours =
                        self.tables.pair(pair).is_some_and(|record| Some(record.peer) == self.peer_of(link));
                    if ours && self.tables.pair(pair).is_some_and(|record| record.role == Role::Standby) {
                        let wall_ms = self.wall_ms();
                        let _ = self.tables.halt_group(&[pair], halt, wall_ms, &[]);
                        self.standing(pair).follows = false;
                    }
                }
            }
            // The link's end will follow.
            Note::Leaving => {}
        }
    }

    fn peer_named(&self, name: &str) -> Result<PeerId, Refusal> {
        self.tables.peer_named(name).map(|(peer, _)| peer).ok_or_else(|| Refusal {
            code: RefusalCode::NotFound,
            reason: format!(
                "there is no link {}: `twintrack link list` shows them",
                name.chars().take(64).collect::<String>()
            ),
        })
    }

    /// The pair of a device that people name.
    pub(super) fn pair_named(&self, device: &str) -> Result<PairId, Refusal> {
        let found = self.tables.device_named(device).map(|(id, _)| id);
        let shown: String = device.chars().take(64).collect();
        let id: DeviceId = found.ok_or_else(|| refusal(CommandError::NoDevice { device: shown.clone() }))?;
        if self.pairs.is_leaving(id) {
            let reason = format!(
                "the pair of device {shown} has ended, and what the other array had sent becomes durable: hosts use it then"
            );
            return Err(Refusal { code: RefusalCode::Unavailable, reason });
        }
        self.tables.pair_of_device(id).ok_or_else(|| Refusal {
            code: RefusalCode::NotFound,
            reason: format!("device {shown} is in no pair: `twintrack remote list` shows those that are"),
        })
    }

    /// So, and this array serves it.
    fn owned_pair(&self, device: &str) -> Result<PairId, Refusal> {
        let pair = self.pair_named(device)?;
        match self.tables.pair(pair) {
            Some(record) if record.role == Role::Owner => Ok(pair),
            _ => Err(wrong_state(format!("the other array serves {pair}: ask it there"))),
        }
    }

    pub(super) fn device_name(&self, pair: PairId) -> String {
        let device = self.tables.pair(pair).and_then(|record| self.tables.device(record.device));
        device.map(|device| device.name.clone()).unwrap_or_default()
    }
}

fn serial_of(text: &str) -> Result<u64, Refusal> {
    parse_serial(text).ok_or_else(|| Refusal {
        code: RefusalCode::BadRequest,
        reason: format!(
            "{:?} is no serial number: up to 16 hexadecimal digits, as `twintrack array show` prints them",
            text.chars().take(32).collect::<String>()
        ),
    })
}

pub(super) fn refusal(error: CommandError) -> Refusal {
    manage::refusal(&error)
}

pub(super) fn wrong_state(reason: String) -> Refusal {
    Refusal { code: RefusalCode::WrongState, reason }
}

pub(super) fn gone() -> Refusal {
    Refusal { code: RefusalCode::NotFound, reason: "the pair is not there any more".into() }
}
