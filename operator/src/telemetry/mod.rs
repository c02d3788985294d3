//! Alerts, windows and traces for an OpenTelemetry collector: OTLP logs, metrics and spans over gRPC, where an endpoint is
//! named.
//!
//! The operator sends them, not agents and training pods: it knows the pods, and the collector's address and certificate
//! are then on one node. What those did comes with what they report anyway. Nothing waits for a collector: what is said
//! goes into a queue of a fixed length, and what finds no place in it, or is not taken after a few tries, is dropped and
//! counted. A metric is a sum since the start, so that one that was not delivered is made up for by the next.

mod export;
mod record;
mod span;
mod sums;
mod traceparent;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use vigia_proto::v1::Verdict;

use crate::pods::PodView;
use crate::store::Summary;
use export::{Exporter, Waiting};
use sums::Sums;

pub use span::{Service, Span};
pub use traceparent::TraceParent;

/// Alerts and spans that wait.
const QUEUE: usize = 1024;

/// Labels of what was dropped.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Dropped {
    /// `logs`, `metrics` or `spans`.
    pub signal: &'static str,
    /// One CamelCase word.
    pub reason: &'static str,
}

/// What is counted of it.
#[derive(Clone, Debug, Default)]
pub struct TelemetryMetrics {
    /// Records that the collector took.
    pub sent: Counter,
    /// Spans that it took.
    pub sent_spans: Counter,
    /// Records, spans and series that it did not get.
    pub dropped: Family<Dropped, Counter>,
}

impl TelemetryMetrics {
    fn drop(&self, signal: &'static str, reason: &'static str, count: u64) {
        self.dropped
            .get_or_create(&Dropped { signal, reason })
            .inc_by(count);
    }

    fn register(&self, registry: &mut Registry) {
        registry.register(
            "otlp_sent",
            "Log records that the OTLP collector took",
            self.sent.clone(),
        );
        registry.register(
            "otlp_spans_sent",
            "Spans that the OTLP collector took",
            self.sent_spans.clone(),
        );
        registry.register(
            "otlp_dropped",
            "Log records, spans and metric series that the OTLP collector did not get, by reason",
            self.dropped.clone(),
        );
    }
}

/// Where alerts and windows are told. Without an endpoint it tells nobody.
#[derive(Clone, Default)]
pub struct Telemetry(Option<Arc<Told>>);

