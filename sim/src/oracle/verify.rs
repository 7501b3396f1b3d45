//! **A comparison of both halves cries no wolf, and overlooks nothing**: while hosts write, links break and arrays crash,
//! every track that it tells to differ does; and when nobody writes, it tells all that do.

use std::collections::BTreeSet;

use twintrack_link::manage::VerifyInfo;

use super::Violation;

/// What is known of the tracks of a pair that was compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Differing {
    /// These may differ without that being noted: somebody changed them behind the array's back.
    May(BTreeSet<u32>),
    /// Exactly these do: nobody writes.
    Do(BTreeSet<u32>),
}

/// Checks what a comparison found. `tracks`: of the volume.
pub fn check_verified(
    pair: &str,
    info: &VerifyInfo,
    tracks: u64,
    known: &Differing,
) -> Result<(), Violation> {
    let wrong = |what: std::fmt::Arguments<'_>| {
        Err(Violation::new("verify", format_args!("the comparison of pair {pair}: {what}")))
    };
    let found: BTreeSet<u32> = info.differing.iter().copied().collect();
    if info.differing_tracks != found.len() as u64 {
        return wrong(format_args!("{} tracks differ, and it names {found:?}", info.differing_tracks));
    }
    if info.compared_tracks + info.passed_over_tracks != tracks {
        let VerifyInfo { compared_tracks: compared, passed_over_tracks: passed, .. } = info;
        return wrong(format_args!("{compared} of {tracks} tracks were compared, {passed} passed over"));
    }
    match known {
        Differing::May(changed) => match found.difference(changed).next() {
            Some(track) => wrong(format_args!("track {track} is said to differ, and does not")),
            None => Ok(()),
        },
        Differing::Do(changed) if info.passed_over_tracks > 0 => {
            wrong(format_args!("tracks were passed over, though nothing is owed, {changed:?} differing"))
        }
        Differing::Do(changed) if *changed != found => {
            wrong(format_args!("tracks {changed:?} differ, and it found {found:?}"))
        }
        Differing::Do(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(differing: &[u32]) -> VerifyInfo {
        VerifyInfo {
            device: "d".into(),
            compared_tracks: 9,
            passed_over_tracks: 1,
            differing: differing.to_vec(),
            differing_tracks: differing.len() as u64,
            marked: false,
        }
    }

    #[test]
    fn false_alarms_and_misses_are_found() {
        let check = |found: &[u32], known: Differing| check_verified("p", &info(found), 10, &known);
        let (three, none) = (BTreeSet::from([3]), BTreeSet::new());
        assert!(check(&[], Differing::May(three.clone())).is_ok(), "the copy may have set it right");
        assert!(check(&[3], Differing::May(three.clone())).is_ok());
        assert!(check(&[3], Differing::May(none.clone())).is_err());
        assert!(check(&[], Differing::Do(none.clone())).is_err(), "one was passed over");
        let whole = |found: &[u32]| VerifyInfo { compared_tracks: 10, passed_over_tracks: 0, ..info(found) };
        assert!(check_verified("p", &whole(&[3]), 10, &Differing::Do(three.clone())).is_ok());
        assert!(check_verified("p", &whole(&[]), 10, &Differing::Do(three)).is_err());
        assert!(check_verified("p", &whole(&[3]), 10, &Differing::Do(none)).is_err());
        assert!(check_verified("p", &whole(&[]), 11, &Differing::May(BTreeSet::new())).is_err());
    }
}
