//! What a profile selects among the pods of its namespace, and what the plans of their nodes say of it: pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use vigia_crds::{KeptMode, NodePlan, ProfileOnNode, TraceProfile, WithheldAlert, conditions};

use crate::nodeplan::claim::Claimants;
use crate::nodeplan::plan::{MAX_CONTAINERS, MAX_PODS};
use crate::pods::PodView;
use crate::select::Ready;

/// What a profile selects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Pods that run and match.
    pub pods: usize,
    /// Running containers that are this profile's.
    pub containers: u32,
    /// Nodes of these pods.
    pub nodes: BTreeSet<String>,
    /// Of its containers, those for which their node's plan has no room.
    pub beyond: u32,
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
    let selector = Ready::new(&profile.spec.pod_selector);
    let mut on: BTreeMap<&str, Vec<(&str, usize)>> = BTreeMap::new();
    let matched = |pod: &&Arc<PodView>| !pod.ended && selector.matches(&pod.labels);
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
            on.entry(&pod.node)
                .or_default()
                .push((&pod.cgroup_uid, claim.containers.len()));
        }
        for overlap in overlaps.into_iter().filter(|o| o.loser == name) {
            *selection.lost.entry(overlap.winner).or_default() += 1;
        }
    }
    selection.beyond = on.into_values().map(beyond).sum();
    if selection.pods > 0 {
        let unknown = profile.spec.containers.iter().filter(|c| *c != "*");
        selection.unknown = unknown
            .filter(|c| !declared.contains(c.as_str()))
            .cloned()
            .collect();
    }
    selection
}

/// Of the pods of a profile on a node, each with its containers, how many containers no plan has room for.
fn beyond(mut pods: Vec<(&str, usize)>) -> u32 {
    // As plans have them.
    pods.sort_unstable();
    let planned = pods.iter().take(MAX_PODS);
    let planned: usize = planned
        .map(|(_, containers)| MAX_CONTAINERS.min(*containers))
        .sum();
    let all: usize = pods.iter().map(|(_, containers)| containers).sum();
    u32::try_from(all - planned).unwrap_or(u32::MAX)
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

/// Where the windows of each of these profiles come from. Who gets what of a pod is asked once for all of them, and not of
/// pods that none of them selects.
pub fn sources(profiles: &[Arc<TraceProfile>], claimants: &Claimants, pods: &[Arc<PodView>]) -> Vec<Source> {
    let mut sources = vec![Source::Waits; profiles.len()];
    // Those that are not known to run: most often the first pod of a profile says that it does.
    let mut open: HashMap<String, (usize, Ready)> = HashMap::new();
    for (at, profile) in profiles.iter().enumerate() {
        open.insert(profile.name_any(), (at, Ready::new(&profile.spec.pod_selector)));
    }
    for pod in pods {
        if !open.values().any(|(_, selector)| selector.matches(&pod.labels)) {
            continue;
        }
        let (claims, overlaps) = claimants.resolve(pod);
        for claim in claims {
            if let Some((at, _)) = open.remove(&claim.profile.name_any()) {
                sources[at] = Source::Runs;
            }
        }
        for overlap in overlaps {
            if let Some((at, _)) = open.get(&overlap.loser) {
                sources[*at] = Source::Others;
            }
        }
    }
    sources
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
    /// Nodes without a pod of it at present that did, a moment ago: while a pod is replaced, nothing changes. Of nodes
    /// whose agent lives: what another said last, nobody takes back.
    pub were_over: Vec<(String, KeptMode)>,
    /// What the probe takes, in millionths of a core.
    pub micro_cores: i64,
    /// The most of one node, and that node.
    pub most: (i64, String),
    /// Calls that were not counted.
    pub lost: i64,
    /// Nodes where the alert budget was spent of late, and how many windows were therefore not told.
    pub withheld: Vec<Withheld>,
}

/// What a node says of alerts that were not told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Withheld {
    /// The node.
    pub node: String,
    /// How many at most.
    pub windows: i64,
    /// One of them.
    pub one: Option<WithheldAlert>,
    /// Until when it is believed, where the node's agent does not live: it takes it back an hour after the last one, and
    /// whoever can end it must not thereby remove the trace.
    pub until: Option<Timestamp>,
}

