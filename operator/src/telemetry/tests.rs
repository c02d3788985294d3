//! Telemetry against a collector in this process, and against none.

use std::collections::BTreeMap;
use std::time::Duration;

use opentelemetry_proto::tonic::collector::logs::v1::logs_service_server::{LogsService, LogsServiceServer};
use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse};
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::metrics::v1::{metric, number_data_point};
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};
use vigia_proto::v1::{Driver, Sequence, Severity};

use super::*;

fn pod() -> PodView {
    PodView {
        namespace: "shop".to_owned(),
        name: "checkout-1".to_owned(),
        uid: "0f".to_owned(),
        cgroup_uid: "0f".to_owned(),
        node: "n1".to_owned(),
        service_account: String::new(),
        labels: BTreeMap::new(),
        containers: vec![("app".to_owned(), "c0ffee".to_owned())],
        declared: vec!["app".to_owned()],
        ended: false,
    }
}

fn verdict() -> Verdict {
    let driver = |syscall: &str, observed_per_second| Driver {
        syscall: syscall.to_owned(),
        observed_per_second,
        expected_per_second: 0.0,
        failed: syscall == "connect",
        forecast: syscall != "connect",
    };
    Verdict {
        namespace: "shop".to_owned(),
        profile: "checkout".to_owned(),
        model: "m".to_owned(),
        digest: "sha256:00".to_owned(),
        container: "app".to_owned(),
        window_start_unix_ms: 1_795_255_200_000,
        window_ms: 10_000,
        score: 0.97,
        severity: Severity::High.into(),
        consecutive: 2,
        drivers: vec![driver("connect", 45.0), driver("\u{1b}[2Jexecve", 0.5)],
        estimator: "STIDE".to_owned(),
        class: "malicious".to_owned(),
        sequences: vec![Sequence {
            calls: vec!["clone".to_owned(), "\u{1b}[2Jexecve".to_owned()],
            times: 4,
            ..Sequence::default()
        }],
        ..Verdict::default()
    }
}

fn summary(windows: u64) -> Summary {
    Summary {
        namespace: "shop".to_owned(),
        model: "m".to_owned(),
        digest: "sha256:00".to_owned(),
        windows,
        above_threshold: 1,
        ..Summary::default()
    }
}

fn get<'a>(attributes: &'a [KeyValue], key: &str) -> Option<&'a Value> {
    let found = attributes.iter().find(|attribute| attribute.key == key)?;
    found.value.as_ref()?.value.as_ref()
}

fn word(text: &str) -> Option<Value> {
    Some(Value::StringValue(text.to_owned()))
}

#[test]
fn a_budget_that_is_spent_is_a_record_about_its_profile() {
    let now = jiff::Timestamp::from_second(1_795_255_300).expect("a time");
    let told = record::withheld("shop", "checkout", "not told on n1", now);
    let about = told.resource.expect("a resource").attributes;
    assert_eq!(get(&about, "k8s.namespace.name").cloned(), word("shop"));
    let record = &told.scope_logs[0].log_records[0];
    assert_eq!(record.event_name, "vigia.alerts.withheld");
    assert_eq!(record.time_unix_nano, 1_795_255_300_000_000_000);
    assert_eq!(
        get(&record.attributes, "vigia.profile").cloned(),
        word("checkout")
    );
    let body = record.body.clone().and_then(|body| body.value);
    assert_eq!(body, word("not told on n1"));
}

