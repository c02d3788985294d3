//! The service of training pods: their plan, their windows, and the way back for what they made.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::stream::BoxStream;
use jiff::Timestamp;
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status, Streaming};
use vigia_crds::is_digest;
use vigia_proto::v1::submit_request::Part;
use vigia_proto::v1::training_server::Training;
use vigia_proto::v1::{
    Chunk, HoldoutRequest, PlanRequest, RunPlan, ShardRequest, SubmitHeader, SubmitReply, SubmitRequest,
    TraceReply, TraceRequest,
};
use vigia_proto::{MAX_CHUNK, MAX_METRICS};

use super::accounts::Identity;
use super::fetch::chunks;
use super::metrics::IngestMetrics;
use super::node::refuse;
use super::trace::{self, Traced};
use crate::store::{MAX_OUTPUT, Output, Store, digest_of};
use crate::telemetry::Span;
use crate::trainingrun::data::{HOLDOUT, Prepared, shard_name};

/// Submissions that are received at once: each may be large.
const RECEIVING: usize = 4;
/// Time for a submission to come in. Its pod may be stopped in the middle of it, and others wait their turn.
const RECEIVE_TIME: Duration = Duration::from_secs(60);
/// Pods that are remembered to have told what they did.
const MAX_TOLD: usize = 4096;

/// A pod that trains, as the operator knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrainingPod {
    /// Namespace of its TrainingRun.
    pub namespace: String,
    /// Name of its TrainingRun.
    pub run: String,
    /// UID of its TrainingRun.
    pub uid: String,
    /// Its completion index.
    pub rank: u32,
}

/// The training pods.
pub trait Trainers: Send + Sync + 'static {
    /// The training pod of this name and UID in the operator's namespace.
    fn pod(&self, name: &str, uid: &str) -> Option<TrainingPod>;
    /// Its run has something new.
    fn submitted(&self, pod: &TrainingPod);
    /// What spans of this pod are a part of, where its run is traced.
    fn traced(&self, pod: &TrainingPod, name: &str, uid: &str) -> Option<Traced>;
    /// Tells spans.
    fn spans(&self, spans: Vec<Span>);
}

/// The service.
pub struct TrainingService {
    trainers: Arc<dyn Trainers>,
    store: Arc<Store>,
    metrics: IngestMetrics,
    receiving: Semaphore,
    /// Of two submissions of a run the first to be whole counts.
    keeping: tokio::sync::Mutex<()>,
    /// UIDs of pods whose spans were told.
    told: Mutex<HashSet<String>>,
}

impl TrainingService {
    /// The service, over what it needs.
    pub fn new(trainers: Arc<dyn Trainers>, store: Arc<Store>, metrics: IngestMetrics) -> Self {
        Self {
            trainers,
            store,
            metrics,
            receiving: Semaphore::new(RECEIVING),
            keeping: tokio::sync::Mutex::default(),
            told: Mutex::default(),
        }
    }

    /// The caller, and what was prepared for its run.
    async fn caller<T>(&self, request: &Request<T>) -> Result<(TrainingPod, Prepared), Status> {
        let (name, uid) = Identity::of(request)?.trainer()?;
        let pod = self.pod(name, uid)?;
        let prepared = self
            .store
            .run_json(&pod.uid, Prepared::NAME)
            .await
            .map_err(|e| refuse(&e))?;
        match prepared {
            Some(prepared) => Ok((pod, prepared)),
            None => Err(Status::not_found(format!(
                "nothing is prepared for run {}",
                pod.run
            ))),
        }
    }

    fn pod(&self, name: &str, uid: &str) -> Result<TrainingPod, Status> {
        // The pod may be younger than the operator's cache: NotFound is tried again.
        self.trainers
            .pod(name, uid)
            .ok_or_else(|| Status::not_found(format!("no training pod {name} is known yet")))
    }

