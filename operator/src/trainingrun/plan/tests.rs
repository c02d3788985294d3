use super::*;
use crate::trainingrun::status::{failed, succeeded};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use proptest::prelude::*;
use vigia_crds::PhaseBegun;
use vigia_crds::conditions::READY;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("a small number is a timestamp")
}

fn spec() -> TrainingRunSpec {
    serde_json::from_value(serde_json::json!({"modelRef": {"name": "m"}, "timeout": "60s"})).expect("a spec")
}

fn record() -> Prepared {
    Prepared {
        model: "m".into(),
        task: "anomaly".into(),
        workers: 2,
        estimators: vec![],
        components: 0,
        trees: 100,
        sample_size: 256,
        seed: 1,
        schema: "s".into(),
        data_digest: "sha256:0".into(),
        unscored: 0,
        windows: 600,
        window_ms: vec![10_000],
        captures: vec![],
        created_unix_ms: 0,
    }
}

fn output(exceedance: f64) -> (String, BTreeMap<String, f64>) {
    let metrics = [("HoldoutExceedance", exceedance), ("InjectionRecall", 1.0)];
    (
        "sha256:1".to_owned(),
        metrics.map(|(k, v)| (k.to_owned(), v)).into(),
    )
}

fn phase(phase: RunPhase) -> TrainingRunStatus {
    TrainingRunStatus {
        phase: Some(phase),
        started_at: Some(k8s_time(at(0))),
        output_digest: Some("sha256:1".into()),
        ..TrainingRunStatus::default()
    }
}

#[test]
fn a_run_goes_through_its_phases() {
    let mut observed = Observed::default();
    let (status, step) = next(&spec(), &TrainingRunStatus::default(), 1, &observed, at(0));
    assert_eq!((status.phase, step), (Some(RunPhase::Preparing), Next::Report));
    let (_, step) = next(&spec(), &status, 1, &observed, at(1));
    assert_eq!(step, Next::Prepare);
    observed.record = Some(record());
    let (status, _) = next(&spec(), &status, 1, &observed, at(2));
    assert_eq!((status.phase, status.windows), (Some(RunPhase::Training), 600));
    let (_, step) = next(&spec(), &status, 1, &observed, at(3));
    assert_eq!(step, Next::Train);
    observed.job = Some(JobView {
        succeeded: 1,
        ..JobView::default()
    });
    let (status, step) = next(&spec(), &status, 1, &observed, at(4));
    assert_eq!(
        (status.workers.as_deref(), step),
        (Some("1/2"), Next::Wait(WATCH))
    );
    observed.output = Some(output(0.02));
    let (status, _) = next(&spec(), &status, 1, &observed, at(5));
    assert_eq!(status.phase, Some(RunPhase::Validating));
    let (status, _) = next(&spec(), &status, 1, &observed, at(6));
    assert_eq!(status.phase, Some(RunPhase::Signing));
    let (_, step) = next(&spec(), &status, 1, &observed, at(7));
    assert_eq!(
        step,
        Next::Sign {
            output: "sha256:1".into()
        }
    );
    let done = succeeded(&status, "m-v1", 1, at(8));
    assert_eq!(
        next(&spec(), &done, 1, &observed, at(9)),
        (
            done.clone(),
            Next::Over {
                end_job: false,
                again: None
            }
        )
    );
}

#[test]
fn a_run_that_cannot_be_prepared_has_its_time() {
    let begun = |phase, second| PhaseBegun {
        phase,
        at: MicroTime(at(second)),
    };
    let status = TrainingRunStatus {
        phases: vec![begun(RunPhase::Queued, 10), begun(RunPhase::Preparing, 100)],
        ..phase(RunPhase::Preparing)
    };
    assert!(
        !is_overdue(&spec(), &status, at(160)),
        "what it waited does not count"
    );
    assert!(is_overdue(&spec(), &status, at(161)));
}