struct Told {
    queue: mpsc::Sender<Waiting>,
    sums: Mutex<Sums>,
    metrics: TelemetryMetrics,
    /// The operator's own namespace and pod.
    own: [(&'static str, String); 2],
    /// What [`Telemetry::run`] takes.
    work: Mutex<Option<(Exporter, mpsc::Receiver<Waiting>)>>,
}

impl Telemetry {
    /// A way to tell the collector at `endpoint`; nobody is told where it is empty. `namespace` and `pod` are the
    /// operator's own.
    ///
    /// # Errors
    /// No address, or no readable certificate.
    pub fn new(endpoint: &str, ca: Option<&Path>, namespace: &str, pod: &str) -> anyhow::Result<Self> {
        if endpoint.is_empty() {
            return Ok(Self(None));
        }
        let channel = connect(endpoint, ca).with_context(|| format!("OTLP endpoint {endpoint}"))?;
        let metrics = TelemetryMetrics::default();
        let (queue, waiting) = mpsc::channel(QUEUE);
        let exporter = Exporter::new(channel, metrics.clone());
        Ok(Self(Some(Arc::new(Told {
            queue,
            sums: Mutex::default(),
            metrics,
            own: [
                ("k8s.namespace.name", namespace.to_owned()),
                ("k8s.pod.name", pod.to_owned()),
            ],
            work: Mutex::new(Some((exporter, waiting))),
        }))))
    }

    /// Sends what is told until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        let work = self.0.as_ref().and_then(|told| {
            let mut work = told.work.lock().unwrap_or_else(PoisonError::into_inner);
            work.take()
        });
        match (&self.0, work) {
            (Some(told), Some((exporter, waiting))) => export::run(exporter, waiting, told, shutdown).await,
            _ => shutdown.cancelled().await,
        }
    }

    /// Registers what is counted, where there is something to count.
    pub fn register(&self, registry: &mut Registry) {
        if let Some(told) = &self.0 {
            told.metrics.register(registry);
        }
    }

    /// Tells an alert about a pod's container, in the words of its Event.
    pub fn alert(&self, verdict: &Verdict, pod: &PodView, version: &str, words: &str) {
        let Some(told) = &self.0 else { return };
        let now = jiff::Timestamp::now();
        if !told.sums().alert(verdict) {
            told.metrics.drop("metrics", "TooManySeries", 1);
        }
        let record = record::alert(verdict, record::container(verdict, pod), version, words, now);
        told.put(Waiting::Log(record));
    }

    /// Tells an alert about a pod that the node does not have. It counts for no sum: whose it is nobody but the agent says.
    pub fn alert_of_no_pod(&self, verdict: &Verdict, node: &str, version: &str, words: &str) {
        let Some(told) = &self.0 else { return };
        let record = record::alert(
            verdict,
            record::node(node),
            version,
            words,
            jiff::Timestamp::now(),
        );
        told.put(Waiting::Log(record));
    }

    /// Tells that a profile's alerts begin to be held back, in the words of its Event.
    pub fn withheld(&self, namespace: &str, profile: &str, words: &str) {
        let Some(told) = &self.0 else { return };
        let now = jiff::Timestamp::now();
        told.put(Waiting::Log(record::withheld(namespace, profile, words, now)));
    }

    /// Whether anybody is told.
    pub const fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Tells spans, of traces that somebody wants to see.
    pub fn spans(&self, spans: impl IntoIterator<Item = Span>) {
        let Some(told) = &self.0 else { return };
        for span in spans.into_iter().filter(|span| span.context.is_sampled()) {
            let own = told.own.iter().filter(|_| span.service == Service::Operator);
            let own = own.cloned().collect();
            told.put(Waiting::Span(span.into_otlp(own)));
        }
    }

    /// Counts windows that were scored.
    pub fn scored(&self, summaries: &[Summary]) {
        let Some(told) = &self.0 else { return };
        let mut sums = told.sums();
        let left_out = summaries.iter().filter(|summary| !sums.scored(summary)).count();
        drop(sums);
        if left_out > 0 {
            told.metrics.drop("metrics", "TooManySeries", left_out as u64);
        }
    }
}

impl Told {
    /// Half of the queue is for alerts alone: a rollout over many nodes must cost none.
    fn put(&self, one: Waiting) {
        let signal = one.signal();
        let has_place = matches!(one, Waiting::Log(_)) || self.queue.capacity() > QUEUE / 2;
        if !has_place || self.queue.try_send(one).is_err() {
            self.metrics.drop(signal, "QueueFull", 1);
        }
    }

    fn sums(&self) -> std::sync::MutexGuard<'_, Sums> {
        self.sums.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Connects at the first use, and again after each loss.
fn connect(endpoint: &str, ca: Option<&Path>) -> anyhow::Result<Channel> {
    let mut to = Endpoint::from_shared(endpoint.to_owned())?
        .connect_timeout(export::TIMEOUT)
        .timeout(export::TIMEOUT);
    match (to.uri().scheme_str(), ca) {
        (Some("http"), None) => {}
        (Some("http"), Some(_)) => anyhow::bail!("it has a CA certificate, but is not https://"),
        (Some("https"), None) => {
            anyhow::bail!("https:// needs the certificate of its CA: name a file of it")
        }
        (Some("https"), Some(ca)) => {
            let pem = std::fs::read(ca).with_context(|| ca.display().to_string())?;
            to = to.tls_config(ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem)))?;
        }
        _ => anyhow::bail!("write http://HOST:PORT or https://HOST:PORT, such as http://otel-collector:4317"),
    }
    Ok(to.connect_lazy())
}

#[cfg(test)]
mod tests;
