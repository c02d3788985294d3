use super::*;
use crate::observed::drift::Evaluation;
use proptest::prelude::*;
use serde_json::json;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("a time")
}

const NOW: i64 = 1_000_000;

fn spec() -> RetrainingPolicySpec {
    serde_json::from_value(json!({
        "modelRef": {"name": "m"}, "coldStart": {"minWindows": 200}, "cooldown": "60s",
        "drift": {"above": "0.1", "minSamples": 100, "consecutive": 3, "every": "10s"},
        "training": {"data": {"lookback": "1h", "minWindows": 150}},
    }))
    .expect("a spec")
}

struct World {
    spec: RetrainingPolicySpec,
    status: RetrainingPolicyStatus,
    model: Option<ModelView>,
    runs: Vec<RunView>,
    windows: u64,
    since_drift: u64,
    drift: Option<Drift>,
    full: Option<String>,
    /// Runs of other Models.
    others: Vec<String>,
    older: Option<String>,
    unscored: Unscored,
    now: i64,
}

impl World {
    fn cold() -> Self {
        Self {
            spec: spec(),
            status: RetrainingPolicyStatus::default(),
            model: Some(ModelView::default()),
            runs: vec![],
            windows: 1000,
            since_drift: 0,
            drift: None,
            full: None,
            others: vec![],
            older: None,
            unscored: Unscored::default(),
            now: NOW,
        }
    }

    fn drifted() -> Self {
        let drift = Drift {
            last: Evaluation {
                start: at(NOW - 20),
                samples: 100,
                value: 0.5,
            },
            row: 3,
            since: Some(at(NOW - 40)),
            drifted: true,
        };
        Self {
            model: Some(ModelView {
                serving: Some("m-v1".into()),
                ..ModelView::default()
            }),
            since_drift: 150,
            drift: Some(drift),
            ..Self::cold()
        }
    }

    fn plan(&self) -> Plan {
        plan(&Observed {
            name: "p",
            generation: 1,
            spec: &self.spec,
            status: &self.status,
            model: self.model.clone(),
            runs: &self.runs,
            taken: &self.taken(),
            older: self.older.clone(),
            windows: self.windows,
            unscored: self.unscored.clone(),
            drift: self.drift,
            windows_since_drift: self.since_drift,
            store_full: self.full.clone(),
            now: at(self.now),
        })
    }

    fn taken(&self) -> Vec<String> {
        let runs = self.runs.iter().map(|r| r.name.clone());
        runs.chain(self.others.iter().cloned()).collect()
    }

    fn why(&self) -> String {
        let plan = self.plan();
        assert_eq!(plan.start, None);
        conditions::find(&plan.status.conditions, READY)
            .expect("Ready")
            .reason
            .clone()
    }
}

fn run(name: &str, finished: bool) -> RunView {
    RunView {
        name: name.into(),
        finished,
        failed: false,
        reason: DRIFT.into(),
        created: at(NOW - 100),
        windows: 0,
    }
}

#[test]
fn a_first_version_is_trained_once_there_are_enough_windows() {
    let mut world = World::cold();
    world.windows = 199;
    assert_eq!(world.why(), "Collecting");
    world.windows = 200;
    let (name, spec) = world.plan().start.expect("a run");
    assert_eq!((name.as_str(), spec.reason.as_str()), ("p-1", COLD_START));
    assert_eq!(spec.data.since, Some(Time(at(NOW - 3600))));
    assert!(!spec.data.include_alerted);
    world.spec.cold_start = None;
    assert_eq!(world.why(), "NoVersion");
}

#[test]
fn a_run_is_not_started_that_would_have_too_few_windows_for_its_workers() {
    let mut world = World::cold();
    world.spec.cold_start = serde_json::from_value(json!({"minWindows": 50})).expect("a cold start");
    world.spec.training.data.min_windows = 50;
    world.spec.training.workers = 16;
    world.windows = windows::wanted(50, 16) as u64 - 1;
    assert_eq!(world.why(), "Collecting");
    world.windows += 1;
    assert!(world.plan().start.is_some());
}

