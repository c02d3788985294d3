//! What a round stands on in tests: an operator that serves the Training contract over TLS, a CA for the run, and
//! ranks on runtimes of their own, so that a kill takes tasks, sockets and memory with it.

use std::collections::{BTreeMap, VecDeque};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio_stream::StreamExt;
use tonic::transport::{Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status, Streaming};
use vigia_model::artifact;
use vigia_model::context::{Context, Gram, MAX_PAST};
use vigia_model::pipeline::EstimatorKind;
use vigia_model::schema::{Schema, from_rate};
use vigia_proto::v1::submit_request::Part;
use vigia_proto::v1::training_server::{Training, TrainingServer};
use vigia_proto::v1::{
    Chunk, HoldoutRequest, PlanRequest, RunPlan, ShardRequest, SubmitReply, SubmitRequest, TraceReply,
    TraceRequest,
};
use vigia_trainer::data::{About, Rows};
use vigia_trainer::fit::{self, Params};
use vigia_trainer::parquet;
use vigia_trainer::rounds::{Config, Fault, OperatorConfig, Outcome, RoundsTls, Stage, run};

type Chunks = std::pin::Pin<Box<dyn tokio_stream::Stream<Item = Result<Chunk, Status>> + Send>>;

/// Kill `rank` when it first reaches `stage`; a new one starts at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kill {
    pub rank: u32,
    pub stage: Stage,
}

/// Windows of a made-up server.
pub fn windows(n: usize, salt: u64) -> Rows {
    let schema = Schema::syscalls_v1();
    let mut rows = Rows::new(schema);
    let mut state = salt.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut unit = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1u64 << 53) as f64
    };
    for i in 0..n {
        let mut row = vec![0.0; schema.width()];
        let load = 0.5 + unit();
        for (k, x) in row[..10].iter_mut().enumerate() {
            *x = from_rate(load * (1.0 + k as f64 * 30.0) * (0.8 + 0.4 * unit()));
        }
        let about = About {
            source: salt,
            started_ms: 2_000 * i as i64,
            window_ms: 2_000,
            ..About::default()
        };
        let grams: Vec<Gram> = (0..9)
            .map(|k| Gram {
                id: Gram::id_of([k, k + 1, k]),
                count: 1 + (9.0 * unit()) as u32,
            })
            .collect();
        let past = (0..MAX_PAST).map(|_| from_rate(1000.0 * (0.5 + unit())));
        let context = Context::new(grams, past.collect()).expect("a context");
        rows.push_within(&row, about, context).expect("a row");
    }
    rows
}

struct Operator {
    plan: RunPlan,
    shards: Vec<Vec<u8>>,
    holdout: Vec<u8>,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    submitted: Option<Vec<u8>>,
    fail: VecDeque<&'static str>,
    lose_receipt: bool,
    shards_served: BTreeMap<u32, usize>,
    traces: Vec<TraceRequest>,
}

impl Operator {
    /// Fails once for each time that `call` is next to fail; refuses strangers.
    fn admit<T>(&self, call: &str, request: &Request<T>) -> Result<(), Status> {
        if request
            .metadata()
            .get("authorization")
            .is_none_or(|v| v != "Bearer a-token")
        {
            return Err(Status::permission_denied("who are you?"));
        }
        let mut inner = self.inner.lock().expect("a lock");
        let Some(at) = inner.fail.iter().position(|&f| f == call) else {
            return Ok(());
        };
        inner.fail.remove(at);
        Err(Status::unavailable("away"))
    }
}

fn chunks(bytes: &[u8]) -> Chunks {
    let chunks: Vec<_> = bytes
        .chunks(100_000)
        .map(|data| {
            Ok(Chunk {
                data: data.to_vec().into(),
            })
        })
        .collect();
    Box::pin(tokio_stream::iter(chunks))
}

/// The trait is foreign, and so is `Arc`.
struct Service(Arc<Operator>);

#[tonic::async_trait]
impl Training for Service {
    async fn plan(&self, request: Request<PlanRequest>) -> Result<Response<RunPlan>, Status> {
        self.0.admit("plan", &request)?;
        let submitted = self.0.inner.lock().expect("a lock").submitted.is_some();
        Ok(Response::new(RunPlan {
            submitted,
            ..self.0.plan.clone()
        }))
    }

