//! Keeps the caches as the API server is, and asks for the reconciles that a change calls for.
//!
//! One watch a kind. What a change touches is found through indexes: a pod's event costs the
//! profiles of its namespace, never a walk over nodes or plans.

mod changes;
mod unreadable;

use std::collections::{BTreeSet, HashMap};
use std::fmt::Debug;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Node, NodeSpec, NodeStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::DeserializeGuard;
use kube::runtime::WatchStreamExt;
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{self, ObjectRef};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::task::JoinSet;
use vigia_crds::{Model, ModelVersion, NodePlan, RetrainingPolicy, TraceProfile, TrainingRun};

use self::changes::pod;
pub use self::unreadable::Unreadable;
use self::unreadable::readable;
use crate::context::{Caches, Context, Names};
use crate::pods::{Pods, WatchedPod};

/// Label of a training Job and its pods: namespace of the TrainingRun.
pub const RUN_NAMESPACE: &str = "vigia.dev/run-namespace";
/// Label of a training Job and its pods: name of the TrainingRun.
pub const RUN_NAME: &str = "vigia.dev/run-name";

/// The writing ends of [`Caches`].
pub struct Writers {
    nodes: Writer<Node>,
    plans: Writer<NodePlan>,
    profiles: Writer<TraceProfile>,
    models: Writer<Model>,
    versions: Writer<ModelVersion>,
    policies: Writer<RetrainingPolicy>,
    runs: Writer<TrainingRun>,
    jobs: Writer<Job>,
}

/// Empty caches and their writing ends.
pub fn caches() -> (Caches, Writers) {
    let (nodes, nodes_writer) = reflector::store();
    let (plans, plans_writer) = reflector::store();
    let (profiles, profiles_writer) = reflector::store();
    let (models, models_writer) = reflector::store();
    let (versions, versions_writer) = reflector::store();
    let (policies, policies_writer) = reflector::store();
    let (runs, runs_writer) = reflector::store();
    let (jobs, jobs_writer) = reflector::store();
    (
        Caches {
            nodes,
            plans,
            profiles,
            models,
            versions,
            policies,
            runs,
            jobs,
            pods: Pods::default(),
            profile_names: Names::default(),
            version_names: Names::default(),
            policy_names: Names::default(),
            told_on: Names::default(),
        },
        Writers {
            nodes: nodes_writer,
            plans: plans_writer,
            profiles: profiles_writer,
            models: models_writer,
            versions: versions_writer,
            policies: policies_writer,
            runs: runs_writer,
            jobs: jobs_writer,
        },
    )
}

/// Starts every watch in `tasks`; what it returns is done once all caches are full, and says
/// whether they are: a shutdown may come before.
pub fn start(
    context: &Arc<Context>,
    writers: Writers,
    tasks: &mut JoinSet<()>,
) -> impl Future<Output = bool> + Send + use<> {
    let client = || context.client.clone();
    let jobs = Api::namespaced(client(), &context.config.namespace);
    // One line a kind: cut down, indexed, and what it concerns.
    macro_rules! watch {
        ($cache:ident, $api:expr, $trim:expr, $index:expr, $changed:expr) => {
            let effects = Effects {
                trim: $trim,
                index: $index,
                changed: $changed,
            };
            tasks.spawn(follow(context.clone(), $api, writers.$cache, effects));
        };
    }
    watch!(nodes, Api::all(client()), trim_node, no_index, changes::node);
    watch!(
        plans,
        Api::all(client()),
        trim,
        changes::index_plan,
        changes::plan
    );
    watch!(
        profiles,
        Api::all(client()),
        trim,
        changes::index_profile,
        changes::profile
    );
    watch!(models, Api::all(client()), trim, no_index, changes::model);
    watch!(
        versions,
        Api::all(client()),
        trim,
        changes::index_version,
        changes::version
    );
    watch!(
        policies,
        Api::all(client()),
        trim,
        changes::index_policy,
        changes::policy
    );
    watch!(runs, Api::all(client()), trim, no_index, changes::run);
    watch!(jobs, jobs, trim, no_index, changes::job);
    let (pods_full, mut pods_are_full) = watch::channel(false);
    tasks.spawn(follow_pods(context.clone(), client(), pods_full));
    let context = context.clone();
    async move {
        let caches = &context.caches;
        let all = async {
            tokio::join!(
                caches.nodes.wait_until_ready(),
                caches.plans.wait_until_ready(),
                caches.profiles.wait_until_ready(),
                caches.models.wait_until_ready(),
                caches.versions.wait_until_ready(),
                caches.policies.wait_until_ready(),
                caches.runs.wait_until_ready(),
                caches.jobs.wait_until_ready(),
                async { pods_are_full.wait_for(|full| *full).await.is_ok() },
            )
        };
        context.shutdown.run_until_cancelled(all).await.is_some()
    }
}

fn no_index<K>(_: &Context, _: &Change<'_, K>) {}

/// What became of an object: what it was, and what it is.
struct Change<'a, K> {
    old: Option<&'a K>,
    new: Option<&'a K>,
}

impl<'a, K> Change<'a, K> {
    fn each(&self) -> impl Iterator<Item = &'a K> {
        self.old.into_iter().chain(self.new)
    }
}

