//! Whether to train now, and what the policy's status says. Pure.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use vigia_crds::conditions::{self, READY, RECONCILING, STALLED, Wanted};
use vigia_crds::{DataWindow, LastRun, RetrainingPolicySpec, RetrainingPolicyStatus, TrainingRunSpec};

use super::pace::{before, cooldown, failures, last_run, next_name, was_early};
use crate::observed::drift::Drift;
use crate::trainingrun::windows;

/// Reason of a run that makes a first version.
pub const COLD_START: &str = "ColdStart";
/// Reason of a run after drift.
pub const DRIFT: &str = "Drift";
/// Reason of a run that replaces a version whose artifact the store has lost.
pub const LOST: &str = "ArtifactLost";
/// Reason of a run after a change of what windows are made of.
pub const CAPTURE: &str = "CaptureChanged";
/// A run that was created may not be in the cache for so long.
const CACHE_LAG: SignedDuration = SignedDuration::from_secs(30);

/// A run of this policy's Model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunView {
    /// Its name.
    pub name: String,
    /// It succeeded or failed.
    pub finished: bool,
    /// It failed.
    pub failed: bool,
    /// Why it was started.
    pub reason: String,
    /// When it was created.
    pub created: Timestamp,
    /// Windows that it took; 0 before it chose them.
    pub windows: u64,
}

/// The Model, as far as a policy needs it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelView {
    /// Name of the version that serves.
    pub serving: Option<String>,
    /// A newer version that may yet come to serve: it is rolled out, or waits to be promoted.
    pub candidate: Option<String>,
    /// The version whose artifact the store has lost: the one that serves, or where none does, the newest that could.
    pub lost: Option<String>,
}

/// Profiles whose windows the serving version does not score, because they are made of other system calls than those
/// that it was trained on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unscored {
    /// Their names.
    pub profiles: Vec<String>,
    /// Windows that a run would take, of the one that has the most: of the lookback, and since the last run that was
    /// started for their sake. One that comes to nothing is not tried again on the same windows.
    pub windows: u64,
    /// There are no others.
    pub all: bool,
}

/// What there is.
#[derive(Clone, Debug)]
pub struct Observed<'a> {
    /// Name of the policy.
    pub name: &'a str,
    /// Its generation.
    pub generation: i64,
    /// Its spec.
    pub spec: &'a RetrainingPolicySpec,
    /// Its status.
    pub status: &'a RetrainingPolicyStatus,
    /// The Model; `None` where there is none.
    pub model: Option<ModelView>,
    /// Runs of the Model, whoever started them.
    pub runs: &'a [RunView],
    /// Names of all runs of the namespace, those of other Models too.
    pub taken: &'a [String],
    /// An older policy of the same Model, which is the one that starts trainings.
    pub older: Option<String>,
    /// Windows of the lookback that a run would take.
    pub windows: u64,
    /// What the serving version does not score.
    pub unscored: Unscored,
    /// Drift of the serving version.
    pub drift: Option<Drift>,
    /// The same since [`after_change`], alerted ones too.
    pub windows_since_drift: u64,
    /// Why the store takes nothing, where it does not.
    pub store_full: Option<String>,
    /// Now.
    pub now: Timestamp,
}

/// What to do.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The next status.
    pub status: RetrainingPolicyStatus,
    /// A run to start: its name and spec.
    pub start: Option<(String, TrainingRunSpec)>,
}

