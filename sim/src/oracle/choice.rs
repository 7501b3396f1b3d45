//! **A secondary that nobody names is the lowest-numbered reserved volume that fits and is free** (C9).

use super::Violation;

/// A volume that may have been chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// As the plan calls it.
    pub name: String,
    /// Its number, once an answer told.
    pub number: Option<u32>,
    /// Whether it is reserved, of the right size and in no copy; `None`: that is not known.
    pub fits: Option<bool>,
}

/// Checks which one was chosen.
pub fn check_choice(candidates: &[Candidate], chosen: &str) -> Result<(), Violation> {
    let violation = |what: std::fmt::Arguments<'_>| Violation::new("choice", what);
    let found = candidates.iter().find(|candidate| candidate.name == chosen);
    let Some(found) = found.filter(|candidate| candidate.fits != Some(false)) else {
        return Err(violation(format_args!("{chosen} was chosen as a secondary, and does not fit")));
    };
    let is_lower = |candidate: &&Candidate| candidate.fits == Some(true) && candidate.number < found.number;
    match candidates.iter().filter(|candidate| candidate.number.is_some()).find(is_lower) {
        Some(lower) => Err(violation(format_args!(
            "{chosen} was chosen as a secondary, though {} fits, too, and has a lower number",
            lower.name
        ))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_that_fits() {
        let fits = [Some(false), None, Some(true), Some(true)];
        let candidates: Vec<_> = (0..)
            .zip(fits)
            .map(|(n, fits)| Candidate { name: format!("z{n}"), number: Some(n), fits })
            .collect();
        let chosen = ["z0", "z1", "z2", "z3", "d0"].map(|name| check_choice(&candidates, name).is_ok());
        assert_eq!(chosen, [false, true, true, false, false]);
    }
}
