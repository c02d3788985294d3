//! What to do next with a run: pure.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::Job;
use kube::ResourceExt;
use vigia_crds::conditions::{self, READY, RECONCILING, STALLED, Wanted};
use vigia_crds::{RunPhase, TrainingRunSpec, TrainingRunStatus};

use super::data::Prepared;
use super::gates;
use super::job::ACCOUNT_UID;
use crate::events::counted;

/// How often a run that waits for its workers is looked at, beside the changes of its Job.
const WATCH: Duration = Duration::from_secs(5);
/// What a Job that has ended its time is given to hand over what it has.
const GRACE: SignedDuration = SignedDuration::from_secs(30);

/// What is there of a run.
#[derive(Debug, Default)]
pub(super) struct Observed {
    /// The prepared run, where its shards are whole.
    pub record: Option<Prepared>,
    /// Its Job.
    pub job: Option<JobView>,
    /// Digest and metrics of what the trainer submitted.
    pub output: Option<(String, BTreeMap<String, f64>)>,
    /// UID of the trainers' service account, where there is one.
    pub account: Option<String>,
}

/// A Job, as far as a run needs it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct JobView {
    /// Workers that are done.
    pub succeeded: i32,
    /// Why it failed.
    pub failed: Option<String>,
    /// It completed.
    pub complete: bool,
    /// UID of the service account that it was made for.
    pub account: Option<String>,
}

impl JobView {
    /// Whether its pods hold tokens of an account that is no more, by which nobody knows them: one of the same name
    /// is another account.
    fn is_of_former(&self, account: Option<&String>) -> bool {
        self.account.is_some() && account.is_some() && self.account.as_ref() != account
    }

    pub fn of(job: &Job) -> Self {
        let status = job.status.clone().unwrap_or_default();
        let conditions = status.conditions.unwrap_or_default();
        let found = |types: &[&str]| {
            conditions
                .iter()
                .find(|c| types.contains(&c.type_.as_str()) && c.status == "True")
        };
        let say = |reason: &Option<String>, message: &Option<String>| {
            format!(
                "{}: {}",
                reason.as_deref().unwrap_or("Failed"),
                message.as_deref().unwrap_or("no message")
            )
        };
        Self {
            succeeded: status.succeeded.unwrap_or(0),
            failed: found(&["Failed", "FailureTarget"]).map(|c| say(&c.reason, &c.message)),
            complete: found(&["Complete", "SuccessCriteriaMet"]).is_some(),
            account: job.annotations().get(ACCOUNT_UID).cloned(),
        }
    }
}

/// What to do next.
#[derive(Debug, PartialEq)]
pub(super) enum Next {
    /// Choose windows and write shards.
    Prepare,
    /// Make the Job and what belongs to it.
    Train,
    /// Take the Job away, to be made again.
    Restart,
    /// Look again after a while, or when something changes.
    Wait(Duration),
    /// Check the output's structure, sign it, store it and make the ModelVersion.
    Sign {
        /// Digest of the output that held the gates.
        output: String,
    },
    /// Clean up; the run is over.
    Over,
    /// Nothing but the status has to change.
    Report,
}

/// What to do next, and the status to write before it is done.
pub(super) fn next(
    spec: &TrainingRunSpec,
    status: &TrainingRunStatus,
    generation: i64,
    observed: &Observed,
    now: Timestamp,
) -> (TrainingRunStatus, Next) {
    let mut to = status.clone();
    to.observed_generation = generation;
    let next = match status.phase {
        None => {
            to.phase = Some(RunPhase::Preparing);
            say(&mut to, generation, now, "Preparing", "choosing windows");
            Next::Report
        }
        Some(RunPhase::Preparing) => match &observed.record {
            None => Next::Prepare,
            Some(record) => {
                to.phase = Some(RunPhase::Training);
                to.windows = i64::try_from(record.windows).unwrap_or(i64::MAX);
                to.data_digest = Some(record.data_digest.clone());
                to.started_at = Some(k8s_time(now));
                training(&mut to, generation, record, None, now);
                Next::Report
            }
        },
        Some(RunPhase::Training) => trained(spec, &mut to, generation, observed, now),
        Some(RunPhase::Validating) => validated(spec, &mut to, generation, observed, now),
        Some(RunPhase::Signing) => match (&observed.output, &status.output_digest) {
            (Some((digest, _)), Some(held)) if digest == held => Next::Sign { output: held.clone() },
            _ => {
                fail(
                    &mut to,
                    generation,
                    now,
                    "OutputLost",
                    "the trainer's output is no longer in the store; start another run",
                );
                Next::Report
            }
        },
        Some(RunPhase::Succeeded | RunPhase::Failed) => Next::Over,
    };
    (to, next)
}

