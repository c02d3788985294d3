//! What a profile selects among the pods of its namespace, and what the plans of their nodes say of it: pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kube::ResourceExt;
use vigia_crds::{KeptMode, NodePlan, TraceProfile, conditions};

use crate::nodeplan::claim::Claimants;
use crate::pods::PodView;
use crate::select;

/// What a profile selects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Pods that run and match.
    pub pods: usize,
    /// Running containers that are this profile's.
    pub containers: u32,
    /// Nodes of these pods.
    pub nodes: BTreeSet<String>,
    /// Containers that other profiles trace, by that profile's name.
    pub lost: BTreeMap<String, u32>,
    /// Names in `spec.containers` that no matched pod has.
    pub unknown: Vec<String>,
}

/// What a profile selects among the pods of its namespace.
pub fn select(profile: &TraceProfile, claimants: &Claimants, pods: &[Arc<PodView>]) -> Selection {
    let name = profile.name_any();
    let mut selection = Selection::default();
    let mut declared: BTreeSet<&str> = BTreeSet::new();
    let matched =
        |pod: &&Arc<PodView>| !pod.ended && select::matches(&profile.spec.pod_selector, &pod.labels);
    for pod in pods.iter().filter(matched) {
        declared.extend(pod.declared.iter().map(String::as_str));
        if pod.containers.is_empty() {
            continue;
        }
        selection.pods += 1;
        let (claims, overlaps) = claimants.resolve(pod);
        for claim in claims.iter().filter(|c| c.profile.name_any() == name) {
            selection.containers += u32::try_from(claim.containers.len()).unwrap_or(u32::MAX);
            selection.nodes.insert(pod.node.clone());
        }
        for overlap in overlaps.into_iter().filter(|o| o.loser == name) {
            *selection.lost.entry(overlap.winner).or_default() += 1;
        }
    }
    if selection.pods > 0 {
        let unknown = profile.spec.containers.iter().filter(|c| *c != "*");
        selection.unknown = unknown
            .filter(|c| !declared.contains(c.as_str()))
            .cloned()
            .collect();
    }
    selection
}

/// Where a profile's windows come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Something is traced for it.
    Runs,
    /// Nothing that it selects runs at present.
    Waits,
    /// What it selects runs, and all of it is traced for others.
    Others,
}

/// Where a profile's windows come from.
pub fn source(profile: &TraceProfile, claimants: &Claimants, pods: &[Arc<PodView>]) -> Source {
    let name = profile.name_any();
    let mut source = Source::Waits;
    for pod in pods {
        if !select::matches(&profile.spec.pod_selector, &pod.labels) {
            continue;
        }
        let (claims, overlaps) = claimants.resolve(pod);
        if claims.iter().any(|claim| claim.profile.name_any() == name) {
            return Source::Runs;
        }
        if overlaps.iter().any(|overlap| overlap.loser == name) {
            source = Source::Others;
        }
    }
    source
}

/// What agents say of a profile.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Agents {
    /// Containers that they trace for it.
    pub containers: u32,
    /// Nodes with an agent that has carried out its plan.
    pub answered: usize,
    /// Nodes whose probe does not work: name and message.
    pub broken: Vec<(String, String)>,
    /// Nodes that keep less than the profile wants, because that would cost more than its budget.
    pub over: Vec<(String, KeptMode)>,
    /// Nodes without a pod of it at present that did, a moment ago: while a pod is replaced, nothing changes.
    pub were_over: Vec<(String, KeptMode)>,
    /// What the probe takes, in millionths of a core.
    pub micro_cores: i64,
    /// The most of one node, and that node.
    pub most: (i64, String),
    /// Calls that were not counted.
    pub lost: i64,
    /// Nodes where the alert budget was spent of late, and how many windows were therefore not told.
    pub withheld: Vec<(String, i64)>,
}

/// Profiles, by namespace and name, of which this node has to say what may outlast their pods: it withheld alerts within
/// the last hour, or keeps less of them than they want.
pub fn told_here(plan: &NodePlan) -> impl Iterator<Item = (&str, &str)> {
    let profiles = plan.status.iter().flat_map(|status| &status.profiles);
    let told = profiles.filter(|here| here.alerts_withheld > 0 || here.over_budget);
    told.map(|here| (here.namespace.as_str(), here.name.as_str()))
}

/// What nodes say of a profile: those that it selects now, and, of what may outlast its pods, any that say it.
pub fn agents<'a>(
    namespace: &str,
    name: &str,
    nodes: &BTreeSet<String>,
    plans: impl Iterator<Item = &'a NodePlan>,
) -> Agents {
    let mut agents = Agents::default();
    for plan in plans {
        let Some(status) = &plan.status else { continue };
        let of_profile = || {
            let all = status.profiles.iter();
            all.filter(|p| p.namespace == namespace && p.name == name)
        };
        for here in of_profile().filter(|here| here.alerts_withheld > 0) {
            agents.withheld.push((plan.name_any(), here.alerts_withheld));
        }
        if !nodes.contains(&plan.name_any()) {
            let over = of_profile().filter(|here| here.over_budget);
            agents
                .were_over
                .extend(over.map(|here| (plan.name_any(), here.mode)));
            continue;
        }
        for here in of_profile() {
            agents.containers = agents
                .containers
                .saturating_add(u32::try_from(here.containers).unwrap_or(0));
            // Agents may say anything: what is negative is nothing.
            let cost = here.overhead_micro_cores.max(0);
            agents.micro_cores = agents.micro_cores.saturating_add(cost);
            if cost > agents.most.0 {
                agents.most = (cost, plan.name_any());
            }
            agents.lost = agents.lost.saturating_add(here.lost.max(0));
            if here.over_budget {
                agents.over.push((plan.name_any(), here.mode));
            }
        }
        if plan
            .metadata
            .generation
            .is_none_or(|g| status.observed_generation >= g)
        {
            agents.answered += 1;
        }
        if let Some(probe) = conditions::find(&status.conditions, "ProbeReady")
            && probe.status == "False"
        {
            agents.broken.push((plan.name_any(), probe.message.clone()));
        }
    }
    agents
}