#[test]
fn an_alert_is_a_record_about_its_container() {
    let now = jiff::Timestamp::from_second(1_795_255_300).expect("a time");
    let told = record::alert(
        &verdict(),
        record::container(&verdict(), &pod()),
        "m-v2",
        "words",
        now,
    );
    let about = told.resource.expect("a resource").attributes;
    for (key, value) in [
        ("k8s.namespace.name", "shop"),
        ("k8s.pod.name", "checkout-1"),
        ("k8s.pod.uid", "0f"),
        ("k8s.node.name", "n1"),
        ("k8s.container.name", "app"),
        ("container.id", "c0ffee"),
    ] {
        assert_eq!(get(&about, key).cloned(), word(value), "{key}");
    }
    let record = &told.scope_logs[0].log_records[0];
    assert_eq!(record.event_name, "vigia.syscall.anomaly");
    assert_eq!(record.severity_text, "high");
    assert_eq!(record.time_unix_nano, 1_795_255_210_000_000_000);
    assert_eq!(record.observed_time_unix_nano, 1_795_255_300_000_000_000);
    assert_eq!(
        get(&record.attributes, "vigia.model.version").cloned(),
        word("m-v2")
    );
    assert_eq!(
        get(&record.attributes, "vigia.score"),
        Some(&Value::DoubleValue(0.97))
    );
    assert_eq!(get(&record.attributes, "vigia.estimator").cloned(), word("STIDE"));
    assert_eq!(get(&record.attributes, "vigia.class").cloned(), word("malicious"));
    let unclassed = Verdict {
        class: String::new(),
        ..verdict()
    };
    let told = record::alert(&unclassed, vec![], "m-v2", "words", now);
    let attributes = &told.scope_logs[0].log_records[0].attributes;
    assert!(attributes.iter().all(|a| a.key != "vigia.class"));
    let list = |key: &str| -> Vec<Option<Value>> {
        let Some(Value::ArrayValue(list)) = get(&record.attributes, key) else {
            panic!("{key} is a list");
        };
        list.values.iter().map(|v| v.value.clone()).collect()
    };
    assert_eq!(
        list("vigia.drivers.syscall"),
        [word("connect"), word("[2Jexecve")]
    );
    assert_eq!(
        list("vigia.drivers.failed"),
        [true, false].map(|failed| Some(Value::BoolValue(failed)))
    );
    assert_eq!(
        list("vigia.drivers.forecast"),
        [false, true].map(|forecast| Some(Value::BoolValue(forecast)))
    );
    assert_eq!(list("vigia.sequences.calls"), [word("clone>[2Jexecve")]);
    assert_eq!(list("vigia.sequences.times"), [Some(Value::IntValue(4))]);
    assert_eq!(list("vigia.sequences.seen"), [Some(Value::BoolValue(false))]);
}

#[test]
fn sums_grow_and_their_number_does_not_without_end() {
    let mut sums = Sums::default();
    assert!(sums.metrics(0).is_none());
    assert!(sums.scored(&summary(5)) && sums.scored(&summary(7)) && sums.alert(&verdict()));
    let metrics = sums.metrics(1).expect("metrics");
    let all: BTreeMap<_, _> = metrics.scope_metrics[0]
        .metrics
        .iter()
        .map(|m| {
            let Some(metric::Data::Sum(sum)) = &m.data else {
                panic!("{} is no sum", m.name);
            };
            assert!(sum.is_monotonic);
            (m.name.as_str(), sum.data_points[0].value)
        })
        .collect();
    let count = |n| Some(number_data_point::Value::AsInt(n));
    assert_eq!(
        all,
        BTreeMap::from([
            ("vigia.alerts", count(1)),
            ("vigia.windows", count(12)),
            ("vigia.windows.above_threshold", count(2)),
        ])
    );
    let other = |i: usize| Summary {
        digest: format!("sha256:{i}"),
        ..summary(1)
    };
    let taken = (0..sums::MOST + 10).filter(|&i| sums.scored(&other(i))).count();
    assert_eq!(taken, sums::MOST - 1);
    assert!(sums.scored(&summary(1)), "what is known goes on");
}

/// A collector that hands over what it gets.
#[derive(Clone)]
struct Collector {
    logs: mpsc::UnboundedSender<ExportLogsServiceRequest>,
    sums: mpsc::UnboundedSender<ExportMetricsServiceRequest>,
}

#[tonic::async_trait]
impl LogsService for Collector {
    async fn export(
        &self,
        request: Request<ExportLogsServiceRequest>,
    ) -> Result<Response<ExportLogsServiceResponse>, Status> {
        let _ = self.logs.send(request.into_inner());
        Ok(Response::new(Default::default()))
    }
}

#[tonic::async_trait]
impl MetricsService for Collector {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        let _ = self.sums.send(request.into_inner());
        Ok(Response::new(Default::default()))
    }
}

async fn within<T>(what: &str, work: impl Future<Output = Option<T>>) -> T {
    let limit = Duration::from_secs(60);
    let found = tokio::time::timeout(limit, work).await.ok().flatten();
    found.unwrap_or_else(|| panic!("{what} within a minute"))
}