#[test]
fn a_run_waits_for_its_turn_says_so_and_keeps_what_it_has() {
    let (status, _) = next(
        &spec(),
        &TrainingRunStatus::default(),
        1,
        &Observed::default(),
        at(0),
    );
    let mut observed = Observed {
        waits_for: Some(4),
        ..Observed::default()
    };
    let ready = |status: &TrainingRunStatus| {
        let ready = conditions::find(&status.conditions, READY).expect("a condition");
        (ready.reason.clone(), ready.message.clone())
    };
    let (waits, step) = next(&spec(), &status, 1, &observed, at(1));
    assert_eq!((waits.phase, step), (Some(RunPhase::Queued), Next::Queue));
    let (reason, message) = ready(&waits);
    assert!(
        reason == "Queued" && message.contains("at most 4 trainings at once"),
        "{message}"
    );
    let (again, _) = next(&spec(), &waits, 1, &observed, at(60));
    assert_eq!(again, waits, "it writes nothing while it waits");
    // Prepared before the operator was killed, it goes on whoever waits.
    observed.record = Some(record());
    assert_eq!(
        next(&spec(), &waits, 1, &observed, at(61)).0.phase,
        Some(RunPhase::Training)
    );
    let (turn, step) = next(&spec(), &waits, 1, &Observed::default(), at(61));
    assert_eq!((ready(&turn).0.as_str(), step), ("Preparing", Next::Report));
    assert_eq!(turn.phase, Some(RunPhase::Preparing));
    assert_eq!(
        next(&spec(), &turn, 1, &Observed::default(), at(62)).1,
        Next::Prepare
    );
    let (new, step) = next(
        &spec(),
        &TrainingRunStatus::default(),
        1,
        &Observed {
            record: None,
            ..observed
        },
        at(0),
    );
    assert_eq!(
        (new.phase, step),
        (Some(RunPhase::Queued), Next::Queue),
        "it never seems to have a place"
    );
}

#[test]
fn a_gate_that_does_not_hold_ends_the_run_unsigned() {
    let observed = Observed {
        output: Some(output(0.5)),
        ..Observed::default()
    };
    let (status, _) = next(&spec(), &phase(RunPhase::Validating), 1, &observed, at(1));
    assert_eq!(status.phase, Some(RunPhase::Failed));
    let ready = conditions::find(&status.conditions, READY).expect("a condition");
    assert_eq!(ready.reason, "GateFailed");
}

#[test]
fn an_output_counts_even_if_the_job_failed_after_it() {
    let observed = Observed {
        record: Some(record()),
        job: Some(JobView {
            failed: Some("x".into()),
            ..JobView::default()
        }),
        output: Some(output(0.02)),
        ..Observed::default()
    };
    let (status, _) = next(&spec(), &phase(RunPhase::Training), 1, &observed, at(1));
    assert_eq!(status.phase, Some(RunPhase::Validating));
}

#[test]
fn late_and_failed_jobs_end_the_run() {
    for (job, now, reason) in [
        (None, 91, "Timeout"),
        (
            Some(JobView {
                complete: true,
                ..JobView::default()
            }),
            91,
            "NoOutput",
        ),
        (
            Some(JobView {
                failed: Some("BackoffLimitExceeded".into()),
                ..JobView::default()
            }),
            1,
            "JobFailed",
        ),
        (
            Some(JobView {
                failed: Some("DeadlineExceeded".into()),
                timed_out: true,
                ..JobView::default()
            }),
            1,
            "Timeout",
        ),
    ] {
        let observed = Observed {
            record: Some(record()),
            job,
            ..Observed::default()
        };
        let (status, _) = next(&spec(), &phase(RunPhase::Training), 1, &observed, at(now));
        let ready = conditions::find(&status.conditions, READY).expect("a condition");
        assert_eq!(
            (status.phase, ready.reason.as_str()),
            (Some(RunPhase::Failed), reason)
        );
    }
}

#[test]
fn workers_of_a_former_account_are_started_again() {
    let next_of = |made_for: Option<&str>, there: Option<&str>, failed: Option<&str>, now| {
        let own = |text: Option<&str>| text.map(str::to_owned);
        let observed = Observed {
            record: Some(record()),
            job: Some(JobView {
                account: own(made_for),
                failed: own(failed),
                ..JobView::default()
            }),
            account: own(there),
            ..Observed::default()
        };
        next(&spec(), &phase(RunPhase::Training), 1, &observed, at(now)).1
    };
    assert_eq!(next_of(Some("a"), Some("a"), None, 1), Next::Wait(WATCH));
    assert_eq!(next_of(Some("a"), Some("b"), None, 1), Next::Restart);
    // Refused for their tokens, they may have failed already.
    assert_eq!(next_of(Some("a"), Some("b"), Some("refused"), 1), Next::Restart);
    // Made by an operator that did not write it down, or the account is gone for the moment.
    assert_eq!(next_of(None, Some("b"), None, 1), Next::Wait(WATCH));
    assert_eq!(next_of(Some("a"), None, None, 1), Next::Wait(WATCH));
    // Its time is over all the same.
    assert_eq!(next_of(Some("a"), Some("b"), None, 91), Next::Report);
}

#[test]
fn what_was_lost_is_said() {
    for at_phase in [RunPhase::Training, RunPhase::Validating, RunPhase::Signing] {
        let (status, _) = next(&spec(), &phase(at_phase), 1, &Observed::default(), at(1));
        assert_eq!(status.phase, Some(RunPhase::Failed), "{at_phase:?}");
    }
}

