//! A run as a span, with a child for each of its phases. Pure.
//!
//! When a phase began is in the status, and ids follow from the run's UID, so whoever takes a run over says the same spans.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::ResourceExt;
use vigia_crds::conditions::{self, READY};
use vigia_crds::{PhaseBegun, RunPhase, TrainingRun, TrainingRunStatus};

use super::job;
use crate::telemetry::{Service, Span, TraceParent};

/// The run's span, as its status has it.
pub(super) fn of(status: &TrainingRunStatus) -> Option<TraceParent> {
    TraceParent::remembered(status.traceparent.as_deref())
}

/// The span of a phase.
pub(super) fn of_phase(run: TraceParent, phase: RunPhase) -> TraceParent {
    run.child(&["phase", name(phase)])
}

/// The span that the run's Job is.
pub fn of_job(status: &TrainingRunStatus) -> Option<TraceParent> {
    Some(of_phase(of(status)?, RunPhase::Training))
}

const fn name(phase: RunPhase) -> &'static str {
    match phase {
        RunPhase::Queued => "wait for its turn",
        RunPhase::Preparing => "collect windows",
        RunPhase::Training => "training job",
        RunPhase::Validating => "check gates",
        RunPhase::Signing => "sign",
        RunPhase::Succeeded | RunPhase::Failed => "end",
    }
}

/// Notes in the next status when its phase began; answers the spans that end with this. With `is_on` a run that begins
/// is traced.
pub(super) fn note(
    run: &TrainingRun,
    from: &TrainingRunStatus,
    to: &mut TrainingRunStatus,
    is_on: bool,
    now: Timestamp,
) -> Vec<Span> {
    let Some(phase) = to.phase.filter(|_| from.phase != to.phase) else {
        return vec![];
    };
    if is_on && from.phase.is_none() {
        let uid = run.uid().unwrap_or_default();
        let names = ["TrainingRun", uid.as_str()];
        let parent = TraceParent::annotated(run).ok().flatten();
        let own = parent.map_or_else(|| TraceParent::root(&names), |parent| parent.child(&names));
        to.traceparent = Some(own.to_string());
    }
    // What is written must equal what is read back.
    let now = Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now);
    // One that a run comes back to began when it did so first.
    if to.phases.iter().all(|begun| begun.phase != phase) {
        to.phases.push(PhaseBegun {
            phase,
            at: MicroTime(now),
        });
    }
    let Some(own) = of(to) else { return vec![] };
    let is_failed = phase == RunPhase::Failed;
    let message = conditions::find(&to.conditions, READY).map(|c| c.message.clone());
    let error = message.filter(|_| is_failed);
    let mut spans = vec![];
    if let Some(begun) = from.phases.last().filter(|p| Some(p.phase) == from.phase) {
        let job = (begun.phase == RunPhase::Training).then(|| ("k8s.job.name", job::name(run)));
        spans.push(Span {
            context: of_phase(own, begun.phase),
            parent: Some(own),
            service: Service::Operator,
            name: name(begun.phase),
            start: begun.at.0,
            end: now,
            resource: vec![],
            attributes: about(run).into_iter().chain(job).collect(),
            error: error.clone(),
        });
    }
    if matches!(phase, RunPhase::Succeeded | RunPhase::Failed) {
        spans.push(Span {
            context: own,
            parent: TraceParent::annotated(run)
                .ok()
                .flatten()
                .filter(|p| p.is_beside(&own)),
            service: Service::Operator,
            name: "TrainingRun",
            start: to.phases.first().map_or(now, |first| first.at.0),
            end: now,
            resource: vec![],
            attributes: result(run, to),
            error,
        });
    }
    spans
}

/// The span of making the ModelVersion.
pub(super) fn version_made(
    run: &TrainingRun,
    status: &TrainingRunStatus,
    (version, digest): (&str, &str),
    (start, end): (Timestamp, Timestamp),
) -> Option<Span> {
    let signing = of_phase(of(status)?, RunPhase::Signing);
    let mut attributes = about(run);
    attributes.push(("vigia.model.version", version.to_owned()));
    attributes.push(("vigia.model.digest", digest.to_owned()));
    Some(Span {
        context: signing.child(&["ModelVersion"]),
        parent: Some(signing),
        service: Service::Operator,
        name: "create ModelVersion",
        start,
        end,
        resource: vec![],
        attributes,
        error: None,
    })
}

fn about(run: &TrainingRun) -> Vec<(&'static str, String)> {
    vec![
        ("k8s.namespace.name", run.namespace().unwrap_or_default()),
        ("vigia.training_run", run.name_any()),
        ("vigia.training_run.uid", run.uid().unwrap_or_default()),
        ("vigia.model", run.spec.model_ref.name.clone()),
    ]
}

