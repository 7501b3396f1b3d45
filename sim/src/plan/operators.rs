//! Management of a plan: one operator a host, each with devices of its own, so that what it finds after a crash is what
//! it did itself.

use super::build::Draft;
use super::courses;
use super::hot::{self, Temper};
use super::{Act, LocalAct, Op, RestoreItem, Scenario, Task};
use crate::dice::Dice;

/// What operators do in a scenario.
pub(super) struct Script {
    steps: (u64, u64),
    weights: Vec<(u32, Step)>,
    sessions_max: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Register,
    Relate,
    Activate,
    Establish,
    Group,
    Deactivate,
    Changed,
    ReadTracks,
    Remove,
    Online,
    Rename,
    Grow,
    Device,
    Restore,
    Wrong,
    List,
}

/// Where the operator believes a session to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Registered,
    Related,
    Active,
    Deactivated,
}

#[derive(Debug)]
struct Session {
    label: String,
    /// Its standard device.
    of: String,
    /// Which of the operator's virtual devices.
    shown_by: Option<String>,
    stage: Stage,
}

struct Operator {
    host: u8,
    standard: Vec<(String, u64)>,
    virtuals: Vec<String>,
    sessions: Vec<Session>,
    next: u32,
    ops: Vec<Op>,
    pause_ms: u64,
    /// Sessions end as soon as they have begun.
    brief: bool,
}

impl Script {
    /// `None`: nobody manages anything.
    pub(super) fn of(scenario: Scenario) -> Option<Self> {
        use Step::*;
        let common = [(1, Online), (2, Rename), (3, Grow), (3, Device), (4, Wrong), (4, List)];
        let (steps, sessions_max, special): (_, _, &[(u32, Step)]) = match scenario {
            Scenario::Sessions | Scenario::Disks | Scenario::Restart => (
                (12, 45),
                6,
                &[
                    (10, Register),
                    (8, Relate),
                    (10, Activate),
                    (20, Establish),
                    (5, Deactivate),
                    (5, Changed),
                    (3, ReadTracks),
                    (14, Remove),
                ],
            ),
            Scenario::Full => {
                ((12, 40), 6, &[(30, Establish), (4, Deactivate), (3, Changed), (8, Remove), (2, ReadTracks)])
            }
            Scenario::Groups => ((10, 35), 8, &[(30, Group), (5, Establish), (3, Deactivate), (15, Remove)]),
            Scenario::Deactivate => (
                (14, 45),
                6,
                &[
                    (20, Establish),
                    (20, Deactivate),
                    (10, Changed),
                    (25, ReadTracks),
                    (10, Remove),
                    (3, Group),
                ],
            ),
            Scenario::Limits => (
                (30, 60),
                24,
                &[(40, Establish), (5, Deactivate), (5, ReadTracks), (4, Changed), (6, Remove)],
            ),
            // What changes a device itself is refused while it is in a pair.
            Scenario::Local => {
                let weights = vec![
                    (20, Establish),
                    (4, Deactivate),
                    (4, Changed),
                    (4, ReadTracks),
                    (9, Remove),
                    (24, Restore),
                    (3, List),
                ];
                return Some(Self { steps: (10, 30), sessions_max: 6, weights });
            }
            _ => return None,
        };
        Some(Self { steps, sessions_max, weights: special.iter().copied().chain(common).collect() })
    }
}

/// Adds the operators' tasks.
pub(super) fn add(draft: &mut Draft, script: &Script) {
    match draft.temper {
        Temper::Relay => return courses::add_relay(draft),
        Temper::Rounds => return courses::add_rounds(draft),
        Temper::Points => return courses::add_points(draft),
        _ => {}
    }
    let brief = draft.temper == Temper::Brief;
    let hosts = if draft.standard.len() > 1 && !brief && draft.dice.chance(600) { 2 } else { 1 };
    for host in 0..hosts {
        let mine = |n: usize| n % hosts == host;
        let standard = draft.standard.iter().enumerate().filter(|(n, _)| mine(*n)).map(|(_, d)| d.clone());
        let virtuals = draft.virtuals.iter().enumerate().filter(|(n, _)| mine(*n)).map(|(_, d)| d.clone());
        let steps = draft.dice.between(script.steps.0, script.steps.1);
        let mut operator = Operator {
            host: host as u8,
            standard: standard.collect(),
            virtuals: virtuals.collect(),
            sessions: Vec::new(),
            next: 0,
            ops: Vec::new(),
            pause_ms: draft.horizon_ms * 2 / steps,
            brief,
        };
        if draft.temper == Temper::Hot {
            let pairs = operator.establish_all(&mut draft.dice);
            hot::add_hot_tasks(draft, &pairs);
        }
        for _ in 0..steps {
            let step = draft.dice.weighted(&script.weights);
            operator.step(step, script.sessions_max, &mut draft.dice);
        }
        draft.tasks.push(Task { host: host as u8, depth: 1, ops: operator.ops });
    }
}

