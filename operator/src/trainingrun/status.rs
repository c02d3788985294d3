//! What a run's status says in each of its phases. Pure.

use jiff::Timestamp;
use vigia_crds::conditions::{self, READY, RECONCILING, STALLED, Wanted};
use vigia_crds::{RunPhase, TrainingRunSpec, TrainingRunStatus};

use super::data::Prepared;
use super::plan::JobView;
use crate::events::counted;

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

pub(super) fn fail(
    to: &mut TrainingRunStatus,
    generation: i64,
    now: Timestamp,
    reason: &'static str,
    message: &str,
) {
    to.phase = Some(RunPhase::Failed);
    to.finished_at = Some(k8s_time(now));
    let wanted = [
        Wanted::new(READY, false, reason, message),
        Wanted::new(RECONCILING, false, reason, ""),
        Wanted::new(STALLED, true, reason, message),
    ];
    to.conditions = conditions::apply(&to.conditions, &wanted, generation, now);
}

pub(super) fn training(
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

/// Whether the windows of a run were looked at by anybody before it takes them for normal.
const WINDOWS_SCORED: &str = "WindowsScored";

/// Says how many windows no version had scored: had somebody broken in then, that is learnt as normal, and nothing of it
/// is new any more. Of a first version it is all of them.
pub(super) fn say_scored(to: &mut TrainingRunStatus, generation: i64, record: &Prepared, now: Timestamp) {
    let wanted = match record.unscored {
        0 => Wanted::new(
            WINDOWS_SCORED,
            true,
            "AllScored",
            "a version that served has scored all windows, and those that raised an alert are in only where \
             spec.data.includeAlerted is true",
        ),
        unscored => Wanted::new(
            WINDOWS_SCORED,
            false,
            "NeverScored",
            format!(
                "{unscored} of {} were never scored, as no version served when they came: what happened then is \
                 learnt as normal. If that was not all normal, revoke what this run makes and start another one with \
                 spec.data.since or until, which leave a time out",
                counted(record.windows, "window")
            ),
        ),
    };
    to.conditions = conditions::apply(&to.conditions, &[wanted], generation, now);
}

pub(super) fn workers(spec: &TrainingRunSpec, done: i32) -> String {
    format!("{done}/{}", spec.workers)
}

pub(super) fn say(
    to: &mut TrainingRunStatus,
    generation: i64,
    now: Timestamp,
    reason: &'static str,
    message: &str,
) {
    let wanted = [
        Wanted::new(READY, false, reason, message),
        Wanted::new(RECONCILING, true, reason, message),
        Wanted::new(STALLED, false, reason, ""),
    ];
    to.conditions = conditions::apply(&to.conditions, &wanted, generation, now);
}

/// The API keeps whole seconds: what is written must equal what is read back.
pub(super) fn k8s_time(at: Timestamp) -> k8s_openapi::apimachinery::pkg::apis::meta::v1::Time {
    k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(Timestamp::from_second(at.as_second()).unwrap_or(at))
}
