//! What a change concerns: the reconciles that it asks for, found through indexes.

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Resource, ResourceExt};
use vigia_crds::{Model, ModelVersion, NodePlan, RetrainingPolicy, TraceProfile, TrainingRun};

use super::{Change, RUN_NAME, RUN_NAMESPACE};
use crate::context::{Context, Names};
use crate::pods::PodView;
use crate::select::Ready;
use crate::traceprofile::told_here;
use crate::trainingrun::turn::is_live;

/// A pod concerns its node, the profiles that select it, their Models, and its training.
pub(super) fn pod(context: &Context, old: Option<&PodView>, new: Option<&PodView>) {
    for pod in old.into_iter().chain(new) {
        if pod.namespace == context.config.namespace
            && let (Some(namespace), Some(name)) = (pod.labels.get(RUN_NAMESPACE), pod.labels.get(RUN_NAME))
        {
            context.triggers.runs.namespaced(namespace, name);
        }
        if pod.namespace == context.config.namespace
            && pod.service_account == context.config.agent_service_account
            && let Some(plan) = context.caches.plan(&pod.node)
        {
            trigger_models(context, &plan);
            trigger_told(context, &plan);
        }
        let mut selected = false;
        for profile in context.caches.profiles_in(&pod.namespace) {
            if Ready::new(&profile.spec.pod_selector).matches(&pod.labels) {
                selected = true;
                context
                    .triggers
                    .profiles
                    .namespaced(&pod.namespace, &profile.name_any());
                for model in &profile.spec.models {
                    context.triggers.models.namespaced(&pod.namespace, &model.name);
                }
            }
        }
        if selected && !pod.node.is_empty() {
            context.triggers.nodes.cluster(&pod.node);
        }
    }
}

/// A node concerns its own plan, the Models that are on it, and the profiles of which it has something to say.
pub(super) fn node(context: &Context, change: &Change<'_, Node>) {
    for node in change.each() {
        let name = node.name_any();
        context.triggers.nodes.cluster(&name);
        if let Some(plan) = context.caches.plan(&name) {
            trigger_models(context, &plan);
            trigger_told(context, &plan);
        }
    }
}

fn trigger_models(context: &Context, plan: &NodePlan) {
    for model in &plan.spec.models {
        context.triggers.models.namespaced(&model.namespace, &model.name);
    }
}

/// Whether the agent lives that said something of these profiles.
fn trigger_told(context: &Context, plan: &NodePlan) {
    for (namespace, name) in told_here(plan) {
        context.triggers.profiles.namespaced(namespace, name);
    }
}

/// A plan's status concerns the Models and profiles on it; its spec, which is the operator's own,
/// is put right when another hand changed it.
pub(super) fn plan(context: &Context, change: &Change<'_, NodePlan>) {
    for plan in change.each() {
        trigger_models(context, plan);
        let planned = plan.spec.profiles.iter();
        let planned = planned.map(|profile| (profile.namespace.as_str(), profile.name.as_str()));
        for (namespace, name) in planned {
            context.triggers.profiles.namespaced(namespace, name);
        }
        trigger_told(context, plan);
    }
    if let Some(old) = change.old
        && change.new.is_none_or(|new| new.spec != old.spec)
    {
        context.triggers.nodes.cluster(&old.name_any());
    }
}

/// A profile concerns the nodes of the pods that it selects or selected, its Models, and the
/// profiles beside it that may select the same pods.
pub(super) fn profile(context: &Context, change: &Change<'_, TraceProfile>) {
    let Some(namespace) = change.each().find_map(ResourceExt::namespace) else {
        return;
    };
    let pods = context.caches.pods.in_namespace(&namespace);
    for profile in change.each() {
        context
            .triggers
            .profiles
            .namespaced(&namespace, &profile.name_any());
        for model in &profile.spec.models {
            context.triggers.models.namespaced(&namespace, &model.name);
        }
    }
    if change.new.is_none()
        && let Some(gone) = change.old
    {
        context.shares.remove(&namespace, &gone.name_any());
    }
    let spec = |profile: Option<&TraceProfile>| profile.map(|p| p.spec.clone());
    if spec(change.old) == spec(change.new) {
        return;
    }
    for other in context.caches.profiles_in(&namespace) {
        context
            .triggers
            .profiles
            .namespaced(&namespace, &other.name_any());
    }
    let selectors: Vec<Ready> = change.each().map(|p| Ready::new(&p.spec.pod_selector)).collect();
    for pod in pods.iter().filter(|pod| !pod.node.is_empty()) {
        if selectors.iter().any(|selector| selector.matches(&pod.labels)) {
            context.triggers.nodes.cluster(&pod.node);
        }
    }
}

/// A Model concerns the profiles that name it, its versions and its policies. Its nodes are
/// triggered by its reconcile, once what they should run is decided.
pub(super) fn model(context: &Context, change: &Change<'_, Model>) {
    let Some((namespace, name)) = change.each().find_map(|m| Some((m.namespace()?, m.name_any()))) else {
        return;
    };
    context.triggers.models.namespaced(&namespace, &name);
    if change.new.is_none() {
        context.assignments.remove(&namespace, &name);
        context.revocations.remove(&namespace, &name);
    }
    for policy in context.caches.policy_names.of(&namespace, &name) {
        context.triggers.policies.namespaced(&namespace, &policy);
    }
    let spec = |model: Option<&Model>| model.map(|m| m.spec.clone());
    if spec(change.old) == spec(change.new) {
        return;
    }
    for version in context.caches.version_names.of(&namespace, &name) {
        context.triggers.versions.namespaced(&namespace, &version);
    }
    profiles_naming(context, &namespace, &name);
    if change.new.is_none() {
        let pods = context.caches.pods.in_namespace(&namespace);
        for pod in pods.iter().filter(|pod| !pod.node.is_empty()) {
            context.triggers.nodes.cluster(&pod.node);
        }
    }
}