/// Whether a run that cannot be prepared is past its time.
pub(super) fn is_overdue(spec: &TrainingRunSpec, status: &TrainingRunStatus, now: Timestamp) -> bool {
    let timeout = SignedDuration::try_from(Duration::from(spec.timeout)).unwrap_or(SignedDuration::MAX);
    conditions::find(&status.conditions, RECONCILING)
        .is_some_and(|begun| now.duration_since(begun.last_transition_time.0) > timeout)
}

fn trained(
    spec: &TrainingRunSpec,
    to: &mut TrainingRunStatus,
    generation: i64,
    observed: &Observed,
    now: Timestamp,
) -> Next {
    // What was submitted counts, whatever became of the Job after.
    if let Some((digest, metrics)) = &observed.output {
        to.phase = Some(RunPhase::Validating);
        to.output_digest = Some(digest.clone());
        to.metrics = gates::texts(metrics);
        to.workers = Some(workers(spec, spec.workers));
        say(
            to,
            generation,
            now,
            "Validating",
            "checking the output against the gates",
        );
        return Next::Report;
    }
    let Some(record) = &observed.record else {
        fail(
            to,
            generation,
            now,
            "ShardsLost",
            "the run's shards are no longer in the store; start another run",
        );
        return Next::Report;
    };
    let timeout = SignedDuration::try_from(Duration::from(spec.timeout)).unwrap_or(SignedDuration::MAX);
    let late = to
        .started_at
        .as_ref()
        .is_some_and(|at| now.duration_since(at.0) > timeout.saturating_add(GRACE));
    match &observed.job {
        Some(job) if !late && job.is_of_former(observed.account.as_ref()) => {
            let message = "the trainers' service account was made anew, so that the workers' tokens are no good: they \
                           are started again";
            say(to, generation, now, "Restarting", message);
            Next::Restart
        }
        Some(JobView {
            failed: Some(why), ..
        }) => {
            let message = format!(
                "the training Job failed ({why}); its pods' logs, in the operator's namespace, say more: kubectl logs -l vigia.dev/run-name=<this run>"
            );
            fail(to, generation, now, "JobFailed", &message);
            Next::Report
        }
        Some(JobView { complete: true, .. }) if late => {
            fail(
                to,
                generation,
                now,
                "NoOutput",
                "the training Job completed and no output arrived",
            );
            Next::Report
        }
        _ if late => {
            let message = format!("not done within its timeout of {}s", timeout.as_secs());
            fail(to, generation, now, "Timeout", &message);
            Next::Report
        }
        None => Next::Train,
        Some(job) => {
            training(to, generation, record, Some(job), now);
            Next::Wait(WATCH)
        }
    }
}

fn validated(
    spec: &TrainingRunSpec,
    to: &mut TrainingRunStatus,
    generation: i64,
    observed: &Observed,
    now: Timestamp,
) -> Next {
    let Some((digest, metrics)) = &observed.output else {
        fail(
            to,
            generation,
            now,
            "OutputLost",
            "the trainer's output is no longer in the store; start another run",
        );
        return Next::Report;
    };
    match gates::failed(&spec.gates, metrics) {
        Some(why) => {
            let message = format!(
                "{why}; the result is not signed. Train on more or cleaner windows, or change the gate"
            );
            fail(to, generation, now, "GateFailed", &message);
        }
        None => {
            to.phase = Some(RunPhase::Signing);
            to.output_digest = Some(digest.clone());
            say(to, generation, now, "Signing", "the gates hold; signing");
        }
    }
    Next::Report
}