impl Operator {
    fn push(&mut self, act: Act, dice: &mut Dice) {
        let after_ms = if dice.chance(300) { 0 } else { dice.below(self.pause_ms.max(1)) };
        let give_up_ms = if dice.chance(30) { dice.between(1, 10) } else { 0 };
        self.ops.push(Op { after_ms, give_up_ms, ..Op::now(act) });
    }

    /// The next act follows at once.
    fn push_next(&mut self, act: Act) {
        self.ops.push(Op::now(act));
    }

    fn label(&mut self, kind: char) -> String {
        self.next += 1;
        format!("{kind}{}.{}", self.host, self.next)
    }

    fn free_virtual(&self, dice: &mut Dice) -> Option<String> {
        let used = |name: &String| self.sessions.iter().any(|s| s.shown_by.as_ref() == Some(name));
        let free: Vec<_> = self.virtuals.iter().filter(|name| !used(name)).collect();
        (!free.is_empty()).then(|| (*dice.pick(&free)).clone())
    }

    fn any(&self, stages: &[Stage], dice: &mut Dice) -> Option<usize> {
        let fitting: Vec<usize> =
            (0..self.sessions.len()).filter(|at| stages.contains(&self.sessions[*at].stage)).collect();
        (!fitting.is_empty()).then(|| *dice.pick(&fitting))
    }

    fn step(&mut self, step: Step, sessions_max: usize, dice: &mut Dice) {
        use Stage::*;
        let crowded = self.sessions.len() >= sessions_max;
        match step {
            Step::Register | Step::Establish | Step::Group if crowded => self.remove(dice),
            Step::Register => {
                let (session, device) = (self.label('s'), dice.pick(&self.standard).0.clone());
                let of = device.clone();
                self.sessions.push(Session { label: session.clone(), of, shown_by: None, stage: Registered });
                self.push(Act::Register { session, device, group: None }, dice);
            }
            Step::Relate => {
                let (Some(at), Some(device)) = (self.any(&[Registered], dice), self.free_virtual(dice))
                else {
                    return;
                };
                self.sessions[at].shown_by = Some(device.clone());
                self.sessions[at].stage = Related;
                let session = self.sessions[at].label.clone();
                self.push(Act::Relate { session, device }, dice);
            }
            Step::Activate => {
                let mut sessions = Vec::new();
                for session in &mut self.sessions {
                    if session.stage == Related && (sessions.is_empty() || dice.chance(500)) {
                        session.stage = Active;
                        sessions.push(session.label.clone());
                    }
                }
                if !sessions.is_empty() {
                    let offline = dice.chance(60);
                    self.push(Act::Activate { sessions, offline }, dice);
                }
            }
            Step::Establish => {
                let mut pairs = Vec::new();
                for _ in 0..dice.between(1, 2) {
                    let Some(shown_by) = self.free_virtual(dice) else { break };
                    let (label, device) = (self.label('s'), dice.pick(&self.standard).0.clone());
                    let (of, by) = (device.clone(), Some(shown_by.clone()));
                    self.sessions.push(Session { label: label.clone(), of, shown_by: by, stage: Active });
                    pairs.push((label, device, shown_by));
                }
                if !pairs.is_empty() {
                    self.push(Act::Establish { pairs }, dice);
                    if self.brief {
                        self.end_soon(dice);
                    }
                }
            }
            Step::Group => self.group(dice),
            Step::Deactivate => {
                let Some(at) = self.any(&[Active], dice) else { return };
                self.sessions[at].stage = Deactivated;
                let session = self.sessions[at].label.clone();
                self.push(Act::Deactivate { session: session.clone() }, dice);
                if dice.chance(500) {
                    self.push_next(Act::ReadTracks { session });
                }
            }
            Step::Changed | Step::ReadTracks => {
                let stages: &[Stage] =
                    if step == Step::Changed { &[Active, Deactivated] } else { &[Deactivated] };
                let Some(at) = self.any(stages, dice) else { return };
                let session = self.sessions[at].label.clone();
                let act = if step == Step::Changed {
                    Act::Changed { session }
                } else {
                    Act::ReadTracks { session }
                };
                self.push(act, dice);
            }
            Step::Remove => self.remove(dice),
            Step::Online => {
                let device = dice.pick(&self.standard).0.clone();
                self.push(Act::Online { device: device.clone(), online: false }, dice);
                self.push(Act::Online { device, online: true }, dice);
            }
            Step::Rename => {
                let all: Vec<_> =
                    self.standard.iter().map(|(name, _)| name).chain(&self.virtuals).cloned().collect();
                let device = dice.pick(&all).clone();
                let to = self.label('n');
                self.push(Act::Rename { device, to }, dice);
            }
            Step::Grow => {
                let at = dice.below(self.standard.len() as u64) as usize;
                let by = dice.pick(&[512, 4096, 16384, 100 * 512]);
                self.standard[at].1 += by;
                let (device, size_bytes) = self.standard[at].clone();
                self.push(Act::Grow { device, size_bytes }, dice);
            }
            Step::Device => self.extra_device(dice),
            Step::Restore => self.restore(dice),
            Step::Wrong => self.wrong(dice),
            Step::List => self.push(Act::List {}, dice),
        }
    }

