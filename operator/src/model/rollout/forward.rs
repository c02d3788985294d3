//! A rollout on its way: every reason to turn back or to wait, and then a step.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use vigia_crds::{PromotionMode, RolloutPhase, RolloutStatus, RolloutStep, StepMode, VersionState};

use super::{Next, Observed, follow, note, progress, start, turn_back, unfit};
use crate::events::{Severity, counted};
use crate::model::choose::Target;
use crate::model::gates::{self, Evidence, Opinion};
use crate::model::lost;
use crate::model::nodes::{self, NodeView};
use crate::model::version;
use crate::observed::Merged;

/// What agents scored changes without an event, so a rollout with gates is looked at this often.
const POLL: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(15));

/// A rollout is under way: turn back, wait, or go on.
pub(super) fn go_forward(observed: &Observed<'_>, next: &mut Next, mut rollout: RolloutStatus) {
    if let Some((reason, message)) = unfit(observed.versions, &rollout.version) {
        return turn_back(observed, next, rollout, Some(&reason), message);
    }
    let refusal = observed
        .nodes
        .iter()
        .find_map(|n| Some((n, n.refused.get(&rollout.version.digest)?)));
    if let Some((node, (reason, message))) = refusal {
        let why = format!("node {} refused it ({reason}): {message}", node.name);
        return turn_back(observed, next, rollout, Some("Refused"), why);
    }
    let rolled = version::find(observed.versions, &rollout.version.digest);
    let lost = rolled.and_then(lost::sentence);
    let silent = rolled.filter(|v| v.silent).map(|v| {
        format!(
            "no TraceProfile lets in the system calls that {} was trained on",
            v.name
        )
    });
    match next.target.clone() {
        Target::Version(target) if target.digest == rollout.version.digest => {}
        // Under Auto a version that is looked at again is not chosen, and nothing is said against it.
        Target::Version(target)
            if next.status.serving.as_ref() == Some(&target)
                && observed.spec.promotion.mode == PromotionMode::Auto
                && version::good(observed.versions, &rollout.version.digest).is_none() => {}
        Target::Version(target) if next.status.serving.as_ref() == Some(&target) => {
            let why = lost
                .or(silent)
                .unwrap_or_else(|| format!("{} was chosen again", target.name));
            return turn_back(observed, next, rollout, None, why);
        }
        Target::Version(target) => {
            let instead = format!(", instead of {}", rollout.version.name);
            return start(observed, next, target, &instead);
        }
        // What is chosen cannot run, or nothing is: what was begun goes on.
        Target::Nothing | Target::Pending(_) | Target::Unfit { .. } => {}
    }

    let steps = &observed.spec.rollout.steps;
    // The steps may have been changed under way; there is at least one.
    let index = usize::try_from(rollout.step)
        .unwrap_or(0)
        .min(steps.len().saturating_sub(1));
    let Some(step) = steps.get(index) else { return };
    rollout.step = i32::try_from(index).unwrap_or(0);
    let covered = nodes::covered(
        observed.nodes,
        nodes::count_at(steps, index, observed.nodes.len()),
    );
    let readiness = readiness(observed.nodes, &covered, &rollout.version.digest, step.mode);
    rollout.progress = progress(observed, index, readiness.done, readiness.reachable);
    rollout.phase = if observed.spec.rollout.paused {
        RolloutPhase::Paused
    } else {
        RolloutPhase::Progressing
    };

    // A time that is yet to come was written by another hand, or by another clock.
    rollout.step_ready_at = rollout.step_ready_at.filter(|at| at.0 <= observed.now);
    if rollout.step_ready_at.is_none() {
        if readiness.is_ready() {
            rollout.step_ready_at = Some(Time(observed.now));
            next.again = Some(poll(step));
        }
        rollout.message = match lost {
            Some(lost) if !readiness.is_ready() => lost,
            _ => readiness.message(),
        };
        next.status.rollout = Some(rollout);
        return;
    }
    let since = rollout.step_ready_at.as_ref().map_or(observed.now, |t| t.0);
    let held = observed.now.duration_since(since);
    let hold = SignedDuration::try_from(Duration::from(step.hold)).unwrap_or(SignedDuration::MAX);
    let evidence = Evidence {
        new: observed
            .scores
            .scored(&rollout.version.digest, since, Some(&covered)),
        serving: serving_scored(observed, &rollout, since, &covered),
        validation: observed.scores.validation(&rollout.version.digest),
        allowed: allowed(observed.nodes, &covered),
        hold_over: held >= hold,
    };
    let opinions: Vec<(&vigia_crds::RolloutGate, Opinion)> = observed
        .spec
        .rollout
        .gates
        .iter()
        .map(|gate| (gate, gates::judge(gate, &evidence)))
        .collect();
    let failed = opinions.iter().find_map(|(gate, opinion)| match opinion {
        Opinion::Fails(why) => Some((format!("{:?}", gate.metric), why.clone())),
        _ => None,
    });
    if let Some((metric, why)) = failed {
        return turn_back(observed, next, rollout, Some(&metric), why);
    }
    let waits: Vec<&str> = opinions
        .iter()
        .filter_map(|(_, opinion)| match opinion {
            Opinion::Waits(why) => Some(why.as_str()),
            _ => None,
        })
        .collect();
    next.again = Some(poll(step));
    rollout.message = if observed.spec.rollout.paused {
        "spec.rollout.paused is true".to_owned()
    } else if !readiness.is_ready() {
        readiness.message()
    } else if !evidence.hold_over {
        let until = since.saturating_add(hold).unwrap_or(Timestamp::MAX);
        format!("step holds until {}", until.strftime("%H:%M:%SZ"))
    } else {
        waits.join("; ")
    };
    if !rollout.message.is_empty() {
        next.status.rollout = Some(rollout);
        return;
    }
    advance(observed, next, rollout, readiness.away);
}