#[tokio::test]
async fn a_collector_gets_alerts_and_at_the_end_all_that_was_counted() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
    let ((logs, mut got_logs), (sums, mut got_sums)) = (mpsc::unbounded_channel(), mpsc::unbounded_channel());
    let collector = Collector { logs, sums };
    let server = tonic::transport::Server::builder()
        .add_service(LogsServiceServer::new(collector.clone()))
        .add_service(MetricsServiceServer::new(collector))
        .serve_with_incoming(TcpListenerStream::new(listener));
    let server = tokio::spawn(server);
    let shutdown = CancellationToken::new();
    let telemetry = Telemetry::new(&endpoint, None, "vigia-system", "operator-0").expect("an endpoint");
    let work = tokio::spawn(telemetry.clone().run(shutdown.clone()));

    telemetry.scored(&[summary(5)]);
    telemetry.alert(&verdict(), &pod(), "m-v2", "words");
    let got = within("an alert", got_logs.recv()).await;
    assert_eq!(got.resource_logs.len(), 1);
    telemetry.alert_of_no_pod(&verdict(), "n2", "m", "words");
    let mut got = within("an alert of no pod", got_logs.recv()).await;
    let about = got
        .resource_logs
        .remove(0)
        .resource
        .expect("a resource")
        .attributes;
    assert_eq!(
        about.len(),
        1,
        "what an agent says of a pod is in the words alone"
    );
    assert_eq!(get(&about, "k8s.node.name").cloned(), word("n2"));
    shutdown.cancel();
    let found = within("sums", got_sums.recv()).await;
    let metrics = &found.resource_metrics[0].scope_metrics[0].metrics;
    let alerts = metrics.iter().find(|m| m.name == "vigia.alerts").expect("a sum");
    let Some(metric::Data::Sum(sum)) = &alerts.data else {
        panic!("vigia.alerts is no sum");
    };
    assert_eq!(sum.data_points[0].value, Some(number_data_point::Value::AsInt(1)));
    work.await.expect("ends");
    assert_eq!(telemetry.0.expect("on").metrics.sent.get(), 2);
    server.abort();
}

#[tokio::test]
async fn nothing_waits_for_a_collector_that_is_away() {
    // A port that was free a moment ago.
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
    drop(listener);
    let shutdown = CancellationToken::new();
    let telemetry = Telemetry::new(&endpoint, None, "vigia-system", "operator-0").expect("an endpoint");
    let work = tokio::spawn(telemetry.clone().run(shutdown.clone()));
    // Without a pause, so that the exporter has no turn: what does not fit is dropped at once.
    for _ in 0..QUEUE + 100 {
        telemetry.alert(&verdict(), &pod(), "m-v2", "words");
    }
    let told = telemetry.0.clone().expect("on");
    let dropped = |reason| {
        let labels = Dropped {
            signal: "logs",
            reason,
        };
        told.metrics.dropped.get_or_create(&labels).get()
    };
    assert_eq!(dropped("QueueFull"), 100);
    within("the tries end", async {
        while dropped("Unreachable") == 0 {
            tokio::task::yield_now().await;
        }
        Some(())
    })
    .await;
    shutdown.cancel();
    within("the end", async { work.await.ok() }).await;
    assert_eq!(told.metrics.sent.get(), 0);
}

/// The trace that the standard shows, going on.
const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// A run, its Job and a worker of it, one in the other.
fn trace() -> Vec<Span> {
    let parent: TraceParent = PARENT.parse().expect("good");
    let run = parent.child(&["run"]);
    let job = run.child(&["job"]);
    let at = |second: i64| jiff::Timestamp::from_second(1_795_255_200 + second).expect("a time");
    let span = |context, parent, service, name, (start, end)| Span {
        context,
        parent: Some(parent),
        service,
        name,
        start: at(start),
        end: at(end),
        resource: vec![],
        attributes: vec![("vigia.model", "m".to_owned())],
        error: None,
    };
    vec![
        Span {
            resource: vec![("k8s.pod.name", "vigia-train-0".to_owned())],
            ..span(job.child(&["0"]), job, Service::Trainer, "worker", (3, 8))
        },
        span(job, run, Service::Operator, "training job", (2, 9)),
        Span {
            error: Some("a gate\u{1b}[2J fails".to_owned()),
            ..span(run, parent, Service::Operator, "TrainingRun", (0, 10))
        },
    ]
}

