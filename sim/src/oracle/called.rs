//! **What a pair within the array is called fits to what it is** (C13): *pending* until it is copied, *re-sync* when it is to be
//! copied again or back, *SP-pending* while it is, *duplex* while nothing differs and *split* when something does, *suspend* while
//! a copy does not go on, and then it says why; *once* is what ends by itself.

use twintrack_link::manage::{PairCalled, PairInfo, PairStage};

use super::Violation;

/// Checks what an array tells of a pair. `is_open`: whether its secondary is copied or being copied, if that is known;
/// `may_lack`: a pool may be full, or a disk fail.
pub fn check_called(info: &PairInfo, is_open: Option<bool>, may_lack: bool) -> Result<(), Violation> {
    let wrong = |what: std::fmt::Arguments<'_>| {
        let PairInfo { primary, secondary, status, called, .. } = info;
        let of = format_args!("the pair of {primary} and {secondary} is told to be {status:?}");
        Err(Violation::new("called", format_args!("{of} and called {called:?}, and {what}")))
    };
    if is_open.is_some_and(|is_open| is_open == (info.status == PairStage::Paired)) {
        return wrong(format_args!("open to hosts is {is_open:?}"));
    }
    let copying = info.status == PairStage::Copying;
    if info.trouble.is_some() != (info.called == PairCalled::Suspend)
        || info.trouble.is_some() && !(copying && may_lack)
    {
        return wrong(format_args!("its trouble is {:?}", info.trouble));
    }
    let fits = match (info.called, info.status) {
        (PairCalled::Pending, PairStage::Paired) => info.copied_ms.is_none(),
        (PairCalled::Resync, PairStage::Paired) => info.copied_ms.is_some(),
        (PairCalled::Resync, PairStage::Copying) => info.back,
        (PairCalled::SpPending, PairStage::Copying) => !info.back,
        (PairCalled::Duplex, PairStage::Copied) => info.unequal_tracks == 0,
        (PairCalled::Split, PairStage::Copied) => info.unequal_tracks > 0,
        (PairCalled::Suspend | PairCalled::Once, PairStage::Copying) => true,
        _ => false,
    };
    let (unequal, left) = (info.unequal_tracks, info.to_copy_tracks);
    if !fits {
        return wrong(format_args!("was copied at {:?}, {unequal} are unequal", info.copied_ms));
    }
    let moved = info.moved_to_track;
    let is_moving = moved.is_some_and(|moved| copying && left == 0 && moved <= info.tracks);
    if unequal.max(left) > info.tracks || (left > 0 && !copying) || (moved.is_some() && !is_moving) {
        return wrong(format_args!(
            "of {} tracks {unequal} are unequal, {left} to be copied, those before {moved:?} moved",
            info.tracks
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use twintrack_link::manage::PairPace;

    fn info(status: PairStage, called: PairCalled) -> PairInfo {
        PairInfo {
            number: 1,
            primary: "p".into(),
            secondary: "s".into(),
            status,
            called,
            back: false,
            pace: PairPace::Slow,
            tracks: 10,
            to_copy_tracks: 0,
            moved_to_track: None,
            unequal_tracks: 0,
            copied_ms: Some(1),
            trouble: None,
        }
    }

    #[test]
    fn each_status_has_its_name() {
        let is_right = |info: &PairInfo| check_called(info, None, true).is_ok();
        let duplex = info(PairStage::Copied, PairCalled::Duplex);
        assert!(is_right(&duplex) && check_called(&duplex, Some(true), false).is_ok());
        assert!(check_called(&duplex, Some(false), false).is_err(), "hosts were kept off");
        assert!(!is_right(&PairInfo { unequal_tracks: 1, ..duplex.clone() }));
        assert!(!is_right(&PairInfo { to_copy_tracks: 1, ..duplex.clone() }));
        assert!(!is_right(&PairInfo { moved_to_track: Some(1), ..duplex }));
        let pending = info(PairStage::Paired, PairCalled::Pending);
        assert!(!is_right(&pending) && is_right(&PairInfo { copied_ms: None, ..pending.clone() }));
        assert!(check_called(&PairInfo { copied_ms: None, ..pending }, Some(true), false).is_err());
        let copying = info(PairStage::Copying, PairCalled::SpPending);
        assert!(is_right(&copying) && !is_right(&PairInfo { back: true, ..copying.clone() }));
        assert!(is_right(&PairInfo { called: PairCalled::Resync, back: true, ..copying.clone() }));
        assert!(is_right(&PairInfo { moved_to_track: Some(10), ..copying.clone() }));
        assert!(!is_right(&PairInfo { moved_to_track: Some(11), ..copying.clone() }));
        let stuck = PairInfo { called: PairCalled::Suspend, trouble: Some("full".into()), ..copying };
        assert!(is_right(&stuck) && check_called(&stuck, None, false).is_err(), "there is room");
        assert!(!is_right(&PairInfo { called: PairCalled::SpPending, ..stuck.clone() }));
        assert!(!is_right(&PairInfo { trouble: None, ..stuck }), "it does not say why");
    }
}