    type ShardStream = Chunks;
    async fn shard(&self, request: Request<ShardRequest>) -> Result<Response<Chunks>, Status> {
        self.0.admit("shard", &request)?;
        let rank = request.into_inner().rank;
        *self
            .0
            .inner
            .lock()
            .expect("a lock")
            .shards_served
            .entry(rank)
            .or_default() += 1;
        Ok(Response::new(chunks(&self.0.shards[rank as usize])))
    }

    type HoldoutStream = Chunks;
    async fn holdout(&self, request: Request<HoldoutRequest>) -> Result<Response<Chunks>, Status> {
        self.0.admit("holdout", &request)?;
        Ok(Response::new(chunks(&self.0.holdout)))
    }

    async fn submit(
        &self,
        request: Request<Streaming<SubmitRequest>>,
    ) -> Result<Response<SubmitReply>, Status> {
        self.0.admit("submit", &request)?;
        let mut stream = request.into_inner();
        let (mut header, mut bytes) = (None, Vec::new());
        while let Some(part) = stream.next().await {
            match part?.part {
                Some(Part::Header(h)) => header = Some(h),
                Some(Part::Data(data)) => bytes.extend(data),
                None => return Err(Status::invalid_argument("an empty part")),
            }
        }
        let header = header.ok_or_else(|| Status::invalid_argument("no header"))?;
        assert_eq!(header.digest, artifact::digest(&bytes).to_string());
        assert_eq!(header.size, bytes.len() as u64);
        assert!(header.metrics.contains_key("HoldoutExceedance"));
        let mut inner = self.0.inner.lock().expect("a lock");
        if inner.submitted.as_ref().is_some_and(|first| *first != bytes) {
            return Err(Status::failed_precondition(
                "another artifact was submitted before",
            ));
        }
        inner.submitted = Some(bytes);
        if std::mem::take(&mut inner.lose_receipt) {
            return Err(Status::unavailable("the receipt is lost"));
        }
        Ok(Response::new(SubmitReply {}))
    }

    async fn trace(&self, request: Request<TraceRequest>) -> Result<Response<TraceReply>, Status> {
        self.0.admit("trace", &request)?;
        let mut inner = self.0.inner.lock().expect("a lock");
        inner.traces.push(request.into_inner());
        Ok(Response::new(TraceReply {}))
    }
}

struct Ca(CertifiedIssuer<'static, KeyPair>);

impl Ca {
    fn new() -> Self {
        let mut params = CertificateParams::new(vec![]).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a CA"))
    }

    fn issue(&self) -> (String, String) {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec!["localhost".to_owned()]).expect("parameters");
        let certificate = params.signed_by(&key, &self.0).expect("a certificate");
        (certificate.pem(), key.serialize_pem())
    }

    fn folder(&self) -> TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        let (certificate, key) = self.issue();
        for (name, text) in [
            ("ca.crt", self.0.pem()),
            ("tls.crt", certificate),
            ("tls.key", key),
        ] {
            std::fs::write(folder.path().join(name), text).expect("a file");
        }
        folder
    }
}

/// See the module's head.
pub struct Ground {
    workers: u32,
    operator: Arc<Operator>,
    params: Params,
    rows: Vec<Rows>,
    holdout: Rows,
    run_tls: TempDir,
    stranger: Option<(u32, TempDir)>,
    files: TempDir,
    checkpoints: bool,
    deadline: Duration,
    traceparent: Option<&'static str>,
    runtime: Option<Runtime>,
    address: SocketAddr,
}

