//! What keeps the store in order while the operator runs: files merged, old samples and unnamed artifacts removed.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use jiff::Timestamp;

use super::metrics::IngestMetrics;
use crate::context::{Caches, Context};

/// Upkeep of the store is done this often.
const UPKEEP: Duration = Duration::from_secs(5);
/// Artifacts that nobody names are looked for this often.
const SWEEP: Duration = Duration::from_secs(3600);

/// Runs until the context's shutdown.
pub(super) async fn run(context: Arc<Context>, metrics: IngestMetrics) {
    let shutdown = context.shutdown.clone();
    let mut swept = None;
    while shutdown
        .run_until_cancelled(tokio::time::sleep(UPKEEP))
        .await
        .is_some()
    {
        if swept.is_none_or(|at: Instant| at.elapsed() >= SWEEP) {
            swept = Some(Instant::now());
            sweep(&context).await;
        }
        let now = Timestamp::now();
        context.observations.tidy(now);
        loop {
            match context.store.maintain(now.as_millisecond()).await {
                Ok(true) if !shutdown.is_cancelled() => {}
                Ok(_) => break,
                Err(error) => {
                    tracing::error!(%error, "upkeep of the store failed; it is tried again");
                    break;
                }
            }
        }
        let gauge = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        match context.store.stats() {
            Ok(stats) => {
                metrics.store_files.set(gauge(stats.files));
                metrics.store_bytes.set(gauge(stats.bytes));
                metrics.store_rows.set(gauge(stats.rows));
                metrics.store_free.set(gauge(stats.space.free));
            }
            Err(error) => tracing::warn!(%error, "the store's volume does not say how full it is"),
        }
        let full = context.store.health().borrow().full.is_some();
        metrics.store_full.set(i64::from(full));
    }
}

/// Removes the artifacts that nobody has named for long.
async fn sweep(context: &Context) {
    match context
        .store
        .sweep(&named(&context.caches), SystemTime::now())
        .await
    {
        Ok(gone) => {
            for digest in gone {
                tracing::info!(target: "audit", digest, "an artifact that nobody names any more is removed from the store");
            }
        }
        Err(error) => {
            tracing::warn!(%error, "artifacts that nobody names could not be removed; it is tried again");
        }
    }
}

/// Digests of all artifacts that a version, a rollout or a node's plan names.
fn named(caches: &Caches) -> HashSet<String> {
    let versions = caches.versions.state();
    let mut named: HashSet<String> = versions.iter().map(|v| v.spec.digest.clone()).collect();
    for model in caches.models.state() {
        named.extend(model.spec.version.iter().map(|v| v.digest.clone()));
        if let Some(status) = &model.status {
            let rolled = status.rollout.as_ref().map(|r| &r.version);
            let served = status.serving.iter().chain(&status.previous).chain(rolled);
            named.extend(served.map(|version| version.digest.clone()));
        }
    }
    for plan in caches.plans.state() {
        let planned = plan.spec.models.iter().flat_map(|m| &m.versions);
        named.extend(planned.map(|v| v.digest.clone()));
    }
    named
}
