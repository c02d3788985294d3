//! What training pods say that they did, as spans. Names and ids are the operator's; of the caller are times, which stages
//! there were, and why it failed. Pure.

use jiff::Timestamp;
use tonic::Status;
use vigia_proto::MAX_STAGES;
use vigia_proto::v1::{Stage, TraceRequest};

use crate::telemetry::{Service, Span, TraceParent};

/// Longest reason of a failure.
const MAX_ERROR: usize = 1024;
/// A run takes a day at most, and clocks differ.
const MAX_AGE_US: i64 = 25 * 3_600_000_000;

/// A training pod whose run is traced.
#[derive(Clone, Debug, PartialEq)]
pub struct Traced {
    /// The span of its Job.
    pub job: TraceParent,
    /// The pod: `k8s.*`.
    pub pod: Vec<(&'static str, String)>,
    /// UID of the pod.
    pub uid: String,
}

/// The spans of a worker and of its stages.
///
/// # Errors
/// What no worker of the run would say.
pub fn worker(traced: &Traced, request: &TraceRequest, now: Timestamp) -> Result<Vec<Span>, Status> {
    if request.traceparent.parse() != Ok(traced.job) {
        return Err(Status::permission_denied(
            "that is not the trace of this pod's Job",
        ));
    }
    if request.stages.len() > MAX_STAGES || request.error.len() > MAX_ERROR {
        return Err(Status::invalid_argument(format!(
            "at most {MAX_STAGES} stages and {MAX_ERROR} bytes of an error"
        )));
    }
    let now_us = now.as_microsecond();
    let times: Vec<i64> = std::iter::once(request.start_unix_us)
        .chain(request.stages.iter().map(|s| s.end_unix_us))
        .chain([request.end_unix_us])
        .collect();
    if !times.is_sorted() || times.iter().any(|&at| at < now_us.saturating_sub(MAX_AGE_US)) {
        return Err(Status::invalid_argument(
            "times must be in their order, and of the last day",
        ));
    }
    // Nothing is put into the future, whatever a clock says.
    let time = |us: i64| Timestamp::from_microsecond(us.min(now_us)).unwrap_or(now);
    let rank = request.rank.to_string();
    let own = traced.job.child(&["worker", &rank, &traced.uid]);
    let span = |context, parent, name, (start, end): (i64, i64)| Span {
        context,
        parent: Some(parent),
        service: Service::Trainer,
        name,
        start: time(start),
        end: time(end),
        resource: traced.pod.clone(),
        attributes: vec![("vigia.worker.rank", rank.clone())],
        error: None,
    };
    let mut spans = vec![span(
        own,
        traced.job,
        "worker",
        (request.start_unix_us, request.end_unix_us),
    )];
    spans[0].error = (!request.error.is_empty()).then(|| request.error.clone());
    for (i, stage) in request.stages.iter().enumerate() {
        let name = name(stage.stage()).ok_or_else(|| Status::invalid_argument("a stage that is none"))?;
        let context = own.child(&["stage", &i.to_string()]);
        spans.push(span(context, own, name, (times[i], stage.end_unix_us)));
    }
    Ok(spans)
}

const fn name(stage: Stage) -> Option<&'static str> {
    match stage {
        Stage::Unspecified => None,
        Stage::Plan => Some("ask for the plan"),
        Stage::Shard => Some("read the shard"),
        Stage::Moments => Some("sum moments"),
        Stage::Fit => Some("fit"),
        Stage::Contribute => Some("hand over"),
        Stage::Combine => Some("combine"),
        Stage::Submit => Some("submit"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::at;
    use proptest::prelude::*;
    use vigia_proto::v1::StageEnd;

    const NOW: i64 = 1_795_255_300;

    fn traced() -> Traced {
        Traced {
            job: TraceParent::root(&["job"]),
            pod: vec![("k8s.pod.name", "train-1".to_owned())],
            uid: "uid".to_owned(),
        }
    }

    fn request() -> TraceRequest {
        let us = |second: i64| (NOW - 100 + second) * 1_000_000;
        let stage = |stage: Stage, second| StageEnd {
            stage: stage.into(),
            end_unix_us: us(second),
        };
        TraceRequest {
            rank: 1,
            traceparent: traced().job.to_string(),
            start_unix_us: us(0),
            end_unix_us: us(9),
            stages: vec![
                stage(Stage::Plan, 1),
                stage(Stage::Fit, 5),
                stage(Stage::Contribute, 6),
            ],
            error: String::new(),
        }
    }

    #[test]
    fn a_worker_is_a_span_under_its_job_with_one_for_each_stage() {
        let spans = worker(&traced(), &request(), at(NOW)).expect("good");
        let told: Vec<_> = spans
            .iter()
            .map(|s| (s.name, s.start.as_second() - NOW, s.end.as_second() - NOW))
            .collect();
        assert_eq!(
            told,
            [
                ("worker", -100, -91),
                ("ask for the plan", -100, -99),
                ("fit", -99, -95),
                ("hand over", -95, -94)
            ]
        );
        assert_eq!(spans[0].parent, Some(traced().job));
        assert!(spans[1..].iter().all(|s| s.parent == Some(spans[0].context)));
        let ids: std::collections::HashSet<_> = spans.iter().map(|s| s.context).collect();
        assert_eq!(ids.len(), 4);
    }

    #[test]
    fn what_no_worker_says_is_refused() {
        let refused = |change: fn(&mut TraceRequest)| {
            let mut request = request();
            change(&mut request);
            worker(&traced(), &request, at(NOW)).expect_err("refused").code()
        };
        use tonic::Code::{InvalidArgument, PermissionDenied};
        assert_eq!(
            refused(|r| r.traceparent = TraceParent::root(&["other"]).to_string()),
            PermissionDenied
        );
        assert_eq!(refused(|r| r.traceparent = "x".repeat(1 << 20)), PermissionDenied);
        assert_eq!(
            refused(|r| r.stages = vec![r.stages[0]; MAX_STAGES + 1]),
            InvalidArgument
        );
        assert_eq!(refused(|r| r.error = "x".repeat(2000)), InvalidArgument);
        assert_eq!(refused(|r| r.stages[0].stage = 99), InvalidArgument);
        assert_eq!(refused(|r| r.stages.reverse()), InvalidArgument);
        assert_eq!(refused(|r| r.start_unix_us = i64::MIN), InvalidArgument);
        assert_eq!(refused(|r| r.end_unix_us = 0), InvalidArgument);
    }

    proptest! {
        #[test]
        fn whatever_is_said_no_span_lies_in_the_future_or_ends_before_it_begins(
            start: i64, ends in proptest::collection::vec((0i32..9, any::<i64>()), 0..20), end: i64
        ) {
            let stages = ends.into_iter().map(|(stage, end_unix_us)| StageEnd { stage, end_unix_us }).collect();
            let said = TraceRequest { start_unix_us: start, end_unix_us: end, stages, ..request() };
            for span in worker(&traced(), &said, at(NOW)).unwrap_or_default() {
                prop_assert!(span.start <= span.end && span.end <= at(NOW));
            }
        }
    }
}
