//! What comes in from agents and training pods, over gRPC with TLS.
//!
//! ```text
//! connection ─▶ TLS ─▶ TokenReview ─▶ caps ─▶ decode ─▶ validate ─▶ alerts told ─▶ group commit ─▶ acknowledged
//! ```

pub mod accounts;
pub mod allowed;
pub mod auth;
pub mod commit;
mod fetch;
pub mod gate;
mod limits;
pub mod metrics;
pub mod node;
mod server;
pub mod trace;
pub mod training;
mod upkeep;
pub mod validate;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use jiff::Timestamp;
use kube::runtime::reflector::ObjectRef;
use tokio::net::TcpListener;
use tonic::service::Routes;
use vigia_crds::NodePlan;
use vigia_proto::MAX_MESSAGE;
use vigia_proto::v1::Verdict;
use vigia_proto::v1::node_server::NodeServer;
use vigia_proto::v1::training_server::TrainingServer;

use crate::alert;
use crate::context::Context;
use crate::model::trace::{Done, of_node};
use crate::store::{StoreError, Summary};
use crate::telemetry::Span;
use crate::tls;
use crate::trainingrun::{self, RUN_UID};
use crate::watch::{RUN_NAME, RUN_NAMESPACE};
use accounts::{Accounts, ApiServer};
use auth::Authenticator;
use commit::Committer;
use gate::Gate;
use metrics::IngestMetrics;
use node::{Alarm, NodeService, Plans};
use trace::Traced;
use training::{Trainers, TrainingPod, TrainingService};

pub use server::serve as serve_tls;

/// What fails at the start is tried again after this.
const RETRY: Duration = Duration::from_secs(3);
/// Label of a Job's pod: its index.
const COMPLETION_INDEX: &str = "batch.kubernetes.io/job-completion-index";

/// Runs until the context's shutdown. What keeps the server from starting is tried again: the controllers do
/// their work meanwhile, and agents keep what they have.
pub async fn serve(context: Arc<Context>) {
    let metrics = IngestMetrics::default();
    context.metrics.register(|registry| metrics.register(registry));
    let upkeep = tokio::spawn(upkeep::run(context.clone(), metrics.clone()));
    let shutdown = context.shutdown.clone();
    while let Err(error) = listen(&context, &metrics).await {
        tracing::error!(
            error = format!("{error:#}"),
            "the gRPC server does not run; it is tried again"
        );
        if shutdown
            .run_until_cancelled(tokio::time::sleep(RETRY))
            .await
            .is_none()
        {
            break;
        }
    }
    if let Err(error) = upkeep.await {
        tracing::error!(%error, "upkeep of the store ended badly");
    }
}

async fn listen(context: &Arc<Context>, metrics: &IngestMetrics) -> anyhow::Result<()> {
    let config = &context.config;
    let keeper = tls::Keeper::new(
        context.client.clone(),
        context.door.clone(),
        &config.namespace,
        tls::names(&config.service, &config.namespace),
    );
    let current = tls::Current::new(&keeper.load_or_create(Timestamp::now()).await?)?;
    let listener = TcpListener::bind(config.grpc_listen)
        .await
        .with_context(|| format!("listen on {}", config.grpc_listen))?;
    let accounts = Accounts::new(
        &config.namespace,
        &config.agent_service_account,
        &config.trainer_service_account,
    );
    let auth = Arc::new(Authenticator::new(
        Arc::new(ApiServer(context.client.clone())),
        accounts,
    ));
    // The committer outlives the server: calls under way at the end still get their answer.
    let committing = context.shutdown.child_token();
    let (committer, work) = Committer::new(
        context.store.clone(),
        context.observations.clone(),
        committing.clone(),
    );
    let work = tokio::spawn(work);
    let node = Arc::new(NodeService::new(
        context.clone(),
        context.clone(),
        context.store.clone(),
        committer,
        metrics.clone(),
    ));
    node.recall().await;
    let remembering = tokio::spawn(node.clone().remember(committing.clone()));
    let training = TrainingService::new(context.clone(), context.store.clone(), metrics.clone());
    let gate = Gate::new(auth, metrics.clone());
    let rotation = tokio::spawn(keeper.keep(current.clone(), committing.clone()));
    tracing::info!(address = %config.grpc_listen, "gRPC server listens");
    context.health.set_serving(true);
    let served = serve_tls(
        listener,
        current.server()?,
        routes(gate, node, training),
        context.shutdown.clone(),
    )
    .await;
    context.health.set_serving(false);
    committing.cancel();
    work.await.context("the committer")?;
    remembering.await.context("what plans named of late")?;
    rotation.await.context("the rotation of certificates")?;
    served.context("gRPC server")
}

