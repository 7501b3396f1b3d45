//! What a pool does when it runs full, and when it warns before.

use twintrack_core::PoolId;
use twintrack_core::defect::{Defect, planted};
use twintrack_link::manage::WhenFull;

use super::Firmware;

/// What the owner decided for a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PoolPolicy {
    /// What becomes of a host's write to a standard device that finds no free track.
    pub when_full: WhenFull,
    /// With less free than this, the pool is among the array's warnings.
    pub warn_below: Threshold,
}

/// How much of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Threshold {
    /// So many hundredths of its size; more than 100 are 100.
    PerCent(u8),
    /// So many bytes.
    Bytes(u64),
}

impl Default for Threshold {
    fn default() -> Self {
        Self::PerCent(10)
    }
}

impl Threshold {
    /// In bytes, of a pool of so many.
    pub fn of(self, size_bytes: u64) -> u64 {
        match self {
            Self::PerCent(part) => (u128::from(size_bytes) * u128::from(part.min(100)) / 100) as u64,
            Self::Bytes(bytes) => bytes,
        }
    }
}

impl Firmware {
    pub(super) fn policy(&self, pool: PoolId) -> PoolPolicy {
        self.policies.get(&pool).copied().unwrap_or_default()
    }

    /// Whether a host's write that finds no room may fail sessions to get it.
    pub(super) fn may_fail_sessions(&self, pool: PoolId) -> bool {
        match self.policy(pool).when_full {
            WhenFull::FailSessions => !planted(Defect::WriteRefused),
            WhenFull::RefuseWrites => planted(Defect::PolicyIgnored),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds() {
        for (threshold, size, bytes) in [
            (Threshold::default(), 1000, 100),
            (Threshold::PerCent(0), 1000, 0),
            (Threshold::PerCent(255), 1000, 1000),
            (Threshold::PerCent(99), u64::MAX, u64::MAX / 100 * 99 + 14),
            (Threshold::Bytes(7), 1000, 7),
        ] {
            assert_eq!(threshold.of(size), bytes);
        }
    }
}
