//! What a node should do, as a pure function of what is on it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kube::ResourceExt;
use vigia_crds::{
    AlertBudget, BudgetPer, NodePlanSpec, PlannedContainer, PlannedModel, PlannedPod, PlannedProfile,
    TraceProfile,
};

use super::claim::Claimants;
use crate::pods::PodView;
use crate::traceprofile::capture;

/// Pods of a profile that a node's plan has room for: a bound of the schema; a kubelet runs far fewer.
pub const MAX_PODS: usize = 512;
const MAX_PROFILES: usize = 512;
const MAX_MODELS: usize = 512;
/// Containers of a pod; likewise.
pub const MAX_CONTAINERS: usize = 32;

/// Containers of one profile up to which every window's vector is kept for training. With more,
/// each sends fewer, so that the sum stays about the same.
const FULL_SAMPLING: u32 = 1024;

/// What the rest of the cluster has to say about a node's plan.
pub trait Elsewhere {
    /// Containers that a profile traces on all nodes, rounded up to a power of two so that a plan
    /// does not change with each pod of the cluster. `None` while it is not known.
    fn containers_of(&self, namespace: &str, profile: &str) -> Option<u32>;

    /// What a Model wants of this node; `None` where there is no such Model.
    fn model(&self, namespace: &str, name: &str) -> Wish;
}

/// What a Model wants of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    /// This.
    Planned(PlannedModel),
    /// It is not decided yet: what is planned stays.
    Undecided,
    /// There is no such Model.
    Absent,
}

/// The plan of a node: its pods, the claimants of each namespace, what is planned now.
pub fn plan(
    pods: &[Arc<PodView>],
    claimants: &BTreeMap<String, Claimants>,
    current: Option<&NodePlanSpec>,
    elsewhere: &impl Elsewhere,
) -> NodePlanSpec {
    let mut profiles: BTreeMap<(String, String), (&TraceProfile, Vec<PlannedPod>)> = BTreeMap::new();
    let mut wanted: BTreeSet<(String, String)> = BTreeSet::new();
    for pod in pods {
        let Some(claimants) = claimants.get(&pod.namespace) else {
            continue;
        };
        // A container that starts, or starts again, finds its artifacts there.
        for profile in claimants.selecting(pod) {
            let names = profile
                .spec
                .models
                .iter()
                .map(|m| (pod.namespace.clone(), m.name.clone()));
            wanted.extend(names);
        }
        for claim in claimants.claims(pod) {
            let key = (pod.namespace.clone(), claim.profile.name_any());
            let containers = claim.containers.into_iter().take(MAX_CONTAINERS);
            let (_, pods) = profiles.entry(key).or_insert((claim.profile, vec![]));
            pods.push(PlannedPod {
                name: pod.name.clone(),
                uid: pod.cgroup_uid.clone(),
                containers: containers
                    .map(|(name, id)| PlannedContainer { name, id })
                    .collect(),
            });
        }
    }
    let mut planned = Vec::new();
    for ((namespace, name), (profile, mut pods)) in profiles.into_iter().take(MAX_PROFILES) {
        let Some(capture) = capture::known(&profile.spec.capture) else {
            continue;
        };
        pods.sort_by(|a, b| a.uid.cmp(&b.uid));
        pods.truncate(MAX_PODS);
        let widest = pods.iter().map(|p| p.containers.len()).max().unwrap_or(1);
        let here: usize = pods.iter().map(|p| p.containers.len()).sum();
        let here = rounded(u32::try_from(here).unwrap_or(u32::MAX));
        let everywhere = elsewhere.containers_of(&namespace, &name).unwrap_or(0).max(here);
        let models = u32::try_from(profile.spec.models.len()).unwrap_or(u32::MAX);
        let shared_by = match profile.spec.detection.alert_budget.per {
            BudgetPer::Pod => u32::try_from(widest).unwrap_or(u32::MAX),
            BudgetPer::Profile => everywhere,
        };
        planned.push(PlannedProfile {
            window_ms: i64::try_from(std::time::Duration::from(profile.spec.window).as_millis())
                .unwrap_or(i64::MAX),
            consecutive_windows: profile.spec.detection.consecutive_windows,
            // Each Model scores each window, and each of them may be wrong.
            alerts_per_hour: alerts_per_hour(
                &profile.spec.detection.alert_budget,
                shared_by.saturating_mul(models.max(1)),
            ),
            capture,
            budget: profile.spec.budget.clone(),
            sample_per_mille: sample_per_mille(everywhere),
            models: profile.spec.models.iter().map(|m| m.name.clone()).collect(),
            namespace,
            name,
            pods,
        });
    }
    let models =
        wanted
            .into_iter()
            .filter_map(|(namespace, name)| match elsewhere.model(&namespace, &name) {
                Wish::Planned(wish) => Some(wish),
                Wish::Undecided => current.and_then(|plan| {
                    let same = |m: &&PlannedModel| m.namespace == namespace && m.name == name;
                    plan.models.iter().find(same).cloned()
                }),
                Wish::Absent => None,
            });
    NodePlanSpec {
        profiles: planned,
        models: models.take(MAX_MODELS).collect(),
    }
}

