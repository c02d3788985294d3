//! A TraceProfile's status, as a pure function of the pods it selects and what agents say.

use jiff::{SignedDuration, Timestamp};
use vigia_crds::conditions::{self, READY, RECONCILING, STALLED, Wanted};
use vigia_crds::{BudgetPer, KeptMode, TraceProfile, TraceProfileStatus};

use super::alerts;
use super::budget::{overhead, within_budget};
use super::capture::{self, Unknown};
use super::observed::{Agents, Selection};
use crate::events::counted;
use crate::nodeplan::plan::{MAX_CONTAINERS, MAX_PODS, rounded};
use crate::select;

/// Beside kstatus' own: whether agents trace what is selected.
pub const TRACED: &str = "Traced";
/// Names in a message before "and N more".
const NAMED: usize = 3;

/// More is selected on a node than its plan has room for.
const TOO_MANY: &str = "TooManyPods";

/// What there is to say of the Models that a profile names.
#[derive(Debug, Default)]
pub struct Models {
    /// They are not there.
    pub missing: Vec<String>,
    /// They are there and cannot be read.
    pub unreadable: Vec<String>,
    /// Members of the versions that serve, by Model, that look at which calls come after which; `None` where that is not
    /// known, as the version was not verified since the operator's start.
    pub of_order: Vec<(String, Option<Vec<&'static str>>)>,
}

/// The status.
pub fn status(
    profile: &TraceProfile,
    selection: &Selection,
    agents: &Agents,
    models: &Models,
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
                .fold(0, |all, said| all.saturating_add(said.windows)),
        ),
        conditions: conditions::apply(old, &wanted(profile, selection, agents, models), generation, now),
    }
}

fn wanted(profile: &TraceProfile, selection: &Selection, agents: &Agents, models: &Models) -> [Wanted; 6] {
    let traced = traced(selection, agents);
    // What a person must put right comes first.
    let problem = problem(profile, selection, models);
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
        within_budget(profile, agents, &models.of_order),
        alerts::wanted(profile, agents),
    ]
}

fn powers_of_two(lost: i64) -> i64 {
    let lost = u64::try_from(lost).unwrap_or(0);
    let next = lost.checked_next_power_of_two().filter(|_| lost > 0);
    i64::try_from(next.unwrap_or(0)).unwrap_or(i64::MAX)
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
    if agents.containers.saturating_add(selection.beyond) >= selection.containers {
        return Wanted::new(TRACED, false, TOO_MANY, of("; no plan has room for the others"));
    }
    let silent = selection.nodes.len().saturating_sub(agents.answered);
    let what = match silent {
        0 => String::new(),
        n => format!("; waiting for the agents of {}", counted(n as u64, "node")),
    };
    Wanted::new(TRACED, false, "WaitingForAgents", of(&what))
}

/// What a person must put right: the reason of the first thing, and what there is to say of all of them. Where nothing is
/// traced, that comes first.
fn problem(profile: &TraceProfile, selection: &Selection, models: &Models) -> Option<(&'static str, String)> {
    let problems = [
        selector(profile),
        filter(profile),
        containers(selection),
        room(selection),
        alert_budget(profile, selection),
        not_there(models, selection),
        unreadable(models, selection),
        overlaps(selection),
    ];
    let mut problems = problems.into_iter().flatten();
    let (reason, mut message) = problems.next()?;
    for (_, another) in problems {
        message = format!("{message}; and {another}");
    }
    Some((reason, message))
}

