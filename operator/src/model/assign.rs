//! What each node is told, as a pure function of a Model's status.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError, RwLock};

use kube::ResourceExt;
use vigia_crds::{
    Model, ModelStatus, PlannedModel, PlannedVersion, RolloutPhase, RolloutStep, StepMode, VersionMode,
};

use super::nodes::{self, NodeView};
use super::version::{self, VersionView};
use super::{trace, trust};
use crate::telemetry::TraceParent;

/// What the nodes of one Model should hold: some are ahead, the others are not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// The Model's part of a plan, without versions.
    model: PlannedModel,
    /// Nodes of the rollout's step.
    pub ahead: BTreeSet<String>,
    /// The rollout's version and its span, where it is traced.
    traced: Option<(String, TraceParent)>,
    /// Of nodes that are ahead, the step since which they are told the same.
    since: BTreeMap<String, i32>,
    /// Versions of nodes that are ahead.
    of_ahead: Vec<PlannedVersion>,
    /// Versions of all other nodes.
    of_others: Vec<PlannedVersion>,
    /// Versions that the store has lost, by digest, with the nodes that hold them.
    lost: BTreeMap<String, BTreeSet<String>>,
}

impl Assignment {
    /// What follows from a status. `nodes` are in the order of the rollout; `operator_key` is the
    /// operator's public key in base64.
    ///
    /// A version that must not run is never named. The version that serves stays on the nodes that
    /// are ahead, and the one before it on all, so that going back needs no network. What the store has lost is
    /// prefetched by nobody anew.
    pub fn of(
        model: &Model,
        status: &ModelStatus,
        versions: &[VersionView],
        nodes: &[NodeView],
        operator_key: &str,
    ) -> Self {
        let pick = |digest: &str, mode| version::kept(versions, digest).map(|v| v.planned(mode));
        let serving = |mode| status.serving.as_ref().and_then(|s| pick(&s.digest, mode));
        let previous = status
            .previous
            .as_ref()
            .and_then(|p| pick(&p.digest, VersionMode::Prefetch));
        let under_way = status.rollout.as_ref().filter(|r| is_forward(r.phase));
        let (mut ahead, mut since) = (BTreeSet::new(), BTreeMap::new());
        let (of_ahead, of_others) = match under_way {
            None => (vec![], list([serving(VersionMode::Active), previous])),
            Some(rollout) => {
                let steps = &model.spec.rollout.steps;
                let index = usize::try_from(rollout.step)
                    .unwrap_or(0)
                    .min(steps.len().saturating_sub(1));
                let new = |mode| pick(&rollout.version.digest, mode);
                let mode = steps.get(index).map_or(StepMode::Shadow, |s| s.mode);
                ahead = nodes::covered(nodes, nodes::count_at(steps, index, nodes.len()));
                since = told_since(&steps[..(index + 1).min(steps.len())], nodes);
                // A version that may no longer run is ahead nowhere: its nodes serve as before.
                let of_ahead = match (mode, new(VersionMode::Active)) {
                    (_, None) => [serving(VersionMode::Active), None, previous.clone()],
                    (StepMode::Shadow, _) => [
                        serving(VersionMode::Active),
                        new(VersionMode::Shadow),
                        previous.clone(),
                    ],
                    (StepMode::Active, active) => [active, serving(VersionMode::Prefetch), previous.clone()],
                };
                let of_others = [serving(VersionMode::Active), new(VersionMode::Prefetch), previous];
                (list(of_ahead), list(of_others))
            }
        };
        let holders = |version: &VersionView| {
            let holders = nodes.iter().filter(|n| n.holds(&version.digest));
            (version.digest.clone(), holders.map(|n| n.name.clone()).collect())
        };
        let lost = versions.iter().filter(|v| !v.stored).map(holders).collect();
        let mut trusted_keys = vec![operator_key.to_owned()];
        trusted_keys.extend(trust::usable(&model.spec.trust).map(|(text, _)| text.clone()));
        trusted_keys.dedup();
        Self {
            model: PlannedModel {
                namespace: model.namespace().unwrap_or_default(),
                name: model.name_any(),
                task: model.spec.task,
                versions: vec![],
                trusted_keys,
            },
            ahead,
            traced: under_way.and_then(|r| Some((r.version.digest.clone(), trace::of(r)?))),
            since,
            of_ahead,
            of_others,
            lost,
        }
    }

