//! The operator's life: take the Lease, fill the caches, run the controllers, end in order.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use kube::Client;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::apply::Door;
use crate::config::Config;
use crate::context::{Context, Triggers};
use crate::events::Events;
use crate::health::{self, Health};
use crate::leader::Leadership;
use crate::metrics::Metrics;
use crate::observed::Observations;
use crate::signing::OperatorKey;
use crate::store::Store;
use crate::telemetry::Telemetry;
use crate::watch::{self, Unreadable, Writers};
use crate::{ingest, model, modelversion, nodeplan, retrainingpolicy, traceprofile, trainingrun};

/// How long reconciles and calls under way may take to end.
const DRAIN: Duration = Duration::from_secs(10);
/// How long the last counts of Events may take to be written after that.
const LAST_COUNTS: Duration = Duration::from_secs(5);

/// Runs until `shutdown` is cancelled or the Lease is lost.
///
/// # Errors
/// Something without which there is no operator: the store, the Lease, a port.
pub async fn run(config: Config, client: Client, shutdown: CancellationToken) -> anyhow::Result<()> {
    let metrics = Arc::new(Metrics::default());
    let health = Arc::new(Health::default());
    let listener = TcpListener::bind(config.http_listen)
        .await
        .with_context(|| format!("listen on {}", config.http_listen))?;
    // Probes are answered to the very end.
    let probes = tokio::spawn(health::serve(
        listener,
        health.clone(),
        metrics.clone(),
        CancellationToken::new(),
    ));

    let mut leadership = Leadership::seek(client.clone(), &config).await?;
    tracing::info!(identity = config.pod_name, "waiting for the Lease");
    tokio::select! {
        acquired = leadership.acquired() => acquired?,
        () = shutdown.cancelled() => {
            leadership.release().await;
            return Ok(());
        }
    }
    tracing::info!(identity = config.pod_name, "leader");
    health.set_leader(true);

    // Reconciles end with this; the process's own shutdown ends it too.
    let work = shutdown.child_token();
    let assembled = assemble(config, client, metrics, health.clone(), work.clone());
    // The store is opened once a former leader's process has ended, which may take longer than the Lease lasts.
    let (context, writers) = tokio::select! {
        assembled = assembled => assembled?,
        () = leadership.lost() => anyhow::bail!("the Lease was lost while the store was opened"),
        () = shutdown.cancelled() => {
            leadership.release().await;
            return Ok(());
        }
    };
    let mut tasks = tokio::select! {
        started = start(&context, writers) => started?,
        () = leadership.lost() => anyhow::bail!("the Lease was lost while the caches were being filled"),
    };

    let (mut failure, mut leads) = (None, true);
    tokio::select! {
        // In this order: tasks end because of a shutdown, not the other way round.
        biased;
        () = work.cancelled() => tracing::info!("ending"),
        () = leadership.lost() => {
            context.store.fence();
            leads = false;
            failure = Some(anyhow::anyhow!("the Lease was lost"));
        }
        ended = tasks.join_next() => failure = Some(anyhow::anyhow!("a task ended by itself: {ended:?}")),
    }
    health.set_leader(false);
    end(&context, &mut tasks, leads).await;
    leadership.release().await;
    probes.abort();
    match failure {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

/// Opens the store and the key, and puts the context together.
///
/// # Errors
/// The store cannot be opened, or the Secret of the key not read or made.
pub async fn assemble(
    config: Config,
    client: Client,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    shutdown: CancellationToken,
) -> anyhow::Result<(Arc<Context>, Writers)> {
    let store = Arc::new(Store::open(&config.store, config.store_options()).await?);
    let observations = Arc::new(Observations::open(&store, jiff::Timestamp::now()).await?);
    let door = Door::new(client.clone(), metrics.clone());
    let key = Arc::new(OperatorKey::load_or_create(&client, &config.namespace).await?);
    let (caches, writers) = watch::caches();
    let telemetry = Telemetry::new(
        &config.otlp_endpoint,
        config.otlp_ca.as_deref(),
        &config.namespace,
        &config.pod_name,
    )?;
    metrics.register(|registry| telemetry.register(registry));
    let unreadable = Unreadable::default();
    metrics.register(|registry| unreadable.register(registry));
    let context = Context {
        door,
        events: Events::new(client.clone(), &config.pod_name, metrics.clone()),
        client,
        config,
        telemetry,
        metrics,
        health,
        caches,
        unreadable,
        triggers: Triggers::default(),
        store,
        observations,
        key,
        assignments: Default::default(),
        revocations: Default::default(),
        artifacts: Default::default(),
        shares: Default::default(),
        preparing: Semaphore::new(1),
        turns: trainingrun::turn::Turns::new(jiff::Timestamp::now()),
        shutdown,
    };
    Ok((Arc::new(context), writers))
}

/// Starts watches, waits for full caches, then starts controllers and the gRPC server.
///
/// After a shutdown before that, nothing but what is ending.
///
/// # Errors
/// The gRPC server cannot be started.
pub async fn start(context: &Arc<Context>, writers: Writers) -> anyhow::Result<JoinSet<()>> {
    let mut tasks = JoinSet::new();
    let full = watch::start(context, writers, &mut tasks);
    if !full.await {
        return Ok(tasks);
    }
    tasks.spawn(modelversion::run(context.clone()));
    tasks.spawn(model::run(context.clone()));
    tasks.spawn(traceprofile::run(context.clone()));
    tasks.spawn(nodeplan::run(context.clone()));
    tasks.spawn(retrainingpolicy::run(context.clone()));
    tasks.spawn(trainingrun::run(context.clone()));
    tasks.spawn(ingest::serve(context.clone()));
    tasks.spawn(context.telemetry.clone().run(context.shutdown.clone()));
    Ok(tasks)
}

/// Ends what runs, in order. An operator that does not lead any more leaves the Events to the one that does.
pub async fn end(context: &Context, tasks: &mut JoinSet<()>, leads: bool) {
    context.shutdown.cancel();
    let drained = tokio::time::timeout(DRAIN, async { while tasks.join_next().await.is_some() {} }).await;
    if drained.is_err() {
        tracing::warn!("work under way did not end in time and is cut off; it is taken up at the next start");
        tasks.shutdown().await;
    }
    if leads {
        context.events.finish(LAST_COUNTS).await;
    }
}
