//! The service of agents: take what they report, give them the artifacts of their plan.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use prost::Message;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};
use vigia_crds::NodePlan;
use vigia_proto::v1::node_server::Node;
use vigia_proto::v1::{FetchRequest, ReportAck, ReportBatch, Sequence, Verdict};

use super::accounts::Identity;
use super::allowed::{Allowed, LateName, LateNames};
use super::commit::Committer;
use super::fetch::{Chunks, Sending, Unsent};
use super::gate::Decoding;
use super::limits::Limits;
use super::metrics::{IngestMetrics, Reason};
use super::validate::check;
use crate::model::trace::Done;
use crate::store::{Store, StoreError, Summary};

/// KiB of reports that are worked on at once.
const IN_FLIGHT_KIB: u32 = 256 << 10;
/// Nodes that are remembered by what they may speak of; above that, those whose time is over are forgotten.
const REMEMBERED: usize = 6000;
/// What plans named of late is written this often.
const REMEMBER: Duration = Duration::from_secs(60);
/// Its name in the store.
const LATE_NAMES: &str = "late-names.pb";

/// The plans of nodes.
pub trait Plans: Send + Sync + 'static {
    /// The plan of a node, where it has one.
    fn plan(&self, node: &str) -> Option<Arc<NodePlan>>;
}

/// The way to tell people of an alert.
#[tonic::async_trait]
pub trait Alarm: Send + Sync + 'static {
    /// Tells people; says whether it was told, or refused because the pod is not on the node.
    ///
    /// # Errors
    /// It cannot be told now; the agent keeps it.
    async fn raise(&self, node: &str, alert: &Verdict) -> Result<bool, String>;

    /// Tells of windows that were scored, once they are stored.
    fn scored(&self, summaries: &[Summary]);

    /// Tells of what a node did with versions, once it is stored that it was told.
    fn versions(&self, node: &str, versions: &[Done]);

    /// Tells that a node asked for an artifact that the store has lost; it will ask again and again.
    fn lost(&self, node: &str, digest: &str, error: &StoreError);
}

/// The service.
pub struct NodeService {
    plans: Arc<dyn Plans>,
    alarm: Arc<dyn Alarm>,
    store: Arc<Store>,
    committer: Committer,
    metrics: IngestMetrics,
    limits: Limits,
    in_flight: Semaphore,
    sending: Sending,
    allowed: Mutex<HashMap<String, Allowed>>,
}

impl NodeService {
    /// The service, over what it needs.
    pub fn new(
        plans: Arc<dyn Plans>,
        alarm: Arc<dyn Alarm>,
        store: Arc<Store>,
        committer: Committer,
        metrics: IngestMetrics,
    ) -> Self {
        Self {
            plans,
            alarm,
            store,
            committer,
            metrics,
            limits: Limits::default(),
            in_flight: Semaphore::new(IN_FLIGHT_KIB as usize),
            sending: Sending::default(),
            allowed: Mutex::default(),
        }
    }