/// The next power of two.
pub fn rounded(containers: u32) -> u32 {
    containers.checked_next_power_of_two().unwrap_or(1 << 31)
}

fn sample_per_mille(containers: u32) -> i32 {
    let share = u64::from(FULL_SAMPLING) * 1000 / u64::from(containers.max(1));
    i32::try_from(share.clamp(1, 1000)).unwrap_or(1000)
}

/// Alerts of one container in an hour, as a decimal of at most 16 characters, never 0.
fn alerts_per_hour(budget: &AlertBudget, shared_by: u32) -> String {
    let hours = std::time::Duration::from(budget.every).as_secs_f64() / 3600.0;
    let rate = f64::from(budget.count) / hours.max(1.0 / 60.0) / f64::from(shared_by.max(1));
    let text = if rate >= 1.0 {
        format!("{rate:.6}")
    } else {
        format!("{:.12}", rate.max(1e-12))
    };
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{pod, profile};
    use proptest::prelude::*;
    use vigia_crds::{Task, decimal};

    #[derive(Default)]
    struct Fake {
        containers: Option<u32>,
        models: BTreeMap<String, Wish>,
    }

    impl Elsewhere for Fake {
        fn containers_of(&self, _: &str, _: &str) -> Option<u32> {
            self.containers
        }
        fn model(&self, _: &str, name: &str) -> Wish {
            self.models.get(name).cloned().unwrap_or(Wish::Absent)
        }
    }

    fn planned(name: &str) -> PlannedModel {
        PlannedModel {
            namespace: "shop".to_owned(),
            name: name.to_owned(),
            task: Task::Anomaly,
            versions: vec![],
            trusted_keys: vec!["key".to_owned()],
        }
    }

    fn shop(profiles: Vec<TraceProfile>) -> BTreeMap<String, Claimants> {
        BTreeMap::from([(
            "shop".to_owned(),
            Claimants::new(profiles.into_iter().map(Arc::new)),
        )])
    }

    #[test]
    fn a_node_traces_what_profiles_select_with_their_models() {
        let mut web = profile("shop", "web", 1);
        web.spec.models = vec!["m1".into(), "gone".into()];
        let pods = [
            Arc::new(pod("shop", "b", "n", &["app"])),
            Arc::new(pod("shop", "a", "n", &["app", "proxy"])),
            Arc::new(pod("other", "c", "n", &["app"])),
        ];
        let fake = Fake {
            models: BTreeMap::from([("m1".to_owned(), Wish::Planned(planned("m1")))]),
            ..Fake::default()
        };
        let spec = plan(&pods, &shop(vec![web]), None, &fake);
        assert_eq!(spec.profiles.len(), 1);
        let profile = &spec.profiles[0];
        let uids: Vec<_> = profile.pods.iter().map(|p| p.uid.as_str()).collect();
        assert_eq!(uids, ["uid-a", "uid-b"]);
        assert_eq!(profile.pods[0].containers[0].id, "id-a-app");
        assert_eq!((profile.window_ms, profile.consecutive_windows), (10_000, 2));
        // One alert a day and pod, of which the widest has two containers, scored by two Models.
        assert_eq!(profile.alerts_per_hour, "0.010416666667");
        assert_eq!(profile.sample_per_mille, 1000);
        assert_eq!(profile.models, ["m1", "gone"]);
        assert_eq!(spec.models, [planned("m1")]);
    }

    #[test]
    fn capture_reaches_the_node_without_names_that_mean_nothing() {
        let mut web = profile("shop", "web", 1);
        web.spec.capture.mode = vigia_crds::CaptureMode::Sampled;
        web.spec.capture.syscalls.include = vec!["network".to_owned(), "raed".to_owned()];
        web.spec.capture.syscalls.exclude = vec!["futex".to_owned()];
        let pods = [Arc::new(pod("shop", "a", "n", &["app"]))];
        let of = |profile: &TraceProfile| {
            let mut spec = plan(&pods, &shop(vec![profile.clone()]), None, &Fake::default());
            spec.profiles.remove(0).capture
        };
        let planned = of(&web);
        assert_eq!(
            (planned.mode, planned.sample_one_in),
            (vigia_crds::CaptureMode::Sampled, 16)
        );
        assert_eq!(planned.syscalls.include, ["network"]);
        assert_eq!(planned.syscalls.exclude, ["futex"]);
    }

    #[test]
    fn a_profile_that_is_wrong_is_wrong_alone() {
        let mut wrong = profile("shop", "older", 1);
        wrong.spec.capture.syscalls.include = vec!["raed".to_owned()];
        wrong.spec.models = vec!["m1".into()];
        let fake = Fake {
            models: BTreeMap::from([("m1".to_owned(), Wish::Planned(planned("m1")))]),
            ..Fake::default()
        };
        let pods = [Arc::new(pod("shop", "a", "n", &["app"]))];
        let alone = plan(&pods, &shop(vec![wrong.clone()]), None, &fake);
        assert_eq!(alone, NodePlanSpec::default());
        let spec = plan(&pods, &shop(vec![wrong, profile("shop", "web", 2)]), None, &fake);
        let names: Vec<_> = spec.profiles.iter().map(|p| p.name.as_str()).collect();
        assert_eq!(names, ["web"], "it holds no container that another one can trace");
    }

    #[test]
    fn nothing_to_trace_is_an_empty_plan() {
        let spec = plan(
            &[],
            &shop(vec![profile("shop", "web", 1)]),
            None,
            &Fake::default(),
        );
        assert_eq!(spec, NodePlanSpec::default());
    }

    #[test]
    fn a_model_that_is_not_decided_yet_stays_as_it_is_planned() {
        let mut web = profile("shop", "web", 1);
        web.spec.models = vec!["m1".into()];
        let pods = [Arc::new(pod("shop", "a", "n", &["app"]))];
        let fake = Fake {
            models: BTreeMap::from([("m1".to_owned(), Wish::Undecided)]),
            ..Fake::default()
        };
        let current = NodePlanSpec {
            profiles: vec![],
            models: vec![planned("m0"), planned("m1")],
        };
        let claimants = shop(vec![web]);
        assert_eq!(
            plan(&pods, &claimants, Some(&current), &fake).models,
            [planned("m1")]
        );
        assert_eq!(plan(&pods, &claimants, None, &fake).models, []);
    }

    #[test]
    fn a_pod_that_is_yet_to_run_brings_its_models_along() {
        let mut web = profile("shop", "web", 1);
        web.spec.models = vec!["m1".into()];
        let fake = Fake {
            models: BTreeMap::from([("m1".to_owned(), Wish::Planned(planned("m1")))]),
            ..Fake::default()
        };
        let mut starting = pod("shop", "a", "n", &[]);
        let spec = plan(
            &[Arc::new(starting.clone())],
            &shop(vec![web.clone()]),
            None,
            &fake,
        );
        assert_eq!((spec.profiles.len(), spec.models.len()), (0, 1));
        starting.ended = true;
        let spec = plan(&[Arc::new(starting)], &shop(vec![web]), None, &fake);
        assert_eq!(spec, NodePlanSpec::default());
    }

    #[test]
    fn a_budget_of_the_profile_is_shared_by_all_its_containers() {
        let mut web = profile("shop", "web", 1);
        web.spec.detection.alert_budget.per = BudgetPer::Profile;
        let pods = [Arc::new(pod("shop", "a", "n", &["app"]))];
        let rate = |containers| {
            let fake = Fake {
                containers,
                ..Fake::default()
            };
            let spec = plan(&pods, &shop(vec![web.clone()]), None, &fake);
            decimal(&spec.profiles[0].alerts_per_hour).expect("a decimal")
        };
        assert!((rate(None) - 1.0 / 24.0).abs() < 1e-9);
        assert!((rate(Some(64)) - 1.0 / 24.0 / 64.0).abs() < 1e-9);
    }

    proptest! {
        #[test]
        fn every_budget_is_a_positive_decimal(count in 1i32..=1000, secs in 60u64..=720 * 3600, shared in 1u32..) {
            let budget = AlertBudget {
                count,
                per: BudgetPer::Pod,
                every: std::time::Duration::from_secs(secs).into(),
            };
            let text = alerts_per_hour(&budget, shared);
            let rate = decimal(&text).map_err(TestCaseError::fail)?;
            prop_assert!(rate > 0.0, "{text}");
            let exact = f64::from(count) * 3600.0 / secs as f64 / f64::from(shared);
            prop_assert!((rate - exact).abs() <= 1e-6 * exact + 1e-12);
        }

        #[test]
        fn sampling_keeps_the_sum_bounded(containers in 1u32..1_000_000) {
            let per_mille = sample_per_mille(containers);
            prop_assert!((1..=1000).contains(&per_mille));
            prop_assert!(per_mille == 1 || u64::from(containers) * per_mille as u64 <= 1000 * u64::from(FULL_SAMPLING.max(containers.min(FULL_SAMPLING))));
        }

        #[test]
        fn the_order_of_pods_changes_nothing(order in Just(vec![0usize, 1, 2, 3, 4]).prop_shuffle()) {
            let pods: Vec<_> = order
                .iter()
                .map(|i| Arc::new(pod("shop", &format!("p{i}"), "n", &["app", "side"])))
                .collect();
            let mut sorted = pods.clone();
            sorted.sort_by(|a, b| a.uid.cmp(&b.uid));
            let claimants = shop(vec![profile("shop", "a", 1), profile("shop", "b", 2)]);
            prop_assert_eq!(
                plan(&pods, &claimants, None, &Fake::default()),
                plan(&sorted, &claimants, None, &Fake::default())
            );
        }
    }
}
