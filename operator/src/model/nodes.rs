//! The nodes of a Model, in the order in which a rollout takes them.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use sha2::{Digest, Sha256};
use vigia_crds::{NodePlan, PlannedProfile, RolloutStep, VersionState, decimal};

/// A node that runs something that the Model scores.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeView {
    /// Its name.
    pub name: String,
    /// It is Ready and an agent runs on it.
    pub reachable: bool,
    /// What it does with each version, by digest.
    pub states: BTreeMap<String, VersionState>,
    /// Versions of its present plan that it refused, by digest: reason and message.
    pub refused: BTreeMap<String, (String, String)>,
    /// Share of normal windows that its plan's alert budget puts above the threshold.
    pub allowed: f64,
}

impl NodeView {
    /// What a node's plan says of a Model.
    pub fn of(name: &str, reachable: bool, plan: Option<&NodePlan>, namespace: &str, model: &str) -> Self {
        let mut view = Self {
            name: name.to_owned(),
            reachable,
            ..Self::default()
        };
        let Some(plan) = plan else { return view };
        let profiles = plan.spec.profiles.iter();
        view.allowed = profiles
            .filter(|p| p.namespace == namespace && p.models.iter().any(|m| m == model))
            .map(allowed)
            .fold(0.0, f64::max);
        let Some(status) = &plan.status else { return view };
        // A refusal counts once the agent has seen the plan that asks for the version; one that is
        // left over from an earlier attempt does not.
        let answered = plan
            .metadata
            .generation
            .is_none_or(|g| status.observed_generation >= g);
        let asked = |digest: &str| {
            let of_model = plan
                .spec
                .models
                .iter()
                .filter(|m| m.namespace == namespace && m.name == model);
            of_model.flat_map(|m| &m.versions).any(|v| v.digest == digest)
        };
        for version in status
            .versions
            .iter()
            .filter(|v| v.namespace == namespace && v.model == model)
        {
            if version.state == VersionState::Refused {
                if answered && asked(&version.digest) {
                    let why = (version.reason.clone(), version.message.clone());
                    view.refused.insert(version.digest.clone(), why);
                }
            } else {
                view.states.insert(version.digest.clone(), version.state);
            }
        }
        view
    }

    /// Whether it does this with a version.
    pub fn does(&self, digest: &str, state: VersionState) -> bool {
        self.states.get(digest) == Some(&state)
    }

    /// Whether it has the bytes of a version.
    pub fn holds(&self, digest: &str) -> bool {
        self.runs(digest) || self.does(digest, VersionState::Prefetched)
    }

    /// Whether it scores with a version.
    pub fn runs(&self, digest: &str) -> bool {
        self.does(digest, VersionState::Active) || self.does(digest, VersionState::Shadow)
    }
}

/// Share of normal windows that a budget puts above the threshold, as agents derive it.
fn allowed(profile: &PlannedProfile) -> f64 {
    let hours = profile.window_ms as f64 / 3_600_000.0;
    let share = decimal(&profile.alerts_per_hour).unwrap_or(0.0) * hours;
    if share.is_finite() {
        share.clamp(0.0, 1.0)
    } else {
        0.0
    }
}

/// Sorts nodes by a hash of the Model and their name: the same order each time, another one for
/// each Model, so that not every canary of a cluster is on the same node.
pub fn sort(nodes: &mut [NodeView], model_uid: &str) {
    nodes.sort_by_cached_key(|node| {
        let mut hash = Sha256::new();
        hash.update(model_uid);
        hash.update([0]);
        hash.update(&node.name);
        <[u8; 32]>::from(hash.finalize())
    });
}

/// How many nodes the step of this index takes: as many as it says, and no fewer than one before it of its mode. A number
/// and a share cannot be compared before it is known of how many nodes.
pub fn count_at(steps: &[RolloutStep], index: usize, total: usize) -> usize {
    let so_far = &steps[..steps.len().min(index.saturating_add(1))];
    let same = so_far
        .iter()
        .filter(|step| Some(step.mode) == so_far.last().map(|last| last.mode));
    same.map(|step| count(&step.nodes, total)).max().unwrap_or(0)
}

/// A number, or a share rounded up; at least one.
fn count(nodes: &IntOrString, total: usize) -> usize {
    let wanted = match nodes {
        IntOrString::Int(n) => usize::try_from(*n).unwrap_or(0),
        IntOrString::String(text) => {
            let share: usize = text.trim_end_matches('%').parse().unwrap_or(100);
            (total * share.min(100)).div_ceil(100)
        }
    };
    wanted.max(1).min(total)
}

/// The nodes of a step that takes `n`: the first `n`, and where some of these cannot be reached,
/// as many others as make `n` that can. Those that cannot be reached stay in it: they catch up
/// when they return, and no more than `2n` are ever ahead.
pub fn covered(nodes: &[NodeView], n: usize) -> BTreeSet<String> {
    let first = nodes.iter().take(n);
    let reachable = nodes.iter().filter(|node| node.reachable).take(n);
    first.chain(reachable).map(|node| node.name.clone()).collect()
}

