//! The node agent: probe → window → score → report, and the swap of models.
//!
//! The probe is also what `vigia trace` uses on a host with no cluster.

pub mod probe;
