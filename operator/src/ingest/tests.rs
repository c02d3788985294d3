//! The services over loopback, with TLS as in a cluster. The API server's TokenReview, the plans and the pods
//! are stand-ins; everything else is the real thing.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::{Buf as _, BufMut as _, Bytes};
use futures::StreamExt as _;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Request, Status};
use vigia_proto::MAX_CHUNK;
use vigia_proto::v1::node_client::NodeClient;
use vigia_proto::v1::submit_request::Part;
use vigia_proto::v1::training_client::TrainingClient;
use vigia_proto::v1::{
    Chunk, FetchRequest, HoldoutRequest, PlanRequest, ShardRequest, StageEnd, SubmitHeader, SubmitRequest,
    TraceRequest,
};

use super::accounts::tests::{FakeTokenReview, accounts};
use super::validate::tests::{alert, batch, digest, plan, sample, scores};
use super::*;
use crate::observed::Observations;
use crate::store::{Options, Store, StoreError, Summary, digest_of};
use crate::telemetry::TraceParent;
use crate::tls::pki::Material;
use crate::trainingrun::data::{HOLDOUT, Prepared, shard_name};

const NAME: &str = "localhost";

/// Stands in for the operator's caches: one node has a plan, pods train by their names.
#[derive(Default)]
struct FakeCaches {
    plans: Mutex<HashMap<String, Arc<NodePlan>>>,
    alarms: Mutex<Vec<(String, Verdict)>>,
    api_server_is_down: AtomicBool,
    submitted: Mutex<Vec<TrainingPod>>,
    lost: Mutex<Vec<(String, String)>>,
    spans: Mutex<Vec<Span>>,
}

impl Plans for FakeCaches {
    fn plan(&self, node: &str) -> Option<Arc<NodePlan>> {
        self.plans.lock().unwrap().get(node).cloned()
    }
}

#[tonic::async_trait]
impl Alarm for FakeCaches {
    async fn raise(&self, node: &str, alert: &Verdict) -> Result<bool, String> {
        if self.api_server_is_down.load(Ordering::Relaxed) {
            return Err("no API server".into());
        }
        let ours = alert.pod == "redis-0";
        if ours {
            self.alarms.lock().unwrap().push((node.to_owned(), alert.clone()));
        }
        Ok(ours)
    }

    fn scored(&self, _: &[Summary]) {}

    fn versions(&self, _: &str, _: &[Done]) {}

    fn lost(&self, node: &str, digest: &str, error: &StoreError) {
        assert!(error.is_loss(), "{error}");
        self.lost
            .lock()
            .unwrap()
            .push((node.to_owned(), digest.to_owned()));
    }
}

impl Trainers for FakeCaches {
    fn pod(&self, name: &str, uid: &str) -> Option<TrainingPod> {
        let rank = name.strip_prefix("train-")?.parse().ok()?;
        (uid == "pod-uid").then(|| TrainingPod {
            namespace: "shop".into(),
            run: "m-1".into(),
            uid: "run-uid".into(),
            rank,
        })
    }

    fn submitted(&self, pod: &TrainingPod) {
        self.submitted.lock().unwrap().push(pod.clone());
    }

    fn traced(&self, _: &TrainingPod, _: &str, uid: &str) -> Option<Traced> {
        Some(Traced {
            job: TraceParent::root(&["job"]),
            pod: vec![],
            uid: uid.to_owned(),
        })
    }

    fn spans(&self, spans: Vec<Span>) {
        self.spans.lock().unwrap().extend(spans);
    }
}

struct Operator {
    address: SocketAddr,
    ca: String,
    current: Arc<tls::Current>,
    material: Material,
    store: Arc<Store>,
    observations: Arc<Observations>,
    caches: Arc<FakeCaches>,
    shutdown: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
    _folder: tempfile::TempDir,
}