type Problem = Option<(&'static str, String)>;

fn selector(profile: &TraceProfile) -> Problem {
    let problem = select::problem(&profile.spec.pod_selector)?;
    let message = format!("spec.podSelector is not well formed ({problem}): nothing is selected");
    Some(("BadSelector", message))
}

fn filter(profile: &TraceProfile) -> Problem {
    let syscalls = &profile.spec.capture.syscalls;
    if capture::is_empty(syscalls) {
        let message = "spec.capture.syscalls excludes all that it includes: nothing is traced for this profile; leave \
                       something of it out of exclude";
        return Some(("NoSyscalls", message.to_owned()));
    }
    let unknown = capture::unknown(syscalls);
    if unknown.is_empty() {
        return None;
    }
    let meanwhile = match capture::known(&profile.spec.capture) {
        Some(_) => "the other names hold meanwhile",
        None => "nothing is traced for this profile meanwhile",
    };
    let said: Vec<String> = unknown.iter().map(unknown_name).collect();
    Some(("UnknownSyscall", format!("{} ({meanwhile})", names(&said))))
}

fn containers(selection: &Selection) -> Problem {
    if selection.unknown.is_empty() {
        return None;
    }
    let message = format!(
        "spec.containers names {}, which no matched pod has",
        names(&selection.unknown)
    );
    Some(("ContainerNotFound", message))
}

fn room(selection: &Selection) -> Problem {
    if selection.beyond == 0 {
        return None;
    }
    let message = format!(
        "{} of what is selected {} not traced: an agent traces {MAX_PODS} pods of a profile on its node and \
         {MAX_CONTAINERS} containers of a pod; part the pods between several profiles or more nodes",
        counted(selection.beyond, "container"),
        if selection.beyond == 1 { "is" } else { "are" },
    );
    Some((TOO_MANY, message))
}

/// Of a pod's budget the API server asks the same; how many containers share a profile's, it cannot know.
fn alert_budget(profile: &TraceProfile, selection: &Selection) -> Problem {
    let budget = &profile.spec.detection.alert_budget;
    let sharing = match budget.per {
        BudgetPer::Pod => 1.0,
        BudgetPer::Profile => f64::from(rounded(selection.containers)) * profile.spec.models.len() as f64,
    };
    if selection.containers == 0 || profile.spec.models.is_empty() {
        return None;
    }
    let [window, every] = [profile.spec.window, budget.every].map(std::time::Duration::from);
    let windows = every.as_secs_f64() / window.as_secs_f64() * sharing;
    if f64::from(budget.count) < windows {
        return None;
    }
    let message = format!(
        "spec.detection.alertBudget allows {} in {:#}, no fewer than {} windows in that time: nearly all of them \
         would be alerts; write a smaller count or a longer every",
        counted(u64::try_from(budget.count).unwrap_or(0), "alert"),
        SignedDuration::try_from(every).unwrap_or_default(),
        match budget.per {
            BudgetPer::Pod => "a container has",
            BudgetPer::Profile => "the profile's containers have",
        },
    );
    Some(("BudgetTooLarge", message))
}

/// What becomes of windows while no Model scores them.
fn meanwhile(selection: &Selection) -> &'static str {
    match selection.containers {
        0 => "",
        _ => " (what is selected is traced and collected meanwhile)",
    }
}

fn not_there(models: &Models, selection: &Selection) -> Problem {
    if models.missing.is_empty() {
        return None;
    }
    let message = format!(
        "spec.models names {}, which this namespace does not have: create it or remove the name{}",
        names(&models.missing),
        meanwhile(selection)
    );
    Some(("ModelNotFound", message))
}

fn unreadable(models: &Models, selection: &Selection) -> Problem {
    if models.unreadable.is_empty() {
        return None;
    }
    let message = format!(
        "spec.models names {}, which is there and cannot be read: its Event Unreadable says why (kubectl describe model); \
         correct it, or delete it and create it anew{}",
        names(&models.unreadable),
        meanwhile(selection)
    );
    Some(("ModelUnreadable", message))
}

fn overlaps(selection: &Selection) -> Problem {
    if selection.lost.is_empty() {
        return None;
    }
    let others: Vec<String> = selection.lost.keys().cloned().collect();
    let containers: u32 = selection.lost.values().sum();
    let message = format!(
        "{} of what is selected {} traced for {} instead, which is older: make the selectors or containers of the \
         profiles disjoint",
        counted(containers, "container"),
        if containers == 1 { "is" } else { "are" },
        names(&others)
    );
    Some(("Overlaps", message))
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
mod tests;