/// What is done with the changes of a kind.
struct Effects<K> {
    /// Cuts an object down before it is kept.
    trim: fn(&mut K),
    /// Keeps the indexes beside the cache. Of a first list, before the cache counts as full: who
    /// waits for that must find through an index whatever is in the cache.
    index: fn(&Context, &Change<'_, K>),
    /// Asks for reconciles, once the cache has it.
    changed: fn(&Context, &Change<'_, K>),
}

async fn follow<K>(
    context: Arc<Context>,
    api: Api<DeserializeGuard<K>>,
    mut writer: Writer<K>,
    effects: Effects<K>,
) where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + PartialEq + Send + Sync + 'static,
{
    let reader = writer.as_reader();
    let events = watcher(api, watcher::Config::default())
        .default_backoff()
        .inspect_err(|error| tracing::warn!(kind = %K::kind(&()), %error, "watch failed; it is tried again"))
        .filter_map(|event| std::future::ready(event.ok()))
        .take_until(context.shutdown.clone().cancelled_owned());
    futures::pin_mut!(events);
    // During a list the cache still shows what was before it.
    let mut listed: HashMap<ObjectRef<K>, K> = HashMap::new();
    while let Some(event) = events.next().await {
        if let Some(invalid) = context.unreadable.heed(&event) {
            unreadable::tell::<K>(&context, invalid);
        }
        if let Some(unread) = unreadable::of(&event) {
            changes::unreadable::<K>(&context, &unread.metadata);
        }
        let Some(event) = readable(event, &reader) else {
            continue;
        };
        let event = event.modify(effects.trim);
        let changes: Vec<(Option<Arc<K>>, Option<K>)> = match &event {
            Event::Apply(object) => vec![(reader.get(&ObjectRef::from_obj(object)), Some(object.clone()))],
            Event::Delete(object) => vec![(Some(Arc::new(object.clone())), None)],
            Event::Init => {
                listed.clear();
                vec![]
            }
            Event::InitApply(object) => {
                listed.insert(ObjectRef::from_obj(object), object.clone());
                vec![]
            }
            Event::InitDone => {
                let before = reader.state().into_iter();
                let mut changes: Vec<_> = before
                    .map(|old| {
                        let new = listed.remove(&ObjectRef::from_obj(&*old));
                        (Some(old), new)
                    })
                    .collect();
                changes.extend(listed.drain().map(|(_, new)| (None, Some(new))));
                changes
            }
        };
        let changes: Vec<Change<'_, K>> = changes
            .iter()
            .map(|(old, new)| Change {
                old: old.as_deref(),
                new: new.as_ref(),
            })
            .filter(|change| change.old != change.new)
            .collect();
        changes
            .iter()
            .for_each(|change| (effects.index)(&context, change));
        writer.apply_watcher_event(&event);
        changes
            .iter()
            .for_each(|change| (effects.changed)(&context, change));
    }
}

async fn follow_pods(context: Arc<Context>, client: Client, full: watch::Sender<bool>) {
    let events = watcher(Api::<WatchedPod>::all(client), watcher::Config::default())
        .default_backoff()
        .inspect_err(|error| tracing::warn!(kind = "Pod", %error, "watch failed; it is tried again"))
        .filter_map(|event| std::future::ready(event.ok()))
        .take_until(context.shutdown.clone().cancelled_owned());
    futures::pin_mut!(events);
    let pods = &context.caches.pods;
    let mut listed = BTreeSet::new();
    while let Some(event) = events.next().await {
        match event {
            Event::Init => listed.clear(),
            Event::Apply(object) => put_pod(&context, &object),
            Event::InitApply(object) => {
                listed.extend(object.uid());
                put_pod(&context, &object);
            }
            Event::Delete(object) => {
                if let Some(gone) = object.uid().and_then(|uid| pods.take(&uid)) {
                    pod(&context, Some(&gone), None);
                }
            }
            Event::InitDone => {
                for gone in pods.retain(&listed) {
                    pod(&context, Some(&gone), None);
                }
                full.send_replace(true);
            }
        }
    }
}

fn put_pod(context: &Context, object: &WatchedPod) {
    if let Some(new) = object.view().cloned() {
        let old = context.caches.pods.put(new.clone());
        if old.as_deref() != Some(&new) {
            pod(context, old.as_deref(), Some(&new));
        }
    }
}

fn trim<K: ResourceExt>(object: &mut K) {
    object.managed_fields_mut().clear();
}

/// Cuts a node down to what is used, so that its heartbeats change nothing.
fn trim_node(node: &mut Node) {
    let metadata = std::mem::take(&mut node.metadata);
    node.metadata = ObjectMeta {
        name: metadata.name,
        uid: metadata.uid,
        labels: metadata.labels,
        deletion_timestamp: metadata.deletion_timestamp,
        ..ObjectMeta::default()
    };
    node.spec = node.spec.take().map(|spec| NodeSpec {
        unschedulable: spec.unschedulable,
        ..NodeSpec::default()
    });
    node.status = node.status.take().map(|status| NodeStatus {
        conditions: status.conditions.map(|conditions| {
            let ready = conditions.into_iter().filter(|c| c.type_ == "Ready");
            ready
                .map(|mut c| {
                    c.last_heartbeat_time = None;
                    c
                })
                .collect()
        }),
        ..NodeStatus::default()
    });
}