proptest! {
    // A kill between a write and the next step is a second call with the same observation.
    #[test]
    fn the_same_observation_twice_writes_nothing_the_second_time(
        with_record: bool, with_output: bool, waits: bool, exceedance in 0.0f64..0.2, succeeded in 0i32..3, with_job: bool, now in 0i64..200,
        start in prop::sample::select(vec![RunPhase::Preparing, RunPhase::Training, RunPhase::Validating, RunPhase::Signing]),
    ) {
        let observed = Observed {
            record: with_record.then(record),
            job: with_job.then(|| JobView { succeeded, ..JobView::default() }),
            waits_for: waits.then_some(4),
            output: with_output.then(|| output(exceedance)),
            account: None,
            last_words: None,
            logs: String::new(),
        };
        let mut status = phase(start);
        for step in 0..10 {
            let (to, what) = next(&spec(), &status, 1, &observed, at(now));
            if to == status {
                prop_assert!(what != Next::Report);
                return Ok(());
            }
            prop_assert!(step < 9, "does not settle");
            status = to;
        }
    }
}

#[test]
fn the_workers_of_a_run_that_failed_are_ended_and_what_ended_keeps_its_logs() {
    let failed = failed(&TrainingRunStatus::default(), "ShardsLost", "gone", 1, at(5));
    let over = |job: Option<JobView>| {
        let observed = Observed {
            job,
            ..Observed::default()
        };
        next(&spec(), &failed, 1, &observed, at(6)).1
    };
    assert_eq!(
        over(Some(JobView::default())),
        Next::Over {
            end_job: true,
            again: None
        }
    );
    assert_eq!(
        over(None),
        Next::Over {
            end_job: false,
            again: None
        }
    );
    let ended = JobView {
        failed: Some("BackoffLimitExceeded".into()),
        ..JobView::default()
    };
    assert_eq!(
        over(Some(ended)),
        Next::Over {
            end_job: false,
            again: None
        }
    );
}

#[test]
fn what_nobody_looked_at_before_it_is_learnt_is_said() {
    let begun = |unscored| {
        let preparing = TrainingRunStatus {
            phase: Some(RunPhase::Preparing),
            ..TrainingRunStatus::default()
        };
        let observed = Observed {
            record: Some(Prepared { unscored, ..record() }),
            ..Observed::default()
        };
        let status = next(&spec(), &preparing, 1, &observed, at(5)).0;
        let done = succeeded(&status, "m-v1", 1, at(8));
        let said = conditions::find(&done.conditions, "WindowsScored").expect("it stays");
        (said.status.clone(), said.reason.clone(), said.message.clone())
    };
    let (status, reason, message) = begun(7);
    assert_eq!((status.as_str(), reason.as_str()), ("False", "NeverScored"));
    assert!(message.starts_with("7 of "), "{message}");
    let (status, reason, _) = begun(0);
    assert_eq!((status.as_str(), reason.as_str()), ("True", "AllScored"));
}

#[test]
fn a_run_that_is_out_of_time_says_so_and_its_workers_end_by_themselves() {
    let late = |job: Option<JobView>, words: Option<&str>, now| {
        let observed = Observed {
            record: Some(record()),
            job,
            last_words: words.map(str::to_owned),
            logs: "kubectl logs -n here".to_owned(),
            ..Observed::default()
        };
        let (status, _) = next(&spec(), &phase(RunPhase::Training), 1, &observed, at(now));
        let ready = conditions::find(&status.conditions, READY)
            .expect("a condition")
            .clone();
        assert_eq!(
            (status.phase, ready.reason.as_str()),
            (Some(RunPhase::Failed), "Timeout")
        );
        (status, ready.message)
    };
    let working = || JobView {
        succeeded: 1,
        ..JobView::default()
    };
    let (status, message) = late(Some(working()), Some("waiting for rank 1"), 91);
    for said in [
        "spec.timeout of 1m",
        "1/2 workers",
        "last words: waiting for rank 1.",
        "for an hour: kubectl logs -n here",
    ] {
        assert!(message.contains(said), "{message}");
    }
    let (_, none) = late(None, None, 91);
    assert!(none.contains("no workers were done. Were"), "{none}");

    let over = |job: JobView, now| {
        let observed = Observed {
            job: Some(job),
            ..Observed::default()
        };
        match next(&spec(), &status, 1, &observed, at(now)).1 {
            Next::Over { end_job, again } => (end_job, again),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(over(working(), 120), (false, Some(WATCH)));
    let ended = JobView {
        failed: Some("DeadlineExceeded".into()),
        timed_out: true,
        ..JobView::default()
    };
    assert_eq!(over(ended, 125), (false, None), "its pods keep their logs");
    assert_eq!(
        over(working(), 131),
        (true, None),
        "its own deadline is a later one"
    );
}
