//! What tracing takes for a profile, and whether that is more than its budget: pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use vigia_crds::conditions::{self, Wanted};
use vigia_crds::{KeptMode, Overhead, TraceProfile, TraceProfileStatus, coarse};

use super::observed::Agents;
use super::plan::names;
use crate::events::{Note, Severity, counted};
use crate::model::silent::{self, SILENT};

/// Whether what the profile wants costs no more than its budget, on all nodes.
pub const WITHIN_BUDGET: &str = "WithinBudget";

/// What agents measured, so rounded that it changes seldom however many nodes there are.
pub(super) fn overhead(agents: &Agents, old: Option<&Overhead>) -> Overhead {
    let milli = |micro: i64, old: i64| coarse(micro.saturating_add(999) / 1000, old);
    let (all, most) = old.map_or((0, 0), |old| (old.milli_cores, old.most_milli_cores));
    let most_milli_cores = milli(agents.most.0, most);
    // Of nodes that take as much, the one that was named stays named.
    let same = old.filter(|old| old.most_milli_cores == most_milli_cores && !old.most_on.is_empty());
    // Each is rounded by what was told of it before, and yet the whole is no less than a part of it.
    let milli_cores = match agents.micro_cores == agents.most.0 {
        true => most_milli_cores,
        false => milli(agents.micro_cores, all).max(most_milli_cores),
    };
    Overhead {
        milli_cores,
        most_milli_cores,
        most_on: match same {
            Some(old) if agents.most.0 > 0 => old.most_on.clone(),
            _ => agents.most.1.clone(),
        },
    }
}

/// What there is to say of it.
pub(super) fn within_budget(
    profile: &TraceProfile,
    agents: &Agents,
    of_order: &[(String, Option<Vec<&'static str>>)],
) -> Wanted {
    let budget = profile.spec.budget.as_ref();
    // Without a budget there is none that pods which come back would be held to.
    let were_over = budget.map_or(&[][..], |_| &agents.were_over);
    let all = || agents.over.iter().chain(were_over);
    let Some(least) = all().map(|(_, mode)| *mode).min() else {
        return Wanted::new(WITHIN_BUDGET, true, "WithinBudget", "");
    };
    let here = agents
        .over
        .iter()
        .map(|(node, mode)| format!("{node} ({})", mode.as_str()));
    let were = were_over.iter();
    let were = were.map(|(node, mode)| format!("{node} ({}, without a pod just now)", mode.as_str()));
    let nodes: Vec<String> = here.chain(were).collect();
    let budget = budget.map_or("", |budget| budget.cpu.as_str());
    let reason = match least {
        KeptMode::Suspended => "Suspended",
        _ => "Degraded",
    };
    let silent = match all().any(|(_, mode)| *mode == KeptMode::Counts) {
        true => {
            let old = profile.status.iter().flat_map(|status| &status.conditions);
            let old = old.filter(|old| old.type_ == WITHIN_BUDGET);
            silent::of_profile(of_order, old.map(|old| old.message.as_str()).next())
        }
        false => String::new(),
    };
    let nothing = match least {
        KeptMode::Suspended => ". Where Suspended, nothing is counted, scored or told of its containers",
        _ => "",
    };
    let message = format!(
        "on {} less is kept than spec.capture says, because the probe would take more than spec.budget.cpu \
         {budget}: {}{nothing}. It is tried again by itself; give it more, or want less{silent}",
        counted(nodes.len() as u64, "node"),
        names(&nodes)
    );
    Wanted::new(WITHIN_BUDGET, false, reason, message)
}

/// An Event where what is kept of calls was held down, or no longer is, and where members of a Model fall silent by it.
pub fn told(old: Option<&TraceProfileStatus>, new: &TraceProfileStatus) -> Option<Note> {
    let find = |status: &TraceProfileStatus| conditions::find(&status.conditions, WITHIN_BUDGET).cloned();
    let (before, now) = (old.and_then(find), find(new)?);
    let was = before.as_ref().is_some_and(|before| before.status == "False");
    let is = now.status == "False";
    let is_silent = |condition: &Condition| condition.message.contains(SILENT);
    let worse = before.as_ref().is_some_and(|before| {
        (before.reason == "Degraded" && now.reason == "Suspended") || (is_silent(&now) && !is_silent(before))
    });
    if was == is && !(is && worse) {
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
        key: format!(
            "{}{}-{}",
            now.reason,
            if is_silent(&now) { "-silent" } else { "" },
            now.last_transition_time.0.as_second()
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn all_nodes_together_take_no_less_than_the_one_that_takes_the_most() {
        let told = |micro: &[i64], old: &Overhead| {
            let most = micro.iter().copied().max().unwrap_or(0);
            let agents = Agents {
                micro_cores: micro.iter().sum(),
                most: (most, "n".to_owned()),
                ..Agents::default()
            };
            let next = overhead(&agents, Some(old));
            (next.milli_cores, next.most_milli_cores)
        };
        // It swung around a step before.
        let old = Overhead {
            milli_cores: 1,
            most_milli_cores: 2,
            most_on: "n".to_owned(),
        };
        assert_eq!(told(&[500, 200], &old), (2, 2));
        let old = Overhead {
            milli_cores: 2,
            most_milli_cores: 1,
            ..old
        };
        assert_eq!(told(&[800], &old), (1, 1), "it is the only one");
        assert_eq!(told(&[800, 0], &old), (1, 1), "the others take nothing");
    }

    proptest! {
        #[test]
        fn whatever_was_told_before_a_part_is_no_more_than_the_whole(
            days in prop::collection::vec(prop::collection::vec(0i64..50_000, 0..5), 1..40),
        ) {
            let mut old = None;
            for micro in days {
                let most = micro.iter().copied().max().unwrap_or(0);
                let agents = Agents {
                    micro_cores: micro.iter().sum(),
                    most: (most, "n".to_owned()),
                    ..Agents::default()
                };
                let next = overhead(&agents, old.as_ref());
                prop_assert!(next.milli_cores >= next.most_milli_cores);
                prop_assert!(next.milli_cores * 1000 >= agents.micro_cores && next.most_milli_cores * 1000 >= most);
                old = Some(next);
            }
        }
    }
}