    async fn plan_of(&self, request: Request<PlanRequest>) -> Result<RunPlan, Status> {
        let (pod, prepared) = self.caller(&request).await?;
        own_rank(&pod, request.get_ref().rank)?;
        let output = self
            .store
            .run_json::<Output>(&pod.uid, Output::NAME)
            .await
            .map_err(|e| refuse(&e))?;
        Ok(RunPlan {
            submitted: output.is_some(),
            ..prepared.plan(&pod.namespace, &pod.run)
        })
    }

    async fn shard_of(&self, request: Request<ShardRequest>) -> Result<Bytes, Status> {
        let (pod, prepared) = self.caller(&request).await?;
        let rank = request.get_ref().rank;
        own_rank(&pod, rank)?;
        if rank >= prepared.workers {
            return Err(Status::failed_precondition(format!(
                "the run has {} workers",
                prepared.workers
            )));
        }
        self.store
            .run_rows(&pod.uid, &shard_name(rank))
            .await
            .map_err(|e| refuse(&e))
    }

    async fn holdout_of(&self, request: Request<HoldoutRequest>) -> Result<Bytes, Status> {
        let (pod, _) = self.caller(&request).await?;
        own_rank(&pod, 0)?;
        self.store
            .run_rows(&pod.uid, HOLDOUT)
            .await
            .map_err(|e| refuse(&e))
    }

    async fn take(&self, request: Request<Streaming<SubmitRequest>>) -> Result<SubmitReply, Status> {
        let (pod, _) = self.caller(&request).await?;
        own_rank(&pod, 0)?;
        let ending = || Status::unavailable("the operator is ending");
        let _turn = self.receiving.acquire().await.map_err(|_| ending())?;
        let received = tokio::time::timeout(RECEIVE_TIME, self.receive(&pod, request.into_inner()));
        let received = received.await.map_err(|_| {
            Status::deadline_exceeded(format!(
                "the submission did not come in within {}s",
                RECEIVE_TIME.as_secs()
            ))
        })?;
        let Some((output, artifact)) = received? else {
            return Ok(SubmitReply {});
        };
        let _one = self.keeping.lock().await;
        if self.is_kept(&pod, &output).await? {
            return Ok(SubmitReply {});
        }
        self.store
            .put_output(&pod.uid, &output, artifact)
            .await
            .map_err(|e| refuse(&e))?;
        tracing::info!(target: "audit", namespace = pod.namespace, run = pod.run, digest = output.digest, "a training pod submitted its output");
        self.trainers.submitted(&pod);
        Ok(SubmitReply {})
    }

    fn trace_of(&self, request: &Request<TraceRequest>) -> Result<TraceReply, Status> {
        let (name, uid) = Identity::of(request)?.trainer()?;
        let pod = self.pod(name, uid)?;
        own_rank(&pod, request.get_ref().rank)?;
        let Some(traced) = self.trainers.traced(&pod, name, uid) else {
            return Err(Status::failed_precondition("the run of this pod is not traced"));
        };
        let spans = trace::worker(&traced, request.get_ref(), Timestamp::now())?;
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.len() >= MAX_TOLD {
            told.clear();
        }
        // Once: a pod ends after it.
        if told.insert(uid.to_owned()) {
            self.trainers.spans(spans);
        }
        Ok(TraceReply {})
    }

    /// Whether the run has this output already.
    async fn is_kept(&self, pod: &TrainingPod, output: &Output) -> Result<bool, Status> {
        let former = self.store.run_json::<Output>(&pod.uid, Output::NAME).await;
        match former.map_err(|e| refuse(&e))? {
            Some(former) if former.digest == output.digest => Ok(true),
            Some(_) => Err(Status::already_exists("the run has another output already")),
            None => Ok(false),
        }
    }