    async fn take(&self, mut request: Request<ReportBatch>) -> Result<ReportAck, Status> {
        let node = Identity::of(&request)?.agent()?.to_owned();
        let decoding = request.extensions_mut().remove::<Decoding>();
        let batch = request.into_inner();
        let ack = |sequence| ReportAck {
            sequence,
            received_unix_ms: Timestamp::now().as_millisecond(),
        };
        let stored = self.store.mark(&node, &batch.instance);
        if batch.sequence != 0 && batch.sequence <= stored {
            return Ok(ack(stored));
        }
        if !self.limits.take(&node, batch.samples.len(), Instant::now()) {
            return Err(Status::resource_exhausted(
                "this node reports too much; send it later",
            ));
        }
        let kib = u32::try_from(weight(&batch) >> 10).unwrap_or(IN_FLIGHT_KIB);
        let _permit = self
            .in_flight
            .acquire_many(kib.min(IN_FLIGHT_KIB - 1) + 1)
            .await
            .map_err(|_| Status::unavailable("the operator is ending"))?;
        drop(decoding);
        let now_ms = Timestamp::now().as_millisecond();
        let allowed = self.allowed(&node, now_ms);
        let report = check(batch, &node, &allowed, now_ms)
            .map_err(|refused| Status::invalid_argument(refused.to_string()))?;
        let (left_out, skew_ms) = (report.left_out.clone(), report.skew_ms);
        self.say(&node, &report);
        let (mut told, mut strange) = (0, 0);
        // Before the batch is stored: once it is, the agent forgets it, and an alert must not be lost.
        for alert in &report.alerts {
            match self.alarm.raise(&node, alert).await {
                Ok(true) => told += 1,
                Ok(false) => strange += 1,
                Err(error) => {
                    return Err(Status::unavailable(format!(
                        "the alert cannot be told now: {error}"
                    )));
                }
            }
        }
        let rows = report.rows.len() as u64;
        let windows = report.summaries.iter().map(|s| s.windows).sum();
        let (summaries, versions) = (report.summaries.clone(), report.versions.clone());
        let stored = self.committer.store(node.clone(), report).await;
        let sequence = stored.map_err(|e| refuse(&e))?;
        // Once it is stored: until then the agent sends it again.
        let strange = (strange > 0).then_some(("NotOnNode", strange));
        for (reason, count) in left_out.into_iter().chain(strange) {
            self.metrics
                .left_out
                .get_or_create(&Reason { reason })
                .inc_by(count);
        }
        self.metrics.skewed.inc_by(u64::from(skew_ms.is_some()));
        self.metrics.alerts.inc_by(told);
        self.metrics.samples.inc_by(rows);
        self.metrics.windows.inc_by(windows);
        self.alarm.scored(&summaries);
        self.alarm.versions(&node, &versions);
        Ok(ack(sequence))
    }

    /// What a node may speak of, after its plan of now.
    fn allowed(&self, node: &str, now_ms: i64) -> Allowed {
        let plan = self.plans.plan(node);
        let mut all = self.allowed.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= REMEMBERED && !all.contains_key(node) {
            all.retain(|_, allowed| !allowed.is_over(now_ms));
        }
        let allowed = all.entry(node.to_owned()).or_default();
        match plan {
            Some(plan) => allowed.refresh(&plan.spec, now_ms),
            None => allowed.refresh(&vigia_crds::NodePlanSpec::default(), now_ms),
        }
        allowed.clone()
    }

    /// Takes in what nodes might speak of before a restart.
    pub async fn recall(&self) {
        let names = match self.store.document(LATE_NAMES).await.map(LateNames::decode) {
            Ok(Ok(late)) => late.names,
            Err(StoreError::NotFound(_)) => return,
            unread => {
                tracing::warn!(
                    ?unread,
                    "what plans named before the restart is not known: reports of it are left out"
                );
                return;
            }
        };
        let mut all = self.allowed.lock().unwrap_or_else(PoisonError::into_inner);
        for late in names {
            all.entry(late.node.clone()).or_default().recall(late);
        }
    }

    /// Writes down what nodes may speak of although their plans name it no more, every minute and at the end: an
    /// agent that was cut off delivers it after a restart of the operator too.
    pub async fn remember(self: Arc<Self>, shutdown: CancellationToken) {
        let mut written = LateNames::default();
        let mut on = true;
        while on {
            let minute = shutdown.run_until_cancelled(tokio::time::sleep(REMEMBER));
            on = minute.await.is_some();
            let late = self.late_names(Timestamp::now().as_millisecond());
            if late != written {
                match self
                    .store
                    .put_document(LATE_NAMES, late.encode_to_vec().into())
                    .await
                {
                    Ok(()) => written = late,
                    Err(error) => tracing::warn!(%error, "what plans named of late could not be written"),
                }
            }
        }
    }

    fn late_names(&self, now_ms: i64) -> LateNames {
        let all = self.allowed.lock().unwrap_or_else(PoisonError::into_inner);
        let nothing = vigia_crds::NodePlanSpec::default();
        let mut names: Vec<LateName> = all
            .iter()
            .flat_map(|(node, allowed)| {
                let plan = self.plans.plan(node);
                allowed.beyond(plan.as_ref().map_or(&nothing, |p| &p.spec), node, now_ms)
            })
            .collect();
        names.sort_by(|a, b| {
            let key = |n: &LateName| {
                (
                    n.node.clone(),
                    n.namespace.clone(),
                    n.name.clone(),
                    n.digest.clone(),
                )
            };
            key(a).cmp(&key(b))
        });
        LateNames { names }
    }