impl Operator {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = Options {
            reserve: 0,
            ..Options::default()
        };
        let store = Arc::new(Store::open(folder.path(), options).await.unwrap());
        let observations = Arc::new(Observations::default());
        let caches = Arc::new(FakeCaches::default());
        let of_node = NodePlan::new("n1", plan());
        caches
            .plans
            .lock()
            .unwrap()
            .insert("n1".into(), Arc::new(of_node));
        let shutdown = CancellationToken::new();
        let (committer, work) = Committer::new(store.clone(), observations.clone(), shutdown.clone());
        let metrics = IngestMetrics::default();
        let auth = Arc::new(Authenticator::new(
            Arc::new(FakeTokenReview::default()),
            accounts(),
        ));
        let node = Arc::new(NodeService::new(
            caches.clone(),
            caches.clone(),
            store.clone(),
            committer,
            metrics.clone(),
        ));
        let training = TrainingService::new(caches.clone(), store.clone(), metrics.clone());
        let gate = Gate::new(auth, metrics);
        let material = Material::new(&[NAME.to_owned()], Timestamp::now()).unwrap();
        let current = tls::Current::new(&material).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = serve_tls(
            listener,
            current.server().unwrap(),
            routes(gate, node, training),
            shutdown.clone(),
        );
        let tasks = vec![
            tokio::spawn(work),
            tokio::spawn(async move { server.await.unwrap() }),
        ];
        Self {
            address,
            ca: material.bundle(),
            current,
            material,
            store,
            observations,
            caches,
            shutdown,
            tasks,
            _folder: folder,
        }
    }

    async fn channel(&self, ca: &str) -> Result<Channel, tonic::transport::Error> {
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(ca))
            .domain_name(NAME);
        Endpoint::from_shared(format!("https://{}", self.address))?
            .tls_config(tls)?
            .connect()
            .await
    }

    async fn node(&self) -> NodeClient<Channel> {
        NodeClient::new(self.channel(&self.ca).await.unwrap())
    }

    async fn trainer(&self) -> TrainingClient<Channel> {
        TrainingClient::new(self.channel(&self.ca).await.unwrap())
    }

    async fn stop(self) {
        self.shutdown.cancel();
        for task in self.tasks {
            task.await.unwrap();
        }
    }
}

/// Sends and takes bytes as they are: what a peer sends that keeps to no schema.
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, wire: &mut EncodeBuf<'_>) -> Result<(), Status> {
        wire.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, wire: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(wire.copy_to_bytes(wire.remaining())))
    }
}

/// Calls a method with a message that may be none.
async fn call_raw(
    channel: Channel,
    path: &'static str,
    token: Option<&str>,
    message: Bytes,
) -> Result<Bytes, Status> {
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.unwrap();
    let request = match token {
        Some(token) => by(token, message),
        None => Request::new(message),
    };
    let answer = grpc.unary(request, path.parse().unwrap(), Raw).await;
    answer.map(tonic::Response::into_inner)
}

fn by<T>(token: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request
        .metadata_mut()
        .insert("authorization", format!("Bearer {token}").parse().unwrap());
    request
}

/// A batch of now; the fixtures' clock is another one.
fn now_batch(sequence: u64) -> vigia_proto::v1::ReportBatch {
    let now = Timestamp::now().as_millisecond();
    vigia_proto::v1::ReportBatch {
        sent_unix_ms: now,
        scores: vec![scores(now - 5000)],
        samples: vec![sample(now - 5000), sample(now - 3000)],
        alerts: vec![Verdict {
            window_start_unix_ms: now - 5000,
            ..alert()
        }],
        ..batch(sequence)
    }
}

async fn collect(mut stream: tonic::Streaming<Chunk>) -> Result<Vec<u8>, Status> {
    let mut bytes = vec![];
    while let Some(chunk) = stream.message().await? {
        assert!(chunk.data.len() <= MAX_CHUNK);
        bytes.extend(chunk.data);
    }
    Ok(bytes)
}

fn code<T: std::fmt::Debug>(answer: Result<T, Status>) -> Code {
    answer.unwrap_err().code()
}

#[tokio::test]
async fn a_report_is_stored_told_and_acknowledged_once() {
    let operator = Operator::start().await;
    let mut client = operator.node().await;
    let before = Timestamp::now().as_millisecond();
    let ack = client
        .report(by("agent:n1", now_batch(1)))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(ack.sequence, 1);
    assert!(ack.received_unix_ms >= before);
    let windows = || {
        operator
            .store
            .count("shop", "redis", (i64::MIN, i64::MAX), |_, _| true)
    };
    assert_eq!(windows(), 2);
    let scored = operator
        .observations
        .scores("shop", "m", &digest(), Timestamp::UNIX_EPOCH, None);
    assert_eq!((scored.windows, scored.above_threshold), (5, 1));
    assert_eq!(operator.caches.alarms.lock().unwrap().len(), 1);

    let again = client
        .report(by("agent:n1", now_batch(1)))
        .await
        .unwrap()
        .into_inner();
    assert_eq!((again.sequence, windows()), (1, 2));
    assert_eq!(operator.caches.alarms.lock().unwrap().len(), 1);
    operator.stop().await;
}

