//! **A snapshot of a pair is on both arrays, the same, or on neither** (F3). Whoever was told that it is made finds it on the
//! array that he asked, after any crash, and on the other one once both have met; who was refused finds it on neither then.
//! An array has the sessions of all volumes of a snapshot, or of none, and shows them once it is decided that there is one:
//! what was seen on either array is there for good. Byte for byte the sessions of both arrays show the same, also of what was
//! being written when it was asked for.

use std::collections::BTreeMap;

use super::Violation;
use super::content::Value;
use super::history::VolumeId;

/// What an array lists of one of the sessions of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// There is none.
    None,
    /// It is there, and waits for the decision.
    Prepared,
    /// It is there, or was and was removed.
    Shown,
}

/// Checks what an array lists of a snapshot. `there`: whether there is such a snapshot, if that is known; `decides`: this is the
/// array that was asked.
pub fn check_parts(
    snapshot: &str,
    parts: &[Part],
    there: Option<bool>,
    decides: bool,
) -> Result<(), Violation> {
    let wrong = |what: &str| Err(Violation::new("joint", format_args!("snapshot {snapshot}: {what}")));
    let Some(first) = parts.first() else { return Ok(()) };
    if parts.iter().any(|part| part != first) {
        return wrong(&format!("an array has some of its sessions and not all: {parts:?}"));
    }
    match (first, there) {
        (Part::None, Some(true)) => wrong("it was made, and an array has nothing of it"),
        (Part::Prepared, Some(true)) if decides => wrong("it was made, and who decided has not shown it"),
        (Part::Shown, Some(false)) => wrong("it was refused, and an array has it"),
        (Part::Prepared, Some(false)) if decides => wrong("it was refused, and who decided still has it"),
        _ => Ok(()),
    }
}

/// What sessions of one instant showed at first, by their volume and its sector.
#[derive(Debug, Default)]
pub(super) struct Shown(BTreeMap<(VolumeId, u64), Value>);

impl Shown {
    /// One of them shows a value; `Err`: another one showed that.
    pub(super) fn show(&mut self, of: VolumeId, sector: u64, value: Value) -> Result<(), Value> {
        let before = *self.0.entry((of, sector)).or_insert(value);
        if before == value { Ok(()) } else { Err(before) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_or_none() {
        use Part::*;
        let check = |parts: &[Part], there, decides| check_parts("s", parts, there, decides).is_ok();
        assert!(check(&[Shown, Shown], Some(true), true) && check(&[None, None], Some(false), true));
        assert!(check(&[Prepared, Prepared], Some(true), false), "it has yet to hear");
        assert!(check(&[Prepared, Prepared], Some(false), false), "it has yet to hear");
        assert!(!check(&[Prepared], Some(true), true) && !check(&[Prepared], Some(false), true));
        assert!(!check(&[None], Some(true), false) && !check(&[Shown], Some(false), false));
        for there in [Some(true), Some(false), Option::None] {
            assert!(!check(&[Shown, None], there, false), "all volumes or none");
        }
        assert!([None, Prepared, Shown].iter().all(|part| check(&[*part], Option::None, false)));
    }
}
