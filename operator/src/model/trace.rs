//! A rollout as a span: a child for each of its steps, and under those what each node did with the version. Pure.
//!
//! Its span is in the Model's status while it is under way and after, and all ids follow from it. Where the version's own
//! ModelVersion names a trace, as those do that a TrainingRun made, the rollout is a part of that one.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::ResourceExt;
use vigia_crds::{Model, ModelStatus, RolloutPhase, RolloutStatus};
use vigia_proto::v1::VersionState;

use super::assign::is_forward;
use crate::telemetry::{Service, Span, TraceParent};

/// Most steps that a rollout may have; see the schema.
const MAX_STEPS: i32 = 10;

/// The rollout's span, as the status has it.
pub fn of(rollout: &RolloutStatus) -> Option<TraceParent> {
    TraceParent::remembered(rollout.traceparent.as_deref())
}

/// The span of a step.
pub fn of_step(rollout: TraceParent, step: i32) -> TraceParent {
    rollout.child(&["step", &step.to_string()])
}

const fn is_open(phase: RolloutPhase) -> bool {
    is_forward(phase) || matches!(phase, RolloutPhase::RollingBack)
}

fn is_same(one: &RolloutStatus, other: &RolloutStatus) -> bool {
    one.version.digest == other.version.digest && one.started_at == other.started_at
}

/// What a status says next, beside what it said.
pub struct Change<'a> {
    /// The Model.
    pub model: &'a Model,
    /// What its ModelVersions say that a rollout is a part of, by digest.
    pub part_of: &'a dyn Fn(&str) -> Option<TraceParent>,
    /// The status of before.
    pub from: &'a ModelStatus,
    /// Rollouts that begin are traced.
    pub is_on: bool,
    /// Now.
    pub now: Timestamp,
}

impl Change<'_> {
    /// Notes in the next status which trace a rollout is and when its step began; answers the spans that end with this.
    pub fn note(&self, to: &mut ModelStatus) -> Vec<Span> {
        // What is written must equal what is read back.
        let now = Timestamp::from_microsecond(self.now.as_microsecond()).unwrap_or(self.now);
        let was = self.from.rollout.as_ref();
        let mut spans = vec![];
        let Some(is) = &mut to.rollout else { return spans };
        let former = was.filter(|was| is_same(was, is));
        if let Some(gone) = was.filter(|was| former.is_none() && is_open(was.phase)) {
            let why = format!("{} is rolled out instead", is.version.name);
            spans.extend(self.step(gone, now, Some(why.clone())));
            spans.extend(self.whole(gone, now, Some(why)));
        }
        let Some(former) = former else {
            if is_open(is.phase) {
                is.step_began_at = Some(MicroTime(now));
                is.traceparent = self.is_on.then(|| self.begun(is).to_string());
            }
            return spans;
        };
        let turned = is_forward(former.phase) != is_forward(is.phase);
        if former.step != is.step || turned {
            let failed = matches!(is.phase, RolloutPhase::RollingBack).then(|| is.message.clone());
            spans.extend(self.step(former, now, failed));
            is.step_began_at = Some(MicroTime(now));
        } else if is_open(former.phase) && !is_open(is.phase) {
            spans.extend(self.step(former, now, None));
        }
        if is_open(former.phase) && !is_open(is.phase) {
            let failed = (is.phase == RolloutPhase::RolledBack).then(|| former.message.clone());
            spans.extend(self.whole(is, now, failed));
        }
        spans
    }

    fn begun(&self, rollout: &RolloutStatus) -> TraceParent {
        let uid = self.model.uid().unwrap_or_default();
        let at = rollout.started_at.0.as_second().to_string();
        let names = ["rollout", uid.as_str(), rollout.version.digest.as_str(), &at];
        match (self.part_of)(&rollout.version.digest) {
            Some(parent) => parent.child(&names),
            None => TraceParent::root(&names),
        }
    }

    fn about(&self, rollout: &RolloutStatus) -> Vec<(&'static str, String)> {
        vec![
            ("k8s.namespace.name", self.model.namespace().unwrap_or_default()),
            ("vigia.model", self.model.name_any()),
            ("vigia.model.version", rollout.version.name.clone()),
            ("vigia.model.digest", rollout.version.digest.clone()),
        ]
    }

    /// The step that a rollout was at, or its way back.
    fn step(&self, was: &RolloutStatus, now: Timestamp, error: Option<String>) -> Option<Span> {
        let own = of(was)?;
        let mut attributes = self.about(was);
        let (context, name) = if is_forward(was.phase) {
            let steps = &self.model.spec.rollout.steps;
            let step = usize::try_from(was.step).ok().and_then(|at| steps.get(at));
            attributes.push(("vigia.rollout.step", (was.step + 1).to_string()));
            attributes.extend(step.map(|step| ("vigia.rollout.mode", format!("{:?}", step.mode))));
            (of_step(own, was.step), "rollout step")
        } else {
            (own.child(&["back"]), "roll back")
        };
        attributes.push(("vigia.rollout.progress", was.progress.clone()));
        Some(Span {
            context,
            parent: Some(own),
            service: Service::Operator,
            name,
            start: was.step_began_at.as_ref().map_or(was.started_at.0, |at| at.0),
            end: now,
            resource: vec![],
            attributes,
            error,
        })
    }

    fn whole(&self, rollout: &RolloutStatus, now: Timestamp, error: Option<String>) -> Option<Span> {
        let own = of(rollout)?;
        Some(Span {
            context: own,
            parent: (self.part_of)(&rollout.version.digest).filter(|parent| parent.is_beside(&own)),
            service: Service::Operator,
            name: "rollout",
            start: rollout.started_at.0,
            end: now,
            resource: vec![],
            attributes: self.about(rollout),
            error,
        })
    }
}

