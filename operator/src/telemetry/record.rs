//! An alert as a log record, by OpenTelemetry's semantic conventions: the resource is the container that it is about.
//! Pure.

use jiff::Timestamp;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs, SeverityNumber};
use opentelemetry_proto::tonic::resource::v1::Resource;
use vigia_proto::v1::{Severity, Verdict};

use crate::pods::PodView;

/// The event's name.
pub const EVENT: &str = "vigia.syscall.anomaly";
/// Where alerts begin to be held back.
pub const WITHHELD: &str = "vigia.alerts.withheld";

/// Who says it.
pub fn scope() -> InstrumentationScope {
    InstrumentationScope {
        name: "vigia".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    }
}

/// An attribute.
pub fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}

/// An attribute that is text.
pub fn text(key: &str, value: impl Into<String>) -> KeyValue {
    attribute(key, Value::StringValue(value.into()))
}

/// Nanoseconds since 1970 of milliseconds; 0, which is "unknown", for what lies before.
pub fn nanos(unix_ms: i64) -> u64 {
    u64::try_from(unix_ms).unwrap_or(0).saturating_mul(1_000_000)
}

/// How grave, as the API says it.
pub fn severity(verdict: &Verdict) -> &'static str {
    match verdict.severity() {
        Severity::High => "high",
        Severity::Medium => "medium",
        Severity::Low | Severity::Unspecified => "low",
    }
}

fn array(values: impl Iterator<Item = Value>) -> Value {
    let value = |value| AnyValue { value: Some(value) };
    Value::ArrayValue(ArrayValue {
        values: values.map(value).collect(),
    })
}

/// What an alert is about. What an agent sent is not trusted: pod, namespace and node are the API server's.
pub fn container(verdict: &Verdict, pod: &PodView) -> Vec<KeyValue> {
    let mut about = vec![
        text("k8s.namespace.name", &pod.namespace),
        text("k8s.pod.name", &pod.name),
        text("k8s.pod.uid", &pod.uid),
        text("k8s.node.name", &pod.node),
        text("k8s.container.name", &verdict.container),
    ];
    let id = pod.containers.iter().find(|(name, _)| *name == verdict.container);
    about.extend(id.map(|(_, id)| text("container.id", id)));
    about
}

/// The same of an alert about a pod that the node does not have: the node alone is known.
pub fn node(name: &str) -> Vec<KeyValue> {
    vec![text("k8s.node.name", name)]
}

/// The record of an alert.
pub fn alert(
    verdict: &Verdict,
    about: Vec<KeyValue>,
    version: &str,
    words: &str,
    now: Timestamp,
) -> ResourceLogs {
    let drivers = || verdict.drivers.iter();
    let rates =
        |rate: fn(&vigia_proto::v1::Driver) -> f64| array(drivers().map(rate).map(Value::DoubleValue));
    let names = drivers().map(|d| Value::StringValue(crate::alert::syscall(d)));
    let sequences = || verdict.sequences.iter().map(crate::alert::sequence);
    let calls = sequences().map(|one| Value::StringValue(one.calls.join(">")));
    let end = nanos(verdict.window_start_unix_ms.saturating_add(verdict.window_ms));
    let number = match verdict.severity() {
        Severity::High => SeverityNumber::Error,
        Severity::Medium => SeverityNumber::Warn2,
        Severity::Low | Severity::Unspecified => SeverityNumber::Warn,
    };
    // Estimators that know no classes say none.
    let class = Some(crate::alert::class(verdict)).filter(|class| !class.is_empty());
    let mut record = LogRecord {
        time_unix_nano: end,
        observed_time_unix_nano: nanos(now.as_millisecond()),
        severity_number: number.into(),
        severity_text: severity(verdict).to_owned(),
        event_name: EVENT.to_owned(),
        body: Some(AnyValue {
            value: Some(Value::StringValue(words.to_owned())),
        }),
        attributes: vec![
            text("vigia.profile", &verdict.profile),
            text("vigia.model", &verdict.model),
            text("vigia.model.version", version),
            text("vigia.model.digest", &verdict.digest),
            text("vigia.estimator", crate::alert::estimator(verdict)),
            attribute("vigia.score", Value::DoubleValue(verdict.score)),
            attribute("vigia.p_value", Value::DoubleValue(verdict.p_value)),
            attribute("vigia.threshold", Value::DoubleValue(verdict.threshold)),
            attribute("vigia.window.duration_ms", Value::IntValue(verdict.window_ms)),
            attribute(
                "vigia.windows.consecutive",
                Value::IntValue(verdict.consecutive.into()),
            ),
            attribute("vigia.drivers.syscall", array(names)),
            attribute(
                "vigia.drivers.observed_per_second",
                rates(|d| d.observed_per_second),
            ),
            attribute(
                "vigia.drivers.expected_per_second",
                rates(|d| d.expected_per_second),
            ),
            attribute(
                "vigia.drivers.failed",
                array(drivers().map(|d| Value::BoolValue(d.failed))),
            ),
            attribute(
                "vigia.drivers.forecast",
                array(drivers().map(|d| Value::BoolValue(d.forecast))),
            ),
            attribute("vigia.sequences.calls", array(calls)),
            attribute(
                "vigia.sequences.times",
                array(sequences().map(|one| Value::IntValue(one.times.into()))),
            ),
            attribute(
                "vigia.sequences.seen",
                array(sequences().map(|one| Value::BoolValue(one.seen))),
            ),
        ],
        ..LogRecord::default()
    };
    record
        .attributes
        .extend(class.map(|class| text("vigia.class", class)));
    of_resource(about, record)
}

/// The record of an alert budget that is spent: which profile's, and in the Event's words, on which nodes.
pub fn withheld(namespace: &str, profile: &str, words: &str, now: Timestamp) -> ResourceLogs {
    let at = nanos(now.as_millisecond());
    let record = LogRecord {
        time_unix_nano: at,
        observed_time_unix_nano: at,
        severity_number: SeverityNumber::Warn.into(),
        severity_text: "WARN".to_owned(),
        event_name: WITHHELD.to_owned(),
        body: Some(AnyValue {
            value: Some(Value::StringValue(words.to_owned())),
        }),
        attributes: vec![text("vigia.profile", profile)],
        ..LogRecord::default()
    };
    of_resource(vec![text("k8s.namespace.name", namespace)], record)
}

fn of_resource(about: Vec<KeyValue>, record: LogRecord) -> ResourceLogs {
    ResourceLogs {
        resource: Some(Resource {
            attributes: about,
            ..Resource::default()
        }),
        scope_logs: vec![ScopeLogs {
            scope: Some(scope()),
            log_records: vec![record],
            ..ScopeLogs::default()
        }],
        ..ResourceLogs::default()
    }
}
