//! Metrics of the operator, in the OpenMetrics text format.
//!
//! Parts register their own in the one [`Registry`] at their start; what every reconcile does is
//! counted here.

use std::sync::Mutex;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// Labels of what a controller did.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ControllerLabels {
    /// Name of the controller.
    pub controller: &'static str,
    /// How it ended: `ok`, `retry` or `error`.
    pub result: &'static str,
}

/// Labels of how long a controller took.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct DurationLabels {
    /// Name of the controller.
    pub controller: &'static str,
}

/// Labels of a count by reason.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ReasonLabels {
    /// One CamelCase word.
    pub reason: String,
}

/// Labels of a write.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct WriteLabels {
    /// Kind of the object.
    pub kind: String,
    /// `written`, `unchanged`, `conflict` or `error`.
    pub result: &'static str,
}

/// The operator's metrics.
#[derive(Debug)]
pub struct Metrics {
    registry: Mutex<Registry>,
    /// Reconciles by controller and result.
    pub reconciles: Family<ControllerLabels, Counter>,
    /// Seconds that a reconcile took.
    pub reconcile_seconds: Family<DurationLabels, Histogram, fn() -> Histogram>,
    /// Writes to the API server by kind and result.
    pub writes: Family<WriteLabels, Counter>,
    /// Rollouts by the phase or step that they entered.
    pub rollouts: Family<ReasonLabels, Counter>,
    /// Artifacts refused, by reason.
    pub refused: Family<ReasonLabels, Counter>,
    /// Events published, and those held back by the rate limit, by reason.
    pub events: Family<ReasonLabels, Counter>,
    /// Events that were not published because too many concerned one object.
    pub events_suppressed: Counter,
}

fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 4.0, 8))
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("vigia_operator");
        let metrics = Self {
            registry: Mutex::new(Registry::default()),
            reconciles: Family::default(),
            reconcile_seconds: Family::new_with_constructor(seconds),
            writes: Family::default(),
            rollouts: Family::default(),
            refused: Family::default(),
            events: Family::default(),
            events_suppressed: Counter::default(),
        };
        registry.register(
            "reconciles",
            "Reconciles by controller and result",
            metrics.reconciles.clone(),
        );
        registry.register(
            "reconcile_seconds",
            "Seconds that a reconcile took",
            metrics.reconcile_seconds.clone(),
        );
        registry.register(
            "writes",
            "Writes to the API server by kind and result",
            metrics.writes.clone(),
        );
        registry.register("rollouts", "Rollouts by what they did", metrics.rollouts.clone());
        registry.register(
            "artifacts_refused",
            "Artifacts refused, by reason",
            metrics.refused.clone(),
        );
        // A series that begins with its first refusal would be one that never rose.
        for reason in crate::modelversion::REASONS {
            let reason = reason.to_owned();
            metrics.refused.get_or_create(&ReasonLabels { reason }).inc_by(0);
        }
        registry.register("events", "Events published, by reason", metrics.events.clone());
        registry.register(
            "events_suppressed",
            "Events not published because of the rate limit of one object",
            metrics.events_suppressed.clone(),
        );
        Self {
            registry: Mutex::new(registry),
            ..metrics
        }
    }
}

impl Metrics {
    /// Lets a part register metrics of its own.
    pub fn register(&self, with: impl FnOnce(&mut Registry)) {
        with(
            &mut self
                .registry
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner),
        );
    }

    /// Everything as OpenMetrics text.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let registry = self
            .registry
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        // Writing to a String cannot fail; an empty answer would be seen by the scraper.
        let _ = prometheus_client::encoding::text::encode(&mut text, &registry);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_in_the_text() {
        let metrics = Metrics::default();
        metrics
            .reconciles
            .get_or_create(&ControllerLabels {
                controller: "model",
                result: "ok",
            })
            .inc();
        let text = metrics.text();
        assert!(
            text.contains("vigia_operator_reconciles_total{controller=\"model\",result=\"ok\"} 1"),
            "{text}"
        );
        assert!(text.ends_with("# EOF\n"));
    }
}
