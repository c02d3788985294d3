//! One trace from the annotation of a TrainingRun to the swap on a node: the operator, the trainer, the API server and the
//! OTLP receiver are real.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use anyhow::{Context as _, Result, ensure};
use jiff::Timestamp;
use kube::Api;
use kube::api::PostParams;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use serde_json::json;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};
use vigia_crds::{Model, RetrainingPolicy, RolloutPhase, TRACEPARENT, TrainingRun, VersionMode};
use vigia_proto::v1::{ReportBatch, VersionSpan, VersionState};

use crate::training::{NS, report, samples, shop, succeeded, tell, train};
use crate::world::{World, eventually};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

/// A span with the attributes of its resource.
type Told = (Span, BTreeMap<String, String>);

/// An OTLP receiver that keeps what it gets; a span that is sent again is the same.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<BTreeMap<Vec<u8>, Told>>>);

fn texts(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |attribute: &KeyValue| match attribute.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some((attribute.key.clone(), text.clone())),
        _ => None,
    };
    attributes.iter().filter_map(text).collect()
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let mut all = self.0.lock().expect("no panic");
        for of in request.into_inner().resource_spans {
            let resource = of.resource.map(|r| texts(&r.attributes)).unwrap_or_default();
            for span in of.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                all.insert(span.span_id.clone(), (span, resource.clone()));
            }
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    /// Answers with its address.
    async fn serve(&self) -> Result<String> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = format!("http://{}", listener.local_addr()?);
        let service = TraceServiceServer::new(self.clone());
        let server = tonic::transport::Server::builder().add_service(service);
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        Ok(address)
    }

    fn all(&self) -> Vec<Told> {
        self.0.lock().expect("no panic").values().cloned().collect()
    }

    /// Names of the spans on the way from one up to what none of them is.
    fn path(&self, span: &Span) -> Vec<String> {
        let all = self.0.lock().expect("no panic");
        let mut path = vec![span.name.clone()];
        let mut at = span;
        while let Some((parent, _)) = all.get(&at.parent_span_id) {
            path.push(parent.name.clone());
            at = parent;
        }
        path.push(hex(&at.parent_span_id));
        path
    }
}

