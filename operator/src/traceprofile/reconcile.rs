//! Effects of TraceProfile: its status, and how many share its budget.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use jiff::Timestamp;
use kube::{Resource, ResourceExt};
use vigia_crds::{Model, TraceProfile};

use super::alerts;
use super::budget::told;
use super::observed::{agents, select};
use super::plan::{Models, status};
use crate::context::Context;
use crate::controller::{self, Error};
use crate::nodeplan::claim::Claimants;
use crate::nodeplan::plan::rounded;

/// Containers of each profile on all nodes, rounded up to a power of two.
#[derive(Debug, Default)]
pub struct Shares(RwLock<HashMap<(String, String), u32>>);

impl Shares {
    /// The containers of a profile.
    pub fn get(&self, namespace: &str, name: &str) -> Option<u32> {
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        all.get(&(namespace.to_owned(), name.to_owned())).copied()
    }

    /// Forgets a profile that is no more.
    pub fn remove(&self, namespace: &str, name: &str) {
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        all.remove(&(namespace.to_owned(), name.to_owned()));
    }

    /// Takes a count in; says whether it is another one.
    fn put(&self, namespace: &str, name: &str, containers: u32) -> bool {
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        all.insert((namespace.to_owned(), name.to_owned()), containers) != Some(containers)
    }
}

/// Runs until the context's shutdown.
pub async fn run(context: Arc<Context>) {
    let (profiles, trigger) = (context.caches.profiles.clone(), context.triggers.profiles.clone());
    controller::run("traceprofile", context, profiles, trigger, reconcile).await;
}

async fn reconcile(profile: Arc<TraceProfile>, context: Arc<Context>) -> Result<Option<Duration>, Error> {
    let now = Timestamp::now();
    let namespace = profile.namespace().unwrap_or_default();
    let name = profile.name_any();
    if profile.metadata.deletion_timestamp.is_some() {
        return Ok(None);
    }
    let caches = &context.caches;
    let claimants = Claimants::new(caches.profiles_in(&namespace));
    let selection = select(&profile, &claimants, &caches.pods.in_namespace(&namespace));
    let mut of_interest = selection.nodes.clone();
    of_interest.extend(caches.told_on.of(&namespace, &name));
    let plans: Vec<_> = of_interest.iter().filter_map(|n| caches.plan(n)).collect();
    let agents = agents(
        &namespace,
        &name,
        &selection.nodes,
        plans.iter().map(|plan| &**plan),
        |node| context.reachable(node),
        now,
    );
    let named = profile.spec.models.iter().map(|m| m.name.clone());
    let unread = named.filter(|name| caches.model(&namespace, name).is_none());
    let there = context.unreadable.names(&Model::kind(&()), &namespace);
    let (unreadable, missing) = unread.partition(|name| there.contains(name));
    let of_order = profile.spec.models.iter().filter_map(|named| {
        let model = caches.model(&namespace, &named.name)?;
        let serving = model.status.as_ref()?.serving.as_ref()?;
        Some((named.name.clone(), context.artifacts.of_order(&serving.digest)))
    });
    let models = Models {
        missing,
        unreadable,
        of_order: of_order.collect(),
    };
    if context
        .shares
        .put(&namespace, &name, rounded(selection.containers))
    {
        for node in &selection.nodes {
            context.triggers.nodes.cluster(node);
        }
    }
    let next = status(&profile, &selection, &agents, &models, now);
    let [budget, withheld] = [told, alerts::told].map(|told| told(profile.status.as_ref(), &next));
    context.door.status(&*profile, next).await?;
    if let Some(note) = &withheld {
        context.telemetry.withheld(&namespace, &name, &note.note);
    }
    for note in [budget, withheld].iter().flatten() {
        context.events.mention(&profile.object_ref(&()), note).await;
    }
    // What nobody takes back ends by itself.
    let until = agents.withheld.iter().filter_map(|said| said.until).min();
    Ok(until.map(|until| until.duration_since(now).unsigned_abs()))
}