    /// What a version on a node is a part of: the step that told the node so, and for those that are not ahead the
    /// rollout.
    fn span(&self, node: &str, version: &PlannedVersion) -> Option<String> {
        let (_, rollout) = self
            .traced
            .as_ref()
            .filter(|(digest, _)| *digest == version.digest)?;
        let span = match self.since.get(node) {
            Some(step) => trace::of_step(*rollout, *step),
            None => *rollout,
        };
        Some(span.to_string())
    }

    /// What one node is told.
    pub fn of_node(&self, node: &str) -> PlannedModel {
        let versions = if self.ahead.contains(node) {
            &self.of_ahead
        } else {
            &self.of_others
        };
        let can_hold = |version: &&PlannedVersion| {
            let holders = self.lost.get(&version.digest);
            version.mode != VersionMode::Prefetch || holders.is_none_or(|all| all.contains(node))
        };
        PlannedModel {
            versions: versions
                .iter()
                .filter(can_hold)
                .map(|version| PlannedVersion {
                    traceparent: self.span(node, version),
                    ..version.clone()
                })
                .collect(),
            ..self.model.clone()
        }
    }
}

/// The step since which each node of the last of these steps has been in it and told the same.
fn told_since(steps: &[RolloutStep], nodes: &[NodeView]) -> BTreeMap<String, i32> {
    let mut since = BTreeMap::new();
    let Some(mode) = steps.last().map(|step| step.mode) else {
        return since;
    };
    let same = steps.iter().enumerate().rev();
    for (at, _) in same.take_while(|(_, step)| step.mode == mode) {
        for node in nodes::covered(nodes, nodes::count_at(steps, at, nodes.len())) {
            since.insert(node, i32::try_from(at).unwrap_or(i32::MAX));
        }
    }
    since
}

/// The new version is on its way, not on its way back.
pub const fn is_forward(phase: RolloutPhase) -> bool {
    matches!(phase, RolloutPhase::Progressing | RolloutPhase::Paused)
}

/// The versions that there are; of one digest the first.
fn list<const N: usize>(versions: [Option<PlannedVersion>; N]) -> Vec<PlannedVersion> {
    let mut list: Vec<PlannedVersion> = Vec::with_capacity(N);
    for version in versions.into_iter().flatten() {
        if list.iter().all(|v| v.digest != version.digest) {
            list.push(version);
        }
    }
    list
}

/// The assignments of all Models, by namespace and name. Derived, never stored: after a start a
/// Model has none until its status was looked at, and plans stay as they are.
#[derive(Debug, Default)]
pub struct Assignments(RwLock<BTreeMap<(String, String), Arc<Assignment>>>);

