//! One array of a world: its program starts, crashes, and starts again; what it leaves on its disks is looked at.

use std::rc::Rc;

use turmoil::Sim;
use twintrack_controller::shell::{Config, Endpoint, PoolConfig, PoolPolicy};

use crate::cabinet::{SimCabinet, SimEnv};
use crate::disk::Survival;
use crate::endpoints::{LINK_PORT, MANAGE_PORT, NBD_PORT, SimNet};
use crate::hosts::{self, Phase, Shared};
use crate::inspect;
use crate::note;
use crate::oracle::Ending;
use crate::plan::{FAR_POOL, METADATA_DISK, StoreSpec};
use crate::site::Site;

/// How long an array stays down when it has ended by itself, ms.
pub(super) const RESPAWN_MS: u64 = 20;

/// One array.
pub(super) struct Array {
    pub(super) site: Site,
    shared: Rc<Shared>,
    /// How the next power cut goes: down for so long, and what the caches become.
    pub(super) next_cut: (u64, Survival),
    restart_at_ms: Option<u64>,
    /// How often one that was up opened its metadata again.
    reloads: u64,
    pub(super) crashes: u64,
}

impl Array {
    pub(super) fn new(site: Site, shared: Rc<Shared>) -> Self {
        Self { site, shared, next_cut: (10, Survival::Mixed), restart_at_ms: None, reloads: 0, crashes: 0 }
    }

    /// Whether it is down, and will start again.
    pub(super) fn is_down(&self) -> bool {
        self.restart_at_ms.is_some()
    }

    /// Adds it to the simulation.
    pub(super) fn join(&self, sim: &mut Sim<'_>) {
        let (site, shared) = (self.site, self.shared.clone());
        let plan = &self.shared.plan;
        let address = site.address();
        let names = |stores: &[StoreSpec]| stores.iter().map(|store| store.name.clone()).collect::<Vec<_>>();
        let policy = PoolPolicy { when_full: plan.world.when_full, ..PoolPolicy::default() };
        let pool = |name: &str, stores: &[StoreSpec]| PoolConfig {
            name: name.into(),
            stores: names(stores),
            policy,
        };
        let mut pools = vec![pool("pool", &plan.world.stores)];
        if !plan.world.far_stores.is_empty() {
            pools.push(pool(FAR_POOL, &plan.world.far_stores));
        }
        let config = Config {
            nbd: vec![Endpoint::Tcp(address.into(), NBD_PORT)],
            control: vec![Endpoint::Tcp(address.into(), MANAGE_PORT)],
            control_token: None,
            link: if plan.world.arrays > 1 {
                vec![Endpoint::Tcp(address.into(), LINK_PORT)]
            } else {
                Vec::new()
            },
            pools,
            track_bytes: plan.world.track_bytes,
        };
        let env = SimEnv::new(site.seed(plan.seed));
        sim.host(address, move || {
            let (shared, config) = (shared.clone(), config.clone());
            let (net, env) = (SimNet { wires: shared.wires.clone(), site }, env.clone());
            async move {
                let array = shared.array(site);
                let cabinet = SimCabinet(array.enclosure.clone());
                let served =
                    twintrack_controller::serve(net, cabinet, env, config, std::future::pending()).await;
                // It ended by itself, as it does if a disk fails while it starts: it is started again.
                note!(
                    array.timeline,
                    "array",
                    "ended: {}",
                    served.map_or_else(|e| e.to_string(), |()| "done".into())
                );
                if array.crash_wanted.get().is_none() && array.enclosure.power().is_on() {
                    array.crash_wanted.set(Some(Survival::Everything));
                }
                std::future::pending().await
            }
        });
    }

    /// Starts it again, if it is time.
    pub(super) fn restart(&mut self, sim: &mut Sim<'_>, now_ms: u64) {
        if self.restart_at_ms.is_none_or(|at_ms| at_ms > now_ms) {
            return;
        }
        self.restart_at_ms = None;
        self.here().down.set(false);
        note!(self.here().timeline, "world", "the array starts");
        self.here().enclosure.switch_on();
        sim.bounce(self.site.address());
        if self.shared.phase.get() == Phase::Quiet {
            self.here().crash_wanted.set(None);
        }
    }

    /// What became of it in the last tick.
    pub(super) fn look(&mut self, sim: &mut Sim<'_>, now_ms: u64) {
        let shared = self.shared.clone();
        let here = shared.array(self.site);
        let reloads = here.enclosure.reopens(METADATA_DISK);
        if reloads > self.reloads {
            // A commit failed, and the array loads its tables anew: what was not committed is lost.
            self.reloads = reloads;
            shared.ledger().crashed(self.site, Ending::Reloaded);
            shared.wires.begin_epoch(self.site);
        }
        if self.is_down() {
            return;
        }
        if !here.enclosure.power().is_on() {
            self.crash(sim, now_ms, self.next_cut.0, self.next_cut.1);
        } else if let Some(survival) = here.crash_wanted.get() {
            if shared.phase.get() != Phase::Quiet {
                here.crash_wanted.set(None);
            }
            self.crash(sim, now_ms, RESPAWN_MS, survival);
        }
    }

    /// It crashes, and starts again `down_ms` later.
    pub(super) fn crash(&mut self, sim: &mut Sim<'_>, now_ms: u64, down_ms: u64, survival: Survival) {
        note!(self.here().timeline, "world", "the array is down for {down_ms} ms");
        self.crashes += 1;
        self.here().enclosure.cut();
        self.shared.wires.silence(self.site);
        let kept = survival == Survival::Everything;
        let ending = if kept { Ending::Killed } else { Ending::PowerCut };
        self.shared.ledger().crashed(self.site, ending);
        self.shared.wires.begin_epoch(self.site);
        self.here().enclosure.lose(survival);
        sim.crash(self.site.address());
        self.here().down.set(true);
        self.inspect();
        self.restart_at_ms = Some(now_ms + down_ms.max(1));
    }

    fn here(&self) -> &hosts::Array {
        self.shared.array(self.site)
    }

    /// Looks at its disks, while it is down.
    fn inspect(&self) {
        let (shared, here) = (&self.shared, self.here());
        let sound = !shared.plan.has_disk_faults();
        let checked = inspect::committed(here).and_then(|found| {
            let Some(found) = found else { return Ok(()) };
            if shared.phase.get() == Phase::Quiet {
                inspect::show(&here.timeline, &found.tables);
            }
            if sound {
                inspect::check_pools(&found)?;
            }
            let tears = shared.plan.world.tears;
            if sound && !tears { inspect::check_births(shared, self.site, &found) } else { Ok(()) }
        });
        // What a failing disk did to its metadata is not the array's doing.
        if sound {
            let checked = checked.and_then(|()| inspect::check_pairs(shared, false));
            shared.ledger().hold(checked);
        }
    }
}