fn hex(id: &[u8]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Tells what a real agent tells of each version that its plan has with a trace, until the rollout is over.
async fn speak_for_the_agent(world: &World) -> Result<()> {
    let mut told: Vec<String> = vec![];
    loop {
        let known = told.clone();
        let news = eventually("a step, or the end", || {
            let known = known.clone();
            async move {
                let status = world.model(NS, "m").await?.status.unwrap_or_default();
                let is_over = status.rollout.is_some_and(|r| r.phase == RolloutPhase::Complete);
                let planned = world.planned("n1", "m").await.unwrap_or_default();
                let news = planned.into_iter().find_map(|version| {
                    let traceparent = version.traceparent.filter(|t| !known.contains(t))?;
                    Some((traceparent, version.digest, version.mode))
                });
                Ok(match (news, is_over) {
                    (None, false) => Err("nothing new".to_owned()),
                    (news, _) => Ok(news),
                })
            }
        })
        .await?;
        let Some((traceparent, digest, mode)) = news else {
            return Ok(());
        };
        told.push(traceparent.clone());
        let now = Timestamp::now().as_microsecond();
        let state = match mode {
            VersionMode::Prefetch => VersionState::Prefetched,
            VersionMode::Shadow => VersionState::Shadow,
            VersionMode::Active => VersionState::Active,
        };
        let version = VersionSpan {
            namespace: NS.to_owned(),
            model: "m".to_owned(),
            digest,
            traceparent,
            state: state.into(),
            start_unix_us: now - 1000,
            end_unix_us: now,
            ..VersionSpan::default()
        };
        // What is no trace of ours is told to nobody.
        let foreign = VersionSpan {
            traceparent: format!("00-{TRACE}-{PARENT}-01"),
            ..version.clone()
        };
        let batch = ReportBatch {
            versions: vec![version, foreign],
            ..ReportBatch::default()
        };
        tell(world, 10 + told.len() as u64, batch).await?;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_trace_shows_the_run_its_job_and_the_swap_on_a_node() -> Result<()> {
    let collector = Collector::default();
    let endpoint = collector.serve().await?;
    let world = World::with(&["n1"], &["--otlp-endpoint", &endpoint]).await?;
    shop(&world).await?;
    let steps = json!([
        {"nodes": 1, "mode": "Shadow", "hold": "2s"},
        {"nodes": "100%", "mode": "Active", "hold": "2s"},
    ]);
    let patch = json!({"spec": {"rollout": {"steps": steps}}});
    world.merge::<Model>(NS, "m", patch).await?;
    let suspend = json!({"spec": {"suspend": true}});
    world.merge::<RetrainingPolicy>(NS, "p", suspend).await?;
    report(&world, 1, &samples(240)).await?;
    let run: TrainingRun = serde_json::from_value(json!({
        "apiVersion": "vigia.dev/v1alpha1", "kind": "TrainingRun",
        "metadata": {"namespace": NS, "name": "p-1", "annotations": {TRACEPARENT: format!("00-{TRACE}-{PARENT}-01")}},
        "spec": {"modelRef": {"name": "m"}, "workers": 1, "data": {"minWindows": 200},
                 "estimator": {"trees": 20, "sampleSize": 32}},
    }))?;
    let runs = Api::namespaced(world.client.clone(), NS);
    runs.create(&PostParams::default(), &run).await?;

    let (trained, spoken) = tokio::join!(
        train(world.client.clone(), world.grpc()),
        speak_for_the_agent(&world)
    );
    trained?;
    spoken?;
    let run = succeeded(&world).await?;
    let status = run.status.context("a status")?;
    ensure!(status.traceparent.is_some_and(|t| t.contains(TRACE)));
    let phases: Vec<_> = status.phases.iter().map(|p| format!("{:?}", p.phase)).collect();
    assert_eq!(
        phases,
        ["Preparing", "Training", "Validating", "Signing", "Succeeded"]
    );

    let expected = [
        "TrainingRun",
        "collect windows",
        "training job",
        "worker",
        "combine",
        "check gates",
        "sign",
        "create ModelVersion",
        "rollout",
        "rollout step",
        "load version",
        "swap version",
    ];
    eventually("all spans are there", || async {
        let names: Vec<String> = collector.all().into_iter().map(|(span, _)| span.name).collect();
        let missing: Vec<_> = expected
            .iter()
            .filter(|n| !names.iter().any(|m| m == *n))
            .collect();
        Ok(if missing.is_empty() {
            Ok(())
        } else {
            Err(format!("{missing:?}"))
        })
    })
    .await?;
    let all = collector.all();
    let mut paths: Vec<String> = all
        .iter()
        .map(|(span, _)| collector.path(span).join(" < "))
        .collect();
    paths.sort();
    for (span, resource) in &all {
        assert_eq!(hex(&span.trace_id), TRACE, "{}", span.name);
        assert!(span.start_time_unix_nano > 0 && span.end_time_unix_nano >= span.start_time_unix_nano);
        assert!(resource.contains_key("service.name"), "{resource:?}");
        assert_eq!(span.status, None, "{}", span.name);
    }
    let root = format!("TrainingRun < {PARENT}");
    let wanted = [
        format!("check gates < {root}"),
        format!("collect windows < {root}"),
        format!("combine < worker < training job < {root}"),
        format!("create ModelVersion < sign < {root}"),
        format!("fit < worker < training job < {root}"),
        format!("load version < rollout step < rollout < {root}"),
        format!("rollout step < rollout < {root}"),
        format!("swap version < rollout step < rollout < {root}"),
    ];
    for path in &wanted {
        assert!(paths.contains(path), "{path} is not in {paths:#?}");
    }
    // What a node said of a trace that is none of its rollout's was told to nobody.
    let direct: Vec<&String> = paths
        .iter()
        .filter(|path| path.matches(" < ").count() == 1 && path.ends_with(PARENT))
        .collect();
    assert_eq!(direct, [&root], "nothing else is a part of the annotation's span");
    assert_eq!(
        paths.iter().filter(|p| p.starts_with("rollout step <")).count(),
        2
    );
    let resource = |name: &str| {
        let found = all.iter().find(|(span, _)| span.name == name);
        found.map(|(_, resource)| resource.clone()).unwrap_or_default()
    };
    assert_eq!(resource("swap version")["k8s.node.name"], "n1");
    assert_eq!(resource("swap version")["service.name"], "vigia-agent");
    assert!(resource("worker")["k8s.pod.name"].starts_with("vigia-train-"));
    assert_eq!(resource("rollout")["service.name"], "vigia-operator");
    eventually("it is over: plans name no trace any more", || async {
        let planned = world.planned("n1", "m").await?;
        let is_silent = planned.iter().all(|version| version.traceparent.is_none());
        Ok(is_silent.then_some(()).ok_or_else(|| format!("{planned:?}")))
    })
    .await
}