    /// Reads a submission; nothing where the run has it already.
    async fn receive(
        &self,
        pod: &TrainingPod,
        mut stream: Streaming<SubmitRequest>,
    ) -> Result<Option<(Output, Bytes)>, Status> {
        let header = match stream.message().await?.and_then(|m| m.part) {
            Some(Part::Header(header)) => check_header(header)?,
            _ => {
                return Err(Status::invalid_argument(
                    "the first part of a submission is its header",
                ));
            }
        };
        let output = Output {
            digest: header.digest,
            metrics: header.metrics.into_iter().collect(),
        };
        if self.is_kept(pod, &output).await? {
            return Ok(None);
        }
        let mut artifact = BytesMut::new();
        while let Some(message) = stream.message().await? {
            let Some(Part::Data(data)) = message.part else {
                return Err(Status::invalid_argument("after the header come data alone"));
            };
            if data.len() > MAX_CHUNK || (artifact.len() + data.len()) as u64 > header.size {
                return Err(Status::invalid_argument(format!(
                    "more than the {} bytes announced",
                    header.size
                )));
            }
            artifact.extend_from_slice(&data);
        }
        if artifact.len() as u64 != header.size || digest_of(&artifact) != output.digest {
            return Err(Status::invalid_argument(
                "the data do not have the size and digest announced",
            ));
        }
        Ok(Some((output, artifact.freeze())))
    }
}

fn own_rank(pod: &TrainingPod, rank: u32) -> Result<(), Status> {
    if pod.rank == rank {
        Ok(())
    } else {
        Err(Status::permission_denied(format!(
            "this pod has rank {}, not {rank}",
            pod.rank
        )))
    }
}

fn check_header(header: SubmitHeader) -> Result<SubmitHeader, Status> {
    let named = |name: &String| {
        let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        plain && (1..=64).contains(&name.len())
    };
    if !is_digest(&header.digest) {
        return Err(Status::invalid_argument(
            "digest must be sha256: and 64 hexadecimal digits",
        ));
    }
    if header.size == 0 || header.size > MAX_OUTPUT {
        return Err(Status::invalid_argument(format!(
            "an artifact has 1 to {MAX_OUTPUT} bytes"
        )));
    }
    if header.metrics.len() > MAX_METRICS || !header.metrics.iter().all(|(k, v)| named(k) && v.is_finite()) {
        return Err(Status::invalid_argument(format!(
            "at most {MAX_METRICS} metrics, with plain names and finite values"
        )));
    }
    Ok(header)
}

#[tonic::async_trait]
impl Training for TrainingService {
    type ShardStream = BoxStream<'static, Result<Chunk, Status>>;
    type HoldoutStream = BoxStream<'static, Result<Chunk, Status>>;

    async fn plan(&self, request: Request<PlanRequest>) -> Result<Response<RunPlan>, Status> {
        let answer = self.plan_of(request).await.map(Response::new);
        self.metrics.answered("Plan", &answer);
        answer
    }

    async fn shard(&self, request: Request<ShardRequest>) -> Result<Response<Self::ShardStream>, Status> {
        let answer = self
            .shard_of(request)
            .await
            .map(|bytes| Response::new(chunks(&bytes)));
        self.metrics.answered("Shard", &answer);
        answer
    }

    async fn holdout(
        &self,
        request: Request<HoldoutRequest>,
    ) -> Result<Response<Self::HoldoutStream>, Status> {
        let answer = self
            .holdout_of(request)
            .await
            .map(|bytes| Response::new(chunks(&bytes)));
        self.metrics.answered("Holdout", &answer);
        answer
    }

    async fn submit(
        &self,
        request: Request<Streaming<SubmitRequest>>,
    ) -> Result<Response<SubmitReply>, Status> {
        let answer = self.take(request).await.map(Response::new);
        self.metrics.answered("Submit", &answer);
        answer
    }

    async fn trace(&self, request: Request<TraceRequest>) -> Result<Response<TraceReply>, Status> {
        let answer = self.trace_of(&request).map(Response::new);
        self.metrics.answered("Trace", &answer);
        answer
    }
}