impl Drop for Ground {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Ground {
    pub fn new(workers: u32) -> Self {
        let rows: Vec<Rows> = (0..workers)
            .map(|rank| windows(120, u64::from(rank) + 1))
            .collect();
        let holdout = windows(100, 99);
        let params = Params {
            name: "shop/checkout-anomaly".to_owned(),
            estimators: EstimatorKind::DEFAULT.to_vec(),
            components: None,
            trees: 20,
            sample_size: 64,
            seed: 42,
            workers,
            created_at: "2026-11-21T10:00:00Z".to_owned(),
            data_digest: format!("sha256:{}", "0a".repeat(32)),
            captures: vec![],
        };
        let plan = RunPlan {
            captures: vec![],
            namespace: "shop".to_owned(),
            run: "checkout-1".to_owned(),
            model: "checkout-anomaly".to_owned(),
            task: "Anomaly".to_owned(),
            workers,
            trees: params.trees,
            sample_size: params.sample_size,
            seed: params.seed,
            schema: Schema::syscalls_v1().hash().to_string(),
            data_digest: params.data_digest.clone(),
            windows: 0,
            created_unix_ms: 1_795_255_200_000,
            submitted: false,
            estimators: vec![],
            components: 0,
        };
        let write = |rows: &Rows| parquet::write(rows, "shop", "checkout").expect("writes");
        let operator = Operator {
            plan,
            shards: rows.iter().map(write).collect(),
            holdout: write(&holdout),
            inner: Mutex::default(),
        };
        let files = tempfile::tempdir().expect("a folder");
        let mut ground = Self {
            workers,
            operator: Arc::new(operator),
            params,
            rows,
            holdout,
            run_tls: Ca::new().folder(),
            stranger: None,
            files,
            checkpoints: false,
            deadline: Duration::from_secs(60),
            traceparent: None,
            runtime: None,
            address: ([127, 0, 0, 1], 0).into(),
        };
        ground.serve();
        ground
    }

    fn serve(&mut self) {
        let ca = Ca::new();
        let (certificate, key) = ca.issue();
        std::fs::write(self.files.path().join("ca.crt"), ca.0.pem()).expect("a file");
        std::fs::write(self.files.path().join("token"), "a-token\n").expect("a file");
        let runtime = Runtime::new().expect("a runtime");
        let listener = runtime
            .block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))
            .expect("a port");
        self.address = listener.local_addr().expect("an address");
        let tls = ServerTlsConfig::new().identity(Identity::from_pem(certificate, key));
        let server = Server::builder().tls_config(tls).expect("TLS");
        let service = TrainingServer::new(Service(self.operator.clone()));
        runtime.spawn(async move {
            let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
            let mut server = server;
            server.add_service(service).serve_with_incoming(incoming).await
        });
        self.runtime = Some(runtime);
    }

    fn change(mut self, change: impl FnOnce(&mut Operator)) -> Self {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(5));
        }
        change(Arc::get_mut(&mut self.operator).expect("the only owner"));
        self.serve();
        self
    }

    pub fn with_shard(self, rank: usize, bytes: Vec<u8>) -> Self {
        self.change(|operator| operator.shards[rank] = bytes)
    }

    /// With other estimators than the usual ones.
    pub fn with_estimators(mut self, kinds: &[EstimatorKind], components: u32) -> Self {
        self.params.estimators = kinds.to_vec();
        self.params.components = Some(components);
        let names = kinds.iter().map(|kind| kind.to_string()).collect();
        self.change(|operator| {
            operator.plan.estimators = names;
            operator.plan.components = components;
        })
    }

    pub fn with_workers_in_plan(self, workers: u32) -> Self {
        self.change(|operator| operator.plan.workers = workers)
    }

    pub fn with_checkpoints(mut self) -> Self {
        self.checkpoints = true;
        self
    }

    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Gives `rank` a certificate of another CA.
    pub fn with_stranger(mut self, rank: u32) -> Self {
        let folder = Ca::new().folder();
        // It believes rank 0, but is not believed.
        std::fs::copy(self.run_tls.path().join("ca.crt"), folder.path().join("ca.crt")).expect("a copy");
        self.stranger = Some((rank, folder));
        self
    }

    pub fn operator_fails(&self, calls: &[&'static str]) {
        self.operator.inner.lock().expect("a lock").fail.extend(calls);
    }

    pub fn operator_loses_receipt(&self) {
        self.operator.inner.lock().expect("a lock").lose_receipt = true;
    }

    pub fn shards_served(&self, rank: u32) -> usize {
        self.operator.inner.lock().expect("a lock").shards_served[&rank]
    }

    pub fn has_submission(&self) -> bool {
        self.operator.inner.lock().expect("a lock").submitted.is_some()
    }

    /// As if the run were a new one.
    pub fn forget_submission(&self) {
        self.operator.inner.lock().expect("a lock").submitted = None;
    }

    pub fn submitted(&self) -> Vec<u8> {
        self.operator
            .inner
            .lock()
            .expect("a lock")
            .submitted
            .clone()
            .expect("a submission")
    }

    /// What one process makes of the same shards.
    pub fn alone(&self) -> Vec<u8> {
        let parts = (0..)
            .zip(&self.rows)
            .map(|(rank, rows)| fit::fit(rows, &self.params, rank).expect("fits"));
        fit::combine(parts.collect(), &self.params, &self.holdout, &[])
            .expect("combines")
            .artifact
    }

    /// Flags of the binary for this rank.
    pub fn flags(&self, rank: u32, rank_zero: SocketAddr) -> Vec<String> {
        let config = self.config(rank, rank_zero);
        let flag = |name: &str, value: &dyn std::fmt::Display| format!("--{name}={value}");
        vec![
            flag("rank", &rank),
            flag("workers", &config.workers),
            flag("operator", &config.operator.url),
            flag("ca", &config.operator.ca.display()),
            flag("token", &config.operator.token.display()),
            flag("rounds-tls", &self.run_tls.path().display()),
            flag("rank-zero", &config.rank_zero),
            flag("listen", &config.listen),
            flag("checkpoints", &config.checkpoints.display()),
            flag("deadline", &config.deadline.as_secs()),
        ]
    }

    /// What [`run`] is told for this rank.
    pub fn config(&self, rank: u32, rank_zero: SocketAddr) -> Config {
        let tls = match &self.stranger {
            Some((stranger, folder)) if *stranger == rank => folder,
            _ => &self.run_tls,
        };
        let checkpoints: PathBuf = if self.checkpoints {
            self.files.path().to_owned()
        } else {
            self.files.path().join("none")
        };
        Config {
            rank,
            workers: self.workers,
            operator: OperatorConfig {
                url: format!("https://localhost:{}", self.address.port()),
                ca: self.files.path().join("ca.crt"),
                token: self.files.path().join("token"),
            },
            rank_zero: format!("localhost:{}", rank_zero.port()),
            listen: rank_zero,
            tls: RoundsTls::load(tls.path()).expect("TLS"),
            checkpoints,
            deadline: self.deadline,
            traceparent: self.traceparent.map(str::to_owned),
        }
    }

    /// What ranks told of what took how long.
    pub fn traces(&self) -> Vec<TraceRequest> {
        self.operator.inner.lock().expect("a lock").traces.clone()
    }

    /// With a run that is traced.
    pub fn with_traceparent(mut self, traceparent: &'static str) -> Self {
        self.traceparent = Some(traceparent);
        self
    }

    /// Runs every rank until it ends by itself, killing and restarting as told, in that order.
    pub fn round(&self, kills: &[Kill]) -> Vec<Result<Outcome, Fault>> {
        let rank_zero = free_port();
        let kills = Arc::new(Mutex::new(kills.to_vec()));
        std::thread::scope(|scope| {
            let ranks: Vec<_> = (0..self.workers)
                .map(|rank| {
                    let (config, kills) = (self.config(rank, rank_zero), kills.clone());
                    scope.spawn(move || live(&config, &kills))
                })
                .collect();
            ranks
                .into_iter()
                .map(|rank| rank.join().expect("a rank"))
                .collect()
        })
    }
}

