//! What is shown of a cluster. Pure.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{Resource, ResourceExt};
use serde::Serialize;
use vigia_crds::conditions::{READY, RECONCILING, STALLED, find};
use vigia_crds::{Model, ModelVersion, NodePlan, RunPhase, TraceProfile, TrainingRun};

use super::{Cluster, Seen};

/// Reason of a Model's `Ready` where some of its nodes serve and others do not.
const PARTLY: &str = "ServingPartly";
/// Alerts that are shown, the last ones.
const ALERTS: usize = 10;
/// Nodes that are not ready and shown one by one.
const NODES: usize = 10;

/// A list, or why it is not there.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Part<T> {
    pub(super) items: Vec<T>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) unseen: Option<String>,
    /// Objects that cannot be read, and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) unreadable: Vec<String>,
}

impl<T> Part<T> {
    /// Whether there is nothing to say of it.
    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty() && self.unseen.is_none() && self.unreadable.is_empty()
    }
}

/// See the module's head.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Overview {
    pub(super) models: Part<ModelRow>,
    pub(super) profiles: Part<ProfileRow>,
    pub(super) trainings: Part<TrainingRow>,
    pub(super) nodes: Nodes,
    /// Conditions that are not as they should be, beside `Ready`, which is where the object is.
    pub(super) attention: Vec<Attention>,
    pub(super) alerts: Part<Alert>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ModelRow {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) serving: String,
    pub(super) versions: usize,
    pub(super) rollout: String,
    pub(super) drift: String,
    pub(super) ready: String,
    pub(super) message: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ProfileRow {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) pods: i32,
    pub(super) containers: i32,
    pub(super) nodes: i32,
    /// Of the probe, in thousandths of a core.
    pub(super) milli_cores: i64,
    pub(super) calls_lost: i64,
    pub(super) alerts_withheld: i64,
    pub(super) ready: String,
    pub(super) message: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct TrainingRow {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) model: String,
    pub(super) phase: String,
    pub(super) workers: String,
    /// What it does, or waits for.
    pub(super) message: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Nodes {
    pub(super) all: usize,
    pub(super) ready: usize,
    pub(super) containers: i64,
    /// The first of those that are not ready.
    pub(super) not_ready: Part<NodeRow>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct NodeRow {
    pub(super) name: String,
    pub(super) reason: String,
    pub(super) message: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Alert {
    pub(super) at: Option<Timestamp>,
    pub(super) namespace: String,
    pub(super) pod: String,
    /// Windows that it was told for, or alerts that had no room to be told one by one.
    pub(super) times: i32,
    pub(super) note: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Attention {
    pub(super) kind: String,
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) condition: String,
    pub(super) reason: String,
    pub(super) message: String,
}

fn part<K, T>(seen: &Seen<K>, row: impl Fn(&K) -> T) -> Part<T> {
    with(seen, all(seen).map(row).collect())
}

/// Some rows of what was seen.
fn with<K, T>(seen: &Seen<K>, items: Vec<T>) -> Part<T> {
    Part {
        items,
        unseen: seen.as_ref().err().cloned(),
        unreadable: seen
            .as_ref()
            .map_or_else(|_| vec![], |seen| seen.unreadable.clone()),
    }
}

fn all<K>(seen: &Seen<K>) -> impl Iterator<Item = &K> {
    seen.iter().flat_map(|seen| &seen.objects)
}

/// The conditions of objects that somebody should look at. `Ready` and what belongs to it is told where the object is,
/// but for what is ready in part alone.
fn attention<'a, K>(
    seen: &'a Seen<K>,
    conditions: impl Fn(&K) -> Option<&Vec<Condition>> + 'a,
) -> impl Iterator<Item = Attention> + 'a
where
    K: Resource<DynamicType = ()>,
{
    let bad = |condition: &&Condition| match condition.type_.as_str() {
        READY => condition.status == "True" && condition.reason == PARTLY,
        RECONCILING | STALLED => false,
        "Drifted" => condition.status == "True",
        _ => condition.status == "False",
    };
    all(seen).flat_map(move |object| {
        let found = conditions(object).into_iter().flatten().filter(bad);
        let of = |condition: &Condition| Attention {
            kind: K::kind(&()).into_owned(),
            namespace: object.namespace().unwrap_or_default(),
            name: object.name_any(),
            condition: condition.type_.clone(),
            reason: condition.reason.clone(),
            message: condition.message.clone(),
        };
        found.map(of).collect::<Vec<_>>()
    })
}

/// Whether an object is ready, and why not.
fn ready(conditions: Option<&Vec<Condition>>) -> (String, String) {
    match conditions.and_then(|all| find(all, READY)) {
        Some(ready) if ready.status == "True" => ("True".to_owned(), String::new()),
        Some(ready) => (ready.status.clone(), ready.message.clone()),
        None => (
            "Unknown".to_owned(),
            "the operator has not looked at it yet".to_owned(),
        ),
    }
}

impl Overview {
    /// What there is to say.
    pub(super) fn of(cluster: &Cluster) -> Self {
        let mut versions: BTreeMap<(String, String), usize> = BTreeMap::new();
        for version in all(&cluster.versions) {
            let key = (version.namespace().unwrap_or_default(), model_of(version));
            *versions.entry(key).or_default() += 1;
        }
        let count = |model: &Model| {
            let key = (model.namespace().unwrap_or_default(), model.name_any());
            versions.get(&key).copied().unwrap_or(0)
        };
        let queues = queues(&cluster.runs);
        let mut trainings = part(&cluster.runs, |run| training(run, &queues));
        let over = [RunPhase::Succeeded, RunPhase::Failed].map(|phase| format!("{phase:?}"));
        trainings.items.retain(|run| !over.contains(&run.phase));
        Self {
            models: part(&cluster.models, |model| model_row(model, count(model))),
            profiles: part(&cluster.profiles, profile),
            trainings,
            nodes: nodes(&cluster.nodes),
            attention: attention(&cluster.models, |m| m.status.as_ref().map(|s| &s.conditions))
                .chain(attention(&cluster.versions, |v| {
                    v.status.as_ref().map(|s| &s.conditions)
                }))
                .chain(attention(&cluster.profiles, |p| {
                    p.status.as_ref().map(|s| &s.conditions)
                }))
                .chain(attention(&cluster.nodes, |n| {
                    n.status.as_ref().map(|s| &s.conditions)
                }))
                .collect(),
            alerts: alerts(&cluster.alerts),
        }
    }
}

fn model_of(version: &ModelVersion) -> String {
    version.spec.model_ref.name.clone()
}

fn model_row(model: &Model, versions: usize) -> ModelRow {
    let status = model.status.as_ref();
    let (ready, message) = ready(status.map(|status| &status.conditions));
    let rollout = status.and_then(|status| status.rollout.as_ref());
    ModelRow {
        namespace: model.namespace().unwrap_or_default(),
        name: model.name_any(),
        serving: status
            .and_then(|status| status.serving.as_ref())
            .map_or_else(|| "-".to_owned(), |serving| serving.name.clone()),
        versions,
        rollout: rollout.map_or_else(
            || "-".to_owned(),
            |rollout| {
                format!(
                    "{} {:?} {}",
                    rollout.version.name, rollout.phase, rollout.progress
                )
            },
        ),
        drift: status
            .and_then(|status| status.drift.as_ref())
            .map_or_else(|| "-".to_owned(), |drift| drift.value.clone()),
        ready,
        message,
    }
}

fn profile(profile: &TraceProfile) -> ProfileRow {
    let status = profile.status.as_ref();
    let (ready, message) = ready(status.map(|status| &status.conditions));
    ProfileRow {
        namespace: profile.namespace().unwrap_or_default(),
        name: profile.name_any(),
        pods: status.map_or(0, |status| status.matched_pods),
        containers: status.map_or(0, |status| status.traced_containers),
        nodes: status.map_or(0, |status| status.nodes),
        milli_cores: status.map_or(0, |status| status.overhead.milli_cores),
        calls_lost: status.map_or(0, |status| status.lost),
        alerts_withheld: status.map_or(0, |status| status.alerts_withheld),
        ready,
        message,
    }
}

/// The runs of each namespace that wait for their turn, in the order in which they get it: by age.
type Queues = BTreeMap<String, BTreeSet<(Option<Timestamp>, String)>>;

fn queues(runs: &Seen<TrainingRun>) -> Queues {
    let mut queues = Queues::new();
    let waits =
        |run: &&TrainingRun| run.status.as_ref().and_then(|status| status.phase) == Some(RunPhase::Queued);
    for run in all(runs).filter(waits) {
        let queue = queues.entry(run.namespace().unwrap_or_default()).or_default();
        queue.insert(in_queue(run));
    }
    queues
}

fn in_queue(run: &TrainingRun) -> (Option<Timestamp>, String) {
    (run.creation_timestamp().map(|at| at.0), run.name_any())
}

fn training(run: &TrainingRun, queues: &Queues) -> TrainingRow {
    let status = run.status.as_ref();
    let phase = status.and_then(|status| status.phase);
    let message = ready(status.map(|status| &status.conditions)).1;
    let queue = queues.get(&run.namespace().unwrap_or_default());
    let place = queue.and_then(|queue| {
        Some((
            queue.iter().position(|one| *one == in_queue(run))? + 1,
            queue.len(),
        ))
    });
    let message = match place {
        Some((place, of)) => format!("{place} of {of} in its namespace: {message}"),
        None => message,
    };
    TrainingRow {
        namespace: run.namespace().unwrap_or_default(),
        name: run.name_any(),
        model: run.spec.model_ref.name.clone(),
        phase: phase.map_or_else(|| "Waiting".to_owned(), |phase| format!("{phase:?}")),
        workers: status
            .and_then(|status| status.workers.clone())
            .unwrap_or_else(|| "-".to_owned()),
        message,
    }
}

fn nodes(seen: &Seen<NodePlan>) -> Nodes {
    let all = || all(seen);
    let conditions = |plan: &NodePlan| plan.status.as_ref().map(|status| status.conditions.clone());
    let is_ready = |plan: &&NodePlan| ready(conditions(plan).as_ref()).0 == "True";
    let row = |plan: &NodePlan| {
        let conditions = conditions(plan).unwrap_or_default();
        let found = find(&conditions, READY);
        NodeRow {
            name: plan.name_any(),
            reason: found.map_or_else(|| "NoAgent".to_owned(), |ready| ready.reason.clone()),
            message: found.map_or_else(
                || "no agent has reported from this node".to_owned(),
                |ready| ready.message.clone(),
            ),
        }
    };
    Nodes {
        all: all().count(),
        ready: all().filter(is_ready).count(),
        containers: all()
            .filter_map(|plan| plan.status.as_ref())
            .map(|status| i64::from(status.targets))
            .sum(),
        not_ready: with(
            seen,
            all()
                .filter(|plan| !is_ready(plan))
                .take(NODES)
                .map(row)
                .collect(),
        ),
    }
}

/// The last alerts, the newest first.
fn alerts(seen: &Seen<Event>) -> Part<Alert> {
    let mut part = part(seen, |event| {
        let last = event.series.as_ref().map(|series| series.last_observed_time.0);
        let pod = event.regarding.as_ref();
        Alert {
            at: last.or_else(|| event.event_time.as_ref().map(|time| time.0)),
            namespace: event.namespace().unwrap_or_default(),
            pod: pod.and_then(|pod| pod.name.clone()).unwrap_or_default(),
            times: event.series.as_ref().map_or(1, |series| series.count),
            note: event.note.clone().unwrap_or_default(),
        }
    });
    part.items.sort_by_key(|alert| std::cmp::Reverse(alert.at));
    part.items.truncate(ALERTS);
    part
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::Listed;
    use serde_json::{Value, json};

    fn object<K: serde::de::DeserializeOwned>(value: Value) -> K {
        serde_json::from_value(value).expect("an object")
    }

    fn condition(status: &str, message: &str) -> Value {
        json!({"type": "Ready", "status": status, "reason": "Because", "message": message,
               "lastTransitionTime": "2026-11-21T10:00:00Z"})
    }

    fn event(at: &str, note: &str) -> Event {
        object(json!({
            "metadata": {"name": "e", "namespace": "shop"}, "eventTime": at, "note": note,
            "regarding": {"kind": "Pod", "name": "checkout-1"},
        }))
    }

    fn listed<K>(objects: Vec<K>) -> Seen<K> {
        Ok(Listed {
            objects,
            unreadable: vec![],
        })
    }

    fn cluster() -> Cluster {
        let digest = format!("sha256:{}", "0".repeat(64));
        let model = object(json!({
            "metadata": {"name": "m", "namespace": "shop"}, "spec": {"task": "Anomaly"},
            "status": {
                "serving": {"name": "m-v1", "digest": digest},
                "rollout": {"version": {"name": "m-v2", "digest": digest}, "phase": "Progressing", "step": 0,
                            "progress": "1/3 Shadow 1/1", "startedAt": "2026-11-21T10:00:00Z"},
                "conditions": [condition("False", "a gate\u{1b}[2J waits")],
            },
        }));
        let mut goes_on = event("2026-11-21T11:00:00.000000Z", "second");
        goes_on.series = object(json!({"count": 4, "lastObservedTime": "2026-11-21T11:00:30.000000Z"}));
        let node = |name: &str, status: &str| {
            object(json!({
                "metadata": {"name": name}, "spec": {},
                "status": {"targets": 2, "conditions": [condition(status, "no BTF")]},
            }))
        };
        let mut told = condition("False", "2 windows would have been told");
        told["type"] = json!("AlertsTold");
        let profile = object(json!({
            "metadata": {"name": "web", "namespace": "shop"}, "spec": {"podSelector": {}},
            "status": {"matchedPods": 2, "tracedContainers": 3, "nodes": 1, "alertsWithheld": 2,
                       "conditions": [condition("True", ""), told]},
        }));
        Cluster {
            models: listed(vec![model]),
            versions: Err("not yours".to_owned()),
            profiles: listed(vec![profile]),
            runs: Err("runs is forbidden".to_owned()),
            nodes: listed(vec![node("n1", "True"), node("n2", "False")]),
            alerts: listed(vec![event("2026-11-21T10:00:00.000000Z", "first"), goes_on]),
        }
    }

    #[test]
    fn one_screen_says_it_all() {
        let lines = Overview::of(&cluster()).lines();
        let text = anstream::adapter::strip_str(&lines.join("\n")).to_string();
        let expected = r"MODELS
  NAMESPACE  NAME  SERVING  VERSIONS  ROLLOUT                          DRIFT  READY  MESSAGE
  shop       m     m-v1     0         m-v2 Progressing 1/3 Shadow 1/1  -      False  a gate\u{1b}[2J waits

TRACE PROFILES
  NAMESPACE  NAME  PODS  CONTAINERS  NODES  WITHHELD  READY  MESSAGE
  shop       web   2     3           1      2         True

TRAININGS UNDER WAY
  cannot be seen: runs is forbidden

NODES: 1 of 2 ready, 4 containers traced
  NAME  REASON   MESSAGE
  n2    Because  no BTF

TO LOOK AT
  KIND          NAMESPACE  NAME  CONDITION   REASON   MESSAGE
  TraceProfile  shop       web   AlertsTold  Because  2 windows would have been told

LAST ALERTS
  AT                    NAMESPACE  POD         TIMES  WHAT
  2026-11-21T11:00:30Z  shop       checkout-1  4      second
  2026-11-21T10:00:00Z  shop       checkout-1  1      first";
        assert_eq!(text, expected);
    }

    #[test]
    fn what_serves_on_some_nodes_alone_is_to_be_looked_at() {
        let mut cluster = cluster();
        let listed = cluster.models.as_mut().expect("seen");
        let status = listed.objects[0].status.as_mut().expect("a status");
        let why = "m-v1 serves on 1 of 2 nodes, not on n2 (Fetching)";
        status.conditions[0].status = "True".to_owned();
        status.conditions[0].message = why.to_owned();
        let said = |cluster: &Cluster| Overview::of(cluster).attention.len();
        let before = said(&cluster);
        let listed = cluster.models.as_mut().expect("seen");
        let status = listed.objects[0].status.as_mut().expect("a status");
        status.conditions[0].reason = PARTLY.to_owned();
        assert_eq!(said(&cluster), before + 1);
        let first = &Overview::of(&cluster).attention[0];
        assert_eq!(
            (first.reason.as_str(), first.message.as_str()),
            ("ServingPartly", why)
        );
    }

    #[test]
    fn a_training_that_waits_for_its_turn_says_so_with_its_place() {
        let run = |namespace: &str, name: &str, at: &str, phase: &str, message: &str| {
            object(json!({
                "metadata": {"name": name, "namespace": namespace, "creationTimestamp": at},
                "spec": {"modelRef": {"name": "m"}},
                "status": {"phase": phase, "conditions": [condition("False", message)]},
            }))
        };
        let waits = "waits for its turn: at most 1 training at once";
        let cluster = Cluster {
            runs: listed(vec![
                run("shop", "young", "2026-11-21T10:03:00Z", "Queued", waits),
                run("shop", "old", "2026-11-21T10:02:00Z", "Queued", waits),
                run("bank", "other", "2026-11-21T10:01:00Z", "Queued", waits),
                run(
                    "shop",
                    "first",
                    "2026-11-21T10:00:00Z",
                    "Training",
                    "training on 9 windows",
                ),
            ]),
            ..cluster()
        };
        let said: Vec<String> = Overview::of(&cluster)
            .trainings
            .items
            .into_iter()
            .map(|run| run.message)
            .collect();
        let place = |place: &str| format!("{place} in its namespace: {waits}");
        assert_eq!(
            said,
            [
                place("2 of 2"),
                place("1 of 2"),
                place("1 of 1"),
                "training on 9 windows".to_owned()
            ]
        );
        let lines = Overview::of(&cluster).lines();
        let line = lines.iter().find(|line| line.contains("old"));
        let expected = format!(
            "  shop       old    m      Queued    -        {}",
            place("1 of 2")
        );
        assert_eq!(line, Some(&expected));
    }

    #[test]
    fn programs_get_the_same() {
        let document = serde_json::to_value(Overview::of(&cluster())).expect("json");
        assert_eq!(document["models"]["items"][0]["serving"], "m-v1");
        assert_eq!(document["profiles"]["items"][0]["alertsWithheld"], 2);
        assert_eq!(document["attention"][0]["condition"], "AlertsTold");
        assert_eq!(document["nodes"]["notReady"]["items"][0]["name"], "n2");
        assert_eq!(document["trainings"]["unseen"], "runs is forbidden");
    }
}