fn profiles_naming(context: &Context, namespace: &str, model: &str) {
    for profile in context.caches.profiles_in(namespace) {
        if profile.spec.models.iter().any(|m| m.name == model) {
            let name = profile.name_any();
            context.triggers.profiles.namespaced(namespace, &name);
        }
    }
}

/// A Model that cannot be read concerns the profiles that name it: they say so.
pub(super) fn unreadable<K: Resource<DynamicType = ()>>(context: &Context, metadata: &ObjectMeta) {
    if let (true, Some(namespace), Some(name)) = (
        K::kind(&()) == Model::kind(&()),
        &metadata.namespace,
        &metadata.name,
    ) {
        profiles_naming(context, namespace, name);
    }
}

/// A version concerns itself and its Model.
pub(super) fn version(context: &Context, change: &Change<'_, ModelVersion>) {
    for version in change.each() {
        let Some(namespace) = version.namespace() else {
            continue;
        };
        if version.spec.revoked {
            let (model, digest) = (&version.spec.model_ref.name, &version.spec.digest);
            context.revocations.put(&namespace, model, digest);
        }
        context
            .triggers
            .versions
            .namespaced(&namespace, &version.name_any());
        context
            .triggers
            .models
            .namespaced(&namespace, &version.spec.model_ref.name);
    }
}

/// A policy concerns itself.
pub(super) fn policy(context: &Context, change: &Change<'_, RetrainingPolicy>) {
    for policy in change.each() {
        let Some(namespace) = policy.namespace() else {
            continue;
        };
        context
            .triggers
            .policies
            .namespaced(&namespace, &policy.name_any());
    }
}

/// A run concerns itself and the policies of its Model, and one that ends those whose turn it is then.
pub(super) fn run(context: &Context, change: &Change<'_, TrainingRun>) {
    for run in change.each() {
        let Some(namespace) = run.namespace() else {
            continue;
        };
        context.triggers.runs.namespaced(&namespace, &run.name_any());
        for policy in context
            .caches
            .policy_names
            .of(&namespace, &run.spec.model_ref.name)
        {
            context.triggers.policies.namespaced(&namespace, &policy);
        }
    }
    if change.old.is_some_and(is_live) && !change.new.is_some_and(is_live) {
        let (runs, most) = (context.caches.runs.state(), context.config.max_trainings);
        for (namespace, name) in context.turns.next(&runs, usize::from(most), Timestamp::now()) {
            context.triggers.runs.namespaced(&namespace, &name);
        }
    }
}

/// A Job concerns its run.
pub(super) fn job(context: &Context, change: &Change<'_, Job>) {
    for job in change.each() {
        let labels = job.labels();
        if let (Some(namespace), Some(name)) = (labels.get(RUN_NAMESPACE), labels.get(RUN_NAME)) {
            context.triggers.runs.namespaced(namespace, name);
        }
    }
}

/// Profiles are found by their namespace.
pub(super) fn index_profile(context: &Context, change: &Change<'_, TraceProfile>) {
    index(&context.caches.profile_names, change, |_| String::new());
}

/// Nodes are found by the profiles of which they have to say what may outlast their pods.
pub(super) fn index_plan(context: &Context, change: &Change<'_, NodePlan>) {
    let Some(node) = change.each().map(ResourceExt::name_any).next() else {
        return;
    };
    let nodes = &context.caches.told_on;
    let [old, new] = [change.old, change.new].map(|plan| {
        let told = plan.into_iter().flat_map(told_here);
        told.collect::<BTreeSet<_>>()
    });
    for (namespace, profile) in new.difference(&old) {
        nodes.put(namespace, profile, &node);
    }
    for (namespace, profile) in old.difference(&new) {
        nodes.take(namespace, profile, &node);
    }
}

/// Versions are found by their Model.
pub(super) fn index_version(context: &Context, change: &Change<'_, ModelVersion>) {
    let model = |version: &ModelVersion| version.spec.model_ref.name.clone();
    index(&context.caches.version_names, change, model);
}

/// Policies are found by their Model.
pub(super) fn index_policy(context: &Context, change: &Change<'_, RetrainingPolicy>) {
    let model = |policy: &RetrainingPolicy| policy.spec.model_ref.name.clone();
    index(&context.caches.policy_names, change, model);
}

/// A name that stays where it is is never missing meanwhile: who looks just then would find no such object.
fn index<K: ResourceExt>(names: &Names, change: &Change<'_, K>, of: impl Fn(&K) -> String) {
    let place = |object: &K| Some((object.namespace()?, of(object), object.name_any()));
    let (old, new) = (change.old.and_then(place), change.new.and_then(place));
    if let Some((namespace, of, name)) = &new {
        names.put(namespace, of, name);
    }
    if let Some((namespace, of, name)) = old.filter(|old| Some(old) != new.as_ref()) {
        names.take(&namespace, &of, &name);
    }
}
