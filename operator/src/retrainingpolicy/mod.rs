//! RetrainingPolicy: sees that there are enough windows for a first version, or that the serving one has gone
//! stale, and starts a TrainingRun.

mod drifted;
mod history;
mod pace;
pub mod plan;
mod reconcile;
mod refused;

use std::sync::Arc;

pub use drifted::DRIFTED;

use crate::context::Context;
use crate::controller;

/// Runs until the context's shutdown.
pub async fn run(context: Arc<Context>) {
    let (policies, trigger) = (context.caches.policies.clone(), context.triggers.policies.clone());
    let drift = reconcile::show_drift(context.clone());
    let policies = controller::run(
        "retrainingpolicy",
        context,
        policies,
        trigger,
        reconcile::reconcile,
    );
    tokio::join!(policies, drift);
}
