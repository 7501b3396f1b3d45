//! The link between two arrays: frames that come back as what they were, bytes that are anything, and two ends that
//! talk over a line which delays, cuts and damages.

mod connections;
mod frames;
mod lines;
mod messages;
