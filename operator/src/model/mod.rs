//! Model: which version should serve, and how it gets to the nodes.
//!
//! ```text
//! versions ──choose──▶ target ─┐
//! node plans' statuses ────────┼──▶ rollout::step ──▶ status ──▶ assign ──▶ node plans
//! what agents scored ──gates───┘
//! ```
//!
//! The Model's status is the only memory of a rollout: it is written before any node is told, and
//! what nodes are told is derived from it. So an operator that is killed between any two writes
//! goes on where the status says.

pub mod assign;
pub mod choose;
pub mod conditions;
pub mod gates;
mod history;
pub mod lost;
pub mod nodes;
mod reconcile;
pub mod revoked;
pub mod rollout;
pub mod silent;
pub mod trace;
pub mod trust;
pub mod version;
pub mod windows;

#[cfg(test)]
mod simulation;

pub use reconcile::run;
