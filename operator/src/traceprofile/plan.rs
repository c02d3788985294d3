//! A TraceProfile's status, as a pure function of the pods it selects and what agents say.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use kube::ResourceExt;
use vigia_crds::conditions::{self, READY, RECONCILING, STALLED, Wanted};
use vigia_crds::{KeptMode, NodePlan, Overhead, TraceProfile, TraceProfileStatus, coarse};

use super::alerts;
use super::capture::{self, Unknown};
use crate::events::{Note, Severity, counted};
use crate::nodeplan::claim::Claimants;
use crate::pods::PodView;
use crate::select;

/// Beside kstatus' own: whether agents trace what is selected.
pub const TRACED: &str = "Traced";
/// Whether what the profile wants costs no more than its budget, on all nodes.
pub const WITHIN_BUDGET: &str = "WithinBudget";
/// Names in a message before "and N more".
const NAMED: usize = 3;

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
    /// What the probe takes, in millionths of a core.
    pub micro_cores: i64,
    /// The most of one node, and that node.
    pub most: (i64, String),
    /// Calls that were not counted.
    pub lost: i64,
    /// Nodes where the alert budget was spent of late, and how many windows were therefore not told.
    pub withheld: Vec<(String, i64)>,
}

/// What the plans of a selection's nodes say.
pub fn agents<'a>(namespace: &str, name: &str, plans: impl Iterator<Item = &'a NodePlan>) -> Agents {
    let mut agents = Agents::default();
    for plan in plans {
        let Some(status) = &plan.status else { continue };
        let of_profile = status
            .profiles
            .iter()
            .filter(|p| p.namespace == namespace && p.name == name);
        for here in of_profile {
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
            if here.alerts_withheld > 0 {
                agents.withheld.push((plan.name_any(), here.alerts_withheld));
            }
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

/// The status.
pub fn status(
    profile: &TraceProfile,
    selection: &Selection,
    agents: &Agents,
    missing_models: &[String],
    now: Timestamp,
) -> TraceProfileStatus {
    let generation = profile.metadata.generation.unwrap_or(0);
    let old = profile
        .status
        .as_ref()
        .map(|s| s.conditions.as_slice())
        .unwrap_or_default();
    let count = |n: usize| i32::try_from(n).unwrap_or(i32::MAX);
    TraceProfileStatus {
        observed_generation: generation,
        matched_pods: count(selection.pods),
        traced_containers: i32::try_from(agents.containers).unwrap_or(i32::MAX),
        nodes: count(selection.nodes.len()),
        overhead: overhead(agents, profile.status.as_ref().map(|s| &s.overhead)),
        lost: powers_of_two(agents.lost),
        alerts_withheld: powers_of_two(
            agents
                .withheld
                .iter()
                .fold(0, |all, (_, here)| all.saturating_add(*here)),
        ),
        conditions: conditions::apply(
            old,
            &wanted(profile, selection, agents, missing_models),
            generation,
            now,
        ),
    }
}

fn wanted(
    profile: &TraceProfile,
    selection: &Selection,
    agents: &Agents,
    missing_models: &[String],
) -> [Wanted; 6] {
    let traced = traced(selection, agents);
    // What a person must put right comes first.
    let problem = problem(profile, selection, missing_models);
    let is_traced = traced.status == Some(true);
    let waits = !is_traced && selection.containers > 0 && agents.broken.is_empty();
    let ready = match &problem {
        Some((reason, message)) => Wanted::new(READY, false, reason, message.clone()),
        None => Wanted::new(READY, is_traced, traced.reason, traced.message.clone()),
    };
    let (reason, message) = (ready.reason, ready.message.clone());
    let when = |on: bool| if on { message.clone() } else { String::new() };
    let stalled = problem.is_some() || (!is_traced && !agents.broken.is_empty());
    let reconciling = waits && !stalled;
    [
        ready,
        Wanted::new(RECONCILING, reconciling, reason, when(reconciling)),
        Wanted::new(STALLED, stalled, reason, when(stalled)),
        traced,
        within_budget(profile, agents),
        alerts::wanted(profile, agents),
    ]
}

/// What agents measured, so rounded that it changes seldom however many nodes there are.
fn overhead(agents: &Agents, old: Option<&Overhead>) -> Overhead {
    let milli = |micro: i64, old: i64| coarse(micro.saturating_add(999) / 1000, old);
    let (all, most) = old.map_or((0, 0), |old| (old.milli_cores, old.most_milli_cores));
    let most_milli_cores = milli(agents.most.0, most);
    // Of nodes that take as much, the one that was named stays named.
    let same = old.filter(|old| old.most_milli_cores == most_milli_cores && !old.most_on.is_empty());
    Overhead {
        milli_cores: milli(agents.micro_cores, all),
        most_milli_cores,
        most_on: match same {
            Some(old) if agents.most.0 > 0 => old.most_on.clone(),
            _ => agents.most.1.clone(),
        },
    }
}

fn powers_of_two(lost: i64) -> i64 {
    let lost = u64::try_from(lost).unwrap_or(0);
    let next = lost.checked_next_power_of_two().filter(|_| lost > 0);
    i64::try_from(next.unwrap_or(0)).unwrap_or(i64::MAX)
}

fn within_budget(profile: &TraceProfile, agents: &Agents) -> Wanted {
    let Some(least) = agents.over.iter().map(|(_, mode)| *mode).min() else {
        return Wanted::new(WITHIN_BUDGET, true, "WithinBudget", "");
    };
    let nodes: Vec<String> = agents
        .over
        .iter()
        .map(|(node, mode)| format!("{node} ({})", mode.as_str()))
        .collect();
    let budget = profile
        .spec
        .budget
        .as_ref()
        .map_or("", |budget| budget.cpu.as_str());
    let reason = match least {
        KeptMode::Suspended => "Suspended",
        _ => "Degraded",
    };
    let message = format!(
        "on {} less is kept than spec.capture says, because the probe would take more than spec.budget.cpu \
         {budget}: {}. It is tried again by itself; give it more, or want less",
        counted(nodes.len() as u64, "node"),
        names(&nodes)
    );
    Wanted::new(WITHIN_BUDGET, false, reason, message)
}

/// An Event where what is kept of calls was held down, or no longer is.
pub fn told(old: Option<&TraceProfileStatus>, new: &TraceProfileStatus) -> Option<Note> {
    let find = |status: &TraceProfileStatus| conditions::find(&status.conditions, WITHIN_BUDGET).cloned();
    let (before, now) = (old.and_then(find), find(new)?);
    let was = before.as_ref().is_some_and(|before| before.status == "False");
    let is = now.status == "False";
    let worse = is && before.is_some_and(|before| before.reason == "Degraded" && now.reason == "Suspended");
    if was == is && !worse {
        return None;
    }
    let (severity, reason, note) = if is {
        (Severity::Warning, "OverBudget", now.message.clone())
    } else {
        let note = "all is kept again that spec.capture says".to_owned();
        (Severity::Normal, "WithinBudget", note)
    };
    Some(Note {
        severity,
        reason,
        action: "Trace",
        note,
        key: format!("{}-{}", now.reason, now.last_transition_time.0.as_second()),
    })
}

fn traced(selection: &Selection, agents: &Agents) -> Wanted {
    let of = |what: &str| {
        format!(
            "{} of {} in {} on {} traced{what}",
            agents.containers,
            counted(selection.containers, "container"),
            counted(selection.pods as u64, "pod"),
            counted(selection.nodes.len() as u64, "node"),
        )
    };
    if selection.containers == 0 {
        return Wanted::new(
            TRACED,
            false,
            "NothingSelected",
            match selection.pods {
                0 => "no running pod of this namespace matches spec.podSelector: \
                      compare it with kubectl get pods --show-labels"
                    .to_owned(),
                1 => "1 pod matches spec.podSelector, and none of its running containers is this profile's"
                    .to_owned(),
                n => format!(
                    "{n} pods match spec.podSelector, and none of their running containers is this profile's"
                ),
            },
        );
    }
    if let Some((node, message)) = agents.broken.first() {
        let others = match agents.broken.len() {
            1 => String::new(),
            n => format!(" and {} more", n - 1),
        };
        return Wanted::new(
            TRACED,
            false,
            "ProbeNotReady",
            of(&format!("; node {node}{others} cannot trace: {message}")),
        );
    }
    let suspended = agents
        .over
        .iter()
        .filter(|(_, mode)| *mode == KeptMode::Suspended);
    let suspended: Vec<String> = suspended.map(|(node, _)| node.clone()).collect();
    if agents.containers < selection.containers && !suspended.is_empty() {
        let what = format!("; suspended by spec.budget on {}", names(&suspended));
        return Wanted::new(TRACED, false, "Suspended", of(&what));
    }
    if agents.containers >= selection.containers {
        return Wanted::new(TRACED, true, "Traced", of(""));
    }
    let silent = selection.nodes.len().saturating_sub(agents.answered);
    let what = match silent {
        0 => String::new(),
        n => format!("; waiting for the agents of {}", counted(n as u64, "node")),
    };
    Wanted::new(TRACED, false, "WaitingForAgents", of(&what))
}

fn problem(
    profile: &TraceProfile,
    selection: &Selection,
    missing_models: &[String],
) -> Option<(&'static str, String)> {
    if let Some(problem) = select::problem(&profile.spec.pod_selector) {
        return Some((
            "BadSelector",
            format!("spec.podSelector is not well formed ({problem}): nothing is selected"),
        ));
    }
    let unknown = capture::unknown(&profile.spec.capture.syscalls);
    if !unknown.is_empty() {
        let meanwhile = match capture::known(&profile.spec.capture) {
            Some(_) => "the other names hold meanwhile",
            None => "nothing is traced for this profile meanwhile",
        };
        let said: Vec<String> = unknown.iter().map(unknown_name).collect();
        return Some(("UnknownSyscall", format!("{} ({meanwhile})", names(&said))));
    }
    if !missing_models.is_empty() {
        return Some((
            "ModelNotFound",
            format!(
                "spec.models names {}, which this namespace does not have: create it or remove the name \
                 (what is selected is traced and collected meanwhile)",
                names(missing_models)
            ),
        ));
    }
    if !selection.unknown.is_empty() {
        return Some((
            "ContainerNotFound",
            format!(
                "spec.containers names {}, which no matched pod has",
                names(&selection.unknown)
            ),
        ));
    }
    if !selection.lost.is_empty() {
        let others: Vec<String> = selection.lost.keys().cloned().collect();
        let containers: u32 = selection.lost.values().sum();
        return Some((
            "Overlaps",
            format!(
                "{} of what is selected {} traced for {} instead, which is older: \
                 make the selectors or containers of the profiles disjoint",
                counted(containers, "container"),
                if containers == 1 { "is" } else { "are" },
                names(&others)
            ),
        ));
    }
    None
}

/// What is wrong with a name, and what may have been meant.
fn unknown_name(unknown: &Unknown<'_>) -> String {
    let Unknown { field, name } = unknown;
    let near = match capture::near(name).as_slice() {
        [] => "write a name as in man 2 syscalls, or one of the classes file, network, process, memory, ipc, signal, desc"
            .to_owned(),
        near => format!("did you mean {}?", near.join(" or ")),
    };
    format!(
        "spec.capture.syscalls.{field} has \"{name}\", which is neither a system call nor a class: {near}"
    )
}

pub(super) fn names(all: &[String]) -> String {
    let first = all
        .iter()
        .take(NAMED)
        .map(String::as_str)
        .collect::<Vec<_>>()
        .join(", ");
    match all.len().saturating_sub(NAMED) {
        0 => first,
        n => format!("{first} and {n} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{at, pod, profile};
    use serde_json::json;

    fn look(
        profile: &TraceProfile,
        others: &[TraceProfile],
        pods: &[PodView],
        traced: u32,
        missing: &[&str],
    ) -> TraceProfileStatus {
        let claimants = Claimants::new(others.iter().chain([profile]).cloned().map(Arc::new));
        let pods: Vec<_> = pods.iter().cloned().map(Arc::new).collect();
        let selection = select(profile, &claimants, &pods);
        let agents = Agents {
            containers: traced,
            answered: selection.nodes.len(),
            ..Agents::default()
        };
        let missing: Vec<_> = missing.iter().map(|m| (*m).to_owned()).collect();
        status(profile, &selection, &agents, &missing, at(1))
    }

    fn reason(status: &TraceProfileStatus) -> (String, String) {
        let ready = conditions::find(&status.conditions, READY).expect("Ready is always there");
        (ready.status.clone(), ready.reason.clone())
    }

    #[test]
    fn what_is_kept_down_is_said_and_told_once() {
        let plan = |node: &str, mode: &str, over: bool, cost: i64| -> NodePlan {
            serde_json::from_value(json!({
                "metadata": {"name": node}, "spec": {},
                "status": {"profiles": [{
                    "namespace": "shop", "name": "p", "containers": if mode == "Suspended" { 0 } else { 1 },
                    "mode": mode, "overBudget": over, "overheadMicroCores": cost, "lost": 3,
                }]},
            }))
            .expect("a plan")
        };
        let pods = [pod("shop", "a", "n1", &["app"]), pod("shop", "b", "n2", &["app"])];
        let pods: Vec<_> = pods.iter().cloned().map(Arc::new).collect();
        let mut profile = profile("shop", "p", 1);
        profile.spec.budget = serde_json::from_value(json!({"cpu": "10m"})).expect("a budget");
        let selection = select(&profile, &Claimants::new([Arc::new(profile.clone())]), &pods);
        let mut next = |plans: [NodePlan; 2], second| {
            let next = status(
                &profile,
                &selection,
                &agents("shop", "p", plans.iter()),
                &[],
                at(second),
            );
            let note = told(profile.status.as_ref(), &next);
            profile.status = Some(next.clone());
            (next, note.map(|note| note.reason))
        };
        let within = |status: &TraceProfileStatus| {
            conditions::find(&status.conditions, WITHIN_BUDGET)
                .expect("is there")
                .clone()
        };

        let (first, note) = next(
            [plan("n1", "Full", false, 2000), plan("n2", "Full", false, 5000)],
            1,
        );
        assert_eq!((within(&first).status.as_str(), note), ("True", None));
        let wanted = Overhead {
            milli_cores: 10,
            most_milli_cores: 5,
            most_on: "n2".to_owned(),
        };
        assert_eq!((&first.overhead, first.lost), (&wanted, 8));
        let (again, _) = next(
            [plan("n1", "Full", false, 2000), plan("n2", "Full", false, 4100)],
            2,
        );
        assert_eq!(again, first, "a little less is not told");

        let (down, note) = next(
            [plan("n1", "Full", false, 2000), plan("n2", "Counts", true, 5000)],
            3,
        );
        assert_eq!(
            (within(&down).reason.as_str(), note),
            ("Degraded", Some("OverBudget"))
        );
        assert!(
            within(&down).message.contains("n2 (Counts)"),
            "{}",
            within(&down).message
        );
        assert_eq!(reason(&down).1, "Traced");
        let (off, note) = next(
            [plan("n1", "Full", false, 2000), plan("n2", "Suspended", true, 0)],
            4,
        );
        assert_eq!(
            (within(&off).reason.as_str(), note),
            ("Suspended", Some("OverBudget"))
        );
        assert_eq!(reason(&off), ("False".to_owned(), "Suspended".to_owned()));
        let (back, note) = next(
            [plan("n1", "Full", false, 2000), plan("n2", "Full", false, 900)],
            5,
        );
        assert_eq!(
            (within(&back).status.as_str(), note),
            ("True", Some("WithinBudget"))
        );
    }

    #[test]
    fn all_that_is_selected_and_traced_is_ready() {
        let pods = [
            pod("shop", "a", "n1", &["app"]),
            pod("shop", "b", "n2", &["app", "side"]),
        ];
        let status = look(&profile("shop", "p", 1), &[], &pods, 3, &[]);
        assert_eq!(reason(&status), ("True".to_owned(), "Traced".to_owned()));
        assert_eq!(
            (status.matched_pods, status.traced_containers, status.nodes),
            (2, 3, 2)
        );
        assert!(!conditions::is_true(&status.conditions, STALLED));
        let status = look(&profile("shop", "p", 1), &[], &pods, 1, &[]);
        assert_eq!(reason(&status).1, "WaitingForAgents");
        assert!(conditions::is_true(&status.conditions, RECONCILING));
    }

    #[test]
    fn a_selector_without_pods_says_so() {
        let status = look(&profile("shop", "p", 1), &[], &[], 0, &[]);
        assert_eq!(reason(&status).1, "NothingSelected");
        assert!(!conditions::is_true(&status.conditions, STALLED));
    }

    #[test]
    fn what_a_person_must_put_right_is_named() {
        let pods = [pod("shop", "a", "n1", &["app"])];
        let plain = profile("shop", "p", 5);
        let stalled = |status: &TraceProfileStatus| conditions::is_true(&status.conditions, STALLED);

        let missing = look(&plain, &[], &pods, 1, &["m"]);
        assert_eq!(reason(&missing).1, "ModelNotFound");
        assert!(stalled(&missing) && conditions::is_true(&missing.conditions, TRACED));

        let overlap = look(&plain, &[profile("shop", "older", 1)], &pods, 0, &[]);
        assert_eq!(reason(&overlap).1, "Overlaps");
        let message = &conditions::find(&overlap.conditions, READY)
            .expect("Ready")
            .message;
        assert!(message.contains("older") && stalled(&overlap), "{message}");

        let mut typo = plain.clone();
        typo.spec.containers = vec!["ap".to_owned()];
        assert_eq!(reason(&look(&typo, &[], &pods, 0, &[])).1, "ContainerNotFound");

        let mut odd = plain.clone();
        odd.spec.capture.syscalls.exclude = vec!["futex".to_owned(), "raed".to_owned()];
        let odd = look(&odd, &[], &pods, 1, &[]);
        assert_eq!(reason(&odd).1, "UnknownSyscall");
        let message = &conditions::find(&odd.conditions, READY).expect("Ready").message;
        assert!(
            message.contains("exclude has \"raed\"")
                && message.contains("did you mean read")
                && stalled(&odd),
            "{message}"
        );
        assert!(conditions::is_true(&odd.conditions, TRACED), "the rest holds");

        // Nothing is left of it: it traces nothing, and keeps nothing from a younger one.
        let mut none = plain.clone();
        none.spec.capture.syscalls.include = vec!["raed".to_owned(), "qqqqqqqq".to_owned()];
        let younger = profile("shop", "younger", 9);
        let status = look(&none, std::slice::from_ref(&younger), &pods, 0, &[]);
        assert_eq!(reason(&status).1, "UnknownSyscall");
        let message = &conditions::find(&status.conditions, READY)
            .expect("Ready")
            .message;
        assert!(
            message.contains("qqqqqqqq") && message.contains("man 2 syscalls"),
            "{message}"
        );
        assert_eq!(status.nodes, 0);
        assert_eq!(reason(&look(&younger, &[none], &pods, 1, &[])).1, "Traced");

        let mut bad = plain.clone();
        bad.spec.pod_selector =
            serde_json::from_value(json!({"matchExpressions": [{"key": "a", "operator": "Like"}]}))
                .expect("parses");
        assert_eq!(reason(&look(&bad, &[], &pods, 0, &[])).1, "BadSelector");
    }

    #[test]
    fn agents_are_summed_over_nodes_and_a_broken_probe_is_named() {
        let plan = |node: &str, probe: &str| -> NodePlan {
            serde_json::from_value(json!({
                "apiVersion": "vigia.dev/v1alpha1", "kind": "NodePlan", "metadata": {"name": node, "generation": 1},
                "spec": {"profiles": [], "models": []},
                "status": {"observedGeneration": 1, "profiles": [
                    {"namespace": "shop", "name": "p", "containers": 2}, {"namespace": "shop", "name": "q", "containers": 9}],
                  "conditions": [{"type": "ProbeReady", "status": probe, "reason": "NoBtf", "message": "no BTF",
                                  "lastTransitionTime": "2026-01-01T00:00:00Z"}]},
            }))
            .expect("a plan")
        };
        let plans = [plan("n1", "True"), plan("n2", "False")];
        let said = agents("shop", "p", plans.iter());
        assert_eq!((said.containers, said.answered), (4, 2));
        assert_eq!(said.broken, [("n2".to_owned(), "no BTF".to_owned())]);
        let selection = Selection {
            pods: 1,
            containers: 5,
            nodes: BTreeSet::from(["n1".to_owned(), "n2".to_owned()]),
            ..Selection::default()
        };
        let status = status(&profile("shop", "p", 1), &selection, &said, &[], at(1));
        assert_eq!(reason(&status).1, "ProbeNotReady");
    }
}
