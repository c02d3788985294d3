//! A rollout on its way: every reason to turn back or to wait, and then a step.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use vigia_crds::{RolloutPhase, RolloutStatus, RolloutStep, StepMode, VersionState};

use super::{Next, Observed, follow, note, progress, start, turn_back, unfit};
use crate::events::Severity;
use crate::model::choose::Target;
use crate::model::gates::{self, Evidence, Opinion};
use crate::model::nodes::{self, NodeView};

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
    match next.target.clone() {
        Target::Version(target) if target.digest == rollout.version.digest => {}
        Target::Version(target) if next.status.serving.as_ref() == Some(&target) => {
            let why = format!("{} was chosen again", target.name);
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
    let covered = nodes::covered(observed.nodes, nodes::count(&step.nodes, observed.nodes.len()));
    let readiness = readiness(observed.nodes, &covered, &rollout.version.digest, step.mode);
    rollout.progress = progress(observed, index, readiness.done, readiness.reachable);
    rollout.phase = if observed.spec.rollout.paused {
        RolloutPhase::Paused
    } else {
        RolloutPhase::Progressing
    };

    if rollout.step_ready_at.is_none() {
        if readiness.is_ready() {
            rollout.step_ready_at = Some(Time(observed.now));
            next.again = Some(poll(step));
        }
        rollout.message = readiness.message();
        next.status.rollout = Some(rollout);
        return;
    }
    let since = rollout.step_ready_at.as_ref().map_or(observed.now, |t| t.0);
    let held = observed.now.duration_since(since);
    let hold = SignedDuration::try_from(Duration::from(step.hold)).unwrap_or(SignedDuration::MAX);
    let evidence = |hold_over| {
        evidence(
            observed,
            next,
            &rollout.version.digest,
            since,
            &covered,
            hold_over,
        )
    };
    let evidence = evidence(held >= hold);
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

fn evidence(
    observed: &Observed<'_>,
    next: &Next,
    digest: &str,
    since: Timestamp,
    covered: &BTreeSet<String>,
    hold_over: bool,
) -> Evidence {
    let serving = next.status.serving.as_ref().map(|serving| {
        // Where the new version is Active the serving one scores nothing: then it is looked for on
        // the other nodes, at the same time.
        let beside = observed.scores.scored(&serving.digest, since, Some(covered));
        if beside.windows > 0 {
            beside
        } else {
            observed.scores.scored(&serving.digest, since, None)
        }
    });
    Evidence {
        new: observed.scores.scored(digest, since, Some(covered)),
        serving,
        validation: observed.scores.validation(digest),
        hold_over,
    }
}

/// How far the nodes of a step are.
struct Readiness {
    done: usize,
    reachable: usize,
    away: usize,
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
    }
}

impl Readiness {
    /// A step of which no node answers is not ready: nothing would be known of it.
    fn is_ready(&self) -> bool {
        self.reachable > 0 && self.done == self.reachable
    }

    fn message(&self) -> String {
        if self.reachable == 0 {
            format!("none of the step's {} nodes can be reached", self.away)
        } else if self.is_ready() {
            String::new()
        } else {
            let waiting = self.reachable - self.done;
            format!(
                "waiting for {waiting} of {} nodes{}",
                self.reachable,
                follow(self.away)
            )
        }
    }
}

fn poll(step: &RolloutStep) -> Duration {
    (Duration::from(step.hold) / 10).clamp(POLL.0, POLL.1)
}