/// All of a step's conditions hold.
fn advance(observed: &Observed<'_>, next: &mut Next, mut rollout: RolloutStatus, away: usize) {
    let steps = observed.spec.rollout.steps.len();
    let done = usize::try_from(rollout.step).unwrap_or(0) + 1;
    rollout.step_ready_at = None;
    let version = rollout.version.clone();
    if done < steps {
        let sentence = format!("{}: {}", version.name, rollout.progress);
        next.notes.push(note(
            observed,
            Severity::Normal,
            "RolloutStepDone",
            &version,
            &format!("step/{done}"),
            sentence,
        ));
        rollout.step = i32::try_from(done).unwrap_or(i32::MAX);
        rollout.progress = progress(observed, done, 0, 0);
        next.again = None;
    } else {
        let sentence = format!(
            "{} serves on every node that can be reached{}",
            version.name,
            follow(away)
        );
        next.notes.push(note(
            observed,
            Severity::Normal,
            "RolloutComplete",
            &version,
            "complete",
            sentence,
        ));
        rollout.phase = RolloutPhase::Complete;
        rollout.message = String::new();
        next.status.previous = next.status.serving.replace(version);
        next.again = None;
    }
    next.status.rollout = Some(rollout);
}

/// How far before a rollout the serving version is looked at, until there are windows enough.
const BEFORE: [SignedDuration; 3] = [
    SignedDuration::from_hours(1),
    SignedDuration::from_hours(24),
    SignedDuration::from_hours(168),
];

/// What the serving version scored, where a gate compares with it: beside the new one, else at the same time
/// on other nodes, else before. Where the new version is Active the serving one scores nothing, and in the
/// last step it does so nowhere.
fn serving_scored(
    observed: &Observed<'_>,
    rollout: &RolloutStatus,
    since: Timestamp,
    covered: &BTreeSet<String>,
) -> Option<Merged> {
    let serving = observed.status.serving.as_ref()?;
    let gates = observed.spec.rollout.gates.iter();
    let need = gates
        .filter(|g| g.at_most.ends_with('x'))
        .map(|g| g.min_samples)
        .max()?;
    let enough = |merged: &Merged| merged.windows >= u64::try_from(need).unwrap_or(1);
    let scored = |since, nodes| Some(observed.scores.scored(&serving.digest, since, nodes)).filter(enough);
    let before = |lookback| {
        let from = rollout.started_at.0.checked_sub(lookback);
        scored(from.unwrap_or(Timestamp::MIN), None)
    };
    scored(since, Some(covered))
        .or_else(|| scored(since, None))
        .or_else(|| BEFORE.into_iter().find_map(before))
}

/// What the budgets of the step's nodes allow.
fn allowed(nodes: &[NodeView], covered: &BTreeSet<String>) -> f64 {
    let of_step = nodes.iter().filter(|n| covered.contains(&n.name));
    of_step.map(|n| n.allowed).fold(0.0, f64::max)
}

