//! `array` and `pool`: what the array is, and its space.

use clap::Subcommand;
use twintrack_host::manage::{ArrayInfo, PoolInfo};

use crate::Context;
use crate::advice::Advice;
use crate::failure::Failure;
use crate::table::{Side, Table};
use twintrack_link::size;

/// Commands on the array.
#[derive(Debug, Subcommand)]
pub enum ArrayCommand {
    /// Shows what the array is, its space, and what needs an eye
    Show,
}

/// Commands on pools.
#[derive(Debug, Subcommand)]
pub enum PoolCommand {
    /// Lists the pools and their space: data is what standard devices take, log what only sessions keep
    List,
}

impl ArrayCommand {
    /// Where its failures lead.
    pub fn advice(&self) -> Advice {
        Advice::new("array show", &["array show"], &["array show"])
    }

    /// Carries it out.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let Self::Show = self;
        let info = context.array.array_show().await?;
        // Programs ask for pools by `pool list`.
        let pools = if context.output.json { Vec::new() } else { context.array.pool_list().await? };
        context.output.show(&info, || facts(&info, &pools).to_string())
    }
}

impl PoolCommand {
    /// Where its failures lead.
    pub fn advice(&self) -> Advice {
        Advice::new("pool list", &["array show"], &["array show"])
    }

    /// Carries it out.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let Self::List = self;
        let pools = context.array.pool_list().await?;
        context.output.show(&pools, || table(&pools).to_string())
    }
}

fn facts(info: &ArrayInfo, pools: &[PoolInfo]) -> Table<2> {
    let mut facts = Table::facts();
    facts.fact("serial", &info.serial);
    facts.fact("version", &info.version);
    facts.fact("track", size::show(u64::from(info.track_bytes)));
    facts.fact("devices", info.devices.to_string());
    facts.fact("sessions", info.sessions.to_string());
    // Sums of what an array says may be anything.
    let sum = |of: fn(&PoolInfo) -> u64| size::show(pools.iter().map(of).fold(0, u64::saturating_add));
    facts.fact("size", sum(|pool| pool.size_bytes));
    facts.fact("data", sum(|pool| pool.data_bytes));
    facts.fact("log", sum(|pool| pool.log_bytes));
    facts.fact("free", sum(|pool| pool.free_bytes));
    facts.fact("when full", when_full(pools));
    for warning in &info.warnings {
        facts.fact("warning", warning);
    }
    facts
}

/// One word if all pools do the same, else a word for each.
fn when_full(pools: &[PoolInfo]) -> String {
    let Some(first) = pools.first() else { return "-".to_owned() };
    if pools.iter().all(|pool| pool.when_full == first.when_full) {
        return first.when_full.name().to_owned();
    }
    let each = pools.iter().map(|pool| format!("{}: {}", pool.name, pool.when_full.name()));
    each.collect::<Vec<_>>().join(", ")
}

fn table(pools: &[PoolInfo]) -> Table<7> {
    let (left, right) = (Side::Left, Side::Right);
    let mut table = Table::new([
        ("NAME", left),
        ("SIZE", right),
        ("DATA", right),
        ("LOG", right),
        ("FREE", right),
        ("WARN BELOW", right),
        ("WHEN FULL", left),
    ]);
    for pool in pools {
        let sizes =
            [pool.size_bytes, pool.data_bytes, pool.log_bytes, pool.free_bytes, pool.warn_below_bytes];
        let [size, data, log, free, warn] = sizes.map(size::show);
        table.row([pool.name.clone(), size, data, log, free, warn, pool.when_full.name().to_owned()]);
    }
    table
}

#[cfg(test)]
mod tests {
    use twintrack_host::manage::WhenFull;

    use super::*;

    fn pool(name: &str) -> PoolInfo {
        PoolInfo {
            name: name.to_owned(),
            size_bytes: 10 << 30,
            data_bytes: 5 << 29,
            log_bytes: 64 << 10,
            free_bytes: (15 << 29) - (64 << 10),
            when_full: WhenFull::FailSessions,
            warn_below_bytes: 1 << 30,
        }
    }

    #[test]
    fn space_is_shown_pool_by_pool_and_in_all() {
        insta::assert_snapshot!(table(&[pool("main"), pool("fast")]), @r#"
        NAME    SIZE     DATA     LOG     FREE  WARN BELOW  WHEN FULL
        main  10 GiB  2.5 GiB  64 KiB  7.4 GiB       1 GiB  fail-sessions
        fast  10 GiB  2.5 GiB  64 KiB  7.4 GiB       1 GiB  fail-sessions
        "#);
        let info = ArrayInfo {
            serial: "0123456789abcdef".to_owned(),
            version: "0.1.0".to_owned(),
            track_bytes: 65536,
            devices: 3,
            sessions: 2,
            warnings: vec!["pool main is nearly full".to_owned(), "ses-2 failed".to_owned()],
        };
        insta::assert_snapshot!(facts(&info, &[pool("main"), pool("fast")]), @r#"
        serial     0123456789abcdef
        version    0.1.0
        track      64 KiB
        devices    3
        sessions   2
        size       20 GiB
        data       5 GiB
        log        128 KiB
        free       14.9 GiB
        when full  fail-sessions
        warning    pool main is nearly full
        warning    ses-2 failed
        "#);
        let refusing = PoolInfo { when_full: WhenFull::RefuseWrites, ..pool("fast") };
        assert_eq!(when_full(&[pool("main"), refusing]), "main: fail-sessions, fast: refuse-writes");
    }
}
