//! TrainingRun: choose windows, run the Job, check the gates, sign, create the ModelVersion.
//!
//! ```text
//! Queued ◀──▶ Preparing ──▶ Training ──▶ Validating ──▶ Signing ──▶ Succeeded
//!                 └────────────┴─────────────┴────────────┴───────▶ Failed
//! ```
//!
//! Each phase leaves something behind before the status says so: the store has the plan and its
//! shards, then the Job exists, then the store has the output, then the signed artifact, then
//! there is the ModelVersion. All of it is found again by the run's UID and made from the same
//! inputs to the same bytes, so the operator may be killed between any two writes and goes on
//! where it was. So many train at once ([`turn`]); the others are Queued.

pub mod data;
mod gates;
mod identity;
mod job;
mod lost;
mod plan;
mod reconcile;
mod sign;
mod silent;
mod status;
pub mod trace;
pub mod turn;
pub mod windows;
mod words;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use kube::{Resource, ResourceExt};
use vigia_crds::TrainingRun;

use crate::context::Context;
use crate::controller::{self, Error};

/// Label of everything that belongs to a run: the UID of the TrainingRun.
pub const RUN_UID: &str = "vigia.dev/run-uid";

/// What deleted runs left is looked for this often.
const SWEEP: Duration = Duration::from_secs(15);

/// Runs until the context's shutdown.
pub async fn run(context: Arc<Context>) {
    let (cache, trigger) = (context.caches.runs.clone(), context.triggers.runs.clone());
    let controller = controller::run(
        "trainingrun",
        context.clone(),
        cache,
        trigger,
        reconcile::reconcile,
    );
    tokio::join!(controller, sweep(&context));
}

/// Removes what runs that are no more have left, now and then: a run that is over has no finalizer, and who
/// deletes it does not wait for its files.
async fn sweep(context: &Context) {
    loop {
        if let Err(error) = remove_orphans(context).await {
            tracing::warn!(%error, "what deleted TrainingRuns left could not be removed; it is tried again");
        }
        let sleep = tokio::time::sleep(SWEEP);
        if context.shutdown.run_until_cancelled(sleep).await.is_none() {
            return;
        }
    }
}

/// Takes away the files and Jobs of runs that are no more.
async fn remove_orphans(context: &Context) -> Result<(), Error> {
    // What there is first: a run that comes meanwhile is in the cache before anything of it is anywhere.
    let stored = context.store.run_uids().await;
    let stored = stored.map_err(|error| Error::Other(error.to_string()))?;
    let jobs = context.caches.jobs.state();
    let runs = context.caches.runs.state();
    // One that cannot be read is one all the same.
    let unreadable = context.unreadable.uids(&TrainingRun::kind(&()));
    let known: HashSet<String> = runs
        .iter()
        .filter_map(|run| run.uid())
        .chain(unreadable)
        .collect();
    for uid in stored.into_iter().filter(|uid| !known.contains(uid)) {
        let deleted = context.store.delete_run(&uid).await;
        deleted.map_err(|error| Error::Other(error.to_string()))?;
        tracing::info!(uid, "files of a TrainingRun that is no more are removed");
    }
    for job in jobs {
        if job.labels().get(RUN_UID).is_some_and(|uid| !known.contains(uid)) {
            context.door.delete(&*job).await?;
        }
    }
    Ok(())
}
