//! A span of something that spans processes, as OTLP has it. Pure.

use jiff::Timestamp;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span as OtlpSpan, Status};

use super::TraceParent;
use super::record::{scope, text};

/// Longest description of what went wrong, in characters.
const MAX_ERROR: usize = 512;

/// Whose span it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Service {
    /// The operator.
    Operator,
    /// A training pod.
    Trainer,
    /// The agent of a node.
    Agent,
}

impl Service {
    const fn name(self) -> &'static str {
        match self {
            Self::Operator => "vigia-operator",
            Self::Trainer => "vigia-trainer",
            Self::Agent => "vigia-agent",
        }
    }
}

/// A part of a TrainingRun or of a rollout.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    /// Its trace and its id.
    pub context: TraceParent,
    /// What it is a part of; a root has none.
    pub parent: Option<TraceParent>,
    /// Who did it.
    pub service: Service,
    /// What it is: the same for all of its kind.
    pub name: &'static str,
    /// When it began.
    pub start: Timestamp,
    /// When it ended.
    pub end: Timestamp,
    /// What is said of who did it: `k8s.*`. Of the operator it is known without.
    pub resource: Vec<(&'static str, String)>,
    /// What is said of it.
    pub attributes: Vec<(&'static str, String)>,
    /// Why it failed, where it did.
    pub error: Option<String>,
}

fn nanos(at: Timestamp) -> u64 {
    u64::try_from(at.as_nanosecond()).unwrap_or(0)
}

fn attributes(of: Vec<(&'static str, String)>) -> impl Iterator<Item = KeyValue> {
    of.into_iter().map(|(key, value)| text(key, value))
}

impl Span {
    /// As it is sent, with what else is known of who did it.
    pub(super) fn into_otlp(self, who: Vec<(&'static str, String)>) -> ResourceSpans {
        let service = text("service.name", self.service.name());
        let about = std::iter::once(service)
            .chain(attributes(who))
            .chain(attributes(self.resource));
        // It may be what a training pod said.
        let plain = |why: String| why.chars().filter(|c| !c.is_control()).take(MAX_ERROR).collect();
        let error: Option<String> = self.error.map(plain);
        let span = OtlpSpan {
            trace_id: self.context.trace_id().to_vec(),
            span_id: self.context.span_id().to_vec(),
            parent_span_id: self.parent.map_or(vec![], |p| p.span_id().to_vec()),
            // The sampled bit of W3C.
            flags: u32::from(self.context.is_sampled()),
            name: self.name.to_owned(),
            kind: SpanKind::Internal.into(),
            start_time_unix_nano: nanos(self.start),
            // Clocks differ; nothing ends before it began.
            end_time_unix_nano: nanos(self.end.max(self.start)),
            attributes: attributes(self.attributes).collect(),
            status: error.map(|message| Status {
                message,
                code: StatusCode::Error.into(),
            }),
            ..OtlpSpan::default()
        };
        ResourceSpans {
            resource: Some(Resource {
                attributes: about.collect(),
                ..Resource::default()
            }),
            scope_spans: vec![ScopeSpans {
                scope: Some(scope()),
                spans: vec![span],
                ..ScopeSpans::default()
            }],
            ..ResourceSpans::default()
        }
    }
}
