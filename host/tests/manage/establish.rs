//! *Establish* (D18) against an array that is a few lists, and its undo after a failure at every step.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use crate::support::{Act, Pipes, array};
use twintrack_host::manage::{
    Answer, Command, DeviceInfo, DeviceInfoKind, Refusal, RefusalCode, SessionInfo, SessionInfoState,
};
use twintrack_host::{ArrayClient, ArrayError, EstablishStep, GroupMode, Leftover, Pair, establish};

/// What becomes of the command at which the failure is planned.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Failure {
    /// It is refused.
    Refused,
    /// It is carried out, and the connection is cut.
    DoneAndCut,
    /// The connection is cut.
    Cut,
}

#[derive(Debug, Default)]
struct Model {
    /// Name to whether it is virtual.
    devices: BTreeMap<String, bool>,
    sessions: BTreeMap<u32, SessionInfo>,
    offline: Vec<String>,
    groups: Vec<u32>,
    last: u32,
    /// At which command, counted from 0, what happens.
    planned: Option<(usize, Failure)>,
    /// All commands after that fail too.
    gone: bool,
    commands: usize,
}

impl Model {
    fn with(devices: &[(&str, bool)]) -> Self {
        let devices = devices.iter().map(|&(name, is_virtual)| (name.to_owned(), is_virtual)).collect();
        Self { devices, ..Self::default() }
    }

    fn take(&mut self, body: &[u8]) -> Act {
        let command: Command = serde_json::from_slice(body).unwrap();
        let number = self.commands;
        self.commands += 1;
        match self.planned {
            Some((at, Failure::Refused)) if at == number => return refuse(RefusalCode::Limit),
            Some((at, Failure::DoneAndCut)) if at == number => {
                let _ = self.run(command);
                return Act::Cut;
            }
            Some((at, Failure::Cut)) if at == number => return Act::Cut,
            Some((at, _)) if self.gone && number > at => return Act::Cut,
            _ => {}
        }
        match self.run(command) {
            Ok(answer) => Act::Answer(200, serde_json::to_vec(&answer).unwrap()),
            Err(code) => refuse(code),
        }
    }

    fn run(&mut self, command: Command) -> Result<Answer, RefusalCode> {
        match command {
            Command::GroupBegin {} => {
                self.last += 1;
                self.groups.push(self.last);
                Ok(Answer::Group(self.last))
            }
            Command::GroupCancel { group } => {
                let at = self.groups.iter().position(|&open| open == group).ok_or(RefusalCode::NotFound)?;
                self.groups.remove(at);
                for session in self.sessions.values_mut().filter(|session| session.group == Some(group)) {
                    session.group = None;
                }
                Ok(Answer::Sessions(Vec::new()))
            }
            Command::DeviceShow { name } => self.device(&name),
            Command::DeviceCreateVirtual { name } => {
                self.devices.insert(name.clone(), true);
                self.device(&name)
            }
            Command::DeviceDelete { name } => {
                if self.sessions.values().any(|s| s.virtual_device.as_ref() == Some(&name)) {
                    return Err(RefusalCode::WrongState);
                }
                self.devices.remove(&name).map(|_| Answer::Done).ok_or(RefusalCode::NotFound)
            }
            Command::DeviceRename { name, to } => {
                self.rename(&name, &to)?;
                self.device(&to)
            }
            Command::SessionRegister { standard, group, .. } => {
                if self.devices.get(&standard) != Some(&false) {
                    return Err(RefusalCode::NotFound);
                }
                self.last += 1;
                let session = SessionInfo {
                    tracks: None,
                    id: self.last,
                    standard,
                    virtual_device: None,
                    state: SessionInfoState::Registered,
                    group,
                    activated_ms: None,
                    pinned: None,
                };
                self.sessions.insert(self.last, session.clone());
                Ok(Answer::Session(session))
            }
            Command::SessionRelate { session, virtual_device } => {
                let session = self.sessions.get_mut(&session).ok_or(RefusalCode::NotFound)?;
                session.virtual_device = Some(virtual_device);
                session.state = SessionInfoState::Related;
                Ok(Answer::Session(session.clone()))
            }
            Command::SessionList { standard } => {
                let of = |s: &&SessionInfo| standard.as_ref().is_none_or(|name| s.standard == *name);
                Ok(Answer::Sessions(self.sessions.values().filter(of).cloned().collect()))
            }
            Command::SessionRemove { session } => {
                self.sessions.remove(&session).map(|_| Answer::Done).ok_or(RefusalCode::NotFound)
            }
            Command::GroupProcess { group, options, .. } => {
                if !self.groups.contains(&group) {
                    return Err(RefusalCode::NotFound);
                }
                for option in options {
                    let old = self.sessions[&option.session].virtual_device.clone().unwrap();
                    let name = option.name.unwrap_or(old.clone());
                    self.rename(&old, &name)?;
                    if option.offline {
                        self.offline.push(name);
                    }
                }
                self.groups.retain(|&open| open != group);
                let mut active = Vec::new();
                for session in self.sessions.values_mut().filter(|s| s.group == Some(group)) {
                    session.group = None;
                    session.state = SessionInfoState::Active;
                    active.insert(0, session.clone());
                }
                Ok(Answer::Sessions(active))
            }
            other => panic!("{other:?}"),
        }
    }

