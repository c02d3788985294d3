//! The rollout of a version over the nodes of a Model, as a state machine without effects.
//!
//! ```text
//!            target ≠ serving              every step ready, held, gates hold
//!  (none) ─────────────────────▶ Progressing ──────────────────────────────▶ Complete
//!                                 │      ▲ ▼ spec.rollout.paused
//!                                 │     Paused
//!      gate fails, node refuses,  │       │
//!      revoked, undone            ▼       ▼
//!                                RollingBack ──every reachable node serves as before──▶ RolledBack
//! ```
//!
//! Another target starts another rollout from wherever the last one is. A version that failed is no target
//! until the spec changes.
//!
//! [`step`] looks at what is and gives the next status, one transition at a time. It never asks
//! what it did before: a status that could not be written is derived again.

mod forward;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::collections::BTreeSet;
use std::time::Duration;
use vigia_crds::{
    FailedVersion, ModelSpec, ModelStatus, PromotionMode, RolloutPhase, RolloutStatus, ServedVersion,
    StepMode, VersionState,
};
use vigia_model::histogram::ScoreHistogram;

use self::forward::go_forward;
use super::assign::is_forward;
use super::choose::{self, Target};
use super::nodes::{self, NodeView};
use super::version::{self, Verdict, VersionView};
use crate::events::{Note, Severity, counted};
use crate::observed::Merged;

/// Failed versions that are remembered: the bound of the schema.
const MAX_FAILED: usize = 16;

/// What is, as far as a rollout needs it.
pub struct Observed<'a> {
    /// The Model's spec.
    pub spec: &'a ModelSpec,
    /// The generation of that spec.
    pub generation: i64,
    /// The Model's status.
    pub status: &'a ModelStatus,
    /// The Model's versions.
    pub versions: &'a [VersionView],
    /// The Model's nodes, in the order of the rollout.
    pub nodes: &'a [NodeView],
    /// What agents scored.
    pub scores: &'a dyn Scores,
    /// The time.
    pub now: Timestamp,
}

/// What agents scored, and what validation did.
pub trait Scores {
    /// What a version scored since a time on some nodes, or on all.
    fn scored(&self, digest: &str, since: Timestamp, nodes: Option<&BTreeSet<String>>) -> Merged;
    /// The scores of a version's validation, where its artifact was read.
    fn validation(&self, digest: &str) -> Option<ScoreHistogram>;
}

/// What should be.
#[derive(Clone, Debug, PartialEq)]
pub struct Next {
    /// The next status; its conditions and drift are those of before.
    pub status: ModelStatus,
    /// What people are told.
    pub notes: Vec<Note>,
    /// Look again after this, even if nothing changes.
    pub again: Option<Duration>,
    /// What should serve.
    pub target: Target,
}

/// The next transition, or the same status where there is none.
pub fn step(observed: &Observed<'_>) -> Next {
    let status = observed.status;
    let target = choose::target(
        observed.spec,
        observed.generation,
        observed.versions,
        status.serving.as_ref(),
        &status.failed,
    );
    let mut next = Next {
        status: status.clone(),
        notes: vec![],
        again: None,
        target,
    };
    next.status.observed_generation = observed.generation;
    if let Some(previous) = &status.previous
        && version::kept(observed.versions, &previous.digest).is_none()
    {
        next.status.previous = None;
    }
    if withdraw_serving(observed, &mut next) {
        return next;
    }
    complete_what_serves(&mut next.status);
    match next.status.rollout.clone() {
        Some(rollout) if rollout.phase == RolloutPhase::RollingBack => go_back(observed, &mut next, rollout),
        Some(rollout) if is_forward(rollout.phase) => go_forward(observed, &mut next, rollout),
        _ => begin(observed, &mut next),
    }
    next
}