#[test]
fn drift_trains_on_what_came_after_it() {
    let mut world = World::drifted();
    let (name, spec) = world.plan().start.expect("a run");
    assert_eq!((name.as_str(), spec.reason.as_str()), ("p-1", DRIFT));
    // Drift was first seen 40 s ago in an evaluation of 10 s.
    assert_eq!(spec.data.since, Some(Time(at(NOW - 30))));
    assert!(spec.data.include_alerted);
    assert_eq!(world.plan().status.drifted_since, Some(Time(at(NOW - 40))));
    world.since_drift = 149;
    assert_eq!(world.why(), "CollectingAfterDrift");
    world.drift = world.drift.map(|d| Drift {
        drifted: false,
        row: 2,
        ..d
    });
    assert_eq!(world.why(), "Watching");
    assert_eq!(world.plan().status.drifted_evaluations, 2);
}

#[test]
fn a_name_that_another_models_run_has_is_left_to_it() {
    let mut world = World::drifted();
    world.others = vec!["p-3".into(), "p-x".into(), "q-9".into()];
    assert_eq!(world.plan().start.expect("a run").0, "p-4");
}

#[test]
fn of_two_policies_of_a_model_the_older_one_acts() {
    let mut world = World::drifted();
    world.older = Some("first".into());
    assert_eq!(world.why(), "Overlaps");
    assert!(conditions::is_true(&world.plan().status.conditions, STALLED));
}

#[test]
fn a_version_whose_artifact_is_lost_is_replaced_where_one_may_be_trained() {
    let mut world = World::drifted();
    world.drift = None;
    world.model = world.model.map(|m| ModelView {
        lost: m.serving.clone(),
        ..m
    });
    let (_, spec) = world.plan().start.expect("a run");
    assert_eq!((spec.reason.as_str(), spec.data.include_alerted), (LOST, false));
    world.windows = 10;
    assert_eq!(world.why(), "Collecting");
    world.spec.cold_start = None;
    assert_eq!(world.why(), LOST);
}

#[test]
fn after_a_change_of_the_filter_a_version_is_made_of_the_new_windows() {
    let mut world = World::drifted();
    world.drift = None;
    let unscored = |windows, all| Unscored {
        profiles: vec!["redis".into()],
        windows,
        all,
    };
    world.unscored = unscored(1000, true);
    let (_, spec) = world.plan().start.expect("a run");
    assert_eq!(
        (spec.reason.as_str(), spec.data.include_alerted),
        (CAPTURE, false)
    );
    world.unscored = unscored(10, true);
    assert_eq!(world.why(), "Collecting");
    // What else is scored is watched meanwhile.
    world.unscored = unscored(10, false);
    assert_eq!(world.why(), "Watching");
    // A training of a moment ago was of the windows of before; one that was for the new ones is not tried again at once.
    world.unscored = unscored(1000, true);
    let last = |reason: &str| {
        Some(LastRun {
            name: "p-1".into(),
            reason: reason.into(),
            started_at: Time(at(NOW - 10)),
        })
    };
    world.runs = vec![run("p-1", true)];
    world.status.last_run = last(COLD_START);
    assert_eq!(world.plan().start.expect("a run").1.reason, CAPTURE);
    world.status.last_run = last(CAPTURE);
    assert_eq!(world.why(), "CoolingDown");
    world.runs.clear();
    world.status.last_run = None;
    world.spec.cold_start = None;
    world.unscored = unscored(1000, true);
    assert_eq!(world.why(), CAPTURE);
    let mut status = RetrainingPolicyStatus::default();
    assert_eq!(untried(&status, at(NOW)), at(NOW));
    for (reason, started, since) in [
        (DRIFT, NOW + 9, NOW),
        (CAPTURE, NOW + 9, NOW + 9),
        (CAPTURE, NOW - 9, NOW),
    ] {
        status.last_run = Some(LastRun {
            name: "p-1".into(),
            reason: reason.into(),
            started_at: Time(at(started)),
        });
        assert_eq!(untried(&status, at(NOW)), at(since));
    }
}

