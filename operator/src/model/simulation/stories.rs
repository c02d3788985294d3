//! Stories: one at random, and those that must never be missed.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use vigia_crds::{PromotionMode, RolloutPhase, VersionMode, VersionState};

use super::{Nature, Op, Sim, story};

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_promise_holds_whatever_happens((nodes, natures, ops) in story()) {
        let mut sim = Sim::new(nodes, &natures);
        for op in &ops {
            sim.apply(op)?;
        }
        sim.check_prompt()?;
        sim.settle()?;
        sim.check_end()?;
    }
}

fn settled(natures: &[Nature], targets: &[usize]) -> Sim {
    let mut sim = Sim::new(3, natures);
    for target in targets {
        sim.apply(&Op::Name(*target)).expect("a change of the spec");
        sim.settle().expect("comes to rest");
        sim.check_end().expect("rests where the spec says");
    }
    sim
}

fn serving(sim: &Sim) -> Option<String> {
    sim.status().serving.map(|s| s.name)
}

#[test]
fn a_good_version_goes_through_every_step() {
    let sim = settled(&[Nature::Fine, Nature::Fine], &[0, 1]);
    assert_eq!(serving(&sim).as_deref(), Some("m-v1"));
    assert_eq!(sim.status().previous.map(|p| p.name).as_deref(), Some("m-v0"));
    let plan = &sim.nodes["n0"].plan;
    assert_eq!(
        plan.iter().map(|v| (v.name.as_str(), v.mode)).collect::<Vec<_>>(),
        [("m-v1", VersionMode::Active), ("m-v0", VersionMode::Prefetch)]
    );
}

#[test]
fn a_noisy_version_is_rolled_back_and_not_tried_again_until_it_is_named_again() {
    let mut sim = settled(&[Nature::Fine, Nature::Noisy], &[0, 1]);
    assert_eq!(serving(&sim).as_deref(), Some("m-v0"));
    let status = sim.status();
    assert_eq!(status.rollout.map(|r| r.phase), Some(RolloutPhase::RolledBack));
    assert_eq!(status.failed[0].reason, "AlertRate");
    let started = |sim: &Sim| sim.status().rollout.map(|r| r.started_at);
    let first = started(&sim);
    sim.settle().expect("comes to rest");
    assert_eq!(started(&sim), first, "it was tried again");
    for target in [0, 1] {
        sim.apply(&Op::Name(target)).expect("a change of the spec");
        sim.settle().expect("comes to rest");
    }
    assert_ne!(started(&sim), first, "named again, it is tried again");
    assert_eq!(serving(&sim).as_deref(), Some("m-v0"));
}

#[test]
fn a_version_that_nodes_refuse_is_rolled_back() {
    let sim = settled(&[Nature::Fine, Nature::Refused], &[0, 1]);
    assert_eq!(serving(&sim).as_deref(), Some("m-v0"));
    assert_eq!(sim.status().failed[0].reason, "Refused");
}

#[test]
fn a_revoked_version_gives_way_to_the_one_before_at_once() {
    let mut sim = settled(&[Nature::Fine, Nature::Fine], &[0, 1]);
    sim.apply(&Op::Revoke(1)).expect("revoked");
    sim.reconcile().expect("one reconcile");
    let active = |sim: &Sim| {
        sim.nodes["n0"]
            .plan
            .iter()
            .find(|v| v.mode == VersionMode::Active)
            .map(|v| v.name.clone())
    };
    assert_eq!(active(&sim).as_deref(), Some("m-v0"));
    sim.settle().expect("comes to rest");
    assert_eq!(serving(&sim).as_deref(), Some("m-v0"));
    assert_eq!(
        sim.status().rollout.map(|r| r.phase),
        Some(RolloutPhase::RolledBack)
    );
}

#[test]
fn a_canary_that_is_lost_is_stood_in_for_and_the_rollout_ends() {
    let mut sim = settled(&[Nature::Fine, Nature::Fine], &[0]);
    let first = sim.views()[0].name.clone();
    sim.apply(&Op::Name(1)).expect("a change of the spec");
    sim.reconcile().expect("begins");
    sim.nodes.get_mut(&first).expect("a node").reachable = false;
    for _ in 0..40 {
        sim.reconcile().expect("goes on");
        for n in 0..3 {
            sim.sync(&format!("n{n}"));
        }
        sim.pass(7);
    }
    assert_eq!(serving(&sim).as_deref(), Some("m-v1"));
    assert!(
        !sim.nodes[&first].states.contains_key("d1"),
        "it could not be reached"
    );
    sim.settle().expect("comes to rest");
    assert_eq!(
        sim.nodes[&first].states.get("d1"),
        Some(&VersionState::Active),
        "it follows"
    );
}

