//! What a profile says of itself, from what it selects and what agents report.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::json;
use vigia_crds::{NodePlan, Overhead};

use super::super::budget::{WITHIN_BUDGET, told};
use super::super::observed::{agents, select};
use super::*;
use crate::fixture::{at, pod, profile};
use crate::nodeplan::claim::Claimants;
use crate::pods::PodView;

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
    let models = Models {
        missing: missing.iter().map(|m| (*m).to_owned()).collect(),
        ..Models::default()
    };
    status(profile, &selection, &agents, &models, at(1))
}

fn reason(status: &TraceProfileStatus) -> (String, String) {
    let ready = conditions::find(&status.conditions, READY).expect("Ready is always there");
    (ready.status.clone(), ready.reason.clone())
}

#[test]
fn pods_beyond_what_a_plan_has_room_for_are_said() {
    let profile = profile("shop", "p", 1);
    let many = |count: usize| -> Vec<PodView> {
        let name = |i| format!("pod-{i:03}");
        let one = |i| pod("shop", &name(i), "n", &["app"]);
        (0..count).map(one).collect()
    };
    assert_eq!(
        reason(&look(&profile, &[], &many(512), 512, &[])),
        ("True".into(), "Traced".into())
    );
    let status = look(&profile, &[], &many(700), 512, &[]);
    let found = |kind| conditions::find(&status.conditions, kind).expect("is there");
    assert_eq!(reason(&status), ("False".into(), "TooManyPods".into()));
    let message = &found(READY).message;
    assert!(
        message.starts_with("188 containers of what is selected are not traced: an agent traces 512 pods"),
        "{message}"
    );
    assert_eq!(found(TRACED).reason, "TooManyPods");
    assert!(found(TRACED).message.starts_with("512 of 700 containers"));
    // Those that it could trace come first.
    let status = look(&profile, &[], &many(700), 100, &[]);
    let traced = conditions::find(&status.conditions, TRACED).expect("is there");
    assert_eq!(traced.reason, "WaitingForAgents");
    let crowded = pod("shop", "a", "n", &[""; 40]);
    let status = look(&profile, &[], &[crowded], 32, &[]);
    let ready = conditions::find(&status.conditions, READY).expect("is there");
    assert!(ready.message.starts_with("8 containers of"), "{}", ready.message);
}

