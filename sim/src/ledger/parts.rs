//! Which volumes host I/O on a device goes to: a virtual device of parts shows several, one after the other (D19).

use std::ops::Range;

use super::Ledger;
use crate::oracle::VolumeId;

/// The tracks of its standard device that a session is of, and its place in the virtual device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The first one.
    pub first: u64,
    /// How many.
    pub tracks: u64,
    /// Its first track in the virtual device.
    pub at: u64,
    /// All parts of the virtual device, in order, as the plan calls the sessions.
    pub all: Vec<String>,
}

/// What I/O on a device goes to: the volumes, in the order of the device's bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout(Vec<Place>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    /// The byte of the device with which it begins; it ends where the next one begins.
    begin: u64,
    volume: VolumeId,
    /// That byte in the volume.
    there: u64,
}

/// What a part of an operation is about. Offsets and length in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Where the device shows it.
    pub offset: u64,
    /// How much it is.
    pub length: u64,
    /// Whose it is.
    pub volume: VolumeId,
    /// Where that has it.
    pub there: u64,
}

impl Part {
    /// Its tracks of the standard device.
    pub fn within(&self) -> Range<u64> {
        self.first..self.first + self.tracks
    }
}

impl Layout {
    /// The volumes.
    pub fn volumes(&self) -> impl Iterator<Item = VolumeId> + '_ {
        self.0.iter().map(|place| place.volume)
    }

    /// The volumes of a range of the device's bytes.
    pub fn pieces(&self, offset: u64, length: u64) -> Vec<Piece> {
        let until = offset + length;
        let ends = self.0.iter().skip(1).map(|next| next.begin).chain([u64::MAX]);
        let piece = |(place, end): (&Place, u64)| {
            let (from, to) = (offset.max(place.begin), until.min(end));
            let there = place.there + from.checked_sub(place.begin)?;
            let length = to.checked_sub(from).filter(|length| *length > 0)?;
            Some(Piece { offset: from, length, volume: place.volume, there })
        };
        self.0.iter().zip(ends).filter_map(piece).collect()
    }
}

impl Ledger {
    /// What I/O on a device goes to, now; `None`: it would go nowhere.
    pub fn layout(&self, device: &str) -> Option<Layout> {
        let volume = self.volume(device)?;
        let shows = self.devices.get(device)?.shows.as_ref();
        let Some(part) = shows.and_then(|label| self.sessions.get(label)?.part.as_ref()) else {
            return Some(Layout(vec![Place { begin: 0, volume, there: 0 }]));
        };
        let place = |label: &String| {
            let session = self.sessions.get(label)?;
            let part = session.part.as_ref()?;
            let (begin, there) = (part.at * self.track_bytes, part.first * self.track_bytes);
            Some(Place { begin, volume: session.volume?, there })
        };
        Some(Layout(part.all.iter().map(place).collect::<Option<_>>()?))
    }

    /// The sessions that a virtual device shows if it shows that one: all parts, or it alone.
    pub(super) fn shown_with(&self, label: &str) -> Vec<String> {
        let part = self.sessions.get(label).and_then(|session| session.part.as_ref());
        part.map_or_else(|| vec![label.into()], |part| part.all.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::{History, Origin};
    use crate::site::Site;

    #[test]
    fn an_operation_over_parts_has_pieces() {
        let mut history = History::default();
        let [first, second] = ["a", "b"].map(|name| history.add_volume(Site::A, name, Origin::Blank));
        let place = |begin, volume, there| Place { begin, volume, there };
        let layout = Layout(vec![place(0, first, 300), place(100, second, 0)]);
        let piece = |offset, length, volume, there| Piece { offset, length, volume, there };
        assert_eq!(layout.pieces(10, 20), [piece(10, 20, first, 310)]);
        assert_eq!(layout.pieces(90, 20), [piece(90, 10, first, 390), piece(100, 10, second, 0)]);
        assert_eq!(layout.pieces(150, 5), [piece(150, 5, second, 50)]);
        assert_eq!(Layout(vec![place(0, first, 0)]).pieces(7, 9), [piece(7, 9, first, 7)]);
    }
}
