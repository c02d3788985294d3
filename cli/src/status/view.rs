//! What is shown of a cluster. Pure.

use std::collections::BTreeMap;

use anstyle::Style;
use jiff::Timestamp;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt;
use serde::Serialize;
use vigia_crds::conditions::find;
use vigia_crds::{Model, ModelVersion, NodePlan, RunPhase, TraceProfile, TrainingRun};

use super::{Cluster, Seen};
use crate::say;

/// Alerts that are shown, the last ones.
const ALERTS: usize = 10;
/// Nodes that are not ready and shown one by one.
const NODES: usize = 10;

/// A list, or why it is not there.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Part<T> {
    items: Vec<T>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unseen: Option<String>,
}

/// See the module's head.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Overview {
    models: Part<ModelRow>,
    profiles: Part<ProfileRow>,
    trainings: Part<TrainingRow>,
    nodes: Nodes,
    alerts: Part<Alert>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ModelRow {
    namespace: String,
    name: String,
    serving: String,
    versions: usize,
    rollout: String,
    drift: String,
    ready: String,
    message: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ProfileRow {
    namespace: String,
    name: String,
    pods: i32,
    containers: i32,
    nodes: i32,
    ready: String,
    message: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct TrainingRow {
    namespace: String,
    name: String,
    model: String,
    phase: String,
    workers: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Nodes {
    all: usize,
    ready: usize,
    containers: i64,
    /// The first of those that are not ready.
    not_ready: Part<NodeRow>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct NodeRow {
    name: String,
    reason: String,
    message: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Alert {
    at: Option<Timestamp>,
    namespace: String,
    pod: String,
    note: String,
}

fn part<K, T>(seen: &Seen<K>, row: impl Fn(&K) -> T) -> Part<T> {
    Part {
        items: seen.iter().flatten().map(row).collect(),
        unseen: seen.as_ref().err().cloned(),
    }
}

/// Whether an object is ready, and why not.
fn ready(conditions: Option<&Vec<Condition>>) -> (String, String) {
    match conditions.and_then(|all| find(all, "Ready")) {
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
        for version in cluster.versions.iter().flatten() {
            let key = (version.namespace().unwrap_or_default(), model_of(version));
            *versions.entry(key).or_default() += 1;
        }
        let count = |model: &Model| {
            let key = (model.namespace().unwrap_or_default(), model.name_any());
            versions.get(&key).copied().unwrap_or(0)
        };
        let mut trainings = part(&cluster.runs, training);
        let over = [RunPhase::Succeeded, RunPhase::Failed].map(|phase| format!("{phase:?}"));
        trainings.items.retain(|run| !over.contains(&run.phase));
        Self {
            models: part(&cluster.models, |model| model_row(model, count(model))),
            profiles: part(&cluster.profiles, profile),
            trainings,
            nodes: nodes(&cluster.nodes),
            alerts: alerts(&cluster.alerts),
        }
    }

    /// For people.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        section(
            &mut lines,
            "MODELS",
            &[
                "NAMESPACE",
                "NAME",
                "SERVING",
                "VERSIONS",
                "ROLLOUT",
                "DRIFT",
                "READY",
                "MESSAGE",
            ],
            &self.models,
            |m| {
                let versions = m.versions.to_string();
                [
                    &m.namespace,
                    &m.name,
                    &m.serving,
                    &versions,
                    &m.rollout,
                    &m.drift,
                    &m.ready,
                    &m.message,
                ]
                .map(Clone::clone)
                .to_vec()
            },
        );
        section(
            &mut lines,
            "TRACE PROFILES",
            &[
                "NAMESPACE",
                "NAME",
                "PODS",
                "CONTAINERS",
                "NODES",
                "READY",
                "MESSAGE",
            ],
            &self.profiles,
            |p| {
                let [pods, containers, nodes] = [p.pods, p.containers, p.nodes].map(|n| n.to_string());
                vec![
                    p.namespace.clone(),
                    p.name.clone(),
                    pods,
                    containers,
                    nodes,
                    p.ready.clone(),
                    p.message.clone(),
                ]
            },
        );
        if !self.trainings.items.is_empty() || self.trainings.unseen.is_some() {
            section(
                &mut lines,
                "TRAININGS UNDER WAY",
                &["NAMESPACE", "NAME", "MODEL", "PHASE", "WORKERS"],
                &self.trainings,
                |t| {
                    [&t.namespace, &t.name, &t.model, &t.phase, &t.workers]
                        .map(Clone::clone)
                        .to_vec()
                },
            );
        }
        let Nodes {
            all,
            ready,
            containers,
            not_ready,
        } = &self.nodes;
        let nodes = format!("NODES: {ready} of {all} ready, {containers} containers traced");
        section(
            &mut lines,
            &nodes,
            &["NAME", "REASON", "MESSAGE"],
            not_ready,
            |n| vec![n.name.clone(), n.reason.clone(), n.message.clone()],
        );
        section(
            &mut lines,
            "LAST ALERTS",
            &["AT", "NAMESPACE", "POD", "WHAT"],
            &self.alerts,
            |a| {
                let at = a.at.map_or_else(String::new, |at| say::time(at.as_millisecond()));
                vec![at, a.namespace.clone(), a.pod.clone(), a.note.clone()]
            },
        );
        lines
    }
}

/// A title, and a table of what is below it; `none` where there is nothing.
fn section<T>(
    lines: &mut Vec<String>,
    title: &str,
    head: &[&str],
    part: &Part<T>,
    row: impl Fn(&T) -> Vec<String>,
) {
    let bold = Style::new().bold();
    if !lines.is_empty() {
        lines.push(String::new());
    }
    lines.push(format!("{bold}{title}{bold:#}"));
    if let Some(why) = &part.unseen {
        lines.push(format!("  cannot be seen: {}", say::plain(why)));
        return;
    }
    if part.items.is_empty() {
        lines.push("  none".to_owned());
        return;
    }
    // What objects say is not ours: nothing of it may move a cursor.
    let clean = |cell: String| say::plain(&cell).into_owned();
    let mut rows = vec![head.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>()];
    rows.extend(
        part.items
            .iter()
            .map(|item| row(item).into_iter().map(clean).collect()),
    );
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    for row in &rows {
        let cells = row
            .iter()
            .zip(&widths)
            .map(|(cell, &width)| format!("{cell:<width$}"));
        let line = cells.collect::<Vec<_>>().join("  ");
        lines.push(format!("  {}", line.trim_end()));
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
        ready,
        message,
    }
}

fn training(run: &TrainingRun) -> TrainingRow {
    let status = run.status.as_ref();
    let phase = status.and_then(|status| status.phase);
    TrainingRow {
        namespace: run.namespace().unwrap_or_default(),
        name: run.name_any(),
        model: run.spec.model_ref.name.clone(),
        phase: phase.map_or_else(|| "Waiting".to_owned(), |phase| format!("{phase:?}")),
        workers: status
            .and_then(|status| status.workers.clone())
            .unwrap_or_else(|| "-".to_owned()),
    }
}

fn nodes(seen: &Seen<NodePlan>) -> Nodes {
    let all = || seen.iter().flatten();
    let conditions = |plan: &NodePlan| plan.status.as_ref().map(|status| status.conditions.clone());
    let is_ready = |plan: &&NodePlan| ready(conditions(plan).as_ref()).0 == "True";
    let row = |plan: &NodePlan| {
        let conditions = conditions(plan).unwrap_or_default();
        let found = find(&conditions, "Ready");
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
        not_ready: Part {
            items: all()
                .filter(|plan| !is_ready(plan))
                .take(NODES)
                .map(row)
                .collect(),
            unseen: seen.as_ref().err().cloned(),
        },
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
        let node = |name: &str, status: &str| {
            object(json!({
                "metadata": {"name": name}, "spec": {},
                "status": {"targets": 2, "conditions": [condition(status, "no BTF")]},
            }))
        };
        Cluster {
            models: Ok(vec![model]),
            versions: Err("not yours".to_owned()),
            profiles: Ok(vec![]),
            runs: Err("runs is forbidden".to_owned()),
            nodes: Ok(vec![node("n1", "True"), node("n2", "False")]),
            alerts: Ok(vec![
                event("2026-11-21T10:00:00.000000Z", "first"),
                event("2026-11-21T11:00:00.000000Z", "second"),
            ]),
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
  none

TRAININGS UNDER WAY
  cannot be seen: runs is forbidden

NODES: 1 of 2 ready, 4 containers traced
  NAME  REASON   MESSAGE
  n2    Because  no BTF

LAST ALERTS
  AT                    NAMESPACE  POD         WHAT
  2026-11-21T11:00:00Z  shop       checkout-1  second
  2026-11-21T10:00:00Z  shop       checkout-1  first";
        assert_eq!(text, expected);
    }

    #[test]
    fn programs_get_the_same() {
        let document = serde_json::to_value(Overview::of(&cluster())).expect("json");
        assert_eq!(document["models"]["items"][0]["serving"], "m-v1");
        assert_eq!(document["nodes"]["notReady"]["items"][0]["name"], "n2");
        assert_eq!(document["trainings"]["unseen"], "runs is forbidden");
    }
}