/// The version that serves may no longer run: the one before it serves again, at once.
fn withdraw_serving(observed: &Observed<'_>, next: &mut Next) -> bool {
    let Some(serving) = next.status.serving.clone() else {
        return false;
    };
    let Some((reason, message)) = unfit(observed.versions, &serving) else {
        return false;
    };
    let former = next.status.previous.take();
    fail(observed, &mut next.status, &serving.digest, &reason);
    let to = former
        .as_ref()
        .map_or("no version".to_owned(), |f| f.name.clone());
    let sentence = format!(
        "{} serves no more: {message}; nodes go back to {to}",
        serving.name
    );
    next.notes.push(note(
        observed,
        Severity::Warning,
        "RolledBack",
        &serving,
        &format!("withdrawn/{reason}"),
        sentence.clone(),
    ));
    next.status.serving = former;
    let busy = next.status.rollout.as_ref().is_some_and(|r| {
        r.version.digest != serving.digest && (is_forward(r.phase) || r.phase == RolloutPhase::RollingBack)
    });
    if !busy {
        next.status.rollout = Some(RolloutStatus {
            version: serving,
            phase: RolloutPhase::RollingBack,
            step: 0,
            progress: String::new(),
            started_at: Time(observed.now),
            step_ready_at: None,
            message: sentence,
            step_began_at: None,
            traceparent: None,
        });
    }
    true
}

/// A rollout of the version that serves is complete, whatever is written there: by another hand, or before what
/// served was withdrawn.
fn complete_what_serves(status: &mut ModelStatus) {
    let serving = status.serving.as_ref().map(|s| &s.digest);
    if let Some(rollout) = &mut status.rollout
        && Some(&rollout.version.digest) == serving
        && rollout.phase != RolloutPhase::Complete
    {
        rollout.phase = RolloutPhase::Complete;
        "serves".clone_into(&mut rollout.progress);
        rollout.step_ready_at = None;
        rollout.message = String::new();
    }
}

/// Why a version must not run, where it must not. A version whose ModelVersion is gone cannot be
/// known to be good.
fn unfit(versions: &[VersionView], served: &ServedVersion) -> Option<(String, String)> {
    match version::find(versions, &served.digest).map(|v| &v.verdict) {
        None => Some(("Deleted".to_owned(), "its ModelVersion was deleted".to_owned())),
        Some(Verdict::Bad { reason, message }) => Some((reason.clone(), message.clone())),
        Some(Verdict::Good | Verdict::Pending) => None,
    }
}

/// No rollout is under way: begin one where another version should serve.
fn begin(observed: &Observed<'_>, next: &mut Next) {
    let Target::Version(target) = next.target.clone() else {
        return;
    };
    let status = &mut next.status;
    let last = status.rollout.as_ref();
    if status.serving.as_ref().is_some_and(|s| s.digest == target.digest) {
        // Git went back to what serves: the rollout that failed is not the last word any more.
        let undone = last.is_some_and(|r| r.version.digest != target.digest);
        if undone && observed.spec.promotion.mode == PromotionMode::GitOps {
            status.rollout = Some(RolloutStatus {
                version: target,
                phase: RolloutPhase::Complete,
                step: i32::try_from(observed.spec.rollout.steps.len().saturating_sub(1)).unwrap_or(0),
                progress: "as chosen".to_owned(),
                started_at: Time(observed.now),
                step_ready_at: None,
                message: String::new(),
                step_began_at: None,
                traceparent: None,
            });
        }
        return;
    }
    if may_start(observed, next, &target) {
        start(observed, next, target, "");
    }
}

/// Whether another version than the one that serves may be rolled out now: it did not fail under this spec.
fn may_start(observed: &Observed<'_>, next: &Next, target: &ServedVersion) -> bool {
    let serves = next
        .status
        .serving
        .as_ref()
        .is_some_and(|s| s.digest == target.digest);
    let is_out = choose::is_out(&next.status.failed, &target.digest, observed.generation);
    !serves && !is_out && !observed.nodes.is_empty()
}

fn start(observed: &Observed<'_>, next: &mut Next, version: ServedVersion, instead: &str) {
    let from = next
        .status
        .serving
        .as_ref()
        .map_or("nothing", |s| s.name.as_str());
    let nodes = counted(observed.nodes.len() as u64, "node");
    let sentence = format!(
        "{} is rolled out over {nodes}, from {from}{instead}",
        version.name
    );
    next.notes.push(note(
        observed,
        Severity::Normal,
        "RolloutStarted",
        &version,
        "start",
        sentence,
    ));
    next.status.failed.retain(|f| f.digest != version.digest);
    next.status.rollout = Some(RolloutStatus {
        version,
        phase: if observed.spec.rollout.paused {
            RolloutPhase::Paused
        } else {
            RolloutPhase::Progressing
        },
        step: 0,
        progress: progress(observed, 0, 0, 0),
        started_at: Time(observed.now),
        step_ready_at: None,
        message: String::new(),
        step_began_at: None,
        traceparent: None,
    });
}

