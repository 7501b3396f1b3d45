//! Spans of time for people.

/// Hours, minutes and seconds: `1:02:03`.
pub fn span(s: u64) -> String {
    format!("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60)
}

/// A short time: `87 µs`, `1.2 ms`, `3.4 s`.
pub fn micros(us: u64) -> String {
    match us {
        0..1000 => format!("{us} µs"),
        1000..1_000_000 => format!("{}.{} ms", us / 1000, us / 100 % 10),
        _ => format!("{}.{} s", us / 1_000_000, us / 100_000 % 10),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_told_in_their_unit() {
        assert_eq!([0, 59, 3723, 360_000].map(span), ["0:00:00", "0:00:59", "1:02:03", "100:00:00"]);
        assert_eq!(
            [0, 999, 1250, 999_999, 3_450_000].map(micros),
            ["0 µs", "999 µs", "1.2 ms", "999.9 ms", "3.4 s"]
        );
    }
}
