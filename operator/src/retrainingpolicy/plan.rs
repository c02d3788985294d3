//! Whether to train now, and what the policy's status says. Pure.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use vigia_crds::conditions::{self, READY, RECONCILING, STALLED, Wanted};
use vigia_crds::{DataWindow, LastRun, RetrainingPolicySpec, RetrainingPolicyStatus, TrainingRunSpec};

use crate::observed::drift::Drift;
use crate::trainingrun::windows;

/// Reason of a run that makes a first version.
pub const COLD_START: &str = "ColdStart";
/// Reason of a run after drift.
pub const DRIFT: &str = "Drift";
/// Reason of a run that replaces a version whose artifact the store has lost.
pub const LOST: &str = "ArtifactLost";
/// Longest wait after runs that failed one after the other.
const LONGEST_COOLDOWN: SignedDuration = SignedDuration::from_hours(24);
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
        if age < cooldown {
            return wait(
                "CoolingDown",
                format!(
                    "nothing is started within {} of the start of TrainingRun {}",
                    human(cooldown),
                    last.name
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
        (Some(serving), None) => after_drift(o, serving, drift),
    }
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

/// Least time between the starts of two runs: twice as long with each run that failed since the last
/// one that did not, as what fails for its data would fail again a moment later.
fn cooldown(o: &Observed<'_>) -> SignedDuration {
    let cooldown =
        SignedDuration::try_from(std::time::Duration::from(o.spec.cooldown)).unwrap_or(SignedDuration::MAX);
    let mut runs: Vec<&RunView> = o.runs.iter().collect();
    runs.sort_by_key(|run| std::cmp::Reverse((run.created, run.name.len(), &run.name)));
    let failures = runs.iter().take_while(|run| run.failed).count();
    // Of the failed ones only the newest are kept; numbers tell how many there were since the last that did not.
    let numbered = runs
        .iter()
        .filter_map(|run| Some((number(o.name, &run.name)?, run.failed)));
    let (mut newest, mut held) = (0, 0);
    for (number, failed) in numbered {
        newest = newest.max(number);
        held = if failed { held } else { held.max(number) };
    }
    let failures = match failures {
        0 => 0,
        some => usize::try_from(newest - held).unwrap_or(usize::MAX).max(some),
    };
    let longest = cooldown.max(LONGEST_COOLDOWN);
    cooldown
        .checked_mul(1 << failures.min(16))
        .unwrap_or(longest)
        .min(longest)
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

/// Number of a run of this policy.
pub(super) fn number(policy: &str, run: &str) -> Option<u64> {
    run.strip_prefix(policy)?.strip_prefix('-')?.parse().ok()
}

/// `<policy>-<n>`, one more than any there is or was: the same until a run of this name is seen.
fn next_name(o: &Observed<'_>) -> String {
    let last = o.status.last_run.iter().map(|r| r.name.as_str());
    // A run of another Model may have a name of this form too, where a person chose it.
    let names = o.taken.iter().map(String::as_str).chain(last);
    let largest = names.filter_map(|name| number(o.name, name)).max().unwrap_or(0);
    format!("{}-{}", o.name, largest.saturating_add(1))
}

/// The last run that this policy started: as the status has it, or the newest there is, should the operator
/// have been killed between the start and the write of the status.
fn last_run(o: &Observed<'_>) -> Option<LastRun> {
    let newest = o
        .runs
        .iter()
        .filter_map(|run| Some((number(o.name, &run.name)?, run)))
        .max_by_key(|(number, _)| *number);
    let known = o.status.last_run.as_ref().and_then(|r| number(o.name, &r.name));
    match newest {
        Some((number, run)) if Some(number) > known => Some(LastRun {
            name: run.name.clone(),
            reason: run.reason.clone(),
            started_at: Time(run.created),
        }),
        _ => o.status.last_run.clone(),
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
mod tests {
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
}
