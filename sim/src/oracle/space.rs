//! **Reference counts equal the references, free is free, nothing leaks.** The first two only the array's own tables
//! can tell: see `inspect`. The third shows from outside: when every session and device is gone, everything is free
//! again.

use super::Violation;

/// A pool after every session and device was removed and the background has had its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Emptied {
    /// The pool's name.
    pub pool: String,
    /// All of it.
    pub size_bytes: u64,
    /// What is free.
    pub free_bytes: u64,
}

/// Checks that an emptied pool is free.
pub fn check_emptied(pool: &Emptied) -> Result<(), Violation> {
    if pool.free_bytes != pool.size_bytes {
        let Emptied { pool, size_bytes, free_bytes } = pool;
        let what = format_args!(
            "every session and device is gone, and of {size_bytes} bytes of pool {pool} only {free_bytes} are free"
        );
        return Err(Violation::new("space", what));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leak_is_seen() {
        let mut pool = Emptied { pool: "p".into(), size_bytes: 100, free_bytes: 100 };
        assert!(check_emptied(&pool).is_ok());
        pool.free_bytes = 99;
        assert!(check_emptied(&pool).is_err());
    }
}