#[test]
fn a_store_that_lost_everything_takes_no_version_from_a_node() {
    let mut sim = settled(&[Nature::Fine, Nature::Fine], &[0, 1]);
    let told = |sim: &Sim| sim.nodes.values().map(|n| n.plan.clone()).collect::<Vec<_>>();
    let (plans, status) = (told(&sim), sim.status());
    for n in 0..2 {
        sim.apply(&Op::Doubt(n)).expect("looked at again");
    }
    sim.settle().expect("comes to rest");
    sim.check_end().expect("rests where the spec says");
    assert_eq!((told(&sim), sim.status()), (plans, status));
}

#[test]
fn a_first_version_that_failed_is_tried_again_when_the_spec_changes() {
    let mut sim = settled(&[Nature::Noisy], &[]);
    sim.settle().expect("comes to rest");
    let phase = |sim: &Sim| sim.status().rollout.map(|r| r.phase);
    assert_eq!(
        (serving(&sim), phase(&sim)),
        (None, Some(RolloutPhase::RolledBack))
    );
    sim.settle().expect("comes to rest");
    assert_eq!(
        phase(&sim),
        Some(RolloutPhase::RolledBack),
        "tried again by itself"
    );
    sim.apply(&Op::Loosen(true)).expect("a change of the spec");
    sim.settle().expect("comes to rest");
    sim.check_end().expect("rests where the spec says");
    assert_eq!(serving(&sim).as_deref(), Some("m-v0"));
}

#[test]
fn a_version_that_failed_by_what_is_over_is_tried_again_when_somebody_pauses_and_goes_on() {
    let mut sim = settled(&[Nature::Fine, Nature::Noisy], &[0, 1]);
    assert_eq!(serving(&sim).as_deref(), Some("m-v0"));
    // What was noise was somebody who is gone.
    sim.natures.insert("d1".to_owned(), Nature::Fine);
    sim.settle().expect("comes to rest");
    assert_eq!(serving(&sim).as_deref(), Some("m-v0"), "not by itself");
    for paused in [true, false] {
        sim.apply(&Op::Pause(paused)).expect("a change of the spec");
    }
    sim.settle().expect("comes to rest");
    sim.check_end().expect("rests where the spec says");
    assert_eq!(serving(&sim).as_deref(), Some("m-v1"), "by the same gates");
}

#[test]
fn a_node_that_hangs_while_versions_go_back_stops_no_other_version() {
    let mut sim = settled(&[Nature::Fine, Nature::Noisy, Nature::Fine], &[0]);
    sim.apply(&Op::Name(1)).expect("a change of the spec");
    let hung = sim.views()[0].name.clone();
    let phase = |sim: &Sim| sim.status().rollout.map(|r| r.phase);
    loop {
        sim.reconcile().expect("goes on");
        if phase(&sim) == Some(RolloutPhase::RollingBack) {
            break;
        }
        for n in 0..3 {
            sim.sync(&format!("n{n}"));
        }
        sim.pass(7);
    }
    sim.nodes.get_mut(&hung).expect("a node").hangs = true;
    for _ in 0..20 {
        sim.reconcile().expect("goes on");
        for n in 0..3 {
            sim.sync(&format!("n{n}"));
        }
        sim.pass(7);
    }
    let rollout = sim.status().rollout.expect("a rollout");
    assert_eq!(rollout.phase, RolloutPhase::RollingBack);
    assert!(rollout.progress.contains(&hung), "{}", rollout.progress);
    sim.apply(&Op::Name(2)).expect("a change of the spec");
    sim.check_prompt().expect("the next one is rolled out");
    sim.settle().expect("comes to rest");
    assert_eq!(serving(&sim).as_deref(), Some("m-v2"));
}

#[test]
fn a_second_rollout_of_a_version_is_told_as_the_first_was() {
    let mut sim = settled(&[Nature::Fine, Nature::Fine], &[0]);
    sim.model.spec.promotion.mode = PromotionMode::Auto;
    let mut told: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    // A filter that is changed under way takes the version back; set back, it brings it again.
    for silent in [false, true, false, true] {
        sim.versions[1].silent = silent;
        for _ in 0..4 {
            let next = sim.decide();
            assert_eq!(
                next.notes,
                sim.decide().notes,
                "a life after a kill says the same"
            );
            for note in &next.notes {
                told.entry(note.reason).or_default().insert(note.key.clone());
            }
            sim.commit(next).expect("nodes are told what they may run");
            for n in 0..3 {
                sim.write_plan(&format!("n{n}"));
                sim.sync(&format!("n{n}"));
            }
            sim.pass(1);
        }
    }
    let times = |reason| told.get(reason).map(BTreeSet::len);
    for reason in ["RolloutStarted", "RollingBack", "RolledBack"] {
        assert_eq!(times(reason), Some(2), "{reason}: {told:?}");
    }
}