/// How far the nodes of a step are.
struct Readiness {
    done: usize,
    reachable: usize,
    away: usize,
    /// Names of those that can be reached and are not done.
    waiting: String,
}

fn readiness(all: &[NodeView], covered: &BTreeSet<String>, digest: &str, mode: StepMode) -> Readiness {
    let state = match mode {
        StepMode::Shadow => VersionState::Shadow,
        StepMode::Active => VersionState::Active,
    };
    let of_step = || all.iter().filter(|n| covered.contains(&n.name));
    let reachable = || of_step().filter(|n| n.reachable);
    Readiness {
        done: reachable().filter(|n| n.does(digest, state)).count(),
        reachable: reachable().count(),
        away: of_step().filter(|n| !n.reachable).count(),
        waiting: nodes::names(reachable().filter(|n| !n.does(digest, state))),
    }
}

impl Readiness {
    /// A step of which no node answers is not ready: nothing would be known of it.
    fn is_ready(&self) -> bool {
        self.reachable > 0 && self.done == self.reachable
    }

    fn message(&self) -> String {
        if self.reachable == 0 {
            let away = counted(self.away as u64, "node");
            format!("of the step's {away} none can be reached")
        } else if self.is_ready() {
            String::new()
        } else {
            let Self {
                reachable, waiting, ..
            } = self;
            let many = reachable - self.done;
            format!(
                "waiting for {many} of {} ({waiting}){}",
                counted(*reachable as u64, "node"),
                follow(self.away)
            )
        }
    }
}

fn poll(step: &RolloutStep) -> Duration {
    (Duration::from(step.hold) / 10).clamp(POLL.0, POLL.1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{at, model};
    use crate::model::rollout::Scores;
    use serde_json::json;
    use vigia_crds::{ModelStatus, ServedVersion};
    use vigia_model::histogram::ScoreHistogram;

    const STEP: i64 = 1_000_000;

    /// The serving version called nine of ten windows odd until the step, and scored a few late ones since.
    struct Drifted {
        late: u64,
        elsewhere: u64,
    }

    impl Scores for Drifted {
        fn scored(&self, _: &str, since: Timestamp, nodes: Option<&BTreeSet<String>>) -> Merged {
            let windows = match nodes {
                _ if since < at(STEP - 3600) => 1000,
                Some(_) => self.late,
                None => self.late + self.elsewhere,
            };
            Merged {
                windows,
                above_threshold: windows * 9 / 10,
                ..Merged::default()
            }
        }

        fn validation(&self, _: &str) -> Option<ScoreHistogram> {
            None
        }
    }

    #[test]
    fn the_last_step_is_compared_with_what_served_before_it() {
        let windows = |at_most: &str, scores: Drifted| {
            let gates = json!([{"metric": "AlertRate", "atMost": at_most, "minSamples": 20}]);
            let model = model(
                "shop",
                "m",
                json!({"task": "Anomaly", "rollout": {"gates": gates}}),
            );
            let version = |name: &str| ServedVersion {
                name: name.to_owned(),
                digest: name.to_owned(),
            };
            let status = ModelStatus {
                serving: Some(version("old")),
                ..ModelStatus::default()
            };
            let rollout = RolloutStatus {
                version: version("new"),
                phase: RolloutPhase::Progressing,
                step: 2,
                progress: String::new(),
                started_at: Time(at(STEP - 100)),
                step_ready_at: Some(Time(at(STEP))),
                message: String::new(),
                step_began_at: None,
                traceparent: None,
            };
            let observed = Observed {
                spec: &model.spec,
                generation: 1,
                status: &status,
                versions: &[],
                nodes: &[],
                scores: &scores,
                now: at(STEP + 60),
            };
            let covered = BTreeSet::from(["n1".to_owned()]);
            serving_scored(&observed, &rollout, at(STEP), &covered).map(|m| m.windows)
        };
        let scores = |late, elsewhere| Drifted { late, elsewhere };
        assert_eq!(windows("2x", scores(1, 0)), Some(1000));
        assert_eq!(windows("2x", scores(1, 50)), Some(51));
        assert_eq!(windows("2x", scores(30, 50)), Some(30));
        assert_eq!(windows("0.2", scores(30, 50)), None);
    }
}
