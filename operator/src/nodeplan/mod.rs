//! NodePlan: what one node should trace and run, from the pods that are on it.
//!
//! The agents themselves are a DaemonSet of the Helm chart: Kubernetes schedules them better than
//! an operator could. An agent whose plan is empty attaches nothing.

pub mod claim;
pub mod plan;
mod reconcile;

pub use reconcile::run;
