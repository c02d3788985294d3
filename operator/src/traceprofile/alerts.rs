//! Whether people were told of every alert of a profile, or agents held some back because the alert budget was spent.

use std::time::Duration;

use jiff::SignedDuration;
use vigia_crds::conditions::{self, Wanted};
use vigia_crds::{BudgetPer, TraceProfile, TraceProfileStatus};

use super::observed::Agents;
use super::plan::names;
use crate::alert::plain;
use crate::events::{Note, Severity};

/// Whether every window that is an alert was told as one, on all nodes, within the last hour.
pub const ALERTS_TOLD: &str = "AlertsTold";

/// The condition.
pub(super) fn wanted(profile: &TraceProfile, agents: &Agents) -> Wanted {
    if agents.withheld.is_empty() {
        return Wanted::new(ALERTS_TOLD, true, "AllTold", "");
    }
    let nodes: Vec<String> = agents
        .withheld
        .iter()
        .map(|said| format!("{} (up to {})", said.node, said.windows))
        .collect();
    let budget = &profile.spec.detection.alert_budget;
    let per = match budget.per {
        BudgetPer::Pod => "pod",
        BudgetPer::Profile => "profile",
    };
    let every = SignedDuration::try_from(Duration::from(budget.every)).unwrap_or(SignedDuration::MAX);
    let message = format!(
        "windows that would have been alerts were not told, because spec.detection.alertBudget of {} per {per} in {:#} \
         was spent on {}{}. The logs of the agents there have the causes; look at the scores and the drift of these pods, \
         train anew if this is how they are now, or raise spec.detection.alertBudget; this is said until an hour has none",
        budget.count,
        every,
        names(&nodes),
        such_as(agents).unwrap_or_default(),
    );
    Wanted::new(ALERTS_TOLD, false, "BudgetSpent", message)
}

/// The latest that a node names, in letters that are harmless in a terminal.
fn such_as(agents: &Agents) -> Option<String> {
    let named = agents
        .withheld
        .iter()
        .filter_map(|said| said.one.as_ref().zip(Some(&said.node)));
    let (one, node) = named.max_by_key(|(one, _)| one.at.0)?;
    Some(format!(
        "; one of them was at {} in container {} of pod {} on {node}, by {} of Model {}",
        one.at.0,
        plain(&one.container, 63),
        plain(&one.pod, 253),
        plain(&one.estimator, 32),
        plain(&one.model, 253),
    ))
}