/// Why nothing is started, or what is.
enum Decision {
    Start { reason: &'static str, since: Timestamp },
    Wait { reason: &'static str, message: String },
    Stuck { reason: &'static str, message: String },
}

/// The plan.
pub fn plan(o: &Observed<'_>) -> Plan {
    let mut status = o.status.clone();
    status.observed_generation = o.generation;
    let drift = o.spec.drift.as_ref().and(o.drift.as_ref());
    status.drifted_since = drift.and_then(|d| d.since).map(Time);
    status.drifted_evaluations = drift.map_or(0, |d| i32::try_from(d.row).unwrap_or(i32::MAX));
    let next = if drift.is_some_and(|d| d.drifted) {
        o.windows_since_drift
    } else {
        o.windows
    };
    status.windows = two_digits(next);
    status.last_run = last_run(o);
    let decision = decide(o, drift, status.last_run.as_ref());
    let mut start = None;
    let (ready, reconciling, reason, message) = match decision {
        Decision::Start { reason, since } => {
            let name = next_name(o);
            let message = format!("TrainingRun {name} is started: {reason}");
            status.last_run = Some(LastRun {
                name: name.clone(),
                reason: reason.to_owned(),
                started_at: Time(o.now),
            });
            start = Some((name, run_spec(o, reason, since)));
            (true, false, reason, message)
        }
        Decision::Wait { reason, message } => (true, false, reason, message),
        Decision::Stuck { reason, message } => (false, false, reason, message),
    };
    let stuck = if ready { String::new() } else { message.clone() };
    let wanted = [
        Wanted::new(READY, ready, reason, message),
        Wanted::new(RECONCILING, reconciling, reason, ""),
        Wanted::new(STALLED, !ready, reason, stuck),
    ];
    status.conditions = conditions::apply(&status.conditions, &wanted, o.generation, o.now);
    Plan { status, start }
}

fn wait(reason: &'static str, message: impl Into<String>) -> Decision {
    Decision::Wait {
        reason,
        message: message.into(),
    }
}

fn decide(o: &Observed<'_>, drift: Option<&Drift>, last: Option<&LastRun>) -> Decision {
    let Some(model) = &o.model else {
        return Decision::Stuck {
            reason: "ModelNotFound",
            message: format!(
                "there is no Model {}: create it, or change spec.modelRef",
                o.spec.model_ref.name
            ),
        };
    };
    if let Some(older) = &o.older {
        return Decision::Stuck {
            reason: "Overlaps",
            message: format!(
                "RetrainingPolicy {older} names the same Model and is older, so it alone starts trainings: \
                 delete one of the two, or change spec.modelRef"
            ),
        };
    }
    if let Some(why) = &o.store_full {
        return Decision::Stuck {
            reason: "StoreFull",
            message: format!("the operator's store takes no windows: {why}"),
        };
    }
    if o.spec.suspend {
        return wait("Suspended", "spec.suspend is true: nothing is started");
    }
    if let Some(active) = o.runs.iter().find(|r| !r.finished) {
        return wait(
            "TrainingActive",
            format!("TrainingRun {} is under way", active.name),
        );
    }
    if let Some(last) = last {
        let age = o.now.duration_since(last.started_at.0);
        if !o.runs.iter().any(|r| r.name == last.name) && age < CACHE_LAG {
            return wait(
                "TrainingActive",
                format!("TrainingRun {} is under way", last.name),
            );
        }
        let cooldown = cooldown(o);
        let enough = enough_for_another(o, model, last);
        if age < cooldown && !in_vain(o, model, last) && enough.is_none_or(|least| o.windows < least) {
            let or = enough.map(|least| {
                let has = two_digits(o.windows);
                format!(", unless there are {least} windows before, twice as many as that one had; there are {has}")
            });
            return wait(
                "CoolingDown",
                format!(
                    "nothing is started within {} of the start of TrainingRun {}{}",
                    human(cooldown),
                    last.name,
                    or.unwrap_or_default()
                ),
            );
        }
    }
    match (&model.serving, &model.candidate) {
        (None, None) => match &model.lost {
            Some(lost) => after_loss(o, lost, "so no node can get it"),
            None => cold_start(o),
        },
        (None, Some(candidate)) => wait("AwaitingPromotion", format!("{candidate} does not serve yet")),
        (Some(serving), Some(candidate)) => wait(
            "AwaitingPromotion",
            format!("{candidate} is newer than {serving} and does not serve yet"),
        ),
        (Some(serving), None) if model.lost.is_some() => {
            after_loss(o, serving, "so whether it drifts cannot be said")
        }
        (Some(serving), None) => after_capture(o, serving).unwrap_or_else(|| after_drift(o, serving, drift)),
    }
}

/// Whether nothing can come of what the last run made: the version that serves, or was to, is lost, or scores no window
/// since what these are made of was changed. Once: should what is trained instead come to the same, it waits its time, or
/// a store that keeps nothing would have the cluster train for ever.
fn in_vain(o: &Observed<'_>, model: &ModelView, last: &LastRun) -> bool {
    let lost = model.lost.is_some() && model.candidate.is_none();
    let unscored = o.unscored.all && !o.unscored.profiles.is_empty();
    (lost && last.reason != LOST) || (unscored && last.reason != CAPTURE)
}

/// Windows from which on a run for a first version that failed is worth another before its time: nothing is scored
/// meanwhile, and what too few windows did not teach twice as many may. Only where a run can take so many, and unless the
/// last was such a try: windows that double again and again would never let a cooldown hold, and what two runs did not
/// come to may not be for want of them. Where the one before is gone, that cannot be told.
fn enough_for_another(o: &Observed<'_>, model: &ModelView, last: &LastRun) -> Option<u64> {
    let run = o.runs.iter().find(|run| run.name == last.name)?;
    let first = model.serving.is_none() && model.candidate.is_none();
    let twice = run.windows.saturating_mul(2);
    let most = u64::try_from(o.spec.training.data.max_windows).unwrap_or(0);
    let helps = failures(o) < 2 || before(o, run).is_some_and(|before| !was_early(o, run, before));
    (first && run.failed && run.windows > 0 && twice <= most && helps).then_some(twice)
}

fn cold_start(o: &Observed<'_>) -> Decision {
    let Some(cold) = &o.spec.cold_start else {
        return wait(
            "NoVersion",
            "no version serves or could, and spec.coldStart is absent: none is trained by itself",
        );
    };
    anew(o, cold.min_windows, "a first version", COLD_START)
}

/// Nodes that hold the version keep it; others cannot get it, and its drift cannot be seen.
fn after_loss(o: &Observed<'_>, lost: &str, so: &str) -> Decision {
    let Some(cold) = &o.spec.cold_start else {
        return wait(
            LOST,
            format!(
                "the store has lost the artifact of {lost}, {so}, and spec.coldStart is absent: start a TrainingRun, \
                 or bring the artifact back (spec.source of another ModelVersion)"
            ),
        );
    };
    let what = format!("a version instead of {lost}, whose artifact is lost");
    anew(o, cold.min_windows, &what, LOST)
}

/// What windows are made of was changed: a version is made of the new ones as the first was. While there are too few of
/// them, what else is scored is watched as before.
fn after_capture(o: &Observed<'_>, serving: &str) -> Option<Decision> {
    let unscored = &o.unscored;
    let first = unscored.profiles.first()?;
    let Some(cold) = &o.spec.cold_start else {
        let message = format!(
            "{serving} does not score the windows of TraceProfile {first}, which are made of other system calls than \
             those that it was trained on, and spec.coldStart is absent: start a TrainingRun, or set \
             spec.capture.syscalls back"
        );
        return unscored.all.then(|| wait(CAPTURE, message));
    };
    let least = least(o, cold.min_windows);
    if unscored.windows >= least {
        return Some(Decision::Start {
            reason: CAPTURE,
            since: lookback(o),
        });
    }
    let message = format!(
        "{} windows of the {least} for a version instead of {serving}, which was trained on windows of other system \
         calls than TraceProfile {first} lets in now",
        two_digits(unscored.windows)
    );
    unscored.all.then(|| wait("Collecting", message))
}

/// From when on windows that are not scored have not been tried to train on: a run that came to nothing, or took none of
/// them, would do so again.
pub(super) fn untried(status: &RetrainingPolicyStatus, since: Timestamp) -> Timestamp {
    let last = status.last_run.as_ref().filter(|run| run.reason == CAPTURE);
    last.map_or(since, |run| since.max(run.started_at.0))
}

/// A training on what there is, without a version to compare with.
fn anew(o: &Observed<'_>, min_windows: i32, what: &str, reason: &'static str) -> Decision {
    let least = least(o, min_windows);
    if o.windows < least {
        return wait(
            "Collecting",
            format!("{} windows of the {least} for {what}", two_digits(o.windows)),
        );
    }
    Decision::Start {
        reason,
        since: lookback(o),
    }
}

/// Windows without which a run is not started: what it would fail without, and so many.
fn least(o: &Observed<'_>, min_windows: i32) -> u64 {
    let training = &o.spec.training;
    let min_windows = training.data.min_windows.max(min_windows);
    windows::wanted(min_windows, training.workers) as u64
}

/// Whether a run for this reason trains on windows that raised an alert: after drift they are the new normal.
pub(super) fn includes_alerted(reason: &str) -> bool {
    reason == DRIFT
}

fn after_drift(o: &Observed<'_>, serving: &str, drift: Option<&Drift>) -> Decision {
    if o.spec.drift.is_none() {
        return wait(
            "Watching",
            format!("{serving} serves; spec.drift is absent, so nothing is started for drift"),
        );
    }
    let Some(drift) = drift else {
        return wait(
            "Watching",
            format!("{serving} serves; too few windows yet to say whether it drifts"),
        );
    };
    let Some(since) = drift.since.filter(|_| drift.drifted) else {
        return wait("Watching", format!("{serving} serves and does not drift"));
    };
    let least = least(o, 0);
    if o.windows_since_drift < least {
        return wait(
            "CollectingAfterDrift",
            format!(
                "{serving} drifts; {} windows of the {least} since then",
                two_digits(o.windows_since_drift)
            ),
        );
    }
    let since = after_change(since, o.spec);
    Decision::Start { reason: DRIFT, since }
}

/// From when on windows are those of the new behaviour alone: the first evaluation that drifted
/// began before the change and holds what caused it, which may be what an intruder did.
pub(super) fn after_change(drifted_since: Timestamp, spec: &RetrainingPolicySpec) -> Timestamp {
    let every = spec.drift.as_ref().map(|d| std::time::Duration::from(d.every));
    let every = every.and_then(|every| SignedDuration::try_from(every).ok());
    drifted_since
        .checked_add(every.unwrap_or_default())
        .unwrap_or(drifted_since)
}

fn lookback(o: &Observed<'_>) -> Timestamp {
    let lookback = SignedDuration::try_from(std::time::Duration::from(o.spec.training.data.lookback))
        .unwrap_or(SignedDuration::MAX);
    let since = o.now.checked_sub(lookback).unwrap_or(Timestamp::UNIX_EPOCH);
    Timestamp::from_second(since.as_second()).unwrap_or(since)
}

fn run_spec(o: &Observed<'_>, reason: &str, since: Timestamp) -> TrainingRunSpec {
    let training = &o.spec.training;
    TrainingRunSpec {
        model_ref: o.spec.model_ref.clone(),
        reason: reason.to_owned(),
        estimator: training.estimator.clone(),
        workers: training.workers,
        data: DataWindow {
            since: Some(Time(since)),
            until: None,
            min_windows: training.data.min_windows,
            max_windows: training.data.max_windows,
            include_alerted: includes_alerted(reason),
        },
        gates: training.gates.clone(),
        timeout: training.timeout,
    }
}

/// Rounded down to two digits.
fn two_digits(n: u64) -> i64 {
    let scale = 10u64.pow(n.checked_ilog10().unwrap_or(0).saturating_sub(1));
    i64::try_from(n / scale * scale).unwrap_or(i64::MAX)
}

fn human(duration: SignedDuration) -> String {
    format!("{duration:#}")
}

#[cfg(test)]
mod tests;
