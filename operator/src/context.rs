//! What every controller and the gRPC server are given.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, PoisonError, RwLock};

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Node;
use kube::Client;
use kube::runtime::reflector::{ObjectRef, Store as Cache};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use vigia_crds::{Model, ModelVersion, NodePlan, RetrainingPolicy, TraceProfile, TrainingRun};

use crate::apply::Door;
use crate::config::Config;
use crate::controller::Trigger;
use crate::events::Events;
use crate::health::Health;
use crate::metrics::Metrics;
use crate::model::assign::Assignments;
use crate::model::revoked::Revocations;
use crate::modelversion::Artifacts;
use crate::nodeplan::claim::Claimants;
use crate::observed::Observations;
use crate::pods::Pods;
use crate::signing::OperatorKey;
use crate::store::Store;
use crate::telemetry::Telemetry;
use crate::traceprofile::Shares;
use crate::traceprofile::observed::{Source, sources};
use crate::trainingrun::turn::Turns;
use crate::watch::Unreadable;

/// What every controller and the gRPC server are given.
pub struct Context {
    /// Client of the API server, for reads that no cache has. Writes go through [`Context::door`].
    pub client: Client,
    /// What the operator was told at its start.
    pub config: Config,
    /// The one way to write.
    pub door: Door,
    /// The one way to say something to people.
    pub events: Events,
    /// The way to tell an OpenTelemetry collector.
    pub telemetry: Telemetry,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// Whether the operator is ready.
    pub health: Arc<Health>,
    /// What the API server has, as far as it is of interest.
    pub caches: Caches,
    /// What of it cannot be read.
    pub unreadable: Unreadable,
    /// How to ask for a reconcile.
    pub triggers: Triggers,
    /// Artifacts and samples.
    pub store: Arc<Store>,
    /// What agents reported.
    pub observations: Arc<Observations>,
    /// The key that signs artifacts.
    pub key: Arc<OperatorKey>,
    /// What nodes are told of each Model.
    pub assignments: Assignments,
    /// Versions that were revoked.
    pub revocations: Revocations,
    /// What is known of the artifacts that were verified.
    pub artifacts: Artifacts,
    /// How many containers share each profile's budget.
    pub shares: Shares,
    /// The right to choose a run's windows, which takes memory: one run at a time.
    pub preparing: Semaphore,
    /// Whose turn it is to train.
    pub turns: Turns,
    /// Cancelled when the operator ends or is no longer the leader.
    pub shutdown: CancellationToken,
}

impl Context {
    /// Whether a node is Ready and runs an agent, which is a pod of the agents' service account.
    pub fn reachable(&self, node: &str) -> bool {
        let is_ready = |node: &Node| {
            let conditions = node.status.iter().flat_map(|s| s.conditions.iter().flatten());
            conditions
                .into_iter()
                .any(|c| c.type_ == "Ready" && c.status == "True")
        };
        let agent = || {
            self.caches.pods.on_node(node).iter().any(|pod| {
                pod.namespace == self.config.namespace
                    && pod.service_account == self.config.agent_service_account
                    && !pod.ended
                    && !pod.containers.is_empty()
            })
        };
        self.caches
            .nodes
            .get(&ObjectRef::new(node))
            .is_some_and(|n| is_ready(&n))
            && agent()
    }
}

/// Reflections of the API server's objects. All are full before a controller starts.
pub struct Caches {
    /// Nodes: name, UID, labels and whether they are Ready; all else is cut off.
    pub nodes: Cache<Node>,
    /// NodePlans.
    pub plans: Cache<NodePlan>,
    /// TraceProfiles.
    pub profiles: Cache<TraceProfile>,
    /// Models.
    pub models: Cache<Model>,
    /// ModelVersions.
    pub versions: Cache<ModelVersion>,
    /// RetrainingPolicies.
    pub policies: Cache<RetrainingPolicy>,
    /// TrainingRuns.
    pub runs: Cache<TrainingRun>,
    /// Jobs of the operator's namespace.
    pub jobs: Cache<Job>,
    /// All pods.
    pub pods: Pods,
    /// Names of the profiles of each namespace.
    pub profile_names: Names,
    /// Names of the versions of each Model.
    pub version_names: Names,
    /// Names of the policies of each Model.
    pub policy_names: Names,
    /// Names of the nodes that withheld alerts of each profile of late, or keep less of it than it wants, whether or not
    /// they have a pod of it now.
    pub told_on: Names,
}

