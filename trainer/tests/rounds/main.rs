//! Whole rounds over loopback with mutual TLS, each rank on a runtime of its own that can be killed at any stage.

mod ground;
mod process;

use ground::{Ground, Kill};
use vigia_model::artifact::{self, Task};
use vigia_model::pipeline::EstimatorKind;
use vigia_trainer::rounds::{Outcome, Stage};

const EVERY_STAGE: [Stage; 8] = [
    Stage::Planned,
    Stage::Serving,
    Stage::ShardRead,
    Stage::Reduced,
    Stage::Grown,
    Stage::Contributed,
    Stage::Combined,
    Stage::Submitted,
];

#[test]
fn three_workers_make_the_bytes_that_one_process_makes() {
    let ground = Ground::new(3);
    let outcomes = ground.round(&[]);
    let submitted = ground.submitted();
    assert_eq!(
        outcomes[0],
        Ok(Outcome::Submitted {
            digest: artifact::digest(&submitted).to_string()
        })
    );
    assert_eq!(
        outcomes[1..],
        [Ok(Outcome::Contributed), Ok(Outcome::Contributed)]
    );
    assert_eq!(submitted, ground.alone());
    let opened = artifact::open_unsigned(&submitted, Task::Anomaly).expect("opens");
    assert_eq!(opened.metadata.created_at, "2026-11-21T10:00:00Z");
    assert!(opened.metadata.metrics["InjectionRecall"] > 0.95);
}

#[test]
fn a_run_that_is_traced_is_told_of_stage_by_stage_and_no_other() {
    const JOB: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let untraced = Ground::new(1);
    untraced.round(&[]);
    assert_eq!(untraced.traces(), []);

    let ground = Ground::new(2).with_traceparent(JOB);
    // An operator that does not take it makes no difference.
    ground.operator_fails(&["trace", "trace"]);
    let outcomes = ground.round(&[]);
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    let ground = Ground::new(2).with_traceparent(JOB);
    ground.round(&[]);
    let mut traces = ground.traces();
    traces.sort_by_key(|trace| trace.rank);
    // Who waits for another worker asks for the plan again, as often as that one is slow.
    let stages = |rank: usize| {
        let mut first = Vec::new();
        for stage in traces[rank].stages.iter().map(|s| s.stage()) {
            if !first.contains(&stage) {
                first.push(stage);
            }
        }
        first
    };
    use vigia_proto::v1::Stage::{Combine, Contribute, Fit, Moments, Plan, Shard, Submit};
    assert_eq!(
        stages(0),
        [Plan, Shard, Moments, Fit, Contribute, Combine, Submit]
    );
    assert_eq!(stages(1), [Plan, Shard, Moments, Fit, Contribute]);
    for trace in traces {
        assert_eq!((trace.traceparent.as_str(), trace.error.as_str()), (JOB, ""));
        let ends = || trace.stages.iter().map(|s| s.end_unix_us);
        assert!(ends().is_sorted() && ends().all(|at| at >= trace.start_unix_us && at <= trace.end_unix_us));
    }
}

#[test]
fn every_kind_of_estimator_is_combined_as_one_process_would() {
    let kinds: Vec<EstimatorKind> = EstimatorKind::ALL.to_vec();
    for kinds in kinds.chunks(4) {
        let ground = Ground::new(3).with_estimators(kinds, 6);
        ground.round(&[]);
        let submitted = ground.submitted();
        assert_eq!(submitted, ground.alone(), "{kinds:?}");
        let opened = artifact::open_unsigned(&submitted, Task::Anomaly).expect("opens");
        let names: Vec<&str> = kinds.iter().map(|kind| kind.as_str()).collect();
        assert_eq!(opened.pipeline.kinds().collect::<Vec<_>>(), kinds);
        assert_eq!(opened.metadata.hyperparameters["estimator"], names.join("+"));
    }
}

#[test]
fn rank_0_killed_at_any_stage_starts_again_with_empty_hands() {
    for stage in EVERY_STAGE {
        let ground = Ground::new(2);
        let outcomes = ground.round(&[Kill { rank: 0, stage }]);
        assert_eq!(ground.submitted(), ground.alone(), "{stage:?}");
        // A result that was submitted before the kill is not made again.
        let again = stage == Stage::Submitted;
        assert_eq!(
            outcomes[0] == Ok(Outcome::AlreadySubmitted),
            again,
            "{stage:?}: {outcomes:?}"
        );
        assert!(outcomes.iter().all(Result::is_ok), "{stage:?}: {outcomes:?}");
    }
}

#[test]
fn a_worker_killed_at_any_stage_starts_again() {
    for stage in [
        Stage::Planned,
        Stage::ShardRead,
        Stage::Reduced,
        Stage::Grown,
        Stage::Contributed,
    ] {
        let ground = Ground::new(2);
        let outcomes = ground.round(&[Kill { rank: 1, stage }]);
        assert_eq!(ground.submitted(), ground.alone(), "{stage:?}");
        assert!(outcomes.iter().all(Result::is_ok), "{stage:?}: {outcomes:?}");
    }
}

#[test]
fn both_killed_and_again() {
    let ground = Ground::new(3);
    let kills = [
        (1, Stage::Reduced),
        (0, Stage::Contributed),
        (2, Stage::Contributed),
        (0, Stage::Combined),
    ];
    let outcomes = ground.round(&kills.map(|(rank, stage)| Kill { rank, stage }));
    assert_eq!(ground.submitted(), ground.alone());
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
}

#[test]
fn a_checkpoint_spares_rank_0_the_workers() {
    let ground = Ground::new(2).with_checkpoints();
    let kill = Kill {
        rank: 0,
        stage: Stage::Combined,
    };
    ground.round(&[kill]);
    assert_eq!(ground.submitted(), ground.alone());
    // Its own part was on disk: the shard was fetched once.
    assert_eq!(ground.shards_served(0), 1);
}

#[test]
fn an_operator_that_is_away_for_a_while_is_waited_for() {
    let ground = Ground::new(2);
    ground.operator_fails(&["plan", "plan", "shard", "holdout", "submit", "submit"]);
    let outcomes = ground.round(&[]);
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    assert_eq!(ground.submitted(), ground.alone());
}

#[test]
fn a_receipt_that_got_lost_is_asked_for_again() {
    let ground = Ground::new(2);
    ground.operator_loses_receipt();
    let outcomes = ground.round(&[]);
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    assert_eq!(ground.submitted(), ground.alone());
}

#[test]
fn what_no_retry_heals_ends_at_once_and_says_why() {
    let ground = Ground::new(1).with_shard(0, b"no parquet".to_vec());
    let error = ground.round(&[]).remove(0).expect_err("bad data");
    assert_eq!(error.exit_code(), 65);
    assert!(
        error
            .to_string()
            .starts_with("the shard: not a Parquet file of windows"),
        "{error}"
    );

    let ground = Ground::new(1).with_workers_in_plan(2);
    let error = ground.round(&[]).remove(0).expect_err("another plan");
    assert_eq!(
        error.to_string(),
        "run shop/checkout-1: the plan has 2 workers, --workers says 1"
    );
}

#[test]
fn a_stranger_without_the_runs_certificate_is_not_heard() {
    let ground = Ground::new(2)
        .with_stranger(1)
        .with_deadline(std::time::Duration::from_secs(4));
    let outcomes = ground.round(&[]);
    assert!(
        outcomes
            .iter()
            .all(|o| o.as_ref().is_err_and(|e| e.exit_code() == 75)),
        "{outcomes:?}"
    );
    assert!(!ground.has_submission());
}
