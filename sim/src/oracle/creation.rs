//! **A creation that is interrupted at any step leaves no half behind** (A7): once both arrays have met again, both have
//! their half or neither, and a device that was made for a pair that is not is gone.

use super::Violation;

/// What both arrays show of a pair when all is quiet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Halves {
    /// Which arrays list it.
    pub listed: [bool; 2],
    /// Whether a device that was to be made with it is there; `None`: none was.
    pub made: Option<bool>,
    /// Whether its creation was answered, well.
    pub answered: bool,
}

/// Checks a pair after its creation.
pub fn check_created(pair: &str, halves: Halves) -> Result<(), Violation> {
    let wrong = |what: &str| Err(Violation::new("creation", format_args!("pair {pair}: {what}")));
    match halves {
        Halves { listed: [true, false] | [false, true], .. } => {
            wrong("one array has its half, the other has none")
        }
        Halves { listed: [false, false], answered: true, .. } => wrong("it was made, and is not there"),
        Halves { listed: [false, false], made: Some(true), .. } => {
            wrong("the device that was made for it was left")
        }
        Halves { listed: [true, true], made: Some(false), .. } => {
            wrong("it is there, and a device of it is not")
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_pair_is_found() {
        let whole = Halves { listed: [true, true], made: Some(true), answered: true };
        let none = Halves { listed: [false, false], made: Some(false), answered: false };
        assert!(check_created("p", whole).is_ok() && check_created("p", none).is_ok());
        assert!(check_created("p", Halves { listed: [true, false], ..whole }).is_err());
        assert!(check_created("p", Halves { answered: true, ..none }).is_err());
        assert!(check_created("p", Halves { made: Some(true), ..none }).is_err());
        assert!(check_created("p", Halves { made: Some(false), ..whole }).is_err());
    }
}