#[tokio::test]
async fn who_calls_decides_what_may_be_said() {
    let operator = Operator::start().await;
    let mut client = operator.node().await;
    let mut report = async |token: &str| {
        client
            .report(by(token, now_batch(1)))
            .await
            .map(|a| a.into_inner().sequence)
    };
    assert_eq!(code(report("nonsense").await), Code::Unauthenticated);
    assert_eq!(
        code(report("trainer:train-0:pod-uid").await),
        Code::PermissionDenied
    );
    assert_eq!(code(report("down").await), Code::Unavailable);
    // A node without a plan has nothing to say: its items are left out, its batch is done with.
    assert_eq!(report("agent:n2").await.unwrap(), 1);
    assert_eq!(
        operator
            .store
            .count("shop", "redis", (i64::MIN, i64::MAX), |_, _| true),
        0
    );
    assert!(operator.caches.alarms.lock().unwrap().is_empty());
    let bare = client.report(Request::new(now_batch(1))).await;
    assert_eq!(code(bare), Code::Unauthenticated);
    let refused = client
        .report(by("agent:n1", vigia_proto::v1::ReportBatch::default()))
        .await;
    assert_eq!(code(refused), Code::InvalidArgument);
    operator.stop().await;
}

#[tokio::test]
async fn an_alert_that_cannot_be_told_keeps_its_report_with_the_agent() {
    let operator = Operator::start().await;
    let mut client = operator.node().await;
    operator.caches.api_server_is_down.store(true, Ordering::Relaxed);
    assert_eq!(
        code(client.report(by("agent:n1", now_batch(1))).await),
        Code::Unavailable
    );
    assert_eq!(operator.store.mark("n1", "a1"), 0);
    operator.caches.api_server_is_down.store(false, Ordering::Relaxed);
    client.report(by("agent:n1", now_batch(1))).await.unwrap();
    assert_eq!(operator.store.mark("n1", "a1"), 1);
    // A pod of another node: refused, and no reason to keep the report.
    let mut foreign = now_batch(2);
    foreign.alerts[0].pod = "other".into();
    client.report(by("agent:n1", foreign)).await.unwrap();
    assert_eq!(operator.caches.alarms.lock().unwrap().len(), 1);
    operator.stop().await;
}

#[tokio::test]
async fn artifacts_are_served_to_nodes_whose_plan_names_them() {
    let operator = Operator::start().await;
    let mut client = operator.node().await;
    let artifact = Bytes::from(vec![7u8; MAX_CHUNK * 2 + 5]);
    let digest = operator.store.put_artifact(artifact.clone()).await.unwrap();
    let other = operator
        .store
        .put_artifact(Bytes::from_static(b"other"))
        .await
        .unwrap();
    let mut spec = plan();
    spec.models[0].versions[0].digest = digest.clone();
    let planned = Arc::new(NodePlan::new("n1", spec));
    operator.caches.plans.lock().unwrap().insert("n1".into(), planned);

    let fetched = client
        .fetch(by(
            "agent:n1",
            FetchRequest {
                digest: digest.clone(),
            },
        ))
        .await
        .unwrap();
    assert_eq!(collect(fetched.into_inner()).await.unwrap(), artifact);
    for (token, digest) in [("agent:n1", &other), ("agent:n2", &digest)] {
        let request = FetchRequest {
            digest: digest.clone(),
        };
        assert_eq!(
            code(client.fetch(by(token, request)).await),
            Code::PermissionDenied
        );
    }
    let file = operator._folder.path().join("blobs/sha256").join(&digest[7..]);
    assert!(operator.caches.lost.lock().unwrap().is_empty());
    std::fs::write(&file, b"tampered").unwrap();
    let again = FetchRequest {
        digest: digest.clone(),
    };
    assert_eq!(
        code(client.fetch(by("agent:n1", again.clone())).await),
        Code::DataLoss
    );
    std::fs::remove_file(file).unwrap();
    assert_eq!(code(client.fetch(by("agent:n1", again)).await), Code::NotFound);
    let lost = ("n1".to_owned(), digest);
    assert_eq!(*operator.caches.lost.lock().unwrap(), [lost.clone(), lost]);
    operator.stop().await;
}