fn result(run: &TrainingRun, status: &TrainingRunStatus) -> Vec<(&'static str, String)> {
    let mut about = about(run);
    about.push(("vigia.training_run.reason", run.spec.reason.clone()));
    about.push(("vigia.training_run.windows", status.windows.to_string()));
    let texts = [
        ("vigia.data.digest", &status.data_digest),
        ("vigia.model.version", &status.model_version),
    ];
    about.extend(
        texts
            .into_iter()
            .filter_map(|(key, text)| Some((key, text.clone()?))),
    );
    about
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::at;
    use crate::trainingrun::status::{failed, succeeded};
    use serde_json::json;
    use vigia_crds::TRACEPARENT;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn run(annotation: Option<&str>) -> TrainingRun {
        serde_json::from_value(json!({
            "apiVersion": "vigia.dev/v1alpha1", "kind": "TrainingRun",
            "metadata": {"name": "r", "namespace": "shop", "uid": "u", "annotations": {TRACEPARENT: annotation.unwrap_or("")}},
            "spec": {"modelRef": {"name": "m"}, "reason": "ColdStart"},
        }))
        .expect("a TrainingRun")
    }

    /// What is said on a run's way through all phases.
    fn story(run: &TrainingRun, is_on: bool) -> (TrainingRunStatus, Vec<Span>) {
        let mut status = TrainingRunStatus::default();
        let mut spans = vec![];
        let phases = [
            RunPhase::Preparing,
            RunPhase::Training,
            RunPhase::Validating,
            RunPhase::Signing,
        ];
        for (i, phase) in (1..).zip(phases) {
            let mut to = TrainingRunStatus {
                phase: Some(phase),
                ..status.clone()
            };
            spans.extend(note(run, &status, &mut to, is_on, at(i * 10)));
            // Written again without a change of phase.
            assert!(note(run, &to.clone(), &mut to, is_on, at(i * 10 + 1)).is_empty());
            status = to;
        }
        let mut to = succeeded(&status, "m-v1", 1, at(50));
        spans.extend(note(run, &status, &mut to, is_on, at(50)));
        (to, spans)
    }

    #[test]
    fn a_run_is_a_span_with_one_for_each_phase() {
        let (status, spans) = story(&run(None), true);
        let own = of(&status).expect("traced");
        let told: Vec<_> = spans
            .iter()
            .map(|s| (s.name, s.start.as_second(), s.end.as_second(), s.parent))
            .collect();
        assert_eq!(
            told,
            [
                ("collect windows", 10, 20, Some(own)),
                ("training job", 20, 30, Some(own)),
                ("check gates", 30, 40, Some(own)),
                ("sign", 40, 50, Some(own)),
                ("TrainingRun", 10, 50, None),
            ]
        );
        assert_eq!(spans[4].context, own);
        assert_eq!(Some(spans[1].context), of_job(&status));
        assert!(
            spans
                .iter()
                .all(|s| s.context.is_beside(&own) && s.error.is_none())
        );
        assert!(
            spans[1]
                .attributes
                .contains(&("k8s.job.name", "vigia-train-u".to_owned()))
        );
        assert!(
            spans[4]
                .attributes
                .contains(&("vigia.model.version", "m-v1".to_owned()))
        );
        // Whoever comes after a kill says the same.
        assert_eq!(story(&run(None), true), (status, spans));
    }

    #[test]
    fn a_run_is_a_part_of_the_trace_that_its_annotation_names() {
        let parent: TraceParent = PARENT.parse().expect("good");
        let (status, spans) = story(&run(Some(PARENT)), true);
        let own = of(&status).expect("traced");
        assert!(own.is_beside(&parent) && own != parent);
        assert_eq!(spans[4].parent, Some(parent));
        for hostile in ["00-0-0-01", "\u{1b}[2J", &"0".repeat(55), &PARENT.repeat(10_000)] {
            let run = run(Some(hostile));
            assert!(TraceParent::annotated(&run).is_err());
            let (status, spans) = story(&run, true);
            assert_eq!(of(&status), Some(TraceParent::root(&["TrainingRun", "u"])));
            assert_eq!(spans[4].parent, None);
        }
    }

    #[test]
    fn a_run_that_waits_again_and_again_remembers_each_phase_once() {
        let run = run(None);
        let mut status = TrainingRunStatus::default();
        let mut spans = vec![];
        for second in (0..40).step_by(2) {
            for (phase, at_) in [(RunPhase::Queued, second), (RunPhase::Preparing, second + 1)] {
                let mut to = TrainingRunStatus {
                    phase: Some(phase),
                    ..status.clone()
                };
                spans.extend(note(&run, &status, &mut to, true, at(at_)));
                status = to;
            }
        }
        assert_eq!(status.phases.len(), 2);
        let mut to = TrainingRunStatus {
            phase: Some(RunPhase::Training),
            ..status.clone()
        };
        spans.extend(note(&run, &status, &mut to, true, at(40)));
        let told: Vec<_> = spans.iter().map(|s| (s.name, s.start.as_second())).collect();
        assert_eq!(told[0], ("wait for its turn", 0));
        assert_eq!(told.last(), Some(&("collect windows", 1)));
        assert_eq!(to.phases.len(), 3);
    }

    #[test]
    fn what_failed_says_why() {
        let run = run(None);
        let mut status = TrainingRunStatus {
            phase: Some(RunPhase::Preparing),
            ..TrainingRunStatus::default()
        };
        note(&run, &TrainingRunStatus::default(), &mut status, true, at(1));
        let mut to = failed(&status, "TooFewWindows", "too few", 1, at(2));
        let spans = note(&run, &status, &mut to, true, at(2));
        let errors: Vec<_> = spans.iter().map(|s| (s.name, s.error.as_deref())).collect();
        assert_eq!(
            errors,
            [
                ("collect windows", Some("too few")),
                ("TrainingRun", Some("too few"))
            ]
        );
    }

    #[test]
    fn without_an_endpoint_nothing_is_made() {
        let (status, spans) = story(&run(Some(PARENT)), false);
        assert_eq!((status.traceparent, spans), (None, vec![]));
        // When the phases began is worth knowing all the same.
        assert_eq!(status.phases.len(), 5);
    }
}
