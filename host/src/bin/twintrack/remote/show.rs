//! How pairs look.

use twintrack_core::SessionId;
use twintrack_host::manage::{PairRole, RemoteInfo, VerifyInfo};

use crate::changed::ranges;
use crate::table::{Side, Table};
use crate::time;
use twintrack_link::size;
use twintrack_link::time::utc;

/// Pairs, one a line.
pub fn table(pairs: &[RemoteInfo]) -> Table<9> {
    let (left, right) = (Side::Left, Side::Right);
    let mut table = Table::new([
        ("DEVICE", left),
        ("HALF", left),
        ("STATUS", left),
        ("HOSTS", left),
        ("MODE", left),
        ("OTHER HALF", left),
        ("GROUP", left),
        ("OWED", right),
        ("LACKED", right),
    ]);
    for pair in pairs {
        table.row([
            pair.device.clone(),
            pair.half.name().to_owned(),
            pair.status.name().to_owned(),
            hosts(pair.role).to_owned(),
            pair.mode.name().to_owned(),
            format!("{}@{}", pair.peer_device, pair.peer),
            pair.group.clone().unwrap_or_else(|| "-".to_owned()),
            size::show(pair.owed_bytes),
            size::show(pair.lacked_bytes),
        ]);
    }
    table
}

/// Where hosts get at the volume.
fn hosts(role: PairRole) -> &'static str {
    match role {
        PairRole::Owner => "here",
        PairRole::Standby => "there",
        PairRole::Released => "nowhere",
    }
}

/// All about one pair.
pub fn facts(pair: &RemoteInfo) -> Table<2> {
    let mut facts = Table::facts();
    facts.fact("status", pair.status.name());
    facts.fact("why", &pair.why);
    facts.fact("next", &pair.next);
    facts.fact("pair", &pair.pair);
    facts.fact("device", format!("{} ({})", pair.device, pair.half.name()));
    facts.fact("other half", format!("{}@{}", pair.peer_device, pair.peer));
    facts.fact("role", pair.role.name());
    facts.fact("link", pair.link.name());
    facts.fact("data", pair.data.name());
    facts.fact("cause", pair.cause.name());
    facts.fact("mode", pair.mode.name());
    facts.fact("pace", pair.pace.name());
    facts.fact("policy", pair.policy.name());
    facts.fact("group", pair.group.as_deref().unwrap_or("-"));
    facts.fact("size", size::show(pair.size_bytes));
    facts.fact("owed", size::show(pair.owed_bytes));
    facts.fact("lacked", size::show(pair.lacked_bytes));
    facts.fact("copied", size::show(pair.copied_bytes));
    if pair.copied_bytes_per_s > 0 {
        facts.fact("rate", format!("{}/s", size::show(pair.copied_bytes_per_s)));
    }
    if let Some(left_s) = pair.left_s {
        facts.fact("time left", time::span(left_s));
    }
    if pair.since_ms > 0 {
        facts.fact("since", utc(pair.since_ms));
    }
    facts.fact("lag", lag(pair));
    if let Some(forced) = &pair.forced {
        let lost = forced.had_all_ms.map(|ms| format!("what the other array answered after {}", utc(ms)));
        facts.fact(
            "may be lost",
            lost.unwrap_or_else(|| "what the other array answered without this one".to_owned()),
        );
    }
    if let Some(kept) = &pair.safety_copy {
        let session = SessionId(kept.session);
        facts.fact("safety copy", format!("{session} ({}), of {}", kept.device, utc(kept.since_ms)));
    }
    if let Some(diverged) = &pair.diverged {
        facts.fact("written here", format!("{} tracks", diverged.here_tracks));
        if let Some(there_tracks) = diverged.there_tracks {
            facts.fact("written there", format!("{there_tracks} tracks"));
        }
        facts.fact("differing", size::show(diverged.bytes));
    }
    facts
}

/// How far the half that does not serve is behind.
fn lag(pair: &RemoteInfo) -> String {
    match pair.lag_ms {
        None => "not known here".to_owned(),
        Some(0) => "none".to_owned(),
        Some(ms) => time::span(ms.div_ceil(1000)),
    }
}

/// What comparing found.
pub fn verified(found: &VerifyInfo) -> Table<2> {
    let mut facts = Table::facts();
    facts.fact("device", &found.device);
    facts.fact("compared", format!("{} tracks", found.compared_tracks));
    facts.fact("passed over", format!("{} tracks", found.passed_over_tracks));
    facts.fact("differing", format!("{} tracks", found.differing_tracks));
    if !found.differing.is_empty() {
        let more = if (found.differing.len() as u64) < found.differing_tracks { ", and more" } else { "" };
        facts.fact("which", format!("{}{more}", ranges(&found.differing).join(", ")));
    }
    if found.marked {
        facts.fact("marked", "yes: they are copied again");
    }
    facts
}