#[test]
fn a_budget_of_all_windows_is_said() {
    let mut profile = profile("shop", "p", 1);
    profile.spec.models = vec!["m".into()];
    let all: Vec<PodView> = ["a", "b", "c", "d"]
        .map(|name| pod("shop", name, "n", &["app"]))
        .to_vec();
    let mut said = |budget: serde_json::Value, pods: &[PodView]| {
        profile.spec.detection.alert_budget = serde_json::from_value(budget).expect("a budget");
        let status = look(
            &profile,
            &[],
            pods,
            u32::try_from(pods.len()).expect("a few"),
            &[],
        );
        let ready = conditions::find(&status.conditions, READY).expect("Ready is always there");
        (ready.reason.clone(), ready.message.clone())
    };
    // Six windows a minute and container.
    let shared = |count: i32| json!({"count": count, "per": "Profile", "every": "1m"});
    assert_eq!(said(shared(5), &all[..1]).0, "Traced");
    let (reason, message) = said(shared(6), &all[..1]);
    assert_eq!(reason, "BudgetTooLarge");
    let words = "allows 6 alerts in 1m, no fewer than the profile's containers have windows";
    assert!(message.contains(words), "{message}");
    assert_eq!(said(shared(23), &all).0, "Traced");
    assert_eq!(said(shared(24), &all).0, "BudgetTooLarge");
    assert_eq!(said(shared(24), &[]).0, "NothingSelected");
    // From before the API server's rule; the pods do not share it.
    assert_eq!(said(json!({"count": 6, "every": "1m"}), &all).0, "BudgetTooLarge");
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
            &agents("shop", "p", &selection.nodes, plans.iter(), |_| true, at(1)),
            &Models::default(),
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
fn where_sequences_are_not_kept_the_members_that_look_at_them_are_named_and_told_of_once() {
    let mut profile = profile("shop", "p", 1);
    let models = |members| Models {
        of_order: vec![("m".to_owned(), members)],
        ..Models::default()
    };
    let (known, starting) = (models(Some(vec!["NGram", "STIDE"])), models(None));
    let mut of = |models: &Models, mode: KeptMode, second| {
        let agents = Agents {
            over: vec![("n1".to_owned(), mode)],
            ..Agents::default()
        };
        let next = status(&profile, &Selection::default(), &agents, models, at(second));
        let note = told(profile.status.as_ref(), &next);
        profile.status = Some(next.clone());
        let within = conditions::find(&next.conditions, WITHIN_BUDGET).expect("is there");
        (within.message.ends_with(": NGram and STIDE of Model m"), note)
    };
    let mut next = |mode, second| of(&known, mode, second);
    let (silent, first) = next(KeptMode::Sampled, 1);
    assert!(!silent && first.is_some(), "a part is measured");
    let (silent, second) = next(KeptMode::Counts, 2);
    let second = second.expect("it is told");
    assert!(
        silent && second.note.contains("Without a say in mode Counts"),
        "{}",
        second.note
    );
    assert_ne!(first.map(|note| note.key), Some(second.key));
    let (silent, again) = next(KeptMode::Counts, 3);
    assert_eq!((silent, again), (true, None));
    let (silent, better) = next(KeptMode::Sampled, 4);
    assert_eq!((silent, better), (false, None));
    let (silent, off) = next(KeptMode::Suspended, 5);
    let off = off.expect("it is told").note;
    assert!(
        !silent && off.contains("nothing is counted, scored or told"),
        "{off}"
    );

    // The operator starts anew, and looks at the artifact a moment later.
    next(KeptMode::Counts, 6);
    for (models, second) in [(&starting, 7), (&known, 8)] {
        assert_eq!(of(models, KeptMode::Counts, second), (true, None), "at {second}");
    }
    assert!(!of(&starting, KeptMode::Sampled, 9).0);
}

#[test]
fn while_a_pod_is_replaced_what_was_kept_down_still_is() {
    let mut profile = profile("shop", "p", 1);
    profile.spec.budget = serde_json::from_value(json!({"cpu": "10m"})).expect("a budget");
    let plan = |node: &str, name: &str, over: bool| -> NodePlan {
        serde_json::from_value(json!({
            "metadata": {"name": node}, "spec": {},
            "status": {"profiles": [{
                "namespace": "shop", "name": name, "containers": 0, "mode": "Counts", "overBudget": over,
            }]},
        }))
        .expect("a plan")
    };
    let mut next = |nodes: &[&str], plans: [NodePlan; 2], second| {
        let selection = Selection {
            pods: nodes.len(),
            nodes: nodes.iter().map(|node| (*node).to_owned()).collect(),
            ..Selection::default()
        };
        let told_of: Vec<_> = plans.iter().flat_map(crate::traceprofile::told_here).collect();
        let is_found = told_of.contains(&("shop", "p"));
        let agents = agents("shop", "p", &selection.nodes, plans.iter(), |_| true, at(1));
        let next = status(&profile, &selection, &agents, &Models::default(), at(second));
        let note = told(profile.status.as_ref(), &next).map(|note| note.reason);
        profile.status = Some(next.clone());
        let within = conditions::find(&next.conditions, WITHIN_BUDGET).expect("is there");
        (is_found, within.status.clone(), within.message.clone(), note)
    };
    let (found, status, _, note) = next(&["n1"], [plan("n1", "p", true), plan("n2", "q", true)], 1);
    assert_eq!(
        (found, status.as_str(), note),
        (true, "False", Some("OverBudget"))
    );
    let (found, status, message, note) = next(&[], [plan("n1", "p", true), plan("n2", "q", true)], 2);
    assert_eq!(
        (found, status.as_str(), note),
        (true, "False", None),
        "it comes back"
    );
    assert!(
        message.contains("n1 (Counts, without a pod just now)"),
        "{message}"
    );
    let (_, status, message, note) = next(&["n1"], [plan("n1", "p", true), plan("n2", "q", true)], 3);
    assert_eq!((status.as_str(), note), ("False", None));
    assert!(message.contains(": n1 (Counts)."), "{message}");
    let (found, status, _, note) = next(&[], [plan("n1", "p", false), plan("n2", "q", true)], 4);
    assert_eq!(
        (found, status.as_str(), note),
        (false, "True", Some("WithinBudget")),
        "it did not"
    );
}

#[test]
fn what_nobody_takes_back_is_not_kept_down_without_end() {
    let plan: NodePlan = serde_json::from_value(json!({
        "metadata": {"name": "n1"}, "spec": {},
        "status": {"profiles": [{
            "namespace": "shop", "name": "p", "containers": 0, "mode": "Sampled", "overBudget": true,
        }]},
    }))
    .expect("a plan");
    let within = |budget: Option<&str>, reachable: bool| {
        let mut profile = profile("shop", "p", 1);
        profile.spec.budget =
            budget.map(|cpu| serde_json::from_value(json!({"cpu": cpu})).expect("a budget"));
        let said = agents(
            "shop",
            "p",
            &BTreeSet::new(),
            [&plan].into_iter(),
            |node| node == "n1" && reachable,
            at(1),
        );
        let next = status(&profile, &Selection::default(), &said, &Models::default(), at(1));
        conditions::is_true(&next.conditions, WITHIN_BUDGET)
    };
    assert!(!within(Some("10m"), true), "its pod may be replaced");
    assert!(within(Some("10m"), false), "its agent is gone");
    assert!(within(None, true), "there is no budget any more");
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
    let claimants = Claimants::new([Arc::new(plain.clone())]);
    let selection = select(&plain, &claimants, &[]);
    let models = Models {
        missing: vec![],
        unreadable: vec!["big".to_owned()],
        ..Models::default()
    };
    let unreadable = status(&plain, &selection, &Agents::default(), &models, at(1));
    assert_eq!(reason(&unreadable).1, "ModelUnreadable");
    let said = conditions::find(&unreadable.conditions, READY).expect("Ready");
    assert!(
        said.message
            .contains("names big, which is there and cannot be read"),
        "{}",
        said.message
    );
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
        message.contains("exclude has \"raed\"") && message.contains("did you mean read") && stalled(&odd),
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
    let nodes = BTreeSet::from(["n1".to_owned(), "n2".to_owned()]);
    let said = agents("shop", "p", &nodes, plans.iter(), |_| true, at(1));
    assert_eq!((said.containers, said.answered), (4, 2));
    assert_eq!(said.broken, [("n2".to_owned(), "no BTF".to_owned())]);
    let selection = Selection {
        pods: 1,
        containers: 5,
        nodes,
        ..Selection::default()
    };
    let status = status(
        &profile("shop", "p", 1),
        &selection,
        &said,
        &Models::default(),
        at(1),
    );
    assert_eq!(reason(&status).1, "ProbeNotReady");
}