#[tokio::test]
async fn what_a_plan_named_of_late_outlives_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let caches = Arc::new(FakeCaches::default());
    let of_node = |spec| Arc::new(NodePlan::new("n1", spec));
    caches.plans.lock().unwrap().insert("n1".into(), of_node(plan()));
    let service = async |store: Arc<Store>| {
        let (committer, work) = Committer::new(store.clone(), Arc::default(), CancellationToken::new());
        tokio::spawn(work);
        let metrics = IngestMetrics::default();
        let service = NodeService::new(caches.clone(), caches.clone(), store, committer, metrics);
        service.recall().await;
        Arc::new(service)
    };
    let open = async || Arc::new(Store::open(folder.path(), Options::default()).await.unwrap());
    let report = async |service: &NodeService, sequence| {
        let mut request = Request::new(now_batch(sequence));
        request
            .extensions_mut()
            .insert(accounts::Identity::Agent { node: "n1".into() });
        vigia_proto::v1::node_server::Node::report(service, request)
            .await
            .unwrap();
    };
    let store = open().await;
    let first = service(store.clone()).await;
    report(&first, 1).await;
    // The profile goes while the node is cut off, and the operator ends.
    caches
        .plans
        .lock()
        .unwrap()
        .insert("n1".into(), of_node(Default::default()));
    let ended = CancellationToken::new();
    ended.cancel();
    first.clone().remember(ended).await;
    let windows = |store: &Store| store.count("shop", "redis", (i64::MIN, i64::MAX), |_, _| true);
    assert_eq!(windows(&store), 2);
    drop((first, store));

    let store = open().await;
    let second = service(store.clone()).await;
    report(&second, 2).await;
    assert_eq!(windows(&store), 4);
}

#[tokio::test]
async fn a_certificate_is_rotated_under_open_connections() {
    let operator = Operator::start().await;
    let mut open = operator.node().await;
    open.report(by("agent:n1", now_batch(1))).await.unwrap();
    // A CA that is not in the bundle that the peer holds: only who has the new one connects.
    let next = Material::new(&[NAME.to_owned()], Timestamp::now()).unwrap();
    operator.current.set(&next).unwrap();
    open.report(by("agent:n1", now_batch(2))).await.unwrap();
    assert!(operator.channel(&operator.ca).await.is_err());
    let fresh = operator.channel(&next.bundle()).await.unwrap();
    NodeClient::new(fresh)
        .report(by("agent:n1", now_batch(3)))
        .await
        .unwrap();
    operator.current.set(&operator.material).unwrap();
    assert!(operator.channel(&operator.ca).await.is_ok());
    operator.stop().await;
}

#[tokio::test]
async fn a_peer_that_says_nothing_holds_up_nobody() {
    let operator = Operator::start().await;
    let mut silent = vec![];
    for _ in 0..20 {
        silent.push(tokio::net::TcpStream::connect(operator.address).await.unwrap());
    }
    let mut client = operator.node().await;
    client.report(by("agent:n1", now_batch(1))).await.unwrap();
    drop(client);
    drop(silent);
    operator.stop().await;
}

fn prepared() -> Prepared {
    Prepared {
        model: "m".into(),
        task: "Anomaly".into(),
        workers: 2,
        estimators: vec![],
        components: 0,
        trees: 10,
        sample_size: 16,
        seed: 1,
        schema: "s".into(),
        data_digest: digest(),
        windows: 100,
        unscored: 0,
        window_ms: vec![2000],
        captures: vec![],
        created_unix_ms: 5,
    }
}

fn submission(artifact: &[u8], digest: &str, size: u64) -> Vec<SubmitRequest> {
    let header = SubmitHeader {
        digest: digest.to_owned(),
        size,
        metrics: HashMap::from([("HoldoutExceedance".to_owned(), 0.01)]),
    };
    let parts = artifact.chunks(MAX_CHUNK).map(|data| Part::Data(data.to_vec()));
    std::iter::once(Part::Header(header))
        .chain(parts)
        .map(|part| SubmitRequest { part: Some(part) })
        .collect()
}

