//! The way to the collector: batches, a few tries each, and nothing that waits for it.

use std::time::Duration;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_client::LogsServiceClient;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_client::MetricsServiceClient;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::tonic::logs::v1::ResourceLogs;
use opentelemetry_proto::tonic::metrics::v1::ResourceMetrics;
use opentelemetry_proto::tonic::trace::v1::ResourceSpans;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::{TelemetryMetrics, Told};

/// How long one call may take.
pub const TIMEOUT: Duration = Duration::from_secs(5);
/// Records and spans sent at once.
const BATCH: usize = 256;
/// How often a batch is tried, and what is waited after the first time; twice as long after each.
const TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_millis(500);
/// How long what is under way may take when the operator ends, and again what is left.
const LAST: Duration = Duration::from_secs(3);
/// How often sums are sent.
const EVERY: Duration = Duration::from_secs(15);

/// What is sent once, and is lost if it is not delivered.
#[derive(Debug)]
pub enum Waiting {
    /// A log record.
    Log(ResourceLogs),
    /// A span.
    Span(ResourceSpans),
}

impl Waiting {
    /// What it is, as metrics name it.
    pub const fn signal(&self) -> &'static str {
        match self {
            Self::Log(_) => LOGS,
            Self::Span(_) => SPANS,
        }
    }
}

/// Things of one kind, as they are sent.
enum Request {
    Logs(ExportLogsServiceRequest),
    Spans(ExportTraceServiceRequest),
}

const LOGS: &str = "logs";
const SPANS: &str = "spans";

/// The clients, over one connection.
pub struct Exporter {
    logs: LogsServiceClient<Channel>,
    spans: TraceServiceClient<Channel>,
    sums: MetricsServiceClient<Channel>,
    metrics: TelemetryMetrics,
    /// The last call failed, which is said once.
    failing: bool,
}

/// Sends what waits until `shutdown`, and then what is left, once.
pub async fn run(
    mut exporter: Exporter,
    mut waiting: mpsc::Receiver<Waiting>,
    told: &Told,
    shutdown: CancellationToken,
) {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut batch = Vec::with_capacity(BATCH);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => break,
            count = waiting.recv_many(&mut batch, BATCH) => {
                if count == 0 {
                    return;
                }
                let batch = std::mem::take(&mut batch);
                until_the_end(&shutdown, exporter.send(batch)).await;
            }
            _ = ticks.tick() => {
                let sums = told.sums().metrics(jiff::Timestamp::now().as_millisecond());
                if let Some(sums) = sums {
                    until_the_end(&shutdown, exporter.send_sums(sums)).await;
                }
            }
        }
    }
    waiting.close();
    while let Ok(one) = waiting.try_recv() {
        batch.push(one);
    }
    let last = async {
        exporter.send(batch).await;
        let sums = told.sums().metrics(jiff::Timestamp::now().as_millisecond());
        if let Some(sums) = sums {
            exporter.send_sums(sums).await;
        }
    };
    // What is not delivered by then is lost with this process and its counters.
    let _ = timeout(LAST, last).await;
}

/// Whatever a collector does, it does not hold up the end of the operator.
async fn until_the_end(shutdown: &CancellationToken, work: impl Future<Output = ()>) {
    let cut = async {
        shutdown.cancelled().await;
        tokio::time::sleep(LAST).await;
    };
    tokio::select! {
        () = work => {}
        () = cut => {}
    }
}

/// Whether OTLP says that the same may be sent again.
fn passes(code: Code) -> bool {
    matches!(
        code,
        Code::Cancelled
            | Code::DeadlineExceeded
            | Code::ResourceExhausted
            | Code::Aborted
            | Code::OutOfRange
            | Code::Unavailable
            | Code::DataLoss
    )
}

impl Exporter {
    /// Clients over a connection.
    pub fn new(channel: Channel, metrics: TelemetryMetrics) -> Self {
        Self {
            logs: LogsServiceClient::new(channel.clone()),
            spans: TraceServiceClient::new(channel.clone()),
            sums: MetricsServiceClient::new(channel),
            metrics,
            failing: false,
        }
    }

    async fn send(&mut self, batch: Vec<Waiting>) {
        let (mut records, mut spans) = (vec![], vec![]);
        for one in batch {
            match one {
                Waiting::Log(record) => records.push(record),
                Waiting::Span(span) => spans.push(span),
            }
        }
        self.deliver(Request::Logs(ExportLogsServiceRequest {
            resource_logs: records,
        }))
        .await;
        self.deliver(Request::Spans(ExportTraceServiceRequest {
            resource_spans: spans,
        }))
        .await;
    }

    /// How many of a request's things the collector rejects, and why.
    async fn call(&mut self, request: &Request) -> Result<(i64, String), Status> {
        match request {
            Request::Logs(request) => {
                let answer = self.logs.export(request.clone()).await?.into_inner();
                let partial = answer.partial_success.unwrap_or_default();
                Ok((partial.rejected_log_records, partial.error_message))
            }
            Request::Spans(request) => {
                let answer = self.spans.export(request.clone()).await?.into_inner();
                let partial = answer.partial_success.unwrap_or_default();
                Ok((partial.rejected_spans, partial.error_message))
            }
        }
    }

    /// Tries a request a few times, and counts what became of the things in it.
    async fn deliver(&mut self, request: Request) {
        let (signal, count, sent) = match &request {
            Request::Logs(logs) => (LOGS, logs.resource_logs.len() as u64, self.metrics.sent.clone()),
            Request::Spans(spans) => (
                SPANS,
                spans.resource_spans.len() as u64,
                self.metrics.sent_spans.clone(),
            ),
        };
        if count == 0 {
            return;
        }
        let mut pause = PAUSE;
        for attempt in 1..=TRIES {
            let answer = self.call(&request).await;
            self.note(answer.as_ref().err());
            match answer {
                Ok((rejected, why)) => {
                    let rejected = u64::try_from(rejected).unwrap_or(0).min(count);
                    if rejected > 0 {
                        tracing::warn!(signal, rejected, why, "the OTLP collector rejects some");
                        self.metrics.drop(signal, "Rejected", rejected);
                    }
                    sent.inc_by(count - rejected);
                    return;
                }
                Err(status) if !passes(status.code()) => {
                    self.metrics.drop(signal, "Refused", count);
                    return;
                }
                Err(_) if attempt < TRIES => {
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                }
                Err(_) => {}
            }
        }
        self.metrics.drop(signal, "Unreachable", count);
    }

    /// Once: the next sums hold these.
    async fn send_sums(&mut self, sums: ResourceMetrics) {
        let request = ExportMetricsServiceRequest {
            resource_metrics: vec![sums],
        };
        let answer = self.sums.export(request).await;
        self.note(answer.as_ref().err());
        let partial = answer.ok().and_then(|answer| answer.into_inner().partial_success);
        let rejected = partial.map_or(0, |p| u64::try_from(p.rejected_data_points).unwrap_or(0));
        if rejected > 0 {
            self.metrics.drop("metrics", "Rejected", rejected);
        }
    }

    /// Says that the collector fails, and that it is back, once each.
    fn note(&mut self, error: Option<&Status>) {
        match error {
            Some(error) if !self.failing => {
                tracing::warn!(%error, "the OTLP collector takes nothing; alerts go on without it");
            }
            None if self.failing => tracing::info!("the OTLP collector is back"),
            _ => {}
        }
        self.failing = error.is_some();
    }
}