#[test]
fn a_first_version_that_no_node_can_get_is_replaced_too() {
    let mut world = World::cold();
    world.model = Some(ModelView {
        lost: Some("m-v1".into()),
        ..ModelView::default()
    });
    assert_eq!(world.plan().start.expect("a run").1.reason, LOST);
    world.windows = 10;
    assert_eq!(world.why(), "Collecting");
    world.spec.cold_start = None;
    assert_eq!(world.why(), LOST);
}

#[test]
fn runs_that_fail_are_tried_ever_less_often() {
    let mut world = World::drifted();
    // Created 100 s ago; the cooldown is 60 s, and twice that after a failure.
    world.runs = vec![run("p-1", true)];
    world.status.last_run = Some(LastRun {
        name: "p-1".into(),
        reason: DRIFT.into(),
        started_at: Time(at(NOW - 100)),
    });
    assert!(world.plan().start.is_some());
    world.runs[0].failed = true;
    assert_eq!(world.why(), "CoolingDown");
    world.status.last_run.as_mut().expect("a run").started_at = Time(at(NOW - 121));
    assert!(world.plan().start.is_some());
}

#[test]
fn a_first_version_that_failed_is_tried_again_with_twice_the_windows() {
    let mut world = World::cold();
    world.runs = vec![RunView {
        failed: true,
        reason: COLD_START.into(),
        windows: 200,
        ..run("p-1", true)
    }];
    world.status.last_run = Some(LastRun {
        name: "p-1".into(),
        reason: COLD_START.into(),
        started_at: Time(at(NOW - 100)),
    });
    world.windows = 399;
    assert_eq!(world.why(), "CoolingDown");
    let plan = world.plan();
    let said = &conditions::find(&plan.status.conditions, READY)
        .expect("Ready")
        .message;
    assert!(said.contains("unless there are 400 windows before"), "{said}");
    world.windows = 400;
    assert_eq!(world.plan().start.expect("a run").0, "p-2");
    // Where a version serves, what fails waits its time.
    world.model = World::drifted().model;
    assert_eq!(world.why(), "CoolingDown");
    // So does a run that came to no windows.
    world.model = World::cold().model;
    world.runs[0].windows = 0;
    assert_eq!(world.why(), "CoolingDown");
}

#[test]
fn a_first_version_that_fails_for_other_reasons_than_few_windows_waits() {
    let mut world = World::cold();
    world.windows = 200_000;
    let failed = |name: &str, windows| RunView {
        failed: true,
        reason: COLD_START.into(),
        windows,
        created: at(NOW - 50),
        ..run(name, true)
    };
    let mut starts = |max_windows, runs: &[RunView]| {
        world.spec.training.data.max_windows = max_windows;
        world.runs = runs.to_vec();
        world.plan().start.is_some()
    };
    let first = [failed("p-1", 1000)];
    assert!(!starts(1999, &first), "a run takes no more than these");
    assert!(starts(2000, &first));
    // There is no room for more, whatever is asked for.
    assert!(!starts(100_000, &[failed("p-1", 29_000), failed("p-2", 29_100)]));
    let twice = [failed("p-1", 500), failed("p-2", 1000)];
    assert!(!starts(100_000, &twice), "one early try between two cooldowns");
    // The one before it was deleted: its number tells that it was there and failed.
    assert!(!starts(100_000, &twice[1..]));
}

/// Windows come all the time, and double; whatever the gates, no cooldown has more than two runs.
#[test]
fn however_fast_windows_come_a_cooldown_holds_after_one_early_try() {
    let mut world = World::cold();
    world.spec.training.data.max_windows = 1_000_000;
    let mut starts = Vec::new();
    for second in (0..4000).step_by(5) {
        world.now = NOW + second;
        world.windows = 200 + 100 * second as u64;
        let plan = world.plan();
        world.status = plan.status;
        if let Some((name, _)) = plan.start {
            starts.push(second);
            world.runs.push(RunView {
                failed: true,
                reason: COLD_START.into(),
                windows: world.windows,
                created: at(world.now),
                ..run(&name, true)
            });
        }
    }
    // The cooldown is 60 s, and doubles with each run that failed: 240 s after two, 960 s after four.
    assert_eq!(starts.len(), 6, "{starts:?}");
    let apart: Vec<i64> = starts.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let waited = [apart[1], apart[3]];
    assert!(waited[0] >= 240 && waited[1] >= 960, "{starts:?}");
}

