//! Questions what differs between sessions (F7), among what operators do with them, while hosts write.

use super::build::Draft;
use super::{Act, DiffBy, LocalAct, Op};
use crate::dice::Dice;

/// How many plans have some, and how many commands on sessions are followed by one, per mille.
const PLANS: u32 = 300;
const AFTER: u32 = 400;
/// The most of them in a row.
const ROW_MAX: u64 = 3;

/// The sessions of a task, as far as it has come.
#[derive(Default)]
struct Sessions {
    /// Registered: session, its device, its group.
    registered: Vec<(String, String, Option<String>)>,
    /// Active: session and its device.
    active: Vec<(String, String)>,
    /// Neither, or of a part.
    others: Vec<String>,
}

/// Adds some to the tasks of a plan, of dice of their own.
pub(super) fn add(draft: &mut Draft, seed: u64) {
    let mut dice = Dice::new(seed, "diffs");
    if !dice.chance(PLANS) {
        return;
    }
    let pause_ms = draft.horizon_ms / 40 + 1;
    for task in &mut draft.tasks {
        let mut sessions = Sessions::default();
        let mut ops = Vec::new();
        for op in std::mem::take(&mut task.ops) {
            let is_command = sessions.follow(&op.act);
            ops.push(op);
            if is_command && dice.chance(AFTER) {
                for _ in 0..dice.between(1, ROW_MAX) {
                    let Some(act) = sessions.diff(&mut dice) else { break };
                    ops.push(Op { after_ms: dice.below(pause_ms), ..Op::now(act) });
                }
            }
        }
        task.ops = ops;
    }
}

impl Sessions {
    /// What follows from an operation; whether it is about sessions.
    fn follow(&mut self, act: &Act) -> bool {
        match act {
            Act::Establish { pairs } => {
                self.active
                    .extend(pairs.iter().map(|(session, device, _)| (session.clone(), device.clone())));
            }
            Act::EstablishParts { parts, .. } => {
                self.others.extend(parts.iter().map(|part| part.session.clone()));
            }
            Act::Register { session, device, group } => {
                self.registered.push((session.clone(), device.clone(), group.clone()));
            }
            Act::Activate { sessions, .. } => self.activate(|(session, ..)| sessions.contains(session)),
            Act::GroupProcess { group, .. } => self.activate(|(.., of)| of.as_ref() == Some(group)),
            Act::Deactivate { session } | Act::Remove { session } => {
                self.active.retain(|(active, _)| active != session);
                self.others.push(session.clone());
            }
            Act::Local(LocalAct::Restore { items }) => {
                for item in items {
                    let of = self.active.iter().find(|(session, _)| *session == item.session);
                    let Some((_, of)) = of.cloned() else { continue };
                    if !item.keep {
                        self.active.retain(|(session, _)| *session != item.session);
                    }
                    // Of a device that is restored; a virtual one shows a session of the same device as before.
                    let to = item.to.clone().filter(|to| !to.starts_with('v')).unwrap_or(of);
                    self.active.extend(item.makes.clone().map(|makes| (makes, to)));
                }
            }
            Act::Local(LocalAct::CopyBack { primary, before: Some(before), .. }) => {
                self.active.push((before.clone(), primary.clone()));
            }
            Act::Local(_) | Act::Grow { .. } => {}
            _ => return false,
        }
        true
    }

    fn activate(&mut self, which: impl Fn(&(String, String, Option<String>)) -> bool) {
        let (activated, left) = std::mem::take(&mut self.registered).into_iter().partition(which);
        self.registered = left;
        self.active.extend(activated.into_iter().map(|(session, device, _)| (session, device)));
    }

    fn diff(&self, dice: &mut Dice) -> Option<Act> {
        if self.active.is_empty() {
            return None;
        }
        let (session, device) = dice.pick(&self.active).clone();
        let mates: Vec<_> =
            self.active.iter().filter(|(other, of)| *of == device && *other != session).collect();
        let by = *dice.pick(&[DiffBy::Command, DiffBy::Context, DiffBy::Bitmap]);
        let other = match dice.below(20) {
            // Mostly refused.
            0 if !self.others.is_empty() => Some(dice.pick(&self.others).clone()),
            1 => Some(dice.pick(&self.active).0.clone()),
            2..12 if !mates.is_empty() => Some(dice.pick(&mates).0.clone()),
            _ => None,
        };
        Some(Act::Diff { session, other, by })
    }
}