/// An Event where alerts begin to be held back.
pub fn told(old: Option<&TraceProfileStatus>, new: &TraceProfileStatus) -> Option<Note> {
    let find = |status: &TraceProfileStatus| conditions::find(&status.conditions, ALERTS_TOLD).cloned();
    let now = find(new).filter(|now| now.status == "False")?;
    if old.and_then(find).is_some_and(|before| before.status == "False") {
        return None;
    }
    Some(Note {
        severity: Severity::Warning,
        reason: "AlertsWithheld",
        action: "Detect",
        note: now.message,
        key: now.last_transition_time.0.as_second().to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::super::observed::{Selection, agents};
    use super::super::plan::status;
    use super::*;
    use crate::fixture::{at, profile};
    use serde_json::json;
    use vigia_crds::NodePlan;

    fn plan(node: &str, profile: &str, withheld: i64) -> NodePlan {
        serde_json::from_value(json!({
            "metadata": {"name": node}, "spec": {},
            "status": {"profiles": [{
                "namespace": "shop", "name": profile, "containers": 1, "alertsWithheld": withheld,
            }]},
        }))
        .expect("a plan")
    }

    #[test]
    fn one_that_was_held_back_is_named_and_the_dead_are_believed_for_as_long_as_they_would_say_it() {
        let hour = 3600;
        let said = |second: i64, alive: bool, alert: serde_json::Value| {
            let mut plans = [plan("n1", "p", 4), plan("n2", "p", 2)];
            for (plan, alert) in plans.iter_mut().zip([alert, json!(null)]) {
                let status = plan.status.as_mut().expect("has one");
                status.profiles[0].withheld_alert = serde_json::from_value(alert).expect("an alert");
            }
            let lives = |_: &str| alive;
            let agents = agents(
                "shop",
                "p",
                &["n1".to_owned()].into(),
                plans.iter(),
                lives,
                at(second),
            );
            let wanted = wanted(&profile("shop", "p", 1), &agents);
            (agents.withheld.iter().find_map(|said| said.until), wanted.message)
        };
        let alert = |second: i64, pod: &str| json!({"at": at(second).to_string(), "pod": pod, "container": "web", "model": "m", "estimator": "Novelty"});
        let (until, message) = said(10 * hour, true, alert(hour, "web-1"));
        assert_eq!(until, None);
        let such = format!(
            "at {} in container web of pod web-1 on n1, by Novelty of Model m. ",
            at(hour)
        );
        assert!(message.contains(&such), "{message}");
        for words in ["n1 (up to 4), n2 (up to 2)", "logs of the agents"] {
            assert!(message.contains(words), "{message}");
        }
        let (_, hostile) = said(hour, true, alert(hour, &"\u{1b}[2J".repeat(500)));
        assert!(!hostile.contains('\u{1b}') && hostile.len() < 1024, "{hostile}");

        // Nobody lives who would take it back; of n2, nobody says when it was.
        let end = hour + 5400;
        let (until, message) = said(end - 1, false, alert(hour, "web-1"));
        assert_eq!(until, Some(at(end)));
        assert!(message.contains("on n1 (up to 4);"), "{message}");
        assert_eq!(said(end, false, alert(hour, "web-1")), (None, String::new()));
        assert_eq!(said(end, false, json!(null)), (None, String::new()));
        assert_eq!(
            said(hour, false, alert(end, "web-1")),
            (None, String::new()),
            "a time to come"
        );
    }

    #[test]
    fn what_is_held_back_is_said_while_it_is_so_and_told_once() {
        let mut profile = profile("shop", "p", 1);
        let mut next = |withheld: [i64; 2], second| {
            let plans = [
                plan("n1", "p", withheld[0]),
                plan("n2", "p", withheld[1]),
                plan("n3", "another", 64),
            ];
            // Node n2 has no pod of the profile any more.
            let agents = agents(
                "shop",
                "p",
                &["n1".to_owned()].into(),
                plans.iter(),
                |_| true,
                at(second),
            );
            assert_eq!(agents.containers, 1, "of where its pods are");
            let next = status(
                &profile,
                &Selection::default(),
                &agents,
                &crate::traceprofile::plan::Models::default(),
                at(second),
            );
            let note = told(profile.status.as_ref(), &next);
            profile.status = Some(next.clone());
            let condition = conditions::find(&next.conditions, ALERTS_TOLD).cloned();
            (next.alerts_withheld, condition.expect("is there"), note)
        };

        let (sum, condition, note) = next([0, -8], 1);
        assert_eq!((sum, condition.status.as_str(), note), (0, "True", None));
        let (sum, condition, note) = next([0, 8], 2);
        assert_eq!((sum, condition.reason.as_str()), (8, "BudgetSpent"));
        assert_eq!(condition.status, "False");
        for said in ["alertBudget of 1 per pod in 24h", "on n2 (up to 8)"] {
            assert!(condition.message.contains(said), "{}", condition.message);
        }
        let first = note.expect("it is told");
        assert_eq!(
            (first.reason, &first.note),
            ("AlertsWithheld", &condition.message)
        );

        let (sum, condition, note) = next([4, 16], 3);
        assert_eq!((sum, condition.status.as_str(), note), (32, "False", None));
        let (sum, condition, note) = next([0, 0], 4);
        assert_eq!((sum, condition.status.as_str(), note), (0, "True", None));
        let (sum, _, again) = next([i64::MAX, i64::MAX], 5);
        assert_eq!(sum, i64::MAX);
        assert_ne!(again.expect("it is told again").key, first.key);
    }
}