pub fn free_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0")
        .and_then(|l| l.local_addr())
        .expect("a port")
}

enum End {
    Killed,
    Ended(Result<Outcome, Fault>),
}

/// Life after life of one rank, until one ends by itself.
fn live(config: &Config, kills: &Arc<Mutex<Vec<Kill>>>) -> Result<Outcome, Fault> {
    loop {
        let (tell, told) = mpsc::channel();
        let runtime = Runtime::new().expect("a runtime");
        let (mine, kills, killed) = (config.clone(), kills.clone(), tell.clone());
        runtime.spawn(async move {
            let rank = mine.rank;
            let observer = move |stage| {
                let (kills, killed) = (kills.clone(), killed.clone());
                Box::pin(async move {
                    let due = {
                        let mut kills = kills.lock().expect("a lock");
                        let at = kills.iter().position(|k| *k == Kill { rank, stage });
                        at.map(|at| kills.remove(at)).is_some()
                    };
                    if due {
                        killed.send(End::Killed).expect("told");
                        // Not one step further.
                        std::future::pending::<()>().await;
                    }
                }) as std::pin::Pin<Box<dyn Future<Output = ()> + Send>>
            };
            let outcome = run(&mine, &observer).await;
            tell.send(End::Ended(outcome)).expect("told");
        });
        let end = told
            .recv_timeout(Duration::from_secs(90))
            .expect("a rank that ends");
        runtime.shutdown_background();
        if let End::Ended(outcome) = end {
            return outcome;
        }
    }
}