#[test]
fn a_first_version_that_failed_after_its_cooldown_too_is_tried_again_with_twice_the_windows() {
    let mut world = World::cold();
    let failed = |name: &str, windows, created| RunView {
        failed: true,
        reason: COLD_START.into(),
        windows,
        created: at(created),
        ..run(name, true)
    };
    // The cooldown is 60 s, so 120 s after the first that failed.
    let mut starts = |windows, apart, before: u64| {
        world.windows = windows;
        world.runs = vec![
            failed("p-1", before, NOW - 50 - apart),
            failed("p-2", 3000, NOW - 50),
        ];
        world.plan().start.is_some()
    };
    assert!(starts(6000, 120, 2000), "p-2 waited its time");
    assert!(!starts(5999, 120, 2000));
    assert!(!starts(6000, 60, 2000), "p-2 was a try that came to no more");
    assert!(!starts(6000, 60, 1500), "p-2 was such a try");
    // What an older one had says nothing of the last.
    world.windows = 6000;
    let serves = RunView {
        created: at(NOW - 9000),
        windows: 100,
        ..run("p-1", true)
    };
    world.runs = vec![serves, failed("p-5", 3000, NOW - 50)];
    assert_eq!(world.why(), "CoolingDown");
}

#[test]
fn one_run_at_a_time_and_none_within_the_cooldown() {
    let mut world = World::drifted();
    world.runs = vec![run("by-hand", false)];
    assert_eq!(world.why(), "TrainingActive");
    world.runs = vec![run("p-4", true)];
    // Created 100 s ago, the cooldown is 60 s.
    assert_eq!(world.plan().start.expect("a run").0, "p-5");
    world.now = NOW - 50;
    assert_eq!(world.why(), "CoolingDown");
}

#[test]
fn runs_that_were_deleted_after_they_failed_still_count_for_the_cooldown() {
    let mut world = World::drifted();
    let failed = |name: &str, created| RunView {
        created: at(created),
        failed: true,
        ..run(name, true)
    };
    // The newest three of seven that failed, and the last that did not.
    world.runs = vec![
        run("p-2", true),
        failed("p-7", NOW - 300),
        failed("p-8", NOW - 200),
        failed("p-9", NOW - 100),
    ];
    world.runs[0].created = at(NOW - 9000);
    world.status.last_run = Some(LastRun {
        name: "p-9".into(),
        reason: DRIFT.into(),
        started_at: Time(at(NOW - 60 * 127)),
    });
    assert_eq!(world.why(), "CoolingDown");
    world.status.last_run.as_mut().expect("a run").started_at = Time(at(NOW - 60 * 128));
    assert!(world.plan().start.is_some());
}

#[test]
fn runs_of_people_that_failed_hold_no_policy_back() {
    let mut world = World::drifted();
    world.runs = vec![
        run("p-2", true),
        RunView {
            created: at(NOW - 50),
            failed: true,
            ..run("by-hand", true)
        },
    ];
    // Created 100 s ago, the cooldown is 60 s.
    assert!(world.plan().start.is_some());
    // One that did not fail is news all the same.
    world.runs.push(RunView {
        created: at(NOW - 95),
        failed: true,
        ..run("p-3", true)
    });
    assert_eq!(world.why(), "CoolingDown");
    world.runs[1].failed = false;
    assert!(world.plan().start.is_some());
}