/// Names of nodes for people: the first three, and how many more.
pub fn names<'a>(nodes: impl Iterator<Item = &'a NodeView>) -> String {
    let all: Vec<&str> = nodes.map(|node| node.name.as_str()).collect();
    let shown = all.iter().take(3).copied().collect::<Vec<_>>().join(", ");
    match all.len().saturating_sub(3) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use vigia_crds::StepMode;

    fn nodes(reachable: &[bool]) -> Vec<NodeView> {
        let view = |(i, reachable): (usize, &bool)| NodeView {
            name: format!("n{i}"),
            reachable: *reachable,
            ..NodeView::default()
        };
        reachable.iter().enumerate().map(view).collect()
    }

    #[test]
    fn steps_take_a_number_or_a_share_of_the_nodes() {
        let share = |text: &str, total| count(&IntOrString::String(text.to_owned()), total);
        assert_eq!(count(&IntOrString::Int(3), 10), 3);
        assert_eq!(count(&IntOrString::Int(30), 10), 10);
        assert_eq!(share("10%", 5000), 500);
        assert_eq!(share("10%", 3), 1);
        assert_eq!(share("100%", 3), 3);
        assert_eq!(share("0%", 3), 1);
        assert_eq!(share("50%", 0), 0);
    }

    #[test]
    fn a_node_that_cannot_be_reached_is_stood_in_for() {
        let names = |n, reachable: &[bool]| covered(&nodes(reachable), n).into_iter().collect::<Vec<_>>();
        assert_eq!(names(1, &[true, true, true]), ["n0"]);
        assert_eq!(names(1, &[false, true, true]), ["n0", "n1"]);
        assert_eq!(names(2, &[false, false, false]), ["n0", "n1"]);
        assert_eq!(names(3, &[true, false, true]), ["n0", "n1", "n2"]);
    }

    #[test]
    fn a_step_takes_no_node_from_the_version() {
        let step = |nodes| RolloutStep {
            nodes,
            mode: StepMode::Active,
            hold: std::time::Duration::ZERO.into(),
        };
        let steps = [
            step(IntOrString::String("50%".to_owned())),
            step(IntOrString::Int(2)),
            step(IntOrString::String("100%".to_owned())),
        ];
        let of = |total| [0, 1, 2].map(|index| count_at(&steps, index, total));
        assert_eq!((of(10), of(2), of(0)), ([5, 5, 10], [1, 2, 2], [0, 0, 0]));
        assert_eq!(count_at(&[], 3, 10), 0);
        let shadow = RolloutStep {
            mode: StepMode::Shadow,
            ..step(IntOrString::String("100%".to_owned()))
        };
        let steps = [shadow, steps[1].clone(), steps[2].clone()];
        let of = [0, 1, 2].map(|index| count_at(&steps, index, 10));
        assert_eq!(of, [10, 2, 10], "a shadow everywhere, and then a canary");
    }

    #[test]
    fn the_order_is_stable_and_differs_by_model() {
        let order = |uid: &str| {
            let mut all = nodes(&[true; 20]);
            sort(&mut all, uid);
            all.into_iter().map(|n| n.name).collect::<Vec<_>>()
        };
        assert_eq!(order("a"), order("a"));
        assert_ne!(order("a"), order("b"));
    }

    #[test]
    fn a_budget_allows_a_share_of_the_windows() {
        let profile = |window_ms, alerts: &str, models: &[&str]| {
            json!({"namespace": "shop", "name": "p", "windowMs": window_ms, "consecutiveWindows": 2,
                   "alertsPerHour": alerts, "samplePerMille": 1000, "models": models, "pods": []})
        };
        let plan: NodePlan = serde_json::from_value(json!({
            "apiVersion": "vigia.dev/v1alpha1", "kind": "NodePlan", "metadata": {"name": "n"},
            "spec": {"models": [], "profiles": [
                profile(10_000, "10", &["m"]), profile(300_000, "1", &["m"]), profile(60_000, "60", &["other"])]},
        }))
        .expect("a plan");
        let allowed = NodeView::of("n", true, Some(&plan), "shop", "m").allowed;
        assert!((allowed - 300.0 / 3600.0).abs() < 1e-9, "{allowed}");
    }

    #[test]
    fn a_refusal_counts_when_it_answers_the_present_plan() {
        let plan = |observed: i64, planned: &str| -> NodePlan {
            serde_json::from_value(json!({
                "apiVersion": "vigia.dev/v1alpha1", "kind": "NodePlan", "metadata": {"name": "n", "generation": 2},
                "spec": {"profiles": [], "models": [{"namespace": "shop", "name": "m", "task": "Anomaly", "trustedKeys": [],
                    "versions": [{"name": "v", "digest": planned, "sizeBytes": 1, "mode": "Prefetch"}]}]},
                "status": {"observedGeneration": observed, "versions": [
                    {"namespace": "shop", "model": "m", "digest": "d1", "state": "Refused", "reason": "BadSignature",
                     "since": "2026-01-01T00:00:00Z"},
                    {"namespace": "shop", "model": "m", "digest": "d0", "state": "Active", "since": "2026-01-01T00:00:00Z"},
                    {"namespace": "shop", "model": "other", "digest": "d9", "state": "Active", "since": "2026-01-01T00:00:00Z"}]},
            }))
            .expect("a plan")
        };
        let view = |plan: &NodePlan| NodeView::of("n", true, Some(plan), "shop", "m");
        let answered = view(&plan(2, "d1"));
        assert!(answered.refused.contains_key("d1"));
        assert!(answered.runs("d0") && !answered.runs("d9") && !answered.runs("d1"));
        assert!(view(&plan(1, "d1")).refused.is_empty());
        assert!(view(&plan(2, "d2")).refused.is_empty());
        assert_eq!(NodeView::of("n", false, None, "shop", "m").states.len(), 0);
    }
}
