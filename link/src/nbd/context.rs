//! Metadata contexts: what a block status tells of, by name.
//!
//! ```text
//! base:allocation          what takes space
//! x-twintrack:diff/A/B     what differs between A and B, each of them
//!                          a session's number (ses-4 or 4), the name of the virtual device that shows it, or `now`
//! qemu:dirty-bitmap:NAME   what the export shows otherwise than the virtual device NAME, under the name that tools know
//! ```

use super::option::Malformed;

/// The metadata context that tells what takes space.
pub const BASE_ALLOCATION: &str = "base:allocation";
/// What [`ContextQuery::Diff`] begins with; A, a slash and B follow.
pub const DIFF: &str = "x-twintrack:diff/";
/// What [`ContextQuery::DirtyBitmap`] begins with; a name follows.
pub const DIRTY_BITMAP: &str = "qemu:dirty-bitmap:";
/// The one of two moments that is no session.
pub const NOW: &str = "now";
/// The most contexts of one connection.
pub const CONTEXTS_MAX: usize = 8;

/// What stands for all contexts that begin with it, in a list.
const WILDCARDS: [&str; 5] = ["base:", "x-twintrack:", DIFF, "qemu:", DIRTY_BITMAP];

/// A context that both sides agreed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Context {
    /// Its number in block status replies.
    pub id: u32,
    /// Its name.
    pub name: String,
}

/// A context as a client names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContextQuery<'a> {
    /// `base:allocation`.
    Allocation,
    /// `x-twintrack:diff/A/B`.
    Diff(&'a str, &'a str),
    /// `qemu:dirty-bitmap:NAME`.
    DirtyBitmap(&'a str),
}

impl<'a> ContextQuery<'a> {
    /// From its name. `Ok(None)`: it is none that is known here.
    pub fn parse(query: &'a str) -> Result<Option<Self>, Malformed> {
        if !query.contains(':') {
            return Err(Malformed);
        }
        if query == BASE_ALLOCATION {
            return Ok(Some(Self::Allocation));
        }
        if WILDCARDS.contains(&query) {
            return Ok(None);
        }
        if let Some(both) = query.strip_prefix(DIFF) {
            return match both.split_once('/') {
                Some((a, b)) if !a.is_empty() && !b.is_empty() && !b.contains('/') => {
                    Ok(Some(Self::Diff(a, b)))
                }
                _ => Err(Malformed),
            };
        }
        Ok(query.strip_prefix(DIRTY_BITMAP).map(Self::DirtyBitmap))
    }

    /// Whether a context belongs into a list that was asked for with these queries.
    pub fn lists(queries: &[String], name: &str) -> bool {
        let stands_for =
            |query: &String| query == name || WILDCARDS.contains(&query.as_str()) && name.starts_with(query);
        queries.is_empty() || queries.iter().any(stands_for)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_understood_or_not() {
        let parse = ContextQuery::parse;
        assert_eq!(parse("base:allocation"), Ok(Some(ContextQuery::Allocation)));
        assert_eq!(parse("x-twintrack:diff/ses-4/now"), Ok(Some(ContextQuery::Diff("ses-4", "now"))));
        assert_eq!(parse("qemu:dirty-bitmap:mon"), Ok(Some(ContextQuery::DirtyBitmap("mon"))));
        for unknown in
            ["base:", "base:x", "x-twintrack:", "x-twintrack:diff/", "x-y:z", "qemu:", DIRTY_BITMAP]
        {
            assert_eq!(parse(unknown), Ok(None), "{unknown}");
        }
        for none in ["", "base", "x-twintrack:diff/4", "x-twintrack:diff/4/", "x-twintrack:diff//4"] {
            assert_eq!(parse(none), Err(Malformed), "{none}");
        }
        assert_eq!(parse("x-twintrack:diff/1/2/3"), Err(Malformed));
    }

    #[test]
    fn a_list_takes_what_a_query_stands_for() {
        let lists = |query: &str, name| ContextQuery::lists(&[query.to_owned()], name);
        assert!(ContextQuery::lists(&[], BASE_ALLOCATION));
        assert!(lists("base:", BASE_ALLOCATION) && lists(BASE_ALLOCATION, BASE_ALLOCATION));
        assert!(lists("qemu:dirty-bitmap:", "qemu:dirty-bitmap:mon"));
        assert!(!lists("qemu:dirty-bitmap:m", "qemu:dirty-bitmap:mon") && !lists("qemu:", BASE_ALLOCATION));
    }
}