#[test]
fn a_span_is_what_otlp_wants() {
    let [worker, job, run] = <[Span; 3]>::try_from(trace()).expect("three");
    let sent = |span: Span| {
        let who = vec![("k8s.pod.name", "operator-0".to_owned())];
        let mut told = span.into_otlp(who);
        (
            told.resource.take().expect("a resource"),
            told.scope_spans.remove(0).spans.remove(0),
        )
    };
    let ((_, job), (about, run)) = (sent(job), sent(run));
    assert_eq!(job.parent_span_id, run.span_id);
    assert_eq!(run.parent_span_id, 0x00f0_67aa_0ba9_02b7_u64.to_be_bytes());
    assert_eq!(
        run.trace_id,
        0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736_u128.to_be_bytes()
    );
    assert_eq!(run.start_time_unix_nano, 1_795_255_200_000_000_000);
    assert_eq!(run.end_time_unix_nano - run.start_time_unix_nano, 10_000_000_000);
    assert_eq!(
        get(&about.attributes, "service.name").cloned(),
        word("vigia-operator")
    );
    let status = run.status.expect("it failed");
    assert_eq!(
        (status.code(), status.message.as_str()),
        (StatusCode::Error, "a gate[2J fails")
    );
    assert_eq!(job.status, None);
    // What ends before it begins does not.
    let (_, odd) = sent(Span {
        end: jiff::Timestamp::UNIX_EPOCH,
        ..worker
    });
    assert_eq!(odd.end_time_unix_nano, odd.start_time_unix_nano);
}

#[tokio::test]
async fn a_trace_that_nobody_wants_to_see_is_not_sent_and_spans_leave_room_for_alerts() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
    let telemetry = Telemetry::new(&endpoint, None, "vigia-system", "operator-0").expect("an endpoint");
    let told = telemetry.0.clone().expect("on");
    let dropped = |signal| {
        let labels = Dropped {
            signal,
            reason: "QueueFull",
        };
        told.metrics.dropped.get_or_create(&labels).get()
    };
    let unsampled: TraceParent = PARENT.replace("-01", "-00").parse().expect("good");
    telemetry.spans(trace().into_iter().map(|span| Span {
        context: unsampled,
        ..span
    }));
    assert_eq!(told.queue.capacity(), QUEUE);
    for _ in 0..QUEUE / 3 {
        telemetry.spans(trace());
    }
    assert_eq!(told.queue.capacity(), QUEUE / 2);
    assert_eq!(dropped("spans"), (QUEUE / 3 * 3 - QUEUE / 2) as u64);
    telemetry.alert(&verdict(), &pod(), "m-v2", "words");
    assert_eq!(dropped("logs"), 0);
    Telemetry::default().spans(trace());
}

/// scripts/otlp.sh starts one, and looks at what it says that it got.
#[tokio::test]
#[ignore = "needs a collector: scripts/otlp.sh"]
async fn a_real_collector_takes_all() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let endpoint = std::env::var("VIGIA_OTLP_COLLECTOR").expect("VIGIA_OTLP_COLLECTOR names it");
    let ca = std::env::var_os("VIGIA_OTLP_CA");
    let shutdown = CancellationToken::new();
    let telemetry = Telemetry::new(
        &endpoint,
        ca.as_deref().map(Path::new),
        "vigia-system",
        "operator-0",
    )
    .expect("an endpoint");
    telemetry.scored(&[summary(5)]);
    telemetry.alert(&verdict(), &pod(), "m-v2", "words");
    let work = tokio::spawn(telemetry.clone().run(shutdown.clone()));
    telemetry.spans(trace());
    let metrics = &telemetry.0.as_ref().expect("on").metrics;
    within("an alert and a trace are taken", async {
        while metrics.sent.get() == 0 || metrics.sent_spans.get() < 3 {
            tokio::task::yield_now().await;
        }
        Some(())
    })
    .await;
    shutdown.cancel();
    within("the end", async { work.await.ok() }).await;
}

#[test]
fn an_endpoint_is_an_address_and_has_what_it_needs() {
    let refused = |endpoint: &str, ca: Option<&str>| {
        let made = Telemetry::new(endpoint, ca.map(Path::new), "vigia-system", "operator-0");
        format!("{:#}", made.map(drop).expect_err("refused"))
    };
    assert!(refused("https://collector:4317", None).contains("certificate of its CA"));
    assert!(refused("collector:4317", None).contains("write http://"));
    assert!(refused("http://collector:4317", Some("/ca.crt")).contains("not https://"));
    assert!(refused("https://collector:4317", Some("/nowhere/ca.crt")).contains("/nowhere/ca.crt"));
    let telemetry = Telemetry::new("", None, "vigia-system", "operator-0").expect("off");
    telemetry.alert(&verdict(), &pod(), "m-v2", "words");
}
