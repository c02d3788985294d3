//! What to do next with a run: pure.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::Job;
use kube::ResourceExt;
use vigia_crds::conditions::{self, READY};
use vigia_crds::{RunPhase, TrainingRunSpec, TrainingRunStatus};

use super::data::Prepared;
use super::gates;
use super::job::{self, ACCOUNT_UID};
use super::status::{fail, k8s_time, say, say_scored, training, workers};
use crate::events::counted;

/// How often a run that waits for its workers is looked at, beside the changes of its Job.
const WATCH: Duration = Duration::from_secs(5);
/// What a Job that has ended its time is given to hand over what it has.
const GRACE: SignedDuration = SignedDuration::from_secs(30);
/// A Job of a run that is out of time ends by its own deadline, by which pods that ended before keep their logs. One that
/// was made anew under way has a later one, and is taken away after this.
const PATIENCE: SignedDuration = SignedDuration::from_secs(job::BACKSTOP_SECONDS + 10);

/// Reason of a run that was not done in time.
const TIMEOUT: &str = "Timeout";

/// What is there of a run.
#[derive(Debug, Default)]
pub(super) struct Observed {
    /// The prepared run, where its shards are whole.
    pub record: Option<Prepared>,
    /// How many may train at once, where it is not the run's turn.
    pub waits_for: Option<u16>,
    /// Its Job.
    pub job: Option<JobView>,
    /// Digest and metrics of what the trainer submitted.
    pub output: Option<(String, BTreeMap<String, f64>)>,
    /// UID of the trainers' service account, where there is one.
    pub account: Option<String>,
    /// What a worker of a Job that failed, or of a run that is out of time, said at its end.
    pub last_words: Option<String>,
    /// The command that shows the logs of its workers.
    pub logs: String,
}

/// A Job, as far as a run needs it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct JobView {
    /// Workers that are done.
    pub succeeded: i32,
    /// Why it failed.
    pub failed: Option<String>,
    /// It failed because it came to its deadline.
    pub timed_out: bool,
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

    /// Whether its workers may still work. One that ended keeps its pods for their logs.
    fn works(&self) -> bool {
        self.failed.is_none() && !self.complete
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
        let failed = found(&["Failed", "FailureTarget"]);
        Self {
            succeeded: status.succeeded.unwrap_or(0),
            failed: failed.map(|c| say(&c.reason, &c.message)),
            timed_out: failed.is_some_and(|c| c.reason.as_deref() == Some("DeadlineExceeded")),
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
    /// Ask again later whether it is its turn.
    Queue,
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
    Over {
        /// Its workers still work, for nothing.
        end_job: bool,
        /// They do, and are about to end: look again after this.
        again: Option<Duration>,
    },
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
        None | Some(RunPhase::Queued | RunPhase::Preparing) => match (&observed.record, observed.waits_for) {
            (None, Some(most)) => {
                let message = format!(
                    "waits for its turn: at most {} at once in the cluster (operator.maxTrainings of the chart); \
                     the next place is for the namespace that has the fewest, and there for its oldest run",
                    counted(u64::from(most), "training")
                );
                to.phase = Some(RunPhase::Queued);
                say(&mut to, generation, now, "Queued", &message);
                Next::Queue
            }
            (None, None) => {
                to.phase = Some(RunPhase::Preparing);
                say(&mut to, generation, now, "Preparing", "choosing windows");
                // What it does now is written first, so that its end can be.
                match (to.phase, &to.conditions) == (status.phase, &status.conditions) {
                    true => Next::Prepare,
                    false => Next::Report,
                }
            }
            (Some(record), _) => {
                to.phase = Some(RunPhase::Training);
                to.windows = i64::try_from(record.windows).unwrap_or(i64::MAX);
                to.data_digest = Some(record.data_digest.clone());
                say_scored(&mut to, generation, record, now);
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
        Some(RunPhase::Succeeded) => Next::Over {
            end_job: false,
            again: None,
        },
        Some(RunPhase::Failed) => {
            let works = observed.job.as_ref().is_some_and(JobView::works);
            let timed_out = conditions::find(&status.conditions, READY).is_some_and(|c| c.reason == TIMEOUT);
            let ends = works && timed_out && !is_late(spec, status, PATIENCE, now);
            Next::Over {
                end_job: works && !ends,
                again: ends.then_some(WATCH),
            }
        }
    };
    (to, next)
}

/// Whether a run that cannot be prepared is past its time, which began when it had its turn first, be it of another
/// operator's life.
pub(super) fn is_overdue(spec: &TrainingRunSpec, status: &TrainingRunStatus, now: Timestamp) -> bool {
    let timeout = SignedDuration::try_from(Duration::from(spec.timeout)).unwrap_or(SignedDuration::MAX);
    let mut phases = status.phases.iter();
    let begun = phases.find(|begun| begun.phase == RunPhase::Preparing);
    begun.is_some_and(|begun| now.duration_since(begun.at.0) > timeout)
}

/// Whether a training is past its time, and this much more.
fn is_late(spec: &TrainingRunSpec, status: &TrainingRunStatus, more: SignedDuration, now: Timestamp) -> bool {
    let timeout = SignedDuration::try_from(Duration::from(spec.timeout)).unwrap_or(SignedDuration::MAX);
    let begun = status.started_at.as_ref();
    begun.is_some_and(|at| now.duration_since(at.0) > timeout.saturating_add(more))
}

/// Whether a run comes to its end without a result, and its workers' last words are wanted.
pub(super) fn wants_words(
    spec: &TrainingRunSpec,
    status: &TrainingRunStatus,
    job: &JobView,
    now: Timestamp,
) -> bool {
    status.phase == Some(RunPhase::Training) && (job.failed.is_some() || is_late(spec, status, GRACE, now))
}

/// What there is to say of a run that was not done in time.
fn out_of_time(spec: &TrainingRunSpec, status: &TrainingRunStatus, observed: &Observed) -> String {
    let words = observed.last_words.as_ref();
    let words = words.map(|words| format!(" A worker's last words: {words}."));
    format!(
        "not done within spec.timeout of {:#}: {} workers were done.{} Were their pods scheduled? Else start a run with a \
         longer timeout, fewer estimators, or a smaller spec.data.maxWindows. Logs of pods that ended before that stay for an hour: {}",
        SignedDuration::try_from(Duration::from(spec.timeout)).unwrap_or(SignedDuration::MAX),
        status.workers.as_deref().unwrap_or("no"),
        words.unwrap_or_default(),
        observed.logs,
    )
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
    let late = is_late(spec, to, GRACE, now);
    match &observed.job {
        Some(job) if !late && job.is_of_former(observed.account.as_ref()) => {
            let message = "the trainers' service account was made anew, so that the workers' tokens are no good: they \
                           are started again";
            say(to, generation, now, "Restarting", message);
            Next::Restart
        }
        Some(JobView {
            failed: Some(why),
            timed_out: false,
            ..
        }) => {
            let message = match &observed.last_words {
                Some(words) => format!("the training failed: {words}"),
                None => format!(
                    "the training Job failed ({why}); its pods' logs say more: {}",
                    observed.logs
                ),
            };
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
        job if late || job.as_ref().is_some_and(|job| job.timed_out) => {
            if let Some(job) = job {
                to.workers = Some(workers(spec, job.succeeded));
            }
            let message = out_of_time(spec, to, observed);
            fail(to, generation, now, TIMEOUT, &message);
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
            let advice = gates::advice(&spec.gates, metrics, &spec.estimator.types);
            let message = format!("{why}; the result is not signed. {advice}");
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

#[cfg(test)]
mod tests;