/// What a node's agent says that it did with a version.
#[derive(Clone, Debug, PartialEq)]
pub struct Done {
    /// Namespace of the Model.
    pub namespace: String,
    /// The Model.
    pub model: String,
    /// Digest of the version.
    pub digest: String,
    /// The span that this is a part of.
    pub parent: TraceParent,
    /// What became of the version.
    pub state: VersionState,
    /// Why it was refused.
    pub reason: String,
    /// When it began.
    pub start: Timestamp,
    /// When it was done.
    pub end: Timestamp,
}

/// What a node did with a version of a rollout; `None` where no such rollout is or was the Model's last.
pub fn of_node(model: &Model, node: &str, done: &Done) -> Option<Span> {
    let rollout = model.status.as_ref()?.rollout.as_ref()?;
    let own = of(rollout)?;
    let parent = done.parent;
    let steps = 0..=rollout.step.clamp(0, MAX_STEPS);
    let is_ours = parent == own || steps.into_iter().any(|step| parent == of_step(own, step));
    if !is_ours || done.digest != rollout.version.digest {
        return None;
    }
    let (state, name) = match done.state {
        VersionState::Unspecified => return None,
        VersionState::Prefetched => ("Prefetched", "prefetch version"),
        VersionState::Shadow => ("Shadow", "load version"),
        VersionState::Active => ("Active", "swap version"),
        VersionState::Refused => ("Refused", "load version"),
    };
    Some(Span {
        context: parent.child(&["node", node, state]),
        parent: Some(parent),
        service: Service::Agent,
        name,
        start: done.start,
        end: done.end,
        resource: vec![("k8s.node.name", node.to_owned())],
        attributes: vec![
            ("k8s.namespace.name", model.namespace().unwrap_or_default()),
            ("vigia.model", model.name_any()),
            ("vigia.model.version", rollout.version.name.clone()),
            ("vigia.model.digest", done.digest.clone()),
            ("vigia.version.state", state.to_owned()),
        ],
        error: (done.state == VersionState::Refused).then(|| done.reason.clone()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{at, model};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use serde_json::json;
    use vigia_crds::ServedVersion;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn the_model() -> Model {
        model(
            "shop",
            "m",
            json!({"task": "Anomaly", "rollout": {"steps": [
                {"nodes": 1, "mode": "Shadow"}, {"nodes": "100%", "mode": "Active"}]}}),
        )
    }

    fn status(version: &str, phase: RolloutPhase, step: i32, began: i64) -> ModelStatus {
        ModelStatus {
            rollout: Some(RolloutStatus {
                version: ServedVersion {
                    name: version.to_owned(),
                    digest: format!("d-{version}"),
                },
                phase,
                step,
                progress: "1/2".to_owned(),
                started_at: Time(at(began)),
                step_ready_at: None,
                message: "gate fails".to_owned(),
                step_began_at: None,
                traceparent: None,
            }),
            ..ModelStatus::default()
        }
    }

    /// What is said of these states one after the other, each ten seconds later, and the last status.
    fn story(parent: Option<TraceParent>, is_on: bool, states: &[ModelStatus]) -> (ModelStatus, Vec<Span>) {
        let model = the_model();
        let part_of = |_: &str| parent;
        let (mut from, mut spans) = (ModelStatus::default(), vec![]);
        for (i, state) in (1..).zip(states) {
            let mut to = state.clone();
            if let (Some(is), Some(was)) = (&mut to.rollout, &from.rollout)
                && is_same(is, was)
            {
                is.traceparent.clone_from(&was.traceparent);
                is.step_began_at.clone_from(&was.step_began_at);
            }
            let change = |from, now| Change {
                model: &model,
                part_of: &part_of,
                from,
                is_on,
                now,
            };
            spans.extend(change(&from, at(i * 10)).note(&mut to));
            let again = change(&to.clone(), at(i * 10 + 1)).note(&mut to);
            assert!(again.is_empty(), "{again:?}");
            from = to;
        }
        (from, spans)
    }

    fn told(spans: &[Span]) -> Vec<(&str, i64, i64, Option<&str>)> {
        let tell = |s: &Span| (s.start.as_second(), s.end.as_second());
        spans
            .iter()
            .map(|s| (s.name, tell(s).0, tell(s).1, s.error.as_deref()))
            .collect()
    }

    use RolloutPhase::{Complete, Paused, Progressing, RolledBack, RollingBack};

    #[test]
    fn a_rollout_is_a_span_of_its_versions_trace_with_one_for_each_step() {
        let parent: TraceParent = PARENT.parse().expect("good");
        let states = [
            status("v1", Progressing, 0, 10),
            status("v1", Paused, 0, 10),
            status("v1", Progressing, 1, 10),
            status("v1", Complete, 1, 10),
        ];
        let (last, spans) = story(Some(parent), true, &states);
        assert_eq!(
            told(&spans),
            [
                ("rollout step", 10, 30, None),
                ("rollout step", 30, 40, None),
                ("rollout", 10, 40, None)
            ]
        );
        let own = of(last.rollout.as_ref().expect("a rollout")).expect("traced");
        assert!(own.is_beside(&parent));
        assert_eq!(
            spans.iter().map(|s| s.parent).collect::<Vec<_>>(),
            [Some(own), Some(own), Some(parent)]
        );
        assert_eq!(
            (spans[0].context, spans[1].context),
            (of_step(own, 0), of_step(own, 1))
        );
        assert_eq!(story(Some(parent), true, &states).1, spans);
        let (last, spans) = story(Some(parent), false, &states);
        assert_eq!(
            (last.rollout.expect("a rollout").traceparent, spans),
            (None, vec![])
        );
    }

    #[test]
    fn a_rollout_that_fails_or_is_replaced_says_so() {
        let (_, spans) = story(
            None,
            true,
            &[
                status("v1", Progressing, 0, 10),
                status("v1", RollingBack, 0, 10),
                status("v1", RolledBack, 0, 10),
            ],
        );
        let why = Some("gate fails");
        assert_eq!(
            told(&spans),
            [
                ("rollout step", 10, 20, why),
                ("roll back", 20, 30, None),
                ("rollout", 10, 30, why)
            ]
        );
        assert_eq!(spans[2].parent, None);
        let states = [status("v1", Progressing, 0, 10), status("v2", Progressing, 0, 20)];
        let (last, spans) = story(None, true, &states);
        let why = Some("v2 is rolled out instead");
        assert_eq!(
            told(&spans),
            [("rollout step", 10, 20, why), ("rollout", 10, 20, why)]
        );
        assert!(
            !of(&last.rollout.expect("a rollout"))
                .expect("traced")
                .is_beside(&spans[0].context)
        );
    }

    #[test]
    fn a_node_may_speak_of_the_last_rollout_alone() {
        let mut model = the_model();
        let (status, _) = story(
            None,
            true,
            &[status("v1", Progressing, 0, 10), status("v1", Complete, 1, 10)],
        );
        let own = of(status.rollout.as_ref().expect("a rollout")).expect("traced");
        model.status = Some(status);
        let said = |parent: TraceParent, digest: &str| Done {
            namespace: "shop".to_owned(),
            model: "m".to_owned(),
            digest: digest.to_owned(),
            parent,
            state: VersionState::Active,
            reason: String::new(),
            start: at(20),
            end: at(21),
        };
        for parent in [own, of_step(own, 0), of_step(own, 1)] {
            let span = of_node(&model, "n1", &said(parent, "d-v1")).expect("told");
            assert_eq!((span.name, span.parent), ("swap version", Some(parent)));
            assert_eq!(span.resource, [("k8s.node.name", "n1".to_owned())]);
        }
        let other = TraceParent::root(&["mine"]);
        for refused in [
            said(other, "d-v1"),
            said(of_step(own, 2), "d-v1"),
            said(own, "d-v2"),
            Done {
                state: VersionState::Unspecified,
                ..said(own, "d-v1")
            },
        ] {
            assert_eq!(of_node(&model, "n1", &refused), None);
        }
    }
}