/// So long after the window that an agent names it would have taken back what it says: that one is no more than half an
/// hour older than the last.
const TAKEN_BACK: SignedDuration = SignedDuration::from_mins(90);
/// A node's clock is no more than this fast.
const FAST: SignedDuration = SignedDuration::from_mins(10);

/// What this node says of alerts of a profile that were not told, if it is to be believed.
fn withheld(node: String, here: &ProfileOnNode, lives: bool, now: Timestamp) -> Option<Withheld> {
    let one = here.withheld_alert.clone();
    let until = if lives {
        None
    } else {
        // An agent that does not say when, as older ones do not, is believed while it lives.
        let at = one.as_ref().map(|one| one.at.0)?;
        let until = at.checked_add(TAKEN_BACK).ok()?;
        if now >= until || at.duration_since(now) > FAST {
            return None;
        }
        Some(until)
    };
    Some(Withheld {
        node,
        windows: here.alerts_withheld,
        one,
        until,
    })
}

/// Profiles, by namespace and name, of which this node has to say what may outlast their pods: it withheld alerts within
/// the last hour, or keeps less of them than they want.
pub fn told_here(plan: &NodePlan) -> impl Iterator<Item = (&str, &str)> {
    let profiles = plan.status.iter().flat_map(|status| &status.profiles);
    let told = profiles.filter(|here| here.alerts_withheld > 0 || here.over_budget);
    told.map(|here| (here.namespace.as_str(), here.name.as_str()))
}

/// What nodes say of a profile: those that it selects now, and, of what may outlast its pods, any that say it. What they
/// keep less of, only those that are reachable: an agent takes that back itself. What they withheld, those that are not
/// for no longer than it would have taken them.
pub fn agents<'a>(
    namespace: &str,
    name: &str,
    nodes: &BTreeSet<String>,
    plans: impl Iterator<Item = &'a NodePlan>,
    reachable: impl Fn(&str) -> bool,
    now: Timestamp,
) -> Agents {
    let mut agents = Agents::default();
    for plan in plans {
        let Some(status) = &plan.status else { continue };
        let of_profile = || {
            let all = status.profiles.iter();
            all.filter(|p| p.namespace == namespace && p.name == name)
        };
        for here in of_profile().filter(|here| here.alerts_withheld > 0) {
            let node = plan.name_any();
            let lives = reachable(&node);
            agents.withheld.extend(withheld(node, here, lives, now));
        }
        if !nodes.contains(&plan.name_any()) {
            let over = of_profile().filter(|here| here.over_budget && reachable(&plan.name_any()));
            let over = over.map(|here| (plan.name_any(), here.mode));
            agents.were_over.extend(over);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{pod, profile};
    use proptest::prelude::*;

    /// The same, asked of one profile alone.
    fn source(profile: &TraceProfile, claimants: &Claimants, pods: &[Arc<PodView>]) -> Source {
        let name = profile.name_any();
        let mut source = Source::Waits;
        for pod in pods {
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

    proptest! {
        #[test]
        fn asked_together_profiles_have_the_sources_that_each_has_alone(
            selected in prop::collection::vec((prop::option::of(0usize..4), 0i64..3, prop::bool::ANY), 1..8),
            running in prop::collection::vec((0usize..4, 0usize..3, prop::bool::ANY), 0..12),
        ) {
            let profiles: Vec<Arc<TraceProfile>> = selected
                .iter()
                .enumerate()
                .map(|(i, (app, created, all))| {
                    let mut profile = profile("shop", &format!("p{i}"), *created);
                    profile.spec.pod_selector.match_labels =
                        app.map(|app| BTreeMap::from([("app".to_owned(), format!("w{app}"))]));
                    if !all {
                        profile.spec.containers = vec!["c0".to_owned()];
                    }
                    Arc::new(profile)
                })
                .collect();
            let pods: Vec<Arc<PodView>> = running
                .iter()
                .map(|(app, containers, ended)| {
                    let mut pod = pod("shop", &format!("w{app}"), "n", &["c0", "c1"][..*containers]);
                    pod.ended = *ended;
                    Arc::new(pod)
                })
                .collect();
            let claimants = Claimants::new(profiles.clone());
            let alone: Vec<Source> = profiles.iter().map(|p| source(p, &claimants, &pods)).collect();
            prop_assert_eq!(sources(&profiles, &claimants, &pods), alone);
        }
    }
}
