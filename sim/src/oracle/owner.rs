//! **Never do two arrays take writes for one volume**, unless a person forced one of them; that one is then in a generation of
//! its own, and if both were written, their lineages show that they diverged. And a half that does not serve answers no
//! host.

use super::Violation;

/// A half of a pair, as its array's committed tables have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Half {
    /// Whether it serves hosts.
    pub owner: bool,
    /// Whether a person made it serve, without the other.
    pub forced: bool,
    /// Whether its generation is its own: it may have taken writes that the other lacks.
    pub alone: bool,
}

/// Checks both halves of a pair. `diverged`: their lineages say so.
pub fn check_owners(pair: &str, halves: [Half; 2], diverged: bool) -> Result<(), Violation> {
    if !halves.iter().all(|half| half.owner) {
        return Ok(());
    }
    if !halves.iter().any(|half| half.forced) {
        let what = format_args!("pair {pair}: both arrays serve it, and nobody forced one");
        return Err(Violation::new("owner", what));
    }
    if halves.iter().any(|half| half.forced && !half.alone) {
        let what = format_args!(
            "pair {pair}: both arrays serve it, and the one that was forced began no generation"
        );
        return Err(Violation::new("owner", what));
    }
    if halves.iter().all(|half| half.alone) && !diverged {
        let what = format_args!(
            "pair {pair}: both arrays serve it, each in a generation of its own, and their lineages do not diverge"
        );
        return Err(Violation::new("owner", what));
    }
    Ok(())
}

/// A host's request on a half that surely did not serve was answered well.
pub fn served_by_another(device: &str, pair: &str, what: &str) -> Violation {
    Violation::new(
        "owner",
        format_args!("{what} on {device} was carried out, though the other half of {pair} serves"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_owners_are_found() {
        let owner = Half { owner: true, forced: false, alone: false };
        let standby = Half { owner: false, ..owner };
        assert!(check_owners("p", [owner, standby], false).is_ok());
        assert!(check_owners("p", [owner, owner], false).is_err());
        let forced = Half { forced: true, alone: true, ..owner };
        assert!(check_owners("p", [owner, forced], false).is_ok(), "the first has not written alone");
        assert!(check_owners("p", [owner, Half { alone: false, ..forced }], false).is_err());
        let written = Half { alone: true, ..owner };
        assert!(check_owners("p", [written, forced], false).is_err());
        assert!(check_owners("p", [written, forced], true).is_ok());
    }
}
