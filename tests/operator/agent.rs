//! Agents that are not real: they verify and "run" what their plan says, and report scores, but
//! trace nothing. What is real is all that crosses the API: the plan, the artifact, the status.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;
use tokio::task::JoinHandle;
use vigia_crds::{
    NodePlan, PlannedModel, PlannedVersion, ProfileOnNode, VersionMode, VersionOnNode, VersionState,
    WithheldAlert,
};
use vigia_model::artifact as apr;
use vigia_model::histogram::ScoreHistogram;
use vigia_model::keys::{PublicKey, TrustedKeys};
use vigia_operator::context::Context;
use vigia_operator::store::Summary;

use crate::artifact;

/// The operator that agents talk to, while there is one.
pub type Line = Arc<RwLock<Option<Arc<Context>>>>;

/// What the tests make agents do.
#[derive(Debug, Default)]
pub struct Habits {
    /// Versions that raise an alert on every second window.
    pub noisy: BTreeSet<String>,
    /// Nodes whose agent is silent, as after a power cut.
    pub silent: BTreeSet<String>,
    /// Nodes that refuse a version, whatever it is.
    pub refusing: BTreeMap<String, String>,
    /// Windows that nodes hold back of each profile, because the alert budget is spent.
    pub withheld: BTreeMap<String, i64>,
}

/// The agent of one node.
pub struct FakeAgent {
    task: JoinHandle<()>,
}

impl Drop for FakeAgent {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl FakeAgent {
    /// Starts it.
    pub fn start(client: Client, node: &str, line: Line, habits: Arc<Mutex<Habits>>) -> Self {
        let node = node.to_owned();
        let task = tokio::spawn(async move {
            let mut agent = Agent {
                api: Api::all(client),
                node,
                line,
                habits,
                held: BTreeMap::new(),
            };
            let mut tick = tokio::time::interval(Duration::from_millis(100));
            loop {
                tick.tick().await;
                // What fails now is tried again with the next tick, as a real agent does.
                let _ = agent.tick().await;
            }
        });
        Self { task }
    }
}

struct Agent {
    api: Api<NodePlan>,
    node: String,
    line: Line,
    habits: Arc<Mutex<Habits>>,
    /// What was found of each artifact: nothing wrong, or what.
    held: BTreeMap<String, Option<(String, String)>>,
}

impl Agent {
    async fn tick(&mut self) -> Result<()> {
        let is_silent = self.habits.lock().expect("no panic").silent.contains(&self.node);
        if is_silent {
            return Ok(());
        }
        let Some(plan) = self.api.get_opt(&self.node).await? else {
            return Ok(());
        };
        let mut versions = Vec::new();
        for model in &plan.spec.models {
            for version in &model.versions {
                versions.push(self.take_up(&plan, model, version).await);
            }
        }
        let alerts_withheld = {
            let habits = self.habits.lock().expect("no panic");
            habits.withheld.get(&self.node).copied().unwrap_or_default()
        };
        let withheld_alert = (alerts_withheld > 0).then(|| WithheldAlert {
            at: Time(Timestamp::UNIX_EPOCH),
            pod: "web-2".to_owned(),
            container: "app".to_owned(),
            model: "m".to_owned(),
            estimator: "Novelty".to_owned(),
        });
        let mut profiles: Vec<ProfileOnNode> = plan
            .spec
            .profiles
            .iter()
            .map(|p| ProfileOnNode {
                namespace: p.namespace.clone(),
                name: p.name.clone(),
                containers: p.pods.iter().map(|pod| pod.containers.len() as i32).sum(),
                overhead_micro_cores: 2000,
                // What is traced here costs more than this, and less than any other budget.
                alerts_withheld,
                withheld_alert: withheld_alert.clone(),
                over_budget: p.budget.as_ref().is_some_and(|budget| budget.cpu == "1m"),
                ..ProfileOnNode::default()
            })
            .collect();
        self.score(&versions);
        let mut status = plan.status.clone().unwrap_or_default();
        // What was withheld of a profile is still said where the node has no pod of it any more.
        let is_away = |one: &&ProfileOnNode| {
            let planned = profiles.iter().map(|p| (&p.namespace, &p.name));
            alerts_withheld > 0 && planned.clone().all(|p| p != (&one.namespace, &one.name))
        };
        let away: Vec<ProfileOnNode> = status.profiles.iter().filter(is_away).cloned().collect();
        profiles.extend(away.into_iter().map(|one| ProfileOnNode {
            namespace: one.namespace,
            name: one.name,
            alerts_withheld,
            withheld_alert: withheld_alert.clone(),
            ..ProfileOnNode::default()
        }));
        status.observed_generation = plan.metadata.generation.unwrap_or(0);
        status.targets = profiles.iter().map(|p| p.containers).sum();
        status.profiles = profiles;
        status.versions = versions;
        status.agent_version = "test".to_owned();
        if plan.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let body = json!({"apiVersion": "vigia.dev/v1alpha1", "kind": "NodePlan", "status": status});
        let params = PatchParams::apply("vigia-agent").force();
        self.api
            .patch_status(&self.node, &params, &Patch::Apply(&body))
            .await?;
        Ok(())
    }