    /// Sessions for all devices, at once: standard device, its size, virtual device.
    fn establish_all(&mut self, dice: &mut Dice) -> Vec<(String, u64, String)> {
        let (mut pairs, mut shown) = (Vec::new(), Vec::new());
        for (n, shown_by) in self.virtuals.clone().into_iter().enumerate().take(3) {
            let Some((standard, size)) = self.standard.get(n % self.standard.len()).cloned() else { break };
            let label = self.label('s');
            let (of, stage, by) = (standard.clone(), Stage::Active, Some(shown_by.clone()));
            self.sessions.push(Session { label: label.clone(), of, shown_by: by, stage });
            pairs.push((label, standard.clone(), shown_by.clone()));
            shown.push((standard, size, shown_by));
        }
        if !pairs.is_empty() {
            self.push_next(Act::Establish { pairs });
        }
        // What follows leaves them some time.
        self.push(Act::List {}, dice);
        shown
    }

    /// The newest session ends, while hosts write.
    fn end_soon(&mut self, dice: &mut Dice) {
        let Some(session) = self.sessions.last_mut() else { return };
        let (label, after_ms) = (session.label.clone(), dice.below(15));
        let act = if dice.chance(600) {
            self.sessions.pop();
            Act::Remove { session: label }
        } else {
            session.stage = Stage::Deactivated;
            Act::Deactivate { session: label }
        };
        self.ops.push(Op { after_ms, ..Op::now(act) });
    }

    fn remove(&mut self, dice: &mut Dice) {
        let Some(at) =
            self.any(&[Stage::Registered, Stage::Related, Stage::Active, Stage::Deactivated], dice)
        else {
            return;
        };
        let session = self.sessions.remove(at).label;
        self.push(Act::Remove { session }, dice);
    }

    /// *Begin group*, sessions for it, *Process group* (D8).
    fn group(&mut self, dice: &mut Dice) {
        let group = self.label('g');
        self.push(Act::GroupBegin { group: group.clone() }, dice);
        for _ in 0..dice.between(1, 4) {
            let Some(shown_by) = self.free_virtual(dice) else { break };
            let (session, device) = (self.label('s'), dice.pick(&self.standard).0.clone());
            let of = device.clone();
            self.push_next(Act::Register { session: session.clone(), device, group: Some(group.clone()) });
            self.push_next(Act::Relate { session: session.clone(), device: shown_by.clone() });
            self.sessions.push(Session {
                label: session,
                of,
                shown_by: Some(shown_by),
                stage: Stage::Active,
            });
        }
        let one_by_one = dice.chance(200);
        self.push(Act::GroupProcess { group, one_by_one }, dice);
    }

