//! Sizes: sector, block, track, cylinder, and the tracks and blocks that a range of bytes touches.

use thiserror::Error;

use crate::TrackNo;
use crate::mask::BlockMask;

/// The least unit of host I/O.
pub const SECTOR_BYTES: u32 = 512;
/// The unit of overlay masks and check codes.
pub const BLOCK_BYTES: u32 = 4096;
/// Tracks of a cylinder (D1).
pub const TRACKS_PER_CYLINDER: u32 = 15;
/// The least track.
pub const TRACK_BYTES_MIN: u32 = 16 << 10;
/// The largest track.
pub const TRACK_BYTES_MAX: u32 = 1 << 20;
/// The largest device: 16 TiB.
pub const DEVICE_BYTES_MAX: u64 = 16 << 40;

/// A size that an array or a device cannot have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum GeometryError {
    /// Not a track size.
    #[error(
        "a track of {track_bytes} bytes is not possible: it must be a power of two from {TRACK_BYTES_MIN} to {TRACK_BYTES_MAX}"
    )]
    TrackSize {
        /// What was asked for.
        track_bytes: u32,
    },
    /// Not a device size.
    #[error(
        "a device of {size_bytes} bytes is not possible: it must be a multiple of {SECTOR_BYTES}, from {SECTOR_BYTES} to {DEVICE_BYTES_MAX} (16 TiB)"
    )]
    DeviceSize {
        /// What was asked for.
        size_bytes: u64,
    },
}

/// The track size of an array, fixed when it is formatted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    track_bytes: u32,
}

impl Default for Geometry {
    /// Tracks of 64 KiB.
    fn default() -> Self {
        Self { track_bytes: 64 << 10 }
    }
}

impl Geometry {
    /// Tracks of `track_bytes`: a power of two from 16 KiB to 1 MiB.
    pub fn new(track_bytes: u32) -> Result<Self, GeometryError> {
        if track_bytes.is_power_of_two() && (TRACK_BYTES_MIN..=TRACK_BYTES_MAX).contains(&track_bytes) {
            Ok(Self { track_bytes })
        } else {
            Err(GeometryError::TrackSize { track_bytes })
        }
    }

    /// Bytes of a track.
    pub fn track_bytes(self) -> u32 {
        self.track_bytes
    }

    /// Blocks of a track: 4 to 256.
    pub fn blocks(self) -> u32 {
        self.track_bytes / BLOCK_BYTES
    }

    /// All blocks of a track.
    pub fn full(self) -> BlockMask {
        BlockMask::range(0, self.blocks())
    }

    /// Refuses a size that no device can have.
    pub fn check_device_size(self, size_bytes: u64) -> Result<(), GeometryError> {
        if size_bytes > 0
            && size_bytes <= DEVICE_BYTES_MAX
            && size_bytes.is_multiple_of(u64::from(SECTOR_BYTES))
        {
            Ok(())
        } else {
            Err(GeometryError::DeviceSize { size_bytes })
        }
    }

    /// Tracks of a device of that size; the last may be partial.
    pub fn tracks(self, size_bytes: u64) -> u32 {
        u32::try_from(size_bytes.div_ceil(u64::from(self.track_bytes)))
            .expect("a device has at most 2^30 tracks")
    }

    /// The track of a byte of a device, and the byte's place in that track.
    pub fn locate(self, offset: u64) -> (TrackNo, u32) {
        let track = offset / u64::from(self.track_bytes);
        let within = offset % u64::from(self.track_bytes);
        (TrackNo(track as u32), within as u32)
    }

    /// The first byte of a track on its device.
    pub fn offset_of(self, track: TrackNo) -> u64 {
        u64::from(track.0) * u64::from(self.track_bytes)
    }

    /// The parts of `offset..offset + length` track by track: track, first byte in it, bytes.
    pub fn split(self, offset: u64, length: u64) -> impl Iterator<Item = (TrackNo, u32, u32)> {
        let end = offset + length;
        let mut at = offset;
        std::iter::from_fn(move || {
            if at >= end {
                return None;
            }
            let (track, within) = self.locate(at);
            let bytes = u64::from(self.track_bytes - within).min(end - at) as u32;
            at += u64::from(bytes);
            Some((track, within, bytes))
        })
    }

    /// Cylinder and head of a track.
    pub fn cylinder_head(track: TrackNo) -> (u32, u32) {
        (track.0 / TRACKS_PER_CYLINDER, track.0 % TRACKS_PER_CYLINDER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn track_sizes_are_powers_of_two_in_range() {
        for shift in 0..32 {
            let bytes = 1u32 << shift;
            assert_eq!(Geometry::new(bytes).is_ok(), (14..=20).contains(&shift), "{bytes}");
        }
        assert!(Geometry::new(65537).is_err());
    }

    #[test]
    fn split_covers_the_range_once() {
        let geometry = Geometry::new(16 << 10).unwrap();
        let parts: Vec<_> = geometry.split(16383, 16386).collect();
        assert_eq!(parts, [(TrackNo(0), 16383, 1), (TrackNo(1), 0, 16384), (TrackNo(2), 0, 1)]);
        assert_eq!(geometry.split(5, 0).count(), 0);
    }

    #[test]
    fn the_largest_device_has_countable_tracks() {
        let geometry = Geometry::new(TRACK_BYTES_MIN).unwrap();
        assert_eq!(geometry.tracks(DEVICE_BYTES_MAX), 1 << 30);
        assert!(geometry.check_device_size(DEVICE_BYTES_MAX + 512).is_err());
        assert!(geometry.check_device_size(0).is_err());
        assert!(geometry.check_device_size(513).is_err());
    }
}