    fn say(&self, node: &str, report: &super::validate::Report) {
        for (&reason, &count) in &report.left_out {
            tracing::warn!(node, reason, count, "items of a report are left out");
        }
        if let Some(window) = &report.impossible {
            tracing::warn!(
                node,
                namespace = window.namespace,
                profile = window.profile,
                source = window.source,
                window_start_unix_ms = window.start_ms,
                "a window has numbers that none can have, and is left out: its agent or its node's memory is damaged"
            );
        }
        if let Some(skew_ms) = report.skew_ms {
            tracing::warn!(
                node,
                skew_ms,
                "the node's clock is off: the times of its report are corrected"
            );
        }
        if report.dropped_batches > 0 || report.lost_calls > 0 {
            let (dropped, lost) = (report.dropped_batches, report.lost_calls);
            tracing::debug!(node, dropped, lost, "the agent has lost some since its start");
        }
    }

    async fn serve(&self, request: Request<FetchRequest>) -> Result<Response<Chunks>, Status> {
        let node = Identity::of(&request)?.agent()?.to_owned();
        let digest = request.into_inner().digest;
        let plan = self.plans.plan(&node);
        let named = plan.iter().flat_map(|p| &p.spec.models).flat_map(|m| &m.versions);
        if !named.into_iter().any(|version| version.digest == digest) {
            return Err(Status::permission_denied(
                "the plan of this node names no such artifact",
            ));
        }
        let sent = self.sending.stream(&self.store, &digest).await;
        if let Err(Unsent::Store(error)) = &sent
            && error.is_loss()
        {
            self.alarm.lost(&node, &digest, error);
        }
        Ok(Response::new(sent?))
    }
}

/// Bytes that a batch takes in memory, roughly: those of the wire and those around each item, and around each call of an
/// alert's sequences, which on the wire is two bytes.
fn weight(batch: &ReportBatch) -> usize {
    let items = batch.alerts.len() + batch.scores.len() + batch.samples.len();
    let sequences = batch.alerts.iter().flat_map(|alert| &alert.sequences);
    let of_sequences = sequences.map(|one| size_of::<Sequence>() + one.calls.len() * size_of::<String>());
    batch.encoded_len() + items * size_of::<Verdict>() + of_sequences.sum::<usize>()
}

/// An error of the store as the caller sees it.
pub(super) fn refuse(error: &StoreError) -> Status {
    let text = error.to_string();
    match error {
        StoreError::Full(_) => Status::resource_exhausted(text),
        StoreError::NotFound(_) => Status::not_found(text),
        StoreError::Corrupt { .. } => Status::data_loss(text),
        StoreError::Name(_) | StoreError::TooLarge { .. } => Status::invalid_argument(text),
        StoreError::Rows(_) | StoreError::Io(_) | StoreError::Fenced => {
            tracing::error!(error = text, "the store failed");
            Status::unavailable(text)
        }
    }
}

#[tonic::async_trait]
impl Node for NodeService {
    type FetchStream = Chunks;

    async fn report(&self, request: Request<ReportBatch>) -> Result<Response<ReportAck>, Status> {
        let answer = self.take(request).await.map(Response::new);
        self.metrics.answered("Report", &answer);
        answer
    }

    async fn fetch(&self, request: Request<FetchRequest>) -> Result<Response<Self::FetchStream>, Status> {
        let answer = self.serve(request).await;
        self.metrics.answered("Fetch", &answer);
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_without_a_name_weigh_what_they_take() {
        let sequence = Sequence {
            calls: vec![String::new(); 16],
            ..Sequence::default()
        };
        let alert = Verdict {
            sequences: vec![sequence; 16],
            ..Verdict::default()
        };
        let batch = ReportBatch {
            alerts: vec![alert; 1000],
            ..ReportBatch::default()
        };
        let taken = 1000 * 16 * (size_of::<Sequence>() + 16 * size_of::<String>());
        assert!(weight(&batch) > taken && batch.encoded_len() < taken / 5);
    }
}