/// Back to the version that serves. `failed` says why it is not to be tried again.
fn turn_back(
    observed: &Observed<'_>,
    next: &mut Next,
    mut rollout: RolloutStatus,
    failed: Option<&str>,
    why: String,
) {
    let to = next
        .status
        .serving
        .as_ref()
        .map_or("no version", |s| s.name.as_str());
    let sentence = format!("{} is rolled back to {to}: {why}", rollout.version.name);
    let key = format!("back/{}/{}", rollout.step, failed.unwrap_or("Undone"));
    next.notes.push(note(
        observed,
        Severity::Warning,
        "RollingBack",
        &rollout.version,
        &key,
        sentence,
    ));
    if let Some(reason) = failed {
        fail(observed, &mut next.status, &rollout.version.digest, reason);
    }
    rollout.phase = RolloutPhase::RollingBack;
    rollout.step_ready_at = None;
    rollout.message = why;
    next.status.rollout = Some(rollout);
}

/// Nodes are on their way back: done when each that can be reached serves as before. What is chosen
/// meanwhile does not wait for that: one node that hangs must not stand in the way of the version that
/// mends it.
fn go_back(observed: &Observed<'_>, next: &mut Next, mut rollout: RolloutStatus) {
    if let Target::Version(target) = next.target.clone()
        && may_start(observed, next, &target)
    {
        let instead = format!(", while nodes go back from {}", rollout.version.name);
        return start(observed, next, target, &instead);
    }
    let serving = next.status.serving.as_ref();
    let back = |node: &&NodeView| {
        let serves = serving.is_none_or(|s| {
            node.does(&s.digest, VersionState::Active) || node.refused.contains_key(&s.digest)
        });
        // The version may serve again already, after a revocation of another.
        let left = serving.is_some_and(|s| s.digest == rollout.version.digest)
            || !node.runs(&rollout.version.digest);
        serves && left
    };
    let reachable = || observed.nodes.iter().filter(|n| n.reachable);
    let (done, all) = (reachable().filter(back).count(), reachable().count());
    rollout.progress = format!("{done}/{all} nodes are back");
    if done < all {
        let waiting = nodes::names(reachable().filter(|n| !back(n)));
        rollout.progress = format!("{}, waiting for {waiting}", rollout.progress);
    }
    if done == all {
        rollout.phase = RolloutPhase::RolledBack;
        let to = serving.map_or("no version".to_owned(), |s| s.name.clone());
        let away = observed.nodes.len() - all;
        let sentence = format!(
            "{} is rolled back: {to} serves again on {}{}",
            rollout.version.name,
            counted(all as u64, "node"),
            follow(away)
        );
        let version = rollout.version.clone();
        next.notes.push(note(
            observed,
            Severity::Warning,
            "RolledBack",
            &version,
            &format!("done/{}", rollout.step),
            sentence,
        ));
    }
    next.status.rollout = Some(rollout);
}

fn follow(away: usize) -> String {
    match away {
        0 => String::new(),
        1 => "; 1 node cannot be reached and follows when it returns".to_owned(),
        n => format!("; {n} nodes cannot be reached and follow when they return"),
    }
}

fn progress(observed: &Observed<'_>, index: usize, done: usize, of: usize) -> String {
    let steps = &observed.spec.rollout.steps;
    let mode = steps.get(index).map_or(StepMode::Active, |s| s.mode);
    format!("{}/{} {mode:?} {done}/{of}", index + 1, steps.len())
}

fn fail(observed: &Observed<'_>, status: &mut ModelStatus, digest: &str, reason: &str) {
    status.failed.retain(|f| f.digest != digest);
    status.failed.push(FailedVersion {
        digest: digest.to_owned(),
        reason: reason.to_owned(),
        generation: observed.generation,
    });
    let surplus = status.failed.len().saturating_sub(MAX_FAILED);
    status.failed.drain(..surplus);
}

/// The key makes a transition one Event, however often it is derived. It has the start of the rollout that it is derived
/// from, as kept: a later attempt at the same version begins where that one has ended, and is another one.
fn note(
    observed: &Observed<'_>,
    severity: Severity,
    reason: &'static str,
    version: &ServedVersion,
    key: &str,
    note: String,
) -> Note {
    let last = observed.status.rollout.as_ref();
    let last = last.map_or(0, |rollout| rollout.started_at.0.as_second());
    Note {
        severity,
        reason,
        action: "Rollout",
        note,
        key: format!("{}/{}/{last}/{key}", observed.generation, version.digest),
    }
}