#[tokio::test]
async fn a_training_pod_gets_its_own_shard_and_no_other() {
    let operator = Operator::start().await;
    let mut client = operator.trainer().await;
    let plan_of = |rank| PlanRequest { rank };
    let unprepared = client.plan(by("trainer:train-0:pod-uid", plan_of(0))).await;
    assert_eq!(code(unprepared), Code::NotFound);

    let store = &operator.store;
    for name in [shard_name(0), shard_name(1), HOLDOUT.to_owned()] {
        store.put_run_rows("run-uid", &name, vec![]).await.unwrap();
    }
    store
        .put_run_json("run-uid", Prepared::NAME, &prepared())
        .await
        .unwrap();
    let told = client
        .plan(by("trainer:train-1:pod-uid", plan_of(1)))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        (told.run.as_str(), told.workers, told.submitted),
        ("m-1", 2, false)
    );
    let shard = client
        .shard(by("trainer:train-1:pod-uid", ShardRequest { rank: 1 }))
        .await
        .unwrap();
    let bytes = collect(shard.into_inner()).await.unwrap();
    assert_eq!(bytes, store.run_rows("run-uid", &shard_name(1)).await.unwrap());

    let other = client
        .shard(by("trainer:train-1:pod-uid", ShardRequest { rank: 0 }))
        .await;
    assert_eq!(code(other), Code::PermissionDenied);
    let beyond = client
        .shard(by("trainer:train-2:pod-uid", ShardRequest { rank: 2 }))
        .await;
    assert_eq!(code(beyond), Code::FailedPrecondition);
    let held_out = client
        .holdout(by("trainer:train-1:pod-uid", HoldoutRequest {}))
        .await;
    assert_eq!(code(held_out), Code::PermissionDenied);
    assert!(
        client
            .holdout(by("trainer:train-0:pod-uid", HoldoutRequest {}))
            .await
            .is_ok()
    );
    let stranger = client.plan(by("trainer:train-0:other-uid", plan_of(0))).await;
    assert_eq!(code(stranger), Code::NotFound);
    let agent = client.plan(by("agent:n1", plan_of(0))).await;
    assert_eq!(code(agent), Code::PermissionDenied);
    operator.stop().await;
}

#[tokio::test]
async fn an_output_is_taken_once_and_only_whole() {
    let operator = Operator::start().await;
    let mut client = operator.trainer().await;
    operator
        .store
        .put_run_json("run-uid", Prepared::NAME, &prepared())
        .await
        .unwrap();
    let artifact = vec![9u8; MAX_CHUNK + 100];
    let (digest, size) = (digest_of(&artifact), artifact.len() as u64);
    let mut submit = async |token: &str, parts: Vec<SubmitRequest>| {
        let stream = futures::stream::iter(parts);
        client.submit(by(token, stream)).await.map(|_| ())
    };
    let zero = "trainer:train-0:pod-uid";
    let bad = [
        submission(&artifact, &digest, size + 1),
        submission(&artifact, &digest, size - 1),
        submission(&artifact, &digest_of(b"x"), size),
        submission(&artifact, "sha256:nonsense", size),
        submission(&[], &digest, 0),
        submission(&artifact, &digest, u64::MAX),
        submission(&artifact, &digest, size)[1..].to_vec(),
        vec![],
    ];
    for parts in bad {
        assert_eq!(code(submit(zero, parts).await), Code::InvalidArgument);
    }
    assert_eq!(operator.store.output("run-uid").await.unwrap(), None);
    let other_rank = submit("trainer:train-1:pod-uid", submission(&artifact, &digest, size)).await;
    assert_eq!(code(other_rank), Code::PermissionDenied);

    submit(zero, submission(&artifact, &digest, size)).await.unwrap();
    let (output, bytes) = operator.store.output("run-uid").await.unwrap().unwrap();
    assert_eq!(
        (output.digest.as_str(), bytes.as_ref()),
        (digest.as_str(), artifact.as_slice())
    );
    assert_eq!(operator.caches.submitted.lock().unwrap().len(), 1);
    // The answer was lost: the same again is well. Another one is not.
    submit(zero, submission(&artifact, &digest, size)).await.unwrap();
    let late = submission(b"other", &digest_of(b"other"), 5);
    assert_eq!(code(submit(zero, late).await), Code::AlreadyExists);
    let told = client
        .plan(by(zero, PlanRequest { rank: 0 }))
        .await
        .unwrap()
        .into_inner();
    assert!(told.submitted);
    operator.stop().await;
}

