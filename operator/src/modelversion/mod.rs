//! ModelVersion: takes an artifact in, verifies it, and says what is wrong with it.

pub mod plan;
mod reconcile;

pub use plan::{REASONS, STORED};
pub use reconcile::{Artifacts, run};
