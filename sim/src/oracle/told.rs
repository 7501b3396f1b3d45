//! **Whoever asks is told how it stands, why, and what comes next** (F5), in words; and the figures fit the words: nothing is
//! left to be copied of a pair that is the same, nor is it behind, and a pair that is held up says since when.

use twintrack_link::manage::{PairCause, PairData, PairLink, PairRole, PairStatusInfo, RemoteInfo};

use super::Violation;

/// Checks what an array tells of a pair.
pub fn check_told(info: &RemoteInfo) -> Result<(), Violation> {
    let wrong = |what: std::fmt::Arguments<'_>| {
        let RemoteInfo { device, status, .. } = info;
        Err(Violation::new("told", format_args!("{device} is told to be {status:?}, and {what}")))
    };
    for (what, text) in [("why", &info.why), ("what comes next", &info.next)] {
        let is_sentence = text.len() > 8 && text.contains(' ') && !text.ends_with(' ');
        if !is_sentence {
            return wrong(format_args!("{what} is {text:?}"));
        }
    }
    let left = info.owed_bytes + info.lacked_bytes;
    if info.owed_bytes.max(info.lacked_bytes) > info.size_bytes {
        return wrong(format_args!("{left} of {} bytes are to be copied", info.size_bytes));
    }
    let same = matches!(info.status, PairStatusInfo::Synchronized | PairStatusInfo::R1Updated);
    if same && (left > 0 || info.link != PairLink::Up || info.data != PairData::Same) {
        return wrong(format_args!("link {:?}, data {:?}, {left} bytes to be copied", info.link, info.data));
    }
    if same != (info.next == "nothing to do") {
        return wrong(format_args!("what comes next is {:?}", info.next));
    }
    if (info.cause == PairCause::Moving) != (info.since_ms == 0) {
        return wrong(format_args!("cause {:?} since {}", info.cause, info.since_ms));
    }
    if (info.cause == PairCause::Diverged) != info.diverged.is_some() {
        return wrong(format_args!("cause {:?}, of a split brain it tells {:?}", info.cause, info.diverged));
    }
    if same && info.role == PairRole::Owner && info.lag_ms != Some(0) {
        return wrong(format_args!("{:?} ms behind", info.lag_ms));
    }
    if info.forced.is_some() && info.role != PairRole::Owner {
        return wrong(format_args!("forced, though it does not serve: {:?}", info.forced));
    }
    let rate = info.copied_bytes_per_s;
    if info.left_s.is_some_and(|left_s| rate == 0 || left_s > left.div_ceil(rate)) {
        return wrong(format_args!("{:?} s left for {left} bytes at {rate} bytes a second", info.left_s));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use twintrack_link::manage::{ForcedInfo, PairHalf, PairMode, PairPace, PairPolicy};

    fn info() -> RemoteInfo {
        RemoteInfo {
            pair: "pair-a-1".into(),
            device: "d".into(),
            peer: "b".into(),
            peer_device: "e".into(),
            half: PairHalf::R1,
            status: PairStatusInfo::Synchronized,
            role: PairRole::Owner,
            link: PairLink::Up,
            data: PairData::Same,
            cause: PairCause::Moving,
            why: "both halves are the same".into(),
            next: "nothing to do".into(),
            mode: PairMode::Synchronous,
            pace: PairPace::Adaptive,
            policy: PairPolicy::Continue,
            group: None,
            size_bytes: 100,
            owed_bytes: 0,
            lacked_bytes: 0,
            copied_bytes: 0,
            copied_bytes_per_s: 0,
            left_s: None,
            since_ms: 0,
            lag_ms: Some(0),
            forced: None,
            diverged: None,
            safety_copy: None,
        }
    }

    #[test]
    fn what_does_not_fit_is_found() {
        assert!(check_told(&info()).is_ok());
        let broken: [fn(&mut RemoteInfo); 11] = [
            |info| info.why.clear(),
            |info| info.next = "wait".into(),
            |info| info.next = "it is tried again in some seconds".into(),
            |info| info.owed_bytes = 1,
            |info| info.lacked_bytes = 101,
            |info| info.link = PairLink::Down,
            |info| info.cause = PairCause::Link,
            |info| info.cause = PairCause::Diverged,
            |info| info.left_s = Some(1),
            |info| info.lag_ms = None,
            |info| {
                (info.role, info.forced) = (PairRole::Standby, Some(ForcedInfo { had_all_ms: None }));
            },
        ];
        for (at, break_it) in broken.into_iter().enumerate() {
            let mut info = info();
            break_it(&mut info);
            assert_eq!(check_told(&info).unwrap_err().oracle, "told", "{at}");
        }
    }
}
