//! Effects of Model: one step of its rollout, and what its nodes are told.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::{Api, Resource, ResourceExt};
use vigia_crds::{Model, ModelStatus, ModelVersion, conditions};
use vigia_model::histogram::ScoreHistogram;

use super::assign::{Assignment, is_forward};
use super::nodes::{self, NodeView};
use super::rollout::{self, Observed, Scores};
use super::version::{self, VersionView};
use super::{history, lost, revoked, silent, trace, trust, windows};
use crate::context::Context;
use crate::controller::{self, Error};
use crate::events::Note;
use crate::metrics::ReasonLabels;
use crate::nodeplan::claim::Claimants;
use crate::observed::Merged;
use crate::select::Ready;
use crate::telemetry::TraceParent;

/// Runs until the context's shutdown.
pub async fn run(context: Arc<Context>) {
    let (models, trigger) = (context.caches.models.clone(), context.triggers.models.clone());
    controller::run("model", context, models, trigger, reconcile).await;
}

async fn reconcile(model: Arc<Model>, context: Arc<Context>) -> Result<Option<Duration>, Error> {
    if model.metadata.deletion_timestamp.is_some() {
        return Ok(None);
    }
    let namespace = model.namespace().unwrap_or_default();
    let name = model.name_any();
    let objects = context.caches.versions_of(&namespace, &name);
    let mut versions: Vec<VersionView> = objects.iter().map(|v| VersionView::of(v)).collect();
    let nodes = nodes_of(&model, &namespace, &name, &context);
    let current = model.status.clone().unwrap_or_default();
    let revoked = context.revocations.with(Some(&current), &namespace, &name);
    revoked::latch(&mut versions, &revoked);
    lost::mark(&mut versions, &nodes);
    let (profiles, running) = context.caches.profiles_of(&namespace, &name);
    windows::mark(&mut versions, &objects, &profiles);
    confirm_absence(&current, &versions, &namespace, &context).await?;
    let generation = model.metadata.generation.unwrap_or(0);
    let now = Timestamp::now();
    let next = rollout::step(&Observed {
        spec: &model.spec,
        generation,
        status: &current,
        versions: &versions,
        nodes: &nodes,
        scores: &Reported {
            context: &context,
            namespace: &namespace,
            model: &name,
        },
        now,
    });
    let mut status = next.status;
    status.revoked = revoked;
    let numbers = objects.iter().filter_map(|v| version::sequence(&**v));
    status.last_sequence = i64::from(version::last_sequence(status.last_sequence, numbers));
    let mut wanted = super::conditions::of(&status, &next.target, &versions, &nodes);
    let serving = status.serving.as_ref();
    let serving = serving.and_then(|s| objects.iter().find(|v| v.spec.digest == s.digest));
    let serving = serving.map(|v| &**v);
    let members = serving.map_or(Some(vec![]), |v| context.artifacts.of_order(&v.spec.digest));
    let before = conditions::find(&current.conditions, conditions::READY).map(|ready| ready.message.as_str());
    let plans: Vec<_> = nodes
        .iter()
        .filter_map(|n| context.caches.plan(&n.name))
        .collect();
    let silent = silent::of_model(
        members.as_deref(),
        before,
        &profiles,
        plans.iter().map(|plan| &**plan),
    );
    for ready in wanted
        .iter_mut()
        .filter(|c| c.type_ == conditions::READY && c.status == Some(true))
    {
        ready.message.push_str(&silent);
    }
    wanted.push(windows::condition(serving, &profiles));
    let rolled_out = status.rollout.as_ref().filter(|r| is_forward(r.phase));
    let rolled_out = rolled_out.and_then(|r| objects.iter().find(|v| v.spec.digest == r.version.digest));
    // While the only pod of a profile is replaced, nothing changes.
    let differed =
        conditions::find(&status.conditions, windows::CAPTURE_FITS).is_some_and(|c| c.status == "False");
    let of_interest = if differed { &profiles } else { &profiles[..running] };
    let capture = windows::capture_fits(serving, rolled_out.map(|v| &**v), of_interest);
    let changed = windows::changed(&status.conditions, &capture, serving, &profiles);
    wanted.push(capture.wanted);
    wanted.push(trust::condition(&model.spec.trust));
    status.conditions = conditions::apply(&status.conditions, &wanted, generation, now);
    let refused = tell_trace(&model, &current, &mut status, &objects, &context);
    // Before the write, so that a kill after it leaves nothing unsaid; said twice, they are one.
    let notes = || next.notes.iter().chain(&refused).chain(&changed);
    for note in notes() {
        context.events.mention(&model.object_ref(&()), note).await;
    }
    context.door.status(&*model, status.clone()).await?;
    // After it: what was looked at in a cache that lags is refused there, and would be recorded twice.
    for note in notes() {
        tracing::info!(target: "audit", action = note.reason, namespace, model = name, note = note.note);
    }
    for note in &next.notes {
        let reason = note.reason.to_owned();
        context
            .metrics
            .rollouts
            .get_or_create(&ReasonLabels { reason })
            .inc();
    }
    // Nodes are told only what the API server has accepted as the status.
    tell_nodes(&model, &namespace, &name, &status, &versions, &nodes, &context);
    history::tidy(&model, &status, &context).await?;
    Ok(next.again)
}