impl Caches {
    /// The profiles of a namespace, by name.
    pub fn profiles_in(&self, namespace: &str) -> Vec<Arc<TraceProfile>> {
        let names = self.profile_names.of(namespace, "");
        let get = |name: &String| self.profiles.get(&ObjectRef::new(name).within(namespace));
        names.iter().filter_map(get).collect()
    }

    /// The profiles whose windows a Model scores and is trained on, by name.
    pub fn profiles_naming(&self, namespace: &str, model: &str) -> Vec<Arc<TraceProfile>> {
        let mut profiles = self.profiles_in(namespace);
        profiles.retain(|p| p.spec.models.iter().any(|m| m.name == model));
        profiles
    }

    /// The same without those of which others trace everything, and how many of them come first because they have
    /// something that runs: the rest waits for that.
    pub fn profiles_of(&self, namespace: &str, model: &str) -> (Vec<Arc<TraceProfile>>, usize) {
        let claimants = Claimants::new(self.profiles_in(namespace));
        let pods = self.pods.in_namespace(namespace);
        let (mut run, mut wait) = (vec![], vec![]);
        let profiles = self.profiles_naming(namespace, model);
        let sources = sources(&profiles, &claimants, &pods);
        for (profile, source) in profiles.into_iter().zip(sources) {
            match source {
                Source::Runs => run.push(profile),
                Source::Waits => wait.push(profile),
                Source::Others => {}
            }
        }
        let running = run.len();
        run.append(&mut wait);
        (run, running)
    }

    /// The versions of a Model, by name.
    pub fn versions_of(&self, namespace: &str, model: &str) -> Vec<Arc<ModelVersion>> {
        let names = self.version_names.of(namespace, model);
        let get = |name: &String| self.versions.get(&ObjectRef::new(name).within(namespace));
        names.iter().filter_map(get).collect()
    }

    /// The Model of this name.
    pub fn model(&self, namespace: &str, name: &str) -> Option<Arc<Model>> {
        self.models.get(&ObjectRef::new(name).within(namespace))
    }

    /// The plan of a node.
    pub fn plan(&self, node: &str) -> Option<Arc<NodePlan>> {
        self.plans.get(&ObjectRef::new(node))
    }
}

/// Names by namespace and by what they belong to: an index beside a cache.
#[derive(Debug, Default)]
pub struct Names(RwLock<HashMap<(String, String), BTreeSet<String>>>);

impl Names {
    /// Adds a name.
    pub fn put(&self, namespace: &str, of: &str, name: &str) {
        let mut names = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let key = (namespace.to_owned(), of.to_owned());
        names.entry(key).or_default().insert(name.to_owned());
    }

    /// Takes a name away.
    pub fn take(&self, namespace: &str, of: &str, name: &str) {
        let mut names = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let key = (namespace.to_owned(), of.to_owned());
        if let Some(set) = names.get_mut(&key) {
            set.remove(name);
            if set.is_empty() {
                names.remove(&key);
            }
        }
    }

    /// The names, sorted.
    pub fn of(&self, namespace: &str, of: &str) -> Vec<String> {
        let names = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let set = names.get(&(namespace.to_owned(), of.to_owned()));
        set.into_iter().flatten().cloned().collect()
    }
}

/// How to ask for a reconcile of an object of each kind.
#[derive(Clone, Default)]
pub struct Triggers {
    /// NodePlans, by their Node.
    pub nodes: Arc<Trigger<Node>>,
    /// TraceProfiles.
    pub profiles: Arc<Trigger<TraceProfile>>,
    /// Models.
    pub models: Arc<Trigger<Model>>,
    /// ModelVersions.
    pub versions: Arc<Trigger<ModelVersion>>,
    /// RetrainingPolicies: by themselves, their Model and its TrainingRuns.
    pub policies: Arc<Trigger<RetrainingPolicy>>,
    /// TrainingRuns: by themselves, their Job and its pods.
    pub runs: Arc<Trigger<TrainingRun>>,
}
