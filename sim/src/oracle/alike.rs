//! **A pair that is said to be the same is equal**, when nobody writes and all is flushed, adaptive or not; and **what either
//! half notes as owed, lacked or dirty covers every difference** (crash rule 5): at every instant, also between the disk
//! operations of a crash; for hosts see one half, and only what is noted is ever sent to the other.

use super::Violation;

/// What the disks of both arrays hold of one track of a pair.
#[derive(Debug)]
pub struct Twin<'a> {
    /// The pair.
    pub pair: &'a str,
    /// The track.
    pub track: u32,
    /// What each array holds of it.
    pub content: [&'a [u8]; 2],
    /// Whether one of them notes that it may differ.
    pub noted: bool,
}

/// Checks a track at any time.
pub fn check_covered(twin: &Twin<'_>) -> Result<(), Violation> {
    if twin.noted || twin.content[0] == twin.content[1] {
        return Ok(());
    }
    let Twin { pair, track, .. } = twin;
    let at = first_difference(twin);
    let what = format_args!(
        "pair {pair}: track {track} differs from byte {at} on, and neither array notes it as owed, lacked or dirty"
    );
    Err(Violation::new("covered", what))
}

/// Checks a track of a pair that is said to be the same while nobody writes.
pub fn check_equal(twin: &Twin<'_>) -> Result<(), Violation> {
    if twin.content[0] == twin.content[1] {
        return Ok(());
    }
    let Twin { pair, track, .. } = twin;
    let at = first_difference(twin);
    Err(Violation::new(
        "equal",
        format_args!("pair {pair} is said to be the same, and track {track} differs from byte {at} on"),
    ))
}

fn first_difference(twin: &Twin<'_>) -> usize {
    let [a, b] = twin.content;
    a.iter().zip(b).position(|(a, b)| a != b).unwrap_or(a.len().min(b.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_has_to_be_noted() {
        let mut twin = Twin { pair: "p", track: 3, content: [&[1, 2], &[1, 3]], noted: true };
        assert!(check_covered(&twin).is_ok());
        assert!(check_equal(&twin).unwrap_err().what.contains("from byte 1 on"));
        twin.noted = false;
        assert_eq!(check_covered(&twin).unwrap_err().oracle, "covered");
        twin.content = [&[1], &[1]];
        assert!(check_covered(&twin).is_ok() && check_equal(&twin).is_ok());
    }
}