    /// *Restore*: to the same device, to another of its size, to a virtual device (D10 to D13), several at one instant (D8).
    fn restore(&mut self, dice: &mut Dice) {
        let (mut items, mut targets) = (Vec::new(), Vec::new());
        for _ in 0..if dice.chance(250) { 2 } else { 1 } {
            let Some(at) = self.any(&[Stage::Active], dice) else { break };
            let Some((label, of)) = self.sessions.get(at).map(|it| (it.label.clone(), it.of.clone())) else {
                break;
            };
            let size = self.standard.iter().find(|(name, _)| *name == of).map(|(_, size)| *size);
            let mates: Vec<String> = self
                .standard
                .iter()
                .filter(|(_, other)| Some(*other) == size)
                .map(|(name, _)| name.clone())
                .collect();
            let shown_by = if dice.chance(150) { self.free_virtual(dice) } else { None };
            let target = match &shown_by {
                Some(device) => device.clone(),
                None if dice.chance(400) => dice.pick(&mates).clone(),
                None => of.clone(),
            };
            if targets.contains(&target) || items.iter().any(|item: &RestoreItem| item.session == label) {
                continue;
            }
            let mut item = RestoreItem::of(&label);
            item.to = Some(target.clone()).filter(|to| *to != of);
            (item.keep, item.offline) = (dice.chance(400), dice.chance(100));
            item.makes = (shown_by.is_some() || dice.chance(700)).then(|| self.label('b'));
            // What leaves no trace could not be told from what did not happen.
            item.name = ((item.keep && item.makes.is_none()) || dice.chance(80)).then(|| self.label('n'));
            let of = if shown_by.is_some() { of } else { target.clone() };
            if let Some(label) = item.makes.clone() {
                self.sessions.push(Session { label, of, shown_by, stage: Stage::Active });
            }
            if !item.keep {
                self.sessions.retain(|session| session.label != label);
            }
            items.push(item);
            targets.push(target);
        }
        if items.is_empty() {
            return;
        }
        let before =
            items.iter().filter(|item| item.to.as_ref().is_none_or(|to| !self.virtuals.contains(to)));
        let before: Vec<_> = before.filter_map(|item| item.makes.clone()).collect();
        let offline: Vec<_> = targets.into_iter().zip(&items).filter(|(_, item)| item.offline).collect();
        let offline: Vec<_> = offline.into_iter().map(|(target, _)| target).collect();
        self.push(Act::Local(LocalAct::Restore { items }), dice);
        for device in offline {
            self.push_next(Act::Online { device, online: true });
        }
        for device in before.into_iter().filter(|_| dice.chance(400)) {
            self.push_next(Act::Online { device: device.clone(), online: true });
            self.push_next(Act::Read { device, offset: 0, length: 64 << 10 });
        }
    }

    /// A device that comes and goes.
    fn extra_device(&mut self, dice: &mut Dice) {
        let device = self.label('x');
        self.push(Act::Create { device: device.clone(), size_bytes: 512 * dice.between(1, 300) }, dice);
        if dice.chance(700) {
            self.push_next(Act::Write {
                device: device.clone(),
                offset: 0,
                length: 512,
                fua: dice.chance(500),
            });
            self.push(Act::Delete { device }, dice);
        }
    }

    /// What must be refused, or change nothing.
    fn wrong(&mut self, dice: &mut Dice) {
        let session = match self.sessions.len() {
            0 => "s9.9".into(),
            _ => dice.pick(&self.sessions).label.clone(),
        };
        let device = dice.pick(&self.standard).0.clone();
        let act = match dice.below(5) {
            // A standard device is no virtual device.
            0 => Act::Relate { session, device },
            1 => Act::Grow { device, size_bytes: 512 },
            2 => Act::Create { device, size_bytes: 4096 },
            3 => Act::Rename { device: device.clone(), to: device },
            _ => Act::Register { session: self.label('s'), device: "nothing".into(), group: None },
        };
        self.push(act, dice);
    }
}