/// The status of a run that succeeded.
pub(super) fn succeeded(
    status: &TrainingRunStatus,
    version: &str,
    generation: i64,
    now: Timestamp,
) -> TrainingRunStatus {
    let mut to = status.clone();
    to.phase = Some(RunPhase::Succeeded);
    to.model_version = Some(version.to_owned());
    to.finished_at = Some(k8s_time(now));
    let wanted = [
        Wanted::new(READY, true, "Succeeded", format!("ModelVersion {version}")),
        Wanted::new(RECONCILING, false, "Succeeded", ""),
        Wanted::new(STALLED, false, "Succeeded", ""),
    ];
    to.conditions = conditions::apply(&to.conditions, &wanted, generation, now);
    to
}

/// The status of a run that failed.
pub(super) fn failed(
    status: &TrainingRunStatus,
    reason: &'static str,
    message: &str,
    generation: i64,
    now: Timestamp,
) -> TrainingRunStatus {
    let mut to = status.clone();
    fail(&mut to, generation, now, reason, message);
    to
}

fn fail(to: &mut TrainingRunStatus, generation: i64, now: Timestamp, reason: &'static str, message: &str) {
    to.phase = Some(RunPhase::Failed);
    to.finished_at = Some(k8s_time(now));
    let wanted = [
        Wanted::new(READY, false, reason, message),
        Wanted::new(RECONCILING, false, reason, ""),
        Wanted::new(STALLED, true, reason, message),
    ];
    to.conditions = conditions::apply(&to.conditions, &wanted, generation, now);
}

fn training(
    to: &mut TrainingRunStatus,
    generation: i64,
    record: &Prepared,
    job: Option<&JobView>,
    now: Timestamp,
) {
    let done = job.map_or(0, |j| j.succeeded);
    to.workers = Some(format!("{done}/{}", record.workers));
    let message = format!(
        "training on {} by {}",
        counted(record.windows, "window"),
        counted(record.workers, "worker")
    );
    say(to, generation, now, "Training", &message);
}

fn workers(spec: &TrainingRunSpec, done: i32) -> String {
    format!("{done}/{}", spec.workers)
}

fn say(to: &mut TrainingRunStatus, generation: i64, now: Timestamp, reason: &'static str, message: &str) {
    let wanted = [
        Wanted::new(READY, false, reason, message),
        Wanted::new(RECONCILING, true, reason, message),
        Wanted::new(STALLED, false, reason, ""),
    ];
    to.conditions = conditions::apply(&to.conditions, &wanted, generation, now);
}

/// The API keeps whole seconds: what is written must equal what is read back.
fn k8s_time(at: Timestamp) -> k8s_openapi::apimachinery::pkg::apis::meta::v1::Time {
    k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(Timestamp::from_second(at.as_second()).unwrap_or(at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a small number is a timestamp")
    }

    fn spec() -> TrainingRunSpec {
        serde_json::from_value(serde_json::json!({"modelRef": {"name": "m"}, "timeout": "60s"}))
            .expect("a spec")
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
            windows: 600,
            window_ms: vec![10_000],
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
            (done.clone(), Next::Over)
        );
    }

    #[test]
    fn a_run_that_cannot_be_prepared_has_its_time() {
        let (status, _) = next(
            &spec(),
            &TrainingRunStatus::default(),
            1,
            &Observed::default(),
            at(100),
        );
        assert!(!is_overdue(&spec(), &status, at(160)));
        assert!(is_overdue(&spec(), &status, at(161)));
        assert!(!is_overdue(&spec(), &TrainingRunStatus::default(), at(9999)));
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
            account: None,
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
            with_record: bool, with_output: bool, exceedance in 0.0f64..0.2, succeeded in 0i32..3, with_job: bool, now in 0i64..200,
            start in prop::sample::select(vec![RunPhase::Preparing, RunPhase::Training, RunPhase::Validating, RunPhase::Signing]),
        ) {
            let observed = Observed {
                record: with_record.then(record),
                job: with_job.then(|| JobView { succeeded, ..JobView::default() }),
                output: with_output.then(|| output(exceedance)),
                account: None,
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
}