#[tokio::test]
async fn what_a_worker_did_is_told_once_and_of_its_own_trace_alone() {
    let operator = Operator::start().await;
    let mut client = operator.trainer().await;
    let now = Timestamp::now().as_microsecond();
    let trace = |rank, of: &str| TraceRequest {
        rank,
        traceparent: TraceParent::root(&[of]).to_string(),
        start_unix_us: now - 5_000_000,
        end_unix_us: now,
        stages: vec![StageEnd {
            stage: vigia_proto::v1::Stage::Fit.into(),
            end_unix_us: now - 1_000_000,
        }],
        error: String::new(),
    };
    let one = "trainer:train-1:pod-uid";
    for (token, request) in [
        ("agent:n1", trace(1, "job")),
        (one, trace(0, "job")),
        (one, trace(1, "another job")),
    ] {
        assert_eq!(
            code(client.trace(by(token, request)).await),
            Code::PermissionDenied
        );
    }
    for _ in 0..3 {
        client.trace(by(one, trace(1, "job"))).await.unwrap();
    }
    let spans = operator.caches.spans.lock().unwrap().clone();
    assert_eq!(
        spans.iter().map(|s| s.name).collect::<Vec<_>>(),
        ["worker", "fit"]
    );
    operator.stop().await;
}

const REPORT: &str = "/vigia.v1.Node/Report";

/// Alerts without content, two bytes each: as many as a message holds.
fn empty_alerts() -> Bytes {
    [0x22, 0].repeat((vigia_proto::MAX_MESSAGE - 16) / 2).into()
}

/// What a stopped pod sends of its submission: the beginning.
#[tokio::test]
async fn a_submission_that_does_not_come_holds_up_no_other() {
    let operator = Operator::start().await;
    operator
        .store
        .put_run_json("run-uid", Prepared::NAME, &prepared())
        .await
        .unwrap();
    let artifact = b"an artifact".to_vec();
    let parts = submission(&artifact, &digest_of(&artifact), artifact.len() as u64);
    let begun = futures::stream::iter(parts[..1].to_vec()).chain(futures::stream::pending());
    let mut stopped = operator.trainer().await;
    let stopped = tokio::spawn(async move { stopped.submit(by("trainer:train-0:pod-uid", begun)).await });
    let mut other = operator.trainer().await;
    let whole = other.submit(by("trainer:train-0:pod-uid", futures::stream::iter(parts)));
    tokio::time::timeout(Duration::from_secs(20), whole)
        .await
        .expect("not held up")
        .unwrap();
    assert!(operator.store.output("run-uid").await.unwrap().is_some());
    stopped.abort();
    operator.stop().await;
}

#[tokio::test]
async fn nothing_of_a_stranger_is_decoded() {
    let operator = Operator::start().await;
    // Were it decoded, it would be refused as what it is.
    let garbage = Bytes::from_static(b"\xff\xff\xff");
    for path in [REPORT, "/vigia.v1.Training/Plan"] {
        for token in [None, Some("nonsense")] {
            let channel = operator.channel(&operator.ca).await.unwrap();
            let answer = call_raw(channel, path, token, garbage.clone()).await;
            assert_eq!(code(answer), Code::Unauthenticated, "{path} {token:?}");
        }
    }
    let channel = operator.channel(&operator.ca).await.unwrap();
    let trainer = call_raw(channel, REPORT, Some("trainer:train-0:pod-uid"), garbage).await;
    assert_eq!(code(trainer), Code::PermissionDenied);
    operator.stop().await;
}

#[tokio::test]
async fn what_multiplies_in_memory_is_not_decoded() {
    let operator = Operator::start().await;
    let channel = operator.channel(&operator.ca).await.unwrap();
    let refused = call_raw(channel, REPORT, Some("agent:n1"), empty_alerts()).await;
    let refused = refused.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().contains("1024 alerts"), "{refused}");
    operator.stop().await;
}