impl Assignments {
    /// The assignment of a Model.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<Assignment>> {
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        all.get(&(namespace.to_owned(), name.to_owned())).cloned()
    }

    /// Replaces the assignment of a Model.
    pub fn put(&self, namespace: &str, name: &str, assignment: Assignment) {
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        all.insert((namespace.to_owned(), name.to_owned()), Arc::new(assignment));
    }

    /// Forgets a Model that is gone.
    pub fn remove(&self, namespace: &str, name: &str) {
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        all.remove(&(namespace.to_owned(), name.to_owned()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{at, model};
    use crate::model::version::Verdict;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use serde_json::json;
    use vigia_crds::{RolloutStatus, ServedVersion};

    /// The public key of the example of RFC 8410.
    const THEIRS: &str = "Gb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=";

    fn version(name: &str, verdict: Verdict) -> VersionView {
        VersionView {
            name: name.to_owned(),
            digest: format!("d-{name}"),
            size_bytes: 1,
            stored: true,
            lacking: vec![],
            silent: false,
            age: (None, 0, name.to_owned()),
            verdict,
        }
    }

    fn served(name: &str) -> Option<ServedVersion> {
        Some(ServedVersion {
            name: name.to_owned(),
            digest: format!("d-{name}"),
        })
    }

    /// What the first node and the other two are told in step `step` of new over old.
    fn told(phase: RolloutPhase, step: i32, verdicts: [Verdict; 3]) -> [Vec<(String, VersionMode)>; 2] {
        let model = model(
            "shop",
            "m",
            json!({"task": "Anomaly", "trust": {"publicKeys": [THEIRS, "none"]}, "rollout": {"steps": [
                {"nodes": 1, "mode": "Shadow"}, {"nodes": 1, "mode": "Active"}, {"nodes": "100%", "mode": "Active"}]}}),
        );
        let status = ModelStatus {
            serving: served("old"),
            previous: served("older"),
            rollout: Some(RolloutStatus {
                version: served("new").expect("some"),
                phase,
                step,
                progress: String::new(),
                started_at: Time(at(0)),
                step_ready_at: None,
                message: String::new(),
                step_began_at: None,
                traceparent: None,
            }),
            ..ModelStatus::default()
        };
        let [new, old, older] = verdicts;
        let versions = [version("new", new), version("old", old), version("older", older)];
        let nodes = ["n1", "n2", "n3"].map(|name| NodeView {
            name: name.to_owned(),
            reachable: true,
            ..NodeView::default()
        });
        let assignment = Assignment::of(&model, &status, &versions, &nodes, "ours");
        assert_eq!(assignment.of_node("n1").trusted_keys, ["ours", THEIRS]);
        assert_eq!(assignment.of_node("n2"), assignment.of_node("n3"));
        ["n1", "n2"].map(|node| {
            let versions = assignment.of_node(node).versions;
            versions.into_iter().map(|v| (v.name, v.mode)).collect()
        })
    }

    fn list(text: &[(&str, VersionMode)]) -> Vec<(String, VersionMode)> {
        text.iter()
            .map(|(name, mode)| ((*name).to_owned(), *mode))
            .collect()
    }

    use VersionMode::{Active, Prefetch, Shadow};

    #[test]
    fn nodes_of_the_step_are_ahead_and_all_hold_what_a_rollback_needs() {
        let good = || [Verdict::Good, Verdict::Good, Verdict::Good];
        let behind = list(&[("old", Active), ("new", Prefetch), ("older", Prefetch)]);
        let forward = RolloutPhase::Progressing;
        let shadow = list(&[("old", Active), ("new", Shadow), ("older", Prefetch)]);
        assert_eq!(told(forward, 0, good()), [shadow, behind.clone()]);
        let active = list(&[("new", Active), ("old", Prefetch), ("older", Prefetch)]);
        assert_eq!(told(forward, 1, good()), [active.clone(), behind]);
        assert_eq!(told(forward, 2, good()), [active.clone(), active]);
        let back = list(&[("old", Active), ("older", Prefetch)]);
        assert_eq!(told(RolloutPhase::RollingBack, 2, good()), [back.clone(), back]);
    }

    #[test]
    fn a_version_that_may_not_run_is_named_to_no_node() {
        let bad = || Verdict::Bad {
            reason: "Revoked".to_owned(),
            message: String::new(),
        };
        let forward = RolloutPhase::Progressing;
        let serving = list(&[("old", Active), ("older", Prefetch)]);
        let lists = told(forward, 1, [bad(), Verdict::Good, Verdict::Good]);
        assert_eq!(lists, [serving.clone(), serving]);
        let [ahead, behind] = told(forward, 1, [Verdict::Good, bad(), bad()]);
        assert_eq!(ahead, list(&[("new", Active)]));
        assert_eq!(behind, list(&[("new", Prefetch)]));
    }

    #[test]
    fn what_the_store_has_lost_is_prefetched_only_where_it_is() {
        let model = model("shop", "m", json!({"task": "Anomaly"}));
        let status = ModelStatus {
            serving: served("old"),
            previous: served("older"),
            ..ModelStatus::default()
        };
        let lost = |name: &str| VersionView {
            stored: false,
            ..version(name, Verdict::Good)
        };
        let versions = [lost("old"), lost("older")];
        let node = |name: &str, state| NodeView {
            name: name.to_owned(),
            states: BTreeMap::from([("d-older".to_owned(), state)]),
            ..NodeView::default()
        };
        let nodes = [
            node("holds", vigia_crds::VersionState::Prefetched),
            node("waits", vigia_crds::VersionState::Fetching),
        ];
        let assignment = Assignment::of(&model, &status, &versions, &nodes, "ours");
        let told = |node| {
            let versions = assignment.of_node(node).versions;
            versions.into_iter().map(|v| (v.name, v.mode)).collect::<Vec<_>>()
        };
        assert_eq!(told("holds"), list(&[("old", Active), ("older", Prefetch)]));
        // What should serve is still asked for: it may come back.
        assert_eq!(told("waits"), list(&[("old", Active)]));
        assert_eq!(told("new"), list(&[("old", Active)]));
    }

    #[test]
    fn a_version_that_is_looked_at_again_stays_where_it_is() {
        for phase in [RolloutPhase::Progressing, RolloutPhase::Complete] {
            for step in 0..3 {
                let good = told(phase, step, [Verdict::Good, Verdict::Good, Verdict::Good]);
                let again = told(
                    phase,
                    step,
                    [Verdict::Pending, Verdict::Pending, Verdict::Pending],
                );
                assert_eq!(good, again);
            }
        }
    }
}
