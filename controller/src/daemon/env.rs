//! The clock and the random numbers of the operating system.

use std::time::UNIX_EPOCH;

use rustix::rand::{GetRandomFlags, getrandom};

use crate::shell::Env;

/// The environment of a daemon.
#[derive(Debug, Clone, Copy)]
pub struct SystemEnv;

impl Env for SystemEnv {
    #[expect(clippy::disallowed_methods, reason = "this is where wall time comes from")]
    fn wall_ms(&self) -> u64 {
        let since = std::time::SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    fn entropy(&self) -> u64 {
        let mut bytes = [0; 8];
        // It waits for the kernel's pool once after power on, and never fails for so few bytes.
        while getrandom(&mut bytes, GetRandomFlags::empty()).is_err() {}
        u64::from_le_bytes(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_of_this_age_and_no_number_comes_twice() {
        assert!(SystemEnv.wall_ms() > 1_700_000_000_000);
        assert_ne!(SystemEnv.entropy(), SystemEnv.entropy());
    }
}