/// Says the spans that end with this status; answers what there is to say of a trace that is none.
fn tell_trace(
    model: &Model,
    from: &ModelStatus,
    to: &mut ModelStatus,
    versions: &[Arc<ModelVersion>],
    context: &Context,
) -> Option<Note> {
    let is_on = context.telemetry.is_on();
    let find = |digest: &str| versions.iter().find(|v| v.spec.digest == digest).map(|v| &**v);
    let change = trace::Change {
        model,
        part_of: &|digest| TraceParent::annotated(find(digest)?).ok().flatten(),
        from,
        is_on,
        now: Timestamp::now(),
    };
    context.telemetry.spans(change.note(to));
    let begun = to.rollout.as_ref().filter(|rollout| {
        let was = from.rollout.as_ref().and_then(|was| was.traceparent.as_ref());
        is_on && rollout.traceparent.as_ref() != was
    })?;
    let version = find(&begun.version.digest)?;
    let none = TraceParent::annotated(version).err()?;
    let key = format!("traceparent/{}", begun.version.digest);
    Some(none.note(version, "its rollout", "Rollout", key))
}

/// A version that serves is withdrawn where its ModelVersion is gone. That it is in no cache is not
/// enough for that: the API server is asked.
async fn confirm_absence(
    status: &ModelStatus,
    versions: &[VersionView],
    namespace: &str,
    context: &Context,
) -> Result<(), Error> {
    let rollout = status.rollout.as_ref().filter(|r| is_forward(r.phase));
    let used = status.serving.iter().chain(rollout.map(|r| &r.version));
    for missing in used.filter(|used| version::find(versions, &used.digest).is_none()) {
        let api: Api<ModelVersion> = Api::namespaced(context.client.clone(), namespace);
        let found = api.get_opt(&missing.name).await?;
        if found.is_some_and(|v| v.spec.digest == missing.digest) {
            let name = &missing.name;
            return Err(Error::Other(format!(
                "ModelVersion {name} is not in the cache yet"
            )));
        }
    }
    Ok(())
}

fn tell_nodes(
    model: &Model,
    namespace: &str,
    name: &str,
    status: &ModelStatus,
    versions: &[VersionView],
    nodes: &[NodeView],
    context: &Context,
) {
    let key = context.key.public().to_base64();
    let assignment = Assignment::of(model, status, versions, nodes, &key);
    for node in nodes {
        let planned = context.caches.plan(&node.name);
        let planned = planned.as_ref().and_then(|plan| {
            let same = |m: &&vigia_crds::PlannedModel| m.namespace == namespace && m.name == name;
            plan.spec.models.iter().find(same)
        });
        if planned != Some(&assignment.of_node(&node.name)) {
            context.triggers.nodes.cluster(&node.name);
        }
    }
    context.assignments.put(namespace, name, assignment);
}

/// The nodes on which a profile that names the Model traces something, in the rollout's order.
fn nodes_of(model: &Model, namespace: &str, name: &str, context: &Context) -> Vec<NodeView> {
    let caches = &context.caches;
    let claimants = Claimants::new(caches.profiles_in(namespace));
    let selectors = caches.profiles_naming(namespace, name);
    let selectors: Vec<Ready> = selectors
        .iter()
        .map(|p| Ready::new(&p.spec.pod_selector))
        .collect();
    let mut names = BTreeSet::new();
    for pod in caches.pods.in_namespace(namespace) {
        let is_selected = || selectors.iter().any(|selector| selector.matches(&pod.labels));
        if pod.node.is_empty() || names.contains(&pod.node) || !is_selected() {
            continue;
        }
        let claims = claimants.claims(&pod);
        let of_model =
            |c: &crate::nodeplan::claim::Claim<'_>| c.profile.spec.models.iter().any(|m| m.name == name);
        if claims.iter().any(of_model) {
            names.insert(pod.node.clone());
        }
    }
    let mut nodes: Vec<NodeView> = names
        .iter()
        .map(|node| {
            let plan = caches.plan(node);
            NodeView::of(node, context.reachable(node), plan.as_deref(), namespace, name)
        })
        .collect();
    nodes::sort(&mut nodes, model.metadata.uid.as_deref().unwrap_or_default());
    nodes
}

/// What agents reported of a Model.
struct Reported<'a> {
    context: &'a Context,
    namespace: &'a str,
    model: &'a str,
}

impl Scores for Reported<'_> {
    fn scored(&self, digest: &str, since: Timestamp, nodes: Option<&BTreeSet<String>>) -> Merged {
        self.context
            .observations
            .scores(self.namespace, self.model, digest, since, nodes)
    }

    fn validation(&self, digest: &str) -> Option<ScoreHistogram> {
        self.context.artifacts.validation(digest).map(|h| (*h).clone())
    }
}
