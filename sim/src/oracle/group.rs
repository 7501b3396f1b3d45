//! **A consistency group suspends as one**: what the arrays notice of one pair of it (the link is lost, the other side failed
//! to write, its pool is full) holds all of them up, at one instant. Otherwise a later write of one pair reaches the
//! other side, and an earlier one of another does not.

use super::Violation;

/// A pair of a group, as the half that serves is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its device.
    pub device: String,
    /// What holds it up.
    pub held: Held,
    /// Whether both arrays have agreed on it, on the link that is up: until then it may yet be let go by itself.
    pub agreed: bool,
    /// Whether they are about to agree.
    pub agreeing: bool,
}

/// What holds a pair up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// Nothing.
    No,
    /// What the arrays have noticed.
    Noticed,
    /// A person's will, or that both halves were written alone: each pair has its own.
    Otherwise,
}

/// How an array listed the pairs of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// When, ms.
    pub at_ms: u64,
    /// Connections between the arrays that there were: before it was asked, and when it had answered.
    pub links: (u64, u64),
    /// Those of which it serves its half.
    pub members: Vec<Member>,
}

/// A pair that its array has halted is tried again by itself no sooner than that, ms.
const HELD_MS_MIN: u64 = 9000;

/// Checks a listing against the one before it: nothing was held up then, and no new link can have ended what was since. Who takes
/// over from the other array agrees with it anew, on the same link and pair by pair: what was held up meanwhile ends then.
pub fn check_group(group: &str, before: &Listing, now: &Listing) -> Result<(), Violation> {
    let with = |held: Held| now.members.iter().filter(move |member| member.held == held);
    let let_go = |held: &Member, moving: &Member| held.agreeing && moving.agreed;
    let found = with(Held::Noticed).find_map(|held| {
        let moving = with(Held::No).find(|moving| !let_go(held, moving))?;
        Some((held, moving))
    });
    let Some((held, moving)) = found else { return Ok(()) };
    let all_moved = before.members.iter().all(|member| member.held == Held::No && member.agreed);
    let steady = before.links.0 == now.links.1 && now.at_ms - before.at_ms < HELD_MS_MIN;
    if !all_moved || !steady || before.members.len() != now.members.len() {
        return Ok(());
    }
    let what = format_args!("of group {group} {} is held up, and {} is not", held.device, moving.device);
    Err(Violation::new("group", what))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_group_is_found() {
        let listing = |at_ms: u64, links: (u64, u64), held: [Held; 2]| {
            let member = |held| Member { device: "d".into(), held, agreed: links.0 > 2, agreeing: false };
            Listing { at_ms, links, members: held.map(member).to_vec() }
        };
        let before = listing(10, (3, 3), [Held::No, Held::No]);
        let half = [Held::Noticed, Held::No];
        assert_eq!(check_group("g", &before, &listing(30, (3, 3), half)).unwrap_err().oracle, "group");
        assert!(check_group("g", &before, &listing(30, (3, 3), [Held::Noticed; 2])).is_ok());
        assert!(check_group("g", &before, &listing(30, (3, 3), [Held::No, Held::Otherwise])).is_ok());
        assert!(
            check_group("g", &before, &listing(30, (3, 5), half)).is_ok(),
            "one has agreed, the other will"
        );
        assert!(check_group("g", &before, &listing(9999, (3, 3), half)).is_ok(), "one was tried again");
        assert!(check_group("g", &listing(10, (2, 2), [Held::No; 2]), &listing(30, (2, 2), half)).is_ok());
        assert!(check_group("g", &listing(10, (3, 3), half), &listing(30, (3, 3), half)).is_ok());
    }

    /// Both were taken over from the other array, written before that had said that it stands by, and so held up. It says so
    /// of one first. Once that counted.
    #[test]
    fn who_has_taken_over_agrees_pair_by_pair() {
        let member = |held, agreed: bool| Member { device: "d".into(), held, agreed, agreeing: !agreed };
        let listing =
            |at_ms: u64, members: [Member; 2]| Listing { at_ms, links: (3, 3), members: members.to_vec() };
        let before = listing(10, [member(Held::No, true), member(Held::No, true)]);
        let check = |members| check_group("g", &before, &listing(30, members));
        assert!(check([member(Held::No, true), member(Held::Noticed, false)]).is_ok());
        assert!(check([member(Held::No, false), member(Held::Noticed, false)]).is_err());
        assert!(check([member(Held::No, true), member(Held::Noticed, true)]).is_err());
    }
}
