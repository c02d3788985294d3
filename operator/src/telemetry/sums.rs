//! Sums since the start, as OTLP metrics. Pure.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, metric,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use vigia_proto::v1::Verdict;

use super::record::{nanos, scope, severity, text};
use crate::alert::estimator;
use crate::store::Summary;

/// Series of one metric. A Model that is trained each day makes one a day.
pub const MOST: usize = 4096;

/// What series of windows are told apart by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Version {
    namespace: String,
    model: String,
    digest: String,
}

/// What series of alerts are told apart by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Alerts {
    namespace: String,
    profile: String,
    model: String,
    severity: &'static str,
    estimator: &'static str,
}

#[derive(Clone, Copy, Debug, Default)]
struct Windows {
    scored: u64,
    above: u64,
}

/// All sums.
#[derive(Debug)]
pub struct Sums {
    since_ms: i64,
    windows: BTreeMap<Version, Windows>,
    alerts: BTreeMap<Alerts, u64>,
}

impl Default for Sums {
    fn default() -> Self {
        Self {
            since_ms: jiff::Timestamp::now().as_millisecond(),
            windows: BTreeMap::new(),
            alerts: BTreeMap::new(),
        }
    }
}

/// The place of a key, where there is one or room for one.
fn place<K: Ord, V: Default>(all: &mut BTreeMap<K, V>, key: K) -> Option<&mut V> {
    if all.len() >= MOST && !all.contains_key(&key) {
        return None;
    }
    Some(all.entry(key).or_default())
}

impl Sums {
    /// Counts an alert; says whether there was room.
    pub fn alert(&mut self, verdict: &Verdict) -> bool {
        let key = Alerts {
            namespace: verdict.namespace.clone(),
            profile: verdict.profile.clone(),
            model: verdict.model.clone(),
            severity: severity(verdict),
            estimator: estimator(verdict),
        };
        place(&mut self.alerts, key)
            .map(|count| *count = count.saturating_add(1))
            .is_some()
    }

    /// Counts windows; says whether there was room.
    pub fn scored(&mut self, summary: &Summary) -> bool {
        let key = Version {
            namespace: summary.namespace.clone(),
            model: summary.model.clone(),
            digest: summary.digest.clone(),
        };
        let Some(windows) = place(&mut self.windows, key) else {
            return false;
        };
        windows.scored = windows.scored.saturating_add(summary.windows);
        windows.above = windows.above.saturating_add(summary.above_threshold);
        true
    }

    /// The sums at a time, if there are any.
    pub fn metrics(&self, now_ms: i64) -> Option<ResourceMetrics> {
        let point = |attributes: Vec<KeyValue>, value: u64| NumberDataPoint {
            attributes,
            start_time_unix_nano: nanos(self.since_ms),
            time_unix_nano: nanos(now_ms),
            value: Some(Value::AsInt(i64::try_from(value).unwrap_or(i64::MAX))),
            ..NumberDataPoint::default()
        };
        let windows = |of: fn(&Windows) -> u64| {
            let all = self.windows.iter();
            all.map(|(key, sums)| point(key.attributes(), of(sums))).collect()
        };
        let alerts = self
            .alerts
            .iter()
            .map(|(key, count)| point(key.attributes(), *count))
            .collect();
        let metrics: Vec<Metric> = [
            sum(
                "vigia.windows",
                "{window}",
                "Windows scored",
                windows(|w| w.scored),
            ),
            sum(
                "vigia.windows.above_threshold",
                "{window}",
                "Windows above the alert threshold, whether or not they became an alert",
                windows(|w| w.above),
            ),
            sum("vigia.alerts", "{alert}", "Alerts", alerts),
        ]
        .into_iter()
        .flatten()
        .collect();
        (!metrics.is_empty()).then(|| ResourceMetrics {
            resource: Some(Resource {
                attributes: vec![
                    text("service.name", "vigia-operator"),
                    text("service.version", env!("CARGO_PKG_VERSION")),
                ],
                ..Resource::default()
            }),
            scope_metrics: vec![ScopeMetrics {
                scope: Some(scope()),
                metrics,
                ..ScopeMetrics::default()
            }],
            ..ResourceMetrics::default()
        })
    }
}

impl Version {
    fn attributes(&self) -> Vec<KeyValue> {
        vec![
            text("k8s.namespace.name", &self.namespace),
            text("vigia.model", &self.model),
            text("vigia.model.digest", &self.digest),
        ]
    }
}

impl Alerts {
    fn attributes(&self) -> Vec<KeyValue> {
        vec![
            text("k8s.namespace.name", &self.namespace),
            text("vigia.profile", &self.profile),
            text("vigia.model", &self.model),
            text("vigia.severity", self.severity),
            text("vigia.estimator", self.estimator),
        ]
    }
}

fn sum(name: &str, unit: &str, description: &str, points: Vec<NumberDataPoint>) -> Option<Metric> {
    (!points.is_empty()).then(|| Metric {
        name: name.to_owned(),
        unit: unit.to_owned(),
        description: description.to_owned(),
        data: Some(metric::Data::Sum(Sum {
            data_points: points,
            aggregation_temporality: AggregationTemporality::Cumulative.into(),
            is_monotonic: true,
        })),
        ..Metric::default()
    })
}
