//! ModelVersion: takes an artifact in, verifies it, and says what is wrong with it.

pub mod plan;
mod reconcile;

pub use plan::REASONS;
pub use reconcile::{Artifacts, run};