    async fn take_up(
        &mut self,
        plan: &NodePlan,
        model: &PlannedModel,
        version: &PlannedVersion,
    ) -> VersionOnNode {
        if !self.held.contains_key(&version.digest)
            && let Ok(found) = self.fetch(model, version).await
        {
            self.held.insert(version.digest.clone(), found);
        }
        let refusing =
            self.habits.lock().expect("no panic").refusing.get(&self.node) == Some(&version.digest);
        let (state, why) = match self.held.get(&version.digest) {
            _ if refusing => (
                VersionState::Refused,
                Some(("InvalidModel".to_owned(), "as the test says".to_owned())),
            ),
            None => (VersionState::Fetching, None),
            Some(Some(why)) => (VersionState::Refused, Some(why.clone())),
            Some(None) => (
                match version.mode {
                    VersionMode::Prefetch => VersionState::Prefetched,
                    VersionMode::Shadow => VersionState::Shadow,
                    VersionMode::Active => VersionState::Active,
                },
                None,
            ),
        };
        let (reason, message) = why.unwrap_or_default();
        let before = plan.status.iter().flat_map(|s| &s.versions);
        let since = before
            .filter(|v| v.digest == version.digest && v.model == model.name && v.state == state)
            .map(|v| v.since.clone())
            .next();
        VersionOnNode {
            namespace: model.namespace.clone(),
            model: model.name.clone(),
            digest: version.digest.clone(),
            state,
            reason,
            message,
            since: since.unwrap_or_else(|| {
                // Whole seconds, as the API keeps them.
                Time(Timestamp::from_second(Timestamp::now().as_second()).expect("now"))
            }),
        }
    }

    /// Fetches an artifact from the operator's store and verifies it as a real agent does.
    async fn fetch(
        &self,
        model: &PlannedModel,
        version: &PlannedVersion,
    ) -> Result<Option<(String, String)>> {
        let context = self.operator().context("no operator")?;
        let bytes = context.store.get_artifact(&version.digest).await?;
        let mut trusted = TrustedKeys::default();
        for key in &model.trusted_keys {
            trusted.extend([PublicKey::parse(key)?]);
        }
        Ok(match apr::open(&bytes, &trusted, apr::Task::Anomaly) {
            Ok(opened) if opened.digest.to_string() == version.digest => None,
            Ok(_) => Some(("DigestMismatch".to_owned(), String::new())),
            Err(error) => Some((error.reason().to_owned(), error.to_string())),
        })
    }

    fn operator(&self) -> Option<Arc<Context>> {
        self.line.read().expect("no panic").clone()
    }

    /// Twenty windows since the last tick, of each version that scores.
    fn score(&self, versions: &[VersionOnNode]) {
        let Some(context) = self.operator() else { return };
        let now = Timestamp::now();
        for version in versions {
            if !matches!(version.state, VersionState::Shadow | VersionState::Active) {
                continue;
            }
            let noisy = self
                .habits
                .lock()
                .expect("no panic")
                .noisy
                .contains(&version.digest);
            let histogram = if noisy {
                let mut far = ScoreHistogram::default();
                *far.counts.last_mut().expect("bins") = 20;
                far
            } else {
                artifact::reference()
            };
            context.observations.add(
                &Summary {
                    namespace: version.namespace.clone(),
                    model: version.model.clone(),
                    digest: version.digest.clone(),
                    node: self.node.clone(),
                    start_ms: now.as_millisecond(),
                    last_ms: now.as_millisecond(),
                    windows: 20,
                    above_threshold: if noisy { 10 } else { 0 },
                    histogram: histogram.counts.to_vec(),
                },
                now,
            );
        }
    }
}
