//! TrainingRun: choose windows, run the Job, check the gates, sign, create the ModelVersion.
//!
//! ```text
//! Preparing ──▶ Training ──▶ Validating ──▶ Signing ──▶ Succeeded
//!     └────────────┴─────────────┴────────────┴───────▶ Failed
//! ```
//!
//! Each phase leaves something behind before the status says so: the store has the plan and its
//! shards, then the Job exists, then the store has the output, then the signed artifact, then
//! there is the ModelVersion. All of it is found again by the run's UID and made from the same
//! inputs to the same bytes, so the operator may be killed between any two writes and goes on
//! where it was.

pub mod data;
mod gates;
mod identity;
mod job;
mod lost;
mod plan;
mod reconcile;
mod windows;

use std::collections::HashSet;
use std::sync::Arc;

use kube::ResourceExt;

use crate::context::Context;
use crate::controller;
use crate::store::StoreError;

/// Label of everything that belongs to a run: the UID of the TrainingRun.
pub const RUN_UID: &str = "vigia.dev/run-uid";

/// Runs until the context's shutdown.
pub async fn run(context: Arc<Context>) {
    if let Err(error) = remove_orphans(&context).await {
        tracing::warn!(%error, "what deleted TrainingRuns left in the store could not be removed");
    }
    let (cache, trigger) = (context.caches.runs.clone(), context.triggers.runs.clone());
    controller::run("trainingrun", context, cache, trigger, reconcile::reconcile).await;
}

/// Takes away what the store has of runs that are no more: their finalizer was removed by hand.
async fn remove_orphans(context: &Context) -> Result<(), StoreError> {
    let runs = context.caches.runs.state();
    let known: HashSet<String> = runs.iter().filter_map(|run| run.uid()).collect();
    for uid in context.store.run_uids().await? {
        if !known.contains(&uid) {
            context.store.delete_run(&uid).await?;
            tracing::info!(uid, "windows of a TrainingRun that is no more are removed");
        }
    }
    Ok(())
}
