//! What ingest counts.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Labels of a count by reason.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Reason {
    /// One CamelCase word.
    pub reason: &'static str,
}

/// Labels of a call.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Call {
    /// The method.
    pub method: &'static str,
    /// The gRPC code of its answer.
    pub code: String,
}

/// The metrics.
#[derive(Clone, Debug, Default)]
pub struct IngestMetrics {
    /// Calls by method and answer.
    pub calls: Family<Call, Counter>,
    /// Samples stored.
    pub samples: Counter,
    /// Windows that were scored, by stored summaries.
    pub windows: Counter,
    /// Alerts told to people.
    pub alerts: Counter,
    /// Items of reports that were left out.
    pub left_out: Family<Reason, Counter>,
    /// Reports of a clock that is too far off.
    pub skewed: Counter,
    /// Whether the store takes nothing for want of space.
    pub store_full: Gauge,
    /// Sample files, their bytes and rows.
    pub store_files: Gauge,
    /// Bytes of sample files.
    pub store_bytes: Gauge,
    /// Rows of sample files.
    pub store_rows: Gauge,
    /// Free bytes of the volume.
    pub store_free: Gauge,
}

impl IngestMetrics {
    /// Registers them.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("calls", "gRPC calls by method and answer", self.calls.clone());
        registry.register("samples", "Feature vectors stored", self.samples.clone());
        registry.register("windows", "Windows scored, as reported", self.windows.clone());
        registry.register("alerts", "Alerts that agents raised", self.alerts.clone());
        registry.register(
            "report_items_left_out",
            "Items of reports that did not hold, by reason",
            self.left_out.clone(),
        );
        registry.register(
            "reports_skewed",
            "Reports of an agent whose clock is too far off; their times were corrected",
            self.skewed.clone(),
        );
        registry.register(
            "store_full",
            "1 while the store has no space and reports are not acknowledged",
            self.store_full.clone(),
        );
        registry.register("store_sample_files", "Sample files", self.store_files.clone());
        registry.register(
            "store_sample_bytes",
            "Bytes of sample files",
            self.store_bytes.clone(),
        );
        registry.register(
            "store_sample_rows",
            "Windows in sample files",
            self.store_rows.clone(),
        );
        registry.register(
            "store_free_bytes",
            "Free bytes of the store's volume",
            self.store_free.clone(),
        );
    }

    /// Counts the answer of a call.
    pub fn answered<T>(&self, method: &'static str, answer: &Result<T, tonic::Status>) {
        let code = answer.as_ref().err().map_or(tonic::Code::Ok, tonic::Status::code);
        let code = format!("{code:?}");
        self.calls.get_or_create(&Call { method, code }).inc();
    }
}