#[test]
fn a_kill_between_the_start_and_the_status_starts_nothing_twice() {
    let world = World::drifted();
    let plan = world.plan();
    let name = plan.start.expect("a run").0;
    // Killed before the status was written; the run is there.
    let mut again = World::drifted();
    again.runs = vec![RunView {
        created: at(NOW),
        ..run(&name, false)
    }];
    assert_eq!(again.why(), "TrainingActive");
    assert_eq!(again.plan().status.last_run.map(|r| r.name), Some(name.clone()));
    // The status was written, and the cache does not have the run yet.
    let mut lag = World::drifted();
    lag.status = plan.status;
    lag.spec.cooldown = std::time::Duration::from_secs(10).into();
    lag.now = NOW + 15;
    assert_eq!(lag.why(), "TrainingActive");
    // The run went within the lag: its name is not used again.
    lag.now = NOW + 31;
    assert_eq!(lag.plan().start.expect("a run").0, "p-2");
}

#[test]
fn what_waits_to_be_promoted_is_not_trained_again() {
    let mut world = World::drifted();
    world.model = Some(ModelView {
        candidate: Some("m-v2".into()),
        ..world.model.clone().unwrap()
    });
    assert_eq!(world.why(), "AwaitingPromotion");
    // Before a first version serves, one that was refused or failed does not stand in the way of another.
    let mut failed = World::drifted();
    failed.model = Some(ModelView::default());
    assert_eq!(failed.plan().start.expect("a run").1.reason, COLD_START);
    failed.model = Some(ModelView {
        candidate: Some("m-v1".into()),
        ..ModelView::default()
    });
    assert_eq!(failed.why(), "AwaitingPromotion");
}

#[test]
fn nothing_is_started_while_suspended_orphaned_or_full() {
    let mut world = World::cold();
    world.spec.suspend = true;
    assert_eq!(world.why(), "Suspended");
    world.full = Some("no space".into());
    assert_eq!(world.why(), "StoreFull");
    assert!(conditions::is_true(&world.plan().status.conditions, STALLED));
    world.model = None;
    assert_eq!(world.why(), "ModelNotFound");
}

#[test]
fn counts_are_rounded_so_that_a_status_rarely_changes() {
    let rounded = [0, 9, 99, 101, 1999, 123_456].map(two_digits);
    assert_eq!(rounded, [0, 9, 99, 100, 1900, 120_000]);
}

proptest! {
    /// Planning again from what planning wrote changes nothing, at the same time.
    #[test]
    fn a_plan_is_stable(windows in 0u64..5000, since in 0u64..500, versions in any::<bool>(), suspend in any::<bool>()) {
        let mut world = if versions { World::drifted() } else { World::cold() };
        world.windows = windows;
        world.since_drift = since;
        world.spec.suspend = suspend;
        let first = world.plan();
        world.status = first.status.clone();
        if let Some((name, _)) = &first.start {
            world.runs.push(RunView { created: at(NOW), ..run(name, false) });
        }
        let second = world.plan();
        prop_assert_eq!(&second.start, &None);
        world.status = second.status.clone();
        prop_assert_eq!(world.plan().status, second.status);
    }
}

#[test]
fn what_was_trained_and_lost_is_trained_again_at_once_and_once() {
    let mut world = World::cold();
    let last = |reason: &str| {
        Some(LastRun {
            name: "p-1".into(),
            reason: reason.into(),
            started_at: Time(at(NOW - 10)),
        })
    };
    world.status.last_run = last(COLD_START);
    world.runs = vec![run("p-1", true)];
    world.model = Some(ModelView {
        serving: Some("m-v1".into()),
        ..ModelView::default()
    });
    assert_eq!(world.why(), "CoolingDown");
    let lost = ModelView {
        lost: Some("m-v1".into()),
        ..ModelView::default()
    };
    for serving in [None, Some("m-v1".to_owned())] {
        world.model = Some(ModelView {
            serving,
            ..lost.clone()
        });
        let (name, spec) = world.plan().start.expect("a run");
        assert_eq!((name.as_str(), spec.reason.as_str()), ("p-2", LOST));
    }
    world.windows = 3;
    assert_eq!(world.why(), "Collecting");
    world.windows = 1000;

    // What was trained for a loss and is lost itself waits.
    world.status.last_run = last(LOST);
    assert_eq!(world.why(), "CoolingDown");
}