    fn device(&self, name: &str) -> Result<Answer, RefusalCode> {
        let &is_virtual = self.devices.get(name).ok_or(RefusalCode::NotFound)?;
        let kind = if is_virtual {
            DeviceInfoKind::Virtual { shows: Vec::new() }
        } else {
            DeviceInfoKind::Standard { pool: "main".to_owned(), sessions: 0 }
        };
        Ok(Answer::Device(DeviceInfo {
            id: 1,
            name: name.to_owned(),
            size_bytes: 0,
            kind,
            online: true,
            reserved: false,
            copies: Vec::new(),
        }))
    }

    fn rename(&mut self, name: &str, to: &str) -> Result<(), RefusalCode> {
        let is_virtual = self.devices.remove(name).ok_or(RefusalCode::NotFound)?;
        self.devices.insert(to.to_owned(), is_virtual);
        for session in self.sessions.values_mut() {
            if session.virtual_device.as_deref() == Some(name) {
                session.virtual_device = Some(to.to_owned());
            }
        }
        Ok(())
    }
}

fn refuse(code: RefusalCode) -> Act {
    let refusal = Refusal { code, reason: "no".to_owned() };
    Act::Answer(409, serde_json::to_vec(&refusal).unwrap())
}

fn start(model: Model) -> (ArrayClient<Pipes>, Arc<Mutex<Model>>) {
    let model = Arc::new(Mutex::new(model));
    let array = array({
        let model = model.clone();
        move |_, _, body| model.lock().unwrap().take(body)
    });
    (array, model)
}

const DEVICES: [(&str, bool); 3] = [("db", false), ("log", false), ("old", true)];

fn pairs() -> [Pair; 3] {
    [
        Pair::new("db", "db-1"),
        Pair::new("log", "old").renamed("log-1").offline(),
        Pair::new("db", "db-2").renamed("db-3"),
    ]
}

/// Two virtual devices, each of two parts (D19).
fn parts() -> [Pair; 4] {
    let part = |standard, shows, name| Pair::new(standard, shows).part(0, 1).renamed(name);
    [part("db", "both", "b"), part("log", "both", "b"), part("log", "old", "o"), part("db", "old", "o")]
}

#[tokio::test]
async fn pairs_are_established() {
    let (array, model) = start(Model::with(&DEVICES));
    let sessions = establish(&array, &pairs(), GroupMode::Synchronous).await.unwrap();
    let shown: Vec<_> = sessions
        .iter()
        .map(|s| (s.standard.as_str(), s.virtual_device.as_deref().unwrap(), s.state))
        .collect();
    let active = SessionInfoState::Active;
    assert_eq!(shown, [("db", "db-1", active), ("log", "log-1", active), ("db", "db-3", active)]);
    let model = model.lock().unwrap();
    assert_eq!(model.devices.keys().collect::<Vec<_>>(), ["db", "db-1", "db-3", "log", "log-1"]);
    assert_eq!((&model.offline[..], &model.groups[..]), (&["log-1".to_owned()][..], &[][..]));
}

/// Wherever it fails, and whether or not the failed command was carried out, the array is as it was.
#[tokio::test]
async fn a_failure_at_any_step_is_undone() {
    let mut steps = Vec::new();
    let failures = [Failure::Refused, Failure::Cut, Failure::DoneAndCut];
    for (failure, pairs) in
        failures.into_iter().flat_map(|it| [(it, pairs().to_vec()), (it, parts().to_vec())])
    {
        for at in 0.. {
            let (array, model) = start(Model { planned: Some((at, failure)), ..Model::with(&DEVICES) });
            let result = establish(&array, &pairs, GroupMode::Synchronous).await;
            let model = model.lock().unwrap();
            let Err(error) = result else {
                assert!(model.commands <= at);
                break;
            };
            steps.push(error.step);
            assert_eq!(matches!(error.cause, ArrayError::Refused(_)), failure == Failure::Refused);
            assert_eq!(error.leftovers, [], "{failure:?} at {at}");
            assert_eq!(model.devices, Model::with(&DEVICES).devices, "{failure:?} at {at}");
            assert!(model.sessions.is_empty(), "{failure:?} at {at}");
            if error.step != EstablishStep::Begin {
                assert!(model.groups.is_empty(), "{failure:?} at {at}");
            }
        }
    }
    for step in [
        EstablishStep::Begin,
        EstablishStep::VirtualDevice { pair: 2 },
        EstablishStep::Register { pair: 1 },
        EstablishStep::Relate { pair: 0 },
        EstablishStep::Process,
    ] {
        assert!(steps.contains(&step), "{step}");
    }
}

/// An array that is gone for good: the error names all that may be left there.
#[tokio::test]
async fn what_cannot_be_undone_is_named() {
    // Begin, show and create and register and relate the first pair, then nothing more.
    let model = Model { planned: Some((5, Failure::Cut)), gone: true, ..Model::with(&DEVICES) };
    let (array, model) = start(model);
    let error = establish(&array, &pairs(), GroupMode::Synchronous).await.unwrap_err();
    let group = 1;
    assert_eq!(error.step, EstablishStep::VirtualDevice { pair: 1 });
    assert_eq!(
        error.leftovers,
        [
            Leftover::Group(group),
            Leftover::SessionsOf { standard: "db".to_owned(), group },
            Leftover::VirtualDevice("db-1".to_owned()),
        ]
    );
    assert_eq!(
        error.to_string(),
        "establish failed at virtual device of pair 1: array at unix:/array went away before it answered; whether it \
         did it is not known; left behind: group 1, sessions of group 1 on db, virtual device db-1"
    );
    assert_eq!(model.lock().unwrap().sessions.len(), 1);
}
