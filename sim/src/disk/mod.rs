//! A simulated disk that forgets what was not synced.
//!
//! The [`Platter`]s live outside the simulated host, in an [`Enclosure`] that the world keeps, so that they survive a
//! crash of the host. A host has a [`DiskHandle`] a disk. What was written and not synced is remembered sector by
//! sector with all its versions: when the power goes, each such sector becomes the old one, any newer one, or torn.
//!
//! A power cut strikes between two operations, of any disk of the enclosure: from then on every operation fails and
//! changes nothing, until the enclosure is switched on again. Handles of before stay dead.

mod enclosure;
mod platter;
mod sparse;

pub use enclosure::{DiskHandle, DiskSpec, DiskStats, Enclosure, Latency, Power};
pub use platter::{DiskFault, Platter, SECTOR_BYTES, Survival};
