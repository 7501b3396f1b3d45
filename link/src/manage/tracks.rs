//! Which saved tracks one request reads (D15), as its path and a command line have them: `7`, `12-40`, `1-2,9`.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use super::TrackRange;

/// The most tracks and ranges of them that one request names.
pub const TRACK_RANGES_MAX: usize = 1024;

/// Tracks in the order in which they are read, one or more; one may be named twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrackList(Vec<TrackRange>);

/// It names no tracks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum TrackListError {
    /// Not a track, nor a range.
    #[error("name tracks by their numbers, or as ranges from one to a higher one, such as 12-40")]
    Word,
    /// None at all.
    #[error("no track is named: name at least one")]
    Nothing,
    /// Too many.
    #[error("one request names {TRACK_RANGES_MAX} tracks and ranges at most: ask for the rest by another")]
    TooMany,
}

impl TrackList {
    /// Of these, each from its first to its last track.
    pub fn new(ranges: Vec<TrackRange>) -> Result<Self, TrackListError> {
        match ranges.len() {
            0 => Err(TrackListError::Nothing),
            count if count > TRACK_RANGES_MAX => Err(TrackListError::TooMany),
            _ if ranges.iter().any(|range| range.first > range.last) => Err(TrackListError::Word),
            _ => Ok(Self(ranges)),
        }
    }

    /// One only.
    pub fn one(track: u32) -> Self {
        Self(vec![TrackRange { first: track, last: track }])
    }

    /// The same, by ranges.
    pub fn ranges(&self) -> &[TrackRange] {
        &self.0
    }

    /// One after the other.
    pub fn tracks(&self) -> impl Iterator<Item = u32> + Send + use<> {
        self.0.clone().into_iter().flat_map(|range| range.first..=range.last)
    }

    /// The path at which an array has them.
    pub fn path(&self, session: u32) -> String {
        format!("/v1/session/{session}/track/{self}")
    }
}

impl FromStr for TrackRange {
    type Err = TrackListError;

    fn from_str(text: &str) -> Result<Self, TrackListError> {
        let number = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            digits.then(|| text.parse().ok()).flatten().ok_or(TrackListError::Word)
        };
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let range = Self { first: number(first)?, last: number(last)? };
        if range.first <= range.last { Ok(range) } else { Err(TrackListError::Word) }
    }
}

impl fmt::Display for TrackRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.first == self.last {
            true => write!(f, "{}", self.first),
            false => write!(f, "{}-{}", self.first, self.last),
        }
    }
}

impl FromStr for TrackList {
    type Err = TrackListError;

    fn from_str(text: &str) -> Result<Self, TrackListError> {
        // No more than that many are looked at, however long the text is.
        let ranges: Result<_, _> = text.split(',').take(TRACK_RANGES_MAX + 1).map(str::parse).collect();
        Self::new(ranges?)
    }
}

impl fmt::Display for TrackList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, range) in self.0.iter().enumerate() {
            let comma = if number == 0 { "" } else { "," };
            write!(f, "{comma}{range}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for text in ["0", "7,3,7", "1-2,9", "0-4294967295"] {
            assert_eq!(text.parse::<TrackList>().unwrap().to_string(), text);
        }
        let list: TrackList = "5,1-3,3-3".parse().unwrap();
        assert_eq!(list.tracks().collect::<Vec<_>>(), [5, 1, 2, 3, 3]);
        assert_eq!(list.path(4), "/v1/session/4/track/5,1-3,3");
        assert_eq!("4294967295".parse::<TrackList>().unwrap().tracks().count(), 1);
    }

    #[test]
    fn what_names_no_tracks() {
        for text in ["", ",", "1,", "x", "-1", "1-", "3-1", "+1", " 1", "1-2-3", "4294967296"] {
            assert_eq!(text.parse::<TrackList>(), Err(TrackListError::Word), "{text:?}");
        }
        let many = |count| vec!["7"; count].join(",").parse::<TrackList>();
        assert!(many(TRACK_RANGES_MAX).is_ok());
        assert_eq!(many(TRACK_RANGES_MAX + 1), Err(TrackListError::TooMany));
        assert_eq!(TrackList::new(Vec::new()), Err(TrackListError::Nothing));
        assert_eq!(TrackList::new(vec![TrackRange { first: 2, last: 1 }]), Err(TrackListError::Word));
    }
}
