//! The shell.

mod seams;
pub use seams::{Cabinet, Disk, Env, Net};

/// Serves.
pub async fn serve() {}