/// Both services behind their gate, with their limits.
pub fn routes(gate: Arc<Gate>, node: Arc<NodeService>, training: TrainingService) -> Routes {
    let services = Routes::new(NodeServer::from_arc(node).max_decoding_message_size(MAX_MESSAGE))
        .add_service(TrainingServer::new(training).max_decoding_message_size(MAX_MESSAGE));
    let gated = axum::middleware::from_fn_with_state(gate, gate::admit);
    services.into_axum_router().layer(gated).into()
}

impl Plans for Context {
    fn plan(&self, node: &str) -> Option<Arc<NodePlan>> {
        self.caches.plan(node)
    }
}

#[tonic::async_trait]
impl Alarm for Context {
    async fn raise(&self, node: &str, alert: &Verdict) -> Result<bool, String> {
        match alert::publish(self, alert, node).await {
            Ok(()) => Ok(true),
            Err(error @ alert::Refused::Api(_)) => Err(error.to_string()),
            Err(refused) => {
                tracing::warn!(target: "audit", node, %refused, "an agent's alert is refused");
                Ok(false)
            }
        }
    }

    fn scored(&self, summaries: &[Summary]) {
        self.telemetry.scored(summaries);
    }

    fn versions(&self, node: &str, versions: &[Done]) {
        let span = |done: &Done| {
            let model = self.caches.model(&done.namespace, &done.model)?;
            of_node(&model, node, done)
        };
        self.telemetry.spans(versions.iter().filter_map(span));
    }

    fn lost(&self, node: &str, digest: &str, error: &StoreError) {
        // Known already, or not looked at since the start and about to be.
        if !self.artifacts.forget(digest) {
            return;
        }
        tracing::warn!(node, digest, %error, "an artifact cannot be sent: its versions are looked at again");
        for version in self.caches.versions.state() {
            if version.spec.digest == digest {
                self.triggers.versions.object(ObjectRef::from_obj(&*version));
            }
        }
    }
}

impl Trainers for Context {
    fn pod(&self, name: &str, uid: &str) -> Option<TrainingPod> {
        let pod = self.caches.pods.by_uid(uid)?;
        let ours = pod.namespace == self.config.namespace
            && pod.name == name
            && pod.service_account == self.config.trainer_service_account;
        let label = |name: &str| pod.labels.get(name).cloned();
        Some(TrainingPod {
            namespace: label(RUN_NAMESPACE)?,
            run: label(RUN_NAME)?,
            uid: label(RUN_UID)?,
            rank: label(COMPLETION_INDEX)?.parse().ok()?,
        })
        .filter(|_| ours)
    }

    fn submitted(&self, pod: &TrainingPod) {
        self.triggers.runs.namespaced(&pod.namespace, &pod.run);
    }

    fn traced(&self, pod: &TrainingPod, name: &str, uid: &str) -> Option<Traced> {
        let run = ObjectRef::new(&pod.run).within(&pod.namespace);
        let run = self
            .caches
            .runs
            .get(&run)
            .filter(|run| run.metadata.uid.as_deref() == Some(&pod.uid))?;
        let view = self.caches.pods.by_uid(uid)?;
        Some(Traced {
            job: trainingrun::trace::of_job(run.status.as_ref()?).filter(|_| self.telemetry.is_on())?,
            pod: vec![
                ("k8s.namespace.name", self.config.namespace.clone()),
                ("k8s.pod.name", name.to_owned()),
                ("k8s.pod.uid", uid.to_owned()),
                ("k8s.node.name", view.node.clone()),
            ],
            uid: uid.to_owned(),
        })
    }

    fn spans(&self, spans: Vec<Span>) {
        self.telemetry.spans(spans);
    }
}

#[cfg(test)]
mod tests;
