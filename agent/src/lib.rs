//! The node agent: probe → window → score → report, and the swap of models.
//!
//! The probe, cgroups and windows are also what `vigia trace` uses on a host with no cluster; they are built without
//! the `node` feature.

pub mod containers;
pub mod probe;
pub mod window;

#[cfg(feature = "node")]
pub mod node;
