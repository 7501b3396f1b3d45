//! One entry of a track table: a base and, over it, possibly an overlay.

use std::fmt;

use crate::ids::PhysicalTrack;
use crate::mask::BlockMask;

/// Where the content of a track lies.
///
/// The base is zeros or a physical track; the overlay, if there is one, is a second physical track in which the
/// blocks of its mask are valid and hide the base's. A mask is never empty and never full: a complete overlay is
/// simply a base.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Entry {
    /// `None`: zeros.
    pub base: Option<PhysicalTrack>,
    /// The newer blocks.
    pub over: Option<Overlay>,
}

/// The upper part of an [`Entry`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Overlay {
    /// Where the blocks lie.
    pub track: PhysicalTrack,
    /// Which blocks are valid there.
    pub mask: BlockMask,
}

impl Entry {
    /// Zeros: an unwritten or trimmed track. Takes no space.
    pub const ZEROS: Self = Self { base: None, over: None };

    /// A whole physical track.
    pub fn whole(track: PhysicalTrack) -> Self {
        Self { base: Some(track), over: None }
    }

    /// `over` with `mask` upon `base`; a full mask makes it the base.
    #[must_use]
    pub fn layered(
        base: Option<PhysicalTrack>,
        track: PhysicalTrack,
        mask: BlockMask,
        full: BlockMask,
    ) -> Self {
        if mask == full { Self::whole(track) } else { Self { base, over: Some(Overlay { track, mask }) } }
    }

    /// Whether it is zeros.
    pub fn is_zeros(self) -> bool {
        self == Self::ZEROS
    }

    /// The physical tracks it refers to: none, one or two.
    pub fn tracks(self) -> impl Iterator<Item = PhysicalTrack> + Clone {
        self.base.into_iter().chain(self.over.map(|over| over.track))
    }

    /// The blocks valid in the overlay.
    pub fn mask(self) -> BlockMask {
        self.over.map_or(BlockMask::EMPTY, |over| over.mask)
    }

    /// Where a block lies; `None`: it is zeros.
    pub fn place_of(self, block: u32) -> Option<PhysicalTrack> {
        match self.over {
            Some(over) if over.mask.has(block) => Some(over.track),
            _ => self.base,
        }
    }

    /// The physical track that takes writes if the entry has it alone: the upper one.
    pub fn top(self) -> Option<PhysicalTrack> {
        self.over.map(|over| over.track).or(self.base)
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.base {
            Some(base) => write!(f, "{base}")?,
            None => write!(f, "zeros")?,
        }
        match self.over {
            Some(over) => write!(f, "+{}[{}]", over.track, over.mask),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
