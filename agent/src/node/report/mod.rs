//! What the agent tells the operator, and how it fetches artifacts from it.

pub mod client;
mod outbox;
mod queue;

pub use outbox::Outbox;
pub use queue::{Findings, Limits, Queue, Sums};
